"""Wrong calls of generate and generate_iter, as in wrong_calls.py."""

from wrong_calls import Case

CALL = "fastrnn.generate(embedding, rnn, fastrnn.Linear(4, 10), [1], 3, **{})"

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
}  # fmt: skip
