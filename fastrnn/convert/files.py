"""The commands ``fastrnn convert`` and ``fastrnn info MODEL``."""

from __future__ import annotations

import ast
import os
import re
import reprlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._formats import HDF5, KERAS, ONNX, SAFETENSORS, format_of
from ..io import load, read_types, save
from ..layers import Dropout, Recurrent, Sequential, Weighted
from ..layers.frozen import Frozen, plain_of
from ..layers.rnn import RNN
from ..outputs import OutputError, check_output, same_file
from . import keras, onnx, pytorch
from ._layers import Entry, check_skip, described, refuse, several
from .onnx_writer import to_onnx
from .pytorch_model import UNSURE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

OWN = "a file of fastrnn"
_WIDEST = 300  # characters of a line: names in a bad file may be as long as the file
# What an error of the functions says to pass, by the option of the command.
_CURES = {
    "skip": "--skip", "name": "--name", "prefix": "--name", "kinds": "--kind", "kind": "--kind",
    "config": "--config", "batch_first": "--batch-first", "nonlinearity": "--nonlinearity",
}  # fmt: skip
_CURE = re.compile(rf"\b({'|'.join(_CURES)})=(\[[^][]*\]|\{{[^}}{{]*\}}|'[^']*'|\"[^\"]*\"|True)")


class FilesError(Exception):
    """What the user can mend; one line."""


@dataclass(frozen=True)
class ConvertOptions:
    """The command line of ``fastrnn convert``.

    Attributes
    ----------
    source, target : str
        IN and OUT.
    name : str or None
        The one layer that is wanted.
    skip : list of str
        What is left out.
    kind : list of str
        What layers of PyTorch are whose weights leave it open: "NAME=KIND", or "KIND" with `name`.
    config : str or None
        A file with the configuration that a file of Keras weights lacks.
    batch_first : bool
        Whether the layers are to take (B, T, D).
    nonlinearity : str or None
        Of Elman layers in a file with names of PyTorch.
    lengths, state : bool
        Inputs of an ONNX model that is written.
    force : bool
        Whether OUT may be replaced.
    """

    source: str
    target: str
    name: str | None = None
    skip: Sequence[str] = ()
    kind: Sequence[str] = ()
    config: str | None = None
    batch_first: bool = False
    nonlinearity: str | None = None
    lengths: bool = False
    state: bool = False
    force: bool = False


# ------------------------------------------------------------------------------ convert


def convert(options: ConvertOptions) -> int:
    """Run ``fastrnn convert``.

    Returns
    -------
    int
        The exit status, 0.

    Raises
    ------
    FilesError
        With one line on what the user can mend; OUT is as it was.
    """
    ending = os.path.splitext(options.target)[1].lower()
    if ending not in (".safetensors", ".onnx"):
        raise FilesError(f"{options.target}: the name must end in .safetensors or .onnx")
    if ending != ".onnx" and (options.lengths or options.state):
        which = "--lengths" if options.lengths else "--state"
        raise FilesError(f"{which} is of ONNX models, and {options.target} is to be none")
    if same_file(options.source, options.target):
        raise FilesError(f"IN and OUT are the same file, {options.target}")
    try:
        check_output(options.target, options.force)
    except OutputError as error:
        raise FilesError(str(error)) from None
    with _explained(options.source):
        form = _format(options.source)
        _check_options(options, form)
        layers, metadata = _read(options, form)
    if not layers:
        raise FilesError(f"{options.source} has no layer that is not left out")
    named = _renamed(layers)
    if ending == ".onnx" and len(named) > 1:
        some = ", ".join(list(layers)[:5]) + ", ..." * (len(layers) > 5)
        raise FilesError(
            f"{options.source} has {len(named)} layers ({some}), and an ONNX model is written of "
            f"one: pass {_with('--name', _weighted(layers))}, or another of these"
        )
    for name, layer in layers.items() if ending == ".onnx" else ():
        if isinstance(layer, Sequential):
            one = f"{name}.{_weighted(layer.layers)}"
            raise FilesError(
                f"{name} in {options.source} is a Sequential, and an ONNX model is written of one "
                f"layer: pass {_with('--name', one)}, or another of these"
            )
    for name, layer in named.items() if ending != ".onnx" else ():
        words = getattr(layer, "tied_to", None)
        if words is not None and all(other is not words for other in named.values()):
            raise FilesError(
                f"{name} in {options.source} has its weight from an embedding, which is left out: "
                "convert both, without --name and --skip, or write an .onnx"
            )
    with _explained(options.target):
        if ending == ".onnx":
            (layer,) = named.values()
            to_onnx(layer, options.target, lengths=options.lengths, state=options.state)
        else:
            source = _clean(os.path.basename(options.source))
            save(options.target, named, {"source": source} | metadata)
        size = os.stat(options.target).st_size
    for name, layer in named.items():
        a = layer.flat_weights if isinstance(layer, Weighted) else np.empty(0)
        text = repr(layer)
        if isinstance(layer, Sequential):
            text = f"Sequential of {', '.join(layer.layers)}"
        print(_clean(f"{name}: {text}, {_count(a.size, 'weight')}, {a.nbytes:,} bytes"))
    print(_clean(f"{options.target}: {size:,} bytes"))
    return 0


