"""accelerate and restore: what they swap, what they leave, and what stays as it was."""

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import parametrizations  # noqa: E402
from torch_networks import (  # noqa: E402
    CELL_KINDS,
    CLOSE,
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
    options_of,
    pair,
    same,
)  # fmt: skip


def everything() -> Any:
    """A model with every layer and every Cell, in each way that modules are held."""
    model = nn.Module()
    model.layers = nn.ModuleDict(
        {kind: layer_class(kind, nn)(3, 4, **options_of(kind, 4)) for kind in KINDS}
    )
    model.cells = nn.ModuleList(
        nn.Sequential(cell_class(kind, nn)(3, 4, **options_of(kind, 4))) for kind in CELL_KINDS
    )
    model.other = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    return model.double()


def test_every_module_and_back() -> None:
    model = everything()
    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    classes = {name: type(module) for name, module in modules.items()}
    report = ft.accelerate(model)
    assert report.left == {}
    assert set(report.swapped) == {f"layers.{kind}" for kind in KINDS} | {
        f"cells.{i}.0" for i in range(len(CELL_KINDS))
    }
    for name, module in model.named_modules():
        assert module is modules[name]
        if name in report.swapped:
            assert report.swapped[name] == f"fastrnn.torch.{type(module).__name__}"
            assert type(module) is getattr(ft, classes[name].__name__)
            assert f"{name}: {report.swapped[name]}" in str(report).splitlines()
            flat(module(draw(2, 2, 3) if name.startswith("layers") else draw(2, 3)))
            assert ft.last_path() == "kernel"
        else:
            assert type(module) is classes[name]
    assert all(p is parameters[name] for name, p in model.named_parameters())
    back = ft.restore(model)
    assert back.left == {}
    assert set(back.swapped) == set(report.swapped)
    assert all(kind.startswith("torch.nn.") for kind in back.swapped.values())
    assert {name: type(module) for name, module in model.named_modules()} == classes


@each_kind
def test_the_model_itself(kind: str) -> None:
    theirs, _ = pair(kind)
    want = flat(theirs(draw(4, 2, 3)))
    report = ft.accelerate(theirs)
    assert report.swapped == {"": f"fastrnn.torch.{type(theirs).__name__}"}
    assert str(report).startswith("the model: fastrnn.torch.")
    got = flat(theirs(draw(4, 2, 3)))
    assert ft.last_path() == "kernel"
    close(got, want)


def test_nothing_to_swap() -> None:
    report = ft.accelerate(nn.Linear(2, 3))
    assert report == ft.Report({}, {})
    assert str(report) == "there is no recurrent module to swap"


@pytest.mark.parametrize("what", [None, 3, "model", nn.LSTM, [nn.Linear(2, 2)]], ids=str)
def test_what_is_no_module(what: Any) -> None:
    for function in (ft.accelerate, ft.restore):
        with pytest.raises(TypeError, match="expected a torch"):
            function(what)


def test_twice_is_harmless() -> None:
    model = everything()
    first = ft.accelerate(model)
    classes = [type(m) for m in model.modules()]
    again = ft.accelerate(model)
    assert again.swapped == {}
    assert again.left == {name: f"it is {kind} already" for name, kind in first.swapped.items()}
    assert [type(m) for m in model.modules()] == classes
    assert set(ft.restore(model).swapped) == set(first.swapped)
    assert ft.restore(model) == ft.Report({}, {})


@each_cell_kind
def test_a_module_that_two_share(kind: str) -> None:
    shared = layer_class(kind, nn)(3, 3, **options_of(kind, 3)).double()
    model = nn.ModuleDict({"a": shared, "b": nn.ModuleList([shared])})
    report = ft.accelerate(model)
    assert list(report.swapped) == ["a"]
    assert model["a"] is model["b"][0]
    assert type(model["b"][0]) is layer_class(kind)
    ft.restore(model)
    assert type(model["b"][0]) is layer_class(kind, nn)


@each_kind
def test_hooks_mode_and_attributes_stay(kind: str) -> None:
    theirs, _ = pair(kind, layers=2, dropout=0.5)
    theirs.eval()
    theirs.note = "of somebody"
    seen: list[str] = []
    theirs.register_forward_hook(lambda *_: seen.append("forward"))
    theirs.register_full_backward_hook(lambda *_: seen.append("backward"))
    text = repr(theirs)
    for change in (ft.accelerate, ft.restore):
        change(theirs)
        seen.clear()
        x = draw(4, 2, 3).requires_grad_()
        theirs(x)[0].sum().backward()
        assert seen == ["forward", "backward"]
        assert theirs.note == "of somebody"
        assert not theirs.training
        assert repr(theirs) == text


@each_kind
def test_parametrized_modules(kind: str) -> None:
    theirs, _ = pair(kind, layers=2)
    parametrizations.weight_norm(theirs, "weight_hh_l0")
    parametrizations.orthogonal(theirs, "weight_hh_l1", orthogonal_map="cayley")
    want = flat(theirs(draw(4, 2, 3)))
    names = list(theirs.state_dict())
    report = ft.accelerate(theirs)
    assert list(report.swapped) == [""]
    assert isinstance(theirs, layer_class(kind))
    assert nn.utils.parametrize.is_parametrized(theirs, "weight_hh_l0")
    close(flat(theirs(draw(4, 2, 3))), want)
    assert ft.last_path() == "kernel"
    assert list(theirs.state_dict()) == names
    with torch.no_grad():
        theirs.parametrizations.weight_hh_l0.original0.mul_(2)
    got = flat(theirs(draw(4, 2, 3)))
    assert (got[0] - want[0]).abs().max() > 1e-6
    ft.restore(theirs)
    assert isinstance(theirs, layer_class(kind, nn))
    close(flat(theirs(draw(4, 2, 3))), got)
    ft.accelerate(theirs)
    nn.utils.parametrize.remove_parametrizations(theirs, "weight_hh_l0")
    nn.utils.parametrize.remove_parametrizations(theirs, "weight_hh_l1")
    assert type(theirs) is layer_class(kind)
    close(flat(theirs(draw(4, 2, 3))), got)


