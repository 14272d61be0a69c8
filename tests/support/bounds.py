"""How far two correct evaluations of a recurrent network may differ: bounds derived term by term.

The model of rounding is in rounding.py, the equations of the cells with their roundings in
bounds_cells.py; here they are run over time, and what comes out is compared.

LAMBDA = 7 gives 4.6e-11 for one element, and less than 5e-3 for the whole suite's 10^8. The data
come from fixed seeds, so a test that passes once on an instruction set passes always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import bounds_cells
import numpy as np
from bounds_cells import Factors, bias_of
from registry import CELLS, EXTRAS, KINDS, Cell, Variant, leaks, variants_of
from rounding import Array, Real, chain, known, settled, where

from fastrnn.reference.nonlinearities import NONLINEARITIES

Results = dict[str, Array]

LAMBDA = 7.0

# Weight gradients are summed in chunks of this many rows (t, b), t in the order of backward.
CHUNK = 512

# In a sum over time, errors of neighbouring steps have a common sign, until the state has forgotten
# the earlier one. If m neighbours have one error in common, q is m times that of independent ones.
# Drawn as modelled, errors spread up to 2.1 sqrt(q) without this.
MEMORY = 5.0

# Subnormals count as zero, so an operation may lose up to the smallest normal number. Fewer than
# 2^20 operations reach an element in any case here, with gains of order one. (In float64, what the
# squares in q lose is more: numbers below the root of the smallest normal one.)
FLUSHES = 2.0**20

# The axis of the batch in each array that has one.
BATCH_AXIS = {"x": 1, "output": 1, "d_x": 1, "d_output": 1, "mask": 1, "restart": 1, "norms": 1}
BATCH_AXIS |= {name: 0 for s in "hc" for name in (f"{s}_0", f"{s}_n", f"d_{s}_0", f"d_{s}_n")}


class Spec(NamedTuple):
    """What a problem is like: its sizes and which options it uses."""

    T: int
    B: int
    D: int
    H: int
    kind: str = "tanh"  # one of KINDS
    b_ih: bool = True
    b_hh: bool = True
    h_0: bool = True
    lengths: bool = False
    mask: bool = False
    restart: bool = False
    reverse: bool = False
    unbatched: bool = False
    upstream: str = "all"  # which of d_output, d_h_n and d_c_n are given: names joined by +
    c_0: bool = True
    P: int = 0  # of an LSTM with a projection
    peephole: bool = False

    def __str__(self) -> str:
        flags = ("b_ih", "b_hh", "h_0", "c_0", "lengths", "mask", "restart", "reverse")
        if "c" not in KINDS[self.kind].cell.states:
            flags = tuple(name for name in flags if name != "c_0")
        options = [self.kind, *(n for n in (*flags, "unbatched", "peephole") if getattr(self, n))]
        options += [f"P{self.P}"] * bool(self.P)
        return f"T{self.T}-B{self.B}-D{self.D}-H{self.H}-{'-'.join(options)}-up={self.upstream}"

    def of(self, variant: Variant) -> Spec:
        """The same with another variant of a cell."""
        P = self.H // 2 if "projection" in variant.extras else 0
        return self._replace(kind=variant.kind, P=P, peephole="peepholes" in variant.extras)


def with_every_kind(*specs: Spec) -> tuple[Spec, ...]:
    """These with every kind, and with every cell's extra weights.

    Kinds that are alike have only the first.
    """
    variants = [Variant(kind) for kind in KINDS]
    variants += [Variant(kind, k.cell.extras) for kind, k in KINDS.items() if k.cell.extras]
    return tuple(
        spec.of(variant)
        for i, spec in enumerate(specs)
        for variant in variants
        if i == 0 or not KINDS[variant.kind].alike
    )


def with_variants_in_turn(*specs: Spec, even: bool = False) -> tuple[Spec, ...]:
    """These with every cell, of which one variant comes after the other.

    even: sizes are those of a cell with four gates; those with fewer get as many multiply-adds,
    by more steps, or, of few rows, by more units.
    """
    found = []
    for cell in CELLS.values():
        variants = variants_of(cell)
        for i, spec in enumerate(specs):
            if even and spec.B > 8:
                spec = spec._replace(T=spec.T * 4 // cell.gates)
            elif even:
                spec = spec._replace(H=int(spec.H * (4 / cell.gates) ** 0.5))
            found.append(spec.of(variants[i % len(variants)]))
    return tuple(found)


@dataclass(frozen=True)
class Problem:
    """The arguments of one forward and one backward; the shapes are the public ones.

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
    kind: str = "tanh"
    lengths: Any = None
    mask: Any = None
    restart: Any = None
    reverse: bool = False
    c_0: Any = None
    w_hr: Any = None
    w_peep: Any = None
    leak: Any = None
    d_c_n: Any = None

    @property
    def cell(self) -> Cell:
        return KINDS[self.kind].cell

    @property
    def states(self) -> tuple[str, ...]:
        return self.cell.states

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arrays that have a gradient."""
        return self.cell.arguments

    @property
    def extras(self) -> dict[str, Any]:
        """The arguments for extra weights, given or not."""
        names = [*self.cell.required, *(EXTRAS[extra].argument for extra in self.cell.extras)]
        return {name: getattr(self, name) for name in names}

    @property
    def upstream(self) -> tuple[str, ...]:
        """The gradients that backward starts from."""
        return ("d_output", *(f"d_{s}_n" for s in self.states))

    def arrays(self) -> list[Any]:
        """The positional arguments of forward."""
        return [getattr(self, n) for n in self.arguments if n not in self.extras]

    def weights(self) -> Results:
        """The weights that there are."""
        names = [n for n in self.arguments if n[0] in "wb" or n in self.cell.required]
        given = {name: getattr(self, name) for name in names}
        return {name: w for name, w in given.items() if w is not None}

    def options(self) -> dict[str, Any]:
        """The keyword arguments of forward."""
        walk = {n: getattr(self, n) for n in ("lengths", "mask", "restart", "reverse")}
        return {**KINDS[self.kind].options, **self.extras, **walk}

    def gradients(self) -> list[Any]:
        """The positional arguments of backward, after the tape."""
        return [getattr(self, name) for name in self.upstream]

    def change(self, f: Any, *names: str) -> Problem:
        """With f(array) instead of every floating-point array, or of those named."""
        names = names or (*self.arguments, *self.upstream)
        given = {name: getattr(self, name) for name in names}
        return replace(self, **{name: f(a) for name, a in given.items() if a is not None})

    def astype(self, dtype: Any) -> Problem:
        """The same problem with every floating-point array in another type."""
        return self.change(lambda a: a.astype(dtype))


def processing_order(T: int, reverse: bool) -> list[int]:
    """The time steps in the order in which the recurrence visits them."""
    return list(range(T))[::-1] if reverse else list(range(T))


def _steps(p: Problem, T: int, B: int) -> Iterator[tuple[int, Array, Array]]:
    """In processing order: t, which rows run at t (B, 1), which of them keep their state (B, 1)."""
    on = there(p).reshape(T, B)
    restart = np.zeros((T, B), bool) if p.restart is None else np.asarray(p.restart).reshape(T, B)
    for t in processing_order(T, p.reverse):
        yield t, on[t][:, None], ~restart[t][:, None]


def there(p: Problem) -> Array:
    """(T, B), or (T,) without a batch: which steps of the rows count."""
    axes = p.x.shape[:-1]
    on = np.ones(axes, bool)
    if p.lengths is not None:
        on = (np.arange(len(p.x))[:, None] < p.lengths).reshape(axes)
    return on if p.mask is None else on & p.mask


def draw(spec: Spec, dtype: Any, seed: int = 0) -> Problem:
    """A problem of the given kind, from a fixed seed.

    With fewer than 8 units, the signs of so few weights leave much of what gates have in common:
    then W_hh is smaller, and what goes through it fades.
    Biases are multiples of 2^-10: round(b_ih + b_hh) is exact, and no error is shared by all steps.
    No pre-activation lies near a kink (where a rounding would change a derivative, and no bound on
    the difference is small): a row of x that comes too close is drawn again.
    """
    T, B, D, H = spec[:4]
    assert B == 1 or not spec.unbatched
    P = spec.P or H
    cell, norm = KINDS[spec.kind].cell, KINDS[spec.kind].norm
    G = cell.gates
    rng = np.random.default_rng([seed, *spec[:4]])

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (rng.standard_normal(shape) * scale).astype(dtype)

    def bias(given: bool) -> Any:
        return (rng.integers(-300, 300, G * H) / 1024.0).astype(dtype) if given else None

    def given(name: str) -> bool:
        return spec.upstream == "all" or name in spec.upstream.split("+")

    w_hh = rng.standard_normal((G, H, P))
    w_hh *= norm / np.linalg.norm(w_hh, 2, (1, 2), keepdims=True)
    if G > 1:
        w_hh *= min(1.0, H / 8)
    p = Problem(
        kind=spec.kind,
        x=normal(T, B, D),
        h_0=normal(B, P, scale=0.5) if spec.h_0 else None,
        w_ih=normal(G * H, D, scale=0.7 / np.sqrt(D)),
        w_hh=w_hh.reshape(G * H, P).astype(dtype),
        b_ih=bias(spec.b_ih),
        b_hh=bias(spec.b_hh),
        d_output=normal(T, B, P) if given("d_output") else None,
        d_h_n=normal(B, P) if given("d_h_n") else None,
        lengths=_lengths(rng, T, B) if spec.lengths else None,
        mask=_mask(rng, T, B) if spec.mask else None,
        restart=rng.random((T, B)) < 0.15 if spec.restart else None,
        reverse=spec.reverse,
    )
    if "c" in cell.states:
        w_hr = rng.standard_normal((P, H))
        w_hr *= norm / np.linalg.norm(w_hr, 2)
        p = replace(
            p,
            c_0=normal(B, H, scale=0.5) if spec.c_0 else None,
            d_c_n=normal(B, H) if given("d_c_n") else None,
            w_hr=w_hr.astype(dtype) if spec.P else None,
            w_peep=normal(3 * H, scale=0.3) if spec.peephole else None,
        )
    if "leak" in cell.required:
        p = replace(p, leak=leaks(rng, H).astype(dtype))
    if KINDS[spec.kind].kinks:
        _move_off_the_kinks(p, rng)
    return unbatched(p) if spec.unbatched else p


def _lengths(rng: np.random.Generator, T: int, B: int) -> Array:
    """Lengths from 0 to T in no order; the first two rows, where there are two, have both ends."""
    lengths = rng.integers(0, T + 1, B)
    lengths[: min(B, 2)] = [0, T][: min(B, 2)]
    return rng.permutation(lengths)


def _mask(rng: np.random.Generator, T: int, B: int) -> Array:
    """Gaps anywhere; the last two rows, where there are three, have all steps and none."""
    mask = rng.random((T, B)) < 0.6
    if B > 2:
        mask[:, -2:] = [True, False]
    return mask


def unbatched(p: Problem) -> Problem:
    """The problem's only row without its batch axis."""
    return _on_batch_axis(p, np.squeeze)


