"""What the beam loses as a smooth function: numbers that can be worked out another way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from w2ltune.search.residual import RESIDUAL_LENGTH, Residual, Vector, expected_improvement

POINTS = np.array([[0.2, 0.3], [0.5, 0.5], [0.8, 0.2], [0.6, 0.9]])
VALUES = np.array([12.0, 3.0, 25.0, -1.0])


def away(distance: float) -> Vector:
    """Points at a distance from a point in all directions."""
    angles = np.linspace(0, 2 * math.pi, 12)
    around: Vector = POINTS[1] + distance * np.column_stack([np.cos(angles), np.sin(angles)])
    return around


def test_it_goes_nearly_through_its_points() -> None:
    residual = Residual(POINTS, VALUES)
    assert residual(POINTS) == pytest.approx(VALUES, abs=0.02 * np.ptp(VALUES))
    assert residual(POINTS[0]).tolist() == residual(POINTS[:1]).tolist()  # one point or many


def test_it_is_smooth_between_its_points() -> None:
    line = np.linspace(POINTS[0], POINTS[1], 50)
    steps = np.abs(np.diff(Residual(POINTS, VALUES)(line)))
    assert steps.max() < 0.1 * np.ptp(VALUES)


def test_it_follows_a_slope_beyond_its_points() -> None:
    unit = np.random.default_rng(0).uniform(0, 0.6, (12, 2))
    residual = Residual(unit, 40 * unit[:, 0])
    beyond, within = np.array([[0.75, 0.3]]), np.array([[0.3, 0.3]])
    assert residual(beyond)[0] > residual(within)[0] + 1


def test_without_points_nothing_is_lost() -> None:
    residual = Residual(np.empty((0, 2)), np.empty(0))
    assert residual(POINTS).tolist() == [0, 0, 0, 0]


def test_a_point_decoded_twice_does_no_harm() -> None:
    residual = Residual(np.concatenate([POINTS, POINTS]), np.concatenate([VALUES, VALUES]))
    assert residual(POINTS) == pytest.approx(VALUES, abs=0.02 * np.ptp(VALUES))


def test_the_deviation_grows_away_from_the_points() -> None:
    alone = Residual(POINTS[1:2], VALUES[1:2])
    means = [float(alone.deviation(away(d), POINTS[1]).mean()) for d in (0, 0.1, 0.2, 0.4, 0.8)]
    assert means == sorted(means)
    assert means[0] < 0.2 * means[-1]
    # More points leave less open.
    every = Residual(POINTS, VALUES)
    unit = np.random.default_rng(1).uniform(0, 1, (50, 2))
    scaled = Residual(POINTS[1:2], np.ones(1)), Residual(POINTS, np.ones(4))
    one, four = (residual.deviation(unit, POINTS[1]) for residual in scaled)
    assert (four <= one + 1e-9).all()
    assert (every.deviation(POINTS, POINTS[1]) < every.deviation(away(0.8)[:1], POINTS[1])).all()


@pytest.mark.parametrize(
    ("near", "far", "scale"),
    [(0.0, 0.0, 1.0), (0.2, 0.0, 1.0), (8.0, 8.0, 8.0), (8.0, 80.0, 8.0)],
)
def test_the_deviation_has_the_scale_of_the_residuals_near_by(
    near: float, far: float, scale: float
) -> None:
    unit = np.array([[0.1, 0.1], [0.9, 0.9]])
    here = Residual(unit, np.array([near, far])).deviation(away(0), unit[0])
    one = Residual(unit, np.ones(2)).deviation(away(0), unit[0])  # at least one error
    assert here == pytest.approx(scale * one, rel=0.05)


def test_near_means_within_half_the_length_of_a_point() -> None:
    residual = Residual(POINTS, VALUES)
    assert residual.near(POINTS).all()
    assert residual.near(away(0.49 * RESIDUAL_LENGTH)).all()
    assert not residual.near(np.array([[0.0, 1.0], [1.0, 0.6]])).any()


@pytest.mark.parametrize("deviation", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("gain", [-6.0, -0.5, 0.0, 0.5, 6.0])
def test_expected_improvement_is_the_integral(gain: float, deviation: float) -> None:
    steps = np.linspace(-12, 12, 200_001)
    values = np.maximum(0, gain + deviation * steps) * np.exp(-(steps**2) / 2)
    integral = float(np.trapezoid(values, steps)) / math.sqrt(2 * math.pi)
    found = expected_improvement(np.array([gain]), np.array([deviation]))
    assert found[0] == pytest.approx(integral, abs=1e-6)


def test_expected_improvement_without_doubt_is_the_gain() -> None:
    gains = np.array([-1e6, -2.0, 0.0, 3.0, 1e6])
    found = expected_improvement(gains, np.zeros(5))
    assert found == pytest.approx(np.maximum(0, gains), abs=1e-6)
