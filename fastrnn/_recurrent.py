"""What the Python side of all recurrent cells shares: which cells there are, checks, tapes.

Both backends check here, which makes them raise the same errors, before any work is done. Shapes
are given in the letters of the equations; P, the units of the state h, is H but for an LSTM with a
projection. A well-formed call takes the fast path through `_core.cell_fits`, about a microsecond;
everything else, wrong or merely unusual, goes the careful way, which converts or explains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy import ndarray

from . import _checks, _core, _tapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Cell(NamedTuple):
    """A cell: its gates, whose rows are stacked in w_ih, w_hh, b_ih and b_hh, and its states."""

    name: str
    gates: int
    states: tuple[str, ...]


RNN = Cell("rnn", 1, ("h",))
LSTM = Cell("lstm", 4, ("h", "c"))
GRU = Cell("gru", 3, ("h",))
CELLS = {cell.name: cell for cell in (RNN, LSTM, GRU)}


# ------------------------------------------------------------------------------ forward


class Arguments(NamedTuple):
    """The arguments of a cell's forward, as the kernel takes them."""

    x: Array
    h_0: Array | None
    c_0: Array | None
    w_ih: Array
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    w_hr: Array | None
    w_peep: Array | None
    lengths: Array | None
    restart: Array | None
    unbatched: bool


def forward_arguments(
    cell: Cell,
    x: Any,
    h_0: Any,
    c_0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    w_hr: Any,
    w_peep: Any,
    lengths: Any,
    restart: Any,
) -> Arguments:
    """Check what a cell's forward was given and bring it into the form that the kernel takes.

    What a cell does not have is None.

    Returns
    -------
    Arguments
        x (T, B, D) with unit stride on the last axis, h_0 (B, P), c_0 (B, H) and the weights
        C-contiguous, lengths (B,) int64, restart (T, B) bool, and whether x came without a batch
        axis. lengths and restart are fresh copies; the others are the caller's arrays wherever
        those will do.
    """
    fits = _core.cell_fits(cell.gates, x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep)
    if not fits:
        x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep = _checked(
            cell, x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep
        )
    unbatched = x.ndim == 2
    if unbatched:
        x = x[:, None]
        h_0 = None if h_0 is None else h_0[None]
        c_0 = None if c_0 is None else c_0[None]
    steps, batch = x.shape[:2]
    if lengths is not None:
        lengths = _checks.lengths_array(lengths, steps, batch, unbatched)
    if restart is not None:
        axes = ("T",) if unbatched else ("T", "B")
        restart = _checks.restart_array(restart, axes, {"T": steps, "B": batch})
        restart = restart.reshape(steps, batch)
    if not fits:  # nothing is copied before everything has been checked
        x = _checks.strided(x)
        h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep = (
            None if a is None else _checks.contiguous(a)
            for a in (h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep)
        )
    return Arguments(x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, lengths, restart, unbatched)


def _checked(
    cell: Cell,
    x: Any,
    h_0: Any,
    c_0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    w_hr: Any,
    w_peep: Any,
) -> tuple[Any, ...]:
    """The arrays, of one type and of shapes that fit together."""
    # Types first, in the order of the signature, so that every array below has a rank and a type.
    x = _checks.array("x", x)
    h_0 = None if h_0 is None else _checks.array("h_0", h_0, x.dtype)
    c_0 = None if c_0 is None else _checks.array("c_0", c_0, x.dtype)
    w_ih = _checks.array("w_ih", w_ih, x.dtype)
    w_hh = _checks.array("w_hh", w_hh, x.dtype)
    b_ih = None if b_ih is None else _checks.array("b_ih", b_ih, x.dtype)
    b_hh = None if b_hh is None else _checks.array("b_hh", b_hh, x.dtype)
    w_hr = None if w_hr is None else _checks.array("w_hr", w_hr, x.dtype)
    w_peep = None if w_peep is None else _checks.array("w_peep", w_peep, x.dtype)

    unbatched = _checks.sequence_axes(x, "T", "B")
    rows = "H" if cell.gates == 1 else f"{cell.gates}·H"
    units = "H" if w_hr is None else "P"
    sizes = _sizes(cell, w_hh, w_hr, rows)
    sizes |= {"T": x.shape[0], "B": 1 if unbatched else x.shape[1], "D": x.shape[-1]}
    _checks.shape("w_hh", w_hh.shape, (rows, units), sizes)
    _checks.shape("w_ih", w_ih.shape, (rows, "D"), sizes)
    hint = ", because x is one sequence without a batch axis" if unbatched else ""
    for name, a, axes in (
        ("h_0", h_0, (units,) if unbatched else ("B", units)),
        ("c_0", c_0, ("H",) if unbatched else ("B", "H")),
        ("b_ih", b_ih, (rows,)),
        ("b_hh", b_hh, (rows,)),
        ("w_hr", w_hr, ("P", "H")),
        ("w_peep", w_peep, ("3·H",)),
    ):
        if a is not None:
            _checks.shape(name, a.shape, axes, sizes, hint if name in ("h_0", "c_0") else "")
    # The largest array of results and tape: output, or the gates of a cell that has any.
    largest = {"H": sizes["H"]} if cell.gates == 1 else {"4·H": 4 * sizes["H"]}
    _checks.elements(T=sizes["T"], B=sizes["B"], **largest)
    return x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep


