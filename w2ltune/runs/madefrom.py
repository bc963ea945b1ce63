"""What a result was made from, as nested JSON, compared with what it would be made from now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ABSENT = "not given"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs, in words.

    Example:
        >>> list(differences({"lm": {"size": 1}, "case": "keep"}, {"lm": {"size": 2}, "unit": "x"}))
        ['case was keep, is not given', 'lm size was 1, is 2', 'unit was not given, is x']
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name, ABSENT), after.get(name, ABSENT)
        if was != now:
            hashed = name == "hypotheses"
            yield "the dump has changed since" if hashed else f"{name} was {was}, is {now}"


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value
