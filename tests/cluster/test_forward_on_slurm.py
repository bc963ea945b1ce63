"""LM forwarding as a SLURM job: by its own ``--partition``, and by the script for one node."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from bed import Cluster
from bedfiles import REPOSITORY, Settings
from lmtask import expected_scores, hypotheses, write_dump, write_program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("slurm", [Settings(grace_seconds=15)], indirect=True),
]
ROWS = hypotheses(60)


def wait_for(condition: Callable[[], bool], seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def prepare(folder: Path) -> tuple[dict[str, str], str]:
    """Write the task to a folder; return the environment and the program's command line."""
    folder.mkdir(parents=True)
    write_dump(folder / "dev clean.lst.hyp", ROWS)
    command = shlex.join([sys.executable, str(write_program(folder)), "0.1"])
    return {"LEDGER": str(folder / "ledger")}, command


def preempt(slurm: Cluster, job: int) -> None:
    other = slurm.run(
        ["sbatch", "--parsable", "--partition=high", "--exclusive", "--nodes=4",
         "--output=/dev/null", "--wrap=sleep 3"]
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    slurm.wait(job, {"RUNNING"}, timeout_seconds=90, restarts=1)


def check(folder: Path, workers: int) -> None:
    assert (folder / "dev clean-tr.ppl").read_text() == expected_scores(ROWS)
    different = {text for _, text in ROWS}
    counts = Counter((folder / "ledger").read_text().split("\n")[:-1])
    assert set(counts) == different
    assert sum(counts.values()) <= len(different) + 8 * workers  # those at work at the preemption


def test_it_submits_itself_to_two_nodes_and_survives_a_preemption(slurm: Cluster) -> None:
    folder = slurm.folder / "a dump"
    variables, program = prepare(folder)
    command = [
        sys.executable, "-m", "w2ltune.forward", "--hyp=a dump/dev clean.lst.hyp",
        f"--command={program}", "--shard_sentences=8", "--partition=low", "--hours=1", "--nodes=2",
        "--cpu=2",
    ]  # fmt: skip
    shown = slurm.run([*command, "--dry_run"], environment=variables)
    assert shown.returncode == 0, shown.stderr
    assert "#SBATCH" in shown.stdout
    study = folder / "dev clean-tr"
    assert not study.exists()
    done = slurm.run(command, environment=variables)
    assert done.returncode == 0, done.stderr
    job = int(re.search(r"job (\d+)", done.stdout)[1])
    assert slurm.job(job)["JobName"] == "a dump:dev clean-tr"
    again = slurm.run(command, environment=variables)
    assert (again.returncode, str(job) in again.stderr) == (2, True)
    wait_for(lambda: len(list((study / "shards").glob("[!.]*.npy"))) >= 3)
    told = slurm.run([sys.executable, "-m", "w2ltune", "status", str(study)]).stdout
    assert re.search(r"shards: \d+ scored", told)
    preempt(slurm, job)
    slurm.wait(job, {"COMPLETED"}, timeout_seconds=240, restarts=1)
    check(folder, workers=4)
    assert not (study / "shards").exists()
    output = next((study / "slurm").glob("*.out")).read_text()
    assert "scored before)" in output
    assert "scores: " in output
    again = slurm.run(command, environment=variables)
    assert (again.returncode, "is there already" in again.stdout) == (0, True)


def test_the_script_for_one_node_survives_a_preemption(slurm: Cluster) -> None:
    folder = slurm.folder / "dump; 'two'"
    variables, program = prepare(folder)
    variables["W2LTUNE_PYTHON"] = sys.executable
    script = REPOSITORY / "slurm" / "lm_forward.sbatch"
    log = slurm.folder / "forward.out"
    arguments = [
        "sbatch", "--parsable", "--partition=low", "--cpus-per-task=2", f"--output={log}",
        str(script), str(folder), "dev clean", f"--command={program}", "--shard_sentences=8",
    ]  # fmt: skip
    done = slurm.run(arguments, environment=variables)
    assert done.returncode == 0, done.stderr
    job = int(done.stdout)
    wait_for(lambda: len(list((folder / "dev clean-tr/shards").glob("[!.]*.npy"))) >= 2)
    preempt(slurm, job)
    slurm.wait(job, {"COMPLETED"}, timeout_seconds=240, restarts=1)
    check(folder, workers=2)
    text = log.read_text()
    assert "stopping: SLURM ends this run" in text
    assert "scored before)" in text
    assert not (folder / "dev clean-tr").exists()

    # What is wrong is final.
    done = slurm.run(
        [*arguments[:-4], str(folder), "nothing", "--command=x"], environment=variables
    )
    job = int(done.stdout)
    slurm.wait(job, {"FAILED"}, timeout_seconds=60)
    assert slurm.job(job)["ExitCode"] == "2:0"
    assert "no such file" in log.read_text()
