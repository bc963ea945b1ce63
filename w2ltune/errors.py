"""What can go wrong, in words, and the exit code that goes with it.

::

    W2LTuneError                 1   the work failed
    ├── UsageError               2   the command line or an input is wrong; nothing was written
    │   ├── InputError           2   a file's content is wrong (file and line are named)
    │   ├── FlagError            2   a flag is unknown or its value is wrong
    │   ├── StudyOwnedError      2   another sweep is running in this folder
    │   └── StudyMismatchError   2   the folder belongs to another sweep
    ├── TrialFailedError         1   a trial's program failed
    │   └── KilledError          1   it was killed from outside; the same command tries it again
    ├── StorageError            75   the disk is full or fails; the same command continues
    └── StoppedError            75   stopped on request (130: by Ctrl-C); the same command continues

Every message says what was wrong, with the value, where, and what to do.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STORAGE_FAULTS = (*_FULL, errno.EIO, errno.ESTALE, errno.EROFS)
"""What is told of a disk or file server, and not of what reads or writes there."""

_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
"""Something else stands where a file or folder is needed."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""All but the tabulator and the line end; and what turns the direction of writing."""


class W2LTuneError(Exception):
    """Root of all errors that a user may see.

    Args:
        message: What was wrong, with the value, and what to do.
        path: The file that it was found in, if any.
        line: Line number in that file, from 1.
    """

    exit_code = EXIT_FAILED

    def __init__(
        self, message: str, *, path: str | os.PathLike[str] | None = None, line: int | None = None
    ) -> None:
        where = "" if path is None else f"{os.fspath(path)}:{line}: " if line else f"{path}: "
        super().__init__(where + message)


class UsageError(W2LTuneError):
    """The command line or an input is wrong; nothing was written."""

    exit_code = EXIT_USAGE


class InputError(UsageError):
    """The content of an input file is wrong."""


class FlagError(UsageError):
    """A flag is unknown or its value is wrong."""


class StudyOwnedError(UsageError):
    """Another live sweep owns the folder."""


class StudyMismatchError(UsageError):
    """The folder holds a sweep that was asked for differently."""


class TrialFailedError(W2LTuneError):
    """The program of a trial failed; the message is its reason."""


class KilledError(TrialFailedError):
    """A program was killed from outside, each time it was begun; a later command begins again."""


class StorageError(W2LTuneError):
    """A disk is full or a file server fails, which is nobody's failure; see `storage_fault`."""

    exit_code = EXIT_STOPPED


class StoppedError(W2LTuneError):
    """The work was stopped on request and can be continued by the same command.

    Args:
        message: Why, and how far it came.
        interrupted: A person at the keyboard did it, outside of a job: 130, as shells have it.
    """

    def __init__(self, message: str, *, interrupted: bool = False) -> None:
        super().__init__(message)
        self.exit_code = EXIT_INTERRUPTED if interrupted else EXIT_STOPPED


