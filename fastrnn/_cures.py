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


def for_object(name: str, value: Any, dtype: np.dtype[Any] | None, role: Role = NO_ROLE) -> str:
    """The cure for what is no array."""
    if value is None:
        zeros = f", pass np.zeros_like({name[:-2]}0])" if name.endswith("state[1]") else ""
        return f": it cannot be left out{zeros}"
    if isinstance(value, type):
        return ": make one of it"
    if isinstance(value, np.ma.MaskedArray):
        cast = _cast(value.dtype, dtype)
        return f": a mask has no meaning here, pass {name}.filled(0){cast}"
    if is_tensor(value):
        return _for_tensor(name, value, dtype)
    sparse = sys.modules.get("scipy.sparse")
    if sparse is not None and sparse.issparse(value):
        return f": pass {name}.toarray(){_cast(value.dtype, dtype)}"
    if isinstance(value, tuple | list) and (cure := _for_results(name, value, role)):
        return cure
    if isinstance(value, tuple | list) and not value and role.optional:
        return ": pass None"
    if isinstance(value, bool | int | float | np.generic):
        if role.optional and value == 0:
            return ": pass None"
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        return f": pass {role.full}" if role.full and is_number else ""
    target = "" if dtype is None else f", dtype=np.{dtype}"
    if isinstance(value, Iterator | ValuesView | KeysView):
        return f": pass np.asarray(list({name}){target})"
    axes = ""
    if role.sequence and isinstance(value, list | tuple):
        cure = _for_rows(name, value, dtype, role)
        if cure:
            return cure
        if np.ndim(value) == 3:
            axes = f", of axes {'(B, T, D)' if role.batch_first else '(T, B, D)'}"
    return f": pass np.asarray({name}{target}){axes}" if _converts(value, dtype) else ""


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
        # A square one beside it looks right, whichever way it lies.
        both = ", and w_hh.T too where both are stored so" if name == "w_ih" else ""
        return f": pass {name}.T{both}"
    first = math.prod(given[:2]), *given[2:]  # a row of gates, in an axis of its own
    if first == expected or [n for n in given if n != 1] == [n for n in expected if n != 1]:
        return f": pass {name}.reshape{expected}"
    return ""


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _for_tensor(name: str, value: Any, dtype: np.dtype[Any] | None) -> str:
    """The cure for a tensor."""
    if value.is_complex():
        real = _from_tensor(f"{name}.real", value.detach().real, dtype)
        return f": pass {real}, or the parts as two features"
    expression = _from_tensor(name, value, dtype)
    try:
        value.detach().cpu().float().numpy()
    except Exception:  # quantized, without memory, and whatever else there is
        return ""
    return f": pass {expression}"


def _from_tensor(name: str, value: Any, dtype: np.dtype[Any] | None) -> str:
    """The array of a tensor, in as few steps as that takes."""
    given = str(value.dtype).removeprefix("torch.")
    to = {"float32": ".float()", "float64": ".double()"}
    steps = ".detach()" if value.requires_grad else ""
    steps += "" if value.device.type == "cpu" else ".cpu()"
    steps += "" if str(value.layout) == "torch.strided" else ".to_dense()"
    if dtype is not None and given != str(dtype):
        steps += to[str(dtype)]
    elif dtype is None and given == "bfloat16":  # which NumPy lacks
        steps += to["float32"]
    return f"{name}{steps}.numpy()"


def _cast(given: np.dtype[Any], dtype: np.dtype[Any] | None) -> str:
    return "" if dtype is None or given == dtype else f".astype(np.{dtype})"


def _for_results(name: str, value: Any, role: Role) -> str:
    """The cure for several results in one, as layers and functions return them."""
    if len(value) not in (2, 3, 4):
        return ""
    first, second, *rest = value
    if isinstance(first, float) and isinstance(second, ndarray) and not rest:
        return f": of the (loss, gradient) that losses return pass {name}[1]"
    if not isinstance(value, tuple) or not isinstance(first, ndarray):
        return ""
    padded = role.sequence and not rest and isinstance(second, ndarray) and second.ndim == 1
    if padded and second.dtype == np.int64 and len(second) in first.shape[:2] and role.padded:
        return f": write {name}, lengths = {name}{role.padded}"
    if role.second:
        return f": of a pair (h, c) pass {name}[0], and {name}[1] as {role.second}"
    if name == "d_c_n":
        return f": of a pair (h, c) pass {name}[1]"
    if name in ("h_0", "d_h_n"):
        whole = first.ndim == 3 and getattr(second, "ndim", 0) == 2  # (output, h_n)
        return f": pass {name}[{int(whole)}]"
    stacked = len({getattr(a, "shape", None) for a in value}) == 1 and first.ndim < 3
    of = "(output, state, tape)" if rest else "(output, state)"
    of = "(output, tape)" if hasattr(second, "_fields") else of
    also = f", of arrays to be stacked np.stack({name})" if stacked else ""
    return f": of the {of} that a layer returns pass {name}[0]{also}"


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given = np.asarray(value)
            if given.dtype.kind == "O" and any(a is None for a in given.flat):
                return False  # it would be a NaN
            if given.dtype.kind in "mMV" and not np.can_cast(given.dtype, np.float64, "unsafe"):
                return False
            if given.dtype.kind in "mM":  # dates are no features
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
    rows = []
    for a in value:
        try:
            rows.append(a.detach().cpu().numpy() if is_tensor(a) else np.asarray(a))
        except (TypeError, ValueError):
            return ""
    if not rows or any(a.ndim == 0 or a.ndim != rows[0].ndim for a in rows):
        return ""
    if any(a.dtype.kind not in "iuf" for a in rows):
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
            row = _from_tensor("a", value[0], dtype)
    else:
        whole = all(a.dtype.kind in "iu" for a in rows)  # indices, to be embedded next
        row = "np.asarray(a)" if whole else f"np.asarray(a{cast})[:, None]"
    first = ", batch_first=True" if role.batch_first else ""
    padded = f"fastrnn.pad_sequence([{row} for a in {name}]{first})"
    if same:
        axis = ", axis=1" if role.batch_first else ""
        stacked = f"np.stack({name}{axis}).astype(np.{dtype or 'float32'})"
        return f": of steps (B, D) pass {stacked}, of sequences (T, D) pass {padded}[0]"
    return f": write {name}, lengths = {padded}{role.padded}" if role.padded else ""


