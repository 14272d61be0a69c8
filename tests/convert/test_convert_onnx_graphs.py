"""from_onnx on graphs: weights behind chains of nodes, the other layers, what is refused."""

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import Case, check, draw, expected, make_model, make_node, run  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.convert import from_onnx  # noqa: E402
from fastrnn.convert.onnx import contents  # noqa: E402
from fastrnn.convert.onnx_graph import Graph  # noqa: E402
from fastrnn.convert.onnx_operators import EVALUATED  # noqa: E402
from fastrnn.convert.onnx_tensors import load  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

rng = np.random.default_rng(0)
node = helper.make_node
CASE = Case("GRU", lengths=False)
ARRAYS = draw(CASE)
CELL = make_node(CASE, ARRAYS, name="rnn")
CONSTANTS = {name: ARRAYS[name] for name in ("W", "R", "B")}
X = {"X": ARRAYS["X"]}


def normal(*shape: int) -> Any:
    return rng.standard_normal(shape)


def with_rnn(nodes: list[Any], constants: Any = None, inputs: Any = None, **options: Any) -> Any:
    """A model of these nodes behind a GRU, whose output they read as Y."""
    return make_model(
        [CELL, *nodes], {**CONSTANTS, **(constants or {})}, {**X, **(inputs or {})},
        [nodes[-1].output[0]] if nodes else ["Y"], **options,
    )  # fmt: skip


# ------------------------------------------------------------------------------ constants

