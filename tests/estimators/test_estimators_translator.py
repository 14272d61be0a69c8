"""SequenceTranslator: gradients, decoding, and what it refuses."""

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

import fastrnn
from fastrnn.estimators import SequenceTranslator
from fastrnn.estimators.sequences import Sequences, framed
from fastrnn.estimators.translator import largest
from fastrnn.layers import RECURRENT

WORDS = ["ab", "ba", "aab", "abb", "bab", "aba", "b", "abab"]
BACKWARDS = [word[::-1].upper() for word in WORDS]
CELLS = list(RECURRENT)

pytestmark = pytest.mark.usefixtures("one_thread")


def each_network(test: Any) -> Any:
    """Every two values of these; with --full all."""
    for name, values in {"cell": CELLS, "layers": [1, 2], "both": [False, True]}.items():
        test = pytest.mark.parametrize(name, values)(test)
    return test


def make(**options: Any) -> SequenceTranslator:
    sizes = {"hidden_size": 12, "embedding_size": 6, "max_iter": 2, "random_state": 0}
    return SequenceTranslator(**sizes | options)


def scrambled(fitted: SequenceTranslator, seed: int = 0) -> SequenceTranslator:
    """With large weights, drawn at random."""
    rng = np.random.default_rng(seed)
    for model in (fitted.encoder_, fitted.decoder_):
        model.flat_weights[...] = rng.normal(size=model.flat_weights.shape)
    return fitted


def trained(**options: Any) -> SequenceTranslator:
    """Enough to write different words."""
    return make(max_iter=40, learning_rate_init=0.02, **options).fit(WORDS, BACKWARDS)


@pytest.fixture(scope="module")
def learned() -> SequenceTranslator:
    return make(hidden_size=32, embedding_size=16, max_iter=80, learning_rate_init=0.01).fit(
        WORDS * 4, BACKWARDS * 4
    )


# ------------------------------------------------------------------------------ gradients


@each_network
@pytest.mark.parametrize("tokens", [False, True])
def test_gradients_are_those_of_finite_differences(
    cell: str, layers: int, both: bool, tokens: bool
) -> None:
    """Through the decoder, the states handed on, and the encoder.

    A central difference errs by h² times a third derivative, and by rounding over h: about 1e-10.
    """
    rng = np.random.default_rng(0)
    X: Any = [rng.normal(size=(n, 2)) for n in (4, 1, 3)]
    X = ["abca", "b", "cab"] if tokens else X
    y = ["xy", "yxx", "z"]
    fitted = make(cell=cell, num_layers=layers, bidirectional=both, hidden_size=3, dtype="float64")
    scrambled(fitted.fit(X, y))
    for model in (fitted.encoder_, fitted.decoder_):
        model.flat_weights[...] *= 0.5
    source = fitted._read(X)
    indices = np.array(["xyz".index(c) for c in "".join(y)])
    target = framed(Sequences(indices, np.array([2, 3, 1])), np.full(3, 3), 3)
    rows, weights = np.array([2, 0, 1]), np.array([1.0, 2.0, 0.5])

    def loss() -> float:
        return fitted._loss_and_gradients(source, target, rows, weights, rng)[0]

    _, grads = fitted._loss_and_gradients(source, target, rows, weights, rng)
    h = 1e-5
    for model, grad in zip((fitted.encoder_, fitted.decoder_), grads, strict=True):
        flat = model.flat_weights
        assert np.abs(grad.flat_weights).max() > 1e-4
        places = rng.choice(len(flat), 15, replace=False)
        for changed in [*np.eye(len(flat))[places], *rng.normal(size=(3, len(flat)))]:
            before = flat.copy()
            flat[...] = before + h * changed
            above = loss()
            flat[...] = before - h * changed
            below = loss()
            flat[...] = before
            want = grad.flat_weights @ changed
            assert (above - below) / (2 * h) == pytest.approx(want, rel=1e-6, abs=1e-9)


