"""Frozen models: the bits of the model as it was, and how frozen ones are saved and refused."""

import copy
import gc
import json
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from io_files import built
from io_files import parts as parts_of_file
from stream_layers import DTYPES, ISAS, assert_same_state

import fastrnn
import fastrnn.convert
from fastrnn.cli import main
from fastrnn.layers import (
    Frozen,
    FrozenEmbedding,
    FrozenLinear,
    FrozenRecurrent,
    FrozenSequential,
)

X = np.random.default_rng(0).integers(0, 10, (6, 3))
MASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": [6, 0, 3], "last": True},
    "mask": {"mask": np.random.default_rng(1).random((6, 3)) < 0.7},
    "restart": {"restart": np.random.default_rng(2).random((6, 3)) < 0.3, "lengths": [1, 2, 3]},
}


def tagger(dtype: str = "float32", batch_first: bool = False) -> Any:
    """All kinds of layers, with dropout of both kinds."""
    options: dict[str, Any] = {"dtype": dtype}
    return fastrnn.Sequential({
        "words": fastrnn.Embedding(10, 4, rng=0, **options),
        "drop": fastrnn.Dropout(0.3),
        "rnn": fastrnn.LSTM(
            4, 6, 2, dropout=0.5, bidirectional=True, batch_first=batch_first, rng=1, **options
        ),
        "second": fastrnn.GRU(12, 5, batch_first=batch_first, rng=2, **options),
        "out": fastrnn.Linear(5, 3, rng=3, **options),
    })  # fmt: skip


def tied() -> Any:
    words = fastrnn.Embedding(10, 4, rng=0)
    layers = {"words": words, "rnn": fastrnn.GRU(4, 4, rng=1)}
    return fastrnn.Sequential(layers | {"out": fastrnn.Linear.tied(words, rng=2)})


def same(got: Any, want: Any, what: str) -> None:
    assert_same(got[0], want[0], what)
    assert got[1].keys() == want[1].keys()
    for name, state in want[1].items():
        assert_same_state(got[1][name], state, f"{what} {name}")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.quick
