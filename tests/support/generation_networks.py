"""Networks for the tests of generate, their runs, and the same runs by hand."""

import itertools
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from stream_layers import draw, make, units

import fastrnn
from fastrnn import _core, reference

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)
BACKENDS = (fastrnn, reference)


def name_of(value: Any) -> str:
    return value.__name__.rpartition(".")[2] if hasattr(value, "__name__") else str(value)


each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
each_backend = pytest.mark.parametrize("module", BACKENDS, ids=name_of)
each = pytest.mark.parametrize(("dtype", "isa"), list(itertools.product(DTYPES, ISAS)), ids=name_of)


class Network(NamedTuple):
    """The first three arguments of generate."""

    embedding: fastrnn.Embedding
    rnn: fastrnn.RNN
    linear: fastrnn.Linear

    def arrays(self) -> list[Array]:
        return [layer.flat_weights for layer in self]


def network(
    V: int, D: int, H: int, dtype: Any = np.float32, *, seed: int = 0, scale: float = 4.0,
    nonlinearity: str = "tanh", bias: bool = True, linear_bias: bool = True,
) -> Network:  # fmt: skip
    """A network whose output layer is scaled up: as drawn, its choices would be nearly uniform."""
    net = Network(
        fastrnn.Embedding(V, D, dtype=dtype, rng=[seed, 1]),
        fastrnn.RNN(D, H, nonlinearity=nonlinearity, bias=bias, dtype=dtype, rng=[seed, 2]),
        fastrnn.Linear(H, V, linear_bias, dtype=dtype, rng=[seed, 3]),
    )
    net.linear.flat_weights[...] *= scale
    return net


def network_of(kind: str, V: int, D: int, H: int, layers: int, dtype: Any, **options: Any) -> Any:
    """A network with layers of a variant, its output layer scaled up."""
    rnn = make(kind, D, H, layers, dtype, **options)
    name = np.dtype(dtype).name
    net = (
        fastrnn.Embedding(V, D, dtype=name, rng=[V, 1]),
        rnn,
        fastrnn.Linear(units(rnn), V, dtype=name, rng=[V, 2]),
    )
    net[2].flat_weights[...] *= 6
    return net


def initial(rnn: Any, seed: int = 4) -> Any:
    """A state of one sequence."""
    h = draw(rnn, rnn.num_layers, units(rnn), seed=seed)
    if not isinstance(rnn, fastrnn.LSTM):
        return h
    return h, draw(rnn, rnn.num_layers, rnn.hidden_size, seed=seed + 1)


def constant_network(logits: Any, dtype: Any = np.float64) -> Network:
    """Whatever it reads, its logits are these."""
    net = network(len(logits), 2, 3, dtype)
    for weights in net.arrays():
        weights[...] = 0
    net.linear.weights["bias"][...] = logits
    return net


# ------------------------------------------------------------------- the functions it is made of


def scaled(logits: Array, temperature: float) -> Array:
    d = logits - logits.max()
    return d if temperature == 1 else d / logits.dtype.type(temperature)


def exponentials(d: Array) -> Array:
    e = np.empty_like(d)
    _core.exp(d, e)
    return e.astype(np.float64)


def sum_of(e: Array) -> float:
    """Sixteen sums of every sixteenth, then those; cumsum adds one after the other, as C does."""
    padded = np.zeros(-(-len(e) // 16) * 16)
    padded[: len(e)] = e
    return float(np.cumsum(np.cumsum(padded.reshape(-1, 16), axis=0)[-1])[-1])


def choose(
    logits: Array,
    temperature: float,
    u: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """The draw of csrc/generate.h and the sum of csrc/losses.h, with the exp of this package."""
    if temperature == 0:
        return int(logits.argmax())
    ranked = sorted(range(len(logits)), key=lambda j: (-logits[j], j))[:top_k]
    left = np.full_like(logits, -np.inf)
    left[ranked] = logits[ranked]
    e = exponentials(scaled(left, temperature))
    whole = sum_of(e)
    if top_p is not None and top_p < 1:
        running = np.cumsum(e[ranked])
        n = 1 + int((running[:-1] < top_p * whole).sum())
        e[np.setdiff1d(np.arange(len(e)), ranked[:n])] = 0
        whole = float(running[n - 1])
    passed = np.flatnonzero(np.cumsum(e) > u * whole)
    return int(passed[0]) if len(passed) else int(np.flatnonzero(e)[-1])


class Given(np.random.Generator):
    """Gives these numbers, in their order, in whatever shape they are asked for."""

    def __new__(cls, numbers: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, numbers: Any) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers, self.used = np.asarray(numbers, np.float64), 0

    def random(self, size: Any = None) -> Any:  # type: ignore[override]
        count = int(np.prod(size)) if size is not None else 1
        drawn = self.numbers.ravel()[self.used : self.used + count]
        assert len(drawn) == count, "more numbers are drawn than there are"
        self.used += count
        return float(drawn[0]) if size is None else drawn.reshape(size)


def by_hand(
    net: Network, prompt: Any, length: int, state: Any, temperature: float, seed: int
) -> tuple[Array, Array]:
    """What generate returns, from calls of the compiled functions.

    On one thread: here every call would have a team, and wait for it where the machine is busy.
    """
    w, out = net.rnn.weights, net.linear.weights
    recurrent = [w.get(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    h = np.zeros((1, net.rnn.hidden_size), net.rnn.dtype) if state is None else state
    uniform = np.random.default_rng(seed).random(length)
    indices = np.empty(length, np.int64)
    read = list(prompt)
    with fastrnn.num_threads(1):
        for step in range(len(prompt) + max(length - 1, 0)):
            x, _ = fastrnn.embedding_forward([[read[step]]], net.embedding.weights["weight"])
            options: dict[str, Any] = {"nonlinearity": net.rnn.nonlinearity, "record": False}
            h = fastrnn.rnn_forward(x, h, *recurrent, **options)[1]
            n = step + 1 - len(prompt)
            if 0 <= n < length:
                logits = fastrnn.linear_forward(h, out["weight"], out.get("bias"))[0][0]
                indices[n] = choose(logits, temperature, uniform[n])
                read.append(int(indices[n]))
    return indices, h


def assert_same_run(got: Any, want: Any, what: Any) -> None:
    assert got[0].dtype == want[0].dtype == np.int64, f"{got[0].dtype} of {what}"
    got_indices, want_indices = got[0].tolist(), want[0].tolist()
    assert got_indices == want_indices, f"indices of {what}: {got_indices}, not {want_indices}"
    assert_same(got[1], want[1], f"state of {what}")


class Case(NamedTuple):
    """A run of a network; `seed` is the rng of the draw."""

    net: Network
    prompt: Array
    length: int
    state: Any
    temperature: float
    seed: int

    def run(self, module: ModuleType) -> tuple[Array, Array]:
        return module.generate(
            *self.net, self.prompt, self.length, self.state,
            temperature=self.temperature, rng=self.seed,
        )  # fmt: skip
