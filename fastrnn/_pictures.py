"""Pictures that commands write: checked before the work, written whole or not at all."""

from __future__ import annotations

import importlib.util
import os
from io import BytesIO
from pathlib import Path
from typing import Any

from .io import replace_file

FORMATS = (".png", ".svg", ".pdf")


class PictureError(Exception):
    """A picture that cannot be drawn or written; one line on what the user can mend."""


def check_picture(path: str, force: bool) -> None:
    """Raise PictureError if the picture could not be drawn to this file.

    Parameters
    ----------
    path : str
        Where the option ``--plot`` wants it.
    force : bool
        Whether a file that is there may be replaced.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise PictureError("--plot needs matplotlib: pip install matplotlib")
    if Path(path).suffix.lower() not in FORMATS:
        raise PictureError(f"--plot {path}: the name must end in {', '.join(FORMATS)}")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise PictureError(f"cannot write {path}: no such folder, or it cannot be written to")
    if os.path.isdir(path):
        raise PictureError(f"cannot write {path}: it is a folder")
    if os.path.lexists(path) and not force:
        raise PictureError(f"--plot {path}: it exists, replace it with --force")


def save_picture(figure: Any, path: str) -> None:
    """Write a matplotlib Figure, in the format that the name asks for.

    Raises
    ------
    PictureError
        If the file cannot be written; what was there before still is.
    """
    picture = BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:].lower(), dpi=150)
    try:
        replace_file(path, [picture.getbuffer()])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"cannot write {path}: {reason}") from None
