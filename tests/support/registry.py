"""The cells and their variants: the one list of them in the tests.

A new cell is a line in CELLS and one in KINDS for each of its equations. Its roundings are a
function of its name in bounds_cells.py, its bits one in test_bits_order.py. What concerns a single
cell (its equations by hand, its messages) is tested beside the others of that kind;
tests/project/test_registry.py fails where the cells are listed a second time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import fastrnn
from fastrnn import _core, reference
from fastrnn.reference.nonlinearities import NONLINEARITIES

WEIGHTS = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Cell(NamedTuple):
    """What the functions and the layer of a cell have in common."""

    name: str  # of its functions: rnn_forward, rnn_backward, in fastrnn and in fastrnn.reference
    layer: Any
    gates: int
    states: tuple[str, ...] = ("h",)
    kept: tuple[str, ...] = ()  # what its tape has beside the arguments and the output
    extras: tuple[str, ...] = ()  # of EXTRAS, those that it takes
    required: tuple[str, ...] = ()  # the arguments of extra weights that it always has, (H,) each

    @property
    def weights(self) -> dict[str, str]:
        """The arguments of the weights of a layer, by their names without its number."""
        own = {f"weight_{name}": name for name in self.required}
        extras = {EXTRAS[extra].weight: EXTRAS[extra].argument for extra in self.extras}
        return WEIGHTS | own | extras

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arrays that have a gradient, in the order of the signature."""
        initial = (f"{state}_0" for state in self.states)
        weights = (EXTRAS[extra].argument for extra in self.extras)
        return ("x", *initial, "w_ih", "w_hh", "b_ih", "b_hh", *self.required, *weights)

    def forward(self, module: Any = fastrnn) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(module, f"{self.name}_forward")
        return function

    def backward(self, module: Any = fastrnn) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(module, f"{self.name}_backward")
        return function

    def step(self, module: Any = fastrnn) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(module, f"{self.name}_step")
        return function


class Extra(NamedTuple):
    """A weight that a cell may have besides, as an argument of its functions and of its layer."""

    argument: str
    weight: str  # its name in layer.weights, without the layer's number
    option: Callable[[int], dict[str, Any]]  # of a layer, by its hidden size


