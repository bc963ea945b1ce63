"""Copies each checkpoint that a program has completed, before it writes over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from w2ltune.runs.diskbudget import make_room
from w2ltune.runs.process import files_being_written
from w2ltune.runs.snapshots import prune, take_snapshot
from w2ltune.runs.trialdir import TrialDirectory
from w2ltune.trials.trainjob import TrainJob

NOTHING = (-1, -1)


class Keeper:
    """Takes the snapshots of one launch.

    Args:
        directory: The trial's folder.
        job: How the training is run.
        rundir: Its run directory.
        index: Run index that the program writes.
        attempt: The launch; an older one publishes nothing.
        value_at: Returns the metric after so many updates, None where it is not known.
        say: Takes what is worth a line in the log.
    """

    def __init__(
        self,
        directory: TrialDirectory,
        job: TrainJob,
        *,
        rundir: Path,
        index: int,
        attempt: int,
        value_at: Callable[[int], float | None],
        say: Callable[[str], None],
    ) -> None:
        self.writing = False
        self.problem = ""
        self._directory = directory
        self._job = job
        self._rundir = rundir
        self._attempt = attempt
        self._value_at = value_at
        self._say = say
        # The best one by the program's own rule too: the last one may change between two looks.
        tag = job.metric.rpartition("-")[0].replace("/", "#")
        self._models = [rundir / f"{index:03d}_model_{name}.bin" for name in ("last", tag)]
        self._copied = {path: _state(path) for path in self._models}

    def look(self, processes: Callable[[], Sequence[int]]) -> None:
        """Copy what is new and whole.

        Args:
            processes: Returns those that may be writing; asked for only when a file has changed.
        """
        self.writing = False
        for path in self._models:
            state = _state(path)
            if state in (self._copied[path], NOTHING):
                continue
            pids = processes()
            if path in files_being_written(pids, self._rundir):
                self.writing = True
            elif self._copy(path, pids):
                self._copied[path] = state

    def _copy(self, path: Path, pids: Sequence[int]) -> bool:
        """Take a snapshot; return whether this state of the file needs no further look."""
        try:
            problem = make_room(
                self._directory.path.parent,
                self._directory.snapshots,
                needed_bytes=path.stat().st_size,
                budget_bytes=self._job.disk_budget_bytes,
            )
            if problem:
                return self._tell(problem)
            taken = take_snapshot(
                path,
                self._directory.snapshots,
                value=self._value_at,
                is_busy=lambda: path in files_being_written(pids, self._rundir),
                is_ours=lambda: self._directory.attempt() == self._attempt,
            )
            if taken is None:
                return False
            prune(self._directory.snapshots, keep=self._job.keep)
        except OSError as error:  # the training itself may go on
            return self._tell(f"no snapshot of {path.name}: {error.strerror or error}")
        self.problem = ""
        return True

    def _tell(self, problem: str) -> bool:
        if problem != self.problem:
            self._say(problem)
        self.problem = problem
        return True


def _state(path: Path) -> tuple[int, int]:
    """Return size and time of change; ``NOTHING`` without a file."""
    try:
        stat = path.stat()
    except OSError:
        return NOTHING
    return (stat.st_size, stat.st_mtime_ns)
