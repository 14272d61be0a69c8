"""Every optimiser with its options: PyTorch's numbers, and the same bits compiled and in NumPy."""

import itertools
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_layouts import fortran, negative, strided

import fastrnn
from fastrnn.optim import SGD, Adagrad, Adam, AdamW, RMSprop

STEPS = 50
OPTIONS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (SGD, {}),
    (SGD, {"lr": 0.1, "weight_decay": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (SGD, {"lr": 0.1, "dampening": 0.5}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.01}),
    (Adam, {}),
    (Adam, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (AdamW, {}),
    (AdamW, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.3}),
    (RMSprop, {}),
    (RMSprop, {"lr": 0.1, "alpha": 0.5, "eps": 1e-3, "weight_decay": 0.1}),
    (RMSprop, {"momentum": 0.9}),
    (RMSprop, {"centered": True}),
    (RMSprop, {"centered": True, "momentum": 0.5, "alpha": 0.9, "weight_decay": 0.1}),
    (Adagrad, {}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-3}),
    (Adagrad, {"initial_accumulator_value": 0.5}),
)  # fmt: skip

each = pytest.mark.parametrize(
    ("kind", "options"), OPTIONS, ids=lambda v: v.__name__ if isinstance(v, type) else str(v)
)


def draw(dtype: Any, sizes: Any = (33, 4)) -> tuple[list[Array], list[list[Array]]]:
    rng = np.random.default_rng(0)

    def arrays() -> list[Array]:
        return [rng.standard_normal(size).astype(dtype) for size in sizes]

    return arrays(), [arrays() for _ in range(STEPS)]


def run(kind: Any, options: Any, params: list[Array], steps: Any) -> tuple[list[Array], Any]:
    params = [p.copy(order="K") for p in params]
    optimiser = kind(params, **options)
    for grads in steps:
        optimiser.step(grads)
    return params, optimiser.state_dict()


# ------------------------------------------------------------------------------------ PyTorch


@each
def test_torch(kind: Any, options: Any) -> None:
    torch = pytest.importorskip("torch")
    params, steps = draw(np.float64)
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    optimiser = getattr(torch.optim, kind.__name__)(theirs, **options)
    for grads in steps:
        for t, g in zip(theirs, grads, strict=True):
            t.grad = torch.tensor(g)
        optimiser.step()
    # A step has some ten roundings of 2^-53 and none is amplified: 50 of them are below 1e-13 of
    # the largest numbers that are added.
    for got, t in zip(run(kind, options, params, steps)[0], theirs, strict=True):
        want = t.detach().numpy()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * np.abs(want).max())
    ours = run(kind, options | {"lr": 1.001 * options.get("lr", 0.01)}, params, steps)[0]
    assert np.abs(ours[0] - theirs[0].detach().numpy()).max() > 1e-6  # a rate that is off shows


def test_names_and_defaults_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for kind in (SGD, Adam, AdamW, RMSprop, Adagrad):
        theirs = getattr(torch.optim, kind.__name__)([torch.nn.Parameter(torch.zeros(2))])
        ours = kind([np.zeros(2)]).param_groups[0]
        given = {name: theirs.param_groups[0][name] for name in ours if name != "params"}
        assert {name: value for name, value in ours.items() if name != "params"} == given


def test_torch_groups() -> None:
    torch = pytest.importorskip("torch")
    params, steps = draw(np.float64, (5, 4, 3))
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    ours = [p.copy() for p in params]
    rest = {"lr": 0.3, "weight_decay": 0.0}
    one = AdamW([{"params": ours[:2]}, {"params": ours[2], **rest}], lr=0.1)
    two = torch.optim.AdamW([{"params": theirs[:2]}, {"params": theirs[2], **rest}], lr=0.1)
    for i, grads in enumerate(steps):
        for t, g in zip(theirs, grads, strict=True):
            t.grad = torch.tensor(g)
        for optimiser in (one, two):
            optimiser.param_groups[1]["lr"] = 0.3 / (i + 1)
        one.step(grads)
        two.step()
    for got, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, t.detach().numpy(), rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------- bits


def special(dtype: Any) -> Array:
    """Zeros, subnormals, the ends of the range and what is no number, and neighbours of each."""
    info = np.finfo(dtype)
    ends = [0, info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny, 1, info.max]
    found = np.array([*ends, 1e-30, 1e19, 0.1, np.inf, np.nan], dtype)
    with np.errstate(all="ignore"):
        found = np.concatenate([found, np.nextafter(found, dtype(0)), found * dtype(0.7)])
    return np.concatenate([found, -found])


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_are_those_of_the_reference(kind: Any, options: Any, dtype: Any) -> None:
    # Sizes round the widths of vectors and the lines that threads have.
    params, steps = draw(dtype, (1, 15, 16, 17, 33, 1000))
    values, rng = special(dtype), np.random.default_rng(1)
    params += [rng.choice(values, 500) for _ in range(2)]
    for grads in steps:
        grads += [rng.choice(values, 500), np.full(500, 1e-40, dtype)]
    with fastrnn.backend("reference"):
        want, state = run(kind, options, params, steps)
    for isa, threads in itertools.product(fastrnn.available_isas(), (1, 3)):
        fastrnn.set_isa(isa)
        fastrnn.set_num_threads(threads)
        got, own = run(kind, options, params, steps)
        for i, (p, w) in enumerate(zip(got, want, strict=True)):
            assert_same(p, w, f"params[{i}], {isa}, {threads} threads")
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                assert_same(own[name], value, f"{name}, {isa}, {threads} threads")


