"""PyTorch's weights: from modules, state_dicts and safetensors files, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _cures
from ..layers import Recurrent, Weighted
from ..layers.frozen import Frozen, plain_of
from ._layers import (
    Entry,
    check_single,
    check_skip,
    described,
    kind_of,
    refuse,
    several,
    shown,
)
from .pytorch_model import UNSURE, Part, listed, made, options_of, parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_KINDS = ("RNN", "LSTM", "GRU", "Linear", "Embedding")


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
    part = _chosen(*parts_of(source), prefix.removesuffix("."))
    found = part.kind
    if found == UNSURE and kind in ("Linear", "Embedding"):
        found = kind
    if found == UNSURE:
        raise ValueError(
            f"{part.where} is a {found}: its weight does not say which: pass kind='Linear', or "
            "kind='Embedding'"
        )
    options = {name: value for name, value in given.items() if value is not None}
    if not part.why:
        if kind not in (None, found):
            raise ValueError(f"kind is {kind!r}, but {part.where} is {_cures.an(found)}")
        for name in options.keys() - options_of(found):
            raise TypeError(f"{name} is given, but {part.where} is {_cures.an(found)}")
    return made(part, found, options)


def to_torch(layer: Weighted | Frozen, *, cell: bool = False) -> dict[str, Array]:
    """Return the weights of a layer as the state_dict of PyTorch's module of that kind.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, Linear or Embedding
        Also a frozen one.
    cell : bool
        Whether the module is a Cell, whose weights have no ``_l0`` in their names.

    Returns
    -------
    dict of str to ndarray
        Copies, and of ``bias="single"`` zeros for bias_hh.
        ``module.load_state_dict({n: torch.from_numpy(a) for n, a in d.items()})`` takes them.

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
    check_single(layer)
    plain: Weighted = plain_of(layer)
    name = kind_of(plain)
    f = getattr(plain, "nonlinearity", "tanh")
    why = [
        text
        for text, there in (
            (name, name not in _KINDS),
            ("layer without weight_ih", getattr(plain, "input_size", 0) is None),
            (f"nonlinearity {f!r}", f not in ("tanh", "relu")),
            ("reset gate before the product", not getattr(plain, "reset_after", True)),
            ("peepholes", getattr(plain, "peephole", False)),
            ("reverse direction alone", getattr(plain, "reverse", False)),
        )
        if there
    ]
    if why:
        raise ValueError(f"layer is {layer!r}: PyTorch has no {' and no '.join(why)}")
    state = plain.state_dict()
    if getattr(plain, "bias", None) == "single":  # PyTorch's modules always have both
        given, state = state, {}
        for name, a in given.items():
            state[name] = a
            if name.startswith("bias_ih"):
                state[name.replace("_ih", "_hh")] = np.zeros_like(a)
    if not _checks.flag("cell", cell):
        return state
    if not isinstance(plain, Recurrent) or len(state) != (4 if plain.bias else 2):
        raise ValueError(
            f"cell is True, but layer is {layer!r}, expected a recurrent layer with num_layers=1, "
            "in one direction and without projection"
        )
    return {weight.removesuffix("_l0"): a for weight, a in state.items()}


# ------------------------------------------------------------------------------ whole models


def contents(source: Any) -> list[Entry]:
    """What a model, a state_dict or a safetensors file holds, layers or not."""
    found = []
    for part in parts_of(source)[1].values():
        why, becomes = part.why, ""
        if not part.kind:
            why = "no layer that there is here"
        elif part.kind == UNSURE:
            why = "which of them it is, its weight does not say"
        elif not why:
            try:
                becomes = repr(made(part, part.kind, {}))
            except (TypeError, ValueError) as error:
                why = str(error).removeprefix(f"{part.where}: ")
        found.append(Entry(part.path, part.kind, becomes, why, described(part.weights)))
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
    said, parts = parts_of(source)
    left_out = check_skip(skip, parts)
    kept = {path: part for path, part in parts.items() if path not in left_out}
    found = {path: part.kind for path, part in kept.items()}
    for path, kind in (kinds or {}).items():
        if found.get(path) != UNSURE:
            open_ = several(repr(p) for p, k in found.items() if k == UNSURE)
            raise ValueError(
                f"kinds has {path!r}, expected what is left open: {open_ or 'nothing'}"
            )
        found[path] = _checks.choice(f"kinds[{path!r}]", kind, ("Linear", "Embedding"))
    unsure = {path: "Embedding" for path, kind in found.items() if kind == UNSURE}
    layers, faults = {}, {}
    for path, part in kept.items():
        kind = found[path]
        if path in unsure or not kind:
            faults[path] = kind or f"no layer ({listed(part.weights)})"
            continue
        own = {} if part.why else {n: a for n, a in options.items() if n in options_of(kind)}
        try:
            layers[path] = made(part, kind, own)
        except (TypeError, ValueError) as error:
            faults[path] = str(error).removeprefix(f"{part.where}: ")
    told = unsure | dict(kinds or {})
    cures = [f"kinds={told!r}, or 'Linear' for such a one"] if unsure else []
    refuse(said, faults, faults.keys() - unsure.keys(), left_out, cures)
    return layers


def _chosen(said: str, parts: Mapping[str, Part], prefix: str) -> Part:
    """The one layer that the prefix means."""
    layers = [part for part in parts.values() if part.kind]
    if prefix in parts and parts[prefix].kind:
        return parts[prefix]
    inside = [part for part in layers if not prefix or part.path.startswith(f"{prefix}.")]
    if len(inside) == 1:
        return inside[0]
    under = f" under the prefix {prefix!r}" if prefix else ""
    if inside:
        # What is recurrent is more likely to be meant.
        meant = next((p for p in inside if p.kind in ("RNN", "LSTM", "GRU")), inside[0]).path
        texts = (f"{shown(p.path)}, {p.kind} ({listed(p.weights)})" for p in inside)
        raise ValueError(
            f"{said} has {len(inside)} layers{under}: {several(texts, between='; ')}: pass "
            f"prefix={meant!r}, or another of these"
        )
    have = "; it is empty"
    if layers:
        have = f"; there are layers at {several(shown(part.path) for part in layers)}"
    elif parts:
        start = [f"{path}." if path else "" for path in parts]
        weights = {s + n: a for s, p in zip(start, parts.values(), strict=True)
                   for n, a in p.weights.items()}  # fmt: skip
        have = f"; what there is: {listed(weights)}"
    raise ValueError(
        f"{said} has no RNN, LSTM, GRU, Cell of these, Linear or Embedding{under}{have}"
    )
