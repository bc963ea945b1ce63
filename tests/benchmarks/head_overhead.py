"""What Ray and w2ltune take on the head beside the work, with one worker node and with many.

    python tests/benchmarks/head_overhead.py [--workers=1,64] [--trials=6]

Workers are simulated: each is a Ray node of its own (raylet, agents, one decoder) on this machine.
Memory is what the processes have for themselves (USS) at its highest; processor time is that of a
decode sweep from its first trial to its end, and is told beside that of the decoding itself. The
wall time says nothing here, as all nodes share the machine's cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
DECODE = REPOSITORY / "experiments" / "voice_commands" / "decode.cfg"

KINDS = {
    "GCS": r"gcs/gcs_server",
    "raylet": r"raylet/raylet",
    "dashboard": r"dashboard\.py|ray-dashboard|forkserver|resource_tracker",
    "agents, monitors": r"Agent|monitor",
    "driver": r"w2ltune\.sweep",
    "pool and trials": r"Decoder ?Pool|DecodeTrial|ray::",
}


def kind_of(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, command)), "")


class Sampler:
    """Memory at its highest and processor time of the head's processes, by kind."""

    def __init__(self, cluster: psutil.Process, head: list[psutil.Process]) -> None:
        self.cluster = cluster
        self.head = head
        self.raylet = next(p for p in head if kind_of(p) == "raylet")
        self.memory: dict[str, float] = {}
        self.seconds: dict[int, tuple[str, float]] = {}
        self.first: dict[int, float] = {}

    def look(self, driver: psutil.Process | None) -> None:
        memory: dict[str, float] = {}
        own = [*self.head, *self.raylet.children(recursive=True)]
        if driver is not None:
            own += [driver, *driver.children(recursive=True)]
        for process in {p.pid: p for p in own}.values():
            with contextlib.suppress(psutil.Error):
                if "DecoderWorker" in " ".join(process.cmdline()):
                    continue
                kind = kind_of(process)
                memory[kind] = memory.get(kind, 0) + process.memory_full_info().uss / 2**20
                times = process.cpu_times()
                self.first.setdefault(process.pid, times.user + times.system)
                self.seconds[process.pid] = (kind, times.user + times.system)
        for kind, mib in memory.items():
            self.memory[kind] = max(mib, self.memory.get(kind, 0))

    def processor(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for pid, (kind, seconds) in self.seconds.items():
            found[kind] = found.get(kind, 0) + seconds - self.first[pid]
        return found


def decoding_seconds(cluster: psutil.Process) -> float:
    """Return the processor time that the decoders have used so far."""
    total = 0.0
    for process in cluster.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "DecoderWorker" in " ".join(process.cmdline()):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def measure(workers: int, trials: int) -> tuple[Sampler, float, float, float]:
    """Run a sweep on so many worker nodes.

    Returns:
        The sampler, the seconds it ran, those of decoding by the decoders' processor time, and the
        mebibytes that one worker node takes, its decoder among them.
    """
    program = [sys.executable, str(REPOSITORY / "tests" / "fakecluster.py"), "0"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(program, **pipes) as fake, tempfile.TemporaryDirectory() as folder:  # type: ignore[call-overload]
        address = fake.stdout.readline().strip()
        time.sleep(5)
        cluster = psutil.Process(fake.pid)
        sampler = Sampler(cluster, cluster.children(recursive=True))
        for _ in range(workers):
            fake.stdin.write("add 1\n")
            fake.stdin.flush()
            fake.stdout.readline()
        command = [
            sys.executable, "-m", "w2ltune.sweep", f"--flagsfile={DECODE}", f"--logdir={folder}",
            f"--n={trials}", "--sampler=random", "--pruner=none", "--seed=1", "--beamsize=1500",
            "--probe=false", "--concurrent_trials=1",
        ]  # fmt: skip
        environment = {**os.environ, "RAY_ADDRESS": address}
        with (Path(folder) / "log").open("wb") as log:
            sweep = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log
            )
        driver = psutil.Process(sweep.pid)
        trial = Path(folder) / "voice_commands" / "trials" / "0000"
        while not trial.exists() and sweep.poll() is None:
            time.sleep(0.1)
        began, decoded, node = time.monotonic(), 0.0, 0.0
        while sweep.poll() is None:
            with contextlib.suppress(psutil.Error):
                sampler.look(driver)
                decoded = max(decoded, decoding_seconds(cluster))
            time.sleep(0.5)
            if not node:
                node = node_mib(cluster, sampler, workers)
        seconds = time.monotonic() - began
        if sweep.returncode:
            raise SystemExit((Path(folder) / "log").read_text())
        fake.stdin.close()
    return sampler, seconds, decoded, node


def node_mib(cluster: psutil.Process, sampler: Sampler, workers: int) -> float:
    """Return what one worker node takes, once its decoder is there; 0 before."""
    head = {p.pid for p in [*sampler.head, *sampler.raylet.children(recursive=True)]}
    total, decoders = 0.0, 0
    for process in cluster.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.pid not in head:
                total += process.memory_full_info().uss / 2**20
                decoders += "DecoderWorker" in " ".join(process.cmdline())
    return total / workers if decoders >= workers else 0.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", default="1,64")
    parser.add_argument("--trials", type=int, default=6)
    options = parser.parse_args()
    rows: dict[str, list[str]] = {kind: [] for kind in (*KINDS, "all")}
    heads = []
    for workers in map(int, options.workers.split(",")):
        sampler, seconds, decoded, node = measure(workers, options.trials)
        processor = sampler.processor()
        for kind in KINDS:
            rows[kind] += [f"{sampler.memory.get(kind, 0):.0f}", f"{processor.get(kind, 0):.1f}"]
        rows["all"] += [f"{sum(sampler.memory.values()):.0f}", f"{sum(processor.values()):.1f}"]
        heads += [f"{workers} workers: MiB", "CPU s"]
        work = f"decoders' CPU {decoded:.0f} s with their start"
        print(
            f"{workers} workers: {seconds:.0f} s, {work}, a worker node {node:.0f} MiB", flush=True
        )
    print(f"\n| on the head | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for kind, cells in rows.items():
        print(f"| {kind} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
