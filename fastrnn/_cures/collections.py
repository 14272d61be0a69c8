"""Cures for what holds several arrays: lists, mappings, layers, gradients, what is to be saved."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from .arrays import converts, for_tensor, from_tensor, is_tensor, kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# What layers call their weights, there or not: weight, bias, weight_hh_l0, weight_hr_l1_reverse.
WEIGHT = re.compile(r"(weight|bias)(_(ih|hh|hr|peephole|leak))?(_l\d+)?(_reverse)?")


_FROZEN = ": that does not change, give the flat_weights of the layer that was frozen"


def is_frozen(value: Any) -> bool:
    """Whether that is a frozen layer or model."""
    return any(cls.__module__ == "fastrnn.layers.frozen" for cls in type(value).__mro__)


# ------------------------------------------------------------------------------ lists of arrays


def for_collection(name: str, given: Any) -> str:
    """What is wrong with what should be a list of arrays, cure included; "" where it may be one.

    `name` is params, what an optimiser changes, or that of a group of them, or grads.
    """
    changed = name.startswith("params")
    said = f"{name} is {kind(given)}, expected a list of arrays"
    if isinstance(given, type):
        return f"{said}: make one of it"
    if is_frozen(given):
        return said + (_FROZEN if changed else _for_owner(name, given, changed))
    if hasattr(given, "flat_weights"):
        return said + _for_owner(name, given, changed)
    if isinstance(given, Mapping):
        if changed and any(map(is_tensor, given.values())):
            return f"{said}: pass [a.detach().numpy() for a in {name}.values()]"
        if changed and _are_weights(given):
            if all(map(_of_layer, given.values())) and isinstance(given, dict):
                return f"{said}: pass {name}.values()"
            own = f", or {name}.values() if these arrays are your own" * isinstance(given, dict)
            return f"{said}: pass layer.flat_weights, of the layer that has these weights{own}"
        if changed and "params" in given:
            return f"{said}: pass [{name}]"
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
    changed = name.startswith("params")
    wrong = next((a for a in given if not isinstance(a, ndarray)), None)
    said = f"{name} holds {kind(wrong)}, expected arrays"
    if isinstance(wrong, type):
        return f"{said}: make one of it"
    if is_frozen(wrong):
        return said + (_FROZEN if changed else _for_owner("", wrong, changed))
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
    return for_tensor(name, value, None)


def _of_layer(a: Any) -> bool:
    """Whether an array is a view of a layer's weights, and no copy that state_dict() made."""
    while isinstance(a, ndarray):
        a = a.base
    return type(a).__module__ == "fastrnn._memory" and a.moved is None


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
    elif isinstance(value, list | tuple) and value and converts(value, None):
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
    for end in ("_l0", "_reverse", "_l0_reverse"):  # a Cell's; those of a layer the other way round
        part = {f"{n}{end}": a for n, a in given.items()}
        if set(part) == set(wanted):
            found[f"{{n + {end!r}: a for n, a in {name}.items()}}"] = part
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
    if isinstance(value, ndarray) or hasattr(value, "state_dict") or is_frozen(value):
        return f": pass {{{type(value).__name__.lower()!r}: {name}}}"
    if isinstance(value, list | tuple) and value:
        return f": pass {{f'object{{i}}': o for i, o in enumerate({name})}}"
    return ""


def for_saved(name: str, value: Any) -> str:
    """The cure for what no file has a form for."""
    if is_tensor(value):
        return f": pass {from_tensor(name, value, None)}"
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
        return f": pass {from_tensor(at, item, None)}"
    if hasattr(item, "state_dict"):
        return f": give it a name of its own in objects, {(name + '_' + key)!r}: {at}"
    if isinstance(item, tuple | list) and item and all(isinstance(a, ndarray) for a in item):
        if len({(a.shape, a.dtype) for a in item}) == 1:  # the state of an LSTM
            return f": pass np.stack({at})"
        parts = ", ".join(f"{f'{key}_{i}'!r}: {at}[{i}]" for i in range(len(item)))
        return f": give each of them a name of its own, {parts}"
    if isinstance(item, dict) and any(
        isinstance(a, ndarray) or is_tensor(a) or hasattr(a, "state_dict") for a in item.values()
    ):
        return f": give it a name of its own in objects, {(name + '_' + key)!r}: {at}"
    return ""
