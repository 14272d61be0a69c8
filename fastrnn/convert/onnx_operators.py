"""ONNX nodes, and the operators that are evaluated where all that they read is constant.

Slices, turns and the like are views. What is made anew is counted before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layers import shown
from .onnx_tensors import Budget, Model, array_of, dtype_of, text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# By AttributeProto.AttributeType: where the value is.
_ATTRIBUTES = {
    1: ("FLOAT", "f"), 2: ("INT", "i"), 3: ("STRING", "s"), 4: ("TENSOR", "t"), 5: ("GRAPH", "g"),
    6: ("FLOATS", "floats"), 7: ("INTS", "ints"), 8: ("STRINGS", "strings"),
    10: ("GRAPHS", "graphs"),
}  # fmt: skip


class Node:
    """A node: its operator, the names of what it reads and makes, its attributes."""

    __slots__ = ("inputs", "name", "operator", "outputs", "proto")

    def __init__(self, proto: Any, name: str) -> None:
        self.proto = proto
        self.name = name
        self.operator = text_of(proto.op_type)
        if text_of(proto.domain) not in ("", "ai.onnx"):
            self.operator = f"{proto.domain}.{proto.op_type}"
        self.inputs = [text_of(value) for value in proto.input]
        self.outputs = [text_of(value) for value in proto.output]

    def input(self, i: int) -> str:
        """The name of an input, "" where it is left out."""
        return self.inputs[i] if i < len(self.inputs) else ""

    def attributes(self, **kinds: str) -> dict[str, Any]:
        """The attributes that are given; ValueError unless they have these names and types."""
        found: dict[str, Any] = {}
        for a in self.proto.attribute:
            kind, field = _ATTRIBUTES.get(a.type, ("", ""))
            if a.name not in kinds:
                raise ValueError(f"it has the attribute {shown(a.name)}, which is not known")
            if a.name in found or a.ref_attr_name or kind != kinds[a.name]:
                raise ValueError(f"its attribute {a.name} is no single {kinds[a.name]}")
            value = getattr(a, field)
            if kind == "STRINGS":
                value = [text.decode(errors="replace") for text in value]
            elif kind == "STRING":
                value = value.decode(errors="replace")
            elif kind in ("INTS", "FLOATS"):
                value = list(value)
            found[a.name] = value
        return found


class Call:
    """A node and the values of its inputs, as the functions below take them."""

    def __init__(self, node: Node, inputs: list[Array | None], model: Model) -> None:
        self.node = node
        self.inputs = inputs
        self.model = model
        self.budget: Budget = model.budget

    def __getitem__(self, i: int) -> Array:
        """An input that has to be there."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise ValueError(f"it lacks its input {i}")
        return value

    def ints(self, i: int) -> list[int] | None:
        """An input of a few whole numbers; None where it is left out."""
        if i >= len(self.inputs) or self.inputs[i] is None:
            return None
        value = self[i]
        if value.dtype.kind not in "iu" or value.ndim > 1 or value.size > 1 << 16:
            raise ValueError(
                f"its input {i} is {value.dtype} {value.shape}, expected whole numbers"
            )
        return [int(n) for n in value.reshape(-1)]

    def both(self, name: str, i: int, **others: str) -> tuple[list[int] | None, dict[str, Any]]:
        """What was an attribute once, and is an input now; and the other attributes."""
        attributes = self.node.attributes(**{name: "INTS"}, **others)
        given = attributes.pop(name, None)
        return self.ints(i) if given is None else given, attributes


def _axis(axis: int, axes: int, what: str = "axis") -> int:
    """The axis, counted from the front."""
    if not -axes <= axis < axes:
        raise ValueError(f"its {what} is {axis}, for an array of {axes} axes")
    return axis % axes


def _identity(call: Call) -> list[Array]:
    call.node.attributes()
    return [call[0]]


def _constant(call: Call) -> list[Array]:
    given = call.node.attributes(
        value="TENSOR", value_float="FLOAT", value_floats="FLOATS", value_int="INT",
        value_ints="INTS",
    )  # fmt: skip
    if len(given) != 1:
        raise ValueError(f"it has {len(given)} values, expected one")
    ((name, value),) = given.items()
    if name == "value":
        return [array_of(value, call.model)]
    call.budget.take(np.shape(value), 8)
    return [np.array(value, np.float32 if "float" in name else np.int64)]


