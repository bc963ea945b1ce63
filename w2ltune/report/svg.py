"""A plot as SVG that stands in a page: text as text, and the same bytes every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from w2ltune.report.markup import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw: TypeAlias = Callable[["Axes"], None]

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8a949e"  # told apart by the colour-blind too
FONT_POINTS = 11.0
MOST_LABELS = 12
LEAST_SCALE = 0.75
"""On a narrow screen a plot shrinks so far, that its text stays readable; then it scrolls."""

_SETTINGS: dict[Any, Any] = {
    "font.size": FONT_POINTS,
    "axes.titlesize": FONT_POINTS,
    "axes.labelsize": FONT_POINTS,
    "legend.fontsize": FONT_POINTS - 1,
    "xtick.labelsize": FONT_POINTS - 1,
    "ytick.labelsize": FONT_POINTS - 1,
    "axes.edgecolor": "#5b6670",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e3e7eb",
    "hatch.color": "#5b6670",
    "hatch.linewidth": 0.4,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a name is a $
}


def plot(name: str, draw: Draw, *, width: int, height: int) -> Html:
    """Return an SVG element.

    Args:
        name: Distinguishes its ids from those of the page's other plots.
        draw: Draws on the axes that it is given.
        width: In CSS pixels, which are the points of the figure.
        height: The same.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    text = io.StringIO()
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has the letters that the font of the measurements lacks.
        warnings.filterwarnings("ignore", "Glyph")
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        draw(figure.subplots())
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        # Not savefig, which draws twice.
        FigureCanvasSVG(figure).print_svg(text, metadata=metadata)  # type: ignore[no-untyped-call]
    # Its style would hold for the whole page, which has it for its plots.
    svg = re.sub(r"<style.*?</style>", "", text.getvalue(), flags=re.DOTALL)
    head = f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
    head += f'style="min-width: {round(LEAST_SCALE * width)}px" aria-hidden="true">'
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    return Html(head + re.sub(r"<[^>]+>", lambda tag: _inline(tag[0], name), body))


def _inline(tag: str, name: str) -> str:
    """Make a tag of a lone SVG file one of a page: no namespaces, ids that occur once."""
    tag = tag.replace("xlink:href=", "href=")
    return re.sub(r'( id="|url\(#| href="#)', rf"\g<1>{name}-", tag)


def mark_chosen(axes: Axes, x: float, y: float) -> None:
    """Draw the star of the chosen trial."""
    axes.plot([x], [y], "*", color=ORANGE, markeredgecolor="white", markersize=15, zorder=5)


def draw_map(
    axes: Axes,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    rates: npt.NDArray[np.float64],
    limits: tuple[float, float],
) -> None:
    """Draw rates [y, x] over two weights in steps between two limits, with their scale."""
    from matplotlib.ticker import MaxNLocator

    levels = MaxNLocator(nbins=14, steps=[1, 2, 5, 10], min_n_ticks=3).tick_values(*limits)
    filled = axes.contourf(x, y, rates, levels=levels, cmap="viridis_r", extend="both")
    axes.contour(x, y, rates, levels=levels, colors="white", linewidths=0.4)
    bar = axes.figure.colorbar(filled, ax=axes, fraction=0.06, pad=0.03)
    bar.outline.set_visible(False)


def legend_below(axes: Axes) -> None:
    """Explain the marks below the plot, where they hide nothing."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5,
                  frameon=False)  # fmt: skip


def annotate(axes: Axes, labels: Sequence[tuple[float, float, str]]) -> None:
    """Write labels beside their points, the first ones first; what finds no room is left out."""
    from matplotlib.transforms import Bbox

    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    frame = axes.get_window_extent()
    points = [axes.transData.transform((x, y)) for x, y, _ in labels]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in points]
    height, written = 1.1 * FONT_POINTS, 0
    for (x, y), (at_x, at_y, text) in zip(points, labels, strict=True):
        width = 0.58 * FONT_POINTS * len(text)
        for left, bottom in (
            (x + 7, y - height / 2),
            (x - 7 - width, y - height / 2),
            (x - width / 2, y + 7),
            (x - width / 2, y - 7 - height),
        ):
            box = Bbox.from_bounds(left, bottom, width, height)
            inside = frame.containsx(box.x0) and frame.containsx(box.x1)
            inside = inside and frame.containsy(box.y0) and frame.containsy(box.y1)
            if written < MOST_LABELS and inside and not any(map(box.overlaps, taken)):
                axes.annotate(
                    text, (at_x, at_y), (left - x, bottom - y), textcoords="offset points",
                    fontsize=FONT_POINTS - 1, zorder=6,
                    bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
                )  # fmt: skip
                taken.append(box)
                written += 1
                break
