"""A model in one piece: layers one behind the other, whose weights are views into one array."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet, ref

import numpy as np

from .. import _checks, _cures
from .._attributes import Checks
from .._memory import Memory, aligned_empty, owner, piece
from .arrangement import (
    Stage,
    check_axes,
    checked_layers,
    drop_of,
    kind_of,
    may_drop,
    table,
    widths,
)
from .dropout import Dropout
from .embedding import Embedding
from .frozen_sequential import FreezableModel
from .linear import Linear
from .recurrent import Recurrent
from .sequential_tape import SequentialGradients, SequentialTape, gradient_of_last, last_of
from .weights import IncompatibleKeys, Weighted, Weights, in_model

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]

_MOVED = (
    "is no layer's any more, as that went into a Sequential, which has all weights in one array: "
    "make the optimiser of model.flat_weights"
)

_models: WeakSet[Sequential] = WeakSet()  # all that there are


class Sequential(FreezableModel, Weighted):
    """Layers one behind the other, as one model with one array of weights.

    Each layer takes the output of the one before it. The layers' own arrays become views into the
    model's: what changes one changes the other. An optimiser that was made of a layer's array
    before refuses its next step.

    Parameters
    ----------
    layers : mapping of str to layer
        In their order, under names without dots: recurrent layers, `Linear`, `Dropout`, and an
        `Embedding` in the first place. Each stands in one place of one model; a weight is shared by
        `Linear.tied`.

    Attributes
    ----------
    layers : mapping of str to layer
        As given; fixed.
    dtype : numpy.dtype
        float32 or float64, of the weights and of all arrays; fixed.
    weights : mapping of str to ndarray
        The weights by their names, "rnn.weight_ih_l0", as in the state_dict of PyTorch's
        ModuleDict: views into `flat_weights`. A tied weight has the name that it has in the
        embedding.
    flat_weights : ndarray
        (n,): all n weights in one aligned array, as optimisers take it.

    Raises
    ------
    TypeError, ValueError
        If something is no layer, stands in another place already, or does not take what the layer
        before it gives; the error names it.

    Notes
    -----
    The states of recurrent layers are dicts by name, ``{"rnn": (h, c)}``, and a name that is
    missing means zeros.

    One step at a time: each recurrent layer has a stream, which holds its state.
    ``stream = model.layers["rnn"].stream()``, and at each step
    ``model.layers["out"](stream.step(x_t))``.

    A model keeps nothing of a forward, so it may serve many threads. It pickles; `copy.deepcopy`
    gives independent weights, `copy.copy` shares them. A layer copied or pickled alone takes a copy
    of the model's whole array along; `fastrnn.save` writes the layer alone, and a model whole.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> model = fastrnn.Sequential({
    ...     "words": fastrnn.Embedding(10, 4, rng=0),
    ...     "rnn": fastrnn.GRU(4, 6, bidirectional=True, rng=1),
    ...     "drop": fastrnn.Dropout(0.2),
    ...     "out": fastrnn.Linear(12, 2, rng=2),
    ... })
    >>> model
    Sequential
      name   layer                          output  parameters
      words  Embedding(10, 4)                    4          40
      rnn    GRU(4, 6, bidirectional=True)      12         432
      drop   Dropout(0.2)                       12           0
      out    Linear(12, 2)                       2          26
      total                                                498
    >>> adam = fastrnn.optim.Adam([model.flat_weights])
    >>> indices = np.array([[1, 2], [3, 4], [5, 0]])
    >>> logits, state, tape = model.forward(indices, lengths=[3, 2], last=True, rng=0)
    >>> loss, d_logits = fastrnn.softmax_cross_entropy(logits, [0, 1])
    >>> adam.step([model.backward(tape, d_logits).flat_weights])
    """

    _fixed: ClassVar[Checks] = {"layers": lambda _, layers: checked_layers(layers)}
    _derived = (*Weighted._derived, "layers", "_stages", "_recurrent", "_axes", "_dropping")

    layers: Mapping[str, Any]
    _stages: tuple[Stage, ...]
    _recurrent: tuple[str, ...]  # names
    _axes: tuple[str, ...]  # names of the layers that know, or may know, which axis time is
    _dropping: tuple[str, ...]  # names of the layers that have dropout, or may have

    def __init__(self, layers: Mapping[str, Any]) -> None:
        if self._complete:
            raise RuntimeError("this Sequential is made already: make another one")
        with self._all_or_nothing():
            self._arrange(checked_layers(layers))
            first = next(stage.layer for stage in self._stages if stage.kind is not Dropout)
            self._allocate(first.dtype)
            self._take_in()
        _models.add(self)

    def _arrange(self, layers: dict[str, Any]) -> None:
        """Put the layers in their places."""
        stages: list[Stage] = []
        width, start = 0, 0
        for name, layer in layers.items():
            kind = kind_of(layer)
            width = width if kind is Dropout else widths(layer)[1]
            own = {} if kind is Dropout else layer._shapes()
            end = start + (layer.flat_weights.size if own else 0)
            names = {weight: f"{name}.{weight}" for weight in own}
            stages.append(Stage(name, layer, kind, width, start, end, names))
            start = end
        self._set_all({
            "layers": MappingProxyType(layers),
            "_stages": tuple(stages),
            "_recurrent": tuple(s.name for s in stages if s.kind is Recurrent),
            "_axes": tuple(s.name for s in stages if s.kind in (Recurrent, Dropout)),
            "_dropping": tuple(name for name, layer in layers.items() if may_drop(layer)),
        })  # fmt: skip

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            stage.names[weight]: shape
            for stage in self._stages
            if stage.names
            for weight, shape in stage.layer._shapes().items()
        }

    def _take_in(self) -> None:
        """Make the layers' weights views into the model's."""
        memory = owner(self._flat)
        assert memory is not None
        for stage in self._stages:
            layer = stage.layer
            layer._model = ref(self)
            if stage.kind is Dropout:
                continue
            old, views = layer._flat, [*layer._weights.values()]
            self._flat[stage.start : stage.end] = old
            before = owner(old)
            layer._adopt(piece(memory, stage.start, stage.end - stage.start))
            if before is not None:
                before.moved = _MOVED
                # Out of a model that is gone: its array, too, is nobody's any more.
                if before.whole and all(owner(m._flat) is not before.whole for m in list(_models)):
                    before.whole.moved = _MOVED
            for a in (old, *views):  # a step by hand on what was a layer's would be lost
                a.flags.writeable = False

    # -------------------------------------------------------------------- forward

    def __call__(
        self,
        x: ArrayLike,
        state: Mapping[str, Any] | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        restart: ArrayLike | None = None,
        last: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        """Run the model for its results only: no tape, no dropout.

        Parameters
        ----------
        x : ndarray
            What the first layer takes: of an embedding indices, (T, B); else (T, B, D). If the
            recurrent layers are `batch_first`, (B, T) and (B, T, D); for one sequence (T,) and
            (T, D).
        state : mapping of str to state, optional
            The initial state of recurrent layers by their names, each as that layer takes it. What
            is missing is zeros.
        lengths : integer sequence, optional
            (B,), ``0 <= length <= T``: how many steps of each row count, in every recurrent layer.
        mask : boolean array, optional
            Like x without its features: which steps count; every recurrent layer skips the others.
        restart : boolean array, optional
            The reset mask of every recurrent layer, likewise.
        last : bool
            Whether the layers behind the last recurrent one take its last output of each row alone
            (many-to-one): (B, n) instead of a sequence. That is the one after the last step that
            counts, and of the reverse direction after the first; both directions stand side by
            side. A row without steps has its initial state.

        Returns
        -------
        output : ndarray
            What the last layer returns.
        state : dict of str to state
            The final state of each recurrent layer: to be passed to the next call.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layers = {"rnn": fastrnn.GRU(3, 4, rng=0), "out": fastrnn.Linear(4, 2, rng=1)}
        >>> model = fastrnn.Sequential(layers)
        >>> x = np.ones((5, 2, 3), np.float32)
        >>> output, state = model(x)
        >>> output, state = model(x, state, lengths=[5, 4], last=True)
        >>> output.shape, state["rnn"].shape
        ((2, 2), (1, 2, 4))
        """
        return self._infer(self.layers, x, state, lengths, mask, restart, last)

    def _infer(self, layers: Mapping[str, Any], x: Any, *told: Any) -> tuple[Array, dict[str, Any]]:
        """A call of the model, with these layers: its own, or the same ones frozen."""
        states, masks, last = self._checked_call(*told)
        made: dict[str, Any] = {}
        end = self._recurrent[-1] if last else None
        given: Any = x
        for name, layer, kind, *_ in self._stages:
            if kind is Recurrent:
                try:
                    given, made[name] = layers[name](given, states.get(name), **masks)
                except (TypeError, ValueError) as error:
                    _checks.rename(error, "state", f"state[{name!r}]")
                    raise
                if name == end:
                    given = last_of(layer, made[name])
            elif kind is not Dropout:
                given = layers[name](given)
        return given, made

    def forward(
        self,
        x: ArrayLike,
        state: Mapping[str, Any] | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        restart: ArrayLike | None = None,
        last: bool = False,
        training: bool = True,
        rng: Any = None,
        checkpoint: int | None = None,
        check: bool = False,
    ) -> tuple[Array, dict[str, Any], SequentialTape]:
        """Run the model and keep a tape for `backward`.

        Parameters
        ----------
        x, state, lengths, mask, restart, last
            As for a call of the model.
        training : bool
            Whether dropout acts, in the layers `Dropout` and between the layers of stacks.
        rng : optional
            The source of dropout, and needed where it acts: anything that
            `numpy.random.default_rng` takes but None, a seed or a Generator. The layers draw from
            it in their order.
        checkpoint : int, optional
            Saves memory in the recurrent layers; see the forward of `fastrnn.LSTM`.
        check : bool
            Whether the tape should notice, when it is used, that x, a weight or output was changed.

        Returns
        -------
        output, state
            As from a call of the model.
        tape : SequentialTape
            It refers to x, outputs and the weights, which must not be changed before backward. It
            may be used more than once, and from several threads.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layers = {"rnn": fastrnn.GRU(3, 4, rng=0), "drop": fastrnn.Dropout(0.5)}
        >>> model = fastrnn.Sequential(layers)
        >>> output, state, tape = model.forward(np.ones((5, 2, 3), np.float32), rng=1)
        >>> output.shape, tape
        ((5, 2, 4), SequentialTape(rnn, drop))
        """
        states, masks, last = self._checked_call(state, lengths, mask, restart, last)
        training = _checks.flag("training", training)
        acting = training and next((n for n in self._dropping if drop_of(self.layers[n])), None)
        if not acting:
            rng = None
        elif rng is None:
            raise ValueError(
                f"rng is None, but training is True and {acting!r} has dropout: give it a "
                "numpy.random.Generator, one for all steps (a seed drops the same in each)"
            )
        else:
            rng = _checks.generator("rng", rng)
        if checkpoint is not None and not self._recurrent:
            raise ValueError("checkpoint is given, but the model has no recurrent layer")
        options = {"training": training, "rng": rng, "checkpoint": checkpoint, "check": check}
        made: dict[str, Any] = {}
        tapes: dict[str, Any] = {}
        end, final = self._recurrent[-1] if last else None, None
        given: Any = x
        for name, layer, kind, *_ in self._stages:
            if kind is Recurrent:
                try:
                    given, made[name], tapes[name] = layer.forward(
                        given, states.get(name), **masks, **options
                    )
                except (TypeError, ValueError) as error:
                    _checks.rename(error, "state", f"state[{name!r}]")
                    raise
                if name == end:
                    given = final = last_of(layer, made[name])
            elif kind is Dropout:
                acts = rng if layer.p else None
                # Of a last state there is one for each row, so all masks are of one step.
                given, tapes[name] = layer._run(given, acts, layer.variational and final is None)
            else:
                given, tapes[name] = layer.forward(given, check=check)
        return given, made, SequentialTape(tapes, given.shape, final)

    def _checked_call(
        self, state: Any, lengths: Any, mask: Any, restart: Any, last: Any
    ) -> tuple[Mapping[str, Any], dict[str, Any], bool]:
        """The states by name, which masks there are, and `last`."""
        given = {"lengths": lengths, "mask": mask, "restart": restart}
        masks = {name: value for name, value in given.items() if value is not None}
        last = _checks.flag("last", last)
        if (masks or last) and not self._recurrent:
            name = next(iter(masks), "last")
            raise ValueError(f"{name} is given, but the model has no recurrent layer")
        if len(self._axes) > 1:  # what they have can be set
            check_axes("model.layers", {name: self.layers[name] for name in self._axes})
        return {} if state is None else self._by_name("state", state), masks, last

    def _by_name(self, what: str, given: Any) -> Mapping[str, Any]:
        """A mapping by names of recurrent layers."""
        known = self._recurrent
        if not known:
            raise ValueError(f"{what} is given, but the model has no recurrent layer")
        expected = f"names of recurrent layers, {_checks.listed(list(map(repr, known)), 'and')}"
        if not isinstance(given, Mapping):
            _checks.no_lengths(what, given)
            cure = f": pass {{{known[0]!r}: {what}}}" if len(known) == 1 else ""
            raise TypeError(
                f"{what} is {_cures.kind(given)}, expected a mapping of {expected}{cure}"
            )
        for name in given:
            if name not in known:
                raise ValueError(f"{what} has {_cures.shown(name)}, expected {expected}")
        return given

    # -------------------------------------------------------------------- backward

    def backward(
        self,
        tape: SequentialTape,
        d_output: Array | None = None,
        d_state: Mapping[str, Any] | None = None,
        wrt: Collection[str] | None = None,
    ) -> SequentialGradients:
        """Gradients of x, the initial states and the weights.

        Parameters
        ----------
        tape : SequentialTape
            From this model's `forward`. It is not changed.
        d_output : ndarray or None
            The loss's gradient with respect to output, of its shape and dtype. None: zeros.
        d_state : mapping of str to state, optional
            The loss's gradient with respect to final states of recurrent layers, by their names,
            each as that layer takes it. What is missing is zeros. Not everything may be None.
        wrt : collection of str, optional
            Which gradients to compute: "x", "state", names of weights, or "weights" for all of
            them. What is left out costs nothing, nor do layers before the first one that something
            is wanted of. None: all.

        Returns
        -------
        SequentialGradients
            ``.x``, ``.state`` (a dict by name), ``.weights`` (a mapping) and ``.flat_weights``,
            laid out as the model's, which ``.weights`` holds views into. The gradient of a tied
            weight is the whole one: that of the embedding and that of the output layer, added.

        Raises
        ------
        TypeError, ValueError
            If the tape is another model's, both gradients are None, or an argument does not fit.
        RuntimeError
            If forward had ``check=True`` and x, a weight or output has changed since.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layers = {"rnn": fastrnn.GRU(3, 4, rng=0), "out": fastrnn.Linear(4, 2, rng=1)}
        >>> model = fastrnn.Sequential(layers)
        >>> output, state, tape = model.forward(np.ones((5, 2, 3), np.float32))
        >>> grads = model.backward(tape, np.ones_like(output), wrt=["x", "out.bias"])
        >>> grads.x.shape, grads.weights["out.bias"]
        ((5, 2, 3), array([10., 10.], dtype=float32))
        """
        _checks.tape(tape, SequentialTape, "Sequential.forward")
        if list(tape.tapes) != list(self.layers):
            raise ValueError(f"tape is of another model: of one with {', '.join(tape.tapes)}")
        d_states = {} if d_state is None else self._by_name("d_state", d_state)
        if d_output is None and all(d is None for d in d_states.values()):
            _checks.some_gradient(d_output=None, d_state=None)
        stages = self._stages
        parts, x_too, state_too, first = self._wanted(wrt, tape)
        flat = None
        if parts is None or any(part not in ((), ("state",)) for part in parts):
            flat = aligned_empty(self._flat.size, self.dtype)
            if first:
                flat[: stages[first].start] = 0
        found: list[dict[str, Array]] = []
        states: dict[str, Any] = {}
        tied: list[Array] = []
        d: Any = d_output
        if d is None and d_states.get(stages[-1].name) is None:
            d = np.zeros(tape.shape, self.dtype)
        for i in range(len(stages) - 1, first - 1, -1):
            name, layer, kind, _, start, end, names = stages[i]
            own_tape = tape.tapes[name]
            if kind is Dropout:
                if own_tape.dropped is not None:
                    d = layer.backward(own_tape, d).x
                continue
            part = None if parts is None else (*parts[i], "x") if i > first or x_too else parts[i]
            place = None if flat is None else flat[start:end]
            made: Any
            if kind is Recurrent:
                try:
                    d_own = d_states.get(name)
                    if tape.last is not None and name == self._recurrent[-1] and d is not None:
                        d, d_own = None, gradient_of_last(layer, own_tape, tape.last, d, d_own)
                    made = layer._backward(own_tape, d, d_own, part, place)
                except (TypeError, ValueError) as error:
                    _checks.rename(error, "d_state", f"d_state[{name!r}]")
                    raise
                if state_too and made.state is not None:
                    states[name] = made.state
            else:
                made = layer._backward(own_tape, d, part, place)
            if kind is not Embedding:
                d = made.x
                if kind is Linear and layer.tied_to is not None and "weight" in made.weights:
                    tied.append(made.weights["weight"])
            if place is not None:
                if made.flat_weights is None:
                    place[...] = 0
                own = made.weights
                found.append({names[weight]: own[weight] for weight in own if weight in names})
        views: dict[str, Array] = {}
        for some in reversed(found):
            views |= some
        if tied:
            with np.errstate(all="ignore"):
                for d_weight in tied:
                    views[stages[0].names["weight"]] += d_weight
        return SequentialGradients(
            d if x_too else None, states if state_too else None, Weights(views), flat
        )

    def _wanted(
        self, wrt: Any, tape: SequentialTape
    ) -> tuple[list[tuple[str, ...]] | None, bool, bool, int]:
        """What is wanted of each layer, in its own words, and not counting its x; None: all.

        Then whether the gradients of x and of the states are, and which layer is the first that
        something is wanted of.
        """
        indices = self._stages[0].kind is Embedding
        if wrt is None:
            return None, not indices, True, 0
        valid = ("state", "weights", *self._weights)
        note = "x are indices, which have no gradient" if indices else ""
        wanted = _checks.names("wrt", wrt, valid if indices else ("x", *valid), note)
        parts: list[tuple[str, ...]] = []
        for stage in self._stages:
            part = tuple(own for own, name in stage.names.items() if name in wanted)
            if stage.names and "weights" in wanted:
                part = ("weights",)
            elif stage.kind is Linear and stage.layer.tied_to is not None:
                part += ("weight",) if {"weights", self._stages[0].names["weight"]} & wanted else ()
            state = stage.kind is Recurrent and "state" in wanted
            if state and tape.tapes[stage.name].tapes[0].h_0 is not None:
                part += ("state",)
            parts.append(part)
        first = 0
        while "x" not in wanted and first < len(parts) and not parts[first]:
            first += 1
        return parts, "x" in wanted, "state" in wanted, first

    # -------------------------------------------------------------------- the rest

    def count_parameters(self) -> int:
        """Return how many weights the model has.

        Returns
        -------
        int
            The size of `flat_weights`; what is tied counts once.

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.Sequential({"out": fastrnn.Linear(4, 2)}).count_parameters()
        10
        """
        return int(self._flat.size)

    def load_state_dict(self, d: Mapping[str, ArrayLike], strict: bool = True) -> IncompatibleKeys:
        for stage in self._stages:
            if stage.kind is Linear and stage.layer.tied_to is not None and isinstance(d, Mapping):
                # PyTorch's state_dict has a tied weight under both names.
                name, own = f"{stage.name}.weight", self._stages[0].names["weight"]
                if name in d:
                    rest = {n: a for n, a in d.items() if n != name}
                    whole = rest.setdefault(own, d[name])
                    if not np.array_equal(np.asarray(whole), np.asarray(d[name]), equal_nan=True):
                        raise ValueError(
                            f"d[{name!r}] differs from d[{own!r}], but they are one weight: "
                            f"{stage.name} is tied"
                        )
                    d = rest
        return super().load_state_dict(d, strict)

    load_state_dict.__doc__ = Weighted.load_state_dict.__doc__

    def __repr__(self) -> str:
        return "\n".join((type(self).__name__, *table(self._stages, self._flat.size)))

    if not TYPE_CHECKING:  # as in Weighted

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and name in getattr(self, "layers", ()):
                text = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(f"{text}: it is model.layers[{name!r}]", name=name, obj=self)
            return super().__getattr__(name)

        def __getitem__(self, name: Any) -> Any:
            raise TypeError(f"a Sequential has no items: write model.layers[{name!r}]")

    def __reduce__(self) -> Any:
        _, _, state = super().__reduce__()
        return _with_layers, (type(self), owner(self._flat), dict(self.layers)), state


def _with_layers(kind: type[Sequential], memory: Memory, layers: Mapping[str, Any]) -> Sequential:
    """A copied model before its state, of copied layers that share its memory."""
    layers = dict(layers)
    if any(map(in_model, layers.values())):  # it is a shallow copy, and they are another model's
        originals = {id(layer): name for name, layer in layers.items()}
        layers = {name: copy(layer) for name, layer in layers.items()}
        for layer in layers.values():
            if (embedding := getattr(layer, "tied_to", None)) is not None:
                layer._tied = layers[originals[id(embedding)]]
    model = kind.__new__(kind)
    model._arrange(layers)
    model._adopt(memory)
    for layer in layers.values():
        layer._model = ref(model)
    model._set_all({"_complete": True})
    _models.add(model)
    return model
