"""Streams: what they refuse, and threads, signals and processes around them.

A call that is refused or cut off leaves the state as it was.
"""

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from marks import each_name
from registry import VARIANTS
from stream_layers import (
    assert_same_state,
    draw,
    draw_state,
    in_pieces,
    make,
)

import fastrnn
from fastrnn import _core
from fastrnn.layers.stream import Stream

pytestmark = pytest.mark.usefixtures("one_thread")  # but where a test sets another number

B, D, H, P = 4, 3, 5, 2
T = 6


def f32(*shape: int) -> Array:
    return np.ones(shape, np.float32)


# ------------------------------------------------------------------------------------ bad input

# Of an LSTM with a projection, in two layers.
BAD_ARRAYS: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "is None, expected a numpy.ndarray"),
    (3.0, TypeError, "is a float, expected a numpy.ndarray"),
    (np.float32(3), TypeError, "is a float32, expected a numpy.ndarray"),
    ([[1.0] * 3] * 4, TypeError, "is a list, expected a numpy.ndarray"),
    (np.ma.masked_array(f32(B, D)), TypeError, "is a MaskedArray"),
    (np.ones((B, D)), TypeError, r"is float64, the layer is float32: pass .*astype"),
    (np.ones((B, D), np.float16), TypeError, "is float16, the layer is float32"),
    (np.ones((B, D), int), TypeError, "is int64, the layer is float32"),
    (np.ones((B, D), np.complex64), TypeError, "is complex64, the layer is float32"),
    (np.full((B, D), "x"), TypeError, "is <U1"),
]

BAD_STEP: list[tuple[dict[str, Any], type[Exception], str]] = [
    *(({"x_t": value}, kind, f"^x_t {text}") for value, kind, text in BAD_ARRAYS),
    *(
        ({"x_t": f32(*shape)}, ValueError, rf"^x_t has shape .*, expected \(B, D\) = \({B}, {D}\)")
        for shape in ((), (D,), (B,), (B, D + 1), (B - 1, D), (1, D), (D, B), (1, B, D), (B, D, 1))
    ),
    ({"restart": 1}, TypeError, "^restart holds int64, expected bool"),
    ({"restart": 0.0}, TypeError, "^restart holds float64, expected bool"),
    ({"restart": "yes"}, TypeError, "^restart holds <U3, expected bool"),
    ({"restart": np.ones(B, int)}, TypeError, "^restart holds int64, expected bool"),
    ({"restart": [True, [False]]}, ValueError, "^restart is ragged"),
    ({"restart": np.ma.masked_array([True] * B)}, TypeError, "^restart is a MaskedArray"),
    *(
        ({"restart": value}, ValueError, rf"^restart has shape .*, expected \(B,\) = \({B},\)")
        for value in ([True], [], np.array(True), np.ones(B + 1, bool), np.ones((1, B), bool))
    ),
    ({"out": [[0.0] * P] * B}, TypeError, "^out is a list, expected a numpy.ndarray"),
    ({"out": 0}, TypeError, "^out is an int, expected a numpy.ndarray"),
    ({"out": False}, TypeError, "^out is a bool, expected a numpy.ndarray"),
    ({"out": np.zeros((B, P))}, TypeError, "^out is float64, the layer is float32"),
    ({"out": np.zeros((B, P), int)}, TypeError, "^out is int64"),
    ({"out": np.ma.masked_array(f32(B, P))}, TypeError, "^out is a MaskedArray"),
    *(
        ({"out": f32(*shape)}, ValueError, rf"^out has shape .*, expected \(B, P\) = \({B}, {P}\)")
        for shape in ((), (P,), (B, H), (B + 1, P), (P, B), (1, B, P))
    ),
    ({"out": f32(P, B).T}, ValueError, "^out is not C-contiguous"),
    ({"out": f32(B, 2 * P)[:, :P]}, ValueError, "^out is not C-contiguous"),
    ({"out": np.broadcast_to(np.float32(0), (B, P))}, ValueError, "^out is read-only"),
    ({"out": f32(B, P).astype(">f4")}, ValueError, "^out is not in native byte order"),
    ({"out": np.zeros(B * P * 4 + 1, np.uint8)[1:].view(np.float32).reshape(B, P)},
     ValueError, "^out is not C-contiguous and aligned"),
    ({"out": f32(B, P).view(type("Other", (np.ndarray,), {}))},
     TypeError, "^out is an Other, expected a numpy.ndarray"),
]  # fmt: skip

