"""Files of layers, arrays and optimisers' states, in the safetensors format.

A file is the length of the header (8 bytes, little-endian), the header in JSON, and the tensors'
bytes. What the format has no place for (which tensors make an object, and all that is no tensor)
is one more string in its metadata. Nothing in a file is ever executed, and `load` believes none of
it: every size is checked against the file's own before anything is allocated.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from itertools import chain
from typing import TYPE_CHECKING, Any, Never

import numpy as np
from numpy import ndarray

from . import _checks, _cures
from ._formats import name_of_other_format, open_regular, other_format
from ._json import check_keys, fields, parse_json, shown
from .layers import Dropout, Weighted
from .layers.described import KINDS, describe, restore
from .layers.frozen import Frozen, plain_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

    # Whatever was saved. Any alone would be the same, but that mypy --strict then refuses to
    # return ``load(path)["rnn"]`` from a function that says which layer it returns.
    Saved = Never | Any  # noqa: RUF020

    # Begin and end of a tensor in the file's data, its name, type and shape.
    _Place = tuple[int, int, str, str, tuple[int, ...]]

_OWN, _VERSION = "fastrnn", 1  # the key of what is ours in the metadata, and its version
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("f8"), "F32": np.dtype("f4"), "F16": np.dtype("f2"), "BOOL": np.dtype("?"),
    "I64": np.dtype("i8"), "I32": np.dtype("i4"), "I16": np.dtype("i2"), "I8": np.dtype("i1"),
    "U64": np.dtype("u8"), "U32": np.dtype("u4"), "U16": np.dtype("u2"), "U8": np.dtype("u1"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# bfloat16, which NumPy lacks: the upper half of a float32.
_STORED = _DTYPES | {"BF16": np.dtype("u2")}
_MAX_HEADER = 100_000_000  # bytes: the format's own limit
_MAX_AXES = 64  # NumPy's
_DEEPEST = 100  # lists and dicts inside each other: far from the limits of parsers


class Loaded(dict[str, "Saved"]):
    """What `load` returns: a dict of the objects by their names, in the order of the file.

    Each is what was saved under that name: a layer (`fastrnn.RNN`, `LSTM`, `GRU`, `Linear`,
    `Embedding`, `Dropout`) or a model (`Sequential`), frozen if it was; an ndarray; or a dict of
    ndarrays and JSON values, such as the state of an optimiser, which its ``load_state_dict``
    takes.

    Attributes
    ----------
    metadata : dict of str to str
        As given to `save`, or as another writer of the format wrote it.
    """

    def __init__(self, objects: Mapping[str, Any], metadata: dict[str, str]) -> None:
        super().__init__(objects)
        self.metadata = metadata


# ------------------------------------------------------------------------------ save


def save(
    path: str | os.PathLike[str],
    objects: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write layers, arrays and optimisers' states to one safetensors file, all of it or nothing.

    Parameters
    ----------
    path : str or os.PathLike
        The file. An existing one is replaced in a single step once the new one is complete: until
        then, and after any failure, it is as it was. Permissions are kept and a symbolic link is
        written through; another hard link keeps the old content.
    objects : mapping
        Names, without dots, to objects: layers and models, also frozen ones; arrays; mappings of
        strings to arrays and JSON values (None, bool, int, finite float, str, lists and dicts of
        these); and whatever has a `state_dict` method that returns such a mapping, as optimisers
        have.
    metadata : mapping, optional
        Strings to strings, which every reader of the format sees. The key "fastrnn" is taken.

    Raises
    ------
    TypeError, ValueError
        If something cannot be saved, or the name ends as that of another format (.pt, .npz, ...):
        the error names it, and nothing has been written.
    OSError
        If the file cannot be written.

    Notes
    -----
    The same objects give the same bytes. In the file, a layer's or a model's weights are
    ``<object>.<weight>``, a mapping's arrays ``<object>.<key>``, and an array is ``<object>``. An
    output layer that is tied to an embedding is saved together with that, and tied again by `load`.
    A frozen layer or model is saved with its plain weights, and `load` packs them again; alone, an
    output layer that was tied has the weight in the file.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastrnn
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> run = {"step": 12, "losses": np.array([0.5, 0.25])}
    >>> fastrnn.save(path, {"rnn": fastrnn.RNN(3, 4, rng=0), "run": run}, {"author": "me"})
    >>> loaded = fastrnn.load(path)
    >>> loaded["rnn"], loaded["run"]["step"], loaded.metadata
    (RNN(3, 4), 12, {'author': 'me'})
    """
    if isinstance(objects, str | os.PathLike) and not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path is {_cures.kind(path)}, expected a str or an os.PathLike of one: the path comes "
            "first"
        )
    path = path_text(path)
    if other := name_of_other_format(path):
        raise ValueError(f"path is {shown(path)}: {other}")
    metadata = {} if metadata is None else metadata
    for what, value in (("objects", objects), ("metadata", metadata)):
        if not isinstance(value, Mapping):
            cure = _cures.for_bare(what, value) if what == "objects" else ""
            raise TypeError(f"{what} is {_cures.kind(value)}, expected a mapping of names{cure}")
    tensors: dict[str, Array] = {}
    described = {n: _describe(n, value, tensors, objects) for n, value in objects.items()}
    texts = {_OWN: json.dumps({"version": _VERSION, "objects": described}, separators=(",", ":"))}
    for key, text in metadata.items():
        if _text("a key of metadata", key) == _OWN:
            raise ValueError(f"metadata[{_OWN!r}] is reserved: take another key")
        what = f"metadata[{shown(key)}]"
        if isinstance(text, bool | int | float | np.generic):
            raise TypeError(f"{what} is {shown(text)}, expected a str: pass str({what})")
        texts[key] = _text(what, text)

    # The largest elements first, so that every tensor starts at a multiple of its element's size.
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
    header: dict[str, Any] = {"__metadata__": texts}
    end = 0
    for name, a in tensors.items():
        begin, end = end, end + a.nbytes
        dtype = _NAMES[a.dtype.newbyteorder("=")]
        header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > _MAX_HEADER:
        raise ValueError(f"names and values take {len(encoded)} bytes, more than {_MAX_HEADER}")
    start = len(encoded).to_bytes(8, "little") + encoded
    replace_file(path, chain((start,), map(_bytes_of, tensors.values())))


