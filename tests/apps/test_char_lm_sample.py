"""`fastrnn sample`: what it draws from, where it ends, and that it prints as it goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from language_model import SMALL, TEXT, program, split
from test_char_lm_commands import run_main

import fastrnn
from fastrnn.char_lm.training import Training
from fastrnn.io import Loaded

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(text_file: Path) -> Loaded:
    """Of a run that has learned something, in the file "model"."""
    run = Training(split(), SMALL)
    while run.step_count < run.total:
        run.step()
    run.save("model")
    return fastrnn.load("model")


def sampled(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    status, out, err = run_main(["sample", "model", "--seed=3", *options], capsys)
    assert (status, err) == (0, "")
    assert out.endswith("\n")
    return out[:-1]


def test_it_is_what_generate_makes(model: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    characters = model.metadata["characters"]
    layers = model["embedding"], model["rnn"], model["head"]
    prompt = [characters.index(c) for c in "ab"]
    for options, choice in (
        ([], {}),
        (["--top-k=3"], {"top_k": 3}),
        (["--top-p=0.5"], {"top_p": 0.5}),
        (["--top-k=5", "--top-p=0.9", "--temperature=2"], {"top_k": 5, "top_p": 0.9}),
    ):
        heat = 2.0 if "--temperature=2" in options else 0.7
        ids, _ = fastrnn.generate(*layers, prompt, 60, temperature=heat, rng=3, **choice)
        written = "ab" + "".join(characters[i] for i in ids)
        for how in ([], ["--stream"]):
            assert sampled(capsys, "--prompt=ab", "--length=60", *options, *how) == written


def test_the_one_most_probable_is_no_draw(
    model: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    surest = sampled(capsys, "--temperature=0")
    assert sampled(capsys, "--top-k=1", "--temperature=5") == surest
    assert sampled(capsys, "--top-p=1e-9") == surest
    assert sampled(capsys, "--top-k=999") == sampled(capsys)


@pytest.mark.parametrize("how", [[], ["--stream"]])
def test_it_ends_with_the_text_to_stop_at(
    how: list[str], model: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = sampled(capsys, "--length=300", "--prompt=ab")
    for stop in (" ", whole[40:43], whole[100:140]):
        end = whole.index(stop, 2) + len(stop)
        assert sampled(capsys, "--length=300", "--prompt=ab", f"--stop={stop}", *how) == whole[:end]
    # One that never comes; and the prompt does not count.
    assert sampled(capsys, "--length=300", "--prompt=ab", "--stop=ab" + "\n" * 9, *how) == whole
    assert len(sampled(capsys, "--length=1", "--prompt=ab", "--stop=ab", *how)) == 3


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--top-k=0", "top-k is 0, expected at least 1"),
        ("--top-k=x", "invalid int value: 'x'"),
        ("--top-p=0", "top-p is 0.0, expected a number above 0, at most 1"),
        ("--top-p=1.5", "top-p is 1.5"),
        ("--top-p=nan", "top-p is nan"),
        ("--stop=", "stop is empty: name the text to end with, or leave --stop out"),
        ("--stop=Qa", "--stop has characters that the model has not seen: 'Q'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    option: str, words: str, model: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    for how in ([], ["--stream"]):
        status, out, err = run_main(["sample", "model", option, *how], capsys)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert words in err


def test_characters_come_as_they_are_made(model: Loaded) -> None:
    argv = program("sample", "model", "--stream", "--prompt=ab", "--length=1000000000")
    argv.remove("-u")  # what is printed has to be flushed
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            begin = process.stdout.read(50)  # of a text that would take an hour
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert begin.startswith("ab")
    assert set(begin) <= set(TEXT)
    assert rest.endswith("\n")  # the shell's prompt has a line of its own
    assert (process.returncode, errors) == (130, "")


def test_a_reader_that_has_seen_enough_ends_a_stream(model: Loaded) -> None:
    argv = program("sample", "model", "--stream", "--length=1000000000")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("redirection", [">&-", "> /dev/full"])
def test_a_stream_into_nothing(redirection: str, model: Loaded) -> None:
    shell = f"exec {sys.executable} -m fastrnn sample model --stream --length 20 {redirection}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    full = "/dev/full" in redirection
    assert done.returncode == (2 if full else 0)
    assert done.stderr.count("\n") == full


def test_characters_that_the_terminal_does_not_have(text_file: Path) -> None:
    run = Training(split("é\U0001f600 " * 200), SMALL)
    run.save("model")
    for how in ([], ["--stream"]):
        done = subprocess.run(
            program("sample", "model", "--length=50", "--temperature=9", *how),
            capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert len(done.stdout) == 50 + 1
        assert set(done.stdout) == set(b"? \n")


def test_a_model_with_nan_is_named_in_a_stream(
    model: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Training(split(), SMALL)
    run.model.head.flat_weights[...] = np.nan
    run.save("broken")
    status, out, err = run_main(["sample", "broken", "--stream", "--prompt=ab"], capsys)
    assert (status, out) == (2, "ab\n")
    assert err.startswith("fastrnn sample: error: broken: the network's output is not finite")