def test_subnormals_are_not_flushed() -> None:
    for isa in fastrnn.available_isas():
        fastrnn.set_isa(isa)
        for dtype in (np.float32, np.float64):
            tiny = np.finfo(dtype).smallest_subnormal
            p = np.full(40, 3 * tiny, dtype)
            SGD(p, 1.0).step(np.full(40, tiny, dtype))
            assert (p == 2 * tiny).all()


@each
def test_layouts_and_threads_have_the_same_bits(kind: Any, options: Any) -> None:
    (whole,), steps = draw(np.float32, ((40, 30),))
    want = run(kind, options, [whole], steps)[0][0]
    for layout in (strided, negative, fortran):
        p = layout(whole)
        optimiser = kind([p], **options)
        for (g,) in steps:
            optimiser.step([layout(g)])
        assert_same(np.ascontiguousarray(p), want, layout.__name__)
    parts = [whole[i : i + 7].copy() for i in range(0, 40, 7)]
    cut = [[g[i : i + 7] for i in range(0, 40, 7)] for (g,) in steps]
    assert_same(np.concatenate(run(kind, options, parts, cut)[0]), want, "in parts")


@each
def test_a_gradient_that_is_its_parameter_shifted(kind: Any, options: Any) -> None:
    memory = np.random.default_rng(0).standard_normal(1001)
    for shift in (0, 1, 16):
        one, two = memory.copy(), memory.copy()
        size = 1001 - shift
        for p, g in ((one[:size], one[shift:]), (two[shift:], two[:size])):
            copy, gradient = p.copy(), g.copy()
            kind([p], **options).step([g])
            kind([copy], **options).step([gradient])
            assert_same(p, copy, f"shifted by {shift}")


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_numbers(data: Any) -> None:
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    numbers = st.floats(width=32 if dtype is np.float32 else 64)
    size = data.draw(st.integers(1, 40))

    def array() -> Array:
        return np.array(data.draw(st.lists(numbers, min_size=size, max_size=size)), dtype)

    fraction = st.floats(0, 1, exclude_max=True)
    size_of = st.floats(0, 1e300)
    kind = data.draw(st.sampled_from([SGD, Adam, AdamW, RMSprop, Adagrad]))
    options: dict[str, Any] = {"lr": data.draw(size_of), "weight_decay": data.draw(size_of)}
    if kind in (SGD, RMSprop):
        options["momentum"] = data.draw(fraction)
    if kind is SGD:
        options["dampening"] = data.draw(fraction)
    if kind is RMSprop:
        options |= {"alpha": data.draw(fraction), "centered": data.draw(st.booleans())}
    if kind in (Adam, AdamW):
        options["betas"] = (data.draw(fraction), data.draw(fraction))
    p, steps = array(), [[array()] for _ in range(2)]
    with fastrnn.backend("reference"):
        (want,), _ = run(kind, options, [p], steps)
    (got,), _ = run(kind, options, [p], steps)
    assert_same(got, want, f"{kind.__name__} {options}")


# ------------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SGD, {"lr": 0.5, "momentum": 0.9, "nesterov": True}),
        (Adam, {"lr": 0.02}),
        (AdamW, {"lr": 0.02, "weight_decay": 0.001}),
        (RMSprop, {"lr": 0.005}),
        (Adagrad, {"lr": 0.1}),
    ],
)
def test_a_network_learns(kind: Any, options: Any) -> None:
    # Which of two letters came first, ten steps later: without a memory 0.69 nats.
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 64)
    x = rng.standard_normal((10, 64, 2)).astype(np.float32) / 10
    x[0, np.arange(64), first] += 1
    gru, head = fastrnn.GRU(2, 8, rng=1), fastrnn.Linear(8, 2, rng=2)
    optimiser = kind([{"params": gru.flat_weights}, {"params": head.flat_weights}], **options)
    for _ in range(300):
        output, _, tape = gru.forward(x)
        logits, head_tape = head.forward(output[-1])
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, first)
        d_head = head.backward(head_tape, d_logits)
        d_output = np.zeros_like(output)
        d_output[-1] = d_head.x
        grads = gru.backward(tape, d_output, wrt=["weights"])
        optimiser.step([grads.flat_weights, d_head.flat_weights])
    assert loss < 0.01


def test_a_variance_that_rounding_makes_negative() -> None:
    # Of a constant gradient v - m² goes to zero, and may round below it.
    for dtype in (np.float32, np.float64):
        p = np.ones(50, dtype)
        rmsprop = RMSprop(p, lr=1e-9, alpha=0.5, centered=True)
        for _ in range(200):
            rmsprop.step(np.linspace(0.1, 3, 50).astype(dtype))
        assert np.isfinite(p).all()


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_without_momentum_an_infinite_gradient_is_forgotten(backend: str) -> None:
    p = np.ones(20, np.float32)
    sgd = SGD([p], lr=0.5)
    with fastrnn.backend(backend):
        sgd.step([np.full(20, np.inf, np.float32)])
        p[:] = 1
        sgd.step([np.ones(20, np.float32)])
    assert (p == 0.5).all()
