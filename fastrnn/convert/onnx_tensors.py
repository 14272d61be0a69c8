"""ONNX files and the tensors in them. Nothing that a file says is believed.

Every size is compared with what there is before anything is allocated, and a file of external data
is a regular one in the model's folder.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from io import BufferedReader
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _cures
from .._formats import open_regular
from ._layers import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MAX_AXES = 32  # of an array in any NumPy


class _Type(NamedTuple):
    """A type of elements: NumPy's name for it, the field with its elements, the type of these."""

    name: str
    field: str
    held: str


# By TensorProto.DataType. Halves are in int32_data bit by bit.
_TYPES = {
    1: _Type("float32", "float_data", "float32"), 2: _Type("uint8", "int32_data", "int32"),
    3: _Type("int8", "int32_data", "int32"), 4: _Type("uint16", "int32_data", "int32"),
    5: _Type("int16", "int32_data", "int32"), 6: _Type("int32", "int32_data", "int32"),
    7: _Type("int64", "int64_data", "int64"), 9: _Type("bool", "int32_data", "int32"),
    10: _Type("float16", "int32_data", "int32"), 11: _Type("float64", "double_data", "float64"),
    12: _Type("uint32", "uint64_data", "uint64"), 13: _Type("uint64", "uint64_data", "uint64"),
    16: _Type("bfloat16", "int32_data", "int32"),
}  # fmt: skip
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_EXTERNAL = 1  # TensorProto.DataLocation


def import_onnx() -> Any:
    """The onnx package; its absence is explained."""
    try:
        import onnx
    except ImportError as error:
        cure = 'pip install "fastrnn[onnx]"'
        raise ImportError(f"ONNX models need the onnx package: {cure} ({error})") from None
    return onnx


def text_of(value: Any) -> str:
    """A text of the file; protobuf hands out the bytes where it is none."""
    if not isinstance(value, str):
        raise ValueError("it is damaged: a name in it is not UTF-8")
    return value


def bodies_of(node: Any) -> list[Any]:
    """The graphs in a NodeProto: of a Loop, an If, a Scan."""
    return [g for a in node.attribute for g in (a.g, *a.graphs) if len(g.node)]


def nodes_within(graphs: Iterable[Any]) -> Iterator[Any]:
    """The nodes of graphs or functions, and those in their bodies, however deep."""
    stack = list(graphs)
    while stack:
        for node in stack.pop().node:
            yield node
            stack += bodies_of(node)


# ------------------------------------------------------------------------------ memory


class Budget:
    """How many bytes may be made of a model: in proportion to the size of its files."""

    def __init__(self, size: int) -> None:
        # Types become eight times as large at most, and exporters copy weights a few times.
        self.left = (1 << 20) + 16 * size
        self._files: set[str] = set()

    def grow(self, path: str, size: int) -> None:
        """A file of external data is read, perhaps not for the first time."""
        if path not in self._files:
            self._files.add(path)
            self.left += 16 * size

    def take(self, shape: tuple[int, ...], itemsize: int) -> None:
        """Raise ValueError unless an array of this shape may be made."""
        if len(shape) > MAX_AXES:
            raise ValueError(f"an array of {len(shape)} axes, more than {MAX_AXES}")
        if any(n < 0 for n in shape):
            raise ValueError(f"the shape {shape} has a negative size")
        if math.prod(n or 1 for n in shape) * itemsize > sys.maxsize:
            raise ValueError(f"the shape {shape} is larger than the address space")
        size = math.prod(shape) * itemsize
        if size > self.left:
            raise ValueError(f"an array of {size} bytes, out of proportion to the size of the file")
        self.left -= size


# ------------------------------------------------------------------------------ files


class Model(NamedTuple):
    """A model that was read."""

    said: str  # what to call it
    proto: Any
    folder: str | None  # of external data
    budget: Budget


def load(source: Any) -> Model:
    """Read a model: a path, an onnx.ModelProto, or the bytes of one."""
    onnx = import_onnx()
    if isinstance(source, onnx.ModelProto):
        try:
            size = source.ByteSize()
        except Exception:  # more than protobuf can write: whatever it holds is in memory already
            size = 1 << 31
        return _checked(Model("the model", source, None, Budget(size)))
    if isinstance(source, bytes | bytearray | memoryview):
        said, folder, data = "the model", None, bytes(source)
    elif isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        said, folder = path, os.path.dirname(path) or "."
        with _opened(path) as file:
            data = file.read()
    else:
        raise TypeError(
            f"source is {_cures.kind(source)}, expected a path, an onnx.ModelProto or its bytes"
        )
    proto = onnx.ModelProto()
    _check_messages(said, data, proto.DESCRIPTOR)
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's own, which is no ValueError
        text = "".join(c if c.isprintable() else " " for c in str(error)[:200])
        raise ValueError(f"{said}: not an ONNX model, or a damaged one ({text})") from None
    return _checked(Model(said, proto, folder, Budget(len(data))))


