"""The GRU of the reference: against a literal loop, hand arithmetic and finite differences.

What holds for every cell is in test_reference.py.
"""

import math

import numpy as np
import pytest
from reference_cells import WALKS, all_walks, check_gradients
from registry import VARIANTS

from fastrnn import reference

GRUS = {name: variant for name, variant in VARIANTS.items() if name.startswith("gru")}

both_grus = pytest.mark.parametrize("variant", GRUS.values(), ids=GRUS)
every_absence = pytest.mark.parametrize(
    "absent", [(), ("h_0",), ("b_ih",), ("b_hh",), ("h_0", "b_ih", "b_hh")], ids="-".join
)


def sigma(z):
    return 1 / (1 + math.exp(-z))


def literal(
    x,
    h_0,
    w_ih,
    w_hh,
    b_ih,
    b_hh,
    reset_after=True,
    lengths=None,
    mask=None,
    restart=None,
    reverse=False,
):
    """The definition once more, in Python floats: a row, a step, a unit, a term at a time."""
    T, B, _ = x.shape
    H = w_hh.shape[1]

    def b(bias, row):
        return 0.0 if bias is None else float(bias[row])

    def product(w, row, values):
        return sum(float(w[row, k]) * float(v) for k, v in enumerate(values))

    output, h_n = np.zeros((T, B, H)), np.zeros((B, H))
    for k in range(B):
        h = [0.0 if h_0 is None else float(h_0[k, j]) for j in range(H)]
        steps = range(T if lengths is None else lengths[k])
        steps = [t for t in steps if mask is None or mask[t, k]]
        for t in reversed(steps) if reverse else steps:
            if restart is not None and restart[t, k]:
                h = [0.0] * H
            from_x = [b(b_ih, row) + product(w_ih, row, x[t, k]) for row in range(3 * H)]
            from_h = [b(b_hh, row) + product(w_hh, row, h) for row in range(3 * H)]
            r = [sigma(from_x[j] + from_h[j]) for j in range(H)]
            z = [sigma(from_x[H + j] + from_h[H + j]) for j in range(H)]
            n = []
            for j in range(H):
                row = 2 * H + j
                if reset_after:
                    n.append(math.tanh(from_x[row] + r[j] * from_h[row]))
                else:
                    reset = [r[i] * h[i] for i in range(H)]
                    n.append(math.tanh(from_x[row] + b(b_hh, row) + product(w_hh, row, reset)))
            h = [(1 - z[j]) * n[j] + z[j] * h[j] for j in range(H)]
            output[t, k] = h
        h_n[k] = h
    return output, h_n


@both_grus
@all_walks
@every_absence
def test_forward_is_the_definition(variant, walk, absent):
    arrays = variant.arrays() | dict.fromkeys(absent)
    output, (h_n,), tape = variant.forward(**arrays, **walk)
    expected, expected_h_n = literal(**arrays, **variant.options, **walk)
    # Sums of a dozen terms of order one in another order: a few hundred roundings of 1e-16 at most.
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(h_n, expected_h_n, rtol=0, atol=1e-13)
    assert tape.reset_after is variant.options.get("reset_after", True)


@both_grus
def test_what_the_tape_keeps(variant):
    arrays = variant.arrays()
    output, _, tape = variant.forward(**arrays)
    r, z, n, a = np.split(tape.gates, 4, axis=2)
    before = np.concatenate([arrays["h_0"][None], output[:-1]])
    np.testing.assert_allclose(n + z * (before - n), output, rtol=0, atol=1e-13)
    if tape.reset_after:
        expected = before @ arrays["w_hh"][6:].T + arrays["b_hh"][6:]
    else:
        expected = r * before
    np.testing.assert_allclose(a, expected, rtol=0, atol=1e-13)


def column(*values):
    return np.array(values, np.float64).reshape(-1, 1)


