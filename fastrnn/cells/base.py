"""What a cell is to functions and layers, and one direction of one layer, whatever the cell.

The public functions (rnn.py, lstm.py, ...) call `run` and `backward`, layers `forward` and
`backward`. On the reference backend these pass everything on to `fastrnn.reference`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy import empty

from .. import _checks, _core
from ..config import current_backend, current_threads
from ..reference import cells as reference
from ..reference.arguments import (
    WEIGHT_NAMES,
    Arrays,
    CellSpec,
    CellTape,
    backward_arguments,
    forward_arguments,
    gradients_of_numbers,
    numbers,
)
from ..reference.steps import step_arguments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

    # What all directions of a layer's forward have in common: lengths, mask, restart, record,
    # batch_major (whether output (T, B, P) lies in memory as (B, T, P)) and checkpoint. This is 0,
    # or K: the tape has no gates, and c of every K-th step only; backward makes them again. An
    # Elman layer's needs none of them, and the reference keeps them all.
    Common = tuple[Array | None, Array | None, Array | None, bool, bool, int]
    # How to backpropagate through one direction: tape, d_output, d_h_n, d_c_n, wrt, into (where to
    # write gradients of weights, by their names) and norms, which are (T, B), to be filled, or
    # None; not on the reference backend.
    Back = tuple[Any, Any, Any, Any, Any, dict[str, Array], Any]

PLAIN = (str, bool)  # the types of options that may be looked up unchecked


_of_tape: dict[type, Cell] = {}


class Cell:
    """A cell: what the reference says of it, what C says, and the classes of its results.

    Parameters
    ----------
    spec : CellSpec
        From the reference.
    kernels : dict
        The cells that C has for it, by the values of the cell's options: {(): name} where there
        are none.
    tape, gradients : type
        What its forward and backward return.
    """

    def __init__(
        self,
        spec: CellSpec,
        kernels: dict[tuple[Any, ...], str],
        tape: type[CellTape],
        gradients: Any,
    ) -> None:
        places = {cell[0]: number for number, cell in enumerate(_core.CELLS)}
        self.spec, self.tape, self.gradients = spec, tape, gradients
        self.numbers = {options: places[name] for options, name in kernels.items()}
        self.number = next(iter(self.numbers.values()))  # they all have the same arguments
        self.choices = [  # of each option
            tuple(dict.fromkeys(values)) for values in zip(*kernels, strict=True)
        ]
        _, self.gates, self.tape_gates, *_, extras = _core.CELLS[self.number]
        self.has_c = "c" in spec.states
        self.alike = len({_core.CELLS[number][3] for number in self.numbers.values()}) == 1
        self.may_be_numbers = any(e.may_be_number for e in spec.extras)
        # What layers call the weights of a direction, by their names as arguments.
        self.weight_names = WEIGHT_NAMES | {e.name: e.on_layers for e in spec.extras}
        of_extras = tuple((e.name, e.axes, e.required) for e in spec.extras)
        for number in self.numbers.values():
            _, *sizes, has_c, c_alone, extras = _core.CELLS[number]
            said = sizes, has_c and not c_alone, has_c <= ("c" in spec.kept), extras
            if said != ([spec.gates, spec.tape_gates], self.has_c, True, of_extras):
                raise ImportError(f"C and the reference do not mean the same by {spec.name}")
        _check_fields(spec, tape, gradients)
        _of_tape[tape] = self

    def known(self, options: tuple[Any, ...]) -> int | None:
        """The number of the cell that C has for these options, if they are plain and right."""
        for option in options:
            if type(option) not in PLAIN:
                return None
        return self.numbers.get(options)

    def kernel(self, options: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        """The number of the cell that C has for some options, and these as plain str and bool."""
        number = self.known(options)
        if number is None:
            options = tuple(map(_checked_option, self.spec.options, options, self.choices))
            number = self.numbers[options]
        return number, options

    def options_of(self, of: Any) -> tuple[Any, ...]:
        """The options of a tape."""
        return tuple(getattr(of, name) for name in self.spec.options)


def _checked_option(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    return _checks.flag(name, value) if True in choices else _checks.choice(name, value, choices)


def _check_fields(spec: CellSpec, tape: Any, gradients: Any) -> None:
    """Raise unless tape and gradients have the fields that _core writes, which it does by place."""
    arguments = (
        "x", *(f"{state}_0" for state in spec.states), "w_ih", "w_hh", "b_ih", "b_hh",
        *(e.name for e in spec.extras),
    )  # fmt: skip
    recorded = spec.tape_gates > 0
    fields = (
        *arguments, "output", *spec.kept, "lengths", "mask", "restart", *spec.options,
        "reverse", "unbatched", "batch_major", "digests", *(("checkpoint",) if recorded else ()),
    )  # fmt: skip
    for kind, found, expected in (
        (tape, tape._fields, fields),
        (tape, tape._arguments, arguments),
        (gradients, gradients._fields, arguments),
    ):
        if found != expected:
            raise ImportError(
                f"{kind.__name__} has {', '.join(found)}; expected, in this order, "
                f"{', '.join(expected)}"
            )


# ------------------------------------------------------------------------------ forward


def run(
    cell: Cell,
    arrays: Arrays,
    options: tuple[Any, ...],
    lengths: Any,
    mask: Any,
    restart: Any,
    reverse: Any,
    record: Any,
    check: Any,
) -> tuple[Array, Array, Any, Any]:
    """What a cell's function does: output, h_n, c_n (None where the cell has none), tape."""
    if current_backend.get() == "reference":
        return reference.forward(
            cell.spec, arrays, options, lengths=lengths, mask=mask, restart=restart,
            reverse=reverse, record=record, check=check,
        )  # fmt: skip
    rank, number = -1, cell.known(options)
    if (
        number is not None
        and lengths is mask is restart is None
        and type(reverse) is type(record) is type(check) is bool
    ):  # the most common form, in which only the arrays may not be as the kernel takes them
        kind = (cell.tape, options, False) if record else None
        call = (number, arrays, None, None, None, reverse, kind, 0, False, None, None)
        made = _core.forward([call], current_threads.get(), True)
        if type(made) is list:
            if check and record:
                output, h_n, c_n, tape = made[0]
                return output, h_n, c_n, tape._with_digests()
            return made[0]  # type: ignore[no-any-return]
        rank = made
    if rank < 0:
        rank = _core.arrays_fit(cell.number, arrays)
    as_numbers = numbers(cell.spec, arrays) if cell.may_be_numbers else {}
    arrays, lengths, mask, restart, unbatched = forward_arguments(
        cell.spec, arrays, lengths, mask, restart, rank != 0
    )
    number, options = cell.kernel(options)
    reverse = _checks.flag("reverse", reverse)
    record = _checks.flag("record", record)
    check = _checks.flag("check", check)
    kind = (cell.tape, options, unbatched) if record else None
    call = (number, arrays, lengths, mask, restart, reverse, kind, 0, False, None, None)
    ((output, h_n, c_n, tape),) = _core.forward([call], current_threads.get())
    if record and as_numbers:
        tape = tape._replace(**as_numbers)
    if check and record:
        tape = tape._with_digests()
    if unbatched:
        return output[:, 0], h_n[0], None if c_n is None else c_n[0], tape
    return output, h_n, c_n, tape


