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
