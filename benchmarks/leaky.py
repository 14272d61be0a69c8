"""Networks of H = 300 leaky units against NumPy loops, one thread each.

python benchmarks/leaky.py [rounds]     (15)

One loop is the equations as they are written. The other is lean: one product for all inputs, arrays
that are made before, `np.dot(out=)`, and arithmetic in place. fastrnn is leaky_forward on the same
arrays, what it allocates and packs included. They take turns in one process. readout: the states of
an echo state network and the ridge regression on them, which is NumPy's everywhere.
"""

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import platform
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import fastrnn

H, D, LEAK, WASHOUT = 300, 3, 0.3, 100
STEPS = {1: 2000, 32: 200}
Loop = Callable[[], Any]


def reservoir(dtype: str, batch: int) -> dict[str, Any]:
    """Dense, of spectral radius 0.9, and a signal."""
    rng = np.random.default_rng(0)
    w_hh = rng.standard_normal((H, H))
    w_hh *= 0.9 / np.abs(np.linalg.eigvals(w_hh)).max()
    drawn = {
        "x": rng.standard_normal((STEPS[batch], batch, D)),
        "w_ih": rng.uniform(-0.5, 0.5, (H, D)),
        "w_hh": w_hh,
        "b_ih": rng.uniform(-0.5, 0.5, H),
    }
    return {name: array.astype(dtype) for name, array in drawn.items()}


def written(form: str, x: Any, w_ih: Any, w_hh: Any, b_ih: Any) -> Loop:
    """The equations, an array for each result."""
    a = x.dtype.type(LEAK)

    def call() -> Any:
        output = np.empty((*x.shape[:2], H), x.dtype)
        h = state = np.zeros((x.shape[1], H), x.dtype)
        for t in range(len(x)):
            z = x[t] @ w_ih.T + h @ w_hh.T + b_ih
            state = (1 - a) * state + a * (np.tanh(z) if form == "rate" else z)
            output[t] = h = state if form == "rate" else np.tanh(state)
        return output

    return call


def lean(form: str, x: Any, w_ih: Any, w_hh: Any, b_ih: Any) -> Loop:
    """Of one sequence W_hh multiplies a vector, with which BLAS is faster."""
    T, B, _ = x.shape
    z, output = np.empty((2, T, H) if B == 1 else (2, T, B, H), x.dtype)
    state, now = np.empty((2, *output.shape[1:]), x.dtype)
    w_xh, w_th, a = np.ascontiguousarray(w_ih.T), np.ascontiguousarray(w_hh.T), x.dtype.type(LEAK)

    def product(h: Any) -> None:
        if B == 1:
            np.dot(w_hh, h, out=now)
        else:
            np.dot(h, w_th, out=now)

    def rates() -> Any:
        np.dot(x.reshape(-1, D), w_xh, out=z.reshape(-1, H))
        np.add(z, b_ih, out=z)
        state[...] = 0
        for t in range(T):
            product(state)
            np.add(now, z[t], out=now)
            np.tanh(now, out=now)
            np.subtract(now, state, out=now)
            np.multiply(now, a, out=now)
            np.add(state, now, out=state)
            output[t] = state
        return output.reshape(T, B, H)

    def potentials() -> Any:
        np.dot(x.reshape(-1, D), w_xh, out=z.reshape(-1, H))
        np.add(z, b_ih, out=z)
        state[...] = 0
        h = np.zeros_like(state)
        for t in range(T):
            product(h)
            np.add(now, z[t], out=now)
            np.subtract(now, state, out=now)
            np.multiply(now, a, out=now)
            np.add(state, now, out=state)
            h = output[t]
            np.tanh(state, out=h)
        return output.reshape(T, B, H)

    return rates if form == "rate" else potentials


def compiled(form: str, x: Any, w_ih: Any, w_hh: Any, b_ih: Any) -> Loop:
    def call() -> Any:
        made = fastrnn.leaky_forward(x, None, w_ih, w_hh, b_ih, leak=LEAK, form=form, record=False)
        return made[0]

    return call


def with_readout(states: Loop, x: Any) -> Loop:
    """Ridge regression of the input of five steps ago on the states."""
    target = np.roll(x, 5, axis=0)[WASHOUT:].reshape(-1, x.shape[-1])
    ridge = 1e-6 * np.eye(H, dtype=x.dtype)

    def call() -> Any:
        h = states()[WASHOUT:].reshape(-1, H)
        return np.linalg.solve(h.T @ h + ridge, h.T @ target)

    return call


def seconds(call: Loop) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main(rounds: int = 15) -> None:
    fastrnn.set_num_threads(1)
    print(f"{processor()}, {fastrnn.get_isa()}, NumPy {np.__version__}, H = {H}, D = {D}")
    print("milliseconds, the least and the median of", rounds, "rounds")
    for dtype in ("float64", "float32"):
        for batch in STEPS:
            arrays = reservoir(dtype, batch)
            contenders = {}
            for form in ("rate", "potential"):
                calls = [make(form, **arrays) for make in (written, lean, compiled)]
                for call in calls[1:]:
                    tolerance = 1e-12 if dtype == "float64" else 1e-4
                    np.testing.assert_allclose(call(), calls[0](), 0, tolerance)
                contenders[form] = calls
            contenders["readout"] = [with_readout(f, arrays["x"]) for f in contenders["rate"]]
            for what, calls in contenders.items():
                taken: list[list[float]] = [[] for _ in calls]
                for _ in range(rounds):
                    for times, call in zip(taken, calls, strict=True):
                        times.append(1e3 * seconds(call))
                told = [f"{dtype} (T,B) = ({STEPS[batch]},{batch}) {what:9}"]
                for name, times in zip(("written", "lean", "fastrnn"), taken, strict=True):
                    told.append(f"{name} {min(times):6.2f} {median(times):6.2f}")
                for name, times in zip(("written", "lean"), taken[:2], strict=True):
                    ratios = min(times) / min(taken[2]), median(times) / median(taken[2])
                    told.append(f"{name}/fastrnn {ratios[0]:.1f} {ratios[1]:.1f}")
                print("  ".join(told), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
