"""Losses against PyTorch in float64, in random combinations of their options."""

from typing import Any

import numpy as np
import pytest
from bounds import Array

import fastrnn
from fastrnn import reference

torch = pytest.importorskip("torch")
hypothesis = pytest.importorskip("hypothesis")
F = torch.nn.functional
st = hypothesis.strategies

# Both err by roundings alone, in sums of fewer than a thousand terms; torch's p - q and
# sigmoid(x) - t cancel, so a gradient is off by as much as that is of the largest p.
RELATIVE, CANCELLED = 1e-12, 1e-15

seeds = st.integers(0, 2**32)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
reductions = st.sampled_from(["mean", "sum", "none"])
weightings = st.sampled_from(["", "positions", "rows"])
countings = st.sets(st.sampled_from(["lengths", "mask"]))
functions_ = st.sampled_from([fastrnn, reference])


def counting(
    rng: np.random.Generator, T: int, B: int, chosen: set[str], batch_first: bool
) -> tuple[dict[str, Any], Array]:
    """The options, and which positions (T, B), or (B, T), count by them."""
    options: dict[str, Any] = {"batch_first": batch_first}
    counts = np.ones((T, B), bool)
    if "lengths" in chosen:
        options["lengths"] = rng.integers(0, T + 1, B)
        counts &= np.arange(T)[:, None] < options["lengths"]
    if "mask" in chosen:
        mask = rng.random((T, B)) < 0.7
        counts &= mask
        options["mask"] = mask.T if batch_first else mask
    return options, counts.T if batch_first else counts


def weighing(
    rng: np.random.Generator, shape: tuple[int, ...], weighting: str, options: dict[str, Any]
) -> Array:
    """Weights of the positions; those given go into the options."""
    if not weighting:
        return np.ones(shape)
    if weighting == "rows":
        rows = rng.random(shape[not options["batch_first"]]) + 0.1
        options["sample_weight"] = rows
        return np.broadcast_to(rows[:, None] if options["batch_first"] else rows, shape)
    options["sample_weight"] = rng.random(shape) * (rng.random(shape) < 0.8)
    return options["sample_weight"]