def _sizes(cell: Cell, w_hh: Array, w_hr: Array | None, rows: str) -> dict[str, int]:
    """The sizes that the weights say, with which the other arguments must agree."""
    if w_hh.ndim != 2:
        _checks.shape("w_hh", w_hh.shape, (rows, "H" if w_hr is None else "P"), {})
    if w_hr is None:  # the state has H units, so w_hh has H columns
        units = w_hh.shape[1]
        return {"H": units, rows: cell.gates * units, "3·H": 3 * units}
    if w_hr.ndim != 2:
        _checks.shape("w_hr", w_hr.shape, ("P", "H"), {})
    projected, (units, rest) = len(w_hr), divmod(len(w_hh), cell.gates)
    if rest:
        raise ValueError(
            f"w_hh has shape {w_hh.shape}, expected ({rows}, P), but {len(w_hh)} rows are not "
            f"{cell.gates} times a whole number"
        )
    if not 0 < projected < units:
        raise ValueError(
            f"w_hr has shape {w_hr.shape}, expected (P, H) with 0 < P < H = {units}: a projection "
            "must be smaller than the hidden size"
        )
    return {"H": units, "P": projected, rows: len(w_hh), "3·H": 3 * units}


# ------------------------------------------------------------------------------ tapes


class CellTape(_tapes.Tape):
    """Mixed into the named tuple of a cell's tape, whose first fields are the array arguments."""

    __slots__ = ()
    cell: ClassVar[Cell]
    arguments: ClassVar[tuple[str, ...]]  # the array arguments: the fields of the gradients

    def absent(self: Any) -> set[str]:
        """The arguments of forward that were None: they have no gradient."""
        # Tapes begin with these arguments.
        return {name for name, a in zip(self.arguments, self, strict=False) if a is None}

    def shared(self: Any) -> tuple[str, ...]:
        """The names of the arrays that the caller has too, which must stay as they were."""
        own = (*(f"{state}_0" for state in self.cell.states), *self.absent())
        kept = [name for name in ("c", "gates") if getattr(self, name, None) is not None]
        return (*(name for name in self.arguments if name not in own), "output", *kept)

    def with_digests(self: Any) -> Any:
        """The tape that notices, when it is used, that one of the caller's arrays has changed."""
        digests = _tapes.digests(**{name: getattr(self, name) for name in self.shared()})
        return self._replace(digests=digests)

    def __repr__(self: Any) -> str:
        steps, batch, features = self.x.shape
        units = len(self.w_hh) // self.cell.gates
        parts = [f"T={steps}", f"B={batch}", f"D={features}", f"H={units}"]
        if "w_hr" in self.arguments and self.w_hr is not None:
            parts.append(f"P={len(self.w_hr)}")
        parts.append(str(self.x.dtype))
        parts += self._options()
        parts += [name for name in ("reverse", "unbatched") if getattr(self, name)]
        if getattr(self, "checkpoint", 0):
            parts.append(f"checkpoint={self.checkpoint}")
        parts += [name for name in ("lengths", "restart") if getattr(self, name) is not None]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _options(self) -> list[str]:
        """What this cell alone has, for its repr."""
        return []


# ------------------------------------------------------------------------------ backward


