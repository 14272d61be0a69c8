"""Frozen recurrent layers: the bits of the layer as it was, from weights that are packed once."""

import copy
import itertools
import pickle
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bit_checks import assert_same
from grids import grid
from marks import each_first, each_name
from processes import script
from registry import VARIANTS
from stacked_layers import MASK, OPTIONS, RESTART, SHAPES, B, D, H, T, draw, draw_state, make
from stream_layers import DTYPES, ISAS, assert_same_state, parts
from stream_layers import make as make_large

import fastrnn
from fastrnn import _core
from fastrnn.layers import FrozenRecurrent

pytestmark = pytest.mark.usefixtures("one_thread")


def named(dtype: Any) -> str:
    return np.dtype(dtype).name


def same(got: Any, want: Any, what: str) -> None:
    assert_same(got[0], want[0], f"output, {what}")
    assert_same_state(got[1], want[1], what)


# ------------------------------------------------------------------------------------- the bits


@grid("kind, shape, dtype, isa", VARIANTS, SHAPES, DTYPES, ISAS, enough=True)
@pytest.mark.quick
def test_the_bits_of_the_layer(kind: str, shape: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    layer = make(kind, shape, dtype=named(dtype))
    frozen = layer.freeze()
    x, state = draw(layer, T, B, D, seed=1), draw_state(layer, B)
    for options, initial in itertools.product(OPTIONS.values(), (None, state)):
        same(frozen(x, initial, **options), layer(x, initial, **options), f"{layer} {options}")
    same(frozen(x[:, 0]), layer(x[:, 0]), "one sequence")
    same(frozen(x[:0], state), layer(x[:0], state), "no steps")
    same(frozen(x[:, :0]), layer(x[:, :0]), "no rows")
    with fastrnn.backend("reference"):
        same(frozen(x, state, lengths=[6, 0, 3, 5]), layer(x, state, lengths=[6, 0, 3, 5]), "NumPy")


@grid("kind, dtype", VARIANTS, DTYPES, enough=True)
def test_batch_first_and_many_threads(kind: str, dtype: Any) -> None:
    for features, hidden, batch, layers in ((20, 65, 33, 2), (9, 130, 2, 1), (3, 65, 1, 1)):
        for both in (False, True):
            options = {"batch_first": True, "bidirectional": both}
            layer = make_large(kind, features, hidden, layers, dtype, **options)
            frozen, x = layer.freeze(), draw(layer, batch, 9, features, seed=1)
            lengths = [9 - b % 9 for b in range(batch)]
            want = layer(x), layer(x, lengths=lengths)
            for threads in (1, 3):
                fastrnn.set_num_threads(threads)
                same(frozen(x), want[0], f"{threads} threads, {layer}")
                same(frozen(x, lengths=lengths), want[1], f"{threads} threads, {layer}")


@each_name
def test_given_pre_activations(kind: str) -> None:
    for layers, both in ((1, False), (2, False), (2, True)):
        layer = VARIANTS[kind].layer(None, 7, layers, bidirectional=both, rng=0)
        x = draw(layer, T, B, layer._x_axis[0], seed=1)
        frozen = layer.freeze()
        assert frozen.input_size is None
        same(frozen(x, restart=RESTART, mask=MASK), layer(x, restart=RESTART, mask=MASK), kind)
        same(frozen(x), layer(x), kind)


@each_name
def test_after_the_instruction_set_changed(kind: str) -> None:
    layers = [make(kind, shape) for shape in ("one", "three-both")]
    frozen = [layer.freeze() for layer in layers]
    x = draw(layers[0], T, B, D, seed=1)
    for isa in (*ISAS, *ISAS[::-1]):
        fastrnn.set_isa(isa)
        for own, layer in zip(frozen, layers, strict=True):
            same(own(x), layer(x), f"{kind} {isa}")
            kept = own._packed
            assert all(packed.current() for packed in kept)
            own(x, lengths=[1, 2, 3, 4])
            assert own._packed is kept  # and not again


def test_it_is_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = _core.pack
    monkeypatch.setattr(_core, "pack", lambda *a: made.append(1) or real(*a))
    layer = make("lstm", "three-both")
    frozen, x = layer.freeze(), draw(layer, T, B, D, seed=1)
    for _ in range(3):
        frozen(x, lengths=[1, 2, 3, 4])
    one = make("gru", "one").freeze()
    one(x)
    one.stream(2).run(x[:, :2])
    one.stream(3)
    copy.deepcopy(one)(x)
    assert len(made) == 2


def test_weights_that_are_not_finite() -> None:
    for value, dtype in itertools.product((np.nan, np.inf, -np.inf), ("float32", "float64")):
        layer = make("lstm", "two", dtype=dtype)
        layer.weights["weight_hh_l0"][0, 0] = value
        x = draw(layer, T, B, D, seed=1)
        same(layer.freeze()(x), layer(x), f"{value}")


def test_dropout_does_not_act() -> None:
    layer = make("gru", "two", dropout=0.5)
    x, frozen = draw(layer, T, B, D, seed=1), layer.freeze()
    same(frozen(x), layer(x), "dropout")
    assert frozen.dropout == 0.5


# ------------------------------------------------------------------------------- it does not change


@each_name
def test_it_is_as_the_layer_was(kind: str) -> None:
    layer = make(kind, "both")
    x, before = draw(layer, T, B, D, seed=1), copy.deepcopy(layer)
    frozen = layer.freeze()
    layer.flat_weights[...] = np.nan
    layer.batch_first = True
    for name in ("nonlinearity", "form"):
        if hasattr(layer, name):
            setattr(layer, name, {"nonlinearity": "relu", "form": "potential"}[name])
    want = before(x)
    del layer
    same(frozen(x), want, "the layer has changed")
    with fastrnn.backend("reference"):
        same(frozen(x), before(x), "the layer has changed")


WEIGHTS = "nothing of it can be changed: change the layer that it was made from, and freeze that"


def test_nothing_can_be_set_and_weights_are_not_there() -> None:
    layer = make("lstm", "two", dropout=0.25)
    frozen = layer.freeze()
    for name in (*layer._fixed, *layer._settable, "dtype"):
        assert getattr(frozen, name) == getattr(layer, name)
        assert name in dir(frozen)
        with pytest.raises(AttributeError, match=f"^{name} cannot be set, as a frozen LSTM does"):
            setattr(frozen, name, getattr(layer, name))
        with pytest.raises(AttributeError, match=f"^{name} cannot be deleted"):
            delattr(frozen, name)
    for name in ("precision", "nbytes", "weights", "weight_ih_l0", "anything"):
        with pytest.raises(AttributeError, match=f"^{name} cannot be set"):
            setattr(frozen, name, 1)
    for name, text in (
        ("weights", WEIGHTS), ("flat_weights", WEIGHTS), ("weight_ih_l0", WEIGHTS),
        ("bias_hh_l1_reverse", WEIGHTS), ("forward", "it is for inference: call it"),
        ("backward", "it is for inference"), ("state_dict", "fastrnn.save writes it"),
        ("load_state_dict", "it does not change: change the layer"), ("freeze", "frozen already"),
    ):  # fmt: skip
        assert not hasattr(frozen, name)
        with pytest.raises(AttributeError, match=f"^a frozen LSTM has no {name}: .*{text}"):
            getattr(frozen, name)
    with pytest.raises(AttributeError, match=r"^a frozen LSTM has no anything$"):
        _ = frozen.anything
    with pytest.raises(TypeError, match="does not change: freeze another layer"):
        frozen.__init__(layer)
    assert repr(frozen) == f"{layer!r}.freeze()"


def test_the_snapshot_cannot_be_written() -> None:
    frozen = make("rate", "both").freeze()
    again = pickle.loads(pickle.dumps(frozen))
    for own in (frozen, again):
        for a in (own._layer.flat_weights, *own._layer.weights.values()):
            with pytest.raises(ValueError, match="read-only"):
                a[...] = 0


def test_the_memory_that_it_has() -> None:
    for kind, dtype in itertools.product(VARIANTS, DTYPES):
        layer = make_large(kind, 64, 64, 2, dtype)
        frozen = layer.freeze()
        plain = layer.flat_weights.nbytes
        assert frozen.nbytes == plain + sum(packed.nbytes for packed in frozen._packed)
        assert 1.9 * plain < frozen.nbytes < 2.5 * plain
        assert pickle.loads(pickle.dumps(frozen)).nbytes == frozen.nbytes


# ----------------------------------------------------------------------------------- precision


def test_the_precision_is_the_layers() -> None:
    for own, other in (("float32", "float64"), ("float64", "float32")):
        layer = make("gru", dtype=own)
        assert layer.freeze().precision == layer.freeze(own).precision == own
        text = f"^precision is '{other}', but the GRU is {own}: pass precision=None, or freeze a"
        with pytest.raises(ValueError, match=text):
            layer.freeze(other)
        with pytest.raises(ValueError, match=r"^precision is 'float8', expected 'float32' or"):
            layer.freeze(precision="float8")
        with pytest.raises(TypeError, match=r"pass precision='float64'$"):
            layer.freeze(np.float64)
        for wrong in (3, True, ["float32"], np.dtype("i8")):
            with pytest.raises(TypeError, match=r"^precision is .*, expected 'float32' or"):
                layer.freeze(wrong)


class Own(fastrnn.GRU):
    """One that a user has derived, with a constructor of its own."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, rng=0)
        self.told = size


class Called(Own):
    """One that is called in a way of its own."""

    def __call__(self, x: Any, *args: Any, **options: Any) -> Any:
        return super().__call__(2 * x, *args, **options)


def test_a_users_layer_is_frozen_as_ours() -> None:
    layer = Own(3)
    x = draw(layer, T, B, 3, seed=1)
    frozen = layer.freeze()
    assert repr(frozen) == "GRU(3, 3).freeze()"
    same(frozen(x), layer(x), "Own")
    same(pickle.loads(pickle.dumps(frozen))(x), layer(x), "Own")
    with pytest.raises(TypeError, match=r"^Called has a __call__ of its own, which a frozen GRU"):
        Called(3).freeze()


# -------------------------------------------------------------------------------------- copies


@each_name
def test_copies(kind: str) -> None:
    layer = make(kind, "three-both")
    frozen, x = layer.freeze(), draw(layer, T, B, D, seed=1)
    assert copy.copy(frozen) is frozen
    assert copy.deepcopy({"a": frozen})["a"] is frozen
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(frozen, protocol))
        assert type(again) is FrozenRecurrent
        assert repr(again) == repr(frozen)
        same(again(x, lengths=[6, 0, 3, 5]), layer(x, lengths=[6, 0, 3, 5]), kind)
    assert len(pickle.dumps(frozen)) < 1.2 * layer.flat_weights.nbytes + 3000  # nothing packed


def test_a_process_with_another_instruction_set_has_the_bits(tmp_path: Any) -> None:
    layer = make("lstm", "three-both")
    x, path = draw(layer, T, B, D, seed=1), tmp_path / "frozen.pickle"
    path.write_bytes(pickle.dumps((layer.freeze(), x)))
    code = (
        "import pickle, sys; frozen, x = pickle.loads(open(sys.argv[1], 'rb').read()); "
        "print(frozen(x)[0].tobytes().hex())"
    )
    for isa in PROMISED:
        done = script(code, str(path), FASTRNN_ISA=isa)
        assert done.stderr == ""
        assert done.stdout.strip() == layer(x)[0].tobytes().hex()


@each_name
def test_files(kind: str, tmp_path: Any) -> None:
    layers = {shape: make(kind, shape, dtype="float64") for shape in ("one", "three-both")}
    fastrnn.save(tmp_path / "plain.safetensors", layers)
    frozen = {name: layer.freeze() for name, layer in layers.items()}
    fastrnn.save(tmp_path / "frozen.safetensors", frozen)
    loaded = fastrnn.load(tmp_path / "frozen.safetensors")
    for name, layer in layers.items():
        assert type(loaded[name]) is FrozenRecurrent
        assert loaded[name].precision == "float64"
        assert repr(loaded[name]) == repr(frozen[name])
        x = draw(layer, T, B, D, seed=1)
        same(loaded[name](x, lengths=[6, 0, 3, 5]), layer(x, lengths=[6, 0, 3, 5]), name)
    # Loaded and saved again it is the same file; the tensors are those of the plain layers.
    fastrnn.save(tmp_path / "again.safetensors", loaded)
    written = {p.stem: p.read_bytes() for p in tmp_path.iterdir()}
    assert written["again"] == written["frozen"]
    size = sum(layer.flat_weights.nbytes for layer in layers.values())
    assert written["frozen"][-size:] == written["plain"][-size:]


# ------------------------------------------------------------------------------------- threads


@each_first
def test_threads_share_it_while_the_instruction_set_changes(kind: str) -> None:
    layers = [make_large(kind, 9, 33, 1), make_large(kind, 9, 33, 2, bidirectional=True)]
    x = draw(layers[0], 20, 2, 9, seed=1)
    want = [layer(x, lengths=[20, 7]) for layer in layers]
    frozen = [layer.freeze() for layer in layers]
    ends, faults = threading.Event(), []

    def work() -> None:
        try:
            while not ends.is_set():
                for own, one in zip(frozen, want, strict=True):
                    same(own(x, lengths=[20, 7]), one, "in a thread")
                    own(x)
                    if not own.bidirectional:
                        assert_same(own.stream(2).run(x), own(x)[0], "a stream")
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        for isa in PROMISED:
            fastrnn.set_isa(isa)
            for own, one in zip(frozen, want, strict=True):
                same(own(x, lengths=[20, 7]), one, "in the main thread")
    ends.set()
    for thread in threads:
        thread.join()
    assert faults == []


# ------------------------------------------------------------------------------------- streams


@each_name
def test_streams_share_the_packed_weights(kind: str) -> None:
    layer = make_large(kind, 3, 17, 2)
    frozen, x = layer.freeze(), draw(layer, T, 2, 3, seed=1)
    want = layer(x)
    streams = [frozen.stream(2) for _ in range(3)]
    layer.flat_weights[...] = 0
    for t in range(T):
        for stream in streams:
            assert_same(stream.step(x[t]), want[0][t], f"step {t}")
    for stream in streams:
        assert_same_state(stream.state, want[1])
        with pytest.raises(RuntimeError, match=r"^this stream is of a frozen .*other.state = str"):
            stream.update()
        assert_same_state(stream.state, want[1])
    assert repr(streams[0]) == f"Stream({frozen!r}, batch_size=2)"


def test_streams_of_one_frozen_layer_take_no_memory_of_their_own() -> None:
    layer = make_large("lstm", 64, 256)
    frozen = layer.freeze()
    tracemalloc.start()
    try:
        streams = [frozen.stream() for _ in range(20)]
        held, _ = tracemalloc.get_traced_memory()
        other = layer.stream()
        alone, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 20 * 10_000 < layer.flat_weights.nbytes
    assert alone - held > layer.flat_weights.nbytes  # the packed ones
    del streams, other


@each_name
def test_a_stream_stays_with_its_instruction_set(kind: str) -> None:
    layer = make_large(kind, 3, 17, 2)
    x = draw(layer, T, 2, 3, seed=1)
    for made, other in itertools.product(ISAS, ISAS):
        fastrnn.set_isa(made)
        frozen, want = layer.freeze(), layer(x)
        stream = frozen.stream(2)
        first = stream.run(x[:2])
        fastrnn.set_isa(other)
        same(frozen(x), layer(x), f"{made}, then {other}")
        assert_same(np.concatenate([first, stream.run(x[2:])]), want[0], f"{made}, then {other}")
        assert_same(frozen.stream(2).run(x), layer(x)[0], f"{made}, made under {other}")


def test_streams_of_batch_first_layers_go_by_the_frozen_one() -> None:
    layer = make_large("gru", 3, 9, batch_first=True)
    frozen, x = layer.freeze(), draw(layer, 2, T, 3, seed=1)
    stream = frozen.stream(2)
    layer.batch_first = False
    assert_same(stream.run(x), frozen(x)[0], "batch first")
    for t in range(T):
        stream.step(x[:, t])


def test_what_has_no_stream() -> None:
    for shape, text in (("both", "is bidirectional"), ("two-reverse", "runs in reverse")):
        frozen = make("gru", shape).freeze()
        with pytest.raises(ValueError, match=f"^GRU {text}: its output depends"):
            frozen.stream()
    frozen = make("gru", "one").freeze()
    with pytest.raises(ValueError, match=r"^batch_size is -1"):
        frozen.stream(-1)


def test_state_of_a_stream_goes_to_that_of_a_layer_frozen_again() -> None:
    layer = make_large("lstm", 3, 9)
    x = draw(layer, T, 2, 3, seed=1)
    stream = layer.freeze().stream(2)
    stream.run(x)
    state = stream.state
    layer.flat_weights[...] *= 0.5
    other = layer.freeze().stream(2)
    other.state = stream.state
    assert_same(other.run(x), layer(x, state)[0], "frozen again")
    assert all(a.flags.owndata for a in parts(state))


def test_wrong_arguments_are_named_as_by_the_layer() -> None:
    layer = make("lstm", "two")
    frozen = layer.freeze()
    x = draw(layer, T, B, D, seed=1)
    for arguments, options in (
        ((x.astype(np.float16),), {}), ((x[:, :, :2],), {}), ((x, x), {}), ((None,), {}),
        ((x,), {"lengths": [1]}), ((x,), {"mask": x > 0}), ((x,), {"restart": [True]}),
        ((x, draw_state(layer, B + 1)), {}), ((x[0, 0],), {}),
    ):  # fmt: skip
        texts = []
        for one in (layer, frozen):
            with pytest.raises((TypeError, ValueError)) as error:
                one(*arguments, **options)
            texts.append(f"{error.type.__name__}: {error.value}")
        assert texts[0] == texts[1]
    assert frozen.hidden_size == H
