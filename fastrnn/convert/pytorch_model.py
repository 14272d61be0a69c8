"""What a model of PyTorch, or its weights alone, hold: where layers are, and of which kind."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _cures
from ..io import read_tensors
from ..layers import LAYERS, RECURRENT, Recurrent, Weighted
from ._layers import NAME, make_layer, several, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

UNSURE = "Linear without bias, or Embedding"  # which no state_dict tells
_CELL = re.compile(r"(weight|bias)_(ih|hh)")  # what a Cell has
_GATES = {RECURRENT[name]._cell.gates: RECURRENT[name].__name__ for name in ("rnn", "gru", "lstm")}
# Second ways of holding a weight, and what makes it plain again.
_REWRITTEN = {
    re.compile(r"parametrizations\.(\w+)\.\w+"):
        "parametrized: torch.nn.utils.parametrize.remove_parametrizations makes them plain",
    re.compile(r"(\w+)_(?:orig|mask)"): "pruned: torch.nn.utils.prune.remove makes them plain",
    re.compile(r"(\w+)_[gv]"): "normalised: torch.nn.utils.remove_weight_norm makes them plain",
}  # fmt: skip


class Part(NamedTuple):
    """A module with weights of its own.

    Attributes
    ----------
    path : str
        As in the model's named_modules().
    kind : str
        What layer it becomes, `UNSURE`, or "" for none.
    why : str
        Why none can be made of it, though it looks like one.
    weights : dict of str to tensor or array
    module : torch.nn.Module or None
    where : str
        What to call it.
    """

    path: str
    kind: str
    why: str
    weights: dict[str, Any]
    module: Any
    where: str


def parts_of(source: Any) -> tuple[str, dict[str, Part]]:
    """What the caller calls the source, and its parts by their paths."""
    modules: dict[str, Any] = {}
    said = "source"
    if isinstance(source, str | bytes | os.PathLike) or hasattr(source, "read"):
        said, weights = "the file", read_tensors(source)[0]
    elif isinstance(source, Mapping):
        weights = _of_mapping(source)
    else:
        weights = _of_mapping(_checked(source).state_dict())
        # A module that is used twice is there under both names.
        modules = dict(source.named_modules(remove_duplicate=False))
    groups: dict[str, dict[str, Any]] = {}
    for path, module in modules.items():
        if _is_quantised(module):
            groups[path] = {}
    for name, value in weights.items():
        start, mark, rest = f".{name}".partition(".parametrizations.")
        if mark:
            path, own = start.removeprefix("."), f"parametrizations.{rest}"
        else:
            path, _, own = name.rpartition(".")
        groups.setdefault(path, {})[own] = value
    parts = {}
    for path, its in groups.items():
        where = f"{said} at {shown(path)}" if path else said
        module = modules.get(path)
        parts[path] = Part(path, *_judged(module, its), its, module, where)
    return said, parts


def _checked(source: Any) -> Any:
    """The source, which is a module."""
    torch = sys.modules.get("torch")
    cure = ""
    if isinstance(source, type):
        cure = ": make one of it"
    elif isinstance(source, Weighted) or _cures.is_frozen(source):
        cure = ": it is a layer of fastrnn already"
    elif callable(getattr(source, "state_dict", None)):
        cure = ": pass source.state_dict()"
    elif hasattr(source, "state_dict"):  # as of torch.export
        cure = ": pass source.state_dict"
    if torch is None or not isinstance(source, torch.nn.Module):
        raise TypeError(
            f"source is {_cures.kind(source)}, expected a torch.nn.Module, a state_dict or the "
            f"path of a safetensors file{cure}"
        )
    if isinstance(source, torch.jit.ScriptModule):
        raise TypeError(
            "source is a ScriptModule, whose modules do not say what they are: pass "
            "source.state_dict(), and batch_first= and nonlinearity= as the modules have them"
        )
    return source


def _of_mapping(source: Mapping[Any, Any]) -> dict[str, Any]:
    """The weights in a mapping; what is no tensor is none: the step of a checkpoint."""
    found = {}
    for name, value in source.items():
        if not isinstance(name, str):
            raise TypeError(f"source has the key {_cures.shown(name)}, expected names of weights")
        if name.rpartition(".")[2] == "_extra_state":
            continue
        if isinstance(value, Mapping) and any(map(_has_shape, value.values())):
            raise TypeError(
                f"source[{name!r}] is {_cures.kind(value)}, expected a tensor or an array: "
                f"pass source[{name!r}]"
            )
        if _has_shape(value):
            found[name] = value
    return found


def _has_shape(value: Any) -> bool:
    try:
        return hasattr(value, "shape")
    except RuntimeError:  # of a lazy module that was not called yet
        return False


def _is_quantised(module: Any) -> bool:
    return ".quantized." in type(module).__module__ and "Packed" not in type(module).__name__


# ------------------------------------------------------------------------------ kinds


def _judged(module: Any, weights: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of a part, and why no layer can be made of it."""
    if module is not None and _is_quantised(module):
        return type(module).__name__, "its weights are quantised"
    shapes: dict[str, tuple[int, ...]] = {}
    how = ""
    for name, a in weights.items():
        plain = name
        for pattern, text in _REWRITTEN.items():
            if (match := pattern.fullmatch(name)) and _is_weight(match[1]):
                plain, how = match[1], how or text
        shapes[plain] = max(shapes.get(plain, ()), tuple(a.shape), key=len)
    if module is not None:
        kind = _kind_of_module(module)
    elif any(NAME.fullmatch(name) or _CELL.fullmatch(name) for name in shapes):
        kind = _kind_of_weights(shapes)
        if not kind:
            kind = "RNN, LSTM or GRU"
            how = how or f"of no number of gates: {listed(weights)}"
    else:
        kind = _kind_of_matrix(shapes)
    if kind and how:
        return kind, f"its weights are {how}"
    return kind, _changed(module) if kind and module is not None else ""


