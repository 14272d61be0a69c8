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
    (2, 300, True, 1, "by units"),
    (1, 7, False, 1, "pipeline"),  # no units to split
    (1, 100, True, 1, "by units"),
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
@pytest.mark.parametrize(
    ("B", "H", "way"),
    [
        (1, 7, "by rows"),  # no units to split: the second thread joins for the weight gradients
        (1, 300, "by units"),
        (64, 300, "by rows"),
    ],
)
def test_backward_by_two_threads(B: int, H: int, way: str) -> None:
    fastrnn.set_num_threads(2)
    layer = fastrnn.LSTM(5, H, rng=0)
    output, _, tape = layer.forward(np.ones((40, B, 5), np.float32))
    layer.backward(tape, output)
    made = _core.last_plan()
    rows = B if way == "by units" else (B + 1) // 2
    assert (made["way"], made["threads"], made["rows"]) == (way, 2, rows)


@several
def test_what_takes_whole_states_or_a_short_tape_goes_back_by_rows() -> None:
    fastrnn.set_num_threads(2)
    layer = fastrnn.LSTM(5, 300, rng=0)
    x = np.ones((40, 2, 5), np.float32)
    output, _, tape = layer.forward(x, checkpoint=6)
    layer.backward(tape, output)
    assert _core.last_plan()["way"] == "by rows"
    output, _, tape = layer.forward(x)
    fastrnn.gradient_norms(tape, output)
    assert _core.last_plan()["way"] == "by rows"


@several
def test_weights_that_no_cache_holds_are_split_whatever_the_rows() -> None:
    fastrnn.set_num_threads(2)
    before = _core.swap_far(4 * 300 * 300 * 4)
    assert plan(64, 300, False, 1)["way"] == "by units"
    _core.swap_far(4 * 300 * 300 * 4 + 1)
    assert plan(64, 300, False, 1)["way"] == "by rows"
    _core.swap_far(before)


def test_blocks_fit_a_cache_and_are_at_least_one_step() -> None:
    fastrnn.set_num_threads(1)
    for B, H in ((1, 8), (64, 100), (500, 500)):
        made = plan(B, H, False, 1)
        assert made["steps"] == 1 or made["steps"] * B * 4 * H * 4 <= 1 << 17
        assert 1 <= made["steps"] <= 41
