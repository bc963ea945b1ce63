"""Copies each checkpoint that a program has completed, before it writes over it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.checkpoint import read_header
from w2ltune.runs.diskbudget import (
    drop_copied_models,
    make_room,
    program_models,
    shortage,
    used_bytes,
)
from w2ltune.runs.process import files_being_written
from w2ltune.runs.recovery import index_of
from w2ltune.runs.snapshots import Snapshot, prune, read_snapshots, take_snapshot
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
        rates_at: Returns the word error rates of all valid sets, likewise.
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
        rates_at: Callable[[int], Mapping[str, float]],
        say: Callable[[str], None],
    ) -> None:
        self.writing = False
        self.unkept: dict[Path, str] = {}
        self.taken_bytes = 0
        self._directory = directory
        self._job = job
        self._rundir = rundir
        self._attempt = attempt
        self._index = index
        self._value_at = value_at
        self._rates_at = rates_at
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
        snapshots = self._directory.snapshots
        try:
            taken, problem = keep_model(
                path,
                self._directory,
                budget_bytes=self._job.disk_budget_bytes,
                value=self._value_at,
                rates=self._rates_at,
                is_busy=lambda: path in files_being_written(pids, self._rundir),
                is_ours=lambda: self._directory.attempt() == self._attempt,
            )
            if problem:
                return self._tell(path, problem)
            if taken is None:
                return False
            self.unkept.pop(path, None)
            self.retry()
            if path == self._models[0]:  # a training that is lost goes on from this one
                self.drop_copied_models(newest=self._index)
            # What the program's own models are copied in stays until those are dropped.
            models = {updates for _, updates in program_models(self._rundir)}
            prune(snapshots, keep=self._job.keep, protect=models)
            self.taken_bytes = used_bytes(self._directory.path, self._rundir)
        except OSError as error:  # the training itself may go on
            return self._tell(path, f"{error.filename or snapshots}: {error.strerror or error}")
        return True

    def retry(self) -> None:
        """Let the next look try again what could not be copied."""
        for path in self.unkept:
            self._copied[path] = NOTHING

    @property
    def problem(self) -> str:
        """Why there is no snapshot of something, or ""; the best one first."""
        return next((self.unkept[path] for path in self._models[::-1] if path in self.unkept), "")

    def drop_copied_models(self, *, newest: int) -> None:
        """Remove the models of earlier launches of which there are snapshots, and say so.

        What was forked or is the answer of a training stays.

        Args:
            newest: The run index that the program would go on from now.
        """
        results = [*self._rundir.glob("trials/*/result.json"), self._rundir.parent / "result.json"]
        answers = [(path.parents[2], files.read_json(path)) for path in results]
        named = [study / answer.get("checkpoint", "") for study, answer in answers if answer]
        named += [Path(self._job.model_path)] if self._job.model_path else []
        gone = drop_copied_models(
            self._rundir, self._directory.snapshots, newest=newest, named=named
        )
        if gone:
            self._say(f"removed {', '.join(gone)}: there are snapshots with the same bytes")

    def _tell(self, path: Path, problem: str) -> bool:
        if problem != self.unkept.get(path):
            self._say(problem)
        self.unkept[path] = problem
        return True


def keep_model(
    model: Path,
    directory: TrialDirectory,
    *,
    budget_bytes: int | None,
    value: Callable[[int], float | None],
    rates: Callable[[int], Mapping[str, float]] = lambda updates: {},
    is_busy: Callable[[], bool] = lambda: False,
    is_ours: Callable[[], bool] = lambda: True,
) -> tuple[Snapshot | None, str]:
    """Take a snapshot of a model where there is room; see `take_snapshot`.

    Returns:
        The snapshot, or None; and why there cannot be one, with what is needed and what is free.
    """
    needed = max(0, _state(model)[0])
    try:
        problem = ""
        if not _is_kept(model, directory.snapshots):
            problem = make_room(
                directory.path.parent, directory.snapshots,
                needed_bytes=needed, budget_bytes=budget_bytes,
            )  # fmt: skip
        if not problem:
            taken = take_snapshot(
                model, directory.snapshots,
                value=value, rates=rates, is_busy=is_busy, is_ours=is_ours,
            )  # fmt: skip
            return taken, ""
    except OSError as error:
        problem = f"{error.strerror or error}: {shortage(directory.path, needed)}"
    return None, f"no snapshot of {model.name}: {problem}"


def own_model(rundir: Path, updates: int, *, ended_well: int) -> str:
    """Return the program's own whole model after so many updates, "" without one.

    Args:
        rundir: The run directory.
        updates: Of the model.
        ended_well: The run index of a launch that did, so that its models are whole; those of
            others are if they are as long as another one.
    """
    models = program_models(rundir)
    payloads = [path.stat().st_size - read_header(path).header_bytes for path, _ in models]
    for (path, known), payload in zip(models, payloads, strict=True):
        if known == updates and (index_of(path) == ended_well or payloads.count(payload) > 1):
            return path.name
    return ""


def _is_kept(model: Path, snapshots: Path) -> bool:
    """Whether there is a snapshot of as many updates, as the program's two models often have."""
    with contextlib.suppress(InputError, OSError):
        updates = read_header(model).updates
        return any(snapshot.updates == updates for snapshot in read_snapshots(snapshots))
    return False


def keep_again(directory: TrialDirectory, *, budget_bytes: int | None) -> None:
    """Try once more to take the snapshot of a complete training's best model.

    Args:
        directory: The trial's folder; ours.
        budget_bytes: As in `make_room`.
    """
    study, result = directory.path.parents[1], directory.read_result()
    if result is None or not (result.reason and (study / result.checkpoint).is_file()):
        return
    taken, problem = keep_model(
        study / result.checkpoint, directory,
        budget_bytes=budget_bytes, value=lambda updates: result.value,
    )  # fmt: skip
    if taken is not None:
        checkpoint = str(taken.path.relative_to(study))
        directory.write_result(replace(result, checkpoint=checkpoint, reason=""))
    elif problem:
        directory.write_result(replace(result, reason=problem))


def _state(path: Path) -> tuple[int, int]:
    """Return size and time of change; ``NOTHING`` without a file."""
    try:
        stat = path.stat()
    except OSError:
        return NOTHING
    return (stat.st_size, stat.st_mtime_ns)
