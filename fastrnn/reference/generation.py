"""Writing on, in plain NumPy: the specification of `fastrnn.generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks
from .embedding import embedding_forward
from .linear import linear_arguments, linear_forward
from .rnn import rnn_forward

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ..embedding import Embedding
    from ..layers import RNN
    from ..linear import Linear

    Array = NDArray[Any]


# What C cannot choose from: the same words as in _core.pyx.
NOT_FINITE = "the network's output is not finite: there is nothing to choose from"


class Network(NamedTuple):
    """The weights of an embedding, a layer and an output layer."""

    embedding: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    w_out: Array
    b_out: Array | None
    nonlinearity: str


def generate(
    embedding: Embedding,
    rnn: RNN,
    linear: Linear,
    prompt: ArrayLike,
    length: int,
    state: Array | None = None,
    *,
    temperature: float = 1.0,
    rng: Any = None,
) -> tuple[Array, Array]:
    """Let a network write on, in plain NumPy: see `fastrnn.generate`.

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
    w, prompt, h, uniform, temperature = generate_arguments(
        embedding, rnn, linear, prompt, length, state, temperature, rng
    )
    indices = np.empty(len(uniform), np.int64)

    def feed(index: Any, h: Array) -> Array:
        x, _ = embedding_forward(index, w.embedding, record=False)
        return rnn_forward(
            x[None, None], h, w.w_ih, w.w_hh, w.b_ih, w.b_hh,
            nonlinearity=w.nonlinearity, record=False,
        )[1]  # fmt: skip

    for index in prompt:
        h = feed(index, h)
    for n, u in enumerate(uniform):
        if n > 0:
            h = feed(indices[n - 1], h)
        logits, _ = linear_forward(h, w.w_out, w.b_out, record=False)
        indices[n] = _choose(logits.astype(np.float64), temperature, u)
    return indices, h


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
) -> tuple[Network, Array, Array, Array, float]:
    """Check the arguments of generate.

    Returns
    -------
    tuple
        The weights, the prompt (int64), the state (1, H) to be written to, one uniform number for
        every index, and the temperature, within what the dtype can hold.
    """
    from ..embedding import Embedding  # not above: they are built on the reference
    from ..layers import RNN
    from ..linear import Linear

    kinds: dict[str, tuple[Any, Any]] = {
        "embedding": (embedding, Embedding),
        "rnn": (rnn, RNN),
        "linear": (linear, Linear),
    }
    for name, (layer, kind) in kinds.items():
        if not isinstance(layer, kind):
            given = type(layer).__name__
            raise TypeError(f"{name} is a {given}, expected a fastrnn.{kind.__name__}")
        if layer.dtype != embedding.dtype:
            raise TypeError(f"{name} is {layer.dtype}, embedding is {embedding.dtype}")
    for name, size, wanted, of in (
        ("rnn.input_size", rnn.input_size, embedding.embedding_dim, "embedding.embedding_dim"),
        ("linear.in_features", linear.in_features, rnn.hidden_size, "rnn.hidden_size"),
        (
            "linear.out_features", linear.out_features, embedding.num_embeddings,
            "embedding.num_embeddings",
        ),
    ):  # fmt: skip
        if size != wanted:
            raise ValueError(f"{name} is {size}, expected {of} = {wanted}")
    prompt = _checks.integers("prompt", prompt, "one or more integers")
    if prompt.ndim != 1 or not len(prompt):
        raise ValueError(f"prompt has shape {prompt.shape}, expected one or more integers")
    _checks.in_range("prompt", prompt, embedding.num_embeddings, "embedding.num_embeddings")
    length = _checks.size("length", length, 0)
    _checks.elements(length=length)
    h = np.zeros((1, rnn.hidden_size), embedding.dtype)
    if state is not None:
        state = _checks.array("state", state, embedding.dtype, "the network")
        _checks.shape("state", state.shape, ("1", "H"), {"1": 1, "H": rnn.hidden_size})
        h[...] = state
    temperature = _checks.bounded("temperature", temperature)
    if temperature > 0:
        info = np.finfo(embedding.dtype)
        temperature = float(np.clip(temperature, float(info.tiny), float(info.max)))
    uniform = np.random.default_rng(rng).random(length)

    # The arrays are what the kernel reads: their shapes count, whatever the attributes say.
    w, head = rnn.weights, linear.weights
    arrays = _checks.rnn_arguments(
        np.zeros((1, 1, rnn.input_size), embedding.dtype), h, w["weight_ih_l0"],
        w["weight_hh_l0"], w.get("bias_ih_l0"), w.get("bias_hh_l0"), rnn.nonlinearity, None, None,
    )  # fmt: skip
    _, w_out, b_out = linear_arguments(h, head["weight"], head.get("bias"))
    table = _checks.array("embedding", embedding.weights["weight"], h.dtype, "the network")
    for name, a, rows in (("embedding", table, rnn.input_size), ("linear", w_out, h.shape[1])):
        _checks.shape(name, a.shape, ("V", "n"), {"V": embedding.num_embeddings, "n": rows})
    network = Network(_checks.contiguous(table), *arrays[2:6], w_out, b_out, rnn.nonlinearity)
    return network, prompt, h, uniform, temperature
