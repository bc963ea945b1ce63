"""What a sweep was asked, on which inputs, by which versions: ``sweep.json`` and its comparison."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from w2ltune import __version__, files
from w2ltune.errors import InputError, StudyMismatchError

FORMAT = 1
WHOLE_HASH_BYTES = 64 * 2**20
SAMPLE_BYTES = 2**20
SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What tells an input file or folder from another of the same name.

    Attributes:
        size: Bytes (of all files, for a folder).
        sha256: Of the whole content; of evenly spread samples beyond 64 MiB. For a folder of its
            files' names, sizes and middle parts, 64 MiB in all.
    """

    GONE: ClassVar = ("mtime_ns",)
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What was asked. The first group decides results and must not change on resume.

    Attributes:
        task: "decode", "train" or "rescore".
        flags: Flags with one value.
        space: Searched flags, as written.
        scoring: Metric, normalisation and the like.
        inputs: Fingerprints by path.
        seed: The seed of the samplers; kept when the command does not name one.
        versions: Versions of what took part.
        commit: The git commit of the current directory, or "".
        command: The arguments of the command that began it.
    """

    task: str
    flags: Mapping[str, str]
    space: Mapping[str, str]
    scoring: Mapping[str, str]
    inputs: Mapping[str, Fingerprint]
    seed: int
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    command: tuple[str, ...] = ()
    format: int = FORMAT


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of a file or folder.

    Raises:
        InputError: It is missing or cannot be read.
    """
    try:
        if path.is_dir():
            return _folder_fingerprint(path)
        size = path.stat().st_size
        return Fingerprint(size=size, sha256=_hash(path, size))
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None


