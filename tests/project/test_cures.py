"""Errors whose cure cures: wrong calls, and what their messages say done to the letter.

Each case is code that makes the arguments and a call that is refused. What the message advises is
read from its text (see fastrnn/_cures/ for the words that mean something) and done; the call has
to work then, or to lead to one more message at most. Where a message advises in prose, the case
says which words it has to hold and what somebody does who follows them.
"""

import ast
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wrong_calls import CASES, COMMON, Case
from wrong_calls_generation import GENERATION
from wrong_calls_losses import LOSSES
from wrong_calls_models import MODELS

import fastrnn

CASES = CASES | GENERATION | LOSSES | MODELS
if importlib.util.find_spec("sklearn") is not None:
    from wrong_calls_estimators import ESTIMATORS

    CASES |= ESTIMATORS
SUBJECT = re.compile(r"^([A-Za-z_]\w*(?:\[[^\]]*\])*)")


@dataclass
class Run:
    """A wrong call, made again each time with what the messages so far have advised."""

    case: Case
    folder: Path
    before: list[str] = field(default_factory=list)  # statements
    added: dict[str, str] = field(default_factory=dict)  # keyword arguments
    messages: list[str] = field(default_factory=list)

    def make(self) -> bool:
        """Whether the call works; else its message is kept."""
        names: dict[str, Any] = {"np": np, "fastrnn": fastrnn, "folder": self.folder}
        if self.case.needs:
            names[self.case.needs] = pytest.importorskip(self.case.needs)
        exec(COMMON, names)
        exec(self.case.setup, names)
        for statement in self.before:
            exec(statement, names)
        tree = ast.parse(self.case.call)
        for keyword, value in self.added.items():
            call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and refused(n))
            call.keywords = [k for k in call.keywords if k.arg != keyword]
            call.keywords.append(ast.keyword(keyword, ast.parse(value, mode="eval").body))
        ast.fix_missing_locations(tree)
        try:
            exec(compile(tree, "the call", "exec"), names)
        except (TypeError, ValueError, AttributeError) as error:
            self.messages.append(str(error))
            return False
        return True

    def follow(self) -> None:
        """Do what the last message says."""
        text = self.messages[-1]
        if self.case.done and self.case.said in text and self.case.done not in self.before:
            if text.startswith(str(self.folder)):  # a file that was converted
                self.before.append(advised(text, "write", ()))
            self.before.append(self.case.done)
            return
        found = SUBJECT.match(text)
        assert found, text
        if statement := advised(text, "write", (" and pass ", ", and ")):
            self.before.append(statement)
        for expression in re.findall(r"\bpass (.+)", text)[:1]:
            cure = advised(text, "pass", (", ", "; ", " if ", " or ", " and ", " for ", " of "))
            assert cure, expression
            keyword, equals, value = cure.partition("=")
            if equals and keyword.isidentifier() and not value.startswith("="):
                self.added[keyword] = value
                continue
            target = self.target(found[1], cure)
            self.before.append(f"{target} = {cure}")
            likewise = re.search(r"; likewise ([\w, ]+)$", text)
            for other in re.split(", | and ", likewise[1]) if likewise else ():
                its = re.sub(rf"\b{target}\b", other, cure)
                self.before.append(f"{other} = {its}")

    def target(self, subject: str, cure: str) -> str:
        """What an expression is to be passed for: what it is made of, else what was blamed."""
        if subject in cure:
            return subject
        base = subject.partition("[")[0]
        used = [n.id for n in ast.walk(ast.parse(cure)) if isinstance(n, ast.Name)]
        if base in used:
            return base
        given = {n.id for n in ast.walk(ast.parse(self.case.call)) if isinstance(n, ast.Name)}
        others = [n for n in used if n in given - {"np", "fastrnn", "layer"}]
        return others[0] if others else base


def refused(call: ast.Call) -> bool:
    """Whether this is the call that is refused: the first that is of the package."""
    function = ast.unparse(call.func)
    return bool(re.fullmatch(r"[\w.]+", function)) and not function.startswith(("np.", "torch."))


