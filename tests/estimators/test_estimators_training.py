"""How the estimators of networks train: as a loop by hand does, to the bit, and until when."""

import copy
import io
import math
import pickle
import signal
import sys
from typing import Any

import numpy as np
import pytest
from registry import CELLS

pytest.importorskip("sklearn")

import joblib

import fastrnn
from fastrnn.estimators import SequenceClassifier, SequenceRegressor, SequenceTagger

rng = np.random.default_rng(0)
X = [rng.standard_normal((n, 2)) for n in rng.integers(3, 9, 40)]
SIGNS = np.array([int(x[:, 0].sum() > 0) for x in X])
SUMS = np.array([x.sum(axis=0) for x in X])
MARKS = [(x[:, 0] > 0).astype(int) for x in X]
WORDS = ["abba", "aab", "bbab", "baa", "abab", "bb"] * 5

SMALL: dict[str, Any] = {"hidden_size": 6, "max_iter": 6, "random_state": 0}

# Of each kind its answers to X, and a loss of the model's output.
KINDS: dict[str, tuple[Any, Any]] = {
    "classifier": (SequenceClassifier, SIGNS),
    "regressor": (SequenceRegressor, SUMS),
    "tagger": (SequenceTagger, MARKS),
}
each = pytest.mark.parametrize("kind", KINDS)


def bits(model: Any) -> bytes:
    made: bytes = model.model_.flat_weights.tobytes()
    return made


# ------------------------------------------------------------------------------ a loop by hand


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@each
def test_training_is_that_of_a_loop_by_hand(kind: str, bidirectional: bool, weighted: bool) -> None:
    cls, y = KINDS[kind]
    options = {
        "hidden_size": 5, "batch_size": 40, "clip_norm": 0.05, "weight_decay": 0.1,
        "dtype": "float64", "random_state": 0, "bidirectional": bidirectional, "cell": "lstm",
    }  # fmt: skip
    weights = rng.uniform(0.5, 2, 40) if weighted else None
    # Steps that are too small to move a weight show what they were at the start.
    start = cls(max_iter=1, learning_rate_init=1e-200, **options | {"weight_decay": 0.0})
    model = copy.deepcopy(start.fit(X, y, weights).model_)
    trained = cls(max_iter=4, learning_rate_init=0.01, **options).fit(X, y, weights)

    steps = np.concatenate(X)
    x, lengths = fastrnn.pad_sequence([(a - steps.mean(axis=0)) / steps.std(axis=0) for a in X])
    adam = fastrnn.optim.AdamW([model.flat_weights], lr=0.01, weight_decay=0.1)
    losses = []
    for _ in range(4):
        last = kind != "tagger"
        output, _, tape = model.forward(x, lengths=lengths, last=last)
        if kind == "regressor":
            target = (SUMS - SUMS.mean(axis=0)) / SUMS.std(axis=0)
            loss, d = fastrnn.mean_squared_error(output, target, sample_weight=weights)
        elif kind == "classifier":
            loss, d = fastrnn.softmax_cross_entropy(output, SIGNS, sample_weight=weights)
        else:
            target, _ = fastrnn.pad_sequence(MARKS)
            loss, d = fastrnn.softmax_cross_entropy(
                output, target, lengths=lengths, sample_weight=weights
            )
        grads = model.backward(tape, d)
        assert fastrnn.clip_grad_norm(grads, 0.05) > 0.05
        adam.step(grads)
        losses.append(loss)
    # Batches have another order of rows, so that sums round otherwise.
    assert np.allclose(trained.model_.flat_weights, model.flat_weights, rtol=0, atol=1e-11)
    assert np.allclose(trained.loss_curve_, losses, rtol=1e-11)

    output, _ = model(x, lengths=lengths, last=kind != "tagger")
    if kind == "regressor":
        said = output * SUMS.std(axis=0) + SUMS.mean(axis=0)
        assert np.allclose(trained.predict(X), said, atol=1e-10)
    elif kind == "classifier":
        assert np.allclose(trained.predict_proba(X), fastrnn.softmax(output), atol=1e-10)
        log_p = trained.predict_log_proba(X)
        assert np.allclose(log_p, fastrnn.log_softmax(output), atol=1e-10)
        assert (trained.predict(X) == output.argmax(axis=1)).all()
    else:
        p = fastrnn.softmax(output)
        for i, (found, row) in enumerate(zip(trained.predict_proba(X), X, strict=True)):
            assert np.allclose(found, p[: len(row), i], atol=1e-10)


