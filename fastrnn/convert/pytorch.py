"""PyTorch's weights: from modules, state_dicts and safetensors files, and back."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _cures
from ..io import read_tensors
from ..layers import LAYERS, RECURRENT, Recurrent, Weighted
from ._layers import NAME, Entry, check_skip, described, kind_of, make_layer, refuse, several, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_CELL = re.compile(r"(weight|bias)_(ih|hh)")  # what a Cell has
_KINDS = ("RNN", "LSTM", "GRU", "Linear", "Embedding")
_GATES = {RECURRENT[name]._cell.gates: RECURRENT[name].__name__ for name in ("rnn", "gru", "lstm")}
_UNSURE = "Linear without bias, or Embedding"  # which no state_dict tells


class _Source(NamedTuple):
    """A model: its weights, and its modules if there are any to ask."""

    said: str  # what the caller calls it
    weights: Mapping[str, Any]
    modules: Mapping[str, Any]


def from_torch(
    source: Any,
    prefix: str = "",
    *,
    kind: str | None = None,
    nonlinearity: str | None = None,
    batch_first: bool | None = None,
    dropout: float | None = None,
) -> Weighted:
    """Make a layer of a module of PyTorch, or of its weights.

    The module is an RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell, Linear or Embedding, or a model
    with one of them inside. PyTorch is not needed for weights that are in arrays or in a file.

    Parameters
    ----------
    source : module, mapping or path
        A torch.nn.Module; its ``state_dict()``, or another mapping of names to tensors or arrays,
        as ``dict(module.named_parameters())``; or the path of a safetensors file.
    prefix : str
        Where in the model the layer is, as in its ``named_modules()``: "encoder.rnn". What is alone
        inside a module is found by the name of that module too, or by "".
    kind : {"RNN", "LSTM", "GRU", "Linear", "Embedding"}, optional
        Of the layer, where the weights leave it open: a Linear without bias, or an Embedding.
    nonlinearity : {"tanh", "relu"}, optional
        Of an Elman layer. None: the module's own; of weights, "tanh".
    batch_first : bool, optional
    dropout : float, optional
        Of the layer that is made. None: the module's own; of weights, False and 0.

    Returns
    -------
    RNN, LSTM, GRU, Linear or Embedding
        With copies of the weights, in float32 or float64; float16 and bfloat16 are widened to
        float32. A Cell becomes a layer: ``layer.stream()`` takes one step at a time.

    Raises
    ------
    TypeError
        If the source is none of these, holds weights that are no floating numbers, or becomes a
        layer that has no such option.
    ValueError
        If there is no layer, or more than one, of which the error says where they are; or its
        weights do not fit together, of which the error names all. Also for a file that is damaged,
        or a pickle (a .pt file), with the lines that convert it.
    OSError
        If a file cannot be read.

    See Also
    --------
    to_torch : the way back.
    fastrnn.torch.accelerate : runs a model's own modules on the kernels, in PyTorch.

    Examples
    --------
    >>> import numpy as np, fastrnn.convert
    >>> shapes = {"weight_ih_l0": (12, 3), "weight_hh_l0": (12, 4), "bias_ih_l0": (12,)}
    >>> shapes["bias_hh_l0"] = (12,)
    >>> state = {f"encoder.{name}": np.zeros(shape, "f4") for name, shape in shapes.items()}
    >>> fastrnn.convert.from_torch(state, "encoder")
    GRU(3, 4)
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix is {_cures.kind(prefix)}, expected a str")
    if kind is not None:
        _checks.choice("kind", kind, _KINDS)
    given = {"nonlinearity": nonlinearity, "batch_first": batch_first, "dropout": dropout}
    if nonlinearity is not None:
        _checks.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
    if batch_first is not None:
        _checks.flag("batch_first", batch_first)
    if dropout is not None:
        _checks.fraction("dropout", dropout)
    model = _opened(source)
    groups = _groups(model)
    path = _chosen(model, groups, prefix.removesuffix("."))
    found = _kind(model, path, groups[path])
    if found == _UNSURE and kind in ("Linear", "Embedding"):
        found = kind
    if found == _UNSURE:
        raise ValueError(
            f"{_where(model, path)} is a {found}: its weight does not say which: pass kind='Linear'"
            ", or kind='Embedding'"
        )
    if kind is not None and kind != found:
        raise ValueError(f"kind is {kind!r}, but {_where(model, path)} is {_cures.an(found)}")
    options = {name: value for name, value in given.items() if value is not None}
    takes = _options_of(found)
    for name in options:
        if name not in takes:
            raise TypeError(f"{name} is given, but {_where(model, path)} is {_cures.an(found)}")
    return _made(model, path, groups[path], found, options)


