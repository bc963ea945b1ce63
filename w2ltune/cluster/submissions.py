"""What was submitted for a study, so that it has one job at a time.

``<study>/slurm/jobs/0003.json`` records the third submission. It is created before sbatch is asked,
and only one process can create a number; the job's number is added when sbatch has answered.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from w2ltune import files
from w2ltune.cluster.jobs import Job, find_job, read_job
from w2ltune.cluster.slurm import job_name
from w2ltune.errors import InputError, StudyOwnedError
from w2ltune.runs.lock import Owner, current_owner

FORMAT = 1
SUBMITTING_SECONDS = 600.0
"""sbatch tries for minutes to reach its controller, not longer; then a submission has died."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One submission of a study.

    Attributes:
        number: From 1.
        script: What was submitted.
        owner: Which process did it.
        seconds: When, since 1970.
        job: SLURM's number; None before its answer.
    """

    number: int
    script: Path
    owner: Owner
    seconds: float
    job: int | None = None

    @property
    def record(self) -> Path:
        """The file that records it."""
        return self.script.parent / "jobs" / f"{self.number:04d}.json"

    def in_progress(self) -> bool:
        """Return whether the process may still be waiting for sbatch's answer."""
        lives = self.owner.lives_on_this_host()
        if lives is None:
            lives = abs(time.time() - self.seconds) < SUBMITTING_SECONDS
        return self.job is None and lives

    def as_json(self) -> str:
        """Return the content of the record."""
        content = {
            "format": FORMAT,
            "number": self.number,
            "job": self.job,
            "script": self.script.name,
            "seconds": self.seconds,
            "owner": asdict(self.owner),
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def slurm_folder(study: Path) -> Path:
    """Return the folder of a study's scripts, logs and records."""
    return Path(os.path.abspath(study)) / "slurm"  # noqa: PTH100 (links are the user's own)


def submissions(study: Path) -> list[Submission]:
    """Return a study's submissions, newest first.

    Raises:
        InputError: A record is damaged.
    """
    folder = slurm_folder(study)
    found = []
    for path in sorted((folder / "jobs").glob("[0-9]*.json"), reverse=True):
        content = files.read_json(path)
        if content is None:  # it was refused between the two looks
            continue
        try:
            submission = Submission(
                number=int(content["number"]),
                script=folder / content["script"],
                owner=Owner(**content["owner"]),
                seconds=float(content["seconds"]),
                job=None if content["job"] is None else int(content["job"]),
            )
        except (KeyError, TypeError, ValueError):
            raise InputError("no record of a submission; remove it", path=path) from None
        found.append(submission)
    return found


def refuse_second_job(study: Path) -> None:
    """Refuse to submit a study that has a job, is being submitted, or runs elsewhere.

    Raises:
        StudyOwnedError: The job or the process is named, with what to do.
        UsageError: SLURM does not answer.
    """
    for submission in submissions(study):
        if submission.in_progress():
            raise StudyOwnedError(
                f"{study} is being submitted right now by {submission.owner}; look with squeue"
            )
        # The submission may have been killed after sbatch had taken the script.
        number = submission.job or find_job(submission.script)
        _refuse_live(study, None if number is None else read_job(number))
    owner = current_owner(study / "lock")
    if owner is None or owner.released:
        return
    if owner.job_id.isdigit():  # a script that was submitted by hand
        _refuse_live(study, read_job(int(owner.job_id)))
    elif owner.lives_on_this_host():
        raise StudyOwnedError(f"{study} is running already ({owner}); wait for it, or stop it")


def _refuse_live(study: Path, job: Job | None) -> None:
    # The name tells it from another job: numbers begin anew when a site's SLURM does.
    if job is not None and job.live and job.name == job_name(study):
        raise StudyOwnedError(
            f"{study} has {job} already, which goes on by itself; to submit it anew end that job "
            f"first: scancel {job.number}"
        )
