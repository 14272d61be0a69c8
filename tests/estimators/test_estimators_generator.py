"""SequenceGenerator: what it writes, with which probability, and what it refuses."""

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import KBinsDiscretizer

import fastrnn
from fastrnn.estimators import SequenceGenerator, generator

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["ab", "aab", "ba", "cd", "ddc", "dc", "cdd", "dcd"]
LABELS = ["ab", "ab", "ab", "cd", "cd", "cd", "cd", "cd"]


def make(**options: Any) -> SequenceGenerator:
    sizes = {"hidden_size": 6, "embedding_size": 4, "max_iter": 5, "random_state": 0}
    return SequenceGenerator(**sizes | options)


@pytest.fixture(scope="module")
def plain() -> SequenceGenerator:
    """Of two tokens, in float64."""
    words = ["ab", "a", "bb", "abb", "b"]
    return make(dtype="float64", max_iter=10, learning_rate_init=0.02).fit(words)


@pytest.fixture(scope="module")
def labelled() -> SequenceGenerator:
    """The labels have no token in common, and it knows which are whose."""
    return make(hidden_size=16, max_iter=60, learning_rate_init=0.02).fit(WORDS, LABELS)


def log_p(fitted: SequenceGenerator, symbols: list[int]) -> float:
    """Of all symbols but the first, by hand, with the trained network."""
    logits, _ = fitted.model_(np.array(symbols[:-1])[:, None])
    rows = logits[:, 0].astype(np.float64)
    whole = np.logaddexp.reduce(rows, axis=1)
    return math.fsum(rows[t, s] - whole[t] for t, s in enumerate(symbols[1:]))


# ------------------------------------------------------------------------------ probabilities


def test_score_samples_is_the_sum_of_the_logarithms_of_the_networks_probabilities(
    labelled: SequenceGenerator,
) -> None:
    found = labelled.score_samples(WORDS, LABELS)
    assert found.dtype == np.float64
    end = len(labelled.tokens_)
    for word, label, score in zip(WORDS, LABELS, found, strict=True):
        first = end + 1 + labelled.classes_.tolist().index(label)
        tokens = [labelled.tokens_.tolist().index(c) for c in word]
        assert score == pytest.approx(log_p(labelled, [first, *tokens, end]), abs=1e-5)
    symbols = sum(map(len, WORDS)) + len(WORDS)
    assert labelled.score(WORDS, LABELS) == pytest.approx(found.sum() / symbols, rel=1e-13)
    wrong = labelled.score_samples(WORDS, LABELS[::-1])
    assert found[0] > wrong[0] + 2


def test_all_sequences_and_those_that_go_on_have_probability_one(plain: SequenceGenerator) -> None:
    ended = [math.exp(log_p(plain, [2, 2]))]  # the empty one, which X cannot have
    for length in (1, 2, 3):
        words = ["".join(word) for word in itertools.product("ab", repeat=length)]
        ended += np.exp(plain.score_samples(words)).tolist()
    going_on = [math.exp(log_p(plain, [2, *w])) for w in itertools.product((0, 1), repeat=4)]
    assert math.fsum(ended + going_on) == pytest.approx(1, abs=1e-12)
    assert min(math.fsum(ended), math.fsum(going_on)) > 0.01


def test_samples_are_as_frequent_as_they_are_probable(plain: SequenceGenerator) -> None:
    """Hoeffding: a frequency of n is off by e or more with probability 2 exp(-2 n e²) at most."""
    n = 40_000
    outcomes = {"": math.exp(log_p(plain, [2, 2]))}
    outcomes |= {c: math.exp(plain.score_samples([c])[0]) for c in "ab"}
    for word in itertools.product((0, 1), repeat=2):  # cut there, or ended
        outcomes["".join("ab"[i] for i in word)] = math.exp(log_p(plain, [2, *word]))
    assert math.fsum(outcomes.values()) == pytest.approx(1, abs=1e-12)
    allowed = math.sqrt(math.log(2 * len(outcomes) / 1e-9) / (2 * n))
    samples = plain.sample(n, max_length=2, random_state=1)
    assert set(samples) <= set(outcomes)
    for word, p in outcomes.items():
        assert abs(samples.count(word) / n - p) < allowed, word
    assert allowed < min(0.02, max(outcomes.values()) / 10)


def test_labels_are_drawn_as_often_as_they_weighed_in_fit() -> None:
    weights = [2, 2, 2, 1, 1, 0, 0, 0]  # 6 of 8 are of "ab"
    fitted = make(hidden_size=16, max_iter=60, learning_rate_init=0.02)
    fitted.fit(WORDS, LABELS, sample_weight=weights)
    n = 4000
    allowed = math.sqrt(math.log(2 / 1e-9) / (2 * n))
    drawn = fitted._first(n, None, np.random.default_rng(0))
    assert set(drawn) == {5, 6}
    assert abs((drawn == 5).mean() - 6 / 8) < allowed < 0.06
    only = make().fit(WORDS, LABELS, sample_weight=[0, 0, 0, 1, 1, 1, 1, 1])
    assert set(only._first(100, None, np.random.default_rng(0))) == {6}


