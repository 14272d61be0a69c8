"""The compiled cells agree with the NumPy reference, within bounds derived in bounds.py.

The truth is the float64 reference on the very values that the compiled code is given.
"""

import functools
import itertools
import random
from typing import Any

import grids
import numpy as np
import pytest
from bounds import (
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
    with_variants_in_turn,
)
from grids import grid, in_turn, name_of
from registry import CELLS, KINDS, Cell

import fastrnn
from fastrnn import reference

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)

# Sizes straddle the lanes of every instruction set (2, 4, 8, 16) and panels of 4 vectors, batches
# straddle tiles of 1 to 6 rows and one 13-row remainder.
UNITS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
FACTORS: dict[str, tuple[Any, ...]] = {
    "T": (0, 1, 2, 5, 12),
    "B": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, "unbatched"),
    "D": UNITS,
    "H": UNITS,
    "b_ih": (True, False),
    "b_hh": (True, False),
    "h_0": (True, False),
    "lengths": (False, True),
    "mask": (False, True),
    "restart": (False, True),
    "reverse": (False, True),
    "upstream": ("all", "d_output", "d_h_n"),
}


def factors_of(cell: Cell) -> dict[str, tuple[Any, ...]]:
    factors = FACTORS | {"kind": tuple(kind for kind, k in KINDS.items() if k.cell is cell)}
    if "projection" in cell.extras:
        factors["P"] = (0, *UNITS[:-1])
    if "peepholes" in cell.extras:
        factors["peephole"] = (False, True)
    if "c" in cell.states:
        factors["c_0"] = (True, False)
        factors["upstream"] += ("d_c_n", "d_output+d_c_n", "d_h_n+d_c_n")
    return factors


# Where the work goes in several blocks of time steps, several chunks of 512 rows of a weight
# gradient (the last one short or full), several panels, and to several threads.
LARGE = (
    *with_variants_in_turn(
        Spec(40, 37, 20, 100),
        Spec(40, 37, 20, 70, lengths=True, restart=True, reverse=True),
        Spec(600, 1, 7, 33, h_0=False, unbatched=True),
        Spec(128, 8, 2, 9, b_ih=False, mask=True, restart=True),
        Spec(3, 300, 17, 31, mask=True, upstream="d_output"),
        Spec(2, 513, 3, 8, b_hh=False, restart=True, reverse=True),
        Spec(30, 8, 3, 150, c_0=False, lengths=True, upstream="d_h_n"),
        Spec(20, 2, 150, 64),
    ),
    Spec(1100, 1, 33, 16, "relu", b_hh=False, reverse=True),
    Spec(1024, 1, 2, 3, b_ih=False, restart=True),
    Spec(40, 8, 3, 300, lengths=True, upstream="d_h_n"),
    Spec(25, 2, 300, 64, "relu"),
)


def large_of(cell: Cell) -> list[Spec]:
    return [spec for spec in LARGE if KINDS[spec.kind].cell is cell]


def covering_specs(factors: dict[str, tuple[Any, ...]]) -> tuple[Spec, ...]:
    """Problems in which any two values of any two factors meet at least once.

    Greedy: of forty random problems, all of which hold some pair that is still missing, the one
    with the most missing pairs comes next. Always the same list.
    """
    rng = random.Random(7)
    names = tuple(factors)

    def pairs(values: tuple[Any, ...]) -> set[tuple[int, int, Any, Any]]:
        return {
            (i, j, values[i], values[j]) for i, j in itertools.combinations(range(len(names)), 2)
        }

    def possible(options: dict[str, Any]) -> bool:
        if "kind" in options:
            own = factors_of(KINDS[options["kind"]].cell)
            if any(v not in own.get(name, factors[name][:1]) for name, v in options.items()):
                return False
        return options.get("P", 0) < options.get("H", np.inf)  # a projection makes h smaller

    missing = {
        (i, j, a, b)
        for i, j in itertools.combinations(range(len(names)), 2)
        for a, b in itertools.product(factors[names[i]], factors[names[j]])
        if possible({names[i]: a, names[j]: b})
    }
    specs = []
    while missing:
        wanted = sorted(missing, key=repr)
        best: tuple[Any, ...] = ()
        for _ in range(40):
            values = [rng.choice(factors[name]) for name in names]
            i, j, a, b = rng.choice(wanted)
            values[i], values[j] = a, b
            if not possible(dict(zip(names, values, strict=True))):
                continue
            best = max(best, tuple(values), key=lambda v: len(pairs(v) & missing) if v else -1)
        if not best:
            continue
        missing -= pairs(best)
        options = dict(zip(names, best, strict=True))
        options["unbatched"] = options["B"] == "unbatched"
        if options["unbatched"]:
            options["B"] = 1
        specs.append(Spec(**options))
    return tuple(specs)


