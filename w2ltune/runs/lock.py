"""One owner of a study at a time, found out without file locks, which shared disks break.

A folder of numbered files ``lock/000001.json``, ``lock/000002.json``, … holds the owners, newest
last. Only one process can create the next number, so taking over is one step; the owner looks for
a number after its own before each write, so that an owner that was thought dead and wakes up
again writes nothing more.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from w2ltune import files
from w2ltune.errors import StudyOwnedError

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 60.0
"""How long a heartbeat of another start of the same job must stand still before a takeover."""

TAKE_OVER_VARIABLE = "W2LTUNE_TAKE_OVER"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who owns a study: enough to say whether that process still lives."""

    user: str
    host: str
    boot_id: str
    pid: int
    process_start: str
    job_id: str
    restart_count: int
    generation: int = 0
    released: bool = False
    heartbeat: int = 0
    cluster: str = ""
    node: str = ""

    def lives_on_this_host(self) -> bool | None:
        """Return whether the process lives; None when it is of another host or boot."""
        if (self.host, self.boot_id) != (socket.gethostname(), _boot_id()):
            return None
        return process_start(self.pid) in (self.process_start, "")

    def __str__(self) -> str:
        job = f", SLURM job {self.job_id}" if self.job_id else ""
        return f"process {self.pid} of {self.user} on {self.host}{job}"


