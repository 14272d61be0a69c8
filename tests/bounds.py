"""How far two correct evaluations of an Elman network may differ: bounds derived term by term.

The model. One rounding turns an exact s into s(1 + d) with |d| <= u, u = eps/2. Over a whole run,
to first order, the error of any result is a weighted sum of the d of every operation before it.
A worst-case bound adds the weights' absolute values: for a sum of n terms it is about sqrt(n)
times what happens, and through the recurrence |W_hh|^T grows where W_hh^T shrinks, so it soon
says nothing. Here the d are modelled as independent and of mean zero (N. J. Higham and T. Mary,
"A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019). Then,
by Hoeffding's inequality, with q the sum of the squared weights,

    P(|error| > LAMBDA u sqrt(q)) <= 2 exp(-LAMBDA^2 / 2),

and q obeys rules as simple as the absolute values did:

    independent errors         q(a + b) = q(a) + q(b)
    a factor w without error   q(w a) = w^2 q(a)
    a rounding                 q(fl(a)) = q(a) + a^2

Errors that reach one number along two paths (two units, two time steps) are added by the first
rule too: the weights that join the paths are drawn with random signs, so that the cross terms
have mean zero.

A sum of n terms t_k with the result S and Q = sum t_k^2 makes the roundings sum_k s_k^2 of its
partial sums. A walk with random signs strays from the straight line to S by no more than about
sqrt(Q), whatever its order, so

    q(sum) = n (Q + S^2) + what the terms bring along.

This holds for one chain of fused multiply-adds, for multiply-then-add (Q more, within the slack
of n Q) and for the blocked sums of a matrix library.

LAMBDA = 7 gives 4.6e-11 for one element, and less than 5e-3 for the whole suite's 10^8. The data
come from fixed seeds, so a test that passes once on an instruction set passes always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Results = dict[str, Array]

LAMBDA = 7.0

# tanh is promised within 2 ULP, and one ULP is at most 2u of the value: |error| <= 4 u |tanh|.
TANH_UNITS = 4.0

# Weight gradients are summed in chunks of this many rows (t, b), t in the order of backward.
CHUNK = 512

# Subnormals count as zero, so an operation may lose up to the smallest normal number. Fewer than
# 2^20 operations reach an element in any case here, with gains of order one. (In float64, what the
# squares in q lose is more: numbers below the root of the smallest normal one.)
FLUSHES = 2.0**20

ARGUMENTS = ("x", "h_0", "w_ih", "w_hh", "b_ih", "b_hh")


class Spec(NamedTuple):
    """What a problem is like: its sizes and which options it uses."""

    T: int
    B: int
    D: int
    H: int
    nonlinearity: str = "tanh"
    b_ih: bool = True
    b_hh: bool = True
    h_0: bool = True
    lengths: bool = False
    restart: bool = False
    reverse: bool = False
    unbatched: bool = False
    upstream: str = "both"  # which of d_output and d_h_n are given: both, d_output, d_h_n

    def __str__(self) -> str:
        options = [
            self.nonlinearity,
            *(name for name in ("b_ih", "b_hh", "h_0") if getattr(self, name)),
            *(n for n in ("lengths", "restart", "reverse", "unbatched") if getattr(self, n)),
            f"up={self.upstream}",
        ]
        return f"T{self.T}-B{self.B}-D{self.D}-H{self.H}-" + "-".join(options)


@dataclass(frozen=True)
class Problem:
    """The arguments of one rnn_forward and one rnn_backward; the shapes are the public ones.

    What is Any is an array or None.
    """

    x: Array
    h_0: Any
    w_ih: Array
    w_hh: Array
    b_ih: Any
    b_hh: Any
    d_output: Any
    d_h_n: Any
    nonlinearity: str = "tanh"
    lengths: Any = None
    restart: Any = None
    reverse: bool = False

    def arrays(self) -> tuple[Any, ...]:
        """The positional arguments of rnn_forward."""
        return self.x, self.h_0, self.w_ih, self.w_hh, self.b_ih, self.b_hh

    def options(self) -> dict[str, Any]:
        """The keyword arguments of rnn_forward."""
        return {
            "nonlinearity": self.nonlinearity,
            "lengths": self.lengths,
            "restart": self.restart,
            "reverse": self.reverse,
        }

    def astype(self, dtype: Any) -> Problem:
        """The same problem with every floating-point array in another type."""
        changed = {
            name: None if value is None else value.astype(dtype)
            for name in (*ARGUMENTS, "d_output", "d_h_n")
            for value in [getattr(self, name)]
        }
        return Problem(**changed, **self.options())


def processing_order(T: int, reverse: bool) -> list[int]:
    """The time steps in the order in which the recurrence visits them."""
    return list(range(T))[::-1] if reverse else list(range(T))


def _steps(p: Problem, T: int, B: int) -> Iterator[tuple[int, Array, Array]]:
    """In processing order: t, which rows run at t (B, 1), which of them keep their state (B, 1)."""
    lengths = np.full(B, T) if p.lengths is None else np.asarray(p.lengths)
    restart = np.zeros((T, B), bool) if p.restart is None else np.asarray(p.restart).reshape(T, B)
    for t in processing_order(T, p.reverse):
        yield t, (t < lengths)[:, None], ~restart[t][:, None]


def draw(spec: Spec, dtype: Any, seed: int = 0) -> Problem:
    """A problem of the given kind, from a fixed seed.

    W_hh has the spectral norm 1.4, which the slope of tanh brings to about 1, or 0.95 for relu:
    states and gradients reach back tens of steps, and neither they nor their errors explode.
    Biases are multiples of 2^-10: round(b_ih + b_hh) is exact, and no error is shared by all steps.
    For relu no pre-activation lies near 0 (where a rounding would flip a derivative, and no bound
    on the difference is small): a row of x that comes too close is drawn again.
    """
    T, B, D, H = spec[:4]
    assert B == 1 or not spec.unbatched
    rng = np.random.default_rng([seed, *spec[:4]])

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (rng.standard_normal(shape) * scale).astype(dtype)

    def bias(given: bool) -> Any:
        return (rng.integers(-300, 300, H) / 1024.0).astype(dtype) if given else None

    w_hh = rng.standard_normal((H, H))
    w_hh *= (1.4 if spec.nonlinearity == "tanh" else 0.95) / np.linalg.norm(w_hh, 2)
    p = Problem(
        x=normal(T, B, D),
        h_0=normal(B, H, scale=0.5) if spec.h_0 else None,
        w_ih=normal(H, D, scale=0.7 / np.sqrt(D)),
        w_hh=w_hh.astype(dtype),
        b_ih=bias(spec.b_ih),
        b_hh=bias(spec.b_hh),
        d_output=normal(T, B, H) if spec.upstream in ("both", "d_output") else None,
        d_h_n=normal(B, H) if spec.upstream in ("both", "d_h_n") else None,
        nonlinearity=spec.nonlinearity,
        lengths=_lengths(rng, T, B) if spec.lengths else None,
        restart=rng.random((T, B)) < 0.15 if spec.restart else None,
        reverse=spec.reverse,
    )
    if spec.nonlinearity == "relu":
        _move_off_the_kink(p, rng)
    return unbatched(p) if spec.unbatched else p


def _lengths(rng: np.random.Generator, T: int, B: int) -> Array:
    """Lengths from 0 to T in no order; the first two rows, where there are two, have both ends."""
    lengths = rng.integers(0, T + 1, B)
    lengths[: min(B, 2)] = [0, T][: min(B, 2)]
    return rng.permutation(lengths)


def unbatched(p: Problem) -> Problem:
    """The problem's only row without its batch axis."""

    def squeeze(a: Any, axis: int) -> Any:
        return None if a is None else a.squeeze(axis)

    x = p.x.squeeze(1)
    return Problem(
        x, squeeze(p.h_0, 0), p.w_ih, p.w_hh, p.b_ih, p.b_hh,
        squeeze(p.d_output, 1), squeeze(p.d_h_n, 0),
        p.nonlinearity, p.lengths, squeeze(p.restart, 1), p.reverse,
    )  # fmt: skip


