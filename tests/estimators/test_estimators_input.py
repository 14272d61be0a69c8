"""Sequences, labels, weights and parameters as users have them, and what is wrong with them."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy import sparse

from fastrnn.estimators import (
    EchoStateRegressor,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
)
from fastrnn.estimators.sequences import Vocabulary, by_length, framed, grouped, read
from fastrnn.estimators.tagger import read_labels

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {"hidden_size": 3, "embedding_size": 2, "max_iter": 2, "random_state": 0}


class Table:
    """A table or series of another library, which NumPy can read."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.values, dtype)


def objects(*items: Any) -> Any:
    made = np.empty(len(items), object)
    made[:] = items
    return made


# ------------------------------------------------------------------------------ forms

NUMBERS = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
FORMS: dict[str, Any] = {
    "lists": NUMBERS,
    "lists of tuples": [[(1, 2), (3, 4)], [(5, 6), (7, 8)]],
    "an array": np.array(NUMBERS),
    "an array of float16": np.array(NUMBERS, np.float16),
    "an array of other strides": np.array(NUMBERS).transpose(2, 1, 0).copy().transpose(2, 1, 0),
    "an array of objects": np.array(NUMBERS, object),
    "a list of arrays": [np.array(row) for row in NUMBERS],
    "arrays of several types": [np.array(NUMBERS[0], int), np.array(NUMBERS[1], np.float32)],
    "a list of tables": [Table(row) for row in NUMBERS],
    "a series of arrays": Table(objects(*map(np.array, NUMBERS))),
    "one array of arrays": objects(*map(np.array, NUMBERS)),
    "one array of lists": objects(*NUMBERS),
    "steps and lengths": (np.arange(1.0, 9).reshape(4, 2), [2, 2]),
    "lists of steps and of lengths": ([[1, 2], [3, 4], [5, 6], [7, 8]], np.array([2, 2], np.int8)),
    "a table of steps": (Table(np.arange(1.0, 9).reshape(4, 2)), Table([2, 2])),
    "an iterator": iter(NUMBERS),
    "another class of arrays": [np.array(row).view(np.matrix) for row in NUMBERS],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_numbers(form: str) -> None:
    made = read(FORMS[form])
    assert made.steps.dtype == np.float64
    assert made.steps.tolist() == np.arange(1.0, 9).reshape(4, 2).tolist()
    assert made.lengths.tolist() == [2, 2]
    assert type(made.steps) is np.ndarray
    assert not made.of_tokens


@pytest.mark.parametrize(
    "X",
    [
        np.arange(6).reshape(2, 3),
        np.arange(6).reshape(2, 3, 1),
        np.arange(6).reshape(2, 3).view(np.matrix),
        Table(np.arange(6).reshape(2, 3)),
        [[0, 1, 2], [3, 4, 5]],
        [range(3), range(3, 6)],
        [np.arange(3), np.arange(3, 6)[:, None]],
        (range(6), [3, 3]),
    ],
)
def test_sequences_of_single_numbers(X: Any) -> None:
    made = read(X)
    assert made.steps.tolist() == [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]
    assert made.lengths.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("X", "strings"),
    [
        (["ab", "c"], True),
        (np.array(["ab", "c"]), True),
        (Table(objects("ab", "c")), True),
        (("abc", [2, 1]), True),
        ([["a", "b"], ["c"]], False),
        ([("a", "b"), ("c",)], False),
        ([np.array(["a", "b"]), np.array(["c"])], False),
        ([objects("a", "b"), Table(objects("c"))], False),
        ([(a for a in "ab"), ["c"]], False),
        (["ab", ["c"]], False),
        ((["a", "b", "c"], [2, 1]), False),
        ((np.array(["a", "b", "c"]), [2, 1]), False),
    ],
)
def test_sequences_of_tokens(X: Any, strings: bool) -> None:
    made = read(X)
    assert made.of_tokens
    assert made.steps.tolist() == ["a", "b", "c"]
    assert {type(t) for t in made.steps} == {str}
    assert made.lengths.tolist() == [2, 1]
    assert made.strings == strings


@pytest.mark.parametrize(
    "X",
    [
        [[3, 1], [2]],
        [np.array([3, 1]), np.array([2], np.uint8)],
        ([3, 1, 2], [2, 1]),
        (np.array([3, 1, 2]), [2, 1]),
    ],
)
def test_integers_as_tokens(X: Any) -> None:
    made = read(X, tokens=True)
    assert made.steps.tolist() == [3, 1, 2]
    assert {type(t) for t in made.steps} == {int}
    model = SequenceClassifier(tokens=True, **QUICK).fit(X, [0, 1])
    assert model.tokens_.tolist() == [1, 2, 3]
    assert model.n_features_in_ == 1


def test_arrays_of_tokens() -> None:
    made = read(np.array([["a", "b"], ["c", "a"]]))
    assert (made.steps.tolist(), made.lengths.tolist()) == (["a", "b", "c", "a"], [2, 2])
    made = read(np.array([[1, 2], [3, 1]]), tokens=True)
    assert (made.steps.tolist(), made.of_tokens) == ([1, 2, 3, 1], True)


