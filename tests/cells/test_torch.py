"""fastrnn.RNN against torch.nn.RNN with the same weights: outputs, states and every gradient.

Both err, so they may differ by the bound of bounds.py for two evaluations of one type.
"""

from typing import Any

import numpy as np
import pytest
from bounds import Problem, Spec, analyse, bounds, check, draw
from grids import grid

import fastrnn

torch = pytest.importorskip("torch")

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)
SPECS = (
    Spec(1, 1, 1, 1, h_0=False),
    Spec(7, 5, 3, 8),
    Spec(7, 5, 3, 9, "relu", b_ih=False, b_hh=False),
    Spec(12, 1, 17, 33, unbatched=True),
    Spec(30, 20, 16, 100, upstream="d_output"),
    Spec(30, 20, 33, 64, "relu", upstream="d_h_n"),
)
PACKED = (
    Spec(9, 6, 5, 17, lengths=True),
    Spec(9, 6, 5, 17, "relu", lengths=True, b_ih=False, b_hh=False),
    Spec(30, 20, 16, 100, lengths=True, upstream="d_h_n"),
)
NAMES = {
    "weight_ih_l0": "w_ih",
    "weight_hh_l0": "w_hh",
    "bias_ih_l0": "b_ih",
    "bias_hh_l0": "b_hh",
}


def tensor(a: Any, requires_grad: bool = False) -> Any:
    return torch.tensor(a, requires_grad=requires_grad)


def turn(a: Any, batch_first: bool) -> Any:
    """(T, B, .) to (B, T, .) and back, where the layer has the batch first."""
    return a.swapaxes(0, 1) if batch_first and a is not None and a.ndim == 3 else a


def run_torch(p: Problem, batch_first: bool) -> dict[str, Any]:
    """The results of torch.nn.RNN under the names of bounds.py, without a layer axis."""
    H, D = p.w_ih.shape
    module = torch.nn.RNN(
        D, H, nonlinearity=p.kind, bias=p.b_ih is not None, batch_first=batch_first,
        dtype=torch.float32 if p.x.dtype == np.float32 else torch.float64,
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tensor(getattr(p, NAMES[name])))
    x = tensor(turn(p.x, batch_first), True)
    h_0 = None if p.h_0 is None else tensor(p.h_0[None], True)
    if p.lengths is None:
        output, h_n = module(x, h_0)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(p.lengths), batch_first=batch_first, enforce_sorted=False
        )
        packed, h_n = module(packed, h_0)
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(
            packed, batch_first=batch_first, total_length=len(p.x)
        )
    outputs = [(output, turn(p.d_output, batch_first)), (h_n, p.d_h_n)]
    given = [(y, tensor(d).reshape(y.shape)) for y, d in outputs if d is not None]
    torch.autograd.backward([y for y, _ in given], [d for _, d in given])
    return {
        "output": turn(output.detach().numpy(), batch_first),
        "h_n": h_n.detach().numpy()[0],
        "d_x": turn(x.grad.numpy(), batch_first),
        "d_h_0": None if h_0 is None else h_0.grad.numpy()[0],
        **{f"d_{NAMES[name]}": v.grad.numpy() for name, v in module.named_parameters()},
    }


def run_layer(p: Problem, batch_first: bool) -> dict[str, Any]:
    """The results of fastrnn.RNN, likewise."""
    H, D = p.w_ih.shape
    layer = fastrnn.RNN(
        D, H, nonlinearity=p.kind, bias=p.b_ih is not None, batch_first=batch_first,
        dtype=p.x.dtype.name,
    )  # fmt: skip
    for name, view in layer.weights.items():
        view[...] = getattr(p, NAMES[name])
    state = None if p.h_0 is None else p.h_0[None]
    output, h_n, tape = layer.forward(turn(p.x, batch_first), state, lengths=p.lengths)
    d_state = None if p.d_h_n is None else p.d_h_n[None]
    grads = layer.backward(tape, turn(p.d_output, batch_first), d_state)
    return {
        "output": turn(output, batch_first),
        "h_n": h_n[0],
        "d_x": turn(grads.x, batch_first),
        "d_h_0": None if p.h_0 is None else grads.state[0],
        **{f"d_{NAMES[name]}": value for name, value in grads.weights.items()},
    }


def compare(spec: Spec, dtype: Any, isa: str, batch_first: bool) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    if p.lengths is not None:
        np.maximum(p.lengths, 1, out=p.lengths)  # torch packs no empty sequence
    bound = bounds(analyse(p), dtype, both=True)
    got, want = run_layer(p, batch_first), run_torch(p, batch_first)
    assert got.keys() == want.keys()
    check(got, want, bound, dtype, f"{spec} {isa} beside torch")


@grid("spec, dtype, isa, batch_first", SPECS, DTYPES, ISAS, (False, True), once=True)
def test_agrees_with_torch(spec: Spec, dtype: Any, isa: str, batch_first: bool) -> None:
    compare(spec, dtype, isa, batch_first)


@grid("spec, dtype, isa, batch_first", PACKED, DTYPES, ISAS, (False, True), once=True)
def test_lengths_are_packed_sequences(spec: Spec, dtype: Any, isa: str, batch_first: bool) -> None:
    compare(spec, dtype, isa, batch_first)
