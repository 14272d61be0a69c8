"""Which bits they are: those of sums in the documented order, each operation rounded as stated.

All is recomputed, an operation at a time, but for the activations: these are the library's own,
and test_activations.py looks after them.
"""

from typing import Any

import numpy as np
from bit_checks import ISAS, assert_same_results, chain, fma
from bounds import CHUNK, Array, Problem, Spec, draw, processing_order, run, with_every_kind
from grids import grid

import fastrnn
from fastrnn import _core

ONE, ZERO = np.float32(1), np.float32(0)


def tanh(z: Array) -> Array:
    out = np.empty_like(z)
    _core.tanh(np.ascontiguousarray(z), out)
    return out


def sigmoid(z: Array) -> Array:
    out = np.empty_like(z)
    _core.sigmoid(np.ascontiguousarray(z), out)
    return out


def fnma(a: Array, b: Array, c: Any) -> Array:
    return fma(-a, b, np.broadcast_to(c, a.shape))


class Steps:
    """What is needed of every step, (T, B, .), and the sums over them."""

    def __init__(self, p: Problem) -> None:
        self.order = processing_order(len(p.x), p.reverse)
        self.arrays: dict[str, list[Any]] = {}

    def keep(self, t: int, **arrays: Array) -> None:
        for name, a in arrays.items():
            self.arrays.setdefault(name, [None] * len(self.order))[t] = a

    def at(self, t: int, names: str) -> list[Array]:
        return [self.arrays[name][t] for name in names.split()]

    def whole(self, name: str) -> Array:
        return np.stack(self.arrays[name])

    def _chunks(self, *names: str) -> Any:
        """Chunks of rows (t, b): t in the order in which backward visits them, b ascending."""
        a = [np.concatenate([self.arrays[name][t] for t in self.order[::-1]]) for name in names]
        return ([v[i : i + CHUNK] for v in a] for i in range(0, len(a[0]), CHUNK))

    def product(self, dz: str, y: str) -> Array:
        """A matrix's gradient: a chain an element and chunk; the chunks are added in order."""
        return added(chain(ZERO, a.T, b.T) for a, b in self._chunks(dz, y))

    def sum(self, dz: str) -> Array:
        """A bias's."""
        return added(
            chain(ZERO, a.T, np.ones((1, len(a)), np.float32)) for (a,) in self._chunks(dz)
        )[:, 0]

    def sum_of_products(self, dz: str, y: str) -> Array:
        """That of a weight for each element."""

        def of_chunk(a: Array, b: Array) -> Array:
            s = np.zeros(a.shape[1], np.float32)
            for k in range(len(a)):
                s = fma(a[k], b[k], s)
            return s

        return added(of_chunk(a, b) for a, b in self._chunks(dz, y))


def added(chunks: Any) -> Array:
    first, *others = chunks
    return sum(others, first)


def norm(*parts: Array) -> Array:
    """Of rows, in float64: 16 sums of every 16th square, added one after the other."""
    total = 0.0
    for a in parts:
        squares = np.square(a, dtype=np.float64)
        lanes = np.zeros((len(a), 16))
        for k in range(a.shape[1]):
            lanes[:, k % 16] += squares[:, k]
        sums = np.zeros(len(a))
        for k in range(16):
            sums = sums + lanes[:, k]
        total = total + sums
    return np.sqrt(total)


SIXTH = ONE / np.float32(6)

# f(z); and dr f'(z), from r = f(z) and dr.
NONLINEARITIES: dict[str, tuple[Any, Any]] = {
    "tanh": (tanh, lambda r, dr: dr * fnma(r, r, ONE)),
    "relu": (lambda z: np.maximum(z, ZERO), lambda r, dr: np.where(r > 0, dr, ZERO)),
    "sigmoid": (sigmoid, lambda r, dr: dr * fnma(r, r, r)),
    "identity": (lambda z: z, lambda r, dr: dr),
    "hard_sigmoid": (
        lambda z: np.clip(z + np.float32(3), ZERO, np.float32(6)) * SIXTH,
        lambda r, dr: np.where((r > 0) & (r < 1), dr * SIXTH, ZERO),
    ),
}


