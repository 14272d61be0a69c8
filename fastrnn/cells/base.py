"""What a cell is to functions and layers, and one direction of one layer, whatever the cell.

The public functions (rnn.py, lstm.py, gru.py) call `run` and `backward`, layers `forward` and
`backward`. On the reference backend these pass everything on to `fastrnn.reference`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from numpy import empty

from .. import _checks, _core
from ..config import current_backend, current_threads
from ..reference import cells as reference
from ..reference.arguments import (
    Arrays,
    CellSpec,
    CellTape,
    backward_arguments,
    forward_arguments,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

PLAIN = (str, type(None), bool)  # the types of options that may be looked up unchecked


_of_tape: dict[type, Cell] = {}


class Cell:
    """A cell: what the reference says of it, what C says, and the classes of its results.

    Parameters
    ----------
    spec : CellSpec
        From the reference.
    kernels : dict
        The cells that C has for it, by the cell's option: {None: name} where there is none.
    tape, gradients : type
        What its forward and backward return.
    """

    def __init__(
        self, spec: CellSpec, kernels: dict[Any, str], tape: type[CellTape], gradients: Any
    ) -> None:
        numbers = {cell[0]: number for number, cell in enumerate(_core.CELLS)}
        self.spec, self.tape, self.gradients = spec, tape, gradients
        self.numbers = {option: numbers[name] for option, name in kernels.items()}
        self.number = next(iter(self.numbers.values()))  # they all have the same arguments
        _, self.gates, self.tape_gates, self.has_c, extras = _core.CELLS[self.number]
        _of_tape[tape] = self
        said = (spec.gates, "c" in spec.states, tuple((e.name, e.axes) for e in spec.extras))
        if said != (self.gates, self.has_c, extras):
            raise ImportError(f"C and the reference do not mean the same by {spec.name}")

    def kernel(self, option: Any) -> tuple[int, Any]:
        """The number of the cell that C has for an option, and this as a plain str or bool."""
        name = self.spec.option
        if name is None:
            return self.number, None
        if True in self.numbers:
            option = _checks.flag(name, option)
        else:
            option = _checks.choice(name, option, self.numbers)
        return self.numbers[option], option


# ------------------------------------------------------------------------------ forward


def run(
    cell: Cell,
    arrays: Arrays,
    option: Any,
    lengths: Any,
    restart: Any,
    reverse: Any,
    record: Any,
    check: Any,
) -> tuple[Array, Array, Any, Any]:
    """What a cell's function does: output, h_n, c_n (None where the cell has none), tape."""
    if current_backend.get() == "reference":
        return reference.forward(
            cell.spec, arrays, option, lengths=lengths, restart=restart, reverse=reverse,
            record=record, check=check,
        )  # fmt: skip
    unbatched = False
    rank = _core.arrays_fit(cell.number, arrays)
    if rank != 3 or lengths is not None or restart is not None:
        arrays, lengths, restart, unbatched = forward_arguments(
            cell.spec, arrays, lengths, restart, rank != 0
        )
    number = cell.numbers.get(option) if type(option) in PLAIN else None
    if number is None:
        number, option = cell.kernel(option)
    if not (type(reverse) is type(record) is type(check) is bool):
        reverse = _checks.flag("reverse", reverse)
        record = _checks.flag("record", record)
        check = _checks.flag("check", check)

    call = (number, arrays, lengths, restart, reverse, record, 0, False, None)
    (results,) = _core.forward([call], current_threads.get())
    tape: Any = _tape(cell, option, call, results, unbatched) if record else None
    if check and record:
        tape = tape.with_digests()
    output, h_n, c_n, _, _ = results
    if unbatched:
        return output[:, 0], h_n[0], None if c_n is None else c_n[0], tape
    return output, h_n, c_n, tape


def _tape(cell: Cell, option: Any, call: Any, results: Any, unbatched: bool) -> Any:
    """The tape of a call: its arguments, what forward kept, and the fields of every tape."""
    _, arrays, lengths, restart, reverse, _, checkpoint, batch_major, _ = call
    x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, extra = arrays
    output, _, _, c, gates = results
    # The tape has its own initial state: callers carry it on, and clear rows of it in place.
    h_0 = None if h_0 is None else h_0.copy()
    states = (h_0, None if c_0 is None else c_0.copy()) if cell.has_c else (h_0,)
    kept = (c, gates) if cell.has_c else (gates,) if cell.tape_gates else ()
    options = () if option is None else (option,)
    short = (checkpoint,) if cell.tape_gates else ()
    fields = (
        x, *states, w_ih, w_hh, b_ih, b_hh, *extra, output, *kept, lengths, restart, *options,
        reverse, unbatched, batch_major, None, *short,
    )  # fmt: skip
    make: Any = tuple.__new__
    return make(cell.tape, fields)


class Sequences(NamedTuple):
    """What all directions of a layer's forward have in common."""

    lengths: Array | None
    restart: Array | None
    record: bool
    batch_major: bool  # whether output (T, B, P) lies in memory as (B, T, P)
    # 0, or K: the tape has no gates, and c of every K-th step only; backward makes them again. An
    # Elman layer's needs none of them, and the reference keeps them all.
    checkpoint: int


