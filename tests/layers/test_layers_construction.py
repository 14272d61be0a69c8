"""What layers are made of: signatures, attributes, repr, refused arguments, initialisation."""

import inspect

import numpy as np
import pytest
from registry import CELLS, GATED, VARIANTS

import fastrnn

SIGNATURES = {
    fastrnn.RNN: {
        "input_size": 4, "hidden_size": 6, "num_layers": 2, "nonlinearity": "relu", "bias": False,
        "batch_first": True, "dropout": 0.25, "bidirectional": True,
    },
    fastrnn.LSTM: {
        "input_size": 4, "hidden_size": 6, "num_layers": 3, "bias": False, "batch_first": True,
        "dropout": 0.25, "bidirectional": True, "proj_size": 5,
    },
    fastrnn.GRU: {
        "input_size": 4, "hidden_size": 6, "num_layers": 2, "bias": False, "batch_first": True,
        "dropout": 0.25, "bidirectional": True,
    },
    fastrnn.LeakyRNN: {
        "input_size": 4, "hidden_size": 6, "num_layers": 2, "nonlinearity": "relu", "bias": False,
        "batch_first": True, "dropout": 0.25, "bidirectional": True,
    },
}  # fmt: skip
SHARED = {"reverse": False, "dtype": "float32", "rng": None, "init": "uniform"}
KEYWORDS = {
    fastrnn.RNN: SHARED,
    fastrnn.LSTM: {"peephole": False, "forget_bias": 0.0} | SHARED,
    fastrnn.GRU: {"reset_after": True} | SHARED,
    fastrnn.LeakyRNN: {"leak": 0.5, "form": "rate"} | SHARED,
}


@pytest.mark.parametrize("cls", [cell.layer for cell in CELLS.values()])
def test_signature_and_attributes(cls):
    parameters = inspect.signature(cls).parameters
    positional = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == list(SIGNATURES[cls])
    assert list(parameters)[len(positional) :] == list(KEYWORDS[cls])
    for name, default in KEYWORDS[cls].items():
        assert parameters[name].default == default
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    layer = cls(*SIGNATURES[cls].values())
    for name, value in SIGNATURES[cls].items():
        assert getattr(layer, name) == value
    assert layer.dtype == np.float32
    assert fastrnn.LSTM(4, 6, peephole=True, forget_bias=1).peephole is True
    assert fastrnn.LSTM(4, 6, forget_bias=1).forget_bias == 1.0
    assert fastrnn.GRU(4, 6, reset_after=False).reset_after is False


