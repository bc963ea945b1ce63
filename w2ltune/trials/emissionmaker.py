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
from w2ltune.errors import InputError, StoppedError, TrialFailedError, W2LTuneError
from w2ltune.formats.decodelog import find_summary
from w2ltune.formats.emissionbin import read_emission_shape
from w2ltune.formats.listfile import read_list, write_list
from w2ltune.runs.explain import explain_exit
from w2ltune.runs.process import Program, start
from w2ltune.runs.rundir import make_shared
from w2ltune.runs.signals import by_hand
from w2ltune.trials.emissionsource import EMISSIONS, NOTE, EmissionSource
from w2ltune.trials.ranks import with_devices
from w2ltune.trials.resources import cluster_gpus

LOOK_SECONDS = 0.5
LOST_NODES = 5
END_SECONDS = 10.0
MAKING = ".making-"


def make_emissions(
    sources: Sequence[EmissionSource],
    *,
    progress: Callable[[float], None],
    stopped: Callable[[], str] = lambda: "",
) -> None:
    """Make what is missing, each list on a core, or on a GPU where one is asked for and there.

    Args:
        sources: How that of each list is made, all in one cache.
        progress: Called with the part of the utterances that is done.
        stopped: Returns why the whole command stops, or "".

    Raises:
        TrialFailedError: The program failed, or left an utterance out.
        StoppedError: The command was asked to stop.
    """
    cache = sources[0].cache
    make_shared(cache)
    _remove_abandoned(cache)
    gpus = int(sources[0].gpu and cluster_gpus() > 0)
    task = ray.remote(_make_list).options(
        num_cpus=1, num_gpus=gpus, max_retries=LOST_NODES, name="emissions"
    )
    own = f"{MAKING}{uuid.uuid4().hex[:8]}"
    live: dict[Any, EmissionSource] = {
        task.remote(source, cache / f"{own}-{number}"): source
        for number, source in enumerate(sources)
    }
    counts = [len(read_list(source.path)) for source in sources]
    try:
        while live:
            if reason := stopped():
                raise StoppedError(
                    f"stopped ({reason}) while the emissions were made; the same command continues",
                    interrupted=by_hand(reason),
                )
            for answer in ray.wait(list(live), timeout=LOOK_SECONDS)[0]:
                name = live.pop(answer).path
                try:
                    failure = ray.get(answer)
                except RayTaskError as error:
                    raise TrialFailedError(f"emissions of {name}: {error.cause}") from None
                except RayError as error:
                    failure = f"lost by Ray ({type(error).__name__})"
                if failure:
                    raise TrialFailedError(f"emissions of {name}: {failure}")
            done = [
                count if source.whole() else _written(cache / f"{own}-{number}")
                for number, (source, count) in enumerate(zip(sources, counts, strict=True))
            ]
            progress(min(1.0, sum(done) / sum(counts)))
    finally:
        for answer in live:
            ray.cancel(answer, force=True)
        if live:  # what writes there still must be gone first
            ray.wait(list(live), num_returns=len(live), timeout=END_SECONDS)
        for left in cache.glob(f"{own}-*"):
            shutil.rmtree(left, ignore_errors=True)


def _make_list(source: EmissionSource, making: Path) -> str:
    """Let the program write the emissions of a list; return what went wrong, or ""."""
    os.umask(0o002)
    # Of this attempt: one that was lost with its node may still write to its own.
    folder = making.with_name(f"{making.name}-{uuid.uuid4().hex[:8]}")
    log = folder / "log"
    try:
        if source.whole():  # another command was faster
            return ""
        for inner in ("glog", EMISSIONS):  # the program makes no folder above its own
            (folder / inner).mkdir(parents=True)
        write_list(folder / source.path.name, read_list(source.path))
        program = Program(arguments=source.arguments(folder), log=log, folder=Path(source.folder))
        with start(with_devices(program)) as child:
            code = child.wait() or 0
        if code:
            return f"{explain_exit(code, log)} (log: {_keep(log, source)})"
        with log.open(encoding="utf-8", errors="replace") as lines:
            if find_summary(lines) is None:
                kept = _keep(log, source)
                return f"the program ended well but without its last line (log: {kept})"
        frames, tokens = _check(folder / EMISSIONS / source.path.name, source.path)
        note = {"am": source.am, "program": source.program, "list": str(source.path)}
        files.write_json(folder / NOTE, {**note, "frames": frames, "tokens": tokens})
        shutil.rmtree(folder / "glog")
        try:
            folder.rename(source.home)
        except OSError:
            if not source.whole():  # another command was faster, and may read them already
                raise
    except (W2LTuneError, OSError) as error:
        return str(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""


def _keep(log: Path, source: EmissionSource) -> Path:
    """Keep the log of a run that failed; return where it is."""
    return log.replace(source.home.with_name(f"{source.home.name}.log"))


def _written(making: Path) -> int:
    """Return how many emissions the attempt at a list that has most has written."""
    attempts = making.parent.glob(f"{making.name}-*")
    return max((sum(1 for _ in a.glob(f"{EMISSIONS}/*/*.bin")) for a in attempts), default=0)


def _check(folder: Path, path: Path) -> tuple[int, int]:
    """Return frames and tokens of the emissions of a list.

    Raises:
        InputError: An utterance is missing, or a file is damaged.
    """
    frames, widths = 0, set()
    for utterance in read_list(path):
        file = folder / f"{utterance.id}.bin"
        if not file.exists():
            raise InputError(f"the program wrote no emission of {utterance.id!r}", path=path)
        length, tokens = read_emission_shape(file)
        frames += length
        widths.add(tokens)
    return frames, widths.pop()


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed attempts left an hour ago and more."""
    for old in folder.glob(f"{MAKING}*"):
        newest = old.stat().st_mtime
        for path in old.rglob("*"):  # one that is at work writes below, not to the folder itself
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, path.stat().st_mtime)
        if time.time() - newest > 3600:
            shutil.rmtree(old, ignore_errors=True)
