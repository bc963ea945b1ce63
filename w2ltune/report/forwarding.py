"""What LM forwarding shows: how far it is, and what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from w2ltune.report.progress import LOG_EVERY_FRACTION, LOG_EVERY_SECONDS, bar, duration


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What came of a dump.

    Attributes:
        path: The scores.
        hypotheses: Of the dump.
        sentences: The different ones of them.
        with_unknown: Hypotheses with something that the LM does not know; None of a program.
        unknown: The part of all words (letters, tokens) that it does not know.
        example: The text of one of these hypotheses.
    """

    path: Path
    hypotheses: int
    sentences: int
    with_unknown: int | None
    unknown: float
    example: str = ""


@contextlib.contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many sentences are scored; in a log, a line now and then.

    Args:
        console: Where to show it.
        total: Sentences to score.

    Yields:
        A function that takes how many are done.
    """
    began = last = time.monotonic()
    with bar(console, "sentences") as show:

        def look(done: int) -> None:
            nonlocal last
            show(done / total)
            now = time.monotonic()
            pause = max(LOG_EVERY_SECONDS, LOG_EVERY_FRACTION * (now - began))
            if not console.is_terminal and done and now - last >= pause:
                last = now
                eta = (total - done) * (now - began) / done
                console.print(
                    f"{done} of {total} sentences, {duration(now - began)}, ETA {duration(eta)}"
                )

        yield look


def table(results: list[Scored], unit: str) -> Table:
    """Return a row for each file of scores.

    Args:
        results: What came of each dump.
        unit: What the LM counts, as "words".
    """
    rows = Table(box=None, padding=(0, 2, 0, 0))
    rows.add_column("scores", overflow="fold")
    for title in ("hypotheses", "different", f"with unknown {unit}", f"unknown {unit}"):
        rows.add_column(title, justify="right")
    for result in results:
        told = result.with_unknown is not None
        rows.add_row(
            result.path.name,
            str(result.hypotheses),
            str(result.sentences),
            str(result.with_unknown) if told else "-",
            f"{result.unknown:.2%}" if told else "-",
        )
    return rows