BAD_RUN: list[tuple[dict[str, Any], type[Exception], str]] = [
    *(({"x": value}, kind, f"^x {text}") for value, kind, text in BAD_ARRAYS),
    *(
        (
            {"x": f32(*shape)},
            ValueError,
            rf"^x has shape .*, expected \(T, B, D\) = \(T, {B}, {D}\)",
        )
        for shape in ((T, D), (B, D), (T, B + 1, D), (T, B, D - 1), (T, 1, D), (B, T, D))
    ),
    *(({"x": f32(*shape)}, ValueError, "^x has shape") for shape in ((), (D,), (T, B, D, 1))),
    ({"restart": True}, ValueError, r"^restart has shape \(\), expected \(T, B\)"),
    ({"restart": np.ones((T, B))}, TypeError, "^restart holds float64, expected bool"),
    ({"restart": [[True] * B]}, ValueError, r"^restart has shape .* = \(6, 4\)"),
    ({"restart": np.ones((B, T), bool)}, ValueError, r"^restart has shape .* = \(6, 4\)"),
    ({"restart": np.ones(T, bool)}, ValueError, r"^restart has shape .* = \(6, 4\)"),
]

BAD_STATE: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "^state is None, expected a pair of arrays"),
    (f32(2, B, P), TypeError, "^state is an ndarray, expected a pair of arrays"),
    (0, TypeError, "^state is an int, expected a pair of arrays"),
    ((f32(2, B, P),), ValueError, "^state has 1 element, expected a pair of arrays"),
    ((f32(2, B, P), f32(2, B, H), 0), ValueError, "^state has 3 elements"),
    ((f32(2, B, H), f32(2, B, H)), ValueError, r"^state\[0\] has shape .* = \(2, 4, 2\)"),
    ((f32(2, B, P), f32(2, B, P)), ValueError, r"^state\[1\] has shape .* = \(2, 4, 5\)"),
    ((f32(1, B, P), f32(1, B, H)), ValueError, r"^state\[0\] has shape .* = \(2, 4, 2\)"),
    ((f32(2, B, P), f32(1, B, H)), ValueError, r"^state\[1\] has shape .* = \(2, 4, 5\)"),
    ((f32(2, 1, P), f32(2, 1, H)), ValueError, r"^state\[0\] has shape .* = \(2, 4, 2\)"),
    ((f32(2, P), f32(2, H)), ValueError, r"^state\[0\] has shape .* = \(2, 4, 2\)"),
    ((f32(2, B, P), None), TypeError, r"^state\[1\] is None, expected a numpy.ndarray"),
    ((f32(2, B, P), np.ones((2, B, H))), TypeError, r"^state\[1\] is float64, the layer is"),
    (([[0.0]], f32(2, B, H)), TypeError, r"^state\[0\] is a list, expected a numpy.ndarray"),
]

BAD_ROWS: list[tuple[Any, type[Exception]]] = [
    *((rows, IndexError) for rows in (B, -B - 1, [0, B], [True], [0.0], 1.0, "a", {}, (0, 1))),
    *((rows, TypeError) for rows in (True, np.bool_(False), slice("a"))),
    ([[0], [1, 2]], ValueError),
    (np.ones((B, P), bool), IndexError),
    (np.ones(B + 1, bool), IndexError),
]


def stream_of(kind: str = "lstm", batch: int = B, layers: int = 2, **options: Any) -> Any:
    """A stream that has taken some steps."""
    if kind == "lstm":
        options["proj_size"] = P
    layer = make(kind, D, H, layers, **options)
    stream = layer.stream(batch)
    stream.state = draw_state(layer, batch)
    return stream


class Refused:
    """with Refused(stream, kind, text): the error, and the state is as before."""

    def __init__(self, stream: Any, kind: type[Exception], text: str) -> None:
        self.stream, self.before = stream, stream.state
        self.raises = pytest.raises(kind, match=text)

    def __enter__(self) -> None:
        self.raises.__enter__()

    def __exit__(self, *error: Any) -> Any:
        suppress = self.raises.__exit__(*error)
        assert_same_state(self.stream.state, self.before, "after an error")
        return suppress


@pytest.mark.parametrize(("changed", "kind", "text"), BAD_STEP)
def test_bad_arguments_of_step(changed: dict[str, Any], kind: Any, text: str) -> None:
    stream = stream_of()
    out = np.full((B, P), 7, np.float32)
    arguments = {"x_t": f32(B, D), "restart": None, "out": out, **changed}
    stream.step(f32(B, D), out=out.copy())
    with Refused(stream, kind, text):
        stream.step(**arguments)
    assert (out == 7).all()


