"""`fastrnn train --resume`: longer, with other settings, on another text; dropout; time left."""

from __future__ import annotations

import json
import shlex
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from language_model import OPTIONS, SMALL, TEXT, pseudo_text, split
from test_char_lm_commands import run_main

import fastrnn
from fastrnn.char_lm import command
from fastrnn.char_lm.corpus import Corpus
from fastrnn.char_lm.training import Training, settings_of

pytestmark = pytest.mark.usefixtures("one_thread")

OTHER = pseudo_text(200, seed=1)


def begun(steps: int, path: str = "model", **changes: Any) -> Training:
    """A run on text.txt that is stopped after some steps, in a file."""
    settings = replace(SMALL, **changes)
    run = Training(Corpus.read(["text.txt"]), settings)
    with redirect_stdout(StringIO()):
        command._run(run, path, lambda: run.step_count >= steps)
    run.save(path)
    return run


def trained(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    status, out, err = run_main(["train", *argv], capsys)
    assert (status, err) == (0, "")
    return out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    before = {path: path.read_bytes() for path in Path().iterdir()}
    status, out, err = run_main(["train", *argv], capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    return err.rstrip("\n")


def at(path: str) -> Any:
    return fastrnn.load(path)["training"]


def settings(path: str) -> Any:
    return settings_of(path, fastrnn.load(path))


# ------------------------------------------------------------------------------ the same text


def test_it_goes_on_longer(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begun(10**9)
    assert run.step_count == run.total
    out = trained(capsys, "--resume", "model", "--epochs", "5")
    total = run.steps_per_epoch * 5
    # The learning rate is that of a run of five epochs at this step.
    longer = Training(run.corpus, replace(SMALL, epochs=5))
    longer.step_count = run.step_count
    assert out.splitlines()[:3] == [
        f"going on from model after step {run.step_count:,} of now {total:,}:",
        "  epochs: 5, where it was 3",
        f"  the learning rate is {longer.learning_rate():.3g} now",
    ]
    assert "saved to model after every epoch" in out
    assert "epoch   4/5" in out
    assert "epoch   3/5" not in out
    assert len(at("model")["held_out"]) == 5
    assert at("model")["losses"][: run.step_count].tolist() == run.losses
    assert settings("model") == replace(SMALL, epochs=5)


def test_other_settings_hold_from_this_step_on(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(20)
    out = trained(
        capsys, "--resume=model", "--lr=0.001", "--max-norm=0.5", "--dropout=0.2", "--epochs=2"
    )
    for line in (
        "  epochs: 2, where it was 3", "  lr: 0.001, where it was 0.01",
        "  max-norm: 0.5, where it was 1.0", "  dropout: 0.2, where it was 0.0",
    ):  # fmt: skip
        assert line in out.splitlines()
    changed = replace(SMALL, lr=0.001, max_norm=0.5, dropout=0.2, epochs=2)
    assert settings("model") == changed
    # By hand.
    run.settings = changed
    run.total = run.steps_per_epoch * 2
    while run.step_count < run.total:
        run.step()
    assert at("model")["losses"].tolist() == run.losses


def test_what_goes_on_can_be_stopped_again(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("whole", "pieces"):
        begun(20, path)
    trained(capsys, "--resume=whole", "--lr=0.002", "--dropout=0.1")
    file = fastrnn.load("pieces")
    now = replace(SMALL, lr=0.002, dropout=0.1)
    run = Training.resumed("pieces", file, Corpus.read(["text.txt"]), now)
    command._run(run, "pieces", lambda: run.step_count >= 33)
    run.save("pieces")
    trained(capsys, "--resume=pieces")
    assert Path("pieces").read_bytes() == Path("whole").read_bytes()


def test_a_run_that_has_ended(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(10**9)
    before = Path("model").read_bytes()
    out = trained(capsys, "--resume", "model")
    assert out.startswith("model has all its 3 epochs behind it; --epochs 6 goes on\n")
    assert Path("model").read_bytes() == before
    for options in (["--lr=0.001"], ["--epochs=2"], ["--dropout=0.1", "--epochs=1"]):
        err = refused(capsys, "--resume", "model", *options)
        assert "model has 3 epochs behind it: add --epochs with a larger number" in err
    cure = err.partition("such as ")[2].partition(",")[0].split()
    assert "epoch   6/6" in trained(capsys, "--resume", "model", "--lr=0.001", *cure)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cell", "gru"), ("layers", "2"), ("embedding-dim", "6"), ("hidden-size", "8"),
        ("dtype", "float64"), ("seed", "1"), ("batch-size", "2"), ("steps", "4"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_named(
    option: str, value: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(20)
    err = refused(capsys, "--resume", "model", f"--{option}", value, "--epochs=4")
    name = option.replace("-", "_")
    was = getattr(SMALL, name)
    assert f"model was begun with {name} = {was}: it cannot go on with {value}" in err
    assert f"leave --{option} out, or begin a new run without --resume" in err
    if option in ("batch-size", "steps"):  # these only where the text begins anew
        assert "on the same text" in err
    else:
        Path("other").write_text(OTHER)
        assert refused(capsys, "--resume", "model", f"--{option}", value, "other") == err


def test_into_another_file(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(20)
    before = Path("model").read_bytes()
    Path("taken").write_text("mine")
    err = refused(capsys, "--resume", "model", "--output", "taken")
    assert "taken exists" in err
    err = refused(capsys, "--resume", "model", "--output", "text.txt", "--force", "text.txt")
    assert "text.txt is the text" in err
    trained(capsys, "--resume", "model", "--output", "longer", "--epochs=4")
    assert Path("model").read_bytes() == before
    assert len(at("longer")["held_out"]) == 4
    trained(capsys, "--resume", "model", "--output", "taken", "--force")
    assert len(at("taken")["held_out"]) == 3


def test_the_text_need_not_be_named_again(
    text_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    begun(10**9, "whole")
    begun(20)
    assert f"text.txt: {len(TEXT):,} characters" in trained(capsys, "--resume", "model")
    assert Path("model").read_bytes() == Path("whole").read_bytes()

    # Moved: it can be named, and the file is the same.
    begun(20)
    Path("folder").mkdir()
    text_file.rename("folder/moved.txt")
    status, _, err = run_main(["train", "--resume", "model"], capsys)
    assert status == 2
    assert "cannot read text.txt: No such file" in err
    words = shlex.split(err.rpartition("elsewhere by now: ")[2].replace("TEXT", "folder/moved.txt"))
    trained(capsys, *words[2:])
    assert Path("model").read_bytes() == Path("whole").read_bytes()

    # Changed: to go on with it as another text has to be said.
    begun_path = Path("text.txt")
    begun_path.write_text(TEXT + "abc")
    err = refused_with_folders(capsys, "--resume", "model")
    assert "it was trained on another text than text.txt, as it is now" in err
    words = shlex.split(err.rpartition("name it: ")[2])
    assert words == ["fastrnn", "train", "--resume=model", "--", "text.txt"]
    assert "with another text, text.txt" in trained(capsys, *words[2:])


def refused_with_folders(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    status, out, err = run_main(["train", *argv], capsys)
    assert (status, out) == (2, "")
    return err.rstrip("\n")


def test_files_from_before_texts_were_named(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Their metadata has no "files", and their settings no "dropout".
    begun(10**9, "whole")
    begun(20)
    file = fastrnn.load("model")
    old = json.loads(file.metadata["settings"])
    assert old.pop("dropout") == 0
    metadata = {**file.metadata, "settings": json.dumps(old)}
    assert json.loads(metadata.pop("files")) == ["text.txt"]
    fastrnn.save("model", {name: file[name] for name in file}, metadata)
    assert settings("model") == SMALL
    err = refused(capsys, "--resume", "model")
    assert "another text than Python's help topics; name that, or the one to go on with" in err
    words = shlex.split(err.rpartition("go on with: ")[2].replace("TEXT", "text.txt"))
    trained(capsys, *words[2:])
    assert Path("model").read_bytes() == Path("whole").read_bytes()


def test_stopped_while_the_held_out_part_is_read(
    text_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastrnn.char_lm.training.BLOCK", 20)  # of which there are several
    begun(10**9, "whole")
    run = Training(Corpus.read(["text.txt"]), SMALL)
    for epochs in (1, SMALL.epochs):
        asked = 0

        def in_the_middle(run: Training = run, epochs: int = epochs) -> bool:
            nonlocal asked
            asked += run.step_count == epochs * run.steps_per_epoch
            return asked > 3

        command._run(run, "pieces", in_the_middle)
        assert (run.epochs(), len(run.held_out)) == (epochs, epochs - 1)
        run.save("pieces")
        run = Training.resumed("pieces", fastrnn.load("pieces"), run.corpus, SMALL)
    capsys.readouterr()
    assert "epoch   3/3  " in trained(capsys, "--resume", "pieces")
    assert Path("pieces").read_bytes() == Path("whole").read_bytes()


def test_what_stands_behind_resume_is_a_model(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(20)
    err = refused(capsys, "--resume", "text.txt")
    assert "behind --resume stands a model: --resume MODEL TEXT" in err
    assert "cannot read missing: No such file" in refused(capsys, "--resume=missing")


@pytest.mark.parametrize("files", ["{", "3", "[3]", '"text.txt"'])
def test_names_that_are_none(
    files: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(20)
    file = fastrnn.load("model")
    objects = {name: file[name] for name in file}
    fastrnn.save("model", objects, {**file.metadata, "files": files})
    for texts in ([], ["text.txt"]):
        assert "model: not a character-level" in refused(capsys, "--resume", "model", *texts)


# ------------------------------------------------------------------------------ another text


def test_another_text(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begun(20)
    before = Path("model").read_bytes()
    Path("other").write_text(OTHER)
    out = trained(capsys, "--resume", "model", "other", "--batch-size=2", "--epochs=1")
    for words in (
        "going on from model with another text, other:",
        "  kept are the weights and Adam's means; the steps and epochs, the learning rate's",
        "  rise and fall, the losses, the held-out part and its figures begin anew",
        "  batch-size: 2, where it was 4",
        f"other: {len(OTHER):,} characters, ",
        "saved to char_lm.safetensors after every epoch",
        "epoch   1/1",
    ):
        assert words in out
    assert Path("model").read_bytes() == before
    assert len(at("char_lm.safetensors")["held_out"]) == 1

    # By hand: the weights and means of the one, a run of the other.
    corpus = Corpus.of("other", [OTHER]).numbered_as(run.model.characters, "model", "")
    by_hand = Training(corpus, replace(SMALL, batch_size=2, epochs=1), run.model)
    by_hand.adam.load_state_dict(run.adam.state_dict())
    while by_hand.step_count < by_hand.total:
        by_hand.step()
    file = fastrnn.load("char_lm.safetensors")
    assert file["training"]["losses"].tolist() == by_hand.losses
    assert file["rnn"].flat_weights.tobytes() == run.model.rnn.flat_weights.tobytes()
    assert file["adam"]["step_count"] == 20 + by_hand.total
    assert file.metadata["characters"] == run.model.characters


def test_where_a_run_on_another_text_is_saved(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(20, "char_lm.safetensors")
    before = Path("char_lm.safetensors").read_bytes()
    Path("other").write_text(OTHER)
    for i, options in enumerate((["--resume"], ["--resume=char_lm.safetensors"])):
        out = trained(capsys, *options, "--force", "--", "other")
        assert f"saved to char_lm-{i + 2}.safetensors " in out
        assert Path("char_lm.safetensors").read_bytes() == before
    # Only where that is asked for the file itself is replaced.
    out = trained(capsys, "--resume", "--output=char_lm.safetensors", "other")
    assert "saved to char_lm.safetensors " in out
    assert fastrnn.load("char_lm.safetensors").metadata["files"] == '["other"]'


def test_another_text_starts_from_what_was_learned(text_file: Path) -> None:
    run = begun(10**9, epochs=8)
    corpus = Corpus.of("", [TEXT[:900]])
    loaded = Training.with_other_text("model", fastrnn.load("model"), corpus, run.settings)
    fresh = Training(split(TEXT[:900]), run.settings)
    loaded.step()
    fresh.step()
    assert loaded.losses[0] < 0.7 * fresh.losses[0]


def test_a_run_on_another_text_is_stopped_and_resumed(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(20)
    Path("other").write_text(OTHER)
    go_on = ["--resume", "model", "other", "--dropout=0.3", "--output"]
    trained(capsys, *go_on, "whole")
    changed = replace(SMALL, dropout=0.3)
    file = fastrnn.load("model")
    run = Training.with_other_text("model", file, Corpus.read(["other"]), changed)
    command._run(run, "pieces", lambda: run.step_count >= 17)
    run.save("pieces")
    out = trained(capsys, "--resume", "pieces")  # the text of then, and all settings
    assert "another text" not in out
    assert Path("pieces").read_bytes() == Path("whole").read_bytes()


def test_characters_that_the_model_does_not_know(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(20)
    Path("it's").write_text(TEXT + "été, Ünü!" + TEXT)
    err = refused(capsys, "--resume", "model", "it's")
    assert "it's has characters that model does not know, 8 of " in err
    assert ": '!', ',', 'n', 't', 'Ü', ...; replace them" in err
    words = shlex.split(err.rpartition("on both texts: ")[2])
    assert words[:2] == ["fastrnn", "train"]
    assert sorted(words[2:-3]) == sorted(OPTIONS)  # those of the run
    assert words[-3:] == ["--", "text.txt", "it's"]
    out = trained(capsys, *words[2:])
    assert f"text.txt, it's: {3 * len(TEXT) + 9:,} characters" in out


def test_a_text_that_is_too_short_for_the_settings_of_the_run(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(20)
    Path("short").write_text(TEXT[:30])
    err = refused(capsys, "--resume", "model", "short")
    options = err.rpartition("; try ")[2].split()
    assert "epoch   3/3" in trained(capsys, "--resume", "model", "short", *options)


# ------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("layers", [1, 3])
def test_gradients_under_dropout(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By central differences of the loss: the same step draws the same."""
    chosen = replace(SMALL, layers=layers, dropout=0.4, dtype="float64", cell="gru", max_norm=1e9)
    run = Training(split(), chosen)
    assert run.model.rnn.dropout == (0.4 if layers > 1 else 0)
    seen: list[Any] = []
    monkeypatch.setattr(
        fastrnn.optim.Adam, "step", lambda self, grads: seen.append([g.copy() for g in grads])
    )

    def loss() -> float:
        run.step_count, run.state = 0, None
        run.step()
        return run.losses[-1] * np.log(2)

    loss()
    of_layers = seen[0]
    rng = np.random.default_rng(0)
    for layer, grads in zip(run.model.layers(), of_layers, strict=True):
        way = rng.standard_normal(grads.size)
        weights, h = layer.flat_weights, 1e-5
        kept = weights.copy()
        values = []
        for sign in (1, -1):
            weights[...] = kept + sign * h * way
            values.append(loss())
        weights[...] = kept
        slope, expected = (values[0] - values[1]) / (2 * h), grads @ way
        # The differences are off by h^2 times a third derivative, below 1e3 here, and by 1e-16 / h.
        assert abs(slope - expected) < 1e-7 * max(1, abs(expected))


def test_both_backends_agree_under_dropout() -> None:
    chosen = replace(SMALL, layers=2, dropout=0.5)
    compiled, reference, without = (Training(split(), s) for s in (chosen, chosen, SMALL))
    for _ in range(3):
        compiled.step()
        without.step()
        with fastrnn.backend("reference"):
            reference.step()
    # As without dropout: test_both_backends_agree.
    assert np.abs(np.subtract(compiled.losses, reference.losses)).max() < 1e-4
    assert compiled.losses != without.losses


def test_dropout_drops_its_share_and_other_elements_in_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Training(split(), replace(SMALL, dropout=0.25, hidden_size=50))
    seen = []
    forward = fastrnn.Linear.forward

    def watched(self: Any, x: Any) -> Any:
        seen.append(x == 0)
        return forward(self, x)

    monkeypatch.setattr(fastrnn.Linear, "forward", watched)
    for _ in range(4):
        run.step()
    # 6400 draws with a standard deviation of 0.0054: five of them.
    assert all(abs(zeros.mean() - 0.25) < 0.027 for zeros in seen)
    assert not any((seen[0] == zeros).all() for zeros in seen[1:])


@pytest.mark.parametrize("layers", [1, 2])
def test_stopped_anywhere_with_dropout_the_bytes_are_the_same(
    layers: int, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"layers": layers, "dropout": 0.5, "cell": "lstm"}
    begun(10**9, "whole", **changes)
    for stop in (1, 23, 40):
        begun(stop, "pieces", **changes)
        trained(capsys, "--resume", "pieces")
        assert Path("pieces").read_bytes() == Path("whole").read_bytes()
    assert settings("whole") == replace(SMALL, **changes)


def test_no_dropout_is_no_draw(text_file: Path) -> None:
    run = begun(5)
    assert asdict(run.settings)["dropout"] == 0
    written = fastrnn.load("model")
    assert written["rnn"].dropout == 0


@pytest.mark.parametrize("value", ["1", "-0.1", "nan", "inf"])
def test_dropout_out_of_range(
    value: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(5)
    for options in ([], ["--resume=model"]):
        err = refused(capsys, f"--dropout={value}", *options, "--", "text.txt")
        assert f"dropout is {float(value)}, expected a number in [0, 1)" in err


# ------------------------------------------------------------------------------ the time left


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"), (99.4, "99 s"), (100, "2 minutes"), (719, "12 minutes"),
        (6000, "1.7 hours"), (86400, "24.0 hours"), (200000, "2.3 days"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert command.duration(seconds) == words


@pytest.mark.parametrize("seconds_a_step", [0.3, 5.0])
def test_the_time_is_told_before_a_long_run(
    seconds_a_step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Training(split(), replace(SMALL, epochs=9))
    now = 0.0
    monkeypatch.setattr(command, "time", SimpleNamespace(perf_counter=lambda: now))
    estimate = command._Estimate(run)
    told = []
    while run.step_count < run.total:
        run.step()
        now += seconds_a_step if run.step_count > 1 else 60  # the first one is no measure
        told.append(estimate.line())
    lines = [line for line in told if line]
    step = told.index(lines[0]) + 1
    left = (run.total - step) * seconds_a_step
    assert lines == [f"about {command.duration(left)} for 9 epochs; Ctrl-C saves and stops"]
    assert step == (2 if seconds_a_step > 1 else 5)


def test_nothing_is_told_of_a_short_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Training(split(), SMALL)
    monkeypatch.setattr(command._Estimate, "MEASURED", 0.0)
    estimate = command._Estimate(run)
    while run.step_count < run.total:
        run.step()
        assert estimate.line() == ""
    assert estimate.told
