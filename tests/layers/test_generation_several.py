"""Generation of several sequences at once: each is what it is alone."""

import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bit_checks import assert_same
from generation_networks import (
    BACKENDS,
    DTYPES,
    ISAS,
    Given,
    assert_same_run,
    constant_network,
    each_backend,
    each_dtype,
    network,
    network_of,
)
from grids import grid
from marks import each_name
from registry import VARIANTS
from stream_layers import assert_same_state, draw_state, like, parts

import fastrnn

TIMEOUT = 120.0  # seconds

each_kind_isa = grid("kind, dtype, isa", VARIANTS, DTYPES, ISAS, once=True, enough=True)

# V, D, H, layers, and B below and above the rows of a tile.
SIZES = ((3, 2, 5, 2, 2), (17, 8, 33, 1, 7), (20, 5, 9, 3, 20))


def ragged(V: int, B: int, most: int = 6, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, n).tolist() for n in rng.integers(1, most + 1, B)]


def of_sequence(state: Any, b: int) -> Any:
    return None if state is None else like(state, lambda a: np.ascontiguousarray(a[:, b]))


def assert_each_is_alone(
    module: ModuleType, net: Any, prompts: Any, length: int, state: Any = None, **options: Any
) -> list[int]:
    """Compares each sequence with its own call, whose numbers are its column; returns lengths."""
    B = len(prompts)
    u = np.random.default_rng(3).random((length, B))
    got, after = module.generate(*net, prompts, length, state, rng=Given(u), **options)
    assert len(got) == B
    for b, prompt in enumerate(prompts):
        own = {**options, "rng": Given(np.ascontiguousarray(u[:, b]))}
        want = module.generate(*net, prompt, length, of_sequence(state, b), **own)
        assert got[b].dtype == np.int64
        assert got[b].tolist() == want[0].tolist(), f"sequence {b}"
        assert_same_state(of_sequence(after, b), want[1], f"sequence {b}")
    assert all(a.shape[1] == B for a in parts(after))
    return [len(a) for a in got]


# ------------------------------------------------------------------------------------- the bits