A = normal(2, 3, 4)
I = lambda *n: np.array(n, np.int64)  # noqa: E731
QUANTISED = rng.integers(-100, 100, (2, 3, 4)).astype(np.int8)
# By operator: inputs, attributes, operator set, number of outputs.
CALLS: list[tuple[str, list[Any], dict[str, Any], int, int]] = [
    ("Identity", [A], {}, 22, 1),
    ("Slice", [A, I(0, 1), I(2, 9), I(1, 2), I(1, 2)], {}, 22, 1),
    ("Slice", [A, I(-1, 0), I(-9, 2**62), I(2, 0), I(-1, 1)], {}, 22, 1),
    ("Slice", [A, I(1), I(2)], {}, 13, 1),
    ("Slice", [A, I(9), I(-(2**63)), I(-1), I(-2)], {}, 13, 1),
    ("Slice", [A, I(5), I(9)], {}, 13, 1),
    ("Slice", [A], {"starts": [1, 0], "ends": [3, -1], "axes": [1, 2]}, 9, 1),
    ("Concat", [A, A[:, :1]], {"axis": 1}, 22, 1),
    ("Concat", [A, A], {"axis": -1}, 22, 1),
    ("Unsqueeze", [A, I(0, -1)], {}, 22, 1),
    ("Unsqueeze", [A], {"axes": [1, 3]}, 11, 1),
    ("Squeeze", [A[:1, :1], I(0)], {}, 22, 1),
    ("Squeeze", [A[:1, :1]], {}, 22, 1),
    ("Squeeze", [A[:1, :1]], {"axes": [1]}, 11, 1),
    ("Transpose", [A], {"perm": [2, 0, 1]}, 22, 1),
    ("Transpose", [A], {}, 22, 1),
    ("Reshape", [A, I(0, -1, 2)], {}, 22, 1),
    ("Reshape", [A[:0], I(0, 7)], {"allowzero": 1}, 22, 1),
    ("Flatten", [A], {}, 22, 1),
    ("Flatten", [A], {"axis": 3}, 22, 1),
    ("Flatten", [A], {"axis": -1}, 22, 1),
    ("Cast", [A], {"to": TensorProto.FLOAT16}, 22, 1),
    ("Cast", [A * 9], {"to": TensorProto.INT32}, 22, 1),
    ("CastLike", [A, np.zeros(1, np.float32)], {}, 22, 1),
    ("Split", [A], {"axis": 2}, 13, 2),
    ("Split", [A, I(1, 3)], {"axis": 2}, 22, 2),
    ("Split", [A], {"axis": -1, "num_outputs": 3}, 22, 3),
    ("Split", [A], {"axis": 1, "split": [2, 1]}, 11, 2),
    ("Gather", [A, I(2, -1, 0)], {"axis": 1}, 22, 1),
    ("Gather", [A, np.array(1)], {}, 22, 1),
    ("Expand", [A[:, :1], I(3, 1, 5, 1)], {}, 22, 1),
    ("Tile", [A, I(2, 1, 3)], {}, 22, 1),
    ("Shape", [A], {}, 22, 1),
    ("Shape", [A], {"start": -2, "end": 9}, 22, 1),
    ("Size", [A], {}, 22, 1),
    ("ConstantOfShape", [I(2, 3)], {}, 22, 1),
    ("ConstantOfShape", [I(2)], {"value": numpy_helper.from_array(I(7))}, 22, 1),
    ("Range", [np.array(2), np.array(9), np.array(3)], {}, 22, 1),
    ("Constant", [], {"value": numpy_helper.from_array(A)}, 22, 1),
    ("Constant", [], {"value_floats": [1.5, 2.5]}, 22, 1),
    ("Constant", [], {"value_int": 3}, 22, 1),
    ("Add", [A, A[0]], {}, 22, 1),
    ("Sub", [A, A[:, :1]], {}, 22, 1),
    ("Mul", [I(2, 3), I(4)], {}, 22, 1),
    ("Div", [A, A[0]], {}, 22, 1),
    ("DequantizeLinear", [QUANTISED, np.float32(0.25), np.array(3, np.int8)], {}, 19, 1),
    ("DequantizeLinear", [QUANTISED, np.float32([0.25, 0.5, 2])], {"axis": -2}, 22, 1),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_constants_are_evaluated_as_onnx_says(call: Any) -> None:
    operator, arrays, attributes, opset, count = call
    outputs = [f"out{i}" for i in range(count)]
    names = [f"in{i}" for i in range(len(arrays))]
    made = node(operator, names, outputs, **attributes)
    constants = {n: np.asarray(a) for n, a in zip(names, arrays, strict=True)}
    model = make_model([made], constants, {}, outputs, opset)
    graph = Graph(load(model))
    for name, want in zip(outputs, ReferenceEvaluator(model).run(None, {}), strict=True):
        got = graph.value(name)
        assert (got.dtype, got.shape) == (np.asarray(want).dtype, np.shape(want))
        np.testing.assert_array_equal(got, want)
        assert not got.flags.writeable


def test_every_operator_of_the_evaluator_is_tested() -> None:
    assert {call[0] for call in CALLS} == set(EVALUATED)


def test_constants_in_every_type_and_field() -> None:
    for name in ("float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32",
                 "uint32", "int64", "uint64", "bool"):  # fmt: skip
        want = (rng.integers(0, 2, (2, 3)) if name == "bool" else normal(2, 3) * 50).astype(name)
        kind = helper.np_dtype_to_tensor_dtype(want.dtype)
        for tensor in (
            numpy_helper.from_array(want, "a"),
            helper.make_tensor("a", kind, want.shape, want.ravel()),
        ):
            got = Graph(load(make_model([], {"a": tensor}, {}, []))).value("a")
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)


