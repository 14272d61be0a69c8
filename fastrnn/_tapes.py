"""What tapes share: they copy, pickle and compare as one thing, and can notice a change."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy import ndarray

from ._checks import contiguous, strided

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

    # ``Array | MaybeNone``, as in typeshed: an array, and None only where the caller left it out,
    # who knows that. So it may be used as an array without a check, and mypy still knows its type.
    MaybeNone = Any

_OURS = __name__.partition(".")[0] + "."  # how the names of the package's modules begin

Digests = tuple[tuple[str, bytes], ...]


class Tape:
    """Mixed into a named tuple, makes a tape: it copies, pickles and compares as one thing."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return rebuild, (type(self), tuple(self))  # type: ignore[arg-type]

    # Two tapes are the same only if they are one: comparing the arrays would be ambiguous.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)


Gradients = TypeVar("Gradients")


def changed_in_place(kind: type[Gradients]) -> type[Gradients]:
    """Class decorator of gradients: ``grads.x *= 2`` works, anything else is refused with a cure.

    That statement changes the array in place, and then stores that very array.
    """

    def set_in_place(grads: Any, name: str, value: Any) -> None:
        if name not in grads._fields:
            raise AttributeError(missing(grads, name))
        if (own := getattr(grads, name)) is not value:
            cure = f"write its elements, grads.{name}[...] = value"
            if own is None:
                cure = "it is None, as it was left out by wrt, or the argument was"
            elif not isinstance(own, ndarray):
                cure = "write the elements of its arrays"
            raise AttributeError(f"{name} of {type(grads).__name__} cannot be replaced: {cure}")

    def missing(grads: Any, name: str) -> str:
        text = f"{type(grads).__name__!r} object has no attribute {name!r}"
        if "weights" in grads._fields and name in (grads.weights or ()):
            return f"{text}: it is grads.weights[{name!r}]"
        return f"{text}: it has {', '.join(grads._fields)}"

    def get_missing(grads: Any, name: str) -> Any:
        raise AttributeError(missing(grads, name), name=name, obj=grads)

    def described(grads: Any) -> str:
        # Shapes, as the numbers would fill pages.
        fields = (f"{n}={_shapes(a)}" for n, a in grads._asdict().items())
        return f"{type(grads).__name__}({', '.join(fields)})"

    kind.__repr__ = described  # type: ignore[method-assign]
    kind.__getattr__ = get_missing  # type: ignore[attr-defined]
    kind.__setattr__ = set_in_place  # type: ignore[method-assign]
    return kind


def _shapes(value: Any) -> str:
    """The shapes of arrays, in tuples and dicts of them too."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_shapes, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{n!r}: {_shapes(a)}' for n, a in value.items())}}}"
    return f"array{value.shape}" if isinstance(value, ndarray) else repr(value)


def as_made(tape: Any) -> Any:
    """The tape itself; of a subclass, its fields in the class that forward makes.

    A subclass may answer otherwise each time that it is asked. What is checked is what is used.
    """
    if type(tape).__module__.startswith(_OURS):
        return tape
    for kind in type(tape).__mro__:
        if kind.__module__.startswith(_OURS):
            break
    return kind._make(tuple.__iter__(tape))  # type: ignore[attr-defined]


def rebuild(kind: Any, fields: tuple[Any, ...]) -> Any:
    """A tape from the fields of a copied or unpickled one.

    Copying and unpickling may change an array's strides, alignment or byte order; the kernel
    trusts a tape, so the arrays are brought back into the form that forward gave them.
    """
    return kind._make(_rebuilt(field) for field in fields)


def _rebuilt(field: Any) -> Any:
    if not isinstance(field, ndarray):
        return field
    field = np.asarray(field, field.dtype.newbyteorder("="))
    return strided(field) if field.ndim == 3 else contiguous(field)


def digests(**arrays: Array | None) -> Digests:
    """A digest of each array, to tell later whether it was changed."""
    return tuple(
        (name, hashlib.blake2b(f"{a.dtype} {a.shape} ".encode() + a.tobytes()).digest())
        for name, a in arrays.items()
        if a is not None
    )


def unchanged(tape: Any) -> None:
    """Raise RuntimeError where an array of a tape made with ``check=True`` has changed since."""
    for name, before in tape.digests or ():
        if digests(**{name: getattr(tape, name)}) != ((name, before),):
            raise RuntimeError(
                f"{name} was changed between forward and backward, which needs it as it was: "
                "change it after backward, or change a copy of it"
            )
