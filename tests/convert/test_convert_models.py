"""Models of several layers in ``fastrnn info``, ``fastrnn convert`` and the converters."""

from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn.cli import main
from fastrnn.convert import to_onnx, to_torch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    words = fastrnn.Embedding(10, 4, rng=0)
    model = fastrnn.Sequential({
        "words": words, "rnn": fastrnn.GRU(4, 4, rng=1),
        "drop": fastrnn.Dropout(0.5, variational=True), "out": fastrnn.Linear.tied(words),
    })  # fmt: skip
    path = tmp_path / "model.safetensors"
    objects = {"model": model, "drop": fastrnn.Dropout(), "rnn": fastrnn.RNN(3, 4, rng=2)}
    fastrnn.save(path, objects)
    return path


def test_info_lists_the_layers_of_a_model(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    for line in (
        "model.words: Embedding(10, 4)", "model.rnn: GRU(4, 4)", "drop: Dropout(0.5)",
        "model.drop: Dropout(0.5, variational=True)",
        "model.out: Linear.tied(Embedding(10, 4))\n    bias  float32  (10,)  40 bytes",
    ):  # fmt: skip
        assert f"{line}\n" in said
    arrays = 40 + 120 + 10 + 36  # the tied weight once
    assert f"6 layers, 10 arrays, {4 * arrays:,} bytes of arrays" in said


def test_a_model_is_converted_whole(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(path), str(out), "--batch-first"]) == 0
    assert "model: Sequential of words, rnn, drop, out, 170 weights" in capsys.readouterr().out
    before, after = fastrnn.load(path), fastrnn.load(out)
    indices = np.arange(10).reshape(5, 2)
    wanted = before["model"](indices)[0]
    assert np.array_equal(after["model"](indices.T)[0].swapaxes(0, 1), wanted)
    assert after["rnn"].batch_first
    assert repr(after["drop"]) == "Dropout(0.5)"


def test_one_layer_of_a_model(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(path), str(out), "--name", "model.rnn"]) == 0
    assert np.array_equal(
        fastrnn.load(out)["model_rnn"].flat_weights,
        fastrnn.load(path)["model"].layers["rnn"].flat_weights,
    )
    capsys.readouterr()
    onnx = str(tmp_path / "out.onnx")
    assert main(["convert", str(path), onnx, "--name", "model"]) == 2
    said = capsys.readouterr().err
    assert "is a Sequential, and an ONNX model is written of one layer: pass --name model." in said
    pytest.importorskip("onnx")
    for name in ("model.rnn", "model.out"):
        assert main(["convert", str(path), onnx, "--name", name, "--force"]) == 0


def test_a_tied_layer_without_its_embedding(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.safetensors")
    assert main(["convert", str(path), out, "--name", "model.out"]) == 2
    said = capsys.readouterr().err
    assert "has its weight from an embedding, which is left out: convert both, without" in said
    assert main(["convert", str(path), out]) == 0


def test_the_layer_that_is_named_to_write_an_onnx_of_has_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "model.safetensors", str(tmp_path / "out.onnx")
    model = fastrnn.Sequential({"drop": fastrnn.Dropout(), "out": fastrnn.Linear(3, 2)})
    for objects, name in (
        ({"model": model}, "model.out"),
        ({"drop": fastrnn.Dropout(), "out": fastrnn.Linear(3, 2)}, "out"),
    ):
        fastrnn.save(path, objects)
        words = ["convert", str(path), out] + ["--name", "model"] * (name == "model.out")
        assert main(words) == 2
        assert f"pass --name {name}, or another" in capsys.readouterr().err


def test_converters_take_single_layers(tmp_path: Path) -> None:
    model = fastrnn.Sequential({"drop": fastrnn.Dropout(), "out": fastrnn.Linear(3, 2, rng=0)})
    for call in (to_torch, lambda layer: to_onnx(layer, tmp_path / "a.onnx")):
        with pytest.raises(TypeError, match=r"a Sequential.*: pass layer\.layers\['out'\]"):
            call(model)
        with pytest.raises(TypeError, match="layer is a Dropout, expected a layer of fastrnn"):
            call(model.layers["drop"])
