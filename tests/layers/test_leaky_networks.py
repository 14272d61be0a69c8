"""What leaky networks are for, against loops in NumPy: echo states, and networks of potentials."""

from typing import Any

import numpy as np

import fastrnn

H = 300
U = float(np.finfo(np.float64).eps) / 2


def mackey_glass(steps: int) -> Any:
    """The series of the equation with a delay of 17, in steps of 1, about zero."""
    x = np.full(steps + 117, 1.2)
    for t in range(17, len(x) - 1):
        x[t + 1] = x[t] + 0.2 * x[t - 17] / (1 + x[t - 17] ** 10) - 0.1 * x[t]
    return x[117:] - 1.0


def random_weights(radius: float, seed: int) -> Any:
    """(H, H), dense, whose largest eigenvalue has this modulus."""
    w = np.random.default_rng(seed).standard_normal((H, H))
    return w * (radius / np.abs(np.linalg.eigvals(w)).max())


def layer_of(w_ih: Any, w_hh: Any, b: Any, leak: Any, form: str) -> Any:
    layer = fastrnn.LeakyRNN(w_ih.shape[1], H, leak=leak, form=form, dtype="float64")
    names = {"weight_ih_l0": w_ih, "weight_hh_l0": w_hh, "bias_ih_l0": b, "bias_hh_l0": 0 * b}
    for name, array in names.items():
        layer.weights[name][...] = array
    return layer


def ridge(states: Any, target: Any, penalty: float) -> Any:
    return np.linalg.solve(states.T @ states + penalty * np.eye(H), states.T @ target)


def test_an_echo_state_network_with_a_ridge_readout() -> None:
    """It predicts a chaotic series six steps ahead; states and readout are those of the loop."""
    ahead, washout, train, test, penalty, leak = 6, 100, 1000, 400, 1e-3, 0.3
    rng = np.random.default_rng(1)
    w_ih, w_hh = rng.uniform(-1, 1, (H, 1)), random_weights(0.9, seed=2)
    b = rng.uniform(-0.2, 0.2, H)
    series = mackey_glass(washout + train + test + ahead)
    x, target = series[:-ahead], series[ahead:]

    theirs, state = np.zeros((len(x), H)), np.zeros(H)
    for t, x_t in enumerate(x):
        state = (1 - leak) * state + leak * np.tanh(w_ih[:, 0] * x_t + w_hh @ state + b)
        theirs[t] = state
    ours, _ = layer_of(w_ih, w_hh, b, leak, "rate")(x[:, None])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)

    learnt, unseen = slice(washout, washout + train), slice(washout + train, None)
    y = target[learnt]
    weights = [ridge(states[learnt], y, penalty) for states in (ours, theirs)]
    predictions = [ours[unseen] @ weights[0], theirs[unseen] @ weights[1]]

    # The readout w solves M w = S^T y, M = S^T S + penalty, so |M^-1| <= 1 / penalty and
    # |M^-1 S^T| <= 1 / (2 sqrt(penalty)). With states that differ by dS, to first order,
    # dw = M^-1 dS^T (y - S w) - M^-1 S^T dS w. Of either solution, M and S^T y are sums of n
    # products, each off by n u at most, and the elimination is as good as one of M + 10 H u |M|.
    S, w = theirs[learnt], weights[1]
    dS = np.linalg.norm(ours[learnt] - S)
    size, n = np.linalg.norm(S), len(S)
    from_states = dS * np.linalg.norm(y - S @ w) / penalty
    from_states += dS * np.linalg.norm(w) / (2 * np.sqrt(penalty))
    rounded = (n + 10 * H) * U * (size**2 + penalty * np.sqrt(H)) * np.linalg.norm(w)
    rounded += n * U * size * np.linalg.norm(y)
    dw = from_states + 2 * rounded / penalty
    rows = np.linalg.norm(theirs[unseen], axis=1)
    moved = np.linalg.norm(ours[unseen] - theirs[unseen], axis=1)
    bound = rows * dw + moved * np.linalg.norm(w) + 4 * H * U * rows * np.linalg.norm(w)
    spread = np.std(target[unseen])
    assert bound.max() < 0.05 * spread  # else it would say nothing
    assert (np.abs(predictions[0] - predictions[1]) <= bound).all()

    error = np.sqrt(np.mean((predictions[0] - target[unseen]) ** 2)) / spread
    unchanged = np.sqrt(np.mean((x[unseen] - target[unseen]) ** 2)) / spread
    assert error < 0.1 * min(1.0, unchanged), (error, unchanged)


def test_a_network_of_potentials() -> None:
    """Rates of neurons in continuous time, tau dv/dt = -v + W f(v) + I, in steps of dt = a tau.

    A batch of inputs, a time constant for each neuron; also the same in half the step, which comes
    nearer to the equation.
    """
    T, B, D = 200, 4, 3
    rng = np.random.default_rng(3)
    w_ih, w_hh, b = rng.standard_normal((H, D)), random_weights(0.9, seed=4), np.full(H, 0.1)
    dt, tau = 0.1, rng.uniform(1.0, 3.0, H)
    times = dt * np.arange(T)
    phases = rng.uniform(0, 2 * np.pi, (B, D))
    x = np.sin(times[:, None, None] + phases)

    def loop(halves: int) -> tuple[Any, Any]:
        v, a = np.zeros((B, H)), dt / tau / halves
        potentials, rates = np.zeros((2, T, B, H))
        for t in range(T):
            for _ in range(halves):
                v = (1 - a) * v + a * (x[t] @ w_ih.T + np.tanh(v) @ w_hh.T + b)
            potentials[t], rates[t] = v, np.tanh(v)
        return potentials, rates

    ends = []
    for halves in (1, 2, 64):
        layer = layer_of(w_ih, w_hh, b, dt / tau / halves, "potential")
        output, state, tape = layer.forward(np.repeat(x, halves, axis=0), keep=("c",))
        potentials, rates = loop(halves)
        np.testing.assert_allclose(tape.c[0][halves - 1 :: halves], potentials, rtol=0, atol=1e-12)
        np.testing.assert_allclose(output[halves - 1 :: halves], rates, rtol=0, atol=1e-12)
        np.testing.assert_allclose(state[0], potentials[-1], rtol=0, atol=1e-12)
        ends.append(state[0])
    # Euler's method is of first order: an error of e dt, and of e dt / 2 in half the step.
    whole, half = (np.abs(end - ends[2]).max() for end in ends[:2])
    assert 1e-3 < half < 0.6 * whole
