"""Peak memory of training: how much a process grows from before forward to after backward.

python benchmarks/memory.py [cell] [T,B,D,H]

x, the weights and the gradient of the output are there before. Each measurement has a process of
its own, in which a small problem was trained first, so that libraries are loaded. Linux only.
"""

import subprocess
import sys

import numpy as np


def peak() -> float:
    """The largest size of this process since `forget_peak`, in MB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def grow(who: str, cell: str, sizes: tuple[int, ...]) -> float:
    """Train once; who is torch, or fastrnn with a checkpoint every so many steps or 0."""
    T, B, D, H = sizes
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, B, D), dtype=np.float32)
    d_output = rng.standard_normal((T, B, H), dtype=np.float32)
    if who == "torch":
        import torch

        module = getattr(torch.nn, cell)(D, H)

        def train(x, d_output):
            output, _ = module(torch.from_numpy(x).requires_grad_(True))
            output.backward(torch.from_numpy(d_output))
            return output
    else:
        import fastrnn

        layer = getattr(fastrnn, cell)(D, H, rng=0)

        def train(x, d_output):
            output, _, tape = layer.forward(x, checkpoint=int(who) or None)
            return output, layer.backward(tape, d_output)

    train(x[:2, :2].copy(), d_output[:2, :2].copy())
    forget_peak()
    before = peak()
    train(x, d_output)
    return peak() - before


def main(cell: str = "LSTM", sizes: str = "1000,64,128,256") -> None:
    print(f"{cell} training at (T,B,D,H) = ({sizes}), float32, growth of the process:")
    for who in ("torch", "0", "32"):
        command = [sys.executable, __file__, "--one", who, cell, sizes]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        name = who if who == "torch" else f"fastrnn, checkpoint={int(who) or None}"
        found = f"{float(done.stdout):.0f} MB" if done.returncode == 0 else "not available"
        print(f"  {name}: {found}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _, _, who, cell, sizes = sys.argv
        print(grow(who, cell, tuple(map(int, sizes.split(",")))))
    else:
        main(*sys.argv[1:])
