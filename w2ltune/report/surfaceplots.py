"""The plots of error rates over the weights: maps of two weights, a curve of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from w2ltune.report.leaderboard import per_cent
from w2ltune.report.markup import Html
from w2ltune.report.svg import BLUE, GREY, annotate, draw_map, legend_below, mark_chosen, plot
from w2ltune.search.surface import Surface

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def surface_plots(surface: Surface, *, metric: str, name: str) -> list[tuple[str, Html]]:
    """Return plots of a surface with their captions: predicted and corrected, or one curve."""
    if surface.y_name and min(surface.predicted.shape) > 1:
        return [
            (
                "Predicted: the best pooled hypotheses; optimistic away from decoded points.",
                _map(surface, surface.predicted, f"predicted {metric.upper()} %", f"{name}-p"),
            ),
            (
                "Corrected: what a decode is expected to give, after the decodes so far.",
                _map(surface, surface.corrected, f"corrected {metric.upper()} %", f"{name}-c"),
            ),
        ]
    caption = (
        "Dashed: predicted from the n-best lists, optimistic away from decoded points; solid: "
        "corrected by the decodes; shaded: not known."
    )
    return [
        (caption, plot(name, lambda axes: _curve(axes, surface, metric), width=640, height=360))
    ]


def _map(surface: Surface, rates: npt.NDArray[np.float64], title: str, name: str) -> Html:
    def draw(axes: Axes) -> None:
        shown = np.ma.masked_invalid(100 * rates)
        draw_map(axes, surface.x, surface.y, shown, _limits(surface))
        if not surface.known.all():
            unknown = np.logical_not(surface.known).astype(float)
            region = (surface.x, surface.y, unknown, [0.5, 1.5])
            axes.contourf(*region, colors="white", alpha=0.4)
            axes.contourf(*region, colors="none", hatches=["///"])
        axes.set(title=title, xlabel=surface.x_name, ylabel=surface.y_name)
        axes.set_xlim(surface.x.min(), surface.x.max())
        axes.set_ylim(surface.y.min(), surface.y.max())
        x, y, real = surface.points.reshape(-1, 3).T
        axes.plot(x, y, "o", color="white", markeredgecolor="black", markersize=5)
        mark_chosen(axes, *surface.chosen)
        annotate(
            axes, [(x[i], y[i], per_cent(float(real[i]))) for i in _chosen_first(surface, x, y)]
        )

    return plot(name, draw, width=470, height=370)


def _limits(surface: Surface) -> tuple[float, float]:
    """Return limits in per cent, the same for both maps, not far from the optimum."""
    both = 100 * np.concatenate([surface.predicted, surface.corrected])
    finite = both[np.isfinite(both)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, max(min(high, 2.5 * low + 1), low + 0.1)


def _curve(axes: Axes, surface: Surface, metric: str) -> None:
    # Over the weight that has several values, where a grid is only one point wide.
    along_y = len(surface.x) == 1 and len(surface.y) > 1
    grid = surface.y if along_y else surface.x
    predicted, corrected, known = (
        values[:, 0] if along_y else values[0]
        for values in (surface.predicted, surface.corrected, surface.known)
    )
    axes.grid(True)
    axes.plot(grid, 100 * predicted, "--", color=GREY, label="predicted")
    axes.plot(grid, 100 * corrected, "-", color=BLUE, label="corrected")
    axes.fill_between(
        grid, 0, 1, where=np.logical_not(known), transform=axes.get_xaxis_transform(),
        color="#eef0f2", linewidth=0, zorder=0,
    )  # fmt: skip
    points = surface.points.reshape(-1, 3)
    x, real = points[:, 1 if along_y else 0], points[:, 2]
    axes.plot(x, 100 * real, "o", color="white", markeredgecolor="black", markersize=5)
    chosen = surface.chosen[1 if along_y else 0]
    decoded = real[np.isclose(x, chosen)]
    if len(decoded):
        mark_chosen(axes, chosen, 100 * float(decoded.min()))
    axes.set(xlabel=surface.y_name if along_y else surface.x_name, ylabel=f"{metric.upper()} %")
    legend_below(axes)
    order = np.argsort(real, kind="stable")
    annotate(axes, [(x[i], 100 * real[i], per_cent(float(real[i]))) for i in order])


def _chosen_first(
    surface: Surface, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> list[int]:
    chosen = np.isclose(x, surface.chosen[0]) & np.isclose(y, surface.chosen[1])
    order = np.lexsort((surface.points.reshape(-1, 3)[:, 2], ~chosen))
    return [int(index) for index in order]