def test_weights_behind_a_chain_as_exporters_write_it() -> None:
    """Slices of torch's r, z, n rows, joined as z, r, n, and an axis in front; a cast."""
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    for name in ("W", "R"):
        z, r, n = np.split(CONSTANTS[name][0], 3)
        constants[f"{name}0"] = np.concatenate([r, z, n]).astype(np.float32)
        for i, gate in enumerate("rzn"):
            bounds = [f"{name}{gate}{end}" for end in ("from", "to")]
            constants |= {bounds[0]: I(5 * i), bounds[1]: I(5 * i + 5)}
            nodes.append(node("Slice", [f"{name}0", *bounds, "axes"], [f"{name}{gate}"]))
        nodes.append(node("Concat", [f"{name}{g}" for g in "zrn"], [f"{name}1"], axis=0))
        nodes.append(node("Unsqueeze", [f"{name}1", "axes"], [f"{name}2"]))
        nodes.append(node("Cast", [f"{name}2"], [name], to=TensorProto.DOUBLE))
    constants |= {"axes": I(0), "B": CONSTANTS["B"]}
    model = make_model([*nodes, CELL], constants, X, ["Y"])
    check(run(from_onnx(model, "rnn"), ARRAYS, 0), expected(CASE, ARRAYS), np.float64)


def test_a_long_chain_is_no_recursion_and_takes_no_memory() -> None:
    nodes = [node("Identity", [f"W{i}"], [f"W{i + 1}"]) for i in range(20_000)]
    nodes[-1].output[0] = "W"
    model = make_model(
        [*nodes, CELL], {"R": CONSTANTS["R"], "W0": CONSTANTS["W"], "B": CONSTANTS["B"]}, X, ["Y"]
    )
    check(run(from_onnx(model, "rnn"), ARRAYS, 0), expected(CASE, ARRAYS), np.float64)


@pytest.mark.parametrize(
    "grow",
    [
        lambda a, b: node("Concat", [a, a], [b], axis=0),
        lambda a, b: node("Tile", [a, "many"], [b]),
        lambda a, b: node("Expand", [a, "many"], [b]),
        lambda a, b: node("Gather", [a, "zeros"], [b]),
        lambda a, b: node("ConstantOfShape", ["many"], [b]),
    ],
)
def test_what_grows_out_of_proportion_is_refused(grow: Any) -> None:
    nodes = [grow(f"W{i}", f"W{i + 1}") for i in range(40)]
    nodes[-1].output[0] = "W"
    constants = {
        "R": CONSTANTS["R"], "W0": normal(1, 15, 3), "many": I(40_000, 15, 3),
        "zeros": np.zeros((50, 50), np.int64),
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"rnn: GRU: node .* out of proportion to the size of the"):
        from_onnx(
            make_model(
                [*nodes, make_node(CASE, constants | {"W": 0, "X": 0}, "rnn")], constants, X, ["Y"]
            )
        )


# ------------------------------------------------------------------------------ other layers


