"""The study on the disk: an Optuna journal with one writer, mended after a kill.

Rules that each stand for something seen to break: the journal is cut back to its last complete
line before an append; Optuna's own locks are not used; a trial's ``result.json`` is written before
the study is told, so that the two are settled on the next start.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, TrialState

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.runs.lock import StudyLock, leave_to_another
from w2ltune.runs.trialdir import TrialDirectory, TrialResult, trial_directories
from w2ltune.search.completing import LOST, complete
from w2ltune.search.space import SearchSpace

STUDY_NAME = "w2ltune"
JOURNAL = "study.journal"


def repair_journal(path: Path) -> int:
    """Cut a journal back to its last complete line; the cut bytes are kept beside it.

    Only the owner of the study may call this: an append after a torn line would join the two and
    make the journal unreadable for good.

    Returns:
        The number of bytes cut off; 0 when the journal was whole or absent.
    """
    if not os.path.lexists(path):
        return 0
    with open(path, "r+b", opener=files.open_plain) as file:
        size = file.seek(0, os.SEEK_END)
        end = _last_line_end(file.fileno(), size)
        if end == size:
            return 0
        torn = os.pread(file.fileno(), size - end, end)
        with path.with_name(f"{path.name}.torn-{time.time_ns()}").open("xb") as copy:
            copy.write(torn)
        file.truncate(end)
        os.fsync(file.fileno())
    return size - end


def _last_line_end(descriptor: int, size: int) -> int:
    position = size
    while position > 0:
        start = max(0, position - 65536)
        found = os.pread(descriptor, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _refuse_damage(path: Path, *, trials: bool) -> None:
    """Refuse a journal that Optuna could not read, now or after the next append.

    A last line that is torn does no harm: it is cut off before the first append.
    """
    if not os.path.lexists(path):
        return
    with open(path, "rb", opener=files.open_plain) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                if "op_code" in json.loads(line):
                    continue
            except (ValueError, TypeError, RecursionError):
                pass
            raise InputError(
                "damaged, no record of the study: "
                + (
                    "restore the file, or remove the line if another program put it there; with "
                    "neither, move it away: it is made again from the trials' folders"
                    if trials
                    else "restore the file, or move it away; the search begins anew then"
                ),
                path=path,
                line=number,
            )


class OwnershipCheck(BaseJournalFileLock):
    """Stands where Optuna takes its lock: looks before every append whether the study is ours.

    If it is not, this process ends at once: whoever took the study over writes it now. If it is, a
    torn last line is cut off, left by a kill or by an earlier append that found the disk full.
    """

    def __init__(self, lock: StudyLock, journal: Path) -> None:
        self._lock = lock
        self._journal = journal

    def acquire(self) -> bool:
        """Return True, or end the process."""
        if not self._lock.is_ours():
            leave_to_another()
        repair_journal(self._journal)
        return True

    def release(self) -> None:
        """Do nothing: the study stays ours until the driver ends."""


class _Journal(JournalFileBackend):
    """Optuna's, which itself would follow a link."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with open(self._file_path, "ab", opener=files.open_plain) as file:
            self._lock.acquire()  # nothing but the write comes after it
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def open_study(folder: Path, lock: StudyLock) -> optuna.Study:
    """Open or create the study of a folder for writing; ``lock`` must be held.

    The study minimises, and its sampler is set for each trial by the caller.

    A journal that is gone or behind is completed by `settle`.

    Raises:
        InputError: A line of the journal is damaged.
    """
    path = (folder / JOURNAL).absolute()
    trials = next((folder / "trials").glob("[0-9]*"), None) is not None
    _refuse_damage(path, trials=trials)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with files.shaped(path):
        storage = JournalStorage(_Journal(str(path), lock_obj=OwnershipCheck(lock, path)))
    with files.shaped(path):  # each line is JSON, which may be none of Optuna's
        return optuna.create_study(
            study_name=STUDY_NAME, storage=storage, load_if_exists=True, direction="minimize"
        )


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial takes part in the budget and the search (all but those lost in asking)."""
    return LOST not in trial.user_attrs


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a start found in the study's folder.

    Attributes:
        finished: Number of trials that were finished before.
        interrupted: Trials that were running and go on under their own number.
    """

    finished: int
    interrupted: tuple[FrozenTrial, ...]


def _say(text: str) -> None:
    print(f"w2ltune: note: {text}", file=sys.stderr)


def settle(study: optuna.Study, trials: Path, space: SearchSpace | None = None) -> Settled:
    """Bring the study and the trial folders to one truth after a stop or a kill.

    Args:
        study: Ours.
        trials: The folder of the trials.
        space: What is searched, for folders that do not tell it.
    """
    known = study.get_trials(deepcopy=False)
    told_before = {trial.number for trial in known if trial.state.is_finished()}
    for directory in trial_directories(trials):
        if directory.number not in told_before and directory.reopen():  # which is never told
            _say(f"trial {directory.number} was killed from outside, and is tried again")
    if added := complete(study, trials, space):
        _say(
            f"{JOURNAL} lacked {len(added)} trials, {added[0]} to {added[-1]}: "
            "completed from their folders"
        )
    interrupted: list[FrozenTrial] = []
    for trial in study.get_trials(deepcopy=False):
        directory = TrialDirectory(trials, trial.number)
        if trial.state.is_finished():
            if counts(trial) and not directory.result.exists():
                _say(
                    f"{directory.result} is gone, although {JOURNAL} calls the trial finished: put "
                    "it back; without it the trial takes no part in the answer"
                )
            continue
        result = directory.read_result()
        if result is not None:
            tell(study, trial.number, result)
        elif directory.was_asked():
            interrupted.append(trial)
        else:
            lose(study, trial)
    finished = sum(1 for trial in counted(study) if trial.state.is_finished())
    return Settled(finished=finished, interrupted=tuple(interrupted))


def lose(study: optuna.Study, trial: FrozenTrial) -> None:
    """Mark a trial that was cut short in asking: failed, and out of the budget."""
    optuna.Trial(study, trial._trial_id).set_user_attr(LOST, True)
    study.tell(trial.number, state=TrialState.FAIL)


def tell(study: optuna.Study, number: int, result: TrialResult) -> None:
    """Tell the study a trial's outcome. A pruned trial is never told as complete."""
    state = TrialState[result.state]
    study.tell(number, result.value if state is TrialState.COMPLETE else None, state=state)


def counted(study: optuna.Study) -> Iterator[FrozenTrial]:
    """Yield the trials that count."""
    return (trial for trial in study.get_trials(deepcopy=False) if counts(trial))
