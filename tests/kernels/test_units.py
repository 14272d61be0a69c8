"""The units of a step split between threads: the bits of one thread, forward and back."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bit_checks import DTYPES, ISAS, LARGE, SMALL, assert_same_results, each, each_once, forward
from bounds import Spec, draw, run, with_variants_in_turn
from registry import KINDS

import fastrnn
from fastrnn import _core

pytestmark = pytest.mark.skipif(
    not fastrnn.show_config(mode="dicts")["build"]["openmp"], reason="one thread without OpenMP"
)

# Around the pieces in which units are split, with rows for several tiles, and for several blocks.
WIDE = with_variants_in_turn(
    Spec(9, 20, 3, 130, lengths=True, restart=True),
    Spec(7, 13, 150, 201, mask=True, restart=True, reverse=True),
    Spec(40, 31, 5, 160),
    Spec(300, 2, 70, 129, lengths=True),
    even=True,
)


@pytest.fixture(autouse=True)
def every_matrix_is_far() -> Iterator[None]:
    """As if no matrix fitted a second-level cache: units are split wherever there are enough."""
    before = _core.swap_far(0)
    yield
    _core.swap_far(before)


@each(SMALL + LARGE + WIDE)
@pytest.mark.quick
def test_same_bits(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    fastrnn.set_num_threads(1)
    alone = run(fastrnn, p)
    for n in (2, 3):
        fastrnn.set_num_threads(n)
        assert_same_results(run(fastrnn, p), alone, f"{n} threads")


# Pieces for eight threads, that do not come out even, with a second product in a step.
TEAMS = (
    Spec(5, 11, 70, 520, kind="lstm", lengths=True, restart=True, P=515),
    Spec(5, 11, 70, 520, kind="gru-reset-first", lengths=True, restart=True),
)


@each_once(TEAMS)
def test_same_bits_of_large_teams(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    fastrnn.set_num_threads(1)
    alone = run(fastrnn, p)
    for n in (5, 8):
        fastrnn.set_num_threads(n)
        forward(p)
        assert _core.last_plan()["way"] == "by units"
        assert _core.last_plan()["threads"] == n
        assert_same_results(run(fastrnn, p), alone, f"{n} threads")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("T", "B"), [(0, 5), (4, 0), (0, 0)])
def test_nothing_to_do(T: int, B: int, kind: str) -> None:
    fastrnn.set_isa(ISAS[0])
    p = draw(Spec(T, B, 3, 150, kind, h_0=T == 0, lengths=B == 0), np.float32)
    fastrnn.set_num_threads(1)
    alone = run(fastrnn, p)
    fastrnn.set_num_threads(2)
    assert_same_results(run(fastrnn, p), alone, "2 threads")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", WIDE, ids=str)
def test_units_are_split(spec: Spec, dtype: Any) -> None:
    fastrnn.set_isa(ISAS[0])
    fastrnn.set_num_threads(2)
    p = draw(spec, dtype)
    *_, tape = forward(p)
    assert _core.last_plan()["way"] == "by units"
    p.cell.backward()(tape, *p.gradients())
    assert _core.last_plan()["way"] == "by units"
