"""What to do about an argument that does not fit: the end of an error's text.

A cure is Python in the caller's names, to be copied. After "pass" stands what to pass instead, or
``name=value``, which is to be passed as well; after "write" a statement to put before the call.
tests/project/test_cures.py does what they say. None is given where none is known to work.
"""

from __future__ import annotations

import math
import os
import random
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import ndarray

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# What layers call their weights, there or not: weight, bias, weight_hh_l0_reverse.
WEIGHT = re.compile(r"(weight|bias)(_(ih|hh|hr|peephole))?(_l\d+)?(_reverse)?")


class Role(NamedTuple):
    """What is known of an array's place, from which a cure may follow."""

    full: str = ""  # the array that a number stands for; where there may be none, 0 is None
    optional: bool = False
    sequence: bool = False  # of steps, as a recurrent layer reads it
    features: int | None = None  # how many a step of it has
    batch_first: bool = False
    padded: str = " and pass lengths=lengths"  # behind the cure for unequal sequences, if any
    second: str = ""  # where the c of a pair (h, c) goes, if this is its h


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
        return _for_tensor(name, value, dtype, default)
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
    if rows or not _converts(value, wanted):
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
    if cure or not (letter in "biuf" or _converts(value, dtype)):
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
    if (of_weight and merged == expected) or _squeezed(given) == _squeezed(expected):
        return f": pass {name}.reshape{expected}"
    return ""


def _squeezed(shape: tuple[int | None, ...]) -> list[int | None]:
    return [n for n in shape if n != 1]


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _for_tensor(
    name: str, value: Any, dtype: np.dtype[Any] | None, default: np.dtype[Any] | None = None
) -> str:
    """The cure for a tensor."""
    if value.is_complex():
        real = _from_tensor(f"{name}.real", value.detach().real, dtype or default)
        return f": pass {real}, or the parts as two features"
    try:
        value.detach().cpu().float().numpy()
    except Exception:  # quantized, without memory, and whatever else there is
        return ""
    return f": pass {_from_tensor(name, value, dtype, default)}"


