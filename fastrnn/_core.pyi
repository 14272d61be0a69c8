"""The compiled side: private, trusts its callers about types and shapes (see _checks.py)."""

from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

# x, output, d_output and d_x are (T, B, .) with unit stride on the last axis and any whole-element
# strides on the others; every other array is C-contiguous. All are aligned, in native byte order
# and of one type, float32 or float64. Results are written whole, padding included; a result that
# is None is not computed. nonlinearity: 0 tanh, 1 relu. threads 0: the process-wide number. d_b is
# the gradient of either bias.
def rnn_forward(
    x: _Array,
    h_0: _Array | None,
    w_ih: _Array,
    w_hh: _Array,
    b_ih: _Array | None,
    b_hh: _Array | None,
    lengths: _Array | None,
    restart: _Array | None,
    nonlinearity: int,
    reverse: bool,
    batch_major: bool,
    threads: int,
) -> tuple[_Array, _Array]: ...
def rnn_backward(
    x: _Array,
    h_0: _Array | None,
    w_ih: _Array,
    w_hh: _Array,
    output: _Array,
    lengths: _Array | None,
    restart: _Array | None,
    d_output: _Array | None,
    d_h_n: _Array | None,
    d_x: _Array | None,
    d_h_0: _Array | None,
    d_w_ih: _Array | None,
    d_w_hh: _Array | None,
    d_b: _Array | None,
    nonlinearity: int,
    reverse: bool,
    threads: int,
) -> None: ...

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
def generate(
    embedding: _Array,
    w_ih: _Array,
    w_hh: _Array,
    b_ih: _Array | None,
    b_hh: _Array | None,
    w_out: _Array,
    b_out: _Array | None,
    h: _Array,
    prompt: _Array,
    uniform: _Array | None,
    temperature: float,
    indices: _Array,
    nonlinearity: int,
) -> None: ...
def sum_of_squares(x: _Array) -> float: ...
def empty_sequence(T: int, B: int, n: int, type_number: int, batch_major: bool) -> _Array: ...
def rnn_fits(
    x: object, h_0: object, w_ih: object, w_hh: object, b_ih: object, b_hh: object
) -> int: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def available_isas() -> tuple[str, ...]: ...
def get_isa() -> str: ...
def set_isa(name: str) -> None: ...
def build_info() -> dict[str, Any]: ...
def tanh(x: _Array, out: _Array) -> None: ...
def exp(x: _Array, out: _Array) -> None: ...
def swap_team_policy(per_member: float, to_wake: float) -> tuple[float, float]: ...
def teams_run() -> int: ...
def fma_peak(seconds: float, dtype_is_double: bool) -> float: ...
