"""The examples of the estimators: the files that they read, the table, their networks in PyTorch.

What is read and fitted here is made up; only the last test runs on the packages' data, with --full.
"""

import io
import os
import pickle
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from registry import CELLS

pytest.importorskip("sklearn")
from sklearn.dummy import DummyClassifier

import fastrnn
from fastrnn import estimators

EXAMPLES = Path(__file__).parents[2] / "examples"

Example = Callable[[str], ModuleType]

# Each with the package whose data it reads, and how many baselines it has.
ON_NUMBERS = {
    "exercises": ("seglearn", 5), "forecast": ("seglearn", 4), "reservoir": ("seglearn", 5),
    "speakers": ("aeon", 5),
}  # fmt: skip


# ---------------------------------------------------------------------------- files


def test_ts_of_unequal_lengths(example: Example) -> None:
    X, y = example("datasets").read_ts(
        "# a comment\n@problemName made up\n@timeStamps false\n@missing false\n@univariate false\n"
        "@dimensions 2\n@equalLength false\n\n@classLabel true yes no\n@data\n"
        "1,2,3:4,5,6.5:yes\n-1e-3:0:no\n"
    )
    assert y.tolist() == ["yes", "no"]
    np.testing.assert_array_equal(X[0], [[1, 4], [2, 5], [3, 6.5]])
    np.testing.assert_array_equal(X[1], [[-1e-3, 0]])


def test_ts_of_one_feature_and_numbers(example: Example) -> None:
    X, y = example("datasets").read_ts("@targetlabel true\n@DATA\n1,2:0.5\n3,4:-2\n")
    assert y.tolist() == [0.5, -2.0]
    assert [x.tolist() for x in X] == [[[1], [2]], [[3], [4]]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@classLabel true a\n@data\n1,2:3:a", "line 3.*inhomogeneous"),
        ("@classLabel true a\n@data\n1,2:3,4:a\n1,2:a", "line 4.*1,.*features, 2 were expected"),
        ("@dimensions 2\n@classLabel true a\n@data\n1,2:a", "line 4.*features, 2 were expected"),
        ("@classLabel true a\n@data\n1,2:b", "line 3.*label 'b', which @classLabel does not name"),
        ("@classLabel true a\n@data\n1,?:a", "line 3.*'[?]'"),
        ("@classLabel true a\n@data\n1,nan:a", "line 3.*not finite"),
        ("@classLabel true a\n@data\na", "line 3.*expected numbers, a colon and a label"),
        ("@targetLabel true\n@data\n1,2:a", "line 3.*could not convert"),
        ("@timeStamps true\n@classLabel true a\n@data", "line 1.*timestamps"),
        ("@missing true\n@classLabel true a\n@data", "line 1.*missing values"),
        ("@classLabel false\n@data\n1,2", "line 2.*neither @classLabel nor @targetLabel"),
        ("@frequency 10\n", "line 1 of.*'@frequency 10': neither"),
        ("1,2:a", "line 1.*neither a comment nor"),
        ("@dimensions\n", "line 1 .*'@dimensions': a value is missing"),
        ("@classLabel true a\n@data\n", "has no data"),
    ],
)
def test_ts_that_is_not_understood(text: str, said: str, example: Example) -> None:
    with pytest.raises(ValueError, match=said):
        example("datasets").read_ts(text)


def npy_of(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(value, dtype=object), allow_pickle=True)
    return file.getvalue()