class StopSignal(KeyboardInterrupt):
    """A signal that asks to stop came where nothing waits for it; ends the command as Ctrl-C does.

    Args:
        name: Of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def printable(text: str) -> str:
    r"""Return a text as a terminal may get it, or JSON: control characters are shown, not obeyed.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\u001b[2Jb'
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to ``name``, or ``""``.

    Example:
        >>> did_you_mean("lmwieght", ["lmweight", "wordscore"])
        "; did you mean 'lmweight'?"
    """
    matches = difflib.get_close_matches(name, [other for other in known if other != name], n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def nearest_sibling(path: Path) -> str:
    """Return ``"; did you mean 'x'?"`` for the name in the same folder that is nearest, or ``""``.

    A folder above that does not exist is said to be missing instead.
    """
    try:
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    except FileNotFoundError:
        return f" (nor the folder {str(path.parent)!r})"
    except OSError:  # a folder that may not be looked into
        return ""


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return ``path`` when it is a readable file.

    Args:
        path: The file.
        what: What it is to the user, as in ``"language model (--lm)"``.

    Raises:
        InputError: It is missing, a folder, or not readable.
    """
    found = Path(path)
    try:
        exists = found.exists()
    except OSError as error:  # a folder on the way is closed to us, or the name is too long
        if storage_fault(error):
            raise
        raise InputError(f"{what}: {str(path)!r}: {error.strerror}") from None
    if not exists:
        where = "" if found.is_absolute() else f" (looked in {Path.cwd()})"
        raise InputError(f"{what}: no such file {str(path)!r}{where}{nearest_sibling(found)}")
    if not found.is_file():
        raise InputError(f"{what}: {str(path)!r} is not a file")
    if not os.access(found, os.R_OK):
        raise InputError(f"{what}: {str(path)!r} may not be read by this user")
    return found


class _Terminal(io.FileIO):
    """A terminal; when it is closed, the work goes on or is ended in order, and is not shown."""

    def write(self, content: Any, /) -> int:
        """Write what can be written."""
        try:
            return super().write(content)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(content).nbytes


def run_command(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command's ``main`` and turn its errors into one line and an exit code.

    Args:
        main: Takes the arguments, returns the exit code.
        arguments: The command line without the program's name. ``--debug`` anywhere shows
            tracebacks.

    Returns:
        0 done, 1 failed, 2 wrong usage or input, 75 stopped and to be continued.
    """
    debug = "--debug" in arguments
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty():
            file = io.BufferedWriter(_Terminal(stream.fileno(), "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(file, stream.encoding, line_buffering=True))
    for stream in (sys.stdout, sys.stderr):  # a locale without our characters gets "?" for them
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        try:
            return main(arguments)
        finally:
            sys.stdout.flush()  # here, where a reader that went away can be told from a failure
    except BrokenPipeError:
        # The reader of our output went away (`w2ltune collect | head`): not our failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except StopSignal as stop:
        print(f"w2ltune: stopped (signal {stop.name}); the same command continues", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("w2ltune: interrupted; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (W2LTuneError, OSError) as error:
        if debug:
            raise
        # A usage error says more of the place: a folder that is read-only from the start.
        usage = isinstance(error, UsageError) and not isinstance(error, InputError)
        told = error if usage else storage_fault(error) or error
        if isinstance(told, OSError):
            where = f"{name}: " if (name := _file_of(told)) else ""
            kind = UsageError if told.errno in _IN_THE_WAY else W2LTuneError
            told = kind(f"{where}{told.strerror or told}")
        print(f"w2ltune: error: {printable(str(told))}", file=sys.stderr)
        return told.exit_code
    except ModuleNotFoundError as error:
        if debug or (error.name or "w2ltune").startswith("w2ltune"):
            raise
        print(
            f"w2ltune: error: {error} for {sys.executable}: is the environment active in which "
            "w2ltune was installed?",
            file=sys.stderr,
        )
        return EXIT_USAGE


def storage_fault(error: BaseException) -> StorageError | None:
    """Return the fault of a disk or file server that an error comes from, or None.

    It may be the cause of the error, or what was being handled when it was raised. To be asked in
    the process where it was raised: what others are sent has no causes any more.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, StorageError):
            return link
        if isinstance(link, OSError) and link.errno in STORAGE_FAULTS:
            name = _file_of(link)
            if isinstance(error, W2LTuneError):
                said = str(error)
            elif link.errno in _FULL:
                said = f"disk full{name and f' while writing {name}'} ({link.strerror})"
            else:
                said = f"{name and f'{name}: '}{link.strerror}"
            return storage_error(said)
        link = getattr(link, "cause", None) or link.__cause__ or link.__context__  # cause: of Ray
    return None


@contextlib.contextmanager
def storage_faults() -> Iterator[None]:
    """Raise the fault of a disk or file server instead of what comes of it, as `storage_fault`."""
    try:
        yield
    except Exception as error:
        if fault := storage_fault(error):
            raise fault from error
        raise


def storage_error(said: str) -> StorageError:
    """Return an error that says what is wrong with a disk or file server, and what to do."""
    full = any(os.strerror(number) in said for number in _FULL) or "disk full" in said
    todo = "make room and" if full else "once it can be read and written again,"
    return StorageError(f"{said}; nothing finished is lost: {todo} give the same command again")


def _file_of(error: OSError) -> str:
    """Return the file that an error tells of, or else the one that was open where it arose."""
    if error.filename is not None:
        return os.fsdecode(error.filename)
    for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
        for value in frame.f_locals.values():
            name = getattr(value, "name", None) if isinstance(value, io.IOBase) else None
            if isinstance(name, str | os.PathLike):
                return os.fspath(name)
    return ""
