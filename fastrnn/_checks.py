"""Argument checks, shared by the compiled functions and their reference implementations.

What concerns the recurrent cells is in reference/arguments.py, what concerns one function alone
beside its reference implementation.

Sharing it is what makes both backends raise the same errors. Every check runs before any work is
done and before anything is allocated.

Shapes are given as axes, a tuple of symbols such as ``("T", "B", "D")``, together with the sizes
that are known for some of the symbols; a symbol without a size matches any size.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import (
    Callable,
    Collection,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy import ndarray

from . import _cures
from ._cures import NO_ROLE, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)


# No product of sizes may pass this many elements of eight bytes: the largest that NumPy's and the
# kernel's signed sizes can count. A bound for float32 half as large as it could be costs nobody.
MAX_ELEMENTS = sys.maxsize // 8


RESHAPED = (
    "an array that the tape refers to was given another shape or dtype in place between forward "
    "and backward: the tape needs it as it was"
)


# ------------------------------------------------------------------------------ one array


def array(
    name: str,
    value: Any,
    dtype: np.dtype[Any] | None = None,
    owner: str = "x",
    role: Role = NO_ROLE,
) -> Array:
    """The value as a base-class array of float32 or float64 in native byte order.

    Parameters
    ----------
    name : str
        What the caller calls the argument.
    value : object
        What the caller passed.
    dtype : numpy.dtype or None
        The type that it must have, which is `owner`'s; None allows either.
    owner : str
        Whose type `dtype` is, for the error.
    role : Role
        What else is known of it, for the cure.

    Raises
    ------
    TypeError
        For anything but an array of the wanted type; the text holds the cure.
    """
    plain_array(name, value, dtype, role, FLOAT32)
    native = float_type(value)
    if native is None or (dtype is not None and native != dtype):
        expected = "expected float32 or float64" if dtype is None else f"{owner} is {dtype}"
        cure = _cures.for_dtype(name, value, dtype or FLOAT32, role)
        raise TypeError(f"{name} is {value.dtype}, {expected}{cure}")
    # asarray drops harmless subclasses such as memmap; it copies only to swap bytes.
    return np.asarray(value, native)


def float_type(value: Any) -> np.dtype[Any] | None:
    """Which of the two types an array is of, in whatever byte order; None for anything else."""
    if isinstance(value, ndarray) and not isinstance(value, np.ma.MaskedArray):
        native = value.dtype.newbyteorder("=")
        return FLOAT32 if native == FLOAT32 else FLOAT64 if native == FLOAT64 else None
    return None


def plain_array(
    name: str,
    value: Any,
    dtype: np.dtype[Any] | None = None,
    role: Role = NO_ROLE,
    default: np.dtype[Any] | None = None,
) -> None:
    """Raise TypeError unless the value is an array, and not a masked one.

    The types are for the cure: the one that it must have, or that it may be given.
    """
    if isinstance(value, ndarray) and not isinstance(value, np.ma.MaskedArray):
        return
    cure = _cures.for_object(name, value, dtype, role, default)
    raise TypeError(f"{name} is {_cures.kind(value)}, expected a numpy.ndarray{cure}")


def agreeing(
    names: Sequence[str],
    values: Sequence[Any],
    optional: Collection[str],
    roles: Callable[[], Mapping[str, Role]],
) -> list[Any]:
    """Arrays of one type: that of most of them, else of the first.

    Parameters
    ----------
    names, values : sequence
        What the caller calls the arguments, in their order, and what was passed.
    optional : collection of str
        Those that may be None, and stay so.
    roles : callable
        Returns what else is known of some of them, for cures.
    """
    first = values[0]
    if type(first) is ndarray and (first.dtype is FLOAT32 or first.dtype is FLOAT64):
        dtype = first.dtype
        for name, value in zip(names, values, strict=True):
            if type(value) is ndarray and value.dtype is dtype:
                continue
            if value is not None or name not in optional:
                break
        else:  # the most common form
            return list(values)
    types = [float_type(value) for value in values]
    known = [dtype for dtype in types if dtype is not None]
    wanted, owner = None, names[0]
    if known:
        wanted = max(dict.fromkeys(known), key=known.count)
        owner = next(name for name, own in zip(names, types, strict=True) if own is wanted)
    arrays: list[Any] = []
    faults: dict[str, str] = {}
    known_of = roles()
    for name, value in zip(names, values, strict=True):
        try:
            missing = value is None and name in optional
            role = known_of.get(name, NO_ROLE)
            arrays.append(None if missing else array(name, value, wanted, owner, role))
        except TypeError as error:
            faults[name] = str(error)
    if not faults:
        return arrays
    name, text = next(iter(faults.items()))
    alike = []
    for other, its in faults.items():
        said = re.sub(rf"\b{name}\b", other, text)
        if other != name and ": pass " in its and (said == its or said.startswith(its + ", ")):
            alike.append(other)
    raise TypeError(text + (f"; likewise {listed(alike, 'and')}" if alike else ""))


def shape(
    name: str,
    given: tuple[int, ...],
    axes: tuple[str, ...],
    sizes: Mapping[str, int],
    hint: str = "",
    cured: bool = False,
) -> None:
    """Raise ValueError unless the shape fits the axes.

    `hint` is put behind the error's text; if `cured` it is the cure, or there is none.
    """
    if len(given) == len(axes) and all(
        sizes.get(axis, n) == n for axis, n in zip(axes, given, strict=True)
    ):
        return
    letters, numbers = _tuple_text(axes), _tuple_text(str(sizes.get(axis, axis)) for axis in axes)
    expected = letters if letters == numbers else f"{letters} = {numbers}"
    cure = "" if cured else _cures.for_shape(name, given, tuple(map(sizes.get, axes)))
    raise ValueError(f"{name} has shape {given}, expected {expected}{hint}{cure}")


def _tuple_text(items: Any) -> str:
    items = tuple(items)
    return "(" + ", ".join(items) + (",)" if len(items) == 1 else ")")


def writable(name: str, value: Any) -> Array:
    """The value itself, if it is an array of float32 or float64 that can be changed in place."""
    if float_type(value) is None:
        # Not "pass np.asarray(...)": what is changed would then be thrown away.
        cure = _cures.for_writable(name, value)
        if not isinstance(value, ndarray) or isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"{name} is {_cures.kind(value)}, expected a numpy.ndarray{cure}")
        raise TypeError(f"{name} is {value.dtype}, expected float32 or float64{cure}")
    writable: Array = value
    if not (writable.dtype.isnative and writable.flags.writeable):
        why, cure = "is read-only", _cures.for_read_only(name, value)
        if not writable.dtype.isnative:
            why = "is not in native byte order"
            cure = f"write {name} = {name}.astype(np.{float_type(value)}), and go on with that"
        raise ValueError(f"{name} {why}; it is changed in place: {cure}")
    return writable


def place(
    name: str,
    out: Any,
    dtype: np.dtype[Any],
    owner: str,
    axes: tuple[str, ...],
    sizes: Mapping[str, int],
) -> Array:
    """Where a result is to be written, as the caller gave it, in the form that kernels take."""
    if writable(name, out).dtype != dtype:
        cure = f": pass np.empty({name}.shape, np.{dtype})"
        raise TypeError(f"{name} is {out.dtype}, {owner} is {dtype}{cure}")
    if type(out) is not ndarray:
        raise TypeError(f"{name} is {_cures.kind(out)}, expected a numpy.ndarray")
    shape(name, out.shape, axes, sizes, cured=True)
    if not out.flags.carray:
        raise ValueError(f"{name} is not C-contiguous and aligned: pass another array, or none")
    return out


def contiguous(a: Array) -> Array:
    """The array itself where it is C-contiguous and aligned, else a copy that is."""
    return a if a.flags.carray else np.require(a, requirements=("C", "A"))


def strided(a: Array) -> Array:
    """The (T, B, .) array itself where the kernel can walk it, else a C-contiguous copy.

    The kernel wants vectors of the last axis to be contiguous and the other strides to be whole
    elements; zero and negative strides are fine.
    """
    itemsize = a.itemsize
    step_t, step_b, step = a.strides
    if (
        (step == itemsize or a.shape[2] <= 1)
        and step_t % itemsize == 0
        and step_b % itemsize == 0
        and a.flags.aligned
    ):
        return a
    return contiguous(a)


def as_rows(a: Array) -> Array:
    """(..., n) as (N, n) with contiguous rows at any whole-element stride; a copy where need be."""
    rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    return rows if are_rows(rows) else contiguous(rows)


def are_rows(a: Array) -> bool:
    """Whether the kernel can walk this array (N, n)."""
    step, size = a.strides[0], a.itemsize
    unit = a.strides[1] == size or a.shape[1] <= 1 or not a.size
    return unit and step % size == 0 and a.flags.aligned and a.dtype.isnative


def _read(name: str, value: Any, expected: str, role: Role = NO_ROLE) -> Array:
    """The array that NumPy makes of an argument that need not be one."""
    if type(value) is ndarray:  # in less time
        return value
    if isinstance(value, np.ma.MaskedArray):  # np.asarray would drop the mask
        raise TypeError(f"{name} is {_cures.kind(value)}, expected {expected}, without a mask")
    if isinstance(value, Iterator | ValuesView | KeysView):
        cure = f": pass list({name})"
        raise TypeError(f"{name} is {_cures.kind(value)}, expected {expected}{cure}")
    if value is None:
        raise TypeError(f"{name} is None, expected {expected}: it cannot be left out")
    try:
        return np.asarray(value)
    except (ValueError, OverflowError):
        # Nested sequences of unequal lengths, or an integer that is too large.
        cure = _cures.for_object(name, value, None, role) if role.sequence else ""
        raise ValueError(f"{name} is ragged or too large, expected {expected}{cure}") from None
    except Exception:  # a tensor that NumPy cannot read, and whatever else objects raise
        cure = _cures.for_object(name, value, None)
        raise TypeError(f"{name} is {_cures.kind(value)}, expected {expected}{cure}") from None


def integers(
    name: str, value: Any, expected: str, classes: int | None = None, ragged: bool = False
) -> Array:
    """An array of any integer type, or a sequence of integers, as an int64 array of its own.

    For the cure: of how many things they are indices, and whether there may be unequal sequences.
    """
    padded = ", and hand lengths to what takes them"
    given = _read(name, value, expected, Role(sequence=ragged, padded=padded))
    if given.size == 0 and not isinstance(value, ndarray):
        given = given.astype(np.int64)  # an empty list has no type of its own
    if given.dtype.kind not in "iu":
        cure = _cures.for_integers(name, value, given, classes)
        raise TypeError(f"{name} holds {given.dtype}, expected {expected}{cure}")
    if given.dtype == np.uint64 and given.size and given.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {given.max()}, expected {expected}")
    return np.array(given, np.int64, order="C")


def booleans(name: str, value: Any, expected: str) -> Array:
    """A boolean array, or nested sequences of bool, as an array."""
    given = _read(name, value, expected)
    if given.size == 0 and not isinstance(value, ndarray):
        given = given.astype(bool)  # an empty list has no type of its own
    if given.dtype.kind != "b":
        cure = ""
        if given.dtype.kind in "iuf" and bool(((given == 0) | (given == 1)).all()):
            expression = f"{name}" if isinstance(value, ndarray) else f"np.asarray({name})"
            cure = f": pass {expression}.astype(bool)"
        raise TypeError(f"{name} holds {given.dtype}, expected bool{cure}")
    return given


def factors(name: str, value: Any, expected: str) -> Array:
    """Weights of something: real numbers, finite and at least 0, as a float64 array of its own."""
    given = _read(name, value, expected)
    if given.dtype.kind not in "iuf" and (given.size or isinstance(value, ndarray)):
        of_bool = f": pass np.asarray({name}, np.float64)" if given.dtype.kind == "b" else ""
        raise TypeError(f"{name} holds {given.dtype}, expected {expected}{of_bool}")
    found = np.array(given, np.float64, order="C")
    wrong = ~((found >= 0) & (found < math.inf))
    if wrong.any():
        at = np.unravel_index(int(wrong.argmax()), found.shape)
        where = f"[{', '.join(map(str, at))}]" if at else ""
        raise ValueError(f"{name}{where} is {given[at]}, expected a finite number >= 0")
    return found


def in_range(name: str, values: Array, count: int, of: str, cure: Callable[[], str] = str) -> None:
    """Raise ValueError unless 0 <= value < count for all of an integer array."""
    if values.size and (values.min() < 0 or values.max() >= count):
        at = np.unravel_index(int(((values < 0) | (values >= count)).argmax()), values.shape)
        where = f"[{', '.join(map(str, at))}]" if at else ""
        raise ValueError(
            f"{name}{where} is {values[at]}, expected 0 <= index < {of} = {count}{cure()}"
        )


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, ndarray) and value.ndim == 1)


def no_lengths(name: str, value: Any) -> None:
    """Raise TypeError where lengths were given in the place of a state."""
    if not _is_row(value) or not len(value):
        return
    kinds = value.dtype.kind if isinstance(value, ndarray) else {type(n) for n in value}
    if kinds == {int} or (isinstance(kinds, str) and kinds in "iu"):
        raise TypeError(
            f"{name} is {_cures.kind(value)} of integers, expected the state; lengths are given by "
            f"name, lengths={name}"
        )


def counted(
    shape_: tuple[int, ...], lengths: Any, mask: Any, axes: int, batch_first: bool = False
) -> tuple[Array | None, int]:
    """Which positions a loss counts, as booleans of `shape_` or None for all; and how many.

    Parameters
    ----------
    shape_ : tuple of int
        Of the positions, time first, or the batch if `batch_first`.
    lengths, mask
        As the caller gave them.
    axes : int
        A mask may have this many leading axes of `shape_`, or more.
    batch_first : bool
        Where there is one axis alone, it is time.
    """
    counts = None
    if lengths is not None:
        if not shape_:
            raise ValueError("lengths is given, but there is no time axis")
        if axes == 1 and _is_row(lengths) and len(lengths) > 1:
            raise ValueError(
                f"lengths has shape ({len(lengths)},), but there is one axis before the last, that "
                "of one sequence's steps: of last states leave lengths out, of (T, B) without "
                "features pass (T, B, 1)"
            )
        if axes == 1:
            counts = np.arange(shape_[0]) < lengths_array(lengths, shape_[0], 1, True)
        else:
            rows = batch_lengths(lengths, shape_, batch_first)
            counts = np.arange(shape_[batch_first])[:, None] < rows
            counts = counts.T if batch_first else counts
    if mask is not None:
        given = booleans("mask", mask, f"shape {shape_[:axes]}")
        if given.ndim < axes or given.shape != shape_[: given.ndim]:
            called = "mask" if isinstance(mask, ndarray) else "np.asarray(mask)"
            cure = _cures.for_shape(called, given.shape, shape_[:axes])
            raise ValueError(f"mask has shape {given.shape}, expected {shape_[:axes]}{cure}")
        counts = given if counts is None else given & _widened(counts, given.ndim)
    if counts is None:
        return None, math.prod(shape_)
    counts = np.array(np.broadcast_to(_widened(counts, len(shape_)), shape_), bool, order="C")
    return counts, int(np.count_nonzero(counts))


def _widened(a: Array, ndim: int) -> Array:
    return a.reshape(a.shape + (1,) * (ndim - a.ndim))


def rename(error: Exception, name: str, called: str) -> None:
    """Make an error that is about one argument say what the caller calls that."""
    text = str(error)
    if re.match(rf"{name}\b", text):
        error.args = (re.sub(rf"\b{name}\b", lambda _: called, text),)


# ------------------------------------------------------------------------------ small arguments


def flag(name: str, value: Any) -> bool:
    """The value as a bool; TypeError unless it is a Python or NumPy bool."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    cure = f": pass bool({name})" if isinstance(value, int | np.integer) and value in (0, 1) else ""
    raise TypeError(f"{name} is {_cures.shown(value)}, expected True or False{cure}")


