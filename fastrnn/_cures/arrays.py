"""Cures for single arguments: arrays, integers, seeds."""

from __future__ import annotations

import math
import random
import sys
import warnings
from collections.abc import Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import ndarray

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Role(NamedTuple):
    """What is known of an array's place, from which a cure may follow."""

    full: str = ""  # the array that a number stands for; where there may be none, 0 is None
    optional: bool = False
    sequence: bool = False  # of steps, as a recurrent layer reads it
    features: int | None = None  # how many a step of it has
    batch_first: bool = False
    padded: str = " and pass lengths=lengths"  # behind the cure for unequal sequences, if any
    pair: bool = False  # whether it is one of the two states of a cell, h and c


NO_ROLE = Role()


def an(word: str) -> str:
    """The word behind its article: a list, an LSTM, an ndarray."""
    letters = "AEFHILMNORSX" if word[:2].isupper() or len(word) == 1 else "AEIOaeio"
    vowel = word[:1] in letters or word == "ndarray"
    return f"{'an' if vowel else 'a'} {word}"


def kind(value: Any) -> str:
    """What a value is: None, a list, an LSTM."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else an(type(value).__name__)


def shown(value: Any) -> str:
    """The value as an error shows it: what it is, where its own text is long."""
    if isinstance(value, ndarray) and value.ndim:
        return f"{kind(value)} of shape {value.shape}"
    text = repr(value)
    return text if len(text) <= 80 and "\n" not in text else kind(value)


# ------------------------------------------------------------------------------ arrays


def for_object(
    name: str,
    value: Any,
    dtype: np.dtype[Any] | None,
    role: Role = NO_ROLE,
    default: np.dtype[Any] | None = None,
) -> str:
    """The cure for what is no array; `default` is the type to make, where it is free."""
    if value is None:
        zeros = f", pass np.zeros_like({name[:-2]}0])" if name.endswith("state[1]") else ""
        return f": it cannot be left out{zeros}"
    if isinstance(value, type):
        return ""
    sparse = sys.modules.get("scipy.sparse")
    if isinstance(value, np.ma.MaskedArray):
        cast = _cast(value.dtype, dtype, default)
        return f": a mask has no meaning here, pass {name}.filled(0){cast}"
    if is_tensor(value):
        return for_tensor(name, value, dtype, default)
    if sparse is not None and sparse.issparse(value):
        return f": pass {name}.toarray(){_cast(value.dtype, dtype, default)}"
    if isinstance(value, tuple | list):
        if cure := _for_results(name, value, role):
            return cure
        if role.optional and not value:
            return ": pass None"
    if isinstance(value, bool | int | float | np.generic):
        if role.optional and value == 0:
            return ": pass None"
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        return f": pass {role.full}" if role.full and is_number else ""
    if isinstance(value, Iterator | ValuesView | KeysView):
        return f": pass list({name})" if role.sequence else f": pass np.asarray(list({name}))"
    wanted = dtype or default
    rows = ""
    if role.sequence and isinstance(value, list | tuple):
        rows = _for_rows(name, value, wanted, role)
    if rows or not converts(value, wanted):
        return rows
    axes = ""
    if role.sequence and np.ndim(value) == 3:
        axes = f", of axes {'(B, T, D)' if role.batch_first else '(T, B, D)'}"
    target = "" if wanted is None else f", dtype=np.{wanted}"
    return f": pass np.asarray({name}{target}){axes}"


def for_dtype(name: str, value: Array, dtype: np.dtype[Any], role: Role = NO_ROLE) -> str:
    """The cure for an array of another type than this."""
    letter = value.dtype.kind
    if letter == "c":
        return f": pass {name}.real.astype(np.{dtype}), or the parts as two features"
    cure = ""
    if role.sequence and letter in "iu":
        cure = _for_indices(name, value, dtype, role)
    elif role.sequence and letter == "O" and value.ndim == 1:
        cure = _for_rows(name, list(value), dtype, role)
    if cure or not (letter in "biuf" or converts(value, dtype)):
        return cure
    return f": pass {name}.astype(np.{dtype})"


def for_shape(name: str, given: tuple[int, ...], expected: tuple[int | None, ...]) -> str:
    """The cure for an array of another shape than this, in which None is any size."""
    if None in expected:
        if name == "x" and len(given) == 2 and expected == (None, 1):
            return f": pass {name}[..., None] if it is of steps and sequences"
        return ""
    if given == ():
        return f": pass np.full({expected}, {name})"
    if len(given) == 2 and given == expected[::-1]:
        return f": pass {name}.T"
    merged = math.prod(given[:2]), *given[2:]  # the gates of a weight, in an axis of their own
    of_weight = name.startswith(("w_", "b_", "d["))
    if (of_weight and merged == expected) or squeezed(given) == squeezed(expected):
        return f": pass {name}.reshape{expected}"
    return ""


def squeezed(shape: tuple[int | None, ...]) -> list[int | None]:
    """The shape without axes of one."""
    return [n for n in shape if n != 1]


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def for_tensor(
    name: str, value: Any, dtype: np.dtype[Any] | None, default: np.dtype[Any] | None = None
) -> str:
    """The cure for a tensor."""
    if value.is_complex():
        real = from_tensor(f"{name}.real", value.detach().real, dtype or default)
        return f": pass {real}, or the parts as two features"
    try:
        value.detach().cpu().float().numpy()
    except Exception:  # quantized, without memory, and whatever else there is
        return ""
    return f": pass {from_tensor(name, value, dtype, default)}"


def from_tensor(
    name: str, value: Any, dtype: np.dtype[Any] | None, default: np.dtype[Any] | None = None
) -> str:
    """The array of a tensor, in as few steps as that takes."""
    given = str(value.dtype).removeprefix("torch.")
    to = {"float32": ".float()", "float64": ".double()"}
    if dtype is None and default is not None and given not in to:
        dtype = default
    steps = ".detach()" if value.requires_grad else ""
    steps += "" if value.device.type == "cpu" else ".cpu()"
    steps += "" if str(value.layout) == "torch.strided" else ".to_dense()"
    if dtype is not None and given != str(dtype):
        steps += to[str(dtype)]
    elif dtype is None and given == "bfloat16":  # which NumPy lacks
        steps += to["float32"]
    return f"{name}{steps}.numpy()"


def _cast(given: np.dtype[Any], dtype: np.dtype[Any] | None, default: np.dtype[Any] | None) -> str:
    if dtype is None and given not in (np.float32, np.float64):
        dtype = default
    return "" if dtype is None or given == dtype else f".astype(np.{dtype})"


# Where the other element of a pair (h, c) goes, where one is asked for.
_OTHER_STATE = {"h_0": "c_0", "d_h_n": "d_c_n", "h": "c"}
_OTHER_STATE |= {c: h for h, c in _OTHER_STATE.items()}


def _for_results(name: str, value: Any, role: Role) -> str:
    """The cure for several results in one, as layers and functions return them."""
    if len(value) not in (2, 3, 4):
        return ""
    first, second, *rest = value
    if name == "d_output" and isinstance(first, float) and isinstance(second, ndarray):
        return f": of the (loss, gradient) that losses return pass {name}[1]"
    if not isinstance(value, tuple) or not isinstance(first, ndarray):
        return ""
    if name in _OTHER_STATE:
        if rest or (first.ndim == 3 and getattr(second, "ndim", 0) == 2):  # output in front
            also = f", and {name}[2] as {_OTHER_STATE[name]}" if rest and role.pair else ""
            return f": of all the results pass {name}[1]{also}"
        i = int(name in ("c_0", "d_c_n", "c"))
        also = f", and {name}[{1 - i}] as {_OTHER_STATE[name]}" if role.pair else ""
        return f": of a pair (h, c) pass {name}[{i}]{also}"
    if name not in ("x", "input", "logits", "d_output"):
        return ""
    if isinstance(second, ndarray) and not rest:
        lengths = second.ndim == 1 and second.dtype == np.int64
        if lengths and len(second) in first.shape[:2] and role.sequence and role.padded:
            return f": write {name}, lengths = {name}{role.padded}"
    if rest and not hasattr(rest[-1], "_fields"):  # no tape
        return ""
    of = "(output, state, tape)" if rest else "(output, state)"
    of = "(output, tape)" if hasattr(second, "_fields") else of
    other = ""
    if all(isinstance(a, ndarray) and a.ndim < 3 for a in value):
        if role.sequence and first.ndim == 2 and second.shape[1:] == first.shape[1:]:
            first_axis = ", batch_first=True" if role.batch_first else ""
            other = f", of sequences fastrnn.pad_sequence({name}{first_axis})[0]"
        elif first.shape == second.shape:
            other = f", of arrays to be stacked np.stack({name})"
    return f": of the {of} that a layer returns pass {name}[0]{other}"


def for_state(name: str, value: Any, shape: tuple[int, ...]) -> str:
    """The cure for a tuple where a state, of this shape, is one array."""
    fits = [getattr(a, "shape", None) == shape for a in value]
    pair, result = "an LSTM's (h, c)", "a layer's (output, state)"
    if fits[:2] == [True, True]:
        return f": of {pair} pass {name}[0], of {result} {name}[1]"
    if True in fits:
        return f": of {result if fits.index(True) == 1 else pair} pass {name}[{fits.index(True)}]"
    return ""


def converts(value: Any, dtype: np.dtype[Any] | None) -> bool:
    """Whether NumPy makes numbers of it."""
    if isinstance(value, Mapping | set | frozenset):
        return False
    if isinstance(value, tuple | list) and any(isinstance(a, np.ma.MaskedArray) for a in value):
        return False  # masks would be lost
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given = np.asarray(value)
            if given.dtype.kind == "O" and any(a is None for a in given.flat):
                return False  # it would be a NaN
            if given.dtype.kind in "cmM":  # parts would be lost; dates are no features
                return False
            given = given.astype(dtype or np.float64)
        except Exception:  # whatever another library's object raises
            return False
    return given.ndim > 0


def _for_indices(name: str, value: Array, dtype: np.dtype[Any], role: Role) -> str:
    """The cure for integers where features belong, if these are indices or may be."""
    weight = f"weight (V, {'D' if role.features is None else role.features}) of {dtype}"
    if value.ndim == 3 and value.shape[2] == 1 and role.features not in (None, 1):
        return (
            f": if these are indices pass fastrnn.embedding_forward({name}[..., 0], weight)[0], "
            f"with a {weight}"
        )
    if value.ndim not in (1, 2):
        return ""
    embedded = f"fastrnn.embedding_forward({name}, weight)[0], with a {weight}"
    if value.ndim == 1 or role.features not in (None, value.shape[1]):
        return f": if these are indices pass {embedded}"
    return f": pass {name}.astype(np.{dtype}), or if these are indices {embedded}"


def _for_rows(
    name: str, value: list[Any] | tuple[Any, ...], dtype: np.dtype[Any] | None, role: Role
) -> str:
    """The cure for a list of sequences, of unequal lengths or of one."""
    rows: list[Array] = []
    for a in value:
        try:
            row = a.detach().cpu().float().numpy() if is_tensor(a) else np.asarray(a)
        except Exception:  # whatever another library's object raises
            return ""
        masked = isinstance(a, np.ma.MaskedArray)
        if row.ndim == 0 or row.dtype.kind not in "iuf" or masked:
            return ""
        rows.append(row)
        if row.ndim != rows[0].ndim:
            return ""
    if not rows:
        return ""
    same = all(a.shape == rows[0].shape for a in rows)
    of_arrays = all(isinstance(a, ndarray) or is_tensor(a) for a in value)
    if any(a.shape[1:] != rows[0].shape[1:] for a in rows):
        return ""
    if rows[0].ndim > 2 or (same and not (of_arrays and rows[0].ndim == 2)):
        return ""
    cast = "" if dtype is None else f", np.{dtype}"
    if rows[0].ndim == 2:
        row = f"np.asarray(a{cast})"
        if all(map(is_tensor, value)):
            row = from_tensor("a", max(value, key=lambda a: a.requires_grad), dtype)
    else:
        whole = all(a.dtype.kind in "iu" for a in rows)  # indices, to be embedded next
        row = "np.asarray(a)" if whole else f"np.asarray(a{cast})[:, None]"
    first = ", batch_first=True" if role.batch_first else ""
    padded = f"fastrnn.pad_sequence([{row} for a in {name}]{first})"
    if same:
        axis = ", axis=1" if role.batch_first else ""
        stacked = f"np.stack([{row} for a in {name}]{axis})"
        return f": of steps (B, D) pass {stacked}, of sequences (T, D) pass {padded}[0]"
    return f": write {name}, lengths = {padded}{role.padded}" if role.padded else ""


def for_sequences(name: str, given: list[Any], i: int) -> str:
    """The cure for a list of sequences of which the i-th is no array."""
    masked = [f"{name}[{j}]" for j, a in enumerate(given) if isinstance(a, np.ma.MaskedArray)]
    if masked:
        return f": a mask has no meaning here, write {masked[0]} = {masked[0]}.filled(0)"
    if all(map(is_tensor, given)):
        steps = from_tensor("a", max(given, key=lambda a: a.requires_grad), None)
        return f": pass [{steps} for a in {name}]"
    if all(converts(a, None) or isinstance(a, ndarray) for a in given):
        return f": pass [np.asarray(a) for a in {name}]"
    return for_object(f"{name}[{i}]", given[i], None)


def for_types(name: str, given: list[Array]) -> str:
    """The cure for arrays of several types: the one that holds them all."""
    try:
        common = np.result_type(*given)
    except TypeError:
        return ""
    return f": pass [a.astype(np.{common}) for a in {name}]" if common.kind in "biuf" else ""


# ------------------------------------------------------------------------------ integers


def for_integers(name: str, value: Any, given: Array, classes: int | None = None) -> str:
    """The cure for numbers that are no integers.

    Parameters
    ----------
    value : object
        What was passed, and `given` the array that it makes.
    classes : int, optional
        Of how many things the integers are indices.
    """
    is_array = isinstance(value, ndarray)
    if given.size > 10**7:  # too much to look at for a text
        return ""
    if classes is not None and given.ndim > 1 and is_one_hot(given, classes):
        return f": pass {one_hot_index(name, value)}, the indices of one-hot vectors"
    if given.dtype.kind == "O" and given.ndim:
        try:
            whole = all(float(a) == int(a) for a in given.flat)
        except (TypeError, ValueError, OverflowError):
            return ""
    elif given.dtype.kind == "b":  # a mask, but of a target it is two classes
        whole = name == "target"
    else:
        whole = given.dtype.kind == "f" and bool(np.isfinite(given).all())
        whole = whole and bool((given == np.trunc(given)).all())
    expression = name if is_array else f"np.asarray({name})"
    return f": pass {expression}.astype(np.int64)" if whole else ""


def is_one_hot(given: Array, classes: int) -> bool:
    """Whether the last axis is of so many zeros with a one among them."""
    if given.dtype.kind not in "biuf" or given.ndim == 0 or given.shape[-1] != classes:
        return False
    return bool(((given == 0) | (given == 1)).all() and (given.sum(-1) == 1).all())


def one_hot_index(name: str, value: Any) -> str:
    plain = isinstance(value, ndarray) or is_tensor(value)
    return f"{name}.argmax(-1)" if plain else f"np.argmax({name}, -1)"


# ------------------------------------------------------------------------------ small arguments


def for_seed(name: str, value: Any) -> str:
    """The cure for what numpy.random.default_rng does not take."""
    expression = ""
    torch = sys.modules.get("torch")
    if isinstance(value, str):
        number = value.strip().isdecimal()
        expression = f"int({name})" if number else f"int.from_bytes({name}.encode())"
    elif isinstance(value, bytes):
        expression = f"int.from_bytes({name})"
    elif is_tensor(value) and value.ndim == 0 and not value.is_floating_point():
        expression = f"int({name})"
    elif isinstance(value, float | np.floating) and math.isfinite(value):
        expression = f"int({name})" if value >= 0 else f"int(abs({name}))"
    elif isinstance(value, int | np.integer):  # a negative one
        expression = f"abs({name})"
    elif isinstance(value, random.Random):
        expression = f"{name}.getrandbits(64)"
    elif isinstance(value, np.random.RandomState):
        expression = f"{name}.randint(2**31)"
    elif torch is not None and isinstance(value, torch.Generator):
        expression = f"{name}.initial_seed()"
    return f": pass {expression}" if expression else ""
