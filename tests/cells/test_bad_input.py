"""Wrong arguments: named, explained, and refused alike by both backends before any work."""

import re

import numpy as np
import pytest
from refusals import giant, refused

import fastrnn
from fastrnn import reference

T, B, D, H = 5, 3, 4, 6
ARRAYS = ("x", "h_0", "w_ih", "w_hh", "b_ih", "b_hh")
RANKS = {"x": (2, 3), "h_0": (2,), "w_ih": (2,), "w_hh": (2,), "b_ih": (1,), "b_hh": (1,)}

every_array = pytest.mark.parametrize("name", ARRAYS)


def forward_refused(arrays, error, *parts):
    refused(((), arrays), error, *parts)


@every_array
@pytest.mark.parametrize("rank", range(6))
def test_ranks(problem, name, rank):
    shape = (2,) * rank
    arrays = problem() | {name: np.zeros(shape)}
    parts = [f"{name} has shape {shape}, expected ("]
    if rank in RANKS[name]:  # the rank is right, the sizes are not: another argument may be blamed
        parts = ["has shape", "expected"]
    forward_refused(arrays, ValueError, *parts)


@every_array
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("change", [-1, 1])
def test_sizes(problem, name, axis, change):
    arrays = problem()
    shape = list(arrays[name].shape)
    if axis >= len(shape):
        axis = len(shape) - 1
    if name == "x" and axis == 0:
        axis = 2  # any T will do
    shape[axis] += change
    forward_refused(arrays | {name: np.zeros(shape)}, ValueError, "has shape", "expected (")


def test_shape_texts(problem):
    def text(name, shape, message):
        forward_refused(problem() | {name: np.zeros(shape)}, ValueError, message)

    text("x", (5, 3, 7), "w_ih has shape (6, 4), expected (H, D) = (6, 7)")
    text("x", (5,), "x has shape (5,), expected (T, B, D), or (T, D) for one sequence")
    text("h_0", (3, 7), "h_0 has shape (3, 7), expected (B, H) = (3, 6)")
    text("w_ih", (7, 4), "w_ih has shape (7, 4), expected (H, D) = (6, 4)")
    text("w_hh", (7, 6), "w_hh has shape (7, 6), expected (H, H) = (6, 6)")
    text("w_hh", (6,), "w_hh has shape (6,), expected (H, H)")
    text("b_ih", (7,), "b_ih has shape (7,), expected (H,) = (6,)")
    text("b_hh", (6, 1), "b_hh has shape (6, 1), expected (H,) = (6,)")
    one = problem()
    one["x"] = one["x"][:, 0]
    forward_refused(one, ValueError, "h_0 has shape (3, 6), expected (H,) = (6,), because x is one")


class Tensor:
    """Looks like an array from a distance."""

    shape = (5, 3, 4)
    dtype = np.dtype(np.float64)


@every_array
@pytest.mark.parametrize(
    ("value", "cure"),
    [
        ([[1.0, 2.0]], "pass np.asarray({}, dtype=np.float64)"),
        ((1.0,), "pass np.asarray({}, dtype=np.float64)"),
        (1.0, ""),
        (np.float64(1.0), ""),
        ("weights", ""),
        ({}, ""),
        (Tensor(), ""),
        (np.ma.masked_array(np.zeros((5, 3, 4))), "{}.filled(0)"),
    ],
    ids=["list", "tuple", "float", "float64", "str", "dict", "Tensor", "masked"],
)
def test_not_an_array(problem, name, value, cure):
    text = f"{name} is a {type(value).__name__}, expected a numpy.ndarray"
    if type(value) in (float, np.float64) and name.startswith("b_"):
        cure = "pass np.full(len(w_ih), {}, np.float64)"
    if not cure:  # none could work
        text += "$"
        with pytest.raises(TypeError, match=text):
            fastrnn.rnn_forward(**problem() | {name: value})
        return
    forward_refused(problem() | {name: value}, TypeError, f"{text}: ", cure.format(name))


