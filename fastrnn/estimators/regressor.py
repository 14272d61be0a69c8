"""Many-to-one: numbers for a sequence, such as the values that follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array

from .. import Sequential, mean_squared_error
from . import labels
from .base import (
    ReadingEstimator,
    check_count,
    checked_weights,
    in_batches,
    mean_and_scale,
    required,
    warn_of_single_steps,
)
from .sequences import Sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceRegressor(RegressorMixin, ReadingEstimator):
    """Many-to-one: numbers for a sequence, such as the values that follow it.

    X is N sequences, each of one or more steps, in any of these forms:

    - a list of N arrays, (T_i, D) or (T_i,) for D = 1;
    - an array (N, T, D), or (N, T): N sequences of T single numbers;
    - a tuple (steps, lengths): all steps one behind the other, (sum of lengths, D), and (N,);
    - a list of strings, whose characters are tokens, or of lists of strings, which are;
    - with tokens=True, any of these with integers, one a step.

    Parameters
    ----------
    cell : {"gru", "lstm", "rnn", "leaky"}, default="gru"
        The recurrent cell.
    hidden_size : int, default=64
        Units of a recurrent layer, in each direction.
    num_layers : int, default=1
        Recurrent layers, one on the other.
    bidirectional : bool, default=False
        Whether other units read each sequence from its end, beside those that read it from its
        start.
    embedding_size : int, default=32
        Length of the vector that stands for a token. Without use where X is of numbers.
    dropout : float, default=0.0
        0 <= dropout < 1: this part of the values is dropped in training: of the tokens' vectors,
        between recurrent layers and before the output layer.
    standardize : bool, default=True
        Whether to bring the features of X, and y, to mean 0 and variance 1: those of fit's steps,
        and of fit's y.
    tokens : bool, default=False
        Whether integers in X are tokens. Strings always are.
    handle_unknown : {"error", "ignore"}, default="error"
        Of a token that fit has not seen: refuse it, or read zeros in its place.
    weight_decay : float, default=0.0
        Of AdamW: each step also takes rate * weight_decay of all weights off them.
    batch_size : int or "auto", default="auto"
        Sequences a step. "auto": min(32, N).
    learning_rate : {"constant", "linear"}, default="constant"
        Whether the rate stays what it is, or falls to 0 in max_iter epochs.
    learning_rate_init : float, default=0.005
        The rate of AdamW, at first.
    clip_norm : float or None, default=1.0
        A gradient with a larger norm is scaled to this one. None: none is.
    max_iter : int, default=200
        Epochs, at most.
    tol : float, default=1e-4
        An epoch is better than those before if its loss is lower by more than this; with
        early_stopping, if its validation score is higher by more than this.
    n_iter_no_change : int, default=10
        Training ends after so many epochs in a row of which none is better.
    early_stopping : bool, default=False
        Whether to hold out some sequences, and to score each epoch by R² on them. The weights of
        the best epoch are kept.
    validation_fraction : float, default=0.1
        The part of the sequences that early_stopping holds out.
    dtype : {"float32", "float64"}, default="float32"
        What the network computes in.
    warm_start : bool, default=False
        Whether fit goes on for max_iter more epochs where the last one, or Ctrl-C, ended: with
        its weights, optimiser, tokens, means and variances.
    random_state : int, RandomState instance or None, default=None
        Draws weights, batches, dropout and what is held out. With an int, fit gives the same bits
        each time, on any number of threads.
    verbose : bool, default=False
        Whether to show a progress bar, or, where tqdm is not installed, a line for each epoch.

    Attributes
    ----------
    model_ : Sequential
        The trained network: layers "embedding" and "embedding_dropout" (of tokens), "rnn",
        "dropout" and "output"; those of dropout are left out where it is 0.
    n_features_in_ : int
        Features of a step, D; 1 where X is of tokens. (Not columns of a table: an array (N, T) has
        one feature a step.)
    tokens_ : ndarray of object, or None
        (n,): the tokens that fit has seen, sorted. None where X is of numbers.
    n_iter_ : int
        Epochs so far.
    loss_curve_ : list of float
        The mean loss of each epoch, dropout included, of y as standardised.
    loss_ : float
        That of the last one.
    validation_scores_ : list of float, or None
        With early_stopping, R² of the held-out sequences after each epoch, where each counts by its
        weight. If they are one, or all alike, there is no R²: their negative mean squared error.
    best_validation_score_ : float or None
        That of the weights that were kept.

    See Also
    --------
    EchoStateRegressor : numbers for a sequence or for each step, without training by gradients.
    SequenceClassifier : a label for a sequence.

    Notes
    -----
    The last state of the recurrent layer (with bidirectional=True one of each direction, side by
    side) stands for the sequence; an output layer makes the numbers of it, all at once [1]_. The
    loss of a batch is the mean squared error, each sequence's times its weight, over the sum of the
    weights.

    Parameters and attributes with the names of those of `sklearn.neural_network.MLPRegressor` mean
    what they do there, but: weight_decay is decoupled (AdamW [3]_), where alpha is a term of the
    loss; learning_rate is "constant" or "linear"; the gradient is clipped [2]_; batches are of
    sequences of like length, drawn anew in each epoch; training ends after n_iter_no_change epochs,
    not one later, and max_iter epochs are no reason for a ConvergenceWarning.

    Ctrl-C in fit warns and keeps what was learned. Nothing depends on the number of threads, and
    what is predicted for a sequence not on the others.

    References
    ----------
    .. [1] A. Graves, "Supervised sequence labelling with recurrent neural networks", Springer 2012.
    .. [2] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural
       networks", ICML 2013.
    .. [3] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.estimators import SequenceRegressor
    >>> waves = np.sin(np.arange(12) / 2 + np.arange(100)[:, None])
    >>> X, y = waves[:, :10], waves[:, 10:]  # the two values that follow ten others
    >>> next_two = SequenceRegressor(hidden_size=16, max_iter=40, random_state=0)
    >>> next_two.fit(X[:70], y[:70]).score(X[70:], y[70:]) > 0.9
    True
    >>> next_two.predict(X[:1]).shape
    (1, 2)
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from sequences and their numbers.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.
        y : array-like
            (N,), (N, K) or (N, steps, K): the numbers of each sequence, finite.
        sample_weight : array-like, optional
            (N,): a weight for each in the loss, finite and >= 0. With 0 a sequence is not learned
            from; means and variances are of all.

        Returns
        -------
        SequenceRegressor
            This estimator.

        Raises
        ------
        TypeError, ValueError
            If a parameter or an argument does not fit; the error says where. If training diverges,
            too: nothing is fitted then, or with warm_start what was before.

        Warns
        -----
        UserWarning
            On Ctrl-C, which ends training early. If each of several sequences has one step alone.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceRegressor
        >>> X, y = [[1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 3.0]], [3.0, -1.0, 6.0]
        >>> following = SequenceRegressor(hidden_size=8, max_iter=50, random_state=0).fit(X, y)
        >>> len(following.loss_curve_) == following.n_iter_
        True
        """
        self._check_parameters()
        sequences = self._read(X, fitting=True)
        warn_of_single_steps(sequences)
        target = self._read_target(y, sequences)
        weights = checked_weights(sample_weight, sequences)

        def make(rng: np.random.Generator) -> list[Sequential]:
            layers = self._reader(rng)
            return [self._headed(layers, target.shape[1], rng)]

        def step(rows: Array, rng: np.random.Generator) -> tuple[float, list[Any]]:
            model = self.model_
            x, lengths = sequences.batch(rows)
            output, _, tape = model.forward(x, lengths=lengths, last=True, rng=rng)
            loss, d_output = mean_squared_error(
                output, target[rows], sample_weight=None if weights is None else weights[rows]
            )
            return loss, [model.backward(tape, d_output, wrt=["weights"])]

        def score(rows: Array) -> float:
            weight = None if weights is None else weights[rows]
            output = self._outputs(sequences, rows)
            if not np.ptp(target[rows], axis=0).any():  # R² needs some variance
                return -float(np.square(output - target[rows]).mean())
            return float(r2_score(target[rows], output, sample_weight=weight))

        self._train(make, sequences.lengths, step, score, weights=weights)
        return self

    @property
    def model_(self) -> Sequential:
        """The trained network."""
        return self._network()

    def predict(self, X: Any) -> Array:
        """The numbers of each sequence.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.

        Returns
        -------
        ndarray
            (N,), (N, K) or (N, steps, K), as the y of fit; float64.

        Raises
        ------
        TypeError, ValueError
            If X does not fit; the error says where.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceRegressor
        >>> X, y = [[1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 3.0]], [3.0, -1.0, 6.0]
        >>> following = SequenceRegressor(hidden_size=8, max_iter=50, random_state=0).fit(X, y)
        >>> following.predict([[1.0, 2.0], [4.0, 3.0]]).shape
        (2,)
        """
        return self._restored(self._outputs(self._read(X)))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R², the coefficient of determination: 1 is best, 0 is the mean of y.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.
        y : array-like
            The right numbers, of the shape that fit was given.
        sample_weight : array-like, optional
            (N,): weights, finite and >= 0.

        Returns
        -------
        float
            As `sklearn.metrics.r2_score`, the mean over the numbers where there are several.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error says where.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceRegressor
        >>> X, y = [[1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 3.0]], [3.0, -1.0, 6.0]
        >>> following = SequenceRegressor(hidden_size=8, max_iter=50, random_state=0).fit(X, y)
        >>> following.score(X, y) > 0.5
        True
        """
        sequences = self._read(X)
        right = self._numbers(y, sequences)
        weights = checked_weights(sample_weight, sequences)
        found = self._restored(self._outputs(sequences))
        pair = (a.reshape(len(a), -1) for a in (right, found))
        return float(r2_score(*pair, sample_weight=weights))

    def _restored(self, outputs: Array) -> Array:
        """What the network says, in the units of y."""
        shaped = outputs.astype(np.float64).reshape(-1, *self._target_shape)
        made: Array = shaped * self._y_scale + self._y_mean
        return made

    def _outputs(self, sequences: Sequences, rows: Array | None = None) -> Array:
        model = self.model_
        return in_batches(
            sequences, rows, lambda x, lengths: model(x, lengths=lengths, last=True)[0]
        )

    def _read_target(self, y: Any, sequences: Sequences) -> Array:
        """(N, outputs), standardised."""
        y = self._numbers(y, sequences)
        if not self._continues():
            self._target_shape = y.shape[1:]
            self._y_mean, self._y_scale = mean_and_scale(y, self.standardize)
        with np.errstate(over="ignore", invalid="ignore"):
            made: Array = ((y - self._y_mean) / self._y_scale).astype(self._dtype)
        made = made.reshape(len(y), -1)
        if not np.isfinite(made).all():
            place = int((~np.isfinite(made)).any(axis=1).argmax())
            raise ValueError(
                f"Input y contains a value too large for dtype({self.dtype!r}): y[{place}]. Divide "
                "y by something first"
            )
        return made

    def _numbers(self, y: Any, sequences: Sequences) -> Array:
        """y as an array of float64, of the shape that this estimator has learned."""
        y = required(self, y)
        if getattr(getattr(y, "dtype", None), "kind", "") in ("M", "m"):
            raise TypeError(f"y is of type {y.dtype}, expected numbers: pass y.astype(float)")
        if not hasattr(y, "__array__"):
            y = labels.listed(y, "y", "numbers for each sequence")
        try:
            # In one order of memory: the last bit of a sum depends on it.
            made: Array = check_array(
                y, ensure_2d=False, allow_nd=True, dtype=np.float64, order="C", input_name="y"
            )
        except OverflowError:
            raise ValueError("y holds an integer too large for float64") from None
        except TypeError as error:
            raise TypeError(f"y holds no numbers: {error}") from None
        except ValueError as error:
            if "could not convert" in str(error):
                raise ValueError(f"y holds no numbers: {error}") from None
            if "inhomogeneous" not in str(error):
                raise
            raise ValueError(
                "y holds sequences of unequal lengths, expected numbers for each sequence, (N,), "
                "(N, K) or (N, steps, K): an EchoStateRegressor gives some for each step"
            ) from None
        check_count(made, sequences)
        if made.ndim > 3:
            raise ValueError(f"y has shape {made.shape}, expected (N,), (N, K) or (N, steps, K)")
        if self.__sklearn_is_fitted__() and made.shape[1:] != self._target_shape:
            learned = ", ".join(map(str, ("N", *self._target_shape)))
            raise ValueError(
                f"y has shape {made.shape}, but this SequenceRegressor has learned ({learned})"
            )
        return made