@each_kind
def test_an_optimiser_made_before(kind: str) -> None:
    found = []
    for accelerated in (False, True):
        theirs, _ = pair(kind, layers=2)
        head = nn.Linear(options_of(kind, 5).get("proj_size", 5), 2).double()
        with torch.no_grad():
            head.weight.fill_(0.1)
            head.bias.zero_()
        model = nn.ModuleList([theirs, head])
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        losses = []
        for step in range(6):
            if step == 2 and accelerated:
                ft.accelerate(model)
            if step == 4:
                ft.restore(model)
            optimiser.zero_grad()
            loss = head(theirs(draw(4, 2, 3, seed=step))[0]).square().mean()
            loss.backward()
            if accelerated and step in (2, 3):
                assert ft.last_path() == "kernel"
            optimiser.step()
            losses.append(loss.detach())
        found.append(torch.stack(losses))
    close(*found)
    assert found[0][0] != found[0][-1]


# ------------------------------------------------------------------------------ what is left


def subclass(kind: str) -> Any:
    cls = layer_class(kind, nn)
    return type("Own" + cls.__name__, (cls,), {})(3, 4, **options_of(kind, 4))


@each_kind
def test_a_subclass_is_left(kind: str) -> None:
    module = subclass(kind)
    model = nn.ModuleDict({"own": module})
    report = ft.accelerate(model)
    assert report.swapped == {}
    name = layer_class(kind).__name__
    assert report.left == {
        "own": f"Own{name} is a subclass of torch.nn.{name} with ways of its own"
    }
    assert str(report) == f"own: left, {report.left['own']}"
    assert type(module).__name__ == f"Own{name}"


@each_kind
def test_a_replaced_forward_is_left(kind: str) -> None:
    module = layer_class(kind, nn)(3, 4, **options_of(kind, 4))
    module.forward = lambda *_: "replaced"
    report = ft.accelerate(module)
    assert report == ft.Report({}, {"": "its forward was replaced"})
    assert module(1) == "replaced"
    assert str(report) == "the model: left, its forward was replaced"


@each_cell_kind
def test_a_namesake_of_elsewhere_is_left(kind: str) -> None:
    name = layer_class(kind).__name__
    module = type(name, (nn.Module,), {"__module__": "elsewhere"})()
    report = ft.accelerate(module)
    assert report.left == {"": f"elsewhere.{name} is not torch.nn.{name}"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_scripted_is_left() -> None:
    model = nn.ModuleDict({"scripted": torch.jit.script(nn.LSTM(3, 4))})
    report = ft.accelerate(model)
    assert report.swapped == {}
    assert list(report.left) == ["scripted"]


def test_a_copy_may_be_swapped_alone() -> None:
    model = everything()
    twin = copy.deepcopy(model)
    ft.accelerate(twin)
    assert not any(type(m).__module__.startswith("fastrnn") for m in model.modules())
    again = copy.deepcopy(twin)
    assert [type(m) for m in again.modules()] == [type(m) for m in twin.modules()]


# ------------------------------------------------------------------------------ whole models


class Tagger(nn.Module):
    """Words to tags, by a recurrent layer in both directions."""

    def __init__(self, kind: str, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.embedding = nn.Embedding(20, 3)
        self.layer = layer_class(kind, nn)(
            3, 6, 2, bidirectional=True, batch_first=True, **options_of(kind, 6)
        )
        self.head = nn.Linear(2 * options_of(kind, 6).get("proj_size", 6), 4)

    def forward(self, words: Any) -> Any:
        x = self.embedding(words)
        if not self.packed:
            return self.head(self.layer(x)[0])
        lengths = torch.tensor([7, 2, 5])
        x = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.layer(x)[0], True)[0])


@each_kind
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_losses_before_and_after(kind: str, packed: bool) -> None:
    torch.manual_seed(0)
    model = Tagger(kind, packed).double()
    twin = copy.deepcopy(model)
    ft.accelerate(twin)
    words = torch.randint(0, 20, (3, 7))
    tags = torch.randint(0, 4, (3, 7))
    losses = []
    for each in (model, twin):
        optimiser = torch.optim.SGD(each.parameters(), 0.5)
        for _ in range(10):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(each(words).flatten(0, 1), tags.flatten())
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    assert ft.last_path() == "kernel"
    # Ten steps of training, each from weights that differ by what the last ones did.
    close(torch.stack(losses[:10]), torch.stack(losses[10:]), 10 * CLOSE)
    assert losses[9] < losses[0]


@each_cell_kind
def test_states_saved_before_and_after(kind: str) -> None:
    theirs, _ = cell_pair(kind)
    state = {name: t.clone() for name, t in theirs.state_dict().items()}
    ft.accelerate(theirs)
    same(dict(theirs.state_dict()), state)
    theirs.load_state_dict(state)
