"""Kill a running sweep at random until it has finished in spite of it, and print what was lost.

    python tests/campaign/decode_kills.py [--kills=40] [--seed=1] [--folder=DIR]

Each round starts the same command, waits a random time and kills -9 one process of a random kind
(or everything). The sweep goes on until the wanted number of kills was done, then runs to its end.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from killing import DECODE_TARGETS, Ledger, Sweep  # noqa: E402  (these lie in tests/)
from waiting import PATIENCE_SECONDS  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--most_seconds", type=float, default=30, help="between two kills")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    choose = random.Random(options.seed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="campaign-"))
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [
        "--flagsfile=experiments/voice_commands/decode.cfg", "--beamsize=300", "--seed=1",
        "--sampler=tpe", "--noprobe", "--heldout=",
        f"--n={options.trials}", f"--logdir={folder}", "--prefix=campaign",
    ]  # fmt: skip
    ledger = Ledger(folder / "campaign" / "trials")
    kills: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    starts = 0
    code = None
    began = time.monotonic()
    while code != 0:
        sweep = Sweep(arguments, REPOSITORY, folder / "log")
        sweep.start()
        starts += 1
        while sweep.alive():
            if sum(kills.values()) >= options.kills:
                sweep.wait(1800)
                break
            deadline = time.monotonic() + choose.uniform(0.3, options.most_seconds)
            while sweep.alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            target = choose.choice(DECODE_TARGETS)
            if sweep.alive() and sweep.kill(target, choose):
                kills[target] += 1
                wrong += ledger.look()
                print(
                    f"{time.monotonic() - began:6.0f} s  kill {sum(kills.values()):3d} "
                    f"{target:<11} finished {len(ledger.seen):3d}  wrong {wrong}",
                    flush=True,
                )
        code = sweep.wait(PATIENCE_SECONDS)
        left = sweep.wait_until_gone(PATIENCE_SECONDS)
        wrong += [f"left behind: {command[:80]}" for command in left.values()]
        wrong += ledger.look()
        if code == 0 and sum(kills.values()) < options.kills:
            # Finished early: more trials, so that there is something left to kill.
            arguments = [a for a in arguments if not a.startswith("--n=")]
            options.trials += 20
            arguments.append(f"--n={options.trials}")
            code = None
    numbers = sorted(int(name) for name in ledger.seen)
    states = _told(folder / "campaign")
    if states.get("FAIL"):
        wrong.append(f"{states['FAIL']} trials failed by the kills")
    print(f"\nkills          {sum(kills.values())} ({dict(sorted(kills.items()))})")
    print(f"starts         {starts}")
    print(f"trials         {options.trials} asked for, {len(numbers)} finished, told: {states}")
    print(f"lost, repeated, changed or left behind: {len(wrong)} {wrong}")
    print(f"seconds        {time.monotonic() - began:.0f}")
    return 1 if wrong or len(numbers) != options.trials else 0


def _told(study_folder: Path) -> dict[str, int]:
    import optuna

    from w2ltune.search.study import JOURNAL, STUDY_NAME

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = optuna.storages.journal.JournalFileBackend(str(study_folder / JOURNAL))
    study = optuna.load_study(
        study_name=STUDY_NAME, storage=optuna.storages.JournalStorage(backend)
    )
    return dict(collections.Counter(trial.state.name for trial in study.trials))


if __name__ == "__main__":
    sys.exit(main())
