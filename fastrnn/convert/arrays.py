"""Weights of plain NumPy code, however it stacks the gates and lays out its matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from .. import _checks, _cures
from ..layers import RECURRENT, Recurrent
from ..layers.frozen import plain_of
from ._layers import NAME, kind_of, letters, make_layer, reorder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_MATRICES = ("w", "w_ih", "w_hh", "w_hr")
_JOINED = ("xh", "hx")
_UPDATE = ("keeps", "takes")
_CELLS = {cls.__name__: name for name, cls in RECURRENT.items()}
# The arguments that are arrays, and the weights of layers that they become.
_WEIGHTS = {
    "w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh",
    "w_hr": "weight_hr", "w_peep": "weight_peephole", "leak": "weight_leak",
}  # fmt: skip


def from_arrays(
    cell: str,
    *,
    w_ih: Array | None = None,
    w_hh: Array | None = None,
    w: Array | None = None,
    joined: str = "xh",
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    w_hr: Array | None = None,
    w_peep: Array | None = None,
    order: str | None = None,
    transposed: bool = False,
    update_gate: str = "keeps",
    **options: Any,
) -> Recurrent[Any]:
    """Make a layer of the weights of NumPy code, however that stacks the gates.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru", "leaky"}
    w_ih, w_hh : ndarray, optional
        (G·H, D) and (G·H, H), or (G·H, P) with a projection: what x and h are multiplied by; one
        row for each unit of each gate, G gates. float32 or float64, all arrays alike.
    w : ndarray, optional
        Instead of these, one matrix for x and h together: (G·H, D + H).
    joined : {"xh", "hx"}
        Whether w has its columns for x in front of those for h, or behind them.
    b_ih, b_hh : ndarray, optional
        (G·H,): the biases. Where there is one alone, the other is zero; with ``bias="single"``
        among the options, b_ih is the only one that the layer has, and that an optimiser moves.
    w_hr, w_peep : ndarray, optional
        Of an LSTM: (P, H), the projection; (3·H,), the peepholes of i, f, o, in the order in which
        `order` has these gates.
    order : str, optional
        The gates in the order of their rows, a letter for each: of an LSTM i, f, o, and g or c; of
        a GRU r, z, and n or h. None: "ifgo" and "rzn".
    transposed : bool
        Whether units are in columns, as for ``x @ w``: w_ih is (D, G·H), and so on.
    update_gate : {"keeps", "takes"}
        What the gate z of a GRU does: whether h = (1 - z) n + z h, or h = (1 - z) h + z n.
    **options
        Those of the layer: `batch_first`, `nonlinearity` of an Elman layer, `reset_after` of a GRU,
        `form` and `leak` of a leaky layer.

    Returns
    -------
    RNN, LSTM, GRU or LeakyRNN
        Of one layer in one direction, with copies of the weights.

    Raises
    ------
    TypeError
        If an argument is of another type, or the arrays are not all float32 or all float64.
    ValueError
        If the arrays do not fit together, of which one error names all, or an option does not fit.

    See Also
    --------
    to_arrays : the way back, of weights and of gradients.

    Notes
    -----
    With "takes", the rows of z change their sign, as 1 - sigmoid(a) = sigmoid(-a).

    Examples
    --------
    One matrix for [x, h], units in columns, gates f, i, o, g:

    >>> import numpy as np, fastrnn.convert
    >>> w, b = np.ones((3 + 4, 4 * 4)), np.zeros(4 * 4)
    >>> fastrnn.convert.from_arrays("lstm", w=w, b_ih=b, order="fiog", transposed=True)
    LSTM(3, 4, dtype='float64')
    """
    cls = RECURRENT[_checks.choice("cell", cell, RECURRENT)]
    order = letters(cls.__name__, order)
    _checks.choice("joined", joined, _JOINED)
    transposed = _checks.flag("transposed", transposed)
    signs = _takes(cell, update_gate)
    reverse = _checks.flag("reverse", options.pop("reverse", False))
    arrays = {"w_ih": w_ih, "w_hh": w_hh, "w": w, "b_ih": b_ih, "b_hh": b_hh, "w_hr": w_hr,
              "w_peep": w_peep}  # fmt: skip
    if cell == "leaky" and isinstance(options.get("leak"), ndarray):
        arrays["leak"] = options.pop("leak")
    given = _typed({name: a for name, a in arrays.items() if a is not None})
    both = [name for name in ("w_ih", "w_hh") if "w" in given and name in given]
    if both:
        raise ValueError(f"w is given and {' and '.join(both)} too: pass w alone, or w_ih and w_hh")
    gates = len(order)
    laid_out, hidden, faults, cures = _laid_out(given, joined, transposed, gates)
    if faults:
        if len(_laid_out(given, joined, not transposed, gates)[2]) < len(faults):
            cures = [f"transposed={not transposed}"]
        elif len(faults) > 1:
            cures = []
        cure = f": pass {cures[0]}" if cures else ""
        raise ValueError(f"with {gates} gates of {hidden} units, {'; '.join(faults)}{cure}")
    given = laid_out
    if options.get("bias") == "single":
        if "b_ih" not in given or "b_hh" in given:
            have = [name for name in ("b_ih", "b_hh") if name in given]
            has = " and ".join(have) or "no bias"
            raise ValueError(f"bias is 'single', but the arrays have {has}, expected b_ih alone")
    elif "b_ih" in given or "b_hh" in given:
        zeros = np.zeros(gates * hidden, next(iter(given.values())).dtype)
        given = {"b_ih": zeros, "b_hh": zeros} | given
    weights = {name: _own(name, a, cls.__name__, order, signs) for name, a in given.items()}
    if cell == "leaky" and "leak" not in weights:
        start = _checks.numbers("leak", options.pop("leak", 0.5), hidden, weights["w_hh"].dtype)
        weights["leak"] = np.full(hidden, start, weights["w_hh"].dtype)
    end = "_l0" + "_reverse" * reverse
    named = {_WEIGHTS[name] + end: a for name, a in weights.items()}
    layer = make_layer(cls.__name__, named, "the arrays", **options)
    assert isinstance(layer, Recurrent)
    return layer


def to_arrays(
    source: Any,
    *,
    joined: str | None = None,
    order: str | None = None,
    transposed: bool = False,
    update_gate: str = "keeps",
    one_bias: bool = False,
) -> dict[str, Array]:
    """Return the weights of a layer, or their gradients, as NumPy code has them.

    With gradients, an optimiser of that code's own goes on with the arrays that it has.

    Parameters
    ----------
    source : layer or gradients
        A recurrent layer of one layer in one direction, also a frozen one; what its backward
        returns; or what `lstm_backward` and its like return.
    joined : {"xh", "hx"}, optional
        Whether w_ih and w_hh are joined in one matrix w, and how; see `from_arrays`. None: they
        are not.
    order, transposed, update_gate
        As for `from_arrays`.
    one_bias : bool
        Whether the code has one bias instead of two: b_ih is then their sum, and of gradients that
        of b_ih, which is the sum's.

    Returns
    -------
    dict of str to ndarray
        w, or w_ih and w_hh; b_ih and b_hh, or b_ih; w_hr, w_peep and leak where there are such.
        Fresh arrays. A gradient that was not asked for is left out.

    Raises
    ------
    TypeError
        If it is neither a layer nor gradients.
    ValueError
        If it has more than one layer or direction; or if one bias cannot stand for both, as in a
        GRU with ``reset_after=True`` whose b_hh is not zero for n.

    See Also
    --------
    from_arrays : the other way.

    Examples
    --------
    >>> import numpy as np, fastrnn.convert
    >>> w, b = np.ones((4, 3 + 4)), np.zeros(4)
    >>> layer = fastrnn.convert.from_arrays("rnn", w=w, b_ih=b)
    >>> output, state, tape = layer.forward(np.ones((5, 2, 3)))
    >>> grads = layer.backward(tape, np.ones_like(output))
    >>> grads = fastrnn.convert.to_arrays(grads, joined="xh", one_bias=True)
    >>> w -= 0.1 * grads["w"]
    >>> b -= 0.1 * grads["b_ih"]
    """
    if joined is not None:
        _checks.choice("joined", joined, _JOINED)
    transposed, one_bias = (
        _checks.flag("transposed", transposed),
        _checks.flag("one_bias", one_bias),
    )
    source = plain_of(source)
    weights = _weights_of(source)
    kind = _kind_of(source, weights)
    order = letters(kind, order)
    signs = _takes(_CELLS[kind], update_gate)
    gradients = not isinstance(source, Recurrent)
    if one_bias and "b_hh" in weights:
        b_hh = weights.pop("b_hh")
        if not gradients:
            if getattr(source, "reset_after", False) and np.split(b_hh, 3)[2].any():
                raise ValueError(
                    "one_bias is True, but of a GRU with reset_after=True the reset gate acts on "
                    "b_hh of n alone, which is not zero: pass one_bias=False"
                )
            weights["b_ih"] = weights["b_ih"] + b_hh
    found = {name: _own(name, a, kind, order, signs, back=True) for name, a in weights.items()}
    if joined is not None:
        if missing := [name for name in ("w_ih", "w_hh") if name not in found]:
            raise ValueError(f"joined is {joined!r}, but source has no {' and no '.join(missing)}")
        parts = [found.pop("w_ih"), found.pop("w_hh")]
        found = {"w": np.concatenate(parts if joined == "xh" else parts[::-1], axis=1)} | found
    if transposed:
        found = {name: a.T if a.ndim == 2 else a for name, a in found.items()}
    return {name: np.array(a, order="C") for name, a in found.items()}


# ------------------------------------------------------------------------------ theirs and ours


def _takes(cell: str, update_gate: Any) -> bool:
    """Whether the rows of z change their sign."""
    takes = _checks.choice("update_gate", update_gate, _UPDATE) == "takes"
    if takes and cell != "gru":
        raise ValueError(
            f"update_gate is {update_gate!r}, but cell is {cell!r}: only a GRU has one"
        )
    return takes


def _own(name: str, a: Array, kind: str, order: str, takes: bool, back: bool = False) -> Array:
    """Rows in their order turned into ours, or `back`; z with the other sign if it takes."""
    if name in ("w_hr", "leak"):
        return a
    own = letters(kind, None)
    if name == "w_peep":
        order, own = (text.replace("g", "") for text in (order, own))
    rows = reorder(a, *((own, order) if back else (order, own)))
    if takes:
        z = (order if back else own).index("z")
        rows = rows.copy()
        H = len(rows) // len(own)
        rows[z * H : (z + 1) * H] *= -1
    return rows


def _typed(arrays: Mapping[str, Any]) -> dict[str, Array]:
    if not arrays:
        raise ValueError("the arrays are missing: pass w_ih and w_hh, or w")
    names = list(arrays)
    found = _checks.agreeing(names, list(arrays.values()), (), lambda: {})
    return dict(zip(names, found, strict=True))


def _hidden(given: Mapping[str, Array], gates: int) -> int:
    """H, by what says it first; what does not fit to that is found later."""
    for name in ("w_hh", "w", "w_ih", "b_ih", "b_hh"):
        if name in given and given[name].ndim and len(given[name]) >= gates:
            return len(given[name]) // gates
    return 1


def _laid_out(
    given: Mapping[str, Array], joined: str, transposed: bool, gates: int
) -> tuple[dict[str, Array], int, list[str], list[str]]:
    """The arrays with a row for each unit, w in its parts; H; all that does not fit, and cures."""
    found = {name: a.T if transposed and name in _MATRICES else a for name, a in given.items()}
    hidden = _hidden(found, gates)
    rows, units = gates * hidden, hidden
    if "w_hr" in found and found["w_hr"].ndim == 2:
        units = len(found["w_hr"])
    expected: dict[str, tuple[int | str, ...]] = {
        "w": (rows, f"D + {units}"), "w_ih": (rows, "D"), "w_hh": (rows, units), "b_ih": (rows,),
        "b_hh": (rows,), "w_hr": ("P", hidden), "w_peep": (3 * hidden,), "leak": (hidden,),
    }  # fmt: skip
    faults, cures = [], []
    if "w" not in found:
        faults = [f"{name} is missing" for name in ("w_ih", "w_hh") if name not in found]
    for name, a in found.items():
        want = expected[name]
        if _fits(a.shape, want) and (name != "w" or a.shape[1] >= units):
            continue
        if transposed and name in _MATRICES:
            want = want[::-1]
        text = f"({', '.join(map(str, want))}{',' * (len(want) == 1)})"
        faults.append(f"{name} has shape {given[name].shape}, expected {text}")
        if len(want) == 1 and a.size == want[0]:
            cures.append(f"{name}.ravel()")
    if "w" in found and not faults:
        w = found.pop("w")
        cut = units if joined == "hx" else w.shape[1] - units
        parts = {"w_ih": w[:, :cut], "w_hh": w[:, cut:]}
        if joined == "hx":
            parts = {"w_ih": w[:, cut:], "w_hh": w[:, :cut]}
        found |= parts
    return found, hidden, faults, cures


def _fits(shape: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    return len(shape) == len(expected) and all(
        isinstance(want, str) or n == want for n, want in zip(shape, expected, strict=True)
    )


# ------------------------------------------------------------------------------ ours and theirs


def _weights_of(source: Any) -> dict[str, Array]:
    """The weights, or their gradients, under the names of the arguments."""
    if isinstance(source, Recurrent) or hasattr(source, "flat_weights"):
        return _of_layer(source)
    if isinstance(source, tuple) and hasattr(source, "w_hh"):  # of a function
        found = {name: getattr(source, name, None) for name in _WEIGHTS}
        return {name: a for name, a in found.items() if a is not None}
    raise TypeError(
        f"source is {_cures.kind(source)}, expected a recurrent layer, or the gradients of one"
    )


def _of_layer(source: Any) -> dict[str, Array]:
    found = filter(None, map(NAME.fullmatch, source.weights))
    ends = {f"_l{match[3]}{match[4] or ''}" for match in found}
    if len(ends) > 1 or not ends:
        given = (
            f"weights of {', '.join(sorted(ends))}" if ends else "no weights of a recurrent layer"
        )
        raise ValueError(f"source has {given}, expected those of one layer in one direction")
    (end,) = ends
    named = {on_layer + end: name for name, on_layer in _WEIGHTS.items()}
    return {named[name]: np.asarray(a) for name, a in source.weights.items()}


def _kind_of(source: Any, weights: Mapping[str, Array]) -> str:
    """The layer's class: of gradients, what they are of."""
    if isinstance(source, Recurrent):
        return kind_of(source)
    name = type(source).__name__.removesuffix("Gradients")
    if name in _CELLS:
        return name
    if "leak" in weights:
        return "LeakyRNN"
    if "w_hr" in weights or "w_peep" in weights:
        return "LSTM"
    if "w_hh" not in weights:
        raise ValueError("source has no gradient of weight_hh, which says of what cell it is")
    rows, units = weights["w_hh"].shape
    gates = rows // units
    return next(n for n, c in _CELLS.items() if RECURRENT[c]._cell.gates == gates)
