"""The text, what a run over it depends on, and what models that only count make of it."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers import RECURRENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

HELP_TOPICS = "Python's help topics"


class CharLMError(Exception):
    """What a user can mend, in one line."""


CELLS = tuple(RECURRENT)
DTYPES = ("float32", "float64")


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
        Of the weights.
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

    def check(self) -> None:
        """Raise CharLMError where a value is out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, int):
                lowest = 0 if field.name == "seed" else 1
                if type(value) is not int or not lowest <= value < 2**63:
                    raise CharLMError(f"{field.name} is {value!r}, expected an integer >= {lowest}")
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
    """A text as numbers of its characters, and which part is held out."""

    name: str
    text: str
    characters: str  # every different one, sorted; a character's number is its place
    train: Array
    held_out: Array

    @classmethod
    def of(cls, name: str, text: str, settings: Settings) -> Corpus:
        """Split a text; CharLMError where the training part is shorter than one batch."""
        count = len(text) * 9 // 10
        needed = settings.batch_size * settings.steps + 1
        if len(text) - count < 2:
            raise CharLMError(f"{name} has {len(text)} characters: too few to hold a tenth out")
        if count < needed:
            raise CharLMError(
                f"{name} has {len(text)} characters: nine tenths are for training, where one batch "
                f"of {settings.batch_size} streams of {settings.steps} characters takes {needed}"
            )
        codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
        characters, ids = np.unique(codes, return_inverse=True)
        ids = ids.astype(np.int64)
        return cls(name, text, "".join(map(chr, characters)), ids[:count], ids[count:])

    def digest(self) -> str:
        """Identifies the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_text(path: str | None) -> tuple[str, str]:
    """The name and the text of a file, or of the default."""
    if path is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise CharLMError("this Python has no help topics: name a text file") from None
        return HELP_TOPICS, "".join(topics[name] for name in sorted(topics))
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise CharLMError(f"cannot read {path}: it is a device, which may have no end")
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a name with a null
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CharLMError(f"cannot read {path}: {why}") from None
    if not text:
        raise CharLMError(f"{path} is empty")
    return path, text


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
    size = len(corpus.characters)
    read = np.concatenate([corpus.train[len(corpus.train) - context :], corpus.held_out])
    p = np.full(len(corpus.held_out), 1 / size)
    for k in range(context + 1):
        grams, counts = np.unique(_grams(corpus.train, k, size), return_counts=True)
        contexts, first = np.unique(grams // size, return_index=True)
        kinds = np.diff(np.append(first, len(grams)))
        totals = np.add.reduceat(counts, first)
        wanted = _grams(read[context - k :], k, size)
        n, t = (_looked_up(contexts, of, wanted // size) for of in (totals, kinds))
        p = np.where(n > 0, (_looked_up(grams, counts, wanted) + t * p) / np.maximum(n + t, 1), p)
    return float(-np.log2(p).mean())


def _grams(ids: Array, k: int, size: int) -> Array:
    """Each character with the k before it, as one number."""
    grams = np.zeros(len(ids) - k, np.int64 if size ** (k + 1) < 2**63 else object)
    for i in range(k + 1):
        grams = grams * size + ids[i : len(ids) - k + i]
    return grams


def _looked_up(keys: Array, values: Array, wanted: Array) -> Array:
    """The value of each wanted key, 0 where there is none; keys are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
