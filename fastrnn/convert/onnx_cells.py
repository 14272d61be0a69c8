"""ONNX's recurrent operators beside our cells: gates, activations. Both directions read it here.

ONNX calls the candidate of an LSTM c and that of a GRU h; the letters here are those of ORDERS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# What an LSTM reads, in this order. The others have no cell, and so none of the last two.
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")

# How our weights' names end for each of the first axis of W, R and B.
DIRECTIONS = {
    "forward": ("",), "reverse": ("_reverse",), "bidirectional": ("", "_reverse"),
}  # fmt: skip


class Operator(NamedTuple):
    """One of ONNX's recurrent operators.

    Attributes
    ----------
    order : str
        Its gates, in the order of the rows of W, R and each half of B. P has those but for the
        candidate's.
    activations : tuple of str
        The defaults of one direction.
    attribute : str
        What it has besides those that all of them have, "" for none.
    inputs : tuple of str
        What it reads.
    """

    order: str
    activations: tuple[str, ...]
    attribute: str = ""
    inputs: tuple[str, ...] = INPUTS[:6]

    def given(self, values: Sequence[str]) -> dict[str, str]:
        """The names of a node's inputs, of those that are not left out, by what they are."""
        return {what: value for what, value in zip(self.inputs, values, strict=False) if value}


# Under the names of our layers, which are those of the operators. A GRU's linear_before_reset is
# our reset_after.
OPERATORS = {
    "RNN": Operator("h", ("Tanh",)),
    "LSTM": Operator("iofg", ("Sigmoid", "Tanh", "Tanh"), "input_forget", INPUTS),
    "GRU": Operator("zrn", ("Sigmoid", "Tanh"), "linear_before_reset"),
}


class Activation(NamedTuple):
    """An activation: its operator, and what activation_alpha and activation_beta have to be.

    None: it takes none.
    """

    operator: str
    alpha: float | None = None
    beta: float | None = None


# By our nonlinearity of an Elman layer.
ACTIVATIONS = {
    "tanh": Activation("Tanh"),
    "relu": Activation("Relu"),
    "sigmoid": Activation("Sigmoid"),
    "identity": Activation("Affine", 1.0, 0.0),
    "hard_sigmoid": Activation("HardSigmoid", 1 / 6, 0.5),
}

# What alpha and beta are where the lists do not say, of those activations that we may have. Of
# Affine the specification has no alpha, and onnxruntime takes 0.
DEFAULTS = {"Affine": (0.0, 0.0), "HardSigmoid": (0.2, 0.5)}
