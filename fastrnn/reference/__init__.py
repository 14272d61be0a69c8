"""The specification: every compiled function again, in plain NumPy.

Same names, signatures, results and errors as the functions of `fastrnn`; slow, and short enough to
be read beside the equations. ``with fastrnn.backend("reference"):`` runs the whole package on it.
"""

from .rnn import rnn_backward, rnn_forward

__all__ = ["rnn_backward", "rnn_forward"]
