import re

import pytest

from w2ltune.formats.decodelog import find_seconds

FLASHLIGHT = (
    "[Decode a.lst,b.lst (28 samples) in 0.564968s (actual decoding time 0.0187s/sample) "
    "-- WER: 63.4146%, TER: 55.6497%]"
)
WAV2LETTER = (
    "[Decode dev-other.lst (2864 samples) in 1210.35s (actual decoding time 0.412s/sample) "
    "-- WER: 10.2437, LER: 4.91872]"
)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (FLASHLIGHT, 0.564968),
        (WAV2LETTER, 1210.35),
        (f"I20261122 16:58:14.675534 17014 Decode.cpp:838] {FLASHLIGHT}", 0.564968),
        (f"I1122 16:58:14.675534 17014 Decode.cpp:838] {WAV2LETTER}", 1210.35),
        (f"{WAV2LETTER}\n", 1210.35),
        (FLASHLIGHT.replace("63.4146", "inf"), 0.564968),
        (FLASHLIGHT.replace("0.564968", "1e-05"), 1e-5),
        (FLASHLIGHT.replace("a.lst,b.lst", "a (x) [y].lst"), 0.564968),
        (FLASHLIGHT.replace("63.4146%, TER", "63.4146%, WER"), 0.564968),
        (FLASHLIGHT.replace("0.0187s", "-nans"), 0.564968),  # a beam dump has no rates
    ],
)
def test_lines_as_they_come(line, seconds):
    assert find_seconds(["", line, "------"]) == seconds


def test_the_last_one_counts():
    assert find_seconds([FLASHLIGHT, WAV2LETTER]) == 1210.35


@pytest.mark.parametrize(
    "line", ["", "------", FLASHLIGHT[:-1], FLASHLIGHT[:60], "[Decoder] Lexicon decoder loaded"]
)
def test_other_lines_are_none(line):
    assert find_seconds([line]) is None


def test_captured_runs(captures):
    """Each run that ended well has one summary; each that did not has none; no line is missed."""
    seen = 0
    for rc in sorted([*captures.glob("dec/*.rc"), *captures.glob("test/*.rc")]):
        texts = [rc.with_suffix(end).read_text(errors="replace") for end in (".stderr", ".stdout")]
        lines = [line for text in texts for line in text.splitlines()]
        found = find_seconds(lines)
        like = [line for line in lines if re.search(r"\[(Decode|Test) .*samples\) in", line)]
        assert all(find_seconds([line]) is not None for line in like), rc.name
        # One program logs to files unless it is told otherwise.
        if rc.read_text().strip() != "0":
            assert found is None, rc.name
        elif like:
            seen += 1
            assert found is not None
    assert seen >= 20
