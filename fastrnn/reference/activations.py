"""Softmax, its logarithm, the sigmoid in plain NumPy: the specification of those of `fastrnn`."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _cures
from .sequences import sigmoid as plain_sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def softmax(x: Array, axis: int = -1) -> Array:
    """Softmax in plain NumPy: see `fastrnn.softmax`.

    softmax x = e / Σ e with e = exp(x - max x), the sum in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.softmax(np.zeros(4))
    array([0.25, 0.25, 0.25, 0.25])
    """
    x, axis = softmax_arguments(x, axis)
    with np.errstate(all="ignore"):
        e = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
        return np.asarray(e / e.sum(axis=axis, keepdims=True, dtype=np.float64), x.dtype)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """The logarithm of softmax in plain NumPy: see `fastrnn.log_softmax`.

    log_softmax x = x - max x - log Σ exp(x - max x), the sum in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.log_softmax(np.array([0.0, -1000.0]))
    array([    0., -1000.])
    """
    x, axis = softmax_arguments(x, axis)
    with np.errstate(all="ignore"):
        largest = x.max(axis=axis, keepdims=True, initial=-np.inf)
        S = np.exp(x - largest).sum(axis=axis, keepdims=True, dtype=np.float64)
        return np.asarray(np.subtract(x, largest, dtype=np.float64) - np.log(S), x.dtype)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) in plain NumPy: see `fastrnn.sigmoid`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.sigmoid(np.array([-np.inf, 0.0, np.inf]))
    array([0. , 0.5, 1. ])
    """
    x = _checks.array("x", x)
    with np.errstate(all="ignore"):
        return np.asarray(plain_sigmoid(x))


def softmax_arguments(x: Any, axis: Any) -> tuple[Array, int]:
    """Check the arguments; the axis counted from the first."""
    x = _checks.array("x", x)
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis is {_cures.shown(axis)}, expected an integer") from None
    if not -x.ndim <= index < x.ndim:
        raise ValueError(f"axis is {index}, expected one of the {x.ndim} axes of x, {x.shape}")
    return x, index % x.ndim
