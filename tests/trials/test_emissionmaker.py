"""What is left of runs that made emissions and were killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from w2ltune.trials.emissionmaker import _remove_abandoned, _written

pytestmark = pytest.mark.main


def test_only_what_nobody_writes_to_is_removed(tmp_path: Path) -> None:
    """A run of hours writes to files deep below its folder, whose own time stays old."""
    now = time.time()
    for name, age_seconds in (("new", 60), ("at-work", 60), ("dead", 200_000)):
        folder = tmp_path / f".making-{name}" / "emissions" / "dev.lst"
        folder.mkdir(parents=True)
        (folder / "a.bin").touch()
        os.utime(folder / "a.bin", (now - age_seconds, now - age_seconds))
        old = {"new": [], "at-work": [folder.parent], "dead": [folder, folder.parent]}[name]
        for each in (*old, *(path.parent for path in old[-1:])):
            os.utime(each, (now - 200_000, now - 200_000))
    (tmp_path / "dev.lst-0123").mkdir()
    os.utime(tmp_path / "dev.lst-0123", (now - 200_000, now - 200_000))
    _remove_abandoned(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".making-at-work", ".making-new", "dev.lst-0123"]


def test_progress_is_that_of_one_attempt(tmp_path: Path) -> None:
    making = tmp_path / ".making-1-0"
    assert _written(making) == 0
    for attempt, count in (("lost", 3), ("now", 2)):
        folder = tmp_path / f"{making.name}-{attempt}" / "emissions" / "dev.lst"
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.bin").touch()
    assert _written(making) == 3
