"""The random problems of old_new.py: planned from a seed alone, run with public names alone.

A round has twelve problems for every variant of a cell in either dtype, and eight of what stands
around the cells. Within each of these groups every option is on in one problem and off in another,
which `plan` asserts.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = Any
Results = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Variant:
    """A cell with its options: as arguments of its function, and of its layer."""

    cell: str
    gates: int
    states: tuple[str, ...] = ("h",)
    function: dict[str, Any] = field(default_factory=dict)
    layer: dict[str, Any] = field(default_factory=dict)
    projection: bool = False
    peephole: bool = False

    @classmethod
    def lstm(cls, projection: bool, peephole: bool) -> Variant:
        layer = {"peephole": peephole}
        return cls("lstm", 4, ("h", "c"), {}, layer, projection, peephole)

    @classmethod
    def with_option(cls, cell: str, gates: int, **option: Any) -> Variant:
        return cls(cell, gates, function=option, layer=option)


VARIANTS = {
    "rnn tanh": Variant.with_option("rnn", 1, nonlinearity="tanh"),
    "rnn relu": Variant.with_option("rnn", 1, nonlinearity="relu"),
    "gru reset_after": Variant.with_option("gru", 3, reset_after=True),
    "gru reset_before": Variant.with_option("gru", 3, reset_after=False),
    "lstm": Variant.lstm(projection=False, peephole=False),
    "lstm projection": Variant.lstm(projection=True, peephole=False),
    "lstm peephole": Variant.lstm(projection=False, peephole=True),
    "lstm projection peephole": Variant.lstm(projection=True, peephole=True),
}
DTYPES = ("float32", "float64")

# Around the edges of vectors and of blocks of rows.
EDGES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
PROFILES = ("edges", "one", "batch", "wide")
GRADIENTS = ("both", "output", "state", "both")
# NaN in few problems: it is equal to any NaN, and spreads.
VALUES = ("normal", "unusual", "normal", "not finite")

# Of each kind of problem: what takes each of these values once in a group, ...
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "function": {
        "profile": PROFILES,
        "gradients": GRADIENTS,
        "unbatched": (False, False, True, False),
        "values": VALUES,
    },
    "layer": {
        "profile": PROFILES,
        "gradients": GRADIENTS,
        "unbatched": (False, False, True, False),
        "values": VALUES,
        "layers": (1, 2, 3, 2),
        "memory": ("all", "checkpoint", "keep", "checkpoint"),
    },
    "stream": {"profile": ("edges", "one"), "layers": (1, 3)},
    "generate": {"profile": ("edges", "one"), "layers": (1, 3), "temperature": (0.0, 0.7)},
}
# ... and what is on or off.
SWITCHES: dict[str, tuple[str, ...]] = {
    "function": ("lengths", "restart", "reverse", "state", "b_ih", "b_hh", "wrt", "check", "view"),
    "layer": (
        "lengths", "restart", "bidirectional", "batch_first", "dropout", "state", "bias", "wrt",
        "check",
    ),
    "stream": ("restart", "batch_first", "unbatched", "state", "reset", "update", "out"),
    "generate": ("state", "bias"),
}  # fmt: skip
AROUND = ("linear", "embedding", "softmax_cross_entropy", "mean_squared_error")
ROUND = len(VARIANTS) * len(DTYPES) * sum(
    len(choices["profile"]) for choices in CHOICES.values()
) + len(AROUND) * len(DTYPES)  # fmt: skip

# The operations of one forward: larger problems are given fewer steps, then fewer rows.
MOST_FLOPS = 1e8
# Above this, the portable kernels run once, and not with every number of threads.
SMALL_FLOPS = 2e6


@dataclass(frozen=True)
class Problem:
    number: int
    seed: int
    kind: str
    variant: str
    dtype: str
    options: dict[str, Any]
    sizes: dict[str, int]
    flops: float

    def __str__(self) -> str:
        options = " ".join(
            name if value is True else f"{name}={value}"
            for name, value in (self.sizes | self.options).items()
            if value is not False
        )
        return f"{self.number}: {self.kind} {self.variant} {self.dtype} {options}"

    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.number, 1])


# ------------------------------------------------------------------------------- the plan


def plan(seed: int, rounds: int) -> list[Problem]:
    """All problems, which depend on nothing but the seed."""
    problems: list[Problem] = []

    def add(kind: str, variant: str, dtype: str, options: dict[str, Any]) -> None:
        number = len(problems)
        rng = np.random.default_rng([seed, number, 0])
        sizes, flops = _sizes(rng, kind, variant, options)
        problems.append(Problem(number, seed, kind, variant, dtype, options, sizes, flops))

    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        for dtype in DTYPES:
            for variant in VARIANTS:
                for kind in CHOICES:
                    for options in _group(rng, kind):
                        add(kind, variant, dtype, options)
            for kind in AROUND:
                add(kind, "", dtype, {})
    _assert_complete(problems)
    return problems


def _group(rng: np.random.Generator, kind: str) -> list[dict[str, Any]]:
    """The options of a group's problems: drawn again until everything is on and off in one."""
    size = len(CHOICES[kind]["profile"])
    while True:
        group: list[dict[str, Any]] = [{} for _ in range(size)]
        for name, values in CHOICES[kind].items():
            for options, k in zip(group, rng.permutation(size), strict=True):
                options[name] = values[k]
        for options in group:
            options.update({name: bool(rng.integers(2)) for name in SWITCHES[kind]})
            if options.get("layers") == 1 and "dropout" in options:
                options["dropout"] = False  # it would have no effect
        if all({o[name] for o in group} == {True, False} for name in SWITCHES[kind]):
            return group


