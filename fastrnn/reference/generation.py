"""Autoregressive generation in plain NumPy: the specification of `fastrnn.generate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar

import numpy as np

from .. import _checks, _cures
from .arguments import WEIGHT_NAMES, CellSpec, forward_arguments
from .cells import CELLS, forward
from .embedding import embedding_forward
from .linear import linear_arguments, linear_forward

State = TypeVar("State")

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]
    # The layers are built on the reference, which takes whatever is like them.
    Embedding: TypeAlias = Any
    Linear: TypeAlias = Any

    class Recurrent(Protocol[State]):
        def __call__(self, x: Array, state: State | None = None) -> tuple[Array, State]: ...


class Network(NamedTuple):
    """The weights of an embedding, recurrent layers of one kind and an output layer; the states."""

    embedding: Array
    cell: CellSpec
    options: tuple[Any, ...]  # nonlinearity of an RNN, reset_after of a GRU
    layers: list[tuple[Any, ...]]  # the weights of each: w_ih, w_hh, b_ih, b_hh, the extra ones
    w_out: Array
    b_out: Array | None
    h: Array  # (layers, B, P)
    c: Array | None  # (layers, B, H), of an LSTM
    alone: bool  # one sequence, without an axis for it

    def state(self) -> Any:
        """The state as the layer returns it."""
        h, c = (a if a is None or not self.alone else a[:, 0].copy() for a in (self.h, self.c))
        return h if c is None else (h, c)


class Choice(NamedTuple):
    """How an index is chosen from logits, and which one ends a sequence."""

    temperature: float
    top_k: int  # as many as there are: all
    top_p: float  # 1: all
    stop: frozenset[int]


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
    """Generate indices, in plain NumPy: see `fastrnn.generate`.

    Each index is fed to the network, which gives the logits x of the next one. That is drawn from
    softmax(x / temperature), by one uniform number u an index: the first whose running sum of
    probabilities exceeds u. At temperature 0 it is the one with the largest logit. `top_k` and
    `top_p` make the probabilities of all but the most probable zero before that.

    Examples
    --------
    >>> import fastrnn
    >>> embedding, head = fastrnn.Embedding(5, 3, rng=0), fastrnn.Linear(4, 5, rng=1)
    >>> rnn = fastrnn.RNN(3, 4, rng=2)
    >>> indices, state = fastrnn.reference.generate(embedding, rnn, head, [1, 2], 6, rng=3)
    >>> len(indices), state.shape
    (6, (1, 4))
    """
    network, prompts, choice, numbers = generate_arguments(
        embedding, rnn, linear, prompt, state, temperature, top_k, top_p, stop, rng
    )
    uniform = draw_uniform(numbers, length, network)
    written = []
    for b, prompt in enumerate(prompts):
        top = _read(network, b, prompt)
        indices: list[int] = []
        for u in uniform[:, b]:
            if indices:
                top = _read(network, b, indices[-1:])
            indices.append(_choose(network, top, choice, u))
            if indices[-1] < 0:
                raise not_finite(network, b)
            if indices[-1] in choice.stop:
                break
        written.append(np.array(indices, np.int64))
    return written[0] if network.alone else written, network.state()


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
    """Generate indices one after the other, in plain NumPy: see `fastrnn.generate_iter`.

    Examples
    --------
    >>> import fastrnn
    >>> embedding, head = fastrnn.Embedding(5, 3, rng=0), fastrnn.Linear(4, 5, rng=1)
    >>> rnn = fastrnn.RNN(3, 4, rng=2)
    >>> written = fastrnn.reference.generate_iter(embedding, rnn, head, [1, 2], 6, rng=3)
    >>> len(list(written)), written.state.shape
    (6, (1, 4))
    """
    return Generation(*iter_arguments(
        embedding, rnn, linear, prompt, length, state, temperature, top_k, top_p, stop, rng
    ))  # fmt: skip


class Generation(Generic[State]):
    """Indices as they are generated, and the state: see `fastrnn.generate_iter`."""

    def __init__(
        self, network: Network, prompt: Array, length: int | None, choice: Choice, rng: Any
    ) -> None:
        self._network, self._choice, self._rng = network, choice, rng
        self._left = length  # None: there is no end
        self._unread: Any = prompt  # then the index that came last
        self._u: float | None = None  # drawn, and its index not yet made

    def __iter__(self) -> Generation[State]:
        """The iterator itself."""
        return self

    def __next__(self) -> int:
        """The next index; StopIteration after the last one."""
        if self._left == 0:
            raise StopIteration
        if self._u is None:
            self._u = float(self._rng.random())
        c = None if self._network.c is None else self._network.c.copy()
        network = self._network._replace(h=self._network.h.copy(), c=c)
        index = _choose(network, _read(network, 0, self._unread), self._choice, self._u)
        if index < 0:
            raise not_finite(network)
        left = None if self._left is None else self._left - 1
        left = 0 if index in self._choice.stop else left
        self._network, self._unread, self._left, self._u = network, [index], left, None
        return index

    @property
    def state(self) -> State:
        """After all but the last of the indices so far was read; before the first, as given."""
        return self._network.state()  # type: ignore[no-any-return]

    def __reduce__(self) -> NoReturn:
        raise TypeError(NO_COPY)

    def __repr__(self) -> str:
        return iter_text(self._left)


NO_COPY = "this iterator cannot be copied or pickled: make another from its state"


def iter_text(left: int | None) -> str:
    """The text of an iterator of so many indices."""
    end = "no end" if left is None else f"at most {left} more"
    return f"<indices as they are generated: {end}>"


def _read(network: Network, b: int, indices: Any) -> Any:
    """A step of every layer for each index that sequence b reads; the last one's output (P,)."""
    h, c = network.h[:, b], None if network.c is None else network.c[:, b]
    for index in indices:
        x, _ = embedding_forward([index], network.embedding, record=False)
        for k, weights in enumerate(network.layers):
            arrays = (x, h[k], None if c is None else c[k], *weights)
            x, h[k], c_n, _ = forward(network.cell, arrays, network.options, record=False)
            if c is not None:
                c[k] = c_n
    return x[0]


