"""Submissions, with small programs in the place of SLURM's that note what they are asked."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS, wait_for

from w2ltune import files
from w2ltune.cluster.jobs import find_job, read_job, run_slurm
from w2ltune.cluster.resources import SlurmResources
from w2ltune.cluster.site import Site
from w2ltune.cluster.slurm import read_template
from w2ltune.cluster.slurmoptions import SlurmOptions
from w2ltune.cluster.status import _own_studies, describe
from w2ltune.cluster.submissions import submissions
from w2ltune.cluster.submit import submit as submit_script
from w2ltune.cluster.submit import submit_command
from w2ltune.errors import InputError, StudyOwnedError, UsageError, W2LTuneError
from w2ltune.runs.lock import StudyLock, current_owner, this_process
from w2ltune.runs.rundir import user_name

RESOURCES = SlurmResources(nodes=2, needed_nodes=1, gpus_per_node=8, cpus_per_node=16)


def submit(study, script, *, user):
    return submit_script(study, script, user=user, resources=RESOURCES)


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_submit(programs, study):
    done = submit(study, "#!/bin/bash\ntrue größe\n", user="alice")
    assert (done.job, done.number) == (41, 1)
    assert done.script == study / "slurm" / "alice-0001.sbatch"
    assert done.script.read_text(encoding="utf-8") == "#!/bin/bash\ntrue größe\n"
    assert stat.S_IMODE(done.script.stat().st_mode) == 0o755  # nobody else may change it
    own = study / "slurm" / "of-alice"
    assert stat.S_IMODE(own.stat().st_mode) == 0o755
    assert own.parent.stat().st_mode & stat.S_ISVTX
    assert programs.asked("sbatch") == ["--parsable", str(done.script), "---"]
    assert submissions(study) == [done]
    record = json.loads(done.record.read_text(encoding="utf-8"))
    assert (record["job"], record["owner"]["pid"]) == (41, os.getpid())
    assert tree(study) == ["slurm/alice-0001.sbatch", "slurm/jobs/0001.json"]


def test_what_a_job_writes_lies_at_home_where_others_could_move_the_folder(
    programs, study, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    study.parent.mkdir(parents=True)
    os.chown(study.parent, -1, 61000)
    study.parent.chmod(0o2775)
    options = SlurmOptions(partition="low", hours=2)
    umask = os.umask(0o022)
    try:
        submit_command("w2ltune.train", [], study=study, options=options, gpus=2, site=Site())
    finally:
        os.umask(umask)
    (done,) = submissions(study)
    home = tmp_path / "home" / ".w2ltune"
    assert done.script.parent.parent == done.own.parent.parent == home
    assert (done.record, done.job) == (study / "slurm" / "jobs" / "0001.json", 41)
    assert {path.stat().st_mode & 0o022 for path in (home, done.own)} == {0}
    assert [path.name for path in (study / "slurm").iterdir()] == ["jobs"]
    script = done.script.read_text(encoding="utf-8")
    assert f"\nW2LTUNE_SLURM={done.script.parent}\n" in script
    assert f"#SBATCH --output={done.own}/{user_name()}-%j.out\n" in script
    assert f"tail -F {done.own}/{user_name()}-41.out\n" in capsys.readouterr().out
    worker = done.script.parent / "workers" / done.script.name
    worker.parent.mkdir()
    worker.write_text(script)
    programs.answer("squeue", out=f"41 {done.script}\n42 {worker}\n43 {home}/other/x.sbatch\n")
    assert list(_own_studies()) == [study]


def test_answers_of_federations_and_remarks(programs, study, capsys):
    programs.answer("sbatch", out="42;cluster\n", err="sbatch: lua: be nice\n")
    assert submit(study, "", user="alice").job == 42
    assert capsys.readouterr().err == "sbatch: lua: be nice\n"


LIVE = ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED"]
ENDED = ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "forgotten"]


@pytest.mark.parametrize("state", LIVE)
def test_a_study_has_one_job(programs, study, state):
    submit(study, "", user="alice")
    programs.job(study, state=state)
    with pytest.raises(StudyOwnedError) as caught:
        submit(study, "", user="bob")
    assert str(caught.value).startswith(f"{study} has job 41 of alice ({state} on n[1-2]) already")
    assert str(caught.value).endswith("scancel 41")
    assert len(submissions(study)) == 1
    assert programs.asked("scontrol") == ["--oneliner", "show", "job", "41", "---"]


@pytest.mark.parametrize("state", ENDED)
def test_a_job_that_has_ended_is_followed(programs, study, state):
    submit(study, "1", user="alice")
    if state != "forgotten":
        programs.job(study, state=state)
    programs.answer("sbatch", out="43\n")
    done = submit(study, "2", user="bob")
    assert [s.job for s in submissions(study)] == [43, 41]
    assert done.script.name == "bob-0002.sbatch"


def test_the_number_of_another_job(programs, study):
    submit(study, "", user="alice")
    programs.job(study, name="other:job")  # numbers began anew
    assert submit(study, "", user="alice").number == 2


def test_an_unknown_state_is_no_licence(programs, study):
    submit(study, "", user="alice")
    programs.answer("scontrol", err="Unable to contact slurm controller (connect failure)", code=1)
    with pytest.raises(UsageError, match=r"^scontrol: Unable to contact slurm controller"):
        submit(study, "", user="alice")


REFUSED = (
    "sbatch: error: invalid partition specified: nope\n"
    "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
)


@pytest.mark.parametrize("there", ["", "check points", "check points/librispeech/tds"])
def test_a_refusal_leaves_nothing(programs, study, tmp_path, there):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    programs.answer("sbatch", err=REFUSED, code=1)
    with pytest.raises(UsageError) as caught:
        submit(study, "", user="alice")
    assert str(caught.value) == (
        "sbatch: invalid partition specified: nope; "
        "Batch job submission failed: Invalid partition name specified"
    )
    kept = [path for path in sorted(tmp_path.rglob("*")) if path.parent != programs.folder]
    assert kept == [path for path in before if path.parent != programs.folder]
    programs.answer("sbatch", out="41\n")
    assert submit(study, "", user="alice").number == 1


def test_a_refusal_keeps_what_was_there(programs, study):
    submit(study, "", user="alice")
    before = tree(study)
    programs.answer("sbatch", err=REFUSED, code=1)
    with pytest.raises(UsageError, match="nope"):
        submit(study, "", user="alice")
    assert tree(study) == before


@pytest.mark.parametrize(("listed", "taken"), [(True, True), (False, False)])
def test_an_answer_that_came_too_late(programs, study, listed, taken):
    words = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
    programs.answer("sbatch", err=words, code=1)
    script = study / "slurm" / "alice-0001.sbatch"
    programs.answer("squeue", out=f"40 /other.sbatch\n41 {script}\n" if listed else "")
    if taken:
        assert submit(study, "", user="alice").job == 41
    else:
        with submitter(study) as command:
            message = command.communicate(timeout=PATIENCE_SECONDS)[1]
        assert command.returncode == 2
        assert "Socket timed out" in message and "look whether there is one" in message
        programs.answer("squeue", out=f"41 {script}\n")  # it had taken it after all
        programs.job(study)
        with pytest.raises(StudyOwnedError, match="has job 41"):
            submit(study, "", user="alice")
        programs.answer("squeue")
        programs.answer("sbatch", out="43\n")
        assert submit(study, "", user="alice").job == 43


@pytest.mark.parametrize(
    ("answer", "job", "cluster"),
    [
        ("Welcome!\nYou have 90 hours\n41\n", 41, ""),
        ("41;big\n\n*** Maintenance on 3 May\n", 41, "big"),
        ("7 days left\nSubmitted batch job 41 on cluster big\n", 41, "big"),
        ("0\n41\n-1\n", 41, ""),
    ],
)
def test_an_answer_among_other_text(programs, study, answer, job, cluster):
    programs.answer("sbatch", out=answer)
    done = submit(study, "", user="alice")
    assert (done.job, done.cluster) == (job, cluster)
    assert submissions(study) == [done]
    programs.job(study)
    with pytest.raises(StudyOwnedError, match=r"scancel (--clusters=big )?41$"):
        submit(study, "", user="alice")
    asked = [f"--clusters={cluster}"] if cluster else []
    assert programs.asked("scontrol") == [*asked, "--oneliner", "show", "job", "41", "---"]


def test_a_job_without_a_number_is_not_forgotten(programs, study):
    programs.answer("sbatch", out="Submitted?\n")
    with pytest.raises(UsageError, match=r"^sbatch names no job \('Submitted\?'\), and squeue"):
        submit(study, "", user="alice")
    programs.answer("sbatch", out="43\n")
    assert "  a job without a known number: not found" in describe(study)
    record = study / "slurm" / "jobs" / "0001.json"
    with pytest.raises(StudyOwnedError, match=rf"named no job .*remove {record}$"):
        submit(study, "", user="alice")
    record.unlink()
    assert submit(study, "", user="alice").job == 43


def test_a_cluster_that_was_asked_for(programs, study):
    programs.answer("sbatch", code=1, err="sbatch: error: Socket timed out\n")
    programs.answer("squeue", out=f"CLUSTER: big\n41 {study}/slurm/alice-0001.sbatch\n")
    done = submit(study, "#SBATCH --clusters=big\n", user="alice")
    assert (done.job, done.cluster) == (41, "big")
    assert programs.asked("squeue")[0] == "--clusters=big"


SUBMIT = """
import sys
from pathlib import Path
from w2ltune.cluster.resources import SlurmResources
from w2ltune.cluster.submit import submit
from w2ltune.errors import run_command

