"""The command line: what it prints and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import fastrnn
from fastrnn.cli import main


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


@pytest.mark.parametrize("argv", [["--help"], ["bench", "--help"], ["info", "--help"]])
def test_help(argv, capsys):
    status, printed = ends_with(argv, capsys)
    assert status == 0
    assert printed.out.startswith("usage: fastrnn")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required"),
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
        (["bench", "--dtype", "float16"], "unknown dtype"),
        (["bench", "--isa", "nonsense"], "unknown instruction set"),
        (["bench", "--statistic", "mean"], "unknown statistic"),
        (["bench", "--json", "no/such/folder/out.json"], "cannot write"),
        (["bench", "--plot", "no/such/folder/out.png"], "cannot write"),
    ],
)
def test_bad_options_are_one_line_and_status_2(argv, words, capsys):
    status, printed = ends_with(argv, capsys)
    assert status == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("fastrnn")
    assert words in printed.err


def test_bench(tmp_path, capsys):
    file = tmp_path / "out.json"
    argv = [
        "bench",
        "--shapes",
        "3,2,4,5",
        "--rounds",
        "1",
        "--min-time",
        "0",
        "--threads",
        "1",
        "--peers",
        "numpy",
        "--cells",
        "rnn",
        "--json",
        str(file),
        "--markdown",
    ]
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


def test_import_loads_neither_bench_nor_its_extras():
    code = (
        "import sys, fastrnn; print([m for m in sys.modules if m.startswith('fastrnn.bench')"
        " or m.split('.')[0] in ('torch', 'jax', 'onnx', 'openvino', 'matplotlib')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
