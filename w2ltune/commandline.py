"""Command lines: a command's own options and the binary's flags, in one style.

Options are declared once, as fields of a dataclass, and can be given like flags: on the command
line or in a flagsfile, ``--name=value`` or ``--name value``, with ``-`` and ``_`` alike. One that
is a tuple of texts may be given several times; of any other the last one counts.
"""

from __future__ import annotations

import dataclasses
import sys
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from w2ltune import __version__
from w2ltune.errors import FlagError, UsageError, did_you_mean
from w2ltune.formats.distributions import parse_float, parse_integer
from w2ltune.formats.flagsfile import Flag, effective, parse_arguments
from w2ltune.formats.known_flags import KNOWN_FLAGS, is_boolean

T = TypeVar("T")

_BOOLEANS = dict.fromkeys(("true", "t", "yes", "y", "1"), True)
_BOOLEANS |= dict.fromkeys(("false", "f", "no", "n", "0"), False)

_READERS: Mapping[type, tuple[Callable[[str], object | None], str]] = {
    bool: (lambda text: _BOOLEANS.get(text.lower()), "true or false"),
    int: (parse_integer, "a whole number"),
    float: (parse_float, "a number"),
    Path: (lambda text: Path(text) if text else None, "a path"),
}
"""How a text is read, None when it cannot be, and what it must be."""


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    choices: Sequence[str] = (),
    value: str = "",
    read: tuple[Callable[[str], object | None], str] | None = None,
    also: Sequence[str] = (),
    least: int | None = None,
) -> Any:
    """Declare an option as a field of a dataclass.

    Args:
        help: One sentence for ``--help``.
        default: The value when it is not given; without one the option is required.
        choices: The values that are allowed.
        value: How ``--help`` names the value; by default its type.
        read: Reads the value, None where that fails, and what it must be; by default as its type.
        also: What it is called elsewhere; whoever gives that is told.
        least: The lowest number that is allowed.
    """
    metadata = {
        "help": help, "choices": tuple(choices), "value": value, "read": read,
        "also": tuple(also), "least": least,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    arguments: Sequence[str], options_class: type[T], *, usage: str
) -> tuple[T, dict[str, Flag]]:
    """Return a command's options and the flags that are not its own.

    Args:
        arguments: The command line without the program's name.
        options_class: A dataclass whose fields are made by `option`.
        usage: What ``--help`` shows above the options.

    Raises:
        UsageError: An option is missing or its value is wrong.
        SystemExit: After ``--help`` or ``--version``, with 0.
    """
    fields = {field.name: field for field in dataclasses.fields(options_class)}  # type: ignore[arg-type]
    if any(argument in ("--help", "-h", "-help") for argument in arguments):
        print(_help(usage, fields, options_class))
        sys.exit(0)
    if any(argument in ("--version", "-version") for argument in arguments):
        print(f"w2ltune {__version__}")
        sys.exit(0)
    types = typing.get_type_hints(options_class)
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UsageError(f"{argument!r} on the command line is not UTF-8 text; rename the file")

    def boolean(name: str) -> bool:
        own = name.replace("-", "_")
        return types[own] is bool if own in fields else is_boolean(name)

    values: dict[str, Any] = {}
    flags: list[Flag] = []
    for flag in parse_arguments(arguments, boolean=boolean):
        name = flag.name.replace("-", "_")
        if name in fields and typing.get_origin(types[name]) is tuple:
            values[name] = (*values.get(name, ()), flag.value)
        elif name in fields:
            values[name] = _typed(flag, types[name], fields[name].metadata)
        else:
            flags.append(flag)
    if not values.get("allow_unknown_flags"):
        for flag in flags:
            _refuse_other_name(flag, fields)
    missing = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and name not in values
    ]
    if missing:
        for flag in flags:
            hint = did_you_mean(flag.name.replace("-", "_"), missing)
            if hint and flag.name not in KNOWN_FLAGS:
                raise UsageError(f"{flag.where}: unknown option --{flag.name}{hint} (see --help)")
        raise UsageError(f"missing {', '.join(f'--{name}' for name in missing)} (see --help)")
    options = options_class(**values)
    for field in dataclasses.fields(options_class):  # type: ignore[arg-type]
        value, least = getattr(options, field.name), field.metadata["least"]
        if None not in (value, least) and value < least:
            raise UsageError(f"--{field.name}={value:g}: must be {least} or more")
    return options, effective(flags)


def parse_own(arguments: Sequence[str], options_class: type[T], *, usage: str) -> T:
    """Return the options of a command that has none but its own.

    Args:
        arguments: As for `parse`.
        options_class: The same.
        usage: The same.

    Raises:
        UsageError: An option is unknown or missing, or its value is wrong.
        SystemExit: After ``--help`` or ``--version``, with 0.
    """
    options, flags = parse(arguments, options_class, usage=usage)
    for flag in flags.values():
        known = [field.name for field in dataclasses.fields(options_class)]  # type: ignore[arg-type]
        hint = did_you_mean(flag.name, known)
        raise UsageError(f"{flag.where}: unknown option --{flag.name}{hint} (see --help)")
    return options


def _refuse_other_name(flag: Flag, fields: Mapping[str, dataclasses.Field[Any]]) -> None:
    for name, field in fields.items():
        if flag.name.replace("-", "_") in field.metadata["also"] and flag.name not in KNOWN_FLAGS:
            further = f"=--{flag.name.replace('_', '-')}={flag.value}" if name == "sbatch" else ""
            raise UsageError(
                f"{flag.where}: --{flag.name} is no option here; use --{name}{further} (see --help)"
            )


def _typed(flag: Flag, type_: Any, metadata: Mapping[str, Any]) -> Any:
    kinds = set(typing.get_args(type_)) - {type(None)} or {type_}
    optional = type(None) in typing.get_args(type_)
    text, choices = flag.value, metadata["choices"]
    if optional and text == "":
        return None
    if choices and text not in choices:
        raise FlagError(
            f"{flag.where}: --{flag.name}={text}: must be one of {', '.join(filter(None, choices))}"
            f"{did_you_mean(text, choices)}"
        )
    readers = _READERS if metadata["read"] is None else {next(iter(kinds)): metadata["read"]}
    for kind, (read, wanted) in readers.items():
        if kind in kinds:
            value = read(text)
            if value is None:
                raise FlagError(f"{flag.where}: --{flag.name}={text!r}: must be {wanted}")
            return value
    return text


def _help(usage: str, fields: Mapping[str, dataclasses.Field[Any]], options_class: type) -> str:
    types = typing.get_type_hints(options_class)
    lines = [textwrap.dedent(usage).strip(), "", "options:"]
    for name, field in fields.items():
        kinds = set(typing.get_args(types[name])) - {type(None)} or {types[name]}
        kind = field.metadata["value"] or "|".join(field.metadata["choices"])
        kind = kind or next(iter(kinds)).__name__.lower().replace("str", "text")
        shown = f"  --{name}" if bool in kinds else f"  --{name}={kind}"
        default = field.default
        note = "" if default in (None, "", False, ()) else f" [{default}]"
        if default is dataclasses.MISSING:
            note = " (required)"
        lines += [
            *textwrap.wrap(
                f"{field.metadata['help']}{note}", 96,
                initial_indent=f"{shown:<26}  ", subsequent_indent=" " * 28,
            )
        ]  # fmt: skip
    lines += ["  --help, --version, --debug"]
    return "\n".join(lines)
