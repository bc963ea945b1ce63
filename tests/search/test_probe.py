"""What a wider beam gives at weights of its own, and which beam ``auto`` takes; really decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from realdecodes import FLAGS, Decodes, make_box

from w2ltune.runs.outcome import Comparison, Probe
from w2ltune.scoring.significance import clusters_from_ids
from w2ltune.search.part import Parts, Tried
from w2ltune.search.probe import (
    BEAM_FLAGS,
    LEAST_SAVED,
    Scene,
    choose_beam,
    probe,
    verdict,
    widened,
    worth_having,
)
from w2ltune.search.space import ANCESTOR_RANGES

TOKENS = 28
COUNT = 20
BOX = make_box(ANCESTOR_RANGES)
VALUES = np.array([2.0, 1.0])
NARROW = {"beamsize": "8", "beamsizetoken": "20", "beamthreshold": "25"}
FEW_TOKENS = {"beamsize": "50", "beamsizetoken": "1", "beamthreshold": "25"}
WIDE = {"beamsize": "100", "beamsizetoken": "28", "beamthreshold": "50"}


@pytest.fixture(scope="module")
def decodes() -> Decodes:
    return Decodes(name="dev-long", utterances=COUNT)  # long utterances need a wide beam


@pytest.fixture(scope="module")
def short() -> Decodes:
    return Decodes(utterances=COUNT)  # short ones need none


def scene_of(decodes: Decodes, *, max_rtf: float | None = None) -> Scene:
    fixed = {name: text for name, text in FLAGS.items() if name not in BOX.names}
    words = np.array([len(reference) for reference in decodes.references], dtype=np.int32)
    return Scene(
        parts=Parts(decodes.part, fixed, BOX, range(COUNT), words),
        clusters=lambda block: clusters_from_ids([f"utterance {i}" for i in block], None),
        audio_seconds=lambda block: decodes.audio_seconds * len(block) / COUNT,
        token_count=TOKENS,
        max_rtf=max_rtf,
    )


def run(decodes: Decodes, beam: dict[str, str], *, has_lm: bool = True) -> Probe:
    """Look from weights that were tuned for the beam."""
    answer, _ = scene_of(decodes).parts.solve(beam, VALUES, COUNT)
    return probe(
        scene_of(decodes),
        trial=3,
        beam=beam,
        values=answer.values,
        counts=answer.counts,
        seconds=answer.seconds,
        has_lm=has_lm,
    )


def test_it_says_no_more_than_the_interval(short: Decodes) -> None:
    found = run(short, WIDE)
    assert [row.label for row in found.rows][:2] == ["as searched", "beamsize 400"]
    assert found.rows[-1].label == "without LM"
    without, gained = found.rows[-1].against_searched, found.rows[1].against_searched
    assert without is not None and without.interval[0] > 0  # the LM helps
    assert gained is not None
    words = found.rows[0].counts[3]
    enough = gained.interval[0] >= -LEAST_SAVED / words
    assert found.advice.endswith("wide enough" if enough else "cannot be told on this list")
    assert (found.trial, found.utterances, found.raised) == (3, COUNT, {})
    assert found.decoded == COUNT * round(found.decoded / COUNT) >= 2 * COUNT


def test_the_loss_is_told_at_weights_of_the_wider_beam(decodes: Decodes) -> None:
    found = run(decodes, NARROW, has_lm=False)
    assert "without LM" not in [row.label for row in found.rows]
    wide = next(row for row in found.rows if row.label == "beamsize 32")
    ours = {name: str(value) for name, value in found.rows[0].weights.items()}
    at_ours = decodes.decode({**ours, **NARROW, "beamsize": "32"})
    gained = wide.against_searched
    assert gained is not None and gained.interval[1] < 0
    assert sum(wide.counts[:3]) <= at_ours.errors.sum() + 1  # at weights of its own
    assert found.advice.startswith("a wider one, at its own weights, changes -")
    assert "--beamsize=32" in found.advice and found.advice.endswith(", or --beamsize=auto")
    for row in found.rows:
        flags = {name: str(value) for name, value in row.weights.items()}
        counts = decodes.decode({**flags, **row.beam}).counts.sum(axis=0)
        assert abs(int(counts[:3].sum()) - sum(row.counts[:3])) <= 2  # weights are rounded there


def test_only_the_flags_that_matter_are_named(decodes: Decodes) -> None:
    found = run(decodes, FEW_TOKENS)
    advice = found.advice.partition("CPU time: ")[2]
    assert "--beamsizetoken=4" in advice
    assert "--beamthreshold" not in advice


@pytest.mark.parametrize("auto", [BEAM_FLAGS, ("beamsize",)])
def test_auto_goes_up_as_long_as_it_helps(
    decodes: Decodes, auto: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("w2ltune.search.probe.MOST_BEAM", 32)
    found = choose_beam(scene_of(decodes), beam=NARROW, auto=auto, start=np.array([2.0, 0.0]))
    assert set(found.raised) == set(auto)
    assert int(found.raised["beamsize"]) >= 32
    assert set(found.start) == set(BOX.names)
    assert found.trial == -1
    assert "a wider one, at its own weights, changes" in found.advice
    errors = {row.beam["beamsize"]: sum(row.counts[:3]) for row in found.rows}
    assert errors[found.raised["beamsize"]] < 0.9 * errors["8"]


def test_auto_goes_down_where_it_is_too_slow(decodes: Decodes) -> None:
    found = choose_beam(scene_of(decodes, max_rtf=1e-9), beam=NARROW, auto=BEAM_FLAGS, start=VALUES)
    assert found.raised["beamsize"] == "1"


@pytest.mark.parametrize(
    ("low", "difference", "high", "says"),
    [
        (-0.05, -0.03, -0.01, "helps"),
        (-0.05, -0.001, -0.0005, ""),  # one error is chance
        (-0.05, -0.02, 0.01, ""),
        (-0.002, 0.0, 0.002, "enough"),
        (0.0, 0.0, 0.0, "enough"),
        (0.01, 0.02, 0.03, "enough"),
    ],
)
def test_verdict(low: float, difference: float, high: float, says: str) -> None:
    counts = np.array([[1, 0, 0, 10]] * 100)
    narrow = Tried(beam=NARROW, values=VALUES, counts=counts, seconds=1.0)
    gained = Comparison(difference=difference, interval=(low, high), unit="")
    assert verdict(gained, narrow, worth_having(counts, 1000)) == says


def test_few_utterances_without_a_change_tell_little() -> None:
    few = Tried(beam=NARROW, values=VALUES, counts=np.array([[1, 0, 0, 10]] * 20), seconds=1.0)
    same = Comparison(difference=0.0, interval=(0.0, 0.0), unit="")
    assert verdict(same, few, worth_having(few.counts, 20_000)) == ""


@pytest.mark.parametrize(
    ("beam", "expected"),
    [
        (("50", "20", "25"), ("200", "28", "50")),
        (("1", "1", "0.25"), ("4", "4", "0.5")),
        (("2500", "28", "12.5"), ("10000", "28", "25")),
        (("2500", "250000", "25"), ("10000", "250000", "50")),  # the binary's default: all tokens
    ],
)
def test_widened(beam: tuple[str, ...], expected: tuple[str, ...]) -> None:
    found = widened(dict(zip(BEAM_FLAGS, beam, strict=True)), TOKENS)
    assert found == dict(zip(BEAM_FLAGS, expected, strict=True))
