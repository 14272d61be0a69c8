"""Layers: weights with PyTorch's names, and the functions composed over them."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import ndarray

from . import _checks, _tapes, functional
from .weights import Weighted, same_weight

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Array = NDArray[Any]
    _Cell = dict[str, Array | None]

# A function's weight arguments and their names on a layer, in PyTorch's order.
_WEIGHT_NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}


class LayerGradients(NamedTuple):
    """What a layer's backward returns; None where `wrt` leaves it out.

    `weights` maps the names asked for to views into `flat_weights`, which is laid out like the
    layer's own and holds zeros for the weights that were not asked for.
    """

    x: Array | None
    state: Array | None
    weights: dict[str, Array]
    flat_weights: Array | None


class _LayerTapeFields(NamedTuple):
    layer: str
    tapes: tuple[Any, ...]


class LayerTape(_tapes.Tape, _LayerTapeFields):
    """What a layer's forward keeps for its backward: the tapes of its cells. Immutable."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"LayerTape({self.layer}: {', '.join(map(repr, self.tapes))})"


class _Recurrent(Weighted):
    """What the recurrent layers share: sizes, weights, state, the order of axes.

    A subclass says how many gates its cell has and how to run it over a sequence.
    """

    _gates = 1
    _cells: list[_Cell]

    def _configure_sizes(
        self,
        *,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
    ) -> None:
        self.input_size = _checks.size("input_size", input_size, 0)
        self.hidden_size = _checks.size("hidden_size", hidden_size)
        self.num_layers = _checks.size("num_layers", num_layers)
        self.bias = _checks.flag("bias", bias)
        self.batch_first = _checks.flag("batch_first", batch_first)
        self.dropout = _checks.fraction("dropout", dropout)
        self.bidirectional = _checks.flag("bidirectional", bidirectional)
        if self.num_layers != 1:
            raise ValueError(f"num_layers is {num_layers}: this version has one layer")
        if self.bidirectional:
            raise ValueError("bidirectional is True: this version has one direction")

    @property
    def _suffixes(self) -> list[str]:
        """One suffix a cell, in the order of weights and of the state's first axis."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{k}{end}" for k in range(self.num_layers) for end in directions]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        rows, units = self._gates * self.hidden_size, self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for suffix in self._suffixes:
            shapes[f"weight_ih{suffix}"] = (rows, self.input_size)
            shapes[f"weight_hh{suffix}"] = (rows, units)
            if self.bias:
                shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (rows,)
        return shapes

    def _initialise(self, dtype: DTypeLike, rng: Any, init: str) -> None:
        init = _checks.choice("init", init, ("uniform", "orthogonal"))
        self._allocate(_checks.float_dtype("dtype", dtype))
        # Drawn in float64 and rounded, so that one seed means one network in both types.
        rng = np.random.default_rng(rng)
        bound = 1 / math.sqrt(self.hidden_size)
        for name, view in self._weights.items():
            if init == "orthogonal" and name.startswith("weight_hh"):
                for gate in np.split(view, self._gates):
                    gate[...] = _orthogonal(rng, self.hidden_size)
            else:
                view[...] = rng.uniform(-bound, bound, view.shape)

    def _adopt(self, flat: Array) -> None:
        super()._adopt(flat)
        # The weights of each cell under the names of the function's arguments.
        self._cells = [
            {arg: self._weights.get(name + suffix) for arg, name in _WEIGHT_NAMES.items()}
            for suffix in self._suffixes
        ]

    # -------------------------------------------------------------------- checks and axes

    def _axes(self, unbatched: bool, last: str) -> tuple[str, ...]:
        """The axes of a sequence as the caller sees it."""
        if unbatched:
            return ("T", last)
        return ("B", "T", last) if self.batch_first else ("T", "B", last)

    def _time_major(self, a: Array) -> Array:
        """(B, T, .) as a view (T, B, .), where the layer is batch_first; and the reverse."""
        return a.swapaxes(0, 1) if self.batch_first and a.ndim == 3 else a

    def _as_given(self, a: Array) -> Array:
        """In the caller's order of axes; only where the reference backend made it, a copy."""
        return np.ascontiguousarray(self._time_major(a)) if self.batch_first else a

    def _sizes(self, steps: int, batch: int) -> dict[str, int]:
        states = len(self._cells)
        return {"T": steps, "B": batch, "H": self.hidden_size, "layers·directions": states}

    def _check_x(self, x: Any) -> Array:
        """x, time-major."""
        if not (
            type(x) is ndarray
            and x.dtype is self._flat.dtype
            and 2 <= x.ndim <= 3
            and x.shape[-1] == self.input_size
        ):
            x = _checks.array("x", x, self.dtype, "the layer")
            unbatched = _checks.sequence_axes(x, *self._axes(False, "D")[:2])
            _checks.shape("x", x.shape, self._axes(unbatched, "D"), {"D": self.input_size})
        return self._time_major(x)

    def _check_state(self, name: str, state: Any, batch: int, unbatched: bool) -> Any:
        """The state as an array of one (B, H) or (H,) a cell."""
        rows = () if unbatched else (batch,)
        shape = (len(self._cells), *rows, self.hidden_size)
        if state is None or (
            type(state) is ndarray and state.dtype is self._flat.dtype and state.shape == shape
        ):
            return state
        state = _checks.array(name, state, self.dtype, "the layer")
        axes = ("layers·directions", "H") if unbatched else ("layers·directions", "B", "H")
        _checks.shape(name, state.shape, axes, self._sizes(0, batch))
        return state

    def _check_tape(self, tape: Any) -> None:
        """Raise unless the tape's weights are this layer's, or (after a copy) equal to them."""
        name = type(self).__name__
        _checks.tape(tape, LayerTape, f"{name}.forward")
        if tape.layer != name:
            raise TypeError(f"tape is of {tape.layer}, this layer is {name}")
        for suffix, cell, cell_tape in zip(self._suffixes, self._cells, tape.tapes, strict=True):
            for arg, own in cell.items():
                same_weight(_WEIGHT_NAMES[arg] + suffix, getattr(cell_tape, arg), own)


