"""torch's recurrent modules, run by the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from . import autograd, kernels, operators, paths
from .frozen import Frozen
from .kernels import Form, Inputs
from .packed import Sizes, plain


def run(
    form: Form,
    inputs: Inputs,
    batch: int,
    module: Engine | None = None,
    noise: Callable[[], tuple[Tensor, ...]] = tuple,
) -> tuple[Any, ...] | None:
    """The results, in the way that the tensors and the state of torch ask for; None: torch must.

    `batch` is B where x is packed, `module` whoever keeps its weights packed, and `noise` draws
    that of dropout, but where torch will. `paths.last_path` then says how, or why.
    """
    floats = (inputs.x, inputs.h_0, inputs.c_0, *inputs.weights)
    if torch.compiler.is_compiling():
        if not paths.compiles(floats):
            return None
        inputs = inputs._replace(noise=noise())
        record = paths.records(floats)
        return tuple(operators.recurrent(*form, *inputs, batch, record)[: form.results])
    records = paths.records(floats)
    if module is not None and records:
        raise RuntimeError(
            "this module is frozen, and then has no gradients: call it under torch.no_grad(), "
            "or thaw it, with fastrnn.torch.accelerate(model)"
        )
    path = paths.choose(floats)
    if path.startswith("torch: "):
        paths.took(path)
        return None
    if form.noises:
        inputs = inputs._replace(noise=noise())
    paths.took("kernel")
    made: Sequence[Tensor]
    try:
        if path is paths.OPERATOR:
            made = operators.recurrent(*form, *inputs, batch, records)
        elif path is paths.TRANSFORMED:
            # What is wrapped does not say whether what it wraps requires gradients.
            record = torch.is_grad_enabled() or paths.differentiates()
            made = autograd.Transformed.apply(form, record, *inputs.flat())
        elif module is not None:
            frozen = module._packed(form, inputs.weights)
            made, _ = kernels.forward(form, inputs, False, frozen.directions, frozen.packed)
        elif records:
            made = autograd.Eager.run(form, *inputs.flat())
        else:
            made, _ = kernels.forward(form, inputs, False)
    except kernels.Refused as error:  # torch says what
        paths.took(f"torch: {error}")
        return None
    return tuple(made[: form.results])


class Engine(nn.Module):
    """What makes a module of torch's one of ours: the classes below have it beside theirs."""

    # Set by accelerate(model, frozen=True).
    _freezes = False
    _frozen: Frozen | None = None

    def _weight_names(self) -> Sequence[str]:
        """In torch's order; a Cell has others."""
        names: Sequence[str] = self._flat_weights_names
        return names

    def _weights(self) -> list[Any]:
        """What the attributes are now, whether parameters or made from some by whatever hook."""
        parameters = self._parameters  # in less time than by getattr
        return [
            weight if (weight := parameters.get(name)) is not None else getattr(self, name)
            for name in self._weight_names()
        ]

    def _packed(self, form: Form, weights: Sequence[Tensor]) -> Frozen:
        if self._frozen is None:
            self._frozen = Frozen(form, weights)
        return self._frozen.unchanged(weights)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is packed: a copy packs its own weights."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_frozen"}


def _states(hx: Any, mode: str) -> Any:
    """h_0 and c_0, either None if it is not there; None if torch would not take them."""
    if hx is None:
        return None, None
    if mode != "LSTM":
        return (hx, None) if isinstance(hx, Tensor) else None
    if isinstance(hx, tuple | list) and len(hx) == 2 and all(isinstance(s, Tensor) for s in hx):
        return hx
    return None


