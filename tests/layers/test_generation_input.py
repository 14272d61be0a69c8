"""Generation: bad input, NaN, what is left as it was, and other threads and signals meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import grids
import numpy as np
import pytest
from generation_networks import (
    BACKENDS,
    DTYPES,
    Case,
    assert_same_run,
    by_hand,
    constant_network,
    each,
    each_backend,
    each_dtype,
    network,
)

import fastrnn
from fastrnn import reference

NOT_FINITE = "the network's output is not finite: there is nothing to choose from"
TIMEOUT = 120.0  # seconds


# ------------------------------------------------------------------------------- NaN and infinity


def refused(error: type, text: str, *arguments: Any, **options: Any) -> None:
    """Both backends raise this error with one text, which holds `text`; nothing is drawn of rng."""
    texts = []
    for module in BACKENDS:
        with pytest.raises(error) as caught:
            module.generate(*arguments, **options)
        assert type(caught.value) is error
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert text in texts[0], texts[0]


@each
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_nan_is_refused(dtype: Any, isa: str, temperature: float, nonlinearity: str) -> None:
    fastrnn.set_isa(isa)
    net = network(20, 5, 17, dtype, nonlinearity=nonlinearity)
    for layer in net:
        for view in layer.weights.values():
            kept = view.copy()
            view[...] = np.nan
            refused(ValueError, NOT_FINITE, *net, [1], 5, temperature=temperature, rng=0)
            view[...] = kept
    state = np.full((1, 17), np.nan, dtype)
    refused(ValueError, NOT_FINITE, *net, [1], 5, state, temperature=temperature, rng=0)
    # The library is as before.
    case = Case(net, np.array([1]), 5, None, temperature, 0)
    assert_same_run(case.run(fastrnn), by_hand(*case), "the run after it")


@each
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_nan_anywhere_among_the_logits(dtype: Any, isa: str, temperature: float) -> None:
    fastrnn.set_isa(isa)
    for V in (1, 15, 16, 17, 33, 100):
        for j in range(0, V, 1 if V < 100 or grids.whole else 11):
            logits = np.linspace(-1.0, 1.0, V)
            logits[j] = np.nan
            net = constant_network(logits, dtype)
            with pytest.raises(ValueError, match=NOT_FINITE):
                fastrnn.generate(*net, [0], 3, temperature=temperature, rng=0)


@each_dtype
@each_backend
def test_nan_that_nobody_reads_does_no_harm(module: ModuleType, dtype: Any) -> None:
    net = network(20, 5, 17, dtype)
    net.linear.weights["bias"][7] = -np.inf
    want = module.generate(*net, [1], 50, rng=0)
    assert 7 not in want[0]
    net.embedding.weights["weight"][7] = np.nan
    assert_same_run(module.generate(*net, [1], 50, rng=0), want, "a vector that is not read")
    # Read in the middle of a run it is refused; where nothing is chosen there is nothing to refuse.
    with pytest.raises(ValueError, match=NOT_FINITE):
        module.generate(*net, [1, 7, 1], 2, rng=0)
    indices, state = module.generate(*net, [1, 7, 1], 0, rng=0)
    assert not len(indices)
    assert np.isnan(state).all()


@each
def test_infinite_logits(dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    inf = np.inf
    for V in (3, 17, 40):
        # What has no probability is never drawn, be it the first or the last.
        logits = np.full(V, -inf)
        logits[[1, V - 2]] = 0.5
        net = constant_network(logits, dtype)
        for temperature in (1e-300, 1.0, 1e300):
            indices, _ = fastrnn.generate(*net, [0], 100, temperature=temperature, rng=0)
            assert set(indices) == {1, V - 2}
            same, _ = reference.generate(*net, [0], 100, temperature=temperature, rng=0)
            assert indices.tolist() == same.tolist()
        for module in BACKENDS:
            assert set(module.generate(*net, [0], 5, temperature=0)[0]) == {1}

        # inf - inf is NaN: of several infinite ones, or none but negative ones, nothing is drawn.
        for logits in ([0.0] * (V - 1) + [inf], [-inf] * V, [inf] * V, [inf] + [-inf] * (V - 1)):
            net = constant_network(logits, dtype)
            for temperature in (1e-300, 1.0):
                refused(ValueError, NOT_FINITE, *net, [0], 5, temperature=temperature, rng=0)
            for module in BACKENDS:
                indices, _ = module.generate(*net, [0], 5, temperature=0)
                assert set(indices) == {int(np.argmax(logits))}


@each
def test_logits_as_large_as_the_type_holds(dtype: Any, isa: str) -> None:
    # Their differences overflow: the smaller ones have no probability then.
    fastrnn.set_isa(isa)
    most = np.finfo(dtype).max
    net = constant_network([-most, most, 0.0, most], dtype)
    for module in BACKENDS:
        for temperature in (1e-300, 1.0, 0.5):
            indices, _ = module.generate(*net, [0], 60, temperature=temperature, rng=0)
            assert set(indices) == {1, 3}


# ------------------------------------------------------------------------------------- bad input


V, D, H = 11, 4, 6


def arguments(**changes: Any) -> dict[str, Any]:
    net = network(V, D, H)
    return {
        **net._asdict(), "prompt": [1, 2], "length": 3, "state": None, "temperature": 1.0, "rng": 0,
    } | changes  # fmt: skip


@each_backend
def test_the_arguments_of_the_tests_below_are_right(module: ModuleType) -> None:
    assert len(module.generate(**arguments())[0]) == 3
    assert len(module.generate(**arguments(state=np.zeros((1, H), np.float32)))[0]) == 3


BAD_LAYERS = (
    ("embedding", None, "embedding is None, expected a fastrnn.Embedding"),
    ("embedding", np.zeros((V, D)), "embedding is an ndarray, expected a fastrnn.Embedding"),
    ("embedding", fastrnn.RNN(D, H), "embedding is an RNN, expected a fastrnn.Embedding"),
    (
        "embedding",
        fastrnn.Embedding,
        "embedding is the class Embedding, expected a fastrnn.E",
    ),
    ("rnn", None, "rnn is None, expected a fastrnn.RNN"),
    ("rnn", fastrnn.Linear(D, H), "rnn is a Linear, expected a fastrnn.RNN"),
    ("linear", "linear", "linear is a str, expected a fastrnn.Linear"),
    ("linear", fastrnn.Embedding(V, H), "linear is an Embedding, expected a fastrnn.Linear"),
    ("embedding", fastrnn.Embedding(V, D, dtype="float64"), "rnn is float32, embedding is float64"),
    ("rnn", fastrnn.RNN(D, H, dtype="float64"), "rnn is float64, embedding is float32"),
    ("linear", fastrnn.Linear(H, V, dtype="float64"), "linear is float64, embedding is float32"),
)
BAD_SIZES = (
    ("embedding", fastrnn.Embedding(V, D + 1),
     "rnn.input_size is 4, expected embedding.embedding_dim = 5"),
    ("embedding", fastrnn.Embedding(V - 1, D),
     "linear.out_features is 11, expected embedding.num_embeddings = 10"),
    ("rnn", fastrnn.RNN(D + 1, H), "rnn.input_size is 5, expected embedding.embedding_dim = 4"),
    ("rnn", fastrnn.RNN(D, H + 1), "linear.in_features is 6, expected rnn.hidden_size = 7"),
    ("linear", fastrnn.Linear(H + 1, V), "linear.in_features is 7, expected rnn.hidden_size = 6"),
    ("linear", fastrnn.Linear(H, V + 1),
     "linear.out_features is 12, expected embedding.num_embeddings = 11"),
)  # fmt: skip
ONE_OR_MORE = "expected one or more integers"
RANGE = "expected 0 <= index < embedding.num_embeddings = 11"
BAD_PROMPTS = (
    (ValueError, [], f"prompt has shape (0,), {ONE_OR_MORE}"),
    (ValueError, 5, f"prompt has shape (), {ONE_OR_MORE}"),
    (ValueError, np.ones((1, 2, 1), int), f"prompt has shape (1, 2, 1), {ONE_OR_MORE}"),
    (ValueError, [1, V, 20], f"prompt[1] is 11, {RANGE}"),
    (ValueError, [1, 2, -1], f"prompt[2] is -1, {RANGE}"),
    (ValueError, np.array([1, 2**63], np.uint64), f"prompt holds {2**63}, expected one or more"),
    (ValueError, [1, [2, 3]], f"prompt is ragged or too large, {ONE_OR_MORE}"),
    (TypeError, [1, 2**70], f"prompt holds object, {ONE_OR_MORE}"),
    (TypeError, [1.0, 2.0], f"prompt holds float64, {ONE_OR_MORE}"),
    (TypeError, np.array([1.0]), "pass prompt.astype(np.int64)"),
    (TypeError, [True, False], f"prompt holds bool, {ONE_OR_MORE}"),
    (TypeError, None, f"prompt is None, {ONE_OR_MORE}"),
    (TypeError, "12", "prompt holds <U2, expected"),
    (TypeError, {1, 2}, f"prompt holds object, {ONE_OR_MORE}"),
    (TypeError, np.ma.masked_array([1, 2]), "prompt is a MaskedArray"),
)
BAD_LENGTHS = (
    (ValueError, -1, "length is -1, expected at least 0"),
    (ValueError, 2**63, f"an array of length = {2**63} elements is larger than the address space"),
    (TypeError, 3.0, "length is 3.0, expected an integer"),
    (TypeError, None, "length is None, expected an integer"),
    (TypeError, True, "length is True, expected an integer"),
    (TypeError, "3", "length is '3', expected an integer"),
    (TypeError, [3], "length is [3], expected an integer"),
)
f32 = np.float32
BAD_STATES = (
    (TypeError, [[0.0] * H], "state is a list, expected a numpy.ndarray: pass np.asarray(state"),
    (TypeError, 0.0, "state is a float, expected a numpy.ndarray"),
    (TypeError, np.zeros((1, H)), "state is float64, the network is float32: pass state.astype("),
    (TypeError, np.zeros((1, H), int), "state is int64, the network is float32"),
    (TypeError, np.ma.zeros((1, H), f32), "state is a MaskedArray"),
    (ValueError, np.zeros(H, f32), "state has shape (6,), expected (1, H) = (1, 6)"),
    (ValueError, np.zeros((2, H), f32), "state has shape (2, 6), expected (1, H) = (1, 6)"),
    (ValueError, np.zeros((1, H + 1), f32), "state has shape (1, 7), expected (1, H) = (1, 6)"),
    (ValueError, np.zeros((1, 1, H), f32), "state has shape (1, 1, 6), expected (1, H) = (1, 6)"),
)
BAD_TEMPERATURES = (
    *((ValueError, value, f"temperature is {value!r}, expected a finite number >= 0")
      for value in (-1.0, -1e-300, np.inf, -np.inf, np.nan, np.float32(-1))),
    *((TypeError, value, f"temperature is {value!r}, expected a number")
      for value in ("1", None, True, 1j, [1.0], ())),
    (TypeError, np.zeros(2), "temperature is an ndarray of shape (2,), expected a number"),
    (TypeError, 10**400, "temperature is an int, expected a number"),
)  # fmt: skip
BAD_RNGS = ((TypeError, "seed"), (TypeError, 1.5), (ValueError, -1), (TypeError, object()))


@pytest.mark.parametrize(("name", "value", "text"), BAD_LAYERS)
def test_bad_layers(name: str, value: Any, text: str) -> None:
    refused(TypeError, text, **arguments(**{name: value}))


@pytest.mark.parametrize(("name", "value", "text"), BAD_SIZES)
def test_layers_that_do_not_fit_each_other(name: str, value: Any, text: str) -> None:
    refused(ValueError, text, **arguments(**{name: value}))


@pytest.mark.parametrize(
    ("name", "error", "value", "text"),
    [
        *(("prompt", *bad) for bad in BAD_PROMPTS),
        *(("length", *bad) for bad in BAD_LENGTHS),
        *(("state", *bad) for bad in BAD_STATES),
        *(("temperature", *bad) for bad in BAD_TEMPERATURES),
        *(("rng", *bad, "") for bad in BAD_RNGS),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_bad_values(name: str, error: type, value: Any, text: str) -> None:
    rng = np.random.default_rng(0)
    refused(error, text, **arguments(**{"rng": rng, name: value}))
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn


@each_backend
def test_temperature_and_rng_have_names(module: ModuleType) -> None:
    given = arguments()
    positional = [given[name] for name in ("embedding", "rnn", "linear", "prompt", "length")]
    with pytest.raises(TypeError, match="positional"):
        module.generate(*positional, None, 1.0)


@each_backend
def test_a_length_too_large_for_memory(module: ModuleType) -> None:
    with pytest.raises(MemoryError):
        module.generate(**arguments(length=2**55))
    assert len(module.generate(**arguments())[0]) == 3


@each_backend
def test_any_integer_sequence_is_a_prompt(module: ModuleType) -> None:
    want = module.generate(**arguments(prompt=[1, 0, 3]))
    for prompt in (
        (1, 0, 3), np.array([1, 0, 3], np.uint8), np.array([1, 0, 3], ">i2"),
        np.array([1, 9, 0, 9, 3])[::2], np.array([1, 0, 3], np.uint64), [np.int32(1), 0, 3],
    ):  # fmt: skip
        assert_same_run(module.generate(**arguments(prompt=prompt)), want, repr(prompt))
    assert_same_run(
        module.generate(**arguments(length=np.int8(3))), module.generate(**arguments()), "length"
    )


# ------------------------------------------------------------------------- what it leaves as it is


@each_dtype
@each_backend
def test_nothing_of_the_callers_changes(module: ModuleType, dtype: Any) -> None:
    net = network(20, 5, 17, dtype)
    rng = np.random.default_rng(4)
    state, prompt = rng.uniform(-1, 1, (1, 17)).astype(dtype), rng.integers(0, 20, 6)
    given = [*net.arrays(), state, prompt]
    before = [a.tobytes() for a in given]
    for a in (state, prompt):
        a.flags.writeable = False
    indices, after = module.generate(*net, prompt, 20, state, rng=1)
    net.linear.weights["bias"][0] = np.nan
    before[2] = net.linear.flat_weights.tobytes()
    with pytest.raises(ValueError, match=NOT_FINITE):
        module.generate(*net, prompt, 20, state, rng=1)
    assert [a.tobytes() for a in given] == before
    for result in (indices, after):
        assert result.flags.writeable
        assert result.flags.owndata
        assert not any(np.shares_memory(result, a) for a in given)


def test_the_backend_decides_who_computes() -> None:
    net = network(50, 8, 33)
    compiled, plain = (m.generate(*net, [1], 300, rng=0) for m in BACKENDS)
    assert compiled[1].tobytes() != plain[1].tobytes()  # else nobody could tell
    with fastrnn.backend("reference"):
        assert_same_run(fastrnn.generate(*net, [1], 300, rng=0), plain, "under the reference")
    assert_same_run(fastrnn.generate(*net, [1], 300, rng=0), compiled, "compiled again")


# --------------------------------------------------------------------------- threads and signals

# Some tens of microseconds a step: this many steps take a quarter of a second or more.
LONG = {"V": 100, "D": 64, "H": 512}
STEPS = 20_000


def test_several_callers_at_once() -> None:
    runs = [Case(network(V, 5, H, dtype, seed=V), np.array([1]), 1500, None, 1.0, V)
            for V, H in ((20, 33), (100, 64)) for dtype in DTYPES]  # fmt: skip
    want = [case.run(fastrnn) for case in runs]

    def work(i: int) -> None:
        for k in np.random.default_rng(i).permutation(len(runs)):
            assert_same_run(runs[k].run(fastrnn), want[k], k)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4), timeout=TIMEOUT))


def test_other_threads_run_meanwhile() -> None:
    # One that needs the interpreter wakes every millisecond, if it gets it.
    net = network(**LONG)
    took: list[float] = []

    def work() -> None:
        begin = time.perf_counter()
        fastrnn.generate(*net, [0], STEPS, rng=0)
        took.append(time.perf_counter() - begin)

    thread = threading.Thread(target=work)
    thread.start()
    woken = 0
    while thread.is_alive():
        time.sleep(0.001)
        woken += 1
    thread.join()
    # Held throughout, it would be two or three times.
    assert woken > 10 + 20 * took[0], f"{woken} times in {took[0]:.3f} s"


# Each takes many minutes: a great many steps, or steps that take milliseconds by themselves.
ENDLESS = """
import os, signal, sys, threading, time
import fastrnn
def network(V, D, H, dtype="float32"):
    options = {"dtype": dtype, "rng": 0}
    layers = (fastrnn.Embedding, V, D), (fastrnn.RNN, D, H), (fastrnn.Linear, H, V)
    return [layer(*sizes, **options) for layer, *sizes in layers]
