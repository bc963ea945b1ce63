"""Exact line searches with restarts, for any number of weights.

Along a line of weights the errors are piecewise constant and known exactly, so that a step goes to
the middle of the best piece of the whole line, over all hills between (Och, "Minimum error rate
training in statistical machine translation", ACL 2003). From each starting point steps are taken
along the axes and along random directions until none of a round helps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    starts: Sequence[ArrayLike] = (),
    restarts: int = 10,
    seed: int = 0,
) -> Iterator[Incumbent]:
    """Search a box of weights from several starting points.

    What is found from one does not depend on the others: more of them are never worse.

    Args:
        pool: The lists.
        low: float64 [columns], lower ends; where equal to the upper ones, the weight is fixed.
        high: float64 [columns], upper ends, finite.
        starts: float64 [columns] each, the first starting points; without any the middle.
        restarts: Further starting points, drawn evenly from the box.
        seed: Of starting points and directions: the same gives the same.

    Yields:
        The first starting point, then each point with fewer errors than all before.
    """
    ends = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    free = ends[1] > ends[0]
    drawn = np.tile(ends[0], (restarts, 1))
    drawn[:, free] = np.random.default_rng(seed).uniform(
        ends[0][free], ends[1][free], (restarts, int(free.sum()))
    )
    best, lines = math.inf, 0
    for point in (*(np.clip(each, *ends) for each in starts or [sum(ends) / 2]), *drawn):
        rng = np.random.default_rng(seed)
        errors, improved = int(pool.errors(point)[0]), True
        if best == math.inf:
            best = errors
            yield Incumbent(weights=point, errors=errors, lines=lines)
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
                    yield Incumbent(weights=point, errors=errors, lines=lines)


def middle_of_best_piece(line: LineErrors) -> float:
    """Return the middle of the piece with the least errors, the widest of several."""
    width = np.diff(line.bounds)
    pieces = np.flatnonzero(line.errors == line.errors.min())
    piece = pieces[width[pieces].argmax()]
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
    random = rng.normal(size=(len(axes), len(axes)))  # of the free weights, whatever else is fixed
    directions: NDArray[np.float64] = np.concatenate([axes, random @ axes])
    return directions
