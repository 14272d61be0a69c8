"""Another engine under a model that is there: accelerate, and restore."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn
from torch.nn.utils import parametrize

from .. import _cures
from .._checks import flag
from .modules import CELLS, LAYERS, Engine

OURS: dict[type[nn.Module], type[nn.Module]] = {**LAYERS, **CELLS}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}


class Report(NamedTuple):
    """What `accelerate` or `restore` did.

    Attributes
    ----------
    swapped : dict
        By the name of each module that was swapped its class; "" is the model itself.
    left : dict
        By the name of each other recurrent module, why it was not.
    """

    swapped: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{name or 'the model'}: {kind}" for name, kind in self.swapped.items()]
        lines += [f"{name or 'the model'}: left, {why}" for name, why in self.left.items()]
        return "\n".join(lines) or "there is no recurrent module to swap"


def accelerate(model: nn.Module, *, frozen: bool = False) -> Report:
    """Let the kernels run every RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell of a model.

    Each such module stays the object that it is, with its parameters, hooks, mode and whoever
    refers to it; its class becomes that of the same name in `fastrnn.torch`. ``isinstance(module,
    torch.nn.LSTM)`` is then False: ask for ``(torch.nn.LSTM, fastrnn.torch.LSTM)``, or for
    `torch.nn.RNNBase`, which holds for both.

    Parameters
    ----------
    model : torch.nn.Module
        It is changed in place; it may itself be a recurrent module.
    frozen : bool
        For inference: weights are packed for the kernels at the first call, and not read again.
        A frozen module is refused where gradients are recorded. Where torch counts the change of a
        weight (``load_state_dict``, an optimiser's step) the next call raises; what is written to
        ``weight.data`` it does not see. To freeze again, or thaw: call `accelerate` again.

    Returns
    -------
    Report
        What was swapped, and what was left and why: ``print`` it.

    Raises
    ------
    TypeError
        If it is not a module, or `frozen` is no bool.

    See Also
    --------
    restore : the way back.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(3, 4), "head": torch.nn.Linear(4, 2)})
    >>> print(fastrnn.torch.accelerate(model))
    encoder: fastrnn.torch.LSTM
    """
    frozen = flag("frozen", frozen)
    report = _swap_all(model, OURS)
    for name, module in model.named_modules():
        if isinstance(module, Engine):
            _thaw(module)
            if frozen and all(name in module._parameters for name in module._weight_names()):
                module._freezes = True
                report.left.pop(name, None)
                report.swapped[name] = f"{_public(_known(module))}, frozen"
            elif frozen:
                report.left[name] = "not frozen: its weights are made anew at each call"
    return report


def restore(model: nn.Module) -> Report:
    """Undo `accelerate`: every module of `fastrnn.torch` in a model becomes torch's own again.

    Parameters
    ----------
    model : torch.nn.Module
        It is changed in place.

    Returns
    -------
    Report

    Raises
    ------
    TypeError
        If it is not a module.
    """
    if isinstance(model, nn.Module):
        for module in model.modules():
            _thaw(module)
    return _swap_all(model, THEIRS)


def _thaw(module: nn.Module) -> None:
    for name in ("_freezes", "_frozen"):
        vars(module).pop(name, None)


def _swap_all(model: Any, into: dict[type[nn.Module], type[nn.Module]]) -> Report:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {_cures.kind(model)}, expected a torch.nn.Module")
    report = Report({}, {})
    for name, module in model.named_modules():
        if why := _reason(module, into):
            report.left[name] = why
        elif new := into.get(_known(module)):
            cls = type(module)
            module.__class__ = new if cls in into else _parametrized(cls, new)
            report.swapped[name] = _public(new)
    return report


def _public(cls: type) -> str:
    return f"{'fastrnn.torch' if cls in THEIRS else 'torch.nn'}.{cls.__name__}"


def _known(module: nn.Module) -> type:
    """The class, below what torch's parametrizations put on top of it."""
    cls = type(module)
    return cls.__bases__[0] if parametrize.is_parametrized(module) else cls


def _reason(module: nn.Module, into: dict[Any, Any]) -> str:
    """Why a recurrent module is not swapped; "" where it is, or is none."""
    cls = _known(module)
    if cls in into:
        return "its forward was replaced" if "forward" in vars(module) else ""
    if into is THEIRS:
        return ""
    if cls in THEIRS:
        return f"it is {_public(cls)} already"
    for theirs in OURS:
        if isinstance(module, theirs):
            return (
                f"{cls.__name__} is a subclass of torch.nn.{theirs.__name__} with ways of its own"
            )
        if getattr(module, "original_name", cls.__name__) == theirs.__name__:
            return f"{cls.__module__}.{cls.__name__} is not torch.nn.{theirs.__name__}"
    return ""


def _parametrized(cls: type, base: type) -> Any:
    """The class of a module with parametrizations, which are its properties, on another base."""
    own = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__", "__doc__")}
    return type(cls.__name__, (base,), own)
