"""The search that knows the decoder's score to be linear in its weights.

A decode's n-best lists tell what other weights would have chosen (Och, "Minimum error rate training
in statistical machine translation", ACL 2003). All lists together, the pool, predict the errors of
any weights; what the decoder loses to its beam there is fitted as a smooth residual over the points
decoded so far. The next point is the middle of the plateau of prediction plus residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.plateau import UNDETERMINED, plateau_mean, spread_points
from w2ltune.search.residual import Residual, Vector, expected_improvement

LINEAR_WEIGHTS = ("lmweight", "wordscore", "unkscore", "silscore")
"""The weights that the score is linear in, in the order of the n-best features after the first."""

STARTS = {"lmweight": 2.0, "wordscore": 0.0, "unkscore": -5.0, "silscore": 0.0}
"""Where a search begins without a baseline, and where a weight stays that decides nothing."""

POINTS = 1024
ZOOM_POINTS = 512
MOST_SCORES = 60_000_000
"""Bounds the scores computed for one proposal: fewer points on a large pool."""

NEIGHBOURHOOD = 0.25
"""How far around the best decode, in each weight, an improvement is looked for."""

NEIGHBOURS = 9
"""Points over which the pooled errors are averaged there, so that no spike of chance attracts."""

DECODED = 0.02
"""A point nearer than this to a decoded one need not be decoded."""

FEW_LOST, WORTH = 1.0, 0.25
"""Where the beam loses less than one standard error, less than a quarter is worth no decode."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """The searched weights and their ranges.

    Attributes:
        names: Searched flags, of `LINEAR_WEIGHTS`.
        low: float64 [searched], lower ends.
        high: float64 [searched], upper ends.
        fixed: float64 [5], the weights of all features; searched ones are replaced.
        steps: float64 [searched], the step of each range; 0 for all numbers between.
    """

    names: tuple[str, ...]
    low: Vector
    high: Vector
    fixed: Vector
    steps: Vector | None = None

    def snap(self, unit: Vector) -> Vector:
        """Return the nearest points [..., searched] that the ranges can give."""
        if self.steps is None or not self.steps.any():
            return unit
        width = self.high - self.low
        step = np.where(self.steps > 0, self.steps / width, 1.0)
        snapped = np.minimum(np.round(unit / step), np.floor(1 / step + 1e-9)) * step
        found: Vector = np.where(self.steps > 0, snapped, unit)
        return found

    def weights(self, unit: Vector) -> Vector:
        """Return feature weights [points, 5] of points [points, searched] in the unit cube."""
        unit = np.atleast_2d(unit)
        weights = np.tile(self.fixed, (len(unit), 1))
        columns = [1 + LINEAR_WEIGHTS.index(name) for name in self.names]
        weights[:, columns] = self.low + unit * (self.high - self.low)
        return weights

    def unit(self, values: Vector) -> Vector:
        """Return the place of searched values [searched] in the unit cube; outside stays so."""
        return (values - self.low) / (self.high - self.low)

    def start(self) -> Vector:
        """Return the usual starting values, [searched], inside of the ranges."""
        return np.clip([STARTS[name] for name in self.names], self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One real decode.

    Attributes:
        unit: float64 [searched], its place in the box's unit cube.
        errors: int [utterances].
    """

    unit: Vector
    errors: npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Where to decode next, and what is to be expected.

    Attributes:
        values: float64 [searched].
        gain: Errors by which it is expected to be below the best real decode.
        least_gain: A gain below this is not worth a decode.
        plateau: float64 [searched], the middle of the plateau.
        residual: Real minus pooled errors at the best real decode: what the beam loses.
        undetermined: Weights that decide nothing; they stay at their starting value.
        new: Whether there is a point left that was not decoded.
    """

    values: Vector
    gain: float
    least_gain: float
    plateau: Vector
    residual: float
    undetermined: tuple[str, ...] = field(default=())
    new: bool = True

    @property
    def small(self) -> bool:
        """Whether the gain is not worth a decode."""
        return self.gain < self.least_gain


def fit_residual(pool: Pool, box: Box, points: Sequence[Point]) -> Residual:
    """Fit the residual over all real decodes of one setting.

    Args:
        pool: Of the same utterances as the points' errors.
        box: The searched weights.
        points: The decodes.
    """
    unit = np.array([point.unit for point in points]).reshape(-1, len(box.names))
    real = np.array([float(point.errors.sum()) for point in points])
    return Residual(unit, real - pool.errors(box.weights(unit)))


def propose(pool: Pool, box: Box, points: Sequence[Point]) -> Proposal:
    """Return the next point to decode.

    Args:
        pool: All n-best lists so far, of the utterances that count.
        box: The searched weights.
        points: The real decodes at this beam, in order; without any, the pool alone decides.
    """
    residual = fit_residual(pool, box, points)

    def expected(unit: Vector) -> Vector:
        total: Vector = pool.errors(box.weights(unit)) + residual(unit)
        return total

    unit, undetermined = _plateau(pool, box, residual, expected)
    unit = box.snap(unit)
    plateau = np.clip(box.low + unit * (box.high - box.low), box.low, box.high)
    free = tuple(name for name, is_free in zip(box.names, undetermined, strict=True) if is_free)
    if not points:
        return Proposal(
            values=plateau, gain=math.inf, least_gain=1.0, plateau=plateau, residual=0.0,
            undetermined=free,
        )  # fmt: skip
    best = min(points, key=lambda point: int(point.errors.sum()))
    real = int(best.errors.sum())
    gain = real - float(expected(unit)[0])
    least_gain = max(1.0, 0.1 * _standard_error(best, pool, box, unit))
    lost = real - float(pool.errors(box.weights(best.unit))[0])
    new = bool(_new(unit[None], points)[0])
    if gain < least_gain or not new:
        near = best.unit + NEIGHBOURHOOD * (
            2 * spread_points(_affordable(ZOOM_POINTS, pool), len(box.names)) - 1
        )
        near = box.snap(np.clip(near, 0, 1))
        mean = _smooth(near, expected(near))
        gains = expected_improvement(real - mean, residual.deviation(near, best.unit))
        gains = np.where(_new(near, points), gains, -1.0)
        unit, gain, new = near[np.argmax(gains)], float(gains.max()), bool(gains.max() >= 0)
        standard_error = _standard_error(best, pool, box, unit)
        worth = WORTH if lost < FEW_LOST * standard_error else 0.0
        least_gain = max(1.0, worth * standard_error)
    return Proposal(
        values=np.clip(box.low + unit * (box.high - box.low), box.low, box.high),
        gain=gain,
        least_gain=least_gain,
        plateau=plateau,
        residual=lost,
        undetermined=free,
        new=new,
    )


def _new(unit: Vector, points: Sequence[Point]) -> npt.NDArray[np.bool_]:
    """Whether points [points, searched] are not among the decoded ones."""
    decoded = np.stack([point.unit for point in points])
    distances = np.sqrt(((unit[:, None] - decoded[None]) ** 2).sum(axis=-1))
    new: npt.NDArray[np.bool_] = distances.min(axis=1) >= DECODED
    return new


def _plateau(
    pool: Pool, box: Box, residual: Residual, expected: Callable[[Vector], Vector]
) -> tuple[Vector, npt.NDArray[np.bool_]]:
    """Return the middle of the plateau in the unit cube, and which weights decide nothing."""
    cube = spread_points(_affordable(POINTS, pool), len(box.names))
    values = expected(cube)
    mean, spread = plateau_mean(cube, values)
    undetermined: npt.NDArray[np.bool_] = spread > UNDETERMINED
    # Closer, because few points of the box lie on a small plateau.
    width = np.where(undetermined, 1.0, 3 * spread + 0.02)
    low, high = np.clip(mean - width, 0, 1), np.clip(mean + width, 0, 1)
    zoom = low + spread_points(_affordable(ZOOM_POINTS, pool), len(box.names)) * (high - low)
    zoomed = expected(zoom)
    mean, _ = plateau_mean(zoom, zoomed)
    unit = np.where(undetermined, box.unit(box.start()), mean)
    lowest = np.concatenate([cube, zoom])[np.argmin(np.concatenate([values, zoomed]))]
    least, lowest = _descend(pool, box, residual, lowest)
    errors = [pool.utterance_errors(box.weights(point)[0]) for point in (unit, lowest)]
    standard_error = float(np.std(errors[0] - errors[1])) * math.sqrt(pool.utterances)
    if float(expected(unit)[0]) - least > standard_error:
        unit = np.where(undetermined, unit, lowest)  # between two valleys the middle is a hill
    return unit, undetermined


def _smooth(unit: Vector, values: Vector) -> Vector:
    squares = ((unit[:, None] - unit[None]) ** 2).sum(axis=-1)
    nearest = np.argpartition(squares, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    smooth: Vector = values[nearest].mean(axis=1)
    return smooth


def _standard_error(best: Point, pool: Pool, box: Box, unit: Vector) -> float:
    """Return the standard error of the best real decode's difference to a predicted point."""
    difference = best.errors - pool.utterance_errors(box.weights(unit)[0])
    return float(np.std(difference)) * math.sqrt(len(difference))


def _descend(pool: Pool, box: Box, residual: Residual, unit: Vector) -> tuple[float, Vector]:
    """Follow exact lines through a point, axis after axis, twice, to the least expected errors."""
    least = math.inf
    for axis in [*range(len(unit))] * 2:
        direction = np.zeros_like(unit)
        direction[axis] = 1.0
        origin = unit - unit[axis] * direction
        weights = box.weights(np.stack([origin, origin + direction]))
        line = pool.line(weights[0], weights[1] - weights[0], 0.0, 1.0)
        middles = (line.bounds[:-1] + line.bounds[1:]) / 2
        expected = line.errors + residual(origin + middles[:, None] * direction)
        lowest = int(np.argmin(expected))
        least = min(least, float(expected[lowest]))
        unit = origin + middles[lowest] * direction
    return least, unit


def _affordable(points: int, pool: Pool) -> int:
    return max(128, min(points, MOST_SCORES // max(1, 2 * pool.hypotheses)))
