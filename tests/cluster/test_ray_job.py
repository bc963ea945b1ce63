"""The sbatch scripts on a real SLURM: what ends a run early, and what ends a job for good."""

from __future__ import annotations

import re

import pytest
from bed import Cluster
from rayjobs import Bench, Job
from waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(slurm: Cluster) -> Bench:
    return Bench(slurm=slurm)


@pytest.mark.slow(seconds=75)
def test_preempted_before_its_driver_begins_and_at_work_it_continues_to_the_end(
    bench: Bench,
) -> None:
    # In its first run it waits for a node that it has not.
    job = bench.stand_in(
        "two; 'nodes' ü", 2, "count", nodes=2,
        assignments=["W2LTUNE_GPUS=1", "W2LTUNE_DASHBOARD=1",
                     "W2LTUNE_NEED_NODES=$((${SLURM_RESTART_COUNT:-0} ? 2 : 3))"],
    )  # fmt: skip
    wait_for((job.study / "slurm" / "of-root" / "cluster.json").exists)
    token = next((job.study / "slurm" / "of-root").glob(".token*"))
    assert token.stat().st_mode & 0o777 == 0o600
    bench.preempt()
    job.says("requeued: SLURM ends this run")
    assert "driver begins" not in job.output
    wait_for((job.study / "trials" / "0000").exists)
    bench.preempt()
    output = job.ends(restarts=2)
    assert "stopping: SLURM ends this run\ndriver was told" in re.sub(r"\[.*?\] ", "", output)
    assert output.count("requeued: SLURM ends this run") == 2
    assert output.count("driver begins") == 2
    assert "nodes 2 GPUs 2\ndriver is done" in output
    assert "finished: the driver has ended with exit code 0" in output
    assert bench.slurm.job(job.number)["ExitCode"] == "0:0"
    assert len(list((job.study / "trials").glob("*/result.json"))) == 2
    assert re.search(r"ssh -L (\d+):127.0.0.1:\1 root@n\d", output)
    assert (job.study / "slurm" / "of-root" / "finished").exists()


@pytest.mark.slow(seconds=35)
def test_an_operator_may_requeue_and_what_is_cancelled_stays_cancelled(bench: Bench) -> None:
    job = bench.stand_in("cancelled", 100, "idle")
    job.says("driver begins")
    bench.slurm.run(["scontrol", "requeue", job.number])
    job.says("driver begins", 2)
    bench.slurm.run(["scancel", job.number])
    output = job.ends("CANCELLED", restarts=1)
    assert output.count("requeued by SLURM") == output.count("requeued") == 1
    assert (job.study / "slurm" / "of-root" / "finished").read_text() == "the job was cancelled\n"


@pytest.mark.slow(seconds=20)
def test_two_jobs_share_a_node_and_what_fails_is_final_at_once(bench: Bench) -> None:
    hold = bench.slurm.folder / "hold"  # until both are at work
    hold.touch()
    # The exit code 2 is wrong usage.
    jobs = [
        bench.stand_in(
            f"code {code}", 1, "count", code, directives=["--nodelist=n1"],
            assignments=["W2LTUNE_GPUS=1"],
        )
        for code in (1, 2)
    ]  # fmt: skip
    for job in jobs:
        job.says("driver begins")
    hold.unlink()
    for code, job in enumerate(jobs, 1):
        output = job.ends("FAILED", alone=job is jobs[1])
        assert "nodes 1 GPUs 1" in output
        assert bench.slurm.job(job.number)["ExitCode"] == f"{code}:0"
        assert f"finished: the driver has ended with exit code {code}" in output
    addresses = {re.search(r"begins at (\S+)", job.output)[1] for job in jobs}  # type: ignore[index]
    assert len(addresses) == 2


THREE = "three runs in a row came to nothing, the last one: "
ENDS = {  # of three runs: what is assigned, and the reason that is told
    "driver": [
        ("", "the driver has ended with exit code 139"),
        ("", "the driver has ended with exit code 75"),
        ("W2LTUNE_INTERFACE=ib7", f"{THREE}Ray's head did not start on n"),
    ],
    "Ray": [
        ("W2LTUNE_INTERFACE=ib7", "Ray's head did not start on n"),
        (
            "W2LTUNE_PYTHON=/usr/bin/python3",
            "/usr/bin/python3 does not import w2ltune and ray on n",
        ),
        ("W2LTUNE_GPUS=7", f"{THREE}Ray's head died on n"),
    ],
}


@pytest.mark.slow(seconds=45)
def test_what_ends_by_itself_is_final_the_third_time(bench: Bench) -> None:
    jobs = {
        name: bench.stand_in(
            name, 100, "idle", *(["die", 75] if name == "driver" else []),
            assignments=[
                f"[ ${{SLURM_RESTART_COUNT:-0}} != {run} ] || {assignment}"
                for run, (assignment, _) in enumerate(runs)
                if assignment
            ],
        )
        for name, runs in ENDS.items()
    }  # fmt: skip
    for name, job in jobs.items():
        output = job.ends("FAILED", restarts=2, alone=False)
        assert bench.slurm.job(job.number)["ExitCode"] == "1:0"
        told = re.findall(r"\] (?:requeued|finished): (.*)", output)
        for reason, (_, start) in zip(told, ENDS[name], strict=True):
            assert reason.startswith(start), output
    jobs["driver"].left_nothing(alone=True)


@pytest.mark.slow(seconds=55)
def test_time_limits_continue_as_long_as_something_is_kept(bench: Bench) -> None:
    # In the first run the driver does not stop when it is told, and is killed.
    stop = "W2LTUNE_STOP_SECONDS=$((${SLURM_RESTART_COUNT:-0} ? 60 : 2))"
    job = bench.stand_in("limits", 100, "idle", "deaf", assignments=[stop])
    for run in (1, 2, 3):
        job.says("driver begins", run)
        if run == 2:
            (job.study / "trials" / "0000").mkdir(parents=True)
            (job.study / "trials" / "0000" / "result.json").write_text("{}")
        bench.slurm.run(["scancel", "--signal=USR1", "--batch", job.number])
    output = job.ends("FAILED", restarts=2)
    assert output.count("requeued: the time limit is near") == output.count("driver was told") == 2
    assert "finished: nothing was kept in two time limits" in output


@pytest.mark.slow(seconds=45)
def test_where_requeueing_is_forbidden_a_successor_is_submitted(bench: Bench) -> None:
    job = bench.stand_in("successor", 2, directives=["--no-requeue"])
    wait_for((job.study / "trials" / "0000").exists)
    bench.preempt()
    output = job.ends("FAILED", alone=False)
    found = re.search(r"Submitted batch job (\d+)", output)
    assert found, output
    successor = Job(slurm=bench.slurm, study=job.study, number=found[1])
    assert "the driver has ended with exit code 0" in successor.ends()
    assert len(list((job.study / "trials").glob("*/result.json"))) == 2
