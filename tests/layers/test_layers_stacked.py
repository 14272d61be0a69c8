"""Stacked layers and both directions: the bits of the functions composed by hand; wrt; norms."""

import numpy as np
import pytest
from marks import each_first, each_last, each_name
from stacked_layers import (
    MASK,
    OPTIONS,
    RESTART,
    B,
    D,
    H,
    T,
    as_tuple,
    assert_same,
    cell_of,
    compose,
    directions,
    draw,
    draw_state,
    dropout_problem,
    each_backend,
    each_shape,
    functions,
    is_pair,
    make,
    run,
    units,
)

import fastrnn
from fastrnn import _core
from fastrnn.layers import tape as layer_tape

# Small calls, under which threads are not under test.
pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------ composition


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@each_shape
@each_name
@each_backend
def test_a_layer_is_its_functions(backend, kind, shape, options, batch_first, dtype):
    layer = make(kind, shape, batch_first=batch_first, dtype=dtype)
    n = directions(layer)
    x, d_output = draw(layer, T, B, D, seed=1), draw(layer, T, B, n * units(layer), seed=2)
    state = draw_state(layer, B) if options != "lengths" else None
    d_state = draw_state(layer, B, seed=4)
    own = dict(OPTIONS[options])

    def turned(a):
        return np.ascontiguousarray(a.swapaxes(0, 1)) if batch_first else a

    with fastrnn.backend(backend):
        want, _ = compose(layer, x, state, d_output, d_state, **own)
        for name in {"mask", "restart"} & set(own):
            own[name] = turned(own[name])
        got, grads, _ = run(layer, turned(x), state, turned(d_output), d_state, **own)
        output, final = layer(turned(x), state, **own)
    for name in ("output", "x"):
        assert got[name].flags.c_contiguous
        got[name] = turned(got[name])
    assert_same(got, want)
    assert np.array_equal(turned(output), want["output"])
    assert all(
        np.array_equal(a, want[f"{s}_n"]) for a, s in zip(as_tuple(final), "hc", strict=False)
    )
    assert (grads.state is None) == (state is None)
    assert np.array_equal(
        grads.flat_weights, np.concatenate([want[name].ravel() for name in layer.weights])
    )


@each_shape
@each_name
@each_backend
def test_one_sequence_is_a_batch_of_one(backend, kind, shape):
    layer = make(kind, shape, batch_first=True)
    n = directions(layer)
    x, d_output = draw(layer, T, D, seed=1), draw(layer, T, n * units(layer), seed=2)
    state, d_state = draw_state(layer), draw_state(layer, seed=4)
    alone = {"lengths": 4, "restart": RESTART[:, 1]}
    batch = {"lengths": [4], "restart": RESTART[None, :, 1]}

    def expand(s):
        return tuple(a[:, None] for a in s) if isinstance(s, tuple) else s[:, None]

    with fastrnn.backend(backend):
        got, _, _ = run(layer, x, state, d_output, d_state, **alone)
        want, _, _ = run(layer, x[None], expand(state), d_output[None], expand(d_state), **batch)
    for name in ("output", "x"):
        want[name] = want[name][0]
    for name in ("h_n", "c_n", "h_0", "c_0"):
        if name in want:
            want[name] = want[name][:, 0]
    assert_same(got, want)
    assert all(a.ndim == 2 for a in as_tuple(layer(x, state)[1]))


@each_name
def test_a_sequence_in_pieces(kind):
    layer = make(kind, "two")
    x = draw(layer, T, B, D, seed=1)
    whole, last = layer(x, None)
    first, state = layer(x[:2])
    second, state = layer(x[2:], state)
    # The compiled backend gives the same bits for a whole and for its pieces.
    assert np.array_equal(np.concatenate([first, second]), whole)
    assert all(np.array_equal(a, b) for a, b in zip(as_tuple(state), as_tuple(last), strict=True))


@each_shape
@each_backend
@pytest.mark.parametrize("sizes", [(0, B), (T, 0), (0, 0)], ids=str)
@each_last
def test_nothing_to_do(kind, sizes, backend, shape):
    layer = make(kind, shape)
    steps, batch = sizes
    n = directions(layer)
    state, d_state = draw_state(layer, batch), draw_state(layer, batch, seed=4)
    with fastrnn.backend(backend):
        x, d_output = np.zeros((steps, batch, D)), np.zeros((steps, batch, n * units(layer)))
        got, grads, tape = run(layer, x, state, d_output, d_state)
        norms = fastrnn.gradient_norms(tape, d_output)
    assert got["output"].shape == d_output.shape
    assert got["x"].shape == x.shape
    assert not grads.flat_weights.any()
    assert norms.shape == (len(tape.tapes), steps, batch)
    for end, start, d_end, d_start in zip(
        as_tuple(layer(x, state)[1]), as_tuple(state), as_tuple(d_state), as_tuple(grads.state),
        strict=True,
    ):  # fmt: skip
        assert np.array_equal(end, start)  # no step was made
        assert np.array_equal(d_start, d_end)


