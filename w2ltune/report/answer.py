"""The report's answer: the chosen weights, how sure they are, and what makes them doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from w2ltune.report.content import Content, find_warnings
from w2ltune.report.leaderboard import (
    error_line,
    metric_line,
    per_cent,
    rate,
    rate_cells,
    show_value,
)
from w2ltune.report.markup import Html, element, table
from w2ltune.report.numbers import (
    answer_parts,
    baseline_rate,
    difference_text,
    real_time_factor_text,
    split_line,
)
from w2ltune.runs.outcome import Choice


def headline(content: Content) -> Iterator[Html]:
    """Return the answer, or as much of it as there is."""
    yield element("h1", f"{content.folder.resolve().name}: decoder sweep")
    choices, chosen, outcome = content.outcome.choices, content.chosen, content.outcome
    unit = content.outcome.choices[0].unit if choices else chosen.interval_unit if chosen else ""
    if len(choices) == 1:
        yield _answer(content, choices[0])
    elif choices:
        yield from _choices(content)
    elif chosen is not None:
        line, rest = split_line(metric_line(chosen, content.metric))
        yield element("p", element("strong", line), f"{rest} best so far", class_="headline")
    else:
        yield element("p", element("strong", "No complete trial yet"), class_="headline")
    if content.board.running:
        numbers = ", ".join(map(str, content.board.running))
        trials = "trial" if len(content.board.running) == 1 else "trials"
        yield element("p", f"Running or interrupted: {trials} {numbers}.")
    if unit:
        blanks = ", one blank between words too" if content.cer_blanks else ", blanks left out"
        what = "words" if content.metric == "wer" else f"characters{blanks}"
        yield element(
            "p",
            f"Per cent of the reference {what}. Brackets: 95 % bootstrap interval by {unit}. "
            "S, D, I: substitutions, deletions, insertions. "
            + ("“Was”: the baseline, compared on the same utterances. " if choices else "")
            + ("RTF: CPU seconds for each second of audio. " if outcome.audio_seconds else ""),
            class_="says",
        )
    yield from (element("p", text, class_="warning") for text in find_warnings(content))
    if len(choices) < 2 and chosen is not None:
        weights = " ".join(f"--{name}={show_value(v)}" for name, v in chosen.params.items())
        why = f" ({choices[0].why})" if choices and choices[0].why else ""
        yield element("p", f"Weights of trial {chosen.number}{why}: ", element("code", weights))
    for path in sorted(content.folder.glob("best*.cfg")):
        yield element(
            "p", "To decode with them: ", element("code", f"--flagsfile={quote(str(path))}")
        )
    if outcome.baselines:
        rates = ", ".join(f"{name} {per_cent(v)}" for name, v in outcome.baselines.items())
        yield element("p", f"Without any search: {rates}.")
    yield from _looks(content)
    if outcome.reason:
        yield element("p", f"Why the search stopped: {outcome.reason.rstrip('.')}.")


def _answer(content: Content, choice: Choice) -> Html:
    line, kinds = split_line(error_line(content.metric, choice.counts, choice.interval))
    results = content.board.results
    seconds = sum(result.work_seconds for result in results)
    parts = [kinds.strip(), *answer_parts(content, choice)]
    parts += [f"{len(results)} decodes", f"{seconds:.3g} CPU s"]
    text = (f"{choice.target}: " if choice.target else "") + ", ".join(parts)
    return element("p", element("strong", line), text, class_="headline")


def _choices(content: Content) -> Iterator[Html]:
    choices = content.outcome.choices
    trials = [content.by_number.get(choice.trial) for choice in choices]
    columns = {"list": [choice.target or "all" for choice in choices]}
    cells = [rate_cells(choice.counts, choice.interval) for choice in choices]
    for index, kind in enumerate((f"{content.metric.upper()} %", "95 %", "S", "D", "I")):
        columns[kind] = [row[index] for row in cells]
    columns["was"] = [per_cent(baseline_rate(choice)) for choice in choices]
    columns["difference"] = [difference_text(choice.against_baseline) for choice in choices]
    columns["oracle"] = [per_cent(choice.oracle) for choice in choices]
    for name in dict.fromkeys(name for trial in trials if trial for name in trial.params):
        columns[name] = [show_value(t.params.get(name, "")) if t else "" for t in trials]
    columns["RTF"] = [real_time_factor_text(content, trial) for trial in trials]
    columns["trial"] = [str(choice.trial) for choice in choices]
    columns["why"] = [choice.why for choice in choices]
    filled = {name: column for name, column in columns.items() if any(column)}
    yield element("p", element("strong", "Best weights by list"), class_="headline")
    rows = zip(*filled.values(), strict=True)
    yield table(list(filled), rows, text_columns={"list", "why"})


def _looks(content: Content) -> Iterator[Html]:
    looks = content.outcome.looks
    if not looks:
        return
    rows = [
        [
            look.name,
            str(look.trial),
            *rate_cells(look.counts, look.interval),
            per_cent(None if look.baseline is None else rate(look.baseline)),
            difference_text(look.against_baseline),
            look.unit,
        ]
        for look in looks
    ]
    head = ["list", "trial", f"{content.metric.upper()} %", "95 %", "S", "D", "I", "was",
            "difference", "by"]  # fmt: skip
    times = "once" if len(looks) == 1 else f"{len(looks)} times"
    yield element("h3", "Held-out lists")
    yield element(
        "p",
        f"Lists that had no part in the choice, decoded {times} so far; each further look makes "
        "the answer more optimistic.",
        class_="says",
    )
    yield table(head, rows, text_columns={"list", "by"})
