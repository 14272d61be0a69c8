"""What the cells share but for their equations: what a cell is called and has, checks, tapes.

Both backends check here, which makes them raise the same errors, before any work is done. Shapes
are given in the letters of the equations; P, the units of the state h, is H but for an LSTM with a
projection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy import ndarray

from .. import _checks, _tapes
from .._cures import NO_ROLE, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# The weights of every cell as arguments of functions, and what layers call them, as PyTorch does.
WEIGHT_NAMES = {
    "w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh",
}  # fmt: skip


class Extra(NamedTuple):
    """A weight that not every cell has, and that may be absent unless it is required.

    One of the shape (H,) may be given as one number for all units.
    """

    name: str
    axes: tuple[str, ...]
    on_layers: str  # what layers call it
    required: bool = False

    @property
    def may_be_number(self) -> bool:
        return self.axes == ("H",)


class CellSpec(NamedTuple):
    """A cell: its gates, whose rows are stacked in w_ih, w_hh, b_ih and b_hh, and its states.

    The field `gates` of a tape is (T, B, tape_gates·H): first the gates of w_hh, in their order,
    then whatever else backward needs. A cell with no such values has no such field.
    """

    name: str
    layer: str  # the name of its layer
    gates: int
    tape_gates: int  # how many values of a unit the tape has for each step, besides its states
    states: tuple[str, ...]
    options: tuple[str, ...] = ()  # the keyword arguments that its function has besides arrays
    extras: tuple[Extra, ...] = ()
    kept: tuple[str, ...] = ()  # what its tape has beside the arguments and output: c, gates


# ------------------------------------------------------------------------------ forward

# The array arguments travel as one tuple: x, h_0, c_0, w_ih, w_hh, b_ih, b_hh and the tuple of the
# extra weights. What is absent, or what the cell does not have, is None.
Arrays = tuple[Any, ...]


class Arguments(NamedTuple):
    """The arguments of a cell's forward, as the kernel takes them."""

    arrays: Arrays
    lengths: Array | None
    mask: Array | None
    restart: Array | None
    unbatched: bool


def forward_arguments(
    cell: CellSpec,
    arrays: Arrays,
    lengths: Any = None,
    mask: Any = None,
    restart: Any = None,
    fit: bool = False,
    step: bool = False,
) -> Arguments:
    """Check what a cell's forward was given and bring it into the form that the kernel takes.

    Parameters
    ----------
    cell : CellSpec
    arrays, lengths, mask, restart
        As the caller gave them.
    fit : bool
        Whether the arrays are known to be as the kernel takes them, but for x's batch axis.
    step : bool
        Whether they are those of one step: x_t (B, D) or (D,) in the place of x, and h and c.

    Returns
    -------
    Arguments
        x (T, B, D) with unit stride on the last axis, h_0 (B, P), c_0 (B, H) and the weights
        C-contiguous, lengths (B,) int64, or None where mask says that too, mask and restart (T, B)
        bool, and whether x came without a batch axis. lengths, mask and restart are fresh copies;
        the others are the caller's arrays wherever those will do.
    """
    if not fit:
        arrays = _checked(cell, arrays, step)
    x, h_0, c_0, *weights, extra = arrays
    unbatched = x.ndim == 2
    if unbatched:
        x = x[:, None]
        h_0 = None if h_0 is None else h_0[None]
        c_0 = None if c_0 is None else c_0[None]
    steps, batch = x.shape[:2]
    if not lengths is mask is restart is None:
        axes = ("T",) if unbatched else ("T", "B")
        lengths, mask, restart = _checks.told_of_steps(lengths, mask, restart, axes, steps, batch)
    if not fit:  # nothing is copied before everything has been checked
        x = _checks.strided(x)
        h_0, c_0, *weights = map(_contiguous, (h_0, c_0, *weights))
        extra = tuple(map(_contiguous, extra))
    return Arguments((x, h_0, c_0, *weights, extra), lengths, mask, restart, unbatched)


def _contiguous(a: Array | None) -> Array | None:
    return None if a is None else _checks.contiguous(a)


