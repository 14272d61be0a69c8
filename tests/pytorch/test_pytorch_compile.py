"""torch.compile and torch.export: one graph with the operator, the eager module's numbers."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grids import beyond, grid, in_turn  # noqa: E402
from torch.library import opcheck  # noqa: E402
from torch_networks import (  # noqa: E402
    CELL_KINDS,
    KINDS,
    PROJECTED,
    cell_class,
    close,
    draw,
    flat,
    ft,
    has_c,
    nn,
    options_of,
    ours,
    rnn,
    same,
    state_for,
)  # fmt: skip

from fastrnn.torch import operators, paths  # noqa: E402
from fastrnn.torch.kernels import Inputs  # noqa: E402

# What torch says of itself while it compiles.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


# One of the kinds by default.
one_kind = pytest.mark.parametrize("kind", [CELL_KINDS[-1], *beyond(CELL_KINDS[:-1])])


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def results(function: Any, module: Any, x: Any, *states: Any) -> list[Any]:
    """What a function of x and the states returns, and all gradients."""
    leaves = [t.detach().clone().requires_grad_() for t in (x, *states)]
    made = flat(function(*leaves))
    loss = sum(t.sin().sum() for t in made)
    given = [*leaves, *module.parameters()]
    return [*(t.detach() for t in made), *torch.autograd.grad(loss, given)]


def compiled(function: Any, backend: str = "aot_eager", **options: Any) -> Any:
    return torch.compile(function, backend=backend, fullgraph=True, **options)


def caller(module: Any) -> Any:
    """Of x and the states; something of torch stands before and behind."""

    def function(x: Any, *states: Any) -> Any:
        hx = None if not states else states[0] if len(states) == 1 else states
        return [t * 2 for t in flat(module(x + 1, hx))]

    return lambda *given: tuple(function(*given))


# Compiling takes a second: the default run has each kind once.
@grid(
    "kind, given",
    KINDS,
    (
        (1, False, True, False, (2,), True),
        (2, True, False, True, (2,), False),
        (2, False, True, True, (), True),
        (1, True, True, False, (), False),
    ),
    once=True,
    ids=str,
)
def test_compile(kind: str, given: Any) -> None:
    layers, bidirectional, bias, batch_first, rows, state = given
    module = ours(
        kind, 3, 5, layers, bidirectional=bidirectional, bias=bias, batch_first=batch_first
    )
    x = draw(*((*rows, 4) if batch_first else (4, *rows)), 3)
    hx = state_for(module, *rows) if state else ()
    states = hx if isinstance(hx, tuple) else (hx,)
    function = caller(module)
    want = results(function, module, x, *states)
    module_compiled = compiled(function)
    got = results(module_compiled, module, x, *states)
    assert ft.last_path() == "kernel"
    close(got, want)
    with torch.no_grad():
        close(module_compiled(x, *states), function(x, *states))


@pytest.mark.full
@grid("kind, state, one", CELL_KINDS, (True, False), (False, True), once=True)
def test_compile_a_cell(kind: str, state: bool, one: bool) -> None:
    cell = cell_class(kind)(3, 5, dtype=torch.float64, **options_of(kind, 5))
    rows = () if one else (2,)
    hx = state_for(cell, *rows) if state else ()
    states = hx if isinstance(hx, tuple) else (hx,)
    x = draw(*rows, 3)
    want = results(caller(cell), cell, x, *states)
    got = results(compiled(caller(cell)), cell, x, *states)
    assert ft.last_path() == "kernel"
    close(got, want)


@one_kind
def test_the_graph_has_the_operator(kind: str) -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    module = ours(kind)
    torch.compile(module, backend=backend, fullgraph=True)(draw(4, 2, 3))
    (targets,) = graphs
    assert sum("fastrnn.recurrent" in target for target in targets) == 1


@one_kind
@pytest.mark.parametrize("ordered", [True, False], ids=["sorted", "unsorted"])
def test_compile_with_a_packed_sequence(kind: str, ordered: bool) -> None:
    module = ours(kind, layers=2)
    lengths = torch.tensor([4, 2, 1] if ordered else [2, 4, 1])
    _, batch_sizes, *indices = rnn.pack_padded_sequence(
        draw(4, 3, 3), lengths, enforce_sorted=ordered
    )

    def function(data: Any) -> Any:
        return module(rnn.PackedSequence(data, batch_sizes, *indices))

    want = results(function, module, draw(7, 3))
    got = results(compiled(lambda d: tuple(flat(function(d)))), module, draw(7, 3))
    assert ft.last_path() == "kernel"
    close(got, want)


@one_kind
def test_a_packed_sequence_that_is_passed_in(kind: str) -> None:
    module = ours(kind)
    packed = rnn.pack_padded_sequence(draw(4, 3, 3), torch.tensor([2, 4, 1]), enforce_sorted=False)
    got = compiled(lambda p: module(p)[0].data)(packed)
    assert ft.last_path() == "kernel"
    close(got, module(packed)[0].data)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@one_kind
def test_what_is_compiled_may_take_packed_output_of_an_eager_module(kind: str) -> None:
    first, second = ours(kind), ours(kind, D=5)
    head = nn.Linear(5, 2).double()
    packed = rnn.pack_padded_sequence(draw(4, 3, 3), torch.tensor([2, 4, 1]), enforce_sorted=False)
    between, _ = first(packed)
    for function in (
        lambda p: head(p.data).sin(),
        lambda p: head(rnn.pad_packed_sequence(p)[0]).sin(),
        lambda p: second(p)[0].data,
    ):
        torch._dynamo.reset()
        # The class of the sizes breaks the graph where they are read.
        got = torch.compile(function, backend="aot_eager")(between)
        close(got, function(between))
        close(
            torch.autograd.grad(got.sum(), first.weight_hh_l0, retain_graph=True),
            torch.autograd.grad(function(between).sum(), first.weight_hh_l0, retain_graph=True),
        )


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@one_kind
def test_backward_inside_what_is_compiled(kind: str) -> None:
    """Of a graph that eager code made: by a frame that Dynamo runs, and by compiled autograd."""
    module = ours(kind, layers=2)
    x = draw(4, 3, 3)
    want = torch.autograd.grad(module(x)[0].sin().sum(), list(module.parameters()))

    @torch.compile(backend="eager")
    def frame(loss: Any, z: Any) -> Any:
        z = z * 2
        loss.backward()
        return z + 1

    frame(module(x)[0].sin().sum(), x)
    close([p.grad for p in module.parameters()], want)
    module.zero_grad()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager")):
        module(x)[0].sin().sum().backward()
    close([p.grad for p in module.parameters()], want)


@pytest.mark.full
@one_kind
def test_sizes_that_change(kind: str) -> None:
    module = ours(kind, layers=2)
    function = compiled(module, dynamic=True)
    for T, B in ((4, 2), (7, 3), (3, 5)):
        x = draw(T, B, 3)
        close(results(function, module, x), results(module, module, x))


@one_kind
def test_weights_changed_after_compiling(kind: str) -> None:
    module = ours(kind)
    function = compiled(module)
    function(draw(4, 2, 3))
    with torch.no_grad():
        module.weight_hh_l0.data.mul_(0.5)
        module.bias_ih_l0.add_(1)
    close(flat(function(draw(4, 2, 3))), flat(module(draw(4, 2, 3))))


@pytest.mark.full
@one_kind
def test_dropout_of_one_seed(kind: str) -> None:
    module = ours(kind, layers=3, dropout=0.5)
    function = compiled(module)
    torch.manual_seed(1)
    want = flat(module(draw(4, 2, 3)))
    torch.manual_seed(1)
    close(flat(function(draw(4, 2, 3))), want)
    module.eval()
    close(flat(function(draw(4, 2, 3))), flat(module(draw(4, 2, 3))))


@pytest.mark.full
def test_a_type_that_torch_runs_compiles_too() -> None:
    module = ours("gru", dtype=torch.bfloat16)
    x = draw(4, 2, 3).bfloat16()
    with torch.no_grad():
        got = torch.compile(module, backend="aot_eager")(x)
    assert got[0].dtype is torch.bfloat16
    torch.testing.assert_close(got[0], module(x)[0])


@one_kind
def test_parametrized_weights_compile(kind: str) -> None:
    module = ours(kind)
    nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    want = results(module, module, draw(4, 2, 3))
    close(results(compiled(module), module, draw(4, 2, 3)), want)


@pytest.mark.full
def test_gradients_in_a_compiled_training_step() -> None:
    module, head = ours("lstm", 3, 5, 2, bidirectional=True), nn.Linear(10, 2).double()

    def loss(x: Any) -> Any:
        return head(module(x)[0]).square().mean()

    everything = [*module.parameters(), *head.parameters()]
    want = torch.autograd.grad(loss(draw(4, 2, 3)), everything)
    close(torch.autograd.grad(compiled(loss)(draw(4, 2, 3)), everything), want)


@pytest.mark.full
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@one_kind
def test_inductor(kind: str) -> None:
    module = ours(kind, layers=2, bidirectional=True)
    function = caller(module)
    want = results(function, module, draw(4, 2, 3))
    got = results(compiled(function, "inductor"), module, draw(4, 2, 3))
    assert ft.last_path() == "kernel"
    close(got, want)


# ------------------------------------------------------------------------------ torch.export


@grid("kind, layers, bidirectional", KINDS, (1, 2), (False, True), once=True)
def test_export_for_any_steps_and_sequences(kind: str, layers: int, bidirectional: bool) -> None:
    module = ours(kind, 3, 5, layers, bidirectional=bidirectional).eval()
    sizes = {0: torch.export.Dim("T", min=2), 1: torch.export.Dim("B", min=1)}
    program = torch.export.export(module, (draw(4, 6, 3),), dynamic_shapes=(sizes,))
    called = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert torch.ops.fastrnn.recurrent.default in called
    for T, B in ((4, 6), (9, 2), (2, 7)):
        x = draw(T, B, 3)
        close(flat(program.module()(x)), flat(module(x)))


def test_export_is_saved_and_loaded(tmp_path: Any) -> None:
    module = ours("gru").eval()
    program = torch.export.export(module, (draw(4, 2, 3),))
    torch.export.save(program, tmp_path / "gru.pt2")
    again = torch.export.load(tmp_path / "gru.pt2").module()
    same(flat(again(draw(4, 2, 3))), flat(module(draw(4, 2, 3))))


# ------------------------------------------------------------------------------ the operators


def operator_arguments(kind: str, form: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the two operators are called with by a module, forward and back."""
    seen: dict[str, Any] = {}
    for name in ("recurrent", "recurrent_backward"):
        real = getattr(operators, name)
        monkeypatch.setattr(
            operators, name, lambda *a, name=name, real=real: seen.update({name: a}) or real(*a)
        )
    if form == "step":
        module = cell_class(kind)(2, 3, dtype=torch.float64, **options_of(kind, 3))
        x, hx = draw(2, 2), state_for(module, 2)
    else:
        options = {"layers": 2, "bidirectional": True, "batch_first": form == "batch_first"}
        module = ours(kind, 2, 3, dropout=0.5 if form == "dropout" else 0, **options)
        rows = () if form == "unbatched" else (2,)
        x, hx = draw(*((*rows, 3) if form == "batch_first" else (3, *rows)), 2), None
        if form in ("unbatched", "packed"):
            hx = state_for(module, *rows)
    states = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
    leaves = [t.requires_grad_() for t in (x, *states)]
    sequence = x
    if form == "packed":
        sequence = rnn.pack_padded_sequence(x, torch.tensor([2, 3]), enforce_sorted=False)
    from torch.utils._python_dispatch import TorchDispatchMode

    class Nothing(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            return func(*args, **(kwargs or {}))

    with Nothing():
        made = flat(module(sequence, hx))
    torch.autograd.grad(sum(t.sin().sum() for t in made), leaves)
    return seen


def as_leaves(arguments: Any) -> Any:
    def leaf(t: Any) -> Any:
        if not isinstance(t, torch.Tensor):
            return t
        return t.detach().clone().requires_grad_(t.requires_grad)

    return torch.utils._pytree.tree_map(leaf, tuple(arguments))


FORMS = in_turn(("packed", "dropout", "step", "padded", "batch_first", "unbatched"), CELL_KINDS)
each_form = pytest.mark.parametrize(
    ("form", "kind"), [*FORMS[:3], *(pytest.param(*f, marks=pytest.mark.full) for f in FORMS[3:])]
)


@each_form
def test_opcheck_forward(kind: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = operator_arguments(kind, form, monkeypatch)["recurrent"]
    done = opcheck(torch.ops.fastrnn.recurrent.default, as_leaves(arguments))
    assert set(done.values()) == {"SUCCESS"}
    assert len(done) == 4


@pytest.mark.full
@each_form
def test_opcheck_backward(kind: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = operator_arguments(kind, form, monkeypatch)["recurrent_backward"]
    # Nothing requires gradients: the next test is of those.
    arguments = as_leaves(detached(arguments))
    done = opcheck(torch.ops.fastrnn.recurrent_backward.default, arguments)
    assert set(done.values()) == {"SUCCESS"}
    assert len(done) == 4


@pytest.mark.full
@pytest.mark.parametrize(("form", "kind"), in_turn(("padded", "dropout", "step"), CELL_KINDS))
def test_opcheck_of_second_derivatives(
    form: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What create_graph runs is traced, but for packed sequences: torch's own needs their B."""
    arguments = operator_arguments(kind, form, monkeypatch)["recurrent_backward"]
    done = opcheck(torch.ops.fastrnn.recurrent_backward.default, as_leaves(arguments))
    assert set(done.values()) == {"SUCCESS"}


@pytest.mark.full
@pytest.mark.parametrize("kind", PROJECTED)
def test_opcheck_of_a_projection_and_of_nothing_recorded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = list(operator_arguments(kind, "packed", monkeypatch)["recurrent"])
    for record in (True, False):
        arguments[-1] = record
        given = as_leaves(arguments) if record else as_leaves(detached(arguments))
        done = opcheck(torch.ops.fastrnn.recurrent.default, given)
        assert set(done.values()) == {"SUCCESS"}


def detached(arguments: Any) -> Any:
    return torch.utils._pytree.tree_map(
        lambda t: t.detach() if isinstance(t, torch.Tensor) else t, tuple(arguments)
    )


@pytest.mark.full
@one_kind
def test_second_derivatives_through_the_operator(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = list(operator_arguments(kind, "padded", monkeypatch)["recurrent"])
    start = operators._FIELDS
    inputs = Inputs(*arguments[start : start + len(Inputs._fields)])
    results = 3 if has_c(ours(kind)) else 2

    def function(x: Any, *weights: Any) -> Any:
        own = inputs._replace(x=x, weights=list(weights))
        made = torch.ops.fastrnn.recurrent(*arguments[:start], *own, *arguments[-2:])
        return tuple(made[:results])

    leaves = [t.detach().clone().requires_grad_() for t in (inputs.x, *inputs.weights)]
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    seen: list[str] = []
    monkeypatch.setattr(paths, "took", seen.append)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)
    assert "torch: create_graph" in seen
