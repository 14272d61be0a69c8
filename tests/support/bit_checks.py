"""What tests of bits share: problems, the comparison as integers, and sums by multiply-adds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bounds import BATCH_AXIS, Array, Problem, Spec, with_variants_in_turn
from grids import grid

import fastrnn

# Where a machine runs "generic" alone, it is the one there is to check.
ISAS = tuple(isa for isa in fastrnn.available_isas() if isa != "generic") or ("generic",)
DTYPES = (np.float32, np.float64)

# One thread and less than a panel; tails of every tile; then several threads, blocks of time steps
# and chunks of 512 rows; few rows and many units, which threads split by hidden units.
SMALL = with_variants_in_turn(
    Spec(5, 3, 2, 3),
    Spec(7, 9, 17, 33, lengths=True, restart=True),
    Spec(6, 13, 8, 16, lengths=True, reverse=True),
    Spec(9, 1, 3, 31, restart=True, reverse=True),
    Spec(8, 9, 3, 17, mask=True, restart=True),
)
LARGE = with_variants_in_turn(
    Spec(20, 37, 20, 100, lengths=True),
    Spec(20, 37, 20, 70, restart=True, reverse=True),
    Spec(20, 33, 20, 70, mask=True, restart=True, reverse=True),
    Spec(20, 8, 3, 150, lengths=True, restart=True),
    Spec(20, 1, 5, 300),
    Spec(20, 2, 64, 200, reverse=True),
    even=True,
)
FIRST = tuple(spec for spec in LARGE if spec.B == 37)  # the first two of each cell
FEW_ROWS = tuple(spec for spec in LARGE if spec.B == 8)


def each(specs: tuple[Spec, ...]) -> pytest.MarkDecorator:
    """Parametrise by problem, type and instruction set."""
    return grid("spec, dtype, isa", specs, DTYPES, ISAS)


def each_once(specs: tuple[Spec, ...]) -> pytest.MarkDecorator:
    """The same; by default each problem in one of the types, in turn."""
    return grid("spec, dtype, isa", specs, DTYPES, ISAS, once=True)


def bits(a: Array) -> Array:
    """The elements as integers, every NaN as the same one."""
    integer = np.int32 if a.dtype == np.float32 else np.int64
    return np.where(np.isnan(a), a.dtype.type(np.nan), a).view(integer)


def assert_same(got: Any, want: Any, what: str) -> None:
    if got is None or want is None:
        assert got is want, f"{what} is None on one side only"
        return
    assert got.dtype == want.dtype, f"{what}: {got.dtype}, not {want.dtype}"
    assert got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}"
    differ = np.argwhere(bits(got) != bits(want))
    assert not len(differ), (
        f"{what}: {len(differ)} of {got.size} elements differ, first at {tuple(differ[0])}: "
        f"{got[tuple(differ[0])]!r} and {want[tuple(differ[0])]!r}"
    )


def assert_same_results(got: Any, want: Any, what: str, names: Any = None) -> None:
    for name in want if names is None else names:
        assert_same(got[name], want[name], f"{name} ({what})")


def forward(p: Problem, **options: Any) -> tuple[Any, ...]:
    found: tuple[Any, ...] = p.cell.forward()(*p.arrays(), **p.options(), **options)
    return found


def take(p: Problem, rows: Any) -> Problem:
    """Some rows of the batch, in the order given."""
    axes = BATCH_AXIS | {"lengths": 0}
    given = {name: getattr(p, name, None) for name in axes}
    taken = {name: a.take(rows, axes[name]) for name, a in given.items() if a is not None}
    return replace(p, **{name: np.ascontiguousarray(a) for name, a in taken.items()})


def rows_of(results: dict[str, Any], rows: Any) -> dict[str, Array]:
    """What does not depend on the rest of the batch, of some rows."""
    found = {name: a for name, a in results.items() if name in BATCH_AXIS and a is not None}
    return {name: a.take(rows, BATCH_AXIS[name]) for name, a in found.items()}


def fma(a: Array, b: Array, c: Array) -> Array:
    """round(a b + c) to float32, exactly once.

    In float64 the product is exact and two_sum gives the error of the sum. Rounding the sum to odd
    keeps enough of that error for the second rounding to be the right one (S. Boldo and
    G. Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Comput. 57, 2008).
    """
    p, q = np.broadcast_arrays(a.astype(np.float64) * b, c.astype(np.float64))
    s = p + q
    t = s - p
    error = (p - (s - t)) + (q - t)
    even = s.view(np.int64) & 1 == 0
    s = np.where((error != 0) & even, np.nextafter(s, np.copysign(np.inf, error)), s)
    return s.astype(np.float32)


def chain(start: Array, a: Array, b: Array) -> Array:
    """(M, N): one chain of multiply-adds over k an element, of a (M, K) and b (N, K)."""
    s = np.broadcast_to(start, (len(a), len(b))).astype(np.float32)
    for k in range(a.shape[1]):
        s = fma(a[:, k, None], b[None, :, k], s)
    return s
