"""EchoStateRegressor against its equations in plain NumPy, scikit-learn's Ridge, and bad input."""

import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.multioutput import MultiOutputRegressor

import fastrnn
from fastrnn.estimators import EchoStateRegressor, echo_state

Array = np.ndarray[Any, Any]
EPS = np.finfo(float).eps


def made(**parameters: Any) -> EchoStateRegressor:
    return EchoStateRegressor(**{"hidden_size": 12, "random_state": 0, "alpha": 1.0} | parameters)


def ragged(lengths: tuple[int, ...], features: int = 2, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [3 + 2 * rng.standard_normal((n, features)) for n in lengths]


def delayed(x: list[Array]) -> list[Array]:
    """(T_i, 2): the first feature one step ago, and the sum of all."""
    return [np.stack([np.append(0, a[:-1, 0]), a.sum(axis=1)], axis=1) for a in x]


def seen(model: EchoStateRegressor, x: list[Array], standardised: bool = True) -> list[Array]:
    """What the readout sees, by the kernel for each sequence alone."""
    u = standard(x) if standardised else x
    return [np.concatenate([model.reservoir_(a)[0], a], axis=1) for a in u]


def standard(x: list[Array]) -> list[Array]:
    together = np.concatenate(x)
    return [(a - together.mean(axis=0)) / together.std(axis=0) for a in x]


def close_readout(
    model: EchoStateRegressor, states: Array, y: Array, weights: Array, coef: Array
) -> None:
    """Within rounding of a solution by other means.

    Each product of n steps has an error of n eps of the largest one at most, and the solution of
    the normal equations one of its condition times that; ten for what both do besides.
    """
    mean = weights @ states / weights.sum()
    centred = (states - mean) * np.sqrt(weights)[:, None]
    normal = centred.T @ centred + model.alpha * np.eye(states.shape[1])
    bound = 10 * sum(states.shape) * EPS * np.linalg.cond(normal)
    assert bound < 1e-4
    scale = np.abs(coef).max() + np.abs(y).max() / np.sqrt(np.diag(normal)).min()
    np.testing.assert_allclose(model.coef_, coef, rtol=0, atol=bound * scale)
    intercept = weights @ (y - states @ coef.T) / weights.sum()
    far = bound * scale * (1 + np.abs(mean).sum()) + 10 * EPS * np.abs(y).max()
    np.testing.assert_allclose(model.intercept_, intercept, rtol=0, atol=far)


# ------------------------------------------------------------------------------ equations


def test_states_are_those_of_the_equation() -> None:
    x = ragged((9, 12, 4))
    model = made(leak=0.6, bias_scaling=0.5).fit(x, delayed(x))
    w = {name: model.reservoir_.weights[name] for name in model.reservoir_.weights}
    u = standard(x)
    expected = []
    for a in u:
        h, states = np.zeros(12), []
        for step in a:
            z = w["weight_ih_l0"] @ step + w["weight_hh_l0"] @ h + w["bias_ih_l0"]
            h = 0.4 * h + 0.6 * np.tanh(z)
            states.append(np.append(h, step) @ model.coef_.T + model.intercept_)
        expected.append(np.array(states))
    # The rounding of a step, 20 sums of terms below 5, grows by |0.4 + 0.6 W| at most in each.
    growth = 0.4 + 0.6 * np.linalg.norm(w["weight_hh_l0"], 2)
    bound = 100 * EPS * np.abs(model.coef_).sum() * max(growth, 1) ** 12
    assert bound < 1e-6
    for got, right in zip(model.predict(x), expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=0, atol=bound)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 100.0])
