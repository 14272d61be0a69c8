"""The character-level model of 25 lines: it is that short, learns, and writes on."""

import ast
from pathlib import Path

import numpy as np
import pytest
from test_examples import load

import fastrnn

SCRIPT = Path(__file__).parents[2] / "examples" / "char_rnn.py"


def test_it_has_25_lines_of_code() -> None:
    text = SCRIPT.read_text("utf-8")
    docstring = ast.parse(text).body[0]
    lines = [line.strip() for line in text.splitlines()[docstring.end_lineno :]]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 25


def test_it_learns_and_writes_on(capsys: pytest.CaptureFixture[str]) -> None:
    loss = load(SCRIPT).main(200)
    said = capsys.readouterr().out.splitlines()
    bits = [float(line.split()[2]) for line in said[:2]]
    assert [line.split()[1] for line in said[:2]] == ["100", "200"]
    assert bits[1] == round(loss / np.log(2), 2)
    assert bits[1] < bits[0] < 4  # the frequencies of the characters alone are worth 4.5
    assert "\n".join(said[2:]).startswith("H")


def test_the_reference_learns_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    example = load(SCRIPT)
    loss = example.main(3)
    with fastrnn.backend("reference"):
        other = example.main(3)
    # float32 over 64 steps in sums of at most 128 terms, three steps of training.
    assert abs(loss - other) < 3 * 64 * 128 * 2.0**-24 * loss
    assert len(capsys.readouterr().out) > 2 * 400
