"""The same bits: what must not change a single bit of a result, compared as integers.

Outputs, states, the gradients of x, h_0 and c_0 and their norms do not depend on the number of
threads, on the rest of the batch, on where a sequence is cut (test_bits_cuts.py), or on the
instruction set. Weight gradients do not depend on threads or instruction set. The "generic"
instruction set multiplies, then adds: it is outside the promise (test_agreement.py holds it to the
bounds). test_bits_order.py says which bits they are.
"""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bounds import BATCH_AXIS, KINDS, Array, Problem, Spec, draw, run, unbatched

import fastrnn
from fastrnn import _core

# Where a machine runs "generic" alone, it is the one there is to check.
ISAS = tuple(isa for isa in fastrnn.available_isas() if isa != "generic") or ("generic",)
DTYPES = (np.float32, np.float64)

# One thread and less than a panel; tails of every tile; then several threads, blocks of time steps
# and chunks of 512 rows; few rows and many units, where threads share out the units.
SMALL = (
    Spec(5, 3, 2, 3),
    Spec(7, 9, 17, 33, "relu", lengths=True, restart=True),
    Spec(6, 13, 8, 16, lengths=True, reverse=True),
    Spec(9, 1, 3, 31, restart=True, reverse=True),
    Spec(5, 3, 2, 3, "lstm"),
    Spec(7, 9, 17, 33, "lstm", P=17, peephole=True, lengths=True, restart=True),
    Spec(6, 13, 8, 16, "lstm", peephole=True, lengths=True, reverse=True),
    Spec(9, 1, 3, 31, "lstm", P=7, restart=True, reverse=True),
    Spec(5, 3, 2, 3, "gru"),
    Spec(7, 9, 17, 33, "gru_first", lengths=True, restart=True),
    Spec(6, 13, 8, 16, "gru_first", lengths=True, reverse=True),
    Spec(9, 1, 3, 31, "gru", restart=True, reverse=True),
)
LARGE_ELMAN = (
    Spec(70, 37, 20, 100, lengths=True),
    Spec(70, 37, 20, 100, "relu", restart=True, reverse=True),
    Spec(40, 8, 3, 300, lengths=True, restart=True),
    Spec(30, 1, 5, 512),
    Spec(30, 2, 64, 400, "relu", reverse=True),
)
LARGE_LSTM = (
    Spec(20, 37, 20, 100, "lstm", lengths=True),
    Spec(20, 37, 20, 70, "lstm", P=33, peephole=True, restart=True, reverse=True),
    Spec(20, 8, 3, 150, "lstm", peephole=True, lengths=True, restart=True),
    Spec(20, 1, 5, 300, "lstm"),
    Spec(20, 2, 64, 200, "lstm", P=100, reverse=True),
)
LARGE_GRU = (
    Spec(20, 37, 20, 100, "gru", lengths=True),
    Spec(20, 37, 20, 100, "gru_first", restart=True, reverse=True),
    Spec(20, 8, 3, 150, "gru_first", lengths=True, restart=True),
    Spec(20, 1, 5, 300, "gru"),
    Spec(20, 2, 64, 200, "gru_first", reverse=True),
)
LARGE = LARGE_ELMAN + LARGE_LSTM + LARGE_GRU
FIRST = (LARGE_ELMAN[0], LARGE_LSTM[0], LARGE_LSTM[1], LARGE_GRU[0], LARGE_GRU[1])


def name_of(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


def each(specs: tuple[Spec, ...]) -> pytest.MarkDecorator:
    """Parametrise by problem, type and instruction set."""
    product = list(itertools.product(specs, DTYPES, ISAS))
    return pytest.mark.parametrize(("spec", "dtype", "isa"), product, ids=name_of)


def bits(a: Array) -> Array:
    """The elements as integers, every NaN as the same one."""
    integer = np.int32 if a.dtype == np.float32 else np.int64
    return np.where(np.isnan(a), a.dtype.type(np.nan), a).view(integer)


def assert_same(got: Any, want: Any, what: str) -> None:
    if got is None or want is None:
        assert got is want, f"{what} is None on one side only"
        return
    assert got.dtype == want.dtype, f"{what}: {got.dtype}, not {want.dtype}"
    assert got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}"
    differ = np.argwhere(bits(got) != bits(want))
    assert not len(differ), (
        f"{what}: {len(differ)} of {got.size} elements differ, first at {tuple(differ[0])}: "
        f"{got[tuple(differ[0])]!r} and {want[tuple(differ[0])]!r}"
    )