@each_name
def test_either_gradient_of_the_state(kind):
    """What is None counts as zeros, in each part of the state."""
    layer = make(kind, "three-both")
    x, state = draw(layer, T, B, D, seed=1), draw_state(layer, B)
    d_output, d_state = draw(layer, T, B, 2 * units(layer), seed=2), draw_state(layer, B, seed=4)
    zeros = tuple(np.zeros_like(a) for a in as_tuple(d_state))
    cases = [(d_output, None, zeros), (None, d_state, as_tuple(d_state))]
    if is_pair(layer):
        cases += [
            (None, (d_state[0], None), (d_state[0], zeros[1])),
            (None, [None, d_state[1]], (zeros[0], d_state[1])),
            (d_output, (None, None), zeros),
        ]
    for d, given, full in cases:
        got, _, _ = run(layer, x, state, d, given)
        full_d = np.zeros_like(d_output) if d is None else d
        want, _, _ = run(layer, x, state, full_d, full if is_pair(layer) else full[0])
        assert_same(got, want)


# ------------------------------------------------------------------------------ wrt


WRT = [
    (),
    ["x"],
    ["state"],
    ["weights"],
    ["bias_hh_l1"],
    ["weight_hh_l1_reverse", "weight_ih_l2"],
    ["weight_ih_l0_reverse"],
    ["state", "bias_ih_l2_reverse"],
    ["weight_hh_l2", "x"],
]


@pytest.mark.parametrize("wrt", WRT, ids=str)
@pytest.mark.parametrize("with_state", [True, False])
@each_first
@each_backend
def test_wrt(backend, kind, with_state, wrt, monkeypatch):
    layer = make(kind, "three-both")
    x, state = draw(layer, T, B, D, seed=1), draw_state(layer, B) if with_state else None
    d_output, d_state = draw(layer, T, B, 2 * H, seed=2), draw_state(layer, B, seed=4)
    calls, places = [], []
    backward = layer_tape.backward

    def recorded(directions):
        for tape, _, _, _, wrt, into, _ in directions:
            calls.append((tape, set(wrt)))
            places.extend(into.values())
        return backward(directions)

    with fastrnn.backend(backend):
        every, _, tape = run(layer, x, state, d_output, d_state)
        monkeypatch.setattr(layer_tape, "backward", recorded)
        grads = layer.backward(tape, d_output, d_state, wrt=wrt)

    # What was asked for has the bits that it has when all is asked for; nothing else is there.
    assert (grads.x is not None) == ("x" in wrt)
    assert (grads.state is not None) == ("state" in wrt and with_state)
    names = [name for name in layer.weights if "weights" in wrt or name in wrt]
    assert list(grads.weights) == names
    for name in names:
        assert np.array_equal(grads.weights[name], every[name])
    if "x" in wrt:
        assert np.array_equal(grads.x, every["x"])
    if grads.state is not None:
        for name, part in zip(("h_0", "c_0"), as_tuple(grads.state), strict=False):
            assert np.array_equal(part, every[name])
    if names:
        expected = np.concatenate([every[n].ravel() * (n in names) for n in layer.weights])
        assert np.array_equal(grads.flat_weights, expected)
    else:
        assert grads.flat_weights is None
    assert len(places) == len(names)  # nothing is copied: the cells write to flat_weights
    assert all(np.shares_memory(a, grads.flat_weights) for a in places)

    # And what was left out costs nothing.
    own = {i: set() for i in range(6)}
    for name in names:
        base, _, rest = name.rpartition("_l")
        own[2 * int(rest[0]) + rest.endswith("_reverse")].add(cell_of(layer).weights[base])
    if grads.state is not None:
        for asked in own.values():
            asked |= {"h_0", "c_0"} if is_pair(layer) else {"h_0"}
    wanted_below = "x" in wrt
    expected = {}
    for k in range(3):
        for i in (2 * k, 2 * k + 1):
            expected[i] = own[i] | ({"x"} if wanted_below else set())
        wanted_below = wanted_below or bool(own[2 * k] or own[2 * k + 1])
    got = {next(i for i, t in enumerate(tape.tapes) if t is tape_): names for tape_, names in calls}
    assert got == {i: names for i, names in expected.items() if names}
    assert len(calls) == len(got)


@pytest.mark.parametrize("shape", ["one", "two"])
@each_last
def test_every_gradient_alone(kind, shape):
    layer = make(kind, shape)
    x, state = draw(layer, T, B, D, seed=1), draw_state(layer, B)
    d_output, d_state = draw(layer, T, B, units(layer), seed=2), draw_state(layer, B, seed=4)
    every, _, tape = run(layer, x, state, d_output, d_state)
    for name in layer.weights:
        grads = layer.backward(tape, d_output, d_state, wrt=[name])
        assert np.array_equal(grads.weights[name], every[name])
    assert np.array_equal(layer.backward(tape, d_output, d_state, wrt=["x"]).x, every["x"])
    grads = layer.backward(tape, d_output, d_state, wrt=["state"])
    for name, part in zip(("h_0", "c_0"), as_tuple(grads.state), strict=False):
        assert np.array_equal(part, every[name])


