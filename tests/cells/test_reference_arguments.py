"""The arguments and the tapes of the reference's cells: checked, kept as they are, not believed."""

import copy
import pickle

import numpy as np
import pytest
from marks import each_variant
from reference_cells import LENGTHS, MASK, RESTART
from registry import GATED, VARIANTS

from fastrnn import reference
from fastrnn._checks import listed
from fastrnn.reference.arguments import backward_arguments, forward_arguments, is_whole
from fastrnn.reference.cells import CELLS

# ------------------------------------------------------------------------------ tapes, wrt


@each_variant
def test_wrt_chooses(variant):
    arrays = variant.arrays()
    output, _, tape = variant.forward(**arrays)
    grads = variant.backward(tape, output)
    assert {k for k, g in grads._asdict().items() if g is not None} == set(arrays)
    for name in arrays:
        only = variant.backward(tape, output, wrt=[name])._asdict()
        assert np.array_equal(only.pop(name), getattr(grads, name))
        assert set(only.values()) == {None}
    assert set(variant.backward(tape, output, wrt=())) == {None}


@each_variant
def test_the_tape(variant):
    arrays = variant.arrays()
    output, states, tape = variant.forward(**arrays, lengths=LENGTHS, reverse=True)
    with pytest.raises(AttributeError):
        tape.x = None
    before = variant.backward(tape, output)
    for again in (pickle.loads(pickle.dumps(tape)), copy.deepcopy(tape), tape):
        assert type(again) is type(tape)
        grads = variant.backward(again, output)
        assert all(
            np.array_equal(a, b) for a, b in zip(before, grads, strict=True) if a is not None
        )
    assert tape == tape
    assert tape != variant.forward(**arrays)[2]
    assert tape._absent() == set(tape._arguments) - set(arrays)
    initial = {f"{state}_0" for state in variant.cell.states}
    kept = {name for name in ("c", "gates") if getattr(tape, name, None) is not None}
    assert set(tape._shared()) == arrays.keys() - initial | {"output"} | kept
    for state, name in zip(states, variant.cell.states, strict=True):
        assert not np.shares_memory(getattr(tape, f"{name}_0"), arrays[f"{name}_0"])
        assert not any(np.shares_memory(state, a) for a in (output, getattr(tape, "c", output)))
    assert variant.forward(**arrays, record=False)[2] is None


def test_tapes_describe_themselves(problem):
    lengths = {"lengths": LENGTHS, "reverse": True}
    texts = [
        repr(variant.forward(**variant.arrays(), **lengths)[2]) for variant in VARIANTS.values()
    ]
    sizes = "T=5, B=3, D=2, H=3"
    expected = [
        f"RNNTape({sizes}, float64, 'tanh', reverse, lengths)",
        f"RNNTape({sizes}, float64, 'sigmoid', reverse, lengths)",
        f"RNNTape({sizes}, float64, 'identity', reverse, lengths)",
        f"RNNTape({sizes}, float64, 'hard_sigmoid', reverse, lengths)",
        f"RNNTape({sizes}, float64, 'relu', reverse, lengths)",
        f"LSTMTape({sizes}, float64, reverse, lengths)",
        f"LSTMTape({sizes}, P=2, float64, reverse, lengths)",
        f"LSTMTape({sizes}, float64, peepholes, reverse, lengths)",
        f"LSTMTape({sizes}, P=2, float64, peepholes, reverse, lengths)",
        f"GRUTape({sizes}, float64, reverse, lengths)",
        f"GRUTape({sizes}, float64, reset_after=False, reverse, lengths)",
    ]
    assert texts[: len(expected)] == expected
    for variant, text in zip(VARIANTS.values(), texts, strict=True):
        assert text.startswith(f"{variant.cell.layer.__name__}Tape({sizes}, ")
        assert text.endswith("reverse, lengths)")


@each_variant
def test_a_checking_tape_notices_a_change(variant):
    arrays = variant.arrays()
    output, _, tape = variant.forward(**arrays, check=True)
    d_output = np.ones_like(output)
    variant.backward(tape, d_output)
    for name in tape._shared():
        array = getattr(tape, name)
        first = array.flat[0]
        array.flat[0] += 1
        for function in (variant.backward, reference.gradient_norms):
            with pytest.raises(RuntimeError, match=f"{name} was changed between"):
                function(tape, d_output)
        array.flat[0] = first
    variant.backward(tape, d_output)


@each_variant
def test_a_tape_is_not_believed(variant):
    _, states, tape = variant.forward(**variant.arrays(), lengths=LENGTHS, restart=RESTART)
    d_states = [np.ones_like(state) for state in states]
    arrays = [name for name in tape._fields if isinstance(getattr(tape, name), np.ndarray)]
    assert {"x", "w_hh", "output", "lengths", "restart"} <= set(arrays)
    for name in arrays:
        a = getattr(tape, name)
        wrong = [a.reshape(-1, 1, 1, 1), a[:-1], a.astype(np.float32), a.astype(np.float16)]
        wrong += [a.astype(a.dtype.newbyteorder())] if a.itemsize > 1 else []
        wrong += [np.repeat(a, 2, axis=-1)[..., ::2]] if a.shape[-1] > 1 else []
        for other in wrong:
            with pytest.raises(ValueError, match="another shape or dtype in place"):
                variant.backward(tape._replace(**{name: other}), None, d_states)
    for lengths in ([5, 0, 6], [5, -1, 3]):
        with pytest.raises(ValueError, match="another shape or dtype in place"):
            variant.backward(tape._replace(lengths=np.array(lengths)), None, d_states)
    for name in ("c", "gates"):
        if getattr(tape, name, None) is not None:
            with pytest.raises(ValueError, match="another shape or dtype in place"):
                variant.backward(tape._replace(**{name: None}), None, d_states)
    if "projection" in variant.extras:
        with pytest.raises(ValueError, match="another shape or dtype in place"):
            variant.backward(tape._replace(w_hr=None), None, d_states)
    variant.backward(tape, None, d_states)


@each_variant
def test_another_cells_tape(variant):
    name = f"{variant.cell.name}_forward"
    kind = f"{variant.cell.layer.__name__}Tape"
    for other in VARIANTS.values():
        output, _, tape = other.forward(**other.arrays(), record=True)
        if other.cell != variant.cell:
            text = f"tape is an? {type(tape).__name__}, expected the {kind} that {name} returns"
            with pytest.raises(TypeError, match=text):
                variant.backward(tape, output)


# ------------------------------------------------------------------------------ arguments


@each_variant
def test_arguments_that_will_do_are_not_copied(variant):
    arrays = variant.arrays()
    spec = CELLS[variant.cell.name].CELL
    names = ("x", "h_0", "c_0", "w_ih", "w_hh", "b_ih", "b_hh", *(e.name for e in spec.extras))
    values = [arrays.get(name) for name in names]
    arguments = (*values[:7], tuple(values[7:]))
    got = forward_arguments(spec, arguments, LENGTHS, None, RESTART)
    for a, given in zip((*got.arrays[:7], *got.arrays[7]), values, strict=True):
        assert a is given
    assert got.lengths.tolist() == LENGTHS
    assert got.restart is not RESTART
    assert np.array_equal(got.restart, RESTART)
    assert got.unbatched is False
    got = forward_arguments(spec, arguments, LENGTHS, MASK)
    assert got.lengths is None
    assert got.mask is not MASK
    assert np.array_equal(got.mask, MASK & (np.arange(5)[:, None] < LENGTHS))


def refused(variant, arrays, error, *parts, **options):
    with pytest.raises(error) as caught:
        variant.forward(**arrays, **options)
    assert type(caught.value) is error
    for part in parts:
        assert part in str(caught.value), caught.value


ELMAN = VARIANTS["tanh"]
LSTM = VARIANTS["lstm"]
GRU = VARIANTS["gru"]
PROJECTION, PEEPHOLES = VARIANTS["lstm-projection"], VARIANTS["lstm-projection-peepholes"]

gated = pytest.mark.parametrize("variant", [VARIANTS[name] for name in GATED], ids=GATED)


@gated
def test_what_is_not_an_array_of_one_type(variant):
    arrays = variant.arrays()
    for name, a in arrays.items():
        text = f"{name} is a list, expected a numpy.ndarray: pass np.asarray({name}"
        refused(variant, arrays | {name: a.tolist()}, TypeError, text)
        refused(variant, arrays | {name: np.ma.array(a)}, TypeError, f"{name} is a MaskedArray")
        refused(variant, arrays | {name: a.astype(int)}, TypeError, f"{name} is int64, ")
        if name != "x":
            text = f"{name} is float32, x is float64: pass {name}.astype(np.float64)"
            refused(variant, arrays | {name: a.astype(np.float32)}, TypeError, text)
    for name in ("x", "w_hh", *variant.cell.required):
        text = f"{name} is None, expected a numpy.ndarray: it cannot be left out"
        refused(variant, arrays | {name: None}, TypeError, text)


