"""Where will the arm be? Numbers for a sequence: from a second of motion the next 0.4 seconds.

A GRU reads what a smartwatch measures, accelerations and rotations about three axes each, and says
all six of them at five moments to come (`SequenceRegressor`). It has learned from seven persons,
and is tested on three others.

    25 steps of motion (T, B, 6) -> GRU -> its last state (B, H) -> 5 moments × 6 (B, 30)

The baselines know as much: the mean, the last value, a linear model of the whole second (ridge
regression), and what followed the most similar seconds of the seven persons (nearest neighbours).
The error is the root mean square of all, each in units of its standard deviation.

    python examples/forecast.py                       # half a minute
    python examples/forecast.py --plot forecast.png   # the errors, and a forecast

Data: shoulder exercises with a smartwatch (Burns et al., BSD-3-Clause); datasets.py has more. It
needs `pip install --no-deps seglearn` and `pip install "fastrnn[estimators]"`.
"""

from collections.abc import Sequence
from typing import Any

import comparison
import datasets
import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from fastrnn.estimators import SequenceRegressor

Array = NDArray[Any]

RATE = 25  # steps a second
STEPS = 25  # that are read
AHEAD = [2, 4, 6, 8, 10]  # steps behind the last one that was read


def windows(recordings: Sequence[datasets.Recording], every: int) -> tuple[Array, Array]:
    """What is read, (N, STEPS, 6), and what is to come, (N, 5, 6)."""
    X, y = [], []
    for recording in recordings:
        x = recording.steps
        for end in range(STEPS, len(x) - max(AHEAD) + 1, every):
            X.append(x[end - STEPS : end])
            y.append(x[[end - 1 + ahead for ahead in AHEAD]])
    return np.array(X), np.array(y)


class LastValue:
    """All stays as it is."""

    def fit(self, X: Array, y: Array) -> None: ...

    def predict(self, X: Array) -> Array:
        return X[:, -1:].repeat(len(AHEAD), axis=1)


class Flat:
    """A regressor of scikit-learn on the steps of a window, standardised, side by side."""

    def __init__(self, regressor: Any) -> None:
        flat = FunctionTransformer(lambda X: X.reshape(len(X), -1))
        self.model = TransformedTargetRegressor(
            make_pipeline(flat, StandardScaler(), regressor), transformer=StandardScaler(),
            check_inverse=False,
        )  # fmt: skip

    def fit(self, X: Array, y: Array) -> None:
        self.model.fit(X, y.reshape(len(y), -1))

    def predict(self, X: Array) -> Array:
        return np.asarray(self.model.predict(X)).reshape(len(X), len(AHEAD), -1)


def main(arguments: Sequence[str] | None = None) -> None:
    options = comparison.parse(arguments, str(__doc__).splitlines()[0])
    recordings = datasets.watch(RATE)
    X, y = windows([r for r in recordings if r.subject <= 7], 100 if options.smoke else 10)
    X_test, y_test = windows([r for r in recordings if r.subject > 7], 5)
    deviation = X.std(axis=(0, 1))
    print(
        f"{len(X)} seconds of motion to learn from, {len(X_test)} of other persons to be tested on"
    )

    def errors(model: Any) -> Array:
        """In standard deviations, (N, 5, 6)."""
        return np.asarray((model.predict(X_test) - y_test) / deviation)

    def network(seed: int) -> SequenceRegressor:
        return SequenceRegressor(
            hidden_size=64, learning_rate="linear", batch_size=64, random_state=seed,
            max_iter=1 if options.smoke else 10,
        )  # fmt: skip

    results = comparison.run(
        options, X, y, lambda model: float(np.sqrt(np.square(errors(model)).mean())),
        measure="error", larger_is_better=False, network=network,
        baselines={
            "mean": Flat(DummyRegressor()),
            "last value": LastValue(),
            "ridge regression": Flat(RidgeCV(np.logspace(-2, 4, 7))),
            "20 nearest neighbours": Flat(KNeighborsRegressor(20, weights="distance")),
        },
    )  # fmt: skip
    if options.plot is None:
        return
    names = ["SequenceRegressor", "20 nearest neighbours", "ridge regression", "last value"]
    with comparison.picture(options.plot, 10, 4, ncols=2, width_ratios=[2, 3]) as (left, right):
        for name, style in zip(names, comparison.STYLES, strict=True):
            of_moments = np.square(errors(results[name].models[0])).mean(axis=(0, 2))
            left.plot(np.array(AHEAD) / RATE, np.sqrt(of_moments), label=name, **style)
        left.set(xlabel="how far ahead (s)", ylabel="error (standard deviations)", ylim=(0, None))
        left.legend()

        chosen = next(r for r in recordings if r.subject == 8 and r.exercise == "abduction")
        seen, to_come = windows([chosen], 1)
        seconds = (np.arange(len(seen)) + STEPS - 1 + AHEAD[-1]) / RATE
        shown, axis = slice(200, 350), 4  # rotation about y
        right.plot(seconds[shown], to_come[shown, -1, axis], color="0.7", lw=4, label="measured")
        for name, line in {"last value": ":", "SequenceRegressor": "-"}.items():
            said = results[name].models[0].predict(seen[shown])[:, -1, axis]
            right.plot(seconds[shown], said, line, color="#00224e", label=name)
        right.set(
            xlabel="time (s)", ylabel="rotation about y (rad/s)", ylim=(-5, 7.5),
            title="What was said 0.4 s before",
        )  # fmt: skip
        right.legend(loc="upper center", ncols=3)


if __name__ == "__main__":
    main()
