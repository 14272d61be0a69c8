"""Who is timed: the table of peers, and those that have this package's own functions.

A peer is a class with a name, the module whose presence makes it available, and `build`, which
returns a `Run` for one problem. Nothing is imported here: this module is read by the parent
process and by every worker, and a framework is imported in the worker that times it, once its
environment and its processors are set.

What one step of a stream takes can often be had in several ways, such as with buffers bound
beforehand or as the tutorial has it. `build` may return several runs, by name: all are checked and
timed, and the fastest is taken, as among thread counts.

A peer of your own is a class named as ``module:Class`` in ``--peers``, importable from the
current path; it needs what `Peer` lists.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from .shapes import BenchError, Problem

Results = dict[str, np.ndarray]


@dataclass
class Run:
    """One problem, ready to be called again and again.

    Parameters
    ----------
    call : callable
        The timed part: no argument; returns the framework's own arrays.
    results : callable
        Turns what `call` returned into NumPy arrays named output, h_n, ..., d_x, d_h_0, d_w_ih,
        ... in the shapes of this package's functions. Not timed.
    context : callable
        A context manager around a batch of calls, such as PyTorch's inference mode.
    keep : object
        What the call reads by address and nobody else holds.
    """

    call: Callable[[], Any]
    results: Callable[[Any], Results]
    context: Callable[[], contextlib.AbstractContextManager[Any]] = field(
        default=contextlib.nullcontext
    )
    keep: object = None


# What `build` returns: a run, or several ways of doing the same, by name.
Built = Run | dict[str, Run]


def ways_of(built: Built) -> dict[str, Run]:
    """Return the runs by name; the name of a single one is empty."""
    # Not by the class of a run: in a worker a peer from outside has that of `fastrnn.bench`.
    return built if isinstance(built, dict) else {"": built}


class Peer(Protocol):
    """What the benchmark asks of a peer."""

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]  # all must be installed; the first one gives the version
    extras: ClassVar[frozenset[str]]  # of `Shape.extras`, those it has; none if it is left out

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        """Say in a few words why this is not timed; an empty string if it is.

        The modes "stream" and "frozen" are for this package alone: peers are asked for "forward"
        instead, since they keep what they made of the weights from call to call.
        """

    @staticmethod
    def prepare(threads: int) -> None:
        """Set the thread count of this process; called once, before the first build."""

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Built:
        """Make the timed call.

        In mode "step" each call of a run makes one time step on problem.x[0] from the state that
        the call before has left, the first one from problem.states.
        """


_ASKED = ("name", "modules", "unsupported", "prepare", "build")

# name -> where its class is. Order is the order of the columns.
PEERS: dict[str, str] = {
    "numpy": "peers:NumpyReference",
    "torch": "frameworks:Torch",
    "onnxruntime": "onnx_peers:OnnxRuntime",
    "openvino": "onnx_peers:OpenVino",
    "jax": "frameworks:Jax",
    "fastrnn": "peers:Compiled",
}
OWN = "fastrnn"
EXTRAS = frozenset(["stacked", "bidirectional", "ragged"])


def refusal(
    cells: Container[str], cell: str, mode: str, dtype: str, modes: str, dtypes: str
) -> str:
    """Say why a combination is not timed; '' if it is."""
    if cell not in cells:
        return f"no {cell} cell"
    if mode not in modes.split():
        return "inference only"
    return "" if dtype in dtypes.split() else f"no {dtype}"


def find_peer(spec: str) -> type[Peer]:
    """Return the class of a peer's name or of a ``module:Class`` outside this package."""
    where = PEERS.get(spec)
    try:
        if where is not None:
            module, _, attribute = where.partition(":")
            found = getattr(importlib.import_module(f".{module}", __package__), attribute)
        else:
            module, _, attribute = spec.partition(":")
            found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        names = ", ".join(name for name in PEERS if name != OWN)
        cure = f"choose from {names}, or name a class as module:Class"
        if ":" in spec and where is None:
            cure = f"{error}"
        raise BenchError(f"unknown peer {spec!r}: {cure}") from None
    if lacking := [name for name in _ASKED if not hasattr(found, name)]:
        raise BenchError(f"peer {spec!r} is no class of a peer: it lacks {', '.join(lacking)}")
    return found  # type: ignore[no-any-return]