def path_text(path: Any) -> str:
    """The path that an argument is, a str; TypeError for anything else."""
    text = os.fspath(path) if isinstance(path, str | bytes | os.PathLike) else None
    if isinstance(text, str):
        return text
    if isinstance(text, bytes):
        cure = ": pass os.fsdecode(path)"
    elif hasattr(path, "read") or hasattr(path, "write"):
        name = getattr(path, "name", None)
        cure = ": pass path.name" if isinstance(name, str) and os.path.exists(name) else ""
    else:
        cure = ""
    raise TypeError(f"path is {shown(path)}, expected a str or an os.PathLike of one{cure}")


def _text(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} is {shown(text)}, expected a str")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is {shown(text)}, which UTF-8 has no bytes for") from None
    return text


def _object_name(name: Any, names: Iterable[str] = ()) -> str:
    # No dot: the object's name ends at the first one of a tensor's, so tensors cannot collide.
    if _text("a name in objects", name) in ("", "__metadata__") or "." in name:
        cure = ""
        if "." in name and all("_" not in n for n in names):  # else two names may become one
            cure = ": pass {n.replace('.', '_'): o for n, o in objects.items()}"
        fault = "empty, reserved, or with a dot"
        raise ValueError(f"objects has the name {shown(name)}, which is {fault}{cure}")
    return f"objects[{shown(name)}]"


