"""How far sequences are from those that were wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def token_error_rate(y_true: Sequence[Any], y_pred: Sequence[Any]) -> float:
    """Edits that make the right sequences of those predicted, per token of the right ones.

    An edit puts a token in, leaves one out, or has another in its place. Of strings this is the
    character error rate, of lists of words the word error rate, of phonemes the phoneme error rate.

    Parameters
    ----------
    y_true : list of str or of list
        The right sequences of tokens.
    y_pred : list of str or of list
        What was predicted, as many of the same kind. They may have no tokens.

    Returns
    -------
    float
        The edit distances of all pairs, added up, over the number of tokens in y_true: 0 where all
        is right, and above 1 where predictions are much too long.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or y_true has no tokens at all; the error names it.

    Notes
    -----
    The distance is that of [1]_, found with a table of the distances of all beginnings [2]_: the
    time is the product of both lengths.

    References
    ----------
    .. [1] V. I. Levenshtein, "Binary codes capable of correcting deletions, insertions, and
       reversals", Soviet Physics Doklady 10 (1966), 707-710.
    .. [2] R. A. Wagner and M. J. Fischer, "The string-to-string correction problem", Journal of the
       ACM 21 (1974), 168-173.

    Examples
    --------
    >>> from fastrnn.estimators import token_error_rate
    >>> token_error_rate(["kitten", "cat"], ["sitting", "cat"])  # 3 edits, 9 letters
    0.3333333333333333
    >>> token_error_rate([["K", "AE", "T"]], [["K", "AH", "T"]])
    0.3333333333333333
    """
    right, said = _sequences(y_true, "y_true"), _sequences(y_pred, "y_pred")
    if len(right) != len(said):
        raise ValueError(f"y_true has {len(right)} sequences, y_pred has {len(said)}")
    for i, (a, b) in enumerate(zip(right, said, strict=True)):
        if isinstance(a, str) != isinstance(b, str):
            names = [f"y_true[{i}]", f"y_pred[{i}]"]
            if isinstance(b, str):
                names.reverse()
            raise TypeError(
                f"{names[0]} is a string, but {names[1]} a list of tokens: make lists of the same "
                "tokens of both, of characters by list(text), of words by text.split()"
            )
    kinds = [{isinstance(token, str) for tokens in y for token in tokens} for y in (right, said)]
    if len(kinds[0]) == len(kinds[1]) == 1 and kinds[0] != kinds[1]:
        names = ["y_true", "y_pred"] if True in kinds[0] else ["y_pred", "y_true"]
        raise TypeError(
            f"the tokens of {names[0]} are strings, but those of {names[1]} are not: none would "
            "ever be right"
        )
    tokens = sum(map(len, right))
    if not tokens:
        raise ValueError("y_true has no tokens: there is nothing to divide the number of edits by")
    return float(sum(map(edit_distance, right, said)) / tokens)


def _sequences(y: Any, name: str) -> list[Any]:
    """Strings as they are, everything else as lists of tokens."""
    if isinstance(y, str):
        raise TypeError(f"{name} is a str, expected a list of sequences: [{name}] is a list of one")
    if hasattr(y, "__array__"):
        y = np.asarray(y)
    if not isinstance(y, list | tuple) and not (isinstance(y, np.ndarray) and y.ndim):
        raise TypeError(f"{name} is {type(y).__name__}, expected a list of sequences of tokens")
    made: list[Any] = []
    for i, row in enumerate(y):
        if not isinstance(row, str | list | tuple) and not (
            isinstance(row, np.ndarray) and row.ndim == 1
        ):
            raise TypeError(
                f"{name}[{i}] is {row!r}, expected a sequence of tokens: {name} is a list of them"
            )
        made.append(row if isinstance(row, str) else list(row))
    return made


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many insertions, deletions and substitutions lead from a to b, at least."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(diagonal + (x != y), row[j - 1] + 1, row[j] + 1)
    return row[-1]
