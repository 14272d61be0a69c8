"""The worker threads: one set a process, asleep between calls, made again in a forked child."""

import multiprocessing
import os
import sys
import textwrap

import numpy as np
import pytest
from processes import script
from test_parallel import LARGE, digest, draw

import fastrnn
from fastrnn import _core

pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(not _core.build_info()["openmp"], reason="a serial build has no workers"),
    pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about threads"),
]

# What programs below begin with: teams of two for any work, a call, and what the system knows.
BEGIN = """
import ctypes, os, signal, sys, threading, time
from pathlib import Path
import numpy as np, fastrnn
from fastrnn import _core
_core.swap_team_policy(0, 0)
fastrnn.set_num_threads(2)
layer, x = fastrnn.LSTM(20, 40, rng=0), np.ones((30, 16, 20), np.float32)
call = lambda: layer(x)[0].tobytes()
def tasks():
    return sorted(int(path.name) for path in Path("/proc/self/task").iterdir())
def told(thread, name):
    for line in Path(f"/proc/self/task/{thread}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split()[1]
def in_team(work=call):
    before = _core.teams_run()
    work()
    return _core.teams_run() > before
with fastrnn.num_threads(1):
    want = call()
before = tasks()
"""


def outcome(code: str, *arguments: str, **environment: str) -> list[str]:
    # The last one is set by whoever imports scikit-learn or joblib: it has LLVM's runtime believe,
    # after a fork, in the parent's threads.
    unset = (
        "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "FASTRNN_NUM_THREADS", "KMP_INIT_AT_FORK",
    )  # fmt: skip
    environment = {**dict.fromkeys(unset, ""), "PYTHONWARNINGS": "ignore"} | environment
    # The runtime reads the variables when the process starts, and an empty one is told as an error.
    again = """
import os, sys
for name in [name for name, value in os.environ.items() if not value]: del os.environ[name]
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""
    done = script(again, BEGIN + textwrap.dedent(code), *arguments, **environment)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert not done.stderr, done.stderr
    return done.stdout.split()


def test_python_threads_share_the_workers() -> None:
    code = """
    for _ in range(40):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    together = [threading.Thread(target=call) for _ in range(40)]
    for thread in together: thread.start()
    for thread in together: thread.join()
    ended = time.monotonic() + 10  # what was joined may still be on its way out
    while len(tasks()) > len(before) + 2 and time.monotonic() < ended:
        time.sleep(0.01)
    print(_core.workers_made(), len(tasks()) - len(before), call() == want)
    """
    # One works, one keeps the region open.
    assert outcome(code) == ["1", "2", "True"]


def test_workers_sleep() -> None:
    code = """
    for _ in range(200): call()
    time.sleep(0.1)
    def used():
        return [Path(f"/proc/self/task/{n}/schedstat").read_text().split()[0]
                for n in tasks() if n not in before]
    first = used()
    time.sleep(0.5)
    print(len(first), used() == first)
    """
    assert outcome(code) == ["2", "True"]


def test_more_threads_than_before() -> None:
    code = """
    for n in (2, 3, 2, 6, 5, 1, 9):
        fastrnn.set_num_threads(n)
        same = call() == want
        print(n, _core.workers_made(), len(tasks()) - len(before) - 1, same, in_team())
    """
    found = outcome(code)
    made = 0
    for line in range(7):
        n, workers, threads, same, team = found[5 * line : 5 * line + 5]
        made = max(made, int(n) - 1)
        assert [int(workers), int(threads), same] == [made, made, "True"]
        assert team == str(n != "1")


def test_a_call_meanwhile_runs_alone() -> None:
    code = """
    call()
    _core.set_delays(("before job", 1, 0, 1.0))
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    while _core.delays()[0] == 0:
        time.sleep(0.001)
    teams = _core.teams_run()
    same = call() == want
    print(same, _core.delays()[1], _core.teams_run() - teams)
    thread.join()
    print(results == [want], _core.teams_run() - teams)
    """
    assert outcome(code) == ["True", "0", "0", "True", "1"]


# ------------------------------------------------------------------------------- other processes


def test_a_forked_child_makes_its_own() -> None:
    code = """
    call()
    def child(depth):
        pid = os.fork()
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        signal.alarm(60)  # ends a child that hangs
        good = _core.workers_made() == 0 and len(tasks()) == 1
        good = good and (depth == 0 or child(depth - 1) == 0)
        good = good and call() == want and in_team() and len(tasks()) == 3
        good = good and (depth == 0 or child(depth - 1) == 0)
        os._exit(0 if good else 3)
    print(child(2), child(0), call() == want, in_team(), _core.workers_made())
    """
    assert outcome(code) == ["0", "0", "True", "True", "1"]


def test_a_fork_while_workers_are_made_or_at_work() -> None:
    code = """
    stop = threading.Event()
    def compute():
        while not stop.is_set():
            assert call() == want
    thread = threading.Thread(target=compute)
    thread.start()
    codes = []
    for i in range(30):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            os._exit(0 if call() == want and in_team() else 3)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        fastrnn.set_num_threads(2 + i)  # makes another one
    stop.set()
    thread.join()
    print(set(codes), _core.workers_made() > 2)
    """
    assert outcome(code) == ["{0}", "True"]


def in_another_process(_: int) -> tuple[bytes, bool]:
    _core.swap_team_policy(0, 0)
    fastrnn.set_num_threads(2)
    before = _core.teams_run()
    return digest(draw(LARGE, np.float32)), _core.teams_run() > before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_each_way_to_start_a_process(method: str) -> None:
    fastrnn.set_num_threads(2)
    want = digest(draw(LARGE, np.float32))
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(in_another_process, range(4)) == [(want, True)] * 4


@pytest.mark.parametrize("asleep", ["asleep", "awake", "computing"])
def test_a_process_ends_beside_its_workers(asleep: str) -> None:
    code = """
    for _ in range(50): call()
    if sys.argv[1] == "asleep":
        time.sleep(0.05)
    elif sys.argv[1] == "computing":
        def compute():
            while True: call()
        threading.Thread(target=compute, daemon=True).start()
        time.sleep(0.05)
    print("end")
    """
    assert outcome(code, asleep) == ["end"]


# ----------------------------------------------------------------- signals, OpenMP, processors


def test_signals_are_left_to_the_programs_threads() -> None:
    code = """
    call()
    workers = [n for n in tasks() if n not in before]
    blocked = [int(told(n, "SigBlk"), 16) for n in workers]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGPROF):
        assert all(mask >> number - 1 & 1 for mask in blocked), number
    # What a thread brings upon itself is not held back: faulthandler tells of it.
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT):
        assert not any(mask >> number - 1 & 1 for mask in blocked), number
    # It would end the process if a worker took it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    os.kill(os.getpid(), signal.SIGUSR1)
    print(call() == want, signal.SIGUSR1 in signal.sigpending(), len(workers))
    """
    assert outcome(code) == ["True", "True", "2"]


RUNTIME = """
with open("/proc/self/maps") as file:
    paths = {line.split()[-1] for line in file if "libgomp" in line}
