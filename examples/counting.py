"""What the examples on symbols have to be better than: methods that only count.

`NGrams` gives a probability to the next token, `ByEnding` answers as sequences that end alike,
`ByContext` says what a letter sounds like between others. Each goes by the longest context that
training has seen, or mixes all: they remember so much that a network is often worse.
"""

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Counts = defaultdict[Any, Counter[Any]]
Parts = list[tuple[str, ...]]  # the sounds of each letter


class NGrams:
    """The next token by those before it: absolute discounting, all orders interpolated.

    Where a followed the context c n(c, a) times, all tokens together n(c) times, and u(c) of them
    at least once; c' is the next shorter context:

        p(a | c) = (max(n(c, a) - D, 0) + D u(c) p(a | c')) / n(c)

    Below the shortest context, which is none, p is the same for all tokens. A context with the
    label is one that is longer than it is without. The order (of how many tokens an n-gram is) and
    D are those by which a tenth of the sequences, left out of the counts, is most probable.

    H. Ney, U. Essen, R. Kneser, "On structuring probabilistic dependences in stochastic language
    modelling", Computer Speech and Language 8, 1994.
    """

    BOUNDARY = "\n"  # before the first token and behind the last

    def __init__(self, orders: Sequence[int] = (3, 4, 5, 6), use_labels: bool = True) -> None:
        self.orders, self.use_labels = orders, use_labels

    def fit(self, X: Sequence[Sequence[str]], y: Sequence[str]) -> Self:
        self._symbols = len({token for x in X for token in x}) + 1
        first = len(X) - len(X) // 10
        self.order = max(self.orders)  # with its counts all lower orders can be tried
        self._count(X[:first], y[:first])

        def log_p(choice: tuple[int, float]) -> float:
            self.order, self.discount = choice
            return self.score(X[first:], y[first:])

        choices = [(order, discount) for order in self.orders for discount in (0.5, 0.7, 0.85)]
        self.order, self.discount = max(choices, key=log_p)
        self._count(X, y)
        return self

    def score_samples(self, X: Sequence[Sequence[str]], y: Sequence[str]) -> NDArray[np.float64]:
        """ln p of each sequence, its end included."""
        return np.array([
            sum(math.log(self._probability(contexts, a)) for contexts, a in self._steps(*pair))
            for pair in zip(X, y, strict=True)
        ])  # fmt: skip

    def score(self, X: Sequence[Sequence[str]], y: Sequence[str]) -> float:
        """The mean of ln p of a token or end."""
        return float(self.score_samples(X, y).sum() / sum(len(x) + 1 for x in X))

    def _count(self, X: Sequence[Sequence[str]], y: Sequence[str]) -> None:
        counts: Counts = defaultdict(Counter)
        for x, label in zip(X, y, strict=True):
            for contexts, a in self._steps(x, label):
                for context in contexts:
                    counts[context][a] += 1
        self._counts = {context: (n, n.total()) for context, n in counts.items()}

    def _steps(
        self, x: Sequence[str], label: str
    ) -> Iterator[tuple[list[tuple[str, tuple[str, ...]]], str]]:
        """For each token its contexts, from the shortest on, and itself."""
        framed = (self.BOUNDARY, *x, self.BOUNDARY)
        with_labels = ("", label) if self.use_labels else ("",)
        for t in range(1, len(framed)):
            befores = [framed[t - n : t] for n in range(min(self.order - 1, t) + 1)]
            yield [(with_, before) for before in befores for with_ in with_labels], framed[t]

    def _probability(self, contexts: Sequence[tuple[str, tuple[str, ...]]], a: str) -> float:
        p = 1 / self._symbols
        for context in contexts:
            if context in self._counts:
                n, total = self._counts[context]
                p = (max(n[a] - self.discount, 0) + self.discount * len(n) * p) / total
        return p


