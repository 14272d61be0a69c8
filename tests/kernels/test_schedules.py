"""Threads that are late, stopped or forked away where it matters: by a schedule, not by luck."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import grids
import pytest
from grids import beyond, grid
from processes import script

from fastrnn import _core

TIMEOUT = 600.0  # seconds, in case all else fails: the program ends where a call hangs
openmp = pytest.mark.skipif(not _core.build_info()["openmp"], reason="a serial build has no teams")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="for systems that fork")


@openmp
@pytest.mark.quick
@pytest.mark.parametrize(
    "what", ["late", *beyond(["three"]), "stop", pytest.param("fork", marks=forks)]
)
def test_nobody_waits_for_ever_or_reads_too_early(what: str) -> None:
    program = Path(__file__).parents[1] / "support" / "late_threads.py"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(program), what]
    command += [] if grids.whole else ["some"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert run.stdout.splitlines()[-1:] == ["done"], (run.stdout, run.stderr)
    assert run.returncode == 0, run.stderr


@forks
@pytest.mark.quick
def test_a_fork_waits_until_nobody_is_in_the_scratch() -> None:
    """A child has the memory as it is at that moment, and its lock, but not who holds that."""
    code = """
    import os, signal, sys, threading, time
    import numpy as np, fastrnn
    from fastrnn import _core
    x, w = np.ones((5, 3, 2), np.float32), np.eye(2, dtype=np.float32)
    call = lambda: fastrnn.rnn_forward(x, None, w, w, record=False)[0].tobytes()
    want = call()
    large = np.ones((40, 30, 2), np.float32)  # its thread lets go of the interpreter's lock
    weights = np.ones((90, 2), np.float32), np.ones((90, 90), np.float32)
    _core.set_delays(("in scratch", 0, 0, 0.5))
    thread = threading.Thread(target=fastrnn.rnn_forward, args=(large, None, *weights))
    thread.start()
    while _core.delays()[0] == 0:
        time.sleep(0.001)
    assert _core.delays()[1] == 0  # it holds the lock, for half a second
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # ends a child that hangs
        begun, ended = _core.delays()
        _core.set_delays()
        os._exit(0 if begun == ended and call() == want else 3)
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    done = script(textwrap.dedent(code), PYTHONWARNINGS="ignore::DeprecationWarning")
    assert done.stdout == "0\n", (done.stdout, done.stderr)


# ------------------------------------------------------------------- threads that cannot be made

# Prints whether the bits are those of one thread; a limit is set once all is imported and drawn.
LIMITED = """
import hashlib, os, resource, sys
import numpy as np, fastrnn
from fastrnn import _core
layer, x = fastrnn.LSTM(64, 128, rng=0), np.ones((100, 32, 64), np.float32)
linear, rows = fastrnn.Linear(300, 300, rng=0), np.ones((4096, 300), np.float32)
def results():
    output, state, tape = layer.forward(x)
    grads = layer.backward(tape, output)
    y, linear_tape = linear.forward(rows)
    return [a.tobytes() for a in (output, *state, grads.x, grads.flat_weights, y,
                                  linear.backward(linear_tape, y).flat_weights)]
with fastrnn.num_threads(1):
    want = results()
_core.swap_team_policy(0, 0)
fastrnn.set_num_threads(int(sys.argv[2]))
limit = sys.argv[1]
if limit == "address space":
    size = int(open("/proc/self/statm").read().split()[0]) * 4096
    free = [np.empty(2**22, np.float32) for _ in range(2)]  # 32 MB, less than five stacks
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**25,) * 2)
    del free
elif limit == "processes":
    if os.getuid() == 0:  # whom no limit holds
        os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    print(results() == want, _core.teams_run())
except MemoryError:
    print("True 0")
"""


@openmp
@pytest.mark.skipif(sys.platform != "linux", reason="the limits of Linux")
@grid("limit, threads", ("address space", "processes", "stack"), ("6", "2"), once=True)
def test_a_thread_that_cannot_be_made_means_fewer(limit: str, threads: str) -> None:
    # OpenMP's runtime ends the process instead.
    stack = {"stack": "1000000G", "address space": "64 m"}.get(limit, "")
    done = script(LIMITED, limit, threads, OMP_STACKSIZE=stack)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True 0\n"


@openmp
@pytest.mark.parametrize(
    "stack",
    [" 2 m ", "100GB", "16kx", *beyond(["100k", "0", "1M", "3000", "600000B", "x", "-1", ""])],
)
def test_stacks_of_any_size_that_can_be_made(stack: str) -> None:
    done = script(LIMITED, "none", "3", OMP_STACKSIZE=stack)
    assert done.returncode == 0, done.stderr
    same, teams = done.stdout.split()
    assert same == "True"
    assert int(teams) > 0
