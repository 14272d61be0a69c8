"""docs/generation.md keeps its word: its code runs, one block after the other."""

import inspect
import re
from pathlib import Path
from typing import Any

import fastrnn

PAGE = Path(__file__).parents[2] / "docs" / "generation.md"
TEXT = PAGE.read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_its_code_runs() -> None:
    assert len(BLOCKS) == TEXT.count("```python") > 3
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)


def test_its_table_has_every_option() -> None:
    options = set(re.findall(r"^\| `(\w+)=", TEXT, re.MULTILINE))
    parameters = inspect.signature(fastrnn.generate).parameters.values()
    assert options == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"rng"}
