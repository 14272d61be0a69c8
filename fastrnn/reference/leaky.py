"""The leaky Elman network in plain NumPy: the specification of `fastrnn.leaky_forward` and
`leaky_backward`.

The letters are those of the equations in the docstrings, with the batch in the rows. Of the
potential form h is v, of which output is f(v); both are called state here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes
from . import sequences, steps
from .arguments import (
    CellSpec,
    CellTape,
    Extra,
    backward_arguments,
    forward_arguments,
    gradients_of_numbers,
    is_whole,
    numbers,
)
from .nonlinearities import NONLINEARITIES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._tapes import Digests, MaybeNone

    Array = NDArray[Any]


FORMS = ("rate", "potential")
CELL = CellSpec(
    "leaky", "LeakyRNN", 1, 1, ("h",), ("form", "nonlinearity"),
    extras=(Extra("leak", ("H",), "weight_leak", required=True),),
    kept=("c", "gates"),
)  # fmt: skip


@_tapes.changed_in_place
class LeakyRNNGradients(NamedTuple):
    """What leaky_backward returns: a gradient for each array argument of leaky_forward, or None.

    A field has the shape and dtype of its argument. It is None where the argument was None or
    where `wrt` leaves it out.

    Attributes
    ----------
    x, h_0 : ndarray or None
        (T, B, D) and (B, H), without B for one sequence.
    w_ih, w_hh, b_ih, b_hh, leak : ndarray or None
        Of weights: sums over time and batch; of a leak that was one number, over the units too,
        and () in shape.
    """

    x: Array | MaybeNone
    h_0: Array | MaybeNone
    w_ih: Array | MaybeNone
    w_hh: Array | MaybeNone
    b_ih: Array | MaybeNone
    b_hh: Array | MaybeNone
    leak: Array | MaybeNone


class _LeakyRNNTapeFields(NamedTuple):
    x: Array
    h_0: Array | None
    w_ih: Array | None
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    leak: Array | float
    output: Array
    c: Array | None
    gates: Array
    lengths: Array | None
    mask: Array | None
    restart: Array | None
    form: str
    nonlinearity: str
    reverse: bool
    unbatched: bool
    batch_major: bool
    digests: Digests | None
    checkpoint: int = 0


class LeakyRNNTape(CellTape, _LeakyRNNTapeFields):
    """What leaky_forward keeps for leaky_backward. Immutable; either backend takes it.

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
    leak : ndarray or float
        As given to forward.
    output : ndarray
        (T, B, H).
    c : ndarray or None
        (T, B, H): v of the potential form, at every step; of every K-th step with a checkpoint.
    gates : ndarray or None
        (T, B, H): f(z_t) of the rate form, z_t - v_{t-1} of the potential form; None with a
        checkpoint.
    lengths : ndarray or None
        (B,) of int64; None where mask says that too.
    mask : ndarray or None
        (T, B) of bool: which steps count.
    restart : ndarray or None
        (T, B) of bool.
    form, nonlinearity : str
    reverse : bool
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
    _arguments = LeakyRNNGradients._fields

    @property
    def _has_c(self) -> bool:
        return self.form == "potential"

    def _options(self) -> list[str]:
        return [repr(self.form), repr(self.nonlinearity)]


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
    """Run a leaky Elman layer over a sequence, in plain NumPy: see `fastrnn.leaky_forward`.

    The equations, for each step t of a row, with a the leak; of rates [1]_::

        h_t = (1 - a) h_{t-1} + a f(b_ih + b_hh + W_ih x_t + W_hh h_{t-1})        output h_t

    and of potentials [2]_, where h_0 and h_n are v::

        v_t = (1 - a) v_{t-1} + a (b_ih + b_hh + W_ih x_t + W_hh f(v_{t-1}))      output f(v_t)

    Where w_ih is None, x_t stands for W_ih x_t.

    References
    ----------
    .. [1] H. Jaeger, M. Lukosevicius, D. Popovici and U. Siewert, "Optimization and applications of
       echo state networks with leaky-integrator neurons", Neural Networks 20 (2007), 335-352.
    .. [2] H. Sompolinsky, A. Crisanti and H. J. Sommers, "Chaos in random neural networks",
       Physical Review Letters 61 (1988), 259-262.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> one = np.array([[1.0]])
    >>> output, h_n, tape = reference.leaky_forward(
    ...     x, None, one, one, leak=0.5, nonlinearity="relu"
    ... )
    >>> output.ravel()
    array([0.5, 1.5])
    """
    arguments = (x, h_0, None, w_ih, w_hh, b_ih, b_hh, (leak,))
    arrays, lengths, mask, restart, unbatched = forward_arguments(
        CELL, arguments, lengths, mask, restart
    )
    x, h_0, _, w_ih, w_hh, b_ih, b_hh, (a,) = arrays
    form = _checks.choice("form", form, FORMS)
    nonlinearity = _checks.choice("nonlinearity", nonlinearity, NONLINEARITIES)
    reverse = _checks.flag("reverse", reverse)
    record = _checks.flag("record", record)
    check = _checks.flag("check", check)

    (steps, batch, _), units, dtype = x.shape, len(w_hh), x.dtype
    live, fresh = sequences.masks(steps, batch, lengths, mask, restart)
    f, potential = NONLINEARITIES[nonlinearity].f, form == "potential"
    bias = sequences.bias_sum(b_ih, b_hh, units, dtype)

    output = np.zeros((steps, batch, units), dtype)
    gates, c = np.zeros_like(output), np.zeros_like(output) if potential else None
    state = sequences.initial(h_0, batch, units, dtype)
    with np.errstate(all="ignore"):  # infinities and NaN are ordinary values here
        for t in sequences.order(steps, reverse):
            on = live[t]
            prev = np.where(fresh[t, on, None], 0, state[on])
            h_prev = f(prev) if potential else prev
            z = bias + sequences.input_part(x[t, on], w_ih) + h_prev @ w_hh.T
            now = z if potential else f(z)
            state[on] = (1 - a) * prev + a * now
            output[t, on] = f(state[on]) if potential else state[on]
            gates[t, on] = z - prev if potential else now
            if c is not None:
                c[t, on] = state[on]

    tape = None
    if record:
        h_0 = None if h_0 is None else h_0.copy()
        a = numbers(CELL, arguments).get("leak", a)
        tape = LeakyRNNTape(
            x, h_0, w_ih, w_hh, b_ih, b_hh, a, output, c, gates, lengths, mask, restart,
            form, nonlinearity, reverse, unbatched, False, None,
        )  # fmt: skip
        tape = tape._with_digests() if check else tape
    return (output[:, 0], state[0], tape) if unbatched else (output, state, tape)


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
    """Take one step of a leaky Elman layer, in plain NumPy: see `fastrnn.leaky_step`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> one = np.array([[1.0]])
    >>> x_t, h = np.array([2.0]), np.array([1.0])
    >>> reference.leaky_step(x_t, h, one, one, leak=0.5, nonlinearity="relu")
    array([2.])
    """
    arrays = (x_t, h, None, w_ih, w_hh, b_ih, b_hh, (leak,))
    made: Array = steps.step(CELL, leaky_forward, arrays, out, form=form, nonlinearity=nonlinearity)
    return made


