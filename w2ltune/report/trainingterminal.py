"""The end of trainings: the answer on the screen, ``best.cfg``, ``best_model.bin``, the report."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.console import Console

from w2ltune import files
from w2ltune.errors import EXIT_FAILED
from w2ltune.formats.flagsfile import format_flagsfile
from w2ltune.report.leaderboard import as_csv, per_cent
from w2ltune.report.progress import duration, say
from w2ltune.report.training import TrainingContent, rate_texts, read_training
from w2ltune.report.trainingfindings import OWN_RATE, find_training_warnings, params_text
from w2ltune.report.trainingpage import build_training_report
from w2ltune.report.trainingtable import epoch_table, rescored, training_table
from w2ltune.runs.trialdir import TrialResult

MODEL_NAME = "best_model.bin"
FLAGS_NAME = "best.cfg"

OF_A_PLACE = (
    "enable_distributed", "flagfile", "flagsfile", "max_devices_per_node", "rndv_filepath",
    "rundir", "runname", "world_rank", "world_size",
)  # fmt: skip
"""Flags that say where a training ran, not what it was; the run directory would be overwritten."""


def finish_training(study: Path, console: Console) -> int:
    """Write a finished sweep's files, print its answer and return the exit code.

    Written are ``trials.csv``, ``best.cfg``, ``best_model.bin`` (a link to the best trial's best
    snapshot) and ``report.html``.

    Args:
        study: The study's folder.
        console: Where to print.

    Returns:
        0; 1 where no training was completed, or the best one's model could not be kept.

    Raises:
        InputError: The folder holds no study, or a file in it was damaged.
    """
    content = read_training(study)
    best = content.best
    console.print(training_table(content.board, metric=content.metric))
    if best is None:
        say(console, "no training was completed")
    else:
        write_best_training(content)
        say(console, f"best: {params_text(best)} ({_which(content, best)})")
        say(console, f"  {answer_text(content, best)}")
        say(console, f"  {_how_known(best)}")
        say(console, f"flagsfile: {study / FLAGS_NAME}")
        say(console, f"model: {_model_text(content, best)}")
    files.write_text(study / "trials.csv", as_csv(content.board, metric=content.metric))
    _say_the_rest(content, console)
    return EXIT_FAILED if best is None or best.reason else 0


def finish_single(rundir: Path, console: Console) -> int:
    """Print what a single training came to, write its report and return the exit code.

    Args:
        rundir: Its run directory, which is the study's folder too.
        console: Where to print.

    Returns:
        0; 1 where it failed, or its best model could not be kept.

    Raises:
        InputError: The folder holds no training of w2ltune, or a file in it was damaged.
    """
    content = read_training(rundir)
    history = next(iter(content.curves.values()), ())
    result = next(iter(content.board.results), None)
    best = content.best
    line = content.best_line
    if history:
        console.print(epoch_table(history, best=line))
    if best is not None:
        point_to_model(rundir, best)
        say(console, f"best: {_which(content, best)}, {answer_text(content, best)}")
        say(console, f"  {_how_known(best)}")
        say(console, f"model: {_model_text(content, best)}")
    elif result is not None:
        say(console, f"{result.state.lower()}: {result.reason or 'no reason is known'}")
    logs = sorted(rundir.glob("[0-9]*_log"), key=lambda path: int(path.name.partition("_")[0]))
    if logs:
        say(console, f"logs: {', '.join(map(str, logs))}")
    _say_the_rest(content, console)
    failed = result is not None and result.state == "FAIL"
    return EXIT_FAILED if failed or (best is not None and best.reason) else 0


def write_best_training(content: TrainingContent) -> None:
    """Write ``best.cfg`` and ``best_model.bin`` of the best complete trial, if there is one."""
    best = content.best
    if best is None:
        return
    comments = [
        f"best of {len(content.board.results)} trainings: {_which(content, best)}",
        f"{answer_text(content, best)} (per cent)",
        _how_known(best),
    ]
    if best.checkpoint:
        comments.append(f"its model: {MODEL_NAME}, which is {best.checkpoint}")
    flags = {name: value for name, value in best.flags.items() if name not in OF_A_PLACE}
    text = format_flagsfile(flags, comments=comments)
    files.write_text(content.folder / FLAGS_NAME, text, own=True)
    point_to_model(content.folder, best)


def point_to_model(folder: Path, best: TrialResult) -> None:
    """Make ``best_model.bin`` a relative link to a trial's best snapshot, in one step."""
    if not (best.checkpoint and (folder / best.checkpoint).is_file()):
        return
    link = folder / MODEL_NAME
    temporary = files.temporary(link)
    try:
        temporary.symlink_to(best.checkpoint)
        files.rename(temporary, link)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def answer_text(content: TrainingContent, best: TrialResult) -> str:
    """Return the best epoch's error rates, those of a second decode first, in one line."""
    line = content.line_of(best)
    text = f"{content.metric} {per_cent(best.value)}"
    if line is not None:
        text = ", ".join(rate_texts(line, content.metric))
    again, interval = rescored(best), best.interval
    if again is not None:
        between = f" [{per_cent(interval[0])}, {per_cent(interval[1])}]" if interval else ""
        text = f"decoded again {per_cent(again)}{between}; in training {text}"
    return text


def _which(content: TrainingContent, best: TrialResult) -> str:
    trial = f"trial {best.number}, " if content.request.space else ""
    return f"{trial}epoch {best.epoch} of {content.epochs_of(best)}"


def _how_known(best: TrialResult) -> str:
    if rescored(best) is None:
        return OWN_RATE
    by = f", 95 % interval by {best.interval_unit}" if best.interval and best.interval_unit else ""
    return f"chosen among the checkpoints that were decoded again{by}"


def _model_text(content: TrainingContent, best: TrialResult) -> str:
    if not best.checkpoint:
        return "none was kept of that epoch"
    if not (content.folder / best.checkpoint).is_file():
        return f"{content.folder / best.checkpoint} is missing"
    return f"{content.folder / MODEL_NAME} -> {best.checkpoint}"


def _say_the_rest(content: TrainingContent, console: Console) -> None:
    for warning in find_training_warnings(content):
        say(console, f"note: {warning}")
    spent = duration(sum(result.seconds for result in content.board.results))
    if content.request.space:
        say(console, f"{len(content.board.results)} trainings, {spent} in all")
    else:
        say(console, f"time: {spent}")
    say(console, f"report: {build_training_report(content)}")