def _check_options(options: ConvertOptions, form: str) -> None:
    """Raise for an option that another format has: it would do nothing."""
    torch = form in (SAFETENSORS, OWN)
    for option, given, fits in (
        ("--config", options.config, form == HDF5),
        ("--nonlinearity", options.nonlinearity, torch),
        ("--kind", options.kind, torch),
    ):
        if given and not fits:
            raise FilesError(f"{option} does not apply to {options.source}, {form}")
    if options.name is not None and options.skip and torch:
        raise FilesError("--skip and --name are both given: --name leaves out all other layers")


def _weighted(layers: Mapping[str, Any]) -> str:
    """The name of the first one with weights, if there is one."""
    return next((n for n, one in layers.items() if isinstance(one, Weighted)), next(iter(layers)))


def _read(options: ConvertOptions, form: str) -> tuple[dict[str, Weighted], dict[str, str]]:
    """The layers by their names in IN, and its metadata."""
    path, name, skip = options.source, options.name, options.skip
    found: Any
    if form in (KERAS, HDF5):
        config = None if options.config is None else _text(options.config)
        found = keras.from_keras(
            path, name, config=config, batch_first=options.batch_first, skip=skip
        )
        return ({name: found} if name is not None else found), {}
    if form == ONNX:
        turned = True if options.batch_first else None
        found = onnx.from_onnx(path, name, batch_first=turned, skip=skip)
        return ({name: found} if name is not None else found), {}
    how: dict[str, Any] = {"batch_first": True} if options.batch_first else {}
    if options.nonlinearity is not None:
        how["nonlinearity"] = options.nonlinearity
    kinds = _kinds(options)
    if form == SAFETENSORS:
        return _of_torch(path, name, skip, kinds, how), read_types(path)[1]
    return _read_own(options, kinds, how)


