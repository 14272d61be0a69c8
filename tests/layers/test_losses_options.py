"""Cross-entropy's options: weights, smoothing, soft targets, what does not count, reduction."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bit_checks import assert_same
from bounds import LAMBDA, Array, check, ratios
from grids import name_of
from memory_layouts import LAYOUTS
from refusals import refused
from test_losses import EXP_UNITS, LOG_UNITS, U64, assert_same_loss

import fastrnn
from fastrnn import reference

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)

both_types = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
both_backends = pytest.mark.parametrize("functions", [fastrnn, reference], ids=["own", "reference"])


class Spec(NamedTuple):
    T: int
    B: int
    C: int
    class_weight: bool = False
    sample_weight: str = ""  # "", "positions" or "rows"
    smoothing: float = 0.0
    soft: bool = False
    counting: str = ""  # of "lengths", "mask" and "ignore", those that are used
    reduction: str = "mean"

    def __str__(self) -> str:
        return "-".join(str(part) for part in self)


SIZES = ((1, 1, 1), (5, 3, 2), (4, 2, 7), (3, 4, 16), (7, 3, 17), (6, 5, 100))
OPTIONS = tuple(
    itertools.product(
        (False, True), ("", "positions", "rows"), (0.0, 0.1, 1.0), (False, True), range(4)
    )
)
SPECS = tuple(
    Spec(
        *SIZES[i % len(SIZES)], by_class, by_sample, smoothing, soft,
        ("", "lengths mask", "mask" if soft else "ignore", "lengths" if soft else "mask ignore")[k],
        ("mean", "sum", "none")[(i // 2 + k) % 3],
    )
    for i, (by_class, by_sample, smoothing, soft, k) in enumerate(OPTIONS)
)  # fmt: skip
SOME = SPECS[::5]


def draw(spec: Spec, dtype: Any) -> tuple[Array, Array, dict[str, Any]]:
    """logits (T, B, C), target and the keyword arguments."""
    rng = np.random.default_rng(spec[:3])
    shape = spec.T, spec.B
    logits = (3 * rng.standard_normal((*shape, spec.C))).astype(dtype)
    target: Array = rng.integers(0, spec.C, shape)
    if spec.soft:
        target = rng.random((*shape, spec.C)).astype(dtype)
        target[rng.random(target.shape) < 0.3] = 0
    options: dict[str, Any] = {"reduction": spec.reduction}
    if spec.class_weight:
        options["class_weight"] = rng.random(spec.C) + 0.1
        options["class_weight"][rng.random(spec.C) < 0.2] = 0
    if spec.sample_weight:
        size = shape if spec.sample_weight == "positions" else spec.B
        options["sample_weight"] = 2 * rng.random(size)
        options["sample_weight"][rng.random(size) < 0.2] = 0
    if spec.smoothing:
        options["label_smoothing"] = spec.smoothing
    if "lengths" in spec.counting:
        options["lengths"] = rng.integers(0, spec.T + 1, spec.B)
    if "mask" in spec.counting:
        options["mask"] = rng.random(shape) < 0.7
    if "ignore" in spec.counting:
        options["ignore_index"] = -100
        target[rng.random(shape) < 0.3] = -100
    return logits, target, options


def counted(target: Array, shape: tuple[int, int], options: dict[str, Any]) -> Array:
    """Which positions (T, B) count and have a weight."""
    counts = np.ones(shape, bool) & options.get("mask", True)
    if "lengths" in options:
        counts &= np.arange(shape[0])[:, None] < options["lengths"]
    if "ignore_index" in options:
        counts &= target != options["ignore_index"]
    return counts & (options.get("sample_weight", np.ones(shape)) > 0)


def weights_of(
    logits: Array, target: Array, options: dict[str, Any]
) -> tuple[Array, Array, Array, float]:
    """By the definition, in float64: q (n, C) and w (n,) of what counts, which those are; scale."""
    counts = counted(target, logits.shape[:2], options)
    C = logits.shape[-1]
    kept = target[counts]
    q = kept.astype(np.float64) if kept.ndim == 2 else np.eye(C)[kept]
    by_class = np.asarray(options.get("class_weight", np.ones(C)))
    epsilon = options.get("label_smoothing", 0.0)
    q = (q * (1 - epsilon) + epsilon / C) * by_class
    w = np.broadcast_to(options.get("sample_weight", 1.0), counts.shape)[counts]
    total = (w * by_class[kept] if kept.ndim == 1 else w).sum()
    if options["reduction"] != "mean":
        return q, w, counts, 1.0
    return q, w, counts, 1 / total if total else 0.0


def option_bounds(logits: Array, target: Array, options: dict[str, Any]) -> dict[str, Array]:
    """LAMBDA times the deviation of the loss, or the losses, and of the gradient of what counts.

    As cross_entropy_bounds, with q for the target: z = x - max, e = exp z, S = sum e, Q = sum q,

        loss = w (Q log S - sum q z),   d = scale w (e Q - q S) / S
    """
    u = float(np.finfo(logits.dtype).eps) / 2
    q, w, counts, scale = weights_of(logits, target, options)
    x = logits[counts].astype(np.float64)
    C = x.shape[1]
    z = x - x.max(axis=1, keepdims=True, initial=-np.inf)
    e = np.exp(z)
    v_e = (u * e) ** 2 * (z**2 + EXP_UNITS**2)
    S, Q = e.sum(1, keepdims=True), q.sum(1, keepdims=True)
    v_S = v_e.sum(1, keepdims=True) + U64**2 * C * ((e**2).sum(1, keepdims=True) + S**2)
    # Up to 4 roundings make a q, C a sum of them.
    v_Q = U64**2 * (C + 16) * ((q**2).sum(1, keepdims=True) + Q**2)
    # e Q - q S = e (Q - q) - q (S - e): of the errors of e_j and of the others.
    v_d = v_e * (Q - q) ** 2 + q**2 * (v_S - v_e) + e**2 * v_Q
    v_d += U64**2 * (20 * (q * S) ** 2 + 2 * (e * Q) ** 2)
    d = (e * Q - q * S) / S
    v_d = v_d / S**2 + d**2 * (u**2 + v_S / S**2 + 5 * U64**2)
    log_S, terms = np.log(S), q * z
    v_loss = v_Q * log_S**2 + Q**2 * (v_S / S**2 + (U64 * LOG_UNITS * log_S) ** 2)
    v_loss = v_loss[:, 0] + U64**2 * (C + 20) * ((terms**2).sum(1) + terms.sum(1) ** 2)
    losses = w * (Q * log_S - terms.sum(1, keepdims=True))[:, 0]
    v_loss = w**2 * v_loss + U64**2 * 3 * losses**2
    if options["reduction"] != "none":
        n = len(losses)
        v_loss = v_loss.sum() + U64**2 * ((n + 2) * ((losses**2).sum() + losses.sum() ** 2))
    lost = 4 * float(np.finfo(logits.dtype).tiny)  # e, or a product, may be flushed to zero
    return {
        "loss": LAMBDA * scale * np.sqrt(v_loss),
        "d_logits": LAMBDA * scale * w[:, None] * np.sqrt(v_d)
        + lost * scale * (1 + Q * w[:, None]),
    }


def run(functions: Any, logits: Array, target: Array, options: dict[str, Any]) -> dict[str, Array]:
    """The loss, or the losses of what counts, and the gradient of that; the rest of both is 0."""
    loss, d = functions.softmax_cross_entropy(logits, target, **options)
    assert (d.shape, d.dtype) == (logits.shape, logits.dtype)
    counts = counted(target, logits.shape[:2], options)
    assert not d[~counts].any()
    if options["reduction"] == "none":
        assert (loss.shape, loss.dtype) == (logits.shape[:2], np.float64)
        assert not loss[~counts].any()
        loss = loss[counts]
    else:
        assert type(loss) is float
    return {"loss": np.asarray(loss), "d_logits": d[counts]}


@both_types
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_agrees_with_reference(spec: Spec, dtype: Any) -> None:
    logits, target, options = draw(spec, dtype)
    wide = target.astype(np.float64) if spec.soft else target
    truth = run(reference, logits.astype(np.float64), wide, options)
    bound = option_bounds(logits, target, options)
    if dtype is np.float64:  # there the reference errs as much
        bound = {name: 2 * b for name, b in bound.items()}
    want = None
    for isa in ISAS:
        fastrnn.set_isa(isa)
        got = run(fastrnn, logits, target, options)
        for name, kind in (("loss", np.float64), ("d_logits", dtype)):
            label = f"{np.dtype(dtype)} weighted cross entropy {name}"
            check(*({label: r[name]} for r in (got, truth, bound)), kind, f"{spec} {isa}")
        if isa in PROMISED:
            want = want or got
            for name in want:
                assert_same(got[name], want[name], isa)


@pytest.mark.parametrize("soft", [False, True])
def test_bounds_are_not_blind(soft: bool) -> None:
    logits, target, options = draw(Spec(6, 5, 7, True, "positions", 0.1, soft, "mask"), np.float32)
    wide = target.astype(np.float64) if soft else target
    truth = run(reference, logits.astype(np.float64), wide, options)
    bound = option_bounds(logits, target, options)
    for name in ("class_weight", "sample_weight"):  # one of them half as heavy
        wrong = options | {name: options[name].copy()}
        heavy = options[name] * (options["mask"] if name == "sample_weight" else 1)
        wrong[name].flat[int(heavy.argmax())] *= 0.5
        found = ratios(run(fastrnn, logits, target, wrong), truth, bound)
        assert min(found.values()) > 1, (name, found)
    wrong = options | {"label_smoothing": 0.1001}
    found = ratios(run(fastrnn, logits, target, wrong), truth, bound)
    assert min(found.values()) > 1, found


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_reference_is_the_definition(spec: Spec) -> None:
    logits, target, options = draw(spec, np.float64)
    q, w, counts, scale = weights_of(logits, target, options)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -w * (q * log_p[counts]).sum(-1)
    got = run(reference, logits, target, options)
    want = losses if spec.reduction == "none" else losses.sum() * scale
    # Logits are below 20: sums of 100 terms, and of 30 losses, in float64.
    np.testing.assert_allclose(got["loss"], want, rtol=300 * U64, atol=20 * 300 * U64)


@pytest.mark.parametrize("spec", [s for s in SPECS if s.C < 100], ids=str)
def test_reference_gradients_are_finite_differences(spec: Spec) -> None:
    logits, target, options = draw(spec, np.float64)
    _, d = reference.softmax_cross_entropy(logits, target, **options)
    # Central differences err by eps^2 L''' / 6, |L'''| <= Q w <= 20 * 2, and by roundings of a
    # loss below 1e4, 1e-12, over eps.
    eps, tolerance = 1e-5, 40 * 1e-10 / 6 + 1e-12 / 1e-5
    for index in itertools.islice(np.ndindex(logits.shape), 60):
        sides = []
        for step in (eps, -eps):
            moved = logits.copy()
            moved[index] += step
            sides.append(np.sum(reference.softmax_cross_entropy(moved, target, **options)[0]))
        assert abs(d[index] - (sides[0] - sides[1]) / (2 * eps)) <= tolerance, index


# ----------------------------------------------------------------------------- the same bits


@both_types
@pytest.mark.parametrize("spec", SOME, ids=str)
@pytest.mark.quick
def test_threads(spec: Spec, dtype: Any) -> None:
    spec = spec._replace(T=60)
    logits, target, options = draw(spec, dtype)
    found = []
    for isa, threads in itertools.product(PROMISED, (1, 2, 3)):
        fastrnn.set_isa(isa)
        fastrnn.set_num_threads(threads)
        found.append(run(fastrnn, logits, target, options))
        for name in found[0]:
            assert_same(found[-1][name], found[0][name], f"{isa}, {threads} threads")


@both_types
@pytest.mark.parametrize("isa", PROMISED)
def test_options_that_change_nothing_keep_the_bits(isa: str, dtype: Any) -> None:
    fastrnn.set_isa(isa)
    for size, reduction in itertools.product(SIZES, ("mean", "sum")):
        logits, target, _ = draw(Spec(*size), dtype)
        plain = fastrnn.softmax_cross_entropy(logits, target, reduction=reduction)
        shape = logits.shape[:2]
        for options in (
            {"label_smoothing": 0}, {"ignore_index": -100}, {"class_weight": np.ones(size[2])},
            {"sample_weight": np.ones(shape)}, {"sample_weight": [1] * size[1]},
            {"mask": np.ones(shape, bool), "ignore_index": size[2]},
        ):  # fmt: skip
            got = fastrnn.softmax_cross_entropy(logits, target, reduction=reduction, **options)
            assert_same_loss(got, plain, str(options))
        losses, d = fastrnn.softmax_cross_entropy(logits, target, reduction="none")
        total = 0.0
        for loss in losses.ravel().tolist():  # in the order of memory
            total += loss
        if reduction == "sum":
            assert_same_loss((total, d), plain, "none")


@both_types
@pytest.mark.parametrize("functions", [fastrnn, reference])
def test_what_does_not_count_is_not_there(functions: Any, dtype: Any) -> None:
    for spec in SPECS:
        logits, target, options = draw(spec, dtype)
        counts = counted(target, logits.shape[:2], options)
        want = functions.softmax_cross_entropy(logits, target, **options)
        logits[~counts] = np.nan
        if not spec.soft:
            target[~counts & (target != -100)] = 2**40
        else:
            target[~counts] = np.inf
        got = functions.softmax_cross_entropy(logits, target, **options)
        assert_same(np.asarray(got[0]), np.asarray(want[0]), f"{spec}")
        assert_same(got[1], want[1], f"{spec}")


@both_types
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(layout: Any, dtype: Any) -> None:
    for spec in (Spec(6, 4, 5, True, "positions", 0.1, soft, "lengths") for soft in (False, True)):
        logits, target, options = draw(spec, dtype)
        want = fastrnn.softmax_cross_entropy(logits, target, **options)
        other = options | {
            "class_weight": np.repeat(options["class_weight"], 2)[::2],
            "sample_weight": np.asfortranarray(options["sample_weight"]),
        }
        soft = layout(target) if spec.soft else target
        got = fastrnn.softmax_cross_entropy(layout(logits), soft, **other)
        assert_same_loss(got, want, layout.__name__)
        lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in options.items()}
        assert_same_loss(fastrnn.softmax_cross_entropy(logits, target, **lists), want, "lists")


@both_types
def test_batch_first_is_a_transpose(dtype: Any) -> None:
    for spec in SPECS:
        logits, target, options = draw(spec, dtype)
        loss, d = fastrnn.softmax_cross_entropy(logits, target, **options)
        for name in ("mask", "sample_weight"):
            if np.ndim(options.get(name)) == 2:
                options[name] = options[name].T
        turned = np.swapaxes(logits, 0, 1), np.swapaxes(target, 0, 1)
        other, d_other = fastrnn.softmax_cross_entropy(*turned, batch_first=True, **options)
        # The weights, by whose sum a mean divides, come in another order.
        u = float(np.finfo(dtype).eps) / 2
        np.testing.assert_allclose(np.asarray(other).T, loss, rtol=400 * U64, atol=1e-300)
        np.testing.assert_allclose(np.swapaxes(d_other, 0, 1), d, rtol=2 * u + 40 * U64)


# ----------------------------------------------------------------------------- special values


@both_backends
@both_types
def test_nothing_counts(functions: Any, dtype: Any) -> None:
    logits, target = np.full((4, 2, 3), np.nan, dtype), np.full((4, 2), -100)
    finite = np.zeros((4, 2, 3), dtype)
    none = np.zeros((4, 2))
    calls: list[tuple[Array, Array, dict[str, Any]]] = [
        (logits, target, {"ignore_index": -100}),
        (logits, target, {"sample_weight": none}),
        (logits, target, {"sample_weight": np.zeros(2)}),
        (logits, target, {"ignore_index": -100, "class_weight": np.zeros(3)}),
        (logits, logits, {"sample_weight": none}),
        (logits, target * 0, {"class_weight": [0, 1, 1]}),
        (logits[:0], target[:0], {"class_weight": [0, 1, 1], "sample_weight": [1, 1]}),
    ]
    for reduction in ("mean", "sum", "none"):
        for x, t, options in calls:
            loss, d = functions.softmax_cross_entropy(x, t, reduction=reduction, **options)
            assert not np.any(loss)
            assert not d.any()
    # Targets whose classes have no weight have no mean, though smoothing gives other classes one.
    options = {"class_weight": [0, 1, 1], "label_smoothing": 0.5}
    for x in (finite, logits):
        loss, d = functions.softmax_cross_entropy(x, target * 0, **options)
        assert (loss, d.any()) == (0.0, False)
    loss, d = functions.softmax_cross_entropy(finite, target * 0, reduction="sum", **options)
    np.testing.assert_allclose(loss, 8 * 2 * 0.5 / 3 * math.log(3), rtol=1e-14)
    assert d.any()


@both_backends
@both_types
def test_a_class_without_a_part_adds_nothing(functions: Any, dtype: Any) -> None:
    x = np.array([0, 0, -np.inf], dtype)
    soft = np.array([0.5, 0.5, 0], dtype)
    loss, d = functions.softmax_cross_entropy(x, soft)
    np.testing.assert_allclose(loss, math.log(2), rtol=4 * U64)
    assert d.tolist() == [0, 0, 0]
    weights = {"class_weight": [1, 1, 0], "label_smoothing": 0.3}
    np.testing.assert_allclose(
        functions.softmax_cross_entropy(x, 1, **weights)[0], 0.9 * math.log(2)
    )
    assert functions.softmax_cross_entropy(x, 1, label_smoothing=0.3)[0] == math.inf
    assert functions.softmax_cross_entropy(x, np.array([0, 0.5, 0.5], dtype))[0] == math.inf
    for bad in (np.nan, np.inf):
        for target in (soft, np.zeros_like(soft)):
            loss, d = functions.softmax_cross_entropy(np.array([0, bad, 0], dtype), target)
            assert math.isnan(loss)
            assert np.isnan(d).all()


@both_types
def test_a_confident_row_keeps_its_digits(dtype: Any) -> None:
    # p - 1 would cancel; (e Q - q S) / S errs by the float64 sum alone.
    x, rest = np.array([20, 0, 0, 0], dtype), 3 * math.exp(-20)
    u = np.finfo(dtype).eps / 2
    for isa in ISAS:
        fastrnn.set_isa(isa)
        for functions in (fastrnn, reference):
            _, d = functions.softmax_cross_entropy(x, np.array([1, 0, 0, 0], dtype))
            tolerance = LAMBDA * (EXP_UNITS + 2) * u + 8 * U64 / rest
            np.testing.assert_allclose(d[0], -rest / (1 + rest), rtol=tolerance)


@both_backends
def test_one_position(functions: Any) -> None:
    x = np.array([1.0, 2, 3])
    plain, d = functions.softmax_cross_entropy(x, 2)
    options = {"sample_weight": 2.0, "class_weight": [1, 1, 3], "ignore_index": -100}
    loss, d_sum = functions.softmax_cross_entropy(x, 2, reduction="sum", **options)
    np.testing.assert_allclose(loss, 6 * plain, rtol=4 * U64)
    np.testing.assert_allclose(d_sum, 6 * d, rtol=4 * U64)
    loss, d_mean = functions.softmax_cross_entropy(x, 2, **options)
    np.testing.assert_allclose(loss, plain, rtol=4 * U64)
    np.testing.assert_allclose(d_mean, d, rtol=4 * U64)
    losses, _ = functions.softmax_cross_entropy(x, 2, reduction="none")
    assert (losses.shape, losses.item()) == ((), plain)
    loss, d = functions.softmax_cross_entropy(x, -100, **options)
    assert (loss, d.any()) == (0.0, False)


# ----------------------------------------------------------------------------- bad input

LOGITS, TARGET = np.zeros((5, 3, 4)), np.zeros((5, 3), int)
SOFT, ON = np.full((5, 3, 4), 0.25), np.ones((5, 3))
AWAY = np.where(np.arange(15).reshape(5, 3) == 7, -100, 0)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"target": AWAY}, ValueError, "target[2, 1] is -100, expected 0 <= index < C = 4: if these"
         " positions do not count pass ignore_index=-100, or lengths="),
        ({"target": AWAY, "ignore_index": -1}, ValueError, "either pass mask=target != -100"),
        ({"target": AWAY, "ignore_index": -1, "mask": ON > 0}, ValueError,
         "either pass mask=(target != -100) & mask"),
        ({"ignore_index": 1.5}, TypeError, "ignore_index is 1.5, expected an integer"),
        ({"ignore_index": True}, TypeError, "ignore_index is True, expected an integer"),
        ({"target": SOFT, "ignore_index": -100}, ValueError, "ignore_index is -100, expected None"),
        ({"target": SOFT.astype("f4")}, TypeError, "target is float32, logits is float64: pass ta"),
        ({"target": SOFT.astype("f2")}, TypeError, "target is float16, logits is float64"),
        ({"target": SOFT[:4]}, ValueError, "target has shape (4, 3, 4), expected that of logits"),
        ({"target": SOFT[..., :1]}, ValueError, "target has shape (5, 3, 1), expected that of"),
        ({"target": SOFT.swapaxes(0, 1)}, ValueError, ": pass target.swapaxes(0, 1)"),
        ({"target": SOFT.tolist()}, TypeError, "target is a list, expected a numpy.ndarray: pass"),
        ({"target": np.ma.array(SOFT)}, TypeError, "target is a MaskedArray"),
        ({"class_weight": np.ones(3)}, ValueError, "class_weight has shape (3,), expected (C,) ="),
        ({"class_weight": 1.0}, ValueError, "class_weight has shape (), expected (C,) = (4,)"),
        ({"class_weight": [1, 1, -1, 1]}, ValueError, "class_weight[2] is -1, expected a finite"),
        ({"class_weight": [1, np.nan, 1, 1]}, ValueError, "class_weight[1] is nan, expected a fin"),
        ({"class_weight": [1, np.inf, 1, 1]}, ValueError, "class_weight[1] is inf"),
        ({"class_weight": "1111"}, TypeError, "class_weight holds <U4, expected shape (4,)"),
        ({"class_weight": {0: 1.0}}, TypeError, "class_weight is a dict, expected 4 numbers"),
        ({"class_weight": [1j] * 4}, TypeError, "class_weight holds complex128"),
        ({"sample_weight": np.ones(5)}, ValueError, "sample_weight has shape (5,), expected (5, 3) "
         "or (B,) = (3,)"),
        ({"sample_weight": np.ones(5), "batch_first": True, "class_weight": -ON[0]}, ValueError,
         "class_weight[0] is -1.0"),
        ({"sample_weight": ON.T}, ValueError, ": pass sample_weight.T"),
        ({"sample_weight": 2.0}, ValueError, "sample_weight has shape (), expected (5, 3)"),
        ({"sample_weight": SOFT}, ValueError, "sample_weight has shape (5, 3, 4), expected (5, 3)"),
        ({"sample_weight": -ON}, ValueError, "sample_weight[0, 0] is -1.0, expected a finite"),
        ({"sample_weight": ON * np.nan}, ValueError, "sample_weight[0, 0] is nan"),
        ({"sample_weight": ON > 0}, TypeError, "sample_weight holds bool, expected numbers of"),
        ({"sample_weight": np.ma.array(ON)}, TypeError, "sample_weight is a MaskedArray"),
        ({"sample_weight": ON * 1.7e308}, ValueError, "the sum of all weights is inf"),
        ({"sample_weight": ON * 1e200, "class_weight": [1e200, 1, 1, 1]}, ValueError,
         "the sum of all weights is inf"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5, expected 0 <= label_"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing is -0.1"),
        ({"label_smoothing": np.nan}, ValueError, "label_smoothing is nan"),
        ({"label_smoothing": None}, TypeError, "label_smoothing is None, expected a number"),
        ({"label_smoothing": [0.1]}, TypeError, "label_smoothing is [0.1], expected a number"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_refuses(change: dict[str, Any], error: Any, text: str) -> None:
    arguments = {"logits": LOGITS, "target": TARGET} | change
    refused(((), arguments), error, text, function="softmax_cross_entropy")
