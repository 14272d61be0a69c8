"""Losses in plain NumPy: the specification of those of `fastrnn`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks
from .loss_arguments import (
    Elements,
    cross_entropy_arguments,
    element_arguments,
    in_unit_interval,
    positive_weights,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]
    # A float but with reduction="none", where the caller knows that: as MaybeNone in _tapes.py.
    MaybeArray = Any


def softmax_cross_entropy(
    logits: Array,
    target: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[float | MaybeArray, Array]:
    """Softmax, cross-entropy and their gradient, in plain NumPy.

    See `fastrnn.softmax_cross_entropy`. For each position, with e = exp(x - max x), S = Σ e,
    p = e / S, and w its weight::

        q = 1 at the target, else 0; or the target itself, if it has a number for each class
        q = ((1 - ε) q + ε / C) class_weight,  ε the label smoothing

        loss = -w Σ q log p = w Σ q (log S + max x - x)
        d_x  = w (p Σ q - q)

    The mean divides by Σ w class_weight[target], or for a target of probabilities by Σ w.

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
    given = cross_entropy_arguments(
        logits, target, lengths, mask, ignore_index, class_weight, sample_weight,
        label_smoothing, reduction, batch_first,
    )  # fmt: skip
    on = slice(None) if given.counts is None else given.counts
    x = given.rows[on]
    if given.soft is not None:
        q = given.soft[on].astype(np.float64)
    else:
        q = (np.arange(x.shape[1]) == np.asarray(given.target)[on, None]).astype(np.float64)
    if given.smoothing > 0:
        q = q * (1 - given.smoothing) + given.smoothing / x.shape[1]
    if given.class_weight is not None:
        q = q * given.class_weight
    w = np.ones(len(x)) if given.weights is None else given.weights[on]
    d = np.zeros(given.rows.shape, given.rows.dtype)
    losses = np.zeros(len(d))
    with np.errstate(all="ignore"):
        largest = x.max(axis=1, keepdims=True, initial=-np.inf)
        e = np.exp(x - largest)
        S = e.sum(axis=1, keepdims=True, dtype=np.float64)
        below = np.subtract(largest, x, dtype=np.float64)
        terms = np.where(q == 0, 0, q * below)  # what is certain not to be adds 0
        Q = q.sum(axis=1, keepdims=True)
        losses[on] = w * (Q * np.log(S) + terms.sum(axis=1, keepdims=True))[:, 0]
        # (e Σ q - q S) / S, as p Σ q - q would cancel where p is nearly 1.
        d[on] = (e * Q - q * S) / S * (w * given.scale)[:, None]
    loss = _reduced(losses.reshape(logits.shape[:-1]), given.scale, reduction)
    return loss, d.reshape(logits.shape)


def mean_squared_error(
    input: Array,
    target: Array,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[float | MaybeArray, Array]:
    """Mean squared error and its gradient, in plain NumPy: see `fastrnn.mean_squared_error`.

    Over the elements that count, loss = Σ w (input - target)² / Σ w and
    d = 2 w (input - target) / Σ w.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.mean_squared_error(np.array([1.0, 5.0]), np.array([0.0, 2.0]))
    (5.0, array([1., 3.]))
    """
    given = element_arguments(input, target, lengths, mask, sample_weight, reduction, batch_first)
    with np.errstate(all="ignore"):
        d = given.input - given.target
        return _summed(np.square(d, dtype=np.float64), d, given, reduction, 2.0)


def l1_loss(
    input: Array,
    target: Array,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[float | MaybeArray, Array]:
    """Mean absolute error and its gradient, in plain NumPy: see `fastrnn.l1_loss`.

    Over the elements that count, loss = Σ w abs(input - target) / Σ w and
    d = w sign(input - target) / Σ w.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.l1_loss(np.array([1.0, 5.0]), np.array([0.0, 7.0]))
    (1.5, array([ 0.5, -0.5]))
    """
    given = element_arguments(input, target, lengths, mask, sample_weight, reduction, batch_first)
    with np.errstate(all="ignore"):
        d = given.input - given.target
        return _summed(np.abs(d).astype(np.float64), np.sign(d), given, reduction)


def huber_loss(
    input: Array,
    target: Array,
    *,
    delta: float = 1.0,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[float | MaybeArray, Array]:
    """The Huber loss and its gradient, in plain NumPy: see `fastrnn.huber_loss`.

    With e = input - target, summed and divided as `mean_squared_error`::

        l = e² / 2,                        l' = e               where abs(e) <= delta
        l = delta (abs(e) - delta / 2),    l' = delta sign(e)   beyond

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.huber_loss(np.array([1.0, 5.0]), np.array([0.5, 2.0]))
    (1.3125, array([0.25, 0.5 ]))
    """
    delta = _checks.bounded("delta", delta, above=True)
    given = element_arguments(input, target, lengths, mask, sample_weight, reduction, batch_first)
    with np.errstate(all="ignore"):
        d = (given.input - given.target).astype(np.float64)
        size = np.abs(d)
        losses = np.where(size <= delta, d * d / 2, delta * (size - delta / 2))
        return _summed(losses, np.clip(d, -delta, delta), given, reduction)


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    *,
    pos_weight: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[float | MaybeArray, Array]:
    """Sigmoid, binary cross-entropy and their gradient, in plain NumPy.

    See `fastrnn.binary_cross_entropy_with_logits`. With t the target and p the weight of its
    positive part, summed and divided as `mean_squared_error`::

        l  = p t softplus(-x) + (1 - t) softplus(x)
        l' = (1 - t) sigmoid(x) - p t sigmoid(-x)

    By u = exp(-abs(x)), softplus(-abs(x)) = log(1 + u), softplus(abs(x)) = abs(x) + log(1 + u)
    and sigmoid(abs(x)) = 1 / (1 + u).

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> loss, d = reference.binary_cross_entropy_with_logits(np.zeros(2), np.array([1.0, 0.0]))
    >>> abs(loss - float(np.log(2))) < 1e-15
    True
    >>> d
    array([-0.25,  0.25])
    """
    given = element_arguments(input, target, lengths, mask, sample_weight, reduction, batch_first)
    in_unit_interval(given)
    p = positive_weights(pos_weight, given.input.shape)
    with np.errstate(all="ignore"):
        x, t = given.input.astype(np.float64), given.target.astype(np.float64)
        on, off = (t if p is None else p * t), 1 - t
        u = np.exp(-np.abs(x))
        linear = np.where(x > 0, off, on)  # the one whose softplus is of abs(x)
        losses = (on + off) * np.log1p(u) + np.where(linear == 0, 0, linear * np.abs(x))
        slopes = np.where(x > 0, off - on * u, off * u - on) / (1 + u)
        return _summed(losses, slopes, given, reduction)


def _summed(
    losses: Array, slopes: Array, given: Elements, reduction: str, times: float = 1.0
) -> tuple[float | MaybeArray, Array]:
    """The weighted sum of elements' losses, and its gradient: their derivatives, so many times."""
    dtype = given.input.dtype
    w = np.ones(()) if given.weights is None else given.weights
    on = (w > 0) & (True if given.counts is None else given.counts)
    d = np.where(on, slopes * (times * given.scale * w).astype(dtype), 0).astype(dtype)
    return _reduced(np.where(on, losses * w, 0), given.scale, reduction), d


def _reduced(losses: Array, scale: float, reduction: str) -> Any:
    return losses if reduction == "none" else float(losses.sum()) * scale
