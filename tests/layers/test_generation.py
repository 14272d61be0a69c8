"""Autoregressive generation against the functions it is made of, the reference, and chance."""

import functools
import itertools
from types import ModuleType
from typing import Any

import grids
import numpy as np
import pytest
from bit_checks import assert_same
from bounds import LAMBDA, Array, Problem, analyse
from generation_networks import (
    BACKENDS,
    ISAS,
    Case,
    Network,
    assert_same_run,
    by_hand,
    constant_network,
    each,
    each_backend,
    each_dtype,
    exponentials,
    network,
    scaled,
    sum_of,
)

import fastrnn
from fastrnn import reference

# Three things say what must come out. Step by step the compiled functions alone, with the draw as
# it is documented, give the same bits. The reference gives the same indices wherever no rounding
# can change them. And what is drawn follows softmax(logits / temperature).

PROMISED = tuple(isa for isa in ISAS if isa != "generic")

# Around the lanes of every instruction set (2, 4, 8, 16), panels of 4 vectors, and several panels.
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100, 300)


# --------------------------------------------------------------------------------- the truth


def truth(
    net: Network, prompt: Any, written: Array, state: Any, temperature: float, seed: int
) -> tuple[Array, int]:
    """What a network without roundings chooses after each of the indices; how many are decided.

    From the first choice on that a rounding may change, nothing is certain. In the model of
    bounds.py the logit S, a sum of H + 1 terms, is within LAMBDA u sqrt(q) of the truth; call the
    most of a row delta. The largest logit stays the largest if the next one is 2 delta below it.
    The probabilities up to j, c_j, change by

        sum_{i <= j} p_i (dx_i - sum_k p_k dx_k) / T  <=  2 c_j (1 - c_j) delta / T  <=  delta/2T,

    and an error of the exponentials relative to themselves enters as dx_i / T does: exp is within
    2 ULP (4 u), and the two roundings of its argument d / T weigh e^(d/T) |d/T| <= 1/e each; 16 u
    is plenty, and 1e-13 for the sums. A drawn index is decided if u is farther than that from both
    its ends.
    """
    w = net.rnn.weights
    read = np.concatenate([prompt, written[:-1]]).astype(int)
    problem = Problem(
        net.embedding.weights["weight"][read][:, None], state,
        *(w.get(f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        None, None, net.rnn.nonlinearity,
    ).astype(np.float64)  # fmt: skip
    run = analyse(problem)
    h, q_h = (a["output"][len(prompt) - 1 :, 0] for a in (run.values, run.q))
    out = {name: view.astype(np.float64) for name, view in net.linear.weights.items()}
    bias = out.get("bias", 0.0)
    S = h @ out["weight"].T + bias
    Q = h**2 @ out["weight"].T ** 2 + bias**2
    q = (h.shape[1] + 1) * (Q + S**2) + q_h @ out["weight"].T ** 2
    unit = float(np.finfo(net.rnn.dtype).eps) / 2
    delta = LAMBDA * unit * np.sqrt(q).max(axis=1)
    if temperature == 0:
        right = S.argmax(axis=1)
        below = np.sort(S, axis=1)[:, -2] if S.shape[1] > 1 else np.full(len(S), -np.inf)
        decided = S.max(axis=1) - below > 2 * delta
    else:
        e = np.exp((S - S.max(axis=1, keepdims=True)) / temperature)
        c = np.cumsum(e, axis=1) / e.sum(axis=1, keepdims=True)
        u = np.random.default_rng(seed).random(len(written))[:, None]
        right = (c[:, :-1] <= u).sum(axis=1)
        near = np.abs(c[:, :-1] - u).min(axis=1, initial=np.inf)
        decided = near > delta / (2 * temperature) + 16 * unit + 1e-13
    return right, len(written) if decided.all() else int(decided.argmin())


# ---------------------------------------------------------------------------------- every size


@functools.cache
def cases(dtype: Any) -> list[tuple[str, Case]]:
    """Each two of V, D, H in every pair of sizes, with all other options changing in between.

    There are 13 sizes, a prime, so i, j and i + j modulo 13 are an orthogonal array. By default
    four parts of it, in each of which V, D and H have every size once.
    """
    made = []
    n = len(SIZES)
    for k, (i, j) in enumerate(itertools.product(range(n), repeat=2)):
        if (j - 3 * i) % n not in (0, 3, 7, 9) and not grids.whole:
            continue
        V, D, H = SIZES[i], SIZES[j], SIZES[(i + j) % n]
        options = {
            "nonlinearity": ("tanh", "relu")[k % 2],
            "bias": k % 3 != 1,
            "linear_bias": k % 5 != 2,
        }
        net = network(V, D, H, dtype, seed=k, **options)
        rng = np.random.default_rng(k)
        prompt = rng.integers(0, V, 1 + k % 4)
        state = None if k % 7 < 3 else rng.uniform(-1, 1, (1, H)).astype(dtype)
        for temperature in (0.0, (1.0, 0.5, 2.0)[k % 3]):
            what = f"V{V}-D{D}-H{H} at {temperature} with {options}"
            made.append((what, Case(net, prompt, 8, state, temperature, k)))
    return made


@functools.cache
def wanted(dtype: Any) -> list[tuple[Array, int]]:
    """Of each case what the reference writes, and how much of it is decided."""
    results = []
    for what, case in cases(dtype):
        indices, state = case.run(reference)
        assert indices.dtype == np.int64, what
        assert state.dtype == dtype
        right, decided = truth(
            case.net, case.prompt, indices, case.state, case.temperature, case.seed
        )
        assert np.array_equal(indices[:decided], right[:decided]), what
        results.append((indices, decided))
    return results


@each
def test_the_bits_of_the_functions_alone(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    for what, case in cases(dtype):
        assert_same_run(case.run(fastrnn), by_hand(*case), what)


@each
def test_the_indices_of_the_reference(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    counted = []
    for (what, case), (indices, decided) in zip(cases(dtype), wanted(dtype), strict=True):
        got, _ = case.run(fastrnn)
        assert got[:decided].tolist() == indices[:decided].tolist(), what
        counted.append(decided)
    # Else little would have been compared, or always the same. (Units of a relu may all be off, and
    # then every logit is the largest.)
    assert sum(counted) > 0.98 * sum(len(indices) for indices, _ in wanted(dtype))
    assert np.mean([len(set(indices)) for indices, _ in wanted(dtype)]) > 3


@each_dtype
@pytest.mark.quick
def test_threads_and_instruction_sets_give_the_same_bits(dtype: Any) -> None:
    # Long enough for differences in the last bit, if there were any, to reach an index.
    for V, D, H, f in ((3, 5, 33, "tanh"), (100, 64, 128, "tanh"), (300, 17, 100, "relu")):
        net = network(V, D, H, dtype, nonlinearity=f)
        for temperature in (0.0, 0.8):
            case = Case(net, np.array([0, 1, 2]), 200, None, temperature, 5)
            results = {}
            for isa, threads in itertools.product(PROMISED or ISAS, (1, 2, 5)):
                fastrnn.set_isa(isa)
                fastrnn.set_num_threads(threads)
                results[isa, threads] = case.run(fastrnn)
                with fastrnn.num_threads(threads + 1):
                    results[isa, -threads] = case.run(fastrnn)
            first = next(iter(results.values()))
            for setting, result in results.items():
                assert_same_run(result, first, (setting, V, temperature))


@each
@pytest.mark.quick
def test_a_vocabulary_too_large_for_a_table(dtype: Any, isa: str) -> None:
    # Input parts are kept where all of them fit into 16 MiB. Here they are made again each time;
    # indices come again after others, which would show a part that was not.
    fastrnn.set_isa(isa)
    for V, D, H in ((140_000, 3, 1), (14_000, 2, 300)):
        row = max(2 * 64, H * np.dtype(dtype).itemsize)  # bytes, and at least two cache lines
        assert V * row > 16 << 20
        net = network(V, D, H, dtype, scale=1.0)
        prompt = np.array([7, V - 1, 7, 7, 0, V - 1])
        for temperature in (0.0, 1.0):
            case = Case(net, prompt, 4, None, temperature, 3)
            assert_same_run(case.run(fastrnn), by_hand(*case), (V, temperature))


# ------------------------------------------------------------------------------------- going on


@each
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_going_on_is_one_longer_run(dtype: Any, isa: str, temperature: float) -> None:
    fastrnn.set_isa(isa)
    net = network(33, 9, 17, dtype)
    whole = fastrnn.generate(*net, [3, 1], 60, temperature=temperature, rng=9)
    for cuts in ((1, 59), (25, 35), (20, 20, 20)):
        rng = np.random.default_rng(9)
        prompt, state, written = np.array([3, 1]), None, []
        for length in cuts:
            options = {"temperature": temperature, "rng": rng}
            indices, state = fastrnn.generate(*net, prompt, length, state, **options)
            written.append(indices)
            prompt = indices[-1:]
        assert_same_run((np.concatenate(written), state), whole, cuts)


@each_dtype
@each_backend
def test_the_state_argument(module: ModuleType, dtype: Any) -> None:
    net = network(20, 5, 17, dtype)
    rng = np.random.default_rng(4)
    state = rng.uniform(-1, 1, (1, 17)).astype(dtype)

    def run(state: Any) -> tuple[Array, Array]:
        return module.generate(*net, [2], 30, state, rng=1)

    want, fresh = run(state), run(None)
    assert want[0].tolist() != fresh[0].tolist()  # the state matters
    assert_same_run(run(np.zeros((1, 17), dtype)), fresh, "zeros")
    wide = np.full((2, 34), np.nan, dtype)
    wide[::2, ::2] = state
    swapped = state.astype(state.dtype.newbyteorder())
    for other in (np.asfortranarray(state), wide[::2, ::2], swapped):
        assert_same_run(run(other), want, "another layout")


@each_dtype
@each_backend
def test_length_zero_reads_the_prompt(module: ModuleType, dtype: Any) -> None:
    net = network(20, 5, 17, dtype)
    prompt = [4, 4, 19, 0]
    rng = np.random.default_rng(0)
    indices, state = module.generate(*net, prompt, 0, rng=rng)
    assert indices.shape == (0,)
    assert indices.dtype == np.int64
    h = None
    for index in prompt:
        x, _ = module.embedding_forward([[index]], net.embedding.weights["weight"])
        h = module.rnn_forward(x, h, *net.rnn.weights.values())[1]
    assert_same(state, h, "state")
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn


@each
def test_a_long_prompt(dtype: Any, isa: str) -> None:
    # The state after it is that of the layer over the whole sequence at once.
    fastrnn.set_isa(isa)
    net = network(50, 8, 33, dtype)
    prompt = np.random.default_rng(2).integers(0, 50, 3000)
    x, _ = net.embedding.forward(prompt)
    _, h_n = net.rnn(x[:, None])
    assert_same(fastrnn.generate(*net, prompt, 0)[1], h_n[0], "state after the prompt")
    indices, state = fastrnn.generate(*net, prompt, 1, temperature=0)
    assert_same(state, h_n[0], "state before the only index is read")
    assert indices[0] == net.linear(h_n[0]).argmax()
    many = fastrnn.generate(*net, prompt, 20, rng=6)
    after = fastrnn.generate(*net, prompt[2000:], 20, fastrnn.generate(*net, prompt[:2000], 0)[1],
                             rng=6)  # fmt: skip
    assert_same_run(after, many, "a prompt in two parts")


# ------------------------------------------------------------------------- temperature and chance


@each
def test_temperatures_near_zero(dtype: Any, isa: str) -> None:
    # Whatever is smaller than the type can hold still means: the most probable, or one of several.
    fastrnn.set_isa(isa)
    net = network(50, 8, 33, dtype)
    greedy, state = fastrnn.generate(*net, [1], 100, temperature=0, rng=0)
    for temperature in (-0.0, 5e-324, 1e-300, 1e-30):
        for rng in (0, 1):
            got = fastrnn.generate(*net, [1], 100, temperature=temperature, rng=rng)
            assert_same_run(got, (greedy, state), temperature)

    tied = constant_network([1.0, 3.0, 2.0, 3.0, 3.0], dtype)
    for module in BACKENDS:
        assert set(module.generate(*tied, [0], 50, temperature=0)[0]) == {1}
        drawn = module.generate(*tied, [0], 200, temperature=1e-300, rng=0)[0]
        assert set(drawn) == {1, 3, 4}


@each
def test_one_is_the_temperature_unless_another_is_given(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    net = network(50, 8, 33, dtype)
    default = fastrnn.generate(*net, [1], 100, rng=0)
    assert_same_run(fastrnn.generate(*net, [1], 100, temperature=1, rng=0), default, "1")
    other = fastrnn.generate(*net, [1], 100, temperature=1.5, rng=0)
    assert other[0].tolist() != default[0].tolist()


@each
def test_every_draw_is_the_documented_one(dtype: Any, isa: str) -> None:
    # So many that sums in float32, or in another order, would draw another index here and there.
    fastrnn.set_isa(isa)
    draws = 20_000
    for V, temperature in ((2, 1.0), (17, 0.7), (300, 1.0), (1000, 3.0)):
        logits = np.random.default_rng(V).uniform(-3, 3, V).astype(dtype)
        net = constant_network(logits, dtype)
        indices, _ = fastrnn.generate(*net, [0], draws, temperature=temperature, rng=V)
        e = exponentials(scaled(logits, temperature))
        u = np.random.default_rng(V).random(draws)
        want = np.cumsum(e).searchsorted(u * sum_of(e), side="right")
        assert indices.tolist() == want.tolist()


def chi_square(indices: Array, p: Array) -> float:
    counts = np.bincount(indices, minlength=len(p))
    expected = len(indices) * p
    assert expected.min() > 5  # the statistic is near the distribution that gave it its name
    return float(((counts - expected) ** 2 / expected).sum())


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


@each
@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0, 1e30, 1e300])
def test_what_is_drawn_follows_softmax(dtype: Any, isa: str, temperature: float) -> None:
    """Of a network whose logits are always the same, N draws are N throws of one die.

    With the right probabilities X = sum (n_i - N p_i)^2 / (N p_i) is chi-square with V - 1 degrees
    of freedom, for which P(X >= k + 2 sqrt(k t) + 2 t) <= exp(-t) (B. Laurent and P. Massart,
    Ann. Statist. 28 (2000), lemma 1). t = 16 gives 1e-7, and the seeds are fixed.
    """
    fastrnn.set_isa(isa)
    draws, t = 40_000, 16.0
    for V in (2, 17, 50):
        logits = np.random.default_rng(V).permutation(np.linspace(-1.5, 1.5, V)).astype(dtype)
        net = constant_network(logits, dtype)
        indices, _ = fastrnn.generate(*net, [0], draws, temperature=temperature, rng=V)
        k = V - 1
        limit = k + 2 * np.sqrt(k * t) + 2 * t
        logits = logits.astype(np.float64)
        assert chi_square(indices, softmax(logits / temperature)) < limit
        # The bound tells a temperature from its neighbours, and an index from the next one.
        if temperature < 1e30:
            assert chi_square(indices, softmax(logits / (0.8 * temperature))) > limit
            assert chi_square((indices + 1) % V, softmax(logits / temperature)) > limit


class Numbers:
    """In the place of numpy.random.default_rng: these are drawn."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = np.array(numbers)

    def __call__(self, rng: Any) -> Any:
        return self

    def random(self, length: int) -> Array:
        assert length == len(self.numbers)
        return self.numbers


@each
def test_the_ends_of_the_interval(dtype: Any, isa: str, monkeypatch: Any) -> None:
    # The least and the largest number that a generator draws, and one that is a boundary: an index
    # is drawn from where the sum before it is reached to just before the sum with it.
    fastrnn.set_isa(isa)
    last = 1 - 2.0**-53
    halves = constant_network([-np.inf, 0.5, -np.inf, 0.5, -np.inf], dtype)

    def drawn(net: Network, *numbers: float) -> list[list[int]]:
        with monkeypatch.context() as patch:
            patch.setattr(np.random, "default_rng", Numbers(*numbers))
            return [m.generate(*net, [0], len(numbers))[0].tolist() for m in BACKENDS]

    assert drawn(halves, 0.0, 0.5 - 2.0**-54, 0.5, last) == [[1, 1, 3, 3]] * 2
    # Two orders of summation: one may stay below `last` times the other where rounding differs.
    fell_short = 0
    for seed in range(40):
        logits = np.random.default_rng(seed).uniform(-40, 0, 300).astype(dtype)
        logits[-4:] = [0.0, -np.inf, -np.inf, -np.inf]
        assert drawn(constant_network(logits, dtype), last) == [[296]] * 2
        e = exponentials(scaled(logits, 1.0))
        fell_short += np.cumsum(e)[-1] <= last * sum_of(e)
    assert fell_short > 0  # else the last one was an index like any other


@each_backend
def test_every_form_of_rng(module: ModuleType) -> None:
    net = network(50, 8, 33)

    def run(rng: Any, temperature: float = 1.0) -> list[int]:
        return module.generate(*net, [1], 40, temperature=temperature, rng=rng)[0].tolist()

    want = run(5)
    assert run(np.int64(5)) == want
    assert run(np.random.default_rng(5)) == want
    assert run(np.random.SeedSequence(5)) == want
    assert run(np.random.PCG64(5)) == want
    assert run([5]) != run([6])
    assert run(6) != want
    assert run(None) != run(None)
    other = np.random.Generator(np.random.MT19937(5))
    assert run(other) != want
    # One number for an index, whatever the temperature: what follows does not depend on it.
    for temperature in (0.0, 1.0):
        rng, same = np.random.default_rng(5), np.random.default_rng(5)
        run(rng, temperature)
        same.random(40)
        assert rng.random() == same.random()
