"""The plots of trials: convergence, differences to the best, rate against speed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from w2ltune.report.findings import Rival, Setting
from w2ltune.report.leaderboard import per_cent
from w2ltune.report.markup import Html
from w2ltune.report.svg import BLUE, GREY, ORANGE, annotate, legend_below, mark_chosen, plot
from w2ltune.runs.trialdir import TrialResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL_CHARACTERS = 16


def convergence_plot(results: Iterable[TrialResult], *, metric: str, chosen: Iterable[int]) -> Html:
    """Return the rate of each finished trial in the order of decodes, and the best so far."""
    ordered = sorted(results, key=lambda result: result.number)
    decodes = np.arange(1, len(ordered) + 1)
    states = np.array([result.state for result in ordered])
    rates = np.array([np.nan if r.value is None else 100 * r.value for r in ordered])
    complete = states == "COMPLETE"
    best = np.fmin.accumulate(np.where(complete, rates, np.nan))
    marked = np.isin([result.number for result in ordered], list(chosen)) & complete

    def draw(axes: Axes) -> None:
        axes.grid(True, axis="y")
        if complete.any():
            axes.step(decodes, best, where="post", color=BLUE, linewidth=1.6, label="best so far")
        low, high = good_range(rates[complete] if complete.any() else rates)
        axes.set_ylim(low, high)
        for mask, marker, color, label in (
            (complete, "o", BLUE, "complete"),
            (states == "PRUNED", "v", GREY, "pruned (of a part)"),
        ):
            inside = mask & (rates <= high)
            if mask.any():
                axes.plot(
                    decodes[inside], rates[inside], marker, color="white", markeredgecolor=color,
                    label=label,
                )  # fmt: skip
        mark_above(axes, decodes[rates > high], color=GREY)
        failed = states == "FAIL"
        if failed.any():
            axes.plot(
                decodes[failed], np.full(failed.sum(), 0.02), "x", color=GREY, clip_on=False,
                transform=axes.get_xaxis_transform(), label="failed",
            )  # fmt: skip
        for x, y in zip(decodes[marked], rates[marked], strict=True):
            mark_chosen(axes, float(x), float(y))
        axes.set(xlabel="decodes", ylabel=f"{metric.upper()} %", xlim=(0.5, len(ordered) + 0.5))
        _add_processor_axis(axes, [result.work_seconds for result in ordered])
        legend_below(axes)

    return plot("convergence", draw, width=640, height=340)


def good_range(rates: npt.NDArray[np.float64], *, spread: float = 3.0) -> tuple[float, float]:
    """Return limits that show the good trials; a few hopeless ones must not flatten them.

    Args:
        rates: In per cent.
        spread: How far above the best they may go, in steps from it to the middle one.
    """
    finite = rates[np.isfinite(rates)]
    if not finite.size:
        return 0.0, 1.0
    low, middle, high = (float(value) for value in np.quantile(finite, (0, 0.5, 1)))
    high = min(high, low + spread * max(middle - low, 0.05 * low))
    margin = max(0.12 * (high - low), 0.1)
    return max(0.0, low - margin), high + 2 * margin


def _add_processor_axis(axes: Axes, seconds: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    sums = list(accumulate(seconds))
    ticks = [int(tick) for tick in axes.get_xticks() if 1 <= tick <= len(sums)]
    if sums and sums[-1] > 0:
        above = axes.secondary_xaxis("top")
        above.set_xticks(ticks, [f"{sums[tick - 1]:.3g}" for tick in ticks])
        above.set_xlabel("CPU seconds")
        above.spines["top"].set_visible(False)
        above.tick_params(length=0)


def forest_plot(rivals: Sequence[Rival], *, metric: str, best: TrialResult) -> Html:
    """Return each trial's difference to the best one with its interval, nearest first."""

    def draw(axes: Axes) -> None:
        rows = np.arange(1, len(rivals) + 1)
        axes.axvline(0, color="black", linewidth=1)
        axes.plot([0], [0], "*", color=ORANGE, markersize=13, clip_on=False)
        for row, rival in zip(rows, rivals, strict=True):
            difference, interval = rival.difference.difference, rival.difference.interval
            color = GREY if rival.distinguishable else BLUE
            axes.plot([100 * interval.low, 100 * interval.high], [row, row], "-", color=color)
            axes.plot(
                [100 * difference], [row], "o", markeredgecolor=color,
                color="white" if rival.distinguishable else color,
            )  # fmt: skip
        # One hopeless trial must not squeeze the others together.
        ends = np.array([100 * rival.difference.interval.high for rival in rivals])
        right = min(float(ends.max()), 4 * float(np.median(ends)) + 0.1)
        beyond = [100 * rival.difference.difference > right for rival in rivals]
        if any(beyond):
            axes.plot(
                np.full(sum(beyond), 0.99), rows[beyond], ">", color=GREY, clip_on=False,
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
        axes.set_xlim(axes.get_xlim()[0], 1.05 * right)
        results = [best, *(rival.result for rival in rivals)]
        axes.set_yticks([0, *rows], [f"trial {r.number}: {per_cent(r.value)}" for r in results])
        axes.set_ylim(len(rivals) + 0.7, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(True, axis="x")
        axes.set_xlabel(f"{metric.upper()} minus that of the best trial, points")

    return plot("forest", draw, width=640, height=80 + 21 * (len(rivals) + 1))


def tradeoff_plot(settings: Sequence[Setting], *, metric: str, cost_name: str) -> Html:
    """Return the rate of each setting's best trial over what it costs, and the best for a cost."""
    costs = np.array([setting.cost for setting in settings])
    rates = np.array([100 * (setting.result.value or 0.0) for setting in settings])
    front = np.array([setting.on_front for setting in settings])

    def draw(axes: Axes) -> None:
        axes.grid(True)
        if costs.max() > 5 * costs.min():
            logarithmic(axes)
        axes.step(
            costs[front], rates[front], "o-", where="post", color=BLUE,
            label="no other is faster and better",
        )  # fmt: skip
        low, high = good_range(rates)
        high = max(high, rates[front].max() + 0.1)
        if not front.all():
            axes.plot(
                costs[~front], rates[~front], "o", color="white", markeredgecolor=GREY,
                label="the others",
            )  # fmt: skip
        mark_above(axes, costs[rates > high], color=GREY)
        axes.margins(x=0.12)
        axes.set(xlabel=cost_name, ylabel=f"{metric.upper()} %", ylim=(low, high))
        legend_below(axes)
        # From the best on: where there is no room for all, these matter most.
        named = [i for i in np.argsort(rates, kind="stable") if front[i]]
        annotate(axes, [(costs[i], rates[i], _short(settings[i])) for i in named])

    return plot("tradeoff", draw, width=640, height=380)


def logarithmic(axes: Axes, along: Literal["x", "y"] = "x") -> None:
    """Make an axis logarithmic, with numbers as people write them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(**{f"{along}scale": "log"})
    axis = axes.xaxis if along == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def mark_above(axes: Axes, x: npt.NDArray[Any], **style: Any) -> None:
    """Mark at the upper edge what is too high for the plot."""
    if len(x):
        axes.plot(
            x, np.full(len(x), 0.985), marker="^", clip_on=False,
            transform=axes.get_xaxis_transform(),
            **{"label": "above the plot", "linestyle": "none", **style},
        )  # fmt: skip


def _short(setting: Setting) -> str:
    """Return a setting where it is short, else its trial: the table below says which it is."""
    short = len(setting.label) <= LABEL_CHARACTERS
    return setting.label if short else f"trial {setting.result.number}"
