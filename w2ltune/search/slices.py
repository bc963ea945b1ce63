"""Error rates along each weight and over pairs of weights, through the answer: for the report."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from w2ltune.search.residual import Vector

Rates: TypeAlias = Callable[[Vector], Vector]
"""Returns the error rates [vectors] of weights [vectors, columns]."""

STEPS = 61
MAP_STEPS = 33
MOST_MAPS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """Error rates along one weight, the others at the answer's values.

    Attributes:
        name: The weight.
        values: float64 [steps].
        dev: float64 [steps], on the list that was tuned on.
        test: float64 [steps], on the other; None without it.
        answer: The answer's value.
    """

    name: str
    values: Vector
    dev: Vector
    test: Vector | None
    answer: float


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightMap:
    """Error rates over two weights, the others at the answer's values.

    Attributes:
        x_name: The weight along the columns.
        y_name: The weight along the rows.
        x: float64 [columns].
        y: float64 [rows].
        rates: float64 [rows, columns], on the list that was tuned on.
        answer: The answer's x and y.
    """

    x_name: str
    y_name: str
    x: Vector
    y: Vector
    rates: Vector
    answer: tuple[float, float]


def _around(answer: float, low: float, high: float, steps: int) -> Vector:
    """Return values around the answer's, 0 among them, inside of the box."""
    half = 1.5 * max(abs(answer), 0.05 * (high - low))
    return np.linspace(max(low, answer - half), min(high, answer + half), steps)


def make_slices(
    names: Sequence[str], answer: Vector, low: Vector, high: Vector, dev: Rates, test: Rates | None
) -> list[Slice]:
    """Return the rates along each weight.

    Args:
        names: The weights.
        answer: float64 [columns], that of the acoustic model first.
        low: float64 [weights], the box.
        high: float64 [weights].
        dev: Rates on the list that was tuned on.
        test: On the other one; None without it.
    """
    found = []
    for axis, name in enumerate(names):
        values = _around(float(answer[1 + axis]), float(low[axis]), float(high[axis]), STEPS)
        vectors = np.tile(answer, (STEPS, 1))
        vectors[:, 1 + axis] = values
        found.append(
            Slice(
                name=name,
                values=values,
                dev=dev(vectors),
                test=None if test is None else test(vectors),
                answer=float(answer[1 + axis]),
            )
        )
    return found


def make_maps(
    names: Sequence[str], answer: Vector, low: Vector, high: Vector, dev: Rates
) -> list[WeightMap]:
    """Return the rates over the first pairs of weights; the arguments are as for `make_slices`."""
    found = []
    for a, b in itertools.islice(itertools.combinations(range(len(names)), 2), MOST_MAPS):
        x, y = (
            _around(float(answer[1 + n]), float(low[n]), float(high[n]), MAP_STEPS) for n in (a, b)
        )
        vectors = np.tile(answer, (MAP_STEPS**2, 1))
        vectors[:, 1 + a] = np.tile(x, MAP_STEPS)
        vectors[:, 1 + b] = np.repeat(y, MAP_STEPS)
        found.append(
            WeightMap(
                x_name=names[a], y_name=names[b], x=x, y=y,
                rates=dev(vectors).reshape(MAP_STEPS, MAP_STEPS),
                answer=(float(answer[1 + a]), float(answer[1 + b])),
            )
        )  # fmt: skip
    return found
