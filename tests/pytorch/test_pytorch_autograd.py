"""How the modules behave under autograd: what is changed, kept, asked for and hooked."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grids import grid  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
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
    nn,
    ours,
    pair,
    rnn,
    run,
    same,
    state_for,
)  # fmt: skip


def leaves(module: Any, *rows: int) -> list[Any]:
    hx = state_for(module, *rows)
    states = hx if isinstance(hx, tuple) else (hx,)
    return [t.requires_grad_() for t in (draw(4, *rows, 3), *states)]


def called(module: Any, x: Any, *states: Any) -> list[Any]:
    return flat(module(x, None if not states else states[0] if len(states) == 1 else states))


def total(results: Any) -> Any:
    return sum(t.sin().sum() for t in results)


# ------------------------------------------------------------------------------ changes in place


@grid("kind, what", KINDS, ("x", "h_0", "weight_ih_l0", "weight_hh_l1", "bias_hh_l0", "output"))
def test_a_change_in_place_before_backward_raises(kind: str, what: str) -> None:
    module = ours(kind, layers=2)
    given = leaves(module, 2)
    given = [given[0] * 1, given[1] * 1, *given[2:]]  # leaves may not be changed
    made = called(module, *given)
    changed = {"x": given[0], "h_0": given[1], "output": made[0]}.get(what)
    with torch.no_grad():
        (getattr(module, what) if changed is None else changed).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total(made).backward()


@each_kind
@pytest.mark.parametrize("layers", [1, 2])
def test_final_states_may_be_changed_in_place(kind: str, layers: int) -> None:
    """They have memory of their own, which backward does not read."""
    module = ours(kind, layers=layers)
    given = leaves(module, 2)
    want = torch.autograd.grad(called(module, *given)[0].sin().sum(), given)
    output, *states = called(module, *given)
    kept = output.detach().clone()
    for state in states:
        state.mul_(2)
    same(output.detach(), kept)
    same(torch.autograd.grad(output.sin().sum(), given), want)


@each_kind
def test_backward_twice_raises(kind: str) -> None:
    loss = total(flat(ours(kind)(draw(4, 2, 3))))
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@each_kind
def test_retain_graph(kind: str) -> None:
    module = ours(kind, layers=2)
    loss = total(flat(module(draw(4, 2, 3))))
    first = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(module.parameters()))
    same(first, second)
    assert ft.last_path() == "kernel"


# ------------------------------------------------------------------------------ layouts


def transposed(a: Any) -> Any:
    return a.transpose(0, -1).contiguous().transpose(0, -1)


def gaps(a: Any) -> Any:
    wide = torch.full((*a.shape[:-1], 2 * a.shape[-1]), torch.nan, dtype=a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def gaps_between_rows(a: Any) -> Any:
    wide = torch.full((*a.shape[:-1], a.shape[-1] + 3), torch.nan, dtype=a.dtype)
    wide[..., :-3] = a
    return wide[..., :-3]


def one_behind(a: Any) -> Any:
    """Not at the start of its memory."""
    return torch.cat([torch.full((1,), torch.nan, dtype=a.dtype), a.flatten()])[1:].view(a.shape)


LAYOUTS = [transposed, gaps, gaps_between_rows, one_behind]


@grid("kind, layout, batch_first, weights", KINDS, LAYOUTS, (False, True), (False, True))
def test_layouts_in_memory(kind: str, layout: Any, batch_first: bool, weights: bool) -> None:
    """Of x, the states, the upstream gradients and, by functional_call, the weights."""
    _, mine = pair(kind, layers=2, batch_first=batch_first)
    want = run(mine, draw(4, 6, 3), state_for(mine, 4 if batch_first else 6))
    if weights:
        for name, p in list(mine.named_parameters()):
            p.data = layout(p.data)
            assert getattr(mine, name).data_ptr() == p.data_ptr()
    got = run(mine, draw(4, 6, 3), state_for(mine, 4 if batch_first else 6), None, layout)
    assert ft.last_path() == "kernel"
    same(got, want)


@each_kind
def test_expanded_inputs(kind: str) -> None:
    """One row for all: strides of 0 in x, the states and the upstream gradients."""
    found = []
    for module in pair(kind, layers=2):
        hx = state_for(module, 1)
        states = [s.requires_grad_() for s in (hx if isinstance(hx, tuple) else (hx,))]
        x = draw(1, 1, 3).requires_grad_()
        given = [s.expand(-1, 5, -1) for s in states]
        output, *_ = called(module, x.expand(4, 5, 3), *given)
        upstream = draw(1, 1, 1).expand(output.shape)
        found.append(torch.autograd.grad(output, [x, *states, *module.parameters()], upstream))
    assert ft.last_path() == "kernel"
    close(*found)


@each_kind
def test_lazily_negated_gradients(kind: str) -> None:
    """Memory that is lent has the numbers without their sign."""
    found = []
    for module in pair(kind, layers=2):
        given = leaves(module, 2)
        made = called(module, *given)
        upstream = [
            torch.complex(torch.zeros_like(t), draw(*t.shape, seed=9)).conj().imag for t in made
        ]
        assert all(d.is_neg() for d in upstream)
        found.append(torch.autograd.grad(made, given, upstream))
    assert ft.last_path() == "kernel"
    close(*found)


# ------------------------------------------------------------------------------ what is asked for


@each_kind
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_each_input_alone(kind: str, form: str) -> None:
    """Its gradient is that of all together, to the bit; nothing else gets one."""
    module = ours(kind, layers=2, bidirectional=True)
    x, *states = leaves(module, 2)
    everything = {"x": x, **{f"state {i}": s for i, s in enumerate(states)}}
    everything |= dict(module.named_parameters())

    def loss() -> Any:
        sequence = x
        if form == "packed":
            sequence = rnn.pack_padded_sequence(x, torch.tensor([4, 2]))
        return total(called(module, sequence, *states))

    want = dict(
        zip(everything, torch.autograd.grad(loss(), list(everything.values())), strict=True)
    )
    for alone in everything:
        for name, tensor in everything.items():
            tensor.requires_grad_(name == alone)
            tensor.grad = None
        loss().backward()
        assert ft.last_path() == "kernel"
        for name, tensor in everything.items():
            assert (tensor.grad is not None) == (name == alone)
        same(everything[alone].grad, want[alone])


@each_kind
def test_nothing_required_makes_no_graph(kind: str) -> None:
    module = ours(kind).requires_grad_(False)
    assert all(t.grad_fn is None for t in flat(module(draw(4, 2, 3))))
    packed = rnn.pack_padded_sequence(draw(4, 2, 3), torch.tensor([4, 2]))
    data = module(packed)[0].data
    assert data.grad_fn is None
    assert type(data) is torch.Tensor


@each_kind
def test_an_input_of_inference_mode(kind: str) -> None:
    texts = []
    with torch.inference_mode():
        x = draw(4, 2, 3)
    for module in pair(kind):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved") as caught:
            module(x)
        texts.append(str(caught.value))
        module.requires_grad_(False)
        flat(module(x))
    assert texts[0] == texts[1]


@each_kind
def test_unused_results(kind: str) -> None:
    """Upstream gradients of each result alone, the others absent."""
    theirs, mine = pair(kind, layers=2, bidirectional=True)
    for i in range(len(flat(mine(draw(4, 2, 3))))):
        found = []
        for module in (theirs, mine):
            given = [*leaves(module, 2), *module.parameters()]
            result = called(module, *given[: -len(list(module.parameters()))])[i]
            found.append(torch.autograd.grad(result.sin().sum(), given, materialize_grads=True))
        assert ft.last_path() == "kernel"
        close(*found)


@each_cell_kind
def test_gradients_add_up(kind: str) -> None:
    module = ours(kind)
    total(flat(module(draw(4, 2, 3)))).backward()
    first = [p.grad.clone() for p in module.parameters()]
    total(flat(module(draw(4, 2, 3)))).backward()
    same([p.grad for p in module.parameters()], [2 * g for g in first])


@each_cell_kind
def test_gradients_are_no_views_of_what_is_kept(kind: str) -> None:
    """They may be changed in place, as clipping does."""
    module = ours(kind, layers=2)
    x = draw(4, 2, 3).requires_grad_()
    loss = total(flat(module(x)))
    want = torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True)
    loss.backward(retain_graph=True)
    nn.utils.clip_grad_norm_(module.parameters(), 1e-3)
    x.grad.zero_()
    same(torch.autograd.grad(loss, [x, *module.parameters()]), want)


@each_cell_kind
def test_steps_of_a_cell_in_a_loop(kind: str) -> None:
    found = []
    for cell in cell_pair(kind):
        x, hx = draw(6, 2, 3).requires_grad_(), None
        outputs = []
        for step in x:
            hx = cell(step, hx)
            assert ft.last_path() in ("kernel", "")
            outputs.append(flat(hx)[0])
        loss = torch.stack(outputs).sin().sum()
        found.append(torch.autograd.grad(loss, [x, *cell.parameters()]))
    close(*found)


@grid("kind, one", CELL_KINDS, (False, True))
def test_each_input_of_a_cell_alone(kind: str, one: bool) -> None:
    _, cell = cell_pair(kind)
    rows = () if one else (2,)
    hx = state_for(cell, *rows)
    states = [s.requires_grad_() for s in (hx if isinstance(hx, tuple) else (hx,))]
    everything = [draw(*rows, 3).requires_grad_(), *states, *cell.parameters()]

    def loss() -> Any:
        return total(called(cell, everything[0], *states))

    want = torch.autograd.grad(loss(), everything)
    for alone, gradient in zip(everything, want, strict=True):
        for tensor in everything:
            tensor.requires_grad_(tensor is alone)
            tensor.grad = None
        loss().backward()
        assert [t.grad is not None for t in everything] == [t is alone for t in everything]
        same(alone.grad, gradient)


# ------------------------------------------------------------------------------ hooks


@each_kind
def test_hooks_on_what_is_saved(kind: str) -> None:
    """As of save_on_cpu: what comes back stands in for it. All that is kept goes through them."""
    module = ours(kind, layers=2)
    given = leaves(module, 2)
    want = torch.autograd.grad(total(called(module, *given)), given)
    kept: list[Any] = []

    def pack(t: Any) -> int:
        kept.append(t.detach().clone())
        return len(kept) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, kept.__getitem__):
        made = called(module, *given)
        count = len(kept)
        loss = total(made)
    assert count > len(given) + len(list(module.parameters()))
    same(torch.autograd.grad(loss, given), want)
    assert ft.last_path() == "kernel"


@grid("kind, reentrant, form", KINDS, (True, False), ("padded", "packed"))
def test_checkpoint(kind: str, reentrant: bool, form: str) -> None:
    module = ours(kind, layers=3, dropout=0.5)
    packed = rnn.pack_padded_sequence(draw(4, 2, 3), torch.tensor([4, 2]))
    x = (packed.data if form == "packed" else draw(4, 2, 3)).requires_grad_()

    def function(x: Any) -> Any:
        return flat(module(rnn.PackedSequence(x, packed.batch_sizes) if form == "packed" else x))[0]

    found = []
    for call in (function, lambda x: checkpoint(function, x, use_reentrant=reentrant)):
        torch.manual_seed(1)
        found.append(
            torch.autograd.grad(call(x).sin().sum(), x) if not reentrant else back(call, x)
        )
    assert ft.last_path() == "kernel"
    same(*found)


def back(call: Any, x: Any) -> Any:
    """The gradient of x by backward; torch.autograd.grad does not go into a re-entrant one."""
    x.grad = None
    call(x).sin().sum().backward()
    return (x.grad,)


@each_kind
def test_hooks_of_modules(kind: str) -> None:
    seen: list[str] = []
    found = []
    for module in pair(kind):
        seen.clear()
        module.register_forward_pre_hook(lambda m, args: seen.append("before"))
        module.register_forward_hook(lambda m, args, out: seen.append("after"))
        module.register_full_backward_pre_hook(lambda m, d: seen.append("back"))
        module.register_full_backward_hook(lambda m, d_in, d_out: (3 * d_in[0],))
        x = draw(4, 2, 3).requires_grad_()
        output, _ = module(x)
        output.register_hook(lambda d: 2 * d)
        output.sin().sum().backward()
        assert seen == ["before", "after", "back"]
        found.append([x.grad, *(p.grad for p in module.parameters())])
    assert ft.last_path() == "kernel"
    close(*found)


@each_cell_kind
def test_hooks_of_parameters(kind: str) -> None:
    module = ours(kind)
    seen = []
    module.weight_hh_l0.register_hook(lambda d: 2 * d)
    module.weight_hh_l0.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.shape))
    loss = total(flat(module(draw(4, 2, 3))))
    loss.backward()
    assert seen == [module.weight_hh_l0.shape]


def test_anomaly_mode() -> None:
    with (
        pytest.warns(UserWarning, match="Anomaly Detection has been enabled"),
        torch.autograd.detect_anomaly(),
    ):
        total(flat(ours("gru")(draw(4, 2, 3)))).backward()
    assert ft.last_path() == "kernel"


def test_a_loss_that_gives_no_gradient() -> None:
    """Where nothing comes back nothing goes on, and last_path stays."""

    class Stop(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, d: Any) -> Any:
            return None

    module = ours("lstm")
    x = draw(4, 2, 3).requires_grad_()
    Stop.apply(module(x)[0]).sum().backward()
    assert x.grad is None
