"""One layer in one direction: weights, state, axes, tapes and gradients, against its function.

How layers are made is in test_layers_construction.py; what they make of several layers and both
directions is in test_layers_stacked.py and the files beside it.
"""

import copy
import pickle
import threading

import numpy as np
import pytest
from registry import LAST

import fastrnn

T, B, D, H = 5, 3, 4, 6
NAMES = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
ARGUMENTS = dict(zip(NAMES, ["w_ih", "w_hh", "b_ih", "b_hh"], strict=True))
RESTART = np.eye(T, B, dtype=bool)
MASK = np.arange(T * B).reshape(T, B) % 4 != 1  # gaps, also at the ends


def make(**options):
    return fastrnn.RNN(D, H, **{"dtype": "float64", "rng": 0} | options)


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((T, B, D))


@pytest.fixture
def state():
    return np.random.default_rng(2).standard_normal((1, B, H))


def by_function(layer, x, h_0=None, **options):
    """Output, final state and gradients of the loss sum(cos(output)·output) + sum(h_n)."""
    weights = {arg: layer.weights[name] for name, arg in ARGUMENTS.items() if name in layer.weights}
    output, h_n, tape = fastrnn.rnn_forward(x, h_0, **weights, **options)
    return output, h_n, fastrnn.rnn_backward(tape, np.cos(output), np.ones_like(h_n))


# ------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_views_of_one_aligned_array(bias):
    layer = make(bias=bias)
    assert list(layer.weights) == (NAMES if bias else NAMES[:2])
    flat = layer.flat_weights
    assert flat.ndim == 1
    assert flat.ctypes.data % 64 == 0
    assert np.array_equal(flat, np.concatenate([w.ravel() for w in layer.weights.values()]))
    flat[...] = np.arange(flat.size)
    assert layer.weights["weight_hh_l0"][0, 0] == H * D
    layer.weights["weight_ih_l0"][...] = -1
    assert (flat[: H * D] == -1).all()
    layer.weights["weight_ih_l0"] += 3  # augmented assignment stores the same view back
    assert (flat[: H * D] == 2).all()


def test_weights_cannot_be_replaced():
    layer = make()
    with pytest.raises(TypeError, match=r'write its elements, weights\["?.*\]\[\.\.\.\] = value'):
        layer.weights["bias_ih_l0"] = np.zeros(H)
    with pytest.raises(TypeError, match="has no 'other': its names are weight_ih_l0, "):
        layer.weights["other"] = np.zeros(H)
    with pytest.raises((TypeError, AttributeError)):
        del layer.weights["bias_ih_l0"]
    with pytest.raises(KeyError):
        layer.weights["weight_ih_l1"]
    for name in ("weights", "flat_weights"):
        with pytest.raises(AttributeError):
            setattr(layer, name, None)
    assert "'bias_hh_l0': (6,)" in repr(layer.weights)


