"""Masks in a Sequential: every recurrent layer skips the steps that do not count."""

from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from registry import CELLS

from fastrnn import Linear, Sequential

T, B, D, H = 7, 3, 3, 4
rng = np.random.default_rng(0)
X = rng.standard_normal((T, B, D)).astype(np.float32)
MASK = rng.random((T, B)) < 0.7
MASK[:, 1] = [False, False, True, True, True, True, False]  # padded at both ends
MASK[:, 2] = False  # a row without steps


def model_of(cell: Any, **options: Any) -> Sequential:
    return Sequential({
        "lower": cell.layer(D, H, rng=0, **options),
        "upper": cell.layer(H, H, bidirectional=True, rng=1, **options),
        "out": Linear(2 * H, 2, rng=2),
    })  # fmt: skip


@pytest.mark.parametrize("cell", CELLS.values(), ids=list(CELLS))
def test_a_masked_row_is_the_row_with_those_steps_taken_out(cell: Any) -> None:
    model = model_of(cell)
    state = {"lower": model(X)[1]["lower"]}
    output, final, tape = model.forward(X, state, mask=MASK)
    grads = model.backward(tape, np.ones_like(output))
    ends, _ = model(X, state, mask=MASK, last=True)
    for b in range(B):
        kept = MASK[:, b]
        alone = np.ascontiguousarray(X[kept, b])
        h = state["lower"]
        initial = tuple(a[:, b] for a in h) if isinstance(h, tuple) else h[:, b]
        own, own_state, own_tape = model.forward(alone, {"lower": initial})
        assert_same(output[kept, b], own, "output")
        own_grads = model.backward(own_tape, np.ones_like(own))
        assert_same(grads.x[kept, b], own_grads.x, "the gradient of x")
        assert not grads.x[~kept, b].any()
        assert_same(ends[b], model(alone, {"lower": initial}, last=True)[0], "the last states")
        made, wanted = final["upper"], own_state["upper"]
        pairs = [(made, wanted)] if not isinstance(made, tuple) else zip(made, wanted, strict=True)
        for one, other in pairs:
            assert_same(one[:, b], other, "the state")


def test_a_prefix_is_lengths() -> None:
    model = model_of(CELLS["gru"])
    lengths = np.array([7, 3, 0])
    prefix = np.arange(T)[:, None] < lengths
    for last in (False, True):
        output, _, tape = model.forward(X, mask=prefix, last=last)
        wanted, _, other = model.forward(X, lengths=lengths, last=last)
        assert_same(output, wanted, "output")
        one, two = (model.backward(t, np.ones_like(output)).flat_weights for t in (tape, other))
        assert_same(one, two, "the gradients")


def test_batch_first() -> None:
    one, other = model_of(CELLS["lstm"]), model_of(CELLS["lstm"], batch_first=True)
    turned = np.ascontiguousarray(X.swapaxes(0, 1))
    for options in ({}, {"last": True}, {"lengths": [7, 5, 2]}, {"restart": X[..., 0] > 1}):
        wanted = one(X, mask=MASK, **options)[0]
        if "restart" in options:
            options = {"restart": (X[..., 0] > 1).T}
        got = other(turned, mask=MASK.T, **options)[0]
        assert_same(got if "last" in options else got.swapaxes(0, 1), wanted, "output")


def test_a_wrong_mask_is_named() -> None:
    model = model_of(CELLS["gru"])
    with pytest.raises((TypeError, ValueError), match=r"^mask"):
        model(X, mask=MASK.T[:2])
    plain = Sequential({"out": Linear(3, 2, rng=0)})
    with pytest.raises(ValueError, match="mask is given, but the model has no recurrent layer"):
        plain(X, mask=MASK)
