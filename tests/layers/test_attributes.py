"""Attributes that would make an object lie are refused, others checked when they are set."""

import copy
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registry import CELLS, EXTRAS, RICH

import fastrnn
from fastrnn.optim import SGD, Adam

RECURRENT = tuple(cell.layer for cell in CELLS.values())
X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)


def layers() -> dict[str, Any]:
    return {name: variant.layer(3, 4, 2, rng=0) for name, variant in RICH.items()} | {
        "both": fastrnn.LSTM(3, 4, 2, forget_bias=1, bidirectional=True, rng=0),
        "without": fastrnn.LSTM(3, 4, bias=False, rng=0),
        "linear": fastrnn.Linear(3, 4, rng=0),
        "embedding": fastrnn.Embedding(5, 3, rng=0),
    }


def optimisers() -> dict[str, Any]:
    return {"sgd": SGD(np.ones(3), 0.1), "adam": Adam(np.ones(3))}


def objects() -> dict[str, Any]:
    return layers() | optimisers() | {"stream": fastrnn.LSTM(3, 4, rng=0).stream(2)}


def snapshot(thing: Any) -> dict[str, Any]:
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in getattr(thing, "__dict__", {}).items()
    }


class Unmoved:
    """Asserts that what happens inside raises this and changes no attribute."""

    def __init__(self, thing: Any, error: Any, *texts: str) -> None:
        self.thing, self.error, self.texts = thing, error, texts

    def __enter__(self) -> None:
        self.before = snapshot(self.thing)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        assert kind is not None, "nothing was raised"
        if not issubclass(kind, self.error):
            return False
        for text in self.texts:
            assert text in str(value)
        after = snapshot(self.thing)
        assert after.keys() == self.before.keys()
        for name, old in self.before.items():
            assert old is after[name] or np.array_equal(old, after[name]), name
        return True


# ----------------------------------------------------------------------------------- weights

NOT_THERE = [
    "weight_hh_l7", "weight_ih", "weight", "bias_ih", "bias_hh_l9_reverse", "weight_hr_l0",
    "weight_peephole_l5", "weight_ih_l0_reverse", "bias_l0",
]  # fmt: skip


@pytest.mark.parametrize("kind", layers())
def test_weights_are_not_set_as_attributes(kind: str) -> None:
    layer = layers()[kind]
    for name in {*layer.weights, *NOT_THERE, "bias"}:
        there = name in layer.weights
        with Unmoved(layer, AttributeError, name):
            setattr(layer, name, layer.weights[name] * 2 if there else np.zeros(4))
        with Unmoved(layer, AttributeError, name):
            delattr(layer, name)
        with pytest.raises(AttributeError) as caught:
            setattr(layer, name, 1.0)
        found = re.search(r"layer\.weights\['(\w+)'\]\[\.\.\.\] = value", str(caught.value))
        if not there and name != "bias":  # another weight is no cure
            assert found is None
            assert ", ".join(layer.weights) in str(caught.value)
            continue
        if found is None:
            assert not any(n.startswith("bias") for n in layer.weights)
            continue
        assert found[1] == name if there else found[1].startswith("bias")
        exec(found[0], {"layer": layer, "value": 0.25})
        assert (layer.weights[found[1]] == 0.25).all()


@pytest.mark.parametrize("kind", layers())
def test_the_arrays_are_not_replaced(kind: str) -> None:
    layer = layers()[kind]
    for name, value in (
        ("flat_weights", np.zeros_like(layer.flat_weights)),
        ("flat_weights", layer.flat_weights.copy()),
        ("flat_weights", layer.flat_weights[:]),
        ("weights", dict(layer.weights)),
        ("weights", None),
    ):
        with Unmoved(layer, AttributeError, name, "[...] = value"):
            setattr(layer, name, value)
        with Unmoved(layer, AttributeError, name):
            delattr(layer, name)
    # In place is fine: Python stores back the very array that it changed.
    flat, want = layer.flat_weights, layer.flat_weights * 2 - 1
    layer.flat_weights *= 2
    layer.flat_weights -= 1
    assert layer.flat_weights is flat
    assert np.array_equal(flat, want)


