import math
import re

import pytest

from w2ltune.formats.decodelog import find_summary, parse_sample, parse_summary

FLASHLIGHT = (
    "[Decode a.lst,b.lst (28 samples) in 0.564968s (actual decoding time 0.0187s/sample) "
    "-- WER: 63.4146%, TER: 55.6497%]"
)
WAV2LETTER = (
    "[Decode dev-other.lst (2864 samples) in 1210.35s (actual decoding time 0.412s/sample) "
    "-- WER: 10.2437, LER: 4.91872]"
)


def test_both_generations():
    found = parse_summary(FLASHLIGHT)
    assert (found.program, found.lists, found.utterances) == ("Decode", "a.lst,b.lst", 28)
    assert (found.seconds, found.seconds_per_utterance) == (0.564968, 0.0187)
    assert (found.wer, found.ter) == (0.634146, 0.556497)
    found = parse_summary(WAV2LETTER)
    assert (found.lists, found.utterances, found.wer, found.ter) == (
        "dev-other.lst", 2864, 0.102437, 0.0491872,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "wer"),
    [
        (f"I20261122 16:58:14.675534 17014 Decode.cpp:838] {FLASHLIGHT}", 0.634146),
        (f"I1122 16:58:14.675534 17014 Decode.cpp:838] {WAV2LETTER}", 0.102437),
        (f"{WAV2LETTER}\n", 0.102437),
        (FLASHLIGHT.replace("63.4146", "inf"), math.inf),
        (FLASHLIGHT.replace("63.4146", "1e-05"), 1e-7),
        (FLASHLIGHT.replace("a.lst,b.lst", "a (x) [y].lst"), 0.634146),
        (FLASHLIGHT.replace("WER: 63.4146%, TER", "WER: 63.4146%, WER"), 0.634146),
    ],
)
def test_lines_as_they_come(line, wer):
    assert parse_summary(line).wer == wer


def test_a_beam_dump_has_no_rates():
    found = parse_summary(
        "[Decode a.lst (0 samples) in 0.04s (actual decoding time -nans/sample) "
        "-- WER: 0%, TER: 0%]"
    )
    assert found.utterances == 0
    assert math.isnan(found.seconds_per_utterance)


@pytest.mark.parametrize(
    "line", ["", "------", FLASHLIGHT[:-1], FLASHLIGHT[:60], "[Decoder] Lexicon decoder loaded"]
)
def test_other_lines_are_none(line):
    assert parse_summary(line) is None
    assert parse_sample(line) is None


def test_samples_of_both_programs():
    line = "[sample: a, b-7, WER: {}, total WER: 0%, total TER: 0%, progress (thread 0): 6.25%]"
    assert parse_sample(line.format("50%, TER: 4.1%")) == ("a, b-7", 0.5)
    assert parse_sample(line.format("50, LER: 4.1")) == ("a, b-7", 0.5)
    assert parse_sample(line.format("inf%, TER: 100%")) == ("a, b-7", math.inf)


def test_captured_runs(captures):
    """Each run that ended well has one summary; each that did not has none; no line is missed."""
    seen = samples = 0
    for rc in sorted([*captures.glob("dec/*.rc"), *captures.glob("test/*.rc")]):
        texts = [rc.with_suffix(end).read_text(errors="replace") for end in (".stderr", ".stdout")]
        lines = [line for text in texts for line in text.splitlines()]
        found = find_summary(lines)
        like = [line for line in lines if re.search(r"\[(Decode|Test) .*samples\) in", line)]
        assert len([line for line in lines if parse_summary(line)]) == len(like), rc.name
        shown = [line for line in lines if line.startswith("[sample: ")]
        assert all(parse_sample(line) for line in shown), rc.name
        samples += len(shown)
        # One program logs to files unless it is told otherwise.
        if rc.read_text().strip() != "0":
            assert found is None, rc.name
        elif like:
            seen += 1
            assert found is not None
    assert seen >= 20
    assert samples >= 100
