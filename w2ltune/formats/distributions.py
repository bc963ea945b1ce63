"""The value of a flag may be a distribution: ``--lr=loguniform(1e-4, 1)``.

::

    uniform(low, high)          a number in [low, high]
    loguniform(low, high)       the same, uniform in its logarithm
    quniform(low, high, step)   low, low + step, ..., high
    randint(low, high)          a whole number, both ends included
    lograndint(low, high)       the same, uniform in its logarithm
    qrandint(low, high, step)   low, low + step, ..., high
    choice(x, y, ...)           one of the texts; quote one that holds , ( ) or a blank

Any other text is a fixed value.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from typing import TypeAlias

from w2ltune.errors import FlagError

Value: TypeAlias = float | int | str | bool


@dataclass(frozen=True)
class FloatRange:
    """The numbers from ``low`` to ``high``, both included.

    Args:
        low: Lower end.
        high: Upper end, above ``low``.
        log: Uniform in the logarithm; ``low`` is above 0 then.
        step: Only ``low``, ``low + step``, ..., ``high``; None for all numbers between.
    """

    low: float
    high: float
    _: KW_ONLY
    log: bool = False
    step: float | None = None

    def contains(self, value: Value) -> bool:
        """Return whether ``value`` is a number that the range can give."""
        if isinstance(value, bool | str) or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), rel_tol=1e-9, abs_tol=1e-9)

    def __str__(self) -> str:
        return _range_text("loguniform" if self.log else "uniform", self.low, self.high, self.step)


@dataclass(frozen=True)
class IntegerRange:
    """The whole numbers from ``low`` to ``high``, both included.

    Args:
        low: Lower end.
        high: Upper end, above ``low``.
        log: Uniform in the logarithm; ``low`` is above 0 then.
        step: Only ``low``, ``low + step``, ..., ``high``.
    """

    low: int
    high: int
    _: KW_ONLY
    log: bool = False
    step: int = 1

    def contains(self, value: Value) -> bool:
        """Return whether ``value`` is a whole number that the range can give."""
        if isinstance(value, bool | str) or not self.low <= value <= self.high:
            return False
        return (value - self.low) % self.step == 0

    def __str__(self) -> str:
        step = None if self.step == 1 else self.step
        return _range_text("lograndint" if self.log else "randint", self.low, self.high, step)


@dataclass(frozen=True)
class Choice:
    """One of several texts.

    Args:
        choices: The texts, all different, as they are given to the flag.
    """

    choices: tuple[str, ...]

    def contains(self, value: Value) -> bool:
        """Return whether ``value``, written as a flag's value, is one of the choices."""
        return format_value(value) in self.choices

    def __str__(self) -> str:
        return f"choice({', '.join(map(_quoted, self.choices))})"


Distribution: TypeAlias = FloatRange | IntegerRange | Choice


def parse_value(
    text: str,
    *,
    flag: str,
    path: str | os.PathLike[str] | None = None,
    line: int | None = None,
) -> str | Distribution:
    """Read a flag's value.

    Args:
        text: The value as it was given.
        flag: Name of the flag, without dashes, for messages.
        path: The file that the value stands in, for messages.
        line: Its line in that file, from 1.

    Returns:
        The distribution that ``text`` describes, or ``text`` unchanged when it is a fixed value.

    Raises:
        FlagError: ``text`` is meant as a distribution, by its name, and is not a right one.

    Example:
        >>> parse_value("loguniform(1e-4, 1)", flag="lr")
        FloatRange(low=0.0001, high=1.0, log=True, step=None)
        >>> parse_value("model(1).bin", flag="am")
        'model(1).bin'
    """
    call = _CALL.fullmatch(text)
    if call is None:
        return text
    name = call["name"]
    try:
        if name in _BUILDERS:
            return _BUILDERS[name](name, _arguments(call["rest"]))
        bare = name.lower().replace("_", "")
        near = difflib.get_close_matches(bare, _BUILDERS, n=1, cutoff=0.75)
        if near and text.rstrip().endswith(")"):
            raise ValueError(f"no distribution {name!r}; did you mean '{near[0]}'?")
    except ValueError as error:
        raise FlagError(f"--{flag}={text!r}: {error}", path=path, line=line) from None
    return text


