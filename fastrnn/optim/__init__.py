"""Optimisers over flat arrays of weights, and schedules of their learning rates.

Names, defaults and values are those of ``torch.optim`` and ``torch.optim.lr_scheduler``. A step is
elementwise additions, multiplications, divisions and roots, each correctly rounded, so its bits do
not depend on the machine either.
"""

from typing import TYPE_CHECKING

from .._attributes import completions
from .base import _with_params  # noqa: F401  # pickles written before name it here
from .groups import Group  # noqa: F401
from .plateau import ReduceLROnPlateau
from .rules import SGD, Adagrad, Adam, AdamW, RMSprop
from .schedules import CosineAnnealingLR, ExponentialLR, LinearLR, StepLR
from .sequential import SequentialLR

__all__ = [
    "SGD", "Adagrad", "Adam", "AdamW", "CosineAnnealingLR", "ExponentialLR", "LinearLR", "RMSprop",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip

__dir__ = completions(globals())


if not TYPE_CHECKING:  # for mypy, what is not there has no type

    def __getattr__(name: str) -> object:
        text = f"module {__name__!r} has no attribute {name!r}"
        if name == "LambdaLR":
            text += ": lr= of an optimiser may be a function of the step"
        raise AttributeError(text, name=name)
