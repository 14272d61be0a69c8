"""Losses that are sums over elements: squared with weights, absolute, Huber, binary."""

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
from test_losses import EXP_UNITS, U64, assert_same_loss

import fastrnn
from fastrnn import reference

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)
DELTA = 0.7

# With the options that each has alone.
LOSSES: dict[str, dict[str, Any]] = {
    "mean_squared_error": {},
    "l1_loss": {},
    "huber_loss": {"delta": DELTA},
    "binary_cross_entropy_with_logits": {"pos_weight": True},
}

both_types = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
both_backends = pytest.mark.parametrize("functions", [fastrnn, reference], ids=["own", "reference"])
each_loss = pytest.mark.parametrize("name", LOSSES)


class Spec(NamedTuple):
    T: int
    B: int
    O: int
    weighting: str = ""  # "", "positions", "rows", "elements"
    counting: str = ""  # of "lengths", "mask" (of positions) and "elements", those that are used
    reduction: str = "mean"

    def __str__(self) -> str:
        return "-".join(str(part) for part in self)


SPECS = tuple(
    Spec(*size, weighting, counting, ("mean", "sum", "none")[i % 3])
    for i, ((weighting, counting), size) in enumerate(
        zip(
            itertools.product(
                ("", "positions", "rows", "elements"), ("", "lengths", "lengths mask", "elements")
            ),
            itertools.cycle(((1, 1, 1), (5, 3, 1), (4, 2, 4), (8, 2, 1), (3, 4, 7), (9, 5, 33))),
        )
    )
)


def draw(spec: Spec, name: str, dtype: Any) -> tuple[Array, Array, dict[str, Any]]:
    """input (T, B, O), target and the keyword arguments."""
    rng = np.random.default_rng(spec[:3])
    (T, B, O), shape = spec[:3], spec[:2]
    x = (3 * rng.standard_normal((T, B, O))).astype(dtype)
    target = rng.standard_normal(x.shape).astype(dtype)
    options: dict[str, Any] = {"reduction": spec.reduction, **LOSSES[name]}
    if name.startswith("binary"):
        target = rng.random(x.shape).astype(dtype)
        target[rng.random(x.shape) < 0.5] = 1
        options["pos_weight"] = 3 * rng.random(O)
    sizes = {"positions": shape, "rows": (B,), "elements": (T, B, O)}
    if spec.weighting:
        options["sample_weight"] = 2 * rng.random(sizes[spec.weighting])
        options["sample_weight"][rng.random(sizes[spec.weighting]) < 0.2] = 0
    if "lengths" in spec.counting:
        options["lengths"] = rng.integers(0, T + 1, B)
    if "mask" in spec.counting:
        options["mask"] = rng.random(shape) < 0.7
    if "elements" in spec.counting:
        options["mask"] = rng.random(x.shape) < 0.7
    return x, target, options


def weights_of(shape: tuple[int, ...], options: dict[str, Any]) -> tuple[Array, float]:
    """The weight of each element (T, B, O), 0 where it does not count; the scale."""
    w = np.ones(shape)
    for name in ("sample_weight", "mask"):
        if name in options:
            given = np.asarray(options[name])
            wide = (1, *given.shape) if given.ndim == 1 else given.shape
            w *= given.reshape(wide + (1,) * (3 - len(wide)))
    if "lengths" in options:
        w *= (np.arange(shape[0])[:, None] < options["lengths"])[..., None]
    if options["reduction"] != "mean":
        return w, 1.0
    return w, 1 / w.sum() if w.any() else 0.0


def by_definition(
    name: str, x: Array, target: Array, options: dict[str, Any]
) -> tuple[Array, Array, Array, Array]:
    """Losses and their derivatives in float64, and the squared deviations of both.

    u is the type's: of the roundings of d = x - target, or of exp(-|x|).
    """
    u = float(np.finfo(x.dtype).eps) / 2
    x, t = x.astype(np.float64), target.astype(np.float64)
    d = x - t
    v_d, size = (u * d) ** 2, np.abs(d)
    if name == "mean_squared_error":
        return d * d, 2 * d, 4 * d**2 * v_d, 4 * v_d
    if name == "l1_loss":
        return size, np.sign(d), v_d, 0 * d
    if name == "huber_loss":
        losses = np.where(size <= DELTA, d * d / 2, DELTA * (size - DELTA / 2))
        slope = np.clip(d, -DELTA, DELTA)
        return losses, slope, slope**2 * v_d + (3 * U64 * DELTA * size) ** 2, v_d
    on, off, e = options["pos_weight"] * t, 1 - t, np.exp(-np.abs(x))
    linear, log1p = np.where(x > 0, off, on), np.log1p(e)
    losses = (on + off) * log1p + linear * np.abs(x)
    slope = np.where(x > 0, off - on * e, off * e - on) / (1 + e)
    v_e = (EXP_UNITS * u * e) ** 2
    # Fewer than eight roundings make the logarithm, six the rest of the loss or of the slope.
    v_loss = ((on + off) / (1 + e)) ** 2 * v_e + U64**2 * 100 * losses**2
    v_slope = ((on + off) / (1 + e) ** 2) ** 2 * v_e
    v_slope += U64**2 * 10 * np.where(x > 0, off**2 + (on * e) ** 2, (off * e) ** 2 + on**2)
    return losses, slope, v_loss, v_slope


