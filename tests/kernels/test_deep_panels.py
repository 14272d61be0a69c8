"""Panels that a second-level cache cannot hold, which many rows read a part at a time.

The sums are cut there and go on: they have the bits of few rows, which read a panel in one piece.
"""

from typing import Any

import numpy as np
from bit_checks import DTYPES, ISAS, assert_same
from grids import grid
from registry import CELLS, Cell

import fastrnn

# With AVX2 a panel has 128 bytes a row, with AVX-512 256: more than 512 KiB of either. Rows for
# more tiles than wait for a part together, and for fewer; the last panel is narrower and as deep.
K = 5600
ROWS = (103, 31)
ALONE = 3  # rows that are one tile, so that no panel is cut


def parts(rows: int) -> list[slice]:
    return [slice(at, at + ALONE) for at in range(0, rows, ALONE)]


@grid("rows, threads, dtype, isa", ROWS, (1, 2), DTYPES, ISAS, once=True)
def test_output_layer(rows: int, threads: int, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, K), (88, K), 88))
    fastrnn.set_num_threads(threads)
    got, _ = fastrnn.linear_forward(x, w, b)
    fastrnn.set_num_threads(1)
    want = [fastrnn.linear_forward(x[some], w, b)[0] for some in parts(rows)]
    assert_same(got, np.concatenate(want), "y")


@grid("rows, threads, dtype, isa", ROWS, (1, 2), DTYPES, ISAS, once=True)
def test_its_gradient_of_x(rows: int, threads: int, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    rng = np.random.default_rng(0)
    x, w, d = (
        rng.standard_normal(shape).astype(dtype) for shape in ((rows, 88), (K, 88), (rows, K))
    )

    def d_x(some: slice) -> Any:
        _, tape = fastrnn.linear_forward(x[some], w, None)
        return fastrnn.linear_backward(tape, d[some], wrt=("x",)).x

    fastrnn.set_num_threads(threads)
    got = d_x(slice(None))
    fastrnn.set_num_threads(1)
    assert_same(got, np.concatenate([d_x(some) for some in parts(rows)]), "d_x")


# Carries that begin from zeros, and from what is there.
GATED = tuple(cell for cell in CELLS.values() if cell.gates > 1)


@grid("cell, threads, dtype, isa", GATED, (1, 2), DTYPES, ISAS, once=True)
def test_back_through_time(cell: Cell, threads: int, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    T, B, D, H = 2, 17, 88, 4120 // cell.gates
    rng = np.random.default_rng(0)
    shapes = (T, B, D), (cell.gates * H, D), (cell.gates * H, H), (T, B, H)
    x, w_ih, w_hh, d = (rng.uniform(-0.1, 0.1, shape).astype(dtype) for shape in shapes)

    def gradients(some: slice) -> Any:
        rows, d_rows = (np.ascontiguousarray(a[:, some]) for a in (x, d))
        states = [np.zeros((rows.shape[1], H), dtype) for _ in cell.states]
        *_, tape = cell.forward()(rows, *states, w_ih, w_hh)
        return cell.backward()(tape, d_rows, wrt=("x", "h_0"))

    fastrnn.set_num_threads(threads)
    got = gradients(slice(None))
    fastrnn.set_num_threads(1)
    want = [gradients(some) for some in parts(B)]
    assert_same(got.x, np.concatenate([grads.x for grads in want], 1), "d_x")
    assert_same(got.h_0, np.concatenate([grads.h_0 for grads in want]), "d_h_0")
