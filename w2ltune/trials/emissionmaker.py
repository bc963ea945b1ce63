"""The Test program writes emissions: each list is a task of Ray, begun again when it is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from w2ltune import files
from w2ltune.cluster.session import require_ray
from w2ltune.errors import InputError, StoppedError, TrialFailedError, W2LTuneError
from w2ltune.formats.decodelog import find_summary
from w2ltune.formats.emissionbin import read_emission_shape
from w2ltune.formats.listfile import read_list
from w2ltune.runs.explain import explain_exit
from w2ltune.runs.process import Program, start
from w2ltune.runs.rundir import make_shared
from w2ltune.runs.signals import by_hand
from w2ltune.trials.emissionsource import EmissionSource, plain_list
from w2ltune.trials.ranks import with_devices
from w2ltune.trials.resources import cluster_gpus

LOOK_SECONDS = 0.5
LOST_NODES = 5


def make_emissions(
    source: EmissionSource,
    *,
    progress: Callable[[float], None],
    stopped: Callable[[], str] = lambda: "",
) -> None:
    """Make what is missing, each list on a core, or on a GPU where one is asked for and there.

    Args:
        source: How.
        progress: Called with the part of the utterances that is done.
        stopped: Returns why the whole command stops, or "".

    Raises:
        TrialFailedError: The program failed, or left an utterance out.
        StoppedError: The command was asked to stop, or Ray is lost.
    """
    make_shared(source.emission_dir)
    gpus = int(source.gpu and cluster_gpus() > 0)
    task = ray.remote(_make_list).options(
        num_cpus=1, num_gpus=gpus, max_retries=LOST_NODES, name="emissions"
    )
    live: dict[Any, str] = {task.remote(source, name): name for name in source.missing()}
    total = sum(len(read_list(_path(source, name))) for name in live.values())
    try:
        while live:
            if reason := stopped():
                raise StoppedError(
                    f"stopped ({reason}) while the emissions were made; the same command continues",
                    interrupted=by_hand(reason),
                )
            for answer in ray.wait(list(live), timeout=LOOK_SECONDS)[0]:
                name = live.pop(answer)
                try:
                    failure = ray.get(answer)
                except RayTaskError as error:
                    raise TrialFailedError(f"emissions of {name}: {error.cause}") from None
                except RayError as error:
                    require_ray()
                    failure = f"lost by Ray ({type(error).__name__})"
                if failure:
                    raise TrialFailedError(f"emissions of {name}: {failure}")
            written = sum(1 for _ in source.emission_dir.glob(".making-*/*/*.bin"))
            whole = sum(len(list((source.emission_dir / plain_list(n)).glob("*.bin")))
                        for n in source.lists if n not in live.values())  # fmt: skip
            progress(min(1.0, (written + whole) / total if total else 1.0))
    finally:
        for answer in live:
            ray.cancel(answer, force=True)


def _make_list(source: EmissionSource, name: str) -> str:
    """Let the program write the emissions of a list; return what went wrong, or ""."""
    os.umask(0o002)
    final = source.emission_dir / plain_list(name)
    making = source.emission_dir / f".making-{uuid.uuid4().hex[:8]}"
    log = source.emission_dir / f"{plain_list(name)}.log"
    if source.mark(name).exists():  # another command was faster
        return ""
    try:
        _remove_abandoned(source.emission_dir)
        (making / "glog").mkdir(parents=True)
        program = Program(
            arguments=source.arguments(name, making), log=log, folder=Path(source.folder)
        )
        with start(with_devices(program)) as child:
            code = child.wait() or 0
        if code:
            return f"{explain_exit(code, log)} (log: {log})"
        with log.open(encoding="utf-8", errors="replace") as lines:
            if find_summary(lines) is None:
                return f"the program ended well but without its last line (log: {log})"
        frames, tokens = _check(making / plain_list(name), _path(source, name))
        if source.mark(name).exists():  # another command was faster, and may read them already
            return ""
        if final.exists():  # of an attempt that was cut short before its mark
            shutil.rmtree(final)
        (making / plain_list(name)).replace(final)
        note = {"am": source.am, "frames": frames, "tokens": tokens, "program": source.program}
        files.write_json(source.mark(name), note)
    except (W2LTuneError, OSError) as error:
        return str(error)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return ""


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
    for old in folder.glob(".making-*"):
        newest = old.stat().st_mtime
        for path in old.rglob("*"):  # one that is at work writes below, not to the folder itself
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, path.stat().st_mtime)
        if time.time() - newest > 3600:
            shutil.rmtree(old, ignore_errors=True)


def _path(source: EmissionSource, name: str) -> Path:
    return Path(source.datadir, name)
