"""The nonlinearities f of the Elman cells, in plain NumPy.

A derivative is given r = f(z), as z is not kept. A NaN passes through all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .sequences import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Nonlinearity(NamedTuple):
    """f, and dr f'(z) from r = f(z) and dr."""

    f: Callable[[Array], Array]
    back: Callable[[Array, Array], Array]


def _relu(z: Array) -> Array:
    return np.where(z <= 0, 0, z)  # not maximum: so NaN passes, and -0 becomes +0


def _hard_sigmoid_back(r: Array, dr: Array) -> Array:
    return np.where((r <= 0) | (r >= 1), 0, dr / 6)


NONLINEARITIES = {
    "tanh": Nonlinearity(np.tanh, lambda r, dr: dr * (1 - r * r)),
    "relu": Nonlinearity(_relu, lambda r, dr: np.where(r <= 0, 0, dr)),
    "sigmoid": Nonlinearity(sigmoid, lambda r, dr: dr * (r - r * r)),
    "identity": Nonlinearity(lambda z: z, lambda r, dr: dr),
    "hard_sigmoid": Nonlinearity(lambda z: np.clip(z + 3, 0, 6) / 6, _hard_sigmoid_back),
}