@each_network
def test_the_decoder_begins_with_what_both_directions_have_read_last(
    cell: str, layers: int, both: bool
) -> None:
    fitted = make(cell=cell, num_layers=layers, bidirectional=both).fit(WORDS, BACKWARDS)
    output, state = fitted.encoder_(np.array([[0], [1], [1]]))
    state = fitted._handed_on(state["rnn"])
    h = state[0] if cell == "lstm" else state
    assert h.shape == (layers, 1, 24 if both else 12)
    want = [output[-1, :, :12], output[0, :, 12:]] if both else [output[-1]]
    assert_same(h[-1], np.concatenate(want, axis=1), "state")
    again = fitted._handed_on(fitted._handed_back(state))
    pairs = zip(again, state, strict=True) if cell == "lstm" else [(again, state)]
    for a, b in pairs:
        assert_same(a, b, "state there and back")


# ------------------------------------------------------------------------------ decoding


def by_hand(fitted: SequenceTranslator, word: str, longest: int) -> list[int]:
    """The likeliest token at each step, from calls of both networks."""
    source = np.array([["ab".index(c)] for c in word])
    state = {"rnn": fitted._handed_on(fitted.encoder_(source)[1]["rnn"])}
    end = len(fitted.target_tokens_)
    last, said = end, []
    while len(said) < longest:
        logits, state = fitted.decoder_(np.array([[last]]), state)
        last = int(np.argmax(logits[0, 0]))
        if last == end:
            break
        said.append(last)
    return said


def log_p(fitted: SequenceTranslator, word: str, sequences: Any) -> Array:
    """Of each sequence of symbols that the decoder writes after this source."""
    source = np.array([["ab".index(c)] * len(sequences) for c in word])
    state = {"rnn": fitted._handed_on(fitted.encoder_(source)[1]["rnn"])}
    end, longest = len(fitted.target_tokens_), max(map(len, sequences))
    symbols = np.array([[*s, *[end] * (longest - len(s))] for s in sequences]).T
    rows, _ = fitted.decoder_(np.vstack([np.full(len(sequences), end), symbols[:-1]]), state)
    logs = rows - np.logaddexp.reduce(rows.astype(np.float64), axis=2, keepdims=True)
    of_each = np.take_along_axis(logs, symbols[:, :, None], axis=2)[:, :, 0]
    counts = np.arange(longest)[:, None] < [len(s) for s in sequences]
    return np.asarray(np.where(counts, of_each, 0).sum(axis=0))


@each_network
def test_predictions_are_those_of_the_networks_step_by_step(
    cell: str, layers: int, both: bool
) -> None:
    options: dict[str, Any] = {"cell": cell, "num_layers": layers, "bidirectional": both}
    fitted = trained(dropout=0.1, **options)
    found = fitted.predict(WORDS, max_length=7)
    assert len(set(found)) > 1
    for word, said in zip(WORDS, found, strict=True):
        tokens = fitted.target_tokens_[by_hand(fitted, word, 7)]
        assert said == "".join(tokens), word


@each_network
def test_a_beam_of_one_is_greedy(cell: str, layers: int, both: bool) -> None:
    options: dict[str, Any] = {"cell": cell, "num_layers": layers, "bidirectional": both}
    fitted = trained(**options)
    source = fitted._read(WORDS)
    pairs = zip(fitted._beam(source, 1, 7), fitted._greedy(source, 7), strict=True)
    for wide, greedy in pairs:
        assert wide.tolist() == greedy.tolist()


def test_a_beam_that_holds_all_finds_the_likeliest_of_all() -> None:
    """Of three tokens: 40 sequences that end before the fourth, and 81 that are cut behind it."""
    fitted = make(dtype="float64", hidden_size=4).fit(WORDS, ["xyz"] * 8)
    all_of_them = [(*s, 3) for n in range(4) for s in itertools.product(range(3), repeat=n)]
    all_of_them += itertools.product(range(3), repeat=4)
    assert len(all_of_them) == 121
    improved, ended = 0, 0
    for seed in range(3):
        scrambled(fitted, seed)
        source = fitted._read(WORDS)
        ((_, state),) = list(fitted._read_to_states(source, len(WORDS)))
        order = np.argsort(source.lengths, kind="stable")
        found, scores = fitted._search(state, len(WORDS), 121, 4)
        greedy = fitted._greedy(source, 4, order)
        for i, said, score, first in zip(order, found, scores, greedy, strict=True):
            logs = log_p(fitted, WORDS[i], all_of_them)
            best = all_of_them[int(np.argmax(logs))]
            assert said.tolist() == [s for s in best if s != 3]
            assert score == pytest.approx(logs.max(), abs=1e-12)
            improved += said.tolist() != first.tolist()
            ended += 3 in best
    assert improved > 0
    assert 0 < ended < 24


