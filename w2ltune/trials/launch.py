"""One launch of a training's processes: what they wrote lately, and whether they still move."""

from __future__ import annotations

import math
import socket
import time
from dataclasses import dataclass

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.logs import LogTail, TrainLine, parse_train_line
from w2ltune.runs.lock import process_start
from w2ltune.runs.trialdir import TrialDirectory
from w2ltune.trials.keeper import Keeper
from w2ltune.trials.ranks import Ranks

LEAST_STALL_SECONDS = 600.0
STALL_FACTOR = 5.0
FIRST_STALL_SECONDS = 12 * 3600.0
"""Patience while nothing is known of how often a training reports."""

FENCE_SECONDS = 30.0
"""In this time the guard of an earlier launch on another node sees a newer one, NFS or not."""

FINISHED = "Finished training"
"""What the program prints at its own end."""

OWN_FENCE_SECONDS = 3.0
"""The same on this node."""

OLD_LAUNCH_SECONDS = 20.0
"""How long an earlier launch on this node may take to end after its trainable."""


@dataclass(kw_only=True)
class Launch:
    """The processes of a training and the logs that they write.

    Attributes:
        ranks: The processes.
        keeper: Takes the snapshots.
        index: Run index that the program writes.
        begins_with: Updates of the checkpoint that it began with.
        reports: The program's ``00N_log``.
        output: What it prints.
        stall_minutes: As in `TrainJob`.
        longest_silence: Between two reports of this training so far, in seconds; 0 before.
        lines: Looks at which there was a new report.
        finished: Whether the program said that it had come to its end.
        first_end: When the first rank ended well; infinite before.
    """

    ranks: Ranks
    keeper: Keeper
    index: int
    begins_with: int
    reports: LogTail
    output: LogTail
    stall_minutes: float | None
    longest_silence: float = 0.0
    lines: int = 0
    finished: bool = False
    first_end: float = math.inf

    def __post_init__(self) -> None:
        """Begin to count."""
        self._news = self._line_time = time.monotonic()

    def read(self) -> list[TrainLine]:
        """Look at the logs; return the new reports."""
        reports, output, now = self.reports.read(), self.output.read(), time.monotonic()
        if reports or output:
            self._news = now
        self.finished = self.finished or any(FINISHED in line for line in output)
        found = [line for line in map(parse_train_line, reports) if line is not None]
        if found:
            if self.lines:  # the first one has the start in it
                self.longest_silence = max(self.longest_silence, now - self._line_time)
            self.lines += 1
            self._line_time = now
        return found

    def hung_minutes(self) -> float:
        """Return for how long nothing was written, if that is too long; else 0."""
        silent = time.monotonic() - self._news
        return silent / 60 if silent > self._patience_seconds() else 0.0

    def _patience_seconds(self) -> float:
        if self.stall_minutes is not None:
            return 60 * self.stall_minutes or math.inf
        if not self.longest_silence:
            return FIRST_STALL_SECONDS
        return max(LEAST_STALL_SECONDS, STALL_FACTOR * self.longest_silence)

    def pids(self) -> list[int]:
        """Return the processes on this node."""
        return [pid for child in self.ranks.local() for pid in child.processes()]


def announce(directory: TrialDirectory) -> None:
    """Write down that processes are about to start; they are not known yet."""
    files.write_json(directory.process, {"host": "", "pids": {}})


def record_processes(directory: TrialDirectory, launch: Launch) -> None:
    """Write down the processes of a launch, for the one after it; their guards end last."""
    guards = [child.guard for child in launch.ranks.local()]
    begun = {str(pid): process_start(pid) for pid in [*guards, *launch.pids()]}
    known = {pid: start for pid, start in begun.items() if start}
    files.write_json(directory.process, {"host": socket.gethostname(), "pids": known})


def wait_for_the_last(directory: TrialDirectory) -> None:
    """Let an earlier launch's processes end: two programs must not write one folder."""
    try:
        if (known := files.read_json(directory.process)) is None:
            return
        with files.shaped(directory.process):
            host, pids = known["host"], {int(pid): start for pid, start in known["pids"].items()}
    except InputError:  # damaged: they may be anywhere
        host, pids = "anywhere", {}
    if host != socket.gethostname():
        directory.begin_attempt("fence")  # its guard sees it and kills what is left there
        time.sleep(FENCE_SECONDS if host else OWN_FENCE_SECONDS)
        return
    deadline = time.monotonic() + OLD_LAUNCH_SECONDS
    while any(process_start(pid) == start for pid, start in pids.items()):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"processes of an earlier start still run ({', '.join(map(str, pids))}); end them"
            )
        time.sleep(0.1)
