"""What torch does in place of the kernels: that last_path says why, and the numbers are torch's."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch_networks  # noqa: E402
from grids import grid  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch_networks import (  # noqa: E402
    CELL_KINDS,
    KINDS,
    cell_class,
    cell_pair,
    close,
    draw,
    each_cell_kind,
    each_kind,
    flat,
    ft,
    layer_class,
    nn,
    ours,
    pair,
    rnn,
    same,
    state_for,
)  # fmt: skip


def test_before_the_first_call() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(ft.last_path()))
    thread.start()
    thread.join()
    assert found == [""]


def test_each_thread_has_its_own() -> None:
    ours("gru")(draw(4, 2, 3))
    layer = ours("gru", dtype=torch.bfloat16)
    found: list[str] = []

    def work() -> None:
        layer(draw(4, 2, 3).bfloat16())
        found.append(ft.last_path())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["torch: dtype is torch.bfloat16"]
    assert ft.last_path() == "kernel"


# What torch says of its own ways.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

# ------------------------------------------------------------------------------ layers and Cells


def any_pair(kind: str, step: bool, **options: Any) -> tuple[Any, Any]:
    return cell_pair(kind, **options) if step else pair(kind, layers=2, **options)


def any_x(step: bool) -> Any:
    return draw(2, 3) if step else draw(4, 2, 3)


both = grid("kind, step", CELL_KINDS, (False, True))


@grid("kind, step, dtype", CELL_KINDS, (False, True), (torch.bfloat16, torch.float16))
def test_another_type(kind: str, step: bool, dtype: Any) -> None:
    x = any_x(step).to(dtype)
    results = [flat(module.to(dtype)(x)) for module in any_pair(kind, step)]
    assert ft.last_path() == f"torch: dtype is {dtype}"
    same(*results)


@both
def test_another_device(kind: str, step: bool) -> None:
    theirs, mine = (m.to("meta") for m in any_pair(kind, step))
    x = any_x(step).to("meta")
    want, got = flat(theirs(x)), flat(mine(x))
    assert ft.last_path() == "torch: device is meta"
    assert [(t.device, t.shape) for t in got] == [(t.device, t.shape) for t in want]


@both
def test_mixed_types(kind: str, step: bool) -> None:
    """An error, torch's own."""
    texts = []
    for module in any_pair(kind, step):
        with pytest.raises((ValueError, RuntimeError)) as caught:
            module(any_x(step).float())
        texts.append((type(caught.value), str(caught.value)))
    assert ft.last_path() == "torch: torch.float32 and torch.float64"
    assert texts[0] == texts[1]


@both
def test_mixed_states(kind: str, step: bool) -> None:
    texts = []
    for module in any_pair(kind, step):
        state = state_for(module, 2, dtype=torch.float32)
        with pytest.raises((ValueError, RuntimeError)) as caught:
            module(any_x(step), state)
        texts.append((type(caught.value), str(caught.value)))
    assert ft.last_path() == "torch: torch.float64 and torch.float32"
    assert texts[0] == texts[1]


@both
def test_autocast(kind: str, step: bool) -> None:
    x = any_x(step).float()
    results = []
    with torch.autocast("cpu", torch.bfloat16):
        for module in any_pair(kind, step, dtype=torch.float32):
            results.append(flat(module(x)))
    assert ft.last_path() == "torch: autocast"
    same(*results)
    with torch.autocast("cpu", enabled=False):
        module(x)
    assert ft.last_path() == "kernel"


class Named(torch.Tensor):
    """A subclass that does nothing of its own."""


@both
def test_a_subclass_of_tensor(kind: str, step: bool) -> None:
    theirs, mine = any_pair(kind, step)
    x = any_x(step)
    got = flat(mine(x.as_subclass(Named)))
    assert ft.last_path() == "torch: Named is no plain tensor"
    assert type(got[0]) is Named
    close([t.as_subclass(torch.Tensor) for t in got], flat(theirs(x)))


@both
def test_what_is_plain(kind: str, step: bool) -> None:
    theirs, mine = any_pair(kind, step)
    for cls in (nn.Parameter, nn.Buffer):
        got = flat(mine(cls(any_x(step))))
        assert ft.last_path() == "kernel"
        close(got, flat(theirs(any_x(step))))


