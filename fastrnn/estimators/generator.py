"""One-to-many: sequences that a network writes, from a label or from how they begin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_random_state

from .. import Sequential, _checks, generate, softmax_cross_entropy
from .base import SequenceEstimator, checked_weights
from .classifier import labels_of_sequences
from .labels import array_of
from .sequences import Sequences, Vocabulary, by_length, framed, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# A logit that no weight decay and no temperature up to HOTTEST makes anything but impossible:
# exp(NEVER / HOTTEST) is 0 in either dtype, and so is its gradient.
NEVER = -1e38
HOTTEST = 1e30  # all finite logits are equal then

FIRST_FIT = ": warm_start=True goes on with those of the first fit, so fit a clone on all of them"

NUMBERS = 1 << 22  # in one array, about: many long sequences are done some after the other


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceGenerator(SequenceEstimator):
    """One-to-many: sequences of tokens, written from a label or from their first tokens.

    The network reads a label, or a start symbol, and what it has written so far, and
    gives a probability to each token as the next one and to the end. It learns them from whole
    sequences by maximum likelihood [1]_.

    Parameters
    ----------
    cell : {"gru", "lstm", "rnn", "leaky"}, default="gru"
        The recurrent cell.
    hidden_size : int, default=64
        Units of a recurrent layer.
    num_layers : int, default=1
        Recurrent layers, one on the other.
    embedding_size : int, default=32
        Length of the vector that stands for a token, or for a label.
    dropout : float, default=0.0
        0 <= dropout < 1: this part of the values is dropped in training: of the tokens' vectors,
        between recurrent layers and before the output layer.
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
        Whether to hold out some sequences, and to score each epoch by their `score`. The weights of
        the best epoch are kept.
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
    model_ : Sequential
        The trained network: layers "embedding", "embedding_dropout", "rnn", "dropout" and "output";
        those of dropout are left out where it is 0. Its symbols are the tokens in the order of
        tokens_, the end, and the labels in the order of classes_, whose logits as outputs are so
        low that their probability is 0. Without labels, the symbol of the end also stands before
        the first token.
    tokens_ : ndarray of object
        (n,): the tokens that fit has seen, sorted.
    classes_ : ndarray or None
        (C,): the labels, sorted. None where fit had none.
    n_iter_ : int
        Epochs so far.
    loss_curve_ : list of float
        The mean loss of each epoch, dropout included.
    loss_ : float
        That of the last one.
    validation_scores_ : list of float, or None
        With early_stopping, `score` of the held-out sequences after each epoch.
    best_validation_score_ : float or None
        That of the weights that were kept.

    See Also
    --------
    fastrnn.generate : what `sample` runs.
    SequenceTranslator : a sequence for a sequence.

    Notes
    -----
    The loss of a batch is the cross-entropy of its symbols, the ends included, each times the
    weight of its sequence, over the sum of the weights. What `SequenceClassifier` says of training,
    and of the names that are those of `sklearn.neural_network.MLPClassifier`, is so here. Nothing
    depends on the number of threads.

    References
    ----------
    .. [1] A. Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850 (2013).

    Examples
    --------
    >>> from fastrnn.estimators import SequenceGenerator
    >>> X, y = ["aba", "ababa", "cdc", "cdcdc"] * 8, ["ab", "ab", "cd", "cd"] * 8
    >>> generator = SequenceGenerator(hidden_size=16, max_iter=60, random_state=0).fit(X, y)
    >>> generator.sample(3, y="cd", random_state=0)
    ['cdcdc', 'cdcdc', 'cdc']
    >>> generator.sample(start="ab", y="ab", temperature=0)  # the likeliest
    ['aba']
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn to write such sequences.

        Parameters
        ----------
        X : list of str, list of lists, or integer array (N, T)
            Sequences of tokens, which are strings or integers: a string is one of characters. A
            tuple (tokens of all, lengths) will do as well.
        y : sequence, optional
            (N,): the label of each sequence, by which `sample` can ask for such ones. Strings or
            integers.
        sample_weight : sequence of float, optional
            (N,): a weight for each in the loss, finite and >= 0. Labels that `sample` draws have
            the frequencies of these weights.

        Returns
        -------
        SequenceGenerator
            This estimator.

        Raises
        ------
        TypeError, ValueError
            If a parameter or an argument does not fit; the error says where. If training diverges,
            too: nothing is fitted then, or with warm_start what was before.

        Warns
        -----
        UserWarning
            On Ctrl-C, which ends training early.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceGenerator
        >>> SequenceGenerator(max_iter=5).fit([[3, 1, 2], [3, 2, 2]]).tokens_
        array([1, 2, 3], dtype=object)
        """
        self._check_parameters()
        continues = self._continues()
        raw = read(X, tokens=True)
        weights = checked_weights(sample_weight, raw)
        if continues and (y is None) != (self.classes_ is None):
            had, has = ("without", "with") if self.classes_ is None else ("with", "without")
            raise ValueError(
                f"this fit is {has} labels y, but warm_start=True goes on with a network that was "
                f"fitted {had}: fit a clone"
            )
        vocabulary = self._vocabulary if continues else Vocabulary(raw.steps)
        encoded = vocabulary.encoded(raw, "X", cure=FIRST_FIT)
        classes: Any = None
        target: Array | None = None
        frequencies: Array | None = None
        if y is not None:
            y = labels_of_sequences(y, raw)
            classes = self.classes_ if continues else np.unique(y)
            target = _places(y, classes, FIRST_FIT)
            of_label = np.bincount(target, weights, minlength=len(classes))
            frequencies = of_label / of_label.sum()
        self._vocabulary: Vocabulary = vocabulary
        self.classes_: Array | None = classes
        sequences = self._framed(encoded, target)

        def make(rng: np.random.Generator) -> list[Sequential]:
            symbols = len(vocabulary) + 1 + (0 if classes is None else len(classes))
            layers = self._embedded(symbols, rng)
            layers["rnn"] = self._recurrent(self.embedding_size, self.hidden_size, rng)
            return [self._headed(layers, symbols, rng)]

        def step(rows: Array, rng: np.random.Generator) -> tuple[float, list[Any]]:
            model = self.model_
            self._forbid_labels()  # weight decay has changed their biases, if nothing else
            steps, lengths = sequences.batch(rows)
            logits, _, tape = model.forward(steps[:-1], lengths=lengths - 1, rng=rng)
            loss, d_logits = softmax_cross_entropy(
                logits, steps[1:], lengths=lengths - 1,
                sample_weight=None if weights is None else weights[rows],
            )  # fmt: skip
            return float(loss), [model.backward(tape, d_logits, wrt=["weights"])]

        def score(rows: Array) -> float:
            self._forbid_labels()
            return self._mean(sequences, rows, weights)

        self._train(make, sequences.lengths, step, score, weights=weights)
        self._forbid_labels()
        # Not before: where training fails, what was there stays.
        self._frequencies, self._strings = frequencies, raw.strings
        self._longest = int(encoded.lengths.max())
        return self

    @property
    def model_(self) -> Sequential:
        """The trained network."""
        return self._network()

    @property
    def tokens_(self) -> Array:
        """The tokens that fit has seen, sorted."""
        self._network()
        return self._vocabulary.tokens.copy()

    @property
    def _end(self) -> int:
        """The symbol behind a sequence's last token; without labels also before its first."""
        return len(self._vocabulary)

    def _forbid_labels(self) -> None:
        """A label is read before a sequence, and never written."""
        self.model_.weights["output.bias"][self._end + 1 :] = NEVER

    def sample(
        self,
        n_samples: int = 1,
        y: Any = None,
        *,
        start: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        max_length: int | None = None,
        random_state: Any = None,
    ) -> list[Any]:
        """Write sequences.

        Parameters
        ----------
        n_samples : int
            How many.
        y : label or sequence of labels, optional
            The label of all, or (n_samples,) one for each. None draws them as often as `fit` saw
            them; pass them to know them.
        start : sequence of tokens, optional
            The first tokens of all sequences, as in X: a string if X was of strings. The result
            includes them.
        temperature : float
            Tokens are drawn from softmax(logits / temperature): below 1 the probable ones come more
            often, at 0 only the most probable one.
        top_k : int, optional
            Draw from the k most probable symbols only, of which the end is one.
        top_p : float, optional
            Draw from the fewest most probable symbols that together have this probability.
        max_length : int, optional
            Where to cut a sequence that has not ended, `start` included. None: twice the longest of
            `fit`.
        random_state : int, RandomState instance or None
            Of what is drawn.

        Returns
        -------
        list
            Strings if X was of strings, else lists of tokens. One may be empty, if its end came
            first.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Notes
        -----
        A random_state fixes the result whatever the number of threads. But with another n_samples,
        max_length or length of start other sequences are drawn.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceGenerator
        >>> generator = SequenceGenerator(hidden_size=8, max_iter=50, random_state=0)
        >>> generator.fit(["abc", "abcabc"] * 8).sample(3, start="ab", random_state=0)
        ['abc', 'abc', 'abcbc']
        """
        model = self.model_
        n_samples = _checks.size("n_samples", n_samples)
        given = self._start(start)
        if max_length is None:
            max_length = 2 * self._longest
        left = _checks.size("max_length", max_length) - len(given)
        if left < 1:
            raise ValueError(
                f"start has {len(given)} tokens, expected fewer than max_length, which is "
                f"{max_length}: it counts them too"
            )
        if isinstance(temperature, Real) and HOTTEST < temperature < math.inf:
            temperature = HOTTEST
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
        rng = np.random.default_rng(seed)
        first = self._first(n_samples, y, rng)
        embedding, rnn, head = (model.layers[name] for name in ("embedding", "rnn", "output"))
        made: list[Any] = []
        at_once = max(1, NUMBERS // left)
        for begin in range(0, len(first), at_once):
            prompts = [np.array([symbol, *given]) for symbol in first[begin : begin + at_once]]
            written, _ = generate(
                embedding, rnn, head, prompts, left, temperature=temperature, top_k=top_k,
                top_p=top_p, stop=self._end, rng=rng,
            )  # fmt: skip
            made += [self._decoded([*given, *indices.tolist()]) for indices in written]
        return made

    def score_samples(self, X: Any, y: Any = None) -> Array:
        """The log-likelihood of each sequence, its end included.

        Parameters
        ----------
        X : list of str, list of lists, or integer array (N, T)
            Sequences of tokens that `fit` has seen.
        y : sequence, optional
            (N,): their labels, if `fit` had some.

        Returns
        -------
        ndarray
            (N,) of float64: natural logarithms of probabilities. Of a sequence it has the same bits
            in whatever company.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceGenerator
        >>> generator = SequenceGenerator(hidden_size=8, max_iter=50, random_state=0)
        >>> likely, unlikely = generator.fit(["abc", "abcabc"] * 8).score_samples(["abc", "cab"])
        >>> bool(likely > unlikely)
        True
        """
        return self._log_likelihoods(self._encoded(X, y))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean log-likelihood of a symbol, each token and each end being one.

        Parameters
        ----------
        X : list of str, list of lists, or integer array (N, T)
            Sequences of tokens that `fit` has seen.
        y : sequence, optional
            (N,): their labels, if `fit` had some.

        Returns
        -------
        float
            In nats: ``exp(-score)`` is the perplexity. It is the sum of `score_samples` over the
            number of tokens and ends.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceGenerator
        >>> generator = SequenceGenerator(hidden_size=8, max_iter=50, random_state=0)
        >>> X = ["abc", "abcabc"] * 8
        >>> generator.fit(X).score(X) > generator.score(["bca"])
        True
        """
        return self._mean(self._encoded(X, y))

    def _encoded(self, X: Any, y: Any) -> Sequences:
        """X as the network reads it, each with its label in front."""
        self._network()
        raw = read(X, tokens=True)
        sequences = self._vocabulary.encoded(
            raw, "X", cure=", so that the sequence has no probability: leave it out, or fit on more"
        )
        if y is None and self.classes_ is not None:
            raise ValueError(
                "y is None, but this SequenceGenerator was fitted with labels: pass that of each "
                "sequence"
            )
        return self._framed(
            sequences, None if y is None else self._labels(labels_of_sequences(y, raw))
        )

    def _labels(self, y: Array) -> Array:
        """The index of each label."""
        if self.classes_ is None:
            raise ValueError(
                "y is given, but this SequenceGenerator was fitted without labels: leave it out, "
                "or fit with the label of each sequence"
            )
        return _places(y, self.classes_)

    def _framed(self, sequences: Sequences, target: Array | None) -> Sequences:
        before = np.full(len(sequences), self._end) if target is None else self._end + 1 + target
        return framed(sequences, before, self._end)

    def _first(self, count: int, y: Any, rng: np.random.Generator) -> Array:
        """The symbols that the network reads first."""
        if y is None and self.classes_ is not None:
            return self._end + 1 + rng.choice(len(self.classes_), count, p=self._frequencies)
        if y is None:
            return np.full(count, self._end)
        y = array_of(y) if np.ndim(y) else np.full(count, y)
        if y.shape != (count,):
            raise ValueError(
                f"y has shape {y.shape}, expected one label, or one for each of n_samples={count}"
            )
        return self._end + 1 + self._labels(y)

    def _start(self, start: Any) -> list[int]:
        """The indices of the tokens that are there already."""
        if start is None:
            return []
        if isinstance(start, str) and not self._strings:
            raise TypeError(
                f"start is the str {start!r}, but this SequenceGenerator was fitted on lists of "
                f"tokens: a list of one token is [{start!r}]"
            )
        if isinstance(start, np.ndarray) and start.ndim != 1:
            raise ValueError(f"start has shape {start.shape}, expected (T,): one sequence for all")
        if not isinstance(start, str | list | tuple | np.ndarray):
            raise TypeError(f"start is {start!r}, expected one sequence of tokens, as in X")
        if not len(start):
            return []
        raw = read([list(start)], "start", tokens=True)
        for token in raw.steps:
            if token not in self._vocabulary.index:
                raise ValueError(
                    f"start has the token {token!r}, never seen in training: expected tokens such "
                    f"as {_listed(self._vocabulary.tokens.tolist())}"
                )
        return self._vocabulary.encoded(raw, "start").steps.tolist()  # type: ignore[no-any-return]

    def _decoded(self, indices: list[int]) -> Any:
        """The tokens before the end."""
        if indices[-1] == self._end:
            indices = indices[:-1]
        tokens = [self._vocabulary.tokens[i] for i in indices]
        return "".join(tokens) if self._strings else tokens

    def _mean(
        self, sequences: Sequences, rows: Array | None = None, weights: Array | None = None
    ) -> float:
        """Log-likelihood per symbol."""
        rows = np.arange(len(sequences)) if rows is None else rows
        weight = np.ones(len(rows)) if weights is None else weights[rows]
        # fsum: the same bits in whatever order they come.
        return math.fsum(weight * self._log_likelihoods(sequences, rows)) / math.fsum(
            weight * (sequences.lengths[rows] - 1)
        )

    def _log_likelihoods(self, sequences: Sequences, rows: Array | None = None) -> Array:
        """(N,) in nats, each sequence's end included."""
        rows = np.arange(len(sequences)) if rows is None else rows
        model = self.model_
        made = np.empty(len(rows))
        most = int(sequences.lengths[rows].max()) * len(model.weights["output.bias"])
        for some in by_length(sequences.lengths[rows], min(256, max(1, NUMBERS // most))):
            steps, lengths = sequences.batch(rows[some])
            logits, _ = model(steps[:-1], lengths=lengths - 1)
            losses: Any
            losses, _ = softmax_cross_entropy(
                logits, steps[1:], lengths=lengths - 1, reduction="none"
            )
            # One after the other: `sum` would add those of a single sequence in pairs.
            made[some] = -np.cumsum(losses, axis=0)[-1]
        return made


def _places(y: Array, classes: Array, cure: str = "") -> Array:
    """The index of each label. "1" is not 1, as it is in an array of both."""
    index = {label: i for i, label in enumerate(classes.tolist())}
    for label in y.tolist():
        if label not in index:
            raise ValueError(
                f"y has the label {label!r}, never seen in training"
                + (cure or f": expected one of {_listed(list(index))}")
            )
    return np.array([index[label] for label in y.tolist()])


def _listed(values: Sequence[Any]) -> str:
    """Some of them, to be read."""
    return ", ".join(map(repr, values[:10])) + (", ..." if len(values) > 10 else "")
