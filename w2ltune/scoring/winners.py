"""Hypotheses that some weights of a box may choose; the others need not be looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import take_rows

RIVALS = 20
"""Hypotheses of each utterance, the best at the centre first, that are held against all others."""


def slack_of(nbest: NBest, low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Return the difference of scores above which one is larger beyond doubt.

    In exact arithmetic, and in float64 in any order of summation. It covers the rounding of four
    sums (columns × 2^-53 of the sum of absolute terms each) and that of the ends of a box that was
    cut 50 times.
    """
    size = np.abs(nbest.features) @ np.maximum(np.abs(low), np.abs(high))
    allowance = (100 + 8 * nbest.features.shape[1]) * np.finfo(np.float64).eps
    return float(allowance * size.max(initial=0.0))


def winners_only(nbest: NBest, low: ArrayLike, high: ArrayLike) -> NBest:
    """Leave out hypotheses that another one of their utterance beats in a whole box of weights.

    Args:
        nbest: The lists.
        low: float64 [columns], lower ends of the weights.
        high: float64 [columns], upper ends.

    Returns:
        The lists without them; the errors at all weights of the box are the same.
    """
    ends = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    centre, half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    counts = np.diff(nbest.offsets)
    features, scores = nbest.features, nbest.features @ centre
    kept = np.ones(nbest.hypotheses, dtype=np.bool_)
    rivals, slack = scores.copy(), slack_of(nbest, *ends)
    moving = np.flatnonzero(half)
    for _ in range(min(RIVALS, int(counts.max(initial=0)))):
        rival = firsts(rivals, counts)
        margin = np.repeat(rivals[rival], counts) - scores - slack
        for column in moving:
            values = features[:, column]
            margin -= np.abs(values - np.repeat(values[rival], counts)) * half[column]
        kept &= margin <= 0
        rivals[~kept] = -np.inf
        rivals[rival] = -np.inf  # each serves once
    return take_rows(nbest, kept)


def firsts(scores: NDArray[np.float64], counts: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the index of the first highest score of each utterance.

    Args:
        scores: float64 [hypotheses].
        counts: int [utterances], hypotheses of each, one at least.
    """
    if not len(counts):
        return np.empty(0, dtype=np.intp)
    starts = np.cumsum(counts) - counts
    highest = np.flatnonzero(scores == np.repeat(np.maximum.reduceat(scores, starts), counts))
    first: NDArray[np.intp] = highest[np.searchsorted(highest, starts)]
    return first
