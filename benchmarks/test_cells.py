"""The cells under pytest-benchmark: the compiled functions and the reference.

    pytest benchmarks/test_cells.py --benchmark-only --benchmark-group-by=group

One step of a stream included. For the comparison with frameworks, in processes of their own and
in turns: ``fastrnn bench``, for one step ``fastrnn bench --modes step``.
"""

import pytest

from fastrnn.bench.peers import Compiled, NumpyReference, ways_of
from fastrnn.bench.shapes import CELLS, MODES, SHAPES, flops, is_timed, make_problem

IMPLEMENTATIONS = {"compiled": Compiled, "reference": NumpyReference}
# The reference takes a second for a few calls of these.
BIGGEST = ("large", "huge")

CASES = [
    pytest.param(cell, name, mode, implementation, id=f"{cell}-{name}-{mode}-{implementation}")
    for cell in CELLS
    for name, shape in SHAPES.items()
    for mode in MODES
    for implementation, peer in IMPLEMENTATIONS.items()
    if is_timed(mode, shape)
    and not peer.unsupported(cell, mode, "float32")
    and (implementation == "compiled" or name not in BIGGEST)
]


@pytest.mark.parametrize(("cell", "name", "mode", "implementation"), CASES)
@pytest.mark.benchmark(
    max_time=0.3, min_rounds=3, warmup=True, warmup_iterations=1, disable_gc=True
)
def test_cell(benchmark, cell, name, mode, implementation):
    cell, shape = CELLS[cell], SHAPES[name]
    benchmark.group = f"{cell.name} {mode} {shape}"
    benchmark.extra_info["flops"] = flops(cell, shape, mode)
    built = IMPLEMENTATIONS[implementation].build(make_problem(cell, shape), mode, threads=0)
    run, *_ = ways_of(built).values()  # of several ways the first: a step's output goes into out=
    benchmark(run.call)
