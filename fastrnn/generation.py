"""Writing on: a network fed with its own output, step by step, without a return to Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, reference
from .config import current_backend
from .functional import NONLINEARITY_CODES
from .reference.generation import generate_arguments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .embedding import Embedding
    from .layers import RNN
    from .linear import Linear

    Array = NDArray[Any]


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
    """Let a network write on: one-to-many.

    The network reads the prompt; then each index that it writes is what it reads next.

    Parameters
    ----------
    embedding, rnn, linear : Embedding, RNN, Linear
        Of one dtype. The output layer has as many features as the embedding has vectors.
    prompt : integer sequence
        One or more indices.
    length : int
        How many indices to write.
    state : ndarray, optional
        (1, H): the state before the prompt, as the layer returns it for one sequence. None: zeros.
    temperature : float
        Indices are drawn from softmax(logits / temperature). Below 1 the probable ones come more
        often; at 0 only the most probable one does, the first of several.
    rng : optional
        Anything that `numpy.random.default_rng` takes; one float64 is drawn from it for an index.

    Returns
    -------
    indices : ndarray
        (length,) of int64: what was written, without the prompt.
    state : ndarray
        (1, H): the state after all but the last of the indices was read. To go on, pass it with
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
    w, prompt, h, uniform, temperature = generate_arguments(
        embedding, rnn, linear, prompt, length, state, temperature, rng
    )
    indices = np.empty(len(uniform), np.int64)
    _core.generate(
        w.embedding, w.w_ih, w.w_hh, w.b_ih, w.b_hh, w.w_out, w.b_out, h, prompt,
        uniform if temperature > 0 else None, temperature, indices,
        NONLINEARITY_CODES[w.nonlinearity],
    )  # fmt: skip
    return indices, h
