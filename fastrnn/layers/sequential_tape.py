"""The tape of a model and its gradients, and the last outputs of the rows and their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _tapes
from ..reference.nonlinearities import NONLINEARITIES
from .tape import fitting
from .weights import Weights, copied_gradients

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]


@_tapes.changed_in_place
class SequentialGradients(NamedTuple):
    """What Sequential.backward returns; None where `wrt` leaves it out.

    Attributes
    ----------
    x : ndarray or None
        Of x's shape and dtype; None too where the first layer is an embedding.
    state : dict of str to state; or None
        Of each recurrent layer that forward had an initial state for, like that.
    weights : mapping of str to ndarray
        Those that were asked for, by their names: views into `flat_weights`.
    flat_weights : ndarray or None
        (n,), laid out like the model's own; zero for weights that were not asked for. None where
        none was.
    """

    x: Array | MaybeNone
    state: dict[str, Any] | MaybeNone
    weights: Weights
    flat_weights: Array | MaybeNone

    def __reduce__(self) -> Any:
        return copied_gradients(self)


class _SequentialTapeFields(NamedTuple):
    tapes: dict[str, Any]
    shape: tuple[int, ...]
    last: Array | MaybeNone


class SequentialTape(_tapes.Tape, _SequentialTapeFields):
    """What Sequential.forward keeps for its backward: the tapes of its layers. Immutable.

    Attributes
    ----------
    tapes : dict of str to tape
        That of each layer, by its name: what `fastrnn.gradient_norms` takes, for one.
    shape : tuple of int
        That of output.
    last : ndarray or None
        With ``last=True``, each row's last state, as the layers behind took it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"SequentialTape({', '.join(self.tapes)})"


# ------------------------------------------------------------------------------ the last states


def _rate(run: Any) -> Any:
    """What makes the output of units of their state, where that is a potential; else None.

    `run` is their layer, or one of its tapes, which says what that was at the time.
    """
    potential = getattr(run, "form", "") == "potential"
    return NONLINEARITIES[run.nonlinearity] if potential else None


def last_of(layer: Any, state: Any) -> Array:
    """Each row's last output, (B, n) or (n,): the final states of both directions, side by side."""
    h = state[0] if layer._cell.has_c else state
    joined = np.concatenate(list(h[-len(layer._ways) :]), axis=-1)
    if (rate := _rate(layer)) is None:
        return joined
    with np.errstate(all="ignore"):
        made: Array = rate.f(joined)
    return made


def gradient_of_last(layer: Any, tape: Any, last: Array, d: Any, d_state: Any) -> Any:
    """The gradient of a layer's final state, from that of `last_of` and what else there is."""
    axes = ("B", "n")[-last.ndim :]
    d = fitting("d_output", d, last.dtype, last.shape, axes)
    if (rate := _rate(tape.tapes[-1])) is not None:
        with np.errstate(all="ignore"):
            d = rate.back(last, d)
    ways, units = len(layer._ways), layer._units
    d_h = np.zeros((layer.num_layers * ways, *last.shape[:-1], units), last.dtype)
    for i in range(ways):
        d_h[i - ways] = d[..., i * units : (i + 1) * units]
    pair = layer._cell.has_c
    own, d_c = d_state, None
    if pair and d_state is not None:
        own, d_c = _checks.state_pair("d_state", d_state, "None")
    if own is not None:
        name = "d_state[0]" if pair else "d_state"
        given = fitting(name, own, last.dtype, d_h.shape, ("layers·directions", *axes))
        with np.errstate(all="ignore"):
            d_h += given
    return (d_h, d_c) if pair else d_h
