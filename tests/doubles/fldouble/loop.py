"""The updates of a training, its reports and its checkpoints."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from fldouble import curve
from fldouble.corpus import Sample, open_audio, shuffled
from fldouble.curve import Errors
from fldouble.flags import Flags
from fldouble.gate import wait_for_leave
from fldouble.log import CppError, Log, die_with_trace
from fldouble.model import save_model
from fldouble.ranks import Ranks
from fldouble.statusline import Interval, perf_texts, status_items

EMPTY_EPOCH_SECONDS = 0.01


class Run:
    """A run directory as one training writes it, and how far it came.

    Args:
        folder: The run directory.
        index: Of the files' names, from 1.
        config: What is written to 001_config and, with epoch and updates, to the model files.
        is_wav2letter: It keeps 001_perf.
        epoch: The last one; partial epochs count.
        updates: Done so far.
        progress: The sum of what they gained.
        spell: Makes the targets of a batch, or dies of them.
    """

    def __init__(
        self,
        *,
        folder: Path,
        index: int,
        config: dict[str, str],
        is_wav2letter: bool,
        epoch: int,
        updates: int,
        progress: float,
        spell: Callable[[list[Sample]], None],
    ) -> None:
        self.folder = folder
        self.index = index
        self.config = config
        self.is_wav2letter = is_wav2letter
        self.epoch = epoch
        self.updates = updates
        self.progress = progress
        self.spell = spell
        self.best_wer: dict[str, float] = {}
        self.logs: dict[str, TextIO] = {}

    def path(self, name: str) -> Path:
        """Return the path of a file of this run."""
        return self.folder / f"{self.index:03d}_{name}"

    def open_logs(self) -> None:
        """Begin 001_log, and 001_perf where it is kept; they stay open."""
        for name in ("log", "perf") if self.is_wav2letter else ("log",):
            self.logs[name] = self.path(name).open("w", encoding="utf-8", buffering=1)

    def write(self, name: str, line: str) -> None:
        """Write a line to a log; that the disk is full is not noticed."""
        with contextlib.suppress(OSError):
            self.logs[name].write(line + "\n")

    def phase(self, name: str) -> None:
        """Say what the training is at, for tests that ask for it."""
        if os.environ.get("DOUBLE_PHASE_FILE"):
            temporary = self.folder / f"phase.{os.getpid()}"
            temporary.write_text(f"{name} {self.epoch} {self.updates}", encoding="utf-8")
            temporary.replace(self.folder / "phase")

    def save(self, name: str) -> None:
        """Write a model file."""
        config = {**self.config, "epoch": str(self.epoch), "updates": str(self.updates)}
        save_model(self.path(f"model_{name.replace('/', '#')}.bin"), config, self.progress)


def train(
    flags: Flags,
    log: Log,
    ranks: Ranks,
    run: Run,
    samples: list[Sample],
    valid: dict[str, list[Sample]],
) -> None:
    """Train until --iter; reports come at each epoch's end or every --reportiters updates.

    Within an epoch one update more than --iter is made, as the binary does.
    """
    meter = _Meter()
    while run.updates < flags["iter"]:
        run.epoch += 1
        log.master(1041, "Shuffling trainset")
        order = shuffled(samples, flags["seed"], run.epoch)
        log.master(1048, f"Epoch {run.epoch} started!")
        if ranks.rank == 0:
            run.phase("training")
        for batch in _batches(order, flags["batchsize"], ranks):
            _update(flags, ranks, run, batch)
            meter.add(batch)
            if flags["reportiters"] > 0 and run.updates % flags["reportiters"] == 0:
                _report(flags, log, ranks, run, valid, meter)
            if run.updates > flags["iter"]:
                break
        if not samples:
            time.sleep(EMPTY_EPOCH_SECONDS)
        if flags["reportiters"] == 0:
            _report(flags, log, ranks, run, valid, meter)


class _Meter:
    """Collects what a report tells of the updates since the last one."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.begin = time.monotonic()
        self.samples: list[Sample] = []
        self.updates = 0

    def add(self, batch: list[Sample]) -> None:
        self.samples += batch
        self.updates += 1

    def interval(self, world_size: int) -> Interval:
        seconds = time.monotonic() - self.begin if self.updates else 0.0
        return Interval(seconds, self.updates, tuple(self.samples), world_size)


