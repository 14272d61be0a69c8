"""Sequences as users have them: read, checked, and gathered into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

POOL = 32  # batches that are sorted by length together: more would always go in one company


@dataclass(frozen=True)
class Sequences:
    """N sequences, the steps of all one behind the other."""

    steps: Array  # (sum of lengths, D) of numbers, or (sum of lengths,) of tokens or their indices
    lengths: Array  # (N,)
    strings: bool = False  # whether each was a str: its tokens are characters
    columns: list[Any] | None = None  # names of the features, if tables said them

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Array:
        """(N,): where each begins in `steps`."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def of_tokens(self) -> bool:
        """Whether it is not of numbers."""
        return self.steps.dtype == object

    def places(self, rows: Array) -> tuple[Array, Array]:
        """Where the steps of these sequences are, (T, B), and their lengths (B,).

        Behind its end each sequence has its last step again.
        """
        lengths = self.lengths[rows]
        return self.starts[rows] + np.minimum(
            np.arange(lengths.max())[:, None], lengths - 1
        ), lengths

    def batch(self, rows: Array) -> tuple[Array, Array]:
        """The steps of these sequences side by side, (T, B, ...), and their lengths (B,)."""
        places, lengths = self.places(rows)
        return self.steps[places], lengths

    def all_places(self, rows: Array) -> Array:
        """Where the steps of these sequences are, one sequence behind the other, (n,)."""
        lengths = self.lengths[rows]
        before = np.cumsum(lengths) - lengths
        made: Array = np.arange(lengths.sum()) + np.repeat(self.starts[rows] - before, lengths)
        return made

    def split(self, steps: Array) -> list[Array]:
        """What there is of each step, as an array for each sequence."""
        return np.split(steps, self.starts[1:])

    def row_of(self, place: int) -> tuple[int, int]:
        """The sequence that has this place in `steps`, and the step in it."""
        row = int(np.searchsorted(self.starts, place, "right")) - 1
        return row, place - int(self.starts[row])


def framed(sequences: Sequences, before: Array, after: int) -> Sequences:
    """Each with an index before its first step, (N,), and the same one after its last."""
    lengths = sequences.lengths + 2
    ends = np.cumsum(lengths)
    steps = np.empty(ends[-1], np.int64)
    inside = np.ones(len(steps), bool)
    inside[ends - 1] = inside[ends - lengths] = False
    steps[inside] = sequences.steps
    steps[ends - 1] = after
    steps[ends - lengths] = before
    return Sequences(steps, lengths, sequences.strings)


# ------------------------------------------------------------------------------ batches


