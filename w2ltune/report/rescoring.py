"""The end of rescoring on the screen: what the decoder chose, what weights choose, how sure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from w2ltune.report.leaderboard import per_cent, show_value
from w2ltune.report.numbers import difference_text, error_line, times_text
from w2ltune.runs.rescored import ByK, Rescored

WIDEST = 10_000
"""Columns of the screen that a table may take: its lines may be longer than those of a log."""


def weights_text(weights: Mapping[str, float]) -> str:
    """Return weights as they are given on a command line."""
    return ",".join(f"{name}={value:.10g}" for name, value in weights.items())


def looks_text(rescored: Rescored) -> str:
    """Return how often the held-out list was looked at; nothing where nobody counted."""
    return f"; {times_text(rescored.times_looked)}" if rescored.looks else ""


def print_answer(console: Console, rescored: Rescored) -> None:
    """Print the answer, what it is compared with, and what is worth knowing.

    Args:
        console: Where.
        rescored: The outcome.
    """
    answer = rescored.answer
    shown = _candidates(rescored)
    # In a narrower one rich would cut names and numbers.
    room = console.options.update(max_width=WIDEST)
    shown.width = max(console.measure(shown, options=room).maximum, 1)
    console.print(shown, crop=False)
    _say(console, f"best: --in_wts={weights_text(answer.weights)} ({rescored.why})")
    line = error_line(rescored.metric, answer.dev.counts, answer.dev.interval)
    parts = [line, f"oracle {per_cent(rescored.oracle)}"]
    against = answer.dev.against_none
    if against is not None:
        was = answer.dev.rate - against.difference
        parts.insert(1, f"was {per_cent(was)} ({difference_text(against)})")
    if 1 < answer.k < rescored.depth:
        parts.append(f"of the {answer.k} best hypotheses")
    _say(console, f"  {', '.join(parts)}; interval by {answer.dev.unit}")
    if answer.test is not None:
        line = error_line(rescored.metric, answer.test.counts, answer.test.interval)
        text = difference_text(answer.test.against_none)
        more = f", against no rescoring {text}" if text else ""
        by = f"interval by {answer.test.unit}"
        _say(console, f"  held-out: {line}{more}; {by}{looks_text(rescored)}")
    proof = rescored.certified
    if proof is not None:
        rate = per_cent(proof.errors / max(1, answer.dev.counts[3]))
        weights = ",".join(f"{n}={show_value(v)}" for n, v in proof.weights.items())
        sure = "proven" if not proof.gap else f"at most {proof.gap} errors fewer are possible"
        _say(
            console,
            f"certified: {proof.errors} errors ({rate} %) at {weights}, {sure} in the box "
            f"({proof.boxes} boxes, {proof.seconds:.1f} CPU s)",
        )
    for text in rescored.findings:
        _say(console, f"note: {text}")


def by_k_table(rows: Sequence[ByK], *, metric: str, depth: int) -> Table:
    """Return the rates for each number of hypotheses that take part."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    test = any(row.test_rate is not None for row in rows)
    head = ("top", f"{metric.upper()} %", "oracle %", *(["held-out %"] if test else []))
    for column in head:
        shown.add_column(column, justify="right")
    for row in rows:
        cells = [per_cent(row.rate), per_cent(row.oracle)]
        cells += [per_cent(row.test_rate)] if test else []
        shown.add_row("all" if row.k == depth else str(row.k), *cells)
    return shown


def _candidates(rescored: Rescored) -> Table:
    test = rescored.answer.test is not None
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    shown.add_column("", no_wrap=True)
    head = [*rescored.weights, "top", f"{rescored.metric.upper()} %", "95 %", "errors"]
    head += ["held-out %", "95 %"] if test else []
    for column in [*head, "the best minus it"]:
        shown.add_column(column, justify="right", no_wrap=True)
    for candidate in rescored.candidates:
        cells = [show_value(value) for value in candidate.weights.values()]
        cells.append("all" if candidate.k >= rescored.depth else str(candidate.k))
        low, high = candidate.dev.interval
        cells += [per_cent(candidate.dev.rate), f"{per_cent(low)}-{per_cent(high)}"]
        cells.append(str(candidate.dev.errors))
        if candidate.test is not None:
            low, high = candidate.test.interval
            cells += [per_cent(candidate.test.rate), f"{per_cent(low)}-{per_cent(high)}"]
        cells.append(difference_text(candidate.chosen_against))
        shown.add_row(Text(candidate.name), *map(Text, cells))
    return shown


def print_evaluation(
    console: Console, lines: Iterable[str], rows: Sequence[ByK], *, metric: str, depth: int
) -> None:
    """Print what given weights come to."""
    for line in lines:
        _say(console, line)
    console.print(by_k_table(rows, metric=metric, depth=depth))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
