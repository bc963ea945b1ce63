"""Find and kill the processes of one sweep: all that carry a mark in their environment."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import PATIENCE_SECONDS, wait_for

MARK = "W2LTUNE_TEST_MARK"

TARGETS = {
    "driver": "",
    "worker": "DecoderWorker",
    "pool": "DecoderPool",
    "trial": "DecodeTrial",
    "raylet": "raylet/raylet",
    "gcs": "gcs/gcs_server",
    "everything": "",
    "trainable": "TrainTrial",
    "child": "--logtostderr=true ",
    "rank 1": "--world_rank=1 ",
    "scorer": "ScoringWorker",
}
"""What the command line of each kind of process holds."""

DECODE_TARGETS = ("driver", "worker", "pool", "trial", "raylet", "gcs", "everything")
TRAIN_TARGETS = ("child", "rank 1", "trainable", "raylet", "driver", "everything")
GUARD = "processguard"


@dataclass
class Sweep:
    """A sweep as a child process, and everything that it started."""

    arguments: list[str]
    cwd: Path
    log: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    module: str = "w2ltune.sweep"
    terminal: int | None = None  # else what it says goes to the log
    _drivers: list[int] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                cwd=self.cwd,
                stdout=log if self.terminal is None else self.terminal,
                stderr=subprocess.STDOUT,
                env={**os.environ, MARK: self.mark, **self.environment},
                start_new_session=self.terminal is not None,
                preexec_fn=None if self.terminal is None else _take_terminal,
            )
        self._drivers.append(self.process.pid)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end and return its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def wait_for(self, condition: Callable[[], object], *, look_seconds: float = 0.1) -> None:
        """Return as soon as a condition holds; it must be before the sweep's end."""
        wait_for(condition, while_=self.alive, shown=self.log.read_text, look_seconds=look_seconds)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        """Leave nothing of it, whatever a test did."""
        self.kill("everything", random.Random(0))
        if self.process is not None:
            self.wait()
        self.wait_until_gone()

    def processes(self) -> dict[int, str]:
        """Return the command lines of all living processes of this sweep."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # Ray's process titles overwrite environments; its open logs tell the rest.
                marked = f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes()
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if marked or ("ray" in command and self._is_open_in(path)):
                    found[int(path.name)] = command
        return found

    def _is_open_in(self, process: Path) -> bool:
        folders = [f"/w2l-{pid}-" for pid in self._drivers]
        links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        return any(folder in link for link in links for folder in folders)

    def victims(self, target: str) -> list[int]:
        if target == "driver":
            assert self.process is not None
            return [self.process.pid]
        processes = self.processes()
        if target == "everything":
            return list(processes)
        return [
            pid
            for pid, command in processes.items()
            if TARGETS[target] in command and GUARD not in command
        ]

    def kill(self, target: str, choose: random.Random) -> bool:
        """Kill -9 one process of a kind, or everything; return whether there was one.

        Everything is what SLURM or a power cut ends: what was just being started as well.
        """
        victims = self.victims(target)
        if target != "everything":
            victims = [choose.choice(victims)] if victims else []
        found = bool(victims)
        while victims:
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            victims = self.victims(target) if target == "everything" else []
        return found

    def wait_until_gone(self, seconds: float = PATIENCE_SECONDS) -> dict[int, str]:
        """Return the processes that are still there after so long."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left


def _take_terminal() -> None:
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def sweeps(cwd: Path, log: Path) -> Iterator[Callable[..., Sweep]]:
    """Yield what starts a sweep; whatever a test does, nothing of them is left."""
    made: list[Sweep] = []

    def start(arguments: list[str], **more: Any) -> Sweep:
        made.append(Sweep(arguments, cwd, log, **more))
        made[-1].start()
        return made[-1]

    try:
        yield start
    finally:
        for sweep in made:
            sweep.end()


class Pace:
    """Says how many trials of a sweep may finish, so that a test is never late.

    Its ``hook`` is a text normaliser (``--normalize``) that changes nothing. With enough trials
    finished, decoder workers stay in the middle of the next.
    """

    def __init__(self, folder: Path, trials: Path) -> None:
        self.hook = folder / "pace.py"
        self._control = folder / "pace"
        self._waits = folder / "pace.waits"
        self.hook.write_text(
            "import json, pathlib, time\n"
            f"control = pathlib.Path({str(self._control)!r})\n"
            "def holds():\n"
            "    if b'DecoderWorker' not in pathlib.Path('/proc/self/cmdline').read_bytes():\n"
            "        return False\n"
            "    trials, most = json.loads(control.read_text())\n"
            "    return len(list(pathlib.Path(trials).glob('*/result.json'))) >= most\n"
            "def normalize(text):\n"
            "    while holds():\n"
            f"        pathlib.Path({str(self._waits)!r}).touch()\n"
            "        time.sleep(0.1)\n"
            "    return text\n"
        )
        self.trials = trials
        self.allow(0)

    def allow(self, finished: int = 1000) -> None:
        """Let so many trials finish, and those that were nearly done."""
        self._allowed = finished
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps([str(self.trials), finished]))
        new.rename(self._control)
        self._waits.unlink(missing_ok=True)

    def finished(self) -> int:
        return len(list(self.trials.glob("*/result.json")))

    def holds(self) -> bool:
        """Whether so many are finished, and a worker is in the middle of the next."""
        return self.finished() >= self._allowed and self._waits.exists()


@dataclass
class Ledger:
    """What was finished at each look: nothing of it may ever change, vanish or be done again."""

    trials: Path
    seen: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def look(self) -> list[str]:
        """Return what went wrong since the last look."""
        now = dict(self._finished())
        wrong = [f"trial {name} lost" for name in self.seen.keys() - now.keys()]
        for name in self.seen.keys() & now.keys():
            if self.seen[name][0] != now[name][0]:
                wrong.append(f"result of trial {name} changed")
            if self.seen[name][1] != now[name][1]:
                wrong.append(f"trial {name} was launched again after its end")
        self.seen = now
        return wrong

    def _finished(self) -> Iterator[tuple[str, tuple[bytes, int]]]:
        for result in self.trials.glob("*/result.json"):
            attempts = len(list((result.parent / "attempts").glob("[0-9]*")))
            yield result.parent.name, (result.read_bytes(), attempts)
