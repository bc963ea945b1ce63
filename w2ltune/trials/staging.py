"""A language model is copied once to each node's own disk, where it lies on a file server.

KenLM maps a binary model and reads it at random: over a network each page is a round trip. On a
disk of the node the model is mapped where it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from pathlib import Path

from w2ltune.runs.provenance import fingerprint

_FILE_SERVERS = (
    *("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs", "panfs", "wekafs"),
    *("glusterfs", "fuse", "9p", "orangefs", "pvfs"),
)
"""How the names of file systems begin that are somewhere else."""

KENLM_BINARY = b"mmap lm http://kheafield.com/code"

MOUNTS = Path("/proc/self/mounts")

SPARE = 0.05
"""So much of a disk stays free."""


def stage(path: Path, scratch: Path, *, mode: str = "auto") -> Path:
    """Return where a language model is to be read on this node.

    All processes of a node share one copy; the first one makes it while the others wait.

    Args:
        path: The language model.
        scratch: This node's own folder; whoever made it removes it.
        mode: ``auto`` copies from file servers only, ``always`` and ``never`` as they say.

    Returns:
        The copy, checked against the original; the original where it is no KenLM binary, lies on
        this node already, or does not fit the disk.
    """
    if mode == "never" or not _is_binary(path) or (mode == "auto" and not is_remote(path)):
        return path
    stat = path.stat()
    name = f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}".encode("utf-8", "surrogateescape")
    copy = scratch / f"lm-{hashlib.sha256(name).hexdigest()[:16]}.bin"
    # A lock of the kernel's, on a disk of this node: it goes with whoever holds it.
    with contextlib.suppress(OSError), copy.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if copy.exists():
            return copy
        disk = shutil.disk_usage(scratch)
        if disk.free - stat.st_size < SPARE * disk.total:
            return path
        part = copy.with_suffix(".part")
        try:
            shutil.copyfile(path, part)
            if fingerprint(part).sha256 == fingerprint(path).sha256:
                part.replace(copy)
                return copy
        finally:
            part.unlink(missing_ok=True)
    return path


def is_remote(path: Path, *, mounts: Path = MOUNTS) -> bool:
    """Return whether a file lies on a file server."""
    real = os.path.realpath(path)
    best, kind = "", ""
    with contextlib.suppress(OSError), mounts.open("rb") as lines:
        for line in lines:
            _, place, type_, *_ = [os.fsdecode(_unescaped(field)) for field in line.split(b" ")]
            inside = real == place or real.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(best):
                best, kind = place, type_
    return kind.startswith(_FILE_SERVERS)


def _unescaped(field: bytes) -> bytes:
    """Undo the octal escapes of blanks, line ends, ``#`` and the backslash; names are bytes."""
    return re.sub(rb"\\([0-3][0-7]{2})", lambda escape: bytes([int(escape[1], 8)]), field)


def _is_binary(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(KENLM_BINARY)) == KENLM_BINARY
    return False