def _read_own(
    options: ConvertOptions, kinds: Mapping[str, str], how: Mapping[str, Any]
) -> tuple[dict[str, Weighted], dict[str, str]]:
    """Of a file of ours; a dict in it may be a state_dict of PyTorch."""
    path, name, skip = options.source, options.name, options.skip
    held = load(path)
    held.update({n: plain_of(o) for n, o in held.items()})
    layers: dict[str, Any] = {n: o for n, o in held.items() if isinstance(o, Weighted | Dropout)}
    dicts = {n: o for n, o in held.items() if isinstance(o, dict)}
    tensors = {f"{n}.{k}": a for n, o in dicts.items() for k, a in o.items() if _is_array(a)}
    if name not in layers:  # but perhaps in a model
        models = ((n, o) for n, o in layers.items() if isinstance(o, Sequential))
        inside = {f"{n}.{m}": layer for n, o in models for m, layer in o.layers.items()}
        layers = {name: inside[name]} if name in inside else layers
    if (kinds or options.nonlinearity) and (name in layers or not tensors):
        which = "--kind" if kinds else "--nonlinearity"
        raise FilesError(f"{which} does not apply to layers of fastrnn, as {path} has them")
    groups = [e for n, o in dicts.items() for e in _of_dict(n, o)]
    if name in layers:
        layers = {name: layers[name]}
    elif name is not None:
        if not any(f"{tensor}.".startswith(f"{name}.") for tensor in tensors):
            there = several([*layers, *(e.name for e in groups if e.kind and e.weights)])
            raise FilesError(f"{path} has no layer {name!r}: it has {there or 'none'}")
        return _of_torch(tensors, name, skip, kinds, how), held.metadata
    else:
        faults = {e.name: e.why or f"{e.kind}, no layer" for e in groups if not e.becomes}
        faults |= {n: f"an array, {a.dtype} {a.shape}" for n, a in held.items() if _is_array(a)}
        check_skip(skip, (*layers, *faults, *(e.name for e in groups)))
        left = {n: why for n, why in faults.items() if n not in skip and n not in kinds}
        unsure = {e.name: "Embedding" for e in groups if e.kind == UNSURE and e.name in left}
        told = unsure | dict(kinds)
        cures = [f"kinds={told!r}, or 'Linear' for such a one"] if unsure else []
        refuse("the file", left, left.keys() - unsure.keys(), skip, cures)
        layers = {n: layer for n, layer in layers.items() if n not in skip}
        if tensors:
            others = [e.name for e in groups if e.weights and e.name in skip]
            layers |= _of_torch(tensors, None, others, kinds, how)
    for layer in layers.values() if options.batch_first else ():
        for one in layer.layers.values() if isinstance(layer, Sequential) else (layer,):
            if isinstance(one, Recurrent) or (isinstance(one, Dropout) and one.variational):
                one.batch_first = True
    return layers, held.metadata


def _of_torch(
    source: str | Mapping[str, Array],
    name: str | None,
    skip: Sequence[str],
    kinds: Mapping[str, str],
    how: Mapping[str, Any],
) -> dict[str, Weighted]:
    if name is None:
        layers = pytorch.layers_of(source, skip, kinds, **how)
    else:
        layers = {name: pytorch.from_torch(source, name, kind=kinds.get(name), **how)}
    if "nonlinearity" in how and not any(isinstance(a, RNN) for a in layers.values()):
        raise FilesError(f"--nonlinearity {how['nonlinearity']} is given, but there is no RNN")
    return layers


def _kinds(options: ConvertOptions) -> dict[str, str]:
    """--kind: what layers are, by their names."""
    found = {}
    for given in options.kind:
        name, equals, kind = given.rpartition("=")
        if not equals and options.name is None:
            raise FilesError(f"--kind {given} is of no layer: pass --kind NAME={given}")
        if kind not in ("Linear", "Embedding"):
            raise FilesError(f"--kind {given}: expected Linear or Embedding for {kind!r}")
        found[name if equals else options.name or ""] = kind
    others = [name for name in found if options.name not in (None, name)]
    if others:
        raise FilesError(f"--kind has {others[0]!r}, but --name picks {options.name!r}")
    return found


def _renamed(layers: Mapping[str, Weighted]) -> dict[str, Weighted]:
    """The layers by names that a file of ours can have: without dots, and not empty."""
    found: dict[str, Weighted] = {}
    before: dict[str, str] = {}
    for name, layer in layers.items():
        new = name.replace(".", "_") or type(layer).__name__.lower()
        if new in found:
            raise FilesError(
                f"{before[new]!r} and {name!r} would both be {new!r} in OUT, where names have no "
                f"dots: pass {_with('--skip', name)}, and convert that one by itself with "
                f"{_with('--name', name)}"
            )
        found[new], before[new] = layer, name
    return found


