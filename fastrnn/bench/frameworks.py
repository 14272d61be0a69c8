"""The frameworks that train: PyTorch and JAX.

Each works in the layout it prefers; what is converted is converted outside the timed part. Each
class has its own small table of cells. All weights are given, and all gradients (x, the initial
states, every weight and bias) are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .peers import LAYER_NAMES, Built, Results, Run, refusal, restrict_processors
from .shapes import Problem


class Torch:
    """PyTorch: the layers under inference mode; training through autograd, gradients set to None.

    One step is that of the layer with T = 1, or of nn.RNNCell, nn.LSTMCell, nn.GRUCell.
    """

    name = "torch"
    modules = ("torch",)
    layers: ClassVar[dict[str, str]] = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return refusal(Torch.layers, cell, mode, dtype, "forward training step", "float32 float64")

    @staticmethod
    def prepare(threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    @staticmethod
    def module(problem: Problem, kind: str) -> tuple[Any, dict[str, Any]]:
        """Return the layer, or with kind "Cell" its cell, and its weights under our names."""
        import torch

        shape = problem.shape
        module = getattr(torch.nn, Torch.layers[problem.cell.name] + kind)(shape.D, shape.H)
        module = module.to(getattr(torch, problem.dtype))
        weights = {}
        for name, array in problem.weights.items():
            theirs = LAYER_NAMES[name].removesuffix("_l0") if kind else LAYER_NAMES[name]
            weights[name] = getattr(module, theirs)
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

        if mode == "step":
            return {"cell": Torch.step(problem, "Cell"), "layer": Torch.step(problem, "")}
        layer, weights = Torch.module(problem, "")
        x = torch.tensor(problem.x)
        states = [torch.tensor(state[None]) for state in problem.states]
        h_0 = states[0] if len(states) == 1 else tuple(states)

        def outputs_of(output: Any, h_n: Any) -> list[Any]:
            return [output, h_n] if len(states) == 1 else [output, *h_n]

        def named(outputs: list[Any]) -> Results:
            arrays = [outputs[0], *(state[0] for state in outputs[1:])]
            return {
                name: array.detach().numpy()
                for name, array in zip(problem.output_names, arrays, strict=True)
            }

        if mode == "forward":
            return Run(lambda: layer(x, h_0), lambda r: named(outputs_of(*r)), torch.inference_mode)

        leaves = [x, *states, *weights.values()]
        for leaf in leaves:
            leaf.requires_grad_(True)
        d_outputs = [
            torch.tensor(problem.d_output),
            *(torch.tensor(d_state[None]) for d_state in problem.d_states),
        ]

        def train() -> list[Any]:
            for leaf in leaves:
                leaf.grad = None
            outputs = outputs_of(*layer(x, h_0))
            torch.autograd.backward(outputs, d_outputs)
            return outputs

        def results(outputs: list[Any]) -> Results:
            out = named(outputs)
            for name, leaf in zip(problem.input_names, leaves, strict=True):
                grad = leaf.grad.numpy()
                out[f"d_{name}"] = grad[0] if name in problem.cell.states else grad
            return out

        return Run(train, results)


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


class Jax:
    """JAX: jit of lax.scan; training is jit of vjp; one step is jit of the scan's body.

    Matrices are (inputs, outputs), its habit. For a step the weights are constants of the compiled
    code, which saves handing them over at each call.
    """

    name = "jax"
    modules = ("jax", "jaxlib")
    cells: ClassVar[dict[str, JaxCell]] = {"rnn": _jax_rnn, "lstm": _jax_lstm, "gru": _jax_gru}

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
        count = len(problem.states)
        matrices = [name for name, array in problem.weights.items() if array.ndim == 2]
        arguments = [
            jnp.array(array.T if name in matrices else array)
            for name, array in zip(problem.input_names, problem.inputs, strict=True)
        ]

        def layer(x: Any, *arguments: Any) -> Any:
            inputs, step = make_cell(*arguments[count:])

            def body(states: Any, z: Any) -> Any:
                states = step(states, z)
                return states, states[0]

            states, output = jax.lax.scan(body, arguments[:count], inputs(x))
            return output, *states

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