class RNN(_Recurrent):
    """An Elman network: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), with f tanh or relu.

    Parameters
    ----------
    input_size, hidden_size : int
        D and H.
    num_layers, bidirectional : int, bool
        One layer and one direction, in this version.
    nonlinearity : {"tanh", "relu"}
        f.
    bias : bool
        Whether there are b_ih and b_hh.
    batch_first : bool
        Whether x, output and restart have the batch axis before the time axis. The state does not.
    dropout : float
        In [0, 1): between layers while training, so without effect on a single layer.
    dtype : {"float32", "float64"}
        Of the weights, and of all arrays.
    rng : optional
        Anything that `numpy.random.default_rng` takes: a seed, a Generator, or None.
    init : {"uniform", "orthogonal"}
        Every weight uniform in ±1/sqrt(H), as in PyTorch; or the same but weight_hh orthogonal,
        which keeps gradients alive over longer sequences.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    A layer keeps nothing of a forward, so it may serve many threads. It pickles; `copy.deepcopy`
    gives independent weights, `copy.copy` shares them.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.RNN(3, 4, rng=0)
    >>> layer
    RNN(3, 4)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> output, state, tape = layer.forward(x)
    >>> output.shape, state.shape
    ((5, 2, 4), (1, 2, 4))
    >>> grads = layer.backward(tape, d_output=np.ones_like(output))
    >>> layer.flat_weights[...] -= 0.1 * grads.flat_weights
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DTypeLike = "float32",
        rng: Any = None,
        init: str = "uniform",
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers,
            nonlinearity=nonlinearity, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional,
        )  # fmt: skip
        self._initialise(dtype, rng, init)

    def _configure(self, *, nonlinearity: str, **sizes: Any) -> None:
        self.nonlinearity = _checks.choice("nonlinearity", nonlinearity, _checks.NONLINEARITIES)
        self._configure_sizes(**sizes)

    def __call__(
        self,
        x: Array,
        state: Array | None = None,
        *,
        lengths: ArrayLike | None = None,
        restart: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """Run the layer for its results only: no tape, no dropout.

        Parameters
        ----------
        x : ndarray
            (T, B, D), or (B, T, D) if `batch_first`, or (T, D) for one sequence; the layer's dtype.
        state : ndarray, optional
            (1, B, H), or (1, H) for one sequence: the state before the first step. None: zeros.
        lengths : integer sequence, optional
            (B,), ``0 <= length <= T``: see `fastrnn.rnn_forward`.
        restart : boolean array, optional
            (T, B), or (B, T) if `batch_first`, or (T,): where true, the state before that step is
            zero.

        Returns
        -------
        output : ndarray
            (T, B, H), (B, T, H) or (T, H).
        state : ndarray
            (1, B, H) or (1, H), to be passed to the next call.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.
        """
        return self._run(x, state, lengths, restart, False)[:2]

    def forward(
        self,
        x: Array,
        state: Array | None = None,
        *,
        lengths: ArrayLike | None = None,
        restart: ArrayLike | None = None,
        training: bool = True,
        rng: Any = None,
        keep: Collection[str] = (),
        checkpoint: int | None = None,
    ) -> tuple[Array, Array, LayerTape]:
        """Run the layer and keep a tape for `backward`.

        Parameters
        ----------
        x, state, lengths, restart
            As for a call of the layer.
        training, rng
            Whether dropout acts, and its source. One layer has nothing between layers to drop.
        keep : collection of str
            What else to keep on the tape at every step: nothing more, for this cell.
        checkpoint : None
            Not in this version.

        Returns
        -------
        output, state : ndarray
            As from a call of the layer.
        tape : LayerTape
            It refers to x, output and the weights, which must not be changed before backward. It
            may be used more than once, and from several threads.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.
        """
        _checks.flag("training", training)
        _checks.names("keep", keep, ())
        if checkpoint is not None:
            raise ValueError(f"checkpoint is {checkpoint!r}: this version has only None")
        output, state, cell_tape = self._run(x, state, lengths, restart, True)
        return output, state, LayerTape(type(self).__name__, (cell_tape,))

    def _run(
        self, x: Any, state: Any, lengths: Any, restart: Any, record: bool
    ) -> tuple[Array, Array, Any]:
        x = self._check_x(x)
        unbatched = x.ndim == 2
        batch = 1 if unbatched else x.shape[1]
        state = self._check_state("state", state, batch, unbatched)
        if restart is not None and self.batch_first and not unbatched:
            restart = _checks.restart_array(restart, ("B", "T"), self._sizes(len(x), batch)).T
        (cell,) = self._cells
        output, h_n, cell_tape = functional._rnn_forward(
            x, None if state is None else state[0], cell["w_ih"], cell["w_hh"], cell["b_ih"],
            cell["b_hh"], self.nonlinearity, lengths, restart, False, record, False,
            self.batch_first,
        )  # fmt: skip
        return self._as_given(output), h_n[None], cell_tape

    def backward(
        self,
        tape: LayerTape,
        d_output: Array | None = None,
        d_state: Array | None = None,
        *,
        wrt: Collection[str] | None = None,
    ) -> LayerGradients:
        """Gradients of x, the initial state and the weights.

        Parameters
        ----------
        tape : LayerTape
            From this layer's `forward`. It is not changed.
        d_output, d_state : ndarray or None
            The loss's gradients with respect to output and state, of their shapes and dtype. None:
            zeros; not both.
        wrt : collection of str, optional
            Which gradients to compute: "x", "state", names of weights, or "weights" for all of
            them. What is left out costs nothing. None: all.

        Returns
        -------
        LayerGradients
            ``.x``, ``.state`` (None where forward had none), ``.weights`` (a dict) and
            ``.flat_weights``, laid out as the layer's, of which ``.weights`` holds views.

        Raises
        ------
        TypeError, ValueError
            If the tape is another layer's, both gradients are None, or an argument does not fit.
        """
        self._check_tape(tape)
        wanted = _checks.names("wrt", wrt, ("x", "state", "weights", *self._weights))
        _checks.some_gradient(d_output=d_output, d_state=d_state)
        (suffix,), (cell_tape,) = self._suffixes, tape.tapes
        steps, batch, _ = cell_tape.output.shape
        unbatched = cell_tape.unbatched
        if d_output is not None:
            d_output = _checks.array("d_output", d_output, self.dtype, "the layer")
            axes, sizes = self._axes(unbatched, "H"), self._sizes(steps, batch)
            _checks.shape("d_output", d_output.shape, axes, sizes)
            d_output = self._time_major(d_output)
        d_state = self._check_state("d_state", d_state, batch, unbatched)

        flat, views = self._weight_gradients(wanted)
        into = {a: views[n + suffix] for a, n in _WEIGHT_NAMES.items() if n + suffix in views}
        cell_wrt = set(into)
        cell_wrt |= {arg for name, arg in (("x", "x"), ("state", "h_0")) if name in wanted}
        grads = functional._rnn_backward(
            cell_tape, d_output, None if d_state is None else d_state[0], cell_wrt, into
        )
        d_x = None if grads.x is None else self._as_given(grads.x)
        d_h_0 = None if grads.h_0 is None else grads.h_0[None]
        return LayerGradients(d_x, d_h_0, views, flat)


def _orthogonal(rng: np.random.Generator, n: int) -> Array:
    """A random orthogonal matrix, evenly distributed.

    The sign correction is what makes it so: F. Mezzadri, "How to generate random matrices from the
    classical compact groups", Notices of the AMS 54 (2007), 592-604.
    """
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.where(np.diagonal(r) < 0, -1, 1)
