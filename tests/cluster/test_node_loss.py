"""Nodes that die or hang under a study of trainings, on a real SLURM."""

from __future__ import annotations

import time

import pytest
from bed import Cluster
from bedfiles import Settings
from trainings import training, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("slurm", [Settings(slurmd_timeout_seconds=5)], indirect=True),
]


def test_a_dead_node_takes_only_its_trainings_which_go_on(slurm: Cluster) -> None:
    sweep = training(slurm, "node", "--ngpu=1", "--nodes=2", trials=4)
    sweep.submit()
    wait_for(sweep.has_epochs(4, 3))  # one on each GPU
    (lost,) = {1, 2} - {sweep.head()}
    slurm.kill_node(lost)
    slurm.wait(sweep.job, "COMPLETED", 240)
    sweep.is_whole(4, 300)
    launches = [trial.attempt for trial in sweep.results()]
    assert sorted(launches)[:2] == [1, 1]  # the other node's were not touched
    assert max(launches) > 1


def test_a_dead_head_node_requeues_the_job_and_a_training_on_two_nodes_goes_on(
    slurm: Cluster,
) -> None:
    run = training(slurm, "head", "--ngpu=4")
    run.submit()
    wait_for(run.has_epochs(1, 4))
    head = run.head()
    slurm.kill_node(head)
    slurm.wait(run.job, "COMPLETED", 300, restarts=1)
    run.is_whole(1, 300)
    assert int(slurm.job(run.job)["Restarts"]) == 1


def test_a_node_that_hung_writes_nothing_beside_the_one_that_took_over(slurm: Cluster) -> None:
    run = training(slurm, "hung", "--ngpu=2")
    run.submit()
    wait_for(run.has_epochs(1, 4))
    old = run.head()
    first = run.study / "001_log"
    slurm.freeze_node(old)
    slurm.run(["scontrol", "requeue", str(run.job)])
    wait_for(lambda: (run.study / "002_log").exists() and run.epochs()[0] >= 8, 240)
    assert run.head() != old
    before = first.read_text()
    slurm.thaw_node(old)
    began = time.monotonic()
    wait_for(lambda: not any("fl_asr_train" in line for line in slurm.processes(old)), 10)
    wait_for(lambda: not any("w2ltune.train" in line for line in slurm.processes(old)), 30)
    print(f"the old node is quiet after {time.monotonic() - began:.1f} s")
    assert first.read_text() == before
    slurm.wait(run.job, "COMPLETED", 240, restarts=1)
    run.is_whole(1, 300)
    assert int(slurm.job(run.job)["Restarts"]) == 1  # the old one asked for nothing
    assert not (run.study / "slurm" / "cluster.json").exists()