def rnn(p: Problem) -> dict[str, Array]:
    """Forward: one chain from round(b_ih + b_hh) over x, then h. Backward: chains over the rows of
    the weight matrix; d_output is added to the rounded carry.
    """
    s, h, (f, back) = Steps(p), p.h_0, NONLINEARITIES[p.options()["nonlinearity"]]
    for t in s.order:
        s.keep(t, x=p.x[t], before=h)
        z = chain(p.b_ih + p.b_hh, np.hstack([p.x[t], h]), np.hstack([p.w_ih, p.w_hh]))
        h = f(z)
        s.keep(t, output=h)
    carry = p.d_h_n
    for t in s.order[::-1]:
        (h_t,) = s.at(t, "output")
        dh = carry + p.d_output[t]
        dz = back(h_t, dh)
        s.keep(t, dz=dz, d_x=chain(ZERO, dz, p.w_ih.T), norms=norm(dh))
        carry = chain(ZERO, dz, p.w_hh.T)
    found = {name: s.whole(name) for name in ("output", "d_x", "norms")}
    found |= {"h_n": h, "d_h_0": carry, "d_b_ih": s.sum("dz"), "d_b_hh": s.sum("dz")}
    return found | {"d_w_ih": s.product("dz", "x"), "d_w_hh": s.product("dz", "before")}


def lstm(p: Problem) -> dict[str, Array]:
    """As rnn. c = f c + (i g) and the peepholes fuse the product with c; a projection is a chain
    from +0, either way.
    """
    s, h, c = Steps(p), p.h_0, p.c_0
    p_i, p_f, p_o = [None] * 3 if p.w_peep is None else np.split(p.w_peep, 3)

    def fused(w: Any, a: Array, b: Array) -> Array:
        return b if w is None else fma(np.broadcast_to(w, a.shape), a, b)

    for t in s.order:
        s.keep(t, x=p.x[t], before=h, c_before=c)
        z = chain(p.b_ih + p.b_hh, np.hstack([p.x[t], h]), np.hstack([p.w_ih, p.w_hh]))
        z_i, z_f, z_g, z_o = np.split(z, 4, 1)
        i, f, g = sigmoid(fused(p_i, c, z_i)), sigmoid(fused(p_f, c, z_f)), tanh(z_g)
        c = fma(f, c, i * g)
        o, tc = sigmoid(fused(p_o, c, z_o)), tanh(c)
        m = o * tc
        h = m if p.w_hr is None else chain(ZERO, m, p.w_hr)
        s.keep(t, i=i, f=f, g=g, c=c, o=o, tc=tc, m=m, output=h)
    carry, carry_c = p.d_h_n, p.d_c_n
    for t in s.order[::-1]:
        i, f, g, o, tc, c_before = s.at(t, "i f g o tc c_before")
        dh = carry + p.d_output[t]
        dm = dh if p.w_hr is None else chain(ZERO, dh, p.w_hr.T)
        do = dm * tc * fnma(o, o, o)
        dc = fused(p_o, do, fma(dm * o, fnma(tc, tc, ONE), carry_c))
        di, df = dc * g * fnma(i, i, i), dc * c_before * fnma(f, f, f)
        dz = np.hstack([di, df, dc * i * fnma(g, g, ONE), do])
        s.keep(t, dh=dh, norms=norm(dh, carry_c), d_x=chain(ZERO, dz, p.w_ih.T))
        s.keep(t, di=di, df=df, do=do, dz=dz)
        carry, carry_c = chain(ZERO, dz, p.w_hh.T), fused(p_f, df, fused(p_i, di, dc * f))
    found = {name: s.whole(name) for name in ("output", "d_x", "norms")}
    found |= {"h_n": h, "c_n": c, "d_h_0": carry, "d_c_0": carry_c}
    found |= {"d_b_ih": s.sum("dz"), "d_b_hh": s.sum("dz")}
    found |= {"d_w_ih": s.product("dz", "x"), "d_w_hh": s.product("dz", "before")}
    if p.w_hr is not None:
        found["d_w_hr"] = s.product("dh", "m")
    if p.w_peep is not None:
        pairs = (("di", "c_before"), ("df", "c_before"), ("do", "c"))
        found["d_w_peep"] = np.hstack([s.sum_of_products(*pair) for pair in pairs])
    return found


