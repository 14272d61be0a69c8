"""A call of the kernels on tensors, and its backward: no autograd here.

Everything that travels is a tensor, which each of the ways to autograd (autograd.py, operators.py)
can hand on. Tensors lend their memory to NumPy arrays; what comes back is the kernels' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .. import _core
from .._checks import strided
from .._core import lend, make_tape
from ..cells import CELLS
from ..cells.base import Cell
from ..cells.base import backward as backward_of_cells
from ..config import current_backend, current_threads
from ..layers.stack import run_stack
from ..layers.tape import LayerTape
from ..reference.sequences import halves
from .packed import Ragged

# torch's names of its networks: the cell and its options.
MODES: dict[str, tuple[Cell, tuple[Any, ...]]] = {
    "RNN_TANH": (CELLS["rnn"], ("tanh",)),
    "RNN_RELU": (CELLS["rnn"], ("relu",)),
    "LSTM": (CELLS["lstm"], ()),
    "GRU": (CELLS["gru"], (True,)),
}

_numbers = {mode: cell.kernel(options)[0] for mode, (cell, options) in MODES.items()}

# The types that the kernels have, and NumPy's numbers of them.
NUMBERS = {torch.float32: np.dtype(np.float32).num, torch.float64: np.dtype(np.float64).num}


def _number(dtype: torch.dtype) -> int:
    if dtype not in NUMBERS:
        raise TypeError(f"the kernels have no {dtype}")
    return NUMBERS[dtype]


class Form(NamedTuple):
    """What a call is, but for its tensors."""

    mode: str
    layers: int
    bias: bool
    projected: bool
    bidirectional: bool
    batch_first: bool
    step: bool  # of a Cell: x is (B, D), one step, and h_n (and c_n) all that comes back
    scale: float  # by which dropout multiplies what it leaves; 0: there is none

    @property
    def per_layer(self) -> int:
        """How many directions a layer has."""
        return 2 if self.bidirectional else 1

    @property
    def per_direction(self) -> int:
        """How many weights a direction has."""
        return 2 + 2 * self.bias + self.projected

    @property
    def weights(self) -> int:
        return self.layers * self.per_layer * self.per_direction

    @property
    def noises(self) -> int:
        return self.layers - 1 if self.scale else 0

    @property
    def results(self) -> int:
        """How many tensors come back: output but of a step, h_n, c_n of an LSTM."""
        return 1 + (not self.step) + MODES[self.mode][0].has_c


class Inputs(NamedTuple):
    """The tensors of a call.

    x is (T, B, D), (B, T, D), (T, D) or, packed, (rows, D); states are (directions, B, n), or
    (directions, n) with the x of one sequence. Weights come in torch's order. Each noise is 0 where
    dropout drops, like the output of a layer: time-major, or packed.
    """

    x: Tensor
    batch_sizes: Tensor | None
    h_0: Tensor | None
    c_0: Tensor | None
    weights: Sequence[Tensor]
    noise: Sequence[Tensor]

    def flat(self) -> list[Tensor | None]:
        return [self.x, self.batch_sizes, self.h_0, self.c_0, *self.weights, *self.noise]

    @staticmethod
    def of(form: Form, flat: Sequence[Any]) -> tuple[Inputs, Sequence[Any]]:
        """The inner inverse of `flat`: the inputs, and what stands behind them."""
        end = 4 + form.weights
        last = end + form.noises
        x, batch_sizes, h_0, c_0 = flat[:4]
        return Inputs(x, batch_sizes, h_0, c_0, flat[4:end], flat[end:last]), flat[last:]


# ------------------------------------------------------------------------------ axes


class Axes:
    """From torch's axes to those of arrays (T, B, n) and (directions, B, n), and back."""

    __slots__ = "batch_major", "dtype", "form", "ragged", "unbatched"

    def __init__(self, form: Form, inputs: Inputs) -> None:
        x, batch_sizes = inputs.x, inputs.batch_sizes
        self.form, self.dtype = form, x.dtype
        self.ragged = None if batch_sizes is None else Ragged(batch_sizes.numpy(), len(x))
        self.unbatched = batch_sizes is None and not form.step and x.dim() == 2
        self.batch_major = form.batch_first and batch_sizes is None and not self.unbatched

    @property
    def lengths(self) -> Any:
        return None if self.ragged is None else self.ragged.lengths

    def array(self, tensor: Tensor, whole: bool = False) -> ndarray:
        return lend(tensor, self.dtype, _number(self.dtype), whole)

    def sequence(self, tensor: Tensor | None) -> Any:
        if tensor is None:
            return None
        array = self.array(tensor)
        if self.ragged is not None:
            return self.ragged.pad(array)
        if self.form.step:
            array = array[None]
        elif self.unbatched:
            array = array[:, None]
        elif self.batch_major:
            array = array.swapaxes(0, 1)
        # A tape refers to arrays that the kernels can walk: there and back the same are made.
        return strided(array)

    def state(self, tensor: Tensor | None) -> Any:
        if tensor is None:
            return None
        array = self.array(tensor, True)
        if self.form.step:
            return array[None]
        return array[:, None] if self.unbatched else array

    def sequence_back(self, array: ndarray) -> Tensor:
        if self.ragged is not None:
            array = self.ragged.pack(array)
        elif self.form.step:
            array = array[0]
        elif self.unbatched:
            array = array[:, 0]
        elif self.batch_major:
            # The kernels wrote it so that this copies nothing; the reference did not.
            array = np.ascontiguousarray(array.swapaxes(0, 1))
        return torch.from_numpy(array)

    def state_back(self, array: ndarray) -> Tensor:
        if self.form.step:
            array = array[0]
        elif self.unbatched:
            array = array[:, 0]
        return torch.from_numpy(array)

    def tape(self, array: ndarray) -> Tensor:
        """A sequence that only backward reads: never packed."""
        return self.sequence_back(array) if self.ragged is None else torch.from_numpy(array)

    def tape_back(self, tensor: Tensor) -> Any:
        return self.sequence(tensor) if self.ragged is None else self.array(tensor)


