"""Long short-term memory in one direction: lstm_forward, lstm_backward and lstm_step."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..reference.lstm import CELL, LSTMGradients, LSTMTape
from .base import Cell, backward, run, step

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]

LSTM = Cell(CELL, {(): "lstm"}, LSTMTape, LSTMGradients)


def lstm_forward(
    x: Array,
    h_0: Array | None,
    c_0: Array | None,
    w_ih: Array | None,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    w_hr: Array | None = None,
    w_peep: Array | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    restart: ArrayLike | None = None,
    reverse: bool = False,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, Array, Array, LSTMTape | MaybeNone]:
    """Run an LSTM layer [1]_ with forget gates [2]_ over a sequence.

    For each step t of a row, with s the logistic function::

        z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}    4·H rows: those of i, f, g and o
        i   = s(z_i + p_i c_{t-1})                     the input gate
        f   = s(z_f + p_f c_{t-1})                     the forget gate
        g   = tanh(z_g)                                what may enter
        c_t = f c_{t-1} + i g
        o   = s(z_o + p_o c_t)                         the output gate
        h_t = o tanh(c_t)

    The terms in p are the peepholes [3]_, absent without `w_peep`. With `w_hr`, a projection [4]_,
    h has P units instead of H: ``h_t = W_hr (o tanh(c_t))``.

    Parameters
    ----------
    x : ndarray
        (T, B, D), or (T, D) for one sequence; float32 or float64. Not copied where its last axis
        is contiguous.
    h_0, c_0 : ndarray or None
        (B, P) and (B, H), or (P,) and (H,) for one sequence: the state before the first step; P is
        H without a projection. None: zeros.
    w_ih : ndarray or None
        (4·H, D). None: x is (T, B, 4·H), in the place of W_ih x_t; see `rnn_forward`.
    w_hh : ndarray
        (4·H, P).
    b_ih, b_hh : ndarray or None, optional
        (4·H,) each. None: zeros.
    w_hr : ndarray or None, optional
        (P, H): the projection. None: there is none.
    w_peep : ndarray or None, optional
        (3·H,): p_i, p_f and p_o. None: there are no peepholes.
    lengths, mask, restart, reverse, record, check
        As for `rnn_forward`; a restart makes both h and c zero.

    Returns
    -------
    output : ndarray
        (T, B, P), or (T, P): every h_t.
    h_n, c_n : ndarray
        (B, P) and (B, H), or (P,) and (H,): the state after the last step processed; h_0 and c_0
        where a row has no steps.
    tape : LSTMTape or None
        For `lstm_backward`. It refers to x, the weights and output, which must not be changed
        before; it may be used more than once, and from several threads. It holds c and the gates
        of every step: five times the memory of output, or more with a projection.

    Raises
    ------
    TypeError
        If an array is not an ndarray, or not of x's dtype, or that is not float32 or float64.
    ValueError
        If a shape or a value does not fit. The error names the argument, and is raised before any
        work is done.
    MemoryError
        If there is no memory for the results.

    See Also
    --------
    fastrnn.reference.lstm_forward : the same in plain NumPy.

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997),
       1735-1780.
    .. [2] F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to forget: continual prediction with
       LSTM", Neural Computation 12 (2000), 2451-2471.
    .. [3] F. A. Gers, N. N. Schraudolph, J. Schmidhuber, "Learning precise timing with LSTM
       recurrent networks", Journal of Machine Learning Research 3 (2002), 115-143.
    .. [4] H. Sak, A. Senior, F. Beaufays, "Long short-term memory recurrent neural network
       architectures for large scale acoustic modeling", Interspeech 2014, 338-342.

    Examples
    --------
    With all weights zero every gate is 1/2 and nothing enters: c halves at each of three steps.

    >>> import numpy as np, fastrnn
    >>> x, c_0 = np.zeros((3, 1, 2)), np.ones((1, 1))
    >>> output, h_n, c_n, tape = fastrnn.lstm_forward(
    ...     x, None, c_0, np.zeros((4, 2)), np.zeros((4, 1))
    ... )
    >>> c_n
    array([[0.125]])
    """
    arrays = (x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, (w_hr, w_peep))
    return run(LSTM, arrays, (), lengths, mask, restart, reverse, record, check)


def lstm_step(
    x_t: Array,
    h: Array | None,
    c: Array | None,
    w_ih: Array | None,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    w_hr: Array | None = None,
    w_peep: Array | None = None,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Take one step of an LSTM layer.

    The bits are those of `lstm_forward`, step after step. For the body of a loop over time, where
    each step needs what was made of the one before: nothing is recorded and nothing is kept, the
    weights are read anew. Where they stay as they are, ``layer.stream()`` is faster.

    Parameters
    ----------
    x_t : ndarray
        (B, D), or (D,) for one row; float32 or float64.
    h, c : ndarray or None
        (B, P) and (B, H), or (P,) and (H,) for one row: the state before; P is H without a
        projection. None: zeros.
    w_ih : ndarray or None
        (4·H, D). None: x_t is (B, 4·H), in the place of W_ih x_t.
    w_hh : ndarray
        (4·H, P).
    b_ih, b_hh : ndarray or None, optional
        (4·H,) each. None: zeros.
    w_hr : ndarray or None, optional
        (P, H): the projection. None: there is none.
    w_peep : ndarray or None, optional
        (3·H,): the peepholes. None: there are none.
    out : pair of ndarray, optional
        Like h and c: where they are written. They may be h and c themselves, but share no memory
        with a weight or with each other. No array is made then.

    Returns
    -------
    h, c : ndarray
        (B, P) and (B, H), or (P,) and (H,): the state after the step; `out` where that is given.

    Raises
    ------
    TypeError
        If an array is not an ndarray, or not of x_t's dtype, or that is not float32 or float64.
    ValueError
        If a shape or a value does not fit, or `out` shares memory with a weight. The error names
        the argument, and is raised before any work is done.
    MemoryError
        If there is no memory for the results.

    See Also
    --------
    lstm_forward : all steps of a sequence at once, with the equations.
    fastrnn.reference.lstm_step : the same in plain NumPy.

    Examples
    --------
    With all weights zero every gate is 1/2 and nothing enters: c halves at each step.

    >>> import numpy as np, fastrnn
    >>> w_ih, w_hh = np.zeros((4, 2)), np.zeros((4, 1))
    >>> h, c = np.zeros(1), np.ones(1)
    >>> for x_t in np.ones((3, 2)):
    ...     h, c = fastrnn.lstm_step(x_t, h, c, w_ih, w_hh, out=(h, c))
    >>> c
    array([0.125])
    """
    arrays = (x_t, h, c, w_ih, w_hh, b_ih, b_hh, (w_hr, w_peep))
    made: tuple[Array, Array] = step(LSTM, arrays, (), out)
    return made


