"""The run as a plot: how many times slower than the compiled kernels each peer is."""

from __future__ import annotations

from typing import Any

from .peers import OWN
from .report import Report, Row


def draw(report: Report) -> Any:
    """Return a matplotlib Figure: a row of panels for each cell, a panel for each mode.

    In a panel rows are shapes, dots are peers, and 1 is our own time.
    """
    from matplotlib.figure import Figure  # without pyplot: no display and no global state

    groups = dict(report.groups())
    lines = list(dict.fromkeys((cell, dtype) for cell, _, dtype in groups))
    modes = list(dict.fromkeys(mode for _, mode, _ in groups))
    # As high as its tallest panel, and what a title, an axis and its label take.
    heights = [
        1.2 + 0.42 * max(len(groups.get((cell, mode, dtype), ())) for mode in modes)
        for cell, dtype in lines
    ]
    figure = Figure(figsize=(6.0 * len(modes), 0.8 + sum(heights)), layout="constrained")
    axes = figure.subplots(
        len(lines), len(modes), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for (cell, dtype), panels in zip(lines, axes, strict=True):
        for mode, axis in zip(modes, panels, strict=True):
            if rows := groups.get((cell, mode, dtype)):
                _draw_panel(axis, report, rows)
                axis.set_title(f"{cell} {mode}, {dtype}; shapes (T,B,D,H)")
            else:
                axis.set_axis_off()
    # One legend for all, beside the panels: no dot may lie under it.
    entries: dict[str, Any] = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries:
        peers = [peer for peer in report.peers if peer in entries]
        figure.legend(
            [entries[peer] for peer in peers], peers, loc="outside lower center", ncols=len(peers)
        )
    figure.suptitle(f"{report.machine['cpu']}, {report.machine['cores']} cores")
    return figure


def _draw_panel(axis: Any, report: Report, rows: list[Row]) -> None:
    """Draw how many times slower than our own function each peer is on each row."""
    from matplotlib import ticker

    peers = [peer for peer in report.peers if peer != OWN]
    for index, peer in enumerate(peers):
        points = []
        for place, row in enumerate(rows):
            ours, theirs = (row.taken(who, report.statistic) for who in (OWN, peer))
            if ours is not None and theirs is not None:
                slower = theirs.nanoseconds(report.statistic) / ours.nanoseconds(report.statistic)
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
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.set_yticks(range(len(rows)), [str(row.shape) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(f"time / {OWN}'s time (left of the line a peer is faster)")
    axis.grid(alpha=0.3)
