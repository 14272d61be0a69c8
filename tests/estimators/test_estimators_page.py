"""docs/estimators.md: its code runs."""

import re
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

PAGE = (Path(__file__).parents[2] / "docs" / "estimators.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_block_runs_by_itself(block: str) -> None:
    exec(compile(block, "page", "exec"), {"__name__": "page"})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == PAGE.count("```python") > 4