def _checked(cell: CellSpec, arrays: Arrays, step: bool) -> Arrays:
    """The arrays, of one type and of shapes that fit together."""
    # Types first, in the order of the signature, so that every array below has a rank and a type.
    x_name, h_name, c_name = ("x_t", "h", "c") if step else ("x", "h_0", "c_0")
    weights = ("w_ih", "w_hh", "b_ih", "b_hh", *(e.name for e in cell.extras))
    names = (x_name, h_name, c_name, *weights)
    required = {x_name, "w_hh"} | {e.name for e in cell.extras if e.required}
    as_numbers = numbers(cell, arrays)
    optional = {*names} - (required - {*as_numbers})
    extras = (None if e.name in as_numbers else a for e, a in _extras(cell, arrays))
    values = (*arrays[:-1], *extras)
    roles = _step_roles if step else _roles
    typed = _checks.agreeing(names, values, optional, lambda: roles(cell, optional, arrays))
    x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, *extra = typed

    if step:
        if x.ndim not in (1, 2):
            raise ValueError(f"x_t has shape {x.shape}, expected (B, D), or (D,) for one row")
        x = x[None]
    given = w_ih is None  # x is the pre-activations
    features = w_ih.shape[1] if not given and w_ih.ndim == 2 else None
    unbatched = _checks.sequence_axes(x, "T", "B", features)
    rows = "H" if cell.gates == 1 else f"{cell.gates}·H"
    present = [(e, a) for e, a in _extras(cell, (extra,)) if a is not None]
    projections = [(e.name, a) for e, a in present if "P" in e.axes]
    units = "P" if projections else "H"
    if w_hh.ndim == 1 and h_0 is not None and h_0.shape == (len(w_hh), x.shape[-1]):
        raise ValueError(
            f"w_hh has shape {w_hh.shape}, expected ({rows}, {units}): {h_name}, which comes "
            "second, seems to be left out, pass None there"
        )
    if given and b_ih is not None and b_ih.ndim == 2:
        raise ValueError(
            f"w_ih is None and b_ih has shape {b_ih.shape}, expected ({rows},): the weights seem "
            "to come one place too late, leave out a None before them"
        )
    sizes = _sizes(cell, w_hh, rows, projections)
    if features == 1 != x.shape[-1] and unbatched:
        if step:
            cure = ": pass x_t[:, None] if it is of rows"
            _checks.shape("x_t", x.shape[1:], ("B", "D"), {"D": 1}, cure, cured=True)
        _checks.shape("x", x.shape, ("T", "D"), {"D": 1})
    sizes |= {"T": x.shape[0], "B": 1 if unbatched else x.shape[1], "D": x.shape[-1]}
    _checks.shape("w_hh", w_hh.shape, (rows, units), sizes)
    if given:
        why = (
            f", because w_ih is None: {x_name} is then what W_ih {x_name} would be, the gates' "
            "pre-activations"
        )
        whole = ("T", rows) if unbatched else ("T", "B", rows)
        _checks.shape(x_name, x.shape[step:], whole[step:], sizes, why, cured=True)
    else:
        turned = w_ih.shape == (sizes["D"], sizes[rows]) != w_ih.shape[::-1]
        # A square w_hh looks right, whichever way it lies.
        both = ", and w_hh.T too where both are stored so" if cell.gates == 1 else ""
        cure = f": pass w_ih.T{both}" if turned else ""
        _checks.shape("w_ih", w_ih.shape, (rows, "D"), sizes, cure, cured=turned)
    hint = f", because {x_name} is one {'row' if step else 'sequence'} without a batch axis"
    hint = hint if unbatched else ""
    swapped = x.ndim == 3 and h_0 is not None and h_0.ndim == 2 and len(h_0) == len(x) != x.shape[1]
    swapped = swapped and not step
    if swapped:
        hint = ": pass x.swapaxes(0, 1) if it is (B, T, D)"
    for name, a, axes in (
        (h_name, h_0, (units,) if unbatched else ("B", units)),
        (c_name, c_0, ("H",) if unbatched else ("B", "H")),
        ("b_ih", b_ih, (rows,)),
        ("b_hh", b_hh, (rows,)),
        *((e.name, a, e.axes) for e, a in present),
    ):
        if a is not None:
            of_state = name in (h_name, c_name)
            said = hint if of_state else ""
            _checks.shape(name, a.shape, axes, sizes, said, cured=of_state and swapped)
    # The largest array of results and tape: output, or the gates on the tape of a cell with any.
    times = max(1, cell.tape_gates)
    largest = {"H" if times == 1 else f"{times}·H": times * sizes["H"]}
    _checks.elements(T=sizes["T"], B=sizes["B"], **largest)
    for i, e in enumerate(cell.extras):
        if e.name in as_numbers:
            _checks.finite_in(e.name, as_numbers[e.name], x.dtype)
            extra[i] = np.full(sizes["H"], as_numbers[e.name], x.dtype)
    return x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, tuple(extra)


