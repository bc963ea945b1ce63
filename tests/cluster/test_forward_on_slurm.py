"""LM forwarding as a SLURM job: by its own ``--partition``, and by the script for one node."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest
from bed import Cluster
from bedfiles import REPOSITORY, Settings
from lmtask import expected_scores, hypotheses, write_dump
from trainings import preempt
from waiting import wait_for

pytestmark = pytest.mark.slow(seconds=60)
ROWS = hypotheses(60)

PROGRAM = """
import os, sys, time
held, hold = int(sys.argv[1]), os.environ["HOLD"]
with open(os.environ["LEDGER"], "a+", encoding="utf-8") as file:
    for line in sys.stdin:
        while os.path.exists(hold) and len(open(file.name).readlines()) >= held:
            time.sleep(0.1)
        print(-len(line.rstrip("\\n")) / 8)
        file.write(line)
        file.flush()
"""
"""It notes what it scores, and stops in the middle until it is released."""


def prepare(folder: Path, held: int) -> tuple[dict[str, str], str]:
    """Write the task to a folder; return the environment and the program's command line."""
    folder.mkdir(parents=True)
    write_dump(folder / "dev clean.lst.hyp", ROWS)
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    (folder / "hold").touch()
    words = [sys.executable, str(folder / "program.py"), str(held)]
    # Files that a command names are a part of what makes its scores: this one changes.
    variables = {"LEDGER": str(folder / "ledger"), "HOLD": str(folder / "hold")}
    return variables, shlex.join(words)


def shards(study: Path) -> int:
    return len(list((study / "shards").glob("[!.]*.npy")))


def preempt_and_release(slurm: Cluster, job: int, folder: Path) -> None:
    preempt(slurm)
    slurm.wait(job, "RUNNING", restarts=1)
    (folder / "hold").unlink()
    slurm.wait(job, "COMPLETED", restarts=1)


def check(folder: Path, workers: int) -> None:
    assert (folder / "dev clean-tr.ppl").read_text() == expected_scores(ROWS)
    different = {text for _, text in ROWS}
    counts = Counter((folder / "ledger").read_text().split("\n")[:-1])
    assert set(counts) == different
    assert sum(counts.values()) <= len(different) + 8 * workers  # those at work at the preemption


# A job that is preempted is cancelled there, at once.
@pytest.mark.parametrize("slurm", [Settings(grace_seconds=0, preempt_mode="CANCEL")], indirect=True)
def test_it_submits_itself_to_two_nodes_and_survives_a_preemption(slurm: Cluster) -> None:
    folder = slurm.folder / "a dump"
    variables, program = prepare(folder, 60)  # of four shards at least
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
    wait_for(lambda: shards(study) >= 3)
    told = slurm.run([sys.executable, "-m", "w2ltune", "status", str(study)]).stdout
    assert re.search(r"shards: \d+ scored", told)
    preempt_and_release(slurm, job, folder)
    check(folder, workers=4)
    assert not (study / "shards").exists()
    output = next((study / "slurm").glob("of-*/*.out")).read_text()
    assert output.count("requeued: SLURM ends this run") == 1
    assert "scored before)" in output
    assert "scores: " in output
    again = slurm.run(command, environment=variables)
    assert (again.returncode, "is there already" in again.stdout) == (0, True)


def test_the_script_for_one_node_survives_a_preemption(slurm: Cluster) -> None:
    folder = slurm.folder / "dump; 'two'"
    variables, program = prepare(folder, 40)
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
    wait_for(lambda: shards(folder / "dev clean-tr") >= 2)
    preempt_and_release(slurm, job, folder)
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
    slurm.wait(job, "FAILED")
    assert slurm.job(job)["ExitCode"] == "2:0"
    assert "no such file" in log.read_text()
