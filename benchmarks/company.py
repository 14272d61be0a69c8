"""What default settings cost and give where a process is not alone, and between its calls.

python benchmarks/company.py [processes | busy | pauses | turns | idle]...   (all of them)

processes  two processes that train, over two of one thread each
busy       one process beside a busy program, over the same with one thread
pauses     calls with pauses between them, over one thread
turns      calls in turns with NumPy's and PyTorch's, whose threads spin for a while after each
idle       the processor's time of a process after its last call; its threads after calls from 40

Medians. Linux only; turns with PyTorch only where it is installed.
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


def idle() -> None:
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
    time.sleep(0.1)
    begin = time.process_time()
    time.sleep(2)
    used = time.process_time() - begin
    print(f"processor's time from 100 ms after the last call: {used * 1e3:.2f} ms in 2 s")


def threads_of_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["train"]:
        return train(arguments[1])
    parts = {part.__name__: part for part in (processes, busy, pauses, turns, idle)}
    for name in arguments or parts:
        if name not in parts:
            sys.exit(__doc__)
        parts[name]()
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
