"""The leaderboard of any study, finished or running; ``python -m w2ltune.collect``."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from w2ltune.commandline import option, parse_own
from w2ltune.errors import UsageError, did_you_mean, printable, run_command
from w2ltune.files import refuse_planted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from w2ltune.report.leaderboard import Leaderboard
    from w2ltune.runs.provenance import SweepRequest

JOB_SECONDS = 15.0
"""SLURM's controller is not asked for a study's job more often."""

USAGE = """
usage: python -m w2ltune.collect --logdir=DIR --prefix=NAME [--watch] [--format=table|csv|json]
           [--report]

Shows the leaderboard of a sweep from its folder alone; it may be running, on another machine too.
JSON gives {"study", "best", "running", "trials": [{"number", "state", "wer", "interval", "errors",
"reference_words", "params", "flags", "seconds", "missing", "reason"}]} with rates as fractions.
Of trainings "metric" names the error rate that "wer" holds, the lowest of a trial's epochs, and
each trial has "epoch", "epochs", "updates" and "checkpoint" too.
"""


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """The options of collect."""

    logdir: Path = option("folder of sweeps", value="DIR")
    prefix: str = option("name of the sweep, a folder in logdir", value="NAME")
    watch: bool = option("show it again until the sweep is finished", False)
    format: str = option("how to print it", "table", choices=("table", "csv", "json"))
    top: int = option("rows of the table", 20)
    report: bool = option("write report.html of a sweep that is still running", False)
    every_seconds: float = option("pause between two looks of --watch", 2.0)


def main(arguments: list[str]) -> int:
    """Print a study's leaderboard."""
    options = parse_own(arguments, CollectOptions, usage=USAGE)
    if not 0 < options.every_seconds < 3600:
        raise UsageError(f"--every_seconds={options.every_seconds}: must be above 0 and below 3600")
    study = options.logdir / options.prefix
    request = _request(study, wait=options.watch) if study.is_dir() else None
    if request is None:
        folders = [path.parent.name for path in options.logdir.glob("*/sweep.json")]
        raise UsageError(
            f"no sweep in {str(study)!r}{did_you_mean(options.prefix, folders)}"
            + (f" (there are: {', '.join(sorted(folders))})" if folders else "")
        )
    refuse_planted(study, to_read=True)
    if request.task == "rescore":
        return _show_rescoring(options, study)
    return _show(options, study, request.scoring.get("metric", "wer"))


def _show_rescoring(options: CollectOptions, study: Path) -> int:
    from w2ltune.report.progress import make_console
    from w2ltune.report.rescoring import print_answer
    from w2ltune.runs.rescored import NAME, read_rescored

    rescored = read_rescored(study)
    if options.format == "csv" or options.watch:
        raise UsageError(
            f"{study} is a rescoring: --format=table or --format=json, without --watch"
        )
    if options.format == "json":
        print(printable((study / NAME).read_text(encoding="utf-8")), end="")
    else:
        print_answer(make_console(), rescored)
    return 0


def _request(study: Path, *, wait: bool) -> SweepRequest | None:
    """Return what was asked of a study; with a job that has not begun, wait for it or say so."""
    from w2ltune.cluster.submissions import live_job
    from w2ltune.runs.provenance import read_request

    while (request := read_request(study / "sweep.json")) is None:
        job = live_job(study)
        if job is None:
            return None
        if not wait:
            raise UsageError(f"{study}: nothing to show yet: {job}; --watch waits for it")
        print(f"{study}: waits for {job}", flush=True)
        time.sleep(JOB_SECONDS)
    return request


def _show(options: CollectOptions, study: Path, metric: str) -> int:
    from rich.live import Live

    from w2ltune.cluster.submissions import live_job
    from w2ltune.report.leaderboard import as_csv, as_json, read_leaderboard
    from w2ltune.report.progress import make_console
    from w2ltune.runs.lock import current_owner

    board = read_leaderboard(study)
    if options.format == "json":
        print(as_json(board, study, metric=metric))
        return 0
    if options.format == "csv":
        print(as_csv(board, metric=metric), end="")
        return 0
    console = make_console()
    if not options.watch:
        console.print(_table(study, board, metric, options.top))
        console.print(_summary(len(board.results), board.running))
        if options.report:
            _report(study, console, metric)
        return 0
    job, asked = None, -math.inf
    with Live(console=console, auto_refresh=False) as live:
        while True:
            board = read_leaderboard(study)
            shown = _table(study, board, metric, options.top)
            owner = current_owner(study / "lock")
            ended = owner is None or owner.released or owner.lives_on_this_host() is False
            if ended or time.monotonic() > asked + JOB_SECONDS:
                job, asked = live_job(study), time.monotonic()
            requeued = f", requeued {job.restarts} times" if job and job.restarts else ""
            at_work = f"; {job}{requeued}" if job else ""
            shown.caption = _summary(len(board.results), board.running) + at_work
            live.update(shown, refresh=True)
            if ended and job is None:
                return 0
            time.sleep(JOB_SECONDS if ended else options.every_seconds)


def _table(study: Path, board: Leaderboard, metric: str, most: int) -> Table:
    """Return the leaderboard; of trainings with how far those at work came."""
    from w2ltune.report.leaderboard import COUNTED, table
    from w2ltune.report.training import running_trainings
    from w2ltune.report.trainingtable import training_table

    if metric in COUNTED:
        return table(board, metric=metric, most=most)
    running = running_trainings(study, board.running, metric=metric)
    return training_table(board, metric=metric, most=most, running=running)


def _report(study: Path, console: Console, metric: str) -> None:
    """Write the report of a running sweep; a finished decode sweep has a fuller one already."""
    from w2ltune.report.leaderboard import COUNTED
    from w2ltune.report.markup import NAME
    from w2ltune.report.page import build_report
    from w2ltune.report.progress import say
    from w2ltune.report.training import read_training
    from w2ltune.report.trainingpage import build_training_report
    from w2ltune.runs.outcome import read_outcome

    if metric not in COUNTED:
        path = build_training_report(read_training(study))
    else:
        done = read_outcome(study).choices and (study / NAME).exists()
        path = study / NAME if done else build_report(study)
    say(console, f"report: {path}")


def _summary(finished: int, running: tuple[int, ...]) -> str:
    at_work = f", running or interrupted: {', '.join(map(str, running))}" if running else ""
    return f"{finished} trials finished{at_work}"


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
