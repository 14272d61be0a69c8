"""How far gradients reach back, in plain NumPy: the specification of `fastrnn.gradient_norms`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import _checks
from . import sequences
from .arguments import CellTape, backward_arguments, is_whole
from .cells import CELLS, FORWARD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    LayerTape: TypeAlias = Any  # of layers, which are built on the reference


def gradient_norms(
    tape: CellTape | LayerTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    d_c_n: Array | None = None,
) -> Array:
    """Norms of a loss's gradient along a sequence, in plain NumPy: see `fastrnn.gradient_norms`.

    Of the state after step t, h_t or the pair of h_t and c_t: what backpropagation through time
    has arrived at when it comes to step t, d_output_t included. In padding it is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x, half = np.zeros((3, 1, 1)), np.array([[0.5]])
    >>> output, h_n, tape = reference.rnn_forward(x, None, half, half)
    >>> reference.gradient_norms(tape, d_h_n=np.array([[-1.0]])).ravel()
    array([0.25, 0.5 , 1.  ])
    """
    if hasattr(tape, "_norm_arguments"):
        return _of_layer(tape, d_output, d_h_n, d_c_n)
    norms, _ = _of_direction(tape, d_output, d_h_n, d_c_n)
    return norms[:, 0] if tape.unbatched else norms


def _of_direction(tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any) -> tuple[Array, Array]:
    """The norms of one direction of one layer, (T, B), and the gradient of its x."""
    _checks.tape(tape, CellTape, FORWARD)
    tape, d_output, *d_state, _ = backward_arguments(tape, d_output, d_h_n, d_c_n, None, is_whole)
    cell = tape._cell
    gradients, norms = CELLS[cell.name].bptt(tape, d_output, *d_state[: len(cell.states)])
    return norms, gradients.x


def _of_layer(tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any) -> Array:
    """From the last layer of a stack down, as in its backward."""
    tape, d_output, d_h, d_c = tape._norm_arguments(d_output, d_h_n, d_c_n)
    n = tape._directions
    norms: list[Any] = [None] * len(tape.tapes)
    for first in range(len(norms) - n, -1, -n):
        d_x = []
        for i, half in enumerate(sequences.halves(d_output, n), first):
            d_state = None if d_h is None else d_h[i], None if d_c is None else d_c[i]
            norms[i], d = _of_direction(tape.tapes[i], half, *d_state)
            d_x.append(d)
        with np.errstate(all="ignore"):
            d_output = sum(d_x[1:], start=d_x[0])
        if first and tape.dropped:
            d_output = sequences.apply_dropout(d_output, tape.dropped[first // n - 1], tape.scale)
    result: Array = np.stack(norms)
    return result[:, :, 0] if tape.unbatched else result
