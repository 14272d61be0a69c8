"""The estimators among scikit-learn's tools, and under its own checks of estimators."""

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from fastrnn.estimators import (
    EchoStateRegressor,
    SequenceClassifier,
    SequenceGenerator,
    SequenceRegressor,
    SequenceTagger,
    SequenceTranslator,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# ------------------------------------------------------------------------------ its own checks

# Those have X (N, T) and one y a sample. Where an estimator takes more, it is made of that here;
# what is wrong with X or y goes on to the estimator as it is.


class Tagger(SequenceTagger):
    """Each step has the label of its sequence."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        return super().fit(X, self.of_steps(X, y), sample_weight)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        return super().score(X, self.of_steps(X, y), sample_weight)

    @staticmethod
    def of_steps(X: Any, y: Any) -> Any:
        shape = np.shape(np.asarray(X))
        if y is None or len(shape) < 2:
            return y
        return np.repeat(np.asarray(y).reshape(-1, 1), shape[1], axis=1)


class Translator(SequenceTranslator):
    """The label, twice, is what a sequence becomes."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        return super().fit(X, self.twice(y), sample_weight)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        return super().score(X, self.twice(y), sample_weight)

    @staticmethod
    def twice(y: Any) -> Any:
        if y is None:
            return None
        y = np.asarray(y).ravel()
        return np.stack([y, y], axis=1).astype(int if y.dtype.kind == "f" else y.dtype)


class Generator(SequenceGenerator):
    """The signs of numbers are its tokens."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        return super().fit(self.signs(X), None, sample_weight)

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(self.signs(X))

    def score_samples(self, X: Any, y: Any = None) -> Any:
        return super().score_samples(self.signs(X))

    @staticmethod
    def signs(X: Any) -> Any:
        from fastrnn.estimators.sequences import read

        sequences = read(X)
        return X if sequences.of_tokens else np.sign(sequences.steps).astype(int).reshape(
            len(sequences), -1
        )  # fmt: skip


OF_STEPS = "n_features_in_ counts the features of a step; the columns of an X (N, T) are steps"
LENGTHS = "it wants sequences of another length refused, and any length will do"
DRAWN = "batches are drawn: a weight of two is not the same as to be there twice"
RAGGED = "it makes an array of what predict returns, which are lists of different lengths"

FEATURES = {"check_n_features_in": OF_STEPS, "check_n_features_in_after_fitting": OF_STEPS}
WEIGHTS = {"check_sample_weight_equivalence_on_dense_data": DRAWN}

SMALL: dict[str, Any] = {"hidden_size": 8, "embedding_size": 4, "max_iter": 5}
LEARNS: dict[str, Any] = {"hidden_size": 8, "max_iter": 40, "learning_rate_init": 0.03}

CHECKED: list[tuple[Any, dict[str, str]]] = [
    (SequenceClassifier(**LEARNS), FEATURES | WEIGHTS | {"check_classifiers_train": LENGTHS}),
    (SequenceRegressor(**LEARNS), FEATURES | WEIGHTS),
    (Tagger(**SMALL), FEATURES | WEIGHTS),
    (Generator(**SMALL), FEATURES),
    (
        Translator(**SMALL),
        FEATURES
        | {
            "check_methods_sample_order_invariance": RAGGED,
            "check_methods_subset_invariance": RAGGED,
        },
    ),
    (EchoStateRegressor(hidden_size=20), FEATURES),
]


# They have X of many sequences of 2 steps and more.
@pytest.mark.filterwarnings("ignore:X has shape .* If it is a single series:UserWarning")
@pytest.mark.parametrize(
    ("estimator", "expected"), CHECKED, ids=[type(e).__name__ for e, _ in CHECKED]
)
def test_checks_of_scikit_learn(estimator: Any, expected: dict[str, str]) -> None:
    results = check_estimator(
        estimator, expected_failed_checks=expected, on_skip=None, on_fail=None
    )
    assert len(results) > 40
    assert [
        f"{r['check_name']}: {r['exception']!r}" for r in results if r["status"] == "failed"
    ] == []
    # What is listed without need is an error in the list.
    failed = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert failed == set(expected)


# ------------------------------------------------------------------------------ its tools

rng = np.random.default_rng(0)
ARRAYS = [rng.standard_normal((n, 2)) for n in rng.integers(3, 9, 30)]
WINDOWS = np.sin(np.arange(9) / 2 + np.arange(30)[:, None])
WORDS = ["abba", "aab", "bbab", "baa", "abab", "bb"] * 5

# Each in a form that makes sense, and a grid for it.
USES: dict[str, tuple[Any, Any, Any, dict[str, list[Any]]]] = {
    "classifier": (
        SequenceClassifier(**SMALL, random_state=0), ARRAYS,
        ["up" if x[:, 0].sum() > 0 else "down" for x in ARRAYS], {"num_layers": [1, 2]},
    ),
    "regressor": (
        SequenceRegressor(**SMALL, random_state=0), WINDOWS[:, :8], WINDOWS[:, 8],
        {"hidden_size": [2, 8]},
    ),
    "tagger": (
        SequenceTagger(**SMALL, random_state=0), WORDS,
        [["v" if a == "a" else "c" for a in word] for word in WORDS],
        {"bidirectional": [False, True]},
    ),
    "generator": (SequenceGenerator(**SMALL, random_state=0), WORDS, None, {"max_iter": [2, 5]}),
    "translator": (
        SequenceTranslator(**SMALL, random_state=0), WORDS, [word[::-1] for word in WORDS],
        {"max_iter": [2, 5]},
    ),
    "echo state": (
        EchoStateRegressor(hidden_size=20, random_state=0), ARRAYS,
        [x.cumsum(axis=0) for x in ARRAYS], {"leak": [0.5, 1.0]},
    ),
}  # fmt: skip

each = pytest.mark.parametrize("name", USES)


@each
def test_cross_validation_is_a_fit_and_a_score_of_each_fold(name: str) -> None:
    estimator, X, y, _ = USES[name]
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(estimator, X, y, cv=folds, error_score="raise")

    def some(values: Any, rows: Any) -> Any:
        if values is None or isinstance(values, np.ndarray):
            return None if values is None else values[rows]
        return [values[i] for i in rows]

    expected = [
        clone(estimator).fit(some(X, a), some(y, a)).score(some(X, b), some(y, b))
        for a, b in folds.split(np.arange(30))
    ]
    assert scores.tolist() == expected


@each
def test_grid_search_in_a_pipeline(name: str) -> None:
    estimator, X, y, grid = USES[name]
    steps = Pipeline([("as it is", FunctionTransformer()), ("net", estimator)])
    grid = {f"net__{parameter}": values for parameter, values in grid.items()}
    search = GridSearchCV(steps, grid, cv=2, error_score="raise").fit(X, y)
    assert set(search.best_params_) == set(grid)
    best = clone(estimator).set_params(
        **{parameter.removeprefix("net__"): v for parameter, v in search.best_params_.items()}
    )
    assert search.score(X, y) == best.fit(X, y).score(X, y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_grid_is_searched_in_processes() -> None:
    estimator, X, y, grid = USES["classifier"]
    alone = GridSearchCV(estimator, grid, cv=2).fit(X, y)
    many = GridSearchCV(estimator, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    for key in ("mean_test_score", "split0_test_score"):
        assert (alone.cv_results_[key] == many.cv_results_[key]).all()
    assert (many.predict(X) == alone.predict(X)).all()


@each
def test_clones_and_parameters(name: str) -> None:
    estimator, X, y, grid = USES[name]
    fitted = clone(estimator).fit(X, y)
    again = clone(fitted)
    assert again.get_params() == fitted.get_params() == estimator.get_params()
    with pytest.raises(NotFittedError):
        again.score(X, y)
    for parameter, values in grid.items():
        assert again.set_params(**{parameter: values[0]}) is again
        assert again.get_params()[parameter] == values[0]
        assert f"{parameter}={values[0]!r}" in repr(again) or values[0] == getattr(
            type(again)(), parameter
        )
    with pytest.raises(ValueError, match="hidden_sise"):
        again.set_params(hidden_sise=3)


@each
def test_what_is_pickled_scores_the_same(name: str) -> None:
    estimator, X, y, _ = USES[name]
    fitted = clone(estimator).fit(X, y)
    assert pickle.loads(pickle.dumps(fitted)).score(X, y) == fitted.score(X, y)


def test_tags() -> None:
    tags = {name: get_tags(use[0]) for name, use in USES.items()}
    kinds = {name: t.estimator_type for name, t in tags.items()}
    assert kinds == dict.fromkeys(USES) | {
        "classifier": "classifier", "regressor": "regressor", "echo state": "regressor",
    }  # fmt: skip
    assert {name for name, t in tags.items() if t.input_tags.three_d_array} >= set(USES) - {
        "generator"
    }
    strings = {name for name, t in tags.items() if t.input_tags.string}
    assert strings == {"classifier", "regressor", "tagger", "generator", "translator"}
    required = {name for name, t in tags.items() if t.target_tags.required}
    assert required == set(USES) - {"generator"}
    many = {name for name, t in tags.items() if t.target_tags.multi_output}
    assert many >= {"regressor"}


@each
def test_what_is_missing_is_said(name: str) -> None:
    estimator, X, y, _ = USES[name]
    for method in ("predict", "predict_proba", "score_samples", "sample"):
        if hasattr(estimator, method):
            with pytest.raises(NotFittedError):
                getattr(clone(estimator), method)(*([] if method == "sample" else [X]))
    if y is not None:
        fitted = clone(estimator).fit(X, y)
        for call in (clone(estimator).fit, fitted.score):
            with pytest.raises(ValueError, match="requires y to be passed"):
                call(X, None)
