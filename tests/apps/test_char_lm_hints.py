"""`fastrnn train` and `sample`: what a first user gets wrong, and what the commands say to it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from language_model import OPTIONS, SMALL, TEXT, split
from test_char_lm_commands import run_main

import fastrnn
from fastrnn.char_lm import command
from fastrnn.char_lm.corpus import Corpus
from fastrnn.char_lm.training import Training
from fastrnn.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    status, _, err = run_main(list(argv), capsys)
    assert status == 2
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("other", ["text.txt", "./text.txt", "linked"])
def test_a_text_is_named_once(
    other: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("linked").symlink_to("text.txt")
    err = refused(capsys, "train", "text.txt", other, *OPTIONS)
    assert "the same file twice" in err
    assert "name it once" in err
    assert sorted(os.listdir()) == ["linked", "text.txt"]
    Path("copy").write_text(TEXT)
    assert run_main(["train", "text.txt", "copy", *OPTIONS, "--epochs=1"], capsys)[0] == 0


def test_a_model_of_another_run_that_came_in_between_is_kept(
    text_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Corpus.read

    def slowly(files: Any) -> Corpus:
        corpus = read(files)
        Path("mine").write_text("of another run")
        return corpus

    argv = ["train", "text.txt", "--output=mine", *OPTIONS, "--epochs=1"]
    with monkeypatch.context() as patched:
        patched.setattr(Corpus, "read", slowly)
        assert "mine exists by now, from another run: go on with" in refused(capsys, *argv)
        assert Path("mine").read_text() == "of another run"
        assert run_main([*argv, "--force"], capsys)[0] == 0
    assert run_main(["train", "--resume=mine", "--epochs=2"], capsys)[0] == 0


def test_a_run_into_a_named_file_that_fails_to_start_leaves_none(
    text_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise command.CharLMError("no space")

    monkeypatch.setattr(Training, "save", full)
    refused(capsys, "train", "text.txt", "--output=mine", *OPTIONS)
    assert os.listdir() == ["text.txt"]


def test_a_new_model_is_advised_with_all_options(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "text.txt", *OPTIONS, "--cell=lstm", "--layers=2", "--output=model"]
    assert run_main(argv, capsys)[0] == 0
    Path("other").write_text(TEXT + "été")
    err = refused(capsys, "train", "--resume=model", "--lr=0.02", "--output=new", "other")
    words = shlex.split(err.rpartition("on both texts: ")[2])
    assert words[:2] == ["fastrnn", "train"]
    assert run_main(words[1:], capsys)[0] == 0
    model = fastrnn.load("new")
    wanted = vars(SMALL) | {"cell": "lstm", "layers": 2, "lr": 0.02}
    assert json.loads(model.metadata["settings"]) == wanted
    assert json.loads(model.metadata["files"]) == ["text.txt", "other"]


def test_the_same_text_elsewhere_is_advised_with_all_options(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(["train", "text.txt", *OPTIONS, "--output=model"], capsys)
    Path("text.txt").rename("moved")
    err = refused(capsys, "train", "--resume=model", "--epochs=4", "--output=new")
    words = shlex.split(err.rpartition("by now: ")[2])
    assert words == [
        *("fastrnn", "train", "--resume=model", "--epochs=4", "--output=new", "--", "TEXT")
    ]
    assert run_main([*words[1:-1], "moved"], capsys)[0] == 0


def test_standard_input_by_a_dash(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fastrnn train /dev/stdin < book.txt" in refused(capsys, "train", "-")
    Path("-").write_text(TEXT)
    assert run_main(["train", "-", *OPTIONS, "--epochs=1"], capsys)[0] == 0


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        ("train text.txt --learning-rate 0.1", "--lr"),
        ("train text.txt --learning-rate=0.1", "--lr"),
        ("train text.txt --bs 8", "--batch-size"),
        ("train text.txt --seq-length 8", "--steps"),
        ("sample model --num 9", "--length"),
        ("sample model --topk 9", "--top-k"),
        ("generate model", "sample"),
        ("trian", "train"),
    ],
)
def test_what_is_meant(argv: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *argv.split()).endswith(f" (did you mean {meant}?)\n")


def test_what_is_called_so_elsewhere_is_not_advised_where_it_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "did you mean" not in refused(capsys, "sample", "model", "--bs=3")


def test_one_prompt(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Training(split(), SMALL).save("model")
    err = refused(capsys, "sample", "model", "--prompt=a", "--prompt=b")
    assert err == (
        "fastrnn sample: error: argument --prompt: given twice: run the command once for each\n"
    )
    assert run_main(["sample", "model", "--prompt=a"], capsys)[1].startswith("a")


def test_dropout_and_one_epoch_are_shown(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "text.txt", *OPTIONS, "--epochs=1"]
    out = run_main([*argv, "--dropout=0.3"], capsys)[1]
    assert "RNN(5, 9), Dropout(0.3), Linear(" in out
    assert "this network, 1 epoch;" in out
    assert "Dropout" not in run_main(argv, capsys)[1]
    out = run_main(["train", "--resume"], capsys)[1]
    assert "has its 1 epoch behind it" in out


def test_ctrl_c_while_a_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(add: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastrnn.cli._add_train", interrupted)
    assert main(["train"]) == 130


@pytest.mark.parametrize("name", ["c.pt", "c.npz", "c.weights.h5", "c.keras", "C.ONNX"])
def test_a_name_of_another_format(
    name: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = os.path.splitext(name)[0]
    cure = f"name it '{stem}.safetensors'"
    for options in ([], ["--force"]):
        argv = ["train", "text.txt", *OPTIONS, *options, "--output", name]
        assert cure in refused(capsys, *argv)
    with pytest.raises(ValueError, match=r"^path is .*this writes a safetensors file") as error:
        fastrnn.save(name, {"rnn": fastrnn.RNN(2, 3)})
    assert cure in str(error.value)
    assert os.listdir() == ["text.txt"]
    for other in ("c.bin", "c", "c.safetensors", ".pt"):
        fastrnn.save(other, {"rnn": fastrnn.RNN(2, 3)})


def test_a_network_that_has_learnt_nothing(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "text.txt", *OPTIONS, "--epochs=1", "--lr=1e-9", "--output=model"]
    out = run_main(argv, capsys)[1]
    said, words = out.partition("the network has learnt nothing yet: more epochs help:\n")[1:]
    assert said
    argv = words.splitlines()[0].split()
    assert argv == ["fastrnn", "train", "--resume=model", "--epochs=4"]
    assert run_main(argv[1:], capsys)[0] == 0
    out = run_main(["train", "text.txt", *OPTIONS, "--epochs=20", "--force"], capsys)[1]
    assert "the network has learnt" not in out


def test_a_network_whose_held_out_part_is_of_another_kind(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What is held out has the letters of the training text in an order that never occurs there.
    Path("two").write_text("abcdefgh" * 900 + "hgfedcba" * 100)
    out = run_main(["train", "two", *OPTIONS, "--epochs=5"], capsys)[1]
    assert "learnt the training text, but nothing that holds for the held-out tenth" in out
    assert "nothing yet" not in out
