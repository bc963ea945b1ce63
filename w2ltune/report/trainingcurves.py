"""Learning curves: those of a sweep's trials in one plot, those of one training in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from w2ltune.formats.logs import TrainLine
from w2ltune.report.markup import Html
from w2ltune.report.plots import good_range, logarithmic
from w2ltune.report.svg import BLUE, GREY, ORANGE, legend_below, mark_chosen, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a949e")
"""Told apart by the colour-blind too (Okabe and Ito)."""

WHOLE = 105.0
"""Per cent: what a training makes of more errors than words is not worth the room."""

CLOSER_SPREAD = 4.0
"""How far above the best, in steps to the middle trial, the closer view goes."""

LOG_RATIO = 6.0
"""From the highest to the lowest value; beyond it an axis is logarithmic."""

FEW_REPORTS = 30
"""Up to so many, each is marked on its curve."""

_STYLES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "COMPLETE": ("complete", {"color": BLUE, "linewidth": 1.2, "alpha": 0.7}),
    "PRUNED": ("pruned", {"color": GREY, "linewidth": 0.8}),
    "FAIL": ("failed", {"color": GREY, "linewidth": 1.2, "linestyle": ":"}),
    "": ("running", {"color": COLOURS[2], "linewidth": 1.6}),
}


def progress_axis(curves: Sequence[Sequence[TrainLine]]) -> str:
    """Return what curves are drawn over: "epoch", or "updates" where one has several reports."""
    epochs = ([line.epoch for line in curve] for curve in curves)
    return "epoch" if all(len(set(each)) == len(each) for each in epochs) else "updates"


def curves_plot(
    curves: Mapping[int, Sequence[TrainLine]],
    states: Mapping[int, str],
    *,
    metric: str,
    best: int | None,
    closer: bool = False,
) -> Html:
    """Return the error rate of every training over its epochs.

    Args:
        curves: Reports by trial.
        states: State of each finished trial.
        metric: The error rate, by its name in the log.
        best: The trial that stands out.
        closer: Show the range in which the good ones end.
    """
    over = progress_axis(list(curves.values()))

    def draw(axes: Axes) -> None:
        named: set[str] = set()
        # The best one is drawn last, above the others.
        for number in sorted(curves, key=lambda number: (number == best, number)):
            label, style = _STYLES[states.get(number, "")]
            if number == best:
                label, style = f"best: trial {number}", {"color": ORANGE, "linewidth": 2.2}
            x, y = _curve(curves[number], over, metric)
            marker = "o" if np.isfinite(y).sum() == 1 else None
            axes.plot(
                x, y, marker=marker, markersize=4, label=None if label in named else label, **style
            )
            named.add(label)
            if number == best and np.isfinite(y).any():
                mark_chosen(axes, float(x[np.nanargmin(y)]), float(np.nanmin(y)))
        rates = [_curve(curve, over, metric)[1] for curve in curves.values()]
        if closer:
            ends = [float(np.nanmin(y)) for y in rates if np.isfinite(y).any()]
            axes.grid(True)
            axes.set_ylim(*good_range(np.array(ends), spread=CLOSER_SPREAD))
        else:
            _rate_axis(axes, rates)
        whole_numbers(axes)
        axes.set(xlabel=over, ylabel=f"{metric} %")
        legend_below(axes)

    return plot("curves-closer" if closer else "curves", draw, width=480, height=380)


def _curve(curve: Sequence[TrainLine], over: str, name: str) -> tuple[Floats, Floats]:
    """Return progress and an error rate in per cent; nan where it is not finite."""
    x = np.array([float(getattr(line, over)) for line in curve])
    y = np.array([100 * line.rates.get(name, np.nan) for line in curve])
    return x, np.where(np.isfinite(y), y, np.nan)


def _rate_axis(axes: Axes, rates: Sequence[Floats]) -> None:
    finite = np.concatenate([values[np.isfinite(values)] for values in rates] or [np.zeros(0)])
    axes.grid(True)
    if not finite.size:
        return
    low = float(finite.min())
    high = max(min(float(finite.max()), WHOLE), 1.1 * low)
    if low > 0 and high > LOG_RATIO * low:
        logarithmic(axes, "y")
        axes.set_ylim(0.9 * low, 1.1 * high)
    else:
        margin = max(0.05 * (high - low), 0.1)
        axes.set_ylim(max(-0.02 * high, low - margin), high + margin)  # a mark at 0 is seen whole


def whole_numbers(axes: Axes) -> None:
    """Keep fractions off the lower axis: there is no half an epoch, and no half a trial."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))