def _folder_fingerprint(path: Path) -> Fingerprint:
    digest = hashlib.sha256()
    total = 0
    entries = [entry for entry in sorted(path.iterdir()) if entry.is_file()]
    part = max(4096, WHOLE_HASH_BYTES // max(1, len(entries)))
    for entry in entries:
        size = entry.stat().st_size
        total += size
        digest.update(f"{entry.name}\0{size}\0".encode())
        # Names and sizes are the same for the emissions of another acoustic model.
        with entry.open("rb") as file:
            file.seek(max(0, size - part) // 2)
            digest.update(file.read(part))
    return Fingerprint(size=total, sha256=digest.hexdigest())


def _hash(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= WHOLE_HASH_BYTES:
            while chunk := file.read(2**20):
                digest.update(chunk)
        else:
            for index in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * index // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def fingerprints(paths: Iterable[Path]) -> dict[str, Fingerprint]:
    """Return the fingerprints of inputs by path as given."""
    return {str(path): fingerprint(path) for path in paths}


def versions() -> dict[str, str]:
    """Return the versions of what takes part in a result."""
    found = {"w2ltune": __version__, "python": platform.python_version()}
    for name in ("ray", "optuna", "numpy", "flashlight-text"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Return the commit of the current directory, with ``-dirty`` where it was changed, or ""."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write_request(path: Path, request: SweepRequest) -> None:
    """Write ``sweep.json`` in one step."""
    files.write_json(path, asdict(request))


def read_request(path: Path) -> SweepRequest | None:
    """Return what ``sweep.json`` says, or None when there is none.

    Raises:
        StudyMismatchError: It was written by a newer w2ltune.
        InputError: It is damaged, or of another program.
    """
    content = files.read_json(path)
    if content is None:
        return None
    try:
        if content.get("format", FORMAT) > FORMAT:
            raise StudyMismatchError(
                f"format {content['format']} is newer than this w2ltune ({__version__}, format "
                f"{FORMAT}); use the newer one",
                path=path,
            )
        if content["scoring"].get("metric") == "cer":  # before there was a choice
            content["scoring"].setdefault("cer_blanks", "true")
        return files.fitted(SweepRequest, content)
    except files.DAMAGE:
        raise InputError("no request of this program; use another folder", path=path) from None


def require_same(old: SweepRequest, new: SweepRequest, *, path: Path) -> None:
    """Refuse to continue a sweep that was asked for differently.

    Budget, resources, sampler, seed and versions may differ; all may where nothing was kept.

    Raises:
        StudyMismatchError: With the differences, one per line.
    """
    found = list(_differences(old, new))
    if found and (old.task != new.task or not nothing_was_kept(path.parent, old)):
        lines = "".join(f"\n  {line}" for line in found)
        place = "--logdir and --prefix" if old.task == "train" else "--prefix"
        place = "--out" if new.task == "rescore" else place
        single = new.task == "train" and not new.space
        raise StudyMismatchError(
            f"holds another training; train in another --project, or give the old flags:{lines}"
            if single
            else f"holds another sweep; use another {place}, or give the old command:{lines}",
            path=path,
        )


def nothing_was_kept(study: Path, request: SweepRequest) -> bool:
    """Return whether no trial of a study came to anything, and no model was kept.

    Args:
        study: Its folder.
        request: What it was asked; a rescoring is never nothing.
    """
    models = (study.glob(pattern) for pattern in ("*_model_*.bin", "trials/*/run/*_model_*.bin"))
    if request.task == "rescore" or any(map(any, (*models, study.glob("trials/*/snapshots/*.b*")))):
        return False
    results = map(files.read_json, study.glob("trials/*/result.json"))
    return all(isinstance(result, dict) and result.get("state") == "FAIL" for result in results)


def _begin_anew(path: Path, found: Sequence[str]) -> None:
    """Set aside what a study left of which nothing was kept, and say so."""
    numbers = (path.with_name(f"failed-{number}") for number in itertools.count(1))
    aside = next(folder for folder in numbers if not folder.exists())
    aside.mkdir()
    for name in ("trials", "study.journal", "outcome.json"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(name).rename(aside / name)
    print(
        f"w2ltune: note: nothing was kept of what {path.parent} was begun for, so it is begun anew "
        f"({'; '.join(found)}); what was left of it is in {aside.name}/",
        file=sys.stderr,
    )


def settle_request(path: Path, request: SweepRequest, *, keep_seed: bool) -> SweepRequest:
    """Write ``sweep.json``, or compare with it; only the study's owner may call this.

    Args:
        path: Of ``sweep.json``.
        request: What is asked now.
        keep_seed: Take the seed of the first command.

    Returns:
        The request, with the seed to use.

    Raises:
        StudyMismatchError: The folder holds another sweep.
    """
    old = read_request(path)
    if old is None:
        if any(path.parent.glob("trials/[0-9]*/flags.cfg")):
            raise StudyMismatchError(
                "gone, but there are trials of a sweep; put it back, or use another folder",
                path=path,
            )
        write_request(path, request)
        return request
    require_same(old, request, path=path)
    if found := list(_differences(old, request)):
        _begin_anew(path, found)
        write_request(path, request)
        return request
    if old.versions != request.versions or old.commit != request.commit:
        print("w2ltune: note: versions or commit have changed since it began", file=sys.stderr)
    return replace(request, seed=old.seed) if keep_seed else request


def _differences(old: SweepRequest, new: SweepRequest) -> Iterable[str]:
    if old.task != new.task:
        yield f"task was {old.task}, is {new.task}"
        return
    for kind in ("flags", "space", "scoring"):
        before, after = ({f"--{n}": v for n, v in getattr(of, kind).items()} for of in (old, new))
        yield from differences(before, after)
    for name in sorted(old.inputs.keys() & new.inputs.keys()):
        was, now = old.inputs[name], new.inputs[name]
        if (was.size, was.sha256) != (now.size, now.sha256):
            yield f"{name} has changed since ({was.size} bytes then, {now.size} now)"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what differs of what results were made from, nested JSON.

    Example:
        >>> list(differences({"lm": {"size": 1}, "case": "keep"}, {"lm": {"size": 2}, "unit": "x"}))
        ['case was keep, is not given', 'lm size was 1, is 2', 'unit was not given, is x']
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name, "not given"), after.get(name, "not given")
        if was != now:
            hashed = name == "hypotheses"
            yield "the dump has changed since" if hashed else f"{name} was {was}, is {now}"


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value
