"""Clipping of gradients: what is refused, norms of any size, and NumPy that raises."""

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from memory_layouts import fortran, negative, strided

import fastrnn
from fastrnn import reference

U32, U64 = 2.0**-24, 2.0**-53
f4 = np.float32

both = pytest.mark.parametrize("functions", [fastrnn, reference], ids=["own", "reference"])
# Everything that clips, for what all of them refuse.
each_clip = pytest.mark.parametrize(
    "clip",
    [fastrnn.clip_grad_norm, reference.clip_grad_norm, fastrnn.clip_grad_value],
    ids=["norm", "reference norm", "value"],
)


def used_up() -> Any:
    grads = (g for g in [np.ones(3)])
    list(grads)
    return grads


@each_clip
@pytest.mark.parametrize(
    "nothing", [list, tuple, dict, used_up, lambda: {}.values(), lambda: map(abs, ())]
)
def test_nothing_to_clip_is_an_error(clip: Any, nothing: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"^grads is empty, .*make a list of it first\)$"):
        clip(nothing(), 1.0)


@each_clip
def test_arrays_without_elements_are_something(clip: Any) -> None:
    for grads in (np.zeros((0, 3)), [np.zeros(0, f4)], [np.zeros(0), np.zeros(0)]):
        assert clip(grads, 1.0) in (0.0, None)


def twice(a: Array) -> Any:
    return [a, a]


def a_view(a: Array) -> Any:
    return [a, a[2:3]]


def reversed_(a: Array) -> Any:
    return [a, a[::-1]]


def transposed(a: Array) -> Any:
    return [a.reshape(2, 6), a.reshape(6, 2).T]


def overlapping(a: Array) -> Any:
    return [a[:7], a[6:]]


