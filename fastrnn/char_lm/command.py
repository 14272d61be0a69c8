"""The command ``fastrnn train``."""

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
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from typing import Any

import numpy as np

from .. import config, runtime
from .._formats import name_of_other_format
from ..io import Loaded
from ..layers import Dropout
from ..outputs import OutputError, check_output, check_plot, same_file, save_plot
from .corpus import Corpus, Settings, blocks, unigram_bits, witten_bell_bits
from .text import HELP_TOPICS, CharLMError, check_files
from .training import BLOCK, Model, Training, files_of, load_model_file, settings_of

DEFAULT_OUTPUT = "char_lm.safetensors"


@dataclass(frozen=True)
class TrainOptions:
    """The command line of ``fastrnn train``. What is None there has its default in Settings.

    Attributes
    ----------
    texts : list of str
        The files to train on, one behind the other. Empty: with `resume` those of that run, else
        Python's help texts.
    output : str or None
        The file to write. None: with `resume` and the same text that file, else the first name
        that is free.
    resume : bool or str
        The file to go on from; True: the output file.
    force : bool
        Whether to replace a file that is there.
    plot : str or None
        Where to draw the losses.
    settings : dict
        Of the fields of `Settings`, those that were given.
    """

    texts: list[str]
    output: str | None
    resume: bool | str
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
    check_files(options.texts)
    run, path = _resumed(options) if options.resume else _begun(options)
    if options.plot is not None:
        _check_plot(options, path)
    corpus = run.corpus
    for note in corpus.notes:
        print(note)
    print(f"{corpus.name}: {len(corpus.ids):,} characters, {len(corpus.characters)} different")
    weights = sum(len(layer.flat_weights) for layer in run.model.layers())
    embedding, rnn, head = run.model.layers()
    dropout = [Dropout(run.settings.dropout)] if run.settings.dropout else []
    layers = ", ".join(map(repr, (embedding, rnn, *dropout, head)))
    threads, isa = runtime.get_num_threads(), runtime.get_isa()
    print(f"{layers}: {weights:,} weights; {threads} threads, {isa}")
    reserved = _reserved(options, path)
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
        _report(run, path, seconds)
    if options.plot is not None:
        _plot(run, options.plot)
    return 0


def _go_on(options: TrainOptions, path: str) -> str:
    """The command that resumes a run."""
    program = sys.argv[0] if os.path.basename(sys.argv[0]) == "fastrnn" else "fastrnn"
    words = [program, "train", "--resume" if path == DEFAULT_OUTPUT else f"--resume={path}"]
    words += [] if options.plot is None else [f"--plot={options.plot}"]
    words += ["--force"] if options.plot and options.force else []
    words += ["--", *options.texts] if options.texts else []
    return shlex.join(words)


def _reserved(options: TrainOptions, path: str | None) -> str | None:
    """The name of a new file, taken at once by an empty one: no two runs write to it.

    None where the file may be replaced.
    """
    if path is None:
        return _free_name()
    if options.force or options.resume is True:
        return None
    if options.resume and same_file(path, str(options.resume)):
        return None
    try:
        with open(path, "x"):
            return path
    except FileExistsError:  # it was not there when the text began to be read
        raise CharLMError(f"{path} exists by now, from another run: {EXISTS}") from None
    except OSError as error:
        raise CharLMError(f"cannot write {path}: {error.strerror}") from None


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
        _check_model(options, path)
    settings = Settings(**{name: v for name, v in options.settings.items() if v is not None})
    settings.check()
    corpus = Corpus.read(options.texts)
    corpus.check(settings)
    try:
        return Training(corpus, settings), path
    except ValueError as error:  # weights beyond the address space
        raise CharLMError(str(error)) from None


EXISTS = "go on with --resume, replace it with --force, or choose another name with --output"


def _check_model(options: TrainOptions, path: str) -> None:
    """Raise CharLMError if a model may not be written there."""
    if other := name_of_other_format(path):
        raise CharLMError(f"cannot write {path}: {other}")
    try:
        check_output(path, options.force, EXISTS)
    except OutputError as error:
        raise CharLMError(str(error)) from None
    if any(same_file(path, text) for text in options.texts):
        raise CharLMError(f"{path} is the text: it is not to be replaced by the model")


# What a run may go on with: at any time, and only from the beginning of a text.
CHANGEABLE = ("epochs", "lr", "max_norm", "dropout")
WITH_OTHER_TEXT = ("batch_size", "steps")


