"""from_onnx on files: what PyTorch's exporters and tf2onnx write, and external data.

The files in data/ were written by tf2onnx 1.17.0 and TensorFlow 2.21.0, with keras 3.15.1 and
tf_keras 2.21.0, by this::

    import keras, numpy as np, onnx, tensorflow as tf, tf2onnx, tf_keras
    L = keras.layers
    for name, of, layers in (
        ("lstm", keras, [L.LSTM(4, return_sequences=True, name="a"), L.Dense(2, name="b")]),
        ("bidirectional", keras, [
            L.Bidirectional(L.LSTM(4, return_sequences=True, name="a")), L.LSTM(3, name="b")
        ]),
        ("loop", keras, [L.SimpleRNN(4, name="a")]),
        ("gru", tf_keras, [tf_keras.layers.GRU(4, name="a")]),
    ):
        model = of.Sequential([of.Input((None, 3)), *layers], name="m")
        rng = np.random.default_rng(0)
        weights = [rng.uniform(-0.7, 0.7, w.shape).astype("f4") for w in model.get_weights()]
        model.set_weights(weights)
        spec = (tf.TensorSpec((None, None, 3), tf.float32, name="x"),)
        run = tf.function(lambda x: model(x), input_signature=spec)
        made, _ = tf2onnx.convert.from_function(run, input_signature=spec, opset=15)
        onnx.save(made, f"tf2onnx_{name}.onnx")
        x = rng.standard_normal((2, 5, 3)).astype("f4")
        np.savez(f"tf2onnx_{name}.npz", x=x, y=np.asarray(run(x)))
"""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx_models import CLOSE, Case, check, draw, expected, model_of, run  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.convert import from_onnx  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = Path(__file__).parent / "data"
CASE = Case("GRU", "bidirectional")
ARRAYS = draw(CASE)


# ------------------------------------------------------------------------------ PyTorch


@pytest.fixture(scope="module")
def torch() -> Any:
    found = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    return found