def beam_by_hand(
    fitted: SequenceTranslator, word: str, width: int, longest: int
) -> tuple[tuple[int, ...], float]:
    """The likeliest beginning, and its logarithm, after all steps."""
    beam: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(longest):
        longer = [(s, score) for s, score in beam if s[-1:] == (3,)]
        for s, _ in beam:
            if s[-1:] != (3,):
                added = [(*s, token) for token in range(4)]
                longer += zip(added, log_p(fitted, word, added).tolist(), strict=True)
        beam = sorted(longer, key=lambda pair: -pair[1])[:width]
    return beam[0]


@pytest.mark.parametrize("width", [2, 3, 7])
def test_a_beam_goes_on_with_the_likeliest_beginnings(width: int) -> None:
    fitted = make(dtype="float64", hidden_size=4).fit(WORDS, ["xyz"] * 8)
    lengths = set()
    for seed in range(6):
        scrambled(fitted, seed)
        for word in WORDS:
            ((_, state),) = list(fitted._read_to_states(fitted._read([word]), 1))
            (said,), (score,) = fitted._search(state, 1, width, 5)
            symbols, want = beam_by_hand(fitted, word, width, 5)
            assert said.tolist() == [s for s in symbols if s != 3]
            assert score == pytest.approx(want, abs=1e-12)
            lengths.add(len(said))
    assert len(lengths) > 2


