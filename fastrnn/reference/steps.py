"""One step of a cell: what both backends check, and the step in plain NumPy, whatever the cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy import shares_memory

from .. import _checks
from .arguments import WEIGHT_NAMES, Arguments, Arrays, CellSpec, forward_arguments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def step_arguments(cell: CellSpec, arrays: Arrays, out: Any) -> Arguments:
    """Check what a cell's step was given, and bring it into the form of a sequence of one step.

    Parameters
    ----------
    cell : CellSpec
    arrays
        As the caller gave them: x_t (B, D) or (D,) in the place of x, and the states h and c.
    out : object
        None, or where the caller wants the states: an array like h, or a pair like h and c.

    Returns
    -------
    Arguments
    """
    arguments = forward_arguments(cell, arrays, step=True)
    if out is not None:
        x, w_hh = arguments.arrays[0], arguments.arrays[4]
        sizes = {"B": x.shape[1], "P": w_hh.shape[1], "H": len(w_hh) // cell.gates}
        letters = ("P" if sizes["P"] < sizes["H"] else "H", "H")
        given = _results(cell, out)
        names = ("out",) if len(given) == 1 else ("out[0]", "out[1]")
        for name, place, letter in zip(names, given, letters, strict=False):
            axes = (letter,) if arguments.unbatched else ("B", letter)
            _checks.place(name, place, x.dtype, "x_t", axes, sizes)
        _check_apart(cell, arrays, dict(zip(names, given, strict=True)))
    return arguments


def _results(cell: CellSpec, out: Any) -> tuple[Any, ...]:
    """The arrays to write to."""
    return (out,) if len(cell.states) == 1 else _checks.state_pair("out", out, optional=False)


def _check_apart(cell: CellSpec, arrays: Arrays, places: dict[str, Array]) -> None:
    """Raise where a result would be written over a weight or another result."""
    weights = dict(zip(WEIGHT_NAMES, arrays[3:7], strict=True))
    weights |= {e.name: weight for e, weight in zip(cell.extras, arrays[7], strict=True)}
    for name, place in places.items():
        for other, a in (places | weights).items():
            if other != name and a is not None and shares_memory(place, a):
                raise ValueError(f"{name} shares memory with {other}: pass another array, or none")


def step(
    cell: CellSpec, forward: Callable[..., Any], arrays: Arrays, out: Any, **options: Any
) -> Any:
    """One step by a cell's forward: the states, which are `out` where that is given."""
    given = step_arguments(cell, arrays, out)
    x, h_0, c_0, *weights, extra = given.arrays
    states = (h_0, c_0)[: len(cell.states)]
    extras = {e.name: weight for e, weight in zip(cell.extras, extra, strict=True)}
    _, *after, _ = forward(x, *states, *weights, **extras, **options, record=False)
    if given.unbatched:
        after = [state[0] for state in after]
    if out is None:
        return after[0] if len(after) == 1 else tuple(after)
    for place, state in zip(_results(cell, out), after, strict=True):
        place[...] = state
    return out
