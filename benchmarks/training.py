"""What the kit round the recurrence costs in a step of training, as ratios.

python benchmarks/training.py masks        mask= beside lengths= on one ragged batch
python benchmarks/training.py models       a Sequential beside its layers chained by hand
python benchmarks/training.py losses       a step with each option of the losses, beside a plain one
python benchmarks/training.py optimisers   the share that each optimiser has of a step

In turns, in one process; the figure is the median over rounds of the ratio to the first of them.
`--threads 1` for steadier ones.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastrnn
from fastrnn import optim

Calls = dict[str, Callable[[], Any]]
# T, B, D, H
SHAPES = [
    (25, 1, 25, 25),
    (100, 32, 25, 25),
    (40, 32, 64, 64),
    (100, 32, 64, 64),
    (50, 64, 128, 256),
]


def ratios(calls: Calls, rounds: int) -> tuple[float, dict[str, float]]:
    """The median microseconds of the first, and of each the median ratio to it."""
    counts = {}
    for name, call in calls.items():
        call()
        begin = time.perf_counter()
        call()
        counts[name] = max(1, int(0.02 / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - begin) / counts[name])
    first = np.array(next(iter(times.values())))
    found = {name: float(np.median(np.array(t) / first)) for name, t in times.items()}
    return float(np.median(first)) * 1e6, found


def show(title: str, calls: Calls, rounds: int) -> None:
    microseconds, found = ratios(calls, rounds)
    first, *others = found
    rest = "  ".join(f"{name} {found[name]:.3f}" for name in others)
    print(f"{title:34}  {first} {microseconds:.0f} us  {rest}", flush=True)


def draw(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def step_of(layer: Any, x: Any, **options: Any) -> Callable[[], None]:
    def step() -> None:
        output, _, tape = layer.forward(x, **options)
        layer.backward(tape, output)

    return step


def masks(rounds: int) -> None:
    """The mask of the same lengths, and that of padding on the left."""
    for kind in (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM):
        for T, B, D, H in SHAPES:
            lengths = np.random.default_rng(1).integers(T // 4, T + 1, B)
            there = np.arange(T)[:, None] < lengths
            ways: dict[str, dict[str, Any]] = {
                "lengths": {"lengths": lengths},
                "mask": {"mask": there},
                "left": {"mask": there[::-1]},
            }
            layer, x = kind(D, H, rng=0), draw(T, B, D)
            title = f"{kind.__name__} T={T} B={B} D={D} H={H}"
            run = {n: partial(layer, x, **o) for n, o in ways.items()}
            show(f"{title} forward", run, rounds)
            train = {n: step_of(layer, x, **o) for n, o in ways.items()}
            show(f"{title} training", train, rounds)


def models(rounds: int) -> None:
    """Embedding, GRU and output layer: a whole step, Adam included."""
    V = 50
    for T, B, D, H in SHAPES:

        def layers(D: int = D, H: int = H) -> dict[str, Any]:
            return {
                "words": fastrnn.Embedding(V, D, rng=0),
                "rnn": fastrnn.GRU(D, H, rng=1),
                "out": fastrnn.Linear(H, V, rng=2),
            }

        indices = np.random.default_rng(0).integers(0, V, (T + 1, B))
        x, target = indices[:-1], indices[1:]
        own, model = layers(), fastrnn.Sequential(layers())
        adam = optim.Adam([layer.flat_weights for layer in own.values()])
        of_model = optim.Adam([model.flat_weights])

        def by_hand(own: Any = own, adam: Any = adam, x: Any = x, target: Any = target) -> None:
            words, rnn, out = own.values()
            a, words_tape = words.forward(x)
            b, _, rnn_tape = rnn.forward(a)
            logits, out_tape = out.forward(b)
            _, d = fastrnn.softmax_cross_entropy(logits, target)
            of_out = out.backward(out_tape, d)
            of_rnn = rnn.backward(rnn_tape, of_out.x)
            of_words = words.backward(words_tape, of_rnn.x)
            adam.step([of_words.flat_weights, of_rnn.flat_weights, of_out.flat_weights])

        def whole(
            model: Any = model, adam: Any = of_model, x: Any = x, target: Any = target
        ) -> None:
            logits, _, tape = model.forward(x)
            _, d = fastrnn.softmax_cross_entropy(logits, target)
            adam.step([model.backward(tape, d).flat_weights])

        show(f"T={T} B={B} D={D} H={H}", {"by hand": by_hand, "Sequential": whole}, rounds)


def losses(rounds: int) -> None:
    """A step of a GRU of 64 units and 50 classes, T=100, B=32."""
    T, B, H, C = 100, 32, 64, 50
    rng = np.random.default_rng(0)
    rnn, out, x = fastrnn.GRU(H, H, rng=0), fastrnn.Linear(H, C, rng=1), draw(T, B, H)
    target, soft = rng.integers(0, C, (T, B)), fastrnn.softmax(draw(T, B, C))
    ignoring = np.where(rng.random((T, B)) < 0.2, -100, target)
    options: dict[str, tuple[Any, dict[str, Any]]] = {
        "plain": (target, {}),
        "class_weight": (target, {"class_weight": np.linspace(1, 2, C)}),
        "sample_weight": (target, {"sample_weight": rng.random((T, B))}),
        "label_smoothing": (target, {"label_smoothing": 0.1}),
        "ignore_index": (ignoring, {"ignore_index": -100}),
        "soft": (soft, {}),
        "none": (target, {"reduction": "none"}),
    }

    def step(target: Any, options: dict[str, Any]) -> None:
        a, _, rnn_tape = rnn.forward(x)
        logits, out_tape = out.forward(a)
        _, d = fastrnn.softmax_cross_entropy(logits, target, **options)
        rnn.backward(rnn_tape, out.backward(out_tape, d).x)

    show("cross-entropy", {n: partial(step, *o) for n, o in options.items()}, rounds)


def optimisers(rounds: int) -> None:
    """Forward and backward of LSTM(64, 64), T=40, B=32, alone and with a step of each."""
    layer, x = fastrnn.LSTM(64, 64, rng=0), draw(40, 32, 64)
    kinds = {
        "SGD": optim.SGD([layer.flat_weights], 1e-6, momentum=0.9, nesterov=True),
        "Adam": optim.Adam([layer.flat_weights], 1e-6),
        "AdamW": optim.AdamW([layer.flat_weights], 1e-6),
        "RMSprop": optim.RMSprop([layer.flat_weights], 1e-6),
        "Adagrad": optim.Adagrad([layer.flat_weights], 1e-6),
    }

    def step(optimiser: Any = None) -> None:
        output, _, tape = layer.forward(x)
        grads = layer.backward(tape, output, wrt=["weights"])
        if optimiser is not None:
            optimiser.step([grads.flat_weights])

    calls: Calls = {"without": step}
    calls |= {name: partial(step, o) for name, o in kinds.items()}
    show("step of LSTM(64, 64)", calls, rounds)


def main() -> None:
    parts = {"masks": masks, "models": models, "losses": losses, "optimisers": optimisers}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=parts)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        fastrnn.set_num_threads(options.threads)
    parts[options.part](options.rounds)


if __name__ == "__main__":
    main()
