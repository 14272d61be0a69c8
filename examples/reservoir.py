"""Where will the arm be, with nothing trained but a linear readout? Numbers for each step.

A reservoir of random leaky units reads what a smartwatch measures, accelerations and rotations
about three axes each; ridge regression from its states says at every step what all six will be 0.2
seconds later (`EchoStateRegressor`). It has learned from seven persons, and is tested on three.

    motion (T, B, 6) -> random LeakyRNN -> states (T, B, H) -> ridge regression -> (T, B, 6)

What it has to be better than: the mean, the last value, ridge regression and nearest neighbours on
as many steps as suit them best. The error is the root mean square, in units of standard deviations.
forecast.py trains a network for such a task, by gradients; it takes longer. Against PyTorch there
is nothing to measure: all but running the reservoir is NumPy's linear algebra.

    python examples/reservoir.py                        # half a minute
    python examples/reservoir.py --plot reservoir.png   # how much the size of the reservoir brings

Data: shoulder exercises with a smartwatch (Burns et al., BSD-3-Clause); datasets.py has more. It
needs `pip install --no-deps seglearn` and `pip install "fastrnn[estimators]"`.
"""

from collections.abc import Sequence
from typing import Any

import comparison
import datasets
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from fastrnn.estimators import EchoStateRegressor

Array = NDArray[Any]

RATE = 25  # steps a second
AHEAD = 5  # steps
WASHOUT = 75  # steps at the beginning of a recording that do not count, for nobody
THINNED = 4  # of so many test steps one is predicted: neighbours take long


class Lagged:
    """A regressor of scikit-learn on the last steps, side by side."""

    def __init__(self, regressor: Any, steps: int = 1, every: int = 1) -> None:
        self.regressor, self.steps, self.every = regressor, steps, every

    def _features(self, x: Array) -> Array:
        seen = sliding_window_view(x, self.steps, axis=0)  # (T - steps + 1, 6, steps)
        return seen[WASHOUT - self.steps + 1 :].reshape(len(x) - WASHOUT, -1)

    def fit(self, X: list[Array], y: list[Array]) -> None:
        features = np.concatenate([self._features(x) for x in X])
        right = np.concatenate([row[WASHOUT:] for row in y])
        self.regressor.fit(features[:: self.every], right[:: self.every])

    def predict(self, X: list[Array]) -> list[Array]:
        """Of each THINNED-th step after the washout."""
        return [self.regressor.predict(self._features(x)[::THINNED]) for x in X]


class LastValue:
    """All stays as it is."""

    def fit(self, X: list[Array], y: list[Array]) -> None: ...

    def predict(self, X: list[Array]) -> list[Array]:
        return [x[WASHOUT::THINNED] for x in X]


def main(arguments: Sequence[str] | None = None) -> None:
    options = comparison.parse(arguments, str(__doc__).splitlines()[0], torch=False)
    recordings = datasets.watch(RATE)
    learned = np.concatenate([r.steps for r in recordings if r.subject <= 7])
    mean, deviation = learned.mean(axis=0), learned.std(axis=0)

    def split(test: bool) -> tuple[list[Array], list[Array]]:
        chosen = [(r.steps - mean) / deviation for r in recordings if (r.subject > 7) == test]
        if options.smoke:
            chosen = chosen[::7]
        return [x[:-AHEAD] for x in chosen], [x[AHEAD:] for x in chosen]

    X, y = split(False)
    X_test, y_test = split(True)
    print(f"{len(X)} recordings to learn from, {len(X_test)} of other persons to be tested on")
    right = np.concatenate([row[WASHOUT::THINNED] for row in y_test])

    def error(model: Any) -> float:
        said = model.predict(X_test)
        if isinstance(model, EchoStateRegressor):
            said = [row[WASHOUT::THINNED] for row in said]
        return float(np.sqrt(np.square(np.concatenate(said) - right).mean()))

    def network(seed: int, units: int = 50 if options.smoke else 500) -> EchoStateRegressor:
        return EchoStateRegressor(
            hidden_size=units, leak=0.2, input_scaling=0.1, density=0.1,
            alpha=1.0, washout=WASHOUT, random_state=seed,
        )  # fmt: skip

    results = comparison.run(
        options,
        X,
        y,
        error,
        measure="error",
        larger_is_better=False,
        network=network,
        baselines={
            "mean": Lagged(DummyRegressor()),
            "last value": LastValue(),
            "ridge regression, 1 second": Lagged(Ridge(10.0), 25),
            "ridge regression, 3 seconds": Lagged(Ridge(10.0), 75),
            "60 nearest neighbours, 1 second": Lagged(KNeighborsRegressor(60), 25, every=2),
        },
    )
    if options.plot is None:
        return
    sizes = [10, 20, 50] if options.smoke else [10, 30, 100, 300, 1000]
    with comparison.picture(options.plot) as axes:
        found = [error(network(0, units).fit(X, y)) for units in sizes]
        axes.semilogx(sizes, found, label="EchoStateRegressor", **comparison.STYLES[0])
        for name, style in zip(list(results)[2:5], comparison.STYLES[1:], strict=True):
            axes.axhline(results[name].mean, label=name, **{**style, "marker": None})
        axes.set_xticks(sizes, sizes)
        axes.set(xlabel="units of the reservoir", ylabel="error (standard deviations)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


if __name__ == "__main__":
    main()
