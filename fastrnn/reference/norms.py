"""How far gradients reach back, in plain NumPy: the specification of `fastrnn.gradient_norms`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _recurrent, config
from . import gru, lstm, rnn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._layer_tape import LayerTape
    from .gru import GRUTape
    from .lstm import LSTMTape
    from .rnn import RNNTape

    Array = NDArray[Any]

_BPTT: dict[str, Any] = {"rnn": rnn.bptt, "lstm": lstm.bptt, "gru": gru.bptt}


def gradient_norms(
    tape: RNNTape | LSTMTape | GRUTape | LayerTape,
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
    of_layer = getattr(tape, "_norms", None)
    if of_layer is not None:
        with config.backend("reference"):
            return of_layer(d_output, d_h_n, d_c_n)  # type: ignore[no-any-return]
    tape, d_output, d_h_n, d_c_n, _ = _recurrent.backward_arguments(
        tape, _recurrent.CellTape, d_output, d_h_n, d_c_n, None
    )
    cell = tape.cell
    norms: Array
    _, norms = _BPTT[cell.name](tape, d_output, *(d_h_n, d_c_n)[: len(cell.states)])
    return norms[:, 0] if tape.unbatched else norms
