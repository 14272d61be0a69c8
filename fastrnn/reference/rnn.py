"""The Elman network in plain NumPy: the specification of `fastrnn.rnn_forward` and `rnn_backward`.

The letters are those of the equations in the docstrings, with the batch in the rows:
``z = b_ih + b_hh + x @ w_ih.T + h_prev @ w_hh.T`` and ``h = f(z)``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes
from . import sequences, steps
from .arguments import CellSpec, CellTape, backward_arguments, forward_arguments, is_whole
from .nonlinearities import NONLINEARITIES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._tapes import Digests, MaybeNone

    Array = NDArray[Any]


CELL = CellSpec("rnn", "RNN", 1, 0, ("h",), ("nonlinearity",))


@_tapes.changed_in_place
class RNNGradients(NamedTuple):
    """What rnn_backward returns: a gradient for each array argument of rnn_forward, or None.

    A field has the shape and dtype of its argument. It is None where the argument was None or
    where `wrt` leaves it out.

    Attributes
    ----------
    x, h_0 : ndarray or None
        (T, B, D) and (B, H), without B for one sequence.
    w_ih, w_hh, b_ih, b_hh : ndarray or None
        Of weights: sums over time and batch.
    """

    x: Array | MaybeNone
    h_0: Array | MaybeNone
    w_ih: Array | MaybeNone
    w_hh: Array | MaybeNone
    b_ih: Array | MaybeNone
    b_hh: Array | MaybeNone


class _RNNTapeFields(NamedTuple):
    x: Array
    h_0: Array | None
    w_ih: Array | None
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    output: Array
    lengths: Array | None
    mask: Array | None
    restart: Array | None
    nonlinearity: str
    reverse: bool
    unbatched: bool
    batch_major: bool
    digests: Digests | None


class RNNTape(CellTape, _RNNTapeFields):
    """What rnn_forward keeps for rnn_backward. Immutable; either backend takes it.

    It refers to x, the weights and the output, which must not be changed before backward; h_0,
    lengths, mask and restart are its own copies. One sequence without a batch axis is kept with
    B = 1.

    Attributes
    ----------
    x : ndarray
        (T, B, D); the pre-activations (T, B, H) where w_ih is None.
    h_0 : ndarray or None
    w_ih : ndarray or None
    w_hh : ndarray
    b_ih, b_hh : ndarray or None
        As given to forward.
    output : ndarray
        (T, B, H).
    lengths : ndarray or None
        (B,) of int64; None where mask says that too.
    mask : ndarray or None
        (T, B) of bool: which steps count.
    restart : ndarray or None
        (T, B) of bool.
    nonlinearity : str
        As given to forward.
    reverse : bool
        As given to forward.
    unbatched : bool
        Whether x came without a batch axis.
    batch_major : bool
        Whether output, and so the gradient of x, lies in memory as (B, T, .).
    digests : tuple or None
        Of the arrays that are referred to, with ``check=True``.
    """

    __slots__ = ()
    _cell = CELL
    _arguments = RNNGradients._fields

    def _options(self) -> list[str]:
        return [repr(self.nonlinearity)]


def rnn_forward(
    x: Array,
    h_0: Array | None,
    w_ih: Array | None,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    restart: ArrayLike | None = None,
    reverse: bool = False,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, Array, RNNTape | MaybeNone]:
    """Run an Elman layer over a sequence, in plain NumPy: see `fastrnn.rnn_forward`.

    The equations [1]_, for each step t of a row, with f one of `nonlinearities.py`::

        z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}
        h_t = f(z_t)

    Where w_ih is None, x_t stands for W_ih x_t.

    References
    ----------
    .. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> one = np.array([[1.0]])
    >>> output, h_n, tape = reference.rnn_forward(x, None, one, one, nonlinearity="relu")
    >>> output.ravel()
    array([1., 3.])
    """
    arrays, lengths, mask, restart, unbatched = forward_arguments(
        CELL, (x, h_0, None, w_ih, w_hh, b_ih, b_hh, ()), lengths, mask, restart
    )
    x, h_0, _, w_ih, w_hh, b_ih, b_hh, _ = arrays
    nonlinearity = _checks.choice("nonlinearity", nonlinearity, NONLINEARITIES)
    reverse = _checks.flag("reverse", reverse)
    record = _checks.flag("record", record)
    check = _checks.flag("check", check)

    (steps, batch, _), units, dtype = x.shape, len(w_hh), x.dtype
    live, fresh = sequences.masks(steps, batch, lengths, mask, restart)
    f = NONLINEARITIES[nonlinearity].f
    bias = sequences.bias_sum(b_ih, b_hh, units, dtype)

    output = np.zeros((steps, batch, units), dtype)
    h = sequences.initial(h_0, batch, units, dtype)
    with np.errstate(all="ignore"):  # infinities and NaN are ordinary values here
        for t in sequences.order(steps, reverse):
            on = live[t]
            h_prev = np.where(fresh[t, on, None], 0, h[on])
            z = bias + sequences.input_part(x[t, on], w_ih) + h_prev @ w_hh.T
            h[on] = output[t, on] = f(z)

    tape = None
    if record:
        h_0 = None if h_0 is None else h_0.copy()
        tape = RNNTape(
            x, h_0, w_ih, w_hh, b_ih, b_hh, output, lengths, mask, restart,
            nonlinearity, reverse, unbatched, False, None,
        )  # fmt: skip
        tape = tape._with_digests() if check else tape
    return (output[:, 0], h[0], tape) if unbatched else (output, h, tape)


def rnn_step(
    x_t: Array,
    h: Array | None,
    w_ih: Array | None,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    out: Array | None = None,
) -> Array:
    """Take one step of an Elman layer, in plain NumPy: see `fastrnn.rnn_step`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> one = np.array([[1.0]])
    >>> reference.rnn_step(np.array([2.0]), np.array([1.0]), one, one, nonlinearity="relu")
    array([3.])
    """
    arrays = (x_t, h, None, w_ih, w_hh, b_ih, b_hh, ())
    made: Array = steps.step(CELL, rnn_forward, arrays, out, nonlinearity=nonlinearity)
    return made


def rnn_backward(
    tape: RNNTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> RNNGradients:
    """Gradients of an Elman layer, in plain NumPy: see `fastrnn.rnn_backward`.

    Backpropagation through time [1]_. f'(z) is taken from h = f(z). From the last step of a row to
    its first, starting with carry = d_h_n::

        dh      = carry + d_output_t
        dz      = dh · f'(z_t)
        d_x_t   = W_ihᵀ dz
        carry   = W_hhᵀ dz, or 0 where the row restarts at t; finally d_h_0
        d_w_ih += dz x_tᵀ        d_w_hh += dz h_{t-1}ᵀ        d_b += dz

    References
    ----------
    .. [1] P. J. Werbos, "Backpropagation through time: what it does and how to do it",
       Proceedings of the IEEE 78 (1990), 1550-1560.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> one = np.array([[1.0]])
    >>> output, h_n, tape = reference.rnn_forward(x, None, one, one, nonlinearity="relu")
    >>> reference.rnn_backward(tape, d_h_n=np.array([[1.0]])).w_ih
    array([[3.]])
    """
    _checks.tape(tape, RNNTape, "rnn_forward")
    tape, d_output, d_h_n, _, wanted = backward_arguments(
        tape, d_output, d_h_n, None, wrt, is_whole
    )
    gradients, _ = bptt(tape, d_output, d_h_n)
    return sequences.chosen(gradients, wanted, tape.unbatched)  # type: ignore[no-any-return]


def bptt(tape: RNNTape, d_output: Array | None, d_h_n: Array | None) -> tuple[RNNGradients, Array]:
    """Every gradient, and (T, B) the norm of that of the state, dh."""
    x, h_0, w_ih, w_hh, output = tape.x, tape.h_0, tape.w_ih, tape.w_hh, tape.output
    steps, batch, units = output.shape
    nonlinearity = _checks.choice("nonlinearity", tape.nonlinearity, NONLINEARITIES)
    f_back = NONLINEARITIES[nonlinearity].back
    live, fresh = sequences.masks(steps, batch, tape.lengths, tape.mask, tape.restart)
    h_prev = sequences.before(output, h_0, live, fresh, tape.reverse)

    d_output = np.zeros_like(output) if d_output is None else d_output
    carry = sequences.initial(d_h_n, batch, units, x.dtype)
    dh, dz = np.zeros_like(output), np.zeros_like(output)
    d_x = np.zeros(x.shape, x.dtype)
    with np.errstate(all="ignore"):
        for t in reversed(sequences.order(steps, tape.reverse)):
            on = live[t]
            h = output[t, on]
            dh[t, on] = carry[on] + d_output[t, on]
            dz[t, on] = f_back(h, dh[t, on])
            carry[on] = np.where(fresh[t, on, None], 0, dz[t, on] @ w_hh)
        # Of the weights: sums over time and batch.
        d_x[live], d_w_ih = sequences.input_gradients(dz[live], x[live], w_ih)
        d_w_hh = dz[live].T @ h_prev[live]
        d_b = dz[live].sum(axis=0)
    gradients = RNNGradients(d_x, carry, d_w_ih, d_w_hh, d_b, d_b.copy())
    return gradients, sequences.norm_of(dh)
