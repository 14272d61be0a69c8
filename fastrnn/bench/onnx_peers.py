"""The runtimes for inference, which take a layer as an ONNX model: ONNX Runtime and OpenVINO.

Weights are converted outside the timed part, by one table of cells for both. For one step after
the other the model has T = 1, and its final states are its next initial ones: bound to two sets of
buffers that take turns, or handed from call to call as tutorials have it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .peers import EXTRAS, Built, Results, Run, refusal
from .shapes import Problem


@dataclass(frozen=True)
class OnnxCell:
    """How ONNX writes a cell: the operator, its gates in terms of ours, and attributes."""

    operator: str
    gates: tuple[int, ...]  # position in ONNX -> our gate
    attributes: dict[str, Any]


ONNX_CELLS = {
    "rnn": OnnxCell("RNN", (0,), {}),  # whose activation is tanh
    # ONNX has i, o, f, c, where c is our g; and z, r, h, where h is our n. The products of the
    # candidate come before the reset gate, as in PyTorch.
    "lstm": OnnxCell("LSTM", (0, 3, 1, 2), {}),
    "gru": OnnxCell("GRU", (1, 0, 2), {"linear_before_reset": 1}),
}


def reorder_gates(array: np.ndarray, gates: Sequence[int]) -> np.ndarray:
    """Return the blocks of rows of a weight in another order."""
    blocks = array.reshape(len(gates), -1, *array.shape[1:])
    return blocks[list(gates)].reshape(array.shape)


def onnx_model(problem: Problem) -> bytes:
    """Return the problem's layer as an ONNX model with inputs x, h_0, ... of fixed sizes.

    A node for each layer of a stack, both directions in one; `lengths` is another input.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    shape = problem.shape
    T, B, D, H = shape.sizes
    cell = ONNX_CELLS[problem.cell.name]
    w = {name: reorder_gates(array, cell.gates) for name, array in problem.weights.items()}
    states, finals = _layer_names(problem, problem.cell.states), _output_names(problem)[1:]
    nodes, below = [], "x"
    constants = [numpy_helper.from_array(np.array([T, B, -1]), "sizes")] * (shape.layers > 1)
    for k in range(shape.layers):
        ends = shape.suffixes[k * shape.directions : (k + 1) * shape.directions]
        arrays = {
            f"W{k}": [w[f"w_ih{end}"] for end in ends],
            f"R{k}": [w[f"w_hh{end}"] for end in ends],
            f"B{k}": [np.concatenate([w[f"b_ih{end}"], w[f"b_hh{end}"]]) for end in ends],
        }
        constants += [numpy_helper.from_array(np.stack(a), name) for name, a in arrays.items()]
        last = k == shape.layers - 1
        nodes.append(
            helper.make_node(
                cell.operator,
                [below, *arrays, "lengths" if shape.ragged else "", *states[k :: shape.layers]],
                ["output" if last else f"output{k}", *finals[k :: shape.layers]],
                hidden_size=H,
                direction="bidirectional" if shape.directions == 2 else "forward",
                **cell.attributes,
            )
        )
        if not last:  # (T, directions, B, H) to (T, B, directions*H)
            turned, below = f"turned{k}", f"x{k + 1}"
            nodes.append(helper.make_node("Transpose", [f"output{k}"], [turned], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [turned, "sizes"], [below]))

    def tensor(name: str, *sizes: int) -> Any:
        kind = TensorProto.INT32 if name == "lengths" else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, sizes)

    n = shape.directions
    inputs = [tensor("x", T, B, D), *(tensor(name, n, B, H) for name in states)]
    graph = helper.make_graph(
        nodes,
        "layer",
        inputs + [tensor("lengths", B)] * shape.ragged,
        [tensor("output", T, n, B, H), *(tensor(name, n, B, H) for name in finals)],
        constants,
    )
    # An operator set and file version old enough for every runtime in use.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _layer_names(problem: Problem, names: Iterable[str]) -> list[str]:
    """Return the names of states, of a stack one for each layer: h_0_l0, h_0_l1, c_0_l0, ..."""
    if problem.shape.layers == 1:
        return list(names)
    return [f"{name}_l{k}" for name in names for k in range(problem.shape.layers)]


def _output_names(problem: Problem) -> list[str]:
    return ["output", *_layer_names(problem, problem.output_names[1:])]


def _onnx_feeds(problem: Problem) -> dict[str, np.ndarray]:
    shape = problem.shape
    states = [
        np.ascontiguousarray(layer)
        for state in problem.states
        for layer in state.reshape(shape.layers, shape.directions, shape.B, shape.H)
    ]
    names = _layer_names(problem, problem.cell.states)
    feeds = {"x": problem.x, **dict(zip(names, states, strict=True))}
    if shape.lengths is not None:
        feeds["lengths"] = shape.lengths.astype(np.int32)
    return feeds


def _onnx_results(problem: Problem, arrays: list[np.ndarray]) -> Results:
    """Return copies of what a model returned, (T, directions, B, H) first, in our shapes."""
    output, *finals = arrays
    layers, sizes = problem.shape.layers, problem.shape.state_sizes
    steps = output.swapaxes(1, 2).reshape(len(output), problem.shape.B, -1)
    shaped = [np.stack(finals[i : i + layers]) for i in range(0, len(finals), layers)]
    results = [np.array(steps), *(state.reshape(sizes) for state in shaped)]
    return dict(zip(problem.output_names, results, strict=True))


