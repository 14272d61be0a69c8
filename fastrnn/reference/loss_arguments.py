"""The arguments of losses: what the compiled functions and the reference check, and make of them.

Which positions count, what each weighs, and by what the sum is divided is decided here, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import ndarray

from .. import _checks, _cures
from .._cures import Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

REDUCTIONS = ("mean", "sum", "none")


class Classes(NamedTuple):
    """What cross-entropy needs of N positions and C classes."""

    rows: Array  # (N, C): the logits
    target: Array | None  # (N,) int64, in [0, C) where a row counts
    soft: Array | None  # or (N, C), as rows
    counts: Array | None  # (N,): which rows count; None: all
    weights: Array | None  # (N,) float64: of the rows; None: 1
    class_weight: Array | None  # (C,) float64: of soft and of smoothed targets; None: 1
    smoothing: float
    scale: float  # 1 over what a mean divides by


class Elements(NamedTuple):
    """What the losses that are sums over elements need; all arrays are C-contiguous, as input."""

    input: Array
    target: Array
    counts: Array | None
    weights: Array | None  # float64, 0 where an element does not count either
    scale: float


def cross_entropy_arguments(
    logits: Any,
    target: Any,
    lengths: Any,
    mask: Any,
    ignore_index: Any,
    class_weight: Any,
    sample_weight: Any,
    label_smoothing: Any,
    reduction: Any,
    batch_first: Any,
) -> Classes:
    """Check the arguments of softmax_cross_entropy."""
    logits = _checks.array("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits has shape {logits.shape}, expected (..., C) with C >= 1")
    positions, rows, classes = logits.shape[:-1], _checks.as_rows(logits), logits.shape[-1]
    given = target
    _unmasked("target", given, mask)
    soft = None
    if isinstance(given, ndarray) and given.dtype.kind == "f" and given.ndim == logits.ndim:
        soft, target = _probabilities(given, logits, ignore_index), None
    else:
        target = _indices(given, logits)
    _checks.choice("reduction", reduction, REDUCTIONS)
    batch_first = _checks.flag("batch_first", batch_first)
    smoothing = _smoothing(label_smoothing)
    axes = len(positions)
    counts, number = _checks.counted(positions, lengths, mask, axes, batch_first)
    if ignore_index is not None:
        ignored = target == _checks.size("ignore_index", ignore_index, -(2**63))
        counts = ~ignored if counts is None else counts & ~ignored
        number = int(np.count_nonzero(counts))
    weights = None
    if sample_weight is not None:
        weights = _sample_weights(sample_weight, positions, axes, batch_first)
        counts = _with_weight(counts, weights)
        weights = weights.reshape(-1)
    if counts is not None:
        if target is not None:
            target[~counts] = 0  # what does not count may hold anything
        counts = counts.reshape(-1)
    if target is not None:
        _checks.in_range(
            "target", target, classes, "C",
            lambda: _cure_of_classes(given, target, classes, mask, ignore_index),
        )  # fmt: skip
        target = target.reshape(-1)
    each = weights
    if class_weight is not None:
        class_weight = _class_weights(class_weight, classes)
        if target is not None:  # a mean divides by the weights of the targets' classes
            each = class_weight[target]
            if weights is not None:
                with np.errstate(over="ignore"):  # the mean is refused, and a sum infinite
                    each = weights * each
            if smoothing == 0:  # then no other class has a part in the loss
                weights, class_weight = each, None
    divisor: float = number
    if each is not None:
        if weights is not None:
            counts = _with_weight(counts, weights)
        divisor = total(each if counts is None else np.where(counts, each, 0.0))
    scale = _scale(divisor, reduction)
    if scale == 0:
        counts = np.zeros(len(rows), bool)
    return Classes(rows, target, soft, counts, weights, class_weight, smoothing, scale)


def element_arguments(
    input: Any,
    target: Any,
    lengths: Any,
    mask: Any,
    sample_weight: Any,
    reduction: Any,
    batch_first: Any,
) -> Elements:
    """Check the arguments of the losses that are sums over elements."""
    input = _checks.array("input", input)
    if input.ndim == 0:
        raise ValueError("input has shape (), expected (..., O) or (T,)")
    role = Role(full="np.full_like(input, target)")
    _unmasked("target", target, mask)
    target = _checks.array("target", target, input.dtype, "input", role)
    if target.shape != input.shape:
        cure = _cures.for_shape("target", target.shape, input.shape)
        if target.ndim > 1 and target.swapaxes(0, 1).shape == input.shape:
            cure = ": pass target.swapaxes(0, 1)"
        raise ValueError(
            f"target has shape {target.shape}, expected that of input, {input.shape}{cure}"
        )
    _checks.choice("reduction", reduction, REDUCTIONS)
    batch_first = _checks.flag("batch_first", batch_first)
    axes = max(input.ndim - 1, 1)
    counts, weights = None, None
    divisor: float
    if sample_weight is None:
        counts, divisor = _checks.counted(input.shape, lengths, mask, axes, batch_first)
    else:
        given = _sample_weights(sample_weight, input.shape, axes, batch_first)
        weights, divisor = _weights_of_elements(
            given, input.shape, lengths, mask, axes, batch_first
        )
    input, target = _checks.contiguous(input), _checks.contiguous(target)
    return Elements(input, target, counts, weights, _scale(divisor, reduction))


def in_unit_interval(given: Elements) -> None:
    """Raise ValueError unless what counts of the target is in [0, 1]."""
    target = given.target
    with np.errstate(invalid="ignore"):
        if target.size and target.min() >= 0 and target.max() <= 1:  # in less time
            return
        wrong = ~((target >= 0) & (target <= 1))
    if given.counts is not None:
        wrong &= given.counts
    if given.weights is not None:
        wrong &= given.weights > 0
    if wrong.any():
        at = np.unravel_index(int(wrong.argmax()), wrong.shape)
        signs = bool((np.abs(target) == 1).all())
        cure = ": if -1 stands for no pass (target + 1) / 2" if signs else ""
        raise ValueError(
            f"target[{', '.join(map(str, at))}] is {target[at]}, expected 0 <= target <= 1{cure}"
        )


def positive_weights(value: Any, shape: tuple[int, ...]) -> Array | None:
    """pos_weight for each element of this shape."""
    if value is None:
        return None
    features = shape[-1:]
    given = _checks.factors("pos_weight", value, f"a number, or shape {features}")
    if given.shape not in ((), features):
        cure = _cures.for_shape("np.asarray(pos_weight)", given.shape, features)
        raise ValueError(f"pos_weight has shape {given.shape}, expected {features}{cure}")
    return np.ascontiguousarray(np.broadcast_to(given, shape))


# ------------------------------------------------------------------------------ weights


# Below this weights count as zero: the kernels flush subnormal numbers.
LEAST = float(np.finfo(np.float64).tiny)


def _with_weight(counts: Array | None, weights: Array) -> Array:
    """Which of those that count have a weight."""
    some: Array = weights >= LEAST
    return some if counts is None else counts & some


def _scale(divisor: float, reduction: str) -> float:
    """What sums and gradients are multiplied by; 0 where there is nothing to take a mean of."""
    if reduction != "mean":
        return 1.0
    if divisor == math.inf:
        raise ValueError("the sum of all weights is inf, expected a finite number")
    return 1 / divisor if divisor >= LEAST else 0.0


def total(weights: Array) -> float:
    """The sum in float64, one after the other: np.sum might add in another order elsewhere."""
    with np.errstate(over="ignore"):
        return float(np.add.accumulate(weights.reshape(-1))[-1]) if weights.size else 0.0


def _sample_weights(value: Any, shape: tuple[int, ...], axes: int, batch_first: bool) -> Array:
    """sample_weight with as many leading axes of a shape, whose first `axes` are positions."""
    positions = shape[:axes]
    batch = shape[not batch_first] if axes > 1 else None
    of_rows = "" if batch is None else f" or (B,) = ({batch},)"
    given = _checks.factors("sample_weight", value, f"numbers of shape {positions}{of_rows}")
    if batch is not None and given.shape == (batch,):
        rows = given.reshape((batch, 1) if batch_first else (1, batch))
        return _spread(rows, positions)
    if given.ndim < axes or given.shape != shape[: given.ndim]:
        called = "sample_weight" if isinstance(value, ndarray) else "np.asarray(sample_weight)"
        cure = _cures.for_shape(called, given.shape, positions)
        if axes > 1 and given.shape == (shape[batch_first],):
            cure = f": did you mean batch_first={not batch_first}?"
        raise ValueError(
            f"sample_weight has shape {given.shape}, expected {positions}{of_rows}{cure}"
        )
    return given


def _weights_of_elements(
    weights: Array,
    shape: tuple[int, ...],
    lengths: Any,
    mask: Any,
    axes: int,
    batch_first: bool,
) -> tuple[Array, float]:
    """Weights for each element of a shape, 0 where it does not count; and their sum.

    It is made of as few axes as weights and mask have.
    """
    level = weights.ndim
    if mask is not None:
        level = max(level, min(_checks.booleans("mask", mask, "booleans").ndim, len(shape)))
    counts, _ = _checks.counted(shape[:level], lengths, mask, axes, batch_first)
    weights = _spread(weights, shape[:level])
    weights = np.where(_with_weight(counts, weights), weights, 0.0)
    return _spread(weights, shape), total(weights) * math.prod(shape[level:])


def _spread(a: Array, shape: tuple[int, ...]) -> Array:
    """A C-contiguous array of this shape from one of its leading axes."""
    wide = a.reshape(a.shape + (1,) * (len(shape) - a.ndim))
    return wide if wide.shape == shape else np.array(np.broadcast_to(wide, shape), order="C")


def _class_weights(value: Any, classes: int) -> Array:
    if isinstance(value, Mapping):
        cure = f": pass [class_weight.get(c, 1.0) for c in range({classes})]"
        raise TypeError(f"class_weight is {_cures.kind(value)}, expected {classes} numbers{cure}")
    given = _checks.factors("class_weight", value, f"shape ({classes},)")
    if given.shape != (classes,):
        called = "class_weight" if isinstance(value, ndarray) else "np.asarray(class_weight)"
        cure = _cures.for_shape(called, given.shape, (classes,))
        raise ValueError(
            f"class_weight has shape {given.shape}, expected (C,) = ({classes},){cure}"
        )
    return given


def _smoothing(value: Any) -> float:
    given = value if type(value) is float else _checks.number("label_smoothing", value)
    if not 0 <= given <= 1:
        raise ValueError(f"label_smoothing is {value!r}, expected 0 <= label_smoothing <= 1")
    return given


# ------------------------------------------------------------------------------ targets


def _probabilities(target: Array, logits: Array, ignore_index: Any) -> Array:
    """A target that has a number for each class, as rows."""
    target = _checks.array("target", target, logits.dtype, "logits")
    if target.shape != logits.shape:
        cure = ""
        if target.shape == (*logits.shape[:-1], 1):
            cure = ": if these are classes pass target[..., 0].astype(np.int64)"
        elif target.ndim > 2 and target.swapaxes(0, 1).shape == logits.shape:
            cure = ": pass target.swapaxes(0, 1)"
        raise ValueError(
            f"target has shape {target.shape}, expected that of logits, {logits.shape}{cure}"
        )
    if ignore_index is not None:
        raise ValueError(
            f"ignore_index is {_cures.shown(ignore_index)}, expected None where target is of "
            "probabilities, which mask leaves out: pass ignore_index=None"
        )
    return _checks.as_rows(target)


def _indices(given: Any, logits: Array) -> Array:
    """A target of classes, as an array of its own in the positions' shape."""
    positions, classes = logits.shape[:-1], logits.shape[-1]
    try:
        target = _checks.integers("target", given, "the integers of classes", classes, True)
    except TypeError:
        probabilities = not isinstance(given, ndarray) and _shape_of_floats(given) == logits.shape
        if probabilities and not _cures.is_one_hot(np.asarray(given), classes):
            _checks.array("target", given, logits.dtype, "logits")  # which raises
        raise
    if target.shape != positions:
        cure = _cure_of_target(given, target, logits.shape)
        raise ValueError(f"target has shape {target.shape}, expected {positions}{cure}")
    return target


