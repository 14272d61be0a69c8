"""from_onnx on damaged and hostile models: one ValueError or OSError, whatever the bytes."""

import contextlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import Case, draw, make_model, make_node, model_of  # noqa: E402

from fastrnn.convert import from_onnx  # noqa: E402
from fastrnn.convert.onnx import contents  # noqa: E402
from fastrnn.convert.onnx_cells import OPERATORS  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

node = helper.make_node
CASE = Case("GRU")
ARRAYS = draw(CASE, np.float32)


def model() -> Any:
    """A model with something of everything: chains of constants, layers, what is refused."""
    nodes = [
        node("Gather", ["table", "ids"], ["X"], name="words"),
        node("Slice", ["W0", "from", "to", "axes"], ["W1"]),
        node("Concat", ["W1", "W1"], ["W2"], axis=0),
        node("Split", ["W2", "halves"], ["W3", ""], axis=0),
        node("Unsqueeze", ["W3", "axes"], ["W4"]),
        node("Reshape", ["W4", "shape"], ["W5"]),
        node("Cast", ["W5"], ["W"], to=TensorProto.FLOAT),
        node("Shape", ["X"], ["sizes"]),
        node("ConstantOfShape", ["sizes"], ["initial_h"]),
        make_node(CASE, {**ARRAYS, "initial_h": 0}, name="rnn"),
        node("Constant", [], ["b"], value=numpy_helper.from_array(np.ones(2, np.float32))),
        node("MatMul", ["Y", "w"], ["head0"], name="head"),
        node("Add", ["head0", "b"], ["head1"]),
        node("Softmax", ["head1"], ["out"], name="soft"),
    ]
    constants = {
        "table": np.ones((7, 3), np.float32), "W0": ARRAYS["W"][0], "R": ARRAYS["R"],
        "B": ARRAYS["B"], "from": np.array([0]), "to": np.array([99]), "axes": np.array([0]),
        "halves": np.array([15, 15]), "shape": np.array([1, 15, 3]),
        "w": np.ones((5, 2), np.float16),
    }  # fmt: skip
    constants["w"] = constants["w"].astype(np.float32)
    return make_model(nodes, constants, {"ids": np.array([[1]])}, ["out"])


def attempt(source: Any) -> None:
    """Every way to read it either works or raises what it says."""
    for call in (
        lambda: from_onnx(source, skip=["soft"]), lambda: from_onnx(source, "rnn"),
        lambda: contents(source),
    ):  # fmt: skip
        with contextlib.suppress(ValueError, OSError):
            call()


def test_the_model_is_whole() -> None:
    assert list(from_onnx(model(), skip=["soft"])) == ["words", "rnn", "head"]


def test_cut_off_and_changed_bytes() -> None:
    data = model().SerializeToString()
    rng = random.Random(0)
    for n in range(0, len(data), 7):
        attempt(data[:n])
    for _ in range(1000):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        attempt(bytes(changed))


# ------------------------------------------------------------------------------ by structure

NUMBERS = (0, 1, -1, 2, 3, 15, 2**31, 2**62, -(2**63), 2**63 - 1)


def tensors(m: Any) -> list[Any]:
    return [*m.graph.initializer, *(a.t for n in m.graph.node for a in n.attribute if a.type == 4)]


def change_dims(m: Any, rng: random.Random) -> None:
    dims = rng.choice(tensors(m)).dims
    if dims and rng.random() < 0.7:
        dims[rng.randrange(len(dims))] = rng.choice(NUMBERS)
    else:
        dims.extend([rng.choice(NUMBERS)] * rng.choice((1, 40)))


def change_type(m: Any, rng: random.Random) -> None:
    rng.choice(tensors(m)).data_type = rng.randrange(-1, 30)


def change_data(m: Any, rng: random.Random) -> None:
    tensor = rng.choice(tensors(m))
    kind = rng.randrange(4)
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: rng.randrange(99)]
    elif kind == 1:
        tensor.ClearField("raw_data")
        getattr(tensor, rng.choice(("float_data", "int32_data"))).extend([1] * rng.randrange(50))
    elif kind == 2:
        tensor.raw_data = np.array([rng.choice(NUMBERS) for _ in range(3)], np.int64).tobytes()
    else:
        tensor.segment.begin = 1


