"""Nodes that are added to a sweep that runs, on a real SLURM."""

from __future__ import annotations

import re

import pytest
from bed import Cluster
from bedfiles import Settings
from trainings import Training, preempt, training, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("slurm", [Settings(grace_seconds=10)], indirect=True),
]


def added(sweep: Training, count: int, *options: str) -> list[str]:
    """Add nodes and return their jobs."""
    code, said = sweep.w2ltune("workers", f"--add={count}", *options)
    assert code == 0, said
    return re.findall(r"\d+", re.search(r"submitted jobs? ([\d, ]+):", said)[1])  # type: ignore[index]


def node_of(slurm: Cluster, job: str) -> int:
    return int(slurm.wait(job, "RUNNING")["NodeList"].removeprefix("n"))


def test_added_nodes_join_come_back_and_leave(slurm: Cluster) -> None:
    sweep = training(slurm, "added", "--ngpu=1", "--nodes=1", updates=400, trials=6)
    sweep.submit()
    wait_for(sweep.has_epochs(2, 2))  # what one node holds
    code, said = sweep.w2ltune("workers", "--add=1", "--partition=low", "--dry_run")
    assert code == 0 and "#SBATCH --gres=gpu:2" in said, said
    (worker,) = added(sweep, 1, "--partition=low")
    assert slurm.job(worker)["JobName"] == "project:name_sweep-lr/worker"
    wait_for(sweep.has_epochs(4, 2))
    node = node_of(slurm, worker)
    code, said = sweep.w2ltune("status")
    assert f"added: job {worker} of root (RUNNING on n{node})" in said
    assert "0 finished, running: 0, 1, 2, 3" in said

    # The added node is preempted: its trainings go on later or elsewhere, and it comes back.
    preempt(slurm, nodes=[node])
    slurm.wait(worker, "RUNNING", restarts=1)
    wait_for(lambda: any("TrainTrial" in p for p in slurm.processes(node_of(slurm, worker))))
    # The study's own job is: the added node finds the new head.
    head = sweep.head()
    preempt(slurm, nodes=[head])
    slurm.wait(sweep.job, "RUNNING", restarts=1)
    slurm.wait(sweep.job, "COMPLETED", 240, restarts=1)
    sweep.is_whole(6, 400)
    assert slurm.wait(worker, "COMPLETED", 30)["Restarts"] == "1"
    said = "".join(p.read_text() for p in (sweep.study / "slurm").glob(f"*-{worker}.out"))
    assert said.count("joining the cluster") == 3
    assert "the study is finished: the driver has ended with exit code 0" in said
    code, said = sweep.w2ltune("workers", "--add=1")
    assert code == 2
    assert "it has no SLURM job that is waiting or running" in said


def test_stop_ends_added_nodes_too_and_only_the_owner_of_the_job_adds_some(slurm: Cluster) -> None:
    sweep = training(slurm, "stopped", "--ngpu=1", trials=4)
    sweep.submit(user="alice")
    wait_for(sweep.has_epochs(2, 1))
    code, said = sweep.w2ltune("workers", "--add=1", user="bob")
    assert code == 2
    assert "only alice can add nodes to that cluster" in said
    code, said = sweep.w2ltune("workers", "--add=2", "--hours=0.5", user="alice")
    assert code == 0, said
    workers = re.findall(r"\d+", re.search(r"submitted jobs ([\d, ]+):", said)[1])  # type: ignore[index]
    for worker in workers:
        slurm.wait(worker, "RUNNING")
    shown = slurm.run([*sweep.command[:2], "w2ltune", "status"], user="alice").stdout
    assert shown.splitlines()[0] == str(sweep.study)
    assert shown.count("added: job") == 2
    assert "no study of yours" in slurm.run(
        [*sweep.command[:2], "w2ltune", "status"], user="bob"
    ).stdout  # fmt: skip
    code, said = sweep.w2ltune("stop", user="alice")
    assert code == 0, said
    for job in (sweep.job, *workers):
        slurm.wait(job, "CANCELLED", 30)
    wait_for(lambda: not any("ray" in p for n in (1, 2, 3, 4) for p in slurm.processes(n)), 20)
