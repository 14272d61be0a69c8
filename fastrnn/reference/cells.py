"""The cells that the reference has, and their functions called in one way, whatever the cell."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from . import gru, leaky, lstm, rnn
from .arguments import Arrays, CellSpec, CellTape

CELLS: dict[str, ModuleType] = {"rnn": rnn, "lstm": lstm, "gru": gru, "leaky": leaky}

FORWARD = " or ".join(f"{name}_forward" for name in CELLS)  # for errors


def forward(
    cell: CellSpec, arrays: Arrays, options: tuple[Any, ...] = (), **others: Any
) -> tuple[Any, Any, Any, Any]:
    """output, h_n, c_n and the tape; c_n is None where the cell has no such state."""
    x, h_0, c_0, *weights, extra = arrays
    states = (h_0, c_0)[: len(cell.states)]
    for e, weight in zip(cell.extras, extra, strict=True):
        others[e.name] = weight
    others |= zip(cell.options, options, strict=True)
    function = getattr(CELLS[cell.name], f"{cell.name}_forward")
    output, h_n, *c_n, tape = function(x, *states, *weights, **others)
    return output, h_n, c_n[0] if c_n else None, tape


def step(cell: CellSpec, arrays: Arrays, options: tuple[Any, ...], out: Any) -> Any:
    """h, or (h, c)."""
    x_t, h, c, *weights, extra = arrays
    others = {e.name: weight for e, weight in zip(cell.extras, extra, strict=True)}
    others |= zip(cell.options, options, strict=True)
    function = getattr(CELLS[cell.name], f"{cell.name}_step")
    return function(x_t, *(h, c)[: len(cell.states)], *weights, out=out, **others)


def backward(tape: CellTape, d_output: Any, d_h_n: Any, d_c_n: Any, wrt: Any) -> Any:
    """The gradients, of whatever cell the tape is."""
    cell = tape._cell
    function = getattr(CELLS[cell.name], f"{cell.name}_backward")
    return function(tape, d_output, *(d_h_n, d_c_n)[: len(cell.states)], wrt=wrt)