class ByEnding:
    """The most frequent answer to the sequences that share the longest ending with this one.

    The first `same` items are to be the same, and belong to no ending.
    """

    def __init__(self, same: int = 0) -> None:
        self.same = same

    def fit(self, X: Sequence[Sequence[str]], y: Sequence[Any]) -> Self:
        counts: Counts = defaultdict(Counter)
        for x, answer in zip(X, y, strict=True):
            for ending in self._endings(x):
                counts[ending][answer] += 1
        self._answers = {ending: n.most_common(1)[0][0] for ending, n in counts.items()}
        return self

    def predict(self, X: Sequence[Sequence[str]]) -> list[Any]:
        """None where the first items are like those of no sequence."""
        found = self._answers
        return [next((found[e] for e in self._endings(x) if e in found), None) for x in X]

    def _endings(self, x: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The longest is the whole, with an item for its beginning."""
        first, framed = tuple(x[: self.same]), ("", *x[self.same :])
        return (first + framed[t:] for t in range(len(framed) + 1))


class SameEnding:
    """The nearest neighbour: the answer to a word that shares the longest ending with this one.

    Words that are sorted by their letters from the last to the first have it next to them.
    """

    def fit(self, X: Sequence[str], y: Sequence[Any]) -> Self:
        self._sorted = sorted((x[::-1], answer) for x, answer in zip(X, y, strict=True))
        return self

    def predict(self, X: Sequence[str]) -> list[Any]:
        found = []
        for word in X:
            x = word[::-1]
            at = bisect(self._sorted, x, key=lambda pair: pair[0])
            neighbours = self._sorted[max(at - 1, 0) : at + 1]
            found.append(max(neighbours, key=lambda pair: self._common(pair[0], x))[1])
        return found

    @staticmethod
    def _common(a: str, b: str) -> int:
        """Letters that they begin with."""
        return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
                    min(len(a), len(b)))  # fmt: skip


class ByContext:
    """What letters sound like: the most frequent way in the longest context that is known.

    First `fit` finds which sounds are which letter's, 0 to 2 of them: those with the largest
    product of p(sounds | letter). It counts, aligns, and counts again, a few times. Then contexts
    grow to the right and to the left in turn, where training saw more than one way in the same.

    W. Daelemans, A. van den Bosch, A. Weijters, "IGTree: using trees for compression and
    classification in lazy learning algorithms", Artificial Intelligence Review 11, 1997.
    """

    SAMPLE, ROUNDS = 4000, 3  # words that p is counted in, and how often

    def __init__(self, letters_around: int = 8) -> None:
        self.sizes = [(n // 2, n - n // 2) for n in range(letters_around + 1)]  # left and right

    def fit(self, X: Sequence[str], y: Sequence[Sequence[str]]) -> Self:
        pairs = [(x, said) for x, said in zip(X, y, strict=True) if len(said) <= 2 * len(x)]
        # To begin with: words of as many sounds as letters, each letter with its own.
        aligned: list[tuple[str, Parts]] = [
            (x, [(s,) for s in said]) for x, said in pairs if len(x) == len(said)
        ]
        for _ in range(self.ROUNDS):
            self._counts: Counts = defaultdict(Counter)
            for word, parts in aligned:
                for letter, part in zip(word, parts, strict=True):
                    self._counts[letter][part] += 1
            aligned = [(x, self.align(x, said)) for x, said in pairs[: self.SAMPLE]]
        steps = [(self._framed(x), t, part) for x, said in pairs
                 for t, part in enumerate(self.align(x, said))]  # fmt: skip
        self._tables: list[dict[str, tuple[str, ...]]] = []
        for left, right in self.sizes:
            seen: Counts = defaultdict(Counter)
            for x, t, part in steps:
                seen[self._around(x, t, left, right)][part] += 1
            self._tables.append({context: n.most_common(1)[0][0] for context, n in seen.items()})
            steps = [s for s in steps if len(seen[self._around(s[0], s[1], left, right)]) > 1]
        return self

    def predict(self, X: Sequence[str]) -> list[list[str]]:
        return [
            [s for t in range(len(x)) for s in self._said(self._framed(x), t)] for x in X
        ]  # fmt: skip

    def _said(self, framed: str, t: int) -> tuple[str, ...]:
        found: tuple[str, ...] = ()
        for (left, right), table in zip(self.sizes, self._tables, strict=True):
            context = self._around(framed, t, left, right)
            if context not in table:
                break
            found = table[context]
        return found

    def _framed(self, x: str) -> str:
        edge = "_" * len(self.sizes)
        return edge + x + edge

    def _around(self, framed: str, t: int, left: int, right: int) -> str:
        t += len(self.sizes)
        return framed[t - left : t + right + 1]

    def align(self, x: str, said: Sequence[str]) -> Parts:
        """The sounds of each letter, by dynamic programming over letters."""
        # best[j]: ln p and the sounds of each letter so far, where these are the first j.
        best: dict[int, tuple[float, Any]] = {0: (0.0, None)}
        for i, letter in enumerate(x):
            n = self._counts[letter]
            total = n.total() + 1
            least = len(said) - 2 * (len(x) - i - 1)  # what the letters behind it leave over
            following: dict[int, tuple[float, Any]] = {}
            for j, (log_p, parts) in best.items():
                for k in range(max(j, least), min(j + 2, len(said)) + 1):
                    part = tuple(said[j:k])
                    new = log_p + math.log((n[part] + 0.01) / total)
                    if k not in following or new > following[k][0]:
                        following[k] = new, (parts, part)
            best = following
        made: Parts = []
        chain = best[len(said)][1]
        while chain is not None:
            chain, part = chain
            made.append(part)
        return made[::-1]
