"""What is made of sums of squares: the mean squared error, and the clipping of gradients."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import LAMBDA, Array, check, ratios
from grids import name_of
from memory_layouts import LAYOUTS, fortran, negative, row_strided, strided, subclass
from refusals import refused
from test_losses import COUNTING, U64, Spec, assert_same_loss, draw, only_counted

import fastrnn
from fastrnn import reference

ISAS = tuple(fastrnn.available_isas())  # all of them: nothing here is a fused multiply-add
DTYPES = (np.float32, np.float64)
SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100)
REDUCTIONS = ("mean", "sum")

both_types = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
both_backends = pytest.mark.parametrize("functions", [fastrnn, reference], ids=["own", "reference"])


# ------------------------------------------------------------------------ mean squared error

SPECS = tuple(
    Spec(N, O, COUNTING[(i + j) % 4], REDUCTIONS[(i // 2 + j) % 2])
    for (i, N), (j, O) in itertools.product(enumerate((0, 1, 2, 5, 300)), enumerate(SIZES))
)


def squared_error_bounds(x: Array, target: Array, options: dict[str, Any]) -> dict[str, Array]:
    """d = x - t, rounded, times 2 scale, rounded, rounded; the loss, from d on, in float64."""
    u = float(np.finfo(x.dtype).eps) / 2
    a, b = only_counted(x.astype(np.float64), target.astype(np.float64), options)
    d = a - b
    scale = 1 / max(d.size, 1) if options["reduction"] == "mean" else 1.0
    S = (d**2).sum()
    v = (2 * u * d**2) ** 2  # of the rounding of d; and d.size roundings of sums, and of squares
    v_loss = v.sum() + U64**2 * ((d.size + 1) * ((d**4).sum() + S**2) + 2 * S**2)
    return {
        "loss": np.array(LAMBDA * scale * np.sqrt(v_loss)),
        "d_input": LAMBDA * u * np.sqrt(3) * scale * 2 * np.abs(d),
    }


def run(functions: Any, x: Array, target: Array, options: dict[str, Any]) -> dict[str, Array]:
    """The loss, and the gradient of what counts; the rest of it is zero."""
    loss, d = functions.mean_squared_error(x, target, **options)
    assert type(loss) is float
    assert type(d) is np.ndarray
    assert (d.shape, d.dtype) == (x.shape, x.dtype)
    kept, _ = only_counted(d, target, options)
    assert np.count_nonzero(d) == np.count_nonzero(kept)
    return {"loss": np.array(loss), "d_input": kept}


@both_types
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_squared_error(spec: Spec, dtype: Any) -> None:
    x, target, options = draw(spec, dtype, squared=True)
    wide = x.astype(np.float64), target.astype(np.float64)
    truth, bound = run(reference, *wide, options), squared_error_bounds(x, target, options)
    want = None
    for isa in ISAS:
        fastrnn.set_isa(isa)
        got = run(fastrnn, x, target, options)
        for name, kind in (("loss", np.float64), ("d_input", dtype)):
            label = f"{np.dtype(dtype)} squared error {name}"
            check(*({label: r[name]} for r in (got, truth, bound)), kind, f"{spec} {isa}")
        want = want or got
        assert got["loss"].item().hex() == want["loss"].item().hex()
        assert_same(got["d_input"], want["d_input"], isa)
    # Without one element that counts.
    d = only_counted(*wide, options)
    if d[0].size:
        wrong, middle = dict(truth), np.median(np.square(d[0] - d[1]))
        scale = 1 / d[0].size if spec.reduction == "mean" else 1.0
        wrong["loss"] = truth["loss"] - middle * scale
        assert ratios(wrong, truth, bound)["loss"] > 1


@both_types
@pytest.mark.quick
def test_the_order_of_the_sum(dtype: Any) -> None:
    # 16 float64 chains of every 16th square, added one after the other.
    for n in (*SIZES, 1000):
        x = np.random.default_rng(n).standard_normal(n).astype(dtype)
        want = 0.0
        for c in range(16):
            part = 0.0
            for value in x[c::16].tolist():
                part += value * value
            want += part
        loss, d = fastrnn.mean_squared_error(x, np.zeros_like(x), reduction="sum")
        assert loss.hex() == want.hex()
        assert_same(d, 2 * x, "gradient")
        assert fastrnn.clip_grad_norm(x, 1e9).hex() == math.sqrt(want).hex()


@both_types
@both_backends
def test_a_mask_of_elements(functions: Any, dtype: Any) -> None:
    x, target, _ = draw(Spec(24, 5), dtype, squared=True)
    x, target = x.reshape(6, 4, 5), target.reshape(6, 4, 5)
    rng = np.random.default_rng(0)
    on, lengths = rng.random((6, 4, 5)) < 0.6, np.array([6, 0, 2, 5])
    both = on & (np.arange(6)[:, None] < lengths)[..., None]
    for mask, options in ((on, {}), (both, {"lengths": lengths})):
        other, anything = x.copy(), target.copy()
        other[~mask], anything[~mask] = np.nan, np.inf
        loss, d = functions.mean_squared_error(other, anything, mask=on, **options)
        want, d_want = functions.mean_squared_error(x[mask], target[mask])
        np.testing.assert_allclose(loss, want, rtol=40 * 8 * U64)
        assert_same(d[mask], d_want, "gradient")
        assert not d[~mask].any()
    # A mask of positions is the same for all elements; a series (T,) has positions alone.
    positions = on[..., 0]
    same = functions.mean_squared_error(x, target, mask=np.repeat(positions[..., None], 5, 2))
    assert_same_loss(functions.mean_squared_error(x, target, mask=positions), same, "positions")
    x, target, on = x[:, 0, 0], target[:, 0, 0], on[:, 0, 0]
    series = functions.mean_squared_error(x, target, mask=on, lengths=4)
    same = functions.mean_squared_error(x, target, mask=on & (np.arange(6) < 4))
    assert_same_loss(series, same, "series")


@both_types
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(layout: Any, dtype: Any) -> None:
    x, target, options = draw(Spec(12, 5, "both"), dtype, squared=True)
    kept = x.copy(), target.copy()
    want = fastrnn.mean_squared_error(x, target, **options)
    for functions in (fastrnn, reference):
        for a, b in ((layout(x), target), (x, layout(target)), (layout(x), layout(target))):
            loss, d = functions.mean_squared_error(a, b, **options)
            np.testing.assert_allclose(loss, want[0], rtol=60 * U64)
            assert type(d) is np.ndarray
            assert d.flags.c_contiguous or functions is reference
            assert_same(d, want[1], layout.__name__)
            assert not np.shares_memory(d, a)
    assert_same(x, kept[0], "input is left alone")
    assert_same(target, kept[1], "target is left alone")


@both_backends
def test_special_errors(functions: Any) -> None:
    # float32 squares do not overflow in float64; infinity and NaN come through without a warning.
    x = np.array([3e38, 0], np.float32)
    loss, d = functions.mean_squared_error(x, -x, reduction="sum")
    assert loss == math.inf  # their difference does
    loss, d = functions.mean_squared_error(x, np.zeros_like(x))
    np.testing.assert_allclose(loss, 4.5e76, rtol=1e-6)
    np.testing.assert_allclose(d, x)
    for value in (np.inf, np.nan):
        loss, d = functions.mean_squared_error(np.array([value, 1.0]), np.zeros(2))
        np.testing.assert_equal((loss, d[0], d[1]), (value, value, 1.0))
    assert functions.mean_squared_error(np.array([np.inf]), np.array([np.inf]))[0] != 0


INPUT, TARGET = np.zeros((5, 3, 4)), np.ones((5, 3, 4))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"input": INPUT.tolist()}, TypeError, "input is a list, expected a numpy.ndarray"),
        ({"input": INPUT.astype(int)}, TypeError, "input is int64, expected float32 or float64"),
        ({"input": np.ma.array(INPUT)}, TypeError, "input is a MaskedArray"),
        ({"input": np.array(1.0), "target": np.array(1.0)}, ValueError, "input has shape ()"),
        ({"target": None}, TypeError, "target is None"),
        ({"target": TARGET.astype("f4")}, TypeError, "target is float32, input is float64"),
        ({"target": TARGET[:1]}, ValueError, "target has shape (1, 3, 4), expected that of input"),
        ({"target": TARGET[..., :1]}, ValueError, "target has shape (5, 3, 1)"),
        ({"reduction": "no"}, ValueError, "reduction is 'no', expected 'mean', 'sum' or 'none'"),
        ({"lengths": [5, 3]}, ValueError, "lengths has shape (2,), expected (B,) = (3,)"),
        ({"lengths": [5, 3, 6]}, ValueError, "lengths[2] is 6"),
        ({"mask": np.ones(5, bool)}, ValueError, "mask has shape (5,), expected (5, 3)"),
        ({"mask": np.ones((5, 4), bool)}, ValueError, "mask has shape (5, 4), expected (5, 3)"),
        ({"mask": np.ones((5, 3, 1), bool)}, ValueError, "mask has shape (5, 3, 1), expected"),
        ({"mask": np.ones((5, 3))}, TypeError, "mask holds float64, expected bool"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_squared_error_refuses(change: dict[str, Any], error: Any, text: str) -> None:
    arguments = {"input": INPUT, "target": TARGET} | change
    refused(((), arguments), error, text, function="mean_squared_error")


# ---------------------------------------------------------------------------------- clipping


def gradients(dtype: Any) -> list[Array]:
    rng = np.random.default_rng(0)
    shapes = ((33,), (4, 5), (), (1, 0), (2, 3, 17))
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def exact_norm(grads: Any) -> float:
    """The norm of all elements, rounded once or twice; their squares must be in range."""
    return math.sqrt(math.fsum(float(v) ** 2 for g in grads for v in g.flat))


# 155 squares in a float64 sum, and a root: below 155 + 3 roundings even if all err one way.
NORM = 160 * U64


@both_backends
@both_types
@pytest.mark.parametrize("max_norm", [0, 1e-30, 0.25, 3, np.float32(7.5)], ids=str)
def test_clipping_keeps_the_direction(max_norm: Any, dtype: Any, functions: Any) -> None:
    grads, before = gradients(dtype), gradients(dtype)
    norm = functions.clip_grad_norm(grads, max_norm)
    assert type(norm) is float
    np.testing.assert_allclose(norm, exact_norm(before), rtol=NORM)
    for g, b in zip(grads, before, strict=True):  # one factor for all
        assert_same(g, np.asarray(b * dtype(float(max_norm) / norm)), "clipped")
    u = np.finfo(dtype).eps / 2
    np.testing.assert_allclose(exact_norm(grads), max_norm, rtol=3 * u + NORM, atol=1e-45)


@both_backends
@both_types
def test_what_is_short_enough_is_left_alone(dtype: Any, functions: Any) -> None:
    grads, before = gradients(dtype), gradients(dtype)
    for limit in (functions.clip_grad_norm(grads, 1e9), 1e300):
        functions.clip_grad_norm(grads, limit)
        for g, b in zip(grads, before, strict=True):
            assert_same(g, b, f"limit {limit}")
    exact = np.array([3, -4, 0.0, -0.0], dtype)
    assert functions.clip_grad_norm(exact, 5) == 5.0
    assert_same(exact, np.array([3, -4, 0.0, -0.0], dtype), "a norm of exactly max_norm")


@both_backends
def test_what_gradients_may_come_in(functions: Any) -> None:
    want = gradients(np.float32)
    norm = functions.clip_grad_norm(want, 1.0)
    for pack in (tuple, iter, lambda g: (a for a in g), lambda g: dict(enumerate(g)),
                 lambda g: dict(zip("abcde", g, strict=True)).values()):  # fmt: skip
        grads = gradients(np.float32)
        assert functions.clip_grad_norm(pack(grads), 1.0) == norm
        for g, w in zip(grads, want, strict=True):
            assert_same(g, w, "packed")
    mixed = [np.full(4, 2, np.float32), np.full(3, 4.0)]
    assert functions.clip_grad_norm(mixed, 4.0) == 8.0
    assert [g.tolist() for g in mixed] == [[1] * 4, [2] * 3]
    for layout in (strided, row_strided, negative, fortran, subclass):
        (w,) = want[4:]
        g = layout(gradients(np.float32)[4])
        functions.clip_grad_norm([*gradients(np.float32)[:4], g], 1.0)
        assert_same(np.ascontiguousarray(g), w, layout.__name__)


def test_clipping_the_gradients_of_layers() -> None:
    rnn, head = fastrnn.RNN(3, 8, rng=0), fastrnn.Linear(8, 2, rng=1)
    x = np.random.default_rng(2).standard_normal((6, 4, 3)).astype(np.float32)
    output, _, rnn_tape = rnn.forward(x)
    y, head_tape = head.forward(output)
    d_head = head.backward(head_tape, 50 * np.ones_like(y))
    d_rnn = rnn.backward(rnn_tape, d_head.x)
    norm = fastrnn.clip_grad_norm([d_rnn.flat_weights, d_head.flat_weights], 1.0)
    assert norm > 100
    parts = [*d_rnn.weights.values(), *d_head.weights.values()]
    np.testing.assert_allclose(exact_norm(parts), 1.0, rtol=1e-6)
    norm = exact_norm(parts[4:])
    np.testing.assert_allclose(fastrnn.clip_grad_norm(d_head.weights, 1e-3), norm)
    np.testing.assert_allclose(exact_norm([d_head.flat_weights]), 1e-3, rtol=1e-6)


@both_backends
@pytest.mark.parametrize(
    ("values", "norm"),
    [
        ([3e200, 4e200], 5e200),
        ([3e-200, 4e-200], 5e-200),
        ([3e-310, 4e-310], 5e-310),
        ([5e-324, 0.0], 5e-324),
        ([1e308, 1e308], math.sqrt(2) * 1e308),
        ([1e200, 1e-200], 1e200),
        ([0.0, -0.0], 0.0),
    ],
    ids=str,
)
def test_huge_and_tiny_gradients(values: Any, norm: float, functions: Any) -> None:
    # Squares leave the range of float64 long before norms do.
    g = np.array(values)
    got = functions.clip_grad_norm(g, norm / 2)
    np.testing.assert_allclose(got, norm, rtol=1e-13)
    np.testing.assert_allclose(g, np.array(values) * (0.5 if norm else 1), rtol=1e-12, atol=5e-324)
    g = np.array([3e38, 3e38], np.float32)
    np.testing.assert_allclose(functions.clip_grad_norm(g, 1.0), math.sqrt(2) * 3e38, rtol=1e-6)
    np.testing.assert_allclose(g, math.sqrt(0.5), rtol=1e-6)


@both_backends
@pytest.mark.parametrize(
    ("values", "norm"),
    [
        ([1, np.inf], np.inf),
        ([-np.inf, 1], np.inf),
        ([1, np.nan], np.nan),
        ([np.nan, np.inf], np.nan),
        ([1.7e308] * 4, np.inf),  # finite, but its norm is no float64
    ],
    ids=str,
)
def test_nothing_is_scaled_by_a_norm_that_is_no_number(
    values: Any, norm: float, functions: Any
) -> None:
    grads = [np.array(values), np.ones(3, np.float32)]
    np.testing.assert_equal(functions.clip_grad_norm(grads, 1.0), norm)
    assert_same(grads[0], np.array(values, np.float64), "values")
    assert_same(grads[1], np.ones(3, np.float32), "its neighbour")


@both_types
def test_clipping_on_every_instruction_set(dtype: Any) -> None:
    found = []
    for isa, threads in itertools.product(ISAS, (1, 3)):
        fastrnn.set_isa(isa)
        fastrnn.set_num_threads(threads)
        grads = gradients(dtype)
        norm = fastrnn.clip_grad_norm(grads, 1.0)
        found.append((norm.hex(), [g.tobytes() for g in grads]))
    assert all(each == found[0] for each in found)


def frozen() -> Array:
    a = np.full(3, 9.0)
    a.flags.writeable = False
    return a


def clip_refused(name: str, grads: Any, limit: Any, error: Any, text: str) -> None:
    if name == "clip_grad_norm":
        refused(((grads, limit), {}), error, text, function=name)
        return
    with pytest.raises(error) as caught:
        fastrnn.clip_grad_value(grads, limit)
    assert text in str(caught.value)


@pytest.mark.parametrize("name", ["clip_grad_norm", "clip_grad_value"])
@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (None, TypeError, "grads[1] is None, expected a numpy.ndarray"),
        ([9.0], TypeError, "grads[1] is a list"),
        (9.0, TypeError, "grads[1] is a float"),
        (np.full(3, 9), TypeError, "grads[1] is int64, expected float32 or float64"),
        (np.ma.array([9.0]), TypeError, "grads[1] is a MaskedArray"),
        (frozen(), ValueError, "grads[1] is read-only; it is changed in"),
        (np.broadcast_to(9.0, 3), ValueError, "grads[1] is read-only; it is changed in"),
        (np.full(3, 9.0, ">f8"), ValueError, "grads[1] is not in native byte order"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_nothing_is_clipped_before_all_is_checked(
    name: str, bad: Any, error: Any, text: str
) -> None:
    good = np.full(3, 9.0)
    clip_refused(name, [good, bad], 1.0, error, text)
    text = text.replace("grads[1]", "grads['bias']")
    clip_refused(name, {"weight": good, "bias": bad}, 1.0, error, text)
    assert good.tolist() == [9.0] * 3


@pytest.mark.parametrize("name", ["clip_grad_norm", "clip_grad_value"])
def test_clipping_refuses(name: str) -> None:
    limit = "max_norm" if name == "clip_grad_norm" else "limit"
    good = np.full(3, 9.0)
    for value, error, text in (
        (-1.0, ValueError, f"{limit} is -1.0, expected a finite number >= 0"),
        (math.inf, ValueError, f"{limit} is inf"),
        (math.nan, ValueError, f"{limit} is nan"),
        ("1", TypeError, f"{limit} is '1', expected a number"),
        (None, TypeError, f"{limit} is None"),
        (True, TypeError, f"{limit} is True"),
    ):
        clip_refused(name, [good], value, error, text)
    clip_refused(name, good.tolist(), 1.0, TypeError, "grads holds a float, expected arrays: write")
    clip_refused(name, "grads", 1.0, TypeError, "grads is a str, expected a list of arrays")
    clip_refused(name, 9.0, 1.0, TypeError, "grads is a float")
    clip_refused(name, frozen(), 1.0, ValueError, "grads is read-only")
    assert good.tolist() == [9.0] * 3


@both_types
def test_clipping_by_value(dtype: Any) -> None:
    values = [-7, 0.5, -0.0, 2, 2.5, np.inf, -np.inf, np.nan]
    for limit, want in (
        (2, [-2, 0.5, -0.0, 2, 2, 2, -2, np.nan]),
        (0, [0, 0, 0, 0, 0, 0, 0, np.nan]),
        (np.float32(2.25), [-2.25, 0.5, -0.0, 2, 2.25, 2.25, -2.25, np.nan]),
    ):
        grads = {"a": np.array(values, dtype), "b": np.array(9, dtype)}
        assert fastrnn.clip_grad_value(grads, limit) is None
        np.testing.assert_array_equal(grads["a"], np.array(want, dtype))
        assert grads["b"] == min(9, limit)
    finite = np.array(values[:5], dtype)
    fastrnn.clip_grad_value(finite, 1e300)  # which is no float32
    assert_same(finite, np.array(values[:5], dtype), "a limit beyond all of them")


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    for spec, dtype in itertools.product(SPECS[11::4], DTYPES):
        x, target, options = draw(spec, dtype, squared=True)
        a, b = (v.astype(np.float64) for v in only_counted(x, target, options))
        if a.size:
            t = torch.tensor(a, requires_grad=True)
            loss = torch.nn.functional.mse_loss(t, torch.tensor(b), reduction=spec.reduction)
            loss.backward()
            want = {"loss": np.array(loss.item()), "d_input": t.grad.numpy()}
            bound = {k: 2 * v for k, v in squared_error_bounds(x, target, options).items()}
            found = ratios(run(fastrnn, x, target, options), want, bound)
            assert max(found.values()) <= 1, (spec, found)
    for dtype, max_norm in itertools.product(DTYPES, (0.5, 2.0, 1e3)):
        grads, theirs = gradients(dtype), [torch.zeros(g.shape) for g in gradients(dtype)]
        for t, g in zip(theirs, gradients(dtype), strict=True):
            t.grad = torch.tensor(g).to(t.dtype)
        norm = fastrnn.clip_grad_norm(grads, max_norm)
        # torch scales by max_norm / (norm + 1e-6), in float32 here.
        tolerance = 1e-6 / norm + 200 * np.finfo(np.float32).eps
        want = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        np.testing.assert_allclose(norm, want.item(), rtol=tolerance)
        for g, t in zip(grads, theirs, strict=True):
            np.testing.assert_allclose(g, t.grad.numpy(), rtol=tolerance, atol=1e-7)
