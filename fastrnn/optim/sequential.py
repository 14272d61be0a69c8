"""Schedules one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, ClassVar

from .. import _checks, _cures
from .._attributes import Check, Guarded
from .base import Optimizer
from .plateau import ReduceLROnPlateau
from .schedules import Chained


def _milestones(name: str, value: Any) -> list[int]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {_cures.shown(value)}, expected a list of integers")
    epochs = [_checks.size(f"{name}[{i}]", epoch) for i, epoch in enumerate(value)]
    if any(a >= b for a, b in pairwise(epochs)):
        raise ValueError(f"{name} is {epochs}, expected each to be greater than the one before")
    return epochs


class SequentialLR(Chained):
    """Schedules one after the other: a warm-up and then a cosine, say.

    Parameters
    ----------
    optimizer : SGD, Adam, ...
        Whose rates are set.
    schedulers : list of StepLR, LinearLR, ...
        Schedules of this optimiser, made before and not stepped; not `ReduceLROnPlateau`.
    milestones : list of int
        The epoch in which each but the first begins, from the rate that was before any schedule.

    Attributes
    ----------
    optimizer : SGD, Adam, ...
    schedulers : tuple
    milestones : list of int
        As given.
    last_epoch : int
        How often `step` was called.
    base_lrs : list of float
        Of each group the rate before any schedule changed it.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> from fastrnn.optim import SGD, CosineAnnealingLR, LinearLR, SequentialLR
    >>> sgd = SGD([np.ones(3)], lr=1.0)
    >>> warmup = LinearLR(sgd, start_factor=0.5, total_iters=2)
    >>> schedule = SequentialLR(sgd, [warmup, CosineAnnealingLR(sgd, T_max=2)], milestones=[2])
    >>> rates = schedule.get_last_lr()
    >>> for epoch in range(4):
    ...     schedule.step()
    ...     rates += schedule.get_last_lr()
    >>> [round(rate, 6) for rate in rates]
    [0.5, 0.75, 1.0, 0.5, 0.0]
    """

    _settings: ClassVar[dict[str, Check]] = {"milestones": _milestones}
    _fixed = ("schedulers",)

    schedulers: tuple[Chained, ...]
    milestones: list[int]

    def __init__(
        self, optimizer: Optimizer, schedulers: Iterable[Chained], milestones: Iterable[int]
    ) -> None:
        with self._all_or_nothing():
            self._attach(optimizer, milestones=milestones)
            given = tuple(schedulers)
            for i, one in enumerate(given):
                if not isinstance(one, Chained):
                    other = isinstance(one, ReduceLROnPlateau)
                    why = ": it steps with a metric, use it alone" if other else ""
                    kind = _cures.kind(one)
                    raise TypeError(f"schedulers[{i}] is {kind}, expected a schedule{why}")
                if one.optimizer is not optimizer:
                    raise ValueError(f"schedulers[{i}] is of another optimiser than this")
            if len(set(map(id, given))) != len(given):
                raise ValueError("schedulers has one schedule twice: make another one like it")
            if len(self.milestones) != len(given) - 1:
                raise ValueError(
                    f"milestones has {len(self.milestones)} epochs for {len(given)} schedulers, "
                    "expected one for each but the first"
                )
            self._set_all({"schedulers": given})
            self._restart()

    def _refusal(self, name: str) -> str | None:
        return super()._refusal(name) or Guarded._refusal(self, name)

    def _restart(self) -> None:
        for one in reversed(self.schedulers):
            one._restart()
        self._set_all({"last_epoch": 0})

    def step(self) -> None:
        """Set the optimiser's rates to those of the next epoch.

        Raises
        ------
        ValueError
            If a rate is too large for a number, or a function.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> from fastrnn.optim import SGD, ExponentialLR, LinearLR, SequentialLR
        >>> sgd = SGD([np.ones(3)], lr=1.0)
        >>> both = [LinearLR(sgd, 0.5, total_iters=1), ExponentialLR(sgd, gamma=0.5)]
        >>> SequentialLR(sgd, both, milestones=[1]).step()
        >>> sgd.lr
        1.0
        """
        t = self.last_epoch + 1
        k = bisect_right(self.milestones, t)
        if k > 0 and self.milestones[k - 1] == t:
            self.schedulers[k]._restart()
        else:
            self.schedulers[k].step()
        self._set_all({"last_epoch": t})

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, the optimiser's rates included.

        Returns
        -------
        dict
            With the states of `schedulers` in a list.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
        >>> both = [fastrnn.optim.LinearLR(sgd), fastrnn.optim.StepLR(sgd, step_size=3)]
        >>> list(fastrnn.optim.SequentialLR(sgd, both, milestones=[5]).state_dict())
        ['milestones', 'last_epoch', 'base_lrs', 'lr', 'schedulers']
        """
        inside = [one.state_dict() for one in self.schedulers]
        return super().state_dict() | {"schedulers": inside}

    def _checks(self) -> dict[str, Check]:
        return super()._checks() | {"schedulers": self._states}

    def _states(self, name: str, value: Any) -> list[dict[str, Any]]:
        """The checked states of the schedules inside."""
        if not isinstance(value, list | tuple):
            raise TypeError(f"{name} is {_cures.kind(value)}, expected a list of states")
        if len(value) != len(self.schedulers):
            raise ValueError(f"{name} has {len(value)} states, expected {len(self.schedulers)}")
        return [
            one._checked_state(f"{name}[{i}]", value[i]) for i, one in enumerate(self.schedulers)
        ]

    def _checked_state(self, called: str, d: Any) -> dict[str, Any]:
        state = super()._checked_state(called, d)
        if len(state["milestones"]) != len(self.schedulers) - 1:
            raise ValueError(
                f"{called}['milestones'] has {len(state['milestones'])} epochs, expected one for "
                "each schedule but the first"
            )
        return state

    def _load(self, state: dict[str, Any]) -> None:
        for one, own_state in zip(self.schedulers, state.pop("schedulers"), strict=True):
            one._load(own_state)
        super()._load(state)
