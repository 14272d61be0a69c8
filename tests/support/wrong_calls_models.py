"""Wrong calls of models and of what they are made of, for test_cures.py."""

from wrong_calls import Case

MODEL = "model = fastrnn.Sequential({'rnn': fastrnn.GRU(3, 4), 'head': head}); "
TWO = "layers = {'a': fastrnn.GRU(3, 4), 'b': fastrnn.GRU(4, 4, batch_first=True)}"

WORDS = (
    "import copy; words = fastrnn.Embedding(10, 4); layers = {'words': words, "
    "'rnn': fastrnn.LSTM(4, 4), 'out': fastrnn.Linear.tied(words)}; "
)

MODELS: dict[str, Case] = {
    "layers in a list": Case("layers = [rnn, head]", "fastrnn.Sequential(layers)"),
    "one layer": Case("layers = rnn", "fastrnn.Sequential(layers)"),
    "numbers for names": Case("layers = {0: rnn, 1: head}", "fastrnn.Sequential(layers)"),
    "names with dots": Case("layers = {'my.rnn': rnn, 'head': head}", "fastrnn.Sequential(layers)"),
    "one layer twice": Case(
        "import copy; layer = fastrnn.GRU(4, 4); layers = {'a': layer, 'b': layer}",
        "fastrnn.Sequential(layers)", "stands in one place"),
    "a layer of another model": Case(
        "import copy; first = fastrnn.Sequential({'a': rnn}); layers = {'rnn': rnn, 'head': head}",
        "fastrnn.Sequential(layers)", "in another Sequential already"),
    "layers that share their weights": Case(
        "import copy; layer = fastrnn.GRU(4, 4); layers = {'a': layer, 'b': copy.copy(layer)}",
        "fastrnn.Sequential(layers)", "shares its weights"),
    "a layer of another model that has a tied one": Case(
        WORDS + "first = fastrnn.Sequential(layers); layers['rnn'] = fastrnn.LSTM(4, 4)",
        "model = fastrnn.Sequential(layers); assert model.layers['out'].tied_to is layers['words']",
        "copy.deepcopy(layers)"),
    "an embedding of another model that another one is tied to": Case(
        WORDS + "first = fastrnn.Sequential({'words': words})", "fastrnn.Sequential(layers)",
        "copy.deepcopy(layers)"),
    "a layer tied to what the embedding was copied from": Case(
        WORDS + "layers['words'] = copy.deepcopy(words)", "fastrnn.Sequential(layers)"),
    "a tied layer behind too wide an LSTM": Case(
        WORDS + "layers['rnn'] = fastrnn.LSTM(4, 8)", "fastrnn.Sequential(layers)",
        "make layers['rnn'] with proj_size=4", "layers['rnn'] = fastrnn.LSTM(4, 8, proj_size=4)"),
    "a tied layer behind too wide a GRU": Case(
        WORDS + "layers['rnn'] = fastrnn.GRU(4, 8)", "fastrnn.Sequential(layers)",
        "put a Linear(8, 4) between",
        "out = layers.pop('out'); layers |= {'between': fastrnn.Linear(8, 4), 'out': out}"),
    "an item of a model": Case(MODEL, "layer = model['rnn']", "model.layers['rnn']",
        "model = model.layers"),
    "one with the batch first": Case(TWO, "fastrnn.Sequential(layers)"),
    "batch first, later": Case(
        "model = fastrnn.Sequential({'a': fastrnn.GRU(3, 4), 'b': fastrnn.GRU(4, 4)}); "
        "model.layers['b'].batch_first = True",
        "model(steps)"),
    "a state without a name": Case(
        MODEL + "state = np.zeros((1, 2, 4), np.float32)", "model(steps, state)"),
    "a model's state of another float": Case(
        MODEL + "state = {'rnn': np.zeros((1, 2, 4))}", "model(steps, state)"),
    "a model's dropout without a source": Case(
        "model = fastrnn.Sequential({'rnn': rnn, 'drop': fastrnn.Dropout(0.5)}); rng = None",
        "model.forward(steps, rng=rng)", "one for all steps", "rng = np.random.default_rng(0)"),
    "dropout without a source": Case(
        "drop, rng = fastrnn.Dropout(0.5), None", "drop.forward(steps, rng=rng)",
        "one for all steps", "rng = np.random.default_rng(0)"),
    "batch first of a plain dropout": Case(
        "batch_first = True", "fastrnn.Dropout(0.5, batch_first=batch_first)"),
    "a name of a weight misspelt": Case(
        MODEL + "y, state, tape = model.forward(steps); wrt = ['head.wieght']",
        "model.backward(tape, y, wrt=wrt)", "did you mean 'head.weight'?",
        "wrt = ['head.weight']"),
    "a model's tape for the norms": Case(
        MODEL + "output, state, tape = model.forward(steps); "
        "d_output = np.ones((5, 2, 4), np.float32)",
        "fastrnn.gradient_norms(tape, d_output)"),
    "a model's tape for a layer": Case(
        MODEL + "output, state, tape = model.forward(steps)", "head.backward(tape, output)"),
    "a tied layer without its embedding": Case(
        "objects = {'head': fastrnn.Linear.tied(embedding)}",
        "fastrnn.save(folder / 'a.safetensors', objects)"),
    "a model for PyTorch": Case(
        "import fastrnn.convert; " + MODEL + "layer = model", "fastrnn.convert.to_torch(layer)"),
    "a frozen layer in a model": Case(
        "layers = {'rnn': rnn.freeze(), 'head': head}", "fastrnn.Sequential(layers).freeze()",
        "give the layers that were frozen", "layers['rnn'] = rnn"),
    "a frozen layer for an optimiser": Case(
        "params = [rnn.freeze()]", "fastrnn.optim.Adam(params)", "the layer that was frozen",
        "params = [rnn.flat_weights]"),
    "a frozen layer without a name": Case(
        "objects = rnn.freeze()", "fastrnn.save(folder / 'a.safetensors', objects)"),
    "the weights of a frozen layer": Case(
        "frozen = rnn.freeze()", "frozen.flat_weights[...] = 0",
        "change the layer that it was made from", "frozen = rnn"),
    "a frozen layer that is trained": Case(
        "frozen = rnn.freeze()", "frozen.forward(steps)", "the layer trains", "frozen = rnn"),
    "an attribute of a frozen layer": Case(
        "frozen = rnn.freeze()", "frozen.batch_first = True",
        "change the layer that it was made from", "frozen = rnn"),
    "another float than the layer's to freeze in": Case(
        "precision = 'float64'", "rnn.freeze(precision=precision)"),
    "a type for the name of a precision": Case(
        "precision = np.float32", "rnn.freeze(precision=precision)"),
    "the frozen kind of another layer": Case(
        "import fastrnn.layers; layer, kind = head, fastrnn.layers.FrozenRecurrent",
        "kind(layer)", "expected a recurrent layer: write layer.freeze()",
        "kind = fastrnn.Linear.freeze"),
    "an item of a frozen model": Case(
        MODEL + "frozen = model.freeze()", "layer = frozen['rnn']", "frozen.layers['rnn']",
        "frozen = frozen.layers"),
    "a frozen model for PyTorch": Case(
        "import fastrnn.convert; " + MODEL + "layer = model.freeze()",
        "fastrnn.convert.to_torch(layer)"),
    "a model for ONNX": Case(
        "import fastrnn.convert; " + MODEL + "layer = model",
        "fastrnn.convert.to_onnx(layer, folder / 'a.onnx')", needs="onnx"),
}  # fmt: skip
