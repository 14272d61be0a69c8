"""Streams: whatever is cut and however it is stepped, the bits are those of the layer."""

import gc
import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bit_checks import assert_same
from bounds import Array
from grids import grid
from marks import each_name
from registry import VARIANTS
from stream_layers import (
    DTYPES,
    ISAS,
    assert_same_state,
    draw,
    draw_state,
    each_dtype,
    each_isa,
    in_pieces,
    like,
    make,
    parts,
    units,
)

import fastrnn
from fastrnn import _core

pytestmark = pytest.mark.usefixtures("one_thread")  # but where a test sets another number

T = 6

# Around the lanes of every instruction set (2, 4, 8, 16) and panels of 4 vectors; no D is one too.
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65)
BATCHES = (1, 2, 7, 33)


class Other(np.ndarray):
    """A subclass that does no harm, like that of memory-mapped files."""


def small(kind: str, dtype: Any) -> Any:
    """Layer and batch: every H, with D, B and the number of layers changing in between."""
    for k, H in enumerate(SIZES):
        if H > 1 or "projection" not in kind:
            D = (*SIZES, 0)[(5 * k + 3 * list(VARIANTS).index(kind)) % (len(SIZES) + 1)]
            yield make(kind, D, H, 1 + k % 3, dtype), BATCHES[(k + k // 4) % len(BATCHES)]


def restarts(batch: int, steps: int = T, seed: int = 3) -> Array:
    return np.random.default_rng(seed).random((steps, batch)) < 0.3


# ------------------------------------------------------------------------- the bits of the layer


@grid("kind, dtype, isa", VARIANTS, DTYPES, ISAS, once=True)
def test_steps_are_the_layer_on_the_whole_sequence(kind: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    for layer, B in small(kind, dtype):
        x, initial = draw(layer, T, B, layer.input_size), draw_state(layer, B)
        for state, restart in ((None, None), (initial, restarts(B)), (initial, None)):
            stream = layer.stream(B)
            if state is not None:
                stream.state = state
            want, _ = layer(x, state, restart=restart)
            for t in range(T):
                y = stream.step(x[t], None if restart is None else restart[t])
                assert_same(y, want[t], f"step {t} of {layer}, B={B}")
                if t in (0, 2, T - 1):
                    before = None if restart is None else restart[: t + 1]
                    _, now = layer(x[: t + 1], state, restart=before)
                    assert_same_state(stream.state, now, f"after step {t} of {layer}, B={B}")


@each_isa
@each_dtype
@each_name
@pytest.mark.quick
def test_runs_in_any_cuts_are_the_layer(kind: str, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    for layer, B in small(kind, dtype):
        x, state = draw(layer, T, B, layer.input_size), draw_state(layer, B)
        for restart in (None, restarts(B)):
            want, final = layer(x, state, restart=restart)
            for cuts, mixed in (((), 0), ((1, 1, 4), 0), ((0, 3), 2), ((2, 2, 3, 6), 3)):
                stream = layer.stream(B)
                stream.state = state
                got = in_pieces(stream, x, restart, cuts, mixed)
                what = f"{layer}, B={B}, cut at {cuts}"
                assert_same(got, want, what)
                assert_same_state(stream.state, final, what)


@grid("kind, dtype", VARIANTS, DTYPES, once=True)
def test_threads(kind: str, dtype: Any) -> None:
    # Many rows, and few rows of many units, which threads split by hidden units.
    for D, H, B, layers, steps in ((20, 65, 33, 2, 21), (9, 300, 2, 1, 12), (30, 300, 1, 1, 12)):
        layer = make(kind, D, H, layers, dtype)
        x, state, restart = draw(layer, steps, B, D), draw_state(layer, B), restarts(B, steps)
        fastrnn.set_num_threads(1)
        want, final = layer(x, state, restart=restart)
        for threads in (1, 2, 3):
            fastrnn.set_num_threads(threads)
            before = _core.teams_run()
            for cuts, mixed in (((), 0), ((1, 4, 4), 2)):
                stream = layer.stream(B)
                stream.state = state
                got = in_pieces(stream, x, restart, cuts, mixed)
                what = f"{threads} threads, {layer}, B={B}"
                assert_same(got, want, what)
                assert_same_state(stream.state, final, what)
            team = threads > 1 and _core.build_info()["openmp"]
            assert (_core.teams_run() > before) == bool(team)


def test_the_number_of_threads_is_that_of_the_call() -> None:
    layer = make("lstm", 20, 65, 2)
    x = draw(layer, 21, 33, 20)
    stream = layer.stream(33)
    want, _ = layer(x)
    for threads in (1, 3):
        with fastrnn.num_threads(threads):
            before = _core.teams_run()
            assert_same(stream.run(x), want, f"{threads} threads")
            assert (_core.teams_run() > before) == (threads > 1 and _core.build_info()["openmp"])
        stream.reset()


@each_dtype
@each_name
def test_a_stream_goes_on_when_the_instruction_set_changes(kind: str, dtype: Any) -> None:
    layer, B = make(kind, 9, 33, 2, dtype), 7
    x, restart = draw(layer, T, B, 9), restarts(B)
    for made, other in itertools.product(ISAS, ISAS):
        fastrnn.set_isa(made)
        want, final = layer(x, restart=restart)
        stream = layer.stream(B)
        first = stream.run(x[:2], restart[:2])
        fastrnn.set_isa(other)
        second = in_pieces(stream, x[2:], restart[2:], (1,), 2)
        assert_same(np.concatenate([first, second]), want, f"made under {made}, then {other}")
        assert_same_state(stream.state, final)
        if {made, other} <= set(PROMISED):
            stream.reset()
            first = stream.run(x[:2], restart[:2])
            stream.update()  # packed for the other one, and still the same bits
            second = stream.run(x[2:], restart[2:])
            assert_same(np.concatenate([first, second]), want, f"{made}, updated under {other}")


@each_name
def test_a_batch_of_nobody(kind: str) -> None:
    layer = make(kind, 3, 5, 2)
    stream = layer.stream(0)
    x = np.zeros((T, 0, 3), np.float32)
    assert stream.step(x[0]).shape == (0, units(layer))
    assert stream.step(x[0], restart=np.zeros(0, bool)).shape == (0, units(layer))
    assert stream.step(x[0], restart=True).shape == (0, units(layer))
    out = np.zeros((0, units(layer)), np.float32)
    assert stream.step(x[0], out=out) is out
    assert stream.run(x).shape == (T, 0, units(layer))
    assert_same_state(stream.state, layer(x)[1])
    stream.state = stream.state
    stream.reset()
    stream.reset([])
    stream.update()


# ---------------------------------------------------------------------------------- restart


@each_name
@pytest.mark.quick
def test_restart_is_one_bool_or_one_for_each_row(kind: str) -> None:
    layer, B = make(kind, 3, 9, 2), 7
    x, state = draw(layer, B, 3), draw_state(layer, B)

    def step(restart: Any) -> tuple[Array, Any]:
        stream = layer.stream(B)
        stream.state = state
        return stream.step(x, restart), stream.state

    want = {
        flag: layer(x[None], None if flag else state) for flag in (False, True)
    }  # a restart forgets the state before
    for flag in (False, True):
        forms = [flag, np.bool_(flag), np.full(B, flag), [flag] * B, tuple([flag] * B)]
        forms += [np.full(2 * B, flag)[::2]] + ([None] if not flag else [])
        for form in forms:
            y, after = step(form)
            assert_same(y, want[flag][0][0], repr(form))
            assert_same_state(after, want[flag][1], repr(form))
    some = np.arange(B) % 2 == 1
    y, after = step(some)
    assert_same(y, np.where(some[:, None], want[True][0][0], want[False][0][0]), "some rows")
    for got, yes, no in zip(*map(parts, (after, want[True][1], want[False][1])), strict=True):
        assert_same(got, np.where(some[:, None], yes, no), "state of some rows")
    assert_same(step(some.tolist())[0], y, "a list")


def test_a_restart_leaves_nothing_of_a_state_that_is_not_finite() -> None:
    for kind in VARIANTS:
        layer = make(kind, 3, 9, 2)
        x = draw(layer, 4, 2, 3)
        stream = layer.stream(2)
        stream.state = like(draw_state(layer, 2), lambda a: np.full_like(a, np.nan))
        assert np.isnan(stream.step(x[0])).all()
        assert_same(stream.step(x[0], restart=True), layer(x[:1])[0][0], kind)
        stream.state = like(stream.state, lambda a: np.full_like(a, np.inf))
        restart = np.zeros((4, 2), bool)
        restart[0] = True
        assert_same(stream.run(x, restart), layer(x)[0], kind)


def test_nan_stays_in_its_row() -> None:
    for kind in VARIANTS:
        layer = make(kind, 3, 9, 2)
        x = draw(layer, T, 7, 3)
        want, final = layer(x)
        x[2, 4] = np.nan
        stream = layer.stream(7)
        got = stream.run(x)
        rows = np.arange(7) != 4
        assert_same(got[:, rows], want[:, rows], kind)
        assert_same_state(like(stream.state, lambda a, r=rows: a[:, r]),
                          like(final, lambda a, r=rows: a[:, r]))  # fmt: skip


# ------------------------------------------------------------------------------------ the state


@each_name
def test_the_state_is_copied_both_ways(kind: str) -> None:
    layer, B = make(kind, 3, 9, 2), 7
    x = draw(layer, 2 * T, B, 3)
    want, final = layer(x)
    stream, other = layer.stream(B), layer.stream(B)
    stream.run(x[:T])
    got = stream.state
    other.state = got
    for array in parts(got):
        assert array.flags.owndata
        assert array.flags.writeable
        array[...] = np.nan  # neither stream sees it
    assert_same(stream.run(x[T:]), want[T:], "after its state was read")
    assert_same(other.run(x[T:]), want[T:], "after its state was set")
    assert_same_state(other.state, final)
    # Its own state to itself; any layout; a list in place of a tuple.
    stream.state = stream.state
    assert_same_state(stream.state, final)
    stream.state = like(final, np.asfortranarray)
    assert_same_state(stream.state, final)
    stream.state = like(final, lambda a: np.repeat(a, 2, axis=2)[:, :, ::2])
    assert_same_state(stream.state, final)
    if isinstance(final, tuple):
        stream.state = [*final]
        assert_same_state(stream.state, final)


@each_name
def test_a_new_stream_and_reset(kind: str) -> None:
    layer, B = make(kind, 3, 9, 2), 5
    zero = like(draw_state(layer, B), np.zeros_like)
    x = draw(layer, T, B, 3)
    want, final = layer(x)
    stream = layer.stream(B)
    assert_same_state(stream.state, zero)
    stream.run(x)
    stream.reset()
    assert_same_state(stream.state, zero)
    assert_same(stream.run(x), want, "after reset")
    every = np.arange(B)
    for rows in (
        0, -1, np.int64(3), slice(1, 3), slice(None, None, 2), [0, 4], [4, 0, 4], [],
        np.array([2, -2]), np.array([], int), every % 2 == 0, (every == 3).tolist(), slice(None),
    ):  # fmt: skip
        stream.state = final
        stream.reset(rows)
        chosen = every[rows]
        for got, old in zip(parts(stream.state), parts(final), strict=True):
            expected = old.copy()
            expected[:, chosen] = 0
            assert_same(got, expected, f"reset({rows!r})")
    # The rows that stay go on, those that were reset begin.
    stream.reset()
    stream.run(x)
    stream.reset([1, 3])
    restart = np.zeros((T, B), bool)
    restart[0, [1, 3]] = True
    assert_same(stream.run(x), layer(x, final, restart=restart)[0], "after reset of some rows")


# ---------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("isa", PROMISED)
@each_name
def test_a_snapshot_of_the_weights_until_update(kind: str, isa: str) -> None:
    fastrnn.set_isa(isa)
    layer, B = make(kind, 3, 17, 2), 3
    x = draw(layer, 3 * T, B, 3)
    old, middle = layer(x[: 2 * T])[0], layer(x[: 2 * T])[1]
    stream = layer.stream(B)
    assert_same(stream.run(x[:T]), old[:T], "before")
    layer.flat_weights[...] *= 0.5
    assert_same(stream.run(x[T : 2 * T]), old[T:], "the layer's weights have changed")
    assert_same_state(stream.state, middle)
    stream.update()
    assert_same_state(stream.state, middle, "update keeps it")
    want, final = layer(x[2 * T :], middle)
    assert_same(stream.run(x[2 * T :]), want, "after update")
    assert_same_state(stream.state, final)
    layer.flat_weights[...] = np.nan
    stream.reset()
    assert np.isfinite(stream.run(x[:T])).all()
    stream.update()
    assert np.isnan(stream.run(x[:T])).all()
    # Every weight is read again, and from where it was made.
    layer.flat_weights[...] = 0
    stream.update()
    stream.reset()
    for view in layer.weights.values():
        view[...] = draw(layer, *view.shape, seed=view.size)
        stream.update()
        stream.reset()
        assert_same(stream.run(x[:T]), layer(x[:T])[0], "one weight after the other")


def test_a_stream_outlives_its_layer_and_others_do_not_disturb() -> None:
    layer = make("lstm", 3, 17, 2)
    x = draw(layer, T, 2, 3)
    want, _ = layer(x)
    stream, other = layer.stream(2), layer.stream(2)
    other.run(x)
    half = T // 2
    first = stream.run(x[:half])
    del layer, other
    gc.collect()
    assert_same(np.concatenate([first, stream.run(x[half:])]), want, "after the layer was deleted")
    stream.update()  # it is kept for this
    streams = [make("gru", 3, 17, 2).stream(5) for _ in range(50)]
    del streams
    gc.collect()
    stream.reset()
    assert_same(stream.run(x), want, "after others have gone")


# -------------------------------------------------------------------------------------- arrays


@each_dtype
@each_name
def test_out_is_written_in_place(kind: str, dtype: Any) -> None:
    layer, B = make(kind, 9, 9, 2, dtype), 7
    x = draw(layer, T, B, 9)
    want, _ = layer(x)
    stream = layer.stream(B)
    out = np.full((B, units(layer)), np.nan, dtype)
    for t in range(T):
        assert stream.step(x[t], out=out) is out
        assert_same(out, want[t], f"step {t}")
    stream.reset()
    fresh = [stream.step(x_t) for x_t in x]
    assert len({y.ctypes.data for y in fresh}) == T  # each of them an array of its own
    assert all(y.flags.c_contiguous and y.flags.writeable for y in fresh)
    for t in range(T):
        assert_same(fresh[t], want[t], "nothing writes to it later")
    rows = np.empty((T, B, units(layer)), dtype)
    stream.reset()
    for t in range(T):
        stream.step(x[t], None, rows[t])
    assert_same(rows, want, "the rows of one array")


@each_name
def test_out_may_overlap_x(kind: str) -> None:
    for layers, B in ((1, 7), (2, 7), (1, 1), (3, 33)):
        layer = make(kind, 17, 17, layers)
        P, n = units(layer), B * 17
        x = draw(layer, T, B, 17)
        want, _ = layer(x)
        for start in (0, 1, 5, n - 1, n):  # of out in one piece of memory, which begins with x
            stream = layer.stream(B)
            memory = np.zeros(n + n, np.float32)
            x_t, out = memory[:n].reshape(B, 17), memory[start : start + B * P].reshape(B, P)
            for t in range(T):
                x_t[...] = x[t]
                assert stream.step(x_t, out=out) is out
                assert_same(out, want[t], f"step {t} of {layer}, out begins at {start}")
    # x in another layout, or a subclass, of the same memory.
    layer = make(kind, 5, 17, 2)
    memory = np.zeros((4, 17), np.float32)
    for change in (
        lambda a: a[:, 3:8],
        lambda a: a[::-1, 10:5:-1],
        lambda a: a.reshape(-1)[7:27].reshape(4, 5).view(Other),
    ):
        stream = layer.stream(4)
        x_t = change(memory)
        x_t[...] = draw(layer, 4, 5)
        want, _ = layer(np.array(x_t)[None])
        out = memory.reshape(-1)[: 4 * units(layer)].reshape(4, -1)
        assert_same(stream.step(x_t, out=out), want[0], "another layout")


def test_with_out_no_array_is_made() -> None:
    for kind, dtype in itertools.product(VARIANTS, DTYPES):
        layer, B = make(kind, 33, 33, 2, dtype), 33
        stream, x = layer.stream(B), draw(layer, B, 33)
        out = np.empty((B, units(layer)), dtype)
        alone = layer.stream()
        x_alone, out_alone = x[0], np.empty(units(layer), dtype)
        tracemalloc.start()
        try:
            for s, *arrays in ((stream, x, out), (alone, x_alone, out_alone)):
                s.step(arrays[0], None, arrays[1])
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                for _ in itertools.repeat(None, 1000):
                    s.step(arrays[0], None, arrays[1])
                now, peak = tracemalloc.get_traced_memory()
                # An array takes about a hundred bytes besides its elements.
                assert peak - before < 100, f"{peak - before} bytes at the peak, {kind}"
                assert now - before < 100
            kept = [stream.step(x) for _ in range(10)]
            assert tracemalloc.get_traced_memory()[0] - now > sum(a.nbytes for a in kept)
        finally:
            tracemalloc.stop()


@each_name
def test_every_layout_of_x(kind: str) -> None:
    layer, B = make(kind, 6, 9, 2), 7
    x = draw(layer, T, B, 6)
    want, _ = layer(x)
    wide = np.full((2 * T, 2 * B, 12), np.nan, np.float32)
    wide[::2, ::2, ::2] = x
    odd = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    layouts = {
        "Fortran order": np.asfortranarray(x),
        "strides": wide[::2, ::2, ::2],
        "negative strides": x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        "batch-major memory": x.swapaxes(0, 1).copy().swapaxes(0, 1),
        "not aligned": odd,
        "read-only": read_only,
        "other byte order": x.astype(x.dtype.newbyteorder()),
        "subclass": x.view(Other),
    }
    for what, other in layouts.items():
        stream = layer.stream(B)
        assert_same(stream.run(other), want, f"run, {what}")
        stream.reset()
        for t in range(T):
            assert_same(stream.step(other[t]), want[t], f"step, {what}")
    same = np.broadcast_to(x[:1], x.shape)
    stream.reset()
    assert_same(stream.run(same), layer(same.copy())[0], "one step again and again")


@each_dtype
@each_name
def test_batch_first(kind: str, dtype: Any) -> None:
    plain, turned = (make(kind, 3, 9, 2, dtype, batch_first=turn) for turn in (False, True))
    for B in (1, 5):
        x, restart = draw(plain, T, B, 3), restarts(B)
        want, final = plain(x, restart=restart)
        stream = turned.stream(B)
        first = stream.run(x[:2].swapaxes(0, 1), restart[:2].T)
        second = stream.run(np.ascontiguousarray(x[2:5].swapaxes(0, 1)), restart[2:5].T.copy())
        last = stream.step(x[5], restart[5])  # a step has no time axis to turn
        got = np.concatenate([first, second, last[:, None]], axis=1)
        assert_same(got.swapaxes(0, 1), want, f"B={B}")
        assert first.flags.c_contiguous
        assert_same_state(stream.state, final)
        assert stream.run(x[:0].swapaxes(0, 1)).shape == (B, 0, units(turned))


@each_dtype
@each_name
def test_one_sequence_without_a_batch_axis(kind: str, dtype: Any) -> None:
    for layers, batch_first in ((1, False), (2, True)):
        layer = make(kind, 3, 17, layers, dtype, batch_first=batch_first)
        x, restart = draw(layer, T, 3), restarts(1)[:, 0]
        want, final = layer(x, restart=restart)
        out = np.empty(units(layer), dtype)
        stream = layer.stream()
        got = [stream.step(x[0], restart[:1]), stream.step(x[1], bool(restart[1]))]
        assert stream.step(x[2], restart[2:3], out=out) is out
        got += [out, *stream.run(x[3:5], restart[3:5]), stream.step(x[5:], restart[5:])[0]]
        assert_same(np.stack(got), want, "(D,) and (T, D)")
        assert stream.run(x[:0]).shape == (0, units(layer))
        assert_same_state(stream.state, like(final, lambda a: a[:, None]))
        axis = 0 if batch_first else 1
        stream.reset()
        whole = stream.run(np.expand_dims(x, axis), np.expand_dims(restart, axis))
        assert_same(whole, np.expand_dims(want, axis), "with the axis")


def test_dropout_does_not_act() -> None:
    layer = make("lstm", 3, 9, 3, dropout=0.5)
    x = draw(layer, T, 2, 3)
    want, _ = layer(x)
    stream = layer.stream(2)
    assert_same(in_pieces(stream, x, None, (2, 3), 2), want, "a layer with dropout")


@pytest.mark.parametrize("isa", fastrnn.available_isas())
def test_weights_are_packed_in_the_mode_of_the_kernels(isa: str) -> None:
    # Subnormal numbers count as zero there, so half the smallest normal bias adds nothing.
    fastrnn.set_isa(isa)
    layer = fastrnn.RNN(2, 2, nonlinearity="relu", rng=0)
    tiny = np.finfo(np.float32).tiny
    layer.weights["bias_ih_l0"][...] = tiny
    layer.weights["bias_hh_l0"][...] = tiny / 2
    x = np.zeros((1, 1, 2), np.float32)
    assert (layer(x)[0] == tiny).all()
    assert layer.stream().run(x).tobytes() == layer(x)[0].tobytes()