def _from_tensor(
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
_OTHER_STATE = {"h_0": "c_0", "d_h_n": "d_c_n", "c_0": "h_0", "d_c_n": "d_h_n"}


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
            also = f", and {name}[2] as {_OTHER_STATE[name]}" if rest and role.second else ""
            return f": of all the results pass {name}[1]{also}"
        i = int(name in ("c_0", "d_c_n"))
        also = f", and {name}[{1 - i}] as {_OTHER_STATE[name]}" if role.second else ""
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


def _converts(value: Any, dtype: np.dtype[Any] | None) -> bool:
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
            row = _from_tensor("a", max(value, key=lambda a: a.requires_grad), dtype)
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
        steps = _from_tensor("a", max(given, key=lambda a: a.requires_grad), None)
        return f": pass [{steps} for a in {name}]"
    if all(_converts(a, None) or isinstance(a, ndarray) for a in given):
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


# ------------------------------------------------------------------------------ lists of arrays


def for_collection(name: str, given: Any) -> str:
    """What is wrong with what should be a list of arrays, cure included; "" where it may be one.

    `name` is params, what an optimiser changes, or grads.
    """
    changed = name == "params"
    said = f"{name} is {kind(given)}, expected a list of arrays"
    if isinstance(given, type):
        return f"{said}: make one of it"
    if hasattr(given, "flat_weights"):
        return said + _for_owner(name, given, changed)
    if isinstance(given, Mapping):
        if changed and any(map(is_tensor, given.values())):
            return f"{said}: pass [a.detach().numpy() for a in params.values()]"
        if changed and _are_weights(given):
            if all(map(_of_layer, given.values())) and isinstance(given, dict):
                return f"{said}: pass params.values()"
            own = ", or params.values() if these arrays are your own" * isinstance(given, dict)
            return f"{said}: pass layer.flat_weights, of the layer that has these weights{own}"
        if changed and "params" in given:
            return f"{said}: pass {name}['params']"
        return f"{said}: pass {name}.values()"
    if is_tensor(given):
        return said + (for_writable(name, given) if changed else _for_gradient(name, given))
    if changed and callable(getattr(given, "parameters", None)):  # a torch module
        shared = all(for_writable("p", p) for p in given.parameters())
        return f"{said}: pass [p.detach().numpy() for p in {name}.parameters()]" if shared else said
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        left_out = " (what wrt leaves out is None)" if given is None and not changed else ""
        return said + left_out
    return ""


def for_elements(name: str, given: list[Any]) -> str:
    """What is wrong with the elements of such a list, cure included; "" where nothing is known."""
    changed = name == "params"
    wrong = next((a for a in given if not isinstance(a, ndarray)), None)
    said = f"{name} holds {kind(wrong)}, expected arrays"
    if isinstance(wrong, type):
        return f"{said}: make one of it"
    if hasattr(wrong, "flat_weights"):
        cure = _for_owner("a", wrong, changed)
        if all(hasattr(a, "flat_weights") for a in given) and cure.endswith("a.flat_weights"):
            return f"{said}: pass [a.flat_weights for a in {name}]"
        owner = _for_owner("", wrong, changed)
        if not owner.endswith("pass .flat_weights"):
            return said + owner
        i = next(i for i, a in enumerate(given) if a is wrong)
        each = f"[getattr(a, 'flat_weights', a) for a in {name}]"
        return f"{name}[{i}] is {kind(wrong)}, expected an array: pass {each}"
    if isinstance(wrong, Mapping):
        if changed and "params" in wrong:
            rate = f", and lr={name}[0]['lr']" if "lr" in wrong else ""
            return (
                f"{said}: there are no groups of parameters, make an optimiser for each: pass "
                f"{name}[0]['params']{rate}"
            )
        if len(given) == 1:
            return for_collection(name, wrong).replace(f"{name}.values()", f"{name}[0].values()")
        copies = any(isinstance(a, dict) and not all(map(_of_layer, a.values())) for a in given)
        if changed and copies and _are_weights(wrong):
            return f"{said}: these are copies, give the flat_weights of each layer"
        return f"{said}: pass [a for b in {name} for a in b.values()]"
    if is_tensor(wrong) and all(map(is_tensor, given)):
        if changed and all(for_writable("a", a) for a in given):
            return f"{said}: pass [a.detach().numpy() for a in {name}], which share their memory"
        if changed or any(str(a.dtype) == "torch.bfloat16" for a in given):
            return ""
        one = max(given, key=lambda a: a.requires_grad)
        return said + _for_gradient("a", one).replace(": pass ", ": pass [") + f" for a in {name}]"
    if isinstance(wrong, tuple | list) and wrong:
        if all(isinstance(a, tuple) and len(a) == 2 and isinstance(a[0], str) for a in given):
            arrays = "a" if isinstance(wrong[1], ndarray) else "a.detach().numpy()"
            return f"{said}: pass [{arrays} for _, a in {name}]"
        if all(isinstance(a, tuple | list) for a in given) and isinstance(wrong[0], ndarray):
            return f"{said}: pass [a for b in {name} for a in b]"
    if given and all(isinstance(a, int | float | np.number) for a in given):
        return f"{said}: write {name} = np.array({name}, np.float32), and go on with that"
    return ""


def for_mapping(name: str, given: Mapping[Any, Any]) -> str:
    """What is wrong with a mapping of gradients that holds layers or all of their gradients."""
    owners = [g for g in given.values() if hasattr(g, "flat_weights")]
    if not owners:
        return ""
    cure = _for_owner("", next((g for g in owners if not isinstance(g, tuple)), owners[0]), False)
    if cure.endswith("pass .flat_weights"):
        cure = f": pass [getattr(g, 'flat_weights', g) for g in {name}.values()]"
    return f"{name} holds {kind(owners[0])}, expected arrays{cure}"


def _for_gradient(name: str, value: Any) -> str:
    """The cure for a tensor where gradients belong: of a parameter, its own."""
    if value.is_leaf and value.requires_grad and value.grad is not None:
        return f": pass {name}.grad.numpy()"
    return _for_tensor(name, value, None)


def _of_layer(a: Any) -> bool:
    """Whether an array is a view of a layer's weights."""
    while isinstance(a, ndarray):
        a = a.base
    return type(a).__module__ == f"{__package__}._memory"


def _are_weights(given: Mapping[Any, Any]) -> bool:
    return bool(given) and all(isinstance(n, str) and WEIGHT.fullmatch(n) for n in given)


def _for_owner(name: str, given: Any, changed: bool) -> str:
    """The cure for a layer, or for the gradients of one."""
    gradients = isinstance(given, tuple)
    if changed and gradients:
        return ": these are gradients, pass layer.flat_weights, of the layer that they are of"
    if not changed and not gradients:
        return ": that is a layer, give the flat_weights of what its backward returned"
    return f": pass {name}.flat_weights"


def for_writable(name: str, value: Any) -> str:
    """The cure for what is no array of floats that can be changed in place."""
    why = "; it is changed in place:"
    if isinstance(value, np.ma.MaskedArray):
        return f"{why} write {name} = {name}.filled(0), and go on with that"
    if isinstance(value, ndarray):
        if value.dtype.kind in "biuf":
            return f"{why} write {name} = {name}.astype(np.float32), and go on with that"
    elif is_tensor(value):
        if value.device.type == "cpu" and str(value.dtype) in ("torch.float32", "torch.float64"):
            return f": pass {name}.detach().numpy(), which shares its memory"
    elif isinstance(value, list | tuple) and value and _converts(value, None):
        if not any(isinstance(a, ndarray) for a in value):  # it would be a copy of them
            return f"{why} write {name} = np.array({name}, np.float32), and go on with that"
    elif value is None and name.startswith("grads['"):
        return ": pass [a for a in grads.values() if a is not None]"
    elif value is None and name.startswith("grads["):
        return ": pass [a for a in grads if a is not None]"
    return ""


def for_read_only(name: str, value: Array) -> str:
    """The cure for an array that cannot be written to."""
    with suppress(ValueError):
        if 0 not in value.strides:  # as those that are broadcast have
            value.flags.writeable = True  # may it be?
            value.flags.writeable = False
            return f"write {name}.flags.writeable = True"
    if _of_layer(value) and not name.startswith("grads"):  # a copy would not be the layer's
        return "write layer = copy.copy(layer), and go on with its weights, which are the same"
    return f"write {name} = {name}.copy(), and go on with that"


# ------------------------------------------------------------------------------ mappings of arrays


def for_tensors(name: str, given: Mapping[Any, Any]) -> str:
    """The cure for a mapping that holds tensors which NumPy cannot read; "" where it can."""
    tensors = [a for a in given.values() if is_tensor(a)]
    steps = ".detach()" if any(a.requires_grad for a in tensors) else ""
    steps += ".cpu()" if any(a.device.type != "cpu" for a in tensors) else ""
    steps += ".float()" if any(str(a.dtype) == "torch.bfloat16" for a in tensors) else ""
    if not steps:
        return ""
    other = "" if len(tensors) == len(given) else " if isinstance(a, torch.Tensor) else a"
    return f": pass {{n: a{steps}.numpy(){other} for n, a in {name}.items()}}"


def for_names(name: str, given: Mapping[Any, Any], wanted: Mapping[str, Any]) -> str:
    """The cure for a mapping that has other names than it should have.

    `wanted` has an array, or whatever else there is, under each.
    """
    found: dict[str, Mapping[str, Any]] = {}  # cures, and what they would pass
    some = next(iter(sorted(wanted)), "")
    for key, value in given.items():
        if isinstance(value, Mapping) and set(value) >= set(wanted):  # a whole file
            found[f"{name}[{key!r}]"] = value
        elif hasattr(value, "state_dict") and not isinstance(value, type):
            with suppress(Exception):  # whatever another library's object raises
                state = value.state_dict()
                if set(state) >= set(wanted):
                    found[f"{name}[{key!r}].state_dict()"] = state
        prefix = key.removesuffix(some) if isinstance(key, str) and some else ""
        part = {n: given.get(prefix + n) for n in wanted}
        if prefix not in (key, "") and all(prefix + n in given for n in wanted):
            start = f"n.removeprefix({prefix!r}): a for n, a in {name}.items()"
            found[f"{{{start} if n.startswith({prefix!r})}}"] = part
    if {f"{n}_l0" for n in given} == set(wanted):  # a Cell's
        found[f"{{n + '_l0': a for n, a in {name}.items()}}"] = {f"{n}_l0": given[n] for n in given}
    fit = [
        cure
        for cure, part in found.items()
        if all(np.shape(part[n]) == a.shape for n, a in wanted.items() if isinstance(a, ndarray))
    ]
    if len(fit) > 1:
        return ": there are several that fit, say which"
    found_one = fit or list(found)
    return f": pass {found_one[0]}" if len(found_one) == 1 else ""


# ------------------------------------------------------------------------------ what is saved


def for_bare(name: str, value: Any) -> str:
    """The cure for what was to be saved without a name."""
    if isinstance(value, str | os.PathLike):
        return ": the path comes first"
    if isinstance(value, type):
        return ": make one of it"
    if isinstance(value, ndarray) or hasattr(value, "state_dict"):
        return f": pass {{{type(value).__name__.lower()!r}: {name}}}"
    if isinstance(value, list | tuple) and value:
        return f": pass {{f'object{{i}}': o for i, o in enumerate({name})}}"
    return ""


def for_saved(name: str, value: Any) -> str:
    """The cure for what no file has a form for."""
    if is_tensor(value):
        return f": pass {_from_tensor(name, value, None)}"
    if isinstance(value, tuple | list) and value and all(isinstance(a, ndarray) for a in value):
        return f": pass {{str(i): a for i, a in enumerate({name})}}"
    if isinstance(value, tuple | list) and any(hasattr(a, "state_dict") for a in value):
        return ": give each of them a name of its own in objects"
    if hasattr(value, "flat_weights"):
        return f": pass dict({name}.weights)"
    if hasattr(value, "_asdict"):
        return f": pass {name}._asdict()"
    if isinstance(value, np.generic):
        return f": pass {{'value': {name}.item()}}"
    return ""


def for_nested(what: str, name: str, key: str, item: Any, whole: Mapping[Any, Any]) -> str:
    """The cure for an object inside a mapping that is saved under a name."""
    at = f"{what}[{key!r}]"
    if is_tensor(item):
        if all(map(is_tensor, whole.values())):
            return for_tensors(what, whole) or f": pass {{n: a.numpy() for n, a in {what}.items()}}"
        return f": pass {_from_tensor(at, item, None)}"
    if hasattr(item, "state_dict"):
        return f": give it a name of its own in objects, {(name + '_' + key)!r}: {at}"
    if isinstance(item, dict) and any(
        isinstance(a, ndarray) or is_tensor(a) or hasattr(a, "state_dict") for a in item.values()
    ):
        return f": give it a name of its own in objects, {(name + '_' + key)!r}: {at}"
    return ""