def test_an_open_update_gate_keeps_the_state():
    # z is 1 to the last bit: h stays, and so does its gradient. n, at 1, is not looked at.
    zero, b = np.zeros((3, 1)), np.array([0.0, 1000, 1000])
    x = np.ones((3, 1, 1))
    output, h_n, tape = reference.gru_forward(x, column(7), zero, zero, b)
    assert output.ravel().tolist() == [7, 7, 7]
    assert h_n.tolist() == [[7]]
    grads = reference.gru_backward(tape, d_h_n=column(3))
    assert grads.h_0.tolist() == [[3]]
    assert grads.b_ih.tolist() == [0, 0, 0]
    assert reference.gradient_norms(tape, d_h_n=column(-3)).ravel().tolist() == [3, 3, 3]
    # z is 0: h is n, and nothing passes.
    b[1] = -1000
    output, _, tape = reference.gru_forward(x, column(7), zero, zero, b)
    assert output.ravel().tolist() == [1, 1, 1]
    assert reference.gru_backward(tape, d_h_n=column(3)).h_0.tolist() == [[0]]


@pytest.mark.parametrize("reset_after", [True, False])
def test_one_step_by_hand(reset_after):
    # r = z = 1/2; W_hn = 1, b_hn = 3, h_0 = 2, W_in = 4, b_in = -4, x = 1/2:
    # n = tanh(-4 + 2 + (3 + 2)/2) = tanh(1/2), or tanh(-4 + 2 + 3 + 2/2) = tanh(2).
    x, h_0 = np.full((1, 1, 1), 0.5), column(2)
    w_ih, w_hh = column(0, 0, 4), column(0, 0, 1)
    b_ih, b_hh = np.array([0.0, 0, -4]), np.array([0.0, 0, 3])
    output, h_n, tape = reference.gru_forward(
        x, h_0, w_ih, w_hh, b_ih, b_hh, reset_after=reset_after
    )
    n = math.tanh(0.5 if reset_after else 2)
    assert tape.gates.ravel().tolist() == pytest.approx([0.5, 0.5, n, 5 if reset_after else 1])
    assert output.item() == h_n.item() == pytest.approx((n + 2) / 2, rel=1e-15)
    # dh = 8: dn = 4 (1 - n²), dz = 8 (2 - n) / 4; dr = dn times 5/4, or 2/4.
    grads = reference.gru_backward(tape, d_h_n=column(8))
    dn, dz = 4 * (1 - n * n), 2 * (2 - n)
    dr = dn * (5 if reset_after else 2) / 4
    half = dn / 2

    def close(values):
        return pytest.approx(values, rel=1e-14)

    assert grads.b_ih.tolist() == close([dr, dz, dn])
    assert grads.b_hh.tolist() == close([dr, dz, half if reset_after else dn])
    assert grads.w_ih.ravel().tolist() == close([dr / 2, dz / 2, dn / 2])
    # W_hn is multiplied with h, and the result with r; or with r h = 1.
    assert grads.w_hh.ravel().tolist() == close([2 * dr, 2 * dz, 2 * half if reset_after else dn])
    assert grads.x.item() == close(4 * dn)
    assert grads.h_0.item() == close(8 / 2 + half)


def test_the_two_resets_differ_only_in_what_r_is_multiplied_with():
    # Where r is 1 to the last bit they are the same network, its two biases of n added.
    variant = GRUS["gru"]
    arrays = variant.arrays()
    arrays["b_ih"][:3] = 1000
    after, _, tape = reference.gru_forward(**arrays)
    first, _, tape_first = reference.gru_forward(**arrays, reset_after=False)
    # The biases of n are added in another order: some roundings of 1e-16.
    np.testing.assert_allclose(after, first, rtol=0, atol=1e-14)
    d_output = np.cos(after)
    pairs = zip(
        reference.gru_backward(tape, d_output),
        reference.gru_backward(tape_first, d_output),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    arrays["b_ih"][:3] = 0
    after, _, _ = reference.gru_forward(**arrays)
    first, _, _ = reference.gru_forward(**arrays, reset_after=False)
    assert abs(after - first).max() > 0.01


@both_grus
def test_one_unit(variant):
    check_gradients(variant, variant.arrays(T=3, B=1, D=1, H=1), WALKS[0])


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_reset_after_is_a_flag(value):
    arrays = GRUS["gru"].arrays()
    with pytest.raises(TypeError, match=f"reset_after is {value!r}, expected True or False"):
        reference.gru_forward(**arrays, reset_after=value)
    assert reference.gru_forward(**arrays, reset_after=np.False_)[2].reset_after is False
