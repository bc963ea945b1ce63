"""SLURM's programs, and what they tell of a job."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from w2ltune.errors import UsageError, W2LTuneError
from w2ltune.runs.lock import Owner, StudyLock, this_process
from w2ltune.runs.rundir import make_shared
from w2ltune.runs.sharing import share

_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
_ENDED |= {"OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "REVOKED"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as SLURM sees it.

    Attributes:
        number: Its id.
        name: As in squeue.
        user: Whose it is.
        state: Of the job, as ``RUNNING``.
        reason: Why it waits or ended; "" for none.
        restarts: How often it was requeued.
        nodes: Its nodes in SLURM's short form; "" before it runs.
        partition: Where it was submitted to.
        start_time: Of this run, in SLURM's form; expected, for a job that waits; "" when unknown.
        end_time: The time limit, or when it ended.
        exit_code: Of the script and the signal that ended it, ``0:0``.
        command: The script.
        cluster: Where it is, for the programs that ask; "" for their own.
    """

    number: int
    name: str
    user: str
    state: str
    reason: str = ""
    restarts: int = 0
    nodes: str = ""
    partition: str = ""
    start_time: str = ""
    end_time: str = ""
    exit_code: str = ""
    command: str = ""
    cluster: str = ""

    @property
    def cancel(self) -> list[str]:
        """The command that ends it."""
        return cancel_command(self.number, self.cluster)

    @property
    def live(self) -> bool:
        """Whether it waits, runs, or is just ending."""
        return self.state not in _ENDED

    def __str__(self) -> str:
        where = f" on {self.nodes}" if self.nodes else f", {self.reason}" if self.reason else ""
        return f"job {self.number} of {self.user} ({self.state}{where})"


def cancel_command(number: int, cluster: str) -> list[str]:
    """Return the command that ends a job."""
    return ["scancel", *_on(cluster), str(number)]


def parse_job(text: str) -> Job:
    """Return the job that ``scontrol --oneliner show job`` describes."""
    # A name may hold anything; the fields after UserId, up to the command, hold no blanks.
    head = re.search(r"^JobId=(\d{1,18}) .*?JobName=(.*?) UserId=([^\s(]*)", text, re.MULTILINE)
    if head is None:
        raise W2LTuneError(f"scontrol shows no job: {' '.join(text.split())[:200]!r}")
    fields: dict[str, str] = {}
    for match in re.finditer(
        r"(?:^|\s)([A-Z][\w/:]*)=(.*?)(?=\s[A-Z][\w/:]*=|\s*$)", text[head.end() :]
    ):
        fields.setdefault(match[1], match[2])

    def field(name: str) -> str:
        value = fields.get(name, "")
        return "" if value in ("(null)", "None", "Unknown", "N/A") else value

    restarts = field("Restarts")[:18]
    return Job(
        number=int(head[1]),
        name=head[2],
        user=head[3],
        state=field("JobState"),
        reason=field("Reason"),
        restarts=int(restarts) if restarts.isdecimal() else 0,
        nodes=field("NodeList"),
        partition=field("Partition"),
        start_time=field("StartTime"),
        end_time=field("EndTime"),
        exit_code=field("ExitCode"),
        command=field("Command"),
    )


def read_job(number: int, *, cluster: str = "") -> Job | None:
    """Return a job, or None when SLURM has forgotten it, as it does minutes after its end.

    Args:
        number: Its id.
        cluster: Where it is; "" for the one of this machine.

    Raises:
        UsageError: SLURM does not answer.
    """
    try:
        words = ["scontrol", *_on(cluster), "--oneliner", "show", "job", str(number)]
        text, _ = run_slurm(words)
    except UsageError as error:
        if "invalid job id" in str(error).lower():
            return None
        raise
    return replace(parse_job(text), cluster=cluster)


