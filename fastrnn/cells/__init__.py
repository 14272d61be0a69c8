"""The cells: one module each, and what they share in base.py."""

from .base import Cell
from .gru import GRU
from .leaky import LEAKY
from .lstm import LSTM
from .rnn import RNN

CELLS: dict[str, Cell] = {cell.spec.name: cell for cell in (RNN, LSTM, GRU, LEAKY)}

__all__ = ["CELLS"]