# ------------------------------------------------------------------------------ info


def info(model: str | None, config: str | None = None) -> int:
    """Run ``fastrnn info MODEL``: print what a file holds.

    Parameters
    ----------
    model : str or None
        The file.
    config : str or None
        A file with the configuration that a file of Keras weights lacks.

    Returns
    -------
    int
        The exit status, 0.

    Raises
    ------
    FilesError
        With one line on what the user can mend.
    """
    if model is None:
        raise FilesError("--config is given, but no MODEL")
    path = model
    with _explained(path):
        form = _format(path)
        if config is not None and form != HDF5:
            raise FilesError(f"--config does not apply to {path}, {form}")
        entries, metadata = _contents(path, form, config)
        size = os.stat(path).st_size
    print(_clean(f"{path}: {form}, {size:,} bytes"))
    arrays = total = layers = 0
    for entry in entries:
        print(_clean(_with_config(_said(entry))))
        rows = [(name, *what) for name, what in entry.weights.items()]
        widths = [max((len(_clean(str(row[i]))) for row in rows), default=0) for i in range(3)]
        for row in rows:
            nbytes = _bytes(row[1], row[2])
            cells = (_clean(str(cell)).ljust(n) for cell, n in zip(row, widths, strict=True))
            told = "size unknown" if nbytes is None else f"{nbytes:,} bytes"
            print(f"    {'  '.join(cells)}  {told}")
            total += nbytes or 0
        arrays += len(rows)
        layers += bool(entry.becomes)
    for key, text in metadata.items():
        print(_clean(f"metadata {key}: {text}"))
    which = _count(layers, "layer") + (
        f" of {len(entries)} entries" if layers < len(entries) else ""
    )
    print(f"{which}, {_count(arrays, 'array')}, {total:,} bytes of arrays")
    return 0


def _said(entry: Entry) -> str:
    name, kind = entry.name or "(no name)", entry.kind or "no layer"
    if not entry.kind and entry.becomes:  # a layer of ours
        return f"{name}: {entry.becomes}"
    but = f", but {entry.why}" if entry.why and entry.becomes else ""
    not_ = f", not converted: {entry.why}" if entry.why and not entry.becomes else ""
    return f"{name}: {kind}" + f", becomes {entry.becomes}{but}" * bool(entry.becomes) + not_


def _contents(path: str, form: str, config: str | None) -> tuple[list[Entry], dict[str, str]]:
    """What there is in a file, and its metadata."""
    if form in (KERAS, HDF5):
        return keras.contents(path, config=None if config is None else _text(config)), {}
    if form == ONNX:
        return onnx.contents(path), {}
    if form == SAFETENSORS:
        stored, metadata, _ = read_types(path)
        # As the file has them: what is read of bfloat16 is float32.
        return [_stored_as(entry, stored) for entry in pytorch.contents(path)], metadata
    loaded = load(path)
    return [
        entry for name, value in loaded.items() for entry in _saved(name, value)
    ], loaded.metadata


def _saved(name: str, value: Any) -> list[Entry]:
    """What an object in a file of ours is."""
    if isinstance(value, Frozen):
        mark = f", frozen in {value.precision}"
        saved = _saved(name, plain_of(value))
        return [e._replace(becomes=e.becomes + mark) if e.weights else e for e in saved]
    if isinstance(value, Sequential):
        return [e for n, layer in value.layers.items() for e in _saved(f"{name}.{n}", layer)]
    if isinstance(value, Dropout):
        return [Entry(name, "", repr(value), "", {})]
    if isinstance(value, Weighted):
        return [Entry(name, "", repr(value), "", described(value._weights))]
    if _is_array(value):
        return [Entry(name, "array", "", "", described({name: value}))]
    return _of_dict(name, value)


