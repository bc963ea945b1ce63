"""The tables of trainings for the terminal: trials of a study, epochs of one training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from rich.table import Table

from w2ltune.formats.logs import TrainLine
from w2ltune.report.leaderboard import (
    Leaderboard,
    Running,
    per_cent,
    rate,
    rate_cells,
    searched,
    show_value,
    text_table,
    value_text,
)
from w2ltune.runs.trialdir import TrialResult

UNITS = (("h", 3600.0, 2 * 3600.0), ("min", 60.0, 120.0), ("s", 1.0, 0.0))
"""Units of time: name, seconds, and from how many seconds on they are used."""

LONG_CHARACTERS = 16
"""Longer values of a flag are shortened to what tells them apart."""

AGAIN = ("decoded %", "95 %")
"""Columns of checkpoints that were decoded again: error rate and interval."""

LAST_EPOCHS = 5


def time_unit(results: Sequence[TrialResult]) -> tuple[str, float]:
    """Return the unit that fits the longest trial, and its seconds.

    Example:
        >>> time_unit([TrialResult(number=0, attempt=1, state="FAIL", value=None, seconds=900)])
        ('min', 60.0)
    """
    longest = max((result.seconds for result in results), default=0.0)
    return next((name, seconds) for name, seconds, least in UNITS if longest >= least)


def epochs_text(result: TrialResult) -> str:
    """Return the epoch of a trial's value and how many it did, as ``"19 / 26"``."""
    return f"{result.epoch} / {result.epochs}" if result.epochs else ""


def short_values(values: Iterable[object]) -> dict[object, str]:
    """Return the values of a flag as they are shown; long ones without what all have in common.

    Example:
        >>> list(short_values(["arch/network_tds.arch", "arch/network_conv.arch"]).values())
        ['…tds…', '…conv…']
    """
    texts = {value: show_value(value) for value in values}
    distinct = sorted(set(texts.values()))
    if len(distinct) < 2 or max(map(len, distinct)) <= LONG_CHARACTERS:
        return texts
    before = _common(distinct)
    rest = [text[before:] for text in distinct]
    after = _common([text[::-1] for text in rest])
    marks = ("…" if before else "", "…" if after else "")
    return {value: text[before : len(text) - after].join(marks) for value, text in texts.items()}


def _common(texts: Sequence[str]) -> int:
    """Return how many characters all texts begin with alike."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return sum(1 for _ in alike)


def rescored(result: TrialResult) -> float | None:
    """Return the error rate of a checkpoint that was decoded again, a fraction; else None."""
    return rate(result.counts) if result.counts is not None and result.counts[3] else None


def short_column(name: str, board: Leaderboard, running: Sequence[Running]) -> dict[object, str]:
    """Return a searched flag's values in all trials as they are shown."""
    params = [result.params for result in board.results] + [trial.params for trial in running]
    return short_values(values[name] for values in params if name in values)


def again_cells(result: TrialResult) -> list[str]:
    """Return the cells of `AGAIN`; empty where the checkpoint was not decoded again."""
    return [] if rescored(result) is None else rate_cells(result.counts, result.interval)[:2]


def training_cells(
    board: Leaderboard, results: Sequence[TrialResult], running: Sequence[Running], *, metric: str
) -> tuple[list[str], list[list[str]]]:
    """Return a table of trainings: its columns, and the cells of each, those at work last.

    The rate of a trial that was stopped early stands in brackets, and that of one at work.

    Args:
        board: All trials.
        results: The finished ones that are shown.
        running: How far the others came; all of them are shown.
        metric: The error rate, by its name in the log.
    """
    names = searched(board, running)
    short = {name: short_column(name, board, running) for name in names}
    unit, seconds = time_unit(board.results)
    again = AGAIN if any(map(again_cells, board.results)) else ()
    head = ["trial", f"{metric} %", *again, "epoch", *names, "updates", unit, ""]
    rows = [
        [
            str(result.number),
            value_text(result),
            *(again_cells(result) or ["" for _ in again]),
            epochs_text(result),
            *(short[name].get(result.params.get(name), "") for name in names),
            str(result.updates or ""),
            f"{result.seconds / seconds:.1f}",
            "" if result.state == "COMPLETE" else result.state.lower(),
        ]
        for result in results
    ]
    rows += [
        [
            str(trial.number),
            "" if trial.value is None else f"({per_cent(trial.value)})",
            *("" for _ in again),
            trial.note.removeprefix("epoch ") if trial.value is not None else "",
            *(short[name].get(trial.params.get(name), "") for name in names),
            "",
            "",
            f"{trial.fraction:.0%} done",
        ]
        for trial in running
    ]
    return head, rows


def training_table(
    board: Leaderboard, *, metric: str, most: int = 10, running: Sequence[Running] = ()
) -> Table:
    """Return the top of `training_cells` for the terminal, which has no room for the updates."""
    head, rows = training_cells(board, board.results[:most], running, metric=metric)
    for row in (head, *rows):
        del row[-3]
    return text_table(head, rows)


def epoch_table(history: Sequence[TrainLine], *, best: TrainLine | None) -> Table:
    """Return the last reports of a training, and the best one where it lies before them."""
    last = list(history[-LAST_EPOCHS:])
    lines = [best, *last] if best is not None and best not in last else last
    rates = list(dict.fromkeys(name for line in lines for name in line.rates))
    cells = (
        [
            str(line.epoch),
            str(line.updates),
            *(f"{line.values[n]:.4g}" if n in line.values else "" for n in ("lr", "loss")),
            *(per_cent(line.rates.get(name)) for name in rates),
            "best" if line is best else "",
        ]
        for line in lines
    )
    head = ("epoch", "updates", "lr", "loss", *map(_two_lines, rates), "")
    return text_table(head, cells, wrap=True)


def _two_lines(name: str) -> str:
    """Return the head of a rate's column: the list above the kind."""
    tag, _, kind = name.rpartition("-")
    return f"{tag}\n{kind} %"
