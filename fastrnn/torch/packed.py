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
    rows : int
        How many rows there are.

    Raises
    ------
    ValueError
        If they do not go together.
    """

    def __init__(self, batch_sizes: ndarray, rows: int) -> None:
        if len(batch_sizes) == 0 or np.any(np.diff(batch_sizes) > 0):
            raise ValueError("batch_sizes does not fall")
        self.batch = int(batch_sizes[0])
        there = np.arange(self.batch) < batch_sizes[:, None]  # (T, B)
        self.steps, self.lengths, self.index = len(there), there.sum(axis=0), np.flatnonzero(there)
        if self.index.size != rows:
            raise ValueError(f"batch_sizes says {self.index.size} rows, there are {rows}")

    def pad(self, data: ndarray) -> ndarray:
        """(rows, n) as (T, B, n), zero in the padding."""
        padded = np.zeros((self.steps * self.batch, data.shape[1]), data.dtype)
        padded[self.index] = data
        return padded.reshape(self.steps, self.batch, -1)

    def pack(self, padded: ndarray) -> ndarray:
        """(T, B, n) as (rows, n)."""
        return padded.reshape(self.steps * self.batch, -1).take(self.index, axis=0)


class Sizes(Tensor):
    """The batch_sizes of a PackedSequence, by which `pad_packed_sequence` pads it in one step.

    To torch's own way autograd goes back one step of time after the other, each time through a copy
    of all that is padded.
    """

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            ours = func is _VF._pad_packed_sequence and len(args) == 5
            if ours and not torch.compiler.is_compiling():
                data, sizes, *rest = args
                return _pad(data, sizes.as_subclass(Tensor), *rest)
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.as_subclass(Tensor).clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Copied and saved as an ordinary tensor: torch.load takes no other class.
        return self.as_subclass(Tensor).__reduce_ex__(protocol)


def plain(batch_sizes: Any) -> Any:
    """Not as Sizes, which nothing but padding has to know."""
    return batch_sizes.as_subclass(Tensor) if type(batch_sizes) is Sizes else batch_sizes


def _pad(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, value: float, total: int
) -> tuple[Tensor, Tensor]:
    """What torch._pad_packed_sequence returns: (T, B, n) or (B, T, n), and the lengths."""
    try:
        ragged = Ragged(batch_sizes.numpy(), len(data))
    except ValueError:
        return _VF._pad_packed_sequence(data, batch_sizes, batch_first, value, total)
    index = torch.from_numpy(ragged.index).to(data.device)
    padded = data.new_full((max(total, ragged.steps) * ragged.batch, *data.shape[1:]), value)
    padded = padded.index_copy(0, index, data).unflatten(0, (-1, ragged.batch))
    return padded.transpose(0, 1) if batch_first else padded, torch.from_numpy(ragged.lengths)
