"""``fastrnn convert`` and ``fastrnn info MODEL``: what they write, print and refuse."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.cli import main

SHAPES = {
    "words.weight": (11, 3),
    "encoder.rnn.weight_ih_l0": (12, 3), "encoder.rnn.weight_hh_l0": (12, 4),
    "encoder.rnn.bias_ih_l0": (12,), "encoder.rnn.bias_hh_l0": (12,),
    "conv.weight": (4, 4, 5), "conv.bias": (4,),
    "head.weight": (2, 4), "head.bias": (2,),
}  # fmt: skip
CELL = {n.rpartition(".")[2]: s for n, s in SHAPES.items() if n.startswith("encoder")}


def drawn(shapes: dict[str, tuple[int, ...]], dtype: str = "f4") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def write(path: str, tensors: dict[str, Any], **metadata: str) -> dict[str, Any]:
    """A safetensors file that another library has written."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data, names = b"", {"float32": "F32", "float64": "F64", "uint16": "BF16"}
    for name, a in tensors.items():
        offsets = [len(data), len(data) + a.nbytes]
        header[name] = {
            "dtype": names[a.dtype.name], "shape": list(a.shape), "data_offsets": offsets
        }  # fmt: skip
        data += a.tobytes()
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)
    return tensors


@pytest.fixture
def run(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command line in an empty folder: the status, what was printed, the one error line."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> tuple[int, str, str]:
        try:
            status = main(shlex.split(line))
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        assert (status == 2) == bool(err)
        if err:
            assert err.startswith("fastrnn ")
            assert len(err.splitlines()) == 1
            assert not out
        return status, out, err

    return run


def refused(run: Any, line: str, text: str) -> str:
    before = {name: Path(name).read_bytes() for name in os.listdir() if Path(name).is_file()}
    status, _, err = run(line)
    assert status == 2
    assert re.search(text, err), err
    assert before == {n: Path(n).read_bytes() for n in os.listdir() if Path(n).is_file()}
    return str(err)


# ------------------------------------------------------------------------------ PyTorch's names


def test_a_whole_model_of_pytorch(run: Any) -> None:
    tensors = write("tagger.safetensors", drawn(SHAPES), format="pt")
    line = "convert tagger.safetensors out.safetensors --skip conv --kind words=Embedding"
    _, out, _ = run(line)
    size = os.path.getsize("out.safetensors")
    assert out.splitlines() == [
        "words: Embedding(11, 3), 33 weights, 132 bytes",
        "encoder_rnn: GRU(3, 4), 108 weights, 432 bytes",
        "head: Linear(4, 2), 10 weights, 40 bytes",
        f"out.safetensors: {size:,} bytes",
    ]
    loaded = fastrnn.load("out.safetensors")
    assert list(loaded) == ["words", "encoder_rnn", "head"]
    assert loaded.metadata == {"source": "tagger.safetensors", "format": "pt"}
    for name, a in loaded["encoder_rnn"].weights.items():
        np.testing.assert_array_equal(a, tensors[f"encoder.rnn.{name}"])


def test_what_is_no_layer_has_to_be_named_and_the_cure_works(run: Any) -> None:
    write("m.safetensors", drawn(SHAPES))
    text = "(?=.*conv: no layer)(?=.*words: Linear without bias, or Embedding)"
    err = refused(run, "convert m.safetensors out.safetensors", text)
    cure = err.rpartition(": pass ")[2]
    words = [re.search(r"--skip \w+", cure), re.search(r"--kind \S+(?=,)", cure)]
    options = " ".join(found[0] for found in words if found)
    assert options == "--skip conv --kind words=Embedding"
    assert run(f"convert m.safetensors out.safetensors {options}")[0] == 0


def test_one_layer_by_name(run: Any) -> None:
    write("m.safetensors", drawn(SHAPES))
    for name, layer in (
        ("encoder.rnn", "encoder_rnn: GRU(3, 4, batch_first=True)"),
        ("encoder", "encoder: GRU(3, 4, batch_first=True)"),
    ):
        _, out, _ = run(f"convert m.safetensors o.safetensors --force --batch-first --name {name}")
        assert out.startswith(layer)
    assert run("convert m.safetensors h.safetensors --name head")[1].startswith(
        "head: Linear(4, 2)"
    )
    refused(run, "convert m.safetensors x.safetensors --name head --batch-first", "is a Linear")
    _, out, _ = run("convert m.safetensors w.safetensors --name words --kind Linear")
    assert out.startswith("words: Linear(3, 11, bias=False)")
    refused(run, "convert m.safetensors x.safetensors --name words", "pass --kind Linear, or")
    refused(run, "convert m.safetensors x.safetensors --name none", "under the prefix 'none'")
    refused(run, "convert m.safetensors x.safetensors --name conv", "under the prefix 'conv'")


def test_weights_at_the_top_and_the_nonlinearity(run: Any) -> None:
    write("m.safetensors", drawn({n: (4, *s[1:]) for n, s in CELL.items()}))
    _, out, _ = run("convert m.safetensors o.safetensors --nonlinearity relu")
    assert out.startswith("rnn: RNN(3, 4, nonlinearity='relu')")
    refused(run, "convert m.safetensors p.safetensors --nonlinearity softplus", "'tanh', 'relu'")
    write("gru.safetensors", drawn(CELL))
    refused(run, "convert gru.safetensors p.safetensors --nonlinearity relu", "there is no RNN")


def test_names_that_look_like_options_are_joined_to_theirs(run: Any) -> None:
    shapes = {"--skip.weight": (3, 4), "-d.weight": (2, 2, 2)} | {
        f"g.{n}": s for n, s in CELL.items()
    }
    write("m.safetensors", drawn(shapes))
    cure = "pass --skip=-d for what you compute yourself, and --kind=--skip=Embedding"
    refused(run, "convert m.safetensors o.safetensors", cure)
    assert run("convert m.safetensors o.safetensors --skip=-d --kind=--skip=Embedding")[0] == 0


def test_names_that_would_be_one(run: Any) -> None:
    write("m.safetensors", drawn({f"{a}.{n}": s for a in ("a.b", "a_b") for n, s in CELL.items()}))
    refused(run, "convert m.safetensors o.safetensors", "'a.b' and 'a_b' would both be 'a_b'")
    assert run("convert m.safetensors o.safetensors --name a.b")[0] == 0


def test_bfloat16_is_widened_and_listed_as_it_is(run: Any) -> None:
    halves = {n: (a.view(np.uint32) >> 16).astype(np.uint16) for n, a in drawn(CELL).items()}
    write("half.safetensors", halves)
    _, out, _ = run("info half.safetensors")
    assert "    weight_ih_l0  bfloat16  (12, 3)  72 bytes" in out.splitlines()
    run("convert half.safetensors o.safetensors")
    (layer,) = fastrnn.load("o.safetensors").values()
    np.testing.assert_array_equal(
        layer.weights["bias_ih_l0"].view(np.uint32) >> 16, halves["bias_ih_l0"]
    )


def test_info_of_pytorch_names(run: Any) -> None:
    write("m.safetensors", drawn(SHAPES), format="pt")
    _, out, _ = run("info m.safetensors")
    size, arrays = os.path.getsize("m.safetensors"), 4 * (33 + 108 + 84 + 10)
    lines = out.splitlines()
    assert lines[0] == f"m.safetensors: a safetensors file, {size:,} bytes"
    assert "encoder.rnn: GRU, becomes GRU(3, 4)" in lines
    assert "    weight_hh_l0  float32  (12, 4)  192 bytes" in lines
    assert "conv: no layer, not converted: no layer that there is here" in lines
    assert lines[-2:] == [
        "metadata format: pt",
        f"2 layers of 4 entries, 9 arrays, {arrays:,} bytes of arrays",
    ]


# ------------------------------------------------------------------------------ our own files


def own(path: str) -> dict[str, Any]:
    objects = {
        "rnn": fastrnn.LSTM(3, 4, bidirectional=True, rng=0), "head": fastrnn.Linear(8, 2, rng=0),
        "run": {"step": 3, "mean": np.zeros(5)}, "x": np.ones((2, 3)), "notes": {"by": "me"},
    }  # fmt: skip
    fastrnn.save(path, objects, {"author": "me"})
    return objects


def test_info_of_our_own(run: Any) -> None:
    own("m.safetensors")
    _, out, _ = run("info m.safetensors")
    lines = out.splitlines()
    assert lines[0].startswith("m.safetensors: a file of fastrnn, ")
    entries = [line for line in lines[1:] if not line.startswith("    ")]
    assert entries == [
        "rnn: LSTM(3, 4, bidirectional=True)", "head: Linear(8, 2)", "run: dict, {'step': 3}",
        "x: array", "notes: dict, {'by': 'me'}", "metadata author: me",
        "2 layers of 5 entries, 12 arrays, 1,312 bytes of arrays",
    ]  # fmt: skip
    assert "    mean  float64  (5,)  40 bytes" in lines


def test_our_own_again(run: Any) -> None:
    objects = own("m.safetensors")
    err = refused(
        run, "convert m.safetensors o.safetensors", r"x: an array.*(--skip \w+ ){2}--skip"
    )
    assert all(name in err for name in ("run", "x", "notes"))
    refused(run, "convert m.safetensors o.safetensors --skip run --skip y", "skip holds 'y'")
    left_out = "--skip run --skip x --skip notes --skip head"
    run(f"convert m.safetensors o.safetensors {left_out} --batch-first")
    loaded = fastrnn.load("o.safetensors")
    assert repr(loaded["rnn"]) == "LSTM(3, 4, batch_first=True, bidirectional=True)"
    np.testing.assert_array_equal(loaded["rnn"].flat_weights, objects["rnn"].flat_weights)
    assert loaded.metadata == {"source": "m.safetensors", "author": "me"}
    refused(run, "convert m.safetensors p.safetensors --name rnn --kind Linear", "--kind")


def test_a_state_dict_that_was_saved_in_a_dict(run: Any) -> None:
    """As the lines for a .pt file leave it."""
    fastrnn.save("m.safetensors", {"model": drawn(SHAPES)})
    assert "model.encoder.rnn: GRU, becomes GRU(3, 4)" in run("info m.safetensors")[1]
    line = "convert m.safetensors o.safetensors --skip model.conv --kind model.words=Embedding"
    assert run(line)[0] == 0
    assert list(fastrnn.load("o.safetensors")) == ["model_words", "model_encoder_rnn", "model_head"]
    _, out, _ = run("convert m.safetensors one.safetensors --name model.head")
    assert out.startswith("model_head: Linear(4, 2)")
    fastrnn.save("m.safetensors", {"model": drawn(CELL) | {"step": 12}})
    refused(
        run, "convert m.safetensors p.safetensors", "model.step: 12, no layer.*--skip model.step"
    )
    _, out, _ = run("convert m.safetensors p.safetensors --skip model.step")
    assert out.startswith("model: GRU(3, 4)")


# ------------------------------------------------------------------------------ ONNX and Keras


def test_onnx_out_and_in(run: Any) -> None:
    onnx = pytest.importorskip("onnx")
    layer = own("m.safetensors")["rnn"]
    refused(
        run,
        "convert m.safetensors o.onnx --skip run --skip x --skip notes",
        "2 layers .rnn, head.*--name rnn",
    )
    _, out, _ = run("convert m.safetensors o.onnx --name rnn --lengths --state")
    assert out.splitlines()[-1] == f"o.onnx: {os.path.getsize('o.onnx'):,} bytes"
    graph = onnx.load("o.onnx").graph
    assert [i.name for i in graph.input] == ["x", "lengths", "h_0", "c_0"]
    _, out, _ = run("info o.onnx")
    assert out.startswith("o.onnx: an ONNX model, ")
    assert "lstm_l0: LSTM, becomes LSTM(3, 4, bidirectional=True)" in out
    _, out, _ = run("convert o.onnx back.safetensors --name lstm_l0")
    back = fastrnn.load("back.safetensors")["lstm_l0"]
    np.testing.assert_array_equal(back.flat_weights, layer.flat_weights)


def test_a_layer_that_onnx_lacks(run: Any) -> None:
    pytest.importorskip("onnx")
    fastrnn.save("m.safetensors", {"a": fastrnn.LSTM(3, 4, proj_size=2)})
    refused(run, "convert m.safetensors o.onnx", "o.onnx: ONNX cannot express.*proj_size is 2")


def test_without_the_package_onnx(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    fastrnn.save("m.safetensors", {"a": fastrnn.GRU(3, 4)})
    refused(run, "convert m.safetensors o.onnx", r'pip install "fastrnn\[onnx\]"')
    Path("m.onnx").write_bytes(b"\x08\x08\x12\x05maker" + bytes(8))
    for command in ("info m.onnx", "convert m.onnx o.safetensors"):
        refused(run, command, r'pip install "fastrnn\[onnx\]"')


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch")
    return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_in(run: Any, keras: Any) -> None:
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((None, 3)), layers.GRU(4, return_sequences=True, name="g"),
        layers.Conv1D(4, 2, name="c"), layers.Dense(2, activation="relu", name="d"),
    ])  # fmt: skip
    model.save("m.keras")
    model.save_weights("m.weights.h5")
    Path("m.json").write_text(model.to_json())
    os.rename("m.keras", "renamed.zip")  # it is found by its content
    _, out, _ = run("info renamed.zip")
    assert out.startswith("renamed.zip: a Keras file (.keras), ")
    assert "g: GRU, becomes GRU(3, 4)" in out
    assert re.search("^c: Conv1D, not converted: .", out, re.MULTILINE)
    cure = "--skip c --skip d/activation"
    refused(run, "convert renamed.zip o.safetensors", f"c: .*d/activation: .*{cure}")
    run("convert renamed.zip o.safetensors --skip c --skip d/activation --batch-first")
    loaded = fastrnn.load("o.safetensors")
    assert [repr(a) for a in loaded.values()] == ["GRU(3, 4, batch_first=True)", "Linear(4, 2)"]
    run("convert renamed.zip d.safetensors --name d --skip d/activation")
    assert list(fastrnn.load("d.safetensors")) == ["d"]

    _, out, _ = run("info m.weights.h5")
    assert "layers/gru: unknown, not converted: which layer it is, only --config FILE" in out
    assert "g: GRU, becomes GRU(3, 4)" in run("info m.weights.h5 --config m.json")[1]
    line = "convert m.weights.h5 w.safetensors --name g"
    refused(run, line, "pass --config FILE")
    assert run(f"{line} --config m.json")[0] == 0
    weights = [fastrnn.load(f)["g"].flat_weights for f in ("o.safetensors", "w.safetensors")]
    np.testing.assert_array_equal(*weights)
    refused(run, "info m.weights.h5 --config nothere", "--config nothere: No such file")
    refused(run, "info renamed.zip --config m.json", "--config does not apply")