def test_readout_is_least_squares_of_the_augmented_system(alpha: float) -> None:
    x = ragged((30, 17, 25, 8))
    y = delayed(x)
    model = made(alpha=alpha, washout=3).fit(x, y, sample_weight=[1, 2, 0.5, 3])
    weighted = np.repeat([1, 2, 0.5, 3], [30, 17, 25, 8])
    together = np.concatenate(x)
    mean = np.average(together, axis=0, weights=weighted)
    deviation = np.sqrt(np.average((together - mean) ** 2, axis=0, weights=weighted))
    u = [(a - mean) / deviation for a in x]
    states = np.concatenate([a[3:] for a in seen(model, u, standardised=False)])
    wanted = np.concatenate([a[3:] for a in y])
    weights = np.repeat([1, 2, 0.5, 3], [27, 14, 22, 5])
    root = np.sqrt(weights)[:, None]
    ones = np.ones((len(states), 1))
    above = np.concatenate([states, ones], axis=1) * root
    below = np.sqrt(alpha) * np.eye(14, 15)  # of all but the intercept
    right = np.concatenate([wanted * root, np.zeros((14, 2))])
    solved = np.linalg.lstsq(np.concatenate([above, below]), right, rcond=None)[0]
    close_readout(model, states, wanted, weights, solved[:14].T)


def test_readout_is_that_of_ridge_where_means_are_large() -> None:
    x = [a + 1e4 for a in ragged((200, 150), seed=1)]
    y = [a[:, 0] * 2 + 1e6 for a in x]
    model = made(standardize=False, input_scaling=1e-5, bias_scaling=2.0).fit(x, y)
    states, wanted = np.concatenate(seen(model, x, standardised=False)), np.concatenate(y)
    ridge = Ridge(alpha=1.0, solver="svd").fit(states - states.mean(axis=0), wanted)
    close_readout(model, states, wanted[:, None], np.ones(350), ridge.coef_[None])


def test_without_a_penalty_it_is_linear_regression() -> None:
    x = ragged((60, 60))
    model = made(alpha=0, hidden_size=5).fit(x, delayed(x))
    states, wanted = np.concatenate(seen(model, x)), np.concatenate(delayed(x))
    linear = LinearRegression().fit(states, wanted)
    close_readout(model, states, wanted, np.ones(120), linear.coef_)


def test_alpha_means_the_same_in_other_units_and_with_other_targets() -> None:
    x = ragged((40, 30))
    y = delayed(x)
    model = made().fit(x, y)
    larger = made().fit(x, [a * 2.0**900 for a in y])
    assert (larger.coef_ == model.coef_ * 2.0**900).all()
    for k in range(2):
        alone = made().fit(x, [a[:, k] for a in y])
        np.testing.assert_allclose(alone.coef_[0], model.coef_[k], rtol=1e-9, atol=1e-12)
    units = made().fit([a * [1e-200, 1e200] for a in x], y)
    np.testing.assert_allclose(units.coef_, model.coef_, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------ reservoir


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.2])
def test_reservoir_is_as_its_parameters_say(radius: float) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 4))
    model = made(
        hidden_size=100, spectral_radius=radius, density=0.1, input_scaling=0.2, bias_scaling=3.0,
        leak=0.3,
    ).fit(x, x[:, 0, 0])  # fmt: skip
    w = model.reservoir_.weights
    # Eigenvalues of a matrix of this size are good to about 1e-14 of its norm, and ill-conditioned.
    assert np.abs(np.linalg.eigvals(w["weight_hh_l0"])).max() == pytest.approx(radius, abs=1e-9)
    if radius:  # 1000 of 10000 are expected, five deviations are 150
        assert abs(np.count_nonzero(w["weight_hh_l0"]) - 1000) < 150
    for name, scaling in (("weight_ih_l0", 0.2), ("bias_ih_l0", 3.0)):
        assert 0.9 * scaling < np.abs(w[name]).max() <= scaling
        assert w[name].min() < 0 < w[name].max()
    assert (w["weight_leak_l0"] == 0.3).all()


def test_states_forget_how_they_began_below_a_radius_of_1() -> None:
    x = np.random.default_rng(0).standard_normal((1, 300, 1))
    layer = made(hidden_size=50, spectral_radius=0.8).fit(x, x[..., 0]).reservoir_
    other = np.random.default_rng(1).uniform(-1, 1, (1, 50))
    apart = np.abs(layer(x[0])[0] - layer(x[0], other)[0]).max(axis=1)
    assert apart[0] > 0.1
    assert apart[-1] < 1e-12