def _choose(network: Network, top: Array, choice: Choice, u: float) -> int:
    """The next index, from the output of the last layer; -1 where a NaN leaves no choice."""
    logits, _ = linear_forward(top, network.w_out, network.b_out, record=False)
    logits = logits.astype(np.float64)
    if np.isnan(logits).any():
        return -1
    if choice.temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")  # the most probable first, of several the lowest
    logits[order[choice.top_k :]] = -np.inf
    with np.errstate(all="ignore"):
        p = np.exp((logits - logits.max()) / choice.temperature)
    if np.isnan(p).any():
        return -1
    if choice.top_p < 1:
        running = np.cumsum(p[order])
        p[order[running.searchsorted(choice.top_p * running[-1]) + 1 :]] = 0
    running = np.cumsum(p)
    return int(running.searchsorted(u * running[-1], side="right"))


def not_finite(network: Network, b: int = 0) -> ValueError:
    """The error where NaN or infinity in the logits of sequence b leaves no choice."""
    where = "" if network.alone else f" in the sequence of prompt[{b}]"
    text = f"the network's output is not finite{where}: there is nothing to choose from"
    return ValueError(text)


# ------------------------------------------------------------------------------ arguments


def generate_arguments(
    embedding: Any,
    rnn: Any,
    linear: Any,
    prompt: Any,
    state: Any,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    stop: Any,
    rng: Any,
) -> tuple[Network, list[Array], Choice, np.random.Generator]:
    """Check the arguments of generate, but for `length`.

    Returns
    -------
    tuple
        The network, the prompts (int64), how to choose, and where uniform numbers come from.
    """
    passed = {"embedding": embedding, "rnn": rnn, "linear": linear}
    embedding, rnn, linear = map(_plain, passed.values())
    recurrent = {module.CELL.layer: module.CELL for module in CELLS.values()}
    kinds = {
        "embedding": (embedding, ("Embedding",)),
        "rnn": (rnn, tuple(recurrent)),
        "linear": (linear, ("Linear",)),
    }
    for name, (layer, allowed) in kinds.items():
        if _kind(layer) not in allowed:
            expected = " or ".join(f"fastrnn.{one}" for one in allowed)
            given = _cures.kind(passed[name])
            cure = ""
            if type(layer).__name__ in allowed:  # another library's
                given += f" of {type(layer).__module__}"
            elif _kind(layer) == "Sequential":
                part = {_kind(a): f"{name}.layers[{n!r}]" for n, a in layer.layers.items()}
                parts = [
                    next((part[k] for k in some if k in part), "") for _, some in kinds.values()
                ]
                cure = f": pass {_checks.listed(parts, 'and')}" if all(parts) else ""
            raise TypeError(f"{name} is {given}, expected {_cures.an(expected)}{cure}")
        if layer.dtype != embedding.dtype:
            raise TypeError(
                f"{name} is {layer.dtype}, embedding is {embedding.dtype}: make them with one dtype"
            )
    _check_left_out(embedding, rnn, linear)
    if rnn.bidirectional or rnn.reverse:
        way = "runs in reverse" if rnn.reverse else "is bidirectional"
        raise ValueError(f"rnn {way}: it would have to read what is not written yet")
    projected = bool(getattr(rnn, "proj_size", 0))
    units = rnn.proj_size if projected else rnn.hidden_size
    units_name = "rnn.proj_size" if projected else "rnn.hidden_size"
    cell, count = recurrent[str(_kind(rnn))], embedding.num_embeddings
    features, features_name = rnn.input_size, "rnn.input_size"
    if features is None:  # the embedding's vectors are pre-activations
        features = cell.gates * rnn.hidden_size
        times = "" if cell.gates == 1 else f"{cell.gates} * "
        features_name = f"{times}rnn.hidden_size (rnn.input_size is None)"
    for name, size, wanted, of in (
        (features_name, features, embedding.embedding_dim, "embedding.embedding_dim"),
        ("linear.in_features", linear.in_features, units, units_name),
        (
            "linear.out_features", linear.out_features, count, "embedding.num_embeddings",
        ),
    ):  # fmt: skip
        if size != wanted:
            raise ValueError(f"{name} is {size}, expected {of} = {wanted}")
    prompts, alone = _prompts(prompt, count, getattr(embedding, "padding_idx", None))
    batch = None if alone else len(prompts)
    dtype = embedding.dtype
    stack = _weights(rnn, cell)
    c = None
    if isinstance(state, Mapping):
        named = next((n for n, a in _model_of(rnn).items() if a is rnn), next(iter(state), None))
        cure = f": pass state[{named!r}]" if named in state else ""
        raise TypeError(f"state is {_cures.kind(state)}, expected the state of rnn{cure}")
    if alone and (n := len(prompts[0])) > 1 and n == _sequences_in(state):
        raise ValueError(
            f"prompt is one of {n} indices, but state is that of {n} sequences: for a prompt of "
            "one index for each, pass [[i] for i in prompt]"
        )
    if "c" in cell.states:
        h = None
        if state is not None:
            rest = "" if projected else "np.zeros_like({})"
            h, c = _checks.state_pair("state", state, rest, 2 if batch is None else 3)
        letter = "P" if projected else "H"
        h = _state("state[0]", h, dtype, len(stack), batch, units, letter)
        c = _state("state[1]", c, dtype, len(stack), batch, rnn.hidden_size, "H")
    else:
        h = _state("state", state, dtype, len(stack), batch, units, "H")
    choice = _choice(temperature, top_k, top_p, stop, count, np.finfo(dtype))
    numbers = _checks.generator("rng", rng)

    # The arrays are what the kernel reads: their shapes count, whatever the attributes say.
    below = features
    for k, own in enumerate(stack):
        x, c_0 = np.zeros((1, 1, below), dtype), None if c is None else c[k, :1]
        stack[k] = forward_arguments(cell, (x, h[k, :1], c_0, *own)).arrays[3:]
        below = units
    head = linear.weights
    _, w_out, b_out = linear_arguments(h, head["weight"], head.get("bias"))
    table = _checks.array("embedding", embedding.weights["weight"], dtype, "the network")
    for name, a, rows in (("embedding", table, features), ("linear", w_out, units)):
        _checks.shape(name, a.shape, ("V", "n"), {"V": count, "n": rows})
    options = tuple(getattr(rnn, name) for name in cell.options)
    network = Network(_checks.contiguous(table), cell, options, stack, w_out, b_out, h, c, alone)
    return network, prompts, choice, numbers


