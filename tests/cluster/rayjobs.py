"""Jobs of the sbatch scripts on the test cluster, with a driver that stands for a sweep."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bed import Cluster
from bedfiles import NODES
from waiting import wait_for

from w2ltune.cluster.slurm import read_template

DRIVER = '''
"""Behaves as a sweep does: a result a run up to a total, 0 when there are all, 75 when told."""
import os, signal, sys, time
from pathlib import Path
study, total, behaviour = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
run = int(os.environ.get("SLURM_RESTART_COUNT", 0))
told = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: told.append(number))
assert os.environ["RAY_AUTH_MODE"] == "token"
print("driver begins at", os.environ["RAY_ADDRESS"], flush=True)
while (study.parent / "hold").exists():
    time.sleep(0.1)

def count():
    import ray
    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False)
    resources = ray.cluster_resources()
    print("nodes", len(ray.nodes()), "GPUs", int(resources["GPU"]), flush=True)

ends = [word for word in behaviour if word == "die" or word.isdigit()]  # of the runs, in order
if ends and (end := (ends * 3)[run]) == "die":
    os.kill(os.getpid(), signal.SIGSEGV)
elif ends:
    "count" in behaviour and count()
    sys.exit(int(end))
finished = lambda: len(list(study.glob("trials/*/result.json")))
if "idle" not in behaviour:
    folder = study / "trials" / f"{finished():04d}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
while finished() < total:
    time.sleep(0.2)
    if told and not (run == 0 and "deaf" in behaviour):
        print("driver was told", flush=True)
        sys.exit(75)
"count" in behaviour and count()
print("driver is done", flush=True)
'''


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of a study, and what it leaves behind."""

    slurm: Cluster
    study: Path
    number: str

    @property
    def output(self) -> str:
        path = self.study / "slurm" / f"{self.number}.out"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def says(self, text: str, times: int = 1) -> None:
        """Wait until the output has a text so often."""
        wait_for(
            lambda: self.output.count(text) >= times,
            shown=lambda: f"{text!r} not {times} times in:\n{self.output}",
            look_seconds=0.1,
        )

    def ends(self, state: str = "COMPLETED", restarts: int = 0, alone: bool = True) -> str:
        """Wait for the end of the job and return its output; nothing of it may be left.

        With ``alone`` it must be the only job, as not all of Ray's processes tell whose they are.
        """
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL")
        shown = self.slurm.wait(self.number, ended, restarts=restarts)
        assert shown["JobState"] == state, self.output
        assert int(shown["Restarts"]) == restarts, self.output
        self.left_nothing(alone=alone)
        return self.output

    def left_nothing(self, *, alone: bool) -> None:
        """Assert that of this job, which has ended, no process, folder or secret is left."""
        nodes = range(1, NODES + 1)
        assert not {n: left for n in nodes if (left := self._left(n, alone))}
        for n in nodes:
            assert not list((self.slurm.root(n) / "tmp").glob(f"r{self.number}.*"))
        slurm = self.study / "slurm" / "of-root"
        assert not alone or not (slurm / "cluster.json").exists()
        assert not list(slurm.glob(f".token-{self.number}.*"))

    def _left(self, n: int, alone: bool) -> list[str]:
        marks = [f"/tmp/r{self.number}.", f"job{int(self.number):05}/slurm_script"]
        marks += ["ray", "driver.py", "cluster/guard", "sentinel"] if alone else []
        return [line for line in self.slurm.processes(n) if any(mark in line for mark in marks)]


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
        text = read_template(script)
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
