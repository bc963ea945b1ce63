"""The signals that ask a command to stop: USR1 and TERM from SLURM, INT from the keyboard."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator


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


def by_hand(reason: str) -> bool:
    """Whether a person at the keyboard stopped the command, outside of a SLURM job."""
    return "SIGINT" in reason and "SLURM_JOB_ID" not in os.environ