@pytest.mark.parametrize(("changed", "kind", "text"), BAD_RUN)
def test_bad_arguments_of_run(changed: dict[str, Any], kind: Any, text: str) -> None:
    stream = stream_of()
    with Refused(stream, kind, text):
        stream.run(**{"x": f32(T, B, D), "restart": None, **changed})


@pytest.mark.parametrize(("value", "kind", "text"), BAD_STATE)
def test_a_bad_state_of_an_lstm(value: Any, kind: Any, text: str) -> None:
    stream = stream_of()
    with Refused(stream, kind, text):
        stream.state = value


@pytest.mark.parametrize("cell", [n for n, v in VARIANTS.items() if v.cell.states == ("h",)])
def test_a_bad_state_of_one_array(cell: str) -> None:
    stream = stream_of(cell)
    shape = r"^state has shape .*, expected \(layers·directions, B, H\) = \(2, 4, 5\)"
    for value, kind, text in (
        (None, TypeError, "^state is None, expected a numpy.ndarray"),
        ((f32(2, B, H),) * 2, TypeError, "^state is a tuple, expected a numpy.ndarray"),
        ([f32(2, B, H)], TypeError, "^state is a list, expected a numpy.ndarray"),
        (np.ones((2, B, H)), TypeError, "^state is float64, the layer is float32"),
        (f32(1, B, H), ValueError, shape),
        (f32(2, B + 1, H), ValueError, shape),
        (f32(2, B, H, 1), ValueError, shape),
        (f32(B, H), ValueError, shape),
        (f32(1), ValueError, shape),
    ):
        with Refused(stream, kind, text):
            stream.state = value


@pytest.mark.parametrize(("rows", "kind"), BAD_ROWS, ids=str)
def test_bad_rows_of_reset(rows: Any, kind: Any) -> None:
    stream = stream_of()
    with Refused(stream, kind, f"^rows does not index a batch of {B}: "):
        stream.reset(rows)


def test_one_sequence_has_a_batch_of_one() -> None:
    stream = stream_of(batch=1)
    x, out = f32(D), f32(P)
    for arguments, text in (
        ({"x_t": f32(D + 1)}, rf"^x_t has shape \(4,\), expected \(D,\) = \({D},\)"),
        ({"x_t": f32(2, D)}, rf"^x_t has shape \(2, 3\), expected \(B, D\) = \(1, {D}\)"),
        ({"x_t": x, "out": f32(1, P)}, rf"^out has shape \(1, 2\), expected \(P,\) = \({P},\)"),
        ({"x_t": x[None], "out": out}, rf"^out has shape \(2,\), expected \(B, P\) = \(1, {P}\)"),
        ({"x_t": x, "restart": [True, True]}, r"^restart has shape \(2,\), expected \(B,\) = \(1,"),
    ):
        with Refused(stream, ValueError, text):
            stream.step(**arguments)
    for x, restart, text in (
        (f32(T, D + 1), None, r"^x has shape \(6, 4\), expected \(T, D\) = \(T, 3\)"),
        (f32(T, D), np.ones((T, 1), bool), r"^restart has shape \(6, 1\), expected \(T,\) = \(6,"),
        (f32(T, 1, D), np.ones(T, bool), r"^restart has shape \(6,\), expected \(T, B\)"),
    ):
        with Refused(stream, ValueError, text):
            stream.run(x, restart)


