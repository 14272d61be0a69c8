"""What is copied or pickled together stays together: layers, gradients and optimisers."""

import copy
import gc
import io
import multiprocessing
import pickle
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same

import fastrnn
from fastrnn import _memory
from fastrnn._memory import Memory
from fastrnn.optim import SGD, Adam

Copy = Callable[[Any], Any]


def pickled(protocol: int) -> Copy:
    return lambda a: pickle.loads(pickle.dumps(a, protocol))


def out_of_band(lend: Callable[[bytes], Any]) -> Copy:
    def copied(a: Any) -> Any:
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(a, 5, buffer_callback=buffers.append)
        assert buffers
        return pickle.loads(data, buffers=[lend(b.raw().tobytes()) for b in buffers])

    return copied


def odd(data: bytes) -> memoryview:
    """At an odd address."""
    place = np.empty(len(data) + 2, np.uint8)
    start = 1 - place.__array_interface__["data"][0] % 2
    place[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return memoryview(place)[start : start + len(data)]


def cloudpickled(a: Any) -> Any:
    cloudpickle = pytest.importorskip("cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(a))


def joblib_of(mode: str | None) -> Copy:
    def copied(a: Any) -> Any:
        joblib = pytest.importorskip("joblib")
        if mode is None:
            file = io.BytesIO()
            joblib.dump(a, file)
            file.seek(0)
            return joblib.load(file)
        folder = tempfile.TemporaryDirectory()
        joblib.dump(a, Path(folder.name, "a"))
        loaded = joblib.load(Path(folder.name, "a"), mmap_mode=mode)
        folders.append(folder)  # what is mapped stays there
        return loaded

    return copied


folders: list[Any] = []

WAYS: dict[str, Copy] = {
    "deepcopy": copy.deepcopy,
    **{f"protocol {n}": pickled(n) for n in range(6)},
    "out of band": out_of_band(bytearray),
    "out of band, read-only": out_of_band(bytes),
    "out of band, unaligned": out_of_band(odd),
    "cloudpickle": cloudpickled,
    "joblib": joblib_of(None),
    **{f"joblib, mapped {mode}": joblib_of(mode) for mode in ("r", "r+", "c", "w+")},
}

each_way = pytest.mark.parametrize("way", WAYS)

LAYERS: dict[str, Callable[[], Any]] = {
    "one unit": lambda: fastrnn.RNN(1, 1, rng=0),
    "odd": lambda: fastrnn.RNN(3, 5, rng=0, dtype="float64"),
    "large": lambda: fastrnn.LSTM(16, 128, rng=0),
    "everything": lambda: fastrnn.LSTM(
        3, 5, 2, dropout=0.5, bidirectional=True, proj_size=2, peephole=True, rng=0
    ),
    "gru": lambda: fastrnn.GRU(3, 5, 2, bias=False, rng=0),
    "reverse": lambda: fastrnn.RNN(3, 5, 2, reverse=True, rng=0),
    "given": lambda: fastrnn.GRU(None, 5, rng=0),
    "linear": lambda: fastrnn.Linear(5, 3, rng=0),
    "embedding": lambda: fastrnn.Embedding(5, 3, rng=0),
    "padded": lambda: fastrnn.Embedding(5, 3, padding_idx=-1, rng=0),
    "one bias": lambda: fastrnn.GRU(3, 5, bias="single", rng=0),
    "model": lambda: fastrnn.Sequential(
        {"rnn": fastrnn.GRU(3, 5, rng=0), "drop": fastrnn.Dropout(), "out": fastrnn.Linear(5, 2)}
    ),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=list(LAYERS))

PARAMS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda layer: layer.flat_weights,
    "in a list": lambda layer: [layer.flat_weights],
    "by name": lambda layer: layer.weights.values(),
    "slices": lambda layer: [layer.flat_weights[:1], layer.flat_weights[1:]],
    "every other element": lambda layer: [layer.flat_weights[1::2], layer.flat_weights[::2]],
    "backwards": lambda layer: [layer.flat_weights[::-1]],
    "transposed": lambda layer: [w.T for w in layer.weights.values()],
    "as another class": lambda layer: [layer.flat_weights.view(Subclass)],
    "through a buffer": lambda layer: [np.asarray(memoryview(layer.flat_weights))],
}


class Subclass(np.ndarray[Any, Any]):
    pass


def step(optimiser: Any, value: float = 1.0) -> None:
    optimiser.step([np.full(p.shape, value, p.dtype) for p in optimiser.params])


def check_tied(layer: Any, optimiser: Any) -> None:
    """The optimiser trains the layer, all of it, and the layer works as its weights say."""
    flat = layer.flat_weights
    before = flat.copy()
    step(optimiser)
    assert (flat != before).all()
    for name, view in layer.weights.items():
        assert np.shares_memory(view, flat), name
    assert flat.__array_interface__["data"][0] % 64 == 0
    assert flat.flags.carray
    assert flat.dtype in (np.dtype("f4"), np.dtype("f8"))
    assert any(flat.dtype is np.dtype(kind) for kind in ("f4", "f8"))
    assert all(view.dtype is flat.dtype for view in layer.weights.values())


@each_way
@each_layer
def test_a_layer_and_its_optimiser(make: Any, way: str) -> None:
    for kind, options in ((SGD, {"lr": 0.5, "momentum": 0.5}), (Adam, {"lr": 0.5})):
        for order in (1, -1):
            layer = make()
            optimiser = kind([layer.flat_weights], **options)
            step(optimiser)
            flat, state = layer.flat_weights.copy(), optimiser.state_dict()
            copied = WAYS[way]((layer, optimiser)[::order])
            layer_2, optimiser_2 = copied[::order]
            assert_same(layer_2.flat_weights, flat, "the weights")
            for name, value in optimiser_2.state_dict().items():
                assert np.array_equal(value, state[name]), name
            check_tied(layer_2, optimiser_2)
            assert_same(layer.flat_weights, flat, "the first one's weights")
            assert all(np.array_equal(v, state[n]) for n, v in optimiser.state_dict().items())
            step(optimiser)
            assert_same(layer_2.flat_weights, layer.flat_weights, "each after the same step")


@each_way
@pytest.mark.parametrize("choose", PARAMS.values(), ids=list(PARAMS))
def test_parameters_of_every_form(choose: Any, way: str) -> None:
    layer = LAYERS["everything"]()
    optimiser = SGD(choose(layer), 0.5)
    layer_2, optimiser_2 = WAYS[way]([layer, optimiser])
    for p, q in zip(optimiser.params, optimiser_2.params, strict=True):
        assert (p.shape, p.strides) == (q.shape, q.strides)
        assert_same(np.ascontiguousarray(p), np.ascontiguousarray(q), "the parameters")
    check_tied(layer_2, optimiser_2)
    step(optimiser)
    assert_same(layer.flat_weights, layer_2.flat_weights, "each after the same step")


@each_way
def test_several_layers_and_arrays(way: str) -> None:
    rnn, head, own = fastrnn.RNN(3, 5, rng=0), fastrnn.Linear(5, 2, rng=1), np.ones(4)
    optimisers = [Adam([rnn.flat_weights, own, head.weights["bias"]]), SGD(head.flat_weights, 0.5)]
    made = {"a": rnn, "b": optimisers, "c": [own, {"head": head}]}
    for _ in range(2):  # a copy of a copy too
        made = WAYS[way](made)
        if not made["c"][0].flags.writeable:  # mapped or lent: NumPy's arrays stay what they are
            with pytest.raises(ValueError, match=r"params\[1\] is read-only"):
                step(made["b"][0])
            return
        step(made["b"][0])
        step(made["b"][1])
        rnn_2, own_2, head_2 = made["a"], made["c"][0], made["c"][1]["head"]
        assert (rnn_2.flat_weights != rnn.flat_weights).all()
        if not way.startswith("joblib"):  # which writes an array as often as it meets it
            assert (own_2 != own).all()
        assert (head_2.flat_weights != head.flat_weights).all()
        rnn, own, head = copy.deepcopy(rnn_2), own_2.copy(), copy.deepcopy(head_2)


@each_way
def test_alone(way: str) -> None:
    layer, alone = LAYERS["gru"](), LAYERS["gru"]()
    optimiser = Adam(layer.weights.values(), lr=0.5)
    step(optimiser)
    copied = WAYS[way](optimiser)
    before = layer.flat_weights.copy()
    step(copied)
    assert_same(layer.flat_weights, before, "nobody else's weights")
    step(optimiser)
    for p, q in zip(optimiser.params, copied.params, strict=True):
        assert_same(p, q, "each after the same step")
    layer_2 = WAYS[way](alone)
    assert np.array_equal(layer_2.flat_weights, alone.flat_weights)
    assert not np.shares_memory(layer_2.flat_weights, alone.flat_weights)


@each_way
def test_the_mapping_of_weights(way: str) -> None:
    layer = LAYERS["everything"]()
    layer_2, weights = WAYS[way]((layer, layer.weights))
    weights["bias_ih_l1"][...] = 7
    assert (layer_2.weights["bias_ih_l1"] == 7).all()
    assert list(weights) == list(layer.weights)
    alone = WAYS[way](layer.weights)
    assert type(alone) is type(layer.weights)
    for name, view in layer.weights.items():
        assert_same(alone[name], view, name)
    alone["bias_ih_l1"] += 1
    with pytest.raises(TypeError, match="cannot be replaced"):
        alone["bias_ih_l1"] = alone["bias_ih_l1"] * 2


def gradients(kind: str) -> list[Any]:
    if kind == "embedding":
        embedding = fastrnn.Embedding(5, 3, rng=0)
        output, tape = embedding.forward([1, 2, 1])
        return [embedding.backward(tape, output, wrt=w) for w in (None, ["weight"], [])]
    if kind == "linear":
        head = fastrnn.Linear(3, 4, rng=0)
        output, tape_2 = head.forward(np.ones((2, 3), np.float32))
        return [head.backward(tape_2, output, wrt=w) for w in (None, ["bias"], ["x"], [])]
    layer: Any = LAYERS[kind]()
    x = np.ones((4, 2, layer.input_size), np.float32)
    output, state, tape_3 = layer.forward(x, training=False)
    output, state, tape_3 = layer.forward(x, state, training=False)
    choices = (None, ["weight_hh_l1", "bias_ih_l1"] if layer.bias else ["weight_ih_l0"], ["state"])
    return [layer.backward(tape_3, output, wrt=w) for w in choices]


@each_way
@pytest.mark.parametrize("kind", ["everything", "gru", "linear", "embedding"])
def test_gradients(kind: str, way: str) -> None:
    for grads in gradients(kind):
        if way.startswith("out of band") and grads.flat_weights is None:
            continue  # there may be nothing to lend
        for _ in range(2):  # a copy of a copy too
            copied = WAYS[way](grads)
            assert type(copied) is type(grads)
            assert list(copied.weights) == list(grads.weights)
            for name, view in grads.weights.items():
                assert_same(copied.weights[name], view, name)
            if grads.flat_weights is None:
                assert copied.flat_weights is None
                continue
            assert_same(copied.flat_weights, grads.flat_weights, "flat_weights")
            assert not np.shares_memory(copied.flat_weights, grads.flat_weights)
            norm = fastrnn.clip_grad_norm(grads.weights, 1e6)
            assert norm == fastrnn.clip_grad_norm(copied.weights, norm / 2)
            assert np.isclose(np.linalg.norm(copied.flat_weights), norm / 2)
            for name in copied.weights:
                copied.weights[name][...] = 3
            assert set(copied.flat_weights.tolist()) <= {0, 3}
            assert sum(v.size for v in copied.weights.values()) == (copied.flat_weights == 3).sum()
            grads = WAYS[way](grads)


def test_gradients_that_were_replaced() -> None:
    grads = gradients("gru")[0]
    cut = grads._replace(flat_weights=grads.flat_weights[::2])
    for copied in (copy.deepcopy(cut), pickle.loads(pickle.dumps(cut))):
        assert_same(copied.flat_weights, cut.flat_weights, "flat_weights")
        for name, view in grads.weights.items():
            assert_same(copied.weights[name], view, name)
    none = grads._replace(flat_weights=None)
    assert copy.deepcopy(none).flat_weights is None
    assert list(copy.deepcopy(none).weights) == list(grads.weights)


def test_shallow_copies_share_the_weights() -> None:
    layer = fastrnn.GRU(3, 4, rng=0)
    adam = Adam(layer.weights.values(), lr=0.5)
    step(adam)
    copied, adam_2 = copy.copy(layer), copy.copy(adam)
    assert np.shares_memory(copied.flat_weights, layer.flat_weights)
    check_tied(copied, adam)
    check_tied(layer, adam_2)
    check_tied(copied, adam_2)
    # The state is each optimiser's own: with one between them, each would spoil the other's.
    assert (adam.step_count, adam_2.step_count) == (2, 3)
    state = adam.state_dict()
    step(adam_2)
    assert all(np.array_equal(v, state[n]) for n, v in adam.state_dict().items())
    grads = gradients("gru")[0]
    copied = copy.copy(grads)
    copied.weights["weight_hh_l0"][...] = 5
    assert (grads.weights["weight_hh_l0"] == 5).all()


def test_the_state_of_a_copy_is_native_and_writable() -> None:
    params = [np.ones(3), np.ones((2, 2), np.float32)]
    adam = Adam(params)
    step(adam)
    make, (kind, handed, state, numbers), _ = adam.__reduce_ex__(4)
    foreign = {
        slot: [np.asarray(a, a.dtype.newbyteorder()) for a in arrays]
        for slot, arrays in state.items()
    }
    for arrays in foreign.values():
        for a in arrays:
            a.flags.writeable = False
    copied = make(kind, handed, foreign, numbers)
    step(copied)
    step(adam)
    for p, q in zip(copied.params, params, strict=True):
        assert_same(p, q, "the parameters")
    for name, value in adam.state_dict().items():
        assert np.array_equal(copied.state_dict()[name], value)


class Mine(fastrnn.LSTM):
    __slots__ = ("optimiser",)

    def __init__(self, size: int) -> None:
        self.before = ["set before the constructor"]
        super().__init__(size, size, rng=0)
        self.optimiser = Adam([self.flat_weights], lr=0.5)
        self.note = "of my own"


class Schedule(SGD):
    __slots__ = ("unset", "warmup")

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.5)
        self.steps_done, self.warmup = 3, 10


