"""A training as a Ray Tune trainable: the launcher of its first node."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError

from w2ltune.errors import TrialFailedError, storage_fault
from w2ltune.formats.known_flags import number_of
from w2ltune.runs.diskbudget import human
from w2ltune.runs.lock import is_overtaken
from w2ltune.runs.sharing import share
from w2ltune.runs.trialdir import TrialDirectory
from w2ltune.trials.ranks import NodeLostError, start_ranks
from w2ltune.trials.supervisor import Supervisor
from w2ltune.trials.trainjob import TrainJob

SLICE_SECONDS = 1.0
LOOK_SECONDS = 0.2


class TrainTrial(tune.Trainable):
    """Runs the training of one trial.

    The configuration holds ``number``, ``trials`` (folder), ``flags``, ``launched`` (attempts
    before this run), ``job`` (a `TrainJob`) and ``rundir`` ("" for the trial's own). Each step
    reports::

        attempt     the number of this launch of the trial
        seconds     time spent in the updates that count
        done        whether the trial is over
        failure     why it failed, or cannot go on now (a `StorageError`), or None
        step        the newest epoch with a report
        value       the best value of the metric so far, its fraction
        by_epoch    [(epoch, value)]
        fraction    part of the updates that are done, where --iter tells
        note        for people: the epoch, or what is wrong
        writing     whether a checkpoint is being written
        epoch       of the best value; epochs, updates: done; checkpoint: the best model
        unkept      why the best model is not a snapshot, or ""
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare for a trial."""
        share(Path(config["trials"]), worker=True)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        directory = TrialDirectory(Path(config["trials"]), config["number"])
        job: TrainJob = config["job"]
        self._generation: int = config.get("generation") or sys.maxsize
        self._study = Path(config["trials"]).parent
        self._flags: dict[str, str] = config["flags"]
        self._supervisor = Supervisor(
            directory,
            rundir=Path(config["rundir"]) if config["rundir"] else directory.run,
            job=job,
            flags=self._flags,
            launched=config["launched"],
            start_ranks=start_ranks,
        )

    def step(self) -> dict[str, Any]:
        """Watch for a moment and report what there is."""
        supervisor = self._supervisor
        deadline = time.monotonic() + SLICE_SECONDS
        known = supervisor.curve.updates
        with contextlib.suppress(OSError):  # a file server that is away: the training goes on
            if supervisor.directory.result.exists():
                # Tune starts a trial again that was stopped or done when its process died.
                done = TrialFailedError("the trial has a result already")
                supervisor.fault = supervisor.fault or done
            if is_overtaken(self._study / "lock", self._generation):
                time.sleep(SLICE_SECONDS)
                return self._report()
        while not supervisor.over:
            self._advance()
            if time.monotonic() > deadline or supervisor.curve.updates > known:
                break
            time.sleep(LOOK_SECONDS)
        return self._report()

    def _advance(self) -> None:
        try:
            self._supervisor.advance()
        except (RayError, NodeLostError):
            raise  # Tune starts the trial again, where there is room
        except Exception as error:  # Tune would try the same again without end
            fault = storage_fault(error)
            self._supervisor.fault = fault or TrialFailedError(f"{type(error).__name__}: {error}")

    def _report(self) -> dict[str, Any]:
        supervisor, curve = self._supervisor, self._supervisor.curve
        best, by_epoch = supervisor.best(), curve.by_epoch()
        total = int(number_of("iter", self._flags)) if self._flags.get("iter") else 0
        taken = f", {human(supervisor.taken_bytes)}" if supervisor.taken_bytes else ""
        return {
            "done": supervisor.over,
            "failure": supervisor.fault,
            "attempt": supervisor.attempt,
            "seconds": supervisor.seconds,
            "step": by_epoch[-1][0] if by_epoch else 0,
            "value": best[1] if best else float("nan"),
            "by_epoch": by_epoch,
            "fraction": min(1.0, curve.updates / total) if total > 0 else 0.0,
            "note": supervisor.note or f"epoch {curve.epochs}{taken}",
            "writing": supervisor.writing,
            "epoch": best[0].epoch if best else 0,
            "epochs": curve.epochs,
            "updates": curve.updates,
            "checkpoint": self._checkpoint(),
            "unkept": supervisor.finished.unkept if supervisor.finished else "",
        }

    def _checkpoint(self) -> str:
        """Return the best snapshot, relative to the study's folder, or the program's own model."""
        supervisor = self._supervisor
        if supervisor.kept is not None and supervisor.has_best:
            return str(supervisor.kept.path.relative_to(self._study))
        if supervisor.finished is None or not supervisor.finished.model:
            return ""
        return str((supervisor.rundir / supervisor.finished.model).relative_to(self._study))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: the trial's folder is the truth."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""

    def cleanup(self) -> None:
        """End the training's processes."""
        self._supervisor.stop()
