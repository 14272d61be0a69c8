"""The leaky Elman network in one direction: leaky_forward, leaky_step and leaky_backward."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..reference.leaky import CELL, FORMS, LeakyRNNGradients, LeakyRNNTape
from ..reference.nonlinearities import NONLINEARITIES
from .base import Cell, backward, run, step

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]

LEAKY = Cell(
    CELL,
    {(form, f): f"leaky_{form}_{f}" for form in FORMS for f in NONLINEARITIES},
    LeakyRNNTape,
    LeakyRNNGradients,
)


def leaky_forward(
    x: Array,
    h_0: Array | None,
    w_ih: Array | None,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    leak: Array | float,
    form: str = "rate",
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    restart: ArrayLike | None = None,
    reverse: bool = False,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, Array, LeakyRNNTape | MaybeNone]:
    """Run a leaky Elman layer over a sequence.

    For each step t of a row, with a the leak; of rates, as in echo state networks [1]_::

        h_t = (1 - a) h_{t-1} + a f(b_ih + b_hh + W_ih x_t + W_hh h_{t-1})        output h_t

    and of potentials, as in networks of computational neuroscience [2]_ in steps of dt/tau = a,
    where h_0 and h_n are v::

        v_t = (1 - a) v_{t-1} + a (b_ih + b_hh + W_ih x_t + W_hh f(v_{t-1}))      output f(v_t)

    With a = 1 either is the Elman network.

    Parameters
    ----------
    x : ndarray
        (T, B, D), or (T, D) for one sequence; float32 or float64. Not copied where its last axis
        is contiguous.
    h_0 : ndarray or None
        (B, H), or (H,) for one sequence: the state before the first step, h or v. None: zeros.
    w_ih : ndarray or None
        (H, D). None: x is (T, B, H), in the place of W_ih x_t: the pre-activations without biases,
        and the gradient of x is theirs.
    w_hh : ndarray
        (H, H).
    b_ih, b_hh : ndarray or None, optional
        (H,) each. None: zeros.
    leak : ndarray or float
        a: (H,), or one number for all units. It is a weight like others, and not clamped.
    form : {"rate", "potential"}
        Whether the leak is that of f(z) or of z.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity", "hard_sigmoid"}
        f; hard_sigmoid(z) is min(max(z + 3, 0), 6)/6, as in PyTorch and Keras 3.
    lengths : integer sequence, optional
        (B,), ``0 <= length <= T``: how many steps of each row count. Beyond them output is zero
        and x is not read; a row's final state is that of its own last step. One integer will do
        for one sequence.
    mask : boolean array, optional
        (T, B), or (T,) for one sequence. A step where it is false is skipped: the state passes
        unchanged, output is zero, x is not read, and there is no restart. Results are, to the bit,
        those of the row without these steps. With `lengths`, both must hold.
    restart : boolean array, optional
        The reset mask, (T, B), or (T,) for one sequence. Where true, the state before step t is
        zero, never h_0; of potentials v, so W_hh multiplies f(0).
    reverse : bool
        Process each row from its last step to its first. output[t] stays aligned with x[t].
    record : bool
        Whether to return a tape for `leaky_backward`.
    check : bool
        Whether the tape should notice, when it is used, that an array which it refers to was
        changed. This reads every one of them once in forward and once in backward.

    Returns
    -------
    output : ndarray
        (T, B, H), or (T, H): every h_t, or f(v_t).
    h_n : ndarray
        (B, H), or (H,): the state after the last step processed, h or v; h_0 where a row has no
        steps.
    tape : LeakyRNNTape or None
        For `leaky_backward`. It refers to x, the weights and output, which must not be changed
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
    fastrnn.reference.leaky_forward : the same in plain NumPy.

    References
    ----------
    .. [1] H. Jaeger, M. Lukosevicius, D. Popovici and U. Siewert, "Optimization and applications of
       echo state networks with leaky-integrator neurons", Neural Networks 20 (2007), 335-352.
    .. [2] H. Sompolinsky, A. Crisanti and H. J. Sommers, "Chaos in random neural networks",
       Physical Review Letters 61 (1988), 259-262.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> one = np.array([[1.0]])
    >>> output, h_n, tape = fastrnn.leaky_forward(
    ...     x, None, one, one, leak=0.5, nonlinearity="relu"
    ... )
    >>> output.ravel()
    array([0.5, 1.5])
    """
    arrays = (x, h_0, None, w_ih, w_hh, b_ih, b_hh, (leak,))
    output, h_n, _, tape = run(
        LEAKY, arrays, (form, nonlinearity), lengths, mask, restart, reverse, record, check
    )
    return output, h_n, tape


def leaky_step(
    x_t: Array,
    h: Array | None,
    w_ih: Array | None,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    leak: Array | float,
    form: str = "rate",
    nonlinearity: str = "tanh",
    out: Array | None = None,
) -> Array:
    """Take one step of a leaky Elman layer.

    The bits are those of `leaky_forward`, step after step. For the body of a loop over time, where
    each step needs what was made of the one before: nothing is recorded and nothing is kept, the
    weights are read anew. Where they stay as they are, ``layer.stream()`` is faster.

    Parameters
    ----------
    x_t : ndarray
        (B, D), or (D,) for one row; float32 or float64.
    h : ndarray or None
        (B, H), or (H,) for one row: the state before, h or v. None: zeros.
    w_ih : ndarray or None
        (H, D). None: x_t is (B, H), in the place of W_ih x_t.
    w_hh : ndarray
        (H, H).
    b_ih, b_hh : ndarray or None, optional
        (H,) each. None: zeros.
    leak : ndarray or float
        a: (H,), or one number for all units.
    form : {"rate", "potential"}
        Whether the leak is that of f(z) or of z.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity", "hard_sigmoid"}
        f.
    out : ndarray, optional
        Like h: where the state is written. It may be h itself, or x_t, but share no memory with a
        weight. No array is made then.

    Returns
    -------
    ndarray
        (B, H), or (H,): the state after the step, `out` where that is given: h, or of potentials v,
        whose output is f(v).

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
    leaky_forward : all steps of a sequence at once, with the equations.
    fastrnn.reference.leaky_step : the same in plain NumPy.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> one, h = np.array([[1.0]]), np.zeros(1)
    >>> for x_t in np.array([[1.0], [2.0], [3.0]]):
    ...     h = fastrnn.leaky_step(x_t, h, one, one, leak=0.5, nonlinearity="relu", out=h)
    >>> h
    array([3.])
    """
    arrays = (x_t, h, None, w_ih, w_hh, b_ih, b_hh, (leak,))
    made: Array = step(LEAKY, arrays, (form, nonlinearity), out)
    return made


def leaky_backward(
    tape: LeakyRNNTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> LeakyRNNGradients:
    """Gradients of a leaky Elman layer: backpropagation through time [1]_.

    Parameters
    ----------
    tape : LeakyRNNTape
        From `leaky_forward`, of either backend. It is not changed.
    d_output : ndarray or None
        The loss's gradient with respect to output, of output's shape and dtype. None: zeros.
        Padding is ignored.
    d_h_n : ndarray or None
        The loss's gradient with respect to h_n, of its shape and dtype. None: zeros.
    wrt : collection of str, optional
        Which gradients to compute: names out of "x", "h_0", "w_ih", "w_hh", "b_ih", "b_hh",
        "leak". What is left out costs nothing. None: all.

    Returns
    -------
    LeakyRNNGradients
        A named tuple with a field for each of these names, None where the argument was None or
        was left out. The gradients of weights are summed over time and batch; that of padding is
        zero.

    Raises
    ------
    TypeError
        If the tape is not one of `leaky_forward`, or a gradient does not have the tape's dtype.
    ValueError
        If both gradients are None, a shape does not fit, or `wrt` holds another name.
    RuntimeError
        If the tape was made with ``check=True`` and an array that it refers to has changed.
    MemoryError
        If there is no memory for the results.

    See Also
    --------
    fastrnn.reference.leaky_backward : the same in plain NumPy, with the equations.

    References
    ----------
    .. [1] P. J. Werbos, "Backpropagation through time: what it does and how to do it",
       Proceedings of the IEEE 78 (1990), 1550-1560.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> one = np.array([[1.0]])
    >>> output, h_n, tape = fastrnn.leaky_forward(
    ...     x, None, one, one, leak=0.5, nonlinearity="relu"
    ... )
    >>> grads = fastrnn.leaky_backward(tape, d_h_n=np.array([[1.0]]), wrt=["w_ih", "leak"])
    >>> grads.w_ih, grads.leak
    (array([[1.5]]), array(3.))
    """
    grads: LeakyRNNGradients = backward([(tape, d_output, d_h_n, None, wrt, {}, None)], LEAKY)[0]
    return grads