@both
def test_a_lazily_negated_tensor(kind: str, step: bool) -> None:
    theirs, mine = any_pair(kind, step)
    x = torch.complex(any_x(step), any_x(step)).conj().imag
    assert x.is_neg()
    got = flat(mine(x))
    assert ft.last_path() == "torch: a lazily negated tensor"
    close(got, flat(theirs(-any_x(step))))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@each_cell_kind
def test_a_nested_tensor(kind: str) -> None:
    nested = torch.nested.nested_tensor([draw(4, 3), draw(2, 3)])
    theirs, mine = pair(kind)
    assert said(lambda m: m(nested), mine) == said(lambda m: m(nested), theirs)
    assert ft.last_path() == "torch: the shapes"
    theirs, mine = cell_pair(kind)
    assert said(lambda m: m(nested), mine) == said(lambda m: m(nested), theirs)
    assert ft.last_path() == "torch: the shapes"


@both
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*")
def test_torch_jit_trace(kind: str, step: bool) -> None:
    theirs, mine = any_pair(kind, step)
    traced = torch.jit.trace(mine, any_x(step), check_trace=False)
    assert ft.last_path() == "torch: torch.jit.trace"
    x = 2 * any_x(step)
    close(flat(traced(x)), flat(theirs(x)))


@both
def test_forward_mode(kind: str, step: bool) -> None:
    found = []
    for module in any_pair(kind, step):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(any_x(step), torch.ones_like(any_x(step)))
            found.append([forward_ad.unpack_dual(t) for t in flat(module(dual))])
    assert ft.last_path() == "torch: forward-mode derivatives"
    for a, b in zip(*found, strict=True):
        close(a.primal, b.primal)
        close(a.tangent, b.tangent)


@both
def test_jvp(kind: str, step: bool) -> None:
    found = []
    for module in any_pair(kind, step):
        function = lambda x, module=module: flat(module(x))[0]  # noqa: E731
        x = any_x(step)
        found.append(torch.func.jvp(function, (x,), (torch.ones_like(x),)))
        paths = ft.last_path()
        found.append((function(x), torch.func.jacfwd(function)(x).sum(tuple(range(-x.dim(), 0)))))
    assert paths == "torch: forward-mode derivatives"
    close(found[0], found[2])
    close(found[0], found[1])
    close(found[2], found[3])


@both
def test_second_derivatives_of_torch_func(kind: str, step: bool) -> None:
    found = []
    for module in any_pair(kind, step):
        value = lambda x, module=module: flat(module(x))[0].sin().sum()  # noqa: E731
        slope = torch.func.grad(value)
        found.append(torch.func.grad(lambda x: slope(x).sin().sum())(any_x(step)))  # noqa: B023
    assert ft.last_path() == "torch: torch.func's second derivatives"
    close(*found)


@both
def test_functionalize(kind: str, step: bool) -> None:
    theirs, mine = any_pair(kind, step)
    got = torch.func.functionalize(lambda x: flat(mine(x)))(any_x(step))
    assert ft.last_path() == "torch: torch.func's functionalize"
    close(got, flat(theirs(any_x(step))))


@both
def test_create_graph(kind: str, step: bool) -> None:
    found = []
    for module in any_pair(kind, step):
        x = any_x(step).requires_grad_()
        output = flat(module(x))[0]
        path = ft.last_path()
        found += torch.autograd.grad(output.sin().sum(), x, create_graph=True)
    assert path == "kernel"
    assert ft.last_path() == "torch: create_graph"
    close(*(t.detach() for t in found))


@both
def test_under_a_dispatch_mode_the_operator_is_seen(kind: str, step: bool) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    theirs, mine = any_pair(kind, step)
    with Watch():
        got = flat(mine(any_x(step)))
    assert ft.last_path() == "kernel"
    assert "fastrnn.recurrent.default" in seen
    close(got, flat(theirs(any_x(step))))


