"""Sequences of unequal lengths: one padded array and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _checks, _cures

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


SIDES = ("right", "left")


def pad_sequence(
    sequences: Iterable[Array],
    *,
    batch_first: bool = False,
    padding_value: complex = 0,
    padding_side: str = "right",
) -> tuple[Array, Array]:
    """Put sequences of unequal lengths into one array, with zeros behind each.

    Parameters
    ----------
    sequences : list of ndarray
        B arrays (T_i, ...) of one dtype (any) that agree in all but the first axis: features
        (T_i, D), or labels (T_i,). In any order of lengths; a length may be 0.
    batch_first : bool
        Whether x is to be (B, T, ...), as a layer with ``batch_first=True`` takes it.
    padding_value : number
        What is put beside the sequences: one that their dtype can hold. ``ignore_index`` of a loss
        in the padding of labels, for instance.
    padding_side : {"right", "left"}
        Whether the padding is behind a sequence or before it. Functions, layers and losses are told
        of the latter by ``mask=np.arange(T)[:, None] >= T - lengths``, (T, B).

    Returns
    -------
    x : ndarray
        (T, B, ...), or (B, T, ...) if `batch_first`, with T the largest length; C-contiguous, of
        the sequences' dtype.
    lengths : ndarray
        (B,) of int64: with the padding behind, the ``lengths`` argument of functions and layers.

    Raises
    ------
    TypeError
        If an element is not an ndarray, or has another dtype than the first; batch_first is no
        bool; or padding_value no number.
    ValueError
        If there are no sequences, their shapes do not agree, padding_side is no side, or the
        sequences' dtype cannot hold padding_value.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x, lengths = fastrnn.pad_sequence([np.array([1.0, 2.0, 3.0]), np.array([4.0])])
    >>> x
    array([[1., 4.],
           [2., 0.],
           [3., 0.]])
    >>> lengths
    array([3, 1])
    >>> fastrnn.pad_sequence([np.array([1.0, 2.0, 3.0]), np.array([4.0])], batch_first=True)[0]
    array([[1., 2., 3.],
           [4., 0., 0.]])

    Padded on the left, and what says so to a layer:

    >>> x, lengths = fastrnn.pad_sequence(
    ...     [np.array([1.0, 2.0, 3.0]), np.array([4.0])], padding_side="left"
    ... )
    >>> x
    array([[1., 0.],
           [2., 0.],
           [3., 4.]])
    >>> np.arange(3)[:, None] >= 3 - lengths
    array([[ True, False],
           [ True, False],
           [ True,  True]])
    """
    batch_first = _checks.flag("batch_first", batch_first)
    padding_side = _checks.choice("padding_side", padding_side, SIDES)
    if isinstance(sequences, str | bytes) or not isinstance(sequences, Iterable):
        raise TypeError(f"sequences is {sequences!r}, expected a list of numpy.ndarray")
    rows = list(sequences)
    if not rows:
        raise ValueError("sequences is empty: there is nothing to tell the shape from")
    for i, row in enumerate(rows):
        if not isinstance(row, np.ndarray) or isinstance(row, np.ma.MaskedArray):
            cure = _cures.for_sequences("sequences", rows, i)
            name = f"sequences[{i}]"
            raise TypeError(f"{name} is {_cures.kind(row)}, expected a numpy.ndarray{cure}")
    for i, row in enumerate(rows):
        if row.dtype != rows[0].dtype:
            cure = _cures.for_types("sequences", rows)
            raise TypeError(
                f"sequences[{i}] is {row.dtype}, sequences[0] is {rows[0].dtype}, expected one "
                f"type{cure}"
            )
        if row.ndim == 0 or row.shape[1:] != rows[0].shape[1:]:
            rest = ", ".join(map(str, rows[0].shape[1:]))
            expected = f"(T, {rest})" if rest else "(T,)"
            raise ValueError(f"sequences[{i}] has shape {row.shape}, expected {expected}")
    lengths = np.array([len(row) for row in rows], np.int64)
    native = rows[0].dtype.newbyteorder("=")
    steps, batch = int(lengths.max()), len(rows)
    axes = (batch, steps) if batch_first else (steps, batch)
    value = _padding("padding_value", padding_value, native)
    x = np.zeros((*axes, *rows[0].shape[1:]), native)
    if value != 0:
        x[...] = value
    by_row = x if batch_first else x.swapaxes(0, 1)
    for i, row in enumerate(rows):
        by_row[i, _place(len(row), steps, padding_side)] = row
    return x, lengths


def _place(length: int, steps: int, padding_side: str) -> slice:
    """Where of the steps a sequence lies."""
    return slice(length) if padding_side == "right" else slice(steps - length, steps)


def _padding(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    """The value in this type, which can hold it; 0 is what any type has."""
    given = np.asarray(value)
    if given.ndim or given.dtype.kind not in "biufc":
        raise TypeError(
            f"{name} is {_cures.kind(value)}, expected a number that NumPy has a type for"
        )
    if given == 0:
        return given
    if dtype.kind not in "biufc":
        raise ValueError(
            f"{name} is {value}, but the sequences are {dtype}, which holds no numbers"
        )
    cure = ""
    fits = given.dtype.kind != "c" or dtype.kind == "c"
    if fits:
        with np.errstate(all="ignore"):
            held = given.astype(dtype)
        if dtype.kind in "biu":
            fits = bool(held == given)
            whole = (
                "np.int64" if given.dtype.kind in "biu" or float(given).is_integer() else "float"
            )
            cure = f": pass [s.astype({whole}) for s in sequences]"
        else:
            fits = bool(np.isfinite(held) | ~np.isfinite(given))
    if not fits:
        raise ValueError(
            f"{name} is {value}, which {dtype}, the sequences' type, cannot hold{cure}"
        )
    return held


def unpad_sequence(
    x: Array, lengths: ArrayLike, *, batch_first: bool = False, padding_side: str = "right"
) -> list[Array]:
    """Take a padded array apart again: the inverse of `pad_sequence`.

    Parameters
    ----------
    x : ndarray
        (T, B, ...), or (B, T, ...) if `batch_first`, of any dtype.
    lengths : integer sequence
        (B,), each ``0 <= length <= T``.
    batch_first : bool
        The order of the first two axes of x.
    padding_side : {"right", "left"}
        Whether what is left out is behind a sequence or before it.

    Returns
    -------
    list of ndarray
        B arrays (length, ...): contiguous copies.

    Raises
    ------
    TypeError, ValueError
        If x is not an ndarray of two axes or more, or a length does not fit; the error names it.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> fastrnn.unpad_sequence(np.array([[1.0, 4.0], [2.0, 0.0]]), [2, 1])
    [array([1., 2.]), array([4.])]
    >>> fastrnn.unpad_sequence(np.array([[1.0, 2.0], [4.0, 0.0]]), [2, 1], batch_first=True)
    [array([1., 2.]), array([4.])]
    """
    batch_first = _checks.flag("batch_first", batch_first)
    padding_side = _checks.choice("padding_side", padding_side, SIDES)
    _checks.plain_array("x", x)
    x = np.asarray(x)  # a subclass may have other ways with an index
    if x.ndim < 2:
        raise ValueError(
            f"x has shape {x.shape}, expected {'(B, T, ...)' if batch_first else '(T, B, ...)'}"
        )
    lengths = _checks.batch_lengths(lengths, x.shape, batch_first)
    by_row = x if batch_first else x.swapaxes(0, 1)
    places = (_place(int(n), by_row.shape[1], padding_side) for n in lengths)
    return [np.array(by_row[i, at], order="C", subok=False) for i, at in enumerate(places)]
