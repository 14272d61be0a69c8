"""Which layers are timed: the cells, the named shapes and regimes, their work and their data.

Words: T time steps, B batch, D input features, H hidden units, G gates of the cell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module

import numpy as np

# step: one time step from Python, the state carried from call to call; tape: forward that keeps
# what backward needs; stream and frozen: forward with packed weights kept from call to call, by
# layer.stream and layer.freeze. These only if they are asked for: step and stream do not have all
# shapes, and tape is a part of training.
MODES = ("forward", "training", "step", "tape", "stream", "frozen")
DEFAULT_MODES = ("forward", "training")
# What peers do in their forward: they keep what they made of the weights anyway.
KEPT_MODES = ("stream", "frozen")
DTYPES = ("float32", "float64")


class BenchError(ValueError):
    """A request that cannot be carried out; its text is one line for the user."""


@dataclass(frozen=True)
class Cell:
    """What the benchmark must know of a cell; everything else follows from the public names.

    Parameters
    ----------
    name : str
        The prefix of the public functions: ``rnn`` for ``rnn_forward`` and ``rnn_backward``.
    gates : int
        G, so that w_ih is (G*H, D) and w_hh is (G*H, H).
    states : tuple of str
        The initial states in the order of the forward function's arguments.
    layer : str
        The name of the class of its layer.
    extras : tuple of (str, str)
        Of the weights (H,) that it requires besides, given by keyword: the name as an argument, and
        what layers call it.
    """

    name: str
    gates: int
    states: tuple[str, ...]
    layer: str
    extras: tuple[tuple[str, str], ...]


class Cells(Mapping[str, Cell]):
    """The package's cells by their names, from its registry.

    That is imported when a cell is first asked for, which never happens in a worker: it is told of
    its cell, and may be the process of another framework.
    """

    @cached_property
    def _cells(self) -> dict[str, Cell]:
        specs = [cell.spec for cell in import_module("fastrnn.cells").CELLS.values()]
        return {
            s.name: Cell(
                s.name,
                s.gates,
                tuple(f"{h}_0" for h in s.states),
                s.layer,
                tuple((e.name, e.on_layers) for e in s.extras if e.required),
            )
            for s in specs
        }

    def __getitem__(self, name: str) -> Cell:
        return self._cells[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


# Which of a peer's layers stands for which cell is in the peer's own table (frameworks.py,
# onnx_peers.py); a peer without one refuses.
CELLS = Cells()


@dataclass(frozen=True)
class Shape:
    """Sizes (T, B, D, H) of a layer, its stack and directions, and whether lengths differ.

    As text "(T,B,D,H)", then " x2" for two layers, " both" for both directions, " ragged" for
    sequences of different lengths.
    """

    T: int
    B: int
    D: int
    H: int
    layers: int = 1
    directions: int = 1
    ragged: bool = False

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The four sizes in order."""
        return self.T, self.B, self.D, self.H

    @property
    def extras(self) -> frozenset[str]:
        """What it has beyond one layer in one direction: stacked, bidirectional, ragged."""
        extras = {"stacked": self.layers > 1, "bidirectional": self.directions > 1}
        return frozenset(k for k, v in (extras | {"ragged": self.ragged}).items() if v)

    @property
    def suffixes(self) -> list[str]:
        """What the names of each cell's weights end in; nothing where there is only one cell."""
        if self.layers == self.directions == 1:
            return [""]
        ends = ("", "_reverse")[: self.directions]
        return [f"_l{k}{end}" for k in range(self.layers) for end in ends]

    @property
    def features(self) -> list[int]:
        """How many features each cell is fed with."""
        upper = [self.directions * self.H] * (self.layers - 1)
        return [n for n in (self.D, *upper) for _ in range(self.directions)]

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """(B, H), or (cells, B, H) where there are several."""
        cells = len(self.suffixes)
        return (self.B, self.H) if cells == 1 else (cells, self.B, self.H)

    @property
    def lengths(self) -> np.ndarray | None:
        """(B,), uniform between 1 and T, the same every time; None where all are T."""
        if not self.ragged:
            return None
        return np.random.default_rng(self.B).integers(1, self.T + 1, self.B)

    @property
    def steps(self) -> int:
        """The time steps of all sequences together."""
        return self.T * self.B if self.lengths is None else int(self.lengths.sum())

    @property
    def name(self) -> str:
        """The name in `SHAPES`, or an empty string."""
        return next((name for name, shape in SHAPES.items() if shape == self), "")

    def __str__(self) -> str:
        words = [f"({self.T},{self.B},{self.D},{self.H})"]
        words += [f"x{self.layers}"] * (self.layers > 1)
        words += ["both"] * (self.directions > 1) + ["ragged"] * self.ragged
        return " ".join(words)


