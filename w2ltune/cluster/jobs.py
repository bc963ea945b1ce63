"""SLURM's programs, and what they tell of a job."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from w2ltune.errors import UsageError, W2LTuneError

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
        may_requeue: Whether SLURM is allowed to requeue it.
        restarts: How often it was requeued.
        nodes: Its nodes in SLURM's short form; "" before it runs.
        partition: Where it was submitted to.
        submit_time: In SLURM's form, like the other two; "" when unknown.
        start_time: Of this run; expected, for a job that waits.
        end_time: The time limit, or when it ended.
        exit_code: Of the script and the signal that ended it, ``0:0``.
        command: The script.
    """

    number: int
    name: str
    user: str
    state: str
    reason: str = ""
    may_requeue: bool = True
    restarts: int = 0
    nodes: str = ""
    partition: str = ""
    submit_time: str = ""
    start_time: str = ""
    end_time: str = ""
    exit_code: str = ""
    command: str = ""

    @property
    def live(self) -> bool:
        """Whether it waits, runs, or is just ending."""
        return self.state not in _ENDED

    def __str__(self) -> str:
        where = f" on {self.nodes}" if self.nodes else f", {self.reason}" if self.reason else ""
        return f"job {self.number} of {self.user} ({self.state}{where})"


def requeue_is_right(job: Job) -> bool:
    """Return whether a job that was told to stop is to requeue itself.

    At a time limit and at a preemption SLURM still shows it as running; when it was cancelled, or
    requeued by somebody else, it is completing, and what they wanted is to stand.
    """
    return job.state == "RUNNING"


def parse_job(text: str) -> Job:
    """Return the job that ``scontrol --oneliner show job`` describes.

    Raises:
        W2LTuneError: It describes none.
    """
    # A name may hold anything; the fields after UserId, up to the command, hold no blanks.
    head = re.match(r"JobId=(\d{1,18}) .*?JobName=(.*?) UserId=([^\s(]*)", text)
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
        may_requeue=field("Requeue") != "0",
        restarts=int(restarts) if restarts.isdecimal() else 0,
        nodes=field("NodeList"),
        partition=field("Partition"),
        submit_time=field("SubmitTime"),
        start_time=field("StartTime"),
        end_time=field("EndTime"),
        exit_code=field("ExitCode"),
        command=field("Command"),
    )


def read_job(number: int) -> Job | None:
    """Return a job, or None when SLURM has forgotten it, as it does minutes after its end.

    Raises:
        UsageError: SLURM does not answer.
    """
    try:
        text, _ = run_slurm(["scontrol", "--oneliner", "show", "job", str(number)])
    except UsageError as error:
        if "invalid job id" in str(error).lower():
            return None
        raise
    return parse_job(text)


def find_jobs(*, user: str = "") -> dict[int, Path]:
    """Return the waiting and running jobs, by number, with the script of each.

    Args:
        user: Only this user's, by name or number.

    Raises:
        UsageError: SLURM does not answer.
    """
    whose = [f"--user={user}"] if user else ["--all"]
    jobs, _ = run_slurm(["squeue", *whose, "--noheader", "--format=%A %o"])
    found = {}
    for line in jobs.splitlines():
        number, _, command = line.strip().partition(" ")
        if number.isdecimal():
            found[int(number)] = Path(command)
    return found


def find_job(script: Path) -> int | None:
    """Return the number of the waiting or running job of a script, or None.

    Raises:
        UsageError: SLURM does not answer.
    """
    return next((number for number, path in find_jobs().items() if path == script), None)


def run_slurm(
    arguments: Sequence[str],
    *,
    input: bytes | None = None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[str, list[str]]:
    """Run a program of SLURM and return its output and the lines of its remarks.

    Raises:
        UsageError: It is missing or refuses.
    """
    try:
        done = subprocess.run(
            list(arguments),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            env=_plain_environment(environment),
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


def _plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would overrule a script, or describes the job that we are in.

    ``SBATCH_…`` variables win over ``#SBATCH`` lines, ``SQUEUE_…`` ones change what is printed.
    """
    others = ("SBATCH_", "SLURM_", "SQUEUE_", "SCONTROL_")
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(others) or name == "SLURM_CONF"
    }
