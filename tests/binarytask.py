"""Small decode sweeps with the binaries, for which doubles stand that hold the real search."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY, VOICE_COMMANDS
from runningray import DOUBLES_ENVIRONMENT as ENVIRONMENT
from runningray import running_ray
from trainingtask import BINARY, DOUBLES, make_training
from waiting import PATIENCE_SECONDS

from w2ltune.formats.checkpoint import write_header
from w2ltune.formats.emissions import open_emissions, write_emission_bin

DECODER = DOUBLES / "fl_asr_decode"
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
        "concurrent_trials": 1,
        "pruner": "none",
        "probe": "false",
        "seed": 1,
        "n": 2,
    }


def write_model(path: Path, **flags: object) -> Path:
    """Write what has a model's head and nothing behind it; enough where there are emissions."""
    stored = "\n".join(f"--{name}={value}" for name, value in flags.items())
    with path.open("wb") as file:
        write_header(file, {"epoch": "1", "updates": "1", "gflags": stored})
    return path


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
        "concurrent_trials": 1,
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
    """Run a sweep on the Ray that is there already."""
    environment = {"PYTHONPATH": str(REPOSITORY), **ENVIRONMENT, **running_ray()}
    return subprocess.run(
        [sys.executable, "-m", "w2ltune.sweep", *arguments(flags, **changes), *more],
        env={**os.environ, **environment},
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, cwd=folder,
    )  # fmt: skip


def done(flags: Flags, *more: str, folder: Path = REPOSITORY, **changes: object) -> str:
    """Run a sweep that goes well, and return what it printed."""
    process = run(flags, *more, folder=folder, **changes)
    assert process.returncode == 0, process.stderr
    return process.stdout


def refused(flags: Flags, *more: str, folder: Path = REPOSITORY, **changes: object) -> str:
    """Run a sweep that is refused, and return what it says."""
    process = run(flags, *more, folder=folder, **changes)
    assert process.returncode == 2, process.stdout
    assert process.stderr.startswith("w2ltune: error: ")
    return process.stderr


def counts(study: Path) -> list[tuple[object, ...]]:
    results = [json.loads(p.read_text()) for p in sorted(study.glob("trials/*/result.json"))]
    return [(r["state"], r["params"], r["counts"], r["missing"]) for r in results]


def wer_of(flagsfile: Path, folder: Path) -> float:
    """The WER that the program counts, given a flagsfile and nothing else."""
    process = subprocess.run(
        [DECODER, f"--flagsfile={flagsfile}", "--logtostderr"], cwd=folder,
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return float(re.findall(r"WER: ([0-9.]+)%", process.stderr)[-1])
