"""Many-to-one: a label for a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import column_or_1d

from .. import Sequential, log_softmax, softmax, softmax_cross_entropy
from . import labels
from .base import (
    ReadingEstimator,
    check_count,
    checked_weights,
    in_batches,
    required,
    warn_of_single_steps,
)
from .sequences import Sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceClassifier(ClassifierMixin, ReadingEstimator):
    """Many-to-one: a label for a sequence.

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
        Whether to bring the features of X to mean 0 and variance 1: those of fit's steps.
    tokens : bool, default=False
        Whether integers in X are tokens. Strings always are.
    handle_unknown : {"error", "ignore"}, default="error"
        Of a token that fit has not seen: refuse it, or read zeros in its place.
    class_weight : dict, "balanced" or None, default=None
        A weight for each label, finite and >= 0; 1 for those that the dict does not name.
        "balanced": n / (labels * n of this label), n being the number of sequences.
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
        Whether to hold out some sequences, and to score each epoch by the accuracy on them. The
        weights of the best epoch are kept.
    validation_fraction : float, default=0.1
        The part of the sequences that early_stopping holds out, of each label alike.
    dtype : {"float32", "float64"}, default="float32"
        What the network computes in.
    warm_start : bool, default=False
        Whether fit goes on for max_iter more epochs where the last one, or Ctrl-C, ended: with
        its weights, optimiser, tokens and labels, which must not be new ones.
    random_state : int, RandomState instance or None, default=None
        Draws weights, batches, dropout and what is held out. With an int, fit gives the same bits
        each time, on any number of threads.
    verbose : bool, default=False
        Whether to show a progress bar, or, where tqdm is not installed, a line for each epoch.

    Attributes
    ----------
    classes_ : ndarray
        (C,): the labels, sorted.
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
        The mean loss of each epoch, dropout included.
    loss_ : float
        That of the last one.
    validation_scores_ : list of float, or None
        With early_stopping, the accuracy of the held-out sequences after each epoch, where each
        counts by its weight in the loss.
    best_validation_score_ : float or None
        That of the weights that were kept.

    See Also
    --------
    SequenceTagger : a label for each step.
    SequenceRegressor : numbers for a sequence.

    Notes
    -----
    The last state of the recurrent layer (with bidirectional=True one of each direction, side by
    side) stands for the sequence; an output layer makes logits of it [1]_. The loss of a batch is
    the cross-entropy of its labels, each times its weight, over the sum of the weights.

    Parameters and attributes with the names of those of `sklearn.neural_network.MLPClassifier` mean
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
    >>> from fastrnn.estimators import SequenceClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((n, 2)) for n in rng.integers(3, 12, 200)]
    >>> y = ["up" if x[:, 0].sum() > 0 else "down" for x in X]
    >>> up_or_down = SequenceClassifier(
    ...     hidden_size=16, learning_rate_init=0.02, max_iter=20, random_state=0
    ... )
    >>> up_or_down.fit(X[:150], y[:150]).score(X[150:], y[150:]) > 0.9
    True

    Sequences of tokens:

    >>> words = ["ab", "ba", "abb", "baa", "aab", "bba", "aaab", "bbba", "abba", "baab"] * 3
    >>> first = SequenceClassifier(hidden_size=16, max_iter=60, random_state=0)
    >>> first.fit(words, [word[0] for word in words]).predict(["aba", "bab"]).tolist()
    ['a', 'b']
    """

    class_weight: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from sequences and their labels.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.
        y : array-like
            (N,): a label for each, strings or integers.
        sample_weight : array-like, optional
            (N,): a weight for each in the loss, finite and >= 0. With 0 a sequence is not learned
            from; its features or tokens are known all the same.

        Returns
        -------
        SequenceClassifier
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
        >>> from fastrnn.estimators import SequenceClassifier
        >>> X, y = [[1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 3.0]], ["up", "down", "up"]
        >>> direction = SequenceClassifier(hidden_size=8, max_iter=50, random_state=0).fit(X, y)
        >>> direction.classes_.tolist()
        ['down', 'up']
        """
        self._check_parameters()
        sequences = self._read(X, fitting=True)
        warn_of_single_steps(sequences)
        y = labels_of_sequences(required(self, y), sequences)
        self.classes_: Array
        classes = self.classes_ if self._continues() else None
        target, self.classes_ = labels.encoded(y, classes)
        weights = labels.weights(
            target, self.classes_, self.class_weight, checked_weights(sample_weight, sequences)
        )

        def make(rng: np.random.Generator) -> list[Sequential]:
            layers = self._reader(rng)
            return [self._headed(layers, len(self.classes_), rng)]

        def step(rows: Array, rng: np.random.Generator) -> tuple[float, list[Any]]:
            model = self.model_
            x, lengths = sequences.batch(rows)
            logits, _, tape = model.forward(x, lengths=lengths, last=True, rng=rng)
            loss, d_logits = softmax_cross_entropy(
                logits, target[rows], sample_weight=None if weights is None else weights[rows]
            )
            return loss, [model.backward(tape, d_logits, wrt=["weights"])]

        def score(rows: Array) -> float:
            guess = self._logits(sequences, rows).argmax(axis=1)
            weight = None if weights is None else weights[rows]
            return float(accuracy_score(target[rows], guess, sample_weight=weight))

        self._train(make, sequences.lengths, step, score, target, weights)
        return self

    @property
    def model_(self) -> Sequential:
        """The trained network."""
        return self._network()

    def predict(self, X: Any) -> Array:
        """The likeliest label of each sequence.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.

        Returns
        -------
        ndarray
            (N,), of the type of classes_.

        Raises
        ------
        TypeError, ValueError
            If X does not fit; the error says where.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceClassifier
        >>> X, y = [[1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 3.0]], ["up", "down", "up"]
        >>> direction = SequenceClassifier(hidden_size=8, max_iter=50, random_state=0).fit(X, y)
        >>> direction.predict([[0.0, 4.0]]).tolist()
        ['up']
        """
        logits = self._logits(self._read(X))
        made: Array = self.classes_[logits.argmax(axis=1)]
        return made

    def predict_proba(self, X: Any) -> Array:
        """The probability of each label, for each sequence.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.

        Returns
        -------
        ndarray
            (N, C) of float64, in the order of classes_; each row adds up to 1.

        Raises
        ------
        TypeError, ValueError
            If X does not fit; the error says where.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceClassifier
        >>> X, y = [[1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 3.0]], ["up", "down", "up"]
        >>> direction = SequenceClassifier(hidden_size=8, max_iter=50, random_state=0).fit(X, y)
        >>> direction.predict_proba(X).shape
        (3, 2)
        """
        return softmax(self._logits(self._read(X)).astype(np.float64))

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of predict_proba, exact for small probabilities too.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.

        Returns
        -------
        ndarray
            (N, C) of float64, in nats.

        Raises
        ------
        TypeError, ValueError
            If X does not fit; the error says where.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceClassifier
        >>> X, y = [[1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 3.0]], ["up", "down", "up"]
        >>> direction = SequenceClassifier(hidden_size=8, max_iter=50, random_state=0).fit(X, y)
        >>> bool((direction.predict_log_proba(X) < 0).all())
        True
        """
        return log_softmax(self._logits(self._read(X)).astype(np.float64))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The part of the sequences that get the right label.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.
        y : array-like
            (N,): the right labels. One that fit has not seen counts as not found.
        sample_weight : array-like, optional
            (N,): weights, finite and >= 0.

        Returns
        -------
        float
            Between 0 and 1.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error says where.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceClassifier
        >>> X, y = [[1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 3.0]], ["up", "down", "up"]
        >>> direction = SequenceClassifier(hidden_size=8, max_iter=50, random_state=0).fit(X, y)
        >>> direction.score(X, y)
        1.0
        """
        sequences = self._read(X)
        right = labels_of_sequences(required(self, y), sequences)
        labels.check_same_kind(right, self.classes_)
        found = self.classes_[self._logits(sequences).argmax(axis=1)]
        weights = checked_weights(sample_weight, sequences)
        return float(np.average(found == right, weights=weights))

    def _logits(self, sequences: Sequences, rows: Array | None = None) -> Array:
        model = self.model_
        return in_batches(
            sequences, rows, lambda x, lengths: model(x, lengths=lengths, last=True)[0]
        )


def labels_of_sequences(y: Any, sequences: Sequences) -> Array:
    """The labels, one for each sequence."""
    y = y if hasattr(y, "__array__") else labels.array_of(y)
    shape = np.asarray(y).shape
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"y should be a 1d array, got an array of shape {shape}: a label for each "
            "sequence. If it is one-hot, pass np.argmax(y, axis=1)"
        )
    made = labels.array_of(column_or_1d(y, warn=True))
    check_count(made, sequences)
    return made
