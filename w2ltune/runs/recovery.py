"""From which checkpoint a training goes on, and its run directory made ready for that.

``fl_asr_train continue <rundir>`` looks for ``001_model_last.bin``, ``002_model_last.bin``, … up to
the first that is not there, loads the last one found and writes under the next number. It writes
in place, so whatever dies may leave that file cut short, and flashlight tries for 31 s to load it
and aborts (v0.3.2, measured). Here the last one found is made the newest checkpoint known to be
whole, before the program is started. Nothing is deleted: what cannot be used goes to
``<rundir>/torn/``. One process does this, with no program at work; killed between any two steps,
it is simply done again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.checkpoint import read_header, read_whole
from w2ltune.runs.snapshots import Snapshot, copy_file, digest_of, discard, read_snapshots, verify

TORN_FOLDER = "torn"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How a training goes on.

    Attributes:
        mode: "continue", or "anew" when there is no checkpoint to go on from.
        index: Run index of the checkpoint that ``continue`` will load; 0 for anew.
        epoch: Epochs done there.
        updates: Updates done there.
        unsaved: That checkpoint, if it is whole and no snapshot is as new: take one first.
        notes: What a person should know of what was found and done, a line each.
    """

    mode: Literal["continue", "anew"]
    index: int = 0
    epoch: int = 0
    updates: int = 0
    unsaved: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Checkpoint:
    """A ``NNN_model_last.bin``; a payload of 0 bytes stands for one that is seen to be cut."""

    path: Path
    index: int
    epoch: int = 0
    updates: int = 0
    payload_bytes: int = 0


class _RottenError(Exception):
    """A snapshot's bytes are not those that were copied."""


def recover(rundir: Path, snapshots_folder: Path, *, trust_live: bool = False) -> Recovery:
    """Make the newest whole checkpoint of a training the one that ``continue`` loads.

    The program's own checkpoint is used where no snapshot is newer and it is known to be whole:
    its payload is as long as that of a snapshot, of another index's checkpoint, or of another
    model of its index that was written after it. Else the newest snapshot takes its place.

    Args:
        rundir: The run directory of the program.
        snapshots_folder: The trial's snapshots.
        trust_live: Use the program's own checkpoint whenever its head can be read: for a run
            directory that w2ltune did not make, where nothing may tell whether it is whole.

    Returns:
        The mode to start the program in, and where it will stand.

    Raises:
        OSError: There is no room for the copy, or the disk fails; nothing is lost.
    """
    files.require_ours(rundir)
    for leftover in rundir.glob(f".[0-9]*_model_last.bin{files.TEMPORARY_MARK}*"):
        leftover.unlink(missing_ok=True)
    notes: list[str] = []
    while True:  # each round but the last restores, discards or sets aside a file
        found = _scan(rundir)
        snapshots = read_snapshots(snapshots_folder)
        saved_updates = snapshots[0].updates if snapshots else -1
        whole = _whole_payloads(found, snapshots)
        trusted = [one for one in found if one.payload_bytes and trust_live]
        usable = [one for one in found if one.payload_bytes in whole or one in trusted]
        live = found[-1] if found else None
        if live is not None and live in usable and live.updates >= saved_updates:
            is_proven = live.payload_bytes in whole
            return Recovery(
                mode="continue",
                index=live.index,
                epoch=live.epoch,
                updates=live.updates,
                unsaved=live.path if is_proven and live.updates > saved_updates else None,
                notes=(*notes, *_notes_on(live, is_proven)),
            )
        if live is not None and any(one.updates > saved_updates for one in usable):
            notes += _abandon(rundir, live.index)
        elif snapshots:
            is_cut = live is not None and live not in usable
            notes.append(_restore(snapshots[0], _last(rundir, len(found) + (not is_cut))))
        else:
            return Recovery(mode="anew", notes=(*notes, *_abandon_all(rundir)))


def set_aside_failed(rundir: Path, index: int, snapshots_folder: Path, updates: int) -> str:
    """Take out of use a checkpoint that the program could not load ("Error while loading").

    The snapshot of as many updates goes with it, if it has the same bytes or is damaged itself;
    one that differs from what failed is left for `recover` to try.

    Args:
        rundir: The run directory.
        index: Run index of the checkpoint.
        snapshots_folder: The trial's snapshots.
        updates: Updates done there.

    Returns:
        What was done, in a line.
    """
    failed = _last(rundir, index)
    failed_digest = digest_of(failed) if failed.exists() else ""
    done = []
    for snapshot in read_snapshots(snapshots_folder):
        suspect = snapshot.updates == updates
        if suspect and (snapshot.digest == failed_digest or not verify(snapshot)):
            done.append(f"its snapshot is now {discard(snapshot).name}")
    if failed.exists():
        done.append(f"it is now {_set_aside(failed)}")
    return (
        f"{failed.name} ({updates} updates) could not be loaded: {', '.join(done) or 'it is gone'}"
    )


