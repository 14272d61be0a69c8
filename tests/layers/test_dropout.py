"""Dropout as a layer: what is dropped, what the rest becomes, and whom the masks are for."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same

import fastrnn
from fastrnn import Dropout

rng = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_it_is_the_dropout_of_stacks(dtype: Any, backend: Any) -> None:
    """The same numbers, and the same bits, as between the layers of a stack."""
    options: dict[str, Any] = {"dtype": dtype, "bidirectional": True}
    stack = fastrnn.GRU(3, 4, 2, dropout=0.3, rng=0, **options)
    lower, upper = fastrnn.GRU(3, 4, **options), fastrnn.GRU(8, 4, **options)
    lower.load_state_dict({n: stack.weights[n] for n in lower.weights})
    upper.load_state_dict({n: stack.weights[n.replace("l0", "l1")] for n in upper.weights})
    x = rng.standard_normal((5, 2, 3)).astype(dtype)
    drop = Dropout(0.3)
    with fastrnn.backend(backend):
        output, _, tape = stack.forward(x, rng=7)
        low, _, low_tape = lower.forward(x)
        thin, thin_tape = drop.forward(low, rng=7)
        top, _, top_tape = upper.forward(thin)
        assert_same(top, output, "output")
        d = rng.standard_normal(top.shape).astype(dtype)
        d_thin = upper.backward(top_tape, d).x
        d_low = drop.backward(thin_tape, d_thin).x
        wanted = stack.backward(tape, d).x
        assert_same(lower.backward(low_tape, d_low).x, wanted, "the gradient of x")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_how_much_is_dropped(p: float) -> None:
    x = rng.standard_normal((100, 20, 50)) + 3
    output, tape = Dropout(p).forward(x, rng=0)
    dropped = output == 0
    # A proportion of 100,000 draws: within 5 of its deviations.
    assert abs(dropped.mean() - p) < 5 * np.sqrt(p * (1 - p) / x.size)
    assert np.array_equal(output[~dropped], x[~dropped] * (1 / (1 - p)))
    d = rng.standard_normal(x.shape)
    d_x = Dropout(p).backward(tape, d).x
    assert np.array_equal(d_x, np.where(dropped, 0, d * (1 / (1 - p))))


def test_finite_differences() -> None:
    x, d = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    for drop in (Dropout(0.4), Dropout(0.4, variational=True)):
        _, tape = drop.forward(x, rng=3)
        gradient = drop.backward(tape, d).x
        for at in np.ndindex(*x.shape):
            losses = []
            for step in (1e-3, -1e-3):
                moved = x.copy()
                moved[at] += step
                losses.append((drop.forward(moved, rng=3)[0] * d).sum())
            # It is linear: what is left is rounding, of 12 terms of order one, over 2e-3.
            assert abs((losses[0] - losses[1]) / 2e-3 - gradient[at]) < 12 * 4 * 2.0**-52 / 2e-3


@pytest.mark.parametrize("batch_first", [False, True])
def test_one_mask_for_all_steps(batch_first: bool) -> None:
    drop = Dropout(0.5, variational=True, batch_first=batch_first)
    x = np.ones((6, 7, 20))
    output, tape = drop.forward(x, rng=0)
    time = int(batch_first)
    assert (output == np.take(output, [0], axis=time)).all()
    rows = np.take(output, 0, axis=time)
    assert all((rows[i] != rows[j]).any() for i in range(len(rows)) for j in range(i))
    assert np.array_equal(drop.backward(tape, x).x, output)
    assert tape.dropped.shape[time] == 1

    one, tape = drop.forward(np.ones((6, 20)), rng=0)  # (T, D)
    assert (one == one[0]).all()
    assert set(one[0]) == {0, 2}
    assert np.array_equal(drop.backward(tape, np.ones((6, 20))).x, one)
    with pytest.raises(ValueError, match=r"x has shape \(3,\), expected"):
        drop.forward(np.ones(3), rng=0)
    with pytest.raises(ValueError, match=r"x has shape \(3,\), expected"):
        drop(np.ones(3))


def test_none_and_all() -> None:
    x = np.array([1.0, np.inf, -np.inf, np.nan, 1e300])
    output, tape = Dropout(0).forward(x)
    assert output is x
    d = np.arange(5.0)
    d_x = Dropout(0).backward(tape, d).x
    assert np.array_equal(d_x, d)
    assert d_x is not d
    output, tape = Dropout(1).forward(x, rng=0)
    assert not output.any()
    assert not Dropout(1).backward(tape, x).x.any()
    # What is dropped may be infinite or no number: it is zero then, no product with zero.
    output, _ = Dropout(0.5).forward(np.full(1000, np.nan), rng=0)
    assert set(np.isnan(output)) == {True, False}
    assert (output[~np.isnan(output)] == 0).all()


def test_in_use_it_is_the_identity() -> None:
    x = np.ones((3, 4), np.float32)
    drop = Dropout(0.5)
    assert drop(x) is x
    output, tape = drop.forward(x, training=False)
    assert output is x
    assert tape.dropped is None
    assert repr(tape) == "DropoutTape(float32 (3, 4), scale=1)"


def test_one_seed_drops_the_same_in_both_types() -> None:
    x = np.ones((50, 40))
    wide, narrow = (Dropout(0.3).forward(x.astype(t), rng=5)[0] for t in ("f8", "f4"))
    assert np.array_equal(wide == 0, narrow == 0)
    source = np.random.default_rng(5)
    assert_same(Dropout(0.3).forward(x, rng=source)[0], wide, "output")
    assert (Dropout(0.3).forward(x, rng=source)[0] != wide).any()  # it has moved on


def test_repr_copies_and_threads() -> None:
    assert repr(Dropout()) == "Dropout(0.5)"
    drop = Dropout(1 / 3, variational=True, batch_first=True)
    assert repr(drop) == "Dropout(0.3333333333333333, variational=True, batch_first=True)"
    x = np.ones((4, 3, 8), np.float32)
    output, tape = drop.forward(x, rng=0)
    for one in (copy.copy(drop), copy.deepcopy(drop), pickle.loads(pickle.dumps(drop))):
        assert repr(one) == repr(drop)
        assert_same(one.forward(x, rng=0)[0], output, "output")
    copied = pickle.loads(pickle.dumps(tape))
    assert_same(drop.backward(copied, x).x, output, "the gradient")
    grads = drop.backward(tape, x)
    grads.x *= 2
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: drop.forward(x, rng=0)[0], range(16)):
            assert_same(found, output, "output")


X = np.ones((2, 3))
WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: Dropout(1.5), ValueError, r"p is 1.5, expected 0 <= p <= 1"),
    (lambda: Dropout(-0.1), ValueError, r"p is -0.1, expected 0 <= p <= 1"),
    (lambda: Dropout(float("nan")), ValueError, "p is nan, expected 0 <= p <= 1"),
    (lambda: Dropout("half"), TypeError, "p is 'half', expected a number"),
    (lambda: Dropout(variational=1), TypeError, "variational is 1, expected True or False"),
    (lambda: Dropout(batch_first=True), ValueError, "pass batch_first=False"),
    (lambda: Dropout().forward(X), ValueError, "rng is None, but p is 0.5 and training is True"),
    (lambda: Dropout().forward(X, rng="a"), TypeError, "rng is 'a'"),
    (lambda: Dropout().forward(X, training=1), TypeError, "training is 1"),
    (lambda: Dropout().forward(X.astype(int), rng=0), TypeError, "x is int64"),
    (lambda: Dropout()([1.0]), TypeError, "x is a list"),
    (lambda: Dropout().backward(None, X), TypeError, "tape is None.*DropoutTape"),
    (lambda: Dropout().backward(Dropout().forward(X, rng=0)[1], X[:1]), ValueError, "^d_output"),
    (lambda: Dropout().backward(Dropout().forward(X, rng=0)[1], X.astype("f4")), TypeError,
     "^d_output is float32"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_wrong_calls(call: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_what_is_set_is_checked() -> None:
    drop = Dropout(0.5)
    drop.p = 0.25
    assert drop.p == 0.25
    with pytest.raises(ValueError, match="p is 2"):
        drop.p = 2
    with pytest.raises(AttributeError, match="did you mean variational"):
        drop.variation = True  # type: ignore[attr-defined]
    assert drop.p == 0.25


def test_agreement_with_torch() -> None:
    """Not of the numbers drawn, but of what becomes of them."""
    torch = pytest.importorskip("torch")
    for p in (0.0, 0.3, 1.0):
        x = rng.standard_normal((40, 50))
        theirs = torch.nn.functional.dropout(torch.from_numpy(x), p).numpy()
        kept = theirs != 0
        output, _ = Dropout(p).forward(x, rng=0)
        both = kept & (output != 0)
        assert np.allclose(output[both], theirs[both], rtol=4 * 2.0**-53)
        assert both.any() == (p < 1)
