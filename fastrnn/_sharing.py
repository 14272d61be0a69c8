"""Arrays that share memory: what changes them in place would change the same element twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def distinct(name: str, arrays: Mapping[str, Array] | Sequence[Array]) -> None:
    """Raise ValueError where two arrays, or two elements of one, share memory.

    What changes them in place would change the same element twice.

    Parameters
    ----------
    name : str
        What the caller calls the argument.
    arrays : sequence or mapping of ndarray
        In a mapping under what the caller calls each of them, else as ``name[0]``, ``name[1]``, ...
    """
    if not isinstance(arrays, Mapping):
        arrays = {f"{name}[{i}]": a for i, a in enumerate(arrays)}
    for label, a in arrays.items():
        if _overlaps_itself(a):
            raise ValueError(
                f"{label} has elements that share memory with each other: pass the array that it "
                "is a view of"
            )
    labels = list(arrays)
    for first, second in sharing(list(arrays.values())):
        raise ValueError(
            f"{labels[second]} shares memory with {labels[first]}: pass every element once"
        )


def sharing(arrays: Sequence[Array]) -> Iterator[tuple[int, int]]:
    """The places of every two arrays that share memory, the lower one first."""
    if len(arrays) < 2:
        return
    below: list[tuple[int, int]] = []  # those that begin before and end behind the next one
    for start, end, i in sorted((*bounds(a), i) for i, a in enumerate(arrays) if a.size):
        below = [(other_end, j) for other_end, j in below if other_end > start]
        for _, j in below:
            if np.shares_memory(arrays[i], arrays[j]):
                yield min(i, j), max(i, j)
        below.append((end, i))


def bounds(a: Array) -> tuple[int, int]:
    """Where the bytes of an array that has any begin and end."""
    steps = [(n - 1) * step for n, step in zip(a.shape, a.strides, strict=True)]
    start: int = a.__array_interface__["data"][0]
    below, above = sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)
    return start + below, start + above + a.itemsize


def _overlaps_itself(a: Array) -> bool:
    """Whether two elements of the array share memory."""
    if a.flags.forc or not a.size:
        return False
    axes = sorted((abs(step), n) for n, step in zip(a.shape, a.strides, strict=True) if n > 1)
    reach = a.itemsize  # how many bytes the axes so far span
    apart = True
    for step, n in axes:
        apart = apart and step >= reach
        reach += (n - 1) * step
    if apart:
        return False
    if a.size * a.itemsize > reach:  # more elements than there is room for
        return True
    offsets = np.zeros(1, np.int64)
    for step, n in axes:
        offsets = (offsets[:, None] + step * np.arange(n)).ravel()
    offsets.sort()
    return bool((np.diff(offsets) < a.itemsize).any())
