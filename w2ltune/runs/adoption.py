"""Snapshots of an earlier training of the same run directory, for one that goes on with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from w2ltune import files
from w2ltune.runs.snapshots import Snapshot, best_snapshot, read_snapshots, write_manifest


def earlier_folders(rundir: Path, own: Path) -> list[Path]:
    """Return where other trainings of a run directory keep their snapshots.

    A single training's lie in ``<rundir>/trials``, those of a sweep's trial beside its ``run``.
    """
    folders = [*sorted(rundir.glob("trials/*/snapshots")), rundir.parent / "snapshots"]
    return [folder for folder in folders if folder.is_dir() and not _same(folder, own)]


def adopt(rundir: Path, own: Path, *, value: Callable[[int], float | None]) -> tuple[Snapshot, ...]:
    """Take over the newest and the best snapshot of earlier trainings, if there is none of ours.

    Args:
        rundir: The run directory.
        own: Where this training keeps its snapshots.
        value: What the study minimises, by the number of updates.

    Returns:
        Those that were taken over.
    """
    if read_snapshots(own):
        return ()
    known = [
        replace(snapshot, value=value(snapshot.updates))
        for folder in earlier_folders(rundir, own)
        for snapshot in read_snapshots(folder)
    ]
    if not known:
        return ()
    newest = max(known, key=lambda snapshot: snapshot.updates)
    wanted = {snapshot.path: snapshot for snapshot in (newest, best_snapshot(known)) if snapshot}
    return tuple(_take(snapshot, own) for snapshot in wanted.values())


def _take(snapshot: Snapshot, own: Path) -> Snapshot:
    """Link a snapshot, which is never written to again, or copy it; its manifest comes last."""
    path = own / snapshot.path.name
    temporary = files.temporary(path)
    try:
        os.link(snapshot.path, temporary)
    except OSError:  # another file system, or one without links
        shutil.copyfile(snapshot.path, temporary)
    files.rename(temporary, path)
    taken = replace(snapshot, path=path)
    write_manifest(taken)
    return taken


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)
