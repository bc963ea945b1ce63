"""Numbers in words: rates in per cent, differences in points."""

from __future__ import annotations

from w2ltune.report.content import Content, rate
from w2ltune.report.leaderboard import per_cent
from w2ltune.runs.outcome import Choice, Comparison, Counts
from w2ltune.runs.trialdir import TrialResult


def error_line(metric: str, counts: Counts, interval: tuple[float, float]) -> str:
    """Return a rate, its interval and kinds of errors in one line, in per cent.

    Example:
        >>> error_line("wer", (6, 1, 3, 100), (0.05, 0.15))
        'WER 10.00 [5.00, 15.00] (S 6.00 D 1.00 I 3.00)'
    """
    total, _, *kinds = rate_cells(counts, interval)
    low, high = interval
    by_kind = " ".join(f"{kind} {text}" for kind, text in zip("SDI", kinds, strict=True))
    return f"{metric.upper()} {total} [{per_cent(low)}, {per_cent(high)}] ({by_kind})"


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


def rate_cells(counts: Counts | None, interval: tuple[float, float] | None) -> list[str]:
    """Return the cells rate, interval, S, D and I."""
    between = "" if interval is None else f"{per_cent(interval[0])}–{per_cent(interval[1])}"
    if counts is None or not counts[3]:
        return ["", between, "", "", ""]
    return [per_cent(rate(counts)), between, *(per_cent(n / counts[3]) for n in counts[:3])]


def baseline_rate(choice: Choice) -> float | None:
    """Return the rate of what a choice was compared with; None where nothing was."""
    against = choice.against_baseline
    return None if against is None else rate(choice.counts) - against.difference


def real_time_factor_text(content: Content, result: TrialResult | None) -> str:
    """Return the real-time factor of a trial; "" where it is not known."""
    factor = None if result is None else content.real_time_factor(result)
    return "" if factor is None else f"{factor:.2g}"


def times_text(times: int) -> str:
    """Return how often a held-out list was looked at, and what that means."""
    return "looked at once" if times == 1 else f"looked at {times} times, so that it is optimistic"
