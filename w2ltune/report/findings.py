"""What follows from a study's trials: who is as good as the best, what speed costs, what fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from w2ltune.errors import InputError
from w2ltune.formats.listfile import read_list
from w2ltune.report.content import Content, read_utterances
from w2ltune.report.leaderboard import show_value
from w2ltune.runs.trialdir import TrialResult
from w2ltune.scoring.alignment import AlignedUnit, align
from w2ltune.scoring.significance import PairedDifference, clusters_from_ids, paired_difference
from w2ltune.scoring.text import load_normalizer, split_units
from w2ltune.search.linear import LINEAR_WEIGHTS
from w2ltune.trials.dataset import UtteranceResults

NEAREST = 25
RESAMPLES = 1000
"""Half the usual number: 25 comparisons on thousands of utterances take a second then."""

WORST_UTTERANCES = 10


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A complete trial beside the best one.

    Attributes:
        result: The trial.
        difference: Its rate minus that of the best trial, on the same utterances.
    """

    result: TrialResult
    difference: PairedDifference

    @property
    def distinguishable(self) -> bool:
        """Whether the 95 % interval of the difference leaves out 0."""
        return self.difference.interval.low > 0 or self.difference.interval.high < 0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The best trial of one setting of the flags that are not linear weights.

    Attributes:
        label: The setting, in short.
        result: The trial with the lowest rate of those that have it.
        cost: Real-time factor; processor seconds where the length of the audio is unknown.
        on_front: Whether no other setting is both faster and better.
    """

    label: str
    result: TrialResult
    cost: float
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class AlignedUtterance:
    """An utterance with its errors.

    Attributes:
        id: The utterance.
        errors: How many there are.
        units: Reference and hypothesis, aligned.
    """

    id: str
    errors: int
    units: Sequence[AlignedUnit]


def rivals_of_best(content: Content) -> list[Rival]:
    """Return the complete trials nearest to the best one, compared with it; nearest first."""
    best = content.board.best
    against = None if best is None else read_utterances(content.folder, best.number)
    if best is None or against is None:
        return []
    clusters = clusters_from_ids(against.ids, content.request.scoring.get("cluster") or None)
    rivals: list[Rival] = []
    for result in content.board.results[1:]:
        if result.state != "COMPLETE" or len(rivals) == NEAREST:
            break
        own = read_utterances(content.folder, result.number)
        if own is None or own.ids != against.ids:
            continue
        difference = paired_difference(
            own.errors, against.errors, own.counts[:, 3], clusters, resamples=RESAMPLES
        )
        rivals.append(Rival(result=result, difference=difference))
    return rivals


def compare_settings(content: Content) -> list[Setting]:
    """Return the best trial of each setting, cheapest first; none where there is one setting."""
    complete = [
        result
        for result in content.board.results
        if result.state == "COMPLETE" and result.value is not None and result.work_seconds > 0
    ]
    names = sorted({name for result in complete for name in result.params} - {*LINEAR_WEIGHTS})
    values = {n: {show_value(r.params.get(n, "–")) for r in complete} for n in names}
    differing = [name for name in names if len(values[name]) > 1]
    best: dict[str, TrialResult] = {}
    for result in complete:  # best first
        label = ", ".join(f"{n}={show_value(result.params.get(n, '–'))}" for n in differing)
        best.setdefault(label, result)
    if len(best) < 2:
        return []
    costs = {
        label: content.real_time_factor(result) or result.work_seconds
        for label, result in best.items()
    }
    settings: list[Setting] = []
    lowest = float("inf")
    for label, result in sorted(best.items(), key=lambda item: (costs[item[0]], item[1].value)):
        assert result.value is not None
        settings.append(
            Setting(label=label, result=result, cost=costs[label], on_front=result.value < lowest)
        )
        lowest = min(lowest, result.value)
    return settings


def worst_utterances(content: Content, trial: TrialResult) -> list[AlignedUtterance]:
    """Return the utterances with most errors of a trial, aligned with their references."""
    results = read_utterances(content.folder, trial.number)
    if results is None or not results.errors.any():
        return []
    scoring = content.request.scoring
    normalize = load_normalizer(
        Path(scoring["normalize"]) if scoring.get("normalize") else None,
        ignore_case=scoring.get("ignore_case") == "true",
    )
    references = _references(trial)
    # Stable: of equals the first in the list.
    order = (-results.errors).argsort(kind="stable")[:WORST_UTTERANCES]
    found: list[AlignedUtterance] = []
    for index in order:
        name, errors = results.ids[index], int(results.errors[index])
        if not errors:
            break
        if name not in references:
            raise InputError(f"utterance {name!r} is no longer in --test={trial.flags['test']}")
        units = align(
            split_units(normalize(references[name]), content.metric, blanks=content.cer_blanks),
            split_units(
                normalize(results.hypotheses[index]), content.metric, blanks=content.cer_blanks
            ),
        )
        _check_unchanged(name, units, results, int(index))
        found.append(AlignedUtterance(id=name, errors=errors, units=units))
    return found


def _references(trial: TrialResult) -> dict[str, str]:
    folder = trial.flags.get("datadir", "")
    names = [name for name in trial.flags.get("test", "").split(",") if name]
    return {
        utterance.id: " ".join(utterance.reference)
        for name in names
        for utterance in read_list(Path(folder, name))
    }


def _check_unchanged(
    name: str, units: Sequence[AlignedUnit], results: UtteranceResults, index: int
) -> None:
    errors = sum(unit.kind != "correct" for unit in units)
    length = sum(unit.kind != "insertion" for unit in units)
    if (errors, length) != (results.errors[index], results.counts[index, 3]):
        raise InputError(
            f"the reference of {name!r}, or its normalisation, has changed since it was counted"
        )
