"""The signals that ask a command to stop: USR1 and TERM from SLURM, INT from the keyboard."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from w2ltune.errors import StopSignal


@contextlib.contextmanager
def stopping_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call ``stop("signal SIGTERM")`` and the like while the block runs, instead of dying.

    Outside of the main thread, where Python takes no handlers, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {}
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        name = signal.Signals(number).name
        handlers[number] = signal.signal(number, lambda *_, name=name: stop(f"signal {name}"))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_end_it() -> Iterator[None]:
    """Let USR1 and TERM end the block with `StopSignal`, as Ctrl-C does, not without a word.

    Where work is at hand that has to be ended in order, `stopping_signals` takes them instead. The
    first one counts: what is cleaned up then is not disturbed by the next.

    Raises:
        StopSignal: One came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ignore() -> None:
        for each in handlers:
            signal.signal(each, lambda *_: None)  # (children would inherit SIG_IGN)

    def end(number: int, _: object) -> None:
        ignore()
        raise StopSignal(signal.Signals(number).name)

    handlers = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        atexit.register(ignore)  # all is done: what comes while Python ends changes no exit code


def by_hand(reason: str) -> bool:
    """Whether a person at the keyboard stopped the command, outside of a SLURM job."""
    return "SIGINT" in reason and "SLURM_JOB_ID" not in os.environ
