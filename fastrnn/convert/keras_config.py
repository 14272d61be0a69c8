"""What the configuration of a Keras model says: its layers, and what can be made of each.

Nothing is executed or looked up by a name in it: a configuration is data, of which only what is
known here, and means the same here, passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from .._json import parse_json
from ._layers import several, shown

_MAX_DEPTH = 50  # of models in models
_MAX_NESTING = 300  # of lists and dicts: far from the limits of repr
_MAX_NAME = 1000
_MAX_CLASS = 100  # of the name of a class

# Keras's class to ours, and that of its cell.
RECURRENT = {"SimpleRNN": "RNN", "LSTM": "LSTM", "GRU": "GRU"}
_CELLS = {f"{name}Cell": own for name, own in RECURRENT.items()}
_MODELS = ("Sequential", "Functional", "Model")
# What does nothing but in training.
_PASS = (
    "InputLayer", "Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "Identity",
)  # fmt: skip
_NONLINEARITIES = {"linear": "identity"} | {
    name: name for name in ("tanh", "relu", "sigmoid", "hard_sigmoid")
}
_FLOATS = ("float64", "float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")

# Options that change no number, or only those of training, or what of the results is returned.
_HARMLESS = re.compile(
    r"name|trainable|(batch_)?(input_)?shape|input_length|(\w+_)?(initializer|regularizer|constraint)"
    r"|(recurrent_)?dropout|seed|implementation|unroll|unit_forget_bias|return_(sequences|state)"
    r"|zero_output_for_mask|build_config"
)
# What is looked at here, whatever its value.
_READ = {
    "units", "activation", "recurrent_activation", "use_bias", "reset_after", "go_backwards",
    "stateful", "merge_mode", "layer", "backward_layer", "cell", "cells", "input_dim",
    "output_dim", "mask_zero", "dtype",
}  # fmt: skip


class Cell(NamedTuple):
    """One direction of one layer of ours.

    Attributes
    ----------
    kind : str
        The name of our layer.
    path : tuple of str
        Where the variables are, as Keras names the way to them.
    units : int
    bias : bool
    options : dict
        Of our layer.
    inputs : int or None
        How many there are, where that is said.
    """

    kind: str
    path: tuple[str, ...]
    units: int
    bias: bool
    options: dict[str, Any]
    inputs: int | None = None


class Part(NamedTuple):
    """A layer of a model that has no layers inside, and what becomes of it.

    Attributes
    ----------
    name, kind : str
        Its name, in models inside the model joined by "/", and its class.
    path : tuple of str
        The way to it.
    cells : list of list of Cell
        What it becomes: of each layer of a stack, its directions. [] if nothing.
    faults : dict of str to str
        What cannot be expressed, by its name, or by name/option if the rest can be.
    """

    name: str
    kind: str
    path: tuple[str, ...]
    cells: list[list[Cell]]
    faults: dict[str, str]


class _Node(NamedTuple):
    """A layer's class and configuration."""

    kind: str
    config: dict[str, Any]
    custom: str  # what it is registered as, if it is none of Keras's own
    called: Any  # how a model calls it
    is_layer: bool  # no bare operation


def parsed(text: str | bytes, what: str) -> dict[str, Any]:
    """The dict that a JSON text says."""
    found = parse_json(what, text)
    level: list[Any] = [found]
    for _ in range(_MAX_NESTING):
        inside = (held.values() if isinstance(held, dict) else held for held in level)
        level = [v for values in inside for v in values if isinstance(v, dict | list)]
        if not level:
            return found
    raise ValueError(f"{what} is nested more than {_MAX_NESTING} deep")


def parts_of(config: Any, what: str) -> list[Part]:
    """The layers of a model, or the one layer, in the order of the configuration.

    Parameters
    ----------
    config : object
        What was parsed: the dict of a class_name and a config, or such a config alone.
    what : str
        What it is, for errors.

    Raises
    ------
    ValueError
        If it is no such thing, or has two layers of one name.
    """
    if isinstance(config, dict) and "keras_version" in config:
        check_version(config["keras_version"], what)
    node = _node(_with_class(config), what)
    parts: list[Part] = []
    if node.kind in _MODELS and not node.custom:
        _walk(node, "", (), parts, what, False)
    else:
        parts.append(_part(node, _name(node, what), (), False))
    counts = Counter(part.name for part in parts)
    if twice := [name for name, n in counts.items() if n > 1]:
        raise ValueError(f"{what} has several layers with the name {several(map(shown, twice))}")
    return parts


