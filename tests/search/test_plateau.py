"""The middle of plateaus of known shapes."""

from __future__ import annotations

import numpy as np
import pytest

from w2ltune.search.plateau import middle
from w2ltune.search.residual import Vector

LOW, HIGH = np.array([-4.0, -4.0]), np.array([4.0, 4.0])


@pytest.mark.parametrize("centre", [(1.0, 0.5), (-2.0, 3.0), (0.1, 0.1)])
def test_the_middle_of_a_bowl_is_its_centre(centre: tuple[float, float]) -> None:
    matrix = np.array([[2.0, 1.2], [1.2, 1.0]])  # long in one direction, narrow in the other

    def errors(points: Vector) -> Vector:
        away = points - np.array(centre)
        return np.round(400 + 100 * np.einsum("pi,ij,pj->p", away, matrix, away))

    # A spike of chance, aside from the middle, is the fewest found.
    best = np.array(centre) + 0.2
    found = middle(errors, best=best, low=LOW, high=HIGH, points=4096)
    assert found.weights == pytest.approx(centre, abs=0.05)
    assert found.undecided == (False, False)
    assert errors(found.weights[None])[0] <= found.height < 430


def test_a_weight_that_decides_nothing_is_zero() -> None:
    def errors(points: Vector) -> Vector:
        return 100 + 50 * np.abs(points[:, 0] - 1)

    found = middle(errors, best=np.array([1.0, 3.3]), low=LOW, high=HIGH, points=2048)
    assert found.undecided == (False, True)
    assert found.weights[1] == 0
    assert found.weights[0] == pytest.approx(1, abs=0.1)


def test_between_two_valleys_there_is_none() -> None:
    def errors(points: Vector) -> Vector:
        return 1000 - 300 * np.exp(-(((np.abs(points) - 1.5) / 0.5) ** 2).sum(axis=1))

    found = middle(errors, best=np.array([1.5, 1.5]), low=LOW, high=HIGH, points=4096)
    inside = errors(found.weights[None])[0] <= found.height  # it stayed in its valley
    assert inside == (np.abs(np.abs(found.weights) - 1.5).max() < 0.3)


def test_the_box_is_not_left() -> None:
    def errors(points: Vector) -> Vector:
        return 500 - 10 * points.sum(axis=1)

    found = middle(errors, best=HIGH, low=LOW, high=HIGH, points=1024)
    assert (found.weights <= HIGH).all()
    assert (found.weights > 2).all()


@pytest.mark.parametrize("width", [0.3, 0.5, 1.2])
def test_in_many_dimensions_it_does_not_wander_off(width: float) -> None:
    """A basin of 60 errors: in five dimensions next to no points of a large region see it."""
    centre = np.full(5, -1.2)

    def errors(points: Vector) -> Vector:
        return np.floor(460 - 60 * np.exp(-(((points - centre) / width) ** 2).sum(axis=1)))

    low, high = np.full(5, -2.0), np.full(5, 3.0)
    found = middle(errors, best=centre, low=low, high=high, points=4096)
    assert found.weights == pytest.approx(centre, abs=0.05)
    assert errors(found.weights[None])[0] < found.height < 425