@gated
def test_shapes_that_do_not_fit(variant):
    arrays = variant.arrays()
    for name, a in arrays.items():
        for rank in range(5):
            may_be_number = rank == 0 and name in variant.cell.required
            if rank != a.ndim and (name, rank) != ("x", 2) and not may_be_number:
                shape = (2,) * rank
                text = f"{name} has shape {shape}, expected ("
                refused(variant, arrays | {name: np.zeros(shape)}, ValueError, text)
        for axis in range(a.ndim):
            for change in (-1, 1):
                shape = list(a.shape)
                shape[axis] += change
                if (name, axis) != ("x", 0):  # any T will do
                    other = arrays | {name: np.zeros(shape)}
                    refused(variant, other, ValueError, " has shape (", ", expected (")


def test_shape_texts():
    def text(variant, name, shape, message):
        refused(variant, variant.arrays() | {name: np.zeros(shape)}, ValueError, message)

    text(LSTM, "x", (5, 3, 7), "w_ih has shape (12, 2), expected (4·H, D) = (12, 7)")
    text(LSTM, "h_0", (3, 4), "h_0 has shape (3, 4), expected (B, H) = (3, 3)")
    text(LSTM, "c_0", (3,), "c_0 has shape (3,), expected (B, H) = (3, 3)")
    text(LSTM, "w_ih", (3, 2), "w_ih has shape (3, 2), expected (4·H, D) = (12, 2)")
    text(LSTM, "w_hh", (9, 3), "w_hh has shape (9, 3), expected (4·H, H) = (12, 3)")
    text(LSTM, "w_hh", (13, 3), "w_hh has shape (13, 3), expected (4·H, H) = (12, 3)")
    text(LSTM, "w_hh", (12,), "w_hh has shape (12,), expected (4·H, H)")
    text(LSTM, "b_ih", (3,), "b_ih has shape (3,), expected (4·H,) = (12,)")
    text(LSTM, "w_peep", (4,), "w_peep has shape (4,), expected (3·H,) = (9,)")
    text(GRU, "w_hh", (12, 3), "w_hh has shape (12, 3), expected (3·H, H) = (9, 3)")
    text(GRU, "b_hh", (3, 3), "b_hh has shape (3, 3), expected (3·H,) = (9,)")
    text(PROJECTION, "h_0", (3, 3), "h_0 has shape (3, 3), expected (B, P) = (3, 2)")
    text(PROJECTION, "c_0", (3, 2), "c_0 has shape (3, 2), expected (B, H) = (3, 3)")
    text(PROJECTION, "w_hh", (12, 3), "w_hh has shape (12, 3), expected (4·H, P) = (12, 2)")
    text(PROJECTION, "w_hh", (12,), "w_hh has shape (12,), expected (4·H, P)")
    text(PROJECTION, "w_hr", (2, 4), "w_hr has shape (2, 4), expected (P, H) = (2, 3)")
    text(PROJECTION, "w_hr", (2,), "w_hr has shape (2,), expected (P, H)")
    # Whether P makes sense can only be said when H is known.
    text(PROJECTION, "w_hh", (13, 2), "w_hh has shape (13, 2), expected (4·H, P), but 13 rows are")
    for units in (0, 3, 4):
        message = f"w_hr has shape ({units}, 3), expected (P, H) with 0 < P < H = 3: a projection"
        text(PROJECTION, "w_hr", (units, 3), message)


def test_one_sequence_has_states_without_a_batch_axis():
    for variant in map(VARIANTS.get, GATED):
        arrays = variant.arrays(B=1)
        arrays["x"] = arrays["x"][:, 0]
        units = "P" if "projection" in variant.extras else "H"
        text = f"expected ({units},) = ({arrays['h_0'].shape[1]},), because x is one sequence"
        refused(variant, arrays, ValueError, f"h_0 has shape {arrays['h_0'].shape}, {text}")
        arrays["h_0"] = arrays["h_0"][0]
        if "c_0" in arrays:
            text = "c_0 has shape (1, 3), expected (H,) = (3,), because x is one sequence"
            refused(variant, arrays, ValueError, text)


def test_a_pair_of_states_is_no_array():
    a = LSTM.arrays()
    weights = (a["w_ih"], a["w_hh"])
    with pytest.raises(TypeError, match=r"h_0 is a tuple, expected a numpy\.ndarray"):
        reference.lstm_forward(a["x"], (a["h_0"], a["c_0"]), None, *weights)
    with pytest.raises(TypeError, match="w_hh is None"):  # without c_0
        reference.lstm_forward(a["x"], a["h_0"], *weights, None, None)


