"""One step from plain arrays: the bits of the sequence functions, where results go, refusals."""

import ctypes
import itertools
import mmap
from typing import Any

import numpy as np
import pytest
from bit_checks import DTYPES, assert_same
from bounds import Array
from marks import each_cell, each_variant
from memory_layouts import LAYOUTS
from refusals import giant
from registry import CELLS, FIRST, RICH, Cell, Variant

import fastrnn
from fastrnn import _core, reference

ISAS = fastrnn.available_isas()  # generic too: it has no other bits in its own steps
each_isa = pytest.mark.parametrize("isa", ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
each_pair = pytest.mark.parametrize(
    "cell", [cell for cell in CELLS.values() if len(cell.states) > 1], ids=lambda cell: cell.name
)
B, D, H = 3, 2, 5
# Around the lanes of vectors and of half ones, and the columns that are read at once.
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)


def states_of(variant: Variant, arrays: dict[str, Any]) -> dict[str, Any]:
    return {state: arrays[state] for state in variant.cell.states}


def check_steps(variant: Variant, T: int, B: int, D: int, H: int, dtype: Any) -> None:
    """T steps, each from the state of the one before, against one call for all of them."""
    arrays = variant.arrays(T, B, D, H, dtype)
    output, states, _ = variant.forward(fastrnn, **arrays)
    x = arrays.pop("x")
    arrays = {name.removesuffix("_0"): a for name, a in arrays.items()}
    made: tuple[Any, ...] = ()
    for t in range(T):
        made = variant.step(x_t=x[t], **arrays)
        arrays |= dict(zip(variant.cell.states, made, strict=True))
        if variant.options.get("form") != "potential":  # whose state is not the output
            assert_same(made[0], output[t], f"h after step {t} of {variant.name} {B, D, H}")
    for name, a, b in zip(variant.cell.states, made, states, strict=True):
        assert_same(a, b, f"the last {name} of {variant.name} {B, D, H}")


def minimum(variant: Variant, H: int) -> int:
    return max(H, 2) if "projection" in variant.extras else H


# ------------------------------------------------------------------------------------ bits


