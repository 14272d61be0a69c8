"""How layers are put together in a model: what may stand where, and what fits behind what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import _cures, _sharing
from .dropout import Dropout
from .embedding import Embedding
from .linear import Linear
from .recurrent import Recurrent
from .weights import Weighted, in_model

KINDS: tuple[Any, ...] = (Recurrent, Linear, Embedding, Dropout)


class Stage(NamedTuple):
    """A layer in its place."""

    name: str
    layer: Any
    kind: Any  # which of KINDS
    width: int  # of its output
    start: int  # where its weights lie in the model's
    end: int
    names: dict[str, str]  # its own weights: their names in the model


def checked_layers(given: Any) -> dict[str, Any]:
    """The layers of a model by their names, which fit together and are in no other."""
    if not isinstance(given, Mapping):
        cure = ""
        if isinstance(given, list | tuple):
            cure = ": pass {f'layer{i}': layer for i, layer in enumerate(layers)}"
        elif kind_of(given):
            cure = ": pass {'layer': layers}"
        text = f"layers is {_cures.kind(given)}, expected a mapping of names to layers"
        raise TypeError(text + cure)
    layers = dict(given)
    if all(isinstance(layer, Dropout) for layer in layers.values()):
        raise ValueError(f"layers has {_listed(layers)}, expected at least one layer with weights")
    before: tuple[str, int] | None = None
    first: tuple[str, Any] | None = None
    places: dict[int, str] = {}
    for i, (name, layer) in enumerate(layers.items()):
        _check_name(name)
        at = f"layers[{name!r}]"
        _check_kind(at, layer)
        if id(layer) in places or in_model(layer):
            where = places.get(id(layer), "in another Sequential")
            # Copied together where they are several, so that what is tied stays so.
            several = id(layer) not in places and (
                sum(map(_taken, layers.values())) > 1 or any(map(_tied, layers.values()))
            )
            what = "layers" if several else at
            raise ValueError(
                f"{at} is {where} already, and a layer stands in one place: write {what} = "
                f"copy.deepcopy({what})"
            )
        places[id(layer)] = at
        if isinstance(layer, Dropout):
            continue
        if isinstance(layer, Embedding) and i:
            raise ValueError(f"{at} is an Embedding, which takes indices: it can only come first")
        name_of_first, first_layer = next(iter(layers.items()))
        if _tied(layer) and layer.tied_to is not first_layer:
            cure = f"put that first, {{'words': {at}.tied_to, **layers}}"
            if isinstance(first_layer, Embedding):
                bias = "" if layer.bias else ", bias=False"
                cure = f"write {at} = fastrnn.Linear.tied(layers[{name_of_first!r}]{bias})"
            raise ValueError(f"{at} is tied to an embedding that is not in layers: {cure}")
        takes, gives = widths(layer)
        if before and before[1] != takes:
            cure = _cure_of_width(before[0], layers, takes, before[1]) if _tied(layer) else ""
            raise ValueError(
                f"{at} takes {takes} features, but {before[0]} gives {before[1]}{cure}"
            )
        if first and first[1] != layer.dtype:
            raise TypeError(
                f"{at} is {layer.dtype}, {first[0]} is {first[1]}: make them with one dtype"
            )
        before, first = (at, gives), first or (at, layer.dtype)
    check_axes("layers", layers)
    arrays = {n: a.flat_weights for n, a in layers.items() if not isinstance(a, Dropout)}
    for i, j in _sharing.sharing([*arrays.values()]):
        at, other = (f"layers[{list(arrays)[k]!r}]" for k in (j, i))
        raise ValueError(
            f"{at} shares its weights with {other}; for weights of its own, write {at} = "
            f"copy.deepcopy({at})"
        )
    return layers


def _taken(layer: Any) -> bool:
    return kind_of(layer) is not None and in_model(layer)


def _tied(layer: Any) -> bool:
    return isinstance(layer, Linear) and layer.tied_to is not None


def _cure_of_width(before: str, layers: Mapping[str, Any], takes: int, gives: int) -> str:
    """How what stands before a tied layer gives the features of the embedding."""
    layer = next(a for n, a in layers.items() if f"layers[{n!r}]" == before)
    can_project = hasattr(layer, "proj_size") and not layer.bidirectional
    if can_project and takes < layer.hidden_size:
        return f": make {before} with proj_size={takes}"
    return f": put a Linear({gives}, {takes}) between them, as the tied one has the embedding's"


def _listed(layers: Mapping[str, Any]) -> str:
    return f"only {', '.join(map(repr, layers))}" if layers else "nothing"


def _check_name(name: Any) -> None:
    said = f"layers has the name {_cures.shown(name)}, expected"
    if not isinstance(name, str):
        raise TypeError(f"{said} a str: pass {{str(n): layer for n, layer in layers.items()}}")
    if not name or "." in name:
        cure = ": pass {n.replace('.', '_'): layer for n, layer in layers.items()}" if name else ""
        raise ValueError(f"{said} one that is not empty and has no dot{cure}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{said} one that UTF-8 has bytes for, as files need it") from None


def _check_kind(at: str, layer: Any) -> None:
    kind = kind_of(layer)
    if kind is None:
        expected = "expected a recurrent layer, Linear, Embedding or Dropout"
        cure = ""
        if isinstance(layer, type):
            cure = ": make one of it"
        elif _cures.is_frozen(layer):
            cure = ": give the layers that were frozen, and freeze the model, model.freeze()"
        elif isinstance(layer, Weighted):  # a model
            cure = ": models do not nest, one has all the layers: give them before they are in one"
        raise TypeError(f"{at} is {_cures.kind(layer)}, {expected}{cure}")
    uncalled = ("backward", "forward", "__call__") if kind is Dropout else ("backward",)
    for name in uncalled:
        if getattr(type(layer), name) is not getattr(kind, name):
            raise TypeError(
                f"{at} is {_cures.kind(layer)}, whose class has a {name} of its own, which a "
                "Sequential would not call: chain such layers by hand"
            )


def check_axes(what: str, layers: Mapping[str, Any]) -> None:
    """Raise unless all that know which axis time is mean the same one."""
    first = None
    for name, layer in layers.items():
        if isinstance(layer, Recurrent) or (isinstance(layer, Dropout) and layer.variational):
            if first is None:
                first = name, layer.batch_first
            elif layer.batch_first != first[1]:
                at = f"{what}[{name!r}]"
                raise ValueError(
                    f"{at} has batch_first={layer.batch_first}, but {what}[{first[0]!r}] has "
                    f"batch_first={first[1]}: write {at}.batch_first = {first[1]}"
                )


def kind_of(layer: Any) -> Any:
    return next((kind for kind in KINDS if isinstance(layer, kind)), None)


def widths(layer: Any) -> tuple[int, int]:
    """How many features a layer takes and gives; an embedding takes indices, of no features."""
    if isinstance(layer, Embedding):
        return 0, layer.embedding_dim
    if isinstance(layer, Linear):
        return layer.in_features, layer.out_features
    return layer._x_axis[0], layer._units * len(layer._ways)


def may_drop(layer: Any) -> bool:
    """Whether a layer has a place for dropout, however likely that is now."""
    return isinstance(layer, Dropout) or (isinstance(layer, Recurrent) and layer.num_layers > 1)


def drop_of(layer: Any) -> float:
    """How likely dropout is in such a layer while training."""
    p: float = layer.p if isinstance(layer, Dropout) else layer.dropout
    return p


def table(stages: Sequence[Stage], total: int) -> list[str]:
    """The lines that show a model of so many weights."""
    rows = [("name", "layer", "output", "parameters")]
    for stage in stages:
        layer = stage.layer
        text = repr(layer)
        if _tied(layer):
            text = f"Linear.tied({stages[0].name}{'' if layer.bias else ', bias=False'})"
        rows.append((stage.name, text, str(stage.width or ""), str(stage.end - stage.start)))
    rows.append(("total", "", "", str(total)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        name, text, *numbers = (
            cell.ljust(n) if i < 2 else cell.rjust(n)
            for i, (cell, n) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(("", name, text, *numbers)))
    return lines
