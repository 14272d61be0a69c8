"""What C is handed is checked on the arrays themselves: attributes and tapes are not believed."""

import copy
import pickle
import signal
import threading
import time

import numpy as np
import pytest
from grids import beyond

import fastrnn
from fastrnn import reference

BOTH = pytest.mark.parametrize("module", [fastrnn, reference], ids=["compiled", "reference"])
V, D, H = 5, 3, 4


def network():
    return fastrnn.Embedding(V, D, rng=0), fastrnn.RNN(D, H, rng=1), fastrnn.Linear(H, V, rng=2)


def attribute(place, **values):
    def change(layers):
        for name, value in values.items():
            vars(layers[place])[name] = value  # past what refuses it

    return change


def in_place(place, weight, **values):
    def change(layers):
        for name, value in values.items():
            setattr(layers[place].weights[weight], name, value)

    return change


def both(*changes):
    def change(layers):
        for one in changes:
            one(layers)

    return change


@BOTH
@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # from NumPy 2.5 on
@pytest.mark.parametrize(
    "change",
    [
        both(attribute(0, num_embeddings=10**5), attribute(2, out_features=10**5)),
        both(attribute(1, hidden_size=2), attribute(2, in_features=2)),
        both(attribute(0, embedding_dim=2), attribute(1, input_size=2)),
        attribute(1, nonlinearity="gelu"),
        in_place(0, "weight", shape=(V * D, 1)),
        in_place(0, "weight", shape=(V * D,)),
        in_place(0, "weight", dtype=np.int32),
        in_place(1, "weight_hh_l0", shape=(2, 8)),
        in_place(1, "bias_hh_l0", shape=(2, 2)),
        in_place(2, "weight", shape=(2, 10)),
        in_place(2, "bias", shape=(1, V)),
    ],
)
def test_generate_looks_at_the_weights(module, change):
    layers = network()
    change(layers)
    with pytest.raises((TypeError, ValueError)):
        module.generate(*layers, [V - 1], 4)


def linear_tape():
    x, w = np.ones((6, D), np.float32), np.ones((V, D), np.float32)
    return fastrnn.linear_forward(x, w)[1]


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        {"weight": np.broadcast_to(np.float32(1), (V, D))},
        {"x": np.ones((6, D), np.float32)[::-1, ::-1]},
        {"x": np.ones((6, D), np.float16), "weight": np.ones((V, D), np.float16)},
        {"x": np.ones((6, D)), "weight": np.ones((V, D), np.float32)},
        {"shape": (1, D)},
        {"shape": (60, D)},
        {"weight": np.ones((V, D + 1), np.float32)},
        {"weight": np.ones((V, D, 1), np.float32)},
        {"bias": np.ones(V + 1, np.float32)},
    ],
)
def test_a_linear_tape_is_not_believed(module, fields):
    tape = linear_tape()._replace(**fields)
    d = np.ones((*tape.shape[:-1], len(tape.weight)), tape.x.dtype)
    with pytest.raises(ValueError, match="another shape or dtype"):
        module.linear_backward(tape, d)


def embedding_tape():
    return fastrnn.embedding_forward([1, 4, 0], np.ones((V, D), np.float32))[1]


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": np.dtype(np.float16)},
        {"dtype": np.dtype(np.int32)},
        {"shape": (V,)},
        {"shape": (2, D)},
        {"indices": np.array([1, 4, 10**9])},
        {"indices": np.array([1, 4, -1])},
        {"indices": np.array([1, 4, 0], np.int32)},
        {"indices": np.array([1, 0, 4, 0, 0, 0])[::2]},
    ],
)
def test_an_embedding_tape_is_not_believed(module, fields):
    tape = embedding_tape()._replace(**fields)
    with pytest.raises(ValueError):
        module.embedding_backward(tape, np.ones((3, D), tape.dtype))


def test_the_indices_of_a_tape_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        embedding_tape().indices[0] = 10**12


def test_tapes_from_read_only_buffers_work():
    for tape, backward in (
        (embedding_tape(), fastrnn.embedding_backward),
        (linear_tape(), fastrnn.linear_backward),
    ):
        buffers = []
        data = pickle.dumps(tape, protocol=5, buffer_callback=buffers.append)
        copied = pickle.loads(data, buffers=[bytes(b) for b in buffers])
        d = np.ones((len(tape[0]), D if "indices" in tape._fields else V), np.float32)
        assert backward(copied, d).weight.tobytes() == backward(tape, d).weight.tobytes()


def test_a_tape_of_equal_bytes_in_another_shape_or_type():
    x = np.ones((3, 4), np.float32)
    zero = {"weight": np.zeros((2, 4))}
    layer = fastrnn.Linear(4, 2, bias=False)
    layer.load_state_dict(zero)
    tape = layer.forward(x)[1]
    turned = fastrnn.Linear(2, 4, bias=False)
    turned.flat_weights[...] = 0
    with pytest.raises(ValueError, match="another layer"):
        turned.backward(tape, np.ones((3, 2), np.float32))
    wide = fastrnn.Linear(2, 2, bias=False, dtype="float64")
    wide.flat_weights[...] = 0
    with pytest.raises(ValueError, match="another layer"):
        wide.backward(tape, np.ones((3, 2), np.float32))
    assert copy.deepcopy(layer).backward(tape, np.ones((3, 2), np.float32)).x.shape == (3, 4)


class Liar(np.ndarray):
    """An array that names another shape than it has."""

    @property
    def shape(self):
        return (1, np.ndarray.shape.__get__(self)[-1])


def test_results_are_as_large_as_the_array_is():
    # The error's kind does not matter: nothing is written outside the result.
    rows = np.ones((1000, 4), np.float32)
    with pytest.raises((TypeError, ValueError)):
        fastrnn.linear_forward(rows.view(Liar), np.ones((2, 4), np.float32))
    with pytest.raises((TypeError, ValueError)):
        fastrnn.softmax_cross_entropy(rows.view(Liar), [0])


# ------------------------------------------------------------------------------ Ctrl-C


@pytest.mark.parametrize("threads", [2, *beyond([1])])
def test_a_long_chunk_of_an_output_layer_is_interrupted(threads):
    # Two chunks of 512 rows, each of them seconds of work: far more than the wait allowed.
    fastrnn.set_num_threads(threads)
    fastrnn.set_isa("generic")
    w = np.zeros((8192, 1024))
    tape = fastrnn.linear_forward(np.zeros((1024, 1024)), w)[1]
    d = np.zeros((1024, 8192))
    sent = []

    def send():
        sent.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(0.2, send)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        fastrnn.linear_backward(tape, d)
    assert time.perf_counter() - sent[0] < 1.0
    timer.join()
