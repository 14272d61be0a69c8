"""RNN, LSTM and GRU against torch.nn: stacked, in both directions, packed; every result.

The tolerance. Both sides make the same sums, in different orders. A sum of n terms errs by at least
the rounding of its result, and by about sqrt(n) times as much at most, whatever the order (see
bounds.py: q = n (Q + S^2)); what becomes of an error further on, in later steps and layers, is the
same on both sides. So fastrnn may err sqrt(n) times as much as torch does, where n is the longest
sum of the network. (That covers the activations too, of which fastrnn promises 2 units in the last
place and half of one would be perfect: n is more than 4^2.) How much torch errs is measured, not
guessed: in float32 against itself in float64, from arrays that both types hold exactly. The largest
error of an array stands for all of its elements, and one rounding of the largest element is added,
in case torch was lucky. Errors in float64 are 2^-29 times those in float32, and there both sides
err.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from registry import VARIANTS

import fastrnn

torch = pytest.importorskip("torch")

Array = NDArray[Any]
Results = dict[str, Array]

ISAS = tuple(fastrnn.available_isas())
U = {np.float32: 2.0**-24, np.float64: 2.0**-53}


class Shape(NamedTuple):
    layers: int
    bidirectional: bool
    T: int
    B: int
    D: int
    H: int
    state: bool = True
    bias: bool = True

    @property
    def cells(self) -> int:
        return self.layers * (2 if self.bidirectional else 1)


SHAPES = (
    Shape(1, False, 30, 20, 16, 100),
    Shape(1, True, 9, 6, 5, 17, state=False),
    Shape(2, False, 9, 6, 5, 33, bias=False),
    Shape(2, True, 12, 7, 3, 16),
    Shape(3, False, 7, 5, 1, 9, state=False),
    Shape(3, True, 8, 6, 7, 20),
)
# What torch has too.
KINDS = [
    name
    for name, variant in VARIANTS.items()
    if variant.elsewhere
    and "peepholes" not in variant.extras
    and variant.options.get("reset_after", True)
]
MARGIN = 1e-5  # of a relu's argument from 0; see `draw`


class Problem(NamedTuple):
    """The arrays of one forward and backward in float32, time-major; what is not there is None."""

    x: Array
    state: tuple[Array, ...] | None
    lengths: Array | None
    d_output: Array
    d_state: tuple[Array, ...]
    weights: dict[str, Array]


def layer_of(kind: str, shape: Shape, dtype: Any, batch_first: bool = False) -> Any:
    return VARIANTS[kind].layer(
        shape.D, shape.H, shape.layers, bias=shape.bias, bidirectional=shape.bidirectional,
        batch_first=batch_first, dtype=dtype, rng=0,
    )  # fmt: skip


@functools.cache
def draw(kind: str, shape: Shape, packed: bool) -> Problem:
    """A problem from a fixed seed.

    Where a relu's argument lies within its error of 0, one side may see it positive and the other
    not, and no bound on the difference is small. Then another seed is taken.
    """
    for seed in range(100):
        rng = np.random.default_rng([seed, *shape[2:6]])

        def normal(*sizes: int, rng: Any = rng) -> Array:
            return rng.standard_normal(sizes).astype(np.float32)

        layer = layer_of(kind, shape, "float32")
        p = getattr(layer, "proj_size", 0) or shape.H
        units = (p, shape.H) if isinstance(layer, fastrnn.LSTM) else (p,)
        width = p * (2 if shape.bidirectional else 1)
        # torch packs no empty sequence, and wants one of full length.
        lengths = rng.integers(1, shape.T + 1, shape.B)
        lengths[rng.integers(shape.B)] = shape.T
        problem = Problem(
            normal(shape.T, shape.B, shape.D),
            tuple(normal(shape.cells, shape.B, n) for n in units) if shape.state else None,
            lengths if packed else None,
            normal(shape.T, shape.B, width),
            tuple(normal(shape.cells, shape.B, n) for n in units),
            layer.state_dict(),
        )
        if kind != "relu" or least_argument(shape, problem) > MARGIN:
            return problem
    raise AssertionError("no seed keeps every relu away from its kink")


def least_argument(shape: Shape, p: Problem) -> float:
    """The least |z| of all relus, in float64."""
    layer = layer_of("relu", shape, "float64")
    layer.load_state_dict(p.weights)
    state = None if p.state is None else p.state[0].astype(np.float64)
    _, _, tape = layer.forward(p.x.astype(np.float64), state, lengths=p.lengths)
    least = np.inf
    steps = np.arange(shape.T)[:, None]
    lengths = np.full(shape.B, shape.T) if p.lengths is None else p.lengths
    for cell in tape.tapes:
        h_0 = np.zeros(cell.output.shape[1:]) if cell.h_0 is None else cell.h_0
        before = np.roll(cell.output, -1 if cell.reverse else 1, axis=0)
        starts = steps == (lengths - 1 if cell.reverse else 0)
        before = np.where(starts[..., None], h_0, before)
        z = cell.x @ cell.w_ih.T + before @ cell.w_hh.T
        z += sum(b for b in (cell.b_ih, cell.b_hh) if b is not None)
        least = min(least, float(np.abs(z[steps < lengths]).min()))
    return least


def turn(a: Any, batch_first: bool) -> Any:
    """(T, B, .) to (B, T, .) and back, where the layer has the batch first."""
    return a.swapaxes(0, 1) if batch_first else a


def run_torch(kind: str, shape: Shape, packed: bool, batch_first: bool, dtype: Any) -> Results:
    p = draw(kind, shape, packed)
    options = VARIANTS[kind].layer_options(shape.H)
    options.pop("reset_after", None)  # torch has no other

    def tensor(a: Array) -> Any:
        return torch.tensor(a.astype(dtype), requires_grad=True)

    module = getattr(torch.nn, VARIANTS[kind].cell.layer.__name__)(
        shape.D, shape.H, shape.layers, bias=shape.bias, bidirectional=shape.bidirectional,
        batch_first=batch_first, dtype=getattr(torch, np.dtype(dtype).name), **options,
    )  # fmt: skip
    names = [weight for weight, _ in module.named_parameters()]
    assert names == list(p.weights)  # PyTorch's names, in PyTorch's order
    with torch.no_grad():
        for weight, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(p.weights[weight].astype(dtype)))
    x = tensor(turn(p.x, batch_first))
    state = None if p.state is None else tuple(map(tensor, p.state))
    pair = VARIANTS[kind].cell.states == ("h", "c")
    given = state if state is None or pair else state[0]
    if p.lengths is None:
        output, final = module(x, given)
    else:
        sequence = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(p.lengths), batch_first=batch_first, enforce_sorted=False
        )
        sequence, final = module(sequence, given)
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(sequence, batch_first=batch_first)
    finals = final if pair else (final,)
    gradients = [turn(p.d_output, batch_first), *p.d_state]
    torch.autograd.backward([output, *finals], [torch.tensor(d.astype(dtype)) for d in gradients])
    results = {
        "output": turn(output.detach().numpy(), batch_first),
        "d_x": turn(x.grad.numpy(), batch_first),
        **{f"d_{weight}": v.grad.numpy() for weight, v in module.named_parameters()},
    }
    for letter, a in zip("hc", finals, strict=False):
        results[f"{letter}_n"] = a.detach().numpy()
    for letter, a in zip("hc", state or (), strict=False):
        results[f"d_{letter}_0"] = a.grad.numpy()
    return results


def run_layer(kind: str, shape: Shape, packed: bool, batch_first: bool, dtype: Any) -> Results:
    p = draw(kind, shape, packed)
    layer = layer_of(kind, shape, np.dtype(dtype).name, batch_first)
    layer.load_state_dict(p.weights)
    pair = isinstance(layer, fastrnn.LSTM)

    def state_of(arrays: Any) -> Any:
        if arrays is None:
            return None
        arrays = tuple(a.astype(dtype) for a in arrays)
        return arrays if pair else arrays[0]

    x, d_output = (turn(a.astype(dtype), batch_first) for a in (p.x, p.d_output))
    output, final, tape = layer.forward(x, state_of(p.state), lengths=p.lengths)
    grads = layer.backward(tape, d_output, state_of(p.d_state))
    results = {
        "output": turn(output, batch_first),
        "d_x": turn(grads.x, batch_first),
        **{f"d_{weight}": a for weight, a in grads.weights.items()},
    }
    for letter, a in zip("hc", final if pair else (final,), strict=False):
        results[f"{letter}_n"] = a
    if grads.state is not None:
        for letter, a in zip("hc", grads.state if pair else (grads.state,), strict=False):
            results[f"d_{letter}_0"] = a
    return results


@functools.cache
def truth(kind: str, shape: Shape, packed: bool, batch_first: bool) -> tuple[Results, Results]:
    """The results of torch in float64, and how far those in float32 err, as said above."""
    exact = run_torch(kind, shape, packed, batch_first, np.float64)
    single = run_torch(kind, shape, packed, batch_first, np.float32)
    errors = {
        name: np.abs(single[name] - a).max(initial=0) + U[np.float32] * np.abs(a).max(initial=0)
        for name, a in exact.items()
    }
    return exact, errors


@pytest.fixture(autouse=True)
def one_thread_each(one_thread: None) -> Iterator[None]:
    """Small calls, under which threads are not under test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch_first"])
