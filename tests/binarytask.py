"""Small decode sweeps with the binaries, for which doubles stand that hold the real search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY, VOICE_COMMANDS
from trainingtask import BINARY, DOUBLES, make_training

from w2ltune.formats.emissions import open_emissions, write_emission_bin

DECODER = DOUBLES / "fl_asr_decode"
ENVIRONMENT = {
    "DOUBLE_PYTHON": sys.executable,
    "DOUBLE_RETRY_SECONDS": "0.001",
    "DOUBLE_UPDATE_SECONDS": "0.0005",
}
Flags = dict[str, object]


def make_decoding(tmp_path: Path) -> Flags:
    """Return the flags of a small sweep whose emissions are files of the binary."""
    data = tmp_path / "data"
    (data / "emissions" / "dev.lst").mkdir(parents=True)
    (data / "some.wav").touch()
    emissions = open_emissions(VOICE_COMMANDS / "emissions" / "dev.npz")
    rows = []
    for line in (VOICE_COMMANDS / "dev.lst").read_text().splitlines()[:40]:
        name, _, *rest = line.split()
        rows.append(" ".join([name, str(data / "some.wav"), *rest]))
        write_emission_bin(data / "emissions" / "dev.lst", name, emissions.emission(name))
    (data / "dev.lst").write_text("\n".join(rows) + "\n")
    return {
        "binary": DECODER,
        "emission_dir": data / "emissions",
        "datadir": data,
        "test": "dev.lst",
        "tokens": VOICE_COMMANDS / "tokens.txt",
        "lexicon": VOICE_COMMANDS / "lexicon.txt",
        "lm": VOICE_COMMANDS / "lm.arpa",
        "smearing": "max",
        "beamsize": 50,
        "beamsizetoken": 20,
        "logdir": tmp_path / "sweeps",
        "prefix": "small",
        "sampler": "random",
        "pruner": "none",
        "probe": "false",
        "seed": 1,
        "n": 2,
    }


def make_model(tmp_path: Path) -> Flags:
    """Return the flags of a small sweep that begins with an acoustic model."""
    folder = tmp_path / "training"
    flags = make_training(folder)
    given = [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(
        [BINARY, "train", f"--rundir={folder}/run", *given, "--logtostderr=true"],
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {
        "binary": DECODER,
        "am": folder / "run" / "001_model_last.bin",
        "datadir": folder,
        "test": "train.lst",
        "lmweight": 0,
        "wordscore": "uniform(-1,1)",
        "beamsize": 20,
        "logdir": tmp_path / "sweeps",
        "prefix": "am",
        "sampler": "random",
        "pruner": "none",
        "probe": "false",
        "seed": 1,
        "n": 2,
    }


def arguments(flags: Flags, **changes: object) -> list[str]:
    return [
        f"--{name}={value}" for name, value in {**flags, **changes}.items() if value is not None
    ]


def run(
    flags: Flags, *more: str, folder: Path = REPOSITORY, **changes: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "w2ltune.sweep", *arguments(flags, **changes), *more],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **ENVIRONMENT},
        capture_output=True, text=True, timeout=240, cwd=folder,
    )  # fmt: skip


def counts(study: Path) -> list[tuple[object, ...]]:
    results = [json.loads(p.read_text()) for p in sorted(study.glob("trials/*/result.json"))]
    return [(r["state"], r["params"], r["counts"], r["missing"]) for r in results]
