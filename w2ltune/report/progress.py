"""The live view of a running sweep: a table on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from w2ltune.report.leaderboard import Leaderboard, per_cent, rank, show_value, table
from w2ltune.runs.trialdir import TrialResult

LOG_EVERY_SECONDS = 5.0
TOP = 5
LOG_WIDTH = 140


@dataclass(frozen=True, kw_only=True)
class Running:
    """A trial at work: its number, the part that is done, and the rate so far (a fraction)."""

    number: int
    fraction: float
    value: float | None


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
        done = len(self.results) - self.earlier + sum(trial.fraction for trial in self.running)
        left = self.budget - len(self.results) - sum(trial.fraction for trial in self.running)
        return None if done <= 0 else max(0.0, left) * self.seconds / done


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


def make_console() -> Console:
    """Return the console; in a log, lines are not folded at 80 characters."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


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
        metric: "wer" or "cer".
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, state: State) -> None:
        """Draw the state; in a log, print a line every few seconds."""
        board = rank(state.results)
        if self._live is not None:
            bar = ProgressBar(total=state.budget, completed=len(state.results), width=40)
            # The bar comes last: what follows one stands on the same row, and is cut off.
            group = Group(table(board, metric=self._metric, most=TOP), self._running(state),
                          Text(self._line(state, board)), bar)  # fmt: skip
            self._live.update(group, refresh=True)
        elif time.monotonic() - self._last_line >= LOG_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(self._line(state, board), markup=False, soft_wrap=True)

    def _running(self, state: State) -> Table:
        grid = Table.grid(padding=(0, 2))
        for trial in state.running:
            grid.add_row(
                f"trial {trial.number}",
                ProgressBar(total=1.0, completed=trial.fraction, width=24),
                ""
                if trial.value is None
                else f"{self._metric.upper()} {per_cent(trial.value)} so far",
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
                f"best {self._metric.upper()} {per_cent(best.value)} % "
                f"(trial {best.number}: {weights})"
            )
        eta = state.eta_seconds
        if eta is not None:
            about = "about " if few else ""
            parts.append(f"{duration(state.seconds)}, ETA {about}{duration(eta)}")
        return ", ".join(parts)
