"""Layers that run from the last step to the first: `reverse`. More of them under the shape
"two-reverse" in the tests of stacked layers, of pre-activations and of checks."""

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from marks import each_cell, each_first, each_name
from stacked_layers import (
    OPTIONS,
    RESTART,
    B,
    D,
    H,
    T,
    as_tuple,
    cell_of,
    compose,
    draw,
    draw_state,
    each_backend,
    functions,
    make,
    run,
    units,
)

import fastrnn

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_all_same(got: Any, want: Any) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert_same(got[name], want[name], name)


# ------------------------------------------------------------------------------ what it computes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS)
@each_name
@each_backend
@pytest.mark.quick
def test_a_layer_is_the_function(backend: str, kind: str, options: str, dtype: str) -> None:
    layer = make(kind, "one", reverse=True, dtype=dtype)
    forward, backward, own = functions(layer)
    x, d_output = draw(layer, T, B, D, seed=1), draw(layer, T, B, units(layer), seed=2)
    state, d_state = draw_state(layer, B), draw_state(layer, B, seed=4)
    arguments = {arg: f"{name}_l0_reverse" for name, arg in cell_of(layer).weights.items()}
    weights = {arg: layer.weights.get(name) for arg, name in arguments.items()}
    with fastrnn.backend(backend):
        output, *final, tape = forward(
            x, *(s[0] for s in as_tuple(state)), **weights, **own, **OPTIONS[options], reverse=True
        )
        grads = backward(tape, d_output, *(s[0] for s in as_tuple(d_state)))
        got, _, _ = run(layer, x, state, d_output, d_state, **OPTIONS[options])
        called = layer(x, state, **OPTIONS[options])
    want = {"output": output, "x": grads.x}
    for name, end in zip("hc", final, strict=False):
        want |= {f"{name}_n": end[None], f"{name}_0": getattr(grads, f"{name}_0")[None]}
    want |= {n: getattr(grads, arg) for arg, n in arguments.items() if n in layer.weights}
    assert_all_same(got, want)
    assert_same(called[0], output, "the output of a call")
    for end, expected in zip(as_tuple(called[1]), final, strict=True):
        assert_same(end, expected[None], "the state of a call")


@each_name
def test_it_is_what_runs_forward_over_reversed_steps(kind: str) -> None:
    layer, forward = make(kind, "two-reverse"), make(kind, "two")
    forward.flat_weights[...] = layer.flat_weights
    x, d_output = draw(layer, T, B, D, seed=1), draw(layer, T, B, units(layer), seed=2)
    state, d_state = draw_state(layer, B), draw_state(layer, B, seed=4)
    got, grads, _ = run(layer, x, state, d_output, d_state, restart=RESTART)
    want, expected, _ = run(
        forward, np.ascontiguousarray(x[::-1]), state, np.ascontiguousarray(d_output[::-1]),
        d_state, restart=RESTART[::-1],
    )  # fmt: skip
    for name in ("output", "x"):
        assert_same(got[name], want[name][::-1], name)
    for name in {"h_n", "c_n", "h_0", "c_0"} & want.keys():
        assert_same(got[name], want[name], name)
    assert_same(grads.flat_weights, expected.flat_weights, "the gradients of the weights")


@each_name
def test_a_row_starts_at_its_own_last_step(kind: str) -> None:
    layer, lengths = make(kind, "two-reverse"), [T, 0, 3, 5]
    x, state = draw(layer, T, B, D, seed=1), draw_state(layer, B)
    x[3:, 2] = np.nan  # padding is not read
    output, final = layer(x, state, lengths=lengths)
    for b, length in enumerate(lengths):
        start = [s[:, b] for s in as_tuple(state)]
        alone, ends = layer(x[:length, b], tuple(start) if len(start) > 1 else start[0])
        assert_same(output[:length, b], alone, f"row {b}")
        assert not output[length:, b].any()
        for whole, end in zip(as_tuple(final), as_tuple(ends), strict=True):
            assert_same(whole[:, b], end, f"the state of row {b}")