def step(cell: Cell, arrays: Arrays, options: tuple[Any, ...], out: Any) -> Any:
    """What a cell's step does: h, or (h, c); x_t, h and c are in the places of x, h_0 and c_0."""
    if current_backend.get() == "reference":
        return reference.step(cell.spec, arrays, options, out)
    number = cell.known(options)
    if number is not None:
        made = _core.step(number, arrays, out, current_threads)
        if made is not None:
            return made
    given = step_arguments(cell.spec, arrays, out)
    x, h_0, c_0, *weights, extra = given.arrays
    number, _ = cell.kernel(options)
    if given.unbatched:
        x, h_0, c_0 = x[0], *(None if state is None else state[0] for state in (h_0, c_0))
    places = tuple(out) if type(out) is list else out
    arrays = (_checks.contiguous(x[0]), h_0, c_0, *weights, extra)
    made = _core.step(number, arrays, places, current_threads, False)
    if made is None:  # another thread has changed one since it was checked
        raise ValueError(
            "an array was given another shape or dtype while it was in use: pass a copy"
        )
    return out if places is not out else made


def forward(
    cell: Cell,
    options: tuple[Any, ...],
    common: Common,
    directions: list[tuple[Arrays, bool, Any, Any]],
) -> list[tuple[Any, ...]]:
    """Run one layer, whose directions may run at the same time.

    Parameters
    ----------
    cell, options
    common : Common
        Checked.
    directions : list
        One or two: the arrays, x (T, B, D) among them; whether it goes from the last step to the
        first; where its output (T, B, P), with a contiguous last axis, is to be written, or None;
        and the weights, packed, or None. The reference has no use for those.

    Returns
    -------
    list
        output, h_n, c_n (None where the cell has none) and the tape (None where none is recorded)
        of each direction.
    """
    lengths, mask, restart, record, batch_major, checkpoint = common
    if current_backend.get() == "reference":
        return [
            _by_reference(
                cell, arrays, options, place,
                lengths=lengths, mask=mask, restart=restart, reverse=reverse, record=record,
            )
            for arrays, reverse, place, _ in directions
        ]  # fmt: skip
    number, options = cell.kernel(options)
    tape_kind = (cell.tape, options, False) if record else None
    calls = []
    for arrays, reverse, place, packed in directions:
        if _core.arrays_fit(cell.number, arrays) != 3:
            arrays = forward_arguments(cell.spec, arrays).arrays
        calls.append(
            (
                number, arrays, lengths, mask, restart, reverse, tape_kind, checkpoint,
                batch_major, place, packed,
            )
        )  # fmt: skip
    made: list[tuple[Any, ...]] = _core.forward(calls, current_threads.get())
    return made