# What is timed where nothing is said.
SHAPES: dict[str, Shape] = {
    "one-step": Shape(1, 1, 64, 64),
    "sequence": Shape(100, 1, 64, 64),
    "short": Shape(25, 1, 64, 100),
    "small": Shape(100, 32, 64, 128),
    "medium": Shape(100, 64, 256, 256),
    "large": Shape(50, 64, 512, 512),
    "huge": Shape(32, 128, 1024, 1024),
    "long": Shape(1000, 16, 32, 64),
    # Sizes that fill neither a vector nor a block of rows.
    "awkward": Shape(64, 20, 37, 100),
    "odd": Shape(200, 7, 13, 33),
}

# What recurrent layers are used for, and what a change may be good for while it harms the rest.
REGIMES: dict[str, tuple[str, ...]] = {
    "step": ("1,1,16,16", "one-step", "1,1,256,256", "1,1,1024,1024"),
    "batch-1": ("short", "sequence"),
    # One sequence, and weights that no second-level cache holds.
    "batch-1-wide": ("1,1,1024,1024", "25,1,1024,1024", "50,1,1024,1024", "100,1,512,512"),
    "streaming": ("4096,1,1,16", "4096,1,1,32", "4096,1,1,64"),
    "narrow": ("long", "5000,4,8,32"),
    "minibatch": ("small", "medium"),
    "wide": ("large", "huge"),
    # Few rows share what is read of many units' weights.
    "few-rows": ("20,8,1024,1024", "20,32,1024,1024", "32,64,1024,1024", "20,16,2048,2048"),
    "uneven": ("awkward", "odd", "30,256,128,192", "16,48,300,650"),
    "stacked": ("small x2",),
    "bidirectional": ("sequence both", "small both"),
    "ragged": ("small", "small ragged"),  # the same x, padded and with its lengths
}


def parse_shape(text: str) -> Shape:
    """Return the shape that a text stands for: "T,B,D,H" or a name, and the words of `Shape`.

    Raises
    ------
    BenchError
        If it is none, or a size is not positive.
    """
    start, *words = re.sub(r"\s*,\s*", ",", text).split() or [""]
    try:
        shape = SHAPES.get(start) or _plain_shape(start)
        for word in words:
            if word == "both":
                shape = replace(shape, directions=2)
            elif word == "ragged":
                shape = replace(shape, ragged=True)
            elif re.fullmatch("x[1-9][0-9]?", word):
                shape = replace(shape, layers=int(word[1:]))
            else:
                raise ValueError
    except ValueError:
        raise BenchError(
            f"shape {text!r} is neither T,B,D,H (four positive integers) nor one of "
            f'{", ".join(SHAPES)}, with or without x2, both or ragged behind, as in "small x2"; '
            f"nor a regime, which are {', '.join(REGIMES)} and all"
        ) from None
    return shape


def _plain_shape(text: str) -> Shape:
    T, B, D, H = (int(part) for part in text.strip("()").split(","))
    if min(T, B, D, H) < 1:
        raise ValueError
    return Shape(T, B, D, H)


def parse_shapes(texts: Sequence[str]) -> list[Shape]:
    """Return the shapes, each once, of texts as `parse_shape` takes them, or names of regimes.

    The regime "all" is all of them.
    """
    every = {"all": tuple(text for regime in REGIMES.values() for text in regime)}
    members = [member for text in texts for member in (REGIMES | every).get(text, (text,))]
    return list(dict.fromkeys(map(parse_shape, members)))


