"""The Elman network in plain NumPy: the specification of `fastrnn.rnn_forward` and `rnn_backward`.

The letters are those of the equations in the docstrings, with the batch in the rows:
``z = b_ih + b_hh + x @ w_ih.T + h_prev @ w_hh.T`` and ``h = f(z)``.

One mechanism serves lengths, restarts and both directions: a step works on the rows that are
`live`, and its previous state is zero where the row restarts. Padding is never touched, so nothing
in it, not even a NaN, can reach a result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class RNNGradients(NamedTuple):
    """What rnn_backward returns: a gradient for each array argument of rnn_forward, or None.

    A field has the shape and dtype of its argument. It is None where the argument was None or
    where `wrt` leaves it out.
    """

    x: Array | None
    h_0: Array | None
    w_ih: Array | None
    w_hh: Array | None
    b_ih: Array | None
    b_hh: Array | None


_EVERY = frozenset(RNNGradients._fields)


class _RNNTapeFields(NamedTuple):
    x: Array
    h_0: Array | None
    w_ih: Array
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    output: Array
    lengths: Array | None
    restart: Array | None
    nonlinearity: str
    reverse: bool
    unbatched: bool
    batch_major: bool  # memory order of output, and so of the gradient of x
    digests: _tapes.Digests | None


class RNNTape(_tapes.Tape, _RNNTapeFields):
    """What rnn_forward keeps for rnn_backward. Immutable; either backend takes it.

    It refers to x, the weights and the output, which must not be changed before backward; h_0,
    lengths and restart are its own copies. One sequence without a batch axis is kept with B = 1.
    """

    __slots__ = ()

    def absent(self) -> set[str]:
        """The arguments of forward that were None: they have no gradient."""
        if self.h_0 is not None and self.b_ih is not None and self.b_hh is not None:
            return set()
        return {name for name in ("h_0", "b_ih", "b_hh") if getattr(self, name) is None}

    def __repr__(self) -> str:
        steps, batch, features = self.x.shape
        parts = [f"T={steps}", f"B={batch}", f"D={features}", f"H={len(self.w_hh)}"]
        parts += [str(self.x.dtype), repr(self.nonlinearity)]
        parts += [name for name in ("reverse", "unbatched") if getattr(self, name)]
        parts += [name for name in ("lengths", "restart") if getattr(self, name) is not None]
        return f"RNNTape({', '.join(parts)})"


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
    """Run an Elman layer over a sequence, in plain NumPy: see `fastrnn.rnn_forward`.

    The equations [1]_, for each step t of a row, with f tanh or relu::

        z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}
        h_t = f(z_t)

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
    x, h_0, w_ih, w_hh, b_ih, b_hh, lengths, restart, unbatched = _checks.rnn_arguments(
        x, h_0, w_ih, w_hh, b_ih, b_hh, nonlinearity, lengths, restart
    )
    reverse = _checks.flag("reverse", reverse)
    record = _checks.flag("record", record)
    check = _checks.flag("check", check)

    steps, batch, _ = x.shape
    units = len(w_hh)
    live, fresh = _masks(steps, batch, lengths, restart)
    f: Callable[[Array], Array] = np.tanh if nonlinearity == "tanh" else _relu
    bias = np.zeros(units, x.dtype)
    for b in (b_ih, b_hh):
        if b is not None:
            bias = bias + b

    output = np.zeros((steps, batch, units), x.dtype)
    h = np.zeros((batch, units), x.dtype) if h_0 is None else h_0.copy()
    with np.errstate(all="ignore"):  # infinities and NaN are ordinary values here
        for t in _order(steps, reverse):
            on = slice(None) if lengths is None else live[t]
            h_prev = h[on] if restart is None else np.where(fresh[t, on, None], 0, h[on])
            z = bias + x[t, on] @ w_ih.T + h_prev @ w_hh.T
            h[on] = output[t, on] = f(z)

    tape = None
    if record:
        h_0 = None if h_0 is None else h_0.copy()
        tape = RNNTape(
            x, h_0, w_ih, w_hh, b_ih, b_hh, output, lengths, restart,
            str(nonlinearity), reverse, unbatched, False, None,
        )  # fmt: skip
        if check:
            tape = tape._replace(digests=tape_digests(tape))
    return (output[:, 0], h[0], tape) if unbatched else (output, h, tape)


