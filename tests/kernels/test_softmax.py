"""softmax, log_softmax and sigmoid as functions: bounds, bits, special values, arguments."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bit_checks import assert_same
from bounds import LAMBDA, Array, check
from grids import grid, name_of
from memory_layouts import LAYOUTS
from refusals import refused

import fastrnn
from fastrnn import _core, reference

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)
CLASSES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1000)
U64 = 2.0**-53
# exp is within 2 ULP, and one ULP is at most 2u of the value; the logarithm is float64, within 4.
EXP_UNITS, LOG_UNITS = 4.0, 8.0

both_types = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
both_backends = pytest.mark.parametrize("functions", [fastrnn, reference], ids=["own", "reference"])
each_name = pytest.mark.parametrize("name", ["softmax", "log_softmax"])


def draw(N: int, C: int, dtype: Any) -> Array:
    return (5 * np.random.default_rng((N, C)).standard_normal((N, C))).astype(dtype)


def bounds_of(x: Array) -> dict[str, Array]:
    """LAMBDA times the deviation of each, as in test_losses.py: z = x - max, e = exp z."""
    u = float(np.finfo(x.dtype).eps) / 2
    x, C = x.astype(np.float64), x.shape[1]
    z = x - x.max(axis=1, keepdims=True)
    e = np.exp(z)
    v_e = (u * e) ** 2 * (z**2 + EXP_UNITS**2)
    S = e.sum(1, keepdims=True)
    v_S = v_e.sum(1, keepdims=True) + U64**2 * C * ((e**2).sum(1, keepdims=True) + S**2)
    p, log_S = e / S, np.log(S)
    v_p = v_e / S**2 + p**2 * (v_S / S**2 + 2 * u**2 + U64**2)
    v_log = v_S / S**2 + U64**2 * ((LOG_UNITS * log_S) ** 2 + 2 * z**2) + u**2 * (z - log_S) ** 2
    lost = 4 * float(np.finfo(np.float32 if u > U64 else np.float64).tiny)  # flushed to zero
    return {"softmax": LAMBDA * np.sqrt(v_p) + lost, "log_softmax": LAMBDA * np.sqrt(v_log) + lost}


@grid("C, N, dtype", CLASSES, (1, 5, 300), DTYPES)
def test_agree_with_reference(C: int, N: int, dtype: Any) -> None:
    x = draw(N, C, dtype)
    for name, bound in bounds_of(x).items():
        truth = getattr(reference, name)(x.astype(np.float64))
        limit = 2 * bound if dtype is np.float64 else bound  # there the reference errs as much
        first = None
        for isa in ISAS:
            fastrnn.set_isa(isa)
            got = getattr(fastrnn, name)(x)
            label = f"{np.dtype(dtype)} {name}"
            check({label: got}, {label: truth}, {label: limit}, dtype, f"N{N}-C{C} {isa}")
            if isa in PROMISED:
                first = got if first is None else first
                assert_same(got, first, isa)
        check(*({name: a} for a in (getattr(reference, name)(x), truth, limit)), dtype, "reference")


@both_types
@pytest.mark.quick
def test_threads_and_instruction_sets(dtype: Any) -> None:
    for C in (5, 100):
        x = draw(3000 // C, C, dtype)
        for function in (fastrnn.softmax, fastrnn.log_softmax, fastrnn.sigmoid):
            found = []
            for isa, threads in itertools.product(PROMISED, (1, 2, 3, 5)):
                fastrnn.set_isa(isa)
                fastrnn.set_num_threads(threads)
                found.append(function(x))
                assert_same(found[-1], found[0], f"{isa}, {threads} threads")


@both_types
@pytest.mark.parametrize("isa", PROMISED)
def test_softmax_is_in_the_gradient_of_cross_entropy(isa: str, dtype: Any) -> None:
    fastrnn.set_isa(isa)
    for C in CLASSES[1:]:
        x = draw(5, C, dtype)
        _, d = fastrnn.softmax_cross_entropy(x, np.zeros(5, int), reduction="sum")
        assert_same(fastrnn.softmax(x)[:, 1:], d[:, 1:], "p of all but the target")


@both_types
@each_name
@both_backends
def test_axes(functions: Any, name: str, dtype: Any) -> None:
    x, function = draw(4, 30, dtype).reshape(4, 5, 6), getattr(functions, name)
    for axis in range(3):
        rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        want = np.moveaxis(function(rows), -1, axis)
        for given in (axis, axis - 3, np.int64(axis)):
            got = function(x, given)
            if functions is fastrnn:  # the sums of NumPy have another order along another axis
                assert_same(got, want, f"axis {given}")
                assert got.flags.c_contiguous
            np.testing.assert_allclose(got, want, rtol=8 * np.finfo(dtype).eps)
    for shape in ((0, 3), (3, 0), (2, 0, 3), (0,)):
        for axis in range(len(shape)):
            assert function(np.zeros(shape, dtype), axis).shape == shape
    assert function(x[0, 0]).shape == (6,)


@both_types
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(layout: Any, dtype: Any) -> None:
    x = draw(4, 30, dtype).reshape(4, 5, 6)
    kept = x.copy()
    for function in (fastrnn.softmax, fastrnn.log_softmax, fastrnn.sigmoid):
        got = function(layout(x))
        assert type(got) is np.ndarray
        assert_same(got, function(x), layout.__name__)
        assert not np.shares_memory(got, x)
    assert_same(x, kept, "x is left alone")


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("row", "p", "log_p"),
    [
        ([1e30, 0, -1e30], [1, 0, 0], [0, -1e30, -2e30]),
        ([-3e38, 3e38], [0, 1], [None, 0]),  # their difference is no float32
        ([0, 0, -INF], [0.5, 0.5, 0], [-math.log(2), -math.log(2), -INF]),
        ([-INF, 5, -INF], [0, 1, 0], [-INF, 0, -INF]),
        ([7], [1], [0]),
        ([INF, 0], [NAN] * 2, [NAN] * 2),
        ([0, INF, INF], [NAN] * 3, [NAN] * 3),
        ([0, NAN, 0], [NAN] * 3, [NAN] * 3),
        ([NAN, 0], [NAN] * 2, [NAN] * 2),
        ([-INF, -INF], [NAN] * 2, [NAN] * 2),
    ],
    ids=str,
)
@both_types
def test_extremes(row: Any, p: Any, log_p: Any, dtype: Any) -> None:
    fine = np.zeros(len(row), dtype)
    x = np.array([fine, row, fine], dtype)
    eps = np.finfo(dtype).eps
    for functions, isa in [(reference, ISAS[0]), *((fastrnn, isa) for isa in ISAS)]:
        fastrnn.set_isa(isa)
        for name, want in (("softmax", p), ("log_softmax", log_p)):
            got = getattr(functions, name)(x)
            for value, expected in zip(got[1], want, strict=True):
                if expected is not None:
                    np.testing.assert_allclose(value, dtype(expected), rtol=2 * eps)
            assert_same(got[0], got[2], "beside it")
            assert np.isfinite(got[0]).all()


@both_types
def test_small_logarithms_keep_their_digits(dtype: Any) -> None:
    # log p of a confident class: log(1 + rest), to what float64 has of 1 + rest.
    for lead in (5, 14, 18):
        x, rest = np.array([lead, 0, 0], dtype), 2 * math.exp(-lead)
        for functions in (fastrnn, reference):
            got = functions.log_softmax(x)
            tolerance = LAMBDA * (EXP_UNITS + 2) * np.finfo(dtype).eps / 2 + 4 * U64 / rest
            np.testing.assert_allclose(got[0], -math.log1p(rest), rtol=tolerance)


@both_types
def test_sigmoid(dtype: Any) -> None:
    """Its error is measured in test_activations.py; here it is that function, of any array."""
    x = np.concatenate([np.linspace(-800, 800, 999), [0.0, -0.0, 1e300, -1e300, INF, -INF, NAN]])
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    tiny, eps = np.finfo(dtype).tiny, np.finfo(dtype).eps
    for isa in ISAS:
        fastrnn.set_isa(isa)
        got, want = fastrnn.sigmoid(x), np.empty_like(x)
        _core.sigmoid(x, want)
        assert_same(got, want, isa)
        plain = reference.sigmoid(x)
        # 2 ULP, of which one is at most eps, and in the plain one three roundings and an exp.
        np.testing.assert_allclose(got, plain, rtol=5 * eps, atol=2 * tiny)
        assert got[-7:-1].tolist() == [0.5, 0.5, 1, 0, 1, 0]
        assert math.isnan(got[-1])
        for n in (0, 1, 15, 16, 17):
            assert_same(fastrnn.sigmoid(x[:n]), got[:n], f"{n} elements")
    for functions in (fastrnn, reference):
        scalar = functions.sigmoid(np.zeros((), dtype))
        assert (type(scalar), scalar.shape, scalar.item()) == (np.ndarray, (), 0.5)
        assert functions.sigmoid(np.zeros((2, 0), dtype)).shape == (2, 0)


X = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "text"),
    [
        ("sigmoid", ([1.0],), TypeError, "x is a list, expected a numpy.ndarray: pass np.as"),
        ("sigmoid", (1.0,), TypeError, "x is a float, expected a numpy.ndarray"),
        ("sigmoid", (X.astype(int),), TypeError, "x is int64, expected float32 or float64"),
        ("softmax", ([1.0],), TypeError, "x is a list"),
        ("softmax", (X.astype(np.float16),), TypeError, "x is float16, expected float32"),
        ("softmax", (np.ma.array(X),), TypeError, "x is a MaskedArray"),
        ("softmax", (X, 2), ValueError, "axis is 2, expected one of the 2 axes of x, (2, 3)"),
        ("log_softmax", (X, -3), ValueError, "axis is -3, expected one of the 2 axes of x"),
        ("log_softmax", (X, None), TypeError, "axis is None, expected an integer"),
        ("log_softmax", (X, 1.0), TypeError, "axis is 1.0, expected an integer"),
        ("softmax", (np.array(1.0),), ValueError, "axis is -1, expected one of the 0 axes of x"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_refuse(name: str, arguments: Any, error: Any, text: str) -> None:
    refused((arguments, {}), error, text, function=name)
