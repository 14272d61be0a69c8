"""Autoregressive generation: a network that reads its own output, step by step, all in C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import _core, reference
from .cells import CELLS
from .config import current_backend
from .reference.generation import generate_arguments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .layers import Embedding, Linear, Recurrent

    Array = NDArray[Any]
    State = TypeVar("State")


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
    """Generate indices autoregressively: one-to-many.

    The network reads the prompt; then each index that it generates is what it reads next.

    Parameters
    ----------
    embedding : Embedding
    rnn : RNN, LSTM, GRU or LeakyRNN
        Of any number of layers, in one direction.
    linear : Linear
        As many features as the embedding has vectors. The dtype of all three is one.
    prompt : integer sequence
        One or more indices.
    length : int
        How many indices to write.
    state : ndarray or pair of ndarray, optional
        The state before the prompt, as the layer returns it for one sequence: (layers, H), for an
        LSTM the pair of h and c. None: zeros.
    temperature : float
        Indices are drawn from softmax(logits / temperature). Below 1 the probable ones come more
        often; at 0 only the most probable one does, the first of several.
    rng : optional
        Anything that `numpy.random.default_rng` takes; one float64 is drawn from it for an index.

    Returns
    -------
    indices : ndarray
        (length,) of int64: what was written, without the prompt.
    state : ndarray or pair of ndarray
        The state after all but the last of the indices was read. To go on, pass it with
        ``indices[-1:]`` as the prompt.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the network's output is NaN, or infinite where it is drawn
        from.

    See Also
    --------
    fastrnn.reference.generate : the same in plain NumPy.

    Examples
    --------
    >>> import fastrnn
    >>> embedding, head = fastrnn.Embedding(5, 3, rng=0), fastrnn.Linear(4, 5, rng=1)
    >>> rnn = fastrnn.RNN(3, 4, rng=2)
    >>> indices, state = fastrnn.generate(embedding, rnn, head, [1, 2], 6, rng=3)
    >>> len(indices), state.shape
    (6, (1, 4))
    """
    if current_backend.get() == "reference":
        return reference.generate(
            embedding, rnn, linear, prompt, length, state, temperature=temperature, rng=rng
        )
    network, prompt, uniform, temperature = generate_arguments(
        embedding, rnn, linear, prompt, length, state, temperature, rng
    )
    (kernel, _), c = CELLS[network.cell.name].kernel(network.options), network.c
    layers = tuple(
        (kernel, weights, network.h[k], None if c is None else c[k])
        for k, weights in enumerate(network.layers)
    )
    indices = np.empty(len(uniform), np.int64)
    _core.generate(
        network.embedding, layers, network.w_out, network.b_out, prompt,
        uniform if temperature > 0 else None, temperature, indices,
    )  # fmt: skip
    return indices, network.state()
