"""The short forms of the campaigns: the same scripts with a handful of kills, faults, damages."""

from __future__ import annotations

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
    "soak": ["--trials=60", "--looks=5", "--most_mb=1000"],
    "stopped_owner": ["--task=forward", "--points=2"],
    "two_users": ["--cases=link: study.journal,swapped while it runs: trials/0001,slurm is"],
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
    assert "left behind: 0 []" in done.stdout
