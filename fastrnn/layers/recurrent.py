"""What the recurrent layers share: weights, state, stacking, both directions, dropout.

A layer is a stack of `num_layers` layers, each with one direction or two. How directions are
counted, and where axes are swapped: see tape.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy import ndarray

from .. import _checks, _core
from .._attributes import Checks, warn
from .._cures import Role
from .._memory import Memory
from ..cells.base import Cell
from ..config import current_backend, current_threads
from ..reference.arguments import WEIGHT_NAMES
from .frozen_recurrent import Freezable
from .stack import run_stack
from .tape import LayerGradients, LayerTape, State, sequence_axes, state_array
from .weights import Weighted, same_weight

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from .stack import Dropout

    Array = NDArray[Any]


def _input_size(name: str, value: Any) -> int | None:
    return None if value is None else _checks.size(name, value, 0)


class Recurrent(Freezable[State], Weighted):
    """What the recurrent layers share.

    A subclass says which cell it has, and which of its extra weights there are. The cell's options
    are attributes.
    """

    _fixed: ClassVar[Checks] = {
        "input_size": _input_size, "hidden_size": _checks.size,
        "num_layers": _checks.size, "bias": _checks.biases, "bidirectional": _checks.flag,
        "reverse": _checks.flag,
    }  # fmt: skip
    _settable: ClassVar[Checks] = {"batch_first": _checks.flag, "dropout": _checks.fraction}

    input_size: int | None
    hidden_size: int
    num_layers: int
    bias: bool | Literal["single"]
    batch_first: bool
    dropout: float
    bidirectional: bool
    reverse: bool = False  # of layers that were pickled before there was such a thing

    _later: ClassVar[tuple[str, ...]] = ("reverse",)
    _derived = (*Weighted._derived, "_directions", "_ways", "_alone")
    _cell: Cell
    _directions: list[
        tuple[Any, ...]
    ]  # the weights of each: w_ih, w_hh, b_ih, b_hh, the extra ones
    _ways: tuple[bool, ...]  # of each direction of a layer: whether it is the reverse one
    _alone: tuple[Any, ...] | None  # the weights of the only one, unless that is the reverse one

    @property
    def _options(self) -> tuple[Any, ...]:
        """What a function is told besides arrays."""
        return ()

    @property
    def _kept(self) -> tuple[str, ...]:
        """What a tape can keep for the caller."""
        return self._cell.spec.kept

    @property
    def _not_kept(self) -> str:
        """What to say of the others."""
        return ""

    @property
    def _units(self) -> int:
        """P: how many units the state h, and so the output of a direction, has."""
        return self.hidden_size

    @property
    def _x_axis(self) -> tuple[int, str, str]:
        """The last axis of x: its size, the letters for it and, for errors, why it is that."""
        if self.input_size is not None:
            return self.input_size, "D", ""
        times = self._cell.gates * (2 if self.bidirectional else 1)
        letters = "H" if times == 1 else f"{times}·H"
        why = ", because input_size is None: x is the pre-activations of layer 0"
        return times * self.hidden_size, letters, why

    def _configure(self, **arguments: Any) -> None:
        super()._configure(**arguments)
        if self.reverse and self.bidirectional:
            raise ValueError(
                "reverse is True, but a bidirectional layer runs in both directions: pass "
                "reverse=False, or bidirectional=False for the reverse one alone"
            )
        _checks.elements(num_layers=self.num_layers, hidden_size=self.hidden_size)

    def _checked(self, name: str, value: Any) -> Any:
        value = super()._checked(name, value)
        if name == "dropout":
            self._tell_of_idle_dropout(value)
        return value

    def _tell_of_idle_dropout(self, dropout: float) -> None:
        if dropout and getattr(self, "num_layers", None) == 1:
            warn(
                f"dropout is {dropout} without effect, as num_layers is 1: it acts between layers, "
                "on the output of each but the last"
            )

    def _make(
        self, dtype: DTypeLike, rng: Any, init: str, what: dict[str, Any], **starts: Any
    ) -> None:
        """What a constructor does; `what` it makes, its other arguments say.

        `starts`: of weights that are not drawn.
        """
        with self._all_or_nothing():
            self._configure(**what)
            self._tell_of_idle_dropout(self.dropout)
            self._initialise(dtype, rng, init, **starts)

    @property
    def _suffixes(self) -> list[str]:
        """One suffix a direction, in the order of weights and of the state's first axis."""
        ends = ("", "_reverse") if self.bidirectional else ("_reverse" if self.reverse else "",)
        return [f"_l{k}{end}" for k in range(self.num_layers) for end in ends]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        below = self._units * (2 if self.bidirectional else 1)
        for suffix in self._suffixes:
            features = self.input_size if suffix in ("_l0", "_l0_reverse") else below
            for name, shape in self._direction_shapes(features).items():
                shapes[name + suffix] = shape
        return shapes

    def _direction_shapes(self, features: int | None) -> dict[str, tuple[int, ...]]:
        """The weights of one direction, in PyTorch's order; features None: without weight_ih."""
        rows = self._cell.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        if features is not None:
            shapes["weight_ih"] = (rows, features)
        shapes["weight_hh"] = (rows, self._units)
        if self.bias:
            shapes["bias_ih"] = (rows,)
        if self.bias and self.bias != "single":
            shapes["bias_hh"] = (rows,)
        return shapes

    def _initialise(self, dtype: DTypeLike, rng: Any, init: str) -> None:
        init = _checks.choice("init", init, ("uniform", "orthogonal"))
        self._allocate(_checks.float_dtype("dtype", dtype))
        # Drawn in float64 and rounded, so that one seed means one network in both types.
        rng = _checks.generator("rng", rng)
        bound = 1 / math.sqrt(self.hidden_size)
        for name, view in self._weights.items():
            if init == "orthogonal" and name.startswith("weight_hh"):
                for gate in np.split(view, self._cell.gates):
                    gate[...] = _orthogonal(rng, *gate.shape)
            else:
                view[...] = rng.uniform(-bound, bound, view.shape)

    def _adopt(self, memory: Memory) -> None:
        super()._adopt(memory)
        get, four = self._weights.get, tuple(WEIGHT_NAMES.values())
        extras = [extra.on_layers for extra in self._cell.spec.extras]
        self._directions = [
            (*(get(name + end) for name in four), tuple(get(name + end) for name in extras))
            for end in self._suffixes
        ]
        self._ways = (False, True) if self.bidirectional else (self.reverse,)
        self._alone = self._directions[0] if self._suffixes == ["_l0"] else None

    # -------------------------------------------------------------------- forward

    def __call__(
        self,
        x: Array,
        state: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        restart: ArrayLike | None = None,
    ) -> tuple[Array, State]:
        """Run the layer for its results only: no tape, no dropout.

        Parameters
        ----------
        x : ndarray
            (T, B, D), or (B, T, D) if `batch_first`, or (T, D) for one sequence; the layer's dtype.
            If `input_size` is None, D is the number of pre-activations of layer 0.
        state : ndarray, or of an LSTM a pair of them; optional
            h, (layers·directions, B, H), or (layers·directions, H) for one sequence: the state
            before the step that is taken first, in PyTorch's order: layer 0, layer 0 reverse,
            layer 1, ... Of an LSTM the pair (h, c), where h has `proj_size` units if there is a
            projection. None: zeros.
        lengths : integer sequence, optional
            (B,), ``0 <= length <= T``: how many steps of each row count, in the reverse direction
            too. Beyond them output is zero; see `fastrnn.rnn_forward`.
        mask : boolean array, optional
            (T, B), or (B, T) if `batch_first`, or (T,): a step where it is false is skipped: the
            state passes unchanged, output is zero, x is not read, and there is no restart. So a
            batch may be padded on the left, or have gaps. With `lengths`, both must hold.
        restart : boolean array, optional
            The reset mask, (T, B), or (B, T) if `batch_first`, or (T,): where true, the state of
            every layer is zero before that step (in the order in which a direction takes them).

        Returns
        -------
        output : ndarray
            (T, B, n), (B, T, n) or (T, n) as x is: h of the last layer at every step; n is its
            units, or twice as many if `bidirectional`, those of the reverse direction behind.
        state : ndarray, or of an LSTM a pair of them
            Like the argument: to be passed to the next call.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.LSTM(3, 4, rng=0)
        >>> output, (h, c) = layer(np.ones((5, 2, 3), np.float32), lengths=[5, 4])
        >>> output.shape, h.shape, c.shape
        ((5, 2, 4), (1, 2, 4), (1, 2, 4))
        """
        if lengths is mask is restart is None and current_backend.get() == "compiled":
            done = self._fast_path(x, state)
            if done is not None:
                return done
        return self._run(x, state, lengths, mask, restart, None, None)[:2]

    def _fast_path(self, x: Any, state: Any, packed: Any = None) -> tuple[Array, Any] | None:
        """What `_run` would return, in less time; None where the call is not a common one.

        packed: the weights of the only direction, or None.
        """
        alone, kernel = self._alone, self._cell.known(self._options)
        if kernel is None or alone is None:
            return None
        if not self._cell.has_c:
            done = _core.fast_forward(
                kernel, alone, x, state, None, self.batch_first, current_threads, packed
            )
            return done and done[:2]
        h = c = None
        if state is not None:
            if type(state) is not tuple or len(state) != 2 or state[0] is None or state[1] is None:
                return None
            h, c = state
        done = _core.fast_forward(kernel, alone, x, h, c, self.batch_first, current_threads, packed)
        return done and (done[0], done[1:])

    def forward(
        self,
        x: Array,
        state: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        restart: ArrayLike | None = None,
        training: bool = True,
        rng: Any = None,
        keep: Collection[str] = (),
        checkpoint: int | None = None,
        check: bool = False,
    ) -> tuple[Array, State, LayerTape]:
        """Run the layer and keep a tape for `backward`.

        Parameters
        ----------
        x, state, lengths, mask, restart
            As for a call of the layer.
        training : bool
            Whether dropout acts: each element of the output of every layer but the last is then
            zero with the probability `dropout`, or else divided by 1 - `dropout`.
        rng : optional
            The source of dropout, and needed where it acts: anything that
            `numpy.random.default_rng` takes but None, a seed or a Generator.
        keep : collection of str
            What to have as attributes of the tape, at every step of every layer and direction: of
            an LSTM "c" and "gates", of a GRU "gates", of a LeakyRNN "gates" and with potentials
            "c"; see `LayerTape`.
        checkpoint : int, optional
            K: save memory. The tape then refers to x and output, has an LSTM's c of every K-th
            step only, and no gates; `backward` makes the rest again, K steps at a time, so training
            takes about a third longer. Gradients have the same bits. It needs memory for T/K + K
            steps, least with K near the square root of T. Not with `keep`. An Elman layer's tape is
            always that short, and with ``backend("reference")`` it never is.
        check : bool
            Whether the tape should notice, when it is used, that x, a weight or output was changed:
            `backward` then raises RuntimeError.

        Returns
        -------
        output, state
            As from a call of the layer.
        tape : LayerTape
            It refers to x, output and the weights, which must not be changed before backward. It
            may be used more than once, and from several threads.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.GRU(3, 4, num_layers=2, dropout=0.5, rng=0)
        >>> x = np.ones((5, 2, 3), np.float32)
        >>> output, state, tape = layer.forward(x, rng=1)
        >>> output, state, tape = layer.forward(x, state, training=False, keep=["gates"])
        >>> [gates.shape for gates in tape.gates]
        [(5, 2, 12), (5, 2, 12)]
        """
        training, check = _checks.flag("training", training), _checks.flag("check", check)
        if type(keep) is tuple and not keep:  # in less time
            keep = frozenset()
        else:
            keep = _checks.names("keep", keep, self._kept, self._not_kept)
        if checkpoint is not None:
            checkpoint = _checks.size("checkpoint", checkpoint)
            if keep:
                raise ValueError(
                    f"keep is {tuple(sorted(keep))} and checkpoint is {checkpoint}: with a "
                    "checkpoint the tape does not keep every step"
                )
        if not (training and self.dropout and self.num_layers > 1):
            rng = None
        elif rng is None:
            raise ValueError(
                f"rng is None, but dropout is {self.dropout} and training is True: give it a "
                "numpy.random.Generator, one for all steps (a seed drops the same in each)"
            )
        else:
            rng = _checks.generator("rng", rng)
        return self._run(x, state, lengths, mask, restart, rng, keep, checkpoint or 0, check)

    def _run(
        self,
        x: Any,
        state: Any,
        lengths: Any,
        mask: Any,
        restart: Any,
        rng: Any,
        keep: Any,
        checkpoint: int = 0,
        check: bool = False,
        packed: tuple[Any, ...] | None = None,
    ) -> tuple[Array, Any, Any]:
        """forward; without a tape where `keep` is None, with dropout where `rng` is not."""
        x = self._check_x(x)
        unbatched = x.ndim == 2
        if unbatched:
            x = x[:, None]
        elif self.batch_first:
            x = x.swapaxes(0, 1)
        steps, batch, _ = x.shape
        h_0 = c_0 = None
        if state is not None:
            h_0, c_0 = self._check_state(state, batch, unbatched)
        batch_first, record = self.batch_first, keep is not None
        told: tuple[Array | None, Array | None, Array | None] = None, None, None
        if not lengths is mask is restart is None:
            axes = sequence_axes(batch_first, unbatched, "")[:-1]
            told = _checks.told_of_steps(lengths, mask, restart, axes, steps, batch)
        common = (*told, record, batch_first, checkpoint)
        dropout: Dropout | None = None
        if rng is not None:
            p = self.dropout
            # In float32 whatever the layer's type: one seed then drops the same in both.
            dropout = lambda shape: rng.random(shape, np.float32) < p, 1 / (1 - p)
        x, h_n, c_n, tapes, dropped, _ = run_stack(
            self._cell, self._options, self._directions, self._ways, x, h_0, c_0, common, dropout,
            packed,
        )  # fmt: skip
        if unbatched:
            x, h_n, c_n = x[:, 0], h_n[:, 0], None if c_n is None else c_n[:, 0]
        elif batch_first:
            x = np.ascontiguousarray(x.swapaxes(0, 1))  # a copy only where the reference made it
            if check and x.size and not np.may_share_memory(x, tapes[-1].output):
                tapes = *tapes[:-1], tapes[-1]._replace(output=x.swapaxes(0, 1))
        if check:
            tapes = tuple(tape._with_digests() for tape in tapes)
        final = h_n if c_n is None else (h_n, c_n)
        if not record:
            return x, final, None
        return x, final, LayerTape(
            type(self).__name__, self._cell.spec, tapes, dropped, 1 / (1 - self.dropout),
            batch_first, unbatched, keep,
        )  # fmt: skip

    # -------------------------------------------------------------------- backward

    def backward(
        self,
        tape: LayerTape,
        d_output: Array | None = None,
        d_state: State | tuple[Array | None, Array | None] | None = None,
        *,
        wrt: Collection[str] | None = None,
    ) -> LayerGradients[State]:
        """Gradients of x, the initial state and the weights.

        Parameters
        ----------
        tape : LayerTape
            From this layer's `forward`. It is not changed.
        d_output : ndarray or None
            The loss's gradient with respect to output, of its shape and dtype. None: zeros.
        d_state : ndarray or None, or of an LSTM a pair of them
            The loss's gradient with respect to the final state, likewise; of an LSTM for h and c,
            either of which may be None. Not everything may be None.
        wrt : collection of str, optional
            Which gradients to compute: "x", "state", names of weights, or "weights" for all of
            them. What is left out costs nothing, nor do layers below the last one that something
            is wanted of. None: all.

        Returns
        -------
        LayerGradients
            ``.x``, ``.state`` (like the state; None where forward had none), ``.weights`` (a
            mapping) and ``.flat_weights``, laid out as the layer's, which ``.weights`` holds views
            into.

        Raises
        ------
        TypeError, ValueError
            If the tape is another layer's, both gradients are None, or an argument does not fit.
        RuntimeError
            If forward had ``check=True`` and x, a weight or output has changed since.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.RNN(3, 4, rng=0)
        >>> output, state, tape = layer.forward(np.ones((5, 2, 3), np.float32))
        >>> grads = layer.backward(tape, d_state=np.ones_like(state), wrt=["x", "weights"])
        >>> grads.x.shape, grads.weights["weight_hh_l0"].shape
        ((5, 2, 3), (4, 4))
        """
        return self._backward(tape, d_output, d_state, wrt)

    def _backward(
        self, tape: Any, d_output: Any, d_state: Any, wrt: Any, flat: Array | None = None
    ) -> LayerGradients[State]:
        """backward; the gradients of the weights are written to `flat` where that is given."""
        self._check_tape(tape)
        wanted = _checks.names("wrt", wrt, ("x", "state", "weights", *self._weights))
        names: tuple[str, ...] = ("d_state",)
        d_states: tuple[Any, ...]
        if self._cell.has_c:
            names = "d_state[0]", "d_state[1]"
            if d_state is None:
                d_states = None, None
            else:
                d_states = _checks.state_pair("d_state", d_state, "None")
        else:
            d_states = (d_state,)
        tape = tape._unchanged()
        start = tape._gradients(d_output, names, d_states)

        flat, views = self._weight_gradients(wanted, flat)
        names_of = self._cell.weight_names.items()
        into = [
            {arg: views[name + end] for arg, name in names_of if name + end in views}
            for end in self._suffixes
        ]
        initial: tuple[str, ...] = ()
        if "state" in wanted and tape.tapes[0].h_0 is not None:
            initial = tuple(f"{name}_0" for name in tape.cell.states)
        states, d_x = tape._backward(start, into, initial, "x" in wanted)
        state = [d[0][None] if len(d) == 1 else np.stack(d) for d in zip(*states, strict=True)]
        if tape.unbatched:
            d_x = None if d_x is None else d_x[:, 0]
            state = [d[:, 0] for d in state]
        elif tape.batch_first and d_x is not None:
            d_x = np.ascontiguousarray(d_x.swapaxes(0, 1))
        d_initial: Any = state[0] if len(state) == 1 else tuple(state) or None
        return LayerGradients(d_x, d_initial, views, flat)

    # -------------------------------------------------------------------- checks and axes

    def _check_x(self, x: Any) -> Array:
        """x as an array of two or three axes, as it was given."""
        if (
            type(x) is ndarray
            and x.dtype is self._flat.dtype
            and 2 <= x.ndim <= 3
            and x.shape[-1] == (self.input_size or self._x_axis[0])
        ):
            return x
        features, letters, why = self._x_axis
        role = Role(sequence=True, features=features, batch_first=self.batch_first)
        given = _checks.array("x", x, self.dtype, "the layer", role)
        first, second, _ = sequence_axes(self.batch_first, False, letters)
        unbatched = _checks.sequence_axes(given, first, second, features)
        axes = sequence_axes(self.batch_first, unbatched, letters)
        _checks.shape("x", given.shape, axes, {letters: features}, why)
        return given

    def _check_state(self, state: Any, batch: int, unbatched: bool) -> tuple[Any, Any]:
        """h and c as (directions, B, n); c None where the cell has none."""
        _checks.no_lengths("state", state)
        count, n, dtype = len(self._directions), self.hidden_size, self._flat.dtype
        shape = (count, n) if unbatched else (count, batch, n)
        if not self._cell.has_c:
            return state_array("state", state, dtype, shape, "H"), None
        p = self._units
        rest = "np.zeros_like({})" if p == n else ""
        h, c = _checks.state_pair("state", state, rest)
        of_h = (*shape[:-1], p)
        return (
            state_array("state[0]", h, dtype, of_h, "P" if p < n else "H"),
            state_array("state[1]", c, dtype, shape, "H"),
        )

    def _check_tape(self, tape: Any) -> None:
        """Raise unless the tape's weights are this layer's, or (after a copy) equal to them."""
        name = type(self).__name__
        _checks.tape(tape, LayerTape, f"{name}.forward")
        if tape.layer != name:
            raise TypeError(f"tape is of {tape.layer}, this layer is {name}")
        n, count, reverse = tape._directions, len(tape.tapes), tape.tapes[0].reverse
        if count != len(self._directions) or n != len(self._ways) or reverse != self._ways[0]:
            raise ValueError(
                f"tape is of another layer: of one with num_layers={count // n}, "
                f"bidirectional={n == 2}, reverse={reverse}"
            )
        names = self._cell.weight_names.items()
        for suffix, own, used in zip(self._suffixes, self._directions, tape.tapes, strict=True):
            for (arg, name), weight in zip(names, (*own[:4], *own[4]), strict=True):
                same_weight(name + suffix, getattr(used, arg), weight)


def _orthogonal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A random matrix with orthonormal columns (rows >= columns), evenly distributed.

    The sign correction is what makes it so: F. Mezzadri, "How to generate random matrices from the
    classical compact groups", Notices of the AMS 54 (2007), 592-604.
    """
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    return q * np.where(np.diagonal(r) < 0, -1, 1)