def draw_uniform(rng: np.random.Generator, length: Any, network: Network) -> Array:
    """One uniform number for every index that may be written: (length, B)."""
    length, batch = _checks.size("length", length, 0), network.h.shape[1]
    shape = (length,) if network.alone else (length, batch)
    _checks.elements(**dict(zip(("length", "B"), shape, strict=False)))
    # An array of its own, whatever a generator of somebody's own returns.
    uniform = np.array(rng.random(length if network.alone else shape), np.float64)
    if uniform.shape != shape:
        raise ValueError(f"rng gave numbers of the shape {uniform.shape}, expected {shape}")
    return uniform.reshape(length, batch)


def iter_arguments(
    embedding: Any, rnn: Any, linear: Any, prompt: Any, length: Any, state: Any, *others: Any
) -> tuple[Network, Array, int | None, Choice, np.random.Generator]:
    """Check the arguments of generate_iter; the network's arrays are copies."""
    network, prompts, choice, rng = generate_arguments(
        embedding, rnn, linear, prompt, state, *others
    )
    if not network.alone:
        raise ValueError(
            f"prompt has {len(prompts)} sequence{'s' if len(prompts) > 1 else ''}, expected one: "
            "make an iterator for each, of prompt[0] and so on, or call generate"
        )
    if length is not None:
        length = _checks.size("length", length, 0)
    if _plain(embedding) is embedding:
        network = network._replace(embedding=_copies(network.embedding))
    if _plain(rnn) is rnn:
        network = network._replace(layers=list(map(_copies, network.layers)))
    if _plain(linear) is linear:
        network = network._replace(w_out=_copies(network.w_out), b_out=_copies(network.b_out))
    return network, prompts[0], length, choice, rng


