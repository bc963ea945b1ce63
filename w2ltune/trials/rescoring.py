"""The best trainings decoded again by the Test program: errors of each utterance, and an interval.

A trainer logs only a rate. The hypotheses of its best snapshot are counted here, in the same way
as those of a decode.

::

    trials/0007/rescored/0001/    a launch of the program; a later one ends it
      log                         what it printed
      dev.lst.hyp                 the hypotheses, rows of ``words (utterance)``
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from w2ltune.cluster.session import require_ray
from w2ltune.errors import (
    KilledError,
    StoppedError,
    StorageError,
    TrialFailedError,
    W2LTuneError,
    storage_faults,
)
from w2ltune.runs.explain import TRIES, failure, killed_again
from w2ltune.runs.process import Program, start
from w2ltune.runs.sharing import share
from w2ltune.runs.signals import stopped_error
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.trials.ranks import with_devices
from w2ltune.trials.rescoringinput import Rescoring, read_hypotheses, with_counts
from w2ltune.trials.resources import trials_that_fit
from w2ltune.trials.sharing import Patience
from w2ltune.trials.trainjob import TrainJob

WAIT_SECONDS = 0.5

LOST_NODES = 2
"""So often a program is started elsewhere when its node is lost."""


def rescore(
    rescoring: Rescoring,
    results: Sequence[TrialResult],
    study: Path,
    *,
    gpu: bool,
    progress: Callable[[float], None],
    say: Callable[[str], None],
    stopped: Callable[[], str] = lambda: "",
    node_wait_minutes: float = 5.0,
) -> list[str]:
    """Decode trials again, on a GPU or a core each, and write their results anew.

    A trial that cannot be decoded keeps its result as it is.

    Args:
        rescoring: With what.
        results: The trials, as `Rescoring.due` returns them.
        study: The study's folder; it must be ours.
        gpu: Each takes one.
        progress: Called with the part that is done.
        say: Takes a line for people.
        stopped: Returns why the whole command stops, or "".
        node_wait_minutes: Give up when no node could run one for this long.

    Returns:
        Notes: what failed, and what is missing.

    Raises:
        StoppedError: The command was asked to stop, there is no node, or Ray is lost.
        StorageError: The disk is full, or fails.
    """
    study = study.absolute()
    bundle = {"CPU": 1.0} | ({"GPU": 1.0} if gpu else {})
    task = ray.remote(_run_program).options(
        num_cpus=1, num_gpus=int(gpu), max_retries=LOST_NODES, name="rescoring"
    )
    live: dict[Any, TrialResult] = {}
    waiting: list[TrialResult] = []  # whose program was killed; begun again one at a time
    kills: Counter[int] = Counter()
    notes: list[str] = []

    def begin(result: TrialResult) -> None:
        directory = TrialDirectory(study / "trials", result.number)
        arguments = rescoring.arguments(result.flags, study / result.checkpoint)
        answer = task.remote(arguments, rescoring.file_name, rescoring.job, directory.path)
        live[answer] = result

    for result in results:
        if result.checkpoint and (study / result.checkpoint).is_file():
            begin(result)
        else:
            notes.append(f"trial {result.number} cannot be decoded again: it has no snapshot")
    trials = [TrialDirectory(study / "trials", result.number).path for result in live.values()]
    total, fitted, before = len(live), time.monotonic(), _launches(trials)
    patience = Patience([bundle], say)
    try:
        while left := len(live) + len(waiting):
            if reason := stopped():
                raise _stopped(reason, total - left, total)
            if not live:
                begin(waiting.pop())
            for answer in ray.wait(list(live), timeout=WAIT_SECONDS)[0]:
                result = live.pop(answer)
                try:
                    notes += _take(rescoring, result, answer, study)
                except KilledError as error:
                    kills[result.number] += 1
                    if kills[result.number] < TRIES:
                        waiting.append(result)
                    else:
                        why = killed_again(error)
                        notes.append(f"trial {result.number} could not be decoded again: {why}")
            left = len(live) + len(waiting)
            progress(1 - left / total)
            patience.look(begun=_launches(trials) - before > total - left)
            if trials_that_fit([bundle]):
                fitted = time.monotonic()
            elif time.monotonic() - fitted > 60 * node_wait_minutes:
                reason = f"no node can decode since {node_wait_minutes:g} minutes"
                raise _stopped(reason, total - left, total)
    finally:
        with contextlib.suppress(RayError):  # Ray itself may be lost
            for answer in live:
                ray.cancel(answer, force=True)
    return notes


def _stopped(reason: str, done: int, total: int) -> StoppedError:
    far = f" after {done} of {total} trainings were decoded again; the same command continues"
    return stopped_error(reason, far)


def _run_program(
    arguments: Sequence[str], file_name: str, job: TrainJob, trial: Path
) -> Path | W2LTuneError:
    """Run the program on the node and GPU that Ray chose; return the hypotheses, or what failed."""
    try:
        with storage_faults():
            return _decode(arguments, file_name, job, trial)
    except (W2LTuneError, OSError) as error:
        return error if isinstance(error, W2LTuneError) else TrialFailedError(str(error))


def _decode(arguments: Sequence[str], file_name: str, job: TrainJob, trial: Path) -> Path:
    share(trial, worker=True)
    launches = trial / "rescored"
    number = _begin_launch(launches)
    folder = launches / f"{number:04d}"
    log, logs_of_glog = folder / "log", folder / "glog"
    logs_of_glog.mkdir()  # glog fills the temporary folder otherwise, whatever it prints
    program = Program(
        arguments=(*arguments, f"--sclite={folder}", f"--log_dir={logs_of_glog}"),
        log=log,
        folder=Path(job.folder),
        environment=job.environment,
    )
    with start(with_devices(program), attempts=launches, attempt=number) as child:
        code = child.wait() or 0
    shutil.rmtree(logs_of_glog, ignore_errors=True)
    if code:
        given = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
        lists = [Path(job.folder, given.get("datadir", ""), given.get("test", ""))]
        raise failure(code, log, lists=lists, folder=Path(job.folder), kept=log)
    return folder / file_name


def _begin_launch(launches: Path) -> int:
    """Make the folder of a new launch and return its number; earlier launches end."""
    launches.mkdir(exist_ok=True)
    number = 0
    while True:
        number += 1
        try:
            (launches / f"{number:04d}").mkdir()
        except FileExistsError:
            continue
        return number


def _launches(trials: Sequence[Path]) -> int:
    return sum(1 for trial in trials for _ in trial.glob("rescored/[0-9]*"))


def _take(rescoring: Rescoring, result: TrialResult, answer: Any, study: Path) -> list[str]:
    """Count what a launch recognised and write the trial's result; return what is to be said."""
    name = f"trial {result.number}"
    try:
        decoded: Path | W2LTuneError = ray.get(answer)
        if isinstance(decoded, W2LTuneError):
            raise decoded
        with storage_faults():
            hypotheses = read_hypotheses(decoded)
    except RayTaskError as error:  # a mistake of ours
        return [f"{name} could not be decoded again: {type(error.cause).__name__}: {error.cause}"]
    except RayError as error:
        require_ray()
        return [f"{name} could not be decoded again: lost by Ray ({type(error).__name__})"]
    except (KilledError, StorageError):
        raise
    except W2LTuneError as error:
        return [f"{name} could not be decoded again: {error}"]
    counted = with_counts(result, rescoring.references, hypotheses)
    TrialDirectory(study / "trials", result.number).write_result(counted)
    if not counted.missing:
        return []
    return [
        f"{name}: {counted.missing} of {len(rescoring.references)} utterances have no hypothesis "
        "and count as deletions"
    ]
