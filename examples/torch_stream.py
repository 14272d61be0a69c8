"""An LSTM trained with PyTorch, and streamed by a process that has NumPy and fastrnn alone.

`train` needs PyTorch: an LSTM learns to say the next value of a wave that it reads value by value.
`fastrnn.convert.from_torch` takes its weights out of the model, `fastrnn.save` writes them, and
beside them what PyTorch says of a wave that was not trained on. `stream` knows that file only; it
reads the wave one value a step, as it would come from a sensor, and compares.

    python examples/torch_stream.py                       # both, in two processes
    python examples/torch_stream.py train wave.safetensors
    python examples/torch_stream.py stream wave.safetensors

The first half needs `pip install torch`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

import fastrnn


def train(path: str, steps: int, hidden: int = 32) -> None:
    import torch
    from torch import nn

    from fastrnn import convert

    torch.manual_seed(0)
    model = nn.ModuleDict({"lstm": nn.LSTM(1, hidden), "head": nn.Linear(hidden, 1)})
    adam = torch.optim.Adam(model.parameters(), lr=0.01)

    def waves(count: int, length: int = 100) -> torch.Tensor:
        """(T, B, 1): two sines of random frequency and phase, added."""
        t = torch.arange(length)[:, None, None]
        frequency, phase = 0.1 + 0.4 * torch.rand(count, 2), 6.28 * torch.rand(count, 2)
        return (t * frequency + phase).sin().mean(-1, keepdim=True)

    def said(x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = model["head"](model["lstm"](x)[0])
        return y

    for step in range(steps):
        x = waves(32)
        loss = nn.functional.mse_loss(said(x[:-1]), x[1:])
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        if step in (0, steps - 1):
            print(f"step {step}: mean squared error {loss.item():.4f}")

    objects = {name: convert.from_torch(model, prefix=name) for name in ("lstm", "head")}
    with torch.no_grad():
        x = waves(1, 1000)[:, 0]
        y = said(x)
        model.double()  # which tells how far rounding moves such a result
        rounding = (said(x.double()) - y).abs().max()
    results = {"x": x, "y": y, "rounding": rounding}
    fastrnn.save(path, objects | {name: tensor.numpy() for name, tensor in results.items()})
    print(f"weights and what PyTorch says of {len(x)} values: {path}")


def stream(path: str) -> float:
    """The largest difference from what PyTorch said."""
    loaded = fastrnn.load(path)
    lstm, head, x, y = (loaded[name] for name in ("lstm", "head", "x", "y"))
    steps, said = lstm.stream(), np.empty_like(y)
    start = time.perf_counter()
    for t in range(len(x)):
        said[t] = head(steps.step(x[t]))
    seconds = time.perf_counter() - start
    difference = float(np.abs(said - y).max())
    loaded_too = "with" if "torch" in sys.modules else "without"
    print(f"{len(x)} steps {loaded_too} PyTorch, {seconds / len(x) * 1e6:.1f} microseconds each")
    print(f"at most {difference:.1e} from PyTorch's; rounding alone: {loaded['rounding']:.1e}")
    return difference


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("half", nargs="?", choices=["train", "stream"], help="which; both if none")
    parser.add_argument("file", nargs="?", default="wave.safetensors", help="default: %(default)s")
    parser.add_argument("--smoke", action="store_true", help="short, only to see that it runs")
    options = parser.parse_args(arguments)
    steps = 5 if options.smoke else 300
    if options.half == "train":
        train(options.file, steps)
    elif options.half == "stream":
        stream(options.file)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "wave.safetensors")
            train(path, steps)
            sys.stdout.flush()
            subprocess.run([sys.executable, __file__, "stream", path], check=True)


if __name__ == "__main__":
    main()
