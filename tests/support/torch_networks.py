"""torch's recurrent modules and those of fastrnn.torch with the same weights, and runs of either.

All numbers drawn are those of float32, so that a network in float64 is the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from registry import VARIANTS

torch = pytest.importorskip("torch")

import fastrnn.torch as ft  # noqa: E402

nn = torch.nn
rnn = nn.utils.rnn

# The variants that torch has too, and those of them that are also a Cell.
KINDS = [
    name
    for name, variant in VARIANTS.items()
    if variant.elsewhere
    and "peepholes" not in variant.extras
    and variant.options.get("reset_after", True)
]
CELL_KINDS = [name for name in KINDS if not VARIANTS[name].extras]
GATED_KINDS = [name for name in CELL_KINDS if VARIANTS[name].cell.gates > 1]
PROJECTED = [name for name in KINDS if VARIANTS[name].extras]
DTYPES = (torch.float32, torch.float64)
UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}

# What float64 may differ by in what follows, where both sides make the same sums in some order:
# sums of at most 200 terms of order one, at most 10 steps and layers deep, err by no more than
# 200 · 10 · 2^-53 = 2e-13. A wrong term, sign or mask is off by more than 1e-4.
CLOSE = 1e-12

each_kind = pytest.mark.parametrize("kind", KINDS)
each_cell_kind = pytest.mark.parametrize("kind", CELL_KINDS)


def close(got: Any, want: Any, atol: float = CLOSE) -> None:
    """Tensors, and tuples and dicts of them, that differ by no more than float64 may."""
    torch.testing.assert_close(got, want, rtol=0, atol=atol)


def same(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def draw(*shape: int, dtype: Any = torch.float64, seed: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def options_of(kind: str, H: int) -> dict[str, Any]:
    """What a constructor is told; of the registry's options torch has no reset_after."""
    options = VARIANTS[kind].layer_options(H)
    options.pop("reset_after", None)
    return options


def layer_class(kind: str, module: Any = ft) -> Any:
    return getattr(module, VARIANTS[kind].cell.layer.__name__)


def cell_class(kind: str, module: Any = ft) -> Any:
    return getattr(module, VARIANTS[kind].cell.layer.__name__ + "Cell")


def ours(kind: str, D: int = 3, H: int = 5, layers: int = 1, **options: Any) -> Any:
    torch.manual_seed(3)
    options = {"dtype": torch.float64} | options_of(kind, H) | options
    return layer_class(kind)(D, H, layers, **options)


def pair(kind: str, D: int = 3, H: int = 5, layers: int = 1, **options: Any) -> tuple[Any, Any]:
    """torch's module and ours, with the same weights; float64 unless said otherwise."""
    mine = ours(kind, D, H, layers, **options)
    options = {"dtype": torch.float64} | options_of(kind, H) | options
    theirs = layer_class(kind, nn)(D, H, layers, **options)
    theirs.load_state_dict(mine.state_dict())
    return theirs, mine


