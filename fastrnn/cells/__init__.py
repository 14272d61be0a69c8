"""The cells: one module each, and what they share in base.py."""

from .base import Cell
from .gru import GRU, gru_backward, gru_forward
from .lstm import LSTM, lstm_backward, lstm_forward
from .rnn import RNN, rnn_backward, rnn_forward

CELLS: dict[str, Cell] = {cell.spec.name: cell for cell in (RNN, LSTM, GRU)}

__all__ = [
    "CELLS",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_forward",
]
