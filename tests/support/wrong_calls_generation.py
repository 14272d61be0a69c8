"""Wrong calls of generate and generate_iter, as in wrong_calls.py."""

from wrong_calls import Case

CALL = "fastrnn.generate(embedding, rnn, fastrnn.Linear(4, 10), [1], 3, **{})"

MODEL = (
    "words, out = fastrnn.Embedding(10, 4, padding_idx=0), fastrnn.Linear(4, 10); "
    "layers = {'words': words, 'r1': fastrnn.GRU(4, 4), 'r2': %s, 'out': out}; "
    "model, r1 = fastrnn.Sequential(layers), layers['r1']"
)

GENERATION: dict[str, Case] = {
    "a share in percent": Case("top_p = 90", CALL.format("{'top_p': top_p}")),
    "a share of nothing": Case(
        "options = {'top_p': 0}", CALL.format("options"), "leave it out, and set temperature=0",
        "options = {'temperature': 0}"),
    "the most probable none": Case("top_k = 0", CALL.format("{'top_k': top_k}")),
    "a rank that is a float": Case("top_k = 5.0", CALL.format("{'top_k': top_k}")),
    "a matrix of indices that end it": Case("stop = [[1, 2]]", CALL.format("{'stop': stop}")),
    "indices that end it as floats": Case("stop = [1.0, 2.0]", CALL.format("{'stop': stop}")),
    "several prompts, one of which is a matrix": Case(
        "prompt = [[1], [[2, 3]]]",
        "fastrnn.generate(embedding, rnn, fastrnn.Linear(4, 10), prompt, 3)"),
    "several prompts for an iterator": Case(
        "prompt = [[1], [2]]",
        "fastrnn.generate_iter(embedding, rnn, fastrnn.Linear(4, 10), prompt)",
        "make an iterator for each, of prompt[0]", "prompt = prompt[0]"),
    "a model that is left in part": Case(
        MODEL % "fastrnn.GRU(4, 4)", "fastrnn.generate(words, r1, out, [1], 3)",
        "make one GRU with num_layers=2 in the place of 'r1' and 'r2'",
        "words, r1, out = fastrnn.Sequential({'words': fastrnn.Embedding(10, 4), "
        "'rnn': fastrnn.GRU(4, 4, num_layers=2), 'out': fastrnn.Linear(4, 10)}).layers.values()"),
    "a model for the embedding": Case(
        MODEL % "fastrnn.Dropout(0.5)", "fastrnn.generate(model, r1, out, [1], 3)",
        "pass embedding.layers['words'], embedding.layers['r1'] and embedding.layers['out']",
        "model = model.layers['words']"),
    "a frozen model that is left in part": Case(
        MODEL % "fastrnn.GRU(4, 4)" + "; frozen = model.freeze(); "
        "words, r1, _, out = frozen.layers.values()",
        "fastrnn.generate(words, r1, out, [1], 3)",
        "make one GRU with num_layers=2 in the place of 'r1' and 'r2'",
        "words, r1, out = fastrnn.Sequential({'words': fastrnn.Embedding(10, 4), "
        "'rnn': fastrnn.GRU(4, 4, num_layers=2), 'out': fastrnn.Linear(4, 10)}).freeze()"
        ".layers.values()"),
    "a frozen model for the embedding": Case(
        MODEL % "fastrnn.Dropout(0.5)" + "; model = model.freeze(); r1, out = "
        "model.layers['r1'], model.layers['out']", "fastrnn.generate(model, r1, out, [1], 3)",
        "pass embedding.layers['words'], embedding.layers['r1'] and embedding.layers['out']",
        "model = model.layers['words']"),
    "a float of another type for a frozen layer": Case(
        "x = np.ones((2, 4))", "head.freeze()(x)"),
    "a model's state": Case(
        "linear = fastrnn.Linear(4, 10); state = {'rnn': np.zeros((1, 4), np.float32)}",
        "fastrnn.generate(embedding, rnn, linear, [1], 3, state)"),
    "one prompt for several states": Case(
        "linear = fastrnn.Linear(4, 10); prompt, state = [1] * 6, np.zeros((1, 6, 4), np.float32)",
        "fastrnn.generate(embedding, rnn, linear, prompt, 3, state)"),
    "prompts with padding": Case(
        MODEL % "fastrnn.Dropout(0.5)" + "; prompt = np.array([[1, 2], [3, 0]])",
        "fastrnn.generate(words, r1, out, prompt, 3)"),
    "a text to go on with": Case(
        "linear, prompt = fastrnn.Linear(4, 10), 'abc'",
        "fastrnn.generate(embedding, rnn, linear, prompt, 3)", "give the indices",
        "prompt = ['abcdefghij'.index(c) for c in prompt]"),
}  # fmt: skip
