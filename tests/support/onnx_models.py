"""ONNX models of one recurrent node, what ONNX says that they compute, and layers run as they are.

The equations are those of the operators' documentation, in float64, one step and one gate at a
time; nothing of the package is used for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402

Array = NDArray[Any]

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
WEIGHTS = ("W", "R", "B", "P")
STATES = ("initial_h", "initial_c")
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")

RANKS = {"Y": 4}  # of outputs, 3 of others

# What sums of at most 32 terms of order one, at most 12 steps and layers deep, may differ by
# between two sides that both round: 2 · 32 · 12 roundings.
CLOSE = {np.dtype(np.float32): 768 * 2.0**-24, np.dtype(np.float64): 768 * 2.0**-53}

ACTIVATIONS = {
    "tanh": ("Tanh", None, np.tanh),
    "relu": ("Relu", None, lambda z: np.maximum(z, 0)),
    "sigmoid": ("Sigmoid", None, lambda z: 1 / (1 + np.exp(-z))),
    "identity": ("Affine", (1.0, 0.0), lambda z: z),
    "hard_sigmoid": ("HardSigmoid", (1 / 6, 0.5), lambda z: np.clip(z / 6 + 0.5, 0, 1)),
}


class Case(NamedTuple):
    """A recurrent node: which operator, its sizes, what it has."""

    operator: str
    direction: str = "forward"
    layout: int = 0
    bias: bool = True
    lengths: bool = False
    state: bool = False
    peephole: bool = False
    reset_after: bool = False  # a GRU's linear_before_reset
    nonlinearity: str = "tanh"  # an RNN's
    T: int = 6
    B: int = 4
    D: int = 3
    H: int = 5

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def __str__(self) -> str:
        on = [
            n for n in ("bias", "lengths", "state", "peephole", "reset_after") if getattr(self, n)
        ]
        what = [self.operator, self.direction, f"layout{self.layout}", *on]
        return "-".join([*what, *[self.nonlinearity] * (self.operator == "RNN")])


def draw(case: Case, dtype: Any = np.float64, seed: int = 0) -> dict[str, Array]:
    """The node's inputs; all numbers are those of float32."""
    rng = np.random.default_rng([seed, case.T, case.B, case.D, case.H])
    n, G, (T, B, D, H) = case.directions, GATES[case.operator], case[-4:]
    shapes: dict[str, tuple[int, ...]] = {
        "X": (T, B, D), "W": (n, G * H, D), "R": (n, G * H, H), "B": (n, 2 * G * H),
        "initial_h": (n, B, H), "initial_c": (n, B, H), "P": (n, 3 * H),
    }  # fmt: skip
    arrays = {k: rng.uniform(-0.7, 0.7, s).astype(np.float32) for k, s in shapes.items()}
    left_out = [*["B"] * (not case.bias), *["P"] * (not case.peephole)]
    if not case.state or case.operator != "LSTM":
        left_out += STATES[case.state :]
    for name in left_out:
        arrays.pop(name, None)
    if case.layout:
        for name in ("X", *STATES):
            if name in arrays:
                arrays[name] = np.ascontiguousarray(arrays[name].swapaxes(0, 1))
    arrays = {name: a.astype(dtype) for name, a in arrays.items()}
    if case.lengths:
        lengths = rng.integers(1, T + 1, B)
        lengths[:2] = T, 1
        arrays["sequence_lens"] = lengths.astype(np.int32)
    return arrays


def make_node(case: Case, given: Mapping[str, Any], name: str = "node", **attributes: Any) -> Any:
    """The node, its inputs called as ONNX calls them."""
    attributes = {"hidden_size": case.H, "direction": case.direction} | attributes
    if case.layout:
        attributes["layout"] = 1
    if case.reset_after:
        attributes["linear_before_reset"] = 1
    if case.operator == "RNN" and case.nonlinearity != "tanh":
        operator, numbers, _ = ACTIVATIONS[case.nonlinearity]
        attributes["activations"] = [operator] * case.directions
        for which, number in zip(("alpha", "beta"), numbers or (), strict=False):
            attributes[f"activation_{which}"] = [number] * case.directions
    inputs = [what if what in given else "" for what in INPUTS]
    while not inputs[-1]:
        inputs.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 3 if case.operator == "LSTM" else 2]
    attributes = {key: value for key, value in attributes.items() if value is not None}
    return helper.make_node(case.operator, inputs, outputs, name=name, **attributes)


