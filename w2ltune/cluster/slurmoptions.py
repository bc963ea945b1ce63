"""The options of a SLURM job, shared by all commands that can submit themselves."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from w2ltune.commandline import option
from w2ltune.errors import UsageError
from w2ltune.formats.distributions import parse_float

_OURS = {
    **dict.fromkeys(("output", "o", "error", "e", "open-mode"), "logs lie in the study's folder"),
    **dict.fromkeys(("signal", "requeue", "no-requeue"), "the job is told to stop and requeued"),
    **dict.fromkeys(("array", "a", "wrap", "ntasks", "n"), "the job is one Ray cluster"),
    **dict.fromkeys(("wait", "W", "parsable", "test-only"), "it would not be submitted as usual"),
    **dict.fromkeys(("job-name", "J", "chdir", "D"), "the job is known by it"),
    **dict.fromkeys(("nodes", "N"), "use --nodes"),
    **dict.fromkeys(("ntasks-per-node", "cpus-per-task", "c"), "use --cpu"),
    **dict.fromkeys(("gpus", "G", "gpus-per-node", "gpus-per-task"), "use --ngpu"),
    **dict.fromkeys(("partition", "p"), "use --partition"),
    **dict.fromkeys(("time", "t"), "use --hours"),
}
"""Options of sbatch that may not be given, and why."""

GPUS = ("gres", "gpus", "gpus_per_task")
"""Options of sbatch in whose place one of ours stands."""

_OTHERS = (
    *("mem", "mem_per_cpu", "nodelist", "exclusive", "nice", "dependency", "begin", "deadline"),
    *("licenses", "tmp", "mincpus", "clusters", "export", "priority", "wckey", "switches"),
)
"""What may well be meant for ``--sbatch``."""


def parse_hours(text: str) -> float | None:
    """Return hours, also of a time as SLURM has it; None for what is neither.

    Minutes and seconds alone, as in ``30:00``, could be meant as hours: they are neither.

    Example:
        >>> parse_hours("1-12:30:00"), parse_hours("2:30:00"), parse_hours("0.5")
        (36.5, 2.5, 0.5)
    """
    days = re.fullmatch(r"(\d{1,9})-(\d{1,9})(?::(\d{1,9})(?::(\d{1,9}))?)?", text, re.ASCII)
    parts = days or re.fullmatch(r"()(\d{1,9}):(\d{1,9}):(\d{1,9})", text, re.ASCII)
    if parts is None:
        return parse_float(text)
    day, hour, minute, second = (int(part or 0) for part in parts.groups())
    return day * 24 + hour + minute / 60 + second / 3600


_HOURS = (parse_hours, "a number of hours, or a time as SLURM has it, D-HH:MM:SS")


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What a command asks of SLURM; with ``--partition`` it submits itself."""

    partition: str = option(
        "SLURM partition to submit to; 'default' is the site file's, else SLURM's own", ""
    )
    nodes: int | None = option(
        "nodes of the SLURM job, by default those of one trial. Each has the GPUs that one trial "
        "takes of a node, or --gpus_per_node when that is given too", None, least=1,
    )  # fmt: skip
    gpus_per_node: int | None = option(
        "GPUs of a node; by default the site file's, else 8", None, least=1
    )
    cpus_per_task: int | None = option(
        "cores of each process; there is one for each GPU. By default the site file's, else 1",
        None,
        least=1,
    )
    cpu: int | None = option("cores of each node of the SLURM job, instead", None, least=1)
    mem_per_gpu: float | None = option("memory for each GPU, in GB, of the SLURM job", None)
    gpu_type: str = option("type of the SLURM job's GPUs, as a100", "")
    hours: float | None = option(
        "time limit of the SLURM job, as 36 or 1-12:00:00; it goes on in a next one", None,
        read=_HOURS, also=("time", "timelimit", "walltime"),
    )  # fmt: skip
    hour: float | None = option("the same as --hours", None, read=_HOURS)
    gpu16: bool = option("SLURM nodes with GPUs of 16 GB only", False)
    constraint: str = option("features that the nodes must have, as SLURM takes them", "")
    exclude: str = option("nodes not to be used, as SLURM takes them", "", value="NODES")
    account: str = option("account of the SLURM job", "")
    qos: str = option("quality of service of the SLURM job", "")
    reservation: str = option("reservation of the SLURM job", "")
    comment: str = option("comment of the SLURM job", "")
    mail: str = option("address that is told of the job's end and requeues", "", value="ADDRESS")
    sbatch: str = option(
        "further options of sbatch, as --sbatch='--exclusive --nice=100'", "", value="OPTIONS",
        also=_OTHERS,
    )  # fmt: skip
    dry_run: bool = option("show the SLURM job and what sbatch says to it; do nothing", False)


@dataclass(frozen=True, kw_only=True)
class DecodeSlurmOptions(SlurmOptions):
    """The same for decodes, whose programs are one process on a node."""

    gpu: int = option(
        "GPUs of each node of the SLURM job; each program that is run takes one", 0,
        also=GPUS,
    )  # fmt: skip


def further_options(given: str | Sequence[str], where: str) -> tuple[list[str], list[str]]:
    """Return further words for sbatch, and what their ``--gres`` name, which is added to ours."""
    try:
        words = shlex.split(given) if isinstance(given, str) else list(given)
    except ValueError as error:
        raise UsageError(f"{where}={given!r}: {error}") from None
    if words and not words[0].startswith("-"):
        raise UsageError(f"{where}: {words[0]!r} is no option; write it as --{words[0]}")
    kept, gres = list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        name = re.match(r"--([\w-]+)|-(\w)", word)
        found = name and (name[1] or name[2])
        if found and found in _OURS:
            raise UsageError(f"{where}: {word!r} may not be given, {_OURS[found]}")
        if found == "gres":
            gres.append(word.partition("=")[2] or next(rest, ""))
        else:
            kept.append(word)
    if any(re.match(r"(gres[:/])?gpu\b", part) for part in ",".join(gres).split(",")):
        raise UsageError(
            f"{where}: '--gres={','.join(gres)}' may not be given for GPUs, use --ngpu (--gpu for "
            "decodes), and --gpu_type"
        )
    return kept, gres


def submits(
    options: SlurmOptions, *, local: bool = False, environment: Mapping[str, str] = os.environ
) -> bool:
    """Return whether a command submits itself instead of running here.

    It does not inside of the job that it submitted, where Ray runs already. ``--dry_run`` is never
    a run, wherever it is given.

    Args:
        options: Of the command.
        local: ``--local`` was given.
        environment: Of this process.
    """
    return options.dry_run or bool(options.partition and not local and not in_job(environment))


def in_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process runs on the Ray cluster of a job that was submitted by us.

    ``RAY_ADDRESS`` may be anybody's; the token's file is the job's own.
    """
    job, token = environment.get("SLURM_JOB_ID"), environment.get("RAY_AUTH_TOKEN_PATH", "")
    return bool(job and environment.get("RAY_ADDRESS") and f"/.token-{job}." in token)
