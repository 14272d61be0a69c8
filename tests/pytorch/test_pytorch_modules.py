"""The modules as objects: constructors, copies, files, threads."""

import copy
import io
import pickle
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grids import grid  # noqa: E402
from torch_networks import (  # noqa: E402
    CELL_KINDS,
    KINDS,
    cell_class,
    cell_pair,
    draw,
    each_cell_kind,
    each_kind,
    flat,
    ft,
    layer_class,
    nn,
    options_of,
    ours,
    pair,
    rnn,
    run,
    same,
)  # fmt: skip

import fastrnn  # noqa: E402
from fastrnn import _core  # noqa: E402

# ------------------------------------------------------------------------------ constructors

OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    ((), {}), ((2,), {}), ((), {"num_layers": 3, "bidirectional": True}), ((), {"bias": False}),
    ((), {"batch_first": True}), ((2,), {"dropout": 0.25}), ((), {"dtype": torch.float64}),
    ((), {"device": "cpu"}), ((), {"device": "meta"}),
]  # fmt: skip


@grid("kind, given", KINDS, OPTIONS, ids=str)
def test_a_layer_is_made_as_torchs(kind: str, given: Any) -> None:
    """repr, parameters, their first values, types and devices."""
    made = []
    for module in (nn, ft):
        torch.manual_seed(7)
        arguments, options = given
        made.append(layer_class(kind, module)(3, 5, *arguments, **options_of(kind, 5), **options))
    theirs, mine = made
    assert repr(mine) == repr(theirs)
    assert vars(mine).keys() == vars(theirs).keys()
    assert [name for name, _ in mine.named_parameters()] == list(theirs.state_dict())
    assert isinstance(mine, nn.RNNBase)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert (p.dtype, p.device, p.shape) == (q.dtype, q.device, q.shape)
        if p.device.type != "meta":
            same(p, q)


def test_nonlinearity_by_position() -> None:
    made = [layer_class("relu", module)(3, 5, 2, "relu", False, True) for module in (nn, ft)]
    assert repr(made[0]) == repr(made[1])
    assert made[1].mode == made[0].mode == "RNN_RELU"
    assert (made[1].bias, made[1].batch_first) == (False, True)
    assert "relu" in repr(cell_class("relu")(3, 5, True, "relu"))


@each_cell_kind
def test_a_cell_is_made_as_torchs(kind: str) -> None:
    for options in ({}, {"bias": False}, {"dtype": torch.float64}, {"device": "meta"}):
        made = []
        for module in (nn, ft):
            torch.manual_seed(7)
            made.append(cell_class(kind, module)(3, 5, **options_of(kind, 5), **options))
        theirs, mine = made
        assert repr(mine) == repr(theirs)
        assert list(mine.state_dict()) == list(theirs.state_dict())
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert (p.dtype, p.device, p.shape) == (q.dtype, q.device, q.shape)


@each_kind
def test_default_type(kind: str) -> None:
    torch.set_default_dtype(torch.float64)
    module = layer_class(kind)(3, 5, **options_of(kind, 5))
    assert module(draw(4, 2, 3))[0].dtype is torch.float64
    assert ft.last_path() == "kernel"


def test_default_device() -> None:
    """A default of another device is not where results of the kernels go."""
    module = ours("lstm", layers=3, dropout=0.5)
    x = draw(4, 2, 3)
    with torch.device("meta"):
        output, _ = module(x)
        assert layer_class("lstm")(3, 5).weight_ih_l0.device.type == "meta"
    assert output.device.type == "cpu"
    assert ft.last_path() == "kernel"


@each_kind
def test_materialised_from_meta(kind: str) -> None:
    theirs, mine = pair(kind, device="meta"), ours(kind)
    module = theirs[1].to_empty(device="cpu")
    module.load_state_dict(mine.state_dict())
    same(flat(module(draw(4, 2, 3))), flat(mine(draw(4, 2, 3))))
    module = ours(kind, device="meta")
    module.load_state_dict(mine.state_dict(), assign=True)
    same(flat(module(draw(4, 2, 3))), flat(mine(draw(4, 2, 3))))
    assert ft.last_path() == "kernel"


# ------------------------------------------------------------------------------ copies and files


def pickled(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))


