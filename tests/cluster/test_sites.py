"""SLURM as sites have it: wrappers around the real programs, other options, other environments."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from bed import Cluster
from rayjobs import Bench
from trainings import Training, training
from waiting import wait_for

pytestmark = pytest.mark.slow

HOLD = "--sbatch=--hold"
"""A job that is submitted only."""

DOWN = 'echo "slurm_load: error: Unable to contact slurm controller" >&2; exit 1'
OTHER_CLUSTER = """\
[ "$1" = --clusters=big ] || { echo "$0: error: Invalid job id specified" >&2; exit 1; }
shift
exec {program} "$@"
"""


def site(slurm: Cluster, name: str, programs: Mapping[str, str]) -> dict[str, str]:
    """Put programs of a site before SLURM's; return the environment that finds them."""
    folder = slurm.folder / name
    folder.mkdir()
    for program, body in programs.items():
        real = slurm.run(["which", program]).stdout.strip()
        path = folder / program
        path.write_text("#!/bin/bash\n" + body.replace("{program}", real), encoding="utf-8")
        path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def refused(run: Training) -> str:
    done = run.slurm.run(run.command, environment=run.environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr


@pytest.mark.slow(seconds=20)
def test_sbatch_that_says_more_on_one_of_several_clusters(slurm: Cluster) -> None:
    run = training(slurm, "words", "--ngpu=1", HOLD)
    answer = 'id=$({program} "${@/#--clusters*/--verbose}") || exit; echo "Welcome"; '
    programs = {
        "sbatch": answer + 'echo "$id;big"; echo "You have 90 hours left"',
        **dict.fromkeys(("squeue", "scontrol", "scancel"), OTHER_CLUSTER),
    }
    run.environment |= site(slurm, "words.bin", programs)
    job = run.submit()
    assert f"scancel --clusters=big {job}" in refused(run)
    assert f"job {job} of root (PENDING" in run.w2ltune("status")[1]
    assert f"stopped job {job}" in run.w2ltune("stop")[1]
    assert run.submit() > job


@pytest.mark.slow(seconds=20)
def test_a_job_whose_number_is_not_told_is_not_submitted_twice(slurm: Cluster) -> None:
    run = training(slurm, "mute", "--ngpu=1", HOLD)
    quiet = {"sbatch": '{program} "$@" >/dev/null && echo Thanks'}
    run.environment |= site(slurm, "mute.bin", quiet)
    job = run.submit()  # squeue shows the script
    assert f"has job {job} of root" in refused(run)
    slurm.run(["scancel", str(job)])
    (run.study / "sweep.json").write_text('{"task": "train"}')  # found out before the queue
    assert "no request of this program; use another folder" in refused(run)
    (run.study / "sweep.json").unlink()
    (run.study / "001_model_last.bin").touch()
    assert "holds a training already (001_model_last.bin)" in refused(run)
    (run.study / "001_model_last.bin").unlink()
    run.environment |= site(slurm, "down.bin", {**quiet, "squeue": "exit 0"})
    assert "sbatch names no job ('Thanks')" in refused(run)
    assert "but sbatch named no job ('Thanks')" in refused(run)
    assert len(slurm.run(["squeue", "--noheader"]).stdout.splitlines()) == 1


@pytest.mark.slow(seconds=30)
def test_a_job_whose_steps_would_have_no_environment_no_names_and_another_token(
    slurm: Cluster,
) -> None:
    hold = slurm.folder / "hold"
    hold.touch()
    nameless = '[ "$2" != hostnames ] || exit 127; exec {program} "$@"'
    path = site(slurm, "nameless.bin", {"scontrol": nameless})["PATH"]
    job = Bench(slurm=slurm).stand_in(
        "odd", 1, "count", nodes=2,
        directives=["--gres=none", "--gpus-per-node=1", "--export=NONE"],
        assignments=[
            "W2LTUNE_GPUS=1", f"PATH={path}", f"export PYTHONPATH={Path(__file__).parents[2]}",
            "export W2LTUNE_DASHBOARD=0 W2LTUNE_NODES_SECONDS=900 RAY_AUTH_TOKEN=another",
        ],
    )  # fmt: skip
    job.says("driver begins")
    assert any("sentinel" in line for n in (1, 2) for line in slurm.processes(n))
    hold.unlink()
    slurm.wait(job.number, "COMPLETED")
    assert "nodes 2 GPUs 2" in job.output
    assert "no early notice" not in job.output


@pytest.mark.slow(seconds=20)
def test_a_setup_that_fails_ends_the_job_with_its_line(slurm: Cluster) -> None:
    run = training(slurm, "setup", "--ngpu=1")
    folder = run.study.parents[2]
    (folder / "setup.sh").write_text(
        'conda() { echo "EnvironmentNameNotFound: $2" >&2; return 1; }\n'
        "[ -e /none ] && echo none\n\nconda activate asr\n"
    )
    (folder / "site.toml").write_text('setup = "setup.sh"\n')
    run.environment["W2LTUNE_SITE"] = str(folder / "site.toml")
    job = run.submit()
    shown = slurm.wait(job, "FAILED")
    assert (shown["Restarts"], shown["ExitCode"]) == ("0", "2:0")
    said = f"exit code 1 in {folder}/setup.sh, line 4: conda activate asr\n"
    assert said in run.output() and "EnvironmentNameNotFound: asr" in run.output()
    assert f"ended: the set-up of the site failed with {said}" in run.w2ltune("status")[1]


OWNER = """
import os, sys, time
from pathlib import Path
from w2ltune.runs.lock import StudyLock, this_process
study = Path(sys.argv[1])
study.mkdir(parents=True)
StudyLock(study / "lock", this_process()).acquire()
time.sleep(1000)
"""


@pytest.mark.slow(seconds=25)
def test_a_run_in_a_job_of_ones_own_is_gone_on_with_once_the_job_is_over(slurm: Cluster) -> None:
    run = training(slurm, "own", "--ngpu=1", HOLD)
    program = slurm.folder / "owner.py"
    program.write_text(OWNER)
    script = slurm.folder / "own.sbatch"
    script.write_text(f"#!/bin/bash\n{sys.executable} {program} '{run.study}'\n")
    own = slurm.run(["sbatch", "--parsable", str(script)]).stdout.strip()
    wait_for((run.study / "lock" / "000001.json").exists)
    assert f"SLURM shows job {own} of root (RUNNING on n" in refused(run)
    before = dict(run.environment)
    run.environment |= site(slurm, "no slurm.bin", dict.fromkeys(("scontrol", "squeue"), DOWN))
    slurm.run(["scancel", "--signal=KILL", "--full", own])
    slurm.wait(own, ("FAILED", "CANCELLED"))
    assert "SLURM does not say whether that job is over" in refused(run)
    run.environment = before
    job = run.submit()
    assert re.search(r'"released": true', (run.study / "lock" / "000002.json").read_text())
    run.environment |= {"PATH": f"{slurm.folder}/no slurm.bin:{os.environ['PATH']}"}
    code, said = run.w2ltune("status")
    assert code == 0
    assert f"  job {job}: SLURM does not answer (scontrol: Unable to contact" in said
    assert "trials: 0 finished" in said
    code, said = run.w2ltune("stop")
    assert code == 2
    assert f"scancel {job}" in said
