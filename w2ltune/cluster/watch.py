"""Ends a command whose Ray is lost, whatever it waits for.

Without Ray's control service (GCS) most calls of Ray block, ``ray.shutdown`` too, and after a while
Ray's core ends the process with exit code 1, which is final for a job of SLURM. The watcher comes
first, and ends it as a command that can be continued.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from w2ltune.errors import EXIT_STOPPED
from w2ltune.runs.lock import release_held

LOOK_SECONDS = 1.0
LOST_SECONDS = 20.0
"""So long the command may take to notice it too, and to say how far it came."""

LEAST_LOOKS = 5
CONNECT_SECONDS = 5.0
SHOW_CURSOR = b"\033[?25h"


@contextlib.contextmanager
def watched(
    lives: Callable[[], bool],
    *,
    lost_seconds: float = LOST_SECONDS,
    look_seconds: float = LOOK_SECONDS,
) -> Iterator[None]:
    """End this process with `EXIT_STOPPED` when Ray is lost before the block is left.

    Args:
        lives: Returns whether Ray is there; called from a thread, and must not call Ray.
        lost_seconds: Ray is lost when it was not there for so long.
        look_seconds: How often to look.
    """
    over = threading.Event()

    def watch() -> None:
        lived, missed = time.monotonic(), 0
        while not over.wait(look_seconds):
            if lives():
                lived, missed = time.monotonic(), 0
                continue
            missed += 1  # this process itself may have been suspended for long
            lost = missed >= LEAST_LOOKS and time.monotonic() - lived > lost_seconds
            if lost and not over.is_set():
                _end(lost_seconds)

    threading.Thread(target=watch, name="ray watcher", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def answers(address: str) -> bool:
    """Return whether somebody listens at ``host:port``; True where this cannot be found out."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (ConnectionError, TimeoutError):
        return False
    except OSError as error:  # as for want of files
        return error.errno not in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)
    return True


def _end(lost_seconds: float) -> None:
    """End the process past everything that may block; to others it is a killed one."""
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)  # a progress bar may have hidden it
    message = (
        f"\nw2ltune: error: Ray is lost (not there for {lost_seconds:g} seconds); what was "
        "finished is kept, the same command continues\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, message.encode())
    release_held()
    os._exit(EXIT_STOPPED)
