"""The equations of the cells with the roundings of the compiled code, forward and backward.

A function of the name of each cell: of the problem, x_t and the state before step t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from registry import KINDS
from rounding import (
    Array,
    Real,
    chain,
    fl,
    known,
    settled,
    sigmoid,
    split,
    tanh,
    together,
    value_of,
    where,
)  # fmt: skip

if TYPE_CHECKING:
    from bounds import Problem

# By result: factor (B, n), w (n, K) and y (B, K). To first order, element i is off by
# factor_i w_ik y_k if that product is missing in a sum that leads to it.
Factors = dict[str, tuple[Array, Array, Array]]


class Back(NamedTuple):
    """What going back over a step yields.

    d_state: the gradient of the state after it, for the norms. sums: what it adds to the gradients
    of weights, as pairs (a, y): a_i y_j to element (i, j); the rows of a second pair lie below.
    The first a of w_ih makes d_x, the first a of w_hh goes through W_hh into the carry.
    """

    d_state: tuple[Real, ...]
    carry: tuple[Real, ...]
    sums: dict[str, list[tuple[Real, Any]]]
    factors: Factors


class Step(NamedTuple):
    state: tuple[Real, ...]
    back: Callable[..., Back]
    factors: Factors
    output: Real | None = None  # None: the first state
    # The gradient of the state, from that of later steps and d_output.
    enter: Callable[[Real, Array], Real] = lambda carry, d_output: fl(carry + d_output)
    kink: Array | None = None  # |z - kink| / sqrt(q(z)), least of all kinks


def bias_of(p: Problem) -> Array:
    given = [b for b in (p.b_ih, p.b_hh) if b is not None]
    return np.sum(given, axis=0) if given else np.zeros(len(p.w_hh))


def sums_of(x: Array, dz_x: Real, dz_h: Real, hidden: list[tuple[Real, Real]]) -> dict[str, Any]:
    """`Back.sums` of what every cell has: from dz, as x and as the state met it."""
    one = np.ones((len(x), 1))
    return {"w_ih": [(dz_x, x)], "w_hh": hidden, "b_ih": [(dz_x, one)], "b_hh": [(dz_h, one)]}


def nonlinearity(name: str, z: Real) -> tuple[Real, Any]:
    """f(z) and f'(z); where that is 0 or 1 it is no Real."""
    if name == "tanh":
        h = tanh(z)
        return h, fl(1.0 - h * h)
    if name == "sigmoid":
        h = sigmoid(z)
        return h, fl(h - h * h)
    if name == "hard_sigmoid":  # z + 3, then its product with a sixth, which is rounded too
        inside = abs(z.value) < 3.0
        h = fl(fl(fl(z + 3.0) * (1 / 6)))
        sixth = fl(known(np.full(z.value.shape, 1 / 6)))
        return where(inside, h, known((z.value > 0.0) * 1.0)), where(inside, sixth)
    slope = z.value > 0.0 if name == "relu" else np.ones(z.value.shape)
    return z * slope, slope


def times(dh: Real, slope: Any) -> Real:
    return fl(dh * slope) if isinstance(slope, Real) else dh * slope


def distance(p: Problem, z: Real) -> Array | None:
    """How far z is from the kinks, beside its own error."""
    if not (kinks := KINDS[p.kind].kinks):
        return None
    near = np.min([abs(z.value - kink) for kink in kinks], 0)
    return np.divide(near, np.sqrt(z.q), out=np.full(z.q.shape, np.inf), where=z.q > 0)


def rnn(p: Problem, x: Array, h_prev: Real) -> Step:
    z = chain(bias_of(p), (x, p.w_ih), (h_prev, p.w_hh))
    h, slope = nonlinearity(KINDS[p.kind].options["nonlinearity"], z)

    def back(dh: Real) -> Back:
        dz = settled(times(dh, slope))
        sums = sums_of(x, dz, dz, [(dz, h_prev)])
        return Back((dh,), (chain(0.0, (dz, p.w_hh.T)),), sums, {})

    return Step((h,), back, {"h_n": (value_of(slope), p.w_ih, x)}, kink=distance(p, z))


def lstm(p: Problem, x: Array, h_prev: Real, c_prev: Real) -> Step:
    p_i, p_f, p_o = [None] * 3 if p.w_peep is None else np.split(p.w_peep, 3)

    def fma(w: Any, a: Real, b: Real) -> Real:
        return b if w is None else fl(w * a + b)

    z_i, z_f, z_g, z_o = split(chain(bias_of(p), (x, p.w_ih), (h_prev, p.w_hh)), 4)
    i, f, g = sigmoid(fma(p_i, c_prev, z_i)), sigmoid(fma(p_f, c_prev, z_f)), tanh(z_g)
    c = fl(f * c_prev + fl(i * g))
    o, tc = sigmoid(fma(p_o, c, z_o)), tanh(c)
    m = fl(o * tc)
    h = m if p.w_hr is None else chain(0.0, (m, p.w_hr))

    def back(dh: Real, carry_c: Real) -> Back:
        dm = dh if p.w_hr is None else chain(0.0, (dh, p.w_hr.T))
        dm, carry_c = together(dm, carry_c)
        do = fl(fl(dm * tc) * fl(o - o * o))
        through_h = fl(dm * o) * fl(1.0 - tc * tc)
        dc = fma(p_o, do, fl(through_h + carry_c))
        di = fl(fl(dc * g) * fl(i - i * i))
        df = fl(fl(dc * c_prev) * fl(f - f * f))
        dg = fl(fl(dc * i) * fl(1.0 - g * g))
        carry = fma(p_f, df, fma(p_i, di, fl(dc * f)))
        dz = settled(di, df, dg, do)
        one = np.ones((len(x), 1))
        sums = sums_of(x, dz, dz, [(dz, h_prev)])
        if p.w_hr is not None:
            sums["w_hr"] = [(dh, m)]
        if p.w_peep is not None:
            sums["w_peep"] = [(settled(di * c_prev, df * c_prev, do * c), one)]
        factors = {"d_c_0": ((through_h * f).value, np.ones((g.value.shape[1], 1)), one)}
        return Back((dh, carry_c), (chain(0.0, (dz, p.w_hh.T)), carry), sums, factors)

    of_g, of_o = np.split(p.w_ih, 4)[2:]
    factors = {
        "c_n": ((i * (1.0 - g * g)).value, of_g, x),
        "h_n": ((tc * (o - o * o)).value, of_o, x),
    }
    if p.w_hr is not None:
        factors["h_n"] = (np.ones_like(h.value), p.w_hr, m.value)
    return Step((h, c), back, factors)


