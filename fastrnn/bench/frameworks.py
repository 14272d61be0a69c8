"""The frameworks: PyTorch, ONNX Runtime, OpenVINO and JAX.

Each works in the layout it prefers; what is converted is converted outside the timed part. Each
class has its own small table of cells. All weights are given, and all gradients (x, the initial
states, every weight and bias) are asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .peers import Results, Run, restrict_processors
from .shapes import Problem


def _refuse(known: Any, cell: str, mode: str, dtype: str, modes: str, dtypes: str) -> str:
    """Say why a combination is not timed; '' if it is."""
    if cell not in known:
        return f"no {cell} cell"
    if mode not in modes.split():
        return "inference only"
    return "" if dtype in dtypes.split() else f"no {dtype}"


class Torch:
    """PyTorch: nn.RNN under inference mode; training through autograd, gradients set to None."""

    name = "torch"
    modules = ("torch",)
    layers: ClassVar[dict[str, str]] = {"rnn": "RNN"}

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return _refuse(Torch.layers, cell, mode, dtype, "forward training", "float32 float64")

    @staticmethod
    def prepare(threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Run:
        import torch

        shape, cell = problem.shape, problem.cell
        layer = getattr(torch.nn, Torch.layers[cell.name])(shape.D, shape.H)
        layer = layer.to(getattr(torch, problem.dtype))
        suffix = {
            "w_ih": "weight_ih_l0",
            "w_hh": "weight_hh_l0",
            "b_ih": "bias_ih_l0",
            "b_hh": "bias_hh_l0",
        }
        weights = {name: getattr(layer, suffix[name]) for name in problem.weights}
        with torch.no_grad():
            for name, array in problem.weights.items():
                weights[name].copy_(torch.from_numpy(array))
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
                out[f"d_{name}"] = grad[0] if name in cell.states else grad
            return out

        return Run(train, results)


@dataclass(frozen=True)
class OnnxCell:
    """How ONNX writes a cell: the operator, its gates in terms of ours, and attributes."""

    operator: str
    gates: tuple[int, ...]  # position in ONNX -> our gate
    attributes: dict[str, Any]


ONNX_CELLS = {"rnn": OnnxCell("RNN", (0,), {"activations": ["Tanh"]})}


def onnx_model(problem: Problem) -> bytes:
    """Return the problem's layer as an ONNX model with inputs x, h_0, ... of fixed sizes."""
    from onnx import TensorProto, checker, helper, numpy_helper

    T, B, D, H = problem.shape.sizes
    cell = ONNX_CELLS[problem.cell.name]

    def gates(array: np.ndarray) -> np.ndarray:
        blocks = array.reshape(len(cell.gates), H, *array.shape[1:])
        return blocks[list(cell.gates)].reshape(array.shape)

    w = {name: gates(array) for name, array in problem.weights.items()}
    constants = [
        numpy_helper.from_array(w["w_ih"][None], "W"),
        numpy_helper.from_array(w["w_hh"][None], "R"),
        numpy_helper.from_array(np.concatenate([w["b_ih"], w["b_hh"]])[None], "B"),
    ]

    def tensor(name: str, *sizes: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    states = list(problem.cell.states)
    finals = list(problem.output_names[1:])
    node = helper.make_node(
        cell.operator,
        ["x", "W", "R", "B", "", *states],
        ["output", *finals],
        hidden_size=H,
        **cell.attributes,
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [tensor("x", T, B, D), *(tensor(name, 1, B, H) for name in states)],
        [tensor("output", T, 1, B, H), *(tensor(name, 1, B, H) for name in finals)],
        constants,
    )
    # An operator set and file version old enough for every runtime in use.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _onnx_feeds(problem: Problem) -> dict[str, np.ndarray]:
    states = {
        name: np.ascontiguousarray(state[None])
        for name, state in zip(problem.cell.states, problem.states, strict=True)
    }
    return {"x": problem.x, **states}


def _onnx_results(problem: Problem, arrays: list[np.ndarray]) -> Results:
    output, *finals = arrays
    squeezed = [output[:, 0], *(final[0] for final in finals)]
    return {
        name: np.array(array) for name, array in zip(problem.output_names, squeezed, strict=True)
    }


class OnnxRuntime:
    """ONNX Runtime on the CPU, inputs bound beforehand (half the cost of `run` on a small cell)."""

    name = "onnxruntime"
    modules = ("onnxruntime", "onnx")

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return _refuse(ONNX_CELLS, cell, mode, dtype, "forward", "float32")

    @staticmethod
    def prepare(threads: int) -> None:
        """The session takes the thread count."""

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            onnx_model(problem), options, providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        for name, array in _onnx_feeds(problem).items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name in problem.output_names:
            binding.bind_output(name, "cpu")
        call = functools.partial(session.run_with_iobinding, binding)
        return Run(call, lambda _: _onnx_results(problem, binding.copy_outputs_to_cpu()))


class OpenVino:
    """OpenVINO on the CPU, from the same ONNX model; float32 asked for, latency preferred."""

    name = "openvino"
    modules = ("openvino", "onnx")

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return _refuse(ONNX_CELLS, cell, mode, dtype, "forward", "float32")

    @staticmethod
    def prepare(threads: int) -> None:
        """The compiled model takes the thread count."""

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Run:
        import openvino

        core = openvino.Core()
        model = core.compile_model(
            core.read_model(onnx_model(problem)),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                # Otherwise it computes in bfloat16 on processors that have it.
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        request = model.create_infer_request()
        feeds = _onnx_feeds(problem)
        for name, array in feeds.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

        def results(_: Any) -> Results:
            names = problem.output_names
            return _onnx_results(problem, [request.get_tensor(name).data for name in names])

        # The outputs are read where they are, not copied into new arrays.
        return Run(functools.partial(request.infer, share_outputs=True), results, keep=feeds)


def _jax_rnn(x: Any, h_0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    import jax
    import jax.numpy as jnp

    inputs = x @ w_ih + (b_ih + b_hh)  # outside the loop: one product for all steps

    def step(h: Any, z: Any) -> Any:
        h = jnp.tanh(z + h @ w_hh)
        return h, h

    h_n, output = jax.lax.scan(step, h_0, inputs)
    return output, h_n


class Jax:
    """JAX: jit of lax.scan; training is jit of vjp. Matrices are (inputs, outputs), its habit."""

    name = "jax"
    modules = ("jax", "jaxlib")
    layers: ClassVar[dict[str, Callable[..., Any]]] = {"rnn": _jax_rnn}

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return _refuse(Jax.layers, cell, mode, dtype, "forward training", "float32 float64")

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
        layer = Jax.layers[problem.cell.name]
        matrices = [name for name, array in problem.weights.items() if array.ndim == 2]
        arguments = [
            jnp.array(array.T if name in matrices else array)
            for name, array in zip(problem.input_names, problem.inputs, strict=True)
        ]

        def named(outputs: Any) -> Results:
            return {
                name: np.array(array)
                for name, array in zip(problem.output_names, outputs, strict=True)
            }

        if mode == "forward":
            forward = jax.jit(layer)
            return Run(lambda: wait(forward(*arguments)), named)

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
