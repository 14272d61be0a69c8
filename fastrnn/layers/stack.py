"""Running a stack of recurrent layers, each with one direction or two. The way back: tape.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _core
from ..cells.base import Cell, forward
from ..reference.arguments import forward_arguments
from ..reference.sequences import apply_dropout, halves

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..cells.base import Common

    Array = NDArray[Any]

    # Which elements of an output of this shape dropout makes zero, and by what it multiplies the
    # others.
    Dropout = tuple[Callable[[tuple[int, ...]], Array], float]


def run_stack(
    cell: Cell,
    options: tuple[Any, ...],
    directions: Sequence[tuple[Any, ...]],
    ways: tuple[bool, ...],
    x: Array,
    h_0: Any,
    c_0: Any,
    common: Common,
    dropout: Dropout | None = None,
    packed: Sequence[Any] | None = None,
) -> tuple[Array, Array, Any, tuple[Any, ...], tuple[Array, ...], list[Array]]:
    """Run layer after layer.

    Parameters
    ----------
    cell, options
        Of every layer.
    directions : sequence of tuple
        The weights of each: w_ih, w_hh, b_ih, b_hh and the tuple of the extra ones; w_ih None in
        the first layer where x is its pre-activations.
    ways : tuple of bool
        Of each direction of a layer, one or two: whether it goes from the last step to the first.
    x : ndarray
        (T, B, D). Where the first layer has no w_ih, each direction takes its own part of it.
    h_0, c_0 : ndarray or None
        (directions, B, P) and (directions, B, H).
    common : Common
        Checked.
    dropout : Dropout, optional
        What acts on the output of every layer but the last.
    packed : sequence of _core.Packed, optional
        Of each direction.

    Returns
    -------
    output, h_n, c_n, tapes, dropped, intermediate
        output (T, B, n); c_n None where the cell has none; the tapes of the directions, each None
        where none is recorded; what dropout made zero between each two layers; and the outputs of
        all layers but the last, as they were before.
    """
    if len(directions) == 1:  # what follows, in less time
        h, c = None if h_0 is None else h_0[0], None if c_0 is None else c_0[0]
        one = ((x, h, c, *directions[0]), ways[0], None, None if packed is None else packed[0])
        ((x, h, c, tape),) = forward(cell, options, common, [one])
        return x, h[None], None if c is None else c[None], (tape,), (), []
    per_layer = len(ways)
    made: list[tuple[Any, ...]] = []
    dropped: list[Array] = []
    intermediate: list[Array] = []
    for first in range(0, len(directions), per_layer):
        if first:
            intermediate.append(x)
        if first and dropout is not None:
            choose, scale = dropout
            dropped.append(choose(x.shape))
            x = apply_dropout(x, dropped[-1], scale)
        weights = directions[first : first + per_layer]
        output, places = (None, (None,)) if per_layer == 1 else _places(x, weights, common)
        calls = []
        inputs = halves(x, per_layer) if weights[0][0] is None else (x,) * per_layer
        each = zip(inputs, weights, ways, places, strict=True)
        for i, (part, own, reverse, place) in enumerate(each, first):
            h, c = None if h_0 is None else h_0[i], None if c_0 is None else c_0[i]
            own_packed = None if packed is None else packed[i]
            calls.append(((part, h, c, *own), reverse, place, own_packed))
        made += forward(cell, options, common, calls)
        x = made[-1][0] if output is None else output
    _, h_n, c_n, tapes = zip(*made, strict=True)
    final = np.stack(h_n), np.stack(c_n) if cell.has_c else None
    return x, *final, tapes, tuple(dropped), intermediate


def packable(
    cell: Cell,
    options: tuple[Any, ...],
    directions: Sequence[tuple[Any, ...]],
    ways: int,
    dtype: np.dtype[Any],
) -> tuple[int, list[tuple[Any, ...]]]:
    """What `_core.pack` takes: the kernel's number of the cell, and the weights of each direction.

    They are checked: C reads as much of them as their shapes say, whatever has become of the
    attributes of the layer.

    Parameters
    ----------
    cell, options, directions
        As for `run_stack`.
    ways : int
        How many directions each layer has.
    dtype : numpy.dtype
        What the weights must be.
    """
    weights: list[tuple[Any, ...]] = []
    for i, own in enumerate(directions):
        w_ih, w_hh = own[:2]
        if i >= ways:  # the features are what both directions of the layer below give
            below = i - i % ways - ways
            features = sum(w[1].shape[1] for w in weights[below : below + ways])
        else:
            features = w_hh.shape[0] if w_ih is None else w_ih.shape[1]
        arrays = (np.empty((0, 1, features), dtype), None, None, *own)
        if _core.arrays_fit(cell.number, arrays) != 3:
            arrays = forward_arguments(cell.spec, arrays).arrays
        weights.append(arrays[3:])
    return cell.kernel(options)[0], weights


def _places(
    x: Array, weights: Sequence[tuple[Any, ...]], common: Common
) -> tuple[Array, list[Array]]:
    """An output (T, B, 2·P), and what of it each direction is to write."""
    # By the weights, whatever has become of a layer's attributes: C writes so much.
    units, others = (w_hh.shape[-1] for _, w_hh, *_ in weights)
    steps, batch, _ = x.shape
    _checks.elements(T=steps, B=batch, n=units + others)
    batch_major = common[4]
    output = _core.empty_sequence(steps, batch, units + others, x.dtype.num, batch_major)
    return output, [output[:, :, :units], output[:, :, units:]]
