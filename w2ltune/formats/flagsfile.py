"""Flags by the rules of gflags: the command line and flagsfiles, which hold one flag a line.

The wav2letter and flashlight binaries ignore without a word what they cannot read in a flagsfile:
a line without dashes, ``--iter 20`` with a blank, all of a file with Windows line ends. Here each
is an error with its line. One rule is ours: ``-`` and ``_`` in names are the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from w2ltune import files
from w2ltune.errors import InputError, UsageError, existing_file
from w2ltune.formats.distributions import parse_float

_RUN = ("binary", "test_binary", "normalize", "command", "space", "perturb")
"""Flags whose value is run."""

FLAGSFILE_NAMES = ("flagsfile", "flagfile")  # the binaries' own flag, and that of gflags


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag as it was given.

    Args:
        name: Without dashes, with underscores.
        value: The text after ``=``; ``"true"`` or ``"false"`` for ``--name`` and ``--noname``.
        path: The flagsfile that it stands in; None for the command line.
        line: Its line there, from 1.
    """

    name: str
    value: str
    path: str | None = None
    line: int | None = None

    @property
    def where(self) -> str:
        """Where it was given: ``"train.cfg:3"`` or ``"the command line"``."""
        return "the command line" if self.path is None else f"{self.path}:{self.line}"


def parse_arguments(arguments: Sequence[str], *, boolean: Callable[[str], bool]) -> list[Flag]:
    """Read the flags of a command line and of the flagsfiles that it names.

    Understood are ``--name=value``, ``--name value`` (not for boolean flags), ``--name`` and
    ``--noname`` (only for boolean flags), each with one dash or two, and a final ``--``.
    ``--flagsfile`` takes one path or several with commas between, relative to the current
    directory; an empty one takes back those before it. They are read, not returned. gflags' own
    ``--flagfile`` is read at its place: what stands before it loses, what stands behind it wins.

    Args:
        arguments: The command line without the program's name.
        boolean: Tells whether the flag of a name is boolean.

    Returns:
        The flags of the flagsfiles, then those of the command line, so that the last of a name
        is the one in effect: the command line wins, as in fl_asr_train and fl_asr_decode.

    Raises:
        UsageError: There is an argument that is no flag, or a flag without its value.
        InputError: A flagsfile is missing, names itself, or has a line that is no flag.

    Example:
        >>> flags = parse_arguments(["-lr", "0.1", "--noshow"], boolean=lambda name: name == "show")
        >>> [(flag.name, flag.value) for flag in flags]
        [('lr', '0.1'), ('show', 'false')]
    """
    given: list[Flag] = []
    in_files: list[Flag] = []
    remaining = list(arguments)
    positional: list[str] = []
    while remaining:
        argument = remaining.pop(0)
        if argument == "--":
            positional += remaining
            break
        if not argument.startswith("-") or argument == "-":
            positional.append(argument)
            continue
        try:
            name, value = _name_and_value(argument, boolean)
        except ValueError as error:
            raise UsageError(f"{argument!r} on the command line: {error}") from None
        if value is None:
            if not remaining or _looks_like_flag(remaining[0]):
                raise UsageError(
                    f"--{name} on the command line has no value and is no known boolean flag; "
                    f"write --{name}=VALUE"
                )
            value = remaining.pop(0)
        flag = Flag(name=name, value=value)
        if name not in FLAGSFILE_NAMES:
            given.append(flag)
        elif name == "flagfile":
            given += _named_flagsfiles(flag, boolean, ())
        elif value:
            in_files += _named_flagsfiles(flag, boolean, ())
        else:
            in_files.clear()
    if positional:
        shown = ", ".join(map(repr, positional))
        raise UsageError(
            f"not a flag: {shown} on the command line; a flag is --name=value, "
            "and a boolean flag takes its value only after '='"
        )
    return in_files + given


def parse_flagsfile(path: str | os.PathLike[str], *, boolean: Callable[[str], bool]) -> list[Flag]:
    """Read a flagsfile, and those that it names by ``--flagfile``, each at its place.

    Args:
        path: The file, in UTF-8.
        boolean: Tells whether the flag of a name is boolean.

    Returns:
        The flags in the order of the lines.

    Raises:
        InputError: A file is missing, names itself, or has a line that is no flag.
    """
    return list(_read(os.fspath(path), boolean, (), "flagsfile"))


def effective(flags: Iterable[Flag]) -> dict[str, Flag]:
    """Return the flag in effect for each name: the last one."""
    return {flag.name: flag for flag in flags}


def format_flagsfile(flags: Mapping[str, str], *, comments: Sequence[str] = ()) -> str:
    r"""Return the text of a flagsfile.

    Args:
        flags: Values by name, in the order to write.
        comments: Lines to put first, without the leading ``#``.

    Raises:
        InputError: A value cannot stand in a flagsfile, which has neither quotes nor escapes.

    Example:
        >>> format_flagsfile({"lr": "0.1"}, comments=["WER 4.31"])
        '# WER 4.31\n--lr=0.1\n'
    """
    lines = [f"# {line}".rstrip() for comment in comments for line in comment.splitlines() or [""]]
    for name, value in flags.items():
        if problem := _problem(value):
            raise InputError(f"--{name}={value!r} cannot be written to a flagsfile: {problem}")
        lines.append(f"--{name}={value}")
    return "".join(f"{line}\n" for line in lines)