def test_state_dict():
    layer, other = make(), make(rng=1)
    state = layer.state_dict()
    assert list(state) == NAMES
    assert not any(np.shares_memory(a, layer.flat_weights) for a in state.values())
    assert other.load_state_dict(state) == ([], [])
    assert np.array_equal(layer.flat_weights, other.flat_weights)
    other.load_state_dict({name: a.astype(np.float32) for name, a in state.items()})
    assert np.array_equal(other.flat_weights, layer.flat_weights.astype(np.float32))
    kept = other.weights["weight_hh_l0"].copy()
    partial = {"bias_ih_l0": np.zeros(H), "extra": np.zeros(1)}
    result = other.load_state_dict(partial, strict=False)
    assert result.unexpected_keys == ["extra"]
    assert result.missing_keys == [name for name in NAMES if name != "bias_ih_l0"]
    assert not other.weights["bias_ih_l0"].any()
    assert np.array_equal(other.weights["weight_hh_l0"], kept)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"bias_hh_l0": None}, ValueError, "d lacks bias_hh_l0: the names are weight_ih_l0, "),
        ({"extra": np.zeros(1)}, ValueError, "d has unexpected extra"),
        ({"bias_hh_l0": np.zeros(7)}, ValueError, "d['bias_hh_l0'] has shape (7,), expected (6,)"),
        ({"bias_hh_l0": np.zeros(6, int)}, TypeError, "d['bias_hh_l0'] is int64"),
        ({"bias_hh_l0": np.zeros(6, complex)}, TypeError, "d['bias_hh_l0'] is complex128"),
        ({"bias_hh_l0": ["a"] * 6}, TypeError, "d['bias_hh_l0'] is <U1"),
        ({"bias_hh_l0": [[1.0], [1.0, 2.0]]}, ValueError, "d['bias_hh_l0'] is ragged"),
        ({"bias_hh_l0": np.ma.zeros(6)}, TypeError, "d['bias_hh_l0'] is a MaskedArray"),
    ],
)
def test_load_state_dict_writes_all_or_nothing(change, error, text):
    layer = make()
    before = layer.flat_weights.copy()
    d = {name: np.zeros_like(a) for name, a in layer.weights.items()} | change
    with pytest.raises(error) as caught:
        layer.load_state_dict({name: a for name, a in d.items() if a is not None})
    assert text in str(caught.value)
    assert np.array_equal(layer.flat_weights, before)


@pytest.mark.parametrize("name", NAMES)
def test_load_state_dict_into_weights_that_are_read_only(name):
    layer = make()
    before = layer.flat_weights.copy()
    layer.weights[name].flags.writeable = False
    d = {name: np.zeros_like(a) for name, a in layer.weights.items()}
    with pytest.raises(ValueError, match=rf"weights\['{name}'\] is read-only: write layer.weights"):
        layer.load_state_dict(d)
    assert np.array_equal(layer.flat_weights, before)
    layer.weights[name].flags.writeable = True
    layer.load_state_dict(d)
    assert not layer.flat_weights.any()


