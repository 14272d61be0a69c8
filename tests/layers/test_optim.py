"""The optimisers: the documented arithmetic to the bit, near that of PyTorch, and their state."""

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from grids import name_of
from memory_layouts import fortran, negative, row_strided, strided, subclass

import fastrnn
from fastrnn.optim import SGD, Adam

DTYPES = (np.float32, np.float64)
SHAPES = ((33,), (4, 5), (), (1, 0))
STEPS = 50
OPTIMISERS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.01, "momentum": 0.9}),
    (Adam, {}),
    (Adam, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}),
    (Adam, {"lr": 0.01, "betas": (0.0, 0.0)}),
)

both_types = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
each = pytest.mark.parametrize(
    ("kind", "options"), OPTIMISERS, ids=lambda v: v.__name__ if isinstance(v, type) else str(v)
)


def draw(dtype: Any) -> tuple[list[Array], list[list[Array]]]:
    """Parameters of any shape, and the gradients of STEPS steps, which do not depend on them."""
    rng = np.random.default_rng(0)

    def arrays() -> list[Array]:
        return [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]

    return arrays(), [arrays() for _ in range(STEPS)]


def copies(arrays: list[Array]) -> list[Array]:
    return [a.copy() for a in arrays]


# ------------------------------------------------------------------------------- arithmetic


def power(base: float, exponent: int) -> float:
    """By squaring, from the lowest binary digit of the exponent on."""
    result = 1.0
    for digit in reversed(f"{exponent:b}"):
        result *= base if digit == "1" else 1.0
        base *= base
    return result


def documented(kind: Any, options: Any, params: list[Array], steps: Any) -> list[Array]:
    """The formulas of the docstrings, each operation rounded once, in the type of the array."""
    params = copies(params)
    for i, p in enumerate(params):
        real = p.dtype.type
        lr = options.get("lr", 1e-3)
        v, m = np.zeros_like(p), np.zeros_like(p)
        for t, grads in enumerate(steps, 1):
            g = grads[i]
            if kind is SGD:
                v = real(options.get("momentum", 0.0)) * v + g
                p = p - real(lr) * v
                continue
            b1, b2 = options.get("betas", (0.9, 0.999))
            m = real(b1) * m + real(1 - b1) * g
            v = real(b2) * v + real(1 - b2) * g * g
            root = np.sqrt(v) * real(1 / math.sqrt(1 - power(b2, t)))
            p = p - m * real(lr / (1 - power(b1, t))) / (root + real(options.get("eps", 1e-8)))
        params[i] = np.asarray(p)
    return params


@each
@both_types
def test_the_documented_steps(kind: Any, options: Any, dtype: Any) -> None:
    # To the bit, in place, whatever the layout, the instruction set or the number of threads.
    before, steps = draw(dtype)
    want = documented(kind, options, before, steps)
    for isa, threads in itertools.product(fastrnn.available_isas(), (1, 3)):
        fastrnn.set_isa(isa)
        fastrnn.set_num_threads(threads)
        params = copies(before)
        optimiser = kind(params, **options)
        for grads in steps:
            kept = copies(grads)
            assert optimiser.step(grads) is None
            for g, k in zip(grads, kept, strict=True):
                assert_same(g, k, "a gradient is left alone")
        for p, w in zip(params, want, strict=True):
            assert_same(p, w, f"{isa}, {threads} threads")
    for layout in (strided, row_strided, negative, fortran, subclass):
        p = layout(before[1])
        optimiser = kind(p, **options)
        for grads in steps:
            optimiser.step([layout(grads[1])])
        assert_same(np.ascontiguousarray(p), want[1], layout.__name__)


def bound(kind: Any, options: Any, params: list[Array], steps: Any, dtype: Any) -> list[Array]:
    """How far 50 steps may stray from the truth: the worst case, as errors of v and m persist.

    One operation or constant errs by u of its result. K of them enter each line below, which is
    more than any way of writing the formulas has. (sqrt halves the relative error of v.)
    """
    u, K, bounds = float(np.finfo(dtype).eps) / 2, 5, []
    lr, (b1, b2) = options.get("lr", 1e-3), options.get("betas", (0.9, 0.999))
    momentum, eps = options.get("momentum", 0.0), options.get("eps", 1e-8)
    for i, p in enumerate(params):
        p = p.astype(np.float64)
        v, m, e_v, e_m, e_p = np.zeros((5, *p.shape))
        for t, grads in enumerate(steps, 1):
            g = grads[i].astype(np.float64)
            if kind is SGD:
                e_v = momentum * e_v + K * u * (momentum * np.abs(v) + np.abs(g))
                v = momentum * v + g
                change, e_change = lr * v, lr * (e_v + K * u * np.abs(v))
            else:
                e_m = b1 * e_m + K * u * (b1 * np.abs(m) + np.abs(g))
                e_v = b2 * e_v + K * u * (b2 * v + g**2)
                m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
                rate, root = lr / (1 - b1**t), np.sqrt(v / (1 - b2**t)) + eps
                change = rate * m / root
                relative = e_v / v / 2 + 2 * K * u
                e_change = rate * e_m / root + np.abs(change) * relative
            p = p - change
            e_p = e_p + e_change + u * np.abs(p)
        bounds.append(e_p)
    return bounds


