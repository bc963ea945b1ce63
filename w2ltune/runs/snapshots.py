"""Copies of a training's checkpoints, kept because the program overwrites its own in place.

::

    trials/0007/snapshots/
      00000120.bin     the checkpoint after 120 updates, byte for byte
      00000120.json    its manifest, written last: only a manifest makes a snapshot good
      00000100.bad     one that the program could not load, or whose bytes have changed

The program opens its checkpoint with ``O_TRUNC`` and writes (flashlight v0.3.2, measured), so a
hard link would be cut with it. A copy shares the blocks where the file system can (XFS, Btrfs).
One process at a time takes and removes the snapshots of a trial.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.checkpoint import read_header, read_whole

FORMAT = 2

_FICLONE = 0x40049409
"""The ioctl of Linux by which a file shares the blocks of another."""

_CHUNK_BYTES = 4 << 20

_RETRY_GAP_SECONDS = 20.0
"""On a full disk flashlight v0.3.2 closes the part that it wrote and waits up to 16 s to retry."""


class _ChangedError(Exception):
    """The checkpoint was written while it was copied, or is another attempt's now."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A good copy of a checkpoint.

    Attributes:
        path: The copy.
        epoch: Epochs done, as its head says.
        updates: Updates done.
        size_bytes: Size of the file.
        payload_bytes: The same without the head, whose strings differ in length.
        digest: BLAKE2b of the file, hexadecimal.
        value: What the study minimises, at this checkpoint; None when unknown or not finite.
        rates: Word error rates of all valid sets there, by the log's name.
    """

    path: Path
    epoch: int
    updates: int
    size_bytes: int
    payload_bytes: int
    digest: str
    value: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)


def read_snapshots(folder: Path) -> list[Snapshot]:
    """Return the good snapshots of a folder, newest (most updates) first.

    A manifest that is damaged, or whose file is missing or of another size, counts for nothing.

    Raises:
        InputError: A manifest was written by a newer version, so that its snapshot would be lost.
    """
    found = map(_read_manifest, folder.glob("[0-9]*.json"))
    return sorted(filter(None, found), key=lambda snapshot: snapshot.updates, reverse=True)


def best_snapshot(snapshots: Sequence[Snapshot]) -> Snapshot | None:
    """Return the one of lowest value, the earliest of equals; None when no value is known."""
    known = [(one.value, one.updates, one) for one in snapshots if one.value is not None]
    return min(known, key=lambda entry: entry[:2])[2] if known else None


def best_of_each(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Return the best one and the lowest of each valid set, as the program keeps models too."""
    found = [best] if (best := best_snapshot(snapshots)) else []
    for name in {name for snapshot in snapshots for name in snapshot.rates}:
        having = [snapshot for snapshot in snapshots if name in snapshot.rates]
        found.append(min(having, key=lambda snapshot: (snapshot.rates[name], snapshot.updates)))
    return found


def verify(snapshot: Snapshot) -> bool:
    """Return whether the file still has the bytes that were copied; reads all of it."""
    with contextlib.suppress(OSError):
        return digest_of(snapshot.path) == snapshot.digest
    return False


def take_snapshot(
    source: Path,
    folder: Path,
    *,
    value: Callable[[int], float | None],
    rates: Callable[[int], Mapping[str, float]] = lambda updates: {},
    is_busy: Callable[[], bool],
    is_ours: Callable[[], bool],
) -> Snapshot | None:
    """Copy a checkpoint, if it is complete and stays as it is while it is copied.

    A good snapshot of the same updates is kept and returned.

    Args:
        source: The program's checkpoint.
        folder: The trial's snapshots; made when missing.
        value: What the study minimises, by the number of updates (the program writes the log line
            before the checkpoint); lower is better.
        rates: The word error rates of all valid sets, likewise.
        is_busy: Whether a process has the checkpoint open for writing.
        is_ours: Whether this is still the trial's newest attempt.

    Returns:
        The snapshot; None when the checkpoint is not there yet, is being written, or looks cut
        short (try again later), and when ``is_ours`` says no.

    Raises:
        OSError: There is no room, or the disk fails; nothing is left of the new copy.
    """
    snapshots = read_snapshots(folder)
    try:
        before = _state(source)
        if is_busy():
            return None
        header = read_header(source)
        known = value(header.updates)
        snapshot = Snapshot(
            path=folder / f"{header.updates:08d}.bin",
            epoch=header.epoch,
            updates=header.updates,
            size_bytes=before[0],
            payload_bytes=before[0] - header.header_bytes,
            digest="",
            value=known if known is not None and math.isfinite(known) else None,
            rates={n: r for n, r in rates(header.updates).items() if math.isfinite(r)},
        )
        for other in snapshots:
            if (other.updates, other.payload_bytes) == (snapshot.updates, snapshot.payload_bytes):
                return other
        if _looks_cut(source, snapshot.payload_bytes, snapshots):
            return None
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(snapshot.path, binary=True) as copy:
            snapshot = replace(snapshot, digest=copy_file(source, copy))
            # Who writes is asked first: what was written up to then shows in the state after.
            if is_busy() or _state(source) != before or not is_ours():
                raise _ChangedError
            copy.flush()
            read_whole(copy.name)
            snapshot.path.with_suffix(".json").unlink(missing_ok=True)  # of a bad file of this name
    except (InputError, FileNotFoundError, _ChangedError):
        return None
    write_manifest(snapshot)
    return snapshot


