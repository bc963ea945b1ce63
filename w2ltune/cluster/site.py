"""What differs from site to site, read once from a TOML file; without one, plain defaults.

The file is ``$W2LTUNE_SITE``, else ``~/.config/w2ltune/site.toml``.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from w2ltune.errors import InputError, did_you_mean, existing_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SITE_VARIABLE = "W2LTUNE_SITE"
_USUAL_PLACE = Path(".config/w2ltune/site.toml")

_LIMITS: Mapping[str, tuple[float, float]] = {
    "gpus_per_node": (1, 1024),
    "cpus_per_gpu": (1, 4096),
    "cpus_per_node": (1, 4096),
    "hours": (1 / 60, 24 * 365),
    "notice_seconds": (1, 65535),  # what --signal takes
}
_CHOICES = {"gpu_option": ("gres", "gpus-per-node")}
_PATHS = ("setup", "root")
_USERS_OWN = {
    "partition": ("SBATCH_PARTITION",),
    "account": ("SBATCH_ACCOUNT",),
    "qos": ("SBATCH_QOS",),
    "reservation": ("SBATCH_RESERVATION",),
    "clusters": ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"),
}
"""Variables of sbatch that stand in for a key; all others would overrule the job's own lines."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A SLURM site; every attribute is a key of the site file.

    Attributes:
        gpus_per_node: GPUs of a node.
        cpus_per_gpu: Cores asked for each GPU.
        cpus_per_node: Cores asked on a node for a job without GPUs.
        gpu_option: How GPUs are asked for: ``--gres=gpu:8``, or ``--gpus-per-node=8``.
        gres_name: Of the GPUs in ``--gres``; ``gpu:volta`` where the type must be told.
        gpu16_constraint: The nodes with GPUs of 16 GB, for ``--gpu16``.
        partition: What ``--partition=default`` means; by default ``$SBATCH_PARTITION``.
        account: As of sbatch; by default ``$SBATCH_ACCOUNT``.
        qos: As of sbatch; by default ``$SBATCH_QOS``.
        reservation: As of sbatch; by default ``$SBATCH_RESERVATION``.
        clusters: As of sbatch; by default ``$SBATCH_CLUSTERS`` or ``$SLURM_CLUSTERS``.
        constraint: For all jobs, beside that of ``--constraint``.
        hours: Time limit of jobs without ``--hours``; None leaves it to SLURM.
        notice_seconds: How long before its time limit a job is told to stop.
        modules: Environment modules that are loaded.
        setup: Bash file that is sourced in the job, after the modules.
        container: Words before each command, as ``["apptainer", "exec", "--nv", "asr.sif"]``.
        python: The Python to use, inside of the container; by default the one that submits.
        root: Folder of run directories, when ``--root`` is not given.
        scratch: Node-local folder; variables as ``$SLURM_JOB_ID`` are filled in on the node.
        interface: Network interface between nodes, as ``ib0``; by default the host name's.
        sbatch: Further words for ``#SBATCH`` lines, as ``["--exclusive"]``.
        file: Where this was read; not a key.
    """

    gpus_per_node: int = 8
    cpus_per_gpu: int = 1
    cpus_per_node: int = 16
    gpu_option: str = "gres"
    gres_name: str = "gpu"
    gpu16_constraint: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    clusters: str = ""
    constraint: str = ""
    hours: float | None = None
    notice_seconds: int = 120
    modules: tuple[str, ...] = ()
    setup: str = ""
    container: tuple[str, ...] = ()
    python: str = ""
    root: str = ""
    scratch: str = ""
    interface: str = ""
    sbatch: tuple[str, ...] = ()
    file: Path | None = field(default=None, metadata={"key": False})


def read_site(environment: Mapping[str, str] = os.environ) -> Site:
    """Return this user's site.

    Args:
        environment: Names the file, and holds the user's own defaults for sbatch.

    Raises:
        InputError: The file that is named is missing, or its content is wrong.
    """
    named = environment.get(SITE_VARIABLE, "")
    home = environment.get("HOME", "")
    site = Site()
    if named:
        path = existing_file(_expanded(named), f"site file (${SITE_VARIABLE})").absolute()
        site = parse_site(path)
    elif home and (Path(home) / _USUAL_PLACE).is_file():
        site = parse_site(Path(home) / _USUAL_PLACE)
    own: dict[str, Any] = {
        name: environment[variable]
        for name, variables in _USERS_OWN.items()
        for variable in reversed(variables)
        if environment.get(variable) and not getattr(site, name)
    }
    return replace(site, **own)


def unused_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the user's defaults for sbatch that are not taken over."""
    used = {variable for variables in _USERS_OWN.values() for variable in variables}
    return sorted(name for name in environment if name.startswith("SBATCH_") and name not in used)


def parse_site(path: Path) -> Site:
    """Return the site that a file describes."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{error.strerror}", path=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: {error.reason} at byte {error.start}", path=path) from None
    except (ValueError, RecursionError) as error:  # ValueError: a number of 5,000 digits
        found = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        message = str(error)[: found.start()] if found else str(error)
        line = int(found[1]) if found else None
        raise InputError(f"not TOML: {message}", path=path, line=line) from None
    keys = {f.name: f for f in dataclasses.fields(Site) if f.metadata.get("key", True)}
    values: dict[str, Any] = {"file": path}
    for name, value in content.items():
        line = _line_of(name, text)
        if name not in keys:
            hint = did_you_mean(name, keys) or f" (known: {', '.join(keys)})"
            raise InputError(f"unknown key {name!r}{hint}", path=path, line=line)
        wanted = _unlike(name, value, str(keys[name].type))
        if wanted:
            shown = repr(value)[:100]
            raise InputError(f"{name} = {shown}: must be {wanted}", path=path, line=line)
        values[name] = tuple(value) if isinstance(value, list) else value
        if name in _PATHS and value:
            values[name] = str(path.parent / _expanded(value))
    if values.get("setup"):
        existing_file(values["setup"], f"{path}: setup")
    return Site(**values)


def _unlike(name: str, value: object, kind: str) -> str:
    """Return what a value must be, when it is not."""
    if kind.startswith("tuple"):
        good = isinstance(value, list) and all(isinstance(word, str) and word for word in value)
        return "" if good else "a list of texts"
    if kind.startswith("str"):
        choices = _CHOICES.get(name)
        if choices and value not in choices:
            return f"one of {', '.join(choices)}"
        plain = isinstance(value, str) and not re.search(r"[\x00-\x1f\x7f]", value)
        return "" if plain else "a text of one line"
    low, high = _LIMITS[name]
    kinds, what = (int, "a whole number") if kind == "int" else ((int, float), "a number")
    number = value if isinstance(value, kinds) and not isinstance(value, bool) else math.nan
    return "" if low <= number <= high else f"{what} from {low:.3g} to {high:g}"


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 (Path's raises for an unknown user)


def _line_of(name: str, text: str) -> int | None:
    """Return the line that gives a key, or opens a table of its name."""
    key = rf"[\"']?{re.escape(name)}[\"']?"
    found = re.search(rf"^[ \t]*(?:{key}[ \t]*[.=]|\[+[ \t]*{key})", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else None
