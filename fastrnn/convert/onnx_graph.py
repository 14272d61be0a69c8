"""The graph of an ONNX model: its nodes, what of it is constant, and the constants' values.

Weights arrive behind chains of nodes that slice, join and turn them: `value` evaluates these. A
chain may be long and a value may have many users, so nothing here recurses, each value is made
once, and what is made in all is in proportion to the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layers import shown
from .onnx_cells import OPERATORS
from .onnx_operators import EVALUATED, Call, Node, fill
from .onnx_tensors import Model, array_of, bodies_of, text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Kind(Enum):
    """What the values of a graph depend on."""

    CONSTANT = "nothing"  # and evaluated
    SIZES = "the sizes of what is computed, and constants"
    LENGTHS = "the lengths of rows, sizes and constants"
    DATA = "the inputs"


# These draw numbers, with or without inputs.
_RANDOM = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial",
    "Bernoulli",
}  # fmt: skip

# These hand on what they are given, elsewhere or in another shape.
_MOVES = {
    "Cast", "CastLike", "Compress", "Concat", "Dropout", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Identity", "Reshape", "ReverseSequence", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


class Graph:
    """A graph whose nodes come in the order of their use.

    Attributes
    ----------
    said : str
        What to call the model.
    nodes : list of Node
        Each with a name of its own: what has none is called by its operator and a number.
    kinds : dict of str to Kind
        By the names of values.
    outputs : set of str
    """

    def __init__(self, model: Model) -> None:
        self.said = model.said
        self._model = model
        try:
            self._read(model.proto.graph)
        except ValueError as error:
            raise ValueError(f"{model.said}: {error}") from None
        self._values: dict[str, Array] = {}
        self._failed: dict[str, str] = {}
        self._zero: dict[str, bool] = {}

    def _read(self, graph: Any) -> None:
        self.nodes: list[Node] = []
        self.kinds: dict[str, Kind] = {}
        self.outputs = {o.name for o in graph.output}
        self._producers: dict[str, Node] = {}
        self._tensors: dict[str, Any] = {}
        self._shapes = {v.name: v for v in (*graph.value_info, *graph.input)}
        nodes = _named(graph.node)
        lengths = {
            OPERATORS[node.operator].given(node.inputs).get("sequence_lens")
            for node in nodes
            if node.operator in OPERATORS
        }
        for name in (v.name for v in graph.input):
            self._define(name, Kind.LENGTHS if name in lengths else Kind.DATA)
        # An input that is an initialiser as well is one with a default, as all of them once were.
        for name in {t.name for t in graph.initializer} & set(self.kinds):
            del self.kinds[name]
        for tensor in graph.initializer:
            self._define(tensor.name, Kind.CONSTANT)
            self._tensors[tensor.name] = tensor
        for sparse in graph.sparse_initializer:
            self._define(sparse.values.name, Kind.SIZES)  # known, but not evaluated
        for node in nodes:
            for value in node.inputs:
                if value and value not in self.kinds:
                    raise ValueError(
                        f"node {shown(node.name)} reads {shown(value)}, which nothing before it "
                        "makes"
                    )
            kind = self._kind_of(node)
            for value in node.outputs:
                if value:
                    self._define(value, kind)
                    self._producers[value] = node
            self.nodes.append(node)

    def _define(self, name: str, kind: Kind) -> None:
        if text_of(name) in self.kinds:
            raise ValueError(f"{shown(name)} is made twice")
        self.kinds[name] = kind

    def _kind_of(self, node: Node) -> Kind:
        given = {self.kinds[name] for name in node.inputs if name}
        operator = node.operator
        if "." in operator or operator in _RANDOM or bodies_of(node.proto):
            return Kind.DATA
        if operator in EVALUATED and given <= {Kind.CONSTANT}:
            return Kind.CONSTANT
        if operator in ("Shape", "Size") or given <= {Kind.CONSTANT, Kind.SIZES}:
            return Kind.SIZES
        return Kind.DATA if Kind.DATA in given else Kind.LENGTHS

    def kind(self, name: str) -> Kind | None:
        """The kind of a value, None where the name is "", which stands for none."""
        return self.kinds.get(name) if name else None

    def producer(self, name: str) -> Node | None:
        """The node that makes a value."""
        return self._producers.get(name)

    def is_fixed(self, name: str) -> bool:
        """Whether a value is the same for all inputs of the same sizes."""
        return self.kind(name) in (Kind.CONSTANT, Kind.SIZES)

    def moved(self, node: Node) -> list[str]:
        """Of what a node reads, the values that it hands on; none if it may make others."""
        if node.operator not in _MOVES:
            return []
        if node.operator == "Where":  # what chooses by the values of data computes
            return [] if self.kind(node.input(0)) is Kind.DATA else node.inputs[1:]
        return node.inputs if node.operator == "Concat" else node.inputs[:1]

    @cached_property
    def users(self) -> dict[str, list[Node]]:
        """By the names of values, the nodes that read them."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in set(node.inputs):
                found.setdefault(value, []).append(node)
        return found

    def declared_size(self, name: str, axis: int) -> int | None:
        """The size of an axis where the file says it, of this value or of what it is a turn of."""
        for _ in range(16):
            if self.kinds.get(name) is Kind.CONSTANT:
                shape = self.value(name).shape
                return shape[axis] if axis < len(shape) else None
            if name in self._shapes:
                dims = self._shapes[name].type.tensor_type.shape.dim
                if 0 <= axis < len(dims) and dims[axis].HasField("dim_value"):
                    return int(dims[axis].dim_value)
            node = self._producers.get(name)
            if node is None or node.operator not in ("Transpose", "Identity"):
                return None
            if node.operator == "Transpose":
                perm = node.attributes(perm="INTS").get("perm", [])
                if not 0 <= axis < len(perm):
                    return None
                axis = perm[axis]
            name = node.input(0)
        return None

    # -------------------------------------------------------------------- values

    def value(self, name: str) -> Array:
        """The value of a constant; ValueError, with the node that is in the way, if there is none.

        It is read-only.
        """
        stack, open_ = [name], {name}
        try:
            while stack:
                top = stack[-1]
                if top in self._values:
                    open_.discard(stack.pop())
                elif top in self._failed:
                    raise ValueError(self._failed[top])
                elif top in self._tensors:
                    self._keep(top, self._tensor(top))
                elif waiting := [n for n in self._needs(top) if n not in self._values]:
                    open_.add(top)
                    stack += waiting
                else:
                    node = self._producers[top]
                    for output, made in zip(node.outputs, self._evaluated(node), strict=True):
                        if output:
                            self._keep(output, made)
        except ValueError as error:
            self._failed |= dict.fromkeys({*open_, top}, str(error))
            raise
        return self._values[name]

    def _needs(self, name: str) -> list[str]:
        """What a constant is made of."""
        node = self._producers.get(name)
        if node is not None and self.kinds[name] is Kind.CONSTANT:
            return [value for value in node.inputs if value]
        if node is None:
            raise ValueError(
                f"{shown(name)} is an input of the graph, or sparse, expected a constant"
            )
        what = f"{shown(name)} is what node {shown(node.name)} ({node.operator}) makes"
        if self.kinds[name] is Kind.DATA:
            raise ValueError(f"{what} of the graph's inputs, expected a constant")
        raise ValueError(f"{what}, which is not evaluated here")

    def _keep(self, name: str, value: Array) -> None:
        value = value.view()
        value.flags.writeable = False
        self._values[name] = value

    def _tensor(self, name: str) -> Array:
        try:
            return array_of(self._tensors[name], self._model)
        except ValueError as error:
            raise ValueError(f"tensor {shown(name)}: {error}") from None

    def _evaluated(self, node: Node) -> Sequence[Array]:
        inputs = [self._values[n] if n else None for n in node.inputs]
        try:
            made = EVALUATED[node.operator](Call(node, inputs, self._model))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Whatever NumPy says of arguments that do not fit: the node is at fault.
            text = str(error) or type(error).__name__
            raise ValueError(f"node {shown(node.name)} ({node.operator}): {text}") from None
        if len(made) != len(node.outputs):
            text = f"it has {len(node.outputs)} outputs, expected {len(made)}"
            raise ValueError(f"node {shown(node.name)} ({node.operator}): {text}")
        return made

    def is_zero(self, name: str) -> bool:
        """Whether a value is evidently zero everywhere, whatever its shape."""
        stack, known = [name], self._zero
        while stack:
            top = stack[-1]
            node = self._producers.get(top)
            if top in known:
                stack.pop()
            elif node is None or self.kinds[top] is Kind.CONSTANT:
                known[top] = self.kinds[top] is Kind.CONSTANT and _is_zero(partial(self.value, top))
            elif self.kinds[top] is Kind.SIZES and node.operator == "ConstantOfShape":
                known[top] = _is_zero(partial(fill, Call(node, [], self._model)))
            elif self.kinds[top] is Kind.SIZES:
                of = self.moved(node)
                if not of or "" in of:
                    known[top] = False
                elif waiting := [n for n in of if n not in known]:
                    stack += waiting
                else:
                    known[top] = all(known[n] for n in of)
            else:
                known[top] = False
        return known[name]


def _named(protos: Sequence[Any]) -> list[Node]:
    """The nodes, each with a name of its own."""
    taken, used, nodes = {proto.name for proto in protos}, {""}, []
    for i, proto in enumerate(protos):
        name = text_of(proto.name)
        if name in used:  # none, or another node's
            name = f"{name or proto.op_type}_{i}"
            while name in taken or name in used:
                name += "_"
        used.add(name)
        nodes.append(Node(proto, name))
    return nodes


def _is_zero(value: Callable[[], Array]) -> bool:
    try:
        return not value().astype(np.float64).any()
    except ValueError:  # it is not evident
        return False
