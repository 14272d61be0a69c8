"""The same bits (test_bits.py) wherever a sequence is cut, restarts, is padded or turned round."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bit_checks import (
    FEW_ROWS,
    FIRST,
    LARGE,
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
    processing_order,
    run,
    there,
    with_every_kind,
)

import fastrnn

# Of what does not depend on the rest of the batch, what is said of each step.
STEPS = ("output", "d_x", "norms")


def run_in_pieces(p: Problem, cuts: Any) -> dict[str, Any]:
    """A run cut at the given time steps, the state and its gradient carried over; no weights."""
    edges = [0, *sorted(cuts), len(p.x)]
    ranges = list(itertools.pairwise(edges))
    if p.reverse:
        ranges.reverse()
    pieces, outputs, state = [], [], {f"{s}_0": getattr(p, f"{s}_0") for s in p.states}
    for start, stop in ranges:
        piece = replace(
            p, x=p.x[start:stop], **state,
            d_output=None if p.d_output is None else p.d_output[start:stop],
            lengths=None if p.lengths is None else np.clip(p.lengths - start, 0, stop - start),
            mask=None if p.mask is None else p.mask[start:stop],
            restart=None if p.restart is None else p.restart[start:stop],
        )  # fmt: skip
        output, *after, tape = forward(piece)
        state = {f"{s}_0": a for s, a in zip(p.states, after, strict=True)}
        outputs.append(output)
        pieces.append((piece, tape))
    carry = p.gradients()[1:]
    sizes = (output.shape[2], len(p.w_hh) // p.cell.gates)
    carry = [
        np.zeros((p.x.shape[1], n), p.x.dtype) if a is None else a
        for a, n in zip(carry, sizes, strict=False)
    ]
    found = {"output": outputs, "d_x": [], "norms": []}
    for piece, tape in reversed(pieces):
        grads = p.cell.backward()(tape, piece.d_output, *carry)
        found["norms"].append(fastrnn.gradient_norms(tape, piece.d_output, *carry))
        found["d_x"].append(grads.x)
        carry = [getattr(grads, f"{s}_0") for s in p.states]
    for name in ("output",) if p.reverse else ("d_x", "norms"):
        found[name].reverse()
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    whole |= {f"{s}_n": a for s, a in zip(p.states, after, strict=True)}
    return whole | {f"d_{s}_0": a for s, a in zip(p.states, carry, strict=True)}


@each_once(
    (
        *with_every_kind(Spec(5, 3, 2, 3), Spec(9, 7, 17, 33, lengths=True, restart=True)),
        *with_every_kind(Spec(9, 7, 8, 16, lengths=True, reverse=True, h_0=False)),
        *with_every_kind(Spec(8, 7, 9, 17, mask=True, restart=True, reverse=True)),
        *with_every_kind(Spec(12, 1, 3, 31, upstream="d_h_n")),
        *FIRST,
        *FEW_ROWS, *(spec for spec in LARGE if spec.B == 1),
    )
)  # fmt: skip
def test_whole_and_cut_anywhere(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    whole, T = run(fastrnn, p), spec.T
    every: list[Any] = [(c,) for c in range(T + 1)] if T < 20 else [(1,), (T // 2,), (T - 1,)]
    every += [(T // 3, T // 3, T // 2 + 1), tuple(range(1, T))]
    for cuts in every:
        got = run_in_pieces(p, cuts)
        assert_same_results(got, whole, f"cut at {cuts}", list(got))


@each_once(
    with_every_kind(Spec(9, 5, 7, 17, restart=True), Spec(9, 5, 7, 17, restart=True, reverse=True))
)
def test_restart_is_a_cut_without_the_state(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    assert p.restart.any()
    whole = run(fastrnn, p)
    order = processing_order(spec.T, spec.reverse)
    before = [f"{s}_0" for s in p.states]
    for b in range(spec.B):
        row = replace(take(p, [b]), restart=None)
        of_row = rows_of(whole, [b])
        starts = [i for i, t in enumerate(order) if p.restart[t, b]]
        edges = [0, *starts, spec.T] if 0 not in starts else [*starts, spec.T]
        for i, j in itertools.pairwise(edges):
            times = slice(*((spec.T - j, spec.T - i) if spec.reverse else (i, j)))
            # h_0 enters the first segment, unless that begins with a restart; d_h_n the last.
            first, last = i == 0 and 0 not in starts, j == spec.T
            dropped = ([] if first else before) + ([] if last else list(p.upstream[1:]))
            part = replace(
                row, x=row.x[times], d_output=row.d_output[times], **dict.fromkeys(dropped)
            )
            got = run(fastrnn, part)
            what = f"row {b}, steps {times.start} to {times.stop}"
            for name in STEPS:
                assert_same(of_row[name][times], got[name], f"{name} of {what}")
            same = [f"d_{n}" for n in before] * first + [f"{s}_n" for s in p.states] * last
            assert_same_results(of_row, got, what, same)
        for name in before if 0 in starts else ():
            gradient = of_row[f"d_{name}"]
            assert_same(gradient, np.zeros_like(gradient), f"d_{name} of row {b}")


LENGTHS = (
    *with_every_kind(
        Spec(9, 8, 7, 17, lengths=True),
        Spec(9, 8, 7, 17, lengths=True, reverse=True, restart=True),
    ),
    *(spec._replace(lengths=True, reverse=True) for spec in FIRST),
)
MASKS = (
    *with_every_kind(
        Spec(9, 8, 7, 17, mask=True, restart=True),
        Spec(9, 8, 7, 17, mask=True, lengths=True, reverse=True, restart=True),
    ),
    *(spec._replace(mask=True, reverse=True) for spec in FIRST),
)


@each((*LENGTHS, *MASKS))
@pytest.mark.quick
def test_each_row_is_as_alone_without_the_steps_that_do_not_count(
    spec: Spec, dtype: Any, isa: str
) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    whole = run(fastrnn, p)
    for b in range(0, spec.B, 1 if spec.B < 20 else 5):
        row = take(p, [b])
        on = there(row)[:, 0]
        part = replace(
            row, lengths=None, mask=None, x=row.x[on], d_output=row.d_output[on],
            restart=None if row.restart is None else row.restart[on],
        )  # fmt: skip
        got, here = run(fastrnn, part), rows_of(whole, [b])
        for name in STEPS:
            rest = here[name][~on]
            assert_same(rest, np.zeros_like(rest), f"{name} where nothing counts")
            here[name] = here[name][on]
        assert_same_results(here, got, f"row {b}, {on.sum()} steps", list(here))


@each_once(
    (
        *with_every_kind(
            Spec(9, 8, 7, 17, lengths=True, restart=True),
            Spec(9, 8, 7, 17, lengths=True, reverse=True),
        ),
        *(spec._replace(lengths=True, reverse=True) for spec in FIRST),
    )
)
def test_a_mask_of_beginnings_is_lengths(spec: Spec, dtype: Any, isa: str) -> None:
    # Weight gradients included.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    want = run(fastrnn, p)
    longer = np.minimum(p.lengths + 2, spec.T)
    for mask, lengths in (
        (there(p), None),
        (there(p), longer),
        (np.ones_like(there(p)), p.lengths),
    ):
        assert_same_results(run(fastrnn, replace(p, mask=mask, lengths=lengths)), want, "a mask")


@each_once((*LENGTHS, *MASKS))
def test_nothing_reads_the_padding(spec: Spec, dtype: Any, isa: str) -> None:
    # NaN there would show anywhere: rows are skipped, not multiplied by zero.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    clean = run(fastrnn, p)
    padding = ~there(p)
    assert padding.any()
    p.x[padding] = np.nan
    p.d_output[padding] = np.nan
    assert_same_results(run(fastrnn, p), clean, "NaN in the padding")
    tape = forward(p)[-1]
    for name in ("c", "gates"):
        kept = getattr(tape, name, None)
        assert kept is None or not kept[padding].any(), name


@each_once(with_every_kind(Spec(9, 8, 7, 17), Spec(30, 37, 20, 33, lengths=True, reverse=True)))
def test_more_padding_changes_nothing(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    want = run(fastrnn, p)
    rng = np.random.default_rng(2)

    def extend(a: Array) -> Array:
        return np.concatenate([a, rng.standard_normal((4, *a.shape[1:])).astype(a.dtype)])

    lengths = np.full(spec.B, spec.T) if p.lengths is None else p.lengths
    got = run(fastrnn, replace(p, x=extend(p.x), d_output=extend(p.d_output), lengths=lengths))
    for name in STEPS:
        got[name] = got[name][: spec.T]
    names = [name for name in got if name in BATCH_AXIS]
    assert_same_results(got, want, "four steps of padding", names)


@each_once(with_every_kind(Spec(9, 5, 7, 17), Spec(30, 37, 20, 33, restart=True)))
def test_reverse_is_forward_on_the_flipped_sequence(spec: Spec, dtype: Any, isa: str) -> None:
    # Weight gradients too: their chunks follow the order in which backward visits the steps.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    flipped = replace(
        p, x=p.x[::-1], d_output=p.d_output[::-1], reverse=True,
        restart=None if p.restart is None else p.restart[::-1],
    )  # fmt: skip
    got, want = run(fastrnn, flipped), run(fastrnn, p)
    for name in STEPS:
        got[name] = got[name][::-1]
    assert_same_results(got, want, "flipped")
