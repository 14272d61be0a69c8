"""The layers, which own their weights: RNN, LSTM, GRU, Linear and Embedding."""

from .embedding import Embedding, embedding_backward, embedding_forward
from .gru import GRU
from .linear import Linear, linear_backward, linear_forward
from .lstm import LSTM
from .rnn import RNN
from .tape import LayerGradients, LayerTape
from .weights import Weighted

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Embedding",
    "LayerGradients",
    "LayerTape",
    "Linear",
    "Weighted",
    "embedding_backward",
    "embedding_forward",
    "linear_backward",
    "linear_forward",
]
