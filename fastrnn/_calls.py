"""One layer in one direction, whatever the cell: check, allocate, hand over, make the tape.

The public functions of `fastrnn.functional` and the layers call `forward` and `backward`. On the
reference backend these pass everything on to `fastrnn.reference`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy import empty

from . import _checks, _core, reference
from .config import current_backend, current_threads
from .reference.arguments import CellSpec, CellTape, backward_arguments, forward_arguments
from .reference.cells import FORWARD
from .reference.gru import GRUGradients, GRUTape
from .reference.lstm import CELL as LSTM
from .reference.lstm import LSTMGradients, LSTMTape
from .reference.rnn import CELL as RNN
from .reference.rnn import RNNGradients, RNNTape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# enum fastrnn_cell
NONLINEARITY_CODES = {"tanh": 0, "relu": 1}
LSTM_CODE = 2
RESET_AFTER_CODES = {True: 3, False: 4}
CODES: dict[str, dict[Any, int]] = {
    "rnn": NONLINEARITY_CODES, "lstm": {None: LSTM_CODE}, "gru": RESET_AFTER_CODES,
}  # fmt: skip
OPTIONS = (str, type(None), bool)  # the types of what `code` takes


def code(cell: CellSpec, option: Any) -> tuple[int, Any]:
    """The number that C knows a cell by, and the cell's option as a plain str or bool."""
    if cell is RNN:
        option = _checks.choice("nonlinearity", option, _checks.NONLINEARITIES)
        return NONLINEARITY_CODES[option], option
    if cell is LSTM:
        return LSTM_CODE, None
    option = _checks.flag("reset_after", option)
    return RESET_AFTER_CODES[option], option


# ------------------------------------------------------------------------------ forward


def forward(
    cell: CellSpec,
    x: Any,
    h_0: Any,
    c_0: Any,
    weights: dict[str, Any],
    option: Any,
    lengths: Any,
    restart: Any,
    reverse: Any,
    record: Any,
    check: Any,
    batch_major: bool = False,
    output: Array | None = None,
    checkpoint: int = 0,
    together: _core.Together | None = None,
) -> tuple[Array, Array, Any, Any]:
    """`run` with the weights in a dict: w_ih, w_hh, b_ih, b_hh, of an LSTM w_hr and w_peep too."""
    get = weights.get
    return run(
        cell, x, h_0, c_0, get("w_ih"), get("w_hh"), get("b_ih"), get("b_hh"), get("w_hr"),
        get("w_peep"), option, lengths, restart, reverse, record, check, batch_major, output,
        checkpoint, together,
    )  # fmt: skip


