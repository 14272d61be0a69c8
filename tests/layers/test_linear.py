"""The output layer: near the reference, the same bits, in the documented order; its arguments."""

import copy
import functools
import itertools
import pickle
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from bit_checks import ISAS as PROMISED
from bit_checks import assert_same, assert_same_results, chain
from bounds import CHUNK, Analysis, Array, Results, _sum_of_chunks, bounds, check, ratios
from grids import grid, name_of
from memory_layouts import LAYOUTS
from refusals import giant, refused

import fastrnn
from fastrnn import _core, reference
from fastrnn._cures import an

ISAS = tuple(fastrnn.available_isas())
DTYPES = (np.float32, np.float64)
ARGUMENTS = ("x", "weight", "bias")
ROWS = (0, 1, 2, 3, 5, 7, 511, 512, 513, 1100)
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
both_backends = pytest.mark.parametrize("backend", ["compiled", "reference"])


class Spec(NamedTuple):
    N: int
    D: int
    O: int
    bias: bool = True

    def __str__(self) -> str:
        return f"N{self.N}-D{self.D}-O{self.O}" + "-bias" * self.bias


# Every D meets every O, every N meets every D and every O, and each of them both kinds of bias.
SPECS = tuple(
    Spec(ROWS[(i + j) % len(ROWS)], D, O, (i // 2 + j) % 2 == 0)
    for (i, D), (j, O) in itertools.product(enumerate(SIZES), enumerate(SIZES))
)
# Several chunks of rows of a weight gradient, several panels, tails of every tile; rows for a team.
SMALL = (Spec(3, 2, 3), Spec(7, 17, 33, False), Spec(13, 8, 16), Spec(1, 31, 100))
LARGE = (Spec(1100, 20, 100), Spec(513, 100, 33, False), Spec(37, 3, 300), Spec(2, 400, 65))


def each(specs: tuple[Spec, ...]) -> pytest.MarkDecorator:
    """Parametrise by problem, type and instruction set."""
    product = list(itertools.product(specs, DTYPES, PROMISED))
    return pytest.mark.parametrize(("spec", "dtype", "isa"), product, ids=name_of)


def draw(spec: Spec, dtype: Any) -> dict[str, Any]:
    """The arguments and d_output, from a fixed seed."""
    N, D, O, bias = spec
    rng = np.random.default_rng([N, D, O])
    shapes = {"x": (N, D), "weight": (O, D), "bias": (O,), "d_output": (N, O)}
    p: dict[str, Any] = {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}
    return p if bias else p | {"bias": None}


def run(functions: Any, p: dict[str, Any], wrt: Any = None, **options: Any) -> dict[str, Any]:
    """output and, as d_..., the gradient of every argument."""
    output, tape = functions.linear_forward(*(p[k] for k in ARGUMENTS), **options)
    grads = functions.linear_backward(tape, p["d_output"], wrt=wrt)
    assert grads._fields == ARGUMENTS
    return {"output": output, **{f"d_{k}": v for k, v in grads._asdict().items()}}


# -------------------------------------------------------------------------------- agreement


def analyse(p: dict[str, Any]) -> Analysis:
    """q of every result, by the rules of bounds.py: a sum of n terms has n (Q + S^2)."""
    x, w, d = (p[k].astype(np.float64) for k in ("x", "weight", "d_output"))
    b = np.zeros(len(w)) if p["bias"] is None else p["bias"].astype(np.float64)
    ones = np.ones((len(x), 1))
    values = {"output": b + x @ w.T, "d_x": d @ w, "d_weight": d.T @ x, "d_bias": d.sum(axis=0)}
    q = {
        "output": (1 + x.shape[1]) * (b**2 + x**2 @ w.T**2 + values["output"] ** 2),
        "d_x": len(w) * (d**2 @ w**2 + values["d_x"] ** 2),
    }
    plain = dict(q)
    for sums, chunk in ((q, CHUNK), (plain, max(len(x), 1))):
        sums["d_weight"] = _sum_of_chunks(d, x, chunk)
        sums["d_bias"] = _sum_of_chunks(d, ones, chunk)[:, 0]
    return Analysis(values, q, plain, {}, np.inf)


def prepared(spec: Spec, dtype: Any) -> tuple[dict[str, Any], dict[str, Any], Results]:
    """The problem, the truth (the reference in float64 on the same values) and the bounds."""
    p = draw(spec, dtype)
    wide = {k: None if v is None else v.astype(np.float64) for k, v in p.items()}
    return p, run(reference, wide), bounds(analyse(p), dtype, both=dtype is np.float64)


def compare(got: dict[str, Any], want: dict[str, Any], bound: Results, dtype: Any, where: str):
    """bounds.check, under names that the summary tells apart from those of other cells."""
    got, want, bound = ({f"linear {k}": v for k, v in r.items()} for r in (got, want, bound))
    check(got, want, bound, dtype, where)


@grid("spec, dtype", SPECS + LARGE, DTYPES, once=True)
def test_compiled_agrees_with_reference(spec: Spec, dtype: Any) -> None:
    p, truth, bound = prepared(spec, dtype)
    for isa in ISAS:
        fastrnn.set_isa(isa)
        compare(run(fastrnn, p), truth, bound, dtype, f"{spec} {isa}")


@pytest.mark.parametrize("spec", [*SPECS[::7], *LARGE], ids=str)
def test_the_reference_in_float32_keeps_the_bounds(spec: Spec) -> None:
    p, truth, _ = prepared(spec, np.float32)
    found = ratios(run(reference, p), truth, bounds(analyse(p), np.float32, both=True))
    assert max(found.values()) <= 1.0, found


@pytest.mark.parametrize("isa", ISAS)
def test_the_bounds_are_not_slack(isa: str) -> None:
    # In float32: the float64 reference may happen to add in the very order of the kernel.
    fastrnn.set_isa(isa)
    p, truth, bound = prepared(LARGE[0], np.float32)
    found = ratios(run(fastrnn, p), truth, bound)
    assert min(found.values()) > 0.02, found


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("spec", [Spec(1, 2, 3), *LARGE], ids=str)
def test_one_dropped_term_is_noticed(spec: Spec, dtype: Any) -> None:
    # A kernel that leaves out one product of one sum is off by that product: here the one of
    # median size, of the last row or column of each result.
    p, truth, bound = prepared(spec, dtype)
    x, w, d = (p[k].astype(np.float64) for k in ("x", "weight", "d_output"))
    products = {  # by element of that row, then by term
        "output": w * x[-1],
        "d_x": (d[-1, :, None] * w).T,
        "d_weight": (d[:, -1:] * x).T,
        "d_bias": d.T,
    }
    for name, terms in products.items():
        if truth[name] is None:
            continue
        middle = np.argsort(np.abs(terms), axis=None)[terms.size // 2]
        element, _ = np.unravel_index(middle, terms.shape)
        wrong = truth[name].copy()
        (wrong if name == "d_bias" else wrong[-1])[element] -= terms.flat[middle]
        ratio = ratios({**truth, name: wrong}, truth, bound)[name]
        assert ratio > 1.0, f"{name}: a dropped term is only {ratio:.3g} of the bound"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=str)
def test_reference_gradients_are_finite_differences(leading: Any, bias: bool) -> None:
    p = draw(Spec(6, 4, 5, bias), np.float64)
    n = int(np.prod(leading))
    p |= {k: p[k][:n].reshape(*leading, p[k].shape[1]) for k in ("x", "d_output")}
    got = run(reference, p)
    # The loss is linear in each argument, so differences are exact but for roundings: those of the
    # loss, of 30 terms below 10, are at most 30 * 30 * 10 u = 1e-12, and divided by 2 eps.
    eps, tolerance = 2.0**-10, 1e-12 * 2.0**9
    for name in ARGUMENTS:
        if p[name] is None:
            assert got[f"d_{name}"] is None
            continue
        numeric = np.empty_like(p[name])
        for index in np.ndindex(p[name].shape):
            sides = []
            for step in (eps, -eps):
                moved = p | {name: p[name].copy()}
                moved[name][index] += step
                output, _ = reference.linear_forward(*(moved[k] for k in ARGUMENTS))
                sides.append((output * p["d_output"]).sum())
            numeric[index] = (sides[0] - sides[1]) / (2 * eps)
        np.testing.assert_allclose(got[f"d_{name}"], numeric, rtol=0, atol=tolerance, err_msg=name)


# ----------------------------------------------------------------------------- the same bits


@each(SMALL + LARGE)
def test_threads(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    fastrnn.set_num_threads(1)
    alone = run(fastrnn, p)
    for n in (2, 3, 5):
        fastrnn.set_num_threads(n)
        before = _core.teams_run()
        assert_same_results(run(fastrnn, p), alone, f"{n} threads")
        # One row is one thread's work forward; backward partitions the gradient's rows too.
        teams = 1 if spec.N == 1 else 2
        assert _core.teams_run() >= before + teams or not _core.build_info()["openmp"]


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("spec", [*SPECS[::5], *SMALL, *LARGE], ids=str)
@pytest.mark.quick
def test_instruction_sets(spec: Spec, dtype: Any) -> None:
    p = draw(spec, dtype)
    fastrnn.set_isa(PROMISED[0])
    first = run(fastrnn, p)
    for isa in PROMISED[1:]:
        fastrnn.set_isa(isa)
        assert_same_results(run(fastrnn, p), first, f"{isa} and {PROMISED[0]}")


@each((Spec(14, 2, 3), Spec(14, 17, 33, False), *LARGE[:2]))
def test_rows_in_any_batch_and_order(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    fastrnn.set_num_threads(1)
    p = draw(spec, dtype)
    whole = run(fastrnn, p)
    rng = np.random.default_rng(1)
    batches = [[n] for n in range(0, spec.N, 1 if spec.N < 20 else 99)]  # alone
    batches += [list(range(n)) for n in (0, 2, 3, 5, 6, 7, 8)]  # other splits into tiles
    batches += [rng.permutation(spec.N).tolist(), rng.integers(0, spec.N, spec.N + 5).tolist()]
    for rows in batches:
        got = run(fastrnn, p | {k: p[k][rows] for k in ("x", "d_output")})
        for name in ("output", "d_x"):
            assert_same(got[name], whole[name][rows], f"{name} of rows {rows}")


@both_backends
@pytest.mark.parametrize("leading", [(), (12,), (4, 3), (2, 3, 2), (12, 1), (3, 0)], ids=str)
def test_leading_axes(leading: Any, backend: str) -> None:
    n = int(np.prod(leading))
    p = draw(Spec(n, 5, 7), np.float64)
    functions = fastrnn if backend == "compiled" else reference
    want = run(functions, p)
    p |= {k: p[k].reshape(*leading, p[k].shape[1]) for k in ("x", "d_output")}
    got = run(functions, p)
    assert got["output"].shape == (*leading, 7)
    assert got["d_x"].shape == (*leading, 5)
    for name in ("output", "d_x"):
        got[name] = got[name].reshape(want[name].shape)
    assert_same_results(got, want, f"leading axes {leading}")


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("spec", [Spec(12, 5, 7), Spec(12, 1, 1)], ids=str)
def test_layouts(spec: Spec, layout: Any, dtype: Any) -> None:
    p = draw(spec, dtype)
    p |= {k: p[k].reshape(4, 3, -1) for k in ("x", "d_output")}
    want = run(fastrnn, p)
    for name in p:
        other = p | {name: layout(p[name])}
        kept = other[name].copy()
        assert_same_results(run(fastrnn, other), want, f"{layout.__name__} {name}")
        assert np.array_equal(other[name], kept)
    want_one = run(fastrnn, p | {k: p[k][0, 0] for k in ("x", "d_output")})
    one = {k: layout(p[k][0])[0] for k in ("x", "d_output")}  # (D,), in whatever steps
    assert_same_results(run(fastrnn, p | one), want_one, f"{layout.__name__} row")


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (2,), (0, 1, 2)], ids=str)
def test_broadcast(axes: Any) -> None:
    p = draw(Spec(12, 5, 7), np.float32)
    p |= {k: p[k].reshape(4, 3, -1) for k in ("x", "d_output")}
    for name in ("x", "d_output"):
        one = p[name][tuple(slice(1) if i in axes else slice(None) for i in range(3))]
        wide = np.broadcast_to(one, p[name].shape)
        assert_same_results(
            run(fastrnn, p | {name: wide}), run(fastrnn, p | {name: wide.copy()}), f"{name} {axes}"
        )


def test_x_is_not_copied_where_its_rows_can_be_walked() -> None:
    p = draw(Spec(12, 5, 7), np.float64)
    wide = np.zeros((12, 9))
    for x in (p["x"], p["x"][::-1], wide[:, 2:7], np.broadcast_to(p["x"][0], (4, 3, 5))):
        _, tape = fastrnn.linear_forward(x, p["weight"])
        assert np.shares_memory(tape.x, x)
        assert tape.weight is p["weight"]


@each((SMALL[1], LARGE[0]))
def test_subsets_tapes_used_twice_and_copies(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    every = run(fastrnn, p)
    output, tape = fastrnn.linear_forward(*(p[k] for k in ARGUMENTS))
    assert_same(fastrnn.linear_forward(*(p[k] for k in ARGUMENTS), record=False)[0], output, "")
    for size in range(len(ARGUMENTS) + 1):
        for wrt in itertools.combinations(ARGUMENTS, size):
            grads = fastrnn.linear_backward(tape, p["d_output"], wrt=wrt)
            for name, value in grads._asdict().items():
                want = every[f"d_{name}"] if name in wrt else None
                assert_same(value, want, f"{name} of wrt={wrt}")
    for copied in (copy.copy(tape), copy.deepcopy(tape), pickle.loads(pickle.dumps(tape))):
        grads = fastrnn.linear_backward(copied, p["d_output"])
        for name, value in grads._asdict().items():
            assert_same(value, every[f"d_{name}"], name)


@each(SMALL + LARGE[:2])
def test_repeated_runs_whatever_ran_between(spec: Spec, dtype: Any, isa: str) -> None:
    # Scratch memory keeps what its last user left: a run full of NaN must not be seen.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    first = run(fastrnn, p)
    poison = draw(spec._replace(N=spec.N + 40, D=spec.D + 40), dtype)
    run(fastrnn, {k: None if v is None else np.full_like(v, np.nan) for k, v in poison.items()})
    fastrnn.softmax_cross_entropy(np.full((9, 100), np.nan, dtype), [0] * 9)
    assert_same_results(run(fastrnn, p), first, "after NaN")
    if spec.O > 1:
        target = np.arange(spec.N) % spec.O
        fastrnn.softmax_cross_entropy(np.full((9, 100), np.nan, dtype), [0] * 9)
        _, d = fastrnn.softmax_cross_entropy(p["d_output"], target)
        run(fastrnn, p)
        assert_same(d, fastrnn.softmax_cross_entropy(p["d_output"], target)[1], "cross-entropy")


@each((Spec(13, 5, 17), LARGE[0]))
def test_nan_stays_in_its_row(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    clean = run(fastrnn, p)
    others = np.arange(spec.N) != 7
    for name, reached in (("x", "output"), ("d_output", "d_x")):
        p[name][7, -1] = np.nan
        got = run(fastrnn, p)
        assert np.isnan(got[reached][7]).all()
        assert_same(got[reached][others], clean[reached][others], reached)


@pytest.mark.parametrize("isa", PROMISED)
@pytest.mark.parametrize("spec", [Spec(1100, 5, 11), Spec(3, 40, 7, False)], ids=str)
def test_the_order_of_every_sum(isa: str, spec: Spec) -> None:
    """One chain of multiply-adds from the bias, k ascending; d_x from +0 over the rows of W.

    Weight gradients: rows in chunks of 512, each one chain from +0, that are added in order.
    """
    fastrnn.set_isa(isa)
    p, zero = draw(spec, np.float32), np.float32(0)
    x, w, d = p["x"], p["weight"], p["d_output"]

    def summed(y: Array) -> Array:
        starts = range(0, spec.N, 512)
        chunks = [chain(zero, d[i : i + 512].T, y[i : i + 512].T) for i in starts]
        return functools.reduce(np.add, chunks)

    want = {"output": chain(zero if p["bias"] is None else p["bias"], x, w)}
    want |= {"d_x": chain(zero, d, w.T), "d_weight": summed(x), "d_bias": None}
    if spec.bias:
        want["d_bias"] = summed(np.ones((spec.N, 1), np.float32))[:, 0]
    assert_same_results(run(fastrnn, p), want, "in the documented order")


# -------------------------------------------------------------------------------- bad input

X, WEIGHT, BIAS = np.zeros((5, 3, 4)), np.zeros((6, 4)), np.zeros(6)
HUGE = {"weight": WEIGHT[:, :1]}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"x": [[1.0]]}, TypeError, "x is a list, expected a numpy.ndarray: pass np.asarray(x, "),
        ({"x": None}, TypeError, "x is None, expected a numpy.ndarray: it cannot be left"),
        ({"x": np.ma.array(X)}, TypeError, "x is a MaskedArray"),
        (
            {"x": X.astype(int)},
            TypeError,
            "x is int64, weight is float64: pass x.astype(np.float64)",
        ),
        ({"x": X.astype("f2")}, TypeError, "x is float16"),
        ({"x": X.astype("f4")}, TypeError, "x is float32, weight is float64: pass x.astype"),
        ({"weight": WEIGHT.astype("f4")}, TypeError, "weight is float32, x is float64"),
        ({"weight": None}, TypeError, "weight is None"),
        ({"bias": BIAS.astype("f4")}, TypeError, "bias is float32, x is float64"),
        ({"bias": 0.0}, TypeError, "bias is a float, expected a numpy.ndarray"),
        ({"x": np.array(1.0)}, ValueError, "x has shape (), expected (..., D)"),
        ({"x": X[..., :3]}, ValueError, "weight has shape (6, 4), expected (O, D) = (O, 3)"),
        ({"weight": WEIGHT.T}, ValueError, "weight has shape (4, 6), expected (O, D) = (O, 4)"),
        ({"weight": BIAS}, ValueError, "weight has shape (6,), expected (O, D)"),
        ({"bias": BIAS[:5]}, ValueError, "bias has shape (5,), expected (O,) = (6,)"),
        ({"bias": BIAS[None]}, ValueError, "bias has shape (1, 6), expected (O,) = (6,)"),
        ({"record": 1}, TypeError, "record is 1, expected True or False"),
        ({"check": None}, TypeError, "check is None"),
        # Sizes come before any copy: the second of these cannot be walked and would be copied.
        (HUGE | {"x": giant(2**29, 2**29, 1)}, ValueError, f"N x O = {2**58} x 6 elements is "),
        (HUGE | {"x": giant(2**58, 2)[:, :1]}, ValueError, "is larger than the address space"),
        ({"x": giant(2**58, 2), "weight": WEIGHT[:, :2]}, ValueError, "is larger than the address"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_forward_refuses(change: dict[str, Any], error: Any, text: str) -> None:
    arguments = {"x": X, "weight": WEIGHT, "bias": BIAS} | change
    refused(((), arguments), error, text, function="linear_forward")


D_OUTPUT = np.zeros((5, 3, 6))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tape": None}, TypeError, "tape is None (was it made with record=False?), expected"),
        (
            {"tape": (1, 2)},
            TypeError,
            "tape is a tuple, expected the LinearTape that linear_forward",
        ),
        ({"d_output": None}, TypeError, "d_output is None"),
        ({"d_output": D_OUTPUT.tolist()}, TypeError, "d_output is a list"),
        ({"d_output": np.ma.array(D_OUTPUT)}, TypeError, "d_output is a MaskedArray"),
        ({"d_output": D_OUTPUT.astype("f4")}, TypeError, "d_output is float32, the tape is float6"),
        ({"d_output": D_OUTPUT[:4]}, ValueError, "d_output has shape (4, 3, 6), expected (5, 3, 6"),
        ({"d_output": D_OUTPUT.reshape(15, 6)}, ValueError, "d_output has shape (15, 6)"),
        ({"d_output": D_OUTPUT[..., :1]}, ValueError, "d_output has shape (5, 3, 1)"),
        ({"wrt": "x"}, TypeError, "wrt is 'x', expected a collection of names out of 'x', 'weigh"),
        ({"wrt": 3}, TypeError, "wrt is 3"),
        ({"wrt": ["x", "w"]}, ValueError, "wrt holds 'w', expected names out of 'x', 'weight', "),
        ({"wrt": [1]}, ValueError, "wrt holds 1"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_backward_refuses(change: dict[str, Any], error: Any, text: str) -> None:
    tape = fastrnn.linear_forward(X, WEIGHT, BIAS)[1]
    arguments = {"tape": tape, "d_output": D_OUTPUT} | change
    refused(((), arguments), error, text, function="linear_backward")


def test_a_tape_of_another_kind() -> None:
    recurrent = fastrnn.rnn_forward(X, None, WEIGHT, np.zeros((6, 6)))[2]
    for tape in (recurrent, fastrnn.embedding_forward([0], WEIGHT)[1]):
        text = f"tape is {an(type(tape).__name__)}, expected the LinearTape"
        refused(((tape, D_OUTPUT), {}), TypeError, text, function="linear_backward")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("weight", s) for s in [(4, 6), (24,), (6, 4, 1), (1, 24), (6, 2, 2)]]
    + [("bias", s) for s in [(6, 1), (1, 6), (2, 3)]]
    + [("x", s) for s in [(12, 5), (60,), (15, 4, 1)]],
    ids=str,
)
def test_an_array_of_the_tape_reshaped_in_place(name: str, shape: tuple[int, ...]) -> None:
    # The caller's own weight and bias are the tape's; its x is a view, which only a vandal reaches.
    arrays = {"x": X, "weight": WEIGHT.copy(), "bias": BIAS.copy()}
    _, tape = fastrnn.linear_forward(*arrays.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of NumPy advise against it
        getattr(tape, name).shape = shape
    refused(((tape, D_OUTPUT), {}), ValueError, "another shape", function="linear_backward")


def test_a_tape_of_other_rows() -> None:
    # d_output is measured by the tape's shape, and the kernel reads as many rows as x has.
    _, tape = fastrnn.linear_forward(X, WEIGHT)
    for shape in ((1, 4), (5, 3, 3), (15,)):
        other = tape._replace(shape=shape)
        for functions in (reference, fastrnn):  # the one that would not read out of bounds first
            with pytest.raises(ValueError, match="another shape"):
                functions.linear_backward(other, np.zeros((*shape[:-1], 6)))


@both_backends
def test_check_notices_a_change(backend: str) -> None:
    arrays = draw(Spec(6, 4, 5), np.float64)
    with fastrnn.backend(backend):
        output, tape = fastrnn.linear_forward(arrays["x"], arrays["weight"], check=True)
        fastrnn.linear_backward(tape, output)
        for name in ("x", "weight"):
            arrays[name][-1, -1] *= -1
            with pytest.raises(RuntimeError, match=f"^{name} was changed between forward and back"):
                fastrnn.linear_backward(tape, output)
            arrays[name][-1, -1] *= -1
        fastrnn.linear_backward(tape, output)


@both_backends
@pytest.mark.parametrize("sizes", [(0, 4, 5), (6, 0, 5), (6, 4, 0), (0, 0, 0)], ids=str)
def test_sizes_of_zero(sizes: tuple[int, int, int], backend: str) -> None:
    p = draw(Spec(*sizes), np.float32)
    with fastrnn.backend(backend):
        got = run(fastrnn, p)
    assert_same(got["output"], np.broadcast_to(p["bias"], (sizes[0], sizes[2])), "output")
    assert not got["d_x"].any()
    assert not got["d_weight"].any()
    np.testing.assert_allclose(got["d_bias"], p["d_output"].sum(axis=0), rtol=1e-6, atol=1e-6)


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    for spec, dtype in itertools.product((SMALL[1], Spec(5, 9, 17), *LARGE), DTYPES):
        p = draw(spec, dtype)
        t = {k: None if v is None else torch.tensor(v, requires_grad=True) for k, v in p.items()}
        output = torch.nn.functional.linear(t["x"], t["weight"], t["bias"])
        output.backward(t["d_output"].detach())
        want = {"output": output.detach().numpy()}
        want |= {f"d_{k}": None if t[k] is None else t[k].grad.numpy() for k in ARGUMENTS}
        bound = bounds(analyse(p), dtype, both=True)
        for isa in ISAS:
            fastrnn.set_isa(isa)
            compare(run(fastrnn, p), want, bound, dtype, f"{spec} {isa} beside torch")