def _batched(p: Problem) -> Problem:
    """The problem with its batch axis."""
    return p if p.x.ndim == 3 else _on_batch_axis(p, np.expand_dims)


def _on_batch_axis(p: Problem, f: Any) -> Problem:
    given = {name: getattr(p, name, None) for name in BATCH_AXIS}
    return replace(
        p, **{name: f(a, BATCH_AXIS[name]) for name, a in given.items() if a is not None}
    )


def _move_off_the_kinks(p: Problem, rng: np.random.Generator) -> None:
    """Redraw, in place, the rows of x whose pre-activation comes nearer to one than any bound."""
    kinks, f = KINDS[p.kind].kinks, NONLINEARITIES[KINDS[p.kind].options["nonlinearity"]].f
    margin = 1e-3 if p.x.dtype == np.float32 else 1e-9
    q = p.astype(np.float64)
    T, B, D = p.x.shape
    bias = bias_of(q)
    h = np.zeros((B, len(bias))) if q.h_0 is None else q.h_0
    for t, on, keep in _steps(p, T, B):
        before = np.where(keep, h, 0.0)
        while True:
            z = p.x[t].astype(np.float64) @ q.w_ih.T + before @ q.w_hh.T + bias
            near = np.any([abs(z - kink) < margin for kink in kinks], axis=(0, 2))
            if not near.any():
                break
            p.x[t, near] = rng.standard_normal((int(near.sum()), D)).astype(p.x.dtype)
        h = np.where(on, f(z) if q.leak is None else (1 - q.leak) * before + q.leak * f(z), h)


