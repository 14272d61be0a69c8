"""HDF5 files of the classic layout, which is what h5py writes unless told otherwise.

Only what files of weights are made of: groups, hard links, contiguous arrays, numbers and texts.
On some damaged files libhdf5 goes on for ever. Here no address, count or size is believed that the
file's own size does not bear out, and all bytes read, counted as often as they are, may not come
to more than four times the file: that bounds time and memory.

The words are those of the "HDF5 File Format Specification", version 3.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .._formats import HDF5_SIGNATURE
from ._layers import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_TIMES = 4  # how often the file may be read
_MAX_AXES = 32  # the format's own limit
_MAX_SIZE = 2**48  # of an axis

# Messages of an object header: what an object is.
_SPACE, _LINK_INFO, _TYPE, _LINK, _LAYOUT, _ATTRIBUTE = 0x1, 0x2, 0x3, 0x6, 0x8, 0xC
_CONTINUATION, _SYMBOL_TABLE = 0x10, 0x11
_SOFT = 2  # kind of a link in a symbol table

# Of a float: bits, the place of the sign, place and size of exponent and mantissa, the bias.
_FLOATS = {
    (16, 15, 10, 5, 0, 10, 15): "f2",
    (32, 31, 23, 8, 0, 23, 127): "f4",
    (64, 63, 52, 11, 0, 52, 1023): "f8",
}
_CLASSES = (
    "an integer", "a float", "a time", "a text", "bits", "opaque", "a compound", "a reference",
    "an enumeration", "of variable length", "an array",
)  # fmt: skip


def _number(raw: bytes, at: int, size: int = 8) -> int:
    if at + size > len(raw):
        raise ValueError("a record is cut short")
    return int.from_bytes(raw[at : at + size], "little")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{shown(raw)} is no text in UTF-8") from None


class File:
    """An HDF5 file.

    Parameters
    ----------
    stream : binary file
        What can be read at any place.

    Attributes
    ----------
    root : Node
        The group that all is in.

    Raises
    ------
    ValueError
        If the file is none, is damaged, or has what is not read here. So does all that is done
        with it.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = stream.seek(0, 2)
        self._left = _TIMES * self._size + 4096
        self._nodes: dict[int, Node] = {}
        self._heaps: dict[int, dict[int, bytes]] = {}
        start = self.take(0, min(96, self._size))
        if not start.startswith(HDF5_SIGNATURE):
            raise ValueError("this is no HDF5 file")
        version = _number(start, 8, 1)
        if version > 1:
            raise ValueError(
                f"this is an HDF5 file of a later layout (superblock {version}), which Keras does "
                "not write: load the model in Keras and save it as .keras"
            )
        if start[13:15] != b"\x08\x08":
            raise ValueError("its addresses are not of 8 bytes")
        at = 24 + 4 * version  # the addresses: base, free space, end, driver, then the root's entry
        end = _number(start, at + 16)
        if _number(start, at) or end > self._size:
            raise ValueError(f"it has {self._size} bytes of {end}, with which it was written")
        self.root = self.node(_number(start, at + 40), "the root group")

    def take(self, address: int, size: int) -> bytes:
        """Bytes of the file."""
        if address + size > self._size:
            raise ValueError(
                f"{size} bytes at {address} would lie beyond its end at {self._size}: it is "
                "damaged, or not all of it is here"
            )
        self.spend(max(size, 64))  # a small one takes time, too
        self._stream.seek(address)
        found = self._stream.read(size)
        if len(found) != size:
            raise ValueError(f"only {len(found)} of {size} bytes at {address} could be read")
        return found

    def spend(self, size: int) -> None:
        """Count what is read, or looked at again, and raise ValueError where that is too much."""
        self._left -= size
        if self._left < 0:
            raise ValueError(f"it would have to be read more than {_TIMES} times over")

    def node(self, address: int, name: str) -> Node:
        """The object whose header is there."""
        if address not in self._nodes:
            self._nodes[address] = Node(self, address, name)
        return self._nodes[address]

    def of_global_heap(self, address: int, index: int) -> bytes:
        """What the heap collection there has under that index."""
        if address not in self._heaps:
            head = self.take(address, 16)
            if not head.startswith(b"GCOL\1"):
                raise ValueError("a text is in no global heap")
            raw, at = self.take(address, _number(head, 8)), 16
            found = self._heaps[address] = {}
            while at + 16 <= len(raw) and (key := _number(raw, at, 2)):  # 0 is what is free
                size = _number(raw, at + 8)
                found[key] = raw[at + 16 : at + 16 + size]
                at += 16 + (size + 7) // 8 * 8
        return self._heaps[address].get(index, b"")


