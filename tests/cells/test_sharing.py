"""Which arrays share memory, with each other or within themselves."""

import itertools

import numpy as np
import pytest
from bounds import Array
from numpy.lib.stride_tricks import as_strided

from fastrnn import _sharing

A = np.zeros(24)
M = np.zeros((4, 6), np.float32)

APART: dict[str, list[Array]] = {
    "none": [],
    "one": [A],
    "halves": [A[:12], A[12:]],
    "halves, the upper one first": [A[12:], A[:12]],
    "every other element": [A[::2], A[1::2]],
    "backwards": [A[::-2], A[-2::-2]],
    "columns": list(M.T),
    "blocks of columns": [M[:, :2], M[:, 2:3], M[:, 3:]],
    "one transposed": [M[:2].T, M[2:]],
    "nothing of the other": [A, A[3:3], A[:0]],
    "nothing twice": [A[:0], A[:0], np.empty((3, 0))],
    "others": [np.zeros(3) for _ in range(5)],
    "of no axis": [A[0:1].reshape(()), A[1:2].reshape(())],
    "one within the gap of another": [A[:3:2], A[1:2], A[3:4]],
    "steps that only look too small": [as_strided(A, (2, 3), (8, 16))],
    "steps that would meet later": [as_strided(A, (3, 3), (16, 24))],
    "an axis of one step": [as_strided(A, (1, 4), (0, 8))],
}


def twice(arrays: list[Array], at: int) -> tuple[list[Array], tuple[int, int]]:
    return [*arrays, arrays[at]], (len(arrays), at)


TOGETHER: dict[str, tuple[list[Array], tuple[int, int]]] = {
    "the same": ([A, A], (1, 0)),
    "the same after others": ([np.zeros(2), A, np.zeros(2), A], (3, 1)),
    "a part": ([A, A[5:6]], (1, 0)),
    "the whole after a part": ([A[5:6], A], (1, 0)),
    "one element": ([A[:13], A[12:]], (1, 0)),
    "half an element": ([A[:2], as_strided(A.view(np.float32)[1:], (2,), (8,))], (1, 0)),
    "another shape": ([A, A.reshape(4, 6)], (1, 0)),
    "another type": ([A, A.view(np.float32)[::2]], (1, 0)),
    "backwards": ([A, A[::-1]], (1, 0)),
    "strided": ([A[::2], A[::3]], (1, 0)),
    "a row and a column": ([M[0], M[:, 0]], (1, 0)),
    "behind a short neighbour": ([A, np.zeros(1), A[20:21]], (2, 0)),
    "past one that shares nothing": ([A[::2], A[1:2], A[22:23]], (2, 0)),
    "many columns": twice(list(M.T), 3),
}  # fmt: skip

ITSELF: dict[str, Array] = {
    "no step": as_strided(A, (3,), (0,)),
    "rows without a step": as_strided(A, (2, 3), (0, 8)),
    "windows": as_strided(A, (4, 3), (8, 8)),
    "windows backwards": as_strided(A[10:], (4, 3), (-8, 8)),
    "half elements": as_strided(A, (3,), (4,)),
    "meeting once": as_strided(A, (4, 3), (16, 24)),
    "more than there is room for": as_strided(A, (2**20, 2**20), (0, 0)),
}


@pytest.mark.parametrize("case", APART)
def test_arrays_that_share_nothing(case: str) -> None:
    _sharing.distinct("params", APART[case])
    _sharing.distinct("params", APART[case][::-1])


@pytest.mark.parametrize("case", TOGETHER)
def test_two_arrays_that_share_memory(case: str) -> None:
    arrays, (second, first) = TOGETHER[case]
    with pytest.raises(ValueError) as caught:
        _sharing.distinct("params", arrays)
    assert str(caught.value).startswith(f"params[{second}] shares memory with params[{first}]: ")
    with pytest.raises(ValueError, match="shares memory with"):
        _sharing.distinct("params", arrays[::-1])


@pytest.mark.parametrize("case", ITSELF)
def test_an_array_whose_elements_share_memory(case: str) -> None:
    with pytest.raises(ValueError) as caught:
        _sharing.distinct("params", [np.zeros(1), ITSELF[case]])
    text = str(caught.value)
    assert text.startswith("params[1] has elements that share memory")
    assert "the array that it is a view of" in text


def test_the_caller_s_own_names() -> None:
    with pytest.raises(ValueError, match=r"^b shares memory with a: "):
        _sharing.distinct("grads", {"a": A, "b": A})
    with pytest.raises(ValueError, match=r"^grads has elements"):
        _sharing.distinct("grads", {"grads": as_strided(A, (2,), (0,))})


def distinct(arrays: list[Array]) -> bool:
    try:
        _sharing.distinct("params", arrays)
    except ValueError:
        return False
    return True


def bytes_of(a: Array) -> list[int]:
    start = a.__array_interface__["data"][0]
    return [
        start + sum(i * s for i, s in zip(at, a.strides, strict=True)) + k
        for at in np.ndindex(a.shape)
        for k in range(a.itemsize)
    ]


def test_by_counting_bytes() -> None:
    rng = np.random.default_rng(0)
    seen: list[bool] = []

    def view() -> Array:
        shape = tuple(map(int, rng.integers(0, 4, int(rng.integers(0, 4)))))
        steps = tuple(4 * int(s) for s in rng.integers(-4, 5, len(shape)))
        return as_strided(A[12:], shape, steps)

    for count in itertools.chain([1] * 500, [2] * 500, [3] * 200):
        arrays = [view() for _ in range(count)]
        used = [place for a in arrays for place in bytes_of(a)]
        seen.append(len(set(used)) == len(used))
        assert distinct(arrays) == seen[-1], [(a.shape, a.strides) for a in arrays]
    assert 100 < sum(seen) < len(seen) - 100  # both happen