def _of_dict(name: str, value: Mapping[str, Any]) -> list[Entry]:
    """What a dict in a file of ours is: the layers of a state_dict of PyTorch, if it is one."""
    arrays = {key: a for key, a in value.items() if _is_array(a)}
    rest = {key: a for key, a in value.items() if key not in arrays}
    kind = "dict" + f", {reprlib.repr(rest)}" * bool(rest)
    groups = pytorch.contents({f"{name}.{key}": a for key, a in arrays.items()}) if arrays else []
    if any(entry.kind for entry in groups):
        values = rest.items()
        return [*groups, *(Entry(f"{name}.{k}", reprlib.repr(v), "", "", {}) for k, v in values)]
    return [Entry(name, kind, "", "", described(arrays))]


def _stored_as(entry: Entry, stored: Mapping[str, tuple[str, tuple[int, ...]]]) -> Entry:
    at = f"{entry.name}." if entry.name else ""
    return entry._replace(weights={name: stored[f"{at}{name}"] for name in entry.weights})


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _bytes(dtype: str, shape: Sequence[int]) -> int | None:
    """How many an array has; None for types of which it cannot be told, as strings."""
    digits = "8" if dtype == "bool" else next(iter(re.findall(r"\d+", dtype)), None)
    count = 1
    for n in shape:
        count *= n
    return None if digits is None else (count * int(digits) + 7) // 8


# ------------------------------------------------------------------------------ files


def _format(path: str) -> str:
    """What a file is, in words: by its content, and by its ending where that says nothing."""
    form = format_of(path)
    if form == SAFETENSORS:
        return OWN if read_types(path)[2] else SAFETENSORS
    if form in (KERAS, HDF5, ONNX):
        return form
    ending = os.path.splitext(path)[1].lower()
    if form in ("", "a zip archive"):
        form = {".keras": KERAS, ".h5": HDF5, ".onnx": ONNX}.get(ending, form)
    # Whatever else it is, that reader says.
    return form if form in (KERAS, HDF5, ONNX) else SAFETENSORS


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise FilesError(f"--config {path}: {getattr(error, 'strerror', error)}") from None


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """What goes wrong in the functions, as one line in the words of the command."""
    try:
        yield
    except OSError as error:
        raise FilesError(f"{path}: {error.strerror or error}") from None
    except ImportError as error:
        raise FilesError(f"{path}: {error}") from None
    except (TypeError, ValueError) as error:
        text = str(error)
        text = text if text.startswith(path) else f"{path}: {text}"
        raise FilesError(_in_options(_with_config(text))) from None


def _with_config(text: str) -> str:
    return text.replace("config=model.to_json()", "--config FILE, a text of model.to_json()")


def _in_options(text: str) -> str:
    """An error's text whose cure is an option of the command, not an argument."""

    def reworded(found: re.Match[str]) -> str:
        try:
            value = ast.literal_eval(found[2])
        except (SyntaxError, ValueError):
            return found[0]
        if isinstance(value, dict):
            value = [f"{name}={kind}" for name, kind in value.items()]
        option = _CURES[found[1]]
        words = value if isinstance(value, list) else [value]
        return option if value is True else " ".join(_with(option, str(word)) for word in words)

    before, cure, after = text.rpartition(": pass ")
    return before + cure + _CURE.sub(reworded, after) if cure else text


def _with(option: str, word: str) -> str:
    """An option and its value; a value that looks like an option is joined to it."""
    return shlex.join([f"{option}={word}"] if word.startswith("-") else [option, word])


def _clean(text: str) -> str:
    """One line of moderate length, whatever a file made part of it."""
    line = "".join(c if c.isprintable() else "?" for c in text[: _WIDEST + 1])
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}..."


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
