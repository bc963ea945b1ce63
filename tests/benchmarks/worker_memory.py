"""Memory of a decoder worker beyond its emissions and LM, and what the workers share.

    python tests/benchmarks/worker_memory.py [--copies=400]

Writes an uncompressed emission file that repeats the dev set many times, runs a real sweep on it
and watches the decoder workers: the peak of what is their own (USS: Ray, Python, numpy, utterance
list, LM and trie, but no emissions) and what they map of the emission file (shared pages).
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import psutil  # noqa: E402
from killing import Sweep  # noqa: E402  (it lies in tests/)

VOICE = REPOSITORY / "experiments" / "voice_commands"


def mapped_bytes(pid: int, name: str, kind: str) -> int:
    """Return the bytes of a mapped file that are in memory, by kind (Rss or Private_Dirty)."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    blocks = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text)
    pattern = re.compile(rf"^{kind}:\s+(\d+) kB", re.MULTILINE)
    found = [pattern.search(block) for block in blocks if name in block.split("\n", 1)[0]]
    return sum(int(match[1]) * 1024 for match in found if match)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=400)
    options = parser.parse_args()

    from w2ltune.formats.emissions import open_emissions, write_emissions

    dev = open_emissions(VOICE / "emissions" / "dev.npz")
    rows = [row.split(" ", 1) for row in (VOICE / "dev.lst").read_text().splitlines()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copies = range(options.copies)
        write_emissions(
            folder / "many.npz",
            ((f"{name}-{copy}", dev.emission(name)) for copy in copies for name in dev.ids),
        )
        (folder / "many.lst").write_text(
            "".join(f"{name}-{copy} {rest}\n" for copy in copies for name, rest in rows)
        )
        size = (folder / "many.npz").stat().st_size
        arguments = [
            "--flagsfile=experiments/voice_commands/decode.cfg", "--test=many.lst", "--n=3",
            f"--emission_dir={folder}", f"--datadir={folder}", f"--logdir={folder}",
            "--beamsize=20", "--pruner=none",
        ]  # fmt: skip
        sweep = Sweep(arguments, REPOSITORY, folder / "log")
        sweep.start()
        own: dict[int, int] = {}
        mapped: dict[int, int] = {}
        while sweep.alive():
            for pid in sweep.victims("worker"):
                with contextlib.suppress(psutil.Error, OSError):
                    own[pid] = max(own.get(pid, 0), psutil.Process(pid).memory_full_info().uss)
                    mapped[pid] = max(mapped.get(pid, 0), mapped_bytes(pid, "many.npz", "Rss"))
            time.sleep(0.2)
        if sweep.wait(10) != 0:
            sys.exit((folder / "log").read_text())
    print(f"emission file {size / 2**20:.0f} MiB, {options.copies * len(dev.ids)} utterances")
    print("| worker | peak of its own memory (USS) MiB | mapped emissions, shared, MiB |")
    print("|---|---|---|")
    for number, pid in enumerate(own):
        print(f"| {number} | {own[pid] / 2**20:.0f} | {mapped[pid] / 2**20:.0f} |")


if __name__ == "__main__":
    main()
