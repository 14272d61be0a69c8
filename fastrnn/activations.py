"""Softmax, its logarithm and the sigmoid, for what is done with outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _checks, _core, reference
from .config import current_backend, current_threads
from .reference.activations import softmax_arguments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def softmax(x: Array, axis: int = -1) -> Array:
    """Softmax: exp(x) over its sum along an axis.

    Parameters
    ----------
    x : ndarray
        (...): logits, float32 or float64.
    axis : int
        The axis of the classes.

    Returns
    -------
    ndarray
        Probabilities, as x. Where x has a NaN or +infinity along the axis, or nothing but
        -infinity, they are NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.softmax : the same in plain NumPy, with the equation.
    softmax_cross_entropy : a loss, which takes logits.

    Notes
    -----
    Nothing overflows. exp errs by less than 2 ULP, sums are in float64, and the bits depend neither
    on threads nor, but for `generic`, on the instruction set.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> fastrnn.softmax(np.zeros(4))
    array([0.25, 0.25, 0.25, 0.25])
    """
    if current_backend.get() == "reference":
        return reference.softmax(x, axis)
    return _along(x, axis, False)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """The logarithm of `softmax`, without the loss of digits that taking it afterwards would have.

    Parameters
    ----------
    x : ndarray
        (...): logits, float32 or float64.
    axis : int
        The axis of the classes.

    Returns
    -------
    ndarray
        Logarithms of probabilities, as x; NaN where those are.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    See Also
    --------
    fastrnn.reference.log_softmax : the same in plain NumPy, with the equation.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> fastrnn.log_softmax(np.array([0.0, -1000.0]))
    array([    0., -1000.])
    """
    if current_backend.get() == "reference":
        return reference.log_softmax(x, axis)
    return _along(x, axis, True)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), at most 2 ULP off where x and the result are normal numbers.

    Parameters
    ----------
    x : ndarray
        (...), float32 or float64.

    Returns
    -------
    ndarray
        As x. Results that would be subnormal are 0.

    Raises
    ------
    TypeError
        If x is no such array.

    See Also
    --------
    fastrnn.reference.sigmoid : the same in plain NumPy.
    binary_cross_entropy_with_logits : a loss, which takes logits.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> fastrnn.sigmoid(np.array([-np.inf, 0.0, np.inf]))
    array([0. , 0.5, 1. ])
    """
    if current_backend.get() == "reference":
        return reference.sigmoid(x)
    x = _checks.contiguous(_checks.array("x", x))
    result = np.empty(x.shape, x.dtype)
    _core.sigmoid(x, result)
    return result


def _along(x: Array, axis: int, logarithm: bool) -> Array:
    """Softmax along an axis, which the kernel has as the last one."""
    x, axis = softmax_arguments(x, axis)
    moved = np.moveaxis(x, axis, -1)
    result = np.empty(moved.shape, x.dtype)
    if result.size:
        rows = _checks.as_rows(moved)
        _core.softmax(rows, logarithm, result.reshape(rows.shape), current_threads.get())
    return np.ascontiguousarray(np.moveaxis(result, -1, axis))
