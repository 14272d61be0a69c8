"""generate_iter: the indices of generate, one after the other."""

import copy
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from generation_networks import (
    BACKENDS,
    DTYPES,
    ISAS,
    Given,
    assert_same_run,
    each_backend,
    initial,
    network,
    network_of,
)
from grids import grid
from marks import each_last
from registry import FIRST, VARIANTS
from stream_layers import assert_same_state

import fastrnn

TIMEOUT = 120.0  # seconds

each_kind_isa = grid("kind, dtype, isa", VARIANTS, DTYPES, ISAS, once=True, enough=True)


# ------------------------------------------------------------------------------------- the bits


@each_kind_isa
@pytest.mark.quick
def test_the_bits_of_generate(kind: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    for i, (V, D, H, layers) in enumerate(((3, 2, 5, 2), (17, 8, 33, 1), (20, 5, 9, 3))):
        net = network_of(kind, V, D, H, layers, dtype)
        before, prompt = (None, initial(net[1]))[i % 2], [1, 0, 2][: i + 1]
        for options in ({}, {"temperature": 0.0}, {"top_k": 9, "top_p": 0.9, "stop": [0, 2]}):
            want, after = fastrnn.generate(*net, prompt, 12, before, rng=7, **options)
            written = fastrnn.generate_iter(*net, prompt, 12, before, rng=7, **options)
            indices = list(written)
            assert all(type(index) is int for index in indices)
            assert indices == want.tolist()
            assert_same_state(written.state, after, kind)


@each_backend
@each_last
def test_the_state_at_any_time(module: ModuleType, kind: str) -> None:
    net = network_of(kind, 20, 5, 9, 2, np.float32)
    before = initial(net[1])
    written = module.generate_iter(*net, [1, 2, 3], None, before, rng=7)
    assert iter(written) is written
    assert_same_state(written.state, before, "before the first")
    for n, index in enumerate(itertools.islice(written, 15), 1):
        want, after = module.generate(*net, [1, 2, 3], n, before, rng=7)
        assert index == want[-1]
        assert_same_state(written.state, after, f"after {n}")
    mine = written.state  # a copy
    next(written)
    assert_same_state(mine, after, "kept")
    # And it goes on from there.
    more, _ = module.generate(*net, [int(want[-1])], 5, mine, rng=np.random.default_rng(3))
    again = module.generate_iter(*net, want[-1:], 5, mine, rng=np.random.default_rng(3))
    assert list(again) == more.tolist()


@each_backend
def test_where_it_ends(module: ModuleType) -> None:
    net = network(33, 9, 17)
    whole = module.generate(*net, [3], 60, rng=1)[0].tolist()
    for length in (0, 1, 7):
        written = module.generate_iter(*net, [3], length, rng=1)
        assert list(written) == whole[:length]
        assert next(written, None) is None
    stop = whole[30]
    n = whole.index(stop) + 1
    assert list(module.generate_iter(*net, [3], stop=stop, rng=1)) == whole[:n]
    assert list(module.generate_iter(*net, [3], n - 1, stop=stop, rng=1)) == whole[: n - 1]
    endless = module.generate_iter(*net, [3], rng=1)
    assert "no end" in repr(endless)
    assert list(itertools.islice(endless, 60)) == whole
    for index in module.generate_iter(*net, [3], rng=1):
        assert index == whole[0]
        break


@each_backend
def test_a_number_is_drawn_when_an_index_is_asked_for(module: ModuleType) -> None:
    net = network(33, 9, 17)
    for temperature in (0.0, 1.0):
        rng, same = np.random.default_rng(5), np.random.default_rng(5)
        written = module.generate_iter(*net, [3], 40, temperature=temperature, rng=rng)
        for _ in itertools.islice(written, 7):
            pass
        same.random(7)
        assert rng.random() == same.random()


@each_backend
def test_the_weights_are_those_of_the_call(module: ModuleType) -> None:
    net = network(33, 9, 17)
    want = module.generate(*net, [3], 40, rng=1)[0].tolist()
    written = module.generate_iter(*net, [3], rng=1)
    got = [next(written)]
    for weights in net.arrays():
        weights[...] = np.nan
    assert got + list(itertools.islice(written, 39)) == want


def test_the_instruction_set_is_that_of_the_call() -> None:
    net = network(33, 9, 17)
    want = fastrnn.generate(*net, [3], 40, rng=1)[0].tolist()
    written, got = fastrnn.generate_iter(*net, [3], rng=1), []
    for isa, _ in zip(itertools.cycle(ISAS), range(40), strict=False):
        fastrnn.set_isa(isa)
        got.append(next(written))
    assert got == want


@pytest.mark.quick
def test_a_vocabulary_too_large_for_a_table() -> None:
    net = network(140_000, 3, 1, scale=1.0)
    prompt = [7, 139_999, 7, 7, 0]
    want = fastrnn.generate(*net, prompt, 6, rng=3)
    written = fastrnn.generate_iter(*net, prompt, 6, rng=3)
    assert_same_run((np.array(list(written)), written.state), want, "large")


def test_the_backend_of_the_call_decides_who_computes() -> None:
    net = network(50, 8, 33)
    compiled, plain = (m.generate(*net, [1], 300, rng=0) for m in BACKENDS)
    assert compiled[1].tobytes() != plain[1].tobytes()  # else nobody could tell
    with fastrnn.backend("reference"):
        written = fastrnn.generate_iter(*net, [1], 300, rng=0)
    assert_same_run((np.array(list(written)), written.state), plain, "under the reference")
    written = fastrnn.generate_iter(*net, [1], 300, rng=0)
    assert_same_run((np.array(list(written)), written.state), compiled, "compiled")


@each_backend
def test_layers_with_one_bias(module: ModuleType) -> None:
    """One that lacks b_hh is one whose b_hh is zero."""
    for variant in FIRST.values():
        net = network_of(variant.name, 20, 5, 9, 2, np.float32)
        for name in ("bias_hh_l0", "bias_hh_l1"):
            if name in net[1].weights:
                net[1].weights[name][...] = 0
        kept = dict(net[1].weights)
        options: dict[str, Any] = {"top_k": 5, "rng": 2}
        want = module.generate(*net, [1], 40, **options)

        class Single(type(net[1])):  # type: ignore[misc]
            @property
            def weights(self) -> Any:
                return {name: w for name, w in kept.items() if "bias_hh" not in name}  # noqa: B023

            @weights.setter
            def weights(self, value: Any) -> None:
                pass

        single = network_of(variant.name, 20, 5, 9, 2, np.float32)[1]
        object.__setattr__(single, "__class__", Single)
        got = module.generate(net[0], single, net[2], [1], 40, **options)
        assert got[0].tolist() == want[0].tolist()
        assert_same_state(got[1], want[1], variant.name)
        assert list(module.generate_iter(net[0], single, net[2], [1], 40, **options)) == (
            want[0].tolist()
        )


# ------------------------------------------------------------------------------- what goes wrong


@each_backend
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_leaves_it_as_it_was(module: ModuleType, temperature: float) -> None:
    net = network(20, 5, 17)
    net.linear.weights["bias"][7] = -np.inf
    before = np.random.default_rng(1).uniform(-1, 1, (1, 17)).astype(np.float32)
    net.embedding.weights["weight"][7] = np.nan
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    written = module.generate_iter(*net, [1, 7], 9, before, temperature=temperature, rng=rng)
    for _ in range(2):
        with pytest.raises(ValueError, match="output is not finite: there is nothing to choose"):
            next(written)
        assert_same_state(written.state, before, "as it was")
    same.random()  # one number, for the index that is still to come
    assert rng.random() == same.random()


@each_backend
def test_bad_values(module: ModuleType) -> None:
    net = network(11, 4, 6)
    for change, error, text in (
        ({"prompt": [[1], [2]]}, ValueError, r"^prompt has 2 sequences, expected one: make an it"),
        ({"prompt": [[1]]}, ValueError, r"^prompt has 1 sequence, expected one: make an iterator"),
        ({"prompt": [11]}, ValueError, r"^prompt\[0\] is 11, expected 0 <= index < "),
        ({"prompt": []}, ValueError, r"^prompt has shape \(0,\), expected one or more integers"),
        ({"length": -1}, ValueError, "^length is -1, expected at least 0"),
        ({"length": 3.0}, TypeError, "^length is 3.0, expected an integer"),
        ({"state": np.zeros((1, 1, 6), np.float32)}, ValueError, r"^state has shape \(1, 1, 6\)"),
        ({"rng": "seed"}, TypeError, "^rng is 'seed'"),
        ({"temperature": -1}, ValueError, "^temperature is -1"),
        ({"rnn": None}, TypeError, "^rnn is None"),
    ):
        with pytest.raises(error, match=text):
            module.generate_iter(**{**net._asdict(), "prompt": [1], **change})  # type: ignore[dict-item]


@each_backend
def test_it_cannot_be_copied(module: ModuleType) -> None:
    written = module.generate_iter(*network(11, 4, 6), [1])
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled: make another from its"):
            way(written)


def test_a_second_thread_is_told() -> None:
    """The first one is held where it draws its number; then both in the same step."""
    net = network(100, 64, 1024)  # a step is long enough to let go of the interpreter's lock
    written = fastrnn.generate_iter(*net, np.zeros(3000, int), rng=0)
    told: list[str] = []

    def work() -> None:
        try:
            next(written)
        except RuntimeError as error:
            told.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["this iterator is in use by another thread: give each thread one of its own"]
    assert type(next(written)) is int


# A prompt of many minutes; and after it an iterator that is as before.
ENDLESS = """
import itertools, os, signal, threading, time
import numpy as np, fastrnn
net = fastrnn.Embedding(9, 64, rng=0), fastrnn.GRU(64, 512, rng=0), fastrnn.Linear(512, 9, rng=0)
prompt = np.zeros(50_000_000, np.uint8)
state = np.full((1, 512), 0.5, np.float32)
written = fastrnn.generate_iter(*net, prompt, 9, state, rng=0)
sent = []
def interrupt():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(0.3, interrupt).start()
try:
    next(written)
except KeyboardInterrupt:
    took = time.monotonic() - sent[0]
    assert (written.state == state).all()
    print("interrupted", took)
written, got = fastrnn.generate_iter(*net, [1], rng=0), []
want = fastrnn.generate(*net, [1], 3000, rng=0)[0].tolist()
threading.Timer(0.02, interrupt).start()
caught = 0
while len(got) < 3000:
    try:
        got.extend(itertools.islice(written, 3000 - len(got)))
    except KeyboardInterrupt:
        caught += 1
assert got == want
print("again", caught)
"""


if os.name == "posix":

    def test_ctrl_c() -> None:
        done = subprocess.run(
            [sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        assert first.startswith("interrupted")
        assert float(first.split()[1]) < 1.0
        assert second == "again 1"

    def test_a_handler_of_signals_that_takes_the_rest() -> None:
        """list asks without any Python in between: the handler runs inside of a request."""
        written, rest = fastrnn.generate_iter(*network(5, 2, 3), [1], 300_000, rng=0), []
        before = signal.signal(signal.SIGALRM, lambda *_: rest.extend(written))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            got = list(itertools.islice(written, 400_000))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert rest
        assert len(got) + len(rest) == 300_000


@each_backend
def test_a_generator_of_somebodys_own(module: ModuleType) -> None:
    net = network(11, 4, 6)
    u = np.random.default_rng(0).random(9)
    want = module.generate(*net, [1], 9, rng=Given(u))[0].tolist()
    assert list(module.generate_iter(*net, [1], 9, rng=Given(u))) == want
