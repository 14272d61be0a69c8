"""Frozen recurrent layers, and what makes them: freeze() and stream() of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from .. import _core
from ..config import current_backend
from .frozen import Frozen
from .stack import packable
from .stream import Stream
from .tape import State

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class FrozenRecurrent(Frozen, Generic[State]):
    """A recurrent layer that does not change, with packed weights: made by ``layer.freeze()``.

    It is called like the layer and returns its bits. Nothing of it changes, so any number of
    threads may share it, and copies are the object itself. A pickle holds the plain weights.

    Parameters
    ----------
    layer : RNN, LSTM, GRU or LeakyRNN
    precision : str, optional
        As for the layer's `freeze`.

    Attributes
    ----------
    precision : str
        "float32" or "float64".
    nbytes : int
        The bytes of its weights, plain and packed.
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, reverse, dtype
        Those of the layer, and so are the others that say what it is; none can be set.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.GRU(3, 4, num_layers=2, bidirectional=True, rng=0)
    >>> frozen, x = layer.freeze(), np.ones((5, 2, 3), np.float32)
    >>> frozen
    GRU(3, 4, num_layers=2, bidirectional=True).freeze()
    >>> bool((frozen(x, lengths=[5, 3])[0] == layer(x, lengths=[5, 3])[0]).all())
    True
    """

    _freezes: ClassVar[str] = "a recurrent layer"
    input_size: int | None
    hidden_size: int
    num_layers: int
    bias: bool | Literal["single"]
    batch_first: bool
    dropout: float
    bidirectional: bool
    reverse: bool

    def _pack(self) -> tuple[Any, ...]:
        return _core.pack(*self._layer._packable(self._layer.dtype))

    def __call__(
        self,
        x: Array,
        state: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        restart: ArrayLike | None = None,
    ) -> tuple[Array, State]:
        """Run the layer as it was when it was frozen.

        Parameters
        ----------
        x, state, lengths, mask, restart
            As for a call of the layer.

        Returns
        -------
        output, state
            As from a call of the layer, with its bits.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> frozen = fastrnn.LSTM(3, 4, rng=0).freeze()
        >>> output, (h, c) = frozen(np.ones((5, 2, 3), np.float32))
        >>> output.shape, h.shape
        ((5, 2, 4), (1, 2, 4))
        """
        layer = self._layer
        if lengths is mask is restart is None and current_backend.get() == "compiled":
            done = layer._fast_path(x, state, self._packed[0])
            if done is not None:
                return done  # type: ignore[no-any-return]
        packed = self._current()
        output, final, _ = layer._run(x, state, lengths, mask, restart, None, None, packed=packed)
        return output, final

    def stream(self, batch_size: int = 1) -> Stream[State]:
        """A stream: this layer step by step, with a state of its own and these packed weights.

        Parameters
        ----------
        batch_size : int
            How many sequences run side by side.

        Returns
        -------
        Stream
            Its state is zero. All streams of a frozen layer share its packed weights, and have no
            ``update()``.

        Raises
        ------
        ValueError
            If the layer is bidirectional or runs in reverse: its output depends on steps to come.

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.GRU(3, 4).freeze().stream(batch_size=2).state.shape
        (1, 2, 4)
        """
        return Stream(self, batch_size)


class Freezable(Generic[State]):
    """Mixed into a recurrent layer: what it makes for inference."""

    _frozen_kind: ClassVar[type[Frozen]] = FrozenRecurrent

    if TYPE_CHECKING:
        _cell: Any
        _directions: list[tuple[Any, ...]]
        _ways: tuple[bool, ...]

        @property
        def _options(self) -> tuple[Any, ...]: ...

    def freeze(self, precision: str | None = None) -> FrozenRecurrent[State]:
        """Make a frozen layer: this one as it is now, for inference, with weights packed once.

        It pays where the same weights are used in many calls of few time steps or rows, in which
        packing takes as long as the work. It takes memory: a copy of the weights, and the packed
        ones, which are a little larger; see its `nbytes`.

        Parameters
        ----------
        precision : {"float32", "float64"}, optional
            Of the packed weights: the layer's own dtype, which None stands for.

        Returns
        -------
        FrozenRecurrent
            Called like the layer, with its bits: ``output, state = frozen(x, state)``. It never
            changes, and threads may share it.

        Raises
        ------
        TypeError, ValueError
            If the precision is another one, or the layer's class calls it in a way of its own.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.LSTM(3, 4, rng=0)
        >>> frozen = layer.freeze()
        >>> x = np.ones((5, 2, 3), np.float32)
        >>> bool((frozen(x)[0] == layer(x)[0]).all())
        True
        """
        return FrozenRecurrent(self, precision)  # type: ignore[arg-type]

    def stream(self, batch_size: int = 1) -> Stream[State]:
        """A stream: this layer step by step, with a state of its own and packed weights.

        It is ``layer.freeze().stream(batch_size)``, but that it can freeze the layer again.

        Parameters
        ----------
        batch_size : int
            How many sequences run side by side.

        Returns
        -------
        Stream
            Its state is zero; it has a snapshot of the weights, which ``stream.update()`` renews.

        Raises
        ------
        ValueError
            If the layer is bidirectional or runs in reverse: its output depends on steps to come.

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.GRU(3, 4).stream(batch_size=2).state.shape
        (1, 2, 4)
        """
        return Stream(self, batch_size)

    def _packable(self, dtype: np.dtype[Any]) -> tuple[int, list[tuple[Any, ...]]]:
        """What `_core.pack` takes: the kernel's number of the cell, and the weights, checked."""
        return packable(self._cell, self._options, self._directions, len(self._ways), dtype)
