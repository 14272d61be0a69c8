"""The same bits: what must not change a single bit of a result, compared as integers.

Outputs, states and the gradients of x and h_0 do not depend on the number of threads, on the rest
of the batch, on where a sequence is cut, or on the instruction set. Weight gradients do not depend
on threads or instruction set. The "generic" instruction set multiplies, then adds: it is outside
the promise (test_agreement.py holds it to the bounds).
"""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bounds import ARGUMENTS, Array, Problem, Spec, draw, processing_order, run, unbatched

import fastrnn
from fastrnn import _core

# Where a machine runs "generic" alone, it is the one there is to check.
ISAS = tuple(isa for isa in fastrnn.available_isas() if isa != "generic") or ("generic",)
DTYPES = (np.float32, np.float64)

# What does not depend on the rest of the batch nor on where a sequence is cut.
ROWS = ("output", "h_n", "d_x", "d_h_0")

# One thread and less than a panel; tails of every tile; then several threads, blocks of time steps
# and chunks of 512 rows; few rows and many units, where threads share out the units.
SMALL = (
    Spec(5, 3, 2, 3),
    Spec(7, 9, 17, 33, "relu", lengths=True, restart=True),
    Spec(6, 13, 8, 16, lengths=True, reverse=True),
    Spec(9, 1, 3, 31, restart=True, reverse=True),
)
LARGE = (
    Spec(70, 37, 20, 100, lengths=True),
    Spec(70, 37, 20, 100, "relu", restart=True, reverse=True),
    Spec(40, 8, 3, 300, lengths=True, restart=True),
    Spec(30, 1, 5, 512),
    Spec(30, 2, 64, 400, "relu", reverse=True),
)


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
    for name in names or want:
        assert_same(got[name], want[name], f"{name} ({what})")


# --------------------------------------------------------------- threads, instruction set, runs


@each(SMALL + LARGE)
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
def test_instruction_sets(spec: Spec, dtype: Any) -> None:
    p = draw(spec, dtype)
    fastrnn.set_isa(ISAS[0])
    first = run(fastrnn, p)
    for isa in ISAS[1:]:
        fastrnn.set_isa(isa)
        assert_same_results(run(fastrnn, p), first, f"{isa} and {ISAS[0]}")


@each(SMALL + LARGE[:3])
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