# ------------------------------------------------------------------------------ bits


@each_name
def test_the_same_bits_on_any_threads_and_instruction_set(kind):
    """Stacking adds nothing of its own to what the kernel promises."""
    layer, x, state, d_output, d_state = dropout_problem(kind, dtype="float32")
    options = {"rng": 3, "lengths": [6, 0, 3, 5]}
    want, _, _ = run(layer, x, state, d_output, d_state, **options)
    for isa in fastrnn.available_isas():
        if isa == "generic":  # which rounds once more in each multiplication
            continue
        fastrnn.set_isa(isa)
        for threads in (1, 2, 5):
            fastrnn.set_num_threads(threads)
            got, _, _ = run(layer, x, state, d_output, d_state, **options)
            assert_same(got, want)


# ------------------------------------------------------------------------------ norms


@pytest.mark.filterwarnings("ignore:dropout is 0.4 without effect")
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("walk", [{"lengths": [6, 0, 3, 5]}, {"mask": MASK}], ids=list)
@each_shape
@each_name
@each_backend
@pytest.mark.quick
def test_gradient_norms(backend, kind, shape, walk, dropped):
    there = walk.get("mask", np.arange(T)[:, None] < [6, 0, 3, 5])
    layer = make(kind, shape, batch_first=True, dropout=0.4 if dropped else 0.0)
    n = directions(layer)
    x, d_output = draw(layer, T, B, D, seed=1), draw(layer, T, B, n * units(layer), seed=2)
    d_state = draw_state(layer, B, seed=4)
    with fastrnn.backend(backend):
        own = {name: np.transpose(value) for name, value in walk.items()}
        _, _, tape = layer.forward(np.ascontiguousarray(x.swapaxes(0, 1)), **own, rng=3)
        _, tapes = compose(
            layer, x, None, d_output, d_state, **walk, dropped=tape.dropped, scale=tape.scale
        )
        got = fastrnn.gradient_norms(
            tape, np.ascontiguousarray(d_output.swapaxes(0, 1)), *as_tuple(d_state)
        )
        d, backward = d_output, functions(layer)[1]
        for k in reversed(range(layer.num_layers)):
            d_x = []
            for j, part in enumerate(np.split(d, n, axis=2)):
                i = n * k + j
                given = part, *(s[i] for s in as_tuple(d_state))
                assert np.array_equal(got[i], fastrnn.gradient_norms(tapes[i], *given))
                d_x.append(backward(tapes[i], *given).x)
            d = sum(d_x[1:], start=d_x[0])
            if k > 0 and tape.dropped:
                d = np.where(tape.dropped[k - 1], 0, d * tape.scale)
    assert got.shape == (n * layer.num_layers, T, B)
    assert got.dtype == np.float64
    assert not got[:, ~there].any()


def test_gradient_norms_of_one_sequence():
    layer = make("lstm-projection", "three-both")
    x = draw(layer, T, D, seed=1)
    output, (h, c), tape = layer.forward(x)
    norms = fastrnn.gradient_norms(tape, output, None, c)
    assert norms.shape == (6, T)
    _, _, batched = layer.forward(x[:, None])
    assert np.array_equal(
        norms, fastrnn.gradient_norms(batched, output[:, None], None, c[:, None])[:, :, 0]
    )
    # Nothing but the loss itself has reached the last step of the last layer.
    gru = make("gru", "three-both")
    _, h, tape = gru.forward(x)
    norms = fastrnn.gradient_norms(tape, None, h)
    ends = [norms[4, -1], norms[5, 0]]
    np.testing.assert_allclose(ends, np.linalg.norm(h[4:], axis=1), rtol=1e-14)


@each_name
@pytest.mark.parametrize("batch", [1, 2, 5, 12])
def test_two_directions_side_by_side(kind, batch):
    """Few rows of both directions at the same time, or one direction after the other: same bits."""
    layer = make(kind, "three-both", dtype="float32")
    x, d_output = (
        draw(layer, 40, batch, D, seed=1),
        draw(layer, 40, batch, 2 * units(layer), seed=2),
    )
    state, d_state = draw_state(layer, batch, seed=3), draw_state(layer, batch, seed=5)
    found = []
    for threads in (1, 2, 4):
        fastrnn.set_num_threads(threads)
        before = _core.teams_run()
        output, final, tape = layer.forward(x, state)
        grads = layer.backward(tape, d_output, d_state)
        assert (_core.teams_run() > before) == (
            threads > 1 and fastrnn.show_config(mode="dicts")["build"]["openmp"]
        )
        arrays = [output, *as_tuple(final), grads.x, *as_tuple(grads.state), grads.flat_weights]
        found.append([a.view(np.uint32) for a in arrays])
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            assert np.array_equal(a, b)
