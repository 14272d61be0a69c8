"""Compare bits between two machines: the results of one are written, the other's must equal them.

usage: same_bits.py write FILE      on one machine
       same_bits.py check FILE      on the other, or under emulation
Needs tests/support on PYTHONPATH. The problems travel in the file, drawn once.
"""

import copy
import pickle
import sys
from pathlib import Path

import numpy as np
from bit_checks import DTYPES, LARGE, SMALL, assert_same_results
from bounds import draw, run

import fastrnn

RECURRENT = (
    lambda **kw: fastrnn.RNN(20, 70, **kw),
    lambda **kw: fastrnn.RNN(20, 70, nonlinearity="hard_sigmoid", **kw),
    lambda **kw: fastrnn.LeakyRNN(20, 70, 2, nonlinearity="sigmoid", **kw),
    lambda **kw: fastrnn.LeakyRNN(20, 70, leak=0.2, form="potential", **kw),
    lambda **kw: fastrnn.LSTM(20, 70, 2, **kw),
    lambda **kw: fastrnn.LSTM(20, 75, proj_size=70, peephole=True, **kw),
    lambda **kw: fastrnn.GRU(20, 70, **kw),
    lambda **kw: fastrnn.GRU(20, 70, 2, reset_after=False, **kw),
)


def language_model(recurrent, dtype):
    """Layers and a text for `trained`."""
    rng = np.random.default_rng(0)
    layers = (
        fastrnn.Embedding(37, 20, dtype=dtype, rng=rng),
        recurrent(dtype=dtype, rng=rng),
        fastrnn.Linear(70, 37, dtype=dtype, rng=rng),
    )
    return layers, rng.integers(0, 37, (31, 21))


def trained(layers, text):
    """What some steps of training and a sample come to, over every compiled function."""
    layers = copy.deepcopy(layers)
    embedding, rnn, head = layers
    adam = fastrnn.optim.Adam([layer.flat_weights for layer in layers])
    results = {"losses": np.empty(3), "norms": np.empty(3)}
    for step in range(3):
        x, embedding_tape = embedding.forward(text[:-1])
        output, _, rnn_tape = rnn.forward(x)
        logits, head_tape = head.forward(output)
        results["losses"][step], d = fastrnn.softmax_cross_entropy(logits, text[1:])
        of_head = head.backward(head_tape, d)
        of_rnn = rnn.backward(rnn_tape, of_head.x)
        of_embedding = embedding.backward(embedding_tape, of_rnn.x)
        grads = [of.flat_weights for of in (of_embedding, of_rnn, of_head)]
        results["norms"][step] = fastrnn.clip_grad_norm(grads, 0.1)
        adam.step(grads)
    results |= {type(layer).__name__: layer.flat_weights for layer in layers}
    sample, state = fastrnn.generate(*layers, text[:5, 0], 200, rng=1)
    results["sample"] = sample.astype(float)
    results |= {
        f"state {i}": a for i, a in enumerate(state if isinstance(state, tuple) else [state])
    }
    results["stream"] = rnn.stream(21).run(embedding(text))
    return results | other_losses(logits)


def other_losses(logits):
    p, q, one = fastrnn.softmax(logits), fastrnn.sigmoid(logits), np.ones(37)
    options = {"class_weight": one, "label_smoothing": 0.1, "reduction": "none"}
    made = {
        "soft": fastrnn.softmax_cross_entropy(logits, q, **options),
        "binary": fastrnn.binary_cross_entropy_with_logits(logits, q, pos_weight=2 * one),
        "huber": fastrnn.huber_loss(logits, p, delta=0.01),
        "absolute": fastrnn.l1_loss(logits, p),
        "squared": fastrnn.mean_squared_error(logits, p),
    }
    results = {"p": p, "log p": fastrnn.log_softmax(logits), "q": q}
    for name, (loss, d) in made.items():
        results |= {f"{name} loss": np.asarray(loss), f"{name} gradient": d}
    return results


def main(mode: str, file: str) -> None:
    if mode == "write":
        problems = [(draw(spec, dtype),) for spec in SMALL + LARGE[::2] for dtype in DTYPES]
        problems += [language_model(rnn, dtype) for rnn in RECURRENT for dtype in DTYPES]
        results = [computed(problem) for problem in problems]
        Path(file).write_bytes(pickle.dumps((fastrnn.get_isa(), problems, results)))
        return
    isa, problems, expected = pickle.loads(Path(file).read_bytes())
    here = fastrnn.get_isa()
    if here == isa or "generic" in (here, isa):
        sys.exit(f"nothing to learn from comparing {here} with {isa}")
    for threads in (1, 2):
        fastrnn.set_num_threads(threads)
        for problem, results in zip(problems, expected, strict=True):
            assert_same_results(computed(problem), results, f"{here} and {isa}")
    print(f"{here} on 1 and 2 threads: the bits of {isa}, {len(problems)} problems")


def computed(problem):
    return run(fastrnn, *problem) if len(problem) == 1 else trained(*problem)


if __name__ == "__main__":
    main(*sys.argv[1:])