def test_the_loss_curve_is_the_mean_over_sequences_by_their_weights() -> None:
    weights = np.arange(1.0, 41)
    options = SMALL | {"learning_rate_init": 1e-200, "dtype": "float64", "max_iter": 1}
    whole = SequenceClassifier(batch_size=40, **options).fit(X, SIGNS, weights)
    parts = SequenceClassifier(batch_size=7, **options).fit(X, SIGNS, weights)
    assert parts.loss_ == pytest.approx(whole.loss_, rel=1e-12)
    p = whole.predict_log_proba(X)[np.arange(40), SIGNS]
    assert whole.loss_ == pytest.approx(-np.average(p, weights=weights), rel=1e-12)


def test_a_linear_rate_falls_to_0() -> None:
    rates: list[float] = []

    class Watched(SequenceClassifier):
        def _update(self, grads: Any) -> None:
            rates.append(self._optimizer.lr)
            super()._update(grads)

    Watched(learning_rate="linear", learning_rate_init=0.1, batch_size=20, **SMALL).fit(X, SIGNS)
    assert np.allclose(rates, 0.1 * (1 - np.arange(12) / 12))
    rates.clear()
    Watched(learning_rate_init=0.1, batch_size=20, **SMALL).fit(X, SIGNS)
    assert rates == [0.1] * 12


@pytest.mark.parametrize(
    ("size", "sequences", "steps"), [("auto", 64, 2), ("auto", 5, 1), (3, 8, 3)]
)
def test_sizes_of_batches(size: Any, sequences: int, steps: int) -> None:
    class Watched(SequenceClassifier):
        def _update(self, grads: Any) -> None:
            updates.append(1)
            super()._update(grads)

    updates: list[int] = []
    many = (X * 2)[:sequences], np.tile(SIGNS, 2)[:sequences]
    Watched(batch_size=size, **SMALL | {"max_iter": 2}).fit(*many)
    assert len(updates) == 2 * steps


# ------------------------------------------------------------------------------ bits


@each
def test_the_same_bits_on_any_number_of_threads(kind: str) -> None:
    cls, y = KINDS[kind]
    made = []
    for threads in (1, 2, 3):
        with fastrnn.num_threads(threads):
            options = {"bidirectional": True, "num_layers": 2, "dropout": 0.3}
            model = cls(hidden_size=20, max_iter=3, random_state=0, **options).fit(X, y)
            said = model.predict(X) if kind == "regressor" else model.predict_proba(X)
            made.append((bits(model), [np.asarray(a).tobytes() for a in said], model.loss_curve_))
    assert made[0] == made[1] == made[2]


@pytest.mark.usefixtures("one_thread")
@each
def test_what_is_said_of_a_sequence_does_not_depend_on_the_others(kind: str) -> None:
    cls, y = KINDS[kind]
    model = cls(bidirectional=True, **SMALL).fit(X, y)
    together = model.predict(X) if kind == "regressor" else model.predict_proba(X)
    for i in range(5):
        alone = model.predict(X[i : i + 1]) if kind == "regressor" else model.predict_proba([X[i]])
        assert np.asarray(alone[0]).tobytes() == np.asarray(together[i]).tobytes()


@pytest.mark.usefixtures("one_thread")
def test_random_states() -> None:
    def fitted(state: Any) -> bytes:
        return bits(SequenceClassifier(**SMALL | {"random_state": state}).fit(X, SIGNS))

    assert fitted(3) == fitted(3) == fitted(np.random.RandomState(3)) != fitted(4)
    state = np.random.RandomState(3)
    assert fitted(state) != fitted(state)
    assert fitted(None) != fitted(None)
    before = np.random.get_state()[1]  # noqa: NPY002
    fitted(3)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.usefixtures("one_thread")
@each
def test_copies_go_on_alone(kind: str) -> None:
    cls, y = KINDS[kind]
    model = cls(warm_start=True, **SMALL).fit(X, y)
    buffer = io.BytesIO()
    pickle.dump(model, buffer)
    stored = io.BytesIO()
    joblib.dump(model, stored)
    stored.seek(0)
    others = [copy.deepcopy(model), pickle.loads(buffer.getvalue()), joblib.load(stored)]
    before = bits(model)
    for other in others:
        assert bits(other) == before
        other.fit(X, y)
    assert bits(model) == before
    model.fit(X, y)
    assert bits(model) != before
    assert {bits(other) for other in others} == {bits(model)}


# ------------------------------------------------------------------------------ warm start

pieces = pytest.mark.usefixtures("one_thread")


