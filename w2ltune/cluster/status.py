"""``w2ltune status`` and ``w2ltune stop``: the SLURM jobs of studies, seen from outside."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from w2ltune import files
from w2ltune.cluster.jobs import Job, find_jobs, run_slurm
from w2ltune.cluster.site import read_site
from w2ltune.cluster.slurm import FINISHED, HOME_FOLDER, own_folder, slurm_folder
from w2ltune.cluster.submissions import Submission, newest_job, submissions
from w2ltune.cluster.workers import worker_jobs
from w2ltune.errors import UsageError, printable, run_command
from w2ltune.runs.lock import current_owner
from w2ltune.runs.trialdir import TrialDirectory, trial_directories

STATUS_USAGE = """
usage: w2ltune status [STUDY...]

Shows the SLURM jobs of each study (LOGDIR/PREFIX, or a run directory), without one of all studies
of yours that have a job: state, why it waits, nodes, how often it was requeued, nodes that were
added, trials, and where Ray's dashboard is.
"""
STOP_USAGE = """
usage: w2ltune stop STUDY...

Ends the SLURM job of each study for good, with the nodes that were added to it. The command that
began the study goes on from there.
"""


def main(arguments: list[str]) -> int:
    """Print the state of each study that is named, else of all that have a job of this user."""
    studies = _studies(arguments, STATUS_USAGE) if arguments else list(_own_studies())
    for study in studies:
        print(printable("\n".join(describe(study))))
    if not studies:
        print("no study of yours has a SLURM job; name one to see how it ended")
    return 0


def stop_main(arguments: list[str]) -> int:
    """End the jobs of each study that is named.

    Raises:
        UsageError: A study has no job that is waiting or running.
    """
    for study in _studies(arguments, STOP_USAGE):
        try:
            job = newest_job(study)
            jobs = [*([job] if job is not None and job.live else []), *worker_jobs(study)]
        except UsageError as error:
            known = [made for made in submissions(study)[:1] if made.job is not None]
            end = "".join(f"; {shlex.join(made.cancel)} ends its job" for made in known)
            raise UsageError(f"{study}: SLURM does not answer ({error}){end}") from None
        if not jobs:
            raise UsageError(f"{study}: there is no SLURM job to stop{f' ({job})' if job else ''}")
        for live in jobs:
            run_slurm(live.cancel)
            print(f"stopped {live}")
        print("the same command submits it again, and goes on")
    return 0


def describe(study: Path) -> list[str]:
    """Return what there is to say of a study, a line each."""
    lines = [str(study)]
    try:
        job = newest_job(study)
        lines += [*_about_job(study, job), *(f"  added: {worker}" for worker in worker_jobs(study))]
    except UsageError as error:
        job = None
        lines += [f"  {_submitted(made)}: SLURM does not answer ({error}); the rest is of its files"
                  for made in submissions(study)[:1]]  # fmt: skip
    lines += _reasons(study, job)
    shards = list((study / "shards").glob("[!.]*.npy"))
    done = f"shards: {len(shards)} scored" if shards else f"trials: {_trials(study, job)}"
    lines.append(f"  {done}")
    if job is not None and job.state == "RUNNING":
        lines += _dashboard(own_folder(study, job.user) / "cluster.json", job)
    if job is not None and job.live:
        watch = ["python", "-m", "w2ltune.collect", f"--logdir={study.parent}"]
        lines.append(f"  watch: {shlex.join([*watch, f'--prefix={study.name}', '--watch'])}")
    return lines


def _dashboard(path: Path, job: Job) -> Iterator[str]:
    """Say where Ray's dashboard is, if the user of the job says so and no other."""
    cluster = files.read_json(path)
    if not isinstance(cluster, dict) or files.user_of(path.lstat().st_uid) != job.user:
        return
    if port := cluster.get("dashboard_port"):  # 0 for none
        yield (
            f"  dashboard: ssh -L {port}:127.0.0.1:{port} {job.user}@{cluster.get('node')}, then "
            f"http://127.0.0.1:{port} with the token in {cluster.get('token')}"
        )