def change_place(m: Any, rng: random.Random) -> None:
    tensor = rng.choice(tensors(m))
    tensor.data_location = 1
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")
    for key in rng.sample(("location", "offset", "length", "checksum", "location"), 3):
        value = rng.choice(("weights", "../x", "/dev/zero", "/proc/self/mem", "0", "-1", "9" * 30))
        tensor.external_data.add(key=key, value=value)


def change_attribute(m: Any, rng: random.Random) -> None:
    made = rng.choice([n for n in m.graph.node if n.attribute])
    attribute = rng.choice(made.attribute)
    kind = rng.randrange(4)
    if kind == 0:
        attribute.i = rng.choice(NUMBERS)
    elif kind == 1:
        attribute.type = rng.randrange(15)
    elif kind == 2:
        attribute.name = rng.choice(("axis", "to", "perm", "direction", "clip", "", "body"))
    else:
        made.attribute.append(attribute)


def change_name(m: Any, rng: random.Random) -> None:
    made = rng.choice(m.graph.node)
    names = [v for n in m.graph.node for v in (*n.input, *n.output)]
    where = rng.choice((made.input, made.output))
    if where:
        where[rng.randrange(len(where))] = rng.choice([*names, "", "nothing", "x" * 3000])
    made.name = rng.choice((made.name, "rnn", "", "a\nb", "y" * 3000))


def change_operator(m: Any, rng: random.Random) -> None:
    made = rng.choice(m.graph.node)
    made.op_type = rng.choice(
        (*OPERATORS, "Slice", "Expand", "Tile", "Range", "Loop", "", "Gemm", "MatMul",
         "Gather", "Flatten", "Squeeze", "Transpose", "DequantizeLinear", "CastLike", "Size", "Sub")
    )  # fmt: skip
    made.domain = rng.choice(("", "", "", "ai.onnx", "com.microsoft"))


def change_order(m: Any, rng: random.Random) -> None:
    nodes = list(m.graph.node)
    rng.shuffle(nodes)
    del m.graph.node[:]
    m.graph.node.extend(nodes)


def change_inputs(m: Any, rng: random.Random) -> None:
    made = rng.choice(m.graph.node)
    if rng.random() < 0.5 and made.input:
        del made.input[rng.randrange(len(made.input))]
    else:
        made.input.extend([rng.choice([t.name for t in m.graph.initializer])] * rng.choice((1, 9)))


def change_versions(m: Any, rng: random.Random) -> None:
    m.opset_import[0].version = rng.choice(NUMBERS)
    m.opset_import[0].domain = rng.choice(("", "ai.onnx", "other"))


def add_functions(m: Any, rng: random.Random) -> None:
    for i in range(rng.randrange(1, 4)):
        inner = node(rng.choice(("F0", "F1", "Identity")), ["a"], ["b"], domain="f")
        m.functions.append(helper.make_function("f", f"F{i}", ["a"], ["b"], [inner], []))
    m.graph.node.add(op_type="F0", domain="f", input=["R"], output=["never"])