@pytest.mark.parametrize("name", ["x", "w_hh"])
def test_what_cannot_be_left_out(problem, name):
    forward_refused(problem() | {name: None}, TypeError, f"{name} is None", "left out")


@every_array
@pytest.mark.parametrize(
    "dtype",
    ["float16", "longdouble", "int64", "uint8", "bool", "complex64", "object", "U3", "M8[s]"],
)
def test_dtypes(problem, name, dtype):
    arrays = problem()
    arrays[name] = np.zeros(arrays[name].shape).astype(dtype)
    given = str(np.dtype(dtype))
    parts = [f"{name} is {given}, "]
    if np.dtype(dtype).kind in "fiubO":
        parts.append(f"pass {name}.astype(np.float64)")
    forward_refused(arrays, TypeError, *parts)


@pytest.mark.parametrize("name", ARRAYS[1:])
def test_mixed_floats(problem, name):
    arrays = problem(dtype=np.float32)
    arrays[name] = arrays[name].astype(np.float64)
    text = f"{name} is float64, x is float32: pass {name}.astype(np.float32)"
    forward_refused(arrays, TypeError, text)
    arrays = problem(dtype=np.float64)
    arrays[name] = arrays[name].astype(np.float32)
    text = f"{name} is float32, x is float64: pass {name}.astype(np.float64)"
    forward_refused(arrays, TypeError, text)


@pytest.mark.parametrize(
    ("lengths", "error", "text"),
    [
        ([5, 3], ValueError, "lengths has shape (2,), expected (B,) = (3,)"),
        (5, ValueError, "lengths has shape (), expected (B,) = (3,)"),
        ([[5, 5, 5]], ValueError, "lengths has shape (1, 3)"),
        ([], ValueError, "lengths has shape (0,)"),
        ([5, 6, 7], ValueError, "lengths[1] is 6, expected 0 <= length <= T = 5"),
        ([5, 0, -1], ValueError, "lengths[2] is -1"),
        (np.array([5, 2**63, 1], np.uint64), ValueError, f"lengths[1] is {2**63}"),
        ([1, 2**70, 1], ValueError, f"lengths[1] is {2**70}"),
        ([[1], [2, 3], 4], ValueError, "lengths is ragged"),
        ([5.0, 3.0, 1.0], TypeError, "lengths holds float64, expected 3 integers between 0 and 5"),
        (np.array([1, 2, 3], np.float32), TypeError, "lengths holds float32"),
        ([True, False, True], TypeError, "lengths holds bool"),
        ([True, 2, 3], TypeError, "lengths holds bool"),
        (["1", "2", "3"], TypeError, "lengths holds"),
        ("123", TypeError, "lengths holds"),
        ({1, 2, 3}, TypeError, "lengths holds object"),
        ([None, 1, 2], TypeError, "lengths holds object"),
        (np.ma.masked_array([1, 2, 3]), TypeError, "lengths is a MaskedArray"),
    ],
)
def test_lengths(problem, lengths, error, text):
    forward_refused(problem() | {"lengths": lengths}, error, text)


@pytest.mark.parametrize(
    ("restart", "error", "text"),
    [
        (np.zeros((5, 4), bool), ValueError, "restart has shape (5, 4), expected (T, B) = (5, 3)"),
        (np.zeros((3, 5), bool), ValueError, "restart has shape (3, 5)"),
        (np.zeros(5, bool), ValueError, "restart has shape (5,)"),
        (True, ValueError, "restart has shape ()"),
        (np.zeros((5, 3)), TypeError, "restart holds float64, expected bool: pass restart.astype"),
        (np.zeros((5, 3), np.int8), TypeError, "restart holds int8"),
        ([[0, 1, 0]] * 5, TypeError, "restart holds int64, expected bool"),
        ([[True], [True, False]], ValueError, "restart is ragged"),
        (np.ma.masked_array(np.zeros((5, 3), bool)), TypeError, "restart is a MaskedArray"),
    ],
)
def test_restart(problem, restart, error, text):
    forward_refused(problem() | {"restart": restart}, error, text)


