"""What a decoder loses to its beam, as a smooth function of the weights: a Gaussian process.

The loss grows with the square of the LM weight, whatever the word score is: measured with letters,
phones and word pieces, short utterances and long ones. So one decode tells much of what is lost
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

RESIDUAL_LENGTH = 0.25
RESIDUAL_CONSTANT = 4.0
RESIDUAL_NOISE = 0.02
"""Of the Gaussian process around the expected loss, in the unit cube, beside bumps of 1."""

UNEVEN = 0.3
"""Standard deviation of the loss around what is expected, as a part of that."""

KNOWN = 0.15
"""How near to a decoded point the fit is believed."""

Vector = npt.NDArray[np.float64]


def _none(unit: Vector) -> Vector:
    return np.zeros(len(unit))


class Residual:
    """Real minus pooled errors as a smooth function: a Gaussian process around an expected loss.

    A plain loop without it oscillates where the beam is narrow: it returns again and again to
    weights whose hypotheses the decoder cannot find.

    Args:
        unit: float64 [points, searched]; without points only what is expected is lost.
        values: float64 [points].
        loss: Returns the expected loss of points, [points].
    """

    def __init__(
        self, unit: Vector, values: Vector, loss: Callable[[Vector], Vector] = _none
    ) -> None:
        self._unit = unit
        self._loss = loss
        self._values = values - loss(unit)
        noise = RESIDUAL_NOISE * np.eye(len(unit))
        self._inverse = np.linalg.inv(self._kernel(unit, unit) + noise)
        self._factors = self._inverse @ self._values

    @staticmethod
    def _kernel(a: Vector, b: Vector) -> Vector:
        squares = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
        kernel: Vector = np.exp(-squares / (2 * RESIDUAL_LENGTH**2)) + RESIDUAL_CONSTANT
        return kernel

    def __call__(self, unit: Vector) -> Vector:
        """Return the residual at points [points, searched]."""
        unit = np.atleast_2d(unit)
        fitted: Vector = self._loss(unit) + self._kernel(unit, self._unit) @ self._factors
        return fitted

    def deviation(self, unit: Vector, centre: Vector) -> Vector:
        """Return the standard deviation of what a decode loses at points [points, searched].

        Far from all decodes it is a part of the expected loss, or what the decodes around a centre
        differ by where that is more, and no less than one error. Which of the utterances are lost
        is chance beside.
        """
        squares = ((self._unit - centre) ** 2).sum(axis=-1)
        nearness = np.exp(-squares / (2 * RESIDUAL_LENGTH**2)) + 1e-12
        differ = self._values - np.average(self._values, weights=nearness)
        spread = math.sqrt(float(np.average(differ**2, weights=nearness)))
        across = self._kernel(unit, self._unit)
        own = 1 + RESIDUAL_CONSTANT
        left = np.maximum(0.0, own - np.einsum("ij,jk,ik->i", across, self._inverse, across))
        scale = np.maximum(max(1.0, spread), UNEVEN * self._loss(unit))
        chance = np.maximum(0.0, self._loss(unit))
        deviation: Vector = np.sqrt(scale**2 * np.minimum(1.0, left) + chance)
        return deviation

    def near(self, unit: Vector) -> npt.NDArray[np.bool_]:
        """Whether points [points, searched] are near enough to decoded ones to be believed."""
        squares = ((unit[:, None] - self._unit[None]) ** 2).sum(axis=-1)
        near: npt.NDArray[np.bool_] = np.sqrt(squares.min(axis=1)) < KNOWN
        return near


def expected_improvement(gain: Vector, deviation: Vector) -> tuple[Vector, Vector]:
    """Return mean and standard deviation of what is saved where a gain is normal: never below 0.

    Example:
        >>> mean, deviation = expected_improvement(np.array([2.0, -50.0, 0.0]), np.ones(3))
        >>> mean.round(3), deviation.round(3)
        (array([2.008, 0.   , 0.399]), array([0.98 , 0.   , 0.584]))
    """
    deviation = np.maximum(deviation, 1e-9)
    ratio = np.clip(gain / deviation, -30, 30)
    below = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in ratio])
    density = np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    mean: Vector = gain * below + deviation * density
    square = (gain**2 + deviation**2) * below + gain * deviation * density
    return mean, np.sqrt(np.maximum(0.0, square - mean**2))
