"""How a call is run: by rows, by hidden units, as a pipeline, or two directions at once."""

import numpy as np
import pytest
from registry import CELLS

import fastrnn
from fastrnn import _core

several = pytest.mark.skipif(
    not fastrnn.show_config(mode="dicts")["build"]["openmp"], reason="one thread without OpenMP"
)
PLANS = [
    # B, H, lengths, directions: how forward is run by two threads
    (64, 33, False, 1, "by rows"),
    (64, 33, True, 1, "by rows"),
    (1, 100, False, 1, "by units"),
    (2, 300, False, 1, "by units"),
    (2, 300, True, 1, "by rows"),  # not all rows are active at every step
    (1, 7, False, 1, "pipeline"),  # no units to split
    (1, 100, True, 1, "pipeline"),
    (1, 100, False, 2, "concurrent"),
    (64, 33, False, 2, "by rows"),
]


def plan(B: int, H: int, lengths: bool, directions: int, cell: str = "lstm") -> dict[str, object]:
    layer = CELLS[cell].layer(5, H, bidirectional=directions == 2, rng=0)
    layer(np.ones((40, B, 5), np.float32), lengths=[39] * B if lengths else None)
    return _core.last_plan()


@several
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("B", "H", "lengths", "directions", "way"), PLANS)
def test_forward_by_two_threads(
    cell: str, B: int, H: int, lengths: bool, directions: int, way: str
) -> None:
    fastrnn.set_num_threads(2)
    made = plan(B, H, lengths, directions, cell)
    assert (made["way"], made["threads"]) == (way, 2)
    rows = {"by rows": B // 2, "by units": B, "pipeline": 1, "concurrent": B}
    assert made["rows"] == rows[way]


@pytest.mark.parametrize(("B", "H", "lengths", "directions", "way"), PLANS)
def test_one_thread_has_all_rows(B: int, H: int, lengths: bool, directions: int, way: str) -> None:
    fastrnn.set_num_threads(1)
    made = plan(B, H, lengths, directions)
    # Two directions of few rows are one job, which one thread does as well.
    assert made["way"] == ("concurrent" if way == "concurrent" else "by rows")
    assert (made["threads"], made["rows"]) == (1, B)


@several
def test_backward_is_by_rows() -> None:
    fastrnn.set_num_threads(2)
    layer = fastrnn.LSTM(5, 100, rng=0)
    x = np.ones((40, 1, 5), np.float32)
    output, _, tape = layer.forward(x)
    layer.backward(tape, output)
    made = _core.last_plan()  # the second thread joins for the weight gradients
    assert (made["way"], made["threads"], made["rows"]) == ("by rows", 2, 1)


def test_blocks_fit_a_cache_and_are_at_least_one_step() -> None:
    fastrnn.set_num_threads(1)
    for B, H in ((1, 8), (64, 100), (500, 500)):
        made = plan(B, H, False, 1)
        assert made["steps"] == 1 or made["steps"] * B * 4 * H * 4 <= 1 << 17
        assert 1 <= made["steps"] <= 41
