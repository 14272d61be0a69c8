"""from_onnx on the onnx package's own test cases of RNN, LSTM and GRU: every one of them passes."""

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import numpy_helper  # noqa: E402
from onnx_models import CLOSE, WEIGHTS, run  # noqa: E402

from fastrnn.convert import from_onnx  # noqa: E402
from fastrnn.convert.onnx_cells import OPERATORS  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

# What the cases call an input by its place in the node.
PLACES = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


def cases() -> list[Any]:
    """The cases, made by the modules that also make onnx's files of them."""
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401

    names = ("test_rnn", "test_simple_rnn", "test_lstm", "test_gru")
    return [case for case in node._NodeTestCases if case.name.startswith(names)]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_case_of_onnx_passes(case: Any) -> None:
    """Its W, R, B and P, which are inputs there, are put in as initialisers."""
    ((inputs, outputs),) = case.data_sets
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    (node,) = model.graph.node
    given = dict(zip((n for n in node.input if n), inputs, strict=True))
    arrays = {place: given[n] for place, n in zip(PLACES, node.input, strict=False) if n}
    del model.graph.input[:]
    for value in case.model.graph.input:
        if value.name in {node.input[i] for i in (1, 2, 3, 7) if i < len(node.input)}:
            model.graph.initializer.append(numpy_helper.from_array(given[value.name], value.name))
        else:
            model.graph.input.append(value)
    (layer,) = from_onnx(model).values()
    layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
    found = run(layer, arrays, layout)
    named = dict(zip(("Y", "Y_h", "Y_c"), node.output, strict=False))
    wanted = dict(zip((n for n in node.output if n), outputs, strict=True))
    for name, output in named.items():
        if output:
            assert found[name].shape == wanted[output].shape
            np.testing.assert_allclose(
                found[name], wanted[output], rtol=0, atol=CLOSE[np.dtype(np.float32)]
            )
    assert set(arrays) & set(WEIGHTS)


def test_there_are_cases_of_each_operator() -> None:
    found = [case.model.graph.node[0].op_type for case in cases()]
    assert len(found) >= 18
    assert set(found) == set(OPERATORS)
