"""fastrnn.Linear: its weights, and that it is linear_forward and linear_backward with them."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from test_linear import Spec, both_backends, draw, run

import fastrnn


def make(**options: Any) -> fastrnn.Linear:
    return fastrnn.Linear(4, 6, **{"dtype": "float64", "rng": 0} | options)


def test_layer_construction() -> None:
    layer = fastrnn.Linear(50, 64, rng=3)
    assert (layer.in_features, layer.out_features, layer.bias, layer.dtype) == (50, 64, True, "f4")
    assert repr(layer) == "Linear(50, 64)"
    assert repr(make(bias=False)) == "Linear(4, 6, bias=False, dtype='float64')"
    # 3264 draws of variance 1/(3 * 50): the mean's deviation is 1.4e-3, the deviation's 0.6e-3.
    flat = layer.flat_weights
    assert 0.13 < np.abs(flat).max() <= np.float32(1 / np.sqrt(50))
    assert abs(flat.mean()) < 7e-3
    assert abs(flat.std() - 1 / np.sqrt(150)) < 5e-3
    assert np.array_equal(flat, fastrnn.Linear(50, 64, rng=np.random.default_rng(3)).flat_weights)
    double = fastrnn.Linear(50, 64, rng=3, dtype="float64").flat_weights
    assert np.array_equal(flat, double.astype(np.float32))
    for bias, names in ((True, ["weight", "bias"]), (False, ["weight"])):
        layer = make(bias=bias)
        assert list(layer.weights) == list(layer.state_dict()) == names
        assert layer.weights["weight"].shape == (6, 4)
        layer.flat_weights[...] = np.arange(layer.flat_weights.size)
        views = [w.ravel() for w in layer.weights.values()]
        assert np.array_equal(np.concatenate(views), layer.flat_weights)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"in_features": 0}, ValueError, "in_features is 0, expected at least 1"),
        ({"in_features": 2.0}, TypeError, "in_features is 2.0, expected an integer"),
        ({"out_features": -1}, ValueError, "out_features is -1"),
        ({"out_features": 2**62}, ValueError, "larger than the address space"),
        ({"bias": 0}, TypeError, "bias is 0, expected True or False"),
        ({"dtype": "int32"}, TypeError, "dtype is 'int32', expected 'float32' or 'float64'"),
    ],
)
def test_layer_constructor_refuses(options: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error) as caught:
        fastrnn.Linear(**{"in_features": 4, "out_features": 6} | options)
    assert text in str(caught.value)


@both_backends
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("wrt", [None, (), ["x"], ["weights"], ["weight"], {"bias", "x"}], ids=str)
def test_a_layer_is_its_function(wrt: Any, bias: bool, backend: str) -> None:
    layer, p = make(bias=bias), draw(Spec(15, 4, 6), np.float64)
    p |= dict(layer.weights) | {k: p[k].reshape(5, 3, -1) for k in ("x", "d_output")}
    p |= {} if bias else {"bias": None}
    with fastrnn.backend(backend):
        want = run(fastrnn, p)
        output, tape = layer.forward(p["x"])
        assert_same(output, want["output"], "output")
        assert_same(layer(p["x"]), want["output"], "output without a tape")
        if wrt is not None and "bias" in wrt and not bias:
            with pytest.raises(ValueError, match="wrt holds 'bias', expected names out of 'x', 'w"):
                layer.backward(tape, p["d_output"], wrt=wrt)
            return
        grads = layer.backward(tape, p["d_output"], wrt=wrt)
    wanted = {"x", "weights"} if wrt is None else set(wrt)
    assert_same(grads.x, want["d_x"] if "x" in wanted else None, "x")
    names = [name for name in layer.weights if {name, "weights"} & wanted]
    assert list(grads.weights) == names
    if not names:
        assert grads.flat_weights is None
        return
    parts = [want[f"d_{n}"].ravel() * (n in names) for n in layer.weights]
    assert np.array_equal(grads.flat_weights, np.concatenate(parts))
    assert all(np.shares_memory(g, grads.flat_weights) for g in grads.weights.values())


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "copy", "state_dict"])
def test_layer_copies(way: str) -> None:
    layer, x = make(), draw(Spec(5, 4, 6), np.float64)["x"]
    output, tape = layer.forward(x)
    other = make(rng=1)
    with pytest.raises(
        ValueError, match="tape is of another layer: its weight is not this layer's"
    ):
        other.backward(tape, output)
    if way == "state_dict":
        assert other.load_state_dict(layer.state_dict()) == ([], [])
    else:
        ways = {"deepcopy": copy.deepcopy, "copy": copy.copy}
        other = ways.get(way, lambda a: pickle.loads(pickle.dumps(a)))(layer)
    assert repr(other) == repr(layer)
    assert_same(other(x), output, way)
    grads = other.backward(tape, output)  # equal weights will do
    assert_same(grads.flat_weights, layer.backward(tape, output).flat_weights, way)
    assert np.shares_memory(other.flat_weights, layer.flat_weights) == (way == "copy")
    other.weights["bias"][...] += 1
    if way != "copy":
        with pytest.raises(ValueError, match="its bias is not this layer's"):
            other.backward(tape, output)


def test_layer_refuses() -> None:
    layer, x = make(), np.zeros((5, 4))
    output, tape = layer.forward(x)
    for call, error, text in (
        (lambda: layer(x[:, :3]), ValueError, "x has shape (5, 3), expected (..., in_features) = "),
        (lambda: layer(np.array(1.0)), ValueError, "x has shape ()"),
        (lambda: layer(x.astype("f4")), TypeError, "x is float32, the layer is float64"),
        (
            lambda: layer.backward(None, output),
            TypeError,
            "expected the LinearTape that Linear.for",
        ),
        (lambda: layer.backward(tape, x), ValueError, "d_output has shape (5, 4), expected (5, 6)"),
        (lambda: layer.backward(tape, output, wrt="x"), TypeError, "wrt is 'x'"),
        (lambda: make(bias=False).backward(tape, output), ValueError, "its bias is not this lay"),
    ):
        with pytest.raises(error) as caught:
            call()
        assert text in str(caught.value)
