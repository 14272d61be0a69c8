"""Every kind of call that can be interrupted, for tests of what may come in the middle.

Each makes the same results every time it is called, as bytes. `small` ones have many meetings and
polls in a few milliseconds, where a schedule makes threads late; the others take tens of
milliseconds, where signals come at random.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from registry import FIRST, LAST, VARIANTS

import fastrnn
from fastrnn import _core

UNITS_OF_MANY_ROWS = "units of many rows"  # in the names of calls that are split so


def flat(results: Any) -> bytes:
    """The bytes of all arrays of nested results."""
    if isinstance(results, np.ndarray):
        return results.tobytes()
    if isinstance(results, dict):
        results = list(results.values())
    return b"".join(map(flat, results)) if isinstance(results, list | tuple) else b""


def far(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as if no cache held a matrix: then units are split, whatever the rows."""

    def made() -> Any:
        before = _core.swap_far(0)
        try:
            return call()
        finally:
            _core.swap_far(before)

    return made


def calls(small: bool) -> dict[str, Callable[[], bytes]]:
    rng = np.random.default_rng(0)

    def array(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32) / 8

    made: dict[str, Callable[[], bytes]] = {}

    def add(name: str, call: Callable[[], Any]) -> None:
        made[name] = lambda: flat(call())

    n, width = (4 * 512, 32) if small else (16384, 256)
    x, w, b = array(n, width), array(width, width), array(width)
    y, tape = fastrnn.linear_forward(x, w, b)
    add("linear forward", lambda: fastrnn.linear_forward(x, w, b, record=False)[0])
    add("linear backward", lambda: fastrnn.linear_backward(tape, y))
    # The only meetings are those that ask whether to stop.
    add("linear backward of x", lambda: fastrnn.linear_backward(tape, y, wrt=("x",)))

    # Few rows: threads share the outputs, or the columns of d_x, and do not meet for that.
    few, wide = array(5, width), array(300 if small else 40_000, width)
    y_few, tape_few = fastrnn.linear_forward(few, wide)
    add("linear of few rows forward", lambda: fastrnn.linear_forward(few, wide, record=False)[0])
    add("linear of few rows backward", lambda: fastrnn.linear_backward(tape_few, y_few)[:2])

    indices = rng.integers(0, width, n)
    _, of_indices = fastrnn.embedding_forward(indices, w)
    add("embedding backward", lambda: fastrnn.embedding_backward(of_indices, x))
    target = rng.integers(0, width, n)
    add("cross-entropy", lambda: fastrnn.softmax_cross_entropy(y, target)[1])
    add("softmax", lambda: fastrnn.softmax(y))

    T, B, D, H = (60, 30, 9, 40) if small else (200, 32, 64, 200)
    xs, lengths = array(T, B, D), rng.integers(0, T + 1, B)
    restart = rng.random((T, B)) < 0.1
    variants = {v.name: v for v in (*FIRST.values(), *LAST.values()) if v.kind != "relu"}
    layers = {name: variant.layer(D, H, rng=1) for name, variant in variants.items()}
    for name, layer in layers.items():
        output, _, of_layer = layer.forward(xs, lengths=lengths, restart=restart)
        add(f"{name} forward", lambda layer=layer: layer.forward(xs, lengths=lengths)[0])
        add(
            f"{name} backward",
            lambda layer=layer, t=of_layer, d=output: layer.backward(t, d).flat_weights,
        )
    _, _, short = layers["lstm"].forward(xs, checkpoint=7)
    d = array(T, B, H)
    add("LSTM backward of a short tape", lambda: layers["lstm"].backward(short, d)[:2])

    both = fastrnn.GRU(D, H, 2, bidirectional=True, rng=2)
    for rows in (1, B):  # two concurrent calls; one after the other
        some = np.ascontiguousarray(xs[:, :rows])
        output, _, of_both = both.forward(some)
        add(f"both directions of {rows} forward", lambda some=some: both(some)[0])
        add(
            f"both directions of {rows} backward",
            lambda t=of_both, d=output: both.backward(t, d).flat_weights,
        )

    # In three pieces, also of a projection; some of them have a second product in a step.
    T, B, D, H = (9, 20, 70, 260) if small else (40, 32, 64, 400)
    many, some = array(T, B, D), rng.integers(0, T + 1, B)
    walk = {"lengths": some, "restart": rng.random((T, B)) < 0.1}
    for variant in (*LAST.values(), VARIANTS["potential"]):
        layer, name = variant.layer(D, H, rng=7), f"{UNITS_OF_MANY_ROWS}, {variant.name}"
        output, _, of_many = layer.forward(many, **walk)

        def forward(layer: Any = layer) -> Any:
            return layer.forward(many, **walk)[:2]

        def backward(layer: Any = layer, tape: Any = of_many, d_output: Any = output) -> Any:
            grads = layer.backward(tape, d_output)
            return grads.x, grads.flat_weights

        add(f"{name} forward", far(forward))
        add(f"{name} backward", far(backward))

    # One sequence: split by hidden units, or by a producer and a consumer of input projections.
    T, D, H = (500, 20, 70) if small else (3000, 64, 300)
    one, lstm = array(T, 1, D), fastrnn.LSTM(D, H, rng=3)
    never = np.zeros((T, 1), bool)
    output, _, of_one = lstm.forward(one)
    add("one sequence, split by units", lambda: lstm(one)[0])
    add("one sequence, producer and consumer", lambda: lstm(one, restart=never)[0])
    add("one sequence backward", lambda: lstm.backward(of_one, output)[:2])
    stream = lstm.stream()

    def run() -> Any:
        stream.reset()
        return stream.run(one)

    add("stream", run)
    embedding, head = fastrnn.Embedding(width, D, rng=4), fastrnn.Linear(H, width, rng=5)
    length = 1000 if small else 2000
    add("generate", lambda: fastrnn.generate(embedding, lstm, head, [1], length, rng=6)[0])
    prompts = [[1] * (1 + b % 3) for b in range(7)]
    several = {"stop": range(3), "rng": 6}  # some end early
    add(
        "generate several",
        lambda: fastrnn.generate(embedding, lstm, head, prompts, length // 4, **several),
    )
    return made
