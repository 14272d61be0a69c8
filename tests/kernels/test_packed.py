"""Weights that are packed once: calls that are given them have the same bits, or are refused."""

from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from grids import grid
from registry import KINDS, VARIANTS

import fastrnn
from fastrnn import _core
from fastrnn.config import current_threads

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


def test_a_call_runs_on_the_instruction_set_of_its_packed_weights() -> None:
    number, arrays = parts("lstm", (4, 2, 3, 5), np.float32)
    packed, wanted = {}, {}
    for isa in fastrnn.available_isas():
        fastrnn.set_isa(isa)
        packed[isa] = _core.Packed(number, arrays[3:])
        wanted[isa] = forward(number, arrays, None, False, 1)
    for isa in packed:
        fastrnn.set_isa(isa)
        for other, own in packed.items():
            assert own.current() == (other == isa)
            made = forward(number, arrays, own, False, 1)
            for name, a, b in zip(("output", "h_n", "c_n"), made, wanted[other], strict=True):
                assert_same(a, b, f"{name}, packed for {other} under {isa}")
            quick = _core.fast_forward(
                number, arrays[3:], arrays[0], None, None, False, current_threads, own
            )
            assert (quick is None) == (other != isa)
            if other != isa:
                both = [
                    (number, arrays, None, None, None, bool(way), None, 0, False, None, one)
                    for way, one in enumerate((own, packed[isa]))
                ]
                with pytest.raises(ValueError, match="while it was in use"):
                    _core.forward(both, 1)


def test_how_large_packed_weights_are_and_that_they_are_packed_once() -> None:
    number, arrays = parts("gru", (4, 2, 3, 50), np.float64)
    packed = _core.Packed(number, arrays[3:])
    assert packed.nbytes >= sum(w.nbytes for w in arrays[3:5])
    assert _core.Packed.__new__(_core.Packed).nbytes == 0
    with pytest.raises(ValueError, match="while it was in use"):
        packed.__init__(number, arrays[3:])  # type: ignore[misc]


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


def test_several_directions_are_packed_together() -> None:
    number, arrays = parts("gru", (4, 2, 3, 5), np.float32)
    packed = _core.pack(number, [arrays[3:]] * 3)
    assert [type(one) for one in packed] == [_core.Packed] * 3
    assert _core.pack(number, []) == ()
    with pytest.raises(TypeError, match="no tuple"):
        _core.pack(number, [list(arrays[3:])])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="while it was in use"):
        _core.pack(number, [arrays[3:], (None, *arrays[3:6], ())])


def test_a_stream_takes_only_weights_that_fit_together() -> None:
    number, arrays = parts("lstm", (4, 2, 5, 5), np.float32)
    wide = parts("lstm", (4, 2, 3, 5), np.float32)[1]
    good, wrong = _core.pack(number, [arrays[3:]] * 2), _core.pack(number, [wide[3:]])
    others = [(*good[:1], *wrong), (good[0], _core.Packed.__new__(_core.Packed))]
    others.append(_core.pack(number, [parts("lstm", (4, 2, 5, 5), np.float64)[1][3:]] * 2))
    for isa in fastrnn.available_isas():
        if isa != fastrnn.get_isa():
            fastrnn.set_isa(isa)
            others.append((good[0], *_core.pack(number, [arrays[3:]])))
            break
    stream = fastrnn.LSTM(5, 5, 2, rng=0).stream()
    for packed in others:
        with pytest.raises(ValueError, match="while it was in use"):
            stream._pack(packed)
    with pytest.raises(RuntimeError, match="another number of layers"):
        stream._pack(good[:1])
    with pytest.raises(TypeError):
        stream._pack((good[0], arrays))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="a stream is made once"):
        stream._allocate(good, 1, current_threads)
    stream._pack(good)
    assert stream.step(np.ones(5, np.float32)).shape == (5,)
