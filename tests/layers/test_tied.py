"""Tied embedding and output layer; an embedding's index of padding."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same

import fastrnn
from fastrnn import GRU, Embedding, Linear, Sequential
from fastrnn.convert import to_torch
from fastrnn.optim import SGD

V, D = 11, 4
INDICES = np.random.default_rng(0).integers(0, V, (6, 3))


def network(bias: bool = True, dtype: str = "float32", padding: Any = None) -> tuple[Any, Any, Any]:
    words = Embedding(V, D, padding, dtype=dtype, rng=0)
    return words, GRU(D, D, dtype=dtype, rng=1), Linear.tied(words, bias, rng=2)


def test_one_memory() -> None:
    words, _, head = network()
    assert head.tied_to is words
    assert Linear(3, 2).tied_to is None
    assert np.shares_memory(head.weights["weight"], words.flat_weights)
    assert (head.in_features, head.out_features, head.bias, head.dtype) == (D, V, True, "float32")
    assert head.flat_weights.shape == (V,)
    assert np.shares_memory(head.weights["bias"], head.flat_weights)
    assert (np.abs(head.weights["bias"]) <= 0.5).all()  # 1 / sqrt(D)
    x = np.ones((5, D), np.float32)
    assert_same(head(x), fastrnn.linear_forward(x, *head.weights.values())[0], "output")
    words.weights["weight"][...] = 2
    assert (head.weights["weight"] == 2).all()
    assert repr(head) == f"Linear.tied(Embedding({V}, {D}))"
    bare = Linear.tied(words, False)
    assert repr(bare) == f"Linear.tied(Embedding({V}, {D}), bias=False)"
    assert bare.flat_weights.shape == (0,)
    assert list(bare.weights) == ["weight"]
    with pytest.raises(TypeError, match=r"embedding is .*, expected a fastrnn.Embedding"):
        Linear.tied(np.ones((3, 2)))
    with pytest.raises(TypeError, match="bias is 'single'"):
        Linear.tied(words, "single")  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match=r"it is layer\.weights"):
        _ = head.weight  # type: ignore[attr-defined]


def gradients(words: Any, rnn: Any, head: Any, by_hand: bool = True) -> tuple[Any, list[Any]]:
    x, x_tape = words.forward(INDICES)
    output, _, tape = rnn.forward(x)
    y, y_tape = head.forward(output)
    loss, d = fastrnn.softmax_cross_entropy(y, np.roll(INDICES, 1, 0))
    heads = head.backward(y_tape, d)
    rnns = rnn.backward(tape, heads.x)
    wordss = words.backward(x_tape, rnns.x)
    if by_hand:
        wordss.weights["weight"] += heads.weights["weight"]
    return loss, [wordss.flat_weights, rnns.flat_weights, heads.flat_weights]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_gradient_is_the_sum_of_both(bias: bool, backend: Any) -> None:
    """By finite differences of the one weight; in a Sequential it is added by itself."""
    words, rnn, head = network(bias, "float64")
    with fastrnn.backend(backend):
        _, by_hand = gradients(words, rnn, head)
        _, half = gradients(words, rnn, head, by_hand=False)
        assert not np.allclose(half[0], by_hand[0])
        for at in range(0, V * D, 3):
            kept, losses = words.flat_weights[at], []
            for step in (1e-6, -1e-6):
                words.flat_weights[at] = kept + step
                losses.append(gradients(words, rnn, head)[0])
            words.flat_weights[at] = kept
            # A mean of 18 losses of order one, each of some tens of roundings, over 2e-6.
            assert abs((losses[0] - losses[1]) / 2e-6 - by_hand[0][at]) < 64 * 2.0**-53 / 2e-6
        model = Sequential({"words": words, "rnn": rnn, "out": head})
        y, _, tape = model.forward(INDICES)
        _, d = fastrnn.softmax_cross_entropy(y, np.roll(INDICES, 1, 0))
        grads = model.backward(tape, d)
        assert_same(grads.flat_weights, np.concatenate(by_hand), "the gradients")
        every = model.backward(tape, d, wrt=["weights"])
        assert_same(every.flat_weights, grads.flat_weights, "the gradients, asked for")
        alone = model.backward(tape, d, wrt=["words.weight"])
        assert_same(alone.weights["words.weight"], grads.weights["words.weight"], "the gradient")
        assert not alone.flat_weights[V * D :].any()
        assert list(model.weights) == list(grads.weights)
        assert "out.weight" not in model.weights


def test_what_is_asked_for() -> None:
    words, _, head = network()
    x = np.ones((5, D), np.float32)
    y, tape = head.forward(x)
    whole = head.backward(tape, y)
    assert list(whole.weights) == ["weight", "bias"]
    assert whole.weights["weight"].shape == (V, D)
    assert not np.shares_memory(whole.weights["weight"], whole.flat_weights)
    assert_same(whole.flat_weights, whole.weights["bias"], "the bias")
    for wrt in (["weight"], ["bias"], ["x"], ["weights"], ["bias", "weight", "x"], []):
        grads = head.backward(tape, y, wrt=wrt)
        names = [n for n in ("weight", "bias") if n in wrt or "weights" in wrt]
        assert list(grads.weights) == names
        for name in names:
            assert_same(grads.weights[name], whole.weights[name], name)
        assert (grads.flat_weights is None) == ("bias" not in names)
        assert (grads.x is None) == ("x" not in wrt)
    bare = Linear.tied(words, False)
    grads = bare.backward(bare.forward(x)[1], y)
    assert grads.flat_weights.shape == (0,)
    copied = copy.deepcopy(grads)
    assert_same(copied.weights["weight"], grads.weights["weight"], "the gradient")
    optimiser = SGD([words.flat_weights, bare.flat_weights], lr=1.0)
    optimiser.step([grads.weights["weight"].ravel(), grads.flat_weights])


def test_training_is_pytorchs() -> None:
    """Three steps of SGD on a tied language model with an index of padding, in float64."""
    torch = pytest.importorskip("torch")
    words, rnn, head = network(dtype="float64", padding=0)
    model = Sequential({"words": words, "rnn": rnn, "out": head})
    theirs = torch.nn.ModuleDict({
        "words": torch.nn.Embedding(V, D, padding_idx=0, dtype=torch.float64),
        "rnn": torch.nn.GRU(D, D, dtype=torch.float64),
        "out": torch.nn.Linear(D, V, dtype=torch.float64),
    })  # fmt: skip
    theirs["out"].weight = theirs["words"].weight
    state = {n: torch.from_numpy(a) for n, a in model.state_dict().items()}
    theirs.load_state_dict({**state, "out.weight": state["words.weight"]})
    model.load_state_dict(theirs.state_dict())  # which has the weight under both names
    sgd = SGD([model.flat_weights], lr=0.5)
    their_sgd = torch.optim.SGD(theirs.parameters(), lr=0.5)
    targets = np.roll(INDICES, 1, 0)
    for _ in range(3):
        y, _, tape = model.forward(INDICES)
        loss, d = fastrnn.softmax_cross_entropy(y, targets)
        grads = model.backward(tape, d)
        their_sgd.zero_grad()
        logits = theirs["out"](theirs["rnn"](theirs["words"](torch.from_numpy(INDICES)))[0])
        their_loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, V), torch.from_numpy(targets).reshape(-1)
        )
        their_loss.backward()
        assert abs(loss - their_loss.item()) < 1e-12
        for name, parameter in theirs.named_parameters():
            gradient, wanted = grads.weights[name], parameter.grad.numpy()
            np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-13, err_msg=name)
        sgd.step([grads.flat_weights])
        their_sgd.step()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "way", [copy.deepcopy, *(lambda a, n=n: pickle.loads(pickle.dumps(a, n)) for n in (2, 5))]
)
def test_copied_together_they_stay_tied(way: Any, order: int) -> None:
    words, _, head = network()
    sgd = SGD([words.flat_weights, head.flat_weights], lr=1.0)
    words_2, head_2, sgd_2 = way((words, head, sgd)[::order])[::order]
    assert head_2.tied_to is words_2
    assert np.shares_memory(head_2.weights["weight"], words_2.flat_weights)
    assert not np.shares_memory(words_2.flat_weights, words.flat_weights)
    sgd_2.step([np.ones_like(p) for p in sgd_2.params])
    assert_same(head_2.weights["weight"], words.weights["weight"] - 1, "the weight")
    alone = way(head)
    assert_same(alone.weights["weight"], head.weights["weight"], "the weight")
    assert not np.shares_memory(alone.weights["weight"], words.flat_weights)
    assert copy.copy(head).tied_to is words
    tape = head.forward(np.ones((2, D), np.float32))[1]
    assert alone.backward(way(tape), np.ones((2, V), np.float32)).x.shape == (2, D)


def test_an_embedding_that_moves_takes_its_heads_along() -> None:
    words, rnn, head = network()
    other = Linear.tied(words)
    Sequential({"words": words, "rnn": rnn, "out": head})
    for one in (head, other):  # one in the model, one outside
        assert np.shares_memory(one.weights["weight"], words.flat_weights)
        words.flat_weights[...] = 5
        assert (one.weights["weight"] == 5).all()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "tied.safetensors"
    words, rnn, head = network(padding=3)
    for given in ({"words": words, "head": head}, {"head": head, "rnn": rnn, "words": words}):
        fastrnn.save(path, given)
        loaded = fastrnn.load(path)
        assert list(loaded) == list(given)
        assert loaded["head"].tied_to is loaded["words"]
        assert repr(loaded["head"]) == repr(head)
        for name in ("weight", "bias"):
            assert_same(loaded["head"].weights[name], head.weights[name], name)
        assert (
            path.stat().st_size < 3 * words.flat_weights.nbytes + 4000
        )  # the weight is there once
    bare = Linear.tied(words, False)
    fastrnn.save(path, {"words": words, "head": bare})
    assert fastrnn.load(path)["head"].bias is False
    for given in ({"head": head}, {"head": head, "words": copy.deepcopy(words)}):
        with pytest.raises(ValueError, match="tied to an embedding that objects lacks") as refused:
            fastrnn.save(path, given)
        objects = given
        cure = str(refused.value).partition(": write objects = ")[2]
        fastrnn.save(path, eval(cure, {"objects": objects}))
        assert fastrnn.load(path)["head"].tied_to is not None
    fastrnn.save(path, head.state_dict() | {"rnn": rnn})
    assert list(fastrnn.load(path)) == ["weight", "bias", "rnn"]


def test_state_dicts() -> None:
    words, rnn, head = network()
    assert list(head.state_dict()) == ["weight", "bias"]
    assert {n: a.shape for n, a in to_torch(head).items()} == {"weight": (V, D), "bias": (V,)}
    plain = Linear(D, V)
    plain.load_state_dict(head.state_dict())
    head.load_state_dict({n: a * 2 for n, a in head.state_dict().items()})
    assert_same(words.weights["weight"], plain.weights["weight"] * 2, "the weight")
    model = Sequential({"words": words, "rnn": rnn, "out": head})
    state = model.state_dict()
    assert "out.weight" not in state
    both = {**state, "out.weight": state["words.weight"]}
    model.load_state_dict(both)
    only = {n: a for n, a in both.items() if n != "words.weight"}
    model.load_state_dict(only)  # under one of its names it is enough
    both["out.weight"] = both["out.weight"] + 1
    with pytest.raises(ValueError, match="but they are one weight: out is tied"):
        model.load_state_dict(both)


def test_generate_takes_a_tied_head() -> None:
    words, rnn, head = network()
    plain = Linear(D, V)
    plain.load_state_dict(head.state_dict())
    wanted, _ = fastrnn.generate(words, rnn, plain, [1, 2], 30, rng=0)
    for backend in ("compiled", "reference"):
        with fastrnn.backend(backend):  # type: ignore[arg-type]
            indices, _ = fastrnn.generate(words, rnn, head, [1, 2], 30, rng=0)
            assert np.array_equal(indices, wanted)
    Sequential({"words": words, "rnn": rnn, "out": head})
    assert np.array_equal(fastrnn.generate(words, rnn, head, [1, 2], 30, rng=0)[0], wanted)


# ------------------------------------------------------------------------------ padding


@pytest.mark.parametrize("index", [0, 4, V - 1, -1, -V])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_padding(index: int, backend: Any) -> None:
    words, plain = Embedding(V, D, index, rng=0), Embedding(V, D, rng=0)
    at = index % V
    assert words.padding_idx == at
    others = np.arange(V) != at
    assert not words.weights["weight"][at].any()
    assert_same(words.weights["weight"][others], plain.weights["weight"][others], "the others")
    indices = np.concatenate([INDICES, np.full((2, 3), at)])
    with fastrnn.backend(backend):
        output, tape = words.forward(indices)
        assert not output[-2:].any()
        d = np.ones_like(output)
        d[-1] = np.nan
        grads = words.backward(tape, d)
        wanted = plain.backward(plain.forward(indices)[1], d).weights["weight"]
    assert not grads.weights["weight"][at].any()
    assert_same(grads.weights["weight"][others], wanted[others], "the gradients of the others")
    assert words.backward(tape, d, wrt=[]).flat_weights is None
    for one in (copy.deepcopy(words), pickle.loads(pickle.dumps(words))):
        assert repr(one) == repr(words) == f"Embedding({V}, {D}, padding_idx={at})"


def test_a_tied_head_moves_the_vector_of_padding_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    words = Embedding(V, D, 0, dtype="float64", rng=0)
    model = Sequential({"words": words, "out": Linear.tied(words, bias=False)})
    theirs = torch.nn.Embedding(V, D, padding_idx=0, dtype=torch.float64)
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in words.state_dict().items()})
    logits, _, tape = model.forward(INDICES)
    grads = model.backward(tape, np.ones_like(logits))
    torch.nn.functional.linear(theirs(torch.from_numpy(INDICES)), theirs.weight).sum().backward()
    assert grads.weights["words.weight"][0].any()
    # Sums of 18 products, and of 11 in front of them, of numbers below 4.
    np.testing.assert_allclose(
        grads.weights["words.weight"], theirs.weight.grad.numpy(), rtol=0, atol=800 * 2.0**-53
    )


def test_padding_elsewhere(tmp_path: Path) -> None:
    for bad in (V, -V - 1):
        with pytest.raises(ValueError, match=f"padding_idx is {bad}, expected -num_embeddings"):
            Embedding(V, D, padding_idx=bad)
    with pytest.raises(TypeError, match=r"padding_idx is 1\.0, expected an integer"):
        Embedding(V, D, padding_idx=1.0)  # type: ignore[arg-type]
    words = Embedding(V, D, 2, rng=0)
    with pytest.raises(AttributeError, match="padding_idx was fixed"):
        words.padding_idx = 3
    path = tmp_path / "words.safetensors"
    words.weights["weight"][2] = 1  # whatever somebody wrote there
    fastrnn.save(path, {"words": words})
    loaded = fastrnn.load(path)["words"]
    assert repr(loaded) == repr(words)
    assert_same(loaded.flat_weights, words.flat_weights, "the weights")
    fastrnn.save(path, {"words": Embedding(V, D, rng=0)})
    assert b"padding" not in path.read_bytes()  # as files were before


def test_padding_and_torch() -> None:
    torch = pytest.importorskip("torch")
    for index in (None, 3, -2):
        module = torch.nn.Embedding(V, D, padding_idx=index)
        words = fastrnn.convert.from_torch(module)
        assert isinstance(words, Embedding)
        assert words.padding_idx == module.padding_idx
        assert_same(words.weights["weight"], module.weight.detach().numpy(), "the weight")
        x, tape = words.forward(INDICES)
        theirs = module(torch.from_numpy(INDICES))
        theirs.sum().backward()
        gradient = words.backward(tape, np.ones_like(x)).weights["weight"]
        assert_same(gradient, module.weight.grad.numpy(), "the gradient")
        module.load_state_dict({n: torch.from_numpy(a) for n, a in to_torch(words).items()})
        model = torch.nn.ModuleDict({"words": module})
        assert fastrnn.convert.from_torch(model, "words").padding_idx == module.padding_idx
        assert fastrnn.convert.from_torch(module.state_dict(), kind="Embedding").padding_idx is None
