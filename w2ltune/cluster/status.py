"""``w2ltune status STUDY…`` and ``w2ltune stop STUDY…``: a study's SLURM job, seen from outside."""

from __future__ import annotations

import sys
from pathlib import Path

from w2ltune import files
from w2ltune.cluster.jobs import Job, read_job, run_slurm
from w2ltune.cluster.submissions import slurm_folder, submissions
from w2ltune.errors import UsageError, run_command
from w2ltune.runs.trialdir import trial_directories

STATUS_USAGE = """
usage: w2ltune status STUDY...

Shows the SLURM job of each study (LOGDIR/PREFIX, or a run directory): its state, why it waits, its
nodes, how often it was requeued, its trials, and where Ray's dashboard is.
"""
STOP_USAGE = """
usage: w2ltune stop STUDY...

Ends the SLURM job of each study for good. The command that began it goes on from there.
"""


def main(arguments: list[str]) -> int:
    """Print the state of each study that is named."""
    for study in _studies(arguments, STATUS_USAGE):
        print("\n".join(describe(study)))
    return 0


def stop_main(arguments: list[str]) -> int:
    """End the job of each study that is named.

    Raises:
        UsageError: A study has no job that is waiting or running.
    """
    for study in _studies(arguments, STOP_USAGE):
        job = newest_job(study)
        if job is None or not job.live:
            raise UsageError(f"{study}: there is no SLURM job to stop{f' ({job})' if job else ''}")
        run_slurm(["scancel", str(job.number)])
        print(f"stopped {job}; the same command submits it again")
    return 0


def newest_job(study: Path) -> Job | None:
    """Return the job of a study's newest submission; None without one, or where SLURM forgot it."""
    made = [submission.job for submission in submissions(study) if submission.job is not None]
    return read_job(made[0]) if made else None


def describe(study: Path) -> list[str]:
    """Return what there is to say of a study, a line each."""
    lines = [str(study)]
    made = submissions(study)
    job = newest_job(study)
    if job is not None:
        lines.append(f"  {job}, {_times(job.restarts)} requeued, partition {job.partition}")
        if job.start_time and not job.nodes:
            lines.append(f"  expected to start at {job.start_time}")
        elif job.end_time:
            lines.append(f"  since {job.start_time}, until {job.end_time} at most, then goes on")
    elif made:
        lines.append(f"  job {made[0].job}: ended; SLURM has forgotten it")
    else:
        lines.append("  no SLURM job was submitted for it")
    reason = slurm_folder(study) / "finished"
    if reason.exists():
        lines.append(f"  ended: {reason.read_text(encoding='utf-8').strip()}")
    asked = [trial for trial in trial_directories(study / "trials") if trial.was_asked()]
    done = sum(trial.result.exists() for trial in asked)
    lines.append(f"  trials: {done} finished, {len(asked) - done} running or interrupted")
    cluster = files.read_json(slurm_folder(study) / "cluster.json")
    if cluster is not None and job is not None and job.state == "RUNNING":
        port = cluster.get("dashboard_port", 8265)
        host = cluster["address"].rpartition(":")[0]
        lines.append(
            f"  dashboard: ssh -L 8265:127.0.0.1:{port} {host}, then http://127.0.0.1:8265"
        )
    return lines


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _studies(arguments: list[str], usage: str) -> list[Path]:
    """Return the folders that the command line names.

    Raises:
        UsageError: There is none, or one is no study.
        SystemExit: After ``--help``.
    """
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
    return studies


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