class Layer(Engine, nn.RNNBase):
    """What RNN, LSTM and GRU share."""

    _theirs: ClassVar[type[nn.RNNBase]]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's module of this name."""
        sorted_indices = unsorted_indices = batch_sizes = None
        if isinstance(input, PackedSequence):
            x, sizes, sorted_indices, unsorted_indices = input
            batch_sizes = plain(sizes)
        else:
            x = input
        batch = results = None
        if (states := _states(hx, self.mode)) is not None:
            if sorted_indices is not None:
                states = [None if s is None else s.index_select(1, sorted_indices) for s in states]
            h_0, c_0 = states
            batch = self._batch(x, batch_sizes, unsorted_indices, h_0, c_0)
        if batch is None:
            paths.took("torch: the shapes")
        else:
            results = self._run(x, batch_sizes, h_0, c_0, batch)
        if results is None:
            return self._theirs.forward(self, input, hx)
        output, *state = results
        if batch_sizes is not None:
            if output.requires_grad and not torch.compiler.is_compiling():
                batch_sizes = batch_sizes.as_subclass(Sizes)
            output = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
            if unsorted_indices is not None:
                state = [s.index_select(1, unsorted_indices) for s in state]
        return output, state[0] if len(state) == 1 else tuple(state)

    def _batch(self, x: Any, batch_sizes: Any, unsorted_indices: Any, h_0: Any, c_0: Any) -> Any:
        """B, 1 for one sequence; None if x and the state are not for this module."""
        if not isinstance(x, Tensor) or x.is_nested:
            return None
        shape = x.shape
        rank = len(shape)
        if batch_sizes is not None:
            if rank != 2:
                return None
            if unsorted_indices is not None:
                batch = unsorted_indices.shape[0]
            else:
                batch = h_0.shape[1] if h_0 is not None else int(batch_sizes[0])
            steps = 1
        elif rank == 3:
            steps, batch, _ = shape
            if self.batch_first:
                steps, batch = batch, steps
        elif rank == 2:
            steps, batch = shape[0], 1
        else:
            return None
        if steps == 0 or shape[-1] != self.input_size:
            return None
        directions = self.num_layers * (2 if self.bidirectional else 1)
        rows = (directions,) if batch_sizes is None and rank == 2 else (directions, batch)
        if h_0 is not None and h_0.shape != (*rows, self.proj_size or self.hidden_size):
            return None
        if c_0 is not None and c_0.shape != (*rows, self.hidden_size):
            return None
        return batch

    def _run(
        self, x: Tensor, batch_sizes: Tensor | None, h_0: Any, c_0: Any, batch: int
    ) -> tuple[Any, ...] | None:
        bidirectional, projected = self.bidirectional, self.proj_size > 0
        p = self.dropout if self.training and self.num_layers > 1 else 0.0
        # Where nothing is left, the scale does not matter.
        scale = 0.0 if p == 0 else 1 / (1 - p) if p < 1 else 1.0
        form = Form(
            self.mode, self.num_layers, self.bias, projected, bidirectional, self.batch_first,
            False, scale,
        )  # fmt: skip
        weights = self._weights()
        inputs = Inputs(x, batch_sizes, h_0, c_0, weights, ())
        module = self if self._freezes else None
        return run(form, inputs, batch, module, partial(self._noise, x, batch_sizes, p))

    def _noise(self, x: Tensor, batch_sizes: Tensor | None, p: float) -> tuple[Tensor, ...]:
        """0 where dropout drops, between each two layers.

        Drawn as torch's own modules do: one seed drops the same.
        """
        if p == 0:
            return ()
        rows = x.shape[:-1]
        if batch_sizes is None:
            rows = (rows[0], 1) if x.dim() == 2 else rows[::-1] if self.batch_first else rows
        width = (self.proj_size or self.hidden_size) * (2 if self.bidirectional else 1)
        draw = (lambda t: t.bernoulli_(1 - p)) if p < 1 else Tensor.zero_
        return tuple([draw(x.new_empty(*rows, width)) for _ in range(self.num_layers - 1)])


class RNN(Layer):
    """`torch.nn.RNN`, run by the kernels of this package.

    Parameters
    ----------
    *args, **kwargs
        Those of `torch.nn.RNN`: input_size, hidden_size, num_layers, nonlinearity, bias,
        batch_first, dropout, bidirectional, device, dtype.

    Raises
    ------
    TypeError, ValueError
        As torch's.

    See Also
    --------
    accelerate : makes a model's modules such.
    last_path : whether the kernels ran the last call, or why torch did.

    Notes
    -----
    Called with input (T, B, D), (B, T, D) if `batch_first`, (T, D) for one sequence, or a
    PackedSequence, and optionally hx (layers·directions, B, H), it returns output and h_n, of those
    shapes, as torch's. float32 and float64 on the CPU are for the kernels; torch runs all else.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> layer = fastrnn.torch.RNN(3, 4)
    >>> output, h_n = layer(torch.zeros(5, 2, 3))
    >>> output.shape, h_n.shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]))
    """

    _theirs = nn.RNN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        if len(args) > 3:
            self.nonlinearity, args = args[3], args[:3] + args[4:]
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity is {self.nonlinearity!r}, expected 'tanh' or 'relu'")
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)


class LSTM(Layer):
    """`torch.nn.LSTM`, run by the kernels of this package.

    Parameters
    ----------
    *args, **kwargs
        Those of `torch.nn.LSTM`: input_size, hidden_size, num_layers, bias, batch_first, dropout,
        bidirectional, proj_size, device, dtype.

    Raises
    ------
    TypeError, ValueError
        As torch's.

    See Also
    --------
    RNN : what is said there holds here; hx and the state that comes back are pairs (h, c).

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> layer = fastrnn.torch.LSTM(3, 4, bidirectional=True)
    >>> output, (h_n, c_n) = layer(torch.zeros(5, 2, 3))
    >>> output.shape, c_n.shape
    (torch.Size([5, 2, 8]), torch.Size([2, 2, 4]))
    """

    _theirs = nn.LSTM

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    # By which torch's forward checks what it is given.
    check_forward_args = nn.LSTM.check_forward_args
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    permute_hidden = nn.LSTM.permute_hidden


