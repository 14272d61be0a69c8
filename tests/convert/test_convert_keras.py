"""from_keras: every kind of layer has Keras's own numbers, whatever it is given as; refusals."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import registry
from bounds import Problem, Spec, analyse, bounds, check, draw, there
from numpy.testing import assert_array_equal

import fastrnn
from fastrnn.convert import from_keras
from fastrnn.convert.keras import contents

pytest.importorskip("torch")
os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")
L = keras.layers

# Keras's own, of its variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DTYPES = (np.float32, np.float64)
# Whatever the type, Keras under PyTorch multiplies matrices in float32 (3.15): so all bounds are of
# two evaluations in it.
RATE = np.float32
# For networks of few units: a rounding for each of D + H <= 8 products and two more, of sums below
# 4, in seven steps of three layers whose recurrence does not amplify it.
CLOSE = 10 * 4 * 7 * 3 * 2.0**-24
ACTIVATIONS = {"identity": "linear"}  # that have another name there
KINDS = [name for name, kind in registry.KINDS.items() if "leak" not in kind.cell.required]
WALKS = {"whole": {}, "lengths": {"lengths": True}, "mask": {"mask": True}}
SIZES = [(1, 1), (3, 7), (5, 8), (16, 9), (17, 33), (4, 100)]  # D, H: around lanes and panels


# ------------------------------------------------------------------------------ the same numbers


def problem(kind: str, size: tuple[int, int], dtype: Any, **options: Any) -> Problem:
    """A problem as Keras can have it: one bias, but for a GRU with two products.

    All numbers are those of float32, in which Keras makes products of float64 too (see RATE).
    """
    p = draw(Spec(9, 4, *size, kind, **options), np.float32).astype(dtype)
    if kind == "gru" or p.b_ih is None:
        return p
    return replace(p, b_ih=p.b_ih + p.b_hh, b_hh=np.zeros_like(p.b_hh))  # exact: see draw


def in_keras(p: Problem) -> list[Any]:
    """The problem's weights as Keras has them."""
    own, theirs = {1: ("h", "h"), 3: ("rzn", "zrn"), 4: ("ifgo", "ifgo")}[p.cell.gates]

    def columns(w: Any) -> Any:
        blocks = dict(zip(own, np.split(w, len(own)), strict=True))
        return np.concatenate([blocks[gate] for gate in theirs]).T

    weights = [columns(p.w_ih), columns(p.w_hh)]
    if p.b_ih is not None:
        biases = [columns(p.b_ih), columns(p.b_hh)]
        weights.append(np.stack(biases) if p.kind == "gru" else biases[0])
    return weights


def recurrent(kind: str, units: int, cell: bool = False, **options: Any) -> Any:
    """A layer of Keras, or its cell."""
    end = "Cell" if cell else ""
    if kind == "lstm":
        return getattr(L, f"LSTM{end}")(units, **options)
    if kind.startswith("gru"):
        return getattr(L, f"GRU{end}")(units, reset_after=kind == "gru", **options)
    activation = ACTIVATIONS.get(kind, kind)
    return getattr(L, f"SimpleRNN{end}")(units, activation=activation, **options)


def layer_of(p: Problem, **options: Any) -> Any:
    layer = recurrent(
        p.kind, p.w_hh.shape[1], return_sequences=True, return_state=True,
        use_bias=p.b_ih is not None, dtype=p.x.dtype.name, **options,
    )  # fmt: skip
    layer.build((None, None, p.x.shape[2]))
    layer.set_weights(in_keras(p))
    return layer


def draw_x(*shape: int) -> Any:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def numpy(value: Any) -> Any:
    return keras.ops.convert_to_numpy(value)


def mask_of(p: Problem) -> Any:
    return there(p).T if p.lengths is not None or p.mask is not None else None


