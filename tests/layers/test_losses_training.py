"""Each loss trains something small: what it is for is what comes out."""

from typing import Any

import numpy as np
import pytest
from bounds import Array

import fastrnn

T, B = 12, 16


def train(
    name: str, x: Array, target: Any, O: int, steps: int = 150, **options: Any
) -> tuple[list[float], Array]:
    """The losses and what the network says in the end."""
    rnn, head = fastrnn.GRU(x.shape[2], 16, rng=0), fastrnn.Linear(16, O, rng=1)
    weights = [rnn.flat_weights, head.flat_weights]
    optimiser = fastrnn.optim.Adam(weights, lr=0.02)
    losses = []
    for _ in range(steps):
        h, _, tape = rnn.forward(x)
        y, head_tape = head.forward(h)
        loss, d_y = getattr(fastrnn, name)(y, target, **options)
        losses.append(loss)
        d = head.backward(head_tape, d_y)
        grads = [rnn.backward(tape, d.x).flat_weights, d.flat_weights]
        fastrnn.clip_grad_norm(grads, 1.0)
        optimiser.step(grads)
    return losses, head(rnn(x)[0])


def test_answers_by_binary_cross_entropy() -> None:
    """Was each of three channels on two steps ago?"""
    rng = np.random.default_rng(0)
    x = (rng.random((T, B, 3)) < 0.5).astype(np.float32)
    target = np.zeros_like(x)
    target[2:] = x[:-2]
    losses, y = train("binary_cross_entropy_with_logits", x, target, 3, steps=300)
    assert losses[-1] < 0.1 * losses[0]
    assert ((fastrnn.sigmoid(y) > 0.5) == (target > 0.5)).mean() > 0.99


@pytest.mark.parametrize("name", ["huber_loss", "l1_loss"])
def test_outliers_count_less(name: str) -> None:
    """A running mean, of which one target in ten is far off."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((T, B, 1)).astype(np.float32)
    clean = np.cumsum(x, axis=0) / np.arange(1, T + 1, dtype=np.float32)[:, None, None]
    target = np.where(rng.random(x.shape) < 0.1, clean + 8, clean).astype(np.float32)
    errors = {}
    for loss in (name, "mean_squared_error"):
        own = {"delta": 0.1} if loss == "huber_loss" else {}
        errors[loss] = np.abs(train(loss, x, target, 1, **own)[1] - clean).mean()
    assert errors[name] < 0.4 * errors["mean_squared_error"]


def test_weights_find_what_is_rare() -> None:
    """One step in twelve is of class 1, and the features say little of it."""
    rng = np.random.default_rng(2)
    target = (rng.random((T, B)) < 1 / 12).astype(int)
    x = (target[..., None] + 1.2 * rng.standard_normal((T, B, 2))).astype(np.float32)
    found = {}
    for weights in (None, [1.0, 12.0]):
        _, y = train("softmax_cross_entropy", x, target, 2, 40, class_weight=weights)
        found[weights is None] = (y.argmax(-1) == 1)[target == 1].mean()
    assert found[False] > 0.7 > found[True]
    rows = np.where(target, 12.0, 1.0)  # the same said by position
    _, y = train("softmax_cross_entropy", x, target, 2, 40, sample_weight=rows)
    assert (y.argmax(-1) == 1)[target == 1].mean() == found[False]


def test_smoothing_and_soft_targets_hold_back() -> None:
    """Learned by heart, a smoothed network is as sure as it was told to be."""
    rng = np.random.default_rng(3)
    target = rng.integers(0, 3, (4, B))
    x = np.eye(3, dtype=np.float32)[target]
    wanted = np.eye(3)[target] * 0.7 + 0.1
    for labels, options in (
        (target, {"label_smoothing": 0.3}),
        (wanted.astype(np.float32), {}),
        (np.where(np.arange(B) == 0, -100, target), {"label_smoothing": 0.3, "ignore_index": -100}),
    ):
        losses, y = train("softmax_cross_entropy", x, labels, 3, 200, **options)
        np.testing.assert_allclose(fastrnn.softmax(y), wanted, atol=0.03)
        entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
        assert abs(losses[-1] - entropy) < 0.01