def _assert_complete(problems: list[Problem]) -> None:
    """Every variant in every dtype meets every option, on and off."""
    seen = {
        (p.kind, p.variant, p.dtype, name, value)
        for p in problems
        for name, value in p.options.items()
    }
    missing = [
        (kind, variant, dtype, name, value)
        for kind in CHOICES
        for variant in VARIANTS
        for dtype in DTYPES
        for name, values in [
            *CHOICES[kind].items(),
            *((name, (False, True)) for name in SWITCHES[kind]),
        ]
        for value in values
        if (kind, variant, dtype, name, value) not in seen
    ]
    assert not missing, missing
    assert {(p.kind, p.dtype) for p in problems} >= {(k, d) for k in AROUND for d in DTYPES}
    assert {p.sizes["H"] for p in problems if "H" in p.sizes} >= set(EDGES[1:])


def _sizes(
    rng: np.random.Generator, kind: str, variant: str, options: dict[str, Any]
) -> tuple[dict[str, int], float]:
    if kind in AROUND:
        return {}, MOST_FLOPS / 4
    profile = options["profile"]
    if profile == "edges":
        T = rng.choice([0, 1, 2, 3, 5, 9, 17, 40])
        B, D, H = rng.choice(EDGES, 3)
    elif profile == "one":
        T, B, D, H = rng.integers(5, 40), 1, rng.integers(10, 600), rng.integers(100, 600)
        if rng.integers(3) == 0:  # many steps of a narrow layer
            T, D, H = rng.integers(100, 400), rng.integers(1, 40), rng.integers(8, 65)
    elif profile == "batch":
        T, B, D, H = rng.integers([5, 12, 8, 40], [30, 70, 160, 160])
    else:
        T, B, D, H = rng.integers([2, 2, 50, 200], [9, 20, 600, 601])
    if options.get("unbatched"):
        B = 1
    of_variant = VARIANTS[variant]
    if of_variant.projection:
        H = max(H, 2)
    P = rng.integers(1, H) if of_variant.projection else H
    sizes = {"T": T, "B": B, "D": D, "H": H, "P": P}
    if kind == "generate":
        sizes |= {"B": 1, "T": max(T, 1), "V": rng.choice(EDGES[1:])}
    layers, directions = options.get("layers", 1), 1 + options.get("bidirectional", False)
    features = D + H + (layers - 1) * (directions + 1) * H
    row = 2.0 * of_variant.gates * H * features * directions
    for name in "TB":
        if sizes[name] > 2:
            most = MOST_FLOPS / (row * max(1, sizes["T"] * sizes["B"] / sizes[name]))
            sizes[name] = min(sizes[name], max(2, int(most)))
    return {k: int(v) for k, v in sizes.items()}, row * sizes["T"] * sizes["B"]


