"""Long short-term memory in plain NumPy: the specification of `fastrnn.lstm_forward`, backward.

The letters are those of the equations in the docstrings, with the batch in the rows. Gates are
stacked in the order i, f, g, o; peepholes in the order i, f, o.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes
from . import sequences, steps
from .arguments import CellSpec, CellTape, Extra, backward_arguments, forward_arguments, is_whole
from .sequences import sigmoid

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._tapes import Digests, MaybeNone

    Array = NDArray[Any]


CELL = CellSpec(
    "lstm", "LSTM", 4, 4, ("h", "c"),
    extras=(Extra("w_hr", ("P", "H"), "weight_hr"), Extra("w_peep", ("3·H",), "weight_peephole")),
    kept=("c", "gates"),
)  # fmt: skip


@_tapes.changed_in_place
class LSTMGradients(NamedTuple):
    """What lstm_backward returns: a gradient for each array argument of lstm_forward, or None.

    A field has the shape and dtype of its argument. It is None where the argument was None or
    where `wrt` leaves it out.

    Attributes
    ----------
    x, h_0, c_0 : ndarray or None
        (T, B, D), (B, P) and (B, H), without B for one sequence.
    w_ih, w_hh, b_ih, b_hh, w_hr, w_peep : ndarray or None
        Of weights: sums over time and batch.
    """

    x: Array | MaybeNone
    h_0: Array | MaybeNone
    c_0: Array | MaybeNone
    w_ih: Array | MaybeNone
    w_hh: Array | MaybeNone
    b_ih: Array | MaybeNone
    b_hh: Array | MaybeNone
    w_hr: Array | MaybeNone
    w_peep: Array | MaybeNone


class _LSTMTapeFields(NamedTuple):
    x: Array
    h_0: Array | None
    c_0: Array | None
    w_ih: Array | None
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    w_hr: Array | None
    w_peep: Array | None
    output: Array
    c: Array
    gates: Array
    lengths: Array | None
    mask: Array | None
    restart: Array | None
    reverse: bool
    unbatched: bool
    batch_major: bool
    digests: Digests | None
    checkpoint: int = 0


class LSTMTape(CellTape, _LSTMTapeFields):
    """What lstm_forward keeps for lstm_backward. Immutable; either backend takes it.

    It refers to x, the weights and the output, which must not be changed before backward; h_0, c_0,
    lengths, mask and restart are its own copies. One sequence without a batch axis is kept with
    B = 1.

    Attributes
    ----------
    x : ndarray
        (T, B, D); the pre-activations (T, B, 4·H) where w_ih is None.
    h_0, c_0 : ndarray or None
    w_ih : ndarray or None
    w_hh : ndarray
    b_ih, b_hh, w_hr, w_peep : ndarray or None
        As given to forward.
    output : ndarray
        (T, B, P).
    c : ndarray
        (T, B, H): the state c after every step; with a checkpoint ((T-1)//checkpoint, B, H).
    gates : ndarray or None
        (T, B, 4·H): i, f, g, o; None with a checkpoint.
    lengths : ndarray or None
        (B,) of int64; None where mask says that too.
    mask : ndarray or None
        (T, B) of bool: which steps count.
    restart : ndarray or None
        (T, B) of bool.
    reverse : bool
        As given to forward.
    unbatched : bool
        Whether x came without a batch axis.
    batch_major : bool
        Whether output, and so the gradient of x, lies in memory as (B, T, .).
    digests : tuple or None
        Of the arrays that are referred to, with ``check=True``.
    checkpoint : int
        K, where c is only that after steps K, 2·K, ... in the order of processing; 0: none.
    """

    __slots__ = ()
    _cell = CELL
    _arguments = LSTMGradients._fields

    def _options(self) -> list[str]:
        return [] if self.w_peep is None else ["peepholes"]


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
    """Run an LSTM layer over a sequence, in plain NumPy: see `fastrnn.lstm_forward`.

    The equations [1]_ with forget gates [2]_, for each step t of a row::

        z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}
        i   = sigmoid(z_i)        f = sigmoid(z_f)        g = tanh(z_g)
        c_t = f c_{t-1} + i g
        o   = sigmoid(z_o)
        m_t = o tanh(c_t)
        h_t = m_t, or W_hr m_t with a projection [3]_

    With peepholes [4]_ the gates see c: p_i c_{t-1} is added to z_i, p_f c_{t-1} to z_f, and
    p_o c_t to z_o. Where w_ih is None, x_t stands for W_ih x_t.

    References
    ----------
    .. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997),
       1735-1780.
    .. [2] F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to forget: continual prediction with
       LSTM", Neural Computation 12 (2000), 2451-2471.
    .. [3] H. Sak, A. Senior and F. Beaufays, "Long short-term memory recurrent neural network
       architectures for large scale acoustic modeling", Interspeech 2014, 338-342.
    .. [4] F. A. Gers, N. N. Schraudolph and J. Schmidhuber, "Learning precise timing with LSTM
       recurrent networks", Journal of Machine Learning Research 3 (2002), 115-143.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x, c_0 = np.zeros((2, 1, 1)), np.array([[8.0]])
    >>> zeros = np.zeros((4, 1))
    >>> output, h_n, c_n, tape = reference.lstm_forward(x, None, c_0, zeros, zeros)
    >>> tape.c.ravel()  # f = 1/2, g = 0
    array([4., 2.])
    """
    arrays, lengths, mask, restart, unbatched = forward_arguments(
        CELL, (x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, (w_hr, w_peep)), lengths, mask, restart
    )
    x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, (w_hr, w_peep) = arrays
    reverse = _checks.flag("reverse", reverse)
    record = _checks.flag("record", record)
    check = _checks.flag("check", check)

    (steps, batch, _), dtype = x.shape, x.dtype
    hidden, units = len(w_hh) // 4, w_hh.shape[1]
    live, fresh = sequences.masks(steps, batch, lengths, mask, restart)
    bias = sequences.bias_sum(b_ih, b_hh, 4 * hidden, dtype)
    if w_peep is not None:
        p_i, p_f, p_o = np.split(w_peep, 3)

    output = np.zeros((steps, batch, units), dtype)
    cells = np.zeros((steps, batch, hidden), dtype)
    gates = np.zeros((steps, batch, 4 * hidden), dtype)
    h = sequences.initial(h_0, batch, units, dtype)
    c = sequences.initial(c_0, batch, hidden, dtype)
    with np.errstate(all="ignore"):  # infinities and NaN are ordinary values here
        for t in sequences.order(steps, reverse):
            on = live[t]
            h_prev = np.where(fresh[t, on, None], 0, h[on])
            c_prev = np.where(fresh[t, on, None], 0, c[on])
            z = bias + sequences.input_part(x[t, on], w_ih) + h_prev @ w_hh.T
            z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
            if w_peep is not None:
                z_i, z_f = z_i + p_i * c_prev, z_f + p_f * c_prev
            i, f, g = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g)
            c_t = f * c_prev + i * g
            if w_peep is not None:
                z_o = z_o + p_o * c_t
            o = sigmoid(z_o)
            m = o * np.tanh(c_t)
            h[on] = output[t, on] = m if w_hr is None else m @ w_hr.T
            c[on] = cells[t, on] = c_t
            gates[t, on] = np.concatenate([i, f, g, o], axis=1)

    tape = None
    if record:
        h_0 = None if h_0 is None else h_0.copy()
        c_0 = None if c_0 is None else c_0.copy()
        tape = LSTMTape(
            x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, output, cells, gates,
            lengths, mask, restart, reverse, unbatched, False, None,
        )  # fmt: skip
        tape = tape._with_digests() if check else tape
    return (output[:, 0], h[0], c[0], tape) if unbatched else (output, h, c, tape)


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
    """Take one step of an LSTM layer, in plain NumPy: see `fastrnn.lstm_step`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> w_ih, w_hh = np.zeros((4, 2)), np.zeros((4, 1))
    >>> h, c = reference.lstm_step(np.ones(2), None, np.ones(1), w_ih, w_hh)
    >>> c
    array([0.5])
    """
    arrays = (x_t, h, c, w_ih, w_hh, b_ih, b_hh, (w_hr, w_peep))
    made: tuple[Array, Array] = steps.step(CELL, lstm_forward, arrays, out)
    return made


def lstm_backward(
    tape: LSTMTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    d_c_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> LSTMGradients:
    """Gradients of an LSTM layer, in plain NumPy: see `fastrnn.lstm_backward`.

    Backpropagation through time [1]_, where sigmoid' is s (1 - s) and tanh' is 1 - s² of its value
    s. From the last step of a row to its first, starting with carry_h = d_h_n, carry_c = d_c_n::

        dh = carry_h + d_output_t
        dm = dh, or W_hrᵀ dh with a projection
        do = dm tanh(c_t) o (1-o)
        dc = carry_c + dm o (1 - tanh(c_t)²)  [+ p_o do]
        di = dc g i (1-i)        df = dc c_{t-1} f (1-f)        dg = dc i (1-g²)
        dz = [di df dg do]
        d_x_t   = W_ihᵀ dz
        carry_c = dc f  [+ p_i di + p_f df]
        carry_h = W_hhᵀ dz, both 0 where the row restarts at t; finally d_c_0 and d_h_0
        d_w_ih += dz x_tᵀ        d_w_hh += dz h_{t-1}ᵀ        d_b += dz        d_w_hr += dh m_tᵀ
        d_p_i  += di c_{t-1}     d_p_f  += df c_{t-1}         d_p_o += do c_t

    References
    ----------
    .. [1] P. J. Werbos, "Backpropagation through time: what it does and how to do it",
       Proceedings of the IEEE 78 (1990), 1550-1560.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x, c_0 = np.zeros((2, 1, 1)), np.array([[8.0]])
    >>> zeros = np.zeros((4, 1))
    >>> output, h_n, c_n, tape = reference.lstm_forward(x, None, c_0, zeros, zeros)
    >>> reference.lstm_backward(tape, d_c_n=np.array([[1.0]])).c_0  # f = 1/2, twice
    array([[0.25]])
    """
    _checks.tape(tape, LSTMTape, "lstm_forward")
    tape, d_output, d_h_n, d_c_n, wanted = backward_arguments(
        tape, d_output, d_h_n, d_c_n, wrt, is_whole
    )
    gradients, _ = bptt(tape, d_output, d_h_n, d_c_n)
    return sequences.chosen(gradients, wanted, tape.unbatched)  # type: ignore[no-any-return]


def bptt(
    tape: LSTMTape, d_output: Array | None, d_h_n: Array | None, d_c_n: Array | None
) -> tuple[LSTMGradients, Array]:
    """Every gradient, and (T, B) the norm of that of the state: of (dh, carry_c)."""
    if tape.checkpoint:  # by a layer, compiled: what is not on the tape is made again
        *_, whole = lstm_forward(
            *tape[:7], w_hr=tape.w_hr, w_peep=tape.w_peep, lengths=tape.lengths, mask=tape.mask,
            restart=tape.restart, reverse=tape.reverse,
        )  # fmt: skip
        assert whole is not None
        tape = whole
    x, w_ih, w_hh, w_hr, w_peep = tape.x, tape.w_ih, tape.w_hh, tape.w_hr, tape.w_peep
    output, c = tape.output, tape.c
    steps, batch, units = output.shape
    live, fresh = sequences.masks(steps, batch, tape.lengths, tape.mask, tape.restart)
    h_prev = sequences.before(output, tape.h_0, live, fresh, tape.reverse)
    c_prev = sequences.before(c, tape.c_0, live, fresh, tape.reverse)
    tanh_c = np.tanh(c)
    if w_peep is not None:
        p_i, p_f, p_o = np.split(w_peep, 3)

    d_output = np.zeros_like(output) if d_output is None else d_output
    carry_h = sequences.initial(d_h_n, batch, units, x.dtype)
    carry_c = sequences.initial(d_c_n, batch, c.shape[2], x.dtype)
    dh, dc_after, dz = np.zeros_like(output), np.zeros_like(c), np.zeros_like(tape.gates)
    d_x = np.zeros(x.shape, x.dtype)
    with np.errstate(all="ignore"):
        for t in reversed(sequences.order(steps, tape.reverse)):
            on = live[t]
            i, f, g, o = np.split(tape.gates[t, on], 4, axis=1)
            dh[t, on] = carry_h[on] + d_output[t, on]
            dc_after[t, on] = carry_c[on]
            dm = dh[t, on] if w_hr is None else dh[t, on] @ w_hr
            do = dm * tanh_c[t, on] * o * (1 - o)
            dc = carry_c[on] + dm * o * (1 - tanh_c[t, on] ** 2)
            if w_peep is not None:
                dc += p_o * do
            di = dc * g * i * (1 - i)
            df = dc * c_prev[t, on] * f * (1 - f)
            dg = dc * i * (1 - g**2)
            dc_prev = dc * f
            if w_peep is not None:
                dc_prev += p_i * di + p_f * df
            dz[t, on] = np.concatenate([di, df, dg, do], axis=1)
            carry_c[on] = np.where(fresh[t, on, None], 0, dc_prev)
            carry_h[on] = np.where(fresh[t, on, None], 0, dz[t, on] @ w_hh)
        # Of the weights: sums over time and batch.
        d_x[live], d_w_ih = sequences.input_gradients(dz[live], x[live], w_ih)
        d_w_hh = dz[live].T @ h_prev[live]
        d_b = dz[live].sum(axis=0)
        d_i, d_f, _, d_o = np.split(dz[live], 4, axis=1)
        d_p = [(d_i, c_prev), (d_f, c_prev), (d_o, c)]
        d_w_peep = np.concatenate([(d * cells[live]).sum(axis=0) for d, cells in d_p])
        m = np.split(tape.gates[live], 4, axis=1)[3] * tanh_c[live]
        d_w_hr = dh[live].T @ m
    gradients = LSTMGradients(
        d_x, carry_h, carry_c, d_w_ih, d_w_hh, d_b, d_b.copy(), d_w_hr, d_w_peep
    )
    return gradients, sequences.norm_of(dh, dc_after)
