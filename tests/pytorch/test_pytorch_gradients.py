"""Derivatives of fastrnn.torch's modules, first and second, beside differences: gradcheck."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import grids  # noqa: E402
from grids import beyond, grid  # noqa: E402
from torch_networks import (  # noqa: E402
    CELL_KINDS,
    KINDS,
    cell_class,
    close,
    draw,
    each_kind,
    flat,
    options_of,
    ours,
    pair,
    rnn,
    state_for,
)  # fmt: skip

import fastrnn.torch as ft  # noqa: E402

FORMS = {"padded": None, "sorted": (2, 1), "unsorted": (1, 2), "unbatched": None}


def as_function(module: Any, form: str, states: int) -> Any:
    """The module of x, its states and weights, each an argument."""
    names = [name for name, _ in module.named_parameters()]

    def function(x: Any, *rest: Any) -> tuple[Any, ...]:
        torch.manual_seed(5)  # the same dropout each time
        hx = None if not states else rest[0] if states == 1 else tuple(rest[:2])
        if FORMS.get(form):
            x = rnn.pack_padded_sequence(
                x, torch.tensor(FORMS[form]), module.batch_first, enforce_sorted=form == "sorted"
            )
        weights = dict(zip(names, rest[states:], strict=True))
        return tuple(flat(torch.func.functional_call(module, weights, (x, hx))))

    return function


def arguments(module: Any, form: str, state: bool, step: bool = False) -> list[Any]:
    rows = () if form == "unbatched" else (2,)
    x = draw(*rows, 2) if step else draw(*((*rows, 2) if module_first(module) else (2, *rows)), 2)
    hx = state_for(module, *rows) if state else ()
    states = hx if isinstance(hx, tuple) else (hx,)
    weights = [p.detach().clone() for p in module.parameters()]
    return [t.requires_grad_() for t in (x, *states, *weights)]


def module_first(module: Any) -> bool:
    return getattr(module, "batch_first", False)


def both_orders(module: Any, form: str, state: bool, step: bool = False) -> None:
    given = arguments(module, form, state, step)
    states = len(given) - 1 - len(list(module.parameters()))
    function = as_function(module, form, states)
    # Along random directions: the time is that of a few calls, not of one for each number.
    assert torch.autograd.gradcheck(function, given, fast_mode=True)
    assert ft.last_path() == "kernel"
    if state or grids.whole:  # by default half of them
        assert torch.autograd.gradgradcheck(function, given, fast_mode=True)
        assert ft.last_path() == "torch: create_graph"


SHAPES = ((1, True, True), (2, False, True), (2, True, False))  # layers, bidirectional, bias


@grid("kind, shape, form, state", KINDS, SHAPES, FORMS, (True, False))
def test_gradcheck(kind: str, shape: Any, form: str, state: bool) -> None:
    layers, bidirectional, bias = shape
    module = ours(kind, 2, 2, layers, bidirectional=bidirectional, bias=bias, batch_first=state)
    both_orders(module, form, state)


@pytest.mark.parametrize("kind", [CELL_KINDS[-1], *beyond(KINDS[:-1])])
def test_gradcheck_number_by_number(kind: str) -> None:
    module = ours(kind, 2, 2)
    given = arguments(module, "unsorted", True)
    states = len(given) - 1 - len(list(module.parameters()))
    assert torch.autograd.gradcheck(as_function(module, "unsorted", states), given)
    assert ft.last_path() == "kernel"


@grid("kind, bias, form, state", CELL_KINDS, (True, False), ("padded", "unbatched"), (True, False))
def test_gradcheck_of_cells(kind: str, bias: bool, form: str, state: bool) -> None:
    torch.manual_seed(3)
    cell = cell_class(kind)(2, 3, bias=bias, dtype=torch.float64, **options_of(kind, 3))
    both_orders(cell, form, state, step=True)


@each_kind
@pytest.mark.parametrize("form", ["unsorted", *beyond(["padded"])])
def test_gradcheck_through_dropout(kind: str, form: str) -> None:
    both_orders(ours(kind, 2, 2, 2, dropout=0.5), form, True)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, of vmap
@grid("kind, form, way", KINDS, ("padded", "sorted"), ("is_grads_batched", "vmap"))
def test_many_gradients_at_once(kind: str, form: str, way: str) -> None:
    """Both ways of torch to go back with many upstream gradients; packed, also out of padding."""
    _, mine = pair(kind, layers=2)
    x = draw(4, 2, 3).requires_grad_()
    if form == "sorted":
        packed, _ = mine(rnn.pack_padded_sequence(x, torch.tensor([4, 2])))
        output, _ = rnn.pad_packed_sequence(packed)
    else:
        output, _ = mine(x)
    upstream = draw(6, *output.shape)
    wrt = [x, *mine.parameters()]

    def back(d: Any, **options: Any) -> Any:
        return torch.autograd.grad(output, wrt, d, retain_graph=True, **options)

    if way == "vmap":
        got = torch.func.vmap(back)(upstream)
        assert ft.last_path() == "kernel"
    else:
        got = back(upstream, is_grads_batched=True)
        assert ft.last_path() == "torch: is_grads_batched"
    want = [torch.stack(each) for each in zip(*map(back, upstream), strict=True)]
    assert ft.last_path() == "kernel"
    close(got, tuple(want))


@each_kind
def test_second_derivatives_of_many_gradients(kind: str) -> None:
    results = []
    for module in pair(kind):
        x = draw(4, 2, 3).requires_grad_()
        packed, _ = module(rnn.pack_padded_sequence(x, torch.tensor([4, 2])))
        output, _ = rnn.pad_packed_sequence(packed)
        (d_x,) = torch.autograd.grad(
            output, x, draw(3, *output.shape), is_grads_batched=True, create_graph=True
        )
        results.append(torch.autograd.grad(d_x.square().sum(), [x, *module.parameters()]))
    close(*results)


@each_kind
def test_hessian_of_torch_autograd(kind: str) -> None:
    found = []
    for module in pair(kind, 2, 3):
        loss = lambda x, module=module: module(x)[0].sin().sum()  # noqa: E731
        found.append(
            [
                torch.autograd.functional.hessian(loss, draw(3, 2, 2), vectorize=vectorize)
                for vectorize in (False, True)
            ]
        )
    close(*found)


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_create_graph_in_both_types(kind: str, dtype: Any) -> None:
    """Also where oneDNN has no second derivative, an LSTM in float32."""
    theirs, mine = pair(kind, layers=2, bidirectional=True)
    found = []
    for module, of in ((theirs, torch.float64), (mine.to(dtype), dtype)):
        x = draw(4, 2, 3, dtype=of).requires_grad_()
        (d_x,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        d_x.square().sum().backward()
        found.append([d_x.detach(), x.grad, *(p.grad for p in module.parameters())])
    # What float64 may differ by in units of float32: as CLOSE.
    for want, got in zip(*found, strict=True):
        assert got.dtype is dtype
        atol = 1e-12 if dtype is torch.float64 else 2.0**29 * 1e-13
        close(got.double(), want, atol)


@each_kind
def test_third_derivatives(kind: str) -> None:
    found = []
    for module in pair(kind):
        x = draw(3, 2, 3).requires_grad_()
        value = module(x)[0].sin().sum()
        for _ in range(3):
            (d,) = torch.autograd.grad(value, x, create_graph=True)
            value = d.sin().sum()
        found.append(d.detach())
    close(*found)


def test_penalty_on_the_gradient_trains() -> None:
    """A loss with a gradient in it, as of a WGAN: the same weights after three steps."""
    found = []
    for module in pair("lstm", layers=2):
        optimiser = torch.optim.SGD(module.parameters(), 0.1)
        for step in range(3):
            x = draw(4, 2, 3, seed=step).requires_grad_()
            loss = module(x)[0].sum()
            (d_x,) = torch.autograd.grad(loss, x, create_graph=True)
            optimiser.zero_grad()
            (loss + (d_x.norm() - 1) ** 2).backward()
            optimiser.step()
        found.append([p.detach() for p in module.parameters()])
    close(*found)
