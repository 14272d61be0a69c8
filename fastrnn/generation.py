"""Autoregressive generation: a network that reads its own output, step by step, all in C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

import numpy as np

from . import _core, reference
from .cells import CELLS
from .config import current_backend, current_threads
from .layers.frozen import Frozen
from .reference.generation import (
    NO_COPY,
    Choice,
    draw_uniform,
    generate_arguments,
    iter_arguments,
    iter_text,
    not_finite,
)
from .reference.generation import Network as Arrays

State = TypeVar("State")

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import TypeAlias

    from numpy.typing import ArrayLike, NDArray

    from . import layers

    Array = NDArray[Any]
    Embedding: TypeAlias = layers.Embedding | layers.FrozenEmbedding
    Recurrent: TypeAlias = layers.Recurrent[State] | layers.FrozenRecurrent[State]
    Linear: TypeAlias = layers.Linear | layers.FrozenLinear
    Prompt = Sequence[int | np.integer[Any]] | Array
    Packed = tuple[tuple[_core.Packed, ...] | None, _core.PackedLinear | None]


@overload
def generate(
    embedding: Embedding,
    rnn: Recurrent[State],
    linear: Linear,
    prompt: Sequence[Prompt],
    length: int,
    state: State | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Collection[int] | None = None,
    rng: Any = None,
) -> tuple[list[Array], State]: ...
@overload
def generate(
    embedding: Embedding,
    rnn: Recurrent[State],
    linear: Linear,
    prompt: Prompt,
    length: int,
    state: State | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Collection[int] | None = None,
    rng: Any = None,
) -> tuple[Array, State]: ...
def generate(
    embedding: Embedding,
    rnn: Recurrent[State],
    linear: Linear,
    prompt: Any,
    length: int,
    state: State | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Collection[int] | None = None,
    rng: Any = None,
) -> tuple[Any, State]:
    """Generate indices autoregressively: one-to-many.

    The network reads the prompt; then each index that it generates is what it reads next.

    Parameters
    ----------
    embedding : Embedding
    rnn : RNN, LSTM, GRU or LeakyRNN
        Of any number of layers, in one direction.
    linear : Linear
        As many features as the embedding has vectors. The dtype of all three is one. Each of the
        three may be a frozen one, ``layer.freeze()``.
    prompt : integer sequence, or list of them
        One or more indices. A list of B such sequences, of any lengths, or an integer array (B, n)
        is B prompts, for B sequences that are generated at once and know nothing of each other.
    length : int
        How many indices to write; with `stop`, at most.
    state : ndarray or pair of ndarray, optional
        The state before the prompt, as the layer returns it for one sequence: (layers, H), for an
        LSTM the pair of h and c. Of several: (layers, B, H). None: zeros.
    temperature : float
        Indices are drawn from softmax(logits / temperature). Below 1 the probable ones come more
        often; at 0 only the most probable one does, the first of several, and top_k and top_p
        change nothing.
    top_k : int, optional
        Draw from the k most probable indices only; of equally probable ones the lower come first.
        All, where there are no more than k.
    top_p : float, optional
        Draw from the nucleus only: the fewest most probable indices whose probability together is
        at least p, 0 < p <= 1; always one at least. With `top_k`, of those k: their probabilities,
        made to add up to one again, are what is compared with p.
    stop : int or collection of int, optional
        Indices that end a sequence. The one that was drawn is the last of the result.
    rng : optional
        Anything that `numpy.random.default_rng` takes. ``random(length)`` is drawn from it before
        anything is written, or of several ``random((length, B))``: the n-th index of sequence b
        takes number n of column b. That does not depend on where a sequence ends.

    Returns
    -------
    indices : ndarray or list of ndarray
        (length,) of int64: what was written, without the prompt; fewer where `stop` has ended it.
        Of several sequences a list with the array of each.
    state : ndarray or pair of ndarray
        The state after all but the last of the indices was read, like `state`. To go on, pass it
        with ``indices[-1:]`` as the prompt; of several with ``[a[-1:] for a in indices]``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the network's output is NaN, or infinite where it is drawn
        from.

    See Also
    --------
    generate_iter : index after index.
    fastrnn.reference.generate : the same in plain NumPy.

    Notes
    -----
    The weights are packed for the kernels at each call, which for a few indices takes longer than
    to generate them; those of frozen layers are packed already, and `generate_iter` packs once.
    Several sequences take less time than one
    after the other, and each has the bits that it has alone with the same random numbers. The
    nucleus is that of A. Holtzman et al., "The curious case of neural text degeneration",
    ICLR 2020.

    Examples
    --------
    >>> import fastrnn
    >>> embedding, head = fastrnn.Embedding(5, 3, rng=0), fastrnn.Linear(4, 5, rng=1)
    >>> rnn = fastrnn.RNN(3, 4, rng=2)
    >>> indices, state = fastrnn.generate(embedding, rnn, head, [1, 2], 6, rng=3)
    >>> len(indices), state.shape
    (6, (1, 4))
    >>> several, state = fastrnn.generate(embedding, rnn, head, [[1, 2], [3]], 6, top_k=2, rng=3)
    >>> [len(indices) for indices in several], state.shape
    ([6, 6], (1, 2, 4))
    """
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    if current_backend.get() == "reference":
        options |= {"stop": stop, "rng": rng}
        return reference.generate(embedding, rnn, linear, prompt, length, state, **options)
    network, prompts, choice, numbers = generate_arguments(
        embedding, rnn, linear, prompt, state, **options, stop=stop, rng=rng
    )
    uniform = draw_uniform(numbers, length, network)
    packed = _packed_parts(rnn, linear)
    # Results of their own: a call may be made again from its arguments.
    after = network._replace(
        h=np.empty_like(network.h), c=None if network.c is None else np.empty_like(network.c)
    )
    indices = np.empty(uniform.shape[::-1], np.int64)
    written = np.empty(len(prompts), np.int64)
    begins = np.cumsum([0, *map(len, prompts)], dtype=np.int64)
    threads = 1 if network.alone else current_threads.get()
    _core.generate(
        _core.Network(*_kernel_arguments(network, after, choice, packed)),
        np.concatenate(prompts), begins, uniform, indices, written, threads,
    )  # fmt: skip
    if written.min() < 0:
        raise not_finite(network, int((written < 0).argmax()))
    results = [row[:n].copy() for row, n in zip(indices, written, strict=True)]
    return results[0] if network.alone else results, after.state()


def generate_iter(
    embedding: Embedding,
    rnn: Recurrent[State],
    linear: Linear,
    prompt: ArrayLike,
    length: int | None = None,
    state: State | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Collection[int] | None = None,
    rng: Any = None,
) -> Generation[State]:
    """Generate indices one after the other: an iterator that makes each when it is asked for.

    The indices are those of `generate` with the same arguments. The weights are those at this
    call: they are copied and packed once, and may change or go away then. Those of frozen layers
    are used as they are.

    Parameters
    ----------
    embedding, rnn, linear, prompt, state
        As for `generate`, of one sequence.
    length : int, optional
        How many indices to write, at most. None: there is no end, but by `stop`.
    temperature, top_k, top_p, stop
        As for `generate`.
    rng : optional
        Anything that `numpy.random.default_rng` takes; one float64 is drawn from it for each index,
        when that is asked for.

    Returns
    -------
    iterator of int
        Its attribute `state` is a copy of the state after all but the last of the indices so far
        was read, at any time; before the first one it is that before the prompt. To go on, pass it
        with the last index as the prompt. Where Ctrl-C comes while an index is made, or that
        fails, everything is as before it, and whoever asks again gets that index. One thread at a
        time may ask.

    Raises
    ------
    TypeError, ValueError
        As `generate` does: of arguments in this call, of NaN when an index is asked for.

    See Also
    --------
    generate : all at once, also several sequences.
    fastrnn.reference.generate_iter : the same in plain NumPy.

    Examples
    --------
    >>> import fastrnn
    >>> embedding, head = fastrnn.Embedding(5, 3, rng=0), fastrnn.Linear(4, 5, rng=1)
    >>> rnn = fastrnn.RNN(3, 4, rng=2)
    >>> written = fastrnn.generate_iter(embedding, rnn, head, [1, 2], rng=3)
    >>> three = [next(written) for _ in range(3)]
    >>> three == fastrnn.generate(embedding, rnn, head, [1, 2], 3, rng=3)[0].tolist()
    True
    >>> written.state.shape
    (1, 4)
    """
    arguments = iter_arguments(
        embedding, rnn, linear, prompt, length, state, temperature, top_k, top_p, stop, rng
    )
    if current_backend.get() == "reference":
        return reference.generation.Generation(*arguments)  # type: ignore[return-value]
    return Generation(*arguments, _packed_parts(rnn, linear))


class Generation(_core.Writer, Generic[State]):
    """Indices as they are generated, and the state: what `generate_iter` returns.

    Attributes
    ----------
    state : ndarray or pair of ndarray
        After all but the last of the indices so far was read, as `generate` returns it. Before the
        first one it is that before the prompt. Reading gives a copy.
    """

    def __init__(
        self,
        network: Arrays,
        prompt: Array,
        length: int | None,
        choice: Choice,
        rng: Any,
        packed: Packed,
    ) -> None:
        # The state is changed in place, and only by a step that has gone well.
        arguments = _kernel_arguments(network, network, choice, packed)
        super().__init__(arguments, prompt, length, rng.random, str(not_finite(network)))
        self._network = network

    @property
    def state(self) -> State:
        """After all but the last of the indices so far was read."""
        return self._network.state()  # type: ignore[no-any-return]

    def __reduce__(self) -> NoReturn:
        raise TypeError(NO_COPY)

    def __repr__(self) -> str:
        return iter_text(self._left)


def _packed_parts(rnn: Any, linear: Any) -> Packed:
    """The packed weights of each recurrent layer and of the output layer; None of plain ones."""
    while True:
        of_rnn: tuple[Any, ...] = rnn._current() if isinstance(rnn, Frozen) else ()
        of_linear: tuple[Any, ...] = linear._current() if isinstance(linear, Frozen) else ()
        if _core.packed_alike(of_rnn + of_linear):
            return of_rnn or None, of_linear[0] if of_linear else None


def _kernel_arguments(
    before: Arrays, after: Arrays, choice: Choice, packed: Packed
) -> tuple[Any, ...]:
    """What `_core.Network` takes, for the states before and after."""
    (kernel, _), count = CELLS[before.cell.name].kernel(before.options), len(before.embedding)
    states = zip(
        *([None] * len(before.layers) if a is None else a
          for a in (before.h, before.c, after.h, after.c, packed[0])), strict=True,
    )  # fmt: skip
    layers = tuple(
        (kernel, weights, *of_layer)
        for weights, of_layer in zip(before.layers, states, strict=True)
    )
    stop = None
    if choice.stop:
        stop = np.zeros(count, bool)
        stop[list(choice.stop)] = True
    return (
        before.embedding, layers, before.w_out, before.b_out, packed[1],
        choice.temperature, choice.top_k, choice.top_p, stop,
    )  # fmt: skip
