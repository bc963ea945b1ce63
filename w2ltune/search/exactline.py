"""Exact line searches with restarts, for any number of weights.

Along a line of weights the errors are piecewise constant and known exactly, so that a step goes to
the middle of the best piece of the whole line, over all hills between (Och, "Minimum error rate
training in statistical machine translation", ACL 2003). From each starting point steps are taken
along the axes and along random directions until none of a round helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.scoring.nbestpool import LineErrors, Pool


@dataclass(frozen=True, kw_only=True, eq=False)
class Incumbent:
    """Weights better than all before.

    Attributes:
        weights: float64 [columns].
        errors: What they give.
        lines: Lines searched so far.
    """

    weights: NDArray[np.float64]
    errors: int
    lines: int


def search_lines(
    pool: Pool,
    low: ArrayLike,
    high: ArrayLike,
    *,
    start: ArrayLike | None = None,
    restarts: int = 10,
    seed: int = 0,
) -> Iterator[Incumbent]:
    """Search a box of weights from several starting points.

    Args:
        pool: The lists.
        low: float64 [columns], lower ends; where equal to the upper ones, the weight is fixed.
        high: float64 [columns], upper ends, finite.
        start: float64 [columns], the first starting point; None for the middle of the box.
        restarts: Further starting points, drawn evenly from the box.
        seed: Of starting points and directions: the same gives the same.

    Yields:
        The first starting point, then each point with fewer errors than all before.
    """
    ends = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    rng = np.random.default_rng(seed)
    first = (ends[0] + ends[1]) / 2 if start is None else np.asarray(start, dtype=np.float64)
    point = np.clip(first, *ends)
    best, lines = int(pool.errors(point)[0]), 0
    yield Incumbent(weights=point, errors=best, lines=lines)
    for restart in range(restarts + 1):
        if restart:
            point = rng.uniform(*ends)
        errors, improved = int(pool.errors(point)[0]), True
        while improved:
            improved = False
            for direction in _directions(*ends, rng):
                lines += 1
                there = _best_on_line(pool, point, direction, *ends)
                found = int(pool.errors(there)[0])
                if found < errors:
                    point, errors, improved = there, found, True
                if errors < best:
                    best = errors
                    yield Incumbent(weights=point, errors=best, lines=lines)


def middle_of_best_piece(line: LineErrors) -> float:
    """Return the middle of the piece with the least errors, the widest of several."""
    width = np.diff(line.bounds)
    piece = int(np.lexsort((-width, line.errors))[0])
    return float(line.bounds[piece] + width[piece] / 2)


def _best_on_line(
    pool: Pool,
    point: NDArray[np.float64],
    direction: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.float64]:
    moving = direction != 0
    to_low = (low - point)[moving] / direction[moving]
    to_high = (high - point)[moving] / direction[moving]
    begin = float(np.minimum(to_low, to_high).max())
    end = float(np.maximum(to_low, to_high).min())
    line = pool.line(point, direction, begin, max(begin, end))
    there: NDArray[np.float64] = np.clip(point + middle_of_best_piece(line) * direction, low, high)
    return there


def _directions(
    low: NDArray[np.float64], high: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the axes and, with more than one, as many random directions; [lines, columns]."""
    axes = np.diag(high - low)[high > low]
    if len(axes) < 2:
        return axes
    directions: NDArray[np.float64] = np.concatenate(
        [axes, rng.normal(size=(len(axes), len(low))) * (high - low)]
    )
    return directions
