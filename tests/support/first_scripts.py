"""What a user may write first: each function runs, and mypy --strict has nothing to say about it.

Where mypy must object, the line says so: an objection that no longer comes is an error of its own.
See tests/project/test_typing.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn import reference

Array = NDArray[np.float32]

rng = np.random.default_rng(0)
X: Array = rng.standard_normal((5, 3, 2), dtype=np.float32)


def random(*shape: int) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)


# ------------------------------------------------------------------------------ training


class Tagger:
    """A word in, a class out, at every step."""

    def __init__(self, words: int, classes: int) -> None:
        self.embedding = fastrnn.Embedding(words, 4, rng=0)
        self.rnn = fastrnn.LSTM(4, 6, bidirectional=True, forget_bias=1.0, rng=1)
        self.head = fastrnn.Linear(12, classes, rng=2)
        self.weights = [x.flat_weights for x in (self.embedding, self.rnn, self.head)]

    def __call__(self, words: NDArray[np.int64]) -> Array:
        output, _ = self.rnn(self.embedding(words))
        return self.head(output)

    def gradients(
        self, words: NDArray[np.int64], target: list[list[int]], lengths: list[int]
    ) -> tuple[float, list[Array]]:
        x, x_tape = self.embedding.forward(words)
        output, _, rnn_tape = self.rnn.forward(x, lengths=lengths)
        logits, head_tape = self.head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, target, lengths=lengths)
        head = self.head.backward(head_tape, d_logits)
        rnn = self.rnn.backward(rnn_tape, head.x)
        embedding = self.embedding.backward(x_tape, rnn.x)
        return loss, [g.flat_weights for g in (embedding, rnn, head)]


def train_a_tagger() -> float:
    tagger = Tagger(7, 3)
    adam = fastrnn.optim.Adam(tagger.weights, lr=0.01)
    words = np.array([[1, 2], [3, 4], [5, 6]])
    loss = 0.0
    for step in range(3):
        loss, grads = tagger.gradients(words, [[0, 1], [1, 2], [2, 0]], lengths=[3, 2])
        norm = fastrnn.clip_grad_norm(grads, 1.0)
        fastrnn.clip_grad_value(grads, 0.5)
        adam.lr = 0.01 / (step + 1)
        adam.step(grads)
        adam.params[0] *= 0.99
        assert norm >= 0
    shape: tuple[int, ...] = tagger(words).shape
    assert shape == (3, 2, 3)
    return loss


def descend(layer: fastrnn.RNN | fastrnn.GRU, steps: int = 30) -> None:
    sgd = fastrnn.optim.SGD(layer.flat_weights, lr=0.1, momentum=0.9)
    losses = []
    state: Array | None = None
    for _ in range(steps):
        output, state, tape = layer.forward(X, state)
        loss, d_output = fastrnn.mean_squared_error(output, np.zeros_like(output))
        grads = layer.backward(tape, d_output, wrt=["weights"])
        sgd.step(grads.flat_weights)
        losses.append(loss)
    assert losses[-1] < losses[0]


def train_two_kinds() -> None:
    descend(fastrnn.RNN(2, 4, rng=0))
    descend(fastrnn.GRU(2, 4, rng=0))


def adagrad() -> None:
    """A rule of one's own, over names."""
    layer = fastrnn.GRU(2, 4, rng=0)
    sums = {name: np.full_like(w, 0.1) for name, w in layer.weights.items()}
    output, _, tape = layer.forward(X)
    grads = layer.backward(tape, np.ones_like(output))
    for name, w in layer.weights.items():
        g = grads.weights[name]
        sums[name] += g * g
        w -= 0.1 * g / np.sqrt(sums[name])
    fastrnn.clip_grad_norm(grads.weights, 1.0)
    layer.weights["bias_ih_l0"][...] = 0
    layer.weights["bias_hh_l0"] -= 0.5
    layer.flat_weights[...] -= 0.01 * grads.flat_weights


# ------------------------------------------------------------------------------ functions


def elman_functions() -> Array:
    w_ih, w_hh, bias = random(4, 2), random(4, 4), random(4)
    output, h_n, tape = fastrnn.rnn_forward(X, None, w_ih, w_hh, bias, nonlinearity="relu")
    grads = fastrnn.rnn_backward(tape, d_output=np.ones_like(output), d_h_n=h_n)
    w_ih -= 0.1 * grads.w_ih
    w_hh -= 0.1 * grads.w_hh
    bias -= 0.1 * grads.b_ih.clip(-1, 1)
    norms = fastrnn.gradient_norms(tape, d_h_n=h_n)
    assert norms.shape == grads.x.shape[:2]
    return grads.x


