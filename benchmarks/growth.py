"""How time grows with T, B and H, each apart: Markdown tables for docs/benchmarks.md.

python benchmarks/growth.py [--cells rnn lstm gru] [--modes forward frozen training] [--rounds 5]
    [--threads COUNT]

The other two sizes, and D, are those of BASE. The functions with packing (forward), a layer that
was frozen before, and training, as `fastrnn bench` calls them. Everything takes turns in one
process, in another order in each round; printed are medians of the rounds, in milliseconds a call,
and the 10^9 operations of the matrix products a second that this is. Wants a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import fastrnn
from fastrnn.bench import CELLS, Shape, flops, make_problem
from fastrnn.bench.machine import busy_text, cpu_model
from fastrnn.bench.peers import OWN, Run, find_peer, ways_of
from fastrnn.bench.tables import align, milliseconds
from fastrnn.bench.timer import time_calls

BASE = Shape(50, 16, 256, 256)
AXES = {
    "T": (5, 10, 25, 50, 100, 200),
    "B": (1, 4, 8, 16, 32, 64, 128),
    "H": (64, 128, 256, 512, 1024, 2048),
}
CHOSEN = ("rnn", "lstm", "gru")
MODES = ("forward", "frozen", "training")
TURN = 0.005  # seconds of timed calls, at least one


@dataclass
class Point:
    """One cell in one mode at one shape."""

    cell: str
    mode: str
    shape: Shape
    run: Run
    rounds: list[float] = field(default_factory=list)  # nanoseconds a call

    @property
    def figures(self) -> list[str]:
        """Milliseconds, and 10^9 operations a second."""
        taken, operations = median(self.rounds), flops(CELLS[self.cell], self.shape, self.mode)
        return [milliseconds(taken), f"{operations / taken:.3g}"]


def shapes_of(axis: str, values: Sequence[int], base: Shape) -> list[Shape]:
    """The sizes of the base with other values of one; as many features as units."""
    sizes = [dict(zip("TBDH", base.sizes, strict=True)) | {axis: value} for value in values]
    return [Shape(s["T"], s["B"], s["H"], s["H"]) for s in sizes]


def points_of(
    cells: Sequence[str], modes: Sequence[str], shapes: Sequence[Shape], threads: int
) -> dict[tuple[str, str, Shape], Point]:
    """Everything that is timed, ready to be called; what two axes share is there once."""
    compiled, points = find_peer(OWN), {}
    for cell in cells:
        for shape in dict.fromkeys(shapes):
            problem = make_problem(CELLS[cell], shape)
            for mode in modes:
                (run,) = ways_of(compiled.build(problem, mode, threads)).values()
                points[cell, mode, shape] = Point(cell, mode, shape, run)
    return points


def take_turns(points: Sequence[Point], rounds: int) -> None:
    for turn in range(rounds):
        order = list(points)
        random.Random(turn).shuffle(order)
        for point in order:
            with point.run.context():
                point.rounds.append(time_calls(point.run.call, TURN, 1)["median"])


def table(
    axis: str,
    values: Sequence[int],
    base: Shape,
    modes: Sequence[str],
    points: dict[tuple[str, str, Shape], Point],
) -> str:
    header = ["cell", axis, *(title for mode in modes for title in (f"{mode} ms", "GF"))]
    body = []
    for cell in dict.fromkeys(cell for cell, _, _ in points):
        for value, shape in zip(values, shapes_of(axis, values, base), strict=True):
            figures = [text for mode in modes for text in points[cell, mode, shape].figures]
            body.append([cell, str(value), *figures])
    return align(header, body, markdown=True)


def tables(
    axes: Mapping[str, Sequence[int]],
    base: Shape,
    cells: Sequence[str],
    modes: Sequence[str],
    rounds: int,
    threads: int,
) -> str:
    shapes = [shape for axis, values in axes.items() for shape in shapes_of(axis, values, base)]
    with fastrnn.num_threads(threads):
        points = points_of(cells, modes, shapes, threads)
        take_turns(list(points.values()), rounds)
    parts = []
    for axis, values in axes.items():
        fixed = {"T": base.T, "B": base.B, "D = H": base.H}
        told = ", ".join(f"{name} = {size}" for name, size in fixed.items() if axis not in name)
        parts.append(f"{told}:\n\n{table(axis, values, base, modes, points)}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=CHOSEN, metavar="CELL")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, metavar="MODE")
    parser.add_argument("--rounds", type=int, default=5, help="at least 5 for a median")
    parser.add_argument("--threads", type=int, default=fastrnn.get_num_threads())
    options = parser.parse_args()
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are positive")
    begin = time.monotonic()
    if busy := busy_text():
        print(busy)
    text = tables(AXES, BASE, options.cells, options.modes, options.rounds, options.threads)
    print(f"{cpu_model()}, {fastrnn.get_isa()}, float32, threads: {options.threads}; medians of "
          f"{options.rounds} rounds\n\n{text}\n\n{time.monotonic() - begin:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