def _move_off_the_kink(p: Problem, rng: np.random.Generator) -> None:
    """Redraw, in place, the rows of x whose pre-activation comes nearer to 0 than any bound."""
    margin = 1e-3 if p.x.dtype == np.float32 else 1e-9
    q = p.astype(np.float64)
    T, B, D = p.x.shape
    bias = _bias(q)
    h = np.zeros((B, len(bias))) if q.h_0 is None else q.h_0
    for t, on, keep in _steps(p, T, B):
        before = np.where(keep, h, 0.0)
        while True:
            z = p.x[t].astype(np.float64) @ q.w_ih.T + before @ q.w_hh.T + bias
            near = (np.abs(z) < margin).any(axis=1)
            if not near.any():
                break
            p.x[t, near] = rng.standard_normal((int(near.sum()), D)).astype(p.x.dtype)
        h = np.where(on, np.maximum(z, 0.0), h)


def _bias(p: Problem) -> Array:
    given = [b for b in (p.b_ih, p.b_hh) if b is not None]
    return np.sum(given, axis=0) if given else np.zeros(len(p.w_hh))


def run(functions: ModuleType, p: Problem, wrt: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Forward and backward: output, h_n and, as d_..., the gradient of every argument."""
    output, h_n, tape = functions.rnn_forward(*p.arrays(), **p.options())
    grads = functions.rnn_backward(tape, p.d_output, p.d_h_n, wrt=wrt)
    assert grads._fields == ARGUMENTS
    return {"output": output, "h_n": h_n, **{f"d_{k}": v for k, v in grads._asdict().items()}}


@dataclass(frozen=True)
class Analysis:
    """The values of a run in float64, and q, the squared error of every result in units of u^2.

    `q` is for weight gradients summed in chunks of CHUNK rows, `q_plain` for one sum over all rows.
    `terms` are the factors of every sum, for tests that drop a term.
    """

    values: Results
    q: Results
    q_plain: Results
    terms: Results
    kink: float  # the least |z| / sqrt(q(z)) of a relu; inf for tanh


def analyse(p: Problem) -> Analysis:
    """Evaluate the network and its gradients in float64, and q beside each line."""
    squeezed = p.x.ndim == 2
    p = _batched(p.astype(np.float64))
    T, B, D = p.x.shape
    H = len(p.w_hh)
    bias, w_ih, w_hh = _bias(p), p.w_ih, p.w_hh
    w_ih2, w_hh2 = w_ih**2, w_hh**2
    tanh = p.nonlinearity == "tanh"
    kink = np.inf

    # Forward: z = b + W_ih x + W_hh h', n = 2 + D + H roundings; h = f(z), |f'| <= 1.
    h = np.zeros((B, H)) if p.h_0 is None else p.h_0
    q_h = np.zeros((B, H))
    output, slope, before, q_output, q_before = np.zeros((5, T, B, H))
    for t, on, keep in _steps(p, T, B):
        before[t] = np.where(keep & on, h, 0.0)
        q_before[t] = np.where(keep & on, q_h, 0.0)
        z = bias + p.x[t] @ w_ih.T + before[t] @ w_hh.T
        Q = bias**2 + p.x[t] ** 2 @ w_ih2.T + before[t] ** 2 @ w_hh2.T
        q_z = (2 + D + H) * (Q + z**2) + q_before[t] @ w_hh2.T
        if tanh:
            new = np.tanh(z)
            slope[t] = np.where(on, 1.0 - new**2, 0.0)
            q_new = slope[t] ** 2 * q_z + (TANH_UNITS * new) ** 2
        else:
            new = np.maximum(z, 0.0)
            slope[t] = np.where(on, z > 0.0, 0.0)
            q_new = slope[t] ** 2 * q_z
            error, far = np.sqrt(q_z), np.full_like(z, np.inf)
            distance = np.divide(np.abs(z), error, out=far, where=on & (error > 0.0))
            kink = min(kink, float(distance.min(initial=np.inf)))
        h, q_h = np.where(on, new, h), np.where(on, q_new, q_h)
        output[t], q_output[t] = np.where(on, new, 0.0), np.where(on, q_new, 0.0)

    # Backward: dh = d_output + carry (one rounding), dz = f'(z) dh, carry = dz W_hh, dx = dz W_ih.
    carry = np.zeros((B, H)) if p.d_h_n is None else p.d_h_n
    q_carry = np.zeros((B, H))
    d_output = np.zeros((T, B, H)) if p.d_output is None else p.d_output
    dz, q_dz = np.zeros((2, T, B, H))
    for t, on, keep in reversed(list(_steps(p, T, B))):
        dh = d_output[t] + carry
        q_dh = q_carry + dh**2
        dz[t] = np.where(on, slope[t] * dh, 0.0)
        q_dz[t] = slope[t] ** 2 * q_dh
        if tanh:
            # f' = 1 - h^2: the error of h enters as 2 h, h^2 and f' are rounded, then the product.
            y = output[t]
            q_slope = 4.0 * y**2 * q_output[t] + y**4 + slope[t] ** 2
            q_dz[t] += np.where(on, dh**2 * q_slope, 0.0) + dz[t] ** 2
        new = dz[t] @ w_hh
        q_new = H * (dz[t] ** 2 @ w_hh2 + new**2) + q_dz[t] @ w_hh2
        carry = np.where(on, np.where(keep, new, 0.0), carry)
        q_carry = np.where(on, np.where(keep, q_new, 0.0), q_carry)
    d_x = dz @ w_ih
    q_d_x = H * (dz**2 @ w_ih2 + d_x**2) + q_dz @ w_ih2

    # Weight gradients: sums over the rows (t, b), t in the order in which backward visits it.
    order = np.array(processing_order(T, p.reverse)[::-1], int)

    def rows(a: Array) -> Array:
        return a[order].reshape(T * B, a.shape[2])

    values = {"output": output, "h_n": h, "d_x": d_x, "d_h_0": carry}
    q = {"output": q_output, "h_n": q_h, "d_x": q_d_x, "d_h_0": q_carry}
    q_plain = dict(q)
    ones, none = np.ones((T * B, 1)), np.zeros((T * B, 1))
    for name, y, q_y in (
        ("w_ih", rows(p.x), np.zeros((T * B, D))),
        ("w_hh", rows(before), rows(q_before)),
        ("b", ones, none),
    ):
        total, brought = rows(dz).T @ y, rows(q_dz).T @ y**2 + rows(dz).T ** 2 @ q_y
        chunked = brought + _sum_of_chunks(rows(dz), y, CHUNK)
        plain = brought + _sum_of_chunks(rows(dz), y, max(T * B, 1))
        for full in ("b_ih", "b_hh") if name == "b" else (name,):
            values[f"d_{full}"] = total[:, 0] if name == "b" else total
            q[f"d_{full}"] = chunked[:, 0] if name == "b" else chunked
            q_plain[f"d_{full}"] = plain[:, 0] if name == "b" else plain

    terms = {"x": p.x, "before": before, "dz": dz, "slope": slope}
    if squeezed:
        for d in (values, q, q_plain):
            d |= {k: d[k][:, 0] for k in ("output", "d_x")} | {k: d[k][0] for k in ("h_n", "d_h_0")}
    return Analysis(values, q, q_plain, terms, kink)


def _batched(p: Problem) -> Problem:
    """The problem with its batch axis."""
    if p.x.ndim == 3:
        return p

    def expand(a: Any, axis: int) -> Any:
        return None if a is None else np.expand_dims(np.asarray(a), axis)

    return Problem(
        p.x[:, None], expand(p.h_0, 0), p.w_ih, p.w_hh, p.b_ih, p.b_hh,
        expand(p.d_output, 1), expand(p.d_h_n, 0),
        p.nonlinearity, p.lengths, expand(p.restart, 1), p.reverse,
    )  # fmt: skip


def _sum_of_chunks(a: Array, b: Array, chunk: int) -> Array:
    """q of a^T b made by one chain a chunk of rows, the C chunks then added in order."""
    sums, squares, q = np.zeros((3, a.shape[1], b.shape[1]))
    starts = range(0, len(a), chunk)
    for start in starts:
        block = slice(start, min(start + chunk, len(a)))
        S, Q = a[block].T @ b[block], a[block].T ** 2 @ b[block] ** 2
        q += len(a[block]) * (Q + S**2)
        sums += S
        squares += S**2
    return q + (len(starts) if len(starts) > 1 else 0) * (squares + sums**2)


def bounds(analysis: Analysis, dtype: Any, *, both: bool) -> Results:
    """The largest |difference| of each result from the truth, or from another evaluation.

    both=False: against a result whose own error does not count (float64 beside float32).
    both=True: against a result of the same type that sums all rows of a weight gradient at once.
    """
    info = np.finfo(dtype)
    u = float(info.eps) / 2
    lost = FLUSHES * max(float(info.tiny), float(np.finfo(np.float64).tiny) ** 0.5)
    assert analysis.kink > 2.0 * LAMBDA * u, "a relu lies within its error of the kink"
    return {
        name: LAMBDA * u * (np.sqrt(q) + (np.sqrt(analysis.q_plain[name]) if both else 0.0))
        + np.where((q > 0.0) | (analysis.values[name] != 0.0), lost, 0.0)
        for name, q in analysis.q.items()
    }


def ratios(got: Mapping[str, Any], want: Mapping[str, Any], bound: Results) -> dict[str, float]:
    """The largest |got - want| / bound of every result; 0/0 is 0, and NaN counts as inf."""
    found = {}
    for name, expected in want.items():
        value = got[name]
        if expected is None or value is None:
            assert expected is value, f"{name} is None on one side only"
            continue
        assert value.shape == expected.shape == bound[name].shape, f"{name} has another shape"
        error = np.abs(value.astype(np.float64) - expected.astype(np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error == 0.0, 0.0, error / bound[name])
        ratio = np.where(np.isnan(ratio), np.inf, ratio)
        found[name] = float(ratio.max(initial=0.0))
    return found


# The largest ratio so far and the case it came from, by (type, result).
_largest: dict[tuple[str, str], tuple[float, str]] = {}
_largest_ulp: dict[tuple[str, str], tuple[float, float]] = {}


def check(
    got: Mapping[str, Any],
    want: Mapping[str, Any],
    bound: Results,
    dtype: Any,
    where: str,
) -> None:
    """Fail where a result leaves its bound, and remember the largest ratio for the summary."""
    for name, value in got.items():
        assert value is None or value.dtype == dtype, f"{name} is {value.dtype}, not {dtype}"
    found = ratios(got, want, bound)
    for name, ratio in found.items():
        key = (np.dtype(dtype).name, name)
        _largest[key] = max(_largest.get(key, (0.0, "")), (ratio, where))
    over = {name: ratio for name, ratio in found.items() if not ratio <= 1.0}
    assert not over, f"error over bound: {over} in {where}"


def record_ulp(function: str, dtype: Any, ulp: float, worst: float) -> None:
    """Remember the largest error of an activation, in ULP, and its input for the summary."""
    key = (function, np.dtype(dtype).name)
    _largest_ulp[key] = max(_largest_ulp.get(key, (0.0, 0.0)), (ulp, worst))


def summary_lines() -> list[str]:
    """What the run measured, for the end of the report; empty where nothing was compared."""
    lines = []
    for dtype in sorted({dtype for dtype, _ in _largest}):
        of = {name: v for (d, name), v in _largest.items() if d == dtype}
        ratio, where = max(of.values())
        each = ", ".join(f"{name} {r:.3f}" for name, (r, _) in of.items())
        lines.append(f"{dtype}: largest error / bound {ratio:.3f} ({each}); {where}")
    for (function, dtype), (ulp, worst) in sorted(_largest_ulp.items()):
        lines.append(f"{function} {dtype}: largest error {ulp:.3f} ULP at {worst!r}")
    return lines