@each_clip
@pytest.mark.parametrize(
    "shared", [twice, a_view, reversed_, transposed, overlapping], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_that_share_memory_are_refused(clip: Any, shared: Any, dtype: Any) -> None:
    a = np.arange(12, dtype=dtype)
    before = a.copy()
    with pytest.raises(ValueError, match=r"^grads\[1\] shares memory with grads\[0\]"):
        clip(shared(a), 1.0)
    other = np.full(3, 9.0, dtype)
    with pytest.raises(ValueError, match=r"^grads\[2\] shares memory with grads\[1\]"):
        clip([other, *shared(a)], 1.0)
    first, second = shared(a)
    with pytest.raises(ValueError, match=r"^grads\['bias'\] shares memory with grads\['weight'\]"):
        clip({"weight": first, "bias": second}, 1.0)
    assert_same(a, before, "nothing is changed")
    assert (other == 9).all()


@each_clip
def test_a_layers_gradients_and_their_views_are_refused(clip: Any) -> None:
    layer = fastrnn.Linear(3, 2, rng=0)
    y, tape = layer.forward(np.ones((4, 3), f4))
    grads = layer.backward(tape, np.ones_like(y))
    with pytest.raises(ValueError, match="shares memory with"):
        clip([grads.flat_weights, *grads.weights.values()], 1.0)
    clip(list(grads.weights.values()), 1.0)


@each_clip
@pytest.mark.parametrize("strides", [(0,), (4,), (4, 4)])
def test_an_array_that_overlaps_itself_is_refused(clip: Any, strides: Any) -> None:
    base = np.arange(8, dtype=f4)
    shape = (4,) if strides == (0,) else (3, 3)[: len(strides)]
    if strides == (4,):
        shape, strides = (3, 2), (4, 0)
    view = np.lib.stride_tricks.as_strided(base, shape, strides)
    with pytest.raises(ValueError, match=r"^grads has elements that share memory with each other"):
        clip(view, 1.0)
    with pytest.raises(ValueError, match=r"^grads\[1\] has elements that share memory"):
        clip([np.ones(3), view], 1.0)
    assert_same(base, np.arange(8, dtype=f4), "nothing is changed")


@each_clip
def test_views_that_share_nothing_are_clipped(clip: Any) -> None:
    for views in (
        lambda a: [a[::2], a[1::2]],
        lambda a: [a[:5], a[5:]],
        lambda a: [a.reshape(3, 4)[:, :2], a.reshape(3, 4)[:, 2:]],
        lambda a: [a[1::2][::-1], a[::2]],
    ):
        a = np.full(12, 9.0)
        clip(views(a), 0.5)
        assert np.allclose(a, a[0], rtol=1e-15)
        assert abs(a[0]) <= 0.5


# ------------------------------------------------------------------------ norms of any size

CASES: dict[str, list[Array]] = {
    "beyond float32": [np.full(40, 1e38, f4), np.array([-3e38, 1.0], f4)],
    "far beyond float32": [np.full(100_000, 3e38, f4)],
    "subnormal in float32": [np.array([1e-40, -3e-41, 1.4e-45], f4), np.full(5, 1e-39, f4)],
    "one normal, many subnormal": [np.array([1.2e-38], f4), np.full(100_000, 1e-38, f4)],
    "huge in float64": [np.array([1e308, -1e307])],
    "subnormal in float64": [np.array([5e-310, -1e-312])],
    "both types, one huge": [np.array([3.0, 4.0], f4), np.array([1e200, 1.0])],
    "both types, float32 large": [np.array([1e38, 2e30], f4), np.array([1e55])],
    "both types, tiny": [np.array([1e-44], f4), np.array([1e-300, 2e-40])],
    "ordinary": [np.array([3.0, 4.0], f4), np.array([12.0])],
}
LIMITS = (1e30, 1.0, 1e-5, 1e-20, 1e-37, 1e-41, 1e-45, 1e-100, 1e-300, 1e-310, 5e-324)


def true_norm(grads: list[Array]) -> Any:
    """In long double, whose exponents reach beyond all squares here."""
    return np.sqrt(sum((g.astype(np.longdouble) ** 2).sum() for g in grads))


@both
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("limit", [*LIMITS, "half", "1e-44 of it"], ids=str)
@pytest.mark.skipif(np.finfo(np.longdouble).maxexp < 16384, reason="long double is no wider")
def test_a_result_that_is_a_number_of_the_type_is_found(
    functions: Any, name: str, limit: Any
) -> None:
    grads = [g.copy() for g in CASES[name]]
    norm = true_norm(grads)
    if isinstance(limit, str):
        limit = float(norm * np.longdouble("0.5" if limit == "half" else "1e-44"))
    got = functions.clip_grad_norm(grads, limit)
    # n squares in a float64 sum, of numbers that were divided once, and a root; a norm below the
    # normal numbers is a multiple of the smallest one.
    count = sum(g.size for g in grads)
    assert abs(got - norm) <= (count + 4) * U64 * norm + 2.0**-1074
    for g, before in zip(grads, CASES[name], strict=True):
        want = before.astype(np.longdouble)
        if limit < norm:
            want = want * (np.longdouble(limit) / norm)
        # The factor and the product are rounded in the type; where it goes through float64 the
        # quotient and the product there, and once more. Below the normal numbers a rounding errs
        # by half a subnormal unit, the quotient's times the limit (at most 4, or it is normal).
        info = np.finfo(g.dtype)
        u = float(info.eps) / 2
        tolerance = (3 * u + (count + 8) * U64) * np.abs(want) + 3 * info.smallest_subnormal
        assert (np.abs(g - want) <= tolerance).all(), (g, want)


@both
@pytest.mark.parametrize("layout", [np.array, strided, negative, fortran], ids=lambda f: f.__name__)
def test_layouts_of_what_is_scaled_through_float64(functions: Any, layout: Any) -> None:
    values = np.linspace(1, 2, 60_000, dtype=f4).reshape(200, 300) * f4(1e38)  # several buffers
    want = values.copy()
    functions.clip_grad_norm(want, 1e-2)
    g = layout(values)
    functions.clip_grad_norm(g, 1e-2)
    assert want.any()
    assert_same(np.ascontiguousarray(g), want, layout.__name__)
    one = np.array(1e38, f4)  # without an axis
    functions.clip_grad_norm([one, np.zeros((0, 3), f4)], 1e-2)
    np.testing.assert_allclose(one, 1e-2, rtol=2 * U32)


@both
def test_a_factor_that_is_a_normal_number_is_multiplied_by(functions: Any) -> None:
    rng = np.random.default_rng(0)
    for dtype, scale in ((np.float32, 1e30), (np.float32, 1e-30), (np.float64, 1e150)):
        g = (rng.standard_normal(1000) * scale).astype(dtype)
        before = g.copy()
        norm = functions.clip_grad_norm(g, scale * 1e-5)
        assert_same(g, before * dtype(scale * 1e-5 / norm), "as ever")


@both
@pytest.mark.parametrize("values", [[np.inf, 1.0], [1.0, np.nan], [-np.inf, np.nan]], ids=str)
@pytest.mark.parametrize("limit", [0, 1e-45, 1.0, 1e300])
def test_a_norm_that_is_no_number_scales_nothing(functions: Any, values: Any, limit: Any) -> None:
    for dtype in (np.float32, np.float64):
        grads = [np.array(values, dtype), np.array([1e38, 1e-40], f4)]
        before = [g.copy() for g in grads]
        assert not math.isfinite(functions.clip_grad_norm(grads, limit))
        for g, b in zip(grads, before, strict=True):
            assert_same(g, b, "left alone")


@both
@pytest.mark.parametrize("name", CASES)
def test_a_limit_of_zero_gives_zeros(functions: Any, name: str) -> None:
    grads = [g.copy() for g in CASES[name]]
    assert functions.clip_grad_norm(grads, 0) > 0
    assert not any(g.any() for g in grads)


# ---------------------------------------------------------------------- where NumPy raises


@pytest.mark.parametrize("name", [*CASES, "infinite", "not a number", "a signalling NaN", "zeros"])
@pytest.mark.parametrize("limit", [0, 1e-45, 1e-5, 1.0, 1e300])
def test_clipping_where_numpy_raises(name: str, limit: Any) -> None:
    signalling = np.array([0x7FA00000, 0], np.uint32).view(f4)
    special = {
        "infinite": [np.array([np.inf, 1e-40], f4), np.array([-np.inf])],
        "not a number": [np.array([np.nan, 1e38], f4)],
        "a signalling NaN": [signalling, np.ones(3)],
        "zeros": [np.zeros(3, f4), np.array([-0.0])],
    }
    for clip in (fastrnn.clip_grad_norm, reference.clip_grad_norm, fastrnn.clip_grad_value):
        want = [g.copy() for g in (CASES | special)[name]]
        result = clip(want, limit)
        got = [g.copy() for g in (CASES | special)[name]]
        with np.errstate(all="raise"):
            np.testing.assert_equal(clip(got, limit), result)
        for g, w in zip(got, want, strict=True):
            assert_same(g, w, name)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "mean_squared_error", "embedding"])