def assert_same_results(got: Any, want: Any, what: str, names: Any = None) -> None:
    for name in want if names is None else names:
        assert_same(got[name], want[name], f"{name} ({what})")


# --------------------------------------------------------------- threads, instruction set, runs


@each(SMALL + LARGE)
@pytest.mark.quick
def test_threads(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    fastrnn.set_num_threads(1)
    alone = run(fastrnn, p)
    for n in (2, 3, 5):
        fastrnn.set_num_threads(n)
        before = _core.teams_run()
        assert_same_results(run(fastrnn, p), alone, f"{n} threads")
        assert _core.teams_run() > before or not _core.build_info()["openmp"]


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("spec", SMALL + LARGE, ids=str)
@pytest.mark.quick
def test_instruction_sets(spec: Spec, dtype: Any) -> None:
    p = draw(spec, dtype)
    fastrnn.set_isa(ISAS[0])
    first = run(fastrnn, p)
    for isa in ISAS[1:]:
        fastrnn.set_isa(isa)
        assert_same_results(run(fastrnn, p), first, f"{isa} and {ISAS[0]}")


@each(SMALL + FIRST)
def test_repeated_runs_whatever_ran_between(spec: Spec, dtype: Any, isa: str) -> None:
    # Scratch memory keeps what its last user left: a run full of NaN must not be seen.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    first = run(fastrnn, p)
    assert_same_results(run(fastrnn, p), first, "at once")
    for larger in (spec._replace(H=spec.H + 40, T=spec.T + 3), spec._replace(B=spec.B + 1)):
        poison = draw(larger, dtype)
        poison.w_hh[...] = np.nan
        run(fastrnn, poison)
        assert_same_results(run(fastrnn, p), first, f"after {larger}")


def forward(p: Problem, **options: Any) -> tuple[Any, ...]:
    found: tuple[Any, ...] = getattr(fastrnn, f"{p.cell}_forward")(
        *p.arrays(), **p.options(), **options
    )
    return found


@each(SMALL + FIRST)
def test_without_a_tape(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    *results, tape = forward(p, record=False)
    assert tape is None
    *recorded, _ = forward(p)
    for name, got, want in zip(("output", "h_n", "c_n"), results, recorded, strict=False):
        assert_same(got, want, name)


@each(SMALL + FIRST)
def test_a_tape_may_be_used_twice(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    backward, tape = getattr(fastrnn, f"{p.cell}_backward"), forward(p)[-1]
    first = backward(tape, *p.gradients())
    norms = fastrnn.gradient_norms(tape, *p.gradients())
    second = backward(tape, *p.gradients())
    for name, a, b in zip(p.arguments, first, second, strict=True):
        assert_same(a, b, name)
    assert_same(fastrnn.gradient_norms(tape, *p.gradients()), norms, "norms")


# --------------------------------------------------------------------------- rows of a batch


def take(p: Problem, rows: Any) -> Problem:
    """Some rows of the batch, in the order given."""
    axes = BATCH_AXIS | {"lengths": 0}
    given = {name: getattr(p, name, None) for name in axes}
    taken = {name: a.take(rows, axes[name]) for name, a in given.items() if a is not None}
    return replace(p, **{name: np.ascontiguousarray(a) for name, a in taken.items()})


def rows_of(results: dict[str, Any], rows: Any) -> dict[str, Array]:
    """What does not depend on the rest of the batch, of some rows."""
    found = {name: a for name, a in results.items() if name in BATCH_AXIS and a is not None}
    return {name: a.take(rows, BATCH_AXIS[name]) for name, a in found.items()}


@each(
    (
        Spec(5, 14, 2, 3),
        Spec(7, 14, 17, 33, "relu", lengths=True, restart=True),
        Spec(7, 14, 17, 33, "lstm", P=9, peephole=True, lengths=True, restart=True),
        Spec(7, 14, 17, 33, "gru_first", lengths=True, restart=True),
        LARGE_ELMAN[2],
        LARGE_LSTM[2],
        LARGE_GRU[2],
        *FIRST,
    )
)
def test_rows_in_any_batch_and_order(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    whole = run(fastrnn, p)
    rng = np.random.default_rng(1)
    batches = [[b] for b in range(0, spec.B, 1 if spec.B < 20 else 9)]  # alone
    batches += [list(range(n)) for n in (2, 3, 5, 6, 7, 8)]  # other splits into tiles
    batches += [rng.permutation(spec.B).tolist(), rng.integers(0, spec.B, spec.B + 5).tolist()]
    for rows in batches:
        want = rows_of(whole, rows)
        assert_same_results(run(fastrnn, take(p, rows)), want, f"rows {rows}", want)


@each(
    (
        Spec(6, 1, 5, 17, lengths=True, restart=True),
        Spec(40, 1, 7, 100, reverse=True),
        Spec(6, 1, 5, 17, "lstm", P=8, lengths=True, restart=True),
        Spec(40, 1, 7, 100, "lstm", peephole=True, reverse=True),
        Spec(6, 1, 5, 17, "gru_first", lengths=True, restart=True),
        Spec(40, 1, 7, 100, "gru", reverse=True),
    )
)
def test_one_sequence_without_a_batch_axis(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    batched, alone = run(fastrnn, p), run(fastrnn, unbatched(p))
    for name, value in alone.items():
        want = batched[name]
        if name in BATCH_AXIS:
            want = want.squeeze(BATCH_AXIS[name])
        assert_same(value, want, name)


# ------------------------------------------------------------------ absent arguments and layout


@each(
    (
        Spec(7, 9, 17, 33, lengths=True),
        Spec(5, 3, 2, 3, "relu", reverse=True),
        Spec(7, 9, 17, 33, "lstm", P=17, peephole=True, lengths=True),
        Spec(5, 3, 2, 3, "lstm", peephole=True, reverse=True),
        Spec(7, 9, 17, 33, "gru", lengths=True),
        Spec(5, 3, 2, 3, "gru_first", reverse=True),
        *FIRST,
    )
)
def test_none_is_zeros(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    for name in ("h_0", "c_0", "b_ih", "b_hh", "w_peep", *p.upstream):
        value = getattr(p, name)
        if value is None:
            continue
        without = run(fastrnn, replace(p, **{name: None}))
        zeros = run(fastrnn, replace(p, **{name: np.zeros_like(value)}))
        absent = f"d_{name}"
        if absent in zeros:
            assert without[absent] is None
            assert zeros[absent] is not None
            without.pop(absent)
        assert_same_results(without, zeros, f"{name} None and zeros", list(without))


@each((Spec(7, 9, 17, 33), Spec(7, 9, 17, 33, "gru_first"), Spec(7, 9, 5, 33, "gru"), *FIRST))
def test_one_bias_may_hold_both(spec: Spec, dtype: Any, isa: str) -> None:
    # The chain of sums starts from round(b_ih + b_hh); GRU's n has two with the reset gate between.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    rng = np.random.default_rng(3)
    b_ih, b_hh = rng.standard_normal((2, len(p.w_hh))).astype(dtype)
    both = run(fastrnn, replace(p, b_ih=b_ih, b_hh=b_hh))
    shared = slice(2 * spec.H if p.kind == "gru" else None)
    b_ih, b_hh = b_ih.copy(), b_hh.copy()
    b_ih[shared] += b_hh[shared]
    b_hh[shared] = 0.0
    one = run(fastrnn, replace(p, b_ih=b_ih, b_hh=b_hh if p.kind == "gru" else None))
    assert_same(one["d_b_ih"][shared], both["d_b_hh"][shared], "the gradient of both biases")
    one["d_b_hh"] = both["d_b_hh"]
    assert_same_results(one, both, "one bias")


@each((Spec(7, 9, 17, 33), Spec(7, 9, 17, 33, "lstm", P=9, peephole=True), *FIRST))
def test_the_layout_of_arguments(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    want = run(fastrnn, p)

    def spread(a: Array) -> Array:
        every_other = tuple(slice(None, None, 2) for _ in a.shape)
        wide = np.full(tuple(2 * n for n in a.shape), np.nan, a.dtype)
        wide[every_other] = a
        return wide[every_other]

    def offset(a: Array) -> Array:
        # Aligned to elements, not to vectors.
        flat = np.empty(a.size + 1, a.dtype)[1:]
        flat[:] = a.ravel()
        return flat.reshape(a.shape)

    def batch_major(a: Array) -> Array:
        return a if a.ndim < 3 else np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1)

    for change in (np.asfortranarray, spread, offset, batch_major, read_only):
        assert_same_results(run(fastrnn, p.change(change)), want, change.__name__)


def read_only(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


LAYERS = (
    Spec(7, 9, 17, 33, lengths=True, restart=True),
    Spec(5, 3, 2, 3, "relu", b_ih=False, b_hh=False),
    Spec(40, 37, 20, 100, restart=True),
    Spec(7, 9, 17, 33, "lstm", lengths=True, restart=True),
    Spec(5, 3, 2, 3, "lstm", P=2, peephole=True, b_ih=False, b_hh=False),
    Spec(7, 9, 17, 33, "gru", lengths=True, restart=True),
    Spec(5, 3, 2, 3, "gru_first", b_ih=False, b_hh=False),
)
WEIGHTS = {
    "weight_ih_l0": "w_ih",
    "weight_hh_l0": "w_hh",
    "bias_ih_l0": "b_ih",
    "bias_hh_l0": "b_hh",
    "weight_hr_l0": "w_hr",
    "weight_peephole_l0": "w_peep",
}


def layer_of(p: Problem, batch_first: bool) -> Any:
    """A layer with the weights of a problem."""
    H = len(p.w_hh) // KINDS[p.kind][1]
    shared = {"bias": p.b_ih is not None, "batch_first": batch_first, "dtype": p.x.dtype.name}
    if p.cell == "lstm":
        P, peephole = 0 if p.w_hr is None else len(p.w_hr), p.w_peep is not None
        layer: Any = fastrnn.LSTM(p.x.shape[2], H, proj_size=P, peephole=peephole, **shared)
    else:
        option = {n: v for n, v in p.options().items() if n in ("nonlinearity", "reset_after")}
        layer = getattr(fastrnn, p.cell.upper())(p.x.shape[2], H, **option, **shared)
    for name, view in layer.weights.items():
        view[...] = getattr(p, WEIGHTS[name])
    return layer


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch_first"])
@each(LAYERS)
@pytest.mark.quick
def test_a_layer_has_the_bits_of_the_function(
    spec: Spec, dtype: Any, isa: str, batch_first: bool
) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    want = run(fastrnn, p)
    layer = layer_of(p, batch_first)

    def turned(a: Any) -> Any:
        return np.ascontiguousarray(a.swapaxes(0, 1)) if batch_first and a is not None else a

    def state_of(name: str) -> Any:
        parts = tuple(getattr(p, name.format(s))[None] for s in p.states)
        return parts if len(parts) > 1 else parts[0]

    def parts_of(name: str, state: Any) -> dict[str, Array]:
        parts = state if isinstance(state, tuple) else (state,)
        return {name.format(s): a[0] for s, a in zip(p.states, parts, strict=True)}

    x, options = turned(p.x), {"lengths": p.lengths, "restart": turned(p.restart)}
    output, state, tape = layer.forward(x, state_of("{}_0"), **options)
    grads = layer.backward(tape, turned(p.d_output), state_of("d_{}_n"))
    got = {"output": turned(output), "d_x": turned(grads.x)}
    got |= parts_of("{}_n", state) | parts_of("d_{}_0", grads.state)
    got |= {f"d_{WEIGHTS[name]}": value for name, value in grads.weights.items()}
    assert_same_results(got, want, "layer", list(got))
    inference, final = layer(x, state_of("{}_0"), **options)
    assert_same(inference, output, "output without a tape")
    for name, part in parts_of("{}_n", final).items():
        assert_same(part, got[name], f"{name} without a tape")


# ------------------------------------------------------------- sums as the compiled code makes them


def fma(a: Array, b: Array, c: Array) -> Array:
    """round(a b + c) to float32, exactly once.

    In float64 the product is exact and two_sum gives the error of the sum. Rounding the sum to odd
    keeps enough of that error for the second rounding to be the right one (S. Boldo and
    G. Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Comput. 57, 2008).
    """
    p, q = np.broadcast_arrays(a.astype(np.float64) * b, c.astype(np.float64))
    s = p + q
    t = s - p
    error = (p - (s - t)) + (q - t)
    even = s.view(np.int64) & 1 == 0
    s = np.where((error != 0) & even, np.nextafter(s, np.copysign(np.inf, error)), s)
    return s.astype(np.float32)


def chain(start: Array, a: Array, b: Array) -> Array:
    """(M, N): one chain of multiply-adds over k an element, of a (M, K) and b (N, K)."""
    s = np.broadcast_to(start, (len(a), len(b))).astype(np.float32)
    for k in range(a.shape[1]):
        s = fma(a[:, k, None], b[None, :, k], s)
    return s
