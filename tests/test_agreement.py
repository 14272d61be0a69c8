"""The compiled Elman network agrees with the NumPy reference, within bounds derived in bounds.py.

The truth is the float64 reference on the very values that the compiled code is given.
"""

import functools
import itertools
import random
from typing import Any

import numpy as np
import pytest
from bounds import (
    ARGUMENTS,
    Analysis,
    Problem,
    Results,
    Spec,
    analyse,
    bounds,
    check,
    draw,
    ratios,
    run,
)

import fastrnn
from fastrnn import reference

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)
RESULTS = ("output", "h_n", *(f"d_{name}" for name in ARGUMENTS))

# Sizes straddle the lanes of every instruction set (2, 4, 8, 16) and panels of 4 vectors, batches
# straddle tiles of 1 to 6 rows and one 13-row remainder.
FACTORS: dict[str, tuple[Any, ...]] = {
    "T": (0, 1, 2, 5, 12),
    "B": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, "unbatched"),
    "D": (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100),
    "H": (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100),
    "nonlinearity": ("tanh", "relu"),
    "b_ih": (True, False),
    "b_hh": (True, False),
    "h_0": (True, False),
    "lengths": (False, True),
    "restart": (False, True),
    "reverse": (False, True),
    "upstream": ("both", "d_output", "d_h_n"),
}

# Where the work goes in several blocks of time steps, several chunks of 512 rows of a weight
# gradient (the last one short or full), several panels, and to several threads.
LARGE = (
    Spec(40, 37, 20, 100),
    Spec(40, 37, 20, 100, "relu", lengths=True, restart=True, reverse=True),
    Spec(1100, 1, 7, 33, h_0=False, unbatched=True),
    Spec(1100, 1, 33, 16, "relu", b_hh=False, reverse=True),
    Spec(1024, 1, 2, 3, b_ih=False, restart=True),
    Spec(3, 300, 17, 31, lengths=True),
    Spec(3, 300, 100, 9, "relu", upstream="d_output"),
    Spec(2, 513, 3, 8, restart=True, reverse=True),
    Spec(40, 8, 3, 300, lengths=True, upstream="d_h_n"),
    Spec(25, 2, 300, 64, "relu"),
)


def covering_specs() -> tuple[Spec, ...]:
    """Problems in which any two values of any two factors meet at least once.

    Greedy: of forty random problems, all of which hold some pair that is still missing, the one
    with the most missing pairs comes next. Always the same list.
    """
    rng = random.Random(7)
    names = tuple(FACTORS)

    def pairs(values: tuple[Any, ...]) -> set[tuple[int, int, Any, Any]]:
        return {
            (i, j, values[i], values[j]) for i, j in itertools.combinations(range(len(names)), 2)
        }

    missing = {
        (i, j, a, b)
        for i, j in itertools.combinations(range(len(names)), 2)
        for a, b in itertools.product(FACTORS[names[i]], FACTORS[names[j]])
    }
    specs = []
    while missing:
        wanted = sorted(missing, key=repr)
        best: tuple[Any, ...] = ()
        for _ in range(40):
            values = [rng.choice(FACTORS[name]) for name in names]
            i, j, a, b = rng.choice(wanted)
            values[i], values[j] = a, b
            best = max(best, tuple(values), key=lambda v: len(pairs(v) & missing) if v else -1)
        missing -= pairs(best)
        options = dict(zip(names, best, strict=True))
        options["unbatched"] = options["B"] == "unbatched"
        if options["unbatched"]:
            options["B"] = 1
        specs.append(Spec(**options))
    return tuple(specs)


SPECS = covering_specs()


@functools.lru_cache(maxsize=2)  # consecutive tests differ in the instruction set only
def prepared(spec: Spec, dtype: Any) -> tuple[Problem, dict[str, Any], Analysis, Results]:
    """The problem, the truth, the analysis and the bounds."""
    p = draw(spec, dtype)
    truth = run(reference, p.astype(np.float64))
    analysis = analyse(p)
    return p, truth, analysis, bounds(analysis, dtype, both=dtype is np.float64)


