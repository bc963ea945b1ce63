"""The signals that ask to stop: USR1 and TERM of SLURM, HUP of a lost terminal, INT of a person."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from w2ltune.errors import StoppedError, StopSignal

_ENDING = (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stopping_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call ``stop("signal SIGTERM")`` and the like while the block runs, instead of dying.

    Outside of the main thread, where Python takes no handlers, nothing is changed.
    """
    with _handled((*_ENDING, signal.SIGINT), lambda name: stop(f"signal {name}")):
        yield


@contextlib.contextmanager
def signals_end_it() -> Iterator[None]:
    """Let USR1, TERM and HUP end the block with `StopSignal`, as Ctrl-C does, not without a word.

    Where work is at hand that has to be ended in order, `stopping_signals` takes them instead. The
    first one counts: what is cleaned up then is not disturbed by the next.

    Raises:
        StopSignal: One came.
    """
    ended: list[str] = []

    def end(name: str) -> None:
        ended.append(name)
        if len(ended) == 1:
            raise StopSignal(name)

    with _handled(_ENDING, end) as handled:
        try:
            yield
        except Exception as error:
            if ended:  # Python itself makes a RuntimeError of it where a class is being made
                raise StopSignal(ended[0]) from error
            raise
        finally:
            if handled:
                atexit.register(_ignore)  # now: what was registered last is called first


def _ignore() -> None:
    """All is done: what comes while Python ends changes no exit code."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)  # Python resets handlers of its own before the end


@contextlib.contextmanager
def _handled(numbers: Sequence[signal.Signals], handle: Callable[[str], None]) -> Iterator[bool]:
    """Call ``handle("SIGTERM")`` and the like; yields False where that cannot be had."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    handlers = {}
    for number in numbers:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # as by nohup: the command is to go on
        handlers[number] = signal.signal(number, lambda *_, name=number.name: handle(name))
    try:
        yield True
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def stopped_error(reason: str, rest: str) -> StoppedError:
    """Return the end of a command that was asked to stop: why, and the rest of the sentence."""
    return StoppedError(f"stopped ({reason}){rest}", interrupted=by_hand(reason))


def by_hand(reason: str) -> bool:
    """Whether a person at the keyboard stopped the command, outside of a SLURM job."""
    return "SIGINT" in reason and "SLURM_JOB_ID" not in os.environ
