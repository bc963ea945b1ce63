"""The Test program writes emissions: each list is a task of Ray, begun again when it is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from w2ltune import files
from w2ltune.cluster.session import require_ray
from w2ltune.errors import (
    InputError,
    KilledError,
    StorageError,
    TrialFailedError,
    W2LTuneError,
    storage_faults,
)
from w2ltune.formats.decodelog import find_seconds
from w2ltune.formats.emissionbin import read_emission_shape
from w2ltune.formats.listfile import read_list, write_list
from w2ltune.runs.explain import TRIES, failure, killed_again
from w2ltune.runs.process import Program, start
from w2ltune.runs.rundir import make_shared
from w2ltune.runs.sharing import share
from w2ltune.runs.signals import stopped_error
from w2ltune.trials.emissionsource import EMISSIONS, NOTE, EmissionSource
from w2ltune.trials.ranks import with_devices
from w2ltune.trials.resources import cluster_gpus, stays
from w2ltune.trials.sharing import Patience

LOOK_SECONDS = 0.5
LOST_NODES = 5
END_SECONDS = 10.0
ABANDONED_SECONDS = 86400.0
"""A job may be suspended for long, and go on."""

MAKING = ".making-"


def make_emissions(
    sources: Sequence[EmissionSource],
    *,
    progress: Callable[[float], None],
    say: Callable[[str], None],
    stopped: Callable[[], str] = lambda: "",
) -> None:
    """Make what is missing, each list on a core, or on a GPU where one is asked for and there.

    Args:
        sources: How that of each list is made, all in one cache.
        progress: Called with the part of the utterances that is done.
        say: Takes a line for people.
        stopped: Returns why the whole command stops, or "".

    Raises:
        TrialFailedError: The program failed, or left an utterance out.
        StorageError: The disk is full, or fails.
        StoppedError: The command was asked to stop, or Ray is lost.
    """
    cache = sources[0].cache
    make_shared(cache)
    _remove_abandoned(cache)
    gpus = int(sources[0].gpu and cluster_gpus() > 0)
    task = ray.remote(_make_list).options(
        num_cpus=1, num_gpus=gpus, max_retries=LOST_NODES, name="emissions"
    )
    own = f"{MAKING}{uuid.uuid4().hex[:8]}"
    making = [cache / f"{own}-{number}" for number in range(len(sources))]
    live: dict[Any, int] = {
        task.remote(source, making[number]): number for number, source in enumerate(sources)
    }
    waiting: list[int] = []  # what was killed, begun again one at a time
    kills = [0] * len(sources)
    patience = Patience([{"CPU": 1, "GPU": gpus}], say)
    losses = 0
    counts = [len(read_list(source.path)) for source in sources]
    try:
        while live or waiting:
            if not live:
                number = waiting.pop()
                live[task.remote(sources[number], making[number])] = number
            if reason := stopped():
                rest = " while the emissions were made; the same command continues"
                raise stopped_error(reason, rest)
            for answer in ray.wait(list(live), timeout=LOOK_SECONDS)[0]:
                number = live.pop(answer)
                name = sources[number].path
                try:
                    problem, node = ray.get(answer)
                except RayTaskError as error:
                    raise TrialFailedError(f"emissions of {name}: {error.cause}") from None
                except RayError as error:
                    require_ray()
                    problem, node = TrialFailedError(f"lost by Ray ({type(error).__name__})"), ""
                killed = isinstance(problem, KilledError)
                if killed and losses < LOST_NODES and not stays(node):
                    losses += 1
                    live[task.remote(sources[number], making[number])] = number
                elif killed:
                    kills[number] += 1
                    if kills[number] >= TRIES:
                        raise killed_again(f"emissions of {name}: {problem}")
                    waiting.append(number)
                elif isinstance(problem, StorageError):
                    raise problem
                elif problem:
                    raise TrialFailedError(f"emissions of {name}: {problem}")
            done = [
                count if source.whole() else _written(folder)
                for source, folder, count in zip(sources, making, counts, strict=True)
            ]
            progress(min(1.0, sum(done) / sum(counts)))
            patience.look(begun=any(cache.glob(f"{own}-*-*")))
    finally:
        with contextlib.suppress(RayError):  # Ray itself may be lost
            for answer in live:
                ray.cancel(answer, force=True)
            if live:  # what writes there still must be gone first
                ray.wait(list(live), num_returns=len(live), timeout=END_SECONDS)
        _remove(cache, f"{own}-*")


def _remove(cache: Path, pattern: str) -> None:
    """Remove attempts; a program that is being killed may write for some seconds more."""
    end = time.monotonic() + END_SECONDS
    while (left := list(cache.glob(pattern))) and time.monotonic() < end:
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        if any(folder.exists() for folder in left):
            time.sleep(LOOK_SECONDS)


def _make_list(source: EmissionSource, making: Path) -> tuple[W2LTuneError | None, str]:
    """Let the program write the emissions of a list; return what went wrong, and the node."""
    node = ray.get_runtime_context().get_node_id()
    try:
        with storage_faults():
            _run_program(source, making)
    except (W2LTuneError, OSError) as error:
        return (error if isinstance(error, W2LTuneError) else TrialFailedError(str(error))), node
    return None, node


def _run_program(source: EmissionSource, making: Path) -> None:
    share(making.parent, worker=True)
    # Of this attempt: one that was lost with its node may still write to its own.
    folder = making.with_name(f"{making.name}-{uuid.uuid4().hex[:8]}")
    log = folder / "log"
    try:
        os.chdir(source.folder)  # the cluster may have been started elsewhere
        if source.whole():  # another command was faster
            return
        for inner in ("glog", EMISSIONS):  # the program makes no folder above its own
            (folder / inner).mkdir(parents=True)
        write_list(folder / source.path.name, read_list(source.path))
        program = Program(arguments=source.arguments(folder), log=log, folder=Path(source.folder))
        with start(with_devices(program)) as child:
            code = child.wait() or 0
        if code:
            kept, place = _keep(log, source), Path(source.folder)
            raise failure(code, kept, lists=[source.path], folder=place, kept=kept)
        with log.open(encoding="utf-8", errors="replace") as lines:
            if find_seconds(lines) is None:
                kept = _keep(log, source)
                raise TrialFailedError(
                    f"the program ended well but without its last line (log: {kept})"
                )
        frames, tokens = _check(folder / EMISSIONS / source.path.name, source.path)
        note = {"am": source.am, "program": source.program, "list": str(source.path)}
        files.write_json(folder / NOTE, {**note, "frames": frames, "tokens": tokens})
        shutil.rmtree(folder / "glog")
        try:
            folder.rename(source.home)
        except OSError:
            if not source.whole():  # another command was faster, and may read them already
                raise
        _log(source).unlink(missing_ok=True)  # of an attempt that failed
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(log: Path, source: EmissionSource) -> Path:
    """Keep the log of a run that failed; return where it is."""
    return log.replace(_log(source))


def _log(source: EmissionSource) -> Path:
    return source.home.with_name(f"{source.home.name}.log")


def _written(making: Path) -> int:
    """Return how many emissions the attempt at a list that has most has written."""
    counts = [0]
    for attempt in making.parent.glob(f"{making.name}-*"):
        with contextlib.suppress(OSError):  # it has just been finished or given up
            counts.append(sum(1 for _ in attempt.glob(f"{EMISSIONS}/*/*.bin")))
    return max(counts)


def _check(folder: Path, path: Path) -> tuple[int, int]:
    """Return frames and tokens of the emissions of a list, of which none may be missing."""
    frames, widths = 0, set()
    for utterance in read_list(path):
        file = folder / f"{utterance.id}.bin"
        if not file.exists():
            raise InputError(f"the program wrote no emission of {utterance.id!r}", path=path)
        length, tokens = read_emission_shape(file)
        frames += length
        widths.add(tokens)
    return frames, widths.pop()


def _remove_abandoned(cache: Path) -> None:
    """Remove what killed attempts left a day ago and more."""
    for old in cache.glob(f"{MAKING}*"):
        with contextlib.suppress(OSError):  # it has just been finished or given up
            # One that is at work writes below, not to the folder itself.
            newest = max(Path(folder).stat().st_mtime for folder, _, _ in os.walk(old))
            if time.time() - newest > ABANDONED_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