def cell_pair(kind: str, D: int = 3, H: int = 5, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(3)
    options = {"dtype": torch.float64} | options_of(kind, H) | options
    mine = cell_class(kind)(D, H, **options)
    theirs = cell_class(kind, nn)(D, H, **options)
    theirs.load_state_dict(mine.state_dict())
    return theirs, mine


def has_c(module: Any) -> bool:
    return isinstance(module, nn.LSTM | ft.LSTM | nn.LSTMCell | ft.LSTMCell)


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def flat(results: Any) -> list[Any]:
    """output, h_n and c_n of a layer, the states of a Cell; of packed output the data."""
    if not isinstance(results, tuple):
        return [results]
    first, *rest = results
    first = first.data if isinstance(first, rnn.PackedSequence) else first
    return [first, *(state for given in rest for state in as_tuple(given))]


def state_for(module: Any, *rows: int, dtype: Any = torch.float64, seed: int = 2) -> Any:
    """A state of a layer with these axes behind the first, or of a Cell with these."""
    h = getattr(module, "proj_size", 0) or module.hidden_size
    if isinstance(module, nn.RNNBase):
        rows = (module.num_layers * (2 if module.bidirectional else 1), *rows)
    state = draw(*rows, h, dtype=dtype, seed=seed)
    if not has_c(module):
        return state
    return state, draw(*rows, module.hidden_size, dtype=dtype, seed=seed + 1)


def run(
    module: Any,
    x: Any,
    state: Any = None,
    lengths: Iterable[int] | None = None,
    change: Callable[[Any], Any] | None = None,
) -> dict[str, Any]:
    """Every result of a module and every gradient, by its name.

    lengths: x goes in packed. Where they fall, `enforce_sorted` is set.
    change: acts on x, the states and the upstream gradients.
    """

    def given(value: Any) -> Any:
        value = value.detach().clone()
        return (value if change is None else change(value)).requires_grad_()

    leaf = given(x)
    states = [] if state is None else [given(s) for s in as_tuple(state)]
    hx = None if not states else tuple(states) if has_c(module) else states[0]
    sequence = leaf
    if lengths is not None:
        lengths = list(lengths)
        falling = lengths == sorted(lengths, reverse=True)
        sequence = rnn.pack_padded_sequence(
            leaf, torch.tensor(lengths), module.batch_first, enforce_sorted=falling
        )
    results = flat(module(sequence, hx))
    upstream = [draw(*r.shape, dtype=r.dtype, seed=11 + i) for i, r in enumerate(results)]
    if change is not None:
        upstream = [change(d) for d in upstream]
    weights = dict(module.named_parameters())
    # A network of no sequences gives some weights no gradient.
    gradients = torch.autograd.grad(
        results, [leaf, *states, *weights.values()], upstream, materialize_grads=True
    )
    is_layer = isinstance(module, nn.RNNBase)
    names = ["output", "h_n", "c_n"] if is_layer else ["h_n", "c_n"]
    found = dict(zip(names, (r.detach() for r in results), strict=False))
    of = ["d_x", *(f"d_{s}_0" for s in "hc"[: len(states)]), *(f"d_{name}" for name in weights)]
    return found | dict(zip(of, gradients, strict=True))


def errors(theirs: Any, *arguments: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """The results of torch in float64, and how far each array moves by roundings of float32.

    An evaluation of sums in a type of unit u is the exact one of operands (x, states, weights,
    upstream gradients) that are changed by multiples of u (see rounding.py). So all operands are
    multiplied by 1 + u or 1 - u, with random signs, and what moves is measured; one rounding of
    the largest element of each array is added.
    """
    exact = run(theirs, *arguments)
    u = UNIT[torch.float32]
    moved = {name: u * a.abs().max().item() if a.numel() else 0.0 for name, a in exact.items()}
    kept = {name: p.detach().clone() for name, p in theirs.named_parameters()}
    # Of a few elements two draws may both happen to cancel.
    for seed in range(2 if exact["output" if "output" in exact else "h_n"].numel() > 500 else 8):
        generator = torch.Generator().manual_seed(seed)

        def change(a: Any, generator: Any = generator) -> Any:
            signs = torch.randint(0, 2, a.shape, generator=generator) * 2 - 1
            return a * (1 + u * signs)

        with torch.no_grad():
            for p in theirs.parameters():
                p.copy_(change(p))
        found = run(theirs, *arguments, *(None,) * (3 - len(arguments)), change)
        with torch.no_grad():
            for name, p in theirs.named_parameters():
                p.copy_(kept[name])
        for name, a in found.items():
            if a.numel():
                moved[name] = max(moved[name], (a - exact[name]).abs().max().item())
    return exact, moved


def check(got: dict[str, Any], exact: Any, moved: Any, dtype: Any, longest: int) -> None:
    """That results in `dtype` are those of torch, within what roundings do.

    A sum of n products strays by sqrt(n) roundings of its terms; an activation is promised within
    2 units in the last place, 4u, and a gate is multiplied and added by two roundings more; the
    gradient of a gate takes as many again. In float64 torch errs as well.
    """
    assert got.keys() == exact.keys()
    factor = (longest**0.5 + 12) * UNIT[dtype] / UNIT[torch.float32]
    factor *= 2 if dtype is torch.float64 else 1
    for name, a in exact.items():
        assert got[name].dtype is dtype
        assert got[name].shape == a.shape, name
        error = (got[name].double() - a).abs().max().item() if a.numel() else 0.0
        assert error <= factor * moved[name], f"{name}: {error / factor / moved[name]} of the bound"