_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)


def _name_and_value(argument: str, boolean: Callable[[str], bool]) -> tuple[str, str | None]:
    """Split ``--name=value``; the value is None when it has yet to come."""
    stripped = argument[2:] if argument.startswith("--") else argument[1:]
    name, equals, value = stripped.partition("=")
    if not _NAME.fullmatch(name):
        if _NAME.match(name) and len(parts := name.split(maxsplit=1)) == 2:
            raise ValueError(f"a blank in the name; write --{parts[0]}={parts[1]}{equals}{value}")
        if _NAME.match(name) and name[-1].isspace():
            raise ValueError(f"a blank after the name; write --{name.rstrip()}{equals}{value}")
        raise ValueError(f"{name!r} is no flag's name; write --name=value")
    name = name.replace("-", "_")
    negated = name.startswith("no") and not boolean(name) and boolean(name[2:])
    if equals:
        if negated:
            raise ValueError(f"takes no value; write --{name[2:]}=true or --{name[2:]}=false")
        return name, value
    if negated:
        return name[2:], "false"
    return name, "true" if boolean(name) else None


def _looks_like_flag(argument: str) -> bool:
    """Return whether ``argument`` is a flag, rather than a value such as ``-0.5`` or ``-inf``."""
    return argument.startswith("-") and argument != "-" and parse_float(argument) is None


def _problem(value: str) -> str | None:
    """Say why a value cannot stand in a flagsfile, or return None."""
    if "\n" in value or "\r" in value:
        return "it holds a line end"
    if value != value.strip():
        return "it begins or ends with a blank, which the binary takes as part of it; remove it"
    if re.search(r"\s#", value):
        return "a comment must stand on its own line"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "it is not UTF-8 text"
    return None


def _named_flagsfiles(
    flag: Flag, boolean: Callable[[str], bool], chain: tuple[str, ...]
) -> Iterator[Flag]:
    """Read the files that a ``--flagsfile`` names."""
    for path in filter(None, flag.value.split(",")):
        yield from _read(path, boolean, chain, f"flagsfile (from {flag.where})")


def _read(
    path: str, boolean: Callable[[str], bool], chain: tuple[str, ...], what: str
) -> Iterator[Flag]:
    """Read a flagsfile; ``chain`` holds the files that led to it."""
    found = existing_file(path, what)
    if any(found.samefile(earlier) for earlier in chain):
        raise InputError(f"flagsfiles name each other in a circle: {' -> '.join((*chain, path))}")
    for number, line in _lines(found):
        try:
            name, value = _name_and_value(line, boolean)
            if value is None:
                raise ValueError(f"no value, and no known boolean flag; write --{name}=VALUE")
            if problem := _problem(value):
                raise ValueError(problem)
        except ValueError as error:
            raise InputError(f"{line!r}: {error}", path=path, line=number) from None
        flag = Flag(name=name, value=value, path=path, line=number)
        _refuse_anothers(found, flag)
        if name == "flagsfile" and value:
            raise InputError(
                f"--flagsfile={value}: the programs do not read a --flagsfile that stands in a "
                f"flagsfile; write --flagfile={value}, which they read here, or remove the line",
                path=path,
                line=number,
            )
        if name in FLAGSFILE_NAMES:
            yield from _named_flagsfiles(flag, boolean, (*chain, path))
        else:
            yield flag


def refuse_anothers_programs(path: Path, flags: Mapping[str, str]) -> None:
    """Refuse flags of a file that name a program, where another user wrote it, or could have.

    Raises:
        InputError: The flag is named, and whose the file is.
    """
    for name, value in flags.items():
        _refuse_anothers(path, Flag(name=name, value=value))


def _refuse_anothers(path: Path, flag: Flag) -> None:
    runs = flag.name in _RUN and not flag.value.endswith(".glm")
    if not flag.value or not (runs or (flag.name == "arch" and flag.value.endswith(".so"))):
        return
    stat = path.stat()
    groups = stat.st_mode & 0o020 and not files.is_private_group(stat.st_gid)
    if stat.st_uid not in (0, os.getuid()):
        whose = f"is {files.user_of(stat.st_uid)}'s"
    elif groups or stat.st_mode & 0o002:
        whose = f"may be written by {'its group' if groups else 'everybody'}"
    else:
        return
    raise InputError(
        f"--{flag.name}={flag.value} is a program, and this file {whose}: if you trust it, give "
        "the flag on the command line, and take it out of a copy of the file",
        path=path,
        line=flag.line,
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is neither blank nor a comment."""
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            line = raw.decode("utf-8").lstrip(" \t")
        except UnicodeDecodeError:
            message = "not UTF-8 text, as a flagsfile is"
            raise InputError(message, path=path, line=number) from None
        if "\r" in line:
            raise InputError(
                "a Windows line end (CR), at which the binary loses flags: "
                "remove them with sed -i 's/\\r//' FILE",
                path=path,
                line=number,
            )
        if line.startswith("\ufeff"):
            raise InputError("a byte order mark: save as UTF-8 without it", path=path, line=number)
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith("-"):
            raise InputError(
                f"{line!r} is no flag, the binary would ignore it: write --{line.strip()}, "
                "or # in front",
                path=path,
                line=number,
            )
        yield number, line