def biases(name: str, value: Any) -> bool | Literal["single"]:
    """Which biases a recurrent layer has: True for both, False, or "single" for b_ih alone."""
    if isinstance(value, str):
        if value != "single":
            raise ValueError(f"{name} is {value!r}, expected True, False or 'single'")
        return "single"
    return flag(name, value)


def size(name: str, value: Any, minimum: int = 1) -> int:
    """The value as an int of at least `minimum`."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        whole = isinstance(value, float | np.floating) and float(value).is_integer()
        whole = whole or (isinstance(value, str) and value.isdecimal())
        cure = f": pass int({name})" if whole else ""
        raise TypeError(f"{name} is {_cures.shown(value)}, expected an integer{cure}") from None
    if number < minimum:
        raise ValueError(f"{name} is {number}, expected at least {minimum}")
    return number


def number(name: str, value: Any) -> float:
    """The value as a float; TypeError unless it is one number."""
    try:
        # float() takes text, the real part of a complex number and a bool in an array too.
        if isinstance(value, str | bytes | bytearray | bool) or (
            isinstance(value, ndarray | np.generic)
            and (value.ndim or value.dtype.kind not in "iuf")
        ):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        cure = ""
        if isinstance(value, str | bool | np.bool_):
            with suppress(ValueError, OverflowError):
                float(value)
                cure = f": pass float({name})"
        raise TypeError(f"{name} is {_cures.shown(value)}, expected a number{cure}") from None


def bounded(name: str, value: Any, minimum: float = 0.0, above: bool = False) -> float:
    """The value as a finite float, at least `minimum`, or greater if `above`."""
    given = number(name, value)
    if not (minimum < given if above else minimum <= given) or given == math.inf:
        sign = ">" if above else ">="
        raise ValueError(f"{name} is {value!r}, expected a finite number {sign} {minimum:g}")
    return given


def finite_in(name: str, value: float, dtype: np.dtype[Any]) -> None:
    """Raise ValueError where a number is NaN, or infinite in that type."""
    if not abs(value) <= float(np.finfo(dtype).max):
        raise ValueError(f"{name} is {value!r}, expected a number that is finite in {dtype}")


def is_one_number(value: Any) -> bool:
    """Whether something is one number, rather than an array or what should be one."""
    if isinstance(value, list | tuple):
        return False
    try:
        return value is not None and np.ndim(value) == 0
    except Exception:  # of whoever made that class
        return False


def numbers(name: str, value: Any, units: int, dtype: np.dtype[Any]) -> float | Array:
    """One number for all units, or an array (H,) of one for each; finite in that type."""
    if value is None or is_one_number(value):
        given = number(name, value)
        finite_in(name, given, dtype)
        return given
    role = Role(full=f"np.full({units}, {name})")
    plain_array(name, value, None, role, FLOAT64)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {value.dtype}, expected numbers")
    shape(name, value.shape, ("H",), {"H": units})
    for one in value:
        finite_in(f"an element of {name}", float(one), dtype)
    return np.asarray(value)


def fraction(name: str, value: Any) -> float:
    """The value as a float in [0, 1)."""
    number_ = number(name, value)
    if not 0 <= number_ < 1:
        raise ValueError(f"{name} is {value!r}, expected 0 <= {name} < 1")
    return number_


def float_dtype(name: str, value: Any) -> np.dtype[Any]:
    """The value as one of the two types that the package computes in."""
    try:
        given = np.dtype(value)
    except (TypeError, ValueError, SyntaxError):  # NumPy parses strings
        given = np.dtype(object)
    for dtype in (FLOAT32, FLOAT64):
        if given == dtype and value is not None:  # None is NumPy's way of saying float64
            return dtype
    plain = str(value).removeprefix("torch.")
    cure = f": pass '{plain}'" if plain != value and plain in ("float32", "float64") else ""
    raise TypeError(f"{name} is {_cures.shown(value)}, expected 'float32' or 'float64'{cure}")


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """The value, one of a few strings."""
    if isinstance(value, str) and value in choices:
        return str(value)
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name} is {value!r}, expected {listed([repr(one) for one in choices])}")


def listed(words: Collection[str], joined: str = "or") -> str:
    """The words as a text lists them: "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} {joined} {last}" if others else last