@pytest.mark.quick
@each_isa
@each_dtype
@each_variant
def test_bits(variant: Variant, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    fastrnn.set_num_threads(1)
    for n, units in enumerate(SIZES):
        for features in {SIZES[(n * 5 + i) % len(SIZES)] for i in (0, 3, 7)}:
            for batch in (1, (0, 2, 3, 33)[n % 4]):
                check_steps(variant, 2, batch, features, minimum(variant, units), dtype)


@pytest.mark.quick
@each_dtype
@each_variant
@pytest.mark.parametrize("isa", ISAS[:1])
def test_bits_by_two_threads(variant: Variant, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    fastrnn.set_num_threads(2)
    fork_join, wake = _core.swap_team_policy(1.0, 0.0)
    try:
        for batch, features, units in ((1, 9, 100), (2, 65, 130), (33, 8, 33), (7, 100, 17)):
            check_steps(variant, 2, batch, features, units, dtype)
    finally:
        _core.swap_team_policy(fork_join, wake)


@pytest.mark.quick
@each_isa
@each_dtype
def test_bits_of_long_rows(dtype: Any, isa: str) -> None:
    """Rows so long that lines are read whole, from every place of a line; and in one set of L1D."""
    fastrnn.set_isa(isa)
    variant = FIRST["rnn"]
    lanes = 64 // np.dtype(dtype).itemsize
    for features in (12 * lanes, 64 * lanes, 13 * lanes + 1):
        arrays = variant.step_arrays(1, features, 17, dtype)
        (want,) = variant.step(reference, **arrays)
        alike = set()
        for offset in range(lanes):
            memory = np.zeros(arrays["w_ih"].size + 2 * lanes, dtype)
            start = -memory.ctypes.data % 64 // memory.itemsize + offset
            w_ih = memory[start : start + arrays["w_ih"].size].reshape(17, features)
            w_ih[...] = arrays["w_ih"]
            (h,) = variant.step(**arrays | {"w_ih": w_ih})
            np.testing.assert_allclose(h, want, rtol=0, atol=1e-3 if dtype == np.float32 else 1e-12)
            alike.add(h.tobytes())
        assert len(alike) == 1
        check_steps(variant, 2, 1, features, 17, dtype)
        check_steps(variant, 2, 2, features, 17, dtype)


@each_variant
def test_a_single_step_reads_weights_as_they_lie(variant: Variant) -> None:
    """Also of the sequence functions; several steps, and rows split between threads, pack them."""
    fastrnn.set_num_threads(1)
    variant.step(**variant.step_arrays(B, D, H, np.float64))
    assert not _core.last_plan()["packed"]
    variant.forward(fastrnn, **variant.arrays(1, B, D, H))
    assert not _core.last_plan()["packed"]
    variant.forward(fastrnn, **variant.arrays(2, B, D, H))
    assert _core.last_plan()["packed"]


@each_variant
def test_weights_are_read_anew(variant: Variant) -> None:
    arrays = variant.step_arrays(1, D, H, np.float64)
    variant.step(**arrays)
    for name in ("w_ih", "w_hh", "b_ih"):
        arrays[name] *= -0.5
    for a, b in zip(variant.step(**arrays), variant.step(reference, **arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)


# ------------------------------------------------------------------------------------ memory

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None)
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def between_pages(a: Array, at_end: bool) -> Array:
    """A copy that begins behind a page that nobody may touch, or ends before one."""
    room = max(1, -(-a.nbytes // PAGE)) * PAGE
    memory = np.frombuffer(mmap.mmap(-1, room + 2 * PAGE), np.uint8)
    for page in (0, PAGE + room):
        assert LIBC.mprotect(memory.ctypes.data + page, PAGE, 0) == 0  # PROT_NONE
    start = PAGE + room - a.nbytes if at_end else PAGE
    copy = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


@each_isa
@each_dtype
@each_variant
def test_nothing_outside_of_an_array_is_read(variant: Variant, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    fastrnn.set_num_threads(1)
    for n, units in enumerate((2, 7, 8, 15, 17, 33, 100)):
        for features in (1, 3, 9, 200)[n % 2 :: 2]:
            for batch, at_end in itertools.product((1, 2), (False, True)):
                arrays = variant.step_arrays(batch, features, units, dtype)
                apart = {name: between_pages(a, at_end) for name, a in arrays.items()}
                for a, b in zip(variant.step(**apart), variant.step(**arrays), strict=True):
                    assert_same(a, b, "between pages")


# ------------------------------------------------------------------------------------ arrays


@each_dtype
@each_variant
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_the_reference(variant: Variant, batch: int, dtype: Any) -> None:
    arrays = variant.step_arrays(batch, D, H, dtype)
    with fastrnn.backend("reference"):
        through = variant.step(**arrays)
    plain = variant.step(reference, **arrays)
    for a, b, c in zip(through, plain, variant.step(**arrays), strict=True):
        assert_same(a, b, "the backend and the function")
        np.testing.assert_allclose(a, c, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)


@each_variant
def test_one_row(variant: Variant) -> None:
    arrays = variant.step_arrays(1, D, H, np.float64)
    flat = arrays | {name: arrays[name][0] for name in ("x_t", *variant.cell.states)}
    for module in (fastrnn, reference):
        for a, b in zip(variant.step(module, **flat), variant.step(module, **arrays), strict=True):
            assert_same(a, b[0], "one row")


@each_variant
def test_no_state_and_no_biases(variant: Variant) -> None:
    arrays = variant.step_arrays(B, D, H, np.float64)
    states = states_of(variant, arrays)
    zeros = {name: np.zeros_like(a) for name, a in states.items()}
    of_zeros = variant.step(**arrays | zeros)
    for a, b in zip(variant.step(**arrays | dict.fromkeys(states)), of_zeros, strict=True):
        assert_same(a, b, "zeros")
    biases = {name: np.zeros_like(arrays[name]) for name in ("b_ih", "b_hh")}
    of_zeros = variant.step(**arrays | biases)
    without = {name: a for name, a in arrays.items() if name not in biases}
    for a, b in zip(variant.step(**without), of_zeros, strict=True):
        assert_same(a, b, "no biases")


@each_variant
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(variant: Variant, layout: Any) -> None:
    arrays = variant.step_arrays(B, 4, 6, np.float64)
    want = variant.step(**arrays)
    for module, name in itertools.product((fastrnn, reference), (*arrays, "all")):
        if name == "all":
            laid = {each: layout(a) for each, a in arrays.items()}
        else:
            laid = arrays | {name: layout(arrays[name])}
        for a, b in zip(variant.step(module, **laid), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-14 if module is reference else 0)


# ------------------------------------------------------------------------------------ out


@each_variant
@pytest.mark.parametrize("batch", [None, 0, 1, 3])
def test_out_may_be_the_state(variant: Variant, batch: int | None) -> None:
    arrays = variant.step_arrays(1 if batch is None else batch, D, H, np.float64)
    if batch is None:
        arrays |= {name: arrays[name][0] for name in ("x_t", *variant.cell.states)}
    for module in (fastrnn, reference):
        want = variant.step(module, **arrays)
        states = {name: arrays[name].copy() for name in variant.cell.states}
        for out in ({name: np.full_like(a, np.nan) for name, a in states.items()}, states):
            places = tuple(out.values())
            given = places if len(places) > 1 else places[0]
            made = variant.cell.step(module)(
                **variant.options, **arrays | (states if out is states else {}), out=given
            )
            assert made is given
            for a, b in zip(places, want, strict=True):
                assert_same(a, b, "out")


@each_pair
def test_a_list_for_a_pair(cell: Cell) -> None:
    variant = FIRST[cell.name]
    arrays = variant.step_arrays(B, D, H, np.float64)
    for module in (fastrnn, reference):
        out = [np.empty((B, H)), np.empty((B, H))]
        assert cell.step(module)(**arrays, out=out) is out
        assert_same(out[0], variant.step(module, **arrays)[0], "h")


@each_cell
@pytest.mark.parametrize("threads", [1, 2])
def test_out_may_be_x_and_overlap(cell: Cell, threads: int) -> None:
    """Anything that is read may be written over: the results are those of arrays apart."""
    fastrnn.set_num_threads(threads)
    fork_join, wake = _core.swap_team_policy(1.0, 0.0)
    try:
        for batch, units in ((2, 8), (3, 33), (1, 64), (33, 8)):
            check_overlap(FIRST[cell.name], batch, units)
    finally:
        _core.swap_team_policy(fork_join, wake)


def check_overlap(variant: Variant, batch: int, units: int) -> None:
    arrays = variant.step_arrays(batch, units, units, np.float64)
    want = variant.step(**arrays)
    read = ("x_t", *variant.cell.states)
    n = batch * units
    # Where each argument that is read begins in one memory, and where each result does.
    for shift in (0, 1, units // 2, n):
        for over in itertools.product(read, repeat=len(want)):
            if len(want) > 1 and over[0] == over[1]:
                continue
            for module in (fastrnn, reference):
                memory = np.zeros((len(read) + 2) * 2 * n)
                view = {
                    name: memory[i * 2 * n : i * 2 * n + n].reshape(batch, units)
                    for i, name in enumerate(read)
                }
                for name in read:
                    view[name][...] = arrays[name]
                places = []
                for name in over:
                    start = read.index(name) * 2 * n + shift
                    places.append(memory[start : start + n].reshape(batch, units))
                given = tuple(places) if len(places) > 1 else places[0]
                made = variant.cell.step(module)(**variant.options, **arrays | view, out=given)
                assert made is given
                for a, b in zip(places, want, strict=True):
                    np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
                    if module is fastrnn:
                        assert_same(a, b, f"{over} {shift}")


def out_of(variant: Variant, place: Any, which: int = 0) -> Any:
    """An out one of whose arrays is `place`."""
    if len(variant.cell.states) == 1:
        return place
    units = [H - 1 if "projection" in variant.extras else H, H]
    places: list[Any] = [np.zeros((B, n)) for n in units]
    places[which] = place
    return tuple(places)


@each_cell
def test_out_may_not_be_a_weight(cell: Cell) -> None:
    variant = RICH[cell.name]
    arrays = variant.step_arrays(B, D, H, np.float64)
    weights = [name for name in arrays if name not in ("x_t", *cell.states)]
    for which, name in itertools.product(range(len(cell.states)), weights):
        units = H - 1 if which == 0 and "projection" in variant.extras else H
        for turned in (False, True):
            memory = np.zeros(400)
            shape = arrays[name].shape
            weight = memory[: arrays[name].size].reshape(shape[::-1] if turned else shape)
            weight = weight.T if turned else weight
            weight[...] = arrays[name]
            place = memory[arrays[name].size - 1 :][: B * units].reshape(B, units)
            label = "out" if len(cell.states) == 1 else rf"out\[{which}\]"
            for module in (fastrnn, reference):
                before = memory.copy()
                with pytest.raises(ValueError, match=rf"^{label} shares memory with {name}: pass"):
                    cell.step(module)(
                        **variant.options, **arrays | {name: weight},
                        out=out_of(variant, place, which),
                    )  # fmt: skip
                assert (memory == before).all()


@each_pair
def test_the_arrays_of_a_pair_are_apart(cell: Cell) -> None:
    variant = FIRST[cell.name]
    memory = np.zeros(2 * B * H)
    places = memory[: B * H].reshape(B, H), memory[B * H - 1 : -1].reshape(B, H)
    for module in (fastrnn, reference):
        with pytest.raises(ValueError, match=r"^out\[0\] shares memory with out\[1\]: pass"):
            cell.step(module)(**variant.step_arrays(B, D, H, np.float64), out=places)


def read_only(*shape: int) -> Array:
    a = np.zeros(shape)
    a.flags.writeable = False
    return a


@each_cell
@pytest.mark.parametrize(
    ("place", "error", "text"),
    [
        ([[0.0] * H] * B, TypeError, " is a list, expected a numpy.ndarray"),
        (0, TypeError, " is an int, expected a numpy.ndarray"),
        (np.zeros((B, H), np.float32), TypeError, " is float32, x_t is float64"),
        (np.zeros((B, H), int), TypeError, " is int64"),
        (np.ma.zeros((B, H)), TypeError, " is a MaskedArray"),
        (np.zeros((B, H)).view(np.recarray), TypeError, " is a recarray"),
        (read_only(B, H), ValueError, " is read-only"),
        (np.zeros((B, H), ">f8"), ValueError, " is not in native byte order"),
        (np.zeros((B, 2 * H))[:, ::2], ValueError, " is not C-contiguous"),
        (np.zeros((H, B)).T, ValueError, " is not C-contiguous"),
        (np.zeros((B, H + 1)), ValueError, " has shape .*, expected (B, H) = (3, 5)"),
        (np.zeros(H), ValueError, " has shape .*, expected (B, H) = (3, 5)"),
        (np.zeros((1, B, H)), ValueError, " has shape .*, expected (B, H) = (3, 5)"),
    ],
)
def test_bad_out(cell: Cell, place: Any, error: type[Exception], text: str) -> None:
    variant = FIRST[cell.name]
    arrays = variant.step_arrays(B, D, H, np.float64)
    for which in range(len(cell.states)):
        label = "out" if len(cell.states) == 1 else rf"out\[{which}\]"
        pattern = label + text.replace("(", r"\(").replace(")", r"\)")
        for module in (fastrnn, reference):
            with pytest.raises(error, match=f"^{pattern}"):
                cell.step(module)(**arrays, out=out_of(variant, place, which))


@each_cell
def test_bad_pairs(cell: Cell) -> None:
    arrays = FIRST[cell.name].step_arrays(B, D, H, np.float64)
    a = np.zeros((B, H))
    if len(cell.states) == 1:
        bad = [((a, a), TypeError, "out is a tuple, expected a numpy.ndarray")]
    else:
        bad = [
            (a, TypeError, "out is an ndarray"),
            ((a,), ValueError, "out has 1 element"),
            ((a, None), TypeError, r"out\[1\] is None"),
            ((None, a), TypeError, r"out\[0\] is None"),
        ]
    for out, error, text in bad:
        for module in (fastrnn, reference):
            with pytest.raises(error, match=f"^{text}"):
                cell.step(module)(**arrays, out=out)


# ------------------------------------------------------------------------------------ bad input


def refused(cell: Cell, arrays: dict[str, Any], error: type[Exception], start: str) -> None:
    texts = []
    for module in (fastrnn, reference):
        with pytest.raises(error) as caught:
            cell.step(module)(**arrays)
        assert type(caught.value) is error
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert texts[0].startswith(start)


@each_cell
def test_bad_types(cell: Cell) -> None:
    arrays = RICH[cell.name].step_arrays(B, D, H, np.float64)
    for name, a in arrays.items():
        refused(cell, arrays | {name: a.tolist()}, TypeError, f"{name} is a list, expected a num")
        refused(cell, arrays | {name: a.astype(int)}, TypeError, f"{name} is int64, ")
        refused(cell, arrays | {name: np.ma.array(a)}, TypeError, f"{name} is a MaskedArray, ")
        refused(cell, arrays | {name: a.astype(np.float32)}, TypeError, f"{name} is float32, ")
    for name in ("x_t", "w_hh", *cell.required):
        refused(cell, arrays | {name: None}, TypeError, f"{name} is None, expected a numpy.nd")


@each_cell
def test_bad_shapes(cell: Cell) -> None:
    arrays = RICH[cell.name].step_arrays(B, D, H, np.float64)
    for shape in ((), (2, B, D), (1, 1, 1, 1)):
        text = f"x_t has shape {shape}, expected (B, D), or (D,) for one row"
        refused(cell, arrays | {"x_t": np.zeros(shape)}, ValueError, text)
    refused(cell, arrays | {"x_t": np.zeros((B, D + 1))}, ValueError, "w_ih has shape ")
    for state in cell.states:
        units = arrays[state].shape[1]
        letter = "H" if units == H else "P"
        for shape in ((B + 1, units), (B, units + 1), (units,), (1, B, units)):
            text = f"{state} has shape {shape}, expected (B, {letter}) = ({B}, {units})"
            refused(cell, arrays | {state: np.zeros(shape)}, ValueError, text)
    one = arrays | {"x_t": arrays["x_t"][0]}
    refused(cell, one, ValueError, f"h has shape {arrays['h'].shape}, expected (")
    with pytest.raises(ValueError, match="because x_t is one row without a batch axis"):
        cell.step()(**one)
    for name in set(arrays) - {"x_t", *cell.states}:
        wrong = np.zeros((*arrays[name].shape, 1))
        with pytest.raises(ValueError, match=rf"^{name} has shape "):
            cell.step()(**arrays | {name: wrong})


@each_cell
def test_rows_of_one_feature(cell: Cell) -> None:
    arrays = FIRST[cell.name].step_arrays(B, 1, H, np.float64)
    text = "x_t has shape (3,), expected (B, D) = (B, 1): pass x_t[:, None] if it is of rows"
    refused(cell, arrays | {"x_t": np.zeros(B)}, ValueError, text)


@each_variant
def test_bad_options(variant: Variant) -> None:
    arrays = variant.step_arrays(B, D, H, np.float64)
    for option, value in variant.options.items():
        error = ValueError if isinstance(value, str) else TypeError
        refused(variant.cell, arrays | {option: "sine"}, error, f"{option} is 'sine', expected")


def test_what_is_too_large() -> None:
    arrays = {"x_t": giant(2**59, 1), "h": None, "w_ih": np.zeros((3, 1)), "w_hh": np.zeros((3, 3))}
    refused(CELLS["rnn"], arrays, ValueError, "")
