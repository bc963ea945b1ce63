"""Kill a sweep of trainings at chosen moments until it has finished in spite of it.

    python tests/campaign/train_kills.py [--kills=72] [--seed=1] [--folder=DIR]

Each training has two processes (the double of the binary, on GPUs that are numbers here) and
writes its checkpoints slowly. What is killed with -9, {child, rank 1, trainable (Ray's worker),
raylet, driver, everything}, and when, {starting, training, validating, writing a checkpoint}, goes
through all pairs. The table says what each pair cost: epochs that were complete when the kill came,
checkpoint and all, and had to be done again (the one in progress is always lost).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from killing import TRAIN_TARGETS, Ledger, Sweep  # noqa: E402  (these lie in tests/)
from trainingtask import BINARY, make_training, write_config  # noqa: E402
from waiting import PATIENCE_SECONDS  # noqa: E402

from w2ltune.formats.logs import read_history  # noqa: E402
from w2ltune.runs.lock import process_start  # noqa: E402
from w2ltune.runs.snapshots import read_snapshots, verify  # noqa: E402

PHASES = ("starting", "training", "validating", "writing")
UPDATES_PER_EPOCH = 5
UPDATES = 80

DOUBLE = {
    "RAY_OVERRIDE_RESOURCES": '{"CPU": 4, "GPU": 2}',
    "DOUBLE_UPDATE_SECONDS": "0.06",
    "DOUBLE_START_SECONDS": "0.5",
    "DOUBLE_VALID_SECONDS": "0.15",
    "DOUBLE_WRITE_SECONDS": "0.3",
    "DOUBLE_RETRY_SECONDS": "0.01",
    "DOUBLE_PHASE_FILE": "1",
    "DOUBLE_GRANDCHILD": "setsid",
}


def phase_of(run: Path) -> tuple[str, int]:
    """Return what a run directory's program is at, and in which epoch."""
    with contextlib.suppress(OSError, ValueError):
        name, epoch, _ = (run / "phase").read_text().split()
        return name, int(epoch)
    return "", 0


