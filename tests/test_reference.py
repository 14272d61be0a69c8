"""The reference is right: against hand arithmetic, a literal loop, and finite differences.

Nothing compiled is involved; other tests compare the compiled code with this.
"""

import itertools
import math
import pickle

import numpy as np
import pytest

from fastrnn import reference
from fastrnn.functional import RNNTape

ARRAYS = ("x", "h_0", "w_ih", "w_hh", "b_ih", "b_hh")

# Rows that are empty, partial and whole; restarts at the first step, inside and in the padding.
LENGTHS = [5, 0, 3]
RESTART = np.zeros((5, 3), bool)
RESTART[0, 0] = RESTART[2, 0] = RESTART[2, 2] = RESTART[4, 2] = RESTART[1, 1] = True

OPTIONS = [
    {"nonlinearity": nonlinearity, "lengths": lengths, "restart": restart, "reverse": reverse}
    for nonlinearity, lengths, restart, reverse in itertools.product(
        ("tanh", "relu"), (None, LENGTHS), (None, RESTART), (False, True)
    )
]


def name_of(options):
    return "-".join(
        str(value) if key == "nonlinearity" else key
        for key, value in options.items()
        if value is not None and value is not False
    )


all_options = pytest.mark.parametrize("options", OPTIONS, ids=name_of)


def literal(x, h_0, w_ih, w_hh, b_ih, b_hh, nonlinearity, lengths, restart, reverse):
    """The definition once more, in Python floats: a row, a step, a unit, a term at a time."""
    T, B, D = x.shape
    H = len(w_hh)
    output, h_n = np.zeros((T, B, H)), np.zeros((B, H))
    for b in range(B):
        length = T if lengths is None else lengths[b]
        h = [0.0 if h_0 is None else float(h_0[b, i]) for i in range(H)]
        steps = range(length)
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
                new.append(math.tanh(z) if nonlinearity == "tanh" else max(z, 0.0))
            h = new
            output[t, b] = h
        h_n[b] = h
    return output, h_n


@all_options
@pytest.mark.parametrize("absent", [(), ("h_0",), ("b_ih",), ("b_hh",), ("h_0", "b_ih", "b_hh")])
def test_forward_is_the_definition(problem, options, absent):
    arrays = problem() | dict.fromkeys(absent)
    output, h_n, tape = reference.rnn_forward(**arrays, **options)
    expected, expected_h_n = literal(**arrays, **options)
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


def gradient_check(arrays, options):
    rng = np.random.default_rng(1)
    output, h_n, tape = reference.rnn_forward(**arrays, **options)
    d_output, d_h_n = rng.standard_normal(output.shape), rng.standard_normal(h_n.shape)
    on = output > 0
    grads = reference.rnn_backward(tape, d_output, d_h_n)

    def loss():
        output, h_n, _ = reference.rnn_forward(**arrays, **options, record=False)
        if options["nonlinearity"] == "relu":  # no unit may pass the kink
            assert np.array_equal(output > 0, on)
        return (d_output * output).sum() + (d_h_n * h_n).sum()

    # Central differences err by eps² L'''/6 + u |L|/eps, u = 1.1e-16. With eps = 1e-5, |L| and the
    # rounding of its terms below 100, and third derivatives below 1000 (some ten units, each with
    # |tanh'''| <= 2, through five steps): 2e-8 + 1e-9.
    eps, tolerance = 1e-5, 3e-8
    for name, array in arrays.items():
        if array is None:
            assert getattr(grads, name) is None
            continue
        numeric = np.empty_like(array)
        for index in np.ndindex(array.shape):
            value = array[index]
            array[index] = value + eps
            above = loss()
            array[index] = value - eps
            below = loss()
            array[index] = value
            numeric[index] = (above - below) / (2 * eps)
        np.testing.assert_allclose(
            getattr(grads, name), numeric, rtol=0, atol=tolerance, err_msg=name
        )


@all_options
@pytest.mark.parametrize("absent", [(), ("h_0", "b_hh"), ("b_ih",)], ids="-".join)
def test_gradients_are_finite_differences(problem, options, absent):
    gradient_check(problem() | dict.fromkeys(absent), options)


@pytest.mark.parametrize("reverse", [False, True])
def test_unbatched(problem, reverse):
    arrays = problem(B=1)
    output, h_n, tape = reference.rnn_forward(**arrays, lengths=[4], reverse=reverse)
    grads = reference.rnn_backward(tape, np.ones_like(output), np.ones_like(h_n))
    one = arrays | {"x": arrays["x"][:, 0], "h_0": arrays["h_0"][0]}
    output_1, h_n_1, tape_1 = reference.rnn_forward(**one, lengths=4, reverse=reverse)
    grads_1 = reference.rnn_backward(tape_1, np.ones_like(output_1), np.ones_like(h_n_1))
    assert np.array_equal(output_1, output[:, 0])
    assert np.array_equal(h_n_1, h_n[0])
    assert np.array_equal(grads_1.x, grads.x[:, 0])
    assert np.array_equal(grads_1.h_0, grads.h_0[0])
    assert np.array_equal(grads_1.w_hh, grads.w_hh)


