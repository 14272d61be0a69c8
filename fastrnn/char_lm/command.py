"""The commands ``fastrnn train`` and ``fastrnn sample``."""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np

from .. import config, runtime
from ..outputs import OutputError, check_output, check_plot, same_file, save_plot
from .corpus import (
    HELP_TOPICS,
    CharLMError,
    Corpus,
    Settings,
    read_text,
    unigram_bits,
    witten_bell_bits,
)
from .training import Model, Training, load_model_file, settings_of

DEFAULT_OUTPUT = "char_lm.safetensors"


@dataclass(frozen=True)
class TrainOptions:
    """The command line of ``fastrnn train``. What is None there has its default in Settings.

    Attributes
    ----------
    text : str or None
        The file to train on. None: Python's help texts.
    output : str or None
        The file to write, or with `resume` to go on from. None: the first name that is free.
    resume, force : bool
        Whether to go on from that file, and whether to replace one that is there.
    plot : str or None
        Where to draw the losses.
    settings : dict
        Of the fields of `Settings`, those that were given.
    """

    text: str | None
    output: str | None
    resume: bool
    force: bool
    plot: str | None
    settings: dict[str, Any]


def train(options: TrainOptions) -> int:
    """Run ``fastrnn train``.

    Returns
    -------
    int
        The exit status: 0, or 128 and the number of the signal that stopped it, 130 for Ctrl-C.

    Raises
    ------
    CharLMError
        With one line on what the user can mend.
    """
    run, path = _resumed(options) if options.resume else _begun(options)
    if options.plot is not None:
        _check_plot(options, path)
    corpus = run.corpus
    print(f"{corpus.name}: {len(corpus.text):,} characters, {len(corpus.characters)} different")
    weights = sum(len(layer.flat_weights) for layer in run.model.layers())
    layers = ", ".join(map(repr, run.model.layers()))
    threads, isa = runtime.get_num_threads(), runtime.get_isa()
    print(f"{layers}: {weights:,} weights; {threads} threads, {isa}")
    reserved = None if path else _free_name()
    path = path or reserved
    assert path is not None
    try:
        run.save(path)  # to fail now, and not after the training
    except BaseException:
        if reserved:
            os.unlink(reserved)
        raise
    print(f"saved to {path} after every epoch; Ctrl-C saves and stops", flush=True)
    with _interrupts() as interrupted, np.errstate(all="ignore"):
        seconds = _run(run, path, interrupted)
        if number := interrupted():
            run.save(path)
            print(f"stopped after step {run.step_count} of {run.total}, saved; to go on:")
            print(f"  {_go_on(options, path)}", flush=True)
            return 128 + number
    with np.errstate(all="ignore"):
        _report(run, seconds)
    if options.plot is not None:
        _plot(run, options.plot)
    return 0


def _go_on(options: TrainOptions, path: str) -> str:
    """The command that resumes a run."""
    program = sys.argv[0] if os.path.basename(sys.argv[0]) == "fastrnn" else "fastrnn"
    words = [program, "train", "--resume"]
    words += [] if path == DEFAULT_OUTPUT else [f"--output={path}"]
    words += [] if options.plot is None else [f"--plot={options.plot}"]
    words += ["--force"] if options.plot and options.force else []
    words += [] if options.text is None else ["--", options.text]
    return shlex.join(words)


def _free_name() -> str:
    """The default name or the next one that is free; an empty file takes it at once."""
    stem, end = os.path.splitext(DEFAULT_OUTPUT)
    for name in chain([DEFAULT_OUTPUT], (f"{stem}-{n}{end}" for n in count(2))):
        try:
            with open(name, "x"):
                return name
        except FileExistsError:
            continue
        except OSError as error:
            raise CharLMError(f"cannot write {name}: {error.strerror}") from None
    raise AssertionError("there is always another number")


def _begun(options: TrainOptions) -> tuple[Training, str | None]:
    """A new run, and where it is saved; None where the name is still to be found."""
    path = options.output
    if path is None and options.force:
        path = DEFAULT_OUTPUT
    if path is not None:
        cure = "go on with --resume, replace it with --force, or choose another name with --output"
        try:
            check_output(path, options.force, cure)
        except OutputError as error:
            raise CharLMError(str(error)) from None
        if same_file(path, options.text):
            raise CharLMError(f"{path} is the text: it is not to be replaced by the model")
    settings = Settings(**{name: v for name, v in options.settings.items() if v is not None})
    settings.check()
    corpus = Corpus.of(*read_text(options.text), settings)
    try:
        return Training(corpus, settings), path
    except ValueError as error:  # weights beyond the address space
        raise CharLMError(str(error)) from None


