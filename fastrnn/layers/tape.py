"""The tape of a recurrent layer, and backpropagation through its stack.

Each layer of the stack has one direction or two. Directions are counted in the order of the state's
first axis, which is PyTorch's: layer 0 forward, layer 0 reverse, layer 1 forward, ... Inside, a
sequence is time-major and has a batch axis; axes are swapped where it comes in and where it goes
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy import ndarray

from .. import _checks, _core, _cures, _tapes
from .._cures import Role
from ..cells.base import backward
from ..reference.arguments import CellSpec
from ..reference.sequences import apply_dropout, halves
from .weights import Weights, copied_gradients

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]

State = TypeVar("State")  # of a layer: h, of an LSTM the pair (h, c)


# ------------------------------------------------------------------------------ the caller's arrays


def sequence_axes(batch_first: bool, unbatched: bool, last: str) -> tuple[str, ...]:
    """The axes of a sequence as the caller sees it."""
    if unbatched:
        return ("T", last)
    return ("B", "T", last) if batch_first else ("T", "B", last)


def fitting(
    name: str,
    value: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    optional: bool = False,
) -> Array:
    """The value as an array of this type and shape."""
    array: Array = value
    if type(value) is not ndarray or value.dtype is not dtype or value.shape != shape:
        if (
            isinstance(value, tuple)
            and name != "d_output"
            and (cure := _cures.for_state(name, value, shape))
        ):
            raise TypeError(f"{name} is a tuple, expected a numpy.ndarray{cure}")
        role = Role(full=f"np.full({shape}, {name}, np.{dtype})", optional=optional)
        array = _checks.array(name, value, dtype, "the layer", role)
        _checks.shape(name, array.shape, axes, dict(zip(axes, shape, strict=True)))
    return array


def state_array(
    name: str,
    value: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    letter: str,
    optional: bool = True,
) -> Array:
    """h or c of all directions as (directions, B, n).

    Parameters
    ----------
    name, value
        What the caller calls it, and passed.
    shape : tuple of int
        What it must have: (directions, B, n), or (directions, n) for one sequence.
    letter : str
        For n.
    optional : bool
        Whether there need be none, for the cure.
    """
    optional = optional and "[" not in name
    if len(shape) == 3:
        return fitting(name, value, dtype, shape, ("layers·directions", "B", letter), optional)
    return fitting(name, value, dtype, shape, ("layers·directions", letter), optional)[:, None]


# ------------------------------------------------------------------------------ the tape


@_tapes.changed_in_place
class LayerGradients(NamedTuple, Generic[State]):
    """What a layer's backward returns; None where `wrt` leaves it out.

    Attributes
    ----------
    x : ndarray or None
        Of x's shape and dtype.
    state : ndarray, or of an LSTM a pair of them; or None
        Like the layer's state; None where forward was given none, too.
    weights : mapping of str to ndarray
        Those that were asked for, by their names: views into `flat_weights`.
    flat_weights : ndarray or None
        (n,), laid out like the layer's own; zero for weights that were not asked for. None where
        none was.
    """

    x: Array | MaybeNone
    state: State | MaybeNone
    weights: Weights
    flat_weights: Array | MaybeNone

    def __reduce__(self) -> Any:
        return copied_gradients(self)


class _LayerTapeFields(NamedTuple):
    layer: str
    cell: CellSpec
    tapes: tuple[Any, ...]
    dropped: tuple[Array, ...]
    scale: float
    batch_first: bool
    unbatched: bool
    keep: frozenset[str]


class LayerTape(_tapes.Tape, _LayerTapeFields):
    """What a layer's forward keeps for its backward: the tapes of its directions. Immutable.

    What forward was told to keep is read from `c` and `gates`: a tuple of one array for every layer
    and direction, in the order of the state's first axis. The arrays are (T, B, n), or (B, T, n) or
    (T, n) as forward's x was. All arrays belong to the tape and must not be changed before
    backward.

    Attributes
    ----------
    c : tuple of ndarray
        With ``keep=("c",)``, of an LSTM: the state c after every step, n = H; of a LeakyRNN of
        potentials the state v.
    gates : tuple of ndarray
        With ``keep=("gates",)``, of an LSTM: the gates i, f, g, o of every step, n = 4·H. Of a GRU:
        r, z, n, with n = 3·H. Of a LeakyRNN, n = H: f(z_t), or of potentials z_t - v_{t-1}.
    layer : str
        The name of the layer's class.
    cell : CellSpec
        What kind of cell it has: its name, gates and states.
    tapes : tuple of RNNTape, LSTMTape, GRUTape or LeakyRNNTape
        The tape of every layer and direction, in the order of the state's first axis; x and output
        are (T, B, n) there.
    dropped : tuple of ndarray
        What dropout made zero between each two layers, (T, B, n) of bool; empty where it did not
        act.
    scale : float
        What dropout multiplied the rest by.
    batch_first, unbatched : bool
        Which axes x had: (B, T, D), (T, D), or else (T, B, D).
    keep : frozenset of str
        As given to forward.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"LayerTape({self.layer}: {', '.join(map(repr, self.tapes))})"

    @property
    def c(self) -> tuple[Array, ...]:
        return self._kept("c")

    @property
    def gates(self) -> tuple[Array, ...]:
        return self._kept("gates")

    def _kept(self, name: str) -> tuple[Array, ...]:
        if name not in self.cell.kept or (name == "c" and not self.tapes[0]._has_c):
            raise AttributeError(f"the tape has no {name}: {self.layer} has none to keep")
        if name not in self.keep:
            raise AttributeError(f"{name} was not kept: pass keep=({name!r},) to forward")
        arrays = [getattr(tape, name) for tape in self.tapes]
        if name == "gates":  # without what else a GRU's backward needs
            arrays = [a[:, :, : len(tape.w_hh)] for a, tape in zip(arrays, self.tapes, strict=True)]
        if self.unbatched:
            return tuple(a[:, 0] for a in arrays)
        return tuple(a.swapaxes(0, 1) if self.batch_first else a for a in arrays)

    @property
    def _directions(self) -> int:
        """How many directions a layer has, 1 or 2."""
        tapes = self.tapes
        return 1 if tapes[0].reverse == tapes[-1].reverse else 2

    def _norm_arguments(self, d_output: Any, d_h_n: Any, d_c_n: Any) -> tuple[Any, Any, Any, Any]:
        """What `gradient_norms` starts from: the tape without digests, and `_gradients`."""
        if d_c_n is not None and "c" not in self.cell.states:
            raise ValueError(f"d_c_n is given, but the state of {self.layer} has no c")
        names = ("d_h_n", "d_c_n")[: len(self.cell.states)]
        start = self._gradients(d_output, names, (d_h_n, d_c_n))
        return self._unchanged(), *start

    def _norms(self, d_output: Any, d_h_n: Any, d_c_n: Any) -> Array:
        """`fastrnn.gradient_norms`: (directions, T, B), or (directions, T) for one sequence."""
        self, *start = self._norm_arguments(d_output, d_h_n, d_c_n)
        norms = np.empty((len(self.tapes), *self.tapes[0].x.shape[:2]))
        self._backward(start, [{}] * len(norms), norms=norms)
        return norms[:, :, 0] if self.unbatched else norms

    def _unchanged(self) -> LayerTape:
        """The tape without digests, once everything that they are of is found as it was.

        All of it is looked at, once, whatever part of it is needed.
        """
        if self.tapes[0].digests is None:
            return self
        for tape in self.tapes:
            _tapes.unchanged(tape)
        return self._replace(tapes=tuple(tape._replace(digests=None) for tape in self.tapes))

    def _gradients(
        self, d_output: Any, names: tuple[str, ...], d_state: Sequence[Any]
    ) -> tuple[Any, Any, Any]:
        """What backward starts from: d_output (T, B, n), the gradients of h and c
        (directions, B, n).

        `names` are the caller's names for `d_state`, one or two as the cell has states.
        """
        given = dict(zip(names, d_state, strict=False))
        _checks.some_gradient(d_output=d_output, **given)
        first = self.tapes[0]
        dtype, (steps, batch) = first.x.dtype, first.x.shape[:2]
        p, h = first.w_hh.shape[1], len(first.w_hh) // self.cell.gates
        letter = "P" if p < h else "H"
        if d_output is not None:
            count = self._directions
            last = letter if count == 1 else f"2·{letter}"
            sizes = {"T": steps, "B": batch, last: count * p}
            axes = sequence_axes(self.batch_first, self.unbatched, last)
            shape = tuple(map(sizes.__getitem__, axes))
            d_output = fitting("d_output", d_output, dtype, shape, axes)
            if self.unbatched:
                d_output = d_output[:, None]
            elif self.batch_first:
                d_output = d_output.swapaxes(0, 1)
        rows = (len(self.tapes),) if self.unbatched else (len(self.tapes), batch)
        parts: list[Array | None] = [None, None]
        for i, name in enumerate(names):
            if d_state[i] is not None:
                units, n = (letter, p) if i == 0 else ("H", h)
                parts[i] = state_array(name, d_state[i], dtype, (*rows, n), units)
        return d_output, parts[0], parts[1]

    def _joined(self) -> tuple[Array, tuple[dict[str, Array], dict[str, Array]]]:
        """A gradient for the pre-activations of both directions, and each one's part of it."""
        first = self.tapes[0]
        steps, batch, n = first.x.shape
        d_x = _core.empty_sequence(steps, batch, 2 * n, first.x.dtype.num, first.batch_major)
        return d_x, ({"x": d_x[:, :, :n]}, {"x": d_x[:, :, n:]})

    def _backward(
        self,
        start: Sequence[Any],
        into: Sequence[dict[str, Array]],
        initial: tuple[str, ...] = (),
        x_too: bool = False,
        norms: Array | None = None,
    ) -> tuple[list[tuple[Any, ...]], Array | None]:
        """Backpropagate from the last layer down to the first that anything is wanted of.

        Parameters
        ----------
        start : sequence
            What `_gradients` returns.
        into : sequence of dict
            Of each direction, where the gradients of its weights are written, by their names.
        initial : tuple of str
            Which gradients of the initial state are wanted: "h_0", "c_0".
        x_too : bool
            Whether that of x is.
        norms : ndarray, optional
            (directions, T, B), to be filled. Not on the reference backend.

        Returns
        -------
        list of tuple, ndarray or None
            The gradients `initial` of each direction, and that of x (T, B, D).
        """
        d_output, d_h, d_c = start
        n, count, every = self._directions, len(self.tapes), bool(initial) or norms is not None
        states: list[tuple[Any, ...]] = [()] * count
        lowest = 0 if every else next((i for i, places in enumerate(into) if places), count)
        for first in range(count - n, -1, -n):
            through = ("x",) if x_too or lowest < first else ()
            calls = []
            # Of pre-activations each direction has its own part.
            apart = through and n == 2 and self.tapes[first].w_ih is None
            d_x, places = self._joined() if apart else (None, None)
            for i, half in enumerate(halves(d_output, n), first):
                wrt = (*into[i], *initial, *through)
                if wrt or every:
                    d_h_n, d_c_n = None if d_h is None else d_h[i], None if d_c is None else d_c[i]
                    place = None if norms is None else norms[i]
                    own = into[i] if places is None else into[i] | places[i - first]
                    calls.append((self.tapes[i], half, d_h_n, d_c_n, wrt, own, place))
            grads = backward(calls) if calls else []
            if initial:
                for i, one in enumerate(grads, first):
                    states[i] = tuple(getattr(one, name) for name in initial)
            if not through:
                return states, None
            d_output = grads[0].x if d_x is None else d_x
            if n == 2 and d_x is None:
                with np.errstate(all="ignore"):
                    d_output += grads[1].x
            if first and self.dropped:
                apply_dropout(d_output, self.dropped[first // n - 1], self.scale, out=d_output)
        return states, d_output
