"""The reference is right: what holds for every cell; and the Elman cell, against hand arithmetic,
a literal loop, and finite differences.

Nothing compiled is involved; other tests compare the compiled code with this.
"""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
from grids import grid
from marks import each_variant
from reference_cells import (
    LENGTHS,
    RESTART,
    TOLERANCE,
    WALKS,
    all_walks,
    check_gradients,
    differences,
    there,
    upstream,
)
from registry import VARIANTS

from fastrnn import reference
from fastrnn.reference.rnn import RNNTape
from fastrnn.reference.sequences import sigmoid

# Other row counts make NumPy's matrix product sum in another order, and sums over time are taken
# in another order: n <= 15 terms below 10 err by at most n u 150 = 3e-13 in either.
CLOSE = {"rtol": 0, "atol": 1e-12}


# ------------------------------------------------------------------------------ the Elman cell


DEFINITIONS: dict[str, Callable[[float], float]] = {
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0.0),
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "identity": lambda z: z,
    "hard_sigmoid": lambda z: min(max(z / 6 + 0.5, 0.0), 1.0),
}


def literal(x, h_0, w_ih, w_hh, b_ih, b_hh, nonlinearity, lengths, mask, restart, reverse):
    """The definition once more, in Python floats: a row, a step, a unit, a term at a time."""
    T, B, D = x.shape
    H = len(w_hh)
    output, h_n = np.zeros((T, B, H)), np.zeros((B, H))
    for b in range(B):
        length = T if lengths is None else lengths[b]
        h = [0.0 if h_0 is None else float(h_0[b, i]) for i in range(H)]
        steps = [t for t in range(length) if mask is None or mask[t, b]]
        for t in reversed(steps) if reverse else steps:
            if restart is not None and restart[t, b]:
                h = [0.0] * H
            new = []
            for i in range(H):
                z = 0.0 if b_ih is None else float(b_ih[i])
                z += 0.0 if b_hh is None else float(b_hh[i])
                for d in range(D):
                    z += float(w_ih[i, d]) * float(x[t, b, d])
                for j in range(H):
                    z += float(w_hh[i, j]) * h[j]
                new.append(DEFINITIONS[nonlinearity](z))
            h = new
            output[t, b] = h
        h_n[b] = h
    return output, h_n


@all_walks
@pytest.mark.parametrize("nonlinearity", DEFINITIONS)
@pytest.mark.parametrize("absent", [(), ("h_0",), ("b_ih",), ("b_hh",), ("h_0", "b_ih", "b_hh")])
def test_forward_is_the_definition(problem, walk, nonlinearity, absent):
    arrays = problem() | dict.fromkeys(absent)
    output, h_n, tape = reference.rnn_forward(**arrays, nonlinearity=nonlinearity, **walk)
    expected, expected_h_n = literal(**arrays, nonlinearity=nonlinearity, **walk)
    # Sums of 12 terms of order one in another order: a few hundred roundings of 1e-16 at most.
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(h_n, expected_h_n, rtol=0, atol=1e-13)
    assert isinstance(tape, RNNTape)


def test_forward_and_backward_by_hand():
    # One unit, relu, w_ih = 2, w_hh = 3, bias 1 + 1, h_0 = 1, x = 1, -9, 1:
    # z = 2 + 2 + 3 = 7; 2 - 18 + 21 = 5; 2 + 2 + 15 = 19.
    def a(*values):
        return np.array(values, np.float64)

    x, h_0 = a(1, -9, 1).reshape(3, 1, 1), a(1).reshape(1, 1)
    w_ih, w_hh = a(2).reshape(1, 1), a(3).reshape(1, 1)
    output, h_n, tape = reference.rnn_forward(x, h_0, w_ih, w_hh, a(1), a(1), nonlinearity="relu")
    assert output.ravel().tolist() == [7, 5, 19]
    assert h_n.tolist() == [[19]]
    # L = h_3: dz_3 = 1, dz_2 = 3, dz_1 = 9.
    grads = reference.rnn_backward(tape, d_h_n=np.ones((1, 1)))
    assert grads.x.ravel().tolist() == [18, 6, 2]
    assert grads.h_0.tolist() == [[27]]
    assert grads.w_ih.tolist() == [[9 * 1 + 3 * -9 + 1 * 1]]
    assert grads.w_hh.tolist() == [[9 * 1 + 3 * 7 + 1 * 5]]
    assert grads.b_ih.tolist() == grads.b_hh.tolist() == [13]
    norms = reference.gradient_norms(tape, d_h_n=-np.ones((1, 1)))
    assert norms.ravel().tolist() == [9, 3, 1]
    # The same with d_output at the middle step only, where the row then restarts: dz_2 = 1.
    restart = np.array([[False], [True], [False]])
    _, _, tape = reference.rnn_forward(
        np.abs(x), h_0, w_ih, w_hh, nonlinearity="relu", restart=restart
    )
    grads = reference.rnn_backward(tape, d_output=a(0, 1, 0).reshape(3, 1, 1))
    assert grads.x.ravel().tolist() == [0, 2, 0]
    assert grads.h_0.tolist() == [[0]]
    assert grads.w_ih.tolist() == [[9]]
    assert grads.w_hh.tolist() == [[0]]


