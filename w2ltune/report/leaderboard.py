"""The results of a study, read from its folder: ranking, table, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from w2ltune.errors import printable
from w2ltune.formats.distributions import parse_float
from w2ltune.formats.known_flags import number_of
from w2ltune.runs.outcome import Counts
from w2ltune.runs.trialdir import TrialResult, trial_directories

LN_10 = math.log(10)

COUNTED = ("wer", "cer")
"""Metrics that are counted here; any other is a column of a trainer's log, as "dev-WER"."""

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}

TRAINING_FIELDS = ("epoch", "epochs", "updates", "checkpoint")
"""What the results of a training tell beyond those of a decode."""


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All trials of a study.

    Attributes:
        results: Finished trials, best first; then the pruned ones, then the failed ones.
        running: Numbers of trials that were asked and have no result yet.
    """

    results: tuple[TrialResult, ...]
    running: tuple[int, ...] = ()

    @property
    def best(self) -> TrialResult | None:
        """The best complete trial, or None."""
        first = self.results[0] if self.results else None
        return first if first is not None and first.state == "COMPLETE" else None


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


def rank(results: Iterable[TrialResult], running: Iterable[int] = ()) -> Leaderboard:
    """Return the results in the order of a leaderboard; ties go to the earlier trial."""
    states = tuple(STATES)
    ordered = sorted(
        results,
        key=lambda r: (states.index(r.state), math.inf if r.value is None else r.value, r.number),
    )
    return Leaderboard(results=tuple(ordered), running=tuple(running))


def read_leaderboard(study: Path) -> Leaderboard:
    """Return the leaderboard of a study's folder, finished or running."""
    results, running = [], []
    for directory in trial_directories(study / "trials"):
        result = directory.read_result()
        if result is not None:
            results.append(result)
        elif directory.was_asked():
            running.append(directory.number)
    return rank(results, running)


def per_cent(value: float | None) -> str:
    """Return a rate as per cent with two decimals.

    Example:
        >>> per_cent(0.04312)
        '4.31'
    """
    return "" if value is None else f"{100 * value:.2f}"


def metric_name(metric: str) -> str:
    """Return a metric as people write it.

    Example:
        >>> metric_name("wer"), metric_name("dev-WER")
        ('WER', 'dev-WER')
    """
    return metric.upper() if metric in COUNTED else metric


def show_value(value: object) -> str:
    """Return a searched value in short form.

    Example:
        >>> show_value(2.123456), show_value("max")
        ('2.123', 'max')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rate(counts: Sequence[int]) -> float:
    """Return errors per reference word, a fraction; nan without reference words."""
    return sum(counts[:3]) / counts[3] if counts[3] else float("nan")


def value_text(result: TrialResult) -> str:
    """Return a trial's value in per cent; in brackets where it is that of a part of the list."""
    return f"({per_cent(result.value)})" if result.state == "PRUNED" else per_cent(result.value)


def rate_cells(
    counts: Counts | None, interval: tuple[float, float] | None, *, dash: str = "–"
) -> list[str]:
    """Return the cells rate, interval, S, D and I."""
    between = "" if interval is None else dash.join(map(per_cent, interval))
    if counts is None or not counts[3]:
        return ["", between, "", "", ""]
    return [per_cent(rate(counts)), between, *(per_cent(n / counts[3]) for n in counts[:3])]


def error_line(
    metric: str,
    counts: Counts | None,
    interval: tuple[float, float] | None,
    *,
    value: float | None = None,
) -> str:
    """Return a rate, its interval and kinds of errors in one line, in per cent.

    Args:
        metric: What was counted.
        counts: The errors; None where they are not known.
        interval: Of the rate, likewise.
        value: The rate, where the errors do not tell it.

    Example:
        >>> error_line("wer", (6, 1, 3, 100), (0.05, 0.15))
        'WER 10.00 [5.00, 15.00] (S 6.00 D 1.00 I 3.00)'
    """
    total, _, *kinds = rate_cells(counts, interval)
    between = " [{}, {}]".format(*map(per_cent, interval)) if interval else ""
    by_kind = " (S {} D {} I {})".format(*kinds) if total else ""
    return f"{metric_name(metric)} {total if value is None else per_cent(value)}{between}{by_kind}"


def metric_line(result: TrialResult, metric: str) -> str:
    """Return what `error_line` tells of a trial."""
    return error_line(metric, result.counts, result.interval, value=result.value)


def text_table(
    head: Iterable[str],
    rows: Iterable[Iterable[str]],
    *,
    left: Collection[str] = ("",),
    wrap: bool = False,
) -> Table:
    """Return a table for the terminal; what stands in it is text, not markup.

    Args:
        head: The columns.
        rows: As many cells each.
        left: The columns that hold words; all others are aligned as numbers.
        wrap: Cells that are too long are folded.
    """
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in head:
        side: Literal["left", "right"] = "left" if column in left else "right"
        shown.add_column(Text(column), justify=side, no_wrap=not wrap)
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown


