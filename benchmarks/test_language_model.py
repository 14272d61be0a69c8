"""One training step of the language model of ``fastrnn train``, under pytest-benchmark.

    pytest benchmarks/test_language_model.py --benchmark-only

The same layers, sizes, loss, clipping and Adam in fastrnn, in its reference and, where it is
installed, in PyTorch. Each has the machine for itself: threads of one that still spin would slow
the next, so a pause stands between them.
"""

import time

import numpy as np
import pytest

import fastrnn
from fastrnn.char_lm.corpus import Corpus, Settings
from fastrnn.char_lm.training import Training

SETTINGS = Settings()


@pytest.fixture(scope="module")
def corpus():
    return Corpus.read([])


def compiled(corpus):
    return Training(corpus, SETTINGS).step


def reference(corpus):
    step = Training(corpus, SETTINGS).step

    def run():
        with fastrnn.backend("reference"):
            step()

    return run


def pytorch(corpus):
    torch = pytest.importorskip("torch")
    run = Training(corpus, SETTINGS)  # for its text and its first weights
    own = run.model.layers()
    embedding, rnn, head = layers = (
        torch.nn.Embedding(*own[0].weights["weight"].shape),
        torch.nn.RNN(SETTINGS.embedding_dim, SETTINGS.hidden_size),
        torch.nn.Linear(*own[2].weights["weight"].shape[::-1]),
    )
    for layer, weights in zip(layers, own, strict=True):
        layer.load_state_dict({k: torch.from_numpy(v) for k, v in weights.state_dict().items()})
    parameters = [p for layer in layers for p in layer.parameters()]
    adam = torch.optim.Adam(parameters, lr=SETTINGS.lr, foreach=True)
    inputs, targets = (torch.from_numpy(a.astype(np.int64)) for a in (run.inputs, run.targets))
    place, state = 0, None

    def step():
        nonlocal place, state
        now = slice(place, place + SETTINGS.steps)
        place = (place + SETTINGS.steps) % (len(inputs) - SETTINGS.steps)
        output, h = rnn(embedding(inputs[now]), state)
        state = h.detach()
        logits = head(output)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[now].flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, SETTINGS.max_norm)
        adam.step()
        return loss.item()

    first = compiled(corpus).__self__
    first.step()
    assert abs(step() / np.log(2) - first.losses[0]) < 1e-4  # the same work
    return step


@pytest.mark.parametrize("implementation", [compiled, pytorch, reference], ids=lambda f: f.__name__)
@pytest.mark.benchmark(
    group="language model, one step", max_time=1, min_rounds=3, warmup=True, warmup_iterations=1
)
def test_step(benchmark, corpus, implementation):
    step = implementation(corpus)
    time.sleep(0.3)
    benchmark(step)