@pytest.mark.parametrize("width", [1, 3])
def test_weights_that_are_not_finite_are_no_translation(width: int) -> None:
    fitted = make().fit(WORDS, BACKWARDS)
    fitted.decoder_.weights["output.bias"][0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        fitted.predict(WORDS, beam_width=width)


def test_going_on_that_diverges_leaves_what_was_there() -> None:
    fitted = make(warm_start=True).fit(WORDS, BACKWARDS)
    before = fitted.predict(WORDS)
    with pytest.raises(ValueError, match="training diverged"):
        fitted.set_params(learning_rate_init=1e39).fit(WORDS, [[word[0].upper()] for word in WORDS])
    assert fitted.predict(WORDS) == before


def test_of_equally_likely_ones_the_first_is_taken() -> None:
    fitted = make().fit(WORDS, ["xyz"] * 8)
    fitted.decoder_.flat_weights[...] = 0
    assert fitted.predict(["ab"], max_length=3) == ["xxx"]
    assert fitted._beam(fitted._read(["ab"]), 1, 3)[0].tolist() == [0, 0, 0]
    assert fitted.predict(["ab"], beam_width=2, max_length=3) == ["xxx"]
    # One that ends is as likely as any that goes on, and then likelier than all.
    assert fitted.predict(["ab"], beam_width=4, max_length=3) == [""]


def test_largest_is_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = rng.integers(0, rng.integers(1, 30), (4, rng.integers(1, 20))).astype(float)
        values[rng.random(values.shape) < 0.2] = -np.inf
        count = int(rng.integers(1, 8))
        want = np.argsort(-values, axis=1, kind="stable")[:, :count]
        assert largest(values, count).tolist() == want.tolist()


def test_max_length_counts_tokens() -> None:
    fitted = make().fit(WORDS, BACKWARDS)
    fitted.decoder_.weights["output.bias"][2] = -100  # it never ends
    for width in (1, 3):
        assert {len(w) for w in fitted.predict(WORDS, beam_width=width, max_length=5)} == {5}
        assert {len(w) for w in fitted.predict(WORDS, beam_width=width)} == {2 * len("abab")}
    fitted.decoder_.weights["output.bias"][2] = 100  # at once
    assert fitted.predict(["ab"]) == fitted.predict(["ab"], beam_width=2) == [""]


# ------------------------------------------------------------------------------ what it learns


def test_it_turns_words_round(learned: SequenceTranslator) -> None:
    assert learned.predict(WORDS) == learned.predict(WORDS, beam_width=4) == BACKWARDS
    assert learned.score(WORDS, BACKWARDS) == 1
    assert learned.target_tokens_.tolist() == ["A", "B"]


def test_the_score_is_the_part_that_is_right(learned: SequenceTranslator) -> None:
    y = [*BACKWARDS[:4], "A", "ABBB", "BA", "A"]  # four are right
    assert learned.score(WORDS, y) == 0.5
    assert learned.score(WORDS, y, sample_weight=[1, 1, 1, 1, 0, 0, 0, 4]) == 0.5
    assert learned.score(WORDS, y, sample_weight=[3, 1, 1, 1, 0, 0, 2, 0]) == 0.75
    # A token that was never seen is wrong, also where all others are right.
    assert learned.score(["ab", "ab", "ab", "ab"], ["BA", "?A", "B?", "BA?"]) == 0.25
    assert learned.score(["ab"], [["B", "A"]]) == 1


def test_sources_of_numbers() -> None:
    rng = np.random.default_rng(0)
    numbers = [rng.integers(0, 2, (n, 1)) for n in rng.integers(1, 4, 40)]
    X = [a + 0.1 * rng.normal(size=(len(a), 2)) for a in numbers]
    y = [["low", "high"][int(a[0, 0])] + ["", "er"][int(a[-1, 0])] for a in numbers]
    fitted = make(hidden_size=24, max_iter=60, learning_rate_init=0.02).fit(X, y)
    assert fitted.score(X, y) > 0.9
    assert fitted.n_features_in_ == 2
    steps = (np.concatenate(X), [len(a) for a in X])
    assert fitted.predict(steps) == fitted.predict(X)


def test_strings_come_from_strings_and_lists_from_lists() -> None:
    words = make().fit([["one", "two"], ["two"]], [["a", "cat"], ["cat"]])
    assert words.target_tokens_.tolist() == ["a", "cat"]
    made = words.predict([["two", "two"]], max_length=4)
    assert isinstance(made[0], list)
    assert set(made[0]) <= {"a", "cat"}
    numbers = make(tokens=True).fit(np.array([[1, 2], [2, 3]]), np.array([[5, 6], [6, 7]]))
    numbers.decoder_.weights["output.bias"][1] = 100
    assert numbers.predict([[1], [2, 3]], max_length=2) == [[6, 6], [6, 6]]
    assert isinstance(numbers.predict([[1]])[0][0], int)


def test_unknown_tokens_of_a_source() -> None:
    with pytest.raises(ValueError, match=r"X\[0\] has '\?' at step 1.*handle_unknown"):
        make().fit(WORDS, BACKWARDS).predict(["a?"])
    fitted = scrambled(make(handle_unknown="ignore").fit(WORDS, BACKWARDS))
    fitted.encoder_.weights["embedding.weight"][2] = 0
    assert fitted.predict(["a?b"]) == fitted.predict(["a!b"])


# ------------------------------------------------------------------------------ the same bits


@pytest.mark.parametrize("width", [1, 3])
def test_predictions_depend_neither_on_company_nor_on_order(width: int) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(["a", "b"], n)) for n in rng.integers(1, 9, 60)]
    fitted = trained(bidirectional=True)
    found = fitted.predict(words, beam_width=width)
    assert len(set(found)) > 3
    assert fitted.predict(words[::-1], beam_width=width)[::-1] == found
    assert [fitted.predict([word], beam_width=width)[0] for word in words] == found


def test_threads_change_no_bit() -> None:
    weights, made = [], []
    for threads in (1, 2):
        with fastrnn.num_threads(threads):
            fitted = make(
                num_layers=2, bidirectional=True, dropout=0.2, early_stopping=True, max_iter=15,
                validation_fraction=0.3,
            )  # fmt: skip
            fitted.fit(WORDS, BACKWARDS)
            weights.append(np.concatenate([m.flat_weights for m in fitted._models]))
            made.append([fitted.predict(WORDS, beam_width=width) for width in (1, 4)])
    assert_same(*weights, "weights")
    assert made[0] == made[1]


def test_two_fits_are_one() -> None:
    options: dict[str, Any] = {"tol": 0, "n_iter_no_change": 100, "dropout": 0.1}
    halves = make(max_iter=3, warm_start=True, **options)
    halves.fit(WORDS, BACKWARDS).fit(WORDS, BACKWARDS)
    whole = make(max_iter=6, **options).fit(WORDS, BACKWARDS)
    for ours, theirs in zip(halves._models, whole._models, strict=True):
        assert_same(ours.flat_weights, theirs.flat_weights, "weights")
    assert halves.loss_curve_ == whole.loss_curve_
    with pytest.raises(ValueError, match=r"y\[0\] has '\?'.*warm_start=True goes on.*fit a clone"):
        halves.fit(["ab"], ["?"])
    assert halves.predict(WORDS) == whole.predict(WORDS)


