"""The run as text: the machine, a table for each cell and mode, what was excluded."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .peers import OWN
from .report import Report, Row

LOST = "LOST"
FAR = 0.8  # of a ratio: lost by more than what runs differ by

MODE_TEXTS = {
    "step": "step is one time step from Python, the state carried from call to call; of the ways "
    "that a peer has, the fastest is taken",
    "tape": "tape is forward that keeps what backward needs",
    "stream": f"stream is a whole sequence with the packed weights kept in {OWN} too, and forward "
    "for the others",
    "frozen": f"frozen is a layer of {OWN} that was frozen before, and forward for the others",
}


def milliseconds(nanoseconds: float) -> str:
    """Return a time in milliseconds with three significant digits."""
    value = nanoseconds / 1e6
    if value <= 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{digits}f}"


def geometric_mean(values: Iterable[float]) -> float | None:
    """Return the geometric mean; None of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def row_cells(report: Report, row: Row) -> list[str]:
    """Return the columns of one row; a row that a peer wins says LOST beside the ratio."""
    cells = [str(row.shape)]
    for peer in report.peers:
        timing = row.taken(peer, report.statistic)
        cells.append(
            "-"
            if timing is None
            else f"{milliseconds(timing.nanoseconds(report.statistic))} ({timing.threads})"
        )
    ratio, rate = row.ratio(report.statistic), row.rate(report.statistic)
    shares = report.shares(row)
    cells.append("-" if rate is None else f"{rate:.3g}")
    cells.append("-" if ratio is None else f"{ratio:.2f}" + (f" {LOST}" if ratio < 1.0 else ""))
    # The nearer limit is the one that binds; where there is only one, it needs no name.
    limit = max(shares, key=shares.__getitem__, default="")
    name = f" {limit}" if row.weight_reads else ""
    cells.append(f"{shares[limit]:.0%}{name}" if limit else "-")
    return cells


def means_line(report: Report, rows: list[Row]) -> str:
    """Return the geometric means of the ratios, rows of one step apart, and the rows lost."""
    ratios = {
        row.shape: ratio for row in rows if (ratio := row.ratio(report.statistic)) is not None
    }
    if not ratios:
        return ""
    parts = []
    one_step = geometric_mean(ratio for shape, ratio in ratios.items() if shape.T == 1)
    sequences = geometric_mean(ratio for shape, ratio in ratios.items() if shape.T > 1)
    if sequences is not None:
        parts.append(f"best peer / {OWN}, geometric mean {sequences:.2f}")
    if one_step is not None:
        parts.append(f"one step {one_step:.2f}")
    lost = [ratio for ratio in ratios.values() if ratio < 1.0]
    parts.append(f"rows lost: {len(lost)} of {len(ratios)}")
    return ", ".join(parts)


def summary_text(report: Report) -> str:
    """Return the geometric means over all cells, and the rows lost.

    Of float32 rows that a peer was timed on; those of one step apart, since a call's overhead is
    most of it.
    """
    groups: dict[str, list[float]] = {}
    for row in report.rows:
        ratio = row.ratio(report.statistic)
        if row.dtype == "float32" and ratio is not None:
            alone = row.shape.T == 1 and row.mode != "step"
            groups.setdefault(f"{row.mode} of one step" if alone else row.mode, []).append(ratio)
    ratios = [ratio for group in groups.values() for ratio in group]
    if not ratios:
        return ""
    lost, far = (sum(ratio < limit for ratio in ratios) for limit in (1.0, FAR))
    parts = [
        f"{name} {geometric_mean(group):.2f} ({len(group)} row{'s' * (len(group) > 1)})"
        for name, group in groups.items()
    ]
    return (
        f"all cells, float32: best peer / {OWN}, geometric mean of {', '.join(parts)}; "
        f"rows lost: {lost} of {len(ratios)}, below {FAR:g}: {far}"
    )


def ways_lines(report: Report, rows: list[Row]) -> list[str]:
    """Return a line for each row that has peers with several ways, and the time of each way."""
    lines = []
    for row in rows:
        parts = []
        for peer in report.peers:
            times = [
                f"{way} {milliseconds(timing.nanoseconds(report.statistic))} ({timing.threads})"
                for way in row.ways(peer)
                if (timing := row.taken(peer, report.statistic, way)) is not None
            ]
            if times:
                parts.append(f"{peer} " + ", ".join(times))
        if parts:
            lines.append(f"ways at {row.shape}: " + "; ".join(parts))
    return lines


def align(header: list[str], body: list[list[str]], markdown: bool) -> str:
    """Return columns padded to their widths, the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |" if markdown else "  ".join(padded).rstrip()

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    plain = ["-" * width for width in widths]
    return "\n".join([line(header), line(rule if markdown else plain), *map(line, body)])


def machine_text(report: Report, markdown: bool = False) -> str:
    """Return the lines that say where and with what the run was made."""
    machine, settings = report.machine, report.settings
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores used of {machine['cpus']}, "
        f"instruction set {machine['isa']}, {machine['system']}, load at start {machine['load']}",
        f"Python {machine['python']}, "
        + ", ".join(f"{name} {text}" for name, text in report.versions.items()),
        machine["command"],
        f"milliseconds a call (threads taken); smallest over {settings['rounds']} interleaved "
        f"rounds of the {report.statistic} of a batch of at least {settings['min_time']:g} s; "
        "shape is (T,B,D,H); - is not timed (inference only, no such cell or type, or excluded)",
    ]
    modes = {row.mode for row in report.rows}
    lines += [text for mode, text in MODE_TEXTS.items() if mode in modes]
    if any(row.shape.extras for row in report.rows):
        lines.append(
            "x2 is two layers, both is both directions; ragged is sequences of different lengths, "
            "of which GF count only the steps that exist"
        )
    for dtype, peaks in report.peak.items():
        text = ", ".join(
            f"{threads} thread{'s' * (threads != '1')} {value:.0f} GF"
            for threads, value in peaks.items()
        )
        lines.append(f"most multiply-adds a second seen, {dtype}: {text}")
    if report.peak:
        lines.append(
            "a limit is the most that this run has seen, of a loop that does nothing else or of a "
            "call: a call at 100% was the fastest of all"
        )
    if any("cache" in report.shares(row) for row in report.rows):
        lines.append(
            "of limit: fma is multiply-adds; cache is reading the weights that one sequence "
            "needs at every step, from where so many bytes lie; the nearer limit of both is shown"
        )
    if "numpy" in report.peers:
        lines.append(f"numpy is {OWN}.reference, a specification: a loop tuned for speed is faster")
    lines += [f"not timed: {peer} ({why})" for peer, why in report.missing.items()]
    return "\n".join(f"- {line}" if markdown else line for line in lines)


def format_report(report: Report, markdown: bool = False) -> str:
    """Return the whole run as plain text or Markdown."""
    parts = [machine_text(report, markdown)]
    for (cell, mode, dtype), rows in report.groups():
        title = f"{cell} {mode}, {dtype}"
        header = ["shape", *report.peers, "GF", "ratio", "of limit"]
        table = align(header, [row_cells(report, row) for row in rows], markdown)
        means = means_line(report, rows)
        gap = "\n\n" if markdown else "\n"
        heading = f"## {title}" if markdown else title
        lines = [heading, table, *ways_lines(report, rows), means]
        parts.append(gap.join(filter(None, lines)))
    parts += filter(None, [summary_text(report)])
    if report.problems:
        lines = [f"- {line}" for line in report.problems]
        parts.append("EXCLUDED:\n" + ("\n" if markdown else "") + "\n".join(lines))
    return "\n\n".join(parts)
