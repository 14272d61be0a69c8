"""The memory of weights: what is copied or pickled with it stays in one piece.

NumPy copies and pickles every array by itself, so that a layer and an optimiser over views of its
weights would come apart. Here every such view finds, along its `base`, the one object that owns the
memory, and is handed over as a part of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import numpy as np

from ._sharing import bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector


_alive: WeakSet[Memory] = WeakSet()


class Memory:
    """Owns the array of one axis that weights are views into.

    ``np.asarray(memory)`` is that array, with the memory as its `base`: NumPy shortens chains of
    bases, but only to the last array, whose own base this is.

    Attributes
    ----------
    whole : Memory or None
        Of the array of a layer inside a model, that of the model's, of which it is a piece.
    moved : str or None
        Where a step on what is here would change nobody's weights: what it is, and what to do.
    of_layer : bool
        Whether a layer has its weights here.
    """

    __slots__ = ("__weakref__", "array", "moved", "of_layer", "whole")

    def __init__(self, array: Array, whole: Memory | None = None, moved: str | None = None) -> None:
        self.array, self.whole, self.moved, self.of_layer = array, whole, moved, False
        _alive.add(self)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__

    # As an array, so that joblib and out-of-band pickles write it as they write arrays.
    def __reduce__(self) -> Any:
        if self.whole is not None:
            start = (_address(self) - _address(self.whole)) // self.array.itemsize
            return piece, (self.whole, start, len(self.array), self.moved)
        return _copied, (self.array,) if self.moved is None else (self.array, self.moved)


def piece(whole: Memory, start: int, count: int, moved: str | None = None) -> Memory:
    """Memory of so many elements of another one's; copied together they stay that."""
    return Memory(np.asarray(whole)[start : start + count], whole, moved)


def _copied(array: Array, moved: str | None = None) -> Memory:
    """Memory of its own: what comes out of a file or another process may be anywhere, read-only."""
    own = aligned_empty(len(array), np.dtype(array.dtype.type))  # native, and NumPy's own object
    own[...] = array
    return Memory(own, None, moved)


def aligned_empty(count: int, dtype: Any) -> Array:
    """An uninitialised array of one axis that starts on a cache line."""
    raw: Array = np.empty(count * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -_address(raw) % _ALIGNMENT
    return raw[start : start + count * dtype.itemsize].view(dtype)


def _address(a: Any) -> int:
    address: int = a.__array_interface__["data"][0]
    return address


def root(a: Any) -> Any:
    """The object that owns an array's memory: a Memory, an array, or whatever lent it to NumPy."""
    while True:
        # Not only arrays have a base: what as_strided puts between two of them has, too.
        below = a.obj if isinstance(a, memoryview) else getattr(a, "base", None)
        if below is None:
            return a
        a = below


def owner(a: Array) -> Memory | None:
    """The memory that an array is a view into, if it is one of weights."""
    found = root(a)
    if isinstance(found, Memory):
        return found
    if not a.size or (isinstance(found, np.ndarray) and found.flags.owndata):
        return None
    # Lent out and taken back (DLPack, ctypes) it has another base: where it lies tells.
    return next((memory for memory in list(_alive) if _inside(a, memory.array)), None)


def place_in(a: Array, memory: Memory) -> tuple[Memory, int]:
    """The memory that one is a piece of, and at which of its elements an array starts."""
    while memory.whole is not None:
        memory = memory.whole
    return memory, (_address(a) - _address(memory)) // memory.array.itemsize


def _inside(a: Array, whole: Array) -> bool:
    start, end = bounds(whole)
    first, last = bounds(a)
    return start <= first and last <= end


class Part(NamedTuple):
    """An array as a view into a memory."""

    memory: Memory
    offset: int  # bytes
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


def handed_over(a: Array, memory: Memory | None = None) -> Part | Array:
    """What a pickle is to hold for an array: its part of a memory, or where it has none itself.

    Parameters
    ----------
    a : ndarray
    memory : Memory, optional
        One that the array may lie in without having it as its base.
    """
    found = owner(a) or memory
    if found is None or not a.size or not _inside(a, found.array):
        return a
    return Part(found, _address(a) - _address(found), a.shape, a.strides, a.dtype.str)


def taken_over(handed: Any) -> Any:
    """The array that was handed over."""
    if not isinstance(handed, Part):
        return handed
    memory, offset, shape, strides, dtype = handed
    return np.ndarray(shape, np.dtype(dtype), np.asarray(memory), offset, strides)