def to_torch(layer: Weighted, *, cell: bool = False) -> dict[str, Array]:
    """Return the weights of a layer as the state_dict of PyTorch's module of that kind.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, Linear or Embedding
    cell : bool
        Whether the module is a Cell, whose weights have no ``_l0`` in their names.

    Returns
    -------
    dict of str to ndarray
        Copies. ``module.load_state_dict({n: torch.from_numpy(a) for n, a in d.items()})`` takes
        them.

    Raises
    ------
    TypeError
        If it is no layer.
    ValueError
        If PyTorch has no such layer: a LeakyRNN, peepholes, ``reset_after=False``,
        ``reverse=True``, ``input_size=None``, another nonlinearity than tanh and relu.

    See Also
    --------
    from_torch : the other way.

    Examples
    --------
    >>> import fastrnn.convert
    >>> layer = fastrnn.GRU(3, 4, rng=0)
    >>> {name: a.shape for name, a in fastrnn.convert.to_torch(layer, cell=True).items()}
    {'weight_ih': (12, 3), 'weight_hh': (12, 4), 'bias_ih': (12,), 'bias_hh': (12,)}
    """
    if not isinstance(layer, Weighted):
        raise TypeError(f"layer is {_cures.kind(layer)}, expected a layer of fastrnn")
    name = kind_of(layer)
    f = getattr(layer, "nonlinearity", "tanh")
    why = [
        text
        for text, there in (
            (name, name not in _KINDS),
            ("layer without weight_ih", getattr(layer, "input_size", 0) is None),
            (f"nonlinearity {f!r}", f not in ("tanh", "relu")),
            ("reset gate before the product", not getattr(layer, "reset_after", True)),
            ("peepholes", getattr(layer, "peephole", False)),
            ("reverse direction alone", getattr(layer, "reverse", False)),
        )
        if there
    ]
    if why:
        raise ValueError(f"layer is {layer!r}: PyTorch has no {' and no '.join(why)}")
    state = layer.state_dict()
    if not _checks.flag("cell", cell):
        return state
    if not isinstance(layer, Recurrent) or len(state) != (4 if layer.bias else 2):
        raise ValueError(
            f"cell is True, but layer is {layer!r}, expected a recurrent layer with num_layers=1, "
            "in one direction and without projection"
        )
    return {weight.removesuffix("_l0"): a for weight, a in state.items()}


# ------------------------------------------------------------------------------ whole models


def contents(source: Any) -> list[Entry]:
    """What a model, a state_dict or a safetensors file holds, layers or not."""
    model = _opened(source)
    found = []
    for path, weights in _groups(model).items():
        kind, why, becomes = _kind(model, path, weights), "", ""
        if not kind:
            why = "no layer that there is here"
        elif kind == _UNSURE:
            why = "which of them it is, its weight does not say"
        else:
            try:
                becomes = repr(_made(model, path, weights, kind, {}))
            except (TypeError, ValueError) as error:
                why = str(error)
        found.append(Entry(path, kind, becomes, why, described(weights)))
    return found


