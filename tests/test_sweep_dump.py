"""Beam dumps and transcripts of the answer: for rescoring, and for NIST's sclite."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, VOICE_COMMANDS

from w2ltune.formats.beamdump import read_beam_dump

pytestmark = pytest.mark.main


def sclite(folder: Path, name: str) -> tuple[int, ...]:
    """Return substitutions, deletions, insertions and reference words by sclite."""
    if not shutil.which("sctk"):
        assert os.environ.get("W2LTUNE_REQUIRE_SLURM") != "1"
        pytest.skip("sclite is not installed (package sctk; .ci/run installs it)")
    done = subprocess.run(
        ["sctk", "sclite", "-r", f"{name}.ref.trn", "trn", "-h", f"{name}.hyp.trn", "trn",
         "-i", "rm", "-o", "rsum", "stdout"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    row = next(line for line in done.stdout.splitlines() if "| Sum " in line)
    _, words, _, substitutions, deletions, insertions, *_ = map(int, re.findall(r"\d+", row))
    return substitutions, deletions, insertions, words


def test_dumps_for_rescoring_and_sclite(task: Callable[..., list[str]], tmp_path: Path) -> None:
    data = tmp_path / "data"
    rows = (VOICE_COMMANDS / "test.lst").read_text().splitlines()[:30]
    (data / "test.lst").write_text("\n".join(rows) + "\n")
    shutil.copy(VOICE_COMMANDS / "emissions" / "test.npz", data)
    (data / "words.glm").write_text(";; of a test\n[the] => [] / [ ] __ [ ]\n")
    command = [sys.executable, "-m", "w2ltune.sweep"]
    given = task(n=2, sampler="random", heldout="test.lst", normalize=data / "words.glm")

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *given, *more], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run()
    study = tmp_path / "sweeps" / "small"
    assert not (study / "dumps").exists()
    said = run("--dump")  # of a finished sweep
    assert f"beam dump: {study}/dumps/dev.lst.hyp" in said
    outcome = json.loads((study / "outcome.json").read_text())
    (choice,), (look,) = outcome["choices"], outcome["looks"]
    assert sclite(study / "dumps", "dev.lst") == tuple(choice["counts"])
    assert sclite(study / "dumps", "test.lst") == tuple(look["counts"])

    flags = json.loads((study / f"trials/{choice['trial']:04d}/result.json").read_text())["flags"]
    lmweight, wordscore = float(flags["lmweight"]), float(flags["wordscore"])
    lists = read_beam_dump(study / "dumps" / "dev.lst.hyp")
    assert len(lists) == 40
    assert sum(len(entries) for entries in lists.values()) > 400
    for entries in lists.values():
        scores = [entry.score for entry in entries]
        assert scores == sorted(scores, reverse=True)
        for entry in entries:
            parts = entry.am_score + lmweight * entry.lm_score + wordscore * len(entry.words)
            assert entry.score == pytest.approx(parts, abs=1e-4)
    references = (study / "dumps" / "dev.lst.ref.trn").read_text()
    assert not re.search(r"\bthe\b", references)
    # What is counted is normalised; what is rescored is as it was decoded.
    assert any("the" in entry.words for entries in lists.values() for entry in entries)
