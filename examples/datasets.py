"""The data that the examples of the estimators learn from: read from files that packages hold.

Nothing is downloaded, and nothing of these packages is imported: they are installed without what
they depend on (`pip install --no-deps aeon`), and their files are read.
"""

import codecs
import pickle
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import wheels
from numpy.typing import NDArray

Array = NDArray[Any]
Labelled = tuple[list[Array], Array]  # sequences (T, D), and a label for each

EXERCISES = {
    "PEN": "pendulum", "ABD": "abduction", "FEL": "forward elevation", "IR": "internal rotation",
    "ER": "external rotation", "TRAP": "lower trapezius row", "ROW": "bent-over row",
}  # fmt: skip

TS_KEYS = {
    "problemname", "timestamps", "missing", "univariate", "dimension", "dimensions", "equallength",
    "serieslength", "classlabel", "targetlabel", "data",
}  # fmt: skip


def read_ts(text: str) -> Labelled:
    """Sequences (T, D) and their labels, of a file in the format .ts.

    Its lines begin with # (a comment) or @ (a property), until @data. Then each is a sequence, the
    numbers of one feature after those of the other, and its label::

        @classLabel true yes no
        @data
        0.1,0.2,0.3:5.1,5.2,5.3:yes

    Labels are strings, or numbers (float) where the file has @targetLabel. A ValueError names the
    line that is not understood: timestamps and missing values are not.
    """
    labels: set[str] | None = None
    of_numbers, found, features = False, False, None
    sequences: list[Array] = []
    y: list[Any] = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        try:
            if not line or line.startswith("#"):
                continue
            if found:
                *parts, label = line.split(":")
                if not parts:
                    raise ValueError("expected numbers, a colon and a label")
                sequence = np.array([part.split(",") for part in parts], np.float64).T
                features = sequence.shape[1] if features is None else features
                if not sequence.size or sequence.shape[1] != features:
                    raise ValueError(f"{sequence.shape[1:]} features, {features} were expected")
                if not np.isfinite(sequence).all():
                    raise ValueError("a value that is not finite")
                if labels is not None and label not in labels:
                    raise ValueError(f"the label {label!r}, which @classLabel does not name")
                sequences.append(sequence)
                y.append(float(label) if of_numbers else label)
                continue
            key, *values = line.split()
            key = key.removeprefix("@").lower()
            if not line.startswith("@") or key not in TS_KEYS:
                raise ValueError("neither a comment nor a property that is known")
            if key in ("timestamps", "missing") and values != ["false"]:
                raise ValueError("timestamps and missing values are not supported")
            if key in ("dimension", "dimensions"):
                features = int(values[0])
            elif key == "classlabel" and values[0].lower() == "true":
                labels = set(values[1:])
            elif key == "targetlabel":
                of_numbers = values[0].lower() == "true"
            elif key == "data":
                found = True
                if labels is None and not of_numbers:
                    raise ValueError("neither @classLabel nor @targetLabel came before it")
        except IndexError:
            raise ValueError(
                f"line {number} of the .ts file, {line!r}: a value is missing"
            ) from None
        except ValueError as error:
            shown = line if len(line) <= 60 else f"{line[:57]}..."
            raise ValueError(f"line {number} of the .ts file, {shown!r}: {error}") from None
    if not sequences:
        raise ValueError("the .ts file has no data")
    return sequences, np.array(y)


def japanese_vowels() -> tuple[Labelled, Labelled]:
    """Utterances of nine men, (T, 12) each, and who speaks: to learn from, and to be tested on.

    Each says the Japanese vowels /ae/. A step is a frame of 25.6 ms, 6.4 ms after the one before;
    its features are 12 LPC cepstrum coefficients of the sound. An utterance has 7 to 29 of them.
    There are 30 utterances of each man to learn from, and 24 to 88 recorded on other occasions to
    be tested on.

    Japanese Vowels of the UCI Machine Learning Repository (https://doi.org/10.24432/C5NS47), where
    its licence is CC BY 4.0; M. Kudo, J. Toyama, M. Shimbo, "Multidimensional curve classification
    using passing-through regions", Pattern Recognition Letters 20, 1999. The PyPI package aeon has
    it as two files.
    """
    train, test = (
        _file("aeon", f"datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts").decode("utf-8")
        for part in ("TRAIN", "TEST")
    )
    return read_ts(train), read_ts(test)


def _file(package: str, name: str) -> bytes:
    return wheels.read(package, name, what="data", cure="pip install --no-deps {0}")


@dataclass
class Recording:
    """Somebody with a watch does an exercise again and again."""

    steps: Array  # (T, 6): accelerations ax, ay, az in units of gravity, rotations in radians/s
    exercise: str
    subject: int  # 1 to 10


def watch(rate: int = 25) -> list[Recording]:
    """Ten persons with a smartwatch do each of seven exercises of the shoulder, with either arm.

    140 recordings, of 81 minutes together. They have 50 samples a second; steps are means of some,
    so that there are `rate` a second, a divisor of 50.

    D. M. Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the inertial
    signals from a smartwatch", Physiological Measurement 39, 2018 (arXiv:1802.01489). The PyPI
    package seglearn, whose licence is BSD-3-Clause, has it as a file.
    """
    file = BytesIO(_file("seglearn", "data/watch_dataset.npy"))
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    data = _ArraysOnly(file, encoding="latin1").load().item()
    names = [EXERCISES[label] for label in data["y_labels"]]
    size = 50 // rate
    return [
        Recording(x[: len(x) // size * size].reshape(-1, size, 6).mean(1), names[y], int(subject))
        for x, y, subject in zip(data["X"], data["y"], data["subject"], strict=True)
    ]


class _ArraysOnly(pickle.Unpickler):
    """Of what a pickle may call, what makes arrays of numbers: nothing else runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return codecs.encode
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]
        if module == "numpy" and name in ("dtype", "ndarray"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which makes no array")