def grouped(keys: Array, size: int, rng: np.random.Generator) -> list[Array]:
    """Batches of sequences of like length, in a random order.

    keys is (N,) or (N, n): the lengths, the most important one first.
    """
    keys = keys.reshape(len(keys), -1)
    order = rng.permutation(len(keys))
    batches: list[Array] = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.lexsort(keys[pool].T[::-1])]
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def by_length(lengths: Array, size: int = 256, steps: int = 2**19) -> Iterator[Array]:
    """All sequences in batches of like length: of so many, and of so many steps, at most."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = order[start : start + size]
        rows = rows[: max(1, steps // int(lengths[rows[-1]]))]
        yield rows
        start += len(rows)


# ------------------------------------------------------------------------------ reading

FORMS = (
    "sequences: a list of arrays (T_i, D) or (T_i,), of strings or of lists of tokens, an array "
    "(N, T, D) or (N, T), or a tuple (steps, lengths)"
)


def read(X: Any, name: str = "X", *, tokens: bool = False) -> Sequences:
    """Sequences of any of the forms that the estimators take.

    Numbers become float64, (sum of lengths, D), and are finite. `tokens` says that integers are
    tokens; strings always are, and steps is then an array of objects.
    """
    _check_kind(X, name, FORMS)
    if isinstance(X, str):
        raise TypeError(f"{name} is one string, expected {FORMS}: pass [{name}]")
    if isinstance(X, tuple):
        return _concatenated(X, name, tokens)
    if hasattr(X, "__array__"):
        X = np.asarray(X)
        if X.ndim != 1 or X.dtype.kind not in "OUS":
            return _of_array(X, name, tokens)
    try:
        rows = list(X)
    except TypeError:
        raise TypeError(f"{name} is {X!r:.80}, expected {FORMS}") from None
    if not rows:
        raise ValueError(f"{name} holds no sequences: 0 sample(s), a minimum of 1 is required")
    return _of_list(rows, name, tokens)


def _check_kind(value: Any, name: str, expected: str) -> None:
    """TypeError for what NumPy or a loop would make something else of."""
    if issparse(value):
        raise TypeError(
            f"{name} is a sparse matrix, but sparse data is not supported: pass {name}.toarray()"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, and a mask would be lost: leave out the steps that do not "
            "count, in a list of arrays (T_i, D)"
        )
    if value is None or isinstance(value, bytes | bytearray | Mapping | Set):
        kind = "None" if value is None else f"a {type(value).__name__}"
        cure = f": pass {name}.decode()" if isinstance(value, bytes | bytearray) else ""
        raise TypeError(f"{name} is {kind}, expected {expected}{cure}")


def _concatenated(X: tuple[Any, ...], name: str, tokens: bool) -> Sequences:
    """(steps of all sequences one behind the other, lengths)."""
    cure = f"a tuple is (steps, lengths); if these are sequences one by one, pass list({name})"
    if len(X) != 2:
        raise TypeError(f"{name} is a tuple of {len(X)}: {cure}")
    steps, lengths = X
    _check_kind(lengths, f"{name}[1]", f"the lengths: {cure}")
    try:
        lengths = np.asarray(lengths)
    except ValueError:
        raise TypeError(f"{name} is a tuple of two sequences: {cure}") from None
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise TypeError(
            f"{name}[1] has shape {lengths.shape} and type {lengths.dtype}, expected the lengths, "
            f"(N,) of integers: {cure}"
        )
    if not len(lengths):
        raise ValueError(f"{name} holds no sequences: 0 sample(s), a minimum of 1 is required")
    if (lengths < 1).any():
        raise ValueError(_no_steps(name, int((lengths < 1).argmax())))
    string = isinstance(steps, str)
    if getattr(steps, "ndim", 0) > 1 and len(steps) == len(lengths) < lengths.sum():
        raise ValueError(
            f"{name}[0] has shape {tuple(steps.shape)} and {name}[1] {len(lengths)} lengths: of "
            f"padded sequences pass [x[:n] for x, n in zip(*{name})], which leaves padding out"
        )
    one = _of_list([list(steps) if string else steps], f"{name}[0]", tokens, single=True)
    if len(one.steps) != lengths.sum():
        raise ValueError(
            f"{name}[0] has {len(one.steps)} steps, but the lengths in {name}[1] add up to "
            f"{lengths.sum()}: {cure}"
        )
    made = Sequences(one.steps, lengths.astype(np.int64), string, one.columns)
    _check_finite(made, name)
    return made


def _of_array(X: Array, name: str, tokens: bool) -> Sequences:
    """(N, T, D), or (N, T): N sequences of single numbers or tokens."""
    if X.ndim < 2:
        raise ValueError(
            f"{name} has shape {X.shape}: a number is no sequence. Reshape your data: "
            f"{name}.reshape(1, -1) is one sequence of single numbers"
        )
    if X.ndim > 3:
        raise ValueError(
            f"{name} has shape {X.shape}, expected (N, T, D) or (N, T): pass "
            f"{name}.reshape(*{name}.shape[:2], -1) if all other axes are features"
        )
    if not len(X):
        raise ValueError(
            f"{name} holds no sequences: 0 sample(s) (shape={X.shape}) while a minimum of 1 is "
            "required."
        )
    if 0 in X.shape:
        raise ValueError(
            f"{name} has no {'features' if X.shape[1] else 'steps'}: 0 feature(s) "
            f"(shape={X.shape}) while a minimum of 1 is required."
        )
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} is {X.dtype}")
    lengths = np.full(len(X), X.shape[1])
    if tokens or X.dtype.kind in "US" or _has_strings(X):
        if X.ndim == 3:
            raise ValueError(f"{name} has shape {X.shape}, but tokens are (N, T): one a step")
        if X.shape[1] == 1 and any(isinstance(item, str) and len(item) > 1 for item in X.flat):
            raise ValueError(
                f"{name} has shape {X.shape} and is of strings, which would be sequences of one "
                f"token: pass its column (N,) if they are of characters, else a list of rows"
            )
        return Sequences(_objects(X.reshape(-1).tolist(), name, lengths), lengths)
    made = Sequences(_numbers(X.reshape(-1, 1 if X.ndim == 2 else X.shape[2]), name), lengths)
    _check_finite(made, name)
    return made


def _has_strings(a: Array) -> bool:
    return a.dtype == object and any(isinstance(item, str) for item in a.flat)


def _of_list(rows: list[Any], name: str, tokens: bool, single: bool = False) -> Sequences:
    """One by one; `single` says that `name` is the only one's."""

    def called(i: int) -> str:
        return name if single else f"{name}[{i}]"

    if not single and isinstance(rows[0], Real):
        raise ValueError(
            f"{called(0)} is {rows[0]!r}: a number is no sequence. Reshape your data: [{name}] is "
            "one sequence of them"
        )
    strings = all(isinstance(row, str) for row in rows)
    columns = _columns_of(rows, called)
    rows[0] = _plain(rows[0], called(0))
    symbols = strings or tokens or _starts_with_string(rows[0])
    parts: list[Any] = []
    for i, given in enumerate(rows):
        row = given if type(given) in (list, np.ndarray, str) else _plain(given, called(i))
        if not (strings or tokens) and _is_of(row, not symbols):
            kinds = ("tokens", "numbers") if symbols else ("numbers", "tokens")
            raise TypeError(f"{called(i)} is of {kinds[1]}, but {called(0)} is of {kinds[0]}")
        part = _tokens_of(row, called(i)) if symbols else _numbers_of(row, called(i))
        if not len(part):
            raise ValueError(f"{name} has no steps" if single else _no_steps(name, i))
        parts.append(part)
    lengths = np.array([len(part) for part in parts])
    if symbols:
        where = None if single else lengths
        return Sequences(_objects(chain.from_iterable(parts), name, where), lengths, strings)
    for i, part in enumerate(parts):
        if part.shape[1] != parts[0].shape[1]:
            raise ValueError(
                f"{called(i)} has {part.shape[1]} features a step, but {called(0)} has "
                f"{parts[0].shape[1]}"
            )
    made = Sequences(_numbers(np.concatenate(parts), name), lengths, columns=columns)
    if not single:
        _check_finite(made, name)
    return made