def _last(rundir: Path, index: int) -> Path:
    return rundir / f"{index:03d}_model_last.bin"


def _scan(rundir: Path) -> list[_Checkpoint]:
    """Look for checkpoints as the program does: up to the first that cannot be read."""
    found: list[_Checkpoint] = []
    while os.access(path := _last(rundir, len(found) + 1), os.R_OK):
        checkpoint = _Checkpoint(path=path, index=len(found) + 1)
        with contextlib.suppress(InputError):
            header = read_whole(path)
            checkpoint = replace(
                checkpoint,
                epoch=header.epoch,
                updates=header.updates,
                payload_bytes=path.stat().st_size - header.header_bytes,
            )
        found.append(checkpoint)
    return found


def _whole_payloads(found: Sequence[_Checkpoint], snapshots: Sequence[Snapshot]) -> set[int]:
    """Sizes of payloads that are known to be whole."""
    payloads = [one.payload_bytes for one in found]
    whole = {snapshot.payload_bytes for snapshot in snapshots}
    whole |= {payload for payload in payloads if payloads.count(payload) > 1}
    whole.discard(0)
    others = [one for one in found if one.payload_bytes not in whole and one.payload_bytes]
    return whole | {one.payload_bytes for one in others if one.payload_bytes in _written_after(one)}


def _written_after(checkpoint: _Checkpoint) -> set[int]:
    """Payload sizes of the index's other models, but those that may be of an earlier program."""
    written = checkpoint.path.stat().st_mtime_ns
    payloads = set()
    for path in checkpoint.path.parent.glob(f"{checkpoint.index:03d}_model_*.bin"):
        with contextlib.suppress(InputError):
            if path != checkpoint.path and path.stat().st_mtime_ns >= written:
                payloads.add(path.stat().st_size - read_header(path).header_bytes)
    return payloads


def _restore(snapshot: Snapshot, target: Path) -> str:
    """Put a snapshot where the program looks; one that is cut or has changed is taken out."""
    name = f"the snapshot of {snapshot.updates} updates"
    try:
        read_whole(snapshot.path)
    except InputError:
        return f"{name} is cut short: it is not used, and is now {discard(snapshot)}"
    note = f"{target.name}: restored from {name}"
    try:
        with files.replacing(target, binary=True) as copy:
            if copy_file(snapshot.path, copy) != snapshot.digest:
                raise _RottenError
            if target.exists():
                note += f"; what lay there was not whole: it is now {_set_aside(target)}"
    except _RottenError:
        return f"{name} has changed on the disk: it is not used, and is now {discard(snapshot)}"
    return note


def _abandon(rundir: Path, index: int) -> list[str]:
    """Set aside all files of a run index: they would be overwritten or belong to lost training.

    The checkpoint goes last, so that the rest is found again if this is cut short.
    """
    last = _last(rundir, index)
    own = [path for path in rundir.glob("[0-9]*") if index_of(path) == index]
    own.sort(key=lambda path: (path == last, "_model_" in path.name, path.name))
    models = [moved.name for moved in map(_set_aside, own) if "_model_" in moved.name]
    return [f"not known to be whole, moved to {rundir / TORN_FOLDER}: {name}" for name in models]


def _abandon_all(rundir: Path) -> list[str]:
    """Set aside the files of all run indices, if there is a model among them."""
    if not any(map(index_of, rundir.glob("[0-9]*_model_*.bin"))):
        return []
    indices = {index_of(path) for path in rundir.glob("[0-9]*")} - {0}
    return [note for index in sorted(indices) for note in _abandon(rundir, index)]


def index_of(path: Path) -> int:
    """The run index in a file's name; 0 when there is none."""
    match = re.match(r"(\d{3,})_", path.name, re.ASCII)
    return int(match[1]) if match else 0


def _set_aside(path: Path) -> Path:
    """Move a file to ``torn/``, under a name that is free there; return that."""
    files.require_ours(path)
    folder = path.parent / TORN_FOLDER
    folder.mkdir(exist_ok=True)
    numbered = (f"{path.name}.{number}" for number in itertools.count(2))
    names = itertools.chain([path.name], numbered)
    return path.rename(next(folder / name for name in names if not (folder / name).exists()))


def _notes_on(live: _Checkpoint, is_proven: bool) -> list[str]:
    """What a person should know of the checkpoint that is used."""
    notes = []
    if not is_proven:
        notes.append(f"{live.path.name}: nothing tells whether it is whole; used on trust")
    rundir = live.path.parent
    models = sorted(rundir.glob("[0-9]*_model_last.bin"))
    behind = [path.name for path in models if index_of(path) > live.index]
    if behind:
        gap = _last(rundir, live.index + 1).name
        notes.append(f"{', '.join(behind)}: not seen by the program, as {gap} is missing")
    return notes