@pytest.mark.parametrize("packed", [False, True], ids=["full", "packed"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.layers}-{'both' * s.bidirectional}")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("isa", "dtype"), list(itertools.product(ISAS, U)), ids=lambda v: getattr(v, "__name__", v)
)
def test_agrees_with_torch(
    isa: str, dtype: Any, kind: str, shape: Shape, packed: bool, batch_first: bool
) -> None:
    if kind == "relu" and shape.H > 33:
        shape = shape._replace(T=9, B=6, H=17)  # so few relus that some seed keeps them off
    fastrnn.set_isa(isa)
    exact, errors = truth(kind, shape, packed, batch_first)
    got = run_layer(kind, shape, packed, batch_first, dtype)
    assert got.keys() == exact.keys()
    gates = VARIANTS[kind].cell.gates
    below = shape.D if shape.layers == 1 else max(shape.D, exact["output"].shape[2])
    longest = max(below + shape.H, gates * shape.H, shape.T * shape.B)
    assert longest > 4**2
    scale = np.sqrt(longest) * U[dtype] / U[np.float32] * (2 if dtype is np.float64 else 1)
    if kind == "relu":
        assert scale * errors["output"] < MARGIN
    for name, a in exact.items():
        assert got[name].dtype == dtype
        assert got[name].shape == a.shape
        error = np.abs(got[name] - a).max(initial=0)
        assert error <= scale * errors[name], f"{name}: {error / errors[name] / scale} of the bound"
