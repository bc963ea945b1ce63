"""What the Test and Decoder programs say at their end, and of each utterance with ``--show``.

::

    [Decode dev.lst (28 samples) in 0.56s (actual decoding time 0.0187s/sample) -- WER: 63.4%, TER: 55.6%]
    [Test dev.lst (16 samples) in 0.08s (actual decoding time 0.00503s/sample) -- WER: 8.88889, LER: 1.54639]
    [sample: tsta-0010, WER: 50%, TER: 57.1429%, slice WER: 63.4%, slice TER: 55.6%, decoded samples (thread 0): 28]

The first is flashlight's form, the second wav2letter v0.2's: no per cent sign, and the letter error
rate named after the target. Decode's has no prefix of glog: it is the second line of its record.
Source: ``Decode.cpp`` and ``Test.cpp`` of both, and captured runs of flashlight v0.3.2.
"""  # noqa: E501 (the lines are as they are)

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from w2ltune.formats.logs import without_prefix

_NUMBER = r"(-?(?:\d[\d.]*(?:e[+-]?\d+)?|inf|nan))"
_SUMMARY = re.compile(
    rf"\[(Decode|Test) (.*) \((\d+) samples\) in {_NUMBER}s "
    rf"\(actual decoding time {_NUMBER}s/sample\) -- WER: {_NUMBER}%?, [A-Z]ER: {_NUMBER}%?\]"
)
_SAMPLE = re.compile(rf"\[sample: (.*?), WER: {_NUMBER}%?, [A-Z]ER: {_NUMBER}%?, .*\]")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The last line of a run.

    Attributes:
        program: ``Decode`` or ``Test``.
        lists: As ``--test`` had them.
        utterances: Decoded; 0 for a beam dump, whose rates mean nothing.
        seconds: Of the whole run after loading.
        seconds_per_utterance: Of the search alone; nan where there was none.
        wer: A fraction; inf where no reference has a word.
        ter: The error rate of the targets' tokens or letters, a fraction.
    """

    program: str
    lists: str
    utterances: int
    seconds: float
    seconds_per_utterance: float
    wer: float
    ter: float


def parse_summary(line: str) -> Summary | None:
    """Return the summary that a line is, in the form of either generation; None for any other.

    Example:
        >>> parse_summary("[Test a.lst (16 samples) in 0.1s (actual decoding time 0.005s/sample) "
        ...               "-- WER: 8.88889, LER: 1.54639]").wer
        0.0888889
    """
    match = _SUMMARY.fullmatch(without_prefix(line).strip())
    if match is None:
        return None
    program, lists, count, *numbers = match.groups()
    seconds, each, wer, ter = map(float, numbers)
    return Summary(
        program=program,
        lists=lists,
        utterances=int(count),
        seconds=seconds,
        seconds_per_utterance=abs(each) if math.isnan(each) else each,
        wer=_fraction(wer),
        ter=_fraction(ter),
    )


def find_summary(lines: Iterable[str]) -> Summary | None:
    """Return the last summary in a log; None where the program did not come to its end."""
    found = None
    for line in lines:
        found = parse_summary(line) or found
    return found


def parse_sample(line: str) -> tuple[str, float] | None:
    """Return utterance id and WER, a fraction, of a line of ``--show``; None for any other.

    Example:
        >>> parse_sample("[sample: tsta-0010, WER: 50%, TER: 57.1429%, slice WER: 63.4%, "
        ...              "slice TER: 55.6%, decoded samples (thread 0): 28]")
        ('tsta-0010', 0.5)
    """
    match = _SAMPLE.fullmatch(without_prefix(line).strip())
    return None if match is None else (match[1], _fraction(float(match[2])))


def _fraction(per_cent: float) -> float:
    return float(f"{per_cent / 100:.12g}")  # 8.88889 % is 0.0888889, not 0.08888889999999999
