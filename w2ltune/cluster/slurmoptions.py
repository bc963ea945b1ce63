"""The options of a SLURM job, shared by all commands that can submit themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from w2ltune.commandline import option


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What a command asks of SLURM; with ``--partition`` it submits itself."""

    partition: str = option(
        "SLURM partition to submit to; 'default' is the site file's, else SLURM's own", ""
    )
    nodes: int | None = option(
        "nodes of the SLURM job, by default those of one trial. Each has the GPUs that one trial "
        "takes of a node, or --gpus_per_node when that is given too", None,
    )  # fmt: skip
    gpus_per_node: int | None = option("GPUs of a node; by default the site file's, else 8", None)
    cpus_per_task: int | None = option(
        "cores of each process; there is one for each GPU. By default the site file's, else 1", None
    )
    cpu: int | None = option("cores of each node of the SLURM job, instead", None)
    mem_per_gpu: float | None = option("memory for each GPU, in GB, of the SLURM job", None)
    hours: float | None = option("time limit of the SLURM job; it goes on in a next one", None)
    hour: float | None = option("the same as --hours", None)
    gpu16: bool = option("SLURM nodes with GPUs of 16 GB only", False)
    constraint: str = option("features that the nodes must have, as SLURM takes them", "")
    exclude: str = option("nodes not to be used, as SLURM takes them", "", value="NODES")
    account: str = option("account of the SLURM job", "")
    qos: str = option("quality of service of the SLURM job", "")
    reservation: str = option("reservation of the SLURM job", "")
    comment: str = option("comment of the SLURM job", "")
    mail: str = option("address that is told of the job's end and requeues", "", value="ADDRESS")
    sbatch: str = option(
        "further options of sbatch, as --sbatch='--exclusive --nice=100'", "", value="OPTIONS"
    )
    dry_run: bool = option("show the SLURM job and what sbatch says to it; do nothing", False)


@dataclass(frozen=True, kw_only=True)
class DecodeSlurmOptions(SlurmOptions):
    """The same for decodes, whose programs are one process on a node."""

    gpu: int = option(
        "GPUs of each node of the SLURM job; each program that is run takes one",
        0,
    )


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
