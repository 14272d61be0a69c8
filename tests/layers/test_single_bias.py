"""``bias="single"``: b_ih alone exists, and nothing loses a bias or makes one up."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from registry import CELLS, VARIANTS

import fastrnn
from fastrnn.convert import from_arrays, from_onnx, from_torch, to_arrays, to_onnx, to_torch

T, B, D, H = 6, 3, 4, 5
rng = np.random.default_rng(0)
X = rng.standard_normal((T, B, D)).astype(np.float32)

of_variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
of_cells = pytest.mark.parametrize("cell", CELLS.values(), ids=list(CELLS))


def pair(variant: Any, **options: Any) -> tuple[Any, Any]:
    """A layer with one bias, and one with two of which b_hh is zero."""
    single = variant.layer(D, H, bias="single", rng=0, **options)
    both = variant.layer(D, H, rng=0, **options)
    for name, view in both.weights.items():
        view[...] = 0 if name.startswith("bias_hh") else single.weights[name]
    return single, both


@of_variants
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_bits_of_a_second_bias_of_zero(variant: Any, options: Any, backend: Any) -> None:
    single, both = pair(variant, **options)
    assert single.bias == "single"
    names = [n for n in both.weights if not n.startswith("bias_hh")]
    assert list(single.weights) == names
    with fastrnn.backend(backend):
        output, _, tape = single.forward(X, lengths=[6, 0, 4])
        wanted, _, other = both.forward(X, lengths=[6, 0, 4])
        assert_same(output, wanted, "output")
        assert_same(single(X)[0], both(X)[0], "output")
        grads, others = single.backward(tape, output), both.backward(other, output)
        assert_same(grads.x, others.x, "the gradient of x")
        assert list(grads.weights) == names
        assert grads.flat_weights.size == sum(grads.weights[n].size for n in names)
        for name in names:
            assert_same(grads.weights[name], others.weights[name], name)
    if "num_layers" not in options:
        stream = single.stream(B)
        assert_same(stream.run(X), both(X)[0], "output")


@of_cells
def test_a_step_of_sgd_is_that_of_one_bias(cell: Any) -> None:
    """Two that are added both move, and so their sum twice as far; but for a GRU's n."""
    single, both = pair(cell)
    for layer in (single, both):
        output, _, tape = layer.forward(X)
        fastrnn.optim.SGD([layer.flat_weights], lr=0.5).step(
            [layer.backward(tape, np.ones_like(output)).flat_weights]
        )
    start, _ = pair(cell)
    before, one = start.weights["bias_ih_l0"], single.weights["bias_ih_l0"]
    two = both.weights["bias_ih_l0"] + both.weights["bias_hh_l0"]
    rows = slice(None) if cell.name != "gru" else slice(2 * H)
    # Each of the sums and differences rounds once, of numbers below ten.
    np.testing.assert_allclose(two[rows] - before[rows], 2 * (one - before)[rows], atol=8 * 2e-6)


