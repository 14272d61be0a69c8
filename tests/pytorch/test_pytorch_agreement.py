"""The modules of fastrnn.torch beside torch's: every result and every gradient, by the kernels.

What they may differ by is derived in torch_networks.py.
"""

import functools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grids import grid  # noqa: E402
from registry import VARIANTS  # noqa: E402
from torch_networks import (  # noqa: E402
    CELL_KINDS,
    DTYPES,
    KINDS,
    cell_pair,
    check,
    draw,
    each_kind,
    errors,
    pair,
    run,
    same,
    state_for,
)  # fmt: skip

import fastrnn  # noqa: E402
import fastrnn.torch as ft  # noqa: E402

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33)  # around the lanes of every instruction set
# Of six sequences of up to seven steps; torch packs no empty one.
LENGTHS = {"padded": None, "sorted": (7, 7, 5, 4, 1, 1), "unsorted": (2, 7, 1, 5, 7, 3)}


@functools.cache
def truth(
    kind: str, T: int, B: int | None, D: int, H: int, layers: int, state: bool, lengths: Any,
    options: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """x and the state, what torch makes of them, and how far roundings move it."""
    theirs, _ = pair(kind, D, H, layers, **dict(options))
    rows = () if B is None else (B,)
    x = draw(*rows, T, D) if dict(options).get("batch_first") else draw(T, *rows, D)
    # Where a few units have many inputs they are kept from saturating: the error of an activation
    # near 1 is a large part of its derivative, and is in no operand.
    x *= min(1.0, (H / D) ** 0.5)
    hx = state_for(theirs, *rows) if state else None
    return (x, hx), *errors(theirs, x, hx, lengths)


def to(dtype: Any, given: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda t: None if t is None else t.to(dtype), given)


def compare(
    kind: str, dtype: Any, T: int, B: int | None, D: int, H: int, layers: int = 1,
    state: bool = True, lengths: Any = None, **options: Any,
) -> None:  # fmt: skip
    """B None: one sequence without a batch axis."""
    _, mine = pair(kind, D, H, layers, **options)
    given, exact, moved = truth(kind, T, B, D, H, layers, state, lengths, tuple(options.items()))
    x, hx = to(dtype, given)
    got = run(mine.to(dtype), x, hx, lengths)
    assert ft.last_path() == "kernel"
    below = D if layers == 1 else max(D, exact["output"].shape[-1])
    longest = max(below + H + 2, VARIANTS[kind].cell.gates * H, T * (1 if B is None else B))
    check(got, exact, moved, dtype, longest)


@grid(
    "kind, dtype, bias, batch_first, bidirectional, layers, form, state",
    KINDS, DTYPES, (True, False), (False, True), (False, True), (1, 2, 3),
    (*LENGTHS, "unbatched"), (True, False),
)  # fmt: skip
def test_agrees_with_torch(
    kind: str, dtype: Any, bias: bool, batch_first: bool, bidirectional: bool, layers: int,
    form: str, state: bool,
) -> None:  # fmt: skip
    compare(
        kind, dtype, 7, None if form == "unbatched" else 6, 4, 6, layers, state, LENGTHS.get(form),
        bias=bias, batch_first=batch_first, bidirectional=bidirectional,
    )  # fmt: skip


@grid("kind, H, dtype, D, B", KINDS, SIZES, DTYPES, (1, 8, 17), (1, 5))
def test_sizes_around_lanes(kind: str, H: int, dtype: Any, D: int, B: int) -> None:
    if VARIANTS[kind].extras:
        H += 1  # a projection is smaller than what it projects
    compare(kind, dtype, 4, B, D, H)


@grid("kind, B, dtype, bidirectional", KINDS, (2, 3, 7, 9, 15, 16, 17, 33), DTYPES, (False, True))
def test_batches_around_lanes(kind: str, B: int, dtype: Any, bidirectional: bool) -> None:
    compare(kind, dtype, 3, B, 3, 9, bidirectional=bidirectional)


@grid("kind, T, B, dtype, layers", KINDS, (1, 2), (None, 0, 1), DTYPES, (1, 2))
def test_few_steps_and_few_sequences(
    kind: str, T: int, B: int | None, dtype: Any, layers: int
) -> None:
    compare(kind, dtype, T, B, 3, 5, layers, bidirectional=layers == 2)


@each_kind
def test_a_longer_and_wider_one(kind: str) -> None:
    compare(kind, torch.float32, 40, 16, 24, 64, 2, bidirectional=True)


@each_kind
@pytest.mark.parametrize("lengths", [(4,), (1,), (3, 3, 3), (1, 1)], ids=str)
def test_packed_without_much_to_pack(kind: str, lengths: Any) -> None:
    compare(kind, torch.float64, max(lengths), len(lengths), 3, 5, 2, lengths=lengths)


@grid(
    "kind, dtype, H, B, bias, state",
    CELL_KINDS, DTYPES, SIZES, (None, 0, 1, 5), (True, False), (True, False),
)  # fmt: skip
def test_cells_agree_with_torch(
    kind: str, dtype: Any, H: int, B: int | None, bias: bool, state: bool
) -> None:
    theirs, mine = cell_pair(kind, 4, H, bias=bias)
    rows = () if B is None else (B,)
    x = draw(*rows, 4) * min(1.0, (H / 4) ** 0.5)
    hx = state_for(theirs, *rows) if state else None
    exact, moved = errors(theirs, x, hx)
    got = run(mine.to(dtype), *to(dtype, (x, hx)))
    assert ft.last_path() == "kernel"
    check(got, exact, moved, dtype, max(4 + H + 2, VARIANTS[kind].cell.gates * H, B or 1))


@each_kind
def test_on_the_reference(kind: str) -> None:
    """fastrnn.backend says which implementation runs, here as elsewhere."""
    theirs, mine = pair(kind, layers=2, bidirectional=True)
    x, hx = draw(7, 6, 3), state_for(theirs, 6)
    compiled = run(mine, x, hx, LENGTHS["unsorted"])
    with fastrnn.backend("reference"):
        got = run(mine, x, hx, LENGTHS["unsorted"])
    assert ft.last_path() == "kernel"
    exact, moved = errors(theirs, x, hx, LENGTHS["unsorted"])
    check(got, exact, moved, torch.float64, 4 * 7 * 6)
    assert any((got[name] != compiled[name]).any() for name in got)  # it was another one


@each_kind
def test_without_autograd_the_same_bits(kind: str) -> None:
    _, mine = pair(kind, layers=2, bidirectional=True)
    x = draw(7, 6, 3)
    want = [r.detach() for r in (mine(x)[0], *torch.utils._pytree.tree_leaves(mine(x)[1]))]
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            output, states = mine(x)
        assert ft.last_path() == "kernel"
        got = [output, *torch.utils._pytree.tree_leaves(states)]
        assert not any(t.requires_grad for t in got)
        for a, b in zip(got, want, strict=True):
            same(a, b)


def test_the_bound_finds_an_error() -> None:
    """What is off by a few roundings more than can be is found: the check is sharp."""
    theirs, _ = pair("gru")
    x = draw(7, 6, 3)
    exact, moved = errors(theirs, x)
    got = {name: a.float() for name, a in exact.items()}
    check(got, exact, moved, torch.float32, 42)
    for name in got:
        wrong = got | {name: got[name] + 1e-5 * exact[name].abs().max()}
        with pytest.raises(AssertionError, match="of the bound"):
            check(wrong, exact, moved, torch.float32, 42)
