"""The middle of the plateau around the best weights on n-best lists: the answer of rescoring.

The least errors on one list are a spike of chance. The mean of all weights, each with
exp(-(E - Emin) / (c sqrt(Emin))), is as good on other data or better (`linear.plateau_mean`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from w2ltune.search.linear import UNDETERMINED, plateau_mean, plateau_weights, spread_points
from w2ltune.search.residual import Vector

Errors: TypeAlias = Callable[[Vector], Vector]
"""Returns the errors [points] of weights [points, searched]."""

ROUNDS = 8
WIDTH = 3.0
"""Half the width of the next region, in spreads of the plateau: it grows where that is even."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Middle:
    """The middle of a plateau.

    Attributes:
        weights: float64 [searched].
        height: The errors on the plateau, on average. More in its middle mean that it is none, but
            the hill between two valleys.
        undecided: Which weights decide nothing: these are 0, or as near as the box allows.
    """

    weights: Vector
    height: float
    undecided: tuple[bool, ...]


def middle(errors: Errors, *, best: Vector, low: Vector, high: Vector, points: int) -> Middle:
    """Return the middle of the plateau around the best weights.

    Args:
        errors: What is known of weights.
        best: float64 [searched], the weights with the fewest errors found.
        low: float64 [searched], lower ends of the box.
        high: float64 [searched], upper ends.
        points: How many weights are looked at in the last round; in those before a quarter.

    """
    width = high - low
    undecided = np.zeros(len(best), dtype=np.bool_)
    near = width * 2.0**-6  # the plateau is followed from its lowest point outwards
    begin, end = np.maximum(low, best - near), np.minimum(high, best + near)
    mean, height = best, 0.0
    for number in range(ROUNDS):
        last = number == ROUNDS - 1
        cube = spread_points(points if last else max(64, points // 4), len(best))
        found = errors(begin + cube * (end - begin))
        unit, spread = plateau_mean(cube, found)
        height = float(plateau_weights(found) @ found)
        mean, reach = begin + unit * (end - begin), spread * (end - begin)
        undecided = reach > UNDETERMINED * width
        begin = np.maximum(low, mean - WIDTH * reach)
        end = np.minimum(high, mean + WIDTH * reach)
    mean = np.where(undecided, np.clip(0.0, low, high), mean)
    return Middle(weights=mean, height=height, undecided=tuple(undecided.tolist()))