@both
def test_fake_tensors(kind: str, step: bool) -> None:
    """Shapes without numbers; and torch's own errors, not a shape, where types are mixed."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    theirs, mine = any_pair(kind, step)
    want = flat(theirs(any_x(step)))
    with mode:
        x = mode.from_tensor(any_x(step))
        got = flat(mine(x))
        assert ft.last_path() == "kernel"
        assert [(t.shape, t.dtype) for t in got] == [(t.shape, t.dtype) for t in want]
        if step:  # torch looks at the types of a Cell only where there are numbers
            mine(x.float())
        else:
            with pytest.raises(ValueError, match="does not match weight dtype"):
                mine(x.float())
        assert ft.last_path() == "torch: torch.float32 and torch.float64"


def test_packed_output_under_a_dispatch_mode() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Strict(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            seen.extend(types)
            return func(*args, **(kwargs or {}))

    seen: list[Any] = []
    first, second = ours("gru"), ours("gru", D=5)
    between, _ = first(packed(3))
    with Strict():
        got, _ = second(between)
    assert not any(cls.__name__ == "Sizes" for cls in seen)
    close(got.data, second(between)[0].data)


# ------------------------------------------------------------------------------ what does not fit

WRONG: dict[str, Callable[[Any], Any]] = {
    "the rank of x": lambda m: m(draw(4, 2, 2, 3)),
    "x of rank 1": lambda m: m(draw(3)),
    "the width of x": lambda m: m(draw(4, 2, 4)),
    "no steps": lambda m: m(draw(0, 2, 3)),
    "h_0 of another batch": lambda m: m(draw(4, 2, 3), state_for(m, 3)),
    "h_0 without a batch": lambda m: m(draw(4, 2, 3), state_for(m)),
    "h_0 with a batch": lambda m: m(draw(4, 3), state_for(m, 1)),
    "h_0 of other layers": lambda m: m(draw(4, 2, 3), state_for(ours("tanh"), 2)),
    "x no tensor": lambda m: m([[1.0, 2.0, 3.0]]),
    "x an array": lambda m: m(draw(4, 2, 3).numpy()),
    "x of integers": lambda m: m(draw(4, 2, 3).long()),
    "x of complex numbers": lambda m: m(torch.complex(draw(4, 2, 3), draw(4, 2, 3))),
    "h_0 a number": lambda m: m(draw(4, 2, 3), 5),
    "h_0 one of a pair": lambda m: m(draw(4, 2, 3), (state_of(m),)),
    "h_0 three": lambda m: m(draw(4, 2, 3), (state_of(m),) * 3),
    "h_0 and None": lambda m: m(draw(4, 2, 3), (state_of(m), None)),
    "two states as one tensor": lambda m: m(draw(4, 2, 3), torch.stack([state_of(m)] * 2)),
    "one state as a tensor": lambda m: m(draw(4, 2, 3), state_of(m)[None]),
    "packed, another width": lambda m: m(packed(4)),
    "packed, h_0 of another batch": lambda m: m(packed(3, (4, 2)), state_for(m, 3)),
    "packed, one of a pair": lambda m: m(packed(3), (state_of(m),)),
    "packed, h_0 of other layers": lambda m: m(packed(3), state_for(ours("tanh"), 2)),
    "packed, three dimensions": lambda m: m(rnn.PackedSequence(draw(4, 2, 3), packed(3)[1])),
    "packed, too few rows": lambda m: m(rnn.PackedSequence(draw(4, 3), torch.tensor([2, 2, 1]))),
}


def state_of(module: Any) -> Any:
    state = state_for(module, 2)
    return state[0] if isinstance(state, tuple) else state


def packed(width: int, lengths: Any = (2, 4)) -> Any:
    return rnn.pack_padded_sequence(
        draw(4, 2, width), torch.tensor(lengths), enforce_sorted=lengths == (4, 2)
    )


def said(call: Callable[[Any], Any], module: Any) -> tuple[Any, str]:
    with pytest.raises(Exception) as caught:
        call(module)
    return type(caught.value), str(caught.value)


@grid("kind, what", KINDS, WRONG)
def test_what_does_not_fit_is_refused_in_torchs_words(kind: str, what: str) -> None:
    theirs, mine = pair(kind, layers=2)
    if what == "packed, h_0 of other layers" and not torch_networks.has_c(mine):
        # torch has no check of it then, and its own function finds out later.
        assert said(WRONG[what], mine)[0] is said(WRONG[what], theirs)[0]
        return
    assert said(WRONG[what], mine) == said(WRONG[what], theirs)
    assert ft.last_path().startswith("torch: ")


WRONG_STEP: dict[str, Callable[[Any], Any]] = {
    "the rank of x": lambda m: m(draw(4, 2, 3)),
    "a number": lambda m: m(torch.tensor(1.0)),
    "the width of x": lambda m: m(draw(2, 4)),
    "h_0 of another batch": lambda m: m(draw(2, 3), state_for(m, 3)),
    "h_0 without a batch": lambda m: m(draw(2, 3), state_for(m)),
    "x no tensor": lambda m: m([1.0, 2.0, 3.0]),
    "h_0 a number": lambda m: m(draw(2, 3), 5),
    "h_0 one of a pair": lambda m: m(draw(2, 3), (state_of(m),)),
    "h_0 three": lambda m: m(draw(2, 3), (state_of(m),) * 3),
    "two states as one tensor": lambda m: m(draw(2, 3), torch.stack([state_of(m)] * 2)),
    "nothing twice": lambda m: m(draw(2, 3), (None, None)),
    "h_0 of another width": lambda m: m(draw(2, 3), draw(2, 4)),
}


@grid("kind, what", CELL_KINDS, WRONG_STEP)
def test_what_does_not_fit_a_cell(kind: str, what: str) -> None:
    theirs, mine = cell_pair(kind)
    assert said(WRONG_STEP[what], mine) == said(WRONG_STEP[what], theirs)
    assert ft.last_path().startswith("torch: ")


@each_kind
def test_weights_of_other_shapes(kind: str) -> None:
    texts = []
    for module in pair(kind):
        module.weight_hh_l0 = nn.Parameter(draw(5, 7))
        texts.append(said(lambda m: m(draw(4, 2, 3)), module))
    assert texts[0] == texts[1]
    assert ft.last_path().startswith("torch: ")


def test_an_unknown_nonlinearity_of_a_cell() -> None:
    for module in (nn, ft):
        cell = cell_class("tanh", module)(3, 5, nonlinearity="sin")
        with pytest.raises(RuntimeError, match="Unknown nonlinearity: sin"):
            cell(draw(2, 3).float())


@each_kind
def test_refused_arguments_of_constructors(kind: str) -> None:
    for arguments, options in (
        ((3, 0), {}), ((3, -1), {}), ((3, 5, 0), {}), ((3, 2.5), {}), ((), {}),
        ((3, 5), {"proj_size": -1}), ((3, 5), {"proj_size": 5}), ((3, 5), {"nonsense": 1}),
        ((3, 5, 2), {"dropout": 1.5}),
        ((3, 5), {"nonlinearity": "sin"}),
    ):  # fmt: skip
        errors = []
        for module in (nn, ft):
            with pytest.raises((TypeError, ValueError)) as caught:
                layer_class(kind, module)(*arguments, **options)
            errors.append(type(caught.value))
        assert errors[0] is errors[1], (arguments, options)


@each_cell_kind
def test_a_failed_call_leaves_the_module_as_it_was(kind: str) -> None:
    theirs, mine = pair(kind)
    with pytest.raises(RuntimeError):
        mine(draw(4, 2, 7))
    close(mine(draw(4, 2, 3)), theirs(draw(4, 2, 3)))
    assert ft.last_path() == "kernel"


@each_kind
def test_dropout_of_torch_is_drawn_from_the_same_seed(kind: str) -> None:
    """Where torch stands in, nothing was drawn before."""
    found = []
    for module in pair(kind, layers=3, dropout=0.5):
        module.to(torch.bfloat16)
        torch.manual_seed(1)
        found.append(flat(module(draw(4, 2, 3).bfloat16())))
    assert ft.last_path() == "torch: dtype is torch.bfloat16"
    same(*found)
