"""Pre-activations given in the place of W_ih x: `w_ih=None` of every cell's functions.

With the identity for w_ih, a product with x is x: each sum has one term that is not zero. So what
functions give without w_ih has the bits of what they give with that, and a one-hot x those of the
columns that it picks. (That holds where x is finite, and for "generic" too: products with 1 and
with 0 are exact.)
"""

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bit_checks import DTYPES, LARGE, SMALL, assert_same_results, each, rows_of, take
from bounds import (
    Problem,
    Spec,
    analyse,
    bounds,
    check,
    draw,
    processing_order,
    run,
    with_variants_in_turn,
)
from grids import grid, name_of
from marks import each_variant
from reference_cells import LENGTHS, RESTART, all_walks, check_gradients, upstream
from registry import CELLS, KINDS, VARIANTS, Cell, Variant

import fastrnn
from fastrnn import _core, reference

ISAS = tuple(fastrnn.available_isas())

# Around the lanes of every instruction set and panels of four vectors.
UNITS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)


def given(p: Problem) -> Problem:
    """The problem whose x is the pre-activations that this one's has, rounded."""
    x = p.x.astype(np.float64) @ p.w_ih.T.astype(np.float64)
    return replace(p, x=x.astype(p.x.dtype), w_ih=None)


def by_identity(p: Problem) -> Problem:
    return replace(p, w_ih=np.eye(len(p.w_hh), dtype=p.w_hh.dtype))


# ------------------------------------------------------------------------------ bits


@each(SMALL + LARGE)
@pytest.mark.quick
def test_the_bits_of_an_identity(spec: Spec, dtype: Any, isa: str) -> None:
    p = given(draw(spec, dtype))
    for name in {isa, *ISAS} if spec in SMALL else {isa}:
        fastrnn.set_isa(name)
        for threads in (1, 2):
            fastrnn.set_num_threads(threads)
            got, want = run(fastrnn, p), run(fastrnn, by_identity(p))
            assert got["d_w_ih"] is None
            np.testing.assert_array_equal(got["d_x"], want["d_x"])  # of which -0 becomes +0
            names = set(want) - {"d_x", "d_w_ih"}
            assert_same_results(got, want, f"{name}, {threads} threads", names)


EDGES = [(0, 3), (2, 0), (1, 1), (3, 1), (3, 2), (2, 7)]


@grid("variant, H, dtype, isa", VARIANTS.values(), UNITS, DTYPES, ISAS)
def test_the_bits_of_a_one_hot_x(variant: Variant, H: int, dtype: Any, isa: str) -> None:
    if "projection" in variant.extras and H == 1:
        H = 2  # a projection makes it smaller
    fastrnn.set_isa(isa)
    for (T, B), threads in zip(EDGES, (1, 1, 2, 1, 2, 2), strict=True):
        fastrnn.set_num_threads(threads)
        walk = {"lengths": B > 1, "restart": T > 2, "reverse": T == 2}
        p = draw(Spec(T, B, 5, H, **walk).of(variant), dtype)
        indices = np.random.default_rng(H).integers(0, 5, (T, B))
        hot = replace(p, x=np.eye(5, dtype=dtype)[indices])
        x, _ = fastrnn.embedding_forward(indices, np.ascontiguousarray(p.w_ih.T))
        got, want = run(fastrnn, replace(p, x=x, w_ih=None)), run(fastrnn, hot)
        assert_same_results(got, want, f"T={T}, B={B}", set(want) - {"d_x", "d_w_ih"})
        # The rows of the gradient of x, added where they were picked, in the order of backward.
        rows = got["d_x"][processing_order(T, not p.reverse)].reshape(T * B, len(p.w_hh))
        picked = indices[processing_order(T, not p.reverse)].reshape(T * B, 1)
        for v in range(5):
            terms = np.where(picked == v, rows, dtype(0))
            total = np.cumsum(terms, axis=0)[-1] if T * B else 0
            np.testing.assert_array_equal(want["d_w_ih"][:, v], total)