@of_variants
def test_files_copies_and_repr(variant: Any, tmp_path: Path) -> None:
    layer = variant.layer(D, H, 2, bias="single", rng=0)
    path = tmp_path / "layer.safetensors"
    fastrnn.save(path, {"layer": layer})
    loaded = fastrnn.load(path)["layer"]
    for one in (loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        assert "bias='single'" in repr(one)
        assert repr(one) == repr(layer)
        assert_same(one.flat_weights, layer.flat_weights, "the weights")
        assert_same(one(X)[0], layer(X)[0], "output")
    other = variant.layer(D, H, 2, bias="single", rng=1)
    other.load_state_dict(layer.state_dict())
    assert_same(other.flat_weights, layer.flat_weights, "the weights")
    for bias in (True, False):
        fastrnn.save(path, {"layer": variant.layer(D, H, bias=bias)})
        assert fastrnn.load(path)["layer"].bias is bias
        assert b"single" not in path.read_bytes()


def test_what_is_refused() -> None:
    for bad in ("both", "", "Single"):
        with pytest.raises(ValueError, match=f"bias is '{bad}', expected True, False or 'single'"):
            fastrnn.GRU(3, 4, bias=bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bias is 2, expected True or False"):
        fastrnn.GRU(3, 4, bias=2)  # type: ignore[arg-type]
    layer, both = fastrnn.GRU(3, 4, bias="single", rng=0), fastrnn.GRU(3, 4, rng=0)
    with pytest.raises(AttributeError, match="make another one with bias=True"):
        layer.bias_hh_l0 = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="bias says whether the GRU has any"):
        layer.bias = True
    with pytest.raises(ValueError, match="unexpected bias_hh_l0"):
        layer.load_state_dict(both.state_dict())
    with pytest.raises(ValueError, match="lacks bias_hh_l0"):
        both.load_state_dict(layer.state_dict())
    assert fastrnn.LSTM(3, 4, bias="single", forget_bias=1).forget_bias == 1


# ------------------------------------------------------------------------------ converters


@pytest.mark.parametrize("cell", [c for c in CELLS.values() if c.name != "leaky"])
def test_to_torch_has_zeros_for_the_other(cell: Any) -> None:
    layer = cell.layer(D, H, 2, bias="single", bidirectional=True, rng=0)
    state = to_torch(layer)
    assert list(state) == list(cell.layer(D, H, 2, bidirectional=True).weights)
    assert all(not a.any() for n, a in state.items() if n.startswith("bias_hh"))
    back = from_torch(state)
    assert back.bias is True
    assert_same(back(X)[0], layer(X)[0], "output")
    one = cell.layer(D, H, bias="single", rng=0)
    assert list(to_torch(one, cell=True)) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    # Of PyTorch's own weights none may be missing.
    with pytest.raises(ValueError, match="lacks bias_hh_l0"):
        from_torch(one.state_dict())
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, cell.layer.__name__)(D, H, 2, bidirectional=True)
    module.load_state_dict({n: torch.from_numpy(a) for n, a in state.items()})
    with torch.no_grad():
        wanted = module(torch.from_numpy(X))[0].numpy()
    # Sums of at most 2H + 1 terms of order one, T steps and two layers deep.
    np.testing.assert_allclose(layer(X)[0], wanted, rtol=0, atol=2 * T * (2 * H + 1) * 2.0**-23)


@pytest.mark.parametrize("cell", [c for c in CELLS.values() if c.name != "leaky"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_onnx_has_zeros_for_the_other(cell: Any, bidirectional: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    layer = cell.layer(D, H, bias="single", bidirectional=bidirectional, rng=0)
    path = tmp_path / "layer.onnx"
    to_onnx(layer, path)
    (back,) = from_onnx(path).values()
    assert isinstance(back, fastrnn.layers.Recurrent)
    assert back.bias is True
    assert_same(back(X)[0], layer(X)[0], "output")


@of_cells
def test_arrays_with_one_bias(cell: Any) -> None:
    layer = cell.layer(D, H, bias="single", rng=0)
    arrays = to_arrays(layer)
    assert "b_ih" in arrays
    assert "b_hh" not in arrays
    leak = {"leak": arrays.pop("leak")} if "leak" in arrays else {}
    back = from_arrays(cell.name, bias="single", **leak, **arrays)
    assert repr(back) == repr(layer)
    assert_same(back.flat_weights, layer.flat_weights, "the weights")
    output, _, tape = back.forward(X)
    assert "b_hh" not in to_arrays(back.backward(tape, output))
    assert from_arrays(cell.name, **leak, **arrays).bias is True  # as always
    bare = {n: a for n, a in arrays.items() if n != "b_ih"}
    for given, text in (
        (bare, "the arrays have no bias, expected b_ih alone"),
        ({**arrays, "b_hh": arrays["b_ih"]}, "the arrays have b_ih and b_hh, expected b_ih alone"),
    ):
        with pytest.raises(ValueError, match=f"bias is 'single', but {text}"):
            from_arrays(cell.name, bias="single", **leak, **given)
    with pytest.raises(TypeError, match="bias is no option here"):
        from_arrays(cell.name, bias=True, **leak, **arrays)


def test_generate_takes_one_bias() -> None:
    words, head = fastrnn.Embedding(9, D, rng=0), fastrnn.Linear(H, 9, rng=1)
    single, both = pair(CELLS["gru"], num_layers=2)
    wanted, _ = fastrnn.generate(words, both, head, [1], 30, rng=0)
    for backend in ("compiled", "reference"):
        with fastrnn.backend(backend):  # type: ignore[arg-type]
            got, _ = fastrnn.generate(words, single, head, [1], 30, rng=0)
            assert np.array_equal(got, wanted)
