"""Lines and fields of a large text as arrays of byte positions, and the numbers in them.

All functions take the bytes of the text as an array, uint8 [size], and ranges as two arrays of
positions, int64 [rows] each: where they begin, and the byte after their end.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Positions: TypeAlias = NDArray[np.int64]
Ranges: TypeAlias = tuple[Positions, Positions]

_BLANK, _NEWLINE, _RETURN, _MINUS, _POINT, _ZERO = b" \n\r-.0"
_EXACT_DIGITS = 15  # so many always fit a float64


def find_lines(data: NDArray[np.uint8]) -> tuple[Positions, Ranges]:
    """Return number, from 1, and range of each line that holds more than blanks."""
    end = np.flatnonzero(data == _NEWLINE)
    if len(data) and data[-1] != _NEWLINE:
        end = np.append(end, len(data))
    begin, end = strip(data, (np.append(0, end[:-1] + 1)[: len(end)], end), returns=True)
    rows = np.flatnonzero(begin < end)
    return rows + 1, (begin[rows], end[rows])


def strip(data: NDArray[np.uint8], ranges: Ranges, *, returns: bool = False) -> Ranges:
    """Leave out the blanks at both ends of the ranges, and carriage returns if asked to."""
    begin, end = ranges[0].copy(), ranges[1].copy()
    for moving, offset, step in ((end, -1, -1), (begin, 0, 1)):
        rows: slice | Positions = slice(None)
        while True:
            byte = data.take(moving[rows] + offset, mode="clip") if len(data) else data
            blank = (byte == _BLANK) | (byte == _RETURN) if returns else byte == _BLANK
            found = np.flatnonzero(blank & (begin[rows] < end[rows]))
            if not len(found):
                break
            rows = found if isinstance(rows, slice) else rows[found]
            moving[rows] += step
    return begin, end


def blank_gaps(data: NDArray[np.uint8]) -> tuple[Positions, Positions]:
    """Return where blanks are, and where runs of them end: the same array if none has two."""
    blank = data == _BLANK
    blanks = np.flatnonzero(blank)
    if not (blank[1:] & blank[:-1]).any():
        return blanks, blanks
    return blanks, blanks[np.diff(blanks, append=len(data) + 1) != 1]


def has_other_blanks(content: bytes) -> bool:
    """Tell whether the words of the lines are split at anything else than ``" "``."""
    other = any(blank in content for blank in (b"\t", b"\v", b"\f"))
    return other or content.count(b"\r") != content.count(b"\r\n") + content.endswith(b"\r")


def count_within(positions: Positions, ranges: Ranges) -> Positions:
    """Count how many of the rising positions lie in each range."""
    begin, end = ranges
    count: Positions = np.searchsorted(positions, end) - np.searchsorted(positions, begin)
    return count


def same_as_before(data: NDArray[np.uint8], ranges: Ranges) -> NDArray[np.bool_]:
    """Return of which ranges, of 64 bytes at most, the one before holds the same."""
    begin, end = ranges
    length = end - begin
    same = np.append(False, length[1:] == length[:-1])[: len(begin)] & (length <= 64)
    for offset in range(int(length[same].max(initial=0))):
        byte = data.take(begin + offset, mode="clip")
        same[1:] &= (byte[1:] == byte[:-1]) | (length[1:] <= offset)
    return same


def parse_numbers(content: bytes, data: NDArray[np.uint8], ranges: Ranges) -> NDArray[np.float64]:
    """Return the numbers in the ranges, to the last bit as ``float`` reads them.

    Fast where all have the same number of decimals, as ``%f`` writes them.

    Raises:
        ValueError: A field is no number, or one in digits beyond ASCII.
    """
    begin, end = ranges
    if not len(begin):
        return np.zeros(0)
    decimals = _decimals(content[begin[0] : end[0]])
    minus = data.take(begin, mode="clip") == _MINUS
    whole = end - begin - minus - decimals - 1  # digits before the point
    plain = (whole > 0) & (whole + decimals <= _EXACT_DIGITS)
    plain &= data.take(end - decimals - 1, mode="clip") == _POINT
    value = np.zeros(len(begin), dtype=np.int64)
    for place in range(decimals + max(0, int(whole[plain].max(initial=0)))):
        after_point = place < decimals
        position = end - 1 - place - (0 if after_point else 1)
        digit = data.take(position, mode="clip") - np.uint8(_ZERO)  # others wrap to above 9
        if not after_point:
            digit[place - decimals >= whole] = 0
        plain &= digit <= 9
        value += digit * np.int64(10**place)
    # Both are exact, and so the quotient is the nearest number, which is what float() gives.
    numbers = value / 10.0**decimals
    np.negative(numbers, out=numbers, where=minus)
    others = np.flatnonzero(~plain)
    bounds = map(slice, begin[others].tolist(), end[others].tolist())
    numbers[others] = list(map(float, map(content.__getitem__, bounds)))
    return numbers


def _decimals(field: bytes) -> int:
    _, _, decimals = field.partition(b".")
    return len(decimals) if 0 < len(decimals) < _EXACT_DIGITS else 6
