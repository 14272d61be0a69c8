"""ONNX models: their recurrent nodes, dense products and embeddings become layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

import numpy as np

from .. import _checks, _cures
from ..layers import Weighted
from ._layers import (
    ORDERS,
    Entry,
    check_skip,
    described,
    make_layer,
    refuse,
    reorder,
    several,
    shown,
    widened,
)
from .onnx_cells import ACTIVATIONS, DEFAULTS, DIRECTIONS, OPERATORS
from .onnx_graph import Graph, Kind
from .onnx_operators import Node
from .onnx_tensors import bodies_of, load, nodes_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_TYPES = ("float16", "bfloat16", "float32", "float64")
_FLOAT_TYPES = (1, 10, 11, 16)  # of TensorProto: float32, float16, float64, bfloat16
_STATES = ("initial_h", "initial_c")
_PASSED = ("sequence_lens", *_STATES)  # what a layer is called with


@overload
def from_onnx(
    source: Any,
    name: None = None,
    *,
    batch_first: bool | None = None,
    skip: Collection[str] = (),
) -> dict[str, Weighted]: ...
@overload
def from_onnx(
    source: Any, name: str, *, batch_first: bool | None = None, skip: Collection[str] = ()
) -> Weighted: ...
def from_onnx(
    source: Any,
    name: str | None = None,
    *,
    batch_first: bool | None = None,
    skip: Collection[str] = (),
) -> dict[str, Weighted] | Weighted:
    """Make layers of the nodes of an ONNX model.

    RNN, LSTM and GRU nodes become layers of that name; Gemm and MatMul with constant weights, and
    an Add of a constant behind, become Linear; Gather from a constant matrix becomes Embedding. The
    dict holds the layers, not how they are joined: nodes that slice, turn, reverse, reshape and
    concatenate what is computed are left to the caller. A node that computes and is no layer is an
    error, unless `skip` names it.

    Parameters
    ----------
    source : path, onnx.ModelProto or bytes
        The model: a file, which may have external data beside it, or what it holds.
    name : str, optional
        Of the one node to convert; nothing else has to be convertible then.
    batch_first : bool, optional
        Of the layers. None: as each node's attribute `layout` says, so mostly False.
    skip : collection of str
        Names of nodes that the caller computes himself, which are left out; and "NODE/initial_h",
        "NODE/initial_c" or "NODE/sequence_lens" for a constant that he passes to the layer of NODE.
        With `name`, only these of it.

    Returns
    -------
    dict of str to layer, or a layer
        By the names of the nodes, in the order of their use; with `name`, the layer of that node. A
        node without a name is called by its operator and its number, "LSTM_3". A stack is a node
        for each layer.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If the model is damaged, holds no recurrent node, or holds what cannot be converted: the
        error names each such node, and why.
    OSError
        If the file cannot be read.
    ImportError
        If the onnx package is missing. Layers that were converted run without it.

    Notes
    -----
    Initial states and sequence_lens that are computed while the model runs, or are its inputs, are
    what the layer is called with, ``layer(x, state, lengths=...)``; the state has the shape of
    initial_h with layout 0. Weights of float16 and bfloat16 are widened to float32.

    The models are those of operator sets from 7 on. A layer has one nonlinearity for all
    directions: Tanh, Relu, Sigmoid, Affine with alpha 1 and beta 0, HardSigmoid with alpha 1/6 and
    beta 1/2 of an RNN, the defaults of LSTM and GRU. `clip`, `input_forget` and other activations
    are refused, so are nodes inside of Loop, Scan and If.

    Examples
    --------
    >>> import numpy as np, fastrnn.convert
    >>> from onnx import helper, numpy_helper
    >>> weights = {"W": np.zeros((1, 12, 3), "f4"), "R": np.zeros((1, 12, 4), "f4")}
    >>> node = helper.make_node("GRU", ["x", "W", "R"], ["y"], name="encoder", hidden_size=4)
    >>> x = helper.make_tensor_value_info("x", 1, ["T", "B", 3])
    >>> tensors = [numpy_helper.from_array(a, name) for name, a in weights.items()]
    >>> model = helper.make_model(helper.make_graph([node], "g", [x], [], tensors))
    >>> fastrnn.convert.from_onnx(model)
    {'encoder': GRU(3, 4, bias=False, reset_after=False)}
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name is {_cures.kind(name)}, expected a str or None")
    if batch_first is not None:
        batch_first = _checks.flag("batch_first", batch_first)
    reader = _Reader(Graph(load(source)), skip, name)
    if name is None:
        reader.check_recurrent()
        found = [part for part in reader.parts() if part.node.name not in reader.skip]
    else:
        found = [reader.only(name)]
    layers: dict[str, Weighted] = {}
    faults: dict[str, str] = {}
    for part in found:
        faults |= {key: f"{part.node.operator}: {why}" for key, why in part.faults.items()}
        if not part.faults:
            try:
                layers[part.node.name] = part.layer(batch_first)
            except (TypeError, ValueError) as error:
                faults[part.node.name] = str(error)
    skippable = [key for key in faults if key != name]
    refuse(reader.graph.said, faults, skippable, left_out=reader.skip)
    return layers if name is None else layers[name]


