"""What the optimisers are given: refused before anything moves, or taken as it is meant."""

import copy
import math
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from numpy.lib.stride_tricks import as_strided
from test_optim import both_types, each

import fastrnn
from fastrnn.optim import SGD, Adam


def read_only() -> Array:
    a = np.ones(2)
    a.flags.writeable = False
    return a


def used_up() -> Any:
    arrays = (a for a in [np.ones(2)])
    assert len(list(arrays)) == 1
    return arrays


def both_whole_and_by_name() -> list[Array]:
    layer = fastrnn.RNN(3, 4, rng=0)
    return [layer.flat_weights, layer.weights["bias_hh_l0"]]


SHARED = np.ones(6)


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        (None, TypeError, "params is None, expected a list of arrays"),
        (1.0, TypeError, "params is a float"),
        ("weights", TypeError, "params is a str"),
        ({"a": np.ones(2)}, TypeError, "params is a dict"),
        ([1.0], TypeError, "params holds a float, expected arrays"),
        ([np.ones(2), None], TypeError, "params[1] is None"),
        (
            [np.ones(2), np.ones(2, int)],
            TypeError,
            "params[1] is int64, expected float32 or float6",
        ),
        (np.ma.array([1.0]), TypeError, "params is a MaskedArray"),
        ([np.ones(2, ">f8")], ValueError, "params[0] is not in native byte order"),
        ([np.ones(2), read_only()], ValueError, "params[1] is read-only"),
        (np.broadcast_to(1.0, 3), ValueError, "params is read-only"),
        ([], ValueError, "params is empty, expected at least one array"),
        ((), ValueError, "params is empty"),
        (used_up(), ValueError, "params is empty"),
        (
            fastrnn.RNN(3, 4, rng=0).weights,
            TypeError,
            "expected a list of arrays: pass layer.flat_weights, of",
        ),
        ([SHARED, SHARED], ValueError, "params[1] shares memory with params[0]"),
        ([np.ones(2), SHARED, SHARED[2:3]], ValueError, "params[2] shares memory with params[1]"),
        ([SHARED[:3], SHARED[2:]], ValueError, "params[1] shares memory with params[0]"),
        ([SHARED[::2], SHARED[::3]], ValueError, "params[1] shares memory with params[0]"),
        ([SHARED.reshape(2, 3), SHARED[::-1]], ValueError, "params[1] shares memory with params[0"),
        (
            as_strided(SHARED, (2, 3), (8, 8)),
            ValueError,
            "params[0] has elements that share memory",
        ),
        (as_strided(SHARED, (3,), (0,)), ValueError, "params[0] has elements that share memory"),
        (both_whole_and_by_name(), ValueError, "params[1] shares memory with params[0]"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_parameters_refused(kind: Any, params: Any, error: Any, text: str) -> None:
    with pytest.raises(error) as caught:
        kind(params, lr=0.1)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "error", "text"),
    [
        (SGD, {"lr": -0.1}, ValueError, "lr is -0.1, expected a finite number >= 0"),
        (SGD, {"lr": math.nan}, ValueError, "lr is nan"),
        (SGD, {"lr": math.inf}, ValueError, "lr is inf"),
        (SGD, {"lr": None}, TypeError, "lr is None, expected a number"),
        (
            SGD,
            {"lr": 0.1, "momentum": 1.0},
            ValueError,
            "momentum is 1.0, expected 0 <= momentum <",
        ),
        (SGD, {"lr": 0.1, "momentum": "0.9"}, TypeError, "momentum is '0.9'"),
        (Adam, {"lr": -1}, ValueError, "lr is -1"),
        (Adam, {"betas": (0.9,)}, TypeError, "betas is (0.9,), expected two numbers"),
        (Adam, {"betas": "0.9"}, TypeError, "betas is '0.9'"),
        (Adam, {"betas": (-0.1, 0.9)}, ValueError, "betas[0] is -0.1"),
        (Adam, {"betas": (0.9, None)}, TypeError, "betas[1] is None"),
        (Adam, {"eps": 0}, ValueError, "eps is 0, expected a finite number > 0"),
        (Adam, {"eps": math.nan}, ValueError, "eps is nan"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_numbers_refused(kind: Any, options: Any, error: Any, text: str) -> None:
    with pytest.raises(error) as caught:
        kind(np.ones(2), **options)
    assert text in str(caught.value)


@each
@pytest.mark.parametrize(
    ("grads", "error", "text"),
    [
        ([np.ones(2)], ValueError, "grads has 1 array, expected 2"),
        (np.ones(2), ValueError, "grads has 1 array, expected 2"),
        ([np.ones(2), np.ones(3), np.ones(1)], ValueError, "grads has 3 arrays"),
        ([np.ones(2), np.ones(4)], ValueError, "grads[1] has shape (4,), expected (3,)"),
        ([np.ones(2), np.ones((1, 3))], ValueError, "grads[1] has shape (1, 3), expected (3,)"),
        ([np.ones(2), np.array(1.0)], ValueError, "grads[1] has shape ()"),
        ([np.ones(2), np.ones(3, "f4")], TypeError, "grads[1] is float32, params[1] is float64"),
        ([np.ones(2), None], TypeError, "grads[1] is None, expected a numpy.ndarray"),
        ([np.ones(2), [1.0] * 3], TypeError, "grads[1] is a list"),
        (
            {"a": np.ones(2)},
            TypeError,
            "grads is a dict, expected a list of arrays: pass grads.values()",
        ),
        (None, TypeError, "grads is None"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_gradients_refused(kind: Any, options: Any, grads: Any, error: Any, text: str) -> None:
    params = [np.ones(2), np.ones(3)]
    optimiser = kind(params, **options)
    before = optimiser.state_dict()
    with pytest.raises(error) as caught:
        optimiser.step(grads)
    assert text in str(caught.value)
    assert all((p == 1).all() for p in params)  # nothing was done
    assert all(np.array_equal(v, before[k]) for k, v in optimiser.state_dict().items())


@each
def test_interleaved_parameters(kind: Any, options: Any) -> None:
    # They share nothing, though each lies within the other's bounds.
    together, alone = np.arange(12.0), np.arange(12.0)
    matrix = together[6:].reshape(3, 2)
    optimiser = kind([together[:6:2], together[1:6:2], *matrix.T], **options)
    other = kind(alone, **options)
    grads = np.linspace(-1, 1, 12)
    for _ in range(3):
        optimiser.step([grads[:6:2], grads[1:6:2], *grads[6:].reshape(3, 2).T])
        other.step(grads)
    assert_same(together, alone, "the parameters")


def test_a_layer_is_no_array() -> None:
    layer = fastrnn.RNN(3, 4, rng=0)
    output, _, tape = layer.forward(np.ones((2, 1, 3), np.float32))
    grads = layer.backward(tape, output)
    adam = Adam([layer.flat_weights])
    for use, text in (
        (lambda: Adam(layer), "params is an RNN, expected a list of arrays: pass p"),
        (lambda: SGD([np.ones(1), layer], 0.1), "params[1] is an RNN, expected an array: pass ["),
        (lambda: adam.step([grads]), "grads holds a LayerGradients, expected arrays"),
    ):  # fmt: skip
        with pytest.raises(TypeError) as caught:
            use()
        assert text in str(caught.value)
        assert "flat_weights" in str(caught.value)
    adam.step(grads.flat_weights)
    adam.step(grads)
    assert adam.step_count == 2


def test_the_cures_cure() -> None:
    layer = fastrnn.GRU(3, 4, rng=0)
    adam = Adam(layer.weights.values())
    layer_2 = copy.deepcopy(layer)
    whole = Adam(layer_2.flat_weights)
    grads = np.linspace(-1, 1, layer.flat_weights.size, dtype=np.float32)
    own = dict(zip(layer.weights, np.split(grads, np.cumsum([w.size for w in adam.params])[:-1]),
                   strict=True))  # fmt: skip
    own = {name: g.reshape(layer.weights[name].shape) for name, g in own.items()}
    with pytest.raises(TypeError, match=r"pass grads\.values\(\)"):
        adam.step(own)
    adam.step(own.values())
    whole.step(grads)
    assert_same(layer.flat_weights, layer_2.flat_weights, "by name or whole")


class Unmoved:
    """Asserts that what happens inside raises this, and that neither parameters nor state move."""

    def __init__(self, optimiser: Any, error: Any, text: str) -> None:
        self.optimiser, self.error, self.text = optimiser, error, text

    def look(self) -> list[Any]:
        state = self.optimiser.state_dict().values()
        return [np.array(v, copy=True) for v in (*self.optimiser.params, *state)]

    def __enter__(self) -> None:
        self.before = self.look()

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        assert kind is not None, "nothing was raised"
        if not issubclass(kind, self.error):
            return False
        assert self.text in str(value)
        for before, after in zip(self.before, self.look(), strict=True):
            assert np.array_equal(before, after)
        return True


@each
def test_a_gradient_that_is_another_parameter(kind: Any, options: Any) -> None:
    memory = np.arange(1.0, 13.0)
    params = [memory[:3], memory[3:6], np.ones(3)]
    optimiser = kind(params, **options)
    optimiser.step([np.ones(3)] * 3)  # one gradient thrice is only read
    for i, j, gradient in (
        (0, 1, params[1]), (1, 0, params[0]), (2, 0, params[0]), (0, 2, params[2]),
        (2, 1, memory[5:8]), (2, 0, memory[:6:2]), (2, 0, memory[2::-1]),
        (1, 0, memory[2:5]), (1, 0, memory.view(Subclass)[:3]),
    ):  # fmt: skip
        grads = [np.ones(3), np.ones(3), np.ones(3)]
        grads[i] = gradient
        text = f"grads[{i}] shares memory with params["
        with Unmoved(optimiser, ValueError, text):
            optimiser.step(grads)
        with Unmoved(optimiser, ValueError, f"params[{j}]"):
            optimiser.step(grads)
        grads[i] = gradient.copy()  # as the error says
        optimiser.step(grads)
    # Its own parameter is a fine gradient: it shrinks.
    own = [p.copy() for p in params]
    copied = kind(own, **options)
    fresh = kind(params, **options)
    fresh.step(params)
    copied.step([p.copy() for p in own])
    for p, q in zip(params, own, strict=True):
        assert_same(p, q, "its own parameter as the gradient")


class Subclass(np.ndarray[Any, Any]):
    pass


def test_a_gradient_that_is_another_layer_s_weights() -> None:
    a, b = fastrnn.RNN(3, 4, rng=0), fastrnn.RNN(3, 4, rng=1)
    adam = Adam([a.flat_weights, b.flat_weights])
    with Unmoved(adam, ValueError, "grads[0] shares memory with params[1]"):
        adam.step([b.flat_weights, np.ones_like(a.flat_weights)])
    by_name = Adam(a.weights.values())
    grads = list(a.weights.values())
    grads[2], grads[3] = grads[3], grads[2]  # the two biases, exchanged
    with Unmoved(by_name, ValueError, "grads[0] is params[0], the weights themselves"):
        by_name.step(grads)
    with Unmoved(by_name, ValueError, "shares memory with params["):
        by_name.step([g.copy() if i < 2 else g for i, g in enumerate(grads)])


@each
@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # from NumPy 2.5 on
def test_parameters_that_changed_their_form(kind: Any, options: Any) -> None:
    def grads(*shapes: Any, dtype: Any = np.float64) -> list[Array]:
        return [np.ones(shape, dtype) for shape in shapes]

    def fresh() -> tuple[Any, Array]:
        last = np.ones((2, 2))
        optimiser = kind([np.ones(3), last], **options)
        optimiser.step(grads(3, (2, 2)))
        return optimiser, last

    optimiser, last = fresh()
    last.flags.writeable = False
    with Unmoved(optimiser, ValueError, "params[1] is read-only"):
        optimiser.step(grads(3, (2, 2)))
    last.flags.writeable = True
    optimiser.step(grads(3, (2, 2)))

    for name, value, shape, dtype in (
        ("shape", (4,), (4,), "f8"),
        ("shape", (1, 4), (1, 4), "f8"),
        ("dtype", np.dtype("i8"), (2, 2), "f8"),
        ("dtype", np.dtype(">f8"), (2, 2), "f8"),
        ("dtype", np.dtype("f4"), (2, 4), "f4"),
        ("strides", (8, 16), (2, 2), "f8"),
    ):
        optimiser, last = fresh()
        before = getattr(last, name)
        setattr(last, name, value)
        for given in (shape, (2, 2)):
            with Unmoved(optimiser, ValueError, "params[1] is "):
                optimiser.step([np.ones(3), np.ones(given, dtype)])
        setattr(last, name, before)  # as the error says
        optimiser.step(grads(3, (2, 2)))


@each
@both_types
def test_where_numpy_raises(kind: Any, options: Any, dtype: Any) -> None:
    tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    values = np.array([0, 1, -1, tiny, -tiny, huge, -huge, np.inf, np.nan, 1e-30], dtype)
    plain, strict = np.ones(10, dtype), np.ones(10, dtype)
    one, two = kind(plain, **options), kind(strict, **options)
    for rate in (options.get("lr", 1e-3), 1e-300, 1e300):
        one.lr = two.lr = rate
        for _ in range(3):
            one.step(values)
            with np.errstate(all="raise"):
                two.step(values)
        assert_same(strict, plain, "the parameters")
    for name, value in one.state_dict().items():
        assert np.array_equal(two.state_dict()[name], value, equal_nan=True), name


@both_types
def test_huge_gradients_do_not_stop_adam(dtype: Any) -> None:
    # The first step is the rate, whatever the gradient; then it forgets.
    for value in (1.0, np.sqrt(np.finfo(dtype).max) * 2, np.sqrt(np.finfo(dtype).max) * 25):
        p = np.array([1.0, 1.0], dtype)
        adam = Adam(p, lr=0.1)
        adam.step(np.array([value, -value], dtype))
        np.testing.assert_allclose(p, [0.9, 1.1], rtol=1e-6)
        assert np.isfinite(adam.state_dict()["exp_avg_sq.0"]).all()
        for _ in range(1000):
            adam.step(np.ones(2, dtype))
        assert (np.abs(p - 1) > 0.5).all()


def test_numbers_of_any_kind_are_loaded() -> None:
    p = np.ones(2)
    adam = Adam(p)
    adam.step(np.ones(2))
    state = adam.state_dict() | {
        "lr": np.float32(0.5), "eps": np.array(0.25), "step_count": np.int16(7),
        "betas": np.array([0.5, 0.75]),
    }  # fmt: skip
    adam.load_state_dict(state)
    assert (adam.lr, adam.eps, adam.step_count, adam.betas) == (0.5, 0.25, 7, (0.5, 0.75))
    assert [type(v) for v in (adam.lr, adam.eps, adam.step_count)] == [float, float, int]


def test_a_mean_of_squares_is_not_negative() -> None:
    adam = fastrnn.optim.Adam([np.ones(2)])
    state = adam.state_dict()
    wrong = state | {"exp_avg_sq.0": np.array([1.0, -1.0]), "lr": 0.5}
    with pytest.raises(ValueError, match=r"d\['exp_avg_sq.0'\] holds negative"):
        adam.load_state_dict(wrong)
    assert adam.lr == state["lr"]
