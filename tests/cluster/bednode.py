"""One node of the test cluster, by its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from waiting import wait_for


class Node:
    """A running node, which is all processes of one process namespace.

    Args:
        command: Becomes the node's process 1, and writes its namespace's number when it is ready.
        environment: Of the command.
        log: What it says.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        assert self._process.stdout
        self._namespace = int(self._process.stdout.readline() or 0)
        if not self._namespace:
            self.kill()
            raise RuntimeError(f"the node does not start: {log.read_text(errors='replace')}")

    def alive(self) -> bool:
        """Return whether the node is up (a frozen one is)."""
        return self._process.poll() is None

    def processes(self) -> list[str]:
        """Return the command lines of its processes."""
        lines = []
        for pid in self._pids():
            with contextlib.suppress(OSError):
                lines.append(_read(pid, "cmdline").replace("\0", " ").strip())
        return [line for line in lines if line]

    def root(self) -> Path:
        """Return its file system, as it is seen from this machine."""
        return Path(f"/proc/{min(self._pids())}/root")

    def kill(self) -> None:
        """Cut the power; return when no process is left."""
        with self._process, contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # process 1 is in it: the rest follows
        if self._namespace:
            wait_for(lambda: not self._pids())

    def freeze(self) -> None:
        """Stop every process."""
        stopped: set[int] = set()
        while new := self._pids() - stopped:  # again, for what was just being started
            for pid in sorted(new):
                _send(pid, signal.SIGSTOP)
            stopped |= new

    def thaw(self) -> None:
        """Let every process go on, children first."""
        for pid in sorted(self._pids(), reverse=True):
            _send(pid, signal.SIGCONT)

    def _pids(self) -> set[int]:
        """Return its living processes, by their numbers on this machine."""
        return {int(path.name) for path in Path("/proc").glob("[0-9]*") if self._holds(path)}

    def _holds(self, process: Path) -> bool:
        with contextlib.suppress(OSError):
            inside = (process / "ns" / "pid").stat().st_ino == self._namespace
            return inside and _read(int(process.name), "stat").rpartition(")")[2].split()[0] != "Z"
        return False


def _read(pid: int, file: str) -> str:
    return Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8", errors="replace")


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
