"""The commands `fastrnn train` and `fastrnn sample`: what they print, write and refuse."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from language_model import OPTIONS, SMALL, TEXT, program, split

import fastrnn
from fastrnn.char_lm import TrainOptions, command
from fastrnn.char_lm.training import KIND, Model, Training
from fastrnn.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")


def run_main(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        status = main(argv)
    except SystemExit as end:
        status = int(str(end.code))
    out, err = capsys.readouterr()
    return status, out, err


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
        status, out, _ = run_main(["train", "text.txt", *OPTIONS, "--epochs=1"], capsys)
        assert status == 0
        assert f"saved to {name} " in out
    assert len({Path(name).read_bytes() for name in names}) == 1
    Path("char_lm.safetensors").write_text("old")
    forced = ["train", "text.txt", "--force", *OPTIONS, "--epochs=1"]
    assert run_main(forced, capsys)[0] == 0
    assert Path(names[0]).read_bytes() == Path(names[1]).read_bytes()
    assert len(os.listdir()) == 4


def test_what_force_replaces_beside_the_picture_is_told(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    Path("a.svg").write_text("old")
    Path("char_lm.safetensors").write_text("old")
    status, _, err = run_main(["train", "text.txt", "--plot", "a.svg", *OPTIONS], capsys)
    assert status == 2
    assert "or replace it and char_lm.safetensors with --force" in err


def test_the_command_to_go_on_replaces_the_picture_too() -> None:
    options = TrainOptions([], None, False, True, "a.svg", {})
    words = "fastrnn train --resume --plot=a.svg --force"
    assert command._go_on(options, "char_lm.safetensors") == words


def bad_files() -> None:
    """Files in the current folder that commands fall over."""
    Path("empty").write_bytes(b"")
    Path("mine.svg").write_text("<svg></svg>" * 5)
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
        ("train text.txt --output no/such", "cannot write no/such: no such folder"),
        ("train text.txt --output .", "cannot write .: it is a folder"),
        ("train text.txt --output . --force", "cannot write .: it is a folder"),
        ("train text.txt --plot no/such.png", "cannot write no/such.png"),
        ("train /dev/zero", "cannot read /dev/zero: it is a device"),
        (
            "train text.txt --plot mine.svg",
            "mine.svg exists: replace it with --force, or choose another name",
        ),
        (
            "train text.txt --plot mine.svg --output mine.svg --force",
            "that is the text or the model",
        ),
        (
            "train mine.svg --plot mine.svg --force --batch-size 1 --steps 2",
            "the text or the model",
        ),
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


def test_a_full_disk(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The limit on a file's size is met half-way through the second file that is saved."""
    assert run_main(["train", "text.txt", *OPTIONS], capsys)[0] == 0
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
    argv = program("sample", "good", "--length", "300000")  # more than a pipe holds
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
    argv = ["train", "text.txt", "--plot", "curve.svg", "--force", *OPTIONS]
    status, out, _ = run_main(argv, capsys)
    assert status == 0
    assert "drawn to curve.svg" in out
    plot = Path("curve.svg").read_text()
    assert plot.startswith("<?xml")
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


def test_a_start_that_fails_leaves_no_file(text_file: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))

    done = subprocess.run(
        program("train", "text.txt", *OPTIONS), capture_output=True, text=True, preexec_fn=limit
    )
    assert done.returncode == 2
    assert done.stderr == (
        "fastrnn train: error: cannot write char_lm.safetensors: File too large\n"
    )
    assert os.listdir() == ["text.txt"]


@pytest.mark.parametrize("redirection", [">&-", "> /dev/full", "2>&-"])
def test_outputs_that_are_closed_or_full(redirection: str, text_file: Path) -> None:
    Training(split(), SMALL).save("good")
    shell = f"exec {sys.executable} -m fastrnn sample good --length 20 {redirection}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    full = "/dev/full" in redirection
    assert done.returncode == (2 if full else 0)
    assert done.stderr.count("\n") == full


def test_a_terminated_run_is_saved(text_file: Path) -> None:
    argv = program("train", "text.txt", *OPTIONS[:4], "--epochs=3000")
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            while not process.stdout.readline().startswith("epoch   1/"):
                pass
            process.terminate()
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "")
    assert "saved; to go on:" in rest


def test_runs_that_start_together_take_names_of_their_own(text_file: Path) -> None:
    argv = program("train", "text.txt", *OPTIONS, "--epochs=1")
    running = [
        subprocess.Popen([*argv, f"--seed={i}"], stdout=subprocess.DEVNULL) for i in range(3)
    ]
    assert [process.wait(120) for process in running] == [0] * 3
    names = sorted(name for name in os.listdir() if name.startswith("char_lm"))
    seeds = {json.loads(fastrnn.load(name).metadata["settings"])["seed"] for name in names}
    assert seeds == {0, 1, 2}


def test_a_learning_rate_out_of_range(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run_main(["train", "text.txt", *OPTIONS, "--lr", "1e37"], capsys)
    assert status == 2
    assert err.count("\n") == 1
    assert "try a lower learning rate" in err
