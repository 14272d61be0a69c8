"""Compare this tree with an earlier commit: the bits of all results, and the speed.

python benchmarks/old_new.py bits COMMIT [--problems 200] [--seed 0] [--only NUMBER]
python benchmarks/old_new.py speed COMMIT [--rounds 12] [--only WORDS]

Both trees, this one as it stands in the working folder, are built in a temporary folder, about a
minute each, by the pip of the Python that runs this; it needs NumPy besides. With --keep FOLDER
the builds stay there and are used again while their sources are the same.

bits   runs random problems (old_new_problems.py) in both, with every instruction set and 1, 2 and
       more threads than processors, and compares everything as integers; a NaN is equal to any
       NaN. Takes some minutes; the exit status is 1 where anything differs.
speed  asks three processes in turns, an old, a new and another old one, for every row of
       old_new_rows.py. It prints new/old beside old again/old, which is what two runs of one build
       differ by: of minima and of medians. Rows that are slower by more than 3% beyond that are
       measured once more. Wants a machine that does nothing else.

Commits before the first public names of today cannot be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import old_new_problems
import old_new_rows

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
SLOWER = 1.03


# ------------------------------------------------------------------------------- builds


def git(*arguments: str) -> bytes:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], stdout=subprocess.PIPE, check=True
    ).stdout


def copy_of_commit(commit: str, tree: Path) -> None:
    archive = git("archive", "--format=tar", commit)
    subprocess.run(["tar", "-xf", "-", "-C", str(tree)], input=archive, check=True)


def copy_of_working_tree(tree: Path) -> None:
    """What a commit of it would hold."""
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, os.fsdecode(names).split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


def digest(tree: Path) -> str:
    """Of all that a build depends on."""
    total = hashlib.sha256()
    for part in ("setup.py", "pyproject.toml", "csrc", "fastrnn"):
        path = tree / part
        for file in sorted([path] if path.is_file() else path.rglob("*")):
            if file.is_file():
                total.update(f"{file.relative_to(tree)}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def start_build(tree: Path, folder: Path) -> tuple[Path, Path, subprocess.Popen[bytes] | None]:
    """Where the package will be, where it is until it is whole, and the process that makes it."""
    place = folder / digest(tree)
    if place.exists():
        return place, place, None
    unfinished = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FASTRNN_")}
    process = subprocess.Popen(
        [*command, "--target", str(unfinished), str(tree)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return place, unfinished, process


@contextmanager
def builds(commit: str, keep: str | None) -> Iterator[tuple[Path, Path]]:
    """The folders of the old and the new package."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(keep or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        old, new = Path(temporary, "old"), Path(temporary, "new")
        old.mkdir()
        new.mkdir()
        copy_of_commit(commit, old)
        copy_of_working_tree(new)
        places = []
        if digest(old) == digest(new):
            print("both trees have the same sources", flush=True)
            started = [start_build(old, folder)] * 2
        else:
            started = [start_build(tree, folder) for tree in (old, new)]
        for name, (place, unfinished, process) in zip(("old", "new"), started, strict=True):
            if process and not place.exists():
                said = process.communicate()[0].decode(errors="replace")
                if process.returncode:
                    sys.exit(f"the {name} tree cannot be built:\n{said}")
                unfinished.rename(place)
            places.append(place)
        yield places[0], places[1]


# ------------------------------------------------------------------------------- workers