CHANGES: list[Callable[[Any, random.Random], None]] = [
    change_dims, change_type, change_data, change_place, change_attribute, change_name,
    change_operator, change_order, change_inputs, change_versions, add_functions,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_changed_in_structure(change: Any, tmp_path: Path) -> None:
    rng = random.Random(change.__name__)
    (tmp_path / "weights").write_bytes(bytes(100))
    path = tmp_path / "model.onnx"
    for i in range(60):
        m = model()
        for _ in range(rng.choice((1, 1, 2))):
            change(m, rng)
        for _ in range(rng.choice((0, 0, 1, 3))):
            rng.choice(CHANGES)(m, rng)
        if i % 2:
            path.write_bytes(m.SerializeToString())
            attempt(path)
        else:
            attempt(m)


# ------------------------------------------------------------------------------ single faults


def damaged(text: str, change: Callable[[Any], None]) -> None:
    m = model_of(CASE, ARRAYS)
    change(m.graph.initializer[0])
    with pytest.raises(ValueError, match=f"node: GRU: tensor 'W': .*{text}"):
        from_onnx(m)


def set_fields(**values: Any) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        for name, value in values.items():
            field = getattr(tensor, name)
            if hasattr(field, "extend"):
                del field[:]
                field.extend(value)
            else:
                setattr(tensor, name, value)

    return change


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"dims": [1, 15, 4]}, r"it has 180 bytes, expected 240 for float32 \(1, 15, 4\)"),
        ({"dims": [1, 15, -3]}, r"its shape is \(1, 15, -3\), which no array has"),
        ({"dims": [1] * 33}, "its shape is .*, which no array has"),
        ({"dims": [0, 2**62], "raw_data": b""}, "is larger than the address space"),
        ({"dims": [2**40, 2**40]}, "it has 180 bytes, expected"),
        ({"data_type": TensorProto.STRING}, "ONNX's type 8, which is not read"),
        ({"data_type": TensorProto.INT4}, "ONNX's type 22, which is not read"),
        ({"data_type": TensorProto.COMPLEX64}, "ONNX's type 14, which is not read"),
        ({"float_data": [1.0]}, "it has elements twice"),
        ({"int64_data": [1]}, "it has elements twice"),
        ({"data_type": TensorProto.DOUBLE}, "it has 180 bytes, expected 360"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_not_what_it_says(values: dict[str, Any], text: str) -> None:
    damaged(text, set_fields(**values))


def test_a_tensor_in_fields() -> None:
    def of(**values: Any) -> Callable[[Any], None]:
        def change(tensor: Any) -> None:
            tensor.ClearField("raw_data")
            set_fields(**values)(tensor)

        return change

    damaged("it has 4 bytes, expected 180", of(float_data=[1.0]))
    damaged("it has 0 bytes, expected 180", of())
    damaged("its elements are in int32_data, expected float_data", of(int32_data=[1]))
    half = {"data_type": TensorProto.FLOAT16, "int32_data": [1 << 16] * 45}
    damaged("numbers that are no bits of float16", of(**half))
    small = {"data_type": TensorProto.INT8, "int32_data": [200] * 45}
    damaged("int32_data has numbers that int8 cannot hold", of(**small))


def test_a_graph_that_is_none() -> None:
    m = model()
    m.graph.node[1].output[0] = "R"
    with pytest.raises(ValueError, match="'R' is made twice"):
        from_onnx(m)
    m = model()
    m.graph.node[1].input[0] = "W"  # in a circle
    with pytest.raises(ValueError, match="node 'Slice_1' reads 'W', which nothing before it makes"):
        from_onnx(m)
    m = model()
    m.graph.initializer.append(m.graph.initializer[0])
    with pytest.raises(ValueError, match="'table' is made twice"):
        from_onnx(m)
    for name in (b"head1", b"soft", b"Softmax", b"table", b"ids"):
        data = model().SerializeToString().replace(name, b"\xff" * len(name))
        with pytest.raises(ValueError, match="damaged: a name in it is not UTF-8"):
            from_onnx(data)


def test_a_file_of_tiny_messages_is_not_parsed() -> None:
    """Two bytes each, of which protobuf makes a hundred: nodes, and attributes of one node."""
    whole = model()
    size = 300_000
    for field, inside in ((0x3A, b"\x0a\x00" * size), (0x3A, b"\x2a\x00" * size)):
        data = whole.SerializeToString() + bytes([field]) + varint(len(inside)) + inside
        with pytest.raises(ValueError, match=r"it has more than \d+ messages in \d+ bytes"):
            from_onnx(data)
    # A large model goes through the count, and so does one that is damaged.
    whole.doc_string = "x" * 300_000
    assert list(from_onnx(whole.SerializeToString(), skip=["soft"])) == ["words", "rnn", "head"]
    rng = random.Random(1)
    for _ in range(50):
        changed = bytearray(whole.SerializeToString())
        changed[rng.randrange(2500)] = rng.randrange(256)
        attempt(bytes(changed))
        attempt(bytes(changed[: -rng.randrange(1000)]))


def varint(n: int) -> bytes:
    return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])


def test_deep_bodies_are_no_recursion_of_ours() -> None:
    inner = helper.make_graph([node("GRU", ["a"], ["b"])], "g", [], [])
    for _ in range(25):
        inner = helper.make_graph([node("If", ["a"], ["b"], then_branch=inner)], "g", [], [])
    m = model()
    m.graph.node.add(op_type="If", name="if", input=["B"], output=["never"])
    m.graph.node[-1].attribute.append(helper.make_attribute("then_branch", inner))
    limit = sys.getrecursionlimit()
    assert limit > 500
    with pytest.raises(ValueError, match="if: If: runs a body of its own, which holds GRU"):
        from_onnx(m.SerializeToString(), skip=["soft"])