@pytest.mark.filterwarnings("ignore:dropout is 0.5 without effect")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "RNN(4, 8)"),
        ({"nonlinearity": "relu", "batch_first": True},
         "RNN(4, 8, nonlinearity='relu', batch_first=True)"),
        ({"bias": False, "dropout": 0.5, "dtype": np.float64},
         "RNN(4, 8, bias=False, dropout=0.5, dtype='float64')"),
    ],
)  # fmt: skip
def test_repr(options, text):
    assert repr(fastrnn.RNN(4, 8, **options, rng=1, init="orthogonal")) == text


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (fastrnn.RNN(4, 8, 2, bidirectional=True), "RNN(4, 8, num_layers=2, bidirectional=True)"),
        (fastrnn.RNN(4, 8, 2, reverse=True), "RNN(4, 8, num_layers=2, reverse=True)"),
        (fastrnn.LSTM(4, 8, proj_size=2, forget_bias=1),
         "LSTM(4, 8, proj_size=2, forget_bias=1.0)"),
        (fastrnn.LSTM(4, 8, 3, False, peephole=True),
         "LSTM(4, 8, num_layers=3, bias=False, peephole=True)"),
        (fastrnn.GRU(4, 8, reset_after=False, dtype="float64"),
         "GRU(4, 8, reset_after=False, dtype='float64')"),
    ],
)  # fmt: skip
def test_repr_of_others(layer, text):
    assert repr(layer) == text


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"input_size": -1}, ValueError, "input_size is -1, expected at least 0"),
        ({"input_size": 1.5}, TypeError, "input_size is 1.5, expected an integer"),
        ({"hidden_size": 0}, ValueError, "hidden_size is 0, expected at least 1"),
        ({"hidden_size": True}, TypeError, "hidden_size is True"),
        ({"hidden_size": 2**31}, ValueError, "larger than the address space"),
        ({"num_layers": 0}, ValueError, "num_layers is 0, expected at least 1"),
        ({"num_layers": 2.0}, TypeError, "num_layers is 2.0, expected an integer"),
        ({"bidirectional": 2}, TypeError, "bidirectional is 2, expected True or False"),
        ({"reverse": 1}, TypeError, "reverse is 1, expected True or False"),
        (
            {"reverse": True, "bidirectional": True},
            ValueError,
            "reverse is True, but a bidirectional layer runs in both directions: pass reverse=F",
        ),
        ({"nonlinearity": "sin"}, ValueError, "nonlinearity is 'sin'"),
        ({"bias": 1}, TypeError, "bias is 1, expected True or False"),
        ({"batch_first": None}, TypeError, "batch_first is None"),
        ({"dropout": 1.0}, ValueError, "dropout is 1.0, expected 0 <= dropout < 1"),
        ({"dropout": -0.1}, ValueError, "dropout is -0.1"),
        ({"dropout": float("nan")}, ValueError, "dropout is nan"),
        ({"dropout": "much"}, TypeError, "dropout is 'much'"),
        ({"dtype": "float16"}, TypeError, "dtype is 'float16', expected 'float32' or 'float64'"),
        ({"dtype": "no such type"}, TypeError, "dtype is 'no such type'"),
        ({"dtype": None}, TypeError, "dtype is None"),
        ({"dtype": ">f4"}, TypeError, "dtype is '>f4'"),
        ({"init": "zeros"}, ValueError, "init is 'zeros', expected 'uniform' or 'orthogonal'"),
    ],
)
def test_constructor_errors(options, error, text):
    with pytest.raises(error) as caught:
        fastrnn.RNN(**{"input_size": 4, "hidden_size": 6} | options)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "options", "error", "text"),
    [
        (fastrnn.LSTM, {"proj_size": 6}, ValueError,
         "proj_size is 6, expected less than hidden_size = 6, or 0 for no projection"),
        (fastrnn.LSTM, {"proj_size": -1}, ValueError, "proj_size is -1, expected at least 0"),
        (fastrnn.LSTM, {"proj_size": True}, TypeError, "proj_size is True, expected an integer"),
        (fastrnn.LSTM, {"peephole": 1}, TypeError, "peephole is 1, expected True or False"),
        (fastrnn.LSTM, {"forget_bias": "1"}, TypeError, "forget_bias is '1', expected a number"),
        (fastrnn.LSTM, {"forget_bias": np.inf}, ValueError,
         "forget_bias is inf, expected a finite number"),
        (fastrnn.LSTM, {"forget_bias": 1, "bias": False}, ValueError,
         "forget_bias is 1, but bias is False"),
        (fastrnn.GRU, {"reset_after": None}, TypeError, "reset_after is None"),
        (fastrnn.GRU, {"dropout": 1}, ValueError, "dropout is 1, expected 0 <= dropout < 1"),
        (fastrnn.GRU, {"hidden_size": 0}, ValueError, "hidden_size is 0, expected at least 1"),
        (fastrnn.GRU, {"nonlinearity": "tanh"}, TypeError, "nonlinearity"),
        (fastrnn.GRU, {"init": "zeros"}, ValueError, "init is 'zeros'"),
    ],
)  # fmt: skip
def test_constructor_errors_of_others(cls, options, error, text):
    with pytest.raises(error) as caught:
        cls(**{"input_size": 4, "hidden_size": 6} | options)
    assert text in str(caught.value)
    assert cls(4, 6, bias=False).flat_weights.size  # forget_bias=0 needs no bias


