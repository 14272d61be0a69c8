"""Layers without weight_ih_l0, `input_size=None`: x is the pre-activations of layer 0.

Each is compared with its twin, an ordinary layer with the same weights and identities for
weight_ih_l0: one for each direction, which picks the direction's part of x and multiplies the other
by zero. Such products are exact, so all of its results have the bits of the layer.
"""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same, assert_same_results
from bounds import Array
from grids import grid
from marks import each_first, each_last, each_name
from registry import CELLS, FIRST, VARIANTS
from stacked_layers import (
    OPTIONS,
    SHAPES,
    B,
    T,
    cell_of,
    directions,
    draw,
    draw_state,
    each_backend,
    each_shape,
    run,
    units,
)
from stream_layers import assert_same_state, each_isa, in_pieces
from stream_layers import make as make_by_size

import fastrnn
from fastrnn import _core, reference

H = 5
INPUT = ("weight_ih_l0", "weight_ih_l0_reverse")


def make(kind: str, shape: str = "two", **options: Any) -> Any:
    """A layer of a variant without weight_ih_l0."""
    own = {"dtype": "float64", "rng": 0}
    return VARIANTS[kind].layer(None, H, **SHAPES[shape] | own | options)


def rows_of(layer: Any) -> int:
    return cell_of(layer).gates * layer.hidden_size


def twin_of(layer: Any) -> Any:
    rows, arguments = rows_of(layer), layer._arguments()
    n = directions(layer)
    twin = type(layer)(**arguments | {"input_size": n * rows}, dtype=layer.dtype, rng=0)
    eye = np.eye(n * rows, dtype=layer.dtype)
    inputs = [name for name in INPUT if name in twin.weights]
    parts = dict(zip(inputs, np.split(eye, n), strict=True))
    twin.load_state_dict({**layer.state_dict(), **parts})
    return twin


def draw_x(layer: Any, *shape: int, seed: int = 1) -> Array:
    return draw(layer, *shape, directions(layer) * rows_of(layer), seed=seed)


def assert_twins(layer: Any, x: Array, d_output: Array, **options: Any) -> Any:
    """That forward and backward give what those of the twin give; what they give."""
    rows = x.shape[:-2][-1:] if x.ndim == 3 and layer.batch_first else x.shape[1:-1]
    state, d_state = draw_state(layer, *rows), draw_state(layer, *rows, seed=5)
    got, grads, tape = run(layer, x, state, d_output, d_state, **options)
    want, _, whole = run(twin_of(layer), x, state, d_output, d_state, **options)
    want = {name: a for name, a in want.items() if name not in INPUT}
    assert got.keys() == want.keys()
    np.testing.assert_array_equal(got.pop("x"), want.pop("x"))  # of which -0 becomes +0
    assert_same_results(got, want, repr(layer))
    for name in options.get("keep", ()):
        for a, b in zip(getattr(tape, name), getattr(whole, name), strict=True):
            assert_same(a, b, name)
    return grads, tape


# ------------------------------------------------------------------------------ the weights


@each_name
@each_shape
def test_the_weights(kind: str, shape: str) -> None:
    layer = make(kind, shape)
    names = list(VARIANTS[kind].layer(3, H, **SHAPES[shape]).weights)
    assert list(layer.weights) == [name for name in names if name not in INPUT]
    assert layer.flat_weights.size == sum(w.size for w in layer.weights.values())
    assert layer.input_size is None
    assert repr(layer).startswith(f"{type(layer).__name__}(None, {H}")
    assert eval(f"fastrnn.{layer!r}").weights.keys() == layer.weights.keys()


def test_the_repr() -> None:
    assert repr(fastrnn.RNN(None, 4)) == "RNN(None, 4)"
    assert (
        repr(fastrnn.LSTM(None, 4, 2, forget_bias=1))
        == "LSTM(None, 4, num_layers=2, forget_bias=1.0)"
    )
    *_, tape = fastrnn.GRU(None, 4, rng=0).forward(np.zeros((5, 2, 12), np.float32))
    assert repr(tape) == "LayerTape(GRU: GRUTape(T=5, B=2, D=None, H=4, float32))"


