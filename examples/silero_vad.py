"""Is somebody speaking? A trained voice activity detector: its LSTM here, convolutions in NumPy.

The package silero-vad (Silero Team, MIT licence) holds weights that were trained in PyTorch, in a
safetensors file. `fastrnn.convert.from_torch` finds the LSTM among them. The rest is small: a short
Fourier transform and four convolutions make 128 features of each piece of 32 ms, and one unit says
how likely there is speech in it. Nothing else of the package is used: it need not be imported, nor
its dependencies installed.

    chunk (512,), and the 64 samples before it -> magnitudes (4, 129) -> convolutions (128,)
                                               -> LSTM (128,) -> output unit, sigmoid

    pip install --no-deps silero-vad
    python examples/silero_vad.py                   # of noise, tones and a buzz like a voice
    python examples/silero_vad.py recording.wav     # 16 kHz, one channel, 16 bits
"""

import argparse
import sys
import tempfile
import time
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wheels
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import fastrnn
from fastrnn import convert

Array = NDArray[Any]

RATE = 16000
CHUNK, CONTEXT = 512, 64  # samples that are new in a piece, and those of the piece before
WINDOW, HOP, BINS = 256, 128, 129  # of the Fourier transform
STRIDES = {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 1}


class Detector:
    """Speech or not, piece after piece: the LSTM's stream remembers what came before."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        lstm = convert.from_torch(weights, prefix="lstm_cell")
        assert isinstance(lstm, fastrnn.LSTM)
        self.weights, self.lstm, self.stream = weights, lstm, lstm.stream()
        self.before = np.zeros(CONTEXT, lstm.dtype)

    def __call__(self, chunk: Array) -> float:
        """The probability that there is speech in the next 512 samples."""
        piece = np.concatenate([self.before, chunk])
        self.before = piece[-CONTEXT:]
        return float(self.probability(self.stream.step(self.features(piece))))

    def whole(self, chunks: Array) -> Array:
        """All chunks (T, 512) of a recording at once: (T,)."""
        before = np.zeros((len(chunks), CONTEXT), self.lstm.dtype)
        before[1:] = chunks[:-1, -CONTEXT:]
        output, _ = self.lstm(self.features(np.concatenate([before, chunks], axis=1)))
        return self.probability(output)

    def features(self, piece: Array) -> Array:
        """(..., 576) -> (..., 128): nothing here remembers anything."""
        mirrored = np.concatenate([piece, piece[..., -2 : -CONTEXT - 2 : -1]], axis=-1)
        windows = sliding_window_view(mirrored, WINDOW, axis=-1)[..., ::HOP, :]
        parts = windows @ self.weights["stft_conv.weight"][:, 0].T  # real, then imaginary
        x = np.sqrt(parts[..., :BINS] ** 2 + parts[..., BINS:] ** 2)
        for name, stride in STRIDES.items():
            x = self.convolution(name, x, stride)
        return np.ascontiguousarray(x[..., 0, :])  # one step in time is left

    def convolution(self, name: str, x: Array, stride: int) -> Array:
        """(..., T, C) -> (..., T / stride, units), over three steps in time, and relu."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (0, 0)])
        windows = sliding_window_view(padded, 3, axis=-2)[..., ::stride, :, :]
        rows = windows.reshape(*windows.shape[:-2], -1)
        z: Array = rows @ weight.reshape(len(weight), -1).T + bias
        return np.maximum(z, 0, out=z)

    def probability(self, h: Array) -> Array:
        weight, bias = self.weights["final_conv.weight"][0, :, 0], self.weights["final_conv.bias"]
        z: Array = np.maximum(h, 0) @ weight + bias[0]
        return 1 / (1 + np.exp(-z))


def load(wheel: str | None = None) -> dict[str, Array]:
    """The weights by name, of the package that is installed or of the wheel."""
    content = wheels.read("silero_vad", "data/silero_vad_16k.safetensors", wheel)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.safetensors")
        path.write_bytes(content)
        return fastrnn.load(path)


def recording(path: str) -> Array:
    try:
        with wave.open(path) as file:
            form = file.getframerate(), file.getnchannels(), 8 * file.getsampwidth()
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        sys.exit(f"cannot read {path}: {error}")
    if form != (RATE, 1, 16):
        sys.exit("{} has {} Hz, {} channels, {} bits: 16000, 1, 16 wanted".format(path, *form))
    return np.frombuffer(content, "<i2").astype(np.float32) / 32768


def made_up(seconds: float = 2.0) -> dict[str, Array]:
    """Sounds of this length: noise, tones, and a buzz in syllables that resembles vowels."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * RATE)) / RATE
    noise = 0.003 * rng.standard_normal(len(t))
    tones = 0.1 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 660 * t)
    # A voice: pulses at a pitch that falls and rises; three resonances, which glide; syllables.
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = np.zeros(len(t))
    for k in range(1, 30):
        level = sum(
            np.exp(-(((k * pitch - centre - width * np.sin(2 * np.pi * 2 * t)) / 120) ** 2))
            for centre, width in ((500, 200), (1500, 400), (2500, 100))
        )
        voice += (level + 0.02) / k**0.5 * np.sin(k * phase)
    voice *= 0.1 * np.clip(np.sin(2 * np.pi * 2 * t) + 0.4, 0, 1)
    sounds = {"noise": noise, "tones": noise + tones, "voice": noise + voice}
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


def chunked(sound: Array) -> Array:
    """(T, 512), the last one padded with silence."""
    return np.pad(sound, (0, -len(sound) % CHUNK)).reshape(-1, CHUNK)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    wheels.add_option(parser, "silero_vad")
    parser.add_argument("recording", nargs="?", help="a WAV file; made-up sounds if none")
    parser.add_argument("--smoke", action="store_true", help="it is short anyway")
    options = parser.parse_args(arguments)
    weights = load(options.wheel)
    sounds = {options.recording: recording(options.recording)} if options.recording else made_up()
    for name, sound in sounds.items():
        detector, chunks = Detector(weights), chunked(sound)
        start = time.perf_counter()
        speech = np.array([detector(chunk) for chunk in chunks])
        took = (time.perf_counter() - start) / max(1, len(chunks)) * 1e3
        print(f"{name}: {took:.2f} ms for each {1e3 * CHUNK / RATE:.0f} ms")
        print("  " + "".join(" .:-=+*#%@"[int(p * 9.99)] for p in speech))


if __name__ == "__main__":
    main()