# ------------------------------------------------------------------------------ what is wrong

ROWS = [[1.0, 2.0], [3.0, 4.0, 5.0]]
NAN, INF = float("nan"), float("inf")
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (None, TypeError, "X is None, expected sequences: a list"),
    "a string": ("abc", TypeError, r"X is one string, .*: pass \[X\]"),
    "bytes": (b"abc", TypeError, r"X is a bytes, .*: pass X.decode\(\)"),
    "a dict": ({0: [1.0]}, TypeError, "X is a dict"),
    "a set": ({1.0}, TypeError, "X is a set"),
    "a number": (5, TypeError, "X is 5, expected sequences"),
    "a sparse matrix": (sparse.eye(3), TypeError, r"sparse.*pass X.toarray\(\)"),
    "a sparse row": ([ROWS[0], sparse.eye(3)], TypeError, r"X\[1\] is a sparse"),
    "a masked array": (np.ma.ones((2, 3)), TypeError, "X is a masked array"),
    "a masked row": ([ROWS[0], np.ma.ones(3)], TypeError, r"X\[1\] is a masked array"),
    "no sequences": ([], ValueError, "X holds no sequences: 0 sample"),
    "no rows": (np.ones((0, 3)), ValueError, "X holds no sequences: 0 sample"),
    "no steps": (np.ones((2, 0, 3)), ValueError, "X has no steps"),
    "no features": (np.ones((2, 3, 0)), ValueError, r"X has no features: 0 feature\(s\)"),
    "a row of no features": ([np.ones((2, 0))], ValueError, r"X\[0\] .* 0 feature\(s\)"),
    "an empty row": ([[1.0], [], [2.0]], ValueError, r"X\[1\] has no steps: leave it out"),
    "an empty array": ([np.ones((2, 3)), np.ones((0, 3))], ValueError, r"X\[1\] has no steps"),
    "an empty string": (["a", ""], ValueError, r"X\[1\] has no steps"),
    "an empty list of tokens": ([["a"], []], ValueError, r"X\[1\] has no steps"),
    "one number": (np.array(5.0), ValueError, r"X has shape \(\)"),
    "numbers": (np.arange(5.0), ValueError, r"X has shape \(5,\).* X.reshape\(1, -1\)"),
    "a list of numbers": ([1.0, 2.0], ValueError, r"X\[0\] is 1.0: .* your data: \[X\] is one"),
    "arrays of numbers": ([np.array(1.0)], ValueError, r"X\[0\] has shape \(\)"),
    "four axes": (np.ones((2, 3, 4, 5)), ValueError, r"X.reshape\(\*X.shape\[:2\], -1\)"),
    "a row of three axes": ([np.ones((2, 3, 4))], ValueError, r"X\[0\] has shape \(2, 3, 4\)"),
    "None": ([[1.0], None], TypeError, r"X\[1\] is None"),
    "None in a row": ([[1.0], [2.0, None]], ValueError, r"NaN: X\[1\] at step 1"),
    "an object in a row": ([[1.0], [2.0, {}]], TypeError, r"X\[1\] holds no numbers"),
    "bytes for a row": ([b"ab"], TypeError, r"X\[0\] is a bytes"),
    "an array of bytes": (np.array([b"ab", b"c"]), TypeError, r"X\[0\] is a bytes"),
    "ragged features": ([[[1, 2]], [[1, 2, 3]]], ValueError, r"X\[1\] has 3 features a step, but"),
    "a ragged row": ([[[1, 2], [3]]], ValueError, r"X\[0\] has steps of unequal numbers"),
    "NaN": ([[1.0], [2.0, NAN]], ValueError, r"X contains NaN: X\[1\] at step 1, feature 0"),
    "infinity": (np.array([[[1.0, 2.0], [1.0, INF]]]), ValueError, r"\[0\] at step 1, feature 1"),
    "NaN in a tuple": (([1.0, NAN, 2.0], [1, 2]), ValueError, r"NaN: X\[1\] at step 0"),
    "a huge integer": ([[1], [10**400]], ValueError, r"X\[1\] contains an integer too large"),
    "complex": (np.ones((2, 3), complex), ValueError, "Complex data not supported"),
    "a complex row": ([ROWS[0], [1j]], ValueError, r"Complex data not supported: X\[1\]"),
    "dates": (np.zeros((2, 3), "M8[s]"), TypeError, "X is of type datetime64"),
    "numbers and tokens": ([[1.0], "ab"], TypeError, r"X\[1\] is of tokens, but X\[0\]"),
    "tokens and numbers": ([["a"], [1.0]], TypeError, r"X\[1\] is of numbers, but X\[0\]"),
    "both in a row": ([["a", 1]], TypeError, r"X\[0\] at step 1 is 1, but the first token is 'a'"),
    "both in a row, later": ([[1, "a"]], TypeError, r"X\[0\] is of type <U"),
    "both in an array": (np.array([["a", 1]], object), TypeError, "tokens are all strings, or all"),
    "tokens that are none": ([["a", None]], TypeError, "argument must be a string or a number"),
    "tokens with features": (np.full((2, 3, 4), "a"), ValueError, r"tokens are \(N, T\): one"),
    "a column of strings": (np.array([["ab"], ["c"]]), ValueError, r"pass its column \(N,\) if"),
    "a column of objects": (np.array([["ab"], ["c"]], object), ValueError, "else a list of rows"),
    "tokens in three lists": ([[["a"], ["b"]]], TypeError, r"X\[0\] is of type <U1"),
    "dicts": (np.full((2, 3), {}, object), TypeError, "X holds no numbers: argument must be"),
    "a tuple of sequences": (([1.0, 2.0], [3.0, 4.0]), TypeError, r"pass list\(X\)"),
    "a tuple of integers": (([1, 2], [3, 4]), ValueError, r"add up to 7: .*pass list\(X\)"),
    "a tuple of three": (([1], [2], [3]), TypeError, r"a tuple of 3: .*pass list\(X\)"),
    "a tuple of arrays": ((np.ones((2, 3)), np.ones((2, 3))), TypeError, r"pass list\(X\)"),
    "lengths of 0": (([1.0, 2.0], [2, 0]), ValueError, r"X\[1\] has no steps"),
    "no lengths": (([], np.array([], int)), ValueError, "X holds no sequences"),
    "masked lengths": ((ROWS[0], np.ma.array([1, 1], mask=[0, 1])), TypeError, "is a masked array"),
    "padded sequences": ((np.ones((2, 5, 3)), [5, 4]), ValueError, r"pass \[x\[:n\] for x, n in"),
    "padded numbers": ((np.ones((2, 5)), [5, 4]), ValueError, r"pass \[x\[:n\] for x, n in zip\("),
    "groups": ([("a", np.ones((2, 2)))], TypeError, r"pair of 'a' and an array.*\[group for _, gr"),
    "groups of one number": ([(3, np.ones(1))], TypeError, r"X\[0\] is a pair of 3 and an array"),
    "groups by two": ([((1, 2), np.ones(2))], TypeError, r"X\[0\] is a pair of \(1, 2\) and an"),
    "a missing string": (["ab", NAN], TypeError, r"X\[1\] is nan, expected a sequence of tokens"),
    "a number of steps": ((5.0, [1]), ValueError, r"X\[0\] has shape \(\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_sequences_that_are_none(case: str) -> None:
    X, error, text = BAD[case]
    with pytest.raises(error, match=text):
        read(X)


@pytest.mark.parametrize(
    ("X", "error", "text"),
    [
        ([[1.5]], TypeError, r"X\[0\] at step 0 is 1.5: .*KBinsDiscretizer with .astype"),
        ([[1], [2, True]], TypeError, r"X\[1\] at step 1 is True"),
        ([1, 2], ValueError, r"X\[0\] is 1: a number is no sequence.* \[X\] is one sequence"),
        ([[1.0]], TypeError, r"X\[0\] at step 0 is 1.0: .* pass integers, by int"),
        ([[1], ["a"]], TypeError, r"X\[1\] at step 0 is 'a', but the first token is 1"),
        ([np.ones((2, 2), int)], ValueError, r"X\[0\] has shape \(2, 2\), expected \(T,\)"),
        (np.ones((2, 2, 2), int), ValueError, r"tokens are \(N, T\)"),
        (([1, 2.5], [2]), TypeError, r"X\[0\]\[1\] is 2.5"),
    ],
)
def test_tokens_that_are_none(X: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read(X, tokens=True)


def test_what_fit_has_not_seen() -> None:
    model = SequenceClassifier(**QUICK).fit(["ab", "ba"], [0, 1])
    assert model.tokens_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"X\[1\] has 'c' at step 2, .*handle_unknown"):
        model.predict(["a", "abc"])
    with pytest.raises(TypeError, match="X is of numbers, but this SequenceClassifier was fitted"):
        model.predict([[1.0]])
    lenient = SequenceClassifier(handle_unknown="ignore", **QUICK).fit(["ab", "ba"], [0, 1])
    one, other = lenient.predict_proba(["ac", "aX"])
    assert (one == other).all()
    model = SequenceClassifier(**QUICK).fit([[[1.0, 2.0]] * 2, [[3.0, 4.0]]], [0, 1])
    assert model.tokens_ is None
    assert model.n_features_in_ == 2
    with pytest.raises(ValueError, match="X has 3 features a step, but SequenceClassifier is exp"):
        model.predict([[[1.0, 2.0, 3.0]]])
    with pytest.raises(TypeError, match="X is of tokens"):
        model.predict(["ab"])


def test_characters_and_words_and_numbers_are_not_mistaken_for_another() -> None:
    options: dict[str, Any] = {"handle_unknown": "ignore", "hidden_size": 4, "max_iter": 1}
    y = [0, 1]
    words = SequenceClassifier(**options).fit([["the", "cat"], ["a", "dog"]], y)
    with pytest.raises(TypeError, match=r"X is of strings, .* such as 'cat': pass lists, as text"):
        words.predict(["the cat"])
    assert len(words.predict([["a", "z"]])) == 1
    letters = SequenceClassifier(**options).fit(["ab", "ba"], y)
    with pytest.raises(TypeError, match=r"X has tokens such as 'the', but those of fit were singl"):
        letters.predict([["the", "cat"]])
    assert letters.predict([["a", "b"]]) == letters.predict(["ab"])
    numbers = SequenceClassifier(tokens=True, **options).fit([[1, 2], [2, 1]], y)
    for X in (["12"], [["1", "2"]]):
        with pytest.raises(TypeError, match="X has strings for tokens, but those of fit were int"):
            numbers.predict(X)
    with pytest.raises(TypeError, match="X has integers for tokens, but those of fit were strings"):
        words.set_params(tokens=True).predict([[1, 2]])


def test_values_that_float32_does_not_have() -> None:
    X, y = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([0.0, 1.0])
    model = SequenceRegressor(standardize=False, **QUICK)
    with pytest.raises(ValueError, match=r"X contains a value too large .*: X\[0\] at step 0"):
        model.fit(1e300 * X, y)
    with pytest.raises(ValueError, match=r"y contains a value too large .*: y\[1\]"):
        model.fit(X, 1e300 * y)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-40, 1e40, 1e200, 1e307])
