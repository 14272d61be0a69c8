"""Learning rates that change with the number of epochs or steps, as PyTorch's schedulers do.

A schedule makes each rate from the one before, so rates that something else changes meanwhile
(another schedule, or the caller) stay changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .. import _checks, _cures
from .._attributes import Check, Guarded
from .base import Optimizer, step_number


def _fixed_in(low: float, high: float, above: bool) -> Check:
    """A check of a number in [low, high], or (low, high] if `above`."""

    def check(name: str, value: Any) -> float:
        given = _checks.bounded(name, value, low, above)
        if given > high:
            raise ValueError(f"{name} is {value!r}, expected at most {high:g}")
        return given

    return check


def all_bounded(name: str, value: Any) -> list[float]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} is {_cures.shown(value)}, expected a list of numbers")
    return [_checks.bounded(f"{name}[{k}]", v) for k, v in enumerate(value)]


class Schedule(Guarded):
    """What the schedules share: the optimiser, settings that are said once, and progress.

    A subclass names its settings and its progress and how they are checked; both, and the rates,
    make up the state.
    """

    _settings: ClassVar[dict[str, Check]] = {}
    _progress: ClassVar[dict[str, Check]] = {"last_epoch": step_number}

    optimizer: Optimizer
    last_epoch: int

    def _refusal(self, name: str) -> str | None:
        if name == "optimizer" or name in self._settings:
            return f"{name} was fixed when the {type(self).__name__} was made: make another one"
        if name in self._progress:
            return f"{name} is the schedule's own: load it with load_state_dict"
        return None

    def _attach(self, optimizer: Any, **settings: Any) -> None:
        """The start of a constructor: everything is checked, no rate has changed."""
        checked = {name: check(name, settings[name]) for name, check in self._settings.items()}
        if not isinstance(optimizer, Optimizer):
            cure = ": make one of it" if isinstance(optimizer, type) else ""
            kind = _cures.kind(optimizer)
            raise TypeError(f"optimizer is {kind}, expected one of fastrnn.optim{cure}")
        self._set_all({"optimizer": optimizer, "last_epoch": 0, **checked})
        self._rates()

    def _rates(self) -> list[float]:
        """The rates of the groups, none of which may be a function."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if any(map(callable, rates)):
            raise ValueError(
                "the optimizer's lr is a function, which sets the rate already: set it to a number"
            )
        return rates

    def _set_rates(self, rates: Sequence[float]) -> None:
        checked = [_checks.bounded("lr", rate) for rate in rates]
        for group, rate in zip(self.optimizer.param_groups, checked, strict=True):
            group._schedule(rate)

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as it is now.

        Returns
        -------
        list of float

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
        >>> fastrnn.optim.StepLR(sgd, step_size=2).get_last_lr()
        [0.5]
        """
        return self._rates()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, the optimiser's rates included.

        Returns
        -------
        dict
            Of numbers and lists of them, as `fastrnn.save` takes it and `fastrnn.load` gives it
            back.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
        >>> fastrnn.optim.ExponentialLR(sgd, gamma=0.5).state_dict()
        {'gamma': 0.5, 'last_epoch': 0, 'base_lrs': [0.5], 'lr': [0.5]}
        """
        said = {name: getattr(self, name) for name in (*self._settings, *self._progress)}
        said = {name: list(v) if isinstance(v, list) else v for name, v in said.items()}
        return said | {"lr": self._rates()}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Set the state, and the optimiser's rates, from what `state_dict` returned.

        All is checked before any is set. Whether the optimiser's own state is loaded before or
        afterwards makes no difference.

        Parameters
        ----------
        d : mapping
            From a schedule of this kind, of an optimiser with as many groups.

        Raises
        ------
        TypeError, ValueError
            If `d` is not the state of such a schedule.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
        >>> schedule = fastrnn.optim.ExponentialLR(sgd, gamma=0.5)
        >>> state = schedule.state_dict()
        >>> schedule.step()
        >>> schedule.load_state_dict(state)
        >>> sgd.lr
        0.5
        """
        self._load(self._checked_state("d", d))

    def _checks(self) -> dict[str, Check]:
        """What a state has, and how it is checked."""
        return {**self._settings, **self._progress, "lr": all_bounded}

    def _checked_state(self, called: str, d: Any) -> dict[str, Any]:
        if not isinstance(d, Mapping):
            own = hasattr(d, "state_dict") and not isinstance(d, type)
            cure = f": pass {called}.state_dict()" if own else ""
            raise TypeError(f"{called} is {_cures.kind(d)}, expected a mapping{cure}")
        checks = self._checks()
        if set(d) != set(checks):
            names = ", ".join(map(str, d)) or "nothing"
            kind = type(self).__name__
            raise ValueError(f"{called} has {names}; a {kind} has {', '.join(checks)}")
        state = {n: check(f"{called}[{n!r}]", d[n]) for n, check in checks.items()}
        count = len(self.optimizer.param_groups)
        for name in ("lr", "base_lrs", "min_lr"):
            if isinstance(state.get(name), list) and len(state[name]) != count:
                raise ValueError(
                    f"{called}[{name!r}] has {len(state[name])} rates, expected {count}, one for "
                    "each group of the optimiser"
                )
        self._rates()
        return state

    def _load(self, state: dict[str, Any]) -> None:
        self._set_rates(state["lr"])
        self._set_all({name: value for name, value in state.items() if name != "lr"})


class Chained(Schedule):
    """A schedule whose every rate follows from the one before and how often it stepped."""

    _progress: ClassVar[dict[str, Check]] = {"last_epoch": step_number, "base_lrs": all_bounded}

    base_lrs: list[float]

    def _attach(self, optimizer: Any, **settings: Any) -> None:
        super()._attach(optimizer, **settings)
        bases = []
        for group in optimizer.param_groups:
            if group._initial_lr is None:
                group._initial_lr = group["lr"]
            bases.append(group._initial_lr)
        self._set_all({"base_lrs": bases})

    def _start(self, optimizer: Any, **settings: Any) -> None:
        """What a constructor does."""
        with self._all_or_nothing():
            self._attach(optimizer, **settings)
            self._set_rates([self._first(lr) for lr in self._rates()])

    def _first(self, lr: float) -> float:
        """What the rate is at the start."""
        return lr

    def _next(self, lr: float, base: float, t: int) -> float:
        """The rate of epoch t = 1, 2, ..."""
        raise NotImplementedError

    def _restart(self) -> None:
        """Begin anew, from the rates as they were before any schedule."""
        self._set_rates(list(map(self._first, self.base_lrs)))
        self._set_all({"last_epoch": 0})

    def step(self) -> None:
        """Set the optimiser's rates to those of the next epoch.

        After the epoch's steps of the optimiser; or after each of its steps, where the schedule
        counts these. Called before the first of them, it leaves out the rate of the start.

        Raises
        ------
        ValueError
            If a rate is too large for a number, or a function.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
        >>> schedule = fastrnn.optim.StepLR(sgd, step_size=1, gamma=0.5)
        >>> schedule.step()
        >>> sgd.lr
        0.25
        """
        t = self.last_epoch + 1
        pairs = zip(self._rates(), self.base_lrs, strict=True)
        self._set_rates([self._next(lr, base, t) for lr, base in pairs])
        self._set_all({"last_epoch": t})


class StepLR(Chained):
    """Rates times gamma after every `step_size` epochs.

    Parameters
    ----------
    optimizer : SGD, Adam, ...
        Whose rates are set.
    step_size : int
        At least 1.
    gamma : float
        At least 0.

    Attributes
    ----------
    optimizer : SGD, Adam, ...
    step_size : int
    gamma : float
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
    >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
    >>> schedule = fastrnn.optim.StepLR(sgd, step_size=2, gamma=0.5)
    >>> for epoch in range(4):
    ...     schedule.step()
    >>> sgd.lr
    0.125
    """

    _settings: ClassVar[dict[str, Check]] = {"step_size": _checks.size, "gamma": _checks.bounded}

    step_size: int
    gamma: float

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self._start(optimizer, step_size=step_size, gamma=gamma)

    def _next(self, lr: float, base: float, t: int) -> float:
        return lr if t % self.step_size else lr * self.gamma


class ExponentialLR(Chained):
    """Rates times gamma after every epoch.

    Parameters
    ----------
    optimizer : SGD, Adam, ...
        Whose rates are set.
    gamma : float
        At least 0.

    Attributes
    ----------
    optimizer : SGD, Adam, ...
    gamma : float
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
    >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
    >>> schedule = fastrnn.optim.ExponentialLR(sgd, gamma=0.5)
    >>> for epoch in range(3):
    ...     schedule.step()
    >>> sgd.lr
    0.0625
    """

    _settings: ClassVar[dict[str, Check]] = {"gamma": _checks.bounded}

    gamma: float

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self._start(optimizer, gamma=gamma)

    def _next(self, lr: float, base: float, t: int) -> float:
        return lr * self.gamma


class LinearLR(Chained):
    """A warm-up: factors of the rates that go in a line from `start_factor` to `end_factor`.

    In epoch t the factor is start + (end - start) min(t, n) / n, n = `total_iters`.

    Parameters
    ----------
    optimizer : SGD, Adam, ...
        Whose rates are set, when the schedule is made too.
    start_factor : float
        In (0, 1].
    end_factor : float
        In [0, 1].
    total_iters : int
        After so many epochs the rates stay. At least 1.

    Attributes
    ----------
    optimizer : SGD, Adam, ...
    start_factor, end_factor : float
    total_iters : int
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
    >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=1.0)
    >>> warmup = fastrnn.optim.LinearLR(sgd, start_factor=0.25, total_iters=3)
    >>> rates = warmup.get_last_lr()
    >>> for step in range(4):
    ...     warmup.step()
    ...     rates += warmup.get_last_lr()
    >>> rates
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    _settings: ClassVar[dict[str, Check]] = {
        "start_factor": _fixed_in(0, 1, above=True), "end_factor": _fixed_in(0, 1, above=False),
        "total_iters": _checks.size,
    }  # fmt: skip

    start_factor: float
    end_factor: float
    total_iters: int

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        self._start(
            optimizer, start_factor=start_factor, end_factor=end_factor, total_iters=total_iters
        )

    def _first(self, lr: float) -> float:
        return lr * self.start_factor

    def _next(self, lr: float, base: float, t: int) -> float:
        if t > self.total_iters:
            return lr
        # The factor over the one before.
        rise = self.end_factor - self.start_factor
        return lr * (1 + rise / (self.total_iters * self.start_factor + (t - 1) * rise))