def agree(p: Problem, layer: Any, theirs: Any, reverse: bool = False) -> None:
    """Output where it counts, and final states, of one direction."""
    H = p.w_hh.shape[1]
    output, *states = (numpy(a) for a in theirs)
    mask = None if p.mask is None else p.mask.T
    mine, final = layer(p.x.swapaxes(0, 1), state_of(p), lengths=p.lengths, mask=mask)
    finals = final if isinstance(final, tuple) else (final,)
    at = slice(H, None) if reverse else slice(H)
    got = {"output": mine[..., at].swapaxes(0, 1)}
    want = {"output": output[..., at].swapaxes(0, 1)}
    if p.lengths is not None:  # after the end Keras repeats the last output, unless told not to
        want["output"] = np.where(mask_of(p).T[..., None], want["output"], 0)
    states = states[len(states) // 2 :] if reverse else states[: len(p.states)]
    for name, g, w in zip(p.states, finals, states, strict=True):
        got[f"{name}_n"], want[f"{name}_n"] = g[int(reverse)], w
    bound = bounds(analyse(p), RATE, both=True)
    check(got, want, bound, p.x.dtype, f"Keras, {p.kind}")


def state_of(p: Problem, directions: int = 1) -> Any:
    states = [np.stack([getattr(p, f"{s}_0")] * directions) for s in p.states]
    return tuple(states) if len(states) > 1 else states[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_has_its_numbers(
    kind: str, size: tuple[int, int], walk: str, bias: bool, dtype: Any
) -> None:
    p = problem(kind, size, dtype, b_ih=bias, b_hh=bias, **WALKS[walk])
    theirs = layer_of(p, zero_output_for_mask=walk == "mask")
    layer = from_keras(theirs, theirs.name, batch_first=True)
    assert (layer.dtype, layer.bias, layer.batch_first) == (dtype, bias, True)
    state = [getattr(p, f"{s}_0") for s in p.states]
    agree(p, layer, theirs(p.x.swapaxes(0, 1), initial_state=state, mask=mask_of(p)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_have_their_numbers(
    kind: str, size: tuple[int, int], walk: str, dtype: Any
) -> None:
    p = problem(kind, size, dtype, **WALKS[walk])
    q = replace(p, w_ih=p.w_ih[:, ::-1].copy(), reverse=True)
    one = layer_of(p, zero_output_for_mask=walk == "mask")
    theirs = L.Bidirectional(one, dtype=p.x.dtype.name)
    theirs.build((None, None, p.x.shape[2]))
    theirs.set_weights([*in_keras(p), *in_keras(q)])
    ((name, layer),) = from_keras(theirs, batch_first=True).items()
    assert (name, layer.bidirectional, layer.num_layers) == (theirs.name, True, 1)
    state = [getattr(p, f"{s}_0") for s in p.states]
    found = theirs(p.x.swapaxes(0, 1), initial_state=state * 2, mask=mask_of(p))
    for r, reverse in ((p, False), (q, True)):
        # Both start from the same state here; each direction is held to its own bound.
        both = lambda x, _, **options: layer(x, state_of(p, 2), **options)  # noqa: E731
        agree(r, both, found, reverse)


def test_padding_by_a_masking_layer_is_lengths_or_a_mask() -> None:
    x = draw_x(3, 6, 2)
    lengths = [6, 2, 4]
    for row, length in zip(x, lengths, strict=True):
        row[length:] = -1
    model = keras.Sequential(
        [
            L.Input((None, 2)),
            L.Masking(-1, name="mask"),
            L.Bidirectional(L.GRU(5, return_sequences=True), name="rnn"),
            L.LSTM(4, name="last"),
        ]
    )
    layers = from_keras(model, batch_first=True, skip=["mask"])
    assert list(layers) == ["rnn", "last"]
    output, _ = layers["rnn"](x, lengths=lengths)
    _, (h_n, _) = layers["last"](output, lengths=lengths)
    np.testing.assert_allclose(h_n[0], numpy(model(x)), rtol=0, atol=CLOSE)
    x = x[:, ::-1].copy()  # now on the left
    mask = (x != -1).all(axis=2)
    output, _ = layers["rnn"](x, mask=mask)
    _, (h_n, _) = layers["last"](output, mask=mask)
    np.testing.assert_allclose(h_n[0], numpy(model(x)), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_stacked_cells_become_one_layer(kind: str, n: int, bias: bool) -> None:
    cells = [recurrent(kind, 5, cell=True, use_bias=bias) for _ in range(n)]
    rng = np.random.default_rng(n)
    theirs = L.RNN(cells if n > 1 else cells[0], return_sequences=True)
    x = draw_x(2, 7, 3)
    theirs(x)
    theirs.set_weights([rng.standard_normal(w.shape) / 5 for w in theirs.get_weights()])
    ((_, layer),) = from_keras(theirs, batch_first=True).items()
    assert (layer.num_layers, layer.bias) == (n, bias)
    np.testing.assert_allclose(layer(x)[0], numpy(theirs(x)), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_becomes_a_layer_of_one_step(kind: str) -> None:
    cell = recurrent(kind, 5, cell=True, name="step")
    rng = np.random.default_rng(0)
    x, h, c = draw_x(2, 3), draw_x(2, 5) / 2, draw_x(2, 5) / 2
    cell(x, [h, c][: 1 + (kind == "lstm")])
    cell.set_weights([rng.standard_normal(w.shape) / 5 for w in cell.get_weights()])
    output, _ = cell(x, [h, c][: 1 + (kind == "lstm")])
    layer = from_keras(cell, "step")
    got, _ = layer(x[None], (h[None], c[None]) if kind == "lstm" else h[None])
    np.testing.assert_allclose(got[0], numpy(output), rtol=0, atol=CLOSE)


def test_backwards_alone_is_x_reversed() -> None:
    theirs = L.GRU(4, go_backwards=True, return_sequences=True, name="g")
    x = draw_x(2, 6, 3)
    want = numpy(theirs(x))
    with pytest.raises(ValueError, match="g/go_backwards: its outputs begin with the last step"):
        from_keras(theirs)
    layer = from_keras(theirs, "g", batch_first=True, skip=["g/go_backwards"])
    got, _ = layer(np.ascontiguousarray(x[:, ::-1]))
    np.testing.assert_allclose(got, want, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("mode", ["sum", "mul", "ave", None])
def test_other_merge_modes_are_made_of_both_halves(mode: str | None) -> None:
    theirs = L.Bidirectional(L.LSTM(4, return_sequences=True), mode, name="b", dtype="float64")
    x = draw_x(2, 6, 3)
    want = theirs(x)
    with pytest.raises(ValueError, match=f"b/merge_mode: {mode!r}"):
        from_keras(theirs)
    layer = from_keras(theirs, "b", batch_first=True, skip=["b/merge_mode"])
    one, other = np.split(layer(x)[0], 2, axis=-1)
    got = {"sum": one + other, "mul": one * other, "ave": (one + other) / 2, None: (one, other)}
    theirs = [numpy(a) for a in want] if mode is None else numpy(want)
    np.testing.assert_allclose(got[mode], theirs, rtol=0, atol=CLOSE)


def test_dense_and_embedding() -> None:
    x = draw_x(2, 5, 3)
    for theirs in (
        L.Dense(4),
        L.Dense(4, use_bias=False),
        L.TimeDistributed(L.Dense(4)),
    ):
        want = numpy(theirs(x))
        ((_, layer),) = from_keras(theirs).items()
        assert isinstance(layer, fastrnn.Linear)
        np.testing.assert_allclose(layer(x), want, rtol=0, atol=CLOSE)
    words = L.Embedding(9, 4)
    indices = np.array([[0, 8, 3]])
    want = numpy(words(indices))
    ((_, layer),) = from_keras(words).items()
    assert_array_equal(layer(indices), want)


# ------------------------------------------------------------------------------ all sources


def models() -> list[Any]:
    """Layers of every kind, built."""
    found = [recurrent(kind, 5, use_bias=bias) for kind in KINDS for bias in (True, False)]
    found += [L.Bidirectional(recurrent(kind, 5)) for kind in KINDS]
    found += [L.RNN([recurrent(kind, 5, cell=True) for _ in range(2)]) for kind in KINDS]
    found += [L.Dense(5), L.TimeDistributed(L.Dense(5)), L.Dense(5, use_bias=False)]
    for layer in found:
        layer.build((None, None, 3))
    return found


def same(got: Any, want: Any) -> None:
    assert repr(got) == repr(want)
    for name, a in want.weights.items():
        assert_array_equal(got.weights[name].view(np.uint8), a.view(np.uint8), name)


def test_layer_list_and_file_give_the_same_bits(tmp_path: Path) -> None:
    layers = models()
    words = L.Embedding(9, 3, name="words")
    model = keras.Sequential([L.Input((None,)), words, *(L.Identity() for _ in range(2))])
    model.save(tmp_path / "words.keras")
    same(from_keras(tmp_path / "words.keras", "words"), from_keras(words, "words"))
    for layer in layers:
        layer.set_weights([a + 0.5 for a in layer.get_weights()])
        want = from_keras(layer, layer.name)
        model = keras.Sequential([L.Input((None, 3)), layer])
        model.save(tmp_path / "m.keras")
        model.save_weights(tmp_path / "m.weights.h5")
        for config in (model.to_json(), model.get_config()):
            made = from_keras(tmp_path / "m.weights.h5", config=config)
            assert list(made) == [layer.name]
            same(made[layer.name], want)
        same(from_keras(str(tmp_path / "m.keras"), layer.name), want)
        same(from_keras(model)[layer.name], want)
        for config in (
            layer.get_config(),
            keras.saving.serialize_keras_object(layer),
            json.dumps(keras.saving.serialize_keras_object(layer)),
        ):
            ((_, made),) = from_keras(layer.get_weights(), config=config).items()
            same(made, want)


def test_the_order_and_the_names_are_the_models(tmp_path: Path) -> None:
    inner = keras.Sequential([L.GRU(4, name="g"), L.Dropout(0.5)], name="enc")
    twice = L.LSTM(3, return_sequences=True, name="twice")
    x = L.Input((None, 3), name="x")
    y = twice(twice(x))
    y = L.Dense(3, name="a")(y) + x
    y = L.RNN([L.LSTMCell(4), L.LSTMCell(4)], return_sequences=True, name="z")(y)
    deeper = keras.Model(x2 := L.Input((None, 4)), inner(L.GRU(4, return_sequences=True)(x2)),
                         name="deep")  # fmt: skip
    model = keras.Model(x, L.Dense(2, name="head")(deeper(y)))
    model.save(tmp_path / "m.keras")
    operation = next(o.name for o in model.operations if "add" in o.name)
    with pytest.raises(ValueError, match=f"{operation}: the operation Add") as caught:
        from_keras(tmp_path / "m.keras")
    assert str(caught.value).endswith(f"pass skip=[{operation!r}] for what you compute yourself")
    for source in (model, tmp_path / "m.keras"):
        entries = {entry.name: entry for entry in contents(source)}
        assert entries[operation][1:] == ("Add", "", "the operation Add", {})
        assert [len(entries[n].weights) for n in ("x", "twice", "head")] == [0, 3, 2]
    gru = next(layer.name for layer in deeper.layers if isinstance(layer, L.GRU))
    names = ["twice", "a", "z", f"deep/{gru}", "deep/enc/g", "head"]
    want = from_keras(model, skip=[operation])
    got = from_keras(tmp_path / "m.keras", skip=[operation])
    assert list(want) == list(got) == names
    for name in names:
        same(got[name], want[name])
        same(from_keras(tmp_path / "m.keras", name), want[name])  # although the model has an Add


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"]
)
def test_every_policy(dtype: str, tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            L.Input((None, 3)),
            # Its own initialiser needs what PyTorch does not have for halves.
            L.GRU(4, dtype=dtype, recurrent_initializer="zeros", return_sequences=True, name="g"),
            L.Dense(2, dtype=dtype, name="d"),
        ]
    )
    model.save(tmp_path / "m.keras")
    layers = from_keras(model)
    assert layers["g"].dtype == (np.float64 if dtype == "float64" else np.float32)
    stored = [np.asarray(a, layers["g"].dtype) for a in model.get_layer("g").get_weights()]
    assert_array_equal(layers["d"].weights["weight"].T, model.get_layer("d").get_weights()[0])
    same(from_keras(stored)["gru"], layers["g"])
    for name, layer in from_keras(tmp_path / "m.keras").items():
        same(layer, layers[name])


# ------------------------------------------------------------------------------ lists of weights


def zeros(*shapes: tuple[int, ...]) -> list[Any]:
    return [np.zeros(shape, np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("shapes", "made"),
    [
        ([(3, 4), (4, 4), (4,)], "{'simple_rnn': RNN(3, 4)}"),
        ([(3, 4), (4, 4)], "{'simple_rnn': RNN(3, 4, bias=False)}"),
        ([(3, 12), (4, 12), (12,)], "{'gru': GRU(3, 4, reset_after=False)}"),
        ([(3, 12), (4, 12), (2, 12)], "{'gru': GRU(3, 4)}"),
        ([(3, 16), (4, 16), (16,)], "{'lstm': LSTM(3, 4)}"),
        ([(3, 16), (4, 16), (16,)] * 2, "{'bidirectional': LSTM(3, 4, bidirectional=True)}"),
        ([(3, 16), (4, 16), (16,), (4, 16), (4, 16), (16,)], "{'rnn': LSTM(3, 4, num_layers=2)}"),
        ([(4, 16), (4, 16), (16,)] * 3, "{'rnn': LSTM(4, 4, num_layers=3)}"),
        ([(3, 4), (4,)], "{'dense': Linear(3, 4)}"),
    ],
)
def test_a_list_says_what_it_is_by_its_shapes(shapes: Any, made: str) -> None:
    assert repr(from_keras(zeros(*shapes))) == made
    assert repr({e.name: e.becomes for e in contents(zeros(*shapes))}) == (
        made.replace(": ", ": '").replace("}", "'}")
    )


@pytest.mark.parametrize(
    ("shapes", "unsure", "layer"),
    [
        ([(3, 4)], "a Dense without bias, or an Embedding", lambda: L.Dense(4, use_bias=False)),
        ([(3, 4)], "a Dense without bias, or an Embedding", lambda: L.Embedding(3, 4)),
        ([(3, 12), (4, 12)], "a GRU without bias", lambda: L.GRU(4, use_bias=False)),
        ([(4, 16), (4, 16), (16,)] * 2, "a Bidirectional, or two",
         lambda: L.Bidirectional(L.LSTM(4))),
    ],
)  # fmt: skip
def test_what_shapes_leave_open_is_asked_for(shapes: Any, unsure: str, layer: Any) -> None:
    with pytest.raises(ValueError, match=f"those of {unsure}.*: pass config=layer.get_config"):
        from_keras(zeros(*shapes))
    ((_, made),) = from_keras(zeros(*shapes), config=layer().get_config()).items()
    assert made.dtype == np.float32


@pytest.mark.parametrize(
    "shapes",
    [[(3, 4), (4, 4), (5,)], [(3, 8), (4, 8)], [(3,)], [(3, 4), (5,)], [(3, 12), (4, 12), (3, 12)],
     [(0, 4), (4, 4), (4,)], [(3, 0), (0, 0), (0,)], [(3, 4), (4, 4), (4,), (4, 2), (2,)],
     [(3, 16), (4, 16), (16,), (5, 16), (4, 16), (16,)], [()], [(3, 4), (4, 4), (4,)] * 2 + [(3,)]],
)  # fmt: skip
def test_shapes_of_no_layer_are_refused(shapes: Any) -> None:
    with pytest.raises(ValueError, match=r"source has shapes .* of no SimpleRNN"):
        from_keras(zeros(*shapes))


def test_wrong_arguments() -> None:
    gru = L.GRU(4, name="g")
    gru.build((None, None, 3))
    arrays, config = gru.get_weights(), gru.get_config()
    for source, options, error, text in (
        (arrays, {"config": 3}, TypeError, "config is an int, expected a str of JSON or a dict"),
        (arrays, {"config": "{"}, ValueError, "config is not valid JSON"),
        (arrays, {"config": {"units": 4}}, ValueError, "kernel has shape"),
        (arrays, {"config": {}}, ValueError, "config is no configuration of a layer or model"),
        (arrays, {"config": {**config, "units": "4"}}, ValueError, "g: units is '4'"),
        (arrays, {"config": {**config, "use_bias": 1}}, ValueError, "g: use_bias is 1"),
        (arrays, {"config": {**config, "clip": 3}}, ValueError, "g: clip=3, which is not known"),
        (arrays, {"config": {**config, "dtype": {"class_name": "DTypePolicyMap", "config": {}}}},
         ValueError, "g: dtype 'DTypePolicyMap', expected one of float64, float32"),
        (arrays, {"config": {**config, "dtype": "int8"}}, ValueError, "g: dtype 'int8'"),
        (arrays, {"config": keras.Sequential([L.Input((5, 3)), L.GRU(4)]).to_json()}, ValueError,
         "config is of a model"),
        (arrays[:2], {"config": config}, ValueError, "source has 2 arrays, which are too few"),
        ([*arrays, arrays[0]], {"config": config}, ValueError, "4 arrays, expected 3"),
        ([arrays[0], arrays[1].T, arrays[2]], {"config": config}, ValueError,
         "recurrent_kernel has shape (12, 4), expected (4, 12)"),
        ([*arrays[:2], arrays[2][0, :5]], {"config": {**config, "reset_after": False}}, ValueError,
         "bias has shape (5,), expected (12,)"),
        ([a.astype(int) for a in arrays], {}, ValueError, "int64, expected float16"),
        (arrays, {"config": '{"units": 9, "units": 4}'}, ValueError, "the key 'units' comes twice"),
        (arrays, {"config": '{"units": NaN}'}, ValueError, "'NaN' is no finite number"),
        (arrays, {"config": "[4]"}, ValueError, "config is [4], expected an object"),
        (gru.weights, {}, TypeError, "pass [np.asarray(a) for a in source]"),
        ([], {}, ValueError, "source is empty"),
        (gru, {"config": config}, ValueError, "source has its own: leave it out"),
        (gru, {"name": 3}, TypeError, "name is an int"),
        (gru, {"batch_first": 1}, TypeError, "batch_first"),
        (gru, {"skip": "g"}, TypeError, "pass [skip]"),
        (L.GRU, {}, TypeError, "the class GRU"),
        (None, {}, TypeError, "source is None, expected a layer"),
        (b"m.keras", {}, TypeError, "source is a bytes"),
    ):  # fmt: skip
        with pytest.raises(error) as caught:
            from_keras(source, **options)
        assert text in str(caught.value), str(caught.value)
    assert "Variable" in str(type(gru.weights[0]))


def test_contents_of_a_layer() -> None:
    gru = L.GRU(4, name="g")
    gru.build((None, None, 3))
    (entry,) = contents(gru)
    assert entry[:4] == ("g", "GRU", "GRU(3, 4)", "")
    assert [w for _, w in entry.weights.values()] == [(3, 12), (4, 12), (2, 12)]