@pytest.mark.parametrize("kind", [*CELLS, "linear", "embedding"])
def test_gradients_are_not_replaced_by_name(kind: str) -> None:
    layer = layers()[kind]
    if kind == "embedding":
        output, tape = layer.forward([1, 2])
    else:
        output, *_, tape = layer.forward(X)
    grads = layer.backward(tape, np.ones_like(output))
    assert type(grads.weights) is type(layer.weights)
    for weights, flat in ((grads.weights, grads.flat_weights), (layer.weights, layer.flat_weights)):
        for name in weights:
            before = flat.copy()
            for value in (weights[name] * 0, weights[name].copy(), weights[name][:], 0.0, None):
                with pytest.raises(TypeError) as caught:
                    weights[name] = value
                assert f"weights[{name!r}][...] = value" in str(caught.value)
            with pytest.raises(TypeError, match="cannot be deleted"):
                del weights[name]
            assert np.array_equal(flat, before)
            flat[...] = 1
            weights[name] += 2
            weights[name] *= 3
            assert set(weights[name].ravel().tolist()) == {9.0}
            assert (flat == 9).sum() == weights[name].size
            flat[...] = before
            weights[name][...] = 0
            assert not weights[name].any()
        with pytest.raises(TypeError, match=r"has no 'other': its names are \w+"):
            weights["other"] = np.zeros(3)
        for method in ("update", "pop", "clear", "setdefault", "popitem"):
            assert not hasattr(weights, method)
        free = dict(weights)
        del free[name]


# ----------------------------------------------------------------------------- fixed attributes

EVERY = ["input_size", "hidden_size", "num_layers", "bias", "bidirectional", "reverse", "dtype"]
FIXED = {
    name: EVERY + [option for extra in cell.extras for option in EXTRAS[extra].option(4)]
    for name, cell in CELLS.items()
} | {
    "both": [*EVERY, "forget_bias"],
    "without": ["hidden_size", "bias", "forget_bias"],
    "linear": ["in_features", "out_features", "bias", "dtype"],
    "embedding": ["num_embeddings", "embedding_dim", "dtype"],
    "sgd": ["params"],
    "adam": ["params"],
}  # fmt: skip


@pytest.mark.parametrize("kind", FIXED)
def test_what_is_said_once(kind: str) -> None:
    thing = objects()[kind]
    for name in FIXED[kind]:
        for value in (getattr(thing, name), 7, None):  # the same value neither
            with Unmoved(thing, AttributeError, name, "another"):
                setattr(thing, name, value)
        with Unmoved(thing, AttributeError, name):
            delattr(thing, name)


def test_the_forget_gates_are_biased_as_the_error_says() -> None:
    for before in (0.0, 0.5):
        form = {"num_layers": 2, "bidirectional": True, "dtype": "float64", "rng": 0}
        layer = fastrnn.LSTM(3, 4, forget_bias=before, **form)
        with pytest.raises(AttributeError) as caught:
            layer.forget_bias = 1.0
        cure = str(caught.value).partition(": write ")[2]
        exec(cure, {"layer": layer, "value": 1.0})
        want = fastrnn.LSTM(3, 4, forget_bias=1.0, **form)
        # Half of it and half again are one, but for the rounding of each sum.
        assert np.allclose(layer.flat_weights, want.flat_weights, rtol=0, atol=2**-52)


def test_a_list_of_parameters_cannot_grow() -> None:
    for optimiser in optimisers().values():
        assert isinstance(optimiser.params, tuple)
        with Unmoved(optimiser, AttributeError, "params"):
            optimiser.params += (np.ones(2),)


# -------------------------------------------------------------------------- settable attributes