def layers_of(
    source: Any, skip: Any = (), kinds: Mapping[str, str] | None = None, **options: Any
) -> dict[str, Weighted]:
    """All layers of a model by their paths.

    Parameters
    ----------
    source
        As for `from_torch`.
    skip : collection of str
        The paths of what is left out.
    kinds : mapping of str to str, optional
        Of layers whose weights leave it open, by their paths.
    **options
        As for `from_torch`: those of the recurrent layers.

    Raises
    ------
    ValueError
        If there is anything else than layers and what is left out.
    """
    model = _opened(source)
    groups = _groups(model)
    left_out = check_skip(skip, groups)
    kept = {path: weights for path, weights in groups.items() if path not in left_out}
    found = {path: _kind(model, path, weights) for path, weights in kept.items()}
    for path, kind in (kinds or {}).items():
        if found.get(path) != _UNSURE:
            open_ = several(repr(p) for p, k in found.items() if k == _UNSURE)
            raise ValueError(
                f"kinds has {path!r}, expected what is left open: {open_ or 'nothing'}"
            )
        found[path] = _checks.choice(f"kinds[{path!r}]", kind, ("Linear", "Embedding"))
    faults = {
        path: kind or f"no layer ({_shapes(kept[path])})"
        for path, kind in found.items()
        if kind in ("", _UNSURE)
    }
    unsure = {path: "Embedding" for path, kind in found.items() if kind == _UNSURE}
    layers = {}
    for path in [p for p in kept if p not in faults]:
        takes = _options_of(found[path])
        own = {name: value for name, value in options.items() if name in takes}
        try:
            layers[path] = _made(model, path, kept[path], found[path], own)
        except (TypeError, ValueError) as error:
            faults[path] = str(error).removeprefix(f"{_where(model, path)}: ")
    said = unsure | dict(kinds or {})
    cures = [f"kinds={said!r}, or 'Linear' for such a one"] if unsure else []
    refuse(model.said, faults, faults.keys() - unsure.keys(), left_out, cures)
    return {path: layers[path] for path in kept}


# ------------------------------------------------------------------------------ what is there


def _opened(source: Any) -> _Source:
    modules: dict[str, Any] = {}
    if isinstance(source, str | bytes | os.PathLike) or hasattr(source, "read"):
        return _Source("the file", read_tensors(source)[0], {})
    weights = source
    if not isinstance(source, Mapping):
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(source, torch.nn.Module):
            raise TypeError(
                f"source is {_cures.kind(source)}, expected a torch.nn.Module, a state_dict or the "
                f"path of a safetensors file{_cure_of_source(source)}"
            )
        modules, weights = dict(source.named_modules()), source.state_dict()
    for name, value in weights.items():
        if not isinstance(name, str):
            raise TypeError(f"source has the key {_cures.shown(name)}, expected names of weights")
        # As in a checkpoint.
        if isinstance(value, Mapping) and any(hasattr(a, "shape") for a in value.values()):
            raise TypeError(
                f"source[{name!r}] is {_cures.kind(value)}, expected a tensor or an array: "
                f"pass source[{name!r}]"
            )
    # What is no tensor at all is no weight: the extra state of a module, the step of a checkpoint.
    return _Source("source", {n: a for n, a in weights.items() if hasattr(a, "shape")}, modules)


def _cure_of_source(source: Any) -> str:
    if isinstance(source, type):
        return ": make one of it"
    if isinstance(source, Weighted):
        return ": it is a layer of fastrnn already"
    return ": pass source.state_dict()" if hasattr(source, "state_dict") else ""


