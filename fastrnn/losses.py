"""Losses with their gradients. Every sum is in float64 and in a fixed order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _checks, _core, reference
from .config import current_backend, current_threads
from .reference.loss_arguments import (
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
    """Cross-entropy of a softmax against classes, in nats, and its gradient.

    Parameters
    ----------
    logits : ndarray
        (..., C): unnormalised log-probabilities of C classes; float32 or float64.
    target : integer array or sequence, or ndarray
        (...): the index of the right class, ``0 <= index < C``. Or soft targets, (..., C): a
        probability for each class, of the dtype of logits; they need not add up to 1. Where a
        position does not count, anything.
    lengths : integer sequence, optional
        (B,), for logits (T, B, C), or (B, T, C) if `batch_first`: of row b, positions
        t < lengths[b] count. One integer will do for logits (T, C).
    mask : boolean array, optional
        (...): true where a position counts.
    ignore_index : int, optional
        A position with this target does not count. With `lengths` and `mask`, all of them must say
        that a position counts.
    class_weight : array or sequence, optional
        (C,): a weight for each class, finite and >= 0.
    sample_weight : array or sequence, optional
        (...), or (B,) for logits (T, B, C): a weight for each position or sequence, finite and
        >= 0. A position of weight 0 does not count.
    label_smoothing : float
        Between 0 and 1: this part of each target is spread evenly over all classes.
    reduction : {"mean", "sum", "none"}
        Over the positions that count. The mean divides by the sum of their weights, which are
        those of their target's class times those of the position; soft targets have no class, so
        theirs are those of the position alone.
    batch_first : bool
        Which axis `lengths` are of. The gradient is the same in either order, bit for bit, but for
        the rounding of the sum of the weights that a mean divides by.

    Returns
    -------
    loss : float or ndarray
        0 where no position counts, or where the sum of the weights is 0. With "none" the losses,
        (...) in float64, 0 where a position does not count.
    d_logits : ndarray
        The gradient of loss, or of its sum, as logits; zero where a position does not count.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.softmax_cross_entropy : the same in plain NumPy, with the equations.

    Notes
    -----
    Weights, smoothing and soft targets mean what they do in PyTorch's ``cross_entropy``.

    The losses of positions are added in float64 in the order in which logits has them, the last
    axis fastest: all rows of t = 0 first, or with the batch first all steps of row 0.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> loss, d_logits = fastrnn.softmax_cross_entropy(np.zeros((1, 2)), [1])
    >>> abs(loss - float(np.log(2))) < 1e-15
    True
    >>> d_logits
    array([[ 0.5, -0.5]])
    >>> logits = np.zeros((3, 2))
    >>> fastrnn.softmax_cross_entropy(logits, [1, -100, 0], ignore_index=-100)[1]
    array([[ 0.25, -0.25],
           [ 0.  ,  0.  ],
           [-0.25,  0.25]])
    """
    if current_backend.get() == "reference":
        return reference.softmax_cross_entropy(
            logits,
            target,
            lengths=lengths,
            mask=mask,
            ignore_index=ignore_index,
            class_weight=class_weight,
            sample_weight=sample_weight,
            label_smoothing=label_smoothing,
            reduction=reduction,
            batch_first=batch_first,
        )
    rows, classes, soft, counts, weights, class_weight, smoothing, scale = cross_entropy_arguments(
        logits, target, lengths, mask, ignore_index, class_weight, sample_weight,
        label_smoothing, reduction, batch_first,
    )  # fmt: skip
    d_logits = np.empty(rows.shape, rows.dtype)
    losses = np.empty(len(rows))
    total = _core.cross_entropy(
        rows, classes, soft, counts, weights, class_weight, smoothing, scale,
        d_logits, losses, current_threads.get(),
    )  # fmt: skip
    loss = losses.reshape(logits.shape[:-1]) if reduction == "none" else total * scale
    return loss, d_logits.reshape(logits.shape)


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
    """Mean squared error and its gradient.

    Parameters
    ----------
    input : ndarray
        (..., O), the last axis being features, or (T,); float32 or float64.
    target : ndarray
        Of input's shape and dtype. Where a position does not count, anything.
    lengths : integer sequence, optional
        (B,), for input (T, B, ...), or (B, T, ...) if `batch_first`: of row b, positions
        t < lengths[b] count. One integer will do for one sequence, (T, O) or (T,).
    mask : boolean array, optional
        (...), as input without its last axis, or as input: true where an element counts.
    sample_weight : array or sequence, optional
        As mask, or (B,) for input (T, B, ...): weights, finite and >= 0. What has weight 0 does
        not count.
    reduction : {"mean", "sum", "none"}
        Over the elements that count. The mean divides by the sum of their weights.
    batch_first : bool
        Which axis `lengths` are of. The gradient is the same in either order, bit for bit, but for
        the rounding of the sum of the weights that a mean divides by.

    Returns
    -------
    loss : float or ndarray
        0 where nothing counts. With "none" the losses, float64, as input, 0 where an element does
        not count.
    d_input : ndarray
        The gradient of loss, or of its sum, as input; zero where an element does not count.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.mean_squared_error : the same in plain NumPy.
    l1_loss, huber_loss : less of large errors.

    Notes
    -----
    Losses are added in float64: 16 sums of every 16th element of input, the last axis fastest,
    added one after the other. With the batch first that is another order.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> fastrnn.mean_squared_error(np.array([1.0, 5.0]), np.array([0.0, 2.0]))
    (5.0, array([1., 3.]))
    """
    if current_backend.get() == "reference":
        return reference.mean_squared_error(
            input,
            target,
            lengths=lengths,
            mask=mask,
            sample_weight=sample_weight,
            reduction=reduction,
            batch_first=batch_first,
        )
    given = element_arguments(input, target, lengths, mask, sample_weight, reduction, batch_first)
    return _summed("squared", given, reduction)


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
    """Mean absolute error and its gradient.

    Parameters
    ----------
    input : ndarray
        (..., O), the last axis being features, or (T,); float32 or float64.
    target : ndarray
        Of input's shape and dtype. Where a position does not count, anything.
    lengths : integer sequence, optional
        (B,), for input (T, B, ...), or (B, T, ...) if `batch_first`: of row b, positions
        t < lengths[b] count. One integer will do for one sequence, (T, O) or (T,).
    mask : boolean array, optional
        (...), as input without its last axis, or as input: true where an element counts.
    sample_weight : array or sequence, optional
        As mask, or (B,) for input (T, B, ...): weights, finite and >= 0. What has weight 0 does
        not count.
    reduction : {"mean", "sum", "none"}
        Over the elements that count. The mean divides by the sum of their weights.
    batch_first : bool
        Which axis `lengths` are of. The gradient is the same in either order, bit for bit, but for
        the rounding of the sum of the weights that a mean divides by.

    Returns
    -------
    loss : float or ndarray
        0 where nothing counts. With "none" the losses, float64, as input, 0 where an element does
        not count.
    d_input : ndarray
        The gradient of loss, or of its sum, as input; zero where an element does not count.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.l1_loss : the same in plain NumPy.
    mean_squared_error : which says in which order losses are added.

    Notes
    -----
    Where input is target the gradient is 0.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> fastrnn.l1_loss(np.array([1.0, 5.0]), np.array([0.0, 7.0]))
    (1.5, array([ 0.5, -0.5]))
    """
    if current_backend.get() == "reference":
        return reference.l1_loss(
            input,
            target,
            lengths=lengths,
            mask=mask,
            sample_weight=sample_weight,
            reduction=reduction,
            batch_first=batch_first,
        )
    given = element_arguments(input, target, lengths, mask, sample_weight, reduction, batch_first)
    return _summed("absolute", given, reduction)


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
    """Huber's loss and its gradient: squared for small errors, absolute for large ones.

    Of an error e it is e² / 2 where abs(e) <= delta, else delta (abs(e) - delta / 2).

    Parameters
    ----------
    input : ndarray
        (..., O), the last axis being features, or (T,); float32 or float64.
    target : ndarray
        Of input's shape and dtype. Where a position does not count, anything.
    delta : float
        Greater than 0: where small errors end.
    lengths : integer sequence, optional
        (B,), for input (T, B, ...), or (B, T, ...) if `batch_first`: of row b, positions
        t < lengths[b] count. One integer will do for one sequence, (T, O) or (T,).
    mask : boolean array, optional
        (...), as input without its last axis, or as input: true where an element counts.
    sample_weight : array or sequence, optional
        As mask, or (B,) for input (T, B, ...): weights, finite and >= 0. What has weight 0 does
        not count.
    reduction : {"mean", "sum", "none"}
        Over the elements that count. The mean divides by the sum of their weights.
    batch_first : bool
        Which axis `lengths` are of. The gradient is the same in either order, bit for bit, but for
        the rounding of the sum of the weights that a mean divides by.

    Returns
    -------
    loss : float or ndarray
        0 where nothing counts. With "none" the losses, float64, as input, 0 where an element does
        not count.
    d_input : ndarray
        The gradient of loss, or of its sum, as input; zero where an element does not count.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.huber_loss : the same in plain NumPy.
    mean_squared_error : which says in which order losses are added.

    Notes
    -----
    P. J. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35, 1964.
    PyTorch's ``huber_loss`` with a ``weight`` divides the mean by the number of elements.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> fastrnn.huber_loss(np.array([1.0, 5.0]), np.array([0.5, 2.0]))
    (1.3125, array([0.25, 0.5 ]))
    """
    if current_backend.get() == "reference":
        return reference.huber_loss(
            input,
            target,
            delta=delta,
            lengths=lengths,
            mask=mask,
            sample_weight=sample_weight,
            reduction=reduction,
            batch_first=batch_first,
        )
    delta = _checks.bounded("delta", delta, above=True)
    given = element_arguments(input, target, lengths, mask, sample_weight, reduction, batch_first)
    return _summed("huber", given, reduction, delta=delta)


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
    """Binary cross-entropy of sigmoids, in nats, and its gradient.

    Each element is a question of its own, whose answer is yes with probability sigmoid(input).

    Parameters
    ----------
    input : ndarray
        (..., O), the last axis being questions, or (T,): log-odds; float32 or float64.
    target : ndarray
        Of input's shape and dtype, from 0 to 1: the probability of yes. Where a position does
        not count, anything.
    pos_weight : float, array or sequence, optional
        One number, or (O,): a weight of the positive part of each loss, finite and >= 0. The mean
        divides by the same as without.
    lengths : integer sequence, optional
        (B,), for input (T, B, ...), or (B, T, ...) if `batch_first`: of row b, positions
        t < lengths[b] count. One integer will do for one sequence, (T, O) or (T,).
    mask : boolean array, optional
        (...), as input without its last axis, or as input: true where an element counts.
    sample_weight : array or sequence, optional
        As mask, or (B,) for input (T, B, ...): weights, finite and >= 0. What has weight 0 does
        not count.
    reduction : {"mean", "sum", "none"}
        Over the elements that count. The mean divides by the sum of their weights.
    batch_first : bool
        Which axis `lengths` are of. The gradient is the same in either order, bit for bit, but for
        the rounding of the sum of the weights that a mean divides by.

    Returns
    -------
    loss : float or ndarray
        0 where nothing counts. With "none" the losses, float64, as input, 0 where an element does
        not count.
    d_input : ndarray
        The gradient of loss, or of its sum, as input; zero where an element does not count.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.binary_cross_entropy_with_logits : the same in plain NumPy, with the
        equations.
    mean_squared_error : which says in which order losses are added.

    Notes
    -----
    PyTorch's function of this name has a ``weight``, with which its mean divides by the number of
    elements; the mean here divides by the sum of the weights.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> loss, d = fastrnn.binary_cross_entropy_with_logits(np.zeros(2), np.array([1.0, 0.0]))
    >>> abs(loss - float(np.log(2))) < 1e-15
    True
    >>> d
    array([-0.25,  0.25])
    """
    if current_backend.get() == "reference":
        return reference.binary_cross_entropy_with_logits(
            input,
            target,
            pos_weight=pos_weight,
            lengths=lengths,
            mask=mask,
            sample_weight=sample_weight,
            reduction=reduction,
            batch_first=batch_first,
        )
    given = element_arguments(input, target, lengths, mask, sample_weight, reduction, batch_first)
    in_unit_interval(given)
    positive = positive_weights(pos_weight, given.input.shape)
    return _summed("binary", given, reduction, positive=positive)


def _summed(
    loss: str, given: Elements, reduction: str, positive: Array | None = None, delta: float = 1.0
) -> tuple[float | MaybeArray, Array]:
    """The sum of one of the losses by elements, or the losses, and the gradient."""
    input, target, counts, weights, scale = given
    d_input = np.empty(input.shape, input.dtype)
    losses = np.empty(input.shape) if reduction == "none" else None
    total = _core.element_losses(
        loss, input, target, counts, weights, positive, delta, scale, d_input, losses
    )
    return total * scale if losses is None else losses, d_input
