"""Layers of all kinds for tests, and `compose`: a layer by its functions.

`compose` is the specification of a layer in terms of functions: which weights, which part of the
state and of the output belong to which cell, what the next layer reads, and what is added to what.
"""

import numpy as np
import pytest
from registry import CELLS, UNBIASED, VARIANTS

T, B, D, H = 6, 4, 3, 5
RESTART = np.random.default_rng(7).random((T, B)) < 0.25
MASK = np.random.default_rng(8).random((T, B)) < 0.6
OPTIONS = {
    "plain": {},
    "lengths": {"lengths": [6, 0, 3, 5]},
    "restart": {"restart": RESTART},
    "both": {"lengths": [2, 6, 1, 0], "restart": RESTART},
    "mask": {"mask": MASK, "restart": RESTART},
}
SHAPES = {
    "one": {"num_layers": 1},
    "both": {"num_layers": 1, "bidirectional": True},
    "two": {"num_layers": 2},
    "three-both": {"num_layers": 3, "bidirectional": True},
    "two-reverse": {"num_layers": 2, "reverse": True},
}

each_backend = pytest.mark.parametrize("backend", ["compiled", "reference"])
each_shape = pytest.mark.parametrize("shape", SHAPES)


def make(kind, shape="two", **options):
    """A layer of a variant; some have no biases."""
    own = {"bias": kind not in UNBIASED, "dtype": "float64", "rng": 0}
    return VARIANTS[kind].layer(D, H, **SHAPES[shape] | own | options)


def ways(layer):
    """Of the directions of each layer, whether it is the reverse one."""
    return [False, True] if layer.bidirectional else [layer.reverse]


def directions(layer):
    return len(ways(layer))


def units(layer):
    return getattr(layer, "proj_size", 0) or layer.hidden_size


def cell_of(layer):
    return next(cell for cell in CELLS.values() if type(layer) is cell.layer)


def is_pair(layer):
    return len(cell_of(layer).states) == 2


def draw(layer, *shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(layer.dtype)


def draw_state(layer, *rows, seed=2):
    """A state, or the gradient of one."""
    cells = layer.num_layers * directions(layer)
    h = draw(layer, cells, *rows, units(layer), seed=seed)
    return (h, draw(layer, cells, *rows, H, seed=seed + 1)) if is_pair(layer) else h


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def functions(layer):
    """forward and backward of the layer's cell, and the options of forward."""
    cell = cell_of(layer)
    names = {name for v in VARIANTS.values() if v.cell is cell for name in v.options}
    return cell.forward(), cell.backward(), {name: getattr(layer, name) for name in names}


def compose(layer, x, state, d_output, d_state, dropped=(), scale=1.0, **walk):
    """The results of a layer by its functions; all sequences are time-major."""
    forward, backward, options = functions(layer)
    n = directions(layer)
    tapes, finals = [], []
    for k in range(layer.num_layers):
        if k > 0 and dropped:
            x = np.where(dropped[k - 1], 0, x * scale)
        outputs = []
        for reverse in ways(layer):
            i = len(tapes)
            suffix = f"_l{k}" + "_reverse" * reverse
            names = cell_of(layer).weights.items()
            weights = {arg: layer.weights.get(name + suffix) for name, arg in names}
            initial = [None if state is None else s[i] for s in as_tuple(state)]
            if is_pair(layer) and state is None:
                initial = [None, None]
            output, *final, tape = forward(
                x, *initial, **weights, **options, **walk, reverse=reverse
            )
            outputs.append(output)
            finals.append(final)
            tapes.append(tape)
        x = np.concatenate(outputs, axis=-1)
    results = {"output": x}
    for name, parts in zip(("h_n", "c_n"), zip(*finals, strict=True), strict=False):
        results[name] = np.stack(parts)

    grads, d = {}, d_output
    for k in reversed(range(layer.num_layers)):
        parts = [None] * n if d is None else np.split(d, n, axis=-1)
        for j, part in enumerate(parts):
            i = n * k + j
            given = [None if s is None else s[i] for s in as_tuple(d_state)]
            grads[i] = backward(tapes[i], part, *given)
        d = grads[n * k].x + grads[n * k + 1].x if n == 2 else grads[n * k].x
        if k > 0 and dropped:
            d = np.where(dropped[k - 1], 0, d * scale)
    results["x"] = d
    for name in ("h_0", "c_0"):
        if getattr(grads[0], name, None) is not None:
            results[name] = np.stack([getattr(grads[i], name) for i in range(len(tapes))])
    for name in layer.weights:
        base, _, rest = name.rpartition("_l")
        k, _, reverse = rest.partition("_")
        i = n * int(k) + ways(layer).index(bool(reverse))
        results[name] = getattr(grads[i], cell_of(layer).weights[base])
    return results, tapes


def run(layer, x, state, d_output, d_state, wrt=None, **options):
    """The results of the layer, under the names of `compose`."""
    output, final, tape = layer.forward(x, state, **options)
    grads = layer.backward(tape, d_output, d_state, wrt=wrt)
    results = {"output": output, "x": grads.x, **grads.weights}
    for name, part in zip(("h_n", "c_n"), as_tuple(final), strict=False):
        results[name] = part
    if grads.state is not None:
        results |= dict(zip(("h_0", "c_0"), as_tuple(grads.state), strict=False))
    return results, grads, tape


def assert_same(got, want):
    """The same bits and shapes, under the same names."""
    assert got.keys() == want.keys()
    for name, expected in want.items():
        assert got[name].dtype == expected.dtype, name
        assert np.array_equal(got[name], expected), name


def dropout_problem(kind="tanh", shape="three-both", **options):
    layer = make(kind, shape, dropout=0.4, **options)
    x, state = draw(layer, T, B, D, seed=1), draw_state(layer, B)
    d_output = draw(layer, T, B, directions(layer) * units(layer), seed=2)
    return layer, x, state, d_output, draw_state(layer, B, seed=4)
