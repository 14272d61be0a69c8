"""The output layer in plain NumPy: the specification of `fastrnn.linear_forward` and backward."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes
from .._cures import Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]


@_tapes.changed_in_place
class LinearGradients(NamedTuple):
    """What linear_backward returns: a gradient for each argument of linear_forward, or None.

    A field has the shape and dtype of its argument. It is None where the argument was None or
    where `wrt` leaves it out.

    Attributes
    ----------
    x : ndarray or None
        (..., D).
    weight, bias : ndarray or None
        (O, D) and (O,): sums over all positions.
    """

    x: Array | MaybeNone
    weight: Array | MaybeNone
    bias: Array | MaybeNone


class _LinearTapeFields(NamedTuple):
    x: Array
    weight: Array
    bias: Array | None
    shape: tuple[int, ...]
    output: Array | None
    digests: _tapes.Digests | None


class LinearTape(_tapes.Tape, _LinearTapeFields):
    """What linear_forward keeps for linear_backward. Immutable; either backend takes it.

    It refers to x, weight and bias, which must not be changed before backward.

    Attributes
    ----------
    x : ndarray
        (N, D): every leading axis as one.
    weight : ndarray
    bias : ndarray or None
        As given to forward.
    shape : tuple of int
        Of x as it came.
    output : ndarray or None
    digests : tuple or None
        With ``check=True`` alone: (N, O), to notice a change of it, and what tells of any change.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        outputs, features = self.weight.shape
        return f"LinearTape(x {self.shape}, {features} to {outputs}, {self.x.dtype})"


def linear_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, LinearTape | MaybeNone]:
    """Apply an output layer, y = W x + b, in plain NumPy: see `fastrnn.linear_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x = np.array([[1.0, 2.0]])
    >>> output, tape = reference.linear_forward(x, np.array([[3.0, 4.0]]), np.array([0.5]))
    >>> output
    array([[11.5]])
    """
    rows, weight, bias = linear_arguments(x, weight, bias)
    record, check = _checks.flag("record", record), _checks.flag("check", check)
    with np.errstate(all="ignore"):  # infinities and NaN are ordinary values here
        output = rows @ weight.T
        if bias is not None:
            output += bias
    tape = linear_tape(rows, weight, bias, x.shape, output, check) if record else None
    return output.reshape(*x.shape[:-1], len(weight)), tape


def linear_backward(
    tape: LinearTape, d_output: Array, *, wrt: Collection[str] | None = None
) -> LinearGradients:
    """Gradients of an output layer, in plain NumPy: see `fastrnn.linear_backward`.

    With the sums over all rows::

        d_x = Wᵀ d_output        d_weight = Σ d_output xᵀ        d_bias = Σ d_output

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> x = np.array([[1.0, 2.0]])
    >>> output, tape = reference.linear_forward(x, np.array([[3.0, 4.0]]))
    >>> reference.linear_backward(tape, np.array([[10.0]])).weight
    array([[10., 20.]])
    """
    tape, d, wanted = linear_backward_arguments(tape, d_output, wrt)
    with np.errstate(all="ignore"):
        return LinearGradients(
            (d @ tape.weight).reshape(tape.shape) if "x" in wanted else None,
            d.T @ tape.x if "weight" in wanted else None,
            d.sum(axis=0) if "bias" in wanted else None,
        )


def _roles(weight: Any) -> dict[str, Role]:
    dtype = _checks.float_type(weight) or _checks.FLOAT32
    return {"bias": Role(full=f"np.full(len(weight), bias, np.{dtype})", optional=True)}


def linear_arguments(x: Any, weight: Any, bias: Any) -> tuple[Array, Array, Array | None]:
    """Check the arguments of linear_forward; x as rows (N, D), the others C-contiguous."""
    x, weight, bias = _checks.agreeing(
        ("x", "weight", "bias"), (x, weight, bias), ("bias",), lambda: _roles(weight)
    )
    if x.ndim == 0:
        raise ValueError("x has shape (), expected (..., D)")
    sizes = {"D": x.shape[-1]}
    _checks.shape("weight", weight.shape, ("O", "D"), sizes)
    if bias is not None:
        _checks.shape("bias", bias.shape, ("O",), {"O": len(weight)})
    _checks.elements(N=math.prod(x.shape[:-1]), O=len(weight))
    bias = None if bias is None else _checks.contiguous(bias)
    return _checks.as_rows(x), _checks.contiguous(weight), bias


def linear_tape(
    rows: Array,
    weight: Array,
    bias: Array | None,
    shape: tuple[int, ...],
    output: Array,
    check: bool,
) -> LinearTape:
    """The tape of linear_forward; backward has no use for output, so it is not held for nothing."""
    if not check:
        return LinearTape(rows, weight, bias, shape, None, None)
    digests = _tapes.digests(x=rows, weight=weight, bias=bias, output=output)
    return LinearTape(rows, weight, bias, shape, output, digests)


def linear_backward_arguments(
    tape: Any, d_output: Any, wrt: Any
) -> tuple[LinearTape, Array, frozenset[str]]:
    """Check the arguments of linear_backward.

    Returns
    -------
    tuple
        The tape that was checked, which is the one to use, d_output as rows (N, O), and the fields
        to fill.
    """
    _checks.tape(tape, LinearTape, "linear_forward")
    tape = _tapes.as_made(tape)
    rows, features = math.prod(tape.shape[:-1]), tape.shape[-1]
    if not (
        tape.x.dtype in (_checks.FLOAT32, _checks.FLOAT64)
        and tape.weight.dtype == tape.x.dtype
        and tape.x.shape == (rows, features)
        and _checks.are_rows(tape.x)
        and tape.weight.ndim == 2
        and tape.weight.flags.c_contiguous
        and tape.weight.flags.aligned
        and tape.weight.shape[1] == features
        and (tape.bias is None or tape.bias.shape == tape.weight.shape[:1])
    ):
        raise ValueError(_checks.RESHAPED)
    outputs = len(tape.weight)
    wanted = _checks.names("wrt", wrt, LinearGradients._fields)
    d = _checks.rows_gradient("d_output", d_output, (*tape.shape[:-1], outputs), tape.x.dtype)
    if tape.digests is not None:
        _tapes.unchanged(tape)
    return tape, d, wanted - {"bias"} if tape.bias is None else wanted