@pieces
@pytest.mark.parametrize("pickled", [False, True])
@each
def test_two_fits_of_three_epochs_are_one_of_six(kind: str, pickled: bool) -> None:
    cls, y = KINDS[kind]
    options = SMALL | {"dropout": 0.2, "weight_decay": 0.01, "batch_size": 7}
    whole = cls(**options).fit(X, y)
    half = cls(warm_start=True, **options | {"max_iter": 3}).fit(X, y)
    if pickled:
        half = pickle.loads(pickle.dumps(half))
    half.fit(X, y)
    assert bits(half) == bits(whole)
    assert half.loss_curve_ == whole.loss_curve_
    assert half.n_iter_ == whole.n_iter_ == 6
    # Without warm_start a fit begins again.
    half.set_params(warm_start=False, max_iter=6).fit(X, y)
    assert bits(half) == bits(whole)


@pieces
def test_a_fit_that_goes_on_has_the_network_that_is_there() -> None:
    model = SequenceClassifier(warm_start=True, **SMALL).fit(X, SIGNS)
    before = bits(model)
    for changed in (
        {"hidden_size": 7}, {"cell": "lstm"}, {"dtype": "float64"}, {"bidirectional": True},
        {"dropout": 0.1}, {"standardize": False}, {"weight_decay": 0.1}, {"num_layers": 2},
    ):  # fmt: skip
        other = copy.deepcopy(model).set_params(**changed)
        (name,) = changed
        with pytest.raises(ValueError, match=f"^{name} is .* warm_start=True goes on with"):
            other.fit(X, SIGNS)
    with pytest.raises(ValueError, match="X has 3 features a step"):
        model.fit([np.ones((2, 3))] * 2, [0, 1])
    with pytest.raises(TypeError, match="X is of tokens"):
        model.fit(["ab", "ba"], [0, 1])
    with pytest.raises(ValueError, match=r"y has the label .*2.*warm_start=True goes on"):
        model.fit(X[:3], [0, 1, 2])
    with pytest.raises(TypeError, match="y has strings for labels"):
        model.fit(X[:2], ["a", "b"])
    assert bits(model) == before
    # What may change: the data, and how they are learned.
    model.set_params(learning_rate_init=0.001, batch_size=3, max_iter=1, clip_norm=None)
    model.fit(X[:3], [0, 0, 0])
    assert model.classes_.tolist() == [0, 1]
    assert model.n_iter_ == 7
    words = SequenceClassifier(warm_start=True, **SMALL).fit(["ab", "ba"], [0, 1])
    with pytest.raises(ValueError, match="'c' at step 1, a token never seen"):
        words.fit(["ac", "ba"], [0, 1])
    numbers = SequenceRegressor(warm_start=True, **SMALL).fit(X, SUMS)
    with pytest.raises(ValueError, match=r"has learned \(N, 2\)"):
        numbers.fit(X, SUMS[:, 0])


# ------------------------------------------------------------------------------ when it ends


@pieces
def test_training_ends_where_the_loss_falls_no_more() -> None:
    model = SequenceClassifier(**SMALL | {"max_iter": 50}, tol=10.0, n_iter_no_change=3)
    assert model.fit(X, SIGNS).n_iter_ == 4  # the first is better than none
    model.set_params(tol=0.0, n_iter_no_change=50)
    assert model.fit(X, SIGNS).n_iter_ == 50
    assert model.loss_ == model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.validation_scores_ is model.best_validation_score_ is None


@pieces
@each
def test_early_stopping_keeps_the_best_weights(kind: str) -> None:
    cls, y = KINDS[kind]
    held_out: list[Any] = []

    class Watched(cls):  # type: ignore[misc]
        def _split(self, rows: Any, stratify: Any) -> Any:
            made = super()._split(rows, stratify)
            held_out[:] = made[1]
            assert sorted([*made[0], *made[1]]) == list(range(40))
            return made

    model = Watched(
        early_stopping=True, validation_fraction=0.25, n_iter_no_change=4,
        learning_rate_init=0.05, **SMALL | {"max_iter": 30},
    ).fit(X, y)  # fmt: skip
    assert len(held_out) == 10
    scores = model.validation_scores_
    assert len(scores) == len(model.loss_curve_) == model.n_iter_
    assert model.best_validation_score_ == max(scores)
    if kind == "classifier":  # as many of each label as there are in all
        assert abs(SIGNS[held_out].mean() - SIGNS.mean()) < 0.06
    some = [X[i] for i in held_out], [y[i] for i in held_out]
    assert model.score(*some) == pytest.approx(max(scores))


