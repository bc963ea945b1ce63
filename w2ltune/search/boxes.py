"""Boxes of weights, and which hypotheses can be chosen somewhere in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import firsts
from w2ltune.scoring.nbestpool import active_features, distinct

RUNNERS_UP = 5
"""Hypotheses beside the best one at the centre that are held against all others."""

LEFT = 0.485
"""Where a box is cut, not in its middle: at round weights, as 0, scores of many hypotheses may be
equal, and boxes that only touch such a place with a face stay open down to the smallest."""

NOTHING = 2**60
"""More errors than there are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lists:
    """N-best lists as linear functions of the weights that are free in a box.

    Attributes:
        free: int [free], the columns whose weights are free and choose something.
        centre: float64 [free], of the whole box.
        half: float64 [free], half its sides.
        smallest: float64 [free], half sides up to which a box is not cut.
        base: float64 [hypotheses], the scores where the free weights are 0.
        slopes: float64 [hypotheses, free].
        errors: int32 [hypotheses], falling in each utterance.
        counts: int32 [utterances], hypotheses of each.
        slack: A difference of scores above this is beyond rounding, see :func:`.slack_of`.
    """

    free: NDArray[np.intp]
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    smallest: NDArray[np.float64]
    base: NDArray[np.float64]
    slopes: NDArray[np.float64]
    errors: NDArray[np.int32]
    counts: NDArray[np.int32]
    slack: float

    def errors_at(self, point: NDArray[np.float64]) -> int:
        """Return the errors at a point [free]; ties go to more errors."""
        scores = self.base.copy()
        for slope, weight in zip(self.slopes.T, point, strict=True):
            scores += slope * weight  # equal for equal features, unlike a matrix product
        first = firsts(scores, self.counts)
        return int(self.errors[first].sum(dtype=np.int64))


@dataclass(slots=True, eq=False)
class OpenBox:
    """A box whose bound is below the best errors found.

    Attributes:
        centre: float64 [free].
        half: float64 [free], half its sides.
        split: The weight whose range is cut next; -1 when the box is too small.
        frozen: Errors of the utterances whose errors are the same in the whole box.
        bound: No point of the box gives fewer errors.
        rows: int32, hypotheses of the other utterances that can be chosen, by utterance.
        counts: int32 [other utterances], how many of each.
    """

    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    split: int
    frozen: int
    bound: int
    rows: NDArray[np.int32]
    counts: NDArray[np.int32]

    @property
    def bytes(self) -> int:
        """Its size in memory, roughly."""
        return 800 + self.rows.nbytes + self.counts.nbytes


@dataclass(slots=True, eq=False)
class Progress:
    """What a search has found so far.

    Attributes:
        errors: The best errors.
        point: float64 [free], where.
        boxes: Boxes whose bound was computed.
        slivers: Boxes that were too small to cut.
        sliver_bound: The least bound among them.
    """

    errors: int
    point: NDArray[np.float64]
    boxes: int = 0
    slivers: int = 0
    sliver_bound: int = NOTHING


def lists_in(
    nbest: NBest, low: NDArray[np.float64], high: NDArray[np.float64], smallest: float
) -> Lists:
    """Lay out n-best lists for a box between two ends [columns] of the weights.

    ``smallest`` are the sides of the smallest box, in ranges.
    """
    active = active_features(nbest)
    free = active[high[active] > low[active]]
    base = np.zeros(nbest.hypotheses)
    for column in active[(high == low)[active] & (low != 0)[active]]:
        base += nbest.features[:, column] * low[column]
    functions = np.column_stack([base, nbest.features[:, free]])
    utterance = np.repeat(np.arange(nbest.utterances), np.diff(nbest.offsets))
    rows = distinct(utterance, functions, nbest.errors)
    half = (high - low)[free] / 2
    return Lists(
        free=free,
        centre=low[free] + half,
        half=half,
        smallest=half * smallest,
        base=functions[rows, 0],
        slopes=functions[rows, 1:],
        errors=nbest.errors[rows],
        counts=np.bincount(utterance[rows], minlength=nbest.utterances).astype(np.int32),
        slack=slack_of(nbest, low, high),
    )


def slack_of(nbest: NBest, low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Return the difference of scores above which one is larger beyond doubt.

    In float64 in any order of summation: the rounding of four sums (columns × 2^-53 of the sum of
    absolute terms each) and that of the ends of a box that was cut 50 times.
    """
    size = np.abs(nbest.features) @ np.maximum(np.abs(low), np.abs(high))
    allowance = (100 + 8 * nbest.features.shape[1]) * np.finfo(np.float64).eps
    return float(allowance * size.max(initial=0.0))


def root(lists: Lists) -> OpenBox:
    """Return the whole box, with the oracle's errors as its bound."""
    spread = lists.slopes.std(axis=0) * lists.half if len(lists.slopes) else lists.half
    last = np.cumsum(lists.counts) - 1  # the least errors of each
    return OpenBox(
        centre=lists.centre,
        half=lists.half,
        split=int(spread.argmax()) if len(lists.free) else -1,
        frozen=0,
        bound=int(lists.errors[last].sum(dtype=np.int64)),
        rows=np.arange(len(lists.errors), dtype=np.int32),
        counts=lists.counts,
    )
