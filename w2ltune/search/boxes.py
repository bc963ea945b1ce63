"""Boxes of weights, and which hypotheses can be chosen somewhere in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbestpool import active_features, distinct
from w2ltune.scoring.winners import firsts, slack_of

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
    """Lay out n-best lists for a box.

    Args:
        nbest: The lists.
        low: float64 [columns], lower ends of the weights.
        high: float64 [columns], upper ends.
        smallest: Sides of the smallest box, in ranges.
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


def search_box(
    lists: Lists, box: OpenBox, progress: Progress, threshold: float, over: Callable[[], bool]
) -> list[OpenBox]:
    """Cut a box and its parts, depth first, as long as their bound is below the threshold.

    Args:
        lists: The lists.
        box: Where to begin.
        progress: What was found so far; kept up to date.
        threshold: Parts with a bound from here on are handed back.
        over: Whether to hand back all that is open; asked now and then.

    Returns:
        The parts that may hold points with fewer errors than the best.
    """
    stack, aside = [box], []
    while stack and not over():
        top = stack.pop()
        if top.bound >= progress.errors:
            continue
        if top.split < 0:
            progress.slivers += 1
            progress.sliver_bound = min(progress.sliver_bound, top.bound)
        elif top.bound >= threshold:
            aside.append(top)
        else:
            children = [_part(lists, top, progress, side) for side in (0, 1)]
            stack += sorted(children, key=lambda child: -child.bound)
    return [left for left in (*aside, *stack) if left.bound < progress.errors]


def _part(lists: Lists, box: OpenBox, progress: Progress, side: int) -> OpenBox:
    """Return one of the two parts of a box."""
    centre, half = box.centre.copy(), box.half.copy()
    width = half[box.split]
    half[box.split] *= LEFT if side == 0 else 1 - LEFT
    centre[box.split] += half[box.split] - width if side == 0 else width - half[box.split]
    rows, counts, slopes = box.rows, box.counts, lists.slopes[box.rows]
    errors = lists.errors[rows]
    scores = lists.base[rows] + slopes @ centre
    owner = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    kept = np.ones(len(rows), dtype=np.bool_)
    rivals, winner = scores.copy(), np.empty(0, dtype=np.intp)
    for number in range(min(RUNNERS_UP + 1, int(counts.max(initial=0)))):
        rival = firsts(rivals, counts)
        if number == 0:
            winner = rival
        reach = np.abs(slopes - slopes[rival][owner]) @ half + lists.slack
        kept &= rivals[rival][owner] - scores <= reach
        rivals[~kept] = -np.inf
        rivals[rival] = -np.inf  # each serves once
    least = np.minimum.reduceat(np.where(kept, errors, NOTHING), starts) if len(rows) else counts
    most = np.maximum.reduceat(np.where(kept, errors, -1), starts) if len(rows) else counts
    same = least == most
    here = box.frozen + int(errors[winner].sum(dtype=np.int64))
    progress.boxes += 1
    if here < progress.errors:
        progress.errors, progress.point = here, centre
    kept &= ~same[owner]
    other = kept & (errors != errors[winner][owner])
    reaches = np.abs(slopes - slopes[winner][owner])[other].sum(axis=0) * half
    reaches[half <= lists.smallest] = -1.0
    return OpenBox(
        centre=centre,
        half=half,
        split=int(reaches.argmax()) if reaches.max() >= 0 else -1,
        frozen=box.frozen + int(least[same].sum(dtype=np.int64)),
        bound=max(box.bound, box.frozen + int(least.sum(dtype=np.int64))),
        rows=rows[kept],
        counts=np.bincount(owner[kept], minlength=len(counts))[~same].astype(np.int32),
    )
