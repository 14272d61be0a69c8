"""Two files of ``fastrnn bench --json`` side by side: what became faster, and what slower."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path

from .peers import OWN
from .report import Report, Row
from .shapes import BenchError
from .tables import align, geometric_mean, milliseconds

# Two runs of the same build, one after the other, had rows that were quiet and yet 2% apart.
RUNS_DIFFER = 0.03
RULE = (
    "a run's interval goes from the smallest of its rounds to their median, or "
    f"{RUNS_DIFFER:.0%} up where that is more; faster or slower is a row whose two intervals do "
    "not touch, and all others are the same"
)

Key = tuple[str, str, str, str]


def load_report(path: str) -> Report:
    """Return the run in a file, or raise BenchError if there is none."""
    try:
        report = Report.from_json(Path(path).read_text(encoding="utf-8"))
        report.to_json()  # what is derived can be derived
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise BenchError(f"{path} is not JSON") from None
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from None
    except (ArithmeticError, AttributeError, KeyError, TypeError):
        raise BenchError(f"{path} is not a whole file of fastrnn bench --json") from None
    except ValueError as error:
        raise BenchError(f"{path}: {error}") from None
    return report


def interval(row: Row, statistic: str) -> tuple[float, float]:
    """Return our time on a row, and up to where it may as well be: see `RULE`.

    The time is the smallest of the rounds, as in the tables: a round can be disturbed, but not
    sped up. How far half of the rounds lie above it tells how much the machine disturbed them.
    """
    ours = row.taken(OWN, statistic)
    assert ours is not None
    rounds = [batch[statistic] for batch in ours.rounds]
    return min(rounds), max(statistics.median(rounds), (1 + RUNS_DIFFER) * min(rounds))


def verdict(old: Row, new: Row, statistic: str) -> str:
    """Say by `RULE` whether we became faster or slower, or are the same as far as can be told."""
    (before, before_at_most), (after, after_at_most) = (interval(r, statistic) for r in (old, new))
    if after > before_at_most:
        return "slower"
    return "faster" if after_at_most < before else "same"


def rows_of(report: Report) -> dict[Key, Row]:
    """Return the rows on which we were timed, by what they are."""
    return {
        (row.cell, row.mode, row.dtype, str(row.shape)): row
        for row in report.rows
        if row.taken(OWN, report.statistic) is not None
    }


def format_comparison(
    old: Report, new: Report, statistic: str, markdown: bool = False
) -> tuple[str, bool]:
    """Return the comparison as text, and whether a row became slower.

    Parameters
    ----------
    old, new : Report
        Runs, of this machine or not: where they differ is said first.
    statistic : str
        Of a batch: median or best.
    markdown : bool
        Whether to write Markdown.
    """
    before, after = rows_of(old), rows_of(new)
    lines = [
        f"machines differ in {name}: {old.machine.get(name)} before, {new.machine.get(name)} now"
        for name in ("cpu", "cores", "isa", "system")
        if old.machine.get(name) != new.machine.get(name)
    ]
    body, verdicts, factors = [], Counter[str](), []
    for key in [key for key in before if key in after]:
        rows = before[key], after[key]
        times = [interval(row, statistic)[0] for row in rows]
        ratios = [row.ratio(statistic) for row in rows]
        factors.append(times[1] / times[0])
        found = verdict(*rows, statistic)
        verdicts[found] += 1
        body.append(
            [
                " ".join(key),
                *map(milliseconds, times),
                f"{factors[-1]:.2f}",
                *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
                found,
            ]
        )
    header = ["row", "old ms", "new ms", "new/old", "old ratio", "new ratio", "verdict"]
    parts = ["\n".join(lines)] if lines else []
    if body:
        parts.append(align(header, body, markdown))
        parts.append(
            f"{OWN}: new/old, geometric mean {geometric_mean(factors):.2f}; "
            + ", ".join(f"{name} {verdicts[name]}" for name in ("faster", "slower", "same"))
            + "\n"
            + RULE
        )
    else:
        parts.append("no row is in both files")
    for name, one, other in (("old", before, after), ("new", after, before)):
        if only := [" ".join(key) for key in one if key not in other]:
            parts.append("\n".join([f"only in the {name} file:", *only]))
    return "\n\n".join(parts), verdicts["slower"] > 0
