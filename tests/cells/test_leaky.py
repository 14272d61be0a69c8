"""Leaky networks: what their equations and the leak as an argument promise beyond other cells.

What holds for every cell is tested with the kinds of the registry; here every form has every
nonlinearity.
"""

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Spec, analyse, bounds, check, draw, run
from grids import grid
from reference_cells import RESTART
from refusals import refused
from registry import KINDS, leaky

import fastrnn
from fastrnn import reference
from fastrnn.reference.leaky import FORMS
from fastrnn.reference.nonlinearities import NONLINEARITIES

DTYPES = (np.float32, np.float64)
ISAS = tuple(fastrnn.available_isas())
ALL = tuple(itertools.product(FORMS, NONLINEARITIES))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_form = pytest.mark.parametrize("form", FORMS)
every_function = pytest.mark.parametrize("f", NONLINEARITIES)
both_backends = pytest.mark.parametrize("functions", [fastrnn, reference], ids=["own", "reference"])


def problem(H: int = 17, T: int = 6, B: int = 3, D: int = 4, dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(H)
    shapes = {"x": (T, B, D), "h_0": (B, H), "w_ih": (H, D), "w_hh": (H, H), "b_ih": (H,)}
    scales = {"w_hh": 0.7 / np.sqrt(H)}
    return {
        name: (scales.get(name, 1.0) * rng.standard_normal(shape)).astype(dtype)
        for name, shape in shapes.items()
    }


def forward_and_back(functions: Any, cell: str = "leaky", **arguments: Any) -> tuple[Any, Any, Any]:
    """Output, state and gradients, upstream gradients of ones."""
    output, h_n, tape = getattr(functions, f"{cell}_forward")(**arguments)
    grads = getattr(functions, f"{cell}_backward")(tape, np.ones_like(output), np.ones_like(h_n))
    return output, h_n, grads


def same(a: Any, b: Any) -> bool:
    return bool(np.shape(a) == np.shape(b) and np.asarray(a).tobytes() == np.asarray(b).tobytes())


SPECS = (
    Spec(7, 5, 4, 17, lengths=True, restart=True, h_0=False),
    Spec(6, 1, 3, 33, reverse=True),
    Spec(5, 13, 2, 9, b_ih=False, lengths=True, restart=True, reverse=True),
    Spec(9, 4, 16, 1, upstream="d_output", restart=True),
)


@grid("form_and_f, spec, dtype, isa", ALL, SPECS, DTYPES, ISAS)
def test_every_form_agrees_with_the_reference(
    form_and_f: tuple[str, str], spec: Spec, dtype: Any, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, f = form_and_f
    elman = KINDS[f]
    kind = leaky(form, f, elman.norm, kinks=elman.kinks, bounded=False, silent=elman.silent)
    monkeypatch.setitem(KINDS, f"{form}-{f}", kind)
    fastrnn.set_isa(isa)
    p = draw(spec._replace(kind=f"{form}-{f}"), dtype)
    truth = run(reference, p.astype(np.float64))
    bound = bounds(analyse(p), dtype, both=dtype is np.float64)
    check(run(fastrnn, p), truth, bound, dtype, f"{form} {f} {spec} {isa}")


# ------------------------------------------------------------------------ one number for all units


@every_dtype
@every_form
@both_backends
@pytest.mark.parametrize("leak", [0.3, 1, np.float32(0.7), np.array(0.2), -0.25, 1.5])
def test_a_number_has_the_bits_of_an_array(
    functions: Any, form: str, dtype: Any, leak: Any
) -> None:
    arrays = problem(dtype=dtype) | {"form": form}
    one = forward_and_back(functions, **arrays, leak=leak)
    many = forward_and_back(functions, **arrays, leak=np.full(17, leak, dtype))
    assert same(one[0], many[0])
    assert same(one[1], many[1])
    for name, gradient in one[2]._asdict().items():
        if name != "leak":
            assert same(gradient, getattr(many[2], name)), name
    total = 0.0
    for d in many[2].leak:
        total += float(d)
    assert one[2].leak.shape == ()
    assert one[2].leak.dtype == dtype
    assert same(one[2].leak, dtype(total))


@both_backends
def test_a_tape_with_a_number_travels(functions: Any) -> None:
    output, h_n, tape = functions.leaky_forward(**problem(), leak=0.3, form="potential", check=True)
    want = functions.leaky_backward(tape, output, h_n)
    assert type(tape.leak) is float
    for other in (pickle.loads(pickle.dumps(tape)), copy.deepcopy(tape), copy.copy(tape)):
        assert other.leak == 0.3
        for a, b in zip(functions.leaky_backward(other, output, h_n), want, strict=True):
            assert (a is None and b is None) or same(a, b)
    tape.w_hh[0, 0] += 1.0
    with pytest.raises(RuntimeError, match="w_hh"):
        functions.leaky_backward(tape, output)


def test_a_leak_that_changes_is_noticed() -> None:
    leak = np.full(17, 0.3)
    output, _, tape = fastrnn.leaky_forward(**problem(), leak=leak, check=True)
    leak[3] = 0.4
    with pytest.raises(RuntimeError, match="leak"):
        fastrnn.leaky_backward(tape, output)


# ------------------------------------------------------------------------ what the equations say


@grid("f, dtype, isa, T", NONLINEARITIES, DTYPES, ISAS, (1, 6, 300))
def test_rates_with_a_leak_of_one_are_an_elman_network(
    f: str, dtype: Any, isa: str, T: int
) -> None:
    fastrnn.set_isa(isa)
    for H, B in ((1, 1), (17, 3), (33, 1)):
        arrays = problem(H, T, B, dtype=dtype)
        if f in ("relu", "identity"):
            arrays["w_hh"] *= 0.5
        arrays |= {"lengths": [T] + [T // 2] * (B - 1), "nonlinearity": f}
        elman = forward_and_back(fastrnn, "rnn", **arrays)
        ours = forward_and_back(fastrnn, **arrays, leak=1.0)
        assert same(ours[0], elman[0])
        assert same(ours[1], elman[1])
        for name, gradient in elman[2]._asdict().items():
            assert (gradient is None) or same(getattr(ours[2], name), gradient), name


@every_dtype
@every_form
@every_function
@both_backends
def test_a_leak_of_zero_keeps_the_state(functions: Any, form: str, f: str, dtype: Any) -> None:
    arrays = problem(dtype=dtype)
    output, h_n, grads = forward_and_back(functions, **arrays, leak=0.0, form=form, nonlinearity=f)
    assert (h_n == arrays["h_0"]).all()
    assert (output == output[0]).all()
    if form == "rate":
        assert (output == arrays["h_0"]).all()
        assert (grads.h_0 == 1.0 + len(arrays["x"])).all()
    for name in ("x", "w_ih", "w_hh", "b_ih"):
        assert not getattr(grads, name).any()
    assert grads.leak.any()


@every_form
@pytest.mark.parametrize("leak", [-0.5, 1.5, 3.0])
def test_leaks_beyond_0_and_1_are_as_they_are(form: str, leak: float) -> None:
    arrays = problem(T=4)
    output, h_n, _ = fastrnn.leaky_forward(**arrays, leak=leak, form=form)
    state = arrays["h_0"]
    for t, x in enumerate(arrays["x"]):
        h = np.tanh(state) if form == "potential" else state
        z = x @ arrays["w_ih"].T + h @ arrays["w_hh"].T + arrays["b_ih"]
        state = (1 - leak) * state + leak * (z if form == "potential" else np.tanh(z))
        want = np.tanh(state) if form == "potential" else state
        # A few hundred roundings a step, each grown by no more than 1 + |leak| (1 + |W_hh|).
        np.testing.assert_allclose(output[t], want, 1e-11, 1e-11)
    np.testing.assert_allclose(h_n, state, 1e-11, 1e-11)


@every_dtype
@every_form
@pytest.mark.parametrize("isa", ISAS)
def test_nan_in_a_leak_stays_in_its_unit_until_the_next_step(
    form: str, dtype: Any, isa: str
) -> None:
    fastrnn.set_isa(isa)
    for H, unit in ((17, 16), (33, 3), (2, 0)):
        arrays, leak = problem(H, dtype=dtype), np.full(H, 0.3, dtype)
        clean, _, _ = forward_and_back(fastrnn, **arrays, leak=leak, form=form)
        leak[unit] = np.nan
        output, _, _ = forward_and_back(fastrnn, **arrays, leak=leak, form=form)
        others = np.arange(H) != unit
        assert np.isnan(output[0, :, unit]).all()
        assert same(output[0][:, others], clean[0][:, others])
        assert np.isnan(output[1:]).all()
        # Of one step, what does not go through W_ih stays apart too.
        one = arrays | {"x": arrays["x"][:1]}
        _, _, grads = forward_and_back(fastrnn, **one, leak=leak, form=form)
        assert np.isfinite(grads.leak[others]).all()
        assert np.isfinite(grads.w_hh[others]).all()


@pytest.mark.parametrize("isa", ISAS)
@every_dtype
@every_function
def test_of_potentials_a_start_is_f_of_zero(f: str, dtype: Any, isa: str) -> None:
    """No h_0, an h_0 of zeros and a restart: v is 0 and W_hh multiplies f(0), forward and back."""
    fastrnn.set_isa(isa)
    for H, B in ((1, 1), (17, 3), (33, 1)):
        arrays = problem(H, B=B, dtype=dtype) | {"leak": 0.5, "form": "potential"}
        zeros = arrays | {"h_0": np.zeros_like(arrays["h_0"]), "nonlinearity": f}
        none = zeros | {"h_0": None}
        restart = np.zeros(arrays["x"].shape[:2], bool)
        restart[0] = True
        restarted = arrays | {"nonlinearity": f, "restart": restart}
        results = [forward_and_back(fastrnn, **given) for given in (zeros, none, restarted)]
        for output, h_n, grads in results[1:]:
            assert same(output, results[0][0])
            assert same(h_n, results[0][1])
            for name in ("x", "w_ih", "w_hh", "b_ih", "leak"):
                assert same(getattr(grads, name), getattr(results[0][2], name)), name
        assert not results[2][2].h_0.any()
        # Of one step from nothing the gradient of W_hh is dz times f(0).
        one = none | {"x": arrays["x"][:1]}
        _, _, grads = forward_and_back(fastrnn, **one)
        zero = NONLINEARITIES[f].f(np.zeros((), dtype))
        dz = grads.b_ih[:, None]
        np.testing.assert_allclose(
            grads.w_hh, np.broadcast_to(dz * zero, (H, H)), 8 * np.finfo(dtype).eps
        )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("restart", [None, RESTART], ids=["no restart", "restart"])
@pytest.mark.parametrize("lengths", [None, [5, 0, 3]], ids=["all", "lengths"])
@pytest.mark.parametrize("start", [False, True])
@every_form
def test_compiled_finite_differences(
    form: str, start: bool, lengths: Any, restart: Any, reverse: bool
) -> None:
    """With sigmoid, of which f(0) is not 0."""
    arrays: dict[str, Any] = problem(5, 5, 3, 2) | {"leak": 0.4}
    if not start:
        arrays["h_0"] = None
    options = {"lengths": lengths, "restart": restart, "reverse": reverse, "form": form}
    options["nonlinearity"] = "sigmoid"
    rng = np.random.default_rng(2)
    d_output, d_h_n = rng.standard_normal((5, 3, 5)), rng.standard_normal((3, 5))

    def loss(given: dict[str, Any]) -> float:
        output, h_n, _ = fastrnn.leaky_forward(**given, **options, record=False)
        return float((output * d_output).sum() + (h_n * d_h_n).sum())

    *_, tape = fastrnn.leaky_forward(**arrays, **options)
    grads = fastrnn.leaky_backward(tape, d_output, d_h_n)._asdict()
    step = 1e-5
    for name, array in arrays.items():
        if array is None:
            continue
        direction = rng.standard_normal(np.shape(array))
        ahead, behind = (
            loss(arrays | {name: array + sign * step * direction}) for sign in (1.0, -1.0)
        )
        # The third derivative times step^2, and roundings of the loss over the step.
        found = float((grads[name] * direction).sum())
        assert abs((ahead - behind) / (2 * step) - found) < 1e-8 * max(1.0, abs(found)), name


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("leak", "error", "text"),
    [
        (None, TypeError, "leak is None, expected a numpy.ndarray: it cannot be left out"),
        ([0.3] * 17, TypeError, "leak is a list"),
        (True, TypeError, "leak is True, expected a number"),
        ("0.3", TypeError, "leak is '0.3', expected a number"),
        (0.3j, TypeError, "leak is 0.3j, expected a number"),
        (np.inf, ValueError, "leak is inf, expected a number that is finite in float64"),
        (np.nan, ValueError, "leak is nan, expected a number that is finite in float64"),
        ([[1], [1, 2]], TypeError, "leak is a list, expected a numpy.ndarray"),
        (np.ones(17, np.float32), TypeError, "leak is float32, x is float64"),
        (np.ones(17, int), TypeError, "leak is int64, x is float64"),
        (np.ones(16), ValueError, "leak has shape (16,), expected (H,) = (17,)"),
        (np.ones(1), ValueError, "leak has shape (1,), expected (H,) = (17,)"),
        (np.ones((17, 1)), ValueError, "leak has shape (17, 1), expected (H,) = (17,)"),
    ],
)
def test_leaks_that_are_refused(leak: Any, error: Any, text: str) -> None:
    refused(((), problem() | {"leak": leak}), error, text, function="leaky_forward")


def test_a_leak_is_required() -> None:
    refused(((), problem()), TypeError, "argument: 'leak'", function="leaky_forward")


@pytest.mark.parametrize("form", ["rates", "Potential", None, 1, ["rate"]])
def test_forms_that_are_refused(form: Any) -> None:
    arguments = problem() | {"leak": 0.3, "form": form}
    error = ValueError if isinstance(form, str) else TypeError
    text = f"form is {form!r}, expected 'rate' or 'potential'"
    refused(((), arguments), error, text, function="leaky_forward")


def test_a_number_too_large_for_float32() -> None:
    arguments = problem(dtype=np.float32) | {"leak": 1e39}
    refused(((), arguments), ValueError, "finite in float32", function="leaky_forward")


@pytest.mark.parametrize("form", ["rate", "potential"])
@pytest.mark.parametrize(
    "leak", [0.3, np.float64(0.3), 1, np.array(0.3), np.float32(0.3)], ids=repr
)
@pytest.mark.parametrize("rows", [(), (1,), (4,), (0,)], ids=str)
def test_a_step_with_a_number(form: str, leak: Any, rows: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        x, h = (rng.standard_normal((*rows, n)).astype(dtype) for n in (3, 17))
        w_ih, w_hh, b = (rng.standard_normal(s).astype(dtype) for s in ((17, 3), (17, 17), 17))
        options = {"form": form, "nonlinearity": "sigmoid"}
        whole = np.full(17, float(leak), dtype)
        want = fastrnn.leaky_step(x, h, w_ih, w_hh, b, leak=whole, **options)
        assert_same(fastrnn.leaky_step(x, h, w_ih, w_hh, b, leak=leak, **options), want, "new")
        assert fastrnn.leaky_step(x, h, w_ih, w_hh, b, leak=leak, **options, out=h) is h
        assert_same(h, want, "in place")


@pytest.mark.parametrize(
    "w_hh",
    [np.ones((2, 2), "M8[s]"), np.ones((2, 2), "V8"), np.ones((2, 2), np.int8), np.ones(2), None,
     np.ones((2, 2), np.float16), np.broadcast_to(np.ones((2, 1)), (2, 2**40))],
    ids=lambda w: str(getattr(w, "dtype", w)),
)  # fmt: skip
def test_a_number_is_not_looked_at_before_the_weights(w_hh: Any) -> None:
    x, w_ih = np.ones(1), np.ones((2, 1))
    for function in (fastrnn.leaky_step, fastrnn.reference.leaky_step):
        with pytest.raises((TypeError, ValueError), match=r"^w_hh "):
            function(x, None, w_ih, w_hh, leak=1e5)


@pytest.mark.parametrize("module", [fastrnn, reference], ids=["compiled", "reference"])
@pytest.mark.parametrize(("made", "claimed"), list(itertools.permutations(FORMS)))
def test_a_tape_of_the_other_form(module: Any, made: str, claimed: str) -> None:
    output, _, tape = fastrnn.leaky_forward(**problem(), leak=0.3, form=made)
    with pytest.raises(ValueError, match="another shape or dtype in place"):
        module.leaky_backward(tape._replace(form=claimed), output)