def test_types_come_before_shapes_in_the_order_of_the_signature():
    arrays = PEEPHOLES.arrays()
    wrong = {"w_ih": np.zeros((1, 1)), "w_hr": 1, "w_peep": 2}
    refused(PEEPHOLES, arrays | wrong, TypeError, "w_hr is an int")
    refused(PEEPHOLES, arrays | {"c_0": 1, "w_ih": 2}, TypeError, "c_0 is an int")
    refused(PEEPHOLES, arrays | {"h_0": 1, "c_0": 2}, TypeError, "h_0 is an int")


@each_variant
def test_lengths_restart_and_flags(variant):
    arrays = variant.arrays()
    text = "lengths[1] is 6, expected 0 <= length <= T = 5"
    refused(variant, arrays, ValueError, text, lengths=[5, 6, 7])
    text = "restart has shape (5, 4), expected (T, B) = (5, 3)"
    refused(variant, arrays, ValueError, text, restart=np.zeros((5, 4), bool))
    text = "mask has shape (5,), expected (T, B) = (5, 3)"
    refused(variant, arrays, ValueError, text, mask=np.zeros(5, bool))
    refused(variant, arrays, TypeError, "mask holds int64, expected", mask=np.ones((5, 3), int))
    for name in ("reverse", "record", "check"):
        refused(variant, arrays, TypeError, f"{name} is 1, expected True or False", **{name: 1})


def giant(*shape):
    """An array of any size out of one element."""
    return np.lib.stride_tricks.as_strided(np.zeros(1), shape, (0,) * len(shape))


def test_products_of_sizes_that_overflow():
    # The largest array is what the kernel writes for the gates.
    n = 2**20
    for variant in (VARIANTS[name] for name in GATED if not VARIANTS[name].extras):
        rows, values = variant.cell.gates * n, CELLS[variant.cell.name].CELL.tape_gates
        arrays = {"x": giant(n, n, 1), "h_0": None, "w_ih": giant(rows, 1), "w_hh": giant(rows, n)}
        arrays |= {"c_0": None} if "c" in variant.cell.states else {}
        arrays |= dict.fromkeys(variant.cell.required, 0.5)
        units = "H" if values == 1 else f"{values}·H"
        text = f"T x B x {units} = {n} x {n} x {values * n} elements is larger than"
        refused(variant, arrays, ValueError, text)


# ------------------------------------------------------------------------------ backward


@each_variant
def test_gradients_that_do_not_fit(variant):
    output, states, tape = variant.forward(**variant.arrays())
    h = "P" if "projection" in variant.extras else "H"
    sizes = {"d_output": ("T", "B", h), "d_h_n": ("B", h), "d_c_n": ("B", "H")}
    right = dict(zip(sizes, (output, *states), strict=False))
    backward = getattr(reference, f"{variant.cell.name}_backward")
    for name, a in right.items():
        letters = ", ".join(sizes[name])
        for wrong in (a[..., :-1], a[None], a[..., 0], a[:-1]):
            with pytest.raises(ValueError) as caught:
                backward(tape, **{name: wrong})
            text = f"{name} has shape {wrong.shape}, expected ({letters}) = {a.shape}"
            cure = f": pass {name}.reshape{a.shape}" if wrong.size == a.size else ""
            assert str(caught.value) == text + cure
        for wrong in (a.tolist(), np.ma.array(a), a.astype(np.float32), a.astype(int)):
            with pytest.raises(TypeError, match=f"^{name} is "):
                backward(tape, **{name: wrong})
    with pytest.raises(ValueError) as caught:
        backward(tape)
    assert str(caught.value).startswith(f"{listed(right, 'and')} are None: ")
    with pytest.raises(ValueError, match="wrt holds 'c_n', expected names out of 'x', 'h_0', "):
        backward(tape, output, wrt=["c_n"])
    with pytest.raises(TypeError, match="wrt is 'x', expected a collection of names out of 'x'"):
        backward(tape, output, wrt="x")


@each_variant
def test_gradients_are_brought_into_the_kernels_form(variant):
    output, states, tape = variant.forward(**variant.arrays())
    scattered = [np.repeat(a, 2, axis=-1)[..., ::2] for a in (output, *states)]
    scattered += [None] * (3 - len(scattered))  # no d_c_n
    _, *got, wanted = backward_arguments(tape, *scattered, None, is_whole)
    for a, b in zip(got, scattered, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.flags.carray and np.array_equal(a, b))
    assert wanted == set(variant.arrays())
