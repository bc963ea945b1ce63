"""Whether the errors of an earlier run were counted as they are now."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from w2ltune.errors import StudyMismatchError
from w2ltune.report.content import read_utterances
from w2ltune.runs.trialdir import trial_directories
from w2ltune.trials.dataset import Dataset


def require_same_counts(dataset: Dataset, study: Path) -> None:
    """Count a trial of a study again: another w2ltune may have split or compared its words so.

    Args:
        dataset: What errors are counted by now.
        study: The folder of an earlier run; one of other lists is not looked at.

    Raises:
        StudyMismatchError: The trial had other errors.
    """
    count = dataset.dev_count
    for directory in trial_directories(study / "trials"):
        found = read_utterances(study, directory.number)
        if found is None or found.ids != dataset.ids[:count]:
            continue
        counts = dataset.count(range(count), found.hypotheses)
        other = np.flatnonzero((counts != found.counts).any(axis=1))
        if len(other):
            first = other[0]
            raise StudyMismatchError(
                f"{len(other)} of its utterances were counted otherwise, as {found.ids[first]!r}: "
                f"{found.errors[first]} errors then, {counts[first, :3].sum()} now (by another "
                "w2ltune, or another normalisation); use another folder",
                path=directory.utterances,
            )
        return