def lstm_backward(
    tape: LSTMTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    d_c_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> LSTMGradients:
    """Gradients of an LSTM layer: backpropagation through time.

    Parameters
    ----------
    tape : LSTMTape
        From `lstm_forward`, of either backend. It is not changed.
    d_output : ndarray or None
        The loss's gradient with respect to output, of output's shape and dtype. None: zeros.
        Padding is ignored.
    d_h_n, d_c_n : ndarray or None
        The loss's gradients with respect to h_n and c_n, of their shapes and dtype. None: zeros.
    wrt : collection of str, optional
        Which gradients to compute: names out of "x", "h_0", "c_0", "w_ih", "w_hh", "b_ih", "b_hh",
        "w_hr", "w_peep". What is left out costs nothing. None: all.

    Returns
    -------
    LSTMGradients
        A named tuple with a field for each of these names, None where the argument was None or
        was left out. The gradients of weights are summed over time and batch; that of padding is
        zero.

    Raises
    ------
    TypeError
        If the tape is not one of `lstm_forward`, or a gradient does not have the tape's dtype.
    ValueError
        If all gradients are None, a shape does not fit, or `wrt` holds another name.
    RuntimeError
        If the tape was made with ``check=True`` and an array that it refers to has changed.
    MemoryError
        If there is no memory for the results.

    See Also
    --------
    fastrnn.reference.lstm_backward : the same in plain NumPy, with the equations.

    Examples
    --------
    With all weights zero the forget gate, through which c goes back, is 1/2 at each of three steps.

    >>> import numpy as np, fastrnn
    >>> x, c_0 = np.zeros((3, 1, 2)), np.ones((1, 1))
    >>> output, h_n, c_n, tape = fastrnn.lstm_forward(
    ...     x, None, c_0, np.zeros((4, 2)), np.zeros((4, 1))
    ... )
    >>> fastrnn.lstm_backward(tape, d_c_n=np.ones((1, 1)), wrt=["c_0"]).c_0
    array([[0.125]])
    """
    grads: LSTMGradients = backward([(tape, d_output, d_h_n, d_c_n, wrt, {}, None)], LSTM)[0]
    return grads
