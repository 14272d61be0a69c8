"""The frameworks that train: PyTorch and JAX.

Each works in the layout it prefers; what is converted is converted outside the timed part. Each
class has its own small table of cells. All weights are given, and all gradients (x, the initial
states, every weight and bias) are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .peers import (
    EXTRAS,
    Built,
    Results,
    Run,
    layer_name,
    layer_state,
    refusal,
    restrict_processors,
)
from .shapes import Problem

# A step of a cell that PyTorch has no layer of: from its input part, the states before and the
# weights to the states after.
TorchStep = Callable[..., Any]


def _torch_leaky(z: Any, h: Any, w_hh: Any, leak: Any) -> Any:
    import torch

    return (1 - leak) * h + leak * torch.tanh(z + h @ w_hh.T)


def torch_loop(problem: Problem, step: TorchStep) -> tuple[Any, dict[str, Any]]:
    """Return a function like a layer of one state, and its weights under our names.

    One product for the inputs of all steps, then a loop over time, for autograd to record.
    """
    import torch

    shape = problem.shape
    weights = {name: torch.tensor(array) for name, array in problem.weights.items()}
    arrays, n = list(weights.values()), len(weights) // len(shape.suffixes)
    exist: Any = None
    if shape.ragged:
        exist = torch.arange(shape.T)[:, None, None] < torch.tensor(shape.lengths)[:, None]

    def run_cell(x: Any, h: Any, given: Any, reverse: bool) -> Any:
        w_ih, w_hh, b_ih, b_hh, *extras = given
        z = torch.nn.functional.linear(x, w_ih, b_ih + b_hh)
        outputs = [h] * len(x)
        for t in reversed(range(len(x))) if reverse else range(len(x)):
            new = step(z[t], h, w_hh, *extras)
            h = new if exist is None else torch.where(exist[t], new, h)
            outputs[t] = h if exist is None else torch.where(exist[t], h, 0)
        return torch.stack(outputs), h

    def layer(x: Any, h_0: Any) -> Any:
        finals: list[Any] = []
        outputs: list[Any] = []
        for i in range(len(shape.suffixes)):
            reverse = i % shape.directions == 1
            output, final = run_cell(x, h_0[i], arrays[n * i : n * (i + 1)], reverse)
            finals.append(final)
            outputs.append(output)
            if len(outputs) == shape.directions:
                x, outputs = torch.cat(outputs, -1), []
        return x, torch.stack(finals)

    return layer, weights


class Torch:
    """PyTorch: the layers under inference mode; training through autograd, gradients set to None.

    One step is that of the layer with T = 1, or of nn.RNNCell, nn.LSTMCell, nn.GRUCell. Sequences
    of different lengths are packed before and their output is left so: its own layout for them.
    What has no layer there is a loop over time, with a mask for different lengths.
    """

    name = "torch"
    modules = ("torch",)
    extras = EXTRAS
    layers: ClassVar[dict[str, str]] = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
    loops: ClassVar[dict[str, TorchStep]] = {"leaky": _torch_leaky}

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        modes = "forward training step tape"
        cells = {**Torch.layers, **Torch.loops}
        return refusal(cells, cell, mode, dtype, modes, "float32 float64")

    @staticmethod
    def prepare(threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    @staticmethod
    def module(problem: Problem, kind: str) -> tuple[Any, dict[str, Any]]:
        """Return the layer, or with kind "Cell" its cell, and its weights under our names."""
        import torch

        if problem.cell.name in Torch.loops:
            return torch_loop(problem, Torch.loops[problem.cell.name])
        shape = problem.shape
        stack = {"num_layers": shape.layers, "bidirectional": shape.directions == 2}
        make = getattr(torch.nn, Torch.layers[problem.cell.name] + kind)
        module = make(shape.D, shape.H, **({} if kind else stack))
        module = module.to(getattr(torch, problem.dtype))
        weights = {}
        for name, array in problem.weights.items():
            theirs = layer_name(problem, name)
            weights[name] = getattr(module, theirs.removesuffix("_l0") if kind else theirs)
            with torch.no_grad():
                weights[name].copy_(torch.from_numpy(array))
        return module, weights

    @staticmethod
    def step(problem: Problem, kind: str) -> Run:
        """Return the run of one step after the other."""
        import torch

        module, _ = Torch.module(problem, kind)
        x = torch.tensor(problem.x[0] if kind else problem.x)
        states = [torch.tensor(state if kind else state[None]) for state in problem.states]
        state: Any = states[0] if len(states) == 1 else tuple(states)

        def cell_step() -> Any:
            nonlocal state
            state = module(x, state)
            return state

        def layer_step() -> Any:
            nonlocal state
            _, state = module(x, state)
            return state

        def results(state: Any) -> Results:
            finals = [state] if len(states) == 1 else list(state)
            arrays = [final.numpy().reshape(problem.states[0].shape) for final in finals]
            # After one step, the output is h.
            return dict(zip(problem.output_names, [arrays[0][None], *arrays], strict=True))

        return Run(cell_step if kind else layer_step, results, torch.inference_mode)

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Built:
        import torch

        looped = problem.cell.name in Torch.loops
        if mode == "step" and looped:
            return Torch.step(problem, "")
        if mode == "step":
            return {"cell": Torch.step(problem, "Cell"), "layer": Torch.step(problem, "")}
        layer, weights = Torch.module(problem, "")
        ragged = problem.shape.ragged and not looped

        def laid_out(array: np.ndarray) -> Any:
            tensor = torch.tensor(array)
            if not ragged:
                return tensor
            lengths = torch.tensor(problem.shape.lengths)
            return torch.nn.utils.rnn.pack_padded_sequence(tensor, lengths, enforce_sorted=False)

        def rows(output: Any) -> Any:
            return output.data if ragged else output

        def padded(rows: Any) -> np.ndarray:
            """The array of what `rows` returned, or of its gradient."""
            if ragged:
                packed = torch.nn.utils.rnn.PackedSequence(rows, *x[1:])
                unpack = torch.nn.utils.rnn.pad_packed_sequence
                rows, _ = unpack(packed, total_length=problem.shape.T)
            array: np.ndarray = rows.detach().numpy()
            return array

        x = laid_out(problem.x)
        states = [torch.tensor(state) for state in tuple_of(layer_state(problem.states))]
        h_0 = states[0] if len(states) == 1 else tuple(states)

        def named(output: Any, final: Any) -> Results:
            arrays = [state.detach().numpy() for state in tuple_of(final)]
            shaped = [array.reshape(problem.shape.state_sizes) for array in arrays]
            return dict(zip(problem.output_names, [padded(rows(output)), *shaped], strict=True))

        if mode == "forward":
            return Run(lambda: layer(x, h_0), lambda r: named(*r), torch.inference_mode)

        leaves = [rows(x), *states, *weights.values()]
        for tensor in leaves:
            tensor.requires_grad_(True)
        if mode == "tape":
            return Run(lambda: layer(x, h_0), lambda r: named(*r))
        d_outputs = [
            rows(laid_out(problem.d_output)),
            *(torch.tensor(d_state) for d_state in tuple_of(layer_state(problem.d_states))),
        ]

        def train() -> Any:
            for tensor in leaves:
                tensor.grad = None
            output, final = layer(x, h_0)
            torch.autograd.backward([rows(output), *tuple_of(final)], d_outputs)
            return output, final

        def results(returned: Any) -> Results:
            out = named(*returned)
            out["d_x"] = padded(leaves[0].grad)
            for name, tensor in zip(problem.input_names[1:], leaves[1:], strict=True):
                grad = tensor.grad.numpy()
                state = name in problem.cell.states
                out[f"d_{name}"] = grad.reshape(problem.shape.state_sizes) if state else grad
            return out

        return Run(train, results)


def tuple_of(state: Any) -> tuple[Any, ...]:
    """Return the states of a cell that has one or two."""
    return state if isinstance(state, tuple) else (state,)


# What JAX knows of a cell: a function that takes the weights, matrices as (inputs, outputs), and
# returns the input part of all gates, outside the loop one product for all steps, and a step, with
# one product for all gates. Both are traced, so that XLA fuses what is pointwise.
JaxCell = Callable[..., tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]]


def _jax_rnn(w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    import jax.numpy as jnp

    def inputs(x: Any) -> Any:
        return x @ w_ih + (b_ih + b_hh)

    def step(states: Any, z: Any) -> Any:
        (h,) = states
        return (jnp.tanh(z + h @ w_hh),)

    return inputs, step


def _jax_lstm(w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    import jax
    import jax.numpy as jnp

    sigmoid = jax.nn.sigmoid

    def inputs(x: Any) -> Any:
        return x @ w_ih + (b_ih + b_hh)

    def step(states: Any, z: Any) -> Any:
        h, c = states
        i, f, g, o = jnp.split(z + h @ w_hh, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    return inputs, step


def _jax_gru(w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def inputs(x: Any) -> Any:
        return x @ w_ih + b_ih

    def step(states: Any, z: Any) -> Any:
        (h,) = states
        x_r, x_z, x_n = jnp.split(z, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(h @ w_hh + b_hh, 3, axis=-1)
        r = jax.nn.sigmoid(x_r + h_r)
        n = jnp.tanh(x_n + r * h_n)
        return (n + jax.nn.sigmoid(x_z + h_z) * (h - n),)

    return inputs, step


def _jax_leaky(w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, leak: Any) -> Any:
    import jax.numpy as jnp

    def inputs(x: Any) -> Any:
        return x @ w_ih + (b_ih + b_hh)

    def step(states: Any, z: Any) -> Any:
        (h,) = states
        return ((1 - leak) * h + leak * jnp.tanh(z + h @ w_hh),)

    return inputs, step


class Jax:
    """JAX: jit of lax.scan; training is jit of vjp; one step is jit of the scan's body.

    Beyond a sequence's length the state is kept as it was, by a mask: the scan has all steps.
    Matrices are (inputs, outputs), its habit. For a step the weights are constants of the compiled
    code, which saves handing them over at each call.
    """

    name = "jax"
    modules = ("jax", "jaxlib")
    extras = EXTRAS
    cells: ClassVar[dict[str, JaxCell]] = {
        "rnn": _jax_rnn, "lstm": _jax_lstm, "gru": _jax_gru, "leaky": _jax_leaky,
    }  # fmt: skip

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return refusal(Jax.cells, cell, mode, dtype, "forward training step", "float32 float64")

    @staticmethod
    def prepare(threads: int) -> None:
        restrict_processors(threads)  # before the import that makes the pools

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Run:
        import jax
        import jax.numpy as jnp

        config: Any = jax.config
        config.update("jax_platforms", "cpu")
        config.update("jax_enable_x64", problem.dtype == "float64")
        wait: Callable[[Any], Any] = jax.block_until_ready
        make_cell = Jax.cells[problem.cell.name]
        count, n = len(problem.states), len(problem.weights) // len(problem.shape.suffixes)
        matrices = [name for name, array in problem.weights.items() if array.ndim == 2]
        arguments = [
            jnp.array(array.T if name in matrices else array)
            for name, array in zip(problem.input_names, problem.inputs, strict=True)
        ]

        shape = problem.shape
        lengths = shape.lengths
        exist = None if lengths is None else jnp.arange(shape.T)[:, None, None] < lengths[:, None]

        def run_cell(x: Any, states: Any, weights: Any, reverse: bool) -> Any:
            inputs, step = make_cell(*weights)

            def body(states: Any, step_inputs: Any) -> Any:
                z, exists = step_inputs
                new = step(states, z)
                if exists is None:
                    return new, new[0]
                kept = tuple(map(lambda n, s: jnp.where(exists, n, s), new, states))
                return kept, jnp.where(exists, new[0], 0)

            return jax.lax.scan(body, states, (inputs(x), exist), reverse=reverse)

        def layer(x: Any, *arguments: Any) -> Any:
            states = [state.reshape(-1, *state.shape[-2:]) for state in arguments[:count]]
            finals, outputs = [], []
            for i in range(len(shape.suffixes)):
                weights = arguments[count + n * i : count + n * (i + 1)]
                reverse = i % shape.directions == 1
                final, output = run_cell(x, tuple(s[i] for s in states), weights, reverse)
                finals.append(final)
                outputs.append(output)
                if len(outputs) == shape.directions:
                    x, outputs = jnp.concatenate(outputs, axis=-1), []
            stacked = [jnp.stack(states) for states in zip(*finals, strict=True)]
            return x, *(state.reshape(shape.state_sizes) for state in stacked)

        def named(outputs: Any) -> Results:
            return {
                name: np.array(array)
                for name, array in zip(problem.output_names, outputs, strict=True)
            }

        if mode == "forward":
            forward = jax.jit(layer)
            return Run(lambda: wait(forward(*arguments)), named)

        if mode == "step":
            inputs, step = make_cell(*arguments[1 + count :])
            one = jax.jit(lambda x, states: step(states, inputs(x)))
            x, states = arguments[0][0], tuple(arguments[1 : 1 + count])

            def call() -> Any:
                nonlocal states
                states = wait(one(x, states))
                return states

            return Run(call, lambda states: named((states[0][None], *states)))

        def train(arguments: Any, d_outputs: Any) -> Any:
            outputs, pull = jax.vjp(layer, *arguments)
            return outputs, pull(d_outputs)

        compiled = jax.jit(train)
        d_outputs = (jnp.array(problem.d_output), *(jnp.array(d) for d in problem.d_states))

        def results(returned: Any) -> Results:
            outputs, grads = returned
            out = named(outputs)
            for name, grad in zip(problem.input_names, grads, strict=True):
                out[f"d_{name}"] = np.array(grad.T if name in matrices else grad)
            return out

        return Run(lambda: wait(compiled(arguments, d_outputs)), results)
