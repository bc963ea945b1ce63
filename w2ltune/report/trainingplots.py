"""The plots over the trials of a training sweep: error rate over a searched flag, time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from w2ltune.formats.distributions import Choice, FloatRange, IntegerRange, parse_value
from w2ltune.report.leaderboard import STATES, show_value
from w2ltune.report.markup import Html
from w2ltune.report.plots import good_range, logarithmic, mark_above
from w2ltune.report.svg import BLUE, GREY, legend_below, mark_chosen, plot
from w2ltune.report.trainingcurves import whole_numbers
from w2ltune.report.trainingtable import short_values, time_unit
from w2ltune.runs.trialdir import TrialResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL_CHARACTERS = 24
PALE = "#d9dee3"


def flag_plot(
    results: Sequence[TrialResult], *, flag: str, space: str, metric: str, best: int | None
) -> Html:
    """Return the error rate over the values of a searched flag."""
    distribution = parse_value(space, flag=flag)
    values = [result.params[flag] for result in results]
    texts = isinstance(distribution, Choice) or any(isinstance(value, str) for value in values)
    rates = np.array([100 * (result.value or 0.0) for result in results])
    pruned = np.array([result.state == "PRUNED" for result in results], dtype=bool)

    def draw(axes: Axes) -> None:
        axes.grid(True, axis="y" if texts else "both")
        if texts:
            choices = list(distribution.choices) if isinstance(distribution, Choice) else []
            x = _draw_choices(axes, [show_value(value) for value in values], choices)
        else:
            x = np.array(values, dtype=np.float64)
            _number_axis(axes, distribution, x)
        low, high = good_range(rates, spread=2.0)
        inside = rates <= high
        for kind, face, edge, label in (
            (~pruned, BLUE, BLUE, "complete"),
            (pruned, "white", GREY, "pruned"),
        ):
            style: dict[str, Any] = {"color": face, "markeredgecolor": edge, "linestyle": "none"}
            shown, above = kind & inside, kind & ~inside
            if shown.any():
                axes.plot(x[shown], rates[shown], marker="o", label=label, **style)
            mark_above(axes, x[above], label=f"{label}, above", **style)
        for index, result in enumerate(results):
            if result.number == best:
                mark_chosen(axes, float(x[index]), float(rates[index]))
        axes.set(xlabel=f"--{flag}", ylabel=f"{metric} %", ylim=(low, high))
        legend_below(axes)

    return plot(f"flag-{flag}", draw, width=480, height=320)


def _draw_choices(
    axes: Axes, values: Sequence[str], choices: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Make an axis of texts; equal ones stand side by side."""
    names = list(dict.fromkeys([*choices, *values]))
    short = short_values(names)
    labels = [short[name][:LABEL_CHARACTERS] for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=30 if len("".join(labels)) > 40 else 0)
    axes.set_xlim(-0.5, len(names) - 0.5)
    x = np.array([names.index(value) for value in values], dtype=np.float64)
    for index in range(len(names)):
        at = np.flatnonzero(x == index)
        x[at] += np.linspace(-0.15, 0.15, len(at)) if len(at) > 1 else 0.0
    return x


def _number_axis(axes: Axes, searched: object, values: npt.NDArray[np.float64]) -> None:
    """Show the whole searched range."""
    low, high = float(values.min()), float(values.max())
    log = False
    if isinstance(searched, FloatRange | IntegerRange):
        low, high, log = float(searched.low), float(searched.high), searched.log
    if log:
        logarithmic(axes)
        if high > 1000 * low:
            from matplotlib.ticker import LogLocator

            axes.xaxis.set_major_locator(LogLocator())
        margin = (high / low) ** 0.04
        axes.set_xlim(low / margin, high * margin)
    else:
        if isinstance(searched, IntegerRange):
            whole_numbers(axes)
        margin = 0.04 * (high - low) or 0.5
        axes.set_xlim(low - margin, high + margin)


def time_plot(results: Sequence[TrialResult], *, best: int | None) -> Html:
    """Return the time of each finished trial."""
    ordered = sorted(results, key=lambda result: result.number)
    unit, seconds = time_unit(ordered)
    numbers = np.array([result.number for result in ordered])
    times = np.array([result.seconds / seconds for result in ordered])

    def draw(axes: Axes) -> None:
        axes.grid(True, axis="y")
        for state, face in (("COMPLETE", BLUE), ("PRUNED", "white"), ("FAIL", PALE)):
            mask = np.array([result.state == state for result in ordered], dtype=bool)
            if mask.any():
                edge = BLUE if state == "COMPLETE" else GREY
                axes.bar(numbers[mask], times[mask], color=face, edgecolor=edge, width=0.7,
                         label=STATES[state])  # fmt: skip
        for number, time in zip(numbers, times, strict=True):
            if number == best:
                mark_chosen(axes, float(number), float(time))
        whole_numbers(axes)
        axes.set(xlabel="trial", ylabel=unit, xlim=(numbers.min() - 0.7, numbers.max() + 0.7))
        legend_below(axes)

    return plot("time", draw, width=640, height=260)
