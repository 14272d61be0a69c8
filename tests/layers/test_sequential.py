"""Sequential computes what its layers do by hand: bits, gradients, PyTorch's numbers."""

import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from registry import CELLS, VARIANTS

import fastrnn
from fastrnn import Dropout, Embedding, Linear, Sequential

T, B, V, D, H, O = 7, 3, 11, 4, 5, 2
rng = np.random.default_rng(0)
INDICES = rng.integers(0, V, (T, B))
LENGTHS = np.array([7, 0, 4])
RESTART = rng.random((T, B)) < 0.2

RAGGED: dict[str, dict[str, Any]] = {
    "plain": {}, "lengths": {"lengths": LENGTHS}, "restart": {"restart": RESTART},
    "both": {"lengths": LENGTHS, "restart": RESTART},
}  # fmt: skip
ragged = pytest.mark.parametrize("masks", RAGGED.values(), ids=list(RAGGED))
of_cells = pytest.mark.parametrize("cell", CELLS.values(), ids=list(CELLS))


def tagger(cell: Any = CELLS["gru"], dtype: str = "float32", **options: Any) -> dict[str, Any]:
    """Layers of a model: two recurrent ones, of which the second has both directions."""
    return {
        "words": Embedding(V, D, dtype=dtype, rng=0),
        "lower": cell.layer(D, H, dtype=dtype, rng=1, **options),
        "upper": cell.layer(H, H, bidirectional=True, dtype=dtype, rng=2, **options),
        "drop": Dropout(0.3),
        "out": Linear(2 * H, O, dtype=dtype, rng=3),
    }


