"""The run directory of a training: shared by a group, and guarded against what would harm it.

Everything of the training lies in it, and every user of its group may go on with it::

    name_lr0.1/
      config_source.json      the config that the folder was made for
      001_model_last.bin ...  what the program writes
      logs/<user>.log
      scripts/<user>-0003.sh  the command of the third attempt, to run by hand
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import itertools
import json
import os
import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from w2ltune import files
from w2ltune.errors import (
    InputError,
    StudyMismatchError,
    UsageError,
    nearest_sibling,
    storage_fault,
)
from w2ltune.formats.checkpoint import read_whole
from w2ltune.formats.known_flags import Generation
from w2ltune.runs.provenance import read_request
from w2ltune.runs.runname import plain_name

FORMAT = 1
CONFIG_SOURCE = "config_source.json"
SHARED = stat.S_ISGID | stat.S_IWGRP
"""How a folder is prepared for a group: what is made inside is the group's, and it may write."""


def make_shared(folder: Path) -> None:
    """Create a folder and its missing parents, open to whom the folder above them is open.

    In a folder that was prepared for a group (``chmod g+ws``) they are the group's whatever the
    umask is; elsewhere they are open as the folder above is, and no more than the umask allows.
    What exists is left as it is; where nothing can be written into it, it is refused.

    Raises:
        UsageError: A file is in the way, or this user may not write there.
    """
    try:
        above = (folder, *folder.parents)
        existing = next(path for path in above if os.path.lexists(path))
        if not existing.is_dir():
            raise UsageError(
                f"cannot create the folder {folder}: {existing} is a file; move it away, or choose "
                "another place"
            )
        mode = existing.stat().st_mode
        for path in reversed(above[: above.index(existing)]):
            shared = mode & SHARED == SHARED
            try:
                path.mkdir(0o777 if shared else mode & 0o777 | 0o700)
            except FileExistsError:  # someone was faster
                continue
            if shared:
                with contextlib.suppress(OSError):  # a file system without modes
                    path.chmod(0o2770 | mode & 0o005)
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))
    except OSError as error:
        if storage_fault(error) and (error.errno != errno.EROFS or existing == folder):
            raise
        raise UsageError(
            f"cannot create the folder {error.filename or folder}: {error.strerror}; "
            "choose another place, or have the folder above it opened to the group"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write into the folder {folder}: it is read-only for this user; "
            "choose another place, or have it opened to the group"
        )


def user_name() -> str:
    """Return this user's name, fit for a file's name; the number where there is no name."""
    try:
        return plain_name(getpass.getuser()) or str(os.getuid())
    except (KeyError, OSError):  # a container may run under a number
        return str(os.getuid())


def log_path(folder: Path, user: str) -> Path:
    """Return where the log of a user's commands goes in a run directory."""
    return folder / "logs" / f"{plain_name(user)}.log"


def write_script(
    folder: Path,
    user: str,
    attempt: int,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    directory: Path | None = None,
) -> Path:
    """Write down a command as a script, so that what was run can be run by hand.

    Args:
        folder: The run directory.
        user: Who started it.
        attempt: The number of the start.
        arguments: The command, the program first.
        environment: Variables that were set for it, beside those of the user.
        directory: Where it ran; by default the current directory.

    Returns:
        ``<folder>/scripts/<user>-0003.sh``, executable for the group.
    """
    lines = [
        "#!/bin/bash",
        f"# Attempt {attempt}, started by {user}: the same command, to run by hand.",
        f"cd {shlex.quote(str(directory or Path.cwd()))} || exit",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        "exec " + " \\\n  ".join(map(shlex.quote, arguments)),
    ]
    path = folder / "scripts" / f"{plain_name(user)}-{attempt:04d}.sh"
    make_shared(path.parent)
    files.write_script(path, "\n".join(lines) + "\n")
    return path


def claim(rundir: Path, config: Path) -> None:
    """Note for which config a run directory is, or hold this one against the note.

    Two projects whose folders have the same name would else share run directories.

    Args:
        rundir: The run directory; it exists.
        config: The config that is to be trained there.

    Raises:
        StudyMismatchError: The run directory is another config's.
    """
    note = json.dumps({"config": _known_path(config), "format": FORMAT}, indent=1) + "\n"
    path = rundir / CONFIG_SOURCE
    if path.exists() or not files.create_exclusively(path, note):
        refuse_another_config(rundir, config)


def refuse_another_config(rundir: Path, config: Path) -> None:
    """Refuse a run directory that is claimed for another config; nothing is written.

    Raises:
        StudyMismatchError: Both configs are named.
        InputError: The note cannot be read.
    """
    path, own = rundir / CONFIG_SOURCE, _known_path(config)
    if not path.exists():
        return
    content = files.read_json(path)
    other = content.get("config") if isinstance(content, dict) else None
    if not isinstance(other, str):
        raise InputError("names no config; remove it if the run directory is yours", path=path)
    with files.shaped(path):
        same = own == other or os.path.realpath(own) == os.path.realpath(other)
    if not same:
        raise StudyMismatchError(
            f"{rundir} was made for {other}, not for {own}: choose another folder with "
            f"--project=NAME, or, if that config was moved, remove {path}"
        )