def generator(name: str, value: Any) -> np.random.Generator:
    """What `numpy.random.default_rng` makes of a seed, a Generator or None."""
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        given = _cures.shown(value)
        text = f"{name} is {given}, expected an integer >= 0, a numpy.random.Generator or None"
        raise type(error)(text + _cures.for_seed(name, value)) from None


def names(name: str, value: Any, valid: Collection[str], note: str = "") -> frozenset[str]:
    """A collection of names, each one of `valid`; None stands for all of them.

    The note says of what is not valid why.
    """
    if value is None:
        return frozenset(valid)
    listed = f"names out of {', '.join(map(repr, valid))}" if valid else "no names"
    if isinstance(value, str) or not isinstance(value, Collection):
        cure = f": pass [{name}]" if isinstance(value, str) and value in valid else ""
        given = _cures.shown(value)
        raise TypeError(f"{name} is {given}, expected a collection of {listed}{cure}")
    for item in value:
        if not isinstance(item, str) or item not in valid:
            near = get_close_matches(item, valid, 1) if isinstance(item, str) else ()
            cure = f": did you mean {near[0]!r}?" if near else note and f": {note}"
            raise ValueError(f"{name} holds {_cures.shown(item)}, expected {listed}{cure}")
    return frozenset(value)


def elements(**sizes: int) -> None:
    """Raise ValueError where an array of these sizes could not be counted in 64 bits."""
    product = 1
    for n in sizes.values():
        product *= n or 1  # NumPy bounds the product of the other sizes even where one is zero
    if product > MAX_ELEMENTS:
        raise ValueError(
            f"an array of {' x '.join(sizes)} = {' x '.join(map(str, sizes.values()))} elements "
            "is larger than the address space"
        )


