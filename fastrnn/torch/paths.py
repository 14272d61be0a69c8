"""Which way a call takes, and which the last one took."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

PLAIN = {Tensor, torch.nn.Parameter, torch.nn.Buffer}
KERNEL, TRANSFORMED, OPERATOR = "kernel", "kernel, transformed", "kernel, as an operator"

_last = threading.local()


def took(path: str) -> None:
    _last.path = path


def last_path() -> str:
    """How the last forward or backward of this module's layers in this thread was run.

    Returns
    -------
    str
        "kernel", or "torch: REASON" where torch's own implementation stood in; "" before the first.
        A backward with ``create_graph=True`` is torch's. What torch makes of a forward of its own,
        it also goes back through by itself, and this does not change then.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> layer = fastrnn.torch.GRU(3, 4)
    >>> output, h_n = layer(torch.zeros(5, 2, 3))
    >>> fastrnn.torch.last_path()
    'kernel'
    >>> output, h_n = layer.bfloat16()(torch.zeros(5, 2, 3, dtype=torch.bfloat16))
    >>> fastrnn.torch.last_path()
    'torch: dtype is torch.bfloat16'
    """
    return getattr(_last, "path", "")


def choose(tensors: Iterable[Tensor | None]) -> str:
    """One of the three ways above, or why torch has to do it; x comes first."""
    first, way = None, KERNEL
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in PLAIN:
            if not isinstance(tensor, FakeTensor):
                return f"torch: {type(tensor).__name__} is no plain tensor"
            way = OPERATOR
        if first is None:
            first = tensor
            dtype = tensor.dtype
            if dtype is not torch.float32 and dtype is not torch.float64:
                return f"torch: dtype is {dtype}"
        elif tensor.dtype is not dtype:
            return f"torch: {dtype} and {tensor.dtype}"
        if not tensor.is_cpu:
            return f"torch: device is {tensor.device.type}"
        if tensor.layout is not torch.strided:
            return f"torch: layout is {tensor.layout}"
        if tensor.is_neg():
            return "torch: a lazily negated tensor"
    if torch.is_autocast_enabled("cpu"):
        return "torch: autocast"
    if torch._C._get_tracing_state() is not None:
        return "torch: torch.jit.trace"
    if forward_ad._current_level >= 0:
        return "torch: forward-mode derivatives"
    if torch._C._are_functorch_transforms_active():
        return _transformed()
    if torch._C._len_torch_dispatch_stack():
        return OPERATOR
    return way


def why_torch_goes_back(d_results: Iterable[Tensor | None]) -> str:
    """Why torch has to run a backward; "" where the kernels may."""
    if torch.is_grad_enabled():
        return "torch: create_graph"
    for d in d_results:
        if d is not None and torch._C._functorch.is_legacy_batchedtensor(d):
            return "torch: is_grads_batched"
    return ""


def _transforms() -> list[Any]:
    return [each.key() for each in torch._C._functorch.get_interpreter_stack() or ()]


def _transformed() -> str:
    keys = _transforms()
    for key in keys:
        if key not in (TransformType.Vmap, TransformType.Grad):
            return f"torch: torch.func's {key.name.lower()}"
    if keys.count(TransformType.Grad) > 1:
        return "torch: torch.func's second derivatives"
    return TRANSFORMED


def records(tensors: Iterable[Tensor | None]) -> bool:
    """Whether somebody may ask for gradients."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def differentiates() -> bool:
    """Whether torch.func.grad, or one like it, is active."""
    return TransformType.Grad in _transforms()


def compiles(tensors: Iterable[Tensor | None]) -> bool:
    """Whether the operator can stand for the network in what torch.compile is tracing."""
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(t.dtype == dtype and t.device.type == "cpu" for t in given)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )
