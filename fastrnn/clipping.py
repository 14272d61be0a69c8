"""Clipping of gradients. The norm's sum is in float64 and in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _checks, _core, reference
from .config import current_backend
from .reference.clipping import clip_arguments, scale_to

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._checks import Gradients

    Array = NDArray[Any]


def clip_grad_norm(
    grads: Gradients | Array | Mapping[str, Array] | Iterable[Array], max_norm: float
) -> float:
    """Scale gradients, in place, so that their norm is at most `max_norm`.

    The norm is that of all gradients as one vector; their direction stays [1]_.

    Parameters
    ----------
    grads : gradients, ndarray, mapping or iterable of ndarray
        What the backward of a layer or model returned, for its ``flat_weights``; or writable arrays
        of float32 or float64, one at least, which share no memory: the ``flat_weights`` of several.
        A layer's own weights are refused.
    max_norm : float
        At least 0.

    Returns
    -------
    float
        The norm before. Where it is infinite or NaN nothing is scaled: look at it, and leave out
        the step.

    Raises
    ------
    TypeError, ValueError
        If there are no gradients, one is not an array that can be written to, two share memory, or
        `max_norm` is negative or not finite. Then nothing was scaled.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural
       networks", ICML 2013.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> g = np.array([3.0, 4.0])
    >>> fastrnn.clip_grad_norm([g], 1.0)
    5.0
    >>> g
    array([0.6, 0.8])
    """
    if current_backend.get() == "reference":
        return reference.clip_grad_norm(grads, max_norm)
    arrays, limit = clip_arguments(grads, "max_norm", max_norm)
    norm = _norm(map(_checks.contiguous, arrays))
    # Squares may have left the range of float64; of float32, subnormal numbers, which the kernel
    # takes for zeros, may count: a billion of them have a norm below 1.2e-38 * 3.2e4 = 4e-34.
    smallest = 1e-25 if any(g.dtype == _checks.FLOAT32 for g in arrays) else 1e-140
    if not smallest < norm < math.inf:
        with np.errstate(all="ignore"):
            largest = float(np.max([np.abs(g).max(initial=0) for g in arrays]))
            if not 0 < largest < math.inf:
                return largest
            norm = largest * _norm(np.ascontiguousarray(g, np.float64) / largest for g in arrays)
    scale_to(arrays, limit, norm)
    return norm


def _norm(arrays: Iterable[Array]) -> float:
    total = 0.0
    for a in arrays:  # not sum(), which from Python 3.12 on adds in another way
        total += _core.sum_of_squares(a)
    return math.sqrt(total)


def clip_grad_value(
    grads: Gradients | Array | Mapping[str, Array] | Iterable[Array], limit: float
) -> None:
    """Set every element of the gradients, in place, to the nearest number in [-limit, limit].

    Parameters
    ----------
    grads : gradients, ndarray, mapping or iterable of ndarray
        As for `clip_grad_norm`.
    limit : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        As for `clip_grad_norm`.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> g = np.array([-7.0, 0.5])
    >>> fastrnn.clip_grad_value([g], 5.0)
    >>> g
    array([-5. ,  0.5])
    """
    arrays, limit = clip_arguments(grads, "limit", limit)
    with np.errstate(all="ignore"):  # beyond float32 a limit is infinite
        for g in arrays:
            np.clip(g, -limit, limit, out=g)
