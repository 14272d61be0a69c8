"""The embedding: `embedding_forward`, `embedding_backward` and the layer `Embedding`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from .. import _checks, _core, _tapes, reference
from .._attributes import Checks
from ..config import current_backend, current_threads
from ..reference.embedding import (
    EmbeddingGradients,
    EmbeddingTape,
    embedding_arguments,
    embedding_backward_arguments,
    embedding_tape,
    stored_tape,
)
from .frozen_linear import FreezableEmbedding
from .weights import Weighted, Weights, copied_gradients

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]


def embedding_forward(
    indices: ArrayLike, weight: Array, *, record: bool = True, check: bool = False
) -> tuple[Array, EmbeddingTape | MaybeNone]:
    """Pick rows of a matrix.

    Parameters
    ----------
    indices : integer array or sequence
        Any shape, of any integer type; ``0 <= index < V``. Negative ones do not count from the
        end.
    weight : ndarray
        (V, D); float32 or float64.
    record : bool
        Whether to return a tape for `embedding_backward`.
    check : bool
        Whether the tape should notice, when it is used, that weight or output was changed. The
        gradient depends on neither: it is for finding mistakes.

    Returns
    -------
    output : ndarray
        The indices' shape with D appended: a copy of the row of each.
    tape : EmbeddingTape or None
        For `embedding_backward`. It holds a copy of the indices; with `check` it refers to weight
        and output too.

    Raises
    ------
    TypeError
        If the indices are not integers, or weight is not an ndarray of float32 or float64.
    ValueError
        If an index is out of range, or a shape does not fit.

    See Also
    --------
    fastrnn.reference.embedding_forward : the same function.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> output, tape = fastrnn.embedding_forward([2, 0], np.array([[0.0], [1.0], [2.0]]))
    >>> output
    array([[2.],
           [0.]])
    """
    if current_backend.get() == "reference":
        return reference.embedding_forward(indices, weight, record=record, check=check)
    picked, weight = embedding_arguments(indices, weight)
    record, check = _checks.flag("record", record), _checks.flag("check", check)
    output = weight.take(picked, axis=0)
    return output, embedding_tape(picked, weight, output, check) if record else None


def embedding_backward(
    tape: EmbeddingTape, d_output: Array, *, wrt: Collection[str] | None = None
) -> EmbeddingGradients:
    """Gradient of an embedding: the sum, for every row of weight, over where it was picked.

    Parameters
    ----------
    tape : EmbeddingTape
        From `embedding_forward`, of either backend. It is not changed.
    d_output : ndarray
        The loss's gradient with respect to output, of output's shape and dtype.
    wrt : collection of str, optional
        ("weight",) or (). None: all.

    Returns
    -------
    EmbeddingGradients
        A named tuple (weight,): (V, D), zero where no index picked a row. Each element is summed
        in float64, in the order of the indices, and rounded once, whatever the number of threads.

    Raises
    ------
    TypeError, ValueError
        If the tape is not one of `embedding_forward`, or an argument does not fit.
    RuntimeError
        If the tape was made with ``check=True`` and weight or output has changed.
    MemoryError
        If there is no memory for the result.

    See Also
    --------
    fastrnn.reference.embedding_backward : the same in plain NumPy.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> output, tape = fastrnn.embedding_forward([1, 1], np.array([[0.0], [1.0]]))
    >>> fastrnn.embedding_backward(tape, np.array([[3.0], [4.0]])).weight
    array([[0.],
           [7.]])
    """
    return _embedding_backward(tape, d_output, wrt, None)


def _embedding_backward(
    tape: Any, d_output: Any, wrt: Any, into: Array | None
) -> EmbeddingGradients:
    """embedding_backward; the gradient is written to `into` where that is given."""
    if current_backend.get() == "reference":
        grads = reference.embedding_backward(tape, d_output, wrt=wrt)
        if into is not None:
            into[...] = grads.weight
            grads = EmbeddingGradients(into)
        return grads
    indices, shape, dtype, d, wanted = embedding_backward_arguments(tape, d_output, wrt)
    if not wanted:
        return EmbeddingGradients(None)
    d_weight = np.empty(shape, dtype) if into is None else into
    if d_weight.shape != shape or d_weight.dtype != dtype:
        raise ValueError(_checks.RESHAPED)
    if d_weight.size:
        _core.embedding_backward(indices, d, d_weight, current_threads.get())
    return EmbeddingGradients(d_weight)


@_tapes.changed_in_place
class EmbeddingLayerGradients(NamedTuple):
    """What Embedding.backward returns; None where `wrt` leaves it out.

    Attributes
    ----------
    weights : mapping of str to ndarray
        "weight" (V, D), a view into `flat_weights`; empty where it was not asked for.
    flat_weights : ndarray or None
        (V·D,): the same, laid out like the layer's own.
    """

    weights: Weights
    flat_weights: Array | MaybeNone

    def __reduce__(self) -> Any:
        return copied_gradients(self)


def _index(name: str, value: Any) -> int | None:
    return None if value is None else _checks.size(name, value, -_checks.MAX_ELEMENTS)


class Embedding(FreezableEmbedding, Weighted):
    """A table of vectors, one for each index.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        V, how many vectors, and D, their length.
    padding_idx : int, optional
        The index that padding has; below zero it counts from V. Its vector is zero at first, and
        its gradient is always zero, so that it stays zero. A tied output layer has a gradient
        there too, as in PyTorch, which moves it.
    dtype : {"float32", "float64"}
        Of the vectors.
    rng : optional
        Anything that `numpy.random.default_rng` takes: a seed, a Generator, or None.

    Attributes
    ----------
    num_embeddings, embedding_dim : int
    padding_idx : int or None
        As given, but counted from zero; fixed.
    dtype : numpy.dtype
        float32 or float64, of the weights and of all arrays; fixed.
    weights : mapping of str to ndarray
        The weights by their names, views into `flat_weights`. They are changed by writing their
        elements, ``layer.weights["weight"][...] = 0``.
    flat_weights : ndarray
        (n,): all n weights in one aligned array, as optimisers take it; changed in the same way.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    The weight, "weight" (V, D), is drawn from the standard normal distribution, as in PyTorch.
    `Linear.tied` makes an output layer that has the same weight.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> embedding = fastrnn.Embedding(10, 3, rng=0)
    >>> output, tape = embedding.forward(np.array([[1, 2], [3, 1]]))
    >>> output.shape
    (2, 2, 3)
    >>> grads = embedding.backward(tape, np.ones_like(output))
    >>> embedding.flat_weights[...] -= 0.1 * grads.flat_weights
    """

    _fixed: ClassVar[Checks] = {
        "num_embeddings": _checks.size, "embedding_dim": _checks.size, "padding_idx": _index,
    }  # fmt: skip
    _later = ("padding_idx",)

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None = None  # of layers that were pickled before there was such a thing

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike = "float32",
        rng: Any = None,
    ) -> None:
        with self._all_or_nothing():
            self._configure(
                num_embeddings=num_embeddings,
                embedding_dim=embedding_dim,
                padding_idx=padding_idx,
            )
            self._allocate(_checks.float_dtype("dtype", dtype))
            # Drawn in float64 and rounded, so that one seed means one network in both types.
            view = self._weights["weight"]
            view[...] = _checks.generator("rng", rng).standard_normal(view.shape)
            if self.padding_idx is not None:
                view[self.padding_idx] = 0

    def _configure(self, **arguments: Any) -> None:
        super()._configure(**arguments)
        count, index = self.num_embeddings, self.padding_idx
        if index is not None:
            if not -count <= index < count:
                raise ValueError(
                    f"padding_idx is {index}, expected -num_embeddings <= padding_idx < "
                    f"num_embeddings = {count}"
                )
            self._set_all({"padding_idx": index % count})

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def __call__(self, indices: ArrayLike) -> Array:
        """Return the vectors of the indices.

        Parameters
        ----------
        indices : integer array or sequence
            Any shape; ``0 <= index < num_embeddings``.

        Returns
        -------
        ndarray
            The indices' shape with embedding_dim appended; the layer's dtype.

        Raises
        ------
        TypeError, ValueError
            If the indices are no integers, or one is out of range.

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.Embedding(10, 3, rng=0)([[1, 2], [3, 1]]).shape
        (2, 2, 3)
        """
        return embedding_forward(indices, self._weights["weight"], record=False)[0]

    def forward(self, indices: ArrayLike, *, check: bool = False) -> tuple[Array, EmbeddingTape]:
        """Return the vectors of the indices, and a tape for `backward`.

        Parameters
        ----------
        indices : integer array or sequence
            Any shape; ``0 <= index < num_embeddings``.
        check : bool
            Whether the tape should notice, when it is used, that the weight or output was changed.

        Returns
        -------
        output : ndarray
            The indices' shape with embedding_dim appended.
        tape : EmbeddingTape
            For `backward`.

        Raises
        ------
        TypeError, ValueError
            If the indices are no integers, or one is out of range.

        Examples
        --------
        >>> import fastrnn
        >>> embedding = fastrnn.Embedding(10, 3, rng=0)
        >>> output, tape = embedding.forward([1, 2], check=True)
        >>> output.shape
        (2, 3)
        """
        output, tape = embedding_forward(indices, self._weights["weight"], check=check)
        assert tape is not None
        return output, tape

    def backward(
        self, tape: EmbeddingTape, d_output: Array, *, wrt: Collection[str] | None = None
    ) -> EmbeddingLayerGradients:
        """Gradient of the weight.

        Parameters
        ----------
        tape : EmbeddingTape
            From this layer's `forward`. It is not changed.
        d_output : ndarray
            The loss's gradient with respect to output, of its shape and dtype.
        wrt : collection of str, optional
            ("weights",), ("weight",) or (). None: all.

        Returns
        -------
        EmbeddingLayerGradients
            ``.weights`` (a mapping) and ``.flat_weights``.

        Raises
        ------
        TypeError, ValueError
            If the tape is of a layer of another shape or dtype (the gradient depends on nothing
            else of a layer), or an argument does not fit.
        RuntimeError
            If the tape was made with ``check=True`` and the weight or output has changed.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> embedding = fastrnn.Embedding(3, 1, rng=0)
        >>> output, tape = embedding.forward([0, 2, 2])
        >>> embedding.backward(tape, np.ones_like(output)).flat_weights
        array([1., 0., 2.], dtype=float32)
        """
        return self._backward(tape, d_output, wrt)

    def _backward(
        self, tape: Any, d_output: Any, wrt: Any, flat: Array | None = None
    ) -> EmbeddingLayerGradients:
        """backward; the gradient of the weight is written to `flat` where that is given."""
        tape = stored_tape(tape, "Embedding.forward")
        shape = (self.num_embeddings, self.embedding_dim)
        if tape.shape != shape or tape.dtype != self.dtype:
            raise ValueError(
                f"tape is of another layer: its weight is {tape.dtype} {tape.shape}, "
                f"this layer's is {self.dtype} {shape}"
            )
        wanted = _checks.names("wrt", wrt, ("weights", "weight"))
        flat, views = self._weight_gradients(wanted, flat)
        _embedding_backward(tape, d_output, tuple(views), views.get("weight"))
        if views and self.padding_idx is not None:
            views["weight"][self.padding_idx] = 0
        return EmbeddingLayerGradients(views, flat)