def _extras(cell: CellSpec, arrays: Sequence[Any]) -> Iterator[tuple[Extra, Any]]:
    return zip(cell.extras, arrays[-1], strict=True)


def numbers(cell: CellSpec, arrays: Arrays) -> dict[str, float]:
    """The extra weights that were given as one number for all units, by their names."""
    return {
        e.name: _checks.number(e.name, value)
        for e, value in _extras(cell, arrays)
        if e.may_be_number and _checks.is_one_number(value)
    }


def gradients_of_numbers(tape: CellTape, gradients: Any) -> Any:
    """Gradients in which that of what was one number for all units is the sum over the units.

    It is summed in float64, one unit after the other, and () in shape.
    """
    for e in tape._cell.extras:
        if type(getattr(tape, e.name)) is float and (d := getattr(gradients, e.name)) is not None:
            with np.errstate(all="ignore"):
                total = np.cumsum(np.append(0.0, d))[-1].astype(d.dtype)
            gradients = gradients._replace(**{e.name: np.array(total)})
    return gradients


def _roles(cell: CellSpec, optional: Collection[str], arrays: Arrays) -> dict[str, Role]:
    """What is known of a cell's arrays, for cures."""
    w_ih, w_hh = arrays[3:5]
    # Nobody who passes something else for w_ih means that there is none.
    roles = {name: Role(optional=True) for name in optional if name != "w_ih"}
    if "c" in cell.states:
        roles |= dict.fromkeys(("h_0", "c_0"), Role(optional=True, pair=True))
    features = w_ih.shape[1] if isinstance(w_ih, ndarray) and w_ih.ndim == 2 else None
    of, weight = ("w_hh", w_hh) if w_ih is None else ("w_ih", w_ih)
    dtype = _checks.float_type(weight) or _checks.FLOAT32
    for name in ("b_ih", "b_hh"):
        roles[name] = Role(full=f"np.full(len({of}), {name}, np.{dtype})", optional=True)
    return roles | {"x": Role(sequence=True, features=features)}


def _step_roles(cell: CellSpec, optional: Collection[str], arrays: Arrays) -> dict[str, Role]:
    """The same of a step's arrays."""
    roles = _roles(cell, optional, arrays)
    of_state = roles.pop("h_0", Role(optional=True))
    return roles | {"h": of_state, "c": of_state, "x_t": NO_ROLE}


def _sizes(
    cell: CellSpec, w_hh: Array, rows: str, projections: list[tuple[str, Array]]
) -> dict[str, int]:
    """The sizes that the weights say, with which the other arguments must agree."""
    if w_hh.ndim != 2:
        _checks.shape("w_hh", w_hh.shape, (rows, "P" if projections else "H"), {})
    if not projections:  # the state has H units, so w_hh has H columns
        units = w_hh.shape[1]
        if cell.gates > 1 and len(w_hh) * cell.gates == units > 0:
            raise ValueError(
                f"w_hh has shape {w_hh.shape}, expected ({rows}, H) = ({units}, {len(w_hh)}): pass "
                "w_hh.T"
            )
        return {"H": units, rows: cell.gates * units, **_multiples(cell, units)}
    (name, projection), *_ = projections
    if projection.ndim != 2:
        _checks.shape(name, projection.shape, ("P", "H"), {})
    projected, (units, rest) = len(projection), divmod(len(w_hh), cell.gates)
    if rest:
        raise ValueError(
            f"w_hh has shape {w_hh.shape}, expected ({rows}, P), but {len(w_hh)} rows are not "
            f"{cell.gates} times a whole number"
        )
    if not 0 < projected < units:
        raise ValueError(
            f"{name} has shape {projection.shape}, expected (P, H) with 0 < P < H = {units}: a "
            "projection must be smaller than the hidden size"
        )
    return {"H": units, "P": projected, rows: len(w_hh), **_multiples(cell, units)}