def _describe(
    name: Any, value: Any, tensors: dict[str, Array], objects: Mapping[str, Any]
) -> dict[str, Any]:
    """What the metadata says of an object, whose arrays are added to `tensors`."""
    what, a_kind = _object_name(name, objects), _cures.kind(value)
    if isinstance(value, ndarray):
        tensors[name] = _array(name, value, what)
        return {"kind": "array"}
    if isinstance(value, Weighted | Dropout | Frozen):
        described = describe(what, name, objects)
        plain = plain_of(value)
        own = plain._weights.items() if isinstance(plain, Weighted) else ()
        tensors.update((f"{name}.{weight}", a) for weight, a in own)
        return described
    whole = what
    if (
        not isinstance(value, Mapping)
        and hasattr(value, "state_dict")
        and not isinstance(value, type)
    ):
        value, whole = value.state_dict(), f"{what}.state_dict()"
    if not isinstance(value, Mapping):
        cure = _cures.for_saved(what, value)
        with suppress(TypeError, ValueError):
            _check_json(what, value)
            cure = cure or f": pass {{'value': {what}}}"
        expected = "a layer, an array, a mapping or what has a state_dict()"
        raise TypeError(f"{what} is {a_kind}, expected {expected}{cure}")
    items: dict[str, Any] = {}
    for key, item in value.items():
        if not _text(f"a key of {what}", key):
            raise ValueError(f"a key of {what} is empty")
        if isinstance(item, ndarray):
            tensors[f"{name}.{key}"] = _array(f"{name}.{key}", item, f"{what}[{shown(key)}]")
            items[key] = "tensor"
        elif cure := _cures.for_nested(whole, name, key, item, value):
            at = f"{what}[{shown(key)}]"
            raise TypeError(f"{at} is {_cures.kind(item)}, expected an array or a JSON value{cure}")
        else:
            _check_json(f"{what}[{shown(key)}]", item)
            items[key] = {"json": item}
    return {"kind": "dict", "items": items}


def _array(name: str, value: Any, what: str) -> Array:
    _checks.plain_array(what, value)
    if value.dtype.newbyteorder("=") not in _NAMES:
        known = ", ".join(map(str, _NAMES))
        raise ValueError(f"tensor {shown(name)} is {value.dtype}, expected one of {known}")
    return np.asarray(value)


def _check_json(what: str, value: Any, depth: int = 0) -> None:
    """Raise unless json.loads gives back what json.dumps makes of the value."""
    if depth > _DEEPEST:
        raise ValueError(f"{what} is nested more than {_DEEPEST} deep, or holds itself")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):  # json.dumps would make one of it
                raise TypeError(f"{what} has the key {shown(key)} inside, expected a str")
    if isinstance(value, dict | list | tuple):
        for at, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_json(f"{what}[{shown(at)}]" if depth < 8 else what, item, depth + 1)
        return
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        cure = f": pass {what}.item(), a Python value" if isinstance(value, np.generic) else ""
        if isinstance(value, float):  # infinite or NaN
            cure = f": pass np.array({what})"
        raise type(error)(f"{what}: {error}{cure}") from None


def _bytes_of(a: Array) -> memoryview:
    """The array's elements as the file has them."""
    if a.dtype == bool:
        a = a.view(np.uint8) != 0  # a view of integers as bool may hold any byte
    a = a.astype(a.dtype.newbyteorder("<"), order="C", copy=False)
    return a.reshape(-1).view(np.uint8).data


def replace_file(path: str, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file of these bytes as `save` does: beside its place, moved there when complete."""
    mode, old = 0o666, None
    try:
        old = os.stat(path)
    except FileNotFoundError:
        if os.path.basename(path) in ("", ".", ".."):
            raise  # of no file, whatever realpath would make of it
    if old is not None:
        if stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(old.st_mode):
            raise ValueError(f"{path}: not a regular file, which another could replace")
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))  # a read-only file is to stay
        mode = stat.S_IMODE(old.st_mode)
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".fastrnn-{secrets.token_hex(16)}.tmp")
    try:
        with open(temporary, "xb", 0, opener=lambda p, flags: os.open(p, flags, mode)) as file:
            if old is not None:
                with suppress(OSError):  # only root may give files away
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
                    os.fchmod(file.fileno(), mode)
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except FileExistsError:
        raise  # somebody else's file: not ours to remove
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename2 is None:
            error.filename = path  # not the temporary file's name
        raise
    with suppress(OSError):  # so that a crash of the machine cannot take the new name back
        folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# ------------------------------------------------------------------------------ load


def load(path: str | os.PathLike[str]) -> Loaded:
    """Read a file that `save`, or another writer of the safetensors format, has written.

    Parameters
    ----------
    path : str or os.PathLike
        The file. It need not be trusted: its own size bounds the memory that loading takes.

    Returns
    -------
    Loaded
        A dict of the objects in the order in which they were saved: layers, arrays, and dicts for
        mappings and states, in which tuples have become lists. From another writer's file, a dict
        of arrays. Arrays are writable and in native byte order. BF16 tensors are float32; F16 ones
        are float16, or float32 if they are weights of a layer. Its attribute ``metadata`` is a
        dict of strings.

    Raises
    ------
    ValueError
        If the file is damaged, is none of this format, or has a type that NumPy lacks; the text
        begins with the path.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import os, tempfile, fastrnn
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> head = fastrnn.Linear(4, 2, rng=0)
    >>> sgd = fastrnn.optim.SGD([head.flat_weights], lr=0.1)
    >>> fastrnn.save(path, {"head": head, "sgd": sgd})
    >>> loaded = fastrnn.load(path)
    >>> head = loaded["head"]
    >>> sgd = fastrnn.optim.SGD([head.flat_weights], lr=0.0)
    >>> sgd.load_state_dict(loaded["sgd"])
    >>> head, sgd.lr
    (Linear(4, 2), 0.1)
    """
    with _opened(path) as file:
        tensors, metadata = _read(file)
        return Loaded(_assembled(tensors, metadata), metadata)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors of a safetensors file as they are, whatever wrote it, and its metadata.

    Raises what `load` raises.
    """
    with _opened(path) as file:
        return _read(file)


def read_types(
    path: str | os.PathLike[str],
) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str], bool]:
    """Return type and shape of each tensor of a safetensors file, as it has them, and its metadata.

    Last, whether `save` has written it. No data is read; raises what `load` raises.
    """
    with _opened(path) as file:
        places, metadata = _header(file)
    types = {"BF16": "bfloat16"} | {name: str(dtype) for name, dtype in _DTYPES.items()}
    held = {name: (types[dtype], shape) for _, _, name, dtype, shape in places.values()}
    return held, metadata, metadata.pop(_OWN, None) is not None


