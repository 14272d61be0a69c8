"""Dropout between layers, and what a layer's tape keeps."""

import copy
import pickle
import threading

import numpy as np
import pytest
from marks import each_last, each_name
from registry import GATED, VARIANTS
from stacked_layers import (
    MASK,
    OPTIONS,
    B,
    D,
    H,
    T,
    as_tuple,
    assert_same,
    compose,
    directions,
    draw,
    dropout_problem,
    each_backend,
    is_pair,
    make,
    run,
    units,
)

import fastrnn

# Small calls, under which threads are not under test.
pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------ dropout


@each_name
@each_backend
@pytest.mark.parametrize("shape", ["two", "three-both"])
def test_dropout_is_between_the_layers(backend, kind, shape):
    layer, x, state, d_output, d_state = dropout_problem(kind, shape)
    with fastrnn.backend(backend):
        got, _, tape = run(layer, x, state, d_output, d_state, rng=3)
        assert len(tape.dropped) == layer.num_layers - 1
        assert all(a.shape == (T, B, d_output.shape[2]) for a in tape.dropped)
        assert tape.scale == 1 / (1 - 0.4)
        want, _ = compose(
            layer, x, state, d_output, d_state, dropped=tape.dropped, scale=tape.scale
        )
    assert_same(got, want)


@each_last
def test_dropout_is_seeded(kind):
    layer, x, state, d_output, d_state = dropout_problem(kind)
    first, _, tape = run(layer, x, state, d_output, d_state, rng=3)
    again, _, _ = run(layer, x, state, d_output, d_state, rng=np.random.default_rng(3))
    assert_same(again, first)
    other, _, _ = run(layer, x, state, d_output, d_state, rng=4)
    assert not np.array_equal(other["output"], first["output"])
    assert not np.array_equal(tape.dropped[0], tape.dropped[1])
    generator = np.random.default_rng(3)
    run(layer, x, state, d_output, d_state, rng=generator)
    advanced, _, _ = run(layer, x, state, d_output, d_state, rng=generator)
    assert not np.array_equal(advanced["output"], first["output"])
    # One seed drops the same in both types, with either order of axes, and on both backends.
    single = make(kind, "three-both", dropout=0.4, dtype="float32")
    turned = make(kind, "three-both", dropout=0.4, batch_first=True)
    tapes = [
        single.forward(x.astype("f4"), rng=3)[2],
        turned.forward(np.ascontiguousarray(x.swapaxes(0, 1)), rng=3)[2],
    ]
    with fastrnn.backend("reference"):
        tapes.append(layer.forward(x, rng=3)[2])
    for other_tape in tapes:
        assert all(map(np.array_equal, other_tape.dropped, tape.dropped))


def test_how_much_is_dropped():
    layer = fastrnn.RNN(1, 50, num_layers=2, dropout=0.3, rng=0)
    _, _, tape = layer.forward(np.ones((40, 20, 1), np.float32), rng=0)
    # Of n = 40000 elements a share p; its standard deviation is sqrt(p (1 - p) / n).
    assert abs(tape.dropped[0].mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 40_000)
    kept = tape.tapes[1].x[~tape.dropped[0]]
    assert not tape.tapes[1].x[tape.dropped[0]].any()
    np.testing.assert_array_equal(
        kept, tape.tapes[0].output[~tape.dropped[0]] * np.float32(1 / 0.7)
    )


@each_name
def test_inference_has_no_dropout(kind):
    layer, x, state, d_output, d_state = dropout_problem(kind)
    plain = make(kind, "three-both")
    want, _, _ = run(plain, x, state, d_output, d_state)
    got, _, tape = run(layer, x, state, d_output, d_state, training=False)
    assert_same(got, want)
    assert tape.dropped == ()
    assert np.array_equal(layer(x, state)[0], want["output"])
    run(layer, x, state, d_output, d_state, training=False, rng=3)  # allowed, and without effect


def test_one_layer_has_nothing_to_drop():
    with pytest.warns(UserWarning, match="dropout is 0.5 without effect"):
        layer = make("lstm", "both", dropout=0.5)
    x = draw(layer, T, B, D, seed=1)
    output, _, tape = layer.forward(x)
    assert np.array_equal(output, make("lstm", "both")(x)[0])
    assert tape.dropped == ()


