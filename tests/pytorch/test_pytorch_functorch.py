"""torch.func: gradients of each sample, ensembles, and what else may be around a module."""

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grids import grid  # noqa: E402
from torch.func import (  # noqa: E402
    functional_call,
    grad,
    grad_and_value,
    jacrev,
    stack_module_state,
    vjp,
    vmap,
)  # fmt: skip
from torch_networks import (  # noqa: E402
    CELL_KINDS,
    KINDS,
    cell_pair,
    close,
    draw,
    each_cell_kind,
    each_kind,
    flat,
    ft,
    ours,
    pair,
    rnn,
    same,
    state_for,
)  # fmt: skip

from fastrnn.torch import paths  # noqa: E402

N = 4  # samples


def loss_of(module: Any) -> Any:
    def loss(weights: Any, x: Any, *states: Any) -> Any:
        hx = None if not states else states[0] if len(states) == 1 else states
        made = flat(functional_call(module, weights, (x, hx)))
        return sum((i + 1) * t.sin().sum() for i, t in enumerate(made))

    return loss


def one_by_one(module: Any, weights: Any, x: Any, *states: Any) -> Any:
    """By torch.autograd, sample after sample: of weights and of x."""
    found = []
    for i in range(N):
        own = {k: w.detach().clone().requires_grad_() for k, w in weights.items()}
        given = [t[i].detach().clone().requires_grad_() for t in (x, *states)]
        loss = loss_of(module)(own, *given)
        found.append(torch.autograd.grad(loss, [*own.values(), *given]))
    return [torch.stack(each) for each in zip(*found, strict=True)]


@grid(
    "kind, layers, bidirectional, batch_first, rows, state",
    KINDS, (1, 2), (False, True), (False, True), ((), (2,)), (True, False),
)  # fmt: skip
def test_gradients_of_each_sample(
    kind: str, layers: int, bidirectional: bool, batch_first: bool, rows: Any, state: bool
) -> None:
    theirs, mine = pair(kind, 3, 5, layers, bidirectional=bidirectional, batch_first=batch_first)
    x = draw(N, *((*rows, 6) if batch_first else (6, *rows)), 3)
    states: Any = ()
    if state:
        each = [state_for(mine, *rows, seed=20 + 2 * i) for i in range(N)]
        each = [hx if isinstance(hx, tuple) else (hx,) for hx in each]
        states = tuple(torch.stack(parts) for parts in zip(*each, strict=True))
    weights = {k: p.detach() for k, p in mine.named_parameters()}
    argnums = tuple(range(2 + len(states)))
    dims = (None, *(0,) * (1 + len(states)))
    of_weights, *rest = vmap(grad(loss_of(mine), argnums), dims)(weights, x, *states)
    assert ft.last_path() == "kernel"
    close([*of_weights.values(), *rest], one_by_one(theirs, weights, x, *states))


@grid("kind, rows, state", CELL_KINDS, ((), (2,)), (True, False))
def test_gradients_of_each_sample_of_cells(kind: str, rows: Any, state: bool) -> None:
    theirs, mine = cell_pair(kind)
    hx = state_for(mine, N, *rows) if state else ()
    states = hx if isinstance(hx, tuple) else (hx,)
    weights = {k: p.detach() for k, p in mine.named_parameters()}
    given = (draw(N, *rows, 3), *states)
    argnums, dims = tuple(range(1 + len(given))), (None, *(0,) * len(given))
    of_weights, *rest = vmap(grad(loss_of(mine), argnums), dims)(weights, *given)
    assert ft.last_path() == "kernel"
    close([*of_weights.values(), *rest], one_by_one(theirs, weights, *given))


@grid("kind, in_dim, out_dim, batch_first", KINDS, (0, 1, 2, -1), (0, 1, -1), (False, True))
def test_axes_that_are_mapped(kind: str, in_dim: int, out_dim: int, batch_first: bool) -> None:
    theirs, mine = pair(kind, layers=2, batch_first=batch_first)
    x = draw(N, 6, 2, 3)
    with torch.no_grad():
        got = vmap(lambda x: mine(x)[0], in_dim, out_dim)(x.movedim(0, in_dim))
    assert ft.last_path() == "kernel"
    want = torch.stack([theirs(each)[0] for each in x]).movedim(0, out_dim)
    close(got, want.detach())


@each_kind
def test_autograd_outside(kind: str) -> None:
    """Of what vmap made: to x, to a state that all share, and to the weights."""
    theirs, mine = pair(kind, layers=2)
    x, hx = draw(N, 6, 2, 3).requires_grad_(), state_for(mine, 2)
    states = [s.requires_grad_() for s in (hx if isinstance(hx, tuple) else (hx,))]
    given = tuple(states) if len(states) == 2 else states[0]
    found = []
    for module in (mine, theirs):
        call = lambda x, module=module: tuple(flat(module(x, given)))  # noqa: E731
        if module is mine:
            made = vmap(call)(x)
            assert ft.last_path() == "kernel"
        else:
            made = [torch.stack(each) for each in zip(*map(call, x), strict=True)]
        loss = sum(t.sin().sum() for t in made)
        found.append(torch.autograd.grad(loss, [x, *states, *module.parameters()]))
    assert ft.last_path() == "kernel"
    close(*found)


