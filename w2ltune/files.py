"""Write files so that a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import grp
import json
import lzma
import os
import pwd
import re
import secrets
import socket
import stat
import time
import types
import typing
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

from w2ltune.errors import InputError, UsageError

T = typing.TypeVar("T")

TEMPORARY_MARK = ".tmp-"
OLD_SECONDS = 3600.0
"""A temporary file of another host that was not written to for so long is nobody's."""

MOST_JSON_BYTES = 2**28

_HALF = re.compile(r"\\u[dD][89a-fA-F]")

DAMAGE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, RuntimeError),
    *(SyntaxError, TokenError, MemoryError, OverflowError, AssertionError, SystemError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What JSON, numpy, zipfile and Optuna raise over changed bytes."""

_fences: dict[Path, tuple[Callable[[], bool], Callable[[], object]]] = {}


def fence(folder: Path, is_ours: Callable[[], bool], leave: Callable[[], object]) -> None:
    """Ask whether a folder is still ours at the last moment before anything in it takes its name.

    A process may be stopped at any moment and wake when another one has taken its work over.

    Args:
        folder: With all below it, in this process, until `unfence`.
        is_ours: Asked each time.
        leave: Called where it is not; it must not return.
    """
    _fences[folder.absolute()] = is_ours, leave


def unfence(folder: Path, is_ours: Callable[[], bool]) -> None:
    """End what `fence` began with the same question."""
    if _fences.get(folder.absolute(), (None,))[0] == is_ours:
        del _fences[folder.absolute()]


def rename(made: Path, path: Path) -> None:
    """Let a temporary file take its name, which must be ours to write."""
    require_ours(path, made)
    made.replace(path)


def require_ours(path: Path, temporary: Path | None = None) -> None:
    """Leave what a fence says is no longer ours, before a file is moved, removed or replaced.

    Args:
        path: The file.
        temporary: Removed where it is not ours.

    Raises:
        InputError: Somebody else put a link on the way to it.
    """
    for folder, (is_ours, leave) in [*_fences.items()]:
        if path.absolute().is_relative_to(folder):
            if not is_ours():
                if temporary is not None:
                    temporary.unlink(missing_ok=True)
                leave()
            inside = path.absolute().relative_to(folder).parent
            for above in (folder / part for part in (inside, *inside.parents) if part.name):
                if above.is_symlink() and _is_foreign(above.lstat()):
                    raise _no_plain_file(above)


def open_plain(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open a file of a folder that others can write too: a link is not followed.

    As Python's ``opener``, or alone. A pipe or a device, which would wait for ever, is refused as
    well, and to write what is ours under a second name too: that may be any file of ours.

    Raises:
        InputError: It is no plain file; whose it is is said.
    """
    safe = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, safe, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # ENXIO: a pipe, a socket
            raise _no_plain_file(path) from None
        raise
    found = os.fstat(descriptor)
    linked = found.st_nlink > 1 and not _is_foreign(found) and flags & (os.O_WRONLY | os.O_RDWR)
    if not stat.S_ISREG(found.st_mode) or linked:
        os.close(descriptor)
        if linked:
            raise InputError(
                "has a second name, a hard link, which would be written too: put a copy in its "
                "place (cp FILE COPY && mv COPY FILE)", path=path,
            )  # fmt: skip
        raise _no_plain_file(path)
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return descriptor


_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


def _no_plain_file(path: str | os.PathLike[str]) -> InputError:
    found = os.lstat(path)
    what = _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
    if stat.S_ISLNK(found.st_mode):
        what = f"a link to {str(Path(path).readlink())!r}"
    owner = user_of(found.st_uid)
    return InputError(f"is {what} made by {owner}, not a file: remove it", path=path)


def _is_foreign(found: os.stat_result) -> bool:
    return found.st_uid not in (0, os.getuid())


def is_private_group(number: int) -> bool:
    """Return whether a group is this user's alone, which has the same name on many systems."""
    try:
        found, user = grp.getgrgid(number), user_of(os.getuid())
    except KeyError:
        return False
    return found.gr_name == user and set(found.gr_mem) <= {user}


def user_of(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def refuse_planted(
    study: Path, folder: str | os.PathLike[str] = "", *, to_read: bool = False
) -> None:
    """Refuse a study in which somebody put what no command may touch.

    That is a link of somebody else that leads out of it, and a pipe or device, at which whoever
    opens it waits for ever.

    Args:
        study: Its folder.
        folder: The part of it to look at.
        to_read: Nothing is to be written: links are left alone, which may be their owner's.

    Raises:
        InputError: The file is named, and who made it.
    """
    with (
        contextlib.suppress(PermissionError, FileNotFoundError),
        os.scandir(folder or study) as all_,
    ):
        for entry in all_:
            if entry.is_dir(follow_symlinks=False):
                refuse_planted(study, entry.path, to_read=to_read)
            elif entry.is_symlink():
                foreign = _is_foreign(entry.stat(follow_symlinks=False))
                outside = study.resolve() not in Path(entry.path).resolve().parents
                if foreign and outside and not to_read:
                    raise _no_plain_file(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                raise _no_plain_file(entry.path)


def write_script(path: Path, text: str) -> None:
    """Write a script that others may run, and only its user change."""
    with replacing(path, binary=True) as file:  # as bytes: a path may be any
        file.write(os.fsencode(text))
        mode = _keep_to_its_user(file)
        os.fchmod(file.fileno(), mode | mode >> 2 & 0o111)


def _keep_to_its_user(file: IO[Any]) -> int:
    mode = os.fstat(file.fileno()).st_mode & 0o644
    os.fchmod(file.fileno(), mode)
    return mode


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
    made = temporary(path)
    try:
        mode, encoding = ("xb", None) if binary else ("x", "utf-8")
        with _named(path):
            with made.open(mode, encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            rename(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.unlink()
        raise


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name a file in errors of what stands in for it until it takes the name."""
    try:
        yield
    except OSError as error:
        if error.filename is None or TEMPORARY_MARK in os.fsdecode(error.filename):
            error.filename = str(path)
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
        sweep_temporaries(path)
        probe = temporary(folder / path.name)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}): choose another --out"
        ) from None


def _is_there(path: Path) -> bool:
    """Whether there is something of this name, be it a link to nothing."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def temporary(path: Path) -> Path:
    """Return a new name beside a file, which tells whose it is."""
    own = f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}{TEMPORARY_MARK}{own}")


_TEMPORARY = re.compile(r"\..*\.tmp-(?:([0-9a-f]{8})-)?([0-9]{1,9})(?:-[0-9a-f]{1,8})?", re.DOTALL)


@functools.cache
def _host() -> str:
    """Return a short name of this host since its last start."""
    boot = b""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return f"{zlib.crc32(socket.gethostname().encode() + boot):08x}"


def sweep_temporaries(where: Path) -> None:
    """Remove what processes that were killed had begun to write.

    Of another host's processes nobody here knows whether they live: theirs must be old.

    Args:
        where: A folder, with what is below; or a file: only what was to be this file.
    """
    only = "" if where.is_dir() else f".{where.name}{TEMPORARY_MARK}"
    for place, below, names in os.walk(where.parent if only else where):
        if only:
            below.clear()
        for name in names:
            found = _TEMPORARY.fullmatch(name)
            if found is None or not name.startswith(only):
                continue
            path = Path(place, name)
            with contextlib.suppress(OSError):
                dead = found[1] == _host() and not Path("/proc", found[2]).exists()
                if dead or time.time() - path.lstat().st_mtime > OLD_SECONDS:
                    path.unlink()


def write_text(path: Path, text: str, *, own: bool = False) -> None:
    """Replace the content of ``path`` by ``text`` in one step.

    Args:
        path: The file.
        text: All of it.
        own: Only its user may change it, in a folder of a group too: something may be run by it.
    """
    with replacing(path) as file:
        file.write(text)
        if own:
            _keep_to_its_user(file)


def write_json(path: Path, value: object, *, own: bool = False) -> None:
    """Replace the content of ``path`` by ``value`` as JSON in one step, as `write_text` does."""
    write_text(path, as_json(value), own=own)


def as_json(value: object) -> str:
    """Return the content of a JSON file."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_text(path: Path) -> str:
    """Return a text that lies in a study: of a plain file."""
    with open(path, encoding="utf-8", opener=open_plain) as file:
        return file.read()


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``, or None when there is no such file.

    Raises:
        InputError: The file was damaged: w2ltune never leaves a part of a file.
    """
    try:
        with open(path, encoding="utf-8", opener=open_plain) as file:
            if (size := os.fstat(file.fileno()).st_size) > MOST_JSON_BYTES:
                raise ValueError(f"{size} bytes are more than w2ltune writes")
            if (value := json.loads(text := file.read())) is None:
                raise ValueError("null")  # which is no file to those who ask
            if _HALF.search(text):  # of a character, which could be neither shown nor written
                json.dumps(value, ensure_ascii=False).encode()
            return value
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise InputError(f"damaged, restore or remove it: {error}", path=path) from None


@contextlib.contextmanager
def shaped(
    path: str | os.PathLike[str], what: str = "damaged, restore or remove it"
) -> Iterator[None]:
    """Take the errors of a block, over a content of another shape, for damage of the file.

    Args:
        path: The file.
        what: What is said of it.

    Raises:
        InputError: The content is not what is written there.
    """
    try:
        yield
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # not of the bytes; an archive's may ask to read before the begin
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{what}: {reason}", path=path) from None


def fits(value: object, hint: Any) -> bool:
    """Return whether a value read from JSON is of a type, as a field of a dataclass has it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(kinds) == len(value) and all(map(fits, value, kinds))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        pairs = value.items() if isinstance(value, dict) else [(None, None)]
        return all(fits(name, inner[0]) and fits(entry, inner[1]) for name, entry in pairs)
    if inner and origin is not tuple:  # a union
        return any(fits(value, kind) for kind in inner)
    if isinstance(value, bool):
        return hint is bool
    if isinstance(value, int) and abs(value) >= 2**64:
        return False  # no number of ours, and too large for others' arithmetic
    kind = (int, float) if hint is float else origin or hint
    return isinstance(value, kind) and origin is not tuple


def fitted(kind: type[T], content: Mapping[str, Any]) -> T:
    """Return a dataclass with a content's values, if each is of its field's type.

    What is nested is made too: tuples, mappings and dataclasses. Of fields that older versions
    wrote and nobody reads a dataclass has the names in ``GONE``.

    Raises:
        ValueError: One is not, and is named.
        TypeError: One is missing, or there is no such field.
    """
    hints = typing.get_type_hints(kind)
    values = {
        name: value for name, value in content.items() if name not in getattr(kind, "GONE", ())
    }
    for name in hints.keys() & values.keys():
        values[name] = _made(values[name], hints[name])
        if not fits(values[name], hints[name]):
            raise ValueError(f"{name} is {content[name]!r}")
    return kind(**values)


def _made(value: Any, hint: Any) -> Any:
    """Return lists as tuples and objects as dataclasses, where a field has these."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, dict) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return fitted(hint, value)
    if isinstance(value, dict) and isinstance(origin, type) and issubclass(origin, Mapping):
        key = int if inner[0] is int else str
        return {key(name): _made(entry, inner[1]) for name, entry in value.items()}
    if isinstance(value, list) and origin is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        return tuple(map(_made, value, kinds)) if len(kinds) == len(value) else value
    if origin in (types.UnionType, typing.Union):
        made = (_made(value, kind) for kind in inner)
        return next((one for one, kind in zip(made, inner, strict=True) if fits(one, kind)), value)
    return value


def create_exclusively(path: Path, text: str, *, own: bool = False) -> bool:
    """Create ``path`` with its whole content, unless it exists.

    The content is written to a temporary file and hard-linked to its name, which only one of
    several processes can do, on NFS too, and no reader ever sees a part of it.

    Args:
        path: The file.
        text: All of it.
        own: As in `write_text`.

    Returns:
        True if this call created it.
    """
    made = temporary(path)
    try:
        with _named(path):
            with made.open("x", encoding="utf-8") as file:
                file.write(text)
                if own:
                    _keep_to_its_user(file)
                file.flush()
                os.fsync(file.fileno())
            require_ours(path, made)
            try:
                os.link(made, path)
            except FileExistsError:
                # NFS may answer so to the repetition of our own call that had gone well.
                return made.stat().st_nlink == 2
            return True
    finally:
        with contextlib.suppress(OSError):
            made.unlink()
