"""Writing on under pytest-benchmark: the compiled function, the reference, and a lean NumPy loop.

    pytest benchmarks/test_generate.py --benchmark-only --benchmark-group-by=group

The lean loop is what somebody writes who wants it fast without leaving NumPy: no checks, and every
array that can be made before is. Its products are BLAS's, on one thread (see conftest.py).
"""

import numpy as np
import pytest

import fastrnn
from fastrnn import reference

V, D, LENGTH = 100, 64, 1000


def lean(embedding, rnn, linear, prompt, length, *, rng):
    table, w, out = embedding.weights["weight"], rnn.weights, linear.weights
    # The input projection depends on the index alone: one product makes it for every index.
    inputs = table @ w["weight_ih_l0"].T + (w["bias_ih_l0"] + w["bias_hh_l0"])
    w_hh, w_out, b_out = w["weight_hh_l0"], out["weight"], out["bias"]
    h = np.zeros(rnn.hidden_size, rnn.dtype)
    z, logits = np.empty_like(h), np.empty(len(w_out), rnn.dtype)
    running = np.empty(len(w_out))
    indices = np.empty(length, np.int64)
    uniform = np.random.default_rng(rng).random(length).tolist()
    for index in prompt[:-1]:
        h = np.tanh(inputs[index] + w_hh @ h)
    index = prompt[-1]
    for n in range(length):
        np.dot(w_hh, h, out=z)
        z += inputs[index]
        np.tanh(z, out=h)
        np.dot(w_out, h, out=logits)
        logits += b_out
        logits -= logits.max()
        np.exp(logits, out=logits)
        np.cumsum(logits, dtype=np.float64, out=running)
        indices[n] = index = running.searchsorted(uniform[n] * running[-1], side="right")
    return indices, h


IMPLEMENTATIONS = {
    "compiled": fastrnn.generate,
    "lean": lean,
    "reference": reference.generate,
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("H", [64, 128, 256])
@pytest.mark.benchmark(
    max_time=0.3, min_rounds=3, warmup=True, warmup_iterations=1, disable_gc=True
)
def test_generate(benchmark, H, implementation):
    benchmark.group = f"generate {LENGTH} indices V={V} D={D} H={H}"
    net = (
        fastrnn.Embedding(V, D, rng=0),
        fastrnn.RNN(D, H, rng=1),
        fastrnn.Linear(H, V, rng=2),
    )
    indices, _ = benchmark(IMPLEMENTATIONS[implementation], *net, [0], LENGTH, rng=0)
    # All three do the same work.
    assert indices[:20].tolist() == reference.generate(*net, [0], 20, rng=0)[0].tolist()
