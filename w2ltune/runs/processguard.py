"""The guard of a program: lets nothing of it outlive the process that asked for it.

`process.start` runs this file as a small process of its own session, isolated and without
site-packages: it starts at once and needs next to no memory. It is nobody's child, so that who
kills a Ray worker with its children and process group does not kill it. All that the program
starts stays below the guard, whatever sessions it makes and whichever parents it loses
(``PR_SET_CHILD_SUBREAPER``): when the guard has no child any more, nothing is left. The program
itself dies with the guard (``PR_SET_PDEATHSIG``).

A socket connects it to the process that asked: an order comes in as a line of JSON, out go
``started GUARD PROGRAM`` or ``failed ERRNO WHAT``, and ``exit CODE`` when everything is gone.
``kill SECONDS`` asks for the end; so does the end of the socket, which means that the process
died or let go.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

CHECKPOINT_SECONDS = 2.0
"""How long a checkpoint that is being written is waited for when the asker is gone."""

FENCE_SECONDS = 1.0

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ACCESS_MODE = 3  # of the flags of an open file; 0 is reading only


def descendants(pid: int) -> list[int]:
    """Return the processes below a process, nearest first; unburied ones among them."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(process.name))
    found = list(children.get(pid, ()))
    for process_below in found:  # it grows as it is walked
        found += children.get(process_below, ())
    return found


def written_files(pids: Iterable[int]) -> Iterator[str]:
    """Yield the real paths of the files that processes have open for writing."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    path = str(link.readlink())
                    if path.startswith("/") and not path.endswith(" (deleted)"):
                        info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_bytes()
                        flags = int(info.split(b"flags:", 1)[1].split(None, 1)[0], 8)
                        if flags & _ACCESS_MODE:
                            yield path


def writes_checkpoint(pids: Iterable[int]) -> bool:
    """Return whether one of the processes is writing a file whose name ends in ``.bin``."""
    return any(path.endswith(".bin") for path in written_files(pids))


class _Tree:
    """The program and all that it started: everything below this process."""

    def __init__(self, program: int) -> None:
        self._program = program
        self.code: int | None = None

    def bury(self) -> bool:
        """Bury the dead; return whether nobody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._program:
                self.code = os.waitstatus_to_exitcode(status)

    def send(self, number: int) -> None:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def terminate(self, grace_seconds: float) -> None:
        """Ask everybody to end and give them some time for it."""
        if grace_seconds > 0:
            self.send(signal.SIGTERM)
            end = time.monotonic() + grace_seconds
            while not self.bury() and time.monotonic() < end:
                time.sleep(0.02)

    def finish_checkpoint(self) -> None:
        """Let a checkpoint that is being written be finished, for a short time."""
        end = time.monotonic() + CHECKPOINT_SECONDS
        while writes_checkpoint(descendants(os.getpid())) and time.monotonic() < end:
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill everybody; return when nobody is left."""
        pause_seconds = 0.005
        while not self.bury():
            self.send(signal.SIGKILL)
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, 0.2)


def _launch(order: dict[str, Any]) -> tuple[int, str]:
    """Start the program; return its number and "", or why it could not be started."""
    guard = os.getpid()
    read_end, write_end = os.pipe()  # closed by the exec, if it succeeds
    program = os.fork()
    if program == 0:
        what = "folder"
        try:
            _process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:  # it died before the line above
                os._exit(1)
            os.setsid()
            for number in signal.valid_signals():
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.chdir(order["folder"])
            what = "program"
            os.execvpe(order["arguments"][0], order["arguments"], order["environment"])
        except BaseException as error:
            reason = getattr(error, "errno", None) or errno.EINVAL
            os.write(write_end, f"{reason} {what}".encode())
        finally:
            os._exit(127)
    os.close(write_end)
    try:
        return program, os.read(read_end, 64).decode()
    finally:
        os.close(read_end)


def _process_control(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _superseded(attempts: str, attempt: int) -> int:
    """Return the number of a newer launch, or 0."""
    with contextlib.suppress(OSError):
        numbers = (int(path.name) for path in Path(attempts).iterdir() if path.name.isdecimal())
        return max((number for number in numbers if number > attempt), default=0)
    return 0


def _watch(connection: socket.socket, tree: _Tree, wake: int, order: dict[str, Any]) -> None:
    """Return when the program has ended, or is to end now."""
    attempts, attempt = order["attempts"], order["attempt"]
    sources = select.poll()
    sources.register(connection, select.POLLIN)
    sources.register(wake, select.POLLIN)
    while True:
        ready = {number for number, _ in sources.poll(1000 * FENCE_SECONDS if attempts else None)}
        if wake in ready:
            os.read(wake, 4096)
        tree.bury()
        if tree.code is not None:
            return
        if connection.fileno() in ready:
            request = connection.recv(64)
            if request:
                tree.terminate(float(request.split()[1]))
            else:
                _say("the process that started this program is gone; the program ends with it")
                tree.finish_checkpoint()
            return
        if attempts and (newer := _superseded(attempts, attempt)):
            _say(f"error: launch {newer} is at work; this was launch {attempt}, and ends")
            return


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"w2ltune: {text}\n".encode())


def _guard(descriptor: int) -> None:
    os.set_inheritable(descriptor, False)
    os.chdir("/")  # no folder is kept from being removed
    for ignored in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2"):
        signal.signal(getattr(signal, f"SIG{ignored}"), signal.SIG_IGN)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _process_control(_PR_SET_CHILD_SUBREAPER, 1)
    # Errors in sending mean that the asker is gone: the end of the socket says so too.
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(ConnectionError):
        with connection.makefile("rb") as file:
            line = file.readline()
        if not line.endswith(b"\n"):
            return
        order = json.loads(line)
        program, failure = _launch(order)
        tree = _Tree(program)
        try:
            if failure:
                connection.sendall(f"failed {failure}\n".encode())
                return
            connection.sendall(f"started {os.getpid()} {program}\n".encode())
            _watch(connection, tree, wake, order)
        finally:
            tree.kill()
        connection.sendall(f"exit {tree.code}\n".encode())


if __name__ == "__main__":
    if os.fork() == 0:
        _guard(int(sys.argv[1]))
    os._exit(0)
