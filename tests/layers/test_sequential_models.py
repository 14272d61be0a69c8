"""A model in one piece: one array of weights, copies, files, optimisers; and what it refuses."""

import contextlib
import copy
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from io_files import built, parts
from registry import CELLS

import fastrnn
from fastrnn import GRU, Dropout, Embedding, Linear, Sequential
from fastrnn.optim import SGD, Adam


def make(**options: Any) -> Sequential:
    return Sequential(layers(**options))


def layers(**options: Any) -> dict[str, Any]:
    return {
        "words": Embedding(10, 4, padding_idx=0, rng=0),
        "rnn": GRU(4, 4, bias="single", rng=1, **options),
        "drop": Dropout(0.25, variational=True),
        "out": Linear(4, 10, rng=2),
    }


INDICES = np.random.default_rng(0).integers(0, 10, (6, 3))


def step(model: Any, optimiser: Any) -> None:
    output, _, tape = model.forward(INDICES, rng=0)
    optimiser.step([model.backward(tape, output).flat_weights])


# ------------------------------------------------------------------------------ one array


def test_weights_are_the_layers_one_array() -> None:
    given = layers()
    before = {name: getattr(a, "flat_weights", np.empty(0)).copy() for name, a in given.items()}
    alone = given["rnn"](np.ones((5, 2, 4), np.float32))[0]
    model = Sequential(given)
    flat = model.flat_weights
    assert flat.flags.carray
    assert flat.ctypes.data % 64 == 0
    assert np.array_equal(flat, np.concatenate([*before.values()]))
    assert model.count_parameters() == flat.size == sum(w.size for w in model.weights.values())
    assert list(model.layers.items()) == list(given.items())
    for name, layer in given.items():
        for weight, view in getattr(layer, "weights", {}).items():
            assert np.shares_memory(view, flat)
            assert np.shares_memory(view, layer.flat_weights)
            assert np.array_equal(model.weights[f"{name}.{weight}"], view)
    assert np.array_equal(given["rnn"](np.ones((5, 2, 4), np.float32))[0], alone)
    model.weights["rnn.weight_hh_l0"][...] = 0
    assert not given["rnn"].weights["weight_hh_l0"].any()
    given["out"].flat_weights[...] = 7
    assert (flat[-50:] == 7).all()


def test_the_summary() -> None:
    assert repr(make()) == (
        "Sequential\n"
        "  name   layer                            output  parameters\n"
        "  words  Embedding(10, 4, padding_idx=0)       4          40\n"
        "  rnn    GRU(4, 4, bias='single')              4         108\n"
        "  drop   Dropout(0.25, variational=True)       4           0\n"
        "  out    Linear(4, 10)                        10          50\n"
        "  total                                                  198"
    )
    words = Embedding(10, 4, rng=0)
    tied = Sequential({"words": words, "out": Linear.tied(words)})
    assert "Linear.tied(words)" in repr(tied)
    assert tied.count_parameters() == 50


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_types(dtype: str) -> None:
    model = Sequential({"rnn": GRU(3, 4, dtype=dtype), "out": Linear(4, 2, dtype=dtype)})
    assert model.dtype == dtype
    assert model(np.ones((5, 2, 3), dtype))[0].dtype == dtype


def test_state_dicts() -> None:
    model, other = make(), make()
    other.flat_weights[...] = 0
    state = model.state_dict()
    assert list(state) == list(model.weights)
    assert not np.shares_memory(state["out.bias"], model.flat_weights)
    other.load_state_dict(state)
    assert np.array_equal(other.flat_weights, model.flat_weights)
    with pytest.raises(ValueError, match=r"d lacks .*out\.bias"):
        other.load_state_dict({n: a for n, a in state.items() if n != "out.bias"})
    found = other.load_state_dict({"out.bias": state["out.bias"]}, strict=False)
    assert len(found.missing_keys) == len(model.weights) - 1


# ------------------------------------------------------------------------------ optimisers


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_an_optimiser_of_what_was_a_layers_refuses_its_next_step(kind: Any) -> None:
    given = layers()
    optimiser = kind([given["rnn"].flat_weights, given["out"].flat_weights], lr=0.1)
    grads = [np.ones_like(p) for p in optimiser.params]
    optimiser.step(grads)
    model = Sequential(given)
    before = model.flat_weights.copy()
    for stale in (optimiser, copy.deepcopy(optimiser), pickle.loads(pickle.dumps(optimiser))):
        with pytest.raises(RuntimeError, match=r"params\[0\] .* went into a Sequential"):
            stale.step(grads)
    assert np.array_equal(model.flat_weights, before)
    # As the error says.
    optimiser = kind([model.flat_weights], lr=0.1)
    step(model, optimiser)
    assert (model.flat_weights != before).any()


