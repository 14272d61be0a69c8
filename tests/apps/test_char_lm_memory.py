"""A text takes at most 12 bytes a character, whatever is in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SIZE = 4_000_000

# All that `fastrnn train` does with a text but the other steps. VmHWM is the peak of this process
# alone; what is there before is made once by a small text.
RUN = """
import sys
from fastrnn.char_lm.command import _known_words, compare
from fastrnn.char_lm.corpus import Corpus, Settings, unigram_bits, witten_bell_bits
from fastrnn.char_lm.training import Training

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

def use(name):
    corpus = Corpus.read([name])
    settings = Settings(hidden_size=8, embedding_dim=4, batch_size=4, steps=8)
    corpus.check(settings)
    begun = peak()
    run = Training(corpus, settings)
    run.step()
    run.save("model")
    run.model.bits(corpus.held_out[:100])
    compare(corpus, settings, 1)
    unigram_bits(corpus), witten_bell_bits(corpus), _known_words(corpus, {"word"})
    return len(corpus.ids), begun

use("small")
before = peak()
size, begun = use("large")
print((begun - before) / size, (peak() - before) / size)
"""


def letters(kind: str) -> str:
    rng = np.random.default_rng(0)
    if kind == "words":
        lexicon = ["".join(map(chr, rng.integers(97, 123, n))) for n in rng.integers(2, 9, 999)]
        return " ".join(lexicon[i] for i in rng.zipf(1.3, SIZE // 3) % 999)[:SIZE]
    if kind == "two letters":
        return (rng.integers(0, 2, SIZE, np.uint8) + ord("a")).tobytes().decode()
    if kind == "Latin-1":  # random, so that hardly a group of four comes twice
        return rng.integers(160, 256, SIZE, np.uint8).tobytes().decode("latin-1")
    ids = rng.integers(0x4E00, 0x4E00 + 3000, SIZE, np.uint32)
    return ids.tobytes().decode("utf-32")


@pytest.mark.parametrize("kind", ["words", "two letters", "Latin-1", "Chinese"])
def test_memory_for_a_character(kind: str, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak is read from /proc")
    whole = letters(kind)
    (tmp_path / "large").write_text(whole, "utf-8")
    (tmp_path / "small").write_text(whole[:30_000], "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    begun, whole_run = map(float, done.stdout.split())
    # Read: the numbers twice, of one or two bytes. Later: those once, and a part of all grams.
    assert begun < 6
    assert whole_run < 12
