"""How far gradients reach back along a sequence."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from . import reference
from .cells import base
from .config import current_backend
from .layers.tape import LayerTape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .reference.arguments import CellTape

    Array = NDArray[Any]


def gradient_norms(
    tape: CellTape | LayerTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    d_c_n: Array | None = None,
) -> Array:
    """How large the gradient is that reaches each step: whether it vanishes or explodes [1]_.

    Parameters
    ----------
    tape : RNNTape, LSTMTape, GRUTape or LayerTape
        From `rnn_forward`, `lstm_forward` or `gru_forward`, or from a layer's ``forward``. It is
        not changed.
    d_output, d_h_n, d_c_n : ndarray or None
        The loss's gradients with respect to output and the final state, as for the cell's
        backward; d_c_n for an LSTM alone. None: zeros.

    Returns
    -------
    ndarray
        (T, B), or (T,) for one sequence; for a layer with an axis in front, of layers and
        directions as in its state; float64. The Euclidean norm of the loss's gradient with
        respect to the state of each row after step t: of h, for an LSTM of h and c together. All
        that the loss takes from step t and later ones is in it. Zero in padding, and where the
        squares are out of float64's range: below about 1e-154.

    Raises
    ------
    TypeError
        If the tape is not one of these, or a gradient does not have its dtype.
    ValueError
        If all gradients are None, or a shape does not fit.
    RuntimeError
        If the tape was made with ``check=True`` and an array that it refers to has changed.
    MemoryError
        If there is no memory for the result.

    See Also
    --------
    fastrnn.reference.gradient_norms : the same in plain NumPy.

    References
    ----------
    .. [1] Y. Bengio, P. Simard, P. Frasconi, "Learning long-term dependencies with gradient
       descent is difficult", IEEE Transactions on Neural Networks 5 (1994), 157-166.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x, w_ih, w_hh = np.ones((3, 1)), np.array([[1.0]]), np.array([[0.5]])
    >>> output, h_n, tape = fastrnn.rnn_forward(x, None, w_ih, w_hh, nonlinearity="relu")
    >>> fastrnn.gradient_norms(tape, d_h_n=np.array([1.0]))
    array([0.25, 0.5 , 1.  ])
    """
    if current_backend.get() == "reference":
        return reference.gradient_norms(tape, d_output, d_h_n, d_c_n)
    norms = tape._norms if isinstance(tape, LayerTape) else partial(base.norms, tape)
    return norms(d_output, d_h_n, d_c_n)