def _resumed(options: TrainOptions) -> tuple[Training, str]:
    """The run that was saved in a file, and the file."""
    path = DEFAULT_OUTPUT if options.output is None else options.output
    file = load_model_file(path)
    settings = settings_of(path, file)
    for name, value in options.settings.items():
        begun = getattr(settings, name)
        if value not in (None, begun):
            raise CharLMError(
                f"{path} was begun with {name} = {begun}: it cannot go on with {value}"
            )
    corpus = Corpus.of(*read_text(options.text), settings)
    return Training.resumed(path, file, corpus, settings), path


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _interrupts() -> Iterator[Callable[[], int]]:
    """Turn the first signal to stop into an answer to be asked for between steps: its number.

    A step that is cut off in the middle would leave weights that no uninterrupted run has. The
    second signal acts.
    """
    caught = 0

    def handler(number: int, frame: Any) -> None:
        nonlocal caught
        if caught:
            raise KeyboardInterrupt
        caught = number

    before = {}
    if threading.current_thread() is threading.main_thread():  # only that one may set handlers
        for s in SIGNALS:
            if signal.getsignal(s) is not signal.SIG_IGN:  # as a background job is started
                before[s] = signal.signal(s, handler)
    try:
        yield lambda: caught
    finally:
        for s, old in before.items():
            signal.signal(s, old)


def _run(run: Training, path: str, interrupted: Callable[[], int]) -> float:
    """Train to the end or until interrupted; returns the seconds spent."""
    begin, epoch_begin, read = time.perf_counter(), time.perf_counter(), 0
    size = len(run.corpus.train)
    with _bar(run) as bar:
        while run.step_count < run.total and not interrupted():
            characters = run.step()
            read += characters
            if bar is not None:
                bar.update(characters)
                bar.set_postfix_str(f"{run.losses[-1]:.3f} bits", refresh=False)
            epoch, rest = divmod(run.step_count, run.steps_per_epoch)
            if rest:
                continue
            bits = run.model.bits(run.corpus.held_out)
            if not math.isfinite(bits):
                raise CharLMError("the weights have grown out of range: try a lower learning rate")
            run.held_out.append(bits)
            run.save(path)
            now = time.perf_counter()
            of_epoch = statistics.fmean(run.losses[-run.steps_per_epoch :])
            left = (now - begin) / read * size * (run.settings.epochs - epoch)
            line = (
                f"epoch {epoch:3}/{run.settings.epochs}  {of_epoch:.3f} bits per character, "
                f"held out {run.held_out[-1]:.3f}; {size / (now - epoch_begin):,.0f} "
                f"characters/s, {left:.0f} s left"
            )
            epoch_begin = now
            if bar is None:
                print(line, flush=True)
            else:
                bar.write(line, file=sys.stdout)
    return time.perf_counter() - begin


