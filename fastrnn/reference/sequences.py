"""What the reference's cells share: rows, steps, sigmoid; halves and dropout, for layers as well.

One mechanism serves lengths, masks, restarts and both directions: a step works on the rows that are
`live`, and its previous state is zero where the row is `fresh`; the state of other rows passes
unchanged. What does not count is never touched, so nothing in it, not even a NaN, can reach a
result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def masks(
    steps: int, batch: int, lengths: Array | None, mask: Array | None, restart: Array | None
) -> tuple[Array, Array]:
    """Which steps of a row count, and where it starts afresh: both (T, B)."""
    live = np.ones((steps, batch), bool) if mask is None else mask
    if lengths is not None:
        live = np.arange(steps)[:, None] < lengths
    fresh = np.zeros((steps, batch), bool) if restart is None else restart
    return live, fresh


def order(steps: int, reverse: bool) -> range:
    """The steps in the order of processing."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


def initial(state: Array | None, batch: int, units: int, dtype: np.dtype[Any]) -> Array:
    """A state or its gradient as an array (B, units) of its own; None: zeros."""
    return np.zeros((batch, units), dtype) if state is None else state.copy()


def before(states: Array, first: Array | None, live: Array, fresh: Array, reverse: bool) -> Array:
    """(T, B, .): the state that each step started from: that of the last step that counts."""
    steps, batch, units = states.shape
    result, state = np.empty_like(states), initial(first, batch, units, states.dtype)
    for t in order(steps, reverse):
        result[t] = state
        state = np.where(live[t, :, None], states[t], state)
    return np.where(fresh[..., None], 0, result)


def bias_sum(b_ih: Array | None, b_hh: Array | None, rows: int, dtype: np.dtype[Any]) -> Array:
    """b_ih + b_hh, zeros for None."""
    total = np.zeros(rows, dtype)
    with np.errstate(all="ignore"):
        for b in (b_ih, b_hh):
            if b is not None:
                total = total + b
    return total


def input_part(x: Array, w_ih: Array | None) -> Array:
    """What x (n, D) brings to pre-activations: x W_ihᵀ, or x itself where there is no w_ih."""
    return x if w_ih is None else x @ w_ih.T


def input_gradients(dz: Array, x: Array, w_ih: Array | None) -> tuple[Array, Array | None]:
    """Of `input_part` the gradients of x and w_ih, from that of its result."""
    return (dz, None) if w_ih is None else (dz @ w_ih, dz.T @ x)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), of which no power overflows and no digit is lost where z is negative."""
    power = np.exp(-np.abs(z))  # at most 1
    result: Array = np.where(z < 0, power, 1) / (1 + power)
    return result


def norm_of(*d_states: Array) -> Array:
    """(T, B): the Euclidean norm of the gradients (T, B, .) of a state's parts, in float64."""
    with np.errstate(all="ignore"):
        squares = sum(np.square(d, dtype=np.float64).sum(axis=2) for d in d_states)
        return np.asarray(np.sqrt(squares))


def chosen(gradients: Any, wanted: Collection[str], unbatched: bool) -> Any:
    """Of a cell's gradients those wanted, None for the others; with no batch axis if unbatched."""
    if unbatched:
        states = [name for name in ("h_0", "c_0") if name in gradients._fields]
        gradients = gradients._replace(
            x=gradients.x[:, 0], **{name: getattr(gradients, name)[0] for name in states}
        )
    left_out = [name for name in gradients._fields if name not in wanted]
    return gradients._replace(**dict.fromkeys(left_out))


def halves(a: Array | None, directions: int) -> Sequence[Any]:
    """What of a (T, B, directions·P) array is of each direction, as views."""
    if a is None or directions == 1:
        return (a,) * directions
    units = a.shape[2] // 2
    return a[:, :, :units], a[:, :, units:]


def apply_dropout(a: Array, dropped: Array, scale: float, out: Array | None = None) -> Array:
    """a · scale, and zero where dropped; for gradients as for outputs."""
    with np.errstate(all="ignore"):
        out = np.multiply(a, scale, out=out)
    out[dropped] = 0  # no product with zero: what is dropped may be infinite
    return out