def test_tanh_by_hand():
    half = np.full((1, 1), 0.5)
    output, h_n, tape = reference.rnn_forward(half[None], half, half, half)
    h = math.tanh(0.5)
    assert output.item() == h_n.item() == pytest.approx(h, rel=1e-15)
    grads = reference.rnn_backward(tape, d_output=np.ones((1, 1, 1)))
    assert grads.w_ih.item() == pytest.approx(0.5 * (1 - h * h), rel=1e-15)


# ------------------------------------------------------------------------------ every cell


@grid(
    "walk, variant, absent",
    WALKS,
    VARIANTS.values(),
    [(), ("b_hh",), ("b_ih",), ("h_0", "c_0", "b_ih", "b_hh")],
    once=True,
)
def test_gradients_are_finite_differences(variant, walk, absent):
    arrays = variant.arrays()
    check_gradients(variant, arrays | {name: None for name in absent if name in arrays}, walk)


# ------------------------------------------------------------------------------ sigmoid


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_accurate_relative_to_its_own_value(dtype):
    # Down to where the result is the smallest normal number, and up to where it is 1.
    z = np.linspace(math.log(np.finfo(dtype).tiny) * 0.999, 40, 2001).astype(dtype)
    with np.errstate(all="raise"):
        got = sigmoid(z)
    assert got.dtype == dtype
    with localcontext(prec=40):
        exact = [1 / (1 + (-Decimal(float(value))).exp()) for value in z]
        errors = [abs(Decimal(float(s)) / e - 1) for s, e in zip(got, exact, strict=True)]
    # exp is good to 4 ULP in NumPy; then a sum and a quotient are rounded: 5 eps.
    assert max(errors) < 5 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_at_the_ends(dtype):
    z = np.array([0.0, -0.0, 1e4, -1e4, np.inf, -np.inf, np.nan], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        got = sigmoid(z)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, [0.5, 0.5, 1, 0, 1, 0, np.nan])


# ------------------------------------------------------------------------------ rows and steps


@each_variant
@pytest.mark.parametrize("reverse", [False, True])
def test_unbatched(variant, reverse):
    arrays = variant.arrays(B=1)
    restart = np.array([[False], [False], [True], [False], [True]])
    options = {"reverse": reverse, "lengths": [4]}
    output, states, tape = variant.forward(**arrays, **options, restart=restart)
    up = upstream(output, states)
    grads = variant.backward(tape, up.output, up.states)
    one = arrays | {"x": arrays["x"][:, 0]}
    one |= {name: arrays[name][0] for name in ("h_0", "c_0") if name in arrays}
    options["lengths"] = 4
    output_1, states_1, tape_1 = variant.forward(**one, **options, restart=restart[:, 0])
    d_output, d_states = up.output[:, 0], [d[0] for d in up.states]
    grads_1 = variant.backward(tape_1, d_output, d_states)
    assert np.array_equal(output_1, output[:, 0])
    assert all(np.array_equal(a, b[0]) for a, b in zip(states_1, states, strict=True))
    for name, expected in grads._asdict().items():
        if name == "x":
            expected = expected[:, 0]
        elif name in ("h_0", "c_0"):
            expected = expected[0]
        assert np.array_equal(getattr(grads_1, name), expected), name
    norms = reference.gradient_norms(tape_1, d_output, *d_states)
    assert np.array_equal(norms, reference.gradient_norms(tape, up.output, *up.states)[:, 0])


