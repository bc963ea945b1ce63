"""Wall time of a 120-trial random sweep over the sum of its decode times per worker.

    python tests/benchmarks/engine_overhead.py [--trials=120] [--beamsize=250]

Ray's start is apart: the clock runs from the first launch of a trial that follows the first result
(all workers are loaded then) to the last result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--beamsize", type=int, default=250)
    options = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "w2ltune.sweep",
            "--flagsfile=experiments/voice_commands/decode.cfg", f"--beamsize={options.beamsize}",
            f"--n={options.trials}", "--sampler=random", "--noprobe", "--heldout=", "--pruner=none",
            f"--logdir={folder}",
        ]  # fmt: skip
        start = time.time()
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        whole = time.time() - start
        paths = sorted(
            Path(folder).glob("*/trials/*/result.json"), key=lambda path: path.stat().st_mtime
        )
        begin = min(p.stat().st_mtime for p in Path(folder).glob("*/trials/*/attempts/*"))
        seconds = [json.loads(path.read_text())["work_seconds"] for path in paths]
        ends = [path.stat().st_mtime for path in paths]
    decode = sum(seconds) / len(seconds)
    print(f"{len(seconds)} decodes of {decode:.2f} CPU s, {workers} workers")
    print("| part | wall s | decode s per worker | ratio |")
    print("|---|---|---|---|")
    for name, first, last, work in (
        ("first launch to last result", begin, ends[-1], sum(seconds)),
        ("after the first result", ends[0], ends[-1], sum(seconds[1:])),
        ("the whole command, Ray's start and end included", start, start + whole, sum(seconds)),
    ):
        wall = last - first
        print(f"| {name} | {wall:.1f} | {work / workers:.1f} | {wall / (work / workers):.2f} |")


if __name__ == "__main__":
    main()
