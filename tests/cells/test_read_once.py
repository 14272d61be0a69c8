"""What C is handed was checked, whatever becomes of it between: tapes and arrays that change."""

import contextlib
import json
import textwrap
import threading

import numpy as np
import pytest
from processes import script
from registry import CELLS, EXTRAS, KINDS, RICH

import fastrnn
from fastrnn import _core, reference

# A subclass of a tape, one field of which is another from the second look on, or the third, ...
CHANGING = """
import json, sys
import numpy as np, fastrnn
from fastrnn import reference
module = {"compiled": fastrnn, "reference": reference}[sys.argv[1]]
x = np.ones((50, 8, 16), np.float32)

def made(kind, options):
    if kind == "linear":
        weights = np.ones((64, 16), np.float32), np.ones(64, np.float32)
        return fastrnn.linear_forward(x, *weights)
    if kind == "embedding":
        return fastrnn.embedding_forward(np.ones((50, 8), int), np.ones((64, 16), np.float32))
    layer = getattr(fastrnn, options.pop("layer"))(16, 64, rng=0, **options)
    output, _, tape = layer.forward(x, lengths=[50] * 8)
    return output, tape.tapes[0]

def cases():
    for kind, (options, fields) in json.loads(sys.argv[2]).items():
        output, tape = made(kind, options)
        backward = getattr(module, kind + "_backward")
        for field in fields:
            print(kind, field, flush=True)
            yield field, output, tape, backward, backward(tape, output)

for field, output, tape, backward, want in cases():
    real = getattr(tape, field)
    if field == "shape":
        fake = (10**6, 10**6, 16)
    else:
        value = real.dtype.type(10**6 if real.dtype == np.int64 else 1)
        fake = np.broadcast_to(value, tuple(1000 * n for n in real.shape))
    for first in range(4):  # how often it answers as it should
        looks = []

        def look(self):
            looks.append(field)
            return real if len(looks) <= first else fake

        Changing = type("Changing", (type(tape),), {field: property(look)})
        try:
            got = backward(Changing(*tape), output)
        except (TypeError, ValueError):
            pass
        else:
            assert all(a is None or (a == b).all() for a, b in zip(got, want)), field
print("alive")
"""

EVERY = ("x", "w_ih", "w_hh", "b_ih", "output", "lengths")
FIELDS = {
    name: (*EVERY, *cell.kept, *(EXTRAS[extra].argument for extra in cell.extras))
    for name, cell in CELLS.items()
} | {
    "linear": ("x", "weight", "bias", "shape"),
    "embedding": ("indices", "shape"),
}


@pytest.mark.parametrize("module", ["compiled", "reference"])
def test_a_tape_that_changes_between_two_looks(module: str) -> None:
    kinds = {
        kind: (
            RICH[kind].layer_options(64) | {"layer": CELLS[kind].layer.__name__}
            if kind in RICH
            else {},
            fields,
        )
        for kind, fields in FIELDS.items()
    }
    done = script(CHANGING, module, json.dumps(kinds))
    # It says of which it is about to see.
    assert done.returncode == 0, (done.stdout.splitlines()[-1:], done.stderr)
    assert done.stdout.endswith("\nalive\n")
    assert len(done.stdout.splitlines()) == sum(map(len, FIELDS.values())) + 1


@pytest.mark.parametrize("variant", RICH.values(), ids=RICH)
@pytest.mark.quick
def test_the_compiled_side_looks_itself(variant):
    """Another thread may run between the check in Python and the call."""
    x = np.ones((6, 2, 16), np.float32)
    _, _, tape = variant.layer(16, 64, rng=0).forward(x)
    tape = tape.tapes[0]
    number = KINDS[variant.kind].number
    initial = ("x", *(f"{state}_0" for state in variant.cell.states))
    weights = [getattr(tape, name) for name in tape._arguments if name not in initial]

    def forward(x, weights, h_0=None, lengths=None, mask=None, restart=None, output=None):
        arrays = (x, h_0, None, *weights[:4], tuple(weights[4:]))
        call = (number, arrays, lengths, mask, restart, False, None, 0, False, output, None)
        return _core.forward([call], 1)

    forward(x, weights)
    for i, w in enumerate(weights):
        if w is not None:
            wrong = [
                *weights[:i],
                np.ones((*w.shape[:-1], w.shape[-1] + 1), w.dtype),
                *weights[i + 1 :],
            ]
            with pytest.raises(ValueError, match="while it was in use"):
                forward(x, wrong)
    for wrong in (
        {"h_0": np.ones((1, 1), np.float32)},
        {"lengths": np.array([7, 6])},
        {"lengths": np.array([6])},
        {"restart": np.ones((6, 3), bool)},
        {"mask": np.ones((6, 3), bool)},
        {"mask": np.ones((6, 2), np.uint8)},
        {"mask": np.ones((6, 2), bool), "lengths": np.array([6, 6])},
        {"output": np.ones((5, 2, tape.output.shape[2]), np.float32)},
        {"output": np.broadcast_to(np.float32(0), tape.output.shape)},
    ):
        with pytest.raises(ValueError, match="while it was in use"):
            forward(x, weights, **wrong)

    def backward(d=None, d_h=None, wrt=(), into=(), norms=None):
        call = (number, tape, d, d_h, None, frozenset(wrt), dict(into), norms)
        return _core.backward([call], 1)

    good = np.ones_like(tape.output)
    backward(good, wrt=("w_hh",), into={"w_hh": np.empty_like(tape.w_hh)})
    for wrong in (
        {"d": np.ones((6, 3, tape.output.shape[2]), np.float32)},
        {"d": good.astype(np.float64)},
        {"d_h": np.ones((2, 1), np.float32)},
        {"d": good, "wrt": ("w_hh",), "into": {"w_hh": np.empty((2, 2), np.float32)}},
        {"d": good, "wrt": ("x",), "into": {"x": np.empty((6, 2, 1), np.float32)}},
        {"d": good, "wrt": ("x",), "into": {"x": np.broadcast_to(np.float32(0), x.shape)}},
        {"d": good, "norms": np.empty((6, 1))},
        {"d": good, "norms": np.empty((6, 2), np.float32)},
    ):
        with pytest.raises(ValueError, match="while it was in use"):
            backward(**wrong)


