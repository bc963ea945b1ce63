"""Private folders of one node: nobody else writes into them, and none is left for ever."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from w2ltune.errors import W2LTuneError
from w2ltune.runs.lock import process_start

_PREFIX = "w2l-"
_SOCKET_BYTES = 107
"""The longest path of a socket. Ray's own part of it stands in `_SOCKET`."""

_SOCKET = "/r2/session_2026-01-31_12-59-59_123456_{pid}/sockets/plasma_store"
_SHORT = ("/tmp", "/dev/shm")
"""Where a local Ray goes when the temporary folder has too long a name."""

_IN_USE = "in-use"


def make_scratch() -> Path:
    """Make the private folder of this process where the sockets of a local Ray have short paths."""
    prefix = f"{_PREFIX}{os.getpid()}-{process_start(os.getpid()) or 0}-"
    rest = len(f"/{prefix}12345678{_SOCKET.format(pid=os.getpid())}")
    for folder in dict.fromkeys((tempfile.gettempdir(), *_SHORT)):
        fits = len(os.fsencode(folder)) + rest <= _SOCKET_BYTES
        if fits and os.access(folder, os.W_OK | os.X_OK):
            for place in dict.fromkeys((tempfile.gettempdir(), folder)):
                remove_abandoned(Path(place))
            return Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    raise W2LTuneError(
        f"no place for Ray's sockets, whose paths may have {_SOCKET_BYTES} bytes: nothing can be "
        f"written to {' and '.join(_SHORT)}, and TMPDIR={tempfile.gettempdir()} has more than "
        f"{_SOCKET_BYTES - rest} bytes; set TMPDIR to a folder of this node with a shorter path"
    )


def remove_abandoned(folder: Path) -> None:
    """Remove the private folders that killed sweeps of this user left in ``folder``."""
    if process_start(os.getpid()) is None:
        return  # without /proc nobody can tell the dead from the living
    for path in folder.glob("w2l*-*"):
        match = re.fullmatch(r"(?:w2l|w2ltune)-(\d+)-(\d+)-\w+", path.name)
        with contextlib.suppress(OSError):
            if (
                match
                and _is_private(path)
                and process_start(int(match[1])) != match[2]
                and not _is_named_by_a_process(path)
            ):
                _remove_unused(path)


def in_use(name: Path) -> IO[str]:
    """Make a private folder of this node, and keep it as long as the file returned is open.

    The command it belongs to may run on another node, or where its processes cannot be seen. The
    file lies in the folder, which has another name where somebody else has taken that one.
    """
    folder = name
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if not _is_private(folder):
            folder = folder.with_name(f"{folder.name}x")  # so each worker of a node takes the same
            continue
        with contextlib.suppress(FileNotFoundError):
            file = (folder / _IN_USE).open("a")
            with contextlib.suppress(OSError):  # where locks are not to be had
                fcntl.flock(file, fcntl.LOCK_SH)
            if (folder / _IN_USE).exists():  # it was not being removed just then
                return file


@contextlib.contextmanager
def beside_others(folder: Path, *, alone: bool) -> Iterator[None]:
    """Let a block of this node run beside others that use the same folder, or alone.

    Args:
        folder: Of this node, as `in_use` made it.
        alone: Wait until no other one runs, and let none begin meanwhile.
    """
    with (folder / "turn").open("a") as turn, (folder / "runs").open("a") as runs:
        with contextlib.suppress(OSError):  # where locks are not to be had
            fcntl.flock(turn, fcntl.LOCK_EX)  # who waits to be alone is not overtaken
            fcntl.flock(runs, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(turn, fcntl.LOCK_UN)
        yield


def _is_private(folder: Path) -> bool:
    """Whether a folder is this user's, and nobody else may write into it."""
    try:
        found = folder.lstat()
    except FileNotFoundError:  # it was being removed
        return True
    ours = found.st_uid == os.getuid() and not found.st_mode & 0o022
    return ours and stat.S_ISDIR(found.st_mode)


def _remove_unused(folder: Path) -> None:
    """Remove a folder that no process keeps; none is let in meanwhile."""
    with contextlib.suppress(BlockingIOError), (folder / _IN_USE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _is_named_by_a_process(folder: Path) -> bool:
    """Whether a guard still cleans up there: it would take us, at work in the folder, for Ray."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes():
                return True
    return False