def fill(call: Call) -> Array:
    """What a ConstantOfShape is full of."""
    tensor = call.node.attributes(value="TENSOR").get("value")
    value = np.zeros(1, np.float32) if tensor is None else array_of(tensor, call.model)
    if value.size != 1:
        raise ValueError(f"its value has the shape {value.shape}, expected (1,)")
    return value.reshape(())


def _constant_of_shape(call: Call) -> list[Array]:
    value, shape = fill(call), tuple(call.ints(0) or ())
    call.budget.take(shape, value.itemsize)
    return [np.full(shape, value)]


def _cast(call: Call) -> list[Array]:
    given = call.node.attributes(to="INT", saturate="INT", round_mode="STRING")
    return [_converted(call, dtype_of(given.get("to", 0)))]


def _cast_like(call: Call) -> list[Array]:
    call.node.attributes(saturate="INT", round_mode="STRING")
    return [_converted(call, call[1].dtype)]


def _converted(call: Call, dtype: np.dtype[Any]) -> Array:
    if dtype == call[0].dtype:
        return call[0]
    call.budget.take(call[0].shape, dtype.itemsize)
    with np.errstate(all="ignore"):
        return call[0].astype(dtype)


def _reshape(call: Call) -> list[Array]:
    zero = call.node.attributes(allowzero="INT").get("allowzero", 0)
    shape = call.ints(1) or []
    if not zero:
        shape = [call[0].shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return [_shaped(call, shape)]


def _shaped(call: Call, shape: Sequence[int]) -> Array:
    made = call[0].reshape(tuple(shape))
    if not np.may_share_memory(made, call[0]):
        call.budget.take(made.shape, made.itemsize)
    return made


def _flatten(call: Call) -> list[Array]:
    x = call[0]
    axis = call.node.attributes(axis="INT").get("axis", 1)
    axis = axis if axis == x.ndim else _axis(axis, x.ndim)
    return [_shaped(call, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))]


def _transpose(call: Call) -> list[Array]:
    return [call[0].transpose(call.node.attributes(perm="INTS").get("perm"))]


def _squeeze(call: Call) -> list[Array]:
    axes, _ = call.both("axes", 1)
    return [call[0].squeeze(None if axes is None else tuple(axes))]


def _unsqueeze(call: Call) -> list[Array]:
    axes, _ = call.both("axes", 1)
    call.budget.take((1,) * (call[0].ndim + len(axes or ())), 0)
    return [np.expand_dims(call[0], tuple(axes or ()))]


def _concat(call: Call) -> list[Array]:
    given = call.node.attributes(axis="INT")
    arrays = [call[i] for i in range(len(call.inputs))]
    if len({a.dtype for a in arrays}) != 1 or "axis" not in given:
        raise ValueError("its inputs are of several types, or it has no axis")
    axis = _axis(given["axis"], arrays[0].ndim)
    sizes = list(arrays[0].shape)
    sizes[axis] = sum(a.shape[axis] if axis < a.ndim else 0 for a in arrays)
    call.budget.take(tuple(sizes), arrays[0].itemsize)
    return [np.concatenate(arrays, axis)]


