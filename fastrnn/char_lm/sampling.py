"""The command ``fastrnn sample``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .text import CharLMError
from .training import Model, load_model_file


@dataclass(frozen=True)
class SampleOptions:
    """The command line of ``fastrnn sample``.

    Attributes
    ----------
    model : str
        The file that `fastrnn train` saved.
    prompt : str or None
        What to go on from. None: the beginning of a line.
    length : int
        How many characters to write at most.
    temperature : float
        What the logits are divided by.
    seed : int or None
    top_k : int or None
        Only the most probable ones are drawn from, this many.
    top_p : float or None
        Only the most probable ones are, as few as together have this probability.
    stop : str or None
        The end of what is written, if it comes.
    stream : bool
        Whether to print each character as soon as it is there.
    """

    model: str
    prompt: str | None
    length: int
    temperature: float
    seed: int | None
    top_k: int | None = None
    top_p: float | None = None
    stop: str | None = None
    stream: bool = False


def sample(options: SampleOptions) -> int:
    """Run ``fastrnn sample``: print the prompt and what the model goes on to write.

    Returns
    -------
    int
        The exit status, 0.

    Raises
    ------
    CharLMError
        With one line on what the user can mend.
    """
    _check(options)
    model = Model.loaded(options.model, load_model_file(options.model))
    pieces = _pieces(model, options)
    if not options.stream:
        print("".join(pieces))
        return 0
    print(next(pieces), end="", flush=True)
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    finally:  # Ctrl-C, too, leaves the shell a line of its own
        print(flush=True)
    return 0


def _check(options: SampleOptions) -> None:
    if options.length < 0:
        raise CharLMError(f"length is {options.length}, expected at least 0")
    if not 0 <= options.temperature < math.inf:
        raise CharLMError(
            f"temperature is {options.temperature}, expected a finite number, at least 0"
        )
    if options.seed is not None and options.seed < 0:
        raise CharLMError(f"seed is {options.seed}, expected at least 0")
    if options.top_k is not None and options.top_k < 1:
        raise CharLMError(f"top-k is {options.top_k}, expected at least 1")
    if options.top_p is not None and not 0 < options.top_p <= 1:
        raise CharLMError(f"top-p is {options.top_p}, expected a number above 0, at most 1")
    if options.stop == "":
        raise CharLMError("stop is empty: name the text to end with, or leave --stop out")


def _pieces(model: Model, options: SampleOptions) -> Iterator[str]:
    """The prompt, and what comes behind it: at once, or character after character."""
    stop = options.stop
    if stop is not None:
        model.numbers(stop, "--stop")
    choice: dict[str, Any] = {"temperature": options.temperature}
    choice |= {
        name: value
        for name, value in (("top_k", options.top_k), ("top_p", options.top_p))
        if value is not None
    }
    arguments = options.prompt or model.start(), options.length, options.seed
    try:
        if not options.stream and stop is None:
            written = model.write(*arguments, **choice)
            yield options.prompt or ""
            yield written
            return
        characters = model.write_on(*arguments, **choice)
        yield options.prompt or ""
        end = ""
        for character in characters:
            yield character
            if stop is not None:
                end = (end + character)[-len(stop) :]
                if end == stop:
                    return
    except ValueError as error:  # weights that have become NaN
        raise CharLMError(f"{options.model}: {error}") from None
