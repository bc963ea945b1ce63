"""What there is to report of a study, read from its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from w2ltune.errors import InputError
from w2ltune.formats.distributions import FloatRange, IntegerRange, parse_value
from w2ltune.report.leaderboard import Leaderboard, rate, read_leaderboard, show_value
from w2ltune.runs.outcome import Outcome, read_outcome
from w2ltune.runs.provenance import SweepRequest, read_request
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.scoring.significance import FEW_CLUSTERS
from w2ltune.scoring.text import Metric
from w2ltune.trials.dataset import UtteranceResults, read_utterance_results

EDGE = 0.02
"""Part of a searched range that counts as its edge."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """A study, as its folder tells it; it may be running.

    Attributes:
        folder: The study's folder.
        request: What was asked.
        board: The trials.
        outcome: What came of it, as far as it is known.
    """

    folder: Path
    request: SweepRequest
    board: Leaderboard
    outcome: Outcome

    @property
    def metric(self) -> Metric:
        """What is counted."""
        return "cer" if self.request.scoring.get("metric") == "cer" else "wer"

    @property
    def cer_blanks(self) -> bool:
        """Whether a CER counts the blanks between words."""
        return self.request.scoring.get("cer_blanks") == "true"

    @property
    def by_number(self) -> dict[int, TrialResult]:
        """The finished trials by number."""
        return {result.number: result for result in self.board.results}

    @property
    def chosen(self) -> TrialResult | None:
        """The trial that the report is about: of the first list's best choice, else the best."""
        choices = self.outcome.choices
        of_first = [choice for choice in choices if choice.target == choices[0].target]
        if of_first:
            best = min(of_first, key=lambda choice: rate(choice.counts))
            return self.by_number.get(best.trial, self.board.best)
        return self.board.best

    def real_time_factor(self, result: TrialResult) -> float | None:
        """Return processor seconds for each second of audio; None where its length is unknown."""
        audio = self.outcome.audio_seconds
        whole = result.state == "COMPLETE" and result.work_seconds > 0
        return result.work_seconds / audio if audio and whole else None


def read_content(study: Path) -> Content:
    """Return what a study's folder tells.

    Raises:
        InputError: The folder holds no study, or a file in it was damaged.
    """
    request = read_request(study / "sweep.json")
    if request is None:
        raise InputError(f"no study in {str(study)!r}: it has no sweep.json")
    return Content(
        folder=study, request=request, board=read_leaderboard(study), outcome=read_outcome(study)
    )


def read_utterances(study: Path, number: int) -> UtteranceResults | None:
    """Return what a trial made of each utterance; None where that was not written."""
    return read_utterance_results(TrialDirectory(study / "trials", number).utterances)


def chosen_for(content: Content) -> dict[int, str]:
    """Return what each chosen trial was chosen for, by its number."""
    chosen: dict[int, list[str]] = {}
    for choice in content.outcome.choices:
        chosen.setdefault(choice.trial, []).append(choice.target)
    if not chosen and content.board.best is not None:
        return {content.board.best.number: "best so far"}
    return {
        number: "chosen" + (f" for {'; '.join(names)}" if any(names) else "")
        for number, names in chosen.items()
    }


def find_warnings(content: Content) -> list[str]:
    """Return what makes the answer doubtful, one sentence each."""
    outcome, chosen = content.outcome, content.chosen
    trials = [content.by_number[n] for n in chosen_for(content) if n in content.by_number]
    found = edge_warnings(content.request.space, trials)
    found += [_missing(trial.missing, f"in trial {trial.number}") for trial in trials]
    found += [_missing(look.missing, f"of {look.name}") for look in outcome.looks]
    found += [
        f"Trial {trial.number} is {check.text}."
        for trial in trials
        for check in outcome.checks
        if check.flags == trial.flags and not check.equal
    ]
    units = [choice.unit for choice in outcome.choices] + [look.unit for look in outcome.looks]
    units += [chosen.interval_unit] if chosen is not None else []
    for unit in units:
        count = re.search(r"\((\d+)\)$", unit)
        if count and int(count[1]) < FEW_CLUSTERS:
            found.append(
                f"Intervals are by {unit}: below {FEW_CLUSTERS} they are too narrow to be trusted."
            )
    return list(dict.fromkeys(filter(None, found)))


def edge_warnings(space: Mapping[str, str], trials: Iterable[TrialResult]) -> list[str]:
    """Return a sentence for each value of a trial that is at the edge of its searched range."""
    return [
        f"The optimum is at the edge of --{name}={space[name]} "
        f"({show_value(value)} in trial {trial.number}): widen it."
        for trial in trials
        for name, value in _at_the_edge(space, trial)
    ]


def _missing(count: int, where: str) -> str:
    if not count:
        return ""
    which = "1 utterance has" if count == 1 else f"{count} utterances have"
    return f"{which} no hypothesis {where}; all words count as deletions there."


def _at_the_edge(space: Mapping[str, str], trial: TrialResult) -> Iterator[tuple[str, float | int]]:
    for name, value in trial.params.items():
        text = space.get(name, "")
        searched = parse_value(text, flag=name)
        if isinstance(searched, FloatRange | IntegerRange) and not isinstance(value, str):
            ends = np.array([searched.low, value, searched.high], dtype=np.float64)
            low, at, high = np.log(ends) if searched.log else ends
            if min(at - low, high - at) <= EDGE * (high - low):
                yield name, value