def _resumed(options: TrainOptions) -> tuple[Training, str | None]:
    """The run that goes on from a file, and where it is saved."""
    path = options.output
    begun_path = options.resume if isinstance(options.resume, str) else path or DEFAULT_OUTPUT
    try:
        file = load_model_file(begun_path)
    except CharLMError as error:
        if options.resume is True:
            raise
        raise CharLMError(f"{error}; behind --resume stands a model: --resume MODEL TEXT") from None
    begun = settings_of(begun_path, file)
    changed = {
        name: value
        for name, value in options.settings.items()
        if value is not None and value != getattr(begun, name)
    }
    _refuse(begun_path, begun, changed, (*CHANGEABLE, *WITH_OTHER_TEXT), "")
    settings = replace(begun, **changed)
    settings.check()
    if path is not None and not same_file(path, begun_path):
        _check_model(options, path)
    corpus = Corpus.read(options.texts) if options.texts else _same_text(begun_path, file, options)
    if file.metadata.get("text") != corpus.digest:
        corpus.check(settings)
        run = Training.with_other_text(begun_path, file, corpus, settings, _written(options))
        print(f"going on from {begun_path} with another text, {corpus.name}:")
        print("  kept are the weights and Adam's means; the steps and epochs, the learning rate's")
        print("  rise and fall, the losses, the held-out part and its figures begin anew")
        _tell_changes(begun, changed)
        return run, path
    _refuse(begun_path, begun, changed, CHANGEABLE, " on the same text")
    if changed:
        run = _changed(begun_path, file, corpus, begun, settings)
        _tell_changes(begun, changed)
        print(f"  the learning rate is {run.learning_rate():.3g} now")
    else:
        run = Training.resumed(begun_path, file, corpus, settings)
        if run.step_count == run.total:
            every = "its" if settings.epochs == 1 else "all its"
            print(
                f"{begun_path} has {every} {_epochs(settings.epochs)} behind it; "
                f"--epochs {2 * settings.epochs} goes on"
            )
    return run, path or begun_path


def _written(options: TrainOptions) -> list[str]:
    """The options that say what is written where."""
    words = [] if options.output is None else [f"--output={options.output}"]
    words += [] if options.plot is None else [f"--plot={options.plot}"]
    return words + ["--force"] * options.force


def _same_text(path: str, file: Loaded, options: TrainOptions) -> Corpus:
    """The text that a run was begun with; CharLMError where that is not there any more."""

    def naming(*texts: str) -> str:
        given = [
            f"--{name.replace('_', '-')}={value}"
            for name, value in options.settings.items()
            if value is not None
        ]
        words = ["fastrnn", "train", f"--resume={path}", *given, *_written(options)]
        return shlex.join([*words, "--", *texts])

    try:
        corpus = Corpus.read(files_of(path, file))
    except CharLMError as error:
        raise CharLMError(f"{error}; if the text is elsewhere by now: {naming('TEXT')}") from None
    if file.metadata.get("text") == corpus.digest:
        return corpus
    what = ", as it is now: to go on with this as a new text, name it"
    if not corpus.files:
        what = "; name that, or the one to go on with"
    raise CharLMError(
        f"{path}: it was trained on another text than {corpus.name}{what}: "
        f"{naming(*(corpus.files or ['TEXT']))}"
    )


def _changed(
    path: str, file: Loaded, corpus: Corpus, begun: Settings, settings: Settings
) -> Training:
    """A run that goes on with other settings on the same text."""
    steps = Training.resumed(path, file, corpus, begun).step_count
    fresh = Training(corpus, settings, Model.loaded(path, file))
    if steps >= fresh.total:
        epochs = steps // fresh.steps_per_epoch
        raise CharLMError(
            f"{path} has {_epochs(epochs)} behind it: add --epochs with a larger number, such as "
            f"--epochs {2 * max(epochs, 1)}, to go on"
        )
    print(f"going on from {path} after step {steps:,} of now {fresh.total:,}:")
    return Training.resumed(path, file, corpus, settings)


def _refuse(
    path: str, begun: Settings, changed: dict[str, Any], allowed: tuple[str, ...], when: str
) -> None:
    for name, value in changed.items():
        if name not in allowed:
            raise CharLMError(
                f"{path} was begun with {name} = {getattr(begun, name)}: it cannot go on with "
                f"{value}{when}; leave --{name.replace('_', '-')} out, or begin a new run without "
                "--resume"
            )


def _tell_changes(begun: Settings, changed: dict[str, Any]) -> None:
    for name, value in changed.items():
        print(f"  {name.replace('_', '-')}: {value}, where it was {getattr(begun, name)}")


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
    begin = time.perf_counter()
    speed = _Speed(run)
    estimate = _Estimate(run)
    with _bar(run) as bar:
        say: Any = partial(print, flush=True)
        if bar is not None:
            say = partial(bar.write, file=sys.stdout)
        while not interrupted():
            if len(run.held_out) < run.epochs():  # here, too, after a run that was interrupted then
                bits = run.model.bits(run.corpus.held_out, interrupted)
                if bits is None:
                    break
                if not math.isfinite(bits):
                    raise CharLMError(
                        "the weights have grown out of range: try a lower learning rate"
                    )
                run.held_out.append(bits)
                run.save(path)
                of_epoch = statistics.fmean(run.losses[-run.steps_per_epoch :])
                say(
                    f"epoch {run.epochs():3}/{run.settings.epochs}  {of_epoch:.3f} bits per "
                    f"character, held out {bits:.3f}{speed.of_epoch()}"
                )
                continue
            if run.step_count == run.total:
                break
            characters = run.step()
            speed.read += characters
            if line := estimate.line():
                say(line)
            if bar is not None:
                bar.update(characters)
                bar.set_postfix_str(f"{run.losses[-1]:.3f} bits", refresh=False)
    return time.perf_counter() - begin


