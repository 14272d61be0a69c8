"""Losses with their gradients. Every sum is in float64 and in a fixed order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, reference
from .config import current_backend, current_threads
from .reference.losses import cross_entropy_arguments, squared_error_arguments

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
    """Cross-entropy of a softmax against class indices, in nats, and its gradient.

    Parameters
    ----------
    logits : ndarray
        (..., C): unnormalised log-probabilities of C classes; float32 or float64.
    target : integer array or sequence
        (...): the index of the right class, ``0 <= index < C``. Where a position does not count,
        anything.
    lengths : integer sequence, optional
        (B,), for logits (T, B, C), or (B, T, C) if `batch_first`: of row b, positions
        t < lengths[b] count. One integer will do for logits (T, C).
    mask : boolean array, optional
        (...): true where a position counts. With `lengths`, both must say so.
    reduction : {"mean", "sum"}
        Over the positions that count.
    batch_first : bool
        Which axis `lengths` are of. The gradient is the same in either order, bit for bit.

    Returns
    -------
    loss : float
        0 where no position counts.
    d_logits : ndarray
        The gradient of loss, as logits; zero where a position does not count.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.softmax_cross_entropy : the same in plain NumPy, with the equations.

    Notes
    -----
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
    """
    if current_backend.get() == "reference":
        return reference.softmax_cross_entropy(
            logits,
            target,
            lengths=lengths,
            mask=mask,
            reduction=reduction,
            batch_first=batch_first,
        )
    rows, target, counts, number = cross_entropy_arguments(
        logits, target, lengths, mask, reduction, batch_first
    )
    scale = 1 / max(number, 1) if reduction == "mean" else 1.0
    d_logits = np.empty(rows.shape, rows.dtype)
    losses = np.empty(len(rows))
    total = _core.cross_entropy(
        rows, target, counts, scale, d_logits, losses, current_threads.get()
    )
    return total * scale, d_logits.reshape(logits.shape)


def mean_squared_error(
    input: Array,
    target: Array,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[float, Array]:
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
    reduction : {"mean", "sum"}
        Over the elements that count.
    batch_first : bool
        Which axis `lengths` are of. The gradient is the same in either order, bit for bit.

    Returns
    -------
    loss : float
        0 where nothing counts.
    d_input : ndarray
        The gradient of loss, as input; zero where an element does not count.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.mean_squared_error : the same in plain NumPy.

    Notes
    -----
    Squares are added in float64: 16 sums of every 16th element of input, the last axis fastest,
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
            reduction=reduction,
            batch_first=batch_first,
        )
    target, counts, number = squared_error_arguments(
        input, target, lengths, mask, reduction, batch_first
    )
    scale = 1 / max(number, 1) if reduction == "mean" else 1.0
    with np.errstate(all="ignore"):
        d = np.subtract(input, target, out=np.empty(input.shape, target.dtype))
        if counts is not None:
            d[~counts] = 0
        loss = _core.sum_of_squares(d) * scale
        d *= d.dtype.type(2 * scale)
    return loss, d
