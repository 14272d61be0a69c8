"""The embedding in plain NumPy: the specification of `fastrnn.embedding_forward` and backward."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class EmbeddingGradients(NamedTuple):
    """What embedding_backward returns: the gradient, or None where `wrt` leaves it out."""

    weight: Array | None


class _EmbeddingTapeFields(NamedTuple):
    indices: Array
    shape: tuple[int, int]  # of weight
    dtype: Any


class EmbeddingTape(_tapes.Tape, _EmbeddingTapeFields):
    """What embedding_forward keeps for embedding_backward: its own copy of the indices."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"EmbeddingTape(indices {self.indices.shape}, {self.shape}, {self.dtype})"


def embedding_forward(
    indices: ArrayLike, weight: Array, *, record: bool = True
) -> tuple[Array, EmbeddingTape | None]:
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
    record = _checks.flag("record", record)
    tape = EmbeddingTape(indices, weight.shape, weight.dtype) if record else None
    return weight[indices], tape


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
    d, wanted = embedding_backward_arguments(tape, d_output, wrt)
    if not wanted:
        return EmbeddingGradients(None)
    d_weight = np.zeros(tape.shape)
    with np.errstate(all="ignore"):
        np.add.at(d_weight, tape.indices.ravel(), d)
        return EmbeddingGradients(d_weight.astype(tape.dtype, copy=False))


def embedding_arguments(indices: Any, weight: Any) -> tuple[Array, Array]:
    """Check the arguments of embedding_forward; the indices as an int64 array of its own."""
    weight = _checks.array("weight", weight)
    _checks.shape("weight", weight.shape, ("V", "D"), {})
    # A copy, and checked after it was made: backward trusts it.
    indices = _checks.integers("indices", indices, "integers")
    indices.flags.writeable = False
    _checks.in_range("indices", indices, len(weight), "V")
    _checks.elements(N=indices.size, D=weight.shape[1])
    return indices, weight


def embedding_backward_arguments(
    tape: Any, d_output: Any, wrt: Any
) -> tuple[Array, frozenset[str]]:
    """Check the arguments of embedding_backward; d_output as rows (N, D), the fields to fill."""
    _checks.tape(tape, EmbeddingTape, "embedding_forward")
    # The kernel writes where the indices point, so a tape is not believed either.
    flags = tape.indices.flags
    if (
        tape.indices.dtype != np.int64
        or not (flags.c_contiguous and flags.aligned)
        or len(tape.shape) != 2
        or tape.dtype not in (_checks.FLOAT32, _checks.FLOAT64)
    ):
        raise ValueError(_checks.RESHAPED)
    _checks.in_range("indices", tape.indices, tape.shape[0], "V")
    wanted = _checks.names("wrt", wrt, EmbeddingGradients._fields)
    shape = (*tape.indices.shape, tape.shape[1])
    return _checks.rows_gradient("d_output", d_output, shape, tape.dtype), wanted