def test_products_become_linear_layers() -> None:
    w, b = normal(5, 7), normal(7)
    x = normal(2, 3, 5)
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="plain"),
        node("MatMul", ["x", "w"], ["b0"], name="biased"),
        node("Add", ["b0", "b"], ["b1"], name="bias"),
        node("MatMul", ["x", "w"], ["c0"], name="other way"),
        node("Add", ["b11", "c0"], ["c1"]),
        node("MatMul", ["x", "w"], ["d0"], name="one number"),
        node("Add", ["d0", "one"], ["d1"]),
        node("MatMul", ["x", "w"], ["e0"], name="reshaped"),
        node("Cast", ["sizes"], ["sizes0"], to=TensorProto.INT64),
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "nought", "two"], ["front"]),
        node("Concat", ["front", "sizes0"], ["sizes1"], axis=0),
        node("Reshape", ["e0", "sizes1"], ["e1"]),
        node("Add", ["e1", "b"], ["e2"]),
        node("Gemm", ["x2", "w"], ["f"], name="gemm"),
        node("Gemm", ["x2", "wt", "b"], ["g"], name="gemm all", transB=1, alpha=0.5, beta=2.0),
        node("Gemm", ["x2", "w", "b11"], ["h"]),
        node("Gemm", ["x2", "w"], ["f0"], name="gemm and add"),
        node("Identity", ["f0"], ["f1"]),
        node("Add", ["b", "f1"], ["f2"]),
    ]  # fmt: skip
    constants = {
        "w": w, "wt": np.ascontiguousarray(w.T), "b": b, "b11": b[None], "one": np.array([3.0]),
        "sizes": np.array([7], np.int32), "nought": I(0), "two": I(2),
    }  # fmt: skip
    inputs = {"x": x, "x2": x[0]}
    model = with_rnn(nodes, constants, inputs)
    outputs = {
        "plain": "a", "biased": "b1", "other way": "c1", "one number": "d1", "reshaped": "e2",
        "gemm": "f", "gemm all": "g", "Gemm_17": "h", "gemm and add": "f2",
    }  # fmt: skip
    layers = from_onnx(model)
    assert list(layers) == ["rnn", *outputs]
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in outputs.values()
    )
    want = ReferenceEvaluator(model).run(None, inputs | X)
    for (name, output), y in zip(outputs.items(), want, strict=True):
        layer = layers[name]
        assert isinstance(layer, fastrnn.Linear)
        got = layer(inputs["x2" if output[0] in "fgh" else "x"])
        # 5 products and a bias, of order one, twice rounded.
        np.testing.assert_allclose(got, y, rtol=0, atol=2 * 6 * 8 * 2.0**-53)
    assert not layers["plain"].bias
    # A bias that the caller adds himself is no part of the layer.
    assert not from_onnx(with_rnn(nodes[1:3], constants, inputs), skip=["bias"])["biased"].bias


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (node("MatMul", ["w5", "Y1"], ["o"], name="n"), "no product of what is computed with"),
        (node("MatMul", ["Y", "Y"], ["o"], name="n"), "no product of what is computed with"),
        (node("MatMul", ["Y", "w3"], ["o"], name="n"), r"a product with float64 \(2, 5, 3\), no L"),
        (node("MatMul", ["Y", "v"], ["o"], name="n"), r"a product with float64 \(5,\), no Linear"),
        (node("MatMul", ["Y", "i"], ["o"], name="n"), r"a product with int64 \(5, 5\), no Linear"),
        (node("Gemm", ["Y1", "w5"], ["o"], name="n", transA=1), "with transA, no Linear"),
        (node("Gemm", ["Y1", "w5", "Y1"], ["o"], name="n"), "'Y1' is what node"),
        (node("Gemm", ["Y1", "w5", "w5"], ["o"], name="n"), r"C of float64 \(5, 5\), no bias"),
        (node("Gemm", ["Y1", "w5", "i5"], ["o"], name="n", beta=2.0), r"adds C of int64"),
        (node("Gather", ["v", "ids"], ["o"], name="n"), r"picks from float64 \(5,\) on axis 0"),
        (node("Gather", ["w5", "ids"], ["o"], name="n", axis=1), "on axis 1, no Embedding"),
        (node("Gather", ["i", "ids"], ["o"], name="n"), "picks from int64"),
        (node("GatherND", ["w5", "ids"], ["o"], name="n"), "computes, and is none of the layers"),
        (node("Concat", ["Y1", "w5"], ["o"], name="n", axis=0), "computes, and is none of the lay"),
        (node("Softmax", ["Y"], ["o"], name="n"), "computes, and is none of the layers here"),
        (node("Add", ["Y", "v"], ["o"], name="n"), "computes, and is none of the layers here"),
        (node("Mul", ["Y", "Y"], ["o"], name="n"), "computes, and is none of the layers here"),
        (node("Dropout", ["Y", "", "yes"], ["o"], name="n"), "computes, and is none of the layer"),
        (node("RandomNormal", [], ["o"], name="n", shape=[2]), "computes, and is none of the lay"),
        (node("Cast", ["Y"], ["o"], name="n", to=TensorProto.INT32), "Cast: computes, and is none"),
        (node("Cast", ["Y"], ["o"], name="n", to=TensorProto.BOOL), "Cast: computes, and is none"),
        (node("Fun", ["Y"], ["o"], name="n", domain="org.x"), "org.x.Fun: computes, and is none"),
        (node("GRU", ["Y1", "W", "R"], ["o"], name="n", domain="com.microsoft"), "oft.GRU: "),
        (node("DynamicQuantizeLSTM", ["Y"], ["o"], name="n", domain="com.microsoft"),
         "com.microsoft.DynamicQuantizeLSTM: computes"),
    ],
)  # fmt: skip
def test_what_computes_and_is_no_layer_is_refused_by_name(made: Any, text: str) -> None:
    constants = {
        "w5": normal(5, 5), "w3": normal(2, 5, 3), "v": normal(5), "i": np.ones((5, 5), np.int64),
        "yes": np.array(True), "axes": I(0, 1), "i5": np.ones(5, np.int64),
    }  # fmt: skip
    last = node("Squeeze", ["Y_h", "axes"], ["Y1"])
    model = with_rnn([last, made], constants, {"ids": I(1, 2)})
    with pytest.raises(ValueError, match=rf"\(n: .*{text}.*\): pass skip=\['n'\] for what you"):
        from_onnx(model)
    layers = from_onnx(model, skip=["n"])
    assert list(layers) == ["rnn"]
    assert isinstance(from_onnx(model, "rnn"), fastrnn.GRU)  # of which the rest is no part
    with pytest.raises(ValueError, match=text):
        from_onnx(model, "n")