what = SlurmResources(nodes=1, needed_nodes=1, gpus_per_node=0, cpus_per_node=1)
run = lambda a: submit(Path(a[0]), "", user="alice", resources=what).job and 0
sys.exit(run_command(run, sys.argv[1:]))
"""


def submitter(study):
    """Submit in another process, which leads a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", SUBMIT, str(study)], stderr=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip


def test_of_several_at_once_one_submits(programs, study):
    programs.hold("sbatch")
    commands = [submitter(study) for _ in range(3)]
    wait_for(lambda: sum(command.poll() is not None for command in commands) == 2)
    programs.release("sbatch")
    messages = [command.communicate(timeout=PATIENCE_SECONDS)[1] for command in commands]
    assert sorted(command.returncode for command in commands) == [0, 2, 2]
    assert programs.asked("sbatch").count("---") == 1
    assert all(text.count("\n") == 1 and "submitted" in text for text in messages if text)


@pytest.mark.main(seconds=1)
@pytest.mark.parametrize("taken", [True, False])
def test_a_submission_that_was_killed(programs, study, taken):
    programs.hold("sbatch")
    with submitter(study) as command:
        script = study / "slurm" / "alice-0001.sbatch"
        programs.wait_until_asked("sbatch")
        with pytest.raises(StudyOwnedError, match=rf"right now by process {command.pid} of "):
            submit(study, "", user="bob")
        os.killpg(command.pid, signal.SIGKILL)
    programs.release("sbatch")
    programs.answer("sbatch", out="42\n")
    programs.answer("squeue", out=f"41 {script}\n" if taken else "")
    programs.job(study, number=41)
    if taken:
        with pytest.raises(StudyOwnedError, match="has job 41 of alice"):
            submit(study, "", user="bob")
    else:
        done = submit(study, "", user="bob")
        assert (done.number, done.job) == (2, 42)


