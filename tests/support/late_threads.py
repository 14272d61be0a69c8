"""Makes threads late where it matters, and stops and forks where it may: run by test_schedules.py.

usage: late_threads.py late | three | stop | fork [some]

some: each call has a third of the delays, the next call another third.

Prints what it is about, and "done" at the end. Where a call hangs it ends with a traceback: the
protocol of team.c is at fault.
"""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterator

import numpy as np
from interruptible_calls import UNITS_OF_MANY_ROWS, calls

import fastrnn
from fastrnn import _core

LATE = 0.003  # seconds, in which the other thread makes all that it can make of these calls
HANGS = 30.0  # seconds, where a call takes milliseconds
MEETINGS = range(1, 9)
Delay = tuple[str, int, int, float]


def outcome(call: Callable[[], bytes], *delays: Delay) -> tuple[bytes | None, int]:
    """The results, None if the call was stopped, and how many delays there were."""
    _core.set_delays(*delays)
    faulthandler.dump_traceback_later(HANGS, exit=True)
    try:
        return call(), _core.delays()[1]
    except KeyboardInterrupt:
        return None, _core.delays()[1]
    finally:
        faulthandler.cancel_dump_traceback_later()
        _core.set_delays()


share = slice(None)  # of the delays, those that there are


def meetings(threads: int = 2, many: int = len(MEETINGS)) -> Iterator[Delay]:
    for place in ("before meeting", "after meeting"):
        for thread in range(threads):
            for nth in MEETINGS[:many]:
                yield place, thread, nth, LATE


def late(call: Callable[[], bytes]) -> int:
    """A late thread changes no bit."""
    want, hit = call(), 0
    counts = [("after count", thread, nth, 10 * LATE) for thread in (0, 1) for nth in (1, 2, 9, 20)]
    workers = [("before job", 1, 0, LATE), ("after job", 1, 0, LATE), ("before sleep", 0, 0, LATE)]
    for delay in (*(*meetings(), *counts)[share], *workers):
        got, ended = outcome(call, delay)
        assert got == want, delay
        hit += ended
    return hit


def three(call: Callable[[], bytes]) -> int:
    """Two wait for the third, and one of these two is late in going to sleep."""
    want, hit = call(), 0
    for delay in tuple(meetings(threads=3, many=2))[share]:
        got, ended = outcome(call, delay, ("before sleep", 0, 0, LATE))
        assert got == want, delay
        hit += ended
    return hit


def stop(call: Callable[[], bytes]) -> int:
    """Whenever the call is stopped, and whoever is late then, all leave together."""
    want, hit = call(), 0
    for nth in range(1, 100):
        got, ended = outcome(call, ("stop", 0, nth, 0))
        if not ended:
            assert got == want
            return hit
        assert got is None
        # With the one that asks late, the others are at their next meeting when the answer comes.
        assert outcome(call, ("stop", 0, nth, LATE))[0] is None
        for delay in tuple(meetings())[share] if nth in (1, 2, 3, 6) else ():
            got, ended = outcome(call, ("stop", 0, nth, 0), delay)
            assert got is None or not ended, delay
            hit += ended
    raise AssertionError("so many polls: make the problem smaller")


def fork(call: Callable[[], bytes]) -> int:
    """A child that a signal handler forks in the middle of a call ends it with the same bits."""
    want, hit, pids = call(), 0, []

    def handler(*_: object) -> None:
        pids.append(os.fork())
        if pids[-1] == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)  # ends a child that hangs

    for nth in (1, 2, 5):
        pids.clear()
        signal.signal(signal.SIGALRM, handler)
        _core.set_delays(("poll", 0, nth, 3 * LATE))
        signal.setitimer(signal.ITIMER_REAL, LATE)
        faulthandler.dump_traceback_later(HANGS, exit=True)
        got = call()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, ())  # handlers that are due run before it returns
        if pids and pids[0] == 0:
            os._exit(0 if got == want else 3)
        faulthandler.cancel_dump_traceback_later()
        assert got == want
        if pids:
            assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0, nth
            hit += _core.delays()[1]
    _core.set_delays()
    return hit


def main(what: str, *some: str) -> None:
    global share
    # Teams of two, however small the work is, whose threads are not asked where they run.
    fastrnn.set_num_threads(3 if what == "three" else 2)
    _core.swap_team_policy(0, 0)
    hits = {}
    for k, (name, call) in enumerate(calls(small=True).items()):
        share = slice(k % 3, None, 3) if some else slice(None)
        print(what, name, flush=True)
        if UNITS_OF_MANY_ROWS in name:
            call()
            assert _core.last_plan()["way"] == "by units"
        hits[name] = {"late": late, "three": three, "stop": stop, "fork": fork}[what](call)
    # Where there are no meetings nobody is late, and some small calls have no time to be asked.
    assert np.count_nonzero(list(hits.values())) >= len(hits) // 2, hits
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
