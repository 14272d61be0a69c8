"""Trained weights from elsewhere: PyTorch, Keras, ONNX and plain NumPy, in and out.

ONNX takes the package onnx; all else, and what was converted, takes NumPy alone.
"""

from .._attributes import completions
from .arrays import from_arrays, to_arrays
from .keras import from_keras
from .onnx import from_onnx
from .onnx_writer import to_onnx
from .pytorch import from_torch, to_torch

__all__ = [
    "from_arrays", "from_keras", "from_onnx", "from_torch", "to_arrays", "to_onnx", "to_torch",
]  # fmt: skip


__dir__ = completions(globals())
