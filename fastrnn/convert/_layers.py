"""What all readers share: the orders of gates, layers from weights, and what a file holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _cures
from ..layers import LAYERS, Recurrent, Sequential, Weighted
from ..layers.frozen import plain_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# How the rows of a layer's weights are stacked.
ORDERS = {"RNN": "h", "LSTM": "ifgo", "GRU": "rzn", "LeakyRNN": "h"}
_OTHER_LETTERS = str.maketrans("ch", "gn")  # for the candidates of an LSTM and of a GRU

NAME = re.compile(r"(weight|bias)_(ih|hh|hr|peephole|leak)_l(\d{1,9})(_reverse)?", re.ASCII)


class Entry(NamedTuple):
    """One thing that a file or model of another format holds.

    Attributes
    ----------
    name, kind : str
        As the other format has them.
    becomes : str
        The layer that is made of it, "" for none.
    why : str
        Why there is none.
    weights : dict of str to (str, tuple of int)
        Type and shape of what is stored.
    """

    name: str
    kind: str
    becomes: str
    why: str
    weights: dict[str, tuple[str, tuple[int, ...]]]


def kind_of(layer: Weighted) -> str:
    """The name of our class that a layer is of, or derived from."""
    return next(cls.__name__ for cls in type(layer).__mro__ if cls in LAYERS.values())


def check_single(layer: Any, cure: str = "") -> None:
    """Raise TypeError unless it is one layer with weights."""
    plain = plain_of(layer)
    if isinstance(plain, Sequential):
        name = next(n for n, one in plain.layers.items() if isinstance(one, Weighted))
        cure = f": pass layer.layers[{name!r}], and so on"
    elif isinstance(plain, Weighted):
        return
    raise TypeError(f"layer is {_cures.kind(layer)}, expected a layer of fastrnn{cure}")


def described(arrays: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each array or tensor."""
    return {
        name: (str(a.dtype).removeprefix("torch."), tuple(a.shape)) for name, a in arrays.items()
    }


# ------------------------------------------------------------------------------ gates


def letters(kind: str, order: Any) -> str:
    """The gates of a layer in this order, in our letters; ValueError unless it has just those."""
    own = ORDERS[kind]
    if order is None:
        return own
    if not isinstance(order, str):
        raise TypeError(f"order is {_cures.kind(order)}, expected a str")
    found = order if len(own) == 1 else order.translate(_OTHER_LETTERS)
    if sorted(found) != sorted(own):
        raise ValueError(f"order is {order!r}, expected the gates of {kind}, {own!r}, in any order")
    return found


def reorder(rows: Array, have: str, want: str) -> Array:
    """The blocks of rows, one for each gate, in another order.

    c is another letter for g, and h for n.
    """
    have, want = have.translate(_OTHER_LETTERS), want.translate(_OTHER_LETTERS)
    if have == want:
        return rows
    blocks = dict(zip(have, np.split(rows, len(have)), strict=True))
    return np.concatenate([blocks[gate] for gate in want])


# ------------------------------------------------------------------------------ layers