@functools.lru_cache(maxsize=64)  # consecutive tests differ in the instruction set only
def prepared(spec: Spec, dtype: Any) -> tuple[Problem, dict[str, Any], Analysis, Results]:
    """The problem, the truth, the analysis and the bounds."""
    p = draw(spec, dtype)
    truth = run(reference, p.astype(np.float64))
    analysis = analyse(p)
    return p, truth, analysis, bounds(analysis, dtype, both=dtype is np.float64)


def factors_of_all() -> dict[str, tuple[Any, ...]]:
    """What any cell has; the first value of each is that of a cell without it."""
    found: dict[str, tuple[Any, ...]] = {}
    for cell in CELLS.values():
        for name, values in factors_of(cell).items():
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *values)))
    return found | {"P": (0, 1, 8, 17)}


# By default any two options meet with some cell; with --full they do with every cell, in every type
# and on every instruction set.
COVERING = covering_specs(factors_of_all())
SPECS = [
    spec for cell in CELLS.values() if grids.whole for spec in covering_specs(factors_of(cell))
]


@pytest.mark.parametrize(
    ("spec", "dtype", "isa"),
    [
        *in_turn(COVERING, DTYPES, ISAS),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in itertools.product(SPECS, DTYPES, ISAS)
        ),
    ],
    ids=name_of,
)
def test_compiled_agrees_with_reference(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p, truth, _, bound = prepared(spec, dtype)
    check(run(fastrnn, p), truth, bound, dtype, f"{spec} {isa}")


@grid("spec, dtype, isa", LARGE[::3], DTYPES, ISAS, once=True)
def test_large_problems_agree_too(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p, truth, _, bound = prepared(spec, dtype)
    check(run(fastrnn, p), truth, bound, dtype, f"{spec} {isa}")


@pytest.mark.full
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("spec", [*LARGE[1::3], *LARGE[2::3]], ids=str)
def test_other_large_problems_agree_too(spec: Spec, dtype: Any, isa: str) -> None:
    test_large_problems_agree_too(spec, dtype, isa)


@grid("cell, dtype, isa", CELLS.values(), DTYPES, ISAS)
def test_the_bounds_are_not_slack(cell: Cell, dtype: Any, isa: str) -> None:
    # A bound that nothing comes near would let a wrong kernel pass.
    fastrnn.set_isa(isa)
    for spec in large_of(cell)[: 2 if grids.whole else 1]:
        p, truth, _, bound = prepared(spec, dtype)
        found = ratios(run(fastrnn, p), truth, bound)
        assert found.pop("norms") > 0.002  # bounded without a model of what elements share
        if isa != "generic":
            # Where the reference has the same bits, which some processors' NumPy comes to for some
            # of them, the generic kernels, which round once more, are those that tell.
            told = {name: ratio for name, ratio in found.items() if ratio}
            assert len(told) > len(found) / 2, found
            found = told
        assert min(found.values()) > 0.02, found


WRT_SPECS = with_variants_in_turn(
    Spec(5, 7, 9, 17, lengths=True, restart=True),
    Spec(5, 7, 9, 17, mask=True, restart=True, reverse=True),
    Spec(20, 37, 20, 33),
)


@grid("spec, dtype, isa", WRT_SPECS, DTYPES, ISAS)
def test_a_subset_of_gradients_has_the_bits_of_all(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    every, n = run(fastrnn, p), len(p.arguments)
    backward = functools.partial(p.cell.backward(), tape_of(p), *p.gradients())
    for size in range(n + 1) if n < 9 else (0, 1, 2, n - 1):
        for wrt in itertools.combinations(p.arguments, size):
            for name, gradient in backward(wrt=wrt)._asdict().items():
                full = every[f"d_{name}"]
                if name in wrt and full is not None:
                    assert gradient is not None
                    assert gradient.tobytes() == full.tobytes(), f"{name} of wrt={wrt}"
                else:
                    assert gradient is None, f"{name} of wrt={wrt}"


def tape_of(p: Problem, functions: Any = fastrnn) -> Any:
    return p.cell.forward(functions)(*p.arrays(), **p.options())[-1]


@grid("spec, dtype, isa", WRT_SPECS, DTYPES, ISAS)
def test_each_backend_takes_the_tape_of_the_other(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p, truth, analysis, _ = prepared(spec, dtype)
    bound = bounds(analysis, dtype, both=True)
    for one, other in ((fastrnn, reference), (reference, fastrnn)):
        tape = tape_of(p, one)
        grads = p.cell.backward(other)(tape, *p.gradients())._asdict()
        got = {f"d_{name}": gradient for name, gradient in grads.items()}
        got["norms"] = other.gradient_norms(tape, *p.gradients())
        check(got, {name: truth[name] for name in got}, bound, dtype, f"{spec} {isa} crossed")
