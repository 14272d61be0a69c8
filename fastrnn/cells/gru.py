"""Gated recurrent units in one direction: gru_forward, gru_backward and gru_step."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..reference.gru import CELL, GRUGradients, GRUTape
from .base import Cell, backward, run, step

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]

GRU = Cell(CELL, {(True,): "gru", (False,): "gru_reset_first"}, GRUTape, GRUGradients)


def gru_forward(
    x: Array,
    h_0: Array | None,
    w_ih: Array | None,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    reset_after: bool = True,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    restart: ArrayLike | None = None,
    reverse: bool = False,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, Array, GRUTape | MaybeNone]:
    """Run a GRU layer over a sequence.

    For each step t of a row, with s the logistic function and the rows of weights and biases in
    the order r, z, n::

        r   = s(b_ir + b_hr + W_ir x_t + W_hr h_{t-1})        the reset gate
        z   = s(b_iz + b_hz + W_iz x_t + W_hz h_{t-1})        the update gate
        n   = tanh(b_in + W_in x_t + r (b_hn + W_hn h_{t-1}))
        h_t = n + z (h_{t-1} - n)

    That is PyTorch's cell. With ``reset_after=False`` the reset gate comes before the product, as
    it was published [1]_::

        n   = tanh(b_in + b_hn + W_in x_t + W_hn (r h_{t-1}))

    Parameters
    ----------
    x : ndarray
        (T, B, D), or (T, D) for one sequence; float32 or float64. Not copied where its last axis
        is contiguous.
    h_0 : ndarray or None
        (B, H), or (H,) for one sequence: the state before the first step. None: zeros.
    w_ih : ndarray or None
        (3·H, D). None: x is (T, B, 3·H), in the place of W_ih x_t; see `rnn_forward`.
    w_hh : ndarray
        (3·H, H).
    b_ih, b_hh : ndarray or None, optional
        (3·H,) each. None: zeros.
    reset_after : bool
        Whether the reset gate acts after the product with W_hn.
    lengths, mask, restart, reverse, record, check
        As for `rnn_forward`.

    Returns
    -------
    output : ndarray
        (T, B, H), or (T, H): every h_t.
    h_n : ndarray
        (B, H), or (H,): the state after the last step processed; h_0 where a row has no steps.
    tape : GRUTape or None
        For `gru_backward`. It refers to x, the weights and output, which must not be changed
        before; it may be used more than once, and from several threads. It holds the gates of
        every step: four times the memory of output.

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
    fastrnn.reference.gru_forward : the same in plain NumPy.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014, 1724-1734.

    Examples
    --------
    With all weights zero both gates are 1/2 and n is 0: h halves at each of three steps.

    >>> import numpy as np, fastrnn
    >>> x, h_0 = np.zeros((3, 1, 2)), np.ones((1, 1))
    >>> output, h_n, tape = fastrnn.gru_forward(x, h_0, np.zeros((3, 2)), np.zeros((3, 1)))
    >>> output.ravel()
    array([0.5  , 0.25 , 0.125])
    """
    arrays = (x, h_0, None, w_ih, w_hh, b_ih, b_hh, ())
    output, h_n, _, tape = run(
        GRU, arrays, (reset_after,), lengths, mask, restart, reverse, record, check
    )
    return output, h_n, tape


def gru_step(
    x_t: Array,
    h: Array | None,
    w_ih: Array | None,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    reset_after: bool = True,
    out: Array | None = None,
) -> Array:
    """Take one step of a GRU layer.

    The bits are those of `gru_forward`, step after step. For the body of a loop over time, where
    each step needs what was made of the one before: nothing is recorded and nothing is kept, the
    weights are read anew. Where they stay as they are, ``layer.stream()`` is faster.

    Parameters
    ----------
    x_t : ndarray
        (B, D), or (D,) for one row; float32 or float64.
    h : ndarray or None
        (B, H), or (H,) for one row: the state before. None: zeros.
    w_ih : ndarray or None
        (3·H, D). None: x_t is (B, 3·H), in the place of W_ih x_t.
    w_hh : ndarray
        (3·H, H).
    b_ih, b_hh : ndarray or None, optional
        (3·H,) each. None: zeros.
    reset_after : bool
        Whether the reset gate acts after the product with W_hn.
    out : ndarray, optional
        Like h: where the state is written. It may be h itself, or x_t, but share no memory with a
        weight. No array is made then.

    Returns
    -------
    ndarray
        (B, H), or (H,): the state after the step; `out` where that is given.

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
    gru_forward : all steps of a sequence at once, with the equations.
    fastrnn.reference.gru_step : the same in plain NumPy.

    Examples
    --------
    With all weights zero both gates are 1/2 and n is 0: h halves at each step.

    >>> import numpy as np, fastrnn
    >>> w_ih, w_hh, h = np.zeros((3, 2)), np.zeros((3, 1)), np.ones(1)
    >>> for x_t in np.ones((3, 2)):
    ...     h = fastrnn.gru_step(x_t, h, w_ih, w_hh, out=h)
    >>> h
    array([0.125])
    """
    arrays = (x_t, h, None, w_ih, w_hh, b_ih, b_hh, ())
    made: Array = step(GRU, arrays, (reset_after,), out)
    return made


def gru_backward(
    tape: GRUTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> GRUGradients:
    """Gradients of a GRU layer: backpropagation through time.

    Parameters
    ----------
    tape : GRUTape
        From `gru_forward`, of either backend. It is not changed.
    d_output : ndarray or None
        The loss's gradient with respect to output, of output's shape and dtype. None: zeros.
        Padding is ignored.
    d_h_n : ndarray or None
        The loss's gradient with respect to h_n, of its shape and dtype. None: zeros.
    wrt : collection of str, optional
        Which gradients to compute: names out of "x", "h_0", "w_ih", "w_hh", "b_ih", "b_hh". What
        is left out costs nothing. None: all.

    Returns
    -------
    GRUGradients
        A named tuple with a field for each of these names, None where the argument was None or
        was left out. The gradients of weights are summed over time and batch; that of padding is
        zero.

    Raises
    ------
    TypeError
        If the tape is not one of `gru_forward`, or a gradient does not have the tape's dtype.
    ValueError
        If both gradients are None, a shape does not fit, or `wrt` holds another name.
    RuntimeError
        If the tape was made with ``check=True`` and an array that it refers to has changed.
    MemoryError
        If there is no memory for the results.

    See Also
    --------
    fastrnn.reference.gru_backward : the same in plain NumPy, with the equations.

    Examples
    --------
    With all weights zero the update gate, through which h goes back, is 1/2 at each of three steps.

    >>> import numpy as np, fastrnn
    >>> x, h_0 = np.zeros((3, 1, 2)), np.ones((1, 1))
    >>> output, h_n, tape = fastrnn.gru_forward(x, h_0, np.zeros((3, 2)), np.zeros((3, 1)))
    >>> fastrnn.gru_backward(tape, d_h_n=np.ones((1, 1)), wrt=["h_0"]).h_0
    array([[0.125]])
    """
    grads: GRUGradients = backward([(tape, d_output, d_h_n, None, wrt, {}, None)], GRU)[0]
    return grads