def batch_lengths(lengths: Any, shape_: tuple[int, ...], batch_first: bool) -> Array:
    """The lengths as a fresh int64 array (B,), for (T, B, ...), or (B, T, ...) if `batch_first`."""
    steps, batch = shape_[batch_first], shape_[not batch_first]
    cure = f": did you mean batch_first={not batch_first}?"
    return lengths_array(lengths, steps, batch, cure_if_other=cure)


def lengths_array(
    lengths: Any, steps: int, batch: int, unbatched: bool = False, cure_if_other: str = ""
) -> Array:
    """The lengths as a fresh int64 array of shape (B,).

    Parameters
    ----------
    lengths : integer sequence
        One length a row, ``0 <= length <= steps``; one integer will do where `unbatched`.
    steps, batch : int
        T and B.
    unbatched : bool
        Whether the caller gave one sequence without a batch axis.
    cure_if_other : str
        For the error, where the lengths would fit if T were B and B were T.
    """
    expected = f"{batch} integer{'s' if batch != 1 else ''} between 0 and {steps}"
    given = _read("lengths", lengths, expected)
    if given.dtype.kind == "O" and isinstance(lengths, list | tuple):
        for i, value in enumerate(lengths):  # integers too large for any integer type
            if isinstance(value, int) and not 0 <= value <= steps:
                raise ValueError(f"lengths[{i}] is {value}, expected 0 <= length <= T = {steps}")
    if given.size == 0 and not isinstance(lengths, ndarray):
        given = given.astype(np.int64)  # an empty list has no type of its own
    mixed = isinstance(lengths, list | tuple) and any(
        isinstance(value, bool | np.bool_) for value in lengths
    )
    if given.dtype.kind not in "iu" or mixed:
        kind = "bool" if mixed else str(given.dtype)
        cure = "" if mixed else _cures.for_integers("lengths", lengths, given)
        prefix = given.dtype.kind == "b" and given.shape == (steps, batch) and steps != batch
        if prefix and not (given[1:] & ~given[:-1]).any():  # the beginning of each sequence
            cure = ": pass np.sum(lengths, axis=0)"
        raise TypeError(f"lengths holds {kind}, expected {expected}{cure}")
    if unbatched and given.ndim == 0:
        given = given.reshape(1)
    if given.shape != (batch,):
        other = given.shape == (steps,) and ((given >= 0) & (given <= batch)).all()
        cure = cure_if_other if other else ""
        if given.ndim == 0:
            cure = f": pass np.full({batch}, lengths)"
        elif given.shape in ((batch, 1), (1, batch)):
            cure = ": pass np.ravel(lengths)"
        raise ValueError(f"lengths has shape {given.shape}, expected (B,) = ({batch},){cure}")
    wrong = (given < 0) | (given > steps)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"lengths[{i}] is {given[i]}, expected 0 <= length <= T = {steps}")
    return given.astype(np.int64)


