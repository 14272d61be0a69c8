"""The language model: its baselines, training, interrupted and resumed, and its two commands."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from math import log2
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn.char_lm import CharLMError, command, training
from fastrnn.char_lm.corpus import Corpus, Settings, read_text, unigram_bits, witten_bell_bits
from fastrnn.char_lm.training import KIND, Model, Training
from fastrnn.cli import main

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


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The conftest makes teams of the smallest calls, which here are many and prove nothing."""
    fastrnn.set_num_threads(1)


@pytest.fixture
def text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text in the current folder, which is an empty one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return path


def split(text: str = TEXT, settings: Settings = SMALL) -> Corpus:
    return Corpus.of("a text", text, settings)


def run_main(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        status = main(argv)
    except SystemExit as end:
        status = int(str(end.code))
    out, err = capsys.readouterr()
    return status, out, err


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
    name, text = read_text(None)
    assert name == "Python's help topics"
    assert len(text) > 100_000
    c = Corpus.of(name, text, Settings())
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
    settings = Settings(**{**vars(SMALL), "epochs": 12})
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
    for stops in ([0], [1], [per_epoch], [per_epoch - 1, 2 * per_epoch + 3], list(range(total))):
        run = Training(split(), SMALL)
        run.save(str(path))
        for stop in [*stops, total]:
            command._run(run, str(path), lambda run=run, stop=stop: run.step_count >= stop)
            run.save(str(path))
            run = Training.resumed(str(path), fastrnn.load(path), split(), SMALL)
        assert path.read_bytes() == expected, f"stopped at {stops}"
        assert np.array_equal(run.losses, whole["training"]["losses"])


def program(*arguments: str) -> list[str]:
    # The interpreter leaves Ctrl-C alone where its parent ignored it, as a background job does.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "import sys; from fastrnn.cli import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-u", "-c", start, *arguments]


def test_control_c_saves_and_resume_gives_the_same_file(text_file: Path) -> None:
    long = [*OPTIONS[:4], "--epochs=150", "--lr=0.01"]
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
    assert shell.startswith("fastrnn train text.txt --resume")
    code = "from fastrnn.cli import main; main()"
    shell = shell.replace("fastrnn", f"{sys.executable} -c '{code}'", 1)
    resumed = subprocess.run(shell, shell=True, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert Path("it's").read_bytes() == Path("whole").read_bytes()
    # The report of both is the same but for times.
    assert whole.stdout.split("sample at")[1].split("against")[0] in resumed.stdout


def test_a_second_control_c_ends_at_once() -> None:
    with command._interrupts() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_ignores_control_c_goes_on_doing_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with command._interrupts() as interrupted:
            signal.raise_signal(signal.SIGINT)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


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


# ------------------------------------------------------------------------------ the command line


def test_train_and_sample(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run_main(["train", "text.txt", *OPTIONS], capsys)
    assert (status, err) == (0, "")
    assert sorted(os.listdir()) == ["char_lm.safetensors", "text.txt"]
    assert "text.txt: " in out
    assert f"epoch   3/{SMALL.epochs}" in out
    for words in (
        "this network",
        "Witten-Bell",
        "how often",
        "sample at temperature 0.7",
        "words of four or more letters",
        "times as fast",
        "largest difference",
    ):
        assert words in out

    def sampled(*arguments: str) -> str:
        status, out, err = run_main(["sample", "char_lm.safetensors", *arguments], capsys)
        assert (status, err) == (0, "")
        return out

    one = sampled("--prompt", "ab", "--length", "50", "--seed", "3")
    assert one.startswith("ab")
    assert len(one) == 2 + 50 + 1
    assert one == sampled("--prompt", "ab", "--length", "50", "--seed", "3")
    assert one != sampled("--prompt", "ab", "--length", "50", "--seed", "4")
    surest = [sampled("--temperature", "0", "--seed", str(seed)) for seed in (1, 2)]
    assert surest[0] == surest[1]
    assert len(surest[0]) == 501
    assert sampled("--length", "0", "--prompt", "a") == "a\n"
    assert set(sampled("--temperature", "100")) <= set(TEXT)


def test_a_file_is_replaced_only_if_asked_to(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").write_text("mine")
    status, out, err = run_main(["train", "text.txt", "--output", "mine", *OPTIONS], capsys)
    assert (status, out) == (2, "")
    assert "mine exists: go on with --resume, replace it with --force" in err
    assert Path("mine").read_text() == "mine"
    forced = ["train", "text.txt", "--force", "--output"]
    assert run_main([*forced, "mine", *OPTIONS], capsys)[0] == 0
    assert fastrnn.load("mine").metadata["kind"] == KIND
    status, out, err = run_main([*forced, "./text.txt", *OPTIONS], capsys)
    assert (status, out) == (2, "")
    assert "is the text" in err
    assert text_file.read_text() == TEXT


def test_without_a_name_no_file_is_in_the_way(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["char_lm.safetensors", "char_lm-2.safetensors", "char_lm-3.safetensors"]
    for name in names:
        status, out, _ = run_main(["train", "text.txt", *OPTIONS], capsys)
        assert status == 0
        assert f"saved to {name} " in out
    assert len({Path(name).read_bytes() for name in names}) == 1
    Path("char_lm.safetensors").write_text("old")
    assert run_main(["train", "text.txt", "--force", *OPTIONS], capsys)[0] == 0
    assert Path(names[0]).read_bytes() == Path(names[1]).read_bytes()
    assert len(os.listdir()) == 4


def bad_files() -> None:
    """Files in the current folder that commands fall over."""
    Path("empty").write_bytes(b"")
    Path("short").write_text("too short")
    Path("binary").write_bytes(b"\xff\xfe\x00" * 999)
    Path("junk").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    fastrnn.save("other", {"rnn": fastrnn.RNN(2, 3)})
    settings = {"kind": KIND, "settings": json.dumps({"epochs": -1})}
    fastrnn.save("odd", {}, settings)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("train missing", "cannot read missing: No such file"),
        ("train .", "cannot read .: Is a directory"),
        ("train empty", "empty is empty"),
        ("train short", "short has 9 characters"),
        (
            "train text.txt --batch-size 500",
            "one batch of 500 streams of 8 characters takes 4001",
        ),
        ("train binary", "cannot read binary"),
        ("train --nonsense", "unrecognized arguments: --nonsense"),
        ("train --epochs x", "--epochs"),
        ("train text.txt --epochs 0", "epochs is 0, expected an integer >= 1"),
        ("train text.txt --lr nan", "lr is nan, expected a finite number above 0"),
        ("train text.txt --max-norm -1", "max_norm is -1"),
        ("train text.txt --seed -1", "seed is -1"),
        ("train text.txt --dtype float16", "dtype is 'float16'"),
        ("train text.txt --hidden-size 99999999999", "address space"),
        ("train text.txt --output no/such", "cannot write no/such: No such file"),
        ("train text.txt --output .", ". exists"),
        ("train text.txt --output . --force", "cannot write .: Is a directory"),
        ("train text.txt --plot no/such.png", "cannot write no/such.png"),
        ("train text.txt --plot curve.xyz", "curve.xyz: the name must end in"),
        ("train text.txt --resume", "cannot read char_lm.safetensors: No such file"),
        ("train text.txt --resume --output junk", "junk: "),
        ("train text.txt --resume --output other", "other: not a character-level"),
        ("train text.txt --resume --output odd", "odd: not a character-level"),
        ("sample", "required: MODEL"),
        ("sample missing", "cannot read missing: No such file"),
        ("sample .", "cannot read .: Is a directory"),
        ("sample empty", "empty: "),
        ("sample junk", "junk: "),
        ("sample text.txt", "text.txt: "),
        ("sample other", "other: not a character-level language model"),
        ("sample good --prompt Q", "characters that the model has not seen: 'Q'"),
        ("sample good --length -1", "length is -1"),
        ("sample good --temperature -1", "temperature is -1"),
        ("sample good --temperature inf", "temperature is inf"),
        ("sample good --seed -1", "seed is -1"),
        ("sample good --length 99999999999999999", "not enough memory"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(
    argv: str, words: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad_files()
    Training(split(), SMALL).save("good")
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    if "--plot" in argv and not importlib.util.find_spec("matplotlib"):
        words = "--plot needs matplotlib"
    own = argv.split()
    if own[:2] == ["train", "text.txt"]:
        own[2:2] = OPTIONS  # what comes later counts
    status, _, err = run_main(own, capsys)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith("fastrnn")
    assert words in err
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text_file.parent.chmod(0o500)
    try:
        status, _, err = run_main(["train", "text.txt", *OPTIONS], capsys)
    finally:
        text_file.parent.chmod(0o700)
    assert status == 2
    assert "cannot write char_lm.safetensors: Permission denied" in err


def test_a_full_disk(text_file: Path) -> None:
    """The limit on a file's size is met half-way through the second file that is saved."""
    first = subprocess.run(
        program("train", "text.txt", *OPTIONS), capture_output=True, text=True, check=True
    )
    assert first.returncode == 0
    old = Path("char_lm.safetensors").read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, resource.RLIM_INFINITY))

    full = subprocess.run(
        program("train", "text.txt", "--force", *OPTIONS),
        capture_output=True, text=True, preexec_fn=limit,
    )  # fmt: skip
    assert full.returncode == 2
    assert full.stderr == (
        "fastrnn train: error: cannot write char_lm.safetensors: File too large\n"
    )
    assert Path("char_lm.safetensors").read_bytes() == old
    assert sorted(os.listdir()) == ["char_lm.safetensors", "text.txt"]


def test_a_model_with_nan_is_named(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Training(split(), SMALL)
    run.model.head.flat_weights[...] = np.nan
    run.save("broken")
    status, out, err = run_main(["sample", "broken"], capsys)
    assert (status, out) == (2, "")
    assert err == (
        "fastrnn sample: error: broken: the network's output is not finite: there is nothing to "
        "choose from\n"
    )


def test_a_reader_that_has_seen_enough(text_file: Path) -> None:
    Training(split(), SMALL).save("good")
    argv = program("sample", "good", "--length", "3000000")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_the_plot(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    Path("curve.svg").write_text("old")
    status, out, _ = run_main(["train", "text.txt", "--plot", "curve.svg", *OPTIONS], capsys)
    assert status == 0
    assert "drawn to curve.svg" in out
    picture = Path("curve.svg").read_text()
    assert picture.startswith("<?xml")
    assert sorted(os.listdir()) == ["char_lm.safetensors", "curve.svg", "text.txt"]


def test_the_bar_on_a_terminal(text_file: Path) -> None:
    pytest.importorskip("tqdm")
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 100))  # a bar of no columns shows nothing
    with subprocess.Popen(
        program("train", "text.txt", *OPTIONS), stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        out = process.stdout.read()
    shown = b""
    while True:
        try:
            more = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
    os.close(ours)
    assert process.returncode == 0
    assert b" characters/s" in shown
    assert b"bits" in shown
    assert "epoch   3/3" in out


def test_model_files_are_plain_safetensors(tmp_path: Path) -> None:
    run = Training(split(), SMALL)
    run.step()
    run.save(str(tmp_path / "model"))
    file = fastrnn.load(tmp_path / "model")
    assert list(file) == ["embedding", "rnn", "head", "adam", "training"]
    model = Model.loaded("model", file)
    for own, read in zip(run.model.layers(), model.layers(), strict=True):
        assert own.flat_weights.tobytes() == read.flat_weights.tobytes()
    assert json.loads(file.metadata["settings"]) == vars(SMALL)
    assert file["adam"]["step_count"] == 1