def test_a_memory_of_some_steps() -> None:
    x = np.random.default_rng(0).standard_normal((4, 400))
    y = np.concatenate([np.zeros((4, 5)), x[:, :-5]], axis=1)
    model = EchoStateRegressor(hidden_size=100, random_state=0, washout=10).fit(x[:3], y[:3])
    assert model.score(x[3:], y[3:]) > 0.9  # x itself says nothing of it


# ------------------------------------------------------------------------------ pieces


@pytest.mark.parametrize("each_step", [True, False])
def test_a_sequence_read_in_pieces_is_the_same(
    monkeypatch: pytest.MonkeyPatch, each_step: bool
) -> None:
    x = ragged((400, 3, 150, 1, 149))
    y = delayed(x) if each_step else [a[-1, 0] for a in x]
    whole = made(hidden_size=3).fit(x, y)
    predicted = whole.predict(x)
    sizes: list[int] = []
    read = echo_state.LeakyRNN.__call__

    def counted(self: Any, u: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(u.shape[0] * u.shape[1])
        return read(self, u, *rest, **options)

    monkeypatch.setattr(echo_state.LeakyRNN, "__call__", counted)
    monkeypatch.setattr(echo_state, "PIECE", 60)
    for a, b in zip(whole.predict(x), predicted, strict=True):
        assert np.array_equal(a, b)
    assert max(sizes) <= 20
    in_pieces = made(hidden_size=3).fit(x, y)
    np.testing.assert_allclose(in_pieces.coef_, whole.coef_, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("each_step", [True, False])
def test_a_sequence_alone_is_predicted_as_among_others(each_step: bool) -> None:
    x = ragged((40, 7, 23))
    model = made(hidden_size=30).fit(x, delayed(x) if each_step else [1.0, 2.0, 4.0])
    together = model.predict(x)
    for n in (1, 3):
        with fastrnn.num_threads(n):
            for a, row in zip(x, together, strict=True):
                assert np.array_equal(model.predict([a])[0], row)


# ------------------------------------------------------------------------------ forms of X and y


def concatenated(x: Any) -> Any:
    return np.concatenate(x), [len(a) for a in x]


@pytest.mark.parametrize("form", [list, np.array, concatenated])
@pytest.mark.parametrize("targets", [None, 1, 2])
def test_predictions_have_the_form_of_y(form: Callable[[Any], Any], targets: int | None) -> None:
    x = ragged((6, 6, 6))
    y = [a[:, 0] if targets is None else a[:, :targets] for a in delayed(x)]
    usual = made().fit(x, y)
    given = np.concatenate(y) if form is concatenated else form(y)
    model = made().fit(form(x), given)
    assert np.array_equal(model.coef_, usual.coef_)
    predicted = model.predict(form(x))
    assert isinstance(predicted, np.ndarray if form is np.array else list)
    shape = (6,) if targets is None else (6, targets)
    for got, right in zip(predicted, usual.predict(x), strict=True):
        assert got.shape == shape
        assert np.array_equal(got, right)
    assert model.score(form(x), given) == usual.score(x, y)


@pytest.mark.parametrize("form", [list, np.array, tuple, lambda y: np.array(y, object), iter])
def test_a_number_for_each_sequence(form: Callable[[Any], Any]) -> None:
    x = ragged((5, 9, 6, 12, 8))
    y = [float(a[-1, 0]) for a in x]
    model = made(alpha=1e-6).fit(x, form(y))
    assert model.coef_.shape == (1, 14)
    predicted = model.predict(x)
    assert predicted.shape == (5,)
    np.testing.assert_allclose(predicted, y, atol=1e-3)  # the features are seen as they are
    assert model.score(x, form(y)) > 0.99
    last = np.array([a[-1] for a in seen(model, x)])
    ridge = Ridge(alpha=1e-6, solver="svd").fit(last, y)
    np.testing.assert_allclose(predicted, ridge.predict(last), atol=1e-6)


def test_univariate_sequences_and_sequences_of_one_step() -> None:
    x = np.random.default_rng(0).standard_normal((30, 10))
    model = made().fit(x, x.cumsum(axis=1))
    assert model.n_features_in_ == 1
    assert model.predict(list(x))[0].shape == (10,)
    assert made().fit(list(x), x.cumsum(axis=1)).predict(x).shape == (30, 10)
    column = x[:, :1]
    assert made().fit(list(column), column).predict(column[..., None]).shape == (30, 1)
    assert made().fit(list(column), column[:, 0]).predict(list(column)).shape == (30,)
    flat = (column, [1] * 30)
    model = made().fit(flat, column)  # one behind the other
    assert model.score(flat, column[:, 0]) == model.score(list(column), column)


def test_a_single_series_that_is_not_in_a_list_is_a_warning() -> None:
    series = np.random.default_rng(0).standard_normal((30, 3))
    for y in (series, series[:, 0]):
        with pytest.warns(UserWarning, match=r"30 sequences of 3 steps\..* pass \[X\], and"):
            quick = made().fit(series, y)
        meant = made().fit(list(series), y)
        assert np.array_equal(quick.coef_, meant.coef_)
    made().fit(series.T, series.T)
    model = made().fit([series[:, :1]], [series[:, 1]])
    for answer in (model.predict, lambda x: model.score(x, x)):
        with pytest.warns(UserWarning, match=r"30 sequences of 1 step\."):
            answer(series[:, :1])


def test_numbers_for_each_sequence_by_one_estimator_each() -> None:
    x = np.random.default_rng(0).standard_normal((30, 10))
    y = np.stack([x.sum(axis=1), x[:, -1], x[:, 0]], axis=1)
    with pytest.raises(ValueError, match="MultiOutputRegressor") as error:
        made().fit(x, y)
    assert "y has shape (30, 3), but the sequences of X have 10 steps" in str(error.value)
    with pytest.raises(ValueError, match="MultiOutputRegressor"):
        made().fit(x, y.tolist())
    model = MultiOutputRegressor(made()).fit(x, y)
    assert model.predict(x).shape == (30, 3)
    with pytest.warns(DataConversionWarning, match=r"y\.ravel\(\)"):
        column = made().fit(x, y[:, 1:2])
    assert np.array_equal(column.predict(x), made().fit(x, y[:, 1]).predict(x))


# ------------------------------------------------------------------------------ weights, washout


def test_a_sequence_of_weight_0_is_left_out_and_one_of_weight_2_is_there_twice() -> None:
    x = ragged((20, 15, 25))
    y = delayed(x)
    without = made().fit(x[:2], y[:2])
    weighted = made().fit(x, y, sample_weight=[1, 1, 0])
    assert np.array_equal(weighted.coef_, without.coef_)
    assert np.array_equal(weighted.intercept_, without.intercept_)
    twice = made().fit(x + x[:1], y + y[:1])
    weighted = made().fit(x, y, sample_weight=[2, 1, 1])
    np.testing.assert_allclose(weighted.coef_, twice.coef_, rtol=1e-9, atol=1e-12)
    assert without.score(x, y, sample_weight=[1, 1, 0]) == pytest.approx(
        without.score(x[:2], y[:2])
    )
    of_rows = [float(a.sum()) for a in x]
    model = made().fit(x, of_rows, sample_weight=[1, 0, 1])
    assert np.array_equal(model.coef_, made().fit(x[::2], of_rows[::2]).coef_)


def test_nothing_is_learned_from_the_washout() -> None:
    x = ragged((20, 4, 25))
    y = delayed(x)
    model = made(washout=5).fit(x, y)
    other = [a.copy() for a in y]
    for a in other:
        a[:5] = 1e3
    changed = made(washout=5).fit(x, other)
    np.testing.assert_allclose(changed.coef_, model.coef_, rtol=1e-9, atol=1e-12)
    assert [len(a) for a in model.predict(x)] == [20, 4, 25]
    with pytest.raises(ValueError, match="washout is 25, but the longest sequence has 25 steps"):
        made(washout=25).fit(x, y)
    assert made(washout=24).fit(x, y).coef_.shape == (2, 14)


# ------------------------------------------------------------------------------ extremes


@pytest.mark.parametrize("alpha", [0, 1e-4])
def test_what_is_constant_gets_no_weight(alpha: float) -> None:
    x = np.random.default_rng(0).standard_normal((4, 30, 3))
    x[..., 1] = 0.1
    y = x[..., 0]
    model = made(alpha=alpha).fit(x, y)
    assert model.coef_[0, 13] == 0
    assert model.score(x, y) > 0.99
    still = made(alpha=alpha, input_scaling=0, hidden_size=1).fit(list(x[:, :1]), y[:, :1])
    assert still.coef_[0, 0] == 0
    nothing = made(alpha=alpha).fit(list(x[:, :1, 1]), y[:, 0])
    assert (nothing.coef_ == 0).all()
    np.testing.assert_allclose(nothing.predict(list(x[:, :1, 1])), y[:, 0].mean())


def test_a_constant_is_seen_as_one_over_many_steps() -> None:
    x = np.random.default_rng(0).standard_normal((1, 200_000, 2))
    x[..., 1] = 0.1
    model = made(alpha=0, hidden_size=1, standardize=False).fit(x, x[..., 0])
    assert model.coef_[0, 2] == 0


def test_without_a_penalty_features_may_depend_on_each_other() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 50, 2))
    y = x[..., 0] + rng.standard_normal((2, 50))
    more = np.concatenate([x, x @ rng.standard_normal((2, 5))], axis=2)
    parameters = {"alpha": 0, "input_scaling": 0, "bias_scaling": 0}
    model = made(**parameters).fit(more, y)
    assert np.abs(model.coef_).max() < 2
    np.testing.assert_allclose(model.predict(more), made(**parameters).fit(x, y).predict(x))


