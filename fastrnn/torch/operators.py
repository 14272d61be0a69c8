"""The kernels as operators of torch: what torch.compile and torch.export see as one step each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import kernels, paths, recompute
from .kernels import MODES, Form, Inputs, keeps_result, recorded, spread

_FORM = (
    "str mode, int layers, bool bias, bool projected, bool bidirectional, bool batch_first, "
    "bool step, float scale"
)
_INPUTS = (
    "Tensor x, Tensor? batch_sizes, Tensor? h_0, Tensor? c_0, Tensor[] weights, Tensor[] noise"
)
_FIELDS = len(Form._fields)
_END = _FIELDS + len(Inputs._fields)


def _taken_apart(arguments: Any) -> tuple[Form, Inputs, Any]:
    return Form(*arguments[:_FIELDS]), Inputs(*arguments[_FIELDS:_END]), arguments[_END:]


@torch.library.custom_op(
    "fastrnn::recurrent",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_FORM}, {_INPUTS}, SymInt batch, bool record) -> Tensor[]",
)
def recurrent(*arguments: Any) -> list[Tensor]:
    """The results, and behind them what is kept for backward. `batch`: B where x is packed."""
    form, inputs, (_, record) = _taken_apart(arguments)
    paths.took("kernel")
    results, kept = kernels.forward(form, inputs, record)
    return results + kept


@recurrent.register_fake
def _(*arguments: Any) -> list[Tensor]:
    form, inputs, (batch, record) = _taken_apart(arguments)
    cell, _ = MODES[form.mode]
    x, w_hh = inputs.x, inputs.weights[1]
    h, p = w_hh.shape[0] // cell.gates, w_hh.shape[1]
    directions, width = form.layers * form.per_layer, p * form.per_layer
    state: tuple[Any, ...] = (directions, batch)
    if form.step:
        steps, batch = 1, x.shape[0]
        sequence, state = (batch,), (batch,)
    elif inputs.batch_sizes is not None:
        steps, sequence = inputs.batch_sizes.shape[0], x.shape[:1]
    elif x.dim() == 2:
        steps, batch = x.shape[0], 1
        sequence, state = (steps,), (directions,)
    else:
        sequence = x.shape[:2]
        steps, batch = reversed(sequence) if form.batch_first else sequence
        state = (directions, batch)
    made = [] if form.step else [x.new_empty(*sequence, width)]
    made += [x.new_empty(*state, n) for n in ((p, h) if cell.has_c else (p,))]
    if not record:
        return made
    inner = (steps, batch) if inputs.batch_sizes is not None else sequence
    if inputs.batch_sizes is not None:
        made.append(x.new_empty(*inner, x.shape[-1]))
    if not keeps_result(form, inputs):
        made.append(x.new_empty(steps, batch, width))
    made += [x.new_empty(*inner, width) for _ in range(form.layers - 1 + form.noises)]
    values = {"c": h, "gates": cell.tape_gates * h}
    return made + [
        x.new_empty(steps, batch, values[name])
        for _ in range(directions)
        for name in recorded(cell)
    ]


def _setup(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    form, own, _ = _taken_apart(inputs)
    ctx.form = form
    result = output[0] if keeps_result(form, own) else None
    ctx.save_for_backward(*own.flat(), result, *output[form.results :])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, d_all: Any) -> tuple[Any, ...]:
    form: Form = ctx.form
    own, (output, *kept) = Inputs.of(form, ctx.saved_tensors)
    x_too, _, h_too, c_too, weights_too, _ = ctx.needs_input_grad[_FIELDS:_END]
    wanted = [x_too, h_too, c_too, *weights_too]
    d_results = d_all[: form.results]
    made = recurrent_backward(*form, *own, wanted, d_results, output, kept)
    d_x, d_h, d_c, *d_weights = spread(made, wanted)
    of_inputs = d_x, None, d_h, d_c, d_weights, [None] * form.noises
    return *(None,) * _FIELDS, *of_inputs, None, None


recurrent.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op(
    "fastrnn::recurrent_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_FORM}, {_INPUTS}, bool[] wanted, Tensor?[] d_results, Tensor? output, "
    "Tensor[] kept) -> Tensor[]",
)
def recurrent_backward(*arguments: Any) -> list[Tensor]:
    """The gradients wanted."""
    form, inputs, (wanted, d_results, output, kept) = _taken_apart(arguments)
    paths.took("kernel")
    made = kernels.backward(form, wanted, inputs, output, kept, d_results)
    return [d for d in made if d is not None]


@recurrent_backward.register_fake
def _(*arguments: Any) -> list[Tensor]:
    _, inputs, (wanted, *_) = _taken_apart(arguments)
    given = [inputs.x, inputs.h_0, inputs.c_0, *inputs.weights]
    return [
        t.new_empty(t.shape) for t, too in zip(given, wanted, strict=True) if too and t is not None
    ]


def _setup_backward(ctx: Any, inputs: Any, output: Any) -> None:
    form, own, (wanted, d_results, *_) = _taken_apart(inputs)
    ctx.form, ctx.wanted, ctx.kept = form, wanted, len(inputs[-1])
    ctx.save_for_backward(*d_results, *own.flat())
    ctx.set_materialize_grads(False)


def _backward_of_backward(ctx: Any, dd: Any) -> tuple[Any, ...]:
    form: Form = ctx.form
    paths.took("torch: create_graph")
    made = recompute.second(form, ctx.wanted, ctx.saved_tensors, dd)
    d_results, own = made[: form.results], made[form.results :]
    end = 4 + form.weights
    of_inputs = *own[:4], own[4:end], own[end:]
    return *(None,) * _FIELDS, *of_inputs, None, d_results, None, [None] * ctx.kept


recurrent_backward.register_autograd(_backward_of_backward, setup_context=_setup_backward)
