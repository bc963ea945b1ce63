"""Submit a command to SLURM, or show what would be submitted."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from w2ltune import files
from w2ltune.cluster.jobs import find_job, job_id, run_slurm
from w2ltune.cluster.resources import SlurmResources, job_resources
from w2ltune.cluster.site import Site, read_site, unused_variables
from w2ltune.cluster.slurm import (
    CLUSTER_TEMPLATE,
    FINISHED,
    ClusterJob,
    directives,
    job_name,
    own_folder,
    read_template,
    render_job,
    slurm_folder,
)
from w2ltune.cluster.slurmoptions import SlurmOptions
from w2ltune.cluster.submissions import Submission, refuse_second_job, submissions
from w2ltune.errors import StudyOwnedError, UsageError, W2LTuneError
from w2ltune.runs.lock import this_process
from w2ltune.runs.rundir import make_shared, user_name
from w2ltune.runs.runname import plain_name
from w2ltune.runs.sharing import make_own, share


def submit_command(
    module: str,
    arguments: Sequence[str],
    *,
    study: Path,
    options: SlurmOptions,
    gpus: int,
    site: Site | None = None,
) -> int:
    """Submit ``python -m module arguments``, or show with ``--dry_run`` what would be submitted.

    Args:
        module: The command's module.
        arguments: Its command line.
        study: The study's folder; it may not exist yet.
        options: Of the command.
        gpus: GPUs of one trial, in all; 0 for none.
        site: By default this user's.

    Returns:
        The exit code.

    Raises:
        UsageError: The options do not fit, or SLURM refuses.
        StudyOwnedError: The study has a job already, or runs elsewhere.
    """
    site = site or read_site()
    if unused := unused_variables():
        print(
            f"{', '.join(unused)}: not used; give options of the job here, or by --sbatch",
            file=sys.stderr,
        )
    asked = [word for word in arguments if not re.fullmatch(r"--?dry[-_]run(=.*)?", word)]
    job = ClusterJob(
        study=study,
        command=[sys.executable, "-m", module, *asked],
        directory=Path.cwd(),
        user=user_name(),
        options=options,
        site=site,
        resources=job_resources(options, site, gpus=gpus),
    )
    script = render_job(read_template(CLUSTER_TEMPLATE), job)
    if options.dry_run:
        show_script(script)
        return 0
    share(study)  # sbatch hands the umask on to the job
    done = submit(study, script, user=job.user, resources=job.resources)
    print("\n".join(directives(job)))
    print(f"submitted job {done.job} ({job_name(study)}): {job.resources}")
    print(f"script: {done.script}")
    for command in watching(done, study, board=module != "w2ltune.forward"):
        print(f"watch:  {shlex.join(command)}")
    return 0


def watching(submission: Submission, study: Path, *, board: bool = True) -> list[list[str]]:
    """Return the commands that show how a job is doing."""
    log = f"{submission.script.stem.rpartition('-')[0]}-{submission.job}.out"
    folder = [f"--logdir={study.parent}", f"--prefix={study.name}"]
    collect = ["python", "-m", "w2ltune.collect", *folder, "--watch"]
    return [
        ["squeue", f"--jobs={submission.job}"],
        ["tail", "-F", str(submission.own / log)],
        collect if board else ["python", "-m", "w2ltune", "status", str(study)],
    ]


def submit(study: Path, script: str, *, user: str, resources: SlurmResources) -> Submission:
    """Submit a script for a study.

    Args:
        study: The study's folder; made when it is missing.
        script: The text.
        user: Names the script's file.
        resources: Of the job, for the record.

    Returns:
        The submission, with the job's number.

    Raises:
        StudyOwnedError: The study has a job already, is being submitted, or runs elsewhere.
        UsageError: SLURM refuses; nothing is left of the attempt.
        InputError: Somebody else put a link into the study.
    """
    files.refuse_planted(study)
    own = own_folder(study, user)
    with _made(slurm_folder(study) / "jobs", own):
        number = max((done.number for done in submissions(study)), default=0) + 1
        refuse_second_job(study)  # after the number: whoever was faster has taken it
        path = own.parent / f"{plain_name(user)}-{number:04d}.sbatch"
        owner = this_process()
        submission = Submission(
            study=study, number=number, script=path, owner=owner, seconds=time.time(),
            resources=resources, cluster=_asked_cluster(script),
        )  # fmt: skip
        if not files.create_exclusively(submission.record, submission.as_json()):
            raise StudyOwnedError(f"{study} is being submitted by another command: see squeue")
        try:
            files.write_script(path, script)
            # Nodes that are added must not take the end of an earlier job for the end of this one.
            (submission.own / FINISHED).unlink(missing_ok=True)
            job, cluster = sbatch(path, cluster=submission.cluster)
            submission = replace(submission, job=job, cluster=cluster)
        except UnknownJobError as unknown:
            submission = replace(submission, answer=unknown.answer)
            files.write_text(submission.record, submission.as_json())
            raise
        except (W2LTuneError, OSError):
            path.unlink(missing_ok=True)
            submission.record.unlink()
            raise
        files.write_text(submission.record, submission.as_json())
    return submission


class UnknownJobError(UsageError):
    """SLURM took a script, or may have, but which job it became is not known.

    Args:
        message: What is known.
        answer: What sbatch said, where it did take it.
    """

    def __init__(self, message: str, *, answer: str = "") -> None:
        super().__init__(message)
        self.answer = answer


def _asked_cluster(script: str) -> str:
    """Return the cluster that a script's lines for sbatch name, the last one of them."""
    found = re.findall(r"^#SBATCH.*? (?:--clusters?[= ]|-M ?)(\S+)", script, re.MULTILINE)
    return found[-1] if found else ""


def sbatch(path: Path, *, cluster: str = "") -> tuple[int, str]:
    """Submit a script and return the job's number, and its cluster where sbatch names one.

    Args:
        path: The script.
        cluster: What it asks for, to look there where sbatch does not answer.

    Raises:
        UsageError: SLURM refuses.
        UnknownJobError: It may have taken the script all the same.
    """
    refusal = None
    try:
        answer, remarks = run_slurm(["sbatch", "--parsable", str(path)])
        for line in remarks:
            print(f"sbatch: {line}", file=sys.stderr)
        if found := job_id(answer):
            return found
    except UsageError as error:  # it may have been too slow to say so, or is a site's own program
        refusal = error
    with contextlib.suppress(UsageError):
        if (job := find_job({path}, cluster=cluster)) is not None:
            return job, cluster
    look = f"and squeue shows no job of {path}: look whether there is one"
    if refusal is None:
        said = " ".join(answer.split())[-200:] or "nothing"
        raise UnknownJobError(f"sbatch names no job ({said!r}), {look}", answer=said)
    if "timed out" in str(refusal).lower():
        raise UnknownJobError(f"{refusal}; {look} before you submit again")
    raise refusal


def show_script(script: str) -> None:
    """Print a script, and what sbatch says to it, which changes nothing."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(script))
    sys.stdout.flush()
    _, remarks = run_slurm(["sbatch", "--test-only"], input=os.fsencode(script))
    for line in remarks:
        print(f"sbatch: {line}", file=sys.stderr)


@contextlib.contextmanager
def _made(folder: Path, own: Path) -> Iterator[None]:
    """Make a shared folder and one's own; when the block fails, remove all that was made."""
    missing = [path for path in (own, folder, *folder.parents, own.parent) if not path.exists()]
    make_shared(folder)
    make_own(own)
    try:
        yield
    except (W2LTuneError, OSError):
        with contextlib.suppress(OSError):  # no longer empty
            for path in missing:
                path.rmdir()
        raise
