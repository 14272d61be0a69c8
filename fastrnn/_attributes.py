"""Attributes that mean something: what may be changed is checked when it is set, the rest refused.

Reading stays plain: the values are the object's own and no property is in the way. Who names an
object's ``__dict__`` makes every later reading slower (CPython then keeps a dict for it), so
constructors do not: what is set unchecked is set by `_set_all`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, ClassVar

Check = Callable[[str, Any], Any]  # from a name and a value to the value to keep, or an error
Checks = dict[str, Check]

_PACKAGE = __name__.partition(".")[0]


class Guarded:
    """Mixed into a class, guards the public attributes of its objects.

    Names with an underscore in front pass. A user's subclass may have attributes of its own, but
    not under the names of ours.
    """

    _settable: ClassVar[Checks] = {}  # what may be changed, and how it is checked
    _fixed: ClassVar[Iterable[str]] = ()  # what is said once, when the object is made
    _complete = False  # whether the constructor has been through

    def _checked(self, name: str, value: Any) -> Any:
        """The value of a settable attribute as it is kept; an error if it does not fit."""
        return self._settable[name](name, value)

    def _refusal(self, name: str) -> str | None:
        """Why this attribute cannot be set, and the cure; None where it is not one of ours."""
        if name in self._fixed:
            return f"{name} was fixed when the {type(self).__name__} was made: make another one"
        return None

    if not TYPE_CHECKING:  # to type checkers it would say that any attribute can be set

        def __setattr__(self, name: str, value: Any) -> None:
            if name in self._settable:
                value = self._checked(name, value)
            elif not name.startswith("_"):
                self._refuse(name)
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._settable:
            raise AttributeError(f"{name} cannot be deleted: set it to another value")
        if text := self._refusal(name):
            raise AttributeError(text)
        super().__delattr__(name)

    def _refuse(self, name: str) -> None:
        """Raise AttributeError unless the attribute is one that a user's class may have."""
        if text := self._refusal(name):
            raise AttributeError(text)
        kind = type(self)
        if kind.__module__.partition(".")[0] != _PACKAGE or _has_setter(kind, name):
            return
        if hasattr(kind, name):
            raise AttributeError(
                f"{kind.__name__}.{name} cannot be replaced: define it in a subclass"
            )
        public = {n for n in dir(self) if not n.startswith("_")}
        known = sorted({*self._settable} | {n for n in public if _has_setter(kind, n)})
        text = f"{kind.__name__} has no attribute {name}"
        if near := get_close_matches(name, known, 1, 0.6):
            raise AttributeError(f"{text}: did you mean {near[0]}?")
        can_be = f": {', '.join(known)} can be set" if known else ""
        raise AttributeError(f"{text}{can_be}; a subclass may have attributes of its own")

    def _all_attributes(self, but: Container[str]) -> dict[str, Any]:
        """What a copy is to have: the attributes, and those in a subclass's slots."""
        state: Any = object.__getstate__(self)
        if isinstance(state, tuple):
            state = (state[0] or {}) | state[1]
        return {name: value for name, value in state.items() if name not in but}

    def _set_all(self, state: Mapping[str, Any]) -> None:
        """Set attributes, unchecked."""
        for name, value in state.items():
            attribute = getattr(type(self), name, None)
            if hasattr(attribute, "__set__") and not isinstance(attribute, MemberDescriptorType):
                self.__dict__[name] = value  # under a property of that name
            else:
                object.__setattr__(self, name, value)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Where what is inside fails, the object has the attributes that it had before."""
        if not self._complete:  # nobody has it yet
            yield
            self._complete = True
            return
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise


def _has_setter(kind: type, name: str) -> bool:
    attribute = getattr(kind, name, None)
    return isinstance(attribute, property) and attribute.fset is not None


def completions(module: Mapping[str, Any], *also: str) -> Callable[[], list[str]]:
    """The ``__dir__`` of a module: what is in ``__all__``, not what it happens to import.

    `also` are modules that belong to it once somebody has imported them.
    """

    def names() -> list[str]:
        dunder = (name for name in module if name.startswith("__"))
        return sorted({*module["__all__"], *dunder, *(name for name in also if name in module)})

    return names


def warn(text: str) -> None:
    """A UserWarning that points at the line outside of the package from where it was reached."""
    level, frame = 1, sys._getframe().f_back
    while frame is not None and _inside(frame.f_globals.get("__name__")):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=level + 1)


def _inside(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == _PACKAGE