def test_a_label_says_what_is_written(labelled: SequenceGenerator) -> None:
    n = 200
    for label in ("ab", "cd"):
        samples = labelled.sample(n, label, random_state=0)
        assert sum(set(word) <= set(label) for word in samples) > 0.8 * n
    mixed = labelled.sample(3, ["cd", "ab", "cd"], temperature=0)
    (first,), (second,) = (labelled.sample(y=label, temperature=0) for label in ("cd", "ab"))
    assert mixed == [first, second, first]
    assert first != second


# ------------------------------------------------------------------------------ no labels


@pytest.mark.parametrize("temperature", [0, 1e-30, 1, 100, 1e6, 1e30, 1e38, 1e300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_label_is_written(dtype: str, temperature: float) -> None:
    options: dict[str, Any] = {"weight_decay": 0.5, "early_stopping": True, "dtype": dtype}
    fitted = make(validation_fraction=0.3, warm_start=True, **options)
    for _ in range(2):
        fitted.fit(WORDS, LABELS)
        assert (fitted.model_.weights["output.bias"][5:] == np.dtype(dtype).type(-1e38)).all()
        for more in ({}, {"top_p": 0.9999}, {"top_k": 7}):
            # A label among the indices has no token.
            made = fitted.sample(50, temperature=temperature, random_state=0, **more)
            assert set("".join(made)) <= set("abcd")


def test_training_leaves_what_writes_labels_as_it_is() -> None:
    fitted = make(max_iter=1, warm_start=True).fit(WORDS, LABELS)
    before = fitted.model_.weights["output.weight"][5:].copy()
    fitted.fit(WORDS, LABELS)
    assert_same(fitted.model_.weights["output.weight"][5:], before, "rows of the labels")


# ------------------------------------------------------------------------------ what is written


def test_no_label_is_scored_as_a_token_after_much_weight_decay() -> None:
    fitted = make(max_iter=2, weight_decay=300.0, early_stopping=True, validation_fraction=0.25)
    scores = fitted.fit(WORDS, LABELS).validation_scores_
    assert min(scores) > -10


def test_samples_include_their_start_and_end_at_max_length(plain: SequenceGenerator) -> None:
    made = plain.sample(50, start="ba", max_length=4, random_state=0)
    assert all(word.startswith("ba") and len(word) <= 4 for word in made)
    assert {len(word) for word in made} == {2, 3, 4}
    assert plain.sample(50, start="ba", random_state=0) != made
    assert max(map(len, plain.sample(300, temperature=100, random_state=0))) == 2 * len("abb")
    assert plain.sample(3, start="", random_state=0) == plain.sample(3, random_state=0)


def test_what_strings_and_lists_become() -> None:
    words = make().fit([["the", "cat"], ["a", "cat"]])
    assert words.tokens_.tolist() == ["a", "cat", "the"]
    made = words.sample(5, start=["the"], random_state=0)
    assert all(isinstance(row, list) and row[0] == "the" for row in made)
    numbers = make().fit(np.array([[3, 1], [2, 3]]))
    assert numbers.tokens_.dtype == object
    assert numbers.tokens_.tolist() == [1, 2, 3]
    assert numbers.classes_ is None
    made = numbers.sample(20, start=np.array([2]), random_state=0)
    assert {type(token) for row in made for token in row} == {int}
    assert_same(
        numbers.score_samples([[3, 1], [2, 3]]), numbers.score_samples(([3, 1, 2, 3], [2, 2])), "X"
    )


def test_a_sequence_that_ends_at_once_is_empty() -> None:
    for X, empty in ((["ab"], ""), ([["a", "b"]], [])):
        fitted = make().fit(X)
        fitted.model_.weights["output.bias"][2] = 100
        assert fitted.sample(2, random_state=0) == [empty] * 2


def test_random_state(plain: SequenceGenerator) -> None:
    same = [plain.sample(20, random_state=3) for _ in range(2)]
    assert same[0] == same[1] != plain.sample(20, random_state=4)
    source = np.random.RandomState(3)
    assert plain.sample(20, random_state=source) == same[0] != plain.sample(20, random_state=source)
    assert plain.sample(2, temperature=0) == plain.sample(2, top_k=1)


def test_many_long_ones_are_done_some_after_the_other(
    plain: SequenceGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["a", "abab", "b" * 30, "ab"] * 5
    scores = plain.score_samples(words)
    monkeypatch.setattr(generator, "NUMBERS", 40)
    assert_same(plain.score_samples(words), scores, "scores")
    made = plain.sample(23, max_length=12, random_state=0)  # three at a time
    assert len(made) == 23
    assert len(set(made)) > 5


# ------------------------------------------------------------------------------ the same bits


def test_scores_depend_neither_on_company_nor_on_order(plain: SequenceGenerator) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(["a", "b"], n)) for n in rng.integers(1, 40, 30)]
    scores = plain.score_samples(words)
    assert_same(np.array([plain.score_samples([word])[0] for word in words]), scores, "one by one")
    assert_same(plain.score_samples(words[::-1])[::-1], scores, "the other way round")
    assert plain.score(words) == plain.score(words[::-1])


def test_threads_change_no_bit() -> None:
    weights, made = [], []
    for threads in (1, 2):
        with fastrnn.num_threads(threads):
            fitted = make(num_layers=2, dropout=0.2, early_stopping=True, validation_fraction=0.3)
            fitted.fit(WORDS, LABELS)
            weights.append(fitted.model_.flat_weights.copy())
            made.append((fitted.sample(30, random_state=0), fitted.score(WORDS, LABELS)))
    assert_same(*weights, "weights")
    assert made[0] == made[1]


def test_two_fits_are_one() -> None:
    options: dict[str, Any] = {"weight_decay": 0.1, "tol": 0, "n_iter_no_change": 100}
    halves = make(max_iter=3, warm_start=True, **options).fit(WORDS, LABELS).fit(WORDS, LABELS)
    whole = make(max_iter=6, **options).fit(WORDS, LABELS)
    assert_same(halves.model_.flat_weights, whole.model_.flat_weights, "weights")
    assert halves.loss_curve_ == whole.loss_curve_
    halves.fit(WORDS[:3], LABELS[:3])  # without one of the labels
    assert len(halves.sample(2, "cd")) == 2
    assert set(halves._first(20, None, np.random.default_rng(0))) == {5}


def test_clones_and_pickles(labelled: SequenceGenerator) -> None:
    again = clone(labelled)
    with pytest.raises(NotFittedError):
        again.sample()
    again.fit(WORDS, LABELS)
    for other in (again, pickle.loads(pickle.dumps(labelled))):
        assert_same(other.model_.flat_weights, labelled.model_.flat_weights, "weights")
        assert other.sample(9, random_state=0) == labelled.sample(9, random_state=0)
    assert not hasattr(make(), "model_")
    assert not hasattr(make(), "tokens_")


def test_cross_validation() -> None:
    for y in (None, LABELS * 2):
        search = GridSearchCV(make(), {"max_iter": [1, 60]}, cv=2).fit(WORDS * 2, y)
        assert search.best_params_ == {"max_iter": 60}
        assert search.best_score_ < 0


def test_a_fit_that_fails_changes_nothing_that_is_gone_on_with() -> None:
    fitted = make(warm_start=True).fit(WORDS, LABELS)
    before = fitted.sample(9, random_state=0)
    for X, y in ((["xy"], ["ab"]), (WORDS, ["new"] * 8), (WORDS, None)):
        with pytest.raises(ValueError, match="warm_start=True goes on"):
            fitted.fit(X, y)
        assert fitted.sample(9, random_state=0) == before


def test_a_fit_that_diverges_leaves_what_it_draws_labels_by() -> None:
    fitted = make(warm_start=True).fit(WORDS, LABELS)
    before = fitted.sample(30, random_state=0)
    with pytest.raises(ValueError, match="training diverged"):
        fitted.set_params(learning_rate_init=1e39).fit([["b"]] * 3, ["cd"] * 3)
    assert fitted.sample(30, random_state=0) == before


def test_it_learns_sequences_by_heart() -> None:
    fitted = make(hidden_size=24, max_iter=150, learning_rate_init=0.02).fit(["abcab", "dd"])
    assert set(fitted.sample(100, random_state=0)) == {"abcab", "dd"}
    # Two that are equally probable, and then nothing is left to chance: log 2 over 9 symbols.
    assert fitted.score(["abcab", "dd"]) == pytest.approx(-2 * math.log(2) / 9, abs=0.02)


# ------------------------------------------------------------------------------ what is refused

SAMPLE: dict[str, tuple[dict[str, Any], str]] = {
    "no samples": ({"n_samples": 0}, "n_samples is 0"),
    "half a sample": ({"n_samples": 0.5}, "n_samples is 0.5"),
    "no length": ({"max_length": 0}, "max_length is 0"),
    "a start that is longer": (
        {"start": "abab", "max_length": 4}, "start has 4 tokens, expected fewer than max_length"),
    "an unknown start": ({"start": "ax"}, "start has the token 'x', never seen in training"),
    "a start of numbers": ({"start": [1.5]}, "start.*1.5"),
    "a start that is a number": ({"start": 5}, "start is 5, expected one sequence of tokens"),
    "many starts": ({"start": np.array([["a"], ["b"]])}, "start has shape .*one sequence for all"),
    "a negative temperature": ({"temperature": -1}, "temperature is -1"),
    "an endless temperature": ({"temperature": math.inf}, "temperature is inf"),
    "a temperature that is none": ({"temperature": "hot"}, "temperature is 'hot'"),
    "none of the likeliest": ({"top_k": 0}, "top_k is 0"),
    "percent": ({"top_p": 90}, "top_p is 90"),
    "a label where there were none": ({"y": "ab"}, "was fitted without labels: leave it out"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_samples_that_are_refused(plain: SequenceGenerator, name: str) -> None:
    options, message = SAMPLE[name]
    with pytest.raises((TypeError, ValueError), match=message):
        plain.sample(**options)


def test_labels_that_are_refused(labelled: SequenceGenerator) -> None:
    with pytest.raises(ValueError, match=r"y has the label 'x', never .* one of 'ab', 'cd'"):
        labelled.sample(y="x")
    with pytest.raises(ValueError, match=r"y has shape \(2,\), expected one label, or one for"):
        labelled.sample(3, ["ab", "cd"])
    with pytest.raises(ValueError, match="y is None, but this SequenceGenerator was fitted with"):
        labelled.score(WORDS)
    with pytest.raises(ValueError, match=r"y has the label 'x', never seen in training"):
        labelled.score(WORDS, ["x"] * 8)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        labelled.score_samples(WORDS, LABELS[:2])
    with pytest.raises(ValueError, match=r"X\[1\] has 'x' at step 1, a token never seen in"):
        labelled.score_samples(["ab", "ax"], ["ab", "ab"])
    numbered = make().fit(WORDS, [1, 1, 1, 2, 2, 2, 2, 2])
    with pytest.raises(ValueError, match=r"y has the label '1', never seen .* one of 1, 2"):
        numbered.sample(y="1")
    with pytest.raises(TypeError, match="y has labels of the types int and str"):
        labelled.sample(2, [1, "ab"])
    assert numbered.sample(y=1.0, random_state=0) == numbered.sample(y=1, random_state=0)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        make().fit(WORDS, np.linspace(0.1, 0.2, 8))
    with pytest.raises(TypeError, match="y has labels of the types int and str"):
        make().fit(["a", "b"], np.array([1, "1"], object))


def test_a_string_is_no_list_of_words() -> None:
    fitted = make().fit([["the", "cat"], ["a", "cat"]])
    with pytest.raises(TypeError, match=r"a list of one token is \['cat'\]"):
        fitted.sample(start="cat")
    assert fitted.sample(start=["cat"], random_state=0)[0][0] == "cat"


def test_numbers_are_refused_with_a_cure() -> None:
    numbers = np.random.default_rng(0).normal(size=(6, 5))
    with pytest.raises(TypeError, match="KBinsDiscretizer"):
        make().fit(numbers)
    with pytest.raises((TypeError, ValueError), match="tokens"):
        make().fit(numbers[:, :, None])
    bins = KBinsDiscretizer(3, encode="ordinal", strategy="uniform").fit_transform(numbers)
    assert make().fit(bins.astype(int)).tokens_.tolist() == [0, 1, 2]


def weighted_loss(weights: Any) -> float:
    """Of the first epoch, which is one batch."""
    options: dict[str, Any] = {"max_iter": 1, "batch_size": 8, "dtype": "float64"}
    return make(**options).fit(WORDS, LABELS, sample_weight=weights).loss_curve_[0]


def test_weights_of_sequences_are_those_of_their_losses() -> None:
    n = len(WORDS)
    weights = np.random.default_rng(0).uniform(0.5, 1, n)
    symbols = np.array([len(word) + 1 for word in WORDS])
    alone = np.array([weighted_loss(np.eye(n)[i] + 1e-12) for i in range(n)])
    assert np.ptp(alone) > 0.1
    want = np.average(alone, weights=weights * symbols)
    assert weighted_loss(weights) == pytest.approx(want, rel=1e-9)
    assert weighted_loss(np.full(n, 3.0)) == pytest.approx(weighted_loss(None), rel=1e-13)


def test_weights_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"(?i)sample.weight.*zero"):
        make().fit(WORDS, sample_weight=[0] * 8)
    with pytest.raises(ValueError, match="sample_weight"):
        make().fit(WORDS, sample_weight=[1, 2])