def test_standardised_values_may_be_of_any_size(scale: float) -> None:
    X, y = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([0.0, 1.0])
    plain = SequenceRegressor(**QUICK).fit(X, y).predict(X)
    assert np.allclose(SequenceRegressor(**QUICK).fit(scale * X, y).predict(scale * X), plain)
    made = SequenceRegressor(**QUICK).fit(X, scale * y).predict(X)
    assert np.allclose(made / scale, plain)


def test_constant_features_are_no_division_by_zero() -> None:
    X = np.random.default_rng(0).standard_normal((5, 4, 3))
    X[:, :, 0], X[:, :, 1] = 7.1, 0
    model = SequenceRegressor(**QUICK).fit(X, np.full(5, 3.3))
    assert model.predict(X).shape == (5,)
    assert np.isfinite(model.predict(X)).all()


# ------------------------------------------------------------------------------ y

THREE = [[1.0], [2.0, 3.0], [4.0]]


@pytest.mark.parametrize(
    ("y", "error", "text"),
    [
        (None, ValueError, "requires y to be passed"),
        ([0, 1], ValueError, r"inconsistent numbers of samples: \[3, 2\].*of a single one, pass"),
        ([0.5, 1.5, 2.5], ValueError, "Unknown label type"),
        ([0, 1, NAN], ValueError, "y contains NaN"),
        ([0, 1, None], ValueError, "y holds None, at 2"),
        (["a", "b", None], ValueError, "y holds None, at 2"),
        (objects("a", "b", NAN), ValueError, "y holds nan, at 2, which is no label"),
        (np.array(["2020", "NaT", "2021"], "M8[Y]"), ValueError, "y holds NaT, at 1, which is no"),
        (sparse.csr_matrix([[0], [1], [1]]), TypeError, r"sparse.*pass y.toarray\(\)"),
        (list(np.ma.array([0, 1, 0], mask=[0, 0, 1])), TypeError, "y is a masked array"),
        (["a", 1, "b"], TypeError, "labels of the types int and str"),
        (objects("a", 1, "b"), TypeError, "labels of the types int and str"),
        ([[0, 1], [1, 0], [1, 1]], ValueError, r"y should be a 1d array, got .*\(3, 2\)"),
        ([[0], [1, 0], [1]], ValueError, "y holds sequences, expected labels: a SequenceTagger"),
        (5, TypeError, "y is 5, expected labels"),
        ("abc", TypeError, "y is 'abc', expected labels"),
        ({0, 1, 2}, TypeError, "y is {0, 1, 2}, expected labels"),
        (np.ma.array([0, 1, 0], mask=[0, 0, 1]), TypeError, "y is a masked array"),
        (np.zeros(3, [("a", int)]), TypeError, "y is of type "),
    ],
)
def test_labels_that_are_none(y: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SequenceClassifier(**QUICK).fit(THREE, y)


@pytest.mark.parametrize("y", [["x", "y", "x"], [True, False, True], [3, 1, 3], [1.0, 2.0, 1.0]])
def test_labels_keep_their_type(y: Any) -> None:
    for given in (y, np.array(y), Table(np.array(y)), tuple(y)):
        model = SequenceClassifier(**QUICK).fit(THREE, given)
        assert model.classes_.tolist() == sorted(set(y))
        assert model.predict(THREE).dtype == np.array(y).dtype
        assert set(model.predict(THREE)) <= set(y)


def test_a_score_counts_labels_never_seen_as_wrong() -> None:
    model = SequenceClassifier(**QUICK).fit(THREE, ["x", "x", "x"])
    assert model.score(THREE, ["x", "new", "x"]) == pytest.approx(2 / 3)
    assert model.score(THREE, ["x", "new", "x"], [1, 2, 1]) == 0.5
    with pytest.raises(TypeError, match="y has numbers for labels, but those of fit were strings"):
        model.score(THREE, [1, 2, 3])
    tagger = SequenceTagger(**QUICK).fit(["ab"], [["x", "x"]])
    assert tagger.score(["ab", "b"], [["x", "new"], ["x"]]) == pytest.approx(2 / 3)
    assert tagger.score(["ab", "b"], [["x", "new"], ["x"]], [1, 2]) == 0.75
    with pytest.raises(TypeError, match="y has numbers for labels"):
        tagger.score(["ab"], [[1, 2]])


TAGS = [0, 1, 1, 0, 1]  # of sequences of 2 and of 3 steps


@pytest.mark.parametrize(
    "y",
    [
        [[0, 1], [1, 0, 1]],
        [(0, 1), np.array([1, 0, 1])],
        [np.array([0, 1]), np.array([1, 0, 1])],
        objects([0, 1], np.array([1, 0, 1])),
        [Table([0, 1]), Table([1, 0, 1])],
        TAGS,
        np.array(TAGS),
        Table(TAGS),
    ],
)
def test_forms_of_labels_of_steps(y: Any) -> None:
    assert read_labels(y, read(["ab", "abc"])).tolist() == TAGS


def test_more_forms_of_labels_of_steps() -> None:
    X = read(np.ones((2, 3)))
    assert read_labels(np.arange(6).reshape(2, 3), X).tolist() == list(range(6))
    assert read_labels(["NNV", "VVN"], X).tolist() == list("NNVVVN")
    assert read_labels(np.array(["NNV", "VVN"]), X).tolist() == list("NNVVVN")
    one_step = read([["a"], ["b"]])
    for y in ([1, 2], [[1], [2]], np.array([1, 2]), np.array([[1], [2]])):
        assert read_labels(y, one_step).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("y", "error", "text"),
    [
        (None, ValueError, "requires y to be passed"),
        ([[0, 1]], ValueError, r"y has labels for 1 sequences, but X has 2 \(and 5 steps\)"),
        ([[0, 1], [1, 0]], ValueError, r"y\[1\] has 2 labels, but X\[1\] has 3 steps"),
        ([0, 1], ValueError, r"y\[0\] is 0, expected a label for each step: SequenceClassifier"),
        ([0, 1], ValueError, r"If X is a single one, pass \[X\]"),
        ([np.ma.ones(2), [1, 1, 1]], TypeError, "y is a masked array"),
        ([[0, 1], [1, 0, None]], ValueError, "y holds None, at 4"),
        ([[0, 1], [1, 0, "a"]], TypeError, "labels of the types int and str"),
        ([[0.0, 1.0], [1.0, 0.0, NAN]], ValueError, "y contains NaN"),
        ([[0.5, 1.0], [1.0, 0.0, 1.0]], ValueError, "Unknown label type"),
        ([[[0], [1]], [[1], [0], [1]]], ValueError, r"y has labels of shape \(1,\)"),
        (np.ones((2, 3, 1)), ValueError, r"y has shape \(2, 3, 1\)"),
        ("abcde", TypeError, "y is 'abcde', expected labels for each sequence"),
        (7, TypeError, "y is 7, expected labels for each sequence"),
    ],
)
def test_labels_of_steps_that_are_none(y: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SequenceTagger(**QUICK).fit(["ab", "abc"], y)


def test_an_array_is_tagged_by_an_array() -> None:
    X = np.random.default_rng(0).standard_normal((4, 5))
    model = SequenceTagger(**QUICK).fit(X, X > 0)
    for given in (X, X[:, :, None], Table(X)):
        assert model.predict(given).shape == (4, 5)
        assert model.predict_proba(given).shape == (4, 5, 2)
        assert (model.predict(given) == model.predict(X)).all()
    flat = (X.ravel(), np.full(4, 5))
    for given in (list(X), objects(*X), flat):
        said = model.predict(given)
        assert isinstance(said, list)
        assert (np.stack(said) == model.predict(X)).all()
    assert model.score(flat, (X > 0).ravel()) == model.score(X, X > 0)


def test_numbers_of_sequences_have_the_shape_that_y_has() -> None:
    X = np.random.default_rng(0).standard_normal((6, 4))
    for shape in [(6,), (6, 1), (6, 2), (6, 3, 2)]:
        y = np.random.default_rng(1).standard_normal(shape)
        model = SequenceRegressor(**QUICK).fit(X, y)
        assert model.predict(X).shape == shape
        assert model.predict(X[:2]).shape == (2, *shape[1:])
        assert model.predict(X).dtype == np.float64
        assert model.score(X, model.predict(X)) == 1
        assert model.score(X, y) < 1
        with pytest.raises(ValueError, match=r"but this SequenceRegressor has learned \(N"):
            model.score(X, np.ones((*shape, 2))[:, :3] if len(shape) < 3 else np.ones(6))


@pytest.mark.parametrize(
    ("y", "error", "text"),
    [
        (None, ValueError, "requires y to be passed"),
        ([1.0, 2.0], ValueError, r"inconsistent numbers of samples: \[3, 2\]"),
        ([1.0, NAN, 2.0], ValueError, "y contains NaN"),
        ([[1.0], [1.0, 2.0], [3.0]], ValueError, "y holds sequences of unequal lengths"),
        (np.ones((3, 1, 1, 1)), ValueError, r"y has shape \(3, 1, 1, 1\), expected \(N,\)"),
        (["a", "b", "c"], ValueError, "y holds no numbers: could not convert string to float"),
        ([1j, 2.0, 3.0], TypeError, "y holds no numbers: "),
        ([1, 2, 10**400], ValueError, "y holds an integer too large"),
        (np.zeros(3, "M8[s]"), TypeError, r"y is of type datetime64.*pass y.astype\(float\)"),
        (np.ma.ones(3), TypeError, "y is a masked array"),
        ([np.ma.ones(2)] * 3, TypeError, "y is a masked array"),
        (sparse.csr_matrix(np.ones((3, 1))), TypeError, r"sparse.*pass y.toarray\(\)"),
        ({1.0, 2.0, 3.0}, TypeError, "y is {1.0, 2.0, 3.0}, expected numbers"),
    ],
)
def test_numbers_that_are_none(y: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SequenceRegressor(**QUICK).fit(THREE, y)


def test_numbers_may_come_one_by_one() -> None:
    predicted = [
        SequenceRegressor(**QUICK).fit(THREE, y).predict(THREE).tolist()
        for y in ([1.0, 2.0, 4.0], iter([1.0, 2.0, 4.0]), {0: 1.0, 1: 2.0, 2: 4.0}.values())
    ]
    assert predicted[0] == predicted[1] == predicted[2]


def test_steps_taken_for_sequences_are_warned_of() -> None:
    series, labels = np.arange(6.0)[:, None], [0, 1] * 3
    for cls in (SequenceClassifier, SequenceRegressor, SequenceTagger):
        with pytest.warns(UserWarning, match=r"X is 6 sequences of one step each.*\[X\]") as caught:
            cls(**QUICK).fit(series, labels)
        assert caught[0].filename == __file__
    assert SequenceTagger(**QUICK).fit([series], labels).predict([series])[0].shape == (6,)
    SequenceClassifier(**QUICK).fit(series[:1], ["a"])  # one of one step can be nothing else


# ------------------------------------------------------------------------------ tables


class Frame(Table):
    """A table whose columns have names."""

    def __init__(self, values: Any, columns: str) -> None:
        super().__init__(values)
        self.columns = list(columns)


@pytest.mark.parametrize("cls", [SequenceClassifier, SequenceRegressor, EchoStateRegressor])
def test_columns_are_those_of_fit_in_their_order(cls: Any) -> None:
    rows = np.random.default_rng(0).standard_normal((2, 4, 2))
    model = cls(hidden_size=3, random_state=0)
    with pytest.raises(ValueError, match=r"X\[1\] has the columns \['b', 'a'\], but others have"):
        model.fit([Frame(rows[0], "ab"), Frame(rows[1], "ba")], [0, 1])
    model.fit([Frame(row, "ab") for row in rows], [0, 1])
    said = model.predict(rows)
    assert (model.predict([Frame(row, "ab") for row in rows]) == said).all()
    swapped = Frame(rows.reshape(8, 2), "ba")
    for X in ([Frame(row, "ba") for row in rows], (swapped, [4, 4])):
        with pytest.raises(ValueError, match=r"X has the columns \['b', 'a'\], but fit was given"):
            model.predict(X)
    model.fit(rows, [0, 1])  # without names none are known
    assert (model.predict([Frame(row, "ba") for row in rows]) == said).all()


def test_the_order_of_values_in_memory_has_no_effect() -> None:
    rng = np.random.default_rng(0)
    X, y = [rng.standard_normal((90, 3)) for _ in range(20)], rng.standard_normal((20, 40))
    model = SequenceRegressor(dtype="float64", **QUICK | {"max_iter": 1})
    plain = model.fit(X, y).predict(X).tobytes()
    assert model.fit(list(map(np.asfortranarray, X)), y).predict(X).tobytes() == plain
    assert model.fit(X, np.asfortranarray(y)).predict(X).tobytes() == plain


# ------------------------------------------------------------------------------ weights


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([1.0, 2.0], r"sample_weight has shape \(2,\), expected a weight for each .*\(3,\)"),
        (np.ones((3, 1)), r"sample_weight has shape \(3, 1\)"),
        ([1.0, -2.0, 1.0], r"sample_weight\[1\] is -2, expected at least 0"),
        ([1.0, NAN, 1.0], "sample_weight contains NaN"),
        ([0, 0, 0], "sample_weight is zero for every sequence"),
        ([1, 2, 10**400], "sample_weight holds an integer too large"),
        (["a", "b", "c"], "sample_weight holds no numbers: could not convert"),
        ([1e308, 1e308, 1.0], "the sum of sample_weight is not finite"),
    ],
)
def test_weights_that_are_none(weights: Any, text: str) -> None:
    fitted = SequenceClassifier(**QUICK).fit(THREE, [0, 1, 0])
    tagger = SequenceTagger(**QUICK).fit(THREE, [[0], [1, 0], [0]])
    for call in (SequenceClassifier(**QUICK).fit, SequenceRegressor(**QUICK).fit, fitted.score):
        with pytest.raises(ValueError, match=text):
            call(THREE, [0, 1, 0], weights)
    for call in (SequenceTagger(**QUICK).fit, tagger.score):
        with pytest.raises(ValueError, match=text):
            call(THREE, [[0], [1, 0], [0]], weights)


