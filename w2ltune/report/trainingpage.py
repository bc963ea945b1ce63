"""The report of trainings: one HTML file, of a sweep's trials or of a single training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from w2ltune.report import trainingsections as sections
from w2ltune.report.leaderboard import per_cent
from w2ltune.report.markup import Html, element, figure, section, side_by_side, table, write_page
from w2ltune.report.progress import duration
from w2ltune.report.sections import reproduction
from w2ltune.report.training import (
    TrainingContent,
    is_single,
    lowest,
    rate_texts,
    running_trainings,
)
from w2ltune.report.trainingcurves import run_plots
from w2ltune.report.trainingfindings import OWN_RATE, find_training_warnings, params_text
from w2ltune.report.trainingtable import rescored


def build_training_report(content: TrainingContent) -> Path:
    """Write ``report.html`` of a study of trainings, or of a single one; it may be running.

    Args:
        content: What its folder tells.

    Returns:
        The report's path.
    """
    single = is_single(content.folder)
    body = [*_single(content)] if single else [*_sweep(content)]
    return write_page(content.folder, "training" if single else "sweep", body)


def _sweep(content: TrainingContent) -> Iterator[Html]:
    running = running_trainings(content.folder, content.board.running, metric=content.metric)
    yield from _headline(content, kind="training sweep")
    yield from sections.leaderboard(content, running)
    yield from sections.learning_curves(content)
    yield from sections.over_flags(content)
    yield from sections.time(content)
    yield from sections.failures(content)
    yield from reproduction(content.request)


def _single(content: TrainingContent) -> Iterator[Html]:
    history = next(iter(content.curves.values()), ())
    yield from _headline(content, kind="training")
    if history:
        figures = (figure(*pair) for pair in run_plots(history, metric=content.metric))
        says = f"{len(history)} reports, of epochs {history[0].epoch} to {history[-1].epoch}."
        yield section("Curves", says, side_by_side(*figures))
    yield from reproduction(
        content.request,
        program="w2ltune.train",
        again="the same flags and inputs on the same versions",
    )


def _headline(content: TrainingContent, *, kind: str) -> Iterator[Html]:
    """Return the answer, or as much of it as there is."""
    yield element("h1", f"{content.folder.resolve().name}: {kind}")
    best, line = content.best, content.best_line
    if best is None:
        yield from _without_answer(content)
    else:
        again, metric = rescored(best), content.metric
        large = f"{metric} {per_cent(best.value)}"
        parts = []
        if again is not None:
            parts.append(f"in training {large}")
            between = best.interval and " [{}, {}]".format(*map(per_cent, best.interval))
            large = f"{per_cent(again)}{between or ''} decoded again"
        others = [] if line is None else rate_texts(line, metric)
        parts += [text for text in others if text != f"{metric} {per_cent(best.value)}"]
        parts.append(f"epoch {best.epoch} of {content.epochs_of(best)}")
        if content.request.space:
            parts.append(f"trial {best.number} of {len(content.board.results)}")
        parts.append(duration(sum(result.seconds for result in content.board.results)))
        yield element("p", element("strong", large), ", ".join(parts), class_="headline")
        yield element("p", f"{content.metric} is {OWN_RATE}.", class_="says")
    yield from (element("p", text, class_="warning") for text in find_training_warnings(content))
    if best is not None and best.params:
        yield element("p", f"Flags of trial {best.number}: ", element("code", params_text(best)))
    flagsfile, model = content.folder / "best.cfg", content.folder / "best_model.bin"
    if flagsfile.exists():
        text = f"--flagsfile={quote(str(flagsfile))}"
        yield element("p", "To train with all its flags: ", element("code", text))
    if model.exists() and best is not None:
        yield element("p", "Its model: ", element("code", str(model)), f", {best.checkpoint}")


def _without_answer(content: TrainingContent) -> Iterator[Html]:
    failed = [result for result in content.board.results if result.state == "FAIL"]
    what = "Failed" if failed and is_single(content.folder) else "No complete training yet"
    yield element("p", element("strong", what), class_="headline")
    for result in failed if is_single(content.folder) else []:
        yield element("p", result.reason, class_="warning")
    found = [lowest(curve, content.metric) for curve in content.curves.values()]
    rows = [
        [str(number), str(line.epoch), ", ".join(rate_texts(line, content.metric))]
        for number, line in zip(content.curves, found, strict=True)
        if line is not None
    ]
    if rows:
        yield table(["trial", "best epoch so far", "rates in per cent"], rows,
                    text_columns={"rates in per cent"})  # fmt: skip