def _by_reference(
    cell: Cell, arrays: Arrays, options: tuple[Any, ...], place: Array | None, **others: Any
) -> tuple[Array, Array, Any, Any]:
    output, h_n, c_n, tape = reference.forward(cell.spec, arrays, options, **others)
    if place is None:
        return output, h_n, c_n, tape
    place[...] = output
    return place, h_n, c_n, None if tape is None else tape._replace(output=place)


# ------------------------------------------------------------------------------ backward


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
    kind = CellTape if cell is None else cell.tape
    for call in calls:
        if not isinstance(call[0], kind):
            name = reference.FORWARD if cell is None else f"{cell.spec.name}_forward"
            _checks.tape(call[0], kind, name)
    if current_backend.get() == "reference":
        return [_backward_by_reference(*call) for call in calls]
    checked = [_checked(*call) for call in calls]
    made = _core.backward(checked, current_threads.get())
    return [_gradients(call[1], made[i]) for i, call in enumerate(checked)]


def _checked(
    tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any, wrt: Any, into: Any, norms: Any
) -> tuple[Any, ...]:
    """What the compiled side takes for one direction."""
    tape, d_output, d_h_n, d_c_n, wanted = backward_arguments(
        tape, d_output, d_h_n, d_c_n, wrt, _is_whole
    )
    cell = _of_tape[type(tape)]
    number, _ = cell.kernel(cell.options_of(tape))
    if type(tape.reverse) is not bool:
        tape = tape._replace(reverse=_checks.flag("reverse", tape.reverse))
    return number, tape, d_output, d_h_n, d_c_n, wanted, into, norms


def _is_whole(tape: Any) -> bool:
    """`is_whole` of the reference, in less time."""
    cell = _of_tape[type(tape)]
    if cell.alike:
        return _core.tape_fits(cell.number, tape)
    number, _ = cell.kernel(cell.options_of(tape))
    return (tape.c is not None) == tape._has_c and _core.tape_fits(number, tape)


def _gradients(tape: Any, values: list[Any]) -> Any:
    make: Any = tuple.__new__
    cell = _of_tape[type(tape)]
    gradients = make(cell.gradients, values)
    if cell.may_be_numbers:
        gradients = gradients_of_numbers(tape, gradients)
    if not tape.unbatched:
        return gradients
    states = {f"{s}_0": getattr(gradients, f"{s}_0") for s in tape._cell.states}
    states = {name: None if d is None else d[0] for name, d in states.items()}
    return gradients._replace(x=None if gradients.x is None else gradients.x[:, 0], **states)


def _backward_by_reference(
    tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any, wrt: Any, into: Any, norms: Any
) -> Any:
    gradients = reference.backward(tape, d_output, d_h_n, d_c_n, wrt)
    for name, place in into.items():
        place[...] = getattr(gradients, name)
    return gradients._replace(**into)


def norms(tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any) -> Array:
    """`fastrnn.gradient_norms` of the tape of one direction of one layer."""
    _checks.tape(tape, CellTape, reference.FORWARD)
    *call, _ = _checked(tape, d_output, d_h_n, d_c_n, (), {}, None)
    norms = empty(call[1].x.shape[:2])
    _core.backward([(*call, norms)], current_threads.get())
    return norms[:, 0] if call[1].unbatched else norms
