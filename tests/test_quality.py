"""The tree is clean under its own tools, as pyproject.toml sets them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        pytest.param(["mypy"], marks=pytest.mark.slow(seconds=40)),
    ],
    ids=" ".join,
)
def test_clean(command):
    if command == ["mypy"] and sys.version_info < (3, 11):
        pytest.skip("the newest numpy for Python 3.10 has no complete types; 3.11 on are checked")
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
