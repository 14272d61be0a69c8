"""Files that commands write: checked before the work, written whole or not at all."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from ._checks import listed
from .io import replace_file

FORMATS = (".png", ".svg", ".pdf")


class OutputError(Exception):
    """A file that cannot be drawn or written; one line on what the user can mend."""


def check_output(
    path: str, force: bool, cure: str = "replace it with --force, or choose another name"
) -> None:
    """Raise OutputError if the file could not be written, or is there and not to be replaced.

    Parameters
    ----------
    path : str
        Where an option wants it.
    force : bool
        Whether a file that is there may be replaced.
    cure : str
        What the user can do about a file that is there.
    """
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: no such folder, or it cannot be written to")
    if os.path.isdir(path):
        raise OutputError(f"cannot write {path}: it is a folder")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"cannot write {path}: it is not a regular file")
    if os.path.lexists(path) and not force:
        raise OutputError(f"{path} exists: {cure}")


def check_plot(path: str, force: bool, **cure: str) -> None:
    """Raise OutputError as `check_output`, or if the plot could not be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise OutputError("--plot needs matplotlib: pip install matplotlib")
    if Path(path).suffix.lower() not in FORMATS:
        raise OutputError(f"--plot {path}: the name must end in {listed(FORMATS)}")
    check_output(path, force, **cure)


def same_file(a: str | None, b: str | None) -> bool:
    """Whether both are names of one file, which need not be there."""
    if a is None or b is None:
        return False
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them is not there
        return os.path.realpath(a) == os.path.realpath(b)


def write_output(path: str, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file of these bytes.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before still is.
    """
    try:
        replace_file(path, chunks)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {path}: {reason}") from None


def save_plot(figure: Any, path: str) -> None:
    """Write a matplotlib Figure as `write_output`, in the format that the name asks for."""
    image = BytesIO()
    figure.savefig(image, format=Path(path).suffix[1:].lower(), dpi=150)
    write_output(path, [image.getbuffer()])
