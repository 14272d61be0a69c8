"""Autoregressive generation in plain NumPy: the specification of `fastrnn.generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

from .. import _checks, _cures
from .arguments import WEIGHT_NAMES, CellSpec, forward_arguments
from .cells import CELLS, forward
from .embedding import embedding_forward
from .linear import linear_arguments, linear_forward

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]
    # The layers are built on the reference, which takes whatever is like them.
    Embedding: TypeAlias = Any
    Linear: TypeAlias = Any
    State = TypeVar("State")

    class Recurrent(Protocol[State]):
        def __call__(self, x: Array, state: State | None = None) -> tuple[Array, State]: ...


# What C cannot choose from: the same words as in _core.pyx.
NOT_FINITE = "the network's output is not finite: there is nothing to choose from"


class Network(NamedTuple):
    """The weights of an embedding, recurrent layers of one kind and an output layer; the state."""

    embedding: Array
    cell: CellSpec
    options: tuple[Any, ...]  # nonlinearity of an RNN, reset_after of a GRU
    layers: list[tuple[Any, ...]]  # the weights of each: w_ih, w_hh, b_ih, b_hh, the extra ones
    w_out: Array
    b_out: Array | None
    h: Array  # (layers, P), to be written to
    c: Array | None  # (layers, H), of an LSTM

    def state(self) -> Any:
        """The state as the layer returns it for one sequence."""
        return self.h if self.c is None else (self.h, self.c)


def generate(
    embedding: Embedding,
    rnn: Recurrent[State],
    linear: Linear,
    prompt: ArrayLike,
    length: int,
    state: State | None = None,
    *,
    temperature: float = 1.0,
    rng: Any = None,
) -> tuple[Array, State]:
    """Generate indices, in plain NumPy: see `fastrnn.generate`.

    Each index is fed to the network, which gives the logits x of the next one. That is drawn from
    softmax(x / temperature), by one uniform number u an index: the first whose running sum of
    probabilities exceeds u. At temperature 0 it is the one with the largest logit.

    Examples
    --------
    >>> import fastrnn
    >>> embedding, head = fastrnn.Embedding(5, 3, rng=0), fastrnn.Linear(4, 5, rng=1)
    >>> rnn = fastrnn.RNN(3, 4, rng=2)
    >>> indices, state = fastrnn.reference.generate(embedding, rnn, head, [1, 2], 6, rng=3)
    >>> len(indices), state.shape
    (6, (1, 4))
    """
    network, prompt, uniform, temperature = generate_arguments(
        embedding, rnn, linear, prompt, length, state, temperature, rng
    )
    indices = np.empty(len(uniform), np.int64)
    for index in prompt:
        top = _feed(network, index)
    for n, u in enumerate(uniform):
        if n > 0:
            top = _feed(network, indices[n - 1])
        logits, _ = linear_forward(top, network.w_out, network.b_out, record=False)
        indices[n] = _choose(logits.astype(np.float64), temperature, u)
    return indices, network.state()


def _feed(network: Network, index: Any) -> Any:
    """One step of every layer; the last one's output (P,)."""
    h, c = network.h, network.c
    x, _ = embedding_forward([index], network.embedding, record=False)
    for k, weights in enumerate(network.layers):
        arrays = (x, h[k], None if c is None else c[k], *weights)
        x, h[k], c_n, _ = forward(network.cell, arrays, network.options, record=False)
        if c is not None:
            c[k] = c_n
    return x[0]


def _choose(logits: Array, temperature: float, u: float) -> int:
    if np.isnan(logits).any():
        raise ValueError(NOT_FINITE)
    if temperature == 0:
        return int(logits.argmax())
    with np.errstate(all="ignore"):
        running = np.cumsum(np.exp((logits - logits.max()) / temperature))
    if np.isnan(running[-1]):
        raise ValueError(NOT_FINITE)
    return int(np.searchsorted(running, u * running[-1], side="right"))


