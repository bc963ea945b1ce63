"""The test cluster is what it says: a real SLURM with real nodes, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bed import Cluster, slurm_cluster
from bedfiles import NODES, REPOSITORY, Settings
from waiting import wait_for

pytestmark = pytest.mark.slow(seconds=5)

NAMES = [f"n{n}" for n in range(1, NODES + 1)]


def submit(slurm: Cluster, script: str, *options: str, user: str | None = None) -> str:
    """Submit a bash script and return the job's number."""
    path = slurm.folder / f"script-{time.monotonic_ns()}"
    path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    done = slurm.run(["sbatch", "--parsable", *options, path], user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_step_runs_on_every_node_and_nodes_know_each_other(slurm: Cluster) -> None:
    done = slurm.run(["srun", "-N4", "bash", "-c", "hostname; getent hosts n4; ls /sys/class/net"])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split()
    assert set(NAMES) <= set(lines)
    assert lines.count("10.77.0.14") == NODES


def test_processes_tmp_and_shared_memory_are_a_nodes_own(slurm: Cluster) -> None:
    script = "touch /tmp/$SLURMD_NODENAME /dev/shm/$SLURMD_NODENAME; sleep 1; ls /tmp /dev/shm"
    done = slurm.run(["srun", "-N2", "--label", "bash", "-c", script])
    of_first = [line[3:] for line in done.stdout.splitlines() if line.startswith("0: ")]
    assert of_first.count("n1") == 2 and "n2" not in of_first
    assert not any("n2" in line for line in slurm.processes(1))


def test_jobs_get_gpus_of_their_own(slurm: Cluster) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES; sleep 1"
    output = ["--nodelist=n1", "--gres=gpu:1", f"--output={slurm.folder}/gpu-%j"]
    jobs = [submit(slurm, script, *output) for _ in range(2)]
    for job in jobs:
        slurm.wait(job, "COMPLETED")
    shown = {(slurm.folder / f"gpu-{job}").read_text(encoding="utf-8").strip() for job in jobs}
    assert shown == {"0", "1"}
    both = slurm.run(["srun", "--gres=gpu:2", "bash", "-c", "echo $CUDA_VISIBLE_DEVICES"])
    assert both.stdout.strip() == "0,1"


def test_what_slurm_says_of_a_job_is_told_by_name(slurm: Cluster) -> None:
    name = "mein project/näme: a=1 'b'"
    job = submit(slurm, "exit 3", "--job-name", name, "--comment=x y", "--time=7")
    shown = slurm.wait(job, "FAILED")
    assert shown["JobName"] == name
    assert (shown["Comment"], shown["TimeLimit"], shown["ExitCode"]) == ("x y", "00:07:00", "3:0")
    with pytest.raises(LookupError, match="job 999"):
        slurm.job(999)
    with pytest.raises(AssertionError, match="FAILED"):
        slurm.wait(job, "RUNNING")


def test_ordinary_users_submit_and_share_a_group(slurm: Cluster) -> None:
    job = submit(slurm, "id -un; id -Gn; umask; pwd; touch done; sleep 60", "-oout", user="alice")
    wait_for((slurm.folder / "done").exists)
    said = (slurm.folder / "out").read_text(encoding="utf-8").split()
    assert said == ["alice", "alice", "speech", "0022", str(slurm.folder)]
    assert (slurm.folder / "done").stat().st_uid == 61001
    assert slurm.job(job)["UserId"] == "alice(61001)"
    assert "denied" in slurm.run(["scancel", job], user="bob").stderr
    assert slurm.run(["scancel", job], user="alice").returncode == 0
    slurm.wait(job, "CANCELLED")
    assert "alice" not in Path("/etc/passwd").read_text(encoding="utf-8")


def test_a_command_that_takes_too_long_is_killed(slurm: Cluster) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        slurm.run(["sleep", "31.25"], timeout=0.5)
    wait_for(lambda: "sleep 31.25" not in slurm.run(["ps", "-ef"]).stdout)


@pytest.mark.parametrize("slurm", [Settings(kill_wait_seconds=1)], indirect=True)
def test_reset_ends_all_jobs_and_brings_back_all_nodes(slurm: Cluster) -> None:
    stubborn = submit(slurm, "trap '' TERM; setsid sleep 99 & while :; do sleep 1; done", "-wn2")
    for _ in range(3):
        submit(slurm, "sleep 60", "-N4", "--exclusive")
    slurm.wait(stubborn, "RUNNING")
    slurm.freeze_node(3)
    slurm.kill_node(4)
    slurm.reset()
    assert slurm.run(["squeue", "--noheader"]).stdout == ""
    assert not any("sleep" in line for line in slurm.processes(2))
    assert slurm.run(["srun", "-N4", "true"]).returncode == 0


def test_a_frozen_node_goes_on_after_it_thaws(slurm: Cluster) -> None:
    ticks = slurm.folder / "ticks"
    ticks.touch()
    job = submit(slurm, f"while sleep 0.1; do echo >> {ticks}; done", "--nodelist=n3")
    wait_for(lambda: ticks.stat().st_size > 0)
    slurm.freeze_node(3)
    before = ticks.stat().st_size
    time.sleep(0.5)
    assert ticks.stat().st_size == before
    slurm.thaw_node(3)
    wait_for(lambda: ticks.stat().st_size > before)
    assert slurm.job(job)["JobState"] == "RUNNING"


@pytest.mark.parametrize("slurm", [Settings(slurmd_timeout_seconds=5)], indirect=True)
def test_a_dead_node_takes_its_processes_and_comes_back(slurm: Cluster) -> None:
    job = submit(slurm, "srun sleep 90 & srun --overlap sleep 90; sleep 60", "-N2", "--no-kill")
    slurm.wait(job, "RUNNING")
    second = int(slurm.run(["squeue", "-ho", "%N"]).stdout.strip()[-2])
    wait_for(lambda: any("sleep" in line for line in slurm.processes(second)))
    slurm.kill_node(second)
    assert slurm.processes(second) == []
    wait_for(lambda: slurm.node(second)["State"].startswith("DOWN"), look_seconds=0.3)
    assert slurm.job(job)["JobState"] == "RUNNING"
    slurm.start_node(second)
    wait_for(lambda: slurm.node(second)["State"] in ("IDLE", "MIXED"))
    assert not any("sleep" in line for line in slurm.processes(second))


@pytest.mark.parametrize(
    ("slurm", "ends"),
    [
        (Settings(grace_seconds=0, kill_wait_seconds=1), "requeued"),
        (Settings(grace_seconds=0, kill_wait_seconds=1, preempt_mode="CANCEL"), "PREEMPTED"),
    ],
    indirect=["slurm"],
)
def test_a_job_in_low_makes_room_for_one_in_high(slurm: Cluster, ends: str) -> None:
    low = submit(slurm, "echo run ${SLURM_RESTART_COUNT-first}; sleep 60", "-N4", "--exclusive")
    slurm.wait(low, "RUNNING")
    high = submit(slurm, "sleep 1", "-N4", "--partition=high")
    slurm.wait(high, {"RUNNING", "COMPLETED"})
    if ends == "requeued":
        slurm.wait(low, "RUNNING", restarts=1)
    else:
        slurm.wait(low, ends)


def test_python_finds_this_checkout_on_every_node(slurm: Cluster) -> None:
    program = "import w2ltune; print(w2ltune.__file__)"
    done = slurm.run(["srun", "-N4", sys.executable, "-c", program], user="alice")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(REPOSITORY / "w2ltune" / "__init__.py")] * NODES