def cross_entropy(y, **change):
    given = {"target": np.zeros(4, np.int64), "soft": None, "counts": None, "weights": None}
    given |= {"class_weight": None, "smoothing": 0.0, "scale": 1.0, "d_logits": np.empty_like(y)}
    return _core.cross_entropy(y, **(given | {"losses": np.empty(4), "threads": 1} | change))


def elements(x, **change):
    given = {"loss": "squared", "target": x, "counts": None, "weights": None, "positive": None}
    given |= {"delta": 1.0, "scale": 1.0, "d_input": np.empty(x.shape, x.dtype), "losses": None}
    return _core.element_losses(input=x, **(given | change))


@pytest.mark.quick
def test_the_compiled_side_looks_itself_at_the_other_layers():
    x, w, b, y = (np.ones(s, np.float32) for s in ((4, 3), (2, 3), (2,), (4, 2)))
    _core.linear_forward(x, w, b, y.copy(), 1)
    cross_entropy(y)
    elements(x)
    wide, out = np.ones((2, 4), np.float32), np.empty_like
    calls = [
        lambda: _core.linear_forward(x, wide, b, y, 1),
        lambda: _core.linear_forward(x, w, b[:1], y, 1),
        lambda: _core.linear_forward(x, w, b, y[:3], 1),
        lambda: _core.linear_forward(x.astype(np.int32), w, b, y, 1),
        lambda: _core.linear_backward(x, w, y[:3], out(x), out(w), out(b), 1),
        lambda: _core.linear_backward(x, w, y, x[:3].copy(), out(w), out(b), 1),
        lambda: _core.linear_backward(x, w, y, out(x), wide, out(b), 1),
        lambda: _core.linear_backward(x, w, y, out(x), out(w), b[:1], 1),
        lambda: _core.embedding_backward(np.zeros(5, np.int64), y, out(w), 1),
        lambda: _core.embedding_backward(np.zeros(4, np.int32), y, out(y), 1),
        lambda: _core.embedding_backward(np.zeros(4, np.int64), y, out(y.astype(np.float64)), 1),
        lambda: cross_entropy(y, target=np.zeros(3, np.int64)),
        lambda: cross_entropy(y, target=np.full(4, 2)),
        lambda: cross_entropy(y, target=None, soft=x),
        lambda: cross_entropy(y, target=None, soft=None),
        lambda: cross_entropy(y, counts=np.ones(3, bool)),
        lambda: cross_entropy(y, weights=np.ones(4, np.float32)),
        lambda: cross_entropy(y, class_weight=np.ones(3)),
        lambda: cross_entropy(y, d_logits=out(x)),
        lambda: cross_entropy(y, losses=np.empty(3)),
        lambda: _core.softmax(y, False, out(x), 1),
        lambda: _core.softmax(b, False, out(b), 1),
        lambda: _core.sigmoid(y, out(x)),
        lambda: _core.sigmoid(y, np.empty(y.shape)),
        lambda: elements(x, target=y),
        lambda: elements(x, counts=np.ones(12)),
        lambda: elements(x, weights=np.ones((3, 4), np.float32)),
        lambda: elements(x, positive=np.ones(11)),
        lambda: elements(x, d_input=out(y)),
        lambda: elements(x, losses=np.empty(11)),
        lambda: elements(x.astype(int)),
        lambda: elements(x[:, ::2]),
        lambda: _core.sum_of_squares(x[:, 0]),
        lambda: _core.sum_of_squares(np.ones(3, np.int64)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="while it was in use"):
            call()


def test_a_stream_is_made_once() -> None:
    code = """
import itertools
import numpy as np, fastrnn
cells = (fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU)
for kind, (D, H) in itertools.product(cells, ((600, 700), (2, 700), (600, 3), (2, 3))):
    layer = kind(2, 3, rng=0)
    stream, x = layer.stream(4), np.ones((4, 2), np.float32)
    for again in (stream.__init__, type(stream).__mro__[1].__init__):
        try:
            again(kind(D, H, rng=0), 4)
            print("no error")
        except (TypeError, RuntimeError):
            pass
    for _ in range(20):
        stream.update()
        y = stream.step(x)
    assert (y == layer(np.broadcast_to(x, (20, 4, 2)))[0][-1]).all()
print("alive")
"""
    done = script(code)
    assert done.stdout == "alive\n", (done.stdout, done.stderr)


def test_a_stream_whose_layer_has_other_weights():
    layer = fastrnn.LSTM(2, 3, rng=0)
    stream, x = layer.stream(), np.ones(2, np.float32)
    want = stream.step(x)
    stream.reset()
    for D, H in ((5, 3), (2, 30), (50, 60)):
        others = [cell.layer(2, 3, rng=0) for name, cell in CELLS.items() if name != "lstm"]
        for given in (fastrnn.LSTM(D, H, rng=0), fastrnn.LSTM(2, 3, 2, rng=0), *others):
            with pytest.raises((RuntimeError, ValueError)):
                stream._pack(given.freeze()._packed)
    assert (stream.step(x) == want).all()


def test_arrays_that_another_thread_reshapes():
    """Errors are fine, and results of either shape; nothing else is."""
    layer = fastrnn.RNN(8, 8, rng=0)
    x, stop = np.ones((8, 8, 8), np.float32), threading.Event()
    d = np.ones((8, 8, 8), np.float32)

    def reshape() -> None:
        while not stop.is_set():
            for shape in ((64, 8), (8, 64), (512,), (8, 8, 8)):
                d.shape = shape

    thread = threading.Thread(target=reshape)
    thread.start()
    try:
        for _ in range(300):
            _, _, tape = layer.forward(x)
            with contextlib.suppress(TypeError, ValueError):
                layer.backward(tape, d)
    finally:
        stop.set()
        thread.join()


def test_as_made_is_the_tape_itself():
    x = np.ones((2, 1, 1), np.float32)
    for module in (fastrnn, reference):
        _, _, tape = module.rnn_forward(x, None, x[0], x[0])
        assert fastrnn._tapes.as_made(tape) is tape
        child = type("Child", (type(tape),), {})(*tape)
        assert type(fastrnn._tapes.as_made(child)) is type(tape)
        assert (module.rnn_backward(child, x).x == module.rnn_backward(tape, x).x).all()


# ------------------------------------------------------ what runs in the middle of a call's checks

# Each is what a user's own class may do while an argument is looked at. Prints "alive" where the
# call gives an error or the right result.
IN_THE_MIDDLE = {
    "a string that reshapes x of no steps": """
        x, h_0 = np.empty((0, 1, 2), np.float32), np.ones((1, 3), np.float32)
        nonlinearity = Meddling("tanh", lambda: setattr(x, "shape", (0, 10**7, 2)))
        w = np.ones((3, 2), np.float32), np.ones((3, 3), np.float32)
        fastrnn.rnn_forward(x, h_0, *w, nonlinearity=nonlinearity)
    """,
    "a string that leaves a weight without axes": """
        x, w, u = np.ones((1, 1, 1)), np.ones((1, 1)), np.ones((1, 1))
        nonlinearity = Meddling("tanh", lambda: setattr(w, "shape", ()))
        fastrnn.rnn_forward(x, None, w, u, nonlinearity=nonlinearity)
    """,
    "the same on a tape": """
        x, w, u = np.ones((1, 1, 1)), np.ones((1, 1)), np.ones((1, 1))
        output, _, tape = fastrnn.rnn_forward(x, None, w, u)
        nonlinearity = Meddling("tanh", lambda: setattr(w, "shape", ()))
        fastrnn.rnn_backward(tape._replace(nonlinearity=nonlinearity), output)
    """,
    "a restart that reshapes x of a stream": """
        B = 1000
        stream, x = fastrnn.RNN(1, 1, rng=0).stream(B), np.ones((1, B, 1), np.float32)
        class Restart:
            def __array__(self, *_, **__):
                x.shape = (B, 1, 1)
                return np.zeros((1, B), bool)
        stream.run(x, Restart())
    """,
    "names that write to the indices of a tape": """
        output, tape = fastrnn.embedding_forward(np.zeros(4, int), np.ones((4, 3), np.float32))
        class Names(list):
            def __iter__(self):
                tape.indices.flags.writeable = True
                tape.indices[...] = 10**9
                return list.__iter__(self)
        fastrnn.embedding_backward(tape, output, wrt=Names(["weight"]))
    """,
    "a mask of many steps, while another thread reshapes x": """
        import sys, threading
        T, B, stop = 2000, 500, []
        x, w = np.ones((T, B, 1), np.float32), np.ones((1, 1), np.float32)
        mask = np.random.default_rng(0).random((T, B)) < 0.5
        want, _, tape = fastrnn.rnn_forward(x, None, w, w, mask=mask)
        def reshape():
            turn = 0
            while not stop:
                turn ^= 1
                x.shape = (B, T, 1) if turn else (T, B, 1)
        sys.setswitchinterval(1e-4)
        thread = threading.Thread(target=reshape)
        thread.start()
        try:
            for _ in range(30):
                for call in (
                    lambda: fastrnn.rnn_forward(x, None, w, w, mask=mask, record=False)[0],
                    lambda: fastrnn.rnn_backward(tape, want, wrt=["x"]) and want,
                ):
                    x.shape = T, B, 1
                    try:
                        assert (call() == want).all()
                    except (TypeError, ValueError):
                        pass
        finally:
            stop.append(1)
            thread.join()
    """,
    "a mask that widens the logits": """
        C = 2 * 10**6
        logits = np.zeros((1, C), np.float32)
        class Mask:
            def __array__(self, *_, **__):
                logits.dtype = np.float64
                return np.ones(1, bool)
        fastrnn.softmax_cross_entropy(logits, [C - 1], mask=Mask())
        assert not logits.any()
    """,
    "a generator that gives a list": """
        class Random(np.random.Generator):
            def random(self, n):
                return [0.5] * n
        fastrnn.generate(*network(), [1], 100_000, rng=Random(np.random.PCG64(0)))
    """,
    "a generator that gives one number many times": """
        class Random(np.random.Generator):
            def random(self, n):
                return np.broadcast_to(0.5, (n,))
        fastrnn.generate(*network(), [1], 1_000_000, rng=Random(np.random.PCG64(0)))
    """,
    "a generator that gives too few": """
        class Random(np.random.Generator):
            def random(self, n):
                return np.full(n - 1, 0.5)
        fastrnn.generate(*network(), [1], 8, rng=Random(np.random.PCG64(0)))
    """,
    "an embedding that says it has more rows": """
        class Large(fastrnn.Embedding):
            looks = 0
            def __getattribute__(self, name):
                if name == "num_embeddings":
                    Large.looks += 1
                    if Large.looks == first:
                        return 10**10
                return super().__getattribute__(name)
        first = 0
        large, (_, rnn, head) = Large(5, 3, rng=0), network()
        for first in range(1, 9):
            Large.looks = 0
            try:
                fastrnn.generate(large, rnn, head, [10**9], 8, rng=0)
            except (TypeError, ValueError):
                continue
            raise SystemExit("there is no such row")
    """,
}
MEDDLING = """
import numpy as np, fastrnn

class Meddling(str):
    __hash__ = str.__hash__
    def __new__(cls, text, what):
        self = str.__new__(cls, text)
        self.what = what
        return self
    def __eq__(self, other):
        self.what()
        return str.__eq__(self, other)

def network():
    return fastrnn.Embedding(5, 3, rng=0), fastrnn.RNN(3, 4, rng=0), fastrnn.Linear(4, 5, rng=0)

"""


def test_code_that_runs_in_the_middle_of_a_call() -> None:
    code = MEDDLING
    for what, body in IN_THE_MIDDLE.items():
        # One begins where the one before has left the process alive.
        code += f"print({what!r}, flush=True)\ntry:\n"
        code += textwrap.indent(textwrap.dedent(body), "    ")
        code += "\nexcept (TypeError, ValueError):\n    pass\n"
    done = script(code + 'print("alive")\n', PYTHONWARNINGS="ignore::DeprecationWarning")
    assert done.returncode == 0, (done.stdout.splitlines()[-1:], done.stderr)
    assert done.stdout.splitlines() == [*IN_THE_MIDDLE, "alive"]


def test_the_compiled_side_knows_its_cells():
    x, w = np.ones((2, 1, 1), np.float32), np.ones((4, 1), np.float32)
    arrays = (x, None, None, w, w, None, None, (None, w[:3, 0].copy()))
    others = [number for number, cell in enumerate(_core.CELLS) if cell[0] != "lstm"]
    for kind in (-1, len(_core.CELLS), 99, *others):
        with pytest.raises(ValueError, match="while it was in use"):
            _core.forward([(kind, arrays, None, None, None, False, None, 0, False, None, None)], 1)