def _known_path(config: Path) -> str:
    return os.path.abspath(config)  # noqa: PTH100 (resolve() would forget the name that a user knows)


def refuse_overwriting(rundir: Path) -> None:
    """Refuse to begin a training where one has left models: the program would replace them.

    Raises:
        UsageError: There are models; the newest is named.
    """
    models = sorted(rundir.glob("[0-9][0-9][0-9]_model_*.bin"))
    if models:
        last = [path for path in models if path.name.endswith("_model_last.bin")]
        raise UsageError(
            f"{rundir} holds a training already ({(last or models)[-1].name}): go on with it by "
            f"--mode=continue --model_path={rundir}, or give --extra for a new one"
        )


def has_checkpoints(rundir: Path) -> bool:
    """Return whether there is a checkpoint or a snapshot to go on from."""
    return any(rundir.glob("[0-9][0-9][0-9]_model_last.bin")) or any(
        rundir.glob("trials/*/snapshots/*.bin")
    )


def require_checkpoint(rundir: Path) -> None:
    """Refuse to continue from nothing.

    Raises:
        UsageError: There is no such folder, it is a sweep's, or there is neither a model nor a
            snapshot in it.
        InputError: There are models, and none can be read.
    """
    if not rundir.is_dir() and (rundir.is_file() or rundir.suffix == ".bin"):
        raise UsageError(
            f"--model_path={rundir} names a file: --mode=continue takes its folder, "
            f"--model_path={rundir.parent}; to start anew from this model use --mode=fork"
        )
    if not rundir.is_dir():
        raise UsageError(
            f"--model_path={rundir}: no such run directory to continue{nearest_sibling(rundir)}"
        )
    request = read_request(rundir / "sweep.json")
    if request is not None and (request.space or request.task != "train"):
        raise UsageError(
            f"--model_path={rundir} is a sweep, not a training: name the run directory of one of "
            f"its trainings, as --model_path={rundir / 'trials' / '0000' / 'run'}"
        )
    trial = rundir.absolute().parent
    if rundir.name == "run" and (trial / "flags.cfg").exists():
        if not (trial / "result.json").exists():
            raise UsageError(
                f"--model_path={rundir}: trial {trial.name} is not finished, its sweep goes on "
                "with it; wait for its end"
            )
        if any((trial / "snapshots").glob("*.bin")):
            return
    # A start that was killed between setting a torn model aside and restoring it left snapshots.
    if any(rundir.glob("trials/*/snapshots/*.bin")):
        return
    if _has_readable_model(rundir):
        return
    inside = sorted(path.parent.name for path in rundir.glob("*/001_model_last.bin"))
    inside = inside or [path.name for path in sorted(rundir.glob("[0-9]*_model_*.bin"))]
    others = f" (there is one in {', '.join(inside[:6])})" if inside else ""
    raise UsageError(
        f"--model_path={rundir}: nothing to continue, no 001_model_last.bin in it{others}; "
        "name the run directory itself, or begin with --mode=train"
    )


def _has_readable_model(rundir: Path) -> bool:
    """Look for a checkpoint as the program does: from 001 up to the first that is missing."""
    problem: InputError | None = None
    for number in itertools.count(1):
        model = rundir / f"{number:03d}_model_last.bin"
        if not model.exists():
            break
        try:
            read_whole(model)
        except InputError as error:
            problem = error
        else:
            return True
    if problem is not None:
        raise InputError(f"--model_path={rundir}: nothing to continue: {problem}")
    return False


def require_model(path: Path, *, generation: Generation = "flashlight") -> None:
    """Refuse to fork from what is no model; the program would try for half a minute.

    Args:
        path: What the user gave.
        generation: Of the program; the head of wav2letter's models is not looked at.

    Raises:
        UsageError: It is missing or a folder.
        InputError: The file is no model, or it is cut.
    """
    if path.is_dir():
        models = [model.name for model in sorted(path.glob("*.bin"))]
        found = f"give one of {', '.join(models[:6])}" if models else "there is no .bin file in it"
        raise UsageError(f"--model_path={path} is a folder, --mode=fork takes a model: {found}")
    if not path.exists():
        raise UsageError(f"--model_path={path}: no such model to fork{nearest_sibling(path)}")
    if path.stat().st_size == 0:
        raise InputError("the model is empty; take an earlier checkpoint", path=path)
    if generation == "flashlight":
        read_whole(path, resumed=False)