@each_way
def test_subclasses(way: str) -> None:
    layer = Mine(3)
    optimiser = Schedule(layer.weights.values())
    layer_2, optimiser_2 = WAYS[way]((layer, optimiser))
    assert type(layer_2) is Mine
    assert (layer_2.before, layer_2.note) == (layer.before, layer.note)
    assert (optimiser_2.steps_done, optimiser_2.warmup) == (3, 10)
    assert not hasattr(optimiser_2, "unset")
    check_tied(layer_2, layer_2.optimiser)
    check_tied(layer_2, optimiser_2)


def trained(pair: Any) -> Any:
    layer, adam = pair
    step(adam)
    return layer.flat_weights, pair


def test_a_process_of_its_own() -> None:
    layer = fastrnn.RNN(3, 4, rng=0)
    adam = Adam([layer.flat_weights], lr=0.5)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        flat, (layer_2, adam_2) = pool.apply(trained, ((layer, adam),))
    step(adam)
    assert_same(layer.flat_weights, flat, "trained there")
    check_tied(layer_2, adam_2)
    step(adam)
    assert_same(layer.flat_weights, layer_2.flat_weights, "and on here")


def test_wherever_memory_starts() -> None:
    # Copies of NumPy's start where malloc likes; this takes every place that it may.
    seen = set()
    for size in range(1, 40):
        layer = fastrnn.Linear(size, 3, rng=0)
        sgd = SGD(layer.flat_weights, 0.5)
        kept = [np.empty(k, np.uint8) for k in range(size)]
        layer_2, sgd_2 = copy.deepcopy((layer, sgd))
        seen.add(copy.deepcopy(layer.flat_weights).__array_interface__["data"][0] % 64)
        check_tied(layer_2, sgd_2)
        del kept
    assert len(seen) > 1


