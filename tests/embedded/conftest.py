"""A small training task: 24 short utterances, 3 updates an epoch, a model of 16 channels."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from w2ltune.embedded.train import main
from w2ltune.errors import run_command

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
def run_train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Do what the training program does, but in this process, which has imported all it needs.

    Keyword arguments are environment variables.
    """

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with (
            monkeypatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as output,
            contextlib.redirect_stderr(io.StringIO()) as errors,
        ):
            for name, value in {"W2LTUNE_RETRY_SECONDS": "0", **environment}.items():
                patch.setenv(name, value)
            code = run_command(main, list(arguments))
        return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())

    return run
