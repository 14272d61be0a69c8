"""Frozen layers: what they share. Weights as they were, packed once, for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from .. import _checks, _cures
from .._attributes import Guarded
from .._cures import WEIGHT
from .._memory import owner

if TYPE_CHECKING:
    import numpy as np

    from .weights import Weighted

_PACKAGE = __name__.partition(".")[0]
PRECISIONS = ("float32", "float64")
_AGAIN = "change the layer that it was made from, and freeze that again"
_INFERENCE = "it is for inference: call it; the layer trains, and can be frozen again"
_WEIGHTS = f"nothing of it can be changed: {_AGAIN}"
_REFUSED = {
    "forward": _INFERENCE, "backward": _INFERENCE, "weights": _WEIGHTS, "flat_weights": _WEIGHTS,
    "state_dict": "fastrnn.save writes it, and fastrnn.convert.to_torch copies its weights",
    "load_state_dict": f"it does not change: {_AGAIN}",
    "freeze": "it is frozen already",
    "stream": "recurrent layers have it, of a frozen model frozen.layers['rnn'].stream()",
}  # fmt: skip


class Frozen(Guarded):
    """A layer or model that does not change, with packed weights: made by ``layer.freeze()``.

    A subclass says in `_pack` what is packed, and is called like the layer, whose class names it in
    `_frozen_kind`.

    Parameters
    ----------
    layer : Weighted
        It is copied, and may change or go away then.
    precision : str, optional
        Of the packed weights; None: the layer's own.

    Attributes
    ----------
    precision : str
    nbytes : int
    """

    _freezes: ClassVar[str] = "what a kind of its own freezes"  # in errors
    _layer: Any  # of the plain kind, this object's alone, and its weights are read-only
    _precision: str
    _packed: tuple[Any, ...]  # each has current() and nbytes; replaced as a whole

    def __init__(self, layer: Weighted, precision: str | None = None) -> None:
        if self._complete:
            raise TypeError(f"{self!r} does not change: freeze another layer")
        kind = getattr(type(layer), "_frozen_kind", Frozen)
        if kind is Frozen or not isinstance(self, kind):
            cure = ": write layer.freeze()" if kind is not Frozen else ""
            if isinstance(layer, type):
                cure = ": make one of it"
            raise TypeError(f"layer is {_cures.kind(layer)}, expected {self._freezes}{cure}")
        precision = checked_precision(layer, precision)
        self._hold(self._snapshot(layer), precision)

    @staticmethod
    def _snapshot(layer: Any) -> Any:
        """What of a layer is kept."""
        return snapshot(layer)

    @classmethod
    def _of(cls, layer: Any, precision: str) -> Self:
        """Freeze a plain layer that nobody else has: it is not copied."""
        frozen = cls.__new__(cls)
        frozen._hold(layer, precision)
        return frozen

    def _hold(self, layer: Any, precision: str) -> None:
        self._layer, self._precision = read_only(layer), precision
        self._packed = self._pack()
        self._complete = True

    def _pack(self) -> tuple[Any, ...]:
        """Pack the weights of `_layer`, for the instruction set in use; () where nothing is."""
        return ()

    def _current(self) -> tuple[Any, ...]:
        """The packed weights, packed again where the instruction set has changed.

        A call asks once and uses what it got. Threads that ask at the same time may both pack:
        whose tuple is kept does not matter.
        """
        packed = self._packed
        if packed and not packed[0].current():
            self._packed = packed = self._pack()
        return packed

    @property
    def precision(self) -> str:
        """What the packed weights are, "float32" or "float64"."""
        return self._precision

    @property
    def nbytes(self) -> int:
        """The bytes of its weights: the plain ones, which it keeps, and the packed ones.

        How large those are depends on the instruction set in use when they were packed. A weight
        that is tied counts in both layers, in a model once. Objects and names do not count.
        """
        plain = sum(weight.nbytes for weight in self._layer.weights.values())
        return int(plain + sum(packed.nbytes for packed in self._packed))

    def _refusal(self, name: str) -> str:
        return f"{name} cannot be set, as a frozen {_kind(self)} does not change: {_AGAIN}"

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name} cannot be deleted: a frozen {_kind(self)} does not change")

    def _described(self) -> tuple[str, ...]:
        """The attributes that it has of the layer."""
        return (*self._layer._fixed, *self._layer._settable, "dtype")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._described()})

    if not TYPE_CHECKING:  # as in Weighted

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):  # a property that fails, whose error it is
                return object.__getattribute__(self, name)
            if name.startswith("_"):
                text = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(text, name=name, obj=self)
            layer = self._layer
            if name in self._described():
                return getattr(layer, name)
            text = f"a frozen {_kind(self)} has no {name}"
            if name in _REFUSED:
                text += f": {_REFUSED[name]}"
            elif name in layer._weights or WEIGHT.fullmatch(name):
                text += f": {_WEIGHTS}"
            elif hasattr(type(layer), name):
                text += ": the layer that it was made from has it"
            raise AttributeError(text, name=name, obj=self)

    def __repr__(self) -> str:
        own = self._precision == str(self._layer.dtype)
        return f"{self._layer!r}.freeze({'' if own else repr(self._precision)})"

    # What does not change may be shared.
    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> Any:
        layer = self._layer
        memory = owner(layer._flat)
        if memory is not None and memory.whole is not None:  # a model's, which would come along
            layer = snapshot(layer)
        return _refrozen, (type(self), layer, self._precision)

    if TYPE_CHECKING:

        @property
        def dtype(self) -> np.dtype[Any]: ...


def _refrozen(kind: type[Frozen], layer: Any, precision: str) -> Frozen:
    return kind._of(layer, precision)


def _kind(frozen: Frozen) -> str:
    return type(frozen._layer).__name__


def checked_precision(layer: Weighted, precision: Any) -> str:
    """The precision in which a layer is frozen; None stands for its own."""
    own = str(layer.dtype)
    if precision is None:
        return own
    if not isinstance(precision, str):
        name = getattr(precision, "name", getattr(precision, "__name__", ""))  # of a dtype, a type
        cure = f": pass precision={name!r}" if name in PRECISIONS else ""
        expected = _checks.listed([repr(one) for one in PRECISIONS])
        raise TypeError(f"precision is {_cures.shown(precision)}, expected {expected}{cure}")
    precision = _checks.choice("precision", precision, PRECISIONS)
    if precision != own:
        raise ValueError(
            f"precision is {precision!r}, but the {type(layer).__name__} is {own}: pass "
            f"precision=None, or freeze a layer that was made with dtype={precision!r}"
        )
    return own


def plain_kind(layer: Any) -> Any:
    """The class of ours that a layer is of, whatever a user has derived from it."""
    return next(c for c in type(layer).__mro__ if c.__module__.partition(".")[0] == _PACKAGE)


def snapshot(layer: Any, embedding: Any = None) -> Any:
    """A plain copy of a layer, with weights of its own that are read-only.

    Parameters
    ----------
    layer : Weighted
        No model: its layers are copied one by one.
    embedding : Embedding, optional
        What a layer that is tied is tied to in the copy; None: a copy of its own.
    """
    kind = plain_kind(layer)
    check_call(layer, kind)
    said = {name: getattr(layer, name) for name in kind._told()}
    tied = getattr(layer, "tied_to", None)
    if tied is None:
        return read_only(kind._restored(said, layer._weights))
    embedding = snapshot(tied) if embedding is None else embedding
    return read_only(kind._restored_tied(embedding, said, layer._weights))


def check_call(layer: Any, kind: Any) -> None:
    """Raise TypeError where a user's class is called in a way of its own."""
    if type(layer).__call__ is not kind.__call__:
        name = kind.__name__
        raise TypeError(
            f"{type(layer).__name__} has a __call__ of its own, which a frozen {name} would not "
            f"have: freeze a {name}, and let your class call that"
        )


def plain_of(value: Any) -> Any:
    """The layer of plain weights, which are read-only, that a frozen one has; others themselves.

    What is tied is so only inside a model: alone it is a layer with that weight.
    """
    if not isinstance(value, Frozen):
        return value
    layer = value._layer
    if getattr(layer, "tied_to", None) is None:
        return layer
    return read_only(plain_kind(layer)._restored(layer._arguments(), layer.weights))


def frozen_of(layer: Any, precision: str) -> Frozen:
    """A frozen layer of a plain one that nobody else has."""
    made: Frozen = layer._frozen_kind._of(layer, precision)
    return made


def read_only(layer: Any) -> Any:
    """The layer, into whose weights nothing can be written any more."""
    for a in (layer._flat, *layer._weights.values()):
        a.flags.writeable = False
    return layer