def test_a_step_by_hand_on_what_was_a_layers_is_refused() -> None:
    layer = GRU(3, 4, rng=0)
    flat, weight = layer.flat_weights, layer.weights["weight_hh_l0"]
    Sequential({"rnn": layer})
    for old in (flat, weight):
        with pytest.raises(ValueError, match="read-only"):
            old -= 1
    layer.flat_weights[...] -= 1


def test_tapes_and_streams_from_before() -> None:
    layer = GRU(4, 4, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    output, _, tape = layer.forward(x)
    wanted = layer.backward(tape, output).flat_weights
    stream = layer.stream()
    model = Sequential({"rnn": layer})
    assert np.array_equal(layer.backward(tape, output).flat_weights, wanted)
    assert np.array_equal(stream.run(x), output)
    model.flat_weights[...] *= 0.5
    stream.reset()
    assert np.array_equal(stream.run(x), output)  # of its snapshot
    stream.update()
    stream.reset()
    assert np.array_equal(stream.run(x), model(x)[0])


def test_parts_of_a_model_may_be_trained_alone() -> None:
    model = make()
    whole, part = model.flat_weights.copy(), model.layers["out"].flat_weights
    sgd = SGD([part], lr=1.0)
    sgd.step([np.ones_like(part)])
    assert np.array_equal(model.flat_weights[:-50], whole[:-50])
    assert (model.flat_weights[-50:] != whole[-50:]).all()
    with pytest.raises(ValueError, match="shares memory"):
        SGD([model.flat_weights, part], lr=1.0)


# ------------------------------------------------------------------------------ copies

WAYS: dict[str, Any] = {
    "deepcopy": copy.deepcopy,
    **{f"protocol {n}": lambda a, n=n: pickle.loads(pickle.dumps(a, n)) for n in range(2, 6)},
}  # fmt: skip
ways = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


@ways
def test_a_copy_is_independent_and_whole(way: Any) -> None:
    model = make()
    other = way(model)
    assert type(other) is Sequential
    assert repr(other) == repr(model)
    assert np.array_equal(other.flat_weights, model.flat_weights)
    assert not np.shares_memory(other.flat_weights, model.flat_weights)
    for name, layer in other.layers.items():
        assert layer is not model.layers[name]
        for weight, view in getattr(layer, "weights", {}).items():
            assert np.shares_memory(view, other.weights[f"{name}.{weight}"])
    assert np.array_equal(other(INDICES)[0], model(INDICES)[0])
    step(other, Adam([other.flat_weights]))
    with pytest.raises(ValueError, match="in another Sequential already"):
        Sequential({"rnn": other.layers["rnn"]})


@ways
@pytest.mark.parametrize("order", [1, -1])
def test_a_copy_with_its_optimisers_stays_tied(way: Any, order: int) -> None:
    model = make()
    whole, part = Adam([model.flat_weights]), SGD([model.layers["rnn"].flat_weights], lr=0.1)
    step(model, whole)
    other, whole_2, part_2 = way((model, whole, part)[::order])[::order]
    step(model, whole)
    step(other, whole_2)
    assert np.array_equal(other.flat_weights, model.flat_weights)
    for optimiser in (part, part_2):
        optimiser.step([np.ones_like(p) for p in optimiser.params])
    assert np.array_equal(other.flat_weights, model.flat_weights)
    assert np.array_equal(other.layers["rnn"].flat_weights, model.layers["rnn"].flat_weights)


@ways
def test_a_copied_layer_is_out_of_the_model(way: Any) -> None:
    model = make()
    layer = way(model.layers["rnn"])
    assert not np.shares_memory(layer.flat_weights, model.flat_weights)
    assert np.array_equal(layer.flat_weights, model.layers["rnn"].flat_weights)
    sgd = SGD([layer.flat_weights], lr=0.1)
    Sequential({"rnn": layer})  # and may go into another one
    with pytest.raises(RuntimeError, match="went into a Sequential"):
        sgd.step([np.ones_like(p) for p in sgd.params])
    before = model.flat_weights.copy()
    layer.flat_weights[...] = 0
    assert np.array_equal(model.flat_weights, before)


def test_a_shallow_copy_shares_its_weights() -> None:
    words = Embedding(10, 4, rng=0)
    model = Sequential({"words": words, "rnn": GRU(4, 4), "out": Linear.tied(words)})
    other = copy.copy(model)
    assert other.layers["rnn"] is not model.layers["rnn"]
    assert other.layers["out"].tied_to is other.layers["words"]
    other.flat_weights[...] = 3
    assert (model.flat_weights == 3).all()
    assert (model.layers["rnn"].flat_weights == 3).all()
    assert not isinstance(copy.copy(model.layers["rnn"]), Sequential)


def test_a_layer_is_free_once_its_model_is_gone() -> None:
    given = layers()
    model = Sequential(given)
    del model
    assert Sequential(given).count_parameters() == 198


@pytest.mark.parametrize("copied", [False, True])
def test_an_optimiser_of_a_model_that_is_gone_refuses_its_next_step(copied: bool) -> None:
    given = layers()
    model = Sequential(given)
    optimiser = SGD([model.flat_weights], lr=0.1)
    del model
    if copied:
        given, optimiser = copy.deepcopy((given, optimiser))
    optimiser.step([np.ones_like(optimiser.params[0])])  # the layers are still there
    kept = Sequential(given)
    with pytest.raises(RuntimeError, match=r"params\[0\] .* went into a Sequential"):
        optimiser.step([np.ones_like(optimiser.params[0])])
    # A model that shares what a layer leaves keeps it.
    optimiser = SGD([kept.flat_weights], lr=0.1)
    Sequential({"out": copy.copy(kept.layers["out"])})
    optimiser.step([np.ones_like(optimiser.params[0])])


# ------------------------------------------------------------------------------ files


@pytest.mark.parametrize("cell", CELLS.values(), ids=list(CELLS))
def test_saved_and_loaded_bit_for_bit(cell: Any, tmp_path: Path) -> None:
    words = Embedding(10, 4, padding_idx=-1, rng=0)
    model = Sequential({
        "words": words,
        "rnn": cell.layer(4, 4, 2, dropout=0.5, bidirectional=False, rng=1),
        "drop": Dropout(0.5), "out": Linear.tied(words, rng=2),
    })  # fmt: skip
    adam = Adam([model.flat_weights], lr=0.1)
    step(model, adam)
    path = tmp_path / "model.safetensors"
    fastrnn.save(path, {"model": model, "adam": adam})
    loaded = fastrnn.load(path)
    other = loaded["model"]
    assert repr(other) == repr(model)
    assert other.layers["out"].tied_to is other.layers["words"]
    assert other.flat_weights.tobytes() == model.flat_weights.tobytes()
    assert np.array_equal(other(INDICES)[0], model(INDICES)[0])
    adam_2 = Adam([other.flat_weights])
    adam_2.load_state_dict(loaded["adam"])
    step(model, adam)
    step(other, adam_2)
    assert other.flat_weights.tobytes() == model.flat_weights.tobytes()
    again = tmp_path / "again.safetensors"
    fastrnn.save(path, {"model": model})
    fastrnn.save(again, fastrnn.load(path))
    assert path.read_bytes() == again.read_bytes()


def test_a_layer_of_a_model_is_saved_as_any_other(tmp_path: Path) -> None:
    model, path = make(), tmp_path / "parts.safetensors"
    fastrnn.save(path, dict(model.layers))
    loaded = fastrnn.load(path)
    assert list(loaded) == list(model.layers)
    assert repr(loaded["drop"]) == repr(model.layers["drop"])
    assert np.array_equal(loaded["rnn"].flat_weights, model.layers["rnn"].flat_weights)
    assert Sequential(loaded).count_parameters() == model.count_parameters()


def damaged(data: bytes, change: Any) -> bytes:
    """The file with its record of objects changed."""
    metadata, entries, tensors = parts(data)
    record = json.loads(metadata["fastrnn"])
    change(record["objects"]["model"], entries)
    header = {"__metadata__": {"fastrnn": json.dumps(record)}, **entries}
    return built(header, tensors)


def put(*path: str, value: Any) -> Any:
    def change(described: Any, entries: Any) -> None:
        for key in path[:-1]:
            described = described[key]
        described[path[-1]] = value

    return change


def without(*path: str) -> Any:
    def change(described: Any, entries: Any) -> None:
        for key in path[:-1]:
            described = described[key]
        del described[path[-1]]

    return change


def renamed(old: str, new: str) -> Any:
    def change(described: Any, entries: Any) -> None:
        entries[new] = entries.pop(old)

    return change


MODEL = r"objects\['model'\]"
DAMAGES: dict[str, tuple[Any, str]] = {
    "no layers": (put("layers", value={}), f"{MODEL}: 'words.weight' is of none of its layers"),
    "a list": (put("layers", value=[]), f"{MODEL}: 'layers' is .*, no dict"),
    "no object": (put("layers", "rnn", value=3), r"layers\['rnn'\] is of the kind None"),
    "unknown": (put("layers", "rnn", "kind", value="SRU"), "is of the kind 'SRU'"),
    "nested": (
        put("layers", "rnn", value={"kind": "Sequential", "layers": {}}), "kind 'Sequential'",
    ),
    "a layer gone": (without("layers", "out"), "'out.weight' is of none of its layers"),
    "size": (
        put("layers", "rnn", "arguments", "hidden_size", value=5), r"\(GRU\): .* has shape",
    ),
    "huge": (
        put("layers", "rnn", "arguments", "hidden_size", value=1 << 40), "no weight has so many",
    ),
    "p": (put("layers", "drop", "arguments", "p", value=2.0), r"\(Dropout\): p is 2.0"),
    "int p": (put("layers", "drop", "arguments", "p", value=1), "p is 1, expected 1.0"),
    "more p": (put("layers", "drop", "arguments", "q", value=1), r"\(Dropout\): it has"),
    "more": (put("layers", "drop", "more", value=1), "has an unexpected 'more'"),
    "tied": (put("layers", "out", "tied", value="words"), r"has unexpected weight"),
    "tied to none": (put("layers", "out", "tied", value="rnn"), "no embedding"),
    "tied to a number": (put("layers", "out", "tied", value=1), "'tied' is 1, no str"),
    "padding": (
        put("layers", "words", "arguments", "padding_idx", value=-1), "padding_idx is -1",
    ),
    "far padding": (
        put("layers", "words", "arguments", "padding_idx", value=12), "padding_idx is 12",
    ),
    "bias": (put("layers", "rnn", "arguments", "bias", value="both"), "bias is 'both'"),
    "two biases": (put("layers", "rnn", "arguments", "bias", value=True), "lacks bias_hh_l0"),
    "a name": (renamed("model.out.bias", "model.rest.bias"), "is of none of its layers"),
    "no name": (renamed("model.out.bias", "model"), "'' is of none"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "text"), DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_files_are_refused(change: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    fastrnn.save(path, {"model": make()})
    bad = damaged(path.read_bytes(), change)
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=text) as refused:
        fastrnn.load(path)
    assert "\n" not in str(refused.value)
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):
            fastrnn.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # whatever sizes the file claims
    finally:
        tracemalloc.stop()


def test_layers_in_another_order_do_not_fit(tmp_path: Path) -> None:
    def turn(described: Any, entries: Any) -> None:
        described["layers"] = dict(reversed(described["layers"].items()))

    path = tmp_path / "model.safetensors"
    fastrnn.save(path, {"model": make()})
    path.write_bytes(damaged(path.read_bytes(), turn))
    with pytest.raises(ValueError, match=r"\(Sequential\): layers\['rnn'\] takes 4 features"):
        fastrnn.load(path)


# ------------------------------------------------------------------------------ what is refused


class Own(Linear):
    def backward(self, *arguments: Any, **options: Any) -> Any:
        return super().backward(*arguments, **options)


class OwnDropout(Dropout):
    def forward(self, *arguments: Any, **options: Any) -> Any:
        return super().forward(*arguments, **options)


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "a list": (lambda: [GRU(3, 4)], TypeError, "layers is a list.*: pass {f'layer{i}'"),
    "a layer": (lambda: GRU(3, 4), TypeError, "expected a mapping.*: pass {'layer': layers}"),
    "nothing": (dict, ValueError, "layers has nothing, expected at least one layer"),
    "no weights": (lambda: {"drop": Dropout()}, ValueError, "layers has only 'drop'"),
    "a number": (lambda: {0: GRU(3, 4)}, TypeError, "layers has the name 0, expected a str"),
    "an empty name": (lambda: {"": GRU(3, 4)}, ValueError, "not empty and has no dot$"),
    "a dot": (lambda: {"a.b": GRU(3, 4)}, ValueError, r"no dot: pass {n.replace\('.', '_'\)"),
    "a surrogate": (lambda: {"\ud800": GRU(3, 4)}, ValueError, "UTF-8 has bytes for"),
    "a class": (lambda: {"rnn": GRU}, TypeError, r"layers\['rnn'\] is .*: make one of it"),
    "an array": (lambda: {"rnn": np.ones(3)}, TypeError, "expected a recurrent layer, Linear"),
    "a model": (lambda: {"all": make()}, TypeError, "models do not nest"),
    "own forward": (lambda: {"rnn": GRU(3, 4), "own": OwnDropout()}, TypeError, "a forward of"),
    "own backward": (lambda: {"own": Own(3, 4)}, TypeError, "a backward of its own"),
    "late embedding": (
        lambda: {"a": GRU(3, 4), "b": Embedding(3, 4)}, ValueError, "can only come first",
    ),
    "widths": (
        lambda: {"rnn": GRU(3, 4, bidirectional=True), "drop": Dropout(), "out": Linear(4, 2)},
        ValueError, r"layers\['out'\] takes 4 features, but layers\['rnn'\] gives 8",
    ),
    "pre-activations": (
        lambda: {"words": Embedding(9, 4), "rnn": GRU(None, 4)}, ValueError, "takes 12 features",
    ),
    "types": (
        lambda: {"rnn": GRU(3, 4), "out": Linear(4, 2, dtype="float64")},
        TypeError, r"layers\['out'\] is float64, layers\['rnn'\] is float32",
    ),
    "axes": (
        lambda: {"a": GRU(3, 4), "b": GRU(4, 4, batch_first=True)},
        ValueError, r"write layers\['b'\].batch_first = False",
    ),
    "dropout's axes": (
        lambda: {"a": GRU(3, 4, batch_first=True), "b": Dropout(variational=True)},
        ValueError, r"layers\['b'\] has batch_first=False",
    ),
    "tied elsewhere": (
        lambda: {"rnn": GRU(3, 4), "out": Linear.tied(Embedding(9, 4))},
        ValueError, "tied to an embedding that is not in layers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "error", "text"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_no_model(given: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        Sequential(given())


def test_a_layer_stands_in_one_place() -> None:
    layer, drop = GRU(4, 4, rng=0), Dropout()
    flat = layer.flat_weights
    for given in (
        {"a": layer, "b": layer}, {"a": layer, "drop": drop, "more": drop},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"is layers\['\w+'\] already.*copy.deepcopy"):
            Sequential(given)
    with pytest.raises(ValueError, match=r"layers\['b'\] shares its weights with layers\['a'\]"):
        Sequential({"a": layer, "b": copy.copy(layer)})
    assert layer.flat_weights is flat  # nothing has moved
    model = Sequential({"a": layer, "drop": drop})
    for given in ({"a": layer}, {"rnn": GRU(3, 4), "drop": drop}):
        with pytest.raises(ValueError, match=r"in another Sequential already.*copy.deepcopy"):
            Sequential(given)
    with pytest.raises(ValueError, match="make another layer of that form"):
        layer.__init__(3, 9)  # type: ignore[misc]
    assert layer.hidden_size == 4
    layer.__init__(4, 4, rng=3)  # type: ignore[misc]  # of the same form: drawn again, in its place
    assert np.array_equal(model.flat_weights, GRU(4, 4, rng=3).flat_weights)
    with pytest.raises(RuntimeError, match="made already"):
        model.__init__({"a": GRU(3, 4)})  # type: ignore[misc]


def test_attributes() -> None:
    model = make()
    for name in ("layers", "weights", "flat_weights", "dtype"):
        with pytest.raises(AttributeError):
            setattr(model, name, None)
    with pytest.raises(AttributeError, match=r"it is model.layers\['rnn'\]"):
        _ = model.rnn  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"an argument of layer\.forward"):
        model.train()  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        model.layers["rnn"] = GRU(4, 4)  # type: ignore[index]


def of_lstm() -> Sequential:
    return Sequential({"rnn": fastrnn.LSTM(3, 4, rng=0), "out": Linear(4, 2, rng=1)})


X = np.ones((5, 2, 3), np.float32)
CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "a state alone": (
        lambda m: m(X, (np.zeros((1, 2, 4), "f4"),) * 2), TypeError,
        r"state is a tuple, expected a mapping of names of recurrent layers, 'rnn': pass {'rnn'",
    ),
    "another name": (lambda m: m(X, {"out": None}), ValueError, "state has 'out', expected names"),
    "shape of a state": (
        lambda m: m(X, {"rnn": (np.zeros((1, 3, 4), "f4"),) * 2}), ValueError,
        r"^state\['rnn'\]\[0\] has shape \(1, 3, 4\)",
    ),
    "a state of one": (
        lambda m: m.forward(X, {"rnn": np.zeros((1, 2, 4), "f4")}), TypeError,
        r"state\['rnn'\], np.zeros_like\(state\['rnn'\]\)",
    ),
    "x": (lambda m: m(X[..., :2]), ValueError, "^x has shape"),
    "lengths": (lambda m: m(X, lengths=[5]), ValueError, "^lengths has shape"),
    "last": (lambda m: m(X, last=1), TypeError, "last is 1, expected True or False"),
    "training": (lambda m: m.forward(X, training=1), TypeError, "training is 1"),
    "checkpoint": (lambda m: m.forward(X, checkpoint=0), ValueError, "checkpoint is 0"),
    "no gradient": (lambda m: m.backward(m.forward(X)[2]), ValueError, "d_output and d_state"),
    "no gradient of states": (
        lambda m: m.backward(m.forward(X)[2], None, {"rnn": None}), ValueError, "give at least",
    ),
    "shape of d_output": (
        lambda m: m.backward(m.forward(X)[2], np.ones((5, 2, 3), "f4")), ValueError, "^d_output",
    ),
    "shape of d_state": (
        lambda m: m.backward(m.forward(X)[2], None, {"rnn": (X, X)}), ValueError,
        r"^d_state\['rnn'\]\[0\] has shape",
    ),
    "d_state with last": (
        lambda m: m.backward(m.forward(X, last=True)[2], np.ones((2, 2), "f4"),
                             {"rnn": (np.ones((1, 1, 4), "f4"), None)}),
        ValueError, r"^d_state\['rnn'\]\[0\] has shape",
    ),
    "another tape": (lambda m: m.backward(make().forward(INDICES, rng=0)[2], X), ValueError,
        "tape is of another model: of one with words, rnn, drop, out"),
    "a layer's tape": (
        lambda m: m.backward(m.layers["rnn"].forward(X)[2], X), TypeError, "SequentialTape",
    ),
    "other weights": (lambda m: m.backward(
        Sequential({"rnn": fastrnn.LSTM(3, 4, rng=9), "out": Linear(4, 2, rng=1)}).forward(X)[2],
        np.ones((5, 2, 2), "f4")), ValueError, "tape is of another layer"),
    "wrt": (lambda m: m.backward(m.forward(X)[2], np.ones((5, 2, 2), "f4"), wrt=["out.weigth"]),
        ValueError, "did you mean 'out.weight'"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), CALLS.values(), ids=list(CALLS))
