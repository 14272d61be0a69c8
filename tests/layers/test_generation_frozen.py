"""generate and generate_iter of frozen parts, and of some: the same indices and states."""

from typing import Any

import numpy as np
import pytest
from generation_networks import DTYPES, ISAS, initial, network, network_of
from grids import grid
from registry import VARIANTS
from stream_layers import assert_same_state

import fastrnn
from fastrnn import _core, reference

each_kind_isa = grid("kind, dtype, isa", VARIANTS, DTYPES, ISAS, once=True, enough=True)


def mixed(net: Any, which: int) -> list[Any]:
    """The network, of which some parts are frozen: those whose bits are set."""
    return [layer.freeze() if which >> i & 1 else layer for i, layer in enumerate(net)]


@each_kind_isa
@pytest.mark.quick
def test_the_same_indices_and_states(kind: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    for k, (V, D, H, layers) in enumerate(((3, 2, 5, 2), (17, 8, 33, 1), (100, 5, 9, 3))):
        net = network_of(kind, V, D, H, layers, dtype)
        before, prompt = (None, initial(net[1]))[k % 2], [1, 0, 2][: k + 1]
        several: Any = [[1], [2, 0], [0], [1, 1, 1]]
        want, after = fastrnn.generate(*net, prompt, 12, before, rng=7)
        many, afterwards = fastrnn.generate(*net, several, 12, rng=7)
        for which in (7, 1 << k, 7 - (1 << k)):
            parts = mixed(net, which)
            got, final = fastrnn.generate(*parts, prompt, 12, before, rng=7)
            assert got.tolist() == want.tolist()
            assert_same_state(final, after, kind)
            written = fastrnn.generate_iter(*parts, prompt, 12, before, rng=7)
            assert list(written) == want.tolist()
            assert_same_state(written.state, after, kind)
            for threads in (1, 2, 3):
                with fastrnn.num_threads(threads):
                    got_many, final = fastrnn.generate(*parts, several, 12, rng=7)
                for a, b in zip(got_many, many, strict=True):
                    assert a.tolist() == b.tolist()
                assert_same_state(final, afterwards, kind)


def test_frozen_parts_do_not_read_the_layers() -> None:
    net = network(9, 4, 6)
    want = fastrnn.generate(*net, [1], 9, rng=0)[0].tolist()
    parts = mixed(net, 7)
    for layer in net:
        layer.flat_weights[...] = np.nan
    written = fastrnn.generate_iter(*parts, [1], 9, rng=0)
    first = next(written)
    for isa in ISAS:
        fastrnn.set_isa(isa)
        assert fastrnn.generate(*parts, [1], 9, rng=0)[0].tolist() == want
        assert fastrnn.generate(*mixed(network(9, 4, 6), 2), [1], 9, rng=0)[0].tolist() == want
    assert [first, *written] == want


def test_the_reference_takes_frozen_parts() -> None:
    net = network(9, 4, 6, np.float64)
    want = reference.generate(*net, [1], 9, rng=0)[0].tolist()
    for which in range(8):
        parts = mixed(net, which)
        assert reference.generate(*parts, [1], 9, rng=0)[0].tolist() == want
        assert list(reference.generate_iter(*parts, [1], 9, rng=0)) == want
        with fastrnn.backend("reference"):
            assert fastrnn.generate(*parts, [1], 9, rng=0)[0].tolist() == want
            assert list(fastrnn.generate_iter(*parts, [1], 9, rng=0)) == want


def test_frozen_parts_that_do_not_fit() -> None:
    words, rnn, head = mixed(network(9, 4, 6), 7)
    with pytest.raises(ValueError, match=r"linear.in_features is 5"):
        fastrnn.generate(words, rnn, fastrnn.Linear(5, 9).freeze(), [1], 3)
    with pytest.raises(TypeError, match=r"^rnn is a FrozenLinear, expected"):
        fastrnn.generate(words, head, head, [1], 3)
    with pytest.raises(ValueError, match="bidirectional"):
        fastrnn.generate(words, fastrnn.GRU(4, 3, bidirectional=True).freeze(), head, [1], 3)
    model = fastrnn.Sequential({"words": fastrnn.Embedding(9, 4), "rnn": fastrnn.RNN(4, 6)})
    with pytest.raises(TypeError, match=r"^rnn is a FrozenSequential, expected"):
        fastrnn.generate(words, model.freeze(), head, [1], 3)


def test_a_users_layer_that_has_a_precision_is_no_frozen_one() -> None:
    class Precise(fastrnn.GRU):
        precision = "high"

    words, head = fastrnn.Embedding(9, 4, rng=0), fastrnn.Linear(6, 9, rng=2)
    own, plain = Precise(4, 6, rng=1), fastrnn.GRU(4, 6, rng=1)
    want = fastrnn.generate(words, plain, head, [1], 9, rng=0)[0]
    assert fastrnn.generate(words, own, head, [1], 9, rng=0)[0].tolist() == want.tolist()


def test_weights_packed_for_two_instruction_sets_are_noticed() -> None:
    layer = fastrnn.Linear(4, 9, rng=0)
    rnn = fastrnn.RNN(4, 4, rng=0)
    packed = []
    for isa in ISAS:
        fastrnn.set_isa(isa)
        packed.append((*rnn.freeze()._packed, *layer.freeze()._packed))
    assert all(map(_core.packed_alike, packed))
    assert _core.packed_alike(())
    if len(ISAS) > 1:
        assert not _core.packed_alike((packed[0][0], packed[1][1]))
    with pytest.raises(TypeError):
        _core.packed_alike((layer,))  # type: ignore[arg-type]
