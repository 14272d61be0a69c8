"""PyTorch models, with torch's own networks and with the kernels under them.

python benchmarks/torch_models.py steps     a tagging model's whole training step
python benchmarks/torch_models.py calls     what a call of a small module costs
python benchmarks/torch_models.py samples   per-sample gradients by torch.func
python benchmarks/torch_models.py imports   torch and fastrnn in one process, either imported first

In turns, in one process (imports: in one for each order); the figure is the best round.
"""

import copy
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

CELLS = ("LSTM", "GRU", "RNN")


def fastest(
    calls: Sequence[Callable[[], Any]], rounds: int = 7, seconds: float = 0.3
) -> list[float]:
    """The best mean of a batch, of each call, in turns."""
    best, counts = [math.inf] * len(calls), []
    for call in calls:
        call()
        begin = time.perf_counter()
        call()
        counts.append(max(1, int(seconds / (time.perf_counter() - begin))))
    for _ in range(rounds):
        for i, call in enumerate(calls):
            begin = time.perf_counter()
            for _ in range(counts[i]):
                call()
            best[i] = min(best[i], (time.perf_counter() - begin) / counts[i])
    return best


# ------------------------------------------------------------------------------ steps


def step_times(kind: str, dtype: str, hidden: int, packed: bool) -> list[float]:
    """Seconds of a step with torch's network, and with ours, of two bidirectional layers."""
    import torch
    from torch import nn

    import fastrnn.torch

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5000, hidden)
            self.recurrent = getattr(nn, kind)(hidden, hidden, 2, bidirectional=True)
            self.head = nn.Linear(2 * hidden, 20)

        def forward(self, words: Any, lengths: Any) -> Any:
            x = self.embedding(words)
            if packed:
                rows = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
                rows, _ = self.recurrent(rows)
                output, _ = nn.utils.rnn.pad_packed_sequence(rows, total_length=len(x))
            else:
                output, _ = self.recurrent(x)
            return self.head(output)

    torch.manual_seed(0)
    plain = Tagger().to(getattr(torch, dtype))
    ours = copy.deepcopy(plain)
    fastrnn.torch.accelerate(ours)
    words, targets = torch.randint(0, 5000, (40, 32)), torch.randint(0, 20, (40, 32))
    lengths = torch.randint(1, 41, (32,))
    lengths[0] = 40

    def step(model: Any, optimiser: Any) -> float:
        optimiser.zero_grad(set_to_none=True)
        scores = model(words, lengths).flatten(0, 1)
        loss = nn.functional.cross_entropy(scores, targets.flatten())
        loss.backward()
        optimiser.step()
        return loss.item()

    steps = [
        partial(step, model, torch.optim.SGD(model.parameters(), 0.1)) for model in (plain, ours)
    ]
    first, second = (one() for one in steps)
    assert math.isclose(first, second, rel_tol=1e-4), (first, second)
    assert fastrnn.torch.last_path() == "kernel"
    return fastest(steps)


