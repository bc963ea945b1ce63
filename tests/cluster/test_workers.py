"""Nodes that are added to a sweep that runs, on a real SLURM."""

from __future__ import annotations

import pytest
from bed import Cluster
from trainings import added, preempt, training
from waiting import wait_for


def node_of(slurm: Cluster, job: str) -> int:
    return int(slurm.wait(job, "RUNNING")["NodeList"].removeprefix("n"))


@pytest.mark.slow(seconds=105)
def test_added_nodes_join_come_back_and_leave(slurm: Cluster) -> None:
    sweep = training(slurm, "added", "--ngpu=1", "--nodes=1", trials=4, hold_at=21)
    sweep.submit()
    wait_for(sweep.has_epochs(2, 2), shown=sweep.output, look_seconds=0.2)  # what one node holds
    code, said = sweep.w2ltune("workers", "--add=1", "--partition=low", "--dry_run")
    assert code == 0 and "#SBATCH --gres=gpu:2" in said, said
    (worker,) = added(sweep, 1, "--partition=low")
    assert slurm.job(worker)["JobName"] == "project:name_sweep-lr/worker"
    wait_for(sweep.has_epochs(4, 2), shown=sweep.output, look_seconds=0.2)
    node = node_of(slurm, worker)
    code, said = sweep.w2ltune("status")
    assert f"added: job {worker} of root (RUNNING on n{node})" in said
    assert "0 finished, running: 0, 1, 2, 3" in said

    # The added node is preempted: its trainings go on when it comes back.
    preempt(slurm, nodes=[node])
    slurm.wait(worker, "RUNNING", restarts=1)
    again = node_of(slurm, worker)
    wait_for(lambda: any("TrainTrial" in p for p in slurm.processes(again)), look_seconds=0.2)
    # The study's own job is: the added node finds the new head.
    preempt(slurm, nodes=[sweep.head()])
    slurm.wait(sweep.job, "RUNNING", restarts=1)
    wait_for(lambda: sweep.output(worker).count("joining the cluster") == 3, look_seconds=0.2)
    sweep.release()
    slurm.wait(sweep.job, "COMPLETED", restarts=1)
    sweep.is_whole(4, 120)
    assert slurm.wait(worker, "COMPLETED")["Restarts"] == "1"
    said = sweep.output(worker)
    assert said.count("joining the cluster") == 3
    assert "the study is finished: the driver has ended with exit code 0" in said
    code, said = sweep.w2ltune("workers", "--add=1")
    assert code == 2
    assert "it has no SLURM job that is waiting or running" in said