@each(SMALL)
def test_rows_do_not_see_each_other(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = given(draw(spec, dtype))
    rows = np.arange(spec.B)[::-2]
    assert_same_results(run(fastrnn, take(p, rows)), rows_of(run(fastrnn, p), rows), str(spec))


@grid("cell, dtype, isa", CELLS.values(), DTYPES, ISAS)
def test_nan_stays_in_its_row_and_padding_is_not_read(cell: Cell, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    spec = with_variants_in_turn(Spec(6, 5, 2, 17, lengths=True))[list(CELLS.values()).index(cell)]
    p = given(draw(spec, dtype))
    want = run(fastrnn, p)
    t, b = np.nonzero(np.arange(6)[:, None] >= p.lengths)
    p.x[t, b] = np.nan
    assert_same_results(run(fastrnn, p), want, "with NaN in padding")
    sick = int(np.argmax(p.lengths))
    p.x[0, sick] = np.inf
    p.x[0, sick, ::2] = np.nan
    others = [row for row in range(5) if row != sick]
    got = run(fastrnn, p)
    assert_same_results(rows_of(got, others), rows_of(want, others), "beside a row of NaN")
    assert np.isnan(got["output"][:, sick]).any()


@grid("cell, dtype", CELLS.values(), DTYPES)
def test_x_as_it_lies_in_memory(cell: Cell, dtype: Any) -> None:
    spec = next(s for s in SMALL if KINDS[s.kind].cell is cell and s.B > 1)
    p = given(draw(spec, dtype))
    want = run(fastrnn, p)
    wide = np.zeros((*p.x.shape[:2], p.x.shape[2] + 3), dtype)
    wide[..., 1:-2] = p.x
    forms = [
        np.asfortranarray(p.x), p.x[::-1].copy()[::-1], wide[..., 1:-2],
        np.ascontiguousarray(p.x.swapaxes(0, 1)).swapaxes(0, 1),
    ]  # fmt: skip
    for x in forms:
        assert_same_results(run(fastrnn, replace(p, x=x)), want, str(x.strides))
    one = p.x[:1, :1]
    spread, whole = np.broadcast_to(one, p.x.shape), np.tile(one, (*p.x.shape[:2], 1))
    assert_same_results(
        run(fastrnn, replace(p, x=spread)), run(fastrnn, replace(p, x=whole)), "zero strides"
    )


@pytest.mark.skipif(not _core.build_info()["openmp"], reason="one thread without OpenMP")
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_how_it_is_run(cell: Cell) -> None:
    # There is no input projection that a second thread could make.
    fastrnn.set_num_threads(2)
    for B, H, way, threads in (
        (1, 7, "by rows", 1),
        (1, 100, "by units", 2),
        (64, 9, "by rows", 2),
    ):
        rows = cell.gates * H
        x, w_hh = np.zeros((40, B, rows), np.float32), np.zeros((rows, H), np.float32)
        leaks = dict.fromkeys(cell.required, 0.5)
        cell.forward()(x, *[None] * len(cell.states), None, w_hh, **leaks)
        plan = _core.last_plan()
        assert (plan["way"], plan["threads"]) == (way, threads)


# ------------------------------------------------------------------------------ values

AGREEMENT = with_variants_in_turn(
    Spec(5, 3, 2, 3),
    Spec(12, 13, 7, 17, lengths=True, restart=True, reverse=True),
    Spec(40, 1, 3, 33, unbatched=True, b_ih=False),
    Spec(70, 9, 3, 31, b_hh=False, restart=True),
    Spec(20, 2, 5, 100, h_0=False, reverse=True),
)


@grid("spec, dtype, isa", AGREEMENT, DTYPES, ISAS, once=True)
def test_it_agrees_with_the_reference(spec: Spec, dtype: Any, isa: str) -> None:
    # A term that is added to a sum is a product with 1: the bounds are those of the identity.
    fastrnn.set_isa(isa)
    p = given(draw(spec, dtype))
    bound = bounds(analyse(by_identity(p)), dtype, both=dtype is np.float64)
    truth = run(reference, p.astype(np.float64))
    assert truth["d_w_ih"] is None
    check(run(fastrnn, p), truth, bound, dtype, f"{spec} {isa}, given")


def arrays_of(variant: Variant, **sizes: Any) -> dict[str, Any]:
    """As variant.arrays(), with pre-activations."""
    arrays = variant.arrays(**sizes)
    x, w_ih = arrays["x"], arrays["w_ih"]
    return arrays | {"x": x @ w_ih.T, "w_ih": None}


@each_variant
@all_walks
def test_gradients_of_the_reference(variant: Variant, walk: dict[str, Any]) -> None:
    check_gradients(variant, arrays_of(variant), walk)


@each_variant
def test_the_reference_as_with_an_identity(variant: Variant) -> None:
    arrays = arrays_of(variant)
    eye = np.eye(len(arrays["w_hh"]))
    for walk in ({}, {"lengths": LENGTHS, "restart": RESTART, "reverse": True}):
        output, states, tape = variant.forward(**arrays, **walk)
        want = variant.forward(**arrays | {"w_ih": eye}, **walk)
        for a, b in zip((output, *states), (want[0], *want[1]), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
        up = upstream(output, states)
        got = variant.backward(tape, up.output, up.states)._asdict()
        grads = variant.backward(want[2], up.output, up.states)._asdict()
        for name, gradient in got.items():
            if gradient is not None:
                np.testing.assert_allclose(gradient, grads[name], rtol=0, atol=1e-12, err_msg=name)


@each_variant
def test_noise_before_the_activation(variant: Variant) -> None:
    # A step whose pre-activation is moved by what x is moved by.
    arrays = arrays_of(variant, T=1)
    noise = np.linspace(-1, 1, arrays["x"].size).reshape(arrays["x"].shape)
    moved = variant.forward(fastrnn, **arrays | {"x": arrays["x"] + noise[:, :1]})[0]
    bias = arrays["b_ih"] + noise[0, 0]
    want = variant.forward(fastrnn, **arrays | {"b_ih": bias})[0]
    np.testing.assert_allclose(moved, want, rtol=0, atol=1e-13)


# ------------------------------------------------------------------------------ tapes

backends = pytest.mark.parametrize("module", [fastrnn, reference], ids=name_of)


@backends
@each_variant
def test_the_tape(variant: Variant, module: Any) -> None:
    arrays = arrays_of(variant)
    output, _, tape = variant.forward(module, **arrays, check=True)
    assert "T=5, B=3, D=None, H=3, " in repr(tape)
    assert tape.w_ih is None
    assert "w_ih" in tape._absent()
    want = variant.backward(tape, output, module=module)
    assert want.w_ih is None
    assert want.x.shape == arrays["x"].shape
    for again in (pickle.loads(pickle.dumps(tape)), copy.deepcopy(tape), copy.copy(tape)):
        for other in (fastrnn, reference):
            got = variant.backward(again, output, module=other)
            for a, b in zip(got, want, strict=True):
                assert (a is None) == (b is None)
                assert a is None or np.allclose(a, b, rtol=0, atol=1e-12)
    only = variant.backward(tape, output, module=module, wrt=["x", "w_ih"])._asdict()
    assert np.array_equal(only.pop("x"), want.x)
    assert set(only.values()) == {None}
    norms = module.gradient_norms(tape, output)
    assert norms.shape == (5, 3)
    arrays["x"][0, 0, 0] += 1
    for function in (variant.backward, module.gradient_norms):
        with pytest.raises(RuntimeError, match="x was changed between"):
            function(tape, output)


@backends
@each_variant
def test_a_tape_is_not_believed(variant: Variant, module: Any) -> None:
    arrays = arrays_of(variant)
    output, _, tape = variant.forward(module, **arrays)
    x = arrays["x"]
    for changed in (
        {"x": x[..., :-1].copy()},
        {"x": np.concatenate([x, x], axis=-1)},
        {"x": x.astype(np.float32)},
        {"w_ih": np.zeros((x.shape[-1], 2))},
        {"w_hh": np.zeros((2 * len(arrays["w_hh"]), arrays["w_hh"].shape[1]))},
    ):
        with pytest.raises(ValueError, match="another shape or dtype in place"):
            variant.backward(tape._replace(**changed), output, module=module)
    ordinary = variant.forward(module, **variant.arrays())[2]
    with pytest.raises(ValueError, match="another shape or dtype in place"):
        variant.backward(ordinary._replace(w_ih=None), output, module=module)


# ------------------------------------------------------------------------------ wrong calls


def refused(variant: Variant, module: Any, arrays: dict[str, Any], *parts: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        variant.forward(module, **arrays)
    for part in parts:
        assert part in str(caught.value), caught.value


@backends
@each_variant
def test_shapes_that_do_not_fit(variant: Variant, module: Any) -> None:
    arrays = arrays_of(variant)
    x, rows = arrays["x"], len(arrays["w_hh"])
    letters = "H" if variant.cell.gates == 1 else f"{variant.cell.gates}·H"
    why = f"expected (T, B, {letters}) = (5, 3, {rows}), because w_ih is None"
    for wrong in (x[..., :-1], np.concatenate([x, x], axis=-1), x[..., :0], x[..., :2]):
        refused(variant, module, arrays | {"x": wrong}, f"x has shape {wrong.shape}", why)
    alone = {n: a if a is None or n[-2:] != "_0" else a[0] for n, a in arrays.items()}
    short = alone | {"x": x[:, 0, 1:]}
    refused(variant, module, short, f"expected (T, {letters}) = (5, {rows}), because w_ih is None")
    for rank in (0, 1, 4):
        refused(variant, module, arrays | {"x": np.zeros((2,) * rank)}, "x has shape ")
    for name in ("w_hh", "b_ih", "b_hh"):
        refused(variant, module, arrays | {name: arrays[name][:-1]}, " has shape ")
    moved = arrays | {"w_hh": variant.arrays()["w_ih"], "b_ih": arrays["w_hh"]}
    refused(variant, module, moved, "w_ih is None and b_ih has shape", "leave out a None")


@backends
@each_variant
def test_types_that_do_not_fit(variant: Variant, module: Any) -> None:
    arrays = arrays_of(variant)
    for name, value, text in (
        ("x", arrays["x"].astype(np.float32), "x is float32, h_0 is float64"),
        ("x", arrays["x"].astype(int), "x is int64"),
        ("x", None, "x is None"),
        ("w_hh", None, "w_hh is None"),
        ("b_ih", 0.5, "pass np.full\\(len\\(w_hh\\), b_ih, np.float64\\)"),
        ("w_ih", False, "w_ih is a bool, expected a numpy.ndarray"),
    ):
        with pytest.raises(TypeError, match=text):
            variant.forward(module, **arrays | {name: value})