def compare(got: Any, loss: Any, x: Any, largest: float) -> None:
    """A loss and its gradient against torch's loss of the leaf x."""
    loss.sum().backward()
    np.testing.assert_allclose(got[0], loss.detach().numpy(), rtol=RELATIVE, atol=1e-300)
    d = x.grad.numpy()
    np.testing.assert_allclose(got[1], d, rtol=RELATIVE, atol=CANCELLED * largest)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    seeds, sizes, reductions, weightings, countings, functions_, st.booleans(), st.booleans(),
    st.sampled_from(["", "weights", "zeros"]), st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    st.sampled_from([None, -100, 0]),
)  # fmt: skip
def test_cross_entropy(
    seed: int, size: Any, reduction: str, weighting: str, chosen: set[str], functions: Any,
    soft: bool, batch_first: bool, by_class: str, smoothing: float, ignore_index: int | None,
) -> None:  # fmt: skip
    (T, B, C), rng = size, np.random.default_rng(seed)
    options, counts = counting(rng, T, B, chosen, batch_first)
    options |= {"reduction": reduction, "label_smoothing": smoothing}
    logits = 4 * rng.standard_normal((*counts.shape, C))
    target: Array = rng.integers(0, C, counts.shape)
    class_weight = np.ones(C)
    if by_class:
        class_weight = rng.random(C) + 0.1
        class_weight[: C // 2] *= by_class == "weights"
        options["class_weight"] = class_weight
    weights = weighing(rng, counts.shape, weighting, options)
    if soft:
        target = rng.random(logits.shape)
    elif ignore_index is not None:
        target[rng.random(counts.shape) < 0.3] = ignore_index
        options["ignore_index"] = ignore_index
        counts = counts & (target != ignore_index)
    got = functions.softmax_cross_entropy(logits, target, **options)

    x = torch.tensor(logits, requires_grad=True)
    kept = torch.tensor(counts & (weights > 0))
    given = {"weight": torch.tensor(class_weight) if by_class else None}
    given["label_smoothing"] = smoothing
    rows, targets, w = x[kept], torch.tensor(target)[kept], torch.tensor(weights)[kept]
    largest = float(class_weight.max() * max(weights.max(), 1.0)) * (C if soft else 1)
    if reduction == "none":
        loss = torch.zeros(counts.shape, dtype=torch.float64)
        loss[kept] = w * F.cross_entropy(rows, targets, reduction="none", **given)
        compare(got, loss, x, largest)
        return
    scales = w if soft else w * torch.tensor(class_weight)[targets]
    total = scales.sum().item()
    if reduction == "mean" and total == 0:
        assert (got[0], got[1].any()) == (0.0, False)
        return
    if weighting:
        loss = (w * F.cross_entropy(rows, targets, reduction="none", **given)).sum()
        loss = loss / total if reduction == "mean" else loss
    else:
        loss = F.cross_entropy(rows, targets, reduction=reduction, **given)
    compare(got, loss, x, largest / (total if reduction == "mean" else 1.0))


def smooth_l1(x: Any, t: Any, **options: Any) -> Any:
    return F.huber_loss(x, t, delta=0.6, **options)


# Our name and options beside torch's function.
ELEMENTS = {
    "mean_squared_error": ({}, F.mse_loss),
    "l1_loss": ({}, F.l1_loss),
    "huber_loss": ({"delta": 0.6}, smooth_l1),
    "binary_cross_entropy_with_logits": ({}, F.binary_cross_entropy_with_logits),
}


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    seeds, sizes, reductions, st.sampled_from(["", "positions", "rows", "elements"]), countings,
    functions_, st.booleans(), st.sampled_from(sorted(ELEMENTS)),
    st.sampled_from(["", "number", "features"]),
)  # fmt: skip
def test_losses_of_elements(
    seed: int, size: Any, reduction: str, weighting: str, chosen: set[str], functions: Any,
    batch_first: bool, name: str, positive: str,
) -> None:  # fmt: skip
    (T, B, O), rng = size, np.random.default_rng(seed)
    options, counts = counting(rng, T, B, chosen, batch_first)
    own, theirs = ELEMENTS[name]
    shape = (*counts.shape, O)
    values, target = 2 * rng.standard_normal(shape), rng.random(shape)
    if weighting == "elements":
        weights = options["sample_weight"] = rng.random(shape)
    else:
        weights = np.repeat(weighing(rng, counts.shape, weighting, options)[..., None], O, axis=-1)
    given: dict[str, Any] = {}
    if positive and name.startswith("binary"):
        target = np.round(target)
        pos_weight = 3.0 if positive == "number" else 4 * rng.random(O)
        options["pos_weight"] = pos_weight
        given["pos_weight"] = torch.tensor(np.broadcast_to(pos_weight, O).copy())
    got = getattr(functions, name)(values, target, reduction=reduction, **own, **options)

    x = torch.tensor(values, requires_grad=True)
    on = np.repeat(counts[..., None], O, axis=-1) & (weights > 0)
    losses = theirs(x, torch.tensor(target), reduction="none", **given)
    w = torch.tensor(np.where(on, weights, 0.0))
    largest = 20 * max(float(weights.max()), 1.0)
    if reduction == "none":
        return compare(got, w * losses, x, largest)
    total = w.sum().item() if reduction == "mean" else 1.0
    if total == 0:
        assert (got[0], got[1].any()) == (0.0, False)
        return None
    if not weighting and not chosen:  # what torch means by a mean
        whole = theirs(x, torch.tensor(target), reduction=reduction, **given)
        return compare(got, whole, x, largest / total)
    if weighting and not chosen and name in ("mean_squared_error", "l1_loss"):
        whole = theirs(x, torch.tensor(target), reduction=reduction, weight=w)
        return compare(got, whole, x, largest / total)
    return compare(got, (w * losses).sum() / total, x, largest / total)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(seeds, sizes, st.integers(-3, 2), functions_)
def test_softmax(seed: int, size: Any, axis: int, functions: Any) -> None:
    x = 10 * np.random.default_rng(seed).standard_normal(size)
    t = torch.tensor(x)
    for name, theirs in (("softmax", torch.softmax), ("log_softmax", torch.log_softmax)):
        got = getattr(functions, name)(x, axis)
        np.testing.assert_allclose(got, theirs(t, axis).numpy(), rtol=RELATIVE, atol=CANCELLED)
    np.testing.assert_allclose(functions.sigmoid(x), torch.sigmoid(t).numpy(), rtol=RELATIVE)
