"""Losses in plain NumPy: the specification of those of `fastrnn`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _cures
from .._cures import Role

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


def softmax_cross_entropy(
    logits: Array,
    target: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[float, Array]:
    """Softmax, cross-entropy and their gradient, in plain NumPy.

    See `fastrnn.softmax_cross_entropy`. For each position, with t its target::

        p = exp(x - max x) / Σ exp(x - max x)        loss = -log p_t
        d_x = p, less 1 at t

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> loss, d_logits = reference.softmax_cross_entropy(np.zeros((1, 2)), [1])
    >>> abs(loss - float(np.log(2))) < 1e-15
    True
    >>> d_logits
    array([[ 0.5, -0.5]])
    """
    rows, target, counts, number = cross_entropy_arguments(
        logits, target, lengths, mask, reduction, batch_first
    )
    scale = 1 / max(number, 1) if reduction == "mean" else 1.0
    d = np.zeros(rows.shape, rows.dtype)
    on = slice(None) if counts is None else counts
    t = target[on, None]
    with np.errstate(all="ignore"):
        x = rows[on]
        largest = x.max(axis=1, keepdims=True) if x.size else x
        e = np.exp(x - largest)
        total = e.sum(axis=1, keepdims=True, dtype=np.float64)
        at_target = np.take_along_axis(x, t, axis=1).astype(np.float64)
        losses = np.log(total) + (largest - at_target if x.size else 0)
        p = e / total
        np.put_along_axis(p, t, -(total - np.take_along_axis(e, t, axis=1)) / total, axis=1)
        d[on] = p * scale
        return float(losses.sum()) * scale, d.reshape(logits.shape)


def mean_squared_error(
    input: Array,
    target: Array,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[float, Array]:
    """Mean squared error and its gradient, in plain NumPy: see `fastrnn.mean_squared_error`.

    Over the n elements that count, loss = Σ (input - target)² / n and d = 2 (input - target) / n.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.mean_squared_error(np.array([1.0, 5.0]), np.array([0.0, 2.0]))
    (5.0, array([1., 3.]))
    """
    target, counts, number = squared_error_arguments(
        input, target, lengths, mask, reduction, batch_first
    )
    scale = 1 / max(number, 1) if reduction == "mean" else 1.0
    with np.errstate(all="ignore"):
        d = np.asarray(input) - target
        if counts is not None:
            d[~counts] = 0
        loss = float(np.square(d, dtype=np.float64).sum() * scale)
        return loss, d * d.dtype.type(2 * scale)


def cross_entropy_arguments(
    logits: Any, target: Any, lengths: Any, mask: Any, reduction: Any, batch_first: Any
) -> tuple[Array, Array, Array | None, int]:
    """Check the arguments; logits as rows (N, C), target (N,), which rows count, how many."""
    logits = _checks.array("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits has shape {logits.shape}, expected (..., C) with C >= 1")
    positions, rows = logits.shape[:-1], _checks.as_rows(logits)
    given = target
    _unmasked("target", given, mask)
    target = _checks.integers("target", given, "the integers of classes", logits.shape[-1], True)
    if target.shape != positions:
        cure = _cure_of_target(given, target, logits.shape)
        raise ValueError(f"target has shape {target.shape}, expected {positions}{cure}")
    _checks.choice("reduction", reduction, ("mean", "sum"))
    batch_first = _checks.flag("batch_first", batch_first)
    counts, number = _checks.counted(positions, lengths, mask, len(positions), batch_first)
    if counts is not None:
        target[~counts] = 0  # what does not count may hold anything
        counts = counts.reshape(-1)
    classes = rows.shape[1]
    _checks.in_range(
        "target", target, classes, "C", lambda: _cure_of_classes(given, target, classes, mask)
    )
    return rows, target.reshape(-1), counts, number


def _cure_of_target(given: Any, target: Array, shape: tuple[int, ...]) -> str:
    """The cure for targets of another shape than logits of this shape ask for."""
    positions, classes = shape[:-1], shape[-1]
    if target.ndim == len(shape) and classes > 1 and _cures.is_one_hot(target, classes):
        return f": pass {_cures.one_hot_index('target', given)}, the indices of one-hot vectors"
    if len(shape) > 2 and (shape[0], *shape[2:]) == target.shape:
        return ": pass np.moveaxis(logits, 1, -1), if its classes are its second axis"
    if len(positions) > 1 and target.shape == (positions[1], positions[0], *positions[2:]):
        return ": pass np.swapaxes(target, 0, 1)"
    if target.size == math.prod(positions) and 1 in (len(positions), target.ndim):
        return f": pass np.reshape(target, {positions}), where it has the order of logits"
    if _cures.squeezed(target.shape) == _cures.squeezed(positions):
        return f": pass np.reshape(target, {positions})"
    return ""


def _unmasked(name: str, target: Any, mask: Any) -> None:
    """Raise TypeError for a target with a mask of its own."""
    if isinstance(target, np.ma.MaskedArray):
        own = "~np.ma.getmaskarray(target)"
        if mask is not None:
            beside = target.ndim - np.ndim(mask)
            own += " & mask" if beside == 0 else " & np.expand_dims(mask, -1)"
        cure = f": write mask, target = {own}, target.filled(0) and pass mask=mask"
        raise TypeError(f"{name} is a MaskedArray, expected a mask apart from it{cure}")


def _cure_of_classes(given: Any, target: Array, classes: int, mask: Any) -> str:
    """The cure for targets that are no classes."""
    beyond = np.unique(target[(target < 0) | (target >= classes)])
    if len(beyond) != 1:
        return ""
    expression = "target" if isinstance(given, np.ndarray) else "np.asarray(target)"
    if beyond[0] < 0:  # as other libraries mark what does not count
        counts = f"{expression} != {beyond[0]}"
        counts = counts if mask is None else f"({counts}) & mask"
        return (
            f": if these positions do not count pass mask={counts}, or lengths= where they are the "
            "ends of sequences"
        )
    if beyond[0] == classes and target.min() > 0:
        return f": if classes are counted from 1 pass {expression} - 1"
    return ""


def squared_error_arguments(
    input: Any, target: Any, lengths: Any, mask: Any, reduction: Any, batch_first: Any
) -> tuple[Array, Array | None, int]:
    """Check the arguments; target, which elements count, how many."""
    input = _checks.array("input", input)
    if input.ndim == 0:
        raise ValueError("input has shape (), expected (..., O) or (T,)")
    role = Role(full="np.full_like(input, target)")
    _unmasked("target", target, mask)
    target = _checks.array("target", target, input.dtype, "input", role)
    if target.shape != input.shape:
        cure = _cures.for_shape("target", target.shape, input.shape)
        if target.ndim > 1 and target.swapaxes(0, 1).shape == input.shape:
            cure = ": pass target.swapaxes(0, 1)"
        raise ValueError(
            f"target has shape {target.shape}, expected that of input, {input.shape}{cure}"
        )
    _checks.choice("reduction", reduction, ("mean", "sum"))
    batch_first = _checks.flag("batch_first", batch_first)
    axes = max(input.ndim - 1, 1)
    counts, number = _checks.counted(input.shape, lengths, mask, axes, batch_first)
    return target, counts, number
