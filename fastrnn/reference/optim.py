"""One step of each optimiser in plain NumPy: the specification of the compiled ones.

All change params `p` and state in place, from the gradient `g`, element by element. Numbers are
rounded to the type of the array, and then every operation is: the kernels have the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]


def sgd(
    p: Array, g: Array, velocity: Array,
    lr: float, momentum: float, undamped: float, weight_decay: float, nesterov: float,
) -> None:  # fmt: skip
    """v = momentum v + undamped d, p = p - lr v, of d = g + weight_decay p.

    With `nesterov` p = p - lr (d + momentum v).
    """
    real = p.dtype.type
    d = _decayed(g, p, weight_decay)
    fresh = d * real(undamped)  # without momentum alone: an infinite velocity would stay, as NaN
    velocity[...] = velocity * real(momentum) + fresh if momentum else fresh
    way = d + velocity * real(momentum) if nesterov else velocity
    p[...] = p - way * real(lr)


def adam(
    p: Array, g: Array, exp_avg: Array, exp_avg_sq: Array,
    rate: float, correction: float, beta1: float, rest1: float, beta2: float, rest2: float,
    eps: float, weight_decay: float, kept: float,
) -> None:  # fmt: skip
    """m = beta1 m + rest1 d, v = beta2 v + (rest2 d) d, of d = g + weight_decay p.

    Then p = kept p - rate m / (correction sqrt(v) + eps). The rests are 1 - beta; rate and
    correction have the bias corrections in them; kept is what a decoupled decay leaves.
    """
    real = p.dtype.type
    at = p * real(kept)
    d = _decayed(g, at, weight_decay)
    exp_avg[...] = exp_avg * real(beta1) + d * real(rest1)
    # Made small before it is squared: gradients of 1e19 have squares in float32 too.
    exp_avg_sq[...] = exp_avg_sq * real(beta2) + d * real(rest2) * d
    root = np.sqrt(exp_avg_sq) * real(correction) + real(eps)
    p[...] = at - exp_avg * real(rate) / root


def rmsprop(
    p: Array, g: Array, square_avg: Array, grad_avg: Array | None, momentum_buffer: Array | None,
    lr: float, alpha: float, rest: float, eps: float, weight_decay: float, momentum: float,
) -> None:  # fmt: skip
    """v = alpha v + (rest d) d, w = d / (sqrt(v) + eps), p = p - lr w; d = g + weight_decay p.

    With `grad_avg`, m = alpha m + rest d, the root is that of the variance, v - m². With
    `momentum_buffer`, b = momentum b + w takes the place of w.
    """
    real = p.dtype.type
    d = _decayed(g, p, weight_decay)
    square_avg[...] = square_avg * real(alpha) + d * real(rest) * d
    square = square_avg
    if grad_avg is not None:
        grad_avg[...] = grad_avg * real(alpha) + d * real(rest)
        square = np.maximum(square - grad_avg * grad_avg, real(0))  # rounding may make it negative
    way = d / (np.sqrt(square) + real(eps))
    if momentum_buffer is not None:
        momentum_buffer[...] = momentum_buffer * real(momentum) + way
        way = momentum_buffer
    p[...] = p - way * real(lr)


def adagrad(p: Array, g: Array, sum: Array, rate: float, eps: float, weight_decay: float) -> None:
    """s = s + d², p = p - rate d / (sqrt(s) + eps), of d = g + weight_decay p."""
    real = p.dtype.type
    d = _decayed(g, p, weight_decay)
    sum[...] = sum + d * d
    p[...] = p - d * real(rate) / (np.sqrt(sum) + real(eps))


def _decayed(g: Array, p: Array, weight_decay: float) -> Array:
    """The gradient of the loss and of weight_decay/2 p²."""
    return g + p * p.dtype.type(weight_decay) if weight_decay else g


# In the order of the kernels' enum fastrnn_rule.
RULES: tuple[Callable[..., None], ...] = (sgd, adam, rmsprop, adagrad)