def by_hand(
    layers: Mapping[str, Any], x: Any, masks: Mapping[str, Any], seed: Any, d_output: Any
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Output, states, and the gradients of all layers, one after the other."""
    source = np.random.default_rng(seed)
    tapes, states = {}, {}
    for name, layer in layers.items():
        if hasattr(layer, "hidden_size"):
            x, states[name], tapes[name] = layer.forward(x, **masks, rng=source)
        elif isinstance(layer, Dropout):
            x, tapes[name] = layer.forward(x, rng=source)
        else:
            x, tapes[name] = layer.forward(x)
    d, grads = d_output, {}
    for name in reversed(layers):
        grads[name] = layers[name].backward(tapes[name], d)
        d = getattr(grads[name], "x", None)
    return x, states, grads


def drawn(like: Any) -> Any:
    return np.random.default_rng(9).standard_normal(like.shape).astype(like.dtype)


def same(a: Any, b: Any) -> None:
    assert_same(a, b, "the bits")


def states_same(one: Any, other: Any) -> None:
    pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
    for a, b in pairs:
        same(a, b)


# ------------------------------------------------------------------------------ by hand


@of_cells
@ragged
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_bits_of_the_layers_by_hand(cell: Any, masks: Any, backend: str) -> None:
    layers, model = tagger(cell), Sequential(tagger(cell))
    with fastrnn.backend(backend):  # type: ignore[arg-type]
        output, state, tape = model.forward(INDICES, **masks, rng=5)
        d_output = drawn(output)
        grads = model.backward(tape, d_output)
        wanted, states, wanted_grads = by_hand(layers, INDICES, masks, 5, d_output)
        same(output, wanted)
        assert list(state) == list(states) == ["lower", "upper"]
        for name in states:
            states_same(state[name], states[name])
        for name, view in grads.weights.items():
            layer, _, weight = name.partition(".")
            same(view, wanted_grads[layer].weights[weight])
            assert np.shares_memory(view, grads.flat_weights)
        parts = [g.flat_weights for g in wanted_grads.values() if hasattr(g, "flat_weights")]
        same(grads.flat_weights, np.concatenate(parts[::-1]))
        assert list(grads.weights) == list(model.weights)
        assert grads.x is None
        assert grads.state == {}

        called, called_state = model(INDICES, **masks)
        quiet, _, _ = model.forward(INDICES, **masks, training=False)
        same(called, quiet)
        states_same(called_state["upper"], state["upper"])


@of_cells
def test_dropout_inside_stacks_and_checkpoints(cell: Any) -> None:
    def layers() -> dict[str, Any]:
        return {
            "rnn": cell.layer(D, H, 2, dropout=0.5, rng=1), "drop": Dropout(0.5),
            "more": cell.layer(H, H, 3, dropout=0.2, rng=2),
        }  # fmt: skip

    x = rng.standard_normal((T, B, D)).astype(np.float32)
    model = Sequential(layers())
    output, _, tape = model.forward(x, rng=3)
    d_output = drawn(output)
    grads = model.backward(tape, d_output)
    wanted, _, by_layer = by_hand(layers(), x, {}, 3, d_output)
    same(output, wanted)
    same(grads.x, by_layer["rnn"].x)
    again, _, short = model.forward(x, rng=3, checkpoint=2)
    same(again, output)
    same(model.backward(short, d_output).flat_weights, grads.flat_weights)


@pytest.mark.parametrize("masks", [{}, {"lengths": LENGTHS}])
def test_batch_first_and_one_sequence(masks: Any) -> None:
    time_first, batch_first = Sequential(tagger()), Sequential(tagger(batch_first=True))
    output, state, tape = time_first.forward(INDICES, **masks, training=False)
    turned, turned_state, turned_tape = batch_first.forward(INDICES.T, **masks, training=False)
    same(turned, np.ascontiguousarray(output.swapaxes(0, 1)))
    same(turned_state["upper"], state["upper"])
    d = drawn(output)
    one = time_first.backward(tape, d).flat_weights
    other = batch_first.backward(turned_tape, np.ascontiguousarray(d.swapaxes(0, 1))).flat_weights
    # Where rows of an output layer are counted in another order, sums are rounded otherwise: each
    # of at most T·B terms of order one, on the way through two layers.
    np.testing.assert_allclose(other, one, rtol=0, atol=4 * T * B * 2.0**-24 * np.abs(one).max())

    alone, alone_state, alone_tape = time_first.forward(INDICES[:, 0], training=False)
    same(alone, output[:, 0])
    same(alone_state["upper"], state["upper"][:, 0])
    assert time_first.backward(alone_tape, drawn(alone)).flat_weights.shape == one.shape
    for last in (time_first(INDICES[:, 0], last=True)[0], batch_first(INDICES[:, 0], last=True)[0]):
        same(last, time_first(INDICES, last=True)[0][0])


def test_states_go_round_by_name() -> None:
    model = Sequential(tagger(CELLS["lstm"]))
    x = INDICES
    # The lower layer goes forward alone, so that it can be cut.
    _, first = model(x[:4])
    whole_lower = model(x)[1]["lower"]
    states_same(model(x[4:], {"lower": first["lower"]})[1]["lower"], whole_lower)
    states_same(model(x, {})[1]["upper"], model(x)[1]["upper"])
    states_same(model(x, {"upper": None})[1]["upper"], model(x)[1]["upper"])

    output, state, tape = model.forward(x, {"lower": first["lower"]}, training=False)
    grads = model.backward(tape, drawn(output))
    assert list(grads.state) == ["lower"]
    assert [d.shape for d in grads.state["lower"]] == [d.shape for d in state["lower"]]


# ------------------------------------------------------------------------------ many to one


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
@pytest.mark.parametrize("directions", [{}, {"bidirectional": True}, {"reverse": True}])
def test_last_is_the_output_at_each_rows_own_end(variant: Any, directions: Any) -> None:
    layer = variant.layer(D, H, 2, rng=0, **directions)
    x = rng.standard_normal((T, B, D)).astype(np.float32)
    lengths = np.array([T, 2, 5])
    output = layer(x, lengths=lengths)[0]
    n = output.shape[2] // 2 if layer.bidirectional else output.shape[2]
    ends = {False: output[lengths - 1, np.arange(B)], True: output[0]}
    if layer.bidirectional:
        wanted = np.concatenate([ends[False][:, :n], ends[True][:, n:]], axis=1)
    else:
        wanted = ends[layer.reverse]
    model = Sequential({"rnn": layer})
    last, state = model(x, lengths=lengths, last=True)
    if getattr(layer, "form", "") == "potential":  # f of the state, in NumPy
        # tanh of both is right to some units in the last place; others are exact or as good.
        np.testing.assert_allclose(last, wanted, rtol=2**-20, atol=2**-24)
    else:
        same(last, wanted)
    assert not np.shares_memory(last, state["rnn"][0])


def test_the_last_rates_of_potentials_are_those_of_forward() -> None:
    """Whatever has become of the layer until backward."""
    layer = fastrnn.LeakyRNN(D, H, form="potential", nonlinearity="sigmoid", rng=0)
    model = Sequential({"rnn": layer})
    x = np.ones((T, B, D), np.float32)
    output, _, tape = model.forward(x, last=True)
    wanted = model.backward(tape, drawn(output)).flat_weights
    layer.nonlinearity = "relu"
    same(model.backward(tape, drawn(output)).flat_weights, wanted)
    layer.form = "rate"
    same(model.backward(tape, drawn(output)).flat_weights, wanted)
    x[0] = np.inf  # without a warning
    output, state, tape = model.forward(x, last=True)
    model.backward(tape, np.full_like(output, np.inf), {"rnn": -np.full_like(state["rnn"], np.inf)})


def test_a_row_without_steps_has_its_initial_state() -> None:
    for cell in CELLS.values():
        model = Sequential({"rnn": cell.layer(D, H, bidirectional=True, rng=0)})
        x = np.ones((T, B, D), np.float32)
        _, state = model(x)
        last, _ = model(x, state, lengths=[0, T, 0], last=True)
        h = state["rnn"][0] if isinstance(state["rnn"], tuple) else state["rnn"]
        same(last[0], h[:, 0].ravel())
        assert not model(x, lengths=[0, T, 0], last=True)[0][0].any()


def loss_of(model: Any, x: Any, masks: Any, state: Any, coefficients: Any) -> float:
    output, last_state = model(x, state, **masks)
    total = float((output * coefficients["output"]).sum())
    for name, parts in coefficients["state"].items():
        made = last_state[name]
        made = made if isinstance(made, tuple) else (made,)
        total += sum(float((a * c).sum()) for a, c in zip(made, parts, strict=True))
    return total


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
@pytest.mark.parametrize("last", [False, True])
def test_finite_differences(variant: Any, last: bool) -> None:
    """Of x, initial states and all weights, on ragged rows, through both directions."""
    draw = np.random.default_rng(1).standard_normal
    first = fastrnn.GRU(2, 3, dtype="float64", rng=0)
    rnn = variant.layer(3, 3, bidirectional=True, dtype="float64", rng=1)
    width = rnn(np.zeros((1, 1, 3)))[0].shape[2]
    head = Linear(width, 2, dtype="float64", rng=2)
    model = Sequential({"first": first, "rnn": rnn, "out": head})
    x = draw((5, 3, 2))
    masks = {"lengths": [5, 0, 3], "restart": RESTART[:5], "last": last}
    state = model(draw((5, 3, 2)))[1]
    output, final, tape = model.forward(x, state, **masks)
    coefficients: dict[str, Any] = {"output": draw(output.shape), "state": {}}
    for name, made in final.items():
        parts = made if isinstance(made, tuple) else (made,)
        coefficients["state"][name] = [draw(a.shape) for a in parts]
    d_state = {
        name: tuple(parts) if isinstance(final[name], tuple) else parts[0]
        for name, parts in coefficients["state"].items()
    }
    grads = model.backward(tape, coefficients["output"], d_state)
    pairs = [(x, grads.x), (model.flat_weights, grads.flat_weights)]
    for name, initial in state.items():
        both = (initial, grads.state[name])
        pairs += zip(*both, strict=True) if isinstance(initial, tuple) else [both]
    for array, gradient in pairs:
        for at in list(np.ndindex(*array.shape))[:: max(1, array.size // 25)]:
            kept, losses = array[at], []
            for step in (1e-6, -1e-6):
                array[at] = kept + step
                losses.append(loss_of(model, x, masks, state, coefficients))
            array[at] = kept
            # Each loss, of order ten, is a sum of some hundred terms: rounded by 1e2 · 10 · 2^-53;
            # over 2e-6 that is 6e-8. The third derivative times 1e-12 / 6 is less.
            assert abs((losses[0] - losses[1]) / 2e-6 - gradient[at]) < 2e-7


def test_last_in_the_middle_of_other_layers() -> None:
    """What is behind the last recurrent layer has one vector a row, dropout of time included."""
    layers = {
        "drop": Dropout(0.2, variational=True), "rnn": fastrnn.LSTM(D, H, proj_size=2, rng=0),
        "thin": Dropout(0.5, variational=True), "out": Linear(2, O, rng=1),
    }  # fmt: skip
    x = rng.standard_normal((T, 50, D)).astype(np.float32)
    model = Sequential(layers)
    output, _, tape = model.forward(x, last=True, rng=0)
    assert output.shape == (50, O)
    assert tape.tapes["drop"].dropped.shape == (1, 50, D)
    dropped = tape.tapes["thin"].dropped
    assert dropped.shape == (50, 2)
    assert (dropped != dropped[0]).any()  # each row has a mask of its own
    assert model.backward(tape, drawn(output)).x.shape == x.shape


# ------------------------------------------------------------------------------ what is asked for


def test_wrt_leaves_out_and_changes_no_bits() -> None:
    model = Sequential(tagger(CELLS["lstm"]))
    state = {"lower": model(INDICES)[1]["lower"]}
    output, final, tape = model.forward(INDICES, state, rng=0)
    d = drawn(output)
    whole = model.backward(tape, d, {"lower": final["lower"]})
    asked: tuple[list[str], ...] = (
        [], ["state"], ["weights"], ["out.bias"], ["words.weight"], ["lower.bias_hh_l0", "state"],
        ["upper.weight_hh_l0_reverse", "out.weight"],
    )  # fmt: skip
    for wrt in asked:
        grads = model.backward(tape, d, {"lower": final["lower"]}, wrt)
        names = [n for n in model.weights if n in wrt or "weights" in wrt]
        assert list(grads.weights) == names
        for name in names:
            same(grads.weights[name], whole.weights[name])
        if names:
            rest = model.count_parameters() - sum(grads.weights[n].size for n in names)
            zero = grads.flat_weights.copy()
            at = 0
            for name, view in model.weights.items():
                if name not in names:
                    assert not zero[at : at + view.size].any()
                at += view.size
            assert rest == sum(model.weights[n].size for n in model.weights if n not in names)
        else:
            assert grads.flat_weights is None
        assert (grads.state is None) == ("state" not in wrt)
        if "state" in wrt:
            states_same(grads.state["lower"], whole.state["lower"])
        assert grads.x is None


def test_gradients_of_states_alone() -> None:
    """What is above the layer whose state the loss sees has gradients of zero."""
    model = Sequential(tagger(CELLS["lstm"]))
    _, state, tape = model.forward(INDICES, rng=0)
    grads = model.backward(tape, d_state={"lower": state["lower"]})
    zero = model.backward(tape, np.zeros((T, B, O), np.float32), {"lower": state["lower"]})
    same(grads.flat_weights, zero.flat_weights)
    assert not any(v.any() for n, v in grads.weights.items() if n.startswith(("upper", "out")))
    assert grads.weights["lower.bias_ih_l0"].any()
    h = state["lower"][0]
    part = model.backward(tape, d_state={"lower": (h, None)})
    assert part.weights["lower.bias_ih_l0"].any()

    ends = Sequential({"rnn": fastrnn.GRU(D, H, rng=0)})
    x = np.ones((T, B, D), np.float32)
    _, state, tape = ends.forward(x, last=True)
    last = ends.backward(tape, state["rnn"][0])
    alone = ends.backward(tape, d_state=state)
    same(last.flat_weights, alone.flat_weights)
    twice = ends.backward(tape, state["rnn"][0], state)
    _, _, plain = ends.layers["rnn"].forward(x)
    same(twice.x, ends.layers["rnn"].backward(plain, d_state=2 * state["rnn"]).x)


def test_the_norms_of_the_error_inside() -> None:
    layer = fastrnn.LSTM(D, H, rng=0)
    x = np.ones((T, B, D), np.float32)
    output, _, own = layer.forward(x)
    wanted = fastrnn.gradient_norms(own, output)
    _, _, tape = Sequential({"rnn": layer}).forward(x)
    assert np.array_equal(fastrnn.gradient_norms(tape.tapes["rnn"], output), wanted)


def test_a_model_serves_many_threads() -> None:
    model = Sequential(tagger())

    def run(seed: int) -> Any:
        output, _, tape = model.forward(INDICES, lengths=LENGTHS, last=seed % 2 == 0, rng=seed)
        return model.backward(tape, drawn(output)).flat_weights

    with ThreadPoolExecutor(4) as pool:
        for seed, found in enumerate(pool.map(run, range(24))):
            same(found, run(seed))


def test_a_tape_notices_changes_and_copies() -> None:
    model = Sequential(tagger())
    output, _, tape = model.forward(INDICES, rng=0, check=True)
    d = drawn(output)
    wanted = model.backward(tape, d)
    copied_model, copied = copy.deepcopy((model, tape))
    same(copied_model.backward(copied, d).flat_weights, wanted.flat_weights)
    grads = copy.deepcopy(wanted)
    assert np.shares_memory(grads.weights["out.bias"], grads.flat_weights)
    model.weights["lower.bias_ih_l0"][...] += 1
    with pytest.raises(RuntimeError, match="b_ih was changed"):
        model.backward(tape, d)
    wanted.flat_weights *= 2
    wanted.weights["out.bias"] += 1


# ------------------------------------------------------------------------------ PyTorch


@pytest.mark.parametrize("cell", [c for c in CELLS.values() if c.name != "leaky"])
@pytest.mark.parametrize("last", [False, True])
def test_agreement_with_torch(cell: Any, last: bool) -> None:
    """A tagger, and a classifier by the last states of both directions, in float64."""
    torch = pytest.importorskip("torch")
    name = cell.layer.__name__
    model = Sequential({
        "words": Embedding(V, D, padding_idx=0, dtype="float64", rng=0),
        "rnn": cell.layer(D, H, 2, bidirectional=True, dtype="float64", rng=1),
        "out": Linear(2 * H, O, dtype="float64", rng=2),
    })  # fmt: skip
    theirs = torch.nn.ModuleDict({
        "words": torch.nn.Embedding(V, D, padding_idx=0, dtype=torch.float64),
        "rnn": getattr(torch.nn, name)(D, H, 2, bidirectional=True, dtype=torch.float64),
        "out": torch.nn.Linear(2 * H, O, dtype=torch.float64),
    })  # fmt: skip
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in model.state_dict().items()})
    lengths = np.array([7, 1, 4])
    output, _, tape = model.forward(INDICES, lengths=lengths, last=last)
    targets = np.arange(output[..., 0].size).reshape(output.shape[:-1]) % O
    options = {} if last else {"lengths": lengths}
    loss, d = fastrnn.softmax_cross_entropy(output, targets, **options)
    grads = model.backward(tape, d)

    packed = torch.nn.utils.rnn.pack_padded_sequence(
        theirs["words"](torch.from_numpy(INDICES)), lengths, enforce_sorted=False
    )
    made, h = theirs["rnn"](packed)
    h = h[0] if isinstance(h, tuple) else h
    if last:
        logits = theirs["out"](torch.cat([h[-2], h[-1]], dim=1))
        their_loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets))
    else:
        logits = theirs["out"](torch.nn.utils.rnn.pad_packed_sequence(made)[0])
        at = torch.arange(T)[:, None] < torch.from_numpy(lengths)
        their_loss = torch.nn.functional.cross_entropy(logits[at], torch.from_numpy(targets)[at])
    their_loss.backward()
    ours = output if last else output[np.arange(T)[:, None] < lengths]
    wanted = logits.detach().numpy() if last else logits.detach()[at].numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-12, atol=1e-13)
    assert abs(loss - their_loss.item()) < 1e-12
    for weight, parameter in theirs.named_parameters():
        gradient, their = grads.weights[weight], parameter.grad.numpy()
        np.testing.assert_allclose(gradient, their, rtol=1e-12, atol=1e-13, err_msg=weight)