@pytest.mark.parametrize(
    ("class_weight", "error", "text"),
    [
        ("balance", ValueError, "class_weight is 'balance', expected a dict"),
        (2.0, ValueError, "class_weight is 2.0"),
        ({"a": -1.0}, ValueError, r"class_weight\['a'\] is -1.0, expected a finite number >= 0"),
        ({"a": INF}, ValueError, r"class_weight\['a'\] is inf"),
        ({"a": "2"}, TypeError, r"class_weight\['a'\]"),
        ({"a": 0, "b": 0}, ValueError, "zero for all of y"),
        ({"a": 1.0, "B": 2.0}, ValueError, "class_weight names 'B', which is no label .* 'b'"),
    ],
)
def test_class_weights_that_are_none(class_weight: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SequenceClassifier(class_weight=class_weight, **QUICK).fit(THREE, ["a", "b", "a"])


def weights_of(model: Any) -> bytes:
    made: bytes = model.model_.flat_weights.tobytes()
    return made


def test_class_weights_are_weights_of_sequences() -> None:
    X, y = [[1.0, 0.0], [2.0], [3.0], [4.0]], ["a", "a", "a", "b"]

    def fitted(class_weight: Any = None, sample_weight: Any = None) -> bytes:
        model = SequenceClassifier(class_weight=class_weight, **QUICK)
        return weights_of(model.fit(X, y, sample_weight))

    balanced = [4 / (2 * 3)] * 3 + [4 / (2 * 1)]
    assert fitted("balanced") == fitted(sample_weight=balanced) != fitted()
    assert fitted({"a": 0.5, "b": 3}) == fitted(sample_weight=[0.5, 0.5, 0.5, 3])
    assert fitted({"a": 0.5}, [1, 2, 1, 1]) == fitted(sample_weight=[0.5, 1, 0.5, 1])
    # With weights "balanced" counts those.
    assert fitted("balanced", [1, 1, 1, 3]) == fitted(sample_weight=[1, 1, 1, 3])
    # A label that these data do not have, as in a fold.
    assert fitted({"a": 0.5, "b": 3, "c": 9}) == fitted({"a": 0.5, "b": 3})


@pytest.mark.parametrize("cls", [SequenceClassifier, SequenceRegressor, SequenceTagger])
def test_what_has_weight_0_is_not_learned_from(cls: Any) -> None:
    rng = np.random.default_rng(0)
    X, noise = rng.standard_normal((20, 4)), rng.standard_normal((5, 4))
    y, other = X[:, 0] > 0, noise[:, 0] < 0
    if cls is SequenceTagger:
        y, other = X > 0, noise < 0
    model = cls(**QUICK | {"standardize": False})
    alone = model.fit(X, y).model_.flat_weights.tobytes()
    both = np.concatenate([X, noise]), np.concatenate([y, other])
    assert weights_of(model.fit(*both, [2.0] * 20 + [0.0] * 5)) == alone
    assert weights_of(model.fit(*both)) != alone


# ------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("parameter", "value", "error"),
    [
        ("cell", "grru", ValueError),
        ("cell", ["gru"], TypeError),
        ("hidden_size", 0, ValueError),
        ("hidden_size", 8.0, TypeError),
        ("hidden_size", True, TypeError),
        ("num_layers", None, TypeError),
        ("embedding_size", -1, ValueError),
        ("dropout", 1.0, ValueError),
        ("dropout", NAN, ValueError),
        ("dropout", "0.5", TypeError),
        ("weight_decay", -0.1, ValueError),
        ("weight_decay", NAN, ValueError),
        ("batch_size", "all", TypeError),
        ("batch_size", 0, ValueError),
        ("learning_rate", "adaptive", ValueError),
        ("learning_rate", 0.01, TypeError),
        ("learning_rate_init", 0.0, ValueError),
        ("learning_rate_init", INF, ValueError),
        ("clip_norm", 0, ValueError),
        ("max_iter", 0, ValueError),
        ("max_iter", 1e3, TypeError),
        ("tol", -1, ValueError),
        ("n_iter_no_change", 0, ValueError),
        ("early_stopping", "yes", TypeError),
        ("early_stopping", 1, TypeError),
        ("validation_fraction", 1.0, ValueError),
        ("validation_fraction", None, TypeError),
        ("dtype", "float16", TypeError),
        ("dtype", None, TypeError),
        ("warm_start", "no", TypeError),
        ("random_state", "seed", ValueError),
        ("random_state", np.random.default_rng(0), ValueError),
        ("verbose", 2, TypeError),
        ("bidirectional", None, TypeError),
        ("standardize", 0, TypeError),
        ("tokens", "yes", TypeError),
        ("handle_unknown", "skip", ValueError),
    ],
)
def test_parameters_that_are_none(parameter: str, value: Any, error: type[Exception]) -> None:
    model = SequenceClassifier(**QUICK).set_params(**{parameter: value})
    text = "cannot be used to seed" if parameter == "random_state" else f"^{parameter}( |\\b)"
    with pytest.raises(error, match=text):
        model.fit(THREE, [0, 1, 0])


