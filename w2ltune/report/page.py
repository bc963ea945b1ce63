"""The report of a study: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from w2ltune.report import sections
from w2ltune.report.answer import headline
from w2ltune.report.content import Content, read_content, read_utterances
from w2ltune.report.leaderboard import STATES
from w2ltune.report.markup import Html, section, table, write_page
from w2ltune.runs.outcome import part_spent
from w2ltune.search.surface import Surface


def build_report(study: Path, *, surfaces: Sequence[Surface] = ()) -> Path:
    """Write ``report.html`` into a study's folder, finished or running.

    Args:
        study: The study's folder; all but the surfaces and the references is read from it.
        surfaces: Error rates over the linear weights, for each list or setting.

    Returns:
        The report's path.

    Raises:
        InputError: The folder holds no study, or a file in it was damaged.
    """
    content = read_content(study)
    body = [
        *headline(content),
        *sections.leaderboard(content),
        *sections.over_weights(content, surfaces),
        *sections.convergence(content),
        *sections.rivals(content),
        *sections.probes(content),
        *sections.settings(content),
        *sections.worst(content),
        *_spent(content),
        *sections.reproduction(content.request, sampler=content.outcome.sampler),
    ]
    return write_page(study, "sweep", body)


def _spent(content: Content) -> Iterator[Html]:
    results, outcome = content.board.results, content.outcome
    states = Counter(STATES[result.state] for result in results)
    states["running or interrupted"] = len(content.board.running)
    trials = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    rows = [("trials", trials or "none yet")]
    if results:
        rows += [
            ("CPU seconds of decoding", f"{sum(r.work_seconds for r in results):.3g}"),
            ("wall seconds, trial by trial", f"{sum(r.seconds for r in results):.3g}"),
        ]
    best = content.board.best
    utterances = None if best is None else read_utterances(content.folder, best.number)
    if best is not None and utterances is not None and best.counts:
        # A trial that was stopped early tells its words only.
        parts = sum(r.counts[3] / best.counts[3] for r in results if r.counts and best.counts[3])
        decoded = round(len(utterances.ids) * parts)
        about = "about " if states["pruned"] else ""
        rows.append(("utterances decoded", f"{about}{decoded} ({len(utterances.ids)} in the list)"))
    if outcome.probes:
        decodes, seconds = part_spent(outcome.probes)
        rows.append(("decodes of a part", f"{decodes} utterances, {seconds:.3g} CPU seconds"))
    if outcome.looks:
        rows.append(("decodes of held-out lists", str(len(outcome.looks))))
    yield section(
        "Time and decodes spent",
        "Trials may have run side by side: their wall seconds add up to more than the sweep took.",
        table(["", "spent"], rows, text_columns={"", "spent"}),
    )
