"""Weights that are packed once: calls that are given them have the same bits, or are refused."""

from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from grids import grid
from registry import KINDS, VARIANTS

import fastrnn
from fastrnn import _core

DTYPES = (np.float32, np.float64)
# T, B, D, H: by rows, by units, as a pipeline; around lanes; without features, rows or steps.
SIZES = (
    (5, 64, 3, 33), (4, 1, 9, 100), (6, 2, 0, 17), (40, 1, 5, 7), (3, 7, 16, 8), (1, 1, 2, 2),
    (0, 3, 2, 5), (3, 0, 2, 5),
)  # fmt: skip


def parts(variant: str, sizes: tuple[int, ...], dtype: Any, seed: int = 0) -> tuple[Any, ...]:
    """The cell's number, and its arrays as the binding takes them."""
    arrays = VARIANTS[variant].arrays(*sizes, dtype, seed)
    extra = tuple(
        arrays.get(name) for name, *_ in _core.CELLS[KINDS[VARIANTS[variant].kind].number][-1]
    )
    names = ("x", "h_0", "c_0", "w_ih", "w_hh", "b_ih", "b_hh")
    return KINDS[VARIANTS[variant].kind].number, (*map(arrays.get, names), extra)


def forward(number: int, arrays: tuple[Any, ...], packed: Any, reverse: bool, threads: int) -> Any:
    call = (number, arrays, None, None, None, reverse, None, 0, False, None, packed)
    return _core.forward([call], threads)[0][:3]


@grid("variant, dtype, isa", VARIANTS, DTYPES, fastrnn.available_isas())
def test_packed_weights_have_the_same_bits(variant: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    for i, sizes in enumerate(SIZES):
        number, arrays = parts(variant, sizes, dtype)
        packed = _core.Packed(number, arrays[3:])
        expected = forward(number, arrays, None, bool(i % 2), 2)
        # They are not read again: what stands in the arrays now would show.
        gone = tuple(None if a is None else np.full_like(a, np.nan) for a in arrays[3:7])
        extra = tuple(None if a is None else np.full_like(a, np.nan) for a in arrays[7])
        for threads in (1, 2):
            made = forward(number, (*arrays[:3], *gone, extra), packed, bool(i % 2), threads)
            for name, a, b in zip(("output", "h_n", "c_n"), made, expected, strict=True):
                assert_same(a, b, f"{name} {sizes} {threads} threads")


@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_weights_of_another_kind_are_refused(variant: str) -> None:
    number, arrays = parts(variant, (4, 2, 3, 5), np.float32)
    refused = []
    for other in VARIANTS:
        kind, others = parts(other, (4, 2, 3, 5), np.float32)
        if other != variant:
            refused.append(_core.Packed(kind, others[3:]))
    for sizes in ((4, 2, 4, 5), (4, 2, 3, 6)):
        refused.append(_core.Packed(number, parts(variant, sizes, np.float32)[1][3:]))
    refused.append(_core.Packed(number, parts(variant, (4, 2, 3, 5), np.float64)[1][3:]))
    refused.append(_core.Packed.__new__(_core.Packed))
    for packed in refused:
        with pytest.raises(ValueError, match="while it was in use"):
            forward(number, arrays, packed, False, 1)


def test_packed_weights_are_of_one_instruction_set() -> None:
    number, arrays = parts("lstm", (4, 2, 3, 5), np.float32)
    packed = _core.Packed(number, arrays[3:])
    assert packed.current()
    for isa in fastrnn.available_isas():
        if isa != fastrnn.get_isa():
            fastrnn.set_isa(isa)
            assert not packed.current()
            with pytest.raises(ValueError, match="while it was in use"):
                forward(number, arrays, packed, False, 1)
            break


@pytest.mark.parametrize("which", range(5))
def test_weights_that_do_not_fit_are_not_packed(which: int) -> None:
    number, arrays = parts("lstm-projection-peepholes", (4, 2, 3, 5), np.float32)
    weights = list(arrays[3:])
    for wrong in (None, np.ones(3, np.float32), np.ones((2, 2)), [1.0]):
        if which in (0, 2, 3) and wrong is None:
            continue  # where x is the pre-activations there is no w_ih, and a bias may be absent
        bad = [*weights[:which], (wrong, None) if which == 4 else wrong, *weights[which + 1 :]]
        if which == 4 and wrong is None:  # without a projection w_hh is not square
            bad[4] = (None, None)
        with pytest.raises(ValueError, match="while it was in use"):
            _core.Packed(number, tuple(bad))
    with pytest.raises(ValueError, match="while it was in use"):
        _core.Packed(-1, tuple(weights))
    with pytest.raises(ValueError, match="while it was in use"):
        _core.Packed(99, tuple(weights))
