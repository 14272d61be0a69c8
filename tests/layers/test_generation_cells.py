"""Autoregressive generation with every cell and with stacked layers: as the layers alone do."""

import functools
import itertools
from typing import Any

import grids
import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bounds import Array
from generation_networks import DTYPES, ISAS, choose, each_backend, initial
from generation_networks import network_of as network
from grids import grid
from marks import each_name
from registry import VARIANTS
from stream_layers import assert_same_state, like, make, parts, units

import fastrnn
from fastrnn import reference

pytestmark = pytest.mark.usefixtures("one_thread")

# By default each kind in one of the types, on one of the instruction sets, in turn.
# Of single steps the kernels' tests have every cell in every type on every instruction set.
each_kind = grid("kind, dtype", VARIANTS, DTYPES, once=True, enough=True)
each_kind_isa = grid("kind, dtype, isa", VARIANTS, DTYPES, ISAS, once=True, enough=True)

# V, D, H, layers: around lanes and panels. So few indices that they come again and again.
SIZES = ((2, 3, 2, 3), (3, 1, 7, 1), (4, 9, 8, 2), (3, 17, 17, 1), (17, 8, 33, 3), (50, 16, 65, 2))


def by_hand(
    net: Any, prompt: Any, length: int, state: Any, temperature: float, seed: int
) -> tuple[list[int], Any]:
    """What generate returns, from calls of the layers, a step at a time."""
    embedding, rnn, linear = net
    uniform = np.random.default_rng(seed).random(length)
    read, written = list(prompt), []
    for step in range(len(prompt) + max(length - 1, 0)):
        output, state = rnn(embedding(np.array([read[step]])), state)
        if step + 1 >= len(prompt) and length:
            logits = linear(output)[0]
            written.append(choose(logits, temperature, uniform[len(written)]))
            read.append(written[-1])
    return written, state


@functools.cache
def cases(kind: str, dtype: Any) -> list[Any]:
    """Networks with the other arguments of generate and its results by hand, on one backend."""
    made = []
    for k, (V, D, H, layers) in enumerate(SIZES):
        net = network(kind, V, D, H, layers, dtype)
        prompt = np.random.default_rng(k).integers(0, V, 1 + k).tolist()
        for i, temperature in enumerate((0.0, 1.0, 0.5)):
            if i != k % 3 and not grids.whole:
                continue
            made.append((net, prompt, 12, (None, initial(net[1]))[(k + i) % 2], temperature, k))
    return made


