"""LeakyRNN: leaks as weights, the two forms, and all that layers do."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

D, H = 3, 17
both_forms = pytest.mark.parametrize("form", ["rate", "potential"])
both_backends = pytest.mark.parametrize("backend", ["compiled", "reference"])


def layer_of(form: str = "potential", **options: Any) -> Any:
    """Two layers in both directions, of leaks that all differ."""
    options = {"num_layers": 2, "bidirectional": True, "rng": 0, "form": form} | options
    layer = fastrnn.LeakyRNN(D, H, **options)
    for name, weight in layer.weights.items():
        if name.startswith("weight_leak"):
            weight[...] = np.random.default_rng(len(name)).uniform(0.1, 0.9, H)
    return layer


def drawn(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def same(a: Any, b: Any) -> bool:
    return bool(a.tobytes() == b.tobytes())


class TestLeak:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(
        "leak",
        [0.3, 1, -0.5, np.float32(0.3), np.linspace(0, 1, H), np.linspace(0, 2, H, dtype="f4"),
         np.arange(H)],
        ids=["float", "int", "negative", "float32", "units", "units in float32", "integers"],
    )  # fmt: skip
    def test_where_it_starts(self, leak: Any, dtype: str) -> None:
        layer = fastrnn.LeakyRNN(D, H, num_layers=2, bidirectional=True, leak=leak, dtype=dtype)
        names = [name for name in layer.weights if name.startswith("weight_leak")]
        assert names == [
            f"weight_leak_l{k}{end}" for k in range(2) for end in ("", "_reverse")
        ]  # fmt: skip
        for name in names:
            assert layer.weights[name].dtype == dtype
            assert (layer.weights[name] == np.asarray(leak).astype(dtype)).all()

    def test_the_other_weights_do_not_depend_on_it(self) -> None:
        one, other = (fastrnn.LeakyRNN(D, H, leak=leak, rng=3) for leak in (0.1, 0.9))
        for name, weight in one.weights.items():
            assert same(weight, other.weights[name]) == (name != "weight_leak_l0")

    @pytest.mark.parametrize(
        ("leak", "error", "text"),
        [
            (None, TypeError, "leak is None, expected a number"),
            ([0.3] * H, TypeError, "leak is a list, expected a numpy.ndarray: pass np.asarray"),
            (True, TypeError, "leak is True, expected a number"),
            ("0.3", TypeError, "leak is '0.3', expected a number"),
            (np.ones(H, bool), TypeError, "leak is bool, expected numbers"),
            (np.ones(H, complex), TypeError, "leak is complex128, expected numbers"),
            (np.ones(H - 1), ValueError, rf"leak has shape \(16,\), expected \(H,\) = \({H},\)"),
            (np.ones((1, H)), ValueError, r"leak has shape \(1, 17\), .* pass leak.reshape\(17,\)"),
            (np.inf, ValueError, "leak is inf, expected a number that is finite in float32"),
            (np.full(H, np.inf), ValueError, "an element of leak is inf"),
            (1e39, ValueError, r"leak is 1e\+39, expected a number that is finite in float32"),
            (np.full(H, 1e39), ValueError, r"an element of leak is 1e\+39"),
        ],
    )
    def test_what_is_refused(self, leak: Any, error: Any, text: str) -> None:
        with pytest.raises(error, match=text):
            fastrnn.LeakyRNN(D, H, leak=leak)

    def test_it_cannot_be_set(self) -> None:
        """What the message says is done in tests/support/wrong_calls.py."""
        layer = layer_of()
        before = layer.flat_weights.copy()
        with pytest.raises(AttributeError, match="leak is where the weights weight_leak_l0"):
            layer.leak = 0.3
        assert same(layer.flat_weights, before)

    def test_it_is_trained(self) -> None:
        """A leak is found again, from the outputs of a layer that has it."""
        teacher, layer = (
            fastrnn.LeakyRNN(D, 8, leak=leak, rng=0, dtype="float64") for leak in (0.2, 0.5)
        )
        x, adam = drawn(40, 4, D, dtype=np.float64), fastrnn.optim.Adam(layer.flat_weights, lr=0.01)
        target, _ = teacher(x)
        losses = []
        for _ in range(300):
            output, _, tape = layer.forward(x)
            loss, d_output = fastrnn.mean_squared_error(output, target)
            adam.step(layer.backward(tape, d_output).flat_weights)
            losses.append(loss)
        assert losses[-1] < 1e-3 * losses[0]
        assert abs(layer.weights["weight_leak_l0"] - 0.2).max() < 0.05


class TestForm:
    @both_backends
    def test_it_can_be_set(self, backend: str) -> None:
        x, layer, other = drawn(5, 2, D), layer_of("rate"), layer_of("potential")
        with fastrnn.backend(backend):
            layer.form = "potential"
            assert repr(layer) == repr(other)
            assert same(layer(x)[0], other(x)[0])
            output, _, tape = layer.forward(x)
            layer.form = "rate"  # the tape is of the form that it was made in
            its = layer.backward(tape, output).flat_weights
            assert same(its, other.backward(other.forward(x)[2], output).flat_weights)
        with pytest.raises(ValueError, match="form is 'rates', expected 'rate' or 'potential'"):
            layer.form = "rates"
        assert layer.form == "rate"

    @both_backends
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_keep(self, backend: str, batch_first: bool) -> None:
        """c is v, of which the output is f."""
        turn = (1, 0, 2) if batch_first else (0, 1, 2)
        layer = layer_of(batch_first=batch_first, dtype="float64")
        x, lengths = drawn(6, 4, D, dtype=np.float64).transpose(turn), [6, 0, 3, 5]
        with fastrnn.backend(backend):
            output, state, tape = layer.forward(x, lengths=lengths, keep=("c",))
        top = np.concatenate(tape.c[2:], axis=-1)
        np.testing.assert_allclose(np.tanh(top), output, 1e-14, 1e-14)
        for i, v in enumerate(tape.c):
            for b, n in enumerate(lengths):
                of_row = v.transpose(turn)[:, b]
                last = of_row[0 if i % 2 else n - 1] if n else np.zeros(H)
                assert (state[i, b] == last).all()
                assert not of_row[n:].any()

    @both_backends
    def test_rates_have_no_c(self, backend: str) -> None:
        layer = layer_of("rate")
        with fastrnn.backend(backend):
            text = (
                "keep holds 'c', expected names out of 'gates': c is the potential, which rates do"
            )
            with pytest.raises(ValueError, match=text):
                layer.forward(drawn(5, 2, D), keep=("c",))
            _, _, tape = layer.forward(drawn(5, 2, D), keep=None)
        assert [gates.shape for gates in tape.gates] == [(5, 2, H)] * 4


@both_forms
@pytest.mark.parametrize("f", ["tanh", "sigmoid"])
@pytest.mark.parametrize("K", [1, 3, 100])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_checkpoint_has_the_bits(form: str, f: str, K: int, threads: int) -> None:
    layer = layer_of(form, nonlinearity=f)
    x, state = drawn(10, 5, D), drawn(4, 5, H)
    options = {"lengths": [10, 0, 7, 3, 1], "restart": drawn(10, 5) > 1.0}
    with fastrnn.num_threads(threads):
        output, final, tape = layer.forward(x, state, **options)
        want, norms = layer.backward(tape, output, final), fastrnn.gradient_norms(tape, output)
        again, final_too, short = layer.forward(x, state, **options, checkpoint=K)
        got = layer.backward(short, output, final)
        assert same(fastrnn.gradient_norms(short, output), norms)
    assert same(again, output)
    assert same(final_too, final)
    for name in ("x", "state", "flat_weights"):
        assert same(getattr(got, name), getattr(want, name)), name


@both_forms
@pytest.mark.parametrize("f", ["tanh", "sigmoid"])
def test_a_stream_has_the_bits(form: str, f: str) -> None:
    layer = layer_of(form, nonlinearity=f, bidirectional=False)
    x, restart = drawn(9, 2, D), drawn(9, 2) > 0.8
    for state in (None, drawn(2, 2, H)):
        output, final = layer(x, state, restart=restart)
        stream = layer.stream(batch_size=2)
        if state is not None:
            stream.state = state
        for t, x_t in enumerate(x):
            assert same(stream.step(x_t, restart=restart[t]), output[t])
        assert same(stream.state, final)
    layer.weights["weight_leak_l1"][...] = 0.9
    stream.update()
    stream.state = final
    assert same(stream.run(x), layer(x, final)[0])


@both_forms
def test_generate_follows_the_layers(form: str) -> None:
    """Greedy generation is the sequence that the layers themselves say is likeliest."""
    embedding = fastrnn.Embedding(11, D, rng=1)
    layer = layer_of(form, bidirectional=False, nonlinearity="sigmoid")
    head = fastrnn.Linear(H, 11, rng=2)
    made, last = fastrnn.generate(embedding, layer, head, [4], 20, drawn(2, H), temperature=0)
    read, state = 4, drawn(2, H)
    for index in made:
        output, state = layer(embedding(np.array([read])), state)
        read = int(head(output)[-1].argmax())
        assert read == index
    assert same(last, state)


@both_forms
def test_gradient_norms_of_a_state_that_only_leaks(form: str) -> None:
    """With W_hh = 0, the gradient of the state fades by 1 - a a step."""
    layer = fastrnn.LeakyRNN(D, H, leak=0.25, form=form, rng=0, dtype="float64")
    layer.weights["weight_hh_l0"][...] = 0
    _, state, tape = layer.forward(drawn(30, 2, D, dtype=np.float64))
    norms = fastrnn.gradient_norms(tape, None, np.ones_like(state))
    assert np.shape(norms) == (1, 30, 2)
    want = np.sqrt(H) * 0.75 ** np.arange(30)[::-1]
    np.testing.assert_allclose(norms[0], np.stack([want, want], 1), 1e-13)


@both_forms
def test_it_travels(form: str, tmp_path: Path) -> None:
    layer = layer_of(form, nonlinearity="sigmoid")
    x = drawn(5, 2, D)
    output, _, tape = layer.forward(x)
    grads = layer.backward(tape, output).flat_weights
    fastrnn.save(tmp_path / "a", {"layer": layer})
    others = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    others.append(fastrnn.load(tmp_path / "a")["layer"])
    others.append(fastrnn.LeakyRNN(D, H, 2, "sigmoid", bidirectional=True, form=form, leak=0.1))
    others[-1].load_state_dict(layer.state_dict())
    for other in others:
        assert repr(other) == repr(layer)
        assert same(other(x)[0], output)
        assert same(other.backward(other.forward(x)[2], output).flat_weights, grads)
    its = layer.backward(pickle.loads(pickle.dumps(tape)), output).flat_weights
    assert same(its, grads)
