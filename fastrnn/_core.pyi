"""The compiled side: private. It looks at types and shapes once more, but does not explain."""

from contextvars import ContextVar
from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

# Up to two calls of layer_forward or of layer_backward: their results are there after `run`.
class Together:
    def run(self) -> None: ...

# x, output, d_output and d_x are (T, B, .) with unit stride on the last axis and any whole-element
# strides on the others; every other array is C-contiguous. All are aligned, in native byte order
# and of one type, float32 or float64. Results are written whole, padding included;
# a result that is None is not computed. threads 0: the process-wide number.
# kind is enum fastrnn_cell: 0 tanh, 1 relu, 2 LSTM, 3 GRU, 4 GRU with its reset gate first. What
# the cell does not have is None: c_0, c_n and c but for an LSTM, gates for an Elman cell; so are c
# and gates where nothing is recorded. checkpoint K > 0: gates None, and c of every K-th step only.
# output: None, or where to write it.
def layer_forward(
    kind: int,
    x: _Array,
    h_0: _Array | None,
    c_0: _Array | None,
    w_ih: _Array,
    w_hh: _Array,
    b_ih: _Array | None,
    b_hh: _Array | None,
    w_hr: _Array | None,
    w_peep: _Array | None,
    lengths: _Array | None,
    restart: _Array | None,
    reverse: bool,
    record: bool,
    checkpoint: int,
    batch_major: bool,
    output: _Array | None,
    together: Together | None,
    threads: int,
) -> tuple[_Array, _Array, Any, Any, Any]: ...  # output, h_n, c_n, c, gates

# The most common call of a layer, in one piece: one cell, no lengths, restart or tape, x (T, B, D)
# or (B, T, D), h_0 and c_0 None or (1, B, .). weights: w_ih, w_hh, b_ih, b_hh, w_hr, w_peep.
# Returns output like x, h_n and c_n like h_0 and c_0; None where an argument is not in the form
# that the kernel takes.
def layer_at_once(
    kind: int,
    weights: tuple[_Array | None, ...],
    x: object,
    h_0: object,
    c_0: object,
    batch_first: bool,
    threads: ContextVar[int],
) -> tuple[_Array, _Array, Any] | None: ...

# wanted: names of arguments; into: where some of their gradients go, made where it does not say;
# norms: None, or a float64 (T, B) array. Returns the gradients of x, h_0, c_0, w_ih, w_hh, b_ih,
# b_hh, w_hr and w_peep, None for what is absent or not wanted.
def layer_backward(
    kind: int,
    x: _Array,
    h_0: _Array | None,
    c_0: _Array | None,
    w_ih: _Array,
    w_hh: _Array,
    b_ih: _Array | None,
    b_hh: _Array | None,
    w_hr: _Array | None,
    w_peep: _Array | None,
    lengths: _Array | None,
    restart: _Array | None,
    reverse: bool,
    output: _Array,
    c: _Array | None,
    gates: _Array | None,
    checkpoint: int,
    d_output: _Array | None,
    d_h_n: _Array | None,
    d_c_n: _Array | None,
    wanted: frozenset[str],
    into: dict[str, _Array],
    batch_major: bool,
    norms: _Array | None,
    together: Together | None,
    threads: int,
) -> tuple[Any, ...]: ...

# x, logits and d_output are (N, .) with contiguous rows at any stride; the rest as above.
def linear_forward(
    x: _Array, weight: _Array, bias: _Array | None, output: _Array, threads: int
) -> None: ...
def linear_backward(
    x: _Array,
    weight: _Array,
    d_output: _Array,
    d_x: _Array | None,
    d_weight: _Array | None,
    d_bias: _Array | None,
    threads: int,
) -> None: ...
def embedding_backward(
    indices: _Array, d_output: _Array, d_weight: _Array, threads: int
) -> None: ...
def cross_entropy(
    logits: _Array,
    target: _Array,
    counts: _Array | None,
    scale: float,
    d_logits: _Array,
    losses: _Array,
    threads: int,
) -> float: ...

# layers: of each (kind, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, h, c); h (P,) and c (H,) or None are
# the state, written in place.
def generate(
    embedding: _Array,
    layers: tuple[tuple[Any, ...], ...],
    w_out: _Array,
    b_out: _Array | None,
    prompt: _Array,
    uniform: _Array | None,
    temperature: float,
    indices: _Array,
) -> None: ...
def sum_of_squares(x: _Array) -> float: ...
def empty_sequence(T: int, B: int, n: int, type_number: int, batch_major: bool) -> _Array: ...
def cell_fits(
    gates: int,
    x: object,
    h_0: object,
    c_0: object,
    w_ih: object,
    w_hh: object,
    b_ih: object,
    b_hh: object,
    w_hr: object = None,
    w_peep: object = None,
    small: bool = True,
) -> int: ...
def tape_fits(
    gates: int,
    x: object,
    h_0: object,
    c_0: object,
    w_ih: object,
    w_hh: object,
    b_ih: object,
    b_hh: object,
    w_hr: object,
    w_peep: object,
    output: object,
    c: object,
    kept: object,
    checkpoint: object,
    lengths: object,
    restart: object,
) -> bool: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def available_isas() -> tuple[str, ...]: ...
def get_isa() -> str: ...
def set_isa(name: str) -> None: ...
def build_info() -> dict[str, Any]: ...
def tanh(x: _Array, out: _Array) -> None: ...
def sigmoid(x: _Array, out: _Array) -> None: ...
def exp(x: _Array, out: _Array) -> None: ...
def cpu_quota(root: str) -> int: ...
def swap_team_policy(fork_join: float, wake: float) -> tuple[float, float]: ...
def last_plan() -> dict[str, Any]: ...
def teams_run() -> int: ...
def workers_made() -> int: ...
def set_delays(*delays: tuple[str, int, int, float]) -> None: ...
def delays() -> tuple[int, int]: ...
def fma_peak(seconds: float, dtype_is_double: bool) -> float: ...
def read_peak(seconds: float, dtype_is_double: bool, bytes: int) -> float: ...

class Company:
    def allows(self, wanted: int, time: float) -> int: ...
    def saw(self, threads: int, wall: float, lost: float, time: float) -> None: ...

class StreamCore:
    count: int
    batch: int
    features: int
    units: int

    def _allocate(
        self, kind: int, weights: list[tuple[_Array | None, ...]], batch: int, threads: Any
    ) -> None: ...
    def _pack(self, kind: int, weights: list[tuple[_Array | None, ...]]) -> None: ...
    def _run(
        self, x: _Array, output: _Array, between: list[_Array], restart: _Array | None
    ) -> None: ...
    def _states(self) -> tuple[_Array, _Array | None]: ...
    def step(self, x_t: _Array, restart: Any = None, out: _Array | None = None) -> _Array: ...
