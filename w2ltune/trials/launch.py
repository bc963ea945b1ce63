"""One launch of a training's processes: what they wrote lately, and whether they still move."""

from __future__ import annotations

import math
import socket
import time
from dataclasses import dataclass

from w2ltune import files
from w2ltune.errors import TrialFailedError
from w2ltune.formats.logs import LogTail
from w2ltune.runs.lock import process_start
from w2ltune.runs.trialdir import TrialDirectory
from w2ltune.trials.keeper import Keeper
from w2ltune.trials.ranks import Ranks

LEAST_STALL_SECONDS = 600.0
STALL_FACTOR = 5.0

FENCE_SECONDS = 3.0
"""In this time the guard of an earlier launch on another node notices a newer one."""

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
        lines: Looks at which there was a new report.
        first_end: When the first rank ended well; infinite before.
    """

    ranks: Ranks
    keeper: Keeper
    index: int
    begins_with: int
    reports: LogTail
    output: LogTail
    stall_minutes: float | None
    lines: int = 0
    first_end: float = math.inf

    def __post_init__(self) -> None:
        """Begin to count."""
        self.output.read()  # of earlier launches
        self._news = self._line_time = time.monotonic()
        self._longest_silence = 0.0

    def read(self) -> bool:
        """Look at the logs; return whether there is a new report."""
        reports, output, now = self.reports.read(), self.output.read(), time.monotonic()
        if reports or output:
            self._news = now
        if not reports:
            return False
        if self.lines:  # the first one has the start in it
            self._longest_silence = max(self._longest_silence, now - self._line_time)
        self.lines += 1
        self._line_time = now
        return True

    def hung_minutes(self) -> float:
        """Return for how long nothing was written, if that is too long; else 0."""
        silent = time.monotonic() - self._news
        return silent / 60 if silent > self._patience_seconds() else 0.0

    def _patience_seconds(self) -> float:
        if self.stall_minutes is not None:
            return 60 * self.stall_minutes or math.inf
        if self.lines < 3:
            return math.inf
        return max(LEAST_STALL_SECONDS, STALL_FACTOR * self._longest_silence)

    def pids(self) -> list[int]:
        """Return the processes on this node."""
        return [pid for child in self.ranks.local() for pid in child.processes()]


def record_processes(directory: TrialDirectory, launch: Launch) -> None:
    """Write down the processes of a launch, for the one after it."""
    begun = {str(pid): process_start(pid) for pid in launch.pids()}
    known = {pid: start for pid, start in begun.items() if start}
    files.write_json(directory.process, {"host": socket.gethostname(), "pids": known})


def wait_for_the_last(directory: TrialDirectory) -> None:
    """Let an earlier launch's processes end: two programs must not write one folder.

    Raises:
        TrialFailedError: They do not end.
    """
    known = files.read_json(directory.process)
    if known is None:
        return
    if known["host"] != socket.gethostname():
        directory.begin_attempt("fence")  # its guard sees it and kills what is left there
        time.sleep(FENCE_SECONDS)
        return
    deadline = time.monotonic() + OLD_LAUNCH_SECONDS
    while any(process_start(int(pid)) == start for pid, start in known["pids"].items()):
        if time.monotonic() > deadline:
            raise TrialFailedError(
                f"processes of an earlier start still run ({', '.join(known['pids'])}); end them "
                "and give the same command again"
            )
        time.sleep(0.1)
