"""Wrong arguments of layers: named, explained, and refused alike by both backends."""

import numpy as np
import pytest
from stacked_layers import RESTART, B, D, H, T, each_backend, make

import fastrnn

# Small calls, under which threads are not under test.
pytestmark = pytest.mark.usefixtures("one_thread")


X, Y = np.zeros((T, B, D)), np.zeros((T, B, H))
LSTM_STATE = np.zeros((2, B, H)), np.zeros((2, B, H))


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "text"),
    [
        ("tanh", {"state": np.zeros((1, B, H))}, ValueError,
         "state has shape (1, 4, 5), expected (layers·directions, B, H) = (2, 4, 5)"),
        ("gru", {"state": np.zeros((2, H))}, ValueError,
         "state has shape (2, 5), expected (layers·directions, B, H) = (2, 4, 5)"),
        ("gru", {"x": X[:, 0], "state": np.zeros((2, B, H))}, ValueError,
         "state has shape (2, 4, 5), expected (layers·directions, H) = (2, 5)"),
        ("gru", {"state": LSTM_STATE}, TypeError, "state is a tuple, expected a numpy.ndarray"),
        ("lstm", {"state": LSTM_STATE[0]}, TypeError,
         "state is an ndarray, expected a pair of arrays, (h, c)"),
        ("lstm", {"state": LSTM_STATE[:1]}, ValueError,
         "state has 1 element, expected a pair of arrays, (h, c)"),
        ("lstm", {"state": (LSTM_STATE[0], None)}, TypeError,
         "state[1] is None, expected a numpy.ndarray: it cannot be left out"),
        ("lstm", {"state": (LSTM_STATE[0].astype("f4"), LSTM_STATE[1])}, TypeError,
         "state[0] is float32, the layer is float64: pass state[0].astype(np.float64)"),
        ("lstm", {"state": (LSTM_STATE[0], LSTM_STATE[1][:1])}, ValueError,
         "state[1] has shape (1, 4, 5), expected (layers·directions, B, H) = (2, 4, 5)"),
        ("lstm-projection", {"state": LSTM_STATE}, ValueError,
         "state[0] has shape (2, 4, 5), expected (layers·directions, B, P) = (2, 4, 2)"),
        ("lstm", {"x": X.astype("f4")}, TypeError, "x is float32, the layer is float64"),
        ("gru", {"x": X[:, :, :2]}, ValueError,
         "x has shape (6, 4, 2), expected (T, B, D) = (T, B, 3)"),
        ("gru", {"lengths": [1, 2]}, ValueError, "lengths has shape (2,), expected (B,) = (4,)"),
        ("lstm", {"lengths": [7, 1, 1, 1]}, ValueError, "lengths[0] is 7, expected 0 <= length"),
        ("lstm", {"restart": RESTART.T}, ValueError,
         "restart has shape (4, 6), expected (T, B) = (6, 4)"),
        ("gru", {"restart": RESTART.astype(int)}, TypeError, "restart holds int64, expected bool"),
    ],
)  # fmt: skip
@each_backend
def test_bad_input(backend, kind, arguments, error, text):
    layer = make(kind)
    for call in (layer, layer.forward):
        with fastrnn.backend(backend), pytest.raises(error) as caught:
            call(**{"x": X} | arguments)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "error", "text"),
    [
        ("lstm", {"keep": ["h"]}, ValueError, "keep holds 'h', expected names out of 'c', 'gates'"),
        ("gru", {"keep": ["c"]}, ValueError, "keep holds 'c', expected names out of 'gates'"),
        ("tanh", {"keep": ["c"]}, ValueError, "keep holds 'c', expected no names"),
        ("lstm", {"keep": "gates"}, TypeError, "keep is 'gates', expected a collection of names"),
        ("lstm", {"checkpoint": 0}, ValueError, "checkpoint is 0"),
        ("lstm", {"training": 1}, TypeError, "training is 1, expected True or False"),
        ("lstm", {}, ValueError, "rng is None, but dropout is 0.5 and training is True"),
        ("gru", {"rng": "seed"}, TypeError, "rng is 'seed'"),
        ("gru", {"rng": -1}, ValueError, "rng is -1"),
    ],
)
def test_bad_options(kind, options, error, text):
    with pytest.raises(error) as caught:
        make(kind, dropout=0.5).forward(X, **options)
    assert text in str(caught.value)


