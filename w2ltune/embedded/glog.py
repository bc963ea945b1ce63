"""What a program of flashlight's does on its way in and out: lines on stderr, death by signals."""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from pathlib import Path


def log(message: str, *, severity: str = "I") -> None:
    """Print a line on stderr as glog 0.6 does, with the file and line of the caller."""
    caller = sys._getframe(1)
    place = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
    now = datetime.now().strftime("%Y%m%d %H:%M:%S.%f")
    print(f"{severity}{now} {os.getpid():5} {place}] {message}", file=sys.stderr, flush=True)


def die_of_signals() -> None:
    """Let SIGINT and a closed pipe end the process, silently and at once, unless ignored."""
    for number in (signal.SIGINT, signal.SIGPIPE):
        # Python ignores SIGPIPE by itself, so whether it was inherited so cannot be seen.
        if number == signal.SIGPIPE or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
