"""Wall time of a training by w2ltune over that of the bare program, side by side on two cores.

    python tests/benchmarks/train_overhead.py [--iter=5500] [--config=FILE]
    python tests/benchmarks/train_overhead.py --double [--seconds=600]

Both run at the same time, so that whatever else the machine does slows both. The bare program is
`python -m w2ltune.embedded.train` with the same flags, which needs a core for each of the two and
some more for Ray; or the double of the binary, which sleeps instead of computing, as a program
does that leaves the work to a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests")]

from trainingtask import BINARY, make_training, write_config  # noqa: E402  (it lies in tests/)

UPDATE_SECONDS = 0.05
CONFIG = "experiments/voice_commands/train.cfg"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iter", type=int, default=5500)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "w2ltune.embedded.train"]
        if options.double:
            program = [str(BINARY)]
            options.iter = round(options.seconds / UPDATE_SECONDS)
            environment["DOUBLE_UPDATE_SECONDS"] = str(UPDATE_SECONDS)
            flags = make_training(Path(folder) / "data", rows=800)  # an epoch is 10 s
            options.config = write_config(Path(folder), flags)
        bare = [
            *program, "train", f"--flagsfile={options.config}", f"--rundir={folder}/bare",
            f"--iter={options.iter}",
        ]  # fmt: skip
        ours = [
            sys.executable, "-m", "w2ltune.train", f"--config={options.config}",
            f"--root={folder}/runs", f"--extra=--iter={options.iter}", "--cores=1",
            *([f"--binary={BINARY}"] if options.double else []),
        ]  # fmt: skip
        begun = time.monotonic()
        running = {
            name: subprocess.Popen(
                command, cwd=REPOSITORY, env=environment,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for name, command in {"bare": bare, "w2ltune": ours}.items()
        }  # fmt: skip
        seconds: dict[str, float] = {}
        while len(seconds) < 2:
            for name, process in running.items():
                if name not in seconds and process.poll() is not None:
                    seconds[name] = time.monotonic() - begun
                    assert process.returncode == 0, name
            time.sleep(0.02)
        alone = _program_seconds(Path(folder) / "runs")
    print(f"{options.iter} updates\n")
    print("| part | wall s | over the bare program |")
    print("|---|---|---|")
    for name, wall in (
        ("the bare program", seconds["bare"]),
        ("the same program below w2ltune, from its first to its last line", alone),
        ("the whole command: Ray's start and end, snapshots, report", seconds["w2ltune"]),
    ):
        print(f"| {name} | {wall:.1f} | {wall / seconds['bare'] - 1:+.1%} |")
    return 0


def _program_seconds(folder: Path) -> float:
    """Return how long w2ltune's child ran: from the start of its log to its last line."""
    config = next(folder.glob("*/*/001_config"))
    log = config.with_name("001_log")
    return log.stat().st_mtime - config.stat().st_mtime


if __name__ == "__main__":
    sys.exit(main())
