"""The README keeps its word: its code runs, its loops agree, its links and commands exist."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


PYTHON = blocks("python")


def executed(index: int) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "readme"}
    # The offset gives errors the line of the README.
    before = TEXT[: TEXT.index(PYTHON[index])].count("\n")
    exec(compile("\n" * before + PYTHON[index], str(ROOT / "README.md"), "exec"), namespace)
    return namespace


def test_first_block_prints_two_times(capsys: pytest.CaptureFixture[str]) -> None:
    executed(0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["fastrnn.reference", "fastrnn"]
    for line in lines:
        assert re.fullmatch(r"\S+ +\d+\.\d\d ms", line)
        assert float(line.split()[1]) > 0


def test_torch_block(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    block = executed(1)
    assert capsys.readouterr().out == "kernel\n"
    assert block["network"].weight_hh_l0.grad is not None


def test_trained_elsewhere_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    block = executed(2)
    x = torch.ones(5, 2, 40)
    loaded = fastrnn.load(tmp_path / "tagger.safetensors")
    output = loaded["head"](loaded["rnn"](x.numpy())[0])
    with torch.no_grad():
        wanted = block["tagger"]["head"](block["tagger"]["rnn"](x)[0]).numpy()
    # Sums of at most 128 terms of order one, five steps and three layers deep.
    np.testing.assert_allclose(output, wanted, rtol=0, atol=128 * 15 * 2.0**-24)


def test_training_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = executed(3)
    losses = block["losses"]
    assert losses[-1] < 0.01 * losses[0]
    x = np.zeros((5, 2, 1), np.float32)
    trained, read = block["tape"].tapes["rnn"], block["model"].layers["rnn"]
    assert np.array_equal(trained.tapes[0].w_hh, read.weights["weight_hh_l0"])
    assert block["model"](x)[0].shape == (5, 2, 1)


def test_estimators_block(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    executed(4)
    found = re.fullmatch(r"(\d+)% of what was held out is right\n", capsys.readouterr().out)
    assert found is not None
    assert int(found[1]) >= 70


def test_stream_block() -> None:
    block = executed(5)  # it compares bits itself
    assert np.array_equal(block["rest"], block["output"][60:])
    assert block["stream"].state.shape == (2, 1, 64)


def test_frozen_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = executed(6)  # it compares bits itself
    assert len(block["streams"]) == 8
    assert repr(block["copy"]) == "LSTM(3, 64, num_layers=2).freeze()"


def assert_close(actual: Any, expected: Any, terms: int) -> None:
    """Equal but for rounding: `terms` is the most products that one element adds up.

    Each product and each addition rounds once, on both sides. The matrices of the README's blocks
    shrink what passes through them, so that the error of a step does not grow in later ones.
    """
    scale = np.abs(expected).max()
    tolerance = 2 * 2 * terms * np.finfo(np.float64).eps * scale
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def test_column_vector_loop() -> None:
    block = executed(7)
    T, D, H = block["T"], block["D"], block["H"]
    Wxh, Whh, bh, xs, dhs = (block[name] for name in ("Wxh", "Whh", "bh", "xs", "dhs"))
    assert np.linalg.norm(Whh, 2) < 1

    hs = {-1: np.zeros((H, 1))}
    for t in range(T):
        hs[t] = np.tanh(Wxh @ xs[t] + Whh @ hs[t - 1] + bh)
    dWxh, dWhh, dbh, carried = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(bh), 0
    for t in reversed(range(T)):
        dz = (dhs[t] + carried) * (1 - hs[t] * hs[t])
        dWxh += dz @ xs[t].T
        dWhh += dz @ hs[t - 1].T
        dbh += dz
        carried = Whh.T @ dz

    expected = np.concatenate([hs[t] for t in range(T)], axis=1).T
    assert_close(block["output"], expected, D + H)
    assert_close(block["h_n"], expected[-1], D + H)
    # To the error of a weight gradient's own sum comes that of the dz in it.
    assert_close(block["dWxh"], dWxh, T + D + 2 * H)
    assert_close(block["dWhh"], dWhh, T + D + 2 * H)
    assert_close(block["dbh"], dbh, T + D + 2 * H)


def test_batch_first_loop() -> None:
    block = executed(8)
    N, T, D, H = (block[name] for name in "NTDH")
    Wx, Wh, b, x, h0, dh = (block[name] for name in ("Wx", "Wh", "b", "x", "h0", "dh"))
    assert np.linalg.norm(Wh, 2) < 1

    h, prev = np.empty((N, T, H)), h0
    for t in range(T):
        h[:, t] = prev = np.tanh(x[:, t] @ Wx + prev @ Wh + b)
    dx, dWx, dWh, db = np.zeros_like(x), np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)
    carried = np.zeros((N, H))
    for t in reversed(range(T)):
        before = h[:, t - 1] if t else h0
        dz = (dh[:, t] + carried) * (1 - h[:, t] ** 2)
        dx[:, t] = dz @ Wx.T
        dWx += x[:, t].T @ dz
        dWh += before.T @ dz
        db += dz.sum(0)
        carried = dz @ Wh.T

    assert_close(block["output"], h.transpose(1, 0, 2), D + H)
    assert_close(block["h_n"], h[:, -1], D + H)
    assert_close(block["dx"], dx, D + 3 * H)
    assert_close(block["dh0"], carried, D + 3 * H)
    assert_close(block["dWx"], dWx, N * T + D + 2 * H)
    assert_close(block["dWh"], dWh, N * T + D + 2 * H)
    assert_close(block["db"], db, N * T + D + 2 * H)


def test_loop_by_steps() -> None:
    block = executed(9)
    Wxh, Whh, bh, h = block["Wxh"], block["Whh"], block["bh"], np.zeros(block["H"])
    rng = np.random.default_rng(0)
    for shape in (Wxh.shape, Whh.shape, bh.shape):
        rng.standard_normal(shape)
    x = rng.standard_normal(block["D"])
    for _ in range(20):
        h = np.tanh(Wxh @ x + Whh @ h + bh)
        x = h[: block["D"]]
    assert_close(block["h"], h, block["D"] + block["H"])


def test_loop_of_gates() -> None:
    block = executed(10)
    T, H, x, dh, W, b = (block[name] for name in ("T", "H", "x", "dh", "W", "b"))

    def loss() -> float:
        h, c, total = np.zeros((len(x), H)), np.zeros((len(x), H)), 0.0
        for t in range(T):
            i, f, o, g = np.split(np.hstack([x[:, t], h]) @ W + b, 4, axis=1)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
            total += float((h * dh[:, t]).sum())
        return total

    for array, gradient in ((W, block["dW"]), (b, block["db"])):
        assert gradient.shape == array.shape
        for at in list(np.ndindex(*array.shape))[:: array.size // 20]:
            kept, losses = array[at], []
            for step in (1e-5, -1e-5):
                array[at] = kept + step
                losses.append(loss())
            array[at] = kept
            # Central differences: each of the 25 additions of losses of up to 100 rounds by half of
            # 2^-52 · 64, over 2 · 1e-5; and the third derivative, of the gradient's order, times
            # 1e-10 / 6.
            bound = 25 * 64 * 2.0**-53 / 1e-5 + 1e-9 * abs(gradient[at])
            assert abs((losses[0] - losses[1]) / 2e-5 - gradient[at]) < bound


def test_every_python_block_is_tested() -> None:
    assert len(PYTHON) == 11
    lines = [line for line in PYTHON[0].splitlines() if line]
    assert len(lines) <= 12  # a first look stays short
    assert TEXT.count("```") == 2 * sum(len(blocks(language)) for language in ("python", "sh"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text("utf-8"))
    inside = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [target for target in inside if not (ROOT / target).exists()] == []
    if page == "README.md":
        assert len(inside) >= 8


def test_setup_commands_are_single_lines() -> None:
    """`.ci/run` looks for these two lines and runs them."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("python3 -m venv .venv && ")]
    ends = [command.rpartition(" && ")[2] for command in commands]
    assert ends == [".venv/bin/fastrnn train", ".venv/bin/pytest"]


def test_bench_table_is_whole() -> None:
    table = re.findall(r"<!-- bench -->\n(.*?)\n<!-- /bench -->", TEXT, re.DOTALL)
    assert len(table) == 1
    rows = [line for line in table[0].splitlines() if line.startswith("|")]
    assert len(rows) >= 3
    assert len({row.count("|") for row in rows}) == 1