def test_a_cast_that_makes_indices_and_lengths_passes() -> None:
    """As where a model takes its tokens as floating numbers; what else is cast so computes."""
    ids, lengths = np.array([1.0, 2.0]), np.array([1.0, 2.0])
    nodes = [
        node("Cast", ["ids"], ["i"], name="ids as integers", to=TensorProto.INT64),
        node("Unsqueeze", ["i", "axes"], ["i1"]),
        node("Gather", ["table", "i1"], ["x"], name="words"),
        node("Cast", ["lens"], ["l"], name="lengths", to=TensorProto.INT32),
        node("GRU", ["x", "W", "R", "", "l"], ["y"], name="gru", hidden_size=5),
    ]
    constants = {"table": normal(4, 3), "axes": I(0)}
    inputs = {"ids": ids, "lens": lengths}
    assert list(from_onnx(with_rnn(nodes, constants, inputs))) == ["rnn", "words", "gru"]
    nodes[2] = node("Mul", ["i1", "i1"], ["x"], name="product")
    with pytest.raises(ValueError, match=r"ids as integers: Cast: .*product: Mul: "):
        from_onnx(with_rnn(nodes, constants, inputs))


def test_a_bias_behind_a_product_that_others_read_is_not_taken() -> None:
    constants = {"w": normal(5, 5), "b": normal(5)}
    nodes = [node("MatMul", ["Y", "w"], ["o"]), node("Add", ["o", "b"], ["p"], name="add")]
    model = with_rnn([*nodes, node("Identity", ["o"], ["q"])], constants)
    with pytest.raises(ValueError, match="add: Add: computes"):
        from_onnx(model)
    model = with_rnn(nodes, constants)
    model.graph.output.append(helper.make_tensor_value_info("o", TensorProto.DOUBLE, None))
    with pytest.raises(ValueError, match="add: Add: computes"):
        from_onnx(model)
    turned = [
        nodes[0],
        node("Reshape", ["o", "s"], ["o1"]),
        node("Add", ["o1", "b"], ["p"], name="add"),
    ]
    with pytest.raises(ValueError, match="add: Add: computes"):
        from_onnx(with_rnn(turned, constants | {"s": I(-1, 1)}))


