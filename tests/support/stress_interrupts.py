"""Interrupts every call that can be interrupted, at random moments, while all processors are busy.

usage: python tests/support/stress_interrupts.py [SECONDS [NAME]]

SECONDS for each call (60), of those whose names have NAME in them. Exit status 1 and a line where
one did not come back within 20 seconds, or came back with other bits than alone. What
test_schedules.py forces comes here by chance, and so may what nobody thought of.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time

CHILD, BUSY = "--child", "while True: pass"


class Stop(Exception):
    pass


def stop(*_: object) -> None:
    raise Stop


def child(seconds: float, name: str) -> None:
    from interruptible_calls import calls

    import fastrnn

    fastrnn.set_num_threads(max(2, len(os.sched_getaffinity(0))))
    for each, call in calls(small=False).items():
        if name not in each:
            continue
        want = call()
        begin = time.perf_counter()
        call()
        took = time.perf_counter() - begin
        signal.signal(signal.SIGALRM, stop)
        end, tries, stopped = time.monotonic() + seconds, 0, 0
        while time.monotonic() < end:
            tries += 1
            print(f"{each}: try {tries}, {stopped} stopped", flush=True)
            try:
                signal.setitimer(signal.ITIMER_REAL, random.random() * took + 1e-4)
                got = call()
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.pthread_sigmask(signal.SIG_BLOCK, ())  # a handler that is due runs here
            except Stop:
                stopped += 1
            else:
                if got != want:
                    sys.exit(f"{each}: other bits in try {tries}")
        print(f"{each}: no hang in {tries} tries, of which {stopped} were stopped", flush=True)


def main(seconds: float = 60, name: str = "") -> int:
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in os.sched_getaffinity(0)]
    command = [sys.executable, __file__, str(seconds), name, CHILD]
    try:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        last = [time.monotonic(), "nothing"]

        def read() -> None:
            assert run.stdout is not None
            for line in run.stdout:
                last[:] = time.monotonic(), line.strip()
                if " no hang " in line:
                    print(line, end="", flush=True)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while run.poll() is None:
            time.sleep(0.5)
            if time.monotonic() - last[0] > 20:
                run.kill()
                print(f"hung in {last[1]}")
                return 1
        return run.returncode
    finally:
        for process in busy:
            process.kill()


if __name__ == "__main__":
    if sys.argv[-1] == CHILD:
        child(float(sys.argv[1]), sys.argv[2])
    else:
        sys.exit(main(*map(float, sys.argv[1:2]), *sys.argv[2:3]))
