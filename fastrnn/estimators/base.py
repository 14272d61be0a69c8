"""What the estimators of trained networks share: parameters, the loop of epochs, when it ends."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from .. import Dropout, Embedding, Linear, Sequential, _checks, clip_grad_norm, optim
from ..layers import RECURRENT
from .sequences import Sequences, Vocabulary, by_length, check_columns, grouped, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CHOICES = {
    "cell": list(RECURRENT),
    "learning_rate": ["constant", "linear"],
    "handle_unknown": ["error", "ignore"],
}
SWITCHES = ("early_stopping", "standardize", "tokens", "bidirectional", "warm_start", "verbose")

# What a network is made of: a fit that goes on cannot change it.
FIXED = (
    "cell", "hidden_size", "num_layers", "bidirectional", "embedding_size", "dropout",
    "weight_decay", "standardize", "tokens", "handle_unknown", "dtype",
)  # fmt: skip

# What training changes.
PROGRESS = (
    "_models", "_optimizer", "_rng", "loss_curve_", "validation_scores_", "n_iter_",
)  # fmt: skip

# The loss of some sequences, the gradients of each model: (rows, source of dropout).
Step = Callable[["Array", np.random.Generator], "tuple[float, list[Any]]"]


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceEstimator(BaseEstimator):
    """The parameters of every network, and how one is trained."""

    cell: str = "gru"
    hidden_size: int = 64
    num_layers: int = 1
    embedding_size: int = 32
    dropout: float = 0.0
    weight_decay: float = 0.0
    batch_size: int | str = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 0.005
    clip_norm: float | None = 1.0
    max_iter: int = 200
    tol: float = 1e-4
    n_iter_no_change: int = 10
    early_stopping: bool = False
    validation_fraction: float = 0.1
    dtype: str = "float32"
    warm_start: bool = False
    random_state: Any = None
    verbose: bool = False

    # -------------------------------------------------------------------- parameters

    def _check_parameters(self) -> None:
        """ValueError or TypeError that names the parameter; what an earlier fit has left goes.

        A fit that fails then leaves an estimator that is not fitted, unless it was to go on.
        """
        for name in ("hidden_size", "num_layers", "embedding_size", "max_iter", "n_iter_no_change"):
            _checks.size(name, getattr(self, name))
        if not isinstance(self.batch_size, str) or self.batch_size != "auto":
            _checks.size('batch_size (or "auto")', self.batch_size)
        for name in ("weight_decay", "tol"):
            _checks.bounded(name, getattr(self, name))
        _checks.bounded("learning_rate_init", self.learning_rate_init, above=True)
        _checks.fraction("dropout", self.dropout)
        if not 0 < _checks.number("validation_fraction", self.validation_fraction) < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction!r}, expected a number between 0 "
                "and 1"
            )
        if self.clip_norm is not None:
            _checks.bounded("clip_norm (or None)", self.clip_norm, above=True)
        if isinstance(self.learning_rate, float | int):
            raise TypeError(
                f"learning_rate is {self.learning_rate!r}, expected 'constant' or 'linear': the "
                "rate itself is learning_rate_init"
            )
        for name, allowed in CHOICES.items():
            if hasattr(self, name):
                _checks.choice(name, getattr(self, name), allowed)
        _checks.float_dtype("dtype", self.dtype)
        for name in SWITCHES:
            if hasattr(self, name):
                _checks.flag(name, getattr(self, name))
        if not self._continues():
            for name in ("_models", "_optimizer"):
                self.__dict__.pop(name, None)

    def _continues(self) -> bool:
        """Whether this fit goes on where the last one ended."""
        if not self.warm_start or not self.__sklearn_is_fitted__():
            return False
        for name, value in self._built.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but warm_start=True goes on with a "
                    f"network that was made with {value!r}: fit a clone, or set it back"
                )
        return True

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_models")

    @property
    def _dtype(self) -> Any:
        """What the network computes in; the parameter may be for the next fit already."""
        return self._models[0].dtype if self.__sklearn_is_fitted__() else self.dtype

    # -------------------------------------------------------------------- network

    def _recurrent(
        self, input_size: int, hidden_size: int, rng: Any, bidirectional: bool = False
    ) -> Any:
        kind: Any = RECURRENT[self.cell]
        return kind(
            input_size, hidden_size, self.num_layers, bidirectional=bidirectional,
            dropout=float(self.dropout) if self.num_layers > 1 else 0.0, dtype=self.dtype, rng=rng,
        )  # fmt: skip

    def _embedded(self, symbols: int, rng: Any, padding_idx: int | None = None) -> dict[str, Any]:
        """The layers that make vectors of tokens: an embedding, and dropout."""
        size = self.embedding_size
        layer = Embedding(symbols, size, padding_idx=padding_idx, dtype=self.dtype, rng=rng)
        return {"embedding": layer} | self._dropped("embedding_dropout")

    def _dropped(self, name: str) -> dict[str, Any]:
        return {name: Dropout(float(self.dropout))} if self.dropout else {}

    def _headed(self, layers: dict[str, Any], outputs: int, rng: Any) -> Sequential:
        """A model of these layers, dropout and an output layer."""
        rnn = layers["rnn"]
        width = rnn.hidden_size * (2 if rnn.bidirectional else 1)
        head = Linear(width, outputs, dtype=self.dtype, rng=rng)
        return Sequential({**layers, **self._dropped("dropout"), "output": head})

    def _network(self, place: int = 0) -> Sequential:
        """One of the networks that are trained."""
        if not self.__sklearn_is_fitted__():  # which takes less time
            check_is_fitted(self)
        return self._models[place]

    # -------------------------------------------------------------------- training

    def _begin(self, make: Callable[[np.random.Generator], list[Sequential]]) -> None:
        """A network with random weights."""
        self._rng = np.random.default_rng(self._seed)
        models = make(self._rng)
        weights = [model.flat_weights for model in models]
        self._optimizer = optim.AdamW(weights, weight_decay=float(self.weight_decay))
        self._built = {n: getattr(self, n) for n in FIXED if hasattr(self, n)}
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] | None = None
        self.n_iter_ = 0
        self._models = models

    def _train(
        self,
        make: Callable[[np.random.Generator], list[Sequential]],
        keys: Array,
        step: Step,
        score: Callable[[Array], float],
        stratify: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """Fit the models that `make` makes, or that are there already.

        keys is (N, n): the lengths by which sequences are put into batches. `score` of some
        sequences, larger being better, is what early stopping looks at. Sequences whose weight
        (N,) is 0 are left out.
        """
        continues = self._continues()
        before = (
            copy.deepcopy({name: self.__dict__[name] for name in PROGRESS}) if continues else {}
        )
        if not continues:
            random = check_random_state(self.random_state)
            self._seed = int(random.randint(np.iinfo(np.int32).max))
        rows = np.arange(len(keys)) if weights is None else np.flatnonzero(weights > 0)
        train, held_out = self._split(rows, stratify)
        if not continues:
            self._begin(make)
        if self.early_stopping and self.validation_scores_ is None:
            self.validation_scores_ = []
        try:
            progress = Progress(self, held_out is not None)
            if continues and held_out is not None:
                progress.begins_with(score(held_out))
            self._epochs(train, held_out, keys, step, score, progress, weights)
            progress.keep_best()
            self._check_finite_weights()
        except BaseException:  # what has diverged is not to be used; what was there before is
            self.__dict__.pop("_models", None)
            self.__dict__.update(before)
            raise
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else math.nan
        self.best_validation_score_ = None if progress.weights is None else progress.best

    def _epochs(
        self,
        train: Array,
        held_out: Array | None,
        keys: Array,
        step: Step,
        score: Callable[[Array], float],
        progress: Progress,
        weights: Array | None,
    ) -> None:
        """Train until `progress` says that it is enough, or somebody presses Ctrl-C."""
        size = min(32, len(train)) if self.batch_size == "auto" else int(self.batch_size)
        steps = -(-len(train) // size)
        done = 0
        with _progress_bar(self, steps) as bar:
            try:
                for _ in range(self.max_iter):
                    losses: list[float] = []
                    totals: list[float] = []
                    for places in grouped(keys[train], size, self._rng):
                        rows = train[places]
                        falling = 1 - done / (self.max_iter * steps)
                        self._optimizer.lr = self.learning_rate_init * (
                            falling if self.learning_rate == "linear" else 1
                        )
                        loss, grads = step(rows, self._rng)
                        self._update(grads)
                        totals.append(len(rows) if weights is None else weights[rows].sum())
                        losses.append(loss * totals[-1])
                        done += 1
                        bar.update()
                    loss = math.fsum(losses) / math.fsum(totals)
                    self._check_finite_weights()
                    held_out_score = None if held_out is None else score(held_out)
                    self.n_iter_ += 1
                    self.loss_curve_.append(loss)
                    if self.validation_scores_ is not None and held_out_score is not None:
                        self.validation_scores_.append(held_out_score)
                    bar.tell(self)
                    if progress.ended(loss, held_out_score):
                        break
            except KeyboardInterrupt:
                warnings.warn(
                    f"fit was interrupted in epoch {self.n_iter_ + 1}: what it had learned is "
                    "kept, and with warm_start=True the next fit goes on from there",
                    stacklevel=4,
                )

    def _update(self, grads: list[Any]) -> None:
        limit = float(np.finfo(self.dtype).max)
        if self.clip_norm is not None:
            limit = min(limit, float(self.clip_norm))
        flat = [g.flat_weights for g in grads]
        norm = clip_grad_norm(flat, limit)
        if not math.isfinite(norm):
            self._diverged(f"the norm of the gradient is {norm}")
        self._optimizer.step(flat)

    def _check_finite_weights(self) -> None:
        if not all(np.isfinite(model.flat_weights).all() for model in self._models):
            self._diverged("weights are not finite any more")

    def _diverged(self, how: str) -> NoReturn:
        raise ValueError(
            f"training diverged in epoch {self.n_iter_ + 1}, {how}: a smaller learning_rate_init "
            f"than {self.learning_rate_init:g} or a smaller clip_norm may help"
        )

    def _split(self, rows: Array, stratify: Array | None) -> tuple[Array, Array | None]:
        """The sequences to train on, and those held out for early stopping."""
        if not self.early_stopping:
            return rows, None
        try:
            train, held_out = train_test_split(
                rows, test_size=float(self.validation_fraction), random_state=self._seed,
                stratify=None if stratify is None else stratify[rows],
            )  # fmt: skip
        except ValueError as error:
            why = str(error).rstrip(".")
            raise ValueError(
                f"early_stopping=True cannot hold out validation_fraction="
                f"{self.validation_fraction} of {len(rows)} sequences: {why}. More sequences, "
                "another validation_fraction or early_stopping=False may help"
            ) from None
        return np.sort(train), np.sort(held_out)


@dataclass(kw_only=True, eq=False, repr=False)
class ReadingEstimator(SequenceEstimator):
    """A network that reads X of numbers or tokens."""

    bidirectional: bool = False
    standardize: bool = True
    tokens: bool = False
    handle_unknown: str = "error"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def _read(self, X: Any, name: str = "X", *, fitting: bool = False) -> Sequences:
        """X as the network takes it: standardised numbers, or indices of tokens."""
        if not fitting:
            check_is_fitted(self)
        raw = read(X, name, tokens=self.tokens)
        if fitting and not self._continues():
            self._learn_input(raw)
        elif raw.of_tokens != (self._vocabulary is not None):
            kinds = ("numbers", "tokens")
            raise TypeError(
                f"{name} is of {kinds[raw.of_tokens]}, but this {type(self).__name__} was fitted "
                f"on {kinds[not raw.of_tokens]}"
            )
        if self._vocabulary is not None:
            unknown = len(self._vocabulary) if self.handle_unknown == "ignore" else None
            cure = ': leave it out, or make the estimator with handle_unknown="ignore"'
            return self._vocabulary.encoded(raw, name, unknown, cure)
        if raw.steps.shape[1] != self.n_features_in_:
            raise ValueError(
                f"{name} has {raw.steps.shape[1]} features a step, but {type(self).__name__} is "
                f"expecting {self.n_features_in_} features as input"
            )
        check_columns(raw.columns, self._columns, name, "fit was given")
        return Sequences(self._scaled(raw.steps, name, raw), raw.lengths)

    def _learn_input(self, raw: Sequences) -> None:
        """The vocabulary, or mean and deviation of each feature."""
        self._vocabulary = Vocabulary(raw.steps) if raw.of_tokens else None
        self.tokens_: Array | None = None
        if self._vocabulary is not None:
            self.tokens_ = self._vocabulary.tokens
            self.n_features_in_ = 1
            return
        self.n_features_in_, self._columns = raw.steps.shape[1], raw.columns
        self._mean, self._scale = mean_and_scale(raw.steps, self.standardize)

    def _scaled(self, steps: Array, name: str, raw: Sequences) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            made = ((steps - self._mean) / self._scale).astype(self._dtype)
        if not np.isfinite(made).all():
            row, step = raw.row_of(int((~np.isfinite(made)).any(axis=1).argmax()))
            raise ValueError(
                f"Input {name} contains a value too large for dtype({str(made.dtype)!r}): "
                f"{name}[{row}] at step {step}. Divide {name} by something first"
            )
        return made

    def _reader(self, rng: Any) -> dict[str, Any]:
        """The layers that take X: an embedding where it is of tokens, and the recurrent one."""
        layers: dict[str, Any] = {}
        size = self.n_features_in_
        if self._vocabulary is not None:
            size = self.embedding_size
            # The last vector stays zero: of a token that training has not seen.
            count = len(self._vocabulary)
            layers |= self._embedded(count + 1, rng, padding_idx=count)
        layers["rnn"] = self._recurrent(size, self.hidden_size, rng, self.bidirectional)
        return layers


class Progress:
    """When training ends: epochs without a better score, or a loss that is lower by `tol`."""

    def __init__(self, estimator: SequenceEstimator, scored: bool) -> None:
        self.estimator, self.scored = estimator, scored
        self.best, self.waited = -math.inf, 0
        self.weights: list[Array] | None = None

    def ended(self, loss: float, score: float | None) -> bool:
        """Asked after each epoch."""
        of = self.estimator
        latest = -loss if score is None else score
        self.waited = 0 if latest > self.best + of.tol else self.waited + 1
        if latest > self.best:
            self.best = latest
            if self.scored:
                self.weights = [model.flat_weights.copy() for model in of._models]
        return self.waited >= of.n_iter_no_change

    def begins_with(self, score: float) -> None:
        """Of weights that are there before this fit."""
        self.best = score
        self.weights = [model.flat_weights.copy() for model in self.estimator._models]

    def keep_best(self) -> None:
        """The weights of the epoch with the best score."""
        if self.weights is not None:
            for model, best in zip(self.estimator._models, self.weights, strict=True):
                model.flat_weights[...] = best


class _Silent:
    def update(self) -> None:
        """After each batch."""

    def tell(self, estimator: SequenceEstimator) -> None:
        """After each epoch."""


class _Lines(_Silent):
    """A line for each epoch, where tqdm is not installed."""

    def tell(self, estimator: SequenceEstimator) -> None:
        print(f"epoch {estimator.n_iter_}: {_state_of(estimator)}", flush=True)


class _Bar(_Silent):
    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def update(self) -> None:
        self.bar.update()

    def tell(self, estimator: SequenceEstimator) -> None:
        self.bar.set_postfix_str(_state_of(estimator))


def _state_of(estimator: SequenceEstimator) -> str:
    text = f"loss {estimator.loss_curve_[-1]:.4g}"
    if estimator.validation_scores_:
        text += f", validation score {estimator.validation_scores_[-1]:.4g}"
    return text


@contextmanager
def _progress_bar(estimator: SequenceEstimator, steps: int) -> Iterator[_Silent]:
    if not estimator.verbose:
        yield _Silent()
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield _Lines()
        return
    with tqdm(total=estimator.max_iter * steps, unit="batch", leave=True) as bar:
        yield _Bar(bar)


def mean_and_scale(
    values: Array, standardize: bool, weights: Array | None = None
) -> tuple[Array, Array]:
    """Mean and deviation over the first axis; a constant is only centred."""
    if not standardize:
        return np.zeros(values.shape[1:]), np.ones(values.shape[1:])
    peak = np.maximum(values.max(axis=0), -values.min(axis=0))
    # Where squares would overflow or vanish, the values are scaled before.
    unit = np.where((peak > 1e100) | ((peak < 1e-100) & (peak > 0)), peak, 1.0)
    if (unit != 1).any():
        values = values / unit
    mean = np.average(values, axis=0, weights=weights)
    scale = np.sqrt(np.average(np.square(values - mean), axis=0, weights=weights))
    constant = scale <= 1e-12 * np.abs(mean)
    return mean * unit, np.where(constant, 1.0, scale) * unit


def in_batches(
    sequences: Sequences, rows: Array | None, run: Callable[[Array, Array], Array]
) -> Array:
    """What `run` makes of each of these sequences (None: of all), in their order.

    It is given (T, B, ...) and lengths (B,), and gives (B, ...).
    """
    rows = np.arange(len(sequences)) if rows is None else rows
    made: Array | None = None
    for some in by_length(sequences.lengths[rows]):
        result = run(*sequences.batch(rows[some]))
        if made is None:
            made = np.empty((len(rows), *result.shape[1:]), result.dtype)
        made[some] = result
    assert made is not None
    check_output(made)
    return made


def check_output(made: Array) -> None:
    """ValueError for what overflow has made, rather than an answer of NaN."""
    if not np.isfinite(made).all():
        raise ValueError(
            "the output of the network is not finite: X is too far from what fit has seen, or "
            "training has diverged"
        )


def required(estimator: Any, y: Any) -> Any:
    """y, which is not None."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None"
        )
    check_no_mask(y, "y")
    if issparse(y):
        raise TypeError("y is a sparse matrix, but sparse data is not supported: pass y.toarray()")
    return y