def test_the_bits_of_the_model(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    model = tagger(np.dtype(dtype).name)
    frozen = model.freeze()
    assert frozen.precision == frozen.dtype.name == np.dtype(dtype).name
    want = {name: model(X, **options) for name, options in MASKS.items()}
    state = want["plain"][1]
    later = model(X, state)
    with fastrnn.backend("reference"):
        plain = model(X, state)
    model.flat_weights[...] = np.nan
    for name, options in MASKS.items():
        same(frozen(X, **options), want[name], name)
    same(frozen(X, state), later, "with a state")
    with fastrnn.backend("reference"):
        same(frozen(X, state), plain, "by NumPy")
    for other in ISAS:
        fastrnn.set_isa(other)
        frozen(X)
    fastrnn.set_isa(isa)
    same(frozen(X, state), later, "after other instruction sets")


def test_batch_first_and_one_sequence() -> None:
    for model in (tagger(batch_first=True), tied()):
        frozen = model.freeze()
        same(frozen(X), model(X), "a batch")
        same(frozen(X[0]), model(X[0]), "one sequence")


def test_what_a_frozen_model_is() -> None:
    model = tagger()
    frozen = model.freeze()
    assert type(frozen) is FrozenSequential
    assert repr(frozen) == f"frozen {model!r}"
    assert list(frozen.layers) == ["words", "rnn", "second", "out"]  # Dropout does nothing in use
    assert all(isinstance(layer, Frozen) for layer in frozen.layers.values())
    assert frozen.count_parameters() == model.count_parameters()
    with pytest.raises(TypeError):
        frozen.layers["rnn"] = model.layers["rnn"]
    for name, text in (
        ("rnn", r"it is frozen.layers\['rnn'\]"), ("weights", "nothing of it can be changed"),
        ("forward", "it is for inference"), ("stream", "of a frozen model frozen.layers"),
    ):  # fmt: skip
        assert not hasattr(frozen, name)
        with pytest.raises(AttributeError, match=text):
            getattr(frozen, name)
    with pytest.raises(AttributeError, match=r"^layers cannot be set, as a frozen Sequential"):
        frozen.layers = {}
    with pytest.raises(TypeError, match=r"write frozen.layers\['rnn'\]"):
        frozen["rnn"]
    with pytest.raises(ValueError, match=r"^precision is 'float64', but the Sequential is float32"):
        model.freeze("float64")
    stream = frozen.layers["second"].stream(3)
    x = np.ones((2, 3, 12), np.float32)
    assert_same(stream.run(x), model.layers["second"](x)[0], "a stream of a layer")


def test_a_tied_weight_is_there_once() -> None:
    model = tied()
    frozen = model.freeze()
    same(frozen(X), model(X), "tied")
    plain = frozen._layer
    assert plain.layers["out"].tied_to is plain.layers["words"]
    packed = sum(one.nbytes for part in frozen.layers.values() for one in part._packed)
    assert frozen.nbytes == model.flat_weights.nbytes + packed
    again = pickle.loads(pickle.dumps(frozen))
    assert again._layer.layers["out"].tied_to is again._layer.layers["words"]
    assert again.nbytes == frozen.nbytes


def test_nothing_of_it_can_be_written() -> None:
    for frozen in (tied().freeze(), pickle.loads(pickle.dumps(tied().freeze()))):
        plain = frozen._layer
        arrays = [plain.flat_weights, *plain.weights.values()]
        arrays += [a for layer in plain.layers.values() for a in layer.weights.values()]
        for a in arrays:
            with pytest.raises(ValueError, match="read-only"):
                a[...] = 0


@pytest.mark.parametrize("make", [tagger, tied])
def test_copies_and_files(make: Any, tmp_path: Any) -> None:
    model = make()
    frozen = model.freeze()
    assert copy.copy(frozen) is copy.deepcopy(frozen) is frozen
    path = tmp_path / "a.safetensors"
    fastrnn.save(path, {"model": frozen, "plain": model, "part": frozen.layers["out"]})
    loaded = fastrnn.load(path)
    assert type(loaded["model"]) is FrozenSequential
    assert type(loaded["plain"]) is fastrnn.Sequential
    for other in (pickle.loads(pickle.dumps(frozen)), loaded["model"]):
        same(other(X, lengths=[6, 0, 3]), model(X, lengths=[6, 0, 3]), "copied")
        assert repr(other) == repr(frozen)
    x = np.ones((3, 5 if make is tagger else 4), np.float32)
    for part in (loaded["part"], pickle.loads(pickle.dumps(frozen.layers["out"]))):
        assert isinstance(part, Frozen)
        assert_same(part(x), model.layers["out"](x), "a part by itself")
    rnn = frozen.layers["rnn"]
    size = model.layers["rnn"].flat_weights.nbytes
    assert len(pickle.dumps(rnn)) < size + 3000  # without the model's array


def test_threads_share_a_model() -> None:
    model = tagger()
    frozen, want = model.freeze(), model(X)
    faults = []

    def work() -> None:
        try:
            for _ in range(30):
                same(frozen(X), want, "in a thread")
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


class Called(fastrnn.Sequential):
    """One that is called in a way of its own."""

    def __call__(self, x: Any, *args: Any, **options: Any) -> Any:
        return super().__call__(x, *args, **options)


def test_a_users_model_is_called_as_ours_or_refused() -> None:
    class Derived(fastrnn.Sequential):
        pass

    rnn = fastrnn.GRU(3, 4, rng=0)
    x = np.ones((5, 2, 3), np.float32)
    model = Derived({"rnn": rnn})
    same(model.freeze()(x), model(x), "derived")
    with pytest.raises(TypeError, match=r"^Called has a __call__ of its own"):
        Called({"rnn": fastrnn.GRU(3, 4)}).freeze()


# --------------------------------------------------------------------------------------- files


def changed(path: Any, change: Any) -> None:
    """Change what the file's metadata says of its objects."""
    metadata, header, data = parts_of_file(path.read_bytes())
    own = json.loads(metadata["fastrnn"])
    change(own["objects"])
    metadata["fastrnn"] = json.dumps(own)
    path.write_bytes(built({"__metadata__": metadata, **header}, data))


def test_a_plain_file_has_no_mark(tmp_path: Any) -> None:
    path = tmp_path / "a.safetensors"
    fastrnn.save(path, {"a": fastrnn.GRU(3, 4), "b": fastrnn.GRU(3, 4).freeze()})
    own = json.loads(parts_of_file(path.read_bytes())[0]["fastrnn"])["objects"]
    assert own["b"] == own["a"] | {"frozen": "float32"}
    assert list(own["a"]) == ["kind", "arguments"]


@pytest.mark.parametrize("mark", ["float64", "int8", "", None, True, 1, 0.5, [], {}, ["float32"]])
def test_a_hostile_mark(mark: Any, tmp_path: Any) -> None:
    path = tmp_path / "a.safetensors"
    for layer in (fastrnn.GRU(3, 4), tied()):
        fastrnn.save(path, {"a": layer})
        changed(path, lambda own: own["a"].update(frozen=mark))
        with pytest.raises(ValueError, match=r"frozen is .*, expected 'float32'$"):
            fastrnn.load(path)


def test_a_mark_in_the_wrong_place(tmp_path: Any) -> None:
    path = tmp_path / "a.safetensors"
    words = fastrnn.Embedding(10, 4)
    objects = {
        "words": words, "out": fastrnn.Linear.tied(words), "drop": fastrnn.Dropout(0.5),
        "array": np.ones(3), "dict": {"a": np.ones(3)}, "model": tagger(),
    }  # fmt: skip
    for change, text in (
        (lambda own: own["out"].update(frozen="float32"), "is marked as frozen, and tied"),
        (lambda own: own["drop"].update(frozen="float32"), "frozen, which no Dropout is"),
        (lambda own: own["array"].update(frozen="float32"), "unexpected 'frozen'"),
        (lambda own: own["dict"].update(frozen="float32"), "unexpected 'frozen'"),
        (lambda own: own["words"].update(frozen="float32"), "tied to 'words', which is no embed"),
        (
            lambda own: own["model"]["layers"]["rnn"].update(frozen="float32"),
            "which only a model is as a whole",
        ),
        (
            lambda own: own["model"]["layers"]["drop"].update(frozen="float32"),
            "which only a model is as a whole",
        ),
    ):
        fastrnn.save(path, objects)
        changed(path, change)
        with pytest.raises(ValueError, match=text):
            fastrnn.load(path)


def test_info_says_what_is_frozen(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.safetensors"
    fastrnn.save(path, {"gru": fastrnn.GRU(3, 4).freeze(), "model": tied().freeze()})
    assert main(["info", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "gru: GRU(3, 4), frozen in float32" in lines
    assert "model.rnn: GRU(4, 4), frozen in float32" in lines
    assert lines[-1].startswith("4 layers, ")
    fastrnn.save(tmp_path / "d.safetensors", {"model": tagger().freeze()})
    assert main(["info", str(tmp_path / "d.safetensors")]) == 0
    assert "model.drop: Dropout(0.3)" in capsys.readouterr().out.splitlines()  # none is frozen
    assert main(["convert", str(path), str(tmp_path / "b.safetensors")]) == 0
    assert repr(fastrnn.load(tmp_path / "b.safetensors")["gru"]) == "GRU(3, 4)"


# ------------------------------------------------------------------------------------ elsewhere


def test_converters_take_frozen_layers(tmp_path: Any) -> None:
    layers = fastrnn.LSTM(3, 4, rng=0), fastrnn.Linear(3, 2, rng=0), fastrnn.Embedding(4, 3, rng=0)
    for layer in layers:
        frozen = layer.freeze()
        d = fastrnn.convert.to_torch(frozen)
        for name, a in layer.state_dict().items():
            assert_same(d[name], a, name)
            d[name][...] = 0  # copies
            assert_same(fastrnn.convert.to_torch(frozen)[name], a, name)
    frozen = layers[0].freeze()
    given = fastrnn.convert.to_arrays(frozen)
    for name, a in fastrnn.convert.to_arrays(layers[0]).items():
        assert_same(given[name], a, name)
        assert given[name].flags.writeable
    pytest.importorskip("onnx")
    for name, layer in (("a", layers[0]), ("b", frozen)):
        fastrnn.convert.to_onnx(layer, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    model = r"^layer is a FrozenSequential, .*: pass layer.layers\['words'\], and so on$"
    with pytest.raises(TypeError, match=model):
        fastrnn.convert.to_torch(tied().freeze())
    with pytest.raises(TypeError, match=model):
        fastrnn.convert.to_onnx(tied().freeze(), tmp_path / "c")
    with pytest.raises(TypeError, match=r"pass layer\['lstm'\]$"):
        fastrnn.convert.to_onnx({"lstm": frozen}, tmp_path / "c")  # type: ignore[arg-type]


def test_a_tied_layer_frozen_by_itself(tmp_path: Any) -> None:
    words = fastrnn.Embedding(10, 4, rng=0)
    head = fastrnn.Linear.tied(words, rng=1)
    frozen, x = head.freeze(), np.ones((3, 4), np.float32)
    want = head(x)
    words.flat_weights[...] = 0
    assert_same(frozen(x), want, "tied")
    fastrnn.save(tmp_path / "a.safetensors", {"head": frozen})
    assert_same(fastrnn.load(tmp_path / "a.safetensors")["head"](x), want, "loaded")
    assert fastrnn.convert.to_torch(frozen)["weight"].any()


def test_the_pickle_of_a_layer_of_a_model_that_is_gone() -> None:
    model = fastrnn.Sequential({
        "words": fastrnn.Embedding(1000, 4, rng=0), "rnn": fastrnn.GRU(4, 5, rng=1)
    })  # fmt: skip
    frozen = model.freeze()
    part, x = frozen.layers["rnn"], np.ones((3, 2, 4), np.float32)
    alone = len(pickle.dumps(model.layers["rnn"].freeze()))
    assert len(pickle.dumps(part)) == alone
    del frozen
    gc.collect()
    assert len(pickle.dumps(part)) == alone  # without the words
    assert_same(pickle.loads(pickle.dumps(part))(x)[0], part(x)[0], "a layer alone")


@pytest.mark.parametrize("kind", [FrozenRecurrent, FrozenLinear, FrozenEmbedding, FrozenSequential])
def test_what_a_frozen_kind_is_made_of(kind: Any) -> None:
    layers: tuple[Any, ...] = (
        fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(3, 4), fastrnn.Embedding(3, 4), tied(),
    )  # fmt: skip
    for layer in layers:
        if type(layer.freeze()) is kind:
            assert repr(kind(layer)) == repr(layer.freeze())
            continue
        name = type(layer).__name__
        with pytest.raises(
            TypeError, match=rf"^layer is an? {name}, expected an? .*: write layer\.freeze\(\)$"
        ):
            kind(layer)
    for wrong in (None, 3, np.ones(3), fastrnn.Dropout(0.5), layers[0].freeze()):
        with pytest.raises(TypeError, match=r"^layer is .*, expected an? [\w ]+$"):
            kind(wrong)
    with pytest.raises(TypeError, match=r"^layer is the class GRU, .*: make one of it$"):
        kind(fastrnn.GRU)
    with pytest.raises(TypeError, match=r"^layer is a GRU, expected what a kind of its own"):
        Frozen(layers[0])


def test_what_takes_no_frozen_layer() -> None:
    frozen = fastrnn.GRU(3, 4).freeze()
    assert isinstance(frozen, FrozenRecurrent)
    of_layer = "that does not change, give the flat_weights of the layer that was frozen"
    for params in (frozen, [frozen]):
        with pytest.raises(TypeError, match=f"^params .*: {of_layer}"):
            fastrnn.optim.Adam(params)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^grads .*: that is a layer"):
            fastrnn.clip_grad_norm(params, 1.0)  # type: ignore[arg-type]
    for call, text in (
        (lambda: fastrnn.Sequential({"a": frozen}), "and freeze the model, model.freeze()"),
        (lambda: fastrnn.gradient_norms(frozen), "^tape is a FrozenRecurrent"),
        (lambda: fastrnn.GRU(3, 4).load_state_dict(frozen), "the state_dict() of the layer that"),
        (lambda: fastrnn.convert.from_torch(frozen), "it is a layer of fastrnn already"),
    ):
        with pytest.raises(TypeError, match=text.replace("(", r"\(").replace(")", r"\)")):
            call()
