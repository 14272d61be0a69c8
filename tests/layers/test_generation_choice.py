"""Generation: what top_k, top_p and stop leave to choose from, and where they end it."""

import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bounds import Array
from generation_networks import (
    BACKENDS,
    DTYPES,
    Given,
    assert_same_run,
    choose,
    constant_network,
    each,
    each_backend,
    each_dtype,
    network,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stream_layers import assert_same_state

import fastrnn
from fastrnn import reference

# Of both, neither and one; and such as keep nearly everything or nearly nothing.
CHOICES = (
    {"top_k": 1}, {"top_k": 3}, {"top_k": 10**9}, {"top_p": 1e-9}, {"top_p": 0.5},
    {"top_p": 0.99}, {"top_k": 4, "top_p": 0.7}, {"top_k": 12, "top_p": 1.0},
)  # fmt: skip


def distribution(x: Array, temperature: float, top_k: int | None, top_p: float | None) -> Array:
    """The probabilities of the definition; zero for what is left out."""
    p = np.exp((x - x.max()) / temperature)
    ranked = sorted(range(len(x)), key=lambda j: (-x[j], j))[:top_k]
    total = sum(p[j] for j in ranked)
    kept, covered = [], 0.0
    for j in ranked:
        if covered >= (1.0 if top_p is None else top_p):
            break
        kept.append(j)
        covered += p[j] / total
    result = np.zeros(len(x))
    result[kept] = p[kept] / p[kept].sum()
    return result


# ------------------------------------------------------------------------------- what is drawn


@each
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_every_draw_is_the_documented_one(dtype: Any, isa: str, choice: dict[str, Any]) -> None:
    # So many that a sum in another order or type would draw another index here and there.
    fastrnn.set_isa(isa)
    draws = 300
    for V, temperature in ((2, 1.0), (17, 0.7), (100, 3.0)):
        logits = np.random.default_rng(V).uniform(-3, 3, V).astype(dtype)
        logits[V // 2] = logits[0]  # equally probable
        net = constant_network(logits, dtype)
        indices, _ = fastrnn.generate(*net, [0], draws, temperature=temperature, rng=V, **choice)
        u = np.random.default_rng(V).random(draws)
        assert indices.tolist() == [choose(logits, temperature, n, **choice) for n in u]


@each
@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.quick
def test_the_network_reads_what_was_drawn(dtype: Any, isa: str, choice: dict[str, Any]) -> None:
    fastrnn.set_isa(isa)
    net = network(33, 9, 17, dtype)
    for temperature in (0.5, 1.0):
        got, state = fastrnn.generate(*net, [3, 1], 40, temperature=temperature, rng=1, **choice)
        u, h, read, written = np.random.default_rng(1).random(40), None, [3, 1], []
        for step in range(2 + 39):
            output, h = net.rnn(net.embedding(np.array([read[step]])), h)
            if step:
                logits = net.linear(output)[0]
                written.append(choose(logits, temperature, u[step - 1], **choice))
                read.append(written[-1])
        assert got.tolist() == written
        assert_same_state(state, h)


@each_dtype
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_indices_of_the_reference(dtype: Any, choice: dict[str, Any]) -> None:
    """Of a network whose logits are given, so that roundings enter in the draw alone.

    A probability has errors of 2 ULP from exp and 1/2 from each of its argument's two roundings,
    which the exponential's own size at most keeps; that is 8 u of at most 1 in a running sum. A
    number nearer than 32 u to an end of an index's interval decides nothing and is drawn again.
    The same of top_p: what the most probable indices cover is never so near to it here.
    """
    rng = np.random.default_rng(7)
    unit = float(np.finfo(dtype).eps) / 2
    for V in (2, 9, 40, 300):
        logits = rng.uniform(-3, 3, V).astype(dtype)
        p = distribution(logits.astype(np.float64), 0.8, **{"top_k": None, "top_p": None} | choice)
        if "top_p" in choice:
            other = {"top_k": choice.get("top_k"), "top_p": None}
            ranked = np.sort(distribution(logits.astype(np.float64), 0.8, **other))[::-1]
            near = np.abs(np.cumsum(ranked) - choice["top_p"]).min()
            assert near > 32 * unit or choice["top_p"] == 1
        u = rng.random(500)
        far = np.abs(np.cumsum(p)[:, None] - u).min(axis=0) > 32 * unit
        u = u[far]
        assert len(u) > 470
        net = constant_network(logits, dtype)
        for module in BACKENDS:
            options = {"temperature": 0.8, "rng": Given(u), **choice}
            got, _ = module.generate(*net, [0], len(u), **options)
            assert got.tolist() == np.cumsum(p).searchsorted(u, side="right").tolist()


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=40),
    st.sampled_from([0.25, 1.0, 2.0]),
    st.none() | st.integers(1, 45),
    st.none() | st.floats(1e-6, 1),
)
@settings(max_examples=150, deadline=None)
def test_what_is_left_is_that_of_the_definition(
    quarters: list[int], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    """Each index that is left is drawn in the middle of its interval; and the ends are the ends.

    Logits are quarters, so that many are equal.
    """
    x = np.array(quarters) / 4
    p = distribution(x, temperature, top_k, top_p)
    if top_p is not None:  # what is within roundings of top_p may fall on either side
        for near in (top_p * (1 - 1e-9), min(top_p * (1 + 1e-9), 1.0)):
            assume((distribution(x, temperature, top_k, near) == p).all())
    ends = np.cumsum(p)
    inside = np.flatnonzero(p)
    u = [0.0, *(ends[inside] - p[inside] / 2), 1 - 2.0**-53]
    want = [inside[0], *inside, inside[-1]]
    net = constant_network(x, np.float64)
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    for module in BACKENDS:
        got, _ = module.generate(*net, [0], len(u), **options, rng=Given(u))
        assert got.tolist() == want


def chi_square_limit(degrees: int, t: float = 16.0) -> float:
    """Above it with probability exp(-16) (Laurent and Massart 2000, see test_generation.py)."""
    return degrees + 2 * float(np.sqrt(degrees * t)) + 2 * t


@each
def test_what_is_drawn_follows_the_distribution(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    draws, V = 40_000, 30
    logits = np.random.default_rng(V).permutation(np.linspace(-1.5, 1.5, V)).astype(dtype)
    net = constant_network(logits, dtype)
    choices = ((None, 0.6), (8, None), (8, 0.6))
    all_of_them = [
        distribution(logits.astype(np.float64), 0.7, top_k, top_p) for top_k, top_p in choices
    ]
    assert len({(p > 0).sum() for p in all_of_them}) == 3
    for (top_k, top_p), p in zip(choices, all_of_them, strict=True):
        options: dict[str, Any] = {"temperature": 0.7, "top_k": top_k, "top_p": top_p, "rng": 3}
        indices, _ = fastrnn.generate(*net, [0], draws, **options)
        counts, expected = np.bincount(indices, minlength=V), draws * p
        assert not counts[p == 0].any()
        counts, expected = counts[p > 0], expected[p > 0]
        limit = chi_square_limit(len(counts) - 1)
        assert ((counts - expected) ** 2 / expected).sum() < limit
        counts = np.roll(counts, 1)  # the limit tells one index from the next
        assert ((counts - expected) ** 2 / expected).sum() > limit


@each
def test_what_leaves_everything_changes_no_bit(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    net = network(50, 8, 33, dtype)
    want = fastrnn.generate(*net, [1], 300, rng=0)
    for options in ({"top_k": 50}, {"top_k": 51}, {"top_p": 1}, {"stop": []}, {"stop": None}):
        got = fastrnn.generate(*net, [1], 300, rng=0, **options)
        assert_same_run(got, want, options)
    greedy = fastrnn.generate(*net, [1], 300, temperature=0, rng=0)
    for options in ({"top_k": 3}, {"top_p": 0.2}, {"top_k": 7, "top_p": 0.5}):
        got = fastrnn.generate(*net, [1], 300, temperature=0, rng=0, **options)
        assert_same_run(got, greedy, options)
    assert_same_run(fastrnn.generate(*net, [1], 300, top_k=1, rng=0), greedy, "top_k=1")


@each_backend
@each_dtype
def test_of_equally_probable_ones_the_lower_are_left(module: ModuleType, dtype: Any) -> None:
    net = constant_network([1.0, 2.0, 0.0, -0.0, 2.0, 2.0], dtype)
    for top_k, left in ((1, {1}), (2, {1, 4}), (3, {1, 4, 5}), (4, {0, 1, 4, 5})):
        assert set(module.generate(*net, [0], 300, top_k=top_k, rng=0)[0]) == left
    low = {"top_k": 5, "temperature": 100.0}  # a zero of either sign is a zero
    assert set(module.generate(*net, [0], 300, rng=0, **low)[0]) == {0, 1, 2, 4, 5}
    for top_p, left in ((0.2, {1}), (0.5, {1, 4})):
        assert set(module.generate(*net, [0], 300, top_p=top_p, rng=0)[0]) == left


@each_backend
@each_dtype
def test_infinity_and_nan(module: ModuleType, dtype: Any) -> None:
    inf = np.inf
    for choice in ({"top_k": 2}, {"top_p": 0.5}, {"top_k": 3, "top_p": 0.9}):
        some = constant_network([-inf, 0.5, -inf, 0.5, -inf], dtype)
        assert set(module.generate(*some, [0], 50, rng=0, **choice)[0]) <= {1, 3}
        one = constant_network([-inf, 0.5, -inf], dtype)
        assert set(module.generate(*one, [0], 50, rng=0, **choice)[0]) == {1}
        # A NaN is refused even where it would be left out.
        for logits in ([0.0, 1, 2, 3, np.nan], [np.nan, 3, 2, 1, 0], [0.0, inf], [-inf] * 3):
            net = constant_network(logits, dtype)
            with pytest.raises(ValueError, match="is not finite: there is nothing to choose"):
                module.generate(*net, [0], 3, rng=0, **choice)


# ------------------------------------------------------------------------------------- the end


@each
def test_an_index_of_stop_is_the_last(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    net = network(33, 9, 17, dtype)
    for temperature in (0.0, 1.0):
        options: dict[str, Any] = {"temperature": temperature, "rng": 1}
        whole = fastrnn.generate(*net, [3, 1], 60, **options)[0].tolist()
        for stop in ([whole[0]], [whole[5], whole[9]], [j for j in range(33) if j not in whole]):
            ends = [n for n, index in enumerate(whole) if index in stop]
            n = ends[0] + 1 if ends else 60
            got = fastrnn.generate(*net, [3, 1], 60, stop=stop, **options)
            shorter = fastrnn.generate(*net, [3, 1], n, temperature=temperature,
                                       rng=Given(np.random.default_rng(1).random(60)))  # fmt: skip
            assert_same_run(got, shorter, stop)
            assert got[0].flags.owndata
            want = reference.generate(*net, [3, 1], 60, stop=stop, **options)
            if dtype is np.float64:  # where no rounding decides
                assert got[0].tolist() == want[0].tolist()


@each_backend
def test_every_form_of_stop(module: ModuleType) -> None:
    net = network(33, 9, 17)
    whole = module.generate(*net, [3], 60, rng=1)[0].tolist()
    last = whole[7]
    n = whole.index(last) + 1
    for stop in (
        last, np.int16(last), np.array(last), [last], (last,), {last}, frozenset([last]),
        np.array([last, last], np.uint8), range(last, last + 1),
    ):  # fmt: skip
        got, _ = module.generate(*net, [3], 60, stop=stop, rng=1)
        assert got.tolist() == whole[:n], stop
    # What is read in the prompt ends nothing; and there may be nothing to write.
    got, _ = module.generate(*net, [3, last, 3], 60, stop=last, rng=1)
    assert len(got) > 1 or got[0] == last
    assert not len(module.generate(*net, [last], 0, stop=last)[0])


@each_backend
def test_going_on_after_the_end(module: ModuleType) -> None:
    net = network(33, 9, 17)
    whole, final = module.generate(*net, [3], 60, temperature=0)
    stop = int(whole[20])
    prompt, state, written = np.array([3]), None, []
    while len(written) < 60:
        left = 60 - len(written)
        prompt, state = module.generate(*net, prompt, left, state, temperature=0, stop=stop)
        written += prompt.tolist()
        prompt = prompt[-1:]
    assert written == whole.tolist()
    assert_same_state(state, final)


@each_backend
def test_the_numbers_that_are_drawn_do_not_depend_on_the_end(module: ModuleType) -> None:
    net = network(33, 9, 17)
    for options in ({}, {"stop": range(33)}, {"top_k": 2}, {"temperature": 0}):
        rng, same = np.random.default_rng(5), np.random.default_rng(5)
        module.generate(*net, [3], 40, rng=rng, **options)
        same.random(40)
        assert rng.random() == same.random()


# ------------------------------------------------------------------------------------- bad input


BAD = (
    ({"top_k": 0}, ValueError, "top_k is 0, expected at least 1: pass None for all indices"),
    ({"top_k": -1}, ValueError, "top_k is -1, expected at least 0"),
    ({"top_k": 2.0}, TypeError, "top_k is 2.0, expected an integer: pass int(top_k)"),
    ({"top_k": True}, TypeError, "top_k is True, expected an integer"),
    ({"top_p": 0}, ValueError, "top_p is 0, expected 0 < top_p <= 1: leave it out, and set temp"),
    ({"top_p": 1.5}, ValueError, "top_p is 1.5, expected 0 < top_p <= 1"),
    ({"top_p": 90}, ValueError, "top_p is 90, expected 0 < top_p <= 1: pass top_p / 100"),
    ({"top_p": -0.1}, ValueError, "top_p is -0.1, expected 0 < top_p <= 1"),
    ({"top_p": np.nan}, ValueError, "top_p is nan, expected 0 < top_p <= 1"),
    ({"top_p": "0.9"}, TypeError, "top_p is '0.9', expected a number: pass float(top_p)"),
    ({"stop": 11}, ValueError, "stop is 11, expected 0 <= index < embedding.num_embeddings = 11"),
    ({"stop": [3, -1]}, ValueError, "stop[1] is -1, expected 0 <= index < "),
    ({"stop": [[1, 2]]}, ValueError, "stop has shape (1, 2), expected an index, several"),
    ({"stop": 1.0}, TypeError, "stop holds float64, expected an index, several of them or None"),
    ({"stop": "."}, TypeError, "stop holds <U1, expected an index"),
    ({"stop": [True]}, TypeError, "stop holds bool, expected an index"),
    ({"stop": iter([1])}, TypeError, "pass list(stop)"),
)


@pytest.mark.parametrize(("options", "error", "text"), BAD, ids=str)
def test_bad_values(options: dict[str, Any], error: type, text: str) -> None:
    net, texts = network(11, 4, 6), []
    for module, name in itertools.product(BACKENDS, ("generate", "generate_iter")):
        rng = np.random.default_rng(0)
        with pytest.raises(error) as caught:
            getattr(module, name)(*net, [1, 2], 3, rng=rng, **options)
        texts.append(str(caught.value))
        assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn
    assert text in texts[0]
    assert len(set(texts)) == 1


@each_backend
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_head_that_shares_the_embeddings_weight(module: ModuleType, dtype: Any) -> None:
    """Whose vectors have as many elements as the layer units: one array, read by both."""
    net = network(20, 7, 7, dtype)
    table = net.embedding.weights["weight"]
    net.linear.weights["weight"][...] = table

    class Tied(fastrnn.Linear):
        @property
        def weights(self) -> Any:
            return {"weight": table, "bias": net.linear.weights["bias"]}

        @weights.setter
        def weights(self, value: Any) -> None:
            pass

    tied = Tied(7, 20, dtype=np.dtype(dtype).name)
    options: dict[str, Any] = {"top_k": 5, "rng": 2}
    want = module.generate(*net, [1], 40, **options)
    got = module.generate(net.embedding, net.rnn, tied, [1], 40, **options)
    assert_same_run(got, want, "tied")
    assert list(module.generate_iter(net.embedding, net.rnn, tied, [1], 40, **options)) == (
        want[0].tolist()
    )