def test_what_hands_on_data_or_reckons_with_sizes_passes() -> None:
    nodes = [
        node("Transpose", ["Y"], ["y0"], perm=[0, 2, 1, 3]),
        node("Shape", ["y0"], ["s0"]),
        node("Gather", ["s0", "zero"], ["s1"]),
        node("Mul", ["s1", "two"], ["s2"]),
        node("Div", ["s2", "two"], ["s3"]),
        node("Gather", ["table", "s1"], ["s6"]),
        node("Gather", ["s0", "s6"], ["s7"]),
        node("Unsqueeze", ["s3", "axes"], ["s4"]),
        node("Concat", ["s4", "rest"], ["s5"], axis=0),
        node("Reshape", ["y0", "s5"], ["y1"]),
        node("Dropout", ["y1"], ["y2"]),
        node("Dropout", ["y2", "half", "no"], ["y3"]),
        node("Slice", ["y3", "axes", "ends"], ["y4"]),
        node("Gather", ["y4", "zero"], ["y5"]),
        node("Cast", ["y5"], ["y6"], to=TensorProto.FLOAT),
        node("Concat", ["y6", "y6"], ["y7"], axis=-1),
        node("Equal", ["s5", "rest"], ["s8"]),
        node("Where", ["s8", "s5", "rest"], ["s9"]),
        node("Expand", ["y7", "s9"], ["y8"]),
        node("ReverseSequence", ["y8", "lengths"], ["o"]),
    ]  # fmt: skip
    constants = {
        "zero": np.array(0), "two": np.array(2), "axes": I(0), "rest": I(1, 5), "ends": I(1),
        "half": np.array(0.5), "no": np.array(False), "table": I(*range(9)),
    }  # fmt: skip
    model = with_rnn(nodes, constants, {"lengths": I(1, 1)})
    assert list(from_onnx(model)) == ["rnn"]


def with_lengths(*nodes: Any) -> Any:
    """A model of these nodes, which may read "lengths" and "reals", these cast, and the GRU's Y."""
    cell = make_node(Case("GRU", lengths=True), {**ARRAYS, "sequence_lens": 0}, name="rnn")
    cell.input[4] = "lengths"
    cast = node("Cast", ["lengths"], ["reals"], to=TensorProto.DOUBLE)
    constants = {
        **CONSTANTS, "table": normal(9, 3), "i": I(3), "yes": np.array([True]), "axes": I(1, 2),
    }  # fmt: skip
    inputs = {**X, "lengths": np.ones(4, np.int32)}
    return make_model([cell, cast, *nodes], constants, inputs, [nodes[-1].output[0]])


MASK = [
    node("Shape", ["X"], ["sizes"]),
    node("Gather", ["sizes", "axes"], ["steps"]),
    node("Less", ["lengths", "steps"], ["mask"]),
    node("Not", ["mask"], ["rest"]),
    node("Cast", ["rest"], ["ones"], to=TensorProto.DOUBLE),
]


def test_what_reckons_with_lengths_passes() -> None:
    last = [
        node("Where", ["mask", "Y", "Y"], ["o"]),
        node("Where", ["yes", "Y", "Y"], ["o"]),
        node("Where", ["steps", "Y", "Y"], ["o"]),
        node("Expand", ["Y", "lengths"], ["o"]),
    ]
    for made in last:
        assert list(from_onnx(with_lengths(*MASK, made))) == ["rnn"]


@pytest.mark.parametrize(
    "made",
    [
        node("Where", ["mask", "Y", "ones"], ["o"], name="n"),
        node("Where", ["mask", "Y", "table"], ["o"], name="n"),
        node("Where", ["Y", "Y", "Y"], ["o"], name="n"),
        node("Mul", ["Y", "ones"], ["o"], name="n"),
        node("Concat", ["Y", "ones"], ["o"], name="n", axis=0),  # made by no layer
        node("RandomUniformLike", ["reals"], ["o"], name="n"),
        node("Fun", ["lengths"], ["o"], name="n", domain="org.x"),
    ],
)
def test_what_joins_lengths_and_data_computes(made: Any) -> None:
    with pytest.raises(ValueError, match=rf"\(n: {made.domain}.*{made.op_type}: computes, and is"):
        from_onnx(with_lengths(*MASK, made))


