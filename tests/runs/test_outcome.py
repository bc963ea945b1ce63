"""What a sweep came to, written and read again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from w2ltune.errors import InputError
from w2ltune.runs.outcome import (
    NAME,
    Choice,
    Comparison,
    Look,
    Outcome,
    Probe,
    ProbeRow,
    read_outcome,
    write_outcome,
)

BETTER = Comparison(difference=-0.0125, interval=(-0.02, -0.003), unit="speaker (40)")
CHOICE = Choice(
    target="dev-other.lst",
    trial=7,
    best_trial=4,
    why="middle of the plateau",
    counts=(31, 12, 5, 1143),
    interval=(0.031, 0.052),
    unit="speaker (40)",
    oracle=0.0125,
    against_baseline=BETTER,
)
BEAM = {"beamsize": "50", "beamsizetoken": "20", "beamthreshold": "25"}
SEARCHED = ProbeRow(label="as searched", beam=BEAM, counts=(9, 8, 7, 600), work_seconds=1.25)
PROBE = Probe(
    trial=7,
    utterances=100,
    audio_seconds=321.5,
    rows=(SEARCHED, dataclasses.replace(SEARCHED, label="wider", against_searched=BETTER)),
    advice="beamsize is raised from 50 to 200",
    raised={"beamsize": "200"},
)
LOOK = Look(
    name="test.lst",
    trial=7,
    flags={"lmweight": "2.25", "lm": "modèle.arpa"},
    counts=(40, 10, 6, 1200),
    interval=(0.04, 0.06),
    unit="utterance (250)",
    missing=2,
    baseline=(50, 12, 6, 1200),
    against_baseline=BETTER,
)
FULL = Outcome(
    reason="no decode is expected to save 1.0 errors or more",
    sampler="nbest",
    baselines={"greedy": 0.151, "without LM": 0.132},
    baseline_trial=0,
    choices=(CHOICE, dataclasses.replace(CHOICE, target="")),
    probes=(PROBE, dataclasses.replace(PROBE, audio_seconds=None, raised={})),
    looks=(LOOK, dataclasses.replace(LOOK, baseline=None, against_baseline=None)),
    audio_seconds=5400.0,
)


@pytest.mark.parametrize(
    "outcome",
    [
        FULL,
        Outcome(),
        Outcome(reason="all 40 trials are done", baseline_trial=None),
        Outcome(choices=(dataclasses.replace(CHOICE, oracle=None, against_baseline=None),)),
        Outcome(probes=(dataclasses.replace(PROBE, rows=()),)),
    ],
    ids=["full", "empty", "reason", "choice", "probe"],
)
def test_read_as_written(tmp_path: Path, outcome: Outcome) -> None:
    write_outcome(tmp_path, outcome)
    found = read_outcome(tmp_path)
    assert found == outcome
    assert repr(found) == repr(outcome)  # tuples are tuples again
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_study_without_an_outcome(tmp_path: Path) -> None:
    assert read_outcome(tmp_path) == Outcome()


def test_a_later_one_replaces_it(tmp_path: Path) -> None:
    write_outcome(tmp_path, FULL)
    write_outcome(tmp_path, dataclasses.replace(FULL, reason="later", looks=()))
    found = read_outcome(tmp_path)
    assert (found.reason, found.looks, found.choices) == ("later", (), FULL.choices)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_outcome(tmp_path, FULL)
    path = tmp_path / NAME
    path.write_text(path.read_text(encoding="utf-8")[:200], encoding="utf-8")
    with pytest.raises(InputError, match=r"outcome\.json: damaged"):
        read_outcome(tmp_path)