def missing_module(peer: type[Peer]) -> str:
    """Return the first module that the peer lacks, without importing any; '' if none."""
    for module in peer.modules:
        if importlib.util.find_spec(module) is None:
            return module
    return ""


def version(peer: type[Peer]) -> str:
    """Return the installed version of the peer's first module, without importing it."""
    if not peer.modules:
        return ""
    try:
        return importlib.metadata.version(peer.modules[0])
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def environment(threads: int) -> dict[str, str]:
    """Return the variables that give a worker its threads, for libraries that read them at load.

    How idle threads wait (OMP_WAIT_POLICY and the like) is left alone: to forbid spinning would
    slow the peer itself. Workers are stopped between turns instead.
    """
    n = str(threads)
    names = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "FASTRNN_NUM_THREADS",
        "NPROC",
    )
    return dict.fromkeys(names, n)


def restrict_processors(threads: int) -> None:
    """Let this process run on only `threads` processors, where the system can say so.

    For a framework that sizes its pools by the processors it sees and has no other setting.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if threads < len(allowed):
            # The last ones: the first processor serves most interrupts.
            os.sched_setaffinity(0, allowed[-threads:])


def layer_name(problem: Problem, name: str) -> str:
    """Return the name that layers give a weight of the problem, here and in PyTorch."""
    kind, _, suffix = name.partition("_l")
    plain = kind.replace("w_", "weight_").replace("b_", "bias_")
    return dict(problem.cell.extras).get(kind, plain) + "_l" + (suffix or "0")


def layer_state(states: Sequence[np.ndarray]) -> Any:
    """Return states as layers have them, here and in PyTorch: (cells, B, H), or a pair of them."""
    full = tuple(state.reshape(-1, *state.shape[-2:]) for state in states)
    return full[0] if len(full) == 1 else full


def function_run(functions: Any, problem: Problem, mode: str) -> Run:
    """Return the run of a module that has ``rnn_forward`` and ``rnn_backward``."""
    forward = getattr(functions, f"{problem.cell.name}_forward")
    backward = getattr(functions, f"{problem.cell.name}_backward")
    inputs, extras = problem.positional, problem.keywords
    d_output, d_states, names = problem.d_output, problem.d_states, problem.output_names

    if mode in ("forward", "tape"):

        def infer() -> Any:
            return forward(*inputs, **extras, record=mode == "tape")

        return Run(infer, lambda returned: dict(zip(names, returned[:-1], strict=True)))

    if mode == "step":
        states: tuple[Any, ...] = problem.states
        weights = inputs[1 + len(states) :]

        def step() -> Any:
            nonlocal states
            output, *states_n, _ = forward(problem.x, *states, *weights, **extras, record=False)
            states = tuple(states_n)
            return output, *states

        return Run(step, lambda returned: dict(zip(names, returned, strict=True)))

    def train() -> Any:
        *outputs, tape = forward(*inputs, **extras, record=True)
        return outputs, backward(tape, d_output, *d_states)

    def results(returned: Any) -> Results:
        outputs, grads = returned
        named = dict(zip(names, outputs, strict=True))
        named.update({f"d_{name}": getattr(grads, name) for name in problem.input_names})
        return named

    return Run(train, results)


def own_layer(problem: Problem) -> Any:
    """Return the problem's layer of this package."""
    shape = problem.shape
    kind = getattr(importlib.import_module("fastrnn"), problem.cell.layer)
    layer = kind(
        shape.D,
        shape.H,
        num_layers=shape.layers,
        bidirectional=shape.directions == 2,
        dtype=problem.dtype,
    )
    for name, array in problem.weights.items():
        layer.weights[layer_name(problem, name)][...] = array
    return layer


