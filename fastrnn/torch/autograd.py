"""The kernels under autograd: eagerly, and under torch.func's transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import kernels, operators, paths, recompute
from .kernels import Form, Inputs, spread


class Eager(torch.autograd.Function):
    """The usual way: run(form, x, batch_sizes, h_0, c_0, *weights, *noise)."""

    @classmethod
    def run(cls, *arguments: Any) -> Any:
        """`apply`, without its look for torch.func's transforms: there are none."""
        return super(torch.autograd.Function, cls).apply(*arguments)

    @staticmethod
    def forward(ctx: Any, form: Form, *flat: Any) -> tuple[Tensor, ...]:
        inputs, _ = Inputs.of(form, flat)
        results, kept = kernels.forward(form, inputs, True)
        ctx.form = form
        output = results[0] if kernels.keeps_result(form, inputs) else None
        # All of it as saved tensors: torch then knows of changes in place, and when to free it.
        ctx.save_for_backward(*flat, output, *kept)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *d_results: Any) -> tuple[Any, ...]:
        form: Form = ctx.form
        if all(d is None for d in d_results):  # nothing came here: nothing goes on
            return (None,) * len(ctx.needs_input_grad)
        inputs, (output, *kept) = Inputs.of(form, ctx.saved_tensors)
        _, x_too, _, h_too, c_too, *rest = ctx.needs_input_grad
        wanted = (x_too, h_too, c_too, *rest[: form.weights])
        made: Sequence[Any]
        if torch.compiler.is_compiling():  # compiled autograd
            arguments = *form, *inputs, wanted, d_results, output, kept
            made = spread(operators.recurrent_backward(*arguments), wanted)
        elif torch._C._are_functorch_transforms_active():  # vmap over torch.autograd.grad
            made = TransformedBackward.of(form, wanted, d_results, ctx.saved_tensors)
        elif why := paths.why_torch_goes_back(d_results):
            paths.took(why)
            made = recompute.gradients(form, wanted, inputs, d_results)
        else:
            paths.took("kernel")
            made = kernels.backward(form, wanted, inputs, output, kept, d_results)
        d_x, d_h, d_c, *d_weights = made
        return None, d_x, None, d_h, d_c, *d_weights, *(None,) * form.noises


class Transformed(torch.autograd.Function):
    """Under torch.func: apply(form, record, x, batch_sizes, h_0, c_0, *weights, *noise).

    It returns the results and, behind them, what is kept for backward.
    """

    @staticmethod
    def forward(form: Form, record: bool, *flat: Any) -> tuple[Tensor, ...]:
        inputs, _ = Inputs.of(form, flat)
        results, kept = kernels.forward(form, inputs, record)
        return *results, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        form, record, *flat = inputs
        kept = output[form.results :]
        ctx.mark_non_differentiable(*kept)
        if record:
            ctx.form = form
            inputs, _ = Inputs.of(form, flat)
            result = output[0] if kernels.keeps_result(form, inputs) else None
            ctx.save_for_backward(*flat, result, *kept)
            ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *d_all: Any) -> tuple[Any, ...]:
        form: Form = ctx.form
        _, _, x_too, _, h_too, c_too, *rest = ctx.needs_input_grad
        wanted = (x_too, h_too, c_too, *rest[: form.weights])
        if all(d is None for d in d_all[: form.results]):
            return (None,) * len(ctx.needs_input_grad)
        made = TransformedBackward.of(form, wanted, d_all[: form.results], ctx.saved_tensors)
        d_x, d_h, d_c, *d_weights = made
        return None, None, d_x, None, d_h, d_c, *d_weights, *(None,) * form.noises

    @staticmethod
    def vmap(info: Any, in_dims: Any, form: Form, record: bool, *flat: Any) -> Any:
        n, dims = info.batch_size, in_dims[2:]
        inputs, _ = Inputs.of(form, flat)
        if (
            any(dim is not None for dim in dims[4 : 4 + form.weights])
            or dims[1] is not None
            or (inputs.batch_sizes is not None)
        ):  # each has weights, or lengths, of its own
            made = [Transformed.apply(form, record, *_of_one(flat, dims, i)) for i in range(n)]
            return tuple(map(torch.stack, zip(*made, strict=True))), (0,) * len(made[0])
        fold = Fold(form, n, inputs.x.dim() - (dims[0] is not None))
        results = Transformed.apply(fold.form, record, *fold.together(flat, dims))
        return fold.apart(results)


