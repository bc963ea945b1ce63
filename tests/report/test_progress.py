import io

import pytest
from rich.console import Console

from w2ltune.report import progress
from w2ltune.report.leaderboard import Running
from w2ltune.report.progress import State, View, duration, make_console
from w2ltune.runs.trialdir import TrialResult


def results(count, **params):
    return [
        TrialResult(
            number=n, attempt=1, state="COMPLETE", value=0.5 - n / 100, params={"lmweight": 2.0}
        )
        for n in range(count)
    ]


def state(*, finished=4, earlier=0, budget=10, seconds=20.0, running=()):
    return State(
        earlier=earlier, results=results(finished), running=running, budget=budget, seconds=seconds
    )


@pytest.mark.parametrize(
    ("given", "eta_seconds"),
    [
        ({"finished": 0}, None),
        ({"finished": 4}, 30.0),
        ({"finished": 10}, 0.0),
        ({"finished": 12}, 0.0),  # the budget was lowered
        # Only what this run did counts for its pace.
        ({"finished": 4, "earlier": 4}, None),
        ({"finished": 6, "earlier": 4}, 40.0),
        ({"finished": 0, "running": [Running(number=0, fraction=0.5, value=None)]}, 380.0),
        ({"finished": 10, "running": [Running(number=9, fraction=0.5, value=0.1)]}, 0.0),
    ],
)
def test_expected_time_to_the_end(given, eta_seconds):
    assert state(**given).eta_seconds == (
        eta_seconds if eta_seconds is None else pytest.approx(eta_seconds)
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (3540, "59 min"),
        (3599, "1 h 00 min"),
        (7320, "2 h 02 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    shown = console(terminal=False)
    with View(shown, metric="wer") as view:
        view.show(state())
    assert shown.file.getvalue() == (
        "4 of 10 trials, best WER 47.00 % (trial 3: lmweight 2), 20 s, ETA 30 s\n"
    )


def test_a_log_is_not_flooded():
    shown = console(terminal=False)
    with View(shown, metric="wer") as view:
        for _ in range(100):
            view.show(state())
    assert shown.file.getvalue() == ""


def test_a_name_is_shown_as_it_is(monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    one = TrialResult(
        number=0, attempt=1, state="COMPLETE", value=0.5, params={"lm": "[bold]lm[/v2].arpa"}
    )
    for terminal in (False, True):
        shown = console(terminal=terminal)
        with View(shown, metric="wer") as view:
            view.show(State(earlier=0, results=[one], running=[], budget=1, seconds=1.0))
        assert "trial 0: lm [bold]lm[/v2].arpa" in shown.file.getvalue()


def test_a_terminal_shows_the_table_and_what_runs():
    running = [
        Running(number=4, fraction=0.5, value=0.123),
        Running(number=5, fraction=0.25, value=0.0),
        Running(number=6, fraction=0.0, value=None),
    ]
    shown = console(terminal=True)
    with View(shown, metric="cer") as view:
        view.show(state(running=running))
    text = shown.file.getvalue()
    for part in (
        "CER %",
        "trial 4",
        "CER 12.30 so far",
        "CER 0.00 so far",
        "trial 6",
        "4 of 10 trials, best CER 47.00 %",
        "ETA",
    ):
        assert part in text
    assert "CER  so far" not in text  # trial 6 has no rate yet


def test_lines_of_a_log_are_wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert make_console().width == progress.LOG_WIDTH
