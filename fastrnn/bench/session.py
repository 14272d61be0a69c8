"""One run: workers, checks against the reference, interleaved rounds."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass

from .machine import busy_text, describe, load, usable_cores
from .peers import (
    OWN,
    PEERS,
    Peer,
    Results,
    expected_results,
    find_peer,
    missing_module,
    version,
)
from .pool import WorkerError, WorkerHandle
from .report import STATISTICS, Report, Row, Timing
from .shapes import (
    CELLS,
    DEFAULT_MODES,
    DTYPES,
    KEPT_MODES,
    MODES,
    SHAPES,
    BenchError,
    Problem,
    Shape,
    checked_problem,
    disagreements,
    is_timed,
    make_problem,
    parse_shapes,
    select,
    why_not_timed,
)

PEAK_SECONDS = 0.1
BANDWIDTH_SECONDS = 0.02


@dataclass(frozen=True)
class Options:
    """What to time and how; None stands for everything there is, of modes forward and training.

    Parameters
    ----------
    cells, modes, shapes, peers : sequence of str, optional
        Names; a shape may also be one of a regime or a text such as "T,B,D,H x2 both ragged",
        and a peer "module:Class". The mode "step" is one time step from Python, the state carried
        from call to call, and takes the shapes with T = 1: of the named ones that is "one-step".
        "tape" is forward that keeps what backward needs. "stream" and "frozen" are a whole sequence
        with packed weights kept from call to call, and for the peers forward, which is that.
    threads : sequence of int, optional
        Thread counts to try for each peer; default one, and every usable core.
    rounds : int
        Turns of every (peer, threads) on each row.
    min_time : float
        Seconds of timed calls in a turn, at least.
    dtype : str
        float32 or float64.
    isa : str, optional
        Instruction set of the compiled functions.
    statistic : str
        Of a batch, for the tables: median or best.
    markdown : bool
        Print Markdown.
    json, plot : str, optional
        Files to write.
    force : bool
        Whether they may replace others.
    compare : pair of str, optional
        Files of earlier runs, old and new: they are compared, and nothing is timed.
    arguments : sequence of str
        The command line, to be told with the results.
    """

    cells: Sequence[str] | None = None
    modes: Sequence[str] | None = None
    shapes: Sequence[str] | None = None
    peers: Sequence[str] | None = None
    threads: Sequence[int] | None = None
    rounds: int = 5
    min_time: float = 0.05
    dtype: str = "float32"
    isa: str | None = None
    statistic: str = STATISTICS[0]
    markdown: bool = False
    json: str | None = None
    plot: str | None = None
    force: bool = False
    compare: Sequence[str] | None = None
    arguments: Sequence[str] = ()


@dataclass
class Plan:
    """Checked options."""

    cells: list[str]
    modes: list[str]
    shapes: list[Shape]
    peers: dict[str, tuple[str, type[Peer]]]  # column -> what find_peer takes, class
    threads: list[int]


def check_statistic(name: str) -> None:
    """Raise BenchError for an unknown statistic of a batch."""
    select([name], STATISTICS, "statistic")


def check(options: Options) -> Plan:
    """Return the plan, or raise BenchError for the first thing that cannot be done."""
    import fastrnn
    from fastrnn import outputs

    select([options.dtype], DTYPES, "dtype")
    check_statistic(options.statistic)
    if options.isa is not None:
        select([options.isa], list(fastrnn.available_isas()), "instruction set")
    if options.rounds < 1:
        raise BenchError(f"rounds is {options.rounds}: at least 1 is needed")
    if not 0.0 <= options.min_time <= 60.0:
        raise BenchError(f"min_time is {options.min_time:g}: between 0 and 60 seconds is needed")
    cores = usable_cores()
    threads = list(dict.fromkeys([1, cores] if options.threads is None else options.threads))
    for count in threads:
        if not 1 <= count <= cores:
            raise BenchError(f"threads is {count}: between 1 and {cores} (usable cores) is needed")
    try:
        if options.json is not None:
            outputs.check_output(options.json, options.force)
        if options.plot is not None:
            outputs.check_plot(options.plot, options.force)
    except outputs.OutputError as error:
        raise BenchError(str(error)) from None
    if outputs.same_file(options.json, options.plot):
        raise BenchError(f"--json and --plot are the same file, {options.plot}")
    modes = select(options.modes or DEFAULT_MODES, MODES, "mode")
    shapes = parse_shapes(options.shapes or list(SHAPES))
    # A mode without a shape, and a shape that was asked for and has no mode.
    idle = [(mode, shapes[0]) for mode in modes if not any(is_timed(mode, s) for s in shapes)]
    idle += [
        (modes[0], shape)
        for shape in shapes
        if options.shapes and not any(is_timed(mode, shape) for mode in modes)
    ]
    if idle:
        mode, shape = idle[0]
        raise BenchError(f"shape {shape} {why_not_timed(mode, shape)}")
    names = [name for name in (PEERS if options.peers is None else options.peers) if name != OWN]
    columns = {}
    for spec in dict.fromkeys([*names, OWN]):
        peer = find_peer(spec)
        columns[peer.name] = (spec, peer)
    return Plan(
        cells=select(options.cells or list(CELLS), list(CELLS), "cell"),
        modes=modes,
        shapes=shapes,
        peers=columns,
        threads=sorted(threads),
    )


def mode_of(column: str, row: Row) -> str:
    """Return what a peer does in a mode: only our own layers have a stream and are frozen."""
    return "forward" if row.mode in KEPT_MODES and column != OWN else row.mode


def keep_largest(found: dict[str, float], threads: int, value: float) -> None:
    """Note what so many threads reached, if it is more than before."""
    found[str(threads)] = max(value, found.get(str(threads), 0.0))


class Session:
    """The workers of a run and what they found."""

    def __init__(
        self, options: Options, plan: Plan, report: Report, progress: Callable[[str], None]
    ) -> None:
        self.options, self.plan, self.report, self.progress = options, plan, report, progress
        self.workers: dict[tuple[str, int], WorkerHandle] = {}
        self.limits_known = True

    def worker(self, column: str, threads: int) -> WorkerHandle:
        """Return the worker, started if it is not alive."""
        key = column, threads
        if key in self.workers and not self.workers[key].alive:
            self.workers.pop(key).close()
        if key not in self.workers:
            isa = self.options.isa if column == OWN else None
            self.workers[key] = WorkerHandle(self.plan.peers[column][0], threads, isa)
        return self.workers[key]

    def run(self) -> None:
        """Time every row of the plan."""
        self.measure_limits()
        for name in self.plan.cells:
            for shape in self.plan.shapes:
                rows: list[Row] = []
                expected: dict[Shape, Results] = {}  # forward and training share one
                for mode in self.plan.modes:
                    if not is_timed(mode, shape):
                        continue
                    start = time.monotonic()
                    problem = make_problem(CELLS[name], shape, self.options.dtype)
                    problem = checked_problem(problem, mode)
                    if problem.shape not in expected:
                        expected[problem.shape] = expected_results(problem)
                    row = Row(name, mode, self.options.dtype, shape)
                    self.report.rows.append(row)
                    rows.append(row)
                    self.time_row(row, problem, expected[problem.shape])
                    took = time.monotonic() - start
                    self.progress(f"{name} {mode} {shape}: {len(row.timings)} timed, {took:.1f} s")
                if rows:
                    self.measure_limits(rows)
                    self.raise_limits(rows)

    def time_row(self, row: Row, problem: Problem, expected: Results) -> None:
        """Build and check every peer, then take turns."""
        if row.mode != "training":
            expected = {name: a for name, a in expected.items() if not name.startswith("d_")}
        for column, (_, peer) in self.plan.peers.items():
            if peer.unsupported(row.cell, mode_of(column, row), row.dtype):
                continue
            if not row.shape.extras <= getattr(peer, "extras", frozenset()):
                continue
            for threads in self.plan.threads:
                for way in self.agreeing(row, column, threads, problem, expected):
                    row.timings.append(Timing(column, threads, way=way))
        for turn in range(self.options.rounds):
            # The same order every time would give each the same neighbour every time.
            order = list(row.timings)
            random.Random(turn).shuffle(order)
            for timing in order:
                self.take_turn(row, timing)
        row.timings = [timing for timing in row.timings if timing.rounds]
        for timing in row.timings:
            worker = self.workers[timing.peer, timing.threads]
            if worker.alive:
                with contextlib.suppress(WorkerError):
                    worker.ask("drop")

    def agreeing(
        self, row: Row, column: str, threads: int, problem: Problem, expected: Results
    ) -> list[str]:
        """Return the ways of the peer that can be built and agree with the reference."""
        try:
            found: dict[str, Results] = self.worker(column, threads).ask(
                "build", astuple(problem.cell), str(row.shape), row.dtype, mode_of(column, row), 0
            )
        except WorkerError as error:
            self.exclude(row, Timing(column, threads), f"failed: {error}")
            return []
        good = []
        for way, got in found.items():
            lines = disagreements(expected, got, problem)
            for line in lines:
                self.exclude(row, Timing(column, threads, way=way), line)
            if not lines:
                good.append(way)
        return good

    def take_turn(self, row: Row, timing: Timing) -> None:
        """Time one batch; a worker that fails is out of this row."""
        worker = self.workers.get((timing.peer, timing.threads))
        if worker is None or not worker.alive:
            return
        try:
            timing.rounds.append(worker.ask("time", timing.way, self.options.min_time, 2))
        except WorkerError as error:
            timing.rounds.clear()
            row.timings.remove(timing)
            self.exclude(row, timing, f"failed: {error}")

    def exclude(self, row: Row, timing: Timing, why: str) -> None:
        """Note a peer, or one way of it, that is not timed on a row, and say so at once."""
        way = f", {timing.way}" if timing.way else ""
        line = f"{timing.peer} (threads={timing.threads}{way}) {why}"
        row.problems.append(line)
        self.progress(f"EXCLUDED from {row.cell} {row.mode} {row.shape}: {line}")

    def measure_limits(self, rows: Sequence[Row] = ()) -> None:
        """Measure the limits again, of rows that read weights their bandwidth too.

        The largest found in the run is kept.
        """
        if not self.limits_known:
            return
        dtype, report = self.options.dtype, self.report
        double = dtype == "float64"
        sizes = sorted({row.weight_reads[0] for row in rows if row.weight_reads})
        for threads in self.plan.threads:
            try:
                worker = self.worker(OWN, threads)
                # First this: by its end the threads have found processors of their own.
                found = report.peak.setdefault(dtype, {})
                keep_largest(found, threads, worker.ask("peak", PEAK_SECONDS, double))
                for size in sizes:
                    found = report.bandwidth.setdefault(dtype, {}).setdefault(str(size), {})
                    rate = worker.ask("bandwidth", BANDWIDTH_SECONDS, double, size)
                    keep_largest(found, threads, rate)
            except WorkerError as error:
                self.progress(f"the limits of this machine are unknown: {error}")
                self.limits_known = False
                report.peak.clear()
                report.bandwidth.clear()
                return

    def raise_limits(self, rows: Sequence[Row]) -> None:
        """Where a call was faster than the loop, in noise, it is the largest found itself."""
        report = self.report
        for row in rows:
            ours = row.taken(OWN, report.statistic)
            if ours is None or not self.limits_known:
                continue
            threads, nanoseconds = ours.threads, ours.nanoseconds(report.statistic)
            keep_largest(report.peak[row.dtype], threads, row.flops / nanoseconds)
            if row.weight_reads:
                size, times = row.weight_reads
                found = report.bandwidth[row.dtype][str(size)]
                keep_largest(found, threads, size * times / nanoseconds)

    def close(self) -> None:
        """End all workers."""
        while self.workers:
            self.workers.popitem()[1].close()


def run(options: Options, progress: Callable[[str], None] | None = None) -> Report:
    """Carry out a benchmark.

    Parameters
    ----------
    options : Options
        What to time.
    progress : callable, optional
        Takes a line of text now and then; default prints to standard error.

    Returns
    -------
    Report
        All that was measured.

    Raises
    ------
    BenchError
        If the options ask for what does not exist.
    """
    import fastrnn

    plan = check(options)
    say = progress or (lambda line: print(line, file=sys.stderr, flush=True))
    missing = {}
    for column, (_, peer) in list(plan.peers.items()):
        if module := missing_module(peer):
            missing[column] = f"{module} is not installed"
            say(f"{column} is not timed: {module} is not installed")
            del plan.peers[column]
    versions = {column: version(peer) for column, (_, peer) in plan.peers.items()}
    versions[OWN] = fastrnn.__version__
    settings = asdict(options)
    settings["arguments"] = list(options.arguments)
    report = Report(
        machine=describe(options.isa or fastrnn.get_isa(), options.arguments),
        versions={name: text for name, text in versions.items() if text},
        settings=settings,
        peers=list(plan.peers),
        missing=missing,
    )
    if busy := busy_text():
        say(busy)
    session = Session(options, plan, report, say)
    try:
        session.run()
    finally:
        session.close()
    report.machine["load_at_end"] = load()
    return report
