"""The sbatch scripts on a real SLURM: what ends a run early, and what ends a job for good."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import pytest
from bed import Cluster
from rayjobs import SHORT, Bench, Job, until

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(slurm: Cluster, request: pytest.FixtureRequest) -> Bench:
    return Bench(slurm=slurm)


short = pytest.mark.parametrize("slurm", [SHORT], indirect=True)


@short
def test_a_cluster_of_two_nodes_runs_to_the_end_and_is_gone(bench: Bench) -> None:
    job = bench.stand_in("two; 'nodes' ü", 2, "count", nodes=2, assignments=["W2LTUNE_GPUS=1"])
    until((job.study / "slurm" / "cluster.json").exists)
    token = next((job.study / "slurm").glob(".token*"))
    assert token.stat().st_mode & 0o777 == 0o600
    output = job.ends()
    assert "nodes 2 GPUs 2\ndriver is done" in output
    assert re.search(r"ssh -L (\d+):127.0.0.1:\1 root@n1", output)
    assert (job.study / "slurm" / "finished").exists()


@short
def test_a_preemption_gives_the_nodes_free_at_once_and_the_same_job_continues(bench: Bench) -> None:
    job = bench.stand_in("preempted", 6, nodes=2)
    job.says("driver begins")
    until((job.study / "trials" / "0001").exists)
    bench.preempt()
    output = job.ends(restarts=1)
    assert "stopping: SLURM ends this run\ndriver was told" in re.sub(r"\[.*?\] ", "", output)
    assert "requeued: SLURM ends this run" in output
    assert output.count("driver begins") == 2
    assert len(list((job.study / "trials").glob("*/result.json"))) == 6


@short
def test_what_is_cancelled_stays_cancelled(bench: Bench) -> None:
    job = bench.stand_in("cancelled", 100)
    job.says("driver begins")
    bench.slurm.run(["scancel", job.number])
    output = job.ends("CANCELLED")
    assert "requeued" not in output
    assert (job.study / "slurm" / "finished").read_text() == "the job was cancelled\n"


@short
def test_an_operator_may_requeue(bench: Bench) -> None:
    job = bench.stand_in("operator", 5)
    job.says("driver begins")
    bench.slurm.run(["scontrol", "requeue", job.number])
    assert "requeued by SLURM" in job.ends(restarts=1)


@short
def test_a_stop_before_the_driver_runs_continues_too(bench: Bench) -> None:
    job = bench.stand_in("early", 1, nodes=2)
    job.says("Ray's head is")
    bench.preempt()
    output = job.ends(restarts=1)
    assert output.count("driver begins") == 1
    assert "requeued: SLURM ends this run" in output


@short
def test_two_jobs_share_a_node(bench: Bench) -> None:
    jobs = [
        bench.stand_in(
            name, 3, "count", directives=["--nodelist=n1"], assignments=["W2LTUNE_GPUS=1"]
        )
        for name in ("one", "other")
    ]
    for job in jobs:
        assert "nodes 1 GPUs 1" in job.ends(alone=job is jobs[1])
    addresses = {re.search(r"begins at (\S+)", job.output)[1] for job in jobs}  # type: ignore[index]
    assert len(addresses) == 2


@dataclass(frozen=True, kw_only=True)
class End:
    """A driver or a Ray that ends by itself, and what becomes of the job."""

    behaviour: object = ""
    assignment: str = ""
    final: int = 1
    restarts: int = 0
    reason: str


_THREE = "three runs in a row came to nothing, the last one: "
ENDS = {
    "done": End(behaviour=0, final=0, reason="the driver has ended with exit code 0"),
    "failed": End(behaviour=1, reason="the driver has ended with exit code 1"),
    "wrong usage": End(behaviour=2, final=2, reason="the driver has ended with exit code 2"),
    "dies": End(
        behaviour="die", restarts=2, reason=f"{_THREE}the driver has ended with exit code 139"
    ),
    "gives up": End(
        behaviour=75, restarts=2, reason=f"{_THREE}the driver has ended with exit code 75"
    ),
    "no network": End(
        assignment="W2LTUNE_INTERFACE=ib7", restarts=2,
        reason=f"{_THREE}Ray's head did not start on n",
    ),
    "no GPUs": End(
        assignment="W2LTUNE_GPUS=7", restarts=2, reason=f"{_THREE}Ray's head died on n"
    ),
    "no Ray": End(
        assignment="W2LTUNE_PYTHON=/usr/bin/python3", restarts=2,
        reason=f"{_THREE}/usr/bin/python3 does not import w2ltune and ray on n",
    ),
}  # fmt: skip


@short
def test_what_ends_by_itself_is_final_at_once_or_the_third_time(bench: Bench) -> None:
    jobs = {
        name: bench.stand_in(name, 100, "idle", end.behaviour, assignments=[end.assignment])
        for name, end in ENDS.items()
    }
    for name, end in ENDS.items():
        state = "FAILED" if end.final else "COMPLETED"
        output = jobs[name].ends(state, restarts=end.restarts, alone=False)
        assert bench.slurm.job(jobs[name].number)["ExitCode"] == f"{end.final}:0"
        assert f"finished: {end.reason}" in output
    jobs["done"].left_nothing(alone=True)


@short
def test_time_limits_continue_as_long_as_something_is_kept(bench: Bench) -> None:
    job = bench.stand_in("limits", 100, "idle", assignments=["W2LTUNE_STOP_SECONDS=20"])
    for run in (1, 2, 3):
        job.says("driver begins", run)
        if run == 2:
            (job.study / "trials" / "0000").mkdir(parents=True)
            (job.study / "trials" / "0000" / "result.json").write_text("{}")
        time.sleep(1)
        bench.slurm.run(["scancel", "--signal=USR1", "--batch", job.number])
    output = job.ends("FAILED", restarts=2)
    assert output.count("requeued: the time limit is near") == 2
    assert "finished: nothing was kept in two time limits" in output


@short
def test_a_driver_that_does_not_stop_is_killed(bench: Bench) -> None:
    job = bench.stand_in("deaf", 100, "deaf", assignments=["W2LTUNE_STOP_SECONDS=2"])
    job.says("driver begins")
    time.sleep(1)
    bench.slurm.run(["scancel", "--signal=USR1", "--batch", job.number])
    job.says("requeued: the time limit is near")
    job.says("driver begins", 2)
    bench.slurm.run(["scancel", job.number])
    job.ends("CANCELLED", restarts=1)


@short
def test_where_requeueing_is_forbidden_a_successor_is_submitted(bench: Bench) -> None:
    job = bench.stand_in("successor", 6, directives=["--no-requeue"])
    job.says("driver begins")
    bench.preempt()
    output = job.ends("FAILED", alone=False)
    found = re.search(r"Submitted batch job (\d+)", output)
    assert found, output
    successor = Job(slurm=bench.slurm, study=job.study, number=found[1])
    assert "the driver has ended with exit code 0" in successor.ends()
    assert len(list((job.study / "trials").glob("*/result.json"))) == 6