def widened(what: str, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays in float32 or float64, all in one of them; halves are widened to float32."""
    faults = []
    for name, value in arrays.items():
        _checks.plain_array(name, value)
        if _kind(value) not in ("bfloat16", "float16", "float32", "float64"):
            faults.append(f"{name} is {value.dtype}")
    if faults:
        expected = "expected float16, bfloat16, float32 or float64"
        raise TypeError(f"{what}: {', '.join(faults)}, {expected}")
    found = {
        name: np.asarray(a, "float64" if _kind(a) == "float64" else "float32")
        for name, a in arrays.items()
    }
    if len({a.dtype for a in found.values()}) > 1:
        types = ", ".join(f"{name} is {a.dtype}" for name, a in arrays.items())
        raise TypeError(f"{what}: {types}, expected all in one type")
    return found


def _kind(array: Array) -> str:
    """The type of the elements, in whatever byte order."""
    return str(array.dtype.newbyteorder("="))


def make_layer(kind: str, weights: Mapping[str, Any], what: str, **options: Any) -> Weighted:
    """A layer with these weights, which say how large it is and what parts it has.

    Parameters
    ----------
    kind : str
        The name of its class.
    weights : mapping of str to ndarray
        Under the layer's own names, in its own order of gates. Each of float16, bfloat16, float32
        or float64.
    what : str
        What they are the weights of, for errors.
    **options
        What the constructor is to be told besides.

    Raises
    ------
    TypeError, ValueError
        If the weights are not those of such a layer; one error names all faults.
    """
    cls = LAYERS[kind]
    arrays = widened(what, weights)
    known = {name: parameter.default for name, parameter in cls._told().items()}
    try:
        sizes = _recurrent(cls, arrays) if issubclass(cls, Recurrent) else _plain(cls, arrays)
        if options.get("bias") == "single":  # of weights that are known to be so
            sizes["bias"] = options.pop("bias")
        arguments = known | {name: value for name, value in sizes.items() if name in known}
        for name in options:
            if name not in known or name in sizes or name == "forget_bias":  # of weights to draw
                free = ", ".join(n for n in known if n not in sizes and n != "forget_bias")
                raise TypeError(f"{name} is no option here: the options of {kind} are {free}")
        return cls._restored(arguments | options, arrays)
    except (TypeError, ValueError, OverflowError) as error:
        raise type(error)(f"{what}: {error}") from None


def _plain(cls: Any, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The sizes of Linear and Embedding."""
    sizes = (*arrays["weight"].shape, 1, 1)[:2] if "weight" in arrays else (1, 1)
    names = ("num_embeddings", "embedding_dim")
    if cls.__name__ == "Linear":
        names = ("out_features", "in_features")
    return dict(zip(names, sizes, strict=True)) | {"bias": "bias" in arrays}


def _recurrent(cls: type[Recurrent[Any]], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The sizes and parts of a recurrent layer; where weights disagree, those of most of them."""
    named = {n: m for n in arrays if (m := NAME.fullmatch(n))}
    layers = max((int(m[3]) + 1 for m in named.values()), default=1)
    ends = {m[4] is not None for m in named.values()}

    def most(part: str, size: Callable[[tuple[int, ...]], int]) -> int:
        found = [size(arrays[n].shape) for n, m in named.items() if m[2] in part and arrays[n].ndim]
        return Counter(n for n in found if n).most_common(1)[0][0] if any(found) else 0

    hidden = most("ih hh", lambda shape: shape[0] // cls._cell.gates) or 1
    inputs = [arrays[f"weight_ih_l0{end}"].shape for end in ("", "_reverse")
              if f"weight_ih_l0{end}" in arrays]  # fmt: skip
    parts = {m[1] + m[2] for m in named.values()}
    return {
        "input_size": next((shape[1] for shape in inputs if len(shape) == 2), 1),
        "hidden_size": hidden,
        # What is too far up is unexpected, not a sign of as many layers.
        "num_layers": layers if layers <= len(arrays) else 1,
        "bias": "biasih" in parts or "biashh" in parts,
        "bidirectional": len(ends) == 2,
        "reverse": ends == {True},
        "proj_size": most("hr", lambda shape: shape[0]),
        "peephole": "weightpeephole" in parts,
    }


# ------------------------------------------------------------------------------ errors


def shown(value: Any) -> str:
    """A name of a file, or what it has instead, for an error: one line, of moderate length."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"


def several(texts: Iterable[str], most: int = 20, between: str = ", ") -> str:
    """The texts, but of many the first; so an error stays readable however large a file is."""
    found = list(texts)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return between.join(found[:most]) + more


def refuse(
    what: str,
    faults: Mapping[str, str],
    skippable: Collection[str],
    left_out: Iterable[str] = (),
    cures: Iterable[str] = (),
) -> None:
    """Raise one ValueError for all that cannot be converted, if there is anything.

    Parameters
    ----------
    what : str
        What holds them.
    faults : mapping of str to str
        Reasons, by name.
    skippable : collection of str
        Those of the names that `skip` may have.
    left_out : iterable of str
        What `skip` has already.
    cures : iterable of str
        What else can be passed.
    """
    if not faults:
        return
    told = several((f"{shown(name)[1:-1]}: {why}" for name, why in faults.items()), between="; ")
    skip = [name for name in faults if name in skippable]
    passed = [f"skip={[*sorted(left_out), *skip]!r} for what you compute yourself"] if skip else []
    passed += cures
    # What helps with some of them, and not with the others, would be no cure.
    whole = (cures or len(skip) == len(faults)) and len(faults) <= 20
    cure = f": pass {', and '.join(passed)}" if passed and whole else ""
    raise ValueError(f"{what} has what cannot be converted ({told}){cure}")


def check_skip(skip: Any, names: Iterable[str], name: str | None = None) -> frozenset[str]:
    """What to leave out, each one of these names; not beside the name of the one that is wanted."""
    if skip and name is not None:
        raise ValueError(
            f"skip is {skip!r}, but name is {name!r}, which leaves out all others: pass skip=()"
        )
    return _checks.names("skip", () if skip is None else skip, tuple(names))