def _batches(order: list[Sample], size: int, ranks: Ranks) -> list[list[Sample]]:
    """The batches of one rank; every rank has the same number of them."""
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    rounds = math.ceil(len(batches) / ranks.size)
    return [batches[(at * ranks.size + ranks.rank) % len(batches)] for at in range(rounds)]


def _update(flags: Flags, ranks: Ranks, run: Run, batch: list[Sample]) -> None:
    wait_for_leave(run.updates)
    run.updates += 1
    open_audio(batch)
    run.spell(batch)
    time.sleep(float(os.environ.get("DOUBLE_UPDATE_SECONDS", "0.002")))
    if _asked_for("CRASH", run.updates):
        text = f"crash in update {run.updates}, as asked for by DOUBLE_CRASH_AT_UPDATE"
        raise CppError("std::runtime_error", text)
    if _asked_for("HANG", run.updates):
        while True:
            time.sleep(1)
    run.progress += curve.gain(flags["lr"])
    ranks.finish_update(run.updates)


def _asked_for(what: str, update: int) -> bool:
    """Whether the environment asks for a crash or a hang in this update, and not "once" before."""
    if os.environ.get(f"DOUBLE_{what}_AT_UPDATE") != str(update):
        return False
    once = os.environ.get(f"DOUBLE_{what}_ONCE")
    if once is None:
        return True
    try:
        Path(once).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _report(
    flags: Flags,
    log: Log,
    ranks: Ranks,
    run: Run,
    valid: dict[str, list[Sample]],
    meter: _Meter,
) -> None:
    """Evaluate, log the line, then write the model files: a kill between leaves only the line."""
    if not valid:
        die_with_trace(signal.SIGSEGV)
    if ranks.rank == 0:
        run.phase("validating")
    for samples in valid.values():
        open_audio(samples)
        run.spell(samples)
    time.sleep(float(os.environ.get("DOUBLE_VALID_SECONDS", "0")))
    if ranks.rank == 0:
        lr, seed = flags["lr"], flags["seed"]
        results = {tag: curve.errors(lr, seed, run.progress, tag) for tag in valid}
        run.phase("writing")
        _log_line(flags, log, run, meter.interval(ranks.size), results)
        _save_models(flags, log, run, results)
    meter.restart()


def _log_line(
    flags: Flags, log: Log, run: Run, interval: Interval, valid: dict[str, Errors]
) -> None:
    train_errors = curve.errors(flags["lr"], flags["seed"], run.progress, "train")
    items = status_items(
        flags,
        epoch=run.epoch,
        updates=run.updates,
        interval=interval,
        train=train_errors if interval.updates else Errors(0, 0, 0),
        valid=valid,
    )
    line = " | ".join(f"{key}: {value}" for key, value in items)
    if flags["lm"]:
        log.master(863, "[Beam-search decoder]   * DM: done with best WER 100")
    log.master(651, line)
    run.write("log", line)
    if run.is_wav2letter:
        header, row = perf_texts(items)
        if not run.logs["perf"].tell():
            run.write("perf", header)
        run.write("perf", row)


def _save_models(flags: Flags, log: Log, run: Run, results: dict[str, Errors]) -> None:
    try:
        if flags["itersave"]:
            run.save(f"iter_{run.epoch:03d}")
        run.save("last")
        for tag, result in results.items():
            if result.wer < run.best_wer.get(tag, math.inf):
                run.best_wer[tag] = result.wer
                run.save(tag)
                if flags["lm"]:
                    run.save(f"{tag}_decoder")
    except CppError as error:
        log.fatal(1015, f"Error while saving models: {error}")
