"""Layers written as ONNX models, and what runtimes compute with them.

The tolerance. Both sides make the same sums, in different orders. A sum of n terms errs by at least
the rounding of its result, and by about sqrt(n) times as much at most (see bounds.py); what becomes
of an error further on is the same on both sides. How much fastrnn errs is measured: in float32
against itself in float64, from weights that both types hold exactly. An activation of onnxruntime
errs by up to 3 u, u = 2^-24, where its value is at most 1 (`test_activations_err_by`), and the
least that fastrnn's can err by is half a unit in the last place: so a runtime may err
max(sqrt(n), ACTIVATION) times as much, where n is the longest sum of the network, and where fastrnn
was lucky, one rounding of 1 or of the largest element counts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registry import VARIANTS

import fastrnn
from fastrnn import convert

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx.reference import ReferenceEvaluator  # noqa: E402

U = 2.0**-24
ACTIVATION = 4.0
KINDS = [n for n, v in VARIANTS.items() if v.cell.name != "leaky" and "projection" not in v.extras]
# Elman networks with other activations are beyond the reference of onnx.
OF_THE_REFERENCE = [
    n for n in KINDS if VARIANTS[n].options.get("nonlinearity", "tanh") in ("tanh", "identity")
]
SHAPES: dict[str, dict[str, Any]] = {
    "one": {},
    "both": {"bidirectional": True},
    "two": {"num_layers": 2},
    "three-both": {"num_layers": 3, "bidirectional": True},
    "reverse": {"reverse": True},
    "two-reverse": {"num_layers": 2, "reverse": True},
}
T, B, D, H = 6, 5, 3, 5
LENGTHS = [6, 0, 3, 5, 1]


def make(kind: str, shape: str = "one", D: int = D, H: int = H, **options: Any) -> Any:
    return VARIANTS[kind].layer(D, H, rng=0, **SHAPES[shape], **options)


def inputs_of(layer: Any, T: int, B: int, lengths: Any, state: bool) -> dict[str, Any]:
    rng = np.random.default_rng([T, B])
    x = rng.standard_normal((T, B, layer.input_size))
    feeds = {"x": np.ascontiguousarray(x.swapaxes(0, 1)) if layer.batch_first else x}
    if state:
        sizes = layer.num_layers * (2 if layer.bidirectional else 1), B, layer.hidden_size
        names = ("h_0", "c_0") if isinstance(layer, fastrnn.LSTM) else ("h_0",)
        feeds |= {name: rng.standard_normal(sizes) for name in names}
    feeds = {name: a.astype(np.float32) for name, a in feeds.items()}
    return feeds if lengths is None else feeds | {"lengths": np.array(lengths, np.int32)}


def in_float64(layer: Any) -> Any:
    """The same layer, exactly, in the other type."""
    arguments = {n: getattr(layer, n) for n in layer._arguments()}
    other = type(layer)(**arguments, dtype="float64")
    other.load_state_dict(layer.state_dict())
    return other


def results(layer: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    given = {n: a if a.dtype == np.int32 else a.astype(layer.dtype) for n, a in feeds.items()}
    state = tuple(given[n] for n in ("h_0", "c_0") if n in given)
    state = state if len(state) == 2 else state[0] if state else None
    output, final = layer(given["x"], state, lengths=given.get("lengths"))
    finals = final if isinstance(final, tuple) else (final,)
    return {"output": output, **dict(zip(("h_n", "c_n"), finals, strict=False))}


def tolerance(layer: Any, feeds: dict[str, Any], exact: dict[str, Any]) -> dict[str, float]:
    """By how much the results of a runtime in float32 may be off, as said above."""
    single = results(layer, feeds)
    below = layer.hidden_size * (2 if layer.bidirectional else 1) * (layer.num_layers > 1)
    longest = max(layer.input_size, below) + layer.hidden_size + 1
    factor = max(longest**0.5, ACTIVATION)
    found = {}
    for name, a in exact.items():
        one = U * max(1.0, np.abs(a).max(initial=0))
        found[name] = factor * (np.abs(single[name] - a).max(initial=0) + one)
        assert found[name] < 1e-3 * max(1.0, np.abs(a).max(initial=0))  # a wrong gate is seen
    return found


def session(path: Path) -> Any:
    onnx.checker.check_model(str(path), full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check_runs(layer: Any, path: Path, T: int, B: int, lengths: Any, state: bool) -> None:
    convert.to_onnx(layer, path, lengths=lengths is not None, state=state)
    run = session(path)
    feeds = inputs_of(layer, T, B, lengths, state)
    assert [i.name for i in run.get_inputs()] == [
        n for n in ("x", "lengths", "h_0", "c_0") if n in feeds
    ]
    exact = results(in_float64(layer), feeds)
    allowed = tolerance(layer, feeds, exact)
    got = dict(zip([o.name for o in run.get_outputs()], run.run(None, feeds), strict=True))
    assert list(got) == list(exact)
    for name, a in exact.items():
        assert got[name].dtype == np.float32
        assert got[name].shape == a.shape
        error = np.abs(got[name] - a).max(initial=0)
        assert error <= allowed[name], f"{name}: {error / allowed[name]} of the bound"


@pytest.fixture(autouse=True)
def one_thread_each(one_thread: None) -> None:
    """Small calls, under which threads are not under test."""


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch_first"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_computes_what_the_layer_does(
    kind: str, shape: str, batch_first: bool, lengths: Any, state: bool, bias: bool, tmp_path: Path
) -> None:
    layer = make(kind, shape, batch_first=batch_first, bias=bias)
    check_runs(layer, tmp_path / "layer.onnx", T, B, lengths, state)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_all_sizes(kind: str, size: int, tmp_path: Path) -> None:
    layer = make(kind, "both", D=size, H=size)
    check_runs(layer, tmp_path / "layer.onnx", 7, 3, [7, 2, 5], True)


@pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 4), (9, 1), (40, 8)])
@pytest.mark.parametrize("kind", KINDS)
def test_single_steps_and_sequences(kind: str, T: int, B: int, tmp_path: Path) -> None:
    check_runs(make(kind, "two"), tmp_path / "layer.onnx", T, B, None, True)


def test_one_model_takes_all_lengths_and_batches(tmp_path: Path) -> None:
    layer = make("lstm", "both")
    convert.to_onnx(layer, tmp_path / "layer.onnx")
    run = session(tmp_path / "layer.onnx")
    for T, B in ((1, 1), (3, 2), (9, 17)):
        assert run.run(None, inputs_of(layer, T, B, None, False))[0].shape == (T, B, 2 * H)


def test_activations_err_by(tmp_path: Path) -> None:
    """The assumption of the tolerance: onnxruntime's activations, by themselves."""
    x = np.linspace(-30, 30, 20001, dtype=np.float32).reshape(1, -1, 1)
    for kind in (n for n, v in VARIANTS.items() if v.cell.name == "rnn"):
        layer = make(kind, D=1, H=1, bias=False)
        layer.weights["weight_ih_l0"][...] = 1
        convert.to_onnx(layer, tmp_path / "one.onnx")
        got = session(tmp_path / "one.onnx").run(["output"], {"x": x})[0]
        exact = in_float64(layer)(x.astype(np.float64))[0]
        assert np.abs(got - exact).max() <= (ACTIVATION - 1) * U