@pytest.mark.parametrize(
    "parameters",
    [{"hidden_size": 1}, {"spectral_radius": 0}, {"density": 1e-9, "spectral_radius": 0},
     {"hidden_size": 1, "density": 1e-9, "spectral_radius": 0, "bias_scaling": 0}, {"alpha": 1e300},
     {"alpha": 0}, {"leak": 1e-9}, {"input_scaling": 1e6}],
)  # fmt: skip
def test_extreme_parameters(parameters: dict[str, Any]) -> None:
    x = [ragged((50,))[0]]
    model = made(**parameters).fit(x, delayed(x))
    assert np.isfinite(model.coef_).all()
    assert -1e-9 < model.score(x, delayed(x)) <= 1


def test_values_of_any_size() -> None:
    x = np.random.default_rng(0).standard_normal((4, 30, 1))
    usual = made().fit(x, x[..., 0])
    for scale in (1e307, 1e-300):
        model = made().fit(x * scale, x[..., 0] * scale)
        np.testing.assert_allclose(model.predict(x * scale) / scale, usual.predict(x), rtol=1e-6)
    x[1, 2] = 1e200
    with pytest.raises(ValueError, match=re.escape("X[1] at step 2, feature 0, is 1e+200")):
        made(standardize=False).fit(x, x[..., 0])
    with pytest.raises(ValueError, match=re.escape("X[1] at step 2, feature 0, is")):
        usual.predict(x)