class Worker:
    """A process with one of the builds, which answers one question at a time."""

    def __init__(self, name: str, task: str, package: Path, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FASTRNN_")}
        environment |= {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(package), str(HERE.parent)])
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(HERE), task, str(package), *arguments],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.isas: list[str] = self.answer()

    def ask(self, question: Any) -> Any:
        pickle.dump(question, self.process.stdin)  # type: ignore[arg-type]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self.answer()

    def answer(self) -> Any:
        try:
            return pickle.load(self.process.stdout)  # type: ignore[arg-type]
        except EOFError:
            status = self.process.wait()
            sys.exit(f"the {self.name} process has ended with status {status}")

    def end(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def questions(package: str) -> Iterator[tuple[Any, Any, Any]]:
    """In a worker: the package, each question, and what answers it."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the package prints is no answer
    import fastrnn

    assert Path(fastrnn.__file__).parents[1] == Path(package), fastrnn.__file__

    def answer(value: Any) -> None:
        pickle.dump(value, sink, protocol=pickle.HIGHEST_PROTOCOL)
        sink.flush()

    answer(list(fastrnn.available_isas()))
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        yield fastrnn, question, answer


def bits_worker(package: str, seed: str, rounds: str) -> None:
    problems = old_new_problems.plan(int(seed), int(rounds))
    for fastrnn, (number, isa, threads), answer in questions(package):
        fastrnn.set_isa(isa)
        with fastrnn.num_threads(threads):
            answer(list(old_new_problems.results(problems[number], fastrnn)))


def speed_worker(package: str) -> None:
    """Is told a row, and then asked for its times with how many calls each is of."""
    call: Any = None
    threads = 1
    for fastrnn, question, answer in questions(package):
        if isinstance(question, old_new_rows.Row):
            call, threads = old_new_rows.call_of(question, fastrnn), question.threads
            with fastrnn.num_threads(threads):
                answer(_times(call, 1, 3))
        else:
            with fastrnn.num_threads(threads):
                _spin_up(call)
                answer(_times(call, *question))


def _spin_up(call: Any) -> None:
    """At least a call, and milliseconds of them: caches, threads and clock are as in a loop."""
    end = time.perf_counter() + 0.004
    call()
    while time.perf_counter() < end:
        call()


def _times(call: Any, inner: int, outer: int) -> list[float]:
    """Seconds a call, each time over `inner` of them."""
    times = []
    for _ in range(outer):
        begin = time.perf_counter()
        for _ in range(inner):
            call()
        times.append((time.perf_counter() - begin) / inner)
    return times


# ------------------------------------------------------------------------------- bits


def difference(old: Any, new: Any) -> str:
    """In what two arrays differ; nothing where all bits are the same, or both are NaN."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"{old.dtype} {old.shape} became {new.dtype} {new.shape}"
    unequal = old.view(f"V{old.itemsize}") != new.view(f"V{old.itemsize}") if old.ndim else None
    if unequal is None:
        return difference(old.reshape(1), new.reshape(1))
    if old.dtype.kind == "f":
        unequal &= ~(np.isnan(old) & np.isnan(new))
    if not unequal.any():
        return ""
    first = tuple(int(k) for k in np.argwhere(unequal)[0])
    return (
        f"{np.count_nonzero(unequal)} of {old.size} elements differ, first at {first}: "
        f"{old[first]!r} became {new[first]!r}"
    )


def compare(old: list[tuple[str, Any]], new: list[tuple[str, Any]]) -> Iterator[str]:
    names = [[name for name, _ in results] for results in (old, new)]
    if names[0] != names[1]:
        changed = sorted(set(names[0]) ^ set(names[1])) or "their order"
        yield f"other results: {changed}"
    theirs = dict(new)
    for name, array in old:
        if name in theirs and (text := difference(array, theirs[name])):
            yield f"{name}: {text}"


def bits(arguments: argparse.Namespace) -> int:
    rounds = -(-arguments.problems // old_new_problems.ROUND)
    problems = old_new_problems.plan(arguments.seed, rounds)
    if arguments.only is not None:
        problems = [problems[arguments.only]]
    started, found, ran, arrays, elements = time.monotonic(), 0, 0, 0, 0
    raising: dict[int, str] = {}
    # One number more than processors, and 2 on a single one too.
    threads = [1, 2, 1 + max(2, os.cpu_count() or 1)]
    with builds(arguments.commit, arguments.keep) as (old_package, new_package):
        said = str(arguments.seed), str(rounds)
        old = Worker("old", "bits-worker", old_package, *said)
        new = Worker("new", "bits-worker", new_package, *said)
        print(f"built in {time.monotonic() - started:.0f} s", flush=True)
        isas = [isa for isa in old.isas if isa in new.isas]
        for problem in problems:
            for isa, n in old_new_problems.settings(problem, isas, threads):
                question = problem.number, isa, n
                # In turns: side by side they would take each other's processors, and run on one.
                results = old.ask(question), new.ask(question)
                for text in compare(*results):
                    found += 1
                    print(f"{problem} | {isa}, {n} threads | {text}", flush=True)
                ran += 1
                arrays += len(results[0])
                elements += sum(array.size for _, array in results[0])
                last = results[0][-1][0] if results[0] else ""
                if last.startswith("error "):
                    raising[problem.number] = last
            if problem.number % 50 == 49:
                print(
                    f"{problem.number + 1} problems, {time.monotonic() - started:.0f} s", flush=True
                )
        old.end()
        new.end()
    for number, name in raising.items():
        print(f"problem {number} ends early in the old tree: {name}")
    print(
        f"{len(problems)} problems, {ran} runs of them with {', '.join(isas)} and "
        f"{', '.join(map(str, threads))} threads: {arrays} arrays, {elements} elements; "
        f"{found} arrays differ; {time.monotonic() - started:.0f} s"
    )
    return 1 if found else 0


# ------------------------------------------------------------------------------- speed


def measure(row: old_new_rows.Row, workers: list[Worker], rounds: int) -> dict[str, list[float]]:
    """For each statistic new/old and old again/old: of the minima and of the medians of turns."""
    once = min(min(worker.ask(row)) for worker in workers)
    inner = max(1, int(2e-4 / once))
    outer = max(1, min(100, int(0.02 / (inner * once))))
    # Long calls need fewer rounds: each is a mean over more.
    rounds = rounds if once < 0.1 else max(5, rounds // 2)
    minima: list[list[float]] = [[] for _ in workers]
    medians: list[list[float]] = [[] for _ in workers]
    order = list(range(len(workers)))
    for _ in range(rounds):
        random.shuffle(order)
        for k in order:
            # Of different lengths, so that no turn keeps step with something else on the machine.
            time.sleep(random.uniform(0.012, 0.1))
            times = workers[k].ask((inner, outer))
            minima[k].append(min(times))
            medians[k].append(median(times))
    least, middle = [min(m) for m in minima], [median(m) for m in medians]
    return {
        "seconds": [least[0], middle[0]],
        "minima": [least[1] / least[0], least[2] / least[0]],
        "medians": [middle[1] / middle[0], middle[2] / middle[0]],
    }


def is_slower(result: dict[str, list[float]]) -> bool:
    """By minima and by medians: one alone is an accident of the machine."""
    return all(
        result[name][0] > SLOWER + abs(result[name][1] - 1) for name in ("minima", "medians")
    )


def shown(row: object, result: dict[str, list[float]]) -> str:
    least, middle = (1e6 * s for s in result["seconds"])
    ratios = "   ".join(
        f"{result[name][0]:6.3f} ({result[name][1]:6.3f})" for name in ("minima", "medians")
    )
    return f"{row!s:52} {least:11.1f} {middle:11.1f}   {ratios}"


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def speed(arguments: argparse.Namespace) -> int:
    rows = [
        row
        for row in old_new_rows.rows()
        if all(word in str(row).split() for word in arguments.only)
    ]
    if not rows:
        sys.exit("no row has these words")
    print(f"{'':52} {'old µs':>11} {'':11}   new/old (old again/old)", flush=True)
    print(f"{'':52} {'minimum':>11} {'median':>11}   {'of minima':17} of medians", flush=True)
    results: dict[Any, dict[str, list[float]]] = {}
    with builds(arguments.commit, arguments.keep) as (old, new):
        workers = [
            Worker(name, "speed-worker", package)
            for name, package in [("old", old), ("new", new), ("second old", old)]
        ]
        for row in rows:
            results[row] = measure(row, workers, arguments.rounds)
            print(shown(row, results[row]), flush=True)
        again = [row for row in rows if is_slower(results[row])]
        slow = []
        if again:
            print("\nonce more, with twice the rounds:")
        for row in again:
            result = measure(row, workers, 2 * arguments.rounds)
            print(shown(row, result), flush=True)
            slow += [row] * is_slower(result)
        for worker in workers:
            worker.end()
    print("\ngeometric means")
    groups = list(dict.fromkeys((row.regime, row.mode) for row in rows))
    for group in [*groups, None]:
        of_group = [r for row, r in results.items() if group in (None, (row.regime, row.mode))]
        means = {
            name: [geometric_mean([r[name][k] for r in of_group]) for k in (0, 1)]
            for name in ("minima", "medians")
        }
        means["seconds"] = [geometric_mean([r["seconds"][k] for r in of_group]) for k in (0, 1)]
        print(shown(" ".join(group or ("all", f"{len(rows)} rows")), means))
    print(f"\nslower by more than {100 * (SLOWER - 1):.0f}% beyond the noise, twice: {len(slow)}")
    print("\n".join(f"  {row}" for row in slow))
    return 0


# ------------------------------------------------------------------------------- command


def main() -> int:
    if sys.argv[1:2] == ["bits-worker"]:
        bits_worker(*sys.argv[2:])
        return 0
    if sys.argv[1:2] == ["speed-worker"]:
        speed_worker(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="bits | speed")
    for name, run in (("bits", bits), ("speed", speed)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("commit", help="the earlier commit, by any name that git knows")
        command.add_argument("--keep", metavar="FOLDER", help="where builds stay")
        if run is bits:
            whole = f"whole rounds of {old_new_problems.ROUND} that hold at least so many"
            command.add_argument("--problems", type=int, default=200, help=whole)
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--only", type=int, metavar="NUMBER", help="one problem")
        else:
            command.add_argument("--rounds", type=int, default=12, help="turns of each process")
            help = "rows that have all of these words, such as: lstm training 2t"
            command.add_argument("--only", nargs="+", default=[], metavar="WORD", help=help)
    arguments = parser.parse_args()
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
