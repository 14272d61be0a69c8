"""The language model with each cell and with layers on layers: trained, stopped, resumed."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_model import OPTIONS, SMALL, TEXT, pseudo_text, split
from registry import CELLS
from stream_layers import parts
from test_char_lm_commands import run_main

import fastrnn
from fastrnn.char_lm import CharLMError, command
from fastrnn.char_lm.corpus import unigram_bits
from fastrnn.char_lm.training import RECURRENT, Training, settings_of

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = [*zip(CELLS, itertools.cycle((2, 1, 3))), ("lstm", 2)]
each_network = pytest.mark.parametrize(("cell", "layers"), NETWORKS)


def network(cell: str, layers: int, **changes: Any) -> Any:
    return replace(SMALL, cell=cell, layers=layers, **changes)


def resumed(path: str | Path, settings: Any, text: str = TEXT) -> Training:
    return Training.resumed(str(path), fastrnn.load(path), split(text), settings)


# ------------------------------------------------------------------------------ training


@each_network
def test_it_learns(cell: str, layers: int) -> None:
    run = Training(split(), network(cell, layers, epochs=8, lr=0.02))
    rnn = run.model.rnn
    assert (type(rnn), rnn.num_layers, rnn.hidden_size) == (RECURRENT[cell], layers, 9)
    while run.step_count < run.total:
        run.step()
    # The words are known after some epochs, the order of words cannot be learned.
    assert run.losses[-1] < 0.8 * unigram_bits(run.corpus)
    assert run.losses[-1] < 0.6 * run.losses[0]


@each_network
def test_both_backends_agree(cell: str, layers: int) -> None:
    compiled, reference = (Training(split(), network(cell, layers)) for _ in range(2))
    for _ in range(3):
        compiled.step()
        with fastrnn.backend("reference"):
            reference.step()
    # Means of 32 losses below 4 bits, each off by a few hundred roundings; what a step of Adam
    # makes of them is bounded by its learning rate, 0.0005 at most in these steps.
    assert abs(compiled.losses[0] - reference.losses[0]) < 100 * np.finfo(np.float32).eps
    assert np.abs(np.subtract(compiled.losses, reference.losses)).max() < 1e-4


@each_network
def test_the_state_is_carried_within_an_epoch_only(
    cell: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Training(split(), network(cell, layers))
    came: list[Any] = []
    went: list[Any] = []
    forward = RECURRENT[cell].forward

    def watched(self: Any, x: Any, state: Any = None, **options: Any) -> Any:
        came.append(None if state is None else tuple(a.copy() for a in parts(state)))
        result = forward(self, x, state, **options)
        went.append(tuple(a.copy() for a in parts(result[1])))
        return result

    monkeypatch.setattr(RECURRENT[cell], "forward", watched)
    for _ in range(2 * run.steps_per_epoch):
        run.step()
    for i, state in enumerate(came):
        if i % run.steps_per_epoch == 0:
            assert state is None
            continue
        assert len(state) == (2 if cell == "lstm" else 1)
        for got, want in zip(state, went[i - 1], strict=True):
            assert got.shape == (layers, SMALL.batch_size, SMALL.hidden_size)
            assert got.tobytes() == want.tobytes()


# ------------------------------------------------------------------------------ stop and go on


@each_network
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    cell: str, layers: int, tmp_path: Path
) -> None:
    settings = network(cell, layers, epochs=2)
    text = pseudo_text(100)
    whole, path = tmp_path / "whole", tmp_path / "pieces"
    run = Training(split(text), settings)
    total = run.total
    command._run(run, str(whole), lambda: False)
    for stops in ([1], list(range(total))):  # after one step; after every one
        run = Training(split(text), settings)
        run.save(str(path))
        for stop in [*stops, total + 1]:  # the last one is none
            command._run(run, str(path), lambda run=run, stop=stop: run.step_count >= stop)
            run.save(str(path))
            run = resumed(path, settings, text)
        assert path.read_bytes() == whole.read_bytes(), f"stopped at {stops}"
    assert settings_of(str(path), fastrnn.load(path)) == settings


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    shape = (2, SMALL.batch_size, SMALL.hidden_size)
    for cell in CELLS.values():
        settings, names = network(cell.name, 2), ("state", "state_c")[: len(cell.states)]
        run = Training(split(), settings)
        run.step()
        run.save(str(path))
        assert {n for n in fastrnn.load(path)["training"] if n.startswith("state")} == {*names}
        for name in names:
            for bad in (
                np.zeros(shape), np.zeros((1, *shape[1:]), np.float32),
                np.zeros((*shape[:2], 8), np.float32), np.zeros(shape[1:], np.float32), 3, None,
            ):  # fmt: skip
                file = fastrnn.load(path)
                if bad is None:
                    del file["training"][name]
                else:
                    file["training"][name] = bad
                with pytest.raises(CharLMError, match="cannot go on from it") as caught:
                    Training.resumed(str(path), file, split(), settings)
                assert "\n" not in str(caught.value)


@each_network
def test_resume_refuses_other_settings(cell: str, layers: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    run = Training(split(), network(cell, layers))
    run.step()
    run.save(str(path))
    others = [(c, layers) for c in RECURRENT if c != cell] + [(cell, layers + 1)]
    for other, count in others:
        with pytest.raises(CharLMError, match="layers are not those of its settings"):
            resumed(path, network(other, count))


def test_a_layer_of_other_options_is_refused(tmp_path: Path) -> None:
    # Its layers are what the program makes, or the file is not of a run of it.
    path = tmp_path / "file"
    Training(split(), network("lstm", 2)).save(str(path))
    for options in (
        {"batch_first": True},
        {"bidirectional": True},
        {"reverse": True},
        {"proj_size": 4},
    ):
        file = fastrnn.load(path)
        file["rnn"] = fastrnn.LSTM(5, 9, 2, **options)
        with pytest.raises(CharLMError) as caught:
            Training.resumed(str(path), file, split(), network("lstm", 2))
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------ the commands


@each_network
def test_train_and_sample(
    cell: str, layers: int, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [f"--cell={cell}", f"--layers={layers}"]
    status, out, err = run_main(["train", "text.txt", *OPTIONS, *chosen], capsys)
    assert (status, err) == (0, "")
    count = f", num_layers={layers}" if layers > 1 else ""
    assert f"{CELLS[cell].layer.__name__}(5, 9{count})" in out
    assert "this network" in out

    def sampled(*arguments: str) -> str:
        command = ["sample", "char_lm.safetensors", "--seed=3", *arguments]
        status, out, err = run_main(command, capsys)
        assert (status, err) == (0, "")
        return out

    one = sampled("--prompt=ab", "--length=50")
    assert one.startswith("ab")
    assert len(one) == 2 + 50 + 1
    assert one == sampled("--prompt=ab", "--length=50")
    assert set(one) <= set(TEXT)
    with fastrnn.backend("reference"):
        assert sampled("--prompt=ab", "--length=20") == one[:22] + "\n"
    loaded = fastrnn.load("char_lm.safetensors")
    assert type(loaded["rnn"]) is RECURRENT[cell]
    assert json.loads(loaded.metadata["settings"])["cell"] == cell


def test_resume_with_another_cell_is_one_line(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Training(split(), network("lstm", 2))
    run.step()
    run.save("model")
    before = Path("model").read_bytes()
    go_on = ["train", "text.txt", "--resume", "--output=model"]
    for option, text in (
        ("--cell=gru", "cell = lstm: it cannot go on with gru"),
        ("--cell=rnn", "cell = lstm: it cannot go on with rnn"),
        ("--layers=1", "layers = 2: it cannot go on with 1"),
    ):
        status, out, err = run_main([*go_on, option], capsys)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert f"model was begun with {text}" in err
        assert Path("model").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--cell=GRU", "cell is 'GRU', expected one of rnn, lstm, gru"),
        ("--cell=", "cell is '', expected one of"),
        ("--layers=0", "layers is 0, expected an integer >= 1"),
        ("--layers=-1", "layers is -1, expected an integer >= 1"),
        ("--layers=two", "--layers: invalid int value: 'two'"),
        ("--layers=99999999999999999999", "expected an integer >= 1"),
    ],
)
def test_a_cell_or_a_number_of_layers_that_there_is_not(
    option: str, text: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run_main(["train", "text.txt", *OPTIONS, option], capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert text in err
    assert os.listdir() == ["text.txt"]


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_files_from_before_there_were_cells_go_on(
    steps: int, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Their settings have neither "cell" nor "layers": those of an RNN of one layer.
    def begun() -> Training:
        run = Training(split(), SMALL)
        for _ in range(steps):
            run.step()
        return run

    begun().save("old")
    file = fastrnn.load("old")
    settings = json.loads(file.metadata["settings"])
    assert (settings.pop("cell"), settings.pop("layers")) == ("rnn", 1)
    metadata = {**file.metadata, "settings": json.dumps(settings)}
    fastrnn.save("old", {name: file[name] for name in file}, metadata)
    assert settings_of("old", fastrnn.load("old")) == SMALL

    run = begun()
    command._run(run, "new", lambda: False)
    for option in ("--cell=lstm", "--layers=2"):
        status, _, err = run_main(["train", "text.txt", "--resume", "--output=old", option], capsys)
        assert status == 2
        assert "old was begun with " in err
    for options in ([], ["--cell=rnn", "--layers=1"]):
        status, out, err = run_main(
            ["train", "text.txt", "--resume", "--output=old", *options], capsys
        )
        assert (status, err) == (0, "")
    text = [fastrnn.load(name) for name in ("old", "new")]
    for name in ("embedding", "rnn", "head"):
        a, b = (file[name].flat_weights.tobytes() for file in text)
        assert a == b, name
    assert Path("old").read_bytes() == Path("new").read_bytes()
    status, out, _ = run_main(["sample", "old", "--length=9", "--seed=1"], capsys)
    assert (status, len(out)) == (0, 9 + 1)
