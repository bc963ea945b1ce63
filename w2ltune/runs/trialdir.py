"""The folder of one trial: what it was asked, which attempt is at work, what came of it.

::

    trials/0007/
      flags.cfg          all flags of the trial, written by the driver when the trial is asked
      attempts/0001      one empty file for each launch; the highest is the one that may publish
      utterances.tsv     a decode's error counts and hypotheses, by its trainable
      nbest.npz          its n-best lists, by its trainable; only where a search uses them
      run/               a training's run directory (of a single training: the study's folder)
      snapshots/         copies of its checkpoints with manifests, by its trainable
      process.json       the guard of its program, by its trainable
      finished.json      what the training came to, by its trainable
      rescored/0001/     the Test program's output for its best snapshot (--rescore_top)
      result.json        the outcome, by the driver; its presence makes the trial finished
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from w2ltune import files
from w2ltune.errors import StudyMismatchError
from w2ltune.formats.flagsfile import (
    effective,
    format_flagsfile,
    parse_flagsfile,
    refuse_anothers_programs,
)
from w2ltune.formats.known_flags import is_boolean

FORMAT = 1
ASKED = "# asked: "
"""Begin of the line in ``flags.cfg`` that holds what the journal knew when the trial was asked."""

State = Literal["COMPLETE", "PRUNED", "FAIL"]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The outcome of a trial, as it stands in ``result.json``.

    Attributes:
        number: The trial's number in the study.
        attempt: The launch that it comes from.
        state: COMPLETE, PRUNED (stopped early: counts are those of a part) or FAIL.
        value: What the study minimises, a fraction (0.05 is 5 %); None when it failed.
        counts: Error counts as (substitutions, deletions, insertions, reference words).
        interval: Lower and upper end for ``value``, level 95 %; None when not computed.
        interval_unit: What was resampled ("utterance", "speaker") and how many there are.
        params: The searched values by flag.
        flags: All flags as given to the program.
        seconds: Wall time from the launch to the end.
        work_seconds: Processor time of the program or decoder.
        missing: Utterances of the list without a hypothesis; each counts as all deletions.
        lists: Error counts of each list, by its name; empty where there is one.
        linear: Whether the n-best lists' scores were linear in the weights.
        reason: Why it failed or was stopped; of a complete training, why its best model is no
            snapshot.
        again: Whether it failed of being killed from outside: a later command tries it again.
        epoch: Of a training, the epoch of ``value``, its best one.
        epochs: Epochs done.
        updates: Updates done.
        checkpoint: The best snapshot, relative to the study's folder; where there is none the
            program's own model; "" without either.
        reports: The values reported on the way, by step, as the journal has them.
        rungs: What a pruner noted of the trial in the journal.
    """

    number: int
    attempt: int
    state: State
    value: float | None
    counts: tuple[int, int, int, int] | None = None
    interval: tuple[float, float] | None = None
    interval_unit: str = ""
    params: Mapping[str, float | int | str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    work_seconds: float = 0.0
    missing: int = 0
    lists: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    linear: bool = True
    reason: str = ""
    again: bool = False
    epoch: int = 0
    epochs: int = 0
    updates: int = 0
    checkpoint: str = ""
    reports: Mapping[int, float] = field(default_factory=dict)
    rungs: Mapping[str, float] = field(default_factory=dict)
    format: int = FORMAT


class TrialDirectory:
    """Paths and small files of one trial.

    Args:
        trials: The study's ``trials`` folder.
        number: The trial's number.
    """

    def __init__(self, trials: Path, number: int) -> None:
        self.number = number
        self.path = trials / f"{number:04d}"
        self.flags = self.path / "flags.cfg"
        self.result = self.path / "result.json"
        self.utterances = self.path / "utterances.tsv"
        self.nbest = self.path / "nbest.npz"
        self.run = self.path / "run"
        self.snapshots = self.path / "snapshots"
        self.process = self.path / "process.json"
        self.finished = self.path / "finished.json"
        self.attempts = self.path / "attempts"

    def was_asked(self) -> bool:
        """Whether the trial's flags were decided and written; else it was cut short in asking."""
        return self.flags.exists()

    def write_flags(
        self, flags: Mapping[str, str], *, asked: Mapping[str, Any] | None = None
    ) -> None:
        """Write the trial's flags as a flagsfile; from here on the trial was asked.

        Args:
            flags: By name.
            asked: What the journal knows of the trial, for a journal that is behind.

        Raises:
            StudyMismatchError: A trial of this number is finished.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        head = f"{ASKED}{json.dumps(asked)}\n" if asked else ""
        if self.result.exists():
            raise StudyMismatchError("a trial of this number is finished already", path=self.path)
        files.write_text(self.flags, head + format_flagsfile(flags), own=True)

    def read_asked(self) -> Mapping[str, Any]:
        """Return what `write_flags` was told of the journal; nothing where that is not there."""
        try:
            first = files.read_text(self.flags).partition("\n")[0]
            found = json.loads(first.removeprefix(ASKED)) if first.startswith(ASKED) else {}
        except (FileNotFoundError, *files.DAMAGE):
            return {}
        return found if isinstance(found, dict) else {}

    def read_flags(self) -> dict[str, str]:
        """Return the flags that `write_flags` wrote.

        Raises:
            InputError: There is no plain file, or its content is wrong.
        """
        os.close(files.open_plain(self.flags))  # a link is not followed
        flags = effective(parse_flagsfile(self.flags, boolean=is_boolean))
        return {name: flag.value for name, flag in flags.items()}

    def attempt(self) -> int:
        """Return the number of the newest launch; 0 before the first."""
        return max((int(path.name) for path in self._launches()), default=0)

    def _launches(self) -> list[Path]:
        return sorted(path for path in self.attempts.glob("[0-9]*") if path.name.isdecimal())

    def attempt_notes(self) -> dict[int, str]:
        """Return the notes of all launches by number."""
        notes = {}
        for path in self._launches():
            with open(path, encoding="utf-8", opener=files.open_plain) as file:
                notes[int(path.name)] = file.read()
        return notes

    def begin_attempt(self, note: str = "") -> int:
        """Return the number of a new launch; all earlier ones may publish nothing any more.

        Args:
            note: What the launch begins with, kept with its number.
        """
        self.attempts.mkdir(parents=True, exist_ok=True)
        while True:
            number = self.attempt() + 1
            if files.create_exclusively(self.attempts / f"{number:04d}", note):
                return number

    def write_result(self, result: TrialResult) -> TrialResult:
        """Make the trial finished, in one step, unless it is; return the result that stands.

        A finished trial stays as it is, whoever comes later; only more may be told of the same
        outcome (its counts by another program). One that an overtaken owner published while a newer
        launch was at work gives way to that one's.
        """
        if files.create_exclusively(self.result, files.as_json(asdict(result)), own=True):
            return result
        stands = self.read_result()
        if stands is not None:
            newer = result.state != "FAIL" and result.attempt > stands.attempt
            outcomes = [(r.state, r.attempt, r.value) for r in (stands, result)]
            if not newer and outcomes[0] != outcomes[1]:
                return stands
        files.write_json(self.result, asdict(result), own=True)
        return result

    def reopen(self) -> bool:
        """Take back an outcome that is to be tried again; return whether it was such a one."""
        result = self.read_result()
        again = result is not None and result.again
        if again:
            self.result.unlink()
        return again

    def read_result(self) -> TrialResult | None:
        """Return the outcome, or None while there is none.

        Raises:
            InputError: It is damaged, or another user's and names a program.
        """
        content = files.read_json(self.result)
        if content is None:
            return None
        with files.shaped(self.result):
            result = files.fitted(TrialResult, content)
            if result.number != self.number:
                raise ValueError(f"number is {result.number}")
        refuse_anothers_programs(self.result, result.flags)  # they come to best.cfg
        return result


def trial_directories(trials: Path) -> Iterator[TrialDirectory]:
    """Yield the trials of a study's ``trials`` folder in the order of their numbers."""
    numbers = (int(path.name) for path in trials.glob("[0-9]*") if path.name.isdecimal())
    for number in sorted(numbers):
        yield TrialDirectory(trials, number)
