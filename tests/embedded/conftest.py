"""A small training task: 24 short utterances, 3 updates an epoch, a model of 16 channels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

VOICE_COMMANDS = Path(__file__).parents[2] / "experiments" / "voice_commands"


@pytest.fixture
def training(tmp_path: Path) -> Callable[..., list[str]]:
    """Return the flags of a small training; keyword arguments replace some, None leaves one out.

    The lists lie in ``tmp_path``, where a test may damage them, with the run directory ``run``.
    """
    for name, count in (("train", 24), ("dev", 8), ("test", 6)):
        rows = (VOICE_COMMANDS / f"{name}.lst").read_text(encoding="utf-8").splitlines()
        rows = sorted(rows, key=lambda row: float(row.split()[2]))[:count]
        (tmp_path / f"{name}.lst").write_text("\n".join(rows) + "\n", encoding="utf-8")

    def flags(**changes: object) -> list[str]:
        values: dict[str, object] = {
            "datadir": tmp_path,
            "features_dir": VOICE_COMMANDS / "features",
            "tokens": VOICE_COMMANDS / "tokens.txt",
            "lexicon": VOICE_COMMANDS / "lexicon.txt",
            "train": "train.lst",
            "valid": "tst:test.lst,dev:dev.lst",
            "rundir": tmp_path / "run",
            "criterion": "ctc",
            "netoptim": "adam",
            "lr": 0.01,
            "batchsize": 8,
            "maxgradnorm": 5,
            "iter": 12,
            "framestridems": 16,
            "hidden": 16,
        }
        return [
            f"--{name}={value}" for name, value in (values | changes).items() if value is not None
        ]

    return flags


@pytest.fixture
def run_train() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the training program to its end; keyword arguments are environment variables."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "w2ltune.embedded.train", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "W2LTUNE_RETRY_SECONDS": "0", **environment},
            cwd=VOICE_COMMANDS.parents[1],
            timeout=120,
        )

    return run
