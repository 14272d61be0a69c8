"""The LSTM of the reference: against a literal loop, hand arithmetic and finite differences.

What holds for every cell is in test_reference.py.
"""

import math

import numpy as np
import pytest
from reference_cells import WALKS, all_walks, check_gradients
from registry import VARIANTS

from fastrnn import reference

LSTMS = {name: variant for name, variant in VARIANTS.items() if name.startswith("lstm")}

all_lstms = pytest.mark.parametrize("variant", LSTMS.values(), ids=LSTMS)
every_absence = pytest.mark.parametrize(
    "absent",
    [(), ("h_0",), ("c_0",), ("b_ih",), ("b_hh",), ("h_0", "c_0", "b_ih", "b_hh")],
    ids="-".join,
)


def sigma(z):
    return 1 / (1 + math.exp(-z))


def literal(
    x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr=None, w_peep=None,
    lengths=None, mask=None, restart=None, reverse=False,
):  # fmt: skip
    """The definition once more, in Python floats: a row, a step, a unit, a term at a time."""
    T, B, D = x.shape
    H, P = len(w_hh) // 4, w_hh.shape[1]
    output, h_n, c_n = np.zeros((T, B, P)), np.zeros((B, P)), np.zeros((B, H))
    for b in range(B):
        h = [0.0 if h_0 is None else float(h_0[b, j]) for j in range(P)]
        c = [0.0 if c_0 is None else float(c_0[b, j]) for j in range(H)]
        steps = range(T if lengths is None else lengths[b])
        steps = [t for t in steps if mask is None or mask[t, b]]
        for t in reversed(steps) if reverse else steps:
            if restart is not None and restart[t, b]:
                h, c = [0.0] * P, [0.0] * H
            z = []
            for row in range(4 * H):
                total = 0.0 if b_ih is None else float(b_ih[row])
                total += 0.0 if b_hh is None else float(b_hh[row])
                for d in range(D):
                    total += float(w_ih[row, d]) * float(x[t, b, d])
                for j in range(P):
                    total += float(w_hh[row, j]) * h[j]
                z.append(total)
            m, c_before = [], c
            c = list(c)
            for j in range(H):
                z_i, z_f, z_g, z_o = (z[gate * H + j] for gate in range(4))
                if w_peep is not None:
                    z_i += float(w_peep[j]) * c_before[j]
                    z_f += float(w_peep[H + j]) * c_before[j]
                c[j] = sigma(z_f) * c_before[j] + sigma(z_i) * math.tanh(z_g)
                if w_peep is not None:
                    z_o += float(w_peep[2 * H + j]) * c[j]
                m.append(sigma(z_o) * math.tanh(c[j]))
            h = m
            if w_hr is not None:
                h = [sum(float(w_hr[j, k]) * m[k] for k in range(H)) for j in range(P)]
            output[t, b] = h
        h_n[b], c_n[b] = h, c
    return output, h_n, c_n


@all_lstms
@all_walks
@every_absence
def test_forward_is_the_definition(variant, walk, absent):
    arrays = variant.arrays() | dict.fromkeys(absent)
    output, (h_n, c_n), tape = variant.forward(**arrays, **walk)
    expected = literal(**arrays, **walk)
    # Sums of a dozen terms of order one in another order: a few hundred roundings of 1e-16 at most.
    for got, wanted in zip((output, h_n, c_n), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-13)
    # The tape's c and gates make up the output; where a row ends, c is c_n.
    i, f, g, o = np.split(tape.gates, 4, axis=2)
    m = o * np.tanh(tape.c)
    h = m if "projection" not in variant.extras else m @ arrays["w_hr"].T
    np.testing.assert_allclose(h, output, rtol=0, atol=1e-13)
    last = 0 if walk["reverse"] else -1
    whole = slice(0, 1)  # the row with all steps
    assert np.array_equal(tape.c[last, whole], c_n[whole])
    assert ((tape.gates == 0).all(axis=2) | ((i > 0) & (f > 0) & (abs(g) < 1)).all(axis=2)).all()


