"""Write files so that a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from w2ltune.errors import InputError, UsageError

TEMPORARY_MARK = ".tmp-"


@contextlib.contextmanager
def replacing(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary file that takes the name ``path`` when the block ends well.

    The data is on the disk before the rename, so that a power cut leaves the old file or the
    new one. The temporary file lies in the same folder and is removed when the block fails.

    Args:
        path: The name to replace.
        binary: Open for bytes instead of UTF-8 text.

    Yields:
        The open temporary file.

    Raises:
        OSError: As raised by the file system; ``path`` is untouched then.
    """
    temporary = _temporary(path)
    try:
        mode, encoding = ("wb", None) if binary else ("w", "utf-8")
        with temporary.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def refuse_to_replace(path: Path, *inputs: Path | None) -> None:
    """Refuse a file to be written that is one of the inputs, of which there may be no other copy.

    Raises:
        UsageError: It is; the file is untouched.
    """
    if any(given is not None and path.resolve() == given.resolve() for given in inputs):
        raise UsageError(f"{path} would be replaced, which is an input: choose another --out")


def refuse_unwritable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    A temporary file is made and removed in the folder, or in the nearest one above it that exists;
    asking for permissions would not tell of all file systems.

    Raises:
        UsageError: It is a folder, a file stands where a folder is needed, or the place cannot be
            written to.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not a file: choose another --out")
        folder = next(parent for parent in path.parents if _is_there(parent))
        if not folder.is_dir():
            raise UsageError(f"{path}: {folder} is not a folder: choose another --out")
        probe = _temporary(folder / path.name)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}): choose another --out"
        ) from None


def _is_there(path: Path) -> bool:
    """Whether there is something of this name, be it a link to nothing.

    Raises:
        OSError: That cannot be told, as where a name is too long.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _temporary(path: Path) -> Path:
    """Return a new name beside a file."""
    return path.with_name(f".{path.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}")


def write_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` by ``text`` in one step."""
    with replacing(path) as file:
        file.write(text)


def write_json(path: Path, value: object) -> None:
    """Replace the content of ``path`` by ``value`` as JSON in one step."""
    write_text(path, as_json(value))


def as_json(value: object) -> str:
    """Return the content of a JSON file."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``, or None when there is no such file.

    Raises:
        InputError: The file was damaged: w2ltune never leaves a part of a file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(f"damaged, restore or remove it: {error}", path=path) from None


def create_exclusively(path: Path, text: str) -> bool:
    """Create ``path`` with its whole content, unless it exists.

    The content is written to a temporary file and hard-linked to its name, which only one of
    several processes can do, on NFS too, and no reader ever sees a part of it.

    Returns:
        True if this call created it.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            # NFS may answer so to the repetition of our own call that had gone well.
            return temporary.stat().st_nlink == 2
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
