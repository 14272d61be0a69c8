"""Which exercise is it? A label for a sequence: two seconds of what a smartwatch measures.

A bidirectional GRU reads accelerations and rotations about three axes each, and its last states go
to an output layer that chooses one of seven exercises of the shoulder (`SequenceClassifier`). It
learns from the first 60 % of each of 140 recordings and is tested on the rest: a watch that knows
its wearers. Of people whom it has never seen it would be right less often.

    20 steps of motion (T, B, 6) -> GRU -> last states of both directions (B, 2·H) -> logits (B, 7)

The baselines know the same two seconds: nearest neighbours and logistic regression, of all steps
side by side, or of mean, deviation, least and largest value of each axis and the deviation of its
changes.

    python examples/exercises.py                        # two minutes; 15 seconds with --no-torch
    python examples/exercises.py --plot exercises.png   # which ones are taken for which

Data: shoulder exercises with a smartwatch (Burns et al., BSD-3-Clause); datasets.py has more. It
needs `pip install --no-deps seglearn` and `pip install "fastrnn[estimators]"`.
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

RATE = 10  # steps a second
STEPS = 20  # two seconds


def windows(recordings: list[datasets.Recording], test: bool, every: int) -> tuple[Array, Array]:
    """(N, STEPS, 6) and the exercises: of what comes first, or of the rest."""
    X, y = [], []
    for recording in recordings:
        learned, rest = np.split(recording.steps, [int(0.6 * len(recording.steps))])
        x = rest if test else learned
        for start in range(0, len(x) - STEPS + 1, every):
            X.append(x[start : start + STEPS])
            y.append(recording.exercise)
    return np.array(X), np.array(y)


def flat(X: Array) -> Array:
    return X.reshape(len(X), -1)


def summaries(X: Array) -> Array:
    """(N, 30): five numbers for each axis."""
    parts = [X.mean(1), X.std(1), X.min(1), X.max(1), np.diff(X, axis=1).std(1)]
    return np.concatenate(parts, axis=1)


def main(arguments: Sequence[str] | None = None) -> None:
    options = comparison.parse(arguments, str(__doc__).splitlines()[0])
    recordings = datasets.watch(RATE)
    X, y = windows(recordings, False, 50 if options.smoke else 5)
    X_test, y_test = windows(recordings, True, STEPS)
    print(f"{len(X)} windows to learn from, {len(X_test)} to be tested on")

    def of(features: Any, model: Any) -> Any:
        return make_pipeline(FunctionTransformer(features), StandardScaler(), model)

    def network(seed: int) -> SequenceClassifier:
        return SequenceClassifier(
            bidirectional=True, hidden_size=8 if options.smoke else 64, dropout=0.5,
            learning_rate="linear", max_iter=2 if options.smoke else 20, n_iter_no_change=20,
            random_state=seed,
        )  # fmt: skip

    results = comparison.run(
        options, X, y, lambda model: float(model.score(X_test, y_test)), network=network,
        baselines={
            "always the same exercise": of(flat, DummyClassifier()),
            "nearest neighbour of steps": of(flat, KNeighborsClassifier(1)),
            "3 nearest of summaries": of(summaries, KNeighborsClassifier(3)),
            "logistic regression of steps": of(flat, LogisticRegression(C=0.01)),
            "logistic regr. of summaries": of(summaries, LogisticRegression(C=10, max_iter=2000)),
        },
    )  # fmt: skip
    if options.plot is None:
        return
    said = results["SequenceClassifier"].models[0].predict(X_test)
    with comparison.picture(options.plot, 7, 6) as axes:
        comparison.confusion(axes, y_test, said, list(datasets.EXERCISES.values()))
        axes.set(ylabel="exercise", title="% of the windows of each exercise")


if __name__ == "__main__":
    main()
