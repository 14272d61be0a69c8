"""Wrong calls, for test_cures.py, which makes them and follows what their messages say.

Where a message advises in prose, a case says which words it has to hold and what somebody does who
follows them.
"""

from dataclasses import dataclass

# What every case has: weights of cells in float64, layers in float32, and a bit of training.
COMMON = """
w_ih, w_hh = np.linspace(-1, 1, 12).reshape(4, 3), np.linspace(-1, 1, 16).reshape(4, 4)
weight = np.linspace(-1, 1, 30).reshape(10, 3)
rnn, lstm, gru = fastrnn.RNN(3, 4, rng=0), fastrnn.LSTM(3, 4, rng=1), fastrnn.GRU(3, 4, rng=2)
head, embedding = fastrnn.Linear(4, 2, rng=3), fastrnn.Embedding(10, 3, rng=4)
layer = rnn
steps = np.linspace(-1, 1, 30, dtype=np.float32).reshape(5, 2, 3)
output, last, tape = layer.forward(steps)
grads = layer.backward(tape, output)
adam = fastrnn.optim.Adam(layer.flat_weights)
logits, labels = np.linspace(-1, 1, 30).reshape(5, 2, 3), np.arange(10).reshape(5, 2) % 3
"""


@dataclass
class Case:
    setup: str
    call: str
    said: str = ""  # words that the message has to hold
    done: str = ""  # by somebody who follows them, where they are prose
    needs: str = ""  # another library


