"""Let calls that change a study's files fail, or the process die at them, and print what was lost.

    python tests/campaign/faults.py [--minutes=30] [--tries=N] [--seed=1] [--study=NAMES]
                                    [--folder=DIR]

Small studies of each kind are first made undisturbed, and each call that creates, writes, syncs,
renames, links, truncates or removes a file of theirs, or makes a folder, is noted, in the driver
and in Ray's workers (faults.c, preloaded). Then each such call is met by each fault: a full disk
(once, or for a while), EIO, ESTALE, EROFS, a short write, and kill -9 before and after it. The same
command is given again, with the next fault, until the study is finished; its answer must be the
undisturbed one, nothing finished may change on the way, no trial may fail by a fault of the disk,
and nothing may be left behind. All commands run on one Ray.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import errno
import functools
import mmap
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)]

from damage import preload, run_apart  # noqa: E402  (these lie in tests/)
from nodes import Nodes  # noqa: E402
from runningray import DOUBLES_ENVIRONMENT  # noqa: E402
from smallstudies import SmallStudy, campaign_folder, small_studies  # noqa: E402

from w2ltune.files import TEMPORARY_MARK  # noqa: E402

SHORT, KILL_BEFORE, KILL_AFTER = 1001, 1002, 1003
FOR_A_WHILE = 20
FAULTS = {
    "ENOSPC": (errno.ENOSPC, 1), "ENOSPC, 20 calls": (errno.ENOSPC, FOR_A_WHILE),
    "EROFS, 20 calls": (errno.EROFS, FOR_A_WHILE), "EIO": (errno.EIO, 1),
    "ESTALE": (errno.ESTALE, 1),
    "short write": (SHORT, 1), "killed before": (KILL_BEFORE, 1), "killed after": (KILL_AFTER, 1),
}  # fmt: skip
"""The number that the shim knows, and how many calls it meets in all."""

CODES = (0, 1, 2, 75)
HANGS = (-signal.SIGPROF, -signal.SIGALRM)


class Point(NamedTuple):
    """A call: whose, which, on what file (a pattern), and which of several such."""

    role: str
    call: str
    path: str
    nth: int


class Control:
    """What the shim in all processes is told; the layout is that of ``struct control``."""

    LAYOUT = struct.Struct("4q32s32s1024s1024s1024s")

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self.LAYOUT.size)

    def tell(
        self,
        under: Path,
        *,
        point: Point | None = None,
        fault: str = "EIO",
        trace: Path | None = None,
    ) -> None:
        """Let a fault meet a point, or note all calls, or do nothing but count."""
        kind, calls = FAULTS[fault]
        role, call, path, nth = point or ("", "", "", 0)
        texts = (role, call, str(under), path, str(trace or ""))
        self._map[:] = self.LAYOUT.pack(0, nth, calls - 1, kind, *map(os.fsencode, texts))

    def met(self) -> bool:
        """Return whether the fault came."""
        seen, first, *_ = self.LAYOUT.unpack(self._map[:])
        return bool(first and seen >= first)


def pattern(path: str) -> str:
    """Return a pattern for a path of the study: the random part of temporary names left open."""
    path = re.sub(rf"{re.escape(TEMPORARY_MARK)}.*", f"{TEMPORARY_MARK}*", path)
    path = re.sub(r"\.torn-\d+", ".torn-*", path)
    return path.replace("[", "?")


def points_of(trace: Path) -> Iterator[Point]:
    """Yield the points of an undisturbed run; of many of a kind the first three."""
    seen: collections.Counter[tuple[str, ...]] = collections.Counter()
    for line in trace.read_text().splitlines():
        role, call, path = line.split("\t", 2)
        key = (role, call, pattern(path))
        seen[key] += 1
        if role in ("driver", "worker") and seen[key] <= 3:
            yield Point(*key, seen[key])


class Campaign:
    """Studies, met by faults until nothing is left to be tried or the time is over."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.choose = folder, random.Random(options.seed)
        self.tries = options.tries
        self.deadline = time.monotonic() + 60 * options.minutes
        self.control = Control(Path(os.environ["FAULTS_CONTROL"]))
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        self.points: dict[str, int] = {}
        self.wrong: list[str] = []
        self.number = 0

    @functools.cached_property
    def nodes(self) -> Nodes:
        """A Ray whose workers have the shim too."""
        nodes = Nodes(self.folder, head_cores=2, **DOUBLES_ENVIRONMENT)
        assert nodes.environment["RAY_ADDRESS"], "Ray has not started"
        return nodes

    def command(self, study: SmallStudy, place: Path) -> tuple[int, str]:
        """Run a study's command; return its exit code, below 0 for a signal, and what it said."""
        ray = {} if study.module == "w2ltune.rescore" else self.nodes.environment
        status, said = run_apart(
            study.module, study.arguments(place), self.folder, {**ray, "FAULTS_ROLE": "driver"}
        )
        return os.waitstatus_to_exitcode(status), said

    def fresh(self) -> Path:
        self.number += 1
        place = self.folder / f"{self.number:04d}"
        place.mkdir()
        return place

    def meet(self, name: str, study: SmallStudy) -> None:
        """Try all points of a study."""
        undisturbed, trace = self.fresh(), self.folder / f"trace-{self.number}"
        self.control.tell(undisturbed, trace=trace)
        code, said = self.command(study, undisturbed)
        assert code == 0, said
        expected = study.answer(undisturbed)
        points = list(points_of(trace))
        self.points[name] = len(points)
        print(f"{name}: {len(points)} points", flush=True)
        ahead = [(point, fault) for point in points for fault in FAULTS
                 if fault != "short write" or point.call == "write"]  # fmt: skip
        self.choose.shuffle(ahead)
        del ahead[self.tries :]
        while ahead and time.monotonic() < self.share_ends:
            self._one_study(name, study, ahead, expected)

    def _one_study(
        self, name: str, study: SmallStudy, ahead: list[tuple[Point, str]], expected: object
    ) -> None:
        """Make one study in spite of faults, one for each start of the command."""
        place, faults = self.fresh(), list[str]()
        kept: dict[str, bytes] = {}
        while True:
            point, fault = ahead.pop() if ahead and len(faults) < 12 else (None, "EIO")
            self.control.tell(place, point=point, fault=fault)
            code, said = self.command(study, place)
            met = self.control.met()
            label = (
                f"{fault} at {point.call} {point.path} ({point.role}, {point.nth})" if point else ""
            )
            if point and met:
                faults.append(label)
                self.counts[name]["tried"] += 1
                self.counts[name][f"exit {code}"] += 1
            elif point and faults:
                ahead.append((point, fault))  # it was passed before: for the next study
            wrong = list(self._look(study, place, code, said, kept, met, fault))
            self._say(name, wrong, label or "no fault", place)
            if code in HANGS or any(kind == "lost" for kind, _ in wrong):
                return
            if code == 0:
                break
            if not met and code != 0:
                self._say(name, [("stuck", said[-300:])], f"no fault, after {faults[-3:]}", place)
                return
        wrong = []
        self.control.tell(place)
        if any(place.rglob(f".*{TEMPORARY_MARK}*")):  # of a worker: the next start removes it
            self.command(study, place)
        if study.answer(place) != expected:
            wrong.append(("lost", f"another answer than undisturbed, after {faults}"))
        if left := [str(p) for p in place.rglob(f".*{TEMPORARY_MARK}*")]:
            wrong.append(("left", f"{left[:3]} after {faults}"))
        self._say(name, wrong, "at the end", place)
        if not wrong:
            shutil.rmtree(place, ignore_errors=True)

    def _look(
        self, study: SmallStudy, place: Path, code: int, said: str, kept: dict[str, bytes],
        met: bool, fault: str,
    ) -> Iterator[tuple[str, str]]:  # fmt: skip
        """Yield what went wrong in one start."""
        if code in HANGS:
            yield "hang", said[-200:]
        elif code not in CODES and not (code == -9 and fault.startswith("killed")):
            yield "exit code", f"{code}: {said[-200:]}"
        if "Traceback" in said:
            yield "traceback", said.rstrip().rpartition("\n")[2][:200]
        now = study.kept(place)
        lost = [path for path, content in kept.items() if now.get(path) != content]
        done = study.module == "w2ltune.forward" and study.answer(place)  # the shards served
        lost = [path for path in lost if not (done and "/shards/" in path)]
        lost = [path for path in lost if not path.endswith(".bin")]  # old snapshots go
        for path in lost:
            yield "lost", path
        for path, content in now.items():
            if path.endswith("result.json") and b'"FAIL"' in content and path not in kept:
                reason = re.search(rb'"reason": "([^"]*)', content)
                yield "told FAIL", reason[1].decode()[:200] if reason else path
        kept.clear()
        kept.update(now)

    def _say(self, name: str, wrong: list[tuple[str, str]], label: str, place: Path) -> None:
        for kind, detail in wrong:
            self.counts[name][kind] += 1
            self.wrong.append(f"{kind}: {name}: {label}: {' '.join(detail.split())} ({place.name})")
            print(self.wrong[-1], flush=True)

    share_ends = 0.0


