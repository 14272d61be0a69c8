"""A character-level language model in 25 lines: which character comes next in Python's help texts?

An embedding, a GRU and an output layer in one model, trained on windows of 64 characters from
random places; then it writes on by itself, each character drawn from what it expects.

    python examples/char_rnn.py                      # about 20 seconds

`fastrnn train` is the same for longer texts and runs: held-out text, Ctrl-C, going on.
"""

import pydoc

import numpy as np

import fastrnn


def main(steps: int = 500) -> float:
    text = "".join(pydoc.plain(pydoc.render_doc(kind)) for kind in (str, int, list, dict, set))
    characters = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    rng = np.random.default_rng(0)
    embedding, rnn = fastrnn.Embedding(128, 32, rng=rng), fastrnn.GRU(32, 128, rng=rng)
    head = fastrnn.Linear(128, 128, rng=rng)
    model = fastrnn.Sequential({"embedding": embedding, "rnn": rnn, "head": head})
    adam = fastrnn.optim.Adam([model.flat_weights], lr=5e-3)
    for step in range(1, steps + 1):
        # 16 windows side by side, (65, 16)
        window = characters[rng.integers(0, len(characters) - 64, 16) + np.arange(65)[:, None]]
        logits, _, tape = model.forward(window[:-1])
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, window[1:])
        grads = model.backward(tape, d_logits)
        fastrnn.clip_grad_norm(grads, 1.0)
        adam.step(grads)
        if step % 100 == 0:
            print(f"step {step:4}  {loss / np.log(2):.2f} bits per character")
    written, _ = fastrnn.generate(embedding, rnn, head, [ord("H")], 400, temperature=0.5, rng=rng)
    print("H" + "".join(map(chr, written)))
    return loss


if __name__ == "__main__":
    main()
