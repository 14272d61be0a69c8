"""A schedule that looks at a metric."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

from .. import _checks
from .._attributes import Check
from .base import Optimizer, step_number
from .schedules import Schedule, all_bounded


def _best(name: str, value: Any) -> float | None:
    return None if value is None else _checks.number(name, value)


def _min_lr(name: str, value: Any) -> float | list[float]:
    if isinstance(value, list | tuple):
        return all_bounded(name, value)
    return _checks.bounded(name, value)


class ReduceLROnPlateau(Schedule):
    """Rates times `factor` once a metric has not become better for `patience` epochs.

    Parameters
    ----------
    optimizer : SGD, Adam, ...
        Whose rates are set.
    mode : {"min", "max"}
        Whether a lower or a higher metric is better.
    factor : float
        In [0, 1).
    patience : int
        How many epochs in a row may be no better; the rates change in the one after these.
    threshold : float
        How much better counts, at least 0: below best · (1 - threshold), or above
        best · (1 + threshold); if absolute, below best - threshold, or above best + threshold.
    threshold_mode : {"rel", "abs"}
        Which of these.
    cooldown : int
        How many epochs after a change do not count.
    min_lr : float or list of float
        No rate becomes less than this; or one for each group.
    eps : float
        A change by no more than this is not made.

    Attributes
    ----------
    optimizer : SGD, Adam, ...
    mode, threshold_mode : str
    factor, threshold, eps : float
    patience, cooldown : int
    min_lr : float or list of float
        As given.
    last_epoch : int
        How often `step` was called.
    best : float or None
        The best metric so far.
    num_bad_epochs, cooldown_counter : int
        Epochs in a row that were no better; epochs that still do not count.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
    >>> schedule = fastrnn.optim.ReduceLROnPlateau(sgd, factor=0.5, patience=1)
    >>> for loss in (1.0, 0.8, 0.9, 0.85):
    ...     schedule.step(loss)
    >>> sgd.lr
    0.25
    """

    _settings: ClassVar[dict[str, Check]] = {
        "mode": partial(_checks.choice, choices=("min", "max")), "factor": _checks.fraction,
        "patience": step_number, "threshold": _checks.bounded,
        "threshold_mode": partial(_checks.choice, choices=("rel", "abs")),
        "cooldown": step_number, "min_lr": _min_lr, "eps": _checks.bounded,
    }  # fmt: skip
    _progress: ClassVar[dict[str, Check]] = {
        "last_epoch": step_number, "best": _best, "num_bad_epochs": step_number,
        "cooldown_counter": step_number,
    }  # fmt: skip

    mode: str
    factor: float
    patience: int
    threshold: float
    threshold_mode: str
    cooldown: int
    min_lr: float | list[float]
    eps: float
    best: float | None
    num_bad_epochs: int
    cooldown_counter: int

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        with self._all_or_nothing():
            self._attach(
                optimizer, mode=mode, factor=factor, patience=patience, threshold=threshold,
                threshold_mode=threshold_mode, cooldown=cooldown, min_lr=min_lr, eps=eps,
            )  # fmt: skip
            self._set_all({"best": None, "num_bad_epochs": 0, "cooldown_counter": 0})
            groups = len(optimizer.param_groups)
            if isinstance(self.min_lr, list) and len(self.min_lr) != groups:
                raise ValueError(
                    f"min_lr has {len(self.min_lr)} rates, expected {groups}, one for each group"
                )

    def step(self, metrics: float) -> None:
        """Look at the metric of an epoch, and lower the rates where it is time.

        Parameters
        ----------
        metrics : float
            The loss on held-out data, say. NaN is no better than anything.

        Raises
        ------
        TypeError, ValueError
            If it is no number, or a rate is a function.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
        >>> schedule = fastrnn.optim.ReduceLROnPlateau(sgd)
        >>> schedule.step(0.75)
        >>> schedule.best
        0.75
        """
        current = _checks.number("metrics", metrics)
        rates, bad, cooling = self._rates(), self.num_bad_epochs + 1, self.cooldown_counter
        progress: dict[str, Any] = {"last_epoch": self.last_epoch + 1}
        if self._is_better(current):
            progress["best"], bad = current, 0
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > self.patience:
            self._set_rates([self._lowered(lr, k) for k, lr in enumerate(rates)])
            cooling, bad = self.cooldown, 0
        self._set_all(progress | {"num_bad_epochs": bad, "cooldown_counter": cooling})

    def _lowered(self, lr: float, k: int) -> float:
        lowest = self.min_lr[k] if isinstance(self.min_lr, list) else self.min_lr
        lowered = max(lr * self.factor, lowest)
        return lowered if lr - lowered > self.eps else lr

    def _is_better(self, current: float) -> bool:
        sign, best = 1 if self.mode == "max" else -1, self.best
        if best is None:
            return sign * current > -math.inf
        relative = self.threshold_mode == "rel"
        limit = best * (1 + sign * self.threshold) if relative else best + sign * self.threshold
        return current > limit if sign > 0 else current < limit