def test_bad_gradients():
    lstm = make("lstm-projection", "both")
    gru = make("gru", "two", batch_first=True)
    _, (h, c), tape = lstm.forward(X)
    _, state, gru_tape = gru.forward(X.swapaxes(0, 1))

    def refused(error, text, call, *args, **options):
        with pytest.raises(error) as caught:
            call(*args, **options)
        assert text in str(caught.value)

    back = lstm.backward
    refused(ValueError, "d_output, d_state[0] and d_state[1] are None", back, tape)
    refused(ValueError, "are None: give at least one", back, tape, None, (None, None))
    refused(TypeError, "d_state is an ndarray, expected a pair", back, tape, None, h)
    refused(ValueError, "d_state has 3 elements", back, tape, None, (h, c, c))
    refused(ValueError, "d_state[0] has shape (2, 4, 5), expected (layers·directions, B, P) = (2, "
            "4, 2)", back, tape, None, (c, c))  # fmt: skip
    refused(TypeError, "d_state[1] is float32, the layer is float64", back, tape, None,
            (h, c.astype("f4")))  # fmt: skip
    refused(ValueError, "d_output has shape (6, 4, 2), expected (T, B, 2·P) = (6, 4, 4)",
            back, tape, Y[:, :, :2])  # fmt: skip
    refused(TypeError, "d_output is a list", back, tape, Y.tolist())
    refused(ValueError, "wrt holds 'bias_ih_l1'", back, tape, None, (h, c), wrt=["bias_ih_l1"])
    back = gru.backward
    refused(ValueError, "d_output and d_state are None", back, gru_tape)
    refused(ValueError, "d_output has shape (6, 4, 5), expected (B, T, H) = (4, 6, 5)", back,
            gru_tape, Y)  # fmt: skip
    refused(TypeError, "d_state is a tuple", back, gru_tape, None, (state, state))
    refused(TypeError, "tape is of LSTM, this layer is GRU", back, tape, Y)
    refused(TypeError, "tape is a GRUTape, expected the LayerTape that GRU.forward returns", back,
            gru_tape.tapes[0], Y)  # fmt: skip
    norms = fastrnn.gradient_norms
    refused(ValueError, "d_output, d_h_n and d_c_n are None", norms, tape)
    refused(ValueError, "d_h_n has shape (4, 2), expected (layers·directions, B, P)", norms, tape,
            None, h[0])  # fmt: skip
    refused(ValueError, "d_c_n is given, but the state of GRU has no c", norms, gru_tape, None,
            state, state)  # fmt: skip


def test_a_tape_of_another_layer():
    x = np.zeros((T, B, H))
    options = {"dtype": "float64", "rng": 0}
    two = fastrnn.RNN(H, H, num_layers=2, **options)
    both = fastrnn.RNN(H, H, bidirectional=True, **options)
    both.flat_weights[...] = two.flat_weights  # as many of the same shape, but of other cells
    output, _, tape = two.forward(x)
    with pytest.raises(ValueError, match="of one with num_layers=2, bidirectional=False"):
        both.backward(tape, np.zeros((T, B, 2 * H)))
    with pytest.raises(ValueError, match="tape is of another layer: of one with num_layers=2"):
        fastrnn.RNN(H, H, **options).backward(tape, output)
    other = fastrnn.RNN(H, H, num_layers=2, **options)
    other.weights["weight_hh_l1"][0, 0] += 1
    with pytest.raises(ValueError, match="its weight_hh_l1 is not this layer's"):
        other.backward(tape, output)
    lstm = fastrnn.LSTM(H, H, peephole=True, **options)
    _, _, tape = lstm.forward(x)
    with pytest.raises(ValueError, match="its weight_peephole_l0 is not this layer's"):
        fastrnn.LSTM(H, H, **options).backward(tape, output)


def test_overwritten_attributes_cannot_make_the_kernel_write_elsewhere():
    """What C writes to has the size that the weights say, whatever the attributes say."""
    layer = make("lstm", "three-both")
    output, _, tape = layer.forward(X)
    before = layer.backward(tape, output)
    vars(layer)["hidden_size"] = 2  # past what refuses it
    with pytest.raises(ValueError):
        layer.forward(X, (np.zeros((6, B, 2)), np.zeros((6, B, 2))))
    assert layer(X)[0].shape == output.shape
    assert np.array_equal(layer.backward(tape, output).flat_weights, before.flat_weights)