def test_recordings_are_averaged(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("datasets")
    x = np.arange(7 * 6.0).reshape(7, 6)
    names = ["PEN", "ROW"]
    made = npy_of({"X": [x, x[:4]], "y": np.array([1, 0]), "subject": np.array([3, 4]),
                   "y_labels": names})  # fmt: skip
    monkeypatch.setattr(module.wheels, "read", lambda *arguments, **keywords: made)
    first, second = module.watch(25)
    assert (first.exercise, first.subject, second.exercise) == ("bent-over row", 3, "pendulum")
    np.testing.assert_array_equal(first.steps, (x[:6:2] + x[1:6:2]) / 2)
    assert second.steps.shape == (2, 6)


class Harmful:
    def __reduce__(self) -> Any:
        return os.getcwd, ()


def test_nothing_but_arrays_is_unpickled(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("datasets")
    monkeypatch.setattr(module.wheels, "read", lambda *arguments, **keywords: npy_of(Harmful()))
    with pytest.raises(pickle.UnpicklingError, match="getcwd, which makes no array"):
        module.watch()


@pytest.mark.parametrize("name", ON_NUMBERS)
def test_without_its_data_an_example_ends_with_one_line(
    name: str, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    package = ON_NUMBERS[name][0]
    said = (
        f"^this example reads the data of the package {package}: pip install --no-deps {package}$"
    )
    with pytest.raises(SystemExit, match=said):
        example(name).main(["--smoke"])


# -------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--seeds 0", "must be at least 1"),
        ("--threads none", "invalid"),
        ("--plot picture.txt", r"expected one of \.pdf, \.png, \.svg"),
        ("--plot no/such/folder/picture.png", "no such folder"),
    ],
)
def test_options_that_are_refused(
    arguments: str, said: str, example: Example, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit):
        example("comparison").parse(arguments.split(), "")
    assert re.search(said, capsys.readouterr().err)


def test_threads_are_one_or_as_asked_for(example: Example) -> None:
    parse = example("comparison").parse
    assert parse(["--no-torch"], "").threads == fastrnn.get_num_threads() == 1
    assert parse(["--no-torch", "--threads", "2"], "").threads == fastrnn.get_num_threads() == 2


@pytest.mark.parametrize("package", ["matplotlib", "torch"])
def test_options_of_what_is_not_installed(
    package: str, example: Example, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    module = example("comparison")
    monkeypatch.setattr(module, "installed", lambda name: name != package)
    option = {"matplotlib": ["--plot", "picture.png"], "torch": ["--torch"]}[package]
    with pytest.raises(SystemExit):
        module.parse(option, "")
    assert f"pip install {package}" in capsys.readouterr().err
    assert not module.parse([] if package == "torch" else ["--no-torch"], "").torch


# ------------------------------------------------------------------------ the table


class Fixed:
    """A network that scores what its seed says."""

    def __init__(self, score: float) -> None:
        self.value = score

    def fit(self, X: Any, y: Any) -> None: ...


@pytest.mark.parametrize("larger", [True, False])
def test_the_table(larger: bool, example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    results = example("comparison").run(
        Namespace(seeds=3, torch=False), [], [], lambda model: float(model.value),
        baselines={"low": Fixed(0.25), "high": Fixed(0.5)},
        network=lambda seed: Fixed([0.75, 0.875, 0.7][seed]), larger_is_better=larger,
    )  # fmt: skip
    assert results["Fixed"].scores == [0.75, 0.875, 0.7]
    assert results["Fixed"].spread == pytest.approx(0.175)
    head, low, high, fixed, last = capsys.readouterr().out.splitlines()
    assert "accuracy" in head
    assert "of 3 seeds" in head
    assert [line.split()[:2] for line in (low, high)] == [["low", "0.250"], ["high", "0.500"]]
    assert fixed.split()[:5] == ["Fixed", "0.775", "0.700", "to", "0.875"]
    ahead = "0.275 better than the strongest baseline, high" if larger else (
        "0.525 worse than the strongest baseline, low"
    )  # fmt: skip
    assert last == f"Fixed is {ahead}; its seeds spread by 0.175"


def test_the_table_with_pytorch(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    y = [1, 0, 1, 0]
    X = [np.full((n, 1), label) for n, label in zip((3, 4, 5, 6), y, strict=True)]
    results = example("comparison").run(
        Namespace(seeds=2, torch=True), X, y, lambda model: float(model.score(X, y)),
        baselines={"most frequent": DummyClassifier()},
        network=lambda seed: estimators.SequenceClassifier(max_iter=30, random_state=seed),
    )  # fmt: skip
    peers = results["the same in PyTorch"]
    assert peers.scores == results["SequenceClassifier"].scores == [1.0, 1.0]
    ratio = np.median(peers.seconds) / np.median(results["SequenceClassifier"].seconds)
    assert f": {ratio:.2f} times as long\n" in capsys.readouterr().out


def test_a_confusion_is_of_rows(example: Example) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    example("comparison").confusion(axes, list("aaaab"), list("aaabb"), ["a", "b"])
    assert [text.get_text() for text in axes.texts] == ["75", "25", "0", "100"]
    assert [text.get_position() for text in axes.texts][:2] == [(0, 0), (1, 0)]


# --------------------------------------------------------------------------- PyTorch

SYMBOLS = ["abca", "b", "cab", "aa", "bcab", "ca"]
TAGS = ["xyxz"[: len(word)] for word in SYMBOLS]
SPOKEN = ["xy", "yxx", "z", "xz", "zz", "xyz"]
rng = np.random.default_rng(0)
SERIES = [rng.standard_normal((n, 3)) for n in (5, 2, 7, 5, 1, 4)]
NUMBERS = rng.standard_normal((6, 2, 2))


def peers_of(
    module: ModuleType, kind: type[Any], X: Any, y: Any, **parameters: Any
) -> tuple[Any, Any, float]:
    """The estimator and its peer after a step from the same weights, and how far a weight went."""

    def fitted(rate: float) -> Any:
        made = kind(
            hidden_size=6, embedding_size=4, max_iter=1, learning_rate_init=rate, clip_norm=0.1,
            weight_decay=0.1, dtype="float64", random_state=0, **parameters,
        )  # fmt: skip
        return made.fit(X, y) if y is not None else made.fit(X)

    initial = [
        {name: w.copy() for name, w in model.weights.items()}
        for model in networks(fitted(1e-300))  # a step that goes nowhere
    ]
    ours = fitted(RATE)
    peer = module.peer(fitted(RATE), initial)
    peer = peer.fit(X, y) if y is not None else peer.fit(X)
    went = max(
        float(np.abs(model.weights[name] - w).max())
        for model, weights in zip(networks(ours), initial, strict=True)
        for name, w in weights.items()
    )
    return ours, peer, went


def networks(estimator: Any) -> list[Any]:
    if isinstance(estimator, estimators.SequenceTranslator):
        return [estimator.encoder_, estimator.decoder_]
    return [estimator.model_]


RATE, EPS = 1e-3, 1e-8


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "leaky"])
@pytest.mark.parametrize(
    ("kind", "X", "y"),
    [
        ("SequenceClassifier", SERIES, list("xyxyzx")),
        ("SequenceClassifier", SYMBOLS, list("xyxyzx")),
        ("SequenceRegressor", SERIES, NUMBERS),
        ("SequenceTagger", SYMBOLS, TAGS),
        ("SequenceGenerator", SYMBOLS, list("xyxyxy")),
        ("SequenceGenerator", SYMBOLS, None),
        ("SequenceTranslator", SYMBOLS, SPOKEN),
    ],
    ids=["classifier", "classifier of tokens", "regressor", "tagger", "generator of labels",
         "generator", "translator"],
)  # fmt: skip
def test_a_peer_makes_the_same_step(
    kind: str, X: Any, y: Any, cell: str, bidirectional: bool, layers: int, example: Example
) -> None:
    """From the same weights the same loss, and the same weights afterwards, but for rounding.

    A loss is a mean of terms, each behind a chain of at most n sums of at most n terms along the
    time steps and layers, n = 60: relative rounding errors are at most n² times the unit roundoff u
    (terms are of the order of 1, of which no sum of larger ones is the difference). So is the
    absolute error of a gradient, whose norm is at most 0.1. What the first step of Adam makes of it
    is rate · g / (|g| + eps), whose slope is rate / eps at most.
    """
    pytest.importorskip("torch")
    generates = kind == "SequenceGenerator"
    if generates and bidirectional:
        return  # there is no such parameter
    parameters = {"cell": cell, "num_layers": layers}
    if not generates:
        parameters["bidirectional"] = bidirectional
    module = example("torch_peers")
    ours, peer, went = peers_of(module, getattr(estimators, kind), X, y, **parameters)
    error = 60**2 * 2.0**-53
    assert went > RATE / 2  # the step is far larger than what is tolerated
    assert error * RATE / EPS < RATE / 20
    assert peer.loss_curve_ == pytest.approx(ours.loss_curve_, rel=error)
    for model, network in zip(networks(ours), peer.networks, strict=True):
        made = network.state_dict()
        assert made.keys() == model.weights.keys()
        for name, w in model.weights.items():
            np.testing.assert_allclose(
                made[name].numpy(), w, rtol=error, atol=error * RATE / EPS, err_msg=name
            )
    if kind == "SequenceRegressor":
        np.testing.assert_allclose(peer.predict(X), ours.predict(X), atol=1e-3)
    elif generates:
        arguments = [X] if y is None else [X, y]
        assert peer.score(*arguments) == pytest.approx(ours.score(*arguments), abs=1e-3)
    else:
        assert [list(a) for a in peer.predict(X)] == [list(a) for a in ours.predict(X)]
        assert peer.score(X, y) == ours.score(X, y)


@pytest.mark.parametrize("rate", ["constant", "linear"])
def test_a_peer_learns_alike(rate: str, example: Example) -> None:
    """The losses of all epochs, with one batch in each, from the same weights."""
    pytest.importorskip("torch")
    parameters: dict[str, Any] = {
        "hidden_size": 6, "learning_rate": rate, "learning_rate_init": 0.02, "tol": 0.0,
        "dtype": "float64", "random_state": 0,
    }  # fmt: skip
    make = estimators.SequenceClassifier
    y = list("xyxyzx")
    first = make(**{**parameters, "learning_rate_init": 1e-300}, max_iter=1).fit(SERIES, y)
    ours = make(**parameters, max_iter=30).fit(SERIES, y)
    initial = [dict(first.model_.weights)]
    peer = example("torch_peers").peer(make(**parameters, max_iter=30), initial).fit(SERIES, y)
    assert ours.loss_curve_[-1] < ours.loss_curve_[0] / 2
    # Rounding grows with what is learned, by far less than that.
    np.testing.assert_allclose(peer.loss_curve_, ours.loss_curve_, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "X"),
    [
        ("SequenceClassifier", SERIES),
        ("SequenceClassifier", ["ab", "ba", "aa"]),
        ("SequenceTagger", ["ab", "ba", "aa"]),
        ("SequenceGenerator", ["ab", "ba", "aa"]),
        ("SequenceTranslator", ["ab", "ba", "aa"]),
    ],
)
def test_a_peer_drops_where_its_estimator_does(
    kind: str, X: Any, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    y = {"SequenceTagger": X, "SequenceTranslator": X, "SequenceGenerator": None}
    make = getattr(estimators, kind)
    ours = make(dropout=0.5, hidden_size=3, max_iter=1, random_state=0)
    given = y[kind] if kind in y else ["u", "v", "u", "v", "u", "v"][: len(X)]
    peer = example("torch_peers").peer(ours)
    plain, sizes = torch.nn.Dropout.forward, []

    def dropped(layer: Any, x: Any) -> Any:
        sizes.append(x.shape[-1])
        return plain(layer, x)

    monkeypatch.setattr(torch.nn.Dropout, "forward", dropped)
    peer.fit(X, given)
    ours.fit(X, given)
    wanted = []
    for model in networks(ours):
        for name in model.layers:
            if name == "embedding_dropout":
                wanted.append(model.layers["embedding"].embedding_dim)
            elif name == "dropout":
                wanted.append(model.layers["output"].in_features)
    assert sorted(sizes) == sorted(wanted)


def test_a_peer_stops_as_its_estimator_does(example: Example) -> None:
    pytest.importorskip("torch")
    y = list("xyxyzx")
    model = estimators.SequenceClassifier(tol=1e9, n_iter_no_change=3, random_state=0)
    peer = example("torch_peers").peer(model).fit(SERIES, y)
    assert len(peer.loss_curve_) == model.fit(SERIES, y).n_iter_ == 4


@pytest.mark.parametrize(
    "parameters", [{"early_stopping": True}, {"class_weight": "balanced"}, {"cell": "leaky"}]
)
def test_an_estimator_without_a_peer(parameters: dict[str, Any], example: Example) -> None:
    pytest.importorskip("torch")
    with pytest.raises(
        ValueError, match=f"no peer in PyTorch for .*({'|'.join(parameters)}|leaky)"
    ):
        example("torch_peers").peer(estimators.SequenceClassifier(**parameters))


# -------------------------------------------------------------------------- all of it


@pytest.mark.full
@pytest.mark.parametrize("name", ON_NUMBERS)
def test_examples_on_real_numbers(name: str, tmp_path: Path) -> None:
    package, baselines = ON_NUMBERS[name]
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"the package {package} is not installed")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--smoke", "--plot", str(picture)],
        capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^  .*? (\d\.\d{3}) .*\d\.\d\d", done.stdout, re.MULTILINE)
    in_pytorch = "the same in PyTorch" in done.stdout
    assert len(rows) == baselines + 1 + in_pytorch
    assert picture.read_bytes().startswith(b"\x89PNG")