@each_variant
@all_walks
def test_a_ragged_batch_is_its_rows_alone(variant, walk):
    arrays = variant.arrays()
    output, states, tape = variant.forward(**arrays, **walk)
    up = upstream(output, states)
    grads = variant.backward(tape, up.output, up.states)
    sums = {name: 0.0 for name in arrays if name not in ("x", "h_0", "c_0")}
    initial = [f"{state}_0" for state in variant.cell.states]
    for b, on in enumerate(there(walk).T):
        row = arrays | {"x": arrays["x"][on, b]} | {k: arrays[k][b] for k in initial}
        restart = None if walk["restart"] is None else walk["restart"][on, b]
        alone = {"restart": restart, "reverse": walk["reverse"]}
        output_b, states_b, tape_b = variant.forward(**row, **alone)
        grads_b = variant.backward(tape_b, up.output[on, b], [d[b] for d in up.states])
        np.testing.assert_allclose(output[on, b], output_b, **CLOSE)
        assert not output[~on, b].any()
        for state, state_b in zip(states, states_b, strict=True):
            np.testing.assert_allclose(state[b], state_b, **CLOSE)
        np.testing.assert_allclose(grads.x[on, b], grads_b.x, **CLOSE)
        assert not grads.x[~on, b].any()
        for name in initial:
            np.testing.assert_allclose(getattr(grads, name)[b], getattr(grads_b, name), **CLOSE)
        for name in sums:
            sums[name] = sums[name] + getattr(grads_b, name)
    for name, total in sums.items():
        np.testing.assert_allclose(getattr(grads, name), total, **CLOSE, err_msg=name)


@each_variant
def test_a_row_without_steps(variant):
    arrays = variant.arrays()
    _, states, tape = variant.forward(**arrays, lengths=LENGTHS)
    d_states = [np.cos(state) for state in states]
    grads = variant.backward(tape, None, d_states)
    for state, d_state, name in zip(states, d_states, variant.cell.states, strict=True):
        assert np.array_equal(state[1], arrays[f"{name}_0"][1])
        assert np.array_equal(getattr(grads, f"{name}_0")[1], d_state[1])


@each_variant
@all_walks
def test_padding_is_never_looked_at(variant, walk):
    arrays = variant.arrays()
    walk = walk | {"lengths": LENGTHS}
    padded = ~there(walk)
    results = []
    for nothing in (0.0, np.nan):
        arrays["x"][padded] = nothing
        output, states, tape = variant.forward(**arrays, **walk)
        up = upstream(output, states)
        up.output[padded] = nothing
        grads = variant.backward(tape, up.output, up.states)
        norms = reference.gradient_norms(tape, up.output, *up.states)
        kept = [getattr(tape, name, None) for name in ("c", "gates")]
        kept = [a for a in kept if a is not None]
        results.append([output, *states, *kept, norms, *(g for g in grads if g is not None)])
        for a in (output, *kept, norms, grads.x):
            assert not a[padded].any()
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


@each_variant
@pytest.mark.parametrize("reverse", [False, True])
def test_a_restart_is_a_cut(variant, reverse):
    arrays = variant.arrays()
    restart = np.zeros((5, 3), bool)
    restart[2] = True
    output, states, tape = variant.forward(**arrays, reverse=reverse, restart=restart)
    up = upstream(output, states)
    grads = variant.backward(tape, up.output, up.states)
    initial = [f"{state}_0" for state in variant.cell.states]
    # In order of processing: with the initial state up to the restart, then from zeros.
    first, second = (slice(3, 5), slice(0, 3)) if reverse else (slice(0, 2), slice(2, 5))
    before = arrays | {"x": arrays["x"][first]}
    output_1, _, tape_1 = variant.forward(**before, reverse=reverse)
    grads_1 = variant.backward(tape_1, up.output[first])
    after = arrays | {"x": arrays["x"][second]} | dict.fromkeys(initial)
    output_2, states_2, tape_2 = variant.forward(**after, reverse=reverse)
    grads_2 = variant.backward(tape_2, up.output[second], up.states)

    np.testing.assert_allclose(output[first], output_1, **CLOSE)
    np.testing.assert_allclose(output[second], output_2, **CLOSE)
    for state, state_2 in zip(states, states_2, strict=True):
        np.testing.assert_allclose(state, state_2, **CLOSE)
    np.testing.assert_allclose(grads.x[first], grads_1.x, **CLOSE)
    np.testing.assert_allclose(grads.x[second], grads_2.x, **CLOSE)
    for name in arrays.keys() - {"x"}:
        expected = getattr(grads_1, name)
        if name not in initial:
            expected = expected + getattr(grads_2, name)
        np.testing.assert_allclose(getattr(grads, name), expected, **CLOSE, err_msg=name)


