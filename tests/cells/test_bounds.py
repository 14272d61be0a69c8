"""The bounds themselves: they are right, in float32 as it comes, and they notice what is wrong."""

from typing import Any

import grids
import numpy as np
import pytest
import rounding
from bounds import (
    Analysis,
    Problem,
    Results,
    Spec,
    analyse,
    bounds,
    draw,
    ratios,
    run,
    with_every_kind,
    with_variants_in_turn,
)
from grids import beyond, grid
from registry import CELLS, KINDS
from rounding import Array, Real
from test_agreement import COVERING, DTYPES, LARGE, SPECS, large_of, prepared

from fastrnn import reference

SOME = (*COVERING[::30], *LARGE[::6])
MORE = [spec for spec in (*SPECS[::9], *LARGE) if spec not in SOME]
some_specs = pytest.mark.parametrize("spec", [*SOME, *beyond(MORE)], ids=str)


@some_specs
def test_the_analysis_follows_the_reference(spec: Spec) -> None:
    # The recursion that the bounds stand beside computes what the reference computes.
    _, truth, analysis, _ = prepared(spec, np.float64)
    for name, expected in truth.items():
        if expected is not None:
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            np.testing.assert_allclose(analysis.values[name], expected, 0, 1e-11 * scale, name)


@some_specs
def test_the_reference_in_float32_keeps_the_bounds(spec: Spec) -> None:
    # The bounds hold for sums in another order too: they describe float32, not one kernel.
    p, truth, analysis, _ = prepared(spec, np.float32)
    bound = bounds(analysis, np.float32, both=True)
    found = ratios(run(reference, p), truth, bound)
    assert max(found.values()) <= 1.0, found


# --------------------------------------------------------------------- errors as they are modelled


def disturbed_values(p: Problem, monkeypatch: pytest.MonkeyPatch, size: float) -> list[Results]:
    """The values of analyses in which every error does happen, with a random sign."""
    rng = np.random.default_rng(5)

    def disturbed(a: Real, error: Array) -> Real:
        return Real(a.value + size * error * rng.choice([-1.0, 1.0], a.value.shape))

    with monkeypatch.context() as patch:
        patch.setattr(rounding, "disturbed", disturbed)
        return [analyse(p).values for _ in range(40)]


# A disturbance may carry a unit over a kink.
SMOOTH = [
    s for s in with_variants_in_turn(Spec(9, 1, 5, 17), Spec(9, 1, 5, 8)) if not KINDS[s.kind].kinks
]


@grid("spec, upstream", SMOOTH, ("all", "d_h_n"), once=True)
def test_errors_spread_as_q_says(
    spec: Spec, upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This holds every derivative in q against a difference quotient. 40 runs give a spread to 11%,
    # in single elements more is left of what cancels on average.
    size = 1e-8
    p = draw(spec._replace(upstream=upstream), np.float64)
    runs, q = disturbed_values(p, monkeypatch, size), analyse(p).q
    for name in runs[0]:
        spread = np.std([values[name] for values in runs], 0) / size
        ratio = spread[q[name] > 0.0] / np.sqrt(q[name][q[name] > 0.0])
        if name in ("output", "h_n", "c_n"):
            assert 0.8 < np.median(ratio) < 1.2, name
            assert ratio.max() < 2.0, name
        elif name in ("d_x", "d_h_0", "d_c_0"):  # what two ways may have in common is added
            assert 0.2 < np.median(ratio) < 1.2, name
            assert ratio.max() < 2.0, name
        else:  # sums over time with MEMORY, and norms
            assert ratio.max() < 1.1, name


# ------------------------------------------------------------------ the comparison can fail

DROP_SPECS = (
    # Of a relu with three units all may be off: then there is no product.
    *(spec for spec in with_every_kind(Spec(1, 1, 2, 3)) if not KINDS[spec.kind].kinks),
    *with_every_kind(Spec(5, 7, 9, 17, lengths=True, restart=True, reverse=True)),
    # Six large ones of each cell; by default each cell has two of them.
    *(
        spec._replace(unbatched=False)
        for k, cell in enumerate(CELLS.values())
        for spec in large_of(cell)[0 if grids.whole else k : 6 : 1 if grids.whole else 3]
    ),
)


@grid("spec, dtype", DROP_SPECS, DTYPES, once=True)
def test_one_dropped_term_is_noticed(spec: Spec, dtype: Any) -> None:
    # A kernel that leaves out one product of one sum (a tail, the last row of a chunk) is off by
    # that product. Each result in turn is changed by a product of median size.
    _, truth, analysis, bound = prepared(spec, dtype)
    assert set(ratios(truth, truth, bound).values()) == {0.0}
    for name, value in truth.items():
        if value is None or name == "norms":
            continue
        element, product = median_product(analysis, name)
        wrong = value.copy()
        wrong[element] -= product
        ratio = ratios({**truth, name: wrong}, truth, bound)[name]
        assert ratio > 1.0, f"{name}: a dropped term is only {ratio:.3g} of the bound"


def median_product(analysis: Analysis, name: str) -> tuple[tuple[int, ...], float]:
    """A result's element and what one product of median size adds to it (to first order)."""
    index, factor, w, y = analysis.terms[name]
    products = factor[..., None] * w * y[..., None, :]
    size = np.where(products == 0.0, np.inf, np.abs(products))  # padding has no products
    middle = np.argsort(size, axis=None)[np.count_nonzero(np.isfinite(size)) // 2]
    at = tuple(int(i) for i in np.unravel_index(middle, size.shape))
    assert np.isfinite(size[at])
    return index + at[:-1], float(products[at])
