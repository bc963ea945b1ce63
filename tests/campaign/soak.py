"""Run many short trials in one command and print what grows meanwhile.

    python tests/campaign/soak.py [--trials=1500] [--utterances=8] [--folder=DIR]

Memory is the proportional set size: what processes share is counted once. It is looked at from one
tenth of the trials on, when everything was loaded, and a line through all looks tells the growth
per 1,000 trials. The driver and the pool may grow by 5 MB, no process may keep descriptors or
threads, and no file of /tmp may stay.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from killing import Sweep  # noqa: E402  (these lie in tests/)
from waiting import PATIENCE_SECONDS  # noqa: E402

TASK = REPOSITORY / "experiments" / "voice_commands"
KINDS = {
    "DecoderPool": "pool",
    "DecoderWorker": "workers",
    "DecodeTrial": "trials",
    "raylet/raylet": "raylet",
    "gcs/gcs_server": "gcs",
}
"""What the command lines of Ray's processes hold; the driver is told by its number."""

MOST_MB = 5.0
"""So much the driver and the pool may grow in 1,000 trials."""

MEASURES = ("MB", "descriptors", "threads")
Look = dict[str, float]


class Soak:
    """A sweep of many short trials, and what was counted of it.

    Args:
        folder: For the study, and for Ray's files.
        trials: How many.
        utterances: Of each trial.
    """

    def __init__(self, folder: Path, *, trials: int, utterances: int) -> None:
        rows = (TASK / "dev.lst").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "tiny.lst").write_text("".join(rows[:utterances]), encoding="utf-8")
        (folder / "dev.npz").symlink_to(TASK / "emissions" / "dev.npz")
        self.study = folder / "soak"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        arguments = [
            f"--emission_dir={folder}/dev.npz", f"--test={folder}/tiny.lst",
            f"--tokens={TASK}/tokens.txt", f"--lexicon={TASK}/lexicon.txt", f"--lm={TASK}/lm.arpa",
            "--smearing=max", "--beamsize=5", "--beamsizetoken=5", "--beamthreshold=10",
            "--lmweight=uniform(0, 5)", "--wordscore=uniform(-8, 7)", "--sampler=random",
            "--pruner=none", "--noprobe", "--concurrent_trials=1", "--seed=1", f"--n={trials}",
            f"--logdir={folder}", "--prefix=soak",
        ]  # fmt: skip
        environment = {"TMPDIR": str(self.temporary)}
        self.sweep = Sweep(arguments, REPOSITORY, folder / "log", environment=environment)

    def finished(self) -> int:
        return sum(1 for _ in self.study.glob("trials/*/result.json"))

    def look(self) -> Look:
        """Count everything once."""
        seen: collections.Counter[str] = collections.Counter()
        assert self.sweep.process is not None
        for pid, command in self.sweep.processes().items():
            kind = next((kind for word, kind in KINDS.items() if word in command), "rest of Ray")
            kind = "driver" if pid == self.sweep.process.pid else kind
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                with process.oneshot():
                    seen[f"{kind}: MB"] += process.memory_full_info().pss / 1e6
                    seen[f"{kind}: descriptors"] += process.num_fds()
                    seen[f"{kind}: threads"] += process.num_threads()
                    seen[f"{kind}: processes"] += 1
        seen["files: of the study"] = _files(self.study)
        # Where Ray's sockets need a shorter path, its folder lies beside those of other commands.
        beside = Path("/tmp").glob(f"w2l-{self.sweep.process.pid}-*")
        seen["files: temporary"] = sum(map(_files, (self.temporary, *beside)))
        return {"finished": self.finished(), **seen}


def _files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def growth(looks: list[Look], name: str) -> float:
    """Return what a line through all looks says of 1,000 trials."""
    trials = np.array([look["finished"] for look in looks])
    values = np.array([look.get(name, 0.0) for look in looks])
    return float(np.polyfit(trials, values, 1)[0] * 1000)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--utterances", type=int, default=8)
    parser.add_argument("--looks", type=int, default=40)
    parser.add_argument("--most_mb", type=float, default=MOST_MB, help="of growth in 1,000 trials")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="campaign-"))
    folder.mkdir(parents=True, exist_ok=True)
    soak = Soak(folder.resolve(), trials=options.trials, utterances=options.utterances)
    looks: list[Look] = []
    begin, every = options.trials / 10, options.trials * 0.9 / options.looks
    began = time.monotonic()
    soak.sweep.start()
    try:
        while soak.sweep.alive():
            finished = soak.finished()
            if begin + every * len(looks) <= finished < options.trials:
                looks.append(soak.look())
                print(f"{time.monotonic() - began:6.0f} s  " + "  ".join(
                    f"{name.removesuffix(': MB')} {value:.0f}"
                    for name, value in looks[-1].items() if name.endswith(("MB", "finished"))
                ), flush=True)  # fmt: skip
            time.sleep(0.2)
        code = soak.sweep.wait(PATIENCE_SECONDS)
    finally:
        soak.sweep.end()
    wrong = [] if code == 0 else [f"the sweep ended with {code}: see {folder / 'log'}"]
    if soak.finished() != options.trials:
        wrong.append(f"{soak.finished()} of {options.trials} trials finished")
    # Ray's dashboard, when it is killed, leaves an empty socket of Python's multiprocessing.
    if left := _files(soak.temporary) - len([*soak.temporary.glob("pymp-*/listener-*")]):
        wrong.append(f"{left} temporary files are left")
    if len(looks) < 3:
        wrong.append(f"only {len(looks)} looks: more --trials")
        looks = [*looks, {"finished": 0}, {"finished": 1}]
    print(f"\n| what | after {looks[0]['finished']:.0f} trials | after "
          f"{looks[-1]['finished']:.0f} | growth per 1,000 |\n|---|---|---|---|")  # fmt: skip
    for name in sorted({name for look in looks for name in look} - {"finished"}):
        grown = growth(looks, name)
        first, last = looks[0].get(name, 0), looks[-1].get(name, 0)
        print(f"| {name} | {first:.1f} | {last:.1f} | {grown:+.1f} |")
        is_ours = name.partition(":")[0] in ("driver", "pool")
        # A thread or a connection may come and go; what leaks does so with each trial or so.
        most = options.most_mb if name.endswith("MB") and is_ours else 50.0
        counted = name.endswith(("descriptors", "threads", "temporary"))
        if (counted or (is_ours and name.endswith("MB"))) and grown > most:
            wrong.append(f"{name} grows by {grown:.1f} in 1,000 trials")
    seconds = time.monotonic() - began
    print(f"\ntrials {soak.finished()}, {seconds:.0f} s, {soak.finished() / seconds:.1f} a second")
    print(f"grown, lost or left behind: {len(wrong)} {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    sys.exit(main())
