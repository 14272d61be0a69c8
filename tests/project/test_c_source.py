"""The form of csrc/: short functions, few parameters, drivers without cells, one list of cells."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# The folder of pyproject.toml, wherever below it this file is.
ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
CSRC = ROOT / "csrc"
FILES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".c", ".h", ".inc"})
CELLS = CSRC / "cells"
REGISTRY = CELLS / "cells.h"
# What runs any cell.
DRIVERS = ("sequence.h", "forward.h", "bptt.h", "weights.h", "generate.h", "plan.h")

MAX_LINES = 60
MAX_PARAMETERS = 12
# So many cells in one place are a list of them.
LISTED = 3

KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "_Alignas", "_Alignof", "defined"}


# ------------------------------------------------------------------------------- reading C


def stripped(text: str) -> str:
    """Comments and what is in quotes made blank; every line and column stays where it is."""
    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"

    def blank(found: re.Match[str]) -> str:
        spaces = re.sub(r"[^\n]", " ", found[0])
        # An argument in quotes stays one.
        return spaces if found[0].startswith("/") else f"0{spaces[1:]}"

    return re.sub(pattern, blank, text, flags=re.DOTALL)


def without_directives(text: str) -> str:
    """Lines of the preprocessor made blank, with those that they go on in."""
    pattern = r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*"
    return re.sub(
        pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.MULTILINE | re.DOTALL
    )


def closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed."""
    depth = 0
    for found in re.compile(r"[(\[{}\])]").finditer(text, start):
        depth += 1 if found[0] in "([{" else -1
        if depth == 0:
            return found.start()
    raise ValueError(f"the bracket at {text[start : start + 40]!r} is not closed")


def opening(text: str, end: int) -> int:
    """Where the bracket that closes at `end` is opened."""
    depth = 0
    for k in range(end, -1, -1):
        depth += (text[k] in ")]}") - (text[k] in "([{")
        if depth == 0:
            return k
    raise ValueError(f"the bracket behind {text[max(0, end - 40) : end]!r} is not opened")


def name_before(text: str, end: int) -> tuple[str, int]:
    """The name that stands before `end`, f or FN(f) or (*f), and where; "" where there is none."""
    end = len(text[:end].rstrip())
    if text[end - 1 : end] == ")":
        start = opening(text, end - 1)
        macro = re.search(r"\bFN\s*$", text[:start])
        inside = text[start + 1 : end - 1].strip()
        if macro:
            return f"FN({inside})", macro.start()
        return (inside, start) if inside.startswith("*") else ("", end)
    found = re.search(r"[A-Za-z_]\w*$", text[:end])
    return (found[0], found.start()) if found else ("", end)


def functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, first and last line of each function that is defined."""
    text = without_directives(stripped(text))
    at = 0
    while (at := text.find("{", at)) >= 0:
        end = closing(text, at)
        before = text[:at].rstrip()
        while found := re.search(r"__attribute__\s*\(\(.*?\)\)$", before, re.DOTALL):
            before = before[: found.start()].rstrip()
        if before.endswith(")"):
            name, start = name_before(before, opening(before, len(before) - 1))
            if name and name != "FN":  # struct FN(name) { is none
                yield name, text.count("\n", 0, start) + 1, text.count("\n", 0, end) + 1
        at = end + 1


def groups(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, line and number of arguments of each call, declaration and definition."""
    text = stripped(text)
    for found in re.finditer(r"\(", text):
        name, _ = name_before(text, found.start())
        if not name or name in KEYWORDS:
            continue
        inside = text[found.start() + 1 : closing(text, found.start())]
        # What is in inner brackets counts as one.
        while (flat := re.sub(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}", "0", inside)) != inside:
            inside = flat
        yield name, text.count("\n", 0, found.start()) + 1, inside.count(",") + bool(inside.strip())


def too_long(text: str) -> list[str]:
    return [
        f"{name}, line {first}: {last - first + 1} lines"
        for name, first, last in functions(text)
        if last - first + 1 > MAX_LINES
    ]


def too_wide(text: str) -> list[str]:
    return [
        f"{name}, line {line}: {count} arguments"
        for name, line, count in groups(text)
        # Intrinsics that set a vector have one for each lane.
        if count > MAX_PARAMETERS and not name.startswith("_mm")
    ]


# ------------------------------------------------------------------------------- cells


def cells(folder: Path) -> dict[str, set[str]]:
    """The words for each cell: the name of its file, and what the comment on top calls it."""
    words = {}
    for path in sorted(folder.glob("*.h")):
        if path.name != REGISTRY.name:
            called = re.match(r"\W*The (\w+) cell", path.read_text("utf-8"))
            words[path.stem] = {path.stem, *([called[1].lower()] if called else [])}
    assert len(words) >= LISTED, f"{folder} does not have its cells"
    return words


def named(text: str, words: dict[str, set[str]]) -> set[str]:
    """The cells whose words are in a text: gru_step and FASTRNN_GRU name one, fastrnn does not."""
    parts = set(re.findall(r"[a-z]+[0-9]*", re.sub(r"[A-Z]+", lambda m: m[0].lower(), text)))
    return {cell for cell, of_cell in words.items() if parts & of_cell}


def naming_lines(text: str, words: dict[str, set[str]]) -> list[str]:
    return [
        f"line {number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if named(line, words)
    ]


def lists(text: str, words: dict[str, set[str]]) -> list[int]:
    """Where paragraphs begin whose code, file names and strings name several cells."""
    found, begin, paragraph = [], 1, ""
    code = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)
    lines = zip([*text.splitlines(), ""], [*code.splitlines(), ""], strict=True)
    for number, (line, code_line) in enumerate(lines, 1):
        if line.strip():
            begin = begin if paragraph else number
            paragraph += code_line + "\n"
        else:
            if len(named(paragraph, words)) >= min(LISTED, len(words)):
                found.append(begin)
            paragraph = ""
    return found