class CosineAnnealingLR(Chained):
    """Rates that fall along half a cosine, and rise again [1]_.

    In epoch t the rate is eta_min + (base - eta_min) (1 + cos(π t / T_max)) / 2.

    Parameters
    ----------
    optimizer : SGD, Adam, ...
        Whose rates are set.
    T_max : int
        The epoch with the lowest rate. At least 1.
    eta_min : float
        That rate, at least 0.

    Attributes
    ----------
    optimizer : SGD, Adam, ...
    T_max : int
    eta_min : float
        As given.
    last_epoch : int
        How often `step` was called.
    base_lrs : list of float
        Of each group the rate before any schedule changed it.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    Notes
    -----
    The cosine is the C library's, whose last bit is not the same everywhere.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts",
       ICLR 2017.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> sgd = fastrnn.optim.SGD([np.ones(3)], lr=0.5)
    >>> schedule = fastrnn.optim.CosineAnnealingLR(sgd, T_max=10)
    >>> for epoch in range(5):
    ...     schedule.step()
    >>> round(sgd.lr, 6)
    0.25
    """

    _settings: ClassVar[dict[str, Check]] = {"T_max": _checks.size, "eta_min": _checks.bounded}

    T_max: int
    eta_min: float

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self._start(optimizer, T_max=T_max, eta_min=eta_min)

    def _next(self, lr: float, base: float, t: int) -> float:
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:  # from the bottom, where the ratio is 1/0
            return lr + (base - self.eta_min) * (1 - math.cos(math.pi / self.T_max)) / 2
        now, before = (1 + math.cos(math.pi * s / self.T_max) for s in (t, t - 1))
        return now / before * (lr - self.eta_min) + self.eta_min