def _multiples(cell: CellSpec, units: int) -> dict[str, int]:
    """The sizes of the axes of extra weights that are multiples of H, such as "3·H"."""
    axes = {axis for e in cell.extras for axis in e.axes if axis.endswith("·H")}
    return {axis: int(axis.removesuffix("·H")) * units for axis in axes}


# ------------------------------------------------------------------------------ tapes


class CellTape(_tapes.Tape):
    """Mixed into the named tuple of a cell's tape, whose first fields are the array arguments."""

    __slots__ = ()
    _cell: ClassVar[CellSpec]
    _arguments: ClassVar[tuple[str, ...]]  # the array arguments: the fields of the gradients
    _kept: ClassVar[tuple[str, ...]]  # of the cell: for _core, in less time

    def __init_subclass__(cls) -> None:
        cls._kept = cls._cell.kept

    if TYPE_CHECKING:  # a field of every cell's tape

        @property
        def unbatched(self) -> bool: ...

    @property
    def _has_c(self) -> bool:
        """Whether c is on the tape."""
        return "c" in self._cell.states

    def _absent(self: Any) -> set[str]:
        """The arguments of forward that were None: they have no gradient."""
        return {name for name, a in zip(self._arguments, self, strict=False) if a is None}

    def _shared(self: Any) -> tuple[str, ...]:
        """The names of the arrays that the caller has too, which must stay as they were."""
        own = [f"{state}_0" for state in self._cell.states]
        names = (*self._arguments, "output", *self._cell.kept)
        return tuple(n for n in names if n not in own and isinstance(getattr(self, n), ndarray))

    def _with_digests(self: Any) -> Any:
        """The tape that notices, when it is used, that one of the caller's arrays has changed."""
        digests = _tapes.digests(**{name: getattr(self, name) for name in self._shared()})
        return self._replace(digests=digests)

    def __repr__(self: Any) -> str:
        steps, batch, features = self.x.shape
        units = len(self.w_hh) // self._cell.gates
        features = None if self.w_ih is None else features
        parts = [f"T={steps}", f"B={batch}", f"D={features}", f"H={units}"]
        if self.w_hh.shape[1] != units:
            parts.append(f"P={self.w_hh.shape[1]}")
        parts.append(str(self.x.dtype))
        parts += self._options()
        parts += [name for name in ("reverse", "unbatched") if getattr(self, name)]
        if getattr(self, "checkpoint", 0):
            parts.append(f"checkpoint={self.checkpoint}")
        parts += [
            name for name in ("lengths", "mask", "restart") if getattr(self, name) is not None
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _options(self) -> list[str]:
        """What this cell alone has, for its repr."""
        return []


# ------------------------------------------------------------------------------ backward


def backward_arguments(
    tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any, wrt: Any, whole: Callable[[Any], bool]
) -> tuple[Any, Array | None, Array | None, Array | None, frozenset[str]]:
    """Check the arguments of a cell's backward.

    Parameters
    ----------
    tape : CellTape
        Found to be one.
    d_output, d_h_n, d_c_n, wrt
        As the caller gave them.
    whole : callable
        `is_whole`, or what answers as it does.

    Returns
    -------
    tuple
        The tape that was checked, which is the one to use, d_output (T, B, P), d_h_n (B, P) and
        d_c_n (B, H), each of them or None, and the names of the gradients to compute.
    """
    tape = _tapes.as_made(tape)
    if not whole(tape):
        raise ValueError(_checks.RESHAPED)
    cell, unbatched = tape._cell, tape.unbatched
    wanted = _checks.names("wrt", wrt, tape._arguments)
    if d_output is None and d_h_n is None and d_c_n is None:
        _checks.some_gradient(d_output=None, **{f"d_{state}_n": None for state in cell.states})
    units = "P" if tape.w_hh.shape[1] * cell.gates < len(tape.w_hh) else "H"
    has_c = "c" in cell.states
    if d_output is not None:
        d_output = _sequence_gradient("d_output", d_output, tape.output, units, unbatched)
    if d_h_n is not None:
        d_h_n = _state_gradient("d_h_n", d_h_n, tape.output, units, unbatched, has_c)
    if d_c_n is not None:
        if not has_c:
            raise ValueError(f"d_c_n is given, but {cell.name}_forward has no state c")
        d_c_n = _state_gradient("d_c_n", d_c_n, tape.c, "H", unbatched, has_c)
    if tape.digests is not None:
        _tapes.unchanged(tape)
    return tape, d_output, d_h_n, d_c_n, wanted - tape._absent()


def is_whole(tape: Any) -> bool:
    """Whether every array of the tape is still what forward left there.

    An array can be given another shape in place, and a field replaced.
    """
    cell, checkpoint = tape._cell, getattr(tape, "checkpoint", 0)
    x, w_hh, has_gates = tape.x, tape.w_hh, cell.tape_gates > 0
    if not (
        type(x) is type(w_hh) is ndarray
        and x.dtype in (_checks.FLOAT32, _checks.FLOAT64)
        and x.ndim == 3
        and w_hh.ndim == 2
        and type(checkpoint) is int
        and checkpoint >= 0
    ):
        return False
    (steps, batch, features), (rows, units), dtype = x.shape, w_hh.shape, x.dtype
    hidden = rows // cell.gates
    sizes = {"H": hidden, "P": units, **_multiples(cell, hidden)}
    extras = [(getattr(tape, e.name), tuple(sizes[n] for n in e.axes), e) for e in cell.extras]
    extras = [extra for extra in extras if not (extra[2].may_be_number and type(extra[0]) is float)]
    projected = any(a is not None and "P" in e.axes for a, _, e in extras)
    kept = steps if checkpoint == 0 else (steps - 1) // checkpoint if steps else 0
    needed: list[tuple[Any, tuple[int, ...]]] = [(w_hh, (cell.gates * hidden, units))]
    optional: list[tuple[Any, tuple[int, ...]]] = [
        (tape.h_0, (batch, units)),
        (tape.w_ih, (rows, features)),
        (tape.b_ih, (rows,)),
        (tape.b_hh, (rows,)),
    ]
    for a, shape, e in extras:
        (needed if e.required else optional).append((a, shape))
    if tape._has_c:
        needed.append((tape.c, (kept, batch, hidden)))
    elif getattr(tape, "c", None) is not None:  # made by another form
        return False
    if "c" in cell.states:
        optional.append((tape.c_0, (batch, hidden)))
    if has_gates and checkpoint == 0:
        needed.append((tape.gates, (steps, batch, cell.tape_gates * hidden)))
    lengths, mask, restart = tape.lengths, tape.mask, tape.restart
    return bool(
        _checks.strided(x) is x
        and (tape.w_ih is not None or features == rows)
        and (0 < units < hidden if projected else units == hidden)
        and all(_is_plain(a, dtype, shape) for a, shape in needed)
        and all(a is None or _is_plain(a, dtype, shape) for a, shape in optional)
        and not (has_gates and checkpoint and tape.gates is not None)
        and type(tape.output) is ndarray
        and (tape.output.dtype, tape.output.shape) == (dtype, (steps, batch, units))
        and _checks.strided(tape.output) is tape.output
        and (restart is None or _is_plain(restart, np.dtype(bool), (steps, batch)))
        and (mask is None or _is_plain(mask, np.dtype(bool), (steps, batch)))
        and (
            lengths is None
            or (
                mask is None
                and _is_plain(lengths, np.dtype(np.int64), (batch,))
                and bool(((lengths >= 0) & (lengths <= steps)).all())
            )
        )
    )


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


def _state_gradient(
    name: str, value: Any, like: Array, units: str, unbatched: bool, has_c: bool
) -> Array:
    """d_h_n or d_c_n: (B, .) as a step of `like` (T, B, .); (.,) where x had no batch axis."""
    if not unbatched and _is_plain(value, like.dtype, like.shape[1:]):
        return value  # type: ignore[no-any-return]
    role = Role(optional=True, pair=has_c)
    value = _checks.array(name, value, like.dtype, "the tape", role)
    sizes = {"B": like.shape[1], units: like.shape[2]}
    _checks.shape(name, value.shape, (units,) if unbatched else ("B", units), sizes)
    return _checks.contiguous(value[None] if unbatched else value)
