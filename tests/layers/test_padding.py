"""pad_sequence and unpad_sequence."""

import numpy as np
import pytest

import fastrnn


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
@pytest.mark.parametrize("rest", [(), (4,), (4, 2)])
def test_there_and_back(dtype, rest):
    rng = np.random.default_rng(0)
    rows = [(rng.standard_normal((n, *rest)) * 9).astype(dtype) for n in (3, 0, 5, 1, 5)]
    x, lengths = fastrnn.pad_sequence(rows)
    assert x.shape == (5, 5, *rest)
    assert x.dtype == dtype
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [3, 0, 5, 1, 5]
    for b, row in enumerate(rows):
        assert np.array_equal(x[: len(row), b], row)
        assert not x[len(row) :, b].any()
    back = fastrnn.unpad_sequence(x, lengths)
    for row, copy in zip(rows, back, strict=True):
        assert np.array_equal(row, copy)
        assert copy.flags.c_contiguous
        assert not np.shares_memory(copy, x)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("value", [0, -100, 2.5, np.inf, np.nan])
def test_side_and_value(batch_first, side, value):
    rows = [np.arange(1.0, n + 1)[:, None] for n in (3, 0, 5, 1)]
    x, lengths = fastrnn.pad_sequence(
        rows, batch_first=batch_first, padding_value=value, padding_side=side
    )
    by_row = x if batch_first else x.swapaxes(0, 1)
    assert by_row.shape == (4, 5, 1)
    for own, row in zip(by_row, rows, strict=True):
        there = slice(len(row)) if side == "right" else slice(5 - len(row), 5)
        assert np.array_equal(own[there], row)
        assert np.array_equal(np.delete(own, there), [value] * (5 - len(row)), equal_nan=True)
    back = fastrnn.unpad_sequence(x, lengths, batch_first=batch_first, padding_side=side)
    assert all(np.array_equal(a, b) for a, b in zip(back, rows, strict=True))


def test_what_pytorch_pads():
    torch = pytest.importorskip("torch")
    rows = [np.arange(1.0, n + 1)[:, None] for n in (3, 5, 1)]
    for batch_first in (False, True):
        for side in ("right", "left"):
            options = {"batch_first": batch_first, "padding_value": -1, "padding_side": side}
            theirs = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, rows)), **options)
            assert np.array_equal(fastrnn.pad_sequence(rows, **options)[0], theirs.numpy())


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("u1", -1), ("i4", 0.5), ("i4", np.nan), ("i4", 2**40), ("f4", 1e300), ("f8", 1j), ("?", 2)],
)
def test_a_value_that_the_type_cannot_hold(dtype, value):
    with pytest.raises(ValueError, match=r"padding_value is .* cannot hold"):
        fastrnn.pad_sequence([np.zeros(2, dtype), np.zeros(3, dtype)], padding_value=value)


def test_other_bad_values_and_sides():
    rows = [np.zeros(2), np.zeros(3)]
    for value in ("0", None, [1.0], object()):
        with pytest.raises(TypeError, match=r"padding_value is .*, expected a number"):
            fastrnn.pad_sequence(rows, padding_value=value)
    with pytest.raises(ValueError, match="padding_side is 'up', expected 'right' or 'left'"):
        fastrnn.pad_sequence(rows, padding_side="up")
    words = [np.array(["a"]), np.array(["b", "c"])]
    assert fastrnn.pad_sequence(words)[0][:, 0].tolist() == ["a", ""]
    with pytest.raises(ValueError, match="holds no numbers"):
        fastrnn.pad_sequence(words, padding_value=1)


def test_the_mask_of_padding_on_the_left():
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((n, 4)) for n in (3, 0, 5)]
    x, lengths = fastrnn.pad_sequence(rows, padding_side="left")
    layer = fastrnn.GRU(4, 6, bidirectional=True, dtype="float64", rng=0)
    output, _ = layer(x, mask=np.arange(5)[:, None] >= 5 - lengths)
    parts = fastrnn.unpad_sequence(output, lengths, padding_side="left")
    for row, part in zip(rows, parts, strict=True):
        assert np.array_equal(part, layer(row)[0])


def test_it_feeds_a_layer():
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((n, 4)) for n in (3, 0, 5)]
    x, lengths = fastrnn.pad_sequence(rows)
    layer = fastrnn.RNN(4, 6, dtype="float64", rng=0)
    output, _ = layer(x, lengths=lengths)
    for row, part in zip(rows, fastrnn.unpad_sequence(output, lengths), strict=True):
        assert np.array_equal(part, layer(row)[0])


def test_any_iterable_and_any_layout():
    rows = (np.asfortranarray(np.ones((n, 3), ">f8")) for n in (1, 2))
    x, lengths = fastrnn.pad_sequence(rows)
    assert x.dtype == np.float64
    assert x.dtype.isnative
    assert x.sum() == 9
    assert lengths.tolist() == [1, 2]


def test_nothing_but_empty_sequences():
    x, lengths = fastrnn.pad_sequence([np.zeros((0, 3)), np.zeros((0, 3))])
    assert x.shape == (0, 2, 3)
    assert [row.shape for row in fastrnn.unpad_sequence(x, lengths)] == [(0, 3), (0, 3)]


@pytest.mark.parametrize(
    ("sequences", "error", "text"),
    [
        ([], ValueError, "sequences is empty"),
        (3, TypeError, "sequences is 3, expected a list"),
        ("ab", TypeError, "sequences is 'ab'"),
        ([[1.0, 2.0]], TypeError, "sequences[0] is a list, expected a numpy.ndarray"),
        ([np.zeros(2), np.ma.zeros(2)], TypeError, "sequences[1] is a MaskedArray"),
        ([np.zeros(2), np.zeros(2, "f4")], TypeError, "sequences[1] is float32, sequences[0] is"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], ValueError,
         "sequences[1] has shape (2, 4), expected (T, 3)"),
        ([np.zeros(2), np.zeros((2, 4))], ValueError,
         "sequences[1] has shape (2, 4), expected (T,)"),
        ([np.zeros(())], ValueError, "sequences[0] has shape (), expected (T,)"),
    ],
)  # fmt: skip
def test_pad_errors(sequences, error, text):
    with pytest.raises(error) as caught:
        fastrnn.pad_sequence(sequences)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("x", "lengths", "error", "text"),
    [
        ([[1.0]], [1], TypeError, "x is a list"),
        (np.zeros(3), [1], ValueError, "x has shape (3,), expected (T, B, ...)"),
        (np.zeros((3, 2)), [1], ValueError, "lengths has shape (1,), expected (B,) = (2,)"),
        (np.zeros((3, 2)), [1, 4], ValueError, "lengths[1] is 4, expected 0 <= length <= T = 3"),
        (np.zeros((3, 2)), [1.0, 2.0], TypeError, "lengths holds float64"),
    ],
)
def test_unpad_errors(x, lengths, error, text):
    with pytest.raises(error) as caught:
        fastrnn.unpad_sequence(x, lengths)
    assert text in str(caught.value)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_matrix_is_taken_apart_as_an_array() -> None:
    first, second = fastrnn.unpad_sequence(np.matrix([[1.0, 4.0], [2.0, 0.0]]), [2, 1])
    assert first.shape == (2,)
    assert first.tolist() == [1, 2]
    assert second.tolist() == [4]