class Node:
    """A group or an array of a file, with attributes.

    Attributes
    ----------
    name : str
        Its path in the file, for errors.
    """

    def __init__(self, file: File, address: int, name: str) -> None:
        self.name = name
        self._file = file
        self._messages: dict[int, list[bytes]] = {}
        for kind, flags, data in self._read_header(address):
            if flags & 2 and kind in (_SPACE, _TYPE, _LAYOUT, _ATTRIBUTE):
                raise ValueError(f"{name} shares its shape, type or attributes with others")
            self._messages.setdefault(kind, []).append(data)

    def _read_header(self, address: int) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and data of the messages that say what it is."""
        start = self._file.take(address, 16)
        if start[0] != 1:
            raise ValueError(f"{self.name} has no object header of version 1")
        blocks = [(address + 16, _number(start, 8, 4))]
        for block, size in blocks:  # which grows
            raw, at = self._file.take(block, size), 0
            while at + 8 <= size:
                kind, length = _number(raw, at, 2), _number(raw, at + 2, 2)
                data = raw[at + 8 : at + 8 + length]
                if len(data) != length:
                    raise ValueError(f"the header of {self.name} is cut short")
                if kind == _CONTINUATION:
                    blocks.append((_number(data, 0), _number(data, 8)))
                else:
                    yield kind, raw[at + 4], data
                at += 8 + length

    def _message(self, kind: int, what: str) -> bytes:
        found = self._messages.get(kind, [])
        if len(found) != 1:
            raise ValueError(f"{self.name} has {len(found)} {what}, expected one")
        return found[0]

    # -------------------------------------------------------------------------- groups

    @property
    def is_group(self) -> bool:
        """Whether it is a group, and no array."""
        return not self._messages.keys().isdisjoint((_SYMBOL_TABLE, _LINK_INFO, _LINK))

    @cached_property
    def _links(self) -> dict[str, tuple[int, int]]:
        """Address and kind of what is in a group, by name."""
        table = self._message(_SYMBOL_TABLE, "symbol tables (of later layouts none is read)")
        head = self._file.take(_number(table, 8), 32)
        if not head.startswith(b"HEAP\0"):
            raise ValueError(f"{self.name} has no local heap")
        names = self._file.take(_number(head, 24), _number(head, 8))
        found: dict[str, tuple[int, int]] = {}
        for entries in self._symbol_nodes(_number(table, 0)):
            for at in range(0, len(entries), 40):
                start = _number(entries, at)
                end = names.find(b"\0", start)
                name = _text(names[start:end]) if end >= start else ""
                if not name or "/" in name or name in found:
                    raise ValueError(f"{self.name} has the name {shown(name)}, or twice so")
                found[name] = _number(entries, at + 8), _number(entries, at + 16, 4)
        return found

    def _symbol_nodes(self, address: int, level: int = -1) -> Iterator[bytes]:
        """The entries of each leaf of a B-tree, from left to right."""
        if level == 0:
            head = self._file.take(address, 8)
            if not head.startswith(b"SNOD\1"):
                raise ValueError(f"{self.name} has no symbol table")
            yield self._file.take(address + 8, 40 * _number(head, 6, 2))
            return
        head = self._file.take(address, 24)
        # Levels fall by one, so no way down comes back. Nine are for more than any file has.
        if not head.startswith(b"TREE\0") or head[5] > 8 or level not in (-1, head[5] + 1):
            raise ValueError(f"{self.name} has no B-tree")
        raw = self._file.take(address + 24, 16 * _number(head, 6, 2))  # keys and children
        for at in range(8, len(raw), 16):
            yield from self._symbol_nodes(_number(raw, at), head[5])

    def __iter__(self) -> Iterator[str]:
        """The names of what is in a group, which may be linked to from everywhere."""
        self._file.spend(40 * len(self._links))
        return iter(self._links)

    def child(self, name: str) -> Node | None:
        """What a group has under this name."""
        if name not in self._links:
            return None
        address, kind = self._links[name]
        path = shown(f"{self.name}/{name}" if self is not self._file.root else name)[1:-1]
        if kind == _SOFT:
            raise ValueError(f"{path} is a symbolic link, which no file of weights needs")
        return self._file.node(address, path)

    # -------------------------------------------------------------------------- arrays

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array."""
        return _shape(self._message(_SPACE, "shapes"), self.name)

    @cached_property
    def _stored(self) -> np.dtype[Any]:
        kind, dtype = _type(self._message(_TYPE, "types"), self.name)
        if kind != "number" and dtype != np.dtype("V2"):
            raise ValueError(f"{self.name} is an array of texts, or of what is unknown")
        return dtype

    @cached_property
    def dtype(self) -> str:
        """The type of an array, in NumPy's words, or "bfloat16"."""
        if self._stored.kind != "V":
            return self._stored.newbyteorder("=").name
        if self.text("dtype") != "bfloat16":
            raise ValueError(f"{self.name} is an array of an unknown type")
        return "bfloat16"

    def read(self) -> Array:
        """The elements of an array; bfloat16 are made float32, exactly."""
        layout = self._message(_LAYOUT, "layouts")
        if layout[:2] != b"\3\1":
            raise ValueError(
                f"{self.name} is in chunks, compressed, or in another file: load the model in "
                "Keras and save it as .keras"
            )
        address, size = _number(layout, 2), _number(layout, 10)
        stored, needed = self._stored, math.prod(self.shape) * self._stored.itemsize
        if size != needed:
            raise ValueError(f"{self.name} has {size} bytes of {needed}")
        raw = self._file.take(address, size) if size else b""
        if self.dtype == "bfloat16":  # the upper half of a float32
            return (np.ndarray(self.shape, "<u2", raw).astype(np.uint32) << 16).view(np.float32)
        return np.ndarray(self.shape, stored, raw)

    # -------------------------------------------------------------------------- attributes

    @cached_property
    def _attributes(self) -> dict[str, tuple[bytes, bytes, bytes]]:
        """Type, shape and data, by name."""
        found = {}
        for raw in self._messages.get(_ATTRIBUTE, []):
            version = _number(raw, 0, 1)
            if version not in (1, 2, 3) or (version > 1 and raw[1]):
                raise ValueError(f"{self.name} has an attribute of a later layout")
            at, parts = 8 + (version == 3), []
            for i in (2, 4, 6):
                size = _number(raw, i, 2)
                parts.append(raw[at : at + size])
                at += (size + 7) // 8 * 8 if version == 1 else size
            found[_text(parts[0].partition(b"\0")[0])] = parts[1], parts[2], raw[at:]
        return found

    def text(self, attribute: str) -> str | None:
        """An attribute that is one text; None if there is none of the name."""
        if attribute not in self._attributes:
            return None
        what = f"the attribute {attribute} of {self.name}"
        raw_type, raw_shape, data = self._attributes[attribute]
        kind, dtype = _type(raw_type, what)
        if kind not in ("text", "texts") or math.prod(_shape(raw_shape, what)) != 1:
            raise ValueError(f"{what} is not one text")
        if kind == "text":
            return _text(data[: dtype.itemsize].rstrip(b"\0"))
        # Of variable length: its length, the heap's address, an index.
        length, found = _number(data, 0, 4), b""
        if length:
            found = self._file.of_global_heap(_number(data, 4), _number(data, 12, 4))[:length]
        if len(found) != length:
            raise ValueError(f"{what} is not in the global heap where it should be")
        return _text(found.rstrip(b"\0"))