@each_kind
def test_ensembles(kind: str) -> None:
    modules = [pair(kind, layers=2)[1] for _ in range(N)]
    for i, module in enumerate(modules):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(draw(*p.shape, seed=30 + i), alpha=0.1)
    weights, _ = stack_module_state(modules)
    base = copy.deepcopy(modules[0]).to("meta")
    for x, dim in ((draw(6, 2, 3), None), (draw(N, 6, 2, 3), 0)):
        call = lambda w, x: tuple(flat(functional_call(base, w, (x,))))  # noqa: E731
        got = vmap(call, (0, dim))(weights, x)
        assert ft.last_path() == "kernel"
        of_each = [flat(m(x if dim is None else x[i])) for i, m in enumerate(modules)]
        want = [torch.stack(each) for each in zip(*of_each, strict=True)]
        close(list(got), want)
        loss = sum(t.sin().sum() for t in got)
        of_stack = torch.autograd.grad(loss, list(weights.values()))
        assert ft.last_path() == "kernel"
        loss = sum(t.sin().sum() for t in want)
        everything = [list(m.parameters()) for m in modules]
        of_modules = [torch.autograd.grad(loss, ps, retain_graph=True) for ps in everything]
        close(list(of_stack), [torch.stack(each) for each in zip(*of_modules, strict=True)])


@each_kind
def test_vmap_in_vmap(kind: str) -> None:
    theirs, mine = pair(kind)
    x = draw(2, N, 6, 3)
    weights = {k: p.detach() for k, p in mine.named_parameters()}
    got = vmap(vmap(grad(loss_of(mine)), (None, 0)), (None, 0))(weights, x)
    assert ft.last_path() == "kernel"
    for i in range(2):
        want = one_by_one(theirs, weights, x[i])
        close([g[i] for g in got.values()], want[:-1])


@each_kind
def test_jacobian_and_pullback(kind: str) -> None:
    theirs, mine = pair(kind)
    x = draw(4, 3)
    function = lambda x: mine(x)[0]  # noqa: E731
    want = torch.autograd.functional.jacobian(lambda x: theirs(x)[0], x)
    close(jacrev(function)(x), want)
    assert ft.last_path() == "kernel"
    value, pull = vjp(function, x)
    close(value, function(x))
    d = draw(*value.shape)
    close(pull(d)[0], torch.einsum("tp,tpab->ab", d, want))
    assert ft.last_path() == "kernel"
    got, value = grad_and_value(lambda x: mine(x)[0].sin().sum())(x)
    close(got, torch.einsum("tp,tpab->ab", function(x).cos(), want))
    assert ft.last_path() == "kernel"


@each_kind
def test_second_derivatives_by_autograd_outside(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A penalty on the gradients of each sample."""
    theirs, mine = pair(kind)
    x = draw(N, 6, 3)
    weights = {k: p.detach().clone().requires_grad_() for k, p in mine.named_parameters()}
    each = vmap(grad(loss_of(mine)), (None, 0))(weights, x)
    penalty = sum(g.square().sum() for g in each.values())
    seen: list[str] = []
    monkeypatch.setattr(paths, "took", seen.append)
    got = torch.autograd.grad(penalty, list(weights.values()))
    # torch goes back through the gradients, and from what they were made of the kernels go on.
    assert seen == ["torch: create_graph"] * N + ["kernel"] * (len(seen) - N)
    penalty = 0
    for one in x:
        made = torch.autograd.grad(
            loss_of(theirs)(weights, one), list(weights.values()), create_graph=True
        )
        penalty = penalty + sum(g.square().sum() for g in made)
    close(got, torch.autograd.grad(penalty, list(weights.values())), 1e-11)


@each_kind
def test_hessian_of_torch_func(kind: str) -> None:
    """jacrev over jacrev: torch runs it, whose GRU and RNN have no rule for it under vmap."""
    theirs, mine = pair(kind)
    value = lambda m: lambda x: m(x)[0].sin().sum()  # noqa: E731
    slope = lambda x: grad(value(mine))(x)  # noqa: E731
    d = draw(3, 3)
    _, pull = vjp(slope, draw(3, 3))
    (got,) = pull(d)
    x = draw(3, 3).requires_grad_()
    (g,) = torch.autograd.grad(value(theirs)(x), x, create_graph=True)
    close(got, torch.autograd.grad(g, x, d)[0])


@each_cell_kind
def test_dropout_under_vmap(kind: str) -> None:
    module = ours(kind, 3, 20, 2, dropout=0.5)
    x = draw(1, 6, 3).expand(N, 6, 3)
    call = lambda x: module(x)[0]  # noqa: E731
    alike = vmap(call, randomness="same")(x)
    assert ft.last_path() == "kernel"
    other = vmap(call, randomness="different")(x)
    assert ft.last_path() == "kernel"
    for i in range(1, N):
        same(alike[i], alike[0])
        assert (other[i] != other[0]).any()
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(call)(x)


@each_kind
def test_packed_under_vmap(kind: str) -> None:
    theirs, mine = pair(kind)
    data, batch_sizes, *_ = rnn.pack_padded_sequence(draw(5, 3, 3), torch.tensor([5, 2, 1]))
    datas = draw(N, *data.shape)
    call = lambda module: lambda d: module(rnn.PackedSequence(d, batch_sizes))[0].data  # noqa: E731
    got = vmap(grad(lambda d: call(mine)(d).sin().sum()))(datas)
    assert ft.last_path() == "kernel"
    want = []
    for one in datas:
        one.requires_grad_()
        want += torch.autograd.grad(call(theirs)(one).sin().sum(), one)
    close(got, torch.stack(want))


@each_kind
def test_layouts_and_signs_under_grad(kind: str) -> None:
    theirs, mine = pair(kind)
    wide = draw(4, 2, 6)
    found = [
        grad(lambda x, m=m: m(x[:, :, ::2])[0].sin().sum() + m(-x[:, :, 1::2])[0].sum())(wide)
        for m in (mine,)
    ]
    assert ft.last_path() == "kernel"
    x = wide.clone().requires_grad_()
    loss = theirs(x[:, :, ::2])[0].sin().sum() + theirs(-x[:, :, 1::2])[0].sum()
    close(found[0], torch.autograd.grad(loss, x)[0])