GOOD: list[tuple[str, str, Any, Any]] = [
    ("rnn", "dropout", 0.5, 0.5),
    ("rnn", "dropout", np.float32(0.5), 0.5),
    ("gru", "dropout", np.array(0.25), 0.25),
    ("lstm", "dropout", 0, 0.0),
    ("rnn", "batch_first", True, True),
    ("lstm", "batch_first", np.True_, True),
    ("rnn", "nonlinearity", "relu", "relu"),
    ("rnn", "nonlinearity", np.str_("relu"), "relu"),
    ("gru", "reset_after", False, False),
    ("gru", "reset_after", np.False_, False),
    ("sgd", "lr", np.float32(0.5), 0.5),
    ("sgd", "lr", np.array(0.5, np.float32), 0.5),
    ("sgd", "lr", 2, 2.0),
    ("sgd", "momentum", np.float16(0.5), 0.5),
    ("adam", "lr", np.float64(0.5), 0.5),
    ("adam", "lr", np.int64(1), 1.0),
    ("adam", "betas", [0.5, np.float32(0.25)], (0.5, 0.25)),
    ("adam", "betas", np.array([0.5, 0.25]), (0.5, 0.25)),
    ("adam", "eps", np.array(0.5), 0.5),
    ("adam", "step_count", np.int32(7), 7),
    ("adam", "step_count", np.array(7), 7),
]

BAD: list[tuple[str, str, Any, Any]] = [
    ("rnn", "dropout", 1.0, ValueError),
    ("rnn", "dropout", -0.1, ValueError),
    ("rnn", "dropout", np.nan, ValueError),
    ("lstm", "dropout", "0.5", TypeError),
    ("gru", "dropout", True, TypeError),
    ("gru", "dropout", None, TypeError),
    ("rnn", "batch_first", 1, TypeError),
    ("rnn", "batch_first", None, TypeError),
    ("rnn", "nonlinearity", "gelu", ValueError),
    ("rnn", "nonlinearity", np.tanh, TypeError),
    ("gru", "reset_after", "yes", TypeError),
    ("sgd", "lr", -0.1, ValueError),
    ("sgd", "lr", np.inf, ValueError),
    ("sgd", "lr", np.float32(np.nan), ValueError),
    ("sgd", "lr", "0.1", TypeError),
    ("sgd", "lr", b"1", TypeError),
    ("sgd", "lr", bytearray(b"1"), TypeError),
    ("sgd", "lr", np.array([0.1]), TypeError),
    ("sgd", "lr", np.array("0.1"), TypeError),
    ("sgd", "lr", np.array(True), TypeError),
    ("sgd", "lr", np.complex64(1), TypeError),
    ("sgd", "lr", np.array(1j), TypeError),
    ("sgd", "lr", np.timedelta64(1), TypeError),
    ("sgd", "lr", None, TypeError),
    ("sgd", "momentum", 1.0, ValueError),
    ("sgd", "momentum", [0.9], TypeError),
    ("adam", "lr", -1, ValueError),
    ("adam", "betas", (0.9,), TypeError),
    ("adam", "betas", (0.9, 1.0), ValueError),
    ("adam", "betas", np.ones((2, 2)), TypeError),
    ("adam", "betas", 0.9, TypeError),
    ("adam", "eps", 0.0, ValueError),
    ("adam", "step_count", -1, ValueError),
    ("adam", "step_count", 1.5, TypeError),
    ("adam", "step_count", True, TypeError),
]


@pytest.mark.parametrize(("kind", "name", "given", "kept"), GOOD, ids=str)
def test_what_may_change(kind: str, name: str, given: Any, kept: Any, tmp_path: Path) -> None:
    thing = objects()[kind]
    setattr(thing, name, given)
    got = getattr(thing, name)
    assert got == kept
    assert type(got) is type(kept)
    if isinstance(kept, tuple):
        assert [type(v) for v in got] == [float, float]
    fastrnn.save(tmp_path / "a.safetensors", {"a": thing})
    loaded = fastrnn.load(tmp_path / "a.safetensors")["a"]
    if kind in optimisers():
        optimisers()[kind].load_state_dict(loaded)
    else:
        assert getattr(loaded, name) == kept
    with Unmoved(thing, AttributeError, name):
        delattr(thing, name)


