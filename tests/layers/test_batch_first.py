"""batch_first of the losses and of padding: the other order of two axes, and nothing else."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from memory_layouts import LAYOUTS
from refusals import refused

import fastrnn
from fastrnn import reference

U64 = 2.0**-53
LOSSES = ("softmax_cross_entropy", "mean_squared_error")

both = pytest.mark.parametrize("functions", [fastrnn, reference], ids=["own", "reference"])
each_loss = pytest.mark.parametrize("name", LOSSES)
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def turned(a: Any) -> Array:
    return np.ascontiguousarray(np.asarray(a).swapaxes(0, 1))


def draw(name: str, T: int, B: int, dtype: Any, last: Any = (5,)) -> tuple[Array, Array, Array]:
    """x (T, B, ...), target and lengths; what does not count is NaN."""
    rng = np.random.default_rng([T, B])
    x = rng.standard_normal((T, B, *last)).astype(dtype)
    if name == "mean_squared_error":
        target = rng.standard_normal(x.shape).astype(dtype)
    else:
        target = rng.integers(0, last[-1], x.shape[:-1])
    lengths = rng.integers(0, T + 1, B)
    return x, target, lengths


def losses(name: str, x: Array, target: Array, lengths: Any) -> list[float]:
    """Of every position that counts alone, or element."""
    counts = np.arange(len(x))[:, None] < lengths
    a, b = x[counts].astype(np.float64), target[counts]
    if name == "mean_squared_error":
        return [float(v) for v in ((x[counts] - b).astype(np.float64) ** 2).flat]
    top = a.max(-1, initial=-np.inf)
    at = np.take_along_axis(a, b[..., None], -1)[..., 0]
    return [float(v) for v in (np.log(np.exp(a - top[..., None]).sum(-1)) + top - at).flat]


@both
@both_types
@each_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("counting", ["all", "lengths", "mask", "both"])
def test_a_loss_is_that_of_the_other_order(
    functions: Any, name: str, dtype: Any, reduction: str, counting: str
) -> None:
    function = getattr(functions, name)
    for (T, B), last in itertools.product([(7, 3), (3, 7), (5, 5), (40, 11)], [(5,), (2, 4)]):
        x, target, lengths = draw(name, T, B, dtype, last)
        options: dict[str, Any] = {"reduction": reduction}
        swapped = dict(options)
        if counting in ("lengths", "both"):
            options["lengths"] = swapped["lengths"] = lengths
        if counting in ("mask", "both"):
            # As many axes as the positions have, batch and time being the first two.
            mask = np.random.default_rng(1).random(x.shape[:-1]) < 0.7
            options["mask"], swapped["mask"] = mask, turned(mask)
        want, d_want = function(x, target, **options)
        loss, d = function(turned(x), turned(target), batch_first=True, **swapped)
        assert_same(turned(d), d_want, f"{T}, {B}")
        # Sums of at most n terms, all of one sign (a loss of a position is at least 0), in two
        # orders; the terms themselves have the same bits.
        n = x.size if name == "mean_squared_error" else x.size // last[-1]
        assert abs(loss - want) <= 2 * (n + 2) * U64 * want
        # And the default is what it was.
        again, d_again = function(x, target, batch_first=False, **options)
        assert (again, d_again.tobytes()) == (want, d_want.tobytes())


@both
@both_types
@each_loss
def test_the_same_bits_where_the_order_is_the_same(functions: Any, name: str, dtype: Any) -> None:
    function = getattr(functions, name)
    for T, B in ((9, 1), (1, 9)):
        x, target, lengths = draw(name, T, B, dtype)
        want, d_want = function(x, target, lengths=lengths)
        loss, d = function(turned(x), turned(target), lengths=lengths, batch_first=True)
        assert loss.hex() == want.hex()
        assert_same(turned(d), d_want, "gradient")
    # One sequence has no batch axis, as for a layer.
    for last in ((5,), ()) if name == "mean_squared_error" else ((5,),):
        x, target, _ = draw(name, 9, 1, dtype, last or (5,))
        x, target = (x[:, 0], target[:, 0]) if last else (x[:, 0, 0], target[:, 0, 0])
        for lengths in (4, [4], None):
            want, d_want = function(x, target, lengths=lengths)
            loss, d = function(x, target, lengths=lengths, batch_first=True)
            assert (loss.hex(), d.tobytes()) == (want.hex(), d_want.tobytes())


@each_loss
def test_the_order_of_the_sum_is_that_of_the_array(name: str) -> None:
    x, target, lengths = draw(name, 33, 5, np.float64)
    function = getattr(fastrnn, name)
    a, b = turned(x), turned(target)
    loss, d = function(a, b, lengths=lengths, reduction="sum", batch_first=True)
    counts = np.arange(33) < lengths[:, None]
    want = 0.0
    if name == "softmax_cross_entropy":  # one chain over (b, t)
        for row, t, counted in zip(a.reshape(-1, 5), b.flat, counts.flat, strict=True):
            want += function(row, int(t))[0] if counted else 0.0
    else:  # 16 chains over (b, t, feature)
        values = np.where(counts[..., None], a - b, 0).ravel()
        for c in range(16):
            part = 0.0
            for value in values[c::16].tolist():
                part += value * value
            want += part
    assert loss.hex() == want.hex()
    assert np.count_nonzero(d) == counts.sum() * 5
    exact = math.fsum(losses(name, x, target, lengths))
    # exp, log and the sums of 5 terms err by some units; the 825 terms of the sum by one each.
    assert abs(loss - exact) <= 900 * U64 * exact


@both
@each_loss
def test_what_is_behind_a_length_may_be_anything(functions: Any, name: str) -> None:
    x, target, lengths = draw(name, 6, 4, np.float64)
    function = getattr(functions, name)
    out = ~(np.arange(6) < lengths[:, None])
    a, b = turned(x), turned(target)
    want, d_want = function(a, b, lengths=lengths, batch_first=True)
    a[out], b[out] = np.nan, -100
    loss, d = function(a, b, lengths=lengths, batch_first=True)
    assert loss.hex() == want.hex()
    assert_same(d, d_want, "gradient")
    assert not d[out].any()


@both
@both_types
@each_loss
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(functions: Any, name: str, dtype: Any, layout: Any) -> None:
    x, target, lengths = draw(name, 6, 4, dtype)
    a, b = turned(x), turned(target)
    function = getattr(functions, name)
    want, d_want = function(a, b, lengths=lengths, batch_first=True)
    if name == "mean_squared_error":
        b = layout(b)
    loss, d = function(layout(a), b, lengths=lengths, batch_first=True)
    assert abs(loss - want) <= 2 * 120 * U64 * want  # the reference adds in the order of memory
    assert_same(np.ascontiguousarray(d), d_want, layout.__name__)


def test_a_network_with_the_batch_first() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((n, 3)).astype(np.float32) for n in (4, 0, 7)]
    labels = [rng.integers(0, 2, len(row)) for row in rows]
    found = []
    for batch_first in (False, True):
        x, lengths = fastrnn.pad_sequence(rows, batch_first=batch_first)
        y, _ = fastrnn.pad_sequence(labels, batch_first=batch_first)
        rnn = fastrnn.RNN(3, 8, batch_first=batch_first, rng=0)
        output, _ = rnn(x, lengths=lengths)
        for row, part in zip(
            rows, fastrnn.unpad_sequence(output, lengths, batch_first=batch_first), strict=True
        ):
            assert_same(part, rnn(row)[0], "one sequence")
        logits = fastrnn.Linear(8, 2, rng=1)(output)
        loss, d = fastrnn.softmax_cross_entropy(logits, y, lengths=lengths, batch_first=batch_first)
        found.append((loss, turned(d) if batch_first else d))
    assert abs(found[0][0] - found[1][0]) <= 2 * 13 * U64 * found[0][0]
    assert_same(found[0][1], found[1][1], "gradient")


# ------------------------------------------------------------------------------------ padding


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "?", ">f4", "c8", "S3"])
@pytest.mark.parametrize("rest", [(), (4,), (4, 2)])
@pytest.mark.parametrize("counts", [(3, 0, 5, 1), (2,), (0, 0), (4, 4)])
def test_padding(dtype: str, rest: Any, counts: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [(rng.standard_normal((n, *rest)) * 9).astype(dtype) for n in counts]
    want, lengths = fastrnn.pad_sequence(rows)
    x, same = fastrnn.pad_sequence(iter(rows), batch_first=True)
    assert x.shape == (len(counts), max(counts), *rest)
    assert x.dtype == want.dtype
    assert x.flags.c_contiguous
    assert want.flags.c_contiguous
    assert np.array_equal(x.swapaxes(0, 1), want)
    assert same.tolist() == lengths.tolist() == list(counts)
    for b in (x, np.asfortranarray(x)):
        for part, row in zip(
            fastrnn.unpad_sequence(b, lengths, batch_first=True), rows, strict=True
        ):
            assert np.array_equal(part, row)
            assert part.flags.c_contiguous
            assert not np.shares_memory(part, b)


# ---------------------------------------------------------------------------------- bad input

X, TARGETS = np.zeros((5, 3, 4)), {LOSSES[0]: np.zeros((5, 3), int), LOSSES[1]: np.ones((5, 3, 4))}
MEANT = "lengths has shape ({},), expected (B,) = ({},): did you mean batch_first={}?"


@each_loss
def test_lengths_of_the_other_order(name: str) -> None:
    target = TARGETS[name]
    for batch_first, fits_other, short in ((False, [3, 0, 2, 1, 3], 3), (True, [5, 0, 2], 5)):
        text = MEANT.format(len(fits_other), short, not batch_first)
        options = {"lengths": fits_other, "batch_first": batch_first}
        refused(((X, target), options), ValueError, text, function=name)
        # The cure cures.
        getattr(fastrnn, name)(X, target, lengths=fits_other, batch_first=not batch_first)
    # Not where it would not.
    for batch_first, neither in ((False, [5, 5, 5, 5, 4]), (True, [9, 0, 0]), (False, [1, 2])):
        with pytest.raises(ValueError) as caught:
            getattr(fastrnn, name)(X, target, lengths=neither, batch_first=batch_first)
        assert "lengths has shape" in str(caught.value)
        assert "did you mean" not in str(caught.value)
    text = "lengths[1] is 6, expected 0 <= length <= T = 5"
    refused(((X, target), {"lengths": [5, 6, 0]}), ValueError, text, function=name)
    text = "lengths[1] is 4, expected 0 <= length <= T = 3"
    options = {"lengths": [3, 4, 0, 0, 0], "batch_first": True}
    refused(((X, target), options), ValueError, text, function=name)


def test_lengths_of_the_other_order_in_padding() -> None:
    for batch_first, fits_other, short in ((False, [3, 0, 2, 1, 3], 3), (True, [5, 0, 2], 5)):
        with pytest.raises(ValueError) as caught:
            fastrnn.unpad_sequence(X, fits_other, batch_first=batch_first)
        assert str(caught.value) == MEANT.format(len(fits_other), short, not batch_first)
        assert len(fastrnn.unpad_sequence(X, fits_other, batch_first=not batch_first)) > 0
    with pytest.raises(ValueError, match=r"x has shape \(3,\), expected \(B, T, \.\.\.\)"):
        fastrnn.unpad_sequence(np.zeros(3), [1], batch_first=True)


@pytest.mark.parametrize("wrong", [1, 0, None, "yes", np.array(True)], ids=repr)
def test_batch_first_is_a_flag(wrong: Any) -> None:
    text = f"batch_first is {wrong!r}, expected True or False"
    for name in LOSSES:
        refused(((X, TARGETS[name]), {"batch_first": wrong}), TypeError, text, function=name)
    for call in (
        lambda: fastrnn.pad_sequence([np.zeros(3)], batch_first=wrong),
        lambda: fastrnn.unpad_sequence(X, [1, 2, 3], batch_first=wrong),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value).startswith(text)
    for flag in (np.True_, np.False_):
        fastrnn.pad_sequence([np.zeros(3)], batch_first=flag)
