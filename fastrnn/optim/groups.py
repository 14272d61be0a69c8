"""Groups of parameters, each with options of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import _checks, _sharing
from .._attributes import Guarded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._attributes import Checks

    Array = NDArray[Any]


Rate = float | Callable[[int], float]


class Optioned(Guarded):
    """What has groups says which options these have, and how they are checked."""

    _options: ClassVar[Checks]
    _frozen: ClassVar[tuple[str, ...]] = ()  # options that matter at the start alone

    @classmethod
    def _consistent(cls, options: Mapping[str, Any]) -> None:
        """Raise ValueError where options do not go together."""


def rate(name: str, value: Any) -> Any:
    """A learning rate: a number, or a function of the number of steps that were made before."""
    if hasattr(value, "get_last_lr"):
        raise TypeError(
            f"{name} is a schedule of an optimiser, expected a number or a function of the step: "
            "pass a number, make the schedule of this optimiser, and call its step()"
        )
    if callable(value) and not isinstance(value, type):
        return value
    return _checks.bounded(name, value)


class Params(tuple["Array", ...]):
    """The parameters, which cannot be replaced."""

    __slots__ = ()

    def __setitem__(self, i: Any, value: Any) -> None:
        # params[0] *= 0.5 changes the array in place, and then stores that very array.
        if self[i] is not value:
            raise TypeError(
                f"params[{i}] cannot be replaced: write its elements, params[{i}][...] = value"
            )


class Group(MutableMapping[str, Any]):
    """Parameters and the options that they share, under their names; what is set is checked.

    ``group["params"]`` is a tuple of arrays.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> sgd = fastrnn.optim.SGD([{"params": [np.ones(2)]}, {"params": [np.ones(3)], "lr": 0.5}])
    >>> [group["lr"] for group in sgd.param_groups]
    [0.001, 0.5]
    >>> sgd.param_groups[0]["lr"] = 0.25
    """

    __slots__ = ("_initial_lr", "_kind", "_options", "_params")

    def __init__(
        self, kind: type[Optioned], params: tuple[Array, ...], options: dict[str, Any]
    ) -> None:
        self._kind, self._params = kind, Params(params)
        self._options = options
        # The rate before any schedule changed it, as long as nobody else sets it.
        self._initial_lr: float | None = None

    # Each is itself: comparing arrays makes arrays.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, name: str) -> Any:
        return self._params if name == "params" else self._options[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self._options))

    def __len__(self) -> int:
        return 1 + len(self._options)

    def _checked(self, name: str, value: Any) -> dict[str, Any]:
        """All options, with a new value of one; an error where it does not fit."""
        if name == "params":
            raise TypeError(
                "params of a group cannot be replaced: make another optimiser, or write the "
                "elements of these, group['params'][0][...] = value"
            )
        known(self._kind, "the group", name)
        if name in self._kind._frozen:
            raise TypeError(
                f"{name} was used when the {self._kind.__name__} was made: make another one"
            )
        options = self._options | {name: self._kind._options[name](name, value)}
        self._kind._consistent(options)
        return options

    def _replace(self, options: dict[str, Any]) -> None:
        """Set all options, which are checked."""
        if options["lr"] is not self._options["lr"]:
            self._initial_lr = None
        self._options = options

    def _schedule(self, value: float) -> None:
        """Set the rate as a schedule does."""
        self._options = self._options | {"lr": value}

    def __setitem__(self, name: str, value: Any) -> None:
        self._replace(self._checked(name, value))

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name!r} cannot be deleted: set it to another value")

    def __repr__(self) -> str:
        shapes = [p.shape for p in self._params]
        return f"Group(params of shapes {shapes}, {self._options})"


def known(kind: type[Optioned], what: str, name: Any) -> None:
    """Raise ValueError unless it is the name of an option."""
    if name not in kind._options:
        near = get_close_matches(name, kind._options, 1, 0.6) if isinstance(name, str) else ()
        cure = f": did you mean {near[0]!r}?" if near else ""
        expected = _checks.listed(list(map(repr, kind._options)))
        raise ValueError(f"{what} has the option {name!r}, expected {expected}{cure}")


def grouped(kind: type[Optioned], params: Any, defaults: dict[str, Any]) -> list[Group]:
    """The groups of a constructor's params, which are arrays or mappings with options."""
    if isinstance(params, Iterator):
        params = list(params)
    if not _are_groups(params):
        named = _checks.arrays("params", params)
        arrays = _writable(named)
        _sharing.distinct("params", arrays)
        return [Group(kind, tuple(arrays), dict(defaults))]
    groups: list[Group] = []
    all_named: dict[str, Array] = {}
    for i, given in enumerate(params):
        called = f"params[{i}]['params']"
        named = _checks.arrays(called, given["params"])
        arrays = _writable(named)
        all_named |= dict(zip(named, arrays, strict=True))
        options = dict(defaults)
        for name, value in given.items():
            if name == "params":
                continue
            known(kind, f"params[{i}]", name)
            options[name] = kind._options[name](f"params[{i}][{name!r}]", value)
        kind._consistent(options)
        groups.append(Group(kind, tuple(arrays), options))
    _sharing.distinct("params", all_named)
    return groups


def _are_groups(params: Any) -> bool:
    if not isinstance(params, list | tuple):
        return False
    are = [isinstance(g, Mapping) and "params" in g for g in params]
    if any(are) and not all(are):
        i, j = are.index(False), are.index(True)
        array = isinstance(params[i], np.ndarray)
        cure = f": pass {{'params': params[{i}]}}" if array else ""
        raise TypeError(f"params[{i}] is no group with 'params', as params[{j}] is{cure}")
    return any(are)


def _writable(named: Mapping[str, Any]) -> list[Array]:
    if not named:
        raise ValueError(
            "params is empty, expected at least one array (an iterator that was gone "
            "through before has none left: make a list of it first)"
        )
    return [_checks.writable(name, p) for name, p in named.items()]
