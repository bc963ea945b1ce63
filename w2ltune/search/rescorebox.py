"""Where to look for the weights of LM columns: ranges that follow from the scales of the scores.

A column can only change choices when its weight brings its differences between the hypotheses of an
utterance to the size of the acoustic ones. Ranges in this unit do not depend on the scales.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from w2ltune.formats.nbest import NBest

Face: TypeAlias = tuple[int, Literal["low", "high"]]
"""A column, and the end of its weight's range."""

REACH = 4.0
"""Ends of the ranges: the weight at which a column differs so many times as much as the AM score.

On both sides of 0, so that a column with the sign the wrong way round, as a perplexity, serves.
"""


def spreads(nbest: NBest) -> NDArray[np.float64]:
    """Return how much each column differs within utterances, float64 [columns].

    The root of the mean square of the deviations from the mean of the utterance; each utterance
    with several hypotheses counts the same.
    """
    counts = np.diff(nbest.offsets)
    if not nbest.utterances or counts.max() < 2:
        return np.zeros(nbest.features.shape[1])
    starts = nbest.offsets[:-1]
    mean = np.add.reduceat(nbest.features, starts) / counts[:, np.newaxis]
    deviations = nbest.features - np.repeat(mean, counts, axis=0)
    variance = np.add.reduceat(deviations**2, starts) / counts[:, np.newaxis]
    differs = (
        np.maximum.reduceat(nbest.features, starts) > np.minimum.reduceat(nbest.features, starts)
    ).any(axis=0)  # else a deviation is rounding
    found: NDArray[np.float64] = np.where(differs, np.sqrt(variance[counts > 1].mean(axis=0)), 0.0)
    return found


def score_box(nbest: NBest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the ranges of the weights, float64 [columns] each.

    The weight of the acoustic score is fixed at 1; that of a column that differs nowhere at 0.

    Args:
        nbest: The lists, the acoustic score in the first column.
    """
    spread = spreads(nbest)
    # Where the acoustic score differs nowhere, any scale of the others chooses the same.
    unit = spread[0] or 1.0
    high = np.divide(REACH * unit, spread, out=np.zeros_like(spread), where=spread > 0)
    low = -high
    low[0] = high[0] = 1.0
    return low, high


def widen(
    low: NDArray[np.float64], high: NDArray[np.float64], faces: Iterable[Face]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a box that goes beyond some of its faces, by its width there.

    Args:
        low: float64 [columns], lower ends.
        high: float64 [columns], upper ends.
        faces: Those that the optimum touches.
    """
    width = high - low
    low, high = low.copy(), high.copy()
    for column, side in set(faces):
        if side == "low":
            low[column] -= width[column]
        else:
            high[column] += width[column]
    return low, high