def name_of(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


@pytest.mark.parametrize(
    ("spec", "dtype", "isa"), list(itertools.product(SPECS + LARGE, DTYPES, ISAS)), ids=name_of
)
def test_compiled_agrees_with_reference(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p, truth, _, bound = prepared(spec, dtype)
    check(run(fastrnn, p), truth, bound, dtype, f"{spec} {isa}")


@pytest.mark.parametrize("spec", [*SPECS[::9], *LARGE], ids=str)
def test_the_analysis_follows_the_reference(spec: Spec) -> None:
    # The recursion that the bounds stand beside computes what the reference computes.
    _, truth, analysis, _ = prepared(spec, np.float64)
    for name, expected in truth.items():
        if expected is not None:
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            np.testing.assert_allclose(analysis.values[name], expected, 0, 1e-11 * scale, name)


@pytest.mark.parametrize("spec", [*SPECS[::9], *LARGE], ids=str)
def test_the_reference_in_float32_keeps_the_bounds(spec: Spec) -> None:
    # The bounds hold for sums in another order too: they describe float32, not one kernel.
    p, truth, analysis, _ = prepared(spec, np.float32)
    bound = bounds(analysis, np.float32, both=True)
    found = ratios(run(reference, p), truth, bound)
    assert max(found.values()) <= 1.0, found


@pytest.mark.parametrize(("dtype", "isa"), list(itertools.product(DTYPES, ISAS)), ids=name_of)
def test_the_bounds_are_not_slack(dtype: Any, isa: str) -> None:
    # A bound that nothing comes near would let a wrong kernel pass.
    fastrnn.set_isa(isa)
    p, truth, _, bound = prepared(LARGE[0], dtype)
    found = ratios(run(fastrnn, p), truth, bound)
    assert min(found.values()) > 0.02, found


WRT_SPECS = (Spec(5, 7, 9, 17, lengths=True, restart=True), Spec(40, 37, 20, 33, "relu"))


@pytest.mark.parametrize(
    ("spec", "dtype", "isa"), list(itertools.product(WRT_SPECS, DTYPES, ISAS)), ids=name_of
)
def test_a_subset_of_gradients_has_the_bits_of_all(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    _, _, tape = fastrnn.rnn_forward(*p.arrays(), **p.options())
    every = fastrnn.rnn_backward(tape, p.d_output, p.d_h_n)
    for size in range(len(ARGUMENTS) + 1):
        for wrt in itertools.combinations(ARGUMENTS, size):
            some = fastrnn.rnn_backward(tape, p.d_output, p.d_h_n, wrt=wrt)
            for name, gradient, full in zip(ARGUMENTS, some, every, strict=True):
                if name in wrt:
                    assert gradient is not None
                    assert full is not None
                    assert gradient.tobytes() == full.tobytes(), f"{name} of wrt={wrt}"
                else:
                    assert gradient is None, f"{name} of wrt={wrt}"


# ------------------------------------------------------------------ the comparison can fail

DROP_SPECS = (
    Spec(1, 1, 2, 3),
    Spec(5, 7, 9, 17, lengths=True, restart=True, reverse=True),
    Spec(12, 13, 33, 100, "relu"),
    *(spec._replace(unbatched=False) for spec in LARGE[:7]),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("spec", DROP_SPECS, ids=str)
def test_one_dropped_term_is_noticed(spec: Spec, dtype: Any) -> None:
    # A kernel that leaves out one product of one sum (a tail, the last row of a chunk) is off by
    # that product. Each result in turn is changed by a product of median size.
    p, truth, analysis, bound = prepared(spec, dtype)
    assert set(ratios(truth, truth, bound).values()) == {0.0}
    for name, value in truth.items():
        if value is None:
            continue
        element, product = median_product(p, analysis, name)
        wrong = value.copy()
        wrong[element] -= product
        ratio = ratios({**truth, name: wrong}, truth, bound)[name]
        assert ratio > 1.0, f"{name}: a dropped term is only {ratio:.3g} of the bound"


def median_product(p: Problem, analysis: Analysis, name: str) -> tuple[tuple[int, ...], float]:
    """A result's element and what one product of median size adds to it (to first order)."""
    x, before, dz, slope = (analysis.terms[k] for k in ("x", "before", "dz", "slope"))
    w_ih, w_hh = p.w_ih.astype(np.float64), p.w_hh.astype(np.float64)
    first, last = (len(x) - 1, 0) if p.reverse else (0, len(x) - 1)
    prefix: tuple[int, ...] = ()
    # Products of many elements, indexed by the element (behind the prefix), then by the term.
    if name in ("output", "h_n"):  # h_i = f(... + sum_k W_hh[i, k] h'_k), at the last step
        w, y = (w_hh, before) if before[last].any() else (w_ih, x)
        products = slope[last][:, :, None] * w * y[last][:, None, :]
        prefix = (last,) if name == "output" else ()
    elif name == "d_x":  # d_x_j = sum_k dz_k W_ih[k, j]
        products = dz[:, :, None, :] * w_ih.T
    elif name == "d_h_0":  # likewise, at the first step, but for rows that restart there
        products = dz[first][:, None, :] * w_hh.T * (analysis.values[name] != 0.0)[:, :, None]
    else:  # d_W[i, j] = sum over rows (t, b) of dz_i y_j, the last i; the biases have y = 1
        prefix = (len(w_hh) - 1,)
        ones = np.ones((*dz.shape[:2], 1))
        y = {"d_w_ih": x, "d_w_hh": before}.get(name, ones)
        products = (dz[:, :, -1:] * y).reshape(-1, y.shape[2]).T
        if y is ones:
            products = products[0]
    size = np.where(products == 0.0, np.inf, np.abs(products))  # padding has no products
    middle = np.argsort(size, axis=None)[np.count_nonzero(np.isfinite(size)) // 2]
    at = tuple(int(i) for i in np.unravel_index(middle, size.shape))
    assert np.isfinite(size[at])
    return prefix + at[:-1], float(products[at])
