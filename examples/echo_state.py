"""An echo state network: a random recurrent network that is not trained, and a linear readout.

It learns the next value of the Mackey-Glass series, which is chaotic, by one ridge regression on
the states. Then it reads what it predicts, and so goes on by itself (H. Jaeger and H. Haas, 2004).

    python examples/echo_state.py                     # a second
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn

Array = NDArray[Any]


def mackey_glass(steps: int, start: float = 1.2) -> Array:
    """x' = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x, in steps of 1; without how it began."""
    x = np.full(steps + 317, start)
    for t in range(17, len(x) - 1):
        x[t + 1] = x[t] + 0.2 * x[t - 17] / (1 + x[t - 17] ** 10) - 0.1 * x[t]
    return x[317:] - 1.0


def reservoir(hidden: int, radius: float, leak: float, seed: int) -> fastrnn.LeakyRNN:
    """Random weights; those of the recurrence have an eigenvalue of modulus `radius` at most."""
    rng = np.random.default_rng(seed)
    layer = fastrnn.LeakyRNN(1, hidden, leak=leak, dtype="float64")
    w_hh = rng.standard_normal((hidden, hidden))
    layer.weights["weight_hh_l0"][...] = w_hh * (radius / np.abs(np.linalg.eigvals(w_hh)).max())
    layer.weights["weight_ih_l0"][...] = rng.uniform(-1, 1, (hidden, 1))
    layer.weights["bias_ih_l0"][...] = rng.uniform(-0.2, 0.2, hidden)
    layer.weights["bias_hh_l0"][...] = 0
    return layer


def ridge(states: Array, target: Array, penalty: float = 1e-8) -> Array:
    """The w of least |states w - target|^2 + penalty |w|^2."""
    normal = states.T @ states + penalty * np.eye(states.shape[1])
    return np.linalg.solve(normal, states.T @ target)


def main(train: int = 3000, test: int = 1000, hidden: int = 300, washout: int = 100) -> int:
    series = mackey_glass(train + test)
    layer = reservoir(hidden, radius=0.9, leak=0.3, seed=0)
    states, last = layer(series[:train, None])
    learnt, target = states[washout:-1], series[washout + 1 : train]
    w = ridge(learnt, target)

    # On by itself: the state goes on from where the training ended, with what is predicted as x.
    stream = layer.stream(batch_size=1)
    stream.state = last[:, None]
    x, predicted = states[-1:] @ w, np.zeros(test)
    for t in range(test):
        predicted[t] = x[0]
        x = stream.step(x[:, None]) @ w

    errors = np.abs(predicted - series[train:]) / series.std()
    followed = int(np.argmax(errors > 0.3)) if (errors > 0.3).any() else test
    fit = np.std(learnt @ w - target) / series.std()
    print(f"{hidden} units, {train} steps; error of the next value: {fit:.1e} of its deviation")
    print(f"by itself it follows the series for {followed} of {test} steps")
    return followed


if __name__ == "__main__":
    main()
