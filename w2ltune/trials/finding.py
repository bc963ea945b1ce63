"""A finding: one line about the inputs of a sweep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line about the inputs.

    Attributes:
        text: What was found.
        advice: What it means; "" when all is well.
        absurd: Whether a sweep would be wasted.
        value: The greedy error rate in the study's metric; None for other findings.
    """

    text: str
    advice: str = ""
    absurd: bool = False
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}" if self.advice else self.text
