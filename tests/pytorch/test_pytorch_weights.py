"""Weights are read at each call, whoever made them what they are."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grids import grid  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch_networks import (  # noqa: E402
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
    run,
    same,
)  # fmt: skip


def data_edit(m: Any) -> None:
    m.weight_hh_l0.data.mul_(0.5)


def data_replaced(m: Any) -> None:
    m.weight_ih_l0.data = m.weight_ih_l0.data.t().contiguous().t() * 2


def in_place(m: Any) -> None:
    with torch.no_grad():
        m.bias_hh_l0.add_(1)


def another_parameter(m: Any) -> None:
    m.weight_hh_l0 = nn.Parameter(m.weight_hh_l0.detach() * 0.5)


def weight_norm(m: Any) -> None:
    parametrizations.weight_norm(m, "weight_hh_l0")
    with torch.no_grad():
        m.parametrizations.weight_hh_l0.original0.mul_(2)


def spectral_norm(m: Any) -> None:
    torch.manual_seed(4)
    parametrizations.spectral_norm(m, "weight_ih_l0")
    m.eval()


def orthogonal(m: Any) -> None:
    torch.manual_seed(4)
    parametrizations.orthogonal(m, "weight_hh_l0", orthogonal_map="householder")


def old_weight_norm(m: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(m, "weight_hh_l0")
    with torch.no_grad():
        m.weight_hh_l0_g.mul_(2)


def pruned(m: Any) -> None:
    prune.l1_unstructured(m, "weight_hh_l0", amount=0.5)
    with torch.no_grad():
        m.weight_hh_l0_orig.mul_(2)


def another_state(m: Any) -> None:
    m.load_state_dict({name: 0.5 * t for name, t in m.state_dict().items()})


def there_and_back(m: Any) -> None:
    m.float().double()


CHANGES = [
    data_edit, data_replaced, in_place, another_parameter, weight_norm, spectral_norm, orthogonal,
    old_weight_norm, pruned, another_state, there_and_back,
]  # fmt: skip


@grid("kind, change", KINDS, CHANGES)
def test_changed_weights_count(kind: str, change: Callable[[Any], None]) -> None:
    """After the change, forward and the gradients of what the weights are made of are torch's."""
    modules = pair(kind, layers=2)
    found = []
    for module in modules:
        before = flat(module(draw(4, 2, 3)))
        change(module)
        for _ in range(2):
            found.append(run(module, draw(4, 2, 3)))
        if change is not there_and_back:
            assert (found[-1]["output"] - before[0]).abs().max() > 1e-6
    assert ft.last_path() == "kernel"
    assert found[2].keys() == found[0].keys()
    close(found[2], found[0])
    close(found[3], found[1])


@each_kind
def test_a_step_of_an_optimiser_counts(kind: str) -> None:
    found = []
    for module in pair(kind, layers=2):
        optimiser = torch.optim.Adam(module.parameters(), 0.01)
        for step in range(3):
            optimiser.zero_grad()
            module(draw(4, 2, 3, seed=step))[0].square().sum().backward()
            optimiser.step()
        found.append(dict(module.named_parameters()))
    # Adam divides by the root of what may be small: errors of 1e-13 in gradients of 1e-4 or more.
    close(found[0], found[1], 1e-9)


@each_kind
def test_functional_call(kind: str) -> None:
    theirs, mine = pair(kind)
    weights = {name: 0.5 * p.detach() for name, p in mine.named_parameters()}
    before = flat(mine(draw(4, 2, 3)))
    found = [flat(torch.func.functional_call(m, weights, (draw(4, 2, 3),))) for m in (theirs, mine)]
    assert ft.last_path() == "kernel"
    close(*found)
    same(flat(mine(draw(4, 2, 3))), before)


@each_cell_kind
def test_cells_read_theirs_at_each_call(kind: str) -> None:
    found = []
    for cell in cell_pair(kind):
        cell(draw(2, 3))
        cell.weight_hh.data.mul_(0.5)
        parametrizations.weight_norm(cell, "weight_ih")
        with torch.no_grad():
            cell.parametrizations.weight_ih.original0.mul_(2)
        prune.l1_unstructured(cell, "bias_hh", amount=2)
        found.append(run(cell, draw(2, 3)))
    assert ft.last_path() == "kernel"
    close(*found)


@each_kind
def test_tied_weights(kind: str) -> None:
    """One tensor in two layers gets the sum of both gradients."""
    found = []
    for module in pair(kind, layers=3):
        module.weight_hh_l2 = module.weight_hh_l1
        module(draw(4, 2, 3))[0].sin().sum().backward()
        found.append(module.weight_hh_l1.grad)
    assert ft.last_path() == "kernel"
    close(*found)


@each_kind
def test_both_types_of_one_module(kind: str) -> None:
    module = ours(kind).float().double()
    before = flat(module(draw(4, 2, 3)))
    assert module.float()(draw(4, 2, 3).float())[0].dtype is torch.float32
    assert ft.last_path() == "kernel"
    same(flat(module.double()(draw(4, 2, 3))), before)  # the weights are those of float32


def test_what_torch_does_reads_them_too() -> None:
    """A parametrized weight counts where torch stands in."""
    found = []
    for module in pair("gru"):
        weight_norm(module.bfloat16())
        with torch.no_grad():
            module(draw(4, 2, 3).bfloat16())
            module.parametrizations.weight_hh_l0.original0.mul_(2)
        found.append(run(module, draw(4, 2, 3).bfloat16()))
    assert ft.last_path() == "torch: dtype is torch.bfloat16"
    same(*found)


@each_cell_kind
def test_averaged_weights(kind: str) -> None:
    """torch.optim.swa_utils copies the module, and copies weights into it."""
    found = []
    for module in pair(kind):
        average = torch.optim.swa_utils.AveragedModel(module)
        average.update_parameters(module)
        with torch.no_grad():
            module.weight_ih_l0.mul_(3)
        average.update_parameters(module)
        found.append(flat(average(draw(4, 2, 3))))
    assert ft.last_path() == "kernel"
    close(*found)


@each_cell_kind
def test_a_copy_has_weights_of_its_own(kind: str) -> None:
    module = ours(kind)
    twin = copy.deepcopy(module)
    before = flat(module(draw(4, 2, 3)))
    twin.weight_hh_l0.data.zero_()
    same(flat(module(draw(4, 2, 3))), before)
    assert (twin(draw(4, 2, 3))[0] != before[0]).any()