def generate_arguments(
    embedding: Any,
    rnn: Any,
    linear: Any,
    prompt: Any,
    length: Any,
    state: Any,
    temperature: Any,
    rng: Any,
) -> tuple[Network, Array, Array, float]:
    """Check the arguments of generate.

    Returns
    -------
    tuple
        The network, the prompt (int64), one uniform number for every index, and the temperature,
        within what the dtype can hold.
    """
    recurrent = {module.CELL.layer: module.CELL for module in CELLS.values()}
    kinds = {
        "embedding": (embedding, ("Embedding",)),
        "rnn": (rnn, tuple(recurrent)),
        "linear": (linear, ("Linear",)),
    }
    for name, (layer, allowed) in kinds.items():
        if _kind(layer) not in allowed:
            expected = " or ".join(f"fastrnn.{one}" for one in allowed)
            given = _cures.kind(layer)
            if type(layer).__name__ in allowed:  # another library's
                given += f" of {type(layer).__module__}"
            raise TypeError(f"{name} is {given}, expected {_cures.an(expected)}")
        if layer.dtype != embedding.dtype:
            raise TypeError(
                f"{name} is {layer.dtype}, embedding is {embedding.dtype}: make them with one dtype"
            )
    if rnn.bidirectional or rnn.reverse:
        way = "runs in reverse" if rnn.reverse else "is bidirectional"
        raise ValueError(f"rnn {way}: it would have to read what is not written yet")
    projected = bool(getattr(rnn, "proj_size", 0))
    units = rnn.proj_size if projected else rnn.hidden_size
    units_name = "rnn.proj_size" if projected else "rnn.hidden_size"
    cell = recurrent[str(_kind(rnn))]
    features, features_name = rnn.input_size, "rnn.input_size"
    if features is None:  # the embedding's vectors are pre-activations
        features = cell.gates * rnn.hidden_size
        times = "" if cell.gates == 1 else f"{cell.gates} * "
        features_name = f"{times}rnn.hidden_size (rnn.input_size is None)"
    for name, size, wanted, of in (
        (features_name, features, embedding.embedding_dim, "embedding.embedding_dim"),
        ("linear.in_features", linear.in_features, units, units_name),
        (
            "linear.out_features", linear.out_features, embedding.num_embeddings,
            "embedding.num_embeddings",
        ),
    ):  # fmt: skip
        if size != wanted:
            raise ValueError(f"{name} is {size}, expected {of} = {wanted}")
    count = embedding.num_embeddings
    prompt = _checks.integers("prompt", prompt, "one or more integers", count)
    if prompt.ndim != 1 or not len(prompt):
        flat = prompt.size > 0 and prompt.size == max(prompt.shape, default=1)
        cure = ": pass np.ravel(prompt)" if flat else ""
        raise ValueError(f"prompt has shape {prompt.shape}, expected one or more integers{cure}")
    _checks.in_range("prompt", prompt, embedding.num_embeddings, "embedding.num_embeddings")
    length = _checks.size("length", length, 0)
    _checks.elements(length=length)
    dtype = embedding.dtype
    stack = _weights(rnn, cell)
    c = None
    if "c" in cell.states:
        h = None
        if state is not None:
            rest = "" if projected else "np.zeros_like({})"
            h, c = _checks.state_pair("state", state, rest, 2)
        h = _state("state[0]", h, dtype, len(stack), units, "P" if projected else "H")
        c = _state("state[1]", c, dtype, len(stack), rnn.hidden_size, "H")
    else:
        h = _state("state", state, dtype, len(stack), units, "H")
    temperature = _checks.bounded("temperature", temperature)
    if temperature > 0:
        info = np.finfo(dtype)
        temperature = float(np.clip(temperature, float(info.tiny), float(info.max)))
    # An array of its own, whatever a generator of somebody's own returns.
    uniform = np.array(_checks.generator("rng", rng).random(length), np.float64)
    if uniform.shape != (length,):
        raise ValueError(f"rng gave numbers of the shape {uniform.shape}, expected {(length,)}")

    # The arrays are what the kernel reads: their shapes count, whatever the attributes say.
    below = features
    for k, own in enumerate(stack):
        x, c_0 = np.zeros((1, 1, below), dtype), None if c is None else c[k : k + 1]
        stack[k] = forward_arguments(cell, (x, h[k : k + 1], c_0, *own)).arrays[3:]
        below = units
    head = linear.weights
    _, w_out, b_out = linear_arguments(h, head["weight"], head.get("bias"))
    table = _checks.array("embedding", embedding.weights["weight"], dtype, "the network")
    for name, a, rows in (("embedding", table, features), ("linear", w_out, units)):
        _checks.shape(name, a.shape, ("V", "n"), {"V": embedding.num_embeddings, "n": rows})
    _checks.in_range("prompt", prompt, len(table), "embedding.num_embeddings")
    options = tuple(getattr(rnn, name) for name in cell.options)
    network = Network(_checks.contiguous(table), cell, options, stack, w_out, b_out, h, c)
    return network, prompt, uniform, temperature


def _kind(layer: Any) -> str | None:
    """Which of the package's layers this is: the class's name, or that of one it derives from."""
    package = __name__.partition(".")[0]
    ours = (c for c in type(layer).__mro__ if c.__module__.partition(".")[0] == package)
    return next((c.__name__ for c in ours), None)


def _weights(rnn: Any, cell: CellSpec) -> list[tuple[Any, ...]]:
    """The weights of each layer in one direction, as functions take them."""
    get = rnn.weights.get
    count = sum(name.startswith("weight_hh_l") for name in rnn.weights)
    return [
        (
            *(get(f"{name}_l{k}") for name in WEIGHT_NAMES.values()),
            tuple(get(f"{extra.on_layers}_l{k}") for extra in cell.extras),
        )
        for k in range(count)
    ]


def _state(name: str, given: Any, dtype: Any, count: int, units: int, letter: str) -> Array:
    """A copy of the state of so many layers; zeros for None."""
    state = np.zeros((count, units), dtype)
    if given is not None:
        given = _checks.array(name, given, dtype, "the network")
        _checks.shape(name, given.shape, (str(count), letter), {str(count): count, letter: units})
        state[...] = given
    return state
