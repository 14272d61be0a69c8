"""The networks of the estimators, trained by PyTorch: what the examples measure fastrnn against.

The same network (cell, layers, directions, embedding, dropout, output layer, and weights drawn from
the same distributions), the same loss, AdamW, learning rates, clipping, epochs and batches of like
length, on the same standardised numbers. It is written as it runs fastest on a CPU:

- Where a network reads in one direction, what is behind a sequence's end does not reach it: padded
  batches are run as they are, which PyTorch does much faster than packed ones. Both directions, and
  states that are handed on, need `pack_padded_sequence` where lengths differ.
- AdamW is the fused one.
- The only loop over time is that of a translator's predictions.

An estimator's parameters are its peer's, but early_stopping, warm_start, sample and class weights.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from fastrnn import estimators
from fastrnn.estimators.sequences import grouped, read

Array = NDArray[Any]
Weights = dict[str, Array]  # by their names, as in the estimator's network

CELLS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
NOT_COUNTED = -100  # a target that cross_entropy leaves out
NEVER = -1e38  # a logit whose probability is 0


class Network(nn.Module):
    """(Embedding, dropout,) recurrent layer(, dropout, output layer), by the estimator's names."""

    def __init__(
        self,
        of: Any,
        size: int,
        outputs: int | None,
        *,
        tokens: bool,
        hidden_size: int,
        bidirectional: bool = False,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__()
        if tokens:
            self.embedding = nn.Embedding(size, of.embedding_size, padding_idx)
        self.rnn = CELLS[of.cell](
            of.embedding_size if tokens else size, hidden_size, of.num_layers,
            dropout=of.dropout if of.num_layers > 1 else 0.0, bidirectional=bidirectional,
        )  # fmt: skip
        self.tokens, self.bidirectional = tokens, bidirectional
        self.dropout = nn.Dropout(of.dropout)
        if outputs is not None:
            self.output = nn.Linear(hidden_size * (2 if bidirectional else 1), outputs)
        self.to(getattr(torch, of.dtype))

    def run(self, x: Tensor, lengths: Tensor, state: Any, packed: bool) -> tuple[Tensor, Any]:
        """The recurrent layer's output (T, B, ...) and last states. `packed`: where it matters."""
        x = self.dropout(self.embedding(x)) if self.tokens else x
        if not packed or bool((lengths == len(x)).all()):
            of_padded: tuple[Tensor, Any] = self.rnn(x, state)
            return of_padded
        output, state = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False), state)
        return pad_packed_sequence(output)[0], state

    def of_each(self, x: Tensor, lengths: Tensor, state: Any = None) -> Tensor:
        """Of each step: (T, B, outputs)."""
        output, _ = self.run(x, lengths, state, self.bidirectional)
        made: Tensor = self.output(self.dropout(output))
        return made

    def of_all(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Of each sequence: (B, outputs)."""
        output, state = self.run(x, lengths, None, self.bidirectional)
        if self.bidirectional:
            h_n = state[0] if isinstance(state, tuple) else state
            last = torch.cat([h_n[-2], h_n[-1]], dim=1)
        else:
            last = output[lengths - 1, torch.arange(len(lengths))]
        made: Tensor = self.output(self.dropout(last))
        return made


class Peer:
    """What an estimator is, in PyTorch: fit(X, y), and predict or score.

    `initial` has weights to begin with, of each of its networks; None: PyTorch draws them.
    """

    networks: list[Network]

    def __init__(self, estimator: Any, initial: Sequence[Weights] | None = None) -> None:
        self.of, self.initial = estimator, initial
        self.loss_curve_: list[float] = []
        unknown = [
            name for name, default in (("early_stopping", False), ("class_weight", None))
            if getattr(estimator, name, default) != default
        ]  # fmt: skip
        if unknown or estimator.cell not in CELLS:
            raise ValueError(f"no peer in PyTorch for {', '.join(unknown) or estimator.cell}")

    # -------------------------------------------------------------------- sequences

    def _read(self, X: Any, fitting: bool = False) -> list[Tensor]:
        """Standardised numbers (T, D), or the indices of tokens (T,), of each sequence."""
        raw = read(X, tokens=self.of.tokens)
        if raw.of_tokens:
            if fitting:
                self._index = {t: i for i, t in enumerate(sorted(set(raw.steps)))}
            return _indices(raw, self._index)
        if fitting:
            self._mean, self._scale = _mean_and_scale(raw.steps, self.of.standardize)
        steps = ((raw.steps - self._mean) / self._scale).astype(self.of.dtype)
        return _tensors(raw, steps)

    def _reader(self, X: list[Tensor], outputs: int | None) -> Network:
        """A network for them."""
        tokens = X[0].ndim == 1
        return Network(
            self.of, len(self._index) + 1 if tokens else X[0].shape[1], outputs, tokens=tokens,
            hidden_size=self.of.hidden_size, bidirectional=self.of.bidirectional,
            padding_idx=len(self._index) if tokens else None,
        )  # fmt: skip

    # -------------------------------------------------------------------- training

    def _begin(self) -> None:
        torch.manual_seed(0 if self.of.random_state is None else self.of.random_state)

    def _train(self, keys: Array, loss_of: Callable[[Array], Tensor]) -> None:
        """All epochs; keys are the lengths that sequences are put into batches by."""
        of = self.of
        for network, weights in zip(self.networks, self.initial or [], strict=False):
            network.load_state_dict({k: torch.tensor(w) for k, w in weights.items()})
        parameters = [p for network in self.networks for p in network.parameters()]
        optimizer = torch.optim.AdamW(
            parameters, lr=of.learning_rate_init, weight_decay=of.weight_decay, fused=True
        )
        size = min(32, len(keys)) if of.batch_size == "auto" else of.batch_size
        total = of.max_iter * math.ceil(len(keys) / size)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: 1 - k / total if of.learning_rate == "linear" else 1.0
        )
        rng = np.random.default_rng(of.random_state)
        best, waited = math.inf, 0
        for network in self.networks:
            network.train()
        for _ in range(of.max_iter):
            losses = []
            for rows in grouped(keys, size, rng):
                optimizer.zero_grad()
                loss = loss_of(rows)
                loss.backward()  # type: ignore[no-untyped-call]
                if of.clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, of.clip_norm)
                optimizer.step()
                rate.step()
                losses.append(loss.detach() * len(rows))
            self.loss_curve_.append(float(torch.stack(losses).sum()) / len(keys))
            waited = 0 if self.loss_curve_[-1] < best - of.tol else waited + 1
            best = min(best, self.loss_curve_[-1])
            if waited >= of.n_iter_no_change:
                break
        for network in self.networks:
            network.eval()


class ClassifierPeer(Peer):
    """Of a SequenceClassifier."""

    def fit(self, X: Any, y: Any) -> Self:
        self._begin()
        sequences = self._read(X, fitting=True)
        self.classes_, found = np.unique(y, return_inverse=True)
        target = torch.from_numpy(found)
        network = self._reader(sequences, len(self.classes_))
        self.networks = [network]

        def loss_of(rows: Array) -> Tensor:
            return nn.functional.cross_entropy(
                network.of_all(*_batch(sequences, rows)), target[rows]
            )

        self._train(_lengths(sequences), loss_of)
        return self

    def predict(self, X: Any) -> Array:
        made: Array = self.classes_[_of_all(self.networks[0], self._read(X)).argmax(1)]
        return made

    def score(self, X: Any, y: Any) -> float:
        return float(np.mean(self.predict(X) == np.asarray(y)))


class RegressorPeer(Peer):
    """Of a SequenceRegressor."""

    def fit(self, X: Any, y: Any) -> Self:
        self._begin()
        sequences = self._read(X, fitting=True)
        y = np.asarray(y, np.float64)
        self._shape = y.shape[1:]
        self._y_mean, self._y_scale = _mean_and_scale(y, self.of.standardize)
        scaled = ((y - self._y_mean) / self._y_scale).reshape(len(y), -1)
        target = torch.from_numpy(scaled.astype(self.of.dtype))
        network = self._reader(sequences, target.shape[1])
        self.networks = [network]

        def loss_of(rows: Array) -> Tensor:
            return nn.functional.mse_loss(network.of_all(*_batch(sequences, rows)), target[rows])

        self._train(_lengths(sequences), loss_of)
        return self

    def predict(self, X: Any) -> Array:
        output = _of_all(self.networks[0], self._read(X)).astype(np.float64)
        made: Array = output.reshape(-1, *self._shape) * self._y_scale + self._y_mean
        return made


class TaggerPeer(Peer):
    """Of a SequenceTagger."""

    def fit(self, X: Any, y: Any) -> Self:
        self._begin()
        sequences = self._read(X, fitting=True)
        rows_of_y = [np.asarray(list(row)) for row in y]
        self.classes_, flat = np.unique(np.concatenate(rows_of_y), return_inverse=True)
        ends = np.cumsum([len(row) for row in rows_of_y])[:-1]
        target = [torch.from_numpy(part) for part in np.split(flat, ends)]
        network = self._reader(sequences, len(self.classes_))
        self.networks = [network]

        def loss_of(rows: Array) -> Tensor:
            return _cross_entropy(network.of_each(*_batch(sequences, rows)), target, rows)

        self._train(_lengths(sequences), loss_of)
        return self

    @torch.inference_mode()
    def predict(self, X: Any) -> list[Array]:
        sequences = self._read(X)
        made: list[Any] = [None] * len(sequences)
        for rows in _by_length(sequences):
            x, lengths = _batch(sequences, rows)
            found = self.networks[0].of_each(x, lengths).argmax(2).numpy()
            for b, (i, length) in enumerate(zip(rows, lengths, strict=True)):
                made[i] = self.classes_[found[:length, b]]
        return made

    def score(self, X: Any, y: Any) -> float:
        right = np.concatenate([np.asarray(list(row)) for row in y])
        return float(np.mean(np.concatenate(self.predict(X)) == right))


class GeneratorPeer(Peer):
    """Of a SequenceGenerator: its likelihoods, without sampling."""

    def fit(self, X: Any, y: Any = None) -> Self:
        self._begin()
        raw = read(X, tokens=True)
        self._index = {t: i for i, t in enumerate(sorted(set(raw.steps)))}
        self.classes_ = None if y is None else np.unique(y)
        inputs, target = self._framed(X, y)
        end = len(self._index)
        symbols = end + 1 + (0 if self.classes_ is None else len(self.classes_))
        network = Network(self.of, symbols, symbols, tokens=True, hidden_size=self.of.hidden_size)
        self.networks = [network]

        def bar_labels() -> None:
            with torch.no_grad():
                network.output.bias[end + 1 :] = NEVER  # nothing goes on with a label

        def loss_of(rows: Array) -> Tensor:
            bar_labels()
            return _cross_entropy(network.of_each(*_batch(inputs, rows)), target, rows)

        self._train(_lengths(inputs), loss_of)
        bar_labels()
        return self

    @torch.inference_mode()
    def score(self, X: Any, y: Any = None) -> float:
        """The mean log-likelihood of a token or end, in nats."""
        inputs, target = self._framed(X, y)
        total = 0.0
        for rows in _by_length(inputs):
            logits = self.networks[0].of_each(*_batch(inputs, rows))
            total -= float(_cross_entropy(logits, target, rows, "sum"))
        return total / float(_lengths(inputs).sum())

    def _framed(self, X: Any, y: Any) -> tuple[list[Tensor], list[Tensor]]:
        """What is read, label or end first, and what comes next, end last."""
        end = len(self._index)
        sequences = _indices(read(X, tokens=True), self._index)
        first = torch.full((len(sequences),), end)
        if self.classes_ is not None:
            first = first + 1 + torch.from_numpy(np.searchsorted(self.classes_, y))
        return _framed(sequences, first, end)


class TranslatorPeer(Peer):
    """Of a SequenceTranslator; it predicts with a beam of 1."""

    def fit(self, X: Any, y: Any) -> Self:
        self._begin()
        source = self._read(X, fitting=True)
        raw = read(y, "y", tokens=True)
        self._strings = raw.strings
        self._tokens = sorted(set(raw.steps))
        end = len(self._tokens)
        said = _indices(raw, {t: i for i, t in enumerate(self._tokens)})
        self._longest = max(map(len, said))
        inputs, target = _framed(said, torch.full((len(said),), end), end)
        encoder = self._reader(source, None)
        decoder = Network(
            self.of, end + 1, end + 1, tokens=True,
            hidden_size=self.of.hidden_size * (2 if self.of.bidirectional else 1),
        )  # fmt: skip
        self.networks = [encoder, decoder]

        def loss_of(rows: Array) -> Tensor:
            _, state = encoder.run(*_batch(source, rows), None, True)
            logits = decoder.of_each(*_batch(inputs, rows), self._handed_on(state))
            return _cross_entropy(logits, target, rows)

        self._train(np.stack([_lengths(inputs) + 1, _lengths(source)], axis=1), loss_of)
        return self

    def _handed_on(self, state: Any) -> Any:
        """(layers · directions, B, H) -> (layers, B, directions · H)."""
        if isinstance(state, tuple):
            return tuple(map(self._handed_on, state))
        if not self.of.bidirectional:
            return state
        _, rows, size = state.shape
        return state.view(-1, 2, rows, size).transpose(1, 2).reshape(-1, rows, 2 * size)

    @torch.inference_mode()
    def predict(self, X: Any) -> list[Any]:
        source = self._read(X)
        encoder, decoder = self.networks
        end = len(self._tokens)
        made: list[Any] = [None] * len(source)
        for rows in _by_length(source):
            _, state = encoder.run(*_batch(source, rows), None, True)
            state = self._handed_on(state)
            last = torch.full((len(rows),), end)
            said, ended = [], torch.zeros(len(rows), dtype=torch.bool)
            for _ in range(2 * self._longest):
                output, state = decoder.rnn(decoder.embedding(last[None]), state)
                last = decoder.output(output[0]).argmax(1)
                said.append(last)
                ended |= last == end
                if bool(ended.all()):
                    break
            for i, indices in zip(rows, torch.stack(said, dim=1).tolist(), strict=True):
                stop = indices.index(end) if end in indices else len(indices)
                tokens = [self._tokens[j] for j in indices[:stop]]
                made[i] = "".join(tokens) if self._strings else tokens
        return made

    def score(self, X: Any, y: Any) -> float:
        """The share of sequences that are right as a whole."""
        return float(np.mean([list(a) == list(b) for a, b in zip(self.predict(X), y, strict=True)]))


PEERS: dict[type, type[Peer]] = {
    estimators.SequenceClassifier: ClassifierPeer,
    estimators.SequenceRegressor: RegressorPeer,
    estimators.SequenceTagger: TaggerPeer,
    estimators.SequenceGenerator: GeneratorPeer,
    estimators.SequenceTranslator: TranslatorPeer,
}


def peer(estimator: Any, initial: Sequence[Weights] | None = None) -> Any:
    """The same network and training as this estimator's, in PyTorch; not fitted."""
    return PEERS[type(estimator)](estimator, initial)


# ------------------------------------------------------------------------------ helpers


def _mean_and_scale(values: Array, standardize: bool) -> tuple[Array, Array]:
    if not standardize:
        return np.zeros(values.shape[1:]), np.ones(values.shape[1:])
    scale = values.std(axis=0)
    return values.mean(axis=0), np.where(scale > 0, scale, 1.0)


def _tensors(raw: Any, steps: Array) -> list[Tensor]:
    return [torch.from_numpy(part) for part in raw.split(steps)]


def _indices(raw: Any, index: dict[Any, int]) -> list[Tensor]:
    """Of tokens; one behind all others where training has not seen a token."""
    return _tensors(raw, np.array([index.get(t, len(index)) for t in raw.steps]))


def _framed(sequences: list[Tensor], first: Tensor, end: int) -> tuple[list[Tensor], list[Tensor]]:
    last = torch.tensor([end])
    inputs = [torch.cat([f, s]) for f, s in zip(first[:, None], sequences, strict=True)]
    return inputs, [torch.cat([s, last]) for s in sequences]


def _lengths(sequences: list[Tensor]) -> Array:
    return np.array([len(s) for s in sequences])


def _batch(sequences: list[Tensor], rows: Array) -> tuple[Tensor, Tensor]:
    """(T, B, ...), zeros behind each, and their lengths (B,)."""
    some = [sequences[i] for i in rows]
    return pad_sequence(some), torch.tensor([len(s) for s in some])


def _cross_entropy(
    logits: Tensor, target: list[Tensor], rows: Array, reduction: str = "mean"
) -> Tensor:
    """Over all steps of these sequences."""
    padded = pad_sequence([target[i] for i in rows], padding_value=NOT_COUNTED)
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), padded.flatten(), ignore_index=NOT_COUNTED, reduction=reduction
    )


def _by_length(sequences: list[Tensor], size: int = 256) -> Iterator[Array]:
    order = np.argsort(_lengths(sequences), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


@torch.inference_mode()
def _of_all(network: Network, sequences: list[Tensor]) -> Array:
    made = [(rows, network.of_all(*_batch(sequences, rows))) for rows in _by_length(sequences)]
    output = np.empty((len(sequences), made[0][1].shape[1]), made[0][1].numpy().dtype)
    for rows, some in made:
        output[rows] = some.numpy()
    return output
