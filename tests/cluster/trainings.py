"""Sweeps of trainings on the test cluster, with the double of the binary."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bed import Cluster
from trainingtask import BINARY, make_training, write_config

from w2ltune import files
from w2ltune.cluster.slurm import HOME_FOLDER
from w2ltune.formats.logs import read_history
from w2ltune.runs.runname import plain_name
from w2ltune.runs.trialdir import TrialResult, trial_directories

SPEED = {"DOUBLE_UPDATE_SECONDS": "0.1", "DOUBLE_RETRY_SECONDS": "0.01"}


@dataclass(kw_only=True)
class Training:
    """A study of trainings that submits itself.

    Attributes:
        slurm: Where.
        command: Of the study, ready to be run by any user.
        study: Its folder.
        job: The number of its job.
        folder: Where the command is given; by default the cluster's shared folder.
        environment: Of the command.
    """

    slurm: Cluster
    command: list[str]
    study: Path
    job: int = 0
    folder: Path | None = None
    environment: dict[str, str] = field(default_factory=lambda: dict(SPEED))

    def submit(self, user: str | None = None) -> int:
        """Submit it and return the job's number."""
        done = self.slurm.run(
            self.command, user=user, cwd=self.folder, environment=self.environment
        )
        assert done.returncode == 0, done.stderr
        found = re.search(r"submitted job (\d+)", done.stdout)
        assert found, done.stdout
        self.job = int(found[1])
        return self.job

    def w2ltune(self, *arguments: str, user: str | None = None) -> tuple[int, str]:
        """Run another command on the study; return its exit code and what it says."""
        command = [sys.executable, "-m", "w2ltune", *arguments, str(self.study)]
        done = self.slurm.run(command, user=user, environment=self.environment)
        return done.returncode, done.stdout + done.stderr

    @property
    def runs(self) -> list[Path]:
        """The run directories of the trials, or of the one training."""
        if any(self.study.glob("[0-9]*_log")):
            return [self.study]
        return sorted(self.study.glob("trials/*/run"))

    def of_users(self, pattern: str) -> list[Path]:
        """Return what lies where only one user writes: in the study, or in that user's home."""
        homes = self.slurm.folder.parent / "homes"
        own = f"*/{HOME_FOLDER}/{plain_name(str(self.study.resolve()))[-100:]}"
        return sorted(
            path
            for folder in (self.study / "slurm", *homes.glob(own))
            for path in folder.glob(pattern)
        )

    def epochs(self) -> list[int]:
        """Return how many epochs each training has reported; of those that have begun."""
        return [len(read_history(run)) for run in self.runs]

    def results(self) -> list[TrialResult]:
        """Return the results so far."""
        found = (trial.read_result() for trial in trial_directories(self.study / "trials"))
        return [result for result in found if result is not None]

    def has_epochs(self, trials: int, epochs: int) -> Callable[[], bool]:
        """Return a condition: so many trainings have reported so many epochs."""
        return lambda: sum(found >= epochs for found in self.epochs()) >= trials

    def head(self) -> int:
        """Return the number of the node on which Ray's head and the driver are."""
        cluster = files.read_json(self.of_users("of-*/cluster.json")[0])
        return int(cluster["node"].removeprefix("n"))

    def hold_at(self, update: int) -> None:
        """Let the trainings go on to before an update, and wait there."""
        Path(self.environment["DOUBLE_LEAVE_FILE"]).write_text(str(update - 1))

    def release(self) -> None:
        """Let the trainings go on that are held."""
        Path(self.environment["DOUBLE_LEAVE_FILE"]).unlink()

    def is_whole(self, trials: int, updates: int) -> None:
        """Assert that all trainings ran to their end, each epoch reported once and in order."""
        results = self.results()
        assert [result.number for result in results] == list(range(trials))
        assert {result.state for result in results} == {"COMPLETE"}
        assert {result.updates for result in results} == {updates}
        for run in self.runs:
            reported = [line.updates for line in read_history(run)]
            assert reported == list(range(reported[0], updates + 1, reported[0]))

    def output(self, job: str = "") -> str:
        """Return what the study's job wrote, or another one."""
        logs = self.of_users(f"of-*/[!.]*-{job or self.job}.*")
        return "".join(log.read_text(encoding="utf-8") for log in logs)


def training(
    slurm: Cluster,
    name: str,
    *options: str,
    updates: int = 120,
    trials: int = 0,
    hold_at: int = 0,
) -> Training:
    """Prepare a training, or a sweep of so many, in a folder of both users' group.

    Args:
        slurm: Where.
        name: Of the folder.
        options: More of the command.
        updates: Of each training; an epoch has ten.
        trials: Of a sweep.
        hold_at: Before this update each training waits to be released: so what a test does meets it
            at work, however long that takes.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=slurm.folder))  # others had that name
    shutil.chown(folder, "root", _group_id(slurm))
    folder.chmod(0o2775)
    config = write_config(folder, {**make_training(folder / "data"), "iter": str(updates)})
    usual = [
        f"--binary={BINARY}", f"--config={config}", "--gpus_per_node=2", "--partition=low",
        "--hours=1", f"--root={folder}/runs",
    ]  # fmt: skip
    if trials:
        usual += ["--extra=--lr=loguniform(1e-3,0.1)", f"--n={trials}", "--seed=1",
                  "--pruner=none", "--sampler=random"]  # fmt: skip
        module, study = ["w2ltune.sweep", "--task=train"], "name_sweep-lr"
    else:
        module, study = ["w2ltune.train"], "name"
    command = [sys.executable, "-m", *module, *usual, *options]
    environment = {**SPEED, "DOUBLE_LEAVE_FILE": str(folder / "leave")}
    found = Training(
        slurm=slurm, command=command, study=folder / "runs/project" / study, environment=environment
    )
    if hold_at:
        found.hold_at(hold_at)
    return found


def _group_id(slurm: Cluster) -> int:
    return int(slurm.run(["getent", "group", "speech"]).stdout.split(":")[2])


def added(sweep: Training, count: int, *options: str, user: str | None = None) -> list[str]:
    """Add nodes to a sweep and return their jobs."""
    code, said = sweep.w2ltune("workers", f"--add={count}", *options, user=user)
    assert code == 0, said
    return re.findall(r"\d+", re.search(r"submitted jobs? ([\d, ]+):", said)[1])  # type: ignore[index]


def preempt(slurm: Cluster, *, nodes: Sequence[int] = (), seconds: int = 3) -> None:
    """Let a job of the higher partition take nodes, all if none is named."""
    where = [f"--nodelist={','.join(f'n{n}' for n in nodes)}"] if nodes else []
    done = slurm.run(
        ["sbatch", "--partition=high", "--exclusive", f"--nodes={len(nodes) or 4}", *where,
         "--output=/dev/null", f"--wrap=sleep {seconds}"]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