@all_lstms
@pytest.mark.parametrize("given", ["d_output", "d_h_n", "d_c_n"])
def test_each_gradient_alone_is_its_share(variant, given):
    # Backward is linear in what it is given: the shares of all three add up.
    arrays = variant.arrays()
    output, states, tape = variant.forward(**arrays)
    d = {"d_output": np.cos(output), "d_h_n": np.cos(states[0]), "d_c_n": np.cos(states[1])}
    every = reference.lstm_backward(tape, **d)
    alone = reference.lstm_backward(tape, **{given: d.pop(given)})
    others = reference.lstm_backward(tape, **d)
    for name in arrays:
        total = getattr(alone, name) + getattr(others, name)
        assert getattr(alone, name).any(), name
        # Sums of 15 terms below 10 in another order: 1e-13.
        np.testing.assert_allclose(getattr(every, name), total, rtol=0, atol=1e-12, err_msg=name)


def column(*values):
    return np.array(values, np.float64).reshape(-1, 1)


def test_open_gates_count_steps():
    # Gates are 1 to the last bit where z is 1000, g is 1 too: c counts, with x as the counter.
    w_ih, w_hh = column(0, 0, 1000, 0), column(0, 0, 0, 0)
    b = np.array([1000.0, 1000, 0, 1000])
    x = np.array([1.0, 1, -1, 1]).reshape(4, 1, 1)
    output, h_n, c_n, tape = reference.lstm_forward(x, None, column(5), w_ih, w_hh, b)
    assert tape.c.ravel().tolist() == [6, 7, 6, 7]
    assert output.ravel().tolist() == np.tanh([6.0, 7, 6, 7]).tolist()
    assert c_n.tolist() == [[7]]
    assert h_n.tolist() == [[np.tanh(7.0)]]
    assert tape.gates[:, 0].tolist() == [[1, 1, g, 1] for g in (1, 1, -1, 1)]
    # A gradient of c passes an open forget gate unchanged, and no saturated gate lets one through.
    grads = reference.lstm_backward(tape, d_c_n=column(3))
    assert grads.c_0.tolist() == [[3]]
    assert not any(a.any() for a in (grads.x, grads.w_ih, grads.w_hh, grads.b_ih))
    # The forget gate closed instead: c is what came in last.
    b[1] = -1000
    *_, c_n, tape = reference.lstm_forward(x, None, column(5), w_ih, w_hh, b)
    assert tape.c.ravel().tolist() == [1, 1, -1, 1]
    assert reference.lstm_backward(tape, d_c_n=column(3)).c_0.tolist() == [[0]]


def test_one_step_by_hand():
    # Weights and biases zero: i = f = o = 1/2, g = 0, c = 2/2 = 1, h = tanh(1) / 2.
    zero = np.zeros((4, 1))
    x, two = np.full((1, 1, 1), 3.0), column(2)
    output, h_n, c_n, tape = reference.lstm_forward(x, None, two, zero, zero, np.zeros(4))
    t = math.tanh(1)
    assert tape.gates.ravel().tolist() == [0.5, 0.5, 0, 0.5]
    assert c_n.tolist() == [[1]]
    assert output.item() == h_n.item() == pytest.approx(t / 2, rel=1e-15)
    # With dh = 8 and dc_n = 1: do = 8 t / 4; dc = 1 + 8 (1 - t²) / 2; di = 0 for g = 0;
    # df = dc 2 / 4; dg = dc / 2.
    grads = reference.lstm_backward(tape, np.full((1, 1, 1), 8.0), d_c_n=column(1))
    dc = 1 + 4 * (1 - t * t)
    dz = [0, dc / 2, dc / 2, 2 * t]
    assert grads.b_ih.tolist() == pytest.approx(dz, rel=1e-15)
    assert grads.b_hh is None
    assert grads.w_ih.ravel().tolist() == pytest.approx([3 * d for d in dz], rel=1e-15)
    assert grads.w_hh.ravel().tolist() == [0, 0, 0, 0]
    assert grads.c_0.item() == pytest.approx(dc / 2, rel=1e-15)
    assert grads.x.item() == 0
    norms = reference.gradient_norms(tape, np.full((1, 1, 1), 8.0), d_c_n=column(1))
    assert norms.item() == pytest.approx(math.hypot(8, 1), rel=1e-15)


