"""The drop-in promise: the same script trains on the reference and on fastrnn."""

import contextlib
import importlib.util
import io
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import fastrnn
from fastrnn import reference

SCRIPT = Path(__file__).parents[2] / "examples" / "min_char_rnn.py"
IMPORT = "from fastrnn import reference as rnn\n"
SMALL = ["--hidden", "48", "--batch", "8", "--sample", "40", "--seed", "3"]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)


def printed_losses(output: str) -> dict[str, list[str]]:
    """The loss column under each backend's name, as printed."""
    columns: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line in ("fastrnn", "fastrnn.reference"):
            column = columns.setdefault(line, [])
        elif found := re.match(r"  step +\d+  ([\d.]+) bits per character", line):
            column.append(found[1])
    return columns


def test_an_echo_state_network_goes_on_by_itself() -> None:
    """Through three turns of a series of about 50 steps a turn, on either backend."""
    example = load(SCRIPT.with_name("echo_state.py"))
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert example.main(test=300) >= 150
        with fastrnn.backend("reference"):
            assert example.main(train=500, test=5) == 5
    assert "error of the next value: " in told.getvalue()


def test_both_backends_learn_the_default_text() -> None:
    done = run("--steps", "300", *SMALL)
    assert done.returncode == 0, done.stderr
    found = re.search(r"costs ([\d.]+) bits per character", done.stdout)
    assert found is not None
    counting_only = float(found[1])
    columns = printed_losses(done.stdout)
    assert list(columns) == ["fastrnn.reference", "fastrnn"]
    for name, losses in columns.items():
        # More than the frequencies of the characters was learned.
        assert float(losses[-1]) < counting_only, name
        assert len(losses) == 11, name
    differences = re.findall(r"over the first +(\d+) steps  ([\d.e+-]+)", done.stdout)
    assert [int(steps) for steps, _ in differences] == [1, 10, 100, 300]
    for part in ("recurrence", "total"):
        assert re.search(rf"  {part} +[\d.]+ / [\d.]+ ms a step: [\d.]+ times as fast", done.stdout)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_of_both_backends_agree(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two backends differ by no more than rounding, carried through training, can explain.

    Each computed sum is the exact sum of terms that are off by a relative `n` roundings at most,
    n being its length, and so each backend does at each step what exact arithmetic would do from
    slightly different weights. What such a difference does to the losses is measured: the
    reference is run again from weights that are off by that much, each in a random direction.
    """
    steps, hidden, length, batch = 20, 32, 25, 4
    # Along the longest way from weights to weights: a pre-activation (state, one input, bias), the
    # activation (2 units in the last place), the output layer, softmax, back through the output
    # layer and the state, the sum over time and streams, the update.
    example = load(SCRIPT)
    characters, ids = np.unique(list(example.help_topics()[:20000]), return_inverse=True)
    vocabulary = len(characters)
    roundings = (hidden + 2) + 4 + (hidden + 1) + vocabulary + vocabulary + hidden + length * batch
    size = roundings * np.finfo(dtype).eps / 2
    options = SimpleNamespace(
        hidden=hidden, length=length, batch=batch, steps=steps, dtype=dtype, rate=0.1, seed=0
    )

    def losses(module: ModuleType) -> np.ndarray:
        result = example.train(module, ids, vocabulary, options, say=lambda line: None)[1]
        assert len(result) == steps
        assert result[-1] < result[0]
        return result

    of_reference, of_compiled = losses(reference), losses(fastrnn)

    plain = example.initial_weights
    signs = np.random.default_rng(1)

    def shifted(*arguments: object) -> dict[str, np.ndarray]:
        weights = plain(*arguments)
        for w in weights.values():
            w *= (1 + size * signs.choice([-1, 1], w.shape)).astype(dtype)
        return weights

    monkeypatch.setattr(example, "initial_weights", shifted)
    once = np.abs(losses(reference) - of_reference).max()
    assert 0 < once < 1e-2  # still proportional to its cause

    # Both backends, a new such difference at each step.
    np.testing.assert_allclose(of_compiled, of_reference, rtol=0, atol=2 * steps * once)


def test_one_changed_import_runs_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SCRIPT.read_text("utf-8")
    assert source.count(IMPORT) == 1
    changed = tmp_path / "changed.py"
    changed.write_text(source.replace(IMPORT, "import fastrnn as rnn\n"), "utf-8")

    def output_of(path: Path, *arguments: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert load(path).main(["--steps", "60", *SMALL, *arguments]) == 0
        return re.sub(r" +[\d.]+ s\b", "", out.getvalue())  # but not the times

    by_option = output_of(SCRIPT, "--backend", "compiled")

    calls = {"rnn_forward": 0, "rnn_backward": 0}

    def counted(name: str) -> object:
        compiled = getattr(fastrnn, name)

        def call(*arguments: object, **keywords: object) -> object:
            calls[name] += 1
            return compiled(*arguments, **keywords)

        return call

    def not_to_be_called(*arguments: object, **keywords: object) -> None:
        raise AssertionError("the reference was called")

    for name in calls:
        monkeypatch.setattr(fastrnn, name, counted(name))
        monkeypatch.setattr(reference, name, not_to_be_called)
    by_import = output_of(changed)
    assert calls["rnn_backward"] == 60  # one a step
    assert calls["rnn_forward"] == 60 + 40  # and one a character written
    assert by_import == by_option  # the same losses to the last digit, and the same sample


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"", "the text has 0 characters, one batch needs 201"),
        (b"too short", "the text has 9 characters, one batch needs 201"),
        (b"\xff\xfe\xff" * 500, "cannot read"),
    ],
)
def test_unusable_text_is_one_line_and_status_2(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    if content is None:
        done = run("--text", str(path), *SMALL)
        status, out, err = done.returncode, done.stdout, done.stderr
    else:
        status = load(SCRIPT).main(["--text", str(path), *SMALL])
        out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_control_c_ends_with_the_sample() -> None:
    command = [sys.executable, "-u", str(SCRIPT), "--steps", "100000000", *SMALL]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        try:
            while "step" not in (line := process.stdout.readline()):
                assert line, "ended before its first step"
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert errors == ""
    assert "stopped after" in rest
    assert len(rest.rpartition("in total\n")[2]) >= 40