# ------------------------------------------------------------------------------ float64


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch_first"])
@pytest.mark.parametrize("state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", OF_THE_REFERENCE)
def test_float64_by_the_reference_of_onnx(
    kind: str, shape: str, state: bool, batch_first: bool, tmp_path: Path
) -> None:
    """Of what that reference has: neither other activations nor lengths."""
    single = make(kind, shape, batch_first=batch_first)
    layer, path = in_float64(single), tmp_path / "layer.onnx"
    convert.to_onnx(layer, path, state=state)
    onnx.checker.check_model(str(path), full_check=True)
    feeds = inputs_of(single, T, B, None, state)
    want = results(layer, feeds)
    got = ReferenceEvaluator(str(path)).run(None, {n: a.astype("f8") for n, a in feeds.items()})
    for (name, a), b in zip(want.items(), got, strict=True):
        assert b.dtype == np.float64
        # Errors in float64 are 2^-29 times those in float32, and here both sides err.
        assert np.abs(a - b).max() <= 2 * 2.0**-29 * tolerance(single, feeds, want)[name]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_float64_is_the_same_model(kind: str, shape: str, tmp_path: Path) -> None:
    """But for its type: so what onnxruntime shows of float32 holds for it."""
    layer = make(kind, shape)
    convert.to_onnx(layer, tmp_path / "4.onnx", lengths=True, state=True)
    convert.to_onnx(in_float64(layer), tmp_path / "8.onnx", lengths=True, state=True)
    single, double = (onnx.load(tmp_path / f"{n}.onnx").graph for n in "48")
    assert list(single.node) == list(double.node)
    for a, b in zip(single.initializer, double.initializer, strict=True):
        assert a.name == b.name
        a, b = (onnx.numpy_helper.to_array(t) for t in (a, b))
        assert b.dtype == (np.float64 if a.dtype == np.float32 else a.dtype)
        np.testing.assert_array_equal(a, b)
    for a, b in zip([*single.input, *single.output], [*double.input, *double.output], strict=True):
        if a.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            assert b.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
            b.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        assert a == b