@pieces
def test_early_stopping_of_numbers_that_are_alike_goes_by_the_error() -> None:
    model = SequenceRegressor(early_stopping=True, validation_fraction=0.1, **SMALL)
    model.fit(X, [0.0] * 39 + [1.0])  # of which 4 are held out
    assert len(set(model.validation_scores_)) > 1
    assert max(model.validation_scores_) < 0


@pieces
def test_early_stopping_of_too_few_sequences_is_refused() -> None:
    model = SequenceClassifier(early_stopping=True, **SMALL)
    for n, labels in [(1, [0]), (3, [0, 0, 1]), (4, [0, 1, 2, 3])]:
        with pytest.raises(ValueError, match=f"early_stopping=True cannot hold out .* of {n} seq"):
            model.fit(X[:n], labels)
        assert not hasattr(model, "model_")
    tagger = SequenceTagger(early_stopping=True, **SMALL)
    with pytest.raises(ValueError, match="cannot hold out"):
        tagger.fit(X[:1], MARKS[:1])


@pieces
def test_early_stopping_goes_on_from_the_best() -> None:
    model = SequenceRegressor(
        early_stopping=True, warm_start=True, validation_fraction=0.25, **SMALL
    ).fit(X, SUMS)
    before, best = bits(model), model.best_validation_score_
    model.set_params(learning_rate_init=5.0).fit(X, SUMS)  # which spoils it
    assert max(model.validation_scores_[6:]) < best
    assert bits(model) == before
    assert model.best_validation_score_ == best
    model.set_params(learning_rate_init=0.005).fit(X, SUMS)
    assert model.best_validation_score_ >= best


# ------------------------------------------------------------------------------ Ctrl-C


class Stopped(SequenceClassifier):
    """Somebody presses Ctrl-C in the middle of an epoch."""

    def _update(self, grads: Any) -> None:
        super()._update(grads)
        if self.n_iter_ == 3 and len(self.loss_curve_) == 3 and not getattr(self, "once", False):
            self.once = True
            signal.raise_signal(signal.SIGINT)


@pieces
def test_an_interrupted_fit_keeps_what_it_has_learned() -> None:
    model = Stopped(warm_start=True, batch_size=7, **SMALL)
    with pytest.warns(UserWarning, match="fit was interrupted in epoch 4") as caught:
        assert model.fit(X, SIGNS) is model
    assert caught[0].filename == __file__
    assert model.n_iter_ == 3
    assert model.loss_ == model.loss_curve_[-1]
    three = SequenceClassifier(batch_size=7, **SMALL | {"max_iter": 3}).fit(X, SIGNS)
    assert model.loss_curve_ == three.loss_curve_
    assert bits(model) != bits(three)  # a step further
    assert model.predict(X).shape == (40,)
    model.fit(X, SIGNS)
    assert model.n_iter_ == 9


@pieces
def test_an_interrupted_fit_of_early_stopping_has_the_best_weights() -> None:
    model = Stopped(early_stopping=True, validation_fraction=0.25, **SMALL)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, SIGNS)
    assert model.best_validation_score_ == max(model.validation_scores_)


# ------------------------------------------------------------------------------ divergence


@pieces
@pytest.mark.parametrize(
    ("kind", "rate"),
    [("classifier", 1e39), ("tagger", 1e39), ("regressor", 1e39), ("regressor", 1e37)],
)
def test_training_that_diverges_is_an_error(kind: str, rate: float) -> None:
    cls, y = KINDS[kind]
    model = cls(learning_rate_init=rate, **SMALL)
    with pytest.raises(ValueError, match=r"training diverged in epoch \d, .*learning_rate_init"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="not fitted yet"):
        model.predict(X)
    model.set_params(learning_rate_init=0.01, warm_start=True).fit(X, y)
    assert np.isfinite(model.model_.flat_weights).all()


@pieces
@pytest.mark.parametrize("early_stopping", [False, True])
def test_going_on_that_diverges_leaves_what_was_there(early_stopping: bool) -> None:
    cls, y = KINDS["regressor"]
    options = SMALL | {"warm_start": True, "early_stopping": early_stopping}
    model, other = (cls(**options).fit(X, y) for _ in range(2))
    weights, epochs = model.model_.flat_weights.copy(), model.n_iter_
    with pytest.raises(ValueError, match="training diverged"):
        model.set_params(learning_rate_init=1e37).fit(X, y)
    assert (model.model_.flat_weights == weights).all()
    assert model.n_iter_ == len(model.loss_curve_) == epochs
    model.set_params(learning_rate_init=other.learning_rate_init).fit(X, y)
    assert (model.model_.flat_weights == other.fit(X, y).model_.flat_weights).all()


