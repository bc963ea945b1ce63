"""The flags that the binaries of both generations know, and the check of a flag against them.

The table ``known_flags.tsv`` was read off the binaries: the flags that they log after parsing, and
for wav2letter v0.2 its source.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from w2ltune.errors import FlagError, did_you_mean
from w2ltune.formats.distributions import (
    Choice,
    Distribution,
    IntegerRange,
    parse_value,
)
from w2ltune.formats.flagsfile import Flag

Generation: TypeAlias = Literal["wav2letter", "flashlight"]
FlagType: TypeAlias = Literal["bool", "int32", "int64", "uint64", "float", "string"]


@dataclass(frozen=True, kw_only=True)
class FlagSpec:
    """What is known of a flag.

    Args:
        name: Without dashes.
        type: Of its value; gflags' own names, but ``float`` for ``double``.
        default: As text; where the generations differ, flashlight's.
        generations: Those that have it.
    """

    name: str
    type: FlagType
    default: str
    generations: tuple[Generation, ...]


# What became of flags that a generation no longer has; wav2letter v0.1's first.
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "beamscore": "it is --beamthreshold since wav2letter v0.2",
        "silweight": "it is --silscore since wav2letter v0.2",
        "unkweight": "it is --unkscore since wav2letter v0.2",
        "forceendsil": "it was dropped in wav2letter v0.2; remove it",
        "garbage": "it was dropped in wav2letter v0.2; remove it",
        "skipoov": "it was dropped in wav2letter v0.2; remove it",
        "archdir": "flashlight takes the full path in --arch",
        "tokensdir": "flashlight takes the full path in --tokens",
        "mfcc": "no release of flashlight can compute it; take --features_type=mfsc",
        "mfsc": "it is --features_type=mfsc in flashlight",
        "pow": "it is --features_type=pow in flashlight",
        "runname": "in flashlight --rundir is the run directory itself",
        "tag": "in flashlight --rundir is the run directory itself",
    }
)


def _read_table() -> Iterator[FlagSpec]:
    text = Path(__file__).with_name("known_flags.tsv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    types: dict[str, FlagType] = {kind: kind for kind in get_args(FlagType)}
    generations: dict[str, tuple[Generation, ...]] = {
        "both": get_args(Generation),
        "wav2letter": ("wav2letter",),
        "flashlight": ("flashlight",),
    }
    for line in lines[1:]:
        name, kind, default, generation = line.split("\t")
        yield FlagSpec(
            name=name, type=types[kind], default=default, generations=generations[generation]
        )


KNOWN_FLAGS: Mapping[str, FlagSpec] = MappingProxyType({spec.name: spec for spec in _read_table()})


def is_boolean(name: str) -> bool:
    """Return whether ``name`` is a known boolean flag, one that may stand without a value."""
    return name in KNOWN_FLAGS and KNOWN_FLAGS[name].type == "bool"


def check_flag(
    flag: Flag, *, extra_known: Collection[str] = (), generation: Generation | None = None
) -> None:
    """Check the name of a flag, and its value or each value of its distribution.

    Args:
        flag: As given by the user.
        extra_known: Further names that are right; of their values nothing is known.
        generation: The binary's, if known: a flag that only the other one has is refused.

    Raises:
        FlagError: The name is unknown, or the value does not fit the flag's type.

    Example:
        >>> check_flag(Flag(name="beamsize", value="randint(10, 500)"))
        >>> check_flag(Flag(name="lmwieght", value="2"))
        Traceback (most recent call last):
        ...
        w2ltune.errors.FlagError: unknown flag --lmwieght; did you mean 'lmweight'?
    """
    value = parse_value(flag.value, flag=flag.name, path=flag.path, line=flag.line)
    spec = KNOWN_FLAGS.get(flag.name)
    if spec is None or (generation and generation not in spec.generations):
        if flag.name in extra_known:
            return
        message = f"unknown flag --{flag.name}{_hint(flag.name, extra_known, generation)}"
        raise FlagError(message, path=flag.path, line=flag.line)
    if isinstance(value, str):
        typed_value(spec, value, path=flag.path, line=flag.line)
    elif isinstance(value, Choice):
        for choice in value.choices:
            typed_value(spec, choice, path=flag.path, line=flag.line)
    else:
        _check_range(spec, value, flag)


def typed_value(
    spec: FlagSpec,
    text: str,
    *,
    path: str | os.PathLike[str] | None = None,
    line: int | None = None,
) -> bool | int | float | str:
    """Return the value that ``text`` gives to a flag, read as gflags does.

    Args:
        spec: The flag.
        text: The value as given.
        path: The file that it stands in, for messages.
        line: Its line there, from 1.

    Raises:
        FlagError: ``text`` is no value of the flag's type.

    Example:
        >>> typed_value(KNOWN_FLAGS["unkscore"], "-inf")
        -inf
    """
    value: bool | int | float | str | None
    if spec.type == "string":
        return text
    if spec.type == "bool":
        value, wanted = _TRUTH.get(text.lower()), "true or false"
    elif spec.type == "float":
        value, wanted = _parse_double(text), "a number"
    else:
        value, wanted = _parse_integer(text, spec.type), _wanted(spec.type)
    if value is None:
        trimmed = "; remove the blanks" if text != text.strip() else ""
        raise FlagError(f"--{spec.name}={text!r}: not {wanted}{trimmed}", path=path, line=line)
    return value


def number_of(name: str, flags: Mapping[str, str]) -> float:
    """Return the number that a known flag has among some flags, else its default.

    Raises:
        FlagError: Its value is no number of its type.

    Example:
        >>> number_of("iter", {"iter": "0x10"})
        16
    """
    spec = KNOWN_FLAGS[name]
    value = typed_value(spec, flags.get(name) or spec.default)
    assert not isinstance(value, str)
    return value


_LIMITS = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
# As strtoll and strtod read them in the C locale: blanks in front are passed over, none may follow.
_DECIMAL = re.compile(r"\s*[+-]?0*\d{1,20}", re.ASCII)
_HEXADECIMAL = re.compile(r"0x0*[0-9a-f]{1,16}", re.ASCII | re.IGNORECASE)
_DOUBLE = re.compile(
    r"\s*[+-]?(?:(?P<digits>\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)",
    re.ASCII | re.IGNORECASE,
)
_HEXADECIMAL_DOUBLE = re.compile(
    r"\s*[+-]?0x(?P<digits>[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?\d+)?",
    re.ASCII | re.IGNORECASE,
)


def _parse_integer(text: str, kind: str) -> int | None:
    """Read a whole number as gflags does: hexadecimal from 0x on, octal never, within the type."""
    low, high = _LIMITS[kind]
    if _HEXADECIMAL.fullmatch(text):
        value = int(text, 16)
    elif _DECIMAL.fullmatch(text) and (low < 0 or "-" not in text):
        value = int(text)
    else:
        return None
    return value if low <= value <= high else None


def _parse_double(text: str) -> float | None:
    """Read a number as gflags does, which refuses what no double can hold; nan is none."""
    hexadecimal = _HEXADECIMAL_DOUBLE.fullmatch(text)
    match = hexadecimal or _DOUBLE.fullmatch(text)
    if match is None:
        return None
    try:
        value = float.fromhex(text) if hexadecimal else float(text)
    except OverflowError:
        return None
    digits = match["digits"]  # none of inf
    if digits and math.isinf(value):
        return None
    if digits and abs(value) < sys.float_info.min and digits.strip("0."):
        return None
    return value


def _wanted(kind: str) -> str:
    return {
        "int32": "a whole number of 32 bits",
        "int64": "a whole number",
        "uint64": "a whole number from 0 on",
    }[kind]


_TRUTH = dict.fromkeys(("1", "t", "true", "y", "yes"), True) | dict.fromkeys(
    ("0", "f", "false", "n", "no"), False
)


def flags_of(generation: Generation, flags: Mapping[str, str]) -> dict[str, str]:
    """Return the flags as the programs of a generation take them.

    Those that only the other one knows are left out; flashlight's have no ``--tokensdir``.

    Args:
        generation: Of the program.
        flags: Of both; unknown ones stay.
    """
    own = {
        name: value
        for name, value in flags.items()
        if name not in KNOWN_FLAGS or generation in KNOWN_FLAGS[name].generations
    }
    if generation == "flashlight" and flags.get("tokensdir") and flags.get("tokens"):
        own["tokens"] = str(Path(flags["tokensdir"], flags["tokens"]))
    return own


def _check_range(spec: FlagSpec, distribution: Distribution, flag: Flag) -> None:
    """Refuse a range of numbers that the flag's type cannot take."""
    if spec.type == "float":
        return
    if spec.type in _LIMITS and isinstance(distribution, IntegerRange):
        for end in (distribution.low, distribution.high):
            typed_value(spec, str(end), path=flag.path, line=flag.line)
        return
    name = str(distribution).partition("(")[0].replace("uniform", "randint")
    advice = {
        "bool": "is true or false; write choice(true, false)",
        "string": "takes text; write choice(x, y, ...)",
    }.get(spec.type, f"takes whole numbers; write {name}(...)")
    message = f"--{spec.name}={flag.value!r}: the flag {advice}"
    raise FlagError(message, path=flag.path, line=flag.line)


def _hint(name: str, extra_known: Collection[str], generation: Generation | None) -> str:
    """Say what may be meant by an unknown name."""
    if name in RENAMED:
        return f"; {RENAMED[name]}"
    if name in KNOWN_FLAGS:
        return f"; only {KNOWN_FLAGS[name].generations[0]} has it, this is {generation}"
    names = {
        spec.name
        for spec in KNOWN_FLAGS.values()
        if generation is None or generation in spec.generations
    }
    return did_you_mean(name, sorted(names.union(extra_known))) or (
        "; --allow_unknown_flags lets it through"
    )