def _slice(call: Call) -> list[Array]:
    x = call[0]
    given = call.node.attributes(starts="INTS", ends="INTS", axes="INTS")
    starts, ends, axes = (
        given.get(name, call.ints(i)) for i, name in enumerate(("starts", "ends", "axes"), 1)
    )
    if starts is None or ends is None:
        raise ValueError("it has no starts or no ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = call.ints(4) or [1] * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = _axis(axis, x.ndim)
        n = x.shape[axis]
        first, last = (0, n) if step > 0 else (-1, n - 1)  # what ends are clamped to
        start, end = (i + n if i < 0 else i for i in (start, end))
        end = min(max(end, first), last)
        index[axis] = slice(min(max(start, 0), last), end if end >= 0 else None, step)
    return [x[tuple(index)]]


def _split(call: Call) -> list[Array]:
    x, parts = call[0], len(call.node.outputs)
    sizes, given = call.both("split", 1, axis="INT", num_outputs="INT")
    axis = _axis(given.get("axis", 0), x.ndim)
    n = x.shape[axis]
    if sizes is None:
        if given.get("num_outputs", parts) != parts:
            raise ValueError(f"it has {parts} outputs, num_outputs is {given['num_outputs']}")
        if "num_outputs" not in given and n % parts:
            raise ValueError(f"{n} rows do not split into {parts} equal parts")
        each = -(-n // parts)
        sizes = [each] * (parts - 1) + [n - each * (parts - 1)]
    if len(sizes) != parts or sum(sizes) != n or min(sizes) < 0:
        raise ValueError(f"{n} rows do not split into parts of {sizes[:9]}")
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _gather(call: Call) -> list[Array]:
    x, indices = call[0], call[1]
    axis = _axis(call.node.attributes(axis="INT").get("axis", 0), x.ndim)
    call.budget.take((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.itemsize)
    return [np.take(x, indices, axis)]


def _expand(call: Call) -> list[Array]:
    call.node.attributes()
    shape = np.broadcast_shapes(call[0].shape, tuple(call.ints(1) or ()))
    call.budget.take(shape, call[0].itemsize)
    return [np.broadcast_to(call[0], shape)]


def _tile(call: Call) -> list[Array]:
    call.node.attributes()
    times = call.ints(1) or []
    call.budget.take(
        tuple(n * m for n, m in zip(call[0].shape, times, strict=True)), call[0].itemsize
    )
    return [np.tile(call[0], times)]


def _shape(call: Call) -> list[Array]:
    given = call.node.attributes(start="INT", end="INT")
    sizes = call[0].shape[given.get("start", 0) : given.get("end")]
    return [np.array(sizes, np.int64)]


def _size(call: Call) -> list[Array]:
    call.node.attributes()
    return [np.array(call[0].size, np.int64)]


def _range(call: Call) -> list[Array]:
    call.node.attributes()
    start, limit, delta = ((call.ints(i) or [0])[0] for i in range(3))
    numbers = range(start, limit, delta)
    call.budget.take((len(numbers),), 8)
    return [np.array(numbers, call[0].dtype)]


def _elementwise(function: Callable[[Array, Array], Array]) -> Callable[[Call], list[Array]]:
    def evaluate(call: Call) -> list[Array]:
        call.node.attributes()
        a, b = call[0], call[1]
        if a.dtype != b.dtype or len(call.inputs) != 2 or a.dtype == bool:
            raise ValueError(
                f"its inputs are {a.dtype} and {b.dtype}, expected two numbers of a type"
            )
        call.budget.take(np.broadcast_shapes(a.shape, b.shape), a.itemsize)
        with np.errstate(all="ignore"):
            return [function(a, b)]

    return evaluate


def _quotient(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":  # towards zero, and by zero in no way that is agreed on
        raise ValueError("a quotient of whole numbers")
    return a / b


def _dequantize(call: Call) -> list[Array]:
    """(x - zero_point) scale, one of each, or one for each index of an axis."""
    given = call.node.attributes(axis="INT", block_size="INT", output_dtype="INT")
    x, scale = call[0], call[1]
    if given.get("block_size", 0) or given.get("output_dtype", 0) or scale.ndim > 1:
        raise ValueError("it has blocks, or a type of its own")
    if x.dtype.kind not in "iu" or scale.dtype.kind != "f" or x.itemsize > 4:
        raise ValueError(f"it makes numbers of {x.dtype} and {scale.dtype}")
    zero = call[2] if len(call.inputs) > 2 and call.inputs[2] is not None else np.zeros_like(scale)
    if zero.shape != scale.shape:
        raise ValueError(f"its zero point has the shape {zero.shape}, its scale {scale.shape}")
    call.budget.take(x.shape, 16)
    if scale.size == 1:
        scale, zero = scale.reshape(()), zero.reshape(())
    if scale.ndim:
        behind = (1,) * (x.ndim - 1 - _axis(given.get("axis", 1), x.ndim))
        scale, zero = scale.reshape(-1, *behind), zero.reshape(-1, *behind)
    # The difference of whole numbers is exact.
    return [(x.astype(np.int64) - zero.astype(np.int64)).astype(scale.dtype) * scale]


EVALUATED: dict[str, Callable[[Call], Sequence[Array]]] = {
    "Add": _elementwise(np.add), "Cast": _cast, "CastLike": _cast_like, "Concat": _concat,
    "Constant": _constant, "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": _dequantize, "Div": _elementwise(_quotient), "Expand": _expand,
    "Flatten": _flatten, "Gather": _gather, "Identity": _identity,
    "Mul": _elementwise(np.multiply), "Range": _range, "Reshape": _reshape, "Shape": _shape,
    "Size": _size, "Slice": _slice, "Split": _split, "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract), "Tile": _tile, "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