def run(functions: ModuleType, p: Problem, wrt: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Forward and backward: output, h_n, c_n, norms and, as d_..., every argument's gradient."""
    *results, tape = p.cell.forward(functions)(*p.arrays(), **p.options())
    grads = p.cell.backward(functions)(tape, *p.gradients(), wrt=wrt)
    assert grads._fields == p.arguments
    found = dict(zip(("output", "h_n", "c_n"), results, strict=False))
    found["norms"] = functions.gradient_norms(tape, *p.gradients())
    return found | {f"d_{k}": v for k, v in grads._asdict().items()}


@dataclass(frozen=True)
class Analysis:
    """The values of a run in float64, and q, the squared error of every result in units of u^2.

    `q` is for weight gradients summed in chunks of CHUNK rows, `q_plain` for one sum over all rows.
    `terms`, for tests that drop one: (index, factor, w, y), where the elements i of a result at
    this index have changed by factor_i w_ik y_k, to first order, if the term k of a sum is missing.
    """

    values: Results
    q: Results
    q_plain: Results
    terms: dict[str, tuple[tuple[int, ...], Array, Array, Array]]
    kink: float  # the least |z - kink| / sqrt(q(z)); inf where there are no kinks


def analyse(p: Problem) -> Analysis:
    """Evaluate the network and its gradients in float64, and q beside them."""
    squeezed = p.x.ndim == 2
    p = _batched(p.astype(np.float64))
    (T, B, D), P = p.x.shape, p.w_hh.shape[1]
    units = {"h": P, "c": len(p.w_hh) // p.cell.gates}
    equations = getattr(bounds_cells, p.cell.name)

    def start(name: str) -> list[Real]:
        given = {s: getattr(p, name.format(s)) for s in p.states}
        return [known(np.zeros((B, units[s])) if a is None else a) for s, a in given.items()]

    # Values and q.
    output, d_x, norms = np.zeros((2, T, B, P)), np.zeros((2, T, B, D)), np.zeros((2, T, B))
    factors: Factors = {}
    kink = np.inf

    visits, steps, state = list(_steps(p, T, B)), {}, start("{}_0")
    for t, on, keep in visits:
        before = [where(on & keep, a) for a in state]
        step = steps[t] = equations(p, p.x[t], *before)
        state = [where(on, a, b) for a, b in zip(step.state, state, strict=True)]
        output[:, t] = _pair(where(on, step.state[0] if step.output is None else step.output))
        factors = _latest(factors, step.factors, on)
        if step.kink is not None:
            kink = min(kink, float(step.kink[on[:, 0]].min(initial=np.inf)))

    d_output = np.zeros(output[0].shape) if p.d_output is None else p.d_output
    rows: dict[str, list[list[Any]]] = {}  # by weight, pair of `sums` and step
    carry = start("d_{}_n")
    for t, on, keep in reversed(visits):
        step = steps.pop(t)
        back = step.back(step.enter(carry[0], d_output[t]), *carry[1:])
        carry = [where(on, where(keep, a), b) for a, b in zip(back.carry, carry, strict=True)]
        norms[:, t] = _norm(settled(*(where(on, a) for a in back.d_state)))
        for name, pairs in back.sums.items():
            of_weight = rows.setdefault(name, [[] for _ in pairs])
            for of_pair, (a, y) in zip(of_weight, pairs, strict=True):
                of_pair.append((*_pair(where(on, a)), *_pair(y)))
        dz, d_hidden = (back.sums[name][0][0] for name in ("w_ih", "w_hh"))
        d_x[:, t] = _pair(where(on, chain(0.0, (dz, p.w_ih.T))))
        w = p.w_hh[: d_hidden.value.shape[1]]
        of_step = {"d_x": (on, p.w_ih.T, dz.value), "d_h_0": (keep, w.T, d_hidden.value)}
        of_step |= {name: (keep * a, w, y) for name, (a, w, y) in back.factors.items()}
        factors = _latest(factors, of_step, on)

    found = {"output": output, "d_x": d_x, "norms": norms}
    found |= {f"{s}_n": _pair(a) for s, a in zip(p.states, state, strict=True)}
    found |= {f"d_{s}_0": _pair(a) for s, a in zip(p.states, carry, strict=True)}
    if squeezed:
        found = {name: a.squeeze(BATCH_AXIS[name] + 1) for name, a in found.items()}
    for name, w in p.weights().items():
        summed = _sums_over_rows(rows[name]) if visits else np.zeros((3, *w.shape))
        found[f"d_{name}"] = summed.reshape(3, *w.shape)
    values, q, q_plain = ({name: a[i] for name, a in found.items()} for i in (0, 1, -1))
    return Analysis(values, q, q_plain, _terms(factors, rows, visits), kink)


def _pair(a: Any) -> Array:
    return np.array([a.value, a.q] if isinstance(a, Real) else [a, np.zeros_like(a)])


def _norm(a: Real) -> Array:
    """The root of a sum of n squares in 16 chains: half of the sum's relative error, and its own.

    As |d norm| <= |d a|, it does not matter what the errors of the elements have in common.
    """
    norm = np.sqrt((a.value**2).sum(-1))
    return np.array([norm, a.q.sum(-1) + (a.value.shape[-1] / 64 + 5) * norm**2])


def _sums_over_rows(pairs: list[list[Any]]) -> Array:
    """A weight's gradient, its q in chunks and in one sum; rows in the order of backward."""
    blocks = []
    for steps in pairs:
        a, q_a, y, q_y = (np.concatenate(parts) for parts in zip(*steps, strict=True))
        brought = MEMORY * (q_a.T @ y**2 + a.T**2 @ q_y)
        q = [brought + _sum_of_chunks(a, y, n) for n in (CHUNK, max(len(a), 1))]
        blocks.append(np.array([a.T @ y, *q]))
    return np.concatenate(blocks, 1)


def _latest(factors: Factors, of_step: Factors, on: Array) -> Factors:
    """For the rows that run at this step its factors, for others what they had."""
    none = np.zeros(1)
    merged = dict(factors)
    for name, (a, w, y) in of_step.items():
        old_a, _, old_y = factors.get(name, (none, none, none))
        merged[name] = np.where(on, a, old_a), w, np.where(on, y, old_y)
    return merged


def _terms(factors: Factors, rows: dict[str, Any], visits: list[Any]) -> dict[str, Any]:
    """Analysis.terms: from `factors` of each row's last step, and the first row of every weight."""
    if not visits:
        return {}
    (first, started, _), (last, on, _) = visits[0], visits[-1]
    terms = {name: ((), *f) for name, f in factors.items()}
    (_, a, w, y), (_, d_a, d_w, d_y) = terms.pop("output", terms["h_n"]), terms["d_x"]
    terms |= {"output": ((last,), on * a, w, y), "d_x": ((first,), started * d_a, d_w, d_y)}
    for name, pairs in rows.items():
        a, _, y, _ = (np.concatenate(parts) for parts in zip(*pairs[0], strict=True))
        index = (0,) if name.startswith("w_") and name != "w_peep" else ()
        terms[f"d_{name}"] = (index, np.ones(y.shape[1]), y.T, a[:, 0])
    return terms


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
    assert analysis.kink > 2.0 * LAMBDA * u, "a pre-activation lies within its error of a kink"
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
        expected = np.float64 if name == "norms" else dtype
        assert value is None or value.dtype == expected, f"{name} is {value.dtype}, not {expected}"
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
