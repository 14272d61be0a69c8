"""``forward(check=True)``: a layer's backward notices what was changed since."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from marks import each_first, each_last, each_name
from registry import CELLS, VARIANTS
from stacked_layers import (
    OPTIONS,
    B,
    D,
    T,
    as_tuple,
    draw,
    draw_state,
    each_backend,
    each_shape,
    make,
)

import fastrnn
from fastrnn import reference

ARGUMENT = {name: arg for cell in CELLS.values() for name, arg in cell.weights.items()}


def uses(layer: Any, tape: Any, output: Any) -> Any:
    """All that a tape is good for."""
    yield lambda: layer.backward(tape, np.ones_like(output))
    yield lambda: layer.backward(tape, np.ones_like(output), wrt=["x"])
    yield lambda: layer.backward(tape, np.ones_like(output), wrt=[])
    last = list(layer.weights)[-1]
    yield lambda: layer.backward(tape, np.ones_like(output), wrt=[last])
    yield lambda: fastrnn.gradient_norms(tape, np.ones_like(output))


def check_noticed(layer: Any, x: Any, state: Any, **options: Any) -> None:
    """Every array that the caller can change is noticed by its name, and by no other."""
    output, final, tape = layer.forward(x, state, **options, check=True)
    plain = layer.forward(x, state, **options)
    assert np.array_equal(output, plain[0])
    d = np.ones_like(output)
    got, want = layer.backward(tape, d), layer.backward(plain[2], d)
    assert np.array_equal(got.x, want.x)
    assert np.array_equal(got.flat_weights, want.flat_weights)
    assert np.array_equal(
        fastrnn.gradient_norms(tape, d), fastrnn.gradient_norms(plain[2], d), equal_nan=True
    )
    arrays = {"x": x, "output": output}
    weights = {}
    for name, view in layer.weights.items():
        weights[name] = ARGUMENT[name.rpartition("_l")[0]]
        arrays[name] = view
    for name, a in arrays.items():
        for at in (0, a.size - 1):
            place = np.unravel_index(at, a.shape)
            before = a[place]
            a[place] = before + 1
            for use in uses(layer, tape, output):
                with pytest.raises(RuntimeError) as caught:
                    use()
                assert str(caught.value).startswith(f"{weights.get(name, name)} was changed")
            a[place] = before
    # The state is copied, in and out.
    for a in (*as_tuple(final), *(as_tuple(state) if state is not None else ())):
        a += 1
    assert np.array_equal(layer.backward(tape, d).x, want.x)
    for a in as_tuple(state) if state is not None else ():
        a -= 1
    # Without check, nothing is noticed.
    output, _, tape = layer.forward(x, state, **options)
    output += 1
    layer.backward(tape, d)
    output -= 1


@pytest.mark.usefixtures("one_thread")
@each_shape
@each_name
@each_backend
def test_every_layer(backend: Any, kind: str, shape: str) -> None:
    with fastrnn.backend(backend):
        layer = make(kind, shape)
        check_noticed(layer, draw(layer, T, B, D, seed=1), draw_state(layer, B), **OPTIONS["both"])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("way", ["batch first", "unbatched", "checkpoint", "keep", "dropout", "T"])
@pytest.mark.parametrize("shape", ["one", "both", "two", "three-both"])
@each_last
@each_backend
def test_every_way(backend: Any, kind: str, shape: str, way: str) -> None:
    with fastrnn.backend(backend):
        layer = make(kind, shape, batch_first=way == "batch first")
        x = draw(layer, *((B, T) if way == "batch first" else (T, B)), D, seed=1)
        state: Any = draw_state(layer, B)
        options: dict[str, Any] = {}
        if way == "unbatched":
            x, state = x[:, 0].copy(), None
        elif way == "checkpoint":
            options["checkpoint"] = 2
        elif way == "keep" and VARIANTS[kind].cell.kept:
            options["keep"] = ["gates"]
        elif way == "dropout" and "two" in shape + "three":
            if layer.num_layers > 1:
                layer.dropout = 0.5
            options["rng"] = 3
        elif way == "T":
            x = x[:1].copy()
        check_noticed(layer, x, state, **options)


@each_backend
def test_two_threads(backend: Any) -> None:
    fastrnn.set_num_threads(2)
    with fastrnn.backend(backend):
        layer = fastrnn.LSTM(16, 32, 2, bidirectional=True, rng=0)
        check_noticed(layer, draw(layer, 9, 4, 16, seed=1), None)


@each_first
def test_a_tape_of_one_backend_on_the_other(kind: str) -> None:
    layer = make(kind, "two", batch_first=True)
    x = draw(layer, B, T, D, seed=1)
    for first, second in (("compiled", "reference"), ("reference", "compiled")):
        with fastrnn.backend(first):
            output, _, tape = layer.forward(x, check=True)
        with fastrnn.backend(second):
            layer.backward(tape, output)
            output += 1
            with pytest.raises(RuntimeError, match=r"^output was changed"):
                layer.backward(tape, output)


def test_a_copied_tape() -> None:
    layer = make("lstm", "three-both")
    x = draw(layer, T, B, D, seed=1)
    output, _, tape = layer.forward(x, check=True)
    want = layer.backward(tape, output).x
    for copied in (copy.deepcopy(tape), pickle.loads(pickle.dumps(tape))):
        assert np.array_equal(layer.backward(copied, output).x, want)
        copied.tapes[0].x[0, 0, 0] += 1
        with pytest.raises(RuntimeError, match=r"^x was changed"):
            layer.backward(copied, output)
    layer.backward(tape, output)


def test_an_optimiser_s_step_is_noticed() -> None:
    # The usual mistake: a second backward through weights that were stepped.
    layer, head = fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(4, 2, rng=1)
    x = np.ones((5, 2, 3), np.float32)
    output, _, tape = layer.forward(x, check=True)
    y, head_tape = head.forward(output, check=True)
    d = head.backward(head_tape, y)
    grads = layer.backward(tape, d.x)
    fastrnn.optim.SGD([layer.flat_weights, head.flat_weights], 0.1).step(
        [grads.flat_weights, d.flat_weights]
    )
    with pytest.raises(RuntimeError, match=r"^weight was changed"):
        head.backward(head_tape, y)
    with pytest.raises(RuntimeError, match=r"^w_ih was changed"):
        layer.backward(tape, d.x)


def test_check_is_a_bool() -> None:
    x = np.ones((5, 2, 3), np.float32)
    for layer in (fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(3, 4, rng=0)):
        for value in (1, None, "yes"):
            with pytest.raises(TypeError, match=r"^check is "):
                layer.forward(x, check=value)
        layer.forward(x, check=np.True_)


# ------------------------------------------------------------------------------ the output layer


@pytest.mark.parametrize("module", [fastrnn, reference], ids=["compiled", "reference"])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (5, 4, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(module: Any, shape: tuple[int, ...], bias: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal(shape), "weight": rng.standard_normal((2, 3))}
    if bias:
        arrays["bias"] = rng.standard_normal(2)
    output, tape = module.linear_forward(*arrays.values(), check=True)
    d = np.ones_like(output)
    want = module.linear_backward(tape, d)
    assert module.linear_forward(*arrays.values())[1].output is None  # not held for nothing
    for name, a in (arrays | {"output": output}).items():
        before = a.copy()
        a.reshape(-1)[-1] += 1
        for wrt in (None, ["x"], ["weight"], []):
            with pytest.raises(RuntimeError, match=f"^{name} was changed"):
                module.linear_backward(tape, d, wrt=wrt)
        a[...] = before
        assert np.array_equal(module.linear_backward(tape, d).weight, want.weight)


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_output_layer(backend: Any) -> None:
    with fastrnn.backend(backend):
        layer = fastrnn.Linear(3, 2, rng=0)
        x = np.ones((5, 4, 3), np.float32)
        output, tape = layer.forward(x, check=True)
        want = layer.backward(tape, output).flat_weights
        for name, a in {"x": x, "output": output, **layer.weights}.items():
            before = a.copy()
            a += 1
            with pytest.raises(RuntimeError, match=f"^{name} was changed"):
                layer.backward(tape, before if name == "output" else output)
            a[...] = before
        for copied in (tape, copy.deepcopy(tape), pickle.loads(pickle.dumps(tape))):
            assert np.array_equal(layer.backward(copied, output).flat_weights, want)


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("name", ["c", "gates"])
def test_what_was_kept_is_noticed(backend: Any, name: str) -> None:
    x = np.ones((5, 2, 3), np.float32)
    for cell in CELLS.values():
        for layers in (1, 2) if name in cell.kept else ():
            with fastrnn.backend(backend):
                layer = cell.layer(3, 4, layers, rng=0)
                if name not in layer._kept:
                    continue
                output, _, tape = layer.forward(x, keep=(name,), check=True)
                layer.backward(tape, output)
                getattr(tape, name)[-1][0, 0, 0] = 0.25
                with pytest.raises(RuntimeError, match=f"^{name} was changed"):
                    layer.backward(tape, output)


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # from NumPy 2.5 on
@pytest.mark.parametrize("change", [{"shape": (2, 5, 3)}, {"dtype": np.int32}])
def test_another_shape_or_type_is_a_change(backend: Any, change: dict[str, Any]) -> None:
    layer, x = fastrnn.RNN(3, 4, rng=0), np.ones((5, 2, 3), np.float32)
    with fastrnn.backend(backend):
        output, _, tape = layer.forward(x, check=True)
        for name, value in change.items():
            setattr(x, name, value)
        with pytest.raises(RuntimeError, match=r"^x was changed"):
            layer.backward(tape, output)


@each_backend
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "rows"), [(0, 2), (3, 0), (0, 0)])
def test_nothing_to_check(cell: str, steps: int, rows: int, backend: str) -> None:
    """Empty outputs share no memory with anything, and are those of the tape all the same."""
    layer = CELLS[cell].layer(3, 4, bidirectional=True, batch_first=True, rng=0)
    x = np.zeros((rows, steps, 3), np.float32)
    with fastrnn.backend(backend):
        output, _, tape = layer.forward(x, check=True)
        grads = layer.backward(tape, np.zeros_like(output))
    assert grads.x.shape == x.shape
    assert not grads.flat_weights.any()