def contents(source: Any) -> list[Entry]:
    """What a model holds: all nodes that compute, and what would be made of them."""
    entries = []
    for part in _Reader(Graph(load(source)), ()).parts():
        becomes, why = "", "; ".join(part.faults.values())
        if not why:
            try:
                becomes = repr(part.layer(None))
            except (TypeError, ValueError) as error:
                why = str(error)
        entries.append(
            Entry(part.node.name, part.node.operator, becomes, why, described(part.arrays))
        )
    return entries


class _Part(NamedTuple):
    """A node that computes: what its layer is to be made of, or why there is none."""

    node: Node
    kind: str  # of layer
    arrays: dict[str, Array]  # as the node has them
    weights: dict[str, Array]  # as the layer has them
    options: dict[str, Any]
    faults: dict[str, str]  # by what `skip` would have to name

    @classmethod
    def refused(cls, node: Node, why: str, arrays: dict[str, Array] | None = None) -> Self:
        return cls(node, "", arrays or {}, {}, {}, {node.name: why})

    def layer(self, batch_first: bool | None) -> Weighted:
        """The layer; TypeError or ValueError where its weights are at fault."""
        options = dict(self.options)
        if "batch_first" in options and batch_first is not None:
            options["batch_first"] = batch_first
        return make_layer(self.kind, self.weights, self.node.operator, **options)