@pytest.mark.parametrize(("age_seconds", "refused"), [(30, True), (3600, False)])
def test_a_submission_of_another_host_dies_with_time(programs, study, age_seconds, refused):
    done = submit(study, "", user="alice")
    record = json.loads(done.record.read_text(encoding="utf-8"))
    record |= {"job": None, "seconds": time.time() - age_seconds}
    record["owner"]["host"] = "login2"
    done.record.write_text(json.dumps(record), encoding="utf-8")
    if refused:
        with pytest.raises(StudyOwnedError, match="on login2; look with squeue"):
            submit(study, "", user="alice")
    else:
        assert submit(study, "", user="alice").number == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"number": 1}'])
def test_a_damaged_record(programs, study, text):
    done = submit(study, "", user="alice")
    done.record.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"0001\.json: .*remove"):
        submit(study, "", user="alice")


def test_a_study_that_runs_here(programs, study):
    study.mkdir(parents=True)
    lock = StudyLock(study / "lock", this_process())
    lock.acquire()
    with pytest.raises(StudyOwnedError, match=rf": running already \(process {os.getpid()} of "):
        submit(study, "", user="alice")
    lock.release()
    submit(study, "", user="alice")


SILENT = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        *((state, f"SLURM shows job 77 of alice ({state} on n[1-2])") for state in LIVE),
        ("outside", ""),
        ("silent", f"SLURM does not say whether that job is over (scontrol: {SILENT})"),
        *((state, "") for state in ENDED),
    ],
)
def test_an_owner_in_a_job_of_another_kind_is_dead_when_slurm_says_so(programs, study, state, why):
    owner = replace(this_process(), host="n1", node="n1", job_id="77", pid=5, generation=1)
    if state == "outside":  # as a shell of salloc, which outlives the job
        owner = replace(owner, node="")
    (study / "lock").mkdir(parents=True)
    files.write_json(study / "lock" / "000001.json", asdict(owner))
    if state == "silent":
        programs.answer("scontrol", err=SILENT, code=1)
    elif state not in ("forgotten", "outside"):
        programs.job(study, number=77, state=state, name="interactive")
    if why or state == "outside":
        with pytest.raises(StudyOwnedError) as caught:
            submit(study, "", user="alice")
        assert f"SLURM job 77{why and ': '}{why}); wait for it, or stop it" in str(caught.value)
        assert submissions(study) == []
    else:
        submit(study, "", user="alice")
        assert current_owner(study / "lock").released  # for the job, which might not see it