def run(
    cell: CellSpec,
    x: Any,
    h_0: Any,
    c_0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    w_hr: Any,
    w_peep: Any,
    option: Any,
    lengths: Any,
    restart: Any,
    reverse: Any,
    record: Any,
    check: Any,
    batch_major: bool = False,
    output: Array | None = None,
    checkpoint: int = 0,
    together: _core.Together | None = None,
) -> tuple[Array, Array, Any, Any]:
    """Run a layer in one direction.

    Parameters
    ----------
    cell : CellSpec
    x, h_0, c_0, w_ih, ..., w_peep, lengths, restart, reverse, record, check
        As for the cell's function. What the cell does not have is None.
    option : str, bool or None
        nonlinearity of an Elman cell, reset_after of a GRU, None of an LSTM.
    batch_major : bool
        Whether output (T, B, P) is to lie in memory as (B, T, P).
    output : ndarray, optional
        (T, B, P), to be written to; its last axis is contiguous. Not with an unbatched x.
    checkpoint : int
        0, or K: the tape has no gates, and c of every K-th step only; backward makes them again.
        An Elman layer's needs none of them, and the reference keeps them all.
    together : Together, optional
        The call is made by its `run`, and the results are there afterwards. Not with `check`.

    Returns
    -------
    output, h_n, c_n, tape
        c_n is None where the cell has no such state.
    """
    if current_backend.get() == "reference":
        return _run_by_reference(
            cell, (x, h_0, c_0, w_ih, w_hh, b_ih, b_hh), w_hr, w_peep, option, output,
            lengths=lengths, restart=restart, reverse=reverse, record=record, check=check,
        )  # fmt: skip
    unbatched = False
    if (
        lengths is not None
        or restart is not None
        or _core.cell_fits(cell.gates, x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep) != 3
    ):  # any but the most common form, which forward_arguments would leave as it is
        extra = (w_hr, w_peep)[: len(cell.extras)]
        fit = _core.cell_fits(cell.gates, x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep) != 0
        arrays, lengths, restart, unbatched = forward_arguments(
            cell, (x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, extra), lengths, restart, fit
        )
        x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, extra = arrays
        w_hr, w_peep = extra or (None, None)
    if cell is RNN and type(option) is str and option in NONLINEARITY_CODES:
        number = NONLINEARITY_CODES[option]
    else:
        number, option = code(cell, option)
    if not (type(reverse) is type(record) is type(check) is bool):
        reverse = _checks.flag("reverse", reverse)
        record = _checks.flag("record", record)
        check = _checks.flag("check", check)

    output, h_n, c_n, c, gates = _core.layer_forward(
        number, x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, lengths, restart,
        reverse, record, checkpoint, batch_major, output, together, current_threads.get(),
    )  # fmt: skip
    tape: RNNTape | LSTMTape | GRUTape | None = None
    if record:
        # The tape has its own initial state: callers carry it on, and clear rows of it in place.
        h_0 = None if h_0 is None else h_0.copy()
        if cell is RNN:
            tape = RNNTape(
                x, h_0, w_ih, w_hh, b_ih, b_hh, output, lengths, restart,
                option, reverse, unbatched, batch_major, None,
            )  # fmt: skip
        elif cell is LSTM:
            tape = LSTMTape(
                x, h_0, None if c_0 is None else c_0.copy(), w_ih, w_hh, b_ih, b_hh, w_hr, w_peep,
                output, c, gates, lengths, restart, reverse, unbatched, batch_major, None,
                checkpoint,
            )  # fmt: skip
        else:
            tape = GRUTape(
                x, h_0, w_ih, w_hh, b_ih, b_hh, output, gates, lengths, restart,
                option, reverse, unbatched, batch_major, None, checkpoint,
            )  # fmt: skip
        if check:
            tape = tape.with_digests()
    if unbatched:
        return output[:, 0], h_n[0], None if c_n is None else c_n[0], tape
    return output, h_n, c_n, tape


def _run_by_reference(
    cell: CellSpec, arrays: tuple[Any, ...], w_hr: Any, w_peep: Any, option: Any,
    output: Array | None, **options: Any,
) -> tuple[Array, Array, Any, Any]:  # fmt: skip
    x, h_0, c_0, *weights = arrays
    c_n: Any = None
    tape: Any
    if cell is RNN:
        made, h_n, tape = reference.rnn_forward(x, h_0, *weights, nonlinearity=option, **options)
    elif cell is LSTM:
        made, h_n, c_n, tape = reference.lstm_forward(
            x, h_0, c_0, *weights, w_hr=w_hr, w_peep=w_peep, **options
        )
    else:
        made, h_n, tape = reference.gru_forward(x, h_0, *weights, reset_after=option, **options)
    if output is None:
        return made, h_n, c_n, tape
    output[...] = made
    return output, h_n, c_n, None if tape is None else tape._replace(output=output)


# ------------------------------------------------------------------------------ backward


