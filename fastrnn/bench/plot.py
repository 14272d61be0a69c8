"""The run as a picture: how many times slower than the compiled kernels each peer is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .peers import OWN
from .report import Report
from .shapes import BenchError

FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: str) -> None:
    """Raise BenchError if the picture could not be drawn, before the run rather than after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib: pip install 'fastrnn[plot]'")
    if Path(path).suffix.lower() not in FORMATS:
        raise BenchError(f"--plot {path}: the name must end in {', '.join(FORMATS)}")


def save_plot(report: Report, path: str) -> None:
    """Draw a panel for each cell and mode: rows are shapes, dots are peers, 1 is our own time."""
    from matplotlib.figure import Figure  # without pyplot: no display and no global state

    groups = list(report.groups())
    peers = [peer for peer in report.peers if peer != OWN]
    tallest = max(len(rows) for _, rows in groups)
    figure = Figure(figsize=(6.0 * len(groups), 1.6 + 0.42 * tallest), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for axis, ((cell, mode, dtype), rows) in zip(axes, groups, strict=True):
        for index, peer in enumerate(peers):
            points = []
            for place, row in enumerate(rows):
                ours, theirs = (row.taken(who, report.statistic) for who in (OWN, peer))
                if ours is not None and theirs is not None:
                    slower = theirs.nanoseconds(report.statistic) / ours.nanoseconds(
                        report.statistic
                    )
                    points.append((slower, place))
            if points:
                axis.scatter(
                    *zip(*points, strict=True),
                    label=peer,
                    color=f"C{index}",
                    marker="osD^vP"[index % 6],
                )
        axis.axvline(1.0, color="black", linewidth=1.0)
        axis.set_xscale("log")
        axis.set_yticks(range(len(rows)), [str(row.shape) for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel(f"time / {OWN}'s time (left of the line a peer is faster)")
        axis.set_title(f"{cell} {mode}, {dtype}; shapes (T,B,D,H)")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    figure.suptitle(f"{report.machine['cpu']}, {report.machine['cores']} cores")
    figure.savefig(path, dpi=150)
