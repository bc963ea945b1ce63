"""The plots of rescoring: rates along and over the weights, by k, and as they were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from w2ltune.report.markup import Html
from w2ltune.report.plots import logarithmic
from w2ltune.report.svg import BLUE, GREY, ORANGE, draw_map, legend_below, mark_chosen, plot
from w2ltune.runs.rescored import ByK
from w2ltune.search.rescorestudy import Incumbent
from w2ltune.search.slices import Slice, WeightMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def slice_plot(found: Slice, *, metric: str) -> Html:
    """Return the rates along one weight."""

    def draw(axes: Axes) -> None:
        axes.grid(True)
        axes.plot(found.values, 100 * found.dev, color=BLUE, label="tuned on")
        if found.test is not None:
            axes.plot(found.values, 100 * found.test, "--", color=ORANGE, label="held out")
        axes.axvline(0, color=GREY, linewidth=0.8)
        rate = float(np.interp(found.answer, found.values, found.dev))
        mark_chosen(axes, found.answer, 100 * rate)
        axes.set(xlabel=f"weight of {found.name}", ylabel=f"{metric.upper()} %")
        _limit(axes, [found.dev, *([] if found.test is None else [found.test])])
        legend_below(axes)

    return plot(f"slice-{found.name}", draw, width=470, height=330)


def map_plot(found: WeightMap, *, metric: str) -> Html:
    """Return the rates over two weights."""

    def draw(axes: Axes) -> None:
        rates = 100 * found.rates
        low = float(rates.min())
        high = max(low + 0.1, min(float(rates.max()), 1.5 * low + 0.5))
        draw_map(axes, found.x, found.y, rates, (low, high))
        axes.set(
            title=f"{metric.upper()} %", xlabel=f"weight of {found.x_name}",
            ylabel=f"weight of {found.y_name}",
        )  # fmt: skip
        mark_chosen(axes, *found.answer)

    return plot(f"map-{found.x_name}-{found.y_name}", draw, width=470, height=370)


def by_k_plot(rows: Sequence[ByK], *, metric: str, chosen: int) -> Html:
    """Return the rates over how many hypotheses take part."""

    def draw(axes: Axes) -> None:
        ks = np.array([row.k for row in rows])
        axes.grid(True)
        axes.plot(ks, [100 * row.rate for row in rows], "o-", color=BLUE, label="tuned on")
        if any(row.test_rate is not None for row in rows):
            test = [100 * row.test_rate if row.test_rate is not None else np.nan for row in rows]
            axes.plot(ks, test, "o--", color=ORANGE, label="held out")
        axes.plot(ks, [100 * row.oracle for row in rows], ":", color=GREY, label="oracle")
        for row in rows:
            if row.k == chosen:
                mark_chosen(axes, row.k, 100 * row.rate)
        logarithmic(axes)
        axes.set(xlabel="hypotheses of each utterance", ylabel=f"{metric.upper()} %")
        legend_below(axes)

    return plot("by-k", draw, width=640, height=340)


def convergence_plot(found: Sequence[Incumbent], *, metric: str, reference_words: int) -> Html:
    """Return the best rate over the weights evaluated until then."""

    def draw(axes: Axes) -> None:
        steps = np.maximum.accumulate([max(1, one.evaluations) for one in found])
        rates = np.minimum.accumulate([100 * one.errors / reference_words for one in found])
        axes.grid(True)
        axes.step(steps, rates, "o-", where="post", color=BLUE)
        if steps[-1] > 20:
            logarithmic(axes)
        axes.set(xlabel="evaluations (lines, for line search)", ylabel=f"{metric.upper()} %")

    return plot("convergence", draw, width=640, height=320)


def _limit(axes: Axes, curves: Sequence[npt.NDArray[np.float64]]) -> None:
    """Show the good part: far from the answer rates are several times as high."""
    low = min(float(curve.min()) for curve in curves)
    best = max(float(curve.min()) for curve in curves)
    high = max(float(curve.max()) for curve in curves)
    high = min(high, 1.5 * best)
    margin = 0.05 * max(high - low, 1e-3)
    axes.set_ylim(100 * (low - margin), 100 * (high + margin))
