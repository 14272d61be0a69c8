"""The embedding's tape: it notices changes if asked to, and is read once and not believed."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from refusals import refused

import fastrnn
from fastrnn import reference

INDICES = np.array([[4, 0], [2, 4], [0, 0]])
BOTH = pytest.mark.parametrize("functions", [fastrnn, reference], ids=["compiled", "reference"])
COPIES: dict[str, Any] = {
    "itself": lambda tape: tape,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda tape: pickle.loads(pickle.dumps(tape)),
    "pickle 2": lambda tape: pickle.loads(pickle.dumps(tape, 2)),
}


def forward(functions: Any, dtype: Any = np.float32, **options: Any) -> Any:
    weight = np.arange(15, dtype=dtype).reshape(5, 3)
    output, tape = functions.embedding_forward(INDICES, weight, **options)
    return weight, output, tape


def plus_one(a: Any) -> None:
    a += 1


def one_sign(a: Any) -> None:
    a[(0,) * a.ndim] = -0.0  # equal, but not the same


def last_element(a: Any) -> None:
    a[(-1,) * a.ndim] = np.nan


@BOTH
@pytest.mark.parametrize("change", [plus_one, one_sign, last_element], ids=lambda f: f.__name__)
@pytest.mark.parametrize("changed", ["weight", "output"])
@pytest.mark.parametrize("way", ["itself", "copy"])  # the others have arrays of their own
def test_a_change_is_noticed(functions: Any, change: Any, changed: str, way: str) -> None:
    weight, output, tape = forward(functions, check=True)
    output[...] = weight[0, 0] = 0  # a zero to change the sign of
    weight, output, tape = weight, *functions.embedding_forward(INDICES, weight, check=True)
    d = np.ones_like(output)
    tape = COPIES[way](tape)
    change({"weight": weight, "output": output}[changed])
    for backward in (fastrnn.embedding_backward, reference.embedding_backward):
        for wrt in (None, ()):
            with pytest.raises(RuntimeError, match=f"^{changed} was changed between forward and"):
                backward(tape, d, wrt=wrt)


@BOTH
@pytest.mark.parametrize("way", COPIES)
def test_what_is_not_changed_raises_nothing(functions: Any, way: str) -> None:
    for dtype in (np.float32, np.float64):
        _, output, tape = forward(functions, dtype, check=True)
        want = functions.embedding_backward(forward(functions, dtype)[2], output).weight
        got = functions.embedding_backward(COPIES[way](tape), output).weight
        assert_same(got, want, way)
    # Also where the weight is a view with gaps, and where there is nothing.
    wide = np.ones((5, 6))[:, ::2]
    output, tape = functions.embedding_forward(INDICES, wide, check=True)
    functions.embedding_backward(COPIES[way](tape), output)
    output, tape = functions.embedding_forward([], wide, check=True)
    functions.embedding_backward(COPIES[way](tape), output)


@BOTH
def test_without_check_the_tape_holds_neither(functions: Any) -> None:
    weight, output, tape = forward(functions)
    assert (tape.weight, tape.output, tape.digests) == (None, None, None)
    d = np.ones_like(output)
    want = functions.embedding_backward(tape, d).weight
    weight += 1
    output += 1
    assert_same(functions.embedding_backward(tape, d).weight, want, "changed, which is allowed")
    _, _, tape = forward(functions, check=True)
    assert [name for name, _ in tape.digests] == ["weight", "output"]
    assert functions.embedding_forward(INDICES, weight, record=False, check=True)[1] is None


@pytest.mark.parametrize("changed", ["weight", "output"])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_a_layer_checks_too(changed: str, backend: str) -> None:
    with fastrnn.backend(backend):
        layer = fastrnn.Embedding(5, 3, rng=0)
        output, tape = layer.forward(INDICES, check=True)
        d = np.ones_like(output)
        layer.backward(tape, d)
        plus_one(output if changed == "output" else layer.flat_weights)
        with pytest.raises(RuntimeError, match=f"^{changed} was changed"):
            layer.backward(tape, d)
        output, tape = layer.forward(INDICES)
        plus_one(output if changed == "output" else layer.flat_weights)
        layer.backward(tape, d)


def test_check_is_a_flag() -> None:
    weight = np.ones((5, 3))
    for wrong in (1, None, "yes"):
        text = f"check is {wrong!r}, expected True or False"
        refused((([0], weight), {"check": wrong}), TypeError, text, function="embedding_forward")
        with pytest.raises(TypeError, match="check is"):
            fastrnn.Embedding(5, 3).forward([0], check=wrong)  # type: ignore[arg-type]


# Each in a process of its own, which a write out of range may end.
CHANGING = """
import numpy as np, fastrnn
from fastrnn import reference

indices, d = np.zeros(1000, int), np.ones((1000, 7), np.float32)
layer = fastrnn.Embedding(5, 7, rng=0)
tape = layer.forward(indices)[1]
far, large = np.full(1000, 10**9), (10**6, 7)


def changing(fields, after):
    looks = []

    def answer(name):
        def get(self):
            looks.append(name)
            return fields[name] if len(looks) <= after else later[name]

        return property(get)

    later = {"indices": far, "shape": large, "dtype": np.dtype("f8")}
    answers = {name: answer(name) for name in fields}
    return type("Changing", (type(tape),), answers)


for name in ("indices", "shape", "dtype"):
    for after in range(8):
        for functions in (fastrnn, reference):
            kind = changing({name: getattr(tape, name)}, after)
            for backward in (functions.embedding_backward, layer.backward):
                try:
                    backward(kind(*tape), d)
                except (TypeError, ValueError):
                    pass


class Iterates(type(tape)):
    def __iter__(self):
        return iter((far, large, np.dtype("f4"), None, None, None))

    def __getitem__(self, i):
        return list(self)[i]


# What is stored counts.
want = fastrnn.embedding_backward(tape, d).weight
assert (fastrnn.embedding_backward(Iterates(*tape), d).weight == want).all()


class Liar(np.ndarray):
    shape = property(lambda self: (1000,))
    size = 1000

    def min(self, *args, **kwargs):
        return 0

    def max(self, *args, **kwargs):
        return 0


class Pair(tuple):
    def __getitem__(self, i):
        return 10**6


for change in (
    {"indices": far.view(Liar)},
    {"shape": Pair((5, 7))},
    {"shape": [5, 7]},
    {"shape": (5.0, 7)},
    {"shape": (10**6, 7)},  # for the layer: it is not its weight's
    {"indices": indices.tolist()},
    {"indices": None},
):
    for functions in (fastrnn, reference):
        for backward in (functions.embedding_backward, layer.backward):
            try:
                backward(tape._replace(**change), d)
            except (TypeError, ValueError):
                continue
            assert change == {"shape": (10**6, 7)} and backward != layer.backward, change
"""


def test_a_tape_that_answers_differently_each_time() -> None:
    done = subprocess.run([sys.executable, "-c", CHANGING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