def _onnx_turns(problem: Problem) -> list[dict[str, np.ndarray]]:
    """Return the arrays of two steps that take turns: the final states of one start the other."""
    shape = problem.shape
    feeds = {name: array.copy() for name, array in _onnx_feeds(problem).items()}  # written to
    spare = {name: np.empty_like(feeds[name]) for name in problem.cell.states}
    finals = problem.output_names[1:]
    turns = []
    for before, after in ((feeds, spare), (spare, feeds)):
        output = np.empty((1, 1, shape.B, shape.H), problem.dtype)
        turn = {"x": feeds["x"], "output": output}
        for name, final in zip(problem.cell.states, finals, strict=True):
            turn |= {name: before[name], final: after[name]}
        turns.append(turn)
    return turns


def _bound_run(problem: Problem, turns: list[dict[str, np.ndarray]], calls: list[Any]) -> Run:
    """Return the run of two calls that take turns, and whose results are in the arrays of turns."""
    pairs = itertools.cycle(zip(calls, turns, strict=True))

    def step() -> Any:
        call, turn = next(pairs)
        call()
        return turn

    def results(turn: dict[str, np.ndarray]) -> Results:
        return _onnx_results(problem, [turn[name] for name in problem.output_names])

    return Run(step, results, keep=turns)


class OnnxRuntime:
    """ONNX Runtime on the CPU, inputs bound beforehand (half the cost of `run` on a small cell).

    One step is taken with buffers bound or by `run`.
    """

    name = "onnxruntime"
    modules = ("onnxruntime", "onnx")
    extras = EXTRAS

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return refusal(ONNX_CELLS, cell, mode, dtype, "forward step", "float32")

    @staticmethod
    def prepare(threads: int) -> None:
        """The session takes the thread count."""

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Built:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            onnx_model(problem), options, providers=["CPUExecutionProvider"]
        )
        if mode == "step":
            return {
                "bound": OnnxRuntime.bound_steps(problem, session),
                "run": OnnxRuntime.run_steps(problem, session),
            }
        binding = session.io_binding()
        for name, array in _onnx_feeds(problem).items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name in _output_names(problem):
            binding.bind_output(name, "cpu")
        call = functools.partial(session.run_with_iobinding, binding)
        return Run(call, lambda _: _onnx_results(problem, binding.copy_outputs_to_cpu()))

    @staticmethod
    def bound_steps(problem: Problem, session: Any) -> Run:
        """Return the run of steps with two bindings."""
        import onnxruntime

        turns = _onnx_turns(problem)
        calls = []
        for turn in turns:
            binding = session.io_binding()
            for name, array in turn.items():
                # The value of an array on the CPU is the array's own memory.
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
                if name in problem.output_names:
                    binding.bind_ortvalue_output(name, value)
                else:
                    binding.bind_ortvalue_input(name, value)
            calls.append(functools.partial(session.run_with_iobinding, binding))
        return _bound_run(problem, turns, calls)

    @staticmethod
    def run_steps(problem: Problem, session: Any) -> Run:
        """Return the run of steps by `run`, which returns fresh arrays."""
        names, states = list(problem.output_names), problem.cell.states
        feeds = _onnx_feeds(problem)

        def step() -> Any:
            arrays = session.run(names, feeds)
            for name, array in zip(states, arrays[1:], strict=True):
                feeds[name] = array
            return arrays

        return Run(step, lambda arrays: _onnx_results(problem, arrays))


class OpenVino:
    """OpenVINO on the CPU, from the same ONNX model; float32 asked for, latency preferred.

    One step is taken with tensors set beforehand or handed to `infer`.
    """

    name = "openvino"
    modules = ("openvino", "onnx")
    extras = EXTRAS

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return refusal(ONNX_CELLS, cell, mode, dtype, "forward step", "float32")

    @staticmethod
    def prepare(threads: int) -> None:
        """The compiled model takes the thread count."""

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Built:
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
        if mode == "step":
            return {
                "bound": OpenVino.bound_steps(problem, model),
                "infer": OpenVino.infer_steps(problem, model),
            }
        request = model.create_infer_request()
        feeds = _onnx_feeds(problem)
        for name, array in feeds.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

        def results(_: Any) -> Results:
            names = _output_names(problem)
            return _onnx_results(problem, [request.get_tensor(name).data for name in names])

        # The outputs are read where they are, not copied into new arrays.
        return Run(functools.partial(request.infer, share_outputs=True), results, keep=feeds)

    @staticmethod
    def bound_steps(problem: Problem, model: Any) -> Run:
        """Return the run of steps with two requests."""
        import openvino

        turns = _onnx_turns(problem)
        calls = []
        for turn in turns:
            request = model.create_infer_request()
            for name, array in turn.items():
                request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
            calls.append(functools.partial(request.infer, share_outputs=True))
        return _bound_run(problem, turns, calls)

    @staticmethod
    def infer_steps(problem: Problem, model: Any) -> Run:
        """Return the run of steps by one request, which copies its outputs into fresh arrays."""
        request = model.create_infer_request()
        finals = dict(zip(problem.cell.states, problem.output_names[1:], strict=True))
        feeds = _onnx_feeds(problem)

        def step() -> Any:
            found = request.infer(feeds)
            for name, final in finals.items():
                feeds[name] = found[final]
            return found

        return Run(
            step, lambda found: _onnx_results(problem, [found[n] for n in problem.output_names])
        )
