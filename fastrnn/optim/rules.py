"""SGD, Adam, AdamW, RMSprop and Adagrad."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import _checks
from ..reference.optim import RULES, adagrad, adam, rmsprop, sgd
from .base import Optimizer, Option
from .groups import Rate, rate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._attributes import Checks

    Array = NDArray[Any]
    Parameters = Array | Iterable[Array] | Iterable[Mapping[str, Any]]

_positive = partial(_checks.bounded, above=True)


def _betas(name: str, value: Any) -> tuple[float, float]:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}, expected two numbers")
    first, second = (_checks.fraction(f"{name}[{i}]", v) for i, v in enumerate(value))
    return first, second


def _power(base: float, exponent: int) -> float:
    """By squaring: the C library's pow has other bits on other machines."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


class SGD(Optimizer):
    """Gradient descent with momentum.

    At each step, with v = 0 at first [1]_::

        d = g + weight_decay · p        v = momentum · v + (1 - dampening) · d
        p = p - lr · v                  or with nesterov [2]_ p = p - lr · (d + momentum · v)

    The first step is not dampened, and without momentum none is.

    Parameters
    ----------
    params : ndarray, iterable of ndarray or list of dict
        The arrays that `step` updates in place: layers' ``flat_weights``. No two of them may share
        memory. Or groups of them, ``{"params": arrays, "lr": 0.1}``, each with options of its own;
        those that it does not name are the constructor's.
    lr : float or callable
        Learning rate, at least 0; or a function that returns it for the number of steps made
        before: 0, 1, 2, ...
    momentum, dampening : float
        In [0, 1).
    weight_decay : float
        At least 0.
    nesterov : bool
        With momentum and without dampening alone.

    Attributes
    ----------
    params : tuple of ndarray
        The arrays that `step` updates, those of all groups. The tuple is fixed; their elements may
        be written.
    param_groups : tuple of Group
        Mappings with ``"params"`` and the options below; these can be set, and what is set is
        checked.
    lr, momentum, dampening, weight_decay : float
    nesterov : bool
        The options of the groups. Set, they are set in all; they can be read where all have the
        same.
    step_count : int
        How many steps there were: 0 at first. It can be set.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    References
    ----------
    .. [1] D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning representations by
       back-propagating errors", Nature 323 (1986), 533-536.
    .. [2] I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and
       momentum in deep learning", ICML 2013; in the form that PyTorch gave it.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> p = np.array([1.0, 2.0])
    >>> sgd = fastrnn.optim.SGD([p], lr=0.5)
    >>> sgd.step([np.array([1.0, -1.0])])
    >>> p
    array([0.5, 2.5])
    """

    _options: ClassVar[Checks] = {
        "lr": rate, "momentum": _checks.fraction, "dampening": _checks.fraction,
        "weight_decay": _checks.bounded, "nesterov": _checks.flag,
    }  # fmt: skip
    _later: ClassVar[dict[str, Any]] = {"dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
    _slots = ("velocity",)
    _squares = ""
    _rule = RULES.index(sgd)

    if TYPE_CHECKING:
        lr: Any  # Rate
        momentum: float
        dampening: float
        weight_decay: float
        nesterov: bool
    else:
        lr, momentum, dampening, weight_decay, nesterov = (Option() for _ in range(5))

    def __init__(
        self,
        params: Parameters,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self._make(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
            nesterov=nesterov,
        )  # fmt: skip

    @classmethod
    def _consistent(cls, options: Mapping[str, Any]) -> None:
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError(
                f"nesterov is True with momentum {options['momentum']} and dampening "
                f"{options['dampening']}, expected momentum > 0 and no dampening"
            )

    @classmethod
    def _counts(cls, options: Iterable[Mapping[str, Any]]) -> bool:
        return any(own["dampening"] != 0 or callable(own["lr"]) for own in options)

    def _numbers(
        self, options: Mapping[str, Any], lr: float, t: int, tiny: float
    ) -> tuple[float, ...]:
        damped = t > 1 and options["momentum"] != 0
        undamped = 1 - options["dampening"] if damped else 1.0
        return (
            lr, options["momentum"], undamped, options["weight_decay"], float(options["nesterov"])
        )  # fmt: skip


class Adam(Optimizer):
    """Adam [1]_: steps scaled by running means of the gradient and of its square.

    At step t = 1, 2, ..., with m = v = 0 at first::

        d = g + weight_decay · p
        m = β1 m + (1 - β1) d        v = β2 v + ((1 - β2) d) d
        p = p - lr / (1 - β1ᵗ) · m / (sqrt(v) · 1 / sqrt(1 - β2ᵗ) + eps)

    The powers are made by squaring, from the lowest binary digit of t on.

    Parameters
    ----------
    params : ndarray, iterable of ndarray or list of dict
        The arrays that `step` updates in place: layers' ``flat_weights``. No two of them may share
        memory. Or groups of them, ``{"params": arrays, "lr": 0.1}``, each with options of its own;
        those that it does not name are the constructor's.
    lr : float or callable
        Learning rate, at least 0; or a function that returns it for the number of steps made
        before: 0, 1, 2, ...
    betas : tuple of float
        β1 and β2, each in [0, 1).
    eps : float
        Greater than 0.
    weight_decay : float
        At least 0. It is part of the gradient, and scaled as that is; `AdamW` keeps it apart.

    Attributes
    ----------
    params : tuple of ndarray
        The arrays that `step` updates, those of all groups. The tuple is fixed; their elements may
        be written.
    param_groups : tuple of Group
        Mappings with ``"params"`` and the options below; these can be set, and what is set is
        checked.
    lr, eps, weight_decay : float
    betas : tuple of float
        The options of the groups. Set, they are set in all; they can be read where all have the
        same.
    step_count : int
        t, how many steps there were: 0 at first. It can be set.

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

    _options: ClassVar[Checks] = {
        "lr": rate, "betas": _betas, "eps": _positive, "weight_decay": _checks.bounded,
    }  # fmt: skip
    _later: ClassVar[dict[str, Any]] = {"weight_decay": 0.0}
    _slots = ("exp_avg", "exp_avg_sq")
    _squares = "exp_avg_sq"
    _rule = RULES.index(adam)

    if TYPE_CHECKING:
        lr: Any  # Rate
        betas: tuple[float, float]
        eps: float
        weight_decay: float
    else:
        lr, betas, eps, weight_decay = (Option() for _ in range(4))

    def __init__(
        self,
        params: Parameters,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self._make(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _numbers(
        self, options: Mapping[str, Any], lr: float, t: int, tiny: float
    ) -> tuple[float, ...]:
        coupled, kept = self._decay(options["weight_decay"], lr)
        beta1, beta2 = options["betas"]
        rate = lr / (1 - _power(beta1, t))
        correction = 1 / math.sqrt(1 - _power(beta2, t))
        eps = max(options["eps"], tiny)
        return rate, correction, beta1, 1 - beta1, beta2, 1 - beta2, eps, coupled, kept

    def _decay(self, weight_decay: float, lr: float) -> tuple[float, float]:
        """The decay in the gradient; what is left of the parameters by one that is apart."""
        return weight_decay, 1.0


class AdamW(Adam):
    """Adam with weight decay that is kept apart from the gradient [1]_.

    At step t = 1, 2, ..., with m = v = 0 at first::

        p = (1 - lr · weight_decay) · p
        m = β1 m + (1 - β1) g        v = β2 v + ((1 - β2) g) g
        p = p - lr / (1 - β1ᵗ) · m / (sqrt(v) · 1 / sqrt(1 - β2ᵗ) + eps)

    Parameters
    ----------
    params : ndarray, iterable of ndarray or list of dict
        As for `Adam`. Groups of biases and of matrices, say, have decays of their own.
    lr : float or callable
        Learning rate, at least 0; or a function that returns it for the number of steps made
        before: 0, 1, 2, ...
    betas : tuple of float
        β1 and β2, each in [0, 1).
    eps : float
        Greater than 0.
    weight_decay : float
        At least 0.

    Attributes
    ----------
    params : tuple of ndarray
        The arrays that `step` updates, those of all groups. The tuple is fixed; their elements may
        be written.
    param_groups : tuple of Group
        Mappings with ``"params"`` and the options below; these can be set, and what is set is
        checked.
    lr, eps, weight_decay : float
    betas : tuple of float
        The options of the groups. Set, they are set in all; they can be read where all have the
        same.
    step_count : int
        t, how many steps there were: 0 at first. It can be set.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019; with the
       learning rate as a factor of the decay, as PyTorch has it.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> p = np.array([1.0, 2.0])
    >>> adamw = fastrnn.optim.AdamW([p], lr=0.5, weight_decay=0.2)
    >>> adamw.step([np.array([1.0, -3.0])])
    >>> p.round(6)
    array([0.4, 2.3])
    """

    _later: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        params: Parameters,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def _decay(self, weight_decay: float, lr: float) -> tuple[float, float]:
        return 0.0, 1 - lr * weight_decay


class RMSprop(Optimizer):
    """RMSprop [1]_: steps scaled by a running mean of the gradient's square.

    At each step, with v = m = b = 0 at first::

        d = g + weight_decay · p        v = alpha · v + ((1 - alpha) d) d
        w = d / (sqrt(v) + eps)         p = p - lr · w

    If `centered` [2]_, the root is that of the variance::

        m = alpha · m + (1 - alpha) d   w = d / (sqrt(max(v - m², 0)) + eps)

    With momentum, b = momentum · b + w takes the place of w in p.

    Parameters
    ----------
    params : ndarray, iterable of ndarray or list of dict
        The arrays that `step` updates in place: layers' ``flat_weights``. No two of them may share
        memory. Or groups of them, ``{"params": arrays, "lr": 0.1}``, each with options of its own;
        those that it does not name are the constructor's.
    lr : float or callable
        Learning rate, at least 0; or a function that returns it for the number of steps made
        before: 0, 1, 2, ...
    alpha : float
        In [0, 1).
    eps : float
        Greater than 0.
    weight_decay : float
        At least 0.
    momentum : float
        In [0, 1).
    centered : bool

    Attributes
    ----------
    params : tuple of ndarray
        The arrays that `step` updates, those of all groups. The tuple is fixed; their elements may
        be written.
    param_groups : tuple of Group
        Mappings with ``"params"`` and the options below; these can be set, and what is set is
        checked.
    lr, alpha, eps, weight_decay, momentum : float
    centered : bool
        The options of the groups. Set, they are set in all; they can be read where all have the
        same. Where momentum or centered are set to something, their arrays begin with zeros.
    step_count : int
        How many steps there were: 0 at first. It can be set.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    References
    ----------
    .. [1] T. Tieleman, G. Hinton, "Lecture 6.5: RMSprop", Neural Networks for Machine Learning,
       Coursera, 2012.
    .. [2] A. Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850, 2013.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> p = np.array([1.0, 2.0])
    >>> rmsprop = fastrnn.optim.RMSprop([p], lr=0.1, alpha=0.75)
    >>> rmsprop.step([np.array([1.0, -3.0])])
    >>> p.round(6)
    array([0.8, 2.2])
    """

    _options: ClassVar[Checks] = {
        "lr": rate, "alpha": _checks.fraction, "eps": _positive, "weight_decay": _checks.bounded,
        "momentum": _checks.fraction, "centered": _checks.flag,
    }  # fmt: skip
    _slots = ("square_avg", "grad_avg", "momentum_buffer")
    _squares = "square_avg"
    _rule = RULES.index(rmsprop)

    if TYPE_CHECKING:
        lr: Any  # Rate
        alpha: float
        eps: float
        weight_decay: float
        momentum: float
        centered: bool
    else:
        lr, alpha, eps, weight_decay, momentum, centered = (Option() for _ in range(6))

    def __init__(
        self,
        params: Parameters,
        lr: Rate = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        self._make(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
            centered=centered,
        )  # fmt: skip

    @classmethod
    def _slots_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        has = True, options["centered"], options["momentum"] != 0
        return tuple(slot for slot, there in zip(cls._slots, has, strict=True) if there)

    def _numbers(
        self, options: Mapping[str, Any], lr: float, t: int, tiny: float
    ) -> tuple[float, ...]:
        alpha, eps = options["alpha"], max(options["eps"], tiny)
        return lr, alpha, 1 - alpha, eps, options["weight_decay"], options["momentum"]


class Adagrad(Optimizer):
    """Adagrad [1]_: steps scaled by the sum of the gradient's squares so far.

    At step t = 1, 2, ..., with s = initial_accumulator_value at first::

        d = g + weight_decay · p        s = s + d²
        p = p - lr / (1 + (t - 1) lr_decay) · d / (sqrt(s) + eps)

    Parameters
    ----------
    params : ndarray, iterable of ndarray or list of dict
        The arrays that `step` updates in place: layers' ``flat_weights``. No two of them may share
        memory. Or groups of them, ``{"params": arrays, "lr": 0.1}``, each with options of its own;
        those that it does not name are the constructor's.
    lr : float or callable
        Learning rate, at least 0; or a function that returns it for the number of steps made
        before: 0, 1, 2, ...
    lr_decay, weight_decay, initial_accumulator_value : float
        At least 0.
    eps : float
        Greater than 0.

    Attributes
    ----------
    params : tuple of ndarray
        The arrays that `step` updates, those of all groups. The tuple is fixed; their elements may
        be written.
    param_groups : tuple of Group
        Mappings with ``"params"`` and the options below; these can be set, and what is set is
        checked.
    lr, lr_decay, weight_decay, eps : float
        The options of the groups. Set, they are set in all; they can be read where all have the
        same.
    initial_accumulator_value : float
        As given.
    step_count : int
        t, how many steps there were: 0 at first. It can be set.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the error names it.

    References
    ----------
    .. [1] J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and
       stochastic optimization", Journal of Machine Learning Research 12 (2011), 2121-2159.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> p = np.array([1.0, 2.0])
    >>> adagrad = fastrnn.optim.Adagrad([p], lr=0.5)
    >>> adagrad.step([np.array([1.0, -3.0])])
    >>> p.round(6)
    array([0.5, 2.5])
    """

    _options: ClassVar[Checks] = {
        "lr": rate, "lr_decay": _checks.bounded, "weight_decay": _checks.bounded,
        "initial_accumulator_value": _checks.bounded, "eps": _positive,
    }  # fmt: skip
    _frozen = ("initial_accumulator_value",)
    _slots = ("sum",)
    _squares = "sum"
    _rule = RULES.index(adagrad)

    if TYPE_CHECKING:
        lr: Any  # Rate
        lr_decay: float
        weight_decay: float
        initial_accumulator_value: float
        eps: float
    else:
        lr, lr_decay, weight_decay, initial_accumulator_value, eps = (Option() for _ in range(5))

    def __init__(
        self,
        params: Parameters,
        lr: Rate = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        self._make(
            params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps,
        )  # fmt: skip

    def _fresh(self, slot: str, p: Array, options: Mapping[str, Any]) -> Array:
        value = options["initial_accumulator_value"]
        _checks.finite_in("initial_accumulator_value", value, p.dtype)
        return np.full_like(p, value, subok=False)

    def _numbers(
        self, options: Mapping[str, Any], lr: float, t: int, tiny: float
    ) -> tuple[float, ...]:
        rate = lr / (1 + (t - 1) * options["lr_decay"])
        return rate, max(options["eps"], tiny), options["weight_decay"]
