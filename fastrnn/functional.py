"""The functions: one layer, one direction. They check, allocate, and hand over to the kernel."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from numpy import empty

from . import _checks, _core, reference
from .config import current_backend, current_threads
from .reference.rnn import RNNGradients, RNNTape, backward_arguments, tape_digests

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]

NONLINEARITY_CODES = {"tanh": 0, "relu": 1}  # enum fastrnn_nonlinearity


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
    return _rnn_forward(
        x, h_0, w_ih, w_hh, b_ih, b_hh,
        nonlinearity, lengths, restart, reverse, record, check, False,
    )  # fmt: skip


def _rnn_forward(
    x: Any,
    h_0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    nonlinearity: Any,
    lengths: Any,
    restart: Any,
    reverse: Any,
    record: Any,
    check: Any,
    batch_major: bool,
) -> tuple[Array, Array, RNNTape | None]:
    """rnn_forward; with `batch_major`, output (T, B, H) lies in memory as (B, T, H)."""
    if current_backend.get() == "reference":
        return reference.rnn_forward(
            x, h_0, w_ih, w_hh, b_ih, b_hh, nonlinearity=nonlinearity, lengths=lengths,
            restart=restart, reverse=reverse, record=record, check=check,
        )  # fmt: skip
    unbatched = False
    if (
        lengths is not None
        or restart is not None
        or _core.rnn_fits(x, h_0, w_ih, w_hh, b_ih, b_hh) != 3
        or type(nonlinearity) is not str
        or nonlinearity not in NONLINEARITY_CODES
    ):  # any but the most common form, which rnn_arguments would take 0.15 us to leave as it is
        x, h_0, w_ih, w_hh, b_ih, b_hh, lengths, restart, unbatched = _checks.rnn_arguments(
            x, h_0, w_ih, w_hh, b_ih, b_hh, nonlinearity, lengths, restart
        )
    if not (type(reverse) is type(record) is type(check) is bool):
        reverse = _checks.flag("reverse", reverse)
        record = _checks.flag("record", record)
        check = _checks.flag("check", check)

    output, h_n = _core.rnn_forward(
        x, h_0, w_ih, w_hh, b_ih, b_hh, lengths, restart,
        NONLINEARITY_CODES[nonlinearity], reverse, batch_major, current_threads.get(),
    )  # fmt: skip
    tape = None
    if record:
        # The tape has its own h_0: callers carry the state on, and clear rows of it in place.
        h_0 = None if h_0 is None else h_0.copy()
        tape = RNNTape(
            x, h_0, w_ih, w_hh, b_ih, b_hh, output, lengths, restart,
            nonlinearity, reverse, unbatched, batch_major, None,
        )  # fmt: skip
        if check:
            tape = tape._replace(digests=tape_digests(tape))
    return (output[:, 0], h_n[0], tape) if unbatched else (output, h_n, tape)


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
    return _rnn_backward(tape, d_output, d_h_n, wrt, {})


def _rnn_backward(
    tape: Any, d_output: Any, d_h_n: Any, wrt: Any, into: dict[str, Array]
) -> RNNGradients:
    """rnn_backward; a weight gradient whose name is in `into` is written there."""
    if current_backend.get() == "reference":
        grads = reference.rnn_backward(tape, d_output, d_h_n, wrt=wrt)
        for name, place in into.items():
            place[...] = getattr(grads, name)
        return grads._replace(**into)
    d_output, d_h_n, wanted = backward_arguments(tape, d_output, d_h_n, wrt)
    x, w_ih, w_hh, output = tape.x, tape.w_ih, tape.w_hh, tape.output
    steps, batch, features = x.shape
    units = len(w_hh)
    dtype = x.dtype

    def result(name: str, *sizes: int) -> Array | None:
        if name not in wanted:
            return None
        place = into.get(name)
        return empty(sizes, dtype) if place is None else place

    d_x = None
    if "x" in wanted:
        d_x = _core.empty_sequence(steps, batch, features, dtype.num, tape.batch_major)
    d_h_0 = result("h_0", batch, units)
    d_w_ih, d_w_hh = result("w_ih", units, features), result("w_hh", units, units)
    d_b_ih, d_b_hh = result("b_ih", units), result("b_hh", units)
    if output.size:
        _core.rnn_backward(
            x, tape.h_0, w_ih, w_hh, output, tape.lengths, tape.restart, d_output, d_h_n,
            d_x, d_h_0, d_w_ih, d_w_hh, d_b_hh if d_b_ih is None else d_b_ih,
            NONLINEARITY_CODES[tape.nonlinearity], tape.reverse, current_threads.get(),
        )  # fmt: skip
    else:  # no step was made: sums of nothing, and the state went through
        for gradient in (d_x, d_w_ih, d_w_hh, d_b_ih, d_b_hh):
            if gradient is not None:
                gradient[...] = 0
        if d_h_0 is not None:
            d_h_0[...] = 0 if d_h_n is None else d_h_n
    if d_b_ih is not None and d_b_hh is not None:
        d_b_hh[...] = d_b_ih  # both biases enter the same sum
    if tape.unbatched:
        d_x = None if d_x is None else d_x[:, 0]
        d_h_0 = None if d_h_0 is None else d_h_0[0]
    return RNNGradients(d_x, d_h_0, d_w_ih, d_w_hh, d_b_ih, d_b_hh)
