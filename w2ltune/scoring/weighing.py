"""What is weighed of joined n-best lists, and which hypotheses given weights choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import firsts
from w2ltune.scoring.rescorelists import RescoringLists, Units
from w2ltune.scoring.significance import FEW_CLUSTERS, Clusters
from w2ltune.scoring.wer import CountMatrix, count_matrix

LENGTH = "len"
"""The length of rescore.py: the number of words and of letters together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RescoreList:
    """A list whose hypotheses are weighed.

    Attributes:
        name: Of its data list.
        dump: The beam dump.
        lists: All that was joined.
        nbest: The columns that are weighed, the acoustic model's first.
        clusters: What is drawn together for an interval.
        units: Turns a text into what is counted.
        as_ancestor: Whether errors are counted as rescore.py did.
        whole: With this k all hypotheses take part; by default the length of the longest list.
    """

    name: str
    dump: Path
    lists: RescoringLists
    nbest: NBest
    clusters: Clusters
    units: Units
    as_ancestor: bool
    whole: int | None = None

    @property
    def depth(self) -> int:
        """The length of the longest n-best list."""
        return int(np.diff(self.nbest.offsets).max())

    @property
    def notes(self) -> list[str]:
        """What is worth knowing of it, a line each."""
        found = list(self.lists.findings)
        if self.clusters.count < FEW_CLUSTERS:
            found.append(
                f"intervals on {self.name} are by {self.clusters.unit} ({self.clusters.count}): "
                f"below {FEW_CLUSTERS} they are too narrow to be trusted"
            )
        missing, extra = self.lists.missing, self.lists.extra
        if missing:
            found.append(
                f"{len(missing)} of {len(self.lists.ids)} utterances of {self.name} are not in "
                f"{self.dump}, as {missing[0]!r}: "
                + ("no errors, but words" if self.as_ancestor else "all their words are deletions")
            )
        if extra:
            found.append(
                f"{len(extra)} utterances of {self.dump} are not in {self.name}, as {extra[0]!r}: "
                "they take no part"
            )
        return found

    def chosen(self, weights: ArrayLike, k: int | None) -> NDArray[np.intp]:
        """Return the row that weights choose of each utterance, int [utterances].

        Args:
            weights: float [columns].
            k: So many hypotheses of each take part; None for all.
        """
        return choose_rows(self.nbest, weights, self.limit(k), first_of_equals=self.as_ancestor)

    def limit(self, k: int | None) -> int:
        """Return how many hypotheses of each utterance take part: all of them from `whole` on."""
        return self.depth if k is None or k >= (self.whole or self.depth) else k

    def errors(self, rows: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the errors of chosen rows, int32 [utterances]."""
        return self.nbest.errors[rows]

    def counts(self, rows: NDArray[np.intp]) -> CountMatrix:
        """Return the kinds of errors of chosen rows.

        Args:
            rows: int [utterances].

        Returns:
            int32 [utterances, 4]: substitutions, deletions, insertions, reference length. With the
            ancestor's arithmetic, which knows no kinds, all are substitutions.
        """
        words = self.nbest.reference_words
        if self.as_ancestor:
            nothing = np.zeros_like(words)
            return np.stack([self.errors(rows), nothing, nothing, words], axis=1)
        references = [self.units(" ".join(words)) for words in self.lists.references]
        return count_matrix(references, [self.units(self.lists.text(row)) for row in rows])


def weigh(lists: RescoringLists, names: Sequence[str]) -> NBest:
    """Return n-best lists with the columns that are weighed, the acoustic model's first.

    Args:
        lists: The joined lists.
        names: Columns of the lists, or `LENGTH`.

    Returns:
        Features float64 [hypotheses, 1 + names]; to the first one belongs the weight 1.
    """
    columns = {name: lists.nbest.features[:, n] for n, name in enumerate(lists.names)}
    columns[LENGTH] = columns["words"] + columns["letters"]
    return replace(lists.nbest, features=np.stack([columns[n] for n in ("am", *names)], axis=1))


def choose_rows(
    nbest: NBest, weights: ArrayLike, k: int | None = None, *, first_of_equals: bool = False
) -> NDArray[np.intp]:
    """Return the row that is chosen of each utterance, int [utterances].

    Args:
        nbest: The lists, the decoder's best hypothesis first.
        weights: float [columns].
        k: So many of each take part; None for all.
        first_of_equals: Of equal scores the decoder's first one is chosen, as rescore.py did;
            else the one with most errors, so that no error rate is too good.
    """
    scores = _scores(nbest, weights)
    utterance = np.repeat(np.arange(nbest.utterances), np.diff(nbest.offsets))
    rank = np.arange(len(scores)) - nbest.offsets[utterance]
    if k is not None:
        scores[rank >= k] = -np.inf
    counts = np.diff(nbest.offsets)
    if not first_of_equals:
        highest = np.repeat(np.maximum.reduceat(scores, nbest.offsets[:-1]), counts)
        scores = np.where(scores == highest, nbest.errors, -1.0)
    return firsts(scores, counts)


def ranking(nbest: NBest, weights: ArrayLike, k: int | None = None) -> NDArray[np.intp]:
    """Return the rows in the order of the weights, utterance by utterance.

    Args:
        nbest: The lists.
        weights: float [columns].
        k: So many of each are ranked, and the others left out; None for all.
    """
    scores = _scores(nbest, weights)
    utterance = np.repeat(np.arange(nbest.utterances), np.diff(nbest.offsets))
    rank = np.arange(len(scores)) - nbest.offsets[utterance]
    kept = np.flatnonzero(rank < (len(scores) if k is None else k))
    order = np.lexsort((-nbest.errors[kept], -scores[kept], utterance[kept]))
    rows: NDArray[np.intp] = kept[order]
    return rows


def _scores(nbest: NBest, weights: ArrayLike) -> NDArray[np.float64]:
    scores = np.zeros(nbest.hypotheses)
    for column, weight in zip(nbest.features.T, np.asarray(weights, dtype=np.float64), strict=True):
        scores += column * weight  # equal for equal features, unlike a product of matrices
    return scores