@contextmanager
def _opened(path: Any) -> Iterator[BufferedReader]:
    """A file that is read; a ValueError inside says which, and what it seems to be."""
    path, other = path_text(path), ""
    try:
        if (file := open_regular(path)) is None:
            raise ValueError("not a regular file")
        with file:
            try:
                yield file
            except ValueError:
                other = other_format(file, path)
                raise
    except ValueError as error:
        # One line, of moderate length, whatever the file made part of the text.
        text = other or "".join(c if c.isprintable() else "?" for c in str(error)[:500])
        raise ValueError(f"{path}: {text}") from None


def _header(file: BufferedReader) -> tuple[dict[str, _Place], dict[str, str]]:
    """Where the tensors are, in the header's order, and the metadata."""
    start = file.read(8)
    if len(start) < 8:
        raise ValueError(f"the file has {len(start)} bytes, expected at least 8")
    length = int.from_bytes(start, "little")
    size = os.fstat(file.fileno()).st_size - 8 - length  # of the data
    if length > _MAX_HEADER:
        raise ValueError(f"the header has {length} bytes, expected at most {_MAX_HEADER}")
    if size < 0 or len(encoded := file.read(length)) < length:
        raise ValueError(f"the header has {length} bytes, but the file ends before")
    if not encoded.startswith(b"{"):
        raise ValueError(f"the header starts with {encoded[:1]!r}, expected '{{'")
    header = parse_json("the header", encoded)
    metadata = header.pop("__metadata__", {})
    keys = metadata if type(metadata) is dict else ()
    fields("__metadata__", metadata, **dict.fromkeys(keys, str))
    for text in (*header, *metadata, *metadata.values()):
        _text("a string in the header", text)

    places = {name: _entry(name, entry, size) for name, entry in header.items()}
    position = 0
    for begin, end, name, _, _ in sorted(places.values()):
        if begin != position:
            fault = "leaves a gap behind" if begin > position else "overlaps"
            raise ValueError(f"tensor {shown(name)} {fault} the one before: it begins at {begin}")
        position = end
    if position < size:
        raise ValueError(f"the last {size - position} bytes of the file belong to no tensor")
    return places, metadata


