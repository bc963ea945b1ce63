"""The short forms of the campaigns: the same scripts with a handful of kills, faults, damages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SHORT = {
    "decode_kills": ["--kills=2", "--trials=4", "--most_seconds=8"],
    "train_kills": ["--kills=2", "--trials=1"],
    "faults": ["--tries=6", "--study=rescoring,random"],
    "damage": ["--every=200"],
    "readers": ["--inputs=4000"],
}


@pytest.mark.slow(seconds=100)
@pytest.mark.parametrize("campaign", SHORT)
def test_nothing_is_lost(campaign: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name(f"{campaign}.py")
    done = subprocess.run(
        [sys.executable, script, *SHORT[campaign], f"--folder={tmp_path / 'runs'}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(
        "(left behind: 0 \\[\\]|and the rest: 0|and crashes: 0)$", done.stdout, re.MULTILINE
    )
