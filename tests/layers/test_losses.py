"""The losses: within derived bounds of the reference, special values, the same bits, arguments."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bit_checks import assert_same
from bounds import LAMBDA, Array, check, ratios
from grids import grid, name_of
from memory_layouts import LAYOUTS
from refusals import refused

import fastrnn
from fastrnn import _core, reference

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)
CLASSES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1000)
ROWS = (0, 1, 2, 5, 300)
COUNTING = ("all", "lengths", "mask", "both")
U64 = 2.0**-53

both_types = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
both_backends = pytest.mark.parametrize("backend", ["compiled", "reference"])
each_isa = pytest.mark.parametrize("isa", PROMISED)


class Spec(NamedTuple):
    N: int  # positions in all
    C: int
    counting: str = "all"
    reduction: str = "mean"

    def __str__(self) -> str:
        return "N{}-C{}-{}-{}".format(*self)


SPECS = tuple(
    Spec(N, C, COUNTING[(i + j) % 4], ("mean", "sum")[(i // 2 + j) % 2])
    for (i, N), (j, C) in itertools.product(enumerate(ROWS), enumerate(CLASSES))
)
LARGE = (Spec(37, 3000), Spec(1200, 17, "both", "sum"), Spec(600, 33, "lengths"))


def draw(spec: Spec, dtype: Any, squared: bool = False) -> tuple[Array, Array, dict[str, Any]]:
    """logits (T, B, C), or (N, C) where all count; target; the keyword arguments.

    For mean_squared_error, `squared`, target is of the shape of logits.
    """
    rng = np.random.default_rng(spec[:2])
    B = 1 if spec.counting == "all" or spec.N < 4 else 4 if spec.N % 4 == 0 else spec.N
    shape = (spec.N // B, B)
    logits = (3 * rng.standard_normal((*shape, spec.C))).astype(dtype)
    target = rng.integers(0, spec.C, shape)
    if squared:
        target = rng.standard_normal(logits.shape).astype(dtype)
    options: dict[str, Any] = {"reduction": spec.reduction}
    if spec.counting in ("lengths", "both"):
        options["lengths"] = rng.integers(0, shape[0] + 1, B)
    if spec.counting in ("mask", "both"):
        options["mask"] = rng.random(shape) < 0.7
    # What does not count may hold anything.
    out = ~counted(shape, options)
    logits[out], target[out] = np.nan, (np.inf if squared else -100)
    if not squared:
        target[out & (rng.random(shape) < 0.5)] = 2**62
    if spec.counting == "all":
        logits, target = logits.reshape(spec.N, spec.C), target.reshape(spec.N, *target.shape[2:])
    return logits, target, options


def counted(shape: tuple[int, int], options: dict[str, Any]) -> Array:
    """Which positions (T, B) count."""
    counts = np.ones(shape, bool)
    if "lengths" in options:
        counts &= np.arange(shape[0])[:, None] < options["lengths"]
    return counts & options.get("mask", True)


def only_counted(logits: Array, target: Array, options: dict[str, Any]) -> tuple[Array, Array]:
    """The positions that count, in order."""
    if set(options) == {"reduction"}:
        return logits, target
    counts = counted(logits.shape[:2], options)
    return logits[counts], target[counts]


# ------------------------------------------------------------------------------ cross-entropy

# exp is within 2 ULP, and one ULP is at most 2u of the value; the logarithm is float64, within 4.
EXP_UNITS, LOG_UNITS = 4.0, 8.0


def cross_entropy_bounds(logits: Array, target: Array, options: dict[str, Any]) -> dict[str, Array]:
    """LAMBDA times the deviation of loss and of the gradient of what counts, by bounds.py's rules.

    With z = x - max (one rounding: error u z, which exp turns into the relative error u |z|),
    e = exp z, and everything from S = sum e on in float64, but for the factor scale / S and the
    product, or the rounding of the target's gradient, in the type of x.
    """
    u = float(np.finfo(logits.dtype).eps) / 2
    x, t = only_counted(logits.astype(np.float64), target, options)
    n, C = x.shape
    scale = 1 / max(n, 1) if options["reduction"] == "mean" else 1.0
    z = x - x.max(axis=1, keepdims=True, initial=-np.inf)
    e, right = np.exp(z), np.arange(C) == t[:, None]
    v_e = (u * e) ** 2 * (z**2 + EXP_UNITS**2)
    S, R = e.sum(1, keepdims=True), np.where(right, 0.0, e).sum(1, keepdims=True)  # R = S - e_t
    adding = U64**2 * C * ((e**2).sum(1, keepdims=True) + S**2)
    v_S = v_e.sum(1, keepdims=True) + adding
    v_R = np.where(right, 0.0, v_e).sum(1, keepdims=True) + adding + (U64 * R) ** 2
    # d_j = e_j scale / S and d_t = -R scale / S; three float64 roundings each, two of the type.
    rounding = 2 * u**2 + 3 * U64**2
    p, r = e / S, R / S
    v_d = np.where(right, v_R / S**2 + r**2 * v_S / S**2, v_e / S**2 + p**2 * v_S / S**2)
    v_d += np.where(right, r, p) ** 2 * rounding
    at_target = z[np.arange(n), t]
    losses = np.log(S[:, 0]) - at_target
    v_losses = v_S[:, 0] / S[:, 0] ** 2 + U64**2 * (
        (LOG_UNITS * np.log(S[:, 0])) ** 2 + at_target**2 + losses**2
    )
    v_loss = v_losses.sum() + U64**2 * (n * ((losses**2).sum() + losses.sum() ** 2))
    v_loss += 2 * (U64 * losses.sum()) ** 2  # scale, and the product with it
    lost = 4 * float(np.finfo(logits.dtype).tiny)  # e_j, and the product, may be flushed to zero
    return {
        "loss": np.array(LAMBDA * scale * np.sqrt(v_loss)),
        "d_logits": LAMBDA * scale * np.sqrt(v_d) + lost,
    }


def run(functions: Any, logits: Array, target: Any, options: dict[str, Any]) -> dict[str, Array]:
    """The loss, and the gradient of what counts; the rest of it is zero."""
    loss, d = functions.softmax_cross_entropy(logits, target, **options)
    assert type(loss) is float
    assert d.shape == logits.shape
    assert d.dtype == logits.dtype
    kept, _ = only_counted(d, target, options)
    assert np.count_nonzero(d) == np.count_nonzero(kept)
    return {"loss": np.array(loss), "d_logits": kept}


def compare(got: Any, want: Any, bound: Any, dtype: Any, where: str) -> None:
    """bounds.check; a loss is float64 whatever the type of the logits."""
    for name, kind in (("loss", np.float64), ("d_logits", dtype)):
        label = f"{np.dtype(dtype)} cross entropy {name}"
        check(*({label: r[name]} for r in (got, want, bound)), kind, where)


@grid("spec, dtype", SPECS + LARGE, DTYPES, once=True)
def test_cross_entropy_agrees_with_reference(spec: Spec, dtype: Any) -> None:
    logits, target, options = draw(spec, dtype)
    truth = run(reference, logits.astype(np.float64), target, options)
    bound = cross_entropy_bounds(logits, target, options)
    if dtype is np.float64:  # there the reference errs as much
        bound = {name: 2 * b for name, b in bound.items()}
    for isa in ISAS:
        fastrnn.set_isa(isa)
        compare(run(fastrnn, logits, target, options), truth, bound, dtype, f"{spec} {isa}")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("spec", [Spec(40, 9), Spec(300, 100, "both", "sum")], ids=str)
def test_cross_entropy_bounds_are_neither_slack_nor_blind(spec: Spec, isa: str) -> None:
    fastrnn.set_isa(isa)
    logits, target, options = draw(spec, np.float32)
    truth = run(reference, logits.astype(np.float64), target, options)
    bound = cross_entropy_bounds(logits, target, options)
    found = ratios(run(fastrnn, logits, target, options), truth, bound)
    assert found["d_logits"] > 0.02, found
    # A loss is one number, which may be right by chance, so here are those of 40 rows alone. (exp
    # deviates by a tenth of its limit, and of that LAMBDA is seven.)
    rows, targets = only_counted(logits, target, options)
    alone = []
    for one in zip(rows[:40, None], targets[:40, None], strict=True):
        want = run(reference, one[0].astype(np.float64), one[1], {"reduction": "sum"})
        limit = cross_entropy_bounds(*one, {"reduction": "sum"})
        alone.append(ratios(run(fastrnn, *one, {"reduction": "sum"}), want, limit)["loss"])
    assert max(alone) > 0.015, alone
    # One exponential of median size left out of one sum, that of the position that comes last.
    x, t = only_counted(logits.astype(np.float64), target, options)
    e = np.exp(x[-1] - x[-1].max())
    part = np.median(np.delete(e, t[-1])) / e.sum()
    scale = 1 / len(x) if spec.reduction == "mean" else 1.0
    wrong = {"loss": truth["loss"] + scale * np.log1p(-part), "d_logits": truth["d_logits"].copy()}
    wrong["d_logits"][-1] /= 1 - part
    found = ratios(wrong, truth, bound)
    assert min(found.values()) > 1.0, found


@pytest.mark.parametrize("counting", COUNTING)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reference_gradients_are_finite_differences(counting: str, reduction: str) -> None:
    for name, squared in (("softmax_cross_entropy", False), ("mean_squared_error", True)):
        x, target, options = draw(Spec(8, 5, counting, reduction), np.float64, squared)
        function = getattr(reference, name)
        _, d = function(x, target, **options)
        # Central differences err by eps^2 L''' / 6, |L'''| <= 1, and by roundings of a loss below
        # 100, 1.1e-14 a term, over eps: 2e-11 + 8 * 5 * 1.1e-14 / 1e-5 = 5e-8 at the very worst.
        eps, tolerance = 1e-5, 5e-8
        for index in np.ndindex(x.shape):
            sides = []
            for step in (eps, -eps):
                moved = x.copy()
                moved[index] += step
                sides.append(function(moved, target, **options)[0])
            assert abs(d[index] - (sides[0] - sides[1]) / (2 * eps)) <= tolerance, (name, index)


BIG, INF, NAN = 1e30, np.inf, np.nan


@pytest.mark.parametrize(
    ("row", "target", "loss", "gradient"),
    [
        ([BIG, 0, -BIG], 0, 0.0, [0, 0, 0]),
        ([BIG, 0, -BIG], 1, BIG, [1, -1, 0]),
        ([-3e38, 3e38], 0, 6e38, [-1, 1]),  # their difference is no float32
        ([0, 0, -INF], 0, math.log(2), [-0.5, 0.5, 0]),
        ([0, 0, -INF], 2, INF, [0.5, 0.5, -1]),
        ([-INF, 5, -INF], 1, 0.0, [0, 0, 0]),
        ([7, 7, 7, 7], 3, math.log(4), [0.25, 0.25, 0.25, -0.75]),
        ([-BIG, -BIG], 0, math.log(2), [-0.5, 0.5]),
        ([BIG], 0, 0.0, [0]),
        ([INF, 0, 0], 0, NAN, None),
        ([0, INF, 0], 0, NAN, None),
        ([0, 0, NAN], 0, NAN, None),
        ([NAN, 0, 0], 2, NAN, None),
        ([-INF, -INF], 0, NAN, None),
    ],
    ids=str,
)
@both_types
def test_extreme_logits(row: Any, target: int, loss: float, gradient: Any, dtype: Any) -> None:
    fine = np.zeros(len(row))
    logits = np.array([fine, row, fine], dtype)
    for functions, isa in [(reference, ISAS[0]), *((fastrnn, isa) for isa in ISAS)]:
        fastrnn.set_isa(isa)
        got, d = functions.softmax_cross_entropy(logits[1], target)
        np.testing.assert_allclose(got, loss, rtol=np.finfo(dtype).eps)
        if gradient is None:
            assert np.isnan(d).all()
        else:
            np.testing.assert_allclose(d, gradient, rtol=0, atol=2 * np.finfo(dtype).eps)
        # It stays in its row.
        _, beside = functions.softmax_cross_entropy(logits, [target] * 3, reduction="sum")
        _, alone = functions.softmax_cross_entropy(logits[[0, 0]], [target] * 2, reduction="sum")
        assert_same(beside[::2], alone, f"beside {row}")


@both_types
@pytest.mark.parametrize("lead", [5, 10, 14, 18])
def test_a_confident_row_keeps_its_digits(lead: float, dtype: Any) -> None:
    # p_t - 1 would cancel; -(S - e_t) / S errs only by the float64 sum: u64 / (S - e_t), relative.
    logits = np.array([lead, 0, 0, 0], dtype)
    rest = 3 * math.exp(-lead)
    for isa in ISAS:
        fastrnn.set_isa(isa)
        for functions in (fastrnn, reference):
            loss, d = functions.softmax_cross_entropy(logits, 0)
            u = np.finfo(dtype).eps / 2
            tolerance = LAMBDA * (EXP_UNITS + 2) * u + 4 * U64 / rest
            np.testing.assert_allclose(d[0], -rest / (1 + rest), rtol=tolerance)
            np.testing.assert_allclose(loss, math.log1p(rest), rtol=tolerance)
            np.testing.assert_allclose(d.astype(float).sum(), 0, atol=8 * u * rest + 4 * U64)


@both_types
def test_the_logarithm(dtype: Any) -> None:  # S is the integer C; 2 ULP beside math.log's 1
    for C in (*range(1, 70), 127, 128, 181, 182, 255, 256, 1000, 4095, 4096, 4097):
        loss, _ = fastrnn.softmax_cross_entropy(np.zeros(C, dtype), C - 1)
        assert abs(loss - math.log(C)) <= 2 * math.ulp(math.log(C)), C


# ----------------------------------------------------------------------------- the same bits


def assert_same_loss(got: Any, want: Any, what: str) -> None:
    assert got[0].hex() == want[0].hex(), what
    assert_same(got[1], want[1], what)


@both_types
@pytest.mark.parametrize("spec", [*SPECS[::3], *LARGE], ids=str)
@pytest.mark.quick
def test_threads_and_instruction_sets(spec: Spec, dtype: Any) -> None:
    logits, target, options = draw(spec, dtype)
    found = []
    for isa, threads in itertools.product(PROMISED, (1, 2, 3, 5)):
        fastrnn.set_isa(isa)
        fastrnn.set_num_threads(threads)
        before = _core.teams_run()
        found.append(fastrnn.softmax_cross_entropy(logits, target, **options))
        assert_same_loss(found[-1], found[0], f"{isa}, {threads} threads")
        if threads > 1 and spec.N > 1 and _core.build_info()["openmp"]:
            assert _core.teams_run() > before


@each_isa
@both_types
@pytest.mark.parametrize("C", [3, 17, 100])
def test_rows_in_any_batch_and_order(C: int, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    logits, target, _ = draw(Spec(40, C), dtype)
    _, whole = fastrnn.softmax_cross_entropy(logits, target, reduction="sum")
    batches = [[n] for n in range(40)] + [list(range(n)) for n in (2, 3, 7)]
    for rows in [*batches, np.random.default_rng(1).permutation(40).tolist()]:
        _, d = fastrnn.softmax_cross_entropy(logits[rows], target[rows], reduction="sum")
        assert_same(d, whole[rows], f"rows {rows}")
    for n in range(40):  # and without any leading axis
        _, d = fastrnn.softmax_cross_entropy(logits[n], int(target[n]), reduction="sum")
        assert_same(d, whole[n], f"row {n}")


@both_types
@pytest.mark.parametrize("spec", [Spec(300, 9, c, r) for c in COUNTING for r in ("mean", "sum")])
def test_what_does_not_count_is_not_there(spec: Spec, dtype: Any) -> None:
    for name, squared in (("softmax_cross_entropy", False), ("mean_squared_error", True)):
        x, target, options = draw(spec, dtype, squared)
        compact = only_counted(x, target, options)
        for functions in (fastrnn, reference):
            function = getattr(functions, name)
            loss, d = function(x, target, **options)
            want = function(*compact, reduction=spec.reduction)
            kept, _ = only_counted(d, target, options)
            assert_same(kept, want[1], f"{spec}")
            if functions is fastrnn and not squared:  # zeros between the summands change nothing
                assert loss.hex() == want[0].hex()
            np.testing.assert_allclose(loss, want[0], rtol=1e-14)
            # One sequence without a batch axis; lengths and the mask it amounts to.
            if "lengths" in options:
                one, length = (x[:, 1], target[:, 1]), int(options["lengths"][1])
                also = options["mask"][:, 1] if "mask" in options else np.ones(len(x), bool)
                by_mask = function(*one, mask=also & (np.arange(len(x)) < length))
                for lengths in (length, [length]):
                    got = function(*one, lengths=lengths, mask=also)
                    assert_same_loss(got, by_mask, f"{spec}")


@both_backends
@both_types
def test_nothing_counts(dtype: Any, backend: str) -> None:
    logits = np.full((4, 2, 3), np.nan, dtype)
    target = np.full((4, 2), -1)
    with fastrnn.backend(backend):
        for options in ({"lengths": [0, 0]}, {"mask": np.zeros((4, 2), bool)}):
            for reduction in ("mean", "sum"):
                both = options | {"reduction": reduction}
                loss, d = fastrnn.softmax_cross_entropy(logits, target, **both)
                assert (loss, d.any()) == (0.0, False)
                loss, d = fastrnn.mean_squared_error(logits, logits, **both)
                assert (loss, d.any()) == (0.0, False)
        assert fastrnn.softmax_cross_entropy(logits[:0], np.zeros((0, 2), int))[0] == 0.0
        assert fastrnn.mean_squared_error(logits[:0], logits[:0])[0] == 0.0


@both_types
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(layout: Any, dtype: Any) -> None:
    for C in (5, 1):
        x, target, options = draw(Spec(12, C, "both"), dtype)
        x[np.isnan(x)] = 7
        kept = target.copy()
        want = fastrnn.softmax_cross_entropy(x, target, **options)
        strided = np.repeat(target, 2, axis=0)[::2]
        other = options | {"mask": np.repeat(options["mask"], 2, axis=1)[:, ::2]}
        got = fastrnn.softmax_cross_entropy(layout(x), strided, **other)
        assert_same_loss(got, want, layout.__name__)
        assert type(got[1]) is np.ndarray
        lists = {k: v if k == "reduction" else v.tolist() for k, v in options.items()}
        got = fastrnn.softmax_cross_entropy(x, target.tolist(), **lists)
        assert_same_loss(got, want, "lists")
        assert np.array_equal(target, kept)
        wide = np.broadcast_to(x[:1, :1], x.shape)
        want = fastrnn.softmax_cross_entropy(wide.copy(), target, **options)
        assert_same_loss(fastrnn.softmax_cross_entropy(wide, target, **options), want, "broadcast")


@each_isa
@both_types
@pytest.mark.parametrize("C", [1, 3, 16, 17, 100])
def test_the_order_of_every_sum(C: int, dtype: Any, isa: str) -> None:
    # 16 float64 chains of every 16th exponential, added one after the other.
    fastrnn.set_isa(isa)
    logits, target, _ = draw(Spec(5, C), dtype)
    loss, d = fastrnn.softmax_cross_entropy(logits, target)
    losses = 0.0
    for x, t, got in zip(logits, target, d, strict=True):
        z = x - x.max()
        e = np.empty_like(z)
        _core.exp(z, e)
        S = 0.0
        for c in range(min(C, 16)):
            part = 0.0
            for value in e[c::16].tolist():
                part += value
            S += part
        want = e * dtype((1 / 5) / S)
        want[t] = dtype(-(S - float(e[t])) / S * (1 / 5))
        assert_same(got, want, "in the documented order")
        losses += math.log(S) + (float(x.max()) - float(x[t]))
    assert abs(loss - losses / 5) <= 1e-14 * abs(loss)


# -------------------------------------------------------------------------------- bad input

LOGITS, TARGET = np.zeros((5, 3, 4)), np.zeros((5, 3), int)
ON = np.ones((5, 3), bool)
ONE: dict[str, Any] = {"logits": LOGITS[0, 0], "target": 1}


def at(index: Any, value: Any) -> Array:
    """TARGET with another value at one place."""
    target = TARGET.astype(np.asarray(value).dtype)
    target[index] = value
    return target


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"logits": LOGITS.tolist()}, TypeError, "logits is a list, expected a numpy.ndarray"),
        ({"logits": None}, TypeError, "logits is None"),
        ({"logits": np.ma.array(LOGITS)}, TypeError, "logits is a MaskedArray"),
        ({"logits": LOGITS.astype(int)}, TypeError, "logits is int64, expected float32 or float64"),
        ({"logits": np.array(1.0)}, ValueError, "logits has shape (), expected (..., C) with C >="),
        ({"logits": LOGITS[..., :0]}, ValueError, "logits has shape (5, 3, 0), expected (..., C)"),
        ({"target": TARGET[:4]}, ValueError, "target has shape (4, 3), expected (5, 3)"),
        ({"target": TARGET.ravel()}, ValueError, "target has shape (15,), expected (5, 3)"),
        ({"target": 0}, ValueError, "target has shape (), expected (5, 3)"),
        (
            {"target": TARGET.astype(float)},
            TypeError,
            "target holds float64, expected the integers of classes: pass target.ast",
        ),
        ({"target": ON}, TypeError, "target holds bool, expected the integers of classes"),
        ({"target": None}, TypeError, "target is None, expected the integers of classes"),
        ({"target": np.ma.array(TARGET)}, TypeError, "target is a MaskedArray"),
        ({"target": [[0], [1, 2]]}, ValueError, "target is ragged"),
        ({"target": at((2, 1), 4)}, ValueError, "target[2, 1] is 4, expected 0 <= index < C = 4"),
        ({"target": at((2, 1), -100)}, ValueError, "target[2, 1] is -100"),
        ({"target": at((0, 2), np.uint64(2**63))}, ValueError, "expected"),
        ({"target": at((2, 1), -100), "mask": ON}, ValueError, "target[2, 1] is -100"),
        ({"reduction": "no"}, ValueError, "reduction is 'no', expected 'mean', 'sum' or 'none'"),
        ({"reduction": None}, TypeError, "reduction is None, expected 'mean', 'sum' or 'none'"),
        ({"lengths": [5, 3]}, ValueError, "lengths has shape (2,), expected (B,) = (3,)"),
        ({"lengths": 5}, ValueError, "lengths has shape ()"),
        (ONE | {"lengths": 1}, ValueError, "lengths is given, but there is no time axis"),
        (ONE | {"target": [1]}, ValueError, "target has shape (1,), expected ()"),
        ({"lengths": [5, 6, 0]}, ValueError, "lengths[1] is 6, expected 0 <= length <= T = 5"),
        ({"lengths": [5.0, 3.0, 0.0]}, TypeError, "lengths holds float64"),
        ({"mask": ON.T}, ValueError, "mask has shape (3, 5), expected (5, 3)"),
        ({"mask": ON[:, 0]}, ValueError, "mask has shape (5,), expected (5, 3)"),
        ({"mask": np.ones((5, 3, 4), bool)}, ValueError, "mask has shape (5, 3, 4), expected"),
        ({"mask": True}, ValueError, "mask has shape (), expected (5, 3)"),
        ({"mask": TARGET}, TypeError, "mask holds int64, expected bool: pass mask.astype(bool)"),
        ({"mask": np.ma.array(ON)}, TypeError, "mask is a MaskedArray"),
        ({"mask": [[True], [True, False]]}, ValueError, "mask is ragged"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_cross_entropy_refuses(change: dict[str, Any], error: Any, text: str) -> None:
    arguments = {"logits": LOGITS, "target": TARGET} | change
    refused(((), arguments), error, text, function="softmax_cross_entropy")


@both_backends
def test_any_integers_are_targets(backend: str) -> None:
    logits, target, _ = draw(Spec(12, 5), np.float64)
    with fastrnn.backend(backend):
        want = fastrnn.softmax_cross_entropy(logits, target)
        for code in ("b", "B", "h", "I", "q", "Q", ">i4", "<u8"):
            assert_same_loss(fastrnn.softmax_cross_entropy(logits, target.astype(code)), want, code)
        # Where nothing counts, the largest numbers of 64 bits will do too.
        huge, off = np.full(12, 2**63 - 1), np.zeros(12, bool)
        assert fastrnn.softmax_cross_entropy(logits, huge, mask=off)[0] == 0.0


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    for spec, dtype in itertools.product((*SPECS[13::5], *LARGE), DTYPES):
        logits, target, options = draw(spec, dtype)
        bound = cross_entropy_bounds(logits, target, options)
        kept, counts = only_counted(logits, target, options)
        if not len(counts):
            continue  # there torch's mean is NaN
        ignored = target.ravel().copy()
        if spec.counting != "all":
            ignored[~counted(target.shape, options).ravel()] = -100
        x = torch.tensor(logits.reshape(-1, spec.C).astype(np.float64), requires_grad=True)
        loss = torch.nn.functional.cross_entropy(
            x, torch.tensor(ignored), ignore_index=-100, reduction=spec.reduction
        )
        loss.backward()
        scale = 1 / len(kept) if spec.reduction == "mean" else 1.0
        # torch in float64 with ignored targets for a mask; its p_t - 1 cancels: u64 more.
        bound = {k: 2 * b + 8 * U64 * scale for k, b in bound.items()}
        d, _ = only_counted(x.grad.numpy().reshape(logits.shape), target, options)
        want = {"loss": np.array(loss.item()), "d_logits": d}
        for isa in ISAS:
            fastrnn.set_isa(isa)
            compare(run(fastrnn, logits, target, options), want, bound, dtype, f"{spec} torch")
