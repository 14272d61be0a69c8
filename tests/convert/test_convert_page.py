"""docs/convert.md keeps its word: its code runs, its commands are understood."""

import os
import re
import shlex
import warnings
from pathlib import Path

import pytest

from fastrnn.cli import make_parser

PAGE = Path(__file__).parents[2] / "docs" / "convert.md"
TEXT = PAGE.read_text("utf-8")
# By their headings, what the sections with code need.
NEEDS = {
    "PyTorch": ["torch"],
    "Keras": ["torch", "keras"],
    "ONNX": ["torch", "onnx", "onnxruntime"],
    "Writing ONNX": ["onnx", "onnxruntime"],
}


def code_of(heading: str) -> list[str]:
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("heading", NEEDS)
def test_its_code_runs(heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    for package in NEEDS[heading]:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    (block,) = code_of(heading)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the exporters
        exec(compile(block, str(PAGE), "exec"), {"__name__": "page"})


def test_all_of_its_code_is_tested() -> None:
    assert TEXT.count("```python") == len(NEEDS)


def test_its_commands_are_understood() -> None:
    lines = re.findall(r"^fastrnn (.*)$", TEXT, re.MULTILINE)
    assert len(lines) > 4
    for line in lines:
        make_parser().parse_args(shlex.split(line, comments=True))