@both
def test_losses_and_the_embedding_where_numpy_raises(functions: Any, name: str) -> None:
    rows = [[1e38, -1e38, 0], [1e-40, 1e-45, -1e-40], [np.inf, -np.inf, 1], [np.nan, 0, 0],
            [0, -np.inf, -200], [3e38, -3e38, 1e-30], [-np.inf] * 3]  # fmt: skip

    def run(x: Array, reduction: str) -> Any:
        if name == "softmax_cross_entropy":
            return functions.softmax_cross_entropy(x, [0, 1, 2, 1, 1, 1, 0], reduction=reduction)
        if name == "mean_squared_error":
            return functions.mean_squared_error(x, x[::-1], reduction=reduction)
        output, tape = functions.embedding_forward([0, 0, 1, 2, 2, 0, 1], x)
        return output, functions.embedding_backward(tape, x).weight

    for dtype in (np.float32, np.float64):
        for reduction in ("mean", "sum"):
            x = np.array(rows, dtype)
            want = run(x, reduction)
            with np.errstate(all="raise"):
                got = run(x, reduction)
            for g, w in zip(got, want, strict=True):
                np.testing.assert_equal(g, w)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("module", [fastrnn, reference], ids=["compiled", "reference"])
def test_subclasses_and_cures_of_what_is_changed_in_place(module: Any) -> None:
    a = np.matrix([[3.0, 4.0]])
    assert module.clip_grad_norm([a, np.matrix([[0.0]])], 1.0) == 5
    assert np.allclose(a, [[0.6, 0.8]])
    assert module.clip_grad_norm(np.matrix([[0.0, 0.0]]), 1.0) == 0
    for given in ([np.ones(2, np.float16)], [[3.0, 4.0]], [np.ma.ones(2)], [np.ones(2, int)]):
        with pytest.raises(TypeError, match="it is changed in place: write"):
            module.clip_grad_norm(given, 1.0)  # nothing of astype() or asarray(): thrown away
    layer = fastrnn.RNN(2, 3, rng=0)
    output, _, tape = layer.forward(np.ones((4, 1, 2), np.float32))
    grads = layer.backward(tape, output)
    for given, cure in (
        ([grads], r"\[a\.flat_weights for a in grads\]"),
        (layer, "give the flat_weights of what its backward returned"),
    ):
        with pytest.raises(TypeError, match=cure):
            module.clip_grad_norm(given, 1.0)


def test_weights_are_refused_and_gradients_taken_as_they_are():
    layer = fastrnn.GRU(3, 4, rng=0)
    output, _, tape = layer.forward(np.ones((5, 2, 3), np.float32))
    grads, same = layer.backward(tape, output), layer.backward(tape, output)
    before = layer.flat_weights.copy()
    for weights in (layer.flat_weights, [layer.flat_weights], layer.weights):
        for clip in (fastrnn.clip_grad_norm, fastrnn.clip_grad_value, reference.clip_grad_norm):
            with pytest.raises(ValueError, match="is weights of a layer, expected gradients"):
                clip(weights, 0.1)
    assert np.array_equal(layer.flat_weights, before)
    x = grads.x.copy()
    assert fastrnn.clip_grad_norm(grads, 0.1) == fastrnn.clip_grad_norm([same.flat_weights], 0.1)
    assert np.array_equal(grads.flat_weights, same.flat_weights)
    assert np.array_equal(grads.x, x)
    unpickled = pickle.loads(pickle.dumps(grads))  # whose memory has an owner, too
    fastrnn.clip_grad_norm(unpickled, 0.01)
    fastrnn.clip_grad_norm(unpickled.weights, 0.001)