EXTRAS = {
    "projection": Extra("w_hr", "weight_hr", lambda H: {"proj_size": max(1, H // 2)}),
    "peepholes": Extra("w_peep", "weight_peephole", lambda _: {"peephole": True}),
}

CELLS = {
    cell.name: cell
    for cell in (
        Cell("rnn", fastrnn.RNN, 1),
        Cell("lstm", fastrnn.LSTM, 4, ("h", "c"), ("c", "gates"), tuple(EXTRAS)),
        Cell("gru", fastrnn.GRU, 3, kept=("gates",)),
        Cell("leaky", fastrnn.LeakyRNN, 1, kept=("c", "gates"), required=("leak",)),
    )
}


class Kind(NamedTuple):
    """The equations of a cell under some options, which its functions and its layer take alike.

    norm: the spectral norm of each gate's part of W_hh in drawn problems: states and gradients
    reach back tens of steps, and neither they nor their errors explode. The slope of tanh brings
    1.4 to about 1.
    kinks: the pre-activations at which the derivative jumps.
    bounded: whether every state is, whatever comes in.
    silent: whether a network of zeros stays at zero.
    elsewhere: whether PyTorch, ONNX and the like have it.
    alike: whether another kind shares all of its code but for the nonlinearity.
    """

    cell: Cell
    options: Mapping[str, Any]
    norm: float
    kernel: str  # its name in C
    apart: int = 0  # so many gates, the last ones, have a chain of sums over x and one over h
    kinks: tuple[float, ...] = ()
    bounded: bool = True
    silent: bool = True
    elsewhere: bool = True
    alike: bool = False

    @property
    def number(self) -> int:
        return [cell[0] for cell in _core.CELLS].index(self.kernel)


def elman(f: str, norm: float, **others: Any) -> Kind:
    return Kind(CELLS["rnn"], {"nonlinearity": f}, norm, f"rnn_{f}", **others)


def leaky(form: str, f: str, norm: float, **others: Any) -> Kind:
    options = {"form": form, "nonlinearity": f}
    return Kind(CELLS["leaky"], options, norm, f"leaky_{form}_{f}", elsewhere=False, **others)


# Of leaky networks those that are unlike the others. All share one piece of code for each form.
KINDS = {
    "tanh": elman("tanh", 1.4),
    "sigmoid": elman("sigmoid", 4.0, silent=False, elsewhere=False, alike=True),
    "identity": elman("identity", 0.95, bounded=False, elsewhere=False, alike=True),
    "hard_sigmoid": elman("hard_sigmoid", 5.0, kinks=(-3.0, 3.0), silent=False, elsewhere=False),
    "relu": elman("relu", 0.95, kinks=(0.0,), bounded=False),
    "lstm": Kind(CELLS["lstm"], {}, 2.0, "lstm"),
    "gru": Kind(CELLS["gru"], {"reset_after": True}, 1.4, "gru", apart=1),
    "gru-reset-first": Kind(CELLS["gru"], {"reset_after": False}, 1.4, "gru_reset_first"),
    "potential": leaky("potential", "tanh", 1.4, bounded=False),
    "potential-sigmoid": leaky("potential", "sigmoid", 4.0, bounded=False, silent=False),
    "rate-relu": leaky("rate", "relu", 0.95, kinks=(0.0,), bounded=False, alike=True),
    "rate": leaky("rate", "tanh", 1.4),
}


def leaks(rng: np.random.Generator, H: int) -> Any:
    """(H,): multiples of 2^-10, so that 1 - a is exact, and no error is shared by all steps."""
    return rng.integers(100, 900, H) / 1024.0


class Variant(NamedTuple):
    """A kind with some of the extra weights that its cell takes."""

    kind: str
    extras: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "-".join((self.kind, *self.extras))

    @property
    def cell(self) -> Cell:
        return KINDS[self.kind].cell

    @property
    def options(self) -> Mapping[str, Any]:
        return KINDS[self.kind].options

    @property
    def elsewhere(self) -> bool:
        return KINDS[self.kind].elsewhere

    def lacking(self) -> set[str]:
        """The arguments of the extra weights that it does not have."""
        return {EXTRAS[e].argument for e in self.cell.extras if e not in self.extras}

    def arrays(
        self, T: int = 5, B: int = 3, D: int = 2, H: int = 3, dtype: Any = np.float64, seed: int = 0
    ) -> dict[str, Any]:
        """The array arguments; weights small enough to keep the gates away from flat parts."""
        rng = np.random.default_rng(seed)
        rows, P = self.cell.gates * H, H - 1 if "projection" in self.extras else H
        shapes: dict[str, tuple[int, ...]] = {"x": (T, B, D), "h_0": (B, P), "c_0": (B, H)}
        shapes |= {"w_ih": (rows, D), "w_hh": (rows, P), "b_ih": (rows,), "b_hh": (rows,)}
        shapes |= {"w_hr": (P, H), "w_peep": (3 * H,)}
        drawn = {
            name: ((1 if name in "x h_0 c_0" else 0.5) * rng.standard_normal(shape)).astype(dtype)
            for name, shape in shapes.items()
            if name in set(self.cell.arguments) - self.lacking()
        }
        return drawn | {name: leaks(rng, H).astype(dtype) for name in self.cell.required}

    def forward(self, module: Any = reference, **arguments: Any) -> tuple[Any, Any, Any]:
        """output, (h_n,) or (h_n, c_n), tape; arguments go by their names."""
        output, *states, tape = self.cell.forward(module)(**self.options, **arguments)
        return output, tuple(states), tape

    def backward(
        self, tape: Any, d_output: Any, d_states: Any = (), module: Any = reference, **options: Any
    ) -> Any:
        return self.cell.backward(module)(tape, d_output, *d_states, **options)

    def output_of(self, h: Any) -> Any:
        """The output of a step, from the state that the cell calls h."""
        f = NONLINEARITIES[self.options["nonlinearity"]].f if "form" in self.options else None
        return h if f is None or self.options["form"] == "rate" else f(h)

    def step(self, module: Any = fastrnn, **arguments: Any) -> tuple[Any, ...]:
        """(h,) or (h, c)."""
        made = self.cell.step(module)(**self.options, **arguments)
        return made if len(self.cell.states) > 1 else (made,)

    def step_arrays(self, B: int, D: int, H: int, dtype: Any, seed: int = 0) -> dict[str, Any]:
        """The array arguments of a step, by their names."""
        arrays = self.arrays(1, B, D, H, dtype, seed)
        names = {"x": "x_t"} | {f"{state}_0": state for state in self.cell.states}
        arrays["x"] = arrays["x"][0]
        return {names.get(name, name): a for name, a in arrays.items()}

    def layer(self, D: int | None, H: int, num_layers: int = 1, **options: Any) -> Any:
        """A layer of this variant; what the caller says wins."""
        return self.cell.layer(D, H, num_layers, **self.layer_options(H) | options)

    def layer_options(self, H: int) -> dict[str, Any]:
        options = dict(self.options)
        for extra in self.extras:
            options |= EXTRAS[extra].option(H)
        return options


VARIANTS = {
    variant.name: variant
    for kind in KINDS
    for n in range(len(KINDS[kind].cell.extras) + 1)
    for variant in (Variant(kind, e) for e in itertools.combinations(KINDS[kind].cell.extras, n))
}

# Of each cell: the first variant, which is the plain one; that with all extra weights; the last,
# which has all of them and the other option.
FIRST = {name: next(v for v in VARIANTS.values() if v.cell is cell) for name, cell in CELLS.items()}
RICH = {name: VARIANTS[Variant(FIRST[name].kind, c.extras).name] for name, c in CELLS.items()}
LAST = {name: [v for v in VARIANTS.values() if v.cell is cell][-1] for name, cell in CELLS.items()}

GATED = [name for name, variant in VARIANTS.items() if "gates" in variant.cell.kept]
# Tests of layers make these without biases; what has one variant alone is made with them.
UNBIASED = {variant.name for name, variant in LAST.items() if variant is not FIRST[name]}


def variants_of(cell: Cell) -> list[Variant]:
    """Those of a cell; the second has all of its extra weights."""
    of_cell = [variant for variant in VARIANTS.values() if variant.cell is cell]
    return [of_cell[0], *sorted(of_cell[1:], key=lambda v: -len(v.extras))]
