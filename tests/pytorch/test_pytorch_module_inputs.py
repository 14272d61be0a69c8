"""PyTorch's own inputs for RNN, GRU, LSTM and the Cells, as its test suite draws them."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which the suite of torch stands on

import torch_networks  # noqa: E402
from grids import grid  # noqa: E402
from torch_networks import ft, nn  # noqa: E402

common_modules = pytest.importorskip("torch.testing._internal.common_modules")

MODULES = {
    info.module_cls: info
    for info in common_modules.module_db
    if hasattr(ft, info.module_cls.__name__) and info.module_cls.__module__.startswith("torch.nn")
}
NAMES = [cls.__name__ for cls in MODULES]


def info_of(name: str) -> Any:
    return MODULES[getattr(nn, name)]


def results(module: Any, sample: Any) -> list[Any]:
    """What a module makes of a sample, and all gradients."""
    made = torch_networks.flat(module(*sample.args, **sample.kwargs))
    given = torch.utils._pytree.tree_leaves((sample.args, sample.kwargs))
    given = [t for t in given if isinstance(t, torch.Tensor) and t.requires_grad]
    loss = sum(t.sin().sum() for t in made)
    return [*(t.detach() for t in made), *torch.autograd.grad(loss, [*given, *module.parameters()])]


def test_all_six_are_there() -> None:
    kinds = torch_networks.CELL_KINDS
    assert set(NAMES) == {torch_networks.layer_class(kind).__name__ for kind in kinds} | {
        torch_networks.cell_class(kind).__name__ for kind in kinds
    }


@pytest.mark.filterwarnings("ignore:dropout option adds dropout after all but last")
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@grid("name, dtype, training", NAMES, torch_networks.DTYPES, (True, False))
def test_the_samples_of_torch(name: str, dtype: Any, training: bool) -> None:
    """All of them pass."""
    info = info_of(name)
    samples = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training
    )
    assert samples
    for sample in samples:
        arguments, options = sample.constructor_input.args, sample.constructor_input.kwargs
        options = {"device": "cpu", "dtype": dtype} | options
        theirs = getattr(nn, name)(*arguments, **options).train(training)
        mine = getattr(ft, name)(*arguments, **options).train(training)
        mine.load_state_dict(theirs.state_dict())
        assert repr(mine) == repr(theirs)
        torch.manual_seed(1)
        want = results(theirs, sample.forward_input)
        torch.manual_seed(1)
        got = results(mine, sample.forward_input)
        assert ft.last_path() == "kernel", sample.desc
        # Sums of at most 100 terms, 10 steps: 1000 roundings of numbers of order one.
        atol = 1000 * torch_networks.UNIT[dtype]
        torch.testing.assert_close(got, want, rtol=0, atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_the_errors_of_torch(name: str) -> None:
    """Inputs that torch refuses are refused with errors of the same type and text."""
    info = info_of(name)
    if info.module_error_inputs_func is None:
        pytest.fail("torch has no inputs of that kind any more")
    kept = 0
    for error in info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=False, training=True
    ):
        sample = error.module_error_input
        arguments, options = sample.constructor_input.args, sample.constructor_input.kwargs
        options = {"device": "cpu", "dtype": torch.float64} | options
        construction = error.error_on is common_modules.ModuleErrorEnum.CONSTRUCTION_ERROR
        said = []
        for module in (nn, ft):
            cls = getattr(module, name)
            if not construction:
                cls(*arguments, **options)

            def make_and_call(cls: Any = cls, sample: Any = sample) -> None:
                layer = cls(*arguments, **options)  # noqa: B023
                layer(*sample.forward_input.args, **sample.forward_input.kwargs)

            with pytest.raises(error.error_type) as caught:
                make_and_call()
            said.append((type(caught.value), str(caught.value)))
        assert said[0] == said[1]
        kept += 1
    assert kept