def _shape_of_floats(value: Any) -> tuple[int, ...] | None:
    """The shape of the array that NumPy makes of a list or a tensor, if it is one of floats."""
    try:
        given = np.asarray(value)
    except Exception:  # whatever another library's object raises
        return None
    return given.shape if given.dtype.kind == "f" else None


def _cure_of_target(given: Any, target: Array, shape: tuple[int, ...]) -> str:
    """The cure for targets of another shape than logits of this shape ask for."""
    positions, classes = shape[:-1], shape[-1]
    if target.ndim == len(shape) and classes > 1 and _cures.is_one_hot(target, classes):
        return f": pass {_cures.one_hot_index('target', given)}, the indices of one-hot vectors"
    if len(shape) > 2 and (shape[0], *shape[2:]) == target.shape:
        return ": pass np.moveaxis(logits, 1, -1), if its classes are its second axis"
    if len(positions) > 1 and target.shape == (positions[1], positions[0], *positions[2:]):
        return ": pass np.swapaxes(target, 0, 1)"
    if target.size == math.prod(positions) and 1 in (len(positions), target.ndim):
        return f": pass np.reshape(target, {positions}), where it has the order of logits"
    if _cures.squeezed(target.shape) == _cures.squeezed(positions):
        return f": pass np.reshape(target, {positions})"
    return ""


