"""The plateau around the fewest errors, and its middle, which is the answer.

The least errors on one list are a spike of chance. The mean of all weights, each with
exp(-(E - Emin) / (c sqrt(Emin))), is as good on other data as the luckiest point, or better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from w2ltune.search.residual import Residual, Vector

if TYPE_CHECKING:
    from w2ltune.scoring.nbestpool import Pool
    from w2ltune.search.linear import Box

Errors: TypeAlias = Callable[[Vector], Vector]
"""Returns the errors [points] of weights [points, searched]."""

TEMPERATURE = 0.4
"""Of the plateau's mean, in square roots of the errors; 0.25 to 0.5 is safe."""

UNDETERMINED = 0.26
"""Spread of a weight over its plateau from which on it is undetermined (even: 0.29 of the box)."""

POINTS = 1024
ZOOM_POINTS = 512
MOST_SCORES = 60_000_000
"""Bounds the scores computed for one proposal: fewer points on a large pool."""

FAR = 0.5
"""How far from a start lists are believed at first, in each weight."""

ROUNDS = 12
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

    The region that is looked at grows from there as long as it is even, and only so far that its
    points still show the lowest places: in four or five dimensions a few points of a large region
    miss them, and without them the middle would wander off over the slopes.

    Args:
        errors: What is known of weights.
        best: float64 [searched], the weights with the fewest errors found.
        low: float64 [searched], lower ends of the box.
        high: float64 [searched], upper ends.
        points: How many weights are looked at in the last region; while it grows a sixteenth.
    """
    width = high - low
    near = width * 2.0**-6
    region = np.maximum(low, best - near), np.minimum(high, best + near)
    before, most = region, math.inf
    for _ in range(ROUNDS - 1):
        found = _look(errors, region, max(64, points // 16))
        if found.least > most:
            region = before
            break
        if math.isinf(most):
            most = found.least + TEMPERATURE * math.sqrt(max(1.0, found.least))
        reach = WIDTH * found.spread
        before = region
        region = np.maximum(low, found.mean - reach), np.minimum(high, found.mean + reach)
    found = _look(errors, region, points)
    undecided = found.spread > UNDETERMINED * width
    mean = np.where(undecided, np.clip(0.0, low, high), found.mean)
    return Middle(weights=mean, height=found.height, undecided=tuple(undecided.tolist()))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sight:
    """The plateau as points of a region show it."""

    mean: Vector
    spread: Vector
    height: float
    least: float


def _look(errors: Errors, region: tuple[Vector, Vector], points: int) -> _Sight:
    begin, end = region
    cube = spread_points(points, len(begin))
    found = errors(begin + cube * (end - begin))
    unit, spread = plateau_mean(cube, found)
    return _Sight(
        mean=begin + unit * (end - begin),
        spread=spread * (end - begin),
        height=float(plateau_weights(found) @ found),
        least=float(found.min()),
    )


def plateau_weights(errors: Vector) -> Vector:
    """Return how much points belong to the plateau by their expected errors, in all 1."""
    least = errors.min()
    weights: Vector = np.exp(-(errors - least) / (TEMPERATURE * math.sqrt(max(1.0, least))))
    weights /= weights.sum()
    return weights


def plateau_mean(unit: Vector, errors: Vector) -> tuple[Vector, Vector]:
    """Return mean and spread [searched] of evenly spread points by `plateau_weights`."""
    weights = plateau_weights(errors)
    mean: Vector = weights @ unit
    return mean, np.sqrt(weights @ (unit - mean) ** 2)


def spread_points(count: int, dimensions: int) -> Vector:
    """Return evenly spread points [count, dimensions]: the additive recurrence R_d.

    Multiples of the powers of the generalised golden ratio, modulo 1 (Roberts 2018); as even as a
    Sobol sequence in few dimensions, and any count of them is even.
    """
    ratio = 2.0
    for _ in range(30):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1, dimensions + 1)
    points: Vector = (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0
    return points


def plateau_of(
    pool: Pool,
    box: Box,
    residual: Residual,
    expected: Callable[[Vector], Vector],
    region: tuple[Vector, Vector],
    centre: Vector,
    count: int,
) -> tuple[Vector, npt.NDArray[np.bool_]]:
    """Return the middle of the plateau in a region, and which weights decide nothing.

    The first ``count`` weights vary, the others are as in the centre.
    """

    def spread(points: int, low: Vector, high: Vector) -> Vector:
        cube = np.tile(centre, (affordable(points, pool), 1))
        cube[:, :count] = low[:count] + spread_points(len(cube), count) * (high - low)[:count]
        return cube

    cube = spread(POINTS, *region)
    values = expected(cube)
    mean, deviation = plateau_mean(cube, values)
    across = region[1] - region[0]  # a small region is even as a rule
    undetermined: npt.NDArray[np.bool_] = (across >= FAR) & (deviation > UNDETERMINED * across)
    undetermined[count:] = False
    # Closer, because few points of the box lie on a small plateau.
    width = np.where(undetermined, 1.0, 3 * deviation + 0.02)
    low, high = np.maximum(mean - width, region[0]), np.minimum(mean + width, region[1])
    zoom = spread(ZOOM_POINTS, low, high)
    zoomed = expected(zoom)
    mean, _ = plateau_mean(zoom, zoomed)
    unit = np.where(undetermined, box.unit(box.start()), mean)
    lowest = np.concatenate([cube, zoom])[np.argmin(np.concatenate([values, zoomed]))]
    least, lowest = _descend(pool, box, residual, lowest, region, count)
    errors = [pool.utterance_errors(box.weights(point)[0]) for point in (unit, lowest)]
    standard_error = float(np.std(errors[0] - errors[1])) * math.sqrt(pool.utterances)
    if float(expected(unit)[0]) - least > standard_error:
        unit = np.where(undetermined, unit, lowest)  # between two valleys the middle is a hill
    return unit, undetermined


def _descend(
    pool: Pool,
    box: Box,
    residual: Residual,
    unit: Vector,
    region: tuple[Vector, Vector],
    count: int,
) -> tuple[float, Vector]:
    """Follow exact lines through a point, axis after axis, twice, to the least expected errors."""
    least = math.inf
    for axis in [*range(count)] * 2:
        direction = np.zeros_like(unit)
        direction[axis] = 1.0
        origin = unit - unit[axis] * direction
        weights = box.weights(np.stack([origin, origin + direction]))
        ends = float(region[0][axis]), float(region[1][axis])
        line = pool.line(weights[0], weights[1] - weights[0], *ends)
        middles = (line.bounds[:-1] + line.bounds[1:]) / 2
        expected = line.errors + residual(origin + middles[:, None] * direction)
        lowest = int(np.argmin(expected))
        least = min(least, float(expected[lowest]))
        unit = origin + middles[lowest] * direction
    return least, unit


def affordable(points: int, pool: Pool) -> int:
    """Return so many points, or fewer on a large pool."""
    return max(128, min(points, MOST_SCORES // max(1, 2 * pool.hypotheses)))
