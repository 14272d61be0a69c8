"""GRU, the stack of GRU layers, with PyTorch's arguments, attributes and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .. import _checks
from .._attributes import Checks
from ..cells.gru import GRU as CELL
from .recurrent import Recurrent

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]


class GRU(Recurrent["Array"]):
    """Gated recurrent units: a state h that is renewed as far as a gate lets it.

    For each step t of a row ([1]_; `reset_after` is the variant of cuDNN and PyTorch)::

        r_t = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
        z_t = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
        n_t = tanh(W_in x_t + b_in + r_t (W_hn h_{t-1} + b_hn))      reset_after
        n_t = tanh(W_in x_t + b_in + W_hn (r_t h_{t-1}) + b_hn)      not reset_after
        h_t = n_t + z_t (h_{t-1} - n_t)

    Parameters
    ----------
    input_size : int or None
        D. None: layer 0 has no weight_ih, and x is in the place of its product with that: (T, B,
        3·H), or 6·H if `bidirectional`, the reverse direction's behind; see `fastrnn.rnn_forward`.
    hidden_size : int
        H.
    num_layers : int
        How many layers: each one but the first takes the output of the one below.
    bias : bool or "single"
        Whether there are b_ih and b_hh. "single": b_ih alone, as code with one bias has it. The
        reset gate then acts on W_hn h_{t-1} without a bias: there is no b_hn.
    batch_first : bool
        Whether x, output and restart have the batch axis before the time axis. The state does not.
    dropout : float
        In [0, 1): how likely an element of the output of each layer but the last is to be zero
        while training. Without effect on a single layer.
    bidirectional : bool
        Whether every layer also runs from the last step to the first. Its output is that of both
        directions, side by side.
    reset_after : bool
        Whether the reset gate acts behind the product with W_hn, as in PyTorch, or before it, as in
        the original.
    reverse : bool
        Whether every layer runs from the last step to the first, and in this direction only. Output
        stays in the order of x. With lengths, each row starts at its own last step. The final state
        is the one after step 0. Not together with `bidirectional`.
    dtype : {"float32", "float64"}
        Of the weights, and of all arrays.
    rng : optional
        Anything that `numpy.random.default_rng` takes: a seed, a Generator, or None.
    init : {"uniform", "orthogonal"}
        Every weight uniform in ±1/sqrt(H), as in PyTorch; or the same but each gate's part of
        weight_hh orthogonal.

    Attributes
    ----------
    input_size : int or None
    hidden_size, num_layers : int
    bias : bool or "single"
    bidirectional, reverse : bool
        As given; fixed.
    batch_first : bool
    dropout : float
    reset_after : bool
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
    fastrnn.gru_forward : one layer in one direction.

    Notes
    -----
    The state is (layers·directions, B, H), or (layers·directions, H) for one sequence, in PyTorch's
    order: layer 0, layer 0 reverse, layer 1, ...

    The weights of layer k are weight_ih_l{k} (3·H, D), weight_hh_l{k} (3·H, H), bias_ih_l{k} and
    bias_hh_l{k} (3·H,), all with the rows of r, z, n in this order, and of the reverse direction
    the same with ``_reverse`` behind. From the second layer on, D is H, or 2·H if `bidirectional`.
    There is no weight_ih_l0 if `input_size` is None.

    A layer keeps nothing of a forward, so it may serve many threads. It pickles; `copy.deepcopy`
    gives independent weights, `copy.copy` shares them.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
       machine translation", EMNLP 2014, 1724-1734.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.GRU(3, 4, num_layers=2, dropout=0.5, batch_first=True, rng=0)
    >>> x = np.ones((2, 5, 3), np.float32)
    >>> output, state, tape = layer.forward(x, rng=1)
    >>> output.shape, state.shape
    ((2, 5, 4), (2, 2, 4))
    >>> grads = layer.backward(tape, d_output=np.ones_like(output), wrt=["x", "bias_ih_l1"])
    >>> grads.x.shape, list(grads.weights)
    ((2, 5, 3), ['bias_ih_l1'])
    """

    _cell = CELL
    _settable: ClassVar[Checks] = Recurrent._settable | {"reset_after": _checks.flag}

    reset_after: bool

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool | Literal["single"] = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        reverse: bool = False,
        dtype: DTypeLike = "float32",
        rng: Any = None,
        init: str = "uniform",
    ) -> None:
        what = {
            "input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers,
            "bias": bias, "batch_first": batch_first, "dropout": dropout,
            "bidirectional": bidirectional, "reset_after": reset_after, "reverse": reverse,
        }  # fmt: skip
        self._make(dtype, rng, init, what)

    @property
    def _options(self) -> tuple[Any, ...]:
        return (self.reset_after,)