# ------------------------------------------------------------------------------ other layers


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear(dtype: str, bias: bool, tmp_path: Path) -> None:
    layer = fastrnn.Linear(33, 7, bias, dtype=dtype, rng=0)
    convert.to_onnx(layer, tmp_path / "linear.onnx")
    x = np.random.default_rng(0).standard_normal((4, 3, 33)).astype(dtype)
    (got,) = session(tmp_path / "linear.onnx").run(None, {"x": x})
    w, b = layer.weights["weight"], layer.weights.get("bias", np.zeros(7, dtype))
    # Two sums of n terms, each off by at most n u times the sum of the terms' sizes.
    n, terms = 34, np.abs(x) @ np.abs(w).T + np.abs(b)
    assert got.shape == (4, 3, 7)
    assert (np.abs(got - layer(x)) <= n * np.finfo(dtype).eps * terms).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_embedding(dtype: str, tmp_path: Path) -> None:
    layer = fastrnn.Embedding(11, 3, dtype=dtype, rng=0)
    convert.to_onnx(layer, tmp_path / "embedding.onnx")
    indices = np.random.default_rng(0).integers(0, 11, (4, 5))
    (got,) = session(tmp_path / "embedding.onnx").run(None, {"indices": indices})
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, layer(indices))


# ------------------------------------------------------------------------------ the file


def test_what_a_model_says_of_itself(tmp_path: Path) -> None:
    convert.to_onnx(make("gru", "two", batch_first=True), tmp_path / "gru.onnx", lengths=True)
    model = onnx.load(tmp_path / "gru.onnx")
    assert (model.producer_name, model.producer_version) == ("fastrnn", fastrnn.__version__)
    assert (model.ir_version, [o.version for o in model.opset_import]) == (7, [14])
    assert [n.name for n in model.graph.node if n.op_type == "GRU"] == ["gru_l0", "gru_l1"]
    names = {v for node in model.graph.node for v in (*node.input, *node.output) if v}
    known = {i.name for i in (*model.graph.initializer, *model.graph.input, *model.graph.output)}
    assert known <= names
    x, lengths = model.graph.input
    assert [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] == ["B", "T", D]
    assert lengths.type.tensor_type.elem_type == onnx.TensorProto.INT32
    assert all(t.raw_data for t in model.graph.initializer)


