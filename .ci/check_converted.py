"""Converted models run where there is NumPy alone: `make FOLDER` with their makers, then `run`."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np

import fastrnn
import fastrnn.convert

MAKERS = ("torch", "keras", "h5py", "onnx", "onnxruntime", "safetensors")
T, B, D, H = 7, 3, 5, 9


def make(folder: Path) -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import onnxruntime
    import torch

    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, B, D), dtype=np.float32)
    module = torch.nn.LSTM(D, H, 2, bidirectional=True)
    objects = {"torch": fastrnn.convert.from_torch(module)}
    with torch.no_grad():
        wanted = {"torch": module(torch.from_numpy(x))[0].numpy()}

    model = keras.Sequential([keras.Input((None, D)), keras.layers.GRU(H, return_sequences=True)])
    model.save(folder / "model.keras")
    wanted["keras"] = np.swapaxes(model.predict(np.swapaxes(x, 0, 1), verbose=0), 0, 1)
    (objects["keras"],) = fastrnn.convert.from_keras(model).values()

    fastrnn.convert.to_onnx(fastrnn.RNN(D, H, rng=0), folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    wanted["onnx"] = session.run(["output"], {"x": x})[0]
    (objects["onnx"],) = fastrnn.convert.from_onnx(folder / "model.onnx").values()
    fastrnn.save(folder / "model.safetensors", objects | {"wanted": wanted, "x": x})


def run(folder: Path) -> None:
    there = [name for name in MAKERS if importlib.util.find_spec(name)]
    assert not there, there
    loaded = fastrnn.load(folder / "model.safetensors")
    (loaded["from the file"],) = fastrnn.convert.from_keras(folder / "model.keras").values()
    wanted = loaded["wanted"] | {"from the file": loaded["wanted"]["keras"]}
    for name, want in wanted.items():
        error = np.abs(loaded[name](loaded["x"])[0] - want).max()
        print(f"{name}: {loaded[name]!r}, at most {error:.1e} from what its maker says")
        # Sums of at most 28 terms of order one over 7 steps of 2 layers; with weights in a wrong
        # place it is more than 0.01.
        assert error < 28 * 14 * 2.0**-24


{"make": make, "run": run}[sys.argv[1]](Path(sys.argv[2]))
