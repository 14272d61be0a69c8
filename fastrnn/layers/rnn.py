"""RNN, the stack of Elman layers, with PyTorch's arguments, attributes and weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .. import _checks
from .._attributes import Checks
from ..cells.rnn import RNN as CELL
from ..reference.nonlinearities import NONLINEARITIES
from .recurrent import Recurrent

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]


class RNN(Recurrent["Array"]):
    """Elman networks: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh).

    Parameters
    ----------
    input_size : int or None
        D. None: layer 0 has no weight_ih, and x is in the place of its product with that: (T, B,
        H), or 2·H if `bidirectional`, the reverse direction's behind; see `fastrnn.rnn_forward`.
    hidden_size : int
        H.
    num_layers : int
        How many layers: each one but the first takes the output of the one below.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity", "hard_sigmoid"}
        f; hard_sigmoid(z) is min(max(z + 3, 0), 6)/6, as in PyTorch and Keras 3.
    bias : bool or "single"
        Whether there are b_ih and b_hh. "single": b_ih alone, as code with one bias has it (two
        that are added would both move, and a step of SGD be twice as long).
    batch_first : bool
        Whether x, output and restart have the batch axis before the time axis. The state does not.
    dropout : float
        In [0, 1): how likely an element of the output of each layer but the last is to be zero
        while training. Without effect on a single layer.
    bidirectional : bool
        Whether every layer also runs from the last step to the first. Its output is that of both
        directions, side by side.
    reverse : bool
        Whether every layer runs from the last step to the first, and in this direction only. Output
        stays in the order of x. With lengths, each row starts at its own last step. The final state
        is the one after step 0. Not together with `bidirectional`.
    dtype : {"float32", "float64"}
        Of the weights, and of all arrays.
    rng : optional
        Anything that `numpy.random.default_rng` takes: a seed, a Generator, or None.
    init : {"uniform", "orthogonal"}
        Every weight uniform in ±1/sqrt(H), as in PyTorch; or the same but weight_hh orthogonal,
        which keeps gradients alive over longer sequences.

    Attributes
    ----------
    input_size : int or None
    hidden_size, num_layers : int
    bias : bool or "single"
    bidirectional, reverse : bool
        As given; fixed.
    batch_first : bool
    dropout : float
    nonlinearity : str
        As given; they can be set, and what is set is checked.
    dtype : numpy.dtype
        float32 or float64, of the weights and of all arrays; fixed.
    weights : mapping of str to ndarray
        The weights by their names, views into `flat_weights`. They are changed by writing their
        elements, ``layer.weights["bias_ih_l0"][...] = 0``.
    flat_weights : ndarray
        (n,): all n weights in one aligned array, as optimisers take it; changed in the same way.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    See Also
    --------
    fastrnn.rnn_forward : one layer in one direction, with the equations.

    Notes
    -----
    The state is (layers·directions, B, H), or (layers·directions, H) for one sequence, in PyTorch's
    order: layer 0, layer 0 reverse, layer 1, ...

    The weights of layer k are weight_ih_l{k} (H, D), weight_hh_l{k} (H, H), bias_ih_l{k} and
    bias_hh_l{k} (H,), and of the reverse direction the same with ``_reverse`` behind. From the
    second layer on, D is H, or 2·H if `bidirectional`. There is no weight_ih_l0 if `input_size` is
    None.

    A layer keeps nothing of a forward, so it may serve many threads. It pickles; `copy.deepcopy`
    gives independent weights, `copy.copy` shares them.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.RNN(3, 4, num_layers=2, rng=0)
    >>> layer
    RNN(3, 4, num_layers=2)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> output, state, tape = layer.forward(x)
    >>> output.shape, state.shape
    ((5, 2, 4), (2, 2, 4))
    >>> grads = layer.backward(tape, d_output=np.ones_like(output))
    >>> layer.flat_weights[...] -= 0.1 * grads.flat_weights
    """

    _cell = CELL
    _settable: ClassVar[Checks] = Recurrent._settable | {
        "nonlinearity": partial(_checks.choice, choices=NONLINEARITIES)
    }

    nonlinearity: str

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool | Literal["single"] = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        dtype: DTypeLike = "float32",
        rng: Any = None,
        init: str = "uniform",
    ) -> None:
        what = {
            "input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers,
            "nonlinearity": nonlinearity, "bias": bias, "batch_first": batch_first,
            "dropout": dropout, "bidirectional": bidirectional, "reverse": reverse,
        }  # fmt: skip
        self._make(dtype, rng, init, what)

    @property
    def _options(self) -> tuple[Any, ...]:
        return (self.nonlinearity,)
