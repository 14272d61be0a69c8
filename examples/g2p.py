"""Spelling to sound by a network that was trained elsewhere and ran in a NumPy loop.

The package g2p-en (Kyubyong Park and Jongseok Kim, Apache License 2.0) has the weights of two GRUs
of 256 units in a file of NumPy arrays: one reads the letters of a word, the other says phonemes
until it says that the word ends. `fastrnn.convert.from_arrays` makes layers of them, and nothing
else of the package is used: it need not be imported, nor its dependencies installed.

    pip install --no-deps g2p-en
    python examples/g2p.py recurrent activationist

A word alone goes through two streams, whose weights stay packed. Many words go side by side, with
the same phonemes; those that begin alike are read together until they part, and threads share the
words.
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import pronunciations
import wheels
from numpy.typing import NDArray

import fastrnn
from fastrnn import convert

Array = NDArray[Any]

# The symbols in the order of the package's embeddings.
LETTERS = ["<pad>", "<unk>", "</s>", *pronunciations.LETTERS]
VOWELS, CONSONANTS = pronunciations.PHONEMES[:15], pronunciations.PHONEMES[15:]
SOUNDS = sorted([*(vowel + stress for vowel in VOWELS for stress in "012"), "UW", *CONSONANTS])
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *SOUNDS]
START, END = PHONEMES.index("<s>"), PHONEMES.index("</s>")
LONGEST = 20  # phonemes of a word, as in the package
SIDE_BY_SIDE = 512  # words: fewer take more calls, more overflow the second-level cache

UNKNOWN, WORD_ENDS = LETTERS.index("<unk>"), LETTERS.index("</s>")
NUMBER = np.full(128, UNKNOWN)  # of each ASCII character
NUMBER[[ord(letter) for letter in pronunciations.LETTERS]] = np.arange(WORD_ENDS + 1, len(LETTERS))


def numbered(words: list[str]) -> tuple[Array, Array]:
    """The numbers of their letters and of the end behind each word, (S, B); the lengths (B,)."""
    characters = np.frombuffer("".join(words).encode("utf-32-le"), "<u4")
    lengths = np.array([len(word) for word in words])
    letters = np.full((len(words), lengths.max() + 1), WORD_ENDS)
    letters[np.arange(letters.shape[1]) < lengths[:, None]] = NUMBER[np.minimum(characters, 127)]
    return letters.T, lengths + 1


def folded(vectors: Array, layer: Any) -> tuple[Array, fastrnn.GRU]:
    """The embedding and W_ih as one table of pre-activations, and the layer that takes those."""
    bare = fastrnn.GRU(None, layer.hidden_size, dtype=layer.dtype)
    for name, weight in bare.weights.items():
        weight[...] = layer.weights[name]
    return vectors @ layer.weights["weight_ih_l0"].T, bare


class G2P:
    """The converted network: a word's phonemes, or those of many words."""

    def __init__(self, arrays: Any) -> None:
        def gru(name: str) -> tuple[Array, fastrnn.GRU]:
            weights = {w: arrays[f"{name}_{w}"] for w in ("w_ih", "w_hh", "b_ih", "b_hh")}
            layer = convert.from_arrays("gru", order="rzn", **weights)
            return folded(arrays[f"{name}_emb"], layer)

        self.letters, self.encoder = gru("enc")
        self.phonemes, self.decoder = gru("dec")
        self.head = fastrnn.Linear(self.decoder.hidden_size, len(PHONEMES))
        self.head.weights["weight"][...] = arrays["fc_w"]
        self.head.weights["bias"][...] = arrays["fc_b"]

        self.reading, self.saying = self.encoder.stream(), self.decoder.stream()
        self.before = np.zeros_like(self.reading.state)
        self.h = np.empty(self.decoder.hidden_size, self.head.dtype)

    def __call__(self, word: str) -> list[str]:
        """The likeliest phoneme at each step, which is what the decoder reads at the next."""
        self.reading.state = self.before
        read = self.reading.run(self.letters[numbered([word])[0][:, 0]])
        self.saying.state = read[-1].reshape(self.before.shape)
        weight, bias = self.head.weights["weight"], self.head.weights["bias"]
        said: list[str] = []
        phoneme = START
        while len(said) < LONGEST:
            self.saying.step(self.phonemes[phoneme], out=self.h)
            # Of one row NumPy's product is quicker than the call of self.head.
            phoneme = int((weight @ self.h + bias).argmax())
            if phoneme == END:
                break
            said.append(PHONEMES[phoneme])
        return said

    def many(self, words: Sequence[str]) -> list[list[str]]:
        """The phonemes of each word."""
        ordered = sorted(set(words))
        starts = range(0, len(ordered), SIDE_BY_SIDE)
        parts = [ordered[start : start + SIDE_BY_SIDE] for start in starts]
        # A layer serves many threads. With words of their own they do not wait for one another at
        # every step, and what NumPy does between two steps is shared by them too.
        with ThreadPoolExecutor(fastrnn.get_num_threads()) as threads:
            said = dict(chain.from_iterable(threads.map(self._part, parts)))
        return [said[word] for word in words]

    def _part(self, words: list[str]) -> list[tuple[str, list[str]]]:
        with fastrnn.num_threads(1):
            return list(zip(words, self._decode(self._encode(words)), strict=True))

    def _encode(self, words: list[str]) -> Array:
        """(1, B, H): the encoder's state at the end of each word.

        Where a word begins as the one before it does, both share that state: each row of h is of
        one beginning, and `row` says which is whose. So words are best in alphabetical order.
        """
        letters, lengths = numbered(words)
        new = np.ones(letters.shape, bool)  # it does not begin as the one before does
        new[:, 1:] = np.logical_or.accumulate(letters[:, 1:] != letters[:, :-1])
        h, row = self.before, np.zeros(len(words), int)
        last = np.empty((1, len(words), h.shape[-1]), h.dtype)
        for t, letter in enumerate(letters):
            begins = new[t] & (t < lengths)
            x = self.letters[letter[begins]][None]
            _, h = self.encoder(x, h[:, row[begins]])
            row = np.cumsum(begins) - 1
            ends = np.flatnonzero(lengths == t + 1)
            last[:, ends] = h[:, row[ends]]
        return last

    def _decode(self, h: Array) -> Iterator[list[str]]:
        """Greedily, as for one word; a row leaves when its word has ended."""
        said = np.full((h.shape[1], LONGEST + 1), END)
        rows, phonemes = np.arange(len(said)), np.full(len(said), START)
        for t in range(LONGEST):
            _, h = self.decoder(self.phonemes[phonemes][None], h)
            phonemes = self.head(h[0]).argmax(-1)
            said[rows, t] = phonemes
            on = np.flatnonzero(phonemes != END)
            if not len(on):
                break
            rows, phonemes, h = rows[on], phonemes[on], h[:, on]
        for numbers in said.tolist():
            yield [PHONEMES[number] for number in numbers[: numbers.index(END)]]


def load(wheel: str | None = None) -> G2P:
    """The network of the package that is installed, or of the wheel."""
    file = io.BytesIO(wheels.read("g2p_en", "checkpoint20.npz", wheel))
    with np.load(file, allow_pickle=False) as arrays:
        return G2P(arrays)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    wheels.add_option(parser, "g2p_en")
    words = ["recurrent", "activationist", "pronunciation", "recursion"]
    parser.add_argument("words", nargs="*", metavar="WORD", default=words)
    parser.add_argument("--smoke", action="store_true", help="it is short anyway")
    options = parser.parse_args(arguments)
    g2p = load(options.wheel)
    words = [word.lower() for word in options.words]
    for word, together in zip(words, g2p.many(words), strict=True):
        alone = g2p(word)
        print(f"{word:16} {' '.join(alone)}{'' if alone == together else '  (not side by side)'}")


if __name__ == "__main__":
    main()
