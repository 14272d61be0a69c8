"""A layer as an ONNX model: one node a layer of the stack, with what turns axes between them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks
from .._version import __version__
from ..io import path_text, replace_file
from ..layers import LAYERS, Embedding, Linear, Recurrent, Weighted
from ..layers.frozen import Frozen, plain_of
from ._layers import ORDERS, check_single, reorder
from .onnx_cells import ACTIVATIONS, DIRECTIONS, OPERATORS
from .onnx_tensors import import_onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# The operators with `layout`, which onnxruntime refuses and OpenVINO ignores: it stays 0. Newer
# sets add bfloat16. The file version is the one that came with this set, of 2021.
OPSET, IR_VERSION = 14, 7
MAX_BYTES = 2**31 - 1  # of a protobuf message


def to_onnx(
    layer: Weighted | Frozen,
    path: str | os.PathLike[str],
    *,
    lengths: bool = False,
    state: bool = False,
) -> None:
    """Write a layer as an ONNX model, which onnxruntime runs to the same numbers.

    It needs the package onnx: ``pip install "fastrnn[onnx]"``.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, Linear or Embedding
        What is written, also a frozen one. Dropout has no place in a model that is only run.
    path : str or os.PathLike
        The file, all of it or nothing; an existing one is replaced as by `fastrnn.save`.
    lengths : bool
        Whether the model has an input "lengths", (B,) of int32: how many steps of each row count.
    state : bool
        Whether the model has the initial state as inputs "h_0" and, of an LSTM, "c_0", as the layer
        takes them: (layers·directions, B, H). Without, it starts from zeros.

    Raises
    ------
    TypeError, ValueError
        If ONNX has nothing that computes what the layer does (a projection, a LeakyRNN, an
        input_size of None or 0), an argument does not fit, or the weights need more than the 2 GiB
        that a model of one file may have. Nothing has been written.
    ImportError
        If onnx is not installed.
    OSError
        If the file cannot be written.

    Notes
    -----
    T and B of the model are free, all else is fixed. The dtype is the layer's; onnxruntime has no
    recurrent operators of float64. Nodes are named as in "gru_l0", and their weights "gru_l0.W" and
    so on, with the gates in ONNX's order.

    =========  ===========================  =================================================
    layer      inputs                       outputs
    =========  ===========================  =================================================
    recurrent  x, lengths, h_0, c_0         output, h_n and, of an LSTM, c_n, as the layer's
    Linear     x (T, B, D)                  output (T, B, O)
    Embedding  indices (T, B), int64        output (T, B, D)
    =========  ===========================  =================================================

    With `batch_first`, x and output are (B, T, ...). In the model, indices below zero count from
    the end. A row of no steps keeps its initial state, as in the layer.

    Examples
    --------
    >>> import os, tempfile, onnx, fastrnn.convert
    >>> path = os.path.join(tempfile.mkdtemp(), "gru.onnx")
    >>> fastrnn.convert.to_onnx(fastrnn.GRU(3, 4, rng=0), path, lengths=True)
    >>> graph = onnx.load(path).graph
    >>> [i.name for i in graph.input], [o.name for o in graph.output], graph.node[0].name
    (['x', 'lengths'], ['output', 'h_n'], 'gru_l0')
    """
    lengths, state = _checks.flag("lengths", lengths), _checks.flag("state", state)
    plain = _checked(layer, lengths, state)
    where = path_text(path)
    _check_size(plain)
    model = _Model(import_onnx(), plain)
    if isinstance(plain, Recurrent):
        _write_stack(model, plain, lengths, state)
    elif isinstance(plain, Linear):
        _write_linear(model, plain)
    elif isinstance(plain, Embedding):
        _write_embedding(model, plain)
    replace_file(where, [model.serialized()])


# ------------------------------------------------------------------------------ refusals


def _checked(layer: Any, lengths: bool, state: bool) -> Weighted:
    """The layer, if it is a frozen one the plain one; an error unless ONNX has all of it."""
    items = layer.items() if isinstance(layer, Mapping) else ()
    names = [name for name, value in items if isinstance(value, Weighted | Frozen)]
    check_single(layer, f": pass layer[{names[0]!r}]" if names else "")
    layer = plain_of(layer)
    kind = type(layer).__name__
    faults = []
    if LAYERS.get(kind) is not type(layer):
        faults.append(f"what the class {type(layer).__qualname__} adds is not known")
    elif isinstance(layer, Recurrent):
        if kind not in OPERATORS:
            faults.append(f"there is no operator for {kind}")
        if layer.input_size is None:
            faults.append("input_size is None, and every operator multiplies x by weights")
        elif layer.input_size == 0:
            faults.append("input_size is 0, and onnxruntime ends the process at a GRU without x")
        if units := getattr(layer, "proj_size", 0):
            faults.append(f"proj_size is {units}, and the LSTM has no projection")
    else:
        for name, given in (("lengths", lengths), ("state", state)):
            if given:
                faults.append(f"{name} is True, but {kind} is no recurrent layer")
    if faults:
        raise ValueError(f"ONNX cannot express this {kind}: {'; '.join(faults)}")
    plain: Weighted = layer
    return plain


def _check_size(layer: Weighted) -> None:
    # A node of the stack, its names and those of its neighbours take less than 4 KiB.
    needed = layer.flat_weights.nbytes + 4096 * (getattr(layer, "num_layers", 1) + 1)
    if needed > MAX_BYTES:
        raise ValueError(
            f"the model has {needed} bytes, {layer.flat_weights.nbytes} of them weights, and an "
            f"ONNX file at most {MAX_BYTES}"
        )


# ------------------------------------------------------------------------------ models


class _Model:
    """A model that is being written."""

    def __init__(self, onnx: Any, layer: Weighted) -> None:
        self.helper, self.types = onnx.helper, onnx.TensorProto
        self.made = onnx.ModelProto(
            ir_version=IR_VERSION, producer_name="fastrnn", producer_version=__version__
        )
        self.made.opset_import.add(domain="", version=OPSET)
        self.graph = self.made.graph
        self.graph.name = type(layer).__name__.lower()
        self.real = self.helper.np_dtype_to_tensor_dtype(layer.dtype)

    def serialized(self) -> bytes:
        return bytes(self.made.SerializeToString())

    def input(self, name: str, sizes: list[str | int], kind: int | None = None) -> str:
        kind = self.real if kind is None else kind
        self.graph.input.append(self.helper.make_tensor_value_info(name, kind, sizes))
        return name

    def output(self, name: str, sizes: list[str | int]) -> str:
        self.graph.output.append(self.helper.make_tensor_value_info(name, self.real, sizes))
        return name

    def constant(self, name: str, a: Any) -> str:
        a = np.asarray(a)
        self.graph.initializer.add(
            name=name, data_type=self.helper.np_dtype_to_tensor_dtype(a.dtype), dims=a.shape,
            raw_data=a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes(),
        )  # fmt: skip
        return name

    def node(
        self, operator: str, name: str, inputs: list[str], outputs: list[str], **kw: Any
    ) -> None:
        while not inputs[-1]:  # optional ones at the end are left out
            inputs.pop()
        self.graph.node.append(self.helper.make_node(operator, inputs, outputs, name, **kw))


def _write_linear(model: _Model, layer: Linear) -> None:
    product = "output" if not layer.bias else "product"
    weight = model.constant("linear.weight", layer.weights["weight"].T)
    x = model.input("x", ["T", "B", layer.in_features])
    model.node("MatMul", "linear", [x, weight], [product])
    if layer.bias:
        bias = model.constant("linear.bias", layer.weights["bias"])
        model.node("Add", "linear_bias", [product, bias], ["output"])
    model.output("output", ["T", "B", layer.out_features])


def _write_embedding(model: _Model, layer: Embedding) -> None:
    weight = model.constant("embedding.weight", layer.weights["weight"])
    indices = model.input("indices", ["T", "B"], model.types.INT64)
    model.node("Gather", "embedding", [weight, indices], ["output"], axis=0)
    model.output("output", ["T", "B", layer.embedding_dim])


def _write_stack(model: _Model, layer: Recurrent[Any], lengths: bool, state: bool) -> None:
    kind, layers, last = type(layer).__name__, range(layer.num_layers), layer.num_layers - 1
    n, H = len(DIRECTIONS[_direction(layer)]), layer.hidden_size
    below = model.input("x", _sequence(layer, layer.input_size))
    steps = model.input("lengths", ["B"], model.types.INT32) if lengths else ""
    cells: list[str | int] = [n * layer.num_layers, "B", H]
    names = "hc" if kind == "LSTM" else "h"
    # The states of the whole stack are cut, and joined again, along their first axis.
    whole = {s: model.input(f"{s}_0", cells) if state else "" for s in names}
    initial = {s: [f"{s}_0_l{k}" if a and last else a for k in layers] for s, a in whole.items()}
    if last and state:
        parts = model.constant("directions", np.full(len(layers), n, np.int64))
        for s, cut in initial.items():
            model.node("Split", f"split_{s}_0", [whole[s], parts], cut, axis=0)
    if layer.batch_first:
        model.node("Transpose", "time_major", [below], ["x_time_major"], perm=[1, 0, 2])
        below = "x_time_major"
    # The output of a node is (T, n, B, H).
    sizes = model.constant("output_sizes", np.array([0, 0, n * H], np.int64))
    for k in layers:
        name = f"{kind.lower()}_l{k}"
        given = {"X": below, "sequence_lens": steps}
        given |= {w: model.constant(f"{name}.{w}", a) for w, a in _weights(layer, k).items()}
        given |= {f"initial_{s}": cut[k] for s, cut in initial.items()}
        outputs = [f"{name}.{made}" for made in ("output", *(f"{s}_n" for s in initial))]
        inputs = [given.get(what, "") for what in OPERATORS[kind].inputs]
        model.node(kind, name, inputs, outputs, **_attributes(layer))
        turned = [2, 0, 1, 3] if layer.batch_first and k == last else [0, 2, 1, 3]
        below = "output" if k == last else f"x_l{k + 1}"
        model.node("Transpose", f"turn_l{k}", [outputs[0]], [f"{name}.turned"], perm=turned)
        model.node("Reshape", f"join_l{k}", [f"{name}.turned", sizes], [below])
    model.output("output", _sequence(layer, n * H))
    # Runtimes differ in what becomes of a row of no steps: here it keeps its state.
    if lengths and state:
        zero = model.constant("no_steps", np.zeros(1, np.int32))
        axes = model.constant("row_axes", np.array([0, 2], np.int64))
        model.node("Equal", "is_empty", [steps, zero], ["empty"])
        model.node("Unsqueeze", "empty_rows", ["empty", axes], ["empty_rows"])
    for s, start in whole.items():
        made, name = [f"{kind.lower()}_l{k}.{s}_n" for k in layers], f"{s}_n"
        ran = f"{s}_ran" if lengths and state else name
        model.node("Concat", f"join_{s}_n", made, [ran], axis=0)
        if ran != name:
            model.node("Where", f"keep_{s}_0", ["empty_rows", start, ran], [name])
        model.output(name, cells)


def _sequence(layer: Recurrent[Any], features: int | None) -> list[Any]:
    return ["B", "T", features] if layer.batch_first else ["T", "B", features]


def _weights(layer: Recurrent[Any], k: int) -> dict[str, Array]:
    """W, R, and perhaps B and P of one node, directions first; gates in ONNX's order."""
    kind = type(layer).__name__

    def of(name: str, have: str, want: str) -> list[Array]:
        ends = DIRECTIONS[_direction(layer)]
        return [reorder(layer.weights[f"{name}_l{k}{end}"], have, want) for end in ends]

    gates = ORDERS[kind], OPERATORS[kind].order
    found = {"W": np.stack(of("weight_ih", *gates)), "R": np.stack(of("weight_hh", *gates))}
    if layer.bias:
        of_x = np.stack(of("bias_ih", *gates))
        single = layer.bias == "single"  # ONNX has both or none
        of_h = np.zeros_like(of_x) if single else np.stack(of("bias_hh", *gates))
        found["B"] = np.concatenate([of_x, of_h], 1)
    if getattr(layer, "peephole", False):
        found["P"] = np.stack(of("weight_peephole", *(text.replace("g", "") for text in gates)))
    return found


def _direction(layer: Recurrent[Any]) -> str:
    if layer.bidirectional:
        return "bidirectional"
    return "reverse" if layer.reverse else "forward"


def _attributes(layer: Recurrent[Any]) -> dict[str, Any]:
    direction = _direction(layer)
    n = len(DIRECTIONS[direction])
    found: dict[str, Any] = {"hidden_size": layer.hidden_size, "direction": direction}
    if hasattr(layer, "reset_after"):
        found["linear_before_reset"] = int(layer.reset_after)
    if hasattr(layer, "nonlinearity"):
        f = ACTIVATIONS[layer.nonlinearity]
        found["activations"] = [f.operator] * n
        if f.alpha is not None:
            found |= {"activation_alpha": [f.alpha] * n, "activation_beta": [f.beta] * n}
    return found
