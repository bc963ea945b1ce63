"""What the Test and Decoder programs say at their end.

::

    [Decode dev.lst (28 samples) in 0.56s (actual decoding time 0.0187s/sample) -- WER: 63.4%, TER: 55.6%]
    [Test dev.lst (16 samples) in 0.08s (actual decoding time 0.00503s/sample) -- WER: 8.88889, LER: 1.54639]

The first is flashlight's form, the second wav2letter v0.2's: no per cent sign, and the letter error
rate named after the target. Decode's has no prefix of glog: it is the second line of its record.
Source: ``Decode.cpp`` and ``Test.cpp`` of both, and captured runs of flashlight v0.3.2.
"""  # noqa: E501 (the lines are as they are)

from __future__ import annotations

import re
from collections.abc import Iterable

from w2ltune.formats.logs import without_prefix

_NUMBER = r"-?(?:\d[\d.]*(?:e[+-]?\d+)?|inf|nan)"
_SUMMARY = re.compile(
    rf"\[(?:Decode|Test) .* \(\d+ samples\) in ({_NUMBER})s "
    rf"\(actual decoding time {_NUMBER}s/sample\) -- WER: {_NUMBER}%?, [A-Z]ER: {_NUMBER}%?\]"
)


def find_seconds(lines: Iterable[str]) -> float | None:
    """Return the seconds of the whole run after loading, as the last summary in a log has them.

    Args:
        lines: Of a program of either generation.

    Returns:
        None where there is no summary: the program did not come to its end.

    Example:
        >>> find_seconds(["[Test a.lst (16 samples) in 0.1s (actual decoding time 0.005s/sample) "
        ...               "-- WER: 8.88889, LER: 1.54639]"])
        0.1
    """
    found = None
    for line in lines:
        if match := _SUMMARY.fullmatch(without_prefix(line).strip()):
            found = float(match[1])
    return found
