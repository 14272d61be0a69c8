"""Files of Keras 3: .keras, which is a zip archive of two JSON texts and an HDF5 file, and that.

Nothing is unpickled or executed, no other file is opened, and no size is believed that the file's
own does not bear out. Neither Keras nor h5py is needed.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from .._formats import HDF5_SIGNATURE, open_regular
from . import hdf5
from ._layers import several, shown
from .keras_config import Part, check_version, parsed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MAX_TEXT = 1 << 24  # bytes of a JSON text
_MAX_EXPANSION = 8  # of what is compressed, beside the size of the whole file; weights hardly are

# What zipfile raises for archives that are damaged.
_DAMAGED = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, KeyError, IndexError,
    OverflowError, ValueError, OSError, struct.error, zlib.error,
)  # fmt: skip


class Weights:
    """The variables of a model in an HDF5 file, by the way to the layer that has them.

    Parameters
    ----------
    stream : binary file
    what : str
        What it is called in errors.
    """

    def __init__(self, stream: BinaryIO, what: str) -> None:
        self._what = what
        self._root = hdf5.File(stream).root
        if not self._root.is_group:
            raise ValueError("it holds no model")
        if self._root.child("model_weights") or self._root.text("keras_version") is not None:
            raise ValueError(
                "this is an .h5 file of the older kind: load it in Keras and save it as .keras, "
                f"keras.models.load_model({what!r}).save({os.path.splitext(what)[0] + '.keras'!r})"
            )

    def _group(self, path: tuple[str, ...]) -> hdf5.Node | None:
        node: hdf5.Node | None = self._root
        for name in path:
            node = node.child(name) if node is not None and node.is_group else None
        return node if node is not None and node.is_group else None

    def check(self, parts: list[Part]) -> None:
        """Raise unless the file has the layers of the configuration, and no others."""
        expected: dict[tuple[str, ...], set[str]] = {}
        for part in parts:
            for i, step in enumerate(part.path[:-1]):
                if step == "layers":
                    expected.setdefault(part.path[: i + 1], set()).add(part.path[i + 1])
        for path, names in expected.items():
            group = self._group(path)
            extra = sorted(set(group or ()) - names)
            if extra:
                raise ValueError(
                    f"{'/'.join(path)} holds {several(map(shown, extra))}, which the configuration "
                    "does not have"
                )
        for part in parts:
            group = self._group((*part.path, "vars")) if part.cells else None
            stored = group.text("name") if group is not None else None  # since Keras 3.6
            name = part.name.rpartition("/")[2]
            if stored is not None and stored != name:
                raise ValueError(
                    f"{'/'.join(part.path)} is the layer {shown(stored)}, but {shown(name)} in the "
                    "configuration: it is of another model"
                )

    def unknown(self) -> list[Part]:
        """What there is, where no configuration says what it is."""
        layers = self._group(("layers",))
        why = "which layer it is, only config=model.to_json() says"
        return [
            Part(f"layers/{name}", "unknown", ("layers", name), [], {f"layers/{name}": why})
            for name in layers or ()
        ]

    def read(self, path: tuple[str, ...], count: int) -> list[Array]:
        """The variables of a layer, which are to be so many."""
        group = self._group((*path, "vars"))
        names = list(map(str, range(count)))
        if group is None or sorted(group) != sorted(names):
            have = 0 if group is None else len(list(group))
            shared = "" if have else " (of what several places share, the first has the variables)"
            raise ValueError(f"{'/'.join(path)} has {have} variables, expected {count}{shared}")
        found = []
        for name in names:
            array = group.child(name)
            if array is None or array.is_group or "float" not in array.dtype:
                raise ValueError(f"{'/'.join(path)} has a variable that is no array of floats")
            found.append(array.read())
        if len({a.dtype.newbyteorder("=") for a in found}) > 1:
            raise ValueError(f"{'/'.join(path)} has variables of several types")
        return found

    def described(self, path: tuple[str, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of all that is stored for a layer."""
        group = self._group(path)
        if not path or group is None:
            return {}
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        seen = {id(group)}  # groups of a bad file may be inside themselves, and many times over
        todo = [("", group)]
        for prefix, here in todo:  # which grows
            for name in here:
                node = here.child(name)
                if node is None or id(node) in seen:
                    continue
                seen.add(id(node))
                if node.is_group:
                    todo.append((f"{prefix}{name}/", node))
                    continue
                try:
                    found[prefix + name] = node.dtype, node.shape
                except ValueError:
                    found[prefix + name] = "unknown", ()
        return found


@contextmanager
def opened(path: str, config: Any) -> Iterator[tuple[Any, Weights]]:
    """The configuration of a model (if any) and its weights; errors inside name the file.

    Parameters
    ----------
    path : str
    config : object
        The configuration of a .weights.h5 file, else None.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is none of Keras 3, or damaged.
    """
    if os.path.isdir(path):
        raise ValueError(
            f"{path}: a folder, expected a file: its weights are in "
            f"{os.path.join(path, _WEIGHTS)!r}, with config=open("
            f"{os.path.join(path, _CONFIG)!r}).read()"
        )
    if (file := open_regular(path)) is None:
        raise ValueError(f"{path}: not a regular file")
    with file:
        start = file.read(8)
        try:
            if start == HDF5_SIGNATURE:
                yield config, Weights(file, path)
            elif not start.startswith(b"PK"):
                raise ValueError("this is neither a .keras nor a .weights.h5 file")
            elif config is not None:
                raise ValueError("config is given, but the file has its own: leave it out")
            else:
                yield _from_archive(file, path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _from_archive(file: BinaryIO, path: str) -> tuple[Any, Weights]:
    try:
        with zipfile.ZipFile(file) as archive:
            texts = [_member(archive, name, _MAX_TEXT) for name in (_METADATA, _CONFIG)]
            if _WEIGHTS not in archive.namelist() and "model.weights.npz" in archive.namelist():
                raise _Refused("its weights are an .npz file: load it in Keras and save it again")
            raw = _member(archive, _WEIGHTS, _MAX_EXPANSION * file.seek(0, 2))
    except _Refused:
        raise
    except _DAMAGED as error:
        raise ValueError(f"the archive is damaged: {error or type(error).__name__}") from None
    metadata = parsed(texts[0], _METADATA)
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    check_version(version, "the file")
    return parsed(texts[1], _CONFIG), Weights(BytesIO(raw), path)


class _Refused(ValueError):
    """What is wrong with an archive that is not damaged."""


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A file in an archive, whose checksum is right."""
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise _Refused(f"it has {len(found)} files {name}, expected one: it is no .keras file")
    (info,) = found
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Refused(f"{name} is compressed in a way that Keras does not use")
    if info.file_size > limit:
        raise _Refused(f"{name} would have {info.file_size} bytes, more than {limit}")
    with archive.open(info) as member:
        raw = member.read(info.file_size)  # what is not told how much may make a gigabyte
    if len(raw) != info.file_size:
        raise _Refused(f"{name} has {len(raw)} bytes, not {info.file_size}")
    return raw