def _type(raw: bytes, what: str) -> tuple[str, np.dtype[Any]]:
    """What elements are, "number", "text", "texts" (of any length) or "opaque"; their dtype."""
    kind, bits, size = _number(raw, 0, 1) & 15, _number(raw, 1, 3), _number(raw, 4, 4)
    order = "<>"[bits & 1]
    if kind == 0 and raw[8:12] == bytes([0, 0, 8 * size & 255, 0]) and size in (1, 2, 4, 8):
        return "number", np.dtype(f"{order}{'ui'[bits >> 3 & 1]}{size}")
    if kind == 1 and len(raw) >= 20 and bits >> 4 & 7 == 2:  # the first bit of mantissas is implied
        float_ = (_number(raw, 10, 2), bits >> 8 & 255, *raw[12:16], _number(raw, 16, 4))
        if _FLOATS.get(float_) == f"f{size}" and raw[8:10] == b"\0\0":
            return "number", np.dtype(f"{order}f{size}")
    if kind == 3 and 0 < size < 2**16:
        return "text", np.dtype((np.void, size))
    if kind == 5 and 0 < size < 2**16:
        return "opaque", np.dtype((np.void, size))
    if kind == 9 and bits & 15 == 1 and size == 16:
        return "texts", np.dtype((np.void, size))
    name = _CLASSES[kind] if kind < len(_CLASSES) else "unknown"
    raise ValueError(f"{what} is of a type that is not read here ({name}, {size} bytes)")


def _shape(raw: bytes, what: str) -> tuple[int, ...]:
    version, axes = _number(raw, 0, 1), _number(raw, 1, 1)
    if version not in (1, 2) or axes > _MAX_AXES or (version == 2 and _number(raw, 3, 1) == 2):
        raise ValueError(f"{what} has no shape")
    sizes = tuple(_number(raw, (8 if version == 1 else 4) + 8 * i) for i in range(axes))
    if any(size > _MAX_SIZE for size in sizes):
        raise ValueError(f"{what} has shape {sizes}, which is too large")
    return sizes
