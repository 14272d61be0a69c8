"""The command line: what it prints and how it ends."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn
from fastrnn import bench
from fastrnn.bench.peers import PEERS
from fastrnn.bench.report import STATISTICS
from fastrnn.bench.shapes import DTYPES
from fastrnn.cli import main

SMALLEST = [
    "--cells",
    "rnn",
    "--shapes",
    "3,2,4,5",
    "--rounds",
    "1",
    "--min-time",
    "0",
    "--threads",
    "1",
]


def ends_with(argv, capsys):
    """Return the exit status and what was printed."""
    try:
        status = main(argv)
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr()


def test_info(capsys):
    status, printed = ends_with(["info"], capsys)
    assert status == 0
    fastrnn.show_config()
    assert printed.out == capsys.readouterr().out != ""


def test_version(capsys):
    assert ends_with(["--version"], capsys) == (0, (f"fastrnn {fastrnn.__version__}\n", ""))


def test_no_command_is_help(capsys):
    assert ends_with([], capsys) == ends_with(["--help"], capsys)


@pytest.mark.parametrize("argv", [["--help"], ["bench", "--help"], ["info", "--help"]])
def test_help(argv, capsys):
    status, printed = ends_with(argv, capsys)
    assert status == 0
    assert printed.out.startswith("usage: fastrnn")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nonsense"], "nonsense"),
        (["bench", "--nonsense"], "--nonsense"),
        (["bench", "--rounds", "x"], "--rounds"),
        (["bench", "--rounds", "0"], "rounds is 0"),
        (["bench", "--threads", "0"], "threads is 0"),
        (["bench", "--threads", "100000"], "usable cores"),
        (["bench", "--min-time", "-1"], "min_time"),
        (["bench", "--cells", "nonsense"], "unknown cell 'nonsense'"),
        (["bench", "--cell", "nonsense"], "unknown cell 'nonsense'"),
        (["bench", "--modes", "nonsense"], "unknown mode"),
        (["bench", "--shapes", "1,2,3"], "neither T,B,D,H"),
        (["bench", "--peers", "nonsense"], "unknown peer"),
        (["bench", "--peers", "not_there:Peer"], "No module named 'not_there'"),
        (["bench", "--peers", "fractions:Fraction"], "is no class of a peer: it lacks name, "),
        (["bench", "--dtype", "float16"], "unknown dtype"),
        (["bench", "--isa", "nonsense"], "unknown instruction set"),
        (["bench", "--statistic", "mean"], "unknown statistic"),
        (["bench", "--json", "no/such/folder/out.json"], "cannot write"),
        (["bench", "--plot", "no/such/folder/out.png"], "cannot write"),
    ],
)
def test_bad_options_are_one_line_and_status_2(argv, words, capsys):
    if "--plot" in argv and not importlib.util.find_spec("matplotlib"):
        words = "--plot needs matplotlib"
    status, printed = ends_with(argv, capsys)
    assert status == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("fastrnn")
    assert words in printed.err


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--foo", "fastrnn: error: unrecognized arguments: --foo"),
        ("train --foo", "fastrnn train: error: unrecognized arguments: --foo"),
        ("sample a b c", "fastrnn sample: error: unrecognized arguments: b c"),
        (
            "train --ephocs=3",
            "fastrnn train: error: unrecognized arguments: --ephocs=3 (did you mean --epochs?)",
        ),
        ("info --foo", "fastrnn info: error: unrecognized arguments: --foo"),
    ],
)
def test_what_is_not_known_is_told_by_its_command(argv, line, capsys):
    assert ends_with(argv.split(), capsys) == (2, ("", line + "\n"))


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("bench", "--cells", bench.CELLS),
        ("bench", "--modes", bench.MODES),
        ("bench", "--peers", PEERS),
        ("bench", "--dtype", DTYPES),
        ("bench", "--isa", fastrnn.available_isas()),
        ("bench", "--statistic", STATISTICS),
        ("train", "--cell", bench.CELLS),
        ("train", "--dtype", DTYPES),
    ],
)
def test_what_may_be_chosen_is_named_in_help_and_error(command, option, names, capsys):
    # The line of the option, and those further in that go on with it.
    told = ends_with([command, "--help"], capsys)[1].out.partition("\noptions:")[2]
    (text,) = re.findall(rf"^  {option} .*(?:\n    .*)*", told, re.MULTILINE)
    status, printed = ends_with([command, option, "nonsense"], capsys)
    assert status == 2
    for name in names:
        assert re.search(rf"\b{name}\b", text), (name, text)
        assert re.search(rf"\b{name}\b", printed.err), (name, printed.err)


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_bench_replaces_a_file_only_if_asked_to(option, tmp_path, monkeypatch, capsys):
    if option == "--plot":
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    Path("out.svg").write_text("old")
    argv = ["bench", "--peers", "numpy", *SMALLEST, option, "out.svg"]
    status, printed = ends_with(argv, capsys)
    assert (status, printed.out) == (2, "")
    assert "timed" not in printed.err
    assert "out.svg exists: replace it with --force, or choose another name" in printed.err
    assert Path("out.svg").read_text() == "old"
    assert ends_with([*argv, "--force"], capsys)[0] == 0
    assert Path("out.svg").read_text() != "old"


def test_bench_refuses_one_file_for_both(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = str(tmp_path / "out.svg")
    status, printed = ends_with(["bench", "--json", file, "--plot", file], capsys)
    assert status == 2
    assert "--json and --plot are the same file" in printed.err


def test_bench(tmp_path, capsys):
    file = tmp_path / "out.json"
    argv = ["bench", "--peers", "numpy", *SMALLEST, "--json", str(file), "--markdown"]
    status, printed = ends_with(argv, capsys)
    assert status == 0
    assert "## rnn forward, float32" in printed.out
    assert "## rnn training, float32" in printed.out
    assert "--peers numpy" in printed.out
    assert "(3,2,4,5): 2 timed" in printed.err
    assert [row["sizes"] for row in json.loads(file.read_text())["rows"]] == [[3, 2, 4, 5]] * 2


def test_as_a_module():
    ended = subprocess.run(
        [sys.executable, "-m", "fastrnn", "bench", "--rounds", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == "fastrnn bench: error: rounds is 0: at least 1 is needed\n"


@pytest.mark.parametrize("argv", ["--version", "--help"])
def test_what_says_little_imports_little(argv):
    code = (
        "import sys; from fastrnn.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print([m for m in sys.modules if m.startswith(('fastrnn.b', 'fastrnn.char'))])"
    )
    command = [sys.executable, "-c", code, argv]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_import_loads_neither_bench_nor_its_extras():
    code = (
        "import sys, fastrnn; print([m for m in sys.modules if m.startswith('fastrnn.bench')"
        " or m.split('.')[0] in ('torch', 'jax', 'onnx', 'openvino', 'matplotlib')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