@pytest.mark.parametrize("dtype", [np.float64, np.dtype("float64"), "float64"])
def test_numbers_and_types_of_numpy_as_parameters(dtype: Any) -> None:
    model = SequenceClassifier(
        hidden_size=np.int64(3), max_iter=np.int32(2), dropout=np.float32(0.5), dtype=dtype,
        early_stopping=np.bool_(False), batch_size=np.int64(2), learning_rate_init=np.float64(0.1),
    )  # fmt: skip
    model.fit(THREE, [0, 1, 0])
    assert model.model_.dtype == np.float64


@pytest.mark.parametrize("cls", [SequenceClassifier, SequenceRegressor, SequenceTagger])
def test_parameters_for_the_next_fit_do_not_change_what_is_fitted(cls: Any) -> None:
    y = [[0], [1, 0], [1]] if cls is SequenceTagger else [0, 1, 1]
    model = cls(**QUICK).fit(THREE, y)
    before = np.concatenate(model.predict(THREE), axis=None)
    model.set_params(dtype="float64", hidden_size=5, standardize=False, cell="lstm")
    assert (np.concatenate(model.predict(THREE), axis=None) == before).all()
    assert model.fit(THREE, y).model_.dtype == np.float64


def test_a_fit_that_fails_leaves_nothing_of_another_one() -> None:
    model = SequenceClassifier(**QUICK).fit(THREE, [0, 1, 0])
    before = model.predict_proba(THREE).tobytes()
    model.set_params(warm_start=True)
    with pytest.raises(ValueError, match="inconsistent"):
        model.fit(THREE, [0, 1])
    assert model.predict_proba(THREE).tobytes() == before  # it was to go on
    model.set_params(warm_start=False)
    with pytest.raises(ValueError, match="inconsistent"):
        model.fit([[9.0, 8.0], [7.0, 6.0], [5.0, 1.0]], [0, 1])
    with pytest.raises(ValueError, match="not fitted yet"):
        model.predict(THREE)
    assert not hasattr(model, "model_")