def _columns_of(rows: list[Any], called: Callable[[int], str]) -> list[Any] | None:
    """The names of columns, which are the same ones in all tables."""
    known: list[Any] | None = None
    for i, row in enumerate(rows):
        names = getattr(row, "columns", None)
        if names is None:
            continue
        known = list(names) if known is None else known
        check_columns(list(names), known, called(i), "others have")
    return known


def check_columns(names: list[Any] | None, known: list[Any] | None, name: str, others: str) -> None:
    """ValueError for tables whose columns are not those of others, in their order."""
    if names is not None and known is not None and names != known:
        raise ValueError(
            f"{name} has the columns {names!s:.200}, but {others} {known!s:.200}: select the same "
            "ones, in the same order"
        )


def _plain(row: Any, name: str) -> Any:
    """An array, a list or a string of what is a sequence otherwise."""
    if type(row) in (list, np.ndarray, str):
        return row
    _check_kind(row, name, "a sequence")
    if isinstance(row, str):
        return row
    if _is_named(row):
        raise TypeError(
            f"{name} is a pair of {row[0]!r:.40} and an array, expected a sequence: of a groupby "
            "pass [group for _, group in X]"
        )
    if hasattr(row, "__array__"):
        return np.asarray(row)
    return list(row) if isinstance(row, Iterable) else row


def _is_named(row: Any) -> bool:
    """(name, group), as a loop over the groups of a table has them."""
    return (
        isinstance(row, tuple)
        and len(row) == 2
        and getattr(row[1], "ndim", 0) > 0
        and (isinstance(row[0], str | tuple) or not hasattr(row[0], "__len__"))
    )


def _no_steps(name: str, row: int) -> str:
    return f"{name}[{row}] has no steps: leave it out, with its y"


def _is_of(row: Any, symbols: bool) -> bool:
    """Whether it is a sequence, not an empty one, of tokens or else of numbers."""
    size = row.size if isinstance(row, np.ndarray) else isinstance(row, list | str) and len(row)
    return bool(size) and _starts_with_string(row) == symbols


def _starts_with_string(row: Any) -> bool:
    if isinstance(row, np.ndarray):
        return row.dtype.kind in "US" or _has_strings(row)
    return isinstance(row, str) or (isinstance(row, list) and bool(row) and isinstance(row[0], str))


def _tokens_of(row: Any, name: str) -> Any:
    if isinstance(row, np.ndarray):
        if row.ndim != 1:
            raise ValueError(f"{name} has shape {row.shape}, expected (T,): one token a step")
        return row.tolist()
    if not isinstance(row, list | str):
        raise TypeError(f"{name} is {row!r:.80}, expected a sequence of tokens: a list or a string")
    return row


def _numbers_of(row: Any, name: str) -> Array:
    """(T, D) of it."""
    try:
        part = np.asarray(row)
    except ValueError:
        raise ValueError(
            f"{name} has steps of unequal numbers of features, expected (T, D) or (T,)"
        ) from None
    if part.ndim not in (1, 2):
        raise ValueError(
            f"{name} has shape {part.shape}, expected a sequence, (T, D) or (T,). Reshape your data"
        )
    if not len(part):
        return np.empty((0, 1))
    if not part.size:
        raise ValueError(f"{name} has shape {part.shape}: 0 feature(s), a minimum of 1 is required")
    if part.dtype.kind not in "biuf":
        part = _numbers(part, name)
    return part.reshape(len(part), -1)