# -------------------------------------------------------------------------------- the memory


def test_every_view_finds_the_memory() -> None:
    flat = fastrnn.LSTM(3, 4, rng=0).flat_weights
    memory = _memory.owner(flat)
    assert isinstance(memory, Memory)
    views = (
        flat[3:], flat[::-2], flat.reshape(2, -1).T, flat[:0], flat.view(np.uint8),
        flat.view(Subclass)[2:], np.asarray(memoryview(flat)), np.frombuffer(flat, np.float32),
        np.lib.stride_tricks.sliding_window_view(flat, 3), flat[3:4].reshape(()), flat[None],
    )  # fmt: skip
    for view in views:
        assert _memory.owner(view) is memory
        taken = _memory.taken_over(_memory.handed_over(view))
        assert (taken.shape, taken.dtype) == (view.shape, view.dtype)
        assert taken.tobytes() == view.tobytes()
        assert np.shares_memory(taken, view) == bool(view.size)
    for other in (flat.copy(), flat + 1, np.array(flat), np.frombuffer(bytes(8), np.float32)):
        assert _memory.owner(other) is None
        assert _memory.handed_over(other) is other


def test_memory_goes_with_its_last_user() -> None:
    layer = fastrnn.LSTM(3, 4, rng=0)
    memory = weakref.ref(_memory.owner(layer.flat_weights))
    adam = Adam([layer.weights["weight_ih_l0"]])
    layer_2 = copy.copy(layer)
    gc.disable()  # no cycle holds it
    try:
        del layer, layer_2
        assert memory() is not None
        step(adam)
        del adam
        assert memory() is None
    finally:
        gc.enable()


