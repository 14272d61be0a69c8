"""Optimisers over flat arrays of weights.

They are elementwise additions, multiplications, divisions and roots in NumPy, each correctly
rounded, so their bits do not depend on the machine either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import _checks, _cures, _sharing
from ._attributes import Guarded, completions
from ._memory import Memory, handed_over, root, taken_over

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._attributes import Checks

    Array = NDArray[Any]

__all__ = ["SGD", "Adam"]

__dir__ = completions(globals())


class _Optimizer(Guarded):
    """What the optimisers share: the parameters, and numbers and arrays that make up their state.

    A subclass names its numbers (attributes that may be changed between steps, and how they are
    checked) and its slots (one array for each parameter, zero at first).
    """

    _settable: ClassVar[Checks]
    _slots: tuple[str, ...]
    _fixed = ("params",)

    params: _Params
    _state: dict[str, list[Array]]

    def _make(self, params: Array | Iterable[Array], **numbers: Any) -> None:
        """What a constructor does."""
        with self._all_or_nothing():
            self._set_all(self._checked_numbers(numbers))
            named = _checks.arrays("params", params)
            given = [_checks.writable(name, p) for name, p in named.items()]
            if not given:
                raise ValueError(
                    "params is empty, expected at least one array (an iterator that was gone "
                    "through before has none left: make a list of it first)"
                )
            _sharing.distinct("params", given)
            self._set_all({"params": _Params(given)})
            self._state = {slot: [np.zeros_like(p) for p in given] for slot in self._slots}
            self._prepare()

    def _prepare(self) -> None:
        """Make what follows from the parameters."""
        self._scratch = [(np.empty_like(p), np.empty_like(p)) for p in self.params]
        self._forms = [_form(p) for p in self.params]

    def _check_slots(self, d: Mapping[str, Any]) -> None:
        """Raise ValueError where an array of the state cannot be one."""

    def _checked_numbers(self, given: Mapping[str, Any], called: str = "{}") -> dict[str, Any]:
        return {
            name: check(called.format(name), given[name]) for name, check in self._settable.items()
        }

    def _refusal(self, name: str) -> str | None:
        if name == "params":
            kind = type(self).__name__
            return (
                f"params was fixed when the {kind} was made: make another {kind} of other arrays, "
                "or write the elements of these, params[0][...] = value"
            )
        return super()._refusal(name)

    def _checked_step(self, grads: Array | Iterable[Array]) -> list[Array]:
        """The gradients, each of its parameter's shape and dtype; none of them may be missing."""
        named = _checks.arrays("grads", grads)
        given = list(named.values())
        if len(given) != len(self.params):
            count = f"{len(given)} array{'s' if len(given) != 1 else ''}"
            raise ValueError(
                f"grads has {count}, expected {len(self.params)}: with a layer's flat_weights go "
                "those of its gradients, with its weights.values() theirs"
            )
        for i, (p, form) in enumerate(zip(self.params, self._forms, strict=True)):
            if isinstance(memory := root(p), Memory) and memory.moved is not None:
                raise RuntimeError(f"params[{i}] is no layer's any more: {memory.moved}")
            if _form(p) != form:
                raise ValueError(
                    f"params[{i}] is {p.dtype} {p.shape} with the strides {p.strides}, but was "
                    f"{form[0]} {form[1]} with the strides {form[2]} when the "
                    f"{type(self).__name__} was made: give it that form back, and change the form "
                    f"of a view, params[{i}].view(), instead"
                )
            if not p.flags.writeable or not p.dtype.isnative:
                _checks.writable(f"params[{i}]", p)
        checked = []
        for i, ((name, g), p) in enumerate(zip(named.items(), self.params, strict=True)):
            checked.append(_checks.array(name, g, p.dtype, f"params[{i}]"))
            if g.shape != p.shape:
                cure = _cures.for_shape(name, g.shape, p.shape)
                if any(q.shape == g.shape for q in self.params):
                    cure = ": is this the order of params?"
                raise ValueError(f"{name} has shape {g.shape}, expected {p.shape}{cure}")
        if len(checked) > 1 and not self._lie_apart(checked):
            n = len(self.params)
            for i, j in _sharing.sharing([*self.params, *checked]):
                if i < n <= j and i != j - n:
                    raise ValueError(
                        f"grads[{j - n}] shares memory with params[{i}], which changes in the "
                        f"step: pass grads[{j - n}].copy()"
                    )
        return checked

    def _lie_apart(self, grads: list[Array]) -> bool:
        """Whether it is plain that no gradient shares memory with a parameter."""
        ours, theirs = _owners(self.params), _owners(grads)
        return None not in ours | theirs and not ours & theirs

    # The parameters keep sharing the weights of a layer that is copied or pickled with them.
    def __reduce__(self) -> Any:
        # They go another way than the state, of which a subclass may make what it likes.
        state: Any = self.__getstate__()
        if isinstance(state, dict):
            state = {name: value for name, value in state.items() if name not in _DERIVED}
        numbers = {name: getattr(self, name) for name in self._settable}
        params = [handed_over(p) for p in self.params]
        return _with_params, (type(self), params, self._state, numbers), state

    def __getstate__(self) -> Any:
        return self._all_attributes(_DERIVED)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_all(state)

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that the next step depends on, but the parameters.

        Returns
        -------
        dict
            Numbers under their names, arrays under names such as "exp_avg.0", one for each
            parameter, of its shape and dtype: as `fastrnn.save` takes it and `fastrnn.load` gives
            it back.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> fastrnn.optim.SGD([np.zeros(2)], lr=0.5, momentum=0.9).state_dict()
        {'lr': 0.5, 'momentum': 0.9, 'velocity.0': array([0., 0.])}
        """
        state = {name: getattr(self, name) for name in self._settable}
        for slot, arrays in self._state.items():
            state |= {f"{slot}.{i}": a.copy() for i, a in enumerate(arrays)}
        return state

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Set the state from what `state_dict` returned. All is checked before any is set.

        Parameters
        ----------
        d : mapping
            From an optimiser of this kind over parameters of these shapes and dtypes.

        Raises
        ------
        TypeError, ValueError
            If `d` is not the state of such an optimiser.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> sgd = fastrnn.optim.SGD([np.zeros(2)], lr=0.5)
        >>> other = fastrnn.optim.SGD([np.zeros(2)], lr=0.1)
        >>> other.load_state_dict(sgd.state_dict())
        >>> other.lr
        0.5
        """
        if not isinstance(d, Mapping):
            own = hasattr(d, "state_dict") and not isinstance(d, type)
            cure = ": pass d.state_dict()" if own else ""
            raise TypeError(f"d is {_cures.kind(d)}, expected a mapping{cure}")
        own = self.state_dict()
        if set(d) != set(own):
            cure = _cures.for_names("d", d, own)
            names = ", ".join(map(str, d)) or "nothing"
            raise ValueError(f"d has {names}; expected {', '.join(own)}{cure}")
        for name, value in own.items():
            if isinstance(value, np.ndarray):
                given = _checks.array(f"d[{name!r}]", d[name], value.dtype, "its parameter")
                if given.shape != value.shape:
                    raise ValueError(f"d[{name!r}] has shape {given.shape}, expected {value.shape}")
        self._check_slots(d)
        self._set_all(self._checked_numbers(d, "d[{!r}]"))
        for slot, arrays in self._state.items():
            for i, a in enumerate(arrays):
                a[...] = d[f"{slot}.{i}"]


