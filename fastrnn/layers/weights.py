"""Weights: views into one flat array, under PyTorch's names; what every layer is built on."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from .. import _checks, _core, _cures
from .._attributes import Checks, Guarded
from .._cures import WEIGHT
from .._memory import Memory, aligned_empty, handed_over, owner, taken_over

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


# What PyTorch's modules and Keras' models have and layers do not need.
_OF_MODULES = {
    "parameters": ": an optimiser takes layer.flat_weights",
    "named_parameters": ": they are in the mapping layer.weights",
    "zero_grad": ": gradients are what backward returns, new ones each time",
    "train": ": it is an argument of layer.forward, training=True",
    "eval": ": a call of the layer has no dropout; layer.forward has training=False",
    "to": ": make another layer with the dtype, and load its state_dict()",
    "double": ": make another layer with dtype='float64', and load its state_dict()",
    "float": ": make another layer with dtype='float32', and load its state_dict()",
    "cuda": ": all runs on the CPU",
    "requires_grad_": ": backward's wrt= says which gradients there are",
    "fit": ": a step of training is forward, a loss, backward and an optimiser's step",
    "predict": ": call it, as a function",
    "compile": ": nothing has to be compiled; see fastrnn.optim and the losses",
    "summary": ": print it",
    "get_weights": ": state_dict() copies them, and weights has them",
    "set_weights": ": load_state_dict(d) sets them",
    "add": ": a Sequential has all its layers from the start, in a mapping",
    "stream": ": recurrent layers have it, of a model model.layers['rnn'].stream()",
}


# Of arrays that state_dict() made.
_COPY = "is a copy that state_dict() made: make the optimiser of layer.flat_weights itself"


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(d, strict=False)`` passed over.

    Attributes
    ----------
    missing_keys : list of str
        The layer's names that `d` lacked: these weights stayed as they were.
    unexpected_keys : list of str
        The names in `d` that the layer does not have.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


def _some(names: Sequence[Any]) -> str:
    """The names, but of many the first three."""
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return ", ".join(map(str, names[:3] if more else names)) + more


class Weights(Mapping[str, "Array"]):
    """Read-only mapping from names to views into flat_weights, of a layer or of its gradients."""

    __slots__ = ("_views",)

    def __init__(self, views: dict[str, Array]) -> None:
        self._views = views

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __setitem__(self, name: str, value: Any) -> None:
        # weights[name] += step changes the view in place and then stores that very view back.
        if name not in self._views:
            names = ", ".join(self._views) or "none (gradients have those that wrt asks for)"
            raise TypeError(f"weights has no {name!r}: its names are {names}")
        if self._views[name] is not value:
            raise TypeError(
                f"weights[{name!r}] is a view into flat_weights and cannot be replaced: write its "
                f"elements, weights[{name!r}][...] = value"
            )

    def __delitem__(self, name: str) -> None:
        raise TypeError(
            f"weights[{name!r}] is a view into flat_weights and cannot be deleted: "
            f"dict(weights) is a dict of the views, which can lose them"
        )

    def __reduce__(self) -> Any:
        return _weights, ({name: handed_over(view) for name, view in self._views.items()},)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name!r}: {view.shape}" for name, view in self._views.items())
        return f"Weights({{{shapes}}})"


def _weights(views: Mapping[str, Any]) -> Weights:
    return Weights({name: taken_over(view) for name, view in views.items()})


class Weighted(Guarded):
    """An object whose weights are views into one flat array, which copies and pickles with it.

    A subclass has an attribute for every parameter of its constructor but those in `_for_start`; it
    says in `_fixed` and `_settable` how they are checked.
    """

    _for_start: ClassVar[tuple[str, ...]] = ("dtype", "rng", "init")
    _later: ClassVar[tuple[str, ...]] = ()  # parameters that files written before do not have

    _flat: Array
    _weights: Weights
    _model: Any = None  # a weak reference to the Sequential that the layer is in

    # From the memory of the weights, and from where the layer stands.
    _derived: ClassVar[tuple[str, ...]] = ("_flat", "_weights", "_model")
    _needed: ClassVar[tuple[str, ...]] = ()  # attributes without which weights cannot be adopted
    _fixed: ClassVar[Checks]
    _shapes: Callable[[], dict[str, tuple[int, ...]]]  # names and shapes, in flat_weights' order

    def _configure(self, **arguments: Any) -> None:
        """Check the constructor's arguments, and set the attributes of these names."""
        checks = {**self._fixed, **self._settable}
        self._set_all({name: checks[name](name, a) for name, a in arguments.items()})

    def _refusal(self, name: str) -> str | None:
        kind, names = type(self).__name__, list(getattr(self, "weights", ()))
        if name == "flat_weights":
            return f"{name} cannot be replaced: write its elements, layer.{name}[...] = value"
        if name == "bias" and name in self._fixed:
            biases = [n for n in names if n.startswith("bias")]
            write = biases and f"; its values: layer.weights[{biases[0]!r}][...] = value"
            return (
                f"bias says whether the {kind} has any, which was fixed when it was made: make "
                f"another one{write or ''}"
            )
        if name in names:
            return (
                f"{name} cannot be replaced: write its elements, layer.weights[{name!r}][...] = "
                "value"
            )
        if name == "weights":
            write = f"layer.weights[{names[0]!r}][...] = value" if names else ""
            return f"weights cannot be replaced: write the elements of each, {write}"
        if WEIGHT.fullmatch(name):
            have = f": its weights are {', '.join(names)}" if names else ""
            return f"{kind} has no weight {name}{have}{self._cure_of_missing(name)}"
        if name == "dtype":
            return (
                f"dtype was fixed when the {kind} was made: make another one with that dtype, and "
                "pass it this one's state_dict(), another.load_state_dict(layer.state_dict())"
            )
        return super()._refusal(name)

    def _cure_of_missing(self, name: str) -> str:
        """How a layer of this kind has a weight of that name, which this one lacks."""
        bias = getattr(self, "bias", True)
        if (name.startswith("bias") and not bias) or (name[:7] == "bias_hh" and bias == "single"):
            return "; make another one with bias=True"
        reverse = getattr(self, "reverse", None)
        if name.endswith("_reverse") and not (reverse or getattr(self, "bidirectional", True)):
            return "; make another one with bidirectional=True"
        layer = re.search(r"_l(\d+)", name)
        if reverse and layer and not name.endswith("_reverse"):
            return "; make another one with reverse=False"
        if name.startswith("weight_ih_l0") and getattr(self, "input_size", 0) is None:
            return "; make another one with an input_size"
        if layer and int(layer[1]) >= getattr(self, "num_layers", 1 << 60):
            return f"; make another one with num_layers={int(layer[1]) + 1}"
        return ""

    def _cure_of_transposed(self, name: str, d: Mapping[str, Any]) -> str:
        """The cure for a weight that is transposed; square ones look right either way."""
        matrices = {n: view for n, view in self._weights.items() if view.ndim == 2 and n in d}
        oblong = {n: v for n, v in matrices.items() if v.shape[0] != v.shape[1]}
        if any(np.shape(d[n]) == view.shape for n, view in oblong.items()):
            return f": pass np.transpose(d[{name!r}])"
        square = ", if the square ones are stored so too" if len(oblong) < len(matrices) else ""
        return f": pass {{n: np.transpose(a) for n, a in d.items()}}{square}"

    if not TYPE_CHECKING:  # as in Guarded

        def __getattr__(self, name: str) -> Any:
            # Only for what there is not: as PyTorch's modules have their weights.
            if hasattr(type(self), name):  # a property that fails, whose error it is
                return object.__getattribute__(self, name)
            names = () if name.startswith("_") else getattr(self, "weights", ())
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in names:
                text += f": it is layer.weights[{name!r}]"
            elif names and WEIGHT.fullmatch(name):
                text += f": its weights are layer.weights, {', '.join(names)}"
            elif name in ("train", "eval") and "training" not in signature(self.forward).parameters:
                text += ": it behaves alike in training and in use"
            elif name in _OF_MODULES:
                text += _OF_MODULES[name]
            raise AttributeError(text, name=name, obj=self)

        def __setattr__(self, name: str, value: Any) -> None:
            # layer.flat_weights -= step changes the array in place and then stores it back.
            if name != "flat_weights" or value is not getattr(self, "_flat", None):
                super().__setattr__(name, value)

    def _allocate(self, dtype: Any) -> None:
        """Make uninitialised weights for the sizes configured."""
        shapes = self._shapes()
        count = sum(math.prod(shape) for shape in shapes.values())
        if count > _checks.MAX_ELEMENTS:
            sizes = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(
                f"the weights {sizes} have {count} elements, which is larger than the address space"
            )
        # Made again in the same form, a layer keeps its memory, and so its optimisers.
        kept: Mapping[str, Array] | None = getattr(self, "_weights", None)
        same = kept is not None and shapes == {name: view.shape for name, view in kept.items()}
        memory = owner(self._flat) if same and dtype == self.dtype else None
        if memory is None and in_model(self):
            raise ValueError(
                f"this {type(self).__name__} is in a Sequential, which has its weights: make "
                "another layer of that form"
            )
        self._adopt(memory or Memory(aligned_empty(count, dtype)))

    def _weight_gradients(
        self, wanted: Collection[str], flat: Array | None = None
    ) -> tuple[Array | None, Weights]:
        """A flat array for the gradients, zero but for the weights named, and views of these.

        Every name of a weight may be in `wanted`, or "weights" for all of them. `flat`: the array,
        where that is made.
        """
        named = [name for name in self._weights if "weights" in wanted or name in wanted]
        if not named:
            return None, Weights({})
        if flat is None:
            size, dtype = self._flat.size, self.dtype
            large = self._flat.nbytes >= _core.LARGE_RESULT
            flat = _core.empty_flat(size, dtype.num) if large else aligned_empty(size, dtype)
        if len(named) < len(self._weights):
            flat[...] = 0
        # As the weights are, whatever has become of the attributes: C writes so much.
        views = views_of(flat, {name: view.shape for name, view in self._weights.items()})
        return flat, Weights({name: views[name] for name in named})

    def _arguments(self) -> dict[str, Any]:
        """The constructor's arguments that say what the layer is, defaults included.

        Those in `_later` are left out where they have their default: files are as they were.
        """
        said = {}
        for name, parameter in self._told().items():
            value, default = getattr(self, name), parameter.default
            if name not in self._later or type(value) is not type(default) or value != default:
                said[name] = value
        return said

    @classmethod
    def _told(cls) -> dict[str, Parameter]:
        """The constructor's parameters that say what the layer is."""
        parameters = signature(cls).parameters
        return {name: p for name, p in parameters.items() if name not in cls._for_start}

    @classmethod
    def _restored(cls, arguments: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """A layer from what `_arguments` and `weights` gave, whoever says so: all of it is checked.

        Nothing is allocated before the arrays are found to have the shapes that the arguments
        imply.
        """
        layer = cls.__new__(cls)
        known = cls._told()
        if not known.keys() - cls._later <= arguments.keys() <= known.keys():
            raise ValueError(f"the arguments are {', '.join(arguments)}, not {', '.join(known)}")
        arguments = {name: known[name].default for name in cls._later} | dict(arguments)
        largest = max([len(arrays), *(n for a in arrays.values() if a.size for n in a.shape)])
        for name, value in arguments.items():
            if name == "num_layers":  # before it becomes a list of that length
                if isinstance(value, int) and value > len(arrays):
                    raise ValueError(f"{name} is {value}, but there are {len(arrays)} weights")
            elif isinstance(value, int) and value > largest:
                raise ValueError(f"{name} is {value}, but no weight has so many rows or columns")
        layer._configure(**arguments)
        shapes = layer._shapes()
        if faults := mismatches(shapes, arrays):
            raise ValueError("; ".join(faults))
        first, *others = (_checks.array(name, a) for name, a in arrays.items())
        for name, array in zip(list(arrays)[1:], others, strict=True):
            _checks.array(name, array, first.dtype, next(iter(arrays)))
        layer._allocate(first.dtype)
        for name, view in layer._weights.items():
            view[...] = arrays[name]
        return layer

    def __repr__(self) -> str:
        parts = []  # as the constructor takes them, without what has its default
        for name, parameter in signature(type(self)).parameters.items():
            value = str(self.dtype) if name == "dtype" else getattr(self, name, parameter.default)
            if value is parameter.empty:  # of a subclass, which has no such attribute
                continue
            if parameter.default is parameter.empty:
                parts.append(repr(value))
            elif value != parameter.default:
                parts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _adopt(self, memory: Memory) -> None:
        """Make the weights views into this memory."""
        memory.of_layer = True
        self._flat = np.asarray(memory)
        self._weights = Weights(views_of(self._flat, self._shapes()))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the weights, and of every array that the layer takes and returns."""
        return self._flat.dtype

    @property
    def weights(self) -> Weights:
        """Read-only mapping of names to views: write ``weights["bias_ih_l0"][...] = 0``."""
        return self._weights

    @property
    def flat_weights(self) -> Array:
        """Every weight, in one aligned array of one axis; the values of `weights` are its views."""
        return self._flat

    def state_dict(self) -> dict[str, Array]:
        """Copies of the weights, under PyTorch's names.

        Returns
        -------
        dict of str to ndarray
            As `weights` has them: of their names, shapes and dtype.

        Examples
        --------
        >>> import fastrnn
        >>> {name: w.shape for name, w in fastrnn.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        return {name: _marked_copy(view) for name, view in self.weights.items()}

    def load_state_dict(self, d: Mapping[str, ArrayLike], strict: bool = True) -> IncompatibleKeys:
        """Set the weights from a mapping of names to arrays.

        Everything is checked and converted before the first weight is written.

        Parameters
        ----------
        d : mapping
            As `state_dict` returns it, or PyTorch's: each value of its weight's shape. Any floating
            type is converted.
        strict : bool
            Whether the names must be exactly the layer's. If not, missing weights stay as they
            are and unexpected names are passed over.

        Returns
        -------
        IncompatibleKeys
            A named tuple, ``.missing_keys`` and ``.unexpected_keys``: what was passed over.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unexpected while `strict`, or a value does not fit.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.Linear(3, 1)
        >>> layer.load_state_dict({"weight": np.ones((1, 3))}, strict=False)
        IncompatibleKeys(missing_keys=['bias'], unexpected_keys=[])
        """
        if not isinstance(d, Mapping):
            own = hasattr(d, "state_dict") and not isinstance(d, type)
            cure = ": pass d.state_dict()" if own else ""
            if isinstance(d, Iterator):
                cure = ": pass dict(d)"
            if _cures.is_frozen(d):
                cure = ": pass the state_dict() of the layer that was frozen"
            if isinstance(d, str | os.PathLike):
                cure = ": pass fastrnn.load(d)"
            raise TypeError(f"d is {_cures.kind(d)}, expected a mapping of names to arrays{cure}")
        weights = self.weights
        missing = [name for name in weights if name not in d]
        unexpected = [name for name in d if name not in weights]
        if _checks.flag("strict", strict) and (missing or unexpected):
            parts = [f"lacks {_some(missing)}"] if missing else []
            parts += [f"has unexpected {_some(unexpected)}"] if unexpected else []
            cure = _cures.for_names("d", d, weights)
            names = _some(list(weights))
            raise ValueError(f"d {' and '.join(parts)}: the names are {names}{cure}")
        converted = {}
        for name, view in weights.items():
            if name in d:
                if isinstance(d[name], np.ma.MaskedArray):  # np.asarray would drop the mask
                    _checks.plain_array(f"d[{name!r}]", d[name])
                what = f"d[{name!r}]"
                if _cures.is_tensor(d[name]) and (cure := _cures.for_tensors("d", d)):
                    raise TypeError(f"{what} is {_cures.kind(d[name])}, expected an array{cure}")
                try:
                    value = np.asarray(d[name])
                except ValueError:  # nested sequences of unequal lengths
                    raise ValueError(f"{what} is ragged, expected {view.shape}") from None
                except Exception:  # whatever another library's object raises
                    given = _cures.kind(d[name])
                    raise TypeError(f"{what} is {given}, expected an array") from None
                if not np.issubdtype(value.dtype, np.floating):
                    cure = ""
                    if value.dtype.kind in "iub":
                        cure = f": pass {{n: np.asarray(a, np.{self.dtype}) for n, a in d.items()}}"
                    raise TypeError(f"{what} is {value.dtype}, expected a floating type{cure}")
                if value.shape != view.shape:
                    cure = _cures.for_shape(what, value.shape, view.shape)
                    if cure.endswith(".T"):
                        cure = self._cure_of_transposed(name, d)
                    raise ValueError(f"{what} has shape {value.shape}, expected {view.shape}{cure}")
                if not view.flags.writeable:
                    raise ValueError(
                        f"weights[{name!r}] is read-only: "
                        + _cures.for_read_only(f"layer.weights[{name!r}]", view)
                    )
                converted[name] = _rounded(f"d[{name!r}]", value, self.dtype)
        for name, value in converted.items():
            weights[name][...] = value
        return IncompatibleKeys(missing, unexpected)

    def __reduce__(self) -> Any:
        # The weights go another way than the state, of which a subclass may make what it likes.
        state: Any = self.__getstate__()
        if isinstance(state, dict):
            state = {name: value for name, value in state.items() if name not in self._derived}
        names = (*self._fixed, *self._settable, *self._needed)
        said = {name: getattr(self, name) for name in names}
        return _with_weights, (type(self), owner(self._flat), said), state

    def __getstate__(self) -> Any:
        return self._all_attributes(self._derived)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_all(state)


def in_model(layer: Any) -> bool:
    """Whether a layer is in a Sequential that there still is."""
    return layer._model is not None and layer._model() is not None


def _marked_copy(weight: Array) -> Array:
    """A copy of a weight, which no optimiser can take for the weight itself."""
    memory = Memory(weight.reshape(-1).copy(), None, _COPY)
    return np.asarray(memory).reshape(weight.shape)


def _with_weights(kind: type[Weighted], memory: Memory, said: Mapping[str, Any]) -> Weighted:
    """A copied layer before its state: a shallow copy has the same memory, others their own."""
    layer = kind.__new__(kind)
    layer._set_all({**said, "_complete": True})
    layer._adopt(memory)
    return layer


def copied_gradients(grads: Any) -> Any:
    """What pickles gradients, named tuples, so that `weights` stay views into `flat_weights`."""
    flat = grads.flat_weights
    memory = None
    if flat is not None and flat.flags.c_contiguous:
        memory = owner(flat) or Memory(flat.reshape(-1))
    views = {name: handed_over(view, memory) for name, view in grads.weights.items()}
    rest = {
        name: value
        for name, value in grads._asdict().items()
        if name not in ("weights", "flat_weights")
    }
    flat = None if flat is None else handed_over(flat, memory)
    return _gradients, (type(grads), rest, views, flat)


def _gradients(kind: Any, rest: Mapping[str, Any], views: Mapping[str, Any], flat: Any) -> Any:
    return kind(**rest, weights=_weights(views), flat_weights=taken_over(flat))


def mismatches(shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Array]) -> list[str]:
    """All that keeps arrays from being weights of these names and shapes, each fault as a text."""
    missing = [name for name in shapes if name not in arrays]
    unexpected = [name or "''" for name in arrays if name not in shapes]
    faults = [f"lacks {', '.join(missing)}"] if missing else []
    faults += [f"has unexpected {', '.join(unexpected)}"] if unexpected else []
    for name, shape in shapes.items():
        if name in arrays and arrays[name].shape != shape:
            faults.append(f"{name} has shape {arrays[name].shape}, expected {shape}")
    return faults


def _rounded(name: str, value: Array, dtype: np.dtype[Any]) -> Array:
    """The value in that type; ValueError where it leaves its range."""
    with np.errstate(all="ignore"):
        rounded = value.astype(dtype)
        if (np.isinf(rounded) & np.isfinite(value)).any():
            raise ValueError(
                f"{name} holds {value.dtype} numbers that are infinite in {dtype}, which the layer "
                "has: make the layer with dtype='float64'"
            )
    return rounded


def same_weight(name: str, used: Array | None, own: Array | None) -> None:
    """Raise ValueError unless a tape's weight is the layer's own, or (after a copy) equal to it."""
    if used is own:
        return
    if (
        used is None
        or own is None
        or (used.dtype, used.shape) != (own.dtype, own.shape)
        or used.tobytes() != own.tobytes()
    ):
        raise ValueError(f"tape is of another layer: its {name} is not this layer's")


def views_of(flat: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Consecutive pieces of a flat array in the given shapes."""
    views, start = {}, 0
    for name, shape in shapes.items():
        end = start + math.prod(shape)
        views[name] = flat[start:end].reshape(shape)
        start = end
    return views
