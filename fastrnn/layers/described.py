"""Layers and models in words that JSON has, and made of them again: what files say of them.

What comes from a file is not believed: nothing is allocated before the arrays that there are have
the shapes that the words imply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import _cures
from .._json import fields, shown
from . import LAYERS
from .dropout import Dropout
from .embedding import Embedding
from .frozen import Frozen, frozen_of, plain_of
from .linear import Linear
from .sequential import Sequential

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# What there is in a model, and what else has a name in a file.
_PARTS: dict[str, Any] = {**LAYERS, "Dropout": Dropout}
KINDS: dict[str, Any] = {**_PARTS, "Sequential": Sequential}


def describe(what: str, name: str, layers: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON is to hold of a layer or model, of which `restore` makes it again.

    Parameters
    ----------
    what : str
        What the caller calls it.
    name : str
    layers : mapping
        What is saved together; ``layers[name]`` is the layer.
    """
    layer = layers[name]
    if isinstance(layer, Frozen):  # in a file it is the plain layer, with a mark
        return describe(what, name, {name: plain_of(layer)}) | {"frozen": layer.precision}
    kind = type(layer).__name__
    if KINDS.get(kind) is not type(layer):
        cure = f": pass {what}.state_dict()" if hasattr(layer, "state_dict") else ""
        raise TypeError(f"{what} is {_cures.kind(layer)}, which load does not know{cure}")
    if kind == "Sequential":
        inside = layer.layers
        return {
            "kind": kind,
            "layers": {n: describe(f"{what}.layers[{n!r}]", n, inside) for n in inside},
        }
    said: dict[str, Any] = {"kind": kind, "arguments": layer._arguments()}
    others = {}
    if (embedding := getattr(layer, "tied_to", None)) is not None:
        tied = next((other for other, object_ in layers.items() if object_ is embedding), None)
        if tied is None:
            raise ValueError(
                f"{what} is tied to an embedding that objects lacks: write objects = "
                f"{{**objects, {name + '_embedding'!r}: {what}.tied_to}}"
            )
        said["tied"], others = tied, {tied: embedding}
    own = {} if kind == "Dropout" else layer._weights
    restore(what, said, own, others)  # attributes may have been overwritten
    return said


def restore(
    what: str, described: Mapping[str, Any], arrays: Mapping[str, Array], others: Mapping[str, Any]
) -> Any:
    """A layer or model of what `describe` says, exactly, with these weights.

    Parameters
    ----------
    what : str
        What to call it.
    described : dict
        Whose "kind" is one of `KINDS`.
    arrays : mapping of str to ndarray
    others : mapping
        What there is already of the same file: the embedding that this may be tied to.
    """
    kind = described["kind"]
    if "frozen" in described:
        plain = {key: value for key, value in described.items() if key != "frozen"}
        if "tied" in plain:  # to weights that may change
            raise ValueError(f"{what} ({kind}) is marked as frozen, and tied")
        return _frozen(what, described["frozen"], restore(what, plain, arrays, others))
    if kind == "Sequential":
        return _model(what, described, arrays)
    embedding = None
    if kind == "Linear" and "tied" in described:
        _, arguments, name = fields(what, described, kind=str, arguments=dict, tied=str)
        embedding = others.get(name)
        if type(embedding) is not Embedding:
            raise ValueError(f"{what} is tied to {shown(name)}, which is no embedding")
    else:
        _, arguments = fields(what, described, kind=str, arguments=dict)
    try:
        if embedding is None:
            layer = _PARTS[kind]._restored(arguments, arrays)
        else:
            layer = Linear._restored_tied(embedding, arguments, arrays)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{what} ({kind}): {error}") from None
    for name, given in arguments.items():
        value = getattr(layer, name)
        if type(given) is not type(value) or given != value:  # "0.5" and 0 make floats
            raise ValueError(f"{what} ({kind}): {name} is {shown(given)}, expected {value!r}")
    return layer


def _frozen(what: str, precision: Any, layer: Any) -> Any:
    """A restored layer, frozen again."""
    kind = type(layer).__name__
    if not hasattr(layer, "_frozen_kind"):
        raise ValueError(f"{what} ({kind}) is marked as frozen, which no {kind} is")
    if type(precision) is not str or precision != str(layer.dtype):
        raise ValueError(
            f"{what} ({kind}): frozen is {shown(precision)}, expected {str(layer.dtype)!r}"
        )
    return frozen_of(layer, precision)


def _model(what: str, described: Mapping[str, Any], arrays: Mapping[str, Array]) -> Sequential:
    _, inside = fields(what, described, kind=str, layers=dict)
    groups: dict[str, dict[str, Array]] = {name: {} for name in inside}
    for weight, a in arrays.items():
        name, _, own = weight.partition(".")
        if name not in groups:
            raise ValueError(f"{what}: {shown(weight)} is of none of its layers")
        groups[name][own] = a
    layers: dict[str, Any] = {}
    for name, one in inside.items():
        at = f"{what}.layers[{shown(name)}]"
        kind = one.get("kind") if type(one) is dict else None
        if type(kind) is not str or kind not in _PARTS:
            known = ", ".join(_PARTS)
            raise ValueError(f"{at} is of the kind {shown(kind)}, expected one of {known}")
        if "frozen" in one:
            raise ValueError(f"{at} is marked as frozen, which only a model is as a whole")
        layers[name] = restore(at, one, groups[name], layers)
    try:
        return Sequential(layers)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} (Sequential): {error}") from None