gomp = ctypes.CDLL(paths.pop()) if paths else None
"""


def test_the_limit_of_the_caller() -> None:
    """As threadpoolctl sets it: for the thread that calls, at any time."""
    code = """
    if gomp:
        _core.set_num_threads(0)
        for n in (1, 2, 1, 3, 1):
            gomp.omp_set_num_threads(n)
            assert fastrnn.get_num_threads() == n
            assert in_team() == (n > 1), n
            assert call() == want
    print("done")
    """
    assert outcome(RUNTIME + textwrap.dedent(code)) == ["done"]


def test_nothing_is_nested_in_a_parallel_region() -> None:
    code = """
    results = []
    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def work(_):
        results.append((in_team(), call() == want))
    if gomp:
        call()
        gomp.GOMP_parallel(work, None, 2, 0)
        assert results == [(False, True)] * 2, results
        assert in_team()
    print("done")
    """
    assert outcome(RUNTIME + textwrap.dedent(code)) == ["done"]


two_processors = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="two processors are needed",
)

AFFINITY = """
usable = sorted(os.sched_getaffinity(0))
def of_workers():
    others = {thread.native_id for thread in threading.enumerate()} | set(before)
    return sorted(sorted(os.sched_getaffinity(n)) for n in tasks() if n not in others)