def test_wrong_calls(call: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        call(of_lstm())


def test_wrong_calls_of_other_models() -> None:
    plain = Sequential({"out": Linear(3, 2, rng=0)})
    for name, value in (("lengths", [5, 5]), ("restart", X[..., 0] > 2), ("last", True)):
        with pytest.raises(ValueError, match=f"{name} is given, but the model has no recurrent"):
            plain(X, **{name: value})
    with pytest.raises(ValueError, match="state is given, but the model has no recurrent"):
        plain(X, {})
    with pytest.raises(ValueError, match="checkpoint is given, but the model has no recurrent"):
        plain.forward(X, checkpoint=3)
    model = make()
    with pytest.raises(ValueError, match="rng is None, but training is True and 'drop' has"):
        model.forward(INDICES)
    output, _, tape = model.forward(INDICES, rng=0)
    with pytest.raises(ValueError, match="indices, which have no gradient"):
        model.backward(tape, output, wrt=["x"])
    model.layers["drop"].batch_first = True
    with pytest.raises(ValueError, match=r"write model.layers\['drop'\].batch_first = False"):
        model(INDICES)


def test_wrong_d_output_behind_last_states() -> None:
    model = Sequential({"rnn": GRU(3, 4, rng=0)})
    _, _, tape = model.forward(X, last=True)
    with pytest.raises(ValueError, match=r"^d_output has shape \(2, 3\), expected \(B, n\)"):
        model.backward(tape, np.ones((2, 3), np.float32))
    with pytest.raises(TypeError, match=r"^d_output is float64"):
        model.backward(tape, np.ones((2, 4)))