def starts_of(run: Path) -> list[int]:
    """Return the epochs that the starts of a run so far began with, 0 for anew."""
    text = "".join(path.read_text() for path in sorted(run.glob("logs/*.log")))
    begun = re.findall(r"^w2ltune: \S+ \S+ start \d+: (.*)", text, re.M)
    updates = [re.search(r"after update (\d+)", line) for line in begun]
    return [int(found[1]) // UPDATES_PER_EPOCH if found else 0 for found in updates]


class Campaign:
    """A sweep that is killed, and what came of it."""

    def __init__(self, folder: Path, *, trials: int) -> None:
        config = write_config(
            folder, {**make_training(folder / "data", rows=40), "iter": str(UPDATES)}
        )
        self.study = folder / "study"
        self.arguments = [
            "--task=train", f"--binary={BINARY}", f"--config={config}", "--ngpu=2", "--seed=1",
            "--extra=--lr=loguniform(1e-3, 0.1)", "--pruner=none", f"--logdir={folder}",
            "--prefix=study",
        ]  # fmt: skip
        self.trials = trials
        self.folder = folder
        self.ledger = Ledger(self.study / "trials")
        self.wrong: list[str] = []
        self.starts = 0
        self.sweep = self.start()

    def start(self) -> Sweep:
        arguments = [*self.arguments, f"--n={self.trials}"]
        sweep = Sweep(arguments, REPOSITORY, self.folder / "log", environment=DOUBLE)
        sweep.start()
        self.starts += 1
        return sweep

    def live(self) -> Path | None:
        """Return the run directory of the trial that is running."""
        for trial in sorted((self.study / "trials").glob("[0-9]*")):
            if not (trial / "result.json").exists() and (trial / "run").is_dir():
                return trial / "run"
        return None

    def kill(self, target: str, phase: str, choose: random.Random) -> int | None:
        """Wait for the moment, kill, and return how many complete epochs were done again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            if not self.sweep.alive():
                self.restart()
            run = self.live()
            now, epoch = phase_of(run) if run else ("", 0)
            in_time = now == phase and (phase != "training" or epoch >= 2)
            # Some updates into the epoch, some bytes into the file; at a start there is no log yet.
            if run and in_time and self.sweep.victims("child"):
                time.sleep(choose.uniform(0, 0.15))
                now, epoch = phase_of(run)
                victims = self.sweep.victims(target)
                if now == phase and victims:
                    break
            if time.monotonic() > deadline:
                self.wrong.append(f"no {phase} for {target} in {PATIENCE_SECONDS:.0f} s")
                return None
            time.sleep(0.01)
        complete = max(0, epoch - 1) if phase != "starting" else starts_of(run)[-1]
        before = len(starts_of(run))
        programs = {*self.sweep.victims("child")}
        self.sweep.kill(target, choose)
        if target in ("raylet", "driver", "everything"):
            self.restart()
        elif left := self.still_there(programs):
            self.wrong.append(f"left after {target} in {phase}: {left}")
        self.wrong += self.ledger.look()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(starts_of(run)) <= before:
            if (run.parent / "result.json").exists() or time.monotonic() > deadline:
                return None
            if not self.sweep.alive():
                self.restart()
            time.sleep(0.05)
        return max(0, complete - starts_of(run)[before])

    def still_there(self, pids: set[int]) -> set[int]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while pids and time.monotonic() < deadline:
            pids = {pid for pid in pids if process_start(pid)}
            time.sleep(0.05)
        return pids

    def restart(self) -> None:
        """Wait for the end of a sweep that was killed, look what is left, and start it again."""
        code = self.sweep.wait(PATIENCE_SECONDS)
        left = self.sweep.wait_until_gone(PATIENCE_SECONDS)
        self.wrong += [f"left behind: {command[:80]}" for command in left.values()]
        self.wrong += self.ledger.look()
        if code == 0:
            self.trials += 4  # finished early: something more to kill
        self.sweep = self.start()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=72)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    choose = random.Random(options.seed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="campaign-"))
    folder.mkdir(parents=True, exist_ok=True)
    campaign, began = Campaign(folder, trials=options.trials), time.monotonic()
    pairs = [(target, phase) for target in TRAIN_TARGETS for phase in PHASES]
    lost: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    kills: collections.Counter[tuple[str, str]] = collections.Counter()
    while sum(kills.values()) < options.kills:
        choose.shuffle(pairs)
        for target, phase in pairs:
            if sum(kills.values()) >= options.kills:
                break
            epochs = campaign.kill(target, phase, choose)
            kills[target, phase] += 1
            if epochs is not None:
                lost[target, phase].append(epochs)
            print(f"{time.monotonic() - began:6.0f} s  kill {sum(kills.values()):3d} {target:<10} "
                  f"{phase:<10} complete epochs lost {epochs}  finished {len(campaign.ledger.seen)}"
                  f"  wrong {campaign.wrong}", flush=True)  # fmt: skip
    code = campaign.sweep.wait(1800)
    left = campaign.sweep.wait_until_gone(PATIENCE_SECONDS)
    wrong = [*campaign.wrong, *(f"left behind: {c[:80]}" for c in left.values())]
    wrong += campaign.ledger.look()
    wrong += [] if code == 0 else [f"the sweep ended with {code}"]
    wrong += _check(campaign.study)
    print(f"\n| killed | {' | '.join(PHASES)} |\n|---|{'---|' * len(PHASES)}")
    for target in TRAIN_TARGETS:
        cells = [
            f"{kills[target, phase]} kills, {max(lost[target, phase], default=0)} lost"
            for phase in PHASES
        ]
        print(f"| {target} | {' | '.join(cells)} |")
    most = max((epochs for found in lost.values() for epochs in found), default=0)
    results = [json.loads(p.read_text()) for p in campaign.study.glob("trials/*/result.json")]
    states = dict(collections.Counter(result["state"] for result in results))
    print(f"\nkills {sum(kills.values())}, starts of the command {campaign.starts}, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    print(f"complete epochs lost by a kill: {most} at most")
    print(f"trials {campaign.trials} asked for, {len(results)} finished: {states}")
    print(f"lost, repeated, changed, unfinished or left behind: {len(wrong)} {wrong}")
    return 1 if wrong or most > 0 or len(results) != campaign.trials else 0


def _check(study: Path) -> list[str]:
    """Return what is wrong with the trainings that came out of it."""
    wrong = []
    for trial in sorted((study / "trials").glob("[0-9]*")):
        lines = [line.updates for line in read_history(trial / "run")]
        if lines != list(range(UPDATES_PER_EPOCH, UPDATES + 1, UPDATES_PER_EPOCH)):
            wrong.append(f"trial {trial.name} has reports after {lines}")
        if not all(verify(snapshot) for snapshot in read_snapshots(trial / "snapshots")):
            wrong.append(f"trial {trial.name} has a bad snapshot")
    return wrong


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    sys.exit(main())
