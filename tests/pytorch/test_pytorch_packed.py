"""Packed sequences in and out, and the sizes by which what comes out is padded."""

import copy
import io
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grids import grid  # noqa: E402
from torch_networks import (  # noqa: E402
    CELL_KINDS,
    KINDS,
    close,
    draw,
    each_cell_kind,
    each_kind,
    ft,
    ours,
    pair,
    rnn,
    same,
)  # fmt: skip

from fastrnn.torch.packed import Sizes  # noqa: E402

LENGTHS = {"sorted": (5, 5, 3, 1), "unsorted": (2, 5, 1, 3)}


def packed(order: str, batch_first: bool = False, requires_grad: bool = False) -> Any:
    x = draw(4, 5, 3) if batch_first else draw(5, 4, 3)
    return rnn.pack_padded_sequence(
        x.requires_grad_(requires_grad), torch.tensor(LENGTHS[order]), batch_first,
        enforce_sorted=order == "sorted",
    )  # fmt: skip


def as_torchs(sequence: Any) -> Any:
    """The same numbers as torch's own tensor, under autograd."""
    return sequence._replace(
        data=sequence.data.detach().clone().requires_grad_(),
        batch_sizes=sequence.batch_sizes.as_subclass(torch.Tensor),
    )


@grid(
    "kind, order, batch_first, value, total",
    CELL_KINDS, LENGTHS, (False, True), (0.0, -2.5), (None, 5, 9),
)  # fmt: skip
def test_padding_is_torchs(
    kind: str, order: str, batch_first: bool, value: float, total: int | None
) -> None:
    """To the bit, in shape and lengths; and so are the gradients that go back."""
    output, _ = ours(kind)(packed(order))
    assert type(output.data) is torch.Tensor
    assert type(output.batch_sizes) is Sizes
    theirs = as_torchs(output)
    want = rnn.pad_packed_sequence(theirs, batch_first, value, total)
    got = rnn.pad_packed_sequence(output, batch_first, value, total)
    assert got[0].shape == want[0].shape
    assert type(got[0]) is torch.Tensor
    same(got, want)
    upstream = draw(*want[0].shape, seed=8)
    same(
        torch.autograd.grad(got[0], output.data, upstream),
        torch.autograd.grad(want[0], theirs.data, upstream),
    )


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("order", LENGTHS)
def test_derivatives_of_padding(order: str, batch_first: bool) -> None:
    sequence = packed(order)

    def function(data: Any) -> Any:
        sizes = sequence.batch_sizes.as_subclass(Sizes)
        rows = sequence._replace(data=data * 1, batch_sizes=sizes)
        return rnn.pad_packed_sequence(rows, batch_first, 0.5, 7)[0].sin()

    data = draw(*sequence.data.shape).requires_grad_()
    assert torch.autograd.gradcheck(function, data)
    assert torch.autograd.gradcheck(function, data, check_batched_grad=True, fast_mode=False)
    assert torch.autograd.gradgradcheck(function, data)


@each_cell_kind
def test_negated_gradients_of_padding(kind: str) -> None:
    found = []
    for module in pair(kind):
        output, _ = module(packed("unsorted"))
        padded, _ = rnn.pad_packed_sequence(output)
        d = torch.complex(torch.zeros_like(padded), draw(*padded.shape)).conj().imag
        found.append(torch.autograd.grad(padded, list(module.parameters()), d))
    close(*found)


def test_sizes_are_an_ordinary_tensor_but_for_padding() -> None:
    output, _ = ours("gru")(packed("sorted"))
    data, sizes = output.data, output.batch_sizes
    assert type(data) is torch.Tensor
    assert not data._is_view()
    want = torch.tensor([4, 3, 3, 2, 2])
    assert torch.equal(sizes, want)
    assert sizes.tolist() == want.tolist()
    assert str(sizes.numpy()) == str(want.numpy())
    for made in (sizes + 1, sizes[1:], sizes.clone(), sizes.cumsum(0), torch.cat([sizes, want])):
        assert type(made) is torch.Tensor
    file = io.BytesIO()
    torch.save({"data": data.detach(), "sizes": sizes}, file)
    file.seek(0)
    read = torch.load(file)["sizes"]
    assert type(read) is torch.Tensor
    assert torch.equal(read, want)
    assert torch.equal(copy.deepcopy(sizes), want)
    assert torch.equal(pickle.loads(pickle.dumps(sizes)), want)