def _on(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def find_jobs(*, user: str = "", cluster: str = "") -> dict[int, Path]:
    """Return the waiting and running jobs, by number, with the script of each.

    Args:
        user: Only this user's, by name or number.
        cluster: Of which; "" for the one of this machine.

    Raises:
        UsageError: SLURM does not answer.
    """
    whose = [f"--user={user}"] if user else ["--all"]
    jobs, _ = run_slurm(["squeue", *_on(cluster), *whose, "--noheader", "--format=%A %o"])
    found = {}
    for line in jobs.splitlines():
        number, _, command = line.strip().partition(" ")
        if number.isdecimal():
            found[int(number)] = Path(command)
    return found


def find_job(scripts: Collection[Path], *, cluster: str = "") -> int | None:
    """Return the number of the waiting or running job of one of these scripts, or None."""
    listed = find_jobs(cluster=cluster)
    return next((number for number, path in listed.items() if path in scripts), None)


def job_id(answer: str) -> tuple[int, str] | None:
    r"""Return the number and the cluster, "" for none, in the last line of sbatch's that is an id.

    Sites put texts of their own before and after it.

    Example:
        >>> job_id("Welcome to the 2 clusters!\n41;big\nYou have 90 hours left")
        (41, 'big')
    """
    form = r"(?:Submitted batch job )?([1-9]\d*)(?:(?:;| on cluster )([\w.-]+))?"
    found = [re.fullmatch(form, line.strip(), re.ASCII) for line in answer.splitlines()]
    last = [match for match in found if match][-1:]
    return (int(last[0][1]), last[0][2] or "") if last else None


def study_lock(study: Path) -> StudyLock:
    """Return the lock of a study; of an owner in a job it asks SLURM."""
    return StudyLock(study / "lock", this_process(), _why_job_lives)


@contextlib.contextmanager
def owned(study: Path) -> Iterator[StudyLock]:
    """Make the folder of a study, open to whom the one above it is; own it while the block runs."""
    share(study)
    make_shared(study)
    lock = study_lock(study)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def _why_job_lives(owner: Owner) -> str:
    """Return why the job of a study's owner may be at work, or "" when it is over."""
    try:
        config, _ = run_slurm(["scontrol", "show", "config"]) if owner.cluster else ("", [])
        here = re.search(rf"^ClusterName *= *{re.escape(owner.cluster)} *$", config, re.MULTILINE)
        job = read_job(int(owner.job_id), cluster="" if here else owner.cluster)
    except (W2LTuneError, ValueError) as error:
        return f"SLURM does not say whether that job is over ({error})"
    return f"SLURM shows {job}" if job is not None and job.live else ""


def run_slurm(arguments: Sequence[str], *, input: bytes | None = None) -> tuple[str, list[str]]:
    """Run a program of SLURM and return its output and the lines of its remarks."""
    try:
        done = subprocess.run(
            list(arguments),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            env=_plain_environment(),
            check=False,
        )
    except OSError as error:
        raise UsageError(
            f"{arguments[0]}: {error.strerror}; give this command on a login node of a SLURM "
            "cluster, or without --partition to run here"
        ) from None
    remarks = _without_prefix(done.stderr.decode(errors="replace"))
    if done.returncode:
        raise UsageError(f"{arguments[0]}: {'; '.join(remarks) or f'exit code {done.returncode}'}")
    return os.fsdecode(done.stdout), remarks


def _without_prefix(text: str) -> list[str]:
    """Return the lines of a program's remarks, each once, without its name before each."""
    lines = [
        re.sub(r"^\w+: (?:(?:error|fatal|info): )?", "", line).strip() for line in text.splitlines()
    ]
    return list(dict.fromkeys(line for line in lines if line))


def _plain_environment() -> dict[str, str]:
    """Leave out what overrules a script, changes what is printed, or tells of the job we are in."""
    others = ("SBATCH_", "SLURM_", "SQUEUE_", "SCONTROL_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(others) or name == "SLURM_CONF"
    }