def expected(
    name: str, x: Array, target: Array, options: dict[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The loss, or the losses, and the gradient by definition; and their bounds."""
    u = float(np.finfo(x.dtype).eps) / 2
    losses, slope, v_loss, v_slope = by_definition(name, x, target, options)
    w, scale = weights_of(x.shape, options)
    losses, d = losses * w, slope * w * scale
    v_loss = w**2 * v_loss + U64**2 * 3 * losses**2
    v_d = (w * scale) ** 2 * v_slope + 2 * (u * d) ** 2 + 4 * (U64 * d) ** 2
    loss = losses
    if options["reduction"] != "none":
        n, S = losses.size, losses.sum()
        # Sums by 16 chains or by halves; n + 2 roundings of the sum, the scale, the product.
        v_loss = scale**2 * (v_loss.sum() + U64**2 * ((n + 4) * ((losses**2).sum() + S**2)))
        # The scale is one over a sum of n weights.
        v_loss = v_loss + (U64 * S * scale) ** 2 * n
        v_d = v_d + (U64 * d) ** 2 * n
        loss = np.array(S * scale)
    lost = 4 * float(np.finfo(x.dtype).tiny) * (1 + w * scale)  # exp, or a product, may be flushed
    bound = {"loss": LAMBDA * np.sqrt(v_loss) + 1e-300, "d_input": LAMBDA * np.sqrt(v_d) + lost}
    return {"loss": loss, "d_input": d}, bound


def run(
    functions: Any, name: str, x: Array, target: Array, options: dict[str, Any]
) -> dict[str, Array]:
    loss, d = getattr(functions, name)(x, target, **options)
    assert type(d) is np.ndarray
    assert (d.shape, d.dtype) == (x.shape, x.dtype)
    w, _ = weights_of(x.shape, options)
    assert not d[w == 0].any()
    if options["reduction"] == "none":
        assert (loss.shape, loss.dtype) == (x.shape, np.float64)
        assert not loss[w == 0].any()
    else:
        assert type(loss) is float
    return {"loss": np.asarray(loss), "d_input": d}


@grid("spec, name, dtype", SPECS, LOSSES, DTYPES)
def test_losses_are_their_definition(spec: Spec, name: str, dtype: Any) -> None:
    """Compiled and reference; the latter has digits of float32 in what it makes in that type."""
    x, target, options = draw(spec, name, dtype)
    want, bound = expected(name, x, target, options)
    promised = PROMISED if name.startswith("binary") else ISAS  # the others have no multiply-add
    first = None
    for functions, isa in [(reference, ISAS[0]), *((fastrnn, isa) for isa in ISAS)]:
        fastrnn.set_isa(isa)
        got = run(functions, name, x, target, options)
        for part, kind in (("loss", np.float64), ("d_input", dtype)):
            label = f"{np.dtype(dtype)} {name} {part}"
            limit = (
                2 * bound[part] if dtype is np.float64 else bound[part]
            )  # the definition errs too
            check({label: got[part]}, {label: want[part]}, {label: limit}, kind, f"{spec} {isa}")
        if functions is fastrnn and isa in promised:
            first = first or got
            for part in got:
                assert_same(got[part], first[part], isa)


@each_loss
def test_bounds_are_not_blind(name: str) -> None:
    spec = Spec(9, 5, 33, "elements", "mask", "mean")
    x, target, options = draw(spec, name, np.float32)
    want, bound = expected(name, x, target, options)
    wrong = dict(options)
    w = options["sample_weight"]
    # One element half as heavy.
    greatest = np.unravel_index(np.argmax(w * options["mask"][..., None]), w.shape)
    wrong["sample_weight"] = w.copy()
    wrong["sample_weight"][greatest] *= 0.5
    found = ratios(run(fastrnn, name, x, target, wrong), want, bound)
    assert min(found.values()) > 1, found


@each_loss
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_reference_gradients_are_finite_differences(spec: Spec, name: str) -> None:
    x, target, options = draw(spec, name, np.float64)
    eps = 1e-5
    if name == "l1_loss":  # away from its kink
        x = np.where(np.abs(x - target) < 10 * eps, x + 1, x)
    function = getattr(reference, name)
    _, d = function(x, target, **options)
    # Central differences err by eps^2 L''' / 6, where a third derivative is below 3 * 2, or at
    # Huber's kinks by eps / 2 * 2; and by roundings of a loss below 1e4, 1e-12, over eps.
    tolerance = eps**2 + 1e-12 / eps + (eps if name == "huber_loss" else 0)
    for index in itertools.islice(np.ndindex(x.shape), 60):
        sides = []
        for step in (eps, -eps):
            moved = x.copy()
            moved[index] += step
            sides.append(np.sum(function(moved, target, **options)[0]))
        assert abs(d[index] - (sides[0] - sides[1]) / (2 * eps)) <= tolerance, index


# ----------------------------------------------------------------------------- the same bits


@both_types
@each_loss
@pytest.mark.parametrize("isa", PROMISED)
def test_the_order_of_the_sum(isa: str, name: str, dtype: Any) -> None:
    # 16 float64 chains of every 16th loss, added one after the other.
    fastrnn.set_isa(isa)
    for spec in (*(Spec(n, 1, 1) for n in (1, 15, 16, 17, 31, 100)), SPECS[-1]):
        x, target, options = draw(spec, name, dtype)
        losses, d = getattr(fastrnn, name)(x, target, **(options | {"reduction": "none"}))
        want, flat = 0.0, losses.ravel()
        for c in range(16):
            part = 0.0
            for value in flat[c::16].tolist():
                part += value
            want += part
        got = getattr(fastrnn, name)(x, target, **(options | {"reduction": "sum"}))
        assert_same_loss(got, (want, d), name)


@both_types
@each_loss
def test_elements_do_not_depend_on_their_place(name: str, dtype: Any) -> None:
    x, target, options = draw(Spec(5, 3, 13, "elements", "elements", "none"), name, dtype)
    losses, d = getattr(fastrnn, name)(x, target, **options)
    for t, b, size in itertools.product(range(5), range(3), (1, 5, 13)):
        own = {k: v[t, b, :size] if np.ndim(v) == 3 else v for k, v in options.items()}
        if "pos_weight" in own:
            own["pos_weight"] = own["pos_weight"][:size]
        part = [a[t, b, :size] for a in (x, target)]
        one = getattr(fastrnn, name)(*part, **own)
        assert_same(one[0], losses[t, b, :size], "losses")
        assert_same(one[1], d[t, b, :size], "gradients")


@both_types
@each_loss
@both_backends
def test_what_does_not_count_is_not_there(functions: Any, name: str, dtype: Any) -> None:
    for spec in SPECS:
        x, target, options = draw(spec, name, dtype)
        want = getattr(functions, name)(x, target, **options)
        w, _ = weights_of(x.shape, options)
        x[w == 0], target[w == 0] = np.nan, np.inf
        got = getattr(functions, name)(x, target, **options)
        assert_same(np.asarray(got[0]), np.asarray(want[0]), f"{spec}")
        assert_same(got[1], want[1], f"{spec}")


@both_types
@each_loss
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(layout: Any, name: str, dtype: Any) -> None:
    x, target, options = draw(Spec(6, 4, 5, "elements", "lengths mask"), name, dtype)
    want = getattr(fastrnn, name)(x, target, **options)
    other = options | {"sample_weight": np.asfortranarray(options["sample_weight"])}
    got = getattr(fastrnn, name)(layout(x), layout(target), **other)
    assert_same_loss(got, want, layout.__name__)
    lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in options.items()}
    assert_same_loss(getattr(fastrnn, name)(x, target, **lists), want, "lists")


@each_loss
@both_types
def test_weights_that_change_nothing_keep_the_bits(name: str, dtype: Any) -> None:
    for spec in SPECS[:4]:
        x, target, options = draw(spec._replace(T=7, reduction="mean"), name, dtype)
        plain = getattr(fastrnn, name)(x, target, **options)
        for shape in (x.shape, x.shape[:2], x.shape[1:2]):
            got = getattr(fastrnn, name)(x, target, sample_weight=np.ones(shape), **options)
            assert_same_loss(got, plain, f"{shape}")
    if name.startswith("binary"):
        for weight in (1, 1.0, [1.0] * x.shape[2]):
            options["pos_weight"] = weight
            one = getattr(fastrnn, name)(x, target, **options)
            options["pos_weight"] = None
            assert_same_loss(getattr(fastrnn, name)(x, target, **options), one, "pos_weight")


@each_loss
@both_types
@both_backends
def test_batch_first_and_series(functions: Any, name: str, dtype: Any) -> None:
    x, target, options = draw(Spec(6, 4, 3, "rows", "lengths", "none"), name, dtype)
    loss, d = getattr(functions, name)(x, target, **options)
    turned = np.swapaxes(x, 0, 1), np.swapaxes(target, 0, 1)
    other, d_other = getattr(functions, name)(*turned, batch_first=True, **options)
    assert_same(np.swapaxes(other, 0, 1), loss, "losses")
    assert_same(np.swapaxes(d_other, 0, 1), d, "gradients")
    # (T,): positions that have no features.
    own = LOSSES[name] if name == "huber_loss" else {}
    series = [np.ascontiguousarray(a[:, 0, 0]) for a in (x, target)]
    weights = np.arange(6.0)
    got = getattr(functions, name)(*series, lengths=4, sample_weight=weights, **own)
    want = getattr(functions, name)(*(a[1:4] for a in series), sample_weight=weights[1:4], **own)
    np.testing.assert_allclose(got[0], want[0], rtol=10 * U64)
    assert_same(got[1][1:4], want[1], "series")


# ----------------------------------------------------------------------------- special values

INF, NAN, BIG = math.inf, math.nan, 1e30


@pytest.mark.parametrize(
    ("name", "x", "target", "loss", "gradient"),
    [
        ("l1_loss", 3.0, 3.0, 0, 0),
        ("l1_loss", 3e38, -3e38, None, 1),
        ("l1_loss", INF, 0, INF, 1),
        ("l1_loss", -INF, 0, INF, -1),
        ("l1_loss", NAN, 0, NAN, NAN),
        ("l1_loss", INF, INF, NAN, NAN),
        ("huber_loss", DELTA, 0, None, None),
        ("huber_loss", BIG, 0, None, DELTA),
        ("huber_loss", INF, 0, INF, DELTA),
        ("huber_loss", -INF, 0, INF, -DELTA),
        ("huber_loss", NAN, 0, NAN, NAN),
        ("binary_cross_entropy_with_logits", BIG, 1, 0, 0),
        ("binary_cross_entropy_with_logits", BIG, 0, BIG, 1),
        ("binary_cross_entropy_with_logits", -BIG, 1, BIG, -1),
        ("binary_cross_entropy_with_logits", -BIG, 0, 0, 0),
        ("binary_cross_entropy_with_logits", INF, 1, 0, 0),
        ("binary_cross_entropy_with_logits", INF, 0, INF, 1),
        ("binary_cross_entropy_with_logits", -INF, 0, 0, 0),
        ("binary_cross_entropy_with_logits", -INF, 0.5, INF, -0.5),
        ("binary_cross_entropy_with_logits", -0.0, 0.5, math.log(2), 0),
        ("binary_cross_entropy_with_logits", NAN, 1, NAN, NAN),
        ("binary_cross_entropy_with_logits", NAN, 0, NAN, NAN),
    ],
)  # fmt: skip
@both_types
def test_extremes(name: str, x: float, target: float, loss: Any, gradient: Any, dtype: Any) -> None:
    own = {"delta": DELTA} if name == "huber_loss" else {}
    arrays = np.array([0, x, 1], dtype), np.array([0, target, 1], dtype)
    eps = np.finfo(dtype).eps
    for functions, isa in [(reference, ISAS[0]), *((fastrnn, isa) for isa in ISAS)]:
        fastrnn.set_isa(isa)
        losses, d = getattr(functions, name)(*arrays, reduction="none", **own)
        if loss is not None:
            np.testing.assert_allclose(losses[1], dtype(loss), rtol=eps)
        if gradient is not None:
            np.testing.assert_allclose(d[1], gradient, rtol=eps)
        assert np.isfinite(losses[[0, 2]]).all()


@both_types
def test_confident_answers_keep_their_digits(dtype: Any) -> None:
    # sigmoid(x) - 1 would cancel, and log(1 + u) lose a small u.
    u = np.finfo(dtype).eps / 2
    for z in (1, 5, 20, 40, 80):
        x, want = np.array([z, -z], dtype), math.exp(-z)
        for isa, functions in itertools.product(ISAS, (fastrnn, reference)):
            fastrnn.set_isa(isa)
            losses, d = functions.binary_cross_entropy_with_logits(
                x, np.array([1, 0], dtype), reduction="none"
            )
            rtol = (EXP_UNITS + 2) * u + 20 * U64
            np.testing.assert_allclose(losses, math.log1p(want), rtol=rtol)
            np.testing.assert_allclose(d, [-want / (1 + want), want / (1 + want)], rtol=rtol)


@both_types
def test_the_logarithm_of_one_and_more(dtype: Any) -> None:
    # softplus(0) is log 2, the largest s of its series.
    loss, _ = fastrnn.binary_cross_entropy_with_logits(np.zeros(1, dtype), np.zeros(1, dtype))
    assert abs(loss - math.log(2)) <= 4 * math.ulp(math.log(2))


@both_backends
@each_loss
def test_nothing_counts(functions: Any, name: str) -> None:
    x = np.full((4, 2, 3), NAN)
    for options, reduction in itertools.product(
        ({"lengths": [0, 0]}, {"mask": np.zeros((4, 2), bool)}, {"sample_weight": np.zeros(2)}),
        ("mean", "sum", "none"),
    ):
        loss, d = getattr(functions, name)(x, x, reduction=reduction, **options)
        assert not np.any(loss)
        assert not d.any()
    assert getattr(functions, name)(x[:0], x[:0])[0] == 0.0
    assert getattr(functions, name)(x[:0], x[:0], sample_weight=np.zeros((0, 2)))[0] == 0.0


# ----------------------------------------------------------------------------- bad input

INPUT, TARGET = np.zeros((5, 3, 4)), np.ones((5, 3, 4))
BINARY = "binary_cross_entropy_with_logits"


@pytest.mark.parametrize(
    ("name", "change", "error", "text"),
    [
        ("l1_loss", {"input": INPUT.tolist()}, TypeError, "input is a list, expected a numpy.nda"),
        ("l1_loss", {"target": TARGET[:1]}, ValueError, "target has shape (1, 3, 4), expected tha"),
        ("l1_loss", {"target": TARGET.astype("f4")}, TypeError, "target is float32, input is floa"),
        ("l1_loss", {"reduction": "no"}, ValueError, "reduction is 'no', expected 'mean', 'sum'"),
        ("l1_loss", {"mask": np.ones(5, bool)}, ValueError, "mask has shape (5,), expected (5, 3)"),
        ("l1_loss", {"lengths": [9, 0, 0]}, ValueError, "lengths[0] is 9"),
        ("l1_loss", {"sample_weight": np.ones(5)}, ValueError, "sample_weight has shape (5,), expec"
         "ted (5, 3) or (B,) = (3,)"),
        ("l1_loss", {"sample_weight": np.ones((5, 4))}, ValueError, "sample_weight has shape (5"),
        ("l1_loss", {"sample_weight": -TARGET}, ValueError, "sample_weight[0, 0, 0] is -1.0"),
        ("l1_loss", {"sample_weight": "a"}, TypeError, "sample_weight holds <U1, expected numbers"),
        ("l1_loss", {"sample_weight": 1.0}, ValueError, "sample_weight has shape (), expected (5,"),
        ("huber_loss", {"delta": 0}, ValueError, "delta is 0, expected a finite number > 0"),
        ("huber_loss", {"delta": -1.0}, ValueError, "delta is -1.0"),
        ("huber_loss", {"delta": NAN}, ValueError, "delta is nan"),
        ("huber_loss", {"delta": INF}, ValueError, "delta is inf, expected a finite number > 0"),
        ("huber_loss", {"delta": "1"}, TypeError, "delta is '1', expected a number: pass float"),
        (BINARY, {"target": 2 * TARGET}, ValueError, "target[0, 0, 0] is 2.0, expected 0"),
        (BINARY, {"target": TARGET * NAN}, ValueError, "target[0, 0, 0] is nan, expected 0"),
        (BINARY, {"target": TARGET.astype(int)}, TypeError, "target is int64, input is floa"),
        (BINARY, {"pos_weight": np.ones(3)}, ValueError, "pos_weight has shape (3,), expected ("),
        (BINARY, {"pos_weight": -1}, ValueError, "pos_weight is -1, expected a finite"),
        (BINARY, {"pos_weight": [1, 1, NAN, 1]}, ValueError, "pos_weight[2] is nan"),
        (BINARY, {"pos_weight": TARGET}, ValueError, "pos_weight has shape (5, 3, 4), expected (4"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_refuses(name: str, change: dict[str, Any], error: Any, text: str) -> None:
    refused(((), {"input": INPUT, "target": TARGET} | change), error, text, function=name)
