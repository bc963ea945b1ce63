"""What there is to report of trainings, read from their folder: results and learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from w2ltune.errors import InputError
from w2ltune.formats.known_flags import number_of
from w2ltune.formats.logs import TrainLine, read_history, valid_tags
from w2ltune.report.leaderboard import Leaderboard, Running, per_cent, read_leaderboard
from w2ltune.report.trainingtable import rescored
from w2ltune.runs.provenance import SweepRequest, read_request
from w2ltune.runs.trialdir import TrialDirectory, TrialResult


@dataclass(frozen=True, kw_only=True)
class TrainingContent:
    """A study of trainings, or a single training, as its folder tells it; it may be running.

    Attributes:
        folder: The study's folder.
        request: What was asked.
        board: The trials.
        curves: Reports of each trial's log, by its number; empty where there are none yet.
    """

    folder: Path
    request: SweepRequest
    board: Leaderboard
    curves: Mapping[int, Sequence[TrainLine]]

    @property
    def metric(self) -> str:
        """The error rate that decides, by its name in the log."""
        named = self.request.scoring.get("metric")
        lines = [line for curve in self.curves.values() for line in curve]
        tags = valid_tags(lines[0]) if lines else ()
        return named or (f"{tags[0]}-WER" if tags else "WER")

    @property
    def best(self) -> TrialResult | None:
        """The best complete trial, or None.

        Where checkpoints were decoded again, their error counts decide between these.
        """
        complete = [result for result in self.board.results if result.state == "COMPLETE"]
        again = [result for result in complete if rescored(result) is not None]
        return min(again, key=lambda result: rescored(result) or 0.0, default=self.board.best)

    @property
    def best_line(self) -> TrainLine | None:
        """The report of the best trial's best epoch; None where its log does not tell."""
        return None if self.best is None else self.line_of(self.best)

    def epochs_of(self, result: TrialResult) -> int:
        """Return the epochs of a trial's run; one training is continued by trial after trial."""
        if self.request.space:
            return result.epochs
        return max(other.epochs for other in self.board.results)

    def line_of(self, result: TrialResult) -> TrainLine | None:
        """Return the report of a trial's best epoch."""
        return lowest(self.curves.get(result.number, ()), self.metric)


def is_single(folder: Path) -> bool:
    """Return whether a folder is the run directory of one training, and no sweep's."""
    return any(folder.glob("[0-9]*_log")) or any(folder.glob("[0-9]*_config"))


def run_directory(study: Path, number: int) -> Path:
    """Return the trainer's folder of a trial; of a single training it is the study's."""
    return study if is_single(study) else TrialDirectory(study / "trials", number).run


def read_training(study: Path) -> TrainingContent:
    """Return what the folder of a study of trainings, or of a single training, tells.

    Raises:
        InputError: The folder holds no study, or a file in it was damaged.
    """
    request = read_request(study / "sweep.json")
    if request is None:
        raise InputError(f"no training in {str(study)!r}: it has no sweep.json")
    board = read_leaderboard(study)
    numbers = [*(result.number for result in board.results), *board.running]
    if is_single(study):
        numbers = numbers or [0]
    curves = {number: read_history(run_directory(study, number)) for number in numbers}
    return TrainingContent(folder=study, request=request, board=board, curves=curves)


def lowest(lines: Sequence[TrainLine], metric: str) -> TrainLine | None:
    """Return the report with the lowest error rate, the first of several; None without any."""
    known = [line for line in lines if math.isfinite(line.rates.get(metric, math.inf))]
    return min(known, key=lambda line: line.rates[metric], default=None)


def rate_texts(line: TrainLine, first: str) -> list[str]:
    """Return the error rates on the validation lists, in per cent, the named one first.

    Example:
        >>> line = TrainLine(epoch=1, updates=20, values={},
        ...                  rates={"train-WER": 0.5, "dev-TER": 0.112, "dev-WER": 0.314})
        >>> rate_texts(line, "dev-WER")
        ['dev-WER 31.40', 'dev-TER 11.20']
    """
    names = [name for name in line.rates if not name.startswith("train-") and name != first]
    return [f"{n} {per_cent(line.rates[n])}" for n in [first, *names] if n in line.rates]


def running_trainings(study: Path, numbers: Sequence[int], *, metric: str) -> list[Running]:
    """Return how far trials came, running or interrupted ones, by their logs.

    Args:
        study: The study's folder.
        numbers: The trials.
        metric: The error rate, by its name in the log.
    """
    request = read_request(study / "sweep.json")
    space = {} if request is None else request.space
    found = []
    for number in numbers:
        flags = TrialDirectory(study / "trials", number).read_flags()
        params = {name: flags[name] for name in space if name in flags}
        history = read_history(run_directory(study, number))
        found.append(progress_of(number, history, metric=metric, flags=flags, params=params))
    return found


def progress_of(
    number: int,
    history: Sequence[TrainLine],
    *,
    metric: str,
    flags: Mapping[str, str],
    params: Mapping[str, object],
) -> Running:
    """Return how far a training came, by the reports of its log."""
    best = lowest(history, metric)
    updates = number_of("iter", flags) if flags.get("iter") else 0
    return Running(
        number=number,
        fraction=min(1.0, history[-1].updates / updates) if history and updates else 0.0,
        value=None if best is None else best.rates[metric],
        note=f"epoch {history[-1].epoch}" if history else "before its first report",
        params=params,
    )