def test_what_is_predicted_is_finite() -> None:
    x = np.random.default_rng(0).standard_normal((4, 30, 1))
    model = made(alpha=0).fit(x, x[..., 0] * 1e300)
    with pytest.raises(ValueError, match="the output of the network is not finite"):
        model.predict(x * 1e90)
    with pytest.raises(ValueError, match="y contains a value too large to be predicted"):
        made(alpha=0).fit(x, np.sign(x[..., 0]) * 1.7e308)


def test_a_constant_feature_is_only_centred() -> None:
    x = np.random.default_rng(0).standard_normal((2, 9, 2))
    x[..., 1] = 1000
    model = made().fit(x, x[..., 0])
    later = np.stack([np.zeros(5), np.full(5, 1001.0)], axis=1)
    first = later[0, 0] - x[..., 0].mean()
    one = model.reservoir_(np.array([[first / x[..., 0].std(), 1.0]] * 5))[0]
    expected = np.concatenate([one, np.full((5, 1), first / x[..., 0].std())], axis=1)
    predicted = expected @ model.coef_[0, :-1] + model.intercept_  # a constant has no weight
    np.testing.assert_allclose(model.predict([later])[0], predicted, rtol=1e-10)


# ------------------------------------------------------------------------------ bad input

GOOD = [np.ones((5, 2)), np.zeros((4, 2))]
STEPS = [np.arange(5.0), np.arange(4.0)]


