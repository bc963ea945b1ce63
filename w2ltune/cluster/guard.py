"""Ends a local Ray cluster with its driver, however the driver dies.

Ray's processes notice a dead driver one after another, some after a minute, and a few not at all.
The guard is a small process of its own session that holds the read end of a pipe: when the driver
is gone the pipe ends, and the guard kills every process that has a file of the cluster's private
folder open (all of Ray's write their logs there) and removes the folder. Neither parents nor
environments would tell them: orphans lose the first, and Ray's process titles overwrite the second.
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

QUIET_ROUNDS = 5
"""One look is not enough: a process that is just being started may not show its files yet."""


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Let no process that works in ``folder`` outlive this block or this process.

    Args:
        folder: The private folder of a cluster; removed at the end.
    """
    read_end, write_end = os.pipe()
    guard = subprocess.Popen(
        # Isolated and without site-packages: it starts at once and needs next to no memory.
        [sys.executable, "-I", "-S", __file__, str(read_end), str(os.getpid()), str(folder)],
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


def processes_in(folder: Path) -> list[int]:
    """Return the processes of this user that have a file below ``folder`` open."""
    inside = f"{folder}{os.sep}"
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            if any(str(link.readlink()).startswith(inside) for link in (path / "fd").iterdir()):
                found.append(int(path.name))
    return found


def _watch(read_end: int, driver: int, folder: Path) -> None:
    while os.read(read_end, 1):
        pass
    quiet = 0
    while quiet < QUIET_ROUNDS:
        processes = [pid for pid in processes_in(folder) if pid != driver]
        quiet = 0 if processes else quiet + 1
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for ignored in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2"):
        signal.signal(getattr(signal, f"SIG{ignored}"), signal.SIG_IGN)
    _watch(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