def for_sequences(name: str, given: list[Any], i: int) -> str:
    """The cure for a list of sequences of which the i-th is no array."""
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
        if changed and _are_weights(given):
            if any(map(is_tensor, given.values())):
                return f"{said}: pass [a.detach().numpy() for a in params.values()]"
            copies = ", as these are copies" if isinstance(given, dict) else ""
            return f"{said}: pass layer.flat_weights, of the layer that has these weights{copies}"
        if changed and "params" in given:
            return f"{said}: pass {name}['params']"
        return f"{said}: pass {name}.values()"
    if is_tensor(given):
        return said + (for_writable(name, given) if changed else _for_tensor(name, given, None))
    if changed and callable(getattr(given, "parameters", None)):  # a torch module
        return f"{said}: pass [p.detach().numpy() for p in {name}.parameters()]"
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
        i = next(i for i, a in enumerate(given) if a is wrong)
        return said + _for_owner(f"{name}[{i}]", wrong, changed)
    if isinstance(wrong, Mapping):
        if changed and "params" in wrong:
            rate = f", and lr={name}[0]['lr']" if "lr" in wrong else ""
            return (
                f"{said}: there are no groups of parameters, make an optimiser for each: pass "
                f"{name}[0]['params']{rate}"
            )
        if len(given) == 1:
            return for_collection(name, wrong).replace(f"{name}.values()", f"{name}[0].values()")
        return f"{said}: pass [a for b in {name} for a in b.values()]"
    if is_tensor(wrong) and all(map(is_tensor, given)):
        if changed and all(for_writable("a", a) for a in given):
            return f"{said}: pass [a.detach().numpy() for a in {name}], which share their memory"
        return "" if changed else f"{said}: pass [{_from_tensor('a', wrong, None)} for a in {name}]"
    if isinstance(wrong, tuple | list) and wrong:
        if all(isinstance(a, tuple) and len(a) == 2 and isinstance(a[0], str) for a in given):
            arrays = "a" if isinstance(wrong[1], ndarray) else "a.detach().numpy()"
            return f"{said}: pass [{arrays} for _, a in {name}]"
        if all(isinstance(a, tuple | list) for a in given) and isinstance(wrong[0], ndarray):
            return f"{said}: pass [a for b in {name} for a in b]"
    if given and all(isinstance(a, int | float | np.number) for a in given):
        return f"{said}: write {name} = np.array({name}, np.float32), and go on with that"
    return ""


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
    why = ", but is changed in place:"
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
    owner = value.base
    while isinstance(owner, ndarray):
        owner = owner.base
    if type(owner).__module__ == f"{__package__}._memory":  # a copy would not be the layer's
        return "write layer = copy.copy(layer), and go on with its weights, which are the same"
    return f"write {name} = {name}.copy(), and go on with that"


# ------------------------------------------------------------------------------ mappings of arrays


def for_tensors(name: str, given: Mapping[Any, Any]) -> str:
    """The cure for a mapping that holds tensors which NumPy cannot read; "" where it can."""
    tensors = [a for a in given.values() if is_tensor(a)]
    steps = ".detach()" if any(a.requires_grad for a in tensors) else ""
    steps += ".cpu()" if any(a.device.type != "cpu" for a in tensors) else ""
    steps += ".float()" if any(str(a.dtype) == "torch.bfloat16" for a in tensors) else ""
    if not steps or len(tensors) < len(given):
        return ""
    return f": pass {{n: a{steps}.numpy() for n, a in {name}.items()}}"


def for_names(name: str, given: Mapping[Any, Any], wanted: Iterable[str]) -> str:
    """The cure for a mapping that has other names than it should have."""
    wanted, names = set(wanted), {n for n in given if isinstance(n, str)}
    some = next(iter(sorted(wanted)), "")
    for key, value in given.items():  # a whole file, as `load` returns it
        if isinstance(value, Mapping) and set(value) >= wanted:
            return f": pass {name}[{key!r}]"
        if hasattr(value, "state_dict") and set(value.state_dict()) >= wanted:
            return f": pass {name}[{key!r}].state_dict()"
    for key in sorted(names):  # a part of a larger model
        prefix = key.removesuffix(some)
        if some and prefix not in (key, "") and {prefix + n for n in wanted} <= names:
            return (
                f": pass {{n.removeprefix({prefix!r}): a for n, a in {name}.items() "
                f"if n.startswith({prefix!r})}}"
            )
    if {n + "_l0" for n in names} == wanted:  # a Cell's
        return f": pass {{n + '_l0': a for n, a in {name}.items()}}"
    return ""


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
    if value is None or isinstance(value, bool | int | float | str | list | tuple):
        return f": pass {{'value': {name}}}"
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
