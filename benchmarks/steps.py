"""One step from plain arrays, beside the lean body of a NumPy loop.

python benchmarks/steps.py [--cells rnn lstm gru leaky] [--batch 1 32] [--rounds 9]
    [--features same]

The NumPy body has all arrays made beforehand, biases summed, weights as they are fastest for
np.dot with `out`, and ufuncs in place. Both sides have one thread and float32, carry their state
from step to step, and are timed in turns, in one process. Printed are microseconds a step: the
minimum and the median of the rounds, and the quotients of both. Wants a machine that does nothing
else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy is loaded

import numpy as np  # noqa: E402

import fastrnn  # noqa: E402

GATES = {"rnn": 1, "lstm": 4, "gru": 3, "leaky": 1}
LEAK = 0.3
FEATURES: dict[str, Callable[[int], int]] = {
    "same": lambda H: H,
    "half": lambda H: max(1, H // 2),
    "one": lambda _: 1,
}
Step = Callable[[], Any]


def arrays(cell: str, B: int, D: int, H: int) -> tuple[Any, ...]:
    """x_t, the states, weights and biases."""
    rng, rows = np.random.default_rng(0), GATES[cell] * H
    first: tuple[int, ...] = () if B == 1 else (B,)
    shapes: list[tuple[int, ...]] = [(*first, D), (*first, H), (rows, D), (rows, H), (rows,)]
    x, h, w_ih, w_hh, b = ((rng.uniform(-1, 1, s) / H**0.5).astype(np.float32) for s in shapes)
    return x, [h, h.copy()] if cell == "lstm" else [h], w_ih, w_hh, b, b / 2


def of_fastrnn(cell: str, B: int, D: int, H: int) -> Step:
    x, states, *weights = arrays(cell, B, D, H)
    if cell == "lstm":
        h, c = states
        lstm = fastrnn.lstm_step
        return lambda: lstm(x, h, c, *weights, out=(h, c))
    (h,) = states
    if cell == "leaky":
        leaky = fastrnn.leaky_step
        return lambda: leaky(x, h, *weights, leak=LEAK, out=h)
    step = fastrnn.rnn_step if cell == "rnn" else fastrnn.gru_step
    return lambda: step(x, h, *weights, out=h)


def operands(rows: Any, weight: Any) -> tuple[Any, Any]:
    """Of np.dot for rows times weight.T: weight and a vector, or rows and the faster transpose."""
    if rows.ndim == 1:
        return weight, rows
    turned, copied = weight.T, np.ascontiguousarray(weight.T)
    out = np.empty((len(rows), len(weight)), np.float32)
    times = {}
    for i, matrix in enumerate((turned, copied)):
        times[i] = min(timed(lambda m=matrix: np.dot(rows, m, out=out), 3) for _ in range(5))
    return rows, turned if times[0] < times[1] else copied


def of_numpy(cell: str, B: int, D: int, H: int) -> Step:
    x, states, w_ih, w_hh, b_ih, b_hh = arrays(cell, B, D, H)
    h = states[0]
    z, zh = (np.empty((*h.shape[:-1], GATES[cell] * H), np.float32) for _ in range(2))
    (x_left, x_right), (h_left, h_right) = operands(x, w_ih), operands(h, w_hh)
    parts = [z[..., i * H : (i + 1) * H] for i in range(GATES[cell])]
    of_h = [zh[..., i * H : (i + 1) * H] for i in range(GATES[cell])]
    half, leak, b = np.float32(0.5), np.float32(LEAK), b_ih + b_hh
    dot, add, multiply, subtract, tanh = np.dot, np.add, np.multiply, np.subtract, np.tanh

    def sigmoid(a: Any) -> None:  # 1/2 + tanh(a/2)/2: the fewest ufuncs
        multiply(a, half, out=a)
        tanh(a, out=a)
        multiply(a, half, out=a)
        add(a, half, out=a)

    def rnn() -> None:
        dot(x_left, x_right, z)
        dot(h_left, h_right, zh)
        add(z, zh, out=z)
        add(z, b, out=z)
        tanh(z, out=h)

    def leaky() -> None:
        dot(x_left, x_right, z)
        dot(h_left, h_right, zh)
        add(z, zh, out=z)
        add(z, b, out=z)
        tanh(z, out=z)
        subtract(z, h, out=z)
        multiply(z, leak, out=z)
        add(h, z, out=h)

    def lstm() -> None:
        c = states[1]
        i, f, g, o = parts
        dot(x_left, x_right, z)
        dot(h_left, h_right, zh)
        add(z, zh, out=z)
        add(z, b, out=z)
        sigmoid(i_and_f)
        tanh(g, out=g)
        sigmoid(o)
        multiply(c, f, out=c)
        multiply(i, g, out=i)
        add(c, i, out=c)
        tanh(c, out=g)
        multiply(o, g, out=h)

    def gru() -> None:
        r, u, n = parts
        dot(x_left, x_right, z)
        add(z, b_ih, out=z)
        dot(h_left, h_right, zh)
        add(zh, b_hh, out=zh)
        add(r_and_z, r_and_z_of_h, out=r_and_z)
        sigmoid(r_and_z)
        multiply(r, of_h[2], out=r)
        add(n, r, out=n)
        tanh(n, out=n)
        subtract(h, n, out=h)
        multiply(h, u, out=h)
        add(h, n, out=h)

    i_and_f = r_and_z = z[..., : 2 * H]
    r_and_z_of_h = zh[..., : 2 * H]
    return {"rnn": rnn, "lstm": lstm, "gru": gru, "leaky": leaky}[cell]


def timed(step: Step, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def compare(cell: str, B: int, D: int, H: int, rounds: int) -> list[list[float]]:
    """Seconds of each round: ours, NumPy's."""
    steps = of_fastrnn(cell, B, D, H), of_numpy(cell, B, D, H)
    for step in steps:
        step()
    counts = [max(2, int(2e-3 / timed(step, 2))) for step in steps]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for step, count, found in zip(steps, counts, times, strict=True):
            timed(step, max(1, count // 10))  # its arrays in the caches again
            found.append(timed(step, count))
    return times


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", choices=GATES, default=list(GATES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    hidden = [8, 16, 32, 64, 100, 128, 256, 512, 1024]
    parser.add_argument("--hidden", nargs="+", type=int, default=hidden)
    parser.add_argument("--features", choices=FEATURES, default="same")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(f"{processor()}, {fastrnn.get_isa()}, NumPy {np.__version__}, D: {options.features}")
    print(f"{'':16}{'fastrnn, us':>20}{'NumPy, us':>22}{'fastrnn / NumPy':>20}")
    print(
        f"{'cell':6}{'B':>4}{'H':>6}"
        + f"{'min':>11}{'median':>11}" * 2
        + f"{'min':>9}{'median':>9}"
    )
    for cell in options.cells:
        for B in options.batch:
            for H in options.hidden:
                D = FEATURES[options.features](H)
                ours, numpy = compare(cell, B, D, H, options.rounds)
                found = [
                    f(times) * 1e6 for times in (ours, numpy) for f in (min, statistics.median)
                ]
                numbers = "".join(f"{value:11.2f}" for value in found)
                quotients = f"{found[0] / found[2]:9.2f}{found[1] / found[3]:9.2f}"
                print(f"{cell:6}{B:4}{H:6}{numbers}{quotients}", flush=True)


if __name__ == "__main__":
    main()