"""


@two_processors
def test_a_worker_is_not_woken_on_the_callers_processor() -> None:
    code = """
    call()
    for here in usable * 3:
        os.sched_setaffinity(0, {here})
        time.sleep(0.01)  # the worker falls asleep
        # Of a caller that has one processor it has this one.
        assert call() == want
        assert [here] in of_workers(), (here, of_workers())
        os.sched_setaffinity(0, usable)
        time.sleep(0.01)
        assert call() == want
        others = [set(mask) for mask in of_workers()]
        assert any(len(mask) == len(usable) - 1 for mask in others), others
    print("done")
    """
    assert outcome(AFFINITY + textwrap.dedent(code)) == ["done"]


@two_processors
def test_awake_workers_have_the_processors_of_who_calls() -> None:
    code = """
    def pinned():
        os.sched_setaffinity(0, usable[:1])
        ready.wait()
        for _ in range(20):
            turn[0].acquire(); call(); turn[1].release()
    ready, turn = threading.Barrier(2), (threading.Semaphore(0), threading.Semaphore(0))
    call()  # made by a thread that has all processors
    threading.Thread(target=pinned, daemon=True).start()
    os.sched_setaffinity(0, usable[1:])
    ready.wait()
    for _ in range(20):  # in turns, so closely that the worker does not sleep
        turn[0].release(); turn[1].acquire(); call()
        worker = min(of_workers(), key=len)  # who keeps the region has what its maker had
        assert set(worker) <= set(usable[1:]), worker
    print("done")
    """
    assert outcome(AFFINITY + textwrap.dedent(code)) == ["done"]


@two_processors
def test_the_runtimes_places_are_left_alone() -> None:
    code = """
    if not gomp:  # another runtime has other places
        print("done")
        sys.exit()
    call()
    first = of_workers()
    assert sorted(os.sched_getaffinity(0)) == usable and len(usable) == 1
    for _ in range(5):
        time.sleep(0.01)
        assert call() == want
        assert in_team()
    assert of_workers() == first
    # The thread that opened the region has the caller's place, and the worker another.
    assert usable in first and any(mask != usable for mask in first), first
    print("done")
    """
    code = AFFINITY + RUNTIME + textwrap.dedent(code)
    assert outcome(code, OMP_PROC_BIND="close", OMP_PLACES="cores") == ["done"]


# --------------------------------------------------------------------- no room for all threads


def test_a_thread_that_cannot_be_made_means_one_fewer() -> None:
    code = """
    import resource
    size = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**20 * 300, -1))  # some stacks of 64 MB
    fastrnn.set_num_threads(8)
    print(call() == want, 1 <= _core.workers_made() < 7, _core.teams_run() > 0, in_team())
    # With room again there are more, though not at once.
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    time.sleep(1.1)
    print(call() == want, in_team(), _core.workers_made() == 7)
    """
    assert outcome(code, OMP_STACKSIZE="64m") == ["True"] * 7


def test_no_thread_at_all() -> None:
    code = """
    import resource
    if os.getuid() == 0:  # whom no limit holds
        os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    print(call() == want, _core.workers_made(), in_team(), len(tasks()) - len(before))
    """
    assert outcome(code) == ["True", "0", "False", "0"]
