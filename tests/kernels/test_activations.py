"""tanh, sigmoid, exp of every instruction set: at most 2 ULP off, exact where they can be.

An ULP is the distance of floating-point numbers just below the true |value|, so it is never more
than the distance just above it. The claim is for normal inputs; subnormal ones count as zero. exp
and sigmoid are 0 where the result would be subnormal.
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
TRUE = {
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "exp": mpmath.exp,
}
each_function = pytest.mark.parametrize("function", TRUE)


def apply(function: str, x: Array) -> Array:
    out = np.full_like(x, 7.0)
    getattr(_core, function)(np.ascontiguousarray(x), out)
    return out


def tanh(x: Array) -> Array:
    return apply("tanh", x)


def as_integers(x: Array) -> Array:
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def neighbours(points: list[float], count: int, dtype: Any) -> Array:
    """The `count` numbers on each side of each point, and the points."""
    around = np.arange(-count, count + 1)
    near = as_integers(np.array(points, dtype))[:, None] + around
    x = near.ravel().astype(as_integers(np.zeros(1, dtype)).dtype).view(dtype)
    return x[np.isfinite(x) & (x >= np.finfo(dtype).smallest_normal)]


# Where approximations of tanh change: the range where tanh x = x, the usual limits of a polynomial,
# powers of two (binades of the result), the argument from which it is 1, the largest number.
NOTABLE = [
    *(2.0**k for k in range(-30, 5)),
    *(np.arctanh(1 - 2.0**k) for k in (-2, -3, -4, -6, -8, -12, -16, -20, -24, -25)),
    *(np.log(2) * k / 4 for k in range(1, 40)),
    *(0.04, 0.3, 0.55, 0.6, 0.625, 0.65, 7.9, 8.66, 8.7, 9.0, 9.01, 9.02, 10.0, 18.7, 19.0, 19.06),
    *(19.1, 20.0, 22.0, 44.0, 88.0, 89.0, 100.0, 354.0, 355.0, 709.0, 710.0, 1e4, 1e30),
]


# Those of exp: powers of two, and multiples of ln(2)/2, which are binades of the result and where
# the reduced argument is largest; all far apart enough to be told from each other in float32.
NOTABLE_EXP = [*(2.0**k for k in range(-30, 9)), *(np.log(2) * k / 2 for k in range(1, 256, 2))]

# sigmoid takes s and r from exp; its binades begin at -log(2^k - 1), and beyond 40 it is set to 1.
NOTABLE_SIGMOID = [*NOTABLE_EXP, *(np.log(2.0**k - 1.0) for k in range(2, 64)), 40.0]


def exp_range(dtype: Any) -> tuple[Any, Any]:
    """The least and the largest x whose exp is a normal number."""
    info = np.finfo(dtype)
    with mpmath.workdps(40):
        least, most = mpmath.log(float(info.smallest_normal)), mpmath.log(float(info.max))
        low, high = dtype(float(least)), dtype(float(most))
        # Beyond the largest number by less than half an ULP is still that number; no x is there.
        low = low if mpmath.mpf(float(low)) >= least else np.nextafter(low, dtype(0))
        high = high if mpmath.mpf(float(high)) <= most else np.nextafter(high, dtype(0))
    return low, high


def with_normal_result(function: str, x: Array) -> Array:
    """The numbers with both signs, those whose exp or sigmoid is a normal number.

    sigmoid x = exp(x) (1 - sigmoid x): the least x is the same, and there is no largest.
    """
    low, high = exp_range(x.dtype.type)
    x = np.concatenate([x, -x])
    return x[(x >= low) & ((x <= high) | (function == "sigmoid"))]


@functools.cache
def sample32(function: str) -> tuple[Array, Array, Array]:
    """float32: inputs, results in float64 (their own error is below 1e-8 of an ULP), the ULP."""

    def stepped(first: float, last: float, step: int) -> Array:
        low, high = as_integers(np.array([first, last], np.float32))
        return np.arange(low, high, step, np.int32).view(np.float32)

    if function == "tanh":
        everywhere, where_it_bends = stepped(2.0**-126, np.inf, 1009), stepped(2.0**-13, 16.0, 97)
        largest = np.finfo(np.float32).max
        ends = [float(np.finfo(np.float32).smallest_normal), float(largest)]
        x = np.concatenate([everywhere, where_it_bends, neighbours(NOTABLE + ends, 60, np.float32)])
        # |tanh x| < |x|: the result of the smallest normal number is no longer normal, and whether
        # it is flushed depends on whether the processor looks before or after rounding.
        x = x[x > np.finfo(np.float32).smallest_normal]
        exact = np.tanh(x.astype(np.float64))
    else:
        # Below 2^-26 the result is that of 0, and nothing is to be seen but that it is.
        everywhere, where_it_bends = stepped(2.0**-126, 89.0, 20011), stepped(2.0**-26, 89.0, 503)
        ends = [abs(float(end)) for end in exp_range(np.float32)]
        notable = NOTABLE_EXP if function == "exp" else NOTABLE_SIGMOID
        near = neighbours(notable + ends, 20, np.float32)
        x = with_normal_result(function, np.concatenate([everywhere, where_it_bends, near]))
        wide = x.astype(np.float64)
        exact = np.exp(wide) if function == "exp" else 1.0 / (1.0 + np.exp(-wide))
    nearest = exact.astype(np.float32)
    # What is less than 1 (or, sigmoid of x < 0, less than 1/2) though float64 rounds it to that has
    # the ULP of the numbers below.
    less = (nearest == 1.0) & ((function != "exp") | (x < 0))
    less |= (nearest == 0.5) & (function == "sigmoid") & (x < 0)
    over = (nearest > exact) | less
    below = np.where(over, np.nextafter(nearest, np.float32(0)), nearest)
    return x, exact, np.spacing(below).astype(np.float64)


@functools.cache
def sample64(function: str) -> tuple[Array, list[Any], Array]:
    """float64: inputs, results to 40 digits, the ULP."""
    rng = np.random.default_rng(5)
    if function == "tanh":
        x = np.concatenate(
            [
                np.exp(rng.uniform(np.log(1e-307), np.log(1e300), 500)),
                np.exp(rng.uniform(np.log(1e-9), np.log(1e-2), 1000)),
                np.exp(rng.uniform(np.log(1e-2), np.log(20.0), 6000)),
                rng.uniform(0.0, 20.0, 3000),
                neighbours(NOTABLE, 3, np.float64),
            ]
        )
    else:
        low, high = exp_range(np.float64)
        ends = [-float(low), float(high)]
        halves = np.log(2) / 2 * rng.integers(1, 2045, 2000)
        notable = NOTABLE_EXP if function == "exp" else NOTABLE_SIGMOID
        x = with_normal_result(
            function,
            np.concatenate(
                [
                    np.exp(rng.uniform(np.log(1e-18), np.log(0.4), 1500)),
                    rng.uniform(0.0, high, 1500),
                    halves * (1.0 + np.exp(rng.uniform(np.log(1e-16), np.log(1e-2), 2000))),
                    np.exp(rng.uniform(np.log(0.1), np.log(40.0), 2000)),
                    rng.uniform(36.0, 38.0, 1000),  # 1 + exp(-x) has no bits left for one of them
                    neighbours(notable + ends, 2, np.float64),
                ]
            ),
        )
    with mpmath.workdps(40):
        exact = [TRUE[function](mpmath.mpf(float(v))) for v in x]
        # mpmath's value is mantissa * 2^exponent with a mantissa of `bits` bits.
        binade = np.array([int(v.exp) + int(v.bc) - 1 for v in exact])
    if function != "exp":  # |tanh| < 1 and sigmoid < 1 though 40 digits round it to 1
        binade = np.minimum(binade, -1)
    return x, exact, np.ldexp(1.0, binade - 52)


def sample(function: str, dtype: Any) -> Array:
    return (sample32 if dtype is np.float32 else sample64)(function)[0]


@each_function
@pytest.mark.parametrize("isa", ISAS)
def test_float32_within_two_ulp(function: str, isa: str) -> None:
    fastrnn.set_isa(isa)
    x, exact, ulp = sample32(function)
    error = np.abs(apply(function, x).astype(np.float64) - exact) / ulp
    worst = int(error.argmax())
    record_ulp(function, np.float32, float(error[worst]), float(x[worst]))
    assert error[worst] <= LIMIT, f"{error[worst]:.3f} ULP at {x[worst]!r}"


@each_function
@pytest.mark.parametrize("isa", ISAS)
def test_float64_within_two_ulp(function: str, isa: str) -> None:
    fastrnn.set_isa(isa)
    x, exact, ulp = sample64(function)
    with mpmath.workdps(40):
        error = np.array(
            [
                float(abs(mpmath.mpf(float(got)) - true) / mpmath.mpf(float(unit)))
                for got, true, unit in zip(apply(function, x), exact, ulp, strict=True)
            ]
        )
    worst = int(error.argmax())
    record_ulp(function, np.float64, float(error[worst]), float(x[worst]))
    assert error[worst] <= LIMIT, f"{error[worst]:.3f} ULP at {x[worst]!r}"


# The values at infinity and at 0.
RANGE = {"tanh": (1.0, 0.0), "sigmoid": (1.0, 0.5), "exp": (np.inf, 1.0)}


def exact_values(function: str, dtype: Any) -> dict[float, float]:
    """Inputs and their results, without the zeros: 0.0 and -0.0 are one key."""
    info = np.finfo(dtype)
    largest, subnormal = float(info.max), 0.3 * float(info.smallest_normal)
    if function == "tanh":
        return {np.inf: 1.0, -np.inf: -1.0, 100.0: 1.0, -100.0: -1.0, largest: 1.0}
    low, high = exp_range(dtype)
    below, above = (
        float(np.nextafter(end, dtype(far))) for end, far in ((low, -np.inf), (high, np.inf))
    )
    near = float(info.eps) / 8
    most, middle = RANGE[function]
    return {
        **{np.inf: most, above: most, largest: most},
        **{-np.inf: 0.0, below: 0.0, 1.01 * below: 0.0, -largest: 0.0},
        **{near: middle, -near: middle, subnormal: middle, -subnormal: middle},
    }


@each_function
@each
def test_exact_values(function: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    values = exact_values(function, dtype)
    x = np.array([0.0, -0.0, *values], dtype)
    middle = RANGE[function][1]
    want = np.array([middle, -0.0 if function == "tanh" else middle, *values.values()], dtype)
    got = apply(function, x)
    assert got.tobytes() == want.tobytes(), x[as_integers(got) != as_integers(want)]
    # A NaN of either sign and any payload is a NaN still.
    nan = np.array([np.nan, -np.nan], dtype)
    payload = as_integers(nan) | 12345
    assert np.isnan(apply(function, np.concatenate([nan, payload.view(dtype)]))).all()


@pytest.mark.parametrize("function", ["sigmoid", "exp"])
@each
@pytest.mark.quick
def test_the_ends_of_the_range(function: str, dtype: Any, isa: str) -> None:
    # exp: up to each end normal numbers, from there on 0 and infinity: nothing subnormal, no NaN.
    # sigmoid has the lower end alone.
    fastrnn.set_isa(isa)
    low, high = exp_range(dtype)
    info = np.finfo(dtype)
    around = np.arange(-300, 301)
    integer = as_integers(np.zeros(1, dtype)).dtype
    ends = [(low, 0.0), (high, np.inf)] if function == "exp" else [(low, 0.0)]
    for end, beyond in ends:
        x = (as_integers(np.array([end])) + around).astype(integer).view(dtype)
        y = apply(function, x)
        inside = (x >= low) & (x <= high)
        assert 300 <= inside.sum() <= 301
        assert (y[~inside] == beyond).all()
        assert (y[inside] >= info.smallest_normal).all()
        assert (y[inside] <= info.max).all()
    far = np.geomspace(1000.0, float(info.max) / 2, 500).astype(dtype)
    assert (apply(function, far) == RANGE[function][0]).all()
    assert not apply(function, -far).any()


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
def test_tanh_is_odd(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    x = sample("tanh", dtype)
    y = tanh(x)
    sign = np.iinfo(as_integers(y).dtype).min
    assert np.array_equal(as_integers(tanh(-x)), as_integers(y) ^ sign)


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
@each
def test_never_beyond_one(function: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    y = apply(function, sample(function, dtype))
    assert (y <= 1.0).all()
    assert (y >= 0.0).all()


@each_function
@each
@pytest.mark.quick
def test_position_does_not_matter(function: str, dtype: Any, isa: str) -> None:
    # Tails run under a mask, at any address, and nothing is written behind the end.
    fastrnn.set_isa(isa)
    rng = np.random.default_rng(6)
    x = rng.normal(0.0, 2.0, 80).astype(dtype)
    alone = np.concatenate([apply(function, x[i : i + 1]) for i in range(len(x))])
    for start, n in itertools.product((0, 1, 3), range(70)):
        out = np.full(80, 7.0, dtype)
        getattr(_core, function)(x[start : start + n], out[5 : 5 + n])
        assert out[5 : 5 + n].tobytes() == alone[start : start + n].tobytes(), (start, n)
        assert (out[:5] == 7.0).all()
        assert (out[5 + n :] == 7.0).all()


@each_function
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_instruction_sets_give_the_same_bits(function: str, dtype: Any) -> None:
    x = sample(function, dtype)
    results = {}
    for isa in PROMISED:
        fastrnn.set_isa(isa)
        results[isa] = apply(function, x)
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