# ------------------------------------------------------------------------------- running


def settings(problem: Problem, isas: list[str], threads: list[int]) -> list[tuple[str, int]]:
    """With which instruction sets and numbers of threads a problem is run."""
    return [
        (isa, n)
        for isa in isas
        for k, n in enumerate(threads)
        if isa != "generic" or problem.flops < SMALL_FLOPS or k == problem.number % len(threads)
    ]


def results(problem: Problem, fastrnn: Any) -> Iterator[tuple[str, Array]]:
    """All arrays of a problem with their names; an error is a result too."""
    run = {
        "function": _function,
        "layer": _layer,
        "stream": _stream,
        "generate": _generate,
        "linear": _linear,
        "embedding": _embedding,
        "softmax_cross_entropy": _cross_entropy,
        "mean_squared_error": _squared_error,
    }[problem.kind]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            for name, value in run(problem, fastrnn, problem.rng()):
                yield from _flat(name, value)
        except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError) as error:
            # The words may be other words.
            yield f"error {type(error).__name__}", np.zeros(0)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Array]]:
    if value is None:
        return
    if isinstance(value, tuple | list):
        for k, item in enumerate(value):
            yield from _flat(f"{name}[{k}]", item)
    else:
        # A copy: some results are written to again.
        yield name, np.array(value)


