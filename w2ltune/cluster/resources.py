"""What a job takes of the cluster, in the user's units."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from w2ltune.cluster.site import Site
from w2ltune.cluster.slurmoptions import DecodeSlurmOptions, SlurmOptions
from w2ltune.errors import UsageError

_MOST_HOURS = 24 * 365


@dataclass(frozen=True, kw_only=True)
class SlurmResources:
    """The resources of one job.

    Attributes:
        nodes: Of the job.
        needed_nodes: What one trial needs of them; the job can begin with these.
        gpus_per_node: 0 for none.
        cpus_per_node: Cores.
        gb_per_gpu: Memory for each GPU; None leaves it to SLURM.
        hours: Time limit; None leaves it to SLURM.
        gpu_type: As ``a100``; "" leaves it to the site file.
    """

    nodes: int
    needed_nodes: int
    gpus_per_node: int
    cpus_per_node: int
    gb_per_gpu: float | None = None
    hours: float | None = None
    gpu_type: str = ""

    @property
    def gpus(self) -> int:
        """All GPUs of the job."""
        return self.nodes * self.gpus_per_node

    @property
    def minutes(self) -> int | None:
        """The time limit as SLURM counts it."""
        return None if self.hours is None else max(1, math.ceil(self.hours * 60 - 1e-6))

    @property
    def memory_mb(self) -> int | None:
        """Memory of a node; SLURM's GB has 1024 MB."""
        gb = self.gb_per_gpu
        return None if gb is None else max(1, math.ceil(gb * self.gpus_per_node * 1024))

    @property
    def memory(self) -> str:
        """The same in SLURM's words; "" leaves it to SLURM."""
        mb = self.memory_mb
        return "" if mb is None else f"{mb}M" if mb % 1024 else f"{mb // 1024}G"

    @property
    def time(self) -> str:
        """The time limit in SLURM's words; "" leaves it to SLURM."""
        if self.minutes is None:
            return ""
        days, rest = divmod(self.minutes, 24 * 60)
        return f"{days}-{rest // 60:02}:{rest % 60:02}:00"

    def __str__(self) -> str:
        each = f"{self.gpus_per_node} GPUs and " if self.gpus_per_node else ""
        time = "" if self.hours is None else f", {self.hours:g} hours"
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"{nodes} with {each}{self.cpus_per_node} cores{time}"


def job_resources(options: SlurmOptions, site: Site, *, gpus: int) -> SlurmResources:
    """Return what a command's job takes.

    Args:
        options: Of the command.
        site: Fills in what they do not say.
        gpus: GPUs of one trial, in all; 0 for none.

    Raises:
        UsageError: A value cannot be meant, or the parts do not fit together.
    """
    hours = time_limit(options, site)
    check_gpu_type(options)
    node = options.gpus_per_node or site.gpus_per_node
    given = "gpu" if isinstance(options, DecodeSlurmOptions) else "ngpu"
    if gpus < 0 or (given == "gpu" and gpus > node):
        most = f" and at most {node}, those of a node (--gpus_per_node)" if gpus > 0 else ""
        raise UsageError(f"--{given}={gpus}: must be 0 or more{most}")
    check_whole_nodes(gpus, node)
    needed = max(1, gpus // node)
    nodes = options.nodes or needed
    if nodes < needed:
        raise UsageError(
            f"--nodes={nodes}: {gpus} GPUs take {needed} nodes of {node}; leave --nodes out, or "
            f"give --nodes={needed} or more"
        )
    taken = min(gpus, node)
    if gpus and options.nodes and options.gpus_per_node:
        taken = node
    gb = options.mem_per_gpu
    if gb is not None and not (taken and 0 < gb < math.inf):
        raise UsageError(
            f"--mem_per_gpu={gb:g}: "
            + ("must be above 0" if taken else "the job has no GPU; use --sbatch=--mem=64G")
        )
    return SlurmResources(
        nodes=nodes,
        needed_nodes=needed,
        gpus_per_node=taken,
        cpus_per_node=_cores(options, site, taken),
        gb_per_gpu=gb,
        hours=hours,
        gpu_type=options.gpu_type,
    )


def check_whole_nodes(gpus: int, node: int) -> None:
    """Refuse GPUs of a trial that are more than those of a node, and not those of several.

    Raises:
        UsageError: With the numbers that are meant, perhaps.
    """
    if gpus > node and gpus % node:
        raise UsageError(
            f"--ngpu={gpus}: with {node} GPUs on a node it must be at most {node} or a multiple of "
            f"it, as {gpus - gpus % node} or {gpus - gpus % node + node} (--gpus_per_node)"
        )


def check_gpu_type(options: SlurmOptions) -> None:
    """Refuse what is more than a type."""
    if not re.fullmatch(r"[\w.-]*", options.gpu_type):
        raise UsageError(f"--gpu_type={options.gpu_type}: must be one name, as a100")


def time_limit(options: SlurmOptions, site: Site) -> float | None:
    """Return the hours that a job may run; None leaves it to SLURM.

    Raises:
        UsageError: They cannot be meant.
    """
    if None not in (options.hours, options.hour) and options.hours != options.hour:
        raise UsageError(f"--hours={options.hours:g} and --hour={options.hour:g}: give one of them")
    for name in ("hours", "hour"):
        value = getattr(options, name)
        if value is not None and not 0 < value <= _MOST_HOURS:
            raise UsageError(f"--{name}={value:g}: must be above 0 and at most {_MOST_HOURS}")
    return next((h for h in (options.hours, options.hour, site.hours) if h is not None), None)


def _cores(options: SlurmOptions, site: Site, gpus: int) -> int:
    """Return the cores of a node: given, those of its processes, or the site's for no GPU."""
    if gpus:
        needed = gpus * (options.cpus_per_task or 1)
        usual = gpus * (options.cpus_per_task or site.cpus_per_gpu)
    else:
        needed = options.cpus_per_task or 1
        usual = max(needed, site.cpus_per_node)
    if options.cpu is not None and options.cpu < needed:
        raise UsageError(
            f"--cpu={options.cpu}: a node needs {needed} cores, --cpus_per_task="
            f"{options.cpus_per_task or 1} for each of {max(1, gpus)} processes"
        )
    return options.cpu or usual
