"""Run a program as a child that leaves nothing alive, however it or its starter ends.

Each program runs below a guard (see `processguard`): when this process lets go of it, or is
killed, the guard kills the program with all that it started. What the program prints goes
straight to its log, not through this process, whose death costs no output therefore.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from w2ltune import files
from w2ltune.errors import TrialFailedError, UsageError
from w2ltune.runs import processguard

STARTED = "w2ltune: started "
"""How the line begins that is put into the log before each start of a program."""

MARK_VARIABLE = "W2LTUNE_PROGRAM"
"""In the environment of a program and of all that it starts; its value is of one start only."""

_USERS_ERRORS = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EISDIR),
    *(errno.ENOEXEC, errno.ELOOP, errno.E2BIG, errno.EINVAL, errno.ENAMETOOLONG),
)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run.

    Attributes:
        arguments: The program and its arguments; without a slash it is looked for on the PATH.
        log: File to which its stdout and stderr are appended; its folder must exist.
        folder: Where it runs; None for the folder of this process.
        environment: Additions to the environment of this process.
        stdin: File that it reads; None for nothing.
        stdout: File that its stdout replaces, instead of going to the log.
    """

    arguments: tuple[str, ...]
    log: Path
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: Path | None = None
    stdout: Path | None = None


class Child:
    """A program that runs under its guard; made by `start`, and used by one thread.

    Leaving it as a context kills the program if it still runs.
    """

    def __init__(self, connection: socket.socket, *, guard: int, pid: int, mark: str) -> None:
        self.pid = pid
        self.guard = guard
        self._connection = connection
        self._mark = mark
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the return code, negative for a signal, or None while the program runs.

        Once there is a code, nothing that the program started is alive any more. If the guard
        was killed the code is -9: the program died with it.
        """
        return self.wait(0)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end of the program; see `poll` for what is returned.

        Args:
            timeout_seconds: At most so long; None for as long as it takes.
        """
        if self._code is None:
            self._connection.settimeout(timeout_seconds)
            try:
                words = _receive(self._connection).split()
            except (BlockingIOError, TimeoutError):
                return None
            if words:
                self._code = int(words[1])
            else:
                _kill_marked(self._mark)
                self._code = -signal.SIGKILL
            self._connection.close()
        return self._code

    def kill(self, grace_seconds: float = 0.0) -> None:
        """Kill the program and all that it started; return when all are gone.

        Args:
            grace_seconds: Send SIGTERM first and wait so long for the end.
        """
        if self._code is None:
            with contextlib.suppress(ConnectionError):  # it has just ended, or lost its guard
                self._connection.sendall(f"kill {grace_seconds}\n".encode())
            self.wait()

    def processes(self) -> list[int]:
        """Return the living processes of the program: itself and all that it started."""
        return processguard.descendants(self.guard) if self._code is None else []

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()