@each_first
def test_the_weights_are_drawn_as_in_pytorch(kind: str) -> None:
    for init in ("uniform", "orthogonal"):
        layer = make(kind, "both", init=init, dtype="float32")
        for name, w in layer.weights.items():
            if "leak" in name:  # it is not drawn
                continue
            if init == "uniform" or "hh" not in name or w.ndim == 1:
                assert np.abs(w).max() <= 1 / np.sqrt(H) + 1e-7, name
            else:
                for gate in np.split(w, len(w) // H):
                    np.testing.assert_allclose(gate.T @ gate, np.eye(H), atol=1e-6)


def test_a_forget_bias() -> None:
    layers = [fastrnn.LSTM(None, 4, 2, forget_bias=b, rng=0) for b in (0.0, 2.0)]
    for k in range(2):
        plain, biased = (layer.weights[f"bias_ih_l{k}"] for layer in layers)
        moved = np.zeros(16, np.float32)
        moved[4:8] = 2
        np.testing.assert_allclose(biased, plain + moved, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------ as their twins


@each_name
@each_shape
@each_backend
def test_a_layer_is_its_twin(kind: str, shape: str, backend: str) -> None:
    layer = make(kind, shape)
    x = draw_x(layer, T, B)
    d_output = draw(layer, T, B, directions(layer) * units(layer), seed=2)
    with fastrnn.backend(backend):
        for options in OPTIONS.values():
            grads, _ = assert_twins(layer, x, d_output, **options)
            assert grads.x.shape == x.shape
        assert_twins(layer, x[:, 0], d_output[:, 0])
        (output, state), (want, final) = layer(x), twin_of(layer)(x)
    assert_same(output, want, "output of a call")
    assert_same_state(state, final)


@each_name
@each_shape
@each_backend
def test_with_the_batch_first(kind: str, shape: str, backend: str) -> None:
    layer = make(kind, shape, batch_first=True)
    other = make(kind, shape)
    x = draw_x(layer, B, T)
    d_output = draw(layer, B, T, directions(layer) * units(layer), seed=2)
    with fastrnn.backend(backend):
        output, _, tape = layer.forward(x)
        want, _, turned = other.forward(x.swapaxes(0, 1))
        assert_same(output, np.ascontiguousarray(want.swapaxes(0, 1)), "output")
        grads = layer.backward(tape, d_output)
        d = other.backward(turned, d_output.swapaxes(0, 1))
    assert_same(grads.x, np.ascontiguousarray(d.x.swapaxes(0, 1)), "x")
    assert grads.x.flags.c_contiguous
    assert_same_results(grads.weights, d.weights, "weights")


@grid(
    "kind, dtype, isa, threads", VARIANTS, ("float32", "float64"), fastrnn.available_isas(), (1, 2)
)
def test_large_layers(kind: str, dtype: str, isa: str, threads: int) -> None:
    # Concurrent directions, blocks of time steps, several chunks of weight gradients.
    fastrnn.set_isa(isa)
    fastrnn.set_num_threads(threads)
    for shape, steps, batch in (("both", 300, 1), ("three-both", 30, 20), ("two", 40, 1)):
        layer = make(kind, shape, dtype=dtype)
        x = draw_x(layer, steps, batch)
        d_output = draw(layer, steps, batch, directions(layer) * units(layer), seed=2)
        assert_twins(layer, x, d_output)
        assert _core.last_plan()["threads"] <= threads


@each_name
@each_shape
def test_options_of_forward(kind: str, shape: str) -> None:
    layer = make(kind, shape)
    x = draw_x(layer, T, B)
    d_output = draw(layer, T, B, directions(layer) * units(layer), seed=2)
    for checkpoint in (1, 2, 4, 10):
        for options in OPTIONS.values():
            assert_twins(layer, x, d_output, checkpoint=checkpoint, **options)
    assert_twins(layer, x, d_output, keep=layer._kept)
    assert_twins(layer, x, d_output, check=True)
    if layer.num_layers > 1:
        layer.dropout = 0.4
        assert_twins(layer, x, d_output, rng=3)


@each_name
@each_shape
@each_backend
def test_some_gradients(kind: str, shape: str, backend: str) -> None:
    layer = make(kind, shape)
    x, state = draw_x(layer, T, B), draw_state(layer, B)
    d_output = draw(layer, T, B, directions(layer) * units(layer), seed=2)
    w_hh, _, b_hh, *_ = layer.weights
    with fastrnn.backend(backend):
        _, _, tape = layer.forward(x, state)
        every = layer.backward(tape, d_output)
        for wrt in ([], ["x"], ["state"], ["weights"], [b_hh, "x"], [w_hh]):
            grads = layer.backward(tape, d_output, wrt=wrt)
            if "x" in wrt:
                assert_same(grads.x, every.x, f"x of wrt={wrt}")
            else:
                assert grads.x is None
            assert_same_results(grads.weights, every.weights, f"wrt={wrt}", grads.weights)
        with pytest.raises(ValueError, match="wrt holds 'weight_ih_l0'"):
            layer.backward(tape, d_output, wrt=["weight_ih_l0"])
        norms = fastrnn.gradient_norms(tape, d_output)
    assert norms.shape == (len(layer._directions), T, B)
    twin = twin_of(layer)
    with fastrnn.backend(backend):
        assert_same(norms, fastrnn.gradient_norms(twin.forward(x, state)[2], d_output), "norms")


@each_name
@each_shape
def test_the_backends_agree(kind: str, shape: str) -> None:
    layer = make(kind, shape)
    x = draw_x(layer, T, B)
    d_output = draw(layer, T, B, directions(layer) * units(layer), seed=2)
    results = []
    for backend in ("compiled", "reference"):
        with fastrnn.backend(backend):
            results.append(run(layer, x, None, d_output, None)[0])
    for name, a in results[0].items():
        np.testing.assert_allclose(a, results[1][name], rtol=0, atol=1e-11, err_msg=name)


@each_last
def test_noise_is_added_to_x(kind: str) -> None:
    # Of a loss, the gradient of a noise that is added before the activation is that of x.
    layer = make(kind, "both")
    x = draw_x(layer, T, B)
    output, _, tape = layer.forward(x)
    d_output = draw(layer, *output.shape, seed=2)
    grads = layer.backward(tape, d_output)
    noise = draw_x(layer, T, B, seed=8)
    step = 1e-6
    above, below = (layer(x + sign * step * noise)[0] for sign in (1, -1))
    slope = float(((above - below) * d_output).sum()) / (2 * step)
    np.testing.assert_allclose(slope, float((grads.x * noise).sum()), rtol=1e-7)


# ------------------------------------------------------------------------------ streams, generate


@each_name
@each_isa
def test_streams(kind: str, isa: str) -> None:
    fastrnn.set_isa(isa)
    for layers, dtype, batch, hidden in (
        (1, "float32", 1, 17),
        (2, "float64", 3, 9),
        (2, "float32", 9, 33),
    ):
        layer = make_by_size(kind, None, hidden, layers, dtype)
        x = draw_x(layer, 12, batch)
        restart = np.random.default_rng(3).random((12, batch)) < 0.2
        for mask in (None, restart):
            want, state = layer(x, restart=mask)
            for cuts in ((), (1, 2, 7), tuple(range(1, 12))):
                stream = layer.stream(batch)
                assert_same(in_pieces(stream, x, mask, cuts, mixed=2), want, f"cuts {cuts}")
                assert_same_state(stream.state, state)
        stream = layer.stream(batch)
        layer.flat_weights[...] /= 2
        stream.update()
        assert_same(stream.run(x), layer(x)[0], "after update")


@each_first
def test_what_a_stream_refuses(kind: str) -> None:
    layer = make(kind, "two", dtype="float32")
    letters = "H" if VARIANTS[kind].cell.gates == 1 else f"{VARIANTS[kind].cell.gates}·H"
    rows, stream = rows_of(layer), layer.stream(2)
    why = "because input_size is None"
    for x_t in (np.zeros((2, rows - 1), np.float32), np.zeros((2, 3), np.float32)):
        with pytest.raises(ValueError, match=rf"expected \(B, {letters}\) = \(2, {rows}\), {why}"):
            stream.step(x_t)
        with pytest.raises(ValueError, match=rf"expected \(T, B, {letters}\) = .*, {why}"):
            stream.run(x_t[None])
    alone = layer.stream()
    with pytest.raises(ValueError, match=rf"expected \({letters},\) = \({rows},\), {why}"):
        alone.step(np.zeros(rows + 1, np.float32))
    with pytest.raises(ValueError, match=f"T, {letters}"):
        alone.run(np.zeros((4, rows + 1), np.float32))
    with pytest.raises(ValueError, match="bidirectional"):
        make(kind, "both").stream()


@grid("kind, dtype, isa", VARIANTS, ("float32", "float64"), fastrnn.available_isas())
def test_generate(kind: str, dtype: str, isa: str) -> None:
    fastrnn.set_isa(isa)
    # Vocabularies whose input projections are kept, and one that is too large for that.
    sizes = [(4, 3, 1), (17, 33, 2)]
    if VARIANTS[kind] in FIRST.values():
        sizes.append(((16 << 20) // (4 * 128 * VARIANTS[kind].cell.gates) + 1, 128, 1))
    for V, hidden, layers in sizes:
        rnn = make_by_size(kind, None, hidden, layers, dtype)
        embedding = fastrnn.Embedding(V, rows_of(rnn), dtype=dtype, rng=1)
        head = fastrnn.Linear(units(rnn), V, dtype=dtype, rng=2)
        head.flat_weights[...] *= 6  # as drawn, its choices would be nearly uniform
        prompt, length = [1, 2, 3], 5 if V > 100 else 40
        got = fastrnn.generate(embedding, rnn, head, prompt, length, rng=3)
        assert len(set(got[0].tolist())) > 1
        read = [*prompt, *got[0][:-1]]
        assert_same_state(got[1], rnn(embedding(read))[1])
        if V < 100:
            want = fastrnn.generate(embedding, twin_of(rnn), head, prompt, length, rng=3)
            assert got[0].tolist() == want[0].tolist()
            assert_same_state(got[1], want[1])
        if dtype == "float64" and V < 100:
            again = reference.generate(embedding, rnn, head, prompt, length, rng=3)
            assert again[0].tolist() == got[0].tolist()


@each_first
@each_backend
def test_generate_refuses_an_embedding_of_another_size(kind: str, backend: str) -> None:
    rnn = make(kind, "one", dtype="float32")
    rows = rows_of(rnn)
    head = fastrnn.Linear(units(rnn), 7)
    text = rf"\(rnn.input_size is None\) is {rows}, expected embedding.embedding_dim = {rows + 1}"
    with fastrnn.backend(backend), pytest.raises(ValueError, match=text):
        fastrnn.generate(fastrnn.Embedding(7, rows + 1), rnn, head, [1], 3)


@each_first
def test_indices_without_a_one_hot_matrix(kind: str) -> None:
    # The same network twice: one-hot vectors of its indices, or an embedding that is weight_ih.
    layer = make(kind, "two", dtype="float32")
    whole = VARIANTS[kind].layer(11, H, 2, rng=4)
    layer.load_state_dict(whole.state_dict(), strict=False)
    embedding = fastrnn.Embedding(11, rows_of(layer))
    embedding.weights["weight"][...] = whole.weights["weight_ih_l0"].T
    indices = np.random.default_rng(0).integers(0, 11, (T, B))
    picked, kept = embedding.forward(indices)
    output, _, tape = layer.forward(picked)
    want, _, other = whole.forward(np.eye(11, dtype=np.float32)[indices])
    assert_same(output, want, "output")
    grads, d = layer.backward(tape, output), whole.backward(other, output)
    d_weight = embedding.backward(kept, grads.x).weights["weight"]
    np.testing.assert_allclose(d_weight.T, d.weights["weight_ih_l0"], rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------ copies, files


@each_name
@each_shape
def test_copies_and_files(kind: str, shape: str, tmp_path: Any) -> None:
    layer = make(kind, shape)
    x = draw_x(layer, T, B)
    output, _, tape = layer.forward(x)
    fastrnn.save(tmp_path / "layer.safetensors", {"layer": layer})
    assert b"input_size" in (tmp_path / "layer.safetensors").read_bytes()
    assert b"null" in (tmp_path / "layer.safetensors").read_bytes()
    others = [
        fastrnn.load(tmp_path / "layer.safetensors")["layer"], pickle.loads(pickle.dumps(layer)),
        copy.deepcopy(layer), copy.copy(layer),
    ]  # fmt: skip
    for other in others:
        assert repr(other) == repr(layer)
        assert_same(other(x)[0], output, "output")
        assert_same(other.backward(pickle.loads(pickle.dumps(tape)), output).x,
                    layer.backward(tape, output).x, "x")  # fmt: skip
    fresh = make(kind, shape, rng=5)
    assert fresh.load_state_dict(layer.state_dict()) == ([], [])
    assert_same(fresh(x)[0], output, "output")


def test_a_file_that_says_otherwise(tmp_path: Any) -> None:
    path = tmp_path / "layer.safetensors"
    for one, other, text in (
        (fastrnn.RNN(None, 4), b"1234", "input_size is 1234, but no weight has so many rows"),
        (fastrnn.RNN(1234, 4), b"null", r"\(RNN\): has unexpected weight_ih_l0"),
    ):
        fastrnn.save(path, {"layer": one})
        data = path.read_bytes()
        said = b"null" if one.input_size is None else b"1234"
        assert data.count(said) >= 1
        at = data.index(said, data.index(b"input_size"))
        path.write_bytes(data[:at] + other + data[at + 4 :])
        with pytest.raises(ValueError, match=text):
            fastrnn.load(path)


# ------------------------------------------------------------------------------ wrong calls


@each_first
@each_shape
@each_backend
def test_what_does_not_fit(kind: str, shape: str, backend: str) -> None:
    layer = make(kind, shape, dtype="float32")
    n = directions(layer) * VARIANTS[kind].cell.gates
    letters, size = "H" if n == 1 else f"{n}·H", n * H
    why = "because input_size is None: x is the pre-activations of layer 0"
    with fastrnn.backend(backend):
        for features in (0, 3, size - 1, size + 1, 2 * size):
            with pytest.raises(ValueError, match=rf"\(T, B, {letters}\) = \(T, B, {size}\), {why}"):
                layer(np.zeros((T, B, features), np.float32))
            with pytest.raises(ValueError, match=rf"\(T, {letters}\) = \(T, {size}\), {why}"):
                layer.forward(np.zeros((T, features), np.float32))
        with pytest.raises(ValueError, match="x has shape"):
            layer(np.zeros(size, np.float32))
        with pytest.raises(TypeError, match="x is float64, the layer is float32"):
            layer(np.zeros((T, B, size)))
        ordinary = VARIANTS[kind].layer(3, H, **SHAPES[shape])
        tape = ordinary.forward(np.zeros((T, B, 3), np.float32))[2]
        first = next(iter(ordinary.weights))
        with pytest.raises(ValueError, match=f"its {first} is not this layer's"):
            layer.backward(tape, tape.tapes[-1].output)


@each_first
def test_the_weight_that_is_not_there(kind: str) -> None:
    layer, name = make(kind, "both"), "weight_ih_l0"
    with pytest.raises(AttributeError, match="make another one with an input_size"):
        setattr(layer, name, np.zeros((H, 3)))
    with pytest.raises(AttributeError, match=r"its weights are layer\.weights, weight_hh_l0"):
        getattr(layer, name)
    with pytest.raises(AttributeError, match="input_size"):
        layer.input_size = 3
    whole = VARIANTS[kind].layer(3, H, bidirectional=True, dtype="float64")
    with pytest.raises(ValueError, match="has unexpected weight_ih_l0, weight_ih_l0_reverse"):
        layer.load_state_dict(whole.state_dict())
    assert layer.load_state_dict(whole.state_dict(), strict=False).unexpected_keys == list(INPUT)
    with pytest.raises(ValueError, match="lacks weight_ih_l0"):
        whole.load_state_dict(layer.state_dict())
    for wrong in (-1, 1.5, "None", False):
        with pytest.raises((TypeError, ValueError), match="input_size is "):
            type(layer)(wrong, H)


def test_every_cell_has_such_a_layer() -> None:
    assert {type(make(kind)) for kind in VARIANTS} == {cell.layer for cell in CELLS.values()}