def backward(
    tape: Any,
    d_output: Any,
    d_h_n: Any,
    d_c_n: Any,
    wrt: Any,
    into: dict[str, Array],
    kind: Any = None,
    together: _core.Together | None = None,
) -> Any:
    """Backpropagate through a layer in one direction.

    Parameters
    ----------
    tape : RNNTape, LSTMTape or GRUTape
    d_output, d_h_n, d_c_n, wrt
        As for the cell's function; d_c_n is None where the cell has no such state.
    into : dict
        Where to write a gradient, by its name: of weights and of x. The last axis is contiguous.
    kind : type, optional
        What the tape must be. None: that of any cell.
    together : Together, optional
        As for `run`.

    Returns
    -------
    RNNGradients, LSTMGradients or GRUGradients
        What was written to `into` is that array.
    """
    if current_backend.get() == "reference":
        cell = (kind or tape).cell
        grads = _backward_by_reference(cell, tape, d_output, d_h_n, d_c_n, wrt)
        for name, place in into.items():
            place[...] = getattr(grads, name)
        return grads._replace(**into)
    kind = kind or CellTape
    _checks.tape(tape, kind, FORWARD if kind is CellTape else f"{kind.cell.name}_forward")
    tape, d_output, d_h_n, d_c_n, wanted = backward_arguments(
        tape, d_output, d_h_n, d_c_n, wrt, _is_whole
    )
    if tape.unbatched and "x" in into:
        into = into | {"x": into["x"][:, None]}
    d_x, d_h_0, d_c_0, *weights = _bptt(tape, d_output, d_h_n, d_c_n, wanted, into, None, together)
    if tape.unbatched:
        d_x = None if d_x is None else d_x[:, 0]
        d_h_0 = None if d_h_0 is None else d_h_0[0]
        d_c_0 = None if d_c_0 is None else d_c_0[0]
    cell = tape.cell
    if cell is LSTM:
        return LSTMGradients(d_x, d_h_0, d_c_0, *weights)
    return (RNNGradients if cell is RNN else GRUGradients)(d_x, d_h_0, *weights[:4])


def _backward_by_reference(
    cell: CellSpec, tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any, wrt: Any
) -> Any:
    if cell is RNN:
        return reference.rnn_backward(tape, d_output, d_h_n, wrt=wrt)
    if cell is LSTM:
        return reference.lstm_backward(tape, d_output, d_h_n, d_c_n, wrt=wrt)
    return reference.gru_backward(tape, d_output, d_h_n, wrt=wrt)


def norms(tape: Any, d_output: Any, d_h_n: Any, d_c_n: Any) -> Array:
    """`fastrnn.gradient_norms` of the tape of one layer in one direction."""
    _checks.tape(tape, CellTape, FORWARD)
    tape, d_output, d_h_n, d_c_n, none = backward_arguments(
        tape, d_output, d_h_n, d_c_n, (), _is_whole
    )
    norms = empty(tape.x.shape[:2])
    _bptt(tape, d_output, d_h_n, d_c_n, none, {}, norms)
    return norms[:, 0] if tape.unbatched else norms


def _is_whole(tape: Any) -> bool:
    """`is_whole` of the reference, in less time."""
    cell = tape.cell
    c_0 = w_hr = w_peep = c = gates = None
    checkpoint = 0
    if cell is not RNN:
        gates, checkpoint = tape.gates, tape.checkpoint
    if cell is LSTM:
        c_0, w_hr, w_peep, c = tape.c_0, tape.w_hr, tape.w_peep, tape.c
    return _core.tape_fits(
        cell.gates, tape.x, tape.h_0, c_0, tape.w_ih, tape.w_hh, tape.b_ih, tape.b_hh, w_hr, w_peep,
        tape.output, c, gates, checkpoint, tape.lengths, tape.restart,
    )  # fmt: skip


def _bptt(
    tape: Any,
    d_output: Array | None,
    d_h_n: Array | None,
    d_c_n: Array | None,
    wanted: frozenset[str],
    into: dict[str, Array],
    norms: Array | None,
    together: _core.Together | None = None,
) -> tuple[Any, ...]:
    """The gradients of x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep; and norms is filled."""
    c_0 = w_hr = w_peep = c = gates = None
    checkpoint = 0
    if tape.cell is RNN:
        number, _ = code(RNN, tape.nonlinearity)
    else:
        number, gates, checkpoint = LSTM_CODE, tape.gates, tape.checkpoint
        if tape.cell is LSTM:
            c_0, w_hr, w_peep, c = tape.c_0, tape.w_hr, tape.w_peep, tape.c
        else:
            number, _ = code(tape.cell, tape.reset_after)
    return _core.layer_backward(
        number, tape.x, tape.h_0, c_0, tape.w_ih, tape.w_hh, tape.b_ih, tape.b_hh, w_hr, w_peep,
        tape.lengths, tape.restart, _checks.flag("reverse", tape.reverse), tape.output, c, gates,
        checkpoint, d_output, d_h_n, d_c_n,
        wanted, into, tape.batch_major, norms, together, current_threads.get(),
    )  # fmt: skip