def forward(
    cell: Cell, option: Any, common: Sequences, directions: list[tuple[Arrays, bool, Any]]
) -> list[tuple[Array, Array, Any, Any]]:
    """Run one layer, whose directions may run at the same time.

    Parameters
    ----------
    cell, option
    common : Sequences
        Checked.
    directions : list
        One or two: the arrays, x (T, B, D) among them; whether it goes from the last step to the
        first; and where its output (T, B, P), with a contiguous last axis, is to be written, or
        None.

    Returns
    -------
    list
        output, h_n, c_n (None where the cell has none) and the tape (None where none is recorded)
        of each direction.
    """
    lengths, restart, record, batch_major, checkpoint = common
    if current_backend.get() == "reference":
        return [
            _by_reference(
                cell, arrays, option, place,
                lengths=lengths, restart=restart, reverse=reverse, record=record,
            )
            for arrays, reverse, place in directions
        ]  # fmt: skip
    number, option = cell.kernel(option)
    calls = [
        (
            number, fitting(cell, arrays), lengths, restart, reverse, record, checkpoint,
            batch_major, place,
        )
        for arrays, reverse, place in directions
    ]  # fmt: skip
    made = _core.forward(calls, current_threads.get())
    return [
        (*results[:3], _tape(cell, option, call, results, False) if record else None)
        for call, results in zip(calls, made, strict=True)
    ]


def fitting(cell: Cell, arrays: Arrays) -> Arrays:
    """The arrays as the kernel takes them, or an error; x has its batch axis."""
    if _core.arrays_fit(cell.number, arrays) == 3:
        return arrays
    return forward_arguments(cell.spec, arrays).arrays


def _by_reference(
    cell: Cell, arrays: Arrays, option: Any, place: Array | None, **others: Any
) -> tuple[Array, Array, Any, Any]:
    output, h_n, c_n, tape = reference.forward(cell.spec, arrays, option, **others)
    if place is None:
        return output, h_n, c_n, tape
    place[...] = output
    return place, h_n, c_n, None if tape is None else tape._replace(output=place)


# ------------------------------------------------------------------------------ backward


class Back(NamedTuple):
    """How to backpropagate through one direction of a layer."""

    tape: Any
    d_output: Any
    d_h_n: Any
    d_c_n: Any
    wrt: Any
    into: dict[str, Array]  # where to write gradients of weights, by their names
    norms: Array | None = None  # (T, B), to be filled; not on the reference backend


def backward(calls: list[Back], cell: Cell | None = None) -> list[Any]:
    """Backpropagate through one direction of a layer, or two that may run at the same time.

    Parameters
    ----------
    calls : list of Back
    cell : Cell, optional
        What the tapes must be of. None: any cell.

    Returns
    -------
    list
        The gradients of each; what was written to `into` is that array.
    """
    for call in calls:
        kind = CellTape if cell is None else cell.tape
        if not isinstance(call.tape, kind):
            name = reference.FORWARD if cell is None else f"{cell.spec.name}_forward"
            _checks.tape(call.tape, kind, name)
    if current_backend.get() == "reference":
        return [_backward_by_reference(call) for call in calls]
    checked = [_checked(call) for call in calls]
    made = _core.backward(checked, current_threads.get())
    return [_gradients(call[1], values) for call, values in zip(checked, made, strict=True)]


def _checked(call: Back) -> tuple[Any, ...]:
    tape, d_output, d_h_n, d_c_n, wanted = backward_arguments(*call[:5], _is_whole)
    cell = _of_tape[type(tape)]
    option = None if cell.spec.option is None else getattr(tape, cell.spec.option)
    number = cell.numbers.get(option) if type(option) in PLAIN else None
    if number is None:
        number, _ = cell.kernel(option)
    if type(tape.reverse) is not bool:
        tape = tape._replace(reverse=_checks.flag("reverse", tape.reverse))
    return number, tape, d_output, d_h_n, d_c_n, wanted, call.into, call.norms


def _is_whole(tape: Any) -> bool:
    """`is_whole` of the reference, in less time."""
    return _core.tape_fits(_of_tape[type(tape)].number, tape)


def _gradients(tape: Any, values: tuple[Any, ...]) -> Any:
    gradients = _of_tape[type(tape)].gradients._make(values)
    if not tape.unbatched:
        return gradients
    states = {f"{s}_0": getattr(gradients, f"{s}_0") for s in tape.cell.states}
    states = {name: None if d is None else d[0] for name, d in states.items()}
    return gradients._replace(x=None if gradients.x is None else gradients.x[:, 0], **states)


def _backward_by_reference(call: Back) -> Any:
    gradients = reference.backward(*call[:5])
    for name, place in call.into.items():
        place[...] = getattr(gradients, name)
    return gradients._replace(**call.into)


def norms(tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any) -> Array:
    """`fastrnn.gradient_norms` of the tape of one direction of one layer."""
    _checks.tape(tape, CellTape, reference.FORWARD)
    *call, _ = _checked(Back(tape, d_output, d_h_n, d_c_n, (), {}))
    norms = empty(call[1].x.shape[:2])
    _core.backward([(*call, norms)], current_threads.get())
    return norms[:, 0] if call[1].unbatched else norms
