import re
from pathlib import Path

import pytest

from w2ltune.cluster.jobs import Job, parse_job
from w2ltune.errors import W2LTuneError

DATA = Path(__file__).parents[1] / "data" / "slurm"
RUNNING = (DATA / "running.txt").read_text(encoding="utf-8")
"""What SLURM 22.05 printed, with other names; nothing in the comment is taken for a field."""


def changed(**fields):
    text = RUNNING
    for name, value in fields.items():
        text = re.sub(rf" {name}=\S*", f" {name}={value}", text, count=1)
    return parse_job(text)


def test_a_running_job():
    job = parse_job(RUNNING)
    assert job == Job(
        number=41,
        name="librispeech:tds_lr0.1",
        user="alice",
        state="RUNNING",
        nodes="n[1-2]",
        partition="low",
        start_time="2026-11-23T02:02:05",
        end_time="2026-11-23T02:08:05",
        exit_code="0:0",
        command="/checkpoints/librispeech/tds_lr0.1/slurm/alice-0001.sbatch",
    )
    assert str(job) == "job 41 of alice (RUNNING on n[1-2])"


def test_a_waiting_job_with_an_awkward_name():
    job = parse_job((DATA / "pending.txt").read_text(encoding="utf-8"))
    assert (job.name, job.user, job.state) == ("pr oj:a JobState=x,b", "bob", "PENDING")
    assert job.command == "/checkpoints/pr oj/a/slurm/bob-0001.sbatch"
    assert str(job) == "job 5 of bob (PENDING, Resources)"


@pytest.mark.parametrize(
    ("what", "fields", "live"),
    [
        ("time limit", {"JobState": "RUNNING"}, True),
        ("preemption", {"JobState": "RUNNING", "Restarts": 3}, True),
        ("scancel", {"JobState": "COMPLETING", "ExitCode": "0:15"}, True),
        ("scontrol requeue", {"JobState": "COMPLETING"}, True),
        ("after a requeue", {"JobState": "PENDING", "Reason": "BeginTime"}, True),
        ("held by an operator", {"JobState": "REQUEUE_HOLD"}, True),
        ("cancelled", {"JobState": "CANCELLED"}, False),
        ("ended by its limit", {"JobState": "TIMEOUT", "Reason": "TimeLimit"}, False),
        ("a lost node", {"JobState": "NODE_FAIL"}, False),
        ("done", {"JobState": "COMPLETED"}, False),
        ("failed", {"JobState": "FAILED", "ExitCode": "1:0"}, False),
    ],
)
def test_states(what, fields, live):
    job = changed(**fields)
    assert job.live == live
    assert job.restarts == fields.get("Restarts", 0)


@pytest.mark.parametrize("text", ["", "No jobs in the system\n"])
def test_no_job(text):
    with pytest.raises(W2LTuneError, match="scontrol shows no job"):
        parse_job(text)