@pytest.mark.parametrize(("kind", "name", "given", "error"), BAD, ids=str)
def test_what_does_not_fit(kind: str, name: str, given: Any, error: Any) -> None:
    thing = objects()[kind]
    with Unmoved(thing, error, name):
        setattr(thing, name, given)
    if kind in optimisers():
        state = thing.state_dict()
        other = state | {"lr": 0.75, name: given}
        with Unmoved(thing, error, name):
            thing.load_state_dict(other)
        assert thing.lr == state["lr"]


def test_a_schedule_of_float32() -> None:
    adam = Adam(np.ones(3))
    for adam.lr in np.linspace(1e-2, 1e-4, 5, dtype=np.float32):
        adam.step(np.ones(3))
        assert type(adam.lr) is float
    assert adam.lr == float(np.float32(1e-4))


@pytest.mark.parametrize("cls", RECURRENT)
def test_a_change_between_forward_and_backward(cls: Any) -> None:
    # A gradient has the axes that x had, whatever the layer takes now.
    directions = {"bidirectional": True}, {"reverse": True}
    for options in ({}, *directions, {"num_layers": 2, "dropout": 0.5}):
        layer = cls(3, 4, **options, rng=0)
        x = X[:2]  # as many steps as rows: a turned gradient would fit too
        output, _, tape = layer.forward(x, rng=1)
        d = np.random.default_rng(1).standard_normal(output.shape).astype(np.float32)
        want = layer.backward(tape, d)
        layer.batch_first, layer.dropout = True, 0.25 if options.get("num_layers") else 0.0
        if cls is fastrnn.RNN:
            layer.nonlinearity = "relu"
        if cls is fastrnn.GRU:
            layer.reset_after = False
        got = layer.backward(tape, d)
        assert np.array_equal(got.x, want.x)
        assert np.array_equal(got.flat_weights, want.flat_weights)
        _, _, tape = layer.forward(x.swapaxes(0, 1), training=False)
        d_x = layer.backward(tape, d.swapaxes(0, 1)).x
        layer.batch_first = False
        assert np.array_equal(layer.backward(tape, d.swapaxes(0, 1)).x, d_x)


# ----------------------------------------------------------------------------- unknown attributes

TYPOS = [
    ("adam", "learning_rate", None), ("adam", "beta", "betas"), ("adam", "epsilon", "eps"),
    ("sgd", "momentun", "momentum"), ("sgd", "LR", None), ("sgd", "betas", None),
    ("rnn", "drop_out", "dropout"), ("rnn", "batchfirst", "batch_first"),
    ("rnn", "non_linearity", "nonlinearity"), ("rnn", "reset_after", None),
    ("gru", "nonlinearity", None), ("gru", "resetafter", "reset_after"),
    ("linear", "dropout", None), ("embedding", "max_norm", None), ("lstm", "training", None),
    ("stream", "stat", "state"), ("stream", "h_0", None), ("stream", "States", "state"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "meant"), TYPOS)
def test_a_misspelt_attribute(kind: str, name: str, meant: str | None) -> None:
    thing = objects()[kind]
    with Unmoved(thing, AttributeError, name):
        setattr(thing, name, 1)
    if meant:
        with pytest.raises(AttributeError, match=f"did you mean {meant}"):
            setattr(thing, name, 1)
    assert not hasattr(thing, name)
    with pytest.raises(AttributeError):
        delattr(thing, name)


@pytest.mark.parametrize("kind", objects())
def test_methods_stay(kind: str) -> None:
    thing = objects()[kind]
    names = [
        name for name in dir(thing) if not name.startswith("_") and callable(getattr(thing, name))
    ]
    assert len(names) >= 3
    for name in names:
        with Unmoved(thing, AttributeError, name):
            setattr(thing, name, lambda *_: None)


def test_a_stream_has_its_state() -> None:
    layer = fastrnn.LSTM(3, 4, rng=0)
    stream = layer.stream(2)
    _, final = layer(X)
    stream.state = final
    assert all(np.array_equal(a, b) for a, b in zip(stream.state, final, strict=True))
    with pytest.raises(TypeError):
        stream.state = 1
    for name in ("batch", "units", "features", "count"):
        with pytest.raises(AttributeError):
            setattr(stream, name, 1)


