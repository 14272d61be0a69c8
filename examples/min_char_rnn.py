"""A character-level language model: an Elman network that learns to write like its text.

The recurrence runs through `rnn`, the plain NumPy reference. Change that one import to
`import fastrnn as rnn`, and nothing else, and it runs compiled. By default the script trains with
both, from the same weights and over the same text, and compares the losses and the times.

    python examples/min_char_rnn.py                   # Python's own help topics, both backends
    python examples/min_char_rnn.py --text book.txt --batch 16 --backend compiled
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

if __name__ == "__main__":
    # NumPy and fastrnn on one thread each: on matrices this small a second one gains little, and
    # is waited for whenever another program has its core. With a large --batch and --hidden, try
    # OMP_NUM_THREADS=2. To be set before the imports.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn import reference as rnn

Array = NDArray[Any]
Weights = dict[str, Array]
Clock = dict[str, float]
Run = tuple[Weights, Array, Clock]


def help_topics() -> str:
    """The default text: the manual chapters that `help()` shows, shipped with Python."""
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


def initial_weights(vocabulary: int, hidden: int, dtype: str, seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "w_ih": (hidden, vocabulary),  # input to hidden
        "w_hh": (hidden, hidden),  # hidden to hidden
        "b_h": (hidden,),
        "w_hy": (vocabulary, hidden),  # hidden to output
        "b_y": (vocabulary,),
    }
    return {
        name: (0.01 * rng.standard_normal(shape) * (len(shape) > 1)).astype(dtype)
        for name, shape in shapes.items()
    }


def loss_and_gradients(
    rnn: ModuleType, w: Weights, inputs: Array, targets: Array, h: Array, clock: Clock
) -> tuple[float, Array, Weights]:
    """Cross-entropy in nats (summed over time, mean over streams), its gradients, the last state.

    inputs and targets (T, B) are character numbers; h (B, H) is the state carried in.
    """
    vocabulary, hidden = w["w_hy"].shape
    x = np.eye(vocabulary, dtype=h.dtype)[inputs]  # one-hot, (T, B, V)

    start = time.perf_counter()
    output, h_n, tape = rnn.rnn_forward(x, h, w["w_ih"], w["w_hh"], w["b_h"])
    clock["recurrence"] += time.perf_counter() - start

    logits = output @ w["w_hy"].T + w["b_y"]  # (T, B, V)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    picked = np.take_along_axis(p, targets[..., None], -1)
    streams = inputs.shape[1]
    loss = -np.log(picked).sum(dtype=np.float64) / streams

    # The gradient of softmax and cross-entropy together: p - 1 at the right character, p elsewhere.
    np.put_along_axis(p, targets[..., None], picked - 1, -1)
    d_logits = p / streams

    start = time.perf_counter()
    wanted = ("w_ih", "w_hh", "b_ih")  # no gradient of x: nothing is learned below the one-hots
    grads = rnn.rnn_backward(tape, d_output=d_logits @ w["w_hy"], wrt=wanted)
    clock["recurrence"] += time.perf_counter() - start

    flat = d_logits.reshape(-1, vocabulary)
    return loss, h_n, {
        "w_ih": grads.w_ih,
        "w_hh": grads.w_hh,
        "b_h": grads.b_ih,
        "w_hy": flat.T @ output.reshape(-1, hidden),
        "b_y": flat.sum(0),
    }  # fmt: skip


def train(
    rnn: ModuleType,
    ids: Array,
    vocabulary: int,
    options: argparse.Namespace,
    say: Callable[[str], object] = print,
) -> Run:
    """Truncated backpropagation through time with Adagrad.

    The text is cut into `batch` contiguous streams, read side by side, `length` characters a step;
    the state is carried from step to step but no gradient is. Returns the weights, the loss of
    every step in bits per character, and the seconds spent.
    """
    w = initial_weights(vocabulary, options.hidden, options.dtype, options.seed)
    # Adagrad's sums of squares start at 10. From 0, the first steps would move each weight by the
    # whole rate, however small its gradient, and so would turn rounding errors into large ones.
    memory = {name: np.full_like(value, 10) for name, value in w.items()}
    per_stream = (len(ids) - 1) // options.batch
    shape = (options.batch, per_stream)
    inputs = ids[: options.batch * per_stream].reshape(shape).T  # (per_stream, B)
    targets = ids[1 : options.batch * per_stream + 1].reshape(shape).T

    losses: list[float] = []
    told = 0
    clock = {"recurrence": 0.0, "total": 0.0}
    position = per_stream
    start = time.perf_counter()
    try:
        for step in range(1, options.steps + 1):
            if position + options.length > per_stream:  # at the start, and at the end of the text
                h, position = np.zeros((options.batch, options.hidden), options.dtype), 0
            now = slice(position, position + options.length)
            loss, h, grads = loss_and_gradients(rnn, w, inputs[now], targets[now], h, clock)
            position += options.length

            for name, gradient in grads.items():
                g = np.clip(gradient, -5, 5)
                memory[name] += g * g
                w[name] -= options.rate * g / np.sqrt(memory[name])

            losses.append(loss / options.length / np.log(2))
            clock["total"] = time.perf_counter() - start
            if step == 1 or step % max(1, options.steps // 10) == 0:
                recent, told = np.mean(losses[told:]), step  # smooth: the mean since the last line
                say(f"  step {step:6}  {recent:.3f} bits per character  {clock['total']:6.1f} s")
    except KeyboardInterrupt:
        say(f"  stopped after {len(losses)} steps")
    return w, np.array(losses), clock


def sample(
    rnn: ModuleType, w: Weights, characters: Array, first: int, count: int, seed: int
) -> str:
    """Go on from one character, one step at a time, each drawn from the softmax of the last."""
    rng = np.random.default_rng(seed)
    one_hot = np.eye(len(characters), dtype=w["w_ih"].dtype)
    h, last, text = None, first, [characters[first]]
    for _ in range(count):
        x = one_hot[last][None, None]  # (1, 1, V)
        output, h, _ = rnn.rnn_forward(x, h, w["w_ih"], w["w_hh"], w["b_h"], record=False)
        logits = (w["w_hy"] @ output[0, 0] + w["b_y"]).astype(np.float64)
        p = np.exp(logits - logits.max())
        last = rng.choice(len(characters), p=p / p.sum())
        text.append(characters[last])
    return "".join(text)


def compare(names: list[str], runs: list[Run], dtype: str) -> None:
    """Print how far the losses of two runs lie apart, and how their times compare."""
    (_, a, clock_a), (_, b, clock_b) = runs
    steps = min(len(a), len(b))
    difference = np.abs(a[:steps] - b[:steps])
    print(f"\nlargest difference of the two losses, bits per character, {dtype}")
    for first in sorted({n for n in (1, 10, 100, 1000, 10000) if n < steps} | {steps}):
        print(f"  over the first {first:6} steps  {difference[:first].max(initial=0):.2e}")
    print("  They add in different orders, so they round differently, and training carries each")
    print("  difference into all later steps, where it grows. float64 (--dtype) has 29 bits more.")
    print(f"time, {names[0]} / {names[1]}")
    for part in ("recurrence", "total"):
        x, y = clock_a[part] / max(len(a), 1), clock_b[part] / max(len(b), 1)
        if y > 0:
            times = f"{x * 1e3:.3f} / {y * 1e3:.3f} ms a step"
            print(f"  {part:10}  {times}: {x / y:.2f} times as fast")


def main(arguments: Sequence[str] | None = None) -> int:
    def positive(text: str) -> int:
        if (value := int(text)) < 1:
            raise argparse.ArgumentTypeError("must be at least 1")
        return value

    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--text", metavar="FILE", help="UTF-8 text; without it, Python's help topics")
    add("--backend", choices=["both", "reference", "compiled"], default="both", help="run on")
    add("--dtype", choices=["float32", "float64"], default="float32", help="of all arrays")
    add("--hidden", metavar="H", type=positive, default=100, help="hidden units")
    add("--length", metavar="T", type=positive, default=25, help="characters of a step")
    add("--batch", metavar="B", type=positive, default=4, help="streams, read side by side")
    add("--steps", metavar="N", type=positive, default=10000, help="updates of the weights")
    add("--rate", type=float, default=0.1, help="of Adagrad")
    add("--sample", metavar="N", type=positive, default=400, help="characters to write at the end")
    add("--seed", type=int, default=0, help="of the first weights and the sample")
    options = parser.parse_args(arguments)

    def fail(why: str) -> int:
        print(f"min_char_rnn: {why}", file=sys.stderr)
        return 2

    try:
        text = Path(options.text).read_text("utf-8") if options.text else help_topics()
    except ImportError:
        return fail("this Python comes without its help topics: give a text with --text FILE")
    except (OSError, UnicodeDecodeError) as error:
        return fail(f"cannot read {options.text}: {error}")
    needed = options.batch * options.length + 1
    if len(text) < needed:
        return fail(f"the text has {len(text)} characters, one batch needs {needed}")

    characters, ids = np.unique(list(text), return_inverse=True)
    share = np.bincount(ids) / len(ids)
    print(f"{len(text)} characters, {len(characters)} different ones; knowing only how often each")
    print(f"occurs costs {-(share * np.log2(share)).sum():.3f} bits per character")

    # A dict keeps one of each: with the import above changed, `rnn` is fastrnn, and runs once.
    chosen = {"both": [rnn, fastrnn], "reference": [rnn], "compiled": [fastrnn]}[options.backend]
    modules = list(dict.fromkeys(chosen))
    runs: list[Run] = []
    for module in modules:
        print(f"\n{module.__name__}")
        runs.append(train(module, ids, len(characters), options))
        clock = runs[-1][2]
        print(f"  recurrence {clock['recurrence']:.1f} s of {clock['total']:.1f} s in total")
        if len(runs[-1][1]) < options.steps:
            break
    print(f"\n{sample(module, runs[-1][0], characters, ids[0], options.sample, options.seed)}")
    if len(runs) == 2:
        compare([module.__name__ for module in modules], runs, options.dtype)
    return 0


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has all characters
    sys.exit(main())