def with_shim() -> None:
    """Begin again with the shim, which all processes then have."""
    if "FAULTS_CONTROL" in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="campaign-shim-"))
    shim, source = folder / "faults.so", Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", shim, source, "-ldl"], check=True)
    (folder / "control").write_bytes(bytes(Control.LAYOUT.size))  # before anyone maps it
    variables = {"LD_PRELOAD": str(shim), "FAULTS_CONTROL": str(folder / "control")}
    done = subprocess.run([sys.executable, *sys.argv], env={**os.environ, **variables})
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(done.returncode)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--tries", type=int, default=100_000, help="of each study, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--study", default="", help="parts of their names")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = campaign_folder(options.folder, stack)
        studies = small_studies(folder / "inputs")
        parts = options.study.split(",")
        chosen = {
            name: study for name, study in studies.items() if any(part in name for part in parts)
        }
        campaign = Campaign(folder.resolve(), options)
        preload()
        for number, (name, study) in enumerate(chosen.items()):
            left = campaign.deadline - time.monotonic()
            campaign.share_ends = time.monotonic() + left / (len(chosen) - number)
            campaign.meet(name, study)
    kinds = ["lost", "told FAIL", "left", "traceback", "hang", "stuck", "exit code"]
    codes = ["exit 0", "exit 1", "exit 2", "exit 75", "exit -9"]
    print(f"\n| study | points | tried | {' | '.join([*codes, *kinds])} |")
    print(f"|---|---|---|{'---|' * len([*codes, *kinds])}")
    for name, counts in campaign.counts.items():
        cells = " | ".join(str(counts[kind]) for kind in ["tried", *codes, *kinds])
        print(f"| {name} | {campaign.points[name]} | {cells} |")
    print(f"\n{time.monotonic() - began:.0f} s")
    print(f"lost, failed, tracebacks, hangs, left behind: {len(campaign.wrong)} {campaign.wrong}")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["W2LTUNE_DASHBOARD"] = "0"
    with_shim()
    sys.exit(main())
