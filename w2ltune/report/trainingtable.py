"""The tables of trainings for the terminal: trials of a study, epochs of one training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from rich import box
from rich.table import Table
from rich.text import Text

from w2ltune.formats.logs import TrainLine
from w2ltune.report.content import rate
from w2ltune.report.leaderboard import Leaderboard, per_cent, show_value
from w2ltune.report.running import Running
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


def searched(board: Leaderboard, running: Sequence[Running] = ()) -> list[str]:
    """Return the names of the searched flags."""
    params = [result.params for result in board.results] + [trial.params for trial in running]
    return sorted({name for names in params for name in names})


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
    rate, interval = rescored(result), result.interval
    if rate is None:
        return []
    return [per_cent(rate), "–".join(map(per_cent, interval)) if interval else ""]


def training_table(
    board: Leaderboard, *, metric: str, most: int = 10, running: Sequence[Running] = ()
) -> Table:
    """Return the top of a leaderboard of trainings.

    The rate of a trial that was stopped early stands in brackets, and that of one at work.

    Args:
        board: The trials.
        metric: The error rate, by its name in the log.
        most: Finished trials shown.
        running: How far the others came; all of them are shown.
    """
    names = searched(board, running)
    short = {name: short_column(name, board, running) for name in names}
    unit, seconds = time_unit(board.results)
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    again = AGAIN if any(map(again_cells, board.results)) else ()
    for column in ("trial", f"{metric} %", *again, "epoch", *names, unit, ""):
        # Columns are texts, not markup: a list or a flag may be named in brackets.
        shown.add_column(Text(column), justify="right" if column else "left", no_wrap=True)
    for result in board.results[:most]:
        value = per_cent(result.value)
        shown.add_row(
            str(result.number),
            f"({value})" if result.state == "PRUNED" else value,
            *(again_cells(result) or ["" for _ in again]),
            epochs_text(result),
            *(Text(short[name].get(result.params.get(name), "")) for name in names),
            f"{result.seconds / seconds:.1f}",
            "" if result.state == "COMPLETE" else result.state.lower(),
        )
    for trial in running:
        shown.add_row(
            str(trial.number),
            "" if trial.value is None else f"({per_cent(trial.value)})",
            *["" for _ in again],
            trial.note.removeprefix("epoch ") if trial.value is not None else "",
            *(Text(short[name].get(trial.params.get(name), "")) for name in names),
            "",
            f"{trial.fraction:.0%} done",
        )
    return shown


def epoch_table(history: Sequence[TrainLine], *, best: TrainLine | None) -> Table:
    """Return the last reports of a training, and the best one where it lies before them.

    Args:
        history: The reports.
        best: The report with the lowest error rate, one of them.
    """
    last = list(history[-LAST_EPOCHS:])
    lines = [best, *last] if best is not None and best not in last else last
    rates = list(dict.fromkeys(name for line in lines for name in line.rates))
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in ("epoch", "updates", "lr", "loss", *map(_two_lines, rates), ""):
        shown.add_column(Text(column), justify="right" if column else "left")
    for line in lines:
        shown.add_row(
            str(line.epoch),
            str(line.updates),
            *(f"{line.values[n]:.4g}" if n in line.values else "" for n in ("lr", "loss")),
            *(per_cent(line.rates.get(name)) for name in rates),
            "best" if line is best else "",
        )
    return shown


def _two_lines(name: str) -> str:
    """Return the head of a rate's column: the list above the kind."""
    tag, _, kind = name.rpartition("-")
    return f"{tag}\n{kind} %"
