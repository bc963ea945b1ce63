"""What a decode sweep came to, beyond its trials: ``outcome.json``, written by the driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from w2ltune import files
from w2ltune.errors import StudyMismatchError

FORMAT = 1
NAME = "outcome.json"

Counts = tuple[int, int, int, int]
"""Substitutions, deletions, insertions, reference words."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A paired difference of error rates, as fractions; below 0 is better.

    Attributes:
        difference: The rate minus the other's, on the same utterances.
        interval: Its 95 % interval.
        unit: What was resampled, and how many there are: "speaker (40)".
    """

    difference: float
    interval: tuple[float, float]
    unit: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The trial that was chosen for a list, or for all lists together.

    Attributes:
        target: Name of the list; "" for all of them.
        trial: The chosen trial.
        best_trial: The one with the fewest errors.
        why: The rule in words ("middle of the plateau", "fewest errors").
        counts: The chosen trial's errors on the target.
        interval: 95 % interval of its rate.
        unit: What was resampled for it.
        oracle: Rate of the best hypotheses in all n-best lists; None without them.
        against_baseline: Compared with the baseline (the first one given, else the first decode).
    """

    GONE: ClassVar = ("setting",)
    target: str
    trial: int
    best_trial: int
    why: str
    counts: Counts
    interval: tuple[float, float]
    unit: str
    oracle: float | None = None
    against_baseline: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """One beam, decoded on the probe's utterances.

    Attributes:
        label: What it is: "as searched", "4x beamsize", "without LM" and the like.
        beam: beamsize, beamsizetoken and beamthreshold as flags.
        counts: Errors on the probe's utterances.
        work_seconds: Processor time.
        against_searched: Compared with the first row, or with the beam before it; None for the
            first.
        weights: The searched weights that it was decoded with.
    """

    label: str
    beam: Mapping[str, str]
    counts: Counts
    work_seconds: float
    against_searched: Comparison | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Decodes of a part of the list: before the first trial, or of what a wider beam would give.

    Attributes:
        trial: Whose beam; -1 before the first.
        utterances: Of the part.
        audio_seconds: Their length; None where the list does not tell.
        rows: The beam as searched first.
        advice: What follows from it, in one line.
        raised: Beam flags that ``auto`` searches with next; empty at the end.
        start: Weights at which the first trial begins.
        level: What the beam loses at the largest LM weight, in each utterance.
        decoded: Utterances of all these decodes.
        work_seconds: Processor time of them.
    """

    trial: int
    utterances: int
    audio_seconds: float | None
    rows: tuple[ProbeRow, ...]
    advice: str
    raised: Mapping[str, str] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    level: float = 0.0
    decoded: int = 0
    work_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """One decode of a held-out list.

    Attributes:
        name: The list.
        trial: Whose weights.
        flags: Decoder flags that decided it.
        counts: Errors.
        interval: 95 % interval of the rate.
        unit: What was resampled for it.
        missing: Utterances without a hypothesis.
        baseline: Errors of the baseline; None without one.
        against_baseline: Compared with it.
    """

    name: str
    trial: int
    flags: Mapping[str, str]
    counts: Counts
    interval: tuple[float, float]
    unit: str
    missing: int = 0
    baseline: Counts | None = None
    against_baseline: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerCheck:
    """An answer that was decoded in process, held against the binary.

    Attributes:
        flags: All of the answer's.
        equal: Whether the binary gave the same words and scores.
        text: What was found.
    """

    flags: Mapping[str, str]
    equal: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All of it.

    Attributes:
        reason: Why the search stopped.
        sampler: What searched: "nbest", "tpe" or "nbest, then tpe".
        baselines: Rates without any search, by name ("greedy", "without LM").
        baseline_trial: The trial that ``--baseline`` gave, or None.
        choices: For each target (and setting).
        probes: Beams tried.
        looks: Decodes of held-out lists, each counted.
        checks: Answers held against the binary.
        audio_seconds: Length of the dev lists; None where they do not tell.
    """

    reason: str = ""
    sampler: str = ""
    baselines: Mapping[str, float] = field(default_factory=dict)
    baseline_trial: int | None = None
    choices: tuple[Choice, ...] = ()
    probes: tuple[Probe, ...] = ()
    looks: tuple[Look, ...] = ()
    checks: tuple[AnswerCheck, ...] = ()
    audio_seconds: float | None = None
    format: int = FORMAT


def part_spent(probes: Iterable[Probe]) -> tuple[int, float]:
    """Return the utterances and the CPU seconds of decodes of a part of the list."""
    decoded, seconds = 0, 0.0
    for probe in probes:  # of an older w2ltune they have their rows only
        decoded += probe.decoded or probe.utterances * len(probe.rows)
        seconds += probe.work_seconds or sum(row.work_seconds for row in probe.rows)
    return decoded, seconds


def write_outcome(study: Path, outcome: Outcome) -> None:
    """Write a study's ``outcome.json`` in one step."""
    files.write_json(study / NAME, asdict(outcome))


def read_outcome(study: Path) -> Outcome:
    """Return what is known of a study's outcome; an empty one while there is none.

    Raises:
        StudyMismatchError: It was written by a newer w2ltune.
    """
    content: dict[str, Any] = files.read_json(study / NAME) or {}
    with files.shaped(study / NAME):
        if content.get("format", FORMAT) > FORMAT:
            raise StudyMismatchError(
                f"format {content['format']} is newer than this w2ltune (format {FORMAT}); use the "
                "newer one",
                path=study / NAME,
            )
        return files.fitted(Outcome, content)
