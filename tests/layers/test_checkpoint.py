"""`checkpoint` of a layer's forward: a short tape, and the same bits from it."""

import pickle

import numpy as np
import pytest
from marks import each_name
from registry import VARIANTS
from stacked_layers import as_tuple, draw, is_pair

import fastrnn

ISAS = fastrnn.available_isas()
D = 3
# T, B, H; weight gradients take 512 rows at a time, of many segments, of one, or of parts of two.
SIZES = ((0, 2, 5), (1, 1, 5), (7, 3, 9), (130, 5, 16), (30, 40, 33), (1100, 1, 7))
each_isa = pytest.mark.parametrize("isa", ISAS)


def make(kind, H=9, dtype="float32", **options):
    own = {"bias": kind != "lstm-peepholes", "dtype": dtype, "rng": 0}
    return VARIANTS[kind].layer(D, H, **own | options)


def arrays(gradients):
    state = gradients.state
    return [gradients.x, *(() if state is None else as_tuple(state)), gradients.flat_weights]


def assert_same_bits(ours, others):
    for a, b in zip(ours, others, strict=True):
        bits = f"u{a.itemsize}"
        assert np.array_equal(a.view(bits), b.view(bits))


def given(which, T, B):
    rng = np.random.default_rng(3)
    lengths, restart = rng.integers(0, T + 1, B), rng.random((T, B)) < 0.2
    mask = rng.random((T, B)) < 0.7
    return {
        "plain": {},
        "lengths": {"lengths": lengths},
        "both": {"lengths": lengths, "restart": restart},
        "mask": {"mask": mask, "restart": restart},
    }[which]


@each_isa
@each_name
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("which", ["plain", "lengths", "both", "mask"])
def test_same_bits(kind, dtype, isa, which):
    fastrnn.set_isa(isa)
    for (T, B, H), K in zip(SIZES, (3, 1, 2, 8, 7, 64), strict=True):
        layer = make(kind, H, dtype, bidirectional=which == "both")
        x, options = draw(layer, T, B, D, seed=1), given(which, T, B)
        start = draw_state_of(layer, B) if which != "plain" else None
        fastrnn.set_num_threads(1 + B % 3)
        output, state, tape = layer.forward(x, start, **options)
        d_output = draw(layer, *output.shape, seed=5)
        expected = layer.backward(tape, d_output, state)
        for every in (K, T + 1):
            short_output, short_state, short = layer.forward(x, start, checkpoint=every, **options)
            assert_same_bits([short_output, *as_tuple(short_state)], [output, *as_tuple(state)])
            for _ in range(2):  # a tape may be used twice
                found = layer.backward(short, d_output, state)
                assert_same_bits(arrays(found), arrays(expected))


def draw_state_of(layer, B):
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    h = draw(layer, rows, B, layer._units, seed=2)
    return (h, draw(layer, rows, B, layer.hidden_size, seed=3)) if is_pair(layer) else h


@each_name
def test_the_tape_is_short(kind):
    T, B, K = 100, 4, 10
    layer = make(kind, num_layers=2)
    _, _, tape = layer.forward(draw(layer, T, B, D, seed=1), checkpoint=K)
    for cell in tape.tapes:
        own = [a for name, a in cell._asdict().items() if name in ("c", "gates") and a is not None]
        kept = VARIANTS[kind].cell.kept
        assert [a.shape for a in own] == [((T - 1) // K, B, 9)] * cell._has_c
        assert ("checkpoint=10" in repr(cell)) == bool(kept)


@each_name
def test_on_the_way_down(kind):
    """Whoever takes a tape takes a short one: copies, norms, `wrt`, the reference."""
    layer = make(kind, 6, "float64", num_layers=2, bidirectional=True)
    x, options = draw(layer, 11, 3, D, seed=1), given("both", 11, 3)
    output, _, whole = layer.forward(x, **options)
    _, _, tape = layer.forward(x, checkpoint=4, **options)
    d_output = draw(layer, *output.shape, seed=5)
    expected = layer.backward(whole, d_output)

    copy = pickle.loads(pickle.dumps(tape))
    assert_same_bits(arrays(layer.backward(copy, d_output)), arrays(expected))
    norms = [fastrnn.gradient_norms(t, d_output) for t in (whole, tape)]
    assert_same_bits(norms[:1], norms[1:])
    part = layer.backward(tape, d_output, wrt=["weight_hh_l1"])
    assert_same_bits([part.weights["weight_hh_l1"]], [expected.weights["weight_hh_l1"]])
    with fastrnn.backend("reference"):
        by_reference = layer.backward(tape, d_output)
        _, _, its_own = layer.forward(x, checkpoint=4, **options)
    for a, b in zip(arrays(by_reference), arrays(expected), strict=True):
        # Both are float64 sums of a few hundred products of numbers below 10.
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
    found = layer.backward(its_own, d_output)
    np.testing.assert_allclose(found.flat_weights, expected.flat_weights, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("checkpoint", "error", "text"),
    [
        (0, ValueError, "checkpoint is 0"),
        (-3, ValueError, "checkpoint is -3"),
        (2.0, TypeError, "checkpoint is 2.0"),
        (True, TypeError, "checkpoint is True"),
        ("7", TypeError, "checkpoint is '7'"),
    ],
)
def test_bad_checkpoint(checkpoint, error, text):
    layer = make("lstm")
    with pytest.raises(error, match=text):
        layer.forward(draw(layer, 4, 2, D, seed=1), checkpoint=checkpoint)


def test_not_with_keep():
    layer = make("lstm")
    with pytest.raises(ValueError, match=r"keep is \('c',\) and checkpoint is 5"):
        layer.forward(draw(layer, 4, 2, D, seed=1), keep=("c",), checkpoint=5)


def test_a_forged_tape_is_refused():
    """The kernel believes a tape's sizes."""
    layer = make("lstm")
    x = draw(layer, 20, 2, D, seed=1)
    output, _, tape = layer.forward(x, checkpoint=5)
    cell = tape.tapes[0]
    for forged in (
        cell._replace(checkpoint=2), cell._replace(checkpoint=0), cell._replace(checkpoint=-5),
        cell._replace(checkpoint=5.0), cell._replace(gates=np.zeros((20, 2, 36), np.float32)),
        cell._replace(c=cell.c[:2]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="shape"):
            layer.backward(tape._replace(tapes=(forged,)), output)
