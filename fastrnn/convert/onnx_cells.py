"""ONNX's recurrent operators beside our cells: gates, activations. Both directions read it here.

ONNX calls the candidate of an LSTM c and that of a GRU h; the letters here are those of ORDERS.
"""

from __future__ import annotations

from typing import NamedTuple


class Operator(NamedTuple):
    """One of ONNX's recurrent operators.

    Attributes
    ----------
    order : str
        Its gates, in the order of the rows of W, R and each half of B.
    activations : tuple of str
        The defaults of one direction.
    attribute : str
        What it has besides those that all of them have, "" for none.
    """

    order: str
    activations: tuple[str, ...]
    attribute: str = ""


# Under the names of our layers, which are those of the operators. A GRU's linear_before_reset is
# our reset_after.
OPERATORS = {
    "RNN": Operator("h", ("Tanh",)),
    "LSTM": Operator("iofg", ("Sigmoid", "Tanh", "Tanh"), "input_forget"),
    "GRU": Operator("zrn", ("Sigmoid", "Tanh"), "linear_before_reset"),
}
PEEPHOLES = "iof"  # an LSTM's P; weight_peephole has OUR_PEEPHOLES
OUR_PEEPHOLES = "ifo"


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

# What alpha and beta are where the lists do not say, of those activations that we may have.
DEFAULTS = {"Affine": (1.0, 0.0), "HardSigmoid": (0.2, 0.5)}
