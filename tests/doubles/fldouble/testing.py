"""Starts the doubles for tests and reads what they leave."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

from waiting import PATIENCE_SECONDS

DOUBLES = Path(__file__).parents[1]
OWN = ("DOUBLE_", "GLOG_", "TMPDIR", "OMPI_", "CUDA_")
QUICK = {
    "DOUBLE_RETRY_SECONDS": "0.001",
    "DOUBLE_UPDATE_SECONDS": "0.0005",
    "DOUBLE_PAYLOAD_BYTES": "3000",
}

started: list[subprocess.Popen[str]] = []


def start(
    *arguments: object, program: str = "fl_asr_train", cwd: Path | None = None, **switches: object
) -> subprocess.Popen[str]:
    """Start a double in an environment without this process' own switches."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    process = subprocess.Popen(
        [str(DOUBLES / program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**kept, **QUICK, **{name: str(value) for name, value in switches.items()}},
    )
    started.append(process)
    return process


def end_all() -> None:
    """End every double that `start` started and close its pipes."""
    while started:
        process = started.pop()
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a double to its end."""
    process = start(*arguments, **options)  # type: ignore[arg-type]
    stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    command = [str(argument) for argument in arguments]
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def names(folder: Path) -> list[str]:
    """The sorted names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def log(folder: Path, index: int = 1) -> list[dict[str, str]]:
    """The lines of a log as dicts; none where it does not exist."""
    path = folder / f"{index:03d}_log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [dict(item.split(": ", 1) for item in line.split(" | ")) for line in lines]


def updates(folder: Path, index: int = 1) -> list[int]:
    """The updates at which a log has its lines."""
    return [int(line["nupdates"]) for line in log(folder, index)]


def config(folder: Path, index: int = 1) -> dict[str, str]:
    """The entries of 001_config."""
    content = json.loads((folder / f"{index:03d}_config").read_text())
    return {entry["key"]: entry["value"] for entry in content["config"]}


def stored_flags(folder: Path, index: int = 1) -> dict[str, str]:
    """The flags in 001_config."""
    lines = config(folder, index)["gflags"].splitlines()
    return {name: value for name, _, value in (line[2:].partition("=") for line in lines)}


def head(path: Path) -> tuple[dict[str, str], bytes]:
    """The entries of a model file's head, and what follows it."""
    content, at = path.read_bytes(), 0

    def string() -> str:
        nonlocal at
        (size,) = struct.unpack_from("<Q", content, at)
        at += 8 + size
        return content[at - size : at].decode()

    assert string() == "0.1"
    (count,) = struct.unpack_from("<Q", content, at)
    at += 8
    entries = {string(): string() for _ in range(count)}
    return entries, content[at:]