# What follows from the parameters, or lies beside them.
_DERIVED = ("params", "_state", "_scratch", "_forms")


def _with_params(
    kind: type[_Optimizer],
    params: list[Any],
    state: Mapping[str, list[Array]],
    numbers: Mapping[str, Any],
) -> _Optimizer:
    """A copied optimiser before its state."""
    optimizer = kind.__new__(kind)
    handed = {"params": _Params(map(taken_over, params)), "_complete": True}
    optimizer._set_all({**numbers, **handed})
    # Arrays of its own, wherever those in the file are.
    optimizer._state = {
        slot: [np.array(a, np.dtype(a.dtype.type)) for a in arrays]
        for slot, arrays in state.items()
    }
    optimizer._prepare()
    return optimizer


class _Params(tuple["Array", ...]):
    """The parameters, which cannot be replaced."""

    __slots__ = ()

    def __setitem__(self, i: Any, value: Any) -> None:
        # params[0] *= 0.5 changes the array in place, and then stores that very array.
        if self[i] is not value:
            raise TypeError(
                f"params[{i}] cannot be replaced: write its elements, params[{i}][...] = value"
            )


def _betas(name: str, value: Any) -> tuple[float, float]:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}, expected two numbers")
    first, second = (_checks.fraction(f"{name}[{i}]", v) for i, v in enumerate(value))
    return first, second


