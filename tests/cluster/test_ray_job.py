"""The sbatch scripts on a real SLURM: what ends a run early, and what ends a job for good."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bed import Cluster
from bedfiles import REPOSITORY, Settings

pytestmark = pytest.mark.ray

SCRIPTS = REPOSITORY / "slurm"
SHORT = Settings(grace_seconds=10, slurmd_timeout_seconds=15, kill_wait_seconds=10)

DRIVER = '''
"""Behaves as a sweep does: a result a second up to a total, 0 when there are all, 75 when told."""
import os, signal, sys, time
from pathlib import Path
study, total, behaviour = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
told = []
if "deaf" not in behaviour:
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, frame: told.append(number))
assert os.environ["RAY_AUTH_MODE"] == "token"
print("driver begins at", os.environ["RAY_ADDRESS"], flush=True)
if "count" in behaviour:
    import ray
    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False)
    resources = ray.cluster_resources()
    print("nodes", len(ray.nodes()), "GPUs", int(resources["GPU"]), flush=True)
if "die" in behaviour:
    os.kill(os.getpid(), signal.SIGSEGV)
for word in behaviour:
    if word.isdigit():
        sys.exit(int(word))
while len(done := list(study.glob("trials/*/result.json"))) < total:
    time.sleep(1)
    if told:
        print("driver was told", flush=True)
        sys.exit(75)
    if "idle" not in behaviour:
        folder = study / "trials" / f"{len(done):04d}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
print("driver is done", flush=True)
'''


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of a study, and what it leaves behind."""

    slurm: Cluster
    study: Path
    number: str
    begun: float = field(default_factory=time.monotonic)

    @property
    def output(self) -> str:
        path = self.study / "slurm" / f"{self.number}.out"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def says(self, text: str, times: int = 1, seconds: float = 60) -> None:
        """Wait until the output has a text so often."""
        end = time.monotonic() + seconds
        while self.output.count(text) < times:
            assert time.monotonic() < end, f"{text!r} not in:\n{self.output}"
            time.sleep(0.1)

    def ends(
        self, state: str = "COMPLETED", seconds: float = 120, restarts: int = 0, alone: bool = True
    ) -> str:
        """Wait for the end of the job and return its output; nothing of it may be left.

        With ``alone`` it must be the only job, as not all of Ray's processes tell whose they are.
        """
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL")
        shown = self.slurm.wait(self.number, ended, seconds, restarts=restarts)
        print(f"{time.monotonic() - self.begun:.0f} s")
        assert shown["JobState"] == state, self.output
        assert int(shown["Restarts"]) == restarts, self.output
        self.left_nothing(alone=alone)
        return self.output

    def left_nothing(self, *, alone: bool) -> None:
        """Assert that no process, folder or secret of this job is left anywhere."""
        end = time.monotonic() + 10
        while left := [f"n{n}: {p}" for n in (1, 2, 3, 4) for p in self._left(n, alone)]:
            assert time.monotonic() < end, left
            time.sleep(0.2)
        for n in (1, 2, 3, 4):
            found = self.slurm.run(
                [
                    "srun",
                    "--immediate=5",
                    f"--nodelist=n{n}",
                    "sh",
                    "-c",
                    "ls -d /tmp/r*; ls /dev/shm",
                ]
            )
            assert f"/tmp/r{self.number}." not in found.stdout
        slurm = self.study / "slurm"
        assert not alone or not (slurm / "cluster.json").exists()
        assert not list(slurm.glob(f".token-{self.number}.*"))

    def _left(self, n: int, alone: bool) -> list[str]:
        try:
            lines = self.slurm.processes(n)
        except KeyError:  # without power
            return []
        marks = [f"/tmp/r{self.number}.", f"job{int(self.number):05}/slurm_script"]
        marks += ["ray", "driver.py", "cluster/guard", "sentinel"] if alone else []
        return [line for line in lines if any(mark in line for mark in marks)]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Submits jobs for studies of its own."""

    slurm: Cluster

    def job(
        self,
        name: str,
        *command: object,
        directives: Sequence[str] = (),
        assignments: Sequence[str] = (),
        script: str = "ray_cluster.sbatch",
        nodes: int = 1,
    ) -> Job:
        """Fill a script by hand and submit it."""
        study = self.slurm.folder / name
        (study / "slurm").mkdir(parents=True, exist_ok=True)
        directives = [
            "--partition=low", f"--nodes={nodes}", "--ntasks-per-node=1", "--cpus-per-task=2",
            "--gres=gpu:1", f"--output={study}/slurm/%j.out", *directives,
        ]  # fmt: skip
        assignments = [
            f"W2LTUNE_STUDY={shlex.quote(str(study))}",
            f"W2LTUNE_PYTHON={shlex.quote(sys.executable)}",
            f"W2LTUNE_COMMAND=({shlex.join(map(str, command))})",
            f"W2LTUNE_NEED_NODES={nodes}",
            *assignments,
        ]
        blocks = {
            "# @directives": [f"#SBATCH {shlex.quote(line)}" for line in directives],
            "# @assignments": assignments,
        }
        text = (SCRIPTS / script).read_text(encoding="utf-8")
        for marker, lines in blocks.items():
            text = text.replace(f"{marker}\n", "\n".join([marker, *lines, ""]), 1)
        path = study / "slurm" / script
        path.write_text(text, encoding="utf-8")
        return Job(slurm=self.slurm, study=study, number=self._sbatch(path))

    def stand_in(self, name: str, total: int, *behaviour: object, **options: object) -> Job:
        """Submit the job of a driver that stands for a sweep."""
        driver = self.slurm.folder / "driver.py"
        driver.write_text(DRIVER, encoding="utf-8")
        study = self.slurm.folder / name
        return self.job(name, sys.executable, driver, study, total, *behaviour, **options)  # type: ignore[arg-type]

    def preempt(self, *, nodes: int = 4, seconds: int = 3, node: str = "") -> None:
        """Submit a job that takes the nodes of others."""
        path = self.slurm.folder / "preempt.sbatch"
        path.write_text(f"#!/bin/bash\nsleep {seconds}\n")
        where = [f"--nodelist={node}"] if node else []
        self._sbatch(path, "--partition=high", f"--nodes={nodes}", "--exclusive", *where)

    def _sbatch(self, *arguments: str | Path) -> str:
        path, *options = arguments
        done = self.slurm.run(["sbatch", "--parsable", *options, path])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def bench(slurm: Cluster, request: pytest.FixtureRequest) -> Bench:
    return Bench(slurm=slurm)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


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