def test_load_state_dict_of_no_mapping():
    with pytest.raises(TypeError, match="d is a list, expected a mapping"):
        make().load_state_dict([1])


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "copy"])
@pytest.mark.parametrize(
    "layer",
    [
        variant.layer(
            D, H, 2, batch_first=True, dropout=0.5, bidirectional=True, rng=0, dtype="float64"
        )
        for variant in LAST.values()
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_copies(x, layer, way, protocol):
    layer = copy.deepcopy(layer)
    copied = {
        "deepcopy": copy.deepcopy,
        "copy": copy.copy,
        "pickle": lambda a: pickle.loads(pickle.dumps(a, protocol)),
    }[way](layer)
    assert repr(copied) == repr(layer)
    assert np.array_equal(copied.flat_weights, layer.flat_weights)
    assert copied.flat_weights.ctypes.data % 64 == 0
    assert all(np.shares_memory(w, copied.flat_weights) for w in copied.weights.values())
    assert np.shares_memory(copied.flat_weights, layer.flat_weights) == (way == "copy")
    assert np.array_equal(copied(x)[0], layer(x)[0])
    copied.flat_weights[...] = 0
    assert not copied(x)[0].any()
    assert bool(layer.flat_weights.any()) == (way != "copy")


def test_unpickling_from_a_read_only_buffer():
    layer, buffers = make(), []
    data = pickle.dumps(layer, 5, buffer_callback=buffers.append)
    copied = pickle.loads(data, buffers=[bytes(b) for b in buffers])
    copied.weights["bias_ih_l0"][...] = 7
    assert 7 in copied.flat_weights
    assert 7 not in layer.flat_weights


# ------------------------------------------------------------------------------ runs


OPTIONS = [
    {},
    {"lengths": [5, 0, 3]},
    {"restart": RESTART},
    {"lengths": [2, 5, 1], "restart": RESTART},
    {"mask": MASK, "lengths": [5, 4, 5]},
    {"mask": MASK, "restart": RESTART},
]


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("settings", [{}, {"nonlinearity": "relu", "bias": False}], ids=len)
def test_a_layer_is_its_function(x, state, settings, with_state, options, batch_first, backend):
    layer = make(batch_first=batch_first, **settings)
    nonlinearity = settings.get("nonlinearity", "tanh")
    state = state if with_state else None
    axes = (1, 0, 2) if batch_first else (0, 1, 2)
    own = dict(options)
    for name in ("mask", "restart"):
        if name in own and batch_first:
            own[name] = own[name].T
    own_x = np.ascontiguousarray(x.transpose(axes))

    with fastrnn.backend(backend):
        expected, h_n, grads = by_function(
            layer, x, state[0] if with_state else None, nonlinearity=nonlinearity, **options
        )
        output, last = layer(own_x, state, **own)
        recorded, last_recorded, tape = layer.forward(own_x, state, **own)
        given = layer.backward(tape, np.cos(recorded), np.ones_like(last))
    for a in (output, recorded):
        assert np.array_equal(a, expected.transpose(axes))
        assert a.flags.c_contiguous
    for a in (last, last_recorded):
        assert a.shape == (1, B, H)
        assert np.array_equal(a[0], h_n)
    assert np.array_equal(given.x, grads.x.transpose(axes))
    assert given.x.flags.c_contiguous
    if with_state:
        assert np.array_equal(given.state[0], grads.h_0)
        assert given.state.shape == (1, B, H)
    else:
        assert given.state is None
    assert list(given.weights) == list(layer.weights)
    for name, gradient in given.weights.items():
        assert np.array_equal(gradient, getattr(grads, ARGUMENTS[name]))
        assert np.shares_memory(gradient, given.flat_weights)
    assert given.flat_weights.shape == layer.flat_weights.shape


@pytest.mark.parametrize("batch_first", [False, True])
def test_one_sequence(x, state, batch_first):
    layer = make(batch_first=batch_first)
    options = {"lengths": 4, "mask": MASK[:, 1], "restart": RESTART[:, 1]}
    output, last, tape = layer.forward(x[:, 1], state[:, 1], **options)
    expected, h_n, grads = by_function(layer, x[:, 1], state[0, 1], **options)
    assert np.array_equal(output, expected)
    assert last.shape == (1, H)
    assert np.array_equal(last[0], h_n)
    given = layer.backward(tape, np.cos(output), np.ones_like(last))
    assert np.array_equal(given.x, grads.x)
    assert np.array_equal(given.state, grads.h_0[None])


def test_batch_first_does_not_copy(x):
    _, _, tape = make(batch_first=True).forward(np.ascontiguousarray(x.swapaxes(0, 1)))
    assert not tape.tapes[0].x.flags.owndata
    own = np.ascontiguousarray(x.swapaxes(0, 1))
    output, _, tape = make(batch_first=True).forward(own)
    assert np.shares_memory(tape.tapes[0].x, own)
    assert np.shares_memory(tape.tapes[0].output, output)


def test_state_carries_on(x):
    layer = make()
    whole, last = layer(x)
    first, state = layer(x[:2])
    second, state = layer(x[2:], state)
    # The compiled backend gives the same bits for a whole and for its pieces.
    assert np.array_equal(np.concatenate([first, second]), whole)
    assert np.array_equal(state, last)


@pytest.mark.parametrize(
    "wrt",
    [None, (), ["x"], {"state"}, ["weights"], ["bias_hh_l0", "x"],
     ["weight_ih_l0", "bias_ih_l0"], ["weights", "bias_ih_l0"]],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_wrt(x, state, wrt, backend):
    layer = make()
    with fastrnn.backend(backend):
        output, _, tape = layer.forward(x, state)
        every = layer.backward(tape, output)
        grads = layer.backward(tape, output, wrt=wrt)
    wanted = {"x", "state", "weights"} if wrt is None else set(wrt)
    assert (grads.x is not None) == ("x" in wanted)
    assert (grads.state is not None) == ("state" in wanted)
    names = [name for name in NAMES if "weights" in wanted or name in wanted]
    assert list(grads.weights) == names
    if not names:
        assert grads.flat_weights is None
        return
    expected = np.concatenate([every.weights[n].ravel() * (n in names) for n in NAMES])
    assert np.array_equal(grads.flat_weights, expected)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"x": np.zeros((T, B, D), "f4")}, TypeError,
         "x is float32, the layer is float64: pass x.astype(np.float64)"),
        ({"x": [[0.0] * D]}, TypeError, "x is a list"),
        ({"x": np.zeros((T, B, 7))}, ValueError,
         "x has shape (5, 3, 7), expected ({0}, D) = ({0}, 4)"),
        ({"x": np.zeros((T, 7))}, ValueError, "x has shape (5, 7), expected (T, D) = (T, 4)"),
        ({"x": np.zeros(D)}, ValueError, "x has shape (4,), expected ({0}, D), or (T, D) for one"),
        ({"state": np.zeros((B, H))}, ValueError,
         "state has shape (3, 6), expected (layers·directions, B, H) = (1, {B}, 6)"),
        ({"state": np.zeros((2, B, H))}, ValueError, "state has shape (2, 3, 6), expected"),
        ({"state": np.zeros((1, B, H), "f4")}, TypeError, "state is float32, the layer is float64"),
        ({"state": 0.0}, TypeError, "state is a float"),
        ({"restart": np.zeros((T, B + 9), bool)}, ValueError,
         "restart has shape (5, 12), expected ({0}) ="),
        ({"restart": np.zeros((T, B))}, TypeError, "restart holds float64"),
        ({"lengths": [9, 9, 9, 9, 9]}, ValueError, "lengths"),
    ],
)  # fmt: skip
def test_bad_input(batch_first, arguments, error, text):
    arguments = {"x": np.zeros((T, B, D))} | arguments
    layer = make(batch_first=batch_first)
    axes, batch = ("B, T", T) if batch_first else ("T, B", B)
    text = text.replace("{0}", axes).replace("{B}", str(batch))
    for call in (layer, layer.forward):
        with pytest.raises(error) as caught:
            call(**arguments)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"keep": ("c",)}, ValueError, "keep holds 'c', expected no names"),
        ({"keep": "c"}, TypeError, "keep is 'c'"),
        ({"checkpoint": 0}, ValueError, "checkpoint is 0"),
        ({"training": 1}, TypeError, "training is 1"),
    ],
)
def test_forward_options(x, options, error, text):
    with pytest.raises(error) as caught:
        make().forward(x, **options)
    assert text in str(caught.value)