class SGD(_Optimizer):
    """Gradient descent with momentum.

    At each step, with v = 0 at first [1]_::

        v = momentum · v + g        p = p - lr · v

    Parameters
    ----------
    params : ndarray or iterable of ndarray
        The arrays that `step` updates in place: layers' ``flat_weights``. No two of them may share
        memory.
    lr : float
        Learning rate, at least 0.
    momentum : float
        In [0, 1).

    Attributes
    ----------
    params : tuple of ndarray
        The arrays that `step` updates. The tuple is fixed; their elements may be written.
    lr, momentum : float
        As given; they can be set, and what is set is checked.

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

    _settable: ClassVar[Checks] = {"lr": _checks.bounded, "momentum": _checks.fraction}
    _slots = ("velocity",)

    lr: float
    momentum: float

    def __init__(self, params: Array | Iterable[Array], lr: float, momentum: float = 0.0) -> None:
        self._make(params, lr=lr, momentum=momentum)

    def step(self, grads: Array | Iterable[Array]) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        grads : ndarray or iterable of ndarray
            An array for each of `params`, in their order, of its shape and dtype: the
            ``flat_weights`` of layers' gradients. They are not changed.

        Raises
        ------
        TypeError, ValueError
            If a gradient is missing or does not fit; the error names it, and nothing has changed.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.RNN(3, 4, rng=0)
        >>> sgd = fastrnn.optim.SGD([layer.flat_weights], lr=0.1)
        >>> output, state, tape = layer.forward(np.ones((5, 2, 3), np.float32))
        >>> grads = layer.backward(tape, np.ones_like(output), wrt=["weights"])
        >>> sgd.step([grads.flat_weights])
        """
        given = self._checked_step(grads)
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

        m = β1 m + (1 - β1) g        v = β2 v + ((1 - β2) g) g
        p = p - lr / (1 - β1ᵗ) · m / (sqrt(v) · 1 / sqrt(1 - β2ᵗ) + eps)

    The powers are made by squaring, from the lowest binary digit of t on.

    Parameters
    ----------
    params : ndarray or iterable of ndarray
        The arrays that `step` updates in place: layers' ``flat_weights``. No two of them may share
        memory.
    lr : float
        Learning rate, at least 0.
    betas : tuple of float
        β1 and β2, each in [0, 1).
    eps : float
        Greater than 0.

    Attributes
    ----------
    params : tuple of ndarray
        The arrays that `step` updates. The tuple is fixed; their elements may be written.
    lr, eps : float
    betas : tuple of float
        As given; they can be set, and what is set is checked.
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

    _settable: ClassVar[Checks] = {
        "step_count": partial(_checks.size, minimum=0), "lr": _checks.bounded, "betas": _betas,
        "eps": partial(_checks.bounded, above=True),
    }  # fmt: skip
    _slots = ("exp_avg", "exp_avg_sq")

    step_count: int
    lr: float
    betas: tuple[float, float]
    eps: float

    def __init__(
        self,
        params: Array | Iterable[Array],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._make(params, step_count=0, lr=lr, betas=betas, eps=eps)

    def _check_slots(self, d: Mapping[str, Any]) -> None:
        for i in range(len(self.params)):
            name = f"exp_avg_sq.{i}"
            if (np.asarray(d[name]) < 0).any():
                raise ValueError(f"d[{name!r}] holds negative numbers: it is a mean of squares")

    def step(self, grads: Array | Iterable[Array]) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        grads : ndarray or iterable of ndarray
            An array for each of `params`, in their order, of its shape and dtype: the
            ``flat_weights`` of layers' gradients. They are not changed.

        Raises
        ------
        TypeError, ValueError
            If a gradient is missing or does not fit; the error names it, and nothing has changed.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.RNN(3, 4, rng=0)
        >>> adam = fastrnn.optim.Adam([layer.flat_weights], lr=0.1)
        >>> output, state, tape = layer.forward(np.ones((5, 2, 3), np.float32))
        >>> grads = layer.backward(tape, np.ones_like(output), wrt=["weights"])
        >>> adam.step([grads.flat_weights])
        """
        given = self._checked_step(grads)
        count = self.step_count + 1
        beta1, beta2 = self.betas
        rate = self.lr / (1 - _power(beta1, count))
        correction = 1 / math.sqrt(1 - _power(beta2, count))
        self._set_all({"step_count": count})
        with np.errstate(all="ignore"):
            for p, g, m, v, (t, u) in zip(
                self.params, given, self._state["exp_avg"], self._state["exp_avg_sq"],
                self._scratch, strict=True,
            ):  # fmt: skip
                real = p.dtype.type
                np.multiply(m, real(beta1), out=m)
                np.add(m, np.multiply(g, real(1 - beta1), out=t), out=m)
                np.multiply(v, real(beta2), out=v)
                # Made small before it is squared: gradients of 1e19 have squares in float32 too.
                np.multiply(g, real(1 - beta2), out=t)
                np.add(v, np.multiply(t, g, out=t), out=v)
                np.multiply(np.sqrt(v, out=t), real(correction), out=t)
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


def _owners(arrays: Iterable[Array]) -> set[int | None]:
    """Which arrays own the memory of these; None for what belongs to something else."""
    roots = map(root, arrays)
    owners = [root(r.array) if isinstance(r, Memory) else r for r in roots]
    return {id(o) if isinstance(o, np.ndarray) else None for o in owners}


def _form(p: Array) -> tuple[Any, ...]:
    return p.dtype, p.shape, p.strides