def test_clones_and_pickles(learned: SequenceTranslator) -> None:
    again = clone(learned)
    with pytest.raises(NotFittedError):
        again.predict(["ab"])
    assert not hasattr(again, "target_tokens_")
    again.fit(WORDS * 4, BACKWARDS * 4)
    for other in (again, pickle.loads(pickle.dumps(learned))):
        assert_same(other.decoder_.flat_weights, learned.decoder_.flat_weights, "weights")
        assert other.predict(["abbab"]) == learned.predict(["abbab"])


def test_cross_validation() -> None:
    options: dict[str, Any] = {"max_iter": 40, "learning_rate_init": 0.02}
    scores = cross_val_score(make(**options), WORDS * 3, BACKWARDS * 3, cv=3)
    assert scores.shape == (3,)
    assert scores.max() > 0


# ------------------------------------------------------------------------------ weights


def weighted_loss(weights: Array | None) -> float:
    """Of the first epoch, which is one batch."""
    options: dict[str, Any] = {"max_iter": 1, "batch_size": 8, "dtype": "float64"}
    return make(**options).fit(WORDS, BACKWARDS, sample_weight=weights).loss_curve_[0]


def test_weights_of_pairs_are_those_of_their_losses() -> None:
    rng = np.random.default_rng(0)
    weights, n = rng.uniform(0.5, 1, 8), len(WORDS)
    tokens = np.array([len(word) + 1 for word in WORDS])
    alone = np.array([weighted_loss(np.eye(n)[i] + 1e-12) for i in range(n)])
    assert np.ptp(alone) > 0.1
    want = np.average(alone, weights=weights * tokens)
    assert weighted_loss(weights) == pytest.approx(want, rel=1e-9)
    assert weighted_loss(np.full(n, 3.0)) == pytest.approx(weighted_loss(None), rel=1e-13)


# ------------------------------------------------------------------------------ what is refused


def test_pairs_that_are_refused(learned: SequenceTranslator) -> None:
    with pytest.raises(ValueError, match="X has 8 sequences, y has 3: expected a target for each"):
        make().fit(WORDS, BACKWARDS[:3])
    with pytest.raises(ValueError, match="X has 2 sequences, y has 1"):
        learned.score(["ab", "b"], ["BA"])
    with pytest.raises(ValueError, match="requires y"):
        make().fit(WORDS, None)
    with pytest.raises(TypeError, match=r"y\[0\].* is 1\.5"):
        make().fit(WORDS[:2], [[1.5], [2.0]])
    with pytest.raises((TypeError, ValueError), match=r"y has shape .*tokens"):
        make().fit(WORDS[:2], np.ones((2, 3, 2)))
    with pytest.raises(ValueError, match=r"(?i)sample.weight.*zero"):
        make().fit(WORDS, BACKWARDS, sample_weight=[0] * 8)
    words = make().fit([["one", "two"], ["two"]], [["a", "cat"], ["cat"]])
    with pytest.raises(TypeError, match=r"y is of strings.*such as text\.split\(\)"):
        words.score([["two"]], ["a cat"])
    with pytest.raises(TypeError, match=r"y has integers for tokens, but .* of fit had strings"):
        words.score([["two"]], [[1, 2]])
    with pytest.raises(TypeError, match="X is of numbers"):
        learned.predict(np.ones((2, 3)))


@pytest.mark.parametrize("name", ["beam_width", "max_length"])
def test_counts_that_are_refused(learned: SequenceTranslator, name: str) -> None:
    for wrong in (0, 1.5, "2"):
        with pytest.raises((TypeError, ValueError), match=name):
            learned.predict(["ab"], **{name: wrong})


def test_dropout_is_of_vectors_and_before_the_output() -> None:
    model = SequenceTranslator(dropout=0.25, hidden_size=4, max_iter=1, random_state=0)
    model.fit(["ab", "ba"], ["ba", "ab"])
    assert list(model.encoder_.layers) == ["embedding", "embedding_dropout", "rnn"]
    assert list(model.decoder_.layers) == [*model.encoder_.layers, "dropout", "output"]
    assert {model.decoder_.layers[n].p for n in ("embedding_dropout", "dropout")} == {0.25}
