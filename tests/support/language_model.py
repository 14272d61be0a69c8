"""What the tests of the language model share: a small run, a text with something to learn."""

from __future__ import annotations

import random
import sys

from fastrnn.char_lm.corpus import Corpus, Settings

SMALL = Settings(embedding_dim=5, hidden_size=9, batch_size=4, steps=8, epochs=3, lr=0.01)
OPTIONS = [
    f"--{name.replace('_', '-')}={getattr(SMALL, name)}"
    for name in ("embedding_dim", "hidden_size", "batch_size", "steps", "epochs", "lr")
]


def pseudo_text(words: int = 250, seed: int = 0) -> str:
    """Words drawn again and again from a few, so that there is something to learn."""
    rng = random.Random(seed)
    lexicon = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 7))) for _ in range(12)]
    return " ".join(rng.choices(lexicon, k=words)) + "\n"


TEXT = pseudo_text()


def split(text: str = TEXT, settings: Settings = SMALL) -> Corpus:
    corpus = Corpus.of("a text", [text])
    corpus.check(settings)
    return corpus


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-u", "-m", "fastrnn", *arguments]
