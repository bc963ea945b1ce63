"""Waits for a test, so that it meets the double at the moment that it means."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

LOOK_SECONDS = 0.02


def wait_for_leave(updates: int) -> None:
    """Wait while DOUBLE_LEAVE_FILE allows no more than so many updates."""
    path = os.environ.get("DOUBLE_LEAVE_FILE")
    with contextlib.suppress(FileNotFoundError):
        while path and int(Path(path).read_text() or 0) <= updates:
            time.sleep(LOOK_SECONDS)


def wait_in_write(updates: str) -> None:
    """Wait for the file of so many updates in the folder DOUBLE_WRITE_AFTER, where there is one."""
    folder = os.environ.get("DOUBLE_WRITE_AFTER")
    while folder and not Path(folder, updates).exists():
        time.sleep(LOOK_SECONDS)