def test_lengths_are_embedded_and_are_no_sequences() -> None:
    layers = from_onnx(with_lengths(node("Gather", ["table", "lengths"], ["o"], name="sizes")))
    assert list(layers) == ["rnn", "sizes"]
    second = node("GRU", ["reals", "W", "R"], ["o"], name="n")
    with pytest.raises(ValueError, match="X that depends on the lengths of rows, sizes and const"):
        from_onnx(with_lengths(second))


def test_an_embedding() -> None:
    table = normal(9, 3).astype(np.float16)
    nodes = [
        node("Gather", ["table", "ids"], ["o"], name="words"),
        node("Gather", ["table", "ids"], ["p"], name="again", axis=-2),
        node("Shape", ["ids"], ["n"]),
        node("Squeeze", ["n"], ["n0"]),
        node("Range", ["zero", "n0", "one"], ["positions"]),
        node("Gather", ["table", "positions"], ["q"], name="places"),
    ]
    constants = {"table": table, "zero": np.array(0), "one": np.array(1)}
    layers = from_onnx(with_rnn(nodes, constants, {"ids": I(3, 8)}))
    assert list(layers) == ["rnn", "words", "again", "places"]
    for name in list(layers)[1:]:
        assert isinstance(layers[name], fastrnn.Embedding)
        np.testing.assert_array_equal(layers[name](I(3, 8)), table[[3, 8]].astype(np.float32))


# ------------------------------------------------------------------------------ names, errors


def test_names_are_made_and_unique() -> None:
    nodes = [make_node(CASE, ARRAYS, name) for name in ("", "a", "a", "GRU_0", "a_2")]
    for i, n in enumerate(nodes):
        n.output[:] = [f"Y{i}"]
    layers = from_onnx(make_model(nodes, CONSTANTS, X, ["Y0"]))
    assert list(layers) == ["GRU_0_", "a", "a_2_", "GRU_0", "a_2"]


def test_names_that_are_not_there() -> None:
    model = with_rnn([node("Softmax", ["Y"], ["o"], name="soft")])
    with pytest.raises(ValueError, match="has no layer 'soft0': its layers are 'rnn'"):
        from_onnx(model, "soft0")
    with pytest.raises(ValueError, match="skip holds 'sof', expected names out of 'rnn', 'soft'"):
        from_onnx(model, skip=["sof"])
    with pytest.raises(ValueError, match=r"skip is .'soft'., but name is 'rnn', .* skip=\(\)"):
        from_onnx(model, "rnn", skip=["soft"])
    with pytest.raises(TypeError, match="name is"):
        from_onnx(model, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="skip is"):
        from_onnx(model, skip="soft")
    with pytest.raises(TypeError, match="batch_first is"):
        from_onnx(model, batch_first="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"source is an int, expected a path, an onnx.ModelProto"):
        from_onnx(3)


def test_one_error_names_what_is_known_before_and_when_layers_are_made() -> None:
    nodes = [
        node("Softmax", ["Y"], ["s"], name="soft"),
        node("MatMul", ["s", "w"], ["p"], name="head"),
        node("Add", ["p", "b"], ["o"], name="bias"),
        node("Relu", ["o"], ["q"], name="relu"),
    ]
    model = with_rnn(nodes, {"w": normal(5, 2), "b": normal(2).astype(np.float32)})
    told = r"soft: Softmax: .*; head: MatMul: weight is float64, bias is float32, .*; relu: Relu: "
    with pytest.raises(ValueError, match=rf"{told}.*\['soft', 'head', 'relu'\] for what"):
        from_onnx(model)
    told = r"soft: Softmax: .*; bias: Add: .* pass skip=\['head', 'relu', 'soft', 'bias'\] for"
    with pytest.raises(ValueError, match=told):  # nor is it part of a layer then
        from_onnx(model, skip=["relu", "head"])
    assert [e.why != "" for e in contents(model)] == [False, True, True, True]


def test_a_model_without_rnn() -> None:
    model = make_model(
        [node("MatMul", ["X", "w"], ["o"], name="head")], {"w": normal(3, 2)}, X, ["o"]
    )
    with pytest.raises(ValueError, match=r"no RNN, LSTM or GRU node; .* pass name='head'"):
        from_onnx(model)
    assert isinstance(from_onnx(model, "head"), fastrnn.Linear)
    with pytest.raises(ValueError, match=r"no RNN, LSTM or GRU node$"):
        from_onnx(make_model([node("Relu", ["X"], ["o"])], {}, X, ["o"]))


def loop_of(*nodes: Any) -> Any:
    body = helper.make_graph(
        list(nodes), "body", [], [helper.make_tensor_value_info("keep", TensorProto.BOOL, [])]
    )
    return node("Loop", ["many", ""], ["o"], name="loop", body=body)


def test_bodies_are_refused_by_the_name_of_the_outer_node() -> None:
    inner = node("If", ["keep"], ["z"], then_branch=loop_of(CELL).attribute[0].g)
    model = make_model([loop_of(inner)], {**CONSTANTS, "many": I(3)}, X, ["o"])
    with pytest.raises(ValueError, match="loop: Loop: runs a body of its own, which holds GRU"):
        from_onnx(model)
    model = make_model([loop_of(node("Tanh", ["X"], ["z"]))], {"many": I(3)}, X, ["o"])
    with pytest.raises(ValueError, match=r"written out in the body of 'loop' \(Loop\)"):
        from_onnx(model)


def test_old_operator_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="of version 6, expected 7 or more"):
        from_onnx(with_rnn([], opset=6))


