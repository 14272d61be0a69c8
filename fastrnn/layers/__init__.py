"""The layers, which own their weights: RNN, LSTM, GRU, Linear and Embedding."""

from .embedding import Embedding, embedding_backward, embedding_forward
from .gru import GRU
from .linear import Linear, linear_backward, linear_forward
from .lstm import LSTM
from .rnn import RNN
from .tape import LayerGradients, LayerTape
from .weights import Weighted

LAYERS: dict[str, type[Weighted]] = {
    cls.__name__: cls for cls in (RNN, LSTM, GRU, Linear, Embedding)
}

__all__ = [
    "GRU",
    "LAYERS",
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