def start(program: Program, *, attempts: Path | None = None, attempt: int = 0) -> Child:
    """Start a program under a guard.

    Args:
        program: What to run.
        attempts: A folder with a numbered file for each launch of the trial; the program is
            killed within about a second when a number above ``attempt`` appears there.
        attempt: The number of this launch.

    Raises:
        UsageError: The program or its folder is missing, or may not be used.
        TrialFailedError: This machine could not start it.
        OSError: The log, or a file that it reads or writes, could not be opened.
    """
    mark = uuid.uuid4().hex
    folder = Path.cwd() if program.folder is None else program.folder.absolute()
    order = {
        "arguments": program.arguments,
        "folder": str(folder),
        "environment": {**os.environ, **program.environment, MARK_VARIABLE: mark},
        "attempts": "" if attempts is None else str(attempts.absolute()),
        "attempt": attempt,
    }
    ours, theirs = socket.socketpair()
    try:
        with (
            theirs,
            open(program.log, "ab", opener=files.open_plain) as log,
            contextlib.ExitStack() as stack,
        ):
            stdin = stack.enter_context((program.stdin or Path(os.devnull)).open("rb"))
            stdout = (
                log
                if program.stdout is None
                else stack.enter_context(open(program.stdout, "wb", opener=files.open_plain))
            )
            log.write(_title(program, attempt).encode("utf-8", errors="surrogateescape"))
            log.flush()
            starter = subprocess.Popen(
                [sys.executable, "-I", "-S", processguard.__file__, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                stdin=stdin,
                stdout=stdout,
                stderr=log,
            )
        starter.wait()  # it ends at once: the guard is its child, and so nobody's
        with contextlib.suppress(ConnectionError):  # told below: the answer is empty then
            ours.sendall(json.dumps(order).encode() + b"\n")
        answer = _receive(ours).split()
        if answer[:1] == ["started"]:
            return Child(ours, guard=int(answer[1]), pid=int(answer[2]), mark=mark)
        raise _start_error(program, folder, answer)
    except BaseException:
        ours.close()
        raise


def files_being_written(pids: Iterable[int], folder: Path) -> set[Path]:
    """Return the files below a folder that some processes have open for writing.

    The paths begin with ``folder`` as it is given, even where it is a symbolic link.
    """
    real = folder.resolve()
    written = (Path(path) for path in processguard.written_files(pids))
    return {folder / path.relative_to(real) for path in written if path.is_relative_to(real)}


def stop(child: Child, rundir: Path, *, patience_seconds: float = 20.0) -> None:
    """End a training in the way that loses least; return when all of it is gone.

    The binary saves nothing when it is asked to end, so it is killed; but a checkpoint that is
    just being written is waited for.

    Args:
        child: The training.
        rundir: Its run directory.
        patience_seconds: Wait at most so long.
    """
    end = time.monotonic() + patience_seconds
    while time.monotonic() < end and child.poll() is None:
        written = files_being_written(child.processes(), rundir)
        if not any(path.suffix == ".bin" for path in written):
            break
        child.wait(0.02)
    child.kill()


def _title(program: Program, attempt: int) -> str:
    """Return the line that separates this start in the log from those before it."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    command = shlex.join(program.arguments).replace("\n", "\\n")
    launch = f", launch {attempt}" if attempt else ""
    return f"{STARTED}{now}{launch}: {command}\n"


def _receive(connection: socket.socket) -> str:
    """Return the next line from the guard, or "" when the guard is gone."""
    line = b""
    with contextlib.suppress(ConnectionError):
        # Byte by byte: the lines are short, and what follows one belongs to the next call.
        while not line.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                return ""
            line += byte
    return line.decode()


def _start_error(
    program: Program, folder: Path, answer: list[str]
) -> UsageError | TrialFailedError:
    name = program.arguments[0] if program.arguments else ""
    if answer[:1] != ["failed"]:
        return TrialFailedError(f"{name}: its guard could not be started; see {program.log}")
    number, what = int(answer[1]), answer[2]
    reason = os.strerror(number)
    if what == "folder":
        message = f"{name}: the folder to run it in cannot be entered: {folder}: {reason}"
    elif not program.arguments:
        message = "no program was named"
    elif number == errno.ENOENT and (folder / name).is_file():
        message = f"{name} cannot be run: the interpreter in its first line is missing"
    elif number == errno.ENOEXEC:
        message = f"{name} cannot be run: it is neither a program of this machine nor a script"
    elif number == errno.ENOENT:
        where = "" if "/" in name else "; it is not on the PATH"
        message = f"{name}: no such program{where}"
    else:
        message = f"{name} cannot be run: {reason}"
    return (UsageError if number in _USERS_ERRORS else TrialFailedError)(message)


def _kill_marked(mark: str) -> None:
    """Kill what is left of a program that lost its guard; it carries the mark."""
    while pids := list(_marked(f"{MARK_VARIABLE}={mark}".encode())):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _marked(entry: bytes) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name)
