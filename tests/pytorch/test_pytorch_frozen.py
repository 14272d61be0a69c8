"""accelerate(model, frozen=True): weights stay packed, and what they cannot follow is refused."""

import copy
import io
import pickle
from typing import Any

import pytest

import fastrnn
from fastrnn import _core

torch = pytest.importorskip("torch")

import fastrnn.torch as ft  # noqa: E402

nn = torch.nn

MODULES: dict[str, Any] = {
    "RNN": lambda: nn.RNN(3, 9, 2, nonlinearity="relu"),
    "LSTM": lambda: nn.LSTM(3, 9, 2, proj_size=4, bidirectional=True),
    "GRU": lambda: nn.GRU(3, 9, 2, bidirectional=True, bias=False),
    "RNNCell": lambda: nn.RNNCell(3, 9),
    "LSTMCell": lambda: nn.LSTMCell(3, 9),
    "GRUCell": lambda: nn.GRUCell(3, 9, bias=False),
}
each_module = pytest.mark.parametrize("kind", MODULES)


def flat(results: Any) -> list[Any]:
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for part in results for tensor in flat(part)]


def x_for(kind: str, dtype: Any = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(1)
    shape = (4, 3) if kind.endswith("Cell") else (5, 4, 3)
    return torch.randn(shape, generator=generator, dtype=dtype)


def frozen(kind: str, dtype: Any = torch.float32) -> tuple[Any, Any, Any]:
    """A frozen module, the same not frozen, and an input."""
    torch.manual_seed(0)
    plain = MODULES[kind]().to(dtype)
    ft.accelerate(plain)
    module = copy.deepcopy(plain)
    report = ft.accelerate(module, frozen=True)
    assert "frozen" in str(report)
    return module, plain, x_for(kind, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_module
def test_a_frozen_module_has_the_same_bits(
    kind: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, plain, x = frozen(kind, dtype)
    packed = []
    real = _core.Packed
    monkeypatch.setattr(
        "fastrnn.torch.frozen.Packed", lambda *weights: packed.append(1) or real(*weights)
    )
    with torch.no_grad():
        for isa in fastrnn.available_isas():
            fastrnn.set_isa(isa)
            expected = flat(plain(x))
            packed.clear()
            for _ in range(3):
                for a, b in zip(flat(module(x)), expected, strict=True):
                    assert torch.equal(a, b)
                assert ft.last_path() == "kernel"
            directions = 1 if kind.endswith("Cell") else 2 * (1 + plain.bidirectional)
            assert len(packed) == directions  # at the first call, and never again


@each_module
def test_gradients_are_refused_and_the_cures_work(kind: str) -> None:
    module, plain, x = frozen(kind)
    with pytest.raises(RuntimeError, match=r"under torch\.no_grad\(\), or thaw it"):
        module(x)
    with torch.no_grad():
        module(x)
    with torch.inference_mode():
        module(x)
    ft.accelerate(module)
    for a, b in zip(flat(module(x)), flat(plain(x)), strict=True):
        assert torch.equal(a, b)
        assert a.requires_grad
    ft.accelerate(module, frozen=True)
    module.requires_grad_(False)
    module(x)
    with pytest.raises(RuntimeError, match="has no gradients"):
        module(x.requires_grad_())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.load_state_dict(m.state_dict()),
        lambda m: m.get_parameter(next(n for n, _ in m.named_parameters())).add_(1),
        lambda m: setattr(next(m.parameters()), "data", torch.zeros_like(next(m.parameters()))),
        lambda m: m.double().float(),
    ],
)
@each_module
def test_a_change_that_torch_counts_is_refused(kind: str, change: Any) -> None:
    module, plain, x = frozen(kind)
    with torch.no_grad():
        module(x)
        change(module)
        change(plain)
        with pytest.raises(RuntimeError, match=r"accelerate\(model, frozen=True\)"):
            module(x)
        ft.accelerate(module, frozen=True)
        for a, b in zip(flat(module(x)), flat(plain(x)), strict=True):
            assert torch.equal(a, b)


@each_module
def test_copies_are_frozen_with_weights_of_their_own(kind: str) -> None:
    module, _, x = frozen(kind)
    with torch.no_grad():
        expected = flat(module(x))
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        copies = (
            copy.deepcopy(module),
            pickle.loads(pickle.dumps(module)),
            torch.load(file, weights_only=False),
        )
        for other in copies:
            for a, b in zip(flat(other(x)), expected, strict=True):
                assert torch.equal(a, b)
            for p in other.parameters():
                p.mul_(0)
            with pytest.raises(RuntimeError, match="have changed"):
                other(x)
        assert all(torch.equal(a, b) for a, b in zip(flat(module(x)), expected, strict=True))


@each_module
def test_restore_thaws(kind: str) -> None:
    module, _, x = frozen(kind, torch.float64)
    with torch.no_grad():
        module(x)
    ft.restore(module)
    theirs = MODULES[kind]()
    assert type(module) is type(theirs)
    assert vars(module).keys() == vars(theirs).keys()
    flat(module(x))[0].sum().backward()


def test_other_tensors_go_their_own_way() -> None:
    module, _, x = frozen("GRU")
    with torch.no_grad():
        module(x)
        assert ft.last_path() == "kernel"
        module.bfloat16()(x.bfloat16())
        assert ft.last_path() == "torch: dtype is torch.bfloat16"


@pytest.mark.parametrize("bad", [1, "yes", None])
def test_frozen_is_a_bool(bad: Any) -> None:
    model = nn.GRU(3, 4)
    with pytest.raises(TypeError, match="frozen"):
        ft.accelerate(model, frozen=bad)
    assert type(model) is nn.GRU