def layer_run(problem: Problem, mode: str, backend: str) -> Run:
    """Return the run of a layer of this package, for what the functions do not have."""
    layer = own_layer(problem)
    if mode == "frozen":
        layer = layer.freeze()
    x, lengths, d_output = problem.x, problem.shape.lengths, problem.d_output
    state, d_state = layer_state(problem.states), layer_state(problem.d_states)

    def infer() -> Any:
        return layer(x, state, lengths=lengths)

    def record() -> Any:
        return layer.forward(x, state, lengths=lengths)

    def train() -> Any:
        output, final, tape = layer.forward(x, state, lengths=lengths)
        return output, final, layer.backward(tape, d_output, d_state)

    def named(state: Any, names: Iterable[str]) -> Results:
        arrays = state if isinstance(state, tuple) else (state,)
        shaped = (array.reshape(problem.shape.state_sizes) for array in arrays)
        return dict(zip(names, shaped, strict=True))

    def results(returned: Any) -> Results:
        output, final, *grads = returned
        found = {"output": output, **named(final, problem.output_names[1:])}
        if mode == "training":
            found["d_x"] = grads[0].x
            found |= named(grads[0].state, [f"d_{name}" for name in problem.cell.states])
            for name in problem.weights:
                found[f"d_{name}"] = grads[0].weights[layer_name(problem, name)]
        return found

    call = {"forward": infer, "frozen": infer, "tape": record, "training": train}[mode]
    return Run(call, results, functools.partial(_backend, backend))


def _backend(name: str) -> contextlib.AbstractContextManager[None]:
    import fastrnn

    return fastrnn.backend(name)


class NumpyReference:
    """The reference of this package: a loop over time in NumPy, whose products use its BLAS."""

    name = "numpy"
    modules = ("numpy",)
    extras = EXTRAS

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return "" if mode in ("forward", "training", "step") else f"no {mode}"

    @staticmethod
    def prepare(threads: int) -> None:
        """The BLAS has read the environment."""

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Run:
        if problem.shape.extras:
            return layer_run(problem, mode, "reference")
        return function_run(importlib.import_module("fastrnn.reference"), problem, mode)


def started_stream(layer: Any, problem: Problem) -> Any:
    """Return the layer's stream in the problem's first state."""
    stream = layer.stream(batch_size=problem.shape.B)
    stream.state = layer_state(problem.states)
    return stream


def stream_results(stream: Any, output: np.ndarray, problem: Problem) -> Results:
    """Return the output of the last call and the state that it has left."""
    finals = (stream.state,) if len(problem.states) == 1 else stream.state
    shaped = (final.reshape(problem.shape.state_sizes) for final in finals)
    return dict(zip(problem.output_names, (output, *shaped), strict=True))


def step_run(layer: Any, problem: Problem, fresh: bool) -> Run:
    """Return the run of ``layer.stream``, into an array of the caller's or into a fresh one."""
    stream = started_stream(layer, problem)
    y = None if fresh else np.empty_like(problem.states[0])
    # Not a function of ours: its frame would take a twentieth of the time of a small step.
    step = functools.partial(stream.step, problem.x[0], out=y)

    return Run(step, lambda output: stream_results(stream, output[None], problem))


class Compiled:
    """The compiled functions, checks, allocation and packing of the weights included.

    Layers where there are several cells or lengths. One step, and a whole sequence in the mode
    stream, are those of a layer's stream, which has packed the weights and carries the state; in
    the mode frozen they are packed once, too, by the layer's ``freeze``.
    """

    name = OWN
    modules = ()
    extras = EXTRAS

    @staticmethod
    def unsupported(cell: str, mode: str, dtype: str) -> str:
        return ""

    @staticmethod
    def prepare(threads: int) -> None:
        import fastrnn

        fastrnn.set_num_threads(threads)

    @staticmethod
    def build(problem: Problem, mode: str, threads: int) -> Built:
        import fastrnn

        if mode == "step":
            layer = own_layer(problem)
            return {
                "out=": step_run(layer, problem, fresh=False),
                "fresh array": step_run(layer, problem, fresh=True),
            }
        if mode == "stream":
            stream = started_stream(own_layer(problem), problem)
            run = functools.partial(stream.run, problem.x)
            return Run(run, lambda output: stream_results(stream, output, problem))
        if problem.shape.extras or mode == "frozen":
            return layer_run(problem, mode, "compiled")
        return function_run(fastrnn, problem, mode)


def expected_results(problem: Problem) -> Results:
    """Return the results of training by the reference in float64, on the problem's own values."""
    problem = replace(problem.mapped(lambda array: array.astype(np.float64)), dtype="float64")
    run = NumpyReference.build(problem, "training", 1)
    with run.context():
        return run.results(run.call())
