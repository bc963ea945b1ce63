"""The search that knows the decoder's score to be linear in its weights.

A decode's n-best lists tell what other weights would have chosen (Och, "Minimum error rate training
in statistical machine translation", ACL 2003). All lists together, the pool, predict the errors of
any weights; what the decoder loses to its beam there is fitted as a smooth residual over the points
decoded so far. The next point is the middle of the plateau of prediction plus residual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.plateau import FAR, ZOOM_POINTS, affordable, plateau_of, spread_points
from w2ltune.search.residual import Residual, Vector, expected_improvement

LINEAR_WEIGHTS = ("lmweight", "wordscore", "unkscore", "silscore")
"""The weights that the score is linear in, in the order of the n-best features after the first."""

STARTS = {"lmweight": 2.0, "wordscore": 0.0, "unkscore": -5.0, "silscore": 0.0}
"""Where a search begins without a baseline, and where a weight stays that decides nothing."""

NEIGHBOURHOOD = 0.25
"""How far around the best decode, in each weight, an improvement is looked for."""

NEIGHBOURS = 9
"""Points over which the pooled errors are averaged there, so that no spike of chance attracts."""

DECODED = 0.02
"""A point nearer than this to a decoded one need not be decoded."""

CHANGED = 0.3
"""The variance of what two good settings differ by, as a share of their errors."""

WORTH = 0.5
"""Standard errors of the paired difference that a decode is to save at least."""

LITTLE = 0.001
"""Nor is one worth its time for less than 0.1 absolute, where that is below what can be told."""

BROKEN = 1.0
"""Standard errors by which a decode must be worse than the best one before it, for a promise to be
broken: from then on the lists are believed half as far only."""

NEAR, LEAST_RADIUS = 0.25, 0.1
"""How far they are believed from where a part of the list was begun, and always; in each weight."""


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

    def stretch(self, unit: Vector) -> Vector:
        """Return how what the beam loses grows over points [points, searched]; 1 at the most."""
        weight = self.weights(unit)[:, 1]
        ends = self.weights(np.array([[0.0], [1.0]]) * np.ones(len(self.names)))[:, 1]
        stretch: Vector = (weight / max(1e-9, float(np.abs(ends).max()))) ** 2
        return stretch

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
        deviation: Standard deviation of that: what the beam loses there is not known.
        least_gain: A gain below this is not worth a decode.
        plateau: float64 [searched], the middle of the plateau.
        plateau_gain: Errors by which that is expected to be below the best real decode.
        residual: Real minus pooled errors at the best real decode: what the beam loses.
        new: Whether there is a point left that was not decoded.
    """

    values: Vector
    gain: float
    deviation: float = 0.0
    least_gain: float
    plateau: Vector
    plateau_gain: float = math.inf
    residual: float
    new: bool = True

    @property
    def promise(self) -> str:
        """What another decode is expected to save, in words."""
        return f"{max(0.0, self.gain):.1f} ± {self.deviation:.1f} errors"

    @property
    def small(self) -> bool:
        """Whether the gain is not worth a decode."""
        return self.gain < self.least_gain


def fit_residual(pool: Pool, box: Box, points: Sequence[Point], level: float = 0.0) -> Residual:
    """Fit the residual over all real decodes of one setting.

    ``level`` is what the beam is expected to lose at the largest LM weight, in each utterance.
    """
    unit = np.array([point.unit for point in points]).reshape(-1, len(box.names))
    real = np.array([float(point.errors.sum()) for point in points])
    lost: Vector = real - pool.errors(box.weights(unit))
    return Residual(unit, lost, lambda unit: level * pool.utterances * box.stretch(unit))


