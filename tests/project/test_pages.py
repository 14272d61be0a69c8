"""docs/training.md and docs/coming_from.md: their code runs, and what they name is there."""

import re
from pathlib import Path

import pytest

import fastrnn

DOCS = Path(__file__).parents[2] / "docs"
TEXTS = {name: (DOCS / f"{name}.md").read_text("utf-8") for name in ("training", "coming_from")}
BLOCKS = [
    pytest.param(block, id=f"{name}-{i}")
    for name, text in TEXTS.items()
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_runs_by_itself(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "page", "exec"), {"__name__": "page"})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == sum(text.count("```python") for text in TEXTS.values()) > 5


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_they_name_is_there(text: str) -> None:
    found = set(re.findall(r"fastrnn((?:\.\w+)+)", text)) - {".torch"}
    assert len(found) > 3
    for path in found:
        value = fastrnn
        for name in path[1:].split("."):
            value = getattr(value, name)