def lstm_functions() -> tuple[Array, Array]:
    weights = [random(16, 2), random(16, 4), random(16), random(16)]
    h_0, c_0 = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32)
    output, h_n, c_n, tape = fastrnn.lstm_forward(X, h_0, c_0, *weights, lengths=[5, 4, 3])
    grads = fastrnn.lstm_backward(tape, None, h_n, c_n, wrt=["h_0", "c_0"])
    assert output.shape == (5, 3, 4)
    return grads.h_0, grads.c_0


def gru_functions() -> Array:
    weights = [random(12, 2), random(12, 4)]
    _, h_n, tape = fastrnn.gru_forward(X, None, *weights, reverse=True, check=True)
    restart = [[False] * 3, [True] * 3] + [[False] * 3] * 3
    fastrnn.gru_forward(X, None, *weights, restart=restart, record=False)
    grads = fastrnn.gru_backward(tape, d_h_n=np.ones_like(h_n))
    return grads.w_hh.reshape(3, 4, 4) * 2


def output_layer_and_embedding() -> float:
    table, w_out = random(5, 2), random(3, 2)
    x, x_tape = fastrnn.embedding_forward([4, 0, 2], table)
    y, y_tape = fastrnn.linear_forward(x, w_out)
    grads = fastrnn.linear_backward(y_tape, y)
    d_table = fastrnn.embedding_backward(x_tape, grads.x).weight
    w_out -= grads.weight
    return float(d_table.sum() + grads.x.mean())


def on_the_reference() -> Array:
    output, h_n, tape = reference.rnn_forward(X, None, random(4, 2), random(4, 4))
    grads = reference.rnn_backward(tape, output)
    loss, d = reference.mean_squared_error(h_n, np.zeros_like(h_n))
    assert loss > 0
    assert d.shape == h_n.shape
    layer = fastrnn.RNN(2, 4, rng=0)
    with fastrnn.backend("reference"), fastrnn.num_threads(1):
        output, _ = layer(X)
    return grads.x * output[:, :, :1]


# ------------------------------------------------------------------------------ layers


def states() -> Array:
    lstm = fastrnn.LSTM(2, 4, num_layers=2, proj_size=3, rng=0)
    output, (h, c) = lstm(X)
    output, (h, c), tape = lstm.forward(X, (h, c), keep=["c", "gates"])
    grads = lstm.backward(tape, d_state=(None, c))
    d_h, d_c = grads.state
    assert (d_h.shape, d_c.shape) == (h.shape, c.shape)
    assert tape.c[0].shape == (5, 3, 4)

    decoder = fastrnn.GRU(3, 4, rng=0)
    _, _, decoder_tape = decoder.forward(output, c[:1], checkpoint=2)
    decoder_grads = decoder.backward(decoder_tape, d_state=c[:1])
    norms: NDArray[np.float64] = fastrnn.gradient_norms(decoder_tape, d_h_n=c[:1])
    assert norms.shape == (1, 5, 3)
    return decoder_grads.state


def streams() -> tuple[Array, Array]:
    stream, y = fastrnn.GRU(2, 4, rng=0).stream(), np.empty(4, np.float32)
    stream.step(X[0, 0], out=y)
    rest = stream.run(X[1:, 0])
    h = stream.state.copy()
    pair = fastrnn.LSTM(2, 4, rng=0).stream(batch_size=3)
    y_t: Array = pair.step(X[0], restart=True)
    h_n, c_n = pair.state
    pair.state = (h_n, 0 * c_n)
    pair.reset([0, 2])
    pair.update()
    stream.state = h
    return rest, y_t


def write_on() -> list[int]:
    embedding, head = fastrnn.Embedding(5, 3, rng=0), fastrnn.Linear(4, 5, rng=1)
    gru = fastrnn.GRU(3, 4, rng=2)
    lstm = fastrnn.LSTM(3, 4, rng=2)
    indices, state = fastrnn.generate(embedding, gru, head, [1, 2], 6, rng=3)
    gru(random(2, 3), state)
    indices, (h, c) = fastrnn.generate(embedding, lstm, head, indices[-1:], 6, temperature=0)
    more, _ = fastrnn.generate(embedding, lstm, head, indices[-1:], 6, (h, c), rng=3)
    written: list[int] = more.tolist()
    several, (h, c) = fastrnn.generate(embedding, lstm, head, [[1], more[-1:]], 6, stop=3, rng=3)
    written += several[0].tolist()
    one_by_one = fastrnn.generate_iter(embedding, gru, head, [1], top_k=2, top_p=0.9, rng=3)
    written.append(next(one_by_one))
    gru(random(2, 3), one_by_one.state)
    return written