class Draw:
    """Arrays of a problem's dtype."""

    def __init__(self, rng: np.random.Generator, dtype: str) -> None:
        self.rng, self.dtype = rng, dtype

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def uniform(self, H: int, *shape: int) -> Array:
        bound = 1.5 / np.sqrt(H)
        return self.rng.uniform(-bound, bound, shape).astype(self.dtype)

    def x(self, shape: tuple[int, ...], values: str = "normal", view: bool = False) -> Array:
        if view:  # unaligned rows, steps in another order
            x = self.normal(*shape[:-1], shape[-1] + 3)[::-1, ..., 1:-2]
        else:
            x = self.normal(*shape)
        if x.size and values == "unusual":
            tiny = np.finfo(self.dtype).tiny
            for k in self.rng.integers(0, x.size, 1 + min(40, x.size // 20)):
                value = self.rng.choice([-0.0, tiny / 8, -tiny / 3, 300.0, -90.0, 20.0])
                x[np.unravel_index(k, x.shape)] = value
        if x.size and values == "not finite":
            k = self.rng.integers(x.size)
            x[np.unravel_index(k, x.shape)] = self.rng.choice([np.nan, np.inf, -np.inf, 1e30])
        return x

    def some(self, names: list[str]) -> list[str]:
        return [n for n in names if self.rng.integers(2)] or [str(self.rng.choice(names))]

    def restart(self, *shape: int) -> Array:
        return self.rng.random(shape) < 0.2


def _function(p: Problem, fastrnn: Any, rng: np.random.Generator) -> Results:
    draw, o, variant = Draw(rng, p.dtype), p.options, VARIANTS[p.variant]
    T, B, D, H, P = (p.sizes[k] for k in "TBDHP")
    rows, batch = variant.gates * H, () if o["unbatched"] else (B,)
    forward = getattr(fastrnn, f"{variant.cell}_forward")
    backward = getattr(fastrnn, f"{variant.cell}_backward")
    x = draw.x((T, *batch, D), o["values"], o["view"])
    units = {"h": P, "c": H}
    state = [draw.normal(*batch, units[s]) if o["state"] else None for s in variant.states]
    weights = [draw.uniform(H, rows, D), draw.uniform(H, rows, P)]
    weights += [draw.uniform(H, rows) if o[name] else None for name in ("b_ih", "b_hh")]
    arguments: dict[str, Any] = dict(variant.function, reverse=o["reverse"])
    if variant.projection:
        arguments["w_hr"] = draw.uniform(H, P, H)
    if variant.peephole:
        arguments["w_peep"] = draw.uniform(H, 3 * H)
    if o["lengths"]:
        arguments["lengths"] = rng.integers(0, T + 1, batch)
        if o["unbatched"]:
            arguments["lengths"] = int(arguments["lengths"])
    if o["restart"]:
        arguments["restart"] = draw.restart(T, *batch)
    *plain, _ = forward(x, *state, *weights, **arguments, record=False)
    yield "unrecorded", plain
    output, *final, tape = forward(x, *state, *weights, **arguments, check=o["check"])
    yield "output", output
    yield "final", final
    d_output = draw.normal(*output.shape) if o["gradients"] != "state" else None
    d_state = [draw.normal(*s.shape) if o["gradients"] != "output" else None for s in final]
    names = ["x", "w_ih", "w_hh", "b_ih", "b_hh", *(f"{s}_0" for s in variant.states)]
    names += [name for name in ("w_hr", "w_peep") if name in arguments]
    grads = backward(tape, d_output, *d_state, wrt=draw.some(names) if o["wrt"] else None)
    for name in names:
        yield f"d_{name}", getattr(grads, name)
    yield "gradient_norms", fastrnn.gradient_norms(tape, d_output, *d_state)


def _make_layer(p: Problem, fastrnn: Any, seed: int, **arguments: Any) -> Any:
    variant = VARIANTS[p.variant]
    if variant.projection:
        arguments["proj_size"] = p.sizes["P"]
    make = getattr(fastrnn, variant.cell.upper())
    arguments |= variant.layer
    return make(
        p.sizes["D"], p.sizes["H"], p.options["layers"], dtype=p.dtype, rng=seed, **arguments
    )


def _state(p: Problem, draw: Draw, *axes: int) -> Any:
    """A state as layers take it, with these axes in front of the units."""
    sizes = {"h": p.sizes["P"], "c": p.sizes["H"]}
    state = tuple(draw.normal(*axes, sizes[s]) for s in VARIANTS[p.variant].states)
    return state if len(state) > 1 else state[0]


def _layer(p: Problem, fastrnn: Any, rng: np.random.Generator) -> Results:
    draw, o, variant = Draw(rng, p.dtype), p.options, VARIANTS[p.variant]
    T, B, D, H = (p.sizes[k] for k in "TBDH")
    layer = _make_layer(
        p, fastrnn, p.number, bias=o["bias"], batch_first=o["batch_first"],
        bidirectional=o["bidirectional"], dropout=0.3 * o["dropout"],
        init="orthogonal" if p.number % 2 and H <= 100 else "uniform",
    )  # fmt: skip
    yield "weights", layer.flat_weights
    axes = (T,) if o["unbatched"] else (B, T) if o["batch_first"] else (T, B)
    cells = o["layers"] * (1 + o["bidirectional"])
    batch = () if o["unbatched"] else (B,)
    x = draw.x((*axes, D), o["values"])
    state = _state(p, draw, cells, *batch) if o["state"] else None
    arguments: dict[str, Any] = {}
    if o["lengths"]:
        lengths = rng.integers(0, T + 1, batch)
        arguments["lengths"] = int(lengths) if o["unbatched"] else lengths
    if o["restart"]:
        arguments["restart"] = draw.restart(*axes)
    yield "called", layer(x, state, **arguments)
    if o["memory"] == "checkpoint":
        arguments["checkpoint"] = int(rng.integers(1, max(2, T + 2)))
    keepable = {"lstm": ["c", "gates"], "gru": ["gates"]}.get(variant.cell, [])
    if o["memory"] == "keep":
        arguments["keep"] = keepable
    output, final, tape = layer.forward(x, state, **arguments, rng=p.number, check=o["check"])
    yield "output", output
    yield "final", final
    for name in arguments.get("keep", ()):
        yield name, getattr(tape, name)
    d_output = draw.normal(*output.shape) if o["gradients"] != "state" else None
    d_state = _state(p, draw, cells, *batch) if o["gradients"] != "output" else None
    names = ["x", "state", *layer.weights]
    wrt = draw.some(names) if o["wrt"] else None
    grads = layer.backward(tape, d_output, d_state, wrt=wrt)
    yield "d_x", grads.x
    yield "d_state", grads.state
    for name in layer.weights:
        if name in grads.weights:
            yield f"d_{name}", grads.weights[name]
    d_states = d_state if isinstance(d_state, tuple) else (d_state,)
    yield "gradient_norms", fastrnn.gradient_norms(tape, d_output, *d_states)


def _stream(p: Problem, fastrnn: Any, rng: np.random.Generator) -> Results:
    draw, o = Draw(rng, p.dtype), p.options
    T, B, D, P = (p.sizes[k] for k in "TBDP")
    layer = _make_layer(p, fastrnn, p.number, batch_first=o["batch_first"])
    stream = layer.stream(B)
    if o["state"]:
        stream.state = _state(p, draw, o["layers"], B)
    batch = () if o["unbatched"] else (B,)

    def restart(*shape: int) -> dict[str, Any]:
        return {"restart": draw.restart(*shape)} if o["restart"] else {}

    for part in ("first", "second"):
        for t in range(min(T, 5)):
            arguments = restart(B)
            if o["out"]:
                arguments["out"] = np.empty((*batch, P), p.dtype)
            yield f"{part} step {t}", stream.step(draw.normal(*batch, D), **arguments)
        yield f"{part} state", stream.state
        axes = (T,) if o["unbatched"] else (B, T) if o["batch_first"] else (T, B)
        yield f"{part} run", stream.run(draw.normal(*axes, D), **restart(*axes))
        yield f"{part} state of run", stream.state
        if o["reset"]:
            stream.reset(draw.rng.random(B) < 0.5)
        if o["update"]:
            layer.flat_weights[...] *= 0.75
            stream.update()
    stream.reset()
    yield "reset", stream.state


def _generate(p: Problem, fastrnn: Any, rng: np.random.Generator) -> Results:
    draw, o = Draw(rng, p.dtype), p.options
    T, D, P, V = (p.sizes[k] for k in "TDPV")
    rnn = _make_layer(p, fastrnn, p.number, bias=o["bias"])
    embedding = fastrnn.Embedding(V, D, dtype=p.dtype, rng=1)
    linear = fastrnn.Linear(P, V, bias=o["bias"], dtype=p.dtype, rng=2)
    linear.flat_weights[...] *= 3  # so that not all indices are as likely
    state = _state(p, draw, o["layers"]) if o["state"] else None
    prompt = rng.integers(0, V, rng.integers(1, 6))
    for part in range(2):
        indices, state = fastrnn.generate(
            embedding, rnn, linear, prompt, T, state, temperature=o["temperature"], rng=p.number
        )
        yield f"indices {part}", indices
        yield f"state {part}", state
        prompt = indices[-1:]


def _linear(p: Problem, fastrnn: Any, rng: np.random.Generator) -> Results:
    draw = Draw(rng, p.dtype)
    shapes = [(*rng.choice(EDGES, 2), *rng.choice(EDGES, 2)) for _ in range(40)]
    shapes += [(1, 1, 300, 500), (20, 16, 200, 120), (40, 33, 65, 300)]
    for k, shape in enumerate(shapes):
        T, B, D, O = map(int, shape)
        x, weight = draw.x((T, B, D), VALUES[k % 4], k % 3 == 1), draw.uniform(D, O, D)
        bias = draw.uniform(D, O) if k % 2 else None
        output, tape = fastrnn.linear_forward(x, weight, bias)
        yield f"output {k}", output
        wrt = draw.some(["x", "weight", "bias"]) if k % 4 == 3 else None
        grads = fastrnn.linear_backward(tape, draw.normal(T, B, O), wrt=wrt)
        yield f"gradients {k}", [grads.x, grads.weight, grads.bias]
    layer = fastrnn.Linear(17, 33, dtype=p.dtype, rng=3)
    x = draw.normal(5, 9, 17)
    yield "called", layer(x)
    output, tape = layer.forward(x)
    grads = layer.backward(tape, output)
    yield "layer", [output, grads.x, *grads.weights.values()]


def _embedding(p: Problem, fastrnn: Any, rng: np.random.Generator) -> Results:
    draw = Draw(rng, p.dtype)
    for k in range(30):
        V, D, *shape = (int(n) for n in rng.choice(EDGES, 4))
        indices, weight = rng.integers(0, V, shape), draw.normal(V, D)
        output, tape = fastrnn.embedding_forward(indices, weight)
        yield f"output {k}", output
        d_output = draw.x(output.shape, VALUES[k % 4], k % 3 == 1)
        yield f"d_weight {k}", fastrnn.embedding_backward(tape, d_output).weight
    layer = fastrnn.Embedding(100, 33, dtype=p.dtype, rng=3)
    indices = rng.integers(0, 100, (70, 16))
    output, tape = layer.forward(indices)
    yield "layer", [layer(indices), output]
    yield "d_layer", list(layer.backward(tape, output).weights.values())


def _positions(rng: np.random.Generator, k: int, T: int, B: int) -> dict[str, Any]:
    """Which positions count, over what, in which order of axes."""
    arguments: dict[str, Any] = {
        "reduction": ("mean", "sum")[k % 2],
        "batch_first": bool(k // 2 % 2),
    }
    shape = (B, T) if arguments["batch_first"] else (T, B)
    if k % 3 == 1:
        arguments["lengths"] = rng.integers(0, T + 1, B)
    if k % 4 == 3:
        arguments["mask"] = rng.random(shape) < 0.7
    return arguments


def _cross_entropy(p: Problem, fastrnn: Any, rng: np.random.Generator) -> Results:
    draw = Draw(rng, p.dtype)
    for k in range(48):
        T, B, C = (int(n) for n in rng.choice(EDGES, 3))
        arguments = _positions(rng, k, T, B)
        shape = (B, T) if arguments["batch_first"] else (T, B)
        logits = 5 * draw.x((*shape, C), VALUES[k % 4])
        yield (
            f"{k}",
            list(fastrnn.softmax_cross_entropy(logits, rng.integers(0, C, shape), **arguments)),
        )


def _squared_error(p: Problem, fastrnn: Any, rng: np.random.Generator) -> Results:
    draw = Draw(rng, p.dtype)
    for k in range(48):
        T, B, O = (int(n) for n in rng.choice(EDGES, 3))
        arguments = _positions(rng, k, T, B)
        shape = (B, T, O) if arguments["batch_first"] else (T, B, O)
        x, target = draw.x(shape, VALUES[k % 4]), draw.normal(*shape)
        yield f"{k}", list(fastrnn.mean_squared_error(x, target, **arguments))
        grads = [draw.normal(B, O), draw.normal(T)]
        with suppress(ValueError):
            yield f"norm {k}", fastrnn.clip_grad_norm(grads, 0.5 + k)
        fastrnn.clip_grad_value(grads, 0.7)
        yield f"clipped {k}", grads
