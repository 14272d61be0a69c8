"""Which layers are timed: the cells, the named shapes, their work and their data.

Words: T time steps, B batch, D input features, H hidden units, G gates of the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# step: one time step from Python, the state carried from call to call; only if it is asked for,
# because it times an interface of its own (layer.stream) and takes shapes of one time step alone.
MODES = ("forward", "training", "step")
DEFAULT_MODES = ("forward", "training")
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
    """

    name: str
    gates: int
    states: tuple[str, ...]


# A new cell is one entry here and one in each peer's own table of cells (peers.py, frameworks.py,
# onnx_peers.py).
CELLS: dict[str, Cell] = {
    "rnn": Cell("rnn", 1, ("h_0",)),
    "lstm": Cell("lstm", 4, ("h_0", "c_0")),  # gates i, f, g, o
    "gru": Cell("gru", 3, ("h_0",)),  # gates r, z, n
}


@dataclass(frozen=True)
class Shape:
    """Sizes (T, B, D, H) of one layer in one direction."""

    T: int
    B: int
    D: int
    H: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The four sizes in order."""
        return self.T, self.B, self.D, self.H

    @property
    def name(self) -> str:
        """The name in `SHAPES`, or an empty string."""
        return next((name for name, shape in SHAPES.items() if shape == self), "")

    def __str__(self) -> str:
        return f"({self.T},{self.B},{self.D},{self.H})"


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
    "ragged": Shape(200, 7, 13, 33),
}


def parse_shape(text: str) -> Shape:
    """Return the shape that a name of `SHAPES` or a text "T,B,D,H" stands for.

    Raises
    ------
    BenchError
        If it is neither, or a size is not positive.
    """
    if text in SHAPES:
        return SHAPES[text]
    try:
        sizes = [int(part) for part in text.strip("() ").split(",")]
    except ValueError:
        sizes = []
    if len(sizes) != 4 or min(sizes) < 1:
        raise BenchError(
            f"shape {text!r} is neither T,B,D,H (four positive integers) nor one of "
            + ", ".join(SHAPES)
        )
    return Shape(*sizes)


def is_timed(mode: str, shape: Shape) -> bool:
    """Whether a mode has this shape: a step is one time step, the others have all."""
    return mode != "step" or shape.T == 1


def flops(cell: Cell, shape: Shape, mode: str = "forward") -> int:
    """Return the floating-point operations in the matrix products of one call.

    Forward is 2*T*B*G*H*(D+H), and so is a step, where T is 1. Training is three times that:
    backward has one product of the same size for the inputs' gradients and one for the weights'.
    Activations are not counted.
    """
    T, B, D, H = shape.sizes
    forward = 2 * T * B * cell.gates * H * (D + H)
    return 3 * forward if mode == "training" else forward


@dataclass(frozen=True)
class Problem:
    """One layer's inputs, weights and incoming gradients: the same for every peer."""

    cell: Cell
    shape: Shape
    dtype: str
    x: np.ndarray  # (T, B, D)
    states: tuple[np.ndarray, ...]  # each (B, H)
    weights: dict[str, np.ndarray]  # w_ih (G*H, D), w_hh (G*H, H), b_ih (G*H,), b_hh (G*H,)
    d_output: np.ndarray  # (T, B, H)
    d_states: tuple[np.ndarray, ...]  # each (B, H)

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """x, the states and the weights, in the order of the forward function."""
        return (self.x, *self.states, *self.weights.values())

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
    saturates, so that activations and subnormals cost what they cost in use.
    """
    T, B, D, H = shape.sizes
    rng = np.random.default_rng(seed)
    rows = cell.gates * H

    def uniform(*sizes: int) -> np.ndarray:
        bound = 1.0 / float(np.sqrt(H))
        return rng.uniform(-bound, bound, sizes).astype(dtype)

    def normal(*sizes: int) -> np.ndarray:
        return rng.standard_normal(sizes).astype(dtype)

    weights = {
        "w_ih": uniform(rows, D),
        "w_hh": uniform(rows, H),
        "b_ih": uniform(rows),
        "b_hh": uniform(rows),
    }
    return Problem(
        cell=cell,
        shape=shape,
        dtype=dtype,
        x=normal(T, B, D),
        states=tuple(0.5 * normal(B, H) for _ in cell.states),
        weights=weights,
        d_output=normal(T, B, H),
        d_states=tuple(normal(B, H) for _ in cell.states),
    )


# How many steps of a stream are compared: at the third, the state has been through both of two
# buffers that take turns.
CHECKED_STEPS = 3


def checked_problem(problem: Problem, mode: str) -> Problem:
    """Return the problem whose results are compared: of a step, several with the same x."""
    if mode != "step":
        return problem
    T, B, D, H = problem.shape.sizes
    return replace(
        problem,
        shape=Shape(CHECKED_STEPS * T, B, D, H),
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
    T, B, D, H = problem.shape.sizes
    terms = max(64, D + H)
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
