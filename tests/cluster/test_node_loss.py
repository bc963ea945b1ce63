"""Nodes that die or hang under a study of trainings, on a real SLURM."""

from __future__ import annotations

import pytest
from bed import Cluster
from bedfiles import Settings
from trainings import Training, training
from waiting import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("slurm", [Settings(slurmd_timeout_seconds=5)], indirect=True),
]


def start(slurm: Cluster, *options: str, trials: int = 0, update_seconds: float = 0.02) -> Training:
    """Submit trainings, and wait until each has four epochs and is held."""
    run = training(slurm, "study", *options, trials=trials, hold_at=41)
    run.environment["DOUBLE_UPDATE_SECONDS"] = str(update_seconds)
    run.submit()
    wait_for(run.has_epochs(trials or 1, 4), shown=run.output, look_seconds=0.2)
    return run


@pytest.mark.slow(seconds=60)
def test_a_dead_node_takes_only_its_trainings_which_go_on(slurm: Cluster) -> None:
    sweep = start(slurm, "--ngpu=1", "--nodes=2", trials=4)  # one on each GPU
    (lost,) = {1, 2} - {sweep.head()}
    slurm.kill_node(lost)
    wait_for(lambda: slurm.node(lost)["State"].startswith("DOWN"), look_seconds=0.3)
    sweep.release()
    slurm.wait(sweep.job, "COMPLETED")
    sweep.is_whole(4, 120)
    launches = [trial.attempt for trial in sweep.results()]
    assert sorted(launches)[:2] == [1, 1]  # the other node's were not touched
    assert max(launches) > 1


@pytest.mark.slow(seconds=190)
def test_a_dead_head_node_requeues_the_job_and_a_training_on_two_nodes_goes_on(
    slurm: Cluster,
) -> None:
    run = start(slurm, "--ngpu=4")
    slurm.kill_node(run.head())
    run.release()  # there is nobody left to go on
    slurm.wait(run.job, "RUNNING", restarts=1)
    slurm.wait(run.job, "COMPLETED", restarts=1)
    run.is_whole(1, 120)
    assert int(slurm.job(run.job)["Restarts"]) == 1


@pytest.mark.slow(seconds=150)
def test_a_node_that_hung_writes_nothing_beside_the_one_that_took_over(slurm: Cluster) -> None:
    run = start(slurm, "--ngpu=2", update_seconds=0.2)  # two seconds before it would write
    old = run.head()
    first = run.study / "001_log"
    slurm.freeze_node(old)
    run.release()
    slurm.run(["scontrol", "requeue", str(run.job)])
    wait_for(lambda: (run.study / "002_log").exists() and run.epochs()[0] >= 5, shown=run.output)
    assert run.head() != old
    before = first.read_text()
    slurm.thaw_node(old)
    for program in ("fl_asr_train", "w2ltune.train"):
        wait_for(lambda name=program: not any(name in line for line in slurm.processes(old)))
    assert first.read_text() == before
    slurm.wait(run.job, "COMPLETED", restarts=1)
    run.is_whole(1, 120)
    assert int(slurm.job(run.job)["Restarts"]) == 1  # the old one asked for nothing
    assert not (run.study / "slurm" / "of-root" / "cluster.json").exists()
