"""Optimisers over flat arrays of weights.

They are elementwise additions, multiplications, divisions and roots in NumPy, each correctly
rounded, so their bits do not depend on the machine either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _checks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["SGD", "Adam"]


class _Optimizer:
    """What the optimisers share: the parameters, and numbers and arrays that make up their state.

    A subclass names its numbers (attributes that may be changed between steps) and its slots (one
    array for each parameter, zero at first).
    """

    _numbers: tuple[str, ...]
    _slots: tuple[str, ...]
    _set_numbers: Callable[..., None]  # checks them all, then sets them

    def __init__(self, params: Array | Iterable[Array]) -> None:
        self.params = [
            _checks.writable(f"params[{i}]", p) for i, p in enumerate(_arrays("params", params))
        ]
        self._state = {slot: [np.zeros_like(p) for p in self.params] for slot in self._slots}
        self._scratch = [(np.empty_like(p), np.empty_like(p)) for p in self.params]

    def _checked(self, grads: Array | Iterable[Array]) -> list[Array]:
        """The gradients, each of its parameter's shape and dtype; none of them may be missing."""
        given = _arrays("grads", grads)
        if len(given) != len(self.params):
            raise ValueError(f"grads has {len(given)} arrays, expected {len(self.params)}")
        checked = []
        for i, (g, p) in enumerate(zip(given, self.params, strict=True)):
            checked.append(_checks.array(f"grads[{i}]", g, p.dtype, f"params[{i}]"))
            if g.shape != p.shape:
                raise ValueError(f"grads[{i}] has shape {g.shape}, expected {p.shape}")
        return checked

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that the next step depends on, but the parameters.

        Numbers under their names, arrays under names such as "exp_avg.0", one a parameter: as
        `fastrnn.save` takes it and `fastrnn.load` gives it back.
        """
        state = {name: getattr(self, name) for name in self._numbers}
        for slot, arrays in self._state.items():
            state |= {f"{slot}.{i}": a.copy() for i, a in enumerate(arrays)}
        return state

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Set the state from what `state_dict` returned. All is checked before any is set.

        Raises
        ------
        TypeError, ValueError
            If `d` is not the state of an optimiser of this kind over parameters of these shapes.
        """
        if not isinstance(d, Mapping):
            raise TypeError(f"d is a {type(d).__name__}, expected a mapping")
        own = self.state_dict()
        if set(d) != set(own):
            raise ValueError(f"d has {', '.join(map(str, d))}; expected {', '.join(own)}")
        for name, value in own.items():
            if isinstance(value, np.ndarray):
                given = _checks.array(f"d[{name!r}]", d[name], value.dtype, "its parameter")
                if given.shape != value.shape:
                    raise ValueError(f"d[{name!r}] has shape {given.shape}, expected {value.shape}")
        self._set_numbers(**{name: d[name] for name in self._numbers})
        for slot, arrays in self._state.items():
            for i, a in enumerate(arrays):
                a[...] = d[f"{slot}.{i}"]


class SGD(_Optimizer):
    """Gradient descent with momentum.

    At each step, with v = 0 at first [1]_::

        v = momentum · v + g        p = p - lr · v

    Parameters
    ----------
    params : ndarray or iterable of ndarray
        The arrays that `step` updates in place: layers' ``flat_weights``.
    lr : float
        Learning rate, at least 0. The attribute may be changed between steps.
    momentum : float
        In [0, 1).

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    References
    ----------
    .. [1] D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning representations by
       back-propagating errors", Nature 323 (1986), 533-536.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> p = np.array([1.0, 2.0])
    >>> sgd = fastrnn.optim.SGD([p], lr=0.5)
    >>> sgd.step([np.array([1.0, -1.0])])
    >>> p
    array([0.5, 2.5])
    """

    _numbers = ("lr", "momentum")
    _slots = ("velocity",)

    def __init__(self, params: Array | Iterable[Array], lr: float, momentum: float = 0.0) -> None:
        self._set_numbers(lr=lr, momentum=momentum)
        super().__init__(params)

    def _set_numbers(self, *, lr: float, momentum: float) -> None:
        checked = _checks.bounded("lr", lr), _checks.fraction("momentum", momentum)
        self.lr, self.momentum = checked

    def step(self, grads: Array | Iterable[Array]) -> None:
        """Update the parameters in place; `grads` has an array for each, of its shape and dtype."""
        given = self._checked(grads)
        with np.errstate(all="ignore"):
            for p, g, v, (t, _) in zip(
                self.params, given, self._state["velocity"], self._scratch, strict=True
            ):
                np.multiply(v, p.dtype.type(self.momentum), out=v)
                np.add(v, g, out=v)
                np.subtract(p, np.multiply(v, p.dtype.type(self.lr), out=t), out=p)