@each_variant
def test_a_restart_at_the_first_step_drops_the_initial_state(variant):
    arrays = variant.arrays()
    restart = np.zeros((5, 3), bool)
    restart[0, 1] = True
    output, _, tape = variant.forward(**arrays, restart=restart)
    grads = variant.backward(tape, np.ones_like(output))
    for state in variant.cell.states:
        assert not getattr(grads, f"{state}_0")[1].any()
        assert getattr(grads, f"{state}_0")[0].any()
        arrays[f"{state}_0"][1] = np.nan
    output_2, _, tape_2 = variant.forward(**arrays, restart=restart)
    assert np.array_equal(output, output_2)
    grads_2 = variant.backward(tape_2, np.ones_like(output))
    assert all(np.array_equal(a, b) for a, b in zip(grads, grads_2, strict=True) if a is not None)


@each_variant
def test_reverse_is_flipping(variant):
    arrays = variant.arrays()
    flipped = arrays | {"x": arrays["x"][::-1]}
    output, states, tape = variant.forward(**arrays, reverse=True)
    output_f, states_f, tape_f = variant.forward(**flipped)
    assert np.array_equal(output, output_f[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(states, states_f, strict=True))
    up = upstream(output, states)
    grads = variant.backward(tape, up.output, up.states)
    grads_f = variant.backward(tape_f, up.output[::-1], up.states)
    assert np.array_equal(grads.x, grads_f.x[::-1])
    assert np.array_equal(grads.h_0, grads_f.h_0)
    for name in arrays.keys() - {"x"}:
        np.testing.assert_allclose(
            getattr(grads, name), getattr(grads_f, name), **CLOSE, err_msg=name
        )
    norms_f = reference.gradient_norms(tape_f, up.output[::-1], *up.states)
    assert np.array_equal(reference.gradient_norms(tape, up.output, *up.states), norms_f[::-1])


@each_variant
def test_nan_and_infinity_pass_in_their_own_row(variant):
    arrays = variant.arrays()
    arrays["x"][2, 1, 0] = np.nan
    arrays["x"][2, 2, 0] = np.inf
    output, states, _ = variant.forward(**arrays)
    assert np.isnan(output[2:, 1]).all()
    assert all(np.isnan(state[1]).all() for state in states)
    assert np.isfinite(output[:2]).all()
    assert np.isfinite(output[:, 0]).all()


@each_variant
@pytest.mark.parametrize("sizes", [(0, 3, 2, 3), (5, 0, 2, 3), (5, 3, 0, 3), (0, 0, 0, 2)])
def test_sizes_of_zero(variant, sizes):
    arrays = variant.arrays(*sizes)
    output, states, tape = variant.forward(**arrays)
    T, B, _, _ = sizes
    assert output.shape == (T, B, arrays["w_hh"].shape[1])
    for state, name in zip(states, variant.cell.states, strict=True):
        assert state.shape == arrays[f"{name}_0"].shape
        assert T > 0 or np.array_equal(state, arrays[f"{name}_0"])
    grads = variant.backward(tape, np.ones_like(output), [np.ones_like(s) for s in states])
    for name, array in arrays.items():
        assert getattr(grads, name).shape == array.shape
        assert np.isfinite(getattr(grads, name)).all()
        if T * B == 0 and name.startswith(("w_", "b_")):
            assert not getattr(grads, name).any()
    if T == 0:
        for name in variant.cell.states:
            assert (getattr(grads, f"{name}_0") == 1).all()
    assert reference.gradient_norms(tape, np.ones_like(output)).shape == (T, B)


@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if "projection" not in v.extras])
def test_no_units(name):
    variant = VARIANTS[name]
    arrays = variant.arrays(H=0)
    output, states, tape = variant.forward(**arrays)
    assert output.shape == (5, 3, 0)
    grads = variant.backward(tape, output, states)
    assert all(getattr(grads, k).shape == a.shape for k, a in arrays.items())
    assert not grads.x.any()


@each_variant
def test_float32_stays_float32(variant):
    arrays = variant.arrays(dtype=np.float32)
    output, states, tape = variant.forward(**arrays, lengths=LENGTHS, restart=RESTART)
    up = upstream(output, states)
    grads = variant.backward(tape, up.output, up.states)
    results = [output, *states, *(g for g in grads if g is not None)]
    results += [getattr(tape, name, None) for name in ("c", "gates")]
    assert {a.dtype for a in results if a is not None} == {np.dtype(np.float32)}
    assert reference.gradient_norms(tape, up.output).dtype == np.float64