# ------------------------------------------------------------------------------ refusals


def test_a_pickle_is_told_how_to_convert_it(run: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.save({n: torch.from_numpy(a) for n, a in drawn(SHAPES).items()}, "m.pt")
    for command in ("info m.pt", "convert m.pt o.safetensors"):
        err = refused(run, command, "seems to be a PyTorch file")
    exec(err.rpartition(": write ")[2], {"fastrnn": fastrnn})
    _, out, _ = run("convert m.safetensors o.safetensors --name model.encoder.rnn")
    assert out.startswith("model_encoder_rnn: GRU(3, 4)")


def test_out_is_replaced_only_if_asked_to(run: Any) -> None:
    write("m.safetensors", drawn(CELL))
    Path("o.safetensors").write_bytes(b"old")
    refused(run, "convert m.safetensors o.safetensors", "exists: replace it with --force")
    assert run("convert m.safetensors o.safetensors --force")[0] == 0
    os.symlink("m.safetensors", "link.safetensors")
    for out in ("m.safetensors", "link.safetensors"):
        refused(run, f"convert m.safetensors {out} --force", "the same file")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("convert m.safetensors", "the following arguments are required: OUT"),
        ("convert m.safetensors o.bin", "must end in .safetensors or .onnx"),
        ("convert m.safetensors no/o.safetensors", "no such folder"),
        ("convert none o.safetensors", "none: No such file"),
        ("convert . o.safetensors", "Is a directory"),
        ("convert m.safetensors o.safetensors --lengths", "--lengths is of ONNX models"),
        ("convert m.safetensors o.safetensors --state", "--state is of ONNX models"),
        ("convert m.safetensors o.safetensors --config c", "--config does not apply"),
        ("convert m.safetensors o.safetensors --skip none", "skip holds 'none'"),
        ("convert m.safetensors o.safetensors --skip ''", "no layer that is not left out"),
        ("convert m.safetensors o.safetensors --name a --skip b", "both given"),
        ("convert m.safetensors o.safetensors --kind GRU", "pass --kind NAME=GRU"),
        ("convert m.safetensors o.safetensors --kind a=GRU", "expected Linear or Embedding"),
        ("convert m.safetensors o.safetensors --kind a=Linear", "kinds? has 'a'"),
        ("convert m.safetensors o.safetensors --name b --kind a=Linear", "has 'a', but --name"),
        ("convert m.safetensors o.safetensors --sikp a", "did you mean --skip"),
        ("info none", "none: No such file"),
        ("info .", "Is a directory"),
        ("info m.safetensors --config c", "--config does not apply"),
        ("info --config c", "no MODEL"),
    ],
)
def test_bad_options(line: str, text: str, run: Any) -> None:
    write("m.safetensors", drawn(CELL))
    refused(run, line, text)