def check_count(labels: Array, sequences: Sequences) -> None:
    """ValueError unless y has one for each sequence."""
    if len(labels) != len(sequences):
        raise ValueError(
            f"X and y have inconsistent numbers of samples: [{len(sequences)}, {len(labels)}]. X "
            "is a list of sequences or an array (N, T, D) or (N, T): of a single one, pass [X]"
        )


def warn_of_single_steps(sequences: Sequences) -> None:
    """Of a fit from a series whose steps have been taken for sequences."""
    if len(sequences) > 1 and sequences.lengths.max() == 1:
        warnings.warn(
            f"X is {len(sequences)} sequences of one step each, and nothing is remembered from "
            "one sequence to the next: if they are the steps of one, pass [X]",
            stacklevel=3,
        )


def check_no_mask(values: Any, name: str) -> None:
    """TypeError for a masked array, or a list of them, of which NumPy would forget the mask."""
    rows = values if isinstance(values, list | tuple) else ()
    if any(isinstance(row, np.ma.MaskedArray) for row in (values, *rows)):
        raise TypeError(
            f"{name} is a masked array, and its mask would be lost: leave out what does not count"
        )


def checked_weights(sample_weight: Any, sequences: Sequences) -> Array | None:
    """(N,) of float64, at least 0 and not all 0."""
    if sample_weight is None:
        return None
    check_no_mask(sample_weight, "sample_weight")
    try:
        made: Array = check_array(
            sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
        )
    except OverflowError:
        raise ValueError("sample_weight holds an integer too large for float64") from None
    except (TypeError, ValueError) as error:
        if "sample_weight" in str(error):
            raise
        raise type(error)(f"sample_weight holds no numbers: {error}") from None
    if made.shape != (len(sequences),):
        raise ValueError(
            f"sample_weight has shape {made.shape}, expected a weight for each sequence: "
            f"({len(sequences)},)"
        )
    if (made < 0).any():
        place = int((made < 0).argmax())
        raise ValueError(f"sample_weight[{place}] is {made[place]:g}, expected at least 0")
    with np.errstate(over="ignore"):
        total = made.sum()
    if not np.isfinite(total):
        raise ValueError("the sum of sample_weight is not finite: divide it by something first")
    if not made.any():
        raise ValueError("sample_weight is zero for every sequence: nothing is left to look at")
    return made