def advised(text: str, verb: str, ends: tuple[str, ...]) -> str:
    """What stands behind the verb, up to one of the ends that is outside of all brackets."""
    found = re.search(rf"\b{verb} (.+)$", text)
    if not found:
        return ""
    rest, depth = found[1], 0
    for i, letter in enumerate(rest):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and any(rest.startswith(end, i + 1) for end in ends):
            piece = rest[: i + 1]
            try:
                ast.parse(piece)
            except SyntaxError:
                continue
            return piece
    ast.parse(rest)
    return rest


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_what_a_message_says_works(name: str, backend: str, tmp_path: Path) -> None:
    run = Run(CASES[name], tmp_path)
    with fastrnn.backend(backend):
        assert not run.make(), "nothing was refused"
        for _ in range(2):
            run.follow()
            if run.make():
                assert any(run.case.said in message for message in run.messages)
                return
    pytest.fail("\n".join([*run.messages, *run.before, str(run.added)]))


class Hostile:
    """An object that answers NumPy with an error of its own."""

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise KeyError("nothing to see")


NASTY: list[Any] = [
    Hostile(), [Hostile()], fastrnn.RNN, float, object(), [np.ones((2, 3)), np.ones((2, 2))],
    [[[1, 2, 3]], [[1, 2]]], [1.0, [2.0]], [[2**70], [1, 2]], [None, 1.0], {}, {1, 2}, None,
    "text", b"bytes", np.array("text"), np.array([None]), np.array([[1, 2], [3]], dtype=object),
    np.zeros(3, [("a", int)]), np.zeros(2, "M8[s]"), np.ma.ones(2), [np.ma.ones(2)], (), [], 1j,
    float("nan"), 10**400, (np.ones(2),) * 5, fastrnn.RNN(2, 3, rng=0), np.ones, [[]], [[1j, 2j]],
    np.broadcast_to(1.5, (1000, 1000)), {"weight": None}, [{"weight": 1}], np.float32, True,
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(NASTY)))
def test_looking_for_a_cure_raises_nothing_else(i: int, tmp_path: Path) -> None:
    value, steps = NASTY[i], np.ones((5, 2, 3))
    w_ih, w_hh = np.ones((4, 3)), np.ones((4, 4))
    layer = fastrnn.LSTM(3, 4, dtype="float64", rng=0)
    output, _, tape = layer.forward(steps)
    refused = 0
    for call in (
        lambda: fastrnn.rnn_forward(value, None, w_ih, w_hh),
        lambda: fastrnn.rnn_forward(steps, value, w_ih, w_hh),
        lambda: fastrnn.rnn_forward(steps, None, value, w_hh),
        lambda: fastrnn.rnn_forward(steps, None, w_ih, w_hh, lengths=value),
        lambda: fastrnn.rnn_forward(steps, None, w_ih, w_hh, restart=value),
        lambda: fastrnn.rnn_forward(steps, None, w_ih, w_hh, nonlinearity=value),
        lambda: layer(value),
        lambda: layer(steps, value),
        lambda: layer(steps, (value, value)),
        lambda: layer.backward(tape, value),
        lambda: layer.backward(value, output),
        lambda: layer.backward(tape, output, wrt=value),
        lambda: layer.load_state_dict(value),
        lambda: layer.load_state_dict(dict.fromkeys(layer.weights, value)),
        lambda: fastrnn.Linear(3, 2, dtype="float64")(value),
        lambda: fastrnn.Linear(value, 2),
        lambda: fastrnn.Linear(3, 2, bias=value),
        lambda: fastrnn.RNN(3, 4, dtype=value),
        lambda: fastrnn.RNN(3, 4, rng=value),
        lambda: fastrnn.embedding_forward(value, np.ones((10, 3))),
        lambda: fastrnn.softmax_cross_entropy(value, [1]),
        lambda: fastrnn.softmax_cross_entropy(np.ones((7, 2, 3)), value),
        lambda: fastrnn.mean_squared_error(np.ones((7, 2, 3)), value),
        lambda: fastrnn.clip_grad_norm(value, 1.0),
        lambda: fastrnn.clip_grad_norm(np.ones(3), value),
        lambda: fastrnn.optim.Adam(value),
        lambda: fastrnn.optim.Adam([np.ones(7)]).step(value),
        lambda: fastrnn.optim.Adam([np.ones(7)]).load_state_dict(value),
        lambda: fastrnn.pad_sequence(value),
        lambda: fastrnn.save(value if not isinstance(value, str | bytes) else 7, {"a": steps}),
        lambda: fastrnn.save(tmp_path / "name", value),
        lambda: fastrnn.save(tmp_path / "name", {"a": value}),
        lambda: fastrnn.save(tmp_path / "name", {"a": {"b": value}}),
    ):  # fmt: skip
        text = ""
        try:
            call()
        except (TypeError, ValueError) as error:
            text, refused = str(error), refused + 1
        assert len(text) < 1000
    assert refused > 10