def searched(board: Leaderboard, running: Iterable[Running] = ()) -> list[str]:
    """Return the names of the searched flags."""
    params = [result.params for result in board.results] + [trial.params for trial in running]
    return sorted({name for names in params for name in names})


def trial_cells(result: TrialResult, names: Sequence[str], *, dash: str = "–") -> list[str]:
    """Return the cells trial, rate, interval, S, D, I, the searched flags and seconds."""
    _, *others = rate_cells(result.counts, result.interval, dash=dash)
    params = (show_value(result.params.get(name, "")) for name in names)
    seconds = f"{result.seconds:.1f}"
    return [str(result.number), value_text(result), *others, *params, seconds]


def table(board: Leaderboard, *, metric: str, most: int = 10) -> Table:
    """Return the top of a leaderboard as a table for the terminal.

    A pruned trial's rate stands in brackets: it is that of a part of the list.
    """
    names = searched(board)
    return text_table(
        ("trial", f"{metric_name(metric)} %", "95 %", "S", "D", "I", *names, "s", ""),
        (
            [*trial_cells(r, names, dash="-"), "" if r.state == "COMPLETE" else r.state.lower()]
            for r in board.results[:most]
        ),
    )


def as_json(board: Leaderboard, study: Path, *, metric: str = "wer") -> str:
    """Return the leaderboard as JSON; rates are fractions.

    ::

        {"study": folder, "best": number or null, "running": [numbers],
         "trials": [{"number", "state", "wer", "interval", "errors", "reference_words",
                     "params", "flags", "seconds", "missing", "reason"}]}

    ``wer`` is the study's metric (the CER of a study with ``--metric=cer``); null for a failed
    trial, and of a part of the list for a pruned one. A study of trainings names its metric beside
    "study", and its rows have "epoch", "epochs", "updates" and "checkpoint" too.
    """
    best = board.best
    more = () if metric in COUNTED else TRAINING_FIELDS
    value = {
        "study": str(study),
        **({"metric": metric} if more else {}),
        "best": None if best is None else best.number,
        "running": list(board.running),
        "trials": [_row(result, more) for result in board.results],
    }
    return printable(json.dumps(value, indent=1, ensure_ascii=False))


def _row(result: TrialResult, more: Iterable[str] = ()) -> dict[str, Any]:
    counts = result.counts
    return {
        "number": result.number,
        "state": result.state,
        "wer": result.value,
        "interval": result.interval,
        "errors": None if counts is None else sum(counts[:3]),
        "reference_words": None if counts is None else counts[3],
        "params": dict(result.params),
        "flags": dict(result.flags),
        "seconds": result.seconds,
        "missing": result.missing,
        "reason": result.reason,
        **{name: getattr(result, name) for name in more},
    }


def as_csv(board: Leaderboard, *, metric: str = "wer") -> str:
    """Return the leaderboard as CSV: one row per trial, searched flags as columns.

    Of trainings the columns of `TRAINING_FIELDS` come last.
    """
    more = () if metric in COUNTED else TRAINING_FIELDS
    names = searched(board)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    begin = ("number", "state", "wer", "low", "high", "errors", "reference_words")
    writer.writerow(map(_cell, [*begin, *names, "seconds", "reason", *more]))
    for result in board.results:
        row = _row(result, more)
        low, high = result.interval or ("", "")
        cells = [row["number"], row["state"], row["wer"], low, high, row["errors"]]
        cells += [row["reference_words"], *(result.params.get(name, "") for name in names)]
        cells += [row[name] for name in ("seconds", "reason", *more)]
        writer.writerow(map(_cell, cells))
    return text.getvalue()


def _cell(value: object) -> object:
    """Return what may stand in a cell: no text that a spreadsheet would take for a formula."""
    if not isinstance(value, str):
        return value
    formula = value[:1] in tuple("=+-@\t\r") and parse_float(value) is None
    return printable(f"'{value}" if formula else value)


def elsewhere(best: TrialResult) -> tuple[str, ...]:
    """Return a line that says what the weights are in other tools; empty without an LM weight."""
    if "lmweight" not in best.flags:
        return ()
    alpha = number_of("lmweight", best.flags) / LN_10
    beta = number_of("wordscore", best.flags)
    return (
        f"elsewhere: pyctcdecode alpha = lmweight/{LN_10:.3f} = {alpha:.4f}, "
        f"beta = wordscore = {beta:.4f}; torchaudio lm_weight, word_score as here",
    )