def _is_weight(name: str) -> bool:
    return bool(NAME.fullmatch(name) or _CELL.fullmatch(name) or name == "weight")


def _kind_of_module(module: Any) -> str:
    nn = sys.modules["torch"].nn
    if isinstance(module, nn.Linear | nn.Embedding):
        return "Linear" if isinstance(module, nn.Linear) else "Embedding"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        names = [cls.__name__ for cls in type(module).__mro__]
        return next((k for k in _GATES.values() if k in names or f"{k}Cell" in names), "")
    return ""


def _kind_of_weights(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """RNN, LSTM or GRU by the number of gates, which most weights agree on; "" where none does."""
    if any("_hr_" in name or "_peephole_" in name for name in shapes):
        return "LSTM"
    units = [shape[1] for name, shape in shapes.items() if "_hh" in name and len(shape) == 2]
    rows = [shape[0] for name, shape in shapes.items() if shape]
    found = [_GATES.get(n // H) for H in units if H for n in rows if n % H == 0]
    known = [kind for kind in found if kind is not None]
    return max(known, key=known.count, default="")


def _kind_of_matrix(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What has one matrix, by its bias."""
    if len(shapes.get("weight", ())) == 2:
        if set(shapes) == {"weight", "bias"} and shapes["bias"] == shapes["weight"][:1]:
            return "Linear"
        if set(shapes) == {"weight"}:
            return UNSURE
    return ""


def _changed(module: Any) -> str:
    """What a module does besides what its weights say; "" where that is nothing."""
    if getattr(module, "max_norm", None) is not None:
        return "it has max_norm, and so changes when it is called"
    known = ("torch.nn.modules.", "fastrnn.torch.")
    base: Any = next(cls for cls in type(module).__mro__ if cls.__module__.startswith(known))
    what = ""
    if module.__class__.forward is not base.forward:
        what = "a forward of its own"
    elif module._forward_hooks or module._forward_pre_hooks:
        what = "forward hooks"
    return what and f"it has {what}: its state_dict() is taken, of which that is no part"


# ------------------------------------------------------------------------------ layers


def listed(weights: Mapping[str, Any]) -> str:
    """Names and shapes, for errors."""
    return several((f"{shown(name)[1:-1]} {tuple(a.shape)}" for name, a in weights.items()), 8)


def options_of(kind: str) -> tuple[str, ...]:
    """What weights do not say of a layer of this kind: modules do, or from_torch is told."""
    if not issubclass(LAYERS[kind], Recurrent):
        return ("padding_idx",) if kind == "Embedding" else ()
    return ("batch_first", "dropout", *(("nonlinearity",) if kind == "RNN" else ()))


def made(part: Part, kind: str, options: dict[str, Any]) -> Weighted:
    """The layer of a part."""
    if part.why:
        raise ValueError(f"{part.where}: {part.why}")
    own = {name: getattr(part.module, name) for name in options_of(kind)
           if hasattr(part.module, name)}  # fmt: skip
    f = own.get("nonlinearity")
    if f is not None and options.get("nonlinearity", f) != f:
        raise ValueError(f"nonlinearity is {options['nonlinearity']!r}, but {part.where} has {f!r}")
    arrays = {}
    for name, a in part.weights.items():
        on_layer = f"{name}_l0" if _CELL.fullmatch(name) else name
        if on_layer in part.weights and on_layer != name:
            raise ValueError(f"{part.where}: it has both {name} and {on_layer}")
        arrays[on_layer] = _array(f"{part.where}, {name},", a)
    return make_layer(kind, arrays, part.where, **own | options)


def _array(what: str, value: Any) -> Array:
    """What a tensor or an array holds."""
    if _cures.is_tensor(value):
        try:
            value = value.detach().cpu()
            return np.asarray(value.float() if value.dtype.itemsize < 4 else value)
        except Exception:  # sparse, quantised, without memory, and whatever else there is
            given = f"a tensor of {value.dtype}, {value.layout}, on {value.device}"
            raise TypeError(f"{what} is {given}, expected floating numbers") from None
    try:
        return value if isinstance(value, np.ndarray) else np.asarray(value)
    except Exception:  # whatever another library's object raises
        raise TypeError(f"{what} is {_cures.kind(value)}, expected an array") from None
