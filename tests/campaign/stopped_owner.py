"""Stop the owner of a study where it writes, let another take over, and wake it.

    python tests/campaign/stopped_owner.py [--task=decode,forward] [--points=30] [--folder=DIR]

At the n-th file that the command itself opens for writing, folder that it makes or file that it
brings to the disk it gets a SIGSTOP. The same command with W2LTUNE_TAKE_OVER brings the study to
its end, and then the first one wakes. Nothing that the new owner left may change. Points are
spread over all writes of an undisturbed run; what stands still between the last look at the lock
and the rename, two system calls later, is out of reach.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from killing import Sweep  # noqa: E402  (these lie in tests/)
from lmtask import hypotheses, write_dump, write_lm  # noqa: E402
from runningray import running_ray  # noqa: E402
from waiting import wait_for  # noqa: E402

from w2ltune.files import TEMPORARY_MARK  # noqa: E402

STOP = """
import os, signal, sys
# Of the command itself: its children begin without the variable.
AT, COUNT, BELOW = [os.environ.pop("STOP_" + n, "") for n in ("AT", "COUNT", "BELOW")]
if BELOW:
    left = int(AT or 0)
    seen = 0

    def point():
        global left, seen
        seen += 1
        if COUNT:
            with open(COUNT, "a") as file:
                file.write(".")
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)

    def look(event, arguments):
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        elif event == "os.mkdir":
            path, writes = arguments[0], True
        else:
            return
        # The folder itself is not meant: what counts lies beside it.
        path = os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes)) else ""
        if writes and path.startswith(BELOW + "/"):
            point()

    sync = os.fsync

    def fsync(descriptor):
        sync(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(BELOW):
            point()

    os.fsync = fsync
    sys.addaudithook(look)
"""
"""A ``sitecustomize.py`` that counts what a command writes, or stops it there."""


class Owners:
    """Runs the same command as often as wanted, each in a folder of its own.

    Args:
        folder: For all of them.
        task: "decode" or "forward".
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.task = task
        self.folder = folder
        self.hook = folder / "hook"
        self.hook.mkdir(parents=True)
        (self.hook / "sitecustomize.py").write_text(STOP)
        if task == "forward":
            self.lm = write_lm(folder / "lm.arpa")

    def prepare(self, name: str) -> tuple[Path, list[str]]:
        """Make a folder; return it, and the arguments of the command."""
        below = self.folder / name
        below.mkdir()
        if self.task == "forward":
            dump = write_dump(below / "dev.hyp", hypotheses(6))
            return below, [f"--hyp={dump}", f"--lm={self.lm}", "--shards=2"]
        return below, [
            "--flagsfile=experiments/voice_commands/decode.cfg", "--beamsize=5", "--sampler=random",
            "--heldout=", "--noprobe", "--n=2", "--concurrent_trials=1", "--pruner=none",
            f"--logdir={below}", "--prefix=study",
        ]  # fmt: skip

    def run(self, below: Path, arguments: list[str], **variables: str) -> Sweep:
        path = os.pathsep.join([str(self.hook), os.environ.get("PYTHONPATH", "")])
        sweep = Sweep(
            arguments, REPOSITORY, below.with_suffix(".log"),
            environment={"PYTHONPATH": path, **running_ray(), **variables},
            module="w2ltune.forward" if self.task == "forward" else "w2ltune.sweep",
        )  # fmt: skip
        sweep.start()
        return sweep

    def count(self) -> int:
        """Return how many points there are."""
        below, arguments = self.prepare("undisturbed")
        count = below.with_suffix(".count")
        first = self.run(below, arguments, STOP_BELOW=str(below), STOP_COUNT=str(count))
        assert first.wait() == 0, first.log.read_text()
        return len(count.read_text())

    def stop_at(self, point: int) -> list[str]:
        """Stop an owner, take over, wake it, and return what was lost by that."""
        below, arguments = self.prepare(f"at-{point}")
        first = self.run(below, arguments, STOP_BELOW=str(below), STOP_AT=str(point))
        assert first.process is not None
        wait_for(lambda: _stopped(first.process.pid) or not first.alive())
        if not first.alive():
            return [] if first.wait() == 0 else [f"ended with {first.wait()}: {first.log}"]
        generations = [int(path.stem) for path in below.rglob("lock/[0-9]*.json")]
        take_over = str(max(generations, default=0))
        second = self.run(below, arguments, W2LTUNE_TAKE_OVER=take_over)
        wrong = []
        try:
            if second.wait() != 0:
                wrong.append(f"the next owner ended with {second.wait()}: {second.log}")
            before = _content(below)
            first.signal(signal.SIGCONT)
            first.wait()
            after = _content(below)
            changed = sorted(name for name in before if after.get(name) != before[name])
            if not generations:  # it was no owner yet, and comes as a third one when it wakes
                own = ("lock/", "study.journal")
                changed = [name for name in changed if not any(part in name for part in own)]
            wrong += [f"{name} {'changed' if name in after else 'is gone'}" for name in changed]
        finally:
            first.end()
            second.end()
        if "Traceback" in first.log.read_text():
            wrong.append(f"a traceback: {first.log}")
        return wrong


def _stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and TEMPORARY_MARK not in path.name
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="decode,forward")
    parser.add_argument("--points", type=int, default=30, help="of each task, at most")
    parser.add_argument("--at", default="", help="only these points, as 1,11")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="campaign-"))).resolve()
    rows, wrong, began = [], [], time.monotonic()
    for task in options.task.split(","):
        owners = Owners(folder / task, task)
        all_points = owners.count()
        tried = min(options.points, all_points)
        points = [1 + k * all_points // tried for k in range(tried)]
        points = [int(point) for point in options.at.split(",") if point] or points
        lost = 0
        for point in points:
            found = [f"{task} at {point}: {text}" for text in owners.stop_at(point)]
            wrong += found
            lost += bool(found)
            print(f"{time.monotonic() - began:6.0f} s  {task} {point} of {all_points}  "
                  f"{found or 'nothing lost'}", flush=True)  # fmt: skip
        rows.append(f"| {task} | {all_points} | {len(points)} | {len(points) - lost} | {lost} |")
    print("\n| task | writes | tried | survived | lost |\n|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\nlost, changed or left behind: {len(wrong)} {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    sys.exit(main())
