"""tanh of every instruction set: at most 2 ULP from the truth, exact where it can be, odd.

An ULP is the distance of floating-point numbers just below the true |value|, so it is never more
than the distance just above it. The claim is for normal inputs; subnormal ones count as zero.
"""

import functools
import itertools
from typing import Any

import mpmath
import numpy as np
import pytest
from bounds import Array, record_ulp

import fastrnn
from fastrnn import _core

ISAS = tuple(fastrnn.available_isas())
PROMISED = tuple(isa for isa in ISAS if isa != "generic")
DTYPES = (np.float32, np.float64)
LIMIT = 2.0


def name_of(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


each = pytest.mark.parametrize(("dtype", "isa"), list(itertools.product(DTYPES, ISAS)), ids=name_of)


def tanh(x: Array) -> Array:
    out = np.full_like(x, 7.0)
    _core.tanh(np.ascontiguousarray(x), out)
    return out


def as_integers(x: Array) -> Array:
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def neighbours(points: list[float], count: int, dtype: Any) -> Array:
    """The `count` numbers on each side of each point, and the points."""
    around = np.arange(-count, count + 1)
    near = as_integers(np.array(points, dtype))[:, None] + around
    x = near.ravel().astype(as_integers(np.zeros(1, dtype)).dtype).view(dtype)
    return x[np.isfinite(x) & (x >= np.finfo(dtype).smallest_normal)]


# Where approximations change: the range where tanh x = x, the usual limits of a polynomial, powers
# of two (binades of the result), the argument from which the result is 1, the largest number.
NOTABLE = [
    *(2.0**k for k in range(-30, 5)),
    *(np.arctanh(1 - 2.0**k) for k in (-2, -3, -4, -6, -8, -12, -16, -20, -24, -25)),
    *(np.log(2) * k / 4 for k in range(1, 40)),
    *(0.04, 0.3, 0.55, 0.6, 0.625, 0.65, 7.9, 8.66, 8.7, 9.0, 9.01, 9.02, 10.0, 18.7, 19.0, 19.06),
    *(19.1, 20.0, 22.0, 44.0, 88.0, 89.0, 100.0, 354.0, 355.0, 709.0, 710.0, 1e4, 1e30),
]


@functools.cache
def sample32() -> tuple[Array, Array, Array]:
    """float32: inputs, tanh in float64 (its own error is below 1e-8 of an ULP here), the ULP."""
    low, high = as_integers(np.array([2.0**-126, np.inf], np.float32))
    everywhere = np.arange(low, high, 1009, np.int32).view(np.float32)
    low, high = as_integers(np.array([2.0**-13, 16.0], np.float32))
    where_it_bends = np.arange(low, high, 97, np.int32).view(np.float32)
    largest = np.finfo(np.float32).max
    ends = [float(np.finfo(np.float32).smallest_normal), float(largest)]
    x = np.concatenate([everywhere, where_it_bends, neighbours(NOTABLE + ends, 60, np.float32)])
    # |tanh x| < |x|: the result of the smallest normal number is no longer normal, and whether it
    # is flushed depends on whether the processor looks before or after rounding.
    x = x[x > np.finfo(np.float32).smallest_normal]
    exact = np.tanh(x.astype(np.float64))
    nearest = exact.astype(np.float32)
    # |tanh| < 1 though float64 rounds it to 1, so the ULP is that of the numbers below.
    over = (nearest > exact) | (nearest == 1.0)
    below = np.where(over, np.nextafter(nearest, np.float32(0)), nearest)
    return x, exact, np.spacing(below).astype(np.float64)


@functools.cache
def sample64() -> tuple[Array, list[Any], Array]:
    """float64: inputs, tanh to 40 digits, the ULP."""
    rng = np.random.default_rng(5)
    x = np.concatenate(
        [
            np.exp(rng.uniform(np.log(1e-307), np.log(1e300), 500)),
            np.exp(rng.uniform(np.log(1e-9), np.log(1e-2), 1000)),
            np.exp(rng.uniform(np.log(1e-2), np.log(20.0), 6000)),
            rng.uniform(0.0, 20.0, 3000),
            neighbours(NOTABLE, 3, np.float64),
        ]
    )
    with mpmath.workdps(40):
        exact = [mpmath.tanh(mpmath.mpf(float(v))) for v in x]
        # mpmath's value is mantissa * 2^exponent with a mantissa of `bits` bits.
        binade = np.array([int(v.exp) + int(v.bc) - 1 for v in exact])
    return x, exact, np.ldexp(1.0, np.minimum(binade, -1) - 52)


@pytest.mark.parametrize("isa", ISAS)
def test_float32_within_two_ulp(isa: str) -> None:
    fastrnn.set_isa(isa)
    x, exact, ulp = sample32()
    error = np.abs(tanh(x).astype(np.float64) - exact) / ulp
    worst = int(error.argmax())
    record_ulp("tanh", np.float32, float(error[worst]), float(x[worst]))
    assert error[worst] <= LIMIT, f"{error[worst]:.3f} ULP at {x[worst]!r}"


@pytest.mark.parametrize("isa", ISAS)
def test_float64_within_two_ulp(isa: str) -> None:
    fastrnn.set_isa(isa)
    x, exact, ulp = sample64()
    with mpmath.workdps(40):
        error = np.array(
            [
                float(abs(mpmath.mpf(float(got)) - true) / mpmath.mpf(float(unit)))
                for got, true, unit in zip(tanh(x), exact, ulp, strict=True)
            ]
        )
    worst = int(error.argmax())
    record_ulp("tanh", np.float64, float(error[worst]), float(x[worst]))
    assert error[worst] <= LIMIT, f"{error[worst]:.3f} ULP at {x[worst]!r}"


@each
def test_exact_values(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    x = np.array([0.0, -0.0, np.inf, -np.inf, 100.0, -100.0, np.finfo(dtype).max], dtype)
    want = np.array([0.0, -0.0, 1.0, -1.0, 1.0, -1.0, 1.0], dtype)
    assert tanh(x).tobytes() == want.tobytes()
    # A NaN of either sign and any payload is a NaN still.
    nan = np.array([np.nan, -np.nan], dtype)
    payload = as_integers(nan) | 12345
    assert np.isnan(tanh(np.concatenate([nan, payload.view(dtype)]))).all()


@each
def test_small_values(dtype: Any, isa: str) -> None:
    # tanh x = x - x^3/3: below about sqrt(u) the nearest number is x itself.
    fastrnn.set_isa(isa)
    info = np.finfo(dtype)
    least = np.nextafter(info.smallest_normal, dtype(1))  # whose tanh is still a normal number
    x = np.geomspace(float(least), np.sqrt(float(info.eps)) / 2, 1000).astype(dtype)
    x = np.maximum(x, least)
    error = np.abs(as_integers(tanh(x)) - as_integers(x))
    assert error.max() <= LIMIT
    subnormal = (x[:1] * dtype(0.3)).repeat(40)
    assert not tanh(subnormal).any()
    assert not tanh(-subnormal).any()


@each
def test_odd_and_never_beyond_one(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    x = sample32()[0] if dtype is np.float32 else sample64()[0]
    y = tanh(x)
    sign = np.iinfo(as_integers(y).dtype).min
    assert np.array_equal(as_integers(tanh(-x)), as_integers(y) ^ sign)
    assert (y <= 1.0).all()
    assert (y >= 0.0).all()


@each
def test_position_does_not_matter(dtype: Any, isa: str) -> None:
    # Tails run under a mask, at any address, and nothing is written behind the end.
    fastrnn.set_isa(isa)
    rng = np.random.default_rng(6)
    x = rng.normal(0.0, 2.0, 80).astype(dtype)
    alone = np.concatenate([tanh(x[i : i + 1]) for i in range(len(x))])
    for start, n in itertools.product((0, 1, 3), range(70)):
        out = np.full(80, 7.0, dtype)
        _core.tanh(x[start : start + n], out[5 : 5 + n])
        assert out[5 : 5 + n].tobytes() == alone[start : start + n].tobytes(), (start, n)
        assert (out[:5] == 7.0).all()
        assert (out[5 + n :] == 7.0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_instruction_sets_give_the_same_bits(dtype: Any) -> None:
    x = sample32()[0] if dtype is np.float32 else sample64()[0]
    results = {}
    for isa in PROMISED:
        fastrnn.set_isa(isa)
        results[isa] = tanh(x)
    for isa, result in results.items():
        differ = np.flatnonzero(as_integers(result) != as_integers(results[PROMISED[0]]))
        assert not len(differ), f"{isa} and {PROMISED[0]} differ at {x[differ[0]]!r}"


@each
def test_the_network_uses_this_tanh(dtype: Any, isa: str) -> None:
    # One step with W_ih = 1: z = x exactly, so h = tanh(x), and the claim above holds for networks.
    fastrnn.set_isa(isa)
    rng = np.random.default_rng(8)
    x = rng.normal(0.0, 3.0, (1, 500, 1)).astype(dtype)
    one, zero = np.ones((1, 1), dtype), np.zeros((1, 1), dtype)
    output, _, _ = fastrnn.rnn_forward(x, None, one, zero)
    assert output.ravel().tobytes() == tanh(x.ravel()).tobytes()