def test_missing_programs(tmp_path, study, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        submit(study, "", user="alice")
    assert str(caught.value) == (
        "sbatch: No such file or directory; give this command on a login node of a SLURM cluster, "
        "or without --partition to run here"
    )
    assert not study.exists()


def test_the_environment_does_not_overrule_the_script(programs, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "other")
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    run_slurm(["sbatch"])
    environment = programs.environment("sbatch")
    assert [line for line in environment if line.startswith(("SBATCH_", "SLURM_"))] == [
        "SLURM_CONF=/etc/slurm/slurm.conf"
    ]


def test_jobs(programs):
    assert read_job(41) is None
    programs.job(Path("/checkpoints/librispeech/tds_lr0.1"))
    assert read_job(41).name == "librispeech:tds_lr0.1"
    programs.answer("squeue", out="7 (null)\n8 /a b/alice-0001.sbatch\n")
    assert find_job({Path("/a b/alice-0001.sbatch")}) == 8
    assert find_job({Path("/a")}) is None


def test_the_whole_command(programs, study, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SBATCH_TIMELIMIT", "5")
    monkeypatch.setenv("SBATCH_QOS", "long")
    options = SlurmOptions(partition="low", hours=2)
    arguments = ["--config=a b.cfg", "--partition=low", "--hours=2"]
    umask = os.umask(0o022)
    tmp_path.chmod(0o2770)
    try:
        code = submit_command(
            "w2ltune.train", arguments, study=study, options=options, gpus=2, site=Site()
        )
        assert os.umask(umask) == 0o007  # as the folder above the study
    finally:
        os.umask(umask)
    assert code == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("SBATCH_TIMELIMIT: not used")
    (done,) = submissions(study)
    script = done.script.read_text(encoding="utf-8")
    assert "\nW2LTUNE_COMMAND=(\n" in script and "\n  '--config=a b.cfg'\n" in script
    assert f"#SBATCH --chdir={tmp_path}\n" in script
    shown = shown.out
    assert "#SBATCH --partition=low\n" in shown
    assert "submitted job 41 (librispeech:tds): 1 node with 2 GPUs and 2 cores, 2 hours\n" in shown
    assert f"script: {done.script}\n" in shown
    assert "squeue --jobs=41\n" in shown
    log = done.script.parent / f"of-{user_name()}" / f"{user_name()}-41.out"
    assert f"tail -F '{log}'\n" in shown
    assert f"python -m w2ltune.collect '--logdir={study.parent}' --prefix=tds --watch\n" in shown


def test_dry_run(programs, study, tmp_path, capsys):
    programs.answer("sbatch", err="sbatch: Job 12 to start at 2026-11-23T02:03:48\n", reads="")
    options = SlurmOptions(partition="low", dry_run=True)
    arguments = ["--dry_run", "--dry-run=true", "--config=a.cfg"]
    before = tree(tmp_path)
    assert submit_command("w2ltune.train", arguments, study=study, options=options, gpus=0) == 0
    shown = capsys.readouterr()
    assert shown.err == "sbatch: Job 12 to start at 2026-11-23T02:03:48\n"
    assert shown.out.startswith("#!/bin/bash\n")
    assert "dry" not in shown.out.split("W2LTUNE_COMMAND=(")[1].split(")")[0]
    assert (programs.folder / "sbatch.read").read_text(encoding="utf-8") == shown.out
    assert programs.asked("sbatch") == ["--test-only", "---"]
    assert [name for name in tree(tmp_path) if not name.startswith("bin/")] == [
        name for name in before if not name.startswith("bin/")
    ]
    assert not study.exists()


def test_dry_run_of_what_is_refused(programs, study, capsys):
    programs.answer("sbatch", err=REFUSED, code=1)
    options = SlurmOptions(partition="nope", dry_run=True)
    with pytest.raises(UsageError, match="invalid partition specified: nope"):
        submit_command("w2ltune.train", [], study=study, options=options, gpus=0)
    assert "#SBATCH --partition=nope\n" in capsys.readouterr().out


def test_templates_are_found():
    assert read_template("ray_cluster.sbatch").startswith("#!/bin/bash\n")
    with pytest.raises(W2LTuneError, match=r"^none\.sbatch is not beside the package"):
        read_template("none.sbatch")


@pytest.mark.main(seconds=1)
def test_a_keyboard_interrupt_leaves_the_record(programs, study):
    # sbatch may have taken the job already: the next submission looks for it.
    programs.hold("sbatch")
    with submitter(study) as command:
        programs.wait_until_asked("sbatch")
        command.send_signal(signal.SIGINT)
        assert command.wait(PATIENCE_SECONDS) == 130
        with contextlib.suppress(ProcessLookupError):  # what the stand-in was waiting for
            os.killpg(command.pid, signal.SIGKILL)
    (left,) = submissions(study)
    assert left.job is None and not left.in_progress()
