"""Frozen output layers and embeddings: the layer's bits; few rows have those of many."""

import functools
import itertools
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bit_checks import assert_same
from grids import grid
from memory_layouts import LAYOUTS

import fastrnn
from fastrnn import Embedding, Linear, _core

ISAS = tuple(fastrnn.available_isas())
DTYPES = ("float32", "float64")
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
# Around the rows of a tile, and around the most that have the weight packed panel by panel.
ROWS = (0, 1, 2, 3, 6, 7, 12, 13, 24, 25)
# Several panels, the last of which is narrow; whether two, three or more threads share them evenly.
WIDE = ((1, 5, 257), (2, 40, 130), (5, 130, 40), (1, 700, 257), (24, 65, 300), (25, 300, 65))


def random(*shape: int, dtype: str) -> Any:
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


def drawn(N: int, D: int, O: int, dtype: str, bias: bool) -> tuple[Any, Linear]:
    return random(N, D, dtype=dtype), Linear(D, O, bias, dtype=dtype, rng=[N, D, O])


@functools.cache
def among_many(N: int, D: int, O: int, dtype: str, bias: bool) -> tuple[Any, Any]:
    """output and d_x on one thread, among so many rows that the whole weight is packed before."""
    x, layer = drawn(N, D, O, dtype, bias)
    fastrnn.set_num_threads(1)
    fastrnn.set_isa(PROMISED[0])
    many, d_many = np.zeros((1100, D), dtype), np.zeros((1100, O), dtype)
    many[7 : 7 + N], d_many[7 : 7 + N] = x, random(N, O, dtype=dtype)
    output, tape = layer.forward(many)
    return output[7 : 7 + N], layer.backward(tape, d_many, wrt=["x"]).x[7 : 7 + N]


def compare(N: int, D: int, O: int, dtype: str, isa: str, threads: int) -> None:
    bias = (N + D) % 2 == 0
    expected = among_many(N, D, O, dtype, bias) if isa in PROMISED else None
    x, layer = drawn(N, D, O, dtype, bias)
    fastrnn.set_isa(isa)
    fastrnn.set_num_threads(threads)
    what = f"{N} rows of {D} to {O}, {threads} threads"
    y, tape = layer.forward(x)
    d_x = layer.backward(tape, random(N, O, dtype=dtype), wrt=["x"]).x
    if expected is not None:
        assert_same(y, expected[0], f"output of {what}")
        assert_same(d_x, expected[1], f"d_x of {what}")
    assert_same(layer.freeze()(x), y, f"frozen output of {what}")


@grid("dtype, isa", DTYPES, ISAS)
def test_few_rows_have_the_bits_of_many(dtype: str, isa: str) -> None:
    for i, (D, O) in enumerate(itertools.product(SIZES, SIZES)):
        compare(ROWS[i % len(ROWS)], D, O, dtype, isa, 1 + i % 3)


@grid("dtype, isa, threads", DTYPES, ISAS, (1, 2, 3))
def test_threads_share_outputs_of_few_rows(dtype: str, isa: str, threads: int) -> None:
    for sizes in WIDE:
        before = _core.teams_run()
        compare(*sizes, dtype, isa, threads)
        teams = 0 if threads == 1 or not _core.build_info()["openmp"] else 3
        assert _core.teams_run() >= before + teams, sizes


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_rows_at_any_stride(layout: Any) -> None:
    for N in (1, 2, 40):
        x, layer = drawn(N, 33, 100, "float32", True)
        expected = layer(x)
        assert_same(layer.freeze()(layout(x)), expected, "frozen output")
        assert_same(layer(layout(x)), expected, "output")


def test_a_frozen_layer_keeps_its_weights() -> None:
    x, layer = drawn(3, 4, 5, "float32", True)
    expected, frozen = layer(x), layer.freeze()
    layer.flat_weights[...] = np.nan
    for one in (frozen, pickle.loads(pickle.dumps(frozen))):
        assert_same(one(x), expected, "output")
        assert_same(one(x[0]), expected[0], "output of one position")
        assert one(x.reshape(3, 1, 4)).shape == (3, 1, 5)
        assert one(x[:0]).shape == (0, 5)
    assert (frozen.in_features, frozen.out_features, frozen.bias) == (4, 5, True)
    assert frozen.precision == "float32"
    assert frozen.nbytes >= 2 * layer.flat_weights.nbytes
    with pytest.raises(AttributeError, match="does not change"):
        frozen.in_features = 3
    for wrong in (x.astype(np.float64), x[:, :3], 1.0):
        with pytest.raises((TypeError, ValueError)) as of_layer:
            layer(wrong)  # type: ignore[arg-type]
        with pytest.raises(type(of_layer.value)) as of_frozen:
            frozen(wrong)  # type: ignore[arg-type]
        assert str(of_frozen.value) == str(of_layer.value)


def test_a_frozen_embedding() -> None:
    words = Embedding(10, 3, padding_idx=2, rng=0)
    expected, frozen = words([[1, 2], [9, 0]]), words.freeze()
    words.flat_weights[...] = np.nan
    for one in (frozen, pickle.loads(pickle.dumps(frozen))):
        assert_same(one([[1, 2], [9, 0]]), expected, "vectors")
    assert (frozen.num_embeddings, frozen.embedding_dim, frozen.padding_idx) == (10, 3, 2)
    assert frozen.nbytes == words.flat_weights.nbytes
    with pytest.raises(ValueError, match="10"):
        frozen([10])


def test_a_frozen_tied_layer_has_the_embedding_as_it_was() -> None:
    words = Embedding(10, 4, rng=0)
    head = Linear.tied(words, rng=1)
    x = random(3, 4, dtype="float32")
    expected, frozen = head(x), head.freeze()
    words.flat_weights[...] = np.nan
    for one in (frozen, pickle.loads(pickle.dumps(frozen))):
        assert_same(one(x), expected, "output")


def test_a_frozen_layer_under_the_reference_backend() -> None:
    x, layer = drawn(3, 4, 5, "float64", True)
    with fastrnn.backend("reference"):
        assert_same(layer.freeze()(x), layer(x), "output")


def test_threads_share_a_frozen_layer_while_the_instruction_set_changes() -> None:
    x, layer = drawn(4, 33, 100, "float32", True)
    frozen, made = layer.freeze(), {}
    for isa in ISAS:
        fastrnn.set_isa(isa)
        made[frozen(x).tobytes()] = isa
    wrong = []

    def calls() -> None:
        for _ in range(300):
            if frozen(x).tobytes() not in made:
                wrong.append(1)

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for isa in ISAS:
            fastrnn.set_isa(isa)
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_binding_refuses_what_does_not_fit() -> None:
    w, b = random(5, 4, dtype="float32"), random(5, dtype="float32")
    packed, x, y = _core.PackedLinear(w, b), random(3, 4, dtype="float32"), np.empty((3, 5), "f4")
    for arguments in ((w, b[:4]), (w.astype("f8"), b), (w.T, None), (b, None), (w.astype("i4"), b)):
        with pytest.raises(ValueError, match="while it was in use"):
            _core.PackedLinear(*arguments)
    with pytest.raises(ValueError, match="while it was in use"):
        packed.__init__(w, b)  # type: ignore[misc]
    empty = _core.PackedLinear.__new__(_core.PackedLinear)
    assert empty.nbytes == 0
    for arguments in (
        (packed, x[:, :3], y), (packed, x, y[:2]), (packed, x.astype("f8"), y), (empty, x, y),
        (packed, x, y.astype("f8")),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="while it was in use"):
            _core.packed_linear_forward(*arguments, 1)
