"""Disturb a sweep on a real SLURM in every way that sites know, and hold it against one in peace.

    python tests/campaign/slurm_disturbances.py --task=train|decode [--seed=1] [--folder=DIR]

Two time limits, three preemptions, the death of a node and that of the head's node, in an order
drawn by the seed (the limits first, as they take the longest). The same sweep runs undisturbed
beside it, later, with the same seed. Needs root and SLURM, like ``tests/cluster``.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "cluster")]

from bed import Cluster, slurm_cluster  # noqa: E402  (these lie in tests/)
from bedfiles import NODES, Settings  # noqa: E402
from killing import Ledger  # noqa: E402
from trainings import Training, preempt, training  # noqa: E402

from w2ltune.formats.logs import read_history  # noqa: E402
from w2ltune.runs.trialdir import TrialResult, trial_directories  # noqa: E402

DECODE = REPOSITORY / "experiments" / "voice_commands" / "decode.cfg"
PATIENCE_SECONDS = 400.0
LIMIT_MINUTES = 2


def now() -> float:
    return time.monotonic()


@dataclass(kw_only=True)
class Losses:
    """Epochs that had to be done again, seen while it happens: logs are written over.

    Attributes:
        study: The study's folder.
        epochs: For each start of a training after its first, the complete epochs done again.
    """

    study: Path
    epochs: list[int] = field(default_factory=list)
    _starts: dict[Path, int] = field(default_factory=dict)
    _reported: dict[Path, int] = field(default_factory=dict)

    def look(self) -> None:
        for run in self.study.glob("trials/*/run"):
            if (run.parent / "result.json").exists():
                continue
            begun = [
                int(found[1]) if (found := re.search(r"after update (\d+)", line)) else 0
                for log in sorted(run.glob("logs/*.log"))
                for line in re.findall(r"^w2ltune: \S+ \S+ start \d+: (.*)", log.read_text(), re.M)
            ]
            history = read_history(run)
            if len(begun) > self._starts.get(run, 1) and history:
                lost = self._reported.get(run, 0) - begun[-1]
                self.epochs.append(max(0, lost) // history[0].updates)
            if len(begun) != self._starts.get(run, 0):
                self._reported[run] = begun[-1] if begun else 0
            self._starts[run] = len(begun)
            last = history[-1].updates if history else 0
            self._reported[run] = max(last, self._reported.get(run, 0))


@dataclass(kw_only=True)
class Campaign:
    """A sweep on the cluster, what happens to it, and what that costs."""

    slurm: Cluster
    study: Training
    ledger: Ledger
    losses: Losses
    free: list[float] = field(default_factory=list)
    back: dict[str, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    left: int = 0

    def state(self) -> str:
        with contextlib.suppress(LookupError):
            return self.slurm.job(self.study.job)["JobState"]
        return "?"

    def progress(self) -> tuple[int, int]:
        """Return finished trials, and epochs or attempts begun, which only grow."""
        trials = list(trial_directories(self.study.study / "trials"))
        done = sum(trial.result.exists() for trial in trials)
        return done, sum(self.study.epochs()) + len(trials)

    def wait(self, what: str, condition: object, seconds: float = PATIENCE_SECONDS) -> None:
        end = now() + seconds
        while not condition():  # type: ignore[operator]
            if now() > end:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}\n{self.study.output()}")
            time.sleep(0.1)
            self.wrong += self.ledger.look()
            self.losses.look()

    def moves_on(self) -> None:
        """Wait until the job runs and something new has been done."""
        before = self.progress()
        self.wait(
            "progress", lambda: self.state() == "RUNNING" and self.progress()[1] >= before[1] + 3
        )

    def disturb(self, event: str) -> None:
        restarts = self.restarts()
        began = now()
        if event == "limit":
            told = self.study.output().count("stopping: the time limit is near")
            self.wait("the notice", lambda: self.told_of_limits() > told)
            began = now()
        elif event == "preemption":
            preempt(self.slurm, seconds=2)
        elif event == "head":
            dead = self.study.head()
            self.slurm.kill_node(dead)
        elif event == "node":
            names = self.slurm.job(self.study.job)["NodeList"]
            nodes = self.slurm.run(["scontrol", "show", "hostnames", names]).stdout.split()
            dead = next(n for n in (int(x[1:]) for x in nodes) if n != self.study.head())
            self.slurm.kill_node(dead)
        if event == "node":  # the job itself goes on
            self.wait("a node to be missed", lambda: "down" in self.sinfo(dead), 60)
        else:
            if event != "head":
                self.wait("the nodes to be free", lambda: self.state() != "RUNNING")
                self.free.append(now() - began)
                self.left += self.ray_processes(seconds=3)
            self.wait(
                "a restart", lambda: int(self.slurm.job(self.study.job)["Restarts"]) > restarts
            )
        self.moves_on()
        self.back.setdefault(event, []).append(now() - began)
        if event in ("node", "head"):
            self.slurm.start_node(dead)
        print(f"  {event}: at work again after {now() - began:.0f} s, {self.progress()[0]} trials "
              f"finished, wrong {self.wrong}", flush=True)  # fmt: skip

    def restarts(self) -> int:
        return int(self.slurm.job(self.study.job)["Restarts"])

    def told_of_limits(self) -> int:
        return self.study.output().count("stopping: the time limit is near")

    def sinfo(self, n: int) -> str:
        return self.slurm.node(n)["State"].lower()

    def ray_processes(self, *, seconds: float) -> int:
        """Return how many of Ray's and our processes are still there after so long."""
        end = now() + seconds
        while True:
            found = [line for line in self.of_ray() if self.state() != "RUNNING"]
            if not found or now() > end:
                return len(found)
            time.sleep(0.2)

    def of_ray(self) -> Iterator[str]:
        for n in range(1, NODES + 1):
            for line in self.slurm.processes(n):
                if re.search(r"ray|w2ltune|fl_asr", line):
                    yield line

    def finish(self) -> None:
        self.wait("the end", lambda: self.state() in ("COMPLETED", "FAILED", "CANCELLED"), 1500)
        if self.state() != "COMPLETED":
            self.wrong.append(f"the job is {self.state()}: {self.study.output()[-2000:]}")
        self.left += self.ray_processes(seconds=10)
        self.wrong += self.ledger.look()

    def first_trial_seconds(self) -> float:
        """Return the time from the start of the job to that of its first trial."""
        begun = re.search(r"\[(.*?)\] job \d+, run 1,", self.study.output())
        assert begun
        attempt = self.study.study / "trials" / "0000" / "attempts" / "0001"
        return attempt.stat().st_mtime - datetime.fromisoformat(begun[1]).timestamp()


