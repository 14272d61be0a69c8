"""The same network by torch's own functions: what create_graph differentiates once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import _VF, Tensor

from .kernels import Form, Inputs, no_gradients

FUNCTIONS: dict[str, Any] = {
    "RNN_TANH": _VF.rnn_tanh, "RNN_RELU": _VF.rnn_relu, "LSTM": _VF.lstm, "GRU": _VF.gru,
}  # fmt: skip


def by_torch(form: Form, inputs: Inputs) -> list[Tensor]:
    """The results of `kernels.forward`, differentiable as often as is wished."""
    dtype = inputs.x.dtype
    x, batch_sizes, h_0, c_0, weights, noise = inputs
    if dtype == torch.float32 and form.mode == "LSTM":
        # oneDNN has that, without a second derivative; torch's own code has float64, and them all.
        x, h_0, c_0, weights, noise = _to(torch.float64, x, h_0, c_0, weights, noise)
    unbatched = batch_sizes is None and not form.step and x.dim() == 2
    if form.step:
        x = x[None]
    elif unbatched:
        x = x[:, None]
    elif batch_sizes is None and form.batch_first:
        x = x.transpose(0, 1)
    if (unbatched or form.step) and h_0 is not None:
        axis = 1 if unbatched else 0
        h_0 = h_0.unsqueeze(axis)
        c_0 = None if c_0 is None else c_0.unsqueeze(axis)
    batch = int(batch_sizes[0]) if batch_sizes is not None else x.shape[1]
    n = form.per_layer
    if h_0 is None:
        h_0 = x.new_zeros(form.layers * n, batch, weights[1].shape[1])
    if c_0 is None and form.mode == "LSTM":
        c_0 = x.new_zeros(form.layers * n, batch, weights[1].shape[0] // 4)
    # All layers at once where nothing comes between them.
    together = 1 if form.noises else form.layers
    initial: Any
    states: list[tuple[Tensor, ...]] = []
    for k in range(0, form.layers, together):
        own = weights[k * n * form.per_direction : (k + together) * n * form.per_direction]
        rows = slice(k * n, (k + together) * n)
        initial = h_0[rows] if c_0 is None else (h_0[rows], c_0[rows])
        rest = form.bias, together, 0.0, False, form.bidirectional
        if batch_sizes is not None:
            made = FUNCTIONS[form.mode](x, batch_sizes, initial, own, *rest)
        else:
            made = FUNCTIONS[form.mode](x, initial, own, *rest, False)
        x = made[0]
        states.append(made[1:])
        if k < form.noises:
            x = x * (noise[k] * form.scale)
    results = [x, *(torch.cat(parts) for parts in zip(*states, strict=True))]
    if unbatched:
        results = [result[:, 0] for result in results]
    elif form.step:
        results = [result[0] for result in results[1:]]
    elif batch_sizes is None and form.batch_first:
        results[0] = results[0].transpose(0, 1)
    return _to(dtype, *results)


def _to(dtype: torch.dtype, *values: Any) -> list[Any]:
    """Tensors, lists of them and None, as another type."""
    return [
        value.to(dtype)
        if isinstance(value, Tensor)
        else None
        if value is None
        else [each.to(dtype) for each in value]
        for value in values
    ]


def gradients(
    form: Form,
    wanted: Sequence[bool],
    inputs: Inputs,
    d_results: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """What `kernels.backward` returns, differentiable with respect to inputs and d_results."""
    if all(d is None for d in d_results):
        return no_gradients(wanted, inputs)
    with torch.enable_grad():
        # Views: where one input was made from another, the way between them is not ours.
        flat = [None if t is None else t.view_as(t) for t in inputs.flat()]
        own, _ = Inputs.of(form, flat)
        results = by_torch(form, own)
        pairs = [(r, d) for r, d in zip(results, d_results, strict=True) if d is not None]
        asked = [own.x, own.h_0, own.c_0, *own.weights]
        some = [t for t, too in zip(asked, wanted, strict=True) if too]
        found = iter(
            torch.autograd.grad(
                [r for r, _ in pairs], some, [d for _, d in pairs],
                create_graph=True, allow_unused=True,
            )
        )  # fmt: skip
    return [next(found) if too else None for too in wanted]


def second(
    form: Form, wanted: Sequence[bool], saved: Sequence[Any], dd: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients of `gradients` (those wanted, one after the other), given theirs, `dd`.

    `saved` holds d_results and the inputs, flat, and what is behind them is not differentiated.
    """
    again = torch.is_grad_enabled()
    end = form.results + 4 + form.weights + form.noises
    with torch.enable_grad():
        leaves = [None if t is None else t.view_as(t) for t in saved[:end]]
        for leaf in leaves:
            if leaf is not None and leaf.is_floating_point() and not leaf.requires_grad:
                leaf.requires_grad_()
        inputs, _ = Inputs.of(form, leaves[form.results :])
        made = gradients(form, wanted, inputs, leaves[: form.results])
        pairs = [
            (d, g)
            for d, g in zip((d for d in made if d is not None), dd, strict=True)
            if g is not None and d.requires_grad
        ]
        some = [leaf for leaf in leaves if leaf is not None and leaf.is_floating_point()]
        found = iter(
            torch.autograd.grad(
                [d for d, _ in pairs], some, [g for _, g in pairs],
                create_graph=again, allow_unused=True,
            )
            if pairs
            else [None] * len(some)
        )  # fmt: skip
    back = [None if t is None or not t.is_floating_point() else next(found) for t in leaves]
    return [*back, *(None,) * (len(saved) - end)]