@each_kind_isa
def test_the_bits_of_the_layers_alone(kind: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    for net, prompt, length, state, temperature, seed in cases(kind, dtype):
        before = None if state is None else like(state, np.copy)
        got, final = fastrnn.generate(
            *net, prompt, length, state, temperature=temperature, rng=seed
        )
        what = f"{net[1]} at {temperature}"
        written, want = by_hand(net, prompt, length, state, temperature, seed)
        assert (got.tolist(), got.dtype) == (written, np.int64), what
        assert_same_state(final, want, what)
        # And the layer on the whole of what was read.
        x = net[0](np.concatenate([prompt, got[:-1]]).astype(int))
        assert_same_state(final, net[1](x, state)[1], what)
        if state is not None:
            assert_same_state(state, before, "the caller's own")


@each_name
def test_the_indices_of_the_reference(kind: str) -> None:
    # In float64 no rounding decides between indices of these networks: their probabilities differ
    # by far more than 1e-12, and so do the numbers drawn from where those add up.
    different = []
    for net, prompt, length, state, temperature, seed in cases(kind, np.float64):
        options = {"temperature": temperature, "rng": seed}
        want, after = reference.generate(*net, prompt, length, state, **options)
        got, final = fastrnn.generate(*net, prompt, length, state, **options)
        assert got.tolist() == want.tolist(), f"{net[1]} at {temperature}"
        assert type(final) is type(after)
        for a, b in zip(parts(final), parts(after), strict=True):
            # Sums of up to 100 terms of order one, over 18 steps that are not chaotic.
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
        with fastrnn.backend("reference"):
            again = fastrnn.generate(*net, prompt, length, state, **options)
        assert again[0].tolist() == want.tolist()
        assert_same_state(again[1], after)
        different.append(len(set(got.tolist())))
    assert np.mean(different) >= 2  # else little would have been compared


@grid("kind, layers, dtype", VARIANTS, (1, 2), DTYPES, once=True)
def test_an_index_that_comes_again_is_read_as_the_first_time(
    kind: str, layers: int, dtype: Any
) -> None:
    # The first layer's input projection is kept for every index: nothing may have written over it.
    for H in (1 if "projection" not in kind else 3, 8, 33):
        net = network(kind, 3, 5, H, layers, dtype)
        for prompt in ([1] * 7, [0, 1, 0, 1, 2, 2, 0, 1], [2, 2]):
            for length in (0, 1, 9):
                got, state = fastrnn.generate(*net, prompt, length, temperature=0, rng=0)
                written, want = by_hand(net, prompt, length, None, 0.0, 0)
                assert got.tolist() == written, f"{prompt}, H={H}"
                assert_same_state(state, want, f"{prompt}, length {length}, H={H}")


@each_kind
def test_a_vocabulary_too_large_for_a_table(kind: str, dtype: Any) -> None:
    # Input parts are kept where all of them fit into 16 MiB: here they do not.
    V, H = 30_000, 150
    assert V * H * np.dtype(dtype).itemsize > 16 << 20
    net = network(kind, V, 2, H, 1, dtype)
    prompt = [7, V - 1, 7, 7, 0, V - 1]
    for temperature in (0.0, 1.0):
        got, state = fastrnn.generate(*net, prompt, 3, temperature=temperature, rng=3)
        written, want = by_hand(net, prompt, 3, None, temperature, 3)
        assert got.tolist() == written
        assert_same_state(state, want, kind)


@each_kind
def test_threads_and_instruction_sets_give_the_same_bits(kind: str, dtype: Any) -> None:
    net = network(kind, 50, 17, 65, 2, dtype)
    results = {}
    for isa, threads in itertools.product(PROMISED, (1, 2, 3)):
        fastrnn.set_isa(isa)
        fastrnn.set_num_threads(threads)
        results[isa, threads] = fastrnn.generate(*net, [0, 1, 2], 100, temperature=0.8, rng=5)
    (want, state), *others = results.values()
    for got, final in others:
        assert got.tolist() == want.tolist()
        assert_same_state(final, state)


@each_backend
@each_name
def test_going_on_is_one_longer_run(module: Any, kind: str) -> None:
    net = network(kind, 20, 5, 9, 2, np.float32)
    for temperature in (0.0, 1.0):
        want, final = module.generate(*net, [3, 1], 30, temperature=temperature, rng=9)
        for cuts in ((1, 29), (10, 10, 10)):
            rng = np.random.default_rng(9)
            prompt, state, written = np.array([3, 1]), None, []
            for length in cuts:
                options = {"temperature": temperature, "rng": rng}
                indices, state = module.generate(*net, prompt, length, state, **options)
                written += indices.tolist()
                prompt = indices[-1:]
            assert written == want.tolist()
            assert_same_state(state, final, kind)


def test_dropout_and_batch_first_change_nothing() -> None:
    plain = network("gru", 20, 5, 9, 2, np.float32)
    other = network("gru", 20, 5, 9, 2, np.float32, dropout=0.5, batch_first=True)
    want, got = (fastrnn.generate(*net, [1], 20, rng=0) for net in (plain, other))
    assert got[0].tolist() == want[0].tolist()
    assert_same_state(got[1], want[1])


def f32(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


@each_backend
def test_a_state_that_does_not_fit(module: Any) -> None:
    for kind, bad in {
        "lstm-projection": (
            (f32(2, 5), TypeError, "^state is an ndarray, expected a pair"),
            ((f32(2, 2),), ValueError, "^state has 1 element, expected a pair"),
            ((f32(2, 5), f32(2, 5)), ValueError, r"^state\[0\] has shape \(2, 5\), .*\(2, 2\)"),
            ((f32(2, 2), f32(2, 2)), ValueError, r"^state\[1\] has shape \(2, 2\), .*\(2, 5\)"),
            ((f32(1, 2), f32(1, 5)), ValueError, r"^state\[0\] has shape \(1, 2\)"),
            ((f32(2, 1, 2), f32(2, 1, 5)), ValueError, r"^state\[0\] has shape \(2, 1, 2\)"),
            ((f32(2, 2), f32(2, 5).astype(float)), TypeError, r"^state\[1\] is float64"),
        ),
        "gru": (
            ((f32(2, 5), f32(2, 5)), TypeError, "^state is a tuple, expected a numpy.ndarray"),
            (f32(1, 5), ValueError, r"^state has shape \(1, 5\), .*\(2, 5\)"),
            (f32(2, 4), ValueError, r"^state has shape \(2, 4\), .*\(2, 5\)"),
            (f32(5), ValueError, r"^state has shape \(5,\)"),
        ),
    }.items():
        net = network(kind, 4, 3, 5, 2, np.float32)
        for state, error, text in bad:
            with pytest.raises(error, match=text):
                module.generate(*net, [1], 3, state)


@each_backend
@each_name
def test_layers_that_do_not_fit(module: Any, kind: str) -> None:
    embedding, rnn, linear = network(kind, 4, 3, 5, 2, np.float32)
    both = make(kind, 3, 5, 2, bidirectional=True)
    with pytest.raises(ValueError, match="rnn is bidirectional"):
        module.generate(embedding, both, linear, [1], 3)
    name = "proj_size" if "projection" in kind else "hidden_size"
    wide = fastrnn.Linear(units(rnn) + 1, 4)
    with pytest.raises(ValueError, match=rf"^linear.in_features is .*, expected rnn.{name} = "):
        module.generate(embedding, rnn, wide, [1], 3)
    with pytest.raises(TypeError, match="rnn is float64, embedding is float32"):
        module.generate(embedding, make(kind, 3, 5, 2, np.float64), linear, [1], 3)
    rnn.weights[next(n for n in rnn.weights if n.endswith("_l1"))][...] = np.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="not finite"):
            module.generate(embedding, rnn, linear, [1], 3, temperature=temperature)