def holed(value: float) -> list[Array]:
    return [np.arange(5.0), np.array([0.0, 1.0, value, 3.0])]


@pytest.mark.filterwarnings("ignore:X has shape:UserWarning")
@pytest.mark.parametrize(
    ("x", "y", "error", "text"),
    [
        (GOOD, None, ValueError, "requires y to be passed, but the target y is None"),
        (GOOD, 1.0, TypeError, "y is a float, expected numbers for each step or sequence"),
        (GOOD, np.array(1.0), TypeError, "expected numbers for each step or sequence"),
        (GOOD, "ab", TypeError, "y is a str, expected numbers"),
        (GOOD, {"a": 1}, TypeError, "y is a dict, expected numbers"),
        (GOOD, ["a", "b"], TypeError, "y is of strings, expected numbers"),
        (GOOD, [1.0, None], ValueError, "y[0] is 1.0: a number is no sequence"),
        (GOOD, [1j, 2j], ValueError, "y[0] has shape ()"),
        (GOOD, np.array([1j, 2j]), TypeError, "y is of type complex128, expected numbers"),
        (GOOD, [], ValueError, "y holds no sequences"),
        (GOOD, holed(np.nan), ValueError, "Input y contains NaN: y[1] at step 2"),
        (GOOD, holed(np.inf), ValueError, "Input y contains infinity: y[1] at step 2"),
        (GOOD, [1.0, np.nan], ValueError, "Input y contains NaN: y[1]"),
        (GOOD, [np.inf, 1.0], ValueError, "Input y contains infinity: y[0]"),
        (GOOD, STEPS[:1], ValueError, "inconsistent numbers of samples: [2, 1]"),
        (GOOD[:1], np.ones((5, 1)), ValueError, "[1, 5]. If both are a single series, pass [y]"),
        (GOOD[0], STEPS[:1], ValueError, "[5, 1]. If both are a single series, pass [X]"),
        (GOOD, STEPS[::-1], ValueError, "y[0] has 4 steps, but X[0] has 5"),
        (GOOD, np.ones(9), ValueError, "y has 9 numbers, but X has 2 sequences of 9 steps"),
        (GOOD[:1], np.ones(5), ValueError, "[y] has one for each step of the sequence"),
        (GOOD, np.ones((2, 5)), ValueError, "but the sequences of X have 4 to 5 steps"),
        (GOOD, [np.ones((5, 2)), np.ones((4, 1))], ValueError, "y[1] has 1 features a step"),
        ((np.ones((9, 2)), [5, 4]), np.ones(8), ValueError, "y has 8 numbers, but X has 2"),
        (["ab", "c"], [1.0, 2.0], TypeError, "X is of tokens"),
        ([[1.0, np.nan]], [1.0], ValueError, "Input X contains NaN: X[0] at step 1"),
        ([[]], [1.0], ValueError, "X[0] has no steps"),
    ],
)
def test_bad_data_is_refused(x: Any, y: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        made().fit(x, y)


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("hidden_size", 0, ValueError, "hidden_size is 0, expected at least 1"),
        ("hidden_size", 3.0, TypeError, "pass int(hidden_size)"),
        ("hidden_size", True, TypeError, "hidden_size is True, expected an integer"),
        ("washout", -1, ValueError, "washout is -1, expected at least 0"),
        ("leak", 0, ValueError, "leak is 0, expected 0 < leak <= 1"),
        ("leak", 1.5, ValueError, "leak is 1.5, expected"),
        ("density", 0.0, ValueError, "density is 0.0, expected"),
        ("alpha", -1.0, ValueError, "alpha is -1.0, expected"),
        ("alpha", np.nan, ValueError, "alpha is nan, expected a finite number"),
        ("spectral_radius", np.inf, ValueError, "spectral_radius is inf"),
        ("input_scaling", "1", TypeError, "input_scaling"),
        ("bias_scaling", -0.1, ValueError, "bias_scaling is -0.1"),
        ("standardize", "no", TypeError, "standardize is 'no', expected True or False"),
        ("density", 1e-9, ValueError, "set a larger density, or spectral_radius=0"),
    ],
)
def test_bad_parameters_are_refused(name: str, value: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        made(**{name: value}).fit(GOOD, STEPS)


@pytest.mark.parametrize("weights", [[0, 0], [-1, 1], [1], [np.nan, 1], [1e308, 1e308]])
def test_bad_weights_are_refused(weights: Any) -> None:
    x = ragged((5, 4))
    with pytest.raises(ValueError, match=r"(?i)sample.weight"):
        made().fit(x, STEPS, sample_weight=weights)


def test_a_washout_has_no_sense_where_the_last_step_is_read() -> None:
    with pytest.raises(ValueError, match=r"set washout=0, or pass \[X\] and \[y\]"):
        made(washout=1).fit(GOOD, [1.0, 2.0])


def test_what_does_not_fit_the_fitted_is_refused() -> None:
    with pytest.raises(NotFittedError):
        made().predict(GOOD)
    x = ragged((5, 4))
    model = made().fit(x, STEPS)
    with pytest.raises(ValueError, match=r"X has 3 features a step, but .* is expecting 2"):
        model.predict(ragged((5,), 3))
    with pytest.raises(
        ValueError, match=r"2 numbers for each step, but .* on 1 number for each st"
    ):
        model.score(x, delayed(x))
    with pytest.raises(
        ValueError, match=r"1 number for each sequence, but .* 1 number for each st"
    ):
        model.score(x, [1.0, 2.0])
    before = model.predict(x)
    for bad in ({"washout": 9}, {"density": 1e-9}, {"hidden_size": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            model.set_params(**bad).fit(x, delayed(x))
        model.set_params(washout=0, density=1.0, hidden_size=12)
        for a, b in zip(model.predict(x), before, strict=True):
            assert np.array_equal(a, b)


# ------------------------------------------------------------------------------ in scikit-learn


def test_fits_copies_and_pickles_are_the_same() -> None:
    x = ragged((15, 20, 9))
    y = delayed(x)
    model = made().fit(x, y)
    first = model.predict(x)
    others = (
        model, pickle.loads(pickle.dumps(model)), clone(model).fit(x, y), model.fit(x, y),
        made(random_state=np.random.RandomState(0)).fit(x, y),
    )  # fmt: skip
    for other in others:
        for a, b in zip(other.predict(x), first, strict=True):
            assert np.array_equal(a, b)
    assert not np.array_equal(made(random_state=1).fit(x, y).predict(x)[0], first[0])
    assert (
        repr(made(leak=0.5))
        == "EchoStateRegressor(alpha=1.0, hidden_size=12, leak=0.5, random_state=0)"
    )


def test_cross_validation_and_search() -> None:
    x = ragged((30, 40, 35, 50, 45, 38))
    y = [np.append([0, 0], a[:-2, 0]) for a in x]
    scores = cross_val_score(made(hidden_size=40), x, y, cv=KFold(3))
    assert scores.shape == (3,)
    grid = {"alpha": [1e-2, 1e6], "leak": [1.0, 0.01]}
    search = GridSearchCV(made(hidden_size=40), grid, cv=3).fit(x, y)
    assert search.best_params_ == {"alpha": 1e-2, "leak": 1.0}
    assert search.best_score_ > 0.9