def check_version(version: Any, what: str) -> None:
    """Raise ValueError for what Keras 2 has written: there hard_sigmoid had another slope."""
    if not isinstance(version, str) or not re.match(r"[0-9]{1,4}\.", version):
        raise ValueError(f"{what} does not say which version of Keras it is of: {shown(version)}")
    if int(version.partition(".")[0]) < 3:
        raise ValueError(
            f"{what} is of Keras {shown(version)}, expected 3: load it in Keras 3 and save it as "
            ".keras"
        )


def _with_class(config: Any) -> Any:
    """A layer's own get_config() with the class, which its options tell."""
    if not isinstance(config, dict) or "class_name" in config:
        return config
    for option, kind in (
        ("layers", "Functional" if "output_layers" in config else "Sequential"),
        ("merge_mode", "Bidirectional"), ("cell", "RNN"), ("reset_after", "GRU"),
        ("unit_forget_bias", "LSTM"), ("recurrent_initializer", "SimpleRNN"),
        ("output_dim", "Embedding"), ("layer", "TimeDistributed"), ("units", "Dense"),
    ):  # fmt: skip
        if option in config:
            is_cell = kind in RECURRENT and "return_sequences" not in config
            return {"class_name": kind + "Cell" * is_cell, "config": config}
    return config


def _node(value: Any, what: str) -> _Node:
    kind = value.get("class_name") if isinstance(value, dict) else None
    config = value.get("config") if isinstance(value, dict) else None
    named = isinstance(kind, str) and len(kind) <= _MAX_CLASS and kind.isprintable()
    if not isinstance(kind, str) or not named or not isinstance(config, dict):
        raise ValueError(f"{what} is no configuration of a layer or model: {shown(value)}")
    module, registered = value.get("module"), value.get("registered_name")
    own = module in (None, "keras", "keras.layers", "keras.models") or (
        isinstance(module, str) and module.startswith("keras.src.")
    )
    custom = (
        ""
        if own and registered in (None, kind)
        else shown(f"{module}.{kind}".removeprefix("None."))[1:-1]
    )
    is_layer = not (isinstance(module, str) and module.startswith("keras.src.ops"))
    return _Node(kind, config, custom, value.get("inbound_nodes"), is_layer)


def _name(node: _Node, what: str) -> str:
    name = node.config.get("name", snake(node.kind))
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or "/" in name:
        raise ValueError(f"{what} has a layer with the name {shown(name)}")
    return name


def snake(kind: str) -> str:
    """A class's name as Keras writes it in paths, such as lstm_cell for LSTMCell."""
    starts = r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])"  # of words
    return re.sub(starts, "_", re.sub(r"\W", "", kind)).lower()


def numbered(kinds: list[str]) -> list[str]:
    """The names that objects of these classes have in a list of Keras's."""
    before: Counter[str] = Counter()
    found = []
    for kind in kinds:
        name = snake(kind)
        found.append(f"{name}_{before[name]}" if before[name] else name)
        before[name] += 1
    return found


def _walk(
    node: _Node, prefix: str, path: tuple[str, ...], parts: list[Part], what: str, training: bool
) -> None:
    """Add the layers of a model."""
    listed = node.config.get("layers")
    if not isinstance(listed, list):
        raise ValueError(f"{what} has a {node.kind} without a list of layers")
    if len(path) > 2 * _MAX_DEPTH:
        raise ValueError(f"{what} has models in models more than {_MAX_DEPTH} deep")
    nodes = [_node(value, f"{what}, in layers[{i}],") for i, value in enumerate(listed)]
    if node.kind == "Sequential" and nodes and nodes[0].kind == "InputLayer":
        del nodes[0]  # which is not among its layers, and holds nothing
    stored = [n for n in nodes if n.is_layer]
    places = dict(zip(map(id, stored), numbered([n.kind for n in stored]), strict=True))
    for child in nodes:
        name = prefix + _name(child, what)
        if not child.is_layer:
            parts.append(Part(name, child.kind, (), [], {name: f"the operation {child.kind}"}))
            continue
        place = (*path, "layers", places[id(child)])
        if child.kind in _MODELS and not child.custom:
            _walk(child, f"{name}/", place, parts, what, training or _in_training(child))
        else:
            parts.append(_part(child, name, place, training))