def test_dropout_has_nothing_to_drop_in_one_layer(x):
    for options in ({}, {"training": True, "rng": 1}, {"training": False}):
        with pytest.warns(UserWarning, match="dropout is 0.5 without effect"):
            layer = make(dropout=0.5)
        output, _, _ = layer.forward(x, **options, keep=(), checkpoint=None)
        assert np.array_equal(output, make()(x)[0])


def test_backward_errors(x):
    layer = make()
    output, state, tape = layer.forward(x)

    def refused(error, text, *args, **options):
        with pytest.raises(error) as caught:
            layer.backward(*args, **options)
        assert text in str(caught.value)

    refused(ValueError, "d_output and d_state are None", tape)
    refused(TypeError, "tape is None", None, output)
    refused(TypeError, "tape is an RNNTape, expected the LayerTape that RNN.forward", tape.tapes[0])
    refused(ValueError, "d_output has shape (5, 3, 4), expected (T, B, H) = (5, 3, 6)", tape, x)
    refused(ValueError, "d_state has shape (3, 6)", tape, d_state=state[0])
    refused(TypeError, "d_state is float32, the layer", tape, d_state=state.astype("f4"))
    refused(TypeError, "wrt is 'x', expected a collection of names out of 'x', 'state', 'weights'",
            tape, output, wrt="x")  # fmt: skip
    refused(ValueError, "wrt holds 'w_ih'", tape, output, wrt=["w_ih"])