def write_manifest(snapshot: Snapshot) -> None:
    """Make a copy good: from here on it is listed."""
    content = asdict(snapshot) | {"path": snapshot.path.name, "format": FORMAT}
    files.write_json(snapshot.path.with_suffix(".json"), content)


def discard(snapshot: Snapshot) -> Path:
    """Take a snapshot out of the good ones; its bytes are kept, as ``.bad``, and its path given."""
    bad = snapshot.path.with_suffix(".bad")
    files.require_ours(bad)
    snapshot.path.with_suffix(".json").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        snapshot.path.replace(bad)
    return bad


def prune(folder: Path, *, keep: int, protect: Collection[int] = ()) -> None:
    """Remove all but the newest snapshots and the best ones, and what dead takers left.

    Args:
        folder: The trial's snapshots.
        keep: How many of the newest stay, at least 1.
        protect: Updates of snapshots that stay in any case.
    """
    files.require_ours(folder)
    snapshots = read_snapshots(folder)
    best = best_of_each(snapshots)
    for snapshot in snapshots[max(keep, 1) :]:
        if snapshot not in best and snapshot.updates not in protect:
            remove(snapshot)
    good = {snapshot.path for snapshot in read_snapshots(folder)}
    for path in (*folder.glob(f".*{files.TEMPORARY_MARK}*"), *folder.glob("[0-9]*.bin")):
        if path not in good:
            path.unlink(missing_ok=True)


def copy_file(source: Path, copy: IO[bytes]) -> str:
    """Copy a file into an open, empty one, sharing blocks if that can be; return the digest."""
    with source.open("rb") as file:
        try:
            fcntl.ioctl(copy.fileno(), _FICLONE, file.fileno())
        except OSError:  # another file system, or one that cannot
            return digest_of(source, copy=copy)
    return digest_of(Path(copy.name))


def digest_of(path: Path, *, copy: IO[bytes] | None = None) -> str:
    """Return the BLAKE2b of a file, hexadecimal; what is read is written to ``copy`` too."""
    digest = hashlib.blake2b(digest_size=32)
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            digest.update(chunk[:count])
            if copy is not None:
                copy.write(chunk[:count])
    return digest.hexdigest()


def _state(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


def _looks_cut(source: Path, payload_bytes: int, snapshots: Sequence[Snapshot]) -> bool:
    """Whether others are longer, none is as long, and the program may be about to try again."""
    if not payload_bytes:
        return True
    others = {snapshot.payload_bytes for snapshot in snapshots}
    index = source.name.partition("_model_")[0]
    for sibling in source.parent.glob(f"{index}_model_*.bin"):
        if sibling != source:
            with contextlib.suppress(InputError, OSError):
                others.add(sibling.stat().st_size - read_header(sibling).header_bytes)
    if payload_bytes in others or not any(other > payload_bytes for other in others):
        return False
    return time.time() - source.stat().st_mtime < _RETRY_GAP_SECONDS


def _read_manifest(manifest: Path) -> Snapshot | None:
    try:
        content = json.loads(manifest.read_bytes())
        if content.pop("format") > FORMAT:
            raise InputError("was written by a newer version of w2ltune: use that", path=manifest)
        snapshot = files.fitted(Snapshot, content | {"path": manifest.with_suffix(".bin")})
        return snapshot if snapshot.path.stat().st_size == snapshot.size_bytes else None
    except (FileNotFoundError, *files.DAMAGE):
        return None


def remove(snapshot: Snapshot) -> None:
    """Remove a snapshot, its manifest first."""
    files.require_ours(snapshot.path)
    snapshot.path.with_suffix(".json").unlink(missing_ok=True)
    snapshot.path.unlink(missing_ok=True)
