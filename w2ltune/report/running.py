"""A trial at work, as tables and plots show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Running:
    """A trial at work.

    Attributes:
        number: Its number.
        fraction: The part that is done.
        value: The rate so far, a fraction; None while there is none.
        note: Where it is, as "epoch 7".
        params: Its searched values by flag.
    """

    number: int
    fraction: float
    value: float | None
    note: str = ""
    params: Mapping[str, object] = field(default_factory=dict)
