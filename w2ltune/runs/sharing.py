"""What is a group's of a study, and what is one user's own though it lies beside it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from w2ltune import files
from w2ltune.errors import UsageError
from w2ltune.runs.rundir import SHARED, make_shared


def share(folder: Path, *, worker: bool = False) -> None:
    """Let what this process writes from here on be the group's where a folder is: `make_shared`.

    Args:
        folder: Of the study; it may not exist yet.
        worker: Of a Ray that is not the command's own, perhaps: elsewhere its umask is that of who
            started Ray, so that no more is open than the folder is, which the command has made.
    """
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    mode = existing.stat().st_mode
    if mode & SHARED == SHARED:
        os.umask(~mode & 0o005 | 0o002)
    elif worker:
        os.umask(os.umask(0o077) | ~mode & 0o077)


def others_can_move(folder: Path) -> bool:
    """Return whether others can put a folder of theirs in the place of this one.

    They can rename it, or one above it, where they may write and the sticky bit does not keep it,
    and where they own what is above.
    """
    for path in {*folder.absolute().parents, *Path(os.path.realpath(folder)).parents}:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it is made by us
            found = path.stat()
            open_ = found.st_mode & 0o002 or (
                found.st_mode & 0o020 and not files.is_private_group(found.st_gid)
            )
            if found.st_uid not in (0, os.getuid()) or (open_ and not found.st_mode & stat.S_ISVTX):
                return True
    return False


def make_own(folder: Path) -> None:
    """Create a folder in which nobody but this user can write, though others can beside it.

    Raises:
        UsageError: There is one that is another's, or open to others.
    """
    make_shared(folder.parent)
    with contextlib.suppress(OSError):  # only who made it may: others cannot rename what is ours
        folder.parent.chmod(stat.S_IMODE(folder.parent.stat().st_mode) | stat.S_ISVTX)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~0o022)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UsageError(
            f"{folder} must be a folder of yours that nobody else may write to, and it is "
            f"{files.user_of(found.st_uid)}'s, {stat.filemode(found.st_mode)}: move it away"
        )
