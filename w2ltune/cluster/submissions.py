"""What was submitted for a study, so that it has one job at a time.

``<study>/slurm/jobs/0003.json`` records the third submission. It is created before sbatch is asked,
and only one process can create a number; the job's number is added when sbatch has answered.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from w2ltune import files
from w2ltune.cluster.jobs import Job, cancel_command, find_job, read_job, study_lock
from w2ltune.cluster.resources import SlurmResources
from w2ltune.cluster.slurm import FINISHED, job_name, slurm_folder
from w2ltune.errors import InputError, StudyOwnedError, W2LTuneError
from w2ltune.runs.lock import Owner

FORMAT = 1
SUBMITTING_SECONDS = 600.0
"""sbatch tries for minutes to reach its controller, not longer; then a submission has died."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One submission of a study.

    Attributes:
        study: The study's folder.
        number: From 1.
        script: What was submitted.
        owner: Which process did it.
        seconds: When, since 1970.
        resources: Of the job; nodes that are added later are alike.
        job: SLURM's number; None before its answer.
        cluster: Where the job is, if sbatch says so.
        answer: What sbatch said without a number, though it took the script.
    """

    study: Path
    number: int
    script: Path
    owner: Owner
    seconds: float
    resources: SlurmResources
    job: int | None = None
    cluster: str = ""
    answer: str = ""

    @property
    def cancel(self) -> list[str]:
        """The command that ends its job."""
        return cancel_command(self.job or 0, self.cluster)

    @property
    def record(self) -> Path:
        """The file that records it."""
        return slurm_folder(self.study) / "jobs" / f"{self.number:04d}.json"

    @property
    def own(self) -> Path:
        """Where only its user writes."""
        return self.script.parent / f"of-{self.script.stem.rpartition('-')[0]}"

    def in_progress(self) -> bool:
        """Return whether the process may still be waiting for sbatch's answer."""
        lives = self.owner.lives_on_this_host()
        if lives is None:
            lives = abs(time.time() - self.seconds) < SUBMITTING_SECONDS
        return self.job is None and not self.answer and lives

    def as_json(self) -> str:
        """Return the content of the record."""
        folder = slurm_folder(self.study)
        inside = self.script.is_relative_to(folder)  # the study may be moved, a home may not
        script = str(self.script.relative_to(folder) if inside else self.script)
        content = {"format": FORMAT, **asdict(self), "script": script}
        del content["study"]
        return files.as_json(content)


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
            del content["format"]
            content |= {"study": study, "script": folder / content["script"]}
            found.append(files.fitted(Submission, content))
        except files.DAMAGE:
            raise InputError("no record of a submission; remove it", path=path) from None
    return found


def newest_job(study: Path) -> Job | None:
    """Return the job of a study, the newest one that was submitted for it or by itself.

    None without a submission, or where SLURM forgot it.
    """
    made = submissions(study)
    if not made:
        return None
    cluster = made[0].cluster
    job = None if made[0].job is None else read_job(made[0].job, cluster=cluster)
    # The numbers of a site's jobs may begin anew; the name tells one from another.
    if job is not None and job.name != job_name(study):
        job = None
    if job is not None and job.live:
        return job
    # A submission may have been killed after sbatch had taken the script; and where a site forbids
    # requeueing a job submits its script again.
    number = find_job({submission.script for submission in made}, cluster=cluster)
    return job if number is None else read_job(number, cluster=cluster)


def live_job(study: Path) -> Job | None:
    """Return a study's job while it waits or runs; None also where SLURM cannot be asked."""
    try:
        job = newest_job(study)
    except W2LTuneError:
        return None
    return job if job is not None and job.live else None


def refuse_second_job(study: Path) -> None:
    """Refuse to submit a study that has a job, is being submitted, or runs elsewhere."""
    made = submissions(study)
    for submission in made:
        if submission.in_progress():
            raise StudyOwnedError(
                f"{study} is being submitted right now by {submission.owner}; look with squeue"
            )
    _refuse_live(study, newest_job(study))
    if made and made[0].answer and not (made[0].own / FINISHED).exists():
        raise StudyOwnedError(
            f"{study} was submitted, but sbatch named no job ({made[0].answer!r}), and squeue "
            f"shows none of {made[0].script}; where you know that there is none, remove "
            f"{made[0].record}"
        )
    study_lock(study).free()  # the job may not be able to see that the owner is dead


def _refuse_live(study: Path, job: Job | None) -> None:
    if job is not None and job.live and job.name == job_name(study):
        raise StudyOwnedError(
            f"{study} has {job} already, which goes on by itself; to submit it anew end that job "
            f"first: {shlex.join(job.cancel)}"
        )
