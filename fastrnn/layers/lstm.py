"""LSTM, the stack of LSTM layers, with PyTorch's arguments, attributes and weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from .. import _checks
from .._attributes import Checks
from ..cells.lstm import LSTM as CELL
from .recurrent import Recurrent

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]


class LSTM(Recurrent["tuple[Array, Array]"]):
    """Long short-term memory: a state c that gates write to, forget from, and read.

    For each step t of a row, with p_i, p_f, p_o zero unless `peephole` ([1]_, [2]_, [3]_)::

        i_t = sigmoid(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi + p_i c_{t-1})
        f_t = sigmoid(W_if x_t + b_if + W_hf h_{t-1} + b_hf + p_f c_{t-1})
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        c_t = f_t c_{t-1} + i_t g_t
        o_t = sigmoid(W_io x_t + b_io + W_ho h_{t-1} + b_ho + p_o c_t)
        h_t = o_t tanh(c_t), or W_hr (o_t tanh(c_t)) with a projection

    Parameters
    ----------
    input_size : int or None
        D. None: layer 0 has no weight_ih, and x is in the place of its product with that: (T, B,
        4·H), or 8·H if `bidirectional`, the reverse direction's behind; see `fastrnn.rnn_forward`.
    hidden_size : int
        H.
    num_layers : int
        How many layers: each one but the first takes the output of the one below.
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
    proj_size : int
        P, less than H: how many units h has. 0: no projection, and P = H.
    peephole : bool
        Whether the gates see c, through weight_peephole.
    forget_bias : float
        What is added to the forget gates' rows of bias_ih once the weights are drawn: 1 or more
        makes a fresh network remember for longer [4]_. It needs `bias` unless it is 0.
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
        weight_hh with orthonormal columns.

    Attributes
    ----------
    input_size : int or None
    hidden_size, num_layers, proj_size : int
    bias : bool or "single"
    bidirectional, peephole, reverse : bool
    forget_bias : float
        As given; fixed.
    batch_first : bool
    dropout : float
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
    fastrnn.lstm_forward : one layer in one direction.

    Notes
    -----
    The state is the pair (h, c), h (layers·directions, B, P) and c (layers·directions, B, H), both
    without B for one sequence, in PyTorch's order: layer 0, layer 0 reverse, layer 1, ...

    The weights of layer k are weight_ih_l{k} (4·H, D) and weight_hh_l{k} (4·H, P), bias_ih_l{k} and
    bias_hh_l{k} (4·H,), all with the rows of i, f, g, o in this order; weight_hr_l{k} (P, H) with a
    projection; weight_peephole_l{k} (3·H,), which is p_i, p_f, p_o; and of the reverse direction
    the same with ``_reverse`` behind. From the second layer on, D is P, or 2·P if `bidirectional`.
    There is no weight_ih_l0 if `input_size` is None.

    A layer keeps nothing of a forward, so it may serve many threads. It pickles; `copy.deepcopy`
    gives independent weights, `copy.copy` shares them.

    References
    ----------
    .. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997),
       1735-1780.
    .. [2] F. A. Gers, N. N. Schraudolph and J. Schmidhuber, "Learning precise timing with LSTM
       recurrent networks", Journal of Machine Learning Research 3 (2002), 115-143.
    .. [3] H. Sak, A. Senior and F. Beaufays, "Long short-term memory recurrent neural network
       architectures for large scale acoustic modeling", Interspeech 2014, 338-342.
    .. [4] R. Jozefowicz, W. Zaremba and I. Sutskever, "An empirical exploration of recurrent
       network architectures", ICML 2015, 2342-2350.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.LSTM(3, 4, bidirectional=True, forget_bias=1.0, rng=0)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> output, (h, c), tape = layer.forward(x, keep=["gates"])
    >>> output.shape, h.shape, c.shape
    ((5, 2, 8), (2, 2, 4), (2, 2, 4))
    >>> [gates.shape for gates in tape.gates]
    [(5, 2, 16), (5, 2, 16)]
    >>> grads = layer.backward(tape, d_output=np.ones_like(output), d_state=(None, c))
    >>> layer.flat_weights[...] -= 0.1 * grads.flat_weights
    """

    _cell = CELL
    _fixed: ClassVar[Checks] = Recurrent._fixed | {
        "proj_size": partial(_checks.size, minimum=0), "peephole": _checks.flag,
        "forget_bias": _checks.number,
    }  # fmt: skip

    proj_size: int
    peephole: bool
    forget_bias: float

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool | Literal["single"] = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peephole: bool = False,
        forget_bias: float = 0.0,
        reverse: bool = False,
        dtype: DTypeLike = "float32",
        rng: Any = None,
        init: str = "uniform",
    ) -> None:
        what = {
            "input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers,
            "bias": bias, "batch_first": batch_first, "dropout": dropout,
            "bidirectional": bidirectional, "proj_size": proj_size, "peephole": peephole,
            "forget_bias": forget_bias, "reverse": reverse,
        }  # fmt: skip
        self._make(dtype, rng, init, what)

    def _initialise(self, dtype: DTypeLike, rng: Any, init: str) -> None:
        # In the type that it is added in.
        _checks.finite_in("forget_bias", self.forget_bias, _checks.float_dtype("dtype", dtype))
        super()._initialise(dtype, rng, init)
        if self.forget_bias:
            forget = slice(self.hidden_size, 2 * self.hidden_size)
            for suffix in self._suffixes:
                self._weights[f"bias_ih{suffix}"][forget] += self.forget_bias

    def _configure(self, **arguments: Any) -> None:
        super()._configure(**arguments)
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size is {self.proj_size}, expected less than hidden_size = "
                f"{self.hidden_size}, or 0 for no projection"
            )
        given = arguments["forget_bias"]
        if not np.isfinite(self.forget_bias):
            raise ValueError(f"forget_bias is {given!r}, expected a finite number")
        if self.forget_bias and not self.bias:
            raise ValueError(f"forget_bias is {given!r}, but bias is False")

    def _refusal(self, name: str) -> str | None:
        text = super()._refusal(name)
        if name == "forget_bias" and getattr(self, "bias", False):
            h = self.hidden_size
            return (
                "forget_bias was added when the weights were drawn: make another LSTM, or change "
                "the rows of the forget gates: write for name in layer.weights: "
                f"layer.weights[name][{h}:{2 * h}] += (value - layer.forget_bias) * "
                "name.startswith('bias_ih')  # once: layer.forget_bias stays as it was"
            )
        return text

    @property
    def _units(self) -> int:
        return self.proj_size or self.hidden_size

    def _direction_shapes(self, features: int | None) -> dict[str, tuple[int, ...]]:
        shapes = super()._direction_shapes(features)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        if self.peephole:
            shapes["weight_peephole"] = (3 * self.hidden_size,)
        return shapes
