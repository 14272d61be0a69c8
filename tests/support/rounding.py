"""Numbers that know how far rounding may have moved them: the model behind the bounds.

One rounding turns an exact s into s(1 + d) with |d| <= u, u = eps/2. Over a whole run,
to first order, the error of any result is a weighted sum of the d of every operation before it.
A worst-case bound adds the weights' absolute values: for a sum of n terms it is about sqrt(n)
times what happens, and through the recurrence |W_hh|^T grows where W_hh^T shrinks, so it soon
says nothing. Here the d are modelled as independent and of mean zero (N. J. Higham and T. Mary,
"A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019). Then,
by Hoeffding's inequality, with q the sum of the squared weights,

    P(|error| > LAMBDA u sqrt(q)) <= 2 exp(-LAMBDA^2 / 2).

A `Real` keeps the weights apart, by the error that they belong to, as long as errors may meet
again: an error of c enters f c + i g as a factor and, through the peepholes, in f and i, and its
three weights are added, with their signs, before they are squared.

Where the ways of an error lead over different elements of a matrix, or over different rows of x,
the cross terms have mean zero, for those are drawn with random signs. So what goes into a product
with a matrix, or over to the next step, is `settled`: its errors become one, of the same q. But a
gradient that goes through W_hh at one step and stays in its unit at the next meets the same weights
as one that first stays: at each step the roots of q of the two ways are added (`together`, and the
start of a `chain`), not the squares.

A sum of n terms t_k with the result S and Q = sum t_k^2 makes the roundings sum_k s_k^2 of its
partial sums. A walk with random signs strays from the straight line to S by no more than about
sqrt(Q), whatever its order, so

    q(sum) = n (Q + S^2) + what the terms bring along.

This holds for one chain of fused multiply-adds, for multiply-then-add (Q more, within the slack
of n Q) and for the blocked sums of a matrix library.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# An activation is promised within 2 ULP, and one ULP is at most 2u of the value.
ACTIVATION_UNITS = 4.0

_names = itertools.count()


class Real:
    """An array of numbers and, by error, how much of each independent error is in them.

    The operators are exact: `fl` rounds.
    """

    __slots__ = ("errors", "value")
    __array_ufunc__ = None  # array * Real is left to the Real

    def __init__(self, value: Array, errors: dict[int, Array] | None = None) -> None:
        self.value = value
        self.errors = errors or {}

    @property
    def q(self) -> Array:
        return sum((e**2 for e in self.errors.values()), np.zeros(self.value.shape))

    def turned(self, value: Array, slope: Any, other: Any = 0.0, other_slope: Any = 0.0) -> Real:
        """`value`, a function of this number and perhaps another, from its derivatives."""
        errors = {name: slope * e for name, e in self.errors.items()}
        for name, e in other.errors.items() if isinstance(other, Real) else ():
            errors[name] = errors.get(name, 0.0) + other_slope * e
        return Real(value, errors)

    def __add__(self, other: Any) -> Real:
        return self.turned(self.value + value_of(other), 1.0, other, 1.0)

    def __sub__(self, other: Any) -> Real:
        return self.turned(self.value - value_of(other), 1.0, other, -1.0)

    def __rsub__(self, other: Any) -> Real:
        return self.turned(other - self.value, -1.0)

    def __mul__(self, other: Any) -> Real:
        factor = value_of(other)
        return self.turned(self.value * factor, factor, other, self.value)

    __radd__, __rmul__ = __add__, __mul__


def value_of(a: Any) -> Any:
    return a.value if isinstance(a, Real) else a


def disturbed(a: Real, size: Array) -> Real:
    """With one more error, of the size given."""
    return Real(a.value, {**a.errors, next(_names): size})


def fl(a: Real, units: float = 1.0) -> Real:
    """Rounded."""
    return disturbed(a, units * a.value)


def known(value: Array, q: Any = 0.0) -> Real:
    """Numbers that have one error of the given q."""
    return disturbed(Real(value), np.sqrt(q)) if np.any(q) else Real(value)


def settled(*parts: Real) -> Real:
    """The parts side by side."""
    return known(
        np.concatenate([a.value for a in parts], -1), np.concatenate([a.q for a in parts], -1)
    )


def split(a: Real, n: int) -> list[Real]:
    """n equal parts, side by side before."""
    pairs = zip(np.split(a.value, n, -1), np.split(a.q, n, -1), strict=True)
    return [known(value, q) for value, q in pairs]


def where(mask: Array, a: Real, b: Real | float = 0.0) -> Real:
    """a where the mask is true, elsewhere b."""
    q = np.where(mask, a.q, b.q if isinstance(b, Real) else 0.0)
    return known(np.where(mask, a.value, value_of(b)), q)


def chain(start: Any, *products: tuple[Any, Array]) -> Real:
    """start + the sum of all y @ w.T; a weight of zero adds no rounding."""
    S = value_of(start)
    Q, brought, n = S**2, 0.0, 2
    for y, w in products:
        S = S + value_of(y) @ w.T
        Q = Q + value_of(y) ** 2 @ w.T**2
        brought = brought + (y.q @ w.T**2 if isinstance(y, Real) else 0.0)
        n = n + np.count_nonzero(w, axis=1)
    if isinstance(start, Real):
        brought = (np.sqrt(brought) + np.sqrt(start.q)) ** 2
    return known(S, n * (Q + S**2) + brought)


def together(*parts: Real) -> list[Real]:
    """The parts, settled, with one error that they have in common."""
    name = next(_names)
    return [Real(a.value, {name: np.sqrt(a.q)}) for a in parts]


def tanh(a: Real) -> Real:
    y = np.tanh(a.value)
    return fl(a.turned(y, 1.0 - y**2), ACTIVATION_UNITS)


def sigmoid(a: Real) -> Real:
    y = 1.0 / (1.0 + np.exp(-a.value))
    return fl(a.turned(y, y * (1.0 - y)), ACTIVATION_UNITS)
