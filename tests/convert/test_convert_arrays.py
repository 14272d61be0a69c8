"""from_arrays and to_arrays: NumPy code in every layout, run as it is written and as a layer.

The loops below are written for any order of gates and layout; what a layer made of their weights
gives is compared with them, and the gradients in that layout with finite differences of them.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import fastrnn
from fastrnn.convert import from_arrays, to_arrays

Array = NDArray[Any]
T, B, D, H = 5, 3, 2, 4

# Sums of at most 8 terms of order one, over 5 steps whose errors add up: 8 · 5 · 8 gates and
# elementwise operations · 2^-53 = 4e-14. A gate or sign in a wrong place is off by more than 1e-3.
CLOSE = 8 * 5 * 8 * 2.0**-53


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


class Loop:
    """A network as somebody may have written it: its arrays, and its loop."""

    def __init__(
        self,
        cell: str,
        order: str,
        transposed: bool,
        joined: str | None,
        update_gate: str,
        reset_after: bool,
        biases: int,
    ) -> None:
        self.cell, self.order, self.transposed, self.joined = cell, order, transposed, joined
        self.update_gate, self.reset_after = update_gate, reset_after
        rng = np.random.default_rng(len(order))
        rows = len(order) * H
        shapes: dict[str, tuple[int, ...]] = {"w_ih": (rows, D), "w_hh": (rows, H)}
        if joined:
            shapes = {"w": (rows, D + H)}
        self.arrays = {
            name: rng.standard_normal(shape[::-1] if transposed else shape)
            for name, shape in shapes.items()
        }
        self.arrays |= {name: rng.standard_normal(rows) for name in ("b_ih", "b_hh")[:biases]}

    @property
    def layout(self) -> dict[str, Any]:
        """What both functions are told alike."""
        found: dict[str, Any] = {"order": self.order, "transposed": self.transposed}
        return (
            found
            | {"update_gate": self.update_gate}
            | ({"joined": self.joined} if self.joined else {})
        )

    def layer(self) -> Any:
        options = {"reset_after": self.reset_after} if self.cell == "gru" else {}
        return from_arrays(self.cell, **self.arrays, **self.layout, **options)

    def gates(self, x: Array, h: Array, part: str = "xh") -> dict[str, Array]:
        """What goes into each gate: of x, of h, or of both."""
        a = self.arrays
        if self.joined:
            w = a["w"].T if self.transposed else a["w"]
            sizes = {"x": D, "h": H}
            first, second = self.joined
            w_of = {first: w[:, : sizes[first]], second: w[:, sizes[first] :]}
        else:
            w_of = {"x": a["w_ih"], "h": a["w_hh"]}
            if self.transposed:
                w_of = {name: w.T for name, w in w_of.items()}
        z = np.zeros((len(x), len(self.order) * H))
        if "x" in part:
            z = z + x @ w_of["x"].T + a.get("b_ih", 0)
        if "h" in part:
            z = z + h @ w_of["h"].T + a.get("b_hh", 0)
        return dict(zip(self.order, np.split(z, len(self.order), axis=1), strict=True))

    def run(self, x: Array) -> Array:
        h = c = np.zeros((B, H))
        output = []
        for x_t in x:
            g = self.gates(x_t, h)
            if self.cell == "rnn":
                h = np.tanh(g[self.order])
            elif self.cell == "lstm":
                new = np.tanh(g["c" if "c" in g else "g"])
                c = sigmoid(g["f"]) * c + sigmoid(g["i"]) * new
                h = sigmoid(g["o"]) * np.tanh(c)
            else:
                n = "h" if "h" in g else "n"
                r, z = sigmoid(g["r"]), sigmoid(g["z"])
                if self.reset_after:
                    of_h = r * self.gates(x_t, h, "h")[n]
                else:
                    of_h = self.gates(x_t, r * h, "h")[n]
                new = np.tanh(self.gates(x_t, h, "x")[n] + of_h)
                h = (1 - z) * new + z * h if self.update_gate == "keeps" else (1 - z) * h + z * new
            output.append(h)
        return np.stack(output)


LOOPS = {
    f"{cell}-{order}": (cell, order)
    for cell, letters in zip(
        ("rnn", "lstm", "lstm", "gru", "gru"), ("h", "ifgo", "ifoc", "rzn", "zrh"), strict=True
    )
    for order in map("".join, itertools.permutations(letters))
}  # fmt: skip


@pytest.mark.parametrize("biases", [0, 1, 2])
@pytest.mark.parametrize("joined", [None, "xh", "hx"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("update_gate", ["keeps", "takes"])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("name", LOOPS)
def test_a_layer_gives_the_numbers_of_the_loop_and_its_arrays_back(
    name: str,
    reset_after: bool,
    update_gate: str,
    transposed: bool,
    joined: str | None,
    biases: int,
) -> None:
    cell, order = LOOPS[name]
    if cell != "gru":
        reset_after, update_gate = False, "keeps"
    loop = Loop(cell, order, transposed, joined, update_gate, reset_after, biases)
    x = np.random.default_rng(0).standard_normal((T, B, D))
    layer = loop.layer()
    assert layer.dtype == np.float64
    np.testing.assert_allclose(layer(x)[0], loop.run(x), rtol=0, atol=CLOSE)
    back = to_arrays(layer, **loop.layout, one_bias=biases == 1)
    assert set(back) == set(loop.arrays)
    for key, a in loop.arrays.items():
        assert_array_equal(back[key], a)
        assert back[key].flags.c_contiguous
        assert not np.shares_memory(back[key], layer.flat_weights)


@pytest.mark.parametrize("biases", [1, 2])
@pytest.mark.parametrize(
    "how",
    [  # cell, order, transposed, joined, update_gate, reset_after
        ("rnn", "h", True, "hx", "keeps", False),
        ("lstm", "fiog", True, "xh", "keeps", False),
        ("lstm", "gifo", False, None, "keeps", False),
        ("gru", "zrh", True, "hx", "takes", False),
        ("gru", "zrn", False, "xh", "takes", True),
    ],
)
def test_gradients_are_those_of_the_loop(how: Any, biases: int) -> None:
    loop = Loop(*how, biases)
    rng = np.random.default_rng(1)
    x, d_output = rng.standard_normal((T, B, D)), rng.standard_normal((T, B, H))
    layer = loop.layer()
    _, _, tape = layer.forward(x)
    grads = to_arrays(layer.backward(tape, d_output), **loop.layout, one_bias=biases == 1)
    assert set(grads) == set(loop.arrays)
    for key, a in loop.arrays.items():
        for at in np.ndindex(*a.shape):
            kept, losses, step = a[at], [], 1e-5
            for sign in (1, -1):
                a[at] = kept + sign * step
                losses.append(float((loop.run(x) * d_output).sum()))
            a[at] = kept
            # Central differences: the third derivative times step^2 / 6, 2e-11 times what it is;
            # and the rounding of losses near 10, 1e-15, over 2e-5.
            np.testing.assert_allclose(
                grads[key][at], (losses[0] - losses[1]) / (2 * step), rtol=1e-7, atol=2e-9
            )


@pytest.mark.parametrize("cell", fastrnn.layers.RECURRENT)
def test_gradients_of_functions_are_taken_too(cell: str) -> None:
    layer = fastrnn.layers.RECURRENT[cell](D, H, dtype="float64", rng=0)
    x = np.random.default_rng(0).standard_normal((T, B, D))
    output, _, tape = layer.forward(x)
    grads = layer.backward(tape, output)
    own = getattr(fastrnn, f"{cell}_backward")(tape.tapes[0], output)
    found, wanted = (to_arrays(g, transposed=True) for g in (own, grads))
    assert found.keys() == wanted.keys()
    for name, a in found.items():
        assert_array_equal(a, wanted[name])


def test_what_an_lstm_and_a_leaky_layer_have_besides() -> None:
    rng = np.random.default_rng(0)
    w_ih, w_hh, w_hr, w_peep = (rng.standard_normal(s) for s in ((16, D), (16, 3), (3, 4), (12,)))
    layer = from_arrays("lstm", w_ih=w_ih, w_hh=w_hh, w_hr=w_hr, w_peep=w_peep, order="ofig")
    o, f, i = np.split(w_peep, 3)
    assert_array_equal(layer.weights["weight_peephole_l0"], np.concatenate([i, f, o]))
    assert_array_equal(layer.weights["weight_hr_l0"], w_hr)
    back = to_arrays(layer, order="ofig")
    assert list(back) == ["w_ih", "w_hh", "w_hr", "w_peep"]
    assert_array_equal(back["w_peep"], w_peep)
    w = rng.standard_normal((3 + D, 16))
    layer = from_arrays("lstm", w=w, joined="hx", w_hr=w_hr.T, transposed=True)
    assert (layer.input_size, layer.proj_size) == (D, 3)
    assert_array_equal(to_arrays(layer, joined="hx", transposed=True)["w"], w)

    leak = rng.uniform(size=H)
    w = rng.standard_normal((H, D + H))
    layer = from_arrays("leaky", w=w, leak=leak, form="potential", nonlinearity="relu")
    assert layer.form == "potential"
    assert_array_equal(to_arrays(layer)["leak"], leak)
    layer = from_arrays("leaky", w=w.astype("f4"), leak=0.25)
    assert_array_equal(to_arrays(layer)["leak"], np.full(H, 0.25, "f4"))


def test_options_are_those_of_the_layer() -> None:
    w = np.ones((3 * H, D + H), "f4")
    layer: Any = from_arrays("gru", w=w, batch_first=True, dropout=0.0, reset_after=False)
    assert repr(layer) == f"GRU({D}, {H}, bias=False, batch_first=True, reset_after=False)"
    backwards: Any = from_arrays("gru", w=w, reverse=True)
    x = np.random.default_rng(0).standard_normal((T, B, D), dtype="f4")
    assert_array_equal(backwards(x)[0], from_arrays("gru", w=w)(x[::-1])[0][::-1])
    assert_array_equal(to_arrays(backwards, joined="xh")["w"], w)


W = np.ones((4 * H, D + H))
W_IH, W_HH = np.ones((4 * H, D)), np.ones((4 * H, H))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("lstm", {}), ValueError, "pass w_ih and w_hh, or w"),
        (("foo", {"w": W}), ValueError, "cell is 'foo', expected 'rnn'"),
        (("lstm", {"w": W.tolist()}), TypeError, "w is a list, .*: pass np.asarray"),
        (("lstm", {"w": W, "b_ih": np.ones(16, "f4")}), TypeError, "b_ih is float32, w is float64"),
        (("lstm", {"w": W, "w_ih": W_IH}), ValueError, "w is given and w_ih too"),
        (("lstm", {"w_ih": W_IH}), ValueError, "w_hh is missing"),
        (("lstm", {"w_ih": W_IH.T, "w_hh": W_HH.T}), ValueError, "pass transposed=True"),
        (("lstm", {"w_ih": W_IH, "w_hh": W_HH, "transposed": True}), ValueError,
         "pass transposed=False"),
        (("lstm", {"w": W, "b_ih": np.ones((16, 1))}), ValueError,
         r"b_ih has shape \(16, 1\).*pass b_ih.ravel\(\)"),
        (("lstm", {"w": W.T}), ValueError,
         r"w has shape \(6, 16\), expected \(4, D \+ 1\): pass transposed=True"),
        (("lstm", {"w": W.T, "b_ih": np.ones((1, 16))}), ValueError, "pass transposed=True"),
        (("rnn", {"w_ih": W_IH[:4], "w_hh": W_HH[:4], "b_ih": np.ones((4, 1))}), ValueError,
         r"pass b_ih.ravel\(\)$"),
        (("rnn", {"w_ih": W_IH[:4], "w_hh": W_HH[:4], "b_ih": np.ones(5)}), ValueError,
         r"expected \(4,\)$"),
        (("lstm", {"w": W, "b_ih": np.ones(15), "b_hh": np.ones(17)}), ValueError,
         r"b_ih has.*b_hh has"),
        (("lstm", {"w": W[:, :3]}), ValueError, r"w has shape \(16, 3\), expected \(16, D \+ 4\)"),
        (("lstm", {"w": W, "order": "ifgg"}), ValueError, "expected the gates of LSTM, 'ifgo'"),
        (("lstm", {"w": W, "order": ["i"]}), TypeError, "order is a list"),
        (("gru", {"w": W[:12], "order": "ifgo"}), ValueError, "expected the gates of GRU, 'rzn'"),
        (("lstm", {"w": W, "joined": "x"}), ValueError, "joined is 'x'"),
        (("lstm", {"w": W, "update_gate": "takes"}), ValueError, "only a GRU has one"),
        (("gru", {"w": W[:12], "update_gate": "foo"}), ValueError, "expected 'keeps' or 'takes'"),
        (("lstm", {"w": W, "transposed": 2}), TypeError, "transposed is 2"),
        (("lstm", {"w": W, "num_layers": 2}), TypeError, "num_layers is no option here"),
        (("lstm", {"w": W, "rng": 2}), TypeError, "rng is no option here"),
        (("lstm", {"w": W, "reset_after": True}), TypeError,
         "the options of LSTM are batch_first, dropout"),
        (("rnn", {"w": W[:4], "nonlinearity": "foo"}), ValueError, "nonlinearity is 'foo'"),
        (("leaky", {"w": W[:4], "leak": np.ones(3)}), ValueError, "leak has shape"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(arguments: Any, error: Any, text: str) -> None:
    cell, given = arguments
    with pytest.raises(error, match=text):
        from_arrays(cell, **given)


@pytest.mark.parametrize(
    ("source", "options", "error", "text"),
    [
        (lambda: fastrnn.GRU(D, H, 2), {}, ValueError, "source has weights of _l0, _l1"),
        (lambda: fastrnn.GRU(D, H, bidirectional=True), {}, ValueError, "_l0, _l0_reverse"),
        (lambda: fastrnn.Linear(D, H), {}, ValueError, "no weights of a recurrent layer"),
        (lambda: {"w": W}, {}, TypeError, "source is a dict"),
        (lambda: fastrnn.GRU(D, H), {"one_bias": True}, ValueError, "pass one_bias=False"),
        (lambda: fastrnn.GRU(D, H), {"order": "ifgo"}, ValueError, "expected the gates of GRU"),
        (lambda: fastrnn.LSTM(D, H), {"update_gate": "takes"}, ValueError, "only a GRU has one"),
        (lambda: fastrnn.LSTM(D, H), {"joined": "foo"}, ValueError, "joined is 'foo'"),
        (lambda: fastrnn.LSTM(None, H), {"joined": "xh"}, ValueError, "source has no w_ih"),
    ],
)
def test_what_cannot_be_given_back_is_refused(
    source: Any, options: Any, error: Any, text: str
) -> None:
    with pytest.raises(error, match=text):
        to_arrays(source(), **options)


def test_gradients_that_were_not_asked_for_are_left_out() -> None:
    layer = fastrnn.LSTM(D, H, rng=0)
    output, _, tape = layer.forward(np.ones((T, B, D), "f4"))
    grads = layer.backward(tape, output, wrt=["weight_hh_l0"])
    assert list(to_arrays(grads)) == ["w_hh"]
    with pytest.raises(ValueError, match="joined is 'xh', but source has no w_ih"):
        to_arrays(grads, joined="xh")
    grads = layer.backward(tape, output, wrt=["weight_ih_l0"])
    with pytest.raises(ValueError, match="says of what cell it is"):
        to_arrays(grads)