@pytest.mark.parametrize(
    ("value", "error"),
    [("gelu", ValueError), ("Tanh", ValueError), (0, TypeError), (None, TypeError),
     (["tanh"], TypeError), (np.zeros(3), TypeError)],
)  # fmt: skip
def test_nonlinearity(problem, value, error):
    text = f"nonlinearity is {value!r}, expected 'tanh', 'relu', 'sigmoid', 'identity' or "
    forward_refused(problem() | {"nonlinearity": value}, error, text)


@pytest.mark.parametrize("name", ["reverse", "record", "check"])
@pytest.mark.parametrize("value", [1, 0, None, "yes", np.zeros(2)], ids=repr)
def test_flags(problem, name, value):
    shown = "an ndarray of shape (2,)" if isinstance(value, np.ndarray) else repr(value)
    text = f"{name} is {shown}, expected True or False"
    forward_refused(problem() | {name: value}, TypeError, text)


def test_numpy_flags_will_do(problem):
    options = dict.fromkeys(("reverse", "record", "check"), np.True_)
    for module in (fastrnn, reference):
        assert module.rnn_forward(**problem(), **options)[2].reverse is True


@pytest.mark.parametrize("lengths", [[5, 0, 3], (5, 0, 3), np.array([5, 0, 3], np.uint8),
                                     np.array([5, 0, 3], ">i2"), np.array([5, 9, 0, 9, 3])[::2],
                                     [np.int32(5), 0, 3]])  # fmt: skip
def test_any_integer_sequence_is_lengths(problem, lengths):
    for module in (fastrnn, reference):
        _, _, tape = module.rnn_forward(**problem(), lengths=lengths)
        assert tape.lengths.tolist() == [5, 0, 3]
        assert not np.shares_memory(tape.lengths, lengths)


def test_a_list_of_bools_is_restart(problem):
    for module in (fastrnn, reference):
        _, _, tape = module.rnn_forward(**problem(), restart=[[True, False, True]] * 5)
        assert tape.restart.tolist() == [[True, False, True]] * 5


def test_empty_lists(problem):
    for module in (fastrnn, reference):
        output, _, _ = module.rnn_forward(**problem(B=0), lengths=[])
        assert output.shape == (5, 0, 6)
        one = problem(T=0, B=1)
        one |= {"x": one["x"][:, 0], "h_0": one["h_0"][0]}
        output, h_n, _ = module.rnn_forward(**one, lengths=0, restart=[])
        assert output.shape == (0, 6)
        assert np.array_equal(h_n, one["h_0"])


def test_products_of_sizes_that_overflow(problem):
    # 2^60 bytes of x exist only on paper; T·B·H is 2^63 and more, which would wrap around.
    n = 2**20
    arrays = {"x": giant(n, n, 1), "h_0": None, "w_ih": giant(n, 1), "w_hh": giant(n, n)}
    forward_refused(arrays, ValueError, f"T x B x H = {n} x {n} x {n} elements is larger than")
    # A factor of zero does not hide the others.
    arrays["x"] = giant(0, 2**41, 1)
    forward_refused(arrays, ValueError, f"T x B x H = 0 x {2**41} x {n} elements")


def test_too_large_for_memory():
    # 2^55 bytes of output can be counted, but no machine has them.
    arrays = {"x": giant(2**26, 2**26, 1), "h_0": None, "w_ih": np.ones((1, 1))}
    with pytest.raises(MemoryError):
        fastrnn.rnn_forward(**arrays, w_hh=np.ones((1, 1)), record=False)
    output, _, _ = fastrnn.rnn_forward(np.ones((2, 1, 1)), None, np.eye(1), np.eye(1))
    assert output.shape == (2, 1, 1)


