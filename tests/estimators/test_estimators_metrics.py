"""token_error_rate against the definition of the edit distance."""

from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from fastrnn.estimators import token_error_rate
from fastrnn.estimators.metrics import edit_distance


def by_definition(a: Any, b: Any) -> int:
    """The fewest edits, of all ways to begin."""

    @cache
    def left(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return len(a) - i + len(b) - j
        same = left(i + 1, j + 1) + (a[i] != b[j])
        return min(same, left(i + 1, j) + 1, left(i, j + 1) + 1)

    return left(0, 0)


def test_distances_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = ("".join(rng.choice(list("abc"), n)) for n in rng.integers(0, 8, 2))
        found = edit_distance(a, b)
        assert found == by_definition(a, b) == edit_distance(b, a), (a, b)
        assert abs(len(a) - len(b)) <= found <= max(len(a), len(b))
    assert edit_distance("kitten", "sitting") == 3


def test_the_rate_is_that_of_all_tokens_together() -> None:
    assert token_error_rate(["kitten", "a"], ["sitting", "a"]) == 3 / 7
    assert token_error_rate(["kitten", "a"], ["kitten", "a"]) == 0
    assert token_error_rate(["ab", "c"], ["", ""]) == 1
    assert token_error_rate(["a"], ["abc"]) == 2
    assert token_error_rate(["", "ab"], ["x", "ab"]) == 1 / 2


def test_tokens_may_be_anything() -> None:
    right, said = [["the", "cat"], ["the", "dog"]], [["the", "dog"], ["dog"]]
    assert token_error_rate(right, said) == 2 / 4
    assert token_error_rate([[1, 2, 3]], [(1, 3)]) == 1 / 3
    assert token_error_rate(np.array([[1, 2], [3, 4]]), [np.array([1, 2]), [3, 5]]) == 1 / 4
    assert token_error_rate(np.array(["ab", "cd"]), ["ab", "xd"]) == 1 / 4
    assert type(token_error_rate([np.array([1.0, 2.0])], [[1, 3]])) is float


class Column:
    """As pandas has them: no array, but it makes one."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(["ab", "cd"], object)


def test_a_column_of_a_table() -> None:
    assert token_error_rate(Column(), ["ab", "xd"]) == 1 / 4


WRONG: dict[str, tuple[Any, Any, str]] = {
    "one string": ("abc", ["abc"], r"y_true is a str, expected .*: \[y_true\] is a list of one"),
    "one predicted string": (["abc"], "abc", "y_pred is a str"),
    "nothing": (None, ["abc"], "y_true is NoneType"),
    "a number": (["abc"], 3, "y_pred is int"),
    "numbers": ([1, 2], [1, 2], r"y_true\[0\] is 1, expected a sequence of tokens"),
    "another number of them": (["a", "b"], ["a"], "y_true has 2 sequences, y_pred has 1"),
    "no tokens": (["", ""], ["a", ""], "y_true has no tokens"),
    "none at all": ([], [], "y_true has no tokens"),
    "a text for words": (
        [["the", "cat"]],
        ["the cat"],
        r"y_pred\[0\] is a string, but y_true\[0\]",
    ),
    "words for a text": (
        ["the cat"],
        [["the", "cat"]],
        r"y_true\[0\] is a string, but y_pred\[0\]",
    ),
    "strings and numbers": ([["1", "2"]], [[1, 2]], "of y_true are strings, but those of y_pred"),
    "numbers and strings": (
        [[1, 2], [3]],
        [[], ["1"]],
        "of y_pred are strings, but those of y_true",
    ),
    "a matrix in a list": ([np.ones((2, 2))], [[1]], r"y_true\[0\] is array"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name: str) -> None:
    y_true, y_pred, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message):
        token_error_rate(y_true, y_pred)