class Adam(_Optimizer):
    """Adam [1]_: steps scaled by running means of the gradient and of its square.

    At step t = 1, 2, ..., with m = v = 0 at first::

        m = β1 m + (1 - β1) g        v = β2 v + (1 - β2) g²
        p = p - lr / (1 - β1ᵗ) · m / (sqrt(v / (1 - β2ᵗ)) + eps)

    The powers are made by squaring, from the lowest binary digit of t on.

    Parameters
    ----------
    params : ndarray or iterable of ndarray
        The arrays that `step` updates in place: layers' ``flat_weights``.
    lr : float
        Learning rate, at least 0. The attribute may be changed between steps.
    betas : tuple of float
        β1 and β2, each in [0, 1).
    eps : float
        Greater than 0.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> p = np.array([1.0, 2.0])
    >>> adam = fastrnn.optim.Adam([p], lr=0.5)
    >>> adam.step([np.array([1.0, -3.0])])
    >>> p.round(6)
    array([0.5, 2.5])
    """

    _numbers = ("step_count", "lr", "betas", "eps")
    _slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Array | Iterable[Array],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._set_numbers(step_count=0, lr=lr, betas=betas, eps=eps)
        super().__init__(params)

    def _set_numbers(self, *, step_count: int, lr: float, betas: Any, eps: float) -> None:
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas is {betas!r}, expected two numbers")
        checked = (
            _checks.size("step_count", step_count, 0),
            _checks.bounded("lr", lr),
            (_checks.fraction("betas[0]", betas[0]), _checks.fraction("betas[1]", betas[1])),
            _checks.bounded("eps", eps, above=True),
        )
        self.step_count, self.lr, self.betas, self.eps = checked

    def step(self, grads: Array | Iterable[Array]) -> None:
        """Update the parameters in place; `grads` has an array for each, of its shape and dtype."""
        given = self._checked(grads)
        self.step_count += 1
        beta1, beta2 = self.betas
        rate = self.lr / (1 - _power(beta1, self.step_count))
        correction = 1 / (1 - _power(beta2, self.step_count))
        with np.errstate(all="ignore"):
            for p, g, m, v, (t, u) in zip(
                self.params, given, self._state["exp_avg"], self._state["exp_avg_sq"],
                self._scratch, strict=True,
            ):  # fmt: skip
                real = p.dtype.type
                np.multiply(m, real(beta1), out=m)
                np.add(m, np.multiply(g, real(1 - beta1), out=t), out=m)
                np.multiply(v, real(beta2), out=v)
                np.multiply(g, g, out=t)
                np.add(v, np.multiply(t, real(1 - beta2), out=t), out=v)
                np.sqrt(np.multiply(v, real(correction), out=t), out=t)
                np.add(t, max(real(self.eps), np.finfo(real).tiny), out=t)
                np.divide(np.multiply(m, real(rate), out=u), t, out=u)
                np.subtract(p, u, out=p)


def _power(base: float, exponent: int) -> float:
    """By squaring: the C library's pow has other bits on other machines."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def _arrays(name: str, given: Any) -> list[Any]:
    """An array or several, as a list."""
    if isinstance(given, np.ndarray):
        given = [given]
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is a {type(given).__name__}, expected a list of arrays")
    return list(given)