# ------------------------------------------------------------------------------ one layer


class _Unfit(Exception):
    """Why a layer has no counterpart."""


def _part(node: _Node, name: str, path: tuple[str, ...], training: bool) -> Part:
    """What becomes of a layer."""
    faults: dict[str, str] = {}
    cells: list[list[Cell]] = []
    try:
        if node.custom:
            raise _Unfit(
                f"{node.custom}, no class of Keras's own; layers inside of it can be passed by "
                "themselves"
            )
        if training or _in_training(node):
            raise _Unfit("called with training=True, so what it drops is not passed over")
        if node.kind not in _PASS:
            cells = _made(node, path, lambda option, why: faults.update({f"{name}/{option}": why}))
    except _Unfit as error:
        faults, cells = {name: str(error)}, []
    return Part(name, node.kind, path, cells, faults)


def _in_training(node: _Node) -> bool:
    """Whether a functional model calls a layer with training=True."""
    calls = node.called if isinstance(node.called, list) else []
    kwargs = [call.get("kwargs") for call in calls if isinstance(call, dict)]
    return any(isinstance(k, dict) and k.get("training") for k in kwargs)


_Report = Callable[[str, str], None]  # of an option that the caller may see to, and why


def _made(node: _Node, path: tuple[str, ...], report: _Report) -> list[list[Cell]]:
    """The layers of ours that one of Keras's becomes."""
    if node.kind == "Bidirectional":
        return _bidirectional(node, path, report)
    if node.kind == "TimeDistributed":
        _check_options(node)
        inner = _inner("layer", node.config.get("layer"))
        if inner.kind != "Dense":
            raise _Unfit(f"TimeDistributed of {inner.kind}, expected Dense")
        return _made(inner, (*path, "layer"), report)
    if node.kind in RECURRENT or node.kind == "RNN":
        return _sequence(node, path, report)
    if node.kind in _CELLS:
        return [[_cell(node, path)]]
    if node.kind == "Dense":
        _check_options(node)
        activation = _activation(node, "activation", "linear")
        if activation != "linear":
            report("activation", f"{activation}, which a Linear does not have")
        return [[Cell("Linear", path, _size(node, "units"), _flag(node, "use_bias", True), {})]]
    if node.kind == "Embedding":
        _check_options(node)
        if _flag(node, "mask_zero", False):
            report("mask_zero", "later layers skip index 0, which mask= or lengths= says here")
        width = _size(node, "output_dim")
        return [[Cell("Embedding", path, width, False, {}, _size(node, "input_dim"))]]
    if node.kind == "Masking":
        raise _Unfit("Masking: later layers skip steps, which mask= or lengths= says here")
    raise _Unfit(f"{node.kind} has no counterpart")


def _inner(option: str, value: Any) -> _Node:
    """The layer that is the value of another's option."""
    try:
        inner = _node(value, "")
    except ValueError:
        raise _Unfit(f"{option} is {shown(value)}, expected a layer") from None
    if inner.custom:
        raise _Unfit(f"{inner.custom} is no layer of Keras's own")
    return inner


def _sequence(node: _Node, path: tuple[str, ...], report: _Report) -> list[list[Cell]]:
    """The layers of a SimpleRNN, LSTM, GRU or RNN, in one direction."""
    for option, why in (
        ("stateful", "it keeps its state between calls; here the caller passes it on"),
        ("go_backwards", "its outputs begin with the last step; pass it x reversed in time"),
    ):
        if _flag(node, option, False):
            report(option, why)
    if _flag(node, "time_major", False):
        raise _Unfit("time_major=True, which Keras 3 does not have")
    path = (*path, "cell")
    if node.kind in RECURRENT:
        return [[_cell(node, path)]]
    _check_options(node)
    inner = _inner("cell", node.config.get("cell"))
    if inner.kind != "StackedRNNCells":
        return [[_cell(inner, path)]]
    _check_options(inner)
    listed = inner.config.get("cells")
    if not isinstance(listed, list) or not listed:
        raise _Unfit("StackedRNNCells without cells")
    nodes = [_inner("cell", cell) for cell in listed]
    places = numbered([n.kind for n in nodes])
    cells = [_cell(n, (*path, "cells", place)) for n, place in zip(nodes, places, strict=True)]
    _check_alike(cells, "cells of one kind, with the same options")
    return [[cell] for cell in cells]