def traces(folder: Path) -> list[str]:
    """Return what a cluster would have left on this machine: mounts, interfaces, namespaces."""
    mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    interfaces = [path.name for path in Path("/sys/class/net").iterdir()]
    named = [path.name for path in Path("/run/netns").glob("*")]
    return [
        *(line for line in mounts if str(folder) in line or "/run/slurm" in line),
        *(name for name in interfaces if name == "bridge" or name.startswith("to-n")),
        *(name for name in named if name in NAMES),
    ]


def living(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path, slurm: Cluster) -> None:
    program = (
        "import pathlib, sys, time, bed\n"
        "with bed.slurm_cluster(pathlib.Path(sys.argv[1])) as cluster:\n"
        "    cluster.run(['sbatch', '-N4', '--wrap=srun sleep 600'])\n"
        "    cluster.wait(1, 'RUNNING')\n"
        "    cluster.freeze_node(2)\n"
        "    print('up', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}"},
    ) as owner:
        assert owner.stdout and owner.stdout.readline() == b"up\n"
        processes = psutil.Process(owner.pid).children(recursive=True)
        names = {process.name() for process in processes}
        owner.send_signal(signal.SIGKILL)
    assert {"munged", "slurmctld", "slurmd", "slurmstepd"} <= names
    wait_for(lambda: not any(map(living, processes)))
    assert traces(tmp_path) == []


def test_clusters_one_after_another_and_side_by_side(tmp_path: Path, slurm: Cluster) -> None:
    for n in range(2):
        base = tmp_path / str(n)
        base.mkdir()
        with slurm_cluster(base) as cluster:
            assert cluster.run(["srun", "-N4", "true"]).returncode == 0
    assert traces(tmp_path) == []
    assert slurm.run(["srun", "-N4", "true"]).returncode == 0


@pytest.mark.parametrize(("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")])
def test_without_root_tests_are_skipped_unless_slurm_is_required(
    slurm: Cluster, required: str, outcome: str
) -> None:
    test = f"{__file__}::{test_a_command_that_takes_too_long_is_killed.__name__}"
    done = slurm.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", test],
        user="alice",
        environment={"W2LTUNE_REQUIRE_SLURM": required},
    )
    assert outcome in done.stdout, done.stdout + done.stderr
    assert "needs Linux and root" in done.stdout
