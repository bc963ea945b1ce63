"""What a decoder loses to its beam, as a smooth function of the weights: a Gaussian process."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RESIDUAL_LENGTH = 0.2
RESIDUAL_CONSTANT = 0.3
RESIDUAL_SLOPE = 1.0
RESIDUAL_NOISE = 0.02
"""Of the Gaussian process, in the unit cube."""

KNOWN = 0.15
"""How near to a decoded point the fit is believed."""

Vector = npt.NDArray[np.float64]


class Residual:
    """Real minus pooled errors as a smooth function: a Gaussian process with a slope.

    A plain loop without it oscillates where the beam is narrow: it returns again and again to
    weights whose hypotheses the decoder cannot find.

    Args:
        unit: float64 [points, searched]; without points the residual is 0 everywhere.
        values: float64 [points].
    """

    def __init__(self, unit: Vector, values: Vector) -> None:
        self._unit = unit
        self._values = values
        noise = RESIDUAL_NOISE * np.eye(len(unit))
        self._inverse = np.linalg.inv(self._kernel(unit, unit) + noise)
        self._factors = self._inverse @ values

    @staticmethod
    def _kernel(a: Vector, b: Vector) -> Vector:
        squares = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
        slope = RESIDUAL_SLOPE * ((a - 0.5) @ (b - 0.5).T)
        bumps: Vector = np.exp(-squares / (2 * RESIDUAL_LENGTH**2))
        return bumps + RESIDUAL_CONSTANT + slope

    def __call__(self, unit: Vector) -> Vector:
        """Return the residual at points [points, searched]."""
        fitted: Vector = self._kernel(np.atleast_2d(unit), self._unit) @ self._factors
        return fitted

    def deviation(self, unit: Vector, centre: Vector) -> Vector:
        """Return the residual's standard deviation at points [points, searched].

        Its scale is that of the residuals around a point, and no less than one error: far away, at
        large weights, the beam may lose a hundred times as much.
        """
        squares = ((self._unit - centre) ** 2).sum(axis=-1)
        nearness = np.exp(-squares / (2 * RESIDUAL_LENGTH**2))
        scale = max(1.0, math.sqrt(float(nearness @ self._values**2 / nearness.sum())))
        across = self._kernel(unit, self._unit)
        own = 1 + RESIDUAL_CONSTANT + RESIDUAL_SLOPE * ((unit - 0.5) ** 2).sum(axis=1)
        left = own - np.einsum("ij,jk,ik->i", across, self._inverse, across)
        deviation: Vector = scale * np.sqrt(np.maximum(0.0, left))
        return deviation

    def near(self, unit: Vector) -> npt.NDArray[np.bool_]:
        """Whether points [points, searched] are near enough to decoded ones to be believed."""
        squares = ((unit[:, None] - self._unit[None]) ** 2).sum(axis=-1)
        near: npt.NDArray[np.bool_] = np.sqrt(squares.min(axis=1)) < KNOWN
        return near


def expected_improvement(gain: Vector, deviation: Vector) -> Vector:
    """Return the mean of what is gained where a normal gain is positive, and 0 where not.

    Example:
        >>> expected_improvement(np.array([2.0, -50.0, 0.0]), np.array([1e-9, 1.0, 1.0])).round(3)
        array([2.   , 0.   , 0.399])
    """
    deviation = np.maximum(deviation, 1e-9)
    ratio = np.clip(gain / deviation, -30, 30)
    below = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in ratio])
    density = np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    improvement: Vector = gain * below + deviation * density
    return improvement