# ------------------------------------------------------------------------------ calls


class Refused(ValueError):
    """What the kernels were given does not fit."""


def directions(form: Form, weights: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """The weights of each direction as the kernels take them."""
    dtype = weights[0].dtype
    number = _number(dtype)
    arrays = [lend(w, dtype, number, True) for w in weights]
    n, found = form.per_direction, []
    for i in range(0, len(arrays), n):
        w_ih, w_hh = arrays[i : i + 2]
        b_ih, b_hh = arrays[i + 2 : i + 4] if form.bias else (None, None)
        extra: tuple[Any, ...] = ()
        if form.mode == "LSTM":
            extra = (arrays[i + n - 1] if form.projected else None, None)
        found.append((w_ih, w_hh, b_ih, b_hh, extra))
    return found


def _dropped(inputs: Inputs, axes: Axes) -> list[ndarray]:
    masks = [noise.numpy() == 0 for noise in inputs.noise]
    return masks if axes.ragged is None else [axes.ragged.pad(mask) for mask in masks]


def recorded(cell: Cell) -> tuple[str, ...]:
    """The fields of a tape that forward makes, besides output."""
    return cell.spec.kept


def keeps_result(form: Form, inputs: Inputs) -> bool:
    """Whether backward reads the output that the caller has; else it is kept in another form."""
    return inputs.batch_sizes is None and not form.step


def forward(
    form: Form, inputs: Inputs, record: bool, weights: Any = None, packed: Any = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the network.

    Parameters
    ----------
    form : Form
    inputs : Inputs
        On the CPU, of one type, float32 or float64.
    record : bool
        Whether to keep what backward needs.
    weights, packed : optional
        Of each direction, instead of the weights among the inputs: as the kernels take them.

    Returns
    -------
    results : list of Tensor
        output, h_n and, of an LSTM, c_n; without output for a single step.
    kept : list of Tensor
        For `backward`; empty where nothing is recorded.

    Raises
    ------
    Refused
        If something does not fit.
    """
    cell, options = MODES[form.mode]
    token = current_threads.set(torch.get_num_threads())
    try:
        axes = Axes(form, inputs)
        x = axes.sequence(inputs.x)
        dropout = None
        if form.noises:
            masks = iter(_dropped(inputs, axes))
            dropout = (lambda shape: next(masks)), form.scale
        output, h_n, c_n, tapes, _, intermediate = run_stack(
            cell, options, weights or directions(form, inputs.weights),
            (False, True)[: form.per_layer], x, axes.state(inputs.h_0), axes.state(inputs.c_0),
            (axes.lengths, None, None, record, axes.batch_major, 0), dropout, packed,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise Refused(str(error)) from error
    finally:
        current_threads.reset(token)
    results = [] if form.step else [axes.sequence_back(output)]
    results += [axes.state_back(state) for state in (h_n, c_n) if state is not None]
    kept: list[Tensor] = []
    if record:
        if axes.ragged is not None:
            kept.append(torch.from_numpy(x))
        if not keeps_result(form, inputs):
            kept.append(torch.from_numpy(output))
        for layer, below in enumerate(intermediate, 1):
            kept.append(axes.tape(below))
            if form.noises:
                kept.append(axes.tape(tapes[layer * form.per_layer].x))
        for tape in tapes:
            kept += [torch.from_numpy(getattr(tape, name)) for name in recorded(cell)]
    return results, kept


def backward(
    form: Form,
    wanted: Sequence[bool],
    inputs: Inputs,
    output: Tensor | None,
    kept: Sequence[Tensor],
    d_results: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients.

    Parameters
    ----------
    form : Form
    wanted : sequence of bool
        Which: of x, h_0, c_0 and each weight.
    inputs, kept
        Of `forward`, and what it kept.
    output : Tensor or None
        The first of its results, needed where it `keeps_result`.
    d_results : sequence of Tensor or None
        The loss's gradients with respect to the results. None: zeros.

    Returns
    -------
    list of Tensor or None
        None where it is not wanted.
    """
    if all(d is None for d in d_results):
        return no_gradients(wanted, inputs)
    # Their memory is lent: the sign that torch leaves for later is not in it.
    d_results = [None if d is None else d.resolve_neg() for d in d_results]
    axes = Axes(form, inputs)
    tapes, dropped = _tapes(form, axes, inputs, output, list(kept))
    d_output, d_h, *d_c = [None, *d_results] if form.step else d_results
    start = axes.sequence(d_output), axes.state(d_h), axes.state(d_c[0]) if d_c else None
    token = current_threads.set(torch.get_num_threads())
    try:
        if len(tapes) == 1:
            made = _of_single(form, wanted, tapes[0], start)
        else:
            made = _of_stack(form, wanted, LayerTape(
                form.mode, MODES[form.mode][0].spec, tapes, dropped, form.scale, False, False,
                frozenset(),
            ), start)  # fmt: skip
    finally:
        current_threads.reset(token)
    d_x, d_h, d_c, *d_weights = made
    return [
        None if d_x is None else axes.sequence_back(d_x),
        None if d_h is None else axes.state_back(d_h),
        None if d_c is None else axes.state_back(d_c),
        *[None if d is None else torch.from_numpy(d) for d in d_weights],
    ]


def _names(form: Form) -> tuple[str, ...]:
    """Of x, the states and the weights of one direction, in torch's order."""
    weights = ("w_ih", "w_hh", *(("b_ih", "b_hh") * form.bias), *(("w_hr",) * form.projected))
    return ("x", "h_0", "c_0", *weights)


def _of_single(form: Form, wanted: Sequence[bool], tape: Any, start: Any) -> list[Any]:
    """The gradients of a single direction, in less time: its parts are in the kernels' form."""
    names = _names(form)
    wrt = [name for name, too in zip(names, wanted, strict=True) if too]
    d_output, d_h, d_c = start
    ends = None if d_h is None else d_h[0], None if d_c is None else d_c[0]
    if current_backend.get() == "reference":
        (made,) = backward_of_cells([(tape, d_output, *ends, wrt, {}, None)])
    else:
        call: tuple[Any, ...] = (
            _numbers[form.mode],
            tape,
            d_output,
            *ends,
            frozenset(wrt),
            {},
            None,
        )
        (made,) = _core.backward([call], current_threads.get())
    found = dict(zip(tape._arguments, made, strict=True))
    gradients = [found.get(name) for name in names]
    gradients[1:3] = [None if d is None else d[None] for d in gradients[1:3]]
    return gradients


def _of_stack(form: Form, wanted: Sequence[bool], tape: LayerTape, start: Any) -> list[Any]:
    x_too, h_too, c_too, *weights_too = wanted
    n, names = form.per_direction, _names(form)[3:]
    into: list[dict[str, Any]] = []
    for i, one in enumerate(tape.tapes):
        some = zip(names, weights_too[i * n : (i + 1) * n], strict=True)
        into.append({name: np.empty_like(getattr(one, name)) for name, too in some if too})
    initial = tuple(name for name, too in (("h_0", h_too), ("c_0", c_too)) if too)
    states, d_x = tape._backward(start, into, initial, x_too)
    of_states = dict(zip(initial, map(np.stack, zip(*states, strict=True)), strict=True))
    of_weights = [places.get(name) for places in into for name in names]
    return [d_x if x_too else None, of_states.get("h_0"), of_states.get("c_0"), *of_weights]


def no_gradients(wanted: Sequence[bool], inputs: Inputs) -> list[Tensor | None]:
    """Zeros where they are wanted."""
    given = inputs.x, inputs.h_0, inputs.c_0, *inputs.weights
    return [
        torch.zeros_like(t) if t is not None and too else None
        for t, too in zip(given, wanted, strict=True)
    ]


def spread(made: Any, wanted: Sequence[bool]) -> list[Any]:
    """The gradients that were wanted, each at its place among all."""
    each = iter(made)
    return [next(each) if too else None for too in wanted]


def _tapes(
    form: Form, axes: Axes, inputs: Inputs, output: Tensor | None, kept: list[Tensor]
) -> tuple[tuple[Any, ...], tuple[ndarray, ...]]:
    """The tapes of the directions, put together again; and what dropout dropped."""
    cell, options = MODES[form.mode]
    number, per_layer, of_tape = _numbers[form.mode], form.per_layer, (cell.tape, options, False)
    x = axes.sequence(inputs.x) if axes.ragged is None else axes.array(kept.pop(0))
    top = axes.sequence(output) if keeps_result(form, inputs) else axes.array(kept.pop(0))
    xs, outputs = [x], []
    for _ in range(form.layers - 1):
        outputs.append(axes.tape_back(kept.pop(0)))
        xs.append(axes.tape_back(kept.pop(0)) if form.noises else outputs[-1])
    outputs.append(top)
    h_0, c_0 = axes.state(inputs.h_0), axes.state(inputs.c_0)
    lengths, batch_major = axes.lengths, axes.batch_major
    tapes = []
    for i, own in enumerate(directions(form, inputs.weights)):
        layer, reverse = divmod(i, per_layer)
        h, c = None if h_0 is None else h_0[i], None if c_0 is None else c_0[i]
        direction = (
            number, (xs[layer], h, c, *own), lengths, None, None, reverse == 1, of_tape, 0,
            batch_major, None, None,
        )  # fmt: skip
        c = axes.array(kept.pop(0)) if cell.has_c else None
        gates = axes.array(kept.pop(0)) if cell.tape_gates else None
        output_of = halves(outputs[layer], per_layer)[reverse]
        tapes.append(make_tape(number, direction, output_of, c, gates))
    return tuple(tapes), tuple(_dropped(inputs, axes))
