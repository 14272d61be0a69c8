"""A random reservoir that is not trained, and a linear readout of its states."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .. import LeakyRNN, _checks, linear_forward
from .base import check_output, checked_weights, mean_and_scale, required
from .sequences import Sequences, by_length, check_columns, read
from .tagger import as_given

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

EPS = float(np.finfo(np.float64).eps)
PIECE = 2**20  # elements of states that are there at a time
SHORT = 10  # steps, of which a reservoir has little to remember: rather the features of a series
LARGEST = 1e100  # whose square, summed over many steps, is far from infinity

MANY_NUMBERS = (
    "K numbers for each sequence, (N, K), could as well be one for each step: "
    "sklearn.multioutput.MultiOutputRegressor(EchoStateRegressor()) takes them"
)


class Target(NamedTuple):
    """y as it was read."""

    values: Array  # (sum of lengths, K), or (N, 1) where there is a number for each sequence
    each_step: bool
    flat: bool  # whether each is a number, not an array (K,)


@dataclass(kw_only=True, eq=False, repr=False)
class EchoStateRegressor(RegressorMixin, BaseEstimator):
    """Numbers for each step, or one for a sequence, by a random reservoir and a linear readout.

    An echo state network: a leaky recurrent layer of random weights that are never trained, and a
    ridge regression from its states to y, which is solved at once. For each step t of a sequence,
    with u_t the standardised x_t, a the leak, and h_0 = 0::

        h_t = (1 - a) h_{t-1} + a tanh(W_in u_t + W h_{t-1} + b)
        y_t = coef [h_t, u_t] + intercept

    `coef_` and `intercept_` have the least sum over steps of ``weight · |y_t - target_t|²``, plus
    ``alpha · |coef|²``. Where y has one number for each sequence, they read the last step alone.

    Parameters
    ----------
    hidden_size : int
        H, how many units the reservoir has. As many as there are steps to learn from, or fewer. A
        fit takes time as H³ for each reservoir, and as H² for each step.
    spectral_radius : float
        At least 0: the largest absolute eigenvalue of W. Larger is a longer memory. Below 1 the
        state usually forgets how it began (the echo state property).
    leak : float
        a, the leaking rate, in (0, 1]. Smaller is a slower reservoir: about 1/a steps.
    input_scaling : float
        At least 0: the elements of W_in are uniform in ±input_scaling. Smaller is a reservoir
        nearer to linear. With many features choose a smaller one, as their effects add up.
    bias_scaling : float
        At least 0: the elements of b are uniform in ±bias_scaling.
    density : float
        In (0, 1]: how likely an element of W is not 0. Those are normally distributed.
    alpha : float
        At least 0: the strength of the ridge penalty, as in scikit-learn's Ridge. It is of a sum
        over steps, so twice the steps are as half the alpha; the units of y and how many targets
        there are do not matter. More where y is noisy, or where there are few steps.
    washout : int
        At least 0: how many steps at the start of each sequence the readout does not learn from, as
        the states there still tell of h_0. They are predicted and scored like the others.
    standardize : bool
        Whether each feature of X is centred, and divided by its standard deviation; both are of
        the training steps. A constant one is only centred.
    random_state : int, RandomState instance or None
        What the reservoir is drawn from.

    Attributes
    ----------
    reservoir_ : LeakyRNN
        The layer that makes the states, of float64: W_in is ``weights["weight_ih_l0"]``, W is
        ``weights["weight_hh_l0"]``, b is ``weights["bias_ih_l0"]``.
    coef_ : ndarray
        (K, H + D): for each target the weights of the units, and behind them those of the features.
    intercept_ : ndarray
        (K,).
    n_features_in_ : int
        D, how many features a step has.

    See Also
    --------
    SequenceRegressor : numbers for a sequence, (N, K) too, by a network that is trained whole.
    fastrnn.LeakyRNN : the reservoir, with the equations.

    Notes
    -----
    What `hidden_size` needs to be depends on the task; then `alpha`, `input_scaling`,
    `spectral_radius` and `leak` matter most, and are worth a search: ``GridSearchCV(model,
    {"alpha": [1e-6, 1e-4, 1e-2, 1], "leak": [0.3, 1]})``. The folds are of whole sequences, so for
    that a single series is cut into some.

    The readout is of the covariance of the states, each over its deviation: a direction in which
    they vary by less than about 1e-13 of the most gets no weight, however small `alpha` is.

    A sequence of any length takes little memory: the states are made and used a piece at a time.

    The eigenvalues of W and the readout are computed by LAPACK and BLAS, whose last bits may depend
    on the number of their threads. The states, and `predict` of a fitted model, have the same bits
    on any number of threads, and for a sequence alone or among others.

    References
    ----------
    H. Jaeger, "The 'echo state' approach to analysing and training recurrent neural networks", GMD
    report 148, 2001.

    H. Jaeger, M. Lukoševičius, D. Popovici and U. Siewert, "Optimization and applications of echo
    state networks with leaky-integrator neurons", Neural Networks 20, 2007.

    M. Lukoševičius, "A practical guide to applying echo state networks", in Neural Networks: Tricks
    of the Trade, 2nd edition, Springer 2012.

    Examples
    --------
    What comes 5 steps later:

    >>> import numpy as np
    >>> from fastrnn.estimators import EchoStateRegressor
    >>> t = np.arange(1000)
    >>> series = np.sin(0.1 * t) * np.sin(0.13 * t)
    >>> model = EchoStateRegressor(hidden_size=50, washout=100, random_state=0)
    >>> model = model.fit([series[:700]], [series[5:705]])
    >>> error = model.predict([series[:995]])[0][700:] - series[705:]
    >>> bool(np.abs(error).max() < 0.05)
    True
    """

    hidden_size: int = 300
    spectral_radius: float = 0.9
    leak: float = 1.0
    input_scaling: float = 0.3
    bias_scaling: float = 0.2
    density: float = 1.0
    alpha: float = 1e-4
    washout: int = 0
    standardize: bool = True
    random_state: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Draw a reservoir and learn its readout.

        Parameters
        ----------
        X : list of ndarray, ndarray, or tuple
            N sequences: arrays (T_i, D) or (T_i,), an array (N, T, D) or (N, T), or a tuple (steps
            of all one behind the other, lengths). A single series x, (T, D), is ``[x]``, and its y
            ``[y]``: an array (T, D) would be T sequences.
        y : list of ndarray, or ndarray
            The targets of each step: arrays (T_i,) or (T_i, K), an array (N, T) or (N, T, K), or,
            where X is a tuple, those of all steps one behind the other. Or (N,), one number for
            each sequence.
        sample_weight : array or sequence, optional
            (N,): a weight for each sequence, at least 0. One of weight 0 is left out.

        Returns
        -------
        self : EchoStateRegressor

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Warns
        -----
        UserWarning
            Where X is an array (N, T) of very short sequences, as a single series would be that is
            not in a list.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.estimators import EchoStateRegressor
        >>> x = np.random.default_rng(0).standard_normal((20, 10))
        >>> model = EchoStateRegressor(hidden_size=20, random_state=0).fit(x, x.cumsum(axis=1))
        >>> model.coef_.shape, model.intercept_.shape
        ((1, 21), (1,))
        """
        self._check_parameters()
        raw = _numbers(X)
        target = _read_target(X, required(self, y), raw)
        if self.washout and not target.each_step:
            raise ValueError(
                f"washout is {self.washout}, but y has one number for each sequence, which is read "
                "off at its last step: set washout=0, or pass [X] and [y] if X is a single series"
            )
        weights = _checked_weights(sample_weight, raw)
        if weights is None:
            weights = np.ones(len(raw))
        elif not weights.all():
            raw, target, weights = _without(weights == 0, raw, target, weights)
        of_steps = np.repeat(weights, raw.lengths)
        mean, deviation = mean_and_scale(raw.steps, self.standardize, of_steps)
        if target.each_step:
            within = np.arange(len(raw.steps)) - np.repeat(raw.starts, raw.lengths)
            weights = np.where(within < self.washout, 0.0, of_steps)
        if not weights.any():
            raise ValueError(
                f"washout is {self.washout}, but the longest sequence has {raw.lengths.max()} "
                "steps, so none is left to learn from: set a smaller washout"
            )
        sequences = _standardised(raw, mean, deviation)
        reservoir = self._reservoir(raw.steps.shape[1])
        states = _states(reservoir, sequences, target.each_step)
        size = reservoir.hidden_size + raw.steps.shape[1]
        coef, intercept = _readout(states, size, target.values, weights, float(self.alpha))
        self.reservoir_ = reservoir
        self.coef_: Array = coef
        self.intercept_: Array = intercept
        self.n_features_in_, self._columns = raw.steps.shape[1], raw.columns
        self._mean, self._deviation = mean, deviation
        self._each_step, self._flat = target.each_step, target.flat
        return self

    def predict(self, X: Any) -> Any:
        """Read off the targets.

        Parameters
        ----------
        X : list of ndarray, ndarray, or tuple
            N sequences, as for `fit`. Each begins with a state of zeros.

        Returns
        -------
        y : list of ndarray, or ndarray
            For each sequence an array (T_i,) or (T_i, K), as the y of `fit` was: a list of them, or
            one array (N, T) or (N, T, K) where X is an array. Or (N,), if that y was.

        Raises
        ------
        TypeError, ValueError
            If X does not fit.
        sklearn.exceptions.NotFittedError
            Before `fit`.

        Warns
        -----
        UserWarning
            Where X is an array of very short sequences, as in `fit`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.estimators import EchoStateRegressor
        >>> x = np.random.default_rng(0).standard_normal((20, 10))
        >>> model = EchoStateRegressor(hidden_size=20, random_state=0).fit(x, x.cumsum(axis=1))
        >>> model.predict(x).shape, [y.shape for y in model.predict([x[0], x[1, :4]])]
        ((20, 10), [(10,), (4,)])
        """
        check_is_fitted(self)
        sequences = self._known(_numbers(X))
        made = self._predicted(sequences)
        if self._flat:
            made = made[:, 0]
        return as_given(X, sequences.split(made)) if self._each_step else made

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R², the share of the variance of y that is predicted.

        Parameters
        ----------
        X : list of ndarray, ndarray, or tuple
            N sequences, as for `fit`.
        y : list of ndarray, or ndarray
            Their targets, as for `fit`.
        sample_weight : array or sequence, optional
            (N,): a weight for each sequence, at least 0; that of its steps.

        Returns
        -------
        score : float
            1 at best; 0 is as good as the mean of y. Over all steps of all sequences, or over the
            sequences where y is (N,); the mean of the scores of all targets.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.
        sklearn.exceptions.NotFittedError
            Before `fit`.

        Warns
        -----
        UserWarning
            Where X is an array of very short sequences, as in `fit`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.estimators import EchoStateRegressor
        >>> x = np.random.default_rng(0).standard_normal((20, 10))
        >>> model = EchoStateRegressor(hidden_size=20, random_state=0).fit(x, x.cumsum(axis=1))
        >>> model.score(x, x.cumsum(axis=1)) > 0.9
        True
        """
        check_is_fitted(self)
        sequences = self._known(_numbers(X))
        target = _read_target(X, required(self, y), sequences, self._each_step)
        expected = len(self.intercept_), self._each_step
        if (target.values.shape[1], target.each_step) != expected:
            came, wanted = (
                f"{n} number{'s' * (n > 1)} for each {'step' if each_step else 'sequence'}"
                for n, each_step in ((target.values.shape[1], target.each_step), expected)
            )
            raise ValueError(f"y has {came}, but this EchoStateRegressor was fitted on {wanted}")
        weights = _checked_weights(sample_weight, sequences)
        if weights is not None and self._each_step:
            weights = np.repeat(weights, sequences.lengths)
        made = self._predicted(sequences)
        return float(r2_score(target.values, made, sample_weight=weights))

    # -------------------------------------------------------------------- arguments

    def _check_parameters(self) -> None:
        _checks.size("hidden_size", self.hidden_size)
        _checks.size("washout", self.washout, 0)
        for name in ("spectral_radius", "input_scaling", "bias_scaling", "alpha"):
            _checks.bounded(name, getattr(self, name))
        for name in ("leak", "density"):
            if not 0 < _checks.number(name, getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected 0 < {name} <= 1")
        _checks.flag("standardize", self.standardize)

    def _known(self, raw: Sequences) -> Sequences:
        """X as the reservoir takes it."""
        if raw.steps.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {raw.steps.shape[1]} features a step, but EchoStateRegressor is expecting "
                f"{self.n_features_in_} features as input"
            )
        check_columns(raw.columns, self._columns, "X", "fit was given")
        return _standardised(raw, self._mean, self._deviation)

    def _reservoir(self, features: int) -> LeakyRNN:
        """Random weights; the largest eigenvalue of the recurrent ones is the spectral radius."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        rng = np.random.default_rng(seed)
        size = int(self.hidden_size)
        layer = LeakyRNN(
            features, size, bias="single", leak=float(self.leak), dtype="float64", rng=0
        )
        w_hh = rng.standard_normal((size, size)) * (rng.random((size, size)) < self.density)
        radius = np.abs(np.linalg.eigvals(w_hh)).max()
        if not radius and self.spectral_radius:
            raise ValueError(
                f"density is {self.density}, which left no loop between the {size} units, so the "
                "spectral radius is 0: set a larger density, or spectral_radius=0"
            )
        gain = self.spectral_radius / radius if radius else 0.0
        layer.weights["weight_hh_l0"][...] = w_hh * gain
        w_ih = rng.uniform(-1, 1, (size, features))
        layer.weights["weight_ih_l0"][...] = w_ih * self.input_scaling
        layer.weights["bias_ih_l0"][...] = rng.uniform(-1, 1, size) * self.bias_scaling
        return layer

    def _predicted(self, sequences: Sequences) -> Array:
        """(sum of lengths, K), or (N, K) where there is a number for each sequence."""
        count = len(sequences.steps) if self._each_step else len(sequences)
        made = np.empty((count, len(self.intercept_)))
        for places, states in _states(self.reservoir_, sequences, self._each_step):
            made[places] = linear_forward(states, self.coef_, self.intercept_, record=False)[0]
        check_output(made)
        return made