class GRU(Layer):
    """`torch.nn.GRU`, run by the kernels of this package.

    Parameters
    ----------
    *args, **kwargs
        Those of `torch.nn.GRU`: input_size, hidden_size, num_layers, bias, batch_first, dropout,
        bidirectional, device, dtype.

    Raises
    ------
    TypeError, ValueError
        As torch's.

    See Also
    --------
    RNN : what is said there holds here.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> layer = fastrnn.torch.GRU(3, 4, batch_first=True)
    >>> output, h_n = layer(torch.zeros(2, 5, 3))
    >>> output.shape, h_n.shape
    (torch.Size([2, 5, 4]), torch.Size([1, 2, 4]))
    """

    _theirs = nn.GRU

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)


def _no_projection(arguments: dict[str, Any]) -> None:
    if "proj_size" in arguments:
        raise ValueError("proj_size is given, but only an LSTM can have a projection")


class Cell(Engine, nn.RNNCellBase):
    """What RNNCell, LSTMCell and GRUCell share."""

    _theirs: ClassVar[type[nn.RNNCellBase]]
    _gates: ClassVar[int]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, self._gates, device=device, dtype=dtype)

    @property
    def _mode(self) -> str:
        return self._theirs.__name__.removesuffix("Cell")

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's module of this name."""
        mode = self._mode
        results = None
        if (states := _states(hx, mode)) is not None and self._fits(input, *states):
            results = self._run(mode, input, *states)
        else:
            paths.took("torch: the shapes")
        if results is None:
            return self._theirs.forward(self, input, hx)
        return results[0] if len(results) == 1 else results

    def _weight_names(self) -> Sequence[str]:
        return ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") * bool(self.bias)))

    def _fits(self, x: Any, *states: Any) -> bool:
        if not isinstance(x, Tensor) or x.is_nested or x.dim() not in (1, 2):
            return False
        if x.shape[-1] != self.input_size:
            return False
        shape = (*x.shape[:-1], self.hidden_size)
        return all(state is None or state.shape == shape for state in states)

    def _run(self, mode: str, x: Tensor, h_0: Any, c_0: Any) -> Any:
        alone = x.dim() == 1
        if alone:
            x = x[None]
            h_0, c_0 = (None if s is None else s[None] for s in (h_0, c_0))
        form = Form(mode, 1, bool(self.bias), False, False, False, True, 0.0)
        weights = self._weights()
        if any(w is None for w in weights):
            paths.took("torch: a weight is None")
            return None
        inputs = Inputs(x, None, h_0, c_0, weights, ())
        results = run(form, inputs, len(x), self if self._freezes else None)
        return tuple(r[0] for r in results) if alone and results else results


class RNNCell(Cell):
    """`torch.nn.RNNCell`, run by the kernels of this package: one step.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity, device, dtype
        Those of `torch.nn.RNNCell`.

    Raises
    ------
    TypeError, ValueError
        As torch's.

    See Also
    --------
    fastrnn.RNN.stream : many steps in a row without gradients, several times as fast.

    Notes
    -----
    Called with input (B, D), or (D,), and optionally hx (B, H), it returns what torch's does.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> cell = fastrnn.torch.RNNCell(3, 4)
    >>> h = cell(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 4])
    """

    _theirs = nn.RNNCell
    _gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    @property
    def _mode(self) -> str:
        return f"RNN_{str(self.nonlinearity).upper()}"

    def _fits(self, x: Any, *states: Any) -> bool:
        return self.nonlinearity in ("tanh", "relu") and super()._fits(x, *states)


class LSTMCell(Cell):
    """`torch.nn.LSTMCell`, run by the kernels of this package: one step.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        Those of `torch.nn.LSTMCell`.

    Raises
    ------
    TypeError, ValueError
        As torch's.

    See Also
    --------
    fastrnn.RNN.stream : many steps in a row without gradients, several times as fast.

    Notes
    -----
    Called with input (B, D), or (D,), and optionally hx, a pair (h, c), each (B, H), it returns
    what torch's does.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> cell = fastrnn.torch.LSTMCell(3, 4)
    >>> h, c = cell(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 4])
    """

    _theirs = nn.LSTMCell
    _gates = 4


class GRUCell(Cell):
    """`torch.nn.GRUCell`, run by the kernels of this package: one step.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        Those of `torch.nn.GRUCell`.

    Raises
    ------
    TypeError, ValueError
        As torch's.

    See Also
    --------
    fastrnn.RNN.stream : many steps in a row without gradients, several times as fast.

    Notes
    -----
    Called with input (B, D), or (D,), and optionally hx (B, H), it returns what torch's does.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> cell = fastrnn.torch.GRUCell(3, 4)
    >>> h = cell(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 4])
    """

    _theirs = nn.GRUCell
    _gates = 3


LAYERS: dict[type[nn.RNNBase], type[Layer]] = {cls._theirs: cls for cls in (RNN, LSTM, GRU)}
CELLS: dict[type[nn.RNNCellBase], type[Cell]] = {
    cls._theirs: cls for cls in (RNNCell, LSTMCell, GRUCell)
}
