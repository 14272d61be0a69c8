"""The text, what a run over it depends on, and what models that only count make of it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers import RECURRENT
from .text import HELP_TOPICS, CharLMError, help_topics, read_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CELLS = tuple(RECURRENT)
DTYPES = ("float32", "float64")
SHORTEST = 11  # characters of a text: a tenth of fewer has no two, to predict one from another
BLOCK = 1 << 18  # characters of a text that are copied at once


@dataclass(frozen=True)
class Settings:
    """What a training run depends on, besides its text.

    Attributes
    ----------
    cell : {"rnn", "lstm", "gru", "leaky"}
    layers, embedding_dim, hidden_size : int
        Of the model.
    batch_size : int
        How many streams are read side by side.
    steps : int
        How many characters of a stream one step of truncated backpropagation through time reads.
    epochs : int
        How often the text is read.
    lr : float
        The learning rate at its height; half a cosine takes it down to 0.
    max_norm : float
        Of the gradient: what is larger is scaled to it.
    dtype : {"float32", "float64"}
    seed : int
        Of the weights, and of what dropout makes zero.
    dropout : float
        Of the output of every recurrent layer: the probability that an element is made zero.
    """

    cell: str = "rnn"
    layers: int = 1
    embedding_dim: int = 64
    hidden_size: int = 256
    batch_size: int = 32
    steps: int = 64
    epochs: int = 12
    lr: float = 3e-3
    max_norm: float = 1.0
    dtype: str = "float32"
    seed: int = 0
    dropout: float = 0.0

    def options(self) -> list[str]:
        """What asks for these on the command line: all that is not the default."""
        return [
            f"--{field.name.replace('_', '-')}={getattr(self, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]

    def check(self) -> None:
        """Raise CharLMError where a value is out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, int):
                lowest = 0 if field.name == "seed" else 1
                if type(value) is not int or not lowest <= value < 2**63:
                    raise CharLMError(f"{field.name} is {value!r}, expected an integer >= {lowest}")
            elif field.name == "dropout":
                if type(value) not in (int, float) or not 0 <= value < 1:
                    raise CharLMError(f"dropout is {value!r}, expected a number in [0, 1)")
            elif isinstance(field.default, float) and (
                type(value) not in (int, float) or not 0 < value < 1e300
            ):
                raise CharLMError(f"{field.name} is {value!r}, expected a finite number above 0")
        if self.dtype not in DTYPES:
            raise CharLMError(f"dtype is {self.dtype!r}, expected {' or '.join(DTYPES)}")
        if self.cell not in CELLS:
            raise CharLMError(f"cell is {self.cell!r}, expected one of {', '.join(CELLS)}")