# ------------------------------------------------------------------------------ backward


@pytest.fixture
def tape(problem):
    return fastrnn.rnn_forward(**problem())[2]


def backward_refused(tape, error, *parts, **options):
    refused(((tape,), options), error, *parts, function="rnn_backward")


@pytest.mark.parametrize("name", ["d_output", "d_h_n"])
@pytest.mark.parametrize("rank", range(6))
def test_gradient_ranks(tape, name, rank):
    shape = (2,) * rank
    text = f"{name} has shape {shape}, expected "
    text += "(T, B, H) = (5, 3, 6)" if name == "d_output" else "(B, H) = (3, 6)"
    backward_refused(tape, ValueError, text, **{name: np.zeros(shape)})


@pytest.mark.parametrize("name", ["d_output", "d_h_n"])
def test_gradient_types(tape, name):
    right = np.zeros((5, 3, 6) if name == "d_output" else (3, 6))
    backward_refused(tape, TypeError, f"{name} is a list", **{name: right.tolist()})
    backward_refused(tape, TypeError, f"{name} is a MaskedArray", **{name: np.ma.array(right)})
    text = f"{name} is float32, the tape is float64: pass {name}.astype(np.float64)"
    backward_refused(tape, TypeError, text, **{name: right.astype(np.float32)})
    backward_refused(tape, TypeError, f"{name} is int64, the tape", **{name: right.astype(int)})


def test_gradients_of_one_sequence(problem):
    arrays = problem()
    arrays |= {"x": arrays["x"][:, 0], "h_0": None}
    _, _, tape = fastrnn.rnn_forward(**arrays)
    text = "d_output has shape (5, 1, 6), expected (T, H) = (5, 6)"
    backward_refused(tape, ValueError, text, d_output=np.zeros((5, 1, 6)))
    text = "d_h_n has shape (1, 6), expected (H,) = (6,)"
    backward_refused(tape, ValueError, text, d_h_n=np.zeros((1, 6)))


def test_no_gradient(tape):
    backward_refused(tape, ValueError, "d_output and d_h_n are None")


@pytest.mark.parametrize("value", ["x", 3, True], ids=repr)
def test_wrt_is_no_collection(tape, value):
    text = f"wrt is {value!r}, expected a collection of names out of 'x', 'h_0', 'w_ih', 'w_hh'"
    backward_refused(tape, TypeError, text, wrt=value, d_h_n=np.zeros((3, 6)))


@pytest.mark.parametrize("value", [["weights"], {"x", "c_0"}, [1], [None], [[]]], ids=repr)
def test_wrt_holds_other_names(tape, value):
    backward_refused(
        tape, ValueError, "wrt holds", "'b_ih', 'b_hh'", wrt=value, d_h_n=np.zeros((3, 6))
    )


class LSTMTape:
    """Stands for the tape of another cell."""


@pytest.mark.parametrize("value", [None, LSTMTape(), (1, 2), np.zeros(3)], ids=repr)
def test_no_tape(value):
    given = {
        type(None): "None (was it made with record=False?)", LSTMTape: "an LSTMTape",
        tuple: "a tuple", np.ndarray: "an ndarray",
    }[type(value)]  # fmt: skip
    text = f"tape is {given}, expected the RNNTape that rnn_forward returns"
    backward_refused(value, TypeError, text, d_h_n=np.zeros((3, 6)))


def test_the_cause_is_named_first_in_the_signature(problem):
    # Several errors at once: types come before shapes, and both in the order of the arguments.
    arrays = problem() | {"w_ih": np.zeros((1, 1)), "b_hh": [0.0]}
    forward_refused(arrays, TypeError, "b_hh is a list")
    assert re.match("x is", _text(problem() | {"x": 1, "h_0": 2}))


def _text(arrays):
    with pytest.raises(TypeError) as caught:
        fastrnn.rnn_forward(**arrays)
    return str(caught.value)
