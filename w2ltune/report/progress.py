"""The live view of a running sweep: a table on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from w2ltune.errors import printable
from w2ltune.report.leaderboard import (
    COUNTED,
    Leaderboard,
    Running,
    metric_name,
    per_cent,
    rank,
    show_value,
    table,
)
from w2ltune.report.trainingtable import training_table
from w2ltune.runs.trialdir import TrialResult

if TYPE_CHECKING:
    from w2ltune.search.plan import LiveTrial

LOG_EVERY_SECONDS = 5.0
LOG_EVERY_FRACTION = 0.01
"""Part of the time since the start of trainings that passes between two lines of a log."""

TOP = 5
LOG_WIDTH = 140


@dataclass(frozen=True, kw_only=True)
class State:
    """What the view shows.

    Attributes:
        earlier: Trials finished by earlier runs of the same command.
        results: Results of all runs.
        running: Trials at work.
        budget: Trials in all, or as many as are expected.
        most: Trials at most; 0 where the budget is exact.
        seconds: Since the first trial of this run started.
    """

    earlier: int
    results: Sequence[TrialResult]
    running: Sequence[Running]
    budget: int
    seconds: float
    most: int = 0

    @property
    def eta_seconds(self) -> float | None:
        """Expected time to the end at this run's pace so far; None while nothing is done."""
        now = sum(trial.fraction for trial in self.running)
        done = len(self.results) - self.earlier + now
        left = self.budget - len(self.results) - now
        return None if done <= 0 else max(0.0, left) * self.seconds / done


def at_work(trials: Iterable[LiveTrial]) -> list[Running]:
    """Return the live trials of a run as they are shown."""
    return [
        Running(number=one.trial.number, fraction=one.fraction, value=one.value, note=one.note)
        for one in trials
    ]


def duration(seconds: float) -> str:
    """Return a time span for people.

    Example:
        >>> duration(42), duration(3723)
        ('42 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class _Console(Console):
    """Shows the control characters of what it is given; its own it writes."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            segment if segment.control else segment._replace(text=printable(segment.text))
            for segment in buffer
        )


def make_console() -> Console:
    """Return the console; in a log, lines are not folded at 80 characters."""
    console = _Console(highlight=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def say(console: Console, text: str) -> None:
    """Print a line, or more, as it is, and not folded."""
    console.print(text, markup=False, soft_wrap=True)


@contextlib.contextmanager
def bar(console: Console, what: str) -> Iterator[Callable[[float], None]]:
    """Show the progress of one piece of work; nothing in a log.

    Yields:
        A function that takes the part that is done.
    """
    if not console.is_terminal:
        yield lambda part: None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda part: progress.update(task, completed=part)


class View:
    """Shows the state again and again; use as a context manager.

    Args:
        console: Where to show it.
        metric: "wer" or "cer"; of trainings the name in their log, as "dev-WER".
    """

    def __init__(self, console: Console, *, metric: str) -> None:
        self._console = console
        self._metric = metric
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last_line = time.monotonic()

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exception)

    def show(self, state: State) -> None:
        """Draw the state; in a log, print a line every few seconds."""
        board = rank(state.results)
        if self._live is not None:
            bar = ProgressBar(total=state.budget, completed=len(state.results), width=40)
            # The bar comes last: what follows one stands on the same row, and is cut off.
            draw = table if self._metric in COUNTED else training_table
            group = Group(draw(board, metric=self._metric, most=TOP), self._running(state),
                          Text(self._line(state, board)), bar)  # fmt: skip
            self._live.update(group, refresh=True)
        elif time.monotonic() - self._last_line >= self._pause_seconds(state):
            self._last_line = time.monotonic()
            notes = [self._so_far(trial) for trial in state.running if trial.note]
            line = "; ".join([self._line(state, board), *notes])
            say(self._console, line)

    def _pause_seconds(self, state: State) -> float:
        """Return the time between two lines of a log: trainings may take days."""
        longest = 0.0 if self._metric in COUNTED else state.seconds * LOG_EVERY_FRACTION
        return max(LOG_EVERY_SECONDS, longest)

    def _so_far(self, trial: Running) -> str:
        parts = [f"trial {trial.number}: {trial.note}"]
        if trial.value is not None:
            parts.append(f"{metric_name(self._metric)} {per_cent(trial.value)}")
        return ", ".join([*parts, f"{trial.fraction:.0%} done"])

    def _running(self, state: State) -> Table:
        grid = Table.grid(padding=(0, 2))
        for trial in state.running:
            grid.add_row(
                f"trial {trial.number}",
                ProgressBar(total=1.0, completed=trial.fraction, width=24),
                ""
                if trial.value is None
                else f"{metric_name(self._metric)} {per_cent(trial.value)} so far",
                Text(trial.note),
            )
        return grid

    def _line(self, state: State, board: Leaderboard) -> str:
        few = 0 < state.budget < state.most
        of = f" of at most {state.most} trials" if few else f" of {state.budget} trials"
        parts = [f"{len(state.results)}{of}"]
        best = board.best
        if best is not None:
            weights = " ".join(f"{name} {show_value(v)}" for name, v in best.params.items())
            parts.append(
                f"best {metric_name(self._metric)} {per_cent(best.value)} % "
                f"(trial {best.number}: {weights})"
            )
        eta = state.eta_seconds
        if eta is not None:
            about = "about " if few else ""
            parts.append(f"{duration(state.seconds)}, ETA {about}{duration(eta)}")
        return ", ".join(parts)