def backward_arguments(
    tape: Any, kind: type[CellTape], d_output: Any, d_h_n: Any, d_c_n: Any, wrt: Any
) -> tuple[Any, Array | None, Array | None, Array | None, frozenset[str]]:
    """Check the arguments of a cell's backward.

    Parameters
    ----------
    tape, d_output, d_h_n, d_c_n, wrt
        As the caller gave them.
    kind : type
        Which tape it must be; CellTape allows that of any cell.

    Returns
    -------
    tuple
        The tape that was checked, which is the one to use, d_output (T, B, P), d_h_n (B, P) and
        d_c_n (B, H), each of them or None, and the names of the gradients to compute.
    """
    if not isinstance(tape, kind):
        cells = CELLS if kind is CellTape else (kind.cell.name,)
        _checks.tape(tape, kind, " or ".join(f"{name}_forward" for name in cells))
    tape = _tapes.as_made(tape)
    if not _is_whole(tape):
        raise ValueError(_checks.RESHAPED)
    wanted = _checks.names("wrt", wrt, tape.arguments)
    if d_output is None and d_h_n is None and d_c_n is None:
        states = {f"d_{state}_n": None for state in tape.cell.states}
        _checks.some_gradient(d_output=None, **states)
    units = "P" if len(tape.cell.states) == 2 and tape.w_hr is not None else "H"
    unbatched = tape.unbatched
    if d_output is not None:
        d_output = _sequence_gradient("d_output", d_output, tape.output, units, unbatched)
    if d_h_n is not None:
        d_h_n = _state_gradient("d_h_n", d_h_n, tape.output, units, unbatched)
    if d_c_n is not None:
        if "c" not in tape.cell.states:
            raise ValueError(f"d_c_n is given, but {tape.cell.name}_forward has no state c")
        d_c_n = _state_gradient("d_c_n", d_c_n, tape.c, "H", unbatched)
    if tape.digests is not None:
        _tapes.unchanged(tape)
    return tape, d_output, d_h_n, d_c_n, wanted - tape.absent()


def _is_whole(tape: Any) -> bool:
    """Whether every array of the tape is still what forward left there.

    The kernel believes what it is handed, and an array can be given another shape in place.
    """
    cell = tape.cell
    c_0 = w_hr = w_peep = c = gates = None
    checkpoint = 0
    if cell is not RNN:
        gates, checkpoint = tape.gates, tape.checkpoint
    if cell is LSTM:
        c_0, w_hr, w_peep, c = tape.c_0, tape.w_hr, tape.w_peep, tape.c
    return _core.tape_fits(
        cell.gates, tape.x, tape.h_0, c_0, tape.w_ih, tape.w_hh, tape.b_ih, tape.b_hh, w_hr, w_peep,
        tape.output, c, gates, checkpoint, tape.lengths, tape.restart,
    )  # fmt: skip


def _is_plain(a: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    """Whether the kernel can take this array as it is, as one of this type and shape."""
    return (
        type(a) is ndarray
        and a.dtype == dtype
        and a.shape == shape
        and a.flags.c_contiguous
        and a.flags.aligned
    )


def _sequence_gradient(name: str, value: Any, like: Array, units: str, unbatched: bool) -> Array:
    """d_output: an array like `like` (T, B, .), without the batch axis where x had none."""
    if not unbatched and _is_plain(value, like.dtype, like.shape):
        return value  # type: ignore[no-any-return]
    value = _checks.array(name, value, like.dtype, "the tape")
    sizes = dict(zip(("T", "B", units), like.shape, strict=True))
    axes = ("T", units) if unbatched else ("T", "B", units)
    _checks.shape(name, value.shape, axes, sizes)
    return _checks.strided(value[:, None] if unbatched else value)


def _state_gradient(name: str, value: Any, like: Array, units: str, unbatched: bool) -> Array:
    """d_h_n or d_c_n: (B, .) as a step of `like` (T, B, .); (.,) where x had no batch axis."""
    if not unbatched and _is_plain(value, like.dtype, like.shape[1:]):
        return value  # type: ignore[no-any-return]
    value = _checks.array(name, value, like.dtype, "the tape")
    sizes = {"B": like.shape[1], units: like.shape[2]}
    _checks.shape(name, value.shape, (units,) if unbatched else ("B", units), sizes)
    return _checks.contiguous(value[None] if unbatched else value)
