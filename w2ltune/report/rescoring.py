"""The end of rescoring on the screen: what the decoder chose, what weights choose, how sure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from w2ltune.report.leaderboard import error_line, per_cent, rate_cells, show_value, text_table
from w2ltune.report.numbers import difference_text, times_text
from w2ltune.report.progress import say
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
    say(console, f"best: --in_wts={weights_text(answer.weights)} ({rescored.why})")
    line = error_line(rescored.metric, answer.dev.counts, answer.dev.interval)
    parts = [line, f"oracle {per_cent(rescored.oracle)}"]
    against = answer.dev.against_none
    if against is not None:
        was = answer.dev.rate - against.difference
        parts.insert(1, f"was {per_cent(was)} ({difference_text(against)})")
    if 1 < answer.k < rescored.depth:
        parts.append(f"of the {answer.k} best hypotheses")
    say(console, f"  {', '.join(parts)}; interval by {answer.dev.unit}")
    if answer.test is not None:
        line = error_line(rescored.metric, answer.test.counts, answer.test.interval)
        text = difference_text(answer.test.against_none)
        more = f", against no rescoring {text}" if text else ""
        by = f"interval by {answer.test.unit}"
        say(console, f"  held-out: {line}{more}; {by}{looks_text(rescored)}")
    proof = rescored.certified
    if proof is not None:
        rate = per_cent(proof.errors / max(1, answer.dev.counts[3]))
        weights = ",".join(f"{n}={show_value(v)}" for n, v in proof.weights.items())
        sure = "proven" if not proof.gap else f"at most {proof.gap} errors fewer are possible"
        say(
            console,
            f"certified: {proof.errors} errors ({rate} %) at {weights}, {sure} in the box "
            f"({proof.boxes} boxes, {proof.seconds:.1f} CPU s)",
        )
    for text in rescored.findings:
        say(console, f"note: {text}")


def by_k_table(rows: Sequence[ByK], *, metric: str, depth: int) -> Table:
    """Return the rates for each number of hypotheses that take part."""
    test = any(row.test_rate is not None for row in rows)
    return text_table(
        ("top", f"{metric.upper()} %", "oracle %", "held-out %")[: 3 + test],
        (
            [
                "all" if row.k == depth else str(row.k),
                *map(per_cent, (row.rate, row.oracle, row.test_rate)[: 2 + test]),
            ]
            for row in rows
        ),
    )


def _candidates(rescored: Rescored) -> Table:
    test = rescored.answer.test is not None
    head = ["", *rescored.weights, "top", f"{rescored.metric.upper()} %", "95 %", "errors"]
    head += ["held-out %", "95 %"] if test else []
    rows = []
    for one in rescored.candidates:
        cells = [one.name, *map(show_value, one.weights.values())]
        cells.append("all" if one.k >= rescored.depth else str(one.k))
        cells += rate_cells(one.dev.counts, one.dev.interval, dash="-")[:2]
        cells.append(str(one.dev.errors))
        if one.test is not None:
            cells += rate_cells(one.test.counts, one.test.interval, dash="-")[:2]
        rows.append([*cells, difference_text(one.chosen_against)])
    return text_table([*head, "the best minus it"], rows)


def print_evaluation(
    console: Console, lines: Iterable[str], rows: Sequence[ByK], *, metric: str, depth: int
) -> None:
    """Print what given weights come to."""
    for line in lines:
        say(console, line)
    console.print(by_k_table(rows, metric=metric, depth=depth))