def restart_array(restart: Any, axes: tuple[str, ...], sizes: Mapping[str, int]) -> Array:
    """The restarts as a fresh C-contiguous boolean array with these axes."""
    return _step_flags("restart", restart, axes, sizes)


def _step_flags(name: str, value: Any, axes: tuple[str, ...], sizes: Mapping[str, int]) -> Array:
    given = booleans(name, value, f"shape {_tuple_text(axes)}")
    wanted = tuple(sizes[axis] for axis in axes)
    hint = ""
    if len(axes) == 2 and given.shape == (sizes["T"],):
        of_all = f"np.reshape({name}, (-1, 1))" if axes[0] == "T" else name
        hint = f": pass np.broadcast_to({of_all}, {wanted}) if it is that of all sequences"
    elif len(axes) == 2 and given.shape == wanted[::-1] != wanted:
        hint = f": pass np.transpose({name})"
    shape(name, given.shape, axes, sizes, hint, cured=True)
    return np.array(given, bool, order="C")


def told_of_steps(
    lengths: Any, mask: Any, restart: Any, axes: tuple[str, ...], steps: int, batch: int
) -> tuple[Array | None, Array | None, Array | None]:
    """Which steps count, and which start afresh: what forward was told, as fresh arrays.

    Parameters
    ----------
    lengths, mask, restart
        As the caller gave them, or None.
    axes : tuple of str
        The caller's: ("T", "B"), ("B", "T"), or ("T",) for one sequence.
    steps, batch : int
        T and B.

    Returns
    -------
    lengths : ndarray or None
        (B,) of int64. None where there is a mask, which then says this too.
    mask, restart : ndarray or None
        (T, B) of bool, C-contiguous.
    """
    sizes = {"T": steps, "B": batch}
    if lengths is not None:
        lengths = lengths_array(lengths, steps, batch, len(axes) == 1)
    flags = []
    for name, value in (("mask", mask), ("restart", restart)):
        if value is not None:
            value = _step_flags(name, value, axes, sizes)
            value = np.ascontiguousarray(value.T if axes[0] == "B" else value.reshape(steps, batch))
        flags.append(value)
    mask, restart = flags
    if mask is not None and lengths is not None:
        mask &= np.arange(steps)[:, None] < lengths
        lengths = None
    return lengths, mask, restart


