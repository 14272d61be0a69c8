"""The embedding in plain NumPy: the specification of `fastrnn.embedding_forward` and backward."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]


_INT64 = np.dtype(np.int64)


@_tapes.changed_in_place
class EmbeddingGradients(NamedTuple):
    """What embedding_backward returns: the gradient, or None where `wrt` leaves it out.

    Attributes
    ----------
    weight : ndarray or None
        (V, D): of each row the sum over where it was picked.
    """

    weight: Array | MaybeNone


class _EmbeddingTapeFields(NamedTuple):
    indices: Array
    shape: tuple[int, int]
    dtype: Any
    weight: Array | None = None
    output: Array | None = None
    digests: _tapes.Digests | None = None


class EmbeddingTape(_tapes.Tape, _EmbeddingTapeFields):
    """What embedding_forward keeps for embedding_backward: its own copy of the indices.

    With ``check=True`` it refers to weight and output too.

    Attributes
    ----------
    indices : ndarray
        Of the shape given to forward, int64.
    shape : tuple of int
        (V, D), of weight.
    dtype : numpy.dtype
        Of weight.
    weight, output : ndarray or None
    digests : tuple or None
        With ``check=True`` alone: to notice a change of them.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"EmbeddingTape(indices {self.indices.shape}, {self.shape}, {self.dtype})"


def embedding_forward(
    indices: ArrayLike, weight: Array, *, record: bool = True, check: bool = False
) -> tuple[Array, EmbeddingTape | MaybeNone]:
    """Pick rows of a matrix, in plain NumPy: see `fastrnn.embedding_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> output, tape = reference.embedding_forward([2, 0], np.array([[0.0], [1.0], [2.0]]))
    >>> output
    array([[2.],
           [0.]])
    """
    indices, weight = embedding_arguments(indices, weight)
    record, check = _checks.flag("record", record), _checks.flag("check", check)
    output = weight[indices]
    return output, embedding_tape(indices, weight, output, check) if record else None


def embedding_backward(
    tape: EmbeddingTape, d_output: Array, *, wrt: Collection[str] | None = None
) -> EmbeddingGradients:
    """Gradient of an embedding, in plain NumPy: see `fastrnn.embedding_backward`.

    Row v of the gradient is the sum of the rows of d_output whose index is v: from +0, in the order
    of the indices, in float64, and rounded once.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> output, tape = reference.embedding_forward([1, 1], np.array([[0.0], [1.0]]))
    >>> reference.embedding_backward(tape, np.array([[3.0], [4.0]])).weight
    array([[0.],
           [7.]])
    """
    indices, shape, dtype, d, wanted = embedding_backward_arguments(tape, d_output, wrt)
    if not wanted:
        return EmbeddingGradients(None)
    d_weight = np.zeros(shape)
    with np.errstate(all="ignore"):
        np.add.at(d_weight, indices.ravel(), d)
        return EmbeddingGradients(d_weight.astype(dtype, copy=False))


def _for_padding(indices: Array) -> str:
    """The cure where what is wrong are labels of padding, such as -100."""
    negative = indices[indices < 0]
    if not negative.size or (negative != negative[0]).any():
        return ""
    return ": pass np.maximum(indices, 0), if a mask leaves these positions out"


def embedding_arguments(indices: Any, weight: Any) -> tuple[Array, Array]:
    """Check the arguments of embedding_forward; the indices as an int64 array of its own."""
    weight = _checks.array("weight", weight)
    _checks.shape("weight", weight.shape, ("V", "D"), {})
    # A copy, and checked after it was made: backward trusts it.
    indices = _checks.integers("indices", indices, "integers", len(weight), True)
    indices.flags.writeable = False
    _checks.in_range("indices", indices, len(weight), "V", partial(_for_padding, indices))
    _checks.elements(N=indices.size, D=weight.shape[1])
    return indices, weight


def embedding_tape(indices: Array, weight: Array, output: Array, check: bool) -> EmbeddingTape:
    """The tape of embedding_forward."""
    tape = EmbeddingTape(indices, weight.shape, weight.dtype)
    if not check:
        return tape
    digests = _tapes.digests(weight=weight, output=output)
    return tape._replace(weight=weight, output=output, digests=digests)


def stored_tape(value: Any, function: str) -> EmbeddingTape:
    """The tape in the class that forward makes."""
    _checks.tape(value, EmbeddingTape, function)
    tape: EmbeddingTape = _tapes.as_made(value)
    return tape


def embedding_backward_arguments(
    tape: Any, d_output: Any, wrt: Any
) -> tuple[Array, tuple[int, int], np.dtype[Any], Array, frozenset[str]]:
    """Check the arguments of embedding_backward.

    Returns
    -------
    tuple
        The indices, shape and dtype of the tape, read once; d_output as rows (N, D); what to fill.
    """
    tape = stored_tape(tape, "embedding_forward")
    indices, shape, dtype, _, _, digests = tape
    # The kernel writes where the indices point, so a tape is not believed either.
    if isinstance(indices, np.ndarray):
        indices = np.asarray(indices)  # a subclass may name another shape than it has
    if (
        type(indices) is not np.ndarray
        or indices.dtype != _INT64
        or not (indices.flags.c_contiguous and indices.flags.aligned)
        or type(shape) is not tuple
        or len(shape) != 2
        or not type(shape[0]) is type(shape[1]) is int
        or min(shape) < 0
        or dtype not in (_checks.FLOAT32, _checks.FLOAT64)
    ):
        raise ValueError(_checks.RESHAPED)
    dtype = _checks.FLOAT32 if dtype == _checks.FLOAT32 else _checks.FLOAT64
    wanted = _checks.names("wrt", wrt, EmbeddingGradients._fields)
    d = _checks.rows_gradient("d_output", d_output, (*indices.shape, shape[1]), dtype)
    indices = indices.copy()  # C writes where they point: nobody else has these
    _checks.in_range("indices", indices, shape[0], "V")
    if digests is not None:
        _tapes.unchanged(tape)
    return indices, shape, dtype, d, wanted
