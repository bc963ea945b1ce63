"""The error rate over two weights, predicted from n-best lists: for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.linear import Box, Point, fit_residual
from w2ltune.search.residual import Vector


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Error rates over a grid of two weights, the other weights at the chosen trial's values.

    Attributes:
        target: Name of the list; "" for all lists together.
        setting: The flags that are not linear weights, as texts; empty when none is searched.
        x_name: Flag along the columns.
        y_name: Flag along the rows; "" when one weight is searched (then there is one row).
        x: float64 [columns].
        y: float64 [rows].
        predicted: Fractions [rows, columns], of the best pooled hypotheses: optimistic away from
            decoded points, because the decoder may lose what the pool holds.
        corrected: The same with the fitted residual added: what a decode is expected to give.
        known: bool [rows, columns]: near enough to decoded points to be believed.
        points: float64 [decodes, 3]: x, y and the real rate of each decode.
        chosen: x and y of the chosen trial.
    """

    target: str
    setting: dict[str, str]
    x_name: str
    y_name: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]
    corrected: npt.NDArray[np.float64]
    known: npt.NDArray[np.bool_]
    points: npt.NDArray[np.float64]
    chosen: tuple[float, float]


COLUMNS = 41


def make_surface(
    pool: Pool,
    box: Box,
    points: Sequence[Point],
    *,
    target: str,
    setting: dict[str, str],
    chosen: Vector,
) -> Surface:
    """Compute the surface over the first two searched weights.

    Pool and points, real decodes of this setting, are of the target's utterances; ``chosen`` are
    the searched values of the chosen trial.
    """
    residual = fit_residual(pool, box, points)
    rows = COLUMNS if len(box.names) > 1 else 1
    steps = np.linspace(0, 1, COLUMNS)
    unit = np.tile(box.unit(chosen), (rows * COLUMNS, 1))
    unit[:, 0] = np.tile(steps, rows)
    if rows > 1:
        unit[:, 1] = np.repeat(steps, COLUMNS)
    words = pool.reference_words
    predicted = pool.errors(box.weights(unit)) / words
    values = box.low + unit * (box.high - box.low)
    decoded = [
        [*(box.low + point.unit * (box.high - box.low))[:2], point.errors.sum() / words]
        for point in points
    ]
    shape = (rows, COLUMNS)
    return Surface(
        target=target,
        setting=setting,
        x_name=box.names[0],
        y_name=box.names[1] if rows > 1 else "",
        x=values[:COLUMNS, 0],
        y=values[::COLUMNS, 1] if rows > 1 else np.zeros(1),
        predicted=predicted.reshape(shape),
        corrected=(predicted + residual(unit) / words).reshape(shape),
        known=residual.near(unit).reshape(shape),
        points=np.array([[row[0], row[1] if rows > 1 else 0.0, row[-1]] for row in decoded]),
        chosen=(float(chosen[0]), float(chosen[1]) if rows > 1 else 0.0),
    )