def format_value(value: Value) -> str:
    """Return the text that gives ``value`` to a flag; a float keeps all its digits.

    Example:
        >>> [format_value(value) for value in (0.1, 20, True, "adam")]
        ['0.1', '20', 'true', 'adam']
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def parse_float(text: str) -> float | None:
    """Return the number that ``text`` spells, ``inf`` included, or None when it spells none."""
    return float(text) if _FLOAT.fullmatch(text) else None


def parse_integer(text: str) -> int | None:
    """Return the 64-bit whole number that ``text`` spells, or None when it spells none."""
    if len(text) > 4000 or not _INTEGER.fullmatch(text):  # Python reads no longer ones
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


# Python's own float() and int() also take "1_000", blanks and the digits of other scripts.
_FLOAT = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)", re.ASCII | re.IGNORECASE
)
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_CALL = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*\((?P<rest>.*)", re.DOTALL)
_ARGUMENT = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^\s,'"()]*))\s*([,)]|\Z)""")


def _arguments(rest: str) -> list[str]:
    """Split what follows the opening bracket of a distribution."""
    arguments: list[str] = []
    position = 0
    while match := _ARGUMENT.match(rest, position):
        single, double, bare, end = match.groups()
        position = match.end()
        if not end:
            raise ValueError("the closing bracket is missing")
        if bare == "":
            if end == ")" and not arguments:
                return []
            raise ValueError("an argument is empty; write '' for an empty text")
        arguments.append(next(part for part in (single, double, bare) if part is not None))
        if end == ")":
            if rest[position:].strip():
                raise ValueError(f"{rest[position:]!r} follows the closing bracket")
            return arguments
    raise ValueError(
        f"cannot read {rest[position:].strip()!r}: quote a value that holds a comma, bracket, "
        "blank or quote"
    )


def _float_range(name: str, arguments: list[str]) -> FloatRange:
    low, high, step = _numbers(name, arguments, _finite, "a number")
    return FloatRange(low, high, log=name.startswith("log"), step=step)


def _integer_range(name: str, arguments: list[str]) -> IntegerRange:
    low, high, step = _numbers(name, arguments, parse_integer, "a whole number")
    whole_step = 1 if step is None else int(step)
    return IntegerRange(int(low), int(high), log=name.startswith("log"), step=whole_step)


def _choice(name: str, arguments: list[str]) -> Choice:
    if not arguments:
        raise ValueError(f"{name} needs at least one value")
    for index, argument in enumerate(arguments):
        if argument in arguments[:index]:
            raise ValueError(f"{argument!r} is given twice")
    return Choice(tuple(arguments))


_BUILDERS: dict[str, Callable[[str, list[str]], Distribution]] = {
    "uniform": _float_range,
    "loguniform": _float_range,
    "quniform": _float_range,
    "randint": _integer_range,
    "lograndint": _integer_range,
    "qrandint": _integer_range,
    "choice": _choice,
}


def _finite(text: str) -> float | None:
    number = parse_float(text)
    return number if number is not None and math.isfinite(number) else None


def _numbers(
    name: str, arguments: list[str], parse: Callable[[str], float | None], what: str
) -> tuple[float, float, float | None]:
    """Return the checked ends and step of a range."""
    form = "low, high, step" if name.startswith("q") else "low, high"
    if len(arguments) != form.count(",") + 1:
        raise ValueError(f"{name}({form}) takes {form.count(',') + 1} values, not {len(arguments)}")
    numbers: list[float] = []
    for argument in arguments:
        number = parse(argument)
        if number is None:
            raise ValueError(f"{argument!r} is not {what}")
        numbers.append(number)
    low, high, *rest = numbers
    if low >= high:
        raise ValueError(f"low {arguments[0]} is not below high {arguments[1]}")
    if name.startswith("log") and low <= 0:
        raise ValueError(f"low {arguments[0]} has no logarithm; it must be above 0")
    for step in rest:
        if not 0 < step <= high - low:
            raise ValueError(f"step {arguments[2]} is not above 0 and at most high - low")
        # As fractions of what the user wrote: in floats 0.3 is no multiple of 0.1.
        first, end, width = (Fraction(repr(number)) for number in numbers)
        if left_over := (end - first) % width:
            last = format_value(float(end - left_over)).removesuffix(".0")
            raise ValueError(f"the steps end at {last}, not at high; write {last} for it")
    return low, high, rest[0] if rest else None


def _range_text(name: str, low: float, high: float, step: float | None) -> str:
    numbers = [low, high] if step is None else [low, high, step]
    prefix = "" if step is None else "q"
    return f"{prefix}{name}({', '.join(repr(number).removesuffix('.0') for number in numbers)})"


def _quoted(text: str) -> str:
    if re.fullmatch(r"""[^\s,'"()]+""", text):
        return text
    return f'"{text}"' if "'" in text else f"'{text}'"