def test_a_copy_takes_a_pickle_of_the_weights_size() -> None:
    layer = fastrnn.LSTM(16, 64, rng=0)
    adam = Adam(layer.weights.values())
    weights = layer.flat_weights.nbytes
    assert len(pickle.dumps(layer)) < weights + 1000
    assert len(pickle.dumps((layer, adam))) < 3 * weights + 5000  # with its two slots, no scratch
    assert isinstance(layer.flat_weights, np.ndarray)


# ------------------------------------------------------- what subclasses and other libraries do


class Logged(fastrnn.GRU):
    """The usual pair of methods of what cannot be pickled whole."""

    def __getstate__(self) -> Any:
        state = self.__dict__.copy()
        state.pop("log", None)
        return state

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        self.log = "made again"


class Counting(fastrnn.optim.SGD):
    def __getstate__(self) -> Any:
        return self.__dict__.copy()

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        self.copies = getattr(self, "copies", 0) + 1


class OneWay(fastrnn.RNN):
    def __getstate__(self) -> Any:
        return super().__getstate__() | {"note": "taken along"}


class Reduced(fastrnn.RNN):
    """Says itself how it is made again."""

    def __reduce__(self) -> Any:
        return reduced, (self.state_dict(),)


def reduced(weights: Any) -> Reduced:
    layer = Reduced(3, 4)
    layer.load_state_dict(weights)
    layer.made_by = "reduced"
    return layer


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_subclass_that_says_how_it_is_made_again(protocol: int) -> None:
    layer = Reduced(3, 4, rng=0)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer, protocol))):
        assert copied.made_by == "reduced"
        assert np.array_equal(copied.flat_weights, layer.flat_weights)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
