"""The language model: its text, its baselines, training, interrupted and resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from math import log2
from pathlib import Path

import numpy as np
import pytest
from language_model import OPTIONS, SMALL, TEXT, program, pseudo_text, split

import fastrnn
from fastrnn.char_lm import CharLMError, command, training
from fastrnn.char_lm.corpus import Corpus, Settings, unigram_bits, witten_bell_bits
from fastrnn.char_lm.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------ the text


def test_a_text_is_split_and_numbered() -> None:
    text = "ab\0é\U0001f600" * 60  # a null, which NumPy's strings drop at their end
    c = split(text)
    assert c.characters == "".join(sorted(set(text)))
    ids = np.concatenate([c.train, c.held_out])
    assert "".join(c.characters[i] for i in ids) == text
    assert len(c.train) == len(text) * 9 // 10


@pytest.mark.parametrize("context", range(5))
def test_witten_bell_is_its_definition(context: int) -> None:
    c = split(pseudo_text(80))
    train, held_out = c.train.tolist(), c.held_out.tolist()
    counts = {
        k: Counter(tuple(train[i : i + k + 1]) for i in range(len(train) - k))
        for k in range(context + 1)
    }

    def probability(gram: tuple[int, ...]) -> Fraction:
        shorter = probability(gram[1:]) if len(gram) > 1 else Fraction(1, len(c.characters))
        behind = [n for g, n in counts[len(gram) - 1].items() if g[:-1] == gram[:-1]]
        if not behind:
            return shorter
        seen = counts[len(gram) - 1][gram]
        return (seen + len(behind) * shorter) / (sum(behind) + len(behind))

    text = train[len(train) - context :] + held_out
    grams = [tuple(text[i : i + context + 1]) for i in range(len(held_out))]
    expected = -sum(log2(probability(gram)) for gram in grams) / len(grams)
    # A sum of len(grams) terms below 16 bits, each off by a few roundings.
    assert abs(witten_bell_bits(c, context) - expected) < 1e-12
    if context == 0:
        assert unigram_bits(c) == witten_bell_bits(c, 0)


def test_grams_too_many_for_64_bits_are_counted_all_the_same() -> None:
    text = "".join(map(chr, range(1000, 6000))) + TEXT * 2
    c = split(text)
    assert len(c.characters) ** 6 > 2**63
    assert 0 < witten_bell_bits(c, 5) < log2(len(c.characters)) + 1


def test_the_default_text() -> None:
    c = Corpus.read([])
    assert c.name == "Python's help topics"
    assert len(c.ids) > 100_000
    c.check(Settings())
    # Measured on the text of Python 3.11: 2.026 and 4.671. Other versions have similar ones.
    assert 1.8 < witten_bell_bits(c) < 2.3
    assert 4.4 < unigram_bits(c) < 5.0


# ------------------------------------------------------------------------------ training


def test_streams_cover_the_text_in_order() -> None:
    run = Training(split(), SMALL)
    per_stream = (len(run.corpus.train) - 1) // SMALL.batch_size
    used = run.corpus.train[: SMALL.batch_size * per_stream]
    assert np.array_equal(run.inputs.T.ravel(), used)
    assert np.array_equal(run.targets[:-1], run.inputs[1:])
    assert run.steps_per_epoch * SMALL.steps >= per_stream > (run.steps_per_epoch - 1) * SMALL.steps
    read = sum(run.step() for _ in range(run.steps_per_epoch))
    assert read == len(used)


def test_the_state_is_carried_within_an_epoch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Training(split(), SMALL)
    states = []
    forward = fastrnn.RNN.forward

    def watched(self, x, state=None, **options):  # type: ignore[no-untyped-def]
        states.append(None if state is None else state.copy())
        result = forward(self, x, state, **options)
        states.append(result[1].copy())
        return result

    monkeypatch.setattr(fastrnn.RNN, "forward", watched)
    for _ in range(2 * run.steps_per_epoch):
        run.step()
    came, went = states[::2], states[1::2]
    for i, state in enumerate(came):
        if i % run.steps_per_epoch == 0:
            assert state is None
        else:
            assert np.array_equal(state, went[i - 1])


def test_it_learns_and_both_backends_agree() -> None:
    settings = Settings(**{**vars(SMALL), "epochs": 8})
    compiled, reference = Training(split(), settings), Training(split(), settings)
    while compiled.step_count < compiled.total:
        compiled.step()
        with fastrnn.backend("reference"):
            reference.step()
    # The words are known after some epochs, the order of words cannot be learned.
    assert compiled.losses[-1] < 0.7 * unigram_bits(compiled.corpus)
    # The first loss sees no update. 105 log p, each off by a few times 8 + 9 roundings, average.
    assert abs(compiled.losses[0] - reference.losses[0]) < 100 * np.finfo(np.float32).eps
    batches, fast, slow, difference = command.compare(split(), settings, 5)
    assert batches == 5
    assert min(fast, slow) > 0
    assert difference == max(
        abs(a - b) for a, b in zip(compiled.losses[:5], reference.losses[:5], strict=True)
    )


def test_the_learning_rate_rises_and_falls() -> None:
    run = Training(split(), Settings(**{**vars(SMALL), "epochs": 20}))
    rates = []
    for run.step_count in range(run.total):  # noqa: B020
        rates.append(run.learning_rate())
    top = int(np.argmax(rates))
    assert 0 < top < 0.05 * run.total
    assert max(rates) <= SMALL.lr
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert 0 < rates[-1] < 0.01 * SMALL.lr


def test_bits_are_those_of_one_long_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Training(split(), SMALL)
    ids = run.corpus.held_out
    whole = run.model.bits(ids)
    embedding, rnn, head = run.model.layers()
    output, _ = rnn(embedding(ids[:-1]))
    loss, _ = fastrnn.softmax_cross_entropy(head(output), ids[1:])
    # The bits of each row are the same; the sums of 100 to 200 terms are not in one order.
    assert whole is not None
    assert abs(whole - loss / np.log(2)) < 1e-12
    monkeypatch.setattr(training, "BLOCK", 17)
    assert abs(run.model.bits(ids) - whole) < 1e-12


def test_a_gradient_that_is_not_finite_stops() -> None:
    run = Training(split(), SMALL)
    run.step()
    run.model.head.weights["bias"][...] = np.nan
    before = [layer.flat_weights.tobytes() for layer in run.model.layers()]
    with pytest.raises(CharLMError, match="the gradient is nan at step 2: try a lower"):
        run.step()
    assert [layer.flat_weights.tobytes() for layer in run.model.layers()] == before


# ------------------------------------------------------------------------------ stop and go on


def uninterrupted(path: Path) -> bytes:
    """The file of a run from beginning to end."""
    run = Training(split(), SMALL)
    command._run(run, str(path), lambda: False)
    return path.read_bytes()


def test_stopped_anywhere_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path / "whole")
    whole = fastrnn.load(tmp_path / "whole")
    total = Training(split(), SMALL).total
    per_epoch = total // SMALL.epochs
    path = tmp_path / "pieces"
    # The last one stops after every step of two epochs and the first of the third.
    several = list(range(2 * per_epoch + 2))
    for stops in ([0, per_epoch], [1, per_epoch - 1, 2 * per_epoch + 3], several):
        run = Training(split(), SMALL)
        run.save(str(path))
        for stop in [*stops, total + 1]:  # the last one is none
            command._run(run, str(path), lambda run=run, stop=stop: run.step_count >= stop)
            run.save(str(path))
            run = Training.resumed(str(path), fastrnn.load(path), split(), SMALL)
        assert path.read_bytes() == expected, f"stopped at {stops}"
        assert np.array_equal(run.losses, whole["training"]["losses"])


def test_control_c_saves_and_resume_gives_the_same_file(text_file: Path) -> None:
    long = [*OPTIONS[:4], "--epochs=15", "--lr=0.01"]
    whole = subprocess.run(
        program("train", "text.txt", "--output", "whole", *long), capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    pipe = subprocess.PIPE
    with subprocess.Popen(
        program("train", "text.txt", "--output", "it's", *long), stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        try:
            while not (line := process.stdout.readline()).startswith("epoch   3/"):
                assert line, "ended before its third epoch"
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert errors == ""
    assert "saved; to go on:" in rest
    assert Path("it's").read_bytes() != Path("whole").read_bytes()
    stopped = fastrnn.load("it's")["training"]["step_count"]
    assert stopped < fastrnn.load("whole")["training"]["step_count"]

    # What it says, a shell can run.
    shell = rest.strip().splitlines()[-1].strip()
    assert shell == "fastrnn train '--resume=it'\"'\"'s' -- text.txt"
    code = "from fastrnn.cli import main; main()"
    shell = shell.replace("fastrnn", f"{sys.executable} -c '{code}'", 1)
    resumed = subprocess.run(shell, shell=True, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert Path("it's").read_bytes() == Path("whole").read_bytes()
    # The report of both is the same but for times.
    assert whole.stdout.split("sample at")[1].split("against")[0] in resumed.stdout


@pytest.mark.parametrize("number", command.SIGNALS)
def test_a_second_signal_ends_at_once(number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # it may be ignored, as nohup does
    try:
        with command._interrupts() as interrupted:
            assert not interrupted()
            signal.raise_signal(number)
            assert interrupted() == number
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", command.SIGNALS)
def test_a_process_that_ignores_a_signal_goes_on_doing_so(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with command._interrupts() as interrupted:
            signal.raise_signal(number)
            assert not interrupted()
    finally:
        signal.signal(number, before)


def test_resume_refuses_what_does_not_belong_together(text_file: Path) -> None:
    run = Training(split(), SMALL)
    for _ in range(run.steps_per_epoch + 1):
        run.step()
    run.held_out.append(1.0)
    run.save("file")

    def refused(message: str, text: str = TEXT, change: object = None) -> None:
        file = fastrnn.load("file")
        if callable(change):
            change(file)
        with pytest.raises(CharLMError, match=message) as caught:
            Training.resumed("file", file, split(text), SMALL)
        assert "\n" not in str(caught.value)

    def change_of(**values: object) -> object:
        return lambda file: file["training"].update(values)

    refused("another text", text=TEXT + "!")
    refused("step count is out of range", change=change_of(step_count=10**9))
    refused("step count is out of range", change=change_of(step_count=-1))
    refused("step count is no integer", change=change_of(step_count=float(run.step_count)))
    refused("losses are no sequence", change=change_of(losses=np.zeros((2, 2))))
    shuffled = "".join(reversed(run.corpus.characters))
    refused("not those of the text", change=lambda f: f.metadata.update(characters=shuffled))
    refused("cannot go on", change=change_of(step_count="x"))
    refused("not a loss for each step", change=change_of(losses=np.zeros(3)))
    refused("step count is out of range", change=change_of(held_out=np.zeros(3)))
    refused("its state is not", change=change_of(state=np.zeros((1, 4, 8), np.float32)))
    refused("its state is not", change=change_of(state=np.zeros((1, 4, 9))))
    refused("cannot go on", change=lambda file: file["training"].pop("state"))
    refused("cannot go on", change=lambda file: file.pop("adam"))
    refused("cannot go on", change=lambda file: file["adam"].pop("exp_avg.0"))
    refused("not a character-level", change=lambda file: file.pop("head"))
    refused("not a character-level", change=lambda file: file.metadata.pop("kind"))
    refused("do not fit", change=lambda file: file.metadata.update(characters="abc"))
    refused("do not fit", change=lambda file: file.update(head=fastrnn.Linear(8, 9)))
    other = {**vars(SMALL), "hidden_size": 10}
    with pytest.raises(CharLMError, match="not those of its settings"):
        Training.resumed("file", fastrnn.load("file"), split(), Settings(**other))
