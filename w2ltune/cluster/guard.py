"""Ends a local Ray cluster with its driver, however the driver dies.

Ray's processes notice a dead driver one after another, some after a minute, and a few not at all.
The guard is a small process of its own session that holds the read end of a pipe: when the driver
is gone the pipe ends, and the guard kills what carries the cluster's mark and removes its folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "W2LTUNE_SESSION"
QUIET_ROUNDS = 5
"""A process that is just being started shows no environment: one look is not enough."""


@contextlib.contextmanager
def guarded(mark: str, folder: Path) -> Iterator[None]:
    """Let no process with ``MARK=mark`` in its environment outlive this block or this process.

    Args:
        mark: The cluster's mark. The caller puts it into its environment inside the block: what a
            process shows of its environment is that of its start, so that the guard never finds
            the caller.
        folder: Removed at the end.
    """
    read_end, write_end = os.pipe()
    guard = subprocess.Popen(
        # Isolated and without site-packages: it starts at once and needs next to no memory.
        [sys.executable, "-I", "-S", __file__, str(read_end), mark, str(folder)],
        pass_fds=(read_end,),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_end)
    try:
        yield
    finally:
        os.close(write_end)
        guard.wait()


def marked(mark: str) -> list[int]:
    """Return the living processes of this user that carry the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            if wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


def _watch(read_end: int, mark: str, folder: Path) -> None:
    while os.read(read_end, 1):
        pass
    quiet = 0
    while quiet < QUIET_ROUNDS:
        processes = marked(mark)
        quiet = 0 if processes else quiet + 1
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    _watch(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