@each_variant
@pytest.mark.parametrize("order", "<>")
def test_any_layout_of_the_arguments(variant, order):
    arrays = variant.arrays()
    output, states, tape = variant.forward(**arrays)
    up = upstream(output, states)
    grads = variant.backward(tape, up.output, up.states)

    def spread(a):  # every other element of a larger array, its bytes in either order
        every_other = tuple(slice(None, None, 2) for _ in a.shape)
        wide = np.full(tuple(2 * n for n in a.shape), np.nan, np.dtype(a.dtype).newbyteorder(order))
        wide[every_other] = a
        return wide[every_other]

    output_2, states_2, tape_2 = variant.forward(**{k: spread(a) for k, a in arrays.items()})
    grads_2 = variant.backward(tape_2, spread(up.output), [spread(d) for d in up.states])
    pairs = zip((output, *states, *grads), (output_2, *states_2, *grads_2), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs if a is not None)
    for name in arrays:
        a = getattr(tape_2, name)
        assert a.flags.carray, name
        assert a.dtype.isnative, name


# ------------------------------------------------------------------------------ gradient_norms


def run_piece(variant, arrays, walk, part, state):
    """The steps of a slice alone, from another initial state or, with {}, the arrays' own."""
    lengths = np.array(walk["lengths"] or [5, 5, 5])
    return variant.forward(
        **(arrays | {"x": arrays["x"][part]} | state),
        lengths=np.clip(lengths - part.start, 0, part.stop - part.start),
        mask=None if walk["mask"] is None else walk["mask"][part],
        restart=None if walk["restart"] is None else walk["restart"][part],
        reverse=walk["reverse"],
    )


@each_variant
@all_walks
@pytest.mark.parametrize("t", range(5))
def test_gradient_norms_are_those_of_the_state_carried_on(variant, walk, t):
    arrays = variant.arrays()
    output, states, tape = variant.forward(**arrays, **walk)
    up = upstream(output, states)
    norms = reference.gradient_norms(tape, up.output, *up.states)
    assert norms.dtype == np.float64
    assert norms.shape == (5, 3)
    # The sequence is cut after step t. What is left of the loss is a function of the state there,
    # of which h, or f of it, is also the output at t.
    if walk["reverse"]:
        done, rest = slice(t, 5), slice(0, t)
    else:
        done, rest = slice(0, t + 1), slice(t + 1, 5)
    _, reached, _ = run_piece(variant, arrays, walk, done, {})
    state = {f"{name}_0": a for name, a in zip(variant.cell.states, reached, strict=True)}

    def loss():
        output, states, _ = run_piece(variant, arrays, walk, rest, state)
        here = (up.output[t] * variant.output_of(state["h_0"])).sum()
        return here + up._replace(output=up.output[rest]).loss(output, states)

    squares = sum(np.square(differences(loss, a)).sum(axis=1) for a in reached)
    live = there(walk)[t]
    # A norm errs by no more than the root of the sum of squared errors, of 6 elements at most.
    expected = np.where(live, np.sqrt(squares), 0.0)
    np.testing.assert_allclose(norms[t], expected, rtol=0, atol=math.sqrt(6) * TOLERANCE)
    assert not norms[t, ~live].any()


@each_variant
def test_gradient_norms_at_the_ends(variant):
    arrays = variant.arrays()
    _, states, tape = variant.forward(**arrays)
    up = upstream(np.zeros(0), states)
    norms = reference.gradient_norms(tape, None, *up.states)
    # After the last step, the state's gradient is what was given.
    given = np.concatenate(up.states, axis=1)
    np.testing.assert_allclose(norms[-1], np.linalg.norm(given, axis=1), rtol=1e-14)
    # After the first, it is the gradient of the state that the other steps start from.
    walk = {"lengths": None, "mask": None, "restart": None, "reverse": False}
    _, reached, _ = run_piece(variant, arrays, walk, slice(0, 1), {})
    initial = [f"{name}_0" for name in variant.cell.states]
    state = dict(zip(initial, reached, strict=True))
    _, _, tape = run_piece(variant, arrays, walk, slice(1, 5), state)
    grads = variant.backward(tape, None, up.states)
    arrived = np.concatenate([getattr(grads, name) for name in initial], axis=1)
    np.testing.assert_allclose(norms[0], np.linalg.norm(arrived, axis=1), rtol=1e-12)


def test_gradient_norms_refuses():
    _, _, tape = VARIANTS["gru"].forward(**VARIANTS["gru"].arrays())
    d = np.zeros((3, 3))
    with pytest.raises(ValueError, match="d_output and d_h_n are None"):
        reference.gradient_norms(tape)
    with pytest.raises(ValueError, match="d_c_n is given, but gru_forward has no state c"):
        reference.gradient_norms(tape, d_h_n=d, d_c_n=d)
    with pytest.raises(TypeError, match="rnn_forward or lstm_forward or gru_forward"):
        reference.gradient_norms(3, d_h_n=d)
    with pytest.raises(TypeError, match=r"tape is None \(was it made with record=False"):
        reference.gradient_norms(None, d_h_n=d)