@each_name
@pytest.mark.parametrize("options", ["plain", "both"])
def test_gradients_with_dropout_by_finite_differences(kind, options):
    """The gradient uses the same mask: along a random direction it is the loss's slope.

    A central difference errs by e²/6 times the third derivative, and by the loss's roundings over
    e: with e = 1e-5 and values of order one, about 1e-10 each. A wrong mask is an error of order
    one.
    """
    layer, x, state, d_output, d_state = dropout_problem(kind)
    own = OPTIONS[options]
    got, _, _ = run(layer, x, state, d_output, d_state, rng=3, **own)
    rng = np.random.default_rng(8)
    weights = layer.flat_weights.copy()
    states = as_tuple(state)
    steps = [rng.standard_normal(a.shape) for a in (x, weights, *states)]

    def loss(e):
        layer.flat_weights[...] = weights + e * steps[1]
        moved = tuple(a + e * s for a, s in zip(states, steps[2:], strict=True))
        output, final, _ = layer.forward(
            x + e * steps[0], moved if is_pair(layer) else moved[0], rng=3, **own
        )
        parts = zip(as_tuple(final), as_tuple(d_state), strict=True)
        return (output * d_output).sum() + sum((a * d).sum() for a, d in parts)

    e = 1e-5
    slope = (loss(e) - loss(-e)) / (2 * e)
    flat = np.concatenate([got[name].ravel() for name in layer.weights])
    initial = [got[name] for name in ("h_0", "c_0") if name in got]
    along = sum((g * s).sum() for g, s in zip((got["x"], flat, *initial), steps, strict=True))
    scale = sum(np.abs(g * s).sum() for g, s in zip((got["x"], flat), steps[:2], strict=True))
    assert abs(slope - along) < 1e-7 * scale


def test_what_is_dropped_may_be_infinite():
    layer = make("relu", "two", dropout=0.5)
    layer.flat_weights[...] = 1
    x = np.full((T, B, D), 1e308)
    with np.errstate(all="raise"):
        output, state, tape = layer.forward(x, rng=0)
        grads = layer.backward(tape, np.full_like(output, 1e308))
    assert np.isinf(tape.tapes[0].output).all()
    assert not tape.tapes[1].x[tape.dropped[0]].any()
    assert not np.isnan(tape.tapes[1].x).any()
    assert not np.isnan(state).any()
    assert np.isinf(grads.x).any()


# ------------------------------------------------------------------------------ the tape


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", ["one", "three-both"])
@pytest.mark.parametrize("kind", GATED)
@pytest.mark.parametrize(
    "walk", [{"lengths": [6, 0, 3, 5]}, {"mask": MASK | np.eye(1, B, dtype=bool)}], ids=list
)
@each_backend
def test_keep(backend, walk, kind, shape, batch_first):
    layer = make(kind, shape, batch_first=batch_first)
    x = draw(layer, T, B, D, seed=1)
    turn = (1, 0, 2) if batch_first else (0, 1, 2)
    kept = {"gates": VARIANTS[kind].cell.gates * H} | ({"c": H} if "c" in layer._kept else {})
    with fastrnn.backend(backend):
        own = {k: np.transpose(v) if batch_first else v for k, v in walk.items()}
        _, _, tape = layer.forward(x.transpose(turn), **own, keep=kept)
        _, tapes = compose(layer, x, None, np.zeros((T, B, 1)).repeat(
            directions(layer) * units(layer), axis=2), None, **walk
        )  # fmt: skip
        _, _, alone = layer.forward(x[:, 0], keep=kept)
    for name, n in kept.items():
        arrays = getattr(tape, name)
        assert len(arrays) == len(tapes)
        for a, cell_tape in zip(arrays, tapes, strict=True):
            assert a.shape == ((B, T, n) if batch_first else (T, B, n))
            assert np.array_equal(a.transpose(turn), getattr(cell_tape, name)[:, :, :n])
        for a, b in zip(getattr(alone, name), arrays, strict=True):
            assert a.shape == (T, n)
            if backend == "compiled":  # whose bits do not depend on the rest of the batch
                assert np.array_equal(a, b.transpose(turn)[:, 0])