def results_of(study: Path) -> dict[int, TrialResult]:
    found = (trial.read_result() for trial in trial_directories(study / "trials"))
    return {result.number: result for result in found if result is not None}


def differences(one: Path, other: Path) -> tuple[list[int], int]:
    """Return what the seed fixes and differs between two studies, and trials stopped elsewhere.

    The block at which a hopeless decode is stopped depends on which worker was faster.
    """
    ours, theirs = results_of(one), results_of(other)
    differ, stopped = [], 0
    for number in sorted({*ours, *theirs}):
        a, b = ours.get(number), theirs.get(number)
        if a is None or b is None or a.params != b.params:
            differ.append(number)
        elif (a.state, a.value) != (b.state, b.value):
            if a.state == b.state == "COMPLETE":
                differ.append(number)
            stopped += 1
    return differ, stopped


def best_of(study: Path) -> list[str]:
    """Return the chosen flags."""
    path = study / "best.cfg"
    if not path.exists():  # of trainings: the link to the best model, its trial's number in it
        return [str((study / "best_model.bin").readlink())]
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def make_study(slurm: Cluster, task: str, name: str, hours: float) -> Training:
    limit = f"--hours={hours:g}"
    if task == "train":
        return training(slurm, name, "--ngpu=1", "--nodes=2", limit, updates=600, trials=24)
    command = [
        sys.executable, "-m", "w2ltune.sweep", f"--flagsfile={DECODE}", f"--logdir={slurm.folder}",
        f"--prefix={name}", "--partition=low", "--nodes=2", "--cpu=2", limit, "--sampler=tpe",
        "--seed=1", "--concurrent_trials=1", "--n=160", "--beamsize=1500", "--probe=false",
    ]  # fmt: skip
    return Training(slurm=slurm, command=command, study=slurm.folder / name, folder=REPOSITORY)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=("train", "decode"), default="train")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    base = options.folder or Path(tempfile.mkdtemp(prefix="slurm-campaign-"))
    (base / "bed").mkdir(parents=True)
    base.chmod(0o755)  # other users' jobs enter it
    events = ["preemption"] * 3 + ["node", "head"]
    random.Random(options.seed).shuffle(events)
    began = now()
    with slurm_cluster(base / "bed", Settings(slurmd_timeout_seconds=5)) as slurm:
        disturbed = make_study(slurm, options.task, "disturbed", LIMIT_MINUTES / 60)
        disturbed.submit()
        campaign = Campaign(
            slurm=slurm,
            study=disturbed,
            ledger=Ledger(disturbed.study / "trials"),
            losses=Losses(study=disturbed.study),
        )
        campaign.moves_on()
        for event in ("limit", "limit"):
            campaign.disturb(event)
        minutes = ["scontrol", "update", f"jobid={disturbed.job}", "timelimit=120"]
        assert slurm.run(minutes).returncode == 0
        for event in events:
            campaign.disturb(event)
        campaign.finish()
        seconds, restarts = now() - began, slurm.job(disturbed.job)["Restarts"]
        first = campaign.first_trial_seconds()
        print(f"undisturbed, after {seconds:.0f} s", flush=True)
        slurm.reset()
        calm = make_study(slurm, options.task, "calm", 1)
        calm.submit()
        peace = Campaign(
            slurm=slurm,
            study=calm,
            ledger=Ledger(calm.study / "trials"),
            losses=Losses(study=calm.study),
        )
        peace.finish()
        wrong = [*campaign.wrong, *peace.wrong]
        differ, stopped = differences(disturbed.study, calm.study)
        same = best_of(disturbed.study) == best_of(calm.study)
    lost = campaign.losses.epochs
    trials = len(results_of(disturbed.study))
    print(f"\n{options.task}: {trials} trials, {restarts} restarts of the job, {seconds:.0f} s "
          f"(undisturbed {now() - began - seconds:.0f} s)")  # fmt: skip
    print("| event | times | at work again after, s |\n|---|---|---|")
    for event, found in campaign.back.items():
        print(f"| {event} | {len(found)} | {', '.join(f'{s:.0f}' for s in found)} |")
    print(f"finished trials lost, changed or repeated: {len(wrong)} {wrong}")
    if lost:
        print(f"complete epochs done again by a start: {max(lost)} at most, in {len(lost)} starts")
    print(f"trials with other flags or another result than undisturbed: {len(differ)} {differ}; "
          f"stopped at another block: {stopped}; same answer: {same}")  # fmt: skip
    print(f"start of the job to the first trial: {first:.1f} s, undisturbed "
          f"{peace.first_trial_seconds():.1f} s")  # fmt: skip
    free = campaign.free  # of preemptions SLURM's own second is in it
    print(f"notice to nodes free: median {statistics.median(free):.1f} s, most {max(free):.1f} s")
    print(f"processes of Ray or of ours left between runs and at the end: {campaign.left}")
    return 1 if wrong or differ or not same or campaign.left or max(lost, default=0) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
