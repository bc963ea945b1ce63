"""The end of a sweep: its answer on the screen, in ``best.cfg``, ``trials.csv`` and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from rich.console import Console

from w2ltune import files
from w2ltune.formats.flagsfile import format_flagsfile
from w2ltune.formats.listfile import list_name
from w2ltune.report.content import Content, find_warnings, read_content
from w2ltune.report.findings import compare_settings
from w2ltune.report.leaderboard import (
    as_csv,
    elsewhere,
    error_line,
    metric_line,
    per_cent,
    rank,
    rate,
    show_value,
    table,
)
from w2ltune.report.numbers import answer_parts, difference_text, times_text
from w2ltune.report.page import build_report
from w2ltune.report.progress import duration, say
from w2ltune.runs.outcome import Choice, Look, part_spent
from w2ltune.runs.trialdir import TrialResult
from w2ltune.search.decodespace import standing_alone
from w2ltune.search.surface import Surface


def write_best(study: Path, results: Sequence[TrialResult], *, metric: str) -> None:
    """Write ``best.cfg`` of the best trial so far, if the newest one is it."""
    best = rank(results).best
    if best is not None and best is results[-1]:
        comments = [
            f"best of {len(results)} trials so far (trial {best.number})",
            f"{metric_line(best, metric)}, interval by {best.interval_unit}",
        ]
        text = format_flagsfile(standing_alone(best.flags), comments=[*comments, *elsewhere(best)])
        files.write_text(study / "best.cfg", text, own=True)


def best_name(choice: Choice) -> str:
    """Return the name of a choice's flagsfile.

    Example:
        >>> choice = Choice(target="dev-clean.lst", trial=3, best_trial=3, why="fewest errors",
        ...                 counts=(1, 0, 0, 9), interval=(0.0, 0.3), unit="utterance (3)")
        >>> best_name(choice)
        'best.dev-clean.cfg'
    """
    return f"best.{Path(choice.target).stem}.cfg" if choice.target else "best.cfg"


def answer_line(content: Content, choice: Choice) -> str:
    """Return all that is to be said of a choice, in one line."""
    results = content.board.results
    parts = [error_line(content.metric, choice.counts, choice.interval)]
    parts += answer_parts(content, choice)
    decodes = "1 decode" if len(results) == 1 else f"{len(results)} decodes"
    whole = content.by_number[choice.trial].work_seconds
    for what, before in (("a part of the list", True), ("looks at a wider beam", False)):
        seconds = part_spent(p for p in content.outcome.probes if (p.trial < 0) == before)[1]
        if seconds and whole:
            decodes += f", {what} worth {seconds / whole:.1f} more"
    parts += [decodes, duration(sum(result.seconds for result in results))]
    return ", ".join(parts)


def list_lines(content: Content, choice: Choice) -> list[str]:
    """Return what weights for all lists together cost on each; nothing where there is one list."""
    if choice.target:
        return []
    lines = []
    for name, counts in content.by_number[choice.trial].lists.items():
        rates = {
            result.number: rate(result.lists[name])
            for result in content.board.results
            if name in result.lists
        }
        here, best = per_cent(rate(counts)), min(rates, key=rates.__getitem__)
        lines.append(f"{name}: {here}; its own best is {per_cent(rates[best])} (trial {best})")
    return lines


def setting_lines(content: Content) -> list[str]:
    """Return the best rate and the speed of each setting, cheapest first."""
    what = "RTF" if content.outcome.audio_seconds else "CPU s"
    return [
        f"{found.label}: {content.metric.upper()} {per_cent(found.result.value)}, "
        f"{what} {found.cost:.2g} (trial {found.result.number})"
        for found in compare_settings(content)
    ]


def check_line(content: Content, choice: Choice) -> str:
    """Return whether the binary gives this answer too; "" where it was not asked."""
    flags = content.by_number[choice.trial].flags
    return next((check.text for check in content.outcome.checks if check.flags == flags), "")


def baseline_lines(content: Content) -> list[str]:
    """Return what there is without a search: greedy, and without an LM on the probe's part."""
    lines = [f"{name}: {per_cent(value)}" for name, value in content.outcome.baselines.items()]
    chosen = {choice.trial for choice in content.outcome.choices}
    told = [found for found in content.outcome.probes if found.advice]
    for found in [found for found in told if found.trial in chosen or found.trial < 0][-1:]:
        rates = {row.label: per_cent(rate(row.counts)) for row in found.rows}
        if "without LM" in rates:
            lines.append(
                f"without LM: {rates['without LM']} on {found.utterances} of the utterances "
                f"(as chosen: {rates['as searched']} there)"
            )
        lines.append(f"beam: {found.advice}")
    return lines