def gru(p: Problem, x: Array, h_prev: Real) -> Step:
    reset_first, bias = p.kind == "gru-reset-first", bias_of(p)
    rz, new = slice(2 * p.w_hh.shape[1]), slice(2 * p.w_hh.shape[1], None)
    r, z = map(sigmoid, split(chain(bias[rz], (x, p.w_ih[rz]), (h_prev, p.w_hh[rz])), 2))
    if reset_first:
        rh = fl(r * h_prev)
        n = tanh(chain(bias[new], (x, p.w_ih[new]), (rh, p.w_hh[new])))
    else:
        b_in, b_hn = (np.zeros(1) if b is None else b[new] for b in (p.b_ih, p.b_hh))
        a = chain(b_hn, (h_prev, p.w_hh[new]))
        n = tanh(fl(r * a + chain(b_in, (x, p.w_ih[new]))))
    h = fl(z * fl(h_prev - n) + n)

    def back(dh: Real) -> Back:
        dn = fl(fl(dh * fl(1.0 - z)) * fl(1.0 - n * n))
        dzg = fl(fl(dh * fl(h_prev - n)) * fl(z - z * z))
        if reset_first:
            s = chain(0.0, (dn, p.w_hh[new].T))
            dr = fl(fl(s * h_prev) * fl(r - r * r))
            d_rz = settled(dr, dzg)
            dz_x = dz_h = settled(dr, dzg, dn)
            carry = chain(fl(s * r + fl(dh * z)), (d_rz, p.w_hh[rz].T))
            hidden = [(d_rz, h_prev), (settled(dn), rh)]
        else:
            dr, da = fl(fl(dn * a) * fl(r - r * r)), fl(dn * r)
            dz_x, dz_h = settled(dr, dzg, dn), settled(dr, dzg, da)
            carry = chain(fl(dh * z), (dz_h, p.w_hh.T))
            hidden = [(dz_h, h_prev)]
        return Back((dh,), (carry,), sums_of(x, dz_x, dz_h, hidden), {})

    slope = ((1.0 - z) * (1.0 - n * n)).value
    return Step((h,), back, {"h_n": (slope, p.w_ih[new], x)})


def leaky(p: Problem, x: Array, prev: Real) -> Step:
    options = KINDS[p.kind].options
    a, one, f = p.leak, np.ones((len(x), 1)), options["nonlinearity"]

    def sums(dz: Real, h_prev: Real, d_a: Real) -> dict[str, Any]:
        return sums_of(x, dz, dz, [(dz, h_prev)]) | {"leak": [(settled(d_a), one)]}

    if options["form"] == "rate":
        z = chain(bias_of(p), (x, p.w_ih), (prev, p.w_hh))
        r, slope = nonlinearity(f, z)
        h = fl(fl(r * a) + fl(prev * (1.0 - a)))

        def back(dh: Real) -> Back:
            dz = settled(times(fl(dh * a), slope))
            carry = chain(fl(dh * (1.0 - a)), (dz, p.w_hh.T))
            return Back((dh,), (carry,), sums(dz, prev, fl(dh * fl(r - prev))), {})

        return Step((h,), back, {"h_n": (a * value_of(slope), p.w_ih, x)}, kink=distance(p, z))

    h_prev, slope_prev = nonlinearity(f, prev)
    z = chain(bias_of(p), (x, p.w_ih), (h_prev, p.w_hh))
    v = fl(fl(z * a) + fl(prev * (1.0 - a)))
    output, slope = nonlinearity(f, v)

    def enter(carry: Real, d_output: Array) -> Real:
        return fl(carry + times(known(d_output), slope))

    def back_v(dv: Real) -> Back:
        dz = settled(fl(dv * a))
        through = times(chain(0.0, (dz, p.w_hh.T)), slope_prev)
        stays, through = together(fl(dv * (1.0 - a)), through)
        factors = {"d_h_0": (value_of(slope_prev), p.w_hh.T, dz.value)}
        return Back((dv,), (fl(stays + through),), sums(dz, h_prev, fl(dv * fl(z - prev))), factors)

    whole = np.broadcast_to(a, v.value.shape)
    factors = {"h_n": (whole, p.w_ih, x), "output": (a * value_of(slope), p.w_ih, x)}
    return Step((v,), back_v, factors, output, enter, distance(p, v))