def run_plots(history: Sequence[TrainLine], *, metric: str) -> list[tuple[str, Html]]:
    """Return the curves of one training with captions: error rates, loss, learning rate."""
    over = progress_axis([history])
    kinds: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for line in history for name in line.rates):
        kinds.setdefault(_kind(name), []).append(name)
    first = _kind(metric)
    found = [
        (
            f"{kind} of each list" + (", the star the best." if kind == first else "."),
            _rates_plot(history, kinds[kind], kind=kind, over=over, metric=metric),
        )
        for kind in sorted(kinds, key=lambda kind: (kind != first, kind))
    ]
    losses = [name for name in history[-1].values if name.endswith("loss")]
    if losses:
        found.append(("Loss of each list.", _values_plot(history, losses, name="loss", over=over)))
    if "lr" in history[-1].values:
        svg = _values_plot(history, ["lr"], name="learning rate", over=over)
        found.append(("Learning rate at each report.", svg))
    return found


def _kind(name: str) -> str:
    """Return the kind of an error rate: "WER" of "dev-other-WER"."""
    parts = name.rsplit("-", 2)
    return "-".join(parts[-2:]) if parts[-1] == "decoded" else parts[-1]


def _rates_plot(
    history: Sequence[TrainLine], names: Sequence[str], *, kind: str, over: str, metric: str
) -> Html:
    def draw(axes: Axes) -> None:
        for index, name in enumerate(names):
            x, y = _curve(history, over, name)
            _line(axes, x, y, index=index, label=name)
            if name == metric and np.isfinite(y).any():
                mark_chosen(axes, float(x[np.nanargmin(y)]), float(np.nanmin(y)))
        _rate_axis(axes, [_curve(history, over, name)[1] for name in names])
        whole_numbers(axes)
        axes.set(xlabel=over, ylabel=f"{kind} %")
        legend_below(axes)

    return plot(f"rates-{kind}", draw, width=480, height=320)


def _values_plot(
    history: Sequence[TrainLine], names: Sequence[str], *, name: str, over: str
) -> Html:
    x = np.array([float(getattr(line, over)) for line in history])
    columns = [np.array([line.values.get(column, np.nan) for line in history]) for column in names]

    def draw(axes: Axes) -> None:
        axes.grid(True)
        for index, (label, y) in enumerate(zip(names, columns, strict=True)):
            _line(axes, x, np.where(np.isfinite(y), y, np.nan), index=index, label=label)
        values = np.concatenate(columns)
        values = values[np.isfinite(values) & (values > 0)]
        if values.size and values.max() > LOG_RATIO * values.min():
            logarithmic(axes, "y")
        elif values.size:
            axes.set_ylim(0, 1.08 * float(values.max()))
        whole_numbers(axes)
        axes.set(xlabel=over, ylabel=name)
        legend_below(axes)

    return plot(name.replace(" ", "-"), draw, width=480, height=320)


def _line(axes: Axes, x: Floats, y: Floats, *, index: int, label: str) -> None:
    marker = "o" if len(x) <= FEW_REPORTS else None
    colour = COLOURS[index % len(COLOURS)]
    axes.plot(x, y, marker=marker, markersize=3, linewidth=1.6, color=colour, label=label)
