"""The report's sections about trials, beams and errors; each is empty where it has no data."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from w2ltune.errors import W2LTuneError
from w2ltune.report import plots
from w2ltune.report.content import Content, chosen_for
from w2ltune.report.findings import (
    AlignedUtterance,
    compare_settings,
    rivals_of_best,
    worst_utterances,
)
from w2ltune.report.leaderboard import per_cent, rate, rate_cells, searched, trial_cells
from w2ltune.report.markup import Html, element, figure, section, side_by_side, table
from w2ltune.report.numbers import difference_text, real_time_factor_text
from w2ltune.report.surfaceplots import surface_plots
from w2ltune.runs.outcome import Probe
from w2ltune.runs.provenance import SweepRequest
from w2ltune.search.surface import Surface

ROWS = 30
FAILED_ROWS = 3
"""Failed trials are last; a few are shown however many there are before them."""

MOST_UNITS = 300
"""Units shown of an utterance; for the CER they are characters."""

_MARKS = {"correct": "", "substitution": "S", "deletion": "D", "insertion": "I"}


def leaderboard(content: Content) -> Iterator[Html]:
    """Return the table of the trials."""
    results = content.board.results
    if not results:
        return
    chosen = chosen_for(content)
    failed = [result.number for result in results if result.state == "FAIL"][:FAILED_ROWS]
    kept = {*chosen, *failed, *(result.number for result in results[:ROWS])}
    shown = [result for result in results if result.number in kept]
    names = searched(content.board)
    factors = [real_time_factor_text(content, result) for result in shown]
    rtf = ["RTF"] if any(factors) else []
    head = ["trial", f"{content.metric.upper()} %", "95 %", "S", "D", "I", *names, "s", "CPU s"]
    rows = []
    for result, factor in zip(shown, factors, strict=True):
        number, *cells = trial_cells(result, names)
        note = {"PRUNED": "pruned", "FAIL": f"failed: {result.reason}"}.get(result.state, "")
        star = "★ " * (result.number in chosen)
        cells += [f"{result.work_seconds:.2f}", *([factor] if rtf else [])]
        rows.append([star + number, *cells, chosen.get(result.number, note)])
    left = f", {len(shown)} of {len(results)}" if len(shown) < len(results) else ""
    marked = [index for index, result in enumerate(shown) if result.number in chosen]
    yield section(
        "Leaderboard",
        f"The trials by error rate{left}; in brackets the rate of a part of the list, where a "
        "trial was stopped early.",
        table([*head, *rtf, ""], rows, text_columns={""}, marked=marked),
    )


def over_weights(content: Content, surfaces: Iterable[Surface]) -> Iterator[Html]:
    """Return the plots over the weights."""
    drawn: list[Html] = []
    for index, surface in enumerate(surfaces):
        setting = [f"{name}={value}" for name, value in surface.setting.items()]
        title = ", ".join([surface.target, *setting] if surface.target else setting)
        drawn += [element("h3", title)] if title else []
        figures = surface_plots(surface, metric=content.metric, name=f"surface{index}")
        drawn.append(side_by_side(*(figure(*pair) for pair in figures)))
    if drawn:
        yield section(
            f"{content.metric.upper()} over the weights",
            "Circles are decoded points with their real rate, the star is the chosen one; the rest "
            "is predicted from the n-best lists, and hatched or shaded where too far from any "
            "decode to be known.",
            *drawn,
        )


def convergence(content: Content) -> Iterator[Html]:
    """Return the rate of each trial in the order of decodes."""
    if content.board.results:
        svg = plots.convergence_plot(
            content.board.results, metric=content.metric, chosen=chosen_for(content)
        )
        yield section(
            "Convergence",
            "The rate of each trial in the order of the decodes; the line is the best so far, the "
            "star the chosen trial.",
            side_by_side(figure("The axis above adds up the CPU seconds of the decodes.", svg)),
        )


def rivals(content: Content) -> Iterator[Html]:
    """Return which trials may be as good as the best."""
    rivals, best = rivals_of_best(content), content.board.best
    if not rivals or best is None:
        return
    alike = sum(not rival.distinguishable for rival in rivals)
    complete = sum(result.state == "COMPLETE" for result in content.board.results) - 1
    of = f"the {len(rivals)} nearest of " if len(rivals) < complete else ""
    svg = plots.forest_plot(rivals, metric=content.metric, best=best)
    interval = rivals[0].difference.interval
    caption = (
        "Filled: not distinguishable, the interval holds 0. Hollow: worse. "
        f"95 % intervals by {interval.unit} ({interval.count})."
    )
    yield section(
        "Trials not distinguishable from the best",
        f"{alike or 'None'} of {of}{complete} other complete trials cannot be told from trial "
        f"{best.number} on this list: their paired difference, with its 95 % interval, may be 0.",
        side_by_side(figure(caption, svg)),
    )


def probes(content: Content) -> Iterator[Html]:
    """Return what other beams give."""
    if content.outcome.probes:
        yield section(
            "Beam",
            "What other beams give, each at weights of its own, on a part of the list: the "
            "difference to the beam as searched, and its price.",
            *(part for probe in content.outcome.probes for part in _probe(content, probe)),
        )


def _probe(content: Content, probe: Probe) -> Iterator[Html]:
    names = list(dict.fromkeys(name for row in probe.rows for name in row.beam))
    rtf = ["RTF"] if probe.audio_seconds else []
    rows = [
        [
            row.label,
            " ".join(f"{value:.3g}" for value in row.weights.values()),
            *(row.beam.get(name, "") for name in names),
            per_cent(rate(row.counts)),
            difference_text(row.against_searched),
            f"{row.work_seconds:.2f}",
            *([f"{row.work_seconds / probe.audio_seconds:.2g}"] if probe.audio_seconds else []),
        ]
        for row in probe.rows
    ]
    head = ["beam", "weights", *names, f"{content.metric.upper()} %", "difference", "CPU s", *rtf]
    of = f"Beam of trial {probe.trial}" if probe.trial >= 0 else "Before the first trial"
    looks = f", {probe.decoded} decoded in all" if probe.decoded else ""
    yield element("h3", f"{of}: {probe.utterances} utterances{looks}")
    yield table(head, rows, text_columns={"beam", "weights"})
    if probe.advice:
        yield element("p", probe.advice)


def settings(content: Content) -> Iterator[Html]:
    """Return what speed costs."""
    settings = compare_settings(content)
    if not settings:
        return
    cost = "real-time factor" if content.outcome.audio_seconds else "CPU seconds of a decode"
    svg = plots.tradeoff_plot(settings, metric=content.metric, cost_name=cost)
    front = [setting for setting in settings if setting.on_front]
    rows = [
        [setting.label, *rate_cells(setting.result.counts, setting.result.interval)[:2],
         f"{setting.cost:.3g}", str(setting.result.number)]
        for setting in front
    ]  # fmt: skip
    yield section(
        "Error rate against speed",
        "The best trial of each setting of the flags that change the beam or the models; the line "
        "joins those that no other beats in both rate and speed.",
        side_by_side(figure(f"Error rate over {cost}.", svg)),
        table(["setting", f"{content.metric.upper()} %", "95 %", cost, "trial"], rows,
              text_columns={"setting"}),
    )  # fmt: skip


def worst(content: Content) -> Iterator[Html]:
    """Return the utterances with most errors."""
    trial = content.chosen
    if trial is None:
        return
    title = "Utterances with most errors"
    try:
        worst = worst_utterances(content, trial)
    except (W2LTuneError, OSError) as error:
        says = f"The references of trial {trial.number} cannot be shown any more: {error}."
        yield section(title, says)
        return
    if worst:
        yield section(
            title,
            f"Reference over hypothesis, aligned, for the worst of trial {trial.number}: "
            "S substitution, D deletion, I insertion.",
            *map(_utterance, worst),
        )


def _utterance(utterance: AlignedUtterance) -> Html:
    def column(kind: str, reference: str, hypothesis: str, mark: str) -> Html:
        cells = [element("span", reference), element("span", hypothesis)]
        return element("span", *cells, element("span", mark, class_="mark"), class_=kind)

    columns = [column("label", "ref", "hyp", "")]
    columns += [
        column(unit.kind, unit.reference or "∗∗∗", unit.hypothesis or "∗∗∗", _MARKS[unit.kind])
        for unit in utterance.units[:MOST_UNITS]
    ]
    left = len(utterance.units) - MOST_UNITS
    errors = "1 error" if utterance.errors == 1 else f"{utterance.errors} errors"
    return element(
        "div",
        element("p", element("b", utterance.id), f"  {errors}", class_="small"),
        element("div", *columns, class_="aligned"),
        *([element("p", f"… and {left} more", class_="small")] if left > 0 else []),
        class_="utterance",
    )


def reproduction(
    request: SweepRequest,
    *,
    sampler: str = "",
    program: str = "w2ltune.sweep",
    again: str = "the same command in the same folder continues the sweep",
) -> Iterator[Html]:
    """Return what was asked, on what, by which versions, and what happens when asked again."""
    command = ("python", "-m", program, *request.command) if request.command else ()
    searched = "\n".join(f"--{name}={text}" for name, text in request.space.items())
    fixed = "\n".join(f"--{name}={text}" for name, text in request.flags.items())
    scoring = ", ".join(f"{name} {text}" for name, text in request.scoring.items() if text)
    facts = [
        ("seed", str(request.seed)),
        ("search", sampler),
        ("scoring", scoring),
        ("commit", request.commit),
        *request.versions.items(),
    ]
    inputs = [(name, str(mark.size), mark.sha256) for name, mark in request.inputs.items()]
    yield section(
        "How to reproduce",
        f"What was asked, and on what: {again}.",
        *([element("pre", shlex.join(command))] if command else []),
        *([element("h3", "Searched"), element("pre", searched)] if searched else []),
        element(
            "details",
            element("summary", "Fixed flags, versions and inputs"),
            element("pre", fixed),
            table(["", "value"], [fact for fact in facts if fact[1]], text_columns={"", "value"}),
            table(["input", "bytes", "SHA-256"], inputs, text_columns={"input", "SHA-256"}),
        ),
    )
