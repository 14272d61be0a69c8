"""The cells under pytest-benchmark: the compiled functions and the reference.

    pytest benchmarks/test_cells.py --benchmark-only --benchmark-group-by=group

One step of a stream included, and states and gradients that vanish. For the comparison with
frameworks, in processes of their own and in turns: ``fastrnn bench``, for one step
``fastrnn bench --modes step``.
"""

import numpy as np
import pytest

import fastrnn
from fastrnn.bench.peers import Compiled, NumpyReference, ways_of
from fastrnn.bench.shapes import CELLS, DEFAULT_MODES, SHAPES, flops, is_timed, make_problem

IMPLEMENTATIONS = {"compiled": Compiled, "reference": NumpyReference}
# The reference takes seconds for these, and its figures of the others tell as much.
BIGGEST = ("medium", "large", "huge", "long")

CASES = [
    pytest.param(cell, name, mode, implementation, id=f"{cell}-{name}-{mode}-{implementation}")
    for cell in CELLS
    for name, shape in SHAPES.items()
    for mode in (*DEFAULT_MODES, "step")
    for implementation, peer in IMPLEMENTATIONS.items()
    if is_timed(mode, shape)
    and not peer.unsupported(cell, mode, "float32")
    and (implementation == "compiled" or name not in BIGGEST)
]


@pytest.mark.parametrize(("cell", "name", "mode", "implementation"), CASES)
# No warm-up of its own: the calls that are made to find the number of iterations are one.
@pytest.mark.benchmark(max_time=0.1, min_rounds=3, warmup=False, disable_gc=True)
def test_cell(benchmark, cell, name, mode, implementation):
    cell, shape = CELLS[cell], SHAPES[name]
    benchmark.group = f"{cell.name} {mode} {shape}"
    benchmark.extra_info["flops"] = flops(cell, shape, mode)
    built = IMPLEMENTATIONS[implementation].build(make_problem(cell, shape), mode, threads=0)
    run, *_ = ways_of(built).values()  # of several ways the first: a step's output goes into out=
    benchmark(run.call)


@pytest.mark.parametrize("values", ["ordinary", "vanishing"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.benchmark(max_time=0.1, min_rounds=3, warmup=False)
def test_subnormals(benchmark, cell, direction, values):
    """Both of a group should take the same time.

    What vanishes is nearly halved at each step: in float32 it is a subnormal number, on which a
    processor may take a hundred times as long, from step 126 to 150.
    """
    benchmark.group = f"subnormals, {cell} {direction}"
    rng = np.random.default_rng(0)
    layer = getattr(fastrnn, cell)(32, 64, rng=0)
    x = rng.standard_normal((150, 16, 32), dtype=np.float32)
    d_output = rng.standard_normal((150, 16, 64), dtype=np.float32)
    if values == "vanishing":
        x[1:] = 0
        d_output[:-1] = 0
        for name, weight in layer.weights.items():
            if not name.startswith("weight_ih"):
                weight[...] = 0
        if cell == "RNN":  # the others have gates, which are 1/2 now
            np.fill_diagonal(layer.weights["weight_hh_l0"], 0.5)
    _, _, tape = layer.forward(x)
    if direction == "forward":
        benchmark(layer, x)
    else:
        benchmark(layer.backward, tape, d_output)