# ------------------------------------------------------------------------------ batches


def test_batches_hold_every_sequence_once_and_like_lengths_together() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 50, 1000)
    batches = grouped(lengths, 16, rng)
    assert sorted(np.concatenate(batches)) == list(range(1000))
    spread = [np.ptp(lengths[rows]) for rows in batches]
    assert np.mean(spread) < 5
    few = grouped(lengths[:400], 16, rng)  # in no order
    means = [lengths[rows].mean() for rows in few]
    assert np.abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5
    again = grouped(lengths, 16, rng)
    assert [rows.tolist() for rows in again] != [rows.tolist() for rows in batches]


def test_batches_of_prediction_are_of_bounded_memory() -> None:
    lengths = np.array([5, 1000, 1, 300, 2])
    batches = list(by_length(lengths, 2, steps=1000))
    assert [rows.tolist() for rows in batches] == [[2, 4], [0, 3], [1]]
    assert [rows.tolist() for rows in by_length(lengths, 9, steps=300)] == [[2], [4], [0], [3], [1]]


def test_steps_and_their_places() -> None:
    made = read([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]])
    x, lengths = made.batch(np.array([2, 1]))
    assert (x[:, :, 0].T.tolist(), lengths.tolist()) == ([[4, 5, 6], [3, 3, 3]], [3, 1])
    assert made.all_places(np.array([2, 0])).tolist() == [3, 4, 5, 0, 1]
    assert [row.tolist() for row in made.split(made.steps[:, 0])] == [[1, 2], [3], [4, 5, 6]]
    assert [made.row_of(i) for i in range(6)] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


def test_framed() -> None:
    made = read([[5, 6], [7]], tokens=True)
    indices = Vocabulary(made.steps).encoded(made, "X")
    framed_ = framed(indices, np.array([8, 9]), 3)
    assert framed_.steps.tolist() == [8, 0, 1, 3, 9, 2, 3]
    assert framed_.lengths.tolist() == [4, 3]