def tagger(torch: Any, kind: str, H: int, batch_first: bool, state: bool) -> Any:
    """Embedding, two layers in both directions, Linear; in evaluation mode."""

    class Tagger(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            options = {"nonlinearity": "relu"} if kind == "RNN" else {}
            self.words = torch.nn.Embedding(11, 6)
            self.rnn = getattr(torch.nn, kind)(
                6, H, 2, bidirectional=True, batch_first=batch_first, dropout=0.5, **options
            )
            self.head = torch.nn.Linear(2 * H, 3)

        def forward(self, ids: Any, *state: Any) -> Any:
            given = (state if kind == "LSTM" else state[0]) if state else None
            y, final = self.rnn(self.words(ids), given)
            return self.head(y), final

    torch.manual_seed(0)
    return Tagger().eval()


def exported(torch: Any, model: Any, inputs: Any, path: Path, dynamo: bool, sizes: bool) -> None:
    """Write the model; `sizes`: with other sizes of batch and time allowed."""
    names = ["ids", "h", "c"][: len(inputs)]
    time, batch = (1, 0) if model.rnn.batch_first else (0, 1)
    options: dict[str, Any] = {}
    if dynamo and sizes:  # of the time axis it allows no other
        axis = torch.export.Dim("batch", min=2)
        states = [({1: axis},) * (len(inputs) - 1)] * (len(inputs) > 1)
        options["dynamic_shapes"] = ({batch: axis}, *states)
    elif sizes:
        options["dynamic_axes"] = {"ids": [batch, time], **{name: [1] for name in names[1:]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about exporting, of which there are many
        torch.onnx.export(
            model, inputs, path, dynamo=dynamo, input_names=names, external_data=False,
            verbose=False, **options,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "H", "batch_first", "dynamo", "sizes", "state"),
    [
        ("LSTM", 4, True, False, True, False),
        ("LSTM", 40, False, False, False, True),
        ("GRU", 4, False, False, True, True),
        ("GRU", 40, True, False, False, False),
        ("RNN", 4, True, False, False, True),
        ("RNN", 72, False, False, True, False),
        ("LSTM", 4, True, True, False, False),
        ("LSTM", 40, False, True, True, True),
        ("GRU", 4, False, True, False, True),
        ("GRU", 40, True, True, True, False),
    ],
)
def test_what_pytorch_exports_runs_to_its_numbers(
    torch: Any, tmp_path: Path, kind: str, H: int, batch_first: bool, dynamo: bool, sizes: bool,
    state: bool,
) -> None:  # fmt: skip
    """H is such that weights have below, and above, the 8192 elements that are folded."""
    model = tagger(torch, kind, H, batch_first, state)
    ids = torch.randint(0, 11, (2, 5) if batch_first else (5, 2))
    states = tuple(torch.randn(4, 2, H) for _ in range(2 if kind == "LSTM" else 1)) * state
    path = tmp_path / "model.onnx"
    exported(torch, model, (ids, *states), path, dynamo, sizes)
    words, *layers, head = from_onnx(path, batch_first=batch_first).values()
    assert [type(layer).__name__ for layer in layers] == [kind] * 2

    with torch.no_grad():
        want, finals = model(ids, *states)
    y, found = words(ids.numpy()), []
    for k, layer in enumerate(layers):
        mine = tuple(s[2 * k : 2 * k + 2].numpy() for s in states)
        y, final = layer(y, (mine if kind == "LSTM" else mine[0]) if state else None)
        found.append(final if kind == "LSTM" else (final,))
    # Sums of at most 160 terms of order one, the weights below 1/sqrt(H); 5 steps, 2 layers, and
    # both sides round: 2 · 160 · 11 roundings of terms of at most 1/sqrt(H).
    atol = 2 * 160 * 11 * 2.0**-24 / H**0.5
    np.testing.assert_allclose(head(y), want.numpy(), rtol=0, atol=atol)
    finals = finals if kind == "LSTM" else (finals,)
    for ours, theirs in zip(zip(*found, strict=True), finals, strict=True):
        np.testing.assert_allclose(np.concatenate(ours), theirs.numpy(), rtol=0, atol=atol)


def test_an_rnn_that_pytorch_writes_out_step_by_step_is_refused(torch: Any, tmp_path: Path) -> None:
    """The newer exporter has no RNN node: it makes products and activations of it."""
    model = tagger(torch, "RNN", 4, False, False)
    exported(torch, model, (torch.randint(0, 11, (3, 2)),), tmp_path / "m.onnx", True, False)
    with pytest.raises(
        ValueError, match=r"no RNN, LSTM or GRU node; .* pass name='node_embedding'"
    ):
        from_onnx(tmp_path / "m.onnx")


# ------------------------------------------------------------------------------ tf2onnx


def test_tf2onnx_lstm_and_dense() -> None:
    layers = from_onnx(DATA / "tf2onnx_lstm.onnx", batch_first=True)
    assert list(map(repr, layers.values())) == ["LSTM(3, 4, batch_first=True)", "Linear(4, 2)"]
    lstm, dense = layers.values()
    said = np.load(DATA / "tf2onnx_lstm.npz")
    np.testing.assert_allclose(
        dense(lstm(said["x"])[0]), said["y"], rtol=0, atol=CLOSE[np.dtype("f4")]
    )


def test_tf2onnx_bidirectional() -> None:
    layers = from_onnx(DATA / "tf2onnx_bidirectional.onnx", batch_first=True)
    first, second = layers.values()
    assert repr(first) == "LSTM(3, 4, batch_first=True, bidirectional=True)"
    said = np.load(DATA / "tf2onnx_bidirectional.npz")
    got = second(first(said["x"])[0])[0][:, -1]
    np.testing.assert_allclose(got, said["y"], rtol=0, atol=CLOSE[np.dtype("f4")])


def test_tf2onnx_gru() -> None:
    (gru,) = from_onnx(DATA / "tf2onnx_gru.onnx", batch_first=True).values()
    assert repr(gru) == "GRU(3, 4, batch_first=True)"
    said = np.load(DATA / "tf2onnx_gru.npz")
    atol = CLOSE[np.dtype("f4")]
    np.testing.assert_allclose(gru(said["x"])[0][:, -1], said["y"], rtol=0, atol=atol)


def test_tf2onnx_writes_other_recurrences_out_as_loops() -> None:
    text = r"no RNN, LSTM or GRU node; .* the body of '.*while_loop' \(Loop\)"
    with pytest.raises(ValueError, match=text):
        from_onnx(DATA / "tf2onnx_loop.onnx")


# ------------------------------------------------------------------------------ external data


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A model's path; its W, R and B are in a file beside it."""
    path = tmp_path / "model.onnx"
    onnx.save(
        model_of(CASE, ARRAYS), path, save_as_external_data=True, location="weights.bin",
        size_threshold=0,
    )  # fmt: skip
    return path


def edited(path: Path, **entries: Any) -> None:
    """Write other entries into the external data of all tensors; None takes one out."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        said = {e.key: e.value for e in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in said.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())


def test_external_data_is_read(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = expected(CASE, ARRAYS)
    check(run(from_onnx(stored, "node"), ARRAYS, 0), want, np.float64)
    check(run(from_onnx(str(stored), "node"), ARRAYS, 0), want, np.float64)
    check(run(from_onnx(onnx.load(stored), "node"), ARRAYS, 0), want, np.float64)
    monkeypatch.chdir(stored.parent)
    check(run(from_onnx("model.onnx", "node"), ARRAYS, 0), want, np.float64)
    edited(stored, length=None)
    check(run(from_onnx(stored, "node"), ARRAYS, 0), want, np.float64)
    (stored.parent / "inner").symlink_to(stored.parent / "weights.bin")
    edited(stored, location="inner")  # a link to a file in the folder
    check(run(from_onnx(stored, "node"), ARRAYS, 0), want, np.float64)


def test_bytes_are_a_model(stored: Path) -> None:
    data = model_of(CASE, ARRAYS).SerializeToString()
    assert isinstance(from_onnx(data, "node"), fastrnn.GRU)
    for source in (stored.read_bytes(), onnx.load(stored, load_external_data=False)):
        with pytest.raises(
            ValueError, match=r"in another file, 'weights.bin': pass the path of the"
        ):
            from_onnx(source)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"location": "../weights.bin"}, "expected a file in the model's folder"),
        ({"location": "a/../weights.bin"}, "expected a file in the model's folder"),
        ({"location": "..\\weights.bin"}, "expected a file in the model's folder"),
        ({"location": "/etc/passwd"}, "expected a file in the model's folder"),
        ({"location": ""}, "expected a file in the model's folder"),
        ({"location": None}, "has no location"),
        ({"location": "link"}, "a link out of the model's folder"),
        ({"location": "folder/passwd"}, "a link out of the model's folder"),
        ({"location": "pipe"}, "not a regular file"),
        ({"location": "."}, "directory"),
        ({"location": "missing"}, "No such file"),
        ({"location": "null\0"}, "expected a file in the model's folder"),
        ({"location": "x" * 300}, "too long"),
        ({"offset": -1}, "the offset of its external data is '-1'"),
        ({"offset": "1e3"}, "the offset of its external data is '1e3'"),
        ({"offset": 10**17}, "of 'weights.bin', which has"),
        ({"offset": 8000}, "of 'weights.bin', which has"),
        ({"length": 16}, "it has 16 bytes in 'weights.bin', expected"),
        ({"length": 10**17}, "of 'weights.bin', which has"),
        ({"length": "0x10"}, "the length of its external data is '0x10'"),
        ({"length": None, "offset": 2000}, "400 bytes in 'weights.bin', expected"),
    ],
)  # fmt: skip
def test_external_data_elsewhere_or_of_another_size_is_refused(
    stored: Path, entries: dict[str, Any], text: str
) -> None:
    folder = stored.parent
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "folder").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    edited(stored, **entries)
    with pytest.raises(ValueError, match=f"node: GRU: tensor 'W': .*{text}"):
        from_onnx(stored)


def test_without_the_onnx_package(monkeypatch: pytest.MonkeyPatch, stored: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "fastrnn\[onnx\]"'):
        from_onnx(stored)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "none.onnx")
    with pytest.raises(IsADirectoryError):
        from_onnx(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        from_onnx(tmp_path / "pipe")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ValueError, match="text: not an ONNX model"):
        from_onnx(tmp_path / "text")
    (tmp_path / "text").write_bytes(b"")
    with pytest.raises(ValueError, match="it has no graph"):
        from_onnx(tmp_path / "text")
