"""Gated recurrent units in plain NumPy: the specification of `fastrnn.gru_forward`, gru_backward.

The letters are those of the equations in the docstrings, with the batch in the rows. Gates are
stacked in the order r, z, n.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes
from . import sequences, steps
from .arguments import CellSpec, CellTape, backward_arguments, forward_arguments, is_whole
from .sequences import sigmoid

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._tapes import Digests, MaybeNone

    Array = NDArray[Any]


CELL = CellSpec("gru", "GRU", 3, 4, ("h",), ("reset_after",), kept=("gates",))


@_tapes.changed_in_place
class GRUGradients(NamedTuple):
    """What gru_backward returns: a gradient for each array argument of gru_forward, or None.

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


class _GRUTapeFields(NamedTuple):
    x: Array
    h_0: Array | None
    w_ih: Array | None
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    output: Array
    gates: Array
    lengths: Array | None
    mask: Array | None
    restart: Array | None
    reset_after: bool
    reverse: bool
    unbatched: bool
    batch_major: bool
    digests: Digests | None
    checkpoint: int = 0


class GRUTape(CellTape, _GRUTapeFields):
    """What gru_forward keeps for gru_backward. Immutable; either backend takes it.

    It refers to x, the weights and the output, which must not be changed before backward; h_0,
    lengths, mask and restart are its own copies. One sequence without a batch axis is kept with
    B = 1.

    Attributes
    ----------
    x : ndarray
        (T, B, D); the pre-activations (T, B, 3·H) where w_ih is None.
    h_0 : ndarray or None
    w_ih : ndarray or None
    w_hh : ndarray
    b_ih, b_hh : ndarray or None
        As given to forward.
    output : ndarray
        (T, B, H).
    gates : ndarray or None
        (T, B, 4·H): r, z, n and a of the equations in `gru_forward`; None with a checkpoint.
    lengths : ndarray or None
        (B,) of int64; None where mask says that too.
    mask : ndarray or None
        (T, B) of bool: which steps count.
    restart : ndarray or None
        (T, B) of bool.
    reset_after, reverse : bool
        As given to forward.
    unbatched : bool
        Whether x came without a batch axis.
    batch_major : bool
        Whether output, and so the gradient of x, lies in memory as (B, T, .).
    digests : tuple or None
        Of the arrays that are referred to, with ``check=True``.
    checkpoint : int
        K, where backward makes K steps at a time again; 0: none.
    """

    __slots__ = ()
    _cell = CELL
    _arguments = GRUGradients._fields

    def _options(self) -> list[str]:
        return [] if self.reset_after else ["reset_after=False"]


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
    """Run a GRU layer over a sequence, in plain NumPy: see `fastrnn.gru_forward`.

    The equations, for each step t of a row, with the reset gate applied after the product with
    W_hn, which is one product of the three gates then [2]_::

        r   = sigmoid(b_ir + b_hr + W_ir x_t + W_hr h_{t-1})
        z   = sigmoid(b_iz + b_hz + W_iz x_t + W_hz h_{t-1})
        a   = b_hn + W_hn h_{t-1}
        n   = tanh(b_in + W_in x_t + r a)
        h_t = n + z (h_{t-1} - n)

    or, where `reset_after` is False, before it [1]_::

        a   = r h_{t-1}
        n   = tanh(b_in + b_hn + W_in x_t + W_hn a)

    Where w_ih is None, x_t stands for W_ih x_t.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
       machine translation", EMNLP 2014, 1724-1734.
    .. [2] J. Appleyard, T. Kociský and P. Blunsom, "Optimizing performance of recurrent neural
       networks on GPUs", arXiv:1604.01946 (2016).

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x, h_0 = np.zeros((2, 1, 1)), np.array([[8.0]])
    >>> zeros = np.zeros((3, 1))
    >>> output, h_n, tape = reference.gru_forward(x, h_0, zeros, zeros)
    >>> output.ravel()  # z = 1/2, n = 0
    array([4., 2.])
    """
    arrays, lengths, mask, restart, unbatched = forward_arguments(
        CELL, (x, h_0, None, w_ih, w_hh, b_ih, b_hh, ()), lengths, mask, restart
    )
    x, h_0, _, w_ih, w_hh, b_ih, b_hh, _ = arrays
    reset_after = _checks.flag("reset_after", reset_after)
    reverse = _checks.flag("reverse", reverse)
    record = _checks.flag("record", record)
    check = _checks.flag("check", check)

    (steps, batch, _), hidden, dtype = x.shape, w_hh.shape[1], x.dtype
    live, fresh = sequences.masks(steps, batch, lengths, mask, restart)
    bias = sequences.bias_sum(b_ih, b_hh, 3 * hidden, dtype)
    b_in, b_hn = (0 if b is None else b[2 * hidden :] for b in (b_ih, b_hh))
    b_rz, b_n = np.split(bias, [2 * hidden])
    w_hrz, w_hn = np.split(w_hh, [2 * hidden])

    output = np.zeros((steps, batch, hidden), dtype)
    gates = np.zeros((steps, batch, 4 * hidden), dtype)
    h = sequences.initial(h_0, batch, hidden, dtype)
    with np.errstate(all="ignore"):  # infinities and NaN are ordinary values here
        for t in sequences.order(steps, reverse):
            on = live[t]
            h_prev = np.where(fresh[t, on, None], 0, h[on])
            x_rz, x_n = np.split(sequences.input_part(x[t, on], w_ih), [2 * hidden], axis=1)
            r, z = np.split(sigmoid(b_rz + x_rz + h_prev @ w_hrz.T), 2, axis=1)
            if reset_after:
                a = b_hn + h_prev @ w_hn.T
                n = np.tanh(b_in + x_n + r * a)
            else:
                a = r * h_prev
                n = np.tanh(b_n + x_n + a @ w_hn.T)
            h[on] = output[t, on] = n + z * (h_prev - n)
            gates[t, on] = np.concatenate([r, z, n, a], axis=1)

    tape = None
    if record:
        h_0 = None if h_0 is None else h_0.copy()
        tape = GRUTape(
            x, h_0, w_ih, w_hh, b_ih, b_hh, output, gates, lengths, mask, restart,
            reset_after, reverse, unbatched, False, None,
        )  # fmt: skip
        tape = tape._with_digests() if check else tape
    return (output[:, 0], h[0], tape) if unbatched else (output, h, tape)


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
    """Take one step of a GRU layer, in plain NumPy: see `fastrnn.gru_step`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.gru_step(np.ones(2), np.ones(1), np.zeros((3, 2)), np.zeros((3, 1)))
    array([0.5])
    """
    arrays = (x_t, h, None, w_ih, w_hh, b_ih, b_hh, ())
    made: Array = steps.step(CELL, gru_forward, arrays, out, reset_after=reset_after)
    return made