def this_process() -> Owner:
    """Return the description of this process."""
    return Owner(
        user=_user(),
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid=os.getpid(),
        process_start=process_start(os.getpid()) or "",
        job_id=os.environ.get("SLURM_JOB_ID", ""),
        restart_count=int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0),
        cluster=os.environ.get("SLURM_CLUSTER_NAME", ""),
        node=os.environ.get("SLURMD_NODENAME", ""),  # none where salloc was given
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return str(os.getuid())


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Return the start time of a process in clock ticks, which its number alone cannot tell.

    None when there is no such process, or only its unburied remains; "" when there is one of which
    nothing more is to be seen (``/proc`` may hide other users' processes, or be absent).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "" if _exists(pid) else None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def leave_to_another() -> NoReturn:
    """End this process at once: another one took the study over and writes it now."""
    text = "w2ltune: error: another process took this sweep over; this one ends"
    print(text, file=sys.stderr, flush=True)
    os._exit(1)


_held: list[StudyLock] = []


def release_held() -> None:
    """Give free what this process owns, before it ends past everything that may block."""
    for lock in list(_held):
        thread = threading.Thread(target=lock.release, daemon=True)
        thread.start()
        thread.join(HEARTBEAT_SECONDS)


class StudyLock:
    """The ownership of a study, held for the life of its driver.

    Args:
        folder: The lock's folder inside the study's folder.
        owner: This process, as the study is to know it.
        why_job_lives: Says of an owner elsewhere why its job may be at work; "" when it is over.
    """

    def __init__(
        self, folder: Path, owner: Owner, why_job_lives: Callable[[Owner], str] | None = None
    ) -> None:
        self._folder = folder
        self._owner = owner
        self._why_job_lives = why_job_lives
        self._why = ""
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None

    @property
    def generation(self) -> int:
        """The number of this ownership; later owners have higher ones."""
        return self._owner.generation

    def acquire(
        self, *, wait_seconds: float = DEAD_AFTER_SECONDS, poll_seconds: float = 1.0
    ) -> None:
        """Become the owner.

        An owner of this host that is dead is followed at once, and one whose SLURM job is over. An
        earlier start of the same job, and an owner of a host of this name before its last boot, is
        followed when its heartbeat stood still for ``wait_seconds`` by our own clock.

        Raises:
            StudyOwnedError: Another process owns the study; it is named, with the way to override.
        """
        files.refuse_planted(self._folder.parent)
        self._folder.mkdir(exist_ok=True)
        last: Owner | None = None
        since = time.monotonic()
        while True:
            current = current_owner(self._folder)
            if current is None or self._may_follow(current):
                if self._create(1 if current is None else current.generation + 1):
                    break
                continue
            self._refuse_living(current)
            if current != last:
                last, since = current, time.monotonic()
            still = time.monotonic() - since >= wait_seconds
            if still and self._create(current.generation + 1):
                break
            time.sleep(poll_seconds)
        self._heart = threading.Thread(target=self._beat, name="study lock", daemon=True)
        self._heart.start()
        _held.append(self)
        files.fence(self._folder.parent, self.is_ours, leave_to_another)
        files.sweep_temporaries(self._folder.parent)

    def refuse_owned(self) -> None:
        """Look whether this process could become the owner, before work that comes first.

        Raises:
            StudyOwnedError: Another process owns the study.
        """
        current = current_owner(self._folder)
        if current is not None and not self._may_follow(current):
            self._refuse_living(current)

    def free(self) -> None:
        """Give the study free of a dead owner, which elsewhere could not be told, or refuse."""
        current = current_owner(self._folder)
        if current is not None and not current.released:
            self.acquire()
            self.release()

    def _refuse_living(self, current: Owner) -> None:
        if not self._is_likely_dead(current):
            raise StudyOwnedError(
                f"{self._folder.parent}: running already ({current}{self._why}); wait for "
                "it, or stop it. If you know that it is dead, "
                f"set {TAKE_OVER_VARIABLE}={current.generation} for this command"
            )

    def _may_follow(self, current: Owner) -> bool:
        lives, given = current.lives_on_this_host(), os.environ.get(TAKE_OVER_VARIABLE)
        if current.released or lives is False or given == str(current.generation):
            return True
        # What salloc started beside its job outlives it; an earlier start of ours must be over.
        ours = current.job_id == self._owner.job_id
        if lives or ours or not current.node or self._why_job_lives is None:
            return False
        why = self._why_job_lives(current)
        self._why = f": {why}"
        return not why

    def _is_likely_dead(self, current: Owner) -> bool:
        """Whether it is an earlier start of this job, or of this host before it went down."""
        earlier_start = (
            bool(current.job_id)
            and current.job_id == self._owner.job_id
            and current.restart_count < self._owner.restart_count
        )
        rebooted = current.host == self._owner.host and current.boot_id != self._owner.boot_id
        return earlier_start or rebooted

    def _create(self, generation: int) -> bool:
        owner = Owner(**{**asdict(self._owner), "generation": generation})
        if not files.create_exclusively(_path(self._folder, generation), json.dumps(asdict(owner))):
            return False
        self._owner = owner
        if not self.is_ours():
            # We were slow: others have come and gone, and have removed the name that we took.
            _path(self._folder, generation).unlink(missing_ok=True)
            return False
        for old in _owners(self._folder)[1:]:
            old.unlink(missing_ok=True)
        return True

    def is_ours(self) -> bool:
        """Return whether nobody took the study over; one look at the folder, cheap."""
        own = _path(self._folder, self.generation)
        return own.exists() and not is_overtaken(self._folder, self.generation)

    def release(self) -> None:
        """Give the study free. Its number stays, so that numbers only grow."""
        self._stop.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
            _held.remove(self)
            # Where it cannot be written, that is told of what was to be written before.
            with contextlib.suppress(OSError):
                if self.is_ours():
                    self._write(released=True)
        files.unfence(self._folder.parent, self.is_ours)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # A disk that is full or fails must not end the heart: the next beat may find it well.
            with contextlib.suppress(OSError):
                if not self.is_ours():
                    return
                self._write(heartbeat=self._owner.heartbeat + 1)

    def _write(self, **change: Any) -> None:
        self._owner = Owner(**{**asdict(self._owner), **change})
        files.write_json(_path(self._folder, self.generation), asdict(self._owner))


def _path(folder: Path, generation: int) -> Path:
    return folder / f"{generation:06d}.json"


def _owners(folder: Path) -> list[Path]:
    """Return the owners' files, newest first."""
    names = (path for path in folder.glob("[0-9]*.json") if re.fullmatch("[0-9]{6,18}", path.stem))
    return sorted(names, key=lambda path: int(path.stem), reverse=True)


def is_overtaken(folder: Path, generation: int) -> bool:
    """Return whether a lock folder has a newer owner than that of a generation."""
    return any(int(path.stem) > generation for path in _owners(folder))


def current_owner(folder: Path) -> Owner | None:
    """Return the newest owner written in a lock folder, or None when there never was one.

    Raises:
        InputError: What stands there was not written by an owner.
    """
    while owners := _owners(folder):
        content = files.read_json(owners[0])
        if content is None:
            continue  # it was removed between the two looks: there is a newer one
        with files.shaped(owners[0]):
            owner = files.fitted(Owner, content)
            if owner.generation != int(owners[0].stem):
                raise ValueError(f"generation is {owner.generation}")
        return owner
    return None