def why_not_timed(mode: str, shape: Shape) -> str:
    """Say why a mode does not have a shape; an empty string where it has.

    A step is one time step of one layer, whatever its peers call that; a stream cannot know what
    is to come.
    """
    if mode == "step" and shape.T != 1:
        return f"has T = {shape.T}: the mode step takes T = 1"
    if mode == "step" and shape.extras:
        return "is more than one plain layer: the mode step takes that"
    if mode == "stream" and shape.extras & {"bidirectional", "ragged"}:
        return "is not plain: the mode stream takes one direction and no lengths"
    return ""


def is_timed(mode: str, shape: Shape) -> bool:
    """Whether a mode has this shape."""
    return not why_not_timed(mode, shape)


def flops(cell: Cell, shape: Shape, mode: str = "forward") -> int:
    """Return the floating-point operations in the matrix products of one call.

    Of a cell, forward is 2*T*B*G*H*(D+H), and so are a step, where T is 1, tape, stream and
    frozen; of ragged sequences only the steps that exist count. Training is three times that:
    backward has one product of the same size for the inputs' gradients and one for the weights'.
    Activations are not counted.
    """
    features = sum(n + shape.H for n in shape.features)
    forward = 2 * shape.steps * cell.gates * shape.H * features
    return 3 * forward if mode == "training" else forward


def weight_reads(cell: Cell, shape: Shape, mode: str, dtype: str) -> tuple[int, int] | None:
    """Return how many bytes of weights have to be read over and over, and how often in one call.

    Only for one sequence: a batch shares what was read. Each step of the recurrence needs all of
    w_hh, and so does each step of its backpropagation. The input part of many steps is one product,
    which shares w_ih as a batch does; a single step reads all weights. Cells are run one after the
    other, so that what is read over and over is one cell's.
    """
    if shape.B != 1:
        return None
    size, rows = np.dtype(dtype).itemsize, cell.gates * shape.H
    passes = 2 if mode == "training" else 1
    if shape.T == 1:
        return sum(rows * (n + shape.H) * size for n in shape.features), passes
    return rows * shape.H * size, passes * shape.steps * len(shape.suffixes)


