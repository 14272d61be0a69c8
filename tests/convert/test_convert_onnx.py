"""from_onnx on one recurrent node: every option, against ONNX's equations and its runtimes."""

import itertools
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import (  # noqa: E402
    ACTIVATIONS,
    Case,
    check,
    draw,
    expected,
    make_model,
    make_node,
    model_of,
    run,
)

import fastrnn  # noqa: E402
from fastrnn.convert import from_onnx  # noqa: E402
from fastrnn.convert.onnx_cells import OPERATORS  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

DIRECTIONS = ("forward", "reverse", "bidirectional")
FLAGS = [
    dict(zip(("layout", "bias", "lengths", "state"), flags, strict=True))
    for flags in itertools.product((0, 1), (True, False), (False, True), (False, True))
]
CASES = [
    Case(operator, direction, **flags, **own)
    for operator in OPERATORS
    for direction in DIRECTIONS
    for flags in FLAGS
    for own in {
        "LSTM": ({}, {"peephole": True}),
        "GRU": ({}, {"reset_after": True}),
    }.get(operator, ({},))
]
CASES += [
    Case("RNN", direction, nonlinearity=f, state=True)
    for direction in DIRECTIONS
    for f in ACTIVATIONS
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_node_computes_what_onnx_says(case: Case) -> None:
    arrays = draw(case)
    model = model_of(case, arrays, opset=14 if case.B % 2 else 22)
    onnx.checker.check_model(model)
    layer = from_onnx(model, "node")
    assert type(layer) is getattr(fastrnn, case.operator)
    assert layer.batch_first == bool(case.layout)
    check(run(layer, arrays, case.layout), expected(case, arrays), np.float64)


# onnxruntime has neither layout 1 nor, for two of the operators, float64.
@pytest.mark.parametrize("opset", [7, 14, 22])
@pytest.mark.parametrize("case", [c for c in CASES if not c.layout], ids=str)
def test_onnxruntime_agrees(case: Case, opset: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    arrays = draw(case, np.float32, seed=1)
    model = model_of(case, arrays, opset)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    want = session.run(None, {name: arrays[name] for name in names})
    outputs = [o.name for o in session.get_outputs()]
    layer = from_onnx(model, "node")
    check(run(layer, arrays, 0), dict(zip(outputs, want, strict=True)), np.float32)


# The evaluator knows no lengths, and has one direction of two of the operators.
EVALUATED = [
    case
    for case in CASES
    if not case.lengths
    and case.nonlinearity == "tanh"
    and (case.operator == "LSTM" or case.direction == "forward")
]


@pytest.mark.parametrize("case", EVALUATED, ids=str)
def test_the_reference_evaluator_agrees(case: Case) -> None:
    """With ONNX's equations too, so what it says of layout 1 counts."""
    arrays = draw(case, np.float32, seed=2)
    model = model_of(case, arrays)
    names = [i.name for i in model.graph.input]
    found = ReferenceEvaluator(model).run(None, {name: arrays[name] for name in names})
    want = dict(zip((o.name for o in model.graph.output), found, strict=True))
    check(want, expected(case, arrays), np.float32)
    check(run(from_onnx(model, "node"), arrays, case.layout), want, np.float32)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_halves_are_widened(operator: str, kind: str) -> None:
    case = Case(operator, "bidirectional", state=True)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    arrays = draw(case, np.float16 if kind == "float16" else ml_dtypes.bfloat16)
    layer = from_onnx(model_of(case, arrays), "node")
    check(run(layer, arrays, 0), expected(case, arrays), np.float32)


@pytest.mark.parametrize(
    ("case", "attributes"),
    [
        (Case("RNN"), {"activations": ["Tanh", "Tanh"]}),  # the schema's own default
        (Case("RNN", nonlinearity="relu"), {"activations": ["RELU"]}),
        (Case("RNN", nonlinearity="sigmoid"), {"activation_alpha": [3.0]}),
        (Case("RNN", nonlinearity="identity"), {"activation_alpha": None, "activation_beta": None}),
        (Case("LSTM"), {"activations": ["sigmoid", "TANH", "tanh"], "input_forget": 0}),
        (Case("GRU", "bidirectional"), {"activations": ["Sigmoid", "Tanh"] * 2}),
        (Case("GRU"), {"linear_before_reset": 0, "direction": None, "hidden_size": None}),
    ],
)  # fmt: skip
def test_what_is_said_and_needs_not_be(case: Case, attributes: dict[str, Any]) -> None:
    arrays = draw(case)
    layer = from_onnx(model_of(case, arrays, **attributes), "node")
    check(run(layer, arrays, 0), expected(case, arrays), np.float64)


@pytest.mark.parametrize(
    ("case", "attributes", "text"),
    [
        (Case("LSTM"), {"clip": 3.0}, "clips at 3"),
        (Case("LSTM"), {"input_forget": 1}, "couples its input and forget gates"),
        (Case("LSTM"), {"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations 'Sigmoid', 'R"),
        (Case("LSTM"), {"activations": ["Sigmoid", "Tanh"]}, "activations"),
        (Case("GRU"), {"activations": ["HardSigmoid", "Tanh"]}, "activations 'HardSigmoid'"),
        (Case("RNN"), {"activations": ["Elu"]}, "activation 'Elu'"),
        (Case("RNN"), {"activations": ["HardSigmoid"]}, "HardSigmoid with alpha 0.2, not 0.166667"),
        (Case("RNN"), {"activations": ["Affine"], "activation_alpha": [2.0]}, "with alpha 2"),
        (Case("RNN"), {"activations": ["Affine"], "activation_beta": [0.0, 0.0]}, "2 of act"),
        (Case("RNN", "bidirectional"), {"activations": ["Tanh", "Relu"]}, "not one and the same"),
        (Case("GRU"), {"hidden_size": 6}, "hidden_size=6, but weights of 5 units"),
        (Case("GRU"), {"direction": "backward"}, "direction 'backward'"),
        (Case("GRU"), {"direction": "bidirectional"}, r"\(1, 15, 3\), expected \(2, 15"),
        (Case("GRU"), {"layout": 2}, "layout 2"),
        (Case("GRU"), {"output_sequence": 1}, "attribute 'output_sequence', which is not known"),
        (Case("RNN"), {"linear_before_reset": 1}, "linear_before_reset, which is not its own"),
        (Case("GRU"), {"clip": 1}, "attribute clip is no single FLOAT"),
    ],
)  # fmt: skip
def test_what_a_layer_cannot_be_is_refused_by_name(
    case: Case, attributes: dict[str, Any], text: str
) -> None:
    arrays = draw(case)
    model = model_of(case, arrays, name="encoder/node", **attributes)
    with pytest.raises(ValueError, match=f"encoder/node: {case.operator}: .*{text}") as error:
        from_onnx(model)
    assert from_onnx(model, skip=skip_of(error)) == {}
    with pytest.raises(ValueError, match=f"encoder/node: {case.operator}: .*{text}") as error:
        from_onnx(model, "encoder/node")
    assert "skip" not in str(error.value)


def skip_of(error: Any) -> list[str]:
    """What an error says to pass as skip."""
    return list(eval(str(error.value).partition("skip=")[2].partition(" for what")[0]))


def changed(arrays: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {k: a for k, a in {**arrays, **values}.items() if a is not None}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"W": np.zeros((1, 20, 3))}, "W of the shape .1, 20, 3., expected .1, 15, 3."),
        ({"R": np.zeros((1, 15, 4))}, "R of the shape .1, 15, 4., expected .1, 12, 4."),
        ({"B": np.zeros((1, 15))}, "B of the shape .1, 15., expected .1, 30."),
        ({"W": np.zeros((15, 3))}, "W of the shape .15, 3."),
        ({"W": np.zeros((1, 15, 0))}, "W of the shape .1, 15, 0."),
        ({"B": np.zeros((1, 30), np.float32)}, "weights of float32, float64"),
        ({"B": np.zeros((1, 30), np.int64)}, "weights of float64, int64"),
        ({"P": np.zeros((1, 15))}, "has 8 inputs"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(values: dict[str, Any], text: str) -> None:
    case = Case("GRU")
    with pytest.raises(ValueError, match=f"node: GRU: .*{text}"):
        from_onnx(model_of(case, changed(draw(case), **values)))


def test_weights_have_to_be_constant() -> None:
    case = Case("GRU")
    arrays = draw(case)
    node = make_node(case, arrays)

    def of(*names: str) -> dict[str, Any]:
        return {name: arrays[name] for name in names}

    with pytest.raises(ValueError, match=r"'R' is an input of the graph.*expected a constant"):
        from_onnx(make_model([node], of("W", "B"), of("X", "R"), ["Y", "Y_h"]))
    twice = helper.make_node("Tanh", ["W0"], ["W"], name="limit")
    with pytest.raises(ValueError, match=r"'W' is what node 'limit' \(Tanh\) makes, which is not"):
        from_onnx(
            make_model([twice, node], {**of("R", "B"), "W0": arrays["W"]}, of("X"), ["Y", "Y_h"])
        )
    with pytest.raises(ValueError, match="lacks X, W or R"):
        from_onnx(make_model([helper.make_node("GRU", ["X"], ["Y"])], {}, of("X"), ["Y"]))
    with pytest.raises(ValueError, match="X that depends on nothing, expected the inputs"):
        from_onnx(make_model([node], arrays, {}, ["Y", "Y_h"]))


# ------------------------------------------------------------------------------ states, lengths


def fixed(case: Case, arrays: dict[str, Any], *names: str, before: Any = (), **kinds: Any) -> Any:
    """The case's model with some of these inputs constant as well."""
    node = make_node(case, arrays)
    constants = {k: a for k, a in arrays.items() if k in ("W", "R", "B", "P", *names)}
    inputs = {k: a for k, a in arrays.items() if k not in constants and k not in kinds}
    constants |= {k: a for k, a in kinds.items() if a is not None}
    return make_model([*before, node], constants, inputs, list(node.output))


def test_constant_initial_states_are_left_to_the_caller_by_name_or_zero() -> None:
    case = Case("LSTM", state=True)
    arrays = draw(case)
    with pytest.raises(
        ValueError, match=r"node/initial_h: .*pass it to the layer as state"
    ) as error:
        from_onnx(fixed(case, arrays, "initial_h", "initial_c"))
    assert skip_of(error) == ["node/initial_h", "node/initial_c"]
    with pytest.raises(ValueError, match=r"node/initial_c: ") as again:
        from_onnx(fixed(case, arrays, "initial_h", "initial_c"), "node", skip=["node/initial_h"])
    assert skip_of(again) == skip_of(error)  # what was passed is repeated
    for name in (None, "node"):
        found = from_onnx(fixed(case, arrays, "initial_h", "initial_c"), name, skip=skip_of(error))
        layer = found["node"] if name is None else found
        check(run(layer, arrays, 0), expected(case, arrays), np.float64)
    zeros = arrays | {name: np.zeros((1, 4, 5)) for name in ("initial_h", "initial_c")}
    layer = from_onnx(fixed(case, zeros, "initial_h", "initial_c"), "node")
    check(run(layer, {"X": arrays["X"]}, 0), expected(case, zeros), np.float64)
    with pytest.raises(ValueError, match=r"node/initial_h.*and not|holds 'node/initial_h'"):
        from_onnx(model_of(Case("LSTM"), draw(Case("LSTM"))), skip=["node/initial_h"])


def states_of_sizes(value: float) -> list[Any]:
    """Nodes that make an initial state of the batch's size, as exporters write it."""
    return [
        helper.make_node("Shape", ["X"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["batches"]),
        helper.make_node("Concat", ["two", "batches", "units"], ["sizes"], axis=0),
        helper.make_node(
            "ConstantOfShape", ["sizes"], ["full"],
            value=helper.make_tensor("", onnx.TensorProto.DOUBLE, [1], [value]),
        ),
        helper.make_node("Slice", ["full", "axes", "ends", "axes"], ["slice"]),
        helper.make_node("Expand", ["scalar", "sizes"], ["other"]),
        helper.make_node("Concat", ["slice", "slice"], ["initial_h"], axis=0),
        helper.make_node("Identity", ["other"], ["initial_c"]),
    ]  # fmt: skip


SIZES = {
    "one": np.array(1), "axes": np.array([0]), "two": np.array([2]), "units": np.array([5]),
    "ends": np.array([1]), "scalar": np.array(0.0),
}  # fmt: skip


def test_initial_states_made_of_sizes() -> None:
    case = Case("LSTM", "bidirectional", state=True)
    arrays = draw(case)
    kinds: dict[str, Any] = {"initial_h": None, "initial_c": None, **SIZES}
    layer = from_onnx(fixed(case, arrays, before=states_of_sizes(0.0), **kinds), "node")
    zeros = arrays | {"initial_h": np.zeros((2, 4, 5)), "initial_c": np.zeros((2, 4, 5))}
    check(run(layer, {"X": arrays["X"]}, 0), expected(case, zeros), np.float64)
    with pytest.raises(ValueError, match=r"node/initial_h: .*not evidently zero") as error:
        from_onnx(fixed(case, arrays, before=states_of_sizes(1.0), **kinds))
    assert skip_of(error) == ["node/initial_h"]
    ones = kinds | {"scalar": np.array(1.0)}
    with pytest.raises(ValueError, match=r"node/initial_c: .*not evidently zero") as error:
        from_onnx(fixed(case, arrays, before=states_of_sizes(0.0), **ones))
    assert skip_of(error) == ["node/initial_c"]


@pytest.mark.parametrize("layout", [0, 1])
def test_constant_lengths_are_left_to_the_caller_by_name_or_whole(layout: int) -> None:
    case = Case("GRU", "reverse", layout=layout, lengths=True)
    arrays = draw(case)
    model = fixed(case, arrays, "sequence_lens")
    with pytest.raises(
        ValueError, match=r"node/sequence_lens: .*pass them to the layer as lengths"
    ):
        from_onnx(model)
    layer = from_onnx(model, skip=["node/sequence_lens"])["node"]
    check(run(layer, arrays, layout), expected(case, arrays), np.float64)
    whole = arrays | {"sequence_lens": np.full(4, 6, np.int32)}
    layer = from_onnx(fixed(case, whole, "sequence_lens"), "node")
    check(run(layer, {"X": arrays["X"]}, layout), expected(case, whole), np.float64)
    # The number of steps may be known of what X is a turn of, or not at all.
    turn = helper.make_node("Transpose", ["X0"], ["X"], perm=[1, 0, 2])
    kinds: dict[str, Any] = {"X": None}
    model = fixed(case, whole, "sequence_lens", before=[turn], **kinds)
    value = helper.make_tensor_value_info("X0", 11, [4, 6, 3] if not layout else [6, 4, 3])
    model.graph.input.append(value)
    from_onnx(model, "node")
    model.graph.input[-1].type.tensor_type.shape.dim[1 - layout].dim_param = "T"
    with pytest.raises(ValueError, match="not evidently the number of steps"):
        from_onnx(model, "node")


def test_one_layout_for_all_or_each_its_own() -> None:
    case = Case("GRU", layout=1)
    model = model_of(case, draw(case))
    assert from_onnx(model, "node").batch_first
    assert not from_onnx(model, "node", batch_first=False).batch_first
    assert from_onnx(model_of(Case("GRU"), draw(Case("GRU"))), batch_first=True)["node"].batch_first


@pytest.mark.parametrize(
    ("case", "shapes", "text"),
    [
        (Case("LSTM", state=True), {"initial_c": (1, 4, 9)}, "an initial_c with 9 on axis 2, exp"),
        (Case("GRU", state=True), {"initial_h": (2, 4, 5)}, "an initial_h with 2 on axis 0, expec"),
        (Case("RNN", state=True, layout=1), {"initial_h": (4, 2, 5)}, "initial_h with 2 on axis 1"),
        (Case("LSTM", state=True), {"initial_h": None, "initial_c": (1, 4, 9)}, "_c with 9 on axi"),
    ],
)
def test_a_state_of_another_size_is_refused(case: Case, shapes: Any, text: str) -> None:
    """As in files of an exporter that forgets a projection."""
    arrays = draw(case)
    for name, shape in shapes.items():
        arrays |= {name: np.zeros(shape)} if shape else {}
    for constant in (False, True):
        model = model_of(case, arrays)
        if constant:
            for name in ("initial_h", "initial_c"):
                if name in arrays:
                    model.graph.initializer.append(numpy_helper.from_array(arrays[name], name))
        with pytest.raises(ValueError, match=text):
            from_onnx(model)


def with_numbers(case: Case, **numbers: list[float]) -> Any:
    """A model whose activations have these numbers alone."""
    model = model_of(case, draw(case))
    (node,) = model.graph.node
    kept = [a for a in node.attribute if a.name not in ("activation_alpha", "activation_beta")]
    del node.attribute[:]
    node.attribute.extend(kept + [helper.make_attribute(k, v) for k, v in numbers.items()])
    return model


def test_numbers_of_activations_that_are_not_ours_are_refused() -> None:
    case = Case("RNN", nonlinearity="identity")
    assert from_onnx(with_numbers(case, activation_alpha=[1.0]))
    # Of Affine the specification has no default.
    with pytest.raises(ValueError, match="alpha 0, not 1"):
        from_onnx(with_numbers(case))
    with pytest.raises(ValueError, match=r"alpha 0\.5, not 1"):
        from_onnx(with_numbers(case, activation_alpha=[0.5]))
    case = Case("RNN", "bidirectional", nonlinearity="hard_sigmoid")
    with pytest.raises(ValueError, match=r"alpha 0\.2, not 0\.166667"):
        from_onnx(with_numbers(case, activation_alpha=[1 / 6]))


def test_a_recurrent_operator_of_another_set_is_named() -> None:
    node = helper.make_node("DynamicQuantizeLSTM", ["X"], ["Y"], "q", domain="com.microsoft")
    model = make_model([node], {}, {"X": np.zeros((2, 1, 3), "f4")}, ["Y"])
    with pytest.raises(ValueError, match=r"q: com.microsoft.DynamicQuantizeLSTM: computes"):
        from_onnx(model)