def _about_job(study: Path, job: Job | None) -> Iterator[str]:
    if job is not None:
        yield f"  {job}, {_times(job.restarts)} requeued, partition {job.partition}"
        if job.live and not job.nodes and job.start_time:
            yield f"  expected to start at {job.start_time}"
        elif job.live and job.end_time:
            yield f"  since {job.start_time}, until {job.end_time} at most, then goes on"
    elif made := submissions(study):
        gone = "not found" if made[0].job is None else "ended; SLURM has forgotten it"
        yield f"  {_submitted(made[0])}: {gone}"
    else:
        yield "  no SLURM job was submitted for it"


def _submitted(made: Submission) -> str:
    return "a job without a known number" if made.job is None else f"job {made.job}"


def _reasons(study: Path, job: Job | None) -> Iterator[str]:
    """Yield why it ended, or which nodes are missing; the job's own user has noted it."""
    for submission in submissions(study)[:1]:
        reason = submission.own / FINISHED
        if reason.exists() and not (job is not None and job.live):
            yield f"  ended: {_text(reason)}"
        for path in sorted(submission.own.glob("missing.*")):
            yield f"  missing: {path.suffix[1:]}, where Ray has ended: {_text(path)}"


def _text(path: Path) -> str:
    """Return a note, if it is still there; no link is followed."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=files.open_plain) as file:
            return file.read(2000).strip()
    except OSError:
        return ""


def _trials(study: Path, job: Job | None) -> str:
    """Return how many trials are finished, and which are at work."""
    asked = [trial for trial in trial_directories(study / "trials") if trial.was_asked()]
    done = sum(trial.result.exists() for trial in asked)
    open_ones = [_short(trial) for trial in asked if not trial.result.exists()]
    owner = current_owner(study / "lock")
    driven = owner is not None and not owner.released and owner.lives_on_this_host() is not False
    if owner is not None and owner.job_id:
        driven = driven and job is not None and job.state == "RUNNING"
    state = "running" if driven else "interrupted, to go on"
    return f"{done} finished" + (f", {state}: {', '.join(open_ones)}" if open_ones else "")


def _short(trial: TrialDirectory) -> str:
    launches = trial.attempt()
    return str(trial.number) + (f" (launch {launches})" if launches > 1 else "")


def _own_studies() -> Iterator[Path]:
    """Yield the studies with a job of this user, each once."""
    try:
        scripts = find_jobs(user=str(os.getuid()), cluster=read_site().clusters).values()
    except UsageError as error:
        raise UsageError(f"{error}; name the study to see what its files tell") from None
    for study in dict.fromkeys(map(_study_of, scripts)):
        if study is not None and (slurm_folder(study) / "jobs").is_dir():
            yield study


def _study_of(script: Path) -> Path | None:
    """Return the study of a script, which lies in it or, beside others, says which it is for."""
    folder = script.parent.parent if script.parent.name == "workers" else script.parent
    if folder.name == "slurm":
        return folder.parent
    with contextlib.suppress(OSError, ValueError):
        lines = script.read_bytes().split(b"\n") if folder.parent.name == HOME_FOLDER else []
        named = next((line for line in lines if line.startswith(b"W2LTUNE_STUDY=")), b"")
        if named:
            return Path(shlex.split(os.fsdecode(named))[0].partition("=")[2])
    return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _studies(arguments: list[str], usage: str) -> list[Path]:
    """Return the folders that the command line names."""
    if any(argument in ("--help", "-h", "-help") for argument in arguments):
        print(usage.strip())
        sys.exit(0)
    flags = [argument for argument in arguments if argument.startswith("-")]
    if flags or not arguments:
        wrong = f"{flags[0]!r} is no option here" if flags else "no study is named"
        raise UsageError(f"{wrong}; give the folders of studies, as LOGDIR/PREFIX (see --help)")
    studies = [Path(argument) for argument in arguments]
    for study in studies:
        if not (study / "sweep.json").exists() and not slurm_folder(study).is_dir():
            raise UsageError(f"{study}: no study there (no sweep.json)")
        files.refuse_planted(study, to_read=True)
    return studies


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
