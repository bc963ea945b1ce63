"""Waiting in tests, in one place: for what happens, not for a time.

A limit is there to end a test whose condition never comes, not to measure: on a machine that is
busy with other things everything takes several times as long, and that is no failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 900.0
"""So long waits only what will never come."""


def wait_for(
    condition: Callable[[], object],
    *,
    while_: Callable[[], object] = lambda: True,
    shown: Callable[[], object] = lambda: "",
    look_seconds: float = 0.05,
) -> None:
    """Return as soon as a condition holds.

    Args:
        condition: Looked at again and again.
        while_: What must hold meanwhile, such as that a process lives; looked at before each look
            at the condition, so the last look comes after the process's end.
        shown: What the test shows where it was waited in vain, such as a log.
        look_seconds: From look to look.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        holds = while_()
        if condition():
            return
        assert holds, shown()
        assert time.monotonic() < end, f"waited {PATIENCE_SECONDS:.0f} s in vain\n{shown()}"
        time.sleep(look_seconds)