def test_local_functions_are_inlined() -> None:
    sigmoid = helper.make_function(
        "local", "Layer", ["X", "W", "R", "B"], ["Y"],
        [make_node(CASE, ARRAYS, name="inner")], [helper.make_opsetid("", 22)],
    )  # fmt: skip
    call = node("Layer", ["X", "W", "R", "B"], ["out"], name="call", domain="local")
    model = make_model([call], CONSTANTS, X, ["out"])
    model.functions.append(sigmoid)
    model.opset_import.append(helper.make_opsetid("local", 1))
    (layer,) = from_onnx(model).values()
    check(run(layer, ARRAYS, 0), expected(CASE, ARRAYS), np.float64)
    assert len(model.functions) == 1  # it is the caller's
    for calls in (["F0"], [f"F{i + 1}" for i in range(40)]):  # in a circle, and 2^40 times
        del model.functions[:]
        for i, name in enumerate(calls):
            nodes = [node(name, [], [f"o{k}"], domain="local") for k in range(2)]
            if i == len(calls) - 1 and len(calls) > 1:
                nodes = [node("Identity", ["X"], ["o0"])]
            model.functions.append(helper.make_function("local", f"F{i}", [], ["o0"], nodes, []))
        del model.graph.node[:]
        model.graph.node.append(node("F0", [], ["out"], domain="local"))
        with pytest.raises(ValueError, match="functions call each other without end"):
            from_onnx(model)


def test_contents_lists_what_computes_and_what_becomes_of_it() -> None:
    nodes = [
        node("Transpose", ["Y"], ["t"], perm=[0, 2, 1, 3]),
        node("MatMul", ["t", "w"], ["o"], name="head"),
        node("Softmax", ["o"], ["p"], name="soft"),
    ]
    made = contents(with_rnn(nodes, {"w": normal(5, 2).astype(np.float16)}))
    assert [tuple(entry) for entry in made] == [
        ("rnn", CASE.operator, "GRU(3, 5, reset_after=False, dtype='float64')", "",
         {"W": ("float64", (1, 15, 3)), "R": ("float64", (1, 15, 5)), "B": ("float64", (1, 30))}),
        ("head", "MatMul", "Linear(5, 2, bias=False)", "", {"B": ("float16", (5, 2))}),
        ("soft", "Softmax", "", "computes, and is none of the layers here", {}),
    ]  # fmt: skip