def _copies(a: Any) -> Any:
    """Of an array, of each in a tuple, or None."""
    return tuple(map(_copies, a)) if isinstance(a, tuple) else None if a is None else a.copy()


def _model_of(layer: Any) -> Mapping[str, Any]:
    """The layers by name of the model that a layer is in; nothing where it is in none."""
    model = getattr(layer, "_model", None)
    model = None if model is None else model()
    layers: Mapping[str, Any] = {} if model is None else model.layers
    return layers


def _check_left_out(embedding: Any, rnn: Any, linear: Any) -> None:
    """Raise ValueError where the three are of one model that has other layers besides."""
    own = _model_of(rnn)
    three = [id(embedding), id(rnn), id(linear)]
    if not set(three) <= {id(layer) for layer in own.values()}:
        return
    left = [n for n, a in own.items() if id(a) not in three and _kind(a) != "Dropout"]
    if not left:
        return
    names = [n for n, a in own.items() if id(a) == id(rnn) or n in left]
    verb = "stands" if len(left) == 1 else "stand"
    text = (
        f"{_checks.listed(list(map(repr, left)), 'and')} {verb} beside embedding, rnn and linear "
        "in their model, and would be left out"
    )
    forms = {(_kind(own[n]), getattr(own[n], "hidden_size", 0)) for n in names}
    if len(forms) == 1:
        count = sum(own[n].num_layers for n in names)
        raise ValueError(
            f"{text}; make one {_kind(rnn)} with num_layers={count} in the place of "
            f"{_checks.listed(list(map(repr, names)), 'and')}"
        )
    raise ValueError(f"{text}; run them step by step, recurrent layers by their stream()")


def _sequences_in(state: Any) -> int | None:
    """Of how many sequences a state with an axis for them is."""
    h = state[0] if isinstance(state, tuple | list) and len(state) == 2 else state
    return h.shape[1] if isinstance(h, np.ndarray) and h.ndim == 3 else None


