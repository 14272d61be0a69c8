"""Recurrent networks on a CPU: run and trained from NumPy arrays, by compiled kernels.

Functions run one layer in one direction and come in pairs, forward and backward, each with a
reference implementation in plain NumPy in `fastrnn.reference`. Layers own their weights and carry
PyTorch's names.
"""

from typing import TYPE_CHECKING

try:
    from . import _core  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"fastrnn's compiled part cannot be loaded from {__path__[0]}: if that is its source, run "
        'Python in another folder, or install the source with "pip install -e ."'
    ) from error
from . import optim, reference
from ._attributes import completions
from ._version import __version__ as __version__
from .activations import log_softmax, sigmoid, softmax
from .cells.gru import gru_backward, gru_forward, gru_step
from .cells.leaky import leaky_backward, leaky_forward, leaky_step
from .cells.lstm import lstm_backward, lstm_forward, lstm_step
from .cells.rnn import rnn_backward, rnn_forward, rnn_step
from .clipping import clip_grad_norm, clip_grad_value
from .config import backend, num_threads
from .generation import generate, generate_iter
from .io import load, save
from .layers.dropout import Dropout
from .layers.embedding import Embedding, embedding_backward, embedding_forward
from .layers.gru import GRU
from .layers.leaky import LeakyRNN
from .layers.linear import Linear, linear_backward, linear_forward
from .layers.lstm import LSTM
from .layers.rnn import RNN
from .layers.sequential import Sequential
from .losses import (
    binary_cross_entropy_with_logits,
    huber_loss,
    l1_loss,
    mean_squared_error,
    softmax_cross_entropy,
)
from .norms import gradient_norms
from .padding import pad_sequence, unpad_sequence
from .runtime import (
    available_isas,
    get_isa,
    get_num_threads,
    read_environment,
    set_isa,
    set_num_threads,
    show_config,
)

read_environment(stacklevel=2)
del read_environment

__all__ = [
    "GRU", "LSTM", "RNN", "Dropout", "Embedding", "LeakyRNN", "Linear", "Sequential",
    "available_isas", "backend", "binary_cross_entropy_with_logits", "clip_grad_norm",
    "clip_grad_value", "embedding_backward", "embedding_forward", "generate", "generate_iter",
    "get_isa", "get_num_threads", "gradient_norms", "gru_backward", "gru_forward", "gru_step",
    "huber_loss", "l1_loss", "leaky_backward", "leaky_forward", "leaky_step", "linear_backward",
    "linear_forward", "load", "log_softmax", "lstm_backward", "lstm_forward", "lstm_step",
    "mean_squared_error", "num_threads", "optim", "pad_sequence", "reference", "rnn_backward",
    "rnn_forward", "rnn_step", "save", "set_isa", "set_num_threads", "show_config", "sigmoid",
    "softmax", "softmax_cross_entropy", "unpad_sequence",
]  # fmt: skip

__dir__ = completions(globals(), "char_lm", "convert", "estimators", "torch")

_CALLED = {  # what PyTorch and Keras call it
    "clip_grad_norm_": "clip_grad_norm", "clip_grad_value_": "clip_grad_value",
    "cross_entropy": "softmax_cross_entropy", "mse_loss": "mean_squared_error",
    "mean_absolute_error": "l1_loss", "SimpleRNN": "RNN", "Dense": "Linear",
    "LSTMCell": "lstm_step", "GRUCell": "gru_step", "RNNCell": "rnn_step",
    **{name: f"optim.{name}" for name in ("SGD", "Adagrad", "Adam", "AdamW", "RMSprop")},
}  # fmt: skip

_OTHERWISE = {  # and what has no such thing here
    "nn": "layers are in fastrnn itself, as fastrnn.LSTM",
    "Module": "layers and fastrnn.Sequential are no modules, and need no class of yours",
    "Bidirectional": "recurrent layers have bidirectional=True",
    "Masking": "a call of a layer or model has mask= and lengths=",
    "no_grad": "a call of a layer or model keeps no tape; forward does",
    "manual_seed": "what draws numbers has rng=, which takes a seed",
}


if not TYPE_CHECKING:  # for mypy, what is not there has no type

    def __getattr__(name: str) -> object:
        text = f"module {__name__!r} has no attribute {name!r}"
        text += f": it is fastrnn.{_CALLED[name]} here" if name in _CALLED else ""
        text += f": {_OTHERWISE[name]}" if name in _OTHERWISE else ""
        raise AttributeError(text, name=name)
