"""What a training is, and the command line of each of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from w2ltune.formats.known_flags import Generation

Mode = Literal["train", "continue", "fork"]

OUR_FLAGS = (
    "rundir", "runname", "tag", "flagsfile", "enable_distributed", "world_rank", "world_size",
    "rndv_filepath", "max_devices_per_node", "logtostderr", "log_dir",
)  # fmt: skip
"""Flags of the binary that are ours to give."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """How the trainings of a study are run.

    Attributes:
        program: The binary, or what else stands before ``train``, ``continue`` or ``fork``.
        generation: Of the binary.
        mode: How a training begins that has no checkpoint of its own.
        model_path: The checkpoint that ``fork`` begins with.
        folder: Where the programs run; paths in flags and lists are relative to it.
        metric: Key of the log that is minimised, as ``dev-WER``.
        nodes: Nodes of one training.
        gpus_per_node: GPUs of each; 0 for one process without.
        cpus_per_rank: Cores of each process.
        stall_minutes: A training without a new line for so long is started again; None for five
            times its longest silence so far.
        keep: Newest snapshots that are kept beside the best ones.
        disk_budget_bytes: Of the study's folder; None for what the disk holds.
        environment: Additions for the processes.
    """

    program: tuple[str, ...]
    generation: Generation = "flashlight"
    mode: Mode = "train"
    model_path: str = ""
    metric: str
    folder: str
    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_rank: int = 1
    stall_minutes: float | None = None
    keep: int = 2
    disk_budget_bytes: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranks_per_node(self) -> int:
        """Processes on each node: one for each GPU."""
        return max(1, self.gpus_per_node)

    @property
    def ranks(self) -> int:
        """Processes of a training."""
        return self.nodes * self.ranks_per_node

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What each node of a training takes of the cluster."""
        node: dict[str, float] = {"CPU": self.ranks_per_node * self.cpus_per_rank}
        if self.gpus_per_node:
            node["GPU"] = self.gpus_per_node
        return [dict(node) for _ in range(self.nodes)]


def rank_arguments(
    job: TrainJob, flags: Mapping[str, str], *, rundir: Path, anew: bool, rank: int, scratch: Path
) -> tuple[str, ...]:
    """Return the command line of one process of a training.

    All flags are given on every start, with an empty ``--flagsfile=``: the binary reads the stored
    one again on ``continue`` and lets it win.

    Args:
        job: The training's study.
        flags: The trial's own flags.
        rundir: Its run directory.
        anew: Begin as ``job.mode`` says, instead of going on from the checkpoint in ``rundir``.
        rank: Of the process.
        scratch: Folder of this launch alone, seen by all nodes.
    """
    if not anew:
        begin = ["continue", str(rundir)]
    elif job.mode == "fork":
        begin = ["fork", job.model_path]
    else:
        begin = ["train"]
    given = {name: value for name, value in flags.items() if name not in OUR_FLAGS}
    if job.generation == "wav2letter":  # its run directory is the two joined
        own = {"rundir": str(rundir.parent), "runname": rundir.name}
    else:
        own = {"rundir": str(rundir)}
    own |= {"logtostderr": "true", "log_dir": str(scratch)}
    if job.ranks > 1:
        own |= {
            "enable_distributed": "true",
            "world_rank": str(rank),
            "world_size": str(job.ranks),
            "rndv_filepath": str(scratch / "rendezvous"),
            "max_devices_per_node": str(job.ranks_per_node),
        }
    else:  # the flags stored in a checkpoint may say otherwise
        own["enable_distributed"] = "false"
    texts = [f"--{name}={value}" for name, value in {**given, **own}.items()]
    return (*job.program, *begin, "--flagsfile=", *texts)