@each(SMALL + LARGE[:2])
def test_without_a_tape(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    output, h_n, tape = fastrnn.rnn_forward(*p.arrays(), **p.options(), record=False)
    assert tape is None
    recorded, recorded_h_n, _ = fastrnn.rnn_forward(*p.arrays(), **p.options())
    assert_same(output, recorded, "output")
    assert_same(h_n, recorded_h_n, "h_n")


@each(SMALL + LARGE[:1])
def test_a_tape_may_be_used_twice(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    _, _, tape = fastrnn.rnn_forward(*p.arrays(), **p.options())
    first = fastrnn.rnn_backward(tape, p.d_output, p.d_h_n)
    second = fastrnn.rnn_backward(tape, p.d_output, p.d_h_n)
    for name, a, b in zip(ARGUMENTS, first, second, strict=True):
        assert_same(a, b, name)


# --------------------------------------------------------------------------- rows of a batch


def take(p: Problem, rows: Any) -> Problem:
    """Some rows of the batch, in the order given."""
    rows = np.asarray(rows)

    def pick(a: Any, axis: int) -> Any:
        return None if a is None else np.ascontiguousarray(a.take(rows, axis))

    return replace(
        p, x=np.ascontiguousarray(p.x.take(rows, 1)), h_0=pick(p.h_0, 0),
        d_output=pick(p.d_output, 1), d_h_n=pick(p.d_h_n, 0),
        lengths=pick(p.lengths, 0), restart=pick(p.restart, 1),
    )  # fmt: skip


def rows_of(results: Any, rows: Any) -> dict[str, Array]:
    """ROWS of a run, some rows only."""
    axis = {"output": 1, "d_x": 1, "h_n": 0, "d_h_0": 0}
    return {name: results[name].take(rows, axis[name]) for name in ROWS}


@each((Spec(5, 14, 2, 3), Spec(7, 14, 17, 33, "relu", lengths=True, restart=True), *LARGE[:3]))
def test_rows_in_any_batch_and_order(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    whole = run(fastrnn, p)
    rng = np.random.default_rng(1)
    batches = [[b] for b in range(0, spec.B, 1 if spec.B < 20 else 9)]  # alone
    batches += [list(range(n)) for n in (2, 3, 5, 6, 7, 8)]  # other splits into tiles
    batches += [rng.permutation(spec.B).tolist(), rng.integers(0, spec.B, spec.B + 5).tolist()]
    for rows in batches:
        part = run(fastrnn, take(p, rows))
        assert_same_results(part, rows_of(whole, rows), f"rows {rows}", ROWS)


@each((Spec(6, 1, 5, 17, lengths=True, restart=True), Spec(40, 1, 7, 100, reverse=True)))
def test_one_sequence_without_a_batch_axis(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    batched, alone = run(fastrnn, p), run(fastrnn, unbatched(p))
    for name, value in alone.items():
        want = batched[name]
        if name in ROWS:
            want = want[0] if name in ("h_n", "d_h_0") else want[:, 0]
        assert_same(value, want, name)


# ------------------------------------------------------------------------------- cuts in time


def run_in_pieces(p: Problem, cuts: Any) -> dict[str, Any]:
    """ROWS of a run cut at the given time steps, the state and its gradient carried over."""
    T = len(p.x)
    edges = [0, *sorted(cuts), T]
    ranges = list(itertools.pairwise(edges))
    if p.reverse:
        ranges.reverse()
    H = len(p.w_hh)
    pieces, h, outputs = [], p.h_0, []
    for start, stop in ranges:
        piece = replace(
            p, x=p.x[start:stop], h_0=h,
            d_output=None if p.d_output is None else p.d_output[start:stop],
            lengths=None if p.lengths is None else np.clip(p.lengths - start, 0, stop - start),
            restart=None if p.restart is None else p.restart[start:stop],
        )  # fmt: skip
        output, h, tape = fastrnn.rnn_forward(*piece.arrays(), **piece.options())
        outputs.append(output)
        pieces.append((piece, tape))
    carry = p.d_h_n
    if carry is None:
        carry = np.zeros((p.x.shape[1], H), p.x.dtype)
    d_x = []
    for piece, tape in reversed(pieces):
        grads = fastrnn.rnn_backward(tape, piece.d_output, carry)
        carry = grads.h_0
        d_x.append(grads.x)
    if not p.reverse:
        d_x.reverse()
    else:
        outputs.reverse()
    return {
        "output": np.concatenate(outputs),
        "h_n": h,
        "d_x": np.concatenate(d_x),
        "d_h_0": carry,
    }


@each(
    (
        Spec(5, 3, 2, 3),
        Spec(9, 7, 17, 33, "relu", lengths=True, restart=True),
        Spec(9, 7, 8, 16, lengths=True, reverse=True, h_0=False),
        Spec(12, 1, 3, 31, upstream="d_h_n"),
        *LARGE[:4],
    )
)
def test_whole_and_cut_anywhere(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    whole, T = run(fastrnn, p), spec.T
    every: list[Any] = [(c,) for c in range(T + 1)] if T < 20 else [(1,), (T // 2,), (T - 1,)]
    every += [(T // 3, T // 3, T // 2 + 1), tuple(range(1, T))]
    for cuts in every:
        assert_same_results(run_in_pieces(p, cuts), whole, f"cut at {cuts}", ROWS)


@each((Spec(9, 5, 7, 17, restart=True), Spec(9, 5, 7, 17, "relu", restart=True, reverse=True)))
def test_restart_is_a_cut_without_the_state(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    assert p.restart.any()
    whole = run(fastrnn, p)
    order = processing_order(spec.T, spec.reverse)
    for b in range(spec.B):
        row = replace(take(p, [b]), restart=None)
        starts = [i for i, t in enumerate(order) if p.restart[t, b]]
        edges = [0, *starts, spec.T] if 0 not in starts else [*starts, spec.T]
        segments = list(itertools.pairwise(edges))
        for i, j in segments:
            times = slice(*((spec.T - j, spec.T - i) if spec.reverse else (i, j)))
            # h_0 enters the first segment, unless that begins with a restart; d_h_n the last.
            first, last = i == 0 and 0 not in starts, j == spec.T
            part = replace(
                row, x=row.x[times], d_output=row.d_output[times],
                h_0=row.h_0 if first else None, d_h_n=row.d_h_n if last else None,
            )  # fmt: skip
            got = run(fastrnn, part)
            what = f"row {b}, steps {times.start} to {times.stop}"
            for name in ("output", "d_x"):
                assert_same(whole[name][times, b : b + 1], got[name], f"{name} of {what}")
            if first:
                assert_same(whole["d_h_0"][b : b + 1], got["d_h_0"], f"d_h_0 of {what}")
            if last:
                assert_same(whole["h_n"][b : b + 1], got["h_n"], f"h_n of {what}")
        if 0 in starts:
            assert_same(whole["d_h_0"][b], np.zeros(spec.H, dtype), f"d_h_0 of row {b}")


LENGTHS = (
    Spec(9, 8, 7, 17, lengths=True),
    Spec(9, 8, 7, 17, "relu", lengths=True, reverse=True, restart=True),
    Spec(70, 37, 20, 100, lengths=True, reverse=True),
)


@each(LENGTHS)
def test_lengths_are_each_row_alone_at_its_length(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    whole = run(fastrnn, p)
    for b in range(0, spec.B, 1 if spec.B < 20 else 5):
        n = int(p.lengths[b])
        row = take(p, [b])
        part = replace(
            row, lengths=None, x=row.x[:n], d_output=row.d_output[:n],
            restart=None if row.restart is None else row.restart[:n],
        )  # fmt: skip
        got, here = run(fastrnn, part), rows_of(whole, [b])
        for name in ("output", "d_x"):
            value = got[name]
            assert_same(here[name][:n], value, f"{name} of row {b}, length {n}")
            assert_same(here[name][n:], np.zeros_like(here[name][n:]), f"{name}'s padding")
        for name in ("h_n", "d_h_0"):
            assert_same(here[name], got[name], f"{name} of row {b}, length {n}")


@each(LENGTHS)
def test_nothing_reads_the_padding(spec: Spec, dtype: Any, isa: str) -> None:
    # NaN there would show anywhere: rows are skipped, not multiplied by zero.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    clean = run(fastrnn, p)
    padding = np.arange(spec.T)[:, None] >= p.lengths
    assert padding.any()
    p.x[padding] = np.nan
    p.d_output[padding] = np.nan
    assert_same_results(run(fastrnn, p), clean, "NaN in the padding")


@each((Spec(9, 8, 7, 17), Spec(30, 37, 20, 33, "relu", lengths=True, reverse=True)))
def test_more_padding_changes_nothing(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    want = run(fastrnn, p)
    rng = np.random.default_rng(2)

    def extend(a: Array) -> Array:
        return np.concatenate([a, rng.standard_normal((4, *a.shape[1:])).astype(a.dtype)])

    lengths = np.full(spec.B, spec.T) if p.lengths is None else p.lengths
    got = run(fastrnn, replace(p, x=extend(p.x), d_output=extend(p.d_output), lengths=lengths))
    for name in ("output", "d_x"):
        got[name] = got[name][: spec.T]
    assert_same_results(got, want, "four steps of padding", ROWS)


@each((Spec(9, 5, 7, 17), Spec(30, 37, 20, 33, "relu", restart=True)))
def test_reverse_is_forward_on_the_flipped_sequence(spec: Spec, dtype: Any, isa: str) -> None:
    # Weight gradients too: their chunks follow the order in which backward visits the steps.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    flipped = replace(
        p, x=p.x[::-1], d_output=p.d_output[::-1], reverse=True,
        restart=None if p.restart is None else p.restart[::-1],
    )  # fmt: skip
    got, want = run(fastrnn, flipped), run(fastrnn, p)
    for name in ("output", "d_x"):
        got[name] = got[name][::-1]
    assert_same_results(got, want, "flipped")


# ------------------------------------------------------------------ absent arguments and layout


@each((Spec(7, 9, 17, 33, lengths=True), Spec(5, 3, 2, 3, "relu", reverse=True), LARGE[0]))
def test_none_is_zeros(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    for name in ("h_0", "b_ih", "b_hh", "d_output", "d_h_n"):
        value = getattr(p, name)
        without = run(fastrnn, replace(p, **{name: None}))
        zeros = run(fastrnn, replace(p, **{name: np.zeros_like(value)}))
        absent = f"d_{name}"
        if absent in zeros:
            assert without[absent] is None
            assert zeros[absent] is not None
            without.pop(absent)
        assert_same_results(without, zeros, f"{name} None and zeros", list(without))


@each((Spec(7, 9, 17, 33), LARGE[0]))
def test_one_bias_may_hold_both(spec: Spec, dtype: Any, isa: str) -> None:
    # The chain of sums starts from round(b_ih + b_hh).
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    rng = np.random.default_rng(3)
    b_ih, b_hh = rng.standard_normal((2, spec.H)).astype(dtype)
    both = run(fastrnn, replace(p, b_ih=b_ih, b_hh=b_hh))
    one = run(fastrnn, replace(p, b_ih=b_ih + b_hh, b_hh=None))
    assert_same(one["d_b_ih"], both["d_b_hh"], "the gradient of both biases")
    assert_same_results(one, both, "one bias", (*ROWS, "d_w_ih", "d_w_hh", "d_b_ih"))


@each((Spec(7, 9, 17, 33), LARGE[0]))
def test_the_layout_of_arguments(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    want = run(fastrnn, p)

    def spread(a: Any) -> Any:
        if a is None:
            return None
        wide = np.full(tuple(2 * n for n in a.shape), np.nan, a.dtype)
        wide[tuple(slice(None, None, 2) for _ in a.shape)] = a
        return wide[tuple(slice(None, None, 2) for _ in a.shape)]

    def offset(a: Any) -> Any:
        # Aligned to elements, not to vectors.
        if a is None:
            return None
        flat = np.empty(a.size + 1, a.dtype)[1:]
        flat[:] = a.ravel()
        return flat.reshape(a.shape)

    layouts = {
        "Fortran order": lambda a: None if a is None else np.asfortranarray(a),
        "strides on every axis": spread,
        "odd address": offset,
        "batch-major memory": lambda a: (
            a if a is None or a.ndim < 3 else np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1)
        ),
        "read-only": read_only,
    }
    for what, change in layouts.items():
        names = (*ARGUMENTS, "d_output", "d_h_n")
        other = replace(p, **{name: change(getattr(p, name)) for name in names})
        assert_same_results(run(fastrnn, other), want, what)


def read_only(a: Any) -> Any:
    if a is None:
        return None
    a = a.copy()
    a.flags.writeable = False
    return a


LAYERS = (
    Spec(7, 9, 17, 33, lengths=True, restart=True),
    Spec(5, 3, 2, 3, "relu", b_ih=False, b_hh=False),
    Spec(40, 37, 20, 100, restart=True),
)


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch_first"])
@each(LAYERS)
def test_a_layer_has_the_bits_of_the_function(
    spec: Spec, dtype: Any, isa: str, batch_first: bool
) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    want = run(fastrnn, p)
    layer = fastrnn.RNN(
        spec.D, spec.H, nonlinearity=spec.nonlinearity, bias=spec.b_ih, batch_first=batch_first,
        dtype=np.dtype(dtype).name,
    )  # fmt: skip
    names = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih"}
    names["bias_hh_l0"] = "b_hh"
    for name, view in layer.weights.items():
        view[...] = getattr(p, names[name])

    def turned(a: Any) -> Any:
        return np.ascontiguousarray(a.swapaxes(0, 1)) if batch_first and a is not None else a

    x, restart = turned(p.x), turned(p.restart)
    output, state, tape = layer.forward(x, p.h_0[None], lengths=p.lengths, restart=restart)
    grads = layer.backward(tape, turned(p.d_output), p.d_h_n[None])
    got = {
        "output": turned(output),
        "h_n": state[0],
        "d_x": turned(grads.x),
        "d_h_0": grads.state[0],
        **{f"d_{names[name]}": value for name, value in grads.weights.items()},
    }
    assert_same_results(got, want, "layer", list(got))
    inference, final = layer(x, p.h_0[None], lengths=p.lengths, restart=restart)
    assert_same(inference, output, "output without a tape")
    assert_same(final, state, "state without a tape")


# ---------------------------------------------------------------------- the order of every sum


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


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_the_order_of_every_sum(isa: str, reverse: bool) -> None:
    """The bits are those of the documented order, so they are the same on any processor.

    relu adds no rounding of its own. Forward: one chain from round(b_ih + b_hh) over x, then h.
    Backward: chains over the rows of the weight matrix; d_output is added to the rounded carry.
    Weight gradients: rows (t, b) with t in the order in which backward visits it and b ascending,
    in chunks of 512 that are added in order.
    """
    fastrnn.set_isa(isa)
    spec = Spec(90, 13, 5, 11, "relu", reverse=reverse)
    p = draw(spec, np.float32)
    order = processing_order(spec.T, reverse)

    h = p.h_0
    output, before, dz = np.zeros((3, spec.T, spec.B, spec.H), np.float32)
    for t in order:
        before[t] = h
        z = chain(p.b_ih + p.b_hh, np.hstack([p.x[t], h]), np.hstack([p.w_ih, p.w_hh]))
        h = output[t] = np.maximum(z, np.float32(0))
    carry = p.d_h_n
    d_x = np.zeros_like(p.x)
    zero = np.float32(0)
    for t in reversed(order):
        dz[t] = np.where(output[t] > 0, carry + p.d_output[t], zero)
        d_x[t] = chain(zero, dz[t], p.w_ih.T)
        carry = chain(zero, dz[t], p.w_hh.T)

    def summed(y: Array) -> Array:
        a, b = (v[order[::-1]].reshape(spec.T * spec.B, -1) for v in (dz, y))
        chunks = [chain(zero, a[i : i + 512].T, b[i : i + 512].T) for i in range(0, len(a), 512)]
        total = chunks[0]
        for chunk in chunks[1:]:
            total = total + chunk
        return total

    ones = np.ones((spec.T, spec.B, 1), np.float32)
    want = {"output": output, "h_n": h, "d_x": d_x, "d_h_0": carry}
    want |= {"d_w_ih": summed(p.x), "d_w_hh": summed(before), "d_b_ih": summed(ones)[:, 0]}
    assert_same_results(run(fastrnn, p), want, "in the documented order", list(want))