def _read(file: BufferedReader) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors, in the header's order, and the metadata."""
    places, metadata = _header(file)
    tensors = {}
    for _, _, name, dtype, shape in sorted(places.values()):
        a = np.empty(shape, _STORED[dtype].newbyteorder("<"))
        data = a.reshape(-1).view(np.uint8)
        if file.readinto(data.data) < data.size:
            raise ValueError(f"the file ends inside tensor {shown(name)}")
        if dtype == "BOOL" and (data > 1).any():
            raise ValueError(f"tensor {shown(name)} is BOOL, but has other bytes than 0 and 1")
        a = a.astype(_STORED[dtype], copy=False)
        tensors[name] = (a.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else a
    return {name: tensors[name] for name in places}, metadata


def _entry(name: str, entry: Any, size: int) -> _Place:
    """Where a tensor is in data of this size."""
    what = f"tensor {shown(name)}"
    dtype, shape, offsets = fields(what, entry, dtype=str, shape=list, data_offsets=list)
    if dtype not in _STORED:
        raise ValueError(f"{what} is {shown(dtype)}, expected one of {', '.join(_STORED)}")
    if len(shape) > _MAX_AXES or len(offsets) != 2:
        raise ValueError(f"{what} has {len(shape)} axes, {len(offsets)} offsets")
    for n in (*shape, *offsets):
        if type(n) is not int or not 0 <= n <= sys.maxsize:
            raise ValueError(f"{what} has {shown(n)} in shape or data_offsets, expected a size")
    begin, end = offsets
    if not begin <= end <= size:
        cut = ": the file was cut off" if end > size else ""
        raise ValueError(f"{what}: data_offsets is {offsets}, out of {size} bytes of data{cut}")
    itemsize = _STORED[dtype].itemsize
    if math.prod(shape) * itemsize != end - begin:
        raise ValueError(f"{what} has {end - begin} bytes, too many or few for {dtype} {shape}")
    largest = 4 if dtype == "BF16" else itemsize  # of the array that is made
    if math.prod(n or 1 for n in shape) * largest > sys.maxsize:  # even if another size is zero
        raise ValueError(f"{what} has the shape {shape}, which NumPy cannot have")
    return begin, end, name, dtype, tuple(shape)


def _assembled(tensors: dict[str, Array], metadata: dict[str, str]) -> dict[str, Any]:
    """The objects that our entry in the metadata, which is removed, makes of the tensors."""
    if _OWN not in metadata:  # another writer's file
        return tensors
    what = f"__metadata__[{_OWN!r}]"
    record = parse_json(what, metadata.pop(_OWN))
    version = record.get("version")
    if type(version) is not int or version != _VERSION:
        newer = type(version) is int and version > _VERSION
        cause = "a newer fastrnn wrote this file" if newer else f"expected {_VERSION}"
        raise ValueError(f"the version of {what} is {shown(version)}: {cause}")
    _, described = fields(what, record, version=int, objects=dict)

    groups: dict[str, dict[str, Array]] = {name: {} for name in described}
    for tensor, a in tensors.items():
        name = tensor.partition(".")[0]
        if name not in groups:
            raise ValueError(f"tensor {shown(tensor)} is of no object in {what}")
        groups[name][tensor] = a
    made: dict[str, Any] = {}
    for name in sorted(groups, key=lambda n: type(described[n]) is dict and "tied" in described[n]):
        made[name] = _restored(name, described[name], groups[name], made)  # tied ones last
    return {name: made[name] for name in groups}


def _restored(
    name: str, described: Any, arrays: dict[str, Array], others: Mapping[str, Any]
) -> Any:
    """An object from its description, all the tensors under its name, and what it is tied to."""
    what = _object_name(name)
    kind = described.get("kind") if type(described) is dict else None
    if kind == "array":
        fields(what, described, kind=str)
        check_keys(f"{what} (array)", arrays, [name])
        return arrays[name]
    if kind == "dict":
        _, items = fields(what, described, kind=str, items=dict)
        expected = [f"{name}.{key}" for key, item in items.items() if item == "tensor"]
        check_keys(f"{what} (dict)", arrays, expected)
        values = {}
        for key, item in items.items():
            if item != "tensor" and not (type(item) is dict and set(item) == {"json"}):
                raise ValueError(f"{what}: {shown(key)} is {shown(item)}, not what save writes")
            values[key] = arrays[f"{name}.{key}"] if item == "tensor" else item["json"]
        return values
    if type(kind) is not str or kind not in KINDS:
        known = ", ".join(("array", "dict", *KINDS))
        raise ValueError(f"{what} is of the kind {shown(kind)}, expected one of {known}")
    # float16 is widened, as bfloat16 was: layers compute in float32 and float64.
    weights = {
        tensor[len(name) + 1 :]: a.astype(np.float32) if a.dtype == np.float16 else a
        for tensor, a in arrays.items()
    }
    return restore(what, described, weights, others)