def test_the_same_layer_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        convert.to_onnx(make("lstm", "three-both"), tmp_path / name, lengths=True, state=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_dropout_does_nothing_in_a_model(tmp_path: Path) -> None:
    for dropout in (0.0, 0.5):
        convert.to_onnx(make("gru", "two", dropout=dropout), tmp_path / str(dropout))
    assert (tmp_path / "0.0").read_bytes() == (tmp_path / "0.5").read_bytes()


class Mine(fastrnn.GRU):
    """A class whose own code a model would not have."""


@pytest.mark.parametrize(
    ("layer", "options", "error", "text"),
    [
        (fastrnn.LSTM(3, 4, proj_size=2), {}, ValueError, "proj_size is 2"),
        (fastrnn.LeakyRNN(3, 4), {}, ValueError, "no operator for LeakyRNN"),
        (fastrnn.GRU(None, 4), {}, ValueError, "input_size is None"),
        (fastrnn.GRU(0, 4), {}, ValueError, "input_size is 0"),
        (fastrnn.LSTM(None, 4, proj_size=2), {}, ValueError, "input_size is None.*proj_size is 2"),
        (Mine(3, 4), {}, ValueError, "the class Mine"),
        (fastrnn.Linear(3, 4), {"lengths": True}, ValueError, "lengths is True"),
        (fastrnn.Embedding(3, 4), {"state": True}, ValueError, "state is True"),
        ({"a": fastrnn.GRU(3, 4)}, {}, TypeError, r"pass layer\['a'\]"),
        (np.zeros(3), {}, TypeError, "expected a layer"),
        (fastrnn.GRU(3, 4), {"lengths": [3, 2]}, TypeError, "lengths"),
        (fastrnn.GRU(3, 4), {"state": 2}, TypeError, "state"),
    ],
    ids=lambda v: None if isinstance(v, dict | type) else type(v).__name__,
)
def test_refusals_leave_the_file_as_it_was(
    layer: Any, options: dict[str, Any], error: Any, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.onnx"
    path.write_bytes(b"old")
    with pytest.raises(error, match=text):
        convert.to_onnx(layer, path, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["old.onnx"]
    assert path.read_bytes() == b"old"


def test_a_model_of_more_than_protobuf_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = fastrnn.Embedding(1000, 100, rng=0)
    monkeypatch.setattr("fastrnn.convert.onnx_writer.MAX_BYTES", 408_191)
    with pytest.raises(ValueError, match="has 408192 bytes, 400000 of them weights"):
        convert.to_onnx(layer, tmp_path / "large.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_and_names_take_no_more_than_is_counted(kind: str, tmp_path: Path) -> None:
    layer = VARIANTS[kind].layer(1, 1, num_layers=1000, bidirectional=True, batch_first=True)
    convert.to_onnx(layer, tmp_path / "deep.onnx", lengths=True, state=True)
    rest = (tmp_path / "deep.onnx").stat().st_size - layer.flat_weights.nbytes
    assert rest < 4096 * 1001


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "fastrnn\[onnx\]"'):
        convert.to_onnx(make("gru"), tmp_path / "gru.onnx")
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_none() -> None:
    with pytest.raises(TypeError, match="path is 3, expected a str"):
        convert.to_onnx(make("gru"), 3)  # type: ignore[arg-type]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        convert.to_onnx(make("gru"), tmp_path / "none" / "gru.onnx")


# ------------------------------------------------------------------------------ and back


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_has_the_same_bits(
    kind: str, shape: str, bias: bool, lengths: bool, state: bool, dtype: str, tmp_path: Path
) -> None:
    layer = make(kind, shape, bias=bias, batch_first=True, dtype=dtype)
    convert.to_onnx(layer, tmp_path / "layer.onnx", lengths=lengths, state=state)
    found = convert.from_onnx(tmp_path / "layer.onnx", batch_first=True)
    cell = type(layer).__name__.lower()
    assert list(found) == [f"{cell}_l{k}" for k in range(layer.num_layers)]
    own = {name: getattr(layer, name) for name in (*VARIANTS[kind].options, "reverse")}
    read = {}
    for k, one in enumerate(found.values()):
        assert own == {name: getattr(one, name) for name in own}
        read |= {name.replace("_l0", f"_l{k}"): a for name, a in one.weights.items()}
    assert set(read) == set(layer.weights)
    for name, a in layer.weights.items():
        assert read[name].dtype == a.dtype
        assert read[name].tobytes() == a.tobytes(), name


def test_of_a_where_only_lengths_may_choose(tmp_path: Path) -> None:
    layer = make("lstm", "both")
    convert.to_onnx(layer, tmp_path / "layer.onnx", lengths=True, state=True)
    model = onnx.load(tmp_path / "layer.onnx")
    (where, *_) = (node for node in model.graph.node if node.op_type == "Where")
    where.input[0] = "is_large"
    large = onnx.helper.make_node("Greater", ["h_0", "c_0"], ["is_large"], "is_large")
    model.graph.node.insert(0, large)
    with pytest.raises(ValueError, match=rf"is_large: Greater.*{where.name}: Where"):
        convert.from_onnx(model)
    found = convert.from_onnx(model, skip=["is_large", where.name])
    assert list(found) == ["lstm_l0"]


@pytest.mark.parametrize(
    "other", [fastrnn.Linear(3, 2), fastrnn.Linear(3, 2, bias=False), fastrnn.Embedding(4, 3)]
)
def test_other_layers_are_read_back(other: Any, tmp_path: Path) -> None:
    convert.to_onnx(other, tmp_path / "other.onnx")
    back = convert.from_onnx(tmp_path / "other.onnx", type(other).__name__.lower())
    assert repr(back) == repr(other)
    assert back.flat_weights.tobytes() == other.flat_weights.tobytes()