@pytest.mark.parametrize("options", OPTIONS)
@each_name
@each_backend
def test_half_of_a_bidirectional_layer(backend: str, kind: str, options: str) -> None:
    both, layer = make(kind, "both", rng=3), make(kind, "one", reverse=True)
    half = {name: a for name, a in both.state_dict().items() if name.endswith("_reverse")}
    assert list(half) == list(layer.weights)
    assert layer.load_state_dict(half) == ([], [])
    assert layer.load_state_dict(both.state_dict(), strict=False).missing_keys == []
    x, state = draw(layer, T, B, D, seed=1), draw_state(both, B)
    d_state, P = draw_state(both, B, seed=4), units(layer)
    d_output = draw(layer, T, B, 2 * P, seed=2)
    d_output[..., :P] = 0  # so that d_x is that of the reverse half
    for a in as_tuple(d_state):
        a[0] = 0

    def second(state: Any) -> Any:
        halves = tuple(a[1:] for a in as_tuple(state))
        return halves if isinstance(state, tuple) else halves[0]

    own = {"keep": layer._kept} | OPTIONS[options]
    with fastrnn.backend(backend):
        want, _, of_both = run(both, x, state, d_output, d_state, **own)
        part = np.ascontiguousarray(d_output[..., P:])
        got, _, tape = run(layer, x, second(state), part, second(d_state), **own)
        whole = fastrnn.gradient_norms(of_both, d_output, *as_tuple(d_state))
        norms = fastrnn.gradient_norms(tape, part, *as_tuple(second(d_state)))
    assert_same(got.pop("output"), want.pop("output")[..., P:], "output")
    assert np.array_equal(got.pop("x"), want.pop("x"))  # but for the signs of zeros
    for name in got:
        assert_same(got[name], want[name] if name in half else want[name][1:], name)
    assert_same(norms, whole[1:], "norms")
    for name in layer._kept:
        assert_same(getattr(tape, name)[0], getattr(of_both, name)[1], name)


@each_first
@each_backend
def test_the_axes_of_the_caller(backend: str, kind: str) -> None:
    layer = make(kind, "two-reverse", batch_first=True)
    x, state = draw(layer, B, T, D, seed=1), draw_state(layer, B)
    d_output = draw(layer, B, T, units(layer), seed=2)
    with fastrnn.backend(backend):
        for b in range(B):
            start = tuple(s[:, b] for s in as_tuple(state))
            start = start if isinstance(state, tuple) else start[0]
            mask, length = RESTART[:, b], T - b
            got, _, _ = run(layer, x[b], start, d_output[b], None, lengths=length, restart=mask)
            one = [s[:, b : b + 1] for s in as_tuple(state)]
            want, _, _ = run(
                layer, x[b : b + 1], tuple(one) if len(one) > 1 else one[0], d_output[b : b + 1],
                None, lengths=[length], restart=mask[None],
            )  # fmt: skip
            for name in ("output", "x"):
                want[name] = want[name][0]
            for name in {"h_n", "c_n", "h_0", "c_0"} & want.keys():
                want[name] = want[name][:, 0]
            assert_all_same(got, want)


@pytest.mark.parametrize("options", ["plain", "both"])
@each_name
def test_training(kind: str, options: str) -> None:
    """Dropout between layers, short tapes and checks."""
    layer = make(kind, "two-reverse", dropout=0.4)
    x, state = draw(layer, T, B, D, seed=1), draw_state(layer, B)
    d_output, d_state = draw(layer, T, B, units(layer), seed=2), draw_state(layer, B, seed=4)
    given = OPTIONS[options]
    got, _, tape = run(layer, x, state, d_output, d_state, rng=5, **given)
    want, _ = compose(
        layer, x, state, d_output, d_state, **given, dropped=tape.dropped, scale=tape.scale
    )
    assert tape.dropped[0].any()
    assert_all_same(got, want)
    for more in ({"checkpoint": 1}, {"checkpoint": 4}, {"checkpoint": T + 1}, {"check": True}):
        again, _, _ = run(layer, x, state, d_output, d_state, rng=5, **given, **more)
        assert_all_same(again, want)
    tape = layer.forward(x, state, rng=5, check=True)[2]
    layer.flat_weights[-1] += 1
    with pytest.raises(RuntimeError, match="changed"):
        layer.backward(tape, d_output)


@each_first
def test_any_threads_and_instruction_set(kind: str) -> None:
    layer = make(kind, "two-reverse", dtype="float32")
    x, state = draw(layer, 40, 12, D, seed=1), draw_state(layer, 12)
    d_output = draw(layer, 40, 12, units(layer), seed=2)
    found = []
    isas = [isa for isa in fastrnn.available_isas() if isa != "generic"]
    for isa, threads in itertools.product(isas, (1, 2, 4)):
        fastrnn.set_isa(isa)
        fastrnn.set_num_threads(threads)
        found.append(run(layer, x, state, d_output, None)[0])
    for one in found[1:]:
        assert_all_same(one, found[0])