@each_kind_isa
@pytest.mark.quick
def test_each_sequence_has_the_bits_that_it_has_alone(kind: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    ended = []
    for i, (V, D, H, layers, B) in enumerate(SIZES):
        net = network_of(kind, V, D, H, layers, dtype)
        state = draw_state(net[1], B) if i % 2 else None
        fastrnn.set_num_threads((1, 2, 5)[i])
        for options in ({}, {"temperature": 0.0}, {"top_k": 9, "top_p": 0.95, "stop": [0, 2]}):
            ended += assert_each_is_alone(fastrnn, net, ragged(V, B), 12, state, **options)
    assert len(set(ended)) > 1  # some have stopped before the others


@each_dtype
@pytest.mark.quick
def test_threads_and_instruction_sets_make_no_difference(dtype: Any) -> None:
    net = network(100, 32, 65, dtype)
    prompts = ragged(100, 23, 40)
    results = {}
    for isa in PROMISED:
        fastrnn.set_isa(isa)
        for threads in (1, 2, 3, 7, 23, 30):
            with fastrnn.num_threads(threads):
                results[isa, threads] = fastrnn.generate(*net, prompts, 50, stop=[0, 1], rng=5)
    want, state = next(iter(results.values()))
    for setting, (got, after) in results.items():
        assert [a.tolist() for a in got] == [a.tolist() for a in want], setting
        assert_same(after, state, f"state of {setting}")


@each_name
def test_the_reference_too(kind: str) -> None:
    net = network_of(kind, 17, 4, 9, 2, np.float64)
    prompts, state = ragged(17, 5), draw_state(net[1], 5)
    options: dict[str, Any] = {"top_k": 9, "stop": 3, "rng": 8}
    for before in (None, state):
        assert_each_is_alone(BACKENDS[1], net, prompts, 12, before, top_p=0.9, stop=[3])
        want, after = BACKENDS[1].generate(*net, prompts, 12, before, **options)
        got, final = fastrnn.generate(*net, prompts, 12, before, **options)
        # In float64 no rounding decides between indices of these networks.
        assert [a.tolist() for a in got] == [a.tolist() for a in want]
        for a, b in zip(parts(final), parts(after), strict=True):
            # Sums of up to 20 terms of order one, over 18 steps that are not chaotic.
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


@each_backend
@each_dtype
def test_a_list_of_one_is_the_plain_call(module: ModuleType, dtype: Any) -> None:
    net = network(20, 5, 17, dtype)
    state = np.random.default_rng(1).uniform(-1, 1, (1, 17)).astype(dtype)
    for before in (None, state):
        want = module.generate(*net, [3, 1], 40, before, top_p=0.9, rng=2)
        for prompt in ([[3, 1]], np.array([[3, 1]]), ([3, 1],), [np.array([3, 1], np.uint8)]):
            given = None if before is None else before[:, None]
            (got,), after = module.generate(*net, prompt, 40, given, top_p=0.9, rng=2)
            assert after.shape == (1, 1, 17)
            assert_same_run((got, after[:, 0]), want, prompt)


@each_backend
def test_a_matrix_of_prompts(module: ModuleType) -> None:
    net = network(20, 5, 17)
    prompts = np.random.default_rng(2).integers(0, 20, (4, 3))
    want, state = module.generate(*net, prompts.tolist(), 9, rng=2)
    for given in (prompts, np.asfortranarray(prompts), prompts.astype(">i2"), list(prompts)):
        got, after = module.generate(*net, given, 9, rng=2)
        assert [a.tolist() for a in got] == [a.tolist() for a in want]
        assert_same(after, state, "state")


@each_backend
def test_going_on_is_one_longer_run(module: ModuleType) -> None:
    # One row of numbers after the other is drawn: so it does not matter where a run is cut.
    net = network(20, 5, 17)
    prompts = ragged(20, 4)
    want, final = module.generate(*net, prompts, 30, rng=9)
    rng, state, written = np.random.default_rng(9), None, [[] for _ in prompts]
    now: Any = prompts
    for length in (1, 12, 17):
        indices, state = module.generate(*net, now, length, state, rng=rng)
        for mine, more in zip(written, indices, strict=True):
            mine += more.tolist()
        now = [a[-1:] for a in indices]
    assert written == [a.tolist() for a in want]
    assert_same(state, final, "state")
    assert rng.random() == np.random.default_rng(9).random((31, 4))[30, 0]


@each_backend
def test_length_zero_reads_the_prompts(module: ModuleType) -> None:
    net = network(20, 5, 17)
    prompts = ragged(20, 4)
    indices, state = module.generate(*net, prompts, 0)
    assert [a.shape for a in indices] == [(0,)] * 4
    for b, prompt in enumerate(prompts):
        assert_same(state[:, b], module.generate(*net, prompt, 0)[1], f"sequence {b}")


@each_dtype
@pytest.mark.quick
def test_a_vocabulary_too_large_for_a_table(dtype: Any) -> None:
    # Each thread keeps input projections of its own: one has room for them, five have not.
    net = network(14_000, 2, 100, dtype, scale=1.0)
    prompts = [[7, 13_999, 7, 7], [0], [7, 7, 1], [5, 6], [13_999], [13_999]]
    for threads in (1, 5):
        with fastrnn.num_threads(threads):
            assert_each_is_alone(fastrnn, net, prompts, 5)


# ------------------------------------------------------------------------------- what goes wrong


@each_backend
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_names_its_sequence(module: ModuleType, temperature: float) -> None:
    net = network(20, 5, 17)
    net.embedding.weights["weight"][7] = np.nan
    net.linear.weights["bias"][7] = -np.inf  # it is never drawn
    text = r"not finite in the sequence of prompt\[2\]: there is nothing to choose from"
    prompts = [[1], [2, 3], [4, 5, 6, 7], [7], [1]]  # the fourth is the first to fail
    for threads in (1, 2, 5):
        with fastrnn.num_threads(threads), pytest.raises(ValueError, match=text):
            module.generate(*net, prompts, 30, temperature=temperature, rng=0)
    assert len(module.generate(*net, prompts[:2], 30, temperature=temperature, rng=0)[0]) == 2


V, D, H = 11, 4, 6
RANGE = "expected 0 <= index < embedding.num_embeddings = 11"
f32 = np.float32
BAD = (
    ("prompt", [[1], []], ValueError, "prompt[1] has shape (0,), expected one or more integers"),
    ("prompt", [[]], ValueError, "prompt[0] has shape (0,), expected one or more integers"),
    ("prompt", [], ValueError, "prompt has shape (0,), expected one or more integers"),
    ("prompt", np.zeros((0, 3), int), ValueError, "prompt has shape (0, 3), expected one or"),
    ("prompt", np.zeros((3, 0), int), ValueError, "prompt has shape (3, 0), expected one or"),
    ("prompt", [[1], [2, V]], ValueError, f"prompt[1][1] is 11, {RANGE}"),
    ("prompt", np.array([[1, 2], [3, -1]]), ValueError, f"prompt[1, 1] is -1, {RANGE}"),
    ("prompt", [[1], [2.0]], TypeError, "prompt[1] holds float64, expected one or more integers"),
    ("prompt", [[1], [[2, 3]]], ValueError, "prompt[1] has shape (1, 2), expected one or more"),
    ("prompt", ["ab", "c"], TypeError, "prompt holds <U2, expected one or more integers"),
    ("prompt", np.ones((2, 3)), TypeError, "prompt holds float64, expected one or more integers"),
    ("state", np.zeros((1, H), f32), ValueError,
     "state has shape (1, 6), expected (1, B, H) = (1, 2, 6)"),
    ("state", np.zeros((1, 3, H), f32), ValueError,
     "state has shape (1, 3, 6), expected (1, B, H) = (1, 2, 6)"),
    ("state", np.zeros((1, 2, H)), TypeError, "state is float64, the network is float32"),
    ("state", [np.zeros((1, H), f32)] * 2, TypeError, "state is a list, expected"),
    ("length", 2**62, ValueError, f"an array of length x B = {2**62} x 2 elements is larger than"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error", "text"), BAD, ids=str)
def test_bad_values(name: str, value: Any, error: type, text: str) -> None:
    net, texts = network(V, D, H), []
    for module in BACKENDS:
        rng = np.random.default_rng(0)
        with pytest.raises(error) as caught:
            module.generate(**{
                **net._asdict(), "prompt": [[1, 2], [3]], "length": 3, "rng": rng, name: value
            })  # fmt: skip
        texts.append(str(caught.value))
        assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn
    assert text in texts[0], texts[0]
    assert texts[0] == texts[1]


@each_backend
def test_an_lstms_states(module: ModuleType) -> None:
    net = network_of("lstm", 10, 3, 5, 2, np.float32)
    good = np.zeros((2, 3, 5), f32)
    prompts = [[1], [2], [3, 4]]
    assert len(module.generate(*net, prompts, 3, (good, good))[0]) == 3
    for state, error, text in (
        ((good, good[:, :2]), ValueError, r"^state\[1\] has shape \(2, 2, 5\), .*\(2, 3, 5\)"),
        ((good[:, 0], good[:, 0]), ValueError, r"^state\[0\] has shape \(2, 5\), .*\(2, 3, 5\)"),
        (good, TypeError, "^state is an ndarray, expected a pair"),
    ):
        with pytest.raises(error, match=text):
            module.generate(*net, prompts, 3, state)


@each_backend
def test_nothing_of_the_callers_changes(module: ModuleType) -> None:
    net = network(20, 5, 17)
    rng = np.random.default_rng(4)
    state = rng.uniform(-1, 1, (1, 3, 17)).astype(np.float32)
    prompts = [rng.integers(0, 20, n) for n in (3, 1, 6)]
    given = [*net.arrays(), state, *prompts]
    before = [a.tobytes() for a in given]
    state.flags.writeable = False
    indices, after = module.generate(*net, prompts, 20, state, stop=[1, 2], rng=1)
    assert [a.tobytes() for a in given] == before
    for result in (*indices, after):
        assert result.flags.writeable
        assert result.flags.owndata
        assert not any(np.shares_memory(result, a) for a in given)


def test_one_that_ends_at_once_and_others_that_go_on() -> None:
    net = constant_network(np.zeros(50), np.float32)
    u = np.random.default_rng(0).random((400, 30))
    u[0, :15] = 0.0  # the first index
    for threads in (1, 2, 5):
        with fastrnn.num_threads(threads):
            got, _ = fastrnn.generate(*net, [[1]] * 30, 400, stop=0, rng=Given(u))
        assert [len(a) for a in got[:15]] == [1] * 15
        assert max(len(a) for a in got[15:]) > 20


# Thread 0, which alone looks for signals, has nothing to do from the first index on.
ENDLESS = """
import os, signal, sys, threading, time
import numpy as np, fastrnn
from fastrnn import _core
_core.swap_team_policy(0, 0)
fastrnn.set_num_threads(int(sys.argv[1]))
options = {"rng": 0}
net = fastrnn.Embedding(10, 3, **options), fastrnn.GRU(3, 64, **options), fastrnn.Linear(64, 10)
net[2].flat_weights[...] = 0
class Numbers(np.random.Generator):
    def random(self, size):
        u = np.full(size, 0.999)
        u[0, :size[1] // 2] = 0.0
        return u
sent = []
def interrupt():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(0.3, interrupt).start()
try:
    fastrnn.generate(*net, [[1]] * 8, 4_000_000, stop=0, rng=Numbers(np.random.PCG64(0)))
except KeyboardInterrupt:
    took = time.monotonic() - sent[0]
    assert len(fastrnn.generate(*net, [[1]] * 8, 9, rng=0)[0]) == 8
    print("interrupted", took)
"""


if os.name == "posix":

    @pytest.mark.parametrize("threads", [1, 2])
    def test_an_endless_run_is_interrupted(threads: int) -> None:
        done = subprocess.run(
            [sys.executable, "-c", ENDLESS, str(threads)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        word, took = done.stdout.split()
        assert word == "interrupted"
        assert float(took) < 1.0