class Mine(fastrnn.LSTM):
    kind = "mine"

    def __init__(self, size: int, *, note: str = "") -> None:
        self.note = note
        super().__init__(size, size, 2, rng=0)
        self.weight_decay = 0.1
        self.biased = True

    @property
    def half(self) -> float:
        return self.dropout / 2

    @half.setter
    def half(self, value: float) -> None:
        self.dropout = 2 * value


class Slow(Adam):
    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.lr, self.warmup = 1e-4, 10


def test_subclasses_have_attributes_of_their_own() -> None:
    layer = Mine(3, note="a")
    layer.kind, layer.training, layer.half = "other", True, 0.25
    assert (layer.note, layer.kind, layer.training, layer.dropout) == ("a", "other", True, 0.5)
    del layer.training
    assert not hasattr(layer, "training")
    for name in ("hidden_size", "weight_hh_l0", "weight_hh_l7", "flat_weights", "bias", "weight"):
        with Unmoved(layer, AttributeError, name):
            setattr(layer, name, 1)
    with Unmoved(layer, ValueError, "dropout"):
        layer.dropout = 2
    with Unmoved(layer, ValueError, "dropout"):
        layer.half = 1
    slow = Slow(np.ones(3))
    slow.warmup = 20
    with Unmoved(slow, AttributeError, "params"):
        slow.params = ()
    with Unmoved(slow, ValueError, "lr"):
        slow.lr = -1

    class Broken(fastrnn.RNN):
        def __init__(self) -> None:
            self.hidden_size = 3
            super().__init__(3, 3)

    with pytest.raises(AttributeError, match="hidden_size"):
        Broken()


# --------------------------------------------------------------------------------- made again


@pytest.mark.parametrize("kind", FIXED)
def test_made_again(kind: str) -> None:
    thing = objects()[kind]
    again: dict[str, tuple[Any, ...]] = {
        "linear": (2, 7), "embedding": (9, 2), "sgd": (np.ones(5), 0.5), "adam": (np.ones(5), 0.5),
    }  # fmt: skip
    wrong: dict[str, list[tuple[Any, ...]]] = {
        "linear": [(2, -1), (2, 3, "yes")],
        "embedding": [(2, -1), (None, 2)],
        "sgd": [([], 0.5), (np.ones(5), -1.0), ([np.ones(2), None], 0.5)],
        "adam": [([], 0.5), (np.ones(5), -1.0)],
    }
    for arguments in wrong.get(kind, [(2, -1), (2, 3, 0), (2, 10**18), (5, 6, 2, None)]):
        with Unmoved(thing, (TypeError, ValueError)):
            thing.__init__(*arguments)
    if kind not in optimisers():
        with Unmoved(thing, TypeError, "dtype"):
            thing.__init__(2, 3, dtype="int8")
        with Unmoved(thing, (TypeError, ValueError)):
            thing.__init__(2, 3, rng="seed")
    arguments = again.get(kind, (2, 7))
    thing.__init__(*arguments)
    if kind in optimisers():
        thing.step(np.ones(5))
        return
    fresh = type(thing)(*arguments)
    fresh.load_state_dict(thing.state_dict())
    assert repr(fresh) == repr(thing) == repr(copy.deepcopy(thing))
    if kind == "embedding":
        assert thing([8]).shape == (1, 2)
        return
    x = X[:, :, :2].copy()
    got, want = thing(x), fresh(x)
    assert np.array_equal(got[0], want[0])


# -------------------------------------------------------------------- dropout on a single layer


