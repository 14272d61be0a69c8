"""Many-to-many of the same length: a label for each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.metrics import accuracy_score

from .. import Sequential, softmax, softmax_cross_entropy
from . import labels
from .base import ReadingEstimator, check_output, checked_weights, required, warn_of_single_steps
from .sequences import Sequences, by_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceTagger(ReadingEstimator):
    """Many-to-many of the same length: a label for each step.

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
        "balanced": n / (labels * n of this label), n being the number of steps.
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
        Whether to hold out some sequences, and to score each epoch by the accuracy on their steps.
        The weights of the best epoch are kept.
    validation_fraction : float, default=0.1
        The part of the sequences that early_stopping holds out.
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
        With early_stopping, the accuracy on the held-out sequences' steps after each epoch, where
        each counts by its weight in the loss.
    best_validation_score_ : float or None
        That of the weights that were kept.

    See Also
    --------
    SequenceClassifier : a label for a sequence.
    SequenceTranslator : a sequence for a sequence, of any length.

    Notes
    -----
    At each step an output layer makes logits of the recurrent layer's state [1]_, which knows the
    steps so far; with bidirectional=True those to come as well [4]_. The loss of a batch is the
    cross-entropy of all its steps, each times its weight, over the sum of the weights: long
    sequences count for more than short ones.

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
    .. [4] M. Schuster, K. K. Paliwal, "Bidirectional recurrent neural networks", IEEE Trans. Signal
       Process. 45(11), 1997.

    Examples
    --------
    Is a letter like the one before it?

    >>> from fastrnn.estimators import SequenceTagger
    >>> X = ["abba", "aab", "bbab", "baa", "abab", "bb"] * 5
    >>> y = [["nl"[i > 0 and a == x[i - 1]] for i, a in enumerate(x)] for x in X]
    >>> tagger = SequenceTagger(hidden_size=16, max_iter=40, random_state=0).fit(X, y)
    >>> "".join(tagger.predict(["aabb"])[0])
    'nlnl'
    """

    class_weight: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from sequences and the labels of their steps.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.
        y : array-like
            (N, T), or a list of N sequences of labels, strings or integers, each as long as its
            sequence. Or, as in a tuple X, all of them one behind the other.
        sample_weight : array-like, optional
            (N,): a weight for each sequence in the loss, finite and >= 0. With 0 a sequence is not
            learned from; its features or tokens are known all the same.

        Returns
        -------
        SequenceTagger
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
        >>> from fastrnn.estimators import SequenceTagger
        >>> X, y = [[1.0, -2.0], [2.0, 1.0, -3.0]], [["+", "-"], ["+", "+", "-"]]
        >>> sign = SequenceTagger(hidden_size=8, max_iter=30, random_state=0).fit(X, y)
        >>> sign.classes_.tolist()
        ['+', '-']
        """
        self._check_parameters()
        sequences = self._read(X, fitting=True)
        warn_of_single_steps(sequences)
        of_steps = read_labels(required(self, y), sequences)
        self.classes_: Array
        classes = self.classes_ if self._continues() else None
        target, self.classes_ = labels.encoded(of_steps, classes)
        of_rows = checked_weights(sample_weight, sequences)
        weights = labels.weights(
            target, self.classes_, self.class_weight,
            None if of_rows is None else np.repeat(of_rows, sequences.lengths),
        )  # fmt: skip

        def make(rng: np.random.Generator) -> list[Sequential]:
            layers = self._reader(rng)
            return [self._headed(layers, len(self.classes_), rng)]

        def step(rows: Array, rng: np.random.Generator) -> tuple[float, list[Any]]:
            model = self.model_
            places, lengths = sequences.places(rows)
            logits, _, tape = model.forward(sequences.steps[places], lengths=lengths, rng=rng)
            loss, d_logits = softmax_cross_entropy(
                logits, target[places], lengths=lengths,
                sample_weight=None if weights is None else weights[places],
            )  # fmt: skip
            return loss, [model.backward(tape, d_logits, wrt=["weights"])]

        def score(rows: Array) -> float:
            places = sequences.all_places(rows)
            weight = None if weights is None or not weights[places].any() else weights[places]
            guess = self._logits(sequences, rows)[places].argmax(axis=1)
            return float(accuracy_score(target[places], guess, sample_weight=weight))

        self._train(make, sequences.lengths, step, score, weights=of_rows)
        return self

    @property
    def model_(self) -> Sequential:
        """The trained network."""
        return self._network()

    def predict(self, X: Any) -> Any:
        """The likeliest label of each step.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.

        Returns
        -------
        list of ndarray, or ndarray
            N arrays (T_i,), of the type of classes_. (N, T) where X is an array.

        Raises
        ------
        TypeError, ValueError
            If X does not fit; the error says where.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceTagger
        >>> X, y = [[1.0, -2.0], [2.0, 1.0, -3.0]], [["+", "-"], ["+", "+", "-"]]
        >>> sign = SequenceTagger(hidden_size=8, max_iter=30, random_state=0).fit(X, y)
        >>> [labels.tolist() for labels in sign.predict([[2.0], [-2.0, 2.0]])]
        [['+'], ['-', '+']]
        """
        sequences = self._read(X)
        found = self.classes_[self._logits(sequences).argmax(axis=1)]
        return as_given(X, sequences.split(found))

    def predict_proba(self, X: Any) -> Any:
        """The probability of each label, for each step.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.

        Returns
        -------
        list of ndarray, or ndarray
            N arrays (T_i, C) of float64, in the order of classes_. (N, T, C) where X is an array.

        Raises
        ------
        TypeError, ValueError
            If X does not fit; the error says where.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceTagger
        >>> X, y = [[1.0, -2.0], [2.0, 1.0, -3.0]], [["+", "-"], ["+", "+", "-"]]
        >>> sign = SequenceTagger(hidden_size=8, max_iter=30, random_state=0).fit(X, y)
        >>> [p.shape for p in sign.predict_proba(X)]
        [(2, 2), (3, 2)]
        """
        sequences = self._read(X)
        found = softmax(self._logits(sequences).astype(np.float64))
        return as_given(X, sequences.split(found))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The part of the steps that get the right label.

        Parameters
        ----------
        X : sequences
            N of them, in any of the forms that the class names.
        y : array-like
            The right labels, as for fit. One that fit has not seen counts as not found.
        sample_weight : array-like, optional
            (N,): a weight for each sequence, that of all its steps; finite and >= 0.

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
        >>> from fastrnn.estimators import SequenceTagger
        >>> X, y = [[1.0, -2.0], [2.0, 1.0, -3.0]], [["+", "-"], ["+", "+", "-"]]
        >>> sign = SequenceTagger(hidden_size=8, max_iter=30, random_state=0).fit(X, y)
        >>> sign.score(X, y)
        1.0
        """
        sequences = self._read(X)
        right = read_labels(required(self, y), sequences)
        labels.check_same_kind(right, self.classes_)
        found = self.classes_[self._logits(sequences).argmax(axis=1)]
        of_rows = checked_weights(sample_weight, sequences)
        weights = None if of_rows is None else np.repeat(of_rows, sequences.lengths)
        return float(np.average(found == right, weights=weights))

    def _logits(self, sequences: Sequences, rows: Array | None = None) -> Array:
        """Of every step, in its place; what is of other rows than these is not set."""
        rows = np.arange(len(sequences)) if rows is None else rows
        model = self.model_
        made = np.empty((len(sequences.steps), len(self.classes_)), model.dtype)
        for some in by_length(sequences.lengths[rows]):
            places, lengths = sequences.places(rows[some])
            logits, _ = model(sequences.steps[places], lengths=lengths)
            counts = np.arange(len(places))[:, None] < lengths
            check_output(logits[counts])
            made[places[counts]] = logits[counts]
        return made


def as_given(X: Any, results: list[Array]) -> Any:
    """An array where X is one, (N, T) or (N, T, D); a list for everything else."""
    is_array = hasattr(X, "__array__") and np.ndim(X) > 1
    return np.stack(results) if is_array else results


def read_labels(y: Any, sequences: Sequences, name: str = "y") -> Array:
    """The labels of all steps, one sequence behind the other."""
    y = labels.listed(y, name, "labels for each sequence")
    total = len(sequences.steps)
    if isinstance(y, np.ndarray) and y.ndim != 1:
        if y.ndim != 2:
            raise ValueError(
                f"{name} has shape {y.shape}, expected (N, T): a label for each step. If "
                "it is one-hot, pass np.argmax(y, axis=-1)"
            )
        y = list(y)
    if len(y) == total and (total > len(sequences) or not _is_row(y[0])):
        return _flat(y, name)  # one behind the other, as X was
    if len(y) != len(sequences):
        raise ValueError(
            f"{name} has labels for {len(y)} sequences, but X has {len(sequences)} (and {total} "
            "steps)"
        )
    rows: list[Any] = []
    for i, (row, length) in enumerate(zip(y, sequences.lengths.tolist(), strict=True)):
        if hasattr(row, "__array__") and not isinstance(row, np.generic):
            row = np.asarray(row)
        if not _is_row(row):
            raise ValueError(
                f"{name}[{i}] is {row!r:.80}, expected a label for each step: SequenceClassifier "
                "and SequenceRegressor take one for each sequence. If X is a single one, pass [X]"
            )
        if len(row) != length:
            raise ValueError(f"{name}[{i}] has {len(row)} labels, but X[{i}] has {length} steps")
        rows.append(row)
    if all(isinstance(row, np.ndarray) and row.dtype == rows[0].dtype for row in rows):
        return _flat(np.concatenate(rows), name)
    plain = [row.tolist() if isinstance(row, np.ndarray) else row for row in rows]
    return _flat([label for row in plain for label in row], name)


def _is_row(row: Any) -> bool:
    return row.ndim > 0 if isinstance(row, np.ndarray) else isinstance(row, str | Sequence)


def _flat(y: Any, name: str) -> Array:
    made = labels.array_of(y, name)
    if made.ndim != 1:
        raise ValueError(f"{name} has labels of shape {made.shape[1:]}, expected one a step")
    return made
