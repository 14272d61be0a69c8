"""The tree is drawn once, in docs/architecture.md, and what it shows is there."""

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest

# The folder of pyproject.toml, wherever below it this file is.
ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
DRAWING = "docs/architecture.md"


def drawn(text: str) -> str:
    """The first block under "The tree"."""
    found = re.search(r"^## The tree\n+```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"{DRAWING} has no block under its heading The tree"
    return found[1]


def entries(tree: str) -> list[str]:
    """The paths, which may be patterns: names at the start of a line, two columns in for a folder.

    What is further in than the last folder's content goes on with the line above.
    """
    paths: list[str] = []
    folders: list[str] = []
    for line in tree.splitlines():
        depth, rest = divmod(len(line) - len(line.lstrip()), 2)
        if rest or depth > len(folders) or not line.strip():
            continue
        del folders[depth:]
        names = []
        for word in line.split():
            if not re.fullmatch(r"[\w.*\[\]/-]*[\w*\]/]", word) or not re.search(r"[./]", word):
                break
            names.append("".join(folders) + word)
        paths += names
        if len(names) == 1 and names[0].endswith("/"):
            folders.append(line.split()[0])
    return paths


def in_repository() -> list[str]:
    """All files that belong to the tree; of a copy without git, those that are there."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [name for name in names.splitlines() if (ROOT / name).exists()]
    tops = [path for path in ROOT.iterdir() if path.name not in {".venv", "build", "dist"}]
    return [
        str(path.relative_to(ROOT))
        for top in tops
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file()
    ]


def misdrawn(tree: str, files: list[str]) -> list[str]:
    """What is drawn and not there, and what of csrc/ and fastrnn/ is there and not drawn."""
    paths = entries(tree)
    wrong = [
        f"{path} is not there"
        for path in paths
        if not any(
            name.startswith(path) if path.endswith("/") else fnmatch.fnmatch(name, path)
            for name in files
        )
    ]
    # A folder without anything drawn inside stands for all that it holds.
    whole = [
        path
        for path in paths
        if path.endswith("/") and not any(p != path and p.startswith(path) for p in paths)
    ]
    # Parts of the binding are named behind the file that includes them.
    words = re.findall(r"[\w.*\[\]/]+", tree)
    for name in files:
        if not re.match(r"(csrc|fastrnn)/.*\.(c|h|inc|py|pyx|pxd|pxi)$", name):
            continue
        base = name.rpartition("/")[2]
        if base not in ("__init__.py", "__main__.py", "_core.c") and not (
            any(fnmatch.fnmatch(name, path) for path in paths)
            or any(name.startswith(path) for path in whole)
            or base in words
        ):
            wrong.append(f"{name} is not drawn")
    return wrong


def test_the_drawing_is_true() -> None:
    tree = drawn((ROOT / DRAWING).read_text("utf-8"))
    assert len(entries(tree)) > 30
    assert misdrawn(tree, in_repository()) == []


TREE = """\
setup.py    how it is built
csrc/
  a.h b.h   the kernels; c.h is
      d.h   another
  in/*.c    more
fastrnn/
  sub/      a package
tests/  docs/
"""
FILES = ["setup.py", "csrc/a.h", "csrc/b.h", "csrc/in/x.c", "fastrnn/sub/y.py", "tests/t", "docs/d"]


def test_entries() -> None:
    wanted = "setup.py csrc/ csrc/a.h csrc/b.h csrc/in/*.c fastrnn/ fastrnn/sub/ tests/ docs/"
    assert entries(TREE) == wanted.split()
    assert misdrawn(TREE, FILES) == []


@pytest.mark.parametrize("name", ["csrc/b.h", "csrc/in/x.c", "fastrnn/sub/y.py", "docs/d"])
def test_what_is_gone_is_found(name: str) -> None:
    gone = {"csrc/in/x.c": "csrc/in/*.c", "fastrnn/sub/y.py": "fastrnn/sub/", "docs/d": "docs/"}
    assert f"{gone.get(name, name)} is not there" in misdrawn(
        TREE, [file for file in FILES if file != name]
    )


@pytest.mark.parametrize("name", ["csrc/e.h", "csrc/in/x.h", "fastrnn/other/y.py"])
def test_what_is_not_drawn_is_found(name: str) -> None:
    assert misdrawn(TREE, [*FILES, name]) == [f"{name} is not drawn"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_nobody_draws_it_again(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert not [block for block in blocks if {"csrc/", "fastrnn/"} <= set(entries(block))]
    assert f"({DRAWING})" in text