@pytest.mark.parametrize("cls", RECURRENT)
def test_dropout_on_a_single_layer_is_told(cls: Any, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="dropout is 0.5 .* num_layers is 1") as told:
        layer = cls(3, 4, dropout=0.5, rng=0)
    assert [w.filename for w in told] == [__file__]
    assert layer.dropout == 0.5
    with pytest.warns(UserWarning, match="dropout is 0.25") as told:
        layer.dropout = 0.25
    assert [w.filename for w in told] == [__file__]
    assert layer.dropout == 0.25
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Unmoved(layer, UserWarning, "dropout"):
            layer.dropout = 0.5
        layer.dropout = 0.25 * 0
        with pytest.raises(UserWarning, match="dropout"):
            cls(3, 4, dropout=0.5)
        cls(3, 4, 2, dropout=0.5).dropout = 0.75
        cls(3, 4).dropout = 0.0
        vars(layer)["dropout"] = 0.25
        # Nothing new is said of what was told before.
        for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert other.dropout == 0.25
        fastrnn.save(tmp_path / "a.safetensors", {"a": layer})
        assert fastrnn.load(tmp_path / "a.safetensors")["a"].dropout == 0.25
        repr(layer)
        layer(X)
        layer.stream()


# ------------------------------------------------------------- what changes in place is stored back


def all_gradients() -> dict[str, Any]:
    x = np.ones((3, 2, 4), np.float32)
    made: dict[str, Any] = {}
    for kind in RECURRENT:
        layer = kind(4, 4, rng=0)
        output, _, tape = layer.forward(x)
        made[kind.__name__] = layer.backward(tape, output)
        backward = getattr(fastrnn, f"{kind._cell.spec.name}_backward")
        made[backward.__name__] = backward(tape.tapes[0], output)
    linear = fastrnn.Linear(4, 2, rng=0)
    y, linear_tape = linear.forward(x)
    made["Linear"] = linear.backward(linear_tape, y)
    made["linear_backward"] = fastrnn.linear_backward(linear_tape, y)
    embedding = fastrnn.Embedding(4, 4, rng=0)
    z, embedding_tape = embedding.forward([1, 2])
    made["Embedding"] = embedding.backward(embedding_tape, z)
    made["embedding_backward"] = fastrnn.embedding_backward(embedding_tape, z)
    return made


@pytest.mark.parametrize("name", all_gradients())
def test_gradients_change_in_place_and_are_not_replaced(name: str) -> None:
    grads = all_gradients()[name]
    for field in grads._fields:
        value = getattr(grads, field)
        if not isinstance(value, np.ndarray):
            continue
        want = value * 2
        exec(f"grads.{field} *= 2", {"grads": grads})
        assert np.array_equal(getattr(grads, field), want)
        with pytest.raises(AttributeError, match=rf"grads\.{field}\[\.\.\.\] = value"):
            setattr(grads, field, want)
    with pytest.raises(AttributeError):
        grads.other = 1


def test_parameters_change_in_place_and_are_not_replaced() -> None:
    for optimiser in optimisers().values():
        before = optimiser.params[0].copy()
        optimiser.params[0] *= 0.5  # weight decay
        assert np.array_equal(optimiser.params[0], before * 0.5)
        with pytest.raises(TypeError, match=r"\[\.\.\.\] = value"):
            optimiser.params[0] = before


class Wrapper(fastrnn.RNN):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)


def test_the_repr_of_a_subclass_with_another_constructor() -> None:
    assert "empty" not in repr(Wrapper(3, 4))


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e39), ("float32", -3.5e38)])
def test_a_forget_bias_beyond_the_type(dtype: str, value: float) -> None:
    for state in ("ignore", "raise"):
        with np.errstate(all=state), pytest.raises(ValueError, match="finite in float32"):
            fastrnn.LSTM(3, 4, forget_bias=value, dtype=dtype)
    assert np.isfinite(fastrnn.LSTM(3, 4, forget_bias=value, dtype="float64").flat_weights).all()


@pytest.mark.parametrize("kind", [*RECURRENT, fastrnn.Linear])
def test_a_layer_made_again_in_the_same_form_keeps_its_optimisers(kind: Any) -> None:
    layer = kind(3, 4, rng=0)
    sgd = fastrnn.optim.SGD([layer.flat_weights], lr=1.0)
    layer.__init__(3, 4, rng=1)
    assert np.array_equal(layer.flat_weights, kind(3, 4, rng=1).flat_weights)
    sgd.step([layer.flat_weights.copy()])
    assert not layer.flat_weights.any()
    layer.__init__(3, 4, dtype="float64", rng=1)
    assert layer.dtype == np.float64