def padding() -> list[Array]:
    x, lengths = fastrnn.pad_sequence([random(4, 2), random(2, 2)], batch_first=True)
    layer = fastrnn.RNN(2, 4, batch_first=True, rng=0)
    output, _ = layer(x, lengths=lengths)
    layer.batch_first = False
    layer.dropout = 0
    return fastrnn.unpad_sequence(output, lengths, batch_first=True)


def other_types() -> None:
    """Weights as they were drawn in another type, and names that are missing."""
    single = fastrnn.RNN(2, 4, rng=0)
    double = fastrnn.RNN(2, 4, dtype=np.float64)
    double.load_state_dict(single.state_dict())
    missing = double.load_state_dict({}, strict=False).missing_keys
    assert missing == list(single.weights)
    assert (str(double.dtype), double.hidden_size) == ("float64", 4)


# ------------------------------------------------------------------------------ files, settings


def load_rnn(path: Path) -> fastrnn.RNN:
    return fastrnn.load(path)["rnn"]


def load_all(path: Path) -> dict[str, Any]:
    return fastrnn.load(path)


def save_and_load(folder: Path) -> None:
    path = folder / "model.safetensors"
    rnn, head = fastrnn.RNN(2, 4, rng=0), fastrnn.Linear(4, 2, rng=0)
    adam = fastrnn.optim.Adam([rnn.flat_weights, head.flat_weights])
    run = {"step": 3, "losses": np.ones(3)}
    fastrnn.save(path, {"rnn": rnn, "head": head, "adam": adam, "run": run}, {"author": "me"})

    loaded = fastrnn.load(path)
    author: str = loaded.metadata["author"]
    assert author == "me"
    layer = loaded["rnn"]
    output, state = layer(X)
    again: fastrnn.Linear = loaded["head"]
    assert again(output).shape == (5, 3, 2)
    assert load_rnn(path)(X)[1].shape == state.shape
    assert list(load_all(path)) == ["rnn", "head", "adam", "run"]
    adam = fastrnn.optim.Adam([layer.flat_weights, again.flat_weights])
    adam.load_state_dict(loaded["adam"])
    adam.load_state_dict(adam.state_dict())
    step: int = loaded["run"]["step"]
    assert step == 3
    for value in loaded.values():
        if isinstance(value, fastrnn.RNN):
            assert value.num_layers == 1


def settings() -> None:
    config = fastrnn.show_config(mode="dicts")
    threads: int = config["run"]["threads"]
    assert threads == fastrnn.get_num_threads()
    fastrnn.set_isa(fastrnn.available_isas()[0])
    fastrnn.set_num_threads(threads)


# ------------------------------------------------------------------------------ mistakes

if TYPE_CHECKING:

    def mistakes(rnn: fastrnn.RNN, lstm: fastrnn.LSTM, head: fastrnn.Linear, h: Array) -> Any:
        rnn("x")  # type: ignore[arg-type]
        rnn([[1.0, 2.0]])  # type: ignore[arg-type]
        rnn(X, (h, h))  # type: ignore[arg-type]
        lstm(X, h)  # type: ignore[arg-type]
        print(lstm(X).shape)  # type: ignore[attr-defined]
        fastrnn.GRU(2, "4")  # type: ignore[arg-type]
        fastrnn.GRU(2, 4, nonlinearity="relu")  # type: ignore[call-arg]
        output, _, tape = rnn.forward(X, length=[5])  # type: ignore[call-arg]
        head.backward(tape, output)  # type: ignore[arg-type]
        rnn.backward(tape, d_state="h")  # type: ignore[arg-type]
        grads = rnn.backward(tape, output)
        print(grads.h_0)  # type: ignore[attr-defined]
        print(grads.x.shap)  # type: ignore[union-attr]
        rnn.weights = lstm.weights  # type: ignore[misc]
        rnn.hidden = 5  # type: ignore[attr-defined]
        rnn_tape = fastrnn.rnn_forward(X, None, h, h)[2]
        fastrnn.gru_backward(rnn_tape, d_h_n=h)  # type: ignore[arg-type]
        fastrnn.rnn_backward(rnn_tape, h, h, h)  # type: ignore[call-arg]
        fastrnn.optim.Adam(rnn)  # type: ignore[arg-type]
        adam = fastrnn.optim.Adam(h)
        adam.step("grads")  # type: ignore[arg-type]
        adam.learning_rate = 0.1  # type: ignore[attr-defined]
        fastrnn.clip_grad_norm(h, "1")  # type: ignore[arg-type]
        rnn.stream().step("x")  # type: ignore[arg-type]
        fastrnn.save("file", rnn)  # type: ignore[arg-type]
        fastrnn.show_config(mode="json")  # type: ignore[call-overload]
        return fastrnn.relu  # type: ignore[attr-defined]
