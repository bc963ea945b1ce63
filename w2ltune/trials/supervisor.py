"""One training from its first start to its end: start, watch, start again, give up."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from w2ltune import files
from w2ltune.errors import (
    InputError,
    KilledError,
    StorageError,
    TrialFailedError,
    W2LTuneError,
    storage_fault,
)
from w2ltune.formats.known_flags import number_of
from w2ltune.formats.logs import LogTail, TrainLine, read_history
from w2ltune.runs.adoption import adopt
from w2ltune.runs.explain import failure, killed_again, load_failure
from w2ltune.runs.process import Program
from w2ltune.runs.recovery import recover, set_aside_failed
from w2ltune.runs.rundir import log_path, make_shared, user_name, write_script
from w2ltune.runs.snapshots import Snapshot, best_snapshot, read_snapshots, take_snapshot
from w2ltune.runs.trialdir import TrialDirectory
from w2ltune.trials.curve import Curve, Finished
from w2ltune.trials.keeper import Keeper, own_model
from w2ltune.trials.launch import Launch, announce, record_processes, wait_for_the_last
from w2ltune.trials.ranks import Ranks
from w2ltune.trials.trainjob import TrainJob, rank_arguments

SAME_FAILURES = 2
"""A program that fails so often in the same way, without a checkpoint in between, has failed."""

ANY_FAILURES = 5
"""The same for failures of any kind, and for a program that is killed from outside."""

MOST_LAUNCHES = 25
"""So many launches in one run of the command, without a checkpoint in between, are enough."""

MOST_UNREADABLE = 2
"""So many checkpoints in a row that the program cannot load: something else is wrong."""

TROUBLE_SECONDS = 2 * 3600.0
"""How long a start is tried again while the disk or file server fails."""

STOP_SECONDS = 20.0
PEERS_SECONDS = 60.0
"""How long ranks may take to end after the first one that was done."""

StartRanks = Callable[[TrainJob, Sequence[Program], Path, int], Ranks]


class Supervisor:
    """Brings one trial's training to its end; `advance` is called again and again.

    Args:
        directory: The trial's folder.
        rundir: Its run directory.
        job: How it is run.
        flags: Its flags.
        launched: Launches before this run of the command.
        start_ranks: Starts its processes.
    """

    def __init__(
        self,
        directory: TrialDirectory,
        *,
        rundir: Path,
        job: TrainJob,
        flags: Mapping[str, str],
        launched: int,
        start_ranks: StartRanks,
    ) -> None:
        self.directory = directory
        self.attempt = 0
        self.fault: W2LTuneError | None = None
        self.note = ""
        self.taken_bytes = 0
        self.kept: Snapshot | None = None
        self.finished: Finished | None = None
        self.rundir = rundir
        self._job = job
        self._flags = flags
        self._launched = launched
        self._start_ranks = start_ranks
        self._log = log_path(rundir, user_name())
        self._launch: Launch | None = None
        self._failures: list[str] = []
        self._unreadable = 0
        self._longest_silence = 0.0
        self._begun = time.monotonic()
        self._trouble_since = self._retry_at = 0.0
        self._superseded = False
        self.curve = Curve(lines=(), metric=job.metric)

    @property
    def over(self) -> bool:
        """Whether the training is finished, has failed, or cannot go on in this run."""
        return self.fault is not None or self.finished is not None

    @property
    def failure(self) -> str:
        """Why it has failed or cannot go on, or ""."""
        return str(self.fault or "")

    @property
    def seconds(self) -> float:
        """Time spent in the updates that count, or since the first launch here if that is more."""
        return max(self.curve.seconds, time.monotonic() - self._begun)

    def _value_at(self, updates: int) -> float | None:
        """Return the metric at a checkpoint; its report was written just before it."""
        if self.curve.updates < updates:
            self._read_curve()
        return self.curve.value_at(updates)

    def _rates_at(self, updates: int) -> Mapping[str, float]:
        return self.curve.rates_at(updates)

    @property
    def has_best(self) -> bool:
        """Whether the best snapshot is that of the best report."""
        best = self.best()
        return best is not None and self.kept is not None and self.kept.value == best[1]

    def best(self) -> tuple[TrainLine, float] | None:
        """Return the best report so far with its value, or None."""
        return self.curve.best(kept=self.kept.updates if self.kept else 0)

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._launch is not None and self._launch.keeper.writing

    def advance(self) -> None:
        """Do what there is to do now; quick, but for a start and the copy of a checkpoint."""
        if self.over or self._superseded or time.monotonic() < self._retry_at:
            return
        try:
            if self._launch is None:
                self._begin()
                self._trouble_since = 0.0
            else:
                self._watch(self._launch)
        except (W2LTuneError, OSError) as error:
            fault = storage_fault(error)
            if isinstance(error, W2LTuneError) and fault is None:  # what no second try mends
                self._give_up(error)
            else:  # a full disk, a file server that is away
                self._trouble(error, fault)

    def stop(self) -> None:
        """End the processes, after a checkpoint that is being written."""
        if self._launch is not None:
            self._launch.ranks.stop(self.rundir, patience_seconds=STOP_SECONDS)
            self._launch = None
            self._clean()
        self._unfence()

    def _unfence(self) -> None:
        for folder in (self.directory.path.parents[1], self.rundir):
            files.unfence(folder, self._is_newest)

    def _is_newest(self) -> bool:
        return self.directory.attempt() <= self.attempt

    def _begin(self) -> None:
        """Start the program from the newest good checkpoint."""
        self._read_curve()
        try:
            if (known := files.read_json(self.directory.finished)) is not None:
                with files.shaped(self.directory.finished):
                    self.finished = files.fitted(Finished, known)
                return
        except InputError as error:  # it comes to its end once more
            self._say(str(error))
        for folder in (self.rundir, self._log.parent, self.directory.snapshots):
            make_shared(folder)
        self._unfence()
        wait_for_the_last(self.directory)
        newest = next(iter(read_snapshots(self.directory.snapshots)), None)
        self._refuse_a_loop(str(newest.updates if newest else 0))
        self.attempt = self.directory.begin_attempt(str(newest.updates if newest else 0))
        for folder in (self.directory.path.parents[1], self.rundir):
            files.fence(folder, self._is_newest, self._refuse_to_fight)
        continuing = self._job.mode == "continue"
        if continuing:
            for taken in adopt(self.rundir, self.directory.snapshots, value=self._value_at):
                self._say(f"took over the snapshot after update {taken.updates}")
        trust = continuing and not read_snapshots(self.directory.snapshots)
        found = recover(self.rundir, self.directory.snapshots, trust_live=trust)
        anew = found.mode == "anew"
        for note in found.notes:
            self._say(note)
        unreadable = list(self.directory.snapshots.glob("*.bad"))
        if anew and (continuing or len(unreadable) >= MOST_UNREADABLE):
            raise TrialFailedError(
                f"{self.rundir}: no checkpoint there can be loaded; what there was lies in torn/"
            )
        if found.unsaved is not None:
            self._save(found.unsaved)
        begin = self._job.mode if anew else f"continue after update {found.updates}"
        self._say(f"start {self.attempt}: {begin}")
        scratch = self.directory.path / "launches" / f"{self.attempt:04d}"
        self._clean()
        make_shared(scratch / "rendezvous")
        programs = self._programs(anew, scratch)
        index = 1 if anew else found.index + 1
        output = LogTail(self._log, from_end=True)
        keeper = Keeper(
            self.directory, self._job, rundir=self.rundir, index=index, attempt=self.attempt,
            value_at=self._value_at, rates_at=self._rates_at, say=self._say,
        )  # fmt: skip
        with contextlib.suppress(OSError):  # both can wait
            if not anew:
                keeper.drop_copied_models(newest=found.index)
            elif self._job.mode == "fork":  # the training that wrote it leaves what has two names
                os.link(self._job.model_path, self.rundir / "forked_model.bin")
        self._refuse_to_fight()
        announce(self.directory)
        self._launch = Launch(
            ranks=self._start_ranks(self._job, programs, self.directory.attempts, self.attempt),
            keeper=keeper,
            index=index,
            begins_with=0 if anew else found.updates,
            reports=LogTail(self.rundir / f"{index:03d}_log"),
            output=output,
            stall_minutes=self._job.stall_minutes,
            longest_silence=self._longest_silence,
        )
        record_processes(self.directory, self._launch)

    def _programs(self, anew: bool, scratch: Path) -> list[Program]:
        """Return the processes to start, and leave the first one's command as a script."""
        job = self._job
        programs = [
            Program(
                arguments=rank_arguments(
                    job, self._flags, rundir=self.rundir, anew=anew, rank=rank, scratch=scratch
                ),
                log=self._rank_log(rank),
                folder=Path(job.folder),
                environment=job.environment,
            )
            for rank in range(job.ranks)
        ]
        first = programs[0]
        write_script(
            self.rundir, user_name(), self.attempt, first.arguments, first.environment,
            directory=first.folder,
        )  # fmt: skip
        return programs

    def _save(self, checkpoint: Path) -> None:
        """Take a snapshot of what is whole and newer than all others, before it is written over."""
        try:
            take_snapshot(
                checkpoint, self.directory.snapshots,
                value=self._value_at, rates=self._rates_at, is_busy=lambda: False,
                is_ours=lambda: self.directory.attempt() == self.attempt,
            )  # fmt: skip
        except OSError as error:  # it is not needed to go on
            self._say(f"no snapshot of {checkpoint.name}: {error.strerror or error}")

    def _refuse_to_fight(self) -> None:
        """Stand still for good when a newer launch of this trial is at work elsewhere."""
        if self.directory.attempt() > self.attempt:
            self._superseded = True
            self.note = f"launch {self.directory.attempt()} of this trial is at work elsewhere"
            raise BlockingIOError(self.note)

    def _refuse_a_loop(self, begins_with: str) -> None:
        notes = self.directory.attempt_notes()
        fruitless = [n for n, note in notes.items() if n > self._launched and note == begins_with]
        if len(fruitless) >= MOST_LAUNCHES:
            raise TrialFailedError(
                f"{len(fruitless)} starts came no further than update {begins_with}: {self._log}"
            )

    def _watch(self, launch: Launch) -> None:
        codes = launch.ranks.poll()
        if new := launch.read():
            self.curve = self.curve.followed_by(new)
            self._longest_silence = launch.longest_silence
            self._unreadable = 0
            self.kept = best_snapshot(read_snapshots(self.directory.snapshots))
            self.note = ""
        launch.keeper.look(launch.pids)
        self.note = launch.keeper.problem or self.note
        self.taken_bytes = launch.keeper.taken_bytes or self.taken_bytes
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None:
            self._failed(launch, failed, codes[failed] or 0)
        elif all(code == 0 for code in codes):
            self._end(launch)
        elif any(code == 0 for code in codes):
            launch.first_end = min(launch.first_end, time.monotonic())
            if time.monotonic() - launch.first_end > PEERS_SECONDS:
                self._end_launch(
                    launch, TrialFailedError("some processes did not end with the others")
                )
        elif minutes := launch.hung_minutes():
            silent = f"hung: no new line for {minutes:.1f} minutes"
            self._end_launch(launch, TrialFailedError(silent))

    def _read_curve(self) -> None:
        if self.rundir.exists():
            self.curve = Curve(lines=read_history(self.rundir), metric=self._job.metric)
            self.kept = best_snapshot(read_snapshots(self.directory.snapshots))

    def _failed(self, launch: Launch, rank: int, code: int) -> None:
        self._refuse_to_fight()
        log = self._rank_log(rank)
        unread = load_failure(log)
        folder = Path(self._job.folder)
        name = f"rank {rank}" if self._job.ranks > 1 else ""
        reason = failure(code, log, name=name, lists=self._lists(folder), folder=folder)
        if unread is not None and launch.index > 1 and not launch.lines:
            launch.ranks.stop(self.rundir, patience_seconds=0)
            self._unreadable += 1
            if self._unreadable >= MOST_UNREADABLE:
                self._give_up(
                    TrialFailedError(
                        f"{self._unreadable} checkpoints in a row cannot be loaded: {reason}"
                    )
                )
                return
            self._say(f"{unread.name} cannot be loaded; going back to the checkpoint before it")
            set_aside_failed(
                self.rundir, launch.index - 1, self.directory.snapshots, launch.begins_with
            )
            self._launch = None
            return
        self._end_launch(launch, reason)

    def _end_launch(self, launch: Launch, fault: W2LTuneError) -> None:
        """End all ranks; the next step starts again, unless it has failed in this way before."""
        launch.ranks.stop(self.rundir, patience_seconds=STOP_SECONDS)
        with contextlib.suppress(OSError):
            launch.keeper.look(list)
        self._launch = None
        self._clean()
        newest = next(iter(read_snapshots(self.directory.snapshots)), None)
        if newest is not None and newest.updates > launch.begins_with:
            self._failures.clear()
        reason = str(fault)
        self._failures.append(reason)
        self._say(f"ended: {reason}")
        self.note = reason
        same = [r for r in self._failures if _shape(r) == _shape(reason)]
        killed = isinstance(fault, KilledError)
        if len(same) >= (ANY_FAILURES if killed else SAME_FAILURES):
            self._give_up(killed_again(fault, times=len(same)) if killed else fault)
        elif len(self._failures) >= ANY_FAILURES:
            many = f"{len(self._failures)} failures in a row, the last one: {reason}"
            self._give_up(fault if isinstance(fault, StorageError) else TrialFailedError(many))

    def _trouble(self, error: OSError | W2LTuneError, fault: StorageError | None) -> None:
        """Let the next steps try again what failed outside of the program."""
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"{error.filename or self.rundir}: {error.strerror or error}"
        if self._superseded:
            self.stop()
            return
        self.note = reason
        if self._launch is not None:
            return  # the program itself goes on
        now = time.monotonic()
        self._trouble_since = self._trouble_since or now
        lasted = now - self._trouble_since
        self._retry_at = now + min(60.0, 1.0 + lasted / 4)
        if lasted > TROUBLE_SECONDS:
            self._give_up(fault or TrialFailedError(reason))

    def _give_up(self, fault: W2LTuneError) -> None:
        self.fault = fault
        self.stop()

    def _end(self, launch: Launch) -> None:
        """Keep what a training that ended well came to."""
        total = int(number_of("iter", self._flags)) if self._flags.get("iter") else 0
        early = self._job.generation == "flashlight" and self.curve.updates < total
        if early and not launch.finished:
            short = f"ended well after {self.curve.updates} of {total} updates"
            self._end_launch(launch, TrialFailedError(short))
            return
        launch.keeper.retry()
        launch.keeper.look(list)
        unkept = launch.keeper.problem
        self._launch = None
        self._clean()
        self._read_curve()
        best = self.best()
        if best is None:
            self._give_up(TrialFailedError(self.curve.why_no_value()))
            return
        self.finished = Finished(
            value=best[1],
            epoch=best[0].epoch,
            epochs=self.curve.epochs,
            updates=self.curve.updates,
            seconds=self.seconds,
            checkpoint=self.kept.path.name if self.kept and self.has_best else "",
            unkept="" if self.has_best else unkept,
            model=own_model(self.rundir, best[0].updates, ended_well=launch.index),
        )
        if self.directory.attempt() == self.attempt:
            files.write_json(self.directory.finished, asdict(self.finished))

    def _lists(self, folder: Path) -> list[Path]:
        """Return the data lists, as the program joins their names."""
        names = ",".join(self._flags.get(name, "") for name in ("train", "valid")).split(",")
        files = [name.rpartition(":")[2] for name in names if name]
        datadir = self._flags.get("datadir", "")
        return [folder / (f"{datadir}/{name}" if datadir else name) for name in files]

    def _rank_log(self, rank: int) -> Path:
        return self._log if rank == 0 else self._log.with_suffix(f".rank{rank}.log")

    def _say(self, text: str) -> None:
        """Write a line of ours to the log, between the program's own."""
        # A full disk must not end what the line is about.
        with (
            contextlib.suppress(OSError),
            open(self._log, "a", encoding="utf-8", opener=files.open_plain) as log,
        ):
            log.write(f"w2ltune: {time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _clean(self) -> None:
        if self._is_newest():
            shutil.rmtree(self.directory.path / "launches", ignore_errors=True)


def _shape(reason: str) -> str:
    return re.sub(r"\d+", "", reason)
