"""The same bits: what must not change a single bit of a result, compared as integers.

Outputs, states, the gradients of x, h_0 and c_0 and their norms do not depend on the number of
threads, on the rest of the batch, on where a sequence is cut (test_bits_cuts.py), or on the
instruction set. Weight gradients do not depend on threads or instruction set. The "generic"
instruction set multiplies, then adds: it is outside the promise (test_agreement.py holds it to the
bounds). test_bits_order.py says which bits they are.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bit_checks import (
    DTYPES,
    FEW_ROWS,
    FIRST,
    ISAS,
    LARGE,
    SMALL,
    assert_same,
    assert_same_results,
    each,
    each_once,
    forward,
    rows_of,
    take,
)
from bounds import (
    BATCH_AXIS,
    Array,
    Problem,
    Spec,
    draw,
    run,
    unbatched,
    with_every_kind,
    with_variants_in_turn,
)
from grids import name_of
from registry import EXTRAS, KINDS, VARIANTS, Variant

import fastrnn
from fastrnn import _core

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


@each_once(SMALL + FIRST)
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


@each_once(SMALL + FIRST)
def test_without_a_tape(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    *results, tape = forward(p, record=False)
    assert tape is None
    *recorded, _ = forward(p)
    for name, got, want in zip(("output", "h_n", "c_n"), results, recorded, strict=False):
        assert_same(got, want, name)


@each_once(SMALL + FIRST)
def test_a_tape_may_be_used_twice(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    backward, tape = p.cell.backward(), forward(p)[-1]
    first = backward(tape, *p.gradients())
    norms = fastrnn.gradient_norms(tape, *p.gradients())
    second = backward(tape, *p.gradients())
    for name, a, b in zip(p.arguments, first, second, strict=True):
        assert_same(a, b, name)
    assert_same(fastrnn.gradient_norms(tape, *p.gradients()), norms, "norms")


# --------------------------------------------------------------------------- rows of a batch


@each_once(
    (
        *with_variants_in_turn(Spec(5, 14, 2, 3), Spec(7, 14, 17, 33, lengths=True, restart=True)),
        *FEW_ROWS,
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


@each_once(
    with_variants_in_turn(
        Spec(6, 1, 5, 17, lengths=True, restart=True), Spec(40, 1, 7, 100, reverse=True)
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


@each_once(
    (
        *with_variants_in_turn(Spec(7, 9, 17, 33, lengths=True), Spec(5, 3, 2, 3, reverse=True)),
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


@each_once((*with_every_kind(Spec(7, 9, 17, 33)), *FIRST))
def test_one_bias_may_hold_both(spec: Spec, dtype: Any, isa: str) -> None:
    # The chain of sums starts from round(b_ih + b_hh); some gates have two.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    rng = np.random.default_rng(3)
    b_ih, b_hh = rng.standard_normal((2, len(p.w_hh))).astype(dtype)
    both = run(fastrnn, replace(p, b_ih=b_ih, b_hh=b_hh))
    variant = VARIANTS[p.kind]
    apart = KINDS[variant.kind].apart
    shared = slice((variant.cell.gates - apart) * spec.H)
    b_ih, b_hh = b_ih.copy(), b_hh.copy()
    b_ih[shared] += b_hh[shared]
    b_hh[shared] = 0.0
    one = run(fastrnn, replace(p, b_ih=b_ih, b_hh=b_hh if apart else None))
    assert_same(one["d_b_ih"][shared], both["d_b_hh"][shared], "the gradient of both biases")
    one["d_b_hh"] = both["d_b_hh"]
    assert_same_results(one, both, "one bias")


@each_once((*with_every_kind(Spec(7, 9, 17, 33)), *FIRST))
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
    *with_variants_in_turn(
        Spec(7, 9, 17, 33, lengths=True, restart=True),
        Spec(5, 3, 2, 3, b_ih=False, b_hh=False),
    ),
    Spec(40, 37, 20, 100, restart=True),
)


def layer_of(p: Problem, batch_first: bool) -> Any:
    """A layer with the weights of a problem."""
    given = {name for name, weight in p.extras.items() if weight is not None}
    variant = Variant(p.kind, tuple(e for e in p.cell.extras if EXTRAS[e].argument in given))
    layer = variant.layer(
        p.x.shape[2], len(p.w_hh) // p.cell.gates, bias=p.b_ih is not None,
        batch_first=batch_first, dtype=p.x.dtype.name,
    )  # fmt: skip
    for name, view in layer.weights.items():
        view[...] = getattr(p, p.cell.weights[name.removesuffix("_l0")])
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
    got |= {
        f"d_{p.cell.weights[name.removesuffix('_l0')]}": value
        for name, value in grads.weights.items()
    }
    assert_same_results(got, want, "layer", list(got))
    inference, final = layer(x, state_of("{}_0"), **options)
    assert_same(inference, output, "output without a tape")
    for name, part in parts_of("{}_n", final).items():
        assert_same(part, got[name], f"{name} without a tape")
