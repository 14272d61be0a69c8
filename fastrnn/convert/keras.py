"""Keras's weights: from layers and models, lists of weights, and files, without Keras."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

import numpy as np

from .. import _checks, _cures
from ..layers import Weighted
from . import keras_files
from ._layers import (
    ORDERS,
    Entry,
    check_skip,
    described,
    make_layer,
    refuse,
    reorder,
    several,
    shown,
)
from .keras_config import RECURRENT, Cell, Part, check_version, numbered, parsed, parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_ORDERS = ORDERS | {"GRU": "zrn"}  # Keras's; of an LSTM it is ours
_GATES = {len(ORDERS[own]): kind for kind, own in RECURRENT.items()}


class _Variables(Protocol):
    """Where the variables of a model are."""

    def read(self, path: tuple[str, ...], count: int) -> Sequence[Any]:
        """The variables of the layer at a path, which are to be so many."""

    def described(self, path: tuple[str, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of all of a layer's variables."""


class _Model(NamedTuple):
    """What a source holds."""

    said: str  # what it is called in errors
    parts: list[Part]
    variables: _Variables


@overload
def from_keras(
    source: Any,
    name: None = None,
    *,
    config: str | Mapping[str, Any] | None = None,
    batch_first: bool = False,
    skip: Collection[str] = (),
) -> dict[str, Weighted]: ...
@overload
def from_keras(
    source: Any,
    name: str,
    *,
    config: str | Mapping[str, Any] | None = None,
    batch_first: bool = False,
    skip: Collection[str] = (),
) -> Weighted: ...
def from_keras(
    source: Any,
    name: str | None = None,
    *,
    config: str | Mapping[str, Any] | None = None,
    batch_first: bool = False,
    skip: Collection[str] = (),
) -> dict[str, Weighted] | Weighted:
    """Make layers of a Keras 3 model or layer, of its weights, or of its file.

    SimpleRNN, LSTM, GRU, Bidirectional, RNN of cells or of stacked cells, Dense, TimeDistributed
    of Dense and Embedding become layers. What does nothing but in training is passed over (Dropout,
    and the options dropout and recurrent_dropout), and so is how the layers are connected. Neither
    Keras nor h5py is needed for a file.

    Parameters
    ----------
    source : layer, model, list of ndarray, or path
        A built layer or model of Keras 3; one layer's ``get_weights()``; the path of a ``.keras``
        file, or of a ``.weights.h5`` file with `config`.
    name : str, optional
        Of the one layer that is wanted: only it has to be convertible. Layers of a model inside
        the model are called "model/layer".
    config : str or dict, optional
        The configuration where the source has none: the text of ``model.to_json()``, or the dict
        of ``get_config()``. A file of weights needs it, and a list of weights whose shapes leave
        something open. For a list without it, Keras's default activations are taken.
    batch_first : bool
        Whether the recurrent layers take (B, T, D) arrays, as Keras does, instead of (T, B, D).
    skip : collection of str
        The names of layers that the caller computes himself, which are left out; and of parts of
        a layer that he sees to: "dense/activation" (not linear), "embedding/mask_zero",
        "gru/stateful" (he passes the state on), "gru/go_backwards" (he reverses x in time),
        "bidirectional/merge_mode" (what is made concatenates). Beside `name`, only parts of that
        layer.

    Returns
    -------
    dict of str to layer, or layer
        `fastrnn.RNN`, `LSTM`, `GRU`, `Linear` and `Embedding` by their names in Keras, in the order
        of the model; with `name`, that one. The weights are copies, in float32 or float64; float16
        and bfloat16 are widened to float32. All recurrent layers return whole sequences, whatever
        ``return_sequences`` said.

    Raises
    ------
    ValueError
        If something in the model has no counterpart, or weights do not fit the configuration: one
        error names all of it, with reasons. If the file is damaged, is of another kind, or of
        Keras 2; or if the configuration is missing.
    TypeError
        If an argument is of the wrong type.
    OSError
        If the file cannot be read.

    See Also
    --------
    from_torch : weights of PyTorch.
    from_arrays : weights of NumPy code.

    Notes
    -----
    Weights are widened, and all is computed, in float32 where a policy such as mixed_float16 has
    Keras compute in less. A mask of Keras's is here the argument ``mask``, (B, T) too with
    `batch_first`, or ``lengths`` if it ends sequences; outputs of skipped steps are zeros, as in
    Keras with ``zero_output_for_mask=True`` (else it repeats the last one). The state of a
    Bidirectional that returns one step is ``output[-1]`` of the forward half and ``output[0]`` of
    the backward half.

    Examples
    --------
    >>> import numpy as np, fastrnn.convert
    >>> kernel, recurrent, bias = np.ones((3, 12)), np.ones((4, 12)), np.ones((2, 12))
    >>> fastrnn.convert.from_keras([kernel, recurrent, bias])  # what gru.get_weights() returns
    {'gru': GRU(3, 4, dtype='float64')}
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name is {_cures.kind(name)}, expected a str")
    _checks.flag("batch_first", batch_first)
    with _opened(source, config) as model:
        names = [key for part in model.parts for key in (part.name, *part.faults)]
        left_out = check_skip(skip, names)
        parts = [part for part in model.parts if part.name not in left_out]
        if name is not None:
            parts = [_named(model, name)]
            # What the caller sees to of the one layer is no other layer that is left out.
            check_skip(sorted(left_out - (parts[0].faults.keys() - {name})), names, name)
        faults = {
            key: why for part in parts for key, why in part.faults.items() if key not in left_out
        }
        layers: dict[str, Weighted] = {}
        for part in parts:
            if part.cells:
                try:
                    layers[part.name] = _layer(part, model.variables, batch_first)
                except (TypeError, ValueError) as error:
                    faults[part.name] = str(error)
        # Without all that is at fault there has to be something left.
        refuse(model.said, faults, faults.keys() - {name} if layers else (), left_out)
        if not layers:
            kinds = several(dict.fromkeys(part.kind for part in model.parts))
            raise ValueError(f"{model.said} has no layer to convert: there is {kinds or 'none'}")
    return layers if name is None else layers[name]


def contents(source: Any, *, config: str | Mapping[str, Any] | None = None) -> list[Entry]:
    """What a model or file holds, layers or not; the arguments are those of `from_keras`."""
    found = []
    with _opened(source, config, bare=True) as model:
        for part in model.parts:
            becomes, why = "", "; ".join(part.faults.values())
            if not why and not part.cells:
                why = "does nothing but in training"
            alone = len(model.parts) == 1  # else what is nowhere, an operation, has no variables
            stored = model.variables.described(part.path) if part.path or alone else {}
            if part.cells:
                try:
                    becomes = repr(_layer(part, model.variables, False))
                except (TypeError, ValueError) as error:
                    why = str(error)
            found.append(Entry(part.name, part.kind, becomes, why, stored))
    return found


# ------------------------------------------------------------------------------ sources


@contextmanager
def _opened(source: Any, config: Any, bare: bool = False) -> Iterator[_Model]:
    """What a source holds; of weights without a configuration, only if bare."""
    if config is not None and not isinstance(config, str | Mapping):
        raise TypeError(f"config is {_cures.kind(config)}, expected a str of JSON or a dict")
    given = parsed(config, "config") if isinstance(config, str) else config
    given = dict(given) if isinstance(given, Mapping) else given
    if isinstance(source, str | os.PathLike) and isinstance(os.fspath(source), str):
        with keras_files.opened(os.fspath(source), given) as (held, weights):
            said = "the model" if config is None else "config"
            if held is None and not bare:
                raise ValueError(
                    "this holds weights and no configuration: pass config=model.to_json(), of the "
                    "model that was saved"
                )
            parts = weights.unknown() if held is None else parts_of(held, said)
            weights.check(parts)
            yield _Model(said, parts, weights)
    elif isinstance(source, list | tuple):
        arrays = _Listed(source)
        held = given if given is not None else _guessed([a.shape for a in arrays.left])
        parts = parts_of(held, "source" if given is None else "config")
        if len(parts) != 1 or parts[0].path:
            raise ValueError(
                "config is of a model, expected that of the one layer whose weights source is"
            )
        yield _Model("source", parts, arrays)
        if 0 < len(arrays.left) < len(source):
            used = len(source) - len(arrays.left)
            raise ValueError(f"source has {len(source)} arrays, expected {used} of such a layer")
    elif isinstance(source, type) or not hasattr(source, "get_config"):
        cure = ": pass source.get_weights()" if hasattr(source, "get_weights") else ""
        raise TypeError(
            f"source is {_cures.kind(source)}, expected a layer or model of Keras, a list of its "
            f"weights, or a path{cure}"
        )
    elif config is not None:
        raise ValueError("config is given, but source has its own: leave it out")
    else:
        yield _Model("source", parts_of(_config_of(source), "source"), _Live(source))


def _config_of(source: Any) -> dict[str, Any]:
    """The configuration of a layer or model of Keras, with its class as in a file."""
    kind = type(source)
    if kind.__module__.startswith("keras.src.") and "keras" in sys.modules:
        check_version(sys.modules["keras"].__version__, "source")
        held = source.get_config()
    else:
        held = {"name": getattr(source, "name", kind.__name__)}  # a class of the user's
    return {"module": kind.__module__, "class_name": kind.__name__, "config": held}


class _Live:
    """The variables of a layer or model of Keras."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def _layer(self, path: tuple[str, ...]) -> Any:
        here = self._source
        for step in path:
            if isinstance(here, list | tuple):
                names = numbered([type(layer).__name__ for layer in here])
                here = here[names.index(step)]
            else:
                here = getattr(here, step)
        return here

    def read(self, path: tuple[str, ...], count: int) -> list[Array]:
        found: list[Array] = self._layer(path).get_weights()
        if len(found) != count:
            never = ": call it first" if not found else ""
            raise ValueError(f"it has {len(found)} weights, expected {count}{never}")
        return found

    def described(self, path: tuple[str, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        return described({v.path: v for v in getattr(self._layer(path), "weights", ())})


class _Listed:
    """The weights of one layer, in Keras's order."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        if not arrays:
            raise ValueError("source is empty, expected a layer's weights: call the layer first")
        for i, array in enumerate(arrays):
            if not isinstance(array, np.ndarray):
                raise TypeError(
                    f"source has {_cures.kind(array)} at {i}, expected a numpy.ndarray: pass "
                    "[np.asarray(a) for a in source]"
                )
        self._arrays = list(arrays)
        self.left = list(arrays)

    def read(self, path: tuple[str, ...], count: int) -> list[Array]:
        if len(self.left) < count:
            raise ValueError(f"source has {len(self._arrays)} arrays, which are too few")
        found, self.left = self.left[:count], self.left[count:]
        return found

    def described(self, path: tuple[str, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        return described({str(i): a for i, a in enumerate(self._arrays)})


def _guessed(shapes: list[tuple[int, ...]]) -> dict[str, Any]:
    """The configuration of the one layer whose weights can have these shapes."""
    axes = [len(shape) for shape in shapes]
    unsure = ""
    if axes == [2, 1] and shapes[0][1:] == shapes[1]:
        return {"class_name": "Dense", "config": {"units": shapes[1][0]}}
    if axes == [2]:
        unsure = "a Dense without bias, or an Embedding"
    for size in (3, 2):
        groups = [shapes[i : i + size] for i in range(0, len(shapes), size)]
        if found := _guessed_cell(groups[0], size):
            kind, units, options = found
            cell = {"units": units, "use_bias": size == 3, **options}
            same, (D, columns) = groups[0], groups[0][0]
            stack = [same, *[[(units, columns), *same[1:]]] * (len(groups) - 1)]
            if groups not in (stack, [same, same]):
                continue
            if kind == "GRU" and size == 2:
                unsure = "a GRU without bias, whose reset_after they leave open"
            elif groups == [same]:
                return {"class_name": kind, "config": cell}
            elif groups == [same, same] and units == D:
                unsure = "a Bidirectional, or two cells on each other"
            elif groups == [same, same]:
                layer = {"class_name": kind, "config": cell}
                return {"class_name": "Bidirectional", "config": {"layer": layer}}
            else:
                cells = [{"class_name": f"{kind}Cell", "config": cell}] * len(groups)
                inner = {"class_name": "StackedRNNCells", "config": {"cells": cells}}
                return {"class_name": "RNN", "config": {"cell": inner}}
    listed = several(map(str, shapes), 8)
    if unsure:
        raise ValueError(
            f"source has shapes {listed}, those of {unsure}: pass config=layer.get_config()"
        )
    raise ValueError(
        f"source has shapes {listed}, which are of no SimpleRNN, LSTM, GRU, Bidirectional, "
        "Dense or Embedding: expected what one layer's get_weights() returns"
    )


def _guessed_cell(
    shapes: list[tuple[int, ...]], size: int
) -> tuple[str, int, dict[str, Any]] | None:
    """Kind, units and options by the shapes of kernel, recurrent kernel and perhaps a bias."""
    if len(shapes) != size or any(len(shape) != 2 or not all(shape) for shape in shapes[:2]):
        return None
    (_, columns), (units, recurrent) = shapes[:2]
    kind = _GATES.get(columns // units)
    if columns != recurrent or columns % units or kind is None:
        return None
    options = {}
    if size == 3 and kind == "GRU":
        options["reset_after"] = shapes[2] == (2, columns)
    if size == 3 and shapes[2] != ((2, columns) if options.get("reset_after") else (columns,)):
        return None
    return kind, units, options


# ------------------------------------------------------------------------------ layers


def _named(model: _Model, name: str) -> Part:
    """The layer that is asked for."""
    found = {part.name: part for part in model.parts}
    if name not in found:
        have = several(shown(n) for n, part in found.items() if part.cells) or "there is none"
        raise ValueError(f"name is {shown(name)}, expected that of a layer: {have}")
    part = found[name]
    if not part.cells and not part.faults:
        raise ValueError(f"name is {shown(name)}, {_cures.an(part.kind)}, which becomes no layer")
    return part


def _layer(part: Part, variables: _Variables, batch_first: bool) -> Weighted:
    """The layer that a part becomes."""
    first = part.cells[0][0]
    recurrent = first.kind in _ORDERS  # as all cells of a layer are, or none
    weights: dict[str, Array] = {}
    for i, cells in enumerate(part.cells):
        for cell, end in zip(cells, ("", "_reverse"), strict=False):
            own = _own_weights(cell, variables.read(cell.path, 1 + recurrent + cell.bias))
            weights |= {n + f"_l{i}{end}" * recurrent: a for n, a in own.items()}
    options = first.options | ({"batch_first": batch_first} if recurrent else {})
    return make_layer(first.kind, weights, part.kind, **options)


def _own_weights(cell: Cell, found: Sequence[Any]) -> dict[str, Array]:
    """A cell's weights under our names, without the layer's number, in our order of gates."""
    if cell.kind not in _ORDERS:
        names = ("embeddings",) if cell.kind == "Embedding" else ("kernel", "bias")
        _check_shapes(names, found, ((cell.inputs, cell.units), (cell.units,)))
        weight = found[0] if cell.kind == "Embedding" else found[0].T
        return dict(zip(("weight", "bias"), (weight, *found[1:]), strict=False))
    order = _ORDERS[cell.kind]
    columns = cell.units * len(order)
    biases = (2, columns) if cell.options.get("reset_after") else (columns,)
    _check_shapes(
        ("kernel", "recurrent_kernel", "bias"),
        found,
        ((None, columns), (cell.units, columns), biases),
    )
    own = {"weight_ih": found[0].T, "weight_hh": found[1].T}
    if cell.bias:
        bias = found[2]
        one, other = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        own |= {"bias_ih": one, "bias_hh": other}
    return {name: reorder(rows, order, ORDERS[cell.kind]) for name, rows in own.items()}


def _check_shapes(
    names: Sequence[str], found: Sequence[Any], expected: Sequence[tuple[int | None, ...]]
) -> None:
    """Raise one ValueError for all arrays of another shape; None is any size."""
    faults = []
    for name, array, shape in zip(names, found, expected, strict=False):
        sizes = tuple(n if m is None else m for n, m in zip(array.shape, shape, strict=False))
        if sizes != array.shape or len(shape) != array.ndim:
            said = str(shape).replace("None", "any")
            faults.append(f"{name} has shape {array.shape}, expected {said}")
    if faults:
        raise ValueError(", ".join(faults))
