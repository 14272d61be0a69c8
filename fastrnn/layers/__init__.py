"""The layers, which own their weights, Dropout, and models of several."""

from typing import Any

from .dropout import Dropout
from .embedding import Embedding, embedding_backward, embedding_forward
from .frozen import Frozen
from .frozen_linear import FrozenEmbedding, FrozenLinear
from .frozen_recurrent import FrozenRecurrent
from .frozen_sequential import FrozenSequential
from .gru import GRU
from .leaky import LeakyRNN
from .linear import Linear, linear_backward, linear_forward
from .lstm import LSTM
from .recurrent import Recurrent
from .rnn import RNN
from .sequential import Sequential
from .tape import LayerGradients, LayerTape
from .weights import Weighted

LAYERS: dict[str, type[Weighted]] = {
    cls.__name__: cls for cls in (RNN, LSTM, GRU, LeakyRNN, Linear, Embedding)
}

# The recurrent ones, by the name of their cell.
RECURRENT: dict[str, type[Recurrent[Any]]] = {
    cls._cell.spec.name: cls for cls in LAYERS.values() if issubclass(cls, Recurrent)
}

__all__ = [
    "LAYERS", "RECURRENT", "Dropout", "Embedding", "Frozen", "FrozenEmbedding", "FrozenLinear",
    "FrozenRecurrent", "FrozenSequential", "LayerGradients", "LayerTape", "LeakyRNN",
    "Linear", "Recurrent", "Sequential", "Weighted", "embedding_backward", "embedding_forward",
    "linear_backward", "linear_forward",
]  # fmt: skip
