"""Walks over the steps, and finite differences, for the tests of the reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from grids import pairwise
from registry import KINDS, Variant

from fastrnn.reference.nonlinearities import NONLINEARITIES

# Rows that are empty, partial and whole; restarts at the first step, inside and in the padding.
LENGTHS = [5, 0, 3]
RESTART = np.zeros((5, 3), bool)
RESTART[0, 0] = RESTART[2, 0] = RESTART[2, 2] = RESTART[4, 2] = RESTART[1, 1] = True

# A gap, a row padded on the left, and a skipped step on which RESTART has no effect.
MASK = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1]], bool)
# Those in which every two options meet, and without a mask all.
PAIRS = pairwise((2, 2, 2, 2))
ROWS = [row for row in itertools.product((0, 1), repeat=4) if row in PAIRS or not row[1]]
WALKS = [
    {
        "lengths": (None, LENGTHS)[lengths],
        "mask": (None, MASK)[mask],
        "restart": (None, RESTART)[restart],
        "reverse": (False, True)[reverse],
    }
    for lengths, mask, restart, reverse in ROWS
]


def there(walk: dict[str, Any]) -> Any:
    """(5, 3): which steps of the rows count."""
    on = np.arange(5)[:, None] < np.array(walk["lengths"] or [5, 5, 5])
    return on if walk["mask"] is None else on & walk["mask"]


def name_of(options: dict[str, Any]) -> str:
    given = {k: v for k, v in options.items() if v is not None and v is not False}
    return "-".join(str(v) if k == "nonlinearity" else k for k, v in given.items()) or "plain"


# By default those in which every two options meet.
all_walks = pytest.mark.parametrize(
    "walk",
    [
        walk if row in PAIRS else pytest.param(walk, marks=pytest.mark.full)
        for row, walk in zip(ROWS, WALKS, strict=True)
    ],
    ids=name_of,
)


class Upstream(NamedTuple):
    """A loss that is linear in the results: its gradients with respect to them."""

    output: Any
    states: tuple[Any, ...]

    def loss(self, output: Any, states: tuple[Any, ...]) -> float:
        pairs = zip((self.output, *self.states), (output, *states), strict=True)
        return float(sum((d * a).sum() for d, a in pairs))


def upstream(output: Any, states: tuple[Any, ...], seed: int = 1) -> Upstream:
    rng = np.random.default_rng(seed)
    d_output, *d_states = (rng.standard_normal(a.shape).astype(a.dtype) for a in (output, *states))
    return Upstream(d_output, tuple(d_states))


# Central differences err by EPS² |L'''|/6. The third derivatives of the losses here, on arrays() in
# its default sizes, are at most 16 (measured with steps of 1e-2): 3e-10. And by the rounding of two
# losses over 2 EPS: sums of some 60 terms of order one, each wrong by some 10 roundings of 1.1e-16
# that go either way, are wrong by 1e-14: 1e-9.
EPS, TOLERANCE = 1e-5, 5e-9


def differences(loss: Callable[[], float], array: Any) -> Any:
    """The gradient of loss() with respect to an array that it reads, by central differences."""
    numeric = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + EPS
        above = loss()
        array[index] = value - EPS
        below = loss()
        array[index] = value
        numeric[index] = (above - below) / (2 * EPS)
    return numeric


def kinks_passed(variant: Variant, output: Any) -> Any:
    """Which elements of an Elman network's output have passed which kink: none may do so."""
    kinks = KINDS[variant.kind].kinks
    f = NONLINEARITIES[variant.options["nonlinearity"]].f if kinks else None
    return [output > f(np.array(kink)) for kink in kinks]


def check_gradients(variant: Variant, arrays: dict[str, Any], walk: dict[str, Any]) -> None:
    """Every gradient of a cell against finite differences."""
    output, states, tape = variant.forward(**arrays, **walk)
    up = upstream(output, states)
    on = kinks_passed(variant, output)
    grads = variant.backward(tape, up.output, up.states)

    def loss() -> float:
        output, states, _ = variant.forward(**arrays, **walk, record=False)
        assert np.array_equal(kinks_passed(variant, output), on)
        return up.loss(output, states)

    assert set(arrays) <= set(grads._fields)
    for name, got in grads._asdict().items():
        array = arrays.get(name)
        if array is None:
            assert got is None, name
        else:
            np.testing.assert_allclose(
                got, differences(loss, array), rtol=0, atol=TOLERANCE, err_msg=name
            )