def _objects(tokens: Iterable[Any], name: str, lengths: Array | None) -> Array:
    """(n,) of tokens: all strings, or all integers as Python has them."""
    listed = list(tokens)
    kinds = set(map(type, listed))
    if kinds != {str} and kinds != {int}:
        listed = [t.item() if isinstance(t, np.generic) else t for t in listed]
        strings = isinstance(listed[0], str)
        for place, t in enumerate(listed):
            if isinstance(t, str if strings else int) and not isinstance(t, bool):
                continue
            where = f"{name}[{place}]"
            if lengths is not None:
                row = int(np.searchsorted(lengths.cumsum(), place, "right"))
                where = f"{name}[{row}] at step {place - int(lengths[:row].sum())}"
            if isinstance(t, str | int) and not isinstance(t, bool | np.bool_):
                raise TypeError(
                    f"{where} is {t!r}, but the first token is {listed[0]!r}: tokens are all "
                    "strings, or all integers"
                )
            cure = ""
            if isinstance(t, float):
                whole = all(isinstance(t, int | float) and t == t // 1 for t in listed)
                made_by = "int()" if whole else "sklearn's KBinsDiscretizer with .astype(int)"
                cure = f": pass integers, by {made_by}"
            raise TypeError(
                f"{where} is {t!r:.80}: argument must be a string or a number, and as a token a "
                f"string or an integer{cure}"
            )
    made = np.empty(len(listed), object)
    made[:] = listed
    return made


def _numbers(flat: Array, name: str) -> Array:
    """(n, D) of float64."""
    if flat.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} is {flat.dtype}")
    if flat.dtype.kind not in "biufO":
        raise TypeError(
            f"{name} is of type {flat.dtype}, expected numbers, or tokens that are all strings or "
            "all integers"
        )
    try:
        with np.errstate(over="ignore"):  # of a longdouble, which is refused as infinity then
            made = flat.astype(np.float64, order="C")  # sums depend on the order of what is added
    except OverflowError:
        raise ValueError(f"{name} contains an integer too large for float64") from None
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} holds no numbers: argument must be a number ({error})") from None
    return made.reshape(len(made), -1)


def _check_finite(sequences: Sequences, name: str) -> None:
    if sequences.of_tokens or np.isfinite(sequences.steps).all():
        return
    wrong = ~np.isfinite(sequences.steps)
    place, feature = divmod(int(wrong.argmax()), wrong.shape[1])
    what = "NaN" if np.isnan(sequences.steps[place, feature]) else "infinity"
    row, step = sequences.row_of(place)
    raise ValueError(
        f"Input {name} contains {what}: {name}[{row}] at step {step}, feature {feature}"
    )


# ------------------------------------------------------------------------------ tokens


class Vocabulary:
    """The tokens that training saw, and their indices 0 to n-1."""

    def __init__(self, tokens: Array) -> None:
        known = sorted(set(tokens))
        self.tokens = np.empty(len(known), object)
        self.tokens[:] = known
        self.index = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encoded(
        self, sequences: Sequences, name: str, unknown: int | None = None, cure: str = ""
    ) -> Sequences:
        """Indices for tokens; `unknown` for one that is not known, which None refuses."""
        self._check_kind(sequences, name)
        missing = -1 if unknown is None else unknown
        steps = np.array([self.index.get(t, missing) for t in sequences.steps], np.int64)
        if unknown is None and (steps < 0).any():
            place = int((steps < 0).argmax())
            row, step = sequences.row_of(place)
            raise ValueError(
                f"{name}[{row}] has {sequences.steps[place]!r} at step {step}, a token never seen "
                f"in training{cure}"
            )
        return Sequences(steps, sequences.lengths, sequences.strings)

    def _check_kind(self, sequences: Sequences, name: str) -> None:
        """TypeError where words meet characters, or numbers: all would be unknown."""
        given = isinstance(sequences.steps[0], str)
        known = isinstance(self.tokens[0], str)
        if given != known:
            kinds = ("integers", "strings")
            raise TypeError(
                f"{name} has {kinds[given]} for tokens, but those of fit were {kinds[known]}"
            )
        if not known:
            return
        if sequences.strings and max(map(len, self.tokens)) > 1:
            raise TypeError(
                f"{name} is of strings, whose tokens are characters, but fit had lists of tokens "
                f"such as {max(self.tokens, key=len)!r}: pass lists, as text.split() makes of words"
            )
        if max(map(len, self.tokens)) == 1 < min(map(len, sequences.steps)):
            raise TypeError(
                f"{name} has tokens such as {sequences.steps[0]!r}, but those of fit were single "
                "characters: pass strings, or lists of characters"
            )
