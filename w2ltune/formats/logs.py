"""The log lines of a training: epochs, losses and error rates, as the binary writes them.

::

    epoch:        6 | nupdates:          120 | lr: 0.002000 | … | dev-TER: 16.44 | dev-WER: 61.90

flashlight v0.3 and wav2letter v0.2 differ in some of the fields only. The lines stand in the run
directory's ``001_log`` as they are and on stderr behind a prefix of glog, which has had two forms.
Source: ``Logger.cpp`` (getLogString) and ``Serializer.h`` of flashlight v0.3.2, and captured runs.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_COLOUR = r"(?:\x1b\[[\d;]*m)?"
_PREFIX = re.compile(
    # glog before 0.6 has no year; flashlight's own logger has colours and no bracket.
    rf"{_COLOUR}[IWEF](?:\d{{8}}|\d{{4}}) \d\d:\d\d:\d\d\.\d+ +\d+ \S+:\d+(?:\]| ){_COLOUR} ?"
)
_BEGIN = re.compile(r"epoch: +\d+ \| ")
_RATE = re.compile(r"(?P<tag>.+)-[A-Z]ER(?:-decoded)?")
_RUNTIME = re.compile(r"(\d+):(\d\d):(\d\d)")
_LOG_NAME = re.compile(r"\d{3,}_log")

_MEMORY_BYTES = 512
"""More than the end of a line of the training log, in which its time stands."""


@dataclass(frozen=True, kw_only=True)
class TrainLine:
    """One report of a training.

    Attributes:
        epoch: Its number, from 1.
        updates: Updates since the beginning of the training.
        rates: Error rates as fractions (0.05 is 5 %; ``inf`` and ``nan`` are possible) by the
            log's name: ``train-TER``, ``dev-WER``, ``dev-WER-decoded``, …
        values: All other numbers by the log's name, in its units: ``lr``, ``dev-loss``,
            ``bch(ms)``, ``hrs``, …; and ``runtime_seconds``.
    """

    epoch: int
    updates: int
    rates: Mapping[str, float]
    values: Mapping[str, float]


def without_prefix(line: str) -> str:
    """Return a line without the prefix of glog, of either generation, or of flashlight's logger.

    Example:
        >>> without_prefix("I20261122 16:50:29.909554 10947 Train.cpp:651] Epoch 6 started!")
        'Epoch 6 started!'
    """
    return _PREFIX.sub("", line, count=1) if _PREFIX.match(line) else line


def parse_train_line(text: str) -> TrainLine | None:
    """Read a report of a training, with a prefix of glog or without.

    Returns:
        None for every other line, and for one that is not whole.
    """
    text = without_prefix(text).strip()
    if not _BEGIN.match(text):
        return None
    rates: dict[str, float] = {}
    values: dict[str, float] = {}
    for field in text.split(" | "):
        # A validation list's name may have any character in it: the value is what comes last.
        name, _, value = field.rpartition(": ")
        if name == "runtime" and (parts := _RUNTIME.fullmatch(value.strip())):
            hours, minutes, seconds = map(int, parts.groups())
            values["runtime_seconds"] = 3600.0 * hours + 60 * minutes + seconds
            continue
        with contextlib.suppress(ValueError):  # a timestamp; "n/a" where nothing was measured
            if _RATE.fullmatch(name):
                rates[name] = float(value) / 100
            elif name:
                values[name] = float(value)
    try:
        epoch, updates = int(values.pop("epoch")), int(values.pop("nupdates"))
    except (KeyError, ValueError, OverflowError):
        return None
    return TrainLine(epoch=epoch, updates=updates, rates=rates, values=values)


def valid_tags(line: TrainLine) -> tuple[str, ...]:
    """Return the names of the validation lists in a report, in its order."""
    tags = (match["tag"] for name in line.rates if (match := _RATE.fullmatch(name)))
    return tuple(dict.fromkeys(tag for tag in tags if tag != "train"))


def read_train_log(path: Path) -> list[TrainLine]:
    """Return the reports in a log of a training; none when it does not exist yet.

    A last line without its end is left out: it is just being written, or was cut by a kill.
    """
    lines = (parse_train_line(text) for text in LogTail(path).read())
    return [line for line in lines if line is not None]


def read_history(rundir: Path) -> list[TrainLine]:
    """Return the reports of a whole training from ``001_log``, ``002_log``, … in a run directory.

    Each ``continue`` begins a log of its own. Where it begins before the end of an earlier one,
    the work after that point had been lost and was done again: the later log's reports stand.
    """
    history: list[TrainLine] = []
    logs = [path for path in rundir.glob("*_log") if _LOG_NAME.fullmatch(path.name)]
    for path in sorted(logs, key=lambda path: int(path.name.removesuffix("_log"))):
        lines = read_train_log(path)
        if lines:
            history = [line for line in history if line.updates < lines[0].updates] + lines
    return history


class LogTail:
    """Follows a log that grows.

    Args:
        path: The log; it need not exist yet.
        from_end: Leave out what it holds now.
    """

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._offset = 0
        self._last = b""  # what stands right before the offset
        if from_end and path.exists():
            with path.open("rb") as file:
                self._offset = file.seek(0, os.SEEK_END)
                file.seek(max(0, self._offset - _MEMORY_BYTES))
                self._last = file.read(min(self._offset, _MEMORY_BYTES))

    def read(self) -> list[str]:
        """Return the complete lines since the last call, without their ends.

        A log that was truncated or replaced begins anew, even where it has grown beyond the
        point of the last call: what stood before that point is no longer there.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset - len(self._last))
                content = file.read()
                if content.startswith(self._last):
                    content = content[len(self._last) :]
                else:
                    self._offset, self._last = 0, b""
                    file.seek(0)
                    content = file.read()
        except FileNotFoundError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self._offset += len(complete)
        self._last = (self._last + complete)[-_MEMORY_BYTES:]
        return complete.decode("utf-8", errors="replace").split("\n")[:-1]