def look_line(look: Look, looks: Sequence[Look], metric: str) -> str:
    """Return what a held-out list gave, in one line."""
    text = (
        f"held-out {look.name} with trial {look.trial}: "
        f"{error_line(metric, look.counts, look.interval)}"
    )
    if look.against_baseline is not None:
        text += f", against the baseline {difference_text(look.against_baseline)}"
    times = sum(other.name == look.name for other in looks)
    return f"{text}, interval by {look.unit}; {times_text(times)}"


def finish(study: Path, console: Console, *, surfaces: Sequence[Surface]) -> int:
    """Print a finished sweep's answer, write its files and return the exit code."""
    content = read_content(study)
    console.print(table(content.board, metric=content.metric))
    for choice in content.outcome.choices:
        chosen = content.by_number[choice.trial]
        weights = " ".join(f"--{n}={quote(show_value(v))}" for n, v in chosen.params.items())
        name = choice.target or "all lists" if len(content.outcome.choices) > 1 else "best"
        say(console, f"{name}: {weights} (trial {choice.trial}, {choice.why})")
        say(console, f"  {answer_line(content, choice)}")
        say(console, f"  95 % interval by {choice.unit}; flagsfile: {study / best_name(choice)}")
        for text in filter(None, [check_line(content, choice), *list_lines(content, choice)]):
            say(console, f"  {text}")
    looks = content.outcome.looks
    lines = [*setting_lines(content), *baseline_lines(content)]
    lines += [look_line(look, looks, content.metric) for look in looks]
    lines += [f"note: {warning}" for warning in find_warnings(content)]
    lines += [f"stopped because {content.outcome.reason}"] * bool(content.outcome.reason)
    for text in lines:
        say(console, text)
    for choice in content.outcome.choices:
        _write_choice(study, content, choice)
    files.write_text(study / "trials.csv", as_csv(content.board))
    say(console, f"report: {build_report(study, surfaces=surfaces)}")
    return 0


def _write_choice(study: Path, content: Content, choice: Choice) -> None:
    chosen = content.by_number[choice.trial]
    lists = choice.target or chosen.flags.get("test", "")
    comments = [
        f"chosen of {len(content.board.results)} trials on {lists}: trial {choice.trial}, "
        f"{choice.why}",
        f"{answer_line(content, choice)}; interval by {choice.unit}",
        *filter(None, [check_line(content, choice)]),
        *list_lines(content, choice),
        *(look_line(look, content.outcome.looks, content.metric) for look in content.outcome.looks),
    ]
    if chosen.missing:
        comments.append(f"{chosen.missing} utterances have no hypothesis and count as deletions")
    flags = standing_alone(_for_target(chosen.flags, choice.target))
    text = format_flagsfile(flags, comments=[*comments, *elsewhere(chosen)])
    files.write_text(study / best_name(choice), text, own=True)


def _for_target(flags: Mapping[str, str], target: str) -> Mapping[str, str]:
    """Return the flags with the list alone that a choice is for."""
    folder = Path(flags.get("datadir", ""))
    own = [name for name in flags.get("test", "").split(",") if list_name(folder / name) == target]
    return {**flags, "test": own[0]} if own else flags