def make_model(
    nodes: list[Any], constants: Mapping[str, Any], inputs: Mapping[str, Any], outputs: list[str],
    opset: int = 22, kind: Any = None,
) -> Any:  # fmt: skip
    """A model whose constants are arrays or tensors, whose inputs have the shapes of arrays."""
    kind = kind or next((a.dtype for a in inputs.values() if a.dtype.kind == "f"), np.float32)

    def value(name: str, dtype: Any, shape: Any) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes, "g", [value(name, a.dtype, a.shape) for name, a in inputs.items()],
        [value(name, kind, [None] * RANKS.get(name, 3)) for name in outputs],
        [numpy_helper.from_array(a, name) if isinstance(a, np.ndarray) else a
         for name, a in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def model_of(case: Case, arrays: Mapping[str, Array], opset: int = 22, **attributes: Any) -> Any:
    """The node alone, its weights constant, the rest inputs."""
    node = make_node(case, arrays, **attributes)
    constants = {name: a for name, a in arrays.items() if name in WEIGHTS}
    inputs = {name: a for name, a in arrays.items() if name not in WEIGHTS}
    return make_model([node], constants, inputs, list(node.output), opset)


def run(layer: Any, arrays: Mapping[str, Array], layout: int) -> dict[str, Array]:
    """Run a layer on a node's inputs; what comes out has the node's names and axes."""
    states = [arrays[name].astype(layer.dtype) for name in STATES if name in arrays]
    if layout:
        states = [np.ascontiguousarray(a.swapaxes(0, 1)) for a in states]
    state = tuple(states) if len(states) == 2 else states[0] if states else None
    x = arrays["X"].astype(layer.dtype)
    output, final = layer(x, state, lengths=arrays.get("sequence_lens"))
    n = 2 if layer.bidirectional else 1
    y = output.reshape(*output.shape[:2], n, -1)
    finals = final if isinstance(final, tuple) else (final,)
    found = {"Y": y if layout else y.swapaxes(1, 2)}
    for name, a in zip(("Y_h", "Y_c"), finals, strict=False):
        found[name] = a.swapaxes(0, 1) if layout else a
    return found


def expected(case: Case, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX says that the node computes, in float64."""
    n, (T, B, _, H) = case.directions, case[-4:]
    wide = {k: a.astype(np.float64) for k, a in arrays.items() if k != "sequence_lens"}
    if case.layout:
        wide |= {k: wide[k].swapaxes(0, 1) for k in ("X", *STATES) if k in wide}
    lengths = arrays.get("sequence_lens", np.full(B, T))
    Y, finals = np.zeros((T, n, B, H)), np.zeros((2, n, B, H))
    for d in range(n):
        for b in range(B):
            state = [wide[k][d, b] if k in wide else np.zeros(H) for k in STATES]
            steps = list(range(int(lengths[b])))
            for t in steps[::-1] if case.direction == "reverse" or d else steps:
                state = _step(case, {k: wide[k][d] for k in WEIGHTS if k in wide},
                              wide["X"][t, b], *state)  # fmt: skip
                Y[t, d, b] = state[0]
            finals[:, d, b] = state
    found = {"Y": Y, "Y_h": finals[0]} | ({"Y_c": finals[1]} if case.operator == "LSTM" else {})
    if case.layout:
        return {
            "Y": Y.transpose(2, 0, 1, 3),
            **{k: found[k].swapaxes(0, 1) for k in found if k != "Y"},
        }
    return found


def _step(case: Case, w: Mapping[str, Array], x: Array, h: Array, c: Array) -> list[Array]:
    G, H = GATES[case.operator], case.H
    W, R = w["W"].reshape(G, H, -1), w["R"].reshape(G, H, H)
    Wb, Rb = w.get("B", np.zeros(2 * G * H)).reshape(2, G, H)
    f = ACTIVATIONS["sigmoid"][2]

    def whole(gate: int) -> Array:
        return np.asarray(W[gate] @ x + R[gate] @ h + Wb[gate] + Rb[gate])

    if case.operator == "RNN":
        return [ACTIVATIONS[case.nonlinearity][2](whole(0)), c]
    if case.operator == "LSTM":  # i, o, f, c
        p_i, p_o, p_f = w.get("P", np.zeros(3 * H)).reshape(3, H)
        i, forget = f(whole(0) + p_i * c), f(whole(2) + p_f * c)
        c = forget * c + i * np.tanh(whole(3))
        return [f(whole(1) + p_o * c) * np.tanh(c), c]
    z, r = f(whole(0)), f(whole(1))  # z, r, h
    if case.reset_after:
        n = np.tanh(W[2] @ x + r * (R[2] @ h + Rb[2]) + Wb[2])
    else:
        n = np.tanh(W[2] @ x + R[2] @ (r * h) + Rb[2] + Wb[2])
    return [(1 - z) * n + z * h, c]


def check(got: Mapping[str, Array], want: Mapping[str, Array], dtype: Any) -> None:
    """That two runs, the first in `dtype`, differ by no more than roundings."""
    assert got.keys() == want.keys()
    for name, a in want.items():
        assert got[name].dtype == dtype
        assert got[name].shape == a.shape
        np.testing.assert_allclose(got[name], a, rtol=0, atol=CLOSE[np.dtype(dtype)], err_msg=name)