def test_weights_that_do_not_fit(run: Any) -> None:
    shapes = CELL | {"bias_hh_l0": (9,)}
    write("m.safetensors", drawn(shapes))
    refused(run, "convert m.safetensors o.safetensors", r"bias_hh_l0 .*\(9,\).*\(12,\)")
    _, out, _ = run("info m.safetensors")
    assert "(no name): GRU, not converted: " in out


def test_a_package_that_is_missing_is_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    Path("m.onnx").write_bytes(b"\x08\x08\x12" + bytes(40))
    for line in ("info m.onnx", "convert m.onnx m.safetensors"):
        refused(run, line, r'm\.onnx: .*: pip install "fastrnn\[onnx\]"')


def test_damaged_files(run: Any) -> None:
    write("m.safetensors", drawn(CELL))
    whole = Path("m.safetensors").read_bytes()
    starts = [b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x08\x08\x12", b"", b"text"]
    for data in (b"", whole[:40], whole[:-1], b"text", *(start + bytes(40) for start in starts)):
        for name in ("bad", "bad.safetensors", "bad.keras", "bad.h5"):
            Path(name).write_bytes(data)
            refused(run, f"info {name}", name)
            refused(run, f"convert {name} o.safetensors", name)


def test_names_in_a_file_print_no_control_characters(run: Any) -> None:
    name = "a\x1b[31m\n\u202e" + "x" * 10_000
    write("m.safetensors", drawn({f"{name}.{n}": s for n, s in CELL.items()} | {name: (3,)}),
          **{"k\r": "v\x07" * 5000})  # fmt: skip
    _, out, _ = run("info m.safetensors")
    assert "metadata k?: v?" in out
    for line in out.splitlines():
        assert line.isprintable()
        assert len(line) <= 700
    err = refused(run, "convert m.safetensors o.safetensors", "cannot be converted")
    assert err[:-1].isprintable()
    write("m.safetensors", drawn({f"a\x1b.{n}": s for n, s in CELL.items()}))
    _, out, _ = run("convert m.safetensors o.safetensors")
    assert out.startswith("a?: GRU(3, 4)")


def test_a_reader_that_has_seen_enough_and_a_terminal_of_few_characters() -> None:
    code = (
        "import sys, numpy as np, fastrnn; from fastrnn.cli import main, make_parser\n"
        "fastrnn.save('m.safetensors', {f'é{i}': np.zeros(3) for i in range(int(sys.argv[1]))})\n"
        "sys.exit(main(['info', 'm.safetensors']))"
    )

    def start(n: int, **how: Any) -> Any:
        return subprocess.Popen([sys.executable, "-c", code, str(n)], text=True, **how)

    few = os.environ | {
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": str(Path(fastrnn.__file__).parents[1]),
    }
    with start(20_000, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=few) as process:
        assert process.stdout.readline().startswith("m.safetensors: a file of fastrnn")
        assert process.stdout.readline() == "?0: array\n"
        process.stdout.close()
        assert process.wait() == 1
        assert process.stderr.read() == ""
    closed = f"{shlex.join([sys.executable, '-c', code, '1'])} >&-"
    assert subprocess.run(closed, shell=True, env=few, check=False).returncode == 0


def test_info_without_a_model_is_as_before(run: Any, capsys: Any) -> None:
    _, out, _ = run("info")
    fastrnn.show_config()
    assert out == capsys.readouterr().out != ""


@pytest.mark.parametrize("command", ["info", "convert"])
def test_help(command: str, run: Any) -> None:
    status, out, _ = run(f"{command} --help")
    assert status == 0
    assert out.startswith(f"usage: fastrnn {command}")
    assert "--config FILE" in out