H, length = int(sys.argv[1]), int(sys.argv[2])
net, small = network(10, 3, H, sys.argv[3]), network(3, 2, 4)
want = fastrnn.generate(*small, [0], 9, rng=0)[0].tolist()
fastrnn.generate(*net, [0], 2, rng=0)
sent = []
def interrupt():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(0.3, interrupt).start()
try:
    fastrnn.generate(*net, [0], length, rng=0)
except KeyboardInterrupt:
    took = time.monotonic() - sent[0]
    assert fastrnn.generate(*small, [0], 9, rng=0)[0].tolist() == want
    print("interrupted", took)
"""


if os.name == "posix":

    @pytest.mark.parametrize(
        ("H", "length", "dtype"), [(64, 20_000_000, "float32"), (4096, 200_000, "float64")]
    )
    def test_an_endless_run_is_interrupted(H: int, length: int, dtype: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", ENDLESS, str(H), str(length), dtype],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        word, took = done.stdout.split()
        assert word == "interrupted"
        assert float(took) < 1.0

    def test_a_run_looks_for_signals_all_along() -> None:
        # Signals of one kind that nobody looks at merge into one, so that several of them within
        # one call mean that it looked several times. Handlers that return disturb nothing.
        net = network(**LONG)
        want = fastrnn.generate(*net, [0], STEPS, rng=0)
        handled: list[int] = []
        previous = signal.signal(signal.SIGALRM, lambda number, frame: handled.append(number))
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        try:
            got = fastrnn.generate(*net, [0], STEPS, rng=0)
            seen = len(handled)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, previous)
        assert seen >= 2
        assert_same_run(got, want, "a run with signals")
