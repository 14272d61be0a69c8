"""Many-to-many of different lengths: an encoder that reads, and a decoder that writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .. import Sequential, _checks, generate, log_softmax, softmax_cross_entropy
from .base import ReadingEstimator, check_output, checked_weights, required
from .generator import FIRST_FIT
from .sequences import Sequences, Vocabulary, by_length, framed, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceTranslator(ReadingEstimator):
    """Many-to-many of different lengths: an encoder reads, and a decoder writes tokens.

    The encoder's last state is the decoder's first [1]_, [2]_. The decoder reads a start symbol and
    what it has written so far, and gives a probability to each token as the next one and to the
    end. In training it reads the right tokens (teacher forcing [3]_). There is no attention: all
    that the decoder knows of a source is that state.

    Parameters
    ----------
    cell : {"gru", "lstm", "rnn", "leaky"}, default="gru"
        The recurrent cell.
    hidden_size : int, default=64
        Units of a recurrent layer of the encoder, in each direction. Those of the decoder have as
        many, or with bidirectional=True twice as many.
    num_layers : int, default=1
        Recurrent layers, one on the other: as many in the decoder as in the encoder.
    bidirectional : bool, default=False
        Whether other units of the encoder read each source from its end, beside those that read it
        from its start. The decoder's layers begin with the last states of both, side by side.
    embedding_size : int, default=32
        Length of the vector that stands for a token.
    dropout : float, default=0.0
        0 <= dropout < 1: this part of the values is dropped in training: of the tokens' vectors,
        between recurrent layers and before the output layer.
    standardize : bool, default=True
        Whether to bring the features of X to mean 0 and variance 1: those of fit's steps.
    tokens : bool, default=False
        Whether integers in X are tokens. Strings always are, and everything in y.
    handle_unknown : {"error", "ignore"}, default="error"
        Of a token of X that fit has not seen: refuse it, or read zeros in its place.
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
        Whether to hold out some sequences, and to score each epoch by the part of them that is
        predicted without a fault. The weights of the best epoch are kept.
    validation_fraction : float, default=0.1
        The part of the sequences that early_stopping holds out.
    dtype : {"float32", "float64"}, default="float32"
        What the network computes in.
    warm_start : bool, default=False
        Whether fit goes on for max_iter more epochs where the last one, or Ctrl-C, ended: with
        its weights, optimiser, and the tokens of X and y, which must not be new ones.
    random_state : int, RandomState instance or None, default=None
        Draws weights, batches, dropout and what is held out. With an int, fit gives the same bits
        each time, on any number of threads.
    verbose : bool, default=False
        Whether to show a progress bar, or, where tqdm is not installed, a line for each epoch.

    Attributes
    ----------
    encoder_ : Sequential
        The trained network that reads: layers "embedding" and "embedding_dropout" (of tokens) and
        "rnn".
    decoder_ : Sequential
        The trained network that writes: layers "embedding", "embedding_dropout", "rnn", "dropout"
        and "output"; those of dropout are left out where it is 0. Its symbols are the tokens in the
        order of target_tokens_, and one for both start and end.
    target_tokens_ : ndarray of object
        (n,): the tokens of y that fit has seen, sorted.
    tokens_ : ndarray of object, or None
        (n,): the tokens of X that fit has seen, sorted. None where X is of numbers.
    n_features_in_ : int
        Features of a step of X, D; 1 where X is of tokens.
    n_iter_ : int
        Epochs so far.
    loss_curve_ : list of float
        The mean loss of each epoch, dropout included.
    loss_ : float
        That of the last one.
    validation_scores_ : list of float, or None
        With early_stopping, the part of the held-out sequences that is predicted without a fault,
        after each epoch.
    best_validation_score_ : float or None
        That of the weights that were kept.

    See Also
    --------
    token_error_rate : how far predictions are from what is right, in tokens.
    SequenceTagger : a label for each step.

    Notes
    -----
    The loss of a batch is the cross-entropy of its symbols, the ends included, each times the
    weight of its sequence, over the sum of the weights. What `SequenceClassifier` says of training,
    and of the names that are those of `sklearn.neural_network.MLPClassifier`, is so here. Nothing
    depends on the number of threads.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
       machine translation", EMNLP 2014.
    .. [2] I. Sutskever, O. Vinyals and Q. V. Le, "Sequence to sequence learning with neural
       networks", NeurIPS 2014.
    .. [3] R. J. Williams and D. Zipser, "A learning algorithm for continually running fully
       recurrent neural networks", Neural Computation 1 (1989), 270-280.

    Examples
    --------
    >>> from fastrnn.estimators import SequenceTranslator
    >>> X = ["ab", "ba", "aab", "abb", "bab", "aba"] * 4
    >>> y = [word[::-1].upper() for word in X]
    >>> translator = SequenceTranslator(hidden_size=32, max_iter=40, random_state=0).fit(X, y)
    >>> translator.predict(["abb", "ba"])
    ['BBA', 'AB']
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn to translate.

        Parameters
        ----------
        X : list of arrays (T_i, D) or (T_i,), of str or of lists, or array (N, T, D) or (N, T)
            The sources: sequences of numbers or of tokens. A string is one of characters. A tuple
            (steps of all, lengths) will do as well.
        y : list of str, list of lists, or integer array (N, T)
            The targets: a sequence of tokens for each source, of any length but 0.
        sample_weight : sequence of float, optional
            (N,): a weight for each pair in the loss, finite and >= 0.

        Returns
        -------
        SequenceTranslator
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
        >>> from fastrnn.estimators import SequenceTranslator
        >>> X = [[[0.5, 1.0], [0.1, 0.2]], [[0.3, 0.3]]]  # of two numbers a step
        >>> SequenceTranslator(max_iter=5).fit(X, ["no", "yes"]).target_tokens_
        array(['e', 'n', 'o', 's', 'y'], dtype=object)
        """
        self._check_parameters()
        continues = self._continues()
        source = self._read(X, fitting=True)
        raw = read(required(self, y), "y", tokens=True)
        _check_count(source, raw)
        weights = checked_weights(sample_weight, raw)
        vocabulary = self._target_vocabulary if continues else Vocabulary(raw.steps)
        encoded = vocabulary.encoded(raw, "y", cure=FIRST_FIT)
        self._target_vocabulary: Vocabulary = vocabulary
        longest = int(encoded.lengths.max())
        target = framed(encoded, np.full(len(encoded), self._boundary), self._boundary)

        def make(rng: np.random.Generator) -> list[Sequential]:
            symbols = len(vocabulary) + 1
            size = self.hidden_size * (2 if self.bidirectional else 1)
            layers = self._embedded(symbols, rng)
            layers["rnn"] = self._recurrent(self.embedding_size, size, rng)
            return [Sequential(self._reader(rng)), self._headed(layers, symbols, rng)]

        def step(rows: Array, rng: np.random.Generator) -> tuple[float, list[Any]]:
            return self._loss_and_gradients(source, target, rows, weights, rng)

        right = encoded.split(encoded.steps)

        def score(rows: Array) -> float:
            said = self._greedy(source, longest + 1, rows)
            equal = [np.array_equal(a, right[i]) for a, i in zip(said, rows, strict=True)]
            return float(np.average(equal, weights=None if weights is None else weights[rows]))

        keys = np.stack([target.lengths, source.lengths], axis=1)
        self._train(make, keys, step, score, weights=weights)
        # Not before: where training fails, what was there stays.
        self._target_strings, self._longest = raw.strings, longest
        return self

    def _loss_and_gradients(
        self,
        source: Sequences,
        target: Sequences,
        rows: Array,
        weights: Array | None,
        rng: np.random.Generator,
    ) -> tuple[float, list[Any]]:
        """The mean loss of a target's symbol, and the gradients of both networks."""
        encoder, decoder = self._models
        x, x_lengths = source.batch(rows)
        steps, lengths = target.batch(rows)
        _, state, encoder_tape = encoder.forward(x, lengths=x_lengths, rng=rng)
        # Teacher forcing: the decoder reads the right token whatever it would have said.
        logits, _, decoder_tape = decoder.forward(
            steps[:-1], {"rnn": self._handed_on(state["rnn"])}, lengths=lengths - 1, rng=rng
        )
        loss, d_logits = softmax_cross_entropy(
            logits, steps[1:], lengths=lengths - 1,
            sample_weight=None if weights is None else weights[rows],
        )  # fmt: skip
        of_decoder = decoder.backward(decoder_tape, d_logits, wrt=["weights", "state"])
        d_state = {"rnn": self._handed_back(of_decoder.state["rnn"])}
        of_encoder = encoder.backward(encoder_tape, d_state=d_state, wrt=["weights"])
        return float(loss), [of_encoder, of_decoder]

    @property
    def encoder_(self) -> Sequential:
        """The trained network that reads."""
        return self._network(0)

    @property
    def decoder_(self) -> Sequential:
        """The trained network that writes."""
        return self._network(1)

    @property
    def target_tokens_(self) -> Array:
        """The tokens of y that fit has seen, sorted."""
        self._network()
        return self._target_vocabulary.tokens.copy()

    @property
    def _boundary(self) -> int:
        """The symbol before a sequence's first token and behind its last."""
        return len(self._target_vocabulary)

    def predict(self, X: Any, *, beam_width: int = 1, max_length: int | None = None) -> list[Any]:
        """Translate.

        Parameters
        ----------
        X : as for fit
            The sources.
        beam_width : int
            How many beginnings are gone on with. 1 takes the likeliest token at each step, all in
            C. More find likelier sequences, mostly, in some times the time: beam search [1]_.
        max_length : int, optional
            Where to cut a sequence that has not ended, in tokens. None: twice the longest target of
            `fit`.

        Returns
        -------
        list
            Strings if the targets of `fit` were strings, else lists of tokens. One may be empty.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Notes
        -----
        A prediction depends neither on the other sources nor on the number of threads. Of equally
        likely tokens the first in `target_tokens_` is taken. Beams are compared by their
        probabilities, whatever their lengths; one that is cut has that of its tokens, without an
        end.

        References
        ----------
        .. [1] I. Sutskever, O. Vinyals and Q. V. Le, "Sequence to sequence learning with neural
           networks", NeurIPS 2014.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceTranslator
        >>> X, y = [["one", "two"], ["two"]] * 8, [[1, 2], [2]] * 8
        >>> translator = SequenceTranslator(hidden_size=16, max_iter=30, random_state=0)
        >>> translator.fit(X, y).predict([["two"], ["one", "two"]], beam_width=3)
        [[2], [1, 2]]
        """
        source = self._read(X)
        width = _checks.size("beam_width", beam_width)
        if max_length is None:
            max_length = 2 * self._longest
        longest = _checks.size("max_length", max_length)
        said = self._greedy(source, longest) if width == 1 else self._beam(source, width, longest)
        tokens = self._target_vocabulary.tokens
        decoded = [[tokens[i] for i in indices] for indices in said]
        return ["".join(row) for row in decoded] if self._target_strings else decoded

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The part of the sources that is translated without a fault.

        Parameters
        ----------
        X : as for fit
            The sources.
        y : list of str, list of lists, or integer array (N, T)
            The right targets. A token that `fit` has not seen is never predicted, so a target with
            one counts as missed.
        sample_weight : sequence of float, optional
            (N,): weights of the pairs, at least 0.

        Returns
        -------
        float
            Between 0 and 1, of what `predict` gives by itself.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        See Also
        --------
        token_error_rate : which also tells near from far.

        Examples
        --------
        >>> from fastrnn.estimators import SequenceTranslator
        >>> translator = SequenceTranslator(hidden_size=16, max_iter=30, random_state=0)
        >>> translator.fit(["a", "b"] * 8, ["x", "yy"] * 8).score(["a", "b"], ["x", "y"])
        0.5
        """
        source = self._read(X)
        right = read(required(self, y), "y", tokens=True)
        _check_count(source, right)
        weights = checked_weights(sample_weight, right)
        self._check_kind(right)
        index = self._target_vocabulary.index
        # No token that the decoder writes has the index -1.
        wanted = np.array([index.get(token, -1) for token in right.steps])
        said = self._greedy(source, 2 * self._longest)
        equal = [np.array_equal(a, b) for a, b in zip(said, right.split(wanted), strict=True)]
        return float(np.average(equal, weights=weights))

    def _check_kind(self, right: Sequences) -> None:
        """TypeError where no target can be right."""
        if right.strings and not self._target_strings:
            raise TypeError(
                "y is of strings, whose tokens are characters, but the targets of fit were lists: "
                "pass lists of tokens, such as text.split() of words or list(text) of characters"
            )
        kinds = [type(tokens[0]) for tokens in (right.steps, self._target_vocabulary.tokens)]
        if kinds[0] is not kinds[1]:
            has, had = ("strings" if kind is str else "integers" for kind in kinds)
            raise TypeError(f"y has {has} for tokens, but the targets of fit had {had}")

    # -------------------------------------------------------------------- states

    def _handed_on(self, state: Any) -> Any:
        """The encoder's last states as the decoder's first: both directions side by side.

        (layers * directions, B, H) -> (layers, B, directions * H)
        """
        if isinstance(state, tuple):
            return tuple(self._handed_on(s) for s in state)
        if not self.bidirectional:
            return state
        _, rows, size = state.shape
        made = state.reshape(-1, 2, rows, size).swapaxes(1, 2)
        return np.ascontiguousarray(made.reshape(-1, rows, 2 * size))

    def _handed_back(self, state: Any) -> Any:
        """The other way round, for gradients."""
        if isinstance(state, tuple):
            return tuple(self._handed_back(s) for s in state)
        if not self.bidirectional:
            return state
        layers, rows, size = state.shape
        made = state.reshape(layers, rows, 2, size // 2).swapaxes(1, 2)
        return np.ascontiguousarray(made.reshape(2 * layers, rows, size // 2))

    # -------------------------------------------------------------------- decoding

    def _read_to_states(
        self, source: Sequences, size: int, rows: Array | None = None
    ) -> Iterator[tuple[Array, Any]]:
        """Batches of places in `rows`, each with the decoder's first states."""
        rows = np.arange(len(source)) if rows is None else rows
        for some in by_length(source.lengths[rows], size):
            x, lengths = source.batch(rows[some])
            yield some, self._handed_on(self.encoder_(x, lengths=lengths)[1]["rnn"])

    def _decoder_layers(self) -> tuple[Any, Any, Any]:
        layers = self.decoder_.layers
        return layers["embedding"], layers["rnn"], layers["output"]

    def _greedy(self, source: Sequences, longest: int, rows: Array | None = None) -> list[Array]:
        """The likeliest token at each step, all in C."""
        embedding, rnn, head = self._decoder_layers()
        made: list[Any] = [None] * len(source if rows is None else rows)
        for some, state in self._read_to_states(source, 256, rows):
            prompts = [[self._boundary]] * len(some)
            said, _ = generate(
                embedding, rnn, head, prompts, longest, state, temperature=0, stop=self._boundary
            )
            for i, indices in zip(some, said, strict=True):
                made[i] = indices[:-1] if indices[-1] == self._boundary else indices
        return made

    def _beam(self, source: Sequences, width: int, longest: int) -> list[Array]:
        made: list[Any] = [None] * len(source)
        for some, state in self._read_to_states(source, max(1, 256 // width)):
            said, _ = self._search(state, len(some), width, longest)
            for i, indices in zip(some, said, strict=True):
                made[i] = indices
        return made

    def _search(self, state: Any, rows: int, width: int, longest: int) -> tuple[list[Array], Array]:
        """Beam search: of each sequence the `width` likeliest beginnings are gone on with.

        A beginning that has ended stays as it is, and takes part with the probability it has. Of
        equally likely ones the first in the beam comes first, then the token with the lowest index.
        Returned are the likeliest, and the logarithms of their probabilities (rows,).
        """
        embedding, rnn, head = self._decoder_layers()
        end, symbols = self._boundary, self._boundary + 1
        # At first there is one beginning; the others of a beam have no probability.
        log_p = np.full((rows, width), -np.inf)
        log_p[:, 0] = 0
        state = _picked(state, np.repeat(np.arange(rows), width))
        last = np.full(rows * width, end)
        ended = np.zeros((rows, width), bool)
        row = np.arange(rows)
        steps: list[tuple[Array, Array]] = []  # which beginning was gone on with, and the token
        for _ in range(longest):
            output, state = rnn(embedding(last[None]), state)
            logits = head(output[0]).astype(np.float64)
            check_output(logits)
            step = log_softmax(logits).reshape(rows, width, symbols)
            step[ended] = -np.inf
            step[ended, end] = 0
            total = (log_p[:, :, None] + step).reshape(rows, width * symbols)
            best = largest(total, width)
            log_p = np.take_along_axis(total, best, axis=1)
            beam, token = np.divmod(best, symbols)
            steps.append((beam, token))
            ended = token == end
            # Probabilities only fall: nothing overtakes an ended one in the first place.
            if ended[:, 0].all():
                break
            last = token.ravel()
            state = _picked(state, (row[:, None] * width + beam).ravel())
        said = np.empty((rows, len(steps)), np.int64)
        place = np.zeros(rows, np.int64)
        for t in range(len(steps) - 1, -1, -1):
            beam, token = steps[t]
            said[:, t] = token[row, place]
            place = beam[row, place]
        return [indices[indices != end] for indices in said], log_p[:, 0]


def largest(values: Array, count: int) -> Array:
    """Where the largest of each row are, the largest first, and of equal ones the first first."""
    if count >= values.shape[1]:
        return np.argsort(-values, axis=1, kind="stable")[:, :count]
    found = np.sort(np.argpartition(values, -count, axis=1)[:, -count:], axis=1)
    chosen = np.take_along_axis(values, found, axis=1)
    # Of values that equal the least of them any may have been chosen: such rows are sorted.
    least = chosen.min(axis=1, keepdims=True)
    some_left = (values == least).sum(axis=1) > (chosen == least).sum(axis=1)
    made = np.take_along_axis(found, np.argsort(-chosen, axis=1, kind="stable"), axis=1)
    if some_left.any():
        made[some_left] = np.argsort(-values[some_left], axis=1, kind="stable")[:, :count]
    return made


def _picked(state: Any, rows: Array) -> Any:
    if isinstance(state, tuple):
        return tuple(s[:, rows] for s in state)
    return state[:, rows]


def _check_count(source: Sequences, target: Sequences) -> None:
    if len(source) != len(target):
        raise ValueError(
            f"X has {len(source)} sequences, y has {len(target)}: expected a target for each"
        )
