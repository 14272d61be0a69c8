"""from_keras: what has no counterpart here is refused by name, all of it in one error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.convert import from_keras
from fastrnn.convert.keras import contents
from fastrnn.convert.keras_config import numbered, snake

pytest.importorskip("torch")
os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")
L = keras.layers

# Keras's own, of its variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Own(L.LSTM):
    pass


def in_model(*layers: Any) -> Any:
    return keras.Sequential([L.Input((5, 3)), *layers])


REFUSED: dict[str, tuple[Callable[[], Any], str, str, str]] = {
    # What it is, what its error says, the name in skip, and the layers that are left.
    "activation": (lambda: L.LSTM(4, activation="relu"), "activation relu and recurrent", "g", ""),
    "gates": (lambda: L.GRU(4, recurrent_activation="hard_sigmoid"),
              "recurrent_activation hard_sigmoid, expected tanh and sigmoid", "g", ""),
    "elman": (lambda: L.SimpleRNN(4, activation="elu"), "activation elu", "g", ""),
    "function": (lambda: L.SimpleRNN(4, activation=keras.ops.sin), "activation {", "g", ""),
    "advanced": (lambda: L.SimpleRNN(4, activation=L.LeakyReLU()), "activation {", "g", ""),
    "dense": (lambda: L.Dense(4, activation="softmax"), "softmax, which a Linear", "g/activation",
              "Linear(3, 4)"),
    "inner": (lambda: L.TimeDistributed(L.Dense(4, activation="relu")), "relu, which a Linear",
              "g/activation", "Linear(3, 4)"),
    "distributed": (lambda: L.TimeDistributed(L.LayerNormalization()),
                    "TimeDistributed of LayerNormalization, expected Dense", "g", ""),
    "masking": (lambda: L.Masking(), "later layers skip steps", "g", ""),
    "stateful": (lambda: L.GRU(4, stateful=True), "keeps its state between calls", "g/stateful",
                 "GRU(3, 4)"),
    "own": (lambda: Own(4), "Own, no class of Keras's own", "g", ""),
    "conv": (lambda: L.Conv1D(4, 3), "Conv1D has no counterpart", "g", ""),
    "softmax": (lambda: L.Softmax(), "Softmax has no counterpart", "g", ""),
    "both": (lambda: L.Bidirectional(L.GRU(4), backward_layer=L.GRU(5, go_backwards=True)),
             "GRU(4, reset_after=True), GRU(5, reset_after=True), expected both directions", "g",
             ""),
    "kinds": (lambda: L.Bidirectional(L.GRU(4), backward_layer=L.LSTM(4, go_backwards=True)),
              "expected both directions with the same options", "g", ""),
    "turned": (lambda: L.Bidirectional(L.GRU(4, go_backwards=True), backward_layer=L.GRU(4)),
               "layer with go_backwards=True", "g", ""),
    "bidirectional stack": (lambda: L.Bidirectional(L.RNN([L.GRUCell(4), L.GRUCell(4)])),
                            "Bidirectional of stacked cells", "g", ""),
    "bidirectional stateful": (lambda: L.Bidirectional(L.GRU(4, stateful=True)),
                               "keeps its state", "g/stateful", "GRU(3, 4, bidirectional=True)"),
    "convolutional": (lambda: L.TimeDistributed(L.Bidirectional(L.GRU(4))), "TimeDistributed of",
                      "g", ""),
    "mixed stack": (lambda: L.RNN([L.GRUCell(4), L.LSTMCell(4)]),
                    "GRU(4, reset_after=True), LSTM(4), expected cells of one kind", "g", ""),
    "narrowing stack": (lambda: L.RNN([L.GRUCell(4), L.GRUCell(3)]), "expected cells of one kind",
                        "g", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, text, skip, left = REFUSED[case]
    layer = make()
    layer.name = "g"
    if case in ("stateful", "bidirectional stateful"):
        model = keras.Sequential([L.Input(batch_shape=(2, 5, 3)), layer, L.Dense(2, name="d")])
    elif case == "distributed" or case == "convolutional":
        model = keras.Sequential([L.Input((5, 4, 3)), layer, L.Dense(2, name="d")])
    else:
        model = in_model(layer, L.Dense(2, name="d"))
    model.save(tmp_path / "m.keras")
    for source in (model, tmp_path / "m.keras"):
        with pytest.raises(ValueError) as caught:
            from_keras(source)
        said = str(caught.value)
        assert f"({skip}: " in said, said
        assert text in said, said
        assert said.endswith(f": pass skip=[{skip!r}] for what you compute yourself")
        layers = from_keras(source, skip=[skip])
        assert list(layers) == (["g", "d"] if left else ["d"])
        assert not left or repr(layers["g"]) == left
        assert list(from_keras(source, skip=["g"])) == ["d"]
        assert isinstance(from_keras(source, "d"), fastrnn.Linear)
        by_name = {entry.name: entry for entry in contents(source)}
        assert text in by_name["g"].why
        assert by_name["g"].becomes == left
        assert by_name["d"].becomes.startswith("Linear(")


def test_one_error_names_all_of_them() -> None:
    model = in_model(L.Conv1D(3, 2, name="c"), L.GRU(4, go_backwards=True, name="g"),
                     L.Dense(2, "relu", name="d"))  # fmt: skip
    with pytest.raises(
        ValueError, match=r"c: Conv1D.*; g/go_backwards: .*; d/activation: relu"
    ) as e:
        from_keras(model)
    skip = ["c", "g/go_backwards", "d/activation"]
    assert f"pass skip={skip!r}" in str(e.value)
    assert list(from_keras(model, skip=skip)) == ["g", "d"]
    with pytest.raises(ValueError, match="skip holds 'e'"):
        from_keras(model, skip=["e"])
    with pytest.raises(ValueError, match="did you mean 'd/activation'"):
        from_keras(model, skip=["d/activations"])
    with pytest.raises(ValueError, match=r"skip=\['c', 'd/activation', 'g/go_backwards'\] for"):
        from_keras(model, skip=["d/activation", "c"])  # what the cure says has all of it
    for name, skip in (("c", ["c"]), ("d", ["c"]), ("d", ["d/activation", "c"])):
        with pytest.raises(ValueError, match=f"skip is .*'c'.*name is '{name}', .*: pass skip="):
            from_keras(model, name, skip=skip)
    with pytest.raises(ValueError, match=r"d/activation: relu.*: pass skip=\['d/activation'\] for"):
        from_keras(model, "d")
    assert repr(from_keras(model, "d", skip=["d/activation"])) == "Linear(4, 2)"
    with pytest.raises(ValueError, match=r"c: Conv1D has no counterpart\)$"):
        from_keras(model, "c")
    with pytest.raises(ValueError, match="name is 'e', expected that of a layer"):
        from_keras(model, "e")


def test_one_error_names_all_weights_that_misfit(tmp_path: Path) -> None:
    model = in_model(L.Dense(3, name="a"), L.Dense(4, name="b"), L.Dense(5, name="c"),
                     L.Dense(6, "relu", name="d"))  # fmt: skip
    model.save_weights(tmp_path / "m.weights.h5")
    config = json.loads(model.to_json())
    for layer in config["config"]["layers"]:
        layer["config"]["units"] = {"a": 7, "b": 8}.get(layer["config"]["name"], 5)
    with pytest.raises(ValueError) as caught:
        from_keras(tmp_path / "m.weights.h5", config=config)
    said = str(caught.value)
    assert "a: kernel has shape (3, 3), expected (any, 7), bias has shape (3,), expected (7,)" in (
        said.replace("(3, 7)", "(any, 7)")
    )
    for name in ("b: kernel has shape (3, 4)", "d: kernel has shape (5, 6)", "d/activation: relu"):
        assert name in said
    assert said.endswith(
        ": pass skip=['d/activation', 'a', 'b', 'd'] for what you compute yourself"
    )
    skip = ["d/activation", "a", "b", "d"]
    assert list(from_keras(tmp_path / "m.weights.h5", config=config, skip=skip)) == ["c"]


def test_the_layer_of_two_models_is_made_twice_or_named(tmp_path: Path) -> None:
    shared = L.Dense(3, name="d")
    for first in (True, False):
        inner = keras.Sequential([L.Input((None, 3)), shared, L.Dense(3, name="e")], name="inner")
        x = L.Input((None, 3))
        model = keras.Model(x, inner(shared(x)) if first else shared(inner(x)))
        layers = from_keras(model)
        assert layers["d"].flat_weights.tobytes() == layers["inner/d"].flat_weights.tobytes()
        model.save(tmp_path / "m.keras")
        once, other = ("d", "inner/d") if first else ("inner/d", "d")
        with pytest.raises(
            ValueError, match=f"{other}: .*/dense has 0 .* several places share"
        ) as e:
            from_keras(tmp_path / "m.keras")
        assert f"pass skip=[{other!r}] for" in str(e.value)
        read = from_keras(tmp_path / "m.keras", skip=[other])[once]
        assert read.flat_weights.tobytes() == layers[once].flat_weights.tobytes()


def test_names_are_those_of_keras() -> None:
    to_snake_case = pytest.importorskip("keras.src.utils.naming").to_snake_case
    names = ["LSTM", "GRUCell", "Conv1DTranspose", "SimpleRNN", "A", "aB", "RNNs2D", "My_Layer",
             "HTTPServer2XY", "X<Y>Z", "ÄÖü", "Conv2D3DAb", "", "_A", "A_bC"]  # fmt: skip
    letters = "aAbBZz19_éÉ<."
    rng = np.random.default_rng(0)
    names += ["".join(rng.choice(list(letters), rng.integers(1, 9))) for _ in range(5000)]
    assert [snake(name) for name in names] == [to_snake_case(name) for name in names]
    assert numbered(["Own", "Any", "Own", "own"]) == ["own", "any", "own_1", "own_2"]


def test_errors_are_short_whatever_the_names() -> None:
    weights = [np.zeros((3, 4)), np.zeros(4)]
    long, deep = "n" * 10**5, {"config": {}}
    for _ in range(200):
        deep = {"a": [deep]}
    for change in (
        {"name": long}, {"activation": long}, {"dtype": long}, {long: 1}, {"units": deep},
        {"units": long}, {"use_bias": long}, {"activation": "\n\x1b[2J"},
    ):  # fmt: skip
        config = {"class_name": "Dense", "config": {"units": 4, **change}}
        with pytest.raises(ValueError) as caught:
            from_keras(weights, config=config)
        assert len(str(caught.value)) < 700
        assert str(caught.value).isprintable()
    for kind, module in ((long, None), ("Own", long), ("Own\n", None), ("Dense", "x\n")):
        with pytest.raises(ValueError) as caught:
            from_keras(weights, config={"class_name": kind, "module": module, "config": {}})
        assert len(str(caught.value)) < 700
        assert str(caught.value).isprintable()
    layers = [{"class_name": "Flatten", "config": {"name": f"f{i}"}} for i in range(3000)]
    for name in (None, "g"):
        with pytest.raises(ValueError) as caught:
            from_keras(
                in_model(*(L.Dense(3, name=f"d{i}") for i in range(40))), name, skip=()
            ) if name else from_keras(weights, config={"layers": layers})
        assert len(str(caught.value)) < 2000


def test_a_mask_of_zeros_is_refused() -> None:
    words = L.Embedding(9, 4, mask_zero=True, name="w")
    words.build((None, None))
    with pytest.raises(ValueError, match="w/mask_zero: later layers skip index 0"):
        from_keras(words)
    assert from_keras(words, "w", skip=["w/mask_zero"]).num_embeddings == 9


def test_dropout_in_a_call_is_not_passed_over() -> None:
    x = L.Input((None, 3))
    inner = keras.Sequential([L.Dropout(0.5, name="i")], name="inner")
    model = keras.Model(x, inner(L.Dropout(0.5, name="o")(x, training=True), training=True))
    with pytest.raises(ValueError, match=r"o: called with training=True.*inner/i: called with"):
        from_keras(model)


def test_quantised_and_low_rank_layers_are_refused() -> None:
    for change in (lambda d: d.quantize("int8"), lambda d: d.enable_lora(1)):
        dense = L.Dense(4, name="d")
        dense.build((None, 3))
        change(dense)
        with pytest.raises(ValueError, match=r"d: (dtype 'int8|lora_rank=1|quantization_config)"):
            from_keras(dense)


def test_classes_of_ones_own_are_not_asked() -> None:
    class Net(keras.Model):  # type: ignore[misc]
        def get_config(self) -> Any:
            raise AssertionError

    with pytest.raises(ValueError, match="Net, no class of Keras's own; layers inside"):
        from_keras(Net(name="n"))


def test_what_nothing_is_made_of() -> None:
    with pytest.raises(ValueError, match="no layer to convert: there is Dropout"):
        from_keras(keras.Sequential([L.Input((3,)), L.Dropout(0.5)]))
    with pytest.raises(ValueError, match="g: it has 0 weights, expected 3: call it first"):
        from_keras(L.GRU(4, name="g"))
    model = in_model(L.Dropout(0.5, name="o"), L.GRU(4))
    with pytest.raises(ValueError, match="name is 'o', a Dropout, which becomes no layer"):
        from_keras(model, "o")
