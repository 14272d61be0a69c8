"""What default settings cost and give where a process is not alone, and between its calls.

python benchmarks/company.py [processes | busy | pauses | turns | streams | idle]...   (all of them)

processes  two processes that train, over two of one thread each
busy       one process beside a busy program, over the same with one thread
pauses     calls with pauses between them, over one thread
turns      calls in turns with NumPy's and PyTorch's, whose threads spin for a while after each
streams    20 streams in as many Python threads: all their steps a second, over one stream's in one
idle       the processor's time of a process after its last call, with streams open too; its threads
           after calls from 40

Medians. Linux only; turns with PyTorch only where it is installed. streams and idle have limits:
the exit status is 1 where one is missed.
"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastrnn

SHAPES = ("100,32,64,128", "50,2,256,512", "200,16,32,64")
SECONDS = 3.0
STREAMS, UNITS = 20, (64, 256, 1024)
LEAST_SHARE = 0.8  # of one stream's steps a second
MOST_IDLE = 1.0  # milliseconds of a processor in a second: what a clock of 10 ms ticks cannot see


def nothing() -> None:
    pass


def drawn(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def milliseconds(
    call: Callable[[], Any],
    before: Callable[[], Any] = nothing,
    seconds: float = SECONDS,
    calls: int = 10**9,
) -> float:
    """The median of the calls that so many seconds hold, and at most so many."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < calls):
        before()
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return median(times) * 1e3


def train(shape: str) -> None:
    """The work of a process of its own: prints its milliseconds."""
    T, B, D, H = map(int, shape.split(","))
    layer, x = fastrnn.LSTM(D, H, rng=0), drawn(T, B, D)

    def step() -> None:
        output, _, tape = layer.forward(x)
        layer.backward(tape, output)

    print(json.dumps(milliseconds(step)))


def trained(processes: int, shape: str, threads: str) -> float:
    """The slowest of so many processes at once; threads may be "" for the default."""
    environment = {**os.environ, "FASTRNN_NUM_THREADS": threads}
    command = [sys.executable, __file__, "train", shape]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(processes)
    ]
    return max(json.loads(child.communicate()[0]) for child in children)


def processes() -> None:
    for shape in SHAPES:
        one, default = trained(2, shape, "1"), trained(2, shape, "")
        print(f"two processes, LSTM training ({shape}): {default:.2f} ms, "
              f"of one thread each {one:.2f}, ratio {default / one:.2f}")  # fmt: skip


def busy() -> None:
    for shape in SHAPES:
        program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            one, default = trained(1, shape, "1"), trained(1, shape, "")
        finally:
            program.kill()
        print(f"beside a busy program, LSTM training ({shape}): {default:.2f} ms, "
              f"one thread {one:.2f}, ratio {default / one:.2f}")  # fmt: skip


def pauses() -> None:
    layer = fastrnn.LSTM(64, 64, rng=0)
    with fastrnn.num_threads(1):
        x = drawn(100, 32, 64)
        step = milliseconds(lambda: layer(x), seconds=1) / 100
    for microseconds in (50, 100, 200, 500, 1000):
        x = drawn(max(1, round(microseconds / 1000 / step)), 32, 64)
        for pause in (0.0, 0.001, 0.01, 0.1):
            with fastrnn.num_threads(1):
                one = milliseconds(lambda x=x: layer(x), lambda p=pause: time.sleep(p), 60, 200)
            default = milliseconds(lambda x=x: layer(x), lambda p=pause: time.sleep(p), 60, 200)
            print(f"calls of {microseconds} us, pauses of {pause * 1e3:g} ms: "
                  f"{default * 1e3:.0f} us, one thread {one * 1e3:.0f}, "
                  f"ratio {default / one:.2f}")  # fmt: skip


def turns() -> None:
    x, w, b, square = drawn(2048, 256), drawn(10000, 256), drawn(10000), drawn(600, 600)
    lstm, sequences = fastrnn.LSTM(64, 128, rng=0), drawn(100, 32, 64)
    calls: dict[str, Callable[[], Any]] = {
        "linear_forward (2048,256,10000)": lambda: fastrnn.linear_forward(x, w, b, record=False),
        "LSTM forward (100,32,64,128)": lambda: lstm(sequences),
        "LSTM forward (10,32,64,128)": lambda: lstm(sequences[:10]),
    }
    others: dict[str, Callable[[], Any]] = {"NumPy": lambda: square @ square}
    if importlib.util.find_spec("torch"):
        import torch

        tensor = torch.from_numpy(square)
        others |= {"torch": lambda: tensor @ tensor, "small torch": lambda: torch.tanh(tensor)}
    for name, call in calls.items():
        for other, theirs in others.items():
            with fastrnn.num_threads(1):
                one_alone = milliseconds(call)
                one = milliseconds(call, theirs)
            between = milliseconds(call, theirs)
            time.sleep(0.5)  # their threads sleep from here on
            alone = milliseconds(call)
            print(f"{name} in turns with {other}: {between:.3f} ms, one thread {one:.3f}, "
                  f"ratio {between / one:.2f}; alone {alone:.3f}, one thread {one_alone:.3f}, "
                  f"ratio {alone / one_alone:.2f}")  # fmt: skip


