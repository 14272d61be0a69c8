"""The compiled side: private. It looks at types and shapes once more, but does not explain."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

# Of each cell that C has, by its number: name, gates, how many values a unit has on the tape beside
# c, whether there is a c, whether that alone is the state, which callers call h, and the extra
# weights, each a name, its axes and whether it is required.
LARGE_RESULT: int
CELLS: tuple[tuple[str, int, int, bool, bool, tuple[tuple[str, tuple[str, ...], bool], ...]], ...]

# x, output, d_output and d_x are (T, B, .) with unit stride on the last axis and any whole-element
# strides on the others; every other array is C-contiguous. All are aligned, in native byte order
# and of one type, float32 or float64. Results are written whole, padding included;
# a result that is None is not computed. threads 0: the process-wide number.
#
# What the cell does not have, or what is absent, is None. arrays: (x, h_0, c_0, w_ih, w_hh, b_ih,
# b_hh, extra), and extra the tuple of weights that CELLS names. w_ih None: x is pre-activations.
#
# One direction of a layer, or two that may run at the same time; each (cell, arrays, lengths, mask,
# restart, reverse, record, checkpoint, batch_major, output, packed): not both of lengths and mask
# are given; record: None, or (the class of the tape, the cell's options, whether x came without a
# batch axis); checkpoint 0, or K: the tape has no gates, and c of every K-th step only; output:
# None, or where to write it; packed: None, or what the weights are read from instead. Of each
# direction output, h_n, c_n, tape. ask: of one direction, the rank that arrays_fit gives instead,
# where it is not 3.
def forward(directions: list[tuple[Any, ...]], threads: int, ask: bool = False) -> Any: ...

# The most common call of a layer, in one piece: one direction, no lengths, mask, restart or tape, x
# (T, B, D) or (B, T, D), h_0 and c_0 None or (1, B, .). weights: (w_ih, w_hh, b_ih, b_hh, extra).
# Returns output like x, h_n and c_n like h_0 and c_0; None where an argument is not in the form
# that the kernel takes, or the weights are packed for another instruction set than that in use.
def fast_forward(
    cell: int,
    weights: tuple[Any, ...],
    x: object,
    h_0: object,
    c_0: object,
    batch_first: bool,
    threads: ContextVar[int],
    packed: Packed | None = None,
) -> tuple[_Array, _Array, Any] | None: ...

# One step: h or (h, c), or `out`, an array or a pair of them, which is written to and may be the
# states before or x. arrays as above, but x (B, D) or (D,) and the states like it. None where an
# argument is not in the form that the kernel takes, or `out` shares memory with a weight; or, if
# `small`, where a product of sizes is so large that it has to be looked at. The first extra weight
# may be a number for all units.
def step(
    cell: int, arrays: tuple[Any, ...], out: Any, threads: ContextVar[int], small: bool = True
) -> Any: ...

# As forward; each direction is (cell, tape, d_output, d_h_n, d_c_n, wanted, into, norms). wanted:
# names of arguments; into: where some of their gradients go, made where it does not say; norms:
# None, or a float64 (T, B) array. Of each direction the gradients of the cell's arguments, in the
# order of the tape; None for what is absent or not wanted.
def backward(directions: list[tuple[Any, ...]], threads: int) -> list[list[Any]]: ...

# The tape that `forward` would make of a direction, with these results of it.
def make_tape(
    cell: int, direction: tuple[Any, ...], output: _Array, c: object, gates: object
) -> Any: ...

# A torch tensor's memory as a read-only array, of at most four axes; a TypeError unless it is of
# this torch.dtype, whose number in NumPy is given, and on the CPU. whole: a copy where it is not
# C-contiguous.
def lend(tensor: Any, dtype: Any, type_number: int, whole: bool = False) -> _Array: ...

# x, logits and d_output are (N, .) with contiguous rows at any stride; the rest as above.
def linear_forward(
    x: _Array, weight: _Array, bias: _Array | None, output: _Array, threads: int
) -> None: ...

# weight (O, D) and bias (O,) or None, packed as Packed is; and a forward with them.
class PackedLinear:
    def __init__(self, weight: _Array, bias: _Array | None) -> None: ...
    def current(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...

def packed_linear_forward(
    packed: PackedLinear, x: _Array, output: _Array, threads: int
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

# target (N,), or None and soft (N, C); counts, weights (N,) and class_weight (C,) are of positions
# and classes, losses (N,) is written to. The sum of the losses.
def cross_entropy(
    logits: _Array,
    target: _Array | None,
    soft: _Array | None,
    counts: _Array | None,
    weights: _Array | None,
    class_weight: _Array | None,
    smoothing: float,
    scale: float,
    d_logits: _Array,
    losses: _Array,
    threads: int,
) -> float: ...
def softmax(logits: _Array, logarithm: bool, output: _Array, threads: int) -> None: ...

# C-contiguous arrays of as many elements as input has. The sum of the losses.
def element_losses(
    loss: str,
    input: _Array,
    target: _Array,
    counts: _Array | None,
    weights: _Array | None,
    positive: _Array | None,
    delta: float,
    scale: float,
    d_input: _Array,
    losses: _Array | None,
) -> float: ...

# One step of an optimiser, in place; rule: its place in reference/optim.py's RULES, which says what
# state and numbers are: of each of params a tuple. Nothing has changed and False is returned where
# arrays are not in the form that the kernel takes: C-contiguous, each gradient and each array of
# the state, which may be None, like its parameter; and no gradient with memory of a parameter, but
# of its own all.
def update(
    rule: int,
    params: tuple[_Array, ...],
    grads: object,
    state: tuple[tuple[_Array | None, ...], ...],
    numbers: tuple[tuple[float, ...], ...],
    threads: int,
) -> bool: ...

# layers: of each (cell, (w_ih, w_hh, b_ih, b_hh, extra), h_0, c_0, h_n, c_n, packed); h (B, P) and
# c (B, H) or None are the states, the last two written to; packed a Packed or None. stop: (V,) of
# bool. All that is packed is so for one instruction set, which packed_alike looks at.
class Network:
    def __init__(
        self,
        embedding: _Array,
        layers: tuple[tuple[Any, ...], ...],
        w_out: _Array,
        b_out: _Array | None,
        packed_out: PackedLinear | None,
        temperature: float,
        top_k: int,
        top_p: float,
        stop: _Array | None,
    ) -> None: ...

def packed_alike(parts: tuple[Packed | PackedLinear, ...]) -> bool: ...

# prompts: all of them, that of sequence b from begins[b] to begins[b + 1]. uniform: (length, B).
# indices: (B, length), and written (B,) says how many there are, or -1 where NaN left no choice.
def generate(
    network: Network,
    prompts: _Array,
    begins: _Array,
    uniform: _Array,
    indices: _Array,
    written: _Array,
    threads: int,
) -> None: ...

# One sequence. network: the arguments of Network, whose h_n and c_n are h_0 and c_0. failure: what
# is said where NaN left no choice.
class Writer(Network):
    _left: int | None
    def __init__(
        self,
        network: tuple[Any, ...],
        prompt: _Array,
        length: int | None,
        random: Callable[[], float],
        failure: str,
    ) -> None: ...
    def __iter__(self) -> Writer: ...
    def __next__(self) -> int: ...

def sum_of_squares(x: _Array) -> float: ...
def empty_flat(n: int, type_number: int) -> _Array: ...
def empty_sequence(T: int, B: int, n: int, type_number: int, batch_major: bool) -> _Array: ...

# The rank of x where `forward` can take the arrays as they are, (T, D) with an axis added; else 0.
def arrays_fit(cell: int, arrays: tuple[Any, ...], small: bool = True) -> int: ...
def tape_fits(cell: int, tape: Any) -> bool: ...
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
def swap_far(bytes_: float) -> float: ...
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

# The weights of one direction (w_ih, w_hh, b_ih, b_hh, extra), packed for the instruction set in
# use; current: whether it still is that. A call that is given them runs on that one; with weights
# of other sizes it is refused. pack: of several directions, all for one instruction set.
class Packed:
    def __init__(self, cell: int, weights: tuple[Any, ...]) -> None: ...
    def current(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...

def pack(cell: int, directions: list[tuple[Any, ...]]) -> tuple[Packed, ...]: ...

class StreamCore:
    _count: int
    _batch: int
    _features: int
    _units: int

    def _allocate(self, packed: tuple[Packed, ...], batch: int, threads: Any) -> None: ...
    def _pack(self, packed: tuple[Packed, ...]) -> None: ...
    def _run(
        self, x: _Array, output: _Array, intermediate: list[_Array], restart: _Array | None
    ) -> None: ...
    def _states(self) -> tuple[_Array, _Array | None]: ...
    def step(self, x_t: _Array, restart: Any = None, out: _Array | None = None) -> _Array: ...