@pytest.mark.parametrize("kind", [Logged, OneWay])
def test_a_subclass_with_a_state_of_its_own(kind: Any, way: Any) -> None:
    layer = kind(3, 4, rng=0)
    sgd = Counting([layer.flat_weights], lr=1.0)
    copied, of_copied = way((layer, sgd))
    x = np.ones((5, 2, 3), np.float32)
    assert np.array_equal(copied(x)[0], layer(x)[0])
    of_copied.step([copied.flat_weights.copy()])
    assert not copied.flat_weights.any()
    assert not copied(x)[0].any()
    assert not any(a.any() for a in copied.state_dict().values())
    assert layer(x)[0].any()
    assert of_copied.copies == 1
    if kind is Logged:
        assert copied.log == "made again"
    else:
        assert copied.note == "taken along"


@pytest.mark.parametrize(
    "lent",
    [
        np.from_dlpack,
        lambda a: np.ctypeslib.as_array(np.ctypeslib.as_ctypes(a)),
        lambda a: np.ctypeslib.as_array(np.ctypeslib.as_ctypes(a))[3:7],
        lambda a: np.frombuffer(memoryview(a), a.dtype),
        lambda a: np.asarray(type("Lent", (), {"__array_interface__": a.__array_interface__})()),
    ],
    ids=["DLPack", "ctypes", "a slice of ctypes", "memoryview", "interface"],
)
def test_weights_that_were_lent_and_taken_back(lent: Any) -> None:
    layer = fastrnn.Linear(3, 4, rng=0)
    sgd = fastrnn.optim.SGD([lent(layer.flat_weights)], lr=1.0)
    copied, of_copied = copy.deepcopy((layer, sgd))
    before = copied.flat_weights.copy()
    of_copied.step([np.ones_like(of_copied.params[0])])
    moved = copied.flat_weights != before
    assert moved.sum() == of_copied.params[0].size
    assert np.array_equal(layer.flat_weights, before)


def test_what_lies_elsewhere_is_no_part_of_a_layer() -> None:
    layer = fastrnn.Linear(3, 4, rng=0)
    own = np.ones(4, np.float32)
    for params in ([own], [np.from_dlpack(own)], [np.zeros(0, np.float32)]):
        sgd = copy.deepcopy((layer, fastrnn.optim.SGD(params, lr=1.0)))[1]
        assert np.array_equal(sgd.params[0], params[0])
        assert not np.shares_memory(sgd.params[0], params[0])