# Other row counts make NumPy's matrix product sum in another order, hence no comparison of bits.
CLOSE = {"rtol": 0, "atol": 1e-12}


@all_options
def test_a_ragged_batch_is_its_rows_alone(problem, options):
    arrays = problem()
    lengths = options["lengths"] or [5, 5, 5]
    output, h_n, tape = reference.rnn_forward(**arrays, **options)
    d_output, d_h_n = np.cos(output), np.sin(h_n) + 1
    grads = reference.rnn_backward(tape, d_output, d_h_n)
    sums = dict.fromkeys(ARRAYS[2:], 0.0)
    for b, length in enumerate(lengths):
        row = arrays | {"x": arrays["x"][:length, b], "h_0": arrays["h_0"][b]}
        restart = options["restart"]
        alone = options | {
            "lengths": None,
            "restart": None if restart is None else restart[:length, b],
        }
        output_b, h_n_b, tape_b = reference.rnn_forward(**row, **alone)
        grads_b = reference.rnn_backward(tape_b, d_output[:length, b].copy(), d_h_n[b].copy())
        np.testing.assert_allclose(output[:length, b], output_b, **CLOSE)
        assert not output[length:, b].any()
        np.testing.assert_allclose(h_n[b], h_n_b, **CLOSE)
        np.testing.assert_allclose(grads.x[:length, b], grads_b.x, **CLOSE)
        assert not grads.x[length:, b].any()
        np.testing.assert_allclose(grads.h_0[b], grads_b.h_0, **CLOSE)
        for name in sums:
            sums[name] = sums[name] + getattr(grads_b, name)
    for name, total in sums.items():
        np.testing.assert_allclose(getattr(grads, name), total, **CLOSE)
    assert np.array_equal(h_n[1], arrays["h_0"][1]) or options["lengths"] is None


@all_options
def test_padding_is_never_looked_at(problem, options):
    arrays = problem()
    padded = np.arange(5)[:, None] >= LENGTHS
    options = options | {"lengths": LENGTHS}
    output, h_n, tape = reference.rnn_forward(**arrays, **options)
    d_output = np.cos(output)
    grads = reference.rnn_backward(tape, d_output, h_n)
    arrays["x"][padded] = np.nan
    d_output[padded] = np.nan
    output_2, h_n_2, tape_2 = reference.rnn_forward(**arrays, **options)
    grads_2 = reference.rnn_backward(tape_2, d_output, h_n)
    assert np.array_equal(output, output_2)
    assert np.array_equal(h_n, h_n_2)
    for name in ARRAYS:
        assert np.array_equal(getattr(grads, name), getattr(grads_2, name)), name


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_restart_is_a_cut(problem, nonlinearity, reverse):
    arrays = problem()
    options = {"nonlinearity": nonlinearity, "reverse": reverse}
    restart = np.zeros((5, 3), bool)
    restart[2] = True
    output, h_n, tape = reference.rnn_forward(**arrays, **options, restart=restart)
    grads = reference.rnn_backward(tape, np.ones_like(output), np.ones_like(h_n))
    # In order of processing: with h_0 up to the restart, then from zeros.
    first, second = (slice(3, 5), slice(0, 3)) if reverse else (slice(0, 2), slice(2, 5))
    total = 0
    for part, h_0, last in ((first, arrays["h_0"], False), (second, None, True)):
        piece = arrays | {"x": arrays["x"][part], "h_0": h_0}
        output_p, h_n_p, tape_p = reference.rnn_forward(**piece, **options)
        np.testing.assert_allclose(output[part], output_p, **CLOSE)
        grads_p = reference.rnn_backward(
            tape_p, np.ones_like(output_p), np.ones_like(h_n_p) if last else None
        )
        np.testing.assert_allclose(grads.x[part], grads_p.x, **CLOSE)
        if last:
            np.testing.assert_allclose(h_n, h_n_p, **CLOSE)
        else:
            np.testing.assert_allclose(grads.h_0, grads_p.h_0, **CLOSE)
        total = total + grads_p.w_hh
    np.testing.assert_allclose(grads.w_hh, total, **CLOSE)