def saved(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_state(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(module)
    for p in twin.parameters():
        p.data.zero_()
    twin.load_state_dict(torch.load(file))
    return twin


@grid("kind, way, used", KINDS, (copy.deepcopy, copy.copy, pickled, saved, by_state), (True, False))
def test_copies(kind: str, way: Any, used: bool) -> None:
    module = ours(kind, layers=2, bidirectional=True, dropout=0.5).eval()
    if used:
        module(draw(4, 2, 3))[0].sum().backward()
    twin = way(module)
    assert type(twin) is type(module)
    assert repr(twin) == repr(module)
    assert not twin.training
    same(run(twin, draw(4, 2, 3)), run(module, draw(4, 2, 3)))
    assert ft.last_path() == "kernel"


@grid("kind, way", CELL_KINDS, (copy.deepcopy, pickled, saved, by_state))
def test_copies_of_cells(kind: str, way: Any) -> None:
    _, cell = cell_pair(kind)
    twin = way(cell)
    assert type(twin) is type(cell)
    same(run(twin, draw(2, 3)), run(cell, draw(2, 3)))
    assert ft.last_path() == "kernel"


@each_kind
def test_states_go_both_ways(kind: str) -> None:
    theirs, mine = pair(kind, layers=2)
    theirs.load_state_dict({k: v + 1 for k, v in mine.state_dict().items()})
    mine.load_state_dict(theirs.state_dict())
    same(dict(mine.state_dict()), dict(theirs.state_dict()))


def test_results_are_saved_as_plain_tensors() -> None:
    """Also packed output, whose data is of a class of our own while autograd runs."""
    packed = rnn.pack_padded_sequence(draw(4, 2, 3), torch.tensor([4, 2]))
    data = ours("gru")(packed)[0].data
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    again = torch.load(file)  # weights_only, which takes no classes of others
    assert type(again) is torch.Tensor
    same(again, data.detach())
    assert type(pickled(data)) is torch.Tensor
    with pytest.raises(RuntimeError, match="deepcopy"):  # as of every tensor that is no leaf
        copy.deepcopy(data)


@each_cell_kind
def test_shared_memory(kind: str) -> None:
    module = ours(kind)
    want = flat(module(draw(4, 2, 3)))
    module.share_memory()
    assert all(p.is_shared() for p in module.parameters())
    same(flat(module(draw(4, 2, 3))), want)
    assert ft.last_path() == "kernel"


# ------------------------------------------------------------------------------ threads


@each_cell_kind
def test_torchs_number_of_threads_is_what_counts(kind: str) -> None:
    module = ours(kind, D=64, H=128, dtype=torch.float32)
    x = draw(20, 64, 64, dtype=torch.float32)
    found = []
    fastrnn.set_num_threads(1)  # says nothing here
    for threads in (1, 2):
        torch.set_num_threads(threads)
        module(x)
        assert ft.last_path() == "kernel"
        assert _core.last_plan()["threads"] == threads
        found.append(run(module, x))
    assert fastrnn.get_num_threads() == 1
    same(*found)


@each_kind
@pytest.mark.parametrize("lengths", [None, (9, 3, 20, 1, 7) * 8], ids=["padded", "packed"])
def test_the_same_bits_for_one_thread_and_two(kind: str, lengths: Any) -> None:
    module = ours(kind, D=24, H=40, layers=2, bidirectional=True, dtype=torch.float32)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(run(module, draw(20, 40, 24, dtype=torch.float32), None, lengths))
    same(*found)


@each_cell_kind
def test_two_python_threads_at_once(kind: str) -> None:
    """Forward and backward of the same module in both; each has its results and its last_path."""
    module = ours(kind, layers=2)
    odd = ours(kind, dtype=torch.bfloat16)
    inputs = [draw(6, 3, 3, seed=i) for i in range(2)]
    want = [run(module, x) for x in inputs]
    wrong: list[Any] = []
    start = threading.Barrier(2)

    def work(i: int) -> None:
        try:
            start.wait(30)
            for _ in range(20):
                same(run(module, inputs[i]), want[i])
                assert ft.last_path() == "kernel"
                if i:
                    odd(draw(2, 2, 3).bfloat16())
                    assert ft.last_path() == "torch: dtype is torch.bfloat16"
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@each_cell_kind
def test_backward_in_another_thread(kind: str) -> None:
    module = ours(kind)
    x = draw(4, 2, 3).requires_grad_()
    want = torch.autograd.grad(module(x)[0].sum(), x)
    loss = module(x)[0].sum()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(torch.autograd.grad(loss, x)))
    thread.start()
    thread.join()
    same(found[0], want)
