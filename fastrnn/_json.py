"""JSON that may come from anybody: parsed, and held against the form that it should have."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable
from typing import Any

_shortened = reprlib.Repr()  # for errors: a name in a bad file may be as long as the file
_shortened.maxstring = 80
shown = _shortened.repr


def parse_json(what: str, text: str | bytes) -> dict[str, Any]:
    """The JSON object that the text is, with no key twice and no number that is not finite."""

    def finite(number: str) -> float:
        if math.isfinite(value := float(number)):
            return value
        raise ValueError(f"{shown(number)} is no finite number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ValueError(f"the key {shown(key)} comes twice")
            result[key] = value
        return result

    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(
            text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite
        )
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from None
    if type(value) is not dict:
        raise ValueError(f"{what} is {shown(value)}, expected an object")
    return value


def check_keys(what: str, given: Iterable[str], expected: Iterable[str]) -> None:
    expected = set(expected)
    for key in sorted(expected.symmetric_difference(given)):
        fault = "lacks" if key in expected else "has an unexpected"
        raise ValueError(f"{what} {fault} {shown(key)}")


def fields(what: str, value: Any, /, **types: type) -> list[Any]:
    """The values of an object with exactly these keys, each of its type."""
    if type(value) is not dict:
        raise ValueError(f"{what} is {shown(value)}, expected an object")
    check_keys(what, value, types)
    for name, kind in types.items():
        if type(value[name]) is not kind:
            raise ValueError(f"{what}: {shown(name)} is {shown(value[name])}, no {kind.__name__}")
    return [value[name] for name in types]
