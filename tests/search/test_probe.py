"""What a wider beam would give, really decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from realdecodes import Decodes

from w2ltune.runs.outcome import Probe
from w2ltune.scoring.significance import clusters_from_ids
from w2ltune.search.probe import BEAM_FLAGS, WITHOUT_LM, probe, probe_size, widened

TOKENS = 28
COUNT = 20
WEIGHTS = {"lmweight": "1", "wordscore": "0"}
NARROW = {"beamsize": "8", "beamsizetoken": "20", "beamthreshold": "25"}
FEW_TOKENS = {"beamsize": "50", "beamsizetoken": "1", "beamthreshold": "25"}
WIDE = {"beamsize": "100", "beamsizetoken": "28", "beamthreshold": "50"}


@pytest.fixture(scope="module")
def decodes() -> Decodes:
    return Decodes(name="dev-long", utterances=COUNT)  # long utterances need a wide beam


@pytest.fixture(scope="module")
def short() -> Decodes:
    return Decodes(utterances=COUNT)  # short ones need none


def run(
    decodes: Decodes,
    beam: Mapping[str, str],
    auto: Sequence[str] = (),
    *,
    max_rtf: float | None = None,
    has_lm: bool = True,
) -> Probe:
    def decode(changed: Mapping[str, str]) -> tuple[np.ndarray, float]:
        found = decodes.decode({**WEIGHTS, **changed})
        return found.counts, found.seconds

    return probe(
        decode,
        trial=3,
        beam=beam,
        auto=auto,
        token_count=TOKENS,
        has_lm=has_lm,
        clusters=clusters_from_ids([f"utterance {i}" for i in range(COUNT)], None),
        audio_seconds=decodes.audio_seconds,
        max_rtf=max_rtf,
    )


def check_rows(decodes: Decodes, found: Probe) -> None:
    """Each row has the counts of its own decode, compared with the first."""
    first = found.rows[0]
    for row in found.rows:
        weights = {**WEIGHTS, **(WITHOUT_LM if row.label == "without LM" else {})}
        counts = decodes.decode({**weights, **row.beam}).counts
        assert row.counts == tuple(counts.sum(axis=0).tolist())
        assert row.work_seconds > 0
        if row is first:
            assert row.against_searched is None
            continue
        assert row.against_searched is not None
        difference = (sum(row.counts[:3]) - sum(first.counts[:3])) / first.counts[3]
        assert row.against_searched.difference == pytest.approx(difference)
        assert row.against_searched.unit == f"utterance ({COUNT})"


def test_a_beam_that_is_wide_enough(short: Decodes) -> None:
    found = run(short, WIDE)
    assert [row.label for row in found.rows] == ["as searched", "wider", "without LM"]
    check_rows(short, found)
    assert found.rows[0].beam == found.rows[2].beam == WIDE
    assert found.rows[1].beam == widened(WIDE, TOKENS)
    assert found.advice.startswith("a wider beam changes +0.00 [+0.00, +0.00]")
    assert found.advice.endswith("this one is wide enough")
    assert found.raised == {}
    assert (found.trial, found.utterances) == (3, COUNT)
    assert found.audio_seconds == pytest.approx(short.audio_seconds)
    without = found.rows[2].against_searched
    assert without is not None and without.interval[0] > 0  # the LM helps


def test_wide_enough_under_auto_tries_nothing_more(short: Decodes) -> None:
    found = run(short, WIDE, BEAM_FLAGS)
    assert [row.label for row in found.rows] == ["as searched", "wider", "without LM"]
    assert found.raised == {}
    assert found.advice.endswith("this one is wide enough")


def test_a_fixed_beam_is_kept_and_the_loss_is_told(decodes: Decodes) -> None:
    found = run(decodes, NARROW)
    assert [row.label for row in found.rows] == ["as searched", "wider", "without LM"]
    check_rows(decodes, found)
    gained = found.rows[1].against_searched
    assert gained is not None and gained.interval[1] < 0
    assert found.raised == {}
    assert found.advice.startswith(f"a wider beam gives {100 * gained.difference:+.2f} [")
    told = re.search(r"at ([\d.]+) times the CPU time, and other weights will be", found.advice)
    times = found.rows[1].work_seconds / found.rows[0].work_seconds
    assert told is not None and float(told[1]) == pytest.approx(times, rel=0.1)
    flags = "--beamsize=32 --beamsizetoken=28 --beamthreshold=50, or --beamsize=auto"
    assert found.advice.endswith(flags)


def test_without_an_lm_there_is_none_to_leave_out(decodes: Decodes) -> None:
    labels = [row.label for row in run(decodes, NARROW, has_lm=False).rows]
    assert labels == ["as searched", "wider"]


def most_for_its_time(found: Probe) -> str:
    """The flag that saves most errors for each second more, from the rows."""
    first = found.rows[0]
    saved = {}
    for row in found.rows[3:]:
        seconds = max(row.work_seconds - first.work_seconds, 0.01 * first.work_seconds)
        saved[row.label.removesuffix(" alone")] = (
            sum(first.counts[:3]) - sum(row.counts[:3])
        ) / seconds
    return max(saved, key=lambda name: saved[name])


@pytest.mark.parametrize(
    ("beam", "auto"),
    [
        (NARROW, BEAM_FLAGS),
        (NARROW, ("beamsize",)),
        (FEW_TOKENS, BEAM_FLAGS),
        (FEW_TOKENS, ("beamsize", "beamsizetoken")),
    ],
)
def test_auto_raises_what_gives_most_for_its_time(
    decodes: Decodes, beam: Mapping[str, str], auto: Sequence[str]
) -> None:
    found = run(decodes, beam, auto)
    alone = [f"{name} alone" for name in auto]
    assert [row.label for row in found.rows] == ["as searched", "wider", "without LM", *alone]
    check_rows(decodes, found)
    wide = widened(beam, TOKENS)
    for name, row in zip(auto, found.rows[3:], strict=True):
        assert row.beam == {**beam, name: wide[name]}
    best = most_for_its_time(found)
    assert found.raised == {best: wide[best]}
    assert found.advice == f"{best} is raised from {beam[best]} to {wide[best]}"


def test_what_is_as_wide_as_can_be_is_not_tried_alone(decodes: Decodes) -> None:
    found = run(decodes, {**NARROW, "beamsizetoken": "28"}, BEAM_FLAGS)
    labels = [row.label for row in found.rows[3:]]
    assert labels == ["beamsize alone", "beamthreshold alone"]


@pytest.mark.parametrize(
    ("auto", "max_rtf", "ending"),
    [
        (BEAM_FLAGS, 1e-7, "but no single flag does within --max_rtf=1e-07"),
        (("beamthreshold",), None, "but no single flag does"),
    ],
)
def test_nothing_is_raised(
    decodes: Decodes, auto: Sequence[str], max_rtf: float | None, ending: str
) -> None:
    found = run(decodes, NARROW, auto, max_rtf=max_rtf)
    assert found.raised == {}
    assert found.advice == f"a wider beam would help, {ending}"


def test_max_rtf_allows_what_is_fast_enough(decodes: Decodes) -> None:
    assert run(decodes, NARROW, ("beamsize",), max_rtf=1000).raised == {"beamsize": "32"}


@pytest.mark.parametrize(
    ("utterances", "size"),
    [
        (1, 1),
        (19, 19),
        (20, 20),
        (50, 20),
        (51, 20),
        (100, 40),
        (250, 100),
        (251, 100),
        (9999, 100),
    ],
)
def test_size_of_a_probe(utterances: int, size: int) -> None:
    assert probe_size(utterances) == size


@pytest.mark.parametrize(
    ("beam", "expected"),
    [
        (("50", "20", "25"), ("200", "28", "50")),
        (("1", "1", "0.25"), ("4", "28", "0.5")),
        (("2500", "28", "12.5"), ("10000", "28", "25")),
        (("2500", "250000", "25"), ("10000", "250000", "50")),  # the binary's default: all tokens
    ],
)
def test_widened(beam: tuple[str, ...], expected: tuple[str, ...]) -> None:
    found = widened(dict(zip(BEAM_FLAGS, beam, strict=True)), TOKENS)
    assert found == dict(zip(BEAM_FLAGS, expected, strict=True))