# ------------------------------------------------------------------------------ states and readout


def _states(
    reservoir: LeakyRNN, sequences: Sequences, each_step: bool
) -> Iterator[tuple[Array, Array]]:
    """What the readout sees, (n, H + D) at a time, and the numbers (n,) of these steps.

    Or, where there is a number for each sequence, what it sees at the last steps of some, and
    the numbers of these sequences. A long sequence is read in pieces: the state goes on.
    """
    most = max(PIECE // reservoir.hidden_size, 2 * reservoir.hidden_size)
    for rows in by_length(sequences.lengths):
        start, state = 0, None
        while rows.size:
            left = sequences.lengths[rows] - start
            size = min(max(1, most // len(rows)), int(left.max()))
            lengths = np.minimum(left, size)
            times = np.arange(size)[:, None]
            places = sequences.starts[rows] + start + np.minimum(times, lengths - 1)
            x = sequences.steps[places]
            output, state = reservoir(x, state, lengths=lengths)
            ended = left <= size
            if each_step:
                inside = times < lengths
                yield places[inside], np.concatenate([output[inside], x[inside]], axis=1)
            elif ended.any():
                last = x[lengths - 1, np.arange(len(rows))]
                yield rows[ended], np.concatenate([state[0], last], axis=1)[ended]
            start += size
            rows, state = rows[~ended], state[:, ~ended]


def _readout(
    pieces: Iterator[tuple[Array, Array]], size: int, target: Array, weights: Array, alpha: float
) -> tuple[Array, Array]:
    """coef_ and intercept_: least sum of w |coef s + intercept - y|^2, plus alpha |coef|^2.

    Means and products around them are gathered piece by piece (Chan, Golub and LeVeque 1983),
    so nothing cancels where a mean is large. A unit or feature that is constant gets no weight.
    """
    exponents = np.frexp(np.abs(target).max(axis=0))[1]  # of y / 2^exponent no square overflows
    target = np.ldexp(target, -exponents)
    total = 0.0
    mean = np.zeros(size + target.shape[1])  # of what the readout sees, and of y
    products = np.zeros((size, len(mean)))
    for places, states in pieces:
        weight = weights[places]
        count = float(weight.sum())
        if not count:
            continue
        both = np.concatenate([states, target[places]], axis=1)
        center = weight @ both / count
        both -= center
        off = weight @ both / count  # by the rounding of the center
        both -= off
        products += (both[:, :size] * weight[:, None]).T @ both
        away = center + off - mean
        products += total * count / (total + count) * np.outer(away[:size], away)
        total += count
        mean += away * (count / total)
    covariance, moments = products[:, :size], products[:, size:]
    variance = covariance.diagonal()
    constant = variance <= total * np.square(4 * EPS * mean[:size])
    # (C + alpha) coef = moments, with rows and columns times d: so all of the diagonal is 1.
    d = np.where(constant, 0.0, 1 / np.sqrt(np.where(constant, 1.0, variance + alpha)))
    values, vectors = np.linalg.eigh(d[:, None] * (covariance + alpha * np.eye(size)) * d)
    seen = values > size * EPS * values.max()  # the others are rounding
    inverse = np.where(seen, 1 / np.where(seen, values, 1.0), 0.0)
    coef = d[:, None] * (vectors @ (inverse[:, None] * (vectors.T @ (d[:, None] * moments))))
    intercept = mean[size:] - mean[:size] @ coef
    with np.errstate(over="ignore"):
        coef, intercept = np.ldexp(coef, exponents).T.copy(), np.ldexp(intercept, exponents)
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise ValueError("y contains a value too large to be predicted: divide it by something")
    return coef, intercept


# ------------------------------------------------------------------------------ reading


def _numbers(X: Any) -> Sequences:
    """X as it is read, with a warning to the caller's caller where it seems to be one series."""
    raw = read(X)
    if raw.of_tokens:
        raise TypeError(
            "X is of tokens, but an EchoStateRegressor reads numbers: encode them first "
            "(sklearn.preprocessing.OneHotEncoder), or use a SequenceRegressor"
        )
    steps = int(raw.lengths[0])
    if hasattr(X, "__array__") and np.asarray(X).ndim == 2 and steps < min(SHORT, len(raw)):
        warnings.warn(
            f"X has shape {(len(raw), steps)}, which is {len(raw)} sequences of {steps} "
            f"step{'s' * (steps > 1)}. If it is a single series, pass [X], and [y]; if not, a list "
            "of its rows says so",
            stacklevel=3,
        )
    return raw


def _standardised(raw: Sequences, mean: Array, deviation: Array) -> Sequences:
    """What the reservoir reads: no number is too large for the square of it."""
    with np.errstate(over="ignore"):
        steps = (raw.steps - mean) / deviation
    if not (np.abs(steps) < LARGEST).all():
        place, feature = np.argwhere(~(np.abs(steps) < LARGEST))[0]
        row, step = raw.row_of(int(place))
        raise ValueError(
            f"Input X contains a value too large: X[{row}] at step {step}, feature {feature}, is "
            f"{raw.steps[place, feature]:.3g}, {steps[place, feature]:.3g} to the reservoir"
        )
    return Sequences(steps, raw.lengths)


def _checked_weights(sample_weight: Any, sequences: Sequences) -> Array | None:
    weights = checked_weights(sample_weight, sequences)
    if weights is not None and weights.max() > LARGEST:
        raise ValueError(f"sample_weight holds {weights.max():.3g}, expected {LARGEST} at most")
    return weights


def _without(
    left_out: Array, sequences: Sequences, target: Target, weights: Array
) -> tuple[Sequences, Target, Array]:
    steps = np.repeat(~left_out, sequences.lengths)
    values = target.values[steps if target.each_step else ~left_out]
    kept = Sequences(sequences.steps[steps], sequences.lengths[~left_out])
    return kept, target._replace(values=values), weights[~left_out]


def _read_target(X: Any, y: Any, sequences: Sequences, each_step: bool = False) -> Target:
    """y; of the form that `each_step` says where every sequence has one step, and both would do."""
    if hasattr(y, "__array__"):
        y = np.asarray(y)
    elif isinstance(y, Iterable) and not isinstance(y, str | bytes | dict | set | tuple):
        y = list(y)
    if not isinstance(y, list | tuple) and not np.ndim(y):
        raise TypeError(f"y is a {type(y).__name__}, expected numbers for each step or sequence")
    if isinstance(X, tuple) and not isinstance(y, tuple) and len(y) == sequences.lengths.sum():
        numbers = _are_numbers(y)
        if each_step or not numbers or len(y) > len(sequences):  # one behind the other, as X is
            return Target(_of_steps((y, sequences.lengths), sequences), True, numbers)
    if _are_numbers(y):
        return Target(_of_sequences(y, sequences), False, True)
    if isinstance(y, np.ndarray) and y.ndim == 2 and len(y) == len(sequences):
        lengths = np.unique(sequences.lengths)
        if y.shape[1] == 1 < lengths[-1]:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected: y.ravel() has one "
                "number for each sequence",
                DataConversionWarning,
                stacklevel=3,
            )
            return Target(_of_sequences(y[:, 0], sequences), False, True)
        if (lengths != y.shape[1]).any():
            steps = f"{lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else f"{lengths[0]}"
            raise ValueError(
                f"y has shape {y.shape}, but the sequences of X have {steps} steps; {MANY_NUMBERS}"
            )
    values = _of_steps(y, sequences)
    return Target(values, True, np.ndim(y[0]) == 1)


def _are_numbers(y: Any) -> bool:
    """Whether y is of single numbers, not of arrays."""
    if isinstance(y, np.ndarray) and y.dtype != object:
        return y.ndim == 1 and y.dtype.kind not in "US"
    return len(y) > 0 and all(
        isinstance(a, Real) or (getattr(a, "ndim", None) == 0 and not isinstance(a, str)) for a in y
    )


def _of_sequences(y: Any, sequences: Sequences) -> Array:
    """(N, 1)."""
    if len(y) != len(sequences):
        steps = sequences.lengths.sum()
        if len(sequences) == 1 and len(y) == steps:
            cure = "[y] has one for each step of the sequence"
        else:
            cure = "expected one for each sequence, (N,), or a list of those for each step"
        raise ValueError(
            f"y has {len(y)} numbers, but X has {len(sequences)} sequences of {steps} steps: {cure}"
        )
    made = np.asarray(y)
    if made.dtype.kind not in "biufO":
        raise TypeError(f"y is of type {made.dtype}, expected numbers")
    try:
        made = made.astype(np.float64).reshape(-1, 1)
    except (TypeError, ValueError) as error:
        raise TypeError(f"y holds something that is no number ({error})") from None
    if not np.isfinite(made).all():
        row = int((~np.isfinite(made[:, 0])).argmax())
        what = "NaN" if np.isnan(made[row, 0]) else "infinity"
        raise ValueError(f"Input y contains {what}: y[{row}]")
    return made


def _of_steps(y: Any, sequences: Sequences) -> Array:
    """(sum of lengths, K)."""
    made = read(y, "y")
    if made.of_tokens:
        raise TypeError("y is of strings, expected numbers for each step or sequence")
    if len(made) != len(sequences):
        single = "y" if len(sequences) == 1 else "X" if len(made) == 1 else ""
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"{[len(sequences), len(made)]}"
            + (f". If both are a single series, pass [{single}]" if single else "")
        )
    if (wrong := np.flatnonzero(made.lengths != sequences.lengths)).size:
        i = wrong[0]
        raise ValueError(
            f"y[{i}] has {made.lengths[i]} steps, but X[{i}] has {sequences.lengths[i]}"
            + ("" if len(made) == 1 or np.ptp(made.lengths) else f"; {MANY_NUMBERS}")
        )
    return made.steps