def _bidirectional(node: _Node, path: tuple[str, ...], report: _Report) -> list[list[Cell]]:
    _check_options(node)
    mode = node.config.get("merge_mode", "concat")
    if mode != "concat":
        report("merge_mode", f"{shown(mode)}; what is made concatenates, as for concat")
    found = []
    for option, backwards in (("layer", False), ("backward_layer", True)):
        own = node.config.get(option)  # without a backward_layer, that is the layer again
        inner = _inner(option, node.config.get("layer") if own is None else own)
        if inner.kind not in (*RECURRENT, "RNN"):
            raise _Unfit(f"Bidirectional of {inner.kind}")
        if own is not None and _flag(inner, "go_backwards", False) != backwards:
            raise _Unfit(f"{option} with go_backwards={not backwards}")
        inner = inner._replace(config={**inner.config, "go_backwards": False})
        place = (*path, "forward_layer" if option == "layer" else option)
        found += [c for layer in _sequence(inner, place, report) for c in layer]
    if len(found) != 2:
        raise _Unfit("Bidirectional of stacked cells; here directions meet after each layer")
    _check_alike(found, "both directions with the same options")
    return [found]


def _check_alike(cells: list[Cell], expected: str) -> None:
    said = [(cell.kind, cell.units, cell.bias, cell.options) for cell in cells]
    if any(other != said[0] for other in said):
        raise _Unfit(f"{several(map(_said, cells))}, expected {expected}")


def _said(cell: Cell) -> str:
    options = "".join(f", {name}={value!r}" for name, value in cell.options.items())
    return f"{cell.kind}({cell.units}{options}{'' if cell.bias else ', bias=False'})"


def _cell(node: _Node, path: tuple[str, ...]) -> Cell:
    """One direction of one layer, from a layer's or a cell's options."""
    kind = RECURRENT.get(node.kind) or _CELLS.get(node.kind)
    if kind is None:
        raise _Unfit(f"RNN of {node.kind}")
    _check_options(node)
    options: dict[str, Any] = {}
    activation = _activation(node, "activation", "tanh")
    if kind == "RNN":
        if activation not in _NONLINEARITIES:
            raise _Unfit(f"activation {activation}, expected {', '.join(_NONLINEARITIES)}")
        options["nonlinearity"] = _NONLINEARITIES[activation]
    else:
        gates = _activation(node, "recurrent_activation", "sigmoid")
        if (activation, gates) != ("tanh", "sigmoid"):
            raise _Unfit(
                f"activation {activation} and recurrent_activation {gates}, expected tanh and "
                "sigmoid"
            )
    if kind == "GRU":
        options["reset_after"] = _flag(node, "reset_after", True)
    return Cell(kind, path, _size(node, "units"), _flag(node, "use_bias", True), options)


# ------------------------------------------------------------------------------ options


def _check_options(node: _Node) -> None:
    """Raise for what is not known, unless it is off."""
    for option, value in node.config.items():
        if option not in _READ and not _HARMLESS.fullmatch(option) and value:
            raise _Unfit(f"{shown(option)[1:-1]}={shown(value)}, which is not known here")
    name = given = node.config.get("dtype")
    if isinstance(given, dict) and isinstance(given.get("config"), dict):
        name = given["config"].get("name", given.get("class_name"))
    if given is not None and name not in _FLOATS:
        raise _Unfit(f"dtype {shown(name)}, expected one of {', '.join(_FLOATS)}")


def _flag(node: _Node, option: str, default: bool) -> bool:
    value = node.config.get(option, default)
    if not isinstance(value, bool):
        raise _Unfit(f"{option} is {shown(value)}, expected True or False")
    return value


def _size(node: _Node, option: str) -> int:
    value = node.config.get(option)
    if type(value) is not int or value < 1:
        raise _Unfit(f"{option} is {shown(value)}, expected a positive number")
    return value


def _activation(node: _Node, option: str, default: str) -> str:
    value = node.config.get(option, default)
    if value is None:
        return "linear"
    return shown(value)[1:-1] if isinstance(value, str) else shown(value)