def test_peepholes_by_hand():
    # i looks at c_0 = 2, f at c_0, o at the new c; everything else is zero but g's bias.
    zero, b = np.zeros((4, 1)), np.array([0.0, 0, 0.5, 0])
    p_i, p_f, p_o = p = np.array([0.25, -0.5, 0.75])
    x = np.zeros((1, 1, 1))
    output, _, c_n, tape = reference.lstm_forward(x, None, column(2), zero, zero, b, w_peep=p)
    i, f, g = sigma(2 * p_i), sigma(2 * p_f), math.tanh(0.5)
    c = 2 * f + i * g
    o = sigma(p_o * c)
    t = math.tanh(c)
    assert c_n.item() == pytest.approx(c, rel=1e-15)
    assert output.item() == pytest.approx(o * t, rel=1e-15)
    d_p_o = t * o * (1 - o) * c
    dc = o * (1 - t * t) + p_o * t * o * (1 - o)
    di, df = dc * g * i * (1 - i), dc * 2 * f * (1 - f)
    grads = reference.lstm_backward(tape, d_h_n=column(1))
    assert grads.w_peep.tolist() == pytest.approx([2 * di, 2 * df, d_p_o], rel=1e-14)
    assert grads.c_0.item() == pytest.approx(dc * f + p_i * di + p_f * df, rel=1e-14)
    # The state after the step has two parts: h, and c as it would go into the next step.
    assert reference.gradient_norms(tape, d_h_n=column(1)).item() == 1


def test_projection_by_hand():
    # Two units, of which h is 2 m_0 + 3 m_1; gates as in test_one_step_by_hand.
    w_ih, w_hh, w_hr = np.zeros((8, 1)), np.zeros((8, 1)), np.array([[2.0, 3.0]])
    c_0 = np.array([[2.0, 4.0]])
    output, h_n, c_n, tape = reference.lstm_forward(
        np.zeros((1, 1, 1)), None, c_0, w_ih, w_hh, w_hr=w_hr
    )
    m = [math.tanh(1) / 2, math.tanh(2) / 2]
    assert output.shape == (1, 1, 1)
    assert output.item() == h_n.item() == pytest.approx(2 * m[0] + 3 * m[1], rel=1e-15)
    assert c_n.tolist() == [[1, 2]]
    grads = reference.lstm_backward(tape, d_h_n=column(10))
    assert grads.w_hr.ravel().tolist() == pytest.approx([10 * m[0], 10 * m[1]], rel=1e-15)
    dc = [20 * 0.5 * (1 - math.tanh(1) ** 2), 30 * 0.5 * (1 - math.tanh(2) ** 2)]
    assert grads.c_0.ravel().tolist() == pytest.approx([dc[0] / 2, dc[1] / 2], rel=1e-14)
    assert grads.h_0 is None


def test_an_infinite_c_is_an_ordinary_value():
    # No peephole multiplies it with zero: 0 inf would be NaN.
    zero = np.zeros((4, 1))
    output, _, c_n, _ = reference.lstm_forward(
        np.zeros((2, 1, 1)), None, column(np.inf), zero, zero
    )
    assert c_n.tolist() == [[np.inf]]
    assert output.ravel().tolist() == [0.5, 0.5]


def test_one_unit():
    variant = LSTMS["lstm-peepholes"]
    check_gradients(variant, variant.arrays(T=3, B=1, D=1, H=1), WALKS[0])