# ------------------------------------------------------------------------------ what it is


@each_cell
def test_copies(cell: Any) -> None:
    layer = cell.layer(D, H, 2, reverse=True, rng=0)
    assert layer.reverse is True
    assert repr(layer) == f"{cell.layer.__name__}(3, 5, num_layers=2, reverse=True)"
    assert all(name.endswith("_reverse") for name in layer.weights)
    x = draw(layer, T, B, D, seed=1)
    output, _, tape = layer.forward(x)
    copies = [copy.copy(layer), copy.deepcopy(layer)]
    copies += [pickle.loads(pickle.dumps(layer, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert repr(other) == repr(layer)
        assert_same(other(x)[0], output, "output")
        assert_same(other.backward(tape, output).x, layer.backward(tape, output).x, "x")
    with pytest.raises(AttributeError, match="reverse was fixed when the"):
        layer.reverse = False


@each_cell
def test_a_layer_pickled_before_there_was_reverse(cell: Any) -> None:
    for options in ({}, {"bidirectional": True}):
        layer = cell.layer(D, H, 2, **options, rng=0)
        make_it, (kind, memory, said), state = layer.__reduce__()
        assert said.pop("reverse") is state.pop("reverse") is False
        old = make_it(kind, memory, said)
        old.__setstate__(state)
        assert "reverse" not in vars(old)
        assert old.reverse is False
        assert repr(old) == repr(layer)
        x = draw(layer, T, B, D, seed=1)
        assert_same(old(x)[0], layer(x)[0], "output")
        new = pickle.loads(pickle.dumps(old))
        assert_same(new(x)[0], layer(x)[0], "output")
        with pytest.raises(AttributeError, match="reverse was fixed"):
            old.reverse = True


# ------------------------------------------------------------------------------ what it refuses


@each_first
def test_tapes_of_the_other_direction(kind: str) -> None:
    forward, layer, both = make(kind, "two"), make(kind, "two-reverse"), make(kind, "both")
    forward.flat_weights[...] = layer.flat_weights
    x = draw(layer, T, B, D, seed=1)
    tapes = {one: one.forward(x)[2] for one in (forward, layer, both)}
    said = {
        forward: "num_layers=2, bidirectional=False, reverse=False",
        layer: "num_layers=2, bidirectional=False, reverse=True",
        both: "num_layers=1, bidirectional=True, reverse=False",
    }
    for one, other in itertools.permutations(tapes, 2):
        with pytest.raises(ValueError, match=f"^tape is of another layer: of one with {said[one]}"):
            other.backward(tapes[one], tapes[one].tapes[-1].output)


@each_name
def test_nothing_that_needs_the_past_first(kind: str) -> None:
    layer = make(kind, "one", reverse=True)
    name = type(layer).__name__
    with pytest.raises(ValueError, match=f"^{name} runs in reverse: its output"):
        layer.stream()
    embedding = fastrnn.Embedding(4, D, dtype="float64")
    head = fastrnn.Linear(units(layer), 4, dtype="float64")
    for module in (fastrnn, fastrnn.reference):
        with pytest.raises(ValueError, match=r"^rnn runs in reverse: it would have to read"):
            module.generate(embedding, layer, head, [1], 3)


@each_first
def test_weights_of_the_other_direction(kind: str) -> None:
    layer, forward = make(kind, "one", reverse=True), make(kind, "one", rng=4)
    with pytest.raises(ValueError) as caught:
        layer.load_state_dict(forward.state_dict())
    cure = str(caught.value).partition(": pass ")[2]
    layer.load_state_dict(eval(cure, {"d": forward.state_dict()}))
    x = draw(layer, 1, B, D, seed=1)  # of one step both directions make the same
    assert_same(layer(x)[0], forward(x)[0], "output")
    with pytest.raises(AttributeError, match=r"make another one with reverse=False$"):
        layer.weight_hh_l0 = 0
    with pytest.raises(AttributeError, match=r"make another one with num_layers=2$"):
        layer.weight_hh_l1_reverse = 0
    with pytest.raises(AttributeError, match=r"make another one with bidirectional=True$"):
        forward.weight_hh_l0_reverse = 0
    for name in ("weight", "weight_leak"):
        with pytest.raises(AttributeError, match=f"has no weight {name}: its weights are [^;]*$"):
            setattr(layer, name, 0)