def _unmasked(name: str, target: Any, mask: Any) -> None:
    """Raise TypeError for a target with a mask of its own."""
    if isinstance(target, np.ma.MaskedArray):
        own = "~np.ma.getmaskarray(target)"
        if mask is not None:
            beside = target.ndim - np.ndim(mask)
            own += " & mask" if beside == 0 else " & np.expand_dims(mask, -1)"
        cure = f": write mask, target = {own}, target.filled(0) and pass mask=mask"
        raise TypeError(f"{name} is a MaskedArray, expected a mask apart from it{cure}")


def _cure_of_classes(
    given: Any, target: Array, classes: int, mask: Any, ignore_index: int | None
) -> str:
    """The cure for targets that are no classes."""
    beyond = np.unique(target[(target < 0) | (target >= classes)])
    if len(beyond) != 1:
        return ""
    expression = "target" if isinstance(given, np.ndarray) else "np.asarray(target)"
    if beyond[0] < 0 and ignore_index is None:  # as other libraries mark what does not count
        return (
            f": if these positions do not count pass ignore_index={beyond[0]}, or lengths= where "
            "they are the ends of sequences"
        )
    if beyond[0] < 0:
        counts = f"{expression} != {beyond[0]}"
        counts = counts if mask is None else f"({counts}) & mask"
        return f": if these positions do not count either pass mask={counts}"
    if beyond[0] == classes and target.min() > 0:
        return f": if classes are counted from 1 pass {expression} - 1"
    return ""
