"""torch's recurrent modules, run by the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from . import autograd, kernels, operators, paths
from .kernels import Form, Inputs
from .packed import Rows


def run(
    form: Form, inputs: Inputs, batch: int, draw: Callable[[], tuple[Tensor, ...]] = tuple
) -> tuple[Any, ...] | None:
    """The results, in the way that the tensors and the state of torch ask for; None: torch must.

    `batch` is B where x is packed. `draw` makes the noise, where torch does not make its own.
    `paths.last_path` then says how, or why.
    """
    floats = (inputs.x, inputs.h_0, inputs.c_0, *inputs.weights)
    if torch.compiler.is_compiling():
        if not paths.compiles(floats):
            return None
        record = paths.records(floats)
        inputs = inputs._replace(noise=draw())
        return tuple(operators.recurrent(*form, *inputs, batch, record)[: form.results])
    path = paths.choose(floats)
    try:
        if form.noises and not path.startswith("torch"):
            inputs = inputs._replace(noise=draw())
        if path is paths.KERNEL:
            paths.took(path)
            if paths.records(floats):
                return tuple(autograd.Eager.run(form, *inputs.flat()))
            return tuple(kernels.forward(form, inputs, False)[0])
        if path is paths.OPERATOR:
            record = paths.records(floats)
            paths.took("kernel")
            inputs = inputs._replace(x=plain(inputs.x))
            return tuple(operators.recurrent(*form, *inputs, batch, record)[: form.results])
        if path is paths.TRANSFORMED:
            # What is wrapped does not say whether what it wraps requires gradients.
            record = torch.is_grad_enabled() or paths.differentiates()
            paths.took("kernel")
            return tuple(autograd.Transformed.apply(form, record, *inputs.flat())[: form.results])
    except (TypeError, ValueError) as error:  # something does not fit: torch says what
        path = f"torch: {error}"
    paths.took(path)
    return None


def plain(x: Tensor) -> Tensor:
    """x as an operator takes it, which torch's modes refuse with a class that they do not know."""
    return x.as_subclass(Tensor) if isinstance(x, Rows) else x


def states_of(mode: str, hx: Any) -> tuple[Any, Any] | None:
    """h_0 and c_0, None where there are none; None for both if torch has to refuse hx."""
    if hx is None:
        return None, None
    if mode != "LSTM":
        return (hx, None) if isinstance(hx, Tensor) else None
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        return None
    h_0, c_0 = hx
    return (h_0, c_0) if isinstance(h_0, Tensor) and isinstance(c_0, Tensor) else None


def weights_of(module: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """What the attributes are now, whether parameters or made from some by whatever hook."""
    parameters = module._parameters  # in less time than by getattr
    return [
        weight if (weight := parameters.get(name)) is not None else getattr(module, name)
        for name in names
    ]


class Layer(nn.RNNBase):
    """What RNN, LSTM and GRU share."""

    _theirs: ClassVar[type[nn.RNNBase]]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's module of this name."""
        sorted_indices = unsorted_indices = batch_sizes = None
        if isinstance(input, PackedSequence):
            x, batch_sizes, sorted_indices, unsorted_indices = input
        else:
            x = input
        results = batch = None
        if (states := states_of(self.mode, hx)) is not None:
            h_0, c_0 = states
            if sorted_indices is not None and hx is not None:
                h_0, c_0 = (
                    None if s is None else s.index_select(1, sorted_indices) for s in states
                )
            batch = self._batch(x, batch_sizes, unsorted_indices, h_0, c_0)
        if batch is None:
            paths.took("torch: the shapes")
        else:
            results = self._run(x, batch_sizes, h_0, c_0, batch)
        if results is None:
            return self._theirs.forward(self, input, hx)
        output, *state = results
        if batch_sizes is not None:
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
        p = self.dropout if self.training and self.num_layers > 1 else 0
        scale = 0.0 if not p else 1 / (1 - p) if p < 1 else 1.0
        form = Form(
            self.mode, self.num_layers, self.bias, projected, bidirectional, self.batch_first,
            False, scale,
        )  # fmt: skip
        weights = weights_of(self, self._flat_weights_names)
        inputs = Inputs(x, batch_sizes, h_0, c_0, weights, ())
        if not p:
            return run(form, inputs, batch)
        return run(form, inputs, batch, lambda: self._noise(x, batch_sizes, p))

    def _noise(self, x: Tensor, batch_sizes: Tensor | None, p: float) -> tuple[Tensor, ...]:
        """0 where dropout drops; drawn as torch's own modules do: one seed drops the same."""
        rows = x.shape[:-1]
        if batch_sizes is None:
            rows = (rows[0], 1) if x.dim() == 2 else rows[::-1] if self.batch_first else rows
        width = (self.proj_size or self.hidden_size) * (2 if self.bidirectional else 1)
        draw = (lambda t: t.bernoulli_(1 - p)) if p < 1 else Tensor.zero_
        return tuple(draw(x.new_empty(*rows, width)) for _ in range(self.num_layers - 1))


class RNN(Layer):
    """`torch.nn.RNN`, run by the kernels of this package.

    The arguments, parameters, ``state_dict``, inputs and results are those of `torch.nn.RNN`.
    What the kernels do not do, torch does; see `last_path`.

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
    _theirs = nn.LSTM

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    # By which torch's forward checks what it is given.
    check_forward_args = nn.LSTM.check_forward_args
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    permute_hidden = nn.LSTM.permute_hidden


class GRU(Layer):
    _theirs = nn.GRU

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)


def _no_projection(arguments: dict[str, Any]) -> None:
    if "proj_size" in arguments:
        raise ValueError("proj_size is given, but only an LSTM can have a projection")


class Cell(nn.RNNCellBase):
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
        states = states_of(mode, hx)
        results = None
        if states is not None and self._fits(input, *states):
            results = self._run(mode, input, *states)
        else:
            paths.took("torch: the shapes")
        if results is None:
            return self._theirs.forward(self, input, hx)
        return results[0] if len(results) == 1 else results

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
        bias = bool(self.bias)
        form = Form(mode, 1, bias, False, False, False, True, 0.0)
        names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") * bias))
        results = run(form, Inputs(x, None, h_0, c_0, weights_of(self, names), ()), len(x))
        return tuple(r[0] for r in results) if alone and results else results


class RNNCell(Cell):
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
        return f"RNN_{self.nonlinearity.upper()}"

    def _fits(self, x: Any, *states: Any) -> bool:
        return self.nonlinearity in ("tanh", "relu") and super()._fits(x, *states)


class LSTMCell(Cell):
    _theirs = nn.LSTMCell
    _gates = 4


class GRUCell(Cell):
    _theirs = nn.GRUCell
    _gates = 3


LAYERS: dict[type[nn.RNNBase], type[Layer]] = {cls._theirs: cls for cls in (RNN, LSTM, GRU)}
CELLS: dict[type[nn.RNNCellBase], type[Cell]] = {
    cls._theirs: cls for cls in (RNNCell, LSTMCell, GRUCell)
}
