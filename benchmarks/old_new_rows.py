"""The rows of old_new.py's table of times: what is called, by public names alone.

Shapes are (T, B, D, H): time steps, batch, features, hidden units; what belongs to a regime is
said in fastrnn/bench/shapes.py, without the largest; where weights are large, T is small,
and calls that are long nevertheless have two threads alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CELLS = {"rnn": (1, 1), "lstm": (4, 2), "gru": (3, 1)}  # gates, states

# Layers, directions, ragged.
PLAIN = (1, 1, False)
REGIMES: dict[str, list[tuple[tuple[int, int, int, int], tuple[int, int, bool]]]] = {
    "batch-1": [((25, 1, 64, 100), PLAIN), ((100, 1, 64, 64), PLAIN), ((50, 1, 128, 300), PLAIN)],
    "streaming": [((1024, 1, 1, 16), PLAIN), ((1024, 1, 1, 32), PLAIN), ((1024, 1, 1, 64), PLAIN)],
    "narrow": [((1000, 16, 32, 64), PLAIN), ((1000, 4, 8, 32), PLAIN)],
    "minibatch": [((100, 32, 64, 128), PLAIN), ((50, 64, 256, 256), PLAIN)],
    "wide": [((20, 64, 512, 512), PLAIN)],
    "few-rows": [
        ((10, 8, 1024, 1024), PLAIN),
        ((10, 32, 1024, 1024), PLAIN),
        ((8, 64, 1024, 1024), PLAIN),
        ((4, 16, 2048, 2048), PLAIN),
    ],
    "batch-1-wide": [((25, 1, 1024, 1024), PLAIN), ((100, 1, 512, 512), PLAIN)],
    "uneven": [
        ((64, 20, 37, 100), PLAIN),
        ((200, 7, 13, 33), PLAIN),
        ((10, 256, 128, 192), PLAIN),
        ((8, 48, 300, 650), PLAIN),
    ],
    "stacked": [((100, 32, 64, 128), (2, 1, False))],
    "bidirectional": [((100, 1, 64, 64), (1, 2, False)), ((100, 32, 64, 128), (1, 2, False))],
    "ragged": [((100, 32, 64, 128), (1, 1, True))],
}
STEPS = (16, 64, 256)
WIDE_STEPS = ((256, 2), (1024, 1), (1024, 2))  # of a stream: H, threads


@dataclass(frozen=True)
class Row:
    regime: str
    mode: str  # function, layer, stream, of one step; forward, training, run (of a stream)
    cell: str
    sizes: tuple[int, int, int, int]
    form: tuple[int, int, bool] = PLAIN
    threads: int = 1

    def __str__(self) -> str:
        layers, directions, ragged = self.form
        words = [self.regime, self.mode, self.cell, f"({','.join(map(str, self.sizes))})"]
        words += [f"x{layers}"] * (layers > 1) + ["both"] * (directions > 1) + ["ragged"] * ragged
        return " ".join([*words, f"{self.threads}t"])


def rows() -> list[Row]:
    steps = [
        Row("step", mode, cell, (1, 1, H, H))
        for cell in CELLS
        for mode in ("function", "layer", "stream")
        for H in STEPS
    ]
    steps += [
        Row("step", "stream", cell, (1, 1, H, H), threads=threads)
        for cell in CELLS
        for H, threads in WIDE_STEPS
    ]
    return steps + [
        Row(regime, mode, cell, sizes, form, threads)
        for regime, shapes in REGIMES.items()
        for sizes, form in shapes
        for cell in CELLS
        for mode in ("forward", "training", *(["run"] if regime == "batch-1-wide" else []))
        for threads in ((2,) if sizes[1] > 8 and sizes[3] >= 1024 else (1, 2))
    ]


def call_of(row: Row, fastrnn: Any) -> Callable[[], Any]:
    """What is timed: drawn with the same numbers in every process."""
    T, B, D, H = row.sizes
    layers, directions, ragged = row.form
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, B, D), np.float32)
    make = getattr(fastrnn, row.cell.upper())
    layer = make(D, H, layers, bidirectional=directions > 1, rng=0)
    lengths = rng.integers(1, T + 1, B) if ragged else None
    if row.mode == "function":
        return _function(row, fastrnn, layer, x)
    if row.mode == "stream":
        stream = layer.stream()
        x_t = x[0, 0].copy()
        return lambda: stream.step(x_t)
    if row.mode == "run":
        whole, one = layer.stream(), x[:, 0]
        return lambda: whole.run(one)
    if row.mode == "layer":
        state = layer(x)[1]
        return lambda: layer(x, state)
    if row.mode == "forward":
        return lambda: layer(x, lengths=lengths)

    def train() -> None:
        output, _, tape = layer.forward(x, lengths=lengths)
        layer.backward(tape, output)

    return train


def _function(row: Row, fastrnn: Any, layer: Any, x: Any) -> Callable[[], Any]:
    forward = getattr(fastrnn, f"{row.cell}_forward")
    weights = list(layer.weights.values())
    state = [np.zeros((1, row.sizes[3]), np.float32) for _ in range(CELLS[row.cell][1])]
    return lambda: forward(x, *state, *weights, record=False)
