"""Plots that commands write: checked before the work, written whole or not at all."""

from __future__ import annotations

import importlib.util
import os
from io import BytesIO
from pathlib import Path
from typing import Any

from .io import replace_file

FORMATS = (".png", ".svg", ".pdf")


class PlotError(Exception):
    """A plot that cannot be drawn or written; one line on what the user can mend."""


def check_plot(path: str, force: bool) -> None:
    """Raise PlotError if the plot could not be drawn to this file.

    Parameters
    ----------
    path : str
        Where the option ``--plot`` wants it.
    force : bool
        Whether a file that is there may be replaced.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotError("--plot needs matplotlib: pip install matplotlib")
    if Path(path).suffix.lower() not in FORMATS:
        raise PlotError(f"--plot {path}: the name must end in {', '.join(FORMATS)}")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise PlotError(f"cannot write {path}: no such folder, or it cannot be written to")
    if os.path.isdir(path):
        raise PlotError(f"cannot write {path}: it is a folder")
    if os.path.lexists(path) and not force:
        raise PlotError(f"--plot {path}: it exists, replace it with --force")


def save_plot(figure: Any, path: str) -> None:
    """Write a matplotlib Figure, in the format that the name asks for.

    Raises
    ------
    PlotError
        If the file cannot be written; what was there before still is.
    """
    image = BytesIO()
    figure.savefig(image, format=Path(path).suffix[1:].lower(), dpi=150)
    try:
        replace_file(path, [image.getbuffer()])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PlotError(f"cannot write {path}: {reason}") from None
