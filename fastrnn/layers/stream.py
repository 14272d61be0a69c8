"""Streams: layers that keep packed weights and a state, for one time step after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn

import numpy as np

from .. import _checks, _core, _cures
from .._attributes import Guarded
from .._cures import Role
from ..cells import CELLS
from ..config import current_threads
from .frozen import Frozen
from .tape import State, sequence_axes, state_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class Stream(Guarded, _core.StreamCore, Generic[State]):
    """A layer that is fed step by step: made by ``layer.stream(batch_size)``.

    It has the weights of a frozen layer, packed, and the state of `batch_size` sequences. Streams
    of one frozen layer share its packed weights; a stream that a layer makes freezes that. It
    returns the bits of the layer on the whole sequence, however that is cut. A stream is compiled
    code on either backend, stays with the instruction set for which its weights are packed, and
    belongs to one thread at a time.

    Parameters
    ----------
    layer : RNN, LSTM, GRU or LeakyRNN
        Of any number of layers, but one direction; or a frozen one.
    batch_size : int
        B: how many sequences run side by side.

    Attributes
    ----------
    state : ndarray, or of an LSTM a pair of them
        After the last step, as the layer returns it: h (layers, B, P) and c (layers, B, H); P is H
        without a projection. Reading gives a copy; it can be set, and is then checked and copied.

    Raises
    ------
    ValueError
        If the layer is bidirectional or runs in reverse: its output depends on steps to come.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.LSTM(3, 4, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    >>> stream = layer.stream()
    >>> y = np.stack([stream.step(x_t) for x_t in x])
    >>> bool((y == layer(x)[0]).all())
    True
    """

    def __init__(self, layer: Any, batch_size: int = 1) -> None:
        if self._count:
            raise RuntimeError("this stream is made already: make another with layer.stream()")
        # A stream of a frozen layer has its packed weights, and of the snapshot only the options.
        self._made_of = layer
        self._layer = plain = layer._layer if isinstance(layer, Frozen) else layer
        name = type(plain).__name__
        if not hasattr(type(plain), "_packable"):
            layers = _checks.listed([cell.spec.layer for cell in CELLS.values()])
            raise TypeError(f"layer is {_cures.kind(layer)}, expected {_cures.an(layers)}")
        if plain.bidirectional or plain.reverse:
            way = "runs in reverse" if plain.reverse else "is bidirectional"
            raise ValueError(
                f"{name} {way}: its output depends on steps to come, so it has no stream"
            )
        batch_size = _checks.size("batch_size", batch_size, 0)
        self._dtype = plain.dtype
        self._shapes: list[Any] = []
        self._kind: tuple[Any, ...] = ()
        packed = self._read() if plain is layer else layer._current()
        _checks.elements(layers=len(packed), batch_size=batch_size, H=plain.hidden_size)
        self._allocate(packed, batch_size, current_threads)

    def _read(self) -> tuple[Any, ...]:
        """The layer's weights as they are now, packed; they must not change shape."""
        kernel, weights = self._layer._packable(self._dtype)
        kind = _core.CELLS[kernel][3:5]
        if kind != (self._kind or kind):
            raise ValueError(
                "the layer has another kind of state than when the stream was made: make another "
                "with layer.stream()"
            )
        shapes = [
            [None if w is None else w.shape for w in (*four, *extra)] for *four, extra in weights
        ]
        if shapes != (self._shapes or shapes):
            raise ValueError("the layer's weights have other shapes than when the stream was made")
        self._kind, self._shapes = kind, shapes
        return _core.pack(kernel, weights)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream cannot be copied or pickled: make another, and assign its state")

    def __repr__(self) -> str:
        return f"Stream({self._made_of!r}, batch_size={self._batch})"

    def run(self, x: Array, restart: ArrayLike | None = None) -> Array:
        """Take several steps at once.

        Parameters
        ----------
        x : ndarray
            (T, B, D), or (B, T, D) if the layer is `batch_first`, or (T, D) where B = 1.
        restart : boolean array, optional
            The reset mask, (T, B), (B, T) or (T,), like x: where true, the state before that step
            is zero.

        Returns
        -------
        ndarray
            (T, B, P), (B, T, P) or (T, P): the last layer's output at every step.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it, and the state is as before. So it is
            where Ctrl-C ends the call before it is done.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> stream = fastrnn.GRU(3, 4, rng=0).stream()
        >>> stream.run(np.ones((5, 3), np.float32)).shape
        (5, 4)
        """
        batch, units, batch_first = self._batch, self._units, self._layer.batch_first
        _, letters, why = self._layer._x_axis
        role = Role(sequence=True, features=self._features, batch_first=batch_first, padded="")
        x = _checks.array("x", x, self._dtype, "the layer", role)
        first, second, _ = sequence_axes(batch_first, False, letters)
        alone = _checks.sequence_axes(x, first, second, self._features) and batch == 1
        axes = sequence_axes(batch_first, alone, letters)
        _checks.shape("x", x.shape, axes, {"B": batch, letters: self._features}, why)
        if restart is not None:
            sizes = dict(zip(axes, x.shape, strict=True))
            restart = _checks.restart_array(restart, axes[:-1], sizes)
            restart = np.ascontiguousarray(restart.T if batch_first else restart).reshape(-1, batch)
        x = x[:, None] if alone else x.swapaxes(0, 1) if batch_first else x
        steps = len(x)
        _checks.elements(T=steps, B=batch, P=units)
        output = _core.empty_sequence(steps, batch, units, self._dtype.num, batch_first)
        # The outputs of all layers but the last, which the next ones read.
        intermediate = [np.empty_like(output, order="C") for _ in range(self._count - 1)]
        if output.size:
            self._run(_checks.strided(x), output, intermediate, restart)
        return output[:, 0] if alone else output.swapaxes(0, 1) if batch_first else output

    @property
    def state(self) -> State:
        """The state after the last step, as the layer returns it: (layers, B, H) or a pair.

        Reading gives a copy; what is assigned is checked and copied.
        """
        h, c = self._states()
        return h.copy() if c is None else (h.copy(), c.copy())  # type: ignore[return-value]

    @state.setter
    def state(self, value: State) -> None:
        h, c = self._states()
        if c is None:
            h[...] = state_array("state", value, h.dtype, h.shape, "H", optional=False)
            return
        given_h, given_c = _checks.state_pair("state", value, optional=False)
        letter = "P" if h.shape[2] < c.shape[2] else "H"
        given_h = state_array("state[0]", given_h, h.dtype, h.shape, letter)
        given_c = state_array("state[1]", given_c, c.dtype, c.shape, "H")
        h[...], c[...] = given_h, given_c

    def reset(self, rows: Any = None) -> None:
        """Make the state zero, of all sequences or of the rows that index the batch.

        Parameters
        ----------
        rows : int, slice, integer or boolean array, optional
            Which of the batch. None: all.

        Raises
        ------
        TypeError, ValueError, IndexError
            If `rows` does not index the batch; the state is as before.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> stream = fastrnn.RNN(1, 1, rng=0).stream(batch_size=3)
        >>> stream.state = np.ones((1, 3, 1), np.float32)
        >>> stream.reset([0, 2])
        >>> stream.state.ravel()
        array([0., 1., 0.], dtype=float32)
        """
        chosen: Any = slice(None)
        if rows is not None:
            try:
                if isinstance(rows, bool | np.bool_):
                    raise TypeError("a bool says nothing of a row")
                chosen = np.arange(self._batch)[rows]
            except (TypeError, ValueError, IndexError) as error:
                text = f"rows does not index a batch of {self._batch}: {error}"
                raise type(error)(text) from None
        for state in self._states():
            if state is not None:
                state[:, chosen] = 0

    def update(self) -> None:
        """Freeze the layer's weights again, as they are now; the state stays.

        Raises
        ------
        ValueError
            If they have other shapes than when the stream was made.
        RuntimeError
            If a frozen layer made the stream: it has no other weights.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.RNN(3, 4, rng=0)
        >>> stream = layer.stream()
        >>> layer.flat_weights[...] = 0
        >>> stream.update()
        >>> stream.step(np.ones(3, np.float32))
        array([0., 0., 0., 0.], dtype=float32)
        """
        if self._made_of is not self._layer:
            name = type(self._layer).__name__
            raise RuntimeError(
                f"this stream is of a frozen {name}, whose weights do not change: make another, "
                "other = layer.freeze().stream(batch_size), and write other.state = stream.state"
            )
        self._pack(self._read())

    # -------------------------------------------------------------------- for the compiled side

    def _checked_step(self, x_t: Any) -> Array:
        """x_t in the form that `step` takes, or an error."""
        x_t = _checks.array("x_t", x_t, self._dtype, "the layer")
        _, letters, why = self._layer._x_axis
        axes = (letters,) if x_t.ndim == 1 and self._batch == 1 else ("B", letters)
        sizes = {"B": self._batch, letters: self._features}
        _checks.shape("x_t", x_t.shape, axes, sizes, why)
        return _checks.contiguous(x_t)

    def _checked_out(self, out: Any, alone: bool) -> Array:
        """The memory of an `out` in the form that `step` takes, or an error."""
        axes, sizes = ("P",) if alone else ("B", "P"), {"B": self._batch, "P": self._units}
        return _checks.place("out", out, self._dtype, "the layer", axes, sizes)

    def _checked_restart(self, restart: Any) -> Array:
        """restart of one step, (B,)."""
        if isinstance(restart, bool | np.bool_):
            return np.full(self._batch, restart)
        return _checks.restart_array(restart, ("B",), {"B": self._batch})
