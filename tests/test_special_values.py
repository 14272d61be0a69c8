"""NaN, infinity and subnormal numbers: to the bit, they stay where they belong."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bounds import ARGUMENTS, Spec, draw, processing_order, run
from test_bits import assert_same, assert_same_results, bits, each, rows_of

import fastrnn


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@each((Spec(6, 13, 5, 17), Spec(6, 13, 5, 17, "relu", lengths=True), Spec(40, 37, 20, 100)))
def test_nan_and_inf_stay_in_their_row(spec: Spec, dtype: Any, isa: str, value: float) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    if p.lengths is not None:
        p.lengths[4] = spec.T
    clean = run(fastrnn, p)
    others = [b for b in range(spec.B) if b != 4]
    # A gradient enters at units that are on, or relu stops it.
    unit, last = int(clean["output"][3, 4].argmax()), int(clean["h_n"][4].argmax())
    for name, index in (
        ("x", (2, 4, spec.D - 1)),
        ("h_0", (4, spec.H - 1)),
        ("d_output", (3, 4, unit)),
        ("d_h_n", (4, last)),
    ):
        array = getattr(p, name).copy()
        array[index] = value
        got = run(fastrnn, replace(p, **{name: array}))
        what = f"{value} in {name}"
        assert_same_results(rows_of(got, others), rows_of(clean, others), what)
        if name == "x":
            assert_same(got["output"][:2], clean["output"][:2], f"output before the {value}")
        reached = "output" if name in ("x", "h_0") else "d_x"
        assert (bits(got[reached][:, 4]) != bits(clean[reached][:, 4])).any(), what


@each((Spec(8, 5, 5, 17), Spec(8, 5, 5, 17, "relu", reverse=True)))
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
    assert_same(got["h_n"], clean["h_n"], "h_n")

    d_output = p.d_output.copy()
    d_output[order[6], 2, clean["output"][order[6], 2].argmax()] = np.nan  # a unit that is on
    got = run(fastrnn, replace(p, d_output=d_output))
    assert np.isnan(got["d_x"][order[6], 2]).all()
    assert_same(got["d_x"][order[:4]], clean["d_x"][order[:4]], "d_x before the restart")
    assert_same(got["d_h_0"], clean["d_h_0"], "d_h_0")


@each((Spec(6, 7, 5, 17), Spec(6, 7, 5, 17, "relu"), Spec(40, 37, 20, 100)))
def test_subnormal_inputs_count_as_zero(spec: Spec, dtype: Any, isa: str) -> None:
    fastrnn.set_isa(isa)
    p = draw(spec, dtype)
    rng = np.random.default_rng(4)
    small = np.finfo(dtype).smallest_normal
    subnormal, zero = {}, {}
    for name in (*ARGUMENTS, "d_output", "d_h_n"):
        value = getattr(p, name)
        here = rng.random(value.shape) < 0.3
        tiny = (small * rng.uniform(-0.99, 0.99, value.shape)).astype(dtype)
        subnormal[name] = np.where(here, tiny, value)
        zero[name] = np.where(here, np.copysign(dtype(0), tiny), value)
    got = run(fastrnn, replace(p, **subnormal))
    assert_same_results(got, run(fastrnn, replace(p, **zero)), "subnormal and zero")


@each((Spec(3, 7, 5, 17), Spec(3, 7, 5, 17, "relu")))
def test_subnormal_results_become_zero(spec: Spec, dtype: Any, isa: str) -> None:
    # 0.01 of the smallest normal number, made from two normal ones.
    fastrnn.set_isa(isa)
    p = draw(spec._replace(b_ih=False, b_hh=False, h_0=False), dtype)
    root = np.sqrt(np.finfo(dtype).smallest_normal) * dtype(0.1)
    p = replace(p, x=np.full_like(p.x, root), w_ih=np.full_like(p.w_ih, root))
    output, h_n, _ = fastrnn.rnn_forward(*p.arrays(), **p.options())
    assert not output.any()
    assert not h_n.any()