def propose(
    pool: Pool,
    box: Box,
    points: Sequence[Point],
    *,
    level: float = 0.0,
    radius: float = FAR,
    worth: float = WORTH,
) -> Proposal:
    """Return the next point to decode.

    Args:
        pool: All n-best lists so far, of the utterances that count.
        box: The searched weights.
        points: The real decodes at this beam, in order; without any, the pool alone decides.
        level: What the beam is expected to lose at the largest LM weight, in each utterance.
        radius: How far from the first decode the lists are believed, in each weight.
        worth: Standard errors of the paired difference that a decode is to save at least.
    """
    residual = fit_residual(pool, box, points, level)

    def expected(unit: Vector) -> Vector:
        total: Vector = pool.errors(box.weights(unit)) + residual(unit)
        return total

    best = min(points, key=lambda point: int(point.errors.sum()), default=None)
    centre = box.unit(box.start()) if best is None else np.clip(best.unit, 0, 1)
    radius = believed(points, radius)
    region = np.clip(centre - radius, 0, 1), np.clip(centre + radius, 0, 1)
    # What fewer weights come to, with the others as they are, is looked at from each larger space.
    found = [
        plateau_of(pool, box, residual, expected, region, centre, count)
        for count in range(min(2, len(box.names)), len(box.names) + 1)
    ]
    undetermined = found[-1][1]
    middles = np.array(
        [box.snap(np.where(undetermined, box.unit(box.start()), u)) for u, _ in found]
    )
    unit = middles[int(np.argmin(expected(middles)))]
    plateau = np.clip(box.low + unit * (box.high - box.low), box.low, box.high)
    if best is None:
        return Proposal(
            values=plateau, gain=math.inf, least_gain=1.0, plateau=plateau, residual=0.0
        )
    real = int(best.errors.sum())
    gain = plateau_gain = real - float(expected(unit)[0])
    told = WORTH * math.sqrt(CHANGED * max(1, real))
    least = max(1.0, min(LITTLE * pool.reference_words, told))
    least_gain = max(least, worth * _standard_error(best, pool, box, unit))
    lost = real - float(pool.errors(box.weights(best.unit))[0])
    new = bool(_new(unit[None], points)[0])
    deviation = float(residual.deviation(unit[None], best.unit)[0])
    if gain < least_gain or not new:
        near = best.unit + min(NEIGHBOURHOOD, radius) * (
            2 * spread_points(affordable(ZOOM_POINTS, pool), len(box.names)) - 1
        )
        near = box.snap(np.clip(near, 0, 1))
        mean = _smooth(near, expected(near))
        gains, deviations = expected_improvement(real - mean, residual.deviation(near, best.unit))
        gains = np.where(_new(near, points), gains, -1.0)
        most = int(np.argmax(gains))
        unit, gain, deviation = near[most], float(gains[most]), float(deviations[most])
        new = gain >= 0
        least_gain = max(least, worth * _standard_error(best, pool, box, unit))
    return Proposal(
        values=np.clip(box.low + unit * (box.high - box.low), box.low, box.high),
        gain=gain,
        deviation=deviation,
        least_gain=least_gain,
        plateau=plateau,
        plateau_gain=plateau_gain,
        residual=lost,
        new=new,
    )


def believed(points: Sequence[Point], radius: float) -> float:
    """Return how far from the best decode the lists are believed, in each weight.

    The beam loses most in far corners, and no list tells it. Where one promised much and the decode
    was worse than the best before it, half of the way there is as far as the next goes.
    """
    for number, point in enumerate(points[1:], start=1):
        before = min(points[:number], key=lambda one: int(one.errors.sum()))
        difference = point.errors.astype(np.int64) - before.errors
        if difference.sum() > BROKEN * np.std(difference) * math.sqrt(len(difference)):
            radius = min(radius, float(np.abs(point.unit - before.unit).max()) / 2)
        elif difference.sum() < 0:
            radius *= 2
    return min(1.0, max(LEAST_RADIUS, radius))


def _new(unit: Vector, points: Sequence[Point]) -> npt.NDArray[np.bool_]:
    """Whether points [points, searched] are not among the decoded ones."""
    decoded = np.stack([point.unit for point in points])
    distances = np.sqrt(((unit[:, None] - decoded[None]) ** 2).sum(axis=-1))
    new: npt.NDArray[np.bool_] = distances.min(axis=1) >= DECODED
    return new


def _smooth(unit: Vector, values: Vector) -> Vector:
    squares = ((unit[:, None] - unit[None]) ** 2).sum(axis=-1)
    nearest = np.argpartition(squares, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    smooth: Vector = values[nearest].mean(axis=1)
    return smooth


def _standard_error(best: Point, pool: Pool, box: Box, unit: Vector) -> float:
    """Return the standard error of the best real decode's difference to a predicted point."""
    difference = best.errors - pool.utterance_errors(box.weights(unit)[0])
    return float(np.std(difference)) * math.sqrt(len(difference))
