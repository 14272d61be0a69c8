"""The process in which one peer is timed at one thread count.

It reads commands from standard input and answers on standard output, both as pickles of plain
Python and NumPy objects. Between commands it waits in a read, and its parent stops it.

The package of this file is loaded under a name of its own (see `BOOT`), so that the process of
another framework does not load this library and its OpenMP runtime.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import traceback
from typing import Any

import numpy as np

from .peers import Peer, Results, Run, find_peer, ways_of
from .shapes import CHECKED_STEPS, Cell, Problem, make_problem, parse_shape
from .timer import time_calls

# What `python -c` runs: arguments are this package's folder and the parent's sys.path.
BOOT = """
import importlib, importlib.util, json, sys
folder, path = sys.argv[1:]
sys.path[:] = json.loads(path)
spec = importlib.util.spec_from_file_location(
    "_fastrnn_bench", folder + "/__init__.py", submodule_search_locations=[folder])
package = sys.modules["_fastrnn_bench"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
importlib.import_module("_fastrnn_bench.worker").serve()
"""

# Of so many short turns of a loop the fastest is its rate: others can disturb it, not speed it up.
TURNS = 10


def die_with_parent() -> None:
    """Ask the system to end this process with its parent: a stopped one would stay forever."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def first_results(run: Run, problem: Problem, mode: str) -> Results:
    """Return the results of the first call, or of the first steps as those of one sequence."""
    with run.context():
        if mode != "step":
            return run.results(run.call())
        steps = []
        for _ in range(CHECKED_STEPS):
            found = run.results(run.call())
            # Copies: the next step may write into the same buffers.
            steps.append({name: np.array(array) for name, array in found.items()})
    return steps[-1] | {"output": np.concatenate([step["output"] for step in steps])}


class Worker:
    """The commands; each is a method."""

    peer: type[Peer]
    threads: int
    runs: dict[str, Run]

    def open(self, spec: str, threads: int, isa: str | None) -> None:
        """Choose the peer and prepare the process for it."""
        self.peer, self.threads = find_peer(spec), threads
        self.peer.prepare(threads)
        if isa:
            importlib.import_module("fastrnn").set_isa(isa)

    def build(
        self, cell: tuple[Any, ...], shape: str, dtype: str, mode: str, seed: int
    ) -> dict[str, Results]:
        """Make one problem ready; return the first results of each way of the peer.

        The cell is given by its fields: its class would be the one of the parent's package.
        """
        self.runs = {}
        problem = make_problem(Cell(*cell), parse_shape(shape), dtype, seed)
        self.runs = ways_of(self.peer.build(problem, mode, self.threads))
        return {way: first_results(run, problem, mode) for way, run in self.runs.items()}

    def time(self, way: str, min_time: float, min_calls: int) -> dict[str, float]:
        """Time one batch of calls of what was built."""
        run = self.runs[way]
        with run.context():
            return time_calls(run.call, min_time, min_calls)

    def drop(self) -> None:
        """Free what was built."""
        self.runs = {}

    def peak(self, seconds: float, double: bool) -> float:
        """Return 10^9 operations a second of multiply-adds alone, on this many threads."""
        core = importlib.import_module("fastrnn._core")
        return max(float(core.fma_peak(seconds / TURNS, double)) for _ in range(TURNS))

    def bandwidth(self, seconds: float, double: bool, size: int) -> float:
        """Return 10^9 bytes a second in reading so many over and over, on this many threads."""
        core = importlib.import_module("fastrnn._core")
        return max(float(core.read_peak(seconds / TURNS, double, size)) for _ in range(TURNS))


def serve() -> None:
    """Answer commands until standard input ends."""
    die_with_parent()
    # Whatever a library prints goes to standard error, not into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    commands = sys.stdin.buffer
    worker = Worker()
    while True:
        try:
            name, arguments = pickle.load(commands)
        except EOFError:
            return
        try:
            answer = (True, getattr(worker, name)(*arguments))
        except Exception as error:
            traceback.print_exc()
            answer = (False, f"{type(error).__name__}: {error}")
        pickle.dump(answer, answers, protocol=5)
        answers.flush()
