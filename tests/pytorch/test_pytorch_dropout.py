"""Dropout between layers: of one seed torch's module and ours drop the same."""

import pytest

torch = pytest.importorskip("torch")

from grids import grid  # noqa: E402
from torch_networks import KINDS, close, draw, each_kind, ft, ours, pair, run, same  # noqa: E402

LENGTHS = {"padded": None, "sorted": (4, 4, 3, 1), "unsorted": (2, 4, 1, 3)}


@grid(
    "kind, form, batch_first, bidirectional, p",
    KINDS, (*LENGTHS, "unbatched"), (False, True), (False, True), (0.3, 1.0),
)  # fmt: skip
def test_of_one_seed(
    kind: str, form: str, batch_first: bool, bidirectional: bool, p: float
) -> None:
    found = []
    options = {"batch_first": batch_first, "bidirectional": bidirectional}
    for module in pair(kind, 3, 20, 3, dropout=p, **options):
        torch.manual_seed(5)
        x = draw(4, 3) if form == "unbatched" else draw(4, 4, 3)
        found.append(run(module, x, None, LENGTHS.get(form)))
        found.append(torch.get_rng_state())
    assert ft.last_path() == "kernel"
    close(found[2], found[0])
    same(found[3], found[1])  # as many numbers were drawn


@each_kind
def test_it_drops(kind: str) -> None:
    module = ours(kind, 3, 20, 2, dropout=0.5)
    first, second = (module(draw(4, 2, 3))[0] for _ in range(2))
    assert (first != second).any()
    module.eval()
    still = module(draw(4, 2, 3))[0]
    same(module(draw(4, 2, 3))[0], still)
    twin = ours(kind, 3, 20, 2)
    same(twin(draw(4, 2, 3))[0], still)


@each_kind
def test_a_single_layer_draws_nothing(kind: str) -> None:
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        module = ours(kind, dropout=0.5)
    before = torch.get_rng_state()
    module(draw(4, 2, 3))
    same(torch.get_rng_state(), before)


@each_kind
def test_p_is_read_at_each_call(kind: str) -> None:
    found = []
    for module in pair(kind, 3, 20, 2, dropout=0.5):
        module.dropout = 0.9
        torch.manual_seed(5)
        found.append(run(module, draw(4, 2, 3)))
        module.dropout = 0.0
        found.append(run(module, draw(4, 2, 3)))
    close(found[2], found[0])
    close(found[3], found[1])