CASES: dict[str, Case] = {
    # -------------------------------------------------------------------- types of arrays
    "integers where the weights are float64": Case(
        "x = np.ones((5, 2, 3), int)", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "lists where the weights are float64": Case(
        "x = [[[1, 2, 3], [4, 5, 6]]]", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "float32 where the weights are float64": Case(
        "x = np.ones((5, 2, 3), np.float32)", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "all of them lists": Case(
        "x, w_ih, w_hh = [[[1, 2, 3]]], w_ih.tolist(), w_hh.tolist()",
        "fastrnn.rnn_forward(x, None, w_ih, w_hh)", "; likewise w_ih and w_hh"),
    "all of them integers": Case(
        "x, w_ih, w_hh = (np.ones(s, int) for s in ((5, 2, 3), (4, 3), (4, 4)))",
        "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "float16": Case("x = steps.astype(np.float16)", "layer(x)"),
    "another float than the layer's": Case("x = steps.astype(np.float64)", "layer(x)"),
    "complex numbers": Case("x = steps.astype(complex)", "layer(x)"),
    "objects that are numbers": Case("x = steps.astype(object)", "layer(x)"),
    "text that is numbers": Case("x = steps.astype(str)", "layer(x)"),
    "a mask": Case("x = np.ma.array(steps, mask=steps > 0)", "layer(x)"),
    "a generator": Case("x = (step for step in steps)", "layer(x)"),
    "a list of steps": Case("x = list(steps)", "assert (layer(x)[0] == output).all()"),
    "a list of sequences": Case(
        "x = list(steps.swapaxes(0, 1))", "assert (layer(x)[0] == output).all()", "of sequences",
        "x = fastrnn.pad_sequence([np.asarray(a, np.float32) for a in x])[0]"),
    "a weight of integers for an output layer": Case(
        "weight = np.ones((2, 3), int)", "fastrnn.linear_forward(steps, weight)"),
    "a gradient of another float": Case(
        "d_output = output.astype(np.float64)", "layer.backward(tape, d_output)"),
    "a number for a gradient": Case("d_output = 1.0", "layer.backward(tape, d_output)"),
    "a state of zero": Case("state = 0", "gru(steps, state)"),
    "a scalar bias": Case("b_ih = 0.5",
        "x = np.ones((5, 2, 3)); fastrnn.rnn_forward(x, None, w_ih, w_hh, b_ih)"),
    "a bias of zero": Case("bias = 0", "fastrnn.linear_forward(np.ones(3), w_ih, bias)"),
    "no bias, as layers say it": Case(
        "bias = False", "fastrnn.linear_forward(np.ones(3), w_ih, bias)"),
    "a bias of no axis": Case(
        "bias = np.array(0.5)", "fastrnn.linear_forward(np.ones(3), w_ih, bias)"),
    "a tensor": Case("x = torch.ones(5, 2, 3)", "layer(x)", needs="torch"),
    "a tensor that requires grad": Case(
        "x = torch.ones(5, 2, 3, requires_grad=True)", "layer(x)", needs="torch"),
    "a tensor of bfloat16": Case(
        "x = torch.ones(5, 2, 3, dtype=torch.bfloat16)", "layer(x)", needs="torch"),
    "a tensor for weights of float64": Case(
        "x = torch.ones(5, 2, 3, requires_grad=True)", "fastrnn.rnn_forward(x, None, w_ih, w_hh)",
        needs="torch"),
    "a sparse matrix": Case(
        "import scipy.sparse; x = scipy.sparse.eye(5, 3).tocsr()", "layer(x)", needs="scipy"),
    # -------------------------------------------------------------------- sequences
    "indices as x": Case(
        "x = np.ones((5, 2), int)", "fastrnn.rnn_forward(x, None, w_ih, w_hh)", "embedding_f"),
    "indices as a layer's x": Case(
        "x, weight = np.ones((5, 2), int), embedding.weights['weight']", "layer(x)"),
    "indices with an axis of one": Case(
        "x, weight = np.ones((5, 2, 1), int), embedding.weights['weight']", "layer(x)"),
    "one sequence of indices": Case(
        "x, weight = np.arange(5), embedding.weights['weight']", "layer(x)"),
    "a ragged list": Case(
        "x = [[[1., 2., 3.]], [[1., 2., 3.], [4., 5., 6.]]]", "layer(x)", "pad_sequence"),
    "a ragged list with the batch first": Case(
        "batched = fastrnn.RNN(3, 4, batch_first=True); x = [np.ones((1, 3)), np.ones((2, 3))]",
        "batched(x)", "batch_first=True"),
    "a ragged list of numbers": Case(
        "x, of_one = [[1., 2.], [1., 2., 3.]], fastrnn.RNN(1, 4)",
        "assert of_one(x)[0].shape == (3, 2, 4)"),
    "a ragged list of indices": Case(
        "x, weight = [[1, 2], [3, 4, 5]], embedding.weights['weight']",
        "assert layer(x)[0].shape == (3, 2, 4)"),
    "an array of arrays": Case(
        "x = np.array([np.ones((1, 3)), np.ones((2, 3))], dtype=object)", "layer(x)"),
    "a ragged list of tensors": Case(
        "x = [torch.ones(1, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)]",
        "layer(x)", needs="torch"),
    "ragged indices": Case("indices = [[1, 2], [3]]", "embedding(indices)"),
    "steps without an axis of features": Case(
        "x = np.ones((5, 2), np.float32)",
        "assert fastrnn.RNN(1, 4)(x)[0].shape == (5, 2, 4)"),
    "one sequence of numbers": Case("x = np.ones(5, np.float32)", "fastrnn.RNN(1, 4)(x)"),
    "a layer's pair": Case("x = layer(steps)", "head(x)", r"(output, state)"),
    "an LSTM's pair": Case("x = lstm(steps)", "head(x)"),
    "what forward returns": Case("x = layer.forward(steps)", "head(x)", "(output, state, tape)"),
    "logits with their tape": Case(
        "logits = head.forward(output)", "fastrnn.softmax_cross_entropy(logits, labels % 2)"),
    "no leak": Case(
        "x, leak = np.ones((5, 2, 3)), None",
        "fastrnn.leaky_forward(x, None, w_ih, w_hh, leak=leak)", "it cannot be left out",
        "leak = 1.0"),
    "a list of leaks": Case(
        "x, leak = np.ones((5, 2, 3)), [0.1, 0.2, 0.3, 0.4]",
        "fastrnn.leaky_forward(x, None, w_ih, w_hh, leak=leak)"),
    "leaks of another float": Case(
        "x, leak = np.ones((5, 2, 3)), np.full(4, 0.3, np.float32)",
        "fastrnn.leaky_forward(x, None, w_ih, w_hh, leak=leak)"),
    "leaks in a column": Case(
        "x, leak = np.ones((5, 2, 3)), np.full((4, 1), 0.3)",
        "fastrnn.leaky_forward(x, None, w_ih, w_hh, leak=leak)"),
    "a leak that is a bool": Case(
        "x, leak = np.ones((5, 2, 3)), True",
        "fastrnn.leaky_forward(x, None, w_ih, w_hh, leak=leak)"),
    "a leak that is a string": Case(
        "x, leak = np.ones((5, 2, 3)), '0.3'",
        "fastrnn.leaky_forward(x, None, w_ih, w_hh, leak=leak)"),
    "masked leaks": Case(
        "x, leak = np.ones((5, 2, 3)), np.ma.array([0.1, 0.2, 0.3, 0.4], mask=[1, 0, 0, 0])",
        "fastrnn.leaky_forward(x, None, w_ih, w_hh, leak=leak)"),
    "a list of leaks for a layer": Case(
        "leak = [0.1, 0.2, 0.3, 0.4]",
        "own = fastrnn.LeakyRNN(3, 4, leak=leak); assert own.weights['weight_leak_l0'][1] > 0.19"),
    "leaks in a row for a layer": Case(
        "leak = np.full((1, 4), 0.3)", "fastrnn.LeakyRNN(3, 4, leak=leak)"),
    "a leak that is set": Case(
        "layer, value = fastrnn.LeakyRNN(3, 4, num_layers=2, rng=0), 0.3",
        "if not (layer.weights['weight_leak_l1'] == np.float32(0.3)).all(): layer.leak = value"),
    "leaks that are set": Case(
        "layer, value = fastrnn.LeakyRNN(3, 4, rng=0), np.linspace(0.1, 0.4, 4, dtype=np.float32)\n"
        "before = layer.flat_weights.copy()",
        "if not (layer.weights['weight_leak_l0'] == value).all(): layer.leak = value\n"
        "assert (layer.flat_weights == before).sum() == len(before) - 4"),
    "a batch first": Case(
        "x, h_0 = np.ones((2, 5, 3)), np.ones((2, 4))",
        "fastrnn.rnn_forward(x, h_0, w_ih, w_hh)"),
    "a state with torch's first axis": Case(
        "x, h_0 = np.ones((5, 2, 3)), np.ones((1, 2, 4))",
        "fastrnn.rnn_forward(x, h_0, w_ih, w_hh)"),
    "a state without it": Case("state = np.zeros((2, 4), np.float32)", "gru(steps, state)"),
    "h for an LSTM": Case("state = np.zeros((1, 2, 4), np.float32)", "lstm(steps, state)"),
    "an LSTM's state in one array": Case(
        "state = np.zeros((2, 1, 2, 4), np.float32)", "lstm(steps, state)"),
    "an LSTM's state without c": Case(
        "state = [np.zeros((1, 2, 4), np.float32), None]", "lstm(steps, state)"),
    "an LSTM's state for a GRU": Case(
        "state = (np.zeros((1, 2, 4), np.float32),) * 2", "gru(steps, state)"),
    "the gradient of h for an LSTM": Case(
        "_, (h, c), its = lstm.forward(steps); d_state = h", "lstm.backward(its, None, d_state)"),
    "weights that are transposed": Case(
        "x, w_ih = np.ones((5, 2, 3)), w_ih.T", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "weights of gates that are transposed": Case(
        "x, w_ih, w_hh = np.ones((5, 2, 3)), np.ones((3, 16)), np.ones((4, 16))",
        "fastrnn.lstm_forward(x, None, None, w_ih, w_hh)"),
    "a bias that is a column": Case(
        "x, b_ih = np.ones((5, 2, 3)), np.ones((4, 1))",
        "fastrnn.rnn_forward(x, None, w_ih, w_hh, b_ih)"),
    "lengths as floats": Case(
        "lengths = np.array([5.0, 3.0])", "layer(steps, lengths=lengths)"),
    "lengths as a list of floats": Case("lengths = [5.0, 3.0]", "layer(steps, lengths=lengths)"),
    "one length for a batch": Case("lengths = 3", "layer(steps, lengths=lengths)"),
    "a reset mask of integers": Case(
        "restart = [[0, 1]] * 5", "layer(steps, restart=restart)"),
    "unequal sequences that are lists": Case(
        "sequences = [[1, 2], [3], []]", "fastrnn.pad_sequence(sequences)"),
    "unequal sequences of two types": Case(
        "sequences = [np.arange(2), np.ones(3), np.ones(1, np.float32)]",
        "fastrnn.pad_sequence(sequences)"),
    "the layer's pair for its state": Case(
        "state = rnn(steps)",
        "assert (rnn(steps, state)[0] == rnn(steps, rnn(steps)[1])[0]).all()"),
    "the layer's pair for the state of an LSTM": Case(
        "state = list(lstm(steps))",
        "assert (lstm(steps, state)[0] == lstm(steps, lstm(steps)[1])[0]).all()"),
    "all that forward returns for the state of an LSTM": Case(
        "state = lstm.forward(steps)", "lstm(steps, state)"),
    "one array that may be state and output": Case(
        "two = fastrnn.RNN(3, 4, num_layers=2); state = two(steps[:2])", "two(steps[:2], state)",
        "of a layer's (output, state) state[1]", "state = state[1]"),
    "an LSTM's state of two Nones": Case("state = (None, None)", "lstm(steps, state)"),
    "an LSTM's state with h alone in it": Case(
        "state = (lstm(steps)[1][0],)", "lstm(steps, state)"),
    "the pair for an LSTM function's h_0": Case(
        "x, w_ih, w_hh = np.ones((5, 2, 3)), np.ones((16, 3)), np.ones((16, 4))\n"
        "h_0, c_0 = (np.ones((2, 4)), np.ones((2, 4))), None",
        "fastrnn.lstm_forward(x, h_0, c_0, w_ih, w_hh)", "h_0[0], and h_0[1] as c_0",
        "h_0, c_0 = h_0"),
    "a pair for a function's h_0": Case(
        "x, h_0 = np.ones((5, 2, 3)), (np.ones((2, 4)), np.zeros((2, 4)))",
        "fastrnn.rnn_forward(x, h_0, w_ih, w_hh)"),
    "results for a function's h_0": Case(
        "x = np.ones((5, 2, 3)); h_0 = fastrnn.rnn_forward(x, None, w_ih, w_hh)[:2]",
        "fastrnn.rnn_forward(x, h_0, w_ih, w_hh)"),
    "a pair for the gradient of c": Case(
        "x, w_ih, w_hh = np.ones((5, 2, 3)), np.ones((16, 3)), np.ones((16, 4))\n"
        "_, h, c, its = fastrnn.lstm_forward(x, None, None, w_ih, w_hh); d_c_n = (h, c)",
        "fastrnn.lstm_backward(its, None, None, d_c_n)"),
    "the pair for an LSTM function's c_0": Case(
        "x, w_ih, w_hh = np.ones((5, 2, 3)), np.ones((16, 3)), np.ones((16, 4))\n"
        "h_0, c_0 = None, (np.ones((2, 4)), np.ones((2, 4)))",
        "fastrnn.lstm_forward(x, h_0, c_0, w_ih, w_hh)", "c_0[1], and c_0[0] as h_0",
        "h_0, c_0 = c_0"),
    "an LSTM function's results for its h_0": Case(
        "x, w_ih, w_hh = np.ones((1, 2, 3)), np.ones((16, 3)), np.ones((16, 4))\n"
        "h_0, c_0 = fastrnn.lstm_forward(x, None, None, w_ih, w_hh)[:3], None",
        "fastrnn.lstm_forward(x, h_0, c_0, w_ih, w_hh)", "h_0[1], and h_0[2] as c_0",
        "_, h_0, c_0 = h_0"),
    "an LSTM's results, unpacked": Case("o, *state = lstm(steps)", "lstm(steps, state)"),
    "a stream's state of zero": Case(
        "value, stream = 0, gru.stream(2); state = value", "stream.state = state"),
    "two sequences in a tuple": Case(
        "x = (np.ones((4, 3), np.float32), np.ones((5, 3), np.float32))",
        "assert layer(x)[0].shape == (5, 2, 4)", "of sequences fastrnn.pad_sequence(x)[0]",
        "x = fastrnn.pad_sequence(x)[0]"),
    "a weight with its bias": Case(
        "weight, bias = (np.ones((2, 3)), np.ones(2)), None",
        "fastrnn.linear_forward(np.ones(3), weight, bias)", "weight is a tuple",
        "weight, bias = weight"),
    "masked sequences": Case(
        "sequences = [np.ma.array([1, 2, 99], mask=[0, 0, 1]), np.ones(2, int)]",
        "assert 99 not in fastrnn.pad_sequence(sequences)[0]"),
    "a generator of sequences": Case(
        "x = (np.ones((n, 3), np.float32) for n in (5, 5))",
        "assert layer(x)[0].shape == (5, 2, 4)", "of sequences (T, D) pass fastrnn.pad",
        "x = fastrnn.pad_sequence([np.asarray(a, np.float32) for a in x])[0]"),
    "an empty h_0": Case(
        "x, h_0 = np.ones((5, 2, 3)), []", "fastrnn.rnn_forward(x, h_0, w_ih, w_hh)"),
    "h_0 left out": Case(
        "a, b, c, d = np.ones((5, 2, 3)), w_ih, w_hh, np.ones(4)",
        "fastrnn.rnn_forward(a, b, c, d)",
        "pass None there", "a, b, c, d = a, None, b, c"),
    "the None of another cell's state": Case(
        "x, before = np.ones((5, 2, 3)), (None, None)",
        "fastrnn.rnn_forward(x, *before, w_ih, w_hh)", "leave out a None", "before = (None,)"),
    "features where pre-activations are due": Case(
        "x, w_ih, w_hh = np.ones((5, 2, 3)), None, np.ones((16, 4))",
        "fastrnn.lstm_forward(x, None, None, w_ih, w_hh)", "because w_ih is None",
        "w_ih = np.ones((16, 3))"),
    "features where a layer's pre-activations are due": Case(
        "given = fastrnn.GRU(None, 4, bidirectional=True)", "given(steps)",
        "because input_size is None", "given = fastrnn.GRU(3, 4, bidirectional=True)"),
    "what pad_sequence returns": Case(
        "x = fastrnn.pad_sequence([np.ones((2, 3), np.float32), np.ones((5, 3), np.float32)])",
        "assert not layer(x)[0][2:, 0].any()"),
    "one step's pair for an output layer": Case(
        "x = rnn(steps[:1, 0])", "assert head(x).shape == (1, 2)"),
    "a loss with its gradient": Case(
        "d_output = fastrnn.mean_squared_error(output, output * 0)",
        "layer.backward(tape, d_output)"),
    "all that forward returns for a tape": Case(
        "tape = layer.forward(steps)", "layer.backward(tape, output)"),
    "integers that may be indices": Case("x = np.ones((5, 3), int)", "layer(x)"),
    "unbatched steps without features for a function": Case(
        "x, w_ih = np.ones((5, 2)), np.ones((4, 1))", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "features that an output layer misses": Case(
        "x = np.ones(5, np.float32)", "fastrnn.Linear(1, 2)(x)"),
    "gates in an axis of their own": Case(
        "x, w_ih, w_hh = np.ones((5, 2, 3)), np.ones((4, 4, 3)), np.ones((16, 4))",
        "fastrnn.lstm_forward(x, None, None, w_ih, w_hh)"),
    "a tensor of complex numbers": Case(
        "x = torch.ones(5, 2, 3, dtype=torch.complex64)", "layer(x)", needs="torch"),
    "tensors as sequences": Case(
        "sequences = [torch.ones(2), torch.ones(3, requires_grad=True)]",
        "fastrnn.pad_sequence(sequences)", needs="torch"),
    "lengths that are a mask": Case(
        "lengths = np.arange(5)[:, None] < [3, 5]", "layer(steps, lengths=lengths)"),
    "lengths that are a column": Case("lengths = [[3], [5]]", "layer(steps, lengths=lengths)"),
    "lengths from a generator": Case(
        "lengths = (n for n in [3, 5])", "layer(steps, lengths=lengths)"),
    "resets of all sequences": Case(
        "restart = np.arange(5) == 3", "layer(steps, restart=restart)"),
    "resets with the batch first": Case(
        "restart = [[False] * 5] * 2", "layer(steps, restart=restart)"),
    "a mask of all sequences": Case("mask = np.arange(5) > 1", "layer(steps, mask=mask)"),
    "a mask with the batch first": Case("mask = [[1] * 5, [0] * 5]", "layer(steps, mask=mask)"),
    # -------------------------------------------------------------------- steps
    "a step of integers": Case(
        "x_t = np.ones((2, 3), int)", "fastrnn.rnn_step(x_t, None, w_ih, w_hh)"),
    "a step that is a list": Case(
        "x_t = [1.0, 2.0, 3.0]", "fastrnn.rnn_step(x_t, None, w_ih, w_hh)"),
    "a state of zero for a step": Case(
        "x_t, h = np.ones(3), 0", "fastrnn.rnn_step(x_t, h, w_ih, w_hh)"),
    "the pair for a step's h": Case(
        "x_t, w_ih, w_hh = np.ones(3), np.ones((16, 3)), np.ones((16, 4))\n"
        "h, c = (np.ones(4), np.zeros(4)), None",
        "fastrnn.lstm_step(x_t, h, c, w_ih, w_hh)", "h[0], and h[1] as c", "h, c = h"),
    "rows of one feature": Case(
        "x_t, w_ih = np.ones(2), np.ones((4, 1))",
        "assert fastrnn.rnn_step(x_t, None, w_ih, w_hh).shape == (2, 4)"),
    "a step with h left out": Case(
        "a, b, c, d = np.ones((2, 3)), w_ih, w_hh, np.ones(4)", "fastrnn.rnn_step(a, b, c, d)",
        "pass None there", "a, b, c, d = a, None, b, c"),
    "a step into another type": Case(
        "x_t, out = np.ones(3), np.empty(4, np.float32)",
        "fastrnn.rnn_step(x_t, None, w_ih, w_hh, out=out)"),
    "a step into what is read-only": Case(
        "x_t, out = np.ones(3), np.empty(4); out.flags.writeable = False",
        "fastrnn.rnn_step(x_t, None, w_ih, w_hh, out=out)"),
    "a step into a weight": Case(
        "x_t, out = np.ones(4), w_hh[0]; w_ih = w_hh.copy()",
        "fastrnn.rnn_step(x_t, None, w_ih, w_hh, out=out)", "pass another array, or none",
        "out = None"),
    "a step into h alone": Case(
        "x_t, w_ih, w_hh = np.ones(3), np.ones((16, 3)), np.ones((16, 4)); out = np.ones(4)",
        "fastrnn.lstm_step(x_t, None, None, w_ih, w_hh, out=out)", "a pair of arrays, (h, c)",
        "out = (out, np.ones(4))"),
    # -------------------------------------------------------------------- losses
    "masked targets": Case(
        "target = np.ma.array(labels, mask=labels == 1)",
        "a, _ = fastrnn.softmax_cross_entropy(logits, target); assert a == "
        "fastrnn.softmax_cross_entropy(logits, labels, mask=labels != 1)[0]"),
    "masked numbers as targets, beside a mask": Case(
        "input, target, mask = steps, np.ma.array(steps * 0, mask=steps > 0), steps < 0.5",
        "a, _ = fastrnn.mean_squared_error(input, target, mask=mask); assert a == "
        "fastrnn.mean_squared_error(steps, steps * 0, mask=(steps <= 0))[0]"),
    "targets of -100 beside a mask": Case(
        "target = labels.copy(); target[3:] = -100; mask = labels > 0",
        "a, _ = fastrnn.softmax_cross_entropy(logits, target, mask=mask); assert a == "
        "fastrnn.softmax_cross_entropy(logits, labels, mask=(labels > 0) & (target >= 0))[0]"),
    "targets of True and False": Case(
        "target = labels > 1", "fastrnn.softmax_cross_entropy(logits, target)"),
    "a mask with an axis of one": Case(
        "mask = np.ones((5, 2, 1), bool)",
        "fastrnn.softmax_cross_entropy(logits, labels, mask=mask)"),
    "targets of no axis of features, batch first": Case(
        "input, target = np.ones((5, 2, 1)), np.ones((2, 5, 1))",
        "fastrnn.mean_squared_error(input, target)"),
    "one-hot targets": Case(
        "target = np.eye(3)[labels].tolist()", "fastrnn.softmax_cross_entropy(logits, target)",
        "argmax"),
    "one-hot targets of integers": Case(
        "target = np.eye(3, dtype=int)[labels].tolist()",
        "fastrnn.softmax_cross_entropy(logits, target)", "argmax"),
    "targets as floats": Case(
        "target = labels.astype(np.float32)", "fastrnn.softmax_cross_entropy(logits, target)"),
    "targets as a list of floats": Case(
        "target = labels.astype(float).tolist()", "fastrnn.softmax_cross_entropy(logits, target)"),
    "targets of -100": Case(
        "target = labels.copy(); target[3:] = -100",
        "fastrnn.softmax_cross_entropy(logits, target)", "lengths="),
    "a list of targets with -1": Case(
        "target = [[0, 1], [2, -1], [0, 1], [-1, -1], [2, 2]]",
        "fastrnn.softmax_cross_entropy(logits, target)"),
    "classes from 1": Case(
        "target = labels + 1", "fastrnn.softmax_cross_entropy(logits, target)"),
    "targets with an axis of one": Case(
        "target = labels[..., None]", "fastrnn.softmax_cross_entropy(logits, target)"),
    "flat targets": Case(
        "target = labels.ravel()", "fastrnn.softmax_cross_entropy(logits, target)"),
    "targets with the batch first": Case(
        "target = labels.T", "fastrnn.softmax_cross_entropy(logits, target)"),
    "torch's order of classes": Case(
        "logits = np.zeros((5, 4, 2)); target = labels",
        "fastrnn.softmax_cross_entropy(logits, target)"),
    "a squeezed target": Case(
        "y, target = np.ones((5, 2, 1)), np.ones((5, 2))", "fastrnn.mean_squared_error(y, target)"),
    "a target with an axis too many": Case(
        "y, target = np.ones((5, 2)), np.ones((5, 2, 1))", "fastrnn.mean_squared_error(y, target)"),
    "a number for a target": Case(
        "input, target = steps, 0.5", "fastrnn.mean_squared_error(input, target)"),
    "a mask of numbers": Case(
        "mask = np.ones((5, 2))", "fastrnn.softmax_cross_entropy(logits, labels, mask=mask)"),
    # -------------------------------------------------------------------- optimisers, clipping
    "Adam of a layer": Case(
        "params = layer",
        "a = fastrnn.optim.Adam(params); b = layer.flat_weights.copy(); a.step(grads.flat_weights)"
        "; assert (layer.flat_weights != b).any()"),
    "Adam of gradients": Case(
        "params = grads",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.flat_weights"),
    "Adam of weights by name": Case(
        "params = layer.weights",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.flat_weights"),
    "Adam of a state_dict": Case(
        "params = layer.state_dict()",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.flat_weights"),
    "Adam of a list of state_dicts": Case(
        "params = [layer.state_dict()]",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.flat_weights"),
    "Adam of several state_dicts": Case(
        "params = [rnn.state_dict(), head.state_dict()]",
        "a = fastrnn.optim.Adam(params); assert a.params[1] is head.flat_weights",
        "give the flat_weights of each layer", "params = [rnn.flat_weights, head.flat_weights]"),
    "Adam of a dict of state_dicts": Case(
        "params = {'rnn': rnn.state_dict(), 'head': head.state_dict()}",
        "a = fastrnn.optim.Adam(params); assert a.params[1] is head.flat_weights",
        "give the flat_weights of each layer", "params = [rnn.flat_weights, head.flat_weights]"),
    "Adam of some weights by name": Case(
        "params = {n: a for n, a in layer.weights.items() if n.startswith('bias')}",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.weights['bias_ih_l0']"),
    "Adam of a layer among arrays": Case(
        "params = [layer, head.flat_weights]",
        "assert len(fastrnn.optim.Adam(params).params) == 2"),
    "Adam of layers": Case("params = [rnn, embedding, head]", "fastrnn.optim.Adam(params)"),
    "Adam of a dict of arrays": Case(
        "params = {'W': np.ones(3), 'b': np.ones(1)}", "fastrnn.optim.Adam(params)"),
    "Adam of a list of numbers": Case("params = [[1.0, 2.0]]", "fastrnn.optim.Adam(params)"),
    "Adam of integers": Case("params = [np.arange(3)]", "fastrnn.optim.Adam(params)"),
    "Adam of what is read-only": Case(
        "params = [np.broadcast_to(1.0, 3)]", "fastrnn.optim.Adam(params)"),
    "SGD of one array that is read-only": Case(
        "params = np.broadcast_to(1.0, 3)", "fastrnn.optim.SGD(params, 0.1)"),
    "Adam of torch's parameters": Case(
        "net = torch.nn.Linear(3, 2); params = net.parameters()",
        "a = fastrnn.optim.Adam(params); a.params[0][...] = 7; assert (net.weight == 7).all()",
        needs="torch"),
    "Adam of a torch module": Case(
        "params = torch.nn.Linear(3, 2)", "fastrnn.optim.Adam(params)", needs="torch"),
    "Adam of one group": Case(
        "params = {'params': layer.flat_weights, 'lr': 0.1}",
        "a = fastrnn.optim.Adam(params); assert a.lr == 0.1"),
    "Adam of a group and an array": Case(
        "params = [{'params': layer.flat_weights}, head.flat_weights]",
        "a = fastrnn.optim.Adam(params); assert a.params[1] is head.flat_weights"),
    "an option of a group that is misspelt": Case(
        "params = [{'params': layer.flat_weights, 'epss': 1e-3}]", "fastrnn.optim.Adam(params)",
        "did you mean 'eps'", "params[0]['eps'] = params[0].pop('epss')"),
    "a schedule for a learning rate": Case(
        "lr = fastrnn.optim.StepLR(adam, 3)", "fastrnn.optim.Adam([np.ones(2)], lr=lr)",
        "make the schedule of this optimiser", "lr = 1e-3"),
    "a schedule of a class": Case(
        "optimizer = fastrnn.optim.SGD", "fastrnn.optim.StepLR(optimizer, 3)", "make one of it",
        "optimizer = optimizer([np.ones(2)])"),
    "a state of several groups for one": Case(
        "two = [{'params': np.ones(2)}, {'params': np.ones(3)}]\n"
        "d, sgd = fastrnn.optim.SGD(two).state_dict(), fastrnn.optim.SGD([np.ones(2), np.ones(3)])",
        "sgd.load_state_dict(d)", "make this one with the groups of that one",
        "sgd = fastrnn.optim.SGD(two)"),
    "a learning rate in text": Case("lr = '0.1'", "fastrnn.optim.Adam([np.ones(2)], lr)"),
    "a step of gradients by name": Case(
        "named = fastrnn.optim.Adam(layer.weights.values()); grads = grads.weights",
        "named.step(grads)"),
    "a step of another float": Case(
        "grads = [grads.flat_weights.astype(np.float64)]", "adam.step(grads)"),
    "weights to clip": Case(
        "grads = layer.flat_weights", "fastrnn.clip_grad_norm(grads, 1.0)",
        "what its backward returned", "grads = layer.backward(tape, output)"),
    "a step of the weights": Case(
        "its = layer.backward(tape, output); grads = [layer.flat_weights]", "adam.step(grads)",
        "what the layer's backward returned", "grads = its"),
    "a step of another layer's gradients": Case(
        "its, (y, tape) = grads, head.forward(output); grads = head.backward(tape, y)",
        "adam.step(grads)", "pass a list", "grads = [its.flat_weights]"),
    "gradients of two layers to clip": Case(
        "grads = [grads, layer.backward(tape, output), grads._replace("
        "flat_weights=grads.flat_weights.copy())]", "fastrnn.clip_grad_norm(grads, 1.0)"),
    "torch's parameters to clip": Case(
        "net = torch.nn.Linear(3, 2); net(torch.ones(4, 3)).sum().backward()\n"
        "grads, want = net.parameters(), net.weight.detach().clone()",
        "fastrnn.clip_grad_norm(grads, 0.5); assert (net.weight == want).all(); "
        "assert abs(sum((p.grad**2).sum() for p in net.parameters()) - 0.25) < 1e-5",
        needs="torch"),
    "layers in a mapping to clip": Case(
        "grads = {'rnn': rnn}", "fastrnn.clip_grad_norm(grads, 0.1)", "what its backward returned",
        "grads = {'rnn': layer.backward(tape, output).flat_weights}"),
    "gradients and an array in a mapping to clip": Case(
        "grads = {'rnn': grads, 'b': np.ones(3)}", "fastrnn.clip_grad_norm(grads, 0.1)"),
    "gradients and an array to clip": Case(
        "grads = [grads, np.ones(3)]", "fastrnn.clip_grad_norm(grads, 0.1)"),
    "float16 in a mapping to clip": Case(
        "grads = {'w': np.ones(3, np.float16)}", "fastrnn.clip_grad_norm(grads, 0.1)"),
    "None in a mapping to clip": Case(
        "grads = {'w': np.ones(3), 'b': None}", "fastrnn.clip_grad_norm(grads, 0.1)"),
    "a layer to clip": Case(
        "grads = layer", "fastrnn.clip_grad_norm(grads, 1.0)", "what its backward returned",
        "grads = layer.backward(tape, output).flat_weights"),
    "an optimiser's state from an optimiser": Case("d = adam", "adam.load_state_dict(d)"),
    "Adam of a class": Case(
        "params = fastrnn.RNN", "fastrnn.optim.Adam(params)", "make one of it",
        "params = params(3, 4).flat_weights"),
    "Adam of one tensor": Case(
        "params = torch.zeros(3)", "a = fastrnn.optim.Adam(params); a.params[0][...] = 7; "
        "assert (params == 7).all()", needs="torch"),
    "Adam of a tensor among arrays": Case(
        "params = [np.ones(2), torch.zeros(3)]", "fastrnn.optim.Adam(params)", needs="torch"),
    "Adam of named parameters": Case(
        "params = list(torch.nn.Linear(3, 2).named_parameters())", "fastrnn.optim.Adam(params)",
        needs="torch"),
    "Adam of a torch state_dict": Case(
        "params = torch.nn.Linear(3, 2).state_dict()", "fastrnn.optim.Adam(params)", needs="torch"),
    "Adam of named arrays": Case(
        "params = layer.weights.items()", "fastrnn.optim.Adam(params)"),
    "Adam of lists of arrays": Case(
        "params = [[rnn.flat_weights], [head.flat_weights]]",
        "a = fastrnn.optim.Adam(params); assert a.params[1] is head.flat_weights"),
    "Adam of a group": Case(
        "params = {'params': layer.flat_weights, 'lr': 0.1}", "fastrnn.optim.Adam(params)"),
    "Adam of weights that are read-only": Case(
        "import copy; first = layer; layer.flat_weights.flags.writeable = False",
        "params = layer.flat_weights; fastrnn.optim.Adam(params); params += 1; "
        "assert (first.flat_weights == params).all()"),
    "Adam of a weight that is read-only": Case(
        "params = layer.weights['bias_hh_l0']; params.flags.writeable = False",
        "fastrnn.optim.Adam(params); params += 1; "
        "assert (layer.weights['bias_hh_l0'] == params).all()"),
    "Adam of numbers": Case("params = [1.0, 2.0]", "fastrnn.optim.Adam(params)"),
    "Adam of a masked array": Case("params = [np.ma.ones(2)]", "fastrnn.optim.Adam(params)"),
    "Adam of the other byte order": Case(
        "params = np.ones(2, '>f8')", "fastrnn.optim.Adam(params)"),
    "Adam of one array twice": Case(
        "a = np.ones(2); params = [a, a]", "fastrnn.optim.Adam(params)", "pass every element once",
        "params = params[:1]"),
    "a step of a tensor": Case(
        "grads = torch.ones(len(layer.flat_weights))", "adam.step(grads)", needs="torch"),
    "a step of tensors": Case(
        "grads = [torch.ones(len(layer.flat_weights), requires_grad=True)]", "adam.step(grads)",
        needs="torch"),
    "a step of torch's parameters": Case(
        "its = torch.ones(len(layer.flat_weights), requires_grad=True); its.sum().backward()\n"
        "grads = [its]", "before = layer.flat_weights.copy(); fastrnn.optim.SGD("
        "layer.flat_weights, 1.0).step(grads); assert np.allclose(before - 1, layer.flat_weights)",
        needs="torch"),
    "a step of layers' gradients in a list": Case("grads = [grads]", "adam.step(grads)"),
    "a step of gradients by name, in a list": Case(
        "named = fastrnn.optim.Adam(layer.weights.values()); grads = [grads.weights]",
        "named.step(grads)"),
    "a step over weights one by one": Case(
        "named = fastrnn.optim.Adam(layer.weights.values()); its, grads = grads, [grads.x]",
        "named.step(grads)", "returned as it is", "grads = its"),
    "Adam of a list of copies": Case(
        "params = list(layer.state_dict().values()); layer = layer", "fastrnn.optim.Adam(params)",
        "layer.flat_weights itself", "params = [layer.flat_weights]"),
    "a step of what shares memory": Case(
        "two = fastrnn.optim.Adam([np.ones(2), np.ones(2)]); grads = [two.params[1], np.ones(2)]",
        "two.step(grads)"),
    "a parameter in a row": Case(
        "one = fastrnn.optim.Adam([np.ones((1, 3))]); grads = [np.ones(3)]", "one.step(grads)"),
    "numbers to clip": Case("grads = [3.0, 4.0]", "fastrnn.clip_grad_norm(grads, 1.0)"),
    "a dict of gradients to clip": Case(
        "grads = {'rnn': grads}", "fastrnn.clip_grad_norm(grads, 1.0)"),
    "gradients of which some are None to clip": Case(
        "x = np.ones((5, 2, 3)); o, _, t = fastrnn.rnn_forward(x, None, w_ih, w_hh)\n"
        "grads = fastrnn.rnn_backward(t, o)", "fastrnn.clip_grad_norm(grads, 1.0)"),
    "a number of an optimiser's state in text": Case(
        "d = adam.state_dict() | {'lr': '0.1'}", "adam.load_state_dict(d)"),
    # -------------------------------------------------------------------- small arguments
    "a type of torch": Case(
        "dtype = torch.float64", "fastrnn.RNN(3, 4, dtype=dtype)", needs="torch"),
    "a seed in bytes": Case("rng = b'abc'", "fastrnn.LSTM(3, 4, rng=rng)"),
    "a seed in a tensor": Case(
        "rng = torch.tensor(3)", "fastrnn.LSTM(3, 4, rng=rng)", needs="torch"),
    "a size in text": Case("hidden_size = '4'", "fastrnn.RNN(3, hidden_size)"),
    "a one-hot prompt": Case(
        "prompt = np.eye(10)[[1, 2]]",
        "fastrnn.generate(embedding, rnn, fastrnn.Linear(4, 10), prompt, 3)"),
    "an LSTM's state in one array, to generate": Case(
        "state = np.zeros((2, 1, 4), np.float32)",
        "fastrnn.generate(embedding, lstm, fastrnn.Linear(4, 10), [1], 3, state)"),
    "a name that is misspelt": Case(
        "wrt = ['weight_ih_lo']", "layer.backward(tape, output, wrt=wrt)",
        "did you mean 'weight_ih_l0'?", "wrt = ['weight_ih_l0']"),
    "a reset of the state of torch's modules": Case(
        "forgotten = False", "if not forgotten: layer.zero_grad()", "new ones each time",
        "forgotten = True"),
    "a weight as torch's modules have it": Case(
        "its = 'layer.weight_hh_l0'", "eval(its)", "it is layer.weights['weight_hh_l0']",
        "its = \"layer.weights['weight_hh_l0']\""),
    "a gradient as torch's modules have it": Case(
        "its = 'grads.weight_hh_l0'", "eval(its)", "it is grads.weights['weight_hh_l0']",
        "its = \"grads.weights['weight_hh_l0']\""),
    "a bias that there is not": Case(
        "without, done = fastrnn.Linear(3, 3, bias=False), False",
        "if not done: without.bias = np.ones(3)", "make another one", "done = True"),
    "the weights of another layer of the stack": Case(
        "value, options = np.ones((4, 4)), {}", "layer = fastrnn.RNN(3, 4, **options)\n"
        "if not options: layer.weight_ih_l1 = value", "with num_layers=2",
        "options = {'num_layers': 2}"),
    "the forget gates' bias of an LSTM": Case(
        "value, done = 1.0, False", "if not done: lstm.forget_bias = value", "write for name in",
        "for name in lstm.weights: lstm.weights[name][4:8] += (value - lstm.forget_bias) * "
        "name.startswith('bias_ih')\ndone = True"),
    "a seed in text": Case("rng = 'abc'", "fastrnn.LSTM(3, 4, rng=rng)"),
    "a seed of digits": Case("rng = '42'", "fastrnn.Linear(3, 4, rng=rng)"),
    "a seed that is a float": Case("rng = 1.0", "fastrnn.Embedding(3, 4, rng=rng)"),
    "a negative seed": Case("rng = -1", "fastrnn.LSTM(3, 4, rng=rng)"),
    "Python's generator": Case(
        "import random; rng = random.Random(1)", "fastrnn.generate(embedding, fastrnn.RNN(3, 4), "
        "fastrnn.Linear(4, 10), [1], 3, rng=rng)"),
    "torch's generator": Case("rng = torch.Generator()", "fastrnn.GRU(3, 4, rng=rng)",
                              needs="torch"),
    "both directions and one of them": Case(
        "reverse = True", "fastrnn.GRU(3, 4, bidirectional=True, reverse=reverse)"),
    "a size that is a float": Case("hidden_size = 4.0", "fastrnn.RNN(3, hidden_size)"),
    "a flag that is a number": Case("bias = 1", "fastrnn.RNN(3, 4, bias=bias)"),
    "one name for wrt": Case("wrt = 'x'", "layer.backward(tape, output, wrt=wrt)"),
    "one name for keep": Case("keep = 'gates'", "gru.forward(steps, keep=keep)"),
    "indices as floats": Case("indices = np.array([1.0, 2.0])", "embedding(indices)"),
    "indices as a list of floats": Case("indices = [1.0, 2.0]", "embedding(indices)"),
    "one-hot vectors as indices": Case(
        "indices = np.eye(10)[[1, 5]]", "assert embedding(indices).shape == (2, 3)"),
    "a prompt of one number": Case(
        "prompt = 1", "fastrnn.generate(embedding, rnn, fastrnn.Linear(4, 10), prompt, 3)"),
    "weights given as an attribute": Case(
        "value, written = 0.0, False", "if not written: layer.weight_hh_l0 = value",
        "layer.weights['weight_hh_l0'][...] = value",
        "layer.weights['weight_hh_l0'][...] = value; written = True"),
    # -------------------------------------------------------------------- state_dicts and files
    "a layer for its state": Case("d = fastrnn.RNN(3, 4)", "layer.load_state_dict(d)"),
    "a part of a larger model": Case(
        "d = {'encoder.rnn.' + n: a for n, a in layer.state_dict().items()} | {'x': np.ones(1)}",
        "layer.load_state_dict(d)"),
    "a Cell's state": Case(
        "d = {n.removesuffix('_l0'): a for n, a in layer.state_dict().items()}",
        "layer.load_state_dict(d)"),
    "the weights of a layer for one in reverse": Case(
        "d, backwards = layer.state_dict(), fastrnn.RNN(3, 4, reverse=True)",
        "backwards.load_state_dict(d)"),
    "a loaded file for a state": Case(
        "fastrnn.save(folder / 'a', {'r': layer}); d = fastrnn.load(folder / 'a')",
        "layer.load_state_dict(d)"),
    "a path for a state": Case(
        "fastrnn.save(folder / 'a', {'r': layer}); d = folder / 'a'", "layer.load_state_dict(d)"),
    "weights of integers": Case(
        "d = {n: np.ones(a.shape, int) for n, a in layer.weights.items()}",
        "layer.load_state_dict(d)"),
    "a transposed weight": Case(
        "d = layer.state_dict(); d['weight_ih_l0'] = d['weight_ih_l0'].T",
        "layer.load_state_dict(d)"),
    "a module's parameters": Case(
        "d = dict(torch.nn.RNN(3, 4).bfloat16().named_parameters())", "layer.load_state_dict(d)",
        needs="torch"),
    "a transposed network": Case(
        "d = {n: a.T for n, a in layer.weights.items()}; want = rnn(steps)[0].copy()",
        "layer.load_state_dict(d); assert (layer(steps)[0] == want).all()"),
    "named parameters, not in a dict": Case(
        "d = iter(layer.state_dict().items())", "layer.load_state_dict(d)"),
    "a state in a tuple to save": Case(
        "objects = {'state': lstm(steps)[1]}", "fastrnn.save(folder / 'a', objects)"),
    "layers in a list to save": Case(
        "objects = {'layers': [rnn, head]}", "fastrnn.save(folder / 'a', objects)",
        "a name of its own", "objects = {'rnn': rnn, 'head': head}"),
    "a torch module to save": Case(
        "objects = {'net': torch.nn.RNN(3, 4).bfloat16()}", "fastrnn.save(folder / 'a', objects)",
        needs="torch"),
    "a tensor to save": Case(
        "objects = {'a': torch.ones(3, requires_grad=True)}", "fastrnn.save(folder / 'a', objects)",
        needs="torch"),
    "a tensor in a mapping to save": Case(
        "objects = {'run': {'a': torch.ones(3, requires_grad=True), 'step': 3}}",
        "fastrnn.save(folder / 'a', objects)", needs="torch"),
    "a masked array to save": Case(
        "objects = {'a': {'b': np.ma.ones(3)}}", "fastrnn.save(folder / 'a', objects)"),
    "a NumPy number in a list to save": Case(
        "objects = {'run': {'losses': [np.float32(1)]}}", "fastrnn.save(folder / 'a', objects)"),
    "a dict of dicts of arrays to save": Case(
        "objects = {'run': {'best': {'w': np.ones(3)}}}", "fastrnn.save(folder / 'a', objects)",
        "'run_best': objects['run']['best']", "objects = {'run_best': objects['run']['best']}"),
    "numbers in metadata": Case(
        "metadata = {'epoch': 3}", "fastrnn.save(folder / 'a', {'rnn': rnn}, metadata)"),
    "a path in bytes": Case(
        "import os; path = os.fsencode(folder / 'a')", "fastrnn.save(path, {'rnn': rnn})"),
    "a name of another format": Case(
        "path = folder / 'a.npz'", "fastrnn.save(path, {'rnn': rnn})",
        "a.safetensors'", "path = folder / 'a.safetensors'"),
    "a subclass to save": Case(
        "class Own(fastrnn.RNN): pass\nobjects = {'rnn': Own(3, 4)}",
        "fastrnn.save(folder / 'a', objects)"),
    "a bare layer to save": Case(
        "objects = layer", "fastrnn.save(folder / 'a', objects)"),
    "a bare array to save": Case("objects = steps", "fastrnn.save(folder / 'a', objects)"),
    "one transposed weight beside a square one": Case(
        "d = layer.state_dict(); d['weight_ih_l0'] = d['weight_ih_l0'].T; want = output.copy()",
        "layer.load_state_dict(d); assert (layer(steps)[0] == want).all()",
        "if the square ones are stored so too",
        "d['weight_ih_l0'] = np.transpose(d['weight_ih_l0'])"),
    "one transposed weight of gates": Case(
        "d = lstm.state_dict(); d['weight_hh_l0'] = d['weight_hh_l0'].T; want = lstm(steps)[0]",
        "lstm.load_state_dict(d); assert (lstm(steps)[0] == want).all()"),
    "two parts of a larger model that fit": Case(
        "d = {p + n: a for p in ('enc.', 'dec.') for n, a in head.state_dict().items()}",
        "head.load_state_dict(d)", "several that fit",
        "d = {n[4:]: a for n, a in d.items() if n.startswith('enc.')}"),
    "the one part of a larger model that fits": Case(
        "d = {'small': fastrnn.Linear(5, 7), 'right': fastrnn.Linear(4, 2)}",
        "head.load_state_dict(d)"),
    "one integer among weights of float64": Case(
        "own = fastrnn.Linear(3, 1, dtype='float64', rng=0); d = own.state_dict(); "
        "d['bias'] = [1]; want = own.weights['weight'].copy()",
        "own.load_state_dict(d); assert (own.weights['weight'] == want).all()"),
    "gradients of a function to save": Case(
        "o, _, t = fastrnn.rnn_forward(np.ones((5, 2, 3)), None, w_ih, w_hh)\n"
        "objects = {'grads': fastrnn.rnn_backward(t, o)}", "fastrnn.save(folder / 'a', objects)"),
    "gradients of a layer to save": Case(
        "objects = {'grads': grads}", "fastrnn.save(folder / 'a', objects)"),
    "a list of layers to save": Case(
        "objects = [rnn, head]", "fastrnn.save(folder / 'a', objects)"),
    "a number to save": Case(
        "objects = {'step': 3}", "fastrnn.save(folder / 'a', objects)"),
    "a NumPy number to save": Case(
        "objects = {'run': {'loss': np.float32(1)}}", "fastrnn.save(folder / 'a', objects)"),
    "a nested dict to save": Case(
        "objects = {'model': {'rnn': rnn}}", "fastrnn.save(folder / 'a', objects)",
        "'model_rnn': objects['model']['rnn']",
        "objects = {'model_rnn': objects['model']['rnn']}"),
    "a name with a dot": Case(
        "objects = {'encoder.rnn': rnn}", "fastrnn.save(folder / 'a', objects)"),
    "a torch state to save": Case(
        "objects = {'net': torch.nn.RNN(3, 4).state_dict()}", "fastrnn.save(folder / 'a', objects)",
        needs="torch"),
    "an open file": Case(
        "path = open(folder / 'a', 'wb'); path.close()", "fastrnn.save(path, {'rnn': rnn})"),
    "path and objects exchanged": Case(
        "path, objects = layer, str(folder / 'a')", "fastrnn.save(path, objects)",
        "the path comes first", "path, objects = objects, {'rnn': path}"),
    ".npz": Case(
        "path = str(folder / 'a.npz'); np.savez(path, a=steps)",
        "assert (fastrnn.load(path)['arrays']['a'] == steps).all()", "(.npz)",
        "path = str(folder / 'a.safetensors')"),
    ".npy": Case(
        "path = str(folder / 'a.npy'); np.save(path, steps)",
        "assert (fastrnn.load(path)['array'] == steps).all()", "(.npy)",
        "path = str(folder / 'a.safetensors')"),
    ".pt": Case(
        "path = str(folder / 'a.pt'); torch.save(torch.nn.RNN(3, 4).state_dict(), path)",
        "layer.load_state_dict(fastrnn.load(path)['model'])", "(.pt)",
        "path = str(folder / 'a.safetensors')", needs="torch"),
    ".pt of old": Case(
        "path = str(folder / 'a.pt'); torch.save(torch.nn.RNN(3, 4).bfloat16().state_dict(), path, "
        "_use_new_zipfile_serialization=False)",
        "layer.load_state_dict(fastrnn.load(path)['model'])", "(.pt)",
        "path = str(folder / 'a.safetensors')", needs="torch"),
    ".keras": Case(
        "import h5py, io, json, zipfile; path = str(folder / 'a.keras'); loaded = None; "
        "file = h5py.File(weights := io.BytesIO(), 'w'); "
        "file['vars/0'] = weight.T; file['vars/1'] = np.zeros(10); file.close(); "
        "config = {'class_name': 'Dense', 'config': {'units': 10}}; "
        "archive = zipfile.ZipFile(path, 'w'); "
        "archive.writestr('metadata.json', json.dumps({'keras_version': '3.15.0'})); "
        "archive.writestr('config.json', json.dumps(config)); "
        "archive.writestr('model.weights.h5', weights.getvalue()); archive.close()",
        "loaded = loaded or fastrnn.load(path)", "(.keras)", "loaded = layers", needs="h5py"),
    ".weights.h5": Case(
        "import h5py; from types import SimpleNamespace; loaded = None; "
        "path = str(folder / 'a.weights.h5'); file = h5py.File(path, 'w'); "
        "file['vars/0'] = weight.T; file['vars/1'] = np.zeros(10); file.close(); "
        "model = SimpleNamespace(to_json=lambda: "
        "'{\"class_name\": \"Dense\", \"config\": {\"units\": 10}}')",
        "loaded = loaded or fastrnn.load(path)", "(.h5)", "loaded = layers", needs="h5py"),
    ".onnx": Case(
        "import fastrnn.convert; path = str(folder / 'a.onnx'); loaded = None; "
        "fastrnn.convert.to_onnx(layer, path)",
        "loaded = loaded or fastrnn.load(path)", "an ONNX model", "loaded = layers",
        needs="onnx"),
    # -------------------------------------------------------------------- weights of Keras
    "lists for weights": Case(
        "import fastrnn.convert; source = [[[1.0, 2.0], [3.0, 4.0]], [0.0, 0.0]]",
        "fastrnn.convert.from_keras(source)"),
    "an activation behind a Dense": Case(
        "import fastrnn.convert; source = [weight, np.zeros(3)]; "
        "config = {'units': 3, 'activation': 'relu', 'name': 'out'}",
        "fastrnn.convert.from_keras(source, config=config)"),
}  # fmt: skip