def shapes(layer):
    return {name: w.shape for name, w in layer.weights.items()}


def test_names_and_shapes_of_weights():
    assert shapes(fastrnn.RNN(4, 6, 2, bidirectional=True, bias=False)) == {
        "weight_ih_l0": (6, 4), "weight_hh_l0": (6, 6),
        "weight_ih_l0_reverse": (6, 4), "weight_hh_l0_reverse": (6, 6),
        "weight_ih_l1": (6, 12), "weight_hh_l1": (6, 6),
        "weight_ih_l1_reverse": (6, 12), "weight_hh_l1_reverse": (6, 6),
    }  # fmt: skip
    layer = fastrnn.LSTM(4, 6, 2, proj_size=5, peephole=True)
    assert list(shapes(layer).items()) == [
        ("weight_ih_l0", (24, 4)), ("weight_hh_l0", (24, 5)), ("bias_ih_l0", (24,)),
        ("bias_hh_l0", (24,)), ("weight_hr_l0", (5, 6)), ("weight_peephole_l0", (18,)),
        ("weight_ih_l1", (24, 5)), ("weight_hh_l1", (24, 5)), ("bias_ih_l1", (24,)),
        ("bias_hh_l1", (24,)), ("weight_hr_l1", (5, 6)), ("weight_peephole_l1", (18,)),
    ]  # fmt: skip
    assert shapes(fastrnn.GRU(4, 6)) == {
        "weight_ih_l0": (18, 4), "weight_hh_l0": (18, 6), "bias_ih_l0": (18,), "bias_hh_l0": (18,)
    }  # fmt: skip


def test_uniform_initialisation():
    layer = fastrnn.RNN(50, 64, rng=3)
    assert np.abs(layer.flat_weights).max() <= 1 / 8
    # 7424 draws: the mean's deviation is 1/8/sqrt(3·7424) = 8e-4.
    assert abs(layer.flat_weights.mean()) < 5e-3
    assert np.array_equal(layer.flat_weights, fastrnn.RNN(50, 64, rng=3).flat_weights)
    generator = np.random.default_rng(3)
    assert np.array_equal(layer.flat_weights, fastrnn.RNN(50, 64, rng=generator).flat_weights)
    assert not np.array_equal(layer.flat_weights, fastrnn.RNN(50, 64, rng=generator).flat_weights)
    double = fastrnn.RNN(50, 64, rng=3, dtype="float64").flat_weights
    assert np.array_equal(layer.flat_weights, double.astype(np.float32))


def test_orthogonal_initialisation():
    options = {"rng": 3, "dtype": "float64", "init": "orthogonal"}
    w_hh = fastrnn.RNN(4, 32, **options).weights["weight_hh_l0"]
    np.testing.assert_allclose(w_hh @ w_hh.T, np.eye(32), rtol=0, atol=1e-13)
    for variant in (VARIANTS[name] for name in GATED):
        layer = variant.layer(4, 32, 2, **options)
        for gate in np.split(layer.weights["weight_hh_l1"], variant.cell.gates):
            eye = np.eye(gate.shape[1])
            np.testing.assert_allclose(gate.T @ gate, eye, rtol=0, atol=1e-13)


@pytest.mark.parametrize("direction", [{}, {"bidirectional": True}, {"reverse": True}])
def test_forget_bias(direction):
    options = {"num_layers": 2, "rng": 3, "dtype": "float64"} | direction
    plain, biased = (fastrnn.LSTM(4, 6, forget_bias=b, **options) for b in (0, 1.5))
    for name, w in plain.weights.items():
        expected = w.copy()
        if name.startswith("bias_ih"):
            expected[6:12] += 1.5
        assert np.array_equal(biased.weights[name], expected)