def test_batch_first_errors_name_the_axes_as_they_are() -> None:
    stream = stream_of(batch_first=True)
    with Refused(stream, ValueError, r"^x has shape .*, expected \(B, T, D\) = \(4, T, 3\)"):
        stream.run(f32(T, B, D))
    with Refused(stream, ValueError, r"^restart has shape .*, expected \(B, T\) = \(4, 6\)"):
        stream.run(f32(B, T, D), np.ones((T, B), bool))


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (-1, ValueError, "^batch_size is -1, expected at least 0"),
        (1.0, TypeError, "^batch_size is 1.0, expected an integer"),
        (True, TypeError, "^batch_size is True, expected an integer"),
        (None, TypeError, "^batch_size is None, expected an integer"),
        ("1", TypeError, "^batch_size is '1', expected an integer"),
        (2**62, ValueError, "larger than the address space"),
        (10**30, ValueError, "larger than the address space"),
    ],
)
def test_a_bad_batch_size(value: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        make("gru", D, H).stream(value)
    with pytest.raises(kind, match=text):
        make("gru", D, H).stream(batch_size=value)


def test_a_batch_or_a_sequence_too_large_for_memory() -> None:
    with pytest.raises(MemoryError):
        make("gru", D, H).stream(2**50)
    stream = stream_of("gru", batch=1, layers=1)
    x = np.broadcast_to(f32(1), (2**45, D))
    with Refused(stream, MemoryError, "allocate"):
        stream.run(x)
    with Refused(stream, ValueError, "larger than the address space"):
        stream.run(np.broadcast_to(f32(1), (2**58, D)))


@each_name
def test_a_bidirectional_layer_has_no_stream(kind: str) -> None:
    layer = make(kind, D, H, bidirectional=True)
    with pytest.raises(ValueError, match=f"^{type(layer).__name__} is bidirectional: its output"):
        layer.stream()


# ------------------------------------------------- what C is handed, whatever attributes say


def test_attributes_of_the_layer_are_not_believed() -> None:
    layer = make("lstm", 300, 8, 3)
    x = draw(layer, T, 4, 300)
    want, final = layer(x)
    stream = layer.stream(4)
    vars(layer).update(num_layers=1, input_size=1, hidden_size=2)  # past what refuses it
    assert_same(stream.run(x), want, "other attributes")
    assert_same_state(stream.state, final)
    for use in (lambda: stream.step(f32(4, 1)), lambda: stream.run(f32(T, 4, 1))):
        with Refused(stream, ValueError, "has shape"):
            use()
    stream.update()
    stream.reset()
    assert_same(stream.run(x), want, "and updated")


def test_a_layer_of_one_direction_less_is_made_as_it_lies() -> None:
    layer = make("tanh", 5, 5, bidirectional=True)
    vars(layer)["bidirectional"] = (
        False  # past what refuses it: two cells, of which the second could follow the first
    )
    assert layer.stream(2).run(f32(T, 2, 5)).shape == (T, 2, 5)


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # from NumPy 2.5 on
def test_update_looks_at_the_weights() -> None:
    def in_place(name: str, **values: Any) -> Any:
        def change(layer: Any) -> None:
            for attribute, value in values.items():
                setattr(layer.weights[name], attribute, value)

        return change

    def become(**options: Any) -> Any:
        def change(layer: Any) -> None:
            vars(layer).update(vars(make("lstm", **{"D": D, "H": H, "layers": 2, **options})))

        return change

    for change in (
        in_place("weight_ih_l0", shape=(D, 4 * H)),
        in_place("weight_hh_l1", shape=(4 * H * H,)),
        in_place("bias_hh_l1", shape=(2, 2 * H)),
        in_place("weight_ih_l0", dtype=np.int32),
        become(dtype=np.float64),
        become(layers=3),
        become(layers=1),
        become(H=H + 1),
        become(D=D + 1),
        become(bias=False),
        become(proj_size=2),
        become(peephole=True),
    ):
        layer = make("lstm", D, H, 2)
        x = draw(layer, T, B, D)
        want, final = layer(x)
        stream = layer.stream(B)
        first = stream.run(x[:2])
        change(layer)
        with Refused(stream, Exception, "w_|b_|other shapes"):
            stream.update()
        second = in_pieces(stream, x[2:], None, (2,), 2)
        assert_same(np.concatenate([first, second]), want, "the weights that it had")
        assert_same_state(stream.state, final)


def test_a_stream_that_was_never_made() -> None:
    for cls in (fastrnn.layers.stream.Stream, _core.StreamCore):
        stream = cls.__new__(cls)
        for use in (
            lambda s=stream: s.step(f32(B, D)),
            lambda s=stream: s.step(f32(0, 0)),
            lambda s=stream: s.run(f32(T, B, D)),
            lambda s=stream: s.state,
            lambda s=stream: s.reset(),
            lambda s=stream: s.update(),
        ):
            with pytest.raises((AttributeError, TypeError, RuntimeError)):
                use()


# ------------------------------------------------------------------- threads, signals, processes


def test_two_threads_on_one_stream() -> None:
    # Each step is of milliseconds, without the GIL. What is not refused counts, once.
    layer, B, each = make("lstm", 60, 128, 2), 33, 40
    x = np.full((B, 60), 0.1, np.float32)
    stream = layer.stream(B)
    refused, done = [], []
    start = threading.Barrier(3)

    def work() -> None:
        start.wait()
        for _ in range(each):
            try:
                done.append(stream.step(x))
            except RuntimeError as error:
                refused.append(str(error))
            for use in (lambda: stream.state, stream.reset, stream.update):
                if use == stream.reset:
                    continue  # it would change the state
                try:
                    use()
                except RuntimeError as error:
                    refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused
    assert set(refused) == {_core.STREAM_BUSY}
    with fastrnn.num_threads(1):
        output, final = layer(np.broadcast_to(x, (len(done), B, 60)))
    assert_same_state(stream.state, final, f"{len(done)} steps")
    assert {y.tobytes() for y in done} == {y.tobytes() for y in output}


def test_streams_of_one_layer_in_several_threads() -> None:
    layer = make("gru", 20, 100, 2)
    x = draw(layer, 40, 9, 20)
    want, _ = layer(x)
    got: list[Array] = []

    def work() -> None:
        stream = layer.stream(9)
        got.append(in_pieces(stream, x, None, (3, 20, 21), 2))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    for y in got:
        assert_same(y, want, "one of four threads")


@pytest.fixture
def sigint() -> Any:
    """Sets the handler of Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("layers", [1, 40])
def test_control_c_leaves_the_state_as_it_was(layers: int) -> None:
    # Of 40 layers it comes where some of them have already written their new state.
    fastrnn.set_isa("generic")
    layer = make("lstm", 3, 128, layers, np.float64)
    x = draw(layer, 12_000 // layers, 16, 3)
    stream = layer.stream(16)
    stream.run(x[:2])
    before = stream.state
    timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        stream.run(x)
    timer.join()
    assert_same_state(stream.state, before)
    assert_same(stream.run(x[2:4]), layer(x[:4])[0][2:], "it goes on")


def test_a_handler_cannot_use_a_stream_in_use(sigint: Any) -> None:
    layer = make("gru", 20, 200, 2)
    x = draw(layer, 600, 33, 20)
    want, final = layer(x)
    stream = layer.stream(33)
    said = []

    def assign() -> None:
        stream.state = final

    def said_by(use: Any) -> str:
        try:
            use()
        except RuntimeError as error:
            return str(error)
        return ""

    def handler(number: int, frame: Any) -> None:
        if not said_by(lambda: stream.state):
            return  # it came before the run began, or after it
        uses = (lambda: stream.step(x[0]), lambda: stream.run(x[:1]), assign, stream.reset,
                lambda: stream.reset([]), stream.update)  # fmt: skip
        said.extend(said_by(use) for use in uses)

    sigint(handler)
    for _ in range(50):
        stream.reset()
        timer = threading.Timer(0.005, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        got = stream.run(x)
        timer.join()
        assert_same(got, want, "the run goes on")
        assert_same_state(stream.state, final)
        if said:
            break
    assert said == [_core.STREAM_BUSY] * 6


def test_streams_are_neither_copied_nor_pickled() -> None:
    stream = make("lstm", 3, 9).stream()
    for make_copy in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="stream cannot be copied or pickled"):
            make_copy(stream)


def test_repr() -> None:
    layer = fastrnn.LSTM(3, 4, 2, proj_size=2)
    assert repr(layer.stream(5)) == "Stream(LSTM(3, 4, num_layers=2, proj_size=2), batch_size=5)"
    assert repr(fastrnn.GRU(3, 4).stream()) == "Stream(GRU(3, 4), batch_size=1)"


DEVELOPMENT = """
import gc
import numpy as np, fastrnn
for layer in (fastrnn.RNN(3, 5, 2), fastrnn.LSTM(3, 5, 2, proj_size=2, dropout=0.5),
              fastrnn.GRU(3, 5, reset_after=False)):
    stream = layer.stream(2)
    x = np.ones((4, 2, 3), np.float32)
    stream.step(x[0], restart=True, out=stream.step(x[1]))
    stream.run(x, np.ones((4, 2), bool))
    stream.state = stream.state
    stream.reset([1])
    stream.update()
    for wrong in (lambda: stream.step(None), lambda: stream.run(x[0]), lambda: stream.reset(7)):
        try:
            wrong()
        except (TypeError, ValueError, IndexError):
            continue
        raise AssertionError
    del layer, stream
    gc.collect()
"""


def test_no_warnings_in_development_mode() -> None:
    arguments = [sys.executable, "-X", "dev", "-W", "error", "-c", DEVELOPMENT]
    done = subprocess.run(arguments, capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_has_no_stream_is_named() -> None:
    for layer in (None, fastrnn.GRU, fastrnn.Linear(3, 4), fastrnn.Linear(3, 4).freeze()):
        with pytest.raises(TypeError, match=r"^layer is .*, expected an RNN, LSTM, GRU or Leaky"):
            Stream(layer)