def steps() -> None:
    print("| cell | hidden | padded: torch | ours | ratio | packed: torch | ours | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    ratios: dict[str, list[float]] = {}
    for kind in CELLS:
        sizes = [("float32", 64), ("float32", 128), ("float32", 256), ("float64", 128)]
        for dtype, hidden in sizes + [("float32", 512), ("float32", 1024)] * (kind == "LSTM"):
            cells = []
            for packed in (False, True):
                torch_time, our_time = step_times(kind, dtype, hidden, packed)
                cells += [f"{torch_time * 1e3:.2f}", f"{our_time * 1e3:.2f}"]
                cells += [f"{torch_time / our_time:.2f}"]
                if hidden <= 256:
                    name = "packed" if packed else kind
                    ratios.setdefault(name, []).append(torch_time / our_time)
            print(f"| {kind} {dtype} | {hidden} | {' | '.join(cells)} |", flush=True)
    means = {name: math.exp(sum(map(math.log, r)) / len(r)) for name, r in ratios.items()}
    print("\ngeometric means up to 256:", *(f"{name} {mean:.2f}" for name, mean in means.items()))


# ------------------------------------------------------------------------------ calls


def calls() -> None:
    import torch

    import fastrnn
    import fastrnn.torch

    print(
        "Microseconds of one layer, (1,1,8,8). Functions: forward and backward in NumPy arrays.\n"
    )
    print("| cell | functions | module | torch's | no_grad: functions | module | torch's |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    x, d_output = torch.randn(1, 1, 8), torch.ones(1, 1, 8)
    asked = x.clone().requires_grad_()
    for kind in CELLS:
        ours, theirs = getattr(fastrnn.torch, kind)(8, 8), getattr(torch.nn, kind)(8, 8)
        weights = [p.detach().numpy() for p in ours.parameters()]
        states = (None,) * (1 + (kind == "LSTM"))
        forward = getattr(fastrnn, f"{kind.lower()}_forward")
        backward = getattr(fastrnn, f"{kind.lower()}_backward")
        arguments = x.numpy(), *states, *weights

        def functions(arguments=arguments, forward=forward, backward=backward) -> None:
            *_, tape = forward(*arguments)
            backward(tape, d_output.numpy())

        def train(module: Any) -> Callable[[], None]:
            def call() -> None:
                output, _ = module(asked)
                torch.autograd.backward(output, d_output)

            return call

        times = fastest([functions, train(ours), train(theirs)])
        with torch.no_grad():
            times += fastest(
                [
                    lambda a=arguments, f=forward: f(*a, record=False),
                    lambda m=ours: m(x),
                    lambda m=theirs: m(x),
                ]
            )
        print(f"| {kind} | {' | '.join(f'{t * 1e6:.1f}' for t in times)} |", flush=True)


# ------------------------------------------------------------------------------ samples


def samples() -> None:
    import torch
    from torch.func import functional_call, grad, vmap

    import fastrnn.torch

    T, B, D, H = 50, 64, 32, 64
    print(f"Milliseconds of the gradients of {B} sequences, each alone, ({T},{B},{D},{H}).\n")
    print("| cell | torch.func.grad in a loop | vmap over ours | ratio |")
    print("|---|---:|---:|---:|")
    for kind in CELLS:
        theirs, ours = getattr(torch.nn, kind)(D, H), getattr(fastrnn.torch, kind)(D, H)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(B, T, D)
        weights = {name: p.detach() for name, p in theirs.named_parameters()}

        def loss(module: Any) -> Callable[..., Any]:
            return lambda w, one: functional_call(module, w, (one,))[0].square().sum()

        def looped(theirs=theirs, weights=weights, x=x) -> Any:
            each = [grad(loss(theirs))(weights, one) for one in x]
            return {name: torch.stack([one[name] for one in each]) for name in weights}

        def mapped(ours=ours, weights=weights, x=x) -> Any:
            return vmap(grad(loss(ours)), (None, 0))(weights, x)

        expected, found = looped(), mapped()
        assert fastrnn.torch.last_path() == "kernel"
        for name in weights:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
        a, b = fastest([looped, mapped], rounds=5)
        print(f"| {kind} | {a * 1e3:.1f} | {b * 1e3:.1f} | {a / b:.1f} |", flush=True)


# ------------------------------------------------------------------------------ imports

SHAPES = ((100, 32, 64, 128), (25, 1, 64, 100), (1000, 16, 32, 64), (50, 64, 256, 256))


def one_process(order: str) -> None:
    """Print the seconds of our training rows, in a process that imports in this order."""
    for name in order.split(","):
        __import__(name)
    import numpy as np

    import fastrnn

    if "torch" in order:
        import torch

        torch.set_num_threads(2)
        torch.randn(600, 600) @ torch.randn(600, 600)
    fastrnn.set_num_threads(2)
    found = []
    for T, B, D, H in SHAPES:
        for kind in CELLS:
            layer = getattr(fastrnn, kind)(D, H, rng=0)
            x, d_output = np.ones((T, B, D), np.float32), np.ones((T, B, H), np.float32)
            found += fastest(
                [lambda a=layer, x=x, d=d_output: a.backward(a.forward(x)[2], d)], 3, 0.1
            )
    print(*found)


def imports(rounds: int = 5) -> None:
    orders = ("fastrnn", "torch,fastrnn", "fastrnn,torch")
    best = {order: [math.inf] * len(SHAPES) * len(CELLS) for order in orders}
    for _ in range(rounds):
        for order in orders:
            command = [sys.executable, __file__, order]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            best[order] = [min(a, float(b)) for a, b in zip(best[order], text.split(), strict=True)]
    print("Milliseconds of training, two threads; in brackets over fastrnn alone.\n")
    print("| cell | shape | alone | torch first | fastrnn first |")
    print("|---|---:|---:|---:|---:|")
    rows = [(kind, shape) for shape in SHAPES for kind in CELLS]
    for i, (kind, shape) in enumerate(rows):
        alone, *others = (best[order][i] for order in orders)
        cells = [f"{other * 1e3:.3f} ({other / alone:.2f})" for other in others]
        print(f"| {kind} | {','.join(map(str, shape))} | {alone * 1e3:.3f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    what = sys.argv[1:] or ["steps", "calls", "samples", "imports"]
    if "fastrnn" in what[0]:
        one_process(what[0])
    else:
        from fastrnn.bench.machine import cpu_model

        print(f"{cpu_model()}\n")
        for name in what:
            {"steps": steps, "calls": calls, "samples": samples, "imports": imports}[name]()
            print()