def gru_backward(
    tape: GRUTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> GRUGradients:
    """Gradients of a GRU layer, in plain NumPy: see `fastrnn.gru_backward`.

    Backpropagation through time [1]_, where sigmoid' is s (1 - s) and tanh' is 1 - s² of its value
    s; dzg is the gradient of the gate z's pre-activation. From the last step of a row to its
    first, starting with carry = d_h_n::

        dh     = carry + d_output_t
        dn     = dh (1-z) (1-n²)
        dzg    = dh (h_{t-1} - n) z (1-z)
        dr     = dn a r (1-r)
        da     = dn r
        dz_x   = [dr dzg dn]          dz_h = [dr dzg da]
        d_x_t  = W_ihᵀ dz_x
        carry  = dh z + W_hhᵀ dz_h, or 0 where the row restarts at t; finally d_h_0
        d_w_ih += dz_x x_tᵀ           d_w_hh += dz_h h_{t-1}ᵀ
        d_b_ih += dz_x                d_b_hh += dz_h

    or, where `reset_after` is False::

        s      = W_hnᵀ dn
        dr     = s h_{t-1} r (1-r)
        dz_x   = dz_h = [dr dzg dn]
        carry  = dh z + s r + [W_hr; W_hz]ᵀ [dr dzg]
        d_w_hh += [dr dzg] h_{t-1}ᵀ in the rows of r and z, dn (r h_{t-1})ᵀ in those of n

    References
    ----------
    .. [1] P. J. Werbos, "Backpropagation through time: what it does and how to do it",
       Proceedings of the IEEE 78 (1990), 1550-1560.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x, h_0 = np.zeros((2, 1, 1)), np.array([[8.0]])
    >>> zeros = np.zeros((3, 1))
    >>> output, h_n, tape = reference.gru_forward(x, h_0, zeros, zeros)
    >>> reference.gru_backward(tape, d_h_n=np.array([[1.0]])).h_0  # z = 1/2, twice
    array([[0.25]])
    """
    _checks.tape(tape, GRUTape, "gru_forward")
    tape, d_output, d_h_n, _, wanted = backward_arguments(
        tape, d_output, d_h_n, None, wrt, is_whole
    )
    gradients, _ = bptt(tape, d_output, d_h_n)
    return sequences.chosen(gradients, wanted, tape.unbatched)  # type: ignore[no-any-return]


def bptt(tape: GRUTape, d_output: Array | None, d_h_n: Array | None) -> tuple[GRUGradients, Array]:
    """Every gradient, and (T, B) the norm of that of the state, dh."""
    if tape.checkpoint:  # by a layer, compiled: what is not on the tape is made again
        *_, whole = gru_forward(
            *tape[:6], reset_after=tape.reset_after, lengths=tape.lengths, mask=tape.mask,
            restart=tape.restart, reverse=tape.reverse,
        )  # fmt: skip
        assert whole is not None
        tape = whole
    x, w_ih, w_hh, output = tape.x, tape.w_ih, tape.w_hh, tape.output
    steps, batch, hidden = output.shape
    live, fresh = sequences.masks(steps, batch, tape.lengths, tape.mask, tape.restart)
    h_prev = sequences.before(output, tape.h_0, live, fresh, tape.reverse)
    w_hrz, w_hn = np.split(w_hh, [2 * hidden])

    d_output = np.zeros_like(output) if d_output is None else d_output
    carry = sequences.initial(d_h_n, batch, hidden, x.dtype)
    dh, d_x = np.zeros_like(output), np.zeros(x.shape, x.dtype)
    dz_x = np.zeros((steps, batch, 3 * hidden), x.dtype)
    dz_h = np.zeros_like(dz_x)
    with np.errstate(all="ignore"):
        for t in reversed(sequences.order(steps, tape.reverse)):
            on = live[t]
            r, z, n, a = np.split(tape.gates[t, on], 4, axis=1)
            dh[t, on] = carry[on] + d_output[t, on]
            dn = dh[t, on] * (1 - z) * (1 - n**2)
            dzg = dh[t, on] * (h_prev[t, on] - n) * z * (1 - z)
            if tape.reset_after:
                dr, da = dn * a * r * (1 - r), dn * r
                dz_h[t, on] = np.concatenate([dr, dzg, da], axis=1)
                d_prev = dh[t, on] * z + dz_h[t, on] @ w_hh
            else:
                s = dn @ w_hn
                dr = s * h_prev[t, on] * r * (1 - r)
                dz_h[t, on] = np.concatenate([dr, dzg, dn], axis=1)
                d_prev = dh[t, on] * z + s * r + np.concatenate([dr, dzg], axis=1) @ w_hrz
            dz_x[t, on] = np.concatenate([dr, dzg, dn], axis=1)
            carry[on] = np.where(fresh[t, on, None], 0, d_prev)
        # Of the weights: sums over time and batch.
        d_x[live], d_w_ih = sequences.input_gradients(dz_x[live], x[live], w_ih)
        d_w_hh = dz_h[live].T @ h_prev[live]
        if not tape.reset_after:  # what W_hn is multiplied with is a = r h
            dn, a = dz_h[live][:, 2 * hidden :], tape.gates[live][:, 3 * hidden :]
            d_w_hh[2 * hidden :] = dn.T @ a
        d_b_ih, d_b_hh = dz_x[live].sum(axis=0), dz_h[live].sum(axis=0)
    return GRUGradients(d_x, carry, d_w_ih, d_w_hh, d_b_ih, d_b_hh), sequences.norm_of(dh)
