"""The specification: every compiled function again, in plain NumPy.

Same names, signatures, results and errors as the functions of `fastrnn`; slow, and short enough to
be read beside the equations. ``with fastrnn.backend("reference"):`` runs the whole package on it.
"""

from .._attributes import completions
from .activations import log_softmax, sigmoid, softmax
from .clipping import clip_grad_norm
from .embedding import embedding_backward, embedding_forward
from .generation import generate, generate_iter
from .gru import gru_backward, gru_forward, gru_step
from .leaky import leaky_backward, leaky_forward, leaky_step
from .linear import linear_backward, linear_forward
from .losses import (
    binary_cross_entropy_with_logits,
    huber_loss,
    l1_loss,
    mean_squared_error,
    softmax_cross_entropy,
)
from .lstm import lstm_backward, lstm_forward, lstm_step
from .norms import gradient_norms
from .rnn import rnn_backward, rnn_forward, rnn_step

__all__ = [
    "binary_cross_entropy_with_logits", "clip_grad_norm", "embedding_backward", "embedding_forward",
    "generate", "generate_iter", "gradient_norms", "gru_backward", "gru_forward", "gru_step",
    "huber_loss", "l1_loss", "leaky_backward", "leaky_forward", "leaky_step", "linear_backward",
    "linear_forward", "log_softmax", "lstm_backward", "lstm_forward", "lstm_step",
    "mean_squared_error", "rnn_backward", "rnn_forward", "rnn_step", "sigmoid", "softmax",
    "softmax_cross_entropy",
]  # fmt: skip

__dir__ = completions(globals())