@pieces
@each
def test_what_is_said_is_finite(kind: str) -> None:
    cls, y = KINDS[kind]
    model = cls(**SMALL).fit(X, y)
    model.model_.weights["output.bias"][...] = np.inf
    with pytest.raises(ValueError, match="output of the network is not finite"):
        model.predict(X)


# ------------------------------------------------------------------------------ progress


@pieces
def test_progress_in_lines(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    model = SequenceClassifier(
        verbose=True, early_stopping=True, validation_fraction=0.25, **SMALL
    ).fit(X, SIGNS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[0].startswith("epoch 1: loss 0.")
    assert ", validation score " in lines[0]


@pieces
def test_progress_in_a_bar(capsys: Any) -> None:
    pytest.importorskip("tqdm")
    SequenceRegressor(verbose=True, **SMALL).fit(X, SUMS)
    said = capsys.readouterr()
    assert said.out == ""
    assert "12/12" in said.err  # 6 epochs of 2 batches
    assert "loss " in said.err


@pieces
def test_silence(capsys: Any) -> None:
    SequenceRegressor(**SMALL).fit(X, SUMS)
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------------------ all sorts


@pieces
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
@each
def test_every_cell_learns(kind: str, cell: str, dtype: str) -> None:
    cls, y = KINDS[kind]
    model = cls(
        cell=cell, dtype=dtype, hidden_size=16, max_iter=25, learning_rate_init=0.02, random_state=0
    ).fit(X, y)
    assert model.model_.dtype == dtype
    assert model.score(X, y) > 0.8


@pieces
@each
def test_dropout_acts_in_training_alone(kind: str) -> None:
    cls, y = KINDS[kind]
    options = SMALL | {"num_layers": 2, "max_iter": 1}
    plain, dropping = cls(**options).fit(X, y), cls(dropout=0.5, **options).fit(X, y)
    assert list(dropping.model_.layers) == ["rnn", "dropout", "output"]
    assert dropping.model_.layers["rnn"].dropout == 0.5
    assert dropping.model_.layers["dropout"].p == 0.5
    assert bits(plain) != bits(dropping)
    assert np.array_equal(np.concatenate(dropping.predict(X), None),
                          np.concatenate(dropping.predict(X), None))  # fmt: skip
    # In a stack of one the layer itself has none.
    one = cls(dropout=0.5, **options | {"num_layers": 1}).fit(X, y)
    assert one.model_.layers["rnn"].dropout == 0


@pieces
@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_the_gradient_is_clipped(clip_norm: float | None) -> None:
    class Watched(SequenceRegressor):
        def _update(self, grads: Any) -> None:
            super()._update(grads)
            norms.append(float(np.linalg.norm(grads[0].flat_weights)))

    norms: list[float] = []
    Watched(clip_norm=clip_norm, **SMALL).fit(X, SUMS)
    assert (max(norms) < 1.001e-3) == (clip_norm is not None)


@pieces
def test_the_least_there_can_be() -> None:
    one = SequenceClassifier(**SMALL).fit([[1.0]], ["a"])
    assert one.predict([[5.0, 6.0]]).tolist() == ["a"]
    assert one.predict_proba([[5.0]]).tolist() == [[1.0]]
    assert one.predict_log_proba([[5.0]]).tolist() == [[0.0]]
    assert (
        SequenceTagger(**SMALL).fit([[1.0]], [["a"]]).predict([[2.0, 3.0]])[0].tolist() == ["a"] * 2
    )
    number = SequenceRegressor(**SMALL).fit([[1.0]], [7.0])
    assert math.isfinite(number.predict([[2.0]])[0])
    long = np.ones((1, 20_000))
    assert number.predict(long).shape == (1,)


@pieces
def test_tokens_become_vectors() -> None:
    model = SequenceClassifier(
        embedding_size=3, handle_unknown="ignore", bidirectional=True, **SMALL
    ).fit(WORDS, [word[-1] for word in WORDS])
    assert list(model.model_.layers) == ["embedding", "rnn", "output"]
    weight = model.model_.weights["embedding.weight"]
    assert weight.shape == (3, 3)
    assert not weight[2].any()  # of tokens that are not known
    assert model.model_.layers["rnn"].bidirectional
    assert model.model_.layers["output"].in_features == 12