@dataclass(frozen=True)
class Corpus:
    """A text as numbers of its characters, and which part is held out.

    The text itself is not kept: of most a character takes one byte here.
    """

    name: str
    files: tuple[str, ...]  # that it was read from; none: the default text
    notes: tuple[str, ...]  # what was done to read them
    characters: str  # every different one, sorted; a character's number is its place
    ids: Array  # of the smallest unsigned type
    digest: str  # identifies the text

    @classmethod
    def read(cls, files: Iterable[str]) -> Corpus:
        """The text of files, one behind the other, or the default."""
        files, notes = tuple(files), list[str]()
        if not files:
            return cls.of(HELP_TOPICS, [help_topics()])
        name = ", ".join(files) if len(files) < 4 else f"{files[0]} and {len(files) - 1} more files"
        corpus = cls.of(name, (piece for path in files for piece in read_text(path, notes)))
        return replace(corpus, files=files, notes=tuple(notes))

    @classmethod
    def of(cls, name: str, pieces: Iterable[str]) -> Corpus:
        """A text that comes in pieces."""
        digest = hashlib.sha256()
        number = np.zeros(0x110000, np.uint32)  # of a code, in order of appearance, from 1
        found: list[int] = []
        parts: deque[Array] = deque()
        for piece in pieces:
            digest.update(piece.encode())
            codes = np.frombuffer(piece.encode("utf-32-le"), "<u4")
            new = np.unique(codes[number[codes] == 0])
            number[new] = np.arange(len(found) + 1, len(found) + 1 + len(new))
            found += new.tolist()
            parts.append((number[codes] - 1).astype(_smallest(len(found))))
        order = np.argsort(found)
        places = np.empty(len(found), _smallest(len(found)))
        places[order] = np.arange(len(found))
        ids = np.empty(sum(map(len, parts)), places.dtype)
        start = 0
        while parts:  # each is freed once it is copied
            part = parts.popleft()
            ids[start : start + len(part)] = places[part]
            start += len(part)
        characters = "".join(chr(found[i]) for i in order)
        return cls(name, (), (), characters, ids, digest.hexdigest())

    @property
    def train(self) -> Array:
        """The first nine tenths."""
        return self.ids[: len(self.ids) * 9 // 10]

    @property
    def held_out(self) -> Array:
        """The last tenth."""
        return self.ids[len(self.ids) * 9 // 10 :]

    def check(self, settings: Settings) -> None:
        """Raise CharLMError where the training part is shorter than one batch."""
        size, count = len(self.ids), len(self.train)
        if size - count < 2:
            raise CharLMError(
                f"{self.name} has {size} characters: too few to hold a tenth out, which takes "
                f"{SHORTEST}"
            )
        batch, steps = settings.batch_size, settings.steps
        if count > batch * steps:
            return
        fitting = {"batch-size": batch, "steps": steps}
        while count <= fitting["batch-size"] * fitting["steps"]:
            # Long streams are worth more: the first that is halved is that of more than its share.
            longer = fitting["steps"] > fitting["batch-size"]
            fitting["steps" if longer else "batch-size"] //= 2
        raise CharLMError(
            f"{self.name} has {size} characters: nine tenths are for training, where one batch "
            f"of {batch} streams of {steps} characters takes {batch * steps + 1}; try "
            + " ".join(f"--{name} {value}" for name, value in fitting.items())
        )

    def numbered_as(self, characters: str, path: str, cure: str) -> Corpus:
        """The same text by the numbers of a model; CharLMError for what that does not know."""
        if self.characters == characters:
            return self
        known = {c: i for i, c in enumerate(characters)}
        places = np.array([known.get(c, -1) for c in self.characters])
        if unknown := [c for c in self.characters if c not in known]:
            times = sum(int((places[ids] < 0).sum()) for ids in blocks(self.ids))
            raise CharLMError(
                f"{self.name} has characters that {path} does not know, {times:,} of "
                f"{len(self.ids):,}: {', '.join(map(repr, unknown[:5]))}"
                f"{', ...' if len(unknown) > 5 else ''}; replace them in it, or train a new model "
                f"on both texts: {cure}"
            )
        places = places.astype(_smallest(len(characters)))
        ids = np.empty(len(self.ids), places.dtype)
        for new, old in zip(blocks(ids), blocks(self.ids), strict=True):
            new[...] = places[old]
        return replace(self, characters=characters, ids=ids)

    def text(self, ids: Array) -> str:
        """The characters with these numbers."""
        codes = np.array([ord(c) for c in self.characters], "<u4")
        return codes[ids].tobytes().decode("utf-32-le")


def blocks(ids: Array) -> Iterator[Array]:
    """Pieces of which copies are small."""
    return (ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK))


def _smallest(count: int) -> type[np.unsignedinteger[Any]]:
    """The type for numbers below `count`."""
    return np.uint8 if count <= 1 << 8 else np.uint16 if count <= 1 << 16 else np.uint32


def unigram_bits(corpus: Corpus) -> float:
    """Bits per held-out character by how often each occurs in training: see witten_bell_bits."""
    return witten_bell_bits(corpus, context=0)


def witten_bell_bits(corpus: Corpus, context: int = 3) -> float:
    """Bits per held-out character by an interpolated Witten-Bell model of the training part.

    With N the occurrences of a context h, T the different characters seen behind it, and h' the
    context without its first character [1]_::

        p(c | h) = (count(h c) + T p(c | h')) / (N + T)

    Below the empty context all characters are equally probable.

    References
    ----------
    .. [1] I. H. Witten, T. C. Bell, "The zero-frequency problem: estimating the probabilities of
       novel events in adaptive text compression", IEEE Trans. Information Theory 37 (1991).
    """
    ids, size, start = corpus.ids, len(corpus.characters), len(corpus.train)
    held_out = corpus.held_out
    counts = np.zeros(size, np.int64)
    for block in blocks(corpus.train):
        counts += np.bincount(block, minlength=size)
    different = np.count_nonzero(counts)
    p: Array = (counts[held_out] + different * (1 / size)) / (start + different)
    for k in range(1, context + 1):
        for low, high in _ranges(counts):
            grams, times = _counted(_grams(ids[:start], k, low, high, size))
            at = np.flatnonzero(_between(ids[start - k : len(ids) - k], low, high))
            if not len(grams) or not len(at):
                continue
            contexts, first = np.unique(grams // size, return_index=True)
            totals, kinds = np.add.reduceat(times, first), np.diff(np.append(first, len(grams)))
            wanted = _gram(ids, at + (start - k), k, size)
            n, t = (_looked_up(contexts, of, wanted // size) for of in (totals, kinds))
            seen = _looked_up(grams, times, wanted)
            p[at] = np.where(n > 0, (seen + t * p[at]) / np.maximum(n + t, 1), p[at])
    return float(-np.log2(p).mean())


def _ranges(counts: Array) -> list[tuple[int, int]]:
    """Ranges of characters, so that each begins about a sixteenth of all grams, to save memory."""
    bounds, load = [0], 0
    most = counts.sum() // 16
    for c, n in enumerate(counts):
        if load and load + n > most:
            bounds.append(c)
            load = 0
        load += n
    return list(zip(bounds, [*bounds[1:], len(counts)], strict=True))


def _between(ids: Array, low: int, high: int) -> Array:
    return (ids >= low) & (ids < high)


def _grams(ids: Array, k: int, low: int, high: int, size: int) -> Array:
    """Each character from low to high - 1 with the k behind it, as one number."""
    found = []
    for start in range(0, len(ids) - k, BLOCK):
        first = ids[start : min(start + BLOCK, len(ids) - k)]
        found.append(_gram(ids, np.flatnonzero(_between(first, low, high)) + start, k, size))
    return np.concatenate(found)


def _gram(ids: Array, at: Array, k: int, size: int) -> Array:
    """The characters at these places with the k behind each, as numbers."""
    count = size ** (k + 1)
    kind: Any = np.uint32 if count <= 1 << 32 else np.int64 if count < 1 << 63 else object
    grams = ids[at].astype(kind)
    for i in range(1, k + 1):
        grams = grams * size + ids[at + i]
    return grams


def _counted(grams: Array) -> tuple[Array, Array]:
    """The different ones, sorted, and how often each occurs. As np.unique, with less memory."""
    grams.sort()
    first = np.flatnonzero(grams[1:] != grams[:-1]) + 1
    first = np.concatenate([np.zeros(min(len(grams), 1), np.int64), first])
    return grams[first], np.diff(np.append(first, len(grams)))


def _looked_up(keys: Array, values: Array, wanted: Array) -> Array:
    """The value of each wanted key, 0 where there is none; keys are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
