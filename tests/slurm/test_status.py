"""``w2ltune status``, ``stop`` and ``workers``, with stand-ins for SLURM's programs."""

import json
import os

import pytest

from w2ltune.__main__ import _dispatch
from w2ltune.cluster.resources import SlurmResources
from w2ltune.cluster.submit import submit
from w2ltune.errors import UsageError
from w2ltune.runs.lock import StudyLock, this_process
from w2ltune.runs.rundir import user_name
from w2ltune.runs.trialdir import TrialDirectory, TrialResult

RESOURCES = SlurmResources(
    nodes=2, needed_nodes=1, gpus_per_node=8, cpus_per_node=16, gb_per_gpu=4, hours=72
)


@pytest.fixture
def submitted(programs, study, monkeypatch):
    """A study whose job 41 runs, of this user."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    submit(study, "", user="alice", resources=RESOURCES)
    programs.job(study)
    text = (programs.folder / "scontrol.out").read_text(encoding="utf-8")
    programs.answer("scontrol", out=text.replace("UserId=alice(", f"UserId={user_name()}("))
    return study


def run(capsys, *arguments):
    code = _dispatch([str(argument) for argument in arguments])
    return code, capsys.readouterr().out


def test_what_is_said_of_a_study(submitted, capsys):
    trials = [TrialDirectory(submitted / "trials", number) for number in range(3)]
    for trial in trials:
        trial.write_flags({"lr": "0.1"})
        trial.begin_attempt()
    trials[2].begin_attempt()
    trials[0].write_result(
        TrialResult(number=0, attempt=1, state="FAIL", value=None, flags={}, reason="x")
    )
    cluster = {"address": "10.0.0.1:20000", "token": "/t/.token", "dashboard_port": 20001}
    own = submitted / "slurm" / f"of-{user_name()}"
    own.mkdir()
    (own / "cluster.json").write_text(json.dumps({**cluster, "node": "n1"}))
    code, said = run(capsys, "status", submitted)
    assert code == 0
    assert f"  job 41 of {user_name()} (RUNNING on n[1-2]), 0 times requeued, partition low" in said
    assert "  trials: 1 finished, interrupted, to go on: 1, 2 (launch 2)" in said
    assert (
        f"  dashboard: ssh -L 20001:127.0.0.1:20001 {user_name()}@n1, then http://127.0.0.1:20001 "
        "with the token in /t/.token" in said
    )
    assert f"'--logdir={submitted.parent}' --prefix={submitted.name} --watch" in said
    lock = StudyLock(submitted / "lock", this_process())
    lock.acquire()
    assert "trials: 1 finished, running: 1, 2 (launch 2)" in run(capsys, "status", submitted)[1]
    lock.release()


def test_all_studies_of_this_user(submitted, programs, capsys):
    scripts = submitted / "slurm"
    programs.answer(
        "squeue",
        out=f"41 {scripts}/alice-0001.sbatch\n42 {scripts}/workers/alice-0001.sbatch\n"
        "43 /else/where/slurm/a.sh\n44 (null)\n",
    )
    said = run(capsys, "status")[1].splitlines()
    assert said[0] == str(submitted)
    assert [line for line in said if not line.startswith(" ")] == [str(submitted)]
    assert f"--user={os.getuid()}" in programs.asked("squeue")
    assert sum("added: job 42" in line or "added: job 41" in line for line in said) == 1


def test_slurm_is_down(submitted, programs, capsys):
    for program in ("scontrol", "squeue"):
        programs.answer(program, err=f"{program}: error: Unable to contact slurm", code=1)
    own = submitted / "slurm" / "of-alice"
    own.mkdir(exist_ok=True)
    (own / "missing.n2").write_text("Exception: no room\n")
    code, said = run(capsys, "status", submitted)
    assert code == 0
    assert "  job 41: SLURM does not answer (scontrol: Unable to contact slurm)" in said
    assert "  missing: n2, where Ray has ended: Exception: no room\n" in said
    assert "trials: 0 finished" in said
    with pytest.raises(UsageError, match=r"not answer .*; scancel 41 ends its job$"):
        run(capsys, "stop", submitted)
    with pytest.raises(UsageError, match=r"squeue: Unable .*; name the study"):
        run(capsys, "status")


def test_without_jobs(programs, study, capsys):
    assert "no study of yours has a SLURM job" in run(capsys, "status")[1]
    (study / "slurm").mkdir(parents=True)
    said = run(capsys, "status", study)[1]
    assert "no SLURM job was submitted for it" in said


def test_how_it_ended(submitted, programs, capsys):
    programs.job(submitted, state="FAILED")
    (submitted / "slurm" / "of-alice" / "finished").write_text(
        "three runs in a row came to nothing\n"
    )
    assert "  ended: three runs in a row came to nothing" in run(capsys, "status", submitted)[1]


def test_stop_ends_the_job_and_what_was_added(submitted, programs, capsys):
    programs.answer("squeue", out=f"42 {submitted}/slurm/workers/alice-0001.sbatch\n")
    code, said = run(capsys, "stop", submitted)
    assert (code, said.count("stopped job 41")) == (0, 2)  # the stand-in knows one answer
    assert programs.asked("scancel") == ["41", "---", "41", "---"]


def test_workers_take_what_the_studys_nodes_take(submitted, programs, capsys):
    programs.answer("sbatch", out="50\n")
    code, said = run(capsys, "workers", "--add=2", "--partition", "cheap", submitted)
    assert code == 0
    assert f"submitted jobs 50, 50: {RESOURCES.gpus_per_node} GPUs" not in said
    assert "submitted jobs 50, 50: 1 node with 8 GPUs and 16 cores each" in said
    script = (submitted / "slurm" / "workers" / f"{user_name()}-0001.sbatch").read_text()
    for line in ("--partition=cheap", "--gres=gpu:8", "--cpus-per-task=16", "--mem=32G"):
        assert f"#SBATCH {line}\n" in script
    assert "--time=" not in script  # that partition has its own
    assert "ray_node() {" in script
    code, said = run(
        capsys, "workers", submitted, "--add=1", "--gpus_per_node=2", "--hours=4", "--gpu_type=a"
    )
    script = (submitted / "slurm" / "workers" / f"{user_name()}-0002.sbatch").read_text()
    for line in ("--gres=gpu:a:2", "--cpus-per-task=4", "--time=0-04:00:00"):
        assert f"#SBATCH {line}\n" in script


def test_a_dry_run_submits_nothing(submitted, programs, capsys):
    asked = len(programs.asked("sbatch"))
    code = _dispatch(["workers", "--add=1", "--dry_run", str(submitted)])
    assert (code, programs.asked("sbatch")[asked:]) == (0, ["--test-only", "---"])
    assert not (submitted / "slurm" / "workers").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--add=1"], "no study is named; give its folder last, as LOGDIR/PREFIX (see --help)"),
        (["--add=0", "STUDY"], "--add=0: must be 1 to 256"),
        (["STUDY"], "missing --add (see --help)"),
        (["--add=x", "STUDY"], "the command line: --add='x': must be a whole number"),
        (["--ad=1", "--add=1", "STUDY"], "unknown option --ad; did you mean 'add'?"),
        (["--add=1", "--nodes=2", "STUDY"], "--nodes=2: each job is one node"),
        (["--add=1", "--gpus_per_node=0", "STUDY"], "--gpus_per_node=0: must be 1 or more"),
        (["--add=1", "--mem_per_gpu=-1", "STUDY"], "--mem_per_gpu=-1: must be above 0"),
        (["--add=1", "--gpu_type=a:4", "STUDY"], "--gpu_type=a:4: must be one name, as a100"),
        (["--add=1", "STUDYs"], "no study there; did you mean 'tds'?"),
        (["--add=1", "STUDY", "more"], "not a flag: "),
    ],
)
def test_what_workers_refuse(submitted, programs, arguments, message):
    before = len(programs.asked("sbatch"))
    given = [argument.replace("STUDY", str(submitted)) for argument in arguments]
    with pytest.raises(UsageError) as caught:
        _dispatch(["workers", *given])
    assert message in str(caught.value)
    assert len(programs.asked("sbatch")) == before


def test_a_refusal_of_slurm_leaves_no_script(submitted, programs):
    programs.answer("sbatch", err="sbatch: error: invalid partition specified: nope\n", code=1)
    with pytest.raises(UsageError, match="invalid partition specified: nope"):
        _dispatch(["workers", "--add=2", str(submitted)])
    assert list((submitted / "slurm" / "workers").iterdir()) == []


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "TIMEOUT"])
def test_there_must_be_a_job_to_join(submitted, programs, state):
    programs.job(submitted, state=state)
    with pytest.raises(UsageError, match="it has no SLURM job that is waiting or running"):
        _dispatch(["workers", "--add=1", str(submitted)])


def test_another_users_cluster_cannot_be_joined(submitted, programs):
    programs.job(submitted)
    text = (programs.folder / "scontrol.out").read_text(encoding="utf-8")
    programs.answer("scontrol", out=text.replace("UserId=alice(", "UserId=someone("))
    with pytest.raises(UsageError, match="only someone can add nodes to that cluster"):
        _dispatch(["workers", "--add=1", str(submitted)])
