"""Signals that are really sent to this process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest
from waiting import wait_for

from w2ltune.errors import StopSignal, run_command
from w2ltune.runs.signals import by_hand, signals_end_it, stopping_signals

STOPPING = (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOPPING]


def send(number: signal.Signals, reasons: list[str]) -> None:
    """Send a signal to this process and wait until Python has handled it."""
    before = len(reasons)
    os.kill(os.getpid(), number)
    wait_for(lambda: len(reasons) > before, look_seconds=0.001)


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_a_signal_asks_to_stop_and_kills_nothing(number: signal.Signals) -> None:
    before, reasons = handlers(), list[str]()
    with stopping_signals(reasons.append):
        assert reasons == []
        send(number, reasons)
        assert reasons == [f"signal {number.name}"]
    assert reasons == [f"signal {number.name}"]
    assert handlers() == before


def test_each_signal_is_told() -> None:
    reasons: list[str] = []
    with stopping_signals(reasons.append):
        for number in (*STOPPING, signal.SIGTERM):
            send(number, reasons)
    assert reasons == [f"signal {number.name}" for number in (*STOPPING, signal.SIGTERM)]


def test_a_hup_that_is_ignored_stays_so() -> None:
    """As by ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reasons: list[str] = []
    try:
        with signals_end_it(), stopping_signals(reasons.append):
            os.kill(os.getpid(), signal.SIGHUP)
            send(signal.SIGUSR1, reasons)
    finally:
        assert signal.signal(signal.SIGHUP, before) == signal.SIG_IGN
    assert reasons == ["signal SIGUSR1"]


def test_the_old_handlers_are_back_after_an_error() -> None:
    own: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: own.append(number))
    try:
        with pytest.raises(RuntimeError), stopping_signals(lambda reason: None):
            raise RuntimeError
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_for(lambda: own == [signal.SIGUSR1])
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_one_block_within_another() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with stopping_signals(outer.append):
        with stopping_signals(inner.append):
            send(signal.SIGTERM, inner)
        send(signal.SIGUSR1, outer)
    assert (inner, outer) == (["signal SIGTERM"], ["signal SIGUSR1"])


def test_another_thread_changes_nothing() -> None:
    before, inside = handlers(), list[object]()

    def work() -> None:
        with stopping_signals(lambda reason: None):
            inside.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == before == handlers()


@pytest.mark.parametrize(
    ("reason", "job", "expected"),
    [
        ("signal SIGINT", None, True),
        ("signal SIGINT", "4711", False),  # scancel --signal=INT
        ("signal SIGTERM", None, False),
        ("signal SIGUSR1", None, False),
        ("", None, False),
    ],
)
def test_by_hand(
    monkeypatch: pytest.MonkeyPatch, reason: str, job: str | None, expected: bool
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    assert by_hand(reason) is expected


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP])
def test_elsewhere_a_signal_ends_the_command(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before, ended = handlers(), list[str]()

    @signals_end_it()
    def main(arguments: list[str]) -> int:
        try:
            with contextlib.suppress(Exception):  # it is none that could be taken for a failure
                send(number, [])
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # the next one does not disturb the cleaning
            time.sleep(0.01)
            ended.append("cleaned")
        return 0

    assert run_command(main, []) == 75
    assert ended == ["cleaned"]
    assert f"stopped (signal {number.name}); the same command continues" in capsys.readouterr().err
    assert handlers() == before


def test_a_signal_that_others_took_for_a_failure_of_theirs() -> None:
    """As Python 3.11 does in ``__set_name__``, while a library is being imported."""

    @signals_end_it()
    def main(arguments: list[str]) -> int:
        try:
            send(signal.SIGTERM, [])
        except BaseException as error:
            raise RuntimeError("Error calling __set_name__") from error
        return 0

    assert run_command(main, []) == 75


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    @signals_end_it()
    def main() -> None:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        main()


def test_work_that_takes_signals_is_asked_first() -> None:
    reasons: list[str] = []

    @signals_end_it()
    def main() -> None:
        with stopping_signals(reasons.append):
            send(signal.SIGTERM, reasons)
        assert reasons == ["signal SIGTERM"]
        send(signal.SIGUSR1, [])

    with pytest.raises(StopSignal):
        main()