def leaky_backward(
    tape: LeakyRNNTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> LeakyRNNGradients:
    """Gradients of a leaky Elman layer, in plain NumPy: see `fastrnn.leaky_backward`.

    Backpropagation through time, from the last step of a row to its first, starting with
    carry = d_h_n. Of rates, with r_t = f(z_t)::

        dh      = carry + d_output_t
        dz      = a dh · f'(z_t)
        d_leak += dh · (r_t - h_{t-1})
        carry   = (1 - a) dh + W_hhᵀ dz

    of potentials::

        dv      = carry + d_output_t · f'(v_t)
        dz      = a dv
        d_leak += dv · (z_t - v_{t-1})
        carry   = (1 - a) dv + (W_hhᵀ dz) · f'(v_{t-1})

    and the carry is 0 where the row restarts at t; finally it is d_h_0. d_x, d_w_ih, d_w_hh, d_b
    are made from dz as in `rnn_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> one = np.array([[1.0]])
    >>> output, h_n, tape = reference.leaky_forward(
    ...     x, None, one, one, leak=0.5, nonlinearity="relu"
    ... )
    >>> reference.leaky_backward(tape, d_h_n=np.array([[1.0]])).leak
    array(3.)
    """
    _checks.tape(tape, LeakyRNNTape, "leaky_forward")
    tape, d_output, d_h_n, _, wanted = backward_arguments(
        tape, d_output, d_h_n, None, wrt, is_whole
    )
    gradients, _ = bptt(tape, d_output, d_h_n)
    gradients = gradients_of_numbers(tape, gradients)
    return sequences.chosen(gradients, wanted, tape.unbatched)  # type: ignore[no-any-return]


def bptt(
    tape: LeakyRNNTape, d_output: Array | None, d_h_n: Array | None
) -> tuple[LeakyRNNGradients, Array]:
    """Every gradient, and (T, B) the norm of that of the state, dh or dv."""
    if tape.checkpoint:  # by a layer, compiled: what is not on the tape is made again
        *_, whole = leaky_forward(
            *tape[:6], leak=tape.leak, form=tape.form, nonlinearity=tape.nonlinearity,
            lengths=tape.lengths, mask=tape.mask, restart=tape.restart, reverse=tape.reverse,
        )  # fmt: skip
        tape = whole
    x, h_0, w_ih, w_hh, output = tape.x, tape.h_0, tape.w_ih, tape.w_hh, tape.output
    steps, batch, units = output.shape
    live, fresh = sequences.masks(steps, batch, tape.lengths, tape.mask, tape.restart)
    form = _checks.choice("form", tape.form, FORMS)
    nonlinearity = _checks.choice("nonlinearity", tape.nonlinearity, NONLINEARITIES)
    (f, f_back), potential = NONLINEARITIES[nonlinearity], form == "potential"
    # What W_hh was multiplied by.
    if potential:
        zero = f(np.zeros((), x.dtype))
        h_0 = np.full((batch, units), zero, x.dtype) if h_0 is None else f(h_0)
        h_prev = sequences.before(output, h_0, live, fresh, tape.reverse)
        h_prev = np.where(fresh[..., None], zero, h_prev)
    else:
        h_prev = sequences.before(output, h_0, live, fresh, tape.reverse)

    d_output = np.zeros_like(output) if d_output is None else d_output
    carry = sequences.initial(d_h_n, batch, units, x.dtype)
    d_state, dz, d_a = np.zeros_like(output), np.zeros_like(output), np.zeros_like(output)
    d_x = np.zeros(x.shape, x.dtype)
    a = np.asarray(tape.leak, x.dtype)
    with np.errstate(all="ignore"):
        for t in reversed(sequences.order(steps, tape.reverse)):
            on = live[t]
            kept, d_out = tape.gates[t, on], d_output[t, on]
            if potential:
                d = carry[on] + f_back(output[t, on], d_out)
                dz[t, on] = a * d
                d_a[t, on] = d * kept
                through = f_back(h_prev[t, on], dz[t, on] @ w_hh)
            else:
                d = carry[on] + d_out
                dz[t, on] = f_back(kept, a * d)
                d_a[t, on] = d * (kept - h_prev[t, on])
                through = dz[t, on] @ w_hh
            d_state[t, on] = d
            carry[on] = np.where(fresh[t, on, None], 0, (1 - a) * d + through)
        # Of the weights: sums over time and batch.
        d_x[live], d_w_ih = sequences.input_gradients(dz[live], x[live], w_ih)
        d_w_hh = dz[live].T @ h_prev[live]
        d_b = dz[live].sum(axis=0)
        d_leak = d_a[live].sum(axis=0)
    gradients = LeakyRNNGradients(d_x, carry, d_w_ih, d_w_hh, d_b, d_b.copy(), d_leak)
    return gradients, sequences.norm_of(d_state)