class TransformedBackward(torch.autograd.Function):
    """The gradients wanted: apply(form, wanted, *d_results, *flat, output, *kept)."""

    @classmethod
    def of(
        cls, form: Form, wanted: tuple[bool, ...], d_results: Sequence[Any], saved: Sequence[Any]
    ) -> list[Any]:
        """The same, with None where none is wanted."""
        return spread(cls.apply(form, wanted, *d_results, *saved), wanted)

    @staticmethod
    def forward(form: Form, wanted: tuple[bool, ...], *rest: Any) -> tuple[Tensor, ...]:
        paths.took("kernel")
        d_results, saved = rest[: form.results], rest[form.results :]
        inputs, (output, *kept) = Inputs.of(form, saved)
        made = kernels.backward(form, wanted, inputs, output, kept, d_results)
        return tuple(d for d in made if d is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.form, ctx.wanted, *rest = inputs
        ctx.save_for_backward(*rest)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *dd: Any) -> tuple[Any, ...]:
        paths.took("torch: create_graph")
        made = recompute.second(ctx.form, ctx.wanted, ctx.saved_tensors, dd)
        return None, None, *made

    @staticmethod
    def vmap(info: Any, in_dims: Any, form: Form, wanted: Any, *rest: Any) -> Any:
        n, dims = info.batch_size, in_dims[2:]
        made = [TransformedBackward.apply(form, wanted, *_of_one(rest, dims, i)) for i in range(n)]
        return tuple(map(torch.stack, zip(*made, strict=True))), (0,) * len(made[0])


def _of_one(values: Any, dims: Any, i: int) -> list[Any]:
    """What one of those has that are mapped over."""
    return [
        value if dim is None else value.select(dim, i).contiguous()
        for value, dim in zip(values, dims, strict=True)
    ]


class Fold:
    """Many calls with the same weights as one, of a larger batch.

    Parameters
    ----------
    form : Form
        Of each call.
    n : int
        How many.
    rank : int
        Of the x of each.
    """

    def __init__(self, form: Form, n: int, rank: int) -> None:
        self.n = n
        # One sequence has no batch axis: there the calls become it, elsewhere they join it.
        self.unbatched = rank == 2 and not form.step
        self.form = form._replace(batch_first=False) if self.unbatched else form
        self.sequence_axis = 0 if self.form.step or self.form.batch_first else 1
        self.state_axis = 0 if form.step else 1

    def together(self, flat: Any, dims: Any) -> list[Any]:
        """The arguments of the one call. The weights and batch_sizes are not mapped over."""
        end = 4 + self.form.weights
        joins = not self.unbatched

        def fold(i: int, axis: int, joins: bool = joins) -> Any:
            value = flat[i]
            if value is None:
                return None
            if dims[i] is None:
                value = value.unsqueeze(axis)
                value = value.expand(*value.shape[:axis], self.n, *value.shape[axis + 1 :])
            else:
                value = value.movedim(dims[i], axis)
            return value.flatten(axis, axis + 1) if joins else value

        x, h_0, c_0 = (
            fold(0, self.sequence_axis),
            fold(2, self.state_axis),
            fold(3, self.state_axis),
        )
        noise = [fold(i, 1, True) for i in range(end, len(flat))]  # has a batch axis always
        return [x, None, h_0, c_0, *flat[4:end], *noise]

    def apart(self, results: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """What each call returns, with a new axis, and which that is."""
        form = self.form
        axes = [] if form.step else [self.sequence_axis]
        axes += [self.state_axis] * (form.results - len(axes))
        axes += [self.sequence_axis] * (form.layers - 1) * (2 if form.noises else 1)
        with_batch = [not self.unbatched] * len(axes)
        more = len(results) - len(axes)  # what the tape has of each step, (T, B, .)
        axes, with_batch = axes + [1] * more, with_batch + [True] * more
        apart = [
            result.unflatten(axis, (self.n, result.shape[axis] // self.n)) if has_batch else result
            for result, axis, has_batch in zip(results, axes, with_batch, strict=False)
        ]
        return tuple(apart), tuple(axes[: len(apart)])
