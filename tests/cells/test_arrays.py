"""Whatever the layout of an array in memory: the same bits, no array changed, no needless copy."""

import contextvars
import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
from memory_layouts import (
    LAYOUTS,
    axes_swapped,
    fortran,
    negative,
    negative_everywhere,
    read_only,
    row_strided,
    strided,
    swapped,
)

import fastrnn

ARRAYS = ("x", "h_0", "w_ih", "w_hh", "b_ih", "b_hh")
GRADIENTS = ("d_output", "d_h_n")
OPTIONS = {"lengths": [5, 0, 3], "restart": np.eye(5, 3, dtype=bool)}


both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def bits(a):
    """As integers, so that zeros of either sign differ and NaN matches itself."""
    assert a.dtype.isnative
    assert type(a) is np.ndarray
    return a.copy().view(f"u{a.itemsize}")


def assert_same_bits(given, expected):
    for one, other in zip(given, expected, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(bits(one), bits(other))


def run(arrays, options=OPTIONS):
    """Every result of forward and backward."""
    forward = {name: a for name, a in arrays.items() if name not in GRADIENTS}
    output, h_n, tape = fastrnn.rnn_forward(**forward, **options)
    grads = fastrnn.rnn_backward(tape, arrays["d_output"], arrays["d_h_n"])
    return output, h_n, *grads


@pytest.fixture
def everything(problem):
    def draw(dtype, **sizes):
        arrays = problem(dtype=dtype, **sizes)
        rng = np.random.default_rng(9)
        T, B, _ = arrays["x"].shape
        H = len(arrays["w_hh"])
        arrays["d_output"] = rng.standard_normal((T, B, H)).astype(dtype)
        arrays["d_h_n"] = rng.standard_normal((B, H)).astype(dtype)
        return arrays

    return draw


@both_types
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", [*ARRAYS, *GRADIENTS])
def test_layouts(everything, dtype, layout, name):
    arrays = everything(dtype)
    expected = run(arrays)
    other = arrays | {name: layout(arrays[name])}
    assert np.array_equal(other[name], arrays[name])
    before = {key: a.copy() for key, a in other.items()}
    assert_same_bits(run(other), expected)
    for key, a in before.items():
        assert np.array_equal(other[key], a), key


@both_types
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("name", ["x", "d_output"])
def test_broadcast_sequences(everything, dtype, axes, name):
    arrays = everything(dtype)
    one = arrays[name][tuple(slice(1) if i in axes else slice(None) for i in range(3))]
    shape = arrays[name].shape
    expected = run(arrays | {name: np.broadcast_to(one, shape).copy()})
    assert_same_bits(run(arrays | {name: np.broadcast_to(one, shape)}), expected)


@both_types
@pytest.mark.parametrize("name", ["h_0", "w_ih", "w_hh", "b_ih", "b_hh", "d_h_n"])
def test_broadcast_matrices(everything, dtype, name):
    arrays = everything(dtype)
    shape = arrays[name].shape
    one = arrays[name].ravel()[:1]
    expected = run(arrays | {name: np.broadcast_to(one, shape).copy()})
    assert_same_bits(run(arrays | {name: np.broadcast_to(one, shape)}), expected)


@both_types
@pytest.mark.parametrize("sizes", [{"D": 1}, {"H": 1}, {"T": 1}, {"B": 1}, {"D": 1, "H": 1}])
@pytest.mark.parametrize("layout", [strided, negative_everywhere, fortran, swapped])
def test_axes_of_one(everything, dtype, sizes, layout):
    arrays = everything(dtype, **sizes)
    expected = run(arrays, {})
    assert_same_bits(run({name: layout(a) for name, a in arrays.items()}, {}), expected)


@both_types
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts_of_one_sequence(everything, dtype, layout):
    arrays = everything(dtype, B=1)
    options = {"lengths": 4, "restart": [False, True, False, False, False]}
    for name in ("x", "d_output"):
        arrays[name] = arrays[name][:, 0]
    for name in ("h_0", "d_h_n"):
        arrays[name] = arrays[name][0]
    expected = run(arrays, options)
    assert_same_bits(run({name: layout(a) for name, a in arrays.items()}, options), expected)


@both_types
def test_layouts_of_lengths_and_restart(everything, dtype):
    arrays = everything(dtype)
    expected = run(arrays)
    lengths = np.array([5, 9, 0, 9, 3], ">i4")[::2]
    assert_same_bits(run(arrays, {"lengths": lengths, "restart": OPTIONS["restart"]}), expected)
    for layout in (fortran, strided, negative_everywhere, read_only):
        options = OPTIONS | {"restart": layout(OPTIONS["restart"])}
        assert_same_bits(run(arrays, options), expected)


@pytest.mark.parametrize("layout", [row_strided, negative, axes_swapped, read_only])
def test_x_is_not_copied_where_it_will_do(problem, layout):
    x = layout(problem()["x"])
    _, _, tape = fastrnn.rnn_forward(**problem() | {"x": x})
    assert np.shares_memory(tape.x, x)


@both_types
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_the_kernel_gets_only_what_it_can_walk(problem, dtype, layout):
    # It would read unaligned memory on most processors, so equal bits alone do not show this.
    arrays = {name: layout(a) for name, a in problem(dtype=dtype).items()}
    _, _, tape = fastrnn.rnn_forward(**arrays)
    for name in ARRAYS:
        a = getattr(tape, name)
        assert type(a) is np.ndarray
        assert a.flags.aligned
        assert a.dtype == dtype
        assert a.strides[-1] == a.itemsize
        assert all(stride % a.itemsize == 0 for stride in a.strides)
        assert name == "x" or a.flags.c_contiguous


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_state_may_go_on_in_place(problem, backend):
    """A caller clears rows of h_0 before backward: the tape has its own copy."""
    arrays = problem()
    with fastrnn.backend(backend):
        output, _, tape = fastrnn.rnn_forward(**arrays)
        expected = fastrnn.rnn_backward(tape, output)
        arrays["h_0"][1] = 0
        assert_same_bits(fastrnn.rnn_backward(tape, output), expected)


def test_results_alias_nothing(everything):
    arrays = everything(np.float64)
    for options in (OPTIONS, {"lengths": [0, 0, 0]}):
        results = run(arrays, options)
        for i, result in enumerate(results):
            others = [*arrays.values(), *results[:i], *results[i + 1 :]]
            assert not any(np.shares_memory(result, other) for other in others)


def test_the_tape_survives_backward_and_copying(everything):
    arrays = everything(np.float32)
    forward = {name: a for name, a in arrays.items() if name not in GRADIENTS}
    forward["x"] = np.broadcast_to(forward["x"][:1, :1], forward["x"].shape)
    output, _, tape = fastrnn.rnn_forward(**forward, **OPTIONS)
    kept = output.copy()
    d = arrays["d_output"], arrays["d_h_n"]
    first = fastrnn.rnn_backward(tape, *d)
    assert np.array_equal(output, kept)
    for copied in (
        tape,
        copy.copy(tape),
        copy.deepcopy(tape),
        pickle.loads(pickle.dumps(tape)),
    ):
        assert_same_bits(fastrnn.rnn_backward(copied, *d), first)


@pytest.mark.parametrize("name", ["x", "w_ih", "w_hh", "b_ih", "b_hh", "output"])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_check_notices_a_change(problem, name, backend):
    arrays = problem()
    with fastrnn.backend(backend):
        output, h_n, tape = fastrnn.rnn_forward(**arrays, check=True)
        fastrnn.rnn_backward(tape, d_h_n=h_n)
        changed = output if name == "output" else arrays[name]
        changed.flat[-1] += 1
        with pytest.raises(RuntimeError, match=f"^{name} was changed between forward and back"):
            fastrnn.rnn_backward(tape, d_h_n=h_n)
        changed.flat[-1] -= 1


def test_check_of_awkward_arrays(problem):
    for sizes in ({}, {"T": 0}, {"D": 0}):
        arrays = problem(**sizes)
        arrays |= {"x": negative(arrays["x"]), "b_ih": None}
        _, h_n, tape = fastrnn.rnn_forward(**arrays, check=True)
        assert fastrnn.rnn_backward(tape, d_h_n=h_n).b_ih is None


def test_wrt(everything):
    arrays = everything(np.float64)
    forward = {name: a for name, a in arrays.items() if name not in GRADIENTS}
    for backend in ("compiled", "reference"):
        with fastrnn.backend(backend):
            _, _, tape = fastrnn.rnn_forward(**forward, **OPTIONS)
            d = arrays["d_output"], arrays["d_h_n"]
            every = fastrnn.rnn_backward(tape, *d)
            assert every._fields == ARRAYS
            for wanted in ([], ["b_hh"], ("x", "h_0"), {"w_ih"}, {"w_hh": 1}, np.array(["b_ih"])):
                grads = fastrnn.rnn_backward(tape, *d, wrt=wanted)
                for name in ARRAYS:
                    if name in wanted:
                        assert_same_bits([getattr(grads, name)], [getattr(every, name)])
                    else:
                        assert getattr(grads, name) is None


def test_a_missing_gradient_is_zero(everything):
    arrays = everything(np.float64)
    for name in GRADIENTS:
        zeros = run(arrays | {name: np.zeros_like(arrays[name])})
        assert_same_bits(run(arrays | {name: None}), zeros)


def test_concurrent_callers(everything):
    """Eight threads with one tape, half of them on the other backend, get what one gets."""
    arrays = everything(np.float64, T=20, B=8, D=16, H=32)
    forward = {name: a for name, a in arrays.items() if name not in GRADIENTS}
    output, _, tape = fastrnn.rnn_forward(**forward)
    d = arrays["d_output"], arrays["d_h_n"]
    expected = {}
    for backend in ("compiled", "reference"):
        with fastrnn.backend(backend):
            expected[backend] = fastrnn.rnn_backward(tape, *d)
    failures = []

    def work(backend):
        try:
            with fastrnn.backend(backend):
                for _ in range(5):
                    assert_same_bits(fastrnn.rnn_backward(tape, *d), expected[backend])
                    if backend == "compiled":
                        assert_same_bits(fastrnn.rnn_forward(**forward)[:1], [output])
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=contextvars.Context().run, args=(work, backend))
        for backend in ("compiled", "reference") * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("name", ["x", "w_ih", "w_hh"])
def test_an_array_of_the_tape_reshaped_in_place(problem, name):
    arrays = problem(T=6, B=4, D=4, H=4)
    arrays[name] = arrays[name].copy()
    output, _, tape = fastrnn.rnn_forward(**arrays)
    array = getattr(tape, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of NumPy advise against it
        array.shape = (array.size, *(1,) * (array.ndim - 1))
    with pytest.raises(ValueError, match="another shape"):
        fastrnn.rnn_backward(tape, output)


@pytest.mark.parametrize("sizes", [(10**11, 0, 3, 2), (1, 2**56, 0, 0), (10**11, 1, 0, 0)])
def test_huge_sizes_of_nothing(sizes):
    T, B, D, H = sizes
    x, w_ih, w_hh = np.empty((T, B, D)), np.empty((H, D)), np.empty((H, H))
    output, h_n, tape = fastrnn.rnn_forward(x, None, w_ih, w_hh)
    assert output.shape == (T, B, H)
    assert h_n.shape == (B, H)
    grads = fastrnn.rnn_backward(tape, output)
    assert grads.x.shape == (T, B, D)
    assert not grads.w_ih.any()
