"""Weights that stay packed between calls, for inference."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._core import Packed
from .kernels import MODES, Form, directions


class Frozen:
    """The weights of a module as they were, packed once.

    Parameters
    ----------
    form : Form
    weights : sequence of Tensor
        In torch's order, of one type, on the CPU.
    """

    def __init__(self, form: Form, weights: Sequence[Tensor]) -> None:
        self.stamps = _stamps(weights)
        # They hold the memory, so that no other weight comes to lie where one of these was.
        self.held = [w.detach() for w in weights]
        cell, options = MODES[form.mode]
        self.number, _ = cell.kernel(options)
        self.directions = directions(form, self.held)
        self.packed: list[Packed] = []

    def unchanged(self, weights: Sequence[Tensor]) -> Frozen:
        """Itself, packed for the instruction set in use.

        Raises
        ------
        RuntimeError
            If the weights are others, or were changed in a way that torch counts.
        """
        if _stamps(weights) != self.stamps:
            raise RuntimeError(
                "the weights of this frozen module have changed: freeze it again, with "
                "fastrnn.torch.accelerate(model, frozen=True)"
            )
        if not self.packed or not self.packed[0].current():
            self.packed = [Packed(self.number, own) for own in self.directions]
        return self


def _stamps(weights: Sequence[Tensor]) -> list[tuple[int, int]]:
    return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]
