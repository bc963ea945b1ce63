"""What the scripts make of SLURM's answers: whose the job's fate is."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS

FUNCTIONS = Path(__file__).parents[2] / "slurm" / "functions.bash"
RUNNING = (Path(__file__).parents[1] / "data" / "slurm" / "running.txt").read_text(encoding="utf-8")
NOW, LATER = "2026-11-23T02:02:05", "2026-11-23T02:08:05"


def fate(tmp_path, *, restart=0, left="9:00", silent=False, **fields):
    """Run the function on a job of these fields."""
    text = re.sub(r" (?=[A-Z]\w*=)", "\n   ", RUNNING, count=3)  # as without --oneliner
    fields = {
        "JobState": "RUNNING",
        "Restarts": 0,
        "PreemptTime": "None",
        "EndTime": LATER,
    } | fields
    for name, value in fields.items():
        if f" {name}=" in text:
            text = re.sub(rf" {name}=\S*", f" {name}={value}", text, count=1)
        else:
            text += f"   {name}={value}\n"
    (tmp_path / "job").write_text(text)
    programs = {"scontrol": "exit 1" if silent else "cat job", "squeue": f"echo {left}"}
    code = "sleep() { :; }; ask_fate; echo $fate; superseded && echo superseded"
    return run(tmp_path, code, programs, SLURM_RESTART_COUNT=str(restart)).split()


def run(tmp_path, code, programs, **variables):
    """Run code with the functions, and programs in the place of SLURM's."""
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "41",
        "W2LTUNE_PYTHON": "python3", "W2LTUNE_STUDY": str(tmp_path), "W2LTUNE_SCRATCH": "",
        "SLURMD_NODENAME": "n1", "W2LTUNE_INTERFACE": "", **variables,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", f"W2LTUNE_PREFIX=(); . {FUNCTIONS}; {code}"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["ours"]),  # a notice
        ({"restart": 2, "Restarts": 2}, ["ours"]),
        ({"JobState": "COMPLETING"}, ["cancelled"]),
        ({"JobState": "CANCELLED"}, ["cancelled"]),
        ({"JobState": "PENDING", "Restarts": 1}, ["requeued", "superseded"]),
        ({"JobState": "COMPLETING", "Restarts": 1}, ["requeued", "superseded"]),
        # The run was frozen, and the next one is at work meanwhile.
        ({"JobState": "RUNNING", "Restarts": 1}, ["requeued", "superseded"]),
        ({"JobState": "COMPLETED", "Restarts": 1}, ["requeued", "superseded"]),
        ({"JobState": "COMPLETING", "PreemptTime": NOW, "EndTime": NOW}, ["ours"]),
        ({"JobState": "COMPLETING", "left": "0:00"}, ["ours"]),
        ({"silent": True}, ["unknown"]),
    ],
)
def test_whose_fate_it_is(tmp_path, fields, expected):
    assert fate(tmp_path, **fields) == expected


@pytest.mark.parametrize(
    ("names", "there"), [("exit 1", True), ("echo n2", True), ("echo n3", False)]
)
def test_a_node_is_lost_only_when_slurm_says_so(tmp_path, names, there):
    scontrol = f'[ "$2" = job ] && echo "JobId=1\n   JobState=RUNNING NodeList=n2" || {names}'
    said = run(tmp_path, "has_node n2 && echo there", {"scontrol": scontrol})
    assert said == ("there\n" if there else "")


def test_a_step_without_gpus_does_not_inherit_that_the_job_asks_for_them(tmp_path):
    gpus = {"SLURM_GPUS_PER_NODE": "4", "SLURM_GPUS": "4", "SLURM_MEM_PER_GPU": "9"}
    srun = (
        "echo $SLURM_EXPORT_ENV $RAY_AUTH_TOKEN ${!SLURM_GPUS*} $SLURM_GPUS $SLURM_MEM_PER_GPU $*"
    )
    srun = f"exec bash -c '{srun}' srun \"$@\""
    step = run(tmp_path, "small_step true", {"srun": srun}, **gpus, RAY_AUTH_TOKEN="another")
    assert step == "ALL --overlap --ntasks-per-node=1 --cpus-per-task=1 --gres=none true\n"
