"""The functions: each cell's forward and backward, one layer in one direction."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from . import _calls, reference
from .config import current_backend
from .reference.gru import CELL as GRU
from .reference.gru import GRUGradients, GRUTape
from .reference.lstm import CELL as LSTM
from .reference.lstm import LSTMGradients, LSTMTape
from .reference.rnn import CELL as RNN
from .reference.rnn import RNNGradients, RNNTape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._layer_tape import LayerTape

    Array = NDArray[Any]


def rnn_forward(
    x: Array,
    h_0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    restart: ArrayLike | None = None,
    reverse: bool = False,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, Array, RNNTape | None]:
    """Run an Elman layer over a sequence.

    For each step t of a row, with f tanh or relu [1]_::

        z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}
        h_t = f(z_t)

    Parameters
    ----------
    x : ndarray
        (T, B, D), or (T, D) for one sequence; float32 or float64. Not copied where its last axis
        is contiguous.
    h_0 : ndarray or None
        (B, H), or (H,) for one sequence: the state before the first step. None: zeros.
    w_ih, w_hh : ndarray
        (H, D) and (H, H).
    b_ih, b_hh : ndarray or None, optional
        (H,) each. None: zeros.
    nonlinearity : {"tanh", "relu"}
        f.
    lengths : integer sequence, optional
        (B,), ``0 <= length <= T``: how many steps of each row count. Beyond them output is zero
        and x is not read; a row's final state is that of its own last step. One integer will do
        for one sequence.
    restart : boolean array, optional
        (T, B), or (T,) for one sequence. Where true, the state before step t is zero, never h_0.
    reverse : bool
        Process each row from its last step to its first. output[t] stays aligned with x[t].
    record : bool
        Whether to return a tape for `rnn_backward`.
    check : bool
        Whether the tape should notice, when it is used, that an array which it refers to was
        changed. This reads every one of them once in forward and once in backward.

    Returns
    -------
    output : ndarray
        (T, B, H), or (T, H): every h_t.
    h_n : ndarray
        (B, H), or (H,): the state after the last step processed; h_0 where a row has no steps.
    tape : RNNTape or None
        For `rnn_backward`. It refers to x, the weights and output, which must not be changed
        before; it may be used more than once, and from several threads.

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
    fastrnn.reference.rnn_forward : the same in plain NumPy.

    References
    ----------
    .. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> one = np.array([[1.0]])
    >>> output, h_n, tape = fastrnn.rnn_forward(x, None, one, one, nonlinearity="relu")
    >>> output.ravel()
    array([1., 3.])
    """
    output, h_n, _, tape = _calls.run(
        RNN, x, h_0, None, w_ih, w_hh, b_ih, b_hh, None, None, nonlinearity,
        lengths, restart, reverse, record, check,
    )  # fmt: skip
    return output, h_n, tape


def rnn_backward(
    tape: RNNTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> RNNGradients:
    """Gradients of an Elman layer: backpropagation through time [1]_.

    Parameters
    ----------
    tape : RNNTape
        From `rnn_forward`, of either backend. It is not changed.
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
    RNNGradients
        A named tuple with a field for each of these names, None where the argument was None or
        was left out. The gradients of weights are summed over time and batch; that of padding is
        zero.

    Raises
    ------
    TypeError
        If the tape is not one of `rnn_forward`, or a gradient does not have the tape's dtype.
    ValueError
        If both gradients are None, a shape does not fit, or `wrt` holds another name.
    RuntimeError
        If the tape was made with ``check=True`` and an array that it refers to has changed.
    MemoryError
        If there is no memory for the results.

    See Also
    --------
    fastrnn.reference.rnn_backward : the same in plain NumPy, with the equations.

    References
    ----------
    .. [1] P. J. Werbos, "Backpropagation through time: what it does and how to do it",
       Proceedings of the IEEE 78 (1990), 1550-1560.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> one = np.array([[1.0]])
    >>> output, h_n, tape = fastrnn.rnn_forward(x, None, one, one, nonlinearity="relu")
    >>> grads = fastrnn.rnn_backward(tape, d_h_n=np.array([[1.0]]), wrt=["x", "w_ih"])
    >>> grads.w_ih
    array([[3.]])
    """
    grads: RNNGradients = _calls.backward(tape, d_output, d_h_n, None, wrt, {}, RNNTape)
    return grads


def lstm_forward(
    x: Array,
    h_0: Array | None,
    c_0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    w_hr: Array | None = None,
    w_peep: Array | None = None,
    lengths: ArrayLike | None = None,
    restart: ArrayLike | None = None,
    reverse: bool = False,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, Array, Array, LSTMTape | None]:
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
    w_ih, w_hh : ndarray
        (4·H, D) and (4·H, P).
    b_ih, b_hh : ndarray or None, optional
        (4·H,) each. None: zeros.
    w_hr : ndarray or None, optional
        (P, H): the projection. None: there is none.
    w_peep : ndarray or None, optional
        (3·H,): p_i, p_f and p_o. None: there are no peepholes.
    lengths, restart, reverse, record, check
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
    return _calls.run(
        LSTM, x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, None,
        lengths, restart, reverse, record, check,
    )  # fmt: skip


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
    grads: LSTMGradients = _calls.backward(tape, d_output, d_h_n, d_c_n, wrt, {}, LSTMTape)
    return grads


def gru_forward(
    x: Array,
    h_0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    reset_after: bool = True,
    lengths: ArrayLike | None = None,
    restart: ArrayLike | None = None,
    reverse: bool = False,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, Array, GRUTape | None]:
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
    w_ih, w_hh : ndarray
        (3·H, D) and (3·H, H).
    b_ih, b_hh : ndarray or None, optional
        (3·H,) each. None: zeros.
    reset_after : bool
        Whether the reset gate acts after the product with W_hn.
    lengths, restart, reverse, record, check
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
    output, h_n, _, tape = _calls.run(
        GRU, x, h_0, None, w_ih, w_hh, b_ih, b_hh, None, None, reset_after,
        lengths, restart, reverse, record, check,
    )  # fmt: skip
    return output, h_n, tape


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
    grads: GRUGradients = _calls.backward(tape, d_output, d_h_n, None, wrt, {}, GRUTape)
    return grads


def gradient_norms(
    tape: RNNTape | LSTMTape | GRUTape | LayerTape,
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
    norms: Any = getattr(tape, "norms", None)
    if norms is not None:
        return norms(d_output, d_h_n, d_c_n)  # type: ignore[no-any-return]
    return _calls.norms(tape, d_output, d_h_n, d_c_n)