def steps_of(maker: Any, count: int) -> list[Callable[[], Any]]:
    """A call for each of so many streams: its next step, into an array of its own."""
    H = maker.hidden_size
    made = [(maker.stream(), drawn(H), np.empty(H, np.float32)) for _ in range(count)]
    return [lambda s=s, x=x, y=y: s.step(x, out=y) for s, x, y in made]  # type: ignore[misc]


def steps_a_second(steps: list[Callable[[], Any]], seconds: float) -> float:
    """Of all together, each in a Python thread of its own."""
    counts, running, start = [0] * len(steps), True, threading.Barrier(len(steps) + 1)

    def work(k: int) -> None:
        step, n = steps[k], 0
        step()
        start.wait()
        while running:
            step()
            n += 1
        counts[k] = n

    pool = [threading.Thread(target=work, args=(k,)) for k in range(len(steps))]
    for thread in pool:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    time.sleep(seconds)
    running = False
    for thread in pool:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def streams() -> list[str]:
    """Streams of a plain layer have weights each: no limit where no cache holds them."""
    missed = []
    for H in UNITS:
        layer = fastrnn.LSTM(H, H, rng=0)
        for name, maker in (("a layer", layer), ("a frozen layer", layer.freeze())):
            steps = steps_of(maker, STREAMS)
            rates = []
            for _ in range(5):
                steps_a_second(steps[:1], 0.2)  # untimed: calls notice that they are alone again
                rates.append((steps_a_second(steps[:1], 0.4), steps_a_second(steps, 0.4)))
            one, many = map(median, zip(*rates, strict=True))
            text = f"streams of {name}, LSTM, H = {H}"
            limited = maker is not layer or max(UNITS) > H
            limit = f" (limit: at least {LEAST_SHARE:g})" if limited else ""
            print(f"{text}: {STREAMS} in {STREAMS} threads {many:.0f} steps/s, one {one:.0f}, "
                  f"ratio {many / one:.2f}{limit}", flush=True)  # fmt: skip
            if limited and many < LEAST_SHARE * one:
                missed.append(text)
    return missed


def used_when_idle(seconds: float) -> float:
    """Milliseconds of a processor that all threads use in a second, from 100 ms from now on."""
    time.sleep(0.1)
    begin = time.process_time()
    time.sleep(seconds)
    return (time.process_time() - begin) * 1e3 / seconds


def idle() -> list[str]:
    missed = []

    def told(what: str) -> None:
        used = used_when_idle(2)
        print(f"processor's time from 100 ms after the last {what}: {used:.2f} ms a second "
              f"(limit: at most {MOST_IDLE:g})", flush=True)  # fmt: skip
        if used > MOST_IDLE:
            missed.append(f"idle after the last {what}")

    for H in UNITS:
        (step,) = steps_of(fastrnn.LSTM(H, H, rng=0), 1)
        for _ in range(200):
            step()
        told(f"step of an open stream, LSTM, H = {H}")
    layer, x = fastrnn.LSTM(64, 128, rng=0), drawn(100, 32, 64)
    before = threads_of_process()
    pool = [threading.Thread(target=layer, args=(x,)) for _ in range(40)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    print(f"threads of the process: {before}, after calls from 40: {threads_of_process()}")
    for _ in range(20):
        layer(x)
    told("call")
    return missed


def threads_of_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


PARTS: dict[str, Callable[[], list[str] | None]] = {
    "processes": processes,
    "busy": busy,
    "pauses": pauses,
    "turns": turns,
    "streams": streams,
    "idle": idle,
}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["train"]:
        train(arguments[1])
        return 0
    if any(name not in PARTS for name in arguments):
        sys.exit(__doc__)
    missed = [text for name in arguments or PARTS for text in PARTS[name]() or ()]
    for text in missed:
        print(f"limit missed: {text}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