def _check_messages(said: str, data: bytes, kind: Any) -> None:
    """Raise ValueError where a file is made of messages so small that protobuf multiplies it.

    One of two bytes takes a hundred in memory; those of models have more than ten on average.
    """
    most = 100_000 + len(data) // 10
    if len(data) < 2 * most:  # there is no room for more
        return
    fields: dict[str, dict[int, Any]] = {}
    at, end, outer, count = 0, len(data), list[tuple[Any, int, int]](), 0
    while outer or at < end:
        if at >= end:
            kind, at, end = outer.pop()
            continue
        tag, at = _varint(said, data, at)
        number, wire = tag >> 3, tag & 7
        if wire in (0, 1, 5):
            at = _varint(said, data, at)[1] if wire == 0 else at + (8 if wire == 1 else 4)
            continue
        if wire != 2:
            raise ValueError(f"{said}: not an ONNX model, or a damaged one (wire type {wire})")
        size, at = _varint(said, data, at)
        if kind.full_name not in fields:
            fields[kind.full_name] = {f.number: f.message_type for f in kind.fields}
        inner = fields[kind.full_name].get(number)
        if inner is None:
            at += size
            continue
        count += 1
        if count > most:
            raise ValueError(f"{said}: it has more than {most} messages in {len(data)} bytes")
        outer.append((kind, at + size, end))
        kind, end = inner, min(at + size, end)


