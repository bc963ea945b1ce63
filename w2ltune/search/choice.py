"""Which trial is the answer: for each list the middle of the plateau, unless it is worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from w2ltune.runs.outcome import Choice, Comparison
from w2ltune.runs.trialdir import TrialResult
from w2ltune.scoring.significance import Clusters, bootstrap_interval, paired_difference

CountMatrix = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A complete trial with its errors.

    Attributes:
        result: The trial.
        counts: int32 [utterances, 4]: S, D, I, reference length, in the order of the lists.
        note: How it was chosen; see `search.method`.
    """

    result: TrialResult
    counts: CountMatrix
    note: Mapping[str, Any]

    def errors(self, utterances: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
        """Return the errors of some utterances."""
        errors: npt.NDArray[np.int32] = self.counts[utterances, :3].sum(axis=1)
        return errors


def compare(a: CountMatrix, b: CountMatrix, clusters: Clusters) -> Comparison:
    """Return the paired difference of two decodes of the same utterances, a minus b.

    Args:
        a: int32 [utterances, 4].
        b: int32 [utterances, 4].
        clusters: Of the same utterances.
    """
    return compare_errors(a[:, :3].sum(axis=1), b[:, :3].sum(axis=1), a[:, 3], clusters)


def compare_errors(
    a: npt.NDArray[np.integer],
    b: npt.NDArray[np.integer],
    words: npt.NDArray[np.integer],
    clusters: Clusters,
) -> Comparison:
    """Return what `compare` does, from the errors [utterances] and the lengths of references."""
    found = paired_difference(a, b, words, clusters)
    return Comparison(
        difference=found.difference, interval=found.interval.ends, unit=found.interval.drawn
    )


def choose(
    decoded: Sequence[Decoded],
    *,
    target: str,
    utterances: npt.NDArray[np.intp],
    clusters: Clusters,
    baseline: Decoded | None,
    middle: int | None = None,
    oracle: float | None = None,
) -> Choice:
    """Return the chosen trial for a list.

    The middle of the plateau of the n-best search was really decoded; it is taken where it is not
    worse than the best decode by more than one standard error of the paired difference.

    Args:
        decoded: All complete trials, at least one.
        target: Name of the list; "" for all of them.
        utterances: Its utterances.
        clusters: Of these utterances.
        baseline: The user's present weights.
        middle: The trial in the middle of the plateau.
        oracle: Rate of the best hypotheses of all n-best lists.
    """
    best = min(decoded, key=lambda d: (int(d.errors(utterances).sum()), d.result.number))
    chosen, why = best, "fewest errors"
    for other in decoded:
        if other.result.number == middle:
            words = best.counts[utterances, 3]
            paired = paired_difference(
                other.errors(utterances), best.errors(utterances), words, clusters
            )
            if paired.difference <= paired.standard_error:
                chosen, why = other, "middle of the plateau"
    counts = chosen.counts[utterances]
    interval = bootstrap_interval(counts[:, :3].sum(axis=1), counts[:, 3], clusters)
    total = counts.sum(axis=0, dtype=np.int64).tolist()
    return Choice(
        target=target,
        trial=chosen.result.number,
        best_trial=best.result.number,
        why=why,
        counts=(total[0], total[1], total[2], total[3]),
        interval=interval.ends,
        unit=interval.drawn,
        oracle=oracle,
        against_baseline=None
        if baseline is None
        else compare(counts, baseline.counts[utterances], clusters),
    )