class _Speed:
    """How fast an epoch was, and what that means for those to come."""

    def __init__(self, run: Training) -> None:
        self.run, self.read, self.begin = run, 0, time.perf_counter()

    def of_epoch(self) -> str:
        """What there is to tell at the end of one; the next begins."""
        now, run = time.perf_counter(), self.run
        read, seconds = self.read, now - self.begin
        self.read, self.begin = 0, now
        if not read:  # it was read before this run
            return ""
        left = seconds / read * len(run.corpus.train) * (run.settings.epochs - run.epochs())
        return f"; {read / seconds:,.0f} characters/s, {duration(left)} left"


class _Estimate:
    """How long a run will take, by its first steps; told once, where that is minutes."""

    MEASURED = 1.0  # seconds, after a first step that has memory and threads to make

    def __init__(self, run: Training) -> None:
        self.run = run
        self.first: tuple[float, int] | None = None
        self.told = False

    def line(self) -> str:
        """What there is to tell after a step; most often ""."""
        if self.told:
            return ""
        run, now = self.run, time.perf_counter()
        if self.first is None:
            self.first = now, run.step_count
            return ""
        if now - self.first[0] < self.MEASURED:
            return ""
        self.told = True
        seconds = (now - self.first[0]) / (run.step_count - self.first[1])
        seconds *= run.total - run.step_count
        epochs = run.settings.epochs - run.step_count // run.steps_per_epoch
        some = run.corpus.held_out[:BLOCK]  # all is read after each epoch
        run.model.bits(some)
        of_some = time.perf_counter() - now
        seconds += of_some * len(run.corpus.held_out) / len(some) * epochs
        if seconds < 60:
            return ""
        return f"about {duration(seconds)} for {_epochs(epochs)}; Ctrl-C saves and stops"


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def duration(seconds: float) -> str:
    """In words, to two figures."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"


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


def _report(run: Training, path: str, seconds: float) -> None:
    corpus, settings = run.corpus, run.settings
    unigram, epochs = unigram_bits(corpus), _epochs(settings.epochs)
    rows = [
        (run.held_out[-1], f"this network, {epochs}; {seconds:.1f} s in this run"),
        (witten_bell_bits(corpus), "Witten-Bell model, 3 characters of context"),
        (unigram, "knowing only how often each character occurs"),
    ]
    if corpus.name == HELP_TOPICS:  # measured once, on Python 3.11's text and another machine
        plain = "plain NumPy Elman network of 256 units, 24 epochs; 88 s (noted once, not run here)"
        rows.insert(1, (1.94, plain))
    print("\nheld out, bits per character")
    for bits, what in rows:
        print(f"  {bits:.3f}  {what}")
    if run.held_out[-1] >= unigram:
        print(_no_better(run, path, unigram))

    temperature = 0.7
    text = run.model.write(run.model.start(), 2000, settings.seed, temperature=temperature)
    print(f"\nsample at temperature {temperature}\n\n{text[:500]}\n")
    words = _words(text)
    known = _known_words(corpus, set(words))
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


def _no_better(run: Training, path: str, unigram: float) -> str:
    """What to do with a network that is no better than counting characters."""
    if statistics.fmean(run.losses[-run.steps_per_epoch :]) < unigram:
        return (
            "the network has learnt the training text, but nothing that holds for the held-out "
            "tenth:\na longer text helps, or --dropout"
        )
    words = ["fastrnn", "train", f"--resume={path}", f"--epochs={4 * run.settings.epochs}"]
    return f"the network has learnt nothing yet: more epochs help:\n  {shlex.join(words)}"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{4,}", text)


def _known_words(corpus: Corpus, wanted: set[str]) -> set[str]:
    """Which of these words occur in the training text. It is read in pieces."""
    known: set[str] = set()
    longest = max(map(len, wanted), default=0)
    rest = ""  # the letters at the end of a piece, which may go on in the next
    for block in blocks(corpus.train):
        piece = rest + corpus.text(block)
        letters = re.match(r"[^\W\d_]*", piece[::-1])
        end = len(piece) - len(letters[0] if letters else "")
        known |= wanted.intersection(_words(piece[:end]))
        rest = piece[end:][-(longest + 1) :]  # what is longer is none of these words
    return known | wanted.intersection(_words(rest))


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
    if path is None and not options.resume and os.path.lexists(DEFAULT_OUTPUT):
        cure["cure"] = f"choose another name, or replace it and {DEFAULT_OUTPUT} with --force"
    try:
        check_plot(plot, force=True)
        # These --force does not replace either.
        if any(same_file(plot, other) for other in (*options.texts, path)):
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