def _groups(model: _Source) -> dict[str, dict[str, Any]]:
    """The weights of each module, by its path and their own names."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in model.weights.items():
        path, _, own = name.rpartition(".")
        found.setdefault(path, {})[own] = value
    return found


def _kind(model: _Source, path: str, weights: Mapping[str, Any]) -> str:
    """Of which kind a layer is, "" where it is none."""
    module = model.modules.get(path)
    if module is not None:
        torch = sys.modules["torch"]
        nn = torch.nn
        if isinstance(module, nn.Linear | nn.Embedding):
            return "Linear" if isinstance(module, nn.Linear) else "Embedding"
        if not isinstance(module, nn.RNNBase | nn.RNNCellBase):
            return ""
    shapes = {name: tuple(a.shape) for name, a in weights.items()}
    if any(NAME.fullmatch(n) or _CELL.fullmatch(n) for n in shapes):
        return _recurrent_kind(shapes)
    if module is None and len(shapes.get("weight", ())) == 2:
        if set(shapes) == {"weight", "bias"} and shapes["bias"] == shapes["weight"][:1]:
            return "Linear"
        if set(shapes) == {"weight"}:
            return _UNSURE
    return ""


def _recurrent_kind(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """RNN, LSTM or GRU by the number of gates, which most weights agree on; "" where none does."""
    if any("_hr_" in name or "_peephole_" in name for name in shapes):
        return "LSTM"
    units = [shape[1] for name, shape in shapes.items() if "_hh" in name and len(shape) == 2]
    rows = [shape[0] for name, shape in shapes.items() if shape]
    found = [_GATES.get(n // H) for H in units if H for n in rows if n % H == 0]
    known = [kind for kind in found if kind is not None]
    return max(known, key=known.count, default="")


def _chosen(model: _Source, groups: Mapping[str, Mapping[str, Any]], prefix: str) -> str:
    """The path of the one layer that the prefix means."""
    layers = {path: kind for path, own in groups.items() if (kind := _kind(model, path, own))}
    if prefix in layers:
        return prefix
    inside = [path for path in layers if not prefix or path.startswith(f"{prefix}.")]
    if len(inside) == 1:
        return inside[0]
    if inside:
        # What is recurrent is more likely to be meant.
        meant = next((p for p in inside if layers[p] in ("RNN", "LSTM", "GRU")), inside[0])
        listed = several(
            (f"{shown(p)}, {layers[p]} ({_shapes(groups[p])})" for p in inside), between="; "
        )
        raise ValueError(
            f"{model.said} has {len(inside)} layers{_under(prefix)}: {listed}: pass "
            f"prefix={meant!r}, or another of these"
        )
    have = f"; there are layers at {several(map(shown, layers))}" if layers else ""
    names = [n for n in model.weights if not prefix or n.startswith(f"{prefix}.")]
    if names and not layers:
        have = f"; what there is: {_shapes({n: model.weights[n] for n in names})}"
    elif not model.weights:
        have = "; it is empty"
    raise ValueError(
        f"{model.said} has no RNN, LSTM, GRU, Cell of these, Linear or Embedding{_under(prefix)}"
        f"{have}{_rewritten(names)}"
    )


def _under(prefix: str) -> str:
    return f" under the prefix {prefix!r}" if prefix else ""


def _shapes(weights: Mapping[str, Any]) -> str:
    return several((f"{shown(name)[1:-1]} {tuple(a.shape)}" for name, a in weights.items()), 8)


def _rewritten(names: list[str]) -> str:
    """What undoes a module's second way of holding its weights; "" where there is none."""
    if any(".parametrizations." in f".{name}" for name in names):
        return (
            "; some weights are parametrized: torch.nn.utils.parametrize.remove_parametrizations "
            "makes them plain"
        )
    if any(name.endswith(("_orig", "_g")) for name in names):
        return (
            "; some weights are pruned or normalised: torch.nn.utils.prune.remove, or "
            "torch.nn.utils.remove_weight_norm, makes them plain"
        )
    return ""


def _options_of(kind: str) -> tuple[str, ...]:
    """What from_torch may be told of a layer of this kind."""
    if not issubclass(LAYERS[kind], Recurrent):
        return ()
    return ("batch_first", "dropout", *(("nonlinearity",) if kind == "RNN" else ()))


def _where(model: _Source, path: str) -> str:
    return f"{model.said} at {shown(path)}" if path else model.said


def _made(
    model: _Source, path: str, weights: Mapping[str, Any], kind: str, options: dict[str, Any]
) -> Weighted:
    """The layer at a path."""
    where, module = _where(model, path), model.modules.get(path)
    start = f"{path}.parametrizations." if path else "parametrizations."
    rewritten = [n for n in model.weights if n.startswith(start)]
    if note := _rewritten([*weights, *rewritten]):
        raise ValueError(f"{where}{note.replace('; some', ': some')}")
    if kind == "Embedding" and getattr(module, "max_norm", None) is not None:
        raise ValueError(f"{where} is an Embedding with max_norm, which changes when it is called")
    arrays = {name: _array(f"{where}, {name},", a) for name, a in weights.items()}
    if not issubclass(LAYERS[kind], Recurrent):
        return make_layer(kind, arrays, where)
    own = {name: getattr(module, name) for name in _options_of(kind) if hasattr(module, name)}
    f = own.get("nonlinearity")
    if f is not None and options.get("nonlinearity", f) != f:
        raise ValueError(f"nonlinearity is {options['nonlinearity']!r}, but {where} has {f!r}")
    arrays = {f"{n}_l0" if _CELL.fullmatch(n) else n: a for n, a in arrays.items()}
    return make_layer(kind, arrays, where, **own | options)


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