def rnn_backward(
    tape: RNNTape,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    *,
    wrt: Collection[str] | None = None,
) -> RNNGradients:
    """Gradients of an Elman layer, in plain NumPy: see `fastrnn.rnn_backward`.

    Backpropagation through time [1]_. Where h = f(z), f'(z) is 1 - h² for tanh, and for relu 1 or 0
    as h is positive or not. From the last step of a row to its first, starting with carry = d_h_n::

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
    d_output, d_h_n, wanted = backward_arguments(tape, d_output, d_h_n, wrt)
    x, h_0, w_ih, w_hh, output = tape.x, tape.h_0, tape.w_ih, tape.w_hh, tape.output
    steps, batch, units = output.shape
    live, fresh = _masks(steps, batch, tape.lengths, tape.restart)

    d_output = np.zeros_like(output) if d_output is None else d_output
    carry = np.zeros((batch, units), x.dtype) if d_h_n is None else d_h_n.copy()
    h_prev = _states_before(output, h_0, live, fresh, tape.reverse)
    dz = np.zeros_like(output)
    d_x = np.zeros(x.shape, x.dtype)
    with np.errstate(all="ignore"):
        for t in reversed(_order(steps, tape.reverse)):
            on = slice(None) if tape.lengths is None else live[t]
            h = output[t, on]
            dh = carry[on] + d_output[t, on]
            dz[t, on] = dh * (1 - h * h) if tape.nonlinearity == "tanh" else np.where(h <= 0, 0, dh)
            carry[on] = dz[t, on] @ w_hh
            if tape.restart is not None:
                carry[fresh[t] & live[t]] = 0
        d_x[live] = dz[live] @ w_ih
        d_w_ih = dz[live].T @ x[live]  # the sums over time and batch
        d_w_hh = dz[live].T @ h_prev[live]
        d_b = dz[live].sum(axis=0)

    if tape.unbatched:
        d_x, carry = d_x[:, 0], carry[0]
    every = RNNGradients(d_x, carry, d_w_ih, d_w_hh, d_b, d_b.copy())
    return RNNGradients(
        *(gradient if name in wanted else None for name, gradient in every._asdict().items())
    )


def backward_arguments(
    tape: Any, d_output: Any, d_h_n: Any, wrt: Any
) -> tuple[Array | None, Array | None, frozenset[str]]:
    """Check the arguments of rnn_backward; d_output (T, B, H), d_h_n (B, H), the fields to fill."""
    _checks.tape(tape, RNNTape, "rnn_forward")
    _checks.rnn_tape(tape)
    wanted = _EVERY if wrt is None else _checks.names("wrt", wrt, RNNGradients._fields)
    if d_output is None and d_h_n is None:
        _checks.some_gradient(d_output=d_output, d_h_n=d_h_n)
    output = tape.output
    if d_output is not None:
        d_output = _checks.sequence_gradient("d_output", d_output, output, tape.unbatched)
    if d_h_n is not None:
        d_h_n = _checks.state_gradient("d_h_n", d_h_n, output.shape[1], output, tape.unbatched)
    if tape.digests is not None:
        _tapes.unchanged(tape)
    return d_output, d_h_n, wanted - tape.absent()


def tape_digests(tape: RNNTape) -> _tapes.Digests:
    """Digests of every array that the tape shares with the caller."""
    shared = ("x", "w_ih", "w_hh", "b_ih", "b_hh", "output")
    return _tapes.digests(**{name: getattr(tape, name) for name in shared})


def _masks(
    steps: int, batch: int, lengths: Array | None, restart: Array | None
) -> tuple[Array, Array]:
    """Where a row is within its length, and where it starts afresh: both (T, B)."""
    live = np.ones((steps, batch), bool)
    if lengths is not None:
        live = np.arange(steps)[:, None] < lengths
    fresh = np.zeros((steps, batch), bool) if restart is None else restart
    return live, fresh


def _states_before(
    output: Array, h_0: Array | None, live: Array, fresh: Array, reverse: bool
) -> Array:
    """(T, B, H): the state that each step started from. What it says of padding means nothing."""
    before = np.zeros_like(output)
    if h_0 is not None:
        before[...] = h_0
    later, earlier = (slice(-1), slice(1, None)) if reverse else (slice(1, None), slice(-1))
    before[later] = np.where(live[earlier, :, None], output[earlier], before[later])
    return np.where(fresh[..., None], 0, before)


def _order(steps: int, reverse: bool) -> range:
    """The steps in the order of processing."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _relu(z: Array) -> Array:
    return np.where(z <= 0, 0, z)  # not maximum: so NaN passes, and -0 becomes +0
