"""Grids of cases: the default run has every two values together, `--full` all combinations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

whole = False  # conftest.py sets it: cases beyond those of the default run are made at all


def name_of(value: Any) -> str:
    """The name of a type, function, module or cell; what else there is as text."""
    name = getattr(value, "__name__", getattr(value, "name", None))
    return name.rpartition(".")[2] if isinstance(name, str) else str(value)


def pairwise(sizes: Sequence[int]) -> set[tuple[int, ...]]:
    """Rows of positions in which every two values of two factors meet. Always the same ones.

    Along the longest factor, the next one is gone through and the others change with both. What
    is still missing then gets rows of its own.
    """
    if 0 in sizes:
        return set()
    order = sorted(range(len(sizes)), key=lambda k: -sizes[k])
    missing = {
        (j, k, a, b)
        for j, k in itertools.combinations(range(len(sizes)), 2)
        for a, b in itertools.product(range(sizes[j]), range(sizes[k]))
    }
    rows: set[tuple[int, ...]] = set()

    def add(row: tuple[int, ...]) -> None:
        rows.add(row)
        missing.difference_update(
            (j, k, row[j], row[k]) for j, k in itertools.combinations(range(len(row)), 2)
        )

    first, *others = order
    for i in range(sizes[first]):
        for j in range(sizes[others[0]] if others else 1):
            row = [0] * len(sizes)
            row[first] = i
            for n, k in enumerate(others):
                row[k] = (j + (n and i // n)) % sizes[k]
            add(tuple(row))
    while missing:
        j, k, a, b = min(missing)
        row = [0] * len(sizes)
        row[j], row[k] = a, b
        for n in range(len(sizes)):
            if n not in (j, k):
                gain = [
                    sum((*sorted((n, m)), *((v, w) if n < m else (w, v))) in missing
                        for m, w in ((j, a), (k, b)))
                    for v in range(sizes[n])
                ]  # fmt: skip
                row[n] = gain.index(max(gain))
        add(tuple(row))
    return rows


def in_turn(*factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The values of the first factor and the combinations of the others, both one by one."""
    first, *others = factors
    rows = list(itertools.product(*others))
    if not first or not rows:
        return []
    n = max(len(first), len(rows))
    return [(first[i % len(first)], *rows[(i + i // len(rows)) % len(rows)]) for i in range(n)]


def grid(
    names: str,
    *factors: Iterable[Any],
    once: bool = False,
    enough: bool = False,
    ids: Any = name_of,
) -> pytest.MarkDecorator:
    """Parametrise by a product; what the default run leaves out is marked `full`, where it is made.

    `names` are separated by commas, one a factor. once: the values of the first factor are cases
    that were chosen to cover something already; the default run has each of them once. enough: the
    default run's cases are all, as other tests have the rest.
    """
    values = [list(factor) for factor in factors]
    sizes = [len(v) for v in values]
    chosen = set(in_turn(*map(range, sizes))) if once else pairwise(sizes)
    cases = []
    for row in itertools.product(*map(range, sizes)):
        if row not in chosen and (enough or not whole):
            continue
        case = [v[i] for v, i in zip(values, row, strict=True)]
        marks = () if row in chosen else (pytest.mark.full,)
        cases.append(pytest.param(*case, marks=marks))
    return pytest.mark.parametrize([name.strip() for name in names.split(",")], cases, ids=ids)


def beyond(values: Iterable[Any]) -> list[Any]:
    """Values of a parametrize that the default run leaves out."""
    return [pytest.param(value, marks=pytest.mark.full) for value in values if whole]
