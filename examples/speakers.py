"""Who speaks? A label for a sequence, whatever its length: nine men say two Japanese vowels.

A bidirectional GRU reads an utterance frame by frame, 7 to 29 of them, and its last states go to an
output layer that chooses a man (`SequenceClassifier`). The utterances that it is tested on were
recorded on other occasions than those that it has learned from.

    frames (T, B, 12) -> GRU -> last states of both directions (B, 2·H) -> logits (B, 9)

The baselines know the same frames: nearest neighbours and logistic regression, of mean, deviation,
least and largest value of each feature, or of the utterances stretched to one length. The last of
them is better than the network. Every utterance goes from one vowel to the other, so that a linear
model of the stretched ones has all that there is to know, and 270 are few to learn from. Where the
same thing may be anywhere in a sequence, the network is ahead: exercises.py.

    python examples/speakers.py                       # half a minute
    python examples/speakers.py --plot speakers.png   # who is taken for whom

Data: Japanese Vowels (UCI Machine Learning Repository, CC BY 4.0); datasets.py has more. It needs
`pip install --no-deps aeon` and `pip install "fastrnn[estimators]"`.
"""

from collections.abc import Sequence
from typing import Any

import comparison
import datasets
import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from fastrnn.estimators import SequenceClassifier

Array = NDArray[Any]


def stretched(X: Sequence[Array], steps: int = 15) -> Array:
    """(N, steps · D): each stretched or shrunk to one length, by linear interpolation."""
    return np.array([
        [np.interp(np.linspace(0, len(x) - 1, steps), np.arange(len(x)), f) for f in x.T] for x in X
    ]).reshape(len(X), -1)  # fmt: skip


def summaries(X: Sequence[Array]) -> Array:
    """(N, 4 · D): of each the mean, deviation, least and largest value of each feature."""
    return np.array([[x.mean(0), x.std(0), x.min(0), x.max(0)] for x in X]).reshape(len(X), -1)


def main(arguments: Sequence[str] | None = None) -> None:
    options = comparison.parse(arguments, str(__doc__).splitlines()[0])
    (X, y), (X_test, y_test) = datasets.japanese_vowels()
    print(f"{len(X)} utterances to learn from, {len(X_test)} to be tested on")

    def of(features: Any, model: Any) -> Any:
        return make_pipeline(FunctionTransformer(features), StandardScaler(), model)

    def network(seed: int) -> SequenceClassifier:
        return SequenceClassifier(
            bidirectional=True, hidden_size=8 if options.smoke else 64, dropout=0.3,
            learning_rate="linear", max_iter=2 if options.smoke else 60, n_iter_no_change=60,
            random_state=seed,
        )  # fmt: skip

    results = comparison.run(
        options, X, y, lambda model: float(model.score(X_test, y_test)), network=network,
        baselines={
            "always the same man": of(summaries, DummyClassifier()),
            "nearest neighbour of summaries": of(summaries, KNeighborsClassifier(1)),
            "nearest neighbour, stretched": of(stretched, KNeighborsClassifier(1)),
            "logistic regr. of summaries": of(summaries, LogisticRegression(max_iter=2000)),
            "logistic regression, stretched": of(stretched, LogisticRegression(max_iter=2000)),
        },
    )  # fmt: skip
    if options.plot is None:
        return
    said = results["SequenceClassifier"].models[0].predict(X_test)
    with comparison.picture(options.plot, 6, 5.5) as axes:
        comparison.confusion(axes, y_test, said, sorted(set(y)))
        axes.set(ylabel="speaker", title="% of the utterances of each speaker")


if __name__ == "__main__":
    main()
