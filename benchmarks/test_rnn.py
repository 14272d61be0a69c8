"""The Elman layer under pytest-benchmark: the compiled functions and the reference.

    pytest benchmarks/ --benchmark-only --benchmark-group-by=group

For the comparison with frameworks, in processes of their own and in turns: ``fastrnn bench``.
"""

import pytest

from fastrnn.bench.peers import Compiled, NumpyReference
from fastrnn.bench.shapes import CELLS, MODES, SHAPES, flops, make_problem

IMPLEMENTATIONS = {"compiled": Compiled, "reference": NumpyReference}
# The reference takes a second for a few calls of these.
BIGGEST = ("large", "huge")

CASES = [
    pytest.param(name, mode, implementation, id=f"{name}-{mode}-{implementation}")
    for name in SHAPES
    for mode in MODES
    for implementation in IMPLEMENTATIONS
    if implementation == "compiled" or name not in BIGGEST
]


@pytest.mark.parametrize(("name", "mode", "implementation"), CASES)
@pytest.mark.benchmark(
    max_time=0.5, min_rounds=3, warmup=True, warmup_iterations=3, disable_gc=True
)
def test_rnn(benchmark, name, mode, implementation):
    cell, shape = CELLS["rnn"], SHAPES[name]
    benchmark.group = f"{cell.name} {mode} {shape}"
    benchmark.extra_info["flops"] = flops(cell, shape, mode)
    run = IMPLEMENTATIONS[implementation].build(make_problem(cell, shape), mode, threads=0)
    benchmark(run.call)