@dataclass(frozen=True)
class Problem:
    """One layer's inputs, weights and incoming gradients: the same for every peer.

    Where there are several cells (layers, directions), the names of weights end in
    `Shape.suffixes`, and the states have an axis more, both in PyTorch's order.
    """

    cell: Cell
    shape: Shape
    dtype: str
    x: np.ndarray  # (T, B, D)
    states: tuple[np.ndarray, ...]  # each (B, H), or (cells, B, H)
    weights: dict[str, np.ndarray]  # w_ih (G*H, D), w_hh (G*H, H), b_ih (G*H,), b_hh (G*H,), extras
    d_output: np.ndarray  # (T, B, H), or of both directions (T, B, 2*H)
    d_states: tuple[np.ndarray, ...]  # as the states

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """x, the states and the weights, in the order of the forward function."""
        return (self.x, *self.states, *self.weights.values())

    @property
    def keywords(self) -> dict[str, np.ndarray]:
        """The weights of one cell that its forward function takes by keyword."""
        return {name: self.weights[name] for name, _ in self.cell.extras}

    @property
    def positional(self) -> tuple[np.ndarray, ...]:
        """Of one cell, `inputs` without these."""
        return self.inputs[: len(self.inputs) - len(self.cell.extras)]

    def mapped(self, f: Callable[[np.ndarray], np.ndarray]) -> Problem:
        """The problem with f of each of its arrays."""
        return replace(
            self,
            x=f(self.x),
            states=tuple(map(f, self.states)),
            weights={name: f(array) for name, array in self.weights.items()},
            d_output=f(self.d_output),
            d_states=tuple(map(f, self.d_states)),
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of `inputs`."""
        return ("x", *self.cell.states, *self.weights)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of what forward returns: output, h_n, ..."""
        return ("output", *(name.replace("_0", "_n") for name in self.cell.states))


def make_problem(cell: Cell, shape: Shape, dtype: str = "float32", seed: int = 0) -> Problem:
    """Draw a problem; the same arguments give the same arrays in every process.

    Weights are uniform within 1/sqrt(H), as PyTorch draws them: the recurrence neither dies nor
    saturates, so that activations and subnormals cost what they cost in use. Extra weights, which
    are leaks, lie so much around one half.
    """
    T, B, D, H = shape.sizes
    rng = np.random.default_rng(seed)
    rows = cell.gates * H

    def uniform(*sizes: int) -> np.ndarray:
        bound = 1.0 / float(np.sqrt(H))
        return rng.uniform(-bound, bound, sizes).astype(dtype)

    def normal(*sizes: int) -> np.ndarray:
        return rng.standard_normal(sizes).astype(dtype)

    weights = {}
    for suffix, features in zip(shape.suffixes, shape.features, strict=True):
        weights[f"w_ih{suffix}"] = uniform(rows, features)
        weights[f"w_hh{suffix}"] = uniform(rows, H)
        weights[f"b_ih{suffix}"] = uniform(rows)
        weights[f"b_hh{suffix}"] = uniform(rows)
        for name, _ in cell.extras:
            weights[f"{name}{suffix}"] = np.clip(uniform(H), -0.4, 0.4) + np.array(0.5, dtype)
    return Problem(
        cell=cell,
        shape=shape,
        dtype=dtype,
        x=normal(T, B, D),
        states=tuple(0.5 * normal(*shape.state_sizes) for _ in cell.states),
        weights=weights,
        d_output=normal(T, B, shape.directions * H),
        d_states=tuple(normal(*shape.state_sizes) for _ in cell.states),
    )


# How many steps of a stream are compared: at the third, the state has been through both of two
# buffers that take turns.
CHECKED_STEPS = 3


def checked_problem(problem: Problem, mode: str) -> Problem:
    """Return the problem whose results are compared: of a step, several with the same x."""
    if mode != "step":
        return problem
    return replace(
        problem,
        shape=replace(problem.shape, T=CHECKED_STEPS),
        x=np.concatenate([problem.x] * CHECKED_STEPS),
        d_output=np.concatenate([problem.d_output] * CHECKED_STEPS),
    )


def tolerance(name: str, problem: Problem) -> float:
    """Return how far a result may be from the reference, as a share of its largest value.

    Rounding errors grow with the square root of the longest sum: D+H terms in a gate, G*H in the
    gradients that leave a step, T*B in those of weights; 64 at least. They do not grow with T:
    with the weights of `make_problem` every cell forgets (c too, whose f is near one half), and
    what a step adds fades. The factor of 64 is for peers whose activations are approximations;
    frameworks were found within 1/100 of the tolerance, with all cells. Of float32 it is 6e-5 to
    5e-4, of weight gradients to 1e-3. With products in bfloat16 the outputs of every cell differ
    by 1.5e-3 and more: they do not pass for float32.
    """
    T, B, _, H = problem.shape.sizes
    terms = max(64, max(problem.shape.features) + H)
    if name.startswith("d_"):
        terms = max(terms, problem.cell.gates * H)
        if name.removeprefix("d_") in problem.weights:
            terms = max(terms, T * B)
    return min(1e-3, 64 * float(np.finfo(problem.dtype).eps) * float(np.sqrt(terms)))


def disagreements(
    expected: dict[str, np.ndarray], got: dict[str, np.ndarray], problem: Problem
) -> list[str]:
    """Compare a peer's results with the float64 reference; return one line for each difference.

    The measure is the largest difference over the largest expected value.
    """
    lines = []
    for name, want in expected.items():
        have = got.get(name)
        if have is None:
            lines.append(f"{name} is missing")
        elif have.shape != want.shape:
            lines.append(f"{name} has shape {have.shape}, expected {want.shape}")
        elif str(have.dtype) != problem.dtype:
            lines.append(f"{name} is {have.dtype}, expected {problem.dtype}")
        else:
            scale = max(float(np.max(np.abs(want))), float(np.finfo(problem.dtype).tiny))
            error = float(np.max(np.abs(have.astype(np.float64) - want))) / scale
            allowed = tolerance(name, problem)
            if not error <= allowed:  # a NaN lands here too
                lines.append(
                    f"{name} differs by {error:.1e} of its largest value, more than {allowed:.1e}"
                )
    return lines


def select(names: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """Return the names, each once and in order, or raise BenchError for an unknown one."""
    for name in names:
        if name not in known:
            raise BenchError(f"unknown {what} {name!r}: choose from {', '.join(known)}")
    return list(dict.fromkeys(names))