def _prompts(prompt: Any, count: int, padding: int | None) -> tuple[list[Array], bool]:
    """The prompts, and whether it is one alone, not in a list of them."""
    expected = "one or more integers"
    texts = prompt if isinstance(prompt, list | tuple) else [prompt]
    if texts and all(isinstance(a, str) for a in texts):
        raise TypeError(
            f"prompt holds {np.asarray(prompt).dtype}, expected {expected}: give the indices that "
            "its characters or words have in the embedding"
        )

    def one(name: str, value: Any) -> Array:
        indices = _checks.integers(name, value, expected, count)
        if indices.ndim != 1 or not len(indices):
            flat = indices.size > 0 and indices.size == max(indices.shape, default=1)
            cure = f": pass np.ravel({name})" if flat else ""
            raise ValueError(f"{name} has shape {indices.shape}, expected {expected}{cure}")
        _checks.in_range(name, indices, count, "embedding.num_embeddings")
        return indices

    listed = isinstance(prompt, list | tuple) and len(prompt) > 0
    if listed and all(np.iterable(a) and not isinstance(a, str) for a in prompt):
        return [one(f"prompt[{i}]", a) for i, a in enumerate(prompt)], False
    if isinstance(prompt, np.ndarray) and prompt.ndim == 2 and prompt.size:
        indices = _checks.integers("prompt", prompt, expected, count)
        _checks.in_range("prompt", indices, count, "embedding.num_embeddings")
        if padding is not None and (indices[:, [0, -1]] == padding).any():
            raise ValueError(
                f"prompt has rows that begin or end with embedding.padding_idx = {padding}, which "
                f"would be read: pass [row[row != {padding}] for row in prompt]"
            )
        return list(indices), False
    return [one("prompt", prompt)], True


def _choice(
    temperature: Any, top_k: Any, top_p: Any, stop: Any, count: int, info: np.finfo[Any]
) -> Choice:
    temperature = _checks.bounded("temperature", temperature)
    if temperature > 0:
        temperature = float(np.clip(temperature, float(info.tiny), float(info.max)))
    if top_k is None:
        top_k = count
    else:
        top_k = _checks.size("top_k", top_k, 0)
        if top_k == 0:
            raise ValueError("top_k is 0, expected at least 1: pass None for all indices")
    given = 1.0 if top_p is None else _checks.number("top_p", top_p)
    if not 0 < given <= 1:
        cure = ": pass top_p / 100, if it is in percent" if 1 < given <= 100 else ""
        if given == 0:
            cure = ": leave it out, and set temperature=0 for the most probable index alone"
        raise ValueError(f"top_p is {top_p!r}, expected 0 < top_p <= 1{cure}")
    ends: Array = np.empty(0, np.int64)
    if stop is not None:
        listed = list(stop) if isinstance(stop, set | frozenset) else stop
        ends = _checks.integers("stop", listed, "an index, several of them or None")
        if ends.ndim > 1:
            raise ValueError(
                f"stop has shape {ends.shape}, expected an index, several of them or None: pass "
                "np.ravel(stop)"
            )
        _checks.in_range("stop", ends, count, "embedding.num_embeddings")
    return Choice(temperature, min(top_k, count), given, frozenset(ends.ravel().tolist()))


def _plain(layer: Any) -> Any:
    """The layer that a frozen one has, whose weights do not change; others themselves."""
    return layer._layer if _cures.is_frozen(layer) else layer


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


def _state(
    name: str, given: Any, dtype: Any, count: int, batch: int | None, units: int, letter: str
) -> Array:
    """A copy of the states of so many layers, with an axis for sequences; zeros for None.

    Of one sequence alone, whose batch is None, the caller's have no such axis.
    """
    state = np.zeros((count, batch or 1, units), dtype)
    if given is not None:
        given = _checks.array(name, given, dtype, "the network")
        sizes = {str(count): count, letter: units}
        if batch is None:
            _checks.shape(name, given.shape, (str(count), letter), sizes)
            given = given[:, None]
        else:
            _checks.shape(name, given.shape, (str(count), "B", letter), sizes | {"B": batch})
        state[...] = given
    return state