class _Reader:
    """Walks a graph in the order of use and says what becomes of each node that computes."""

    def __init__(self, graph: Graph, skip: Collection[str], name: str | None = None) -> None:
        self.graph = graph
        valid = []
        for node in graph.nodes:
            if self._computes(node):
                valid.append(node.name)
            if node.operator in OPERATORS:
                given = OPERATORS[node.operator].given(node.inputs)
                valid += [f"{node.name}/{what}" for what in _PASSED if what in given]
        self.skip = check_skip(skip, valid)
        # What the caller passes to the one layer is no other node that is left out.
        own = {f"{name}/{what}" for what in _PASSED}
        check_skip(sorted(self.skip - own), valid, name)
        self._absorbed: set[str] = set()  # names of nodes that are part of the layer before

    def _computes(self, node: Node) -> bool:
        """Whether a node may do more than hand on data, or reckon with sizes and lengths."""
        kind = self.graph.kind
        if node.operator in OPERATORS:
            return True
        if all(kind(value) is not Kind.DATA for value in node.outputs):
            # An embedding of positions, or of lengths, reads from constants and these.
            table, *picks = [kind(value) for value in node.inputs] or [None]
            picked = table is Kind.CONSTANT and picks in ([Kind.SIZES], [Kind.LENGTHS])
            return node.operator == "Gather" and picked and self._is_table(node.input(0))
        if node.operator == "Dropout" and (training := node.input(2)):
            return not self.graph.is_zero(training)
        if node.operator == "Cast" and node.attributes(to="INT").get("to") not in _FLOAT_TYPES:
            return not self._picks(node)
        # What hands on constants, at a place that is computed, or beside data, adds them to these.
        moved = self.graph.moved(node)
        return not moved or any(kind(value) is not Kind.DATA for value in moved)

    def _picks(self, node: Node) -> bool:
        """Whether what a node makes is evidently used to pick rows, and as lengths, alone."""
        values, seen = list(node.outputs), 0
        while values:
            value = values.pop()
            if value in self.graph.outputs:
                return False
            for user in self.graph.users.get(value, []):
                seen += 1
                if seen > 64:
                    return False
                if user.operator in OPERATORS:
                    given = OPERATORS[user.operator].given(user.inputs)
                    if [what for what, name in given.items() if name == value] != ["sequence_lens"]:
                        return False
                elif value in self.graph.moved(user):
                    values += user.outputs
                elif user.operator not in ("Gather", "Shape", "Size"):
                    return False
        return True

    def _is_table(self, name: str) -> bool:
        """Whether a constant may be what an embedding picks from, or cannot be read."""
        try:
            value = self.graph.value(name)
        except ValueError:
            return True
        return value.ndim == 2 and str(value.dtype) in _TYPES

    def parts(self) -> Iterator[_Part]:
        """Every node that computes, but for what another one's layer does."""
        for node in self.graph.nodes:
            if self._computes(node) and node.name not in self._absorbed:
                if node.name in self.skip:
                    continue
                yield self._part(node)

    def only(self, name: str) -> _Part:
        """The part of this name."""
        node = next((n for n in self.graph.nodes if n.name == name), None)
        if node is not None and self._computes(node):
            return self._part(node)
        layers = [part.node.name for part in self.parts() if not part.faults]
        raise ValueError(
            f"{self.graph.said} has no layer {shown(name)}: its layers are "
            f"{several(map(shown, layers)) or 'none'}"
        )

    def check_recurrent(self) -> None:
        """Raise ValueError where there is no recurrent node at all."""
        loops = []
        for node in self.graph.nodes:
            # One that is refused is named, with the others.
            if re.search("RNN|LSTM|GRU", node.operator) or _recurrent_in(node):
                return
            if bodies_of(node.proto):
                loops.append(f"{shown(node.name)} ({node.operator})")
        text = f"{self.graph.said} has no RNN, LSTM or GRU node"
        if loops:
            text += f"; a recurrence may be written out in the body of {several(loops, 5)}"
        layers = [part.node.name for part in self.parts() if not part.faults]
        if layers:
            text += f"; for one of its other layers, pass name={layers[0]!r}"
            text += f", or {several(map(repr, layers[1:]), 8)}" if layers[1:] else ""
        raise ValueError(text)

    def _part(self, node: Node) -> _Part:
        try:
            if node.operator in OPERATORS:
                return self._recurrent(node)
            if node.operator in ("Gemm", "MatMul"):
                return self._linear(node)
            if node.operator == "Gather":
                return self._embedding(node)
        except ValueError as error:
            return _Part.refused(node, str(error))
        if bodies_of(node.proto):
            inside = _recurrent_in(node)
            holds = f", which holds {', '.join(inside)}" if inside else ""
            return _Part.refused(node, f"runs a body of its own{holds}")
        return _Part.refused(node, "computes, and is none of the layers here")

    # -------------------------------------------------------------------- recurrent nodes

    def _recurrent(self, node: Node) -> _Part:
        given = node.attributes(
            activation_alpha="FLOATS", activation_beta="FLOATS", activations="STRINGS",
            clip="FLOAT", direction="STRING", hidden_size="INT", input_forget="INT", layout="INT",
            linear_before_reset="INT",
        )  # fmt: skip
        kind, order = node.operator, OPERATORS[node.operator].order
        inputs = OPERATORS[kind].given(node.inputs)
        if not {"X", "W", "R"} <= inputs.keys():
            raise ValueError("lacks X, W or R")
        if len(node.inputs) > len(OPERATORS[kind].inputs):
            raise ValueError(f"has {len(node.inputs)} inputs")
        weighted = [what for what in inputs if what in ("W", "R", "B", "P")]
        arrays = {what: self.graph.value(inputs[what]) for what in weighted}
        faults: list[str] = []
        if (depends := self.graph.kinds[inputs["X"]]) is not Kind.DATA:
            faults.append(f"has an X that depends on {depends.value}, expected {Kind.DATA.value}")
        ends, options = _options(kind, given, faults)
        _check_shapes(kind, len(ends), arrays, given.get("hidden_size"), faults)
        if not faults:
            self._check_states(inputs, arrays["R"].shape, given.get("layout", 0), faults)
        if faults:
            return _Part.refused(node, ", ".join(faults), arrays)

        weights = {}
        for i, end in enumerate(ends):
            weights[f"weight_ih{end}"] = reorder(arrays["W"][i], order, ORDERS[kind])
            weights[f"weight_hh{end}"] = reorder(arrays["R"][i], order, ORDERS[kind])
            if "B" in arrays:
                of_x, of_h = np.split(arrays["B"][i], 2)
                weights[f"bias_ih{end}"] = reorder(of_x, order, ORDERS[kind])
                weights[f"bias_hh{end}"] = reorder(of_h, order, ORDERS[kind])
            if "P" in arrays:
                gates = (text.replace("g", "") for text in (order, ORDERS[kind]))
                weights[f"weight_peephole{end}"] = reorder(arrays["P"][i], *gates)
        fixed = self._fixed_inputs(node.name, inputs, given.get("layout", 0))
        return _Part(node, kind, arrays, weights, options, fixed)

    def _fixed_inputs(self, name: str, inputs: dict[str, str], layout: int) -> dict[str, str]:
        """What of the initial state and the lengths the model itself fixes, by name for `skip`."""
        faults = {}
        for what in _STATES:
            value = inputs.get(what, "")
            if self.graph.is_fixed(value) and not self.graph.is_zero(value):
                faults[f"{name}/{what}"] = (
                    f"starts from an {what} that the model fixes, and that is not evidently zero: "
                    "pass it to the layer as state"
                )
        lengths = inputs.get("sequence_lens", "")
        if self.graph.is_fixed(lengths) and not self._is_whole(lengths, inputs["X"], layout):
            faults[f"{name}/sequence_lens"] = (
                "has sequence_lens that the model fixes, and that are not evidently the number of "
                "steps: pass them to the layer as lengths"
            )
        return {key: why for key, why in faults.items() if key not in self.skip}

    def _check_states(
        self, inputs: dict[str, str], R: tuple[int, ...], layout: int, faults: list[str]
    ) -> None:
        """Say where the model gives an initial state a size that the weights do not have."""
        for what in _STATES:
            value = inputs.get(what, "")
            for axis, n in ((layout, R[0]), (2, R[2])) if value else ():
                size = self.graph.declared_size(value, axis)
                if size not in (None, n):
                    faults.append(f"has an {what} with {size} on axis {axis}, expected {n}")

    def _is_whole(self, lengths: str, x: str, axis: int) -> bool:
        """Whether constant sequence_lens are all of the steps that the model says X has."""
        if self.graph.kind(lengths) is not Kind.CONSTANT:
            return False
        steps = self.graph.declared_size(x, axis)
        return steps is not None and bool((self.graph.value(lengths) == steps).all())

    # -------------------------------------------------------------------- the others

    def _linear(self, node: Node) -> _Part:
        graph = self.graph
        given = node.attributes(alpha="FLOAT", beta="FLOAT", transA="INT", transB="INT")
        if node.operator == "MatMul" and given:
            raise ValueError(f"has the attributes {', '.join(given)}")
        if graph.kind(node.input(1)) is not Kind.CONSTANT:
            raise ValueError("is no product of what is computed with a constant matrix behind it")
        weight = graph.value(node.input(1))
        arrays = {"B": weight}
        if weight.ndim != 2 or str(weight.dtype) not in _TYPES or given.get("transA", 0):
            how = " with transA" if given.get("transA", 0) else ""
            raise ValueError(f"is a product with {weight.dtype} {weight.shape}{how}, no Linear")
        weight = _scaled(weight if given.get("transB", 0) else weight.T, given.get("alpha", 1.0))
        bias = None
        if node.operator == "Gemm" and node.input(2):
            arrays["C"] = graph.value(node.input(2))
            bias = _bias(arrays["C"], weight)
            if bias is None:
                C = arrays["C"]
                raise ValueError(f"adds C of {C.dtype} {C.shape}, no bias")
            bias = _scaled(bias, given.get("beta", 1.0))
        else:
            bias = self._bias_behind(node, weight)
            arrays |= {} if bias is None else {"bias": bias}
        weights = {"weight": weight} | ({} if bias is None else {"bias": bias})
        return _Part(node, "Linear", arrays, weights, {}, {})

    def _bias_behind(self, node: Node, weight: Array) -> Array | None:
        """The constant that an Add behind a product adds, if nothing else reads the product."""
        graph = self.graph
        value = node.outputs[0]
        while True:
            users = graph.users.get(value, [])
            if len(users) != 1 or value in graph.outputs or users[0].name in self.skip:
                return None
            user = users[0]
            if user.operator == "Identity":
                value = user.outputs[0]
                continue
            # tf2onnx writes a product of two axes and restores the others before it adds.
            if user.operator == "Reshape" and user.input(0) == value:
                if not self._keeps_last(user, len(weight)):
                    return None
                value = user.outputs[0]
                continue
            others = [name for name in user.inputs if name != value]
            if user.operator != "Add" or len(others) != 1 or len(user.inputs) != 2:
                return None
            if graph.kind(others[0]) is not Kind.CONSTANT:
                return None
            bias = _bias(graph.value(others[0]), weight)
            if bias is not None:
                self._absorbed.add(user.name)
            return bias

    def _keeps_last(self, node: Node, size: int) -> bool:
        """Whether a Reshape evidently leaves the last axis with this size."""
        name = node.input(1)
        for _ in range(8):
            if self.graph.kind(name) is Kind.CONSTANT:
                sizes = self.graph.value(name)
                return bool(sizes.ndim == 1 and sizes.size and sizes[-1] == size)
            made = self.graph.producer(name)
            if made is None or made.operator not in ("Cast", "Identity", "Concat"):
                return False
            name = made.inputs[-1]
        return False

    def _embedding(self, node: Node) -> _Part:
        table = self.graph.value(node.input(0))
        axis = node.attributes(axis="INT").get("axis", 0)
        if table.ndim != 2 or str(table.dtype) not in _TYPES or axis not in (0, -2):
            raise ValueError(f"picks from {table.dtype} {table.shape} on axis {axis}, no Embedding")
        return _Part(node, "Embedding", {"data": table}, {"weight": table}, {}, {})