def test_a_tape_belongs_to_its_layer(x):
    layer = make()
    output, _, tape = layer.forward(x)
    for other, weight in (
        (make(rng=1), "weight_ih_l0"),
        (make(bias=False, rng=0), "bias_ih_l0"),
        (make(dtype="float32"), "weight_ih_l0"),
        (fastrnn.RNN(D, H + 1), "weight_ih_l0"),
    ):
        text = f"tape is of another layer: its {weight} is not this layer's"
        with pytest.raises(ValueError, match=text):
            other.backward(tape, output.astype(other.dtype))
    # A layer and a tape that went through a pickle together still fit.
    expected = layer.backward(tape, output)
    layer_2, tape_2 = pickle.loads(pickle.dumps((layer, tape)))
    grads = layer_2.backward(tape_2, output)
    assert np.array_equal(grads.flat_weights, expected.flat_weights)
    assert (
        repr(tape) == repr(tape_2) == "LayerTape(RNN: RNNTape(T=5, B=3, D=4, H=6, float64, 'tanh'))"
    )
    assert tape == tape
    assert tape != tape_2


def test_one_layer_serves_many_threads(x, state):
    layer = make()
    expected = layer(x, state)[0]
    failures = []

    def work():
        try:
            for _ in range(20):
                output, _, tape = layer.forward(x, state)
                assert np.array_equal(output, expected)
                layer.backward(tape, output)
        except BaseException as error:
            failures.append(error)

    before = dict(vars(layer))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert vars(layer) == before  # nothing about a forward is kept


@pytest.mark.parametrize(
    "make_layer",
    [
        lambda: fastrnn.RNN(1, 16, rng=0, init="orthogonal"),
        lambda: fastrnn.LSTM(1, 16, forget_bias=1, rng=0, init="orthogonal"),
        lambda: fastrnn.LSTM(1, 24, proj_size=16, peephole=True, forget_bias=1, rng=0),
        lambda: fastrnn.GRU(1, 16, rng=0, init="orthogonal"),
        lambda: fastrnn.GRU(1, 16, 2, reset_after=False, rng=0, init="orthogonal"),
    ],
    ids=["plain", "gates", "projection", "reset", "two-layers"],
)
def test_gradient_descent_learns(make_layer):
    # Remember the first of ten inputs: only a gradient through time can teach it.
    rng = np.random.default_rng(0)
    layer = make_layer()
    pair = isinstance(layer, fastrnn.LSTM)
    readout = rng.standard_normal(16).astype(np.float32) / 4
    x = np.zeros((10, 64, 1), np.float32)
    x[0] = rng.choice([-1, 1], (64, 1))
    adam = fastrnn.optim.Adam([layer.flat_weights], lr=0.02)
    losses = []
    for _ in range(100):
        _, state, tape = layer.forward(x)
        h = state[0] if pair else state
        error = h[-1] @ readout - x[0, :, 0]
        losses.append(float((error**2).mean()))
        d_h = np.zeros_like(h)
        d_h[-1] = 2 / 64 * error[:, None] * readout
        grads = layer.backward(tape, d_state=(d_h, None) if pair else d_h)
        adam.step([grads.flat_weights])
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("state", ["raise", "warn", "ignore"])
def test_values_that_are_rounded_when_they_are_loaded(state: str) -> None:
    layer = fastrnn.Linear(1, 2, rng=0)
    before = layer.flat_weights.copy()
    with np.errstate(all=state):
        for beyond in (1e39, -1e300):
            with pytest.raises(ValueError, match=r"d\['bias'\] holds float64 numbers that are"):
                layer.load_state_dict({"weight": np.ones((2, 1)), "bias": np.array([1, beyond])})
        assert np.array_equal(layer.flat_weights, before)
        layer.load_state_dict({"weight": [[1e-50], [np.inf]], "bias": [np.nan, 0.1]})
    assert layer.weights["weight"].ravel().tolist() == [0, np.inf]
    assert np.isnan(layer.weights["bias"][0])


def test_a_dtype_that_numpy_cannot_read() -> None:
    for text in (",f4", "f4,", "float16", "no such", ""):
        with pytest.raises(TypeError, match=r"^dtype is "):
            fastrnn.RNN(2, 3, dtype=text)