def test_gates_are_what_they_say():
    """The last step's state follows from what was kept of it."""
    lstm = make("lstm", "two")
    gru = make("gru", "two")
    x = draw(lstm, T, B, D, seed=1)
    output, (_, c_n), tape = lstm.forward(x, keep=("c", "gates"))
    i, f, g, o = np.split(tape.gates[1], 4, axis=2)
    np.testing.assert_array_equal(tape.c[1][-1], c_n[1])
    # Both sides round each operation once: a few units in the last place of values below one.
    close = {"rtol": 0, "atol": 8 * np.finfo(float).eps}
    np.testing.assert_allclose(f[1:] * tape.c[1][:-1] + i[1:] * g[1:], tape.c[1][1:], **close)
    np.testing.assert_allclose(o * np.tanh(tape.c[1]), output, **close)
    output, _, tape = gru.forward(x, keep=["gates"])
    _, z, n = np.split(tape.gates[1], 3, axis=2)
    np.testing.assert_allclose(n[1:] + z[1:] * (output[:-1] - n[1:]), output[1:], **close)


def test_what_was_not_kept():
    x = np.zeros((T, B, D))
    _, _, tape = make("lstm").forward(x, keep=["gates"])
    assert hasattr(tape, "gates")
    with pytest.raises(AttributeError, match=r"c was not kept: pass keep=\('c',\) to forward"):
        _ = tape.c
    _, _, tape = make("gru").forward(x)
    with pytest.raises(AttributeError, match=r"gates was not kept: pass keep=\('gates',\)"):
        _ = tape.gates
    with pytest.raises(AttributeError, match="no c: GRU has none to keep"):
        _ = tape.c
    _, _, tape = make("tanh").forward(x)
    for name in ("c", "gates"):
        with pytest.raises(AttributeError, match=f"no {name}: RNN has none to keep"):
            getattr(tape, name)


@each_name
def test_a_tape_can_be_copied(kind):
    layer, x, state, d_output, d_state = dropout_problem(kind)
    want, _, tape = run(layer, x, state, d_output, d_state, rng=3)
    before = pickle.dumps(tape)
    for copied in (tape, copy.deepcopy(tape), pickle.loads(before), copy.copy(tape)):
        for own in (layer, copy.deepcopy(layer)):
            grads = own.backward(copied, d_output, d_state)
            assert np.array_equal(grads.x, want["x"])
            assert all(np.array_equal(grads.weights[n], want[n]) for n in layer.weights)
    assert pickle.dumps(tape) == before  # backward changes nothing


@each_name
def test_either_backend_takes_the_tape_of_the_other(kind):
    layer, x, state, d_output, d_state = dropout_problem(kind, batch_first=True)
    x, d_output = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, d_output))
    with fastrnn.backend("reference"):
        _, _, tape = layer.forward(x, state, rng=3)
        want = layer.backward(tape, d_output, d_state)
    _, _, compiled_tape = layer.forward(x, state, rng=3)
    with fastrnn.backend("reference"):
        crossed = layer.backward(compiled_tape, d_output, d_state)
    for grads in (layer.backward(tape, d_output, d_state), crossed):
        # Agreement to the bit is for other tests: this is about which element is where.
        np.testing.assert_allclose(grads.x, want.x, rtol=0, atol=1e-10)
        np.testing.assert_allclose(grads.flat_weights, want.flat_weights, rtol=0, atol=1e-10)


def test_one_layer_serves_many_threads():
    layer, x, state, d_output, d_state = dropout_problem("lstm-projection")
    want, _, shared = run(layer, x, state, d_output, d_state, rng=3)
    before = dict(vars(layer))
    failures = []

    def work():
        try:
            for _ in range(10):
                got, _, _ = run(layer, x, state, d_output, d_state, rng=3)
                assert_same(got, want)
                assert np.array_equal(layer.backward(shared, d_output, d_state).x, want["x"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert vars(layer) == before  # nothing about a forward is kept
