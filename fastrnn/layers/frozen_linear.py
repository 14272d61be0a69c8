"""Frozen output layers and embeddings, and what makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import _checks, _core
from ..config import current_backend, current_threads
from .frozen import Frozen

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class FrozenLinear(Frozen):
    """An output layer that does not change, with packed weights: made by ``layer.freeze()``.

    It is called like the layer and returns its bits. Nothing of it changes, so any number of
    threads may share it, and copies are the object itself. A pickle holds the plain weights.

    Parameters
    ----------
    layer : Linear
        One that is tied is frozen with a copy of the embedding's weight.
    precision : str, optional
        As for the layer's `freeze`.

    Attributes
    ----------
    precision : str
        "float32" or "float64".
    nbytes : int
        The bytes of its weights, plain and packed.
    in_features, out_features, bias, dtype
        Those of the layer; none can be set.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> head = fastrnn.Linear(4, 2, rng=0)
    >>> frozen, x = head.freeze(), np.ones((5, 3, 4), np.float32)
    >>> frozen
    Linear(4, 2).freeze()
    >>> bool((frozen(x) == head(x)).all())
    True
    """

    _freezes: ClassVar[str] = "a Linear"
    in_features: int
    out_features: int
    bias: bool

    def _pack(self) -> tuple[Any, ...]:
        weights = self._layer.weights
        return (_core.PackedLinear(weights["weight"], weights.get("bias")),)

    def __call__(self, x: Array) -> Array:
        """Return y = W x + b, with the weights as they were when the layer was frozen.

        Parameters
        ----------
        x : ndarray
            (..., D), any leading axes; the layer's dtype.

        Returns
        -------
        ndarray
            (..., O).

        Raises
        ------
        TypeError, ValueError
            If x is no array of the layer's dtype, or its last axis is not D.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> fastrnn.Linear(4, 2, rng=0).freeze()(np.ones((5, 3, 4), np.float32)).shape
        (5, 3, 2)
        """
        layer = self._layer
        if current_backend.get() == "reference":
            made: Array = layer(x)
            return made
        rows = _checks.as_rows(layer._checked_x(x))
        _checks.elements(N=len(rows), O=layer.out_features)
        output = np.empty((len(rows), layer.out_features), rows.dtype)
        if output.size:
            _core.packed_linear_forward(self._current()[0], rows, output, current_threads.get())
        return output.reshape(*x.shape[:-1], layer.out_features)


class FrozenEmbedding(Frozen):
    """An embedding that does not change: made by ``layer.freeze()``.

    It is a read-only copy, and called like the layer. Nothing of an embedding is packed.

    Parameters
    ----------
    layer : Embedding
    precision : str, optional
        As for the layer's `freeze`.

    Attributes
    ----------
    precision : str
        "float32" or "float64".
    nbytes : int
        The bytes of its weight.
    num_embeddings, embedding_dim, padding_idx, dtype
        Those of the layer; none can be set.

    Examples
    --------
    >>> import fastrnn
    >>> words = fastrnn.Embedding(10, 3, rng=0)
    >>> frozen = words.freeze()
    >>> bool((frozen([1, 2]) == words([1, 2])).all())
    True
    """

    _freezes: ClassVar[str] = "an Embedding"
    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None

    def __call__(self, indices: ArrayLike) -> Array:
        """Return the vectors of the indices, as they were when the layer was frozen.

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
        >>> fastrnn.Embedding(10, 3, rng=0).freeze()([[1, 2], [3, 1]]).shape
        (2, 2, 3)
        """
        made: Array = self._layer(indices)
        return made


class FreezableLinear:
    """Mixed into an output layer: what it makes for inference."""

    _frozen_kind: ClassVar[type[Frozen]] = FrozenLinear

    def freeze(self, precision: str | None = None) -> FrozenLinear:
        """Make a frozen layer: this one as it is now, for inference, with weights packed once.

        It pays where the same weights are used in many calls of few positions, in which packing
        takes as long as the work.

        Parameters
        ----------
        precision : {"float32", "float64"}, optional
            Of the packed weights: the layer's own dtype, which None stands for.

        Returns
        -------
        FrozenLinear
            Called like the layer, with its bits: ``output = frozen(x)``. It never changes, and
            threads may share it.

        Raises
        ------
        TypeError, ValueError
            If the precision is another one, or the layer's class calls it in a way of its own.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> head = fastrnn.Linear(4, 2, rng=0)
        >>> frozen, x = head.freeze(), np.ones((3, 4), np.float32)
        >>> bool((frozen(x) == head(x)).all())
        True
        """
        return FrozenLinear(self, precision)  # type: ignore[arg-type]


class FreezableEmbedding:
    """Mixed into an embedding: what it makes for inference."""

    _frozen_kind: ClassVar[type[Frozen]] = FrozenEmbedding

    def freeze(self, precision: str | None = None) -> FrozenEmbedding:
        """Make a frozen layer: a read-only copy of this one as it is now, for inference.

        Parameters
        ----------
        precision : {"float32", "float64"}, optional
            The layer's own dtype, which None stands for.

        Returns
        -------
        FrozenEmbedding
            Called like the layer. It never changes, and threads may share it.

        Raises
        ------
        TypeError, ValueError
            If the precision is another one, or the layer's class calls it in a way of its own.

        Examples
        --------
        >>> import fastrnn
        >>> words = fastrnn.Embedding(10, 3, rng=0)
        >>> bool((words.freeze()([1, 2]) == words([1, 2])).all())
        True
        """
        return FrozenEmbedding(self, precision)  # type: ignore[arg-type]