def _varint(said: str, data: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf's, and where it ends."""
    value = 0
    for i in range(10):
        if at + i >= len(data):
            break
        byte = data[at + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise ValueError(f"{said}: not an ONNX model, or a damaged one (it ends early)")


def _opened(path: str) -> BufferedReader:
    """A file, open for reading; ValueError for a pipe or a device."""
    file = open_regular(path)
    if file is None:
        raise ValueError(f"{path}: not a regular file")
    return file


def _checked(model: Model) -> Model:
    """The model with its local functions inlined, if it is one."""
    said, proto = model.said, model.proto
    if not proto.HasField("graph"):
        raise ValueError(f"{said}: not an ONNX model: it has no graph")
    versions = {o.domain or "ai.onnx": o.version for o in proto.opset_import}
    version = versions.get("ai.onnx", 1)
    if version < 7:
        cure = "onnx.version_converter.convert_version(onnx.load(path), 22) may convert it"
        raise ValueError(
            f"{said}: its operators are of version {version}, expected 7 or more: {cure}"
        )
    if not proto.functions:
        return model
    if _inlined_size(proto) > model.budget.left:
        raise ValueError(f"{said}: its local functions call each other without end")
    try:
        import onnx.inliner

        return model._replace(proto=onnx.inliner.inline_local_functions(proto))
    except Exception as error:
        raise ValueError(f"{said}: its local functions cannot be inlined: {error}") from None


def _inlined_size(proto: Any) -> float:
    """About how many bytes the functions have once inlined; inf where they go in a circle."""
    functions = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[tuple[str, str], float] = {}
    open_: set[tuple[str, str]] = set()
    total = 0.0
    for called in _calls(proto.graph, functions):
        # Depth first, without recursion: a function, those that it calls, what is known of them.
        stack = [] if called in sizes else [(called, _calls(functions[called], functions))]
        while stack:
            key, calls = stack[-1]
            open_.add(key)
            sizes.setdefault(key, functions[key].ByteSize())
            if calls:
                inner = calls[-1]
                if inner in open_:
                    return math.inf
                if inner in sizes:
                    sizes[key] += sizes[calls.pop()]
                else:
                    stack.append((inner, _calls(functions[inner], functions)))
            else:
                open_.discard(key)
                stack.pop()
        total += sizes[called]
    return total


def _calls(graph: Any, functions: Collection[Any]) -> list[tuple[str, str]]:
    """The functions that a graph or a function calls, in the bodies of its nodes as well."""
    called = ((node.domain, node.op_type) for node in nodes_within([graph]))
    return [key for key in called if key in functions]


# ------------------------------------------------------------------------------ tensors


def array_of(tensor: Any, model: Model) -> Array:
    """The array that a TensorProto is; ValueError unless it is all there, and no more."""
    kind = _TYPES.get(tensor.data_type)
    if kind is None:
        raise ValueError(f"its elements are of ONNX's type {tensor.data_type}, which is not read")
    dtype = _dtype(kind.name)
    shape = tuple(tensor.dims)
    given = [name for name in _FIELDS if len(getattr(tensor, name))]
    if tensor.HasField("segment"):
        raise ValueError("it is one segment of a tensor")
    if tensor.data_location == _EXTERNAL:
        if given or tensor.HasField("raw_data"):
            raise ValueError("it has elements both here and in external data")
        try:
            return _external(tensor, shape, dtype, model)
        except OSError as error:
            raise ValueError(f"its elements are in a file that cannot be read: {error}") from None
    if tensor.HasField("raw_data"):
        if given:
            raise ValueError("it has elements twice, in raw_data and in a field of their type")
        raw = tensor.raw_data
        _room(shape, dtype, len(raw), "bytes", model)
        return _from_bytes(np.frombuffer(raw, np.uint8), shape, dtype)
    if given not in ([], [kind.field]):
        raise ValueError(f"its elements are in {', '.join(given)}, expected {kind.field}")
    field = getattr(tensor, kind.field)
    _room(shape, dtype, len(field) * dtype.itemsize, "bytes", model)
    held = np.fromiter(field, kind.held, len(field))
    if kind.name in ("float16", "bfloat16"):
        if ((held < 0) | (held > 0xFFFF)).any():
            raise ValueError(f"int32_data has numbers that are no bits of {kind.name}")
        return held.astype(np.uint16).view(dtype).reshape(shape)
    made = held.astype(dtype)
    if (made != held).any() and kind.held[0] != "f":
        raise ValueError(f"{kind.field} has numbers that {kind.name} cannot hold")
    return made.reshape(shape)


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes  # which onnx brings along

        made: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return made
    return np.dtype(name)


def dtype_of(number: int) -> np.dtype[Any]:
    """The type of elements that a TensorProto.DataType stands for."""
    if number not in _TYPES:
        raise ValueError(f"ONNX's type {number} of elements, which is not read")
    return _dtype(_TYPES[number].name)


def _room(shape: tuple[int, ...], dtype: np.dtype[Any], size: int, what: str, model: Model) -> None:
    """Raise ValueError unless an array of this shape has so many bytes, and may be made."""
    if len(shape) > MAX_AXES or any(n < 0 for n in shape):
        raise ValueError(f"its shape is {shape[:MAX_AXES]}, which no array has")
    expected = math.prod(shape) * dtype.itemsize
    if expected != size:
        raise ValueError(f"it has {size} {what}, expected {expected} for {dtype} {shape}")
    model.budget.take(shape, dtype.itemsize)


def _from_bytes(raw: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "b":
        return np.asarray((raw != 0).reshape(shape))
    if sys.byteorder == "big":
        raw = raw.reshape(-1, dtype.itemsize)[:, ::-1].copy().reshape(-1)
    return np.asarray(raw.view(dtype).reshape(shape))


def _external(tensor: Any, shape: tuple[int, ...], dtype: np.dtype[Any], model: Model) -> Array:
    """A tensor whose elements are in a file beside the model's."""
    entries = [(text_of(e.key), text_of(e.value)) for e in tensor.external_data]
    said = dict(entries)
    if len(said) < len(entries) or "location" not in said:
        raise ValueError("its external data has no location, or two of one entry")
    location = said["location"]
    if model.folder is None:
        raise ValueError(
            f"its elements are in another file, {shown(location)}: pass the path of the model, or "
            "onnx.load(path), which reads them"
        )
    offset, size = (_number(name, said.get(name)) for name in ("offset", "length"))
    path = _inside(model.folder, location)
    with _opened(path) as file:
        there = os.fstat(file.fileno()).st_size
        begin = offset or 0
        if begin > there or (size is not None and size > there - begin):
            raise ValueError(
                f"its elements are bytes {begin} to {begin + (size or 0)} of {shown(location)}, "
                f"which has {there}"
            )
        expected = math.prod(shape) * dtype.itemsize if all(n >= 0 for n in shape) else -1
        size = min(expected, there - begin) if size is None else size
        model.budget.grow(path, there)
        _room(shape, dtype, size, f"bytes in {shown(location)}", model)
        raw = np.empty(size, np.uint8)
        file.seek(begin)
        if file.readinto(raw.data) < size:
            raise ValueError(f"{shown(location)} ends inside of its elements")
    return _from_bytes(raw, shape, dtype)


def _number(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"the {name} of its external data is {shown(text)}, expected a number")
    return int(text)


def _inside(folder: str, location: str) -> str:
    """The path of a file in the folder; ValueError for one that is elsewhere."""
    parts = re.split(r"[/\\]", location)
    if not location or os.path.isabs(location) or ".." in parts or "\0" in location:
        raise ValueError(
            f"its elements are in {shown(location)}, expected a file in the model's folder"
        )
    path = os.path.realpath(os.path.join(folder, location))
    if os.path.commonpath([path, os.path.realpath(folder)]) != os.path.realpath(folder):
        raise ValueError(
            f"its elements are in {shown(location)}, a link out of the model's folder: put "
            "the file itself there"
        )
    return path