# ------------------------------------------------------------------------------- the tree


def ids(path: Path) -> str:
    return str(path.relative_to(CSRC))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_functions_are_short(path: Path) -> None:
    assert too_long(path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_functions_have_few_parameters(path: Path) -> None:
    assert too_wide(path.read_text("utf-8")) == []


def test_everything_was_read() -> None:
    found = [name for path in FILES for name, _, _ in functions(path.read_text("utf-8"))]
    # So that a file which is read wrongly does not pass: each brace at a line's start is an end.
    ends = sum(
        len(re.findall(r"^}$", without_directives(stripped(path.read_text("utf-8"))), re.MULTILINE))
        for path in FILES
    )
    assert len(found) >= ends > 200


@pytest.mark.parametrize("name", DRIVERS)
def test_drivers_name_no_cell(name: str) -> None:
    assert naming_lines((CSRC / name).read_text("utf-8"), cells(CELLS)) == []


def test_cells_are_listed_once() -> None:
    words = cells(CELLS)
    assert lists(REGISTRY.read_text("utf-8"), words)
    elsewhere = [
        f"{ids(path)}, line {line}"
        for path in FILES
        if path != REGISTRY
        for line in lists(path.read_text("utf-8"), words)
    ]
    assert elsewhere == []


# ------------------------------------------------------------------------------- the lint itself

BODY = "    a(b, '}', \"(,{\"); /* { */ // {\n"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("static void long(int a, void (*g)(int, int))\n{\n", "long"),
        ("static ALWAYS_INLINE real *FN(long)(int a,\n    int b)\n{\n", "FN(long)"),
        ("#define X {\n#define Y(a) \\\n    { a\nint long(void) __attribute__((a)) {\n", "long"),
        ("struct FN(s) {\n    int a;\n};\nenum { A };\nint x[] = {1};\nOP long(int a) {\n", "long"),
    ],
)
def test_a_long_function_is_found(head: str, name: str) -> None:
    own = len(head[head.index(name) :].splitlines()) + 1
    shortest = head + BODY * (MAX_LINES - own) + "}\n"
    assert [n for n, _, _ in functions(shortest)] == [name]
    assert too_long(shortest) == []
    found = too_long(shortest.replace(BODY, BODY * 2, 1))
    assert len(found) == 1
    assert found[0].startswith(f"{name}, line ")
    assert found[0].endswith(f": {MAX_LINES + 1} lines")


@pytest.mark.parametrize("name", ["f", "FN(f)", "void (*f)", "x = f", "#define F f"])
def test_many_parameters_are_found(name: str) -> None:
    arguments = ["g(1, 2)", "'('", '","', "(t){1, 2}", "a[b, c]"]
    arguments += ["x"] * (MAX_PARAMETERS - len(arguments))
    assert too_wide(f"{name}({', '.join(arguments)});") == []
    assert len(too_wide(f"{name}({', '.join([*arguments, 'y'])});")) == 1
    assert too_wide(f"_mm512_setr_epi32({', '.join(['1'] * 16)});") == []


@pytest.fixture
def words(tmp_path: Path) -> dict[str, set[str]]:
    for name, top in [("rnn", "The Elman cell: h"), ("lstm", ""), ("gru", ""), ("cells", "")]:
        (tmp_path / f"{name}.h").write_text(f"/* {top} */\n")
    return cells(tmp_path)


def test_words_come_from_the_files(words: dict[str, set[str]]) -> None:
    assert words == {"rnn": {"rnn", "elman"}, "lstm": {"lstm"}, "gru": {"gru"}}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("FN(gru_step)(s);", True),
        ("if (cell == FASTRNN_LSTM)", True),
        ("/* As in an Elman layer. */", True),
        ('#include "cells/rnn.h"', True),
        ("RNN2 and LSTMs", False),
        ("struct fastrnn_layer FASTRNN_OK fastrnn", False),
        ("congruent", False),
    ],
)
def test_a_named_cell_is_found(line: str, names: bool, words: dict[str, set[str]]) -> None:
    assert bool(naming_lines(line, words)) is names


def test_a_list_is_found(words: dict[str, set[str]]) -> None:
    table = '\n/* One. */\n#include "rnn.h"\n/* gru */\n#include "lstm.h"\n#include "gru.h"\n'
    assert lists(table, words) == [2]
    assert lists(table + table, words) == [2, 8]
    assert lists(table.replace('#include "gru.h"', ""), words) == []
    assert lists("case LSTM:\ncase GRU:\n\ncase ELMAN:\n", words) == []
    assert lists("case LSTM:\ncase GRU:\ncase ELMAN:\n", words) == [1]
