"""NaN, infinity and subnormal numbers: to the bit, they stay where they belong."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bit_checks import (
    DTYPES,
    FIRST,
    ISAS,
    assert_same,
    assert_same_results,
    bits,
    each_once,
    forward,
    rows_of,
)
from bounds import Array, Problem, Spec, draw, processing_order, run, with_every_kind
from grids import grid
from marks import each_cell
from registry import KINDS, Cell

import fastrnn
from fastrnn.reference.nonlinearities import NONLINEARITIES

PLAIN = tuple(spec._replace(lengths=False, restart=False, reverse=False) for spec in FIRST)


@grid(
    "spec, dtype, isa, value",
    (*with_every_kind(Spec(6, 13, 5, 17, lengths=True)), *PLAIN),
    DTYPES,
    ISAS,
    (np.nan, np.inf, -np.inf),
)
@pytest.mark.quick
def test_nan_and_inf_stay_in_their_row(spec: Spec, dtype: Any, isa: str, value: float) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    if p.lengths is not None:
        p.lengths[4] = spec.T
    clean = run(fastrnn, p)
    others = [b for b in range(spec.B) if b != 4]
    # A gradient enters where the derivative is not zero.
    unit, last = unit_on(p, clean["output"][3, 4]), unit_on(p, clean["h_n"][4])
    for name, index in (
        ("x", (2, 4, spec.D - 1)),
        ("h_0", (4, -1)),
        ("c_0", (4, -1)),
        ("d_output", (3, 4, unit)),
        ("d_h_n", (4, last)),
        ("d_c_n", (4, -1)),
    ):
        if getattr(p, name) is None:
            continue
        array = getattr(p, name).copy()
        array[index] = value
        got = run(fastrnn, replace(p, **{name: array}))
        what = f"{value} in {name}"
        assert_same_results(rows_of(got, others), rows_of(clean, others), what)
        if name == "x":
            assert_same(got["output"][:2], clean["output"][:2], f"output before the {value}")
        reached = "d_x" if name.startswith("d_") else "output"
        assert (bits(got[reached][:, 4]) != bits(clean[reached][:, 4])).any(), what


def unit_on(p: Problem, output: Array) -> int:
    """A unit of an output at which the derivative of the nonlinearity is not zero."""
    if not (kinks := KINDS[p.kind].kinks):
        return int(output.argmax())
    f = NONLINEARITIES[p.options()["nonlinearity"]].f
    least, *others = (f(np.array(kink)) for kink in kinks)
    return int(((output > least) & (output < min(others, default=np.inf))).argmax())


@each_once(with_every_kind(Spec(8, 5, 5, 17), Spec(8, 5, 5, 17, reverse=True)))
def test_a_restart_stops_nan_both_ways(spec: Spec, dtype: Any, isa: str) -> None:
    # By selection: a product with zero would let it through.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    order = processing_order(spec.T, spec.reverse)
    restart = np.zeros((spec.T, spec.B), bool)
    restart[order[4], 2] = True
    p = replace(p, restart=restart)
    clean = run(fastrnn, p)

    x = p.x.copy()
    x[order[1], 2, 0] = np.nan
    got = run(fastrnn, replace(p, x=x))
    assert np.isnan(got["output"][order[1], 2]).all()
    assert_same(got["output"][order[4:]], clean["output"][order[4:]], "output after the restart")
    assert_same_results(got, clean, "after the restart", [f"{s}_n" for s in p.states])

    d_output = p.d_output.copy()
    d_output[order[6], 2, unit_on(p, clean["output"][order[6], 2])] = np.nan
    got = run(fastrnn, replace(p, d_output=d_output))
    assert np.isnan(got["d_x"][order[6], 2]).all()
    for name in ("d_x", "norms"):
        assert_same(got[name][order[:4]], clean[name][order[:4]], f"{name} before the restart")
    assert_same_results(got, clean, "before the restart", [f"d_{s}_0" for s in p.states])


@each_once((*with_every_kind(Spec(6, 7, 5, 17)), *PLAIN))
def test_subnormal_inputs_count_as_zero(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    rng = np.random.default_rng(4)
    small = np.finfo(dtype).smallest_normal

    def some(a: Array) -> Array:
        tiny = (small * rng.uniform(-0.99, 0.99, a.shape)).astype(dtype)
        return np.where(rng.random(a.shape) < 0.3, tiny, a)

    def flushed(a: Array) -> Array:
        return np.where(np.abs(a) < small, np.copysign(dtype(0), a), a)

    subnormal = p.change(some)
    got, want = run(fastrnn, subnormal), run(fastrnn, subnormal.change(flushed))
    assert_same_results(got, want, "subnormal and zero")


@each_once(tuple(s for s in with_every_kind(Spec(3, 7, 5, 17)) if KINDS[s.kind].silent))
def test_subnormal_results_become_zero(spec: Spec, dtype: Any, isa: str) -> None:
    # 0.01 of the smallest normal number, made from two normal ones.
    fastrnn.set_isa(isa)
    p = draw(spec._replace(b_ih=False, b_hh=False, h_0=False, c_0=False), dtype)
    root = np.sqrt(np.finfo(dtype).smallest_normal) * dtype(0.1)
    p = replace(p, x=np.full_like(p.x, root), w_ih=np.full_like(p.w_ih, root))
    *results, _ = forward(p)
    assert not any(a.any() for a in results)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", [*ISAS, "reference"])
def test_the_ends_of_hard_sigmoid(dtype: Any, isa: str) -> None:
    # 0 and 1 at -3 and 3, with the derivative 0, as just outside; inside it is 1/6. z + 3 is exact
    # at -3, and near 3 its two neighbours below may be rounded to 6.
    backend = "reference" if isa == "reference" else "compiled"
    if backend == "compiled":
        fastrnn.set_isa(isa)
    ends, out = np.array([-3, 3], dtype), np.array([-4, 4], dtype)
    eps = np.finfo(dtype).eps
    inside = np.array([-3 + 2 * eps, 3 - 8 * eps], dtype)
    z = np.concatenate([ends, np.nextafter(ends, out), [-np.inf, np.inf], inside, [0, np.nan]])
    with fastrnn.backend(backend):
        output, _, tape = fastrnn.rnn_forward(
            z.astype(dtype)[None, :, None], None, np.ones((1, 1), dtype), np.zeros((1, 1), dtype),
            nonlinearity="hard_sigmoid",
        )  # fmt: skip
        grads = fastrnn.rnn_backward(tape, np.ones_like(output))
    h, slope = output.ravel(), grads.x.ravel()
    assert h[:6].tolist() == [0, 1] * 3
    assert slope[:6].tolist() == [0] * 6
    assert 0 < h[6] < eps < 0.5 < h[7] < 1
    assert h[8] == 0.5
    assert np.isnan(h[9])
    assert (abs(slope[6:] - dtype(1) / 6) <= eps / 8).all()


SATURATED = with_every_kind(Spec(6, 5, 1, 17, lengths=True))


@each_once(tuple(spec for spec in SATURATED if KINDS[spec.kind].bounded))
def test_an_infinite_input_saturates(spec: Spec, dtype: Any, isa: str) -> None:
    # Gates of 0 and 1 and a slope of 0 are numbers like others: what a huge input does, and no NaN.
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    p.lengths[3] = spec.T
    huge, infinite = p.x.copy(), p.x.copy()
    huge[2, 3], infinite[2, 3] = -1e30, -np.inf
    want = run(fastrnn, replace(p, x=huge))
    assert all(np.isfinite(a).all() for a in rows_of(want, [3]).values())
    got = run(fastrnn, replace(p, x=infinite))
    assert_same_results(got, want, "infinite input", rows_of(want, [3]))


@each_cell
@pytest.mark.parametrize("value", [1e308, -1e308, 1e-320, np.inf, np.nan])
def test_the_users_error_state_of_numpy_does_not_enter(cell: Cell, value: float) -> None:
    # Sums of biases, products with weights, gradients: infinities and NaN are ordinary values.
    for backend in ("compiled", "reference"):
        with fastrnn.backend(backend), np.errstate(all="raise"):
            layer = cell.layer(3, 4, dtype="float64", rng=0)
            x = np.full((5, 2, 3), value)
            for weights in (layer.flat_weights, layer.weights["bias_ih_l0"]):
                layer.flat_weights[...] = 1.0
                weights[...] = value
                output, _, tape = layer.forward(x)
                layer.backward(tape, np.full_like(output, value))