def _recurrent_in(node: Node) -> list[str]:
    """The recurrent operators in the bodies of a node, however deep."""
    inner = {proto.op_type for proto in nodes_within(bodies_of(node.proto))}
    return sorted(inner & OPERATORS.keys())


def _scaled(array: Array, factor: float) -> Array:
    """A weight times alpha or beta."""
    if factor == 1:
        return array
    wide = widened("a product", {"weight": array})["weight"]
    made: Array = wide * wide.dtype.type(factor)
    return made


def _bias(array: Array, weight: Array) -> Array | None:
    """A constant that is added to every row of a product, as (O,); None where it is none."""
    n = len(weight)
    if array.size not in (1, n) or (array.ndim and array.shape[-1] != array.size):
        return None
    if str(array.dtype) not in _TYPES:
        return None
    return np.broadcast_to(array.reshape(-1), (n,))


def _options(
    kind: str, given: dict[str, Any], faults: list[str]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The ends of the weights' names, one for each direction, and the options of the layer."""
    for name in ("input_forget", "linear_before_reset"):
        if name in given and name != OPERATORS[kind].attribute:
            faults.append(f"has the attribute {name}, which is not its own")
    if "clip" in given:
        faults.append(f"clips at {given['clip']:g}")
    if given.get("input_forget", 0):
        faults.append("couples its input and forget gates (input_forget)")
    for name in ("layout", "linear_before_reset"):
        if given.get(name, 0) not in (0, 1):
            faults.append(f"has the {name} {given[name]}")
    direction = given.get("direction", "forward")
    ends = tuple(f"_l0{end}" for end in DIRECTIONS.get(direction, ()))
    if not ends:
        faults.append(f"has the direction {shown(direction)}")
    options: dict[str, Any] = {"batch_first": given.get("layout", 0) == 1}
    if kind == "GRU":
        options["reset_after"] = given.get("linear_before_reset", 0) == 1
    nonlinearity = _nonlinearity(kind, len(ends) or 1, given, faults)
    if kind == "RNN":
        options["nonlinearity"] = nonlinearity
    return ends, options


def _nonlinearity(kind: str, directions: int, given: dict[str, Any], faults: list[str]) -> str:
    """Our name of a node's activation, "" for the gates of LSTM and GRU."""
    own = OPERATORS[kind].activations
    names = given.get("activations", own * directions)
    # The schema's own default of an RNN has two, whatever the direction.
    expected = {len(own) * directions, 2 if kind == "RNN" else 0}
    if len(names) not in expected or any(
        n.lower() != names[i % len(own)].lower() for i, n in enumerate(names)
    ):
        faults.append(
            f"has the activations {several(map(shown, names), 9)}, "
            "not one and the same for each direction"
        )
        return ""
    if kind != "RNN":
        if [n.lower() for n in names[: len(own)]] != [n.lower() for n in own]:
            found, usual = (several(map(shown, some), 9) for some in (names, own))
            faults.append(f"has the activations {found}, not {usual}")
        return ""
    for ours, (operator, alpha, beta) in ACTIVATIONS.items():
        if names[0].lower() != operator.lower():
            continue
        if alpha is None or beta is None:  # then nothing reads the lists
            return ours
        for i, (what, want) in enumerate((("alpha", alpha), ("beta", beta))):
            values = given.get(f"activation_{what}", [])
            if len(values) > directions:
                faults.append(f"has {len(values)} of activation_{what}")
            values = [*values, *[DEFAULTS[operator][i]] * directions][:directions]
            wrong = [v for v in values if np.float32(v) != np.float32(want)]
            if wrong:
                faults.append(
                    f"has the activation {operator} with {what} {wrong[0]:.6g}, not {want:.6g}"
                )
        return ours
    faults.append(f"has the activation {shown(names[0])}")
    return ""


def _check_shapes(
    kind: str, directions: int, arrays: dict[str, Array], hidden: int | None, faults: list[str]
) -> None:
    """Say what is wrong with the shapes and types of W, R, B, P."""
    gates, R = len(OPERATORS[kind].order), arrays["R"]
    H = R.shape[-1] if R.ndim == 3 else 0
    D = arrays["W"].shape[-1] if arrays["W"].ndim == 3 else 0
    n = directions or len(R)
    shapes = {
        "W": (n, gates * H, D),
        "R": (n, gates * H, H),
        "B": (n, 2 * gates * H),
        "P": (n, 3 * H),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name] or 0 in array.shape:
            of = f"{n} direction{'s' * (n != 1)} of {H} units and {D} features"
            faults.append(
                f"has {name} of the shape {array.shape}, expected {shapes[name]} for {of}"
            )
    types = {str(array.dtype) for array in arrays.values()}
    if len(types) != 1 or not types <= set(_TYPES):
        faults.append(f"has weights of {', '.join(sorted(types))}")
    if hidden is not None and hidden != H:
        faults.append(f"has hidden_size={hidden}, but weights of {H} units")