def _plain(a: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    return type(a) is ndarray and a.dtype is dtype and a.shape == shape and a.flags.carray


def sequence_axes(x: Array, first: str, second: str, features: int | None = None) -> bool:
    """Check the rank of x; whether it is one sequence without a batch axis.

    `features` is D, where that is known.
    """
    if x.ndim not in (2, 3):
        cure = ": pass x[:, None]" if x.ndim == features == 1 else ""
        raise ValueError(
            f"x has shape {x.shape}, expected ({first}, {second}, D), or (T, D) for one sequence"
            f"{cure}"
        )
    return x.ndim == 2


# ------------------------------------------------------------------------------ backward


def tape(value: Any, kind: type, function: str) -> None:
    """Raise TypeError unless the value is a tape of this cell."""
    if not isinstance(value, kind):
        given = "None (was it made with record=False?)" if value is None else _cures.kind(value)
        cure = ""
        if isinstance(value, tuple) and value and isinstance(value[-1], kind):
            cure = ": of all that it returns pass tape[-1]"
        elif isinstance(getattr(value, "tapes", None), dict):  # of a model
            fit = [n for n, t in value.tapes.items() if isinstance(t, kind)]
            fit = fit or [n for n, t in value.tapes.items() if hasattr(t, "tapes")]
            cure = f": pass tape.tapes[{fit[0]!r}]" if fit else ""
        elif hasattr(value, "tapes"):
            cure = ": pass it to the backward of the layer that made it"
        expected = f"the {kind.__name__} that {function} returns"
        raise TypeError(f"tape is {given}, expected {expected}{cure}")


def rows_gradient(name: str, value: Any, shape_: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """d_output of this shape, as rows (N, n)."""
    if not _plain(value, dtype, shape_):
        role = Role(full=f"np.full({shape_}, {name}, np.{dtype})")
        value = array(name, value, dtype, "the tape", role)
        if value.shape != shape_:
            cure = _cures.for_shape(name, value.shape, shape_)
            raise ValueError(f"{name} has shape {value.shape}, expected {shape_}{cure}")
    return as_rows(value)


def some_gradient(**given: Any) -> None:
    """Raise ValueError where every incoming gradient is missing."""
    if all(value is None for value in given.values()):
        raise ValueError(f"{listed(given, 'and')} are None: give at least one of them")


def state_pair(
    name: str, state: Any, rest: str = "", axes: int = 3, optional: bool = True
) -> tuple[Any, Any]:
    """The two elements of an LSTM's state, or of its gradient.

    For the cure: `rest` is the c that goes with an h given alone, which has so many axes;
    `optional` says whether there need be no state.
    """
    expected = "expected a pair of arrays, (h, c)"
    if not isinstance(state, tuple | list):
        cure = ""
        if isinstance(state, ndarray) and state.ndim == axes + 1 and len(state) == 2:
            cure = f": pass tuple({name})"
        elif isinstance(state, ndarray) and rest:
            cure = f": pass ({name}, {rest.format(name)}), if it is h alone"
        raise TypeError(f"{name} is {_cures.kind(state)}, {expected}{cure}")
    results = [i for i, part in enumerate(state) if isinstance(part, tuple | list)]
    if results and len(state[results[0]]) == 2:  # the pair inside of what a layer returns
        raise TypeError(f"{name} holds a tuple, {expected}: pass {name}[{results[0]}]")
    if len(state) != 2:
        cure = ""
        if len(state) == 1 and isinstance(state[0], ndarray) and rest:
            cure = f": pass ({name}[0], {rest.format(name + '[0]')}), if it is h alone"
        count = f"{len(state)} element{'s' if len(state) != 1 else ''}"
        raise ValueError(f"{name} has {count}, {expected}{cure}")
    if optional and state[0] is state[1] is None and not name.startswith("d_"):
        raise TypeError(f"{name} is (None, None), {expected}: pass None")
    return state[0], state[1]


# ------------------------------------------------------------------------------ arrays of a list


class Gradients(Protocol):
    """What the backward of a layer or a model returns, as far as optimisers and clipping go."""

    @property
    def flat_weights(self) -> Any: ...

    def _asdict(self) -> dict[str, Any]: ...


def flat_gradient(name: str, grads: Any) -> Array:
    """All gradients of weights among those of a layer or model, in one array."""
    flat: Array | None = grads.flat_weights
    if flat is None:
        raise ValueError(
            f"{name}.flat_weights is None, as wrt left the weights out: pass wrt=['weights'] to "
            "backward"
        )
    if sum(a.size for a in grads.weights.values()) > flat.size:
        raise ValueError(
            f"{name} are of a tied layer, whose weight is the embedding's: add "
            f"{name}.weights['weight'] to that one's, and pass lists of arrays"
        )
    return flat


def arrays(name: str, given: Any) -> dict[str, Any]:
    """An array or several, under what the caller calls each.

    What is in a list is not looked at but for the cure.
    """
    if isinstance(given, ndarray):
        return {name: given}
    if type(given) in (list, tuple) and given and all(type(a) is ndarray for a in given):
        return {f"{name}[{i}]": a for i, a in enumerate(given)}  # in less time
    text = _cures.for_collection(name, given)
    listed = [] if text else list(given)
    if text := text or _cures.for_elements(name, listed):
        raise TypeError(text)
    return {f"{name}[{i}]": a for i, a in enumerate(listed)}