def test_a_restart_at_the_first_step_drops_h_0(problem):
    arrays = problem()
    restart = np.zeros((5, 3), bool)
    restart[0, 1] = True
    output, _, tape = reference.rnn_forward(**arrays, restart=restart)
    grads = reference.rnn_backward(tape, np.ones_like(output))
    assert not grads.h_0[1].any()
    assert grads.h_0[0].any()
    arrays["h_0"][1] = np.nan
    output_2, _, _ = reference.rnn_forward(**arrays, restart=restart)
    assert np.array_equal(output, output_2)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_reverse_is_flipping(problem, nonlinearity):
    arrays = problem()
    output, h_n, tape = reference.rnn_forward(**arrays, nonlinearity=nonlinearity, reverse=True)
    grads = reference.rnn_backward(tape, np.cos(output), h_n)
    flipped = arrays | {"x": arrays["x"][::-1]}
    output_f, h_n_f, tape_f = reference.rnn_forward(**flipped, nonlinearity=nonlinearity)
    grads_f = reference.rnn_backward(tape_f, np.cos(output_f), h_n_f)
    assert np.array_equal(output, output_f[::-1])
    assert np.array_equal(h_n, h_n_f)
    assert np.array_equal(grads.x, grads_f.x[::-1])
    assert np.array_equal(grads.h_0, grads_f.h_0)
    # The sums over time run in the other order: n terms, each at most |dz| max(|x|, |h|, 1), err by
    # at most n u times their sum in either order, and |dz| grows by at most the largest column
    # sum of |W_hh| a step.
    steps, batch, _ = output.shape
    n = steps * batch
    growth = np.abs(arrays["w_hh"]).sum(axis=0).max()
    largest_dz = (1 + np.abs(h_n).max()) * sum(growth**k for k in range(steps))
    factor = max(np.abs(arrays["x"]).max(), np.abs(output).max(), np.abs(arrays["h_0"]).max(), 1)
    tolerance = 2 * n * np.finfo(output.dtype).eps / 2 * n * largest_dz * factor
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        np.testing.assert_allclose(
            getattr(grads, name), getattr(grads_f, name), rtol=0, atol=tolerance, err_msg=name
        )


def test_gradient_of_a_row_without_steps(problem):
    _, h_n, tape = reference.rnn_forward(**problem(), lengths=LENGTHS)
    d_h_n = np.ones_like(h_n)
    grads = reference.rnn_backward(tape, d_h_n=d_h_n)
    assert np.array_equal(grads.h_0[1], d_h_n[1])


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_nan_and_infinity_pass_in_their_own_row(problem, nonlinearity):
    arrays = problem()
    arrays["x"][2, 1, 0] = np.nan
    arrays["x"][2, 2, 0] = np.inf
    output, _, _ = reference.rnn_forward(**arrays, nonlinearity=nonlinearity)
    assert np.isnan(output[2:, 1]).all()
    assert np.isfinite(output[:2]).all()
    assert np.isfinite(output[:, 0]).all()


@pytest.mark.parametrize(
    "sizes", [(0, 3, 4, 6), (5, 0, 4, 6), (5, 3, 0, 6), (5, 3, 4, 0), (0, 0, 0, 0)]
)
def test_sizes_of_zero(problem, sizes):
    arrays = problem(*sizes)
    T, B, _, H = sizes
    output, h_n, tape = reference.rnn_forward(**arrays)
    assert output.shape == (T, B, H)
    assert h_n.shape == (B, H)
    if T == 0:
        assert np.array_equal(h_n, arrays["h_0"])
    grads = reference.rnn_backward(tape, np.ones_like(output), np.ones_like(h_n))
    for name in ARRAYS:
        assert getattr(grads, name).shape == arrays[name].shape
        assert np.isfinite(getattr(grads, name)).all()


def test_float32_stays_float32(problem):
    arrays = problem(dtype=np.float32)
    output, h_n, tape = reference.rnn_forward(**arrays, lengths=LENGTHS, restart=RESTART)
    grads = reference.rnn_backward(tape, output, h_n)
    assert {a.dtype for a in (output, h_n, *grads)} == {np.dtype(np.float32)}


def test_the_tape(problem):
    arrays = problem()
    output, h_n, tape = reference.rnn_forward(**arrays, lengths=LENGTHS, reverse=True)
    assert repr(tape) == "RNNTape(T=5, B=3, D=4, H=6, float64, 'tanh', reverse, lengths)"
    with pytest.raises(AttributeError):
        tape.x = None
    before = reference.rnn_backward(tape, output)
    again = reference.rnn_backward(pickle.loads(pickle.dumps(tape)), output)
    assert all(np.array_equal(a, b) for a, b in zip(before, again, strict=True))
    assert tape == tape
    assert tape != reference.rnn_forward(**arrays)[2]
    assert not np.shares_memory(h_n, output)
