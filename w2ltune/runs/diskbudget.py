"""Room on the disk for a training: what it takes, what may go, when no snapshot may be taken."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.checkpoint import read_header
from w2ltune.runs.recovery import TORN_FOLDER, index_of
from w2ltune.runs.snapshots import Snapshot, best_of_each, digest_of, read_snapshots, remove, verify

_FREE_RESERVE_BYTES = 64 << 20
_RESERVE_PART = 20
"""The reserve is that part of a small disk."""


def used_bytes(*folders: Path) -> int:
    """Return what all files in some folders and below take, each counted once."""
    sizes = {}
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):  # another trial removed it just now
                    found = Path(place, name).lstat()
                    sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())


def disk_note(
    folder: Path, *, models: int, budget_bytes: int | None, forked: Sequence[Path] = ()
) -> str:
    """Say what is taken and free, and what a training will take at most.

    Args:
        folder: The study's.
        models: So many a training has at a time, its snapshots among them.
        budget_bytes: As in `make_room`.
        forked: A model that another one will be about as large as.
    """
    known = [*forked, *folder.glob("[0-9]*_model_last.bin")]
    known += folder.glob("trials/*/run/[0-9]*_model_last.bin")
    largest = max((_stat(path)[0] for path in known), default=0)
    allowed = "" if budget_bytes is None else f" of {human(budget_bytes)} allowed"
    free = human(shutil.disk_usage(folder).free)
    size = f" of {human(largest)}" if largest else ""
    return (
        f"disk: {human(used_bytes(folder))} taken{allowed}, {free} free; a training has up to "
        f"{models} models{size} at a time (--keep, --disk_budget_gib)"
    )


def make_room(trials: Path, own: Path, *, needed_bytes: int, budget_bytes: int | None) -> str:
    """See that another snapshot fits, removing old ones if need be, the oldest first.

    What may go are checkpoints that could not be used, where there is a snapshot; the snapshots of
    finished trials but the best ones of each (the newest, where no value is known), and those of
    ``own`` but its best ones and its newest. Nothing is removed when even that would not do.

    Args:
        trials: The study's ``trials`` folder.
        own: The snapshots of the trial that needs the room.
        needed_bytes: Size of the snapshot to come.
        budget_bytes: What the study's folder may take, with all models and logs; None: only the
            disk counts.

    Returns:
        "", or why there is no room and what to do: then do not begin to copy.
    """
    own.mkdir(parents=True, exist_ok=True)
    taken = 0 if budget_bytes is None else used_bytes(trials.parent)
    over_budget = 0 if budget_bytes is None else taken + needed_bytes - budget_bytes
    missing = max(over_budget, needed_bytes - _free_bytes(own))
    expendable = _expendable(trials, own) if missing > 0 else []
    if missing <= sum(_stat(_file(one))[0] for one in expendable):
        for one in expendable:
            if missing > 0:
                missing -= _stat(_file(one))[0]
                remove(one) if isinstance(one, Snapshot) else one.unlink(missing_ok=True)
        return ""
    if budget_bytes is not None and over_budget == missing:
        return (
            f"needs {human(needed_bytes)}, and {trials.parent} takes {human(taken)} of the "
            f"{human(budget_bytes)} allowed; allow more (--disk_budget_gib)"
        )
    return f"{os.strerror(errno.ENOSPC)}: {shortage(own, needed_bytes)}"


def shortage(folder: Path, needed_bytes: int) -> str:
    """Say what is needed and what is free on the disk of a folder."""
    free = human(max(_free_bytes(folder), 0))
    return (
        f"needs {human(needed_bytes)}, {free} free (a reserve aside) on the disk of {folder}; "
        "make room there"
    )


def _free_bytes(folder: Path) -> int:
    disk = shutil.disk_usage(folder)
    return disk.free - min(_FREE_RESERVE_BYTES, disk.total // _RESERVE_PART)


def drop_copied_models(
    rundir: Path, snapshots_folder: Path, *, newest: int, named: Collection[Path] = ()
) -> list[str]:
    """Remove the program's models of earlier launches that a snapshot holds byte for byte.

    ``continue`` looks for ``001_model_last.bin``, ``002_model_last.bin``, … up to the first that is
    not there: a line of text stays in its place.

    Args:
        rundir: The run directory.
        snapshots_folder: The trial's snapshots.
        newest: The run index whose models are left as they are, and those after it.
        named: Models that somebody refers to.

    Returns:
        The names of those that are gone.
    """
    snapshots = {snapshot.updates: snapshot for snapshot in read_snapshots(snapshots_folder)}
    kept = {path.resolve() for path in named}
    sound: dict[Path, bool] = {}
    gone = []
    for path, updates in program_models(rundir):
        snapshot = snapshots.get(updates)
        if snapshot is None or index_of(path) >= newest or path.resolve() in kept:
            continue
        state = path.lstat()
        # Of a file with a second name somebody wants to have more than the snapshot.
        if (state.st_size, state.st_nlink) != (snapshot.size_bytes, 1) or path.is_symlink():
            continue
        if snapshot.path not in sound:
            sound[snapshot.path] = verify(snapshot)
        if not sound[snapshot.path] or digest_of(path) != snapshot.digest:
            continue
        if path.name.endswith("_model_last.bin"):
            text = (
                f"w2ltune: the model of {updates} updates lay here. A later launch went on from "
                f"it, and {snapshots_folder} held the same bytes.\n"
            )
            try:
                files.write_text(path, text)
            except OSError:  # the disk is full: an empty file does as well
                files.write_text(path, "")
        else:
            path.unlink()
        gone.append(path.name)
    return sorted(gone)


def program_models(rundir: Path) -> list[tuple[Path, int]]:
    """Return the models that a program wrote of itself, newest launch first, and their updates.

    Those of ``--itersave`` are not among them: they are to be kept, all.
    """
    found = []
    for path in sorted(
        rundir.glob("[0-9]*_model_*.bin"), key=lambda path: (-index_of(path), path.name)
    ):
        with contextlib.suppress(InputError, OSError):
            if "_model_iter_" not in path.name:
                found.append((path, read_header(path).updates))
    return found


def _expendable(trials: Path, own: Path) -> list[Snapshot | Path]:
    """What may be removed: what could not be used, then snapshots, oldest first."""
    finished = {result.parent / "snapshots" for result in trials.glob("*/result.json")}
    found: list[Snapshot] = []
    unusable: list[Path] = []
    for folder in finished | {own}:
        snapshots = read_snapshots(folder)
        kept = best_of_each(snapshots) or snapshots[:1]
        if folder == own:
            kept += snapshots[:1]
        found += [snapshot for snapshot in snapshots if snapshot not in kept]
        if snapshots:
            unusable += [*folder.glob("*.bad"), *folder.parent.glob(f"run/{TORN_FOLDER}/*_model_*")]
            unusable += trials.parent.glob(f"{TORN_FOLDER}/*_model_*")  # of a single training
    found.sort(key=lambda snapshot: (_stat(snapshot.path)[1], snapshot.updates))
    return [*dict.fromkeys(unusable), *found]


def _file(one: Snapshot | Path) -> Path:
    return one.path if isinstance(one, Snapshot) else one


def _stat(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros when another trial removed it just now."""
    with contextlib.suppress(OSError):
        return (path.stat().st_size, path.stat().st_mtime_ns)
    return 0, 0


def human(size_bytes: int) -> str:
    """Return a size for people."""
    if size_bytes < 1 << 20:
        return f"{size_bytes / 2**10:.0f} KiB"
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >> 27 else f"{size_bytes / 2**20:.1f} MiB"