def test_what_comes_out_may_be_changed_in_place() -> None:
    found = []
    for module in pair("gru"):
        output, _ = module(packed("unsorted"))
        output.data.mul_(2)
        found.append(torch.autograd.grad(output.data.sin().sum(), list(module.parameters())))
    close(*found)


@pytest.mark.parametrize("sizes", [[3, 1, 2], [2, 2], [4, 4], [], [6, 1]])
def test_sizes_that_do_not_fit_are_left_to_torch(sizes: list[int]) -> None:
    sequence = rnn.PackedSequence(draw(6, 3), torch.tensor(sizes, dtype=torch.int64))
    found: list[Any] = []
    for module in pair("gru"):
        try:
            found.append(module(sequence)[0].data.tolist())
        except Exception as error:
            found.append((type(error), str(error)))
    assert found[0] == found[1]
    assert ft.last_path().startswith("torch: ")


@each_cell_kind
def test_without_autograd_the_sizes_are_those_that_came(kind: str) -> None:
    with torch.no_grad():
        given = packed("sorted")
        assert ours(kind)(given)[0].batch_sizes is given.batch_sizes


@grid("kind, order, between", KINDS, LENGTHS, ("nothing", "relu", "padding"))
def test_a_second_module_behind_the_first(kind: str, order: str, between: str) -> None:
    found = []
    first, second = pair(kind), pair(kind, options_width(kind))
    for one, two in zip(first, second, strict=True):
        output, _ = one(packed(order))
        if between == "relu":
            output = output._replace(data=output.data.relu())
        elif between == "padding":
            padded, lengths = rnn.pad_packed_sequence(output)
            output = rnn.pack_padded_sequence(padded, lengths, enforce_sorted=False)
        output, state = two(output)
        assert ft.last_path() in ("kernel", "")
        loss = output.data.sin().sum() + sum(s.sum() for s in as_tuple(state))
        found.append(torch.autograd.grad(loss, [*one.parameters(), *two.parameters()]))
    assert ft.last_path() == "kernel"
    close(*found)


def options_width(kind: str) -> int:
    """Of what a module of five units puts out."""
    return int(ours(kind)(draw(1, 1, 3))[0].shape[2])


def as_tuple(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


@each_kind
def test_orders_of_sequences(kind: str) -> None:
    """What comes out knows the order; the states have it too."""
    theirs, mine = pair(kind, layers=2)
    for order in LENGTHS:
        (a, s), (b, t) = theirs(packed(order)), mine(packed(order))
        assert b.sorted_indices is None if a.sorted_indices is None else True
        for x, y in zip(a[1:], b[1:], strict=True):
            assert (x is None) == (y is None)
            if x is not None:
                same(x, y)
        close(as_tuple(t), as_tuple(s))


@each_cell_kind
def test_unpacked_and_packed_by_other_ways(kind: str) -> None:
    theirs, mine = pair(kind)
    sequences = [draw(n, 3, seed=n) for n in (2, 5, 1)]
    found = []
    for module in (theirs, mine):
        output, _ = module(rnn.pack_sequence(sequences, enforce_sorted=False))
        found.append(tuple(rnn.unpack_sequence(output)))
    assert ft.last_path() == "kernel"
    close(*found)


@each_cell_kind
def test_packed_in_another_type_and_place(kind: str) -> None:
    output, _ = ours(kind)(packed("unsorted"))
    assert output.to(torch.float32).data.dtype is torch.float32
    assert output.cpu().data is output.data
    assert output.to("meta").data.device.type == "meta"
    assert not output.is_cuda