def run(kind: Any, options: Any, params: list[Array], steps: Any) -> list[Array]:
    params = copies(params)
    optimiser = kind(params, **options)
    for grads in steps:
        optimiser.step(grads)
    return params


@each
@both_types
def test_the_truth(kind: Any, options: Any, dtype: Any) -> None:
    # The loop above in float64; for float64 both err.
    params, steps = draw(dtype)
    wide = [p.astype(np.float64) for p in params]
    truth = documented(kind, options, wide, [[g.astype(np.float64) for g in s] for s in steps])
    limits = bound(kind, options, params, steps, dtype)
    for got, want, limit in zip(run(kind, options, params, steps), truth, limits, strict=True):
        assert (np.abs(got - want) <= limit * (2 if dtype is np.float64 else 1)).all()
    # A step left out, or a rate that is off by a thousandth, shows.
    wrong = documented(kind, options, wide, steps[:-1])
    off = documented(kind, options | {"lr": 1.001 * options.get("lr", 1e-3)}, wide, steps)
    for other in (wrong, off):
        assert np.median(np.abs(other[0] - truth[0]) / limits[0]) > 1


@each
@both_types
def test_torch(kind: Any, options: Any, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    params, steps = draw(dtype)
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    optimiser = getattr(torch.optim, kind.__name__)(theirs, **options)
    for grads in steps:
        for t, g in zip(theirs, grads, strict=True):
            t.grad = torch.tensor(g)
        optimiser.step()
    limits = bound(kind, options, params, steps, dtype)
    for got, t, limit in zip(run(kind, options, params, steps), theirs, limits, strict=True):
        assert (np.abs(got - t.detach().numpy()) <= 2 * limit).all()


# --------------------------------------------------------------------------------------- use


@each
@both_types
def test_the_weights_of_a_layer(kind: Any, options: Any, dtype: Any) -> None:
    layer = fastrnn.RNN(3, 4, rng=0, dtype=dtype)
    head = fastrnn.Linear(4, 2, rng=1, dtype=dtype)
    flat = layer.flat_weights
    before = layer.state_dict()
    optimiser = kind([layer.flat_weights, head.flat_weights], **options)
    x = np.random.default_rng(2).standard_normal((5, 3, 3)).astype(dtype)
    output, _, tape = layer.forward(x)
    y, head_tape = head.forward(output)
    d_head = head.backward(head_tape, np.ones_like(y))
    d = layer.backward(tape, d_head.x)
    optimiser.step([d.flat_weights, d_head.flat_weights])
    assert layer.flat_weights is flat
    (want,) = documented(kind, options, [np.concatenate([*map(np.ravel, before.values())])],
                         [[d.flat_weights]])  # fmt: skip
    assert_same(flat, want, "the flat weights")
    assert not any(np.array_equal(before[k], view) for k, view in layer.weights.items())
    assert not np.array_equal(layer(x)[0], output)


@pytest.mark.parametrize(
    ("kind", "options"), [(SGD, {"lr": 0.02, "momentum": 0.9}), (Adam, {"lr": 0.05})]
)
def test_a_quadratic_is_minimised(kind: Any, options: Any) -> None:
    # With momentum the distance shrinks by sqrt(0.9) a step; Adam walks 5 in 100 steps, then slows.
    at, curvature, goal = np.array([3.0, -2.0]), np.array([1.0, 20.0]), np.array([1.0, 2.0])
    optimiser = kind(at, **options)
    for _ in range(600):
        optimiser.step(curvature * (at - goal))
    np.testing.assert_allclose(at, goal, atol=1e-3)


def test_the_rate_may_change_between_steps() -> None:
    p = np.array([1.0])
    sgd = SGD(p, lr=0.5)
    sgd.step(np.array([1.0]))
    sgd.lr = 0.25
    sgd.step(np.array([1.0]))
    assert p.tolist() == [0.25]
    sgd.momentum = 0.5
    sgd.step(np.array([1.0]))  # v = 0.5 + 1
    assert p.tolist() == [0.25 - 0.25 * 1.5]
    p = np.zeros(1)
    adam = Adam(p, lr=0.5)
    adam.step(np.zeros(1))  # nothing to follow: 0 / eps
    assert p.tolist() == [0.0]
    adam = Adam(p, lr=0.0)
    adam.step(np.ones(1))
    assert p.tolist() == [0.0]
    adam.lr = 0.5
    adam.step(np.ones(1))  # with a constant gradient, each step is the rate
    np.testing.assert_allclose(p, -0.5, rtol=1e-7)


@each
@both_types
def test_what_is_no_number_comes_through(kind: Any, options: Any, dtype: Any) -> None:
    # Without a warning, which the tests would turn into an error; and its neighbours stay fine.
    for value in (np.nan, np.inf, -np.inf, np.finfo(dtype).max):
        p, alone = np.ones(2, dtype), np.ones(1, dtype)
        optimiser, other = kind(p, **options), kind(alone, **options)
        for _ in range(3):
            optimiser.step(np.array([value, 0.5], dtype))
            other.step(np.array([0.5], dtype))
        if not np.isfinite(value):
            assert not np.isfinite(p[0])
        assert_same(p[1:], alone, f"beside {value}")


@pytest.mark.parametrize("pack", [list, tuple, iter], ids=lambda f: f.__name__)
def test_what_arrays_may_come_in(pack: Any) -> None:
    params = [np.ones(2), np.ones(3, np.float32)]
    sgd = SGD(pack(params), lr=1.0)
    sgd.step(pack([np.full(2, 0.5), np.full(3, 0.25, np.float32)]))
    assert [p.tolist() for p in params] == [[0.5] * 2, [0.75] * 3]
    assert all(a is b for a, b in zip(sgd.params, params, strict=True))


# ------------------------------------------------------------------------------------- state


@each
@both_types
def test_a_state_that_is_loaded_goes_on_as_before(kind: Any, options: Any, dtype: Any) -> None:
    params, steps = draw(dtype)
    optimiser = kind(params, **options)
    for grads in steps[:7]:
        optimiser.step(grads)
    state = optimiser.state_dict()
    later, numbers = copies(params), {"lr": 9.0} | ({} if kind is SGD else {"eps": 1.0})
    fresh = kind(later, **numbers)
    fresh.step(steps[20])
    for p, q in zip(later, params, strict=True):
        p[...] = q
    fresh.load_state_dict(pickle.loads(pickle.dumps(state)))
    copied = copy.deepcopy(optimiser)  # with parameters of its own
    kept = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    for grads in steps[7:]:
        for each_one in (optimiser, fresh, copied):
            each_one.step(grads)
    for p, q, r in zip(params, later, copied.params, strict=True):
        assert_same(q, p, "loaded")
        assert_same(r, p, "copied")
    for name, value in kept.items():  # a copy, which later steps leave alone
        assert np.array_equal(state[name], value), name
    assert not any(np.array_equal(params[0], p) for p in (draw(dtype)[0][0], np.zeros(33)))


def test_the_names_of_the_state() -> None:
    p = [np.ones(2), np.ones(3, np.float32)]
    assert list(SGD(p, 0.1).state_dict()) == ["lr", "momentum", "velocity.0", "velocity.1"]
    state = Adam(p, betas=[0.5, 0.75]).state_dict()
    assert list(state) == [
        "step_count", "lr", "betas", "eps",
        "exp_avg.0", "exp_avg.1", "exp_avg_sq.0", "exp_avg_sq.1",
    ]  # fmt: skip
    assert (state["step_count"], state["lr"], state["betas"]) == (0, 1e-3, (0.5, 0.75))
    assert [state[f"exp_avg.{i}"].dtype for i in (0, 1)] == [np.float64, np.float32]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"lr": -1.0}, ValueError, "d['lr'] is -1.0"),
        ({"lr": "much"}, TypeError, "d['lr'] is 'much'"),
        ({"eps": 0.0}, ValueError, "d['eps'] is 0.0"),
        ({"betas": (0.9, 1.0)}, ValueError, "d['betas'][1] is 1.0"),
        ({"betas": 0.9}, TypeError, "d['betas'] is 0.9, expected two numbers"),
        ({"step_count": -1}, ValueError, "d['step_count'] is -1"),
        ({"step_count": 1.5}, TypeError, "d['step_count'] is 1.5"),
        ({"exp_avg.1": np.ones(4)}, ValueError, "d['exp_avg.1'] has shape (4,), expected (3,)"),
        ({"exp_avg_sq.0": np.ones(2, "f4")}, TypeError, "d['exp_avg_sq.0'] is float32"),
        ({"exp_avg_sq.0": [1.0, 1.0]}, TypeError, "d['exp_avg_sq.0'] is a list"),
        ({"exp_avg_sq.1": None}, TypeError, "d['exp_avg_sq.1'] is None"),
        ({"velocity.0": np.ones(2)}, ValueError, "velocity.0; expected step_count, lr, betas, eps"),
    ],
    ids=str,
)
def test_a_state_is_loaded_whole_or_not_at_all(change: Any, error: Any, text: str) -> None:
    params = [np.ones(2), np.ones(3)]
    adam = Adam(params, lr=0.5)
    adam.step([np.ones(2), np.ones(3)])
    before = adam.state_dict()
    other = Adam(copies(params), lr=0.25, eps=0.5)
    for _ in range(3):
        other.step([np.full(2, 7.0), np.full(3, 7.0)])
    with pytest.raises(error) as caught:
        adam.load_state_dict(other.state_dict() | change)
    assert text in str(caught.value)
    lacking = other.state_dict()
    del lacking["exp_avg.1"]
    for d, kind in (
        (lacking, ValueError),
        ([1], TypeError),
        (SGD(params, 1).state_dict(), ValueError),
    ):
        with pytest.raises(kind, match=r"^d (is|has) "):
            adam.load_state_dict(d)
    after = adam.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert np.array_equal(after[name], value), name