def gru(p: Problem) -> dict[str, Array]:
    """As rnn. With the reset gate after the product, n has two chains, from b_in and from b_hn,
    and r a is fused; the carry is a chain from what reaches h directly.
    """
    s, h = Steps(p), p.h_0
    rz, new = slice(2 * h.shape[1]), slice(2 * h.shape[1], None)
    w_n = np.hstack([p.w_ih, p.w_hh])[new]
    for t in s.order:
        x, bias = p.x[t], p.b_ih + p.b_hh
        gates = chain(bias[rz], np.hstack([x, h]), np.hstack([p.w_ih, p.w_hh])[rz])
        r, z = map(sigmoid, np.split(gates, 2, 1))
        if p.kind == "gru":
            a = chain(p.b_hh[new], h, p.w_hh[new])
            n = tanh(fma(r, a, chain(p.b_ih[new], x, p.w_ih[new])))
        else:
            a = r * h
            n = tanh(chain(bias[new], np.hstack([x, a]), w_n))
        s.keep(t, x=x, before=h, r=r, z=z, n=n, a=a)
        h = fma(z, h - n, n)
        s.keep(t, output=h)
    carry = p.d_h_n
    for t in s.order[::-1]:
        r, z, n, a, before = s.at(t, "r z n a before")
        dh = carry + p.d_output[t]
        dn = dh * (ONE - z) * fnma(n, n, ONE)
        dz = dh * (before - n) * fnma(z, z, z)
        if p.kind == "gru":
            dr, da = dn * a * fnma(r, r, r), dn * r
            d_h = np.hstack([dr, dz, da])
            carry = chain(dh * z, d_h, p.w_hh.T)
        else:
            of_rh = chain(ZERO, dn, p.w_hh[new].T)
            dr = of_rh * before * fnma(r, r, r)
            d_h = np.hstack([dr, dz])
            carry = chain(fma(of_rh, r, dh * z), d_h, p.w_hh[rz].T)
        d_gates = np.hstack([dr, dz, dn])
        s.keep(t, d_h=d_h, dn=dn, d_gates=d_gates, norms=norm(dh))
        s.keep(t, d_x=chain(ZERO, d_gates, p.w_ih.T))
    found = {name: s.whole(name) for name in ("output", "d_x", "norms")}
    found |= {"h_n": h, "d_h_0": carry, "d_b_ih": s.sum("d_gates")}
    found |= {"d_w_ih": s.product("d_gates", "x"), "d_w_hh": s.product("d_h", "before")}
    if p.kind == "gru":
        return found | {"d_b_hh": s.sum("d_h")}
    found["d_w_hh"] = np.vstack([found["d_w_hh"], s.product("dn", "a")])
    return found | {"d_b_hh": found["d_b_ih"]}


def leaky(p: Problem) -> dict[str, Array]:
    """As rnn. a times what is new is fused with (1 - a) times the state; of rates the carry is a
    chain from (1 - a) dh, of potentials it is (1 - a) dv + (the chain from +0) f'(v_{t-1}).
    """
    s, state, (f, back) = Steps(p), p.h_0, NONLINEARITIES[p.options()["nonlinearity"]]
    a = np.broadcast_to(p.leak, state.shape)
    potential, w = p.options()["form"] == "potential", np.hstack([p.w_ih, p.w_hh])
    for t in s.order:
        h = f(state) if potential else state
        s.keep(t, x=p.x[t], before=h)
        z = chain(p.b_ih + p.b_hh, np.hstack([p.x[t], h]), w)
        now = z if potential else f(z)
        s.keep(t, now=now, slack=now - state)
        state = fma(a, now, (ONE - a) * state)
        s.keep(t, output=f(state) if potential else state)
    carry = p.d_h_n
    for t in s.order[::-1]:
        before, now, slack, output = s.at(t, "before now slack output")
        if potential:
            d = carry + back(output, p.d_output[t])
            dz = a * d
            carry = (ONE - a) * d + back(before, chain(ZERO, dz, p.w_hh.T))
        else:
            d = carry + p.d_output[t]
            dz = back(now, a * d)
            carry = chain((ONE - a) * d, dz, p.w_hh.T)
        s.keep(t, dz=dz, da=d * slack, d_x=chain(ZERO, dz, p.w_ih.T), norms=norm(d))
    found = {name: s.whole(name) for name in ("output", "d_x", "norms")}
    found |= {"h_n": state, "d_h_0": carry, "d_b_ih": s.sum("dz"), "d_b_hh": s.sum("dz")}
    found |= {"d_w_ih": s.product("dz", "x"), "d_w_hh": s.product("dz", "before")}
    return found | {"d_leak": s.sum("da")}


@grid(
    "spec, reverse",
    [*with_every_kind(Spec(45, 13, 5, 11)), Spec(90, 13, 5, 11, "relu")],
    (False, True),
    once=True,
)
def test_the_order_of_every_sum(spec: Spec, reverse: bool) -> None:
    """The bits are those of the documented order, so they are the same on any processor."""
    p = draw(spec._replace(reverse=reverse), np.float32)
    fastrnn.set_isa(ISAS[0])  # for the activations
    want = globals()[p.cell.name](p)  # the function above of the cell's name
    for isa in ISAS:
        fastrnn.set_isa(isa)
        got = run(fastrnn, p)
        assert {name for name, a in got.items() if a is not None} == set(want)
        assert_same_results(got, want, f"in the documented order, {isa}")
