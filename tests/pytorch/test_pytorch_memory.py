"""Tensors lend their memory: one that has none, or is of another type, is refused."""

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grids import beyond  # noqa: E402
from torch_networks import CELL_KINDS, draw, each_kind, ft, nn, ours, pair, same  # noqa: E402

from fastrnn import _core  # noqa: E402

FLOAT, DOUBLE = 11, 12  # NumPy's numbers of the types
one_kind = pytest.mark.parametrize("kind", [CELL_KINDS[-1], *beyond(CELL_KINDS[:-1])])


def test_lend_is_the_tensors_own_memory() -> None:
    for dtype, number in ((torch.float32, FLOAT), (torch.float64, DOUBLE)):
        tensor = torch.arange(24, dtype=dtype).reshape(2, 3, 4)
        for view in (tensor, tensor.transpose(0, 2), tensor[:, ::2], tensor[0, 0], tensor[:0]):
            array = _core.lend(view, dtype, number)
            assert array.tolist() == view.tolist()
            if view.numel():
                assert not array.flags.writeable
                assert array.ctypes.data == view.data_ptr()
            whole = _core.lend(view, dtype, number, True)
            assert whole.flags.c_contiguous
            assert whole.tolist() == view.tolist()
    tensor += 1
    assert _core.lend(tensor, torch.float64, DOUBLE)[0, 0, 0] == 1


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float16),
        torch.zeros(3, dtype=torch.int32), torch.zeros(3, device="meta"), torch.eye(3).to_sparse(),
    ],
    ids=["float64", "float16", "int32", "meta", "sparse"],
)  # fmt: skip
def test_lend_refuses_what_is_not_of_the_type_here(tensor: Any) -> None:
    with pytest.raises((TypeError, RuntimeError)):
        _core.lend(tensor, torch.float32, FLOAT)


def test_lend_refuses_what_has_no_memory() -> None:
    tensor = torch.zeros(3)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match="taken away"):
        _core.lend(tensor, torch.float32, FLOAT)


@each_kind
def test_a_weight_whose_memory_was_taken_away(kind: str) -> None:
    module = ours(kind)
    module.weight_hh_l0.untyped_storage().resize_(0)
    with torch.no_grad(), pytest.raises(RuntimeError):
        module(draw(4, 2, 3))
    assert "taken away" in ft.last_path()


@pytest.mark.parametrize("to", [torch.float16, torch.float32])
@one_kind
def test_saved_tensors_that_come_back_as_others(kind: str, to: Any) -> None:
    x = draw(4, 2, 3).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.to(to)):
        output, _ = ours(kind)(x)
        with pytest.raises((TypeError, RuntimeError, ValueError)):
            output.sum().backward()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, about itself
@one_kind
def test_an_exported_program_in_another_type(kind: str) -> None:
    x = draw(4, 2, 3)
    program = torch.export.export(ours(kind), (x,)).module()
    single = copy.deepcopy(program).float()
    torch.testing.assert_close(single(x.float())[0], program(x)[0].float())
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        copy.deepcopy(program).half()(x.half())


@one_kind
def test_a_tensor_that_outlived_its_transform(kind: str) -> None:
    leaked: list[Any] = []
    torch.func.grad(lambda x: leaked.append(x * 1) or x.sum())(draw(4, 2, 3))
    theirs, mine = pair(kind)
    with torch.no_grad():
        want = theirs(leaked[0])[0]
        torch.testing.assert_close(mine(leaked[0])[0], want)


@one_kind
def test_an_error_of_a_hook_is_the_callers(kind: str) -> None:
    """It does not pass for an input that does not fit."""
    raised = []

    def once(tensor: Any) -> Any:
        if not raised:
            raised.append(1)
            raise ValueError("mine")
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(once, lambda t: t),
        pytest.raises(ValueError, match="mine"),
    ):
        ours(kind)(draw(4, 2, 3))


@one_kind
def test_frozen_weights_whose_memory_is_used_again(kind: str) -> None:
    """By others of their size, which is what an allocator does first."""
    module = ours(kind)
    x = draw(4, 2, 3)
    ft.accelerate(module, frozen=True)
    with torch.no_grad():
        module(x)
        for _ in range(5):
            for p in module.parameters():
                p.data = torch.randn_like(p)
        with pytest.raises(RuntimeError, match="have changed"):
            module(x)
        ft.accelerate(module, frozen=True)
        want = ours(kind)
        want.load_state_dict(module.state_dict())
        same(module(x)[0], want(x)[0])


@one_kind
def test_weights_that_are_computed_are_not_frozen(kind: str) -> None:
    module = ours(kind)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    model = nn.ModuleDict({"inner": module})
    report = ft.accelerate(model, frozen=True)
    assert report.swapped == {}
    assert report.left == {"inner": "not frozen: its weights are made anew at each call"}
    with torch.no_grad():
        first = module(draw(4, 2, 3))[0]
        module.weight_ih_l0.mul_(2)
        assert not torch.equal(first, module(draw(4, 2, 3))[0])
    assert ft.last_path() == "kernel"
