"""The files of a run directory, named and written as fl_asr_train does.

A checkpoint is written *in place*, without a temporary name: a kill while it is written leaves it
cut, and no older one. That is how the binary does it, and what whoever starts it has to survive.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from w2ltune.embedded.modelfile import parse_state, state_bytes
from w2ltune.embedded.training import TrainingState
from w2ltune.errors import FlagError, InputError, W2LTuneError
from w2ltune.formats.checkpoint import CheckpointHeader, read_header, write_header
from w2ltune.formats.distributions import parse_float

RETRY_VARIABLE = "W2LTUNE_RETRY_SECONDS"
"""Environment variable: the first of the waits between tries; 0 tries without waiting."""

TRIES = 6
CHUNK_BYTES = 2**20

T = TypeVar("T")


class CheckpointError(W2LTuneError):
    """A checkpoint could not be read or written, in all tries; the binary dies of SIGABRT."""

    exit_code = 134


def run_file(rundir: Path, index: int, name: str) -> Path:
    """Return the file ``name`` of the run ``index`` in a run directory."""
    return rundir / f"{index:03d}_{name}"


def next_index(rundir: Path) -> int:
    """Return the index of a run that continues: the first without a last model, from 1."""
    index = 1
    while os.access(run_file(rundir, index, "model_last.bin"), os.R_OK):
        index += 1
    return index


def config_entries(
    rundir: Path, index: int, *, flags: Mapping[str, str], arguments: list[str], program: str
) -> dict[str, str]:
    """Return what ``001_config`` and the head of each model tell of a run."""
    today = datetime.now().strftime("%Y-%m-%d")
    return {
        "runPath": str(rundir),
        "runIdx": str(index),
        "timestamp": f"{today}, {today}",
        "hostname": os.environ.get("HOSTNAME", ""),
        "username": os.environ.get("USER", ""),
        "gflags": "".join(f"--{name}={value}\n" for name, value in flags.items()),
        "commandline": " ".join([program, *arguments]),
        "programname": program,
    }


def write_config(path: Path, entries: Mapping[str, str]) -> None:
    """Write ``001_config``."""
    pairs = [{"key": key, "value": value} for key, value in entries.items()]
    path.write_text(json.dumps({"config": pairs}, indent=4), encoding="utf-8")


def save_checkpoint(path: Path, state: TrainingState, entries: Mapping[str, str]) -> None:
    """Write a model file, in place; CheckpointError if that failed several times."""
    progress = {"epoch": str(state.epoch), "updates": str(state.updates)}
    payload = memoryview(state_bytes(state))

    def write() -> None:
        # Without a buffer, so that each write is one of the file system's.
        with path.open("wb", buffering=0) as file:
            write_header(file, {**entries, **progress})
            for first in range(0, len(payload), CHUNK_BYTES):
                chunk = payload[first : first + CHUNK_BYTES]
                while chunk:
                    chunk = chunk[file.write(chunk) :]

    _patiently(write, path, doing="saving")


def load_checkpoint(path: Path) -> tuple[CheckpointHeader, TrainingState]:
    """Read a model file, again and again while it is missing or damaged."""
    return _patiently(lambda: read_checkpoint(path), path, doing="loading")


def read_checkpoint(path: Path) -> tuple[CheckpointHeader, TrainingState]:
    """Read a model file that :func:`save_checkpoint` wrote; InputError of any other."""
    header = read_header(path)
    try:
        with path.open("rb") as file:
            file.seek(header.header_bytes)
            payload = file.read()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    return header, parse_state(payload, path=path)


def _patiently(action: Callable[[], T], path: Path, *, doing: str) -> T:
    """Try with waits of 1, 2, 4, 8 and 16 seconds (or what ``RETRY_VARIABLE`` says) between."""
    text = os.environ.get(RETRY_VARIABLE, "1")
    wait_seconds = parse_float(text)
    if wait_seconds is None or not 0 <= wait_seconds < math.inf:
        raise FlagError(f"{RETRY_VARIABLE}={text} in the environment: must be seconds, 0 or more")
    for tries_left in range(TRIES - 1, -1, -1):
        try:
            return action()
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
        except OSError as error:
            reason = error.strerror or str(error)
        reason = f'Error while {doing} "{path}": {reason}'
        print(reason, file=sys.stderr, flush=True)
        if tries_left:
            time.sleep(wait_seconds)
            wait_seconds *= 2
    raise CheckpointError(f"{reason}; gave up after {TRIES} tries")
