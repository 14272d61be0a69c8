"""Losses and clipping in plain NumPy: the specification of those of `fastrnn`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks

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


def clip_grad_norm(grads: Array | Mapping[str, Array] | Iterable[Array], max_norm: float) -> float:
    """Scale gradients, in place, to a norm of at most `max_norm`: see `fastrnn.clip_grad_norm`.

    With n the norm of all of them as one vector, every gradient becomes g · max_norm / n if
    n > max_norm.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> g = np.array([3.0, 4.0])
    >>> reference.clip_grad_norm([g], 1.0)
    5.0
    >>> g
    array([0.6, 0.8])
    """
    arrays, limit = clip_arguments(grads, "max_norm", max_norm)
    with np.errstate(all="ignore"):
        largest = float(np.max([np.abs(g).max(initial=0) for g in arrays]))
        if not 0 < largest < np.inf:
            return largest
        parts = [np.square(g.astype(np.float64) / largest).sum() for g in arrays]
        norm = largest * float(np.sqrt(np.sum(parts)))
    scale_to(arrays, limit, norm)
    return norm


def scale_to(arrays: Iterable[Array], limit: float, norm: float) -> None:
    """Scale arrays of this norm in place so that it becomes `limit`, if it is finite and above."""
    if not limit < norm < np.inf:
        return
    with np.errstate(all="ignore"):
        for g in arrays:
            factor = g.dtype.type(limit / norm)
            if limit == 0 or factor >= np.finfo(g.dtype).smallest_normal:
                g *= factor
                continue
            # The factor has lost digits, or is zero, though g times it may be an ordinary number:
            # (g / norm) * limit in float64. A buffer at a time is converted there and back.
            with np.nditer(
                [g], ["external_loop", "buffered", "zerosize_ok"], [["readwrite"]],
                [np.float64], casting="same_kind",
            ) as pieces:  # fmt: skip
                for piece in pieces:
                    piece[...] = piece / norm * limit  # type: ignore[operator, index]


def cross_entropy_arguments(
    logits: Any, target: Any, lengths: Any, mask: Any, reduction: Any, batch_first: Any
) -> tuple[Array, Array, Array | None, int]:
    """Check the arguments; logits as rows (N, C), target (N,), which rows count, how many."""
    logits = _checks.array("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits has shape {logits.shape}, expected (..., C) with C >= 1")
    positions, rows = logits.shape[:-1], _checks.as_rows(logits)
    target = _checks.integers("target", target, "integers")
    if target.shape != positions:
        raise ValueError(f"target has shape {target.shape}, expected {positions}")
    _checks.choice("reduction", reduction, ("mean", "sum"))
    batch_first = _checks.flag("batch_first", batch_first)
    counts, number = _checks.counted(positions, lengths, mask, len(positions), batch_first)
    if counts is not None:
        target[~counts] = 0  # what does not count may hold anything
        counts = counts.reshape(-1)
    _checks.in_range("target", target, rows.shape[1], "C")
    return rows, target.reshape(-1), counts, number


def squared_error_arguments(
    input: Any, target: Any, lengths: Any, mask: Any, reduction: Any, batch_first: Any
) -> tuple[Array, Array | None, int]:
    """Check the arguments; target, which elements count, how many."""
    input = _checks.array("input", input)
    if input.ndim == 0:
        raise ValueError("input has shape (), expected (..., O) or (T,)")
    target = _checks.array("target", target, input.dtype, "input")
    if target.shape != input.shape:
        raise ValueError(f"target has shape {target.shape}, expected that of input, {input.shape}")
    _checks.choice("reduction", reduction, ("mean", "sum"))
    batch_first = _checks.flag("batch_first", batch_first)
    axes = max(input.ndim - 1, 1)
    counts, number = _checks.counted(input.shape, lengths, mask, axes, batch_first)
    return target, counts, number


def clip_arguments(grads: Any, name: str, limit: Any) -> tuple[list[Array], float]:
    """Check the arguments of the clipping functions; the gradients as a list."""
    if isinstance(grads, np.ndarray):
        grads = {"grads": grads}
    elif not isinstance(grads, Mapping):
        grads = {f"grads[{i}]": g for i, g in enumerate(_checks.arrays("grads", grads))}
    labels = [str(key) for key in grads]
    # As arrays: a subclass may have other ways with what is done here.
    arrays = [
        np.asarray(_checks.writable(label, g))
        for label, g in zip(labels, grads.values(), strict=True)
    ]
    if not arrays:
        raise ValueError(
            "grads is empty, expected one array at least: a generator that was used up? pass a list"
        )
    named = dict(zip(labels, arrays, strict=True))
    _checks.distinct("grads", named if len(named) == len(arrays) else arrays)
    return arrays, _checks.bounded(name, limit)
