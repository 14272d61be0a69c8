"""What a run found, and its file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from .peers import OWN
from .shapes import CELLS, Shape, flops, parse_shape, weight_reads

FORMAT = 1
STATISTICS = ("median", "best")


@dataclass
class Timing:
    """One peer at one thread count on one row: a batch of calls in each round."""

    peer: str
    threads: int
    rounds: list[dict[str, float]] = field(default_factory=list)  # best, median (ns), calls
    way: str = ""  # which of the ways of the peer, where it has several

    def nanoseconds(self, statistic: str) -> float:
        """Return the smallest over the rounds of a batch's `statistic`."""
        return min(batch[statistic] for batch in self.rounds)


@dataclass
class Row:
    """One cell, mode, element type and shape, with every peer that was timed on it."""

    cell: str
    mode: str
    dtype: str
    shape: Shape
    timings: list[Timing] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def flops(self) -> int:
        """Operations in the matrix products of one call."""
        return flops(CELLS[self.cell], self.shape, self.mode)

    @property
    def weight_reads(self) -> tuple[int, int] | None:
        """How many bytes of weights one call has to read, and how often."""
        return weight_reads(CELLS[self.cell], self.shape, self.mode, self.dtype)

    def taken(self, peer: str, statistic: str, way: str | None = None) -> Timing | None:
        """Return the peer's timing at its best thread count and in its best way, or a given way.

        None if it was not timed.
        """
        found = [
            timing
            for timing in self.timings
            if timing.peer == peer and timing.rounds and way in (None, timing.way)
        ]
        return min(found, key=lambda timing: timing.nanoseconds(statistic), default=None)

    def ways(self, peer: str) -> list[str]:
        """Return the names of the peer's ways that were timed; none where it has only one."""
        ways = (t.way for t in self.timings if t.peer == peer and t.rounds and t.way)
        return list(dict.fromkeys(ways))

    def best_peer(self, statistic: str) -> Timing | None:
        """Return the fastest timing that is not this package's own."""
        found = [timing for timing in self.timings if timing.peer != OWN and timing.rounds]
        return min(found, key=lambda timing: timing.nanoseconds(statistic), default=None)

    def ratio(self, statistic: str) -> float | None:
        """Return the best peer's time over ours: above 1, ours is faster."""
        ours, theirs = self.taken(OWN, statistic), self.best_peer(statistic)
        if ours is None or theirs is None:
            return None
        return theirs.nanoseconds(statistic) / ours.nanoseconds(statistic)

    def rate(self, statistic: str) -> float | None:
        """Return our 10^9 operations a second."""
        ours = self.taken(OWN, statistic)
        return None if ours is None else self.flops / ours.nanoseconds(statistic)


@dataclass
class Report:
    """A whole run."""

    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    peers: list[str]  # the columns
    missing: dict[str, str] = field(default_factory=dict)  # peer -> why it was not timed
    peak: dict[str, dict[str, float]] = field(default_factory=dict)  # dtype -> threads -> GF
    # dtype -> bytes that are read over and over -> threads -> GB/s
    bandwidth: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def statistic(self) -> str:
        """The statistic of a batch that tables show."""
        return str(self.settings.get("statistic", STATISTICS[0]))

    def shares(self, row: Row) -> dict[str, float]:
        """Return how near our call comes to each limit of as many threads measured in this run.

        "fma" is the rate of multiply-adds alone. "cache", for one sequence, is the bandwidth of
        reading as many bytes as the weights have that each step needs. A share is the time that a
        call would take at the limit over the time that it takes. It is 1 where the call was faster
        than all loops that measure the limit: then the limit is the call.
        """
        ours = row.taken(OWN, self.statistic)
        if ours is None:
            return {}
        threads, nanoseconds = str(ours.threads), ours.nanoseconds(self.statistic)
        shares = {}
        if peak := self.peak.get(row.dtype, {}).get(threads):
            shares["fma"] = row.flops / peak / nanoseconds
        if reads := row.weight_reads:
            size, times = reads
            if rate := self.bandwidth.get(row.dtype, {}).get(str(size), {}).get(threads):
                shares["cache"] = size * times / rate / nanoseconds
        return shares

    def groups(self) -> Iterator[tuple[tuple[str, str, str], list[Row]]]:
        """Yield (cell, mode, dtype) and its rows, in order of first appearance."""
        keys = dict.fromkeys((row.cell, row.mode, row.dtype) for row in self.rows)
        for key in keys:
            yield key, [row for row in self.rows if (row.cell, row.mode, row.dtype) == key]

    @property
    def problems(self) -> list[str]:
        """Every peer that was excluded or failed, with its row."""
        return [
            f"{row.cell} {row.mode} {row.shape}: {line}"
            for row in self.rows
            for line in row.problems
        ]

    def to_json(self) -> str:
        """Return the run as JSON: everything measured, and the figures of the tables."""
        out = asdict(self)
        out["format"] = FORMAT
        for row, entry in zip(self.rows, out["rows"], strict=True):
            entry["name"] = row.shape.name
            entry["shape"] = str(row.shape)
            entry["sizes"] = row.shape.sizes
            entry["flops"] = row.flops
            entry["summary"] = {
                statistic: {
                    "milliseconds": {
                        peer: timing.nanoseconds(statistic) / 1e6
                        for peer in self.peers
                        if (timing := row.taken(peer, statistic)) is not None
                    },
                    "ways": {
                        peer: {
                            way: timing.nanoseconds(statistic) / 1e6
                            for way in ways
                            if (timing := row.taken(peer, statistic, way)) is not None
                        }
                        for peer in self.peers
                        if (ways := row.ways(peer))
                    },
                    "gigaflops": row.rate(statistic),
                    "ratio": row.ratio(statistic),
                }
                for statistic in STATISTICS
            }
            entry["shares"] = self.shares(row)
        return json.dumps(out, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the run that `to_json` wrote; what it derived is derived anew."""
        entry = json.loads(text)
        if entry.get("format") != FORMAT:
            raise ValueError(f"format {entry.get('format')!r} of a benchmark file, not {FORMAT}")
        rows = [
            Row(
                row["cell"],
                row["mode"],
                row["dtype"],
                # The first files have only sizes.
                parse_shape(row.get("shape") or ",".join(map(str, row["sizes"]))),
                [Timing(**timing) for timing in row["timings"]],
                row["problems"],
            )
            for row in entry["rows"]
        ]
        names = ("machine", "versions", "settings", "peers", "missing", "peak")
        bandwidth = entry.get("bandwidth", {})
        return cls(**{name: entry[name] for name in names}, bandwidth=bandwidth, rows=rows)
