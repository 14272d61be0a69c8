"""Vanishing and exploding gradients: the lecture's example, and the command `fastrnn gradients`."""

from __future__ import annotations

import errno
import importlib.util
import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import gradients, outputs
from fastrnn.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")

ISAS = tuple(fastrnn.available_isas())
SMALL = ("--steps", "6", "--hidden-size", "5")


def run_main(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        status = main(argv)
    except SystemExit as end:
        status = int(str(end.code))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def few_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs whose figures are not looked at."""
    monkeypatch.setattr(gradients, "UPDATES", 20)


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what becomes of a plot's file, whatever is drawn."""
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(gradients, "draw", lambda *_: figure.Figure((1, 1)))


# ------------------------------------------------------------------------------ the example

# One relu unit with positive states: each step back multiplies the gradient by w_hh. All powers
# below, and their squares, are exact in float32, and in the float64 of the norms.


@pytest.mark.parametrize("w", [0.5, 1.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("isa", [None, *ISAS])
def test_one_relu_unit(isa: str | None, dtype: Any, w: float) -> None:
    """Over 10 steps the gradient becomes w**10; isa None is the reference."""
    if isa is not None:
        fastrnn.set_isa(isa)
    steps, one = 10, np.ones((1, 1), dtype)
    x = np.ones((steps, 1, 1), dtype)
    with fastrnn.backend("reference" if isa is None else "compiled"):
        output, _, tape = fastrnn.rnn_forward(
            x, one, one, np.full((1, 1), w, dtype), nonlinearity="relu"
        )
        assert output.min() > 0
        grads = fastrnn.rnn_backward(tape, d_h_n=one)
        norms = fastrnn.gradient_norms(tape, d_h_n=one)
    assert grads.h_0.dtype == dtype
    assert grads.h_0.item() == w**steps
    assert norms.dtype == np.float64
    assert norms.shape == (steps, 1)
    assert norms[:, 0].tolist() == [w**k for k in reversed(range(steps))]


# ------------------------------------------------------------------------------ the fit


@pytest.mark.parametrize("factor", [0.5, 0.999, 1.0, 3.0])
def test_the_factor_of_a_power(factor: float) -> None:
    norms = 7.0 * factor ** np.arange(40.0)[::-1]
    assert gradients.fitted_factor(norms) == pytest.approx(factor, rel=1e-13)


def test_norms_out_of_range_are_not_fitted() -> None:
    norms = 0.5 ** np.arange(10.0)[::-1]
    norms[:4] = 0, 1e-170, math.inf, math.nan
    assert gradients.fitted_factor(norms) == pytest.approx(0.5, rel=1e-13)
    norms[:9] = 0
    assert math.isnan(gradients.fitted_factor(norms))


def test_the_signal_of_a_batch_is_its_median() -> None:
    rates = np.array([0.2, 0.5, 0.9])
    signal = gradients.Signal("three rows", rates ** np.arange(11.0)[::-1, None])
    assert signal.factor == pytest.approx(0.5, rel=1e-13)
    assert signal.ratio == 0.5**10


# ------------------------------------------------------------------------------ the command


def table(out: str) -> dict[str, list[float]]:
    """The rows of figures that were printed, by name; of both tables."""
    number = r"  +(-?\d[\d.e+-]*|nan)"
    rows: dict[str, list[float]] = {}
    for columns in (2, 5):
        for match in re.finditer(rf"^  (\S+(?: \S+)*){number * columns}$", out, re.MULTILINE):
            rows[f"{match[1]}/{columns}"] = [float(f) for f in match.groups()[1:]]
    return rows


def test_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run_main(["gradients"], capsys)
    assert (status, err) == (0, "")
    rows = table(out)
    signals, runs = ("Elman", "GRU", "LSTM", "LSTM, forget_bias=3", "Elman, W_hh × 3"), 3
    assert len(rows) == len(signals) + runs
    factors, ratios = (dict(zip(signals, column, strict=True)) for column in zip(
        *(rows[f"{name}/2"] for name in signals), strict=True))  # fmt: skip
    assert factors["Elman"] <= 0.7
    assert factors["LSTM, forget_bias=3"] >= 0.98
    assert factors["Elman, W_hh × 3"] >= 1.05
    for name in ("Elman", "GRU", "LSTM"):
        assert factors[name] ** 99 == pytest.approx(ratios[name], rel=10)
        assert ratios[name] < 1e-15
    assert 0.1 < ratios["LSTM, forget_bias=3"] < 10
    assert ratios["Elman, W_hh × 3"] > 100

    control, unclipped, clipped = (
        rows[f"{name}/5"] for name in ("Elman", "Elman, W_hh × 3", "Elman, W_hh × 3, clipped")
    )
    guessing = math.log(gradients.SYMBOLS)
    for first, highest, end, *_ in (control, clipped):
        assert first == pytest.approx(guessing, rel=0.1)
        assert highest < 1.5 * guessing
        assert end < 0.01
    assert unclipped[0] == clipped[0]  # the same weights, the same sequences
    assert unclipped[3] == clipped[3] > 10 * gradients.MAX_NORM
    assert unclipped[1] > 4 * guessing
    assert unclipped[2] > guessing
    assert control[4] < gradients.MAX_NORM


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_factors_with_other_seeds(seed: int) -> None:
    factor = {s.name: s.factor for s in gradients.error_signals(gradients.Options(seed=seed))}
    assert factor[gradients.ELMAN] <= 0.7
    assert factor[gradients.REMEMBERING] >= 0.98


@pytest.mark.usefixtures("few_updates")
def test_the_figures_do_not_depend_on_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    printed = set()
    for isa in set(ISAS) - {"generic"} or ISAS:
        for threads in (1, 2):
            fastrnn.set_isa(isa)
            with fastrnn.num_threads(threads):
                printed.add(run_main(["gradients", *SMALL], capsys))
    assert len(printed) == 1
    other = run_main(["gradients", *SMALL, "--seed", "1"], capsys)
    assert other[0] == 0
    assert other not in printed


@pytest.mark.usefixtures("few_updates")
def test_with_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    with fastrnn.backend("reference"):
        reference = run_main(["gradients", *SMALL], capsys)
    compiled = run_main(["gradients", *SMALL], capsys)
    assert reference[0] == compiled[0] == 0
    theirs, ours = table(reference[1]), table(compiled[1])
    assert list(theirs) == list(ours)
    for name, figures in ours.items():
        assert figures == pytest.approx(theirs[name], rel=0.02), name


def test_no_update_of_a_clipped_run_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[float] = []

    class SGD(fastrnn.optim.SGD):
        def step(self, grads: Any) -> None:
            before = np.concatenate(self.params)
            super().step(grads)
            lengths.append(float(np.linalg.norm(np.concatenate(self.params) - before)))

    monkeypatch.setattr(fastrnn.optim, "SGD", SGD)
    monkeypatch.setattr(gradients, "UPDATES", 60)
    runs = gradients.training_runs(gradients.Options(steps=50))
    norms = np.array([run.norms for run in runs])
    assert norms[2].max() > 2 * gradients.MAX_NORM
    norms[2] = np.minimum(norms[2], gradients.MAX_NORM)
    assert lengths == pytest.approx((gradients.RATE * norms).ravel().tolist(), rel=1e-6)


def test_a_run_that_leaves_the_range_of_numbers_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    class SGD(fastrnn.optim.SGD):
        def step(self, grads: Any) -> None:
            assert all(np.isfinite(g).all() for g in grads)
            super().step(grads)

    monkeypatch.setattr(fastrnn.optim, "SGD", SGD)
    monkeypatch.setattr(gradients, "RATE", 1e308)
    options = gradients.Options(steps=6, hidden_size=5)
    control = gradients.training_runs(options)[0]
    assert np.isfinite(control.losses[0])
    assert np.isnan(control.losses[-1])
    assert " nan" in gradients.training_table(options, [control])


# ------------------------------------------------------------------------------ the plot


@pytest.mark.usefixtures("few_updates")
@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("a.svg", b"<?xml"),
        pytest.param("a.png", b"\x89PNG", marks=pytest.mark.full),
        pytest.param("a.PDF", b"%PDF", marks=pytest.mark.full),
    ],
)
def test_the_plot(
    name: str, begin: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    status, out, err = run_main(["gradients", *SMALL, "--plot", name], capsys)
    assert (status, err) == (0, "")
    assert f"drawn to {name}" in out
    assert Path(name).read_bytes().startswith(begin)
    assert os.listdir() == [name]


@pytest.mark.usefixtures("few_updates", "no_curves")
def test_a_plot_is_replaced_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_text("old")
    status, _, err = run_main(["gradients", *SMALL, "--plot", "a.png", "--force"], capsys)
    assert (status, err) == (0, "")
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert os.listdir() == ["a.png"]


def test_a_plot_of_extremes(tmp_path: Path) -> None:
    """What a logarithmic axis cannot show is left out, without a warning."""
    pytest.importorskip("matplotlib")
    norms = np.ones((10, 3))
    norms[:4] = 0
    norms[5, 0] = math.inf
    gone = np.ones((10, 3))
    gone[:-1] = 0
    signals = [gradients.Signal(gradients.ELMAN, norms), gradients.Signal(gradients.LSTM, gone)]
    nothing = np.full(gradients.UPDATES, math.nan)
    short = nothing.copy()
    short[:2] = 1, 1e300
    runs = [gradients.Run("", nothing, nothing), gradients.Run("", short, short)]
    runs.append(gradients.Run("", np.ones(gradients.UPDATES), np.ones(gradients.UPDATES)))
    figure = gradients.draw(gradients.Options(steps=10), signals, runs)
    outputs.save_plot(figure, str(tmp_path / "a.svg"))


def test_the_names_beside_the_curves_keep_apart() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    axes.set_yscale("log")
    axes.set_ylim(1, 1e10)
    ends = (1e10, 9e9, 1e5, 1.1e5, 1.0, 0.99)
    curves = [(np.array([5.0, end]), f"{end:g}", "black") for end in ends]
    gradients._label_ends(axes, curves, 0.1)
    texts = sorted(axes.texts, key=lambda t: float(t.get_text()))
    heights = [text.get_position()[1] for text in texts]
    assert all(b - a > 0.0999 for a, b in pairwise(heights))
    assert heights[-1] <= 1


def test_without_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from fastrnn import gradients\n"
        "from fastrnn.cli import main\n"
        "gradients.UPDATES = 20\n"
        "status = main(['gradients', *sys.argv[1:]])\n"
        "print(status, main(['gradients', '--plot', 'a.png']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *SMALL],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert "LSTM, forget_bias=3" in done.stdout
    assert done.stdout.endswith("\n0 2\n")
    assert done.stderr == (
        "fastrnn gradients: error: --plot needs matplotlib: pip install matplotlib\n"
    )
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--steps x", "--steps"),
        ("--steps 1", "steps is 1, expected at least 2"),
        ("--steps -3", "steps is -3"),
        ("--hidden-size 0", "hidden_size is 0, expected at least 1"),
        ("--seed -1", "seed is -1, expected at least 0"),
        ("--steps 99999999999", "not enough memory"),
        ("--steps 9999999999999999", "error: "),
        ("--steps 99999999999999999999999", "error: "),
        ("--hidden-size 99999999999", "error: "),
        ("--hidden-size 99999999999999999999999", "error: "),
        ("--nonsense", "unrecognized arguments: --nonsense"),
        ("--plot", "--plot"),
        ("--plot no/such.png", "cannot write no/such.png: no such folder"),
        ("--plot file/a.png", "cannot write file/a.png: no such folder"),
        ("--plot a.xyz", "a.xyz: the name must end in .png, .svg or .pdf"),
        ("--plot png", "png: the name must end in"),
        ("--plot old.svg", "old.svg exists: replace it with --force, or choose another name"),
        ("--plot folder.png --force", "cannot write folder.png: it is a folder"),
        ("--plot pipe.png --force", "cannot write pipe.png: it is not a regular file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(
    argv: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("folder.png").mkdir()
    os.mkfifo("pipe.png")
    Path("old.svg").write_text("old")
    Path("file").write_text("old")
    if argv.startswith("--plot ") and not importlib.util.find_spec("matplotlib"):
        words = "--plot needs matplotlib"
    status, out, err = run_main(["gradients", *argv.split()], capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("fastrnn")
    assert words in err
    assert sorted(os.listdir()) == ["file", "folder.png", "old.svg", "pipe.png"]
    assert Path("old.svg").read_text() == "old"


@pytest.mark.usefixtures("few_updates", "no_curves")
def test_a_disk_that_fills_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: str, chunks: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(outputs, "replace_file", full)
    path = str(tmp_path / "a.png")
    status, out, err = run_main(["gradients", *SMALL, "--plot", path], capsys)
    assert status == 2
    assert "factor per step" in out
    assert err == f"fastrnn gradients: error: cannot write {path}: No space left on device\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    tmp_path.chmod(0o500)
    try:
        status, out, err = run_main(["gradients", "--plot", str(tmp_path / "a.png")], capsys)
    finally:
        tmp_path.chmod(0o700)
    assert (status, out) == (2, "")
    assert "it cannot be written to" in err


def test_a_reader_that_has_seen_enough() -> None:
    argv = [sys.executable, "-m", "fastrnn", "gradients", *SMALL]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run_main(["gradients", "--help"], capsys)
    assert status == 0
    for words in ("--steps", "default: 100", "--hidden-size", "default: 64", "--plot", "--force"):
        assert words in out
