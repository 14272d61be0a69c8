"""Packed sequences: how their rows lie, and padding that is one step of autograd, not T."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import _VF, Tensor


class Ragged:
    """How rows of a PackedSequence lie: all rows of step 0, all of step 1, ... the longest first.

    Parameters
    ----------
    batch_sizes : ndarray
        (T,), falling: how many sequences have a step t.
    """

    def __init__(self, batch_sizes: ndarray) -> None:
        self.batch = int(batch_sizes[0])
        self.there = np.arange(self.batch) < batch_sizes[:, None]  # (T, B)
        self.index = np.flatnonzero(self.there)

    @property
    def lengths(self) -> ndarray:
        """(B,), int64."""
        lengths: ndarray = self.there.sum(axis=0)
        return lengths

    def pad(self, data: ndarray, steps: int = 0, value: float | None = None) -> ndarray:
        """(rows, n) as (T, B, n), T or more `steps`; None: whatever value stands in the padding."""
        steps = max(steps, len(self.there))
        padded = np.empty((steps * self.batch, data.shape[1]), data.dtype)
        if value is not None:
            padded[self.there.size :] = value
            padded[: self.there.size][~self.there.ravel()] = value
        padded[self.index] = data
        return padded.reshape(steps, self.batch, -1)

    def pack(self, padded: ndarray) -> ndarray:
        """(T, B, n) as (rows, n)."""
        return padded.reshape(len(padded) * self.batch, -1).take(self.index, axis=0)


class Rows(Tensor):
    """The data of a PackedSequence with gradients, which `pad_packed_sequence` pads in one step.

    To torch's own way autograd goes back one step of time after the other, each time through a copy
    of all that is padded. What else is made of it is an ordinary tensor.
    """

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func is _VF._pad_packed_sequence and len(args) == 5 and _may_pad(args[0]):
                data, batch_sizes, batch_first, value, steps = args
                ragged = Ragged(batch_sizes.numpy())
                padded = Pad.apply(data.as_subclass(Tensor), ragged, batch_first, value, steps)
                return padded, torch.from_numpy(ragged.lengths)
            return func(*args, **(kwargs or {}))

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Saved as an ordinary tensor: torch.load takes no other class.
        return self.as_subclass(Tensor).__reduce_ex__(protocol)


def _may_pad(data: Tensor) -> bool:
    """Whether nothing but autograd is watching."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
    )


class Pad(torch.autograd.Function):
    """(rows, n) to (T, B, n), or (B, T, n)."""

    @staticmethod
    def forward(
        ctx: Any, data: Tensor, ragged: Ragged, batch_first: bool, value: float, steps: int
    ) -> Tensor:
        ctx.ragged, ctx.batch_first = ragged, batch_first
        padded = torch.from_numpy(ragged.pad(_array(data), steps, value))
        return padded.transpose(0, 1) if batch_first else padded

    @staticmethod
    def backward(ctx: Any, d_padded: Tensor) -> Any:
        return _pack(d_padded, ctx.ragged, ctx.batch_first), None, None, None, None


class Pack(torch.autograd.Function):
    """The way back of `Pad`, whose own way back is padding with zeros."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, ragged: Ragged, batch_first: bool) -> Tensor:
        ctx.ragged, ctx.batch_first = ragged, batch_first
        ctx.steps = padded.shape[1 if batch_first else 0]
        array = _array(padded)
        return torch.from_numpy(ragged.pack(array.swapaxes(0, 1) if batch_first else array))

    @staticmethod
    def backward(ctx: Any, d_data: Tensor) -> Any:
        return _pad(d_data, ctx.ragged, ctx.batch_first, ctx.steps), None, None


def _array(tensor: Tensor) -> ndarray:
    array: ndarray = tensor.detach().resolve_neg().numpy()
    return array


def many(tensor: Tensor) -> bool:
    """Whether it stands for many gradients at once, of vmap or of is_grads_batched."""
    if torch._C._are_functorch_transforms_active():
        return True
    batched: bool = torch._C._functorch.is_legacy_batchedtensor(tensor)  # is_grads_batched
    return batched


def _pack(padded: Tensor, ragged: Ragged, batch_first: bool) -> Tensor:
    if not many(padded):
        return Pack.apply(padded, ragged, batch_first)
    # By what torch maps over.
    padded = padded.transpose(0, 1) if batch_first else padded
    rows = padded.reshape(-1, padded.shape[2])
    return rows.index_select(0, torch.from_numpy(ragged.index))


def _pad(data: Tensor, ragged: Ragged, batch_first: bool, steps: int) -> Tensor:
    if not many(data):
        return Pad.apply(data, ragged, batch_first, 0.0, steps)
    zeros = data.new_zeros(steps * ragged.batch, data.shape[1])
    padded = zeros.index_copy(0, torch.from_numpy(ragged.index), data)
    padded = padded.reshape(steps, ragged.batch, -1)
    return padded.transpose(0, 1) if batch_first else padded
