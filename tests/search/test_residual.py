"""What the beam loses as a smooth function: numbers that can be worked out another way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from w2ltune.search.residual import RESIDUAL_LENGTH, Residual, Vector, expected_improvement

POINTS = np.array([[0.2, 0.3], [0.5, 0.5], [0.8, 0.2], [0.6, 0.9]])
CENTRE = POINTS[1]
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


def steep(unit: Vector) -> Vector:
    """A loss that grows with the square of the first weight."""
    loss: Vector = 40 * unit[:, 0] ** 2
    return loss


def test_it_follows_the_expected_loss_beyond_its_points() -> None:
    beyond = np.array([[0.9, 0.3], [0.1, 0.8]])
    assert Residual(np.empty((0, 2)), np.empty(0), steep)(beyond) == pytest.approx(steep(beyond))
    # Of one decode follows how far off the expectation is everywhere.
    residual = Residual(POINTS[1:2], steep(POINTS[1:2]) - 6, steep)
    assert residual(beyond) == pytest.approx(steep(beyond) - 6, abs=1.5)
    assert (residual.deviation(beyond, CENTRE)[:1] > residual.deviation(POINTS[1:2], CENTRE)).all()


def test_without_points_nothing_is_lost() -> None:
    residual = Residual(np.empty((0, 2)), np.empty(0))
    assert residual(POINTS).tolist() == [0, 0, 0, 0]


def test_a_point_decoded_twice_does_no_harm() -> None:
    residual = Residual(np.concatenate([POINTS, POINTS]), np.concatenate([VALUES, VALUES]))
    assert residual(POINTS) == pytest.approx(VALUES, abs=0.02 * np.ptp(VALUES))


def test_the_deviation_grows_away_from_the_points() -> None:
    alone = Residual(POINTS[1:2], VALUES[1:2])
    means = [float(alone.deviation(away(d), CENTRE).mean()) for d in (0, 0.1, 0.2, 0.4, 0.8)]
    assert means == sorted(means)
    assert means[0] < 0.2 * means[-1]
    every = Residual(POINTS, VALUES)
    assert (every.deviation(POINTS, CENTRE) < every.deviation(away(0.8)[:1], CENTRE)).all()


def test_the_deviation_has_the_scale_of_the_loss() -> None:
    unit = np.array([[0.1, 0.1], [0.9, 0.9]])
    far = np.array([[0.5, 0.5]])
    even, uneven = (Residual(unit, np.array(values)) for values in ([9.0, 9.0], [0.0, 80.0]))
    assert even.deviation(far, far[0])[0] == pytest.approx(1, rel=0.3)  # at least one error
    assert uneven.deviation(far, far[0])[0] > 20
    lossy = Residual(unit, np.zeros(2), lambda unit: np.full(len(unit), 100.0))
    assert lossy.deviation(far, far[0])[0] > 20
    assert lossy.deviation(unit[:1], far[0])[0] >= 10  # which utterances are lost is chance


def test_near_means_within_half_the_length_of_a_point() -> None:
    residual = Residual(POINTS, VALUES)
    assert residual.near(POINTS).all()
    assert residual.near(away(0.49 * RESIDUAL_LENGTH)).all()
    assert not residual.near(np.array([[0.0, 1.0], [1.0, 0.6]])).any()


@pytest.mark.parametrize("deviation", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("gain", [-6.0, -0.5, 0.0, 0.5, 6.0])
def test_expected_improvement_is_the_integral(gain: float, deviation: float) -> None:
    steps = np.linspace(-12, 12, 200_001)
    saved = np.maximum(0, gain + deviation * steps)
    weights = np.exp(-(steps**2) / 2) / math.sqrt(2 * math.pi)
    mean = float(np.trapezoid(saved * weights, steps))
    square = float(np.trapezoid(saved**2 * weights, steps))
    found, spread = expected_improvement(np.array([gain]), np.array([deviation]))
    assert found[0] == pytest.approx(mean, abs=1e-6)
    assert spread[0] == pytest.approx(math.sqrt(max(0.0, square - mean**2)), abs=1e-4)


def test_expected_improvement_without_doubt_is_the_gain() -> None:
    gains = np.array([-1e6, -2.0, 0.0, 3.0, 1e6])
    found, _ = expected_improvement(gains, np.zeros(5))
    assert found == pytest.approx(np.maximum(0, gains), abs=1e-6)
