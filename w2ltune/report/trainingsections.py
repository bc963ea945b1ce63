"""The sections of a training sweep's report; each is empty where it has no data."""

from __future__ import annotations

from collections.abc import Iterator

from w2ltune.report.leaderboard import STATES, Running, per_cent, show_value
from w2ltune.report.markup import Html, figure, section, side_by_side, table
from w2ltune.report.progress import duration
from w2ltune.report.training import TrainingContent, lowest
from w2ltune.report.trainingcurves import curves_plot, progress_axis
from w2ltune.report.trainingfindings import rank_correlation
from w2ltune.report.trainingplots import flag_plot, time_plot
from w2ltune.report.trainingtable import training_cells

ROWS = 40


def leaderboard(content: TrainingContent, running: list[Running]) -> Iterator[Html]:
    """Return the table of the trials, those at work last."""
    results, best = content.board.results, content.best
    if not results and not running:
        return
    # The best one is in it even where checkpoints that were decoded again gave another order.
    shown = [r for i, r in enumerate(results) if i < ROWS or r is best]
    head, rows = training_cells(content.board, shown, running, metric=content.metric)
    for row, result in zip(rows, shown, strict=False):
        if result is best:
            row[0], row[-1] = f"★ {row[0]}", "best"
        elif result.state != "COMPLETE":
            row[-1] = STATES[result.state]
    for row in rows[len(shown) :]:
        row[-1] = f"running or interrupted, {row[-1]}"
    left = f", {len(shown)} of {len(results)}" if len(shown) < len(results) else ""
    marked = [index for index, result in enumerate(shown) if result is best]
    yield section(
        "Leaderboard",
        f"The trials by {content.metric}{left}: the lowest of its epochs, at which epoch that was "
        "and how many there were; in brackets where a trial was stopped early or is not finished.",
        table(head, rows, text_columns={""}, marked=marked),
    )


def learning_curves(content: TrainingContent) -> Iterator[Html]:
    """Return the error rate of every trial over its epochs."""
    curves = {number: curve for number, curve in content.curves.items() if curve}
    if not curves:
        return
    best = content.best
    states = {result.number: result.state for result in content.board.results}
    number = None if best is None else best.number
    captions = ("The star: the best trial at its best.", "The same, where the better ones end.")
    figures = [
        figure(
            caption,
            curves_plot(curves, states, metric=content.metric, best=number, closer=bool(closer)),
        )
        for closer, caption in enumerate(captions)
    ]
    over = progress_axis(list(curves.values()))
    yield section(
        "Learning curves",
        f"{content.metric} of every trial over its {over.removesuffix('s')}s, as its log has it.",
        side_by_side(*figures),
    )


def over_flags(content: TrainingContent) -> Iterator[Html]:
    """Return the error rate over each searched flag."""
    best = content.best
    figures = []
    for name, text in content.request.space.items():
        results = [r for r in content.board.results if name in r.params and r.value is not None]
        if not results:
            continue
        correlation = rank_correlation(results, name)
        caption = f"--{name}={text}."
        if correlation is not None:
            signed = f"{correlation:+.2f}".replace("-", "−")
            caption += f" Rank correlation {signed} ({len(results)} trials)."
        svg = flag_plot(
            results, flag=name, space=text, metric=content.metric,
            best=None if best is None else best.number,
        )  # fmt: skip
        figures.append(figure(caption, svg))
    if figures:
        yield section(
            f"{content.metric} over the searched flags",
            "Filled: complete; hollow: pruned, its best until then; the star: the best trial. "
            "Spearman's rank correlation is near 0 also where the best lies inside the range.",
            side_by_side(*figures),
        )


def time(content: TrainingContent) -> Iterator[Html]:
    """Return what the trials took."""
    results = content.board.results
    if not results:
        return
    best = content.best
    total = sum(result.seconds for result in results)
    pruned = [result for result in results if result.state == "PRUNED"]
    text = f"{len(results)} trials took {duration(total)} together"
    if pruned:
        epochs = sum(result.epochs for result in pruned)
        trials = "1 was" if len(pruned) == 1 else f"{len(pruned)} were"
        text += f"; {trials} stopped early, after {duration(sum(r.seconds for r in pruned))}"
        text += f" and {epochs} epochs" if epochs else ""
    svg = time_plot(results, best=None if best is None else best.number)
    yield section(
        "Time",
        "Wall time of each trial; they may have run side by side.",
        side_by_side(figure(f"{text}.", svg)),
    )


def failures(content: TrainingContent) -> Iterator[Html]:
    """Return which trials failed, and why."""
    failed = [result for result in content.board.results if result.state == "FAIL"]
    if not failed:
        return
    rows = []
    for result in failed:
        line = lowest(content.curves.get(result.number, ()), content.metric)
        reached = "" if line is None else f"{per_cent(line.rates[content.metric])}"
        flags = " ".join(f"--{name}={show_value(v)}" for name, v in result.params.items())
        rows.append(
            [str(result.number), flags, str(result.updates or ""), reached, str(result.attempt),
             result.reason, f"trials/{result.number:04d}"]
        )  # fmt: skip
    head = ["trial", "flags", "updates", f"{content.metric} %", "launches", "reason", "logs in"]
    yield section(
        "Failures",
        "Trials whose program failed, how far they came, and what it said.",
        table(head, rows, text_columns={"flags", "reason", "logs in"}),
    )
