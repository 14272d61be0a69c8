"""Clipping in plain NumPy: the specification of that of `fastrnn`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _cures, _sharing
from .._memory import owner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._checks import Gradients

    Array = NDArray[Any]


def clip_grad_norm(
    grads: Gradients | Array | Mapping[str, Array] | Iterable[Array], max_norm: float
) -> float:
    """Scale gradients, in place, to a norm of at most `max_norm`: see `fastrnn.clip_grad_norm`.

    With n the norm of all of them as one vector, every gradient becomes g · max_norm / n if
    n > max_norm.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> g = np.array([3.0, 4.0])
    >>> reference.clip_grad_norm([g], 1.0)
    5.0
    >>> g
    array([0.6, 0.8])
    """
    arrays, limit = clip_arguments(grads, "max_norm", max_norm)
    with np.errstate(all="ignore"):
        largest = float(np.max([np.abs(g).max(initial=0) for g in arrays]))
        if not 0 < largest < np.inf:
            return largest
        parts = [np.square(g.astype(np.float64) / largest).sum() for g in arrays]
        norm = largest * float(np.sqrt(np.sum(parts)))
    scale_to(arrays, limit, norm)
    return norm


def scale_to(arrays: Iterable[Array], limit: float, norm: float) -> None:
    """Scale arrays of this norm in place so that it becomes `limit`, if it is finite and above."""
    if not limit < norm < np.inf:
        return
    with np.errstate(all="ignore"):
        for g in arrays:
            factor = g.dtype.type(limit / norm)
            if limit == 0 or factor >= np.finfo(g.dtype).smallest_normal:
                g *= factor
                continue
            # The factor has lost digits, or is zero, though g times it may be an ordinary number:
            # (g / norm) * limit in float64. A buffer at a time is converted there and back.
            with np.nditer(
                [g], ["external_loop", "buffered", "zerosize_ok"], [["readwrite"]],
                [np.float64], casting="same_kind",
            ) as pieces:  # fmt: skip
                for piece in pieces:
                    piece[...] = piece / norm * limit  # type: ignore[operator, index]


def clip_arguments(grads: Any, name: str, limit: Any) -> tuple[list[Array], float]:
    """Check the arguments of the clipping functions; the gradients as a list."""
    if isinstance(grads, tuple) and hasattr(grads, "flat_weights"):
        grads = {"grads.flat_weights": _checks.flat_gradient("grads", grads)}
    elif not isinstance(grads, Mapping):
        grads = _checks.arrays("grads", grads)
    elif text := _cures.for_mapping("grads", grads):
        raise TypeError(text)
    else:
        grads = {f"grads[{name!r}]": g for name, g in grads.items()}
    labels = [str(key) for key in grads]
    # As arrays: a subclass may have other ways with what is done here.
    arrays = [
        np.asarray(_checks.writable(label, g))
        for label, g in zip(labels, grads.values(), strict=True)
    ]
    if not arrays:
        raise ValueError(
            "grads is empty, expected at least one array (an iterator that was gone through before "
            "has none left: make a list of it first)"
        )
    for label, g in zip(labels, arrays, strict=True):
        if (memory := owner(g)) is not None and memory.of_layer:
            raise ValueError(
                f"{label} is weights of a layer, expected gradients: pass what its backward "
                "returned"
            )
    named = dict(zip(labels, arrays, strict=True))
    _sharing.distinct("grads", named if len(named) == len(arrays) else arrays)
    return arrays, _checks.bounded(name, limit)
