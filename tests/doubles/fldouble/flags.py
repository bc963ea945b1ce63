"""Flags as gflags treats them: their types, the command line, flagsfiles and the printed form."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("flags.tsv")
TRUE = ("1", "t", "true", "y", "yes")
FALSE = ("0", "f", "false", "n", "no")
RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


class Flags:
    """The flags of one program with their present values.

    Args:
        program: Path that the program was started by.
        generation: "flashlight" or "wav2letter".
    """

    def __init__(self, program: str, generation: str) -> None:
        self.program = program
        self.types: dict[str, str] = {}
        self.values: dict[str, bool | int | float | str] = {}
        for row in TABLE.read_text(encoding="utf-8").splitlines()[2:]:
            name, kind, default, generations = row.split("\t")
            if generations in ("both", generation):
                self.types[name] = kind
                self.values[name] = _value(kind, os.environ.get(f"GLOG_{name}", default))

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def text(self, separator: str = "\n") -> str:
        """All flags as ``--name=value``, each followed by ``separator``."""
        return "".join(f"--{name}={_text(value)}{separator}" for name, value in self.values.items())

    def parse(self, arguments: list[str]) -> None:
        """Take the flags from a command line; words without a dash are passed over.

        Errors are printed together at the end and exit with 1.
        """
        errors: dict[str, str] = {}
        rest = iter(arguments)
        for argument in rest:
            if not argument.startswith("-") or argument == "-":
                continue
            body = argument[2:] if argument.startswith("--") else argument[1:]
            if not body:
                break
            name, value, error = self._split(body)
            if error:
                errors[name] = error
                continue
            if value is None:
                value = next(rest, None)
                if value is None:
                    errors[name] = f"flag '{argument}' is missing its argument"
                    break
            errors.pop(name, None)
            error = self._set(name, value)
            if error:
                errors[name] = error
            elif name == "flagfile" and value:
                self.read_file(value)
        if self["help"] or self["helpshort"] or self["helpfull"]:
            print(self._help())
            sys.exit(1)
        if self["version"]:
            print(Path(self.program).name)
            sys.exit(0)
        _report(errors)

    def read_file(self, path: str) -> None:
        """Take the flags from a flagsfile; exit with 1 where there is none or a value is wrong."""
        try:
            text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            print(f"{path}: {error.strerror}", file=sys.stderr)
            sys.exit(1)
        self.read_text(text)

    def read_text(self, text: str) -> None:
        """Take the flags from the text of a flagsfile.

        Unknown flags, and flags without a value, are silently passed over. A line without a dash
        names programs: what follows counts only for those. As long as a carriage return is ahead,
        only carriage returns end lines.
        """
        errors: dict[str, str] = {}
        relevant, among_names, at = True, False, 0
        while at <= len(text):
            while at < len(text) and text[at].isspace():
                at += 1
            end = text.find("\r", at)
            if end < 0:
                end = text.find("\n", at)
            end = len(text) if end < 0 else end
            line, at = text[at:end], end + 1
            if line.startswith("-"):
                among_names = False
                name, value, error = self._split(line[2:] if line.startswith("--") else line[1:])
                if relevant and not error and value is not None:
                    error = self._set(name, value)
                    if error:
                        errors[name] = error
            elif line and not line.startswith("#"):
                relevant = (among_names and relevant) or self._is_named(line)
                among_names = True
        _report(errors)

    def _is_named(self, line: str) -> bool:
        return any(word in (self.program, Path(self.program).name) for word in line.split(" "))

    def _split(self, body: str) -> tuple[str, str | None, str]:
        """Split ``name=value``; return the name, the value if any, and what is wrong."""
        name, equals, value = body.partition("=")
        if name in self.types:
            if equals:
                return name, value, ""
            return name, "1" if self.types[name] == "bool" else None, ""
        positive = name[2:]
        if not name.startswith("no") or positive not in self.types:
            return name, None, f"unknown command line flag '{name}'"
        if self.types[positive] != "bool":
            kind = self.types[positive]
            return name, None, f"boolean value ({name}) specified for {kind} command line flag"
        return positive, "0", ""

    def _set(self, name: str, text: str) -> str:
        """Set a flag; return what is wrong with the value."""
        try:
            self.values[name] = _value(self.types[name], text)
        except ValueError:
            return f"illegal value '{text}' specified for {self.types[name]} flag '{name}'"
        return ""

    def _help(self) -> str:
        rows = [
            f"    -{name} () type: {kind}\n      default: {_text(self.values[name])}"
            for name, kind in self.types.items()
        ]
        return f"{Path(self.program).name}: Usage:\n\n  Flags:\n" + "\n".join(rows)


def _value(kind: str, text: str) -> bool | int | float | str:
    if kind == "string":
        return text
    if kind == "bool":
        if text.lower() in TRUE + FALSE:
            return text.lower() in TRUE
        raise ValueError
    base = 16 if text[:2].lower() == "0x" else 10  # looked for before blanks are passed over
    text = text.lstrip()  # strtol and strtod pass over blanks in front, not over those behind
    if not text or text[-1].isspace() or "_" in text or not text.isascii():
        raise ValueError
    if kind == "double":
        return _double(text.lower())
    number = int(text, base)
    low, high = RANGES[kind]
    if not low <= number <= high:
        raise ValueError
    return number


def _double(text: str) -> float:
    """Read a number; one that is too large or too small for a double is none (ERANGE)."""
    is_hexadecimal = text.lstrip("+-").startswith("0x")
    try:
        number = float.fromhex(text) if is_hexadecimal else float(text)
    except OverflowError:
        raise ValueError from None
    digits = text.lstrip("+-").partition("p" if is_hexadecimal else "e")[0].replace("0x", "")
    is_lost = abs(number) < sys.float_info.min and digits.strip("0.") != ""
    if is_lost or (math.isinf(number) and "inf" not in text):
        raise ValueError
    return number


def _text(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def _report(errors: dict[str, str]) -> None:
    if errors:
        sys.stderr.write("".join(f"ERROR: {errors[name]}\n" for name in sorted(errors)))
        sys.exit(1)
