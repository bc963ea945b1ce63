"""What the test cluster is told: its settings, and the configuration files that follow from them.

Nothing of this is installed on the machine: the files exist inside of the cluster's namespaces.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bedusers import account_files

REPOSITORY = Path(__file__).resolve().parents[2]

NODES = 4
CPUS_PER_NODE = 4
GPUS_PER_NODE = 2

NETWORK = "10.77.0"
LOGIN = "login"
ADDRESSES = {LOGIN: f"{NETWORK}.1"} | {f"n{n}": f"{NETWORK}.{10 + n}" for n in range(1, NODES + 1)}

INSIDE = Path("/run/slurm")
"""Configuration, keys, sockets and state: in memory, and visible inside only."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What differs from site to site.

    Attributes:
        grace_seconds: GraceTime of partition low. SLURM looks rarely: 1 to 11 s all become 15 s.
        preempt_mode: What happens to a job of partition low: REQUEUE or CANCEL.
        kill_wait_seconds: From SIGTERM to SIGKILL.
        slurmd_timeout_seconds: SlurmdTimeout, how long a node may be silent. SLURM looks rarely:
            with 5 s a dead node is down after 11 to 13 s.
    """

    grace_seconds: int = 10
    preempt_mode: str = "REQUEUE"
    kill_wait_seconds: int = 30
    slurmd_timeout_seconds: int = 60


def plan(base: Path, logs: Path, settings: Settings) -> dict[str, object]:
    """Return what ``bedinside.py`` has to know.

    The cluster sees this machine's file system, but a private /tmp, and only as much as it needs
    of what ordinary users may not enter (as /root): there the folders of this list are mounted
    into an empty one.

    Args:
        base: The cluster's own folder.
        logs: Where the daemons write.
        settings: Of the cluster.
    """
    needed = [base, REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)]
    covers = {
        folder: cover
        for folder in sorted({*needed, *(folder.resolve() for folder in needed)})
        if (cover := _closed_above(folder))
    }
    return {
        "inside": str(INSIDE),
        "logs": str(logs),
        "login": LOGIN,
        "addresses": ADDRESSES,
        "gpus": GPUS_PER_NODE,
        "files": _files(settings, logs),
        "shared": [str(folder) for folder in covers],
        "covered": sorted({"/tmp"} | {str(cover) for cover in covers.values()}),
    }


def _closed_above(folder: Path) -> Path | None:
    """Return the topmost folder on the way that is private inside, or closed to ordinary users."""
    for above in reversed(folder.parents):
        if above == Path("/tmp") or not above.stat().st_mode & stat.S_IXOTH:
            return above
    return None


def _files(settings: Settings, logs: Path) -> dict[str, str]:
    """Return the content of each file of the folder ``INSIDE``, by name."""
    return {
        "slurm.conf": _slurm_conf(settings, logs),
        "gres.conf": "".join(
            ["AutoDetect=off\n"]
            + [f"Name=gpu File={INSIDE}/dev/gpu{gpu}\n" for gpu in range(GPUS_PER_NODE)]
        ),
        # slurmd loads one of the cgroup plugins whether it is used or not; this one does nothing.
        "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n",
        "epilog": _EPILOG,
        "hosts": "".join(
            f"{address} {name}\n"
            for name, address in {"localhost": "127.0.0.1", **ADDRESSES}.items()
        ),
        **account_files(),
    }


_EPILOG = """\
#!/bin/bash
# Without cgroups SLURM loses the processes that became daemons. They still carry the job's number.
for pid in $(grep -lszx "SLURM_JOB_ID=$SLURM_JOB_ID" /proc/[0-9]*/environ | cut -d/ -f3); do
  [ "$pid" = $$ ] || kill -KILL "$pid" 2>/dev/null
done
exit 0
"""


def _slurm_conf(settings: Settings, logs: Path) -> str:
    nodes = f"n[1-{NODES}]"
    low = {"PreemptMode": settings.preempt_mode, "GraceTime": settings.grace_seconds}
    partition = {"Nodes": nodes, "State": "UP", "MaxTime": "INFINITE", "DefaultTime": 10}
    general = {
        "ClusterName": "bed",
        "SlurmctldHost": f"{LOGIN}({ADDRESSES[LOGIN]})",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        # A requeued job begins one second after its old credential expired; 120 s by default.
        "AuthInfo": f"socket={INSIDE}/munge.sock,cred_expire=5",
        "StateSaveLocation": f"{INSIDE}/state",
        "SlurmdSpoolDir": f"{INSIDE}/spool/%n",
        "SlurmctldPidFile": f"{INSIDE}/slurmctld.pid",
        "SlurmdPidFile": f"{INSIDE}/slurmd.%n.pid",
        "SlurmctldLogFile": logs / "slurmctld.log",
        "SlurmdLogFile": logs / "slurmd.%n.log",
        "SlurmctldDebug": "verbose",
        "SlurmdDebug": "verbose",
        "ProctrackType": "proctrack/linuxproc",  # does not depend on the machine's cgroups
        "Epilog": INSIDE / "epilog",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU",
        "GresTypes": "gpu",
        "SlurmdParameters": "config_overrides",  # more CPUs than there are
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "ReturnToService": 2,
        "SlurmdTimeout": settings.slurmd_timeout_seconds,
        # Each of the two looks at a silent node takes so long.
        "MessageTimeout": max(3, min(10, settings.slurmd_timeout_seconds // 5)),
        "KillWait": settings.kill_wait_seconds,
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": (
            "batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,"
            "bf_interval=1,bf_resolution=1"
        ),
    }
    lines = [
        *({key: value} for key, value in general.items()),
        {
            "NodeName": nodes,
            "NodeAddr": f"{NETWORK}.[11-{10 + NODES}]",
            "CPUs": CPUS_PER_NODE,
            "RealMemory": 4000,
            "Gres": f"gpu:{GPUS_PER_NODE}",
        },
        {"PartitionName": "low", "Default": "YES", "PriorityTier": 1, **low, **partition},
        {"PartitionName": "high", "PreemptMode": "OFF", "PriorityTier": 10, **partition},
    ]
    return "".join(_line(line) for line in lines)


def _line(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items()) + "\n"
