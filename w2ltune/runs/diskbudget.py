"""Room on the disk for a snapshot: what may go, and when none may be taken."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from w2ltune.runs.snapshots import Snapshot, best_snapshot, read_snapshots, remove

_FREE_RESERVE_BYTES = 64 << 20


def make_room(trials: Path, own: Path, *, needed_bytes: int, budget_bytes: int | None) -> str:
    """See that another snapshot fits, removing old ones if need be, the oldest first.

    What may go are the snapshots of finished trials but the best of each (the newest, where no
    value is known), and those of ``own`` but its best and its newest. Nothing is removed when even
    that would not do.

    Args:
        trials: The study's ``trials`` folder.
        own: The snapshots of the trial that needs the room.
        needed_bytes: Size of the snapshot to come.
        budget_bytes: What all snapshots of the study may take together; None: only the disk counts.

    Returns:
        "", or why there is no room and what to do: then do not begin to copy.
    """
    own.mkdir(parents=True, exist_ok=True)
    taken = sum(_stat(path)[0] for path in trials.glob("*/snapshots/*.bin"))
    free = shutil.disk_usage(own).free - _FREE_RESERVE_BYTES
    over_budget = 0 if budget_bytes is None else taken + needed_bytes - budget_bytes
    missing = max(over_budget, needed_bytes - free)
    expendable = _expendable(trials, own) if missing > 0 else []
    if missing <= sum(snapshot.size_bytes for snapshot in expendable):
        for snapshot in expendable:
            if missing > 0:
                remove(snapshot)
                missing -= snapshot.size_bytes
        return ""
    why = f"{_human(max(free, 0))} free (a reserve aside) on the disk of {own}; make room there"
    if budget_bytes is not None and over_budget == missing:
        why = f"all snapshots take {_human(taken)} of {_human(budget_bytes)} allowed; allow more"
    return f"no room for a snapshot of {_human(needed_bytes)}: {why}"


def _expendable(trials: Path, own: Path) -> list[Snapshot]:
    """The snapshots that may be removed, oldest first."""
    finished = {result.parent / "snapshots" for result in trials.glob("*/result.json")}
    found = []
    for folder in finished | {own}:
        snapshots = read_snapshots(folder)
        kept = {best_snapshot(snapshots) or next(iter(snapshots), None)}
        if folder == own:
            kept.update(snapshots[:1])
        found += [snapshot for snapshot in snapshots if snapshot not in kept]
    return sorted(found, key=lambda snapshot: (_stat(snapshot.path)[1], snapshot.updates))


def _stat(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros when another trial removed it just now."""
    with contextlib.suppress(OSError):
        return (path.stat().st_size, path.stat().st_mtime_ns)
    return 0, 0


def _human(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >> 27 else f"{size_bytes / 2**20:.1f} MiB"