@contextmanager
def _bar(run: Training) -> Iterator[Any]:
    """A progress bar on a terminal, where tqdm is installed; else None."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    total = run.inputs.size * run.settings.epochs
    done = run.step_count * run.settings.steps * run.settings.batch_size
    with tqdm(
        total=total, initial=min(done, total), unit=" characters", unit_scale=True, leave=False
    ) as bar:
        yield bar


def _report(run: Training, seconds: float) -> None:
    corpus, settings = run.corpus, run.settings
    rows = [
        (run.held_out[-1], f"this network, {settings.epochs} epochs; {seconds:.1f} s in this run"),
        (witten_bell_bits(corpus), "Witten-Bell model, 3 characters of context"),
        (unigram_bits(corpus), "knowing only how often each character occurs"),
    ]
    if corpus.name == HELP_TOPICS:  # measured once, on Python 3.11's text and another machine
        plain = "plain NumPy Elman network of 256 units, 24 epochs; 88 s (noted once, not run here)"
        rows.insert(1, (1.94, plain))
    print("\nheld out, bits per character")
    for bits, what in rows:
        print(f"  {bits:.3f}  {what}")

    temperature = 0.7
    text = run.model.write(run.model.start(), 2000, temperature, settings.seed)
    print(f"\nsample at temperature {temperature}\n\n{text[:500]}\n")
    known = set(_words(corpus.text[: len(corpus.train)]))
    words = _words(text)
    share = sum(word in known for word in words) / max(len(words), 1)
    print(f"of its {len(words)} words of four or more letters in 2,000 characters, {share:.0%}")
    print("occur in the training text")

    try:
        batches, compiled, reference, difference = compare(corpus, settings)
    except CharLMError as error:
        print(f"\nno comparison with the NumPy reference: {error}")
        return
    print(f"\nagainst the NumPy reference, the first {batches} batches from the same weights:")
    print(f"  {reference / compiled:.1f} times as fast ({compiled * 1e3:.1f} and", end=" ")
    print(f"{reference * 1e3:.1f} ms a batch),")
    print(f"  largest difference of a loss {difference:.1e} bits per character")


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{4,}", text)


def compare(
    corpus: Corpus, settings: Settings, batches: int = 8
) -> tuple[int, float, float, float]:
    """Train on the first batches with both backends, one after the other.

    Not in turns: the threads of NumPy's matrix library go on spinning for some time after a call,
    on the processors that the compiled call behind it needs.

    Returns
    -------
    tuple
        The number of batches; the median seconds of one, compiled and by the reference; and the
        largest difference of their losses, in bits per character.
    """
    runs = {name: Training(corpus, settings) for name in config.BACKENDS}
    batches = min(batches, runs["compiled"].total)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        with config.backend(name):
            for _ in range(batches):
                begin = time.perf_counter()
                run.step()
                seconds[name].append(time.perf_counter() - begin)
    losses = [np.array(run.losses) for run in runs.values()]
    compiled, reference = (statistics.median(seconds[name]) for name in ("compiled", "reference"))
    return batches, compiled, reference, float(np.abs(losses[0] - losses[1]).max())


def _check_plot(options: TrainOptions, path: str | None) -> None:
    """Raise CharLMError if the picture could not be drawn: now, and not after the training."""
    plot = options.plot or ""
    cure = {}
    if path is None and os.path.lexists(DEFAULT_OUTPUT):
        cure["cure"] = f"choose another name, or replace it and {DEFAULT_OUTPUT} with --force"
    try:
        check_plot(plot, force=True)
        if same_file(plot, options.text) or same_file(plot, path):  # --force does not replace these
            raise OutputError(f"--plot {plot}: that is the text or the model")
        check_plot(plot, options.force, **cure)
    except OutputError as error:
        raise CharLMError(str(error)) from None


def _plot(run: Training, path: str) -> None:
    """Draw bits per character over the epochs."""
    from matplotlib.figure import Figure  # without pyplot: no display and no global state

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    epochs = (np.arange(run.total) + 1) / run.steps_per_epoch
    axes.plot(epochs, run.losses, color="0.75", linewidth=0.6, label="training, each step")
    axes.plot(np.arange(run.settings.epochs) + 1, run.held_out, "o-", color="C0", label="held out")
    for bits, label, style in (
        (witten_bell_bits(run.corpus), "Witten-Bell, 3 characters", "--"),
        (unigram_bits(run.corpus), "unigram", ":"),
    ):
        axes.axhline(bits, color="C3", linestyle=style, label=f"{label}: {bits:.2f}")
    axes.set(xlabel="epochs", ylabel="bits per character")
    axes.set_title(os.path.basename(run.corpus.name), parse_math=False)
    axes.set_ylim(min(1.0, *run.losses), max(1.1, min(6.0, max(run.losses) * 1.05)))
    axes.legend()
    try:
        save_plot(figure, path)
    except OutputError as error:
        raise CharLMError(str(error)) from None
    print(f"\ndrawn to {path}")


# ------------------------------------------------------------------------------ fastrnn sample


def sample(path: str, prompt: str | None, length: int, temperature: float, seed: int | None) -> str:
    """What ``fastrnn sample`` prints: the prompt and what the model goes on to write.

    Raises
    ------
    CharLMError
        With one line on what the user can mend.
    """
    if length < 0:
        raise CharLMError(f"length is {length}, expected at least 0")
    if not 0 <= temperature < math.inf:
        raise CharLMError(f"temperature is {temperature}, expected a finite number, at least 0")
    if seed is not None and seed < 0:
        raise CharLMError(f"seed is {seed}, expected at least 0")
    model = Model.loaded(path, load_model_file(path))
    try:
        return (prompt or "") + model.write(prompt or model.start(), length, temperature, seed)
    except ValueError as error:  # weights that have become NaN
        raise CharLMError(f"{path}: {error}") from None
