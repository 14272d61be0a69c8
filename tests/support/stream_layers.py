"""Layers for the tests of streams, and what a stream must give: the results of the layer itself."""

import itertools
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from registry import UNBIASED, VARIANTS

import fastrnn

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
each_isa = pytest.mark.parametrize("isa", ISAS)


def make(
    kind: str, D: int | None, H: int, layers: int = 1, dtype: Any = np.float32, **options: Any
) -> Any:
    """A layer of a variant; some have no biases, one has biased forget gates."""
    own: dict[str, Any] = {"bias": kind not in UNBIASED}
    own |= {"forget_bias": 1.5} if kind == "lstm-projection" else {}
    options = {"dtype": np.dtype(dtype).name, "rng": [D or 0, H, layers], **own, **options}
    layer = VARIANTS[kind].layer(D, H, layers, **options)
    layer.flat_weights[...] *= 2  # so that the state matters
    return layer


def units(layer: Any) -> int:
    return getattr(layer, "proj_size", 0) or layer.hidden_size


def draw(layer: Any, *shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(layer.dtype)


def draw_state(layer: Any, batch: int, seed: int = 2) -> Any:
    h = draw(layer, layer.num_layers, batch, units(layer), seed=seed)
    if not isinstance(layer, fastrnn.LSTM):
        return h
    return h, draw(layer, layer.num_layers, batch, layer.hidden_size, seed=seed + 1)


def parts(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


def like(state: Any, change: Any) -> Any:
    """The state with a function applied to each of its arrays."""
    changed = tuple(change(a) for a in parts(state))
    return changed if isinstance(state, tuple) else changed[0]


def assert_same_state(got: Any, want: Any, what: Any = "") -> None:
    assert type(got) is type(want)
    for name, a, b in zip("hc", parts(got), parts(want), strict=False):
        assert_same(a, b, f"{name} of the state, {what}")


def in_pieces(stream: Any, x: Array, restart: Any, cuts: Any, mixed: int = 0) -> Array:
    """The outputs of run on each piece; of single steps where a piece's number says so."""
    outputs = []
    for i, (start, stop) in enumerate(itertools.pairwise([0, *cuts, len(x)])):
        r = None if restart is None else restart[start:stop]
        if mixed and i % mixed == 0:
            for t in range(stop - start):
                y = stream.step(x[start + t], restart=None if r is None else r[t])
                outputs.append(y[None])
        else:
            outputs.append(stream.run(x[start:stop], restart=r))
    return np.concatenate(outputs)
