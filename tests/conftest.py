"""What several tests need: the repository, the captures where they are, a small decoding task."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/killing.py

REPOSITORY = Path(__file__).resolve().parents[1]
VOICE_COMMANDS = REPOSITORY / "experiments" / "voice_commands"


@pytest.fixture(scope="session")
def captures() -> Path:
    """The captured runs of the real binaries; they lie beside the checkout, not in it."""
    folder = REPOSITORY.parent / "shared" / "captures"
    if not folder.is_dir():
        pytest.skip("the captured runs of the real binaries are not beside this checkout")
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., list[str]]:
    """Make a small decoding task in ``tmp_path`` and return its command line.

    Keyword arguments replace flags; None leaves one out. The inputs are copies that a test may
    damage: ``data/`` with dev.lst (first 40 utterances), dev.npz, tokens, lexicon and LM.
    """
    data = tmp_path / "data"
    data.mkdir()
    rows = (VOICE_COMMANDS / "dev.lst").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "dev.lst").write_text("".join(rows[:40]), encoding="utf-8")
    for name in ("emissions/dev.npz", "tokens.txt", "lexicon.txt", "lm.arpa"):
        shutil.copy(VOICE_COMMANDS / name, data)

    def arguments(**changes: object) -> list[str]:
        flags: dict[str, object] = {
            "emission_dir": data,
            "datadir": data,
            "test": "dev.lst",
            "tokens": data / "tokens.txt",
            "lexicon": data / "lexicon.txt",
            "lm": data / "lm.arpa",
            "smearing": "max",
            "beamsize": 50,
            "beamsizetoken": 20,
            "lmweight": "uniform(0, 5)",
            "wordscore": "uniform(-8, 7)",
            "logdir": tmp_path / "sweeps",
            "prefix": "small",
            "n": 6,
            "seed": 1,
            "sampler": "tpe",
            "probe": "false",
        }
        flags |= changes
        return [f"--{name}={value}" for name, value in flags.items() if value is not None]

    return arguments
