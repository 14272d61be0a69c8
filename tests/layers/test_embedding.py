"""The embedding: rows are picked exactly, and gradients summed in the order of the indices."""

import copy
import itertools
import math
import pickle
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from bit_checks import assert_same, assert_same_results
from bounds import Analysis, Array, bounds, check
from grids import name_of
from memory_layouts import LAYOUTS
from refusals import refused

import fastrnn
from fastrnn import _core, reference

ISAS = tuple(fastrnn.available_isas())  # all of them: there is no multiply-add to round twice
DTYPES = (np.float32, np.float64)
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
both_backends = pytest.mark.parametrize("backend", ["compiled", "reference"])
both_types = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)


class Spec(NamedTuple):
    N: int
    V: int
    D: int

    def __str__(self) -> str:
        return "N{}-V{}-D{}".format(*self)


# V = 1 makes one chain of all rows; 65 to 300 columns are several cache lines for a team to share.
SPECS = (
    *(Spec((0, 1, 7, 40)[i // 3], (1, 3, 65)[i % 3], D) for i, D in enumerate(SIZES)),
    Spec(1100, 1, 33), Spec(1100, 50, 65), Spec(4100, 9, 300), Spec(300, 5000, 17),
    *(Spec(40, 3, D) for D in (63, 64, 127, 128, 129, 191, 255, 256, 257)),  # strips of 128 columns
)  # fmt: skip


def draw(spec: Spec, dtype: Any) -> tuple[Array, Array, Array]:
    """indices, weight and d_output, from a fixed seed."""
    rng = np.random.default_rng(spec)
    indices = rng.integers(0, spec.V, spec.N)
    weight, d = rng.standard_normal((spec.V, spec.D)), rng.standard_normal((spec.N, spec.D))
    return indices, weight.astype(dtype), d.astype(dtype)


def run(functions: Any, indices: Any, weight: Array, d_output: Array) -> dict[str, Any]:
    output, tape = functions.embedding_forward(indices, weight)
    grads = functions.embedding_backward(tape, d_output)
    assert grads._fields == ("weight",)
    return {"output": output, "d_weight": grads.weight}


def loop(indices: Array, weight: Array, d_output: Array) -> dict[str, Array]:
    """The definition: one position after the other."""
    output, d_weight = np.empty_like(d_output), np.zeros(weight.shape)
    for n, v in enumerate(indices):
        output[n] = weight[v]
        d_weight[v] += d_output[n]
    return {"output": output, "d_weight": d_weight.astype(weight.dtype)}


# ---------------------------------------------------------------- agreement and the same bits


@both_types
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.quick
def test_the_order_of_every_sum(spec: Spec, dtype: Any) -> None:
    # From +0 in float64, n ascending, rounded once: bit for bit the loop, on every instruction set
    # and any team.
    arrays = draw(spec, dtype)
    want = loop(*arrays)
    assert_same_results(run(reference, *arrays), want, "reference")
    for isa, threads in itertools.product(ISAS, (1, 2, 3, 5)):
        fastrnn.set_isa(isa)
        fastrnn.set_num_threads(threads)
        before = _core.teams_run()
        assert_same_results(run(fastrnn, *arrays), want, f"{isa}, {threads} threads")
        several_lines = spec.D * np.dtype(dtype).itemsize > 64
        if threads > 1 and several_lines and _core.build_info()["openmp"]:
            assert _core.teams_run() > before


@both_types
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_truth(spec: Spec, dtype: Any) -> None:
    # A chain of n additions has q = n (Q + S^2) (bounds.py): n is how often a row was picked.
    indices, weight, d = draw(spec, dtype)
    values, squares, count = np.zeros((3, spec.V, spec.D))
    for sums, terms in ((values, d), (squares, d.astype(np.float64) ** 2), (count, 1.0)):
        np.add.at(sums, indices, terms)
    q = {"embedding d_weight": count * (squares + values**2)}
    truth = {"embedding d_weight": values}
    bound = bounds(Analysis(truth, q, q, {}, np.inf), dtype, both=dtype is np.float64)
    got = {"embedding d_weight": run(fastrnn, indices, weight, d)["d_weight"]}
    check(got, truth, bound, dtype, str(spec))
    # A row that is left out shows.
    if spec.N:
        wrong = truth["embedding d_weight"].copy()
        wrong[indices[-1]] -= d[-1]
        error = np.abs(wrong - truth["embedding d_weight"])[indices[-1]]
        assert (error > bound["embedding d_weight"][indices[-1]]).mean() > 0.5


def skewed(rng: Any) -> tuple[Array, int, Array]:
    """A few words make up most of a text."""
    return np.minimum(rng.geometric(0.3, 50_000) - 1, 7), 8, rng.random((50_000, 3))


def constant(rng: Any) -> tuple[Array, int, Array]:
    return np.zeros(300_000, int), 1, np.full((300_000, 1), 0.1)


def opposed(rng: Any) -> tuple[Array, int, Array]:
    """Large numbers that leave nothing but what was added between them."""
    d = np.tile([[1e7], [1.0], [-1e7], [0.37]], (10_000, 33))
    return np.arange(40_000) // 4 % 2, 3, d


def small_behind_large(rng: Any) -> tuple[Array, int, Array]:
    """In float32 nothing of 1 would be left beside 2^26."""
    return np.ones(100_000, int), 2, np.r_[[[2.0**26]], np.ones((99_999, 1))]


def beyond_float32(rng: Any) -> tuple[Array, int, Array]:
    """Only in between is the sum no float32."""
    return np.array([1, 1, 1, 1]), 2, np.array([[3e38], [3e38], [-3e38], [-3e38]])


@both_backends
@pytest.mark.parametrize(
    "case",
    [skewed, constant, opposed, small_behind_large, beyond_float32],
    ids=lambda f: f.__name__,
)
def test_a_sum_over_many_rows_is_exact_enough(case: Any, backend: str) -> None:
    indices, V, d = case(np.random.default_rng(0))
    d = d.astype(np.float32)
    # n - 1 additions in float64, each of a partial sum of at most S = sum |d|, and one rounding.
    weight = np.zeros((V, d.shape[1]), np.float32)
    with fastrnn.backend(backend):
        got = run(fastrnn, indices, weight, d)["d_weight"]
    for v, j in np.ndindex(weight.shape):
        terms = d[indices == v, j].astype(np.float64)
        want = math.fsum(terms)
        tolerance = len(terms) * 2.0**-53 * np.abs(terms).sum() + 2.0**-24 * abs(want)
        assert abs(float(got[v, j]) - want) <= tolerance, (v, j)


@pytest.mark.parametrize("isa", ISAS)
@both_types
def test_special_values_in_the_gradient(dtype: Any, isa: str) -> None:
    # Subnormal inputs count as zero, a subnormal result is zero; -0 alone gives the chain's +0.
    fastrnn.set_isa(isa)
    small = np.finfo(dtype).smallest_normal
    cases: list[tuple[list[float], float]] = [
        ([-0.0], 0.0), ([-0.0, -0.0], 0.0), ([1.0, -1.0], 0.0), ([small / 2] * 4, 0.0),
        ([small, small / 2], small), ([small, -0.75 * small], small), ([small], small),
        ([1.5 * small, -small], 0.0), ([np.inf, 1.0], np.inf), ([np.inf, -np.inf], np.nan),
        ([1.0, np.nan, 2.0], np.nan), ([np.finfo(dtype).max] * 2, np.inf),
    ]  # fmt: skip
    for D in (1, 5, 16, 40, 130):  # vectors and what is left of them
        for terms, want in cases:
            d = np.repeat(np.array(terms, dtype)[:, None], D, axis=1)
            got = run(fastrnn, [1] * len(terms), np.zeros((3, D), dtype), d)["d_weight"]
            wanted = np.zeros((3, D), dtype)
            wanted[1] = want
            assert_same(got, wanted, f"{terms}, {D} columns")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_gradient_is_interrupted(threads: int) -> None:
    # One row of seconds of work: far more than the wait allowed.
    fastrnn.set_num_threads(threads)
    fastrnn.set_isa("generic")
    d = np.broadcast_to(np.ones(4096), (2_000_000, 4096))
    tape = fastrnn.embedding_forward(np.zeros(2_000_000, int), np.ones((1, 1)))[1]
    tape = tape._replace(shape=(1, 4096))
    sent = []

    def send() -> None:
        sent.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(0.3, send)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        fastrnn.embedding_backward(tape, d)
    assert time.perf_counter() - sent[0] < 1.0
    timer.join()


def test_reference_gradient_is_finite_differences() -> None:
    indices, weight, d = draw(Spec(9, 4, 3), np.float64)
    assert np.bincount(indices).max() > 1
    got = run(reference, indices, weight, d)["d_weight"]
    # The loss is linear: its 27 terms below 10 bring roundings of 27 * 27 * 10 u = 1e-12 at most.
    eps, tolerance = 2.0**-10, 1e-12 * 2.0**9
    for index in np.ndindex(weight.shape):
        sides = []
        for step in (eps, -eps):
            moved = weight.copy()
            moved[index] += step
            sides.append((reference.embedding_forward(indices, moved)[0] * d).sum())
        assert abs(got[index] - (sides[0] - sides[1]) / (2 * eps)) <= tolerance


@both_backends
@pytest.mark.parametrize("shape", [(), (12,), (4, 3), (2, 3, 2), (12, 1), (3, 0)], ids=str)
def test_shapes(shape: Any, backend: str) -> None:
    functions = fastrnn if backend == "compiled" else reference
    n = int(np.prod(shape))
    indices, weight, d = draw(Spec(n, 5, 7), np.float64)
    want = loop(indices, weight, d)
    got = run(functions, indices.reshape(shape), weight, d.reshape(*shape, 7))
    assert got["output"].shape == (*shape, 7)
    got["output"] = got["output"].reshape(n, 7)
    assert_same_results(got, want, f"{shape}")


@both_types
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(layout: Any, dtype: Any) -> None:
    for spec in (Spec(12, 5, 7), Spec(12, 5, 1)):
        indices, weight, d = draw(spec, dtype)
        d = d.reshape(4, 3, spec.D)
        want = run(fastrnn, indices.reshape(4, 3), weight, d)
        got = run(fastrnn, indices.reshape(4, 3), layout(weight), layout(d))
        assert_same_results(got, want, layout.__name__)
        one = run(fastrnn, indices.reshape(4, 3), weight, np.broadcast_to(d[:1, :1], d.shape))
        same = run(fastrnn, indices.reshape(4, 3), weight, np.tile(d[:1, :1], (4, 3, 1)))
        assert_same_results(one, same, "broadcast")


@both_backends
def test_any_integers_are_indices(backend: str) -> None:
    weight = np.arange(15.0).reshape(5, 3)
    plain = np.array([4, 0, 4, 1])
    given: list[Any] = [plain.astype(code) for code in "bBhHiIlLqQ"]
    given += [plain.astype(">i4"), plain.astype("<u8"), plain.tolist(), tuple(plain.tolist())]
    given += [np.repeat(plain, 2)[::2], plain[::-1].copy()[::-1], [np.int8(4), 0, np.uint32(4), 1]]
    given += [np.lib.stride_tricks.as_strided(plain, writeable=False), range(1, 5)]
    with fastrnn.backend(backend):
        for indices in given:
            output, tape = fastrnn.embedding_forward(indices, weight)
            assert np.array_equal(output, weight[list(indices)])
            assert tape.indices.dtype == np.int64
            assert tape.indices.flags.c_contiguous
            assert not np.shares_memory(tape.indices, indices)
        for empty in ([], (), np.zeros(0, np.int8), [[], []]):
            assert fastrnn.embedding_forward(empty, weight)[0].shape == (*np.shape(empty), 3)


@both_backends
@pytest.mark.parametrize("sizes", [(0, 5, 3), (0, 0, 3), (4, 5, 0), (0, 0, 0)], ids=str)
def test_sizes_of_zero(sizes: tuple[int, int, int], backend: str) -> None:
    N, V, D = sizes
    with fastrnn.backend(backend):
        got = run(fastrnn, np.zeros(N, int), np.ones((V, D)), np.ones((N, D)))
    assert got["output"].shape == (N, D)
    assert got["d_weight"].shape == (V, D)
    assert not got["d_weight"].any()


# ------------------------------------------------------------------------------------ the tape


@both_backends
def test_the_tape_has_indices_of_its_own(backend: str) -> None:
    # The kernel writes where they point: what the caller does to its own must not reach it.
    indices, weight, d = draw(Spec(12, 5, 7), np.float64)
    with fastrnn.backend(backend):
        want = run(fastrnn, indices, weight, d)["d_weight"]
        output, tape = fastrnn.embedding_forward(indices, weight)
        indices[...] = 10**12
        weight[...] = np.nan
        assert np.isfinite(output).all()
        pickled = [pickle.loads(pickle.dumps(tape, protocol)) for protocol in (2, 5)]
        for copied in (tape, tape, copy.copy(tape), copy.deepcopy(tape), *pickled):
            assert repr(copied) == "EmbeddingTape(indices (12,), (5, 7), float64)"
            assert_same(fastrnn.embedding_backward(copied, d).weight, want, "a copied tape")
            assert fastrnn.embedding_backward(copied, d, wrt=()) == (None,)
        assert fastrnn.embedding_forward([0], np.eye(2), record=False)[1] is None


TAMPERED = """
import pickle
import numpy as np, fastrnn

right, d = [4, 0, 4], np.ones((3, 7))
tape = fastrnn.embedding_forward(right, np.ones((5, 7)))[1]
want = fastrnn.embedding_backward(tape, d).weight.tolist()
wide = np.repeat(right, 2)[::2]
wrong = [4, 5, 4], [4, -1, 4], [4, 2**40, 4], [4.0, 0.0, 4.0]
changes = [{"indices": np.array(i)} for i in wrong]
changes += [{"indices": wide.astype(t)} for t in ("i8", "i4", ">i8", "u1")] + [{"shape": (4, 7)}]
for change in changes:
    for functions in (fastrnn.reference, fastrnn):
        changed = tape._replace(**change)
        for copied in (changed, pickle.loads(pickle.dumps(changed))):
            try:
                got = functions.embedding_backward(copied, d).weight.tolist()
            except Exception as error:
                assert type(error) in (TypeError, ValueError), (functions, change, error)
            else:  # the right indices in another form
                assert change["indices"].tolist() == right, (functions, change)
                assert got == want, (functions, change, got)
for wrong in (5, -1, 2**40):
    tape = fastrnn.embedding_forward(right, np.ones((5, 7)))[1]
    try:
        tape.indices[1] = wrong
        fastrnn.embedding_backward(tape, d)
    except ValueError:  # read-only will do as well
        continue
    raise AssertionError(f"{wrong} was written to the tape and used")
"""


def test_a_tape_that_was_tampered_with() -> None:
    """An index out of range must not become a write out of range: in a process that may crash."""
    done = subprocess.run([sys.executable, "-c", TAMPERED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ----------------------------------------------------------------------------------- bad input

WEIGHT = np.zeros((5, 3))


@pytest.mark.parametrize(
    ("indices", "error", "text"),
    [
        ([0, 5], ValueError, "indices[1] is 5, expected 0 <= index < V = 5"),
        ([0, -1], ValueError, "indices[1] is -1, expected 0 <= index < V = 5"),
        ([[0, 1], [2, 9]], ValueError, "indices[1, 1] is 9"),
        (5, ValueError, "indices is 5, expected"),
        (np.array([0, 2**63 - 1]), ValueError, f"indices[1] is {2**63 - 1}"),
        (np.array([0, 2**64 - 1], np.uint64), ValueError, "expected"),
        (np.array([0, -128], np.int8), ValueError, "indices[1] is -128"),
        ([0, 2**70], TypeError, "indices holds object, expected integers"),
        ([0.0, 1.0], TypeError, "indices holds float64, expected integers"),
        (np.array([1.0]), TypeError, "indices holds float64, expected integers: pass indices.asty"),
        (np.zeros(0), TypeError, "indices holds float64"),
        ([True, False], TypeError, "indices holds bool"),
        (True, TypeError, "indices holds bool"),
        (np.array([1 + 0j]), TypeError, "indices holds complex128"),
        (None, TypeError, "indices is None, expected integers: it cannot be left out"),
        ("12", TypeError, "indices holds <U2"),
        ({0, 1}, TypeError, "indices holds object"),
        (np.array([0], "M8[s]"), TypeError, "indices holds datetime64[s]"),
        ([[0], [1, 2]], ValueError, "indices is ragged"),
        (np.ma.array([0, 1]), TypeError, "indices is a MaskedArray"),
    ],
    ids=str,
)
def test_indices_refused(indices: Any, error: Any, text: str) -> None:
    refused(((indices, WEIGHT), {}), error, text, function="embedding_forward")


def test_an_empty_vocabulary() -> None:
    text = "indices[0] is 0, expected 0 <= index < V = 0"
    refused((([0], WEIGHT[:0]), {}), ValueError, text, function="embedding_forward")


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        ([[1.0]], TypeError, "weight is a list, expected a numpy.ndarray"),
        (None, TypeError, "weight is None"),
        (np.ma.array(WEIGHT), TypeError, "weight is a MaskedArray"),
        (WEIGHT.astype(int), TypeError, "weight is int64, expected float32 or float64"),
        (WEIGHT[0], ValueError, "weight has shape (3,), expected (V, D)"),
        (WEIGHT[None], ValueError, "weight has shape (1, 5, 3), expected (V, D)"),
    ],
)
def test_weight_refused(weight: Any, error: Any, text: str) -> None:
    refused((([0], weight), {}), error, text, function="embedding_forward")
    refused((([0], WEIGHT), {"record": 1}), TypeError, "record is 1", function="embedding_forward")


D_OUTPUT = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tape": None}, TypeError, "tape is None (was it made with record=False?), expected the "),
        (
            {"tape": "linear"},
            TypeError,
            "tape is a LinearTape, expected the EmbeddingTape that embed",
        ),
        ({"d_output": None}, TypeError, "d_output is None"),
        ({"d_output": D_OUTPUT.tolist()}, TypeError, "d_output is a list"),
        (
            {"d_output": D_OUTPUT.astype("f4")},
            TypeError,
            "d_output is float32, the tape is float64",
        ),
        ({"d_output": D_OUTPUT[:1]}, ValueError, "d_output has shape (1, 3), expected (2, 3)"),
        ({"d_output": D_OUTPUT.T}, ValueError, "d_output has shape (3, 2), expected (2, 3)"),
        ({"wrt": "weight"}, TypeError, "wrt is 'weight', expected a collection of names out of 'w"),
        ({"wrt": ["indices"]}, ValueError, "wrt holds 'indices', expected names out of 'weight'"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_backward_refuses(change: dict[str, Any], error: Any, text: str) -> None:
    tape = fastrnn.embedding_forward([4, 1], WEIGHT)[1]
    arguments = {"tape": tape, "d_output": D_OUTPUT} | change
    if arguments["tape"] == "linear":
        arguments["tape"] = fastrnn.linear_forward(D_OUTPUT, WEIGHT)[1]
    refused(((), arguments), error, text, function="embedding_backward")


# ----------------------------------------------------------------------------------- the layer


def make(**options: Any) -> fastrnn.Embedding:
    return fastrnn.Embedding(5, 3, **{"dtype": "float64", "rng": 0} | options)


def test_layer_construction() -> None:
    layer = fastrnn.Embedding(100, 30, rng=3)
    assert (layer.num_embeddings, layer.embedding_dim, layer.dtype) == (100, 30, np.float32)
    assert repr(layer) == "Embedding(100, 30)"
    assert repr(make()) == "Embedding(5, 3, dtype='float64')"
    # 3000 normal draws: their mean deviates by 0.018, their standard deviation by 0.013.
    assert abs(layer.flat_weights.mean()) < 0.1
    assert abs(layer.flat_weights.std() - 1) < 0.07
    double = fastrnn.Embedding(100, 30, rng=np.random.default_rng(3), dtype="float64")
    assert np.array_equal(layer.flat_weights, double.flat_weights.astype(np.float32))
    assert {name: w.shape for name, w in layer.weights.items()} == {"weight": (100, 30)}
    assert np.shares_memory(layer.weights["weight"], layer.flat_weights)
    for arguments, error in (((0, 3), ValueError), ((5, 2.5), TypeError), ((5, True), TypeError)):
        with pytest.raises(error, match=r"num_embeddings is|embedding_dim is"):
            fastrnn.Embedding(*arguments)


@both_backends
@pytest.mark.parametrize("wrt", [None, (), ["weights"], {"weight"}], ids=str)
def test_a_layer_is_its_function(wrt: Any, backend: str) -> None:
    layer = make()
    indices, _, d = draw(Spec(12, 5, 3), np.float64)
    indices, d = indices.reshape(4, 3), d.reshape(4, 3, 3)
    with fastrnn.backend(backend):
        want = run(fastrnn, indices, layer.weights["weight"], d)
        output, tape = layer.forward(indices)
        assert_same(output, want["output"], "output")
        assert_same(layer(indices), output, "output without a tape")
        grads = layer.backward(tape, d, wrt=wrt)
    if wrt == ():
        assert grads == ({}, None)
        return
    assert_same(grads.weights["weight"], want["d_weight"], "weight")
    assert np.shares_memory(grads.weights["weight"], grads.flat_weights)
    assert grads.flat_weights.shape == layer.flat_weights.shape


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "copy", "state_dict"])
def test_layer_copies(way: str) -> None:
    layer, other = make(), make(rng=1)
    if way == "state_dict":
        assert other.load_state_dict(layer.state_dict()) == ([], [])
    else:
        ways = {"deepcopy": copy.deepcopy, "copy": copy.copy}
        other = ways.get(way, lambda a: pickle.loads(pickle.dumps(a)))(layer)
    assert repr(other) == repr(layer)
    assert_same(other([4, 0]), layer([4, 0]), way)
    assert np.shares_memory(other.flat_weights, layer.flat_weights) == (way == "copy")
    other.weights["weight"][...] = 0
    assert not other([4, 0]).any()
    assert layer([4, 0]).any() == (way != "copy")


def test_layer_refuses() -> None:
    layer = make()
    output, tape = layer.forward([4, 0])
    for call, error, text in (
        (lambda: layer([5]), ValueError, "indices[0] is 5, expected 0 <= index < V = 5"),
        (lambda: layer.forward([1.0]), TypeError, "indices holds float64"),
        (
            lambda: layer.backward(None, output),
            TypeError,
            "expected the EmbeddingTape that Embeddi",
        ),
        (lambda: layer.backward(tape, output[:1]), ValueError, "d_output has shape (1, 3)"),
        (lambda: layer.backward(tape, output, wrt=["x"]), ValueError, "wrt holds 'x'"),
        (
            lambda: make(dtype="float32").backward(tape, output),
            ValueError,
            "tape is of another lay",
        ),
        (
            lambda: fastrnn.Embedding(3, 5).backward(tape, output),
            ValueError,
            "another layer: its w",
        ),
    ):
        with pytest.raises(error) as caught:
            call()
        assert text in str(caught.value)


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    for spec, dtype in itertools.product(SPECS[:12], DTYPES):
        indices, weight, d = draw(spec, dtype)
        w = torch.tensor(weight, requires_grad=True)
        output = torch.nn.functional.embedding(torch.tensor(indices), w)
        output.backward(torch.tensor(d))
        got = run(fastrnn, indices, weight, d)
        assert_same(got["output"], output.detach().numpy(), str(spec))
        # Two sums of at most 40 terms below 5 in any order: 2 * 40 * 40 * 5 u.
        atol = 8000 * np.finfo(dtype).eps
        np.testing.assert_allclose(got["d_weight"], w.grad.numpy(), rtol=0, atol=atol)
