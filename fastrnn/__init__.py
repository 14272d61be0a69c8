"""Recurrent networks on a CPU: run and trained from NumPy arrays, by compiled kernels.

Functions run one layer in one direction and come in pairs, forward and backward, each with a twin
in plain NumPy in `fastrnn.reference`. Layers own their weights and carry PyTorch's names.
"""

__version__ = "0.1.0"

from . import reference
from .config import (
    available_isas,
    backend,
    get_isa,
    get_num_threads,
    num_threads,
    set_isa,
    set_num_threads,
    show_config,
)
from .functional import rnn_backward, rnn_forward
from .layers import RNN
from .padding import pad_sequence, unpad_sequence

__all__ = [
    "RNN",
    "available_isas",
    "backend",
    "get_isa",
    "get_num_threads",
    "num_threads",
    "pad_sequence",
    "reference",
    "rnn_backward",
    "rnn_forward",
    "set_isa",
    "set_num_threads",
    "show_config",
    "unpad_sequence",
]
