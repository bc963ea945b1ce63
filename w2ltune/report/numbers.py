"""Numbers in words: rates in per cent, differences in points."""

from __future__ import annotations

from w2ltune.report.content import Content
from w2ltune.report.leaderboard import per_cent, rate
from w2ltune.runs.outcome import Choice, Comparison
from w2ltune.runs.trialdir import TrialResult


def difference_text(comparison: Comparison | None) -> str:
    """Return a difference and its interval in points; "" where nothing was compared.

    Example:
        >>> difference_text(Comparison(difference=-0.0064, interval=(-0.009, 0.0), unit=""))
        '−0.64 [−0.90, 0.00]'
    """
    if comparison is None:
        return ""
    low, high = comparison.interval
    return f"{_signed(comparison.difference)} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    text = f"{100 * value:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "−")


def split_line(line: str) -> tuple[str, str]:
    """Split a line of errors into what is large in the headline and the rest."""
    rate_and_interval, bracket, rest = line.partition(" (")
    return rate_and_interval, bracket + rest


def baseline_rate(choice: Choice) -> float | None:
    """Return the rate of what a choice was compared with; None where nothing was."""
    against = choice.against_baseline
    return None if against is None else rate(choice.counts) - against.difference


def real_time_factor_text(content: Content, result: TrialResult | None) -> str:
    """Return the real-time factor of a trial; "" where it is not known."""
    factor = None if result is None else content.real_time_factor(result)
    return "" if factor is None else f"{factor:.2g}"


def answer_parts(content: Content, choice: Choice) -> list[str]:
    """Return what a choice is compared with, and its speed; what is not known is left out."""
    parts = []
    if choice.against_baseline is not None:
        was = per_cent(baseline_rate(choice))
        parts.append(f"was {was} ({difference_text(choice.against_baseline)})")
    if choice.oracle is not None:
        parts.append(f"oracle {per_cent(choice.oracle)}")
    factor = real_time_factor_text(content, content.by_number.get(choice.trial))
    return [*parts, f"RTF {factor}"] if factor else parts


def times_text(times: int) -> str:
    """Return how often a held-out list was looked at, and what that means."""
    return "looked at once" if times == 1 else f"looked at {times} times, so that it is optimistic"
